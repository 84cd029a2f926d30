// What small rooms cost without any server: RATE times a second, SIZE bytes are sent to SOME of CONNECTIONS loopback
// connections, to all or to others each time, from a thread on core 0. THREADS threads on core 1 read. Prints the sender's CPU
// time per message, with its sleeping and waking.
//
//   cc -O2 -pthread rooms.c -o rooms
//   ./rooms CONNECTIONS SOME RATE SIZE THREADS
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS = 8, READ_BYTES = 1 << 16, EVENTS = 1024 };
static int connections, threads, port;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);
}

// Connects its share and reads whatever comes, with a descriptor table of its own: the limit counts per table.
static void *reader(void *unused) {
  (void)unused;
  struct sockaddr_in addr = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct epoll_event events[EVENTS];
  char *buffer = malloc(READ_BYTES);
  unshare(CLONE_FILES);
  pin(1);
  int epoll = epoll_create1(0);
  for (int i = 0; i < connections / threads; i++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (void *)&addr, sizeof addr)) die("connect");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  }
  for (;;) {
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < ready; i++)
      if (read(events[i].data.fd, buffer, READ_BYTES) <= 0) return 0;
  }
}

static double cpu_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 6) return fprintf(stderr, "usage: rooms CONNECTIONS SOME RATE SIZE THREADS\n"), 2;
  connections = atoi(argv[1]), threads = atoi(argv[5]);
  int some = atoi(argv[2]), rate = atoi(argv[3]), size = atoi(argv[4]), one = 1;

  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof addr;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, (void *)&addr, sizeof addr) || listen(listener, 4096) || getsockname(listener, (void *)&addr, &len))
    die("listen");
  port = ntohs(addr.sin_port);
  for (int i = 0; i < threads; i++) pthread_create(&(pthread_t){0}, 0, reader, 0);
  unshare(CLONE_FILES);
  pin(0);
  int *fds = calloc(connections, sizeof *fds);
  for (int i = 0; i < connections / threads * threads; i++) {
    if ((fds[i] = accept(listener, 0, 0)) < 0) die("accept");
    setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  sleep(1);

  char *frame = calloc(1, size);
  struct timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  double began = cpu_ns();
  long rounds = (long)rate * SECONDS, sent = 0;
  srand(1);
  for (long round = 0; round < rounds; round++) {
    unsigned first = rand();
    for (unsigned i = 0; i < (unsigned)some; i++) {
      unsigned at = some == connections ? i : (first + i * 2654435761u) % connections;
      sent += send(fds[at], frame, size, MSG_DONTWAIT | MSG_NOSIGNAL) == size;
    }
    next.tv_nsec += 1000000000 / rate;
    next.tv_sec += next.tv_nsec / 1000000000;
    next.tv_nsec %= 1000000000;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0);
  }
  printf("%d of %d, %d times a second, %d threads read: %.0f ns a message, %ld of %ld sent\n", some, connections, rate,
         threads, (cpu_ns() - began) / sent, sent, rounds * some);
}
