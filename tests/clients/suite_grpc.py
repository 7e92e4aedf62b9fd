"""OpenIM's service as grpcio sees it, an independent gRPC client: every method with good and bad input, metadata, status
codes with their details. Users are connected through `pinion listen`."""

import re
import urllib.request

import grpc

from checks import equal, until
from listener import ADMIN_PLATFORM, ANDROID, HARMONY, IOS, LINUX, WEB, Listener
from push_api import ADMIN, CALL_SECONDS, SERVICE, PushApi, message, msggateway_pb2, push_request, refused

USERS = [f"user{n}" for n in range(12)]
OK = None
# Codes of gRPC itself.
INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL = 3, 12, 13


def run(checks, gateway, _api):
    with PushApi(gateway.grpc) as api:
        listeners = {user: Listener(gateway, user) for user in USERS}
        try:
            checks.run("grpc: users on every shard are online", lambda: spread(gateway, api))
            checks.run("grpc: a push reaches users of different shards", lambda: push_to_all(api, listeners))
            checks.run("grpc: an absent user gets an empty result", lambda: absent(api))
            checks.run("grpc: a user named twice gets it twice, and two results", lambda: named_twice(api, listeners))
            checks.run("grpc: KickUserOffline ends one user's connection", lambda: kick(api, listeners))
        finally:
            for listener in listeners.values():
                listener.close()
        checks.run("grpc: onlinePush is true for phones only, on every platform", lambda: platforms(gateway, api))
        checks.run("grpc: a login elsewhere kicks, except with the same token", lambda: remote_login(gateway, api))
        for name, method, request, wanted in bad_requests():
            checks.run(f"grpc: {name}", lambda m=method, r=request, w=wanted: bad_request(api, m, r, w))
        for name, metadata, wanted in metadata_rules():
            checks.run(f"grpc: metadata: {name}", lambda m=metadata, w=wanted: metadata_rule(api, m, w))
        checks.run("grpc: an answer has its status in the trailers", lambda: trailers(api))
        checks.run("grpc: all this went over one connection, which is whole", lambda: equal(api.broke(), False))


def spread(gateway, api):
    until(lambda: len(api.online(USERS)) == len(USERS), lambda: f"online: {sorted(api.online(USERS))}")

    # Figures are published once per tick, so the page may be a moment behind.
    def by_shard():
        with urllib.request.urlopen(gateway.http + "/metrics", timeout=60) as page:
            text = page.read().decode()
        return {s: int(n) for s, n in re.findall(r'^pinion_connections\{shard="(\d+)"\} (\d+)', text, re.M)}

    until(lambda: sum(by_shard().values()) == len(USERS), lambda: f"connections by shard: {by_shard()}")
    # 12 users on 3 shards: the chance that a random owner key leaves a shard empty is 2.3 %; two shards are enough here.
    used = [shard for shard, n in by_shard().items() if n]
    assert len(used) >= 2, f"all users on one shard: {by_shard()}"


def push_to_all(api, listeners):
    results = api.push("sender", USERS, "one for all")
    for user in USERS:
        equal([(d.RecvPlatFormID, d.ResultCode) for d in results[user].resp], [(LINUX, 0)], user)
    for user in USERS:
        listeners[user].wait_texts(["one for all"])


def absent(api):
    results = api.push("sender", ["user0", "nobody"], "one is absent")
    equal(len(results["user0"].resp), 1, "user0")
    equal((len(results["nobody"].resp), results["nobody"].onlinePush), (0, False), "nobody")


def named_twice(api, listeners):
    request = push_request("sender", ["user1", "nobody", "user1"], "twice")
    answer = api.call(api.stub.SuperGroupOnlineBatchPushOneMsg, request)
    got = sorted((r.userID, len(r.resp)) for r in answer.singlePushResult)
    equal(got, [("nobody", 0), ("user1", 1), ("user1", 1)], "results")
    listeners["user1"].wait_texts(["one for all", "twice", "twice"])


def kick(api, listeners):
    victim = USERS[-1]
    api.kick(LINUX, [victim])
    until(lambda: listeners[victim].saw("frame 2002"), lambda: f"{listeners[victim].output}")
    listeners[victim].close()
    until(lambda: victim not in api.online(USERS), lambda: "still online")
    equal(len(api.online(USERS)), len(USERS) - 1, "the others stay")


