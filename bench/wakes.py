#!/usr/bin/env python3
"""How often each thread of an idle gateway wakes, and for how long it runs: bench/wakes.py [binary [seconds]].

Wakes are voluntary context switches, which a busy machine hardly changes; the CPU is schedstat's, which it does.
"""

import os
import socket
import subprocess
import sys
import time

START_S = 1.5


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def threads(pid):
    """By thread: its name, wakes so far, nanoseconds run so far."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        base = f"/proc/{pid}/task/{task}/"
        with open(base + "comm") as comm, open(base + "status") as status, open(base + "schedstat") as stat:
            wakes = next(int(line.split()[1]) for line in status if line.startswith("voluntary"))
            found[task] = (comm.read().strip(), wakes, int(stat.read().split()[0]))
    return found


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else "target/release/pinion"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10
    gateway = subprocess.Popen([
        binary, "--websocket-address=127.0.0.1", "--http-listen=127.0.0.1:0", "--log-level=warn",
        f"--websocket-port={free_port()}", f"--rpc-listen=127.0.0.1:{free_port()}", "--shards-count=1",
        "--shards-rpc-count=1"])
    try:
        time.sleep(START_S)
        before, begin = threads(gateway.pid), time.monotonic()
        time.sleep(seconds)
        after, passed = threads(gateway.pid), time.monotonic() - begin
    finally:
        gateway.kill()
        gateway.wait()
    for task, (name, wakes, run) in after.items():
        print(f"{name:16}{(wakes - before[task][1]) / passed:8.1f} wakes/s"
              f"{(run - before[task][2]) / passed / 1000:8.0f} us/s")


if __name__ == "__main__":
    main()
