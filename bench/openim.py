#!/usr/bin/env python3
"""What a gateway with `backend: openim` costs and holds beside OpenIM's services, which bench/peers' openim-services
stands in for. Standard library only.

    bench/openim.py logins       logins/s with a parseToken of 5 ms, by how many log in at once
    bench/openim.py forwarded    CPU per forwarded request (client -> gateway -> msg service -> client)
    bench/openim.py report       writes bench/results/openim.md from what both have measured

Gateway on the first CPU, services and clients on the last. Every run has a gateway and services of its own; what is
compared is measured in turn, run by run. A run in which the services did not count what the clients count is an error.
Raw figures are kept in bench/results/openim.json. `--quick` is the smoke: short, small, nothing kept.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(HERE, "compare"))

from report import cell, machine  # noqa: E402
from statistics_of import summary  # noqa: E402

RESULTS = os.path.join(HERE, "results")
RAW = os.path.join(RESULTS, "openim.json")
PAGE = os.path.join(RESULTS, "openim.md")
SERVICES = os.path.join(ROOT, "target/release/openim-services")
BACKENDS = ("openim", "embedded")
DELAY_MS = 5
AT_ONCE = (1, 100, 1000, 4000)
IN_FLIGHT = 64
# CHANNEL_STREAMS_MAX: calls that a gateway has in flight at one instance.
STREAMS_MAX = 1024
START_SECONDS = 60
AGREE_SECONDS = 30
RUN_SECONDS = 120


class Disagree(RuntimeError):
    """Two sides counted differently, or something was not answered."""


class Process:
    """A server on some CPUs; ends with the block."""

    def __init__(self, command, cpu, ready):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PINION_")}
        self.process = subprocess.Popen(["taskset", "-c", str(cpu), *command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=clean)
        self.pid = self.process.pid
        watchdog = threading.Timer(START_SECONDS, self.process.kill)
        watchdog.start()
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if line.startswith(ready):
                break
        watchdog.cancel()
        if self.process.poll() is not None:
            raise Disagree(f"{command[0]} has ended: {self.said}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Services(Process):
    """openim-services; its calls by method are what it says of itself."""

    def __init__(self, options, delay_ms):
        super().__init__([options.services, "--delay-ms", str(delay_ms)], options.load_cpu, "listening ")
        self.address = self.said.split()[1]

    def calls(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


class Gateway(Process):
    """Without the limits that protect one from crowds; nobody is at its Redis, which no call needs."""

    def __init__(self, options, services, backend):
        flags = ["--websocket-address=127.0.0.1", "--websocket-port=0", "--rpc-listen=127.0.0.1:0",
                 "--http-listen=127.0.0.1:0", "--log-level=error", "--websocket-accepts-per-second-max=0",
                 "--login-spread-ms=0", "--requests-calls-per-s=1000000", *options.flag]
        if backend == "openim":
            names = ("auth", "user", "msg", "push")
            flags += ["--backend=openim", "--compat=main", "--discovery-kind=static", "--redis-addresses=127.0.0.1:1",
                      *(f"--discovery-static-{name}={services.address}" for name in names)]
        super().__init__([options.gateway, *flags], options.gateway_cpu, "ready")
        address = lambda name: re.search(rf"^{name}\s+(?:\w+://)?([\d.]+:\d+)", self.said, re.M).group(1)
        self.url, self.http = f"ws://{address('websocket')}", address("http")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def cpu(self):
        """Seconds by kind of thread, from the scheduler's own clock."""
        seconds = {"rpc": 0.0, "shard": 0.0, "rest": 0.0}
        for task in os.listdir(f"/proc/{self.pid}/task"):
            try:
                with open(f"/proc/{self.pid}/task/{task}/comm", encoding="utf-8") as file:
                    name = file.read().strip().rstrip("0123456789")
                with open(f"/proc/{self.pid}/task/{task}/schedstat", encoding="ascii") as file:
                    seconds[name if name in seconds else "rest"] += int(file.read().split()[0]) / 1e9
            except OSError:
                continue  # it has just ended
        return seconds


