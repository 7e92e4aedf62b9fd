"""Measures Pinion beside its peers and bounds; `compare.py --help`, ../README.md. Standard library only.

Order: round by round, in each round scenario by scenario, in each scenario everybody in turn (A B A B ...). Each run
has a server of its own. Each run's report is a file below work/bench/compare/NAME: what is there is not measured
again, so that an interrupted comparison goes on where it was, and one scenario is measured anew by deleting its files.
"""

import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import time

import figures
import report
from subjects import ROOT, SUBJECTS, NotStarted

LOAD = os.path.join(ROOT, "target/release/pinion-bench")
PEER_SCRIPT = os.path.join(ROOT, "bench/peers/scripts/peer.lua")
PUSH_SCRIPT = os.path.join(ROOT, "bench/scripts/push.lua")
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = str(CPUS[0]), str(CPUS[-1])
# Payload of a peer's frame: such that it is as long as Pinion's frame with 100 bytes of content.
CONTENT_BYTES = 100
PAYLOAD_BYTES = 326
AT_ONCE = 16
RUN_S = 60
FULL = {
    "hold-small": {"connections": 1000, "seconds": 0.5},
    "hold": {"connections": 10000, "seconds": 1},
    "ping": {"connections": 10000, "seconds": 2, "ping": 1},
    "echo": {"connections": 100, "seconds": 1},
    "fanout": {"connections": 10000, "seconds": 1.5},
    "coalesced": {"connections": 10000, "seconds": 1.5, "batch": AT_ONCE},
    "latency": {"connections": 15000, "seconds": 2, "rate": 20000, "kinds": ["pinion"]},
}
QUICK = {
    "hold-small": {"connections": 100, "seconds": 0.2},
    "hold": {"connections": 400, "seconds": 0.2},
    "ping": {"connections": 400, "seconds": 1, "ping": 0.5},
    "echo": {"connections": 20, "seconds": 0.3},
    "fanout": {"connections": 200, "seconds": 0.3},
    "coalesced": {"connections": 200, "seconds": 0.3, "batch": AT_ONCE},
    "latency": {"connections": 200, "seconds": 0.3, "rate": 500, "kinds": ["pinion"]},
}
# Epoll, since the machine that runs the smoke may have no io_uring.
QUICK_SUBJECTS = ["pinion-epoll", "fastwebsockets", "send-loop"]
GROWTH_CONNECTIONS = [1000, 6000, 12000, 18000]
GROWTH = {"seconds": 1.5, "ping": 1.5}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description="Measures Pinion beside its peers and bounds.")
    parser.add_argument("what", nargs="?", default="all", choices=["all", "peers", "growth", "report"])
    parser.add_argument("--quick", action="store_true", help="a smoke: one round, three servers, small")
    parser.add_argument("--rounds", type=int, help="default 5, quick 1")
    parser.add_argument("--minutes", type=float, default=20, help="begins no round that would end later")
    parser.add_argument("--name", help="where raw reports are kept, below work/bench/compare")
    parser.add_argument("--fresh", action="store_true", help="forget the raw reports first")
    parser.add_argument("--subjects", help="names, with commas between")
    parser.add_argument("--scenarios", help="names, with commas between")
    return parser.parse_args()


def command_of(server, name, scenario, out):
    """pinion-bench's command line for one run."""
    subject = server.subject
    command = ["taskset", "-c", LOAD_CPU, LOAD, "-q", "-t1", f"-c{scenario['connections']}",
               f"-d{round(scenario['seconds'] * 1000)}ms", "--processes=1", "--cpus", LOAD_CPU, "--json", out,
               "--ping", f"{round(scenario.get('ping', 0) * 1000)}ms",
               "--server-pid", ",".join(map(str, server.pids()))]
    if subject.kind == "pinion":
        command += ["--push", f"127.0.0.1:{server.rpc}"]
    else:
        command += ["--raw"]
    if name in ("fanout", "coalesced"):
        # The chain of rounds goes on until this is over: pinion-bench waits for what is on its way, and counts it.
        command += ["--timeout", "500ms"]
    kind = {"echo": "echo", "fanout": "fanout", "coalesced": "fanout"}.get(name, "hold")
    if name == "latency":
        return [*command, "-R", str(scenario["rate"]), "-s", PUSH_SCRIPT, server.url(kind), "--", str(CONTENT_BYTES)]
    if name == "echo" and subject.kind == "pinion":
        # OpenIM has no echo: the nearest is the request that the gateway answers itself.
        return [*command, "-s", os.path.join(ROOT, "bench/scripts/request.lua"), server.url(kind)]
    size = CONTENT_BYTES if subject.kind == "pinion" or kind != "fanout" else PAYLOAD_BYTES
    return [*command, "-s", PEER_SCRIPT, server.url(kind), "--", kind, subject.dialect, str(size),
            str(scenario.get("batch", 1)), f"http://127.0.0.1:{server.port}/publish"]