def platforms(gateway, api):
    """Spec 4.3 to 4.5, traps 19 and 21."""
    listeners = {p: Listener(gateway, f"platform{p}", p) for p in range(IOS, HARMONY + 1) if p != ADMIN_PLATFORM}
    users = [listener.user for listener in listeners.values()]
    try:
        until(lambda: len(api.online(users)) == len(users), lambda: f"online: {sorted(api.online(users))}")
        results = api.push("sender", users, "to every platform")
        details = api.status(users)
        for platform, listener in listeners.items():
            listener.wait_texts(["to every platform"])
            result = results[listener.user]
            equal([(d.RecvPlatFormID, d.ResultCode, d.RecvID) for d in result.resp], [(platform, 0, "")], listener.user)
            equal(result.onlinePush, platform in (IOS, ANDROID), f"onlinePush of platform {platform}")
            (detail,) = details[listener.user]
            equal((detail.platformID, detail.isBackground), (platform, False), "status")
            assert re.fullmatch("[0-9a-f]{32}", detail.connID), f"connID {detail.connID!r}"
            if platform == HARMONY:
                cause = "PlatformID is invalid"
                refused(lambda: api.kick(HARMONY, users), (1001, "ArgsError", cause))
                continue
            # Everybody is named, but only this platform is ended.
            api.kick(platform, users)
            until(lambda l=listener: l.saw("frame 2002"), lambda l=listener: f"{l.output}")
        last = listeners[HARMONY].user
        until(lambda: api.online(users) == {last: [HARMONY]}, lambda: f"online: {api.online(users)}")
    finally:
        for listener in listeners.values():
            listener.close()


def remote_login(gateway, api):
    """MultiTerminalLoginCheck (spec 4.6): the default policy ends other logins of the platform, not those of this token."""
    request = lambda user, token, platform=LINUX: msggateway_pb2.MultiTerminalLoginCheckReq(
        userID=user, platformID=platform, token=token
    )
    check = lambda *given: api.call(api.stub.MultiTerminalLoginCheck, request(*given))
    check("nobody", "any")
    with Listener(gateway, "roamer") as listener:
        (detail,) = api.status(["roamer"])["roamer"]
        check("roamer", detail.token)
        check("roamer", "of another platform", WEB)
        api.push("sender", ["roamer"], "still here")
        listener.wait_texts(["still here"])
        check("roamer", gateway.token("roamer", LINUX, days=89))
        until(lambda: listener.saw("frame 2002"), lambda: f"{listener.output}")
        until(lambda: not api.online(["roamer"]), lambda: "still online")


def bad_requests():
    """Name, method, request (a message or raw bytes), and (code, message, cause): spec 4.2, 4.4, 6.4."""
    pb = msggateway_pb2

    def changed(**fields):
        data = message("a", "b", "x")
        for field, value in fields.items():
            setattr(data, field, value)
        return data

    args = lambda cause: (1001, "ArgsError", cause)
    push = lambda **given: pb.OnlineBatchPushOneMsgReq(pushToUserIDs=["b"], **given)
    kick_users, login = pb.KickUserOfflineReq, pb.MultiTerminalLoginCheckReq
    notification = "notification msg must have correct session type and content type"
    rows = [
        ("GetUsersOnlineStatus", "of nobody", pb.GetUsersOnlineStatusReq(), args("UserIDs is empty")),
        ("GetUsersOnlineStatus", "not as admin", pb.GetUsersOnlineStatusReq(userIDs=["a"]),
         (1002, "NoPermissionError", "only app manager")),
        ("KickUserOffline", "of nobody", kick_users(platformID=1), args("KickUserIDList is empty")),
        ("MultiTerminalLoginCheck", "without user", login(platformID=1, token="t"), args("UserID is empty")),
        ("MultiTerminalLoginCheck", "without token", login(userID="a", platformID=1), args("token is empty")),
        ("OnlinePushMsg", "in order", pb.OnlinePushMsgReq(msgData=message("a", "b", "x"), pushToUserID="b"),
         (UNIMPLEMENTED, "method OnlinePushMsg not implemented", None)),
        ("OnlineBatchPushOneMsg", "in order", push(msgData=message("a", "b", "x")),
         (UNIMPLEMENTED, "method OnlineBatchPushOneMsg not implemented", None)),
        ("NoSuchMethod", "anything", b"", (UNIMPLEMENTED, f"unknown method NoSuchMethod for service {SERVICE}", None)),
    ]
    for platform in (-1, 0, ADMIN_PLATFORM, HARMONY):
        wanted = args("PlatformID is invalid")
        rows += [
            ("KickUserOffline", f"platform {platform}", kick_users(platformID=platform, kickUserIDList=["a"]), wanted),
            ("MultiTerminalLoginCheck", f"platform {platform}", login(userID="a", platformID=platform, token="t"), wanted),
        ]
    for what, request, cause in [
        ("no message", push(), "MsgData is empty"),
        ("no sender", push(msgData=changed(sendID="")), "sendID is empty"),
        ("no content", push(msgData=changed(content=b"")), "content is empty"),
        ("a notification without its content type", push(msgData=changed(sessionType=4)), notification),
        ("a notification without its session type", push(msgData=changed(contentType=1400)), notification),
        ("no recipients", pb.OnlineBatchPushOneMsgReq(msgData=message("a", "b", "x")), "PushToUserIDs is empty"),
    ]:
        rows.append(("SuperGroupOnlineBatchPushOneMsg", what, request, args(cause)))
    whole = push(msgData=message("a", "b", "x")).SerializeToString()
    for what, raw in [
        ("garbage", b"\xff\xff\xff"),
        ("a cut request", whole[:-2]),
        ("a sender that is no UTF-8", b"\x0a\x03\x0a\x01\xff\x12\x01b"),
        ("a user that is no UTF-8", b"\x12\x01\xff"),
    ]:
        rows.append(("SuperGroupOnlineBatchPushOneMsg", what, raw, (INTERNAL, None, None)))
    for method, what, request, wanted in rows:
        yield f"{method}, {what}: {wanted[0]}", method, request, wanted


