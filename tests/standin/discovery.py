"""How services find each other: keys in etcd under a lease (spec 11.1, A.8), or a fixed table.

What always holds: an address is in etcd only while its service serves, and comes back by itself when its lease or etcd
was lost, unless the test keeps it away."""

import asyncio
import json
import sys

from etcd import EtcdError

RETRY_SECONDS = 1
# Of the lease, as the client library of etcd has it.
KEEP_ALIVES_PER_LEASE = 3


def endpoint_value(address):
    return json.dumps({"Op": 0, "Addr": address, "Metadata": None}, separators=(",", ":"))


class Registration:
    """One `<root>/<service>/<ip>:<port>` for as long as it is kept."""

    def __init__(self, etcd, key, address, lease_seconds):
        self.etcd, self.key, self.address, self.lease_seconds = etcd, key, address, lease_seconds
        self.lease = None
        self.registered = self.away = self.ended = False
        self.changed = asyncio.Event()
        self.task = None

    async def open(self):
        """Registers; fails if etcd cannot be reached."""
        await self._register()
        self.task = asyncio.create_task(self._keep())

    async def lose(self):
        """The lease is gone and does not come back before `come_back`."""
        self.away = True
        self.changed.set()
        lease, self.lease, self.registered = self.lease, None, False
        if lease:
            await self.etcd.revoke(lease)

    async def come_back(self):
        self.away = False
        await self._register()
        self.changed.set()

    async def close(self):
        """Takes the key away at once."""
        await self._end()
        try:
            if self.lease:
                await self.etcd.revoke(self.lease)
        except EtcdError as fault:
            print(f"standin: {self.key} stays until its lease ends: {fault}", file=sys.stderr)

    async def abandon(self):
        """No more keep-alives: the key goes when the lease ends."""
        await self._end()

    async def _end(self):
        """A call that is answered just then swallows the cancellation (Python before 3.12): hence the flag as well."""
        self.ended = True
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _register(self):
        self.registered = False
        # Known before the key is put: `close` revokes it even if it cuts this short.
        self.lease = await self.etcd.grant(self.lease_seconds)
        await self.etcd.put(self.key, endpoint_value(self.address), self.lease)
        self.registered = True

    async def _keep(self):
        pause = self.lease_seconds / KEEP_ALIVES_PER_LEASE
        while not self.ended:
            try:
                await asyncio.wait_for(self.changed.wait(), pause)
            except asyncio.TimeoutError:
                pass
            self.changed.clear()
            if self.away:
                pause = self.lease_seconds
                continue
            try:
                if not self.registered or not await self.etcd.keep_alive(self.lease):
                    await self._register()
                pause = self.lease_seconds / KEEP_ALIVES_PER_LEASE
            except EtcdError:
                pause = RETRY_SECONDS


class EtcdDiscovery:
    """Registers and looks up under one root."""

    def __init__(self, etcd, root, compat, lease_seconds):
        self.etcd, self.root, self.compat, self.lease_seconds = etcd, root, compat, lease_seconds
        self.known = {}
        self.tasks = []

    def key(self, service, address=""):
        return f"{self.root}/{self.compat.registered[service]}/{address}"

    async def register(self, service, address):
        registration = Registration(self.etcd, self.key(service, address), address, self.lease_seconds)
        await registration.open()
        return registration

    async def follow(self, service):
        """From now on `addresses(service)` is kept up to date."""
        if service not in self.known:
            self.known[service] = {}
            first = asyncio.Event()
            self.tasks.append(asyncio.create_task(self._follow(service, first)))
            await first.wait()

    def addresses(self, service):
        """Where the service is, in the order of their keys."""
        found = [value for _, value in sorted(self.known[service].items())]
        return [json.loads(value)["Addr"] for value in found]

    async def close(self):
        for task in self.tasks:
            task.cancel()

    async def _follow(self, service, first):
        prefix = self.key(service)
        while True:
            try:
                found, revision = await self.etcd.range(prefix)
                self.known[service] = found
                first.set()
                async for key, value in self.etcd.watch(prefix, revision + 1):
                    if value is None:
                        self.known[service].pop(key, None)
                    else:
                        self.known[service][key] = value
            except (EtcdError, OSError, asyncio.IncompleteReadError, ValueError):
                pass  # the watch is opened anew below
            await asyncio.sleep(RETRY_SECONDS)


class FixedRegistration:
    """What a fixed table has instead of a lease."""

    def __init__(self, table, address):
        self.table, self.address = table, address

    async def lose(self):
        self.table.discard(self.address)

    async def come_back(self):
        self.table.add(self.address)

    async def abandon(self):
        """A fixed table has no lease to end: the address stays."""

    async def close(self):
        self.table.discard(self.address)


class FixedDiscovery:
    """`--static`: the services of this process and the peers that the test names."""

    def __init__(self):
        self.table = {}

    async def register(self, service, address):
        self.table.setdefault(service, set()).add(address)
        return FixedRegistration(self.table[service], address)

    async def follow(self, service):
        self.table.setdefault(service, set())

    def addresses(self, service):
        return sorted(self.table.get(service, ()))

    def replace(self, service, addresses):
        self.table.setdefault(service, set()).clear()
        self.table[service].update(addresses)

    async def close(self):
        self.table.clear()
