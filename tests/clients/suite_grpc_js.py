"""The checks of grpc_js.js: what npm's @grpc/grpc-js makes of the gateway, and what the user saw of it."""

import json
import os
import subprocess

from checks import until
from gateway import ROOT
from listener import Listener
from push_api import PushApi
from suite_grpc_limits import idle

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "grpc_js.js")
MODULES = os.path.join(ROOT, "work", "clients", "grpc-js")
SCRIPT_SECONDS = 240


def run(checks, gateway, _api):
    with PushApi(gateway.grpc) as api, Listener(gateway, "jsuser") as listener:
        until(lambda: api.online(["jsuser"]), lambda: "jsuser is not online")
        given = {
            "modules": MODULES, "proto": os.path.join(ROOT, "proto"), "grpc": gateway.grpc, "http": gateway.http,
            "user": "jsuser",
        }
        checks.run("grpc-js: the script ran to its end", lambda: script(checks, json.dumps(given)))
        checks.run("grpc-js: the user got all messages in order",
                   lambda: listener.wait_texts(["unary", *(f"stream {n}" for n in range(300))]))
        checks.run("grpc-js: no connection and no call is left behind", lambda: idle(gateway))


def script(checks, given):
    command = ["node", SCRIPT, given]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=SCRIPT_SECONDS)
    for line in ended.stdout.splitlines():
        report(checks, json.loads(line))
    ended.check_returncode()


def report(checks, line):
    def outcome():
        assert not line["error"], line["error"]

    checks.run(f"grpc-js: {line['name']} ({line['seconds']:.1f} s)", outcome)
