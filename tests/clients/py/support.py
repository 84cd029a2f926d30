"""What the Python suites share: where the server is, over which transport, and waits that end.

By hand, with the packages of requirements.txt:
    FANFARE_URL=http://127.0.0.1:3000 FANFARE_TRANSPORT=polling python sync_client.py --verbose
"""

import os

SERVER_URL = os.environ['FANFARE_URL']
TRANSPORT = os.environ['FANFARE_TRANSPORT']

# the `transports` option of the client, by the name of the suite
TRANSPORTS = {
    'polling': ['polling'],
    'websocket': ['websocket'],
    'upgrade': ['polling', 'websocket'],
}[TRANSPORT]

# an upgrade ends on WebSocket
FINAL_TRANSPORT = TRANSPORTS[-1]

# How long anything on this machine may take. Longer than the server's own 2 s limit for an ack.
WAIT_S = 8

# arguments that have to come back equal
EVERY_JSON_TYPE = [0, -0.5, 2**53 - 1, '', '2', 'яЖ€😀', '\0\x1e"\\\n', None, True, False, [], {}, [[[1]]],
                   {'a': [{'b': 'c'}], '': 0}]

# nested, empty, and each byte
ATTACHMENTS = [bytes(range(256)), {'list': [b'\x05\x06', {'deep': b'\x07'}]}, b'', 'text']

LARGE = 300_000

# Events under way at once. This client refuses a polling payload of more than 16 packets: eight mixed events, their
# attachments, an ack and a ping fit.
AT_ONCE = 8

# what the server says to a wrong token
REFUSAL = {'message': 'not authorized', 'data': {'code': 'E_AUTH', 'retry': False}}


def mixed(i):
    """An even item is text, an odd one is binary: both say their number."""
    return str(i).encode() if i % 2 else str(i)


def burst(count):
    """What the server's "burst" sends: each seventh event is binary."""
    return [[i, f't{i}' if i % 7 else bytes([i % 256])] for i in range(count)]
