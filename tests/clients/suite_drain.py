"""An operator's drain of a node that is one of three in an OpenIM deployment (issue 8, point 10): at once it leaves the
cluster's placement, and OpenIM's discovery when its last connection has ended, so that OpenIM's push reaches everybody
until then. Afterwards presence is the truth. Services are the stand-in's, etcd and Redis are real.

Two kinds of pushes go on all the time: OpenIM's own, through the services (`Messages`), and pinion.v1's by any node
(`ledger`)."""

import contextlib
import http.client
import json
import random
import threading
import time

from checks import equal, until
from crowd import Client, Crowd
from ledger import Ledger, Pusher
from listener import LINUX
from nodes import Fleet
from suite_openim import Deployment
from suite_strict import state

COMPAT = "patch16"
# Those who come again when they are told to go, those who do not, and those who come to the node that is back.
STAY, LEAVE, NEW = 32, 8, 12
# Node 1 takes seconds, nodes that are told to end have another word on it: a deadline that is far, or near.
PACES = [("8", "600s"), ("1", "3s"), ("1", "600s")]
RATE, RECIPIENTS = 15, 3
GOING_AWAY = "closed 1001"
ARRIVAL_SECONDS = 20
CONNECTIONS = "pinion_node_connections"


def run(checks, _gateway, _api):
    with contextlib.ExitStack() as opened:
        scene = Scene(opened)
        name = "openim drain"
        if not checks.run(f"{name}: three nodes in OpenIM's discovery, everybody on node 1", scene.up):
            return
        checks.run(f"{name}: out of placement first, out of discovery last", scene.at_a_pace)
        checks.run(f"{name}: it is cancelled, found again, and clients come", scene.cancelled)
        checks.run(f"{name}: SIGTERM in the middle, and another: now", scene.twice_told)
        checks.run(f"{name}: SIGTERM in the middle: its deadline wins", scene.by_deadline)
        checks.run(f"{name}: nothing was lost, nothing doubled", scene.clean)


class OpenimFleet(Fleet):
    """Members of one cluster and gateways of one deployment, whose etcd they share."""

    def __init__(self, deployment):
        super().__init__(relays=False, network="127.0.9.")
        self.deployment = deployment

    def __enter__(self):
        self.etcd = self.deployment.etcd
        return self

    def __exit__(self, *_):
        self.etcd = None
        super().__exit__()

    def _flags(self, node):
        given = self.deployment.flags()
        given[given.index("--discovery-register-ip") + 1] = node.host
        self.etcd_address = self.etcd.address
        ours = dict(zip(*[iter(super()._flags(node))] * 2))
        # Some are the same.
        ours.update(zip(*[iter(given)] * 2))
        return tuple(word for pair in ours.items() for word in pair)


class Meanwhile:
    """`with` it, `step` goes on in a thread of its own."""

    def __init__(self):
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _run(self):
        while not self.over.wait(0.01):
            self.step()


class Registered(Meanwhile):
    """Looks all the time whether a node that is not in discovery has connections. Discovery is asked first, and a node
    that drains gets no new ones, so what is seen was so."""

    def __init__(self, deployment, node):
        super().__init__()
        self.deployment, self.node = deployment, node
        self.early, self.looks = [], 0

    def in_time(self):
        assert self.looks, "nobody looked"
        equal(self.early, [], f"connections of {self.node.name} while discovery did not have it")

    def step(self):
        self.looks += 1
        if self.node.grpc in found(self.deployment):
            return
        try:
            left = self.node.metric(CONNECTIONS)
        except (OSError, http.client.HTTPException):
            return  # it has ended
        if left:
            self.early.append(left)


def found(deployment):
    """Who is in OpenIM's discovery."""
    return deployment.standin.ask("gateways")["addresses"]


