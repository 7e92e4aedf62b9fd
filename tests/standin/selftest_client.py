"""What the self test shares: a grpcio client of its own, and a look at the raw answer."""

import os
import subprocess
import sys

# grpcio writes about connections that are cut here on purpose.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients"))

import grpc  # noqa: E402
from checks import Checks, equal, until  # noqa: E402, F401
from errors import OpenImError, of_call  # noqa: E402, F401
from names import COMPATS, path  # noqa: E402

CALL_SECONDS = 60
OPERATION = ("operationid", "op")
EMPTY_MESSAGE = bytes(5)


class Client:
    """Calls the services of a stand-in."""

    def __init__(self, standin, compat="patch16"):
        self.standin, self.compat = standin, COMPATS[compat]
        self.channels = {}

    def call(self, service, method, request, answer_type, metadata=(OPERATION,), seconds=CALL_SECONDS):
        """The answer; OpenImError otherwise."""
        try:
            return self.start(service, method, request, answer_type, metadata, seconds).result()
        except grpc.RpcError as fault:
            raise of_call(fault) from fault

    def start(self, service, method, request, answer_type, metadata=(OPERATION,), seconds=CALL_SECONDS):
        """The call, as grpcio's future."""
        address = self.standin.services[service]
        if address not in self.channels:
            self.channels[address] = grpc.insecure_channel(address, [("grpc.max_reconnect_backoff_ms", 200)])
        method = self.channels[address].unary_unary(
            path(self.compat, service, method), type(request).SerializeToString, answer_type.FromString
        )
        return method.future(request, timeout=seconds, metadata=metadata, wait_for_ready=True)

    def raw(self, service, method, request):
        """Headers and trailers by name, as curl saw them on the wire."""
        data = request.SerializeToString()
        url = f"http://{self.standin.services[service]}{path(self.compat, service, method)}"
        command = ["curl", "-s", "--http2-prior-knowledge", "-D", "-", "-o", "/dev/null", "--data-binary", "@-"]
        for header in ("content-type: application/grpc", "te: trailers", "operationid: op"):
            command += ["-H", header]
        frame = b"\0" + len(data).to_bytes(4, "big") + data
        shown = subprocess.run([*command, url], input=frame, capture_output=True, timeout=60, check=True).stdout
        lines = [line.split(": ", 1) for line in shown.decode().splitlines() if ": " in line]
        return {name: value.strip() for name, value in lines}


def refused(call, code, message=None, detail=None):
    """The call fails like this; None is not looked at."""
    try:
        call()
    except OpenImError as fault:
        got = (fault.code, fault.message, fault.detail)
        for is_, wanted in zip(got, (code, message, detail)):
            assert wanted is None or is_ == wanted, f"got {got}, wanted {(code, message, detail)}"
        return
    raise AssertionError("it was accepted")
