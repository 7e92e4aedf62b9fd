"""Conversations in memory: keys (spec 3.3), numbers, messages, who takes part."""

import time

from stubs import msg, sdkws

SINGLE, WRITE_GROUP, GROUP, NOTIFICATION = 1, 2, 3, 4
NOTIFICATION_PREFIX = "n_"


def wants(message, option):
    """What an option says; missing is true."""
    return message.options.get(option, True)


def key(compat, message):
    """The conversation that a message belongs to."""
    chat = wants(message, "isNotNotification")
    ends = [message.sendID, message.recvID]
    pair, unsorted = "_".join(sorted(ends, key=str.encode)), "_".join(ends)
    kinds = {
        SINGLE: (f"si_{pair}", f"n_{pair}"),
        WRITE_GROUP: (f"g_{message.groupID}", f"n_{message.groupID}"),
        GROUP: (f"sg_{message.groupID}", f"n_{message.groupID}"),
        NOTIFICATION: (f"sn_{unsorted}", f"n_{unsorted}") if compat.old else (f"sn_{pair}", f"n_{pair}"),
    }
    of_chat, of_notification = kinds.get(message.sessionType, ("", ""))
    return of_chat if chat else of_notification


class Conversation:
    """Messages by number from 1 on; `read` has the newest number that each user is known to have read."""

    def __init__(self, name, users):
        self.name = name
        self.messages = []
        self.newest_at = 0
        self.read = {user: 0 for user in users}

    @property
    def max_seq(self):
        return len(self.messages)

    def append(self, message):
        message.seq = self.max_seq + 1
        self.messages.append(message)
        self.newest_at = int(time.time() * 1000)
        if message.sendID in self.read:
            self.read[message.sendID] = message.seq

    def range(self, begin, end, num):
        """The newest `num` of these numbers (0: all), in ascending order."""
        begin, end = max(begin, 1), min(end, self.max_seq)
        if num > 0:
            begin = max(begin, end - num + 1)
        return self.messages[begin - 1:end] if begin <= end else []

    def exactly(self, seqs):
        return [self.messages[seq - 1] for seq in sorted(set(seqs)) if 1 <= seq <= self.max_seq]


class Conversations:
    """All of them, and the groups that a test made."""

    def __init__(self):
        self.all = {}
        self.groups = {}

    def take(self, name, message):
        """Gives the message its number and keeps it."""
        conversation = self.all.setdefault(name, Conversation(name, ()))
        for user in self.users(message):
            conversation.read.setdefault(user, 0)
        conversation.append(message)

    def users(self, message):
        """Whoever takes part in what this message is of."""
        if message.sessionType in (WRITE_GROUP, GROUP):
            return self.groups.get(message.groupID, [message.sendID])
        return [message.sendID, message.recvID]

    def find(self, user, name):
        """None unless the user takes part."""
        found = self.all.get(name)
        return found if found and user in found.read else None

    def of_user(self, user):
        return [conversation for conversation in self.all.values() if user in conversation.read]


def put(answer, name, messages, is_end, end_seq):
    """Notifications travel in a map of their own."""
    side = answer.notificationMsgs if name.startswith(NOTIFICATION_PREFIX) else answer.msgs
    side[name].CopyFrom(sdkws.PullMsgs(Msgs=messages, isEnd=is_end, endSeq=end_seq))


def by_ranges(conversations, request):
    """1002."""
    answer = sdkws.PullMessageBySeqsResp()
    for wanted in request.seqRanges:
        found = conversations.find(request.userID, wanted.conversationID)
        if not found:
            continue
        messages = found.range(wanted.begin, wanted.end, wanted.num)
        if request.order == sdkws.PullOrderDesc:
            end_seq = messages[0].seq if messages else min(wanted.end, found.max_seq)
            is_end = end_seq <= 1
        else:
            end_seq = min(wanted.end, found.max_seq)
            is_end = wanted.end >= found.max_seq
        put(answer, wanted.conversationID, messages, is_end, end_seq)
    return answer


def by_seqs(conversations, request):
    """1005."""
    answer = msg.GetSeqMessageResp()
    for wanted in request.conversations:
        found = conversations.find(request.userID, wanted.conversationID)
        if not found:
            continue
        messages = found.exactly(wanted.seqs)
        if request.order == sdkws.PullOrderDesc:
            is_end, end_seq = bool(wanted.seqs) and min(wanted.seqs) <= 1, min(1, found.max_seq)
        else:
            is_end, end_seq = bool(wanted.seqs) and max(wanted.seqs) >= found.max_seq, found.max_seq
        put(answer, wanted.conversationID, messages, is_end, end_seq)
    return answer
