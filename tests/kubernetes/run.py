#!/usr/bin/env python3
"""Gateways and a real kube-apiserver: the roles of tuning/kubernetes are enough and no more is asked for; pods become members,
stay so without the API server, and leave; OpenIM's services are found. Front: scripts/kubernetes.sh.
With the word `discovery` it looks for services only.

What controllers and kubelets would do, this script does: it makes and deletes pods, and writes endpoints."""

import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[1:1] = [os.path.join(ROOT, "tests", "clients"), os.path.join(ROOT, "tests", "standin")]

from checks import Checks, equal, until  # noqa: E402 -- after the path
from gateway import Gateway  # noqa: E402
from nodes import LEASE_MS, NODE_ID, Fleet  # noqa: E402
from scene import Scene  # noqa: E402
from suite_cluster import SETTLE_SECONDS, begun, settled  # noqa: E402

from apiserver import BINARY, ApiServer, Refused  # noqa: E402

NAMESPACE = "im"
LABELS = {"app.kubernetes.io/name": "pinion"}
SELECTOR = "app.kubernetes.io/name=pinion"
MANIFESTS = os.path.join(ROOT, "tuning", "kubernetes")
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
CLIENTS, RATE, RECIPIENTS = 300, 40, 4
# scripts/kubernetes.sh gives them to the loopback interface of its network namespace.
ADDRESS, OTHER_ADDRESS = "203.0.113.1", "203.0.113.2"
SERVICES = {"auth": "auth-rpc-service", "user": "user-rpc-service", "msg": "msg-rpc-service", "push": "push-rpc-service"}


class Pods(Fleet):
    """A fleet whose nodes are pods. A node's pod is made before it starts, and stays until it is deleted."""

    def __init__(self, server, *flags):
        super().__init__("--cluster-fence", "report", *flags, source="kubernetes")
        self.server = server

    def _flags(self, node):
        if node.name not in self.server.pods(NAMESPACE):
            self.server.pod(NAMESPACE, node.name, LABELS, node.host)
        url = f"ws://{node.host}:{node.WEBSOCKET_PORT}/"
        return (NODE_ID, node.name, "--cluster-ws-url", url, "--cluster-source", "kubernetes", "--cluster-selector",
                SELECTOR, "--cluster-lease-ms", str(LEASE_MS), "--discovery-service-account",
                self.server.mounted(NAMESPACE, "pinion"))


def applied(server, name):
    """What kubectl takes of a manifest, as it stands there. Workloads need a newer server (preStop's `sleep` is of 1.30), and
    here no controller would make pods of them; tests/host has them judged by the schemas."""
    with open(os.path.join(MANIFESTS, name), encoding="utf-8") as file:
        documents = file.read().split("\n---\n")
    for document in documents:
        if not re.search(r"^kind: (Deployment|StatefulSet|DaemonSet)$", document, re.M):
            said = server.kubectl("apply", "--namespace", NAMESPACE, "-f", "-", "--validate=false", text=document)
            assert re.search("created|configured|unchanged", said), said


def manifests(server):
    """Accounts, roles and services of tuning/kubernetes."""
    server.namespace(NAMESPACE)
    for name in ("deployment-openim-main.yaml", "cluster-members.yaml", "statefulset-openim-3.5.yaml"):
        applied(server, name)
    may = lambda *what: server.kubectl("auth", "can-i", *what, "--namespace", NAMESPACE, "--as",
                                       f"system:serviceaccount:{NAMESPACE}:pinion", fails=True).strip()
    equal(may("update", "leases"), "yes", "leases")
    equal(may("list", "pods"), "yes", "pods")
    equal(may("delete", "pods"), "no", "pods are not deleted")
    equal(may("get", "secrets"), "no", "secrets")


# ---- members -----------------------------------------------------------------------------------------------------


def leases(server):
    return {lease["metadata"]["name"] for lease in server.read(LEASES)["items"]}


def states(node):
    return {member["node_id"]: member["state"] for member in node.cluster().get("members", [])}


def watched(scene, server, condition, why):
    """Waits for a condition while pushes go on."""
    until(lambda: scene.look() or condition(), lambda: f"{why}; leases {leases(server)}\n{scene.order('status')}",
          SETTLE_SECONDS)


def grown(scene, server):
    begun(scene, 3)
    equal(leases(server), {"pinion-n1", "pinion-n2", "pinion-n3"}, "leases")
    lease = server.read(f"{LEASES}/pinion-n1")
    equal([owner["name"] for owner in lease["metadata"]["ownerReferences"]], ["n1"], "it goes with its pod")


def away(scene, server):
    """The API server does not answer for longer than a lease; then it does."""
    before = scene.ledger.counts["texts"], scene.crowd.counts["losses"]
    server.pause()
    scene._changes("API server away")
    try:
        node = scene.fleet.node(1)
        watched(scene, FakeLeases, lambda: not node.cluster().get("fit", True), "still fit without the API server")
        equal(scene.crowd.counts["losses"], before[1], "connections lost meanwhile")
    finally:
        server.resume()
    scene._changes("API server back")
    settled(scene)


class FakeLeases:
    """While the server is away nothing can be asked of it."""

    @staticmethod
    def read(_path):
        return {"items": []}


def restarted(scene, server):
    """The API server ends and comes back with its data: versions go on."""
    server.stop()
    server.start()
    scene._changes("API server restarted")
    settled(scene)
    fits = [node.cluster().get("fit") for node in scene.fleet.running()]
    equal(fits, [True] * 3, "fit")


