"""Clients that know the address of one node and nothing else (issue 8, incident 3 c), while that node dies, comes back
and leaves for good: another node takes the address over, and gives it back. Some are the native SDK, the others climb
its ladder (`crowd`)."""

import contextlib
import os
import tempfile
import time

from checks import equal, until
from crowd import Client, Crowd
from ledger import Ledger, Pusher
from listener import LINUX
from nodes import Fleet
from push_api import PushApi
from sdk import User
from suite_cluster_clients import KIND, NO_API, probe, written

SDKS, LIGHT, LATE = 2, 50, 20
# The lease (4 s), the view, the longest step of the ladder (16 s), a login; and as much again, since the machine is
# shared.
BACK_SECONDS = 60
# A node that has left is not lost: it may be starting again, for which 30 s are allowed (`limits::ADOPT_ABSENT_MS`).
LEFT_SECONDS = 100


def run(checks, _gateway, _api):
    """The address is moved by the operator's hook, which here only says what it was told."""
    name = "cluster: one address"
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="pinion-adopt-"))
        told = os.path.join(folder, "told")
        hook = os.path.join(folder, "hook")
        with open(hook, "w", encoding="utf-8") as script:
            script.write(f'#!/bin/sh\necho "$*" >>{told}\n')
        os.chmod(hook, 0o755)
        flags = ["--cluster-adopt", "members", "--cluster-adopt-hook", hook]
        fleet = opened.enter_context(Fleet(*flags, relays=False, network="127.0.10."))

        def up():
            for _ in range(3):
                fleet.add()
            fleet.await_ready()

        if not checks.run(f"{name}: three nodes that adopt", up):
            return
        one = OneAddress(opened, fleet, told)
        checks.run(f"{name}: clients know node 2 only", one.served)
        checks.run(f"{name}: node 2 is killed, its clients are back within {BACK_SECONDS} s", one.back)
        checks.run(f"{name}: who has taken it over is killed, they are back within {BACK_SECONDS} s", one.heir_dies)
        checks.run(f"{name}: node 2 gets its address back, and who is elsewhere stays", one.returned)
        checks.run(f"{name}: node 2 leaves for good, its clients are back within {LEFT_SECONDS} s", one.left)
        checks.run(f"{name}: nothing was lost, nothing doubled", one.clean)


