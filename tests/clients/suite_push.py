"""`pinion.v1.Push` (proto/pinion/v1/push.proto) through grpcio, with `pinion listen` as the clients."""

import contextlib
import time

import grpc

from checks import equal, until
from gateway import Gateway
from listener import ANDROID, LINUX, WEB, Listener
from pinion_push import (
    DROPPED, EXPIRE_MS, EXPIRED, KICKED, NOT_HERE, QUEUED, TOO_LARGE, TOTALS_ONLY, WRITTEN, O, Stream, batch, outcomes,
    send, to, totals,
)
from push_api import CALL_SECONDS, PushApi, message, push_request, refused
from suite_grpc_limits import idle

# `push.proto`: unresolved messages of one stream, messages of a batch, users of a message.
IN_HAND, BATCH_MESSAGES, LIST_USERS = 256, 1024, 262_144
# The answer comes at nine tenths of it less half a second; the rest is for a slow machine. Two of the shorter ones must
# fit between a client's first frame that is not read and the end of its connection after 20 s.
DEADLINE_SECONDS, LONG_DEADLINE_SECONDS = 6, 20
# Codes of gRPC itself.
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE = 3, 8, 14


def run(checks, gateway, _api):
    with PushApi(gateway.grpc) as api:
        check = lambda name, test: checks.run(f"push: {name}", lambda: test(gateway, api))
        check("a verdict names user, device and connection", shape)
        check("everybody on the node, by totals", everybody)
        check("users who are not here", absent)
        check("1 000 messages pipelined on a stream arrive in order", ordered)
        check("batches of many messages, compressed", compressed)
        check("a frame that no SDK would read is reported", too_large)
        check("a client that does not read: written, queued, dropped, expired, kicked", not_reading)
        check("verdicts come before the caller's deadline", deadline)
        check("a half-closed stream gives its last verdicts and ends with OK", half_close)
        check("a cancelled stream takes back what was not given to anybody", cancelled)
        check("a caller that sends faster than verdicts come is held", held)
        for name, bad, code in bad_batches():
            checks.run(f"push: {name}: {code}", lambda b=bad, c=code: bad_batch(api, b, c))
        check("what came before a bad batch was pushed", before_a_bad_batch)
        check("all this went over one connection, which is whole", lambda _, api: equal(api.broke(), False))
    checks.run("push: a leaving node ends streams with UNAVAILABLE", leaving)
    checks.run("push: no connection and no call is left behind", lambda: idle(gateway, connections=0))


