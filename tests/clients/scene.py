#!/usr/bin/env python3
"""A fleet one can hurt: etcd, N gateways, clients and pushes, a line per second of what was lost and doubled, and orders
on standard input. Front: scripts/cluster.sh.

    scripts/cluster.sh 3                                   by hand; `help` lists the orders
    scripts/cluster.sh 5 --clients 2000 --script FILE      unattended; exit status 1 if anything was lost or doubled

A script has one order per line, those of standard input; `#` starts a comment. Everything that is started here is ended
by its process id, also after Ctrl-C."""

import argparse
import queue
import sys
import threading
import time

from crowd import Client, Crowd
from ledger import Ledger, Pusher, in_quiet
from listener import LINUX, WEB
from nodes import ETCD, Fleet

# Quiet for so long: settled.
QUIET_SECONDS = 3
SETTLE_SECONDS = 120
WORRIES = [
    ("pinion_cluster_not_complete_total", ["not_fit", "no_answer"]),
    ("pinion_cluster_pushes_total", ["all", "second"]),
    ("pinion_cluster_stale_total", ["frame", "link", "lagging"]),
    ("pinion_cluster_unclaimed_logins_total", [""]),
    ("pinion_cluster_late_renewals_total", [""]),
    ("pinion_cluster_mail_total", ["waited", "lost"]),
    ("pinion_peer_opened_total", [""]),
    ("pinion_peer_links_ended_total", ["overflow", "stalled", "unreadable"]),
    ("pinion_lane_overflows_total", [""]),
]
HELP = """\
add [N]         start one more node, or node N again     kill N        kill -9
stop N, cont N  SIGSTOP and SIGCONT                      term N        SIGTERM
drain N         POST /v1/drain                           cancel N      it serves again
cut A B, heal A B   the link between two nodes, or of node A and `etcd`
forget N        the operator's word that N is dead
etcd stop|start                                          status        nodes, clients by node, counters
wait SECONDS    (for scripts)                            settle [MAX]  wait until verdicts are complete again
quit            end all and print the sums"""


