"""Thousands of light WebSocket clients in one thread: each logs in as OpenIM's JavaScript clients do, notes which
numbered texts came over which connection, and comes back by the native SDK's ladder (clients.md, spec 1.5): at once, then
after 1, 2, 4, 8, 16 s, and again from 1 s until it is in.

Not here: what a push should have reached (`ledger`), where nodes are (`nodes`). What always holds: `opened_at` is not
before the 101 was written and `closed_at` not before the end of the stream was read, so a connection is never taken for
open that was not yet, and of one that ends unseen at most the last moment is wrong."""

import base64
import collections
import hashlib
import hmac
import heapq
import json
import os
import random
import re
import selectors
import socket
import struct
import threading
import time
import urllib.parse
import uuid

from gateway import SECRET

LADDER = (1, 2, 4, 8, 16)
# The SDK's steps are exact. Phones differ by what their loss and their dial take to get through.
NETWORK_SECONDS = 0.1
PING_SECONDS = 10
# A dial or an upgrade that takes longer is given up, as the SDKs do.
LOGIN_SECONDS = 10
# So many are between dial and 101 at once; the others wait for their turn.
LOGINS_MAX = 128
TICK_SECONDS = 0.2
# So many ended connections of a client are remembered.
ENDED_MAX = 16
PUSHED, KICKED = 2001, 2002
BINARY_FRAME, CLOSE_FRAME, PING_FRAME, PONG_FRAME = 2, 8, 9, 10
NUMBER = re.compile(rb"#(\d+)#")
KEY = base64.b64encode(b"sixteen bytes!!!").decode()


def token(user, platform):
    """A login token as `pinion token` makes it, without a process for each (spec 7.1)."""
    now = int(time.time())
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
    claims = {"UserID": user, "PlatformID": platform, "exp": now + 90 * 86_400, "iat": now - 60, "nbf": now - 60}
    signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(claims)
    signature = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def pause(step):
    """Seconds before the dial of this number after a loss."""
    return LADDER[(step - 1) % len(LADDER)] if step else 0


class Connection:
    """One connection of a client, from dial to end. `got` counts numbered texts."""

    def __init__(self, client, address):
        self.client, self.address = client, address
        self.dialled_at = time.monotonic()
        self.opened_at = self.closed_at = None
        self.got = collections.Counter()
        self.buffer = b""
        self.kicked = False
        self.socket = socket.socket()
        self.socket.setblocking(False)

    def open(self):
        return self.opened_at is not None and self.closed_at is None


class Client:
    """One device of a user. `where(client)` names the (host, port) to dial, None: nowhere yet."""

    def __init__(self, user, platform, where):
        self.user, self.platform, self.where = user, platform, where
        self.token = token(user, platform)
        self.connection = None
        self.ended = collections.deque(maxlen=ENDED_MAX)
        self.step = 0
        self.refusals = collections.Counter()

    def key(self):
        return self.user, self.platform


