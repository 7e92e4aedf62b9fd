"""Puts the services together that one process stands in for, and ends them."""

from auth import Auth
from calls import Calls
from discovery import EtcdDiscovery, FixedDiscovery
from errors import OpenImError
from etcd import Etcd
from fleet import Fleet
from gateway_service import Gateway
from host import Host
from msg_service import Msg
from names import COMPATS
from presence_map import PresenceMap
from push_service import Push
from records import Records
from store import MemoryStore, RedisStore
from switches import Switches
from user import User

UNAVAILABLE = 14


class World:
    """Everything that the services of this process share. `options` are those of the command line."""

    def __init__(self, options):
        self.compat = COMPATS[options.compat]
        self.records = Records()
        self.switches = Switches()
        self.calls = Calls(self.compat)
        self.store = RedisStore(options.redis, options.online_seconds) if options.redis else MemoryStore(
            options.online_seconds
        )
        self.discovery = (
            EtcdDiscovery(Etcd(options.etcd), options.root, self.compat, options.lease_seconds)
            if options.etcd else FixedDiscovery()
        )
        self.fleet = Fleet(self, options.admin_users)
        self.turn = 0
        self.auth = Auth(self, options.secret, options.admin_users, options.policy)
        presence = PresenceMap(self, options.page_retry_seconds)
        self.push = Push(self, self.fleet, presence, options.strategy)
        wants_push = "push" in options.services
        self.msg = Msg(self, options.admin_users, self.push.take if wants_push else lambda *_: None)
        times = (options.flush_seconds, options.renew_seconds)
        self.gateway = Gateway(self, self.fleet, options.policy, times)
        services = {
            "auth": self.auth, "user": User(self), "msg": self.msg, "push": self.push, "gateway": self.gateway,
        }
        self.hosts = {word: Host(word, services[word].methods(), self) for word in options.services}

    async def start(self):
        for host in self.hosts.values():
            await host.start()
        # Whoever serves what is followed wherever it is: in this process or in others.
        for service in ("auth", "user", "gateway"):
            await self.discovery.follow(service)
        if "push" in self.hosts:
            self.push.start()
        if "gateway" in self.hosts:
            self.gateway.start()

    async def stop(self):
        self.push.close()
        self.gateway.close()
        for host in self.hosts.values():
            await host.stop()
        await self.discovery.close()
        await self.calls.close()
        await self.store.close()

    def groups(self):
        """Members by group."""
        return self.msg.conversations.groups

    async def call_service(self, service, method, request, answer_type, metadata, seconds=None):
        """A call to any instance of a service, each in turn. Raises OpenImError."""
        addresses = self.discovery.addresses(service)
        if not addresses:
            raise OpenImError(UNAVAILABLE, f"no address of {service}")
        self.turn += 1
        address = addresses[self.turn % len(addresses)]
        return await self.calls.call(address, service, method, request, answer_type, metadata, seconds)
