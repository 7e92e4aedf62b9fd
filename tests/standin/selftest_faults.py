"""Discovery in a real etcd, and everything that a test can break."""

import json
import time
import urllib.request

from etcd import plain, range_end, text64
from selftest_client import Client, equal, of_call, refused, until
from standin_process import Standin
from stubs import services

WEB = 5
DELAY_MS = 300
LEASE_SECONDS = 2
KEYS = {
    "patch16": "openim/messageGateway/",
    "main": "openim/messagegateway-rpc-service/",
    "v3.5": "openim/MessageGateway/",
}


def keys(etcd, prefix):
    """Values by key, as a plain client of etcd sees them."""
    body = json.dumps({"key": text64(prefix), "range_end": text64(range_end(prefix))}).encode()
    with urllib.request.urlopen(f"http://{etcd}/v3/kv/range", body, timeout=60) as answer:
        return {plain(kv["key"]): plain(kv["value"]) for kv in json.load(answer).get("kvs", [])}


def discovery(checks, etcd):
    """Keys, leases, and an etcd that goes away."""

    def exactly():
        for compat, prefix in KEYS.items():
            with Standin("--services", "gateway", "--etcd", etcd.address, "--compat", compat) as standin:
                at = standin.services["gateway"]
                value = '{"Op":0,"Addr":"%s","Metadata":null}' % at
                equal(keys(etcd.address, prefix).get(prefix + at), value, f"key of {compat}")
                equal(standin.stop(), 0, "exit status")
            equal(keys(etcd.address, prefix).get(prefix + at), None, f"{compat} deregisters at the end")

    def lease_ends():
        flags = ("--services", "gateway", "--etcd", etcd.address, "--lease-seconds", str(LEASE_SECONDS))
        with Standin(*flags) as killed, Standin(*flags) as crashed, Standin(*flags) as alive:
            mine = lambda: set(keys(etcd.address, KEYS["patch16"]).values())
            named = lambda s: '{"Op":0,"Addr":"%s","Metadata":null}' % s.services["gateway"]
            all_three = {named(standin) for standin in (killed, crashed, alive)}
            until(lambda: all_three <= mine(), lambda: f"not registered: {mine()}")
            killed.kill()
            crashed.ask("crash", service="gateway")
            until(lambda: mine() & all_three == {named(alive)}, lambda: f"{mine()}")
            crashed.ask("start", service="gateway")
            until(lambda: named(crashed) in mine(), lambda: f"not back: {mine()}")
            alive.ask("lose_lease", service="gateway")
            assert named(alive) not in mine(), "lost"
            alive.ask("register", service="gateway")
            until(lambda: named(alive) in mine(), lambda: f"not registered again: {mine()}")
            # An etcd that comes back without its data has no such lease any more.
            etcd.forget()
            until(lambda: {named(alive), named(crashed)} <= mine(), lambda: f"{mine()}")
            # The watches survive it as well.
            both = {alive.services["gateway"], crashed.services["gateway"]}
            seen = lambda: set(alive.ask("gateways")["addresses"])
            until(lambda: both <= seen() and killed.services["gateway"] not in seen(), lambda: f"{seen()}")

    checks.run("standin: the key and value of the specification", exactly)
    checks.run("standin: leases end, are lost and come back, also with etcd", lease_ends)


