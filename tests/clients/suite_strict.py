"""`cluster.fence: strict` with processes (routing-protocol.md, M9 and M10): who can renew nothing and misses the others
ends, so that they may forget him by themselves, and not before he has ended. Most of the time is waiting for that."""

import contextlib
import re
import subprocess
import tempfile

from checks import equal, until
from gateway import BINARY
from ledger import complete
from nodes import ETCD, Fleet
from pinion_push import send, to
from push_api import PushApi
from scene import Scene
from suite_cluster import Steps, begun, finished, settled

CLIENTS, RATE, RECIPIENTS = 32, 10, 3
LEASE_MS = 3_000
# `limits::FENCE_MS` (30 s) and `limits::GONE_MS` (40 s) after the last sign; and as much again, since the machine is
# shared.
FENCE_SECONDS, FORGET_SECONDS = 60, 100
WITHOUT_ETCD, ALONE, DEAD = 2, 3, 4
FORGOTTEN = "pinion_cluster_records_written_total"


def run(checks, _gateway, _api):
    fleet = Fleet("--cluster-fence", "strict", lease_ms=LEASE_MS, etcd_relay=True, network="127.0.8.")
    scene = Scene(fleet, CLIENTS, RATE, RECIPIENTS)
    with scene:
        steps = Steps(checks, scene, "cluster strict")
        if not steps.run("four nodes", up):
            return
        steps.run("a node that etcd does not hear says so, and keeps its connections", without_etcd)
        steps.run("a node that hears nobody ends its connections, and itself", fenced)
        steps.run("that one and a dead one are forgotten without an operator", forgotten)
        steps.run("nothing was lost, nothing doubled, and what was quiet was complete", finished)


def up(scene):
    begun(scene, 4)
    equal(len(scene.crowd.places()), 4, "nodes with clients")


def state(node, name):
    """Of a member, as this node sees it; None: it does not know it."""
    said = node.cluster()
    found = [one["state"] for one in said.get("members", []) if one["node_id"] == name]
    return found[0] if found else said.get("error")


def home(user):
    """Among all four nodes."""
    with tempfile.NamedTemporaryFile("w", suffix=".members") as members:
        members.write("n1\nn2\nn3\nn4\n")
        members.flush()
        command = [BINARY, "route", "where", user, "--members", members.name]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return re.search(r"^home +(\S+)$", said, re.MULTILINE).group(1)


def without_etcd(scene):
    """Longer than its lease. Its links stand, so nobody is in danger."""
    node, other = scene.fleet.node(WITHOUT_ETCD), scene.fleet.node(1)
    ended = scene.crowd.counts["losses"]
    scene.order(f"cut {WITHOUT_ETCD} {ETCD}")
    lost = lambda: not node.ready() and state(other, node.name) == "lost"
    until(lambda: scene.look() or lost(), lambda: f"{node.name}: {node.cluster()}\n{other.name}: {other.cluster()}")
    equal(node.cluster().get("fit"), False, "fit")
    # Of other nodes' users those speak.
    own = [user for user in scene.crowd.by_user if home(user) == node.name]
    with contextlib.closing(PushApi(node.grpc)) as api:
        verdict = send(api, to(own, 1, "by a home that is not fit"))[1]
    assert own, f"nobody's home is {node.name}"
    equal([one.user_id for one in verdict.users if complete(one)], [], "complete, by a home that is not fit")
    scene.order(f"heal {WITHOUT_ETCD} {ETCD}")
    back = lambda: node.ready() and state(other, node.name) == "active"
    until(lambda: scene.look() or back(), lambda: f"{node.name}: {node.cluster()}\n{other.name}: {other.cluster()}")
    settled(scene)
    equal(scene.crowd.counts["losses"], ended, "connections that have ended")


def fenced(scene):
    """Until it has ended the others count it, whatever they believe of it."""
    alone, first = scene.fleet.node(ALONE), scene.fleet.node(1)
    victims = [one for client in scene.crowd.clients if (one := client.connection).address == alone.where()]
    assert victims, "it had no client"
    for end in (1, WITHOUT_ETCD, DEAD, ETCD):
        scene.order(f"cut {ALONE} {end}")
    scene.order(f"kill {DEAD}")

    def ended():
        known = state(first, alone.name)
        running = alone.running()
        assert known is not None or not running, f"{alone.name} is forgotten, and runs"
        return not running

    until(lambda: scene.look() or ended(), lambda: f"it runs on:\n{alone.lines[-10:]}", FENCE_SECONDS)
    until(lambda: all(one.closed_at for one in victims), lambda: "a connection of a process that has ended is open")
    assert alone.process.returncode > 0, f"exit status {alone.process.returncode}"
    said = lambda: any("with cluster.fence strict the node ends" in line for line in alone.lines)
    until(said, lambda: "\n".join(alone.lines[-20:]))
    until(lambda: scene.crowd.opened() == CLIENTS, lambda: f"{scene.crowd.opened()} of {CLIENTS} clients are back")


def forgotten(scene):
    alive = [scene.fleet.node(number) for number in (1, WITHOUT_ETCD)]
    gone = [scene.fleet.node(number).name for number in (ALONE, DEAD)]
    known = lambda: [(node.name, name) for node in alive for name in gone if state(node, name)]
    until(lambda: scene.look() or not known(), lambda: f"still known (by, whom): {known()}", FORGET_SECONDS)
    counted = lambda: scene.fleet.metric(FORGOTTEN, 'record="forgotten"')
    until(lambda: scene.look() or counted() == 2, lambda: f"{counted()} records were forgotten")
    settled(scene)
    assert all(node.ready() for node in alive), "not ready"
