"""Ports for servers that go away and come back at the same address.

Port 0 gives one of those that outgoing connections take as well: while the server is away, any of them may have it.
These are below (Linux: net.ipv4.ip_local_port_range starts at 32768). Whoever takes one must be ready to find it
taken."""

import random

LASTING_PORTS = range(20_000, 32_000)
TRIES = 20


def candidates():
    """Some of them in random order, no two alike."""
    return random.sample(LASTING_PORTS, TRIES)
