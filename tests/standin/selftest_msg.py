"""Messages: numbers, pulls, what is refused; the keys of conversations (spec 3.3, 3.4)."""

import conversations
from names import COMPATS
from selftest_client import Client, equal, refused
from stubs import msg, push, sdkws

CONVERSATION = "si_anna_boris"


def as_user(user):
    return ("operationid", "op"), ("opuserid", user)


def run(checks, standin):
    client = Client(standin)

    def send(sender, recipient, text, options=None):
        message = sdkws.MsgData(
            sendID=sender, recvID=recipient, clientMsgID=text, sessionType=1, contentType=101, content=text.encode(),
            options=options or {},
        )
        return client.call("msg", "SendMsg", msg.SendMsgReq(msgData=message), msg.SendMsgResp, as_user(sender))

    def sent():
        for number in range(1, 6):
            answer = send("anna", "boris", f"text {number}")
            equal(answer.clientMsgID, f"text {number}", "clientMsgID")
            assert answer.serverMsgID and answer.sendTime, "server's id and time"
        send("anna", "boris", "typing", {"history": False})
        request = sdkws.GetMaxSeqReq(userID="boris")
        seqs = client.call("msg", "GetMaxSeq", request, sdkws.GetMaxSeqResp, as_user("boris"))
        equal(dict(seqs.maxSeqs), {CONVERSATION: 5}, "numbers")

    def pulled():
        for (begin, end, num, order), (wanted, is_end) in [
            ((1, 5, 0, 0), ([1, 2, 3, 4, 5], True)), ((2, 3, 0, 0), ([2, 3], False)), ((1, 5, 2, 0), ([4, 5], True)),
            ((1, 99, 0, 0), ([1, 2, 3, 4, 5], True)), ((6, 9, 0, 0), ([], True)),
            ((1, 3, 2, 1), ([2, 3], False)), ((1, 3, 9, 1), ([1, 2, 3], True)),
        ]:
            ranges = [sdkws.SeqRange(conversationID=CONVERSATION, begin=begin, end=end, num=num)]
            request = sdkws.PullMessageBySeqsReq(userID="boris", seqRanges=ranges, order=order)
            answer = client.call("msg", "PullMessageBySeqs", request, sdkws.PullMessageBySeqsResp, as_user("boris"))
            part = answer.msgs[CONVERSATION]
            what = f"{begin}..{end}, {num}, order {order}"
            equal(([m.seq for m in part.Msgs], part.isEnd), (wanted, is_end), what)

    def by_number():
        wanted = [msg.ConversationSeqs(conversationID=CONVERSATION, seqs=[4, 2, 2, 77])]
        request = msg.GetSeqMessageReq(userID="boris", conversations=wanted)
        answer = client.call("msg", "GetSeqMessage", request, msg.GetSeqMessageResp, as_user("boris"))
        equal([m.content for m in answer.msgs[CONVERSATION].Msgs], [b"text 2", b"text 4"], "messages")

    def read():
        request = msg.GetConversationsHasReadAndMaxSeqReq(userID="anna")
        answer_type = msg.GetConversationsHasReadAndMaxSeqResp
        seqs = client.call("msg", "GetConversationsHasReadAndMaxSeq", request, answer_type, as_user("anna")).seqs
        equal((seqs[CONVERSATION].maxSeq, seqs[CONVERSATION].hasReadSeq), (5, 5), "the sender has read his own")
        request = msg.GetLastMessageReq(userID="anna", conversationIDs=[CONVERSATION, "si_anna_nobody"])
        answer = client.call("msg", "GetLastMessage", request, msg.GetLastMessageResp, as_user("anna"))
        equal({name: m.content for name, m in answer.msgs.items()}, {CONVERSATION: b"text 5"}, "last")

    def not_allowed():
        request = sdkws.GetMaxSeqReq(userID="boris")
        refused(lambda: client.call("msg", "GetMaxSeq", request, sdkws.GetMaxSeqResp, as_user("anna")), 1002,
                "NoPermissionError")
        empty = msg.SendMsgReq()
        refused(lambda: client.call("msg", "SendMsg", empty, msg.SendMsgResp, as_user("anna")), 1001, "ArgsError",
                "MsgData is empty")
        request = sdkws.PullMessageBySeqsReq(
            userID="carla", seqRanges=[sdkws.SeqRange(conversationID=CONVERSATION, begin=1, end=5)]
        )
        answer = client.call("msg", "PullMessageBySeqs", request, sdkws.PullMessageBySeqsResp, as_user("carla"))
        equal(len(answer.msgs), 0, "whoever takes no part reads nothing")

    def token_deleted():
        request = push.DelUserPushTokenReq(userID="anna", platformID=2)
        client.call("push", "DelUserPushToken", request, push.DelUserPushTokenResp)
        seen = standin.ask("records", service="push", method="DelUserPushToken")["calls"][-1]
        equal((seen["request"], seen["outcome"]), ({"userID": "anna", "platformID": 2}, 0), "record")
        equal(seen["metadata"]["operationid"], "op", "its metadata")

    checks.run("standin: messages get numbers", sent)
    checks.run("standin: messages by range", pulled)
    checks.run("standin: messages by number", by_number)
    checks.run("standin: read state and last messages", read)
    checks.run("standin: what is not allowed", not_allowed)
    checks.run("standin: DelUserPushToken is written down", token_deleted)
    checks.run("standin: keys of conversations", keys)


def keys():
    cases = [
        (1, True, "si_a_b", "si_a_b"), (1, False, "n_a_b", "n_a_b"), (2, True, "g_g", "g_g"), (2, False, "n_g", "n_g"),
        (3, True, "sg_g", "sg_g"), (3, False, "n_g", "n_g"), (4, True, "sn_a_b", "sn_b_a"),
        (4, False, "n_a_b", "n_b_a"), (9, True, "", ""),
    ]
    for session, chat, newer, older in cases:
        options = {} if chat else {"isNotNotification": False}
        message = sdkws.MsgData(sendID="b", recvID="a", groupID="g", sessionType=session, options=options)
        equal(conversations.key(COMPATS["patch16"], message), newer, f"session type {session}, {chat}")
        equal(conversations.key(COMPATS["v3.5"], message), older, f"session type {session}, {chat}, in 3.5")
