"""What a backend finds beside OpenIM's own service: the older package (OpenIM 3.5 and 3.6), health and reflection, through
grpcio and the packages that its makers offer for the last two."""

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from checks import equal, until
from gateway import Gateway
from listener import ANDROID, IOS, LINUX, WEB, Listener
from push_api import ADMIN, CALL_SECONDS, SERVICE, PushApi, message, old_pb2, refused

LEGACY = "OpenIMServer.msggateway.msgGateway"
PUSH = "pinion.v1.Push"
HEALTH = "grpc.health.v1.Health"
NOT_FOUND, UNIMPLEMENTED = 5, 12
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
# Spec 6.4.
OLD_ERROR_INFO = "OpenIMServer.protobuf.ErrorInfo"
# Spec 8.1.
NAMES = {IOS: "IOS", ANDROID: "Android", WEB: "Web", LINUX: "Linux"}


def run(checks, gateway, _api):
    with PushApi(gateway.grpc) as api:
        checks.run("services: the older package is not there unless it is switched on", lambda: no_legacy(api))
        checks.run("services: health of the node and of its services", lambda: health(api))
        checks.run("services: reflection lists the services", lambda: listed(api, {SERVICE, PUSH, HEALTH}, {LEGACY}))
        checks.run("services: a call made from reflection alone", lambda: reflected(api))
    with Gateway(2, "--rpc-legacy-service", "true") as older, PushApi(older.grpc) as api:
        checks.run("services: the older package beside the newer", lambda: legacy(older, api))
        for name, method, request, wanted in legacy_errors():
            checks.run(f"services: older package: {name}",
                       lambda m=method, r=request, w=wanted: refused(lambda: call(api, m, r), w, OLD_ERROR_INFO))
        checks.run("services: reflection lists it too", lambda: listed(api, {SERVICE, PUSH, HEALTH, LEGACY}, set()))
    checks.run("services: whoever watches hears that the node leaves", leaving)


# ---- health ------------------------------------------------------------------------------------------------------

def health(api):
    stub = health_pb2_grpc.HealthStub(api.channel)
    check = lambda service: stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_SECONDS).status
    for service in ("", SERVICE, PUSH):
        equal(check(service), SERVING, f"health of {service!r}")
    for service in ("nothing.like.it", LEGACY):
        refused(lambda s=service: check(s), (NOT_FOUND, None, None))
    watch = lambda service: stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=CALL_SECONDS)
    for service, wanted in [("", SERVING), (PUSH, SERVING), ("nothing.like.it", SERVICE_UNKNOWN)]:
        watching = watch(service)
        equal(next(watching).status, wanted, f"watched health of {service!r}")
        watching.cancel()