def run_once(subject, name, scenario, path, shards=1):
    """One run: its report is at `path` afterwards. Returns None, or what went wrong."""
    # More shards share the load's CPU: two cores are all there are, and the page says so.
    cpus = SERVER_CPU if shards == 1 else f"{SERVER_CPU},{LOAD_CPU}"
    server = None
    try:
        server = subject.start(cpus, shards)
        partial = path + ".part"
        command = command_of(server, name, scenario, partial)
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=RUN_S, check=False)
        if done.returncode != 0 or not os.path.exists(partial):
            return f"pinion-bench ended with {done.returncode}: {(done.stderr or done.stdout)[-300:].strip()}"
        with open(partial, encoding="utf-8") as file:
            run = json.load(file)
        os.remove(partial)
    except (NotStarted, OSError, subprocess.SubprocessError, ValueError) as error:
        return str(error)
    finally:
        if server:
            server.end()
    run.update(connections_asked=scenario["connections"], command=command, server_command=server.command,
               load_average=os.getloadavg()[0])
    wrong = figures.fault(run)
    if wrong:
        return wrong
    for histogram in (value for key, value in run.items() if key.endswith("_ns")):
        histogram.pop("buckets", None)
    run.pop("timeline", None)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(run, file)
    return None


def estimate(plan, subjects):
    """Seconds of one round: starting and ending a server, connecting at some thousands per second, measuring."""
    return sum(
        1.0 + scenario["connections"] / 7000 + scenario["seconds"]
        for scenario in plan.values()
        for subject in subjects
        if subject.kind in scenario.get("kinds", [subject.kind])
    )


class Comparison:
    """What is measured, what is there, what failed."""

    def __init__(self, options):
        self.plan = dict(QUICK if options.quick else FULL)
        self.rounds = options.rounds or (1 if options.quick else 5)
        self.name = options.name or ("quick" if options.quick else "full")
        self.directory = os.path.join(ROOT, "work/bench/compare", self.name)
        self.failures = {}
        self.end = time.monotonic() + 60 * options.minutes
        wanted = options.subjects.split(",") if options.subjects else QUICK_SUBJECTS if options.quick else None
        self.subjects = [subject for subject in SUBJECTS if not wanted or subject.name in wanted]
        if options.scenarios:
            names = options.scenarios.split(",")
            self.plan = {name: plan for name, plan in self.plan.items() if name in names}
        if options.fresh or options.quick and not options.name:
            shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory, exist_ok=True)

    def measure(self, subject, name, scenario, file, shards=1):
        """One run, unless it is there. A subject that has failed twice in a scenario is left out of it."""
        path = os.path.join(self.directory, file)
        key = f"{subject.name} {name}"
        if os.path.exists(path) or len(self.failures.get(key, [])) >= 2:
            return
        began = time.monotonic()
        wrong = run_once(subject, name, scenario, path, shards)
        print(f"{time.strftime('%H:%M:%S')} {file[:-5]:44} {time.monotonic() - began:5.1f} s  {wrong or 'ok'}",
              flush=True)
        if wrong:
            self.failures.setdefault(key, []).append(wrong)

    def peers(self):
        """All rounds that the time allows."""
        per_round = estimate(self.plan, self.subjects)
        print(f"about {per_round * self.rounds / 60:.0f} min: {self.rounds} rounds of {per_round:.0f} s", flush=True)
        for number in range(self.rounds):
            began = time.monotonic()
            if number and began + per_round > self.end:
                print(f"no time for round {number + 1} of {self.rounds}: run again to go on", flush=True)
                return
            for name, scenario in self.plan.items():
                for subject in self.subjects:
                    if subject.kind in scenario.get("kinds", [subject.kind]):
                        self.measure(subject, name, scenario, f"{name}.{subject.name}.{number}.json")
            per_round = max(time.monotonic() - began, 1)

    def growth(self):
        """Pinion's engines over connections and shards."""
        sizes = [100, 400] if self.name == "quick" else GROWTH_CONNECTIONS
        for shards in (1, 2):
            for connections in sizes:
                for subject in self.subjects:
                    if subject.kind == "pinion":
                        scenario = {**GROWTH, "connections": connections}
                        tail = f"{subject.name}.{shards}.{connections}.json"
                        self.measure(subject, "growth", scenario, f"growth.{tail}", shards)
                        push = {"connections": connections, "seconds": 1, "rate": connections}
                        self.measure(subject, "latency", push, f"growth-push.{tail}", shards)

    def runs(self):
        """All reports that are there, by file name without its end."""
        found = {}
        for path in sorted(glob.glob(os.path.join(self.directory, "*.json"))):
            with open(path, encoding="utf-8") as file:
                found[os.path.basename(path)[:-5]] = json.load(file)
        return found


def main():
    """Returns the exit code: 1 if Pinion or the first bound could not be measured at all."""
    options = arguments()
    comparison = Comparison(options)
    if options.what in ("all", "growth"):
        comparison.growth()
    if options.what in ("all", "peers"):
        comparison.peers()
    runs = comparison.runs()
    where = os.path.join(ROOT, "bench") if not options.quick else comparison.directory
    report.write(runs, comparison.subjects, comparison.failures, where)
    print(f"{len(runs)} runs; {os.path.join(where, 'RESULTS.md')}")
    if comparison.failures:
        print("failed:", *(f"  {key}: {why[0]}" for key, why in comparison.failures.items()), sep="\n")
    needed = [subject for subject in comparison.subjects if subject.kind == "pinion" or subject.name == "send-loop"]
    return int(not all(any(f".{subject.name}." in name for name in runs) for subject in needed))


if __name__ == "__main__":
    sys.exit(main())
