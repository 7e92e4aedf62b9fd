"""The gateway in a deployment of OpenIM 3.5 (`compat: v3.5`): it judges tokens itself, by a real Redis; its services
and the other gateways stand in its configuration. Users are gob_client.py's. Services are the stand-in's."""

import contextlib
import json
import socket
import threading
import zlib

from checks import equal, until
from fault_scene import eventually, turned_away
from gateway import SECRET
from gob_client import GobClient, decode, encode
from json_client import LOGOUT, Refused
from listener import IOS, LINUX, WEB
from push_api import sdkws_pb2
from suite_openim import OpenimGateway
from webhook_receiver import WebhookReceiver

# Found through suite_openim's path.
from ports import candidates
from servers import Redis
from standin_process import Standin
from stubs import push as push_pb2
from tokens import sign

NORMAL, INVALID, KICKED, EXPIRED = range(4)
ARGUMENTS = (1602, "args err, need token, sendID, platformID")
GET_NEWEST_SEQ, GET_SEQ_MESSAGE = 1001, 1005
UNIMPLEMENTED = 12


def run(checks, _gateway, _api):
    checks.run("v3.5: gob as spec A.1 has it", vectors)
    with Deployment35() as deployment, WebhookReceiver() as receiver:
        hooks = ["--webhooks-url", receiver.url, "--webhooks-online", "true", "--webhooks-offline", "true"]
        with deployment.gateways(hooks, []) as (a, b), contextlib.ExitStack() as opened:
            both = (deployment, a, b)
            checks.run("v3.5: a user moves from one gateway to the other", lambda: moves(a, b, opened))
            checks.run("v3.5: handshakes are judged as 3.5 does", lambda: handshakes(deployment, a))
            checks.run("v3.5: arguments of newer versions are not looked at", lambda: newer_arguments(a))
            for where, second in (("here", a), ("on another gateway", b)):
                checks.run(f"v3.5: a second login {where} kicks", lambda g=second: second_login(deployment, a, g))
            checks.run("v3.5: a login with the same token kicks as well", lambda: same_token(deployment, a))
            checks.run("v3.5: a forced logout kicks on every gateway", lambda: forced_out(*both))
            checks.run("v3.5: messages and pushes reach users of both gateways", lambda: messages(*both))
            checks.run("v3.5: requests that 3.5 does not have get an error", lambda: newer_requests(a))
            checks.run("v3.5: a logout is answered and ends the connection", lambda: logged_out(deployment, a))
            checks.run("v3.5: presence in Redis follows", lambda: presence(*both))
            checks.run("v3.5: webhooks have 3.5's names", lambda: webhooks(a, receiver))
            checks.run("v3.5: a restart of Redis: logins wait for it, the others go on", lambda: restarted(*both))
            checks.run("v3.5: a Redis that hangs: logins end at the deadline", lambda: hung(deployment, a))
            checks.run("v3.5: who leaves while Redis is away is offline afterwards", lambda: left_meanwhile(*both))
            checks.run("v3.5: of who moved it is told once more that he is here", lambda: told_again(deployment, b))
        checks.run("v3.5: more logins than may wait are refused at once", lambda: overload(deployment))


class LastingRedis(Redis):
    """Comes back with its data, as one in production does."""

    def command(self):
        return [*super().command(), "--appendonly", "yes", "--appendfsync", "always"]


class Deployment35:
    """Redis and the stand-in's services. No registry: 3.5 has zookeeper, in whose place everybody is told."""

    def __enter__(self):
        self.redis = LastingRedis().__enter__()
        flags = ["--static", "--redis", self.redis.address, "--compat", "v3.5", "--secret", SECRET]
        self.standin = Standin(*flags).__enter__()
        return self

    def __exit__(self, *_):
        self.standin.stop()
        self.redis.__exit__()

    def flags(self):
        found = [
            "--backend", "openim", "--compat", "v3.5", "--discovery-kind", "static",
            "--redis-addresses", self.redis.address, "--discovery-register-ip", "127.0.0.1",
            # Shorter than the default: what hangs is waited for.
            "--upstream-deadline-ms", "1000",
        ]
        for service in ("auth", "user", "msg", "push"):
            found += [f"--discovery-static-{service}", self.standin.services[service]]
        return found

    @contextlib.contextmanager
    def gateways(self, *flags):
        """One with each of these flags. They know each other, and push knows them."""
        addresses = [f"127.0.0.1:{port}" for port in free_ports(len(flags))]
        with contextlib.ExitStack() as opened:
            found = []
            for own, more in zip(addresses, flags):
                others = ",".join(address for address in addresses if address != own)
                gateway = Gateway35(self, 2, *more, *(["--discovery-static-gateways", others] if others else []))
                gateway.RPC_LISTEN = own
                found.append(opened.enter_context(gateway))
            self.standin.ask("peers", service="gateway", addresses=addresses)
            for gateway in found:
                gateway.await_ready()
            yield found

    def states(self, user, platform=LINUX):
        return self.standin.ask("token_states", user=user, platform=platform)["states"]

    def are(self, user, wanted):
        """Waits until these are the states of his tokens: nobody waits for a kick to be written."""
        until(lambda: self.states(user) == wanted, lambda: f"{user}: {self.states(user)} instead of {wanted}")

    def is_on(self, user, *platforms):
        known = lambda: sorted(self.standin.ask("platforms", user=user)["platforms"])
        until(lambda: known() == sorted(platforms), lambda: f"{user} is on {known()} instead of {platforms}")

    def calls(self, service, method):
        return self.standin.ask("records", service=service, method=method)["calls"]


class Gateway35(OpenimGateway):
    """Its users' tokens end no others, unless a login does."""

    def await_online(self, user, platform):
        """3.5's push asks for everybody."""


def free_ports(count):
    """Some that are free now. Each gateway must know the others' before these start."""
    found = []
    for port in candidates():
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
                found.append(port)
            except OSError:
                continue
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


class Knock(GobClient):
    """A login with these arguments, whatever they are."""

    def __init__(self, gateway, **arguments):
        self.arguments = arguments
        super().__init__(gateway, arguments.get("sendID", ""), LINUX, token="not looked at")

    def _arguments(self, _token):
        return self.arguments


def code_of(gateway, **arguments):
    """(errCode, errMsg, errDlt) of a login; None if it was let in."""
    try:
        Knock(gateway, **arguments).close()
    except Refused as refused:
        equal(refused.status, 200, "status")
        found = json.loads(refused.body)
        equal(list(found), ["errCode", "errMsg", "errDlt"], "keys")
        return tuple(found.values())
    return None


def vectors():
    request = encode({0: 1001, 2: b"u1", 3: b"op", 4: b"u1_1", 5: bytes.fromhex("0a027531")})
    assert request.hex().endswith("1bff8001fe07d20202753101026f70010475315f3101040a02753100"), request.hex()
    definition = (
        "60ff81030101045265737001ff82000106010d5265714964656e74696669657201040001074d7367496e6372010c00010b4f7065726174"
        "696f6e4944010c000107457272436f646501040001064572724d7367010c00010444617461010a000000"
    )
    for value, wanted in [
        ("07ff8201fe0fa400", {"ReqIdentifier": 2002}),
        ("07ff820109030300", {"ReqIdentifier": -5, "ErrCode": -2}),
        ("15ff8201fe07d2010475315f3101026f7003020a0100", {
            "ReqIdentifier": 1001, "MsgIncr": b"u1_1", "OperationID": b"op", "Data": b"\x0a\x01",
        }),
    ]:
        equal(decode(bytes.fromhex(definition + value)), wanted, value)


# ---- logins ------------------------------------------------------------------------------------------------------


def handshakes(deployment, gateway):
    """Spec 1.3, row S351, in its order: arguments, the token itself, whose it is, its state."""
    token = gateway.token("hans", LINUX)
    good = {"token": token, "sendID": "hans", "platformID": "7", "operationID": "op"}
    less = lambda *names: {name: value for name, value in good.items() if name not in names}
    claims = {"UserID": "hans", "PlatformID": LINUX, "nbf": 0, "iat": 0}
    signed = lambda **more: sign(SECRET, {"exp": 9_000_000_000, **claims, **more})
    detail = "1602 args err, need token, sendID, platformID"
    for arguments, wanted in [
        (less(), None),
        (less("operationID"), None),
        (less("token"), (*ARGUMENTS, detail)),
        (less("sendID"), (*ARGUMENTS, detail)),
        (less("platformID"), (*ARGUMENTS, detail)),
        ({**good, "platformID": "seven"}, (*ARGUMENTS, detail)),
        ({**good, "token": "nothing"}, (1503, "TokenMalformedError", ": 1503 TokenMalformedError")),
        ({**good, "token": signed(exp=1)}, (1501, "TokenExpiredError", ": 1501 TokenExpiredError")),
        ({**good, "token": signed(nbf=8_000_000_000)}, (1504, "TokenNotValidYetError", ": 1504 TokenNotValidYetError")),
        ({**good, "token": sign("another", claims)}, (1505, "TokenUnknownError", ": 1505 TokenUnknownError")),
        ({**good, "token": signed()}, (1507, "TokenNotExistError", ": 1507 TokenNotExistError")),
        ({**good, "sendID": "hanna"}, (1502, "TokenInvalidError", "token uid hans != userID hanna")),
        ({**good, "platformID": "5"}, (1502, "TokenInvalidError", "token platform 7 != platformID 5")),
        ({**good, "platformID": "99"}, (1502, "TokenInvalidError", "no token names platform 99")),
    ]:
        equal(code_of(gateway, **arguments), wanted, f"{arguments}")
    for state, wanted in [(INVALID, 1505), (KICKED, 1506), (EXPIRED, 1505), (NORMAL, None)]:
        deployment.standin.ask("set_token_state", user="hans", platform=LINUX, token=token, state=state)
        found = code_of(gateway, **good)
        equal(found and found[0], wanted, f"state {state}")
    admin = gateway.token("imAdmin", LINUX)
    as_admin = {**good, "sendID": "imAdmin", "token": admin}
    equal(code_of(gateway, **as_admin), None, "an admin")
    deployment.standin.ask("set_token_state", user="imAdmin", platform=LINUX, token=admin, state=KICKED)
    equal(code_of(gateway, **as_admin)[0], 1506, "an admin is not exempt")
    equal(deployment.standin.ask("counts").get("auth/parseToken", 0), 0, "calls of auth")


def newer_arguments(gateway):
    """`v`, `isMsgResp`, `sdkType` and a strange `isBackground` are nothing to 3.5."""
    good = {"token": gateway.token("nina", LINUX), "sendID": "nina", "platformID": "7"}
    with Knock(gateway, **good, v="!", isMsgResp="true", sdkType="js", isBackground="perhaps") as nina:
        code, _ = nina.ask(GET_NEWEST_SEQ, sdkws_pb2.GetMaxSeqReq(userID="nina"))
        equal(code, 0, "code of a request in gob")


def second_login(deployment, gateway, second_gateway):
    user = f"clara-{second_gateway.grpc}"
    first, second, unused = (gateway.token(user, LINUX) for _ in range(3))
    on_web = gateway.token(user, WEB)
    with GobClient(gateway, user, WEB, on_web), GobClient(gateway, user, LINUX, first) as older:
        with GobClient(second_gateway, user, LINUX, second) as newer:
            older.wait_closed()
            assert older.kicked, "closed without a kick"
            deployment.are(user, {first: KICKED, second: NORMAL, unused: KICKED})
            equal(deployment.states(user, WEB), {on_web: NORMAL}, "tokens of another platform")
            for token in (first, unused):
                found = code_of(gateway, sendID=user, token=token, platformID="7")
                equal(found and found[0], 1506, "a kicked token")
            newer.ask(GET_NEWEST_SEQ, sdkws_pb2.GetMaxSeqReq(userID=user))
            deployment.is_on(user, LINUX, WEB)
            for each in (gateway, second_gateway):
                equal(each.metric("pinion_token_orders_total", 'outcome="failed"'), 0, "failed orders")


def same_token(deployment, gateway):
    """Not so in newer versions (spec 8.3): here the older connection does not get every push twice."""
    token = gateway.token("susi", LINUX)
    with GobClient(gateway, "susi", LINUX, token) as older, GobClient(gateway, "susi", LINUX, token) as newer:
        older.wait_closed()
        assert older.kicked, "closed without a kick"
        equal(newer.ask(GET_NEWEST_SEQ, sdkws_pb2.GetMaxSeqReq(userID="susi"))[0], 0, "the newer goes on")
    deployment.are("susi", {token: NORMAL})


def forced_out(deployment, a, b):
    """Kicked by the gateways; it is auth that marks the tokens (spec 4.5, 10.6)."""
    for gateway in (a, b):
        token = gateway.token("otto", LINUX)
        with GobClient(gateway, "otto", LINUX, token) as otto, GobClient(gateway, "otto", WEB) as on_web:
            answers = deployment.standin.ask("force_logout", user="otto", platform=LINUX)["gateways"]
            equal(answers, {a.grpc: 0, b.grpc: 0}, "codes by gateway")
            otto.wait_closed()
            assert otto.kicked, "closed without a kick"
            equal(code_of(gateway, sendID="otto", token=token, platformID="7")[0], 1506, "a kicked token")
            equal(on_web.ask(GET_NEWEST_SEQ, sdkws_pb2.GetMaxSeqReq(userID="otto"))[0], 0, "another platform")


# ---- what is done with a connection ------------------------------------------------------------------------------


def messages(deployment, a, b):
    with GobClient(a, "anna", LINUX, compression="gzip") as anna, GobClient(b, "boris", IOS) as boris:
        equal(anna.send_text("boris", "from A to B"), 0, "code of SendMsg")
        boris.wait_text("from A to B")
        equal(boris.send_text("anna", "from B to A"), 0, "code of SendMsg")
        anna.wait_text("from B to A")
        deployment.standin.ask("send", sender="service", recipient="boris", text="from a service")
        boris.wait_text("from a service")
        last = lambda: deployment.standin.ask("pushes")["pushes"][-1]
        until(lambda: len(last()["calls"]) == 2, lambda: f"{last()}")
        results = {call["gateway"]: call["results"] for call in last()["calls"]}
        there = lambda on, rows: {"user": "boris", "onlinePush": on, "resp": rows}
        theirs = lambda gateway: [found for found in results[gateway] if found["user"] == "boris"]
        equal((theirs(a.grpc), theirs(b.grpc)), ([there(False, [])], [there(True, [[IOS, 0]])]), "results")
        sent = deployment.calls("msg", "SendMsg")[-1]["metadata"]
        equal((sent["opuserid"], sent["platform"]), ("boris", "IOS"), "metadata")


def newer_requests(gateway):
    with GobClient(gateway, "greta", LINUX) as greta:
        code, _ = greta.ask(GET_SEQ_MESSAGE, sdkws_pb2.GetMaxSeqReq(userID="greta"))
        equal(code, UNIMPLEMENTED, "code")


def logged_out(deployment, gateway):
    with GobClient(gateway, "lena", LINUX) as lena:
        deployment.is_on("lena", LINUX)
        request = push_pb2.DelUserPushTokenReq(userID="lena", platformID=LINUX)
        equal(lena.ask(LOGOUT, request)[0], 0, "code")
        lena.wait_closed()
        assert not lena.kicked, "kicked"
    deployment.is_on("lena")
    equal(len(deployment.calls("push", "DelUserPushToken")), 1, "calls of push")


def moves(a, b, opened):
    """Also without an operation id, which 3.5's clients may leave out and its services want."""
    left = opened.enter_context(GobClient(a, "mona", LINUX))
    token = b.token("mona", LINUX)
    opened.enter_context(Knock(b, sendID="mona", token=token, platformID=str(LINUX)))
    left.wait_closed()
    assert left.kicked, "closed without a kick"


def told_again(deployment, gateway):
    """The gateway that she left may have said so after this one said that she came, and nothing tells this one."""
    his = f"p_{gateway.process.pid}_"
    calls = lambda: [
        call["request"] for call in deployment.calls("user", "setUserStatus")
        if call["request"]["userID"] == "mona" and call["metadata"]["operationid"].startswith(his)
    ]
    until(lambda: len(calls()) == 2, lambda: f"{calls()}")
    equal(calls(), [{"userID": "mona", "status": 1, "platformID": LINUX}] * 2, "what was told")
    deployment.is_on("mona", LINUX)


def presence(deployment, a, b):
    """Spec 9.6, seen in Redis itself."""
    key = f"ONLINE_STATUS:{zlib.crc32(b'paul') % 501}"
    stored = lambda: json.loads(ask_redis(deployment.redis, "HGET", key, "paul") or "null")
    shown = lambda status, *platforms: {"userID": "paul", "status": status, "platformIDs": list(platforms)}
    is_stored = lambda wanted: until(lambda: stored() == wanted, lambda: f"{stored()} instead of {wanted}")
    with GobClient(a, "paul", LINUX):
        is_stored(shown(1, LINUX))
        with GobClient(b, "paul", WEB):
            is_stored(shown(1, LINUX, WEB))
        is_stored(shown(1, LINUX))
    is_stored(shown(0))
    told = [c["request"] for c in deployment.calls("user", "setUserStatus") if c["request"]["userID"] == "paul"]
    assert len(told) == 4 and all(len(entry) <= 3 for entry in told), f"{told}"


def ask_redis(redis, *words):
    """The text of a bulk answer; empty if there is none."""
    parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
    head, _, body = redis.talk(b"*%d\r\n" % len(words) + parts).partition(b"\r\n")
    assert head.startswith(b"$"), f"{head}"
    return body.decode().removesuffix("\r\n")


def webhooks(gateway, receiver):
    with GobClient(gateway, "wanda", WEB):
        until(lambda: receiver.of("wanda"), lambda: "no webhook")
    until(lambda: len(receiver.of("wanda")) >= 2, lambda: f"{receiver.of('wanda')}")
    paths = [hook["path"] for hook in receiver.of("wanda")]
    equal(paths, ["/callback/callbackUserOnlineCommand", "/callback/callbackUserOfflineCommand"], "paths")


# ---- faults ------------------------------------------------------------------------------------------------------


def restarted(deployment, a, b):
    token = a.token("rita", LINUX)
    login = lambda: GobClient(a, "rita", LINUX, token).close()
    with GobClient(a, "udo", LINUX) as udo, GobClient(b, "uta", LINUX) as uta:
        deployment.redis.stop()
        turned_away(login)
        # The token itself needs no Redis.
        equal(code_of(a, sendID="rita", token="nothing", platformID="7")[0], 1503, "a malformed one")
        equal(udo.send_text("uta", "without Redis"), 0, "code of SendMsg")
        uta.wait_text("without Redis")
        deployment.redis.start()
        eventually(login)
        equal(udo.send_text("uta", "with Redis"), 0, "code of SendMsg")
        uta.wait_text("with Redis")


def hung(deployment, gateway):
    token = gateway.token("hugo", LINUX)
    login = lambda: GobClient(gateway, "hugo", LINUX, token).close()
    with GobClient(gateway, "vera", LINUX) as vera:
        deployment.redis.pause()
        try:
            turned_away(login)
            vera.send_text("vera", "to myself")
            vera.wait_text("to myself")
        finally:
            deployment.redis.resume()
        eventually(login)


def left_meanwhile(deployment, a, b):
    with GobClient(a, "leo", LINUX), GobClient(b, "leo", WEB):
        deployment.is_on("leo", LINUX, WEB)
        deployment.redis.stop()
    deployment.redis.start()
    deployment.is_on("leo")


def overload(deployment):
    """One login may wait; the next is refused while it does."""
    with deployment.gateways(["--upstream-in-flight-max", "1"]) as (gateway,):
        tokens = [gateway.token("otti", LINUX) for _ in range(2)]
        deployment.redis.pause()
        try:
            ended = []
            waiting = start(lambda: ended.append(turned_away(lambda: GobClient(gateway, "otti", LINUX, tokens[0]))))
            until(lambda: gateway.metric("pinion_token_checks") == 1, lambda: "nobody waits")
            turned_away(lambda: GobClient(gateway, "otti", LINUX, tokens[1]))
            until(lambda: gateway.metric("pinion_token_checks_refused_total") == 1, lambda: "nobody was refused")
            waiting.join()
            equal(ended, [None], "the one that waited")
        finally:
            deployment.redis.resume()
        eventually(lambda: GobClient(gateway, "otti", LINUX, tokens[0]).close())


def start(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
