"""OpenIM's push service: takes messages off its queue, pushes them through the gateways and decides who gets an offline
push (spec 10.1, 10.2, 10.5).

Not here: webhooks, the conversation service that knows who muted what, tips that reach those who left a group. An
offline push is written down, not sent."""

import asyncio
import time
import traceback
import zlib

import conversations
from errors import OpenImError
from fleet import PARALLEL_CALLS
from ring import Ring
from stubs import push, services

ALL_NODES, HASH = "all", "hash"
# Messages of one conversation keep their order, as in a partition of Kafka.
PARTITIONS = 8
SENDING, SENT = 1, 2
NO_OFFLINE_PUSH_TYPES = (1602, 1603)
OLD_DROPPED_AFTER_MS = 10_000


class Push:
    """`strategy` is ALL_NODES or HASH; `dial` has the real address of a member of the ring, which is its own
    otherwise."""

    def __init__(self, world, fleet, presence, strategy):
        self.world, self.fleet, self.presence, self.strategy = world, fleet, presence, strategy
        self.ring = Ring(())
        self.dial = {}
        self.outcomes = []
        self.queues = [asyncio.Queue() for _ in range(PARTITIONS)]
        self.tasks = []

    def methods(self):
        return {
            "PushMsg": (services.PushMsgReq, self.push_msg),
            "DelUserPushToken": (push.DelUserPushTokenReq, self.delete_token),
        }

    def start(self):
        if not self.world.compat.old:
            self.presence.start()
        self.tasks = [asyncio.create_task(self._consume(queue)) for queue in self.queues]

    def close(self):
        self.presence.close()
        for task in self.tasks:
            task.cancel()

    def set_ring(self, names, dial):
        self.ring, self.dial = Ring(names), dial

    async def push_msg(self, request, context):
        self.take(request.msgData, request.conversationID, context.operation, context.user)
        return services.Empty()

    async def delete_token(self, _request, _context):
        """No push tokens are kept; the records have the call."""
        return push.DelUserPushTokenResp()

    def take(self, message, conversation, operation, user):
        """Puts a message on the queue."""
        queue = self.queues[zlib.crc32(conversation.encode()) % PARTITIONS]
        queue.put_nowait((message, conversation, operation, user))

    def targets(self, message):
        """Whom it is for."""
        if message.sessionType == conversations.GROUP:
            return self.world.groups().get(message.groupID, [])
        users = [message.recvID]
        if conversations.wants(message, "senderSync") and message.sendID != message.recvID:
            users.append(message.sendID)
        return users

    async def _consume(self, queue):
        if not self.world.compat.old:
            await self.presence.ready.wait()
        while True:
            message, conversation, operation, user = await queue.get()
            late = int(time.time() * 1000) - message.sendTime > OLD_DROPPED_AFTER_MS
            if not (late and self.world.compat.old):
                try:
                    await self._push(message, conversation, operation, user)
                except Exception:  # a fault of the stand-in's own: it is shown, and the next message is pushed
                    traceback.print_exc()

    async def _push(self, message, conversation, operation, user):
        if message.status == SENDING:
            message.status = SENT
        targets = self.targets(message)
        online = [target for target in targets if self.world.compat.old or self.presence.online(target)]
        outcome = {
            "operation": operation, "clientMsgID": message.clientMsgID, "conversation": conversation,
            "seq": message.seq, "targets": targets, "online": online, "calls": [], "offline": None,
        }
        self.outcomes.append(outcome)
        # Of users who are not online there is an empty result, as if a gateway had said so.
        results = [(target, False) for target in targets if target not in online]
        if online:
            results += await self._reach(message, online, outcome["calls"], self.fleet.as_admin(operation, user))
        outcome["offline"] = self._offline(message, targets, results)

    async def _reach(self, message, online, calls, metadata):
        """(user, onlinePush) of all gateways that answered; each call is written down as it ends."""
        slots = asyncio.Semaphore(PARALLEL_CALLS)

        async def one(address, users):
            async with slots:
                try:
                    results = await self.fleet.push(address, message, users, metadata)
                except OpenImError as fault:
                    calls.append({"gateway": address, "code": fault.code, "message": fault.message, "results": []})
                    return []
            calls.append({"gateway": address, "code": 0, "message": "", "results": [shown(r) for r in results]})
            return [(result.userID, result.onlinePush) for result in results]

        found = await asyncio.gather(*(one(address, users) for address, users in self._plan(online).items()))
        return [result for part in found for result in part]

    def _plan(self, online):
        """Which users are asked for at which address."""
        if self.strategy == ALL_NODES:
            return {address: online for address in self.fleet.addresses()}
        plan = {}
        for user in online if self.ring.points else ():
            member = self.ring.owner(user)
            plan.setdefault(self.dial.get(member, member), []).append(user)
        return plan

    def _offline(self, message, targets, results):
        """Who gets an offline push: for each of them one."""
        if not conversations.wants(message, "offlinePush") or message.contentType in NO_OFFLINE_PUSH_TYPES:
            return []
        others = [(user, reached) for user, reached in results if user != message.sendID]
        reached_users = {user for user, reached in results if reached}
        if message.sessionType == conversations.GROUP:
            if self.strategy == HASH:
                return [user for user, reached in results if not reached]
            return [user for user in targets if user != message.sendID and user not in reached_users]
        if self.world.compat.old:
            # For every gateway that does not have him, even if another one has (spec 10.5).
            return [message.recvID for _, reached in others if not reached]
        return [] if any(reached for _, reached in others) else [message.recvID]


def shown(result):
    """A gateway's result for one user; `resp` has [platform, result code] of each connection."""
    resp = [[detail.RecvPlatFormID, detail.ResultCode] for detail in result.resp]
    return {"user": result.userID, "onlinePush": result.onlinePush, "resp": resp}
