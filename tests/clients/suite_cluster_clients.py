"""Clients that cannot be changed in front of several nodes (issue 8, incident 3): behind nginx in turn and without
stickiness, and on a node that is drained. Light clients climb the native SDK's ladder (`crowd`); a few are the SDK
itself. At one address: suite_address.py."""

import contextlib
import json
import os
import time

from checks import equal, until
from crowd import Crowd
from ledger import Ledger, Pusher
from listener import LINUX
from nodes import Fleet
from pinion_push import WRITTEN, send, to
from push_api import PushApi
from scene import Scene, crowd_of
from sdk import User
from suite_cluster import Steps, finished, forgotten, settled, watched
from suite_front import front

KIND = "native-patch.15.1"
NO_API = "http://127.0.0.1:9"
CLIENTS = int(os.environ.get("CLUSTER_CLIENTS", "300"))
BACK_SECONDS = 60
# What a node accepts per second in the drain; a tenth of the clients, so that a mass disconnect is refused.
ACCEPTS_PER_SECOND = max(20, CLIENTS // 10)
PUSH_SECONDS = 8
# HAProxy asks each second, and twice before it believes.
JUDGED_SECONDS = 4
# Longer than the lease of `nodes` (4 s).
STOPPED_SECONDS = 5


def run(checks, _gateway, _api):
    behind_nginx(checks)
    behind_haproxy(checks)
    drained(checks)


def written(api, user, text):
    """Whether a push by this node was written to a connection of the user, on whatever node it is."""
    verdict = send(api, to([user], 1, text))[1]
    return any(device.outcome == WRITTEN for one in verdict.users for device in one.devices)


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
            fleet.await_ready()

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


def behind_haproxy(checks):
    """While etcd is away `/readyz` says 503 on all nodes at once, and who comes is let in all the same."""
    name = "cluster behind haproxy"
    flags = ["--websocket-proxies", "127.0.0.1", "--websocket-proxy-protocol", "required"]
    with contextlib.ExitStack() as opened:
        fleet = opened.enter_context(Fleet(*flags, relays=False))

        def without_etcd():
            for _ in range(3):
                fleet.add()
            fleet.await_ready()
            plain, _ = opened.enter_context(front("haproxy", fleet.running()))
            fleet.etcd.stop()
            until(lambda: not any(node.ready() for node in fleet.running()), lambda: "a node is ready without a lease")
            end = time.monotonic() + JUDGED_SECONDS
            until(lambda: time.monotonic() >= end, lambda: "", JUDGED_SECONDS + 10)
            crowd = opened.enter_context(Crowd())
            crowd.add(crowd_of(12, lambda _client: ("127.0.0.1", plain)))
            until(lambda: crowd.opened() == 12, lambda: f"{crowd.opened()} of 12 clients, {refusals(crowd)}")
            assert not any(node.ready() for node in fleet.running()), "etcd came back by itself"

        checks.run(f"{name}: who comes while etcd is away is let in", without_etcd)


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


# ---- drain -------------------------------------------------------------------------------------------------------


def drained(checks):
    """Everybody is on node 1, which leaves while pushes go on. The others accept so few per second that a mass
    disconnect is refused by them: the last check has one."""
    name = f"cluster: drain under {CLIENTS} clients"
    pace = ["--websocket-accepts-per-second-max", str(ACCEPTS_PER_SECOND)]
    scene = Scene(Fleet(*pace, relays=False), CLIENTS, 30, 4)
    with scene:
        steps = Steps(checks, scene, name)
        if steps.run("all of them on node 1 of 3", crowded):
            steps.run("within what the others accept", leaves)
            steps.run(f"node 2 is stopped for {STOPPED_SECONDS} s in the middle", stopped)
            steps.run("it is cancelled, and clients come again", cancelled)
            steps.run("node 3 is killed in the middle: more come at once than are accepted", killed)
            steps.run("nothing was lost, nothing doubled, and what was quiet was complete", finished)
            print("    " + scene.sums().replace("\n", "\n    "))


def crowded(scene):
    fleet, crowd = scene.fleet, scene.crowd
    fleet.add()
    fleet.node(1).await_ready()
    # Not more at once than a second's accepts.
    while scene.arrived < CLIENTS:
        scene.arrive(ACCEPTS_PER_SECOND // 2)
        until(lambda: crowd.opened() == scene.arrived, lambda: f"{crowd.opened()} of {scene.arrived}")
    fleet.add()
    fleet.add()
    fleet.await_ready()
    scene.pusher.__enter__()
    settled(scene)


def refused(nodes):
    """Logins for which there were too many in a second, as the nodes count them."""
    return sum(node.metric("pinion_handshakes_total", 'outcome="rate_limit"') for node in nodes)


def left(scene, number):
    return scene.crowd.places()[scene.fleet.node(number).where()]


def leaves(scene):
    fleet, crowd = scene.fleet, scene.crowd
    node, others = fleet.node(1), [fleet.node(2), fleet.node(3)]
    dials = crowd.counts["dials"]
    came = lambda: sum(other.metric("pinion_handshakes_total", 'outcome="ok"') for other in others)
    before = refused(others), came()
    started = time.monotonic()
    scene.order("drain 1")
    pace = json.loads(node.ask("GET", "/v1/drain"))
    equal(pace["evictions_per_s"], ACCEPTS_PER_SECOND * len(others) // 2, f"a second, from {pace['rate_from']}")
    until(lambda: scene.look() or left(scene, 1) == 0, lambda: f"{node.ask('GET', '/v1/drain')}\n{scene.line()}", 120)
    seconds = time.monotonic() - started
    until(lambda: crowd.opened() == CLIENTS, lambda: f"{crowd.opened()} of {CLIENTS} clients are back")
    until(lambda: came() == before[1] + CLIENTS, lambda: f"the others have let in {came() - before[1]} of {CLIENTS}")
    equal(refused(others), before[0], "logins that the others refused")
    equal(crowd.counts["dials"] - dials, CLIENTS, f"dials of {CLIENTS} clients, {refusals(crowd)}")
    settled(scene)
    scene.order("term 1")
    until(lambda: scene.look() or not node.running(), lambda: "it runs on:\n" + "\n".join(node.lines[-20:]))
    equal(node.process.returncode, 0, "exit status\n" + "\n".join(node.lines[-20:]))
    print(f"    {CLIENTS} clients moved in {seconds:.1f} s, each node accepts {ACCEPTS_PER_SECOND} per second")


def half_drained(scene, number):
    """The drain has begun and is not over."""
    all_of_it = left(scene, number)
    scene.order(f"drain {number}")
    until(lambda: scene.look() or left(scene, number) <= all_of_it * 3 // 4, lambda: scene.line())
    assert left(scene, number) > 0, "the drain was over before it could be hurt"


def stopped(scene):
    """Longer than its lease. It goes on where it was."""
    scene.order("add 1")
    scene.fleet.await_ready()
    settled(scene)
    half_drained(scene, 2)
    scene.order("stop 2")
    watched(scene, STOPPED_SECONDS)
    scene.order("cont 2")
    node = scene.fleet.node(2)
    until(lambda: scene.look() or left(scene, 2) == 0, lambda: f"{node.ask('GET', '/v1/drain')}\n{scene.line()}", 120)
    settled(scene)
    equal(json.loads(node.ask("GET", "/v1/drain"))["state"], "empty", "state of the drain")


def cancelled(scene):
    node = scene.fleet.node(2)
    scene.order("cancel 2")
    node.await_ready()
    settled(scene)


def killed(scene):
    """Its clients climb the ladder until they are in."""
    victim, others = scene.fleet.node(3), [scene.fleet.node(1), scene.fleet.node(2)]
    before = refused(others)
    half_drained(scene, 3)
    scene.order("kill 3")
    until(lambda: scene.look() or scene.crowd.opened() == CLIENTS,
          lambda: f"{scene.crowd.opened()} of {CLIENTS} clients are back, {refusals(scene.crowd)}")
    assert refused(others) > before, f"{victim.name} had too few clients to be more than the others accept at once"
    until(lambda: scene.look() or forgotten(scene, 3), lambda: f"it cannot be forgotten: {scene.order('status')}")
    settled(scene)
    assert left(scene, 2) > 0, "nobody came to the node whose drain was cancelled"


def refusals(crowd):
    return sum((client.refusals for client in crowd.clients), start=type(crowd.counts)())
