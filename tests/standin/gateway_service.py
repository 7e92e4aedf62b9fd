"""A gateway of OpenIM's behaviour for mixed fleets: no WebSockets, its users are a table that the test fills.

It answers the RPCs of a gateway (spec 4), applies the login policy (8.3), asks the other gateways at a login (8.4),
and sends presence and repairs it (9.1, 9.4). As upstream it sends no final presence when it ends."""

import asyncio
import os
import sys
import uuid

from auth import KICKED_PLATFORMS, PC_AND_OTHER, SAME_CLASS, SAME_TERMINAL
from errors import ARGS, NO_PERMISSION, OpenImError
from names import CLASSES, IOS, PHONES, PLATFORMS
from store import parse_online_change
from stubs import services

NOTIFICATION_SESSION, NOTIFICATION_TYPE = 4, 1400
KICKABLE = range(1, 10)
OTHERS_AT_A_TIME = 3
PRESENCE_SECONDS = 5
RECORDS_PER_CALL = 100
# (iOS in the background, not sent) in the newer versions and in 3.5.
CODES = {False: (1604, 1603), True: (-3, -2)}


class Connection:
    """One pretended WebSocket. `broken`: whatever is sent to it fails."""

    def __init__(self, platform, token, background=False, broken=False):
        self.platform, self.token, self.background, self.broken = platform, token, background, broken
        self.conn_id = uuid.uuid4().hex
        self.received = []

    def take(self, message, operation):
        """A pushed message."""
        self.received.append({
            "operation": operation, "clientMsgID": message.clientMsgID, "seq": message.seq,
            "sendID": message.sendID, "content": message.content.decode(errors="replace"),
        })

    def shown(self):
        return {
            "platform": self.platform, "connID": self.conn_id, "token": self.token,
            "background": self.background, "received": self.received,
        }