def denied(scene, server):
    """The role is taken away: a node says what it may not; with the role back it is fit again."""
    server.kubectl("delete", "rolebinding", "pinion-members", "--namespace", NAMESPACE)
    node = scene.fleet.node(1)
    watched(scene, server, lambda: any("403" in line or "forbidden" in line for line in node.lines), "says nothing of it")
    applied(server, "cluster-members.yaml")
    scene._changes("role given back")
    watched(scene, server, lambda: all(one.cluster().get("fit") for one in scene.fleet.running()), "not fit again")
    settled(scene)


def left(scene, server):
    """SIGTERM: the lease goes with the node."""
    scene.order("term 3")
    equal(scene.fleet.node(3).process.wait(SETTLE_SECONDS), 0, "exit status")
    watched(scene, server, lambda: leases(server) == {"pinion-n1", "pinion-n2"}, "its lease is there")
    settled(scene)
    server.delete_pod(NAMESPACE, "n3")


def killed(scene, server):
    """kill -9: lost after its lease; dead, and forgotten by all, once its pod is deleted."""
    scene.order("kill 2")
    first = scene.fleet.node(1)
    watched(scene, server, lambda: states(first).get("n2") == "lost", f"n2 is not lost: {states(first)}")
    server.delete_pod(NAMESPACE, "n2")
    watched(scene, server, lambda: "n2" not in states(first), f"n2 is still a member: {states(first)}")
    settled(scene)


def again(scene, server):
    """The pod's successor of the same name, as a StatefulSet makes it: another life."""
    scene.order("add 2")
    node = scene.fleet.node(2)
    node.await_ready()
    settled(scene)
    equal(leases(server), {"pinion-n1", "pinion-n2"}, "leases")


def clean(scene, _server):
    good = scene.finish()
    assert good, scene.sums()
    counts = scene.ledger.counts
    assert counts["complete"] > counts["recipients"] / 3, scene.sums()


def members(checks, server):
    with Scene(Pods(server), CLIENTS, RATE, RECIPIENTS) as scene:
        for name, step in {
            "three pods, their leases and clients": grown,
            "the API server is away for longer than a lease": away,
            "the API server is restarted": restarted,
            "the role is taken away and given back": denied,
            "a node leaves": left,
            "a node is killed, its pod deleted": killed,
            "a pod of the same name": again,
            "nothing lost, nothing doubled": clean,
        }.items():
            good = checks.run(f"kubernetes: {name}", lambda s=step: s(scene, server))
            print("  " + scene.line(), flush=True)
            if not good:
                return
        print("  " + scene.sums().replace("\n", "\n  "), flush=True)


# ---- discovery ---------------------------------------------------------------------------------------------------


class Reachable(Gateway):
    """At an address that endpoints may have: Kubernetes refuses loopback ones."""

    RPC_LISTEN = f"{ADDRESS}:0"


def discovered(server):
    """By the role of deployment-openim-main.yaml, which may list and watch five names and nothing else."""
    account = server.mounted(NAMESPACE, "pinion")
    try:
        server.ask("GET", f"/api/v1/namespaces/{NAMESPACE}/endpoints", token=server.token_of(NAMESPACE, "pinion"))
        raise AssertionError("the role may list all endpoints: nothing is shown by what follows")
    except Refused as fault:
        equal(fault.code, 403, "all endpoints")
    with Reachable(1, "--rpc-allow", f"{ADDRESS}/32") as anybody:
        port = int(anybody.grpc.rpartition(":")[2])
        flags = ("--backend", "openim", "--discovery-kind", "kubernetes", "--discovery-service-account", account,
                 "--discovery-namespace", NAMESPACE, "--redis-addresses", "127.0.0.1:1")
        for service in SERVICES.values():
            server.endpoints(NAMESPACE, service, [(ADDRESS, port)])
        with Gateway(1, *flags) as gateway:
            seen = lambda family, kind: gateway.metric(f"pinion_upstream_{family}", f'service="{kind}"')
            until_seen = lambda family, kind, count: until(
                lambda: seen(family, kind) == count,
                lambda: f"{family} {kind}: {seen(family, kind)}\n" + "\n".join(gateway.lines[-20:]))
            for kind in SERVICES:
                until_seen("ready", kind, 1)
            gateway.await_ready()
            # The watch tells of a second instance, and of what happened while there was no server to watch.
            server.endpoints(NAMESPACE, SERVICES["push"], [(ADDRESS, port), (OTHER_ADDRESS, port)])
            until_seen("endpoints", "push", 2)
            server.stop()
            server.start()
            server.endpoints(NAMESPACE, SERVICES["push"], [(ADDRESS, port)])
            until_seen("endpoints", "push", 1)


def main():
    checks = Checks()
    with ApiServer() as server:
        os.environ["KUBERNETES_SERVICE_HOST"] = "127.0.0.1"
        os.environ["KUBERNETES_SERVICE_PORT"] = str(server.ports[0])
        print(subprocess.check_output([BINARY, "--version"], text=True).strip(), flush=True)
        if checks.run("kubernetes: kubectl takes the manifests, the account may what it needs and no more",
                      lambda: manifests(server)):
            if "discovery" not in sys.argv[1:]:
                members(checks, server)
            checks.run("kubernetes: services are found by endpoints, by names that the role allows",
                       lambda: discovered(server))
    return checks.close("kubernetes")


if __name__ == "__main__":
    sys.exit(main())
