"""Faults of what the gateway stands on, in an OpenIM deployment (suite_openim.py): services, etcd and Redis go away,
come back empty or hang. For each: what still works meanwhile, and that all is right again afterwards. The time of a
check named "back" is how long that took.

Not here: a Redis that is silent for longer than the gateway's patience with it (20 s), a service whose machine is
cut off.

What always holds: `witness` and `peer` are logged in before the first fault and are never disconnected."""

import base64
import contextlib
import json
import re
import threading
import time
import urllib.request

from checks import equal, until
from fault_scene import OfflineWatch, Scene, calls_of, eventually, hanging, turned_away, until_equal
from json_client import LOGOUT, JsonClient
from push_api import PushApi
from suite_openim import LINUX, WEB, Deployment, OpenimGateway
from webhook_receiver import WebhookReceiver

from stubs import push  # noqa: E402 -- suite_openim puts tests/standin on the path

COMPAT = "patch16"
UPSTREAM_DEADLINE_SECONDS = 3
# What a client of this version is told (spec 7.4).
DEADLINE_EXCEEDED, UNAVAILABLE = 4, 14
SERVER_INTERNAL = 500
IOS = 1
# Presence counts so long in the short-lived deployment, and is renewed twice in that time.
ONLINE_SECONDS, RENEWAL_SECONDS = 24, 10
ETCD_SECONDS = 60
# Services' own retries and leases, so that the gateway's are what is waited for.
QUICK = ["--page-retry-seconds", "0.1", "--lease-seconds", "3"]
# Keys of a webhook's body, in order (spec 11.6).
COMMON_KEYS = ["callbackCommand", "operationID", "platformID", "platform", "userID", "seq"]
ONLINE_KEYS, OFFLINE_KEYS = [*COMMON_KEYS, "isAppBackground", "connID"], [*COMMON_KEYS, "connID"]
KICK_OFF = "callbackAfterUserKickOffCommand"


def run(checks, _gateway, _api):
    with contextlib.ExitStack() as stack:
        deployment = stack.enter_context(Deployment(COMPAT, *QUICK))
        receiver = stack.enter_context(WebhookReceiver())
        gateway = stack.enter_context(OpenimGateway(
            deployment, 2, "--upstream-deadline-ms", str(UPSTREAM_DEADLINE_SECONDS * 1000),
            "--webhooks-url", receiver.url, "--webhooks-online", "true",
            "--webhooks-offline", "true", "--webhooks-kick-off", "true",
        ))
        gateway.await_ready()
        api = stack.enter_context(PushApi(gateway.grpc))
        witness = stack.enter_context(JsonClient(gateway, "witness"))
        peer = stack.enter_context(JsonClient(gateway, "peer", WEB))
        scene = Scene(deployment, gateway, api, witness, peer)
        short = stack.enter_context(ShortLived())
        watched = stack.enter_context(OfflineWatch(deployment.standin, witness))
        checks.run("faults: everything works before the first fault", lambda: [scene.works(), scene.presence()])
        webhooks(checks, scene, receiver)
        for service, broken in [
            ("auth", no_auth), ("msg", no_msg), ("push", no_push),
        ]:
            restart(checks, scene, service, broken)
        user_faults(checks, scene)
        hung_login(checks, scene)
        hung_message(checks, scene)
        etcd_faults(checks, scene)
        redis_faults(checks, scene)
        checks.run("faults: nobody was disconnected by any of them", scene.still_there)
        checks.run(f"faults: the store had a connected user offline for {watched.longest:.1f} s at most", watched.short)
        short.outcome(checks)


# ---- a service is restarted ----------------------------------------------------------------------------------------

def restart(checks, scene, service, broken):
    def down():
        scene.standin.ask("crash", service=service)
        broken(scene)
        scene.push()
        scene.still_there()

    def back():
        scene.standin.ask("start", service=service)
        scene.works()

    checks.run(f"faults: {service} away: its errors are told, the rest works", down)
    checks.run(f"faults: {service} back: login, message and push work", back)
    checks.run(f"faults: {service} back: presence is the truth", scene.presence)


def no_auth(scene):
    token = scene.gateway.token("early", LINUX)
    turned_away(lambda: JsonClient(scene.gateway, "early", token=token).close())
    scene.message()


def no_msg(scene):
    equal(scene.witness.send_text(scene.peer.user, "into the void"), UNAVAILABLE, "code of SendMsg")
    scene.login()


def no_push(scene):
    """A logout is answered with the error, and closed (spec 3.2, rule 8)."""
    with JsonClient(scene.gateway, scene.name("visitor")) as leaving:
        equal(leaving.ask(LOGOUT, logout_request(leaving.user))[0], UNAVAILABLE, "code of the logout")
        leaving.wait_closed()
    scene.login()
    scene.message()