class OneAddress:
    """Clients of node 2's address: SDKs, and light ones to whom there are pushes all the time."""

    def __init__(self, opened, fleet, told):
        self.opened, self.fleet, self.told = opened, fleet, told
        dead = fleet.node(2)
        self.address, self.where = dead.where(), (dead.websocket, NO_API)
        self.sdks = [opened.enter_context(User(KIND, f"sdk{n}", LINUX, self.where)) for n in range(SDKS)]
        self.crowd = opened.enter_context(Crowd())
        self.light = self.clients("light", LIGHT)
        self.ledger = Ledger(self.crowd)
        users = [client.user for client in self.light]
        self.pusher = Pusher(self.ledger, fleet.running, users, 20, 4)
        self.number, self.heir = 0, None

    def clients(self, word, count):
        return [Client(f"{word}{n}", LINUX, lambda _client: self.address) for n in range(count)]

    def come(self, clients):
        self.crowd.add(clients)
        until(lambda: self.crowd.opened() == len(self.crowd.clients), lambda: f"{self.crowd.opened()} clients")

    def heard(self, *lines):
        """What the hooks of all nodes were told of node 2."""
        wanted = [f"{verb} n2 {self.address[0]}:{self.address[1]}\n" for verb in lines]

        def found():
            try:
                with open(self.told, encoding="utf-8") as file:
                    return [line for line in file if " n2 " in line]
            except FileNotFoundError:
                return []

        until(lambda: found() == wanted, lambda: f"hooks were told {found()}, wanted {wanted}")

    def holders(self):
        """Who serves an address that is not its own."""
        return [node for node in self.fleet.running() if node.metric("pinion_adopted_addresses")]

    def served(self):
        for sdk in self.sdks:
            sdk.login(self.fleet.node(2).token(sdk.user, LINUX))
        self.come(self.light)
        equal(self.crowd.places(), {self.address: LIGHT}, "clients by address")
        self.opened.enter_context(self.pusher)

    def reached(self, sdk, api):
        self.number += 1
        text = f"after {self.number}"
        return text if written(api, sdk.user, text) else None

    def killed(self, number):
        """`kill -9`, until all clients are served again, each SDK by a push."""
        started = time.monotonic()
        self.fleet.kill(number)
        texts = {}
        with contextlib.closing(PushApi(self.fleet.running()[0].grpc)) as api:

            def all_reached():
                for sdk in self.sdks:
                    texts[sdk] = texts.get(sdk) or self.reached(sdk, api)
                return all(texts.values()) and self.crowd.opened() == LIGHT

            until(all_reached, lambda: f"{self.crowd.opened()} of {LIGHT} are back; "
                                       f"{[sdk.seen() for sdk in self.sdks]}", BACK_SECONDS)
        for sdk, text in texts.items():
            sdk.wait_message(text)
        until(lambda: len(self.holders()) == 1, lambda: f"{[node.name for node in self.holders()]} hold addresses")
        print(f"    all clients of the address were served again after {time.monotonic() - started:.1f} s")

    def back(self):
        self.killed(2)
        self.heard("take")

    def heir_dies(self):
        (heir,) = self.holders()
        self.heir = next(number for number, node in self.fleet.nodes.items() if node is heir)
        self.killed(self.heir)
        self.heard("take", "take")

    def returned(self):
        """Both dead nodes. Whoever comes from now on is served by node 2; whoever is elsewhere stays there."""
        (holder,) = self.holders()
        ended = self.crowd.counts["losses"]
        for number in (2, self.heir):
            back = self.fleet.add(number)
            back.await_ready()
        node = self.fleet.node(2)
        equal(node.where(), self.address, "address of node 2")
        until(lambda: not self.holders(), lambda: holder.ask("GET", "/v1/adopt"))
        self.heard("take", "take", "give")
        self.come(self.clients("late", LATE))
        counts = lambda: [one.metric("pinion_registered_connections") for one in (node, holder)]
        wanted = [LATE, LIGHT + SDKS]
        until(lambda: counts() == wanted, lambda: f"connections of {node.name} and {holder.name}: {counts()}")
        equal(self.crowd.counts["losses"], ended, "connections that have ended")
        with contextlib.closing(PushApi(node.grpc)) as api:
            for sdk in self.sdks:
                until(lambda: self.reached(sdk, api), sdk.seen, BACK_SECONDS)
                sdk.wait_message(f"after {self.number}")

    def left(self):
        """Drained and ended by its operator. One of its clients is an SDK."""
        sdk = self.opened.enter_context(User(KIND, "sdk-late", LINUX, self.where))
        sdk.login(self.fleet.node(2).token(sdk.user, LINUX))
        self.fleet.drain(2)
        node = self.fleet.node(2)
        until(lambda: node.metric("pinion_node_connections") == 0, lambda: node.ask("GET", "/v1/drain"))
        equal(node.stop(), 0, "exit status\n" + "\n".join(node.lines[-20:]))
        started = time.monotonic()
        with contextlib.closing(PushApi(self.fleet.node(1).grpc)) as api:
            text = []

            def back():
                if not text and (found := self.reached(sdk, api)):
                    text.append(found)
                return text and self.crowd.opened() == LIGHT + LATE

            until(back, lambda: f"{self.crowd.opened()} of {LIGHT + LATE} are here; {sdk.seen()}", LEFT_SECONDS)
        sdk.wait_message(text[0])
        print(f"    all clients of the address were served again after {time.monotonic() - started:.1f} s")
        self.heard("take", "take", "give", "take")

    def clean(self):
        until(lambda: probe(self.fleet, self.crowd), lambda: "verdicts are not complete")
        counts = self.pusher.finish()
        print(f"    {counts['pushes']} pushes, {self.crowd.counts['texts']} texts, of {counts['recipients']} verdicts "
              f"{counts['complete']} complete")
