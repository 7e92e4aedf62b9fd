"""A small HTTP/1.1 server on loopback: `POST /<verb>` with a JSON object, answered with JSON."""

import asyncio
import json
import traceback

BODY_BYTES_MAX = 64 * 1024 * 1024


class HttpJson:
    """`verbs` has a coroutine function by name, whose arguments are the keys of the object."""

    def __init__(self, verbs):
        self.verbs = verbs
        self.server = None

    async def start(self, address):
        host, port = address.rsplit(":", 1)
        self.server = await asyncio.start_server(self._serve, host, int(port))
        return "http://%s:%d" % self.server.sockets[0].getsockname()[:2]

    def close(self):
        self.server.close()

    async def _serve(self, reader, writer):
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass  # the client went away, or speaks something else
        finally:
            writer.close()

    async def _one(self, reader, writer):
        """One request; False when there is none."""
        request = await reader.readline()
        if not request:
            return False
        length = 0
        while (line := await reader.readline()) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode().partition(":")
            if name.strip().lower() == "content-length":
                length = int(value)
        if length > BODY_BYTES_MAX:
            raise ValueError("the body is too large")
        body = await reader.readexactly(length)
        verb = request.decode().split(" ")[1].strip("/")
        status, answer = await self._answer(verb, body)
        data = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        await writer.drain()
        return True

    async def _answer(self, verb, body):
        work = self.verbs.get(verb)
        if not work:
            return "404 Not Found", {"error": f"no verb {verb!r}; there are: {', '.join(sorted(self.verbs))}"}
        try:
            return "200 OK", await work(**json.loads(body or b"{}"))
        except Exception as fault:  # the test that asked is told, and the stand-in goes on
            traceback.print_exc()
            return "400 Bad Request", {"error": f"{verb}: {fault!r}"}