def bad_request(api, method, request, wanted):
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    refused(lambda: api.call(api.channel.unary_unary(f"/{SERVICE}/{method}"), raw), wanted)


def metadata_rules():
    """Name, metadata, and what GetUsersOnlineStatus makes of it (spec 6.1, 6.2)."""
    operation, marker = ("operationid", "a"), ("customheader", "ctxImTempAdminKey")
    no_admin = (1002, "NoPermissionError", "only app manager")
    missing = lambda key: (INVALID_ARGUMENT, f"missing metadata key {key}", None)
    return [
        ("no operationid", [("opuserid", ADMIN)], (INVALID_ARGUMENT, "operationID error", None)),
        ("two operationids", [operation, operation, ("opuserid", ADMIN)], (INVALID_ARGUMENT, "operationID error", None)),
        ("an empty operationid", [("operationid", ""), ("opuserid", ADMIN)], OK),
        ("another user than the admin", [operation, ("opuserid", "somebody")], no_admin),
        ("two users", [operation, ("opuserid", ADMIN), ("opuserid", ADMIN)], no_admin),
        ("the marker of internal calls", [operation, marker, ("ctximtempadminkey", "1")], OK),
        ("the marker with another value", [operation, marker, ("ctximtempadminkey", "0")], no_admin),
        ("the marker's key alone", [operation, ("ctximtempadminkey", "1")], no_admin),
        ("the marker without its key", [operation, marker], missing("ctxImTempAdminKey")),
        ("a listed key that is there", [operation, ("opuserid", ADMIN), ("customheader", "x-one"), ("x-one", "1")], OK),
        ("a listed key that is missing", [operation, ("opuserid", ADMIN), ("customheader", "x-one")], missing("x-one")),
        ("keys nobody knows", [operation, ("opuserid", ADMIN), ("x-any", "b"), ("x-any-bin", b"\0\xff")], OK),
    ]


def metadata_rule(api, metadata, wanted):
    request = msggateway_pb2.GetUsersOnlineStatusReq(userIDs=["a"])
    call = lambda: api.stub.GetUsersOnlineStatus(request, timeout=CALL_SECONDS, metadata=metadata)
    if wanted is OK:
        equal(len(call().successResult), 0, "users online")
    else:
        refused(call, wanted)


def trailers(api):
    request = push_request("sender", ["nobody"], "x")
    answer, call = api.stub.SuperGroupOnlineBatchPushOneMsg.with_call(
        request, timeout=CALL_SECONDS, metadata=[("operationid", "trailers")]
    )
    equal([r.userID for r in answer.singlePushResult], ["nobody"], "results")
    equal((call.code(), call.details()), (grpc.StatusCode.OK, ""), "status")
    equal(list(call.trailing_metadata()), [], "trailers besides the status")
