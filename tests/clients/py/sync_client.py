"""The synchronous python-socketio client over one transport (FANFARE_TRANSPORT), against profile `kit`."""

import queue
import sys
import unittest

import socketio

from support import (AT_ONCE, ATTACHMENTS, EVERY_JSON_TYPE, FINAL_TRANSPORT, LARGE, REFUSAL, SERVER_URL, TRANSPORTS,
                     WAIT_S, burst, mixed)


# This client handles each message on a thread of its own, so that it may overtake itself. Threads that are not
# interrupted finish in the order in which they were started: an attachment does not arrive before its event.
sys.setswitchinterval(0.5)


class Case(unittest.TestCase):
    def client(self):
        """A client that leaves when the test ends."""
        client = socketio.Client(reconnection=False)
        self.addCleanup(client.disconnect)
        return client

    def connect(self, client=None, namespaces=('/',), auth=None):
        client = client or self.client()
        client.connect(SERVER_URL, transports=TRANSPORTS, namespaces=list(namespaces), auth=auth, wait_timeout=WAIT_S)
        return client

    def inbox(self, client, event, namespace='/'):
        """A queue with the arguments of each `event`, from now on."""
        events = queue.Queue()
        client.on(event, lambda *args: events.put(list(args)), namespace=namespace)
        return events

    def take(self, inbox):
        try:
            return inbox.get(timeout=WAIT_S)
        except queue.Empty:
            self.fail(f'no event within {WAIT_S} s')

    def call(self, client, event, *args, namespace='/'):
        """The answer to an event: one value, or a tuple of several."""
        return client.call(event, args, namespace=namespace, timeout=WAIT_S)