@contextlib.contextmanager
def online(gateway, api, *logins):
    """Listeners for (user, platform), once the gateway knows them all."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(Listener(gateway, user, platform)) for user, platform in logins]
        count = lambda: sum(len(platforms) for platforms in api.online([user for user, _ in logins]).values())
        until(lambda: count() == len(logins), lambda: f"{count()} of {len(logins)} are online")
        yield listeners


def shape(gateway, api):
    with online(gateway, api, ("two", LINUX), ("two", ANDROID), ("one", WEB)) as listeners:
        users = ["two", "nobody", "one", "two"]
        with Stream(api) as stream:
            stream.send(to(users, 2**64 - 1, "hello", operation_id="op-shape"))
            verdict = stream.verdict(2**64 - 1)
        by_user = sorted(outcomes(verdict))
        both = [WRITTEN, WRITTEN]
        equal(by_user, [("nobody", NOT_HERE), ("one", [WRITTEN]), ("two", both), ("two", both)], "verdicts")
        equal(totals(verdict), {"written": 5, "not_here": 1, "users": 4}, "totals")
        known = api.status(users)
        for user in verdict.users:
            wanted = [(d.platformID, d.connID) for d in known.get(user.user_id, ())]
            equal([(d.platform_id, d.connection_id.hex()) for d in user.devices], wanted, user.user_id)
        for listener, times in zip(listeners, (2, 2, 1)):
            listener.wait_texts(["hello"] * times)
            assert listener.saw("operationID=op-shape"), listener.output


def everybody(gateway, api):
    logins = [(f"all{n}", platform) for n in range(5) for platform in (LINUX, ANDROID)]
    with online(gateway, api, *logins) as listeners:
        (verdict,) = send(api, to(None, 7, "to all", report=TOTALS_ONLY)).values()
        equal((list(verdict.users), totals(verdict)), ([], {"written": 10, "users": 5}), "totals only")
        (verdict,) = send(api, to(None, 8, "to each")).values()
        equal(sorted(outcomes(verdict)), [(f"all{n}", [WRITTEN, WRITTEN]) for n in range(5)], "each")
        for listener in listeners:
            listener.wait_texts(["to all", "to each"])


def absent(gateway, api):
    at_once = send(api, to(["nobody"], 1, "x"), to(["nobody"], 2, "x", only_if_online=True, expire_after_ms=EXPIRE_MS))
    equal([outcomes(v) for v in at_once.values()], [[("nobody", NOT_HERE)]] * 2, "without waiting")
    (late,) = send(api, to(["nobody"], 3, "x", expire_after_ms=300)).values()
    equal((outcomes(late), totals(late)), ([("nobody", EXPIRED)], {"expired": 1, "users": 1}), "nobody came")
    with Stream(api) as stream:
        stream.send(to(["latecomer"], 4, "for a latecomer", expire_after_ms=EXPIRE_MS))
        stream.send(to(["nobody"], 5, "x"))
        equal(outcomes(stream.verdict(5)), [("nobody", NOT_HERE)], "not held up by the one that waits")
        with Listener(gateway, "latecomer") as latecomer:
            latecomer.wait_texts(["for a latecomer"])
            equal(outcomes(stream.verdict(4)), [("latecomer", [WRITTEN])], "after the login")


def ordered(gateway, api):
    """Two users, so two shards more often than not; each connection gets the stream's order."""
    texts = [f"number {n}" for n in range(1000)]
    with online(gateway, api, ("order0", LINUX), ("order1", LINUX)) as listeners:
        with Stream(api) as stream:
            for n, text in enumerate(texts):
                stream.send(to(["order0", "order1"], n, text))
            stream.half_close()
            found = stream.rest()
            equal(stream.call.code(), grpc.StatusCode.OK, stream.call.details())
        equal(sorted(found), list(range(1000)), "answered messages")
        wanted = [("order0", [WRITTEN]), ("order1", [WRITTEN])]
        wrong = {n: outcomes(v) for n, v in found.items() if sorted(outcomes(v)) != wanted}
        assert not wrong, f"{len(wrong)} messages were not written: {list(wrong.items())[:3]}"
        for listener in listeners:
            listener.wait_texts(texts)


def compressed(gateway, api):
    texts = [f"{n} " * 400 for n in range(200)]
    messages = [to(["batch"], n, text) for n, text in enumerate(texts)]
    with online(gateway, api, ("batch", LINUX)) as (listener,):
        with Stream(api, compression=grpc.Compression.Gzip) as stream:
            stream.send(*messages[:100])
            stream.send(*messages[100:])
            stream.half_close()
            equal(sorted(stream.rest()), list(range(200)), "answered messages")
        listener.wait_texts(texts)
        send(api, to(["batch"], 0, "unary " * 100), compression=grpc.Compression.Gzip)
        listener.wait_texts([*texts, "unary " * 100])


def too_large(gateway, api):
    with online(gateway, api, ("plain", LINUX)) as (listener,):
        found = send(api, to(["plain"], 1, "x" * 2 * 1024 * 1024), to(["plain"], 2, "after it"))
        equal([outcomes(found[n]) for n in (1, 2)], [[("plain", [TOO_LARGE])], [("plain", [WRITTEN])]], "verdicts")
        listener.wait_texts(["after it"])


def fill(api, listener):
    """Stops a client and pushes until the kernel takes no more for it; the texts that it will find when it goes on."""
    listener.pause()
    texts = []
    while True:
        texts.append(f"{len(texts)} " + "x" * 500_000)
        (verdict,) = send(api, to([listener.user], 1, texts[-1]), timeout=DEADLINE_SECONDS).values()
        if outcomes(verdict) == [(listener.user, [QUEUED])]:
            return texts
        equal(outcomes(verdict), [(listener.user, [WRITTEN])], "verdict")
        assert len(texts) < 100, "50 MB were written to a client that does not read"


