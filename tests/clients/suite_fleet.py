"""Several gateways under one service name in etcd (issue 6): logins, kicks, presence and pushes over all of them, among
Pinions and beside a gateway of OpenIM's behaviour. Services are the stand-in's, etcd and Redis are real."""

import contextlib
import json
import threading
import time

from checks import equal, until
from listener import LINUX, WEB, Listener
from sdk import User
from suite_openim import NATIVE, Deployment, OpenimGateway

KICKED = 2
TOKEN_KICKED = 1506
MOVERS, MOVES = 30, 5
WANDERERS = 8
# `limits::PRESENCE_STEADY_MS` and a second: whose last record is older is handed over without a gap.
STEADY_SECONDS = 13
# A push each, to all of them, and after the moves until what the old gateway would say of them has been said.
PUSH_SECONDS, AFTER_SECONDS = 0.2, 3
# A text that has not come after so long is waited for no longer.
ARRIVAL_SECONDS = 5
# Long enough that a user is seen online first on a loaded machine, short enough to be waited for.
ONLINE_SECONDS = 12
ALL_SERVICES = "auth,user,msg,push"


def run(checks, _gateway, api):
    for compat in ("patch16", "main"):
        with fleet(compat) as (deployment, a, b), contextlib.ExitStack() as opened:
            name = f"fleet {compat}"
            wanderers = Wanderers(deployment, opened, a) if compat == "patch16" else None
            checks.run(f"{name}: both gateways are found under one name", lambda: found(deployment, [a.grpc, b.grpc]))
            checks.run(f"{name}: a login on B kicks the same platform on A", lambda: kicked_across(deployment, a, b))
            checks.run(f"{name}: a forced logout kicks and refuses with 1506", lambda: forced_out(deployment, a, b))
            if compat == "patch16":
                checks.run(f"{name}: {MOVERS} users move {MOVES} times", lambda: movers(deployment, (a, b)))
                between_sdks(checks, name, (a, b), NATIVE, LINUX, api)
                between_sdks(checks, name, (a, b), "js", WEB, api)
                checks.run(f"{name}: no push is lost to {WANDERERS} users who move to B", lambda: wanderers.move_to(b))
                checks.run(f"{name}: pushes to {WANDERERS} users who move on at once", lambda: wanderers.hurry(a, b))
        mixed(checks, compat)
    crashed(checks)


@contextlib.contextmanager
def fleet(compat, *flags):
    """A deployment with two gateways that know each other."""
    with Deployment(compat, *flags) as deployment:
        with OpenimGateway(deployment, 1) as a, OpenimGateway(deployment, 1) as b:
            for gateway in (a, b):
                gateway.await_ready()
            yield deployment, a, b


# ---- what the deployment says ------------------------------------------------------------------------------------


def found(deployment, addresses):
    known = lambda: sorted(deployment.standin.ask("gateways")["addresses"])
    until(lambda: known() == sorted(addresses), lambda: f"gateways {known()} instead of {sorted(addresses)}")


def where(deployment, user):
    """(gateway, platform) of each connection, merged over the gateways."""
    users = deployment.standin.ask("online", users=[user])["users"]
    return sorted((at["gateway"], at["platform"]) for at in users.get(user, []))


def is_at(deployment, user, *wanted):
    until(
        lambda: where(deployment, user) == sorted(wanted),
        lambda: f"{user} is at {where(deployment, user)} instead of {sorted(wanted)}",
    )


def stored(deployment, user, *wanted):
    known = lambda: sorted(deployment.standin.ask("platforms", user=user)["platforms"])
    until(lambda: known() == sorted(wanted), lambda: f"the store has {user} on {known()} instead of {wanted}")


def told_anew(deployment, user):
    """Who is kicked by a login elsewhere is reported offline, which B must mend (spec 9.4): until then push asks
    nobody about him."""
    def entries():
        return [entry for entry in deployment.standin.ask("presence")["entries"] if entry["user"] == user]
    mended = lambda: any(entry["offline"] for entry in entries()) and entries()[-1]["online"]
    until(mended, lambda: f"presence of {user}: {entries()}")
    stored(deployment, user, LINUX)


def reached(deployment, listener, *texts):
    """Sends the last text; the listener has all of them then, each once."""
    deployment.standin.ask("send", sender="sender", recipient=listener.user, text=texts[-1])
    listener.wait_texts(list(texts))


def ended(listener):
    """`pinion listen` ends by itself when it is kicked."""
    until(lambda: listener.process.poll() is not None, lambda: f"{listener.user} was not kicked: {listener.output[-5:]}")
    until(lambda: listener.saw("kicked"), lambda: f"{listener.user} ended otherwise: {listener.output[-5:]}")


# ---- two gateways ------------------------------------------------------------------------------------------------