def leaving():
    with Gateway(2) as gateway, PushApi(gateway.grpc) as api:
        stub = health_pb2_grpc.HealthStub(api.channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        equal(next(watching).status, SERVING, "first")
        equal(gateway.stop(), 0, "exit status")
        seen = []
        try:
            for answer in watching:
                seen.append(answer.status)
        except grpc.RpcError as fault:
            equal(fault.code(), grpc.StatusCode.UNAVAILABLE, fault.details())
        equal(seen, [NOT_SERVING], "after SIGTERM")


# ---- reflection --------------------------------------------------------------------------------------------------

def listed(api, wanted, unwanted):
    found = set(ProtoReflectionDescriptorDatabase(api.channel).get_services())
    assert wanted <= found and not unwanted & found, f"{sorted(found)}"


def reflected(api):
    """As grpcurl does: no proto file, everything from the gateway."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(api.channel))
    kinds = {m.name: (m.client_streaming, m.server_streaming) for m in pool.FindServiceByName(PUSH).methods}
    equal(kinds, {"Stream": (True, True), "Send": (False, False)}, "methods")
    method = pool.FindServiceByName(SERVICE).FindMethodByName("GetUsersOnlineStatus")
    request = GetMessageClass(method.input_type)(userIDs=["nobody"])
    ask = api.channel.unary_unary(
        f"/{SERVICE}/{method.name}",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    equal(len(api.call(ask, request, [("opuserid", ADMIN)]).successResult), 0, "users online")
    message_data = pool.FindMessageTypeByName("openim.sdkws.MsgData")
    equal(message_data.fields_by_name["content"].number, 12, "the message inside `msg_data` is there too")


# ---- the older package (spec 4.2 to 4.4, columns PR42 and S351) -----------------------------------------------------

def call(api, method, request, metadata=()):
    answers = {"SuperGroupOnlineBatchPushOneMsg": old_pb2.OnlineBatchPushOneMsgResp,
               "GetUsersOnlineStatus": old_pb2.GetUsersOnlineStatusResp}
    stub = api.channel.unary_unary(
        f"/{LEGACY}/{method}",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=answers[method].FromString if method in answers else None,
    )
    return api.call(stub, request, metadata)


def no_legacy(api):
    refused(lambda: call(api, "KickUserOffline", old_pb2.KickUserOfflineReq(platformID=1, kickUserIDList=["a"])),
            (UNIMPLEMENTED, f"unknown service {LEGACY}", None))


def legacy(gateway, api):
    platforms = (IOS, ANDROID, WEB, LINUX)
    listeners = [Listener(gateway, f"old{platform}", platform) for platform in platforms]
    users = [listener.user for listener in listeners]
    try:
        until(lambda: len(api.online(users)) == len(users), lambda: f"online: {sorted(api.online(users))}")
        asked = ["nobody", *users]
        request = old_pb2.OnlineBatchPushOneMsgReq(msgData=message("a", "b", "old"), pushToUserIDs=asked)
        results = call(api, "SuperGroupOnlineBatchPushOneMsg", request).singlePushResult
        got = [(r.userID, [(d.ResultCode, d.RecvID, d.RecvPlatFormID) for d in r.resp], r.onlinePush) for r in results]
        phones = [(f"old{p}", [(0, f"old{p}", p)], True) for p in (IOS, ANDROID)]
        equal(got, [("nobody", [], False), *phones, (f"old{WEB}", [], False), (f"old{LINUX}", [], False)], "in order")
        for listener in listeners:
            listener.wait_texts(["old"])
        status = call(api, "GetUsersOnlineStatus", old_pb2.GetUsersOnlineStatusReq(userIDs=asked), [("opuserid", ADMIN)])
        got = {r.userID: (r.status, [(d.platform, d.status) for d in r.detailPlatformStatus]) for r in status.successResult}
        equal(got, {f"old{p}": ("online", [(NAMES[p], "online")]) for p in platforms}, "status")
        call(api, "KickUserOffline", old_pb2.KickUserOfflineReq(platformID=WEB, kickUserIDList=users))
        until(lambda: f"old{WEB}" not in api.online(users), lambda: "still online")
        call(api, "MultiTerminalLoginCheck", old_pb2.MultiTerminalLoginCheckReq(userID="nobody", platformID=WEB, token="t"))
    finally:
        for listener in listeners:
            listener.close()


def legacy_errors():
    pb = old_pb2
    data = message("a", "b", "x")
    return [
        ("nobody to push to", "SuperGroupOnlineBatchPushOneMsg", pb.OnlineBatchPushOneMsgReq(msgData=data),
         (1001, "ArgsError", "PushToUserIDs is empty")),
        ("not an admin", "GetUsersOnlineStatus", pb.GetUsersOnlineStatusReq(userIDs=["a"]),
         (1002, "NoPermissionError", None)),
        ("platform 11", "KickUserOffline", pb.KickUserOfflineReq(platformID=11, kickUserIDList=["a"]),
         (1001, "ArgsError", "PlatformID is invalid")),
        ("what panicked upstream", "OnlinePushMsg", pb.OnlinePushMsgReq(msgData=data, pushToUserID="b"),
         (UNIMPLEMENTED, None, None)),
        ("an unknown method", "Nothing", pb.KickUserOfflineReq(), (UNIMPLEMENTED, None, None)),
    ]