class Messages(Meanwhile):
    """One message after the other to clients of a node, through OpenIM's services. `lost` in words: a connection that
    was there before and after does not have it, or push did not even ask, since it took its user for offline."""

    def __init__(self, deployment, crowd, node):
        super().__init__()
        self.deployment, self.crowd, self.node = deployment, crowd, node
        self.lost, self.sent = [], 0
        self.number = random.randrange(1 << 20) << 24

    def step(self):
        users = [one.client.user for one in self.crowd.at(self.node.where())]
        if users:
            self.send(random.choice(users))

    def send(self, user):
        before = self.crowd.open_of(user)
        self.number += 1
        operation = f"drain-{self.number}"
        self.deployment.standin.ask("send", sender="service", recipient=user, text=f"#{self.number}#",
                                    operation=operation)
        self.sent += 1
        missed = lambda: [one for one in before if one.closed_at is None and not one.got[self.number]]
        end = time.monotonic() + ARRIVAL_SECONDS
        while missed() and time.monotonic() < end:
            time.sleep(0.005)
        if missed():
            pushes = [one for one in self.deployment.standin.ask("pushes")["pushes"] if one["operation"] == operation]
            self.lost.append(f"message {self.number} to {user} at {[one.address for one in before]}: {pushes}")


class Places(Crowd):
    def at(self, address):
        """The open connections of a node."""
        found = [client.connection for client in list(self.clients)]
        return [one for one in found if one and one.open() and one.address == address]


