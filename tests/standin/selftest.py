#!/usr/bin/env python3
"""Does the stand-in behave as the specification says? Against a real etcd and a real Redis.

    work/clients/venv/bin/python tests/standin/selftest.py

Install first: tests/clients/packages.sh, Debian's etcd-server, redis-server and curl. Ends with a line like
`standin: 50 passed, 0 failed`."""

import contextlib
import subprocess
import sys

import selftest_auth
import selftest_faults
import selftest_msg
import selftest_policy
import selftest_push
import selftest_user
from selftest_client import Checks
from servers import Etcd, Redis
from standin_process import Standin

ALL = "auth,user,msg,push,gateway"
# A gateway tells of presence every second; here it need not be waited for.
QUICK = ("--flush-seconds", "0.02")


def redis_cli(address, database="0"):
    """Runs a command of Redis; the lines that are not empty."""
    port = address.rsplit(":", 1)[1]

    def run(*command):
        shown = subprocess.run(
            ["redis-cli", "-p", port, "-n", database, *command], capture_output=True, text=True, timeout=60, check=True
        )
        return [line for line in shown.stdout.splitlines() if line]

    return run


def main():
    checks = Checks()
    with contextlib.ExitStack() as stack:
        etcd, redis = stack.enter_context(Etcd()), stack.enter_context(Redis())
        cli = redis_cli(redis.address)
        start = lambda services, compat, *flags: stack.enter_context(
            Standin("--services", services, "--compat", compat, *QUICK, *flags)
        )
        real = ("--etcd", etcd.address, "--redis", redis.address)
        first = start(ALL, "patch16", *real)
        selftest_auth.run(checks, first, cli)
        selftest_user.run(checks, first, redis.address, cli)
        selftest_msg.run(checks, first)
        selftest_push.run(checks, first, start("gateway", "patch16", *real), real)
        selftest_faults.run(checks, first)
        selftest_faults.full_load(checks, etcd.address, redis.address)
        selftest_faults.redis_away(checks, first, redis)
        # 3.5 has other keys in Redis; MAIN needs neither here.
        newest, oldest = start(ALL, "main", "--static", "--online-seconds", "1"), start(ALL, "v3.5", *real)
        selftest_auth.other_versions(checks, newest, oldest)
        selftest_push.newest(checks, newest)
        for policy in selftest_policy.POLICIES:
            with Standin("--services", ALL, "--static", "--policy", str(policy), *QUICK) as alone:
                selftest_policy.run(checks, alone, policy)
        selftest_push.oldest(checks, oldest)
        selftest_user.oldest(checks, oldest, cli)
        selftest_user.short_lives(checks, newest)
        # Last: it takes etcd's data away.
        selftest_faults.discovery(checks, etcd)
    return checks.close("standin")


sys.exit(main())
