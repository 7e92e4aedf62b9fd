"""etcd through its JSON gateway (`/v3/...`): key-value, leases and watches, over plain asyncio streams.

Not here: what OpenIM keeps in it (discovery.py)."""

import asyncio
import base64
import json

CALL_SECONDS = 5
LINE_BYTES_MAX = 16 * 1024 * 1024


class EtcdError(Exception):
    """etcd cannot be reached or refused the call."""


def text64(text):
    return base64.b64encode(text.encode()).decode()


def plain(value):
    return base64.b64decode(value).decode()


def range_end(prefix):
    """The first key after all that start with the prefix, which ends in a plain ASCII character."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


class Etcd:
    """One address; every call is a connection of its own."""

    def __init__(self, address):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)

    async def call(self, path, body):
        """The first answer, as the gateway's JSON."""
        try:
            return await asyncio.wait_for(anext(self.stream(path, body)), CALL_SECONDS)
        except (OSError, asyncio.TimeoutError, StopAsyncIteration, asyncio.IncompleteReadError) as fault:
            raise EtcdError(f"etcd at {self.host}:{self.port}: {path}: {fault!r}") from fault

    async def stream(self, path, body):
        """Each answer as it comes; ends when etcd ends it."""
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=LINE_BYTES_MAX)
        try:
            data = json.dumps(body).encode()
            head = f"POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + data)
            async for line in http_lines(reader):
                answer = json.loads(line)
                if "error" in answer:
                    raise EtcdError(f"{path}: {answer['error']}")
                yield answer
        finally:
            writer.close()

    async def grant(self, seconds):
        """A new lease's id."""
        return (await self.call("/v3/lease/grant", {"TTL": seconds}))["ID"]

    async def keep_alive(self, lease):
        """Seconds that it has again; 0 if it is lost."""
        answer = await self.call("/v3/lease/keepalive", {"ID": lease})
        return int(answer.get("result", {}).get("TTL", 0))

    async def revoke(self, lease):
        await self.call("/v3/lease/revoke", {"ID": lease})

    async def put(self, key, value, lease=0):
        await self.call("/v3/kv/put", {"key": text64(key), "value": text64(value), "lease": lease})

    async def range(self, prefix):
        """(value by key, revision) of everything under the prefix."""
        answer = await self.call("/v3/kv/range", {"key": text64(prefix), "range_end": text64(range_end(prefix))})
        found = {plain(kv["key"]): plain(kv.get("value", "")) for kv in answer.get("kvs", [])}
        return found, int(answer["header"]["revision"])

    async def watch(self, prefix, revision):
        """(key, value) of each change from this revision on, in order; the value of a removal is None."""
        wanted = {"key": text64(prefix), "range_end": text64(range_end(prefix)), "start_revision": revision}
        async for answer in self.stream("/v3/watch", {"create_request": wanted}):
            result = answer.get("result", {})
            if result.get("canceled"):
                raise EtcdError(f"the watch was cancelled: {result.get('cancel_reason', 'compacted')}")
            for event in result.get("events", []):
                gone = event.get("type") == "DELETE"
                yield plain(event["kv"]["key"]), None if gone else plain(event["kv"].get("value", ""))


async def http_lines(reader):
    """The lines of a response's body, chunked or not."""
    status = await reader.readline()
    headers = {}
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        headers[name.strip().lower()] = value.strip().lower()
    if not status:
        raise EtcdError("no answer")
    if headers.get("transfer-encoding") != "chunked":
        yield await reader.read()
        return
    rest = b""
    while size := int((await reader.readline()).strip() or b"0", 16):
        rest += await reader.readexactly(size)
        await reader.readline()
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest
