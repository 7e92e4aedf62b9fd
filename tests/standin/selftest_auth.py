"""Tokens: what is good, what is refused and how that looks on the wire (spec 6.4, 7, A.3, A.5)."""

import time

from names import COMPATS
from selftest_client import Client, equal, refused
from stubs import services
from tokens import sign, verify

SECRET = "openIM123"
LINUX, WINDOWS, WEB = 7, 3, 5
# Spec A.3 and A.5.
DETAILS_1506 = (
    "COILEhBUb2tlbktpY2tlZEVycm9yGkMKLXR5cGUuZ29vZ2xlYXBpcy5jb20vb3BlbmltLnByb3RvYnVmLkVycm9ySW5mbxISIhBUb2tlbktpY2tl"
    "ZEVycm9y"
)
TOKEN = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJVc2VySUQiOiJ1MSIsIlBsYXRmb3JtSUQiOjEsImV4cCI6MTgwMDAwMDAwMCwiaWF0IjoxNzAw"
    "MDAwMDAwfQ.di_ejGECUyuK_JdnwMaTqPAtI6-afGebnLYJcHAh-S0"
)
TOKEN_CLAIMS = {"UserID": "u1", "PlatformID": 1, "exp": 1800000000, "iat": 1700000000}


def run(checks, standin, redis):
    """Against a stand-in of patch.16 with Redis."""
    client = Client(standin)
    request = lambda token: services.ParseTokenReq(token=token)
    parse = lambda token: client.call("auth", "parseToken", request(token), services.ParseTokenResp)
    make = lambda user, platform, **how: standin.ask("token", user=user, platform=platform, **how)["token"]

    def made():
        token = make("anna", LINUX)
        answer = parse(token)
        equal((answer.userID, answer.platformID), ("anna", LINUX), "login")
        assert answer.expireTimeSeconds > time.time() + 80 * 24 * 3600, "lives for 90 days"
        equal(redis("HGETALL", "UID_PID_TOKEN_STATUS:anna:Linux"), [token, "0"], "hash")
        assert 0 < int(redis("TTL", "UID_PID_TOKEN_STATUS:anna:Linux")[0]) <= 90 * 24 * 3600, "the hash ends too"

    def second_login():
        first, second = make("boris", LINUX), make("boris", LINUX)
        refused(lambda: parse(first), 1506, "TokenKickedError", "TokenKickedError")
        parse(second)
        kept = make("boris", LINUX, policy=0)
        parse(second)
        invalidate = services.InvalidateTokenReq(preservedToken=kept, userID="boris", platformID=LINUX)
        client.call("auth", "invalidateToken", invalidate, services.Empty)
        refused(lambda: parse(second), 1506)
        parse(kept)
        client.call("auth", "kickTokens", services.KickTokensReq(tokens=[kept]), services.Empty)
        refused(lambda: parse(kept), 1506)

    def wire():
        first, _ = make("carla", WEB), make("carla", WEB)
        seen = client.raw("auth", "parseToken", services.ParseTokenReq(token=first))
        wanted = {"grpc-status": "1506", "grpc-message": "TokenKickedError", "grpc-status-details-bin": DETAILS_1506}
        equal({name: seen.get(name) for name in wanted}, wanted, "trailers")

    checks.run("standin: a token is made, kept in Redis and accepted", made)
    checks.run("standin: a second login, invalidateToken and kickTokens kick tokens", second_login)
    checks.run("standin: grpc-status 1506 and its details are on the wire as they are", wire)
    for name, token, code, message in bad_tokens():
        checks.run(f"standin: parseToken: {name}", lambda t=token, c=code, m=message: refused(lambda: parse(t), c, m))
    for state, code in [(1, 1505), (3, 1505)]:
        def unusable(state=state, code=code):
            token = make("dora", LINUX)
            standin.ask("set_token_state", user="dora", platform=LINUX, token=token, state=state)
            refused(lambda: parse(token), code)
        checks.run(f"standin: parseToken: token state {state}", unusable)
    checks.run("standin: an admin's token is not kept and is accepted", lambda: [
        parse(make("imAdmin", 10)), equal(redis("EXISTS", "UID_PID_TOKEN_STATUS:imAdmin:Admin"), ["0"], "hash"),
    ])
    checks.run("standin: metadata rules", lambda: metadata_rules(client))
    checks.run("standin: the token of the specification", vector)


