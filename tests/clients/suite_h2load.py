"""h2load: HTTP/2 of a third maker (nghttp2) under load. It counts HTTP statuses only, so nghttp shows one call's
`grpc-status`, and the gateway's own counters must name every call as answered."""

import os
import re
import struct
import subprocess
import tempfile

from checks import equal, until
from push_api import SERVICE, PushApi, push_request
from suite_grpc_limits import idle

HEADERS = ["content-type: application/grpc", "te: trailers", "operationid: h2load"]
# Calls, connections, calls at once on each.
SHAPES = [(20_000, 8, 32), (5_000, 1, 1000), (1_000, 100, 1)]
LOAD_SECONDS = 300


def run(checks, gateway, _api):
    with PushApi(gateway.grpc) as api, tempfile.TemporaryDirectory() as folder:
        body = os.path.join(folder, "body")
        message = push_request("sender", ["nobody", "absent"], "under load").SerializeToString()
        with open(body, "wb") as file:
            file.write(struct.pack(">BI", 0, len(message)) + message)
        checks.run("h2load: nghttp sees status 0 in the trailers", lambda: one_call(gateway, body))
        answered = 1
        for shape in SHAPES:
            answered += shape[0]
            name = f"{shape[0]} calls, {shape[1]} connections, {shape[2]} at once on each"
            checks.run(f"h2load: {name}", lambda: load(gateway, body, shape))
            checks.run(f"h2load: {name}: each was answered with OK", lambda: counted(gateway, answered))
        api.push("sender", ["nobody"], "after the load")
        checks.run("h2load: no connection and no call is left behind", lambda: idle(gateway))


def headers():
    return [part for header in HEADERS for part in ("-H", header)]


def url(gateway):
    return f"http://{gateway.grpc}/{SERVICE}/SuperGroupOnlineBatchPushOneMsg"


def one_call(gateway, body):
    command = ["nghttp", "-nv", "--no-dep", "-H", ":method: POST", *headers(), "-d", body, url(gateway)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    statuses = re.findall(r"recv \(\S+\) (:status|content-type|grpc-status): (\S+)", shown)
    equal(statuses, [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")], "answer")


def load(gateway, body, shape):
    calls, connections, streams = shape
    command = ["h2load", "-n", calls, "-c", connections, "-m", streams, "-T", LOAD_SECONDS, *headers(), "-d", body]
    loaded = subprocess.run(
        [*map(str, command), url(gateway)], capture_output=True, text=True, timeout=LOAD_SECONDS + 30, check=True
    ).stdout
    (line,) = re.findall(r"^requests: .*", loaded, re.M)
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", line)}
    wanted = {"total": calls, "started": calls, "done": calls, "succeeded": calls, "failed": 0, "errored": 0, "timeout": 0}
    equal(counts, wanted, "h2load")
    print(re.search(r"finished in .*", loaded).group(0))


def counted(gateway, answered):
    """Since the start of the gateway. Counters are published a moment later."""
    ok = lambda: gateway.metric("pinion_rpc_calls_total", 'call="push_ok"')
    until(lambda: ok() >= answered, lambda: f"the gateway answered {ok():.0f} of {answered} calls with OK")
    equal(ok(), answered, "calls that the gateway answered with OK")
