"""Several nodes over one etcd as real processes (issue 8): nothing that a verdict calls complete is lost and nothing comes
twice, while the fleet grows, shrinks and is hurt; and OpenIM's push in both of its modes, with rings that agree and
rings that do not (incident 2).

CLUSTER_CLIENTS=2000 is the whole number of clients; CI has fewer, with which the suite ends within three minutes."""

import contextlib
import os
import re
import subprocess
import tempfile
import time

from checks import equal, until
from crowd import Client, Crowd, pause
from gateway import BINARY, Gateway
from ledger import Answer, Ledger, Push, in_quiet
from listener import ANDROID, LINUX, WEB
from nodes import Fleet
from push_api import PushApi, grpc, push_request
from scene import Scene, crowd_of

# Found through suite_openim's path, which `nodes` brings.
from ring import Ring, members

CLIENTS = int(os.environ.get("CLUSTER_CLIENTS", "400"))
RATE, RECIPIENTS = 40, 4
SETTLE_SECONDS = 60
CUT_SECONDS, STOPPED_SECONDS, OUTAGE_SECONDS = 5, 10, 20
# Of the recipients while nothing has changed; a fleet that calls nothing complete would lose nothing either. What is
# missing is a loaded machine's: an answer that took longer than a home waits.
QUIET_COMPLETE_MIN = 0.99
# Without any change at the end.
QUIET_SECONDS = 5
INSTANCE, NAMESPACE = "openimserver", "openim-lin"
POD = f"{INSTANCE}-openim-msggateway"
KEY = f"{{node_id}}.{POD}-headless.{NAMESPACE}.svc.cluster.local"
ROUTED_USERS = 60
ROUTE_REPEATED = "pinion_cluster_doubled_messages_total"
LOCAL_ELSEWHERE = "pinion_cluster_local_elsewhere_total"
ONE_ONLY, OTHERS_TOO = 'heard_by="this_node_only"', 'heard_by="others_too"'


def run(checks, _gateway, _api):
    checks.run("cluster: what is lost and what is doubled is found", planted)
    grown_and_hurt(checks)
    for mode in ("route", "local"):
        openim_push(checks, mode)


# ---- the instrument ----------------------------------------------------------------------------------------------


class PlantedConnection:
    def __init__(self, got, closed=False):
        self.got, self.closed_at, self.address = got, 1.0 if closed else None, ("127.0.7.1", 1)


class PlantedCrowd:
    """Two users: one with two connections, one whose connection has ended."""

    def __init__(self):
        self.connections = {"both": [PlantedConnection({1: 1, 2: 1}), PlantedConnection({1: 1, 2: 0})],
                            "gone": [PlantedConnection({1: 0, 2: 0}, closed=True)]}

    def open_of(self, user):
        return self.connections.get(user, [])

    def ended_of(self, _user, _since):
        return []


def planted():
    """Number 1 came, 2 is missing at one connection: lost only if its verdict says complete, or written."""
    crowd = PlantedCrowd()
    for number, verdicts, lost in [
        (1, {"both": (True, 2), "gone": (True, 1)}, 0),
        (2, {"both": (True, 1), "gone": (True, 0)}, 1),
        (2, {"both": (False, 1), "gone": (False, 0)}, 0),
        (2, {"both": (False, 2), "gone": (True, 1)}, 1),
    ]:
        ledger = Ledger(crowd)
        push = Push(number, "n1", list(verdicts), crowd)
        push.verdicts = verdicts
        ledger._judge(push)
        equal(ledger.counts["lost"], lost, f"lost of push {number} with {verdicts}")
    quiet = in_quiet([Answer(1, 1.1, 4, 0), Answer(2, 2.1, 4, 4), Answer(3, 3.1, 4, 1), Answer(4.9, 5.1, 4, 0)], [(1, 5)])
    equal(quiet, (5, 8), "complete, and all, of what was sent after the first and answered by 5")
    equal([pause(step) for step in range(8)], [0, 1, 2, 4, 8, 16, 1, 2], "the native SDK's ladder (spec 1.5)")
    with Crowd() as real:
        client = Client("anna", LINUX, lambda _client: None)
        client.connection = PlantedConnection({7: 0})
        client.connection.client = client
        real._got(client.connection, 7)
        equal(real.doubles, [], "doubled after the first")
        real._got(client.connection, 7)
        equal([number for number, _, _ in real.doubles], [7], "doubled after the second")


# ---- 1 -> 5 -> 3 -------------------------------------------------------------------------------------------------


