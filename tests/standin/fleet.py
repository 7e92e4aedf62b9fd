"""All gateways, as OpenIM's other services call them: push, kick, who is online (spec 10.2, 10.6)."""

import asyncio

from errors import OpenImError
from names import TEMP_ADMIN
from stubs import gateway, old_gateway

# How many gateways are pushed to at a time (maxConcurrentWorkers).
PARALLEL_CALLS = 3


class Fleet:
    """Knows the gateways from discovery."""

    def __init__(self, world, admins):
        self.world, self.admins = world, admins
        self.messages = old_gateway if world.compat.old else gateway

    def addresses(self):
        return self.world.discovery.addresses("gateway")

    def as_admin(self, operation, user=""):
        """Metadata of a call that acts for the system: patch.16 names an admin, MAIN marks the call (spec 6.2)."""
        if self.world.compat.temp_admin:
            return (("operationid", operation), *((("opuserid", user),) if user else ()), *TEMP_ADMIN)
        return ("operationid", operation), ("opuserid", self.admins[0])

    async def push(self, address, message, users, metadata):
        """The results of one gateway; raises OpenImError."""
        request = self.messages.OnlineBatchPushOneMsgReq(msgData=message, pushToUserIDs=users)
        answer_type = self.messages.OnlineBatchPushOneMsgResp
        method = "SuperGroupOnlineBatchPushOneMsg"
        answer = await self.world.calls.call(address, "gateway", method, request, answer_type, metadata)
        return answer.singlePushResult

    async def kick(self, user, platform, operation):
        """KickUserOffline on each; errors are shown and change nothing. Code by address."""
        request = self.messages.KickUserOfflineReq(platformID=platform, kickUserIDList=[user])
        return await self._each("KickUserOffline", request, self.messages.KickUserOfflineResp, operation)

    async def online(self, users, operation):
        """GetUsersOnlineStatus on each, merged: connections by user, each with the gateway that has it."""
        request = self.messages.GetUsersOnlineStatusReq(userIDs=users)
        answer_type = self.messages.GetUsersOnlineStatusResp
        found = await self._each("GetUsersOnlineStatus", request, answer_type, operation)
        merged = {}
        for address, answer in found.items():
            if isinstance(answer, OpenImError):
                continue
            for result in answer.successResult:
                merged.setdefault(result.userID, []).extend(
                    self._detail(address, detail) for detail in result.detailPlatformStatus
                )
        codes = {address: getattr(answer, "code", 0) for address, answer in found.items()}
        return {"users": merged, "codes": codes}

    def _detail(self, address, detail):
        old = self.world.compat.old
        platform = detail.platform if old else detail.platformID
        return {
            "gateway": address, "platform": platform, "connID": detail.connID,
            "background": detail.isBackground, "token": detail.token,
        }

    async def _each(self, method, request, answer_type, operation):
        """The answer or the OpenImError of each gateway, by address."""
        metadata = self.as_admin(operation)

        async def one(address):
            try:
                return await self.world.calls.call(address, "gateway", method, request, answer_type, metadata)
            except OpenImError as fault:
                return fault

        addresses = self.addresses()
        return dict(zip(addresses, await asyncio.gather(*map(one, addresses))))
