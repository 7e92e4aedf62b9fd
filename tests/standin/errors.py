"""OpenIM's errors: a grpc-status that is OpenIM's own code, with details that say why (spec 6.4, 7.5)."""

import grpc
from google.protobuf.message import DecodeError

from stubs import errinfo, rpc_status

ARGS, NO_PERMISSION = 1001, 1002
EXPIRED, NOT_VALID_YET, MALFORMED, UNKNOWN_TOKEN, KICKED, NOT_EXIST = 1501, 1504, 1503, 1505, 1506, 1507
INTERNAL = 500
MESSAGES = {
    INTERNAL: "ServerInternalError",
    ARGS: "ArgsError",
    NO_PERMISSION: "NoPermissionError",
    EXPIRED: "TokenExpiredError",
    1502: "TokenInvalidError",
    MALFORMED: "TokenMalformedError",
    NOT_VALID_YET: "TokenNotValidYetError",
    UNKNOWN_TOKEN: "TokenUnknownError",
    KICKED: "TokenKickedError",
    NOT_EXIST: "TokenNotExistError",
}
GRPC_CODE_MAX = 16
DETAILS = "grpc-status-details-bin"
_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}


class OpenImError(Exception):
    """`code` above 16 is OpenIM's and travels with details; below it is gRPC's own, without."""

    def __init__(self, code, message=None, detail=""):
        super().__init__(f"{code} {message or MESSAGES.get(code, '')} {detail}")
        self.code = code
        self.message = MESSAGES.get(code, "") if message is None else message
        self.detail = detail


class RawCode:
    """A status beyond gRPC's own. grpc.aio takes the number out of `value` and writes whatever it is."""

    def __init__(self, number):
        self.value = (number, str(number))


def details_bytes(compat, fault):
    """`grpc-status-details-bin`, or None where that version sends none."""
    if fault.code <= GRPC_CODE_MAX or not (fault.detail or compat.always_details):
        return None
    info = errinfo.ErrorInfo(cause=fault.detail or fault.message)
    status = rpc_status.Status(code=fault.code, message=fault.message)
    type_url = f"type.googleapis.com/{compat.prefix}protobuf.ErrorInfo"
    status.details.add(type_url=type_url, value=info.SerializeToString())
    return status.SerializeToString()


async def abort(context, compat, fault):
    """Ends the call with this error; raises."""
    details = details_bytes(compat, fault)
    code = _GRPC_CODES.get(fault.code) or RawCode(fault.code)
    await context.abort(code, fault.message, ((DETAILS, details),) if details else ())


def of_call(fault):
    """The OpenImError that a failed call of ours (grpc.RpcError) stands for. grpcio shows no status above 16: the
    details have it."""
    found = [value for key, value in fault.trailing_metadata() or () if key == DETAILS]
    try:
        status = rpc_status.Status.FromString(found[0]) if found else None
        info = errinfo.ErrorInfo.FromString(status.details[0].value) if status and status.details else None
    except DecodeError:
        status = info = None
    if status is None:
        return OpenImError(fault.code().value[0], fault.details() or "")
    return OpenImError(status.code, status.message, info.cause if info else "")