def grown_and_hurt(checks):
    scene = Scene(Fleet(), CLIENTS, RATE, RECIPIENTS)
    with scene:
        steps = Steps(checks, scene)
        if not steps.run("1 node with a quarter of the clients", start):
            return
        steps.run("5 nodes, and all clients", grow)
        steps.run("pinion route diff asks live nodes", compared)
        steps.run(f"the link of nodes 1 and 2 is cut for {CUT_SECONDS} s", cut)
        steps.run(f"node 3 is stopped for {STOPPED_SECONDS} s", stopped)
        steps.run(f"etcd is away for {OUTAGE_SECONDS} s", outage)
        steps.run("node 5 is drained, and then ends with status 0", drained)
        steps.run("node 4 is killed, and forgotten by the operator", killed)
        steps.run("nothing was lost, nothing doubled, and what was quiet was complete", clean)
        print("  " + scene.sums().replace("\n", "\n  "), flush=True)


class Steps:
    """Checks on one scene, with the second's work done meanwhile; each prints what it lost and how long it took."""

    def __init__(self, checks, scene, name="cluster"):
        self.checks, self.scene, self.name = checks, scene, name

    def run(self, name, step):

        def whole():
            step(self.scene)
            lost, doubled = self.scene.ledger.lost, self.scene.crowd.doubles
            assert not lost and not doubled, f"lost {lost[:3]}, doubled {doubled[:3]}"

        good = self.checks.run(f"{self.name}: {name}", whole)
        print(f"  {self.name}: {self.scene.line().strip()}", flush=True)
        return good


def ordered(scene, *lines):
    for line in lines:
        scene.order(line)


def watched(scene, seconds):
    """Lets so much time pass."""
    end = time.monotonic() + seconds
    until(lambda: scene.look() or time.monotonic() >= end, lambda: "", seconds + 10)


def settled(scene):
    until(lambda: scene.look() or scene.settled, lambda: f"not settled: {scene.why()}\n{scene.order('status')}",
          SETTLE_SECONDS)


def begun(scene, nodes):
    """So many nodes, all clients, and pushes."""
    ordered(scene, *["add"] * nodes)
    scene.fleet.await_ready()
    scene.arrive(len(scene.people))
    scene.pusher.__enter__()
    settled(scene)