def not_reading(gateway, api):
    with online(gateway, api, ("stuck", LINUX), ("fine", LINUX)) as (stuck, fine), Stream(api) as stream:
        texts = fill(api, stuck)
        users = ["stuck", "fine"]
        by_user = lambda verdict: dict(outcomes(verdict))
        stream.send(
            to(users, 1, "only if online", only_if_online=True),
            to(users, 2, "expires", expire_after_ms=2_000),
            to(users, 3, "waits"),
        )
        equal(by_user(stream.verdict(1)), {"stuck": [DROPPED], "fine": [WRITTEN]}, "only if online")
        equal(by_user(stream.verdict(2)), {"stuck": [EXPIRED], "fine": [WRITTEN]}, "expires")
        # OpenIM's callers hear of what is queued as sent (spec 4.3), and in time.
        queued = api.stub.SuperGroupOnlineBatchPushOneMsg(
            push_request("sender", users, "OpenIM's"), timeout=DEADLINE_SECONDS, metadata=[("operationid", "stuck")]
        )
        equal(sorted((r.userID, [d.ResultCode for d in r.resp]) for r in queued.singlePushResult),
              [("fine", [0]), ("stuck", [0])], "results of OpenIM's call")
        stuck.resume()
        equal(by_user(stream.verdict(3)), {"stuck": [WRITTEN], "fine": [WRITTEN]}, "waits")
        stuck.wait_texts([*texts, "waits", "OpenIM's"])
        fill(api, stuck)
        stream.send(to(users, 4, "before the kick"))
        until(lambda: fine.saw("before the kick"), lambda: "not with the other user")
        api.kick(LINUX, ["stuck"])
        equal(by_user(stream.verdict(4)), {"stuck": [KICKED], "fine": [WRITTEN]}, "kicked")
        stuck.resume()
        fine.wait_texts(["only if online", "expires", "waits", "OpenIM's", "before the kick"])


def deadline(gateway, api):
    """Of `Send`: at the caller's deadline less a tenth, with what is known by then. That is final: who was not here by
    then does not get the message later."""
    started = time.monotonic()
    found = send(api, to(["tardy"], 1, "too late", expire_after_ms=EXPIRE_MS), to(["nobody"], 2, "x"),
                 timeout=LONG_DEADLINE_SECONDS)
    # That there is an answer says that it came in time.
    assert time.monotonic() - started > LONG_DEADLINE_SECONDS / 2, "the one that waits was given up too early"
    equal([outcomes(found[n]) for n in (1, 2)], [[("tardy", NOT_HERE)], [("nobody", NOT_HERE)]], "verdicts")
    with online(gateway, api, ("tardy", LINUX)) as (tardy,):
        send(api, to(["tardy"], 3, "in time"))
        tardy.wait_texts(["in time"])


def half_close(_gateway, api):
    with Stream(api) as stream:
        stream.send(to(["nobody"], 1, "x", expire_after_ms=500), to(["nobody"], 2, "x"))
        stream.half_close()
        equal({n: outcomes(v) for n, v in stream.rest().items()},
              {1: [("nobody", EXPIRED)], 2: [("nobody", NOT_HERE)]}, "verdicts")
        equal(stream.call.code(), grpc.StatusCode.OK, stream.call.details())
    with Stream(api) as empty:
        empty.half_close()
        equal((empty.rest(), empty.call.code()), ({}, grpc.StatusCode.OK), "a stream without a batch")


def cancelled(gateway, api):
    with Stream(api) as stream:
        stream.send(to(["returner"], 1, "taken back", expire_after_ms=EXPIRE_MS), to(["nobody"], 2, "x"))
        stream.verdict(2)
        stream.call.cancel()
    idle(gateway)
    with online(gateway, api, ("returner", LINUX)) as (returner,):
        send(api, to(["returner"], 3, "a new one"))
        returner.wait_texts(["a new one"])


