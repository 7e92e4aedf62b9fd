"""Calls to other services of OpenIM's kind: by path, over one channel per address."""

import grpc

from errors import OpenImError, of_call
from host import MESSAGE_BYTES_MAX
from names import path

# gRPC's own code for a call that cannot even be made.
INTERNAL = 13
OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # An address that comes back is called again at once, not after a back-off of seconds.
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
]


class Calls:
    """All channels of the process."""

    def __init__(self, compat):
        self.compat = compat
        self.channels = {}

    async def call(self, address, service, method, request, answer_type, metadata, seconds=None):
        """One call, without a deadline unless one is named, as OpenIM's are. Raises OpenImError."""
        if address not in self.channels:
            self.channels[address] = grpc.aio.insecure_channel(address, OPTIONS)
        method = self.channels[address].unary_unary(
            path(self.compat, service, method),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer_type.FromString,
        )
        try:
            return await method(request, metadata=metadata, timeout=seconds)
        except grpc.RpcError as fault:
            raise of_call(fault) from fault
        except Exception as fault:  # metadata that is not printable ASCII: nothing is sent (spec 6.1)
            raise OpenImError(INTERNAL, str(fault)) from fault

    async def close(self):
        for channel in self.channels.values():
            await channel.close()
