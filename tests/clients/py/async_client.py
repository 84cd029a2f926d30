"""The asyncio python-socketio client over one transport (FANFARE_TRANSPORT), against profile `kit`."""

import asyncio
import unittest

import socketio

from support import (AT_ONCE, ATTACHMENTS, EVERY_JSON_TYPE, FINAL_TRANSPORT, LARGE, REFUSAL, SERVER_URL, TRANSPORTS,
                     WAIT_S, burst, mixed)


class Case(unittest.IsolatedAsyncioTestCase):
    def client(self):
        """A client that leaves when the test ends."""
        client = socketio.AsyncClient(reconnection=False)
        self.addAsyncCleanup(client.disconnect)
        return client

    async def connect(self, client=None, namespaces=('/',), auth=None):
        client = client or self.client()
        await client.connect(SERVER_URL, transports=TRANSPORTS, namespaces=list(namespaces), auth=auth,
                             wait_timeout=WAIT_S)
        return client

    def inbox(self, client, event, namespace='/'):
        """A queue with the arguments of each `event`, from now on."""
        events = asyncio.Queue()
        client.on(event, lambda *args: events.put_nowait(list(args)), namespace=namespace)
        return events

    async def take(self, inbox):
        try:
            return await asyncio.wait_for(inbox.get(), WAIT_S)
        except asyncio.TimeoutError:
            self.fail(f'no event within {WAIT_S} s')

    async def call(self, client, event, *args, namespace='/'):
        """The answer to an event: one value, or a tuple of several."""
        return await client.call(event, args, namespace=namespace, timeout=WAIT_S)