def run(checks, standin):
    client = Client(standin)
    request = services.GetUserStatusReq(userIDs=["anna"])
    start = lambda: client.start("user", "getUserStatus", request, services.GetUserStatusResp)
    call = lambda: client.call("user", "getUserStatus", request, services.GetUserStatusResp)
    switch = lambda **what: standin.ask("switch", service="user", method="getUserStatus", **what)
    count = lambda: standin.ask("counts").get("user/getUserStatus", 0)

    def delayed():
        switch(delay_ms=DELAY_MS, times=1)
        started = time.monotonic()
        call()
        assert time.monotonic() - started >= DELAY_MS / 1000, "too early"
        call()

    def refusing():
        switch(error={"code": 1002, "detail": "why"}, times=2)
        refused(call, 1002, "NoPermissionError", "why")
        refused(call, 1002)
        call()
        standin.ask("switch", service="user", error={"code": 14, "message": "away"})
        refused(call, 14, "away")
        standin.ask("switch", service="user")
        call()

    def hanging():
        switch(hang=True)
        before = count()
        first, second = start(), start()
        until(lambda: count() == before + 2, lambda: "they have not come in")
        first.cancel()
        assert not second.done(), "it hangs"
        switch()
        equal(len(second.result().statusList), 1, "it goes on without the switch")

    def answer_lost():
        standin.ask("switch", service="user", method="setUserOnlineStatus", drop=True, times=1)
        entry = services.UserOnlineStatus(userID="lost", online=[WEB])
        change = services.SetUserOnlineStatusReq(status=[entry])
        refused(lambda: client.call("user", "setUserOnlineStatus", change, services.Empty), 14)
        equal(standin.ask("platforms", user="lost"), {"platforms": [WEB]}, "the work was done")

    def cut():
        switch(hang=True)
        before = count()
        waiting = start()
        until(lambda: count() > before, lambda: "the call has not come in")
        equal(standin.ask("restart", service="user"), {"address": standin.services["user"]}, "the same address")
        equal(of_call(waiting.exception()).code, 14, "cut")
        switch()
        call()
        moved = standin.ask("move", service="user")["address"]
        assert moved != standin.services["user"], "another address"
        standin.services["user"] = moved
        call()

    def named():
        flags = ("--static", "--flush-seconds", "0.02", "--renew-seconds", "0.05")
        with Standin("--services", "gateway", *flags) as gateway:
            gateway.ask("peers", service="user", addresses=[standin.services["user"]])
            gateway.ask("gateway_login", user="quentin", platform=WEB)
            until(lambda: standin.ask("platforms", user="quentin")["platforms"] == [WEB], lambda: gateway.output)
            told = lambda: [e for e in standin.ask("presence")["entries"] if e["user"] == "quentin"]
            until(lambda: len(told()) >= 3, lambda: f"no renewals: {told()}")

    def wrong():
        for verb, arguments in [("nothing", {}), ("token", {}), ("switch", {"service": "user", "colour": 1})]:
            try:
                standin.ask(verb, **arguments)
            except RuntimeError:
                continue
            raise AssertionError(f"{verb} {arguments} was accepted")

    checks.run("standin: switch: delay", delayed)
    checks.run("standin: switch: errors of OpenIM and of gRPC", refusing)
    checks.run("standin: switch: hang", hanging)
    checks.run("standin: switch: the work is done and the answer lost", answer_lost)
    checks.run("standin: a restart cuts calls; a service comes back, also elsewhere", cut)
    checks.run("standin: a table instead of etcd; presence is renewed", named)
    checks.run("standin: verbs and arguments that are not there are refused", wrong)


def redis_away(checks, standin, redis):
    """Redis ends and comes back without its data."""

    def away():
        client = Client(standin)
        request = services.ParseTokenReq(token=standin.ask("token", user="olga", platform=WEB)["token"])
        parse = lambda: client.call("auth", "parseToken", request, services.ParseTokenResp)
        parse()
        redis.stop()
        refused(parse, 500)
        redis.start()
        refused(parse, 1507)
        request.token = standin.ask("token", user="olga", platform=WEB)["token"]
        parse()

        def known():
            # Each time a change: what is published while push does not listen again yet is lost.
            for change in ({"online": [WEB]}, {"offline": [WEB]}, {"online": [WEB]}):
                entry = services.UserOnlineStatus(userID="paul", **change)
                request = services.SetUserOnlineStatusReq(status=[entry])
                client.call("user", "setUserOnlineStatus", request, services.Empty)
            return standin.ask("push_presence")["users"].get("paul") == [WEB]

        until(known, lambda: "push hears nothing any more")

    checks.run("standin: Redis goes away and comes back", away)


def full_load(checks, etcd, redis):
    """Push waits for its map while the user service does not answer."""

    def waits():
        flags = ("--etcd", etcd, "--redis", redis, "--root", "load")
        with Standin("--services", "user", *flags) as user:
            entry = services.UserOnlineStatus(userID="early", online=[WEB])
            change = services.SetUserOnlineStatusReq(status=[entry])
            Client(user).call("user", "setUserOnlineStatus", change, services.Empty)
            user.ask("switch", service="user", method="getAllOnlineUsers", hang=True)
            with Standin("--services", "msg,push", *flags) as push:
                until(lambda: user.ask("counts").get("user/getAllOnlineUsers"), lambda: "no page was asked for")
                push.ask("send", sender="boris", recipient="early")
                equal((push.ask("push_presence")["phase"], push.ask("pushes")["pushes"]), ("Begin", []), "waits")
                user.ask("switch", service="user", method="getAllOnlineUsers")
                until(lambda: push.ask("pushes")["pushes"], lambda: push.ask("push_presence"))
                equal(push.ask("pushes")["pushes"][0]["online"], ["early"], "then it knows who is online")
                equal(push.ask("push_presence")["phase"], "DoSubscribeOver", "phase")

    checks.run("standin: push takes nothing off its queue before its map is full", waits)