class Events(Case):
    def test_client_and_server_agree_on_ids_transport_and_protocol(self):
        client = self.connect()
        who = self.call(client, 'whoami')
        self.assertEqual(who['sid'], client.get_sid())
        self.assertEqual(who['eid'], client.eio.sid)
        self.assertEqual((who['transport'], who['protocol']), (FINAL_TRANSPORT, 4))
        self.assertEqual(client.transport(), FINAL_TRANSPORT)

    def test_arguments_of_every_json_type_come_back_equal(self):
        client = self.connect()
        echo = self.inbox(client, 'echo')
        client.emit('echo', tuple(EVERY_JSON_TYPE))
        self.assertEqual(self.take(echo), EVERY_JSON_TYPE)

    def test_attachments_come_back_with_the_same_bytes_in_their_place(self):
        client = self.connect()
        echo = self.inbox(client, 'echo')
        client.emit('echo', tuple(ATTACHMENTS))
        self.assertEqual(self.take(echo), ATTACHMENTS)

    def test_mixed_events_from_the_client_come_back_in_order(self):
        client = self.connect()
        echo = self.inbox(client, 'echo')
        for first in range(0, 10 * AT_ONCE, AT_ONCE):
            events = [[mixed(i)] for i in range(first, first + AT_ONCE)]
            for event in events:
                client.emit('echo', event[0])
            self.assertEqual([self.take(echo) for _ in events], events)

    def test_mixed_events_from_the_server_arrive_in_order(self):
        client = self.connect()
        inbox = self.inbox(client, 'b')
        for _ in range(10):
            client.emit('burst', AT_ONCE)
            self.assertEqual([self.take(inbox) for _ in range(AT_ONCE)], burst(AT_ONCE))

    def test_large_text_and_binary_pass_both_ways(self):
        client = self.connect()
        for data in ('é' * (LARGE // 2), b'fanfare' * (LARGE // 7)):
            self.assertTrue(self.call(client, 'echo', data) == data, type(data))
        self.assertTrue(self.call(client, 'big', LARGE) == 'x' * LARGE, 'the text of the server')
        self.assertTrue(self.call(client, 'bigbin', LARGE) == b'\7' * LARGE, 'the bytes of the server')


class Acks(Case):
    def test_the_server_answers(self):
        client = self.connect()
        self.assertEqual(self.call(client, 'echo', 1), 1)
        self.assertEqual(self.call(client, 'echo', 1, None, {'a': 2}), (1, None, {'a': 2}))

    def test_the_server_answers_with_attachments(self):
        client = self.connect()
        self.assertEqual(self.call(client, 'echo', *ATTACHMENTS), tuple(ATTACHMENTS))

    def test_the_client_answers(self):
        client = self.connect()
        client.on('add', lambda a, b: (a + b, 'sum'))
        self.assertEqual(self.call(client, 'ask', 'add', 40, 2), {'ok': True, 'vals': [42, 'sum']})

    def test_the_client_answers_with_attachments(self):
        client = self.connect()
        client.on('append', lambda data: {'sum': data + b'\x09'})
        answer = self.call(client, 'ask', 'append', b'\1\2')
        self.assertEqual(answer, {'ok': True, 'vals': [{'sum': b'\1\2\x09'}]})

    def test_the_client_times_out_when_the_server_never_answers(self):
        client = self.connect()
        with self.assertRaises(socketio.exceptions.TimeoutError):
            client.call('throw-away', timeout=0.1)
        self.assertEqual(self.call(client, 'echo', 'still here'), 'still here')

    def test_the_client_answers_what_it_does_not_handle_with_nothing(self):
        client = self.connect()
        self.assertEqual(self.call(client, 'ask', 'question'), {'ok': True, 'vals': []})


class Namespaces(Case):
    def test_two_namespaces_share_one_connection_and_have_their_own_sockets(self):
        client = self.connect(namespaces=['/', '/custom'])
        main, custom = self.call(client, 'whoami'), self.call(client, 'whoami', namespace='/custom')
        self.assertEqual(main['eid'], custom['eid'])
        self.assertEqual((main['sid'], custom['sid']), (client.get_sid('/'), client.get_sid('/custom')))
        self.assertNotEqual(main['sid'], custom['sid'])

    def test_events_stay_in_their_namespace(self):
        client = self.connect(namespaces=['/', '/custom'])
        main, custom = self.inbox(client, 'echo'), self.inbox(client, 'echo', namespace='/custom')
        client.emit('echo', b'for custom', namespace='/custom')
        self.assertEqual(self.take(custom), [b'for custom'])
        client.emit('echo', b'for main')
        self.assertEqual(self.take(main), [b'for main'])

    def test_an_unknown_namespace_is_refused(self):
        client = self.client()
        refused = self.inbox(client, 'connect_error', namespace='/nowhere')
        with self.assertRaises(socketio.exceptions.ConnectionError):
            self.connect(client, namespaces=['/nowhere'])
        self.assertEqual(self.take(refused), [{'message': 'Invalid namespace'}])

    def test_the_right_token_is_accepted_and_the_server_sees_the_whole_auth(self):
        auth = {'token': 'secret', 'name': 'Ада', 'nested': {'list': [1, 2]}}
        client = self.client()
        welcome = self.inbox(client, 'welcome', namespace='/auth')
        self.connect(client, namespaces=['/auth'], auth=auth)
        self.assertEqual(self.take(welcome), [auth])

    def test_a_wrong_token_is_refused_with_message_and_data(self):
        client = self.client()
        refused = self.inbox(client, 'connect_error', namespace='/auth')
        with self.assertRaises(socketio.exceptions.ConnectionError):
            self.connect(client, namespaces=['/auth'], auth={'token': 'wrong'})
        self.assertEqual(self.take(refused), [REFUSAL])


class Rooms(Case):
    def assert_receives(self, crew, how, target, times):
        """The first of `crew` sends one event; each receives it as often as `times` says.

        A last event, to each socket's own room, shows that nothing else is under way.
        """
        news, ends = [[self.inbox(client, event) for client in crew] for event in ('news', 'end')]
        self.call(crew[0], how, target, 'news', b'attached')
        self.call(crew[0], 'in', {'rooms': [client.get_sid() for client in crew]}, 'end')
        for inbox, end, count in zip(news, ends, times, strict=True):
            self.assertEqual([self.take(inbox) for _ in range(count)], [[b'attached']] * count)
            self.take(end)
            self.assertTrue(inbox.empty(), 'received more often')

    def crew(self):
        return [self.connect() for _ in range(3)]

    def test_join_and_leave_answer_with_the_rooms_of_the_socket(self):
        client = self.connect()
        self.assertEqual(self.call(client, 'join', 'one'), ['one'])
        self.assertEqual(self.call(client, 'join', 'two'), ['one', 'two'])
        self.assertEqual(self.call(client, 'leave', 'one'), ['two'])

    def test_to_a_room_reaches_its_members_without_the_sender(self):
        crew = self.crew()
        for client in crew[:2]:
            self.call(client, 'join', 'r')
        self.assert_receives(crew, 'to', {'rooms': ['r']}, [0, 1, 0])

    def test_in_a_room_reaches_its_members_and_the_sender_among_them(self):
        crew = self.crew()
        for client in crew[:2]:
            self.call(client, 'join', 'r')
        self.assert_receives(crew, 'in', {'rooms': ['r']}, [1, 1, 0])

    def test_a_socket_in_two_rooms_receives_once(self):
        crew = self.crew()
        for client in crew:
            self.call(client, 'join', 'r1')
            self.call(client, 'join', 'r2')
        self.assert_receives(crew, 'in', {'rooms': ['r1', 'r2']}, [1, 1, 1])

    def test_except_removes_the_members_of_a_room(self):
        crew = self.crew()
        self.call(crew[1], 'join', 'quiet')
        self.assert_receives(crew, 'in', {'except': ['quiet']}, [1, 0, 1])

    def test_who_has_left_receives_nothing(self):
        crew = self.crew()
        for client in crew[1:]:
            self.call(client, 'join', 'r')
        self.call(crew[1], 'leave', 'r')
        self.assert_receives(crew, 'to', {'rooms': ['r']}, [0, 0, 1])

    def test_a_sockets_own_room_reaches_that_socket_alone(self):
        crew = self.crew()
        self.assert_receives(crew, 'to', {'rooms': [crew[2].get_sid()]}, [0, 0, 1])


class Disconnects(Case):
    def test_the_server_disconnects_one_namespace_and_the_connection_stays(self):
        client = self.connect(namespaces=['/', '/custom'])
        sid = client.get_sid('/custom')
        ended = self.inbox(client, 'disconnect', namespace='/custom')
        client.emit('kick', False, namespace='/custom')
        self.assertEqual(self.take(ended), [client.reason.SERVER_DISCONNECT])
        self.assertEqual(self.call(client, 'reason-of', sid), 'server namespace disconnect')

    def test_the_server_disconnects_and_closes_the_connection(self):
        client, witness = self.connect(), self.connect()
        sid = client.get_sid()
        ended = self.inbox(client, 'disconnect')
        client.emit('kick', True)
        self.assertEqual(self.take(ended), [client.reason.SERVER_DISCONNECT])
        self.assertEqual(self.call(witness, 'reason-of', sid), 'server namespace disconnect')

    def test_the_client_disconnects(self):
        client, witness = self.connect(), self.connect()
        sid = client.get_sid()
        # while a POST of it is being answered, this client would forget to send what disconnect() queues
        client.eio.queue.join()
        client.disconnect()
        # this client closes the connection at once: sometimes its last packet does not leave before
        self.assertIn(self.call(witness, 'reason-of', sid), ['client namespace disconnect', 'transport close'])

    def test_a_client_comes_back_with_a_new_id(self):
        client = self.connect()
        sid = client.get_sid()
        client.disconnect()
        self.connect(client)
        self.assertNotEqual(client.get_sid(), sid)
        self.assertEqual(self.call(client, 'echo', 1), 1)


if __name__ == '__main__':
    unittest.main()
