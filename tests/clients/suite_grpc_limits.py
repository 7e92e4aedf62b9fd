"""What grpcio may ask of the gateway at its limits: sizes both ways, compression, deadlines, cancelled calls, many calls."""

import contextlib
import functools
import time

import grpc

from checks import equal, until
from listener import Listener
from pinion_push import EXPIRE_MS, batch, to, totals
from push_api import ADMIN, SERVICE, Answers, PushApi, msggateway_pb2, push_request, refused

# `rpcMaxBodySize` of OpenIM, and what its servers before 3.8.3 took (spec 4.7).
BODY_BYTES, OLD_BODY_BYTES = 8_388_608, 4 * 1024 * 1024
MANY = 1000
LATE_USERS = [f"late{n}" for n in range(20)]
# Codes of gRPC itself.
DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 4, 8, 12
GZIP, DEFLATE = grpc.Compression.Gzip, grpc.Compression.Deflate
PUSH = f"/{SERVICE}/SuperGroupOnlineBatchPushOneMsg"


def run(checks, gateway, _api):
    with PushApi(gateway.grpc) as api:
        for compression in (None, GZIP):
            name = "gzip" if compression else "plain"
            for size in (0, OLD_BODY_BYTES, BODY_BYTES - 1, BODY_BYTES):
                checks.run(f"grpc-limits: {name} request of {size:,} bytes",
                           lambda s=size, c=compression: sized_request(api, s, c))
            checks.run(f"grpc-limits: {name} request one byte above the limit",
                       lambda c=compression: too_large_request(api, c))
        checks.run("grpc-limits: 32 MiB of zeros in gzip", lambda: too_large_request(api, GZIP, 32 * 1024 * 1024))
        checks.run("grpc-limits: a compression that is not offered", lambda: deflated(api))
        for size in (OLD_BODY_BYTES, BODY_BYTES):
            checks.run(f"grpc-limits: answer of {size:,} bytes", lambda s=size: sized_answer(api, s))
        checks.run("grpc-limits: answer one byte above the limit",
                   lambda: refused(lambda: sized_answer(api, BODY_BYTES + 1), (RESOURCE_EXHAUSTED, None, None)))
        checks.run("grpc-limits: 4 MiB of text reach a client that inflates", lambda: large_text(gateway, api, ["--gzip"]))
        checks.run("grpc-limits: 2 MiB that no SDK would read are reported", lambda: unreadable_text(gateway, api))
        checks.run("grpc-limits: deadlines of 1 ms", lambda: no_time(gateway, api))
        checks.run(f"grpc-limits: {MANY} calls at once on one connection", lambda: many_calls(gateway, api))
        checks.run(f"grpc-limits: {MANY} calls at once, all cancelled", lambda: many_cancelled(gateway, api))
        checks.run("grpc-limits: uploads cancelled on their way", lambda: cancelled_uploads(gateway, api))
        checks.run("grpc-limits: all this went over one connection, which is whole", lambda: equal(api.broke(), False))
    checks.run("grpc-limits: no connection and no call is left behind", lambda: idle(gateway, connections=0))


def idle(gateway, connections=1):
    """Nothing leaks: what is open, and what waits in shards, goes back to nothing."""
    open_now = lambda: {
        name: gateway.metric(name)
        for name in ("pinion_rpc_connections", "pinion_rpc_calls_in_flight", "pinion_pushes_in_flight")
    }
    wanted = {"pinion_rpc_connections": connections, "pinion_rpc_calls_in_flight": 0, "pinion_pushes_in_flight": 0}
    until(lambda: open_now() == wanted, lambda: f"open: {open_now()}, wanted {wanted}")


@functools.cache
def status_request(size):
    """A status request of exactly so many bytes, with some thousand users that nobody has heard of."""
    return exactly(size, lambda last: msggateway_pb2.GetUsersOnlineStatusReq(userIDs=[*names(size), last]))