def bench(options, gateway, script, arguments):
    """One run of pinion-bench: its JSON."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run.json")
        command = ["taskset", "-c", str(options.load_cpu), options.bench, "-q", "-t1", "--processes=1",
                   "--cpus", str(options.load_cpu), "--json", out, "-s", os.path.join(HERE, "scripts", script),
                   *arguments, gateway.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
        if done.returncode:
            raise Disagree(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        with open(out, encoding="utf-8") as file:
            run = json.load(file)
    wrong = {kind: n for kind, n in run["errors"].items() if n}
    if wrong:
        raise Disagree(f"{' '.join(command)}: {wrong}")
    return run


def agree(services, method, expected):
    """The services have answered so many calls by now, and no more."""
    until = time.monotonic() + AGREE_SECONDS
    while (seen := services.calls()[method]) != expected and time.monotonic() < until:
        time.sleep(0.05)
    if seen != expected:
        raise Disagree(f"the services counted {seen} calls of {method}, the clients {expected}")


def per(before, after, count):
    """CPU microseconds per operation, by kind of thread and together."""
    spent = {kind: (after[kind] - before[kind]) * 1e6 / count for kind in after}
    return {"cpu_us": sum(spent.values()), "rpc_us": spent["rpc"], "shard_us": spent["shard"]}


def log_in(options, backend, at_once):
    """A storm: so many clients log in, close, log in again."""
    with Services(options, options.delay_ms) as services, Gateway(options, services, backend) as gateway:
        before = gateway.cpu()
        run = bench(options, gateway, "storm.lua", [f"-c{at_once}", f"-d{options.seconds}s", f"--connecting={at_once}"])
        used = per(before, gateway.cpu(), run["logins"])
        # A login that the end of the run cut short was asked about and is not counted.
        asked = services.calls()["parseToken"]
        if backend == "openim" and not run["logins"] <= asked <= run["logins"] + at_once:
            raise Disagree(f"{run['logins']} logins of {at_once} at once, and {asked} calls of parseToken")
    latency = run["login_latency_ns"]
    return {**used, "per_s": run["answered"] / run["seconds"], "p50_ms": latency["p50"] / 1e6,
            "p99_ms": latency["p99"] / 1e6, "logins": run["logins"]}


def forward(options, backend, rate=None):
    """Requests that the msg service answers; as fast as they go, or at a rate."""
    with Services(options, 0) as services, Gateway(options, services, backend) as gateway:
        begun = gateway.cpu()
        arguments = [f"-c{IN_FLIGHT}", f"-d{options.seconds}s", *(["-R", str(rate)] if rate else [])]
        run = bench(options, gateway, "request.lua", arguments)
        used = per(begun, gateway.cpu(), run["answered"])
        if backend == "openim":
            agree(services, "GetMaxSeq", run["begun"])
    latency = run["latency_ns"]
    return {**used, "per_s": run["answered"] / run["seconds"], "p50_ms": latency["p50"] / 1e6,
            "p99_ms": latency["p99"] / 1e6, "answered": run["answered"]}


def bound(options):
    """A bare h2 client on the gateway's CPU."""
    with Services(options, 0) as services:
        command = ["taskset", "-c", str(options.gateway_cpu), options.services, "--call", services.address,
                   "--seconds", str(options.seconds), "--in-flight", str(IN_FLIGHT)]
        out = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=True).stdout
        run = json.loads(out)
        agree(services, "GetMaxSeq", run["calls"])
    return {"cpu_us": run["cpu_seconds"] * 1e6 / run["calls"], "per_s": run["calls"] / run["seconds"]}


def logins(options):
    """All runs: {concurrency and backend: figures of each run}."""
    found = {}
    for number in range(options.runs):
        for at_once in options.at_once:
            for backend in BACKENDS:
                note(found, number, f"{backend} {at_once}", log_in(options, backend, at_once))
    return found


def forwarded(options):
    """All runs: {what: figures of each run}."""
    found = {}
    for number in range(options.runs):
        full = forward(options, "openim")
        note(found, number, "openim", full)
        note(found, number, "openim, half load", forward(options, "openim", round(full["per_s"] / 2)))
        note(found, number, "embedded", forward(options, "embedded"))
        note(found, number, "bare h2 client", bound(options))
    return found


def note(found, number, name, figures):
    found.setdefault(name, []).append(figures)
    print(f"{number} {name:20} " + " ".join(f"{key} {value:.1f}" for key, value in figures.items()), flush=True)


def column(runs, figure, digits):
    return cell({n: run.get(figure) for n, run in enumerate(runs)}, digits) if any(figure in r for r in runs) else "-"


def allowed(at_once):
    """Logins/s that the delay allows, of calls that may be in flight."""
    return f"{min(at_once, STREAMS_MAX) * 1000 / DELAY_MS:,.0f}".replace(",", " ")