def held(gateway, api):
    """256 messages in hand, one window in the kernel and in the transports: the rest stays with the caller."""
    text, many = "x" * 8_000, 2_000
    with Stream(api) as stream:
        for n in range(many):
            stream.send(to([f"nobody{n}"], n, text, expire_after_ms=5_000))
        stream.half_close()
        until(lambda: stream.taken >= IN_HAND, lambda: f"took {stream.taken} of {many}")
        stream.verdict(0)
        taken, window = stream.taken, 1024 * 1024 // len(text)
        # The first verdicts let some more through; by far not all is taken.
        assert taken < 3 * IN_HAND + window, f"{taken} of {many} were taken before verdicts were read"
        stream.call.cancel()
    idle(gateway)


def bad_batches():
    """Name, batch and status, of the rules in push.proto."""
    good = to(["nobody"], 1, "x")
    with_data = lambda data: O.PushMessage(id=1, msg_data=data, users=O.UserList(user_ids=["nobody"]))
    whole = good.msg_data

    def with_field(field, value):
        data = message("a", "b", "x")
        setattr(data, field, value)
        return with_data(data.SerializeToString())

    rows = [
        ("a batch without messages", [], INVALID_ARGUMENT),
        ("more than 1 024 messages", [good] * (BATCH_MESSAGES + 1), RESOURCE_EXHAUSTED),
        ("nobody named", [O.PushMessage(id=1, msg_data=whole)], INVALID_ARGUMENT),
        ("an empty list of users", [O.PushMessage(id=1, msg_data=whole, users=O.UserList())], INVALID_ARGUMENT),
        ("more than 262 144 users", [to(["u"] * (LIST_USERS + 1), 1, "x")], RESOURCE_EXHAUSTED),
        ("a wait above 60 s", [to(["nobody"], 1, "x", expire_after_ms=EXPIRE_MS + 1)], INVALID_ARGUMENT),
        ("no message data", [with_data(b"")], INVALID_ARGUMENT),
        ("cut message data", [with_data(whole[:-1])], INVALID_ARGUMENT),
        ("a sender that is no UTF-8", [with_data(b"\x0a\x01\xff" + whole)], INVALID_ARGUMENT),
        ("no sender", [with_field("sendID", "")], INVALID_ARGUMENT),
        ("no content", [with_field("content", b"")], INVALID_ARGUMENT),
        ("a notification without its content type", [with_field("sessionType", 4)], INVALID_ARGUMENT),
        ("a notification without its session type", [with_field("contentType", 1400)], INVALID_ARGUMENT),
        ("a good message beside a bad one", [good, with_field("sendID", "")], INVALID_ARGUMENT),
    ]
    return [(name, batch(*messages), code) for name, messages, code in rows]


def bad_batch(api, bad, code):
    def streamed():
        with Stream(api) as stream:
            stream.outgoing.put(bad)
            stream.rest()

    refused(lambda: api.pinion.Send(bad, timeout=CALL_SECONDS), (code, None, None))
    refused(streamed, (code, None, None))


def before_a_bad_batch(gateway, api):
    with online(gateway, api, ("careful", LINUX)) as (listener,), Stream(api) as stream:
        stream.send(to(["careful"], 1, "good"))
        stream.send(to(["careful"], 2, "not pushed"), to(["careful"], 3, "x", expire_after_ms=EXPIRE_MS + 1))
        refused(stream.rest, (INVALID_ARGUMENT, None, None))
        listener.wait_texts(["good"])
        send(api, to(["careful"], 4, "later"))
        listener.wait_texts(["good", "later"])


def leaving():
    """What has no verdict by then was not handed to any connection."""
    with Gateway(2) as gateway, PushApi(gateway.grpc) as api, Stream(api) as stream:
        stream.send(to(["nobody"], 1, "x", expire_after_ms=EXPIRE_MS), to(["nobody"], 2, "x"))
        stream.verdict(2)
        status = gateway.stop()
        refused(stream.rest, (UNAVAILABLE, None, None))
        equal(status, 0, "exit status")
