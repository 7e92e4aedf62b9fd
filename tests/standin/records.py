"""Every call that came in, as a test reads it back."""

import collections
import time

from google.protobuf.json_format import MessageToDict

CALLS_MAX = 100_000


class Call:
    """`outcome` is the grpc-status once it ended, None before. `at` is unix milliseconds of its arrival."""

    def __init__(self, number, service, method, request, metadata):
        self.number, self.service, self.method = number, service, method
        self.request, self.metadata = request, metadata
        self.at = int(time.time() * 1000)
        self.outcome = None

    def shown(self):
        """Field names as in the proto files; 64-bit numbers and bytes (base64) are strings."""
        request = MessageToDict(self.request, preserving_proto_field_name=True)
        return {
            "number": self.number, "service": self.service, "method": self.method, "at": self.at,
            "metadata": self.metadata, "request": request, "outcome": self.outcome,
        }


class Records:
    """The newest CALLS_MAX of them; the counts are of all."""

    def __init__(self):
        self.calls = collections.deque(maxlen=CALLS_MAX)
        self.counts = collections.Counter()

    def add(self, service, method, request, metadata):
        call = Call(self.counts.total(), service, method, request, metadata)
        self.calls.append(call)
        self.counts[f"{service}/{method}"] += 1
        return call

    def of(self, service=None, method=None, since=0):
        """From this number on, in the order of arrival."""
        for call in self.calls:
            if call.number >= since and service in (None, call.service) and method in (None, call.method):
                yield call

    def presence(self, since=0):
        """Each entry of each setUserOnlineStatus."""
        for call in self.of("user", "setUserOnlineStatus", since):
            for entry in call.request.status:
                yield {
                    "user": entry.userID, "connID": entry.connID, "online": list(entry.online),
                    "offline": list(entry.offline), "operation": call.metadata.get("operationid"),
                    "call": call.number, "at": call.at, "outcome": call.outcome,
                }
