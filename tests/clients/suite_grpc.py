"""The push API as an independent gRPC client sees it: grpcio, with users connected through `pinion listen`."""

import os
import re
import subprocess
import threading
import urllib.request

import grpc

from checks import equal, until
from gateway import BINARY
from push_api import PushApi, message, msggateway_pb2, openim_error

USERS = [f"user{n}" for n in range(12)]
LINUX, WEB = 7, 5


class Listener:
    """A connected user whose output is read."""

    def __init__(self, gateway, user, platform=LINUX):
        command = [BINARY, "listen", "--token", gateway.token(user, platform), "--url", gateway.websocket]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.output = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.output.append(line)

    def saw(self, text):
        return any(text in line for line in self.output)

    def close(self):
        self.process.kill()
        self.process.wait()


def run(checks, gateway, _api):
    api = PushApi(gateway.grpc)
    listeners = {user: Listener(gateway, user) for user in USERS}
    try:
        checks.run("grpc: users on every shard are online", lambda: spread(gateway, api))
        checks.run("grpc: a push reaches users of different shards", lambda: push_to_all(api, listeners))
        checks.run("grpc: an absent user gets an empty result", lambda: absent(api))
        checks.run("grpc: KickUserOffline ends one user's connection", lambda: kick(api, listeners))
        errors(checks, api)
        for metadata in ([], [("operationid", "a"), ("operationid", "b")]):
            checks.run(f"grpc: {len(metadata)} operation ids are refused", lambda m=metadata: operation_id(api, m))
        checks.run("grpc: methods nobody implements are UNIMPLEMENTED", lambda: unimplemented(api))
        checks.run("grpc: an unknown method is UNIMPLEMENTED", lambda: unknown_method(api))
        checks.run("grpc: 100 concurrent calls are all answered", lambda: concurrent(api))
    finally:
        for listener in listeners.values():
            listener.close()
        api.close()


def spread(gateway, api):
    until(lambda: len(api.online(USERS)) == len(USERS), lambda: f"online: {sorted(api.online(USERS))}")

    # Figures are published once per tick, so the page may be a moment behind.
    def by_shard():
        with urllib.request.urlopen(gateway.http + "/metrics", timeout=10) as page:
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
    missing = lambda: [user for user in USERS if not listeners[user].saw("one for all")]
    until(lambda: not missing(), lambda: f"not shown to {missing()}: {listeners[missing()[0]].output[-5:]}")


def absent(api):
    results = api.push("sender", ["user0", "nobody"], "one is absent")
    equal(len(results["user0"].resp), 1, "user0")
    equal((len(results["nobody"].resp), results["nobody"].onlinePush), (0, False), "nobody")


def kick(api, listeners):
    victim = USERS[-1]
    api.kick(LINUX, [victim])
    until(lambda: listeners[victim].saw("frame 2002"), lambda: f"{listeners[victim].output}")
    listeners[victim].close()
    until(lambda: victim not in api.online(USERS), lambda: "still online")
    equal(len(api.online(USERS)), len(USERS) - 1, "the others stay")


def errors(checks, api):
    """Errors of the request checks come back with OpenIM's codes (spec 4.2, 4.4, 6.4)."""
    pb = msggateway_pb2
    no_sender, no_content = message("a", "b", "x"), message("a", "b", "x")
    no_sender.sendID = ""
    no_content.content = b""
    push, kick_users = api.stub.SuperGroupOnlineBatchPushOneMsg, api.stub.KickUserOffline
    status = api.stub.GetUsersOnlineStatus
    push_request = pb.OnlineBatchPushOneMsgReq
    cases = [
        ("push without a message", push, push_request(pushToUserIDs=["a"]), 1001, "MsgData is empty"),
        ("push without a sender", push, push_request(msgData=no_sender, pushToUserIDs=["a"]), 1001, "sendID is empty"),
        ("push without content", push, push_request(msgData=no_content, pushToUserIDs=["a"]), 1001, "content is empty"),
        ("push to nobody", push, push_request(msgData=message("a", "b", "x")), 1001, "PushToUserIDs is empty"),
        ("kick on platform 10", kick_users, pb.KickUserOfflineReq(platformID=10, kickUserIDList=["a"]), 1001,
         "PlatformID is invalid"),
        ("kick of nobody", kick_users, pb.KickUserOfflineReq(platformID=1), 1001, "KickUserIDList is empty"),
        ("status of nobody", status, pb.GetUsersOnlineStatusReq(), 1001, "UserIDs is empty"),
        ("status without being admin", status, pb.GetUsersOnlineStatusReq(userIDs=["a"]), 1002, None),
    ]
    for name, method, request, code, cause in cases:

        def refused(method=method, request=request, code=code, cause=cause):
            try:
                api.call(method, request)
            except grpc.RpcError as fault:
                got = openim_error(fault)
                equal(got[0], code, "code")
                assert cause is None or cause in got[2], f"cause {got[2]!r}, wanted {cause!r}"
                return
            raise AssertionError("it was accepted")

        checks.run(f"grpc: {name} is refused with {code}", refused)


def operation_id(api, metadata):
    request = msggateway_pb2.GetUsersOnlineStatusReq(userIDs=["a"])
    expect(grpc.StatusCode.INVALID_ARGUMENT, lambda: api.stub.GetUsersOnlineStatus(request, timeout=10, metadata=metadata))


def unimplemented(api):
    single = msggateway_pb2.OnlinePushMsgReq(msgData=message("a", "b", "x"), pushToUserID="b")
    batch = msggateway_pb2.OnlineBatchPushOneMsgReq(msgData=message("a", "b", "x"), pushToUserIDs=["b"])
    expect(grpc.StatusCode.UNIMPLEMENTED, lambda: api.call(api.stub.OnlinePushMsg, single))
    expect(grpc.StatusCode.UNIMPLEMENTED, lambda: api.call(api.stub.OnlineBatchPushOneMsg, batch))


def unknown_method(api):
    method = api.channel.unary_unary("/openim.msggateway.msgGateway/NoSuchMethod")
    expect(grpc.StatusCode.UNIMPLEMENTED, lambda: api.call(method, b""))


def concurrent(api):
    request = msggateway_pb2.OnlineBatchPushOneMsgReq(msgData=message("s", USERS[0], "many"), pushToUserIDs=USERS[:3])
    calls = [
        api.stub.SuperGroupOnlineBatchPushOneMsg.future(request, timeout=20, metadata=[("operationid", f"many-{n}")])
        for n in range(100)
    ]
    for call in calls:
        equal(len(call.result().singlePushResult), 3, "results")


def expect(code, call):
    try:
        call()
    except grpc.RpcError as fault:
        equal(fault.code(), code, fault.details())
        return
    raise AssertionError("it was accepted")
