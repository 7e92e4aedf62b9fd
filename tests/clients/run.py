#!/usr/bin/env python3
"""Real clients against the real gateway: OpenIM's native SDK in two versions, its JavaScript SDK, and grpcio.

    work/clients/venv/bin/python tests/clients/run.py [SUITE..]

Install first: tests/clients/packages.sh, scripts/servers.sh and `cargo build --release`. Suites: those of SUITES below.
GATEWAY_BIN names another binary; SDK_LOG_LEVEL=6 shows what the native SDK thinks.
"""

import concurrent.futures
import contextlib
import os
import subprocess
import sys

import suite_cluster
import suite_cluster_clients
import suite_address
import suite_assign
import suite_drain
import suite_faults
import suite_fleet
import suite_front
import suite_grpc
import suite_grpc_js
import suite_grpc_limits
import suite_h2load
import suite_openim
import suite_openim35
import suite_push
import suite_services
import suite_sdk
import suite_strict
from checks import Checks
from gateway import Gateway
from sdk import CLIENTS

HERE = os.path.dirname(os.path.abspath(__file__))
SUITES = {
    "native-patch.10": lambda checks, gateway, api: suite_sdk.native(checks, gateway, api, "native-patch.10"),
    "native-patch.15.1": lambda checks, gateway, api: suite_sdk.native(checks, gateway, api, "native-patch.15.1"),
    "js": suite_sdk.javascript,
    "grpc": suite_grpc.run,
    "grpc-limits": suite_grpc_limits.run,
    "grpc-js": suite_grpc_js.run,
    "push": suite_push.run,
    "services": suite_services.run,
    "h2load": suite_h2load.run,
    "front": suite_front.run,
    "assign": suite_assign.run,
    "openim": suite_openim.run,
    "openim35": suite_openim35.run,
    "openim-faults": suite_faults.run,
    "openim-fleet": suite_fleet.run,
    "cluster": suite_cluster.run,
    "cluster-clients": suite_cluster_clients.run,
    "cluster-address": suite_address.run,
    "cluster-strict": suite_strict.run,
    "openim-drain": suite_drain.run,
}
SHARDS = 3
# They wait most of the time, so as many run at once; the longest begin first.
AT_ONCE = 3
LONGEST = ["cluster", "cluster-strict", "cluster-clients", "openim-fleet", "push", "openim-faults", "openim-drain"]


@contextlib.contextmanager
def api_stub():
    """The address of a running api_stub.js."""
    process = subprocess.Popen(
        ["node", os.path.join(HERE, "api_stub.js"), os.path.join(CLIENTS, "js")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def suite(checks, name):
    """With a gateway and an API of its own: no suite depends on what another does or left behind."""
    with api_stub() as api, Gateway(SHARDS) as gateway:
        print(f"{name}: {gateway.engine}", flush=True)
        SUITES[name](checks, gateway, api)

        def clean_stop():
            status = gateway.stop()
            assert status == 0, f"exit status {status}\n" + "\n".join(gateway.lines[-20:])

        checks.run(f"{name}: SIGTERM ends the gateway with exit status 0", clean_stop)


def main():
    chosen = sys.argv[1:] or list(SUITES)
    chosen.sort(key=lambda name: LONGEST.index(name) if name in LONGEST else len(LONGEST))
    checks = Checks()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(suite, checks, name): name for name in chosen}
        for ended in concurrent.futures.as_completed(running):
            if ended.exception():  # not of a check: the suite itself could not go on
                checks.run(f"{running[ended]}: runs to its end", ended.result)
    return checks.close("clients")


sys.exit(main())