def kicked_across(deployment, a, b):
    with Listener(a, "ada") as first:
        a.await_online("ada", LINUX)
        reached(deployment, first, "to A")
        with Listener(b, "ada") as second:
            ended(first)
            is_at(deployment, "ada", (b.grpc, LINUX))
            told_anew(deployment, "ada")
            b.await_online("ada", LINUX)
            reached(deployment, second, "to B")
            assert second.process.poll() is None, f"B lost its connection: {second.output[-5:]}"
    stored(deployment, "ada")


def forced_out(deployment, a, b):
    token = a.token("otto", LINUX)
    with Listener(Fixed(a, token), "otto") as listener:
        is_at(deployment, "otto", (a.grpc, LINUX))
        answers = deployment.standin.ask("force_logout", user="otto", platform=LINUX)["gateways"]
        equal(answers, {a.grpc: 0, b.grpc: 0}, "codes by gateway")
        ended(listener)
    equal(deployment.standin.ask("token_states", user="otto", platform=LINUX)["states"], {token: KICKED}, "tokens")
    for gateway in (a, b):
        again = Listener(Fixed(gateway, token), "otto")
        try:
            until(lambda: again.saw(str(TOKEN_KICKED)), lambda: f"not refused with {TOKEN_KICKED}: {again.output[-5:]}")
        finally:
            again.close()
    stored(deployment, "otto")


class Fixed:
    """A gateway at which a user logs in with this very token."""

    def __init__(self, gateway, token):
        self.websocket = gateway.websocket
        self.token = lambda _user, _platform: token


def movers(deployment, gateways):
    """Each new login takes the connection away that is at the other gateway. `at` is where he ended up."""
    users = [f"mover-{n}" for n in range(MOVERS)]
    with contextlib.ExitStack() as opened:
        now = {}
        for move in range(MOVES + 1):
            for n, user in enumerate(users):
                before = now.get(user)
                now[user] = opened.enter_context(Listener(gateways[(n + move) % 2], user))
                if before:
                    ended(before)
        for n, user in enumerate(users):
            is_at(deployment, user, (gateways[(n + MOVES) % 2].grpc, LINUX))
            stored(deployment, user, LINUX)


class Wanderers:
    """Users who get a push again and again while they move. A text is settled if it was sent while its user was not
    moving, and must arrive once; what is sent during a move may find nobody or two connections."""

    def __init__(self, deployment, opened, gateway):
        self.deployment, self.opened = deployment, opened
        self.users = [f"wanderer-{n}" for n in range(WANDERERS)]
        self.listeners = {user: [opened.enter_context(Listener(gateway, user))] for user in self.users}
        self.moving = set()
        self.lock = threading.Lock()
        self.number = 0
        self.settled = {user: [] for user in self.users}
        self.between = {user: [] for user in self.users}
        for user in self.users:
            stored(deployment, user, LINUX)
        self.since = time.monotonic()

    def move_to(self, gateway):
        """Who has been there for a while is never offline in Redis, so no settled push may be lost."""
        until(lambda: time.monotonic() - self.since >= STEADY_SECONDS, lambda: "")
        first = self.deployment.standin.ask("presence")["entries"][-1]["call"] + 1
        with self.pushing():
            for user in self.users:
                self.move(user, gateway)
            end = time.monotonic() + AFTER_SECONDS
            until(lambda: time.monotonic() >= end, lambda: "")
        self.report("steady", lost_max=0)
        entries = [e for e in self.deployment.standin.ask("presence", since=first)["entries"] if e["user"] in self.users]
        left = [entry for entry in entries if entry["offline"]]
        assert not left, f"told as offline: {left}"

    def hurry(self, *gateways):
        """Who moves again within seconds is told as offline, which the repair mends; then all arrives again."""
        with self.pushing():
            for n in range(MOVES):
                for user in self.users:
                    self.move(user, gateways[n % len(gateways)])
        self.report("hurried", lost_max=len(self.users) * MOVES)
        for user in self.users:
            stored(self.deployment, user, LINUX)
            self.arrives(user)

    def arrives(self, user):
        """The word that he is offline may still be on its way, and its repair behind it: until then texts are lost."""
        sent = []

        def came():
            sent.append(f"{user} has arrived, {len(sent)}")
            self.deployment.standin.ask("send", sender="sender", recipient=user, text=sent[-1])
            with contextlib.suppress(TimeoutError):
                until(lambda: sent[-1] in self.texts(user), lambda: "", ARRIVAL_SECONDS)
            return sent[-1] in self.texts(user)

        until(came, lambda: f"{user} gets none of {sent}")

    def move(self, user, gateway):
        with self.lock:
            self.moving.add(user)
        # What was sent before the move must not meet it. What is lost is counted at the end.
        with contextlib.suppress(TimeoutError):
            until(lambda: set(self.settled[user]) <= set(self.texts(user)), lambda: "", ARRIVAL_SECONDS)
        before = self.listeners[user][-1]
        self.listeners[user].append(self.opened.enter_context(Listener(gateway, user)))
        ended(before)
        self.moving.discard(user)

    @contextlib.contextmanager
    def pushing(self):
        """Meanwhile each user gets a text again and again."""
        self.settled, self.between = ({user: [] for user in self.users} for _ in range(2))
        over = threading.Event()
        pusher = threading.Thread(target=self.push, args=(over,))
        pusher.start()
        try:
            yield
        finally:
            over.set()
            pusher.join()

    def push(self, over):
        while not over.wait(PUSH_SECONDS):
            for user in self.users:
                self.number += 1
                text = f"text {self.number}"
                with self.lock:
                    (self.between if user in self.moving else self.settled)[user].append(text)
                    self.deployment.standin.ask("send", sender="sender", recipient=user, text=text)

    def texts(self, user):
        return [text for listener in self.listeners[user] for text in listener.texts()]

    def report(self, name, lost_max):
        """Waits for what is on its way."""
        sent = {text for user in self.users for text in self.settled[user]}
        came = lambda: [text for user in self.users for text in self.texts(user)]
        lost = lambda: sent - set(came())
        decided = lambda: all(push["offline"] is not None for push in self.deployment.standin.ask("pushes")["pushes"])
        until(decided, lambda: "push has not decided on all messages")
        with contextlib.suppress(TimeoutError):
            until(lambda: not lost(), lambda: "", ARRIVAL_SECONDS)
        between = {text for user in self.users for text in self.between[user]}
        got = came()
        doubled = [text for text in sent if got.count(text) > 1]
        print(f"  {name}: {len(sent)} settled pushes, {len(lost())} lost, {len(doubled)} doubled; {len(between)} during "
              f"moves, {len(between - set(got))} lost, {sum(got.count(t) > 1 for t in between)} doubled")
        assert len(lost()) <= lost_max, f"lost: {sorted(lost())[:5]}"
        assert not doubled, f"doubled: {doubled[:5]}"
        assert sent, "nothing was pushed"


