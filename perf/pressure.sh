#!/usr/bin/env bash
# Pressure: what slow clients, storms and a drain cost, as records of loadtest in perf/out/.
#
#   build ─▶ fanfare serve, on a free port ◀─ loadtest --workload … ─▶ perf/out/pressure-FIGURE.json
#                   │ once a second                                          │
#                   └─ GET /api/stats ─▶ pressure-FIGURE.stats.jsonl         └─▶ the figure, in a line
#
# Each figure has servers of its own. Nothing is pinned: the kernel shares the cores between server and load. Those who
# read stand for clients elsewhere, whom no server keeps from reading: where that is allowed, they have the cores first.
set -euo pipefail

usage() {
    cat << 'END'
Usage: perf/pressure.sh [OPTIONS] [FIGURE...] [-- LOADTEST FLAGS...]

Measures, each with servers of its own on free ports, and writes perf/out/pressure-FIGURE.json, and what the server said of
itself in each second to perf/out/pressure-FIGURE.stats.jsonl. All of them, unless named:

  stall      10,000 clients, 100 messages/s of 1 KB for 60 s; one of ten stops reading, policy drop-oldest, no eviction.
             Memory per stalled client, and last receivers, against the same run in which nobody stalls, --rounds times
             over (stall-1, still-1 and so on)
  evict      the same with the default policy: how many stalled clients were evicted, and how long that took
  conflate   5,000 clients, 100 keys, 1,000 values/s for 30 s, in a room with a window of 200 ms, against the same
             without keys and window (conflate-raw): the server's CPU time of both
  storm      50,000 of 55,556 clients drop at once and come back, --rounds times over: how long that takes, what was refused,
             and the last receivers of the rooms of the others before, during and after (storm-1, storm-2 and so on)
  drain      50,000 clients; the server is ended with SIGTERM and drains for 30 s, and they go on to a second one: how
             many arrive there in each second

  --rounds N    so many storms, and pairs of runs with and without stalled clients; an odd number (default: 5)
  --scale S     so many of these clients: 1, which is all, or a share like 0.01 to try it out (default: 1)
  --debug       the development build, to try it out
  -h, --help    this text

Further flags go to every run of loadtest:   perf/pressure.sh stall -- --rate 20 --duration 30s
Options of the server are taken from FANFARE_... variables:   FANFARE_WORKERS=1 perf/pressure.sh conflate

Exit code: 0 all records are written and nothing was lost; 1 a step failed or a run found faults, and a line says which;
2 wrong usage. A run that is INVALID says so, and its delays are no figures.
END
}

# How long a server may take until it listens, and to end; and loadtest to connect everyone.
ready_seconds_max=10
end_seconds_max=60
connected_seconds_max=300
# So many storms, and so many pairs of runs with and without stalled clients: what is told are medians.
rounds=5

say() { printf 'pressure: %s\n' "$*" >&2; }
fail() { say "$1"; exit "${2:-1}"; }

scale=1
profile=release
figures=()
load_flags=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --rounds) rounds=${2-}; shift ;;
        --scale) scale=${2-}; shift ;;
        --debug) profile=debug ;;
        --) shift; load_flags=("$@"); break ;;
        -*) fail "'$1' is no option; see perf/pressure.sh --help (flags of loadtest go behind --)" 2 ;;
        stall | evict | conflate | storm | drain) figures+=("$1") ;;
        *) fail "'$1' is no figure; there are stall, evict, conflate, storm and drain" 2 ;;
    esac
    shift || fail '--scale and --rounds need a number' 2
