"""Serves one of OpenIM's services over gRPC and registers it; each call passes the metadata rules (spec 6.1), the
records and the switches on its way."""

import grpc

from errors import INTERNAL, OpenImError, abort
from names import PATHS
from ports import candidates

INVALID_ARGUMENT = 3
# The limit of patch.10 and later (spec 6.5).
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A service that comes back must have its port to itself.
    ("grpc.so_reuseport", 0),
]


class CallContext:
    """What a handler knows of its caller: metadata by key, the first value of each."""

    def __init__(self, metadata):
        self.metadata = metadata

    @property
    def operation(self):
        return self.metadata.get("operationid", "")

    @property
    def user(self):
        return self.metadata.get("opuserid", "")

    @property
    def temp_admin(self):
        return "ctximtempadminkey" in self.metadata


def checked_metadata(compat, pairs):
    """Raises what OpenIM's interceptor answers."""
    metadata, names = {}, []
    for key, value in pairs:
        metadata.setdefault(key, value)
        names.append(key)
    operations = names.count("operationid")
    if operations != 1 or (compat.old and not metadata["operationid"]):
        raise OpenImError(INVALID_ARGUMENT, "operationID error")
    for key, value in pairs:
        if key == "customheader" and value.lower() not in metadata:
            raise OpenImError(INVALID_ARGUMENT, f"missing metadata key {value}")
    return metadata


def plain_error(compat, fault):
    """Any other error: 500 with its text; MAIN has the text as detail only (spec 6.4)."""
    if compat.always_details:
        return OpenImError(INTERNAL, str(fault))
    return OpenImError(INTERNAL, detail=str(fault))


class Host:
    """One service. `methods` has (request type, coroutine of request and CallContext) by method name."""

    def __init__(self, word, methods, world):
        self.word, self.methods, self.world = word, methods, world
        self.server = self.registration = None
        self.port = 0

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    async def start(self):
        """Listens, on the port it had before if it had one, then registers."""
        self.server = grpc.aio.server(options=OPTIONS)
        handlers = {name: self._handler(name) for name in self.methods}
        service = self.world.compat.prefix + PATHS[self.word]
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self._bind()
        await self.server.start()
        self.registration = await self.world.discovery.register(self.word, self.address)

    async def stop(self):
        """Cuts its connections and deregisters; nothing if it is not there."""
        if self.server:
            server, self.server = self.server, None
            await server.stop(None)
            await self.registration.close()

    async def crash(self):
        """Cuts its connections; its address stays registered, as after kill -9, until the lease ends."""
        server, self.server = self.server, None
        await server.stop(None)
        await self.registration.abandon()

    def _bind(self):
        for port in [self.port] if self.port else candidates():
            try:
                self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
                return
            except RuntimeError as fault:
                taken = fault
        raise RuntimeError(f"{self.word}: cannot listen: {taken}")

    def _handler(self, method):
        request_type, work = self.methods[method]

        async def handle(request, context):
            pairs = [(key, value) for key, value in context.invocation_metadata() if isinstance(value, str)]
            call = self.world.records.add(self.word, method, request, dict(pairs))
            try:
                answer = await self._carry_out(work, method, request, pairs)
            except OpenImError as fault:
                call.outcome = fault.code
                await abort(context, self.world.compat, fault)
            except Exception as fault:  # Redis is away, for example: an error of no kind of OpenIM's
                call.outcome = INTERNAL
                await abort(context, self.world.compat, plain_error(self.world.compat, fault))
            call.outcome = 0
            return answer

        return grpc.unary_unary_rpc_method_handler(
            handle, request_type.FromString, lambda answer: answer.SerializeToString()
        )

    async def _carry_out(self, work, method, request, pairs):
        switch = self.world.switches.of(self.word, method)
        await switch.before()
        answer = await work(request, CallContext(checked_metadata(self.world.compat, pairs)))
        switch.after()
        return answer
