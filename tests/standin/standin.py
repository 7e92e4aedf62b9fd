#!/usr/bin/env python3
"""Stands in for OpenIM's services: auth, user, msg and push over gRPC, and a gateway of OpenIM's behaviour.

    work/clients/venv/bin/python tests/standin/standin.py --services auth,user,msg,push --etcd 127.0.0.1:2379 \\
        --redis 127.0.0.1:6379 --compat patch16

Prints one line of JSON when it is ready: {"services": {word: address}, "control": url, "compat": name}. Deregisters and
ends when its standard input closes. Control: control.py. Written from OpenIM's wire behaviour, not from its source.
"""

import argparse
import asyncio
import json
import sys
import threading

from auth import KICKED_PLATFORMS, SAME_TERMINAL
from control import Control
from http_json import HttpJson
from names import COMPATS, SERVICES
from presence_map import PAGE_RETRY_SECONDS
from push_service import ALL_NODES, HASH
from store import ONLINE_SECONDS
from world import World

# What OpenIM's files say where nothing else is configured (spec 7.1, 9.1, 11.1, 11.3).
SECRET, ADMIN, ROOT, LEASE_SECONDS = "openIM123", "imAdmin", "openim", 30
FLUSH_SECONDS, RENEW_SECONDS = 1, 600


def words(text):
    return [word for word in text.split(",") if word]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--services", type=words, default=list(SERVICES[:4]), help=f"of {','.join(SERVICES)}")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--etcd", metavar="HOST:PORT", help="register and look up here")
    where.add_argument("--static", action="store_true", help="no etcd: addresses of others come from `peers`")
    parser.add_argument("--redis", metavar="HOST:PORT", help="without it, memory of this process")
    parser.add_argument("--compat", choices=COMPATS, default="patch16")
    parser.add_argument("--secret", default=SECRET)
    parser.add_argument("--admin-users", type=words, default=[ADMIN])
    parser.add_argument("--policy", type=int, choices=KICKED_PLATFORMS, default=SAME_TERMINAL, help="multiLogin.policy")
    parser.add_argument("--control", metavar="HOST:PORT", default="127.0.0.1:0")
    parser.add_argument("--root", default=ROOT, help="first part of the keys in etcd")
    parser.add_argument("--lease-seconds", type=int, default=LEASE_SECONDS)
    parser.add_argument("--online-seconds", type=int, default=ONLINE_SECONDS, help="how long presence counts")
    parser.add_argument("--page-retry-seconds", type=float, default=PAGE_RETRY_SECONDS)
    parser.add_argument("--flush-seconds", type=float, default=FLUSH_SECONDS, help="gateway: between presence calls")
    parser.add_argument("--renew-seconds", type=float, default=RENEW_SECONDS, help="gateway: between renewals")
    parser.add_argument("--strategy", choices=(ALL_NODES, HASH), default=ALL_NODES, help="how push finds users")
    options = parser.parse_args()
    unknown = set(options.services) - set(SERVICES)
    if unknown or not options.services:
        parser.error(f"--services: {','.join(sorted(unknown)) or 'none'}: there are {','.join(SERVICES)}")
    return options


def end_of_input(loop):
    """An event that is set when standard input closes, which it does when the parent dies."""
    ended = asyncio.Event()

    def read():
        while sys.stdin.buffer.read(4096):
            pass
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, daemon=True).start()
    return ended


async def main(options):
    ended = end_of_input(asyncio.get_running_loop())
    world = World(options)
    await world.start()
    http = HttpJson(Control(world).verbs())
    control = await http.start(options.control)
    addresses = {word: host.address for word, host in world.hosts.items()}
    print(json.dumps({"services": addresses, "control": control, "compat": options.compat}), flush=True)
    await ended.wait()
    http.close()
    await world.stop()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