class Gateway:
    """`flush_seconds` is 1 and `renew_seconds` 600 in OpenIM."""

    def __init__(self, world, fleet, policy, times):
        self.world, self.fleet, self.policy = world, fleet, policy
        self.flush_seconds, self.renew_seconds = times
        self.users = {}
        self.kicked = []
        self.pending = []
        self.calls = 0
        self.tasks = []

    def methods(self):
        messages = self.fleet.messages
        return {
            "SuperGroupOnlineBatchPushOneMsg": (messages.OnlineBatchPushOneMsgReq, self.push),
            "GetUsersOnlineStatus": (messages.GetUsersOnlineStatusReq, self.status),
            "KickUserOffline": (messages.KickUserOfflineReq, self.kick),
            "MultiTerminalLoginCheck": (messages.MultiTerminalLoginCheckReq, self.check_login),
        }

    def start(self):
        self.tasks = [asyncio.create_task(work()) for work in (self._send_presence, self._renew, self._repair)]

    def close(self):
        for task in self.tasks:
            task.cancel()

    # ---- what the other services ask -----------------------------------------------------------------------------

    async def push(self, request, context):
        check_push(request)
        answer = self.fleet.messages.OnlineBatchPushOneMsgResp()
        for user in request.pushToUserIDs:
            result = answer.singlePushResult.add(userID=user)
            for connection in self.users.get(user, ()):
                self._deliver(user, connection, request.msgData, (result, context.operation))
        return answer

    def _deliver(self, user, connection, message, wanted):
        result, operation = wanted
        old = self.world.compat.old
        in_background, failed = CODES[old]
        code = 0
        if connection.background and connection.platform == IOS:
            code = in_background
        elif connection.broken:
            code = failed
        else:
            connection.take(message, operation)
            result.onlinePush = result.onlinePush or connection.platform in PHONES
        if not (old and code == 0 and connection.platform not in PHONES):
            result.resp.add(
                ResultCode=code, RecvID=user if old else "", RecvPlatFormID=connection.platform
            )

    async def status(self, request, context):
        marked = self.world.compat.temp_admin and context.temp_admin
        if not marked and context.user not in self.fleet.admins:
            raise OpenImError(NO_PERMISSION, detail="only app manager")
        must(request.userIDs, "UserIDs is empty")
        answer = self.fleet.messages.GetUsersOnlineStatusResp()
        old = self.world.compat.old
        for user in request.userIDs:
            if not self.users.get(user):
                continue
            result = answer.successResult.add(userID=user, status="online" if old else 1)
            for connection in self.users[user]:
                named = {"platform": PLATFORMS[connection.platform], "status": "online"}
                result.detailPlatformStatus.add(
                    connID=connection.conn_id, token=connection.token, isBackground=connection.background,
                    **(named if old else {"platformID": connection.platform}),
                )
        return answer

    async def kick(self, request, _context):
        must(request.platformID in KICKABLE, "PlatformID is invalid")
        must(request.kickUserIDList, "KickUserIDList is empty")
        for user in request.kickUserIDList:
            found = self.users.get(user, [])
            await self._remove(user, [c for c in found if c.platform == request.platformID])
        return self.fleet.messages.KickUserOfflineResp()

    async def check_login(self, request, context):
        must(request.platformID in KICKABLE, "PlatformID is invalid")
        must(request.userID, "UserID is empty")
        must(request.token, "token is empty")
        if self.users.get(request.userID):
            login = (request.userID, request.platformID, request.token)
            # Answered at once: the work is done behind (spec 4.6).
            self._behind(self._apply_policy(login, (("operationid", context.operation),)))
        return self.fleet.messages.MultiTerminalLoginCheckResp()

    # ---- what the test has users do ------------------------------------------------------------------------------

    async def login(self, user, connection):
        """Registers, and asks every other gateway; waits for all of them."""
        operation = uuid.uuid4().hex
        login = (user, connection.platform, connection.token)
        metadata = (("operationid", operation), ("opuserid", user), ("connid", connection.conn_id))
        if self.users.get(user):
            await self._apply_policy(login, (*metadata, ("platform", PLATFORMS[connection.platform])))
        await self.hold(user, connection)
        slots = asyncio.Semaphore(OTHERS_AT_A_TIME)
        request = self.fleet.messages.MultiTerminalLoginCheckReq(
            userID=user, platformID=connection.platform, token=connection.token
        )
        answer_type = self.fleet.messages.MultiTerminalLoginCheckResp

        async def ask(address):
            async with slots:
                try:
                    await self.world.calls.call(
                        address, "gateway", "MultiTerminalLoginCheck", request, answer_type, metadata
                    )
                except OpenImError as fault:
                    return fault.code
            return 0

        others = [address for address in self.fleet.addresses() if address != self.world.hosts["gateway"].address]
        return dict(zip(others, await asyncio.gather(*map(ask, others))))

    async def hold(self, user, connection):
        """Is there from now on: nobody is asked, nobody is kicked."""
        self.users.setdefault(user, []).append(connection)
        await self._changed(user, [], connection.platform)

    async def logout(self, user, platform=None):
        """The sockets of this platform, or all, are gone."""
        found = [c for c in self.users.get(user, ()) if platform in (None, c.platform)]
        await self._remove(user, found, kicked=False)

    def shown(self):
        users = {user: [c.shown() for c in connections] for user, connections in self.users.items()}
        return {"users": users, "kicked": self.kicked}

    # ---- login policy --------------------------------------------------------------------------------------------

    async def _apply_policy(self, login, metadata):
        """Spec 8.3."""
        user, platform, token = login
        have = self.users.get(user, [])
        if self.policy not in (SAME_TERMINAL, SAME_CLASS, PC_AND_OTHER):
            return
        platforms = KICKED_PLATFORMS[self.policy](platform)
        if self.policy == SAME_TERMINAL and not any(c.platform == platform for c in have):
            return
        if self.policy == PC_AND_OTHER and CLASSES[platform] == "PC":
            return
        old = [c for c in have if c.platform in platforms and (c.token != token or self.world.compat.old)]
        await self._remove(user, old)
        if self.world.compat.old:
            # 3.5 spares no token's connection, and changes the states itself.
            await self.world.auth.kick_platform(user, platform, preserved=token)
            return
        if self.policy == SAME_CLASS:
            method, request = "kickTokens", services.KickTokensReq(tokens=[c.token for c in old])
            if not old:
                return
        else:
            method = "invalidateToken"
            request = services.InvalidateTokenReq(preservedToken=token, userID=user, platformID=platform)
        try:
            await self.world.call_service("auth", method, request, services.Empty, metadata)
        except OpenImError as fault:
            print(f"standin: gateway: {method}: {fault}", file=sys.stderr)

    async def _remove(self, user, connections, kicked=True):
        if not connections:
            return
        kept = [c for c in self.users[user] if c not in connections]
        if kept:
            self.users[user] = kept
        else:
            del self.users[user]
        if kicked:
            self.kicked += [{"user": user, "platform": c.platform, "connID": c.conn_id} for c in connections]
        await self._changed(user, [c.platform for c in connections])

    # ---- presence ------------------------------------------------------------------------------------------------

    async def _changed(self, user, offline, online_now=None):
        """A change record: all platforms that are left here, and those that went. 3.5 tells of each one by itself."""
        if not self.world.compat.old:
            self.pending.append((user, self._platforms(user), offline))
            return
        for platform, status in [*((p, 0) for p in offline), *([(online_now, 1)] if online_now else [])]:
            request = services.SetUserStatusReq(userID=user, status=status, platformID=platform)
            await self._tell("setUserStatus", request)

    def _platforms(self, user):
        return [connection.platform for connection in self.users.get(user, ())]

    async def _send_presence(self):
        while True:
            await asyncio.sleep(self.flush_seconds)
            while self.pending:
                batch, self.pending = self.pending[:RECORDS_PER_CALL], self.pending[RECORDS_PER_CALL:]
                request = services.SetUserOnlineStatusReq()
                for user, online, offline in batch:
                    request.status.add(userID=user, online=online, offline=offline)
                await self._tell("setUserOnlineStatus", request)

    async def _tell(self, method, request):
        """No retry: what fails is lost, and repaired by the next renewal."""
        self.calls += 1
        metadata = (("operationid", f"p_{os.getpid()}_{self.calls}"),)
        try:
            await self.world.call_service("user", method, request, services.Empty, metadata, PRESENCE_SECONDS)
        except OpenImError as fault:
            print(f"standin: gateway: {method}: {fault}", file=sys.stderr)

    async def _renew(self):
        while True:
            await asyncio.sleep(self.renew_seconds)
            self.pending += [(user, self._platforms(user), []) for user in self.users]

    async def _repair(self):
        """Says again what is here when a message leaves out a platform that is."""
        async for payload in self.world.store.changes(asyncio.Event()):
            found = parse_online_change(payload)
            if found and set(self._platforms(found[0])) - set(found[1]):
                self.pending.append((found[0], self._platforms(found[0]), []))

    def _behind(self, work):
        task = asyncio.create_task(work)
        self.tasks.append(task)
        task.add_done_callback(self.tasks.remove)


def must(condition, text):
    """A rule of the interceptor (spec 4.2)."""
    if not condition:
        raise OpenImError(ARGS, detail=text)


def check_push(request):
    must(request.HasField("msgData"), "MsgData is empty")
    message = request.msgData
    must(message.sendID, "sendID is empty")
    must(message.content, "content is empty")
    must(
        (message.sessionType == NOTIFICATION_SESSION) == (message.contentType == NOTIFICATION_TYPE),
        "notification msg must have correct session type and content type",
    )
    must(request.pushToUserIDs, "PushToUserIDs is empty")
