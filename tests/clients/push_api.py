"""The push API through grpcio, as OpenIM's services use it; stubs are generated from proto/ by packages.sh."""

import base64
import json
import os
import sys
import time
import uuid

import grpc

from gateway import ROOT

sys.path.insert(0, os.path.join(ROOT, "work", "clients", "stubs"))
import rpc_status_pb2  # noqa: E402
from openim.errinfo import errinfo_pb2  # noqa: E402
from openim.msggateway import msggateway_pb2, msggateway_pb2_grpc  # noqa: E402
from openim.sdkws import sdkws_pb2  # noqa: E402

CALL_SECONDS = 10
ADMIN = "imAdmin"
TEXT, SINGLE_CHAT, SENT, FROM_USER = 101, 1, 2, 100


class PushApi:
    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.stub = msggateway_pb2_grpc.msgGatewayStub(self.channel)

    def close(self):
        self.channel.close()

    def push(self, sender, recipients, text):
        """Results by user id. One-to-one text, sequence number 0: shown at once, no bookkeeping at the client."""
        request = msggateway_pb2.OnlineBatchPushOneMsgReq(
            msgData=message(sender, recipients[0], text), pushToUserIDs=recipients
        )
        answer = self.call(self.stub.SuperGroupOnlineBatchPushOneMsg, request)
        assert len(answer.singlePushResult) == len(recipients), f"{answer}"
        return {result.userID: result for result in answer.singlePushResult}

    def kick(self, platform, users):
        request = msggateway_pb2.KickUserOfflineReq(platformID=platform, kickUserIDList=users)
        return self.call(self.stub.KickUserOffline, request)

    def online(self, users, as_user=ADMIN):
        """Platforms by user id, of those who have a connection."""
        request = msggateway_pb2.GetUsersOnlineStatusReq(userIDs=users)
        answer = self.call(self.stub.GetUsersOnlineStatus, request, [("opuserid", as_user)])
        return {r.userID: sorted(d.platformID for d in r.detailPlatformStatus) for r in answer.successResult}

    def call(self, method, request, metadata=()):
        metadata = [("operationid", f"op-{uuid.uuid4()}"), *metadata]
        return method(request, timeout=CALL_SECONDS, metadata=metadata)


def message(sender, recipient, text):
    now = int(time.time() * 1000)
    return sdkws_pb2.MsgData(
        sendID=sender,
        recvID=recipient,
        clientMsgID=uuid.uuid4().hex,
        serverMsgID=uuid.uuid4().hex,
        senderNickname=sender,
        senderPlatformID=1,
        sessionType=SINGLE_CHAT,
        msgFrom=FROM_USER,
        contentType=TEXT,
        content=json.dumps({"content": text}).encode(),
        sendTime=now,
        createTime=now,
        status=SENT,
    )


def openim_error(fault):
    """(code, message, cause) of an OpenIM error. grpcio knows no status above 16: it says UNKNOWN and keeps the details
    (spec 6.4), which carry the code, the message and the cause."""
    for key, value in fault.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = rpc_status_pb2.Status.FromString(value if isinstance(value, bytes) else base64.b64decode(value))
            cause = ""
            for detail in status.details:
                assert detail.type_url.endswith("openim.protobuf.ErrorInfo"), detail.type_url
                cause = errinfo_pb2.ErrorInfo.FromString(detail.value).cause
            return status.code, status.message, cause
    raise AssertionError(f"no grpc-status-details-bin in {fault.trailing_metadata()}: {fault}")