done
[ ${#figures[@]} -gt 0 ] || figures=(stall evict conflate storm drain)
[[ $scale =~ ^(1|1\.0+|0?\.[0-9]*[1-9][0-9]*)$ ]] || fail "--scale needs a number above 0 and up to 1, not '$scale'" 2
[[ $rounds =~ ^[0-9]*[13579]$ ]] || fail "--rounds needs an odd number, not '$rounds'" 2

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
out=perf/out
work=
readers_first=()
server_pids=()
loader=
faults=0

# Ends what this script has started, and nothing else.
stop() {
    for pid in $(jobs -pr); do kill -KILL "$pid" 2> /dev/null || true; done
    wait
}
# shellcheck source=perf/started.sh
. perf/started.sh

# clients FULL: the number at this scale.
clients() { awk -v full="$1" -v scale="$scale" 'BEGIN { n = int(full * scale + 0.5); print (n < 10 ? 10 : n) }'; }

# field NAME RECORD [OBJECT]: the first number of this name, behind the object's name if there is one; 0 if it is absent.
field() {
    local text
    text=$(tr -d ' \n' < "$out/pressure-$2.json")
    [ -z "${3-}" ] || text=${text#*\"$3\":\{}
    awk -v name="\"$1\":" '
        { at = index($0, name); if (at) text = substr($0, at + length(name)) }
        END { print (match(text, /^[0-9.]+/) ? substr(text, 1, RLENGTH) : 0) }' <<< "$text"
}

# number NAME RECORD [OBJECT]: the same with one digit behind the point.
number() { field "$@" | xargs printf '%.1f'; }

# text_field NAME RECORD: a text; nothing if it is absent.
text_field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$out/pressure-$2.json"; }

# median FILE: of its lines, which are numbers; there is an odd number of them.
median() { sort -n "$1" | sed -n "$((($(wc -l < "$1") + 1) / 2))p"; }

megabytes() { awk -v bytes="$1" 'BEGIN { printf "%.1f MB", bytes / 1048576 }'; }

# serve NAME FLAGS...: starts a server; its process is $pid and its address $url.
serve() {
    local name=$1
    shift
    "$target/$profile/fanfare" serve --listen 127.0.0.1:0 "$@" > "$work/$name.out" 2> "$work/$name.err" &
    pid=$!
    server_pids+=("$pid")
    wait_for "$work/$name.out" 'listens on' "$pid" "$ready_seconds_max" \
        || fail "the server $name does not listen: $(last_line "$work/$name.err")"
    url=$(grep -o 'http://[0-9.]*:[0-9]*' "$work/$name.out" | head -n 1)
}

# end_servers: asks them to end, and insists after a while.
end_servers() {
    local pid
    for pid in "${server_pids[@]}"; do
        # The second signal ends a server that drains.
        kill -TERM "$pid" 2> /dev/null || true
        sleep 0.2
        kill -TERM "$pid" 2> /dev/null || true
        for _ in $(seq $((end_seconds_max * 10))); do running "$pid" || break; sleep 0.1; done
        kill -KILL "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    done
    server_pids=()
}

# stats_until_end NAME URL PID: what the server counts, a line per second, as long as the process runs.
stats_until_end() {
    : > "$out/pressure-$1.stats.jsonl"
    while running "$3"; do
        curl -sS --max-time 5 --write-out '\n' "$2/api/stats" >> "$out/pressure-$1.stats.jsonl" || true
        sleep 1
    done
}

# most NAME RECORD: the largest number of this name in the lines of the server.
most() { grep -o "\"$1\":[0-9]*" "$out/pressure-$2.stats.jsonl" | cut -d : -f 2 | sort -n | tail -n 1 || echo 0; }

# begin_load NAME URL WORKLOAD FLAGS...: starts a run with its record; its process is $loader.
begin_load() {
    local name=$1 url=$2 workload=$3
    shift 3
    rm -f "$out/pressure-$name.json"
    say "$name: loadtest $url --workload $workload $* ${load_flags[*]-}"
    "${readers_first[@]}" "$target/$profile/loadtest" "$url" --workload "$workload" "$@" --json "$out/pressure-$name.json" \
        "${load_flags[@]}" > "$work/load.out" 2> "$work/load.err" &
    loader=$!
}

# load NAME URL WORKLOAD FLAGS...: a whole run.
load() {
    begin_load "$@"
    end_load "$1" "$2"
}

# end_load NAME URL: waits for its end. Faults, and what could not be done, are told and kept in mind.
end_load() {
    local code=0
    stats_until_end "$1" "$2" "$loader"
    wait "$loader" || code=$?
    finished "$1" "$code"
}

# finished NAME CODE: shows the end of a run.
finished() {
    sed -n '/^$/,$p' "$work/load.out" >&2
    cat "$work/load.err" >&2
    [ -s "$out/pressure-$1.json" ] || fail "$1: loadtest wrote no record (code $2)"
    if [ "$2" -ne 0 ]; then
        faults=1
        say "$1: loadtest ended with code $2"
    fi
    local invalid
    invalid=$(text_field invalid "$1")
    [ -z "$invalid" ] || say "$1: INVALID, $invalid"
}

measure_stall() {
    local n pid url run variant stalled with without shared per_client
    n=$(clients 10000)
    for run in $(seq "$rounds"); do
        # Who does not read must stay: no eviction, and neither heartbeat nor kernel ends it.
        for variant in still stall; do
            serve "$variant-$run" --policy drop-oldest --ping-interval 1h --ping-timeout 1h --ping-spread=false \
                --tcp-user-timeout 0 --connections-max $((n * 3 / 2))
            if [ $variant = stall ]; then set --; else set -- --still; fi
            load "$variant-$run" "$url" stall --connections "$n" --server-pid "$pid" "$@"
            end_servers
            echo "$(number p99 "$variant-$run" last)" >> "$work/stall.$variant"
        done
        # Each worker counts the same bytes.
        shared=$(($(most waiting_bytes "stall-$run") / $(most workers "stall-$run")))
        stalled=$(field moves "stall-$run" moved)
        with=$(field resident_max "stall-$run") without=$(field resident_max "still-$run")
        per_client=$(awk -v a="$with" -v b="$without" -v shared="$shared" -v n="$stalled" \
            'BEGIN { printf "%.0f", n ? (a - b - shared) / n : 0 }')
        echo "$per_client" >> "$work/stall.bytes"
        say "stall: $stalled stalled, $(field ended "stall-$run" moved) of them ended by the server; memory at most" \
            "$(megabytes "$with"), without them $(megabytes "$without"), one copy of the backlog $(megabytes "$shared"):" \
            "$per_client bytes per stalled client beyond that"
        say "stall: last receivers p99 $(number p99 "stall-$run" last) ms, without them $(number p99 "still-$run" last) ms;" \
            "lost $(field count "stall-$run" lost)"
    done
    say "stall: medians of $rounds runs: $(median "$work/stall.bytes") bytes, p99 $(median "$work/stall.stall") ms," \
        "without them $(median "$work/stall.still") ms"
}

measure_evict() {
    local n pid url
    n=$(clients 10000)
    # Otherwise the kernel or a heartbeat may be first, and the limits on backlogs are not what is measured.
    serve evict --ping-interval 1h --ping-timeout 1h --ping-spread=false --tcp-user-timeout 0 --connections-max $((n * 3 / 2))
    load evict "$url" stall --connections "$n" --server-pid "$pid"
    end_servers
    say "evict: $(field moves evict moved) stalled, $(field ended evict moved) ended by the server," \
        "$(most evicted evict) evicted, $(field samples evict ended_ms) seen at once, after $(number max evict ended_ms) ms at most;" \
        "of the others $(field closed evict counts) closed, lost $(field count evict lost)"
}

measure_conflate() {
    local n pid url
    n=$(clients 5000)
    printf '[namespaces."/".rooms."prices"]\nconflate_every = "200ms"\n' > "$work/window.toml"
    serve conflate --config "$work/window.toml" --connections-max $((n * 3 / 2))
    load conflate "$url" conflate --connections "$n" --server-pid "$pid"
    end_servers
    serve conflate-raw --connections-max $((n * 3 / 2))
    load conflate-raw "$url" conflate --keys 0 --connections "$n" --server-pid "$pid"
    end_servers
    local with without
    with=$(field cpu_publishing_s conflate) without=$(field cpu_publishing_s conflate-raw)
    say "conflate: CPU $(number cpu_publishing_s conflate) s for $(field delivered conflate) deliveries, $(field conflated conflate) conflated; raw" \
        "$(number cpu_publishing_s conflate-raw) s for $(field delivered conflate-raw):" \
        "$(awk -v a="$without" -v b="$with" 'BEGIN { printf "%.1f", b ? a / b : 0 }') times"
}

measure_storm() {
    local n pid url run part
    n=$(clients 55556)
    for run in $(seq "$rounds"); do
        # A fifth more than there are: each 20,000 may need a table, so a worker, of their own.
        serve "storm-$run" --connections-max $((n * 6 / 5))
        load "storm-$run" "$url" storm --connections "$n" --ramp 4000/s --server-pid "$pid"
        end_servers
        for part in before during after; do echo "$(number p99 "storm-$run" "${part}_ms")" >> "$work/storm.$part"; done
        say "storm: $(field moves "storm-$run" moved) dropped, all back in $(number all_back_s "storm-$run") s," \
            "refused $(field refused "storm-$run" moved), not back $(field away "storm-$run" moved); last receivers of" \
            "the others p99 $(number p99 "storm-$run" before_ms) ms before, $(number p99 "storm-$run" during_ms) ms" \
            "meanwhile, $(number p99 "storm-$run" after_ms) ms after"
    done
    say "storm: medians of $rounds runs: p99 $(median "$work/storm.before") ms before," \
        "$(median "$work/storm.during") ms meanwhile, $(median "$work/storm.after") ms after"
}

measure_drain() {
    local n pid url first first_url second_url
    n=$(clients 50000)
    serve drain-first --connections-max $((n * 3 / 2)) --drain-time 30s
    first=$pid first_url=$url
    serve drain-second --connections-max $((n * 2))
    second_url=$url
    begin_load drain "$first_url" drain --then "$second_url" --connections "$n" --ramp 4000/s --duration 45s \
        --server-pid "$pid"
    wait_for "$work/load.out" ' published ' "$loader" "$connected_seconds_max" \
        || fail "drain: not all clients connected: $(last_line "$work/load.out" "$work/load.err")"
    kill -TERM "$first"
    end_load drain "$second_url"
    end_servers
    say "drain: $(field moves drain moved) let go, $(number mean drain left) per second," \
        "$(field largest drain left) in the fullest; at the second server $(number mean drain asked) and" \
        "$(field largest drain asked) ($(awk -v a="$(field largest drain asked)" -v b="$(field mean drain asked)" \
        'BEGIN { printf "%.2f", b ? a / b : 0 }') times the mean); refused $(field refused drain moved)," \
        "not back $(field away drain moved)"
}

command -v curl > /dev/null || fail 'curl is missing; install it, on Debian: apt-get install curl' 2
build_flags=()
[ $profile = debug ] || build_flags=(--release)
say "building the server and loadtest ($profile)"
cargo build --quiet "${build_flags[@]}" --package fanfare --bin fanfare || fail 'the server does not build'
cargo build --quiet "${build_flags[@]}" --package loadtest || fail 'loadtest does not build'

mkdir -p "$out"
work=$(mktemp -d)
# A connection is a descriptor, and the limit of one table is the system's.
ulimit -n "$(ulimit -Hn)"
if chrt --fifo 20 true 2> /dev/null; then readers_first=(chrt --fifo 20); fi

for figure in "${figures[@]}"; do "measure_$figure"; done
exit $faults
