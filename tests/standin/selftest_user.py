"""Presence: the calls, what they leave in Redis, what is published (spec 9.2, 9.6, A.7), with Redis and in memory."""

import asyncio
import json
import socket
import zlib

from selftest_client import Client, equal, refused, until
from store import MemoryStore, parse_online_change
from stubs import services

IOS, WEB, LINUX = 1, 5, 7
REPLY_SECONDS = 60
# (online, offline, platforms in `online_change` or None if nothing changed), one after the other for one user.
STEPS = [
    ([WEB], [], [WEB]),
    ([WEB, WEB], [], None),
    ([IOS], [], [IOS, WEB]),
    ([WEB, WEB], [IOS], [WEB]),
    ([IOS], [WEB], [IOS]),
    ([], [IOS], []),
    ([], [IOS], None),
    ([], [], None),
]


class Subscriber:
    """A plain connection to Redis that listens to `online_change`."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=REPLY_SECONDS)
        self.lines = self.socket.makefile("r", newline="\r\n")
        self.socket.sendall(b"SUBSCRIBE online_change\r\n")
        equal(self.message()[0], "subscribe", "subscribed")

    def message(self):
        """The three parts of a pushed array; a number instead of a length is the number of subscriptions."""
        parts = []
        for _ in range(int(self.lines.readline()[1:])):
            head = self.lines.readline().strip()
            parts.append(self.lines.readline().strip() if head[0] == "$" else head[1:])
        return parts

    def payload(self):
        return self.message()[2]

    def close(self):
        self.socket.close()


def set_online(client, user, online, offline):
    entry = services.UserOnlineStatus(userID=user, online=online, offline=offline)
    client.call("user", "setUserOnlineStatus", services.SetUserOnlineStatusReq(status=[entry]), services.Empty)


def run(checks, standin, address, redis):
    """Against a stand-in of patch.16 with Redis at this address."""
    client = Client(standin)

    def script():
        subscriber = Subscriber(address)
        for number, (online, offline, wanted) in enumerate(STEPS):
            set_online(client, "u1", online, offline)
            # Whatever is published first belongs to the step, or to the fence where nothing changed.
            set_online(client, f"fence-{number}", [WEB], [])
            if wanted is not None:
                published(subscriber.payload(), wanted, f"step {number}")
            equal(subscriber.payload(), f"5:fence-{number}", f"nothing more in step {number}")
        equal(redis("ZRANGE", "ONLINE:u1", "0", "-1"), [], "nobody is left")
        # The order is that of the scores, then of the bytes.
        set_online(client, "u6", [WEB, LINUX, IOS], [])
        equal(subscriber.payload(), "1:5:7:u6", "equal scores")
        redis("ZADD", "ONLINE:u7", str(int(redis("TIME")[0]) + 600), "5")
        set_online(client, "u7", [IOS], [])
        equal(subscriber.payload(), "5:1:u7", "an earlier score")
        subscriber.close()

    def in_redis():
        set_online(client, "u2", [WEB, WEB], [IOS])
        equal(redis("ZRANGE", "ONLINE:u2", "0", "-1"), ["5"], "members")
        now = int(redis("TIME")[0])
        score = int(redis("ZSCORE", "ONLINE:u2", "5")[0])
        assert now < score <= now + 1800, f"the score {score} is not half an hour after {now}"
        assert 0 < int(redis("TTL", "ONLINE:u2")[0]) <= 1800, "the key ends too"

    def lapsed():
        redis("ZADD", "ONLINE:u3", "1000", str(LINUX))
        equal(standin.ask("platforms", user="u3"), {"platforms": []}, "an old score does not count")
        equal(everyone(client)["u3"], [LINUX], "but for the page of all")
        set_online(client, "u3", [WEB], [])
        equal(redis("ZRANGE", "ONLINE:u3", "0", "-1"), ["5"], "the next write takes it away")

    def statuses():
        set_online(client, "u4", [IOS, WEB], [])
        request = services.GetUserStatusReq(userID="u4", userIDs=["u4", "nobody"])
        answer = client.call("user", "getUserStatus", request, services.GetUserStatusResp)
        found = [(status.userID, status.status, sorted(status.platformIDs)) for status in answer.statusList]
        equal(found, [("u4", 1, [IOS, WEB]), ("nobody", 0, [])], "statuses")
        empty = services.GetUserStatusReq(userID="u4")
        refused(lambda: client.call("user", "getUserStatus", empty, services.GetUserStatusResp), 1001, "ArgsError")

    def written_down():
        equal(services.SetUserOnlineStatusReq.FromString(bytes.fromhex("0a0b0a0275311a020505220101")), (
            services.SetUserOnlineStatusReq(status=[services.UserOnlineStatus(userID="u1", online=[5, 5], offline=[1])])
        ), "A.7")
        set_online(client, "u5", [WEB], [IOS])
        entry = standin.ask("presence")["entries"][-1]
        kept = {name: entry[name] for name in ("user", "connID", "online", "offline", "operation", "outcome")}
        wanted = {"user": "u5", "connID": "", "online": [WEB], "offline": [IOS], "operation": "op", "outcome": 0}
        equal(kept, wanted, "entry")

    checks.run("standin: presence is published exactly when it changed", script)
    checks.run("standin: members, scores and lives in Redis", in_redis)
    checks.run("standin: what lapsed is not online, and is in the page of all", lapsed)
    checks.run("standin: getUserStatus", statuses)
    checks.run("standin: entries are written down", written_down)
    checks.run("standin: memory answers as Redis does", lambda: asyncio.run(in_memory()))
    checks.run("standin: payloads of online_change", payloads)


def everyone(client):
    """Platforms by user, page by page."""
    users, cursor = {}, 0
    while True:
        request = services.GetAllOnlineUsersReq(cursor=cursor)
        answer = client.call("user", "getAllOnlineUsers", request, services.GetAllOnlineUsersResp)
        users.update({status.userID: list(status.platformIDs) for status in answer.StatusList})
        cursor = answer.nextCursor
        if not cursor:
            return users


async def in_memory():
    store = MemoryStore()
    subscribed = asyncio.Event()
    changes = store.changes(subscribed)
    first = asyncio.create_task(anext(changes))
    await subscribed.wait()
    for number, (online, offline, wanted) in enumerate(STEPS):
        equal(await store.presence("u1", online, offline), wanted is not None, f"step {number} changed")
        if wanted is not None:
            seen = await (first or anext(changes))
            published(seen, wanted, f"step {number}")
            first = None
    equal(await store.platforms("u1"), [], "nobody is left")


def published(payload, platforms, what):
    """u1 is online there. The order is that of the seconds in which he logged in."""
    user, found = parse_online_change(payload)
    equal((user, sorted(found)), ("u1", platforms), what)


def payloads():
    for payload, wanted in [
        ("5:u1", ("u1", [5])), ("1:5:u1", ("u1", [1, 5])), ("u1", ("u1", [])), ("a:u1", None), ("5:a:b", None),
    ]:
        equal(parse_online_change(payload), wanted, payload)


def oldest(checks, old, redis):
    """3.5 with Redis."""

    def status():
        client = Client(old, "v3.5")
        key = f"ONLINE_STATUS:{zlib.crc32(b'tessa') % 501}"
        for platform, value, status, platforms in [
            (WEB, 1, 1, [5]), (IOS, 1, 1, [5, 1]), (WEB, 0, 1, [1]), (IOS, 0, 0, []),
        ]:
            wanted = json.dumps({"userID": "tessa", "status": status, "platformIDs": platforms}, separators=(",", ":"))
            request = services.SetUserStatusReq(userID="tessa", platformID=platform, status=value)
            client.call("user", "setUserStatus", request, services.Empty)
            equal(redis("HGET", key, "tessa"), [wanted], "hash")
            equal(old.ask("platforms", user="tessa"), {"platforms": platforms}, "as a test asks")
        refused(lambda: set_online(client, "tessa", [WEB], []), 12)

    checks.run("standin: v3.5: setUserStatus keeps a hash", status)


def short_lives(checks, standin):
    """A stand-in whose presence lasts a second."""

    def ends():
        set_online(Client(standin), "anna", [WEB], [])
        until(lambda: not standin.ask("platforms", user="anna")["platforms"], lambda: "still online")

    checks.run("standin: presence ends after the time that is set", ends)
