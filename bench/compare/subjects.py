"""Who is measured: Pinion in each of its engines, the peers, the bounds. Starting, finding and ending their processes.

What always holds: a server is started alone on its CPU(s), by one command that is kept for the report, and has ended
when `Server.end` returns. One that does not start raises `NotStarted`; nobody else's process is ever signalled.
"""

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PINION = os.path.join(ROOT, "target/release/pinion")
START = os.path.join(ROOT, "bench/peers/start.sh")
# The first start of a peer may install it.
START_S = 300
END_S = 10

# Limits that protect a gateway from crowds are lifted, as in bench/push: they are not what is measured.
GATEWAY = [
    "--websocket-address=127.0.0.1", "--http-listen=127.0.0.1:0", "--log-level=warn",
    "--websocket-accepts-per-second-max=0", "--login-spread-ms=0",
    "--requests-frames-per-s=1000000", "--requests-calls-per-s=1000000",
    "--outbox-frames-max=65536", "--outbox-bytes-max=64MiB", "--outbox-shard-bytes-max=4GiB",
]
ENGINES = {
    "ring": ["--shards-driver=io_uring", "--shards-engine=ring"],
    "task": ["--shards-driver=io_uring", "--shards-engine=task"],
    "epoll": ["--shards-driver=epoll"],
}


class NotStarted(Exception):
    """A server that cannot be measured, and why."""


@dataclass(frozen=True)
class Subject:
    """Somebody to measure. `dialect` is what scripts/peer.lua is told."""

    name: str
    kind: str  # pinion, peer, bound
    dialect: str

    def start(self, cpus, shards=1):
        """Starts it and waits until it accepts connections.

        Raises NotStarted, with the end of what it said.
        """
        port, rpc = free_port(), free_port()
        if self.kind == "pinion":
            command = ["taskset", "-c", cpus, PINION, *GATEWAY, f"--websocket-port={port}",
                       f"--rpc-listen=127.0.0.1:{rpc}", f"--shards-count={shards}", "--shards-rpc-count=1",
                       *ENGINES[self.name.removeprefix("pinion-")]]
        else:
            command = [START, self.name, "--port", str(port), "--cpu", cpus]
        log = os.path.join(ROOT, "work/bench", f"{self.name}.log")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PINION_")}
        with open(log, "wb") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT,
                                       env=environment, start_new_session=True)
        server = Server(self, process, port, rpc, command)
        deadline = time.monotonic() + START_S
        while not accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                server.end()
                with open(log, encoding="utf-8", errors="replace") as said:
                    raise NotStarted(f"{self.name}: {said.read()[-400:].strip() or 'ended without a word'}")
            time.sleep(0.05)
        return server

    def version(self):
        """One line, or why there is none."""
        command = [PINION, "--version"] if self.kind == "pinion" else [START, self.name, "--version"]
        try:
            out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=START_S, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            return f"unknown: {error}"
        return (out.stdout.strip().splitlines() or ["?"])[-1]


@dataclass
class Server:
    """A running one."""

    subject: Subject
    process: subprocess.Popen
    port: int
    rpc: int
    command: list

    def pids(self):
        """All its processes: nginx has a worker beside the master."""
        found = [self.process.pid]
        for pid in found:
            try:
                with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
                    found += [int(child) for child in children.read().split()]
            except OSError:
                continue  # it has just ended
        return found

    def url(self, scenario):
        """Where clients connect."""
        path = ("/echo" if scenario == "echo" else "/all") if self.subject.dialect == "nchan" else "/"
        return f"ws://127.0.0.1:{self.port}{path}"

    def end(self):
        """Ends the whole session that `start` made, at once: there is nothing to save."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(timeout=END_S)


SUBJECTS = [
    *(Subject(f"pinion-{engine}", "pinion", "pinion") for engine in ENGINES),
    Subject("uwebsockets", "peer", "raw"),
    Subject("nchan", "peer", "nchan"),
    Subject("fastwebsockets", "peer", "raw"),
    Subject("tokio-tungstenite", "peer", "raw"),
    Subject("node-ws", "peer", "raw"),
    Subject("nats", "peer", "nats"),
    Subject("send-loop", "bound", "raw"),
    Subject("ring-loop", "bound", "raw"),
]


def free_port():
    """A port that nobody listens on now, outside the range that clients' ends are taken from."""
    while True:
        port = 20000 + int.from_bytes(os.urandom(2), "big") % 10000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def accepts(port):
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