class Crowd:
    """`with Crowd() as crowd:`; `add` clients, look at `opened()`, `open_of(user)`."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.clients = []
        self.by_user = collections.defaultdict(list)
        self.turns = []
        self.waiting = collections.deque()
        self.dialling = set()
        self.counts = collections.Counter()
        self.doubles = []
        self.over = False
        self.number = 0
        self.wake_read, self.wake_write = socket.socketpair()
        self.wake_read.setblocking(False)
        self.selector.register(self.wake_read, selectors.EVENT_READ, None)
        self.inbox = collections.deque()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over = True
        self._wake()
        self.thread.join()
        self.selector.close()
        self.wake_read.close()
        self.wake_write.close()

    # ---- asked from other threads --------------------------------------------------------------------------------

    def add(self, clients):
        """They log in, as many at once as LOGINS_MAX."""
        self.clients += clients
        for client in clients:
            self.by_user[client.user].append(client)
        self.inbox.append(lambda: self.waiting.extend(clients))
        self._wake()

    def opened(self):
        return sum(1 for client in self.clients if client.connection and client.connection.open())

    def open_of(self, user):
        """The connections of a user that have had their 101 and are open."""
        found = [client.connection for client in self.by_user.get(user, ())]
        return [connection for connection in found if connection and connection.open()]

    def ended_of(self, user, since):
        """The connections of a user that have ended since then."""
        found = [one for client in self.by_user.get(user, ()) for one in list(client.ended)]
        return [one for one in found if one.closed_at >= since]

    def places(self):
        """How many open connections there are by (host, port)."""
        found = [client.connection for client in self.clients]
        return collections.Counter(one.address for one in found if one and one.open())

    def _wake(self):
        self.wake_write.send(b".")

    # ---- the loop ------------------------------------------------------------------------------------------------

    def _run(self):
        while not self.over:
            for key, events in self.selector.select(TICK_SECONDS):
                if key.data is None:
                    self.wake_read.recv(4096)
                else:
                    self._ready(key.data, events)
            while self.inbox:
                self.inbox.popleft()()
            self._due()
            self._dial_more()
        for client in self.clients:
            if client.connection and client.connection.closed_at is None:
                self._end(client.connection)

    def _later(self, seconds, what, connection):
        self.number += 1
        heapq.heappush(self.turns, (time.monotonic() + seconds, self.number, what, connection))

    def _due(self):
        now = time.monotonic()
        while self.turns and self.turns[0][0] <= now:
            _, _, what, connection = heapq.heappop(self.turns)
            what(connection)

    def _again(self, connection):
        self.waiting.append(connection.client)

    def _watch(self, connection):
        """Pings what is open, gives up a login that takes too long."""
        if connection.closed_at is not None:
            return
        if not connection.open():
            connection.client.refusals["timeout"] += 1
            self._lost(connection)
            return
        self._write(connection, PING_FRAME, b"")
        self._later(PING_SECONDS, self._watch, connection)

    def _dial_more(self):
        for _ in range(min(len(self.waiting), LOGINS_MAX - len(self.dialling))):
            client = self.waiting.popleft()
            address = client.where(client)
            if address is None:
                self.waiting.append(client)
            else:
                self._dial(client, address)

    def _dial(self, client, address):
        connection = client.connection = Connection(client, address)
        self.dialling.add(connection)
        self.counts["dials"] += 1
        self._later(LOGIN_SECONDS, self._watch, connection)
        try:
            connection.socket.connect(address)
        except BlockingIOError:
            pass  # its end comes by the selector
        except OSError as fault:
            client.refusals[type(fault).__name__] += 1
            self._lost(connection)
            return
        self.selector.register(connection.socket, selectors.EVENT_WRITE, connection)

    def _ready(self, connection, events):
        if connection.closed_at is not None:
            return
        try:
            if events & selectors.EVENT_WRITE:
                fault = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if fault:
                    raise OSError(fault, os.strerror(fault))
                self._upgrade(connection)
                return
            more = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as fault:
            connection.client.refusals[type(fault).__name__] += 1
            self._lost(connection)
            return
        connection.buffer += more
        if not more or not self._take(connection):
            self._lost(connection)

    def _upgrade(self, connection):
        client = connection.client
        query = urllib.parse.urlencode({
            "sendID": client.user, "token": client.token, "platformID": client.platform,
            "operationID": uuid.uuid4().hex, "isBackground": "false", "sdkType": "js",
        })
        host, port = connection.address
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.socket.send(
            f"GET /?{query} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
        )
        self.selector.modify(connection.socket, selectors.EVENT_READ, connection)

    def _take(self, connection):
        """Whether it goes on."""
        if connection.opened_at is None:
            head, end, rest = connection.buffer.partition(b"\r\n\r\n")
            if not end:
                return True
            status = head.split(b" ", 2)[1].decode()
            if status != "101":
                connection.client.refusals[f"HTTP {status}"] += 1
                return False
            connection.buffer = rest
            connection.opened_at = time.monotonic()
            connection.client.step = 0
            self.dialling.discard(connection)
            self.counts["logins"] += 1
        while (frame := self._frame(connection)) is not None:
            if not self._frame_taken(connection, *frame):
                return False
        return True

    @staticmethod
    def _frame(connection):
        """(kind, payload) or None. The gateway's frames are neither masked nor in parts (spec 1.5)."""
        data = connection.buffer
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size > 125:
            form = ">H" if size == 126 else ">Q"
            start += struct.calcsize(form)
            if len(data) < start:
                return None
            (size,) = struct.unpack(form, data[2:start])
        if len(data) < start + size:
            return None
        connection.buffer = data[start + size:]
        return data[0] & 15, data[start:start + size]

    def _frame_taken(self, connection, kind, payload):
        if kind == PING_FRAME:
            self._write(connection, PONG_FRAME, payload)
        elif kind == CLOSE_FRAME:
            code = struct.unpack(">H", payload[:2])[0] if len(payload) > 1 else 1005
            self.counts[f"closed {code}"] += 1
            return False
        elif kind == BINARY_FRAME:
            found = json.loads(payload)
            if found["reqIdentifier"] == KICKED:
                connection.kicked = True
                self.counts["kicked"] += 1
            elif found["reqIdentifier"] == PUSHED:
                for number in NUMBER.findall(base64.b64decode(found["data"])):
                    self._got(connection, int(number))
        return True

    def _got(self, connection, number):
        connection.got[number] += 1
        self.counts["texts"] += 1
        if connection.got[number] > 1:
            self.doubles.append((number, connection.client.key(), connection.address))

    def _write(self, connection, kind, payload):
        size = len(payload)
        # Of zeros the mask changes nothing.
        try:
            connection.socket.send(bytes([0x80 | kind, 0x80 | size, 0, 0, 0, 0]) + payload)
        except BlockingIOError:
            pass  # whose buffer is full hears from us anyway
        except OSError:
            self._lost(connection)

    def _lost(self, connection):
        """Comes back by the ladder, unless it was kicked: a kicked SDK stays away."""
        if connection.closed_at is not None:
            return
        was_open = connection.opened_at is not None
        self._end(connection)
        self.counts["losses" if was_open else "refusals"] += 1
        client = connection.client
        if connection.kicked:
            return
        self._later(pause(client.step) + random.uniform(0, NETWORK_SECONDS), self._again, connection)
        client.step += 1

    def _end(self, connection):
        connection.closed_at = time.monotonic()
        connection.client.ended.append(connection)
        self.dialling.discard(connection)
        try:
            self.selector.unregister(connection.socket)
        except (KeyError, ValueError):
            pass  # it never was
        connection.socket.close()