class Scene:
    """`with Scene(Fleet(), 2000) as scene:`; `order` does what a line says and returns what there is to say."""

    def __init__(self, fleet, clients, rate=50, recipients=4):
        self.fleet = fleet
        self.crowd = Crowd()
        self.ledger = Ledger(self.crowd)
        self.people = crowd_of(clients, fleet.where)
        self.arrived = 0
        users = sorted({client.user for client in self.people})
        self.pusher = Pusher(self.ledger, fleet.running, users, rate, recipients)
        self.started = time.monotonic()
        self.changed_at, self.change = self.started, "start"
        self.bad_at = self.started
        self.settled, self.times = False, []
        # (from, to) of the times between a change's settling and the next change.
        self.quiets, self.quiet_from = [], self.started
        self.over = self.etcd_away = False

    def __enter__(self):
        self.fleet.__enter__()
        self.crowd.__enter__()
        return self

    def __exit__(self, *_):
        self.over = True
        if self.pusher.thread.ident is not None:
            self.pusher.stop()
        self.crowd.__exit__()
        self.fleet.__exit__()

    def start(self, nodes):
        for _ in range(nodes):
            self.order("add")
        self.arrive(len(self.people))
        self.pusher.__enter__()

    def arrive(self, count):
        """So many more clients log in."""
        more = self.people[self.arrived:self.arrived + count]
        self.arrived += len(more)
        self.crowd.add(more)

    # ---- orders --------------------------------------------------------------------------------------------------

    def order(self, line):
        """What there is to say; a wrong order raises ValueError."""
        words = line.split("#")[0].split()
        if not words:
            return ""
        verb, arguments = words[0], words[1:]
        call = getattr(self, f"_{verb}", None)
        if call is None or verb not in HELP:
            raise ValueError(f"{verb}: no such order\n{HELP}")
        try:
            said = call(*arguments)
        except TypeError as fault:
            raise ValueError(f"wrong number of arguments\n{HELP}") from fault
        return said or ""

    def _changes(self, what):
        self._quiet_ends()
        self.changed_at, self.change, self.settled = time.monotonic(), what, False
        self.bad_at = self.changed_at

    def _quiet_ends(self):
        if self.settled:
            self.quiets.append((self.quiet_from, time.monotonic()))

    def _add(self, word=None):
        number = word and number_of(word)
        self._changes(f"add {number or ''}".strip())
        node = self.fleet.add(number)
        return f"{node.name}: clients {node.websocket}, gRPC {node.grpc}, admin {node.http}"

    def _numbered(self, what, word):
        number = number_of(word)
        if what != "forget" and not self.fleet.node(number).running():
            raise ValueError(f"node {number} has ended; `add {number}` starts it again")
        self._changes(f"{what} {number}")
        return getattr(self.fleet, what)(number)

    def _kill(self, number):
        return self._numbered("kill", number)

    def _stop(self, number):
        return self._numbered("stop", number)

    def _cont(self, number):
        return self._numbered("cont", number)

    def _drain(self, number):
        return self._numbered("drain", number)

    def _cancel(self, number):
        return self._numbered("cancel", number)

    def _term(self, number):
        return self._numbered("term", number)

    def _forget(self, number):
        return self._numbered("forget", number)

    def _cut(self, a, b):
        ends = end_of(a), end_of(b)
        self._changes(f"cut {a} {b}")
        self.fleet.cut(*ends)

    def _heal(self, a, b):
        ends = end_of(a), end_of(b)
        self._changes(f"heal {a} {b}")
        self.fleet.heal(*ends)

    def _etcd(self, what):
        if what not in ("stop", "start") or self.fleet.etcd is None:
            raise ValueError("etcd stop, or etcd start")
        self._changes(f"etcd {what}")
        self.etcd_away = what == "stop"
        getattr(self.fleet.etcd, what)()

    def _wait(self, seconds):
        time.sleep(float(seconds))

    def _settle(self, seconds=SETTLE_SECONDS):
        end = time.monotonic() + float(seconds)
        while not self.settled:
            if time.monotonic() > end:
                raise ValueError(f"not settled {seconds} s after `{self.change}`: {self.why()}")
            time.sleep(0.1)
        return f"settled {self.times[-1][1]:.1f} s after `{self.change}`"

    def _status(self):
        places = self.crowd.places()
        lines = []
        for number, node in sorted(self.fleet.nodes.items()):
            if not node.running():
                lines.append(f"{node.name}: ended with {node.process.returncode}")
                continue
            if node.stopped:
                lines.append(f"{node.name}: stopped, {places[node.where()]} clients")
                continue
            ready = "ready" if node.ready() else "not ready"
            lines.append(f"{node.name}: {ready}, {places[node.where()]} clients; {stands(node.cluster())}")
            lines.append(f"    {counted(node)}")
        lines.append(f"clients: {dict(self.crowd.counts)}")
        lines.append(f"pushes: {dict(self.ledger.counts)}; no answer: {dict(self.ledger.errors)}")
        return "\n".join(lines)

    def _help(self):
        return HELP

    def _quit(self):
        self.over = True

    # ---- what is seen --------------------------------------------------------------------------------------------

    def down(self):
        """Clients without a connection that want one."""
        kicked = sum(1 for one in self.people if one.connection and one.connection.kicked)
        return self.arrived - kicked - self.crowd.opened()

    def hurt(self):
        """Whether a fault stands. What it does may begin later than quiet is waited for: when a lease has ended."""
        running = self.fleet.running()
        ends = {ETCD, *(node.name for node in running)}
        cuts = list(self.fleet.relays.cuts) if self.fleet.relays else []
        return self.etcd_away or any(node.stopped for node in running) or any(link <= ends for link in cuts)

    def look(self):
        """Every second: judges what is answered, and whether the fleet has settled."""
        self.ledger.judge()
        now = time.monotonic()
        if self.down() or self.hurt():
            self.bad_at = now
        bad_at = max(self.bad_at, self.ledger.bad_at)
        # A push that is on its way may still turn out to be bad, so quiet is counted from the oldest of them.
        waiting = [push.sent_at for push in list(self.ledger.open) if push.answered_at is None]
        if not self.settled and min(waiting, default=now) - bad_at > QUIET_SECONDS:
            self.settled, self.quiet_from = True, bad_at
            self.times.append((self.change, max(0.0, bad_at - self.changed_at)))
            print(f"   settled {self.times[-1][1]:.1f} s after `{self.change}`", flush=True)

    def why(self):
        return f"{self.down()} clients without a connection; last push not complete or without an answer " \
               f"{time.monotonic() - self.ledger.bad_at:.1f} s ago; {dict(self.ledger.counts)}"

    def line(self):
        counts, nodes, now = self.ledger.counts, self.fleet.nodes, time.monotonic()
        return (
            f"{now - self.started:5.0f} s  nodes {len(self.fleet.running())}/{len(nodes)}"
            f"  clients {self.crowd.opened()}/{self.arrived}  pushes {counts['pushes']}"
            f"  texts {self.crowd.counts['texts']}  lost {counts['lost']}  doubled {len(self.crowd.doubles)}"
            f"  not complete {counts['not complete']}  no answer {counts['no answer']}"
            f"  {'settled' if self.settled else f'{now - self.changed_at:.0f} s after `{self.change}`'}"
        )

    def finish(self):
        """No more pushes; waits for what is on its way. Whether nothing was lost or doubled."""
        self._quiet_ends()
        self.quiet_from = time.monotonic()
        self.pusher.stop()
        self.ledger.judge(over=True)
        return not self.ledger.lost and not self.crowd.doubles and not self.ledger.open

    def quiet(self):
        """(complete, recipients) of the pushes that were sent and answered in quiet times: after a change had settled
        and before the next one. A change's own time is what `times` says, and in it verdicts may be anything."""
        return in_quiet(list(self.ledger.answers), self.quiets)

    def sums(self):
        counts, (whole, of) = self.ledger.counts, self.quiet()
        lines = [
            f"pushes {counts['pushes']}, recipients {counts['recipients']}: complete {counts['complete']}, not complete "
            f"{counts['not complete']}; without an answer {counts['no answer']} {dict(self.ledger.errors)}",
            f"texts {self.crowd.counts['texts']}, lost {counts['lost']}, doubled {len(self.crowd.doubles)}, "
            f"logins {self.crowd.counts['logins']}, connections lost {self.crowd.counts['losses']}, "
            f"refused {self.crowd.counts['refusals']}",
            f"while nothing had changed: complete {whole} of {of}",
        ]
        lines += [f"settled {seconds:.1f} s after `{change}`" for change, seconds in self.times]
        lines += [f"LOST {text}" for text in self.ledger.lost[:10]]
        lines += [f"DOUBLED push {number} at {who} on {where[0]}" for number, who, where in self.crowd.doubles[:10]]
        return "\n".join(lines)