def logout_request(user):
    return push.DelUserPushTokenReq(userID=user, platformID=LINUX)


# ---- the user service: presence -------------------------------------------------------------------------------------

def user_faults(checks, scene):
    stays, leaves = JsonClient(scene.gateway, scene.name("stays")), JsonClient(scene.gateway, scene.name("leaves"))
    came = []

    def failures():
        family = "pinion_presence_reports_total"
        return scene.gateway.metric(family, 'outcome="refused"') + scene.gateway.metric(family, 'outcome="unknown"')

    def unheard():
        """One comes, one leaves, and the user service does not hear of it."""
        before = failures()
        came.append(JsonClient(scene.gateway, scene.name("comes"), WEB))
        leaves.close()
        until(lambda: failures() > before, lambda: "no report of presence failed")

    def there():
        for client in (stays, leaves):
            until_equal([LINUX], lambda c=client: scene.platforms(c.user), f"platforms of {client.user}")

    def down():
        there()
        scene.standin.ask("crash", service="user")
        # A lookup that fails is the gateway's own error.
        equal(scene.witness.subscribe([scene.name("stranger")])[0], SERVER_INTERNAL, "code of a subscription")
        unheard()
        scene.works()

    def truth():
        until_equal([WEB], lambda: scene.platforms(came[-1].user), f"platforms of {came[-1].user}")
        until_equal([], lambda: scene.platforms(leaves.user), f"platforms of {leaves.user}")
        until_equal([LINUX], lambda: scene.platforms(stays.user), f"platforms of {stays.user}")
        scene.presence()

    def back():
        scene.standin.ask("start", service="user")
        truth()

    def hangs():
        nonlocal leaves
        leaves = JsonClient(scene.gateway, scene.name("leaves"))
        there()
        with hanging(scene, "user", "setUserOnlineStatus", times=1):
            unheard()
            scene.works()
        truth()

    checks.run("faults: user away: subscriptions get its error, the rest works", down)
    checks.run("faults: user back: presence is the truth, with who came and left meanwhile", back)
    checks.run("faults: user back: login, message and push work", scene.works)
    checks.run("faults: user hangs: reports without an answer are told again, presence is the truth", hangs)
    for client in [stays, *came]:
        client.close()


# ---- a service hangs -----------------------------------------------------------------------------------------------

def hung_login(checks, scene):
    def hung():
        before = calls_of(scene, "auth", "parseToken")
        token = scene.gateway.token("hung", LINUX)
        outcome = []

        def attempt():
            try:
                turned_away(lambda: JsonClient(scene.gateway, "hung", token=token).close())
                outcome.append("turned away")
            except Exception as fault:  # told by the check
                outcome.append(fault)

        with hanging(scene, "auth", "parseToken", times=1):
            waiting = threading.Thread(target=attempt, daemon=True)
            waiting.start()
            until(lambda: calls_of(scene, "auth", "parseToken") > before, lambda: "parseToken was not called")
            scene.login()
            scene.message()
            scene.push()
            scene.still_there()
            until(lambda: outcome, lambda: "the hung login is still open")
        equal(outcome, ["turned away"], "the hung login")

    checks.run("faults: auth hangs: that login is turned away at the deadline, others go on", hung)
    checks.run("faults: auth answers again: login, message and push work", scene.works)


def hung_message(checks, scene):
    def hung():
        with hanging(scene, "msg", "SendMsg", times=1):
            before = calls_of(scene, "msg", "SendMsg")
            number = scene.witness.send_text_later(scene.peer.user, "never sent")
            until(lambda: calls_of(scene, "msg", "SendMsg") > before, lambda: "SendMsg was not called")
            scene.witness.ping()
            equal(scene.peer.send_text(scene.witness.user, scene.name("message")), 0, "SendMsg of another")
            scene.push()
            equal(scene.witness.wait_answer(number)[0], DEADLINE_EXCEEDED, "code of the hung SendMsg")

    checks.run("faults: msg hangs: pings are answered, the request gets an error at the deadline", hung)
    checks.run("faults: msg answers again: login, message and push work", scene.works)


# ---- etcd ----------------------------------------------------------------------------------------------------------

