"""A user as OpenIM's JavaScript clients are one (JSON in binary frames, spec 2.3), down to the single request: what an
SDK retries, hides or times out by itself is seen here as it comes. Standard library and generated messages only.

What always holds: a client pings while it is silent, so the gateway has no reason of its own to close it."""

import base64
import json
import os
import socket
import struct
import threading
import time
import urllib.parse
import uuid

from push_api import message, sdkws_pb2

LINUX = 7
ANSWER_SECONDS = 60
PING_SECONDS = 5
SEND_MESSAGE, PUSHED, KICKED, LOGOUT, SUBSCRIBE = 1003, 2001, 2002, 2003, 2005
TEXT_FRAME, BINARY_FRAME, CLOSE_FRAME, PING_FRAME, PONG_FRAME = 1, 2, 8, 9, 10


class Refused(Exception):
    """A login that was not let in: `status` of HTTP, None if the connection was closed without an answer; `body`."""

    def __init__(self, status, body):
        super().__init__(f"refused with {status}: {body!r}")
        self.status, self.body = status, body


class JsonClient:
    """`with JsonClient(gateway, "anna") as anna:` logs in, or raises Refused. `token` saves asking for one."""

    def __init__(self, gateway, user, platform=LINUX, token=None):
        self.user, self.platform = user, platform
        self.news = threading.Condition()
        self.answers, self.tips, self.texts, self.pongs = {}, [], [], []
        self.closed = self.kicked = False
        self.sending = threading.Lock()
        self.next_id = 0
        address = urllib.parse.urlsplit(gateway.websocket)
        self.socket = socket.create_connection((address.hostname, address.port), timeout=ANSWER_SECONDS)
        try:
            self.buffer = self._upgrade(address.netloc, token or gateway.token(user, platform))
        except BaseException:
            self.socket.close()
            raise
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._keep, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """As an app that is killed."""
        with self.news:
            self.closed = True
            self.news.notify_all()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the gateway was first
        self.socket.close()

    # ---- requests ------------------------------------------------------------------------------------------------

    def send_text(self, recipient, text):
        """Error code of the answer to SendMsg."""
        data = message(self.user, recipient, text)
        data.ClearField("serverMsgID")
        return self.ask(SEND_MESSAGE, data)[0]

    def send_text_later(self, recipient, text):
        """Sends and does not wait: the number to `wait_answer` for."""
        return self.start(SEND_MESSAGE, message(self.user, recipient, text))

    def subscribe(self, users):
        """(error code, platforms by user), from then on changes are in `tips`."""
        code, data = self.ask(SUBSCRIBE, sdkws_pb2.SubUserOnlineStatus(subscribeUserID=users))
        return code, platforms_of(data)

    def ask(self, identifier, data):
        """(error code, bytes) of the answer."""
        return self.wait_answer(self.start(identifier, data))

    def start(self, identifier, data):
        self.next_id += 1
        number = str(self.next_id)
        self._send(BINARY_FRAME, self._encoded(identifier, uuid.uuid4().hex, number, data.SerializeToString()))
        return number

    def answered(self, number):
        with self.news:
            return number in self.answers

    def wait_answer(self, number):
        self.wait(lambda: number in self.answers, f"an answer to request {number}")
        return self.answers.pop(number)

    def ping(self):
        """A ping in a text frame (spec 1.6), answered."""
        body = uuid.uuid4().hex
        self._send(TEXT_FRAME, json.dumps({"type": "ping", "body": body}).encode())
        self.wait(lambda: body in self.pongs, "an answer to a ping")

    # ---- what comes ----------------------------------------------------------------------------------------------

    def wait_text(self, text):
        self.wait(lambda: text in self.texts, f"the text {text!r}")

    def wait_tip(self, user, platforms):
        """Until the newest tip about a user says this."""
        newest = lambda: [found for about, found in self.tips if about == user][-1:]
        self.wait(lambda: newest() == [platforms], f"that {user} is on {platforms}")

    def wait(self, condition, what):
        end = time.monotonic() + ANSWER_SECONDS
        with self.news:
            while not condition():
                left = end - time.monotonic()
                state = f"tips {self.tips[-3:]}, texts {self.texts[-3:]}"
                assert not self.closed, f"{self.user} waited for {what}, then the connection was closed; {state}"
                if left <= 0:
                    raise TimeoutError(f"{self.user} waited for {what}; {state}")
                self.news.wait(left)

    def wait_closed(self):
        with self.news:
            assert self.news.wait_for(lambda: self.closed, ANSWER_SECONDS), f"{self.user} is still connected"

    # ---- the encoding --------------------------------------------------------------------------------------------

    def _arguments(self, token):
        return {
            "sendID": self.user, "token": token, "platformID": self.platform, "operationID": uuid.uuid4().hex,
            "isBackground": "false", "sdkType": "js",
        }

    def _encoded(self, identifier, operation, number, data):
        request = {
            "reqIdentifier": identifier, "sendID": self.user, "operationID": operation, "msgIncr": number,
            "data": base64.b64encode(data).decode(),
        }
        return json.dumps(request).encode()

    def _decoded(self, frame):
        found = json.loads(frame)
        return {**found, "data": base64.b64decode(found["data"] or "")}

    # ---- the wire ------------------------------------------------------------------------------------------------

    def _upgrade(self, host, token):
        """What came behind the answer."""
        query = urllib.parse.urlencode(self._arguments(token))
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET /?{query} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        got = b""
        while b"\r\n\r\n" not in got:
            more = self._receive()
            if not more:
                raise Refused(None, got)
            got += more
        answer, _, rest = got.partition(b"\r\n\r\n")
        status = int(answer.split(b" ", 2)[1])
        if status == 101:
            return rest
        while not whole(answer, rest) and (more := self._receive()):
            rest += more
        raise Refused(status, rest)

    def _receive(self):
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""

    def _send(self, kind, payload):
        mask = os.urandom(4)
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack(">H", size)
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
        with self.sending:
            self.socket.sendall(bytes([0x80 | kind]) + length + mask + masked)

    def _exactly(self, size):
        while len(self.buffer) < size:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError("closed")
            self.buffer += more
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def _frame(self):
        """(kind, payload). The gateway's frames are neither masked nor in parts (spec 1.5)."""
        head, size = self._exactly(2)
        if size > 125:
            form = ">H" if size == 126 else ">Q"
            (size,) = struct.unpack(form, self._exactly(struct.calcsize(form)))
        return head & 15, self._exactly(size)

    def _read(self):
        try:
            while True:
                kind, payload = self._frame()
                if kind == CLOSE_FRAME:
                    break
                if kind == PING_FRAME:
                    self._send(PONG_FRAME, payload)
                elif kind in (TEXT_FRAME, BINARY_FRAME):
                    with self.news:
                        self._take(kind, payload)
                        self.news.notify_all()
        except OSError:
            pass  # it is closed
        with self.news:
            self.closed = True
            self.news.notify_all()

    def _keep(self):
        while True:
            with self.news:
                if self.news.wait_for(lambda: self.closed, PING_SECONDS):
                    return
            try:
                self._send(PING_FRAME, b"")
            except OSError:
                return

    def _take(self, kind, payload):
        if kind == TEXT_FRAME:
            self.pongs.append(json.loads(payload)["body"])
            return
        frame = self._decoded(payload)
        data = frame["data"]
        if frame["msgIncr"]:
            self.answers[frame["msgIncr"]] = frame["errCode"], data
        elif frame["reqIdentifier"] == KICKED:
            self.kicked = True
        elif frame["reqIdentifier"] == SUBSCRIBE:
            self.tips += platforms_of(data).items()
        elif frame["reqIdentifier"] == PUSHED:
            for pulled in sdkws_pb2.PushMessages.FromString(data).msgs.values():
                self.texts += [json.loads(one.content)["content"] for one in pulled.Msgs]


def platforms_of(data):
    subscribers = sdkws_pb2.SubUserOnlineStatusTips.FromString(data).subscribers
    return {one.userID: sorted(one.onlinePlatformIDs) for one in subscribers}


def whole(head, body):
    """Whether a body is as long as its head says."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False
