#!/usr/bin/env python3
"""User memory of a gateway per idle OpenIM connection, as the slope between two crowds.

    bench/memory.py [--binary target/release/pinion] [--sizes 2000,16000] [--runs 3] [-- --driver epoll ...]

Each client logs in as a user of its own, with a token as OpenIM issues it, and then does nothing. What is reported:
anonymous and resident bytes of the gateway per connection between the two sizes (the base of the process is in neither),
what is left when all have gone, and what a second crowd of the same size adds to that. Kernel memory of the sockets is
not in these figures. The last crowd must be held for less than the read deadline (30 s): nobody pings.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time

SECRET = b"openIM123"
PLATFORM = 2
FLAGS = [
    "--websocket-address", "127.0.0.1", "--websocket-port", "0", "--rpc-listen", "127.0.0.1:0",
    "--http-listen", "127.0.0.1:0", "--log-level", "error", "--websocket-accepts-per-second-max", "0",
    "--login-spread-ms", "0",
]
SETTLE_S = 3.0


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(user):
    now = int(time.time())
    claims = {"UserID": user, "PlatformID": PLATFORM, "exp": now + 90 * 86400, "iat": now - 5}
    head = base64url(b'{"alg":"HS256","typ":"JWT"}')
    body = head + b"." + base64url(json.dumps(claims, separators=(",", ":")).encode())
    return (body + b"." + base64url(hmac.new(SECRET, body, hashlib.sha256).digest())).decode()


def log_in(address, user):
    query = f"sendID={user}&token={token(user)}&platformID={PLATFORM}&operationID=memory&isBackground=false&sdkType=js"
    client = socket.create_connection(address)
    client.sendall(
        f"GET /?{query} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    answer = client.recv(4096)
    if not answer.startswith(b"HTTP/1.1 101"):
        sys.exit(f"{user} was not let in: {answer[:200]!r}")
    return client


class Gateway:
    def __init__(self, binary, flags):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PINION_")}
        self.process = subprocess.Popen([binary, *FLAGS, *flags], stdout=subprocess.PIPE, text=True, env=environment)
        self.engine, self.address = "", None
        for line in self.process.stdout:
            if line.startswith("engine"):
                self.engine = line.split(None, 1)[1].strip()
            if line.startswith("websocket"):
                host, port = line.split()[1].removeprefix("ws://").split("/")[0].rsplit(":", 1)
                self.address = (host, int(port))
            if line.strip() == "ready":
                return
        sys.exit("the gateway has not started")

    def memory(self):
        """(anonymous, resident) bytes."""
        kib = {}
        with open(f"/proc/{self.process.pid}/smaps_rollup") as lines:
            for line in lines:
                words = line.split()
                if len(words) == 3 and words[2] == "kB":
                    kib[words[0]] = int(words[1])
        return kib["Anonymous:"] * 1024, kib["Rss:"] * 1024

    def settled(self):
        time.sleep(SETTLE_S)
        return self.memory()


def run(options):
    gateway = Gateway(options.binary, options.flags)
    try:
        small, large = options.sizes
        clients = [log_in(gateway.address, f"memory-{n:08}") for n in range(small)]
        first = gateway.settled()
        clients += [log_in(gateway.address, f"memory-{n:08}") for n in range(small, large)]
        full = gateway.settled()
        for client in clients:
            client.close()
        left = gateway.settled()
        clients = [log_in(gateway.address, f"memory-{n:08}") for n in range(large)]
        again = gateway.settled()
        for client in clients:
            client.close()
        return gateway.engine, {
            "anonymous B/connection": (full[0] - first[0]) / (large - small),
            "resident B/connection": (full[1] - first[1]) / (large - small),
            "anonymous MiB, few": first[0] / 2**20,
            "anonymous MiB, all": full[0] / 2**20,
            "anonymous MiB, all gone": left[0] / 2**20,
            "anonymous MiB, all again": again[0] / 2**20,
        }
    finally:
        gateway.process.kill()
        gateway.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/pinion")
    parser.add_argument("--sizes", default="2000,16000", type=lambda text: tuple(map(int, text.split(","))))
    parser.add_argument("--runs", default=3, type=int)
    parser.add_argument("flags", nargs="*", help="of the gateway, after --")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    runs = []
    for _ in range(options.runs):
        engine, figures = run(options)
        runs.append(figures)
    print(f"{options.binary}: {engine}; {options.sizes[0]} and {options.sizes[1]} connections, {options.runs} runs")
    for name in runs[0]:
        values = [figures[name] for figures in runs]
        print(f"  {name:26} {statistics.median(values):10.1f}   ({min(values):.1f} to {max(values):.1f})")


main()
