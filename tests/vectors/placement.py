#!/usr/bin/env python3
"""Where a user's home is, a second time: weighted rendezvous hashing and OpenIM's ring, with nothing but Python's
standard library (the formulas: src/cluster/rendezvous.rs, src/cluster/ring.rs).

    placement.py            compares with placement.json, ends with 1 if anything differs
    placement.py --write    writes placement.json
"""

import bisect
import functools
import hashlib
import json
import sys
import zlib
from pathlib import Path

FILE = Path(__file__).with_name("placement.json")
BITS = (1 << 64) - 1
FRACTION_BITS = 32
POINTS_PER_MEMBER = 20
SET = "openimserver-openim-msggateway"
HEADLESS = "{node_id}." + SET + "-headless.default.svc.cluster.local"


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & BITS
    return z ^ (z >> 31)


def key(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & BITS
    return mix(h)


def cost(h):
    h = max(h, 1)
    log = h.bit_length() - 1
    x = h << (63 - log)
    for _ in range(FRACTION_BITS):
        x = (x * x) >> 63
        bit = x >> 64
        log = 2 * log + bit
        x >>= bit
    return (64 << FRACTION_BITS) - log


def rendezvous(user, nodes):
    """Node ids, the home first. `nodes` is a list of (id, weight)."""
    scored = []
    for node, weight in nodes:
        h = mix((key(user) + key(node)) & BITS)
        scored.append((cost(h), weight, h, node))

    def order(a, b):
        mine, others = a[0] * b[1], b[0] * a[1]
        return (mine > others) - (mine < others) or (b[2] > a[2]) - (b[2] < a[2]) or (a[3] > b[3]) - (a[3] < b[3])

    return [node for *_, node in sorted(scored, key=functools.cmp_to_key(order))]


def ring(user, nodes, rule):
    """The same in OpenIM's ring. The hashed string of a node is `rule` with its id in it; weights do not count."""
    points = {}
    for node in sorted((node for node, _ in nodes), key=lambda node: (len(node), node)):
        for number in range(POINTS_PER_MEMBER):
            points[zlib.crc32((str(number) + rule.replace("{node_id}", node)).encode())] = node
    order = sorted(points)
    at = bisect.bisect_right(order, zlib.crc32(user.encode()))
    return list(dict.fromkeys(points[point] for point in order[at:] + order[:at]))


def fingerprint(nodes, rule=None):
    name = "rendezvous/1" if rule is None else "openim-ring/1"
    lines = [f"pinion-placement {name}"] + ([] if rule is None else [f"key {rule}"])
    lines += [f"{node} {weight}" for node, weight in sorted(nodes)]
    return hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()[:16]


USERS = ["", "u1", "user1", "imAdmin", "3893196195", "IMADMIN", " u1", "用户", "a" * 64, "node-a"]
MANY = 1000
LISTS = [
    [("node-a", 100)],
    [("node-a", 100), ("node-b", 100)],
    [("node-a", 100), ("node-b", 100), ("node-c", 100)],
    [("node-a", 100), ("node-b", 200), ("node-c", 50)],
    [("gw.eu_1", 1), ("gw.eu_2", 10000), ("gw.us_1", 9999), ("gw.us_2", 333)],
    [(f"{SET}-{number}", 100) for number in range(12)],
]
HASHES = [0, 1, 2, 3, 1 << 32, (1 << 63) - 1, 1 << 63, 0xDEADBEEFDEADBEEF, BITS - 1, BITS]


def placed(nodes, rule=None):
    ranked = (lambda user: rendezvous(user, nodes)) if rule is None else (lambda user: ring(user, nodes, rule))
    homes = "".join(ranked(f"user{number}")[0] + "\n" for number in range(MANY))
    return {
        **({} if rule is None else {"key": rule}),
        "nodes": [list(node) for node in nodes],
        "fingerprint": fingerprint(nodes, rule),
        "ranked": {user: ranked(user) for user in USERS},
        "homes_sha256": hashlib.sha256(homes.encode()).hexdigest(),
    }


def vectors():
    return {
        "about": f"Homes of users. Written by placement.py. homes_sha256: of the homes of user0 to user{MANY - 1}, each "
                 "followed by a line feed. Fingerprints and hashes are hexadecimal.",
        "keys": {text: f"{key(text):016x}" for text in USERS},
        "costs": {f"{h:016x}": cost(h) for h in HASHES},
        "rendezvous": [placed(nodes) for nodes in LISTS],
        "openim_ring": [placed(nodes, rule) for nodes in (LISTS[3], LISTS[5]) for rule in (HEADLESS + ":88", HEADLESS)],
    }


def main():
    text = json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(text, encoding="utf-8")
        return 0
    if FILE.read_text(encoding="utf-8") == text:
        print(f"{FILE.name}: as computed here")
        return 0
    print(f"{FILE.name} is not what placement.py computes", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
