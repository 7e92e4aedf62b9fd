"""OpenIM's msg service: numbers, keeps and hands out messages, and gives them to push, as Kafka would carry them there.

Not here: Kafka, webhooks, friends and black lists. What is sent while no push service runs in this process is kept
and not pushed."""

import time
import uuid

import conversations as store
from errors import ARGS, NO_PERMISSION, OpenImError
from stubs import msg, sdkws

SENDING, SENT = 1, 2


class Msg:
    """`to_push` takes (PushJob fields): message, conversation, operation, user."""

    def __init__(self, world, admins, to_push):
        self.world, self.admins, self.to_push = world, admins, to_push
        self.conversations = store.Conversations()

    def methods(self):
        methods = {
            "GetMaxSeq": (sdkws.GetMaxSeqReq, self.max_seqs),
            "SendMsg": (msg.SendMsgReq, self.send),
            "PullMessageBySeqs": (sdkws.PullMessageBySeqsReq, self.by_ranges),
        }
        if self.world.compat.old:
            # None of the others is there yet.
            return methods
        return {
            **methods,
            "GetSeqMessage": (msg.GetSeqMessageReq, self.by_seqs),
            "GetConversationsHasReadAndMaxSeq": (msg.GetConversationsHasReadAndMaxSeqReq, self.read_seqs),
            "GetLastMessage": (msg.GetLastMessageReq, self.last),
        }

    def may(self, context, user):
        if user != context.user and context.user not in self.admins:
            raise OpenImError(NO_PERMISSION, detail="no permission")

    async def max_seqs(self, request, context):
        self.may(context, request.userID)
        found = self.conversations.of_user(request.userID)
        return sdkws.GetMaxSeqResp(maxSeqs={conversation.name: conversation.max_seq for conversation in found})

    async def send(self, request, context):
        if not request.HasField("msgData"):
            raise OpenImError(ARGS, detail="MsgData is empty")
        message = request.msgData
        self.may(context, message.sendID)
        if not message.content:
            raise OpenImError(ARGS, detail="content is empty")
        if message.sessionType in (store.SINGLE, store.NOTIFICATION) and not message.recvID:
            raise OpenImError(ARGS, detail="recvID is empty")
        return self.take(message, context.operation, context.user)

    def take(self, message, operation, user):
        """A message from a client or from the test."""
        message.serverMsgID = uuid.uuid4().hex
        message.status = SENDING
        message.sendTime = message.sendTime or int(time.time() * 1000)
        conversation = store.key(self.world.compat, message)
        if store.wants(message, "history"):
            self.conversations.take(conversation, message)
        self.to_push(message, conversation, operation, user)
        return msg.SendMsgResp(
            serverMsgID=message.serverMsgID, clientMsgID=message.clientMsgID, sendTime=message.sendTime
        )

    async def by_ranges(self, request, context):
        self.may(context, request.userID)
        return store.by_ranges(self.conversations, request)

    async def by_seqs(self, request, context):
        self.may(context, request.userID)
        return store.by_seqs(self.conversations, request)

    async def read_seqs(self, request, context):
        self.may(context, request.userID)
        found = self.named(request) if request.conversationIDs else self.conversations.of_user(request.userID)
        answer = msg.GetConversationsHasReadAndMaxSeqResp()
        for conversation in found:
            seqs = msg.Seqs(
                maxSeq=conversation.max_seq,
                hasReadSeq=conversation.read[request.userID],
                maxSeqTime=conversation.newest_at,
            )
            answer.seqs[conversation.name].CopyFrom(seqs)
        return answer

    async def last(self, request, context):
        self.may(context, request.userID)
        answer = msg.GetLastMessageResp()
        for conversation in self.named(request):
            if conversation.messages:
                answer.msgs[conversation.name].CopyFrom(conversation.messages[-1])
        return answer

    def named(self, request):
        """The conversations that a request names and its user takes part in."""
        found = [self.conversations.find(request.userID, name) for name in request.conversationIDs]
        return [conversation for conversation in found if conversation]
