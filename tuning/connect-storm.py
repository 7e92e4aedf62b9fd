#!/usr/bin/env python3
"""A storm of connects before and after one change: the accept queue, cut by net.core.somaxconn to 128 and at 4096.

    sudo tuning/connect-storm.py [--gateway target/release/pinion] [--connections 3000] [--rounds 3]

Each round runs a gateway of one shard in a network namespace of its own, holds it still (SIGSTOP) while all clients
connect at once, as in a storm that is faster than the shard, then lets it go on and waits until every client has its
answer. Printed per setting: ListenOverflows and ListenDrops of that namespace, clients whose connect took longer than
half a second (the first SYN was dropped and repeated after 1 s), and when the last client had its answer. The rounds
of the two settings alternate.
"""

import argparse
import os
import re
import resource
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time

SETTINGS = ["128", "4096"]
HOLD_SECONDS = 1.5
GIVE_UP_SECONDS = 60
# Above what a connect on an idle queue takes, below the first repetition of a SYN.
LATE_SECONDS = 0.5
REQUEST = b"GET / HTTP/1.1\r\nHost: storm\r\n\r\n"


def counters():
    with open("/proc/net/netstat", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("TcpExt:")]
    table = dict(zip(names[1:], map(int, values[1:])))
    return table["ListenOverflows"], table["ListenDrops"]


def start(binary):
    command = [binary, "--websocket-address", "127.0.0.1", "--websocket-port", "0", "--rpc-listen", "127.0.0.1:0"]
    command += ["--http-listen", "127.0.0.1:0", "--shards-count", "1", "--stall-abort-ms", "60s"]
    gateway = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = None
    for line in gateway.stdout:
        found = re.match(r"websocket +ws://\S+:(\d+)", line)
        port = int(found.group(1)) if found else port
        if line.strip() == "ready":
            return gateway, port
    sys.exit("the gateway did not start")


def storm(port, count, gateway):
    """Connects `count` clients at once to a gateway that is held; seconds to each connect and to the last answer."""
    selector, began, connected = selectors.DefaultSelector(), time.monotonic(), []
    for _ in range(count):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        selector.register(client, selectors.EVENT_WRITE)
    waiting, held = count, True
    while waiting and time.monotonic() < began + GIVE_UP_SECONDS:
        if held and time.monotonic() > began + HOLD_SECONDS:
            gateway.send_signal(signal.SIGCONT)
            held = False
        for key, events in selector.select(timeout=0.05):
            if events & selectors.EVENT_WRITE:
                connected.append(time.monotonic() - began)
                key.fileobj.send(REQUEST)
                selector.modify(key.fileobj, selectors.EVENT_READ)
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                waiting -= 1
    return connected, time.monotonic() - began, waiting


def one(arguments):
    """Inside the namespace: one storm under one setting, its figures on one line."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with open("/proc/sys/net/core/somaxconn", "w", encoding="ascii") as file:
        file.write(arguments.somaxconn)
    gateway, port = start(arguments.gateway)
    try:
        before = counters()
        gateway.send_signal(signal.SIGSTOP)
        connected, last, unanswered = storm(port, arguments.connections, gateway)
        overflows, drops = [after - first for after, first in zip(counters(), before)]
        late = sum(seconds > LATE_SECONDS for seconds in connected)
        print(overflows, drops, late, round(last, 2), unanswered)
    finally:
        gateway.kill()
        gateway.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", default="target/release/pinion")
    parser.add_argument("--connections", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--somaxconn", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.somaxconn:
        return one(arguments)
    rows = {setting: [] for setting in SETTINGS}
    for _ in range(arguments.rounds):
        for setting in SETTINGS:
            again = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-n", sys.executable, __file__]
            again += ["--somaxconn", setting, "--gateway", arguments.gateway]
            again += ["--connections", str(arguments.connections)]
            line = subprocess.run(again, check=True, capture_output=True, text=True, timeout=180).stdout
            rows[setting].append([float(word) for word in line.split()])
    print(f"{arguments.connections} connects at once, the gateway held for {HOLD_SECONDS} s; median of {arguments.rounds}")
    print(f"{'somaxconn':>9}  {'overflows':>9}  {'drops':>6}  {'late':>6}  {'last answer s':>13}  {'unanswered':>10}")
    for setting, measured in rows.items():
        overflows, drops, late, last, unanswered = [statistics.median(column) for column in zip(*measured)]
        print(f"{setting:>9}  {overflows:>9.0f}  {drops:>6.0f}  {late:>6.0f}  {last:>13.2f}  {unanswered:>10.0f}")
    return None


main()