class Scene:
    def __init__(self, opened):
        self.opened = opened
        self.deployment = opened.enter_context(Deployment(COMPAT))
        self.fleet = opened.enter_context(OpenimFleet(self.deployment))
        self.crowd = opened.enter_context(Places())
        self.first = None
        self.stay, self.leave = [], []

    # ---- clients -------------------------------------------------------------------------------------------------

    def where(self, client):
        """Node `first` while it takes clients. Afterwards some stay away."""
        if self.first.takes():
            return self.first.where()
        return None if client in self.leave else self.fleet.where(client)

    def come(self, word, count):
        clients = [Client(f"{word}{n}", LINUX, self.where) for n in range(count)]
        for client in clients:
            asked = self.deployment.standin.ask("token", user=client.user, platform=LINUX, policy=0)
            client.token = asked["token"]
        return clients

    def all_in(self):
        stays = lambda: sum(1 for one in self.stay if one.connection and one.connection.open())
        until(lambda: stays() == len(self.stay), lambda: f"{stays()} of {len(self.stay)} are connected")

    def presence(self):
        """Of the store, and of push, which asks nobody about who is offline."""
        truth = {one.user: [LINUX] for one in self.stay} | {one.user: [] for one in self.leave}

        def wrong():
            map_of_push = self.deployment.standin.ask("push_presence")["users"]
            stored = lambda user: self.deployment.standin.ask("platforms", user=user)["platforms"]
            said = {user: (stored(user), map_of_push.get(user, [])) for user in truth}
            return {user: both for user, both in said.items() if both != (truth[user], truth[user])}

        until(lambda: not wrong(), lambda: f"(store, push) are wrong of {wrong()}")

    def reached(self):
        """A message to each, through the services."""
        messages = Messages(self.deployment, self.crowd, self.first)
        for client in self.stay:
            messages.send(client.user)
        equal(messages.lost, [], "lost")

    def discovered(self, *numbers):
        wanted = sorted(self.fleet.node(number).grpc for number in numbers)
        until(lambda: sorted(found(self.deployment)) == wanted, lambda: f"{found(self.deployment)}, wanted {wanted}")

    # ---- steps ---------------------------------------------------------------------------------------------------

    def up(self):
        for pace, deadline in PACES:
            self.fleet.add(None, "--drain-evict-per-s", pace, "--drain-deadline-ms", deadline)
        self.fleet.await_ready()
        self.discovered(1, 2, 3)
        self.first = self.fleet.node(1)
        self.stay, self.leave = self.come("stay", STAY), self.come("leave", LEAVE)
        self.crowd.add(self.stay + self.leave)
        until(lambda: self.crowd.opened() == STAY + LEAVE, lambda: f"{self.crowd.opened()} clients")
        equal(self.crowd.places(), {self.first.where(): STAY + LEAVE}, "clients by node")
        known = lambda: self.deployment.standin.ask("push_presence")["users"]
        users = [client.user for client in self.crowd.clients]
        until(lambda: all(LINUX in known().get(user, []) for user in users), lambda: f"push knows {known()}")
        self.ledger = Ledger(self.crowd)
        self.pusher = self.opened.enter_context(Pusher(self.ledger, self.fleet.running, users, RATE, RECIPIENTS))

    def at_a_pace(self):
        node, other = self.first, self.fleet.node(2)
        with Registered(self.deployment, node) as registered, Messages(self.deployment, self.crowd, node) as messages:
            self.fleet.drain(1)
            until(lambda: state(other, node.name) == "draining", lambda: f"{other.cluster()}")
            assert not node.ready(), "it drains, and /readyz says ready"
            assert node.grpc in found(self.deployment), "out of discovery at once"
            assert node.metric(CONNECTIONS), "it was empty before the others heard of its drain"
            drain = lambda: json.loads(node.ask("GET", "/v1/drain"))
            until(lambda: drain()["state"] == "empty", lambda: f"{drain()}")
            self.discovered(2, 3)
        registered.in_time()
        equal(messages.lost, [], f"lost of {messages.sent} messages to clients of the node")
        assert messages.sent, "no message was sent"
        print(f"    {messages.sent} messages of OpenIM to clients of the node in its drain, {registered.looks} looks")
        self.all_in()
        self.presence()
        self.reached()

    def cancelled(self):
        node, other = self.first, self.fleet.node(2)
        self.fleet.cancel(1)
        self.discovered(1, 2, 3)
        until(lambda: node.ready() and state(other, node.name) == "active", lambda: f"{other.cluster()}")
        new = self.come("new", NEW)
        self.stay += new
        self.crowd.add(new)
        self.all_in()
        equal({client.connection.address for client in new}, {node.where()}, "where the new ones are")
        known = lambda: self.deployment.standin.ask("push_presence")["users"]
        until(lambda: all(LINUX in known().get(one.user, []) for one in new), lambda: f"push knows {known()}")
        self.reached()

    def ends(self, number, words):
        """SIGTERM in an operator's drain, `words` more, and the end."""
        node, told = self.fleet.node(number), self.crowd.counts[GOING_AWAY]
        held = len(self.crowd.at(node.where()))
        assert held, f"{node.name} has no client"
        with Registered(self.deployment, node) as registered:
            self.fleet.drain(number)
            self.fleet.term(number)
            words(node)
            until(lambda: not node.running(), lambda: "it runs on:\n" + "\n".join(node.lines[-20:]))
        equal(node.process.returncode, 0, "exit status\n" + "\n".join(node.lines[-20:]))
        registered.in_time()
        self.discovered(*(n for n in self.fleet.nodes if self.fleet.node(n).running()))
        self.all_in()
        until(lambda: self.crowd.counts[GOING_AWAY] == told + held,
              lambda: f"{self.crowd.counts[GOING_AWAY] - told} of {held} were told 1001")
        self.presence()
        self.reached()

    def twice_told(self):
        def again(node):
            """Its deadline is minutes away."""
            drain = lambda: json.loads(node.ask("GET", "/v1/drain"))
            until(lambda: drain()["state"] == "ending", lambda: f"{drain()}")
            assert drain()["left_ms"] > 500_000 and drain()["connections"], f"{drain()}"
            self.fleet.term(1)

        self.ends(1, again)

    def by_deadline(self):
        """At the operator's pace, one in a second, it would take longer than anybody waits."""
        self.ends(2, lambda _node: None)

    def clean(self):
        counts = self.pusher.finish()
        print(f"    {counts['pushes']} pushes by any node, {self.crowd.counts['texts']} texts; "
              f"{counts['complete']} of {counts['recipients']} verdicts are complete")
