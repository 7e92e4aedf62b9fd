#!/usr/bin/env python3
"""Runs every script of this folder for a second against a real gateway, and checks what the generator counted against
what the gateway counted.

    bench/scripts/smoke.py [--gateway target/release/pinion] [--bench target/release/pinion-bench]

Each scenario has a gateway of its own, so that `/metrics` counts from 0. echo.lua, which is for any WebSocket server,
gets an echo server of this file. A script of the folder that is not listed here is a failure. Both benchmarks of
../openim.py run for a second each, their counts compared with those of the services. No figure of speed is judged.
"""

import argparse
import base64
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))

import openim  # noqa: E402

START_SECONDS = 60
# Metrics are published a moment after the work was done.
AGREE_SECONDS = 30
RUN_SECONDS = 120

passed = failed = 0


def check(name, ok, why=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(f"{name}: {'ok' if ok else f'FAILED: {why}'}", flush=True)


class Gateway:
    """A gateway on free ports, without the limits that protect one from crowds."""

    def __init__(self, binary):
        flags = ["--websocket-address=127.0.0.1", "--websocket-port=0", "--rpc-listen=127.0.0.1:0",
                 "--http-listen=127.0.0.1:0", "--log-level=error", "--websocket-accepts-per-second-max=0",
                 "--login-spread-ms=0"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PINION_")}
        self.process = subprocess.Popen([binary, *flags], stdout=subprocess.PIPE, text=True, env=clean)
        watchdog = threading.Timer(START_SECONDS, self.process.kill)
        watchdog.start()
        banner = []
        for line in self.process.stdout:
            banner.append(line)
            if line == "ready\n":
                break
        watchdog.cancel()
        text = "".join(banner)
        address = lambda name: re.search(rf"^{name}\s+(?:\w+://)?([\d.]+:\d+)", text, re.M).group(1)
        self.websocket, self.grpc, self.http = address("websocket"), address("grpc"), address("http")
        # What it says later must not fill the pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def metric(self, family, label=""):
        """The sum of all series of a family whose labels contain this."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        series = re.findall(rf"^{family}(\{{[^}}]*\}})? (\S+)$", text, re.M)
        return int(sum(float(value) for labels, value in series if label in labels))

    def agrees(self, name, expected, family, label=""):
        until = time.monotonic() + AGREE_SECONDS
        while (seen := self.metric(family, label)) != expected and time.monotonic() < until:
            time.sleep(0.05)
        check(name, seen == expected, f"{family} {label} is {seen}, the generator counted {expected}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Echo:
    """A WebSocket server that sends each message back; messages below 64 KiB in one frame each."""

    def __init__(self):
        self.messages = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        stream = client.makefile("rb")
        key = None
        while (line := stream.readline().strip()):
            name, _, value = line.partition(b":")
            key = value.strip() if name.lower() == b"sec-websocket-key" else key
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        try:
            while len(head := stream.read(2)) == 2:
                opcode, size = head[0] & 15, head[1] & 127
                size = struct.unpack("!H", stream.read(2))[0] if size == 126 else size
                mask, body = stream.read(4), stream.read(size)
                body = bytes(byte ^ mask[n % 4] for n, byte in enumerate(body))
                if opcode == 8:
                    break
                with self.lock:
                    self.messages += opcode in (1, 2)
                opcode = 10 if opcode == 9 else opcode
                size = bytes([len(body)]) if len(body) < 126 else b"\x7e" + struct.pack("!H", len(body))
                client.sendall(bytes([0x80 | opcode]) + size + body)
        except OSError:
            pass
        client.close()


def run(bench, script, url, options, arguments=()):
    """One run; the JSON of it, with the report under `report`."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run.json")
        command = [bench, "-s", str(HERE / script), "--json", out, "--quiet", "--latency", *options, url]
        done = subprocess.run(command + (["--", *arguments] if arguments else []), capture_output=True, text=True,
                              timeout=RUN_SECONDS)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        with open(out, encoding="utf-8") as file:
            return {**json.load(file), "report": done.stdout}


def errors(result):
    """How many there were, of all kinds."""
    return sum(sum(kind.values()) if isinstance(kind, dict) else kind for kind in result["errors"].values())


def clean(name, result):
    check(f"{name}: no errors", errors(result) == 0, result["errors"])
    check(f"{name}: all that was begun was answered", result["begun"] == result["answered"] > 0,
          f"{result['begun']} begun, {result['answered']} answered")


def logins_agree(name, result, gateway):
    gateway.agrees(f"{name}: logins", result["logins"], "pinion_handshakes_total", 'outcome="ok"')


# One function for each script: its run, and what must agree.

def storm(bench, gateway):
    result = run(bench, "storm.lua", f"ws://{gateway.websocket}", ["-t2", "-c8", "-d1s"])
    clean("storm", result)
    logins_agree("storm", result, gateway)
    check("storm: more logins than connections", result["logins"] > 8, result["logins"])


def idle(bench, gateway):
    pid = str(gateway.process.pid)
    result = run(bench, "idle.lua", f"ws://{gateway.websocket}",
                 ["-t2", "-c200", "-d1s", "--ping", "1s", "--server-pid", pid])
    check("idle: no errors, all open", (errors(result), result["open"]) == (0, 200), result["errors"])
    check("idle: the server's memory is seen", result["server"]["memory_bytes"] > 0, result["server"])
    own = "of CPU per second and 1 000 connections"
    check("idle: the script's own line", own in result["report"], result["report"])
    logins_agree("idle", result, gateway)


def echo(bench, _):
    server = Echo()
    result = run(bench, "echo.lua", f"ws://{server.address}", ["--raw", "-c4", "-d1s", "-R", "200"], ["300"])
    clean("echo", result)
    check("echo: the server counted as many", server.messages == result["answered"],
          f"{server.messages}, not {result['answered']}")


def request(bench, gateway):
    # Below the gateway's limit of calls (requests.calls_per_s).
    result = run(bench, "request.lua", f"ws://{gateway.websocket}", ["-t2", "-c8", "-d1s", "-R", "200"])
    clean("request", result)
    gateway.agrees("request: answers", result["answered"], "pinion_requests_total", 'outcome="answered"')


def push(bench, gateway):
    result = run(bench, "push.lua", f"ws://{gateway.websocket}",
                 ["-t2", "-c50", "-d1s", "-R", "400", "--push", gateway.grpc])
    clean("push", result)
    check("push: each has one delivery", result["deliveries"] == result["answered"] == 400, result["deliveries"])
    gateway.agrees("push: deliveries", result["deliveries"], "pinion_pushes_total")


def fanout(bench, gateway):
    result = run(bench, "fanout.lua", f"ws://{gateway.websocket}",
                 ["-t2", "-c100", "-d1s", "-R", "10", "--push", gateway.grpc])
    clean("fanout", result)
    check("fanout: each push reaches all", result["deliveries"] == 100 * result["answered"], result["deliveries"])
    gateway.agrees("fanout: deliveries", result["deliveries"], "pinion_pushes_total")


def slow(bench, gateway):
    result = run(bench, "slow.lua", f"ws://{gateway.websocket}",
                 ["-t2", "-c40", "-d1s", "-R", "100", "--push", gateway.grpc], ["10", "200", "300"])
    clean("slow", result)
    # They read again after 300 ms: in the end nothing is missing.
    gateway.agrees("slow: deliveries", result["deliveries"], "pinion_pushes_total")
    check("slow: each push names two", result["deliveries"] == 2 * result["answered"], result["deliveries"])


def churn(bench, gateway):
    result = run(bench, "churn.lua", f"ws://{gateway.websocket}",
                 ["-t2", "-c20", "-d2s", "--per-user", "2", "--platforms", "1"])
    check("churn: nothing timed out", result["errors"]["timeout"] == 0, result["errors"])
    check("churn: it logs in, chats and kicks", min(result["logins"] - 20, result["answered"], result["kicked"]) > 0,
          {name: result[name] for name in ("logins", "answered", "kicked")})
    ended = time.monotonic() + AGREE_SECONDS
    while gateway.metric("pinion_connections") and time.monotonic() < ended:
        time.sleep(0.05)
    check("churn: nobody is left", gateway.metric("pinion_connections") == 0)


def reconnect(bench, gateway):
    result = run(bench, "reconnect.lua", f"ws://{gateway.websocket}", ["-t2", "-c100", "-d2s"])
    clean("reconnect", result)
    check("reconnect: all were lost once and came back", (result["logins"], result["open"]) == (200, 100),
          (result["logins"], result["open"]))
    logins_agree("reconnect", result, gateway)


def day(bench, gateway):
    result = run(bench, "day.lua", f"ws://{gateway.websocket}",
                 ["-t2", "-c50", "-d2s", "--push", gateway.grpc], ["0.2"])
    check("day: no errors", errors(result) == 0, result["errors"])
    check("day: chats arrive", 0 < result["deliveries"], result["deliveries"])
    logins_agree("day", result, gateway)


def services(asked):
    """Gateways with `backend: openim`; openim.py itself compares what clients and services counted."""
    if not pathlib.Path(asked.services).exists():
        build = ["cargo", "build", "--locked", "--release", "-q", "-p", "pinion-bench-peers", "--bin", "openim-services"]
        subprocess.run(build, check=True, cwd=ROOT)
    options = openim.arguments(["logins", "--quick", "--gateway", str(asked.gateway), "--bench", str(asked.bench),
                                "--services", str(asked.services)])
    stormed = openim.log_in(options, "openim", 50)
    check("services: logins are asked about", stormed["logins"] > 50, stormed)
    forwarded = openim.forward(options, "openim", 500)
    check("services: requests are forwarded", forwarded["answered"] > 0 and forwarded["rpc_us"] > 0, forwarded)
    check("services: the bound calls them too", openim.bound(options)["per_s"] > 0)


SCENARIOS = [storm, idle, echo, request, push, fanout, slow, churn, reconnect, day]


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--gateway", default=ROOT / "target/release/pinion")
    options.add_argument("--bench", default=ROOT / "target/release/pinion-bench")
    options.add_argument("--services", default=openim.SERVICES)
    options.add_argument("only", nargs="*", help="scenarios, or services; without, all")
    asked = options.parse_args()
    names = {f"{scenario.__name__}.lua" for scenario in SCENARIOS}
    shipped = {path.name for path in HERE.glob("*.lua")}
    check("every script of the folder is run", names == shipped, sorted(names ^ shipped))
    for scenario in SCENARIOS:
        if asked.only and scenario.__name__ not in asked.only:
            continue
        try:
            with Gateway(str(asked.gateway)) as gateway:
                scenario(str(asked.bench), gateway)
        except (RuntimeError, subprocess.TimeoutExpired, OSError) as error:
            check(scenario.__name__, False, error)
    if not asked.only or "services" in asked.only:
        try:
            services(asked)
        except (RuntimeError, subprocess.SubprocessError, OSError) as error:
            check("services", False, error)
    print(f"bench-scripts: {passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
