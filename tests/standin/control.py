"""What a test asks of the stand-in over HTTP: one function per verb.

Each takes and gives plain JSON. The verbs that act for openim-api (tokens, force logout, online status) do what it
does, through the gateways that discovery shows."""

import json
import time
import uuid

from gateway_service import Connection
from ring import members
from stubs import sdkws

TEXT, SINGLE, GROUP, FROM_USER = 101, 1, 3, 100


class Control:
    """`verbs()` for HttpJson."""

    def __init__(self, world):
        self.world = world

    def verbs(self):
        names = [name for name in dir(self) if not name.startswith("_") and name not in ("verbs", "world")]
        return {name: getattr(self, name) for name in names}

    # ---- as openim-api -------------------------------------------------------------------------------------------

    async def token(self, user, platform, ttl_seconds=None, policy=None):
        """A new login token; older ones go as the policy says."""
        return {"token": await self.world.auth.make_token(user, platform, ttl_seconds, policy)}

    async def token_states(self, user, platform):
        return {"states": await self.world.store.token_states(user, platform)}

    async def set_token_state(self, user, platform, token, state):
        """0 normal, 1 invalid, 2 kicked, 3 expired."""
        await self.world.store.set_token_states(user, platform, {token: state})
        return {}

    async def force_logout(self, user, platform):
        """KickUserOffline on each gateway, then the tokens of that platform are kicked (spec 10.6)."""
        answers = await self.world.fleet.kick(user, platform, uuid.uuid4().hex)
        await self.world.auth.kick_platform(user, platform)
        return {"gateways": {address: getattr(answer, "code", 0) for address, answer in answers.items()}}

    async def online(self, users):
        """GetUsersOnlineStatus of every gateway, merged."""
        return await self.world.fleet.online(users, uuid.uuid4().hex)

    async def send(self, sender, recipient=None, group=None, text="", operation=None, options=None):
        """A message of a service: it gets a number, is kept and pushed."""
        message = sdkws.MsgData(
            sendID=sender, recvID=recipient or "", groupID=group or "", clientMsgID=uuid.uuid4().hex,
            senderPlatformID=1, senderNickname=sender, sessionType=GROUP if group else SINGLE, msgFrom=FROM_USER,
            contentType=TEXT, content=json.dumps({"content": text}).encode(), createTime=int(time.time() * 1000),
            options=options or {},
        )
        operation = operation or uuid.uuid4().hex
        answer = self.world.msg.take(message, operation, sender)
        return {"clientMsgID": answer.clientMsgID, "serverMsgID": answer.serverMsgID, "operation": operation}

    async def group(self, group, users):
        """Makes a group, or changes who is in it."""
        self.world.groups()[group] = users
        return {}

    # ---- what was seen -------------------------------------------------------------------------------------------

    async def records(self, service=None, method=None, since=0):
        """Calls that came in, from this number on."""
        return {"calls": [call.shown() for call in self.world.records.of(service, method, since)]}

    async def counts(self):
        """Calls that came in, by `service/method`."""
        return dict(self.world.records.counts)

    async def presence(self, since=0):
        """Entries of setUserOnlineStatus, in the order of arrival."""
        return {"entries": list(self.world.records.presence(since))}

    async def platforms(self, user):
        """Where the store has the user online."""
        store = self.world.store
        found = store.old_platforms if self.world.compat.old else store.platforms
        return {"platforms": await found(user)}

    async def pushes(self, since=0):
        """What push did with each message; `offline` is None until it has decided."""
        return {"pushes": self.world.push.outcomes[since:]}

    async def push_presence(self):
        """The phase of push's presence map, and the map."""
        presence = self.world.push.presence
        return {"phase": presence.phase, "users": presence.platforms}

    async def gateways(self):
        """The gateways that discovery shows."""
        return {"addresses": self.world.discovery.addresses("gateway")}

    # ---- faults --------------------------------------------------------------------------------------------------

    async def switch(self, service, method="*", **what):
        """See switches.py: delay_ms, error, hang, drop, times. With none of them the switch is off."""
        self.world.switches.put(service, method, **what)
        return {}

    async def stop(self, service):
        """Closes its port and connections, and deregisters."""
        await self.world.hosts[service].stop()
        return {}

    async def crash(self, service):
        """Closes its port and connections; stays in etcd until its lease ends."""
        await self.world.hosts[service].crash()
        return {}

    async def start(self, service):
        """Comes back at the address that it had."""
        await self.world.hosts[service].start()
        return {"address": self.world.hosts[service].address}

    async def restart(self, service):
        """Ends and comes back at the same address."""
        await self.world.hosts[service].stop()
        return await self.start(service)

    async def move(self, service):
        """Ends and comes back at another address."""
        host = self.world.hosts[service]
        await host.stop()
        host.port = 0
        return await self.start(service)

    async def lose_lease(self, service):
        """Its key vanishes while it goes on serving, until `register`."""
        await self.world.hosts[service].registration.lose()
        return {}

    async def register(self, service):
        """Registers again after `lose_lease`."""
        await self.world.hosts[service].registration.come_back()
        return {}

    # ---- push and fixed tables -----------------------------------------------------------------------------------

    async def ring(self, instance, namespace, replicas, port=88, dial=None):
        """The ring of the strategy `hash`, and the real addresses of its members by name."""
        names = members(instance, namespace, replicas, port)
        self.world.push.set_ring(names, dial or {})
        return {"members": names}

    async def peers(self, service, addresses):
        """Without etcd: where a service is."""
        self.world.discovery.replace(service, addresses)
        return {}

    # ---- the stand-in gateway ------------------------------------------------------------------------------------

    async def gateway_login(self, user, platform, token="", background=False, broken=False):
        """A pretended user logs in; says what the other gateways answered to MultiTerminalLoginCheck."""
        connection = Connection(platform, token, background, broken)
        answered = await self.world.gateway.login(user, connection)
        return {"connID": connection.conn_id, "others": answered}

    async def gateway_hold(self, user, platform, token=""):
        """A pretended user is there without having logged in: no gateway is asked and nobody is kicked."""
        connection = Connection(platform, token)
        await self.world.gateway.hold(user, connection)
        return {"connID": connection.conn_id}

    async def gateway_logout(self, user, platform=None):
        await self.world.gateway.logout(user, platform)
        return {}

    async def gateway_users(self):
        """Connections with what each received, and whoever was kicked."""
        return self.world.gateway.shown()