def etcd_faults(checks, scene):
    etcd = scene.deployment.etcd

    def away():
        etcd.stop()
        scene.works()

    def back():
        etcd.start()
        moved(scene, "msg")
        registered(scene)

    checks.run("faults: etcd away: login, message and push work", away)
    checks.run("faults: etcd back: a service that moves is found, the gateway is registered", back)

    def forgotten():
        etcd.forget()
        registered(scene)
        until(lambda: len(keys(etcd, "openim/")) == 5, lambda: f"in etcd: {list(keys(etcd, ''))}")
        moved(scene, "auth")

    checks.run("faults: etcd back without its data: all are registered and found again", forgotten)

    def revoked():
        key = keys(etcd, "/" + scene.gateway.grpc)
        equal(len(key), 1, f"keys of the gateway, of {list(keys(etcd, ''))}")
        (lease,) = key.values()
        ask_etcd(etcd, "lease/revoke", {"ID": lease})
        again = lambda: list(keys(etcd, "/" + scene.gateway.grpc).values())
        until(lambda: again() not in ([], [lease]), lambda: f"leases of the gateway's key: {again()}, was {lease}")
        registered(scene)
        scene.works()

    checks.run("faults: the gateway's lease revoked: it is registered anew", revoked)
    def unregistered():
        """What serves is used for as long as it answers, whatever etcd says for a moment (ARCHITECTURE.md)."""
        scene.standin.ask("lose_lease", service="msg")
        until(lambda: not keys(etcd, "openim/msg/"), lambda: f"in etcd: {list(keys(etcd, ''))}")
        scene.message()
        scene.standin.ask("register", service="msg")
        until(lambda: keys(etcd, "openim/msg/"), lambda: f"in etcd: {list(keys(etcd, ''))}")
        scene.works()

    checks.run("faults: a service's lease lost: it is used on, and after it", unregistered)
    checks.run("faults: after etcd's faults presence is the truth", scene.presence)


def moved(scene, service):
    """A service ends and comes back elsewhere, which only etcd can tell."""
    scene.standin.ask("move", service=service)
    scene.works()


def registered(scene):
    until_equal([scene.gateway.grpc], lambda: scene.standin.ask("gateways")["addresses"], "gateways")
    scene.message()


def keys(etcd, part):
    """Leases by key, of the keys that contain this."""
    every = base64.b64encode(b"\0").decode()
    found = ask_etcd(etcd, "kv/range", {"key": every, "range_end": every}).get("kvs", [])
    leases = {base64.b64decode(kv["key"]).decode(): kv.get("lease", "0") for kv in found}
    return {key: lease for key, lease in leases.items() if part in key}


def ask_etcd(etcd, path, body):
    request = urllib.request.Request(f"http://{etcd.address}/v3/{path}", json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=ETCD_SECONDS) as answer:
        return json.load(answer)


# ---- Redis ---------------------------------------------------------------------------------------------------------

def redis_faults(checks, scene):
    redis = scene.deployment.redis
    seen = JsonClient(scene.gateway, scene.name("seen"))
    name = seen.user

    def subscribed():
        until_equal([LINUX], lambda: scene.platforms(name), "platforms in the store")
        equal(scene.witness.subscribe([name]), (0, {name: [LINUX]}), "answer to the subscription")

    def gone_meanwhile(fault, end):
        """Somebody leaves while Redis cannot say so."""
        token = scene.gateway.token("early", LINUX)
        fault()
        try:
            seen.close()
            if fault == redis.pause:  # auth waits for Redis, a login for auth
                turned_away(lambda: JsonClient(scene.gateway, "early", token=token).close())
            scene.push()
            scene.still_there()
        finally:
            end()
        until_equal([], lambda: scene.platforms(name), "platforms in the store")
        eventually(lambda: equal(scene.witness.subscribe([name]), (0, {name: []}), "answer to a subscription"))

    def told(platforms):
        scene.witness.wait_tip(name, platforms)

    def comes(platform):
        nonlocal seen
        seen = JsonClient(scene.gateway, name, platform)
        told([platform])

    checks.run("faults: a subscription before Redis' faults", subscribed)
    checks.run("faults: Redis restarted while a user leaves: store and subscription say so",
               lambda: gone_meanwhile(redis.stop, redis.start))
    checks.run("faults: Redis restarted: subscribers are told without asking", lambda: told([]))
    checks.run("faults: Redis restarted: those who stayed are online again", scene.presence)
    checks.run("faults: Redis restarted: login, message and push work", scene.works)
    checks.run("faults: Redis restarted: a tip of the next change", lambda: comes(IOS))
    checks.run("faults: Redis paused while a user leaves: store and subscription say so",
               lambda: gone_meanwhile(redis.pause, redis.resume))
    checks.run("faults: Redis paused: subscribers are told without asking", lambda: told([]))
    checks.run("faults: Redis paused: login, message and push work", lambda: [scene.works(), scene.presence()])
    checks.run("faults: Redis paused: a tip of the next change", lambda: comes(WEB))
    seen.close()


# ---- presence that lapses -------------------------------------------------------------------------------------------