def names(size):
    """So many long names that they take nearly all of a message of this size."""
    return [f"{n:04000}" for n in range(max(0, size - 8_000) // 4_003)]


def exactly(size, make):
    """`make` gets a name of the right length for a message of this size."""
    last = 1
    for _ in range(4):  # the length of the length depends on the length
        last += size - make("x" * last).ByteSize()
    built = make("x" * last)
    equal(built.ByteSize(), size, "size of the message of the test")
    return built


def ask_status(api, request, compression):
    return api.stub.GetUsersOnlineStatus(
        request, timeout=60, metadata=[("operationid", "limits"), ("opuserid", ADMIN)], compression=compression
    )


def sized_request(api, size, compression):
    if size == 0:
        request = msggateway_pb2.GetUsersOnlineStatusReq()
        refused(lambda: ask_status(api, request, compression), (1001, "ArgsError", "UserIDs is empty"))
        return
    equal(len(ask_status(api, status_request(size), compression).successResult), 0, "users online")


def too_large_request(api, compression, size=BODY_BYTES + 1):
    refused(lambda: ask_status(api, status_request(size), compression), (RESOURCE_EXHAUSTED, None, None))


def deflated(api):
    request = msggateway_pb2.GetUsersOnlineStatusReq(userIDs=["x" * 1000])
    refused(lambda: ask_status(api, request, DEFLATE), (UNIMPLEMENTED, None, None))


def sized_answer(api, size):
    """An absent user is named in the answer: the recipients decide its size."""
    result = msggateway_pb2.SingleMsgToUserResults
    answer = lambda last: msggateway_pb2.OnlineBatchPushOneMsgResp(
        singlePushResult=[result(userID=user) for user in [*names(size), last]]
    )
    users = [r.userID for r in exactly(size, answer).singlePushResult]
    # Its request is smaller: it takes three bytes less for each user, and some hundred for the message.
    got = api.call(api.stub.SuperGroupOnlineBatchPushOneMsg, push_request("sender", users, "x"))
    equal(got.ByteSize(), size, "size of the answer")


def large_text(gateway, api, flags):
    """Repetitive text: it is 4 MiB in the request and in the client, and below the read limit of the SDKs between."""
    with Listener(gateway, "reader", flags=flags) as reader:
        until(lambda: api.online(["reader"]), lambda: "not online")
        text = "4 MiB " * (OLD_BODY_BYTES // 6)
        (device,) = api.push("sender", ["reader"], text)["reader"].resp
        equal(device.ResultCode, 0, "result code")
        reader.wait_texts([text])


def unreadable_text(gateway, api):
    """Spec trap 9: such a frame would make an SDK reconnect for ever. The connection stays."""
    with Listener(gateway, "plain") as reader:
        until(lambda: api.online(["plain"]), lambda: "not online")
        (device,) = api.push("sender", ["plain"], "x" * 2 * 1024 * 1024)["plain"].resp
        equal(device.ResultCode, 1603, "result code")
        api.push("sender", ["plain"], "after it")
        reader.wait_texts(["after it"])


def no_time(gateway, api):
    """The caller has given up before the answer can be there; the next call is none the worse."""
    call = lambda: api.stub.SuperGroupOnlineBatchPushOneMsg(
        push_request("sender", ["nobody"], "x" * 100_000), timeout=0.001, metadata=[("operationid", "hasty")]
    )
    for _ in range(50):
        try:
            call()  # a fast machine may answer some
        except grpc.RpcError as fault:
            equal(fault.code(), grpc.StatusCode.DEADLINE_EXCEEDED, fault.details())
    api.push("sender", ["nobody"], "x")
    idle(gateway)


def many_calls(gateway, api):
    """None is answered before all are open: each waits for one of 20 users, who log in then."""
    calls = waiting_sends(api)
    answers = Answers(calls)
    all_open(gateway)
    # The connection still serves others: 24 of its 1024 streams are left.
    api.push("sender", ["nobody"], "beside them")
    with contextlib.ExitStack() as stack:
        for user in LATE_USERS:
            stack.enter_context(Listener(gateway, user))
        answers.wait({"OK": MANY})
    for number, call in enumerate(calls):
        (verdict,) = call.result().verdicts
        equal((verdict.id, verdict.last, totals(verdict)), (number, True, {"written": 1, "users": 1}), "verdict")
    idle(gateway)


def many_cancelled(gateway, api):
    before = gateway.metric("pinion_rpc_cancelled_total")
    calls = waiting_sends(api)
    answers = Answers(calls)
    all_open(gateway)
    for call in calls:
        call.cancel()
    answers.wait({"CANCELLED": MANY})
    api.push("sender", ["nobody"], "after them")
    idle(gateway)
    cancelled = lambda: gateway.metric("pinion_rpc_cancelled_total") - before
    until(lambda: cancelled() == MANY, lambda: f"the gateway counts {cancelled()} cancelled calls")


def waiting_sends(api):
    """As many messages for each of the late users; what may wait for one of them is bounded."""
    users = [LATE_USERS[n % len(LATE_USERS)] for n in range(MANY)]
    return [api.pinion.Send.future(batch(to([user], n, "x", expire_after_ms=EXPIRE_MS)), timeout=EXPIRE_MS / 1000)
            for n, user in enumerate(users)]


def all_open(gateway):
    in_flight = lambda: gateway.metric("pinion_rpc_calls_in_flight")
    until(lambda: in_flight() == MANY, lambda: f"{in_flight()} calls in flight")


def cancelled_uploads(gateway, api):
    """Requests of 4 MiB, given up while they are sent: the windows of the connection come back."""
    request = push_request("sender", ["nobody"], "x" * OLD_BODY_BYTES)
    for wait in range(20):
        call = api.stub.SuperGroupOnlineBatchPushOneMsg.future(request, timeout=60, metadata=[("operationid", "up")])
        time.sleep(wait / 2000)  # not to synchronise: it varies how far the upload gets
        call.cancel()
    sized_request(api, OLD_BODY_BYTES, None)
    idle(gateway)
