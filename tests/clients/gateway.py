"""A real gateway process under test: started on free loopback ports, addressed by its banner, ended by its pid."""

import base64
import hashlib
import hmac
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

from checks import until

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BINARY = os.environ.get("GATEWAY_BIN", os.path.join(ROOT, "target", "release", "pinion"))
START_SECONDS = 60
STOP_SECONDS = 60
SECRET = "tests/clients"


class Gateway:
    """`with Gateway(shards=2) as gateway:`; the addresses are `websocket` (URL), `grpc` (host:port) and `http` (URL)."""

    # What a failure calls it.
    name = "the gateway"
    RPC_LISTEN = "127.0.0.1:0"
    WEBSOCKET_PORT = 0

    def __init__(self, shards, *flags):
        self.shards = shards
        self.flags = flags
        self.lines = []

    def __enter__(self):
        command = [BINARY, "--websocket-port", str(self.WEBSOCKET_PORT), "--rpc-listen", self.RPC_LISTEN]
        command += ["--http-listen", "127.0.0.1:0", "--shards-count", str(self.shards), "--shards-pin", "false"]
        command += ["--auth-secret", SECRET]
        command += self.flags
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        ready = queue.Queue()
        threading.Thread(target=self._read, args=(ready,), daemon=True).start()
        try:
            if not ready.get(timeout=START_SECONDS):
                raise RuntimeError("the gateway ended before it was ready")
        except (queue.Empty, RuntimeError) as fault:
            self.process.kill()
            raise RuntimeError("no gateway:\n" + "\n".join(self.lines)) from fault
        self.engine = self._banner("engine", r"(.+)")
        self.websocket = self._banner("websocket", r"(ws://\S+)")
        self.grpc = self._banner("grpc", r"(\S+:\d+)")
        self.http = self._banner("http", r"(http://[^/\s]+)")
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """SIGTERM, then the exit status; None if it had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def await_online(self, user, platform):
        """Until services know that a user is here. The embedded backend reads the shards' own state."""

    def ready(self):
        """Whether /readyz says so."""
        try:
            with urllib.request.urlopen(self.http + "/readyz", timeout=60) as answer:
                return answer.status == 200
        except urllib.error.HTTPError:
            return False

    def await_ready(self):
        """Until /readyz says so; else the end of its log."""
        until(self.ready, lambda: f"{self.name} is not ready:\n" + "\n".join(self.lines[-20:]))

    def metric(self, family, label=""):
        """The sum of a family's series, or of those that have this label, like `outcome="ok"`."""
        with urllib.request.urlopen(self.http + "/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        ours = [line for line in lines if re.match(rf"{family}[ {{]", line) and label in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in ours)

    def token(self, user, platform, days=90):
        """A login token, made by `pinion token`. Other `days` give another token for the same login."""
        command = [BINARY, "token", "--user", user, "--platform", str(platform), "--ttl", str(days)]
        environment = dict(os.environ, PINION_AUTH_SECRET=SECRET)
        made = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=True)
        return made.stdout.strip()

    def _read(self, ready):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.strip() == "ready":
                ready.put(True)
        ready.put(False)

    def _banner(self, name, pattern):
        for line in self.lines:
            found = re.match(rf"{name}\s+{pattern}", line)
            if found:
                return found.group(1)
        raise RuntimeError(f"the banner names no {name} address:\n" + "\n".join(self.lines))


def expired_token(user, platform):
    """A token that was good once: no command makes one, so it is signed here (spec 7.1)."""
    now = int(time.time())
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
    claims = {"UserID": user, "PlatformID": platform, "exp": now - 60, "iat": now - 3600}
    signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(claims)
    signature = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()
