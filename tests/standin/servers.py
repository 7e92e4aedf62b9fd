"""A real etcd and a real Redis on free loopback ports with data of their own, which is gone afterwards (Debian's
packages etcd-server and redis-server). They die with the thread that started them."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time

from ports import candidates

START_SECONDS = 60
# By setpriv: a `preexec_fn` has Python fork, and gRPC's handlers of a fork abort the child now and then.
WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"]


class Server:
    """`with Etcd() as etcd:`; `address` is host:port. `stop` and `start` keep address and data."""

    PORTS = 1

    def __enter__(self):
        self.process = None
        free = candidates()
        while True:
            self.data = tempfile.mkdtemp(prefix="pinion-servers-")
            self.ports, free = free[:self.PORTS], free[self.PORTS:]
            self.address = f"127.0.0.1:{self.ports[0]}"
            try:
                self.start()
                return self
            except RuntimeError:  # perhaps the port is taken
                self.__exit__()
                if len(free) < self.PORTS:
                    raise

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)

    def start(self):
        """Raises RuntimeError with the end of its log if it does not serve."""
        with open(f"{self.data}/log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*WITH_PARENT, *self.command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            if self.serves():
                return
            time.sleep(0.02)
        status = self.process.poll()
        self.stop()
        ended = "serves nobody" if status is None else f"ended with {status}"
        with open(f"{self.data}/log", encoding="utf-8") as log:
            raise RuntimeError(f"{self.command()[0]} {ended}:\n{log.read()[-2000:]}")

    def stop(self, how=signal.SIGKILL):
        if self.process:
            self.process.send_signal(how)
            self.process.wait()

    def pause(self):
        """It keeps its connections and answers nothing, until `resume`."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def talk(self, question):
        """Some bytes of its answer; none if it does not answer."""
        try:
            with socket.create_connection(("127.0.0.1", self.ports[0]), timeout=1) as connection:
                connection.sendall(question)
                return connection.recv(4096)
        except OSError:
            return b""


class Etcd(Server):
    """One member; the second port is for peers."""

    PORTS = 2

    def command(self):
        client, peer = (f"http://127.0.0.1:{port}" for port in self.ports)
        return [
            "etcd", "--data-dir", f"{self.data}/etcd",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
            # A member of one waits for nobody: leases and watches then start within a fraction of a second.
            "--heartbeat-interval", "10", "--election-timeout", "100",
        ]

    def forget(self):
        """Comes back at once without its data: leases, keys and watches are gone."""
        self.stop()
        shutil.rmtree(f"{self.data}/etcd")
        self.start()

    def serves(self):
        return b'"true"' in self.talk(b"GET /health HTTP/1.0\r\n\r\n")


class Redis(Server):
    """In memory only."""

    def command(self):
        return ["redis-server", "--port", str(self.ports[0]), "--bind", "127.0.0.1", "--save", "", "--dir", self.data]

    def serves(self):
        return self.talk(b"PING\r\n").startswith(b"+PONG")
