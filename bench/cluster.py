#!/usr/bin/env python3
"""What several nodes cost: CPU of a push that is one hop away beside a local one, CPU of a stray login beside one at home,
messages between nodes per push for 1, 3, 5 (and 10) nodes, and the time until verdicts are complete again after a join.

    GATEWAY_BIN=target/release/pinion work/clients/venv/bin/python bench/cluster.py [--quick] [--out FILE]

Wants a quiet machine: gateways, etcd, clients and the pusher share it. CPU is what the kernel says of the gateways' threads
(/proc/PID/task/*/schedstat, nanoseconds), with the fleet's own idle cost taken off; it does not depend on who else runs,
but caches do. Nothing is measured through a relay. Needs what scripts/cluster.sh needs."""

import argparse
import contextlib
import json
import os
import sys
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
# In place of this folder, whose openim.py would hide the stubs of that name.
sys.path[:1] = [os.path.join(ROOT, "tests", "clients"), os.path.join(ROOT, "tests", "vectors")]

from checks import until  # noqa: E402 -- after the path
from crowd import Client, Crowd  # noqa: E402
from listener import LINUX  # noqa: E402
from nodes import Fleet  # noqa: E402
from pinion_push import Stream, to  # noqa: E402
from placement import rendezvous  # noqa: E402
from push_api import PushApi  # noqa: E402
from scene import Scene  # noqa: E402

# Of `metrics.rs`: what a node has written to and read from its peers' links, beats not counted.
SENT_FRAMES = "pinion_peer_frames_total"
IDLE_SECONDS = 3
PUBLISHED_SECONDS = 1.5
# A node that is stopped for a measurement stays in placement.
LEASE_MS = 120_000
BATCH = 64
WEIGHT = 100


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that it runs, not what it costs")
    parser.add_argument("--out", help="write the figures there, as JSON")
    parser.add_argument("--nodes", type=int, nargs="*", default=None)
    given = parser.parse_args()
    size = Size(given.quick)
    found = {"quick": given.quick, "machine": os.uname().release, "cpus": os.cpu_count(), "fleets": [], "joins": []}
    for count in given.nodes or size.fleets:
        found["fleets"].append(shown(fleet_of(count, size)))
    found["joins"].append(shown(join(size)))
    text = json.dumps(found, indent=2)
    if given.out:
        with open(given.out, "w", encoding="utf-8") as out:
            out.write(text + "\n")
    return 0


class Size:
    def __init__(self, quick):
        self.fleets = (1, 3) if quick else (1, 3, 5, 10)
        self.pushes = 640 if quick else 32_000
        self.users = 60 if quick else 1_000
        self.logins = 60 if quick else 2_000
        self.join_clients = 300 if quick else 15_000


def shown(row):
    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return row


# ---- the fleet's own numbers -------------------------------------------------------------------------------------


def cpu_ns(fleet):
    """What the threads of all gateways have run so far."""
    total = 0
    for node in fleet.running():
        for task in os.listdir(f"/proc/{node.process.pid}/task"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{node.process.pid}/task/{task}/schedstat",
                                                              encoding="ascii") as stat:
                total += int(stat.read().split()[0])
    return total


class Meter:
    """CPU and messages of a piece of work, less what the fleet uses when nothing happens."""

    def __init__(self, fleet):
        self.fleet = fleet
        before, started = self._read(), time.monotonic()
        time.sleep(IDLE_SECONDS)
        after, seconds = self._read(), time.monotonic() - started
        self.idle = [(b - a) / seconds for a, b in zip(before, after)]

    def _read(self):
        return cpu_ns(self.fleet), self.fleet.metric(SENT_FRAMES, 'direction="out"')

    def of(self, work, count):
        """(CPU us, messages) for one of `count`."""
        before, started = self._read(), time.monotonic()
        work()
        # Threads publish their counts at their ticks.
        time.sleep(PUBLISHED_SECONDS)
        after, seconds = self._read(), time.monotonic() - started
        cpu, frames = (b - a - idle * seconds for a, b, idle in zip(before, after, self.idle))
        return max(0.0, cpu / 1000 / count), max(0.0, frames / count)


def whole(fleet):
    """All nodes are ready and linked."""
    fleet.await_ready()
    count = len(fleet.running())
    linked = lambda node: count == 1 or node.metric("pinion_cluster_peers", 'link="up"') == count - 1
    until(lambda: all(linked(node) for node in fleet.running()), lambda: "links are missing")


# ---- pushes and logins -------------------------------------------------------------------------------------------