def page(measured):
    """The section of RESULTS.md, without its head."""
    parts = ["Written by `bench/openim.py report`; not edited by hand. The far side is `bench/peers`' openim-services (one "
             "thread, h2 on tokio), on one CPU with the clients, the gateway alone on the other. Cells: median (least to "
             "largest). CPU is the gateway's, user and kernel, from the scheduler's clocks."]
    if "logins" in measured:
        of = measured["logins"]
        runs = of["runs"]
        lines = [f"### Logins with a parseToken of {DELAY_MS} ms", where(of),
                 "A login is also the close and the reports of the one before it: connect, handshake, parseToken, 101, close "
                 "frame. *Allowed* is what the delay allows with so many calls in flight (at most "
                 f"{STREAMS_MAX} at one instance); timers of the services end up to 1 ms late. Logins/s times CPU per login "
                 "says how full the gateway's one CPU is: from 1 000 at once on it is the limit.",
                 "| at once | backend | logins/s | allowed | p50, ms | p99, ms | CPU us per login | rpc thread | shard |\n"
                 "|---|---|---|---|---|---|---|---|---|\n" + "\n".join(
                     f"| {at_once} | {backend} | " + " | ".join(
                         [column(runs[key], "per_s", 0), allowed(at_once) if backend == "openim" else "-",
                          *(column(runs[key], figure, 1) for figure in
                            ("p50_ms", "p99_ms", "cpu_us", "rpc_us", "shard_us"))]) + " |"
                     for at_once in AT_ONCE for backend in BACKENDS if (key := f"{backend} {at_once}") in runs)]
        parts.append("\n\n".join(lines))
    if "forwarded" in measured:
        of = measured["forwarded"]
        runs = of["runs"]
        lines = ["### Forwarded requests", where(of),
                 f"{IN_FLIGHT} connections, each with one GetMaxSeq (1001) after the other; *half load* is an open loop at "
                 "half the rate. The bare client makes the same calls on the gateway's CPU, with h2 on tokio; *embedded* is "
                 "the gateway that answers itself: together they are a bound for what forwarding must cost.",
                 "| | requests/s | p50, ms | p99, ms | CPU us per request | rpc thread | shard |\n|---|---|---|---|---|---|---|\n"
                 + "\n".join(f"| {name} | " + " | ".join(
                     [column(runs[name], "per_s", 0),
                      *(column(runs[name], figure, digits) for figure, digits in
                        (("p50_ms", 2), ("p99_ms", 2), ("cpu_us", 1), ("rpc_us", 1), ("shard_us", 1)))]) + " |"
                     for name in runs)]
        parts.append("\n\n".join(lines))
    return "\n\n".join(parts) + "\n"


def where(of):
    host = of["machine"]
    runs = summary([len(values) for values in of["runs"].values()])
    return (f"`{of['command']}`, {runs['min']} interleaved runs of {of['seconds']} s, {host['time']}, commit "
            f"{host['commit']}, {host['cpu']}, Linux {host['kernel']}.")


def arguments(given=None):
    """The command line, or what is given instead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["logins", "forwarded", "report"])
    parser.add_argument("--gateway", default=os.path.join(ROOT, "target/release/pinion"))
    parser.add_argument("--bench", default=os.path.join(ROOT, "target/release/pinion-bench"))
    parser.add_argument("--services", default=SERVICES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each run")
    parser.add_argument("--delay-ms", type=int, default=DELAY_MS, help="of parseToken")
    parser.add_argument("--flag", action="append", default=[], help="of the gateway, like --flag=--shards-driver=epoll")
    parser.add_argument("--quick", action="store_true", help="a smoke: one run of a second, few clients, nothing kept")
    options = parser.parse_args(given)
    cpus = sorted(os.sched_getaffinity(0))
    options.gateway_cpu, options.load_cpu, options.at_once = cpus[0], cpus[-1], AT_ONCE
    if options.quick:
        options.runs, options.seconds, options.at_once = 1, 1, (1, 50)
    return options


def main():
    options = arguments()
    measured = {}
    if os.path.exists(RAW):
        with open(RAW, encoding="utf-8") as file:
            measured = json.load(file)
    if options.what != "report":
        runs = {"logins": logins, "forwarded": forwarded}[options.what](options)
        measured[options.what] = {"machine": machine(), "command": "bench/openim.py " + " ".join(sys.argv[1:]),
                                  "seconds": options.seconds, "runs": runs}
    if options.quick:
        return
    with open(RAW, "w", encoding="utf-8") as file:
        json.dump(measured, file, indent=1)
        file.write("\n")
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(page(measured))
    print(PAGE)


if __name__ == "__main__":
    main()
