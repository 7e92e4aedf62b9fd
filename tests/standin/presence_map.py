"""Who is online, as push and the cache of a gateway see it (spec 9.3): push has all users in a map of its own.

What always holds: the phases are passed in order, and the last one means that every page and every message that came
in the meantime is in the map."""

import asyncio

from errors import OpenImError
from store import parse_online_change
from stubs import services

BEGIN, LOADED, SUBSCRIBED = "Begin", "DoOnlineStatusOver", "DoSubscribeOver"
PAGE_TRIES = 5
PAGE_RETRY_SECONDS = 5


class PresenceMap:
    """`retry_seconds` is 5 in OpenIM."""

    def __init__(self, world, retry_seconds=PAGE_RETRY_SECONDS):
        self.world, self.retry_seconds = world, retry_seconds
        self.platforms = {}
        self.phase = BEGIN
        self.ready = asyncio.Event()
        self.task = None

    def start(self):
        self.task = asyncio.create_task(self._run())

    def close(self):
        if self.task:
            self.task.cancel()

    def online(self, user):
        return bool(self.platforms.get(user))

    def apply(self, payload):
        """A message of `online_change`; others are ignored."""
        found = parse_online_change(payload)
        if found:
            user, platforms = found
            self.platforms[user] = platforms

    async def _run(self):
        """Subscribes and buffers, loads, applies the buffer, then follows."""
        buffered, subscribed = asyncio.Queue(), asyncio.Event()
        listening = asyncio.create_task(self._listen(buffered, subscribed))
        try:
            await subscribed.wait()
            await self._load()
            self.phase = LOADED
            while not buffered.empty():
                self.apply(buffered.get_nowait())
            self.phase = SUBSCRIBED
            self.ready.set()
            while True:
                self.apply(await buffered.get())
        finally:
            listening.cancel()

    async def _listen(self, buffered, subscribed):
        async for payload in self.world.store.changes(subscribed):
            buffered.put_nowait(payload)

    async def _load(self):
        """Pages until the cursor is 0, or gives up with what is there."""
        cursor = 0
        while True:
            page = await self._page(cursor)
            if page is None:
                return
            for status in page.StatusList:
                self.platforms[status.userID] = list(status.platformIDs)
            cursor = page.nextCursor
            if not cursor:
                return

    async def _page(self, cursor):
        for _ in range(PAGE_TRIES):
            try:
                return await self.world.call_service(
                    "user", "getAllOnlineUsers", services.GetAllOnlineUsersReq(cursor=cursor),
                    services.GetAllOnlineUsersResp, (("operationid", "full_online_users"),),
                )
            except OpenImError:
                await asyncio.sleep(self.retry_seconds)
        return None