def start(scene):
    scene.order("add")
    scene.fleet.await_ready()
    scene.arrive(CLIENTS // 4)
    scene.pusher.__enter__()
    settled(scene)


def grow(scene):
    ordered(scene, *["add"] * 4)
    scene.fleet.await_ready()
    scene.arrive(CLIENTS)
    settled(scene)
    places = scene.crowd.places()
    equal(len(places), 5, f"nodes with clients, {places}")


def compared(scene):
    """Two nodes that agree; a node and a list that is stale; and what cannot be asked."""
    first, second = (scene.fleet.node(number).http for number in (1, 2))
    code, said = route_diff(first, second)
    assert code == 0 and "0.0 % of user0 to user9999 differ" in said, f"{code} {said}"
    assert f"A  {first}: node n1, view " in said and "rendezvous, 5 of 5 members active" in said, said
    with tempfile.NamedTemporaryFile("w", suffix=".members") as stale:
        stale.write("n1\nn2\nn3\nn4\n")
        stale.flush()
        code, said = route_diff(first, stale.name)
        differ = re.search(r"(\d+\.\d) % of", said)
        assert code == 1 and differ and 15 < float(differ.group(1)) < 25 and "n5 is only in A" in said, f"{code} {said}"
    with Gateway(1) as alone:
        code, said = route_diff(first, alone.http)
        assert code == 2 and "this node is alone: cluster.source is none" in said, f"{code} {said}"
    code, said = route_diff(first, alone.http)
    assert code == 2 and alone.http in said and "no gateway answers" in said, f"{code} {said}"


def route_diff(a, b):
    command = [BINARY, "route", "diff", a, b, "--users", "10000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def cut(scene):
    before = scene.ledger.counts["not complete"]
    scene.order("cut 1 2")
    watched(scene, CUT_SECONDS)
    assert scene.ledger.counts["not complete"] > before, "a cut link changed no verdict: was it cut?"
    scene.order("heal 1 2")
    settled(scene)


def stopped(scene):
    scene.order("stop 3")
    watched(scene, STOPPED_SECONDS)
    scene.order("cont 3")
    settled(scene)


def outage(scene):
    texts, down = scene.crowd.counts["texts"], scene.crowd.counts["losses"]
    scene.order("etcd stop")
    watched(scene, OUTAGE_SECONDS)
    more = scene.crowd.counts["texts"] - texts
    assert more > OUTAGE_SECONDS * RATE, f"{more} texts in {OUTAGE_SECONDS} s without etcd"
    equal(scene.crowd.counts["losses"] - down, 0, "connections lost while etcd was away")
    scene.order("etcd start")
    settled(scene)


def drained(scene):
    """Its clients are moved at a pace. It stays, empty, until it is told to end or to serve again."""
    scene.order("drain 5")
    node = scene.fleet.node(5)
    until(lambda: scene.look() or scene.crowd.places()[node.where()] == 0, lambda: node.ask("GET", "/v1/drain"))
    settled(scene)
    scene.order("term 5")
    until(lambda: scene.look() or not node.running(), lambda: f"it runs on:\n{node.lines[-10:]}\n{scene.line()}")
    equal(node.process.returncode, 0, "exit status of the drained node\n" + "\n".join(node.lines[-20:]))
    settled(scene)


def killed(scene):
    scene.order("kill 4")
    watched(scene, 1)
    # `fence: report`: nobody but the operator says that it is dead.
    until(lambda: scene.look() or forgotten(scene, 4), lambda: f"it cannot be forgotten: {scene.order('status')}")
    settled(scene)
    equal(len(scene.fleet.running()), 3, "nodes")


def forgotten(scene, number):
    """Whether nobody names it any more. The order is refused while the node's lease runs, and not needed where another
    one has spread it."""
    name = scene.fleet.node(number).name
    with contextlib.suppress(RuntimeError, OSError, ValueError):
        scene.order(f"forget {number}")
    return not any(name in other.cluster().get("unlinked", [name]) for other in scene.fleet.running())


def clean(scene):
    watched(scene, QUIET_SECONDS)
    finished(scene)
    equal(scene.crowd.opened(), CLIENTS, "clients that are connected")


def finished(scene):
    """No more pushes. Nothing was lost or doubled; and a change has an end, after which verdicts are complete."""
    assert scene.finish(), scene.sums()
    whole, of = scene.quiet()
    # Each change was followed by quiet, of which there was at least what `Scene` waits for.
    least = scene.pusher.rate * scene.pusher.recipients * len(scene.times) / 2
    assert of >= least, f"{of} recipients in quiet times, of at least {least}: {scene.sums()}"
    assert whole >= of * QUIET_COMPLETE_MIN, f"{whole} of {of} verdicts in quiet times are complete: {scene.sums()}"


# ---- OpenIM's push -----------------------------------------------------------------------------------------------


class Pods(Fleet):
    """Three nodes under the names of incident 2."""

    def named(self, number):
        return f"{POD}-{number - 1}"


def openim_push(checks, mode):
    """A caller that asks as OpenIM's push does; users are wherever they like, half of them with two devices."""
    with contextlib.ExitStack() as opened:
        fleet = opened.enter_context(Pods("--cluster-push-mode", mode, "--cluster-placement", f"ring {KEY}:88"))
        crowd = opened.enter_context(Crowd())
        name = f"cluster {mode}"

        def up():
            for _ in range(3):
                fleet.add()
            fleet.await_ready()
            crowd.add(crowd_of(ROUTED_USERS * 4 // 3, fleet.where, (ANDROID, WEB)))
            until(lambda: crowd.opened() == len(crowd.clients), lambda: f"{crowd.opened()} clients")

        if not checks.run(f"{name}: three pods, their users anywhere", up):
            return
        push = OpenImPush(opened, fleet, crowd)
        if mode == "route":
            routed(checks, name, push)
        else:
            broadcast(checks, name, push)


class OpenImPush:
    """`rings` are asked in turn, so two that differ are two workers of which one is stale."""

    def __init__(self, opened, fleet, crowd):
        self.fleet, self.crowd = fleet, crowd
        self.nodes = [fleet.node(number) for number in (1, 2, 3)]
        self.apis = {node.name: opened.enter_context(PushApi(node.grpc)) for node in self.nodes}
        self.users = sorted(crowd.by_user)
        self.number = 1 << 40

    def by_ring(self, user, ring):
        """OpenIM's push dials the host that its ring names; with another count of replicas that is another pod."""
        return ring.owner(user).split(".")[0]

    def send(self, where):
        """One message per user, the same to each node that `where(user)` names. Then each connection has it once."""
        told, doubles = {}, len(self.crowd.doubles)
        for user in self.users:
            self.number += 1
            told[self.number] = user
            request = push_request("sender", [user], f"#{self.number}#")
            for node in where(user):
                api = self.apis[node]
                (result,) = api.call(api.stub.SuperGroupOnlineBatchPushOneMsg, request).singlePushResult
                equal(result.userID, user, "answered user")
                yield user, node, result
        missing = lambda: [(user, number) for number, user in told.items()
                           if not all(one.got[number] for one in self.crowd.open_of(user))]
        until(lambda: not missing(), lambda: f"{len(missing())} of {len(told)} lost: {missing()[:3]}", 20)
        equal(self.crowd.doubles[doubles:], [], "doubled")


def devices(result):
    """The platforms that a result says were reached."""
    return sorted(one.RecvPlatFormID for one in result.resp if one.ResultCode == 0)


def reached_everybody(push, where):
    """0 lost, 0 doubled, and each caller is told so: once per user he asked for, and that a phone was reached."""
    for user, node, result in push.send(where):
        wanted = sorted(one.client.platform for one in push.crowd.open_of(user))
        equal(devices(result), wanted, f"devices of {user}, asked of {node}")
        equal(result.onlinePush, ANDROID in wanted, f"onlinePush of {user}, asked of {node}")


def routed(checks, name, push):
    key = lambda replicas, port: Ring(members(INSTANCE, NAMESPACE, replicas, port))
    with_port, without = key(3, 88), key(3, None)
    turn = [0]

    def one_stale(user):
        turn[0] += 1
        return [push.by_ring(user, (with_port, key(2, 88))[turn[0] % 2])]

    for case, where in [
        ("a ring with :88", lambda user: [push.by_ring(user, with_port)]),
        ("a ring without :88", lambda user: [push.by_ring(user, without)]),
        ("a ring of 2 pods where there are 3", lambda user: [push.by_ring(user, key(2, 88))]),
        ("two workers, one with a stale ring", one_stale),
    ]:
        checks.run(f"{name}: {case}: 0 lost, 0 doubled", lambda where=where: reached_everybody(push, where))
    checks.run(f"{name}: a kick and the online status by any node", lambda: any_node(push))
    checks.run(f"{name}: asked of every node: delivered once, and counted", lambda: twice_asked(push))


def any_node(push):
    user = push.users[0]
    platforms = sorted(client.platform for client in push.crowd.by_user[user])
    for node in push.nodes:
        equal(push.apis[node.name].online([user]), {user: platforms}, f"online status by {node.name}")
    victim = push.crowd.by_user[user][0]
    elsewhere = next(node for node in push.nodes if node.where() != victim.connection.address)
    push.apis[elsewhere.name].kick(victim.platform, [user])
    until(lambda: victim.connection.kicked, lambda: f"{user} was not kicked by {elsewhere.name}")


def twice_asked(push):
    counted = lambda: push.fleet.metric(ROUTE_REPEATED)
    before = counted()
    for _ in push.send(lambda _user: [node.name for node in push.nodes]):
        pass
    assert counted() > before, f"{ROUTE_REPEATED} did not count"


def broadcast(checks, name, push):
    every = [node.name for node in push.nodes]

    def by_all():
        """Over the answers of all nodes each device is named once."""
        found = {}
        for user, _node, result in push.send(lambda _user: every):
            found.setdefault(user, []).extend(devices(result))
        wanted = {user: sorted(one.client.platform for one in push.crowd.open_of(user)) for user in push.users}
        equal({user: sorted(platforms) for user, platforms in found.items()}, wanted, "devices in the answers")
        until(lambda: push.fleet.metric(LOCAL_ELSEWHERE, OTHERS_TOO) > 0, lambda: f"{OTHERS_TOO} did not count")
        equal(push.fleet.metric(LOCAL_ELSEWHERE, ONE_ONLY), 0, f"{ONE_ONLY} while every node is asked")

    def by_one():
        """A caller of the other mode: his pushes miss users, and the counter says so."""
        ring = Ring(members(INSTANCE, NAMESPACE, 3, None))
        with contextlib.suppress(TimeoutError, grpc.RpcError):
            for user in push.users:
                push.apis[push.by_ring(user, ring)].push("sender", [user], "into the wrong mode")
        until(lambda: push.fleet.metric(LOCAL_ELSEWHERE, ONE_ONLY) > 0, lambda: f"{ONE_ONLY} did not count")

    checks.run(f"{name}: every node is asked: 0 lost, 0 doubled", by_all)
    checks.run(f"{name}: one node is asked: counted with the remedy", by_one)
