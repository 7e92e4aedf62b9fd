"""Clients that cannot be changed in front of several nodes (issue 8, incident 3): behind nginx in turn and without
stickiness, at one address whose node has died, and on a node that is drained. Light clients climb the native SDK's ladder
(`crowd`); a few are the SDK itself."""

import contextlib
import os
import time

from checks import equal, until
from crowd import Client, Crowd
from ledger import Ledger, Pusher
from listener import LINUX
from nodes import Fleet
from pinion_push import WRITTEN, send, to
from push_api import PushApi
from scene import Scene, crowd_of
from sdk import User
from suite_front import front

KIND = "native-patch.15.1"
NO_API = "http://127.0.0.1:9"
CLIENTS = int(os.environ.get("CLUSTER_CLIENTS", "300"))
SDKS = 2
# A client that knows one address is back within: the lease (4 s), the view, the longest step of the ladder (16 s), a
# login; and as much again, since the machine is shared.
BACK_SECONDS = 60
# What a node accepts per second in the drain; a tenth of the clients, so that a mass disconnect would be refused.
ACCEPTS_PER_SECOND = max(20, CLIENTS // 10)
PUSH_SECONDS = 8


def run(checks, _gateway, _api):
    behind_nginx(checks)
    dead_address(checks)
    drained(checks)


def written(api, user, text):
    """Whether a push by this node was written to a connection of the user, on whatever node it is."""
    verdict = send(api, to([user], 1, text))[1]
    return any(device.outcome == WRITTEN for one in verdict.users for device in one.devices)


def ready(fleet):
    for node in fleet.running():
        until(node.ready, lambda n=node: f"{n.name} is not ready:\n" + "\n".join(n.lines[-20:]))


# ---- nginx -------------------------------------------------------------------------------------------------------


def behind_nginx(checks):
    """The shipped file: layer 4, in turn, with a PROXY header."""
    name = "cluster behind nginx"
    flags = ["--websocket-proxies", "127.0.0.1", "--websocket-proxy-protocol", "required"]
    with contextlib.ExitStack() as opened:
        fleet = opened.enter_context(Fleet(*flags, relays=False))

        def up():
            for _ in range(3):
                fleet.add()
            ready(fleet)

        if not checks.run(f"{name}: three nodes", up):
            return
        plain, _ = opened.enter_context(front("nginx", fleet.running()))
        crowd = opened.enter_context(Crowd())
        people = crowd_of(90, lambda _client: ("127.0.0.1", plain))

        def spread():
            crowd.add(people)
            until(lambda: crowd.opened() == len(people), lambda: f"{crowd.opened()} of {len(people)} clients")
            held = [node.metric("pinion_node_connections") for node in fleet.running()]
            assert min(held) > 0, f"connections by node: {held}"

        def reached():
            ledger = Ledger(crowd)
            until(lambda: probe(fleet, crowd), lambda: "verdicts are not complete")
            with Pusher(ledger, fleet.running, sorted(crowd.by_user), 50, 4) as pusher:
                end = time.monotonic() + PUSH_SECONDS
                until(lambda: time.monotonic() >= end, lambda: "", PUSH_SECONDS + 10)
                pusher.stop()
            ledger.judge(over=True)
            counts = ledger.counts
            assert not ledger.lost and not crowd.doubles, f"lost {ledger.lost[:3]}, doubled {crowd.doubles[:3]}"
            equal((counts["not complete"], counts["no answer"]), (0, 0), f"not complete, no answer of {counts}")
            print(f"    {counts['pushes']} pushes by any node, {crowd.counts['texts']} texts")

        checks.run(f"{name}: clients are dealt out in turn", spread)
        def drained():
            """Real SDKs redial nginx, which finds them another node; the light clients climb the same ladder."""
            first = fleet.node(1)
            address = (f"ws://127.0.0.1:{plain}", NO_API)
            sdks = [opened.enter_context(User(KIND, f"front{n}", LINUX, address)) for n in range(3)]
            for sdk in sdks:
                sdk.login(first.token(sdk.user, LINUX))
            held = first.metric("pinion_node_connections")
            assert held > 0, "node 1 has nobody to lose"
            first.ask("POST", "/v1/drain")
            until(lambda: first.metric("pinion_node_connections") == 0, lambda: first.ask("GET", "/v1/drain"))
            until(lambda: crowd.opened() == len(people), lambda: f"{crowd.opened()} of {len(people)} are back")
            with contextlib.closing(PushApi(fleet.node(2).grpc)) as api:
                for sdk in sdks:
                    until(lambda: written(api, sdk.user, f"to {sdk.user}"), lambda: sdk.seen(), BACK_SECONDS)
                    sdk.wait_message(f"to {sdk.user}")
            print(f"    {held:.0f} connections moved, of 3 native SDKs and {len(people)} light clients")

        checks.run(f"{name}: a push to any node reaches all, exactly once", reached)
        checks.run(f"{name}: a node is drained under native SDKs", drained)


def probe(fleet, crowd):
    """Whether a push by each node is complete for everybody; its texts are of nobody's ledger."""
    ledger = Ledger(crowd)
    users = sorted(crowd.by_user)
    with Pusher(ledger, fleet.running, users, 1, len(users)) as pusher:
        pusher.over.set()
        for node in fleet.running():
            pusher.push(node)
        until(lambda: ledger.in_flight == 0, lambda: "no answers")
    return ledger.counts["not complete"] == ledger.counts["no answer"] == 0


# ---- one address -------------------------------------------------------------------------------------------------


def dead_address(checks):
    """Incident 3 (c): the client library redials the address it was given. Another node takes that address over."""
    name = "cluster: one address"
    with contextlib.ExitStack() as opened:
        fleet = opened.enter_context(Fleet("--cluster-adopt", "members", relays=False))

        def up():
            for _ in range(3):
                fleet.add()
            ready(fleet)

        if not checks.run(f"{name}: three nodes that adopt", up):
            return
        dead = fleet.node(2)
        where = (dead.websocket, NO_API)
        sdks = [opened.enter_context(User(KIND, f"sdk{n}", LINUX, where)) for n in range(SDKS)]
        crowd = opened.enter_context(Crowd())
        address = dead.where()
        light = [Client(f"light{n}", LINUX, lambda _client: address) for n in range(50)]

        def served():
            for sdk in sdks:
                sdk.login(dead.token(sdk.user, LINUX))
            crowd.add(light)
            until(lambda: crowd.opened() == len(light), lambda: f"{crowd.opened()} of {len(light)}")
            equal(crowd.places(), {address: len(light)}, "clients by address")

        def back():
            started = time.monotonic()
            fleet.kill(2)
            api = opened.enter_context(PushApi(fleet.node(1).grpc))
            number = [0]

            def reached(user):
                number[0] += 1
                return written(api, user, f"after {number[0]}")

            until(lambda: all(reached(sdk.user) for sdk in sdks) and crowd.opened() == len(light),
                  lambda: f"{crowd.opened()} of {len(light)} are back; {[sdk.seen() for sdk in sdks]}", BACK_SECONDS)
            for sdk in sdks:
                sdk.wait_message(f"after {number[0] - SDKS + 1 + sdks.index(sdk)}")
            print(f"    all clients of the dead address were served again after {time.monotonic() - started:.1f} s")

        def returned():
            """The node comes back to its own address, which the other one gives up."""
            fleet.add(2)
            until(fleet.node(2).ready, lambda: "not ready:\n" + "\n".join(fleet.node(2).lines[-20:]))

        checks.run(f"{name}: clients know node 2 only", served)
        checks.run(f"{name}: node 2 is killed, its clients are back within {BACK_SECONDS} s", back)
        checks.run(f"{name}: node 2 gets its address back", returned)


# ---- drain -------------------------------------------------------------------------------------------------------


def drained(checks):
    """Everybody is on node 1, which leaves while pushes go on. The others accept so few per second that a mass
    disconnect would be refused by them."""
    name = f"cluster: drain under {CLIENTS} clients"
    pace = ["--websocket-accepts-per-second-max", str(ACCEPTS_PER_SECOND)]
    scene = Scene(Fleet(*pace, relays=False), CLIENTS, 30, 4)
    fleet, crowd = scene.fleet, scene.crowd

    def up():
        fleet.add()
        until(fleet.node(1).ready, lambda: "not ready:\n" + "\n".join(fleet.node(1).lines[-20:]))
        # Not more at once than a second's accepts.
        while scene.arrived < CLIENTS:
            scene.arrive(ACCEPTS_PER_SECOND // 2)
            until(lambda: crowd.opened() == scene.arrived, lambda: f"{crowd.opened()} of {scene.arrived}")
        fleet.add()
        fleet.add()
        ready(fleet)
        scene.pusher.__enter__()
        until(lambda: scene.look() or scene.settled, scene.why)

    def leaves():
        refused = crowd.counts["refusals"]
        started = time.monotonic()
        scene.order("drain 1")
        node = fleet.node(1)
        empty = lambda: crowd.places()[node.where()] == 0
        until(lambda: scene.look() or empty(), lambda: f"{node.ask('GET', '/v1/drain')}\n{scene.line()}", 120)
        seconds = time.monotonic() - started
        until(lambda: crowd.opened() == CLIENTS, lambda: f"{crowd.opened()} of {CLIENTS} clients are back")
        equal(crowd.counts["refusals"] - refused, 0, f"logins refused, {refusals(crowd)}")
        equal(node.stop(), 0, "exit status\n" + "\n".join(node.lines[-20:]))
        print(f"    {CLIENTS} clients moved in {seconds:.1f} s, each node accepts {ACCEPTS_PER_SECOND} per second")

    def clean():
        assert scene.finish(), scene.sums()
        print("    " + scene.sums().split("\n", 1)[0])

    with scene:
        if checks.run(f"{name}: all of them on node 1 of 3", up):
            checks.run(f"{name}: no login is refused by the others", leaves)
            checks.run(f"{name}: nothing was lost, nothing doubled", clean)


def refusals(crowd):
    return sum((client.refusals for client in crowd.clients), start=type(crowd.counts)())
