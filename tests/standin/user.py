"""OpenIM's user service, as far as presence goes (spec 9)."""

from errors import ARGS, OpenImError
from stubs import services

ONLINE, OFFLINE = 1, 0


class User:
    """Presence lives in the store."""

    def __init__(self, world):
        self.world = world

    def methods(self):
        methods = {
            "setUserOnlineStatus": (services.SetUserOnlineStatusReq, self.set_online),
            "getUserStatus": (services.GetUserStatusReq, self.get_status),
            "getAllOnlineUsers": (services.GetAllOnlineUsersReq, self.get_all),
        }
        if self.world.compat.old:
            # None of the others is there yet.
            return {"setUserStatus": (services.SetUserStatusReq, self.set_status)}
        return methods

    async def set_online(self, request, _context):
        """One entry after another; the first error ends it."""
        for entry in request.status:
            await self.world.store.presence(entry.userID, list(entry.online), list(entry.offline))
        return services.Empty()

    async def get_status(self, request, _context):
        if not request.userIDs:
            raise OpenImError(ARGS, detail="UserIDs is empty")
        found = [status(user, await self.world.store.platforms(user)) for user in request.userIDs]
        return services.GetUserStatusResp(statusList=found)

    async def get_all(self, request, _context):
        following, page = await self.world.store.all_online(request.cursor)
        found = [status(user, platforms) for user, platforms in page.items()]
        return services.GetAllOnlineUsersResp(StatusList=found, nextCursor=following)

    async def set_status(self, request, _context):
        await self.world.store.old_status(request.userID, request.platformID, request.status == ONLINE)
        return services.Empty()


def status(user, platforms):
    return services.OnlineStatus(userID=user, status=ONLINE if platforms else OFFLINE, platformIDs=platforms)
