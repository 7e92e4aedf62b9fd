"""What OpenIM's services keep in Redis: token states (spec 7.2) and presence (spec 9.2, 9.6), or the same in memory.

What always holds: both kinds answer alike; a change of presence is published exactly when the set changed."""

import asyncio
import json
import time
import zlib

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from names import ONLINE_CHANGE, PLATFORMS

ONLINE_SECONDS = 1800
SCAN_COUNT = 1000
OLD_STATUS_SLOTS = 501
OLD_STATUS_SECONDS = 24 * 3600
RETRY_SECONDS = 0.1
RETRIES = 3
# Arguments as spec 9.2 lists them, but for the fourth: the channel; then the user, then the offline ids' number.
# Returns whether it changed.
PRESENCE_SCRIPT = """
local key, now, until_ = KEYS[1], ARGV[2], ARGV[3]
local leaving = tonumber(ARGV[6])
local first = redis.call('ZCARD', key)
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
for i = 7, 6 + leaving do redis.call('ZREM', key, ARGV[i]) end
local second = redis.call('ZCARD', key)
for i = 7 + leaving, #ARGV do redis.call('ZADD', key, until_, ARGV[i]) end
redis.call('EXPIRE', key, ARGV[1])
local third = redis.call('ZCARD', key)
if first == second and second == third then return 0 end
local parts = redis.call('ZRANGE', key, 0, -1)
parts[#parts + 1] = ARGV[5]
redis.call('PUBLISH', ARGV[4], table.concat(parts, ':'))
return 1
"""


def token_key(user, platform):
    return f"UID_PID_TOKEN_STATUS:{user}:{PLATFORMS.get(platform, '')}"


def online_key(user):
    return f"ONLINE:{user}"


def old_status_key(user):
    return f"ONLINE_STATUS:{zlib.crc32(user.encode()) % OLD_STATUS_SLOTS}"


def parse_online_change(payload):
    """(user, platform ids) of a message on `online_change`; None if it is not one."""
    *platforms, user = payload.split(":")
    try:
        return user, [int(platform) for platform in platforms]
    except ValueError:
        return None


class RedisStore:
    """Keys, scores and channel exactly as OpenIM has them."""

    def __init__(self, address, online_seconds=ONLINE_SECONDS):
        host, port = address.rsplit(":", 1)
        retry = Retry(ConstantBackoff(RETRY_SECONDS), RETRIES)
        self.redis = redis.Redis(host=host, port=int(port), decode_responses=True, retry=retry)
        self.online_seconds = online_seconds
        self.script = self.redis.register_script(PRESENCE_SCRIPT)
        self.old_status_lock = asyncio.Lock()

    async def token_states(self, user, platform):
        found = await self.redis.hgetall(token_key(user, platform))
        return {token: int(state) for token, state in found.items()}

    async def set_token_states(self, user, platform, states, expire_seconds=None):
        """Writes these states; the key lives on as it did unless a new life is named."""
        key = token_key(user, platform)
        if states:
            await self.redis.hset(key, mapping=states)
        if expire_seconds:
            await self.redis.expire(key, expire_seconds)

    async def presence(self, user, online, offline):
        """Whether the set changed, and was published."""
        now, life = int(time.time()), self.online_seconds
        arguments = [life, now, now + life, ONLINE_CHANGE, user, len(offline), *offline, *online]
        return bool(await self.script(keys=[online_key(user)], args=arguments))

    async def platforms(self, user):
        found = await self.redis.zrangebyscore(online_key(user), int(time.time()), "+inf")
        return [int(platform) for platform in found]

    async def all_online(self, cursor):
        """One page: (next cursor, platforms by user), scores ignored."""
        following, keys = await self.redis.scan(cursor, match=online_key("*"), count=SCAN_COUNT)
        page = {}
        for key in keys:
            found = await self.redis.zrange(key, 0, -1)
            page[key.partition(":")[2]] = [int(platform) for platform in found]
        return following, page

    async def old_status(self, user, platform, online):
        """OpenIM 3.5's setUserStatus. One after the other: two of a user at once may lose one in 3.5 itself."""
        key = old_status_key(user)
        async with self.old_status_lock:
            platforms = changed(await self.old_platforms(user), platform, online)
            status = {"userID": user, "status": int(bool(platforms)), "platformIDs": platforms}
            await self.redis.hset(key, user, json.dumps(status, separators=(",", ":")))
            await self.redis.expire(key, OLD_STATUS_SECONDS)

    async def old_platforms(self, user):
        found = await self.redis.hget(old_status_key(user), user)
        return json.loads(found)["platformIDs"] if found else []

    async def changes(self, subscribed):
        """Each payload of `online_change`. Sets the event once it is subscribed; after a loss it subscribes again."""
        while True:
            try:
                async with self.redis.pubsub(ignore_subscribe_messages=False) as pubsub:
                    await pubsub.subscribe(ONLINE_CHANGE)
                    async for message in pubsub.listen():
                        if message["type"] == "subscribe":
                            subscribed.set()
                        elif message["type"] == "message":
                            yield message["data"]
            except (redis.RedisError, OSError):
                await asyncio.sleep(RETRY_SECONDS)

    async def close(self):
        await self.redis.aclose()


def changed(platforms, platform, online):
    """The list with this platform in it or not."""
    others = [other for other in platforms if other != platform]
    return [*others, platform] if online else others


class MemoryStore:
    """The same for one process, without Redis."""

    def __init__(self, online_seconds=ONLINE_SECONDS):
        self.online_seconds = online_seconds
        self.tokens = {}
        self.online = {}
        self.old = {}
        self.listeners = []

    async def token_states(self, user, platform):
        return dict(self.tokens.get(token_key(user, platform), {}))

    async def set_token_states(self, user, platform, states, expire_seconds=None):
        del expire_seconds  # the process ends before
        self.tokens.setdefault(token_key(user, platform), {}).update(states)

    async def presence(self, user, online, offline):
        now = int(time.time())
        scores = self.online.setdefault(user, {})
        first = len(scores)
        kept = {p: score for p, score in scores.items() if score > now and p not in offline}
        second = len(kept)
        kept.update({platform: now + self.online_seconds for platform in online})
        self.online[user] = kept
        if first == second == len(kept):
            return False
        members = sorted(kept, key=lambda platform: (kept[platform], str(platform)))
        payload = ":".join([*map(str, members), user])
        for listener in self.listeners:
            listener.put_nowait(payload)
        return True

    async def platforms(self, user):
        now = int(time.time())
        return [platform for platform, score in self.online.get(user, {}).items() if score >= now]

    async def all_online(self, cursor):
        del cursor  # one page
        return 0, {user: list(scores) for user, scores in self.online.items() if scores}

    async def old_status(self, user, platform, online):
        self.old[user] = changed(self.old.get(user, []), platform, online)

    async def old_platforms(self, user):
        return self.old.get(user, [])

    async def changes(self, subscribed):
        listener = asyncio.Queue()
        self.listeners.append(listener)
        subscribed.set()
        while True:
            yield await listener.get()

    async def close(self):
        self.listeners.clear()