class ShortLived:
    """Beside the other faults, since it takes as long as presence counts: a deployment with two gateways, one of which
    is killed, while the other has a user who stays for longer than presence counts."""

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        enter = self.stack.enter_context
        self.deployment = enter(Deployment(COMPAT, *QUICK, "--online-seconds", str(ONLINE_SECONDS)))
        flags = ["--presence-renewal-ms", str(RENEWAL_SECONDS * 1000)]
        self.stays, crashes = (enter(OpenimGateway(self.deployment, 1, *flags)) for _ in range(2))
        for gateway in (self.stays, crashes):
            gateway.await_ready()
        self.began = time.monotonic()
        self.steady = enter(JsonClient(self.stays, "steady"))
        self.watch = enter(OfflineWatch(self.deployment.standin, self.steady))
        enter(JsonClient(crashes, "lost"))
        until_equal([LINUX], lambda: self._platforms("lost"), "platforms of lost")
        crashes.process.kill()
        crashes.process.wait()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def outcome(self, checks):
        def lapsed():
            until_equal([], lambda: self._platforms("lost"), "platforms of a user of the killed gateway")
            known = lambda: self.deployment.standin.ask("gateways")["addresses"]
            until_equal([self.stays.grpc], known, "gateways in etcd")

        def renewed():
            old = lambda: time.monotonic() - self.began > ONLINE_SECONDS + RENEWAL_SECONDS
            until(old, lambda: "time does not pass")
            equal(self._platforms("steady"), [LINUX], "platforms of a user who stays")
            equal(self.watch.longest, 0, "seconds offline of a user who stays")

        checks.run("faults: a gateway killed: its user's presence lapses, its address goes", lapsed)
        checks.run("faults: a user who stays longer than presence counts is never offline", renewed)

    def _platforms(self, user):
        return self.deployment.standin.ask("platforms", user=user)["platforms"]


# ---- webhooks ------------------------------------------------------------------------------------------------------

def webhooks(checks, scene, receiver):
    user = scene.name("hooked")

    def told():
        began = int(time.time() * 1000)
        with JsonClient(scene.gateway, user, WEB):
            until(lambda: receiver.of(user), lambda: "no webhook")
        until(lambda: len(receiver.of(user)) >= 2, lambda: f"{receiver.of(user)}")
        online, offline = receiver.of(user)
        for hook, command, wanted in [
            (online, "callbackAfterUserOnlineCommand", ONLINE_KEYS),
            (offline, "callbackAfterUserOfflineCommand", OFFLINE_KEYS),
        ]:
            body = dict(hook["body"])
            equal([key for key, _ in hook["body"]], wanted, "keys in order")
            equal(hook["path"], f"/callback/{command}", "path")
            equal(hook["type"], "application/json; charset=utf-8", "type")
            equal(hook["operation"], body["operationID"], "operationID of header and body")
            equal((body["callbackCommand"], body["platformID"], body["platform"], body["userID"]),
                  (command, WEB, "Web", user), "body")
            assert re.fullmatch("[0-9a-f]{32}", body["connID"]), f"{body}"
            assert began <= body["seq"] <= int(time.time() * 1000), f"{body}"
        equal(dict(online["body"])["isAppBackground"], False, "isAppBackground")
        equal(dict(online["body"])["connID"], dict(offline["body"])["connID"], "connID of the same connection")

    def kicked():
        """By a newer login and by a forced logout: each kick once (OpenIM defines this webhook and never sends it)."""
        user = scene.name("hooked-and-kicked")
        kicks = lambda: [hook for hook in receiver.of(user) if hook["path"] == f"/callback/{KICK_OFF}"]
        with JsonClient(scene.gateway, user, WEB):
            with JsonClient(scene.gateway, user, WEB):
                until(lambda: len(kicks()) == 1, lambda: f"{receiver.of(user)}")
                scene.deployment.standin.ask("force_logout", user=user, platform=WEB)
                until(lambda: len(kicks()) == 2, lambda: f"{receiver.of(user)}")
        # It is told after the kicks (posts may overtake one another).
        until(lambda: any("Offline" in hook["path"] for hook in receiver.of(user)), lambda: f"{receiver.of(user)}")
        equal(len(kicks()), 2, "kicks")
        for kick in kicks():
            equal([key for key, _ in kick["body"]], COMMON_KEYS, "keys in order")
            body = dict(kick["body"])
            equal((body["callbackCommand"], body["platformID"], body["platform"]), (KICK_OFF, WEB, "Web"), "body")

    checks.run("faults: webhooks: online and offline, as OpenIM's receivers know them", told)
    checks.run("faults: webhooks: each kick is told once", kicked)