class Events(Case):
    async def test_client_and_server_agree_on_ids_transport_and_protocol(self):
        client = await self.connect()
        who = await self.call(client, 'whoami')
        self.assertEqual(who['sid'], client.get_sid())
        self.assertEqual(who['eid'], client.eio.sid)
        self.assertEqual((who['transport'], who['protocol']), (FINAL_TRANSPORT, 4))
        self.assertEqual(client.transport(), FINAL_TRANSPORT)

    async def test_arguments_of_every_json_type_come_back_equal(self):
        client = await self.connect()
        echo = self.inbox(client, 'echo')
        await client.emit('echo', tuple(EVERY_JSON_TYPE))
        self.assertEqual(await self.take(echo), EVERY_JSON_TYPE)

    async def test_attachments_come_back_with_the_same_bytes_in_their_place(self):
        client = await self.connect()
        echo = self.inbox(client, 'echo')
        await client.emit('echo', tuple(ATTACHMENTS))
        self.assertEqual(await self.take(echo), ATTACHMENTS)

    async def test_mixed_events_from_the_client_come_back_in_order(self):
        client = await self.connect()
        echo = self.inbox(client, 'echo')
        for first in range(0, 10 * AT_ONCE, AT_ONCE):
            events = [[mixed(i)] for i in range(first, first + AT_ONCE)]
            for event in events:
                await client.emit('echo', event[0])
            self.assertEqual([await self.take(echo) for _ in events], events)

    async def test_mixed_events_from_the_server_arrive_in_order(self):
        client = await self.connect()
        inbox = self.inbox(client, 'b')
        for _ in range(10):
            await client.emit('burst', AT_ONCE)
            self.assertEqual([await self.take(inbox) for _ in range(AT_ONCE)], burst(AT_ONCE))

    async def test_large_text_and_binary_pass_both_ways(self):
        client = await self.connect()
        for data in ('é' * (LARGE // 2), b'fanfare' * (LARGE // 7)):
            self.assertTrue(await self.call(client, 'echo', data) == data, type(data))
        self.assertTrue(await self.call(client, 'big', LARGE) == 'x' * LARGE, 'the text of the server')
        self.assertTrue(await self.call(client, 'bigbin', LARGE) == b'\7' * LARGE, 'the bytes of the server')


class Acks(Case):
    async def test_the_server_answers(self):
        client = await self.connect()
        self.assertEqual(await self.call(client, 'echo', 1), 1)
        self.assertEqual(await self.call(client, 'echo', 1, None, {'a': 2}), (1, None, {'a': 2}))

    async def test_the_server_answers_with_attachments(self):
        client = await self.connect()
        self.assertEqual(await self.call(client, 'echo', *ATTACHMENTS), tuple(ATTACHMENTS))

    async def test_the_client_answers(self):
        client = await self.connect()
        client.on('add', lambda a, b: (a + b, 'sum'))
        self.assertEqual(await self.call(client, 'ask', 'add', 40, 2), {'ok': True, 'vals': [42, 'sum']})

    async def test_the_client_answers_with_attachments(self):
        client = await self.connect()
        client.on('append', lambda data: {'sum': data + b'\x09'})
        answer = await self.call(client, 'ask', 'append', b'\1\2')
        self.assertEqual(answer, {'ok': True, 'vals': [{'sum': b'\1\2\x09'}]})

    async def test_the_client_times_out_when_the_server_never_answers(self):
        client = await self.connect()
        with self.assertRaises(socketio.exceptions.TimeoutError):
            await client.call('throw-away', timeout=0.1)
        self.assertEqual(await self.call(client, 'echo', 'still here'), 'still here')

    async def test_the_client_answers_what_it_does_not_handle_with_nothing(self):
        client = await self.connect()
        self.assertEqual(await self.call(client, 'ask', 'question'), {'ok': True, 'vals': []})


class Namespaces(Case):
    async def test_two_namespaces_share_one_connection_and_have_their_own_sockets(self):
        client = await self.connect(namespaces=['/', '/custom'])
        main, custom = await self.call(client, 'whoami'), await self.call(client, 'whoami', namespace='/custom')
        self.assertEqual(main['eid'], custom['eid'])
        self.assertEqual((main['sid'], custom['sid']), (client.get_sid('/'), client.get_sid('/custom')))
        self.assertNotEqual(main['sid'], custom['sid'])

    async def test_events_stay_in_their_namespace(self):
        client = await self.connect(namespaces=['/', '/custom'])
        main, custom = self.inbox(client, 'echo'), self.inbox(client, 'echo', namespace='/custom')
        await client.emit('echo', b'for custom', namespace='/custom')
        self.assertEqual(await self.take(custom), [b'for custom'])
        await client.emit('echo', b'for main')
        self.assertEqual(await self.take(main), [b'for main'])

    async def test_an_unknown_namespace_is_refused(self):
        client = self.client()
        refused = self.inbox(client, 'connect_error', namespace='/nowhere')
        with self.assertRaises(socketio.exceptions.ConnectionError):
            await self.connect(client, namespaces=['/nowhere'])
        self.assertEqual(await self.take(refused), [{'message': 'Invalid namespace'}])

    async def test_the_right_token_is_accepted_and_the_server_sees_the_whole_auth(self):
        auth = {'token': 'secret', 'name': 'Ада', 'nested': {'list': [1, 2]}}
        client = self.client()
        welcome = self.inbox(client, 'welcome', namespace='/auth')
        await self.connect(client, namespaces=['/auth'], auth=auth)
        self.assertEqual(await self.take(welcome), [auth])

    async def test_a_wrong_token_is_refused_with_message_and_data(self):
        client = self.client()
        refused = self.inbox(client, 'connect_error', namespace='/auth')
        with self.assertRaises(socketio.exceptions.ConnectionError):
            await self.connect(client, namespaces=['/auth'], auth={'token': 'wrong'})
        self.assertEqual(await self.take(refused), [REFUSAL])


class Rooms(Case):
    async def assert_receives(self, crew, how, target, times):
        """The first of `crew` sends one event; each receives it as often as `times` says.

        A last event, to each socket's own room, shows that nothing else is under way.
        """
        news, ends = [[self.inbox(client, event) for client in crew] for event in ('news', 'end')]
        await self.call(crew[0], how, target, 'news', b'attached')
        await self.call(crew[0], 'in', {'rooms': [client.get_sid() for client in crew]}, 'end')
        for inbox, end, count in zip(news, ends, times, strict=True):
            self.assertEqual([await self.take(inbox) for _ in range(count)], [[b'attached']] * count)
            await self.take(end)
            self.assertTrue(inbox.empty(), 'received more often')

    async def crew(self):
        return [await self.connect() for _ in range(3)]

    async def test_join_and_leave_answer_with_the_rooms_of_the_socket(self):
        client = await self.connect()
        self.assertEqual(await self.call(client, 'join', 'one'), ['one'])
        self.assertEqual(await self.call(client, 'join', 'two'), ['one', 'two'])
        self.assertEqual(await self.call(client, 'leave', 'one'), ['two'])

    async def test_to_a_room_reaches_its_members_without_the_sender(self):
        crew = await self.crew()
        for client in crew[:2]:
            await self.call(client, 'join', 'r')
        await self.assert_receives(crew, 'to', {'rooms': ['r']}, [0, 1, 0])

    async def test_in_a_room_reaches_its_members_and_the_sender_among_them(self):
        crew = await self.crew()
        for client in crew[:2]:
            await self.call(client, 'join', 'r')
        await self.assert_receives(crew, 'in', {'rooms': ['r']}, [1, 1, 0])

    async def test_a_socket_in_two_rooms_receives_once(self):
        crew = await self.crew()
        for client in crew:
            await self.call(client, 'join', 'r1')
            await self.call(client, 'join', 'r2')
        await self.assert_receives(crew, 'in', {'rooms': ['r1', 'r2']}, [1, 1, 1])

    async def test_except_removes_the_members_of_a_room(self):
        crew = await self.crew()
        await self.call(crew[1], 'join', 'quiet')
        await self.assert_receives(crew, 'in', {'except': ['quiet']}, [1, 0, 1])

    async def test_who_has_left_receives_nothing(self):
        crew = await self.crew()
        for client in crew[1:]:
            await self.call(client, 'join', 'r')
        await self.call(crew[1], 'leave', 'r')
        await self.assert_receives(crew, 'to', {'rooms': ['r']}, [0, 0, 1])

    async def test_a_sockets_own_room_reaches_that_socket_alone(self):
        crew = await self.crew()
        await self.assert_receives(crew, 'to', {'rooms': [crew[2].get_sid()]}, [0, 0, 1])


class Disconnects(Case):
    async def test_the_server_disconnects_one_namespace_and_the_connection_stays(self):
        client = await self.connect(namespaces=['/', '/custom'])
        sid = client.get_sid('/custom')
        ended = self.inbox(client, 'disconnect', namespace='/custom')
        await client.emit('kick', False, namespace='/custom')
        self.assertEqual(await self.take(ended), [client.reason.SERVER_DISCONNECT])
        self.assertEqual(await self.call(client, 'reason-of', sid), 'server namespace disconnect')

    async def test_the_server_disconnects_and_closes_the_connection(self):
        client, witness = await self.connect(), await self.connect()
        sid = client.get_sid()
        ended = self.inbox(client, 'disconnect')
        await client.emit('kick', True)
        self.assertEqual(await self.take(ended), [client.reason.SERVER_DISCONNECT])
        self.assertEqual(await self.call(witness, 'reason-of', sid), 'server namespace disconnect')

    async def test_the_client_disconnects(self):
        client, witness = await self.connect(), await self.connect()
        sid = client.get_sid()
        # while a POST of it is being answered, this client would forget to send what disconnect() queues
        await client.eio.queue.join()
        await client.disconnect()
        # this client closes the connection at once: sometimes its last packet does not leave before
        self.assertIn(await self.call(witness, 'reason-of', sid), ['client namespace disconnect', 'transport close'])

    async def test_a_client_comes_back_with_a_new_id(self):
        client = await self.connect()
        sid = client.get_sid()
        await client.disconnect()
        await self.connect(client)
        self.assertNotEqual(client.get_sid(), sid)
        self.assertEqual(await self.call(client, 'echo', 1), 1)


if __name__ == '__main__':
    # this client leaves its HTTP session to the garbage collector, which complains
    unittest.main(warnings='ignore')