def bad_tokens():
    """(name, token, code, message)."""
    now = int(time.time())
    claims = {"UserID": "erik", "PlatformID": LINUX, "exp": now + 3600, "iat": now - 5}
    good, other = sign(SECRET, claims), sign(SECRET, {**claims, "UserID": "erika"})
    head, _, mac = good.split(".")
    return [
        ("not a token", "nothing", 1503, "TokenMalformedError"),
        ("not JSON", "a.b.c", 1503, None),
        ("empty", "", 1503, None),
        ("expired", sign(SECRET, {**claims, "exp": now - 60}), 1501, "TokenExpiredError"),
        ("not valid yet", sign(SECRET, {**claims, "nbf": now + 3600}), 1504, "TokenNotValidYetError"),
        ("issued in the future", sign(SECRET, {**claims, "iat": now + 3600}), 1505, None),
        ("another secret", sign("another", claims), 1505, "signature is invalid"),
        ("another claim", ".".join([head, other.split(".")[1], mac]), 1505, "signature is invalid"),
        ("good but unknown", good, 1507, "TokenNotExistError"),
    ]


def metadata_rules(client):
    token = services.ParseTokenReq(token="nothing")
    call = lambda metadata: client.call("auth", "parseToken", token, services.ParseTokenResp, metadata)
    refused(lambda: call(()), 3, "operationID error")
    refused(lambda: call((("operationid", "a"), ("operationid", "b"))), 3, "operationID error")
    refused(lambda: call((("operationid", ""),)), 1503)
    refused(lambda: call((("operationid", "a"), ("customheader", "x-y"))), 3, "missing metadata key x-y")
    refused(lambda: call((("operationid", "a"), ("customheader", "x-y"), ("x-y", "1"))), 1503)


def vector():
    """The encoder is the one of the vector, and so is the decoder while the token lives."""
    equal(sign(SECRET, TOKEN_CLAIMS), TOKEN, "A.5")
    long_lived = {**TOKEN_CLAIMS, "exp": 9000000000}
    for algorithm in ("HS256", "HS384", "HS512"):
        equal(verify(COMPATS["main"], SECRET, sign(SECRET, long_lived, algorithm)), ("u1", 1, 9000000000), algorithm)


def other_versions(checks, main, old):
    """How MAIN and 3.5 answer."""

    def newest():
        client = Client(main, "main")
        parse = lambda token: client.raw("auth", "parseToken", services.ParseTokenReq(token=token))
        first, _ = (main.ask("token", user="anna", platform=LINUX)["token"] for _ in range(2))
        seen = parse(first)
        equal((seen["grpc-status"], seen.get("grpc-status-details-bin")), ("1506", None), "no detail, so no details")
        assert parse("nothing").get("grpc-status-details-bin"), "a detail is attached"

    def oldest():
        client = Client(old, "v3.5")
        token = old.ask("token", user="anna", platform=LINUX)["token"]
        answer = client.call("auth", "parseToken", services.ParseTokenReq(token=token), services.OldParseTokenResp)
        equal((answer.userID, answer.platform), ("anna", "Linux"), "the platform is a name")
        refused(lambda: client.call("auth", "parseToken", services.ParseTokenReq(), services.OldParseTokenResp, (
            ("operationid", ""),
        )), 3)

    def kept():
        """3.5 keeps every token and ends none when another is made; its gateways do."""
        parse = lambda token: client.call(
            "auth", "parseToken", services.ParseTokenReq(token=token), services.OldParseTokenResp
        )
        client = Client(old, "v3.5")
        make = lambda user: old.ask("token", user=user, platform=LINUX)["token"]
        states = lambda user: old.ask("token_states", user=user, platform=LINUX)["states"]
        admin = make("imAdmin")
        equal(states("imAdmin"), {admin: 0}, "an admin's token")
        first, second = make("boris"), make("boris")
        for token in (first, second):
            parse(token)
        for token in (first, second, second):
            old.ask("gateway_login", user="boris", platform=LINUX, token=token)
        equal(states("boris"), {first: 2, second: 0}, "after the second login")
        refused(lambda: parse(first), 1506)
        seen = old.ask("gateway_users")
        equal(len(seen["users"]["boris"]), 1, "connections: the same token is no exception")

    checks.run("standin: v3.5: gateways end tokens, and spare no connection", kept)
    checks.run("standin: main: details only with a detail", newest)
    checks.run("standin: v3.5: other package, names of platforms, operation id must not be empty", oldest)
