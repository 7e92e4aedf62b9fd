"""A fleet of gateways over one etcd: nodes on loopback addresses of their own, started, killed, stopped, drained and cut
off from each other, without root.

What peers dial (`cluster.rpc_address`) is a relay of this process. The relay finds out which node dialled, by the socket
that the kernel names with the port: so the link between two nodes can be cut and all others left alone. What is on its
way when a link is cut is kept and delivered when it is healed, as TCP does it. With `etcd_relay` etcd is such an end, too.

Not here: clients and pushes."""

import asyncio
import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request

from gateway import Gateway
from suite_openim import ROOT  # noqa: F401 -- its path leads to tests/standin

from ports import candidates
from servers import Etcd

ASK_SECONDS = 10
ORDER_SECONDS = 30
# Shorter than the default of 10 s: what is killed is waited for.
LEASE_MS = 4_000
# Of 127.0.0.0/8; node 1 is at 127.0.7.1.
NETWORK = "127.0.7."
CHUNK_BYTES = 1 << 16
NODE_ID = "--cluster-node-id"
# In the place of a node's number: the end of a link that is no node.
ETCD = "etcd"


class Relays:
    """One port per node in front of its rpc.listen; a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.targets, self.cuts = {}, set()
        self.bytes = 0
        self.changed = asyncio.Event()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def close(self):
        async def end():
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._do(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def front(self, name):
        """host:port that peers of this node dial."""
        serve = lambda reader, writer: self._serve(name, reader, writer)
        server = self._do(asyncio.start_server(serve, "127.0.0.1", 0))
        return "127.0.0.1:%d" % server.sockets[0].getsockname()[1]

    def leads_to(self, name, host, port):
        self.targets[name] = host, port

    def cut(self, a, b):
        self._set(lambda: self.cuts.add(frozenset((a, b))))

    def heal(self, a, b):
        self._set(lambda: self.cuts.discard(frozenset((a, b))))

    def _set(self, change):
        async def apply():
            change()
            self.changed.set()
            self.changed = asyncio.Event()
        self._do(apply())

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(ASK_SECONDS)

    async def _serve(self, name, reader, writer):
        """A peer has dialled. An unknown one (a tool of the operator) is nobody's link and is never cut."""
        peer = owner(writer.get_extra_info("peername"))
        link = frozenset((name, peer))
        back = None
        try:
            await self._whole(link)
            there, back = await asyncio.open_connection(*self.targets[name])
            for one in (writer, back):
                one.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ways = [self._copy(link, reader, back), self._copy(link, there, writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the node is away: whoever dialled sees the connection end; or this is the end of the fleet
        finally:
            for one in (writer, back):
                if one:
                    one.close()

    async def _copy(self, link, reader, writer):
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self._whole(link)
                self.bytes += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # either end was reset
        # The end of a stream does not pass a cut either.
        await self._whole(link)

    async def _whole(self, link):
        while link in self.cuts:
            await self.changed.wait()


def owner(peername):
    """The node id of the gateway of ours that has the socket with this address; None: it is not one of ours."""
    host, port = peername[:2]
    wanted = "%08X:%04X" % (int.from_bytes(socket.inet_aton(host), "little"), port)
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == wanted and row[9] != "0"}
    for name, pid in gateways():
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # the process is gone
        for number in numbers:
            try:
                if os.readlink(f"/proc/{pid}/fd/{number}") in sockets:
                    return name
            except OSError:
                continue  # closed meanwhile
    return None


def gateways():
    """(node id, process id) of the gateways that this process has started, also of one that is still starting."""
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children", encoding="ascii") as children:
                pids = children.read().split()
        except OSError:
            continue  # the thread has ended
        for pid in pids:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().decode(errors="replace").split("\0")
            except OSError:
                continue
            if NODE_ID in words[:-1]:
                yield words[words.index(NODE_ID) + 1], pid


def free_port(host):
    """A port that is free now and none of those that outgoing connections take."""
    for port in candidates():
        with socket.socket() as tried:
            try:
                tried.bind((host, port))
                return port
            except OSError:
                continue
    raise RuntimeError(f"no free port on {host}")


class Node(Gateway):
    """One gateway of the fleet. `drained` says that it was told to leave."""

    def __init__(self, name, host, ports, *flags):
        self.name, self.host = name, host
        # Known before it starts: it must be reachable for peers before it can be ready.
        self.WEBSOCKET_PORT, self.rpc_port = ports or (free_port(host), free_port(host))
        self.RPC_LISTEN = f"{host}:{self.rpc_port}"
        self.drained = self.stopped = False
        super().__init__(1, "--websocket-address", host, *flags)

    def where(self):
        host, _, port = self.websocket.removeprefix("ws://").strip("/").rpartition(":")
        return host, int(port)

    def running(self):
        return self.process.poll() is None

    def takes(self):
        """Whether a client would be sent here."""
        return self.running() and not self.drained and not self.stopped

    def ask(self, method, path, seconds=ASK_SECONDS):
        """The answer's text; a refusal raises with what it says."""
        request = urllib.request.Request(self.http + path, method=method, data=b"" if method == "POST" else None)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as fault:
            raise RuntimeError(f"{self.name}: {method} {path}: {fault.read().decode().strip()}") from fault

    def cluster(self):
        """What it says of the cluster, or why it does not."""
        try:
            return json.loads(self.ask("GET", "/v1/cluster"))
        except (OSError, RuntimeError, ValueError) as fault:
            return {"error": str(fault)}

    def close(self):
        """Ends it, stopped or not."""
        if self.running():
            self.process.kill()
        self.process.wait()


class Fleet:
    """`with Fleet() as fleet:`; nodes are numbered from 1 and never renumbered. `flags` go to every node. Fleets that run
    beside each other need networks of their own."""

    def __init__(self, *flags, relays=True, source="etcd", lease_ms=LEASE_MS, etcd_relay=False, network=NETWORK):
        self.flags, self.with_relays, self.source, self.lease_ms = flags, relays, source, lease_ms
        self.etcd_relay, self.network = etcd_relay, network
        self.nodes = {}
        self.relays = self.etcd = self.etcd_address = None
        self.fronts = {}
        self.turn = 0

    def __enter__(self):
        self.etcd = Etcd().__enter__() if self.source == "etcd" else None
        self.relays = Relays() if self.with_relays else None
        self.etcd_address = self.etcd and self.etcd.address
        if self.etcd_relay:
            host, port = self.etcd.address.split(":")
            self.relays.leads_to(ETCD, host, int(port))
            self.etcd_address = self.relays.front(ETCD)
        return self

    def __exit__(self, *_):
        for node in self.nodes.values():
            node.close()
        if self.relays:
            self.relays.close()
        if self.etcd:
            self.etcd.__exit__()

    def node(self, number):
        if number not in self.nodes:
            raise ValueError(f"no node {number}; there are {sorted(self.nodes)}")
        return self.nodes[number]

    def add(self, number=None, *flags):
        """Starts a node, or one of a number that has ended again, at its addresses. Returns it; it may not be ready
        yet."""
        number = number or max(self.nodes, default=0) + 1
        before = self.nodes.get(number)
        if before and before.running():
            raise ValueError(f"node {number} is running")
        name = self.named(number)
        ports = before and (before.WEBSOCKET_PORT, before.rpc_port)
        node = Node(name, f"{self.network}{number}", ports, *self.flags, *flags)
        node.flags += self._flags(node)
        if self.relays:
            if name not in self.fronts:
                self.fronts[name] = self.relays.front(name)
            self.relays.leads_to(name, node.host, node.rpc_port)
            node.flags += ("--cluster-rpc-address", self.fronts[name])
        self.nodes[number] = node.__enter__()
        return node

    def _flags(self, node):
        if self.source == "none":
            return ()
        url = f"ws://{node.host}:{node.WEBSOCKET_PORT}/"
        return (NODE_ID, node.name, "--cluster-ws-url", url, "--cluster-source", "etcd", "--cluster-lease-ms",
                str(self.lease_ms), "--discovery-etcd-addresses", self.etcd_address)

    def named(self, number):
        """The node id of this number."""
        return f"n{number}"

    def running(self):
        return [node for node in list(self.nodes.values()) if node.running()]

    def await_ready(self):
        """Until all that run say that they are ready."""
        for node in self.running():
            node.await_ready()

    def where(self, _client):
        """Where the next client goes: in turn over the nodes that take some."""
        nodes = [node for node in list(self.nodes.values()) if node.takes()]
        if not nodes:
            return None
        self.turn += 1
        return nodes[self.turn % len(nodes)].where()

    # ---- orders --------------------------------------------------------------------------------------------------

    def kill(self, number):
        self.node(number).process.kill()
        self.node(number).process.wait()

    def stop(self, number):
        node = self.node(number)
        node.stopped = True
        node.process.send_signal(signal.SIGSTOP)

    def cont(self, number):
        node = self.node(number)
        node.process.send_signal(signal.SIGCONT)
        node.stopped = False

    def drain(self, number):
        node = self.node(number)
        said = node.ask("POST", "/v1/drain", ORDER_SECONDS)
        node.drained = True
        return said

    def cancel(self, number):
        """It serves again."""
        node = self.node(number)
        said = node.ask("POST", "/v1/drain/cancel", ORDER_SECONDS)
        node.drained = False
        return said

    def term(self, number):
        """SIGTERM: it leaves within drain.deadline_ms."""
        node = self.node(number)
        node.drained = True
        node.process.send_signal(signal.SIGTERM)

    def forget(self, number):
        """The operator's word that a node is dead, given to all that live and still name it."""
        name = self.node(number).name
        if self.node(number).running():
            raise ValueError(f"{name} is running; `kill {number}` first")
        told = []
        for other in self.running():
            if other.stopped:
                continue
            members = other.cluster().get("members", [])
            lives = [one.get("greeted") or one["incarnation"] for one in members if one["node_id"] == name]
            if not lives:
                continue
            try:
                said = other.ask("POST", f"/v1/forget?node={name}&incarnation={lives[0]}", ORDER_SECONDS).strip()
                told.append(f"{other.name}: {said}")
            except RuntimeError as fault:
                if not told:
                    raise
                told.append(str(fault))  # it has heard of it from the first one, by the source
        if not told:
            raise ValueError(f"no node that runs has {name} among its members")
        return "\n".join(told)

    def cut(self, a, b):
        self._link(a, b, Relays.cut)

    def heal(self, a, b):
        self._link(a, b, Relays.heal)

    def _link(self, a, b, order):
        if self.relays is None or (ETCD in (a, b) and not self.etcd_relay):
            raise ValueError("there is no relay between them")
        if a == b:
            raise ValueError("a link has two ends")
        order(self.relays, *(end if end == ETCD else self.node(end).name for end in (a, b)))

    def metric(self, family, label=""):
        """Over the nodes that answer."""
        return sum(node.metric(family, label) for node in self.running() if not node.stopped)