def end_of(word):
    """Of a link: a node's number, or etcd."""
    return word if word == ETCD else number_of(word)


def number_of(word):
    """Of a node, as its line in `status` begins: n3 is node 3."""
    digits = word.removeprefix("n")
    if not digits.isdecimal() or not 0 < int(digits) < 255:
        raise ValueError(f"{word}: write the number of a node, as in `status`")
    return int(digits)


def stands(said):
    """What a node says of the cluster, in a line."""
    if "error" in said:
        return said["error"]
    others = [f"{one['node_id']} {one['state']}" for one in said["members"] if one["state"] != "active"]
    fit = "fit" if said["fit"] else "not fit"
    missing = {one["node_id"]: one.get("why_not") for one in said["members"] if one["node_id"] in said["unlinked"]}
    links = f"not linked to {missing}" if missing else "all linked"
    return f"view {said['epoch']}, {fit}, {links}, {len(said['members'])} members {others}"


def counted(node):
    """The counters that say what was not as it should be, of those above 0."""
    found = {}
    for family, labels in WORRIES:
        for label in labels:
            value = node.metric(family, f'="{label}"' if label else "")
            if value:
                found[f"{family.removeprefix('pinion_')} {label}".strip()] = int(value)
    return found


def crowd_of(count, where, platforms=(LINUX, WEB)):
    """Of every four clients two are devices of one user, so a push has more than one holder."""
    clients = []
    for number in range(count):
        second = number % 4 == 3
        clients.append(Client(f"user{number - second}", platforms[second], where))
    return clients


def read_orders(lines, orders):
    for line in lines:
        orders.put(line.strip())
    orders.put(None)


def obey(scene, orders, unattended, failures):
    """Does one order after the other, while lines are printed."""
    while not scene.over and (line := orders.get()) is not None:
        try:
            if line and unattended:
                print(f"> {line}", flush=True)
            said = scene.order(line)
            if said:
                print(said, flush=True)
        except (ValueError, RuntimeError, OSError) as fault:
            print(f"{line}: {fault}", flush=True)
            if unattended:
                failures.append(f"{line}: {fault}")
                break
    if unattended:
        scene.over = True


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/cluster.sh", description=__doc__.split("\n\n")[0], epilog=HELP,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", type=int, nargs="?", default=3)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=50, help="pushes a second")
    parser.add_argument("--recipients", type=int, default=4, help="users of a push")
    parser.add_argument("--seconds", type=float, help="end after so long")
    parser.add_argument("--script", help="orders, one per line; ends with it")
    parser.add_argument("--fence", choices=["report", "strict"], default="report", help="cluster.fence")
    parser.add_argument("--alone", action="store_true", help="gateways that know nothing of each other, without etcd")
    parser.add_argument("--flag", action="append", default=[], help="one more argument of every gateway")
    return parser.parse_args()


def main():
    given = arguments()
    fleet = Fleet(*given.flag, source="none", relays=False) if given.alone else \
        Fleet("--cluster-fence", given.fence, *given.flag, etcd_relay=True)
    orders, failures = queue.Queue(), []
    with Scene(fleet, given.clients, given.rate, given.recipients) as scene:
        try:
            scene.start(given.nodes)
            unattended = given.script is not None
            source = open(given.script, encoding="utf-8") if unattended else sys.stdin
            if unattended or given.seconds is None:
                threading.Thread(target=read_orders, args=(source, orders), daemon=True).start()
                threading.Thread(target=obey, args=(scene, orders, unattended, failures), daemon=True).start()
            end = time.monotonic() + (given.seconds or float("inf"))
            while not scene.over and time.monotonic() < end:
                time.sleep(1)
                scene.look()
                print(scene.line(), flush=True)
        except KeyboardInterrupt:
            print()
        good = scene.finish()
        print(scene.sums())
        for failure in failures:
            print(f"FAILED {failure}")
    return 0 if good and not failures else 1


if __name__ == "__main__":
    sys.exit(main())