def between_sdks(checks, name, gateways, kind, platform, api):
    """A message from a user on A to a user on B, and back."""
    a, b = gateways
    # (The SDK makes a table of each user id: it takes no dots.)
    ida, bert = f"ida-{platform}", f"bert-{platform}"
    with User(kind, ida, platform, (a.websocket, api)) as on_a, User(kind, bert, platform, (b.websocket, api)) as on_b:

        def there_and_back():
            on_a.login(a.token(ida, platform))
            on_b.login(b.token(bert, platform))
            a.await_online(ida, platform)
            b.await_online(bert, platform)
            on_a.send_text(bert, "from A to B")
            on_b.wait_message("from A to B", sender=ida)
            on_b.send_text(ida, "from B to A")
            on_a.wait_message("from B to A", sender=bert)

        checks.run(f"{name}: {kind}: from a user on A to a user on B and back", there_and_back)


# ---- beside a gateway of OpenIM's behaviour ----------------------------------------------------------------------


def mixed(checks, compat):
    with Deployment(compat, "--services", f"{ALL_SERVICES},gateway") as deployment:
        with OpenimGateway(deployment, 1) as gateway:
            gateway.await_ready()
            theirs = deployment.standin.services["gateway"]
            name = f"fleet {compat} beside OpenIM's"
            both = (deployment, gateway, theirs)
            checks.run(f"{name}: both are found", lambda: found(deployment, [gateway.grpc, theirs]))
            checks.run(f"{name}: a login there kicks here", lambda: kicked_here(*both))
            checks.run(f"{name}: a login here kicks there", lambda: kicked_there(*both))
            checks.run(f"{name}: presence is repaired after a logout there", lambda: repaired_here(deployment, gateway))
            checks.run(f"{name}: presence is repaired after a logout here", lambda: repaired_there(deployment, gateway))
            checks.run(f"{name}: a push reaches users of both", lambda: pushed_to_both(*both))


def kicked_here(deployment, gateway, theirs):
    with Listener(gateway, "kate") as listener:
        is_at(deployment, "kate", (gateway.grpc, LINUX))
        token = gateway.token("kate", LINUX)
        answers = deployment.standin.ask("gateway_login", user="kate", platform=LINUX, token=token)["others"]
        equal(answers, {gateway.grpc: 0}, "MultiTerminalLoginCheck")
        ended(listener)
    is_at(deployment, "kate", (theirs, LINUX))
    stored(deployment, "kate", LINUX)