def fleet_of(count, size):
    """Users of node 1 by placement; the push enters at their home or elsewhere, they are at home or elsewhere."""
    row = {"nodes": count}
    fleet = Fleet(relays=False, source="etcd" if count > 1 else "none", lease_ms=LEASE_MS)
    with fleet, Crowd() as crowd:
        for _ in range(count):
            fleet.add()
        whole(fleet)
        nodes = [fleet.node(number + 1) for number in range(count)]
        home, other = nodes[0], nodes[-1]
        meter = Meter(fleet)
        names = users_of(home.name, [node.name for node in nodes], 2 * size.users + 2 * size.logins)
        at_home, strays = names[:size.users], names[size.users:2 * size.users]
        logins = names[2 * size.users:]
        arrive(crowd, at_home, home)
        row["push at home, us"], row["push at home, messages"] = pushed(meter, home, at_home, size.pushes)
        if count > 1:
            row["push one hop away, us"], row["push one hop away, messages"] = pushed(meter, other, at_home, size.pushes)
            arrive(crowd, strays, other)
            row["push to a stray, us"], row["push to a stray, messages"] = pushed(meter, home, strays, size.pushes)
            third = nodes[1] if count > 2 else other
            if count > 2:
                row["push two hops away, us"], row["push two hops away, messages"] = \
                    pushed(meter, third, strays, size.pushes)
        first, second = logins[:size.logins], logins[size.logins:]
        row["login at home, us"], _ = meter.of(lambda: arrive(crowd, first, home), size.logins)
        if count > 1:
            row["login as a stray, us"], row["login as a stray, messages"] = \
                meter.of(lambda: arrive(crowd, second, other), size.logins)
            row["push without its home, us"], row["push without its home, messages"] = \
                without_home(fleet, (home, third, other), strays, size)
            row["OpenIM push that asks all nodes, us"] = asked_of_all(meter, nodes, strays, size)
    return {name: round(value, 2) for name, value in row.items()}


def users_of(home, nodes, count):
    """User ids that this node is the home of."""
    found, number = [], 0
    members = [(node, WEIGHT) for node in nodes]
    while len(found) < count:
        user = f"bench{number}"
        if rendezvous(user, members)[0] == home:
            found.append(user)
        number += 1
    return found


def arrive(crowd, users, node):
    address = node.where()
    clients = [Client(user, LINUX, lambda _client: address) for user in users]
    crowd.add(clients)
    opened = lambda: sum(1 for one in clients if one.connection and one.connection.open())
    until(lambda: opened() == len(clients), lambda: f"{opened()} of {len(clients)} clients are in", 300)


def pushed(meter, entry, users, count, whole_verdicts=True):
    """One user per push, in batches on one stream."""

    def work():
        with PushApi(entry.grpc) as api, Stream(api) as stream:
            for start in range(0, count, BATCH):
                numbers = range(start, min(start + BATCH, count))
                stream.send(*[to([users[n % len(users)]], n + 1, "x" * 64) for n in numbers])
                for n in numbers:
                    verdict = stream.verdict(n + 1)
                    user = verdict.users[0]
                    assert user.devices, f"not reached: {verdict}"
                    assert user.complete or not user.HasField("complete") or not whole_verdicts, f"{verdict}"

    return meter.of(work, count)


def without_home(fleet, nodes, users, size):
    """The broadcast (P5): the home is not linked, so every other node is asked. Linear in the nodes."""
    home, entry, _holder = nodes
    number = next(number for number, node in fleet.nodes.items() if node is home)
    fleet.stop(number)
    until(lambda: home.name in entry.cluster().get("unlinked", []), lambda: f"{entry.cluster()}")
    try:
        return pushed(Meter(fleet), entry, users, max(BATCH, size.pushes // 20), whole_verdicts=False)
    finally:
        fleet.cont(number)
        whole(fleet)


def asked_of_all(meter, nodes, users, size):
    """CPU of one message in OpenIM's mode `local`: its push calls every node itself."""
    apis = [PushApi(node.grpc) for node in nodes]
    count = max(1, size.pushes // 20)

    def work():
        for n in range(count):
            for api in apis:
                api.push("sender", [users[n % len(users)]], "x" * 64)

    cpu, _ = meter.of(work, count)
    for api in apis:
        api.close()
    return cpu


# ---- a join ------------------------------------------------------------------------------------------------------


def join(size):
    """Two nodes with all clients, a third joins: until every verdict is complete again."""
    scene = Scene(Fleet(relays=False), size.join_clients, rate=50, recipients=4)
    with scene:
        scene.order("add")
        scene.order("add")
        whole(scene.fleet)
        scene.arrive(size.join_clients)
        until(lambda: scene.crowd.opened() == size.join_clients, lambda: f"{scene.crowd.opened()} clients are in", 300)
        scene.pusher.__enter__()
        until(lambda: scene.look() or scene.settled, scene.why, 120)
        started = time.monotonic()
        scene.order("add")
        until(scene.fleet.node(3).ready, lambda: "not ready", 120)
        ready = time.monotonic() - started
        until(lambda: scene.look() or scene.settled, scene.why, 120)
        good = scene.finish()
        assert good, scene.sums()
        counts = scene.ledger.counts
        return {
            "clients": size.join_clients, "ready after, s": round(ready, 2),
            "settled after, s": round(scene.times[-1][1], 2), "not complete": counts["not complete"],
            "of recipients": counts["recipients"],
        }


if __name__ == "__main__":
    sys.exit(main())