def kicked_there(deployment, gateway, theirs):
    token = gateway.token("kurt", LINUX)
    deployment.standin.ask("gateway_login", user="kurt", platform=LINUX, token=token)
    is_at(deployment, "kurt", (theirs, LINUX))
    with Listener(gateway, "kurt"):
        is_at(deployment, "kurt", (gateway.grpc, LINUX))
        kicked = [entry["user"] for entry in deployment.standin.ask("gateway_users")["kicked"]]
        equal(kicked.count("kurt"), 1, "kicks of kurt")
        stored(deployment, "kurt", LINUX)


def taken_away(deployment, user, since):
    """Waits until somebody has said that he left, after which the store must have him again."""
    told = lambda: [e for e in deployment.standin.ask("presence", since=since)["entries"] if user in json.dumps(e)]
    left = lambda: [entry for entry in told() if entry["offline"]]
    until(lambda: left(), lambda: f"nobody said that {user} left: {told()}")
    until(lambda: told()[-1]["online"] and told()[-1] != left()[-1], lambda: f"not said again: {told()}")
    stored(deployment, user, LINUX)


def repaired_here(deployment, gateway):
    with Listener(gateway, "rosa"):
        stored(deployment, "rosa", LINUX)
        deployment.standin.ask("gateway_hold", user="rosa", platform=LINUX)
        since = deployment.standin.ask("presence")["entries"][-1]["call"] + 1
        deployment.standin.ask("gateway_logout", user="rosa")
        taken_away(deployment, "rosa", since)
        is_at(deployment, "rosa", (gateway.grpc, LINUX))


def repaired_there(deployment, gateway):
    with Listener(gateway, "rolf"):
        stored(deployment, "rolf", LINUX)
        deployment.standin.ask("gateway_hold", user="rolf", platform=LINUX)
        since = deployment.standin.ask("presence")["entries"][-1]["call"] + 1
    taken_away(deployment, "rolf", since)


def pushed_to_both(deployment, gateway, theirs):
    with Listener(gateway, "paul") as here:
        deployment.standin.ask("gateway_hold", user="pia", platform=LINUX)
        gateway.await_online("paul", LINUX)
        gateway.await_online("pia", LINUX)
        deployment.standin.ask("group", group="pair", users=["paul", "pia", "sender"])
        deployment.standin.ask("send", sender="sender", group="pair", text="to both")
        here.wait_texts(["to both"])
        there = lambda: json.dumps(deployment.standin.ask("gateway_users")["users"]["pia"])
        clients = lambda: deployment.standin.ask("pushes")["pushes"][-1]["clientMsgID"]
        until(lambda: clients() in there(), lambda: f"pia has {there()}")
        is_at(deployment, "paul", (gateway.grpc, LINUX))
        is_at(deployment, "pia", (theirs, LINUX))


# ---- a crash -----------------------------------------------------------------------------------------------------


def crashed(checks):
    with fleet("patch16", "--online-seconds", str(ONLINE_SECONDS)) as (deployment, a, b), contextlib.ExitStack() as opened:
        on_b = opened.enter_context(Listener(b, "stays"))
        lost = [opened.enter_context(Listener(a, user)) for user in ("returns", "gone")]

        def goes_on():
            for user in ("stays", "returns", "gone"):
                b.await_online(user, LINUX)
            a.process.kill()
            a.process.wait()
            for listener in lost:
                listener.close()
            for n in range(5):
                reached(deployment, on_b, *(f"text {k}" for k in range(n + 1)))

        def returned():
            back = opened.enter_context(Listener(b, "returns"))
            is_at(deployment, "returns", (b.grpc, LINUX))
            stored(deployment, "returns", LINUX)
            reached(deployment, back, "welcome back")

        def pushed_offline():
            """Spec trap 30: a push that still takes him for online finds him nowhere, and decides on an offline push."""
            users = deployment.standin.ask("push_presence")["users"]
            equal(users.get("gone"), [LINUX], "push hears of no expiry")
            sent = deployment.standin.ask("send", sender="sender", recipient="gone", text="while away")
            ours = lambda: [p for p in deployment.standin.ask("pushes")["pushes"] if p["clientMsgID"] == sent["clientMsgID"]]
            until(lambda: ours() and ours()[0]["offline"] is not None, lambda: f"undecided: {ours()}")
            assert "gone" in json.dumps(ours()[0]["offline"]), f"no offline push: {ours()}"

        name = "fleet patch16: kill -9 of A"
        checks.run(f"{name}: pushes to users of B go on", goes_on)
        checks.run(f"{name}: who returns on B is online and reached", returned)
        checks.run(f"{name}: who does not goes offline at the expiry", lambda: stored(deployment, "gone"))
        checks.run(f"{name}: a push to him becomes an offline push", pushed_offline)
        checks.run(f"{name}: its key leaves etcd with its lease", lambda: found(deployment, [b.grpc]))
