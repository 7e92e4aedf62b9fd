"""`pinion.v1.Push` through grpcio: messages, streams that stay open, verdicts put together by id."""

import queue

from checks import equal
from push_api import message, push_pb2

O = push_pb2
WRITTEN, QUEUED, DROPPED, KICKED = O.OUTCOME_WRITTEN, O.OUTCOME_QUEUED, O.OUTCOME_DROPPED, O.OUTCOME_KICKED
EXPIRED, NOT_HERE, TOO_LARGE = O.OUTCOME_EXPIRED, O.OUTCOME_NOT_HERE, O.OUTCOME_TOO_LARGE
TOTALS_ONLY = O.REPORT_TOTALS
STREAM_SECONDS = 60
# Most that a message may wait.
EXPIRE_MS = 60_000


def to(users, number, text, **options):
    """A text message for a list of users, or for everybody with None."""
    data = message("sender", users[0] if users else "all", text).SerializeToString()
    if users is None:
        return O.PushMessage(id=number, msg_data=data, all_local_users=O.AllLocalUsers(), **options)
    return O.PushMessage(id=number, msg_data=data, users=O.UserList(user_ids=users), **options)


def batch(*messages):
    return O.PushBatch(messages=messages)


class Stream:
    """A call of `Stream`. `taken` counts the batches that the transport has taken from us so far."""

    def __init__(self, api, **options):
        self.outgoing = queue.SimpleQueue()
        self.taken = 0
        self.found = {}
        self.call = api.pinion.Stream(self._batches(), **{"timeout": STREAM_SECONDS, **options})

    def _batches(self):
        while (waiting := self.outgoing.get()) is not None:
            self.taken += 1
            yield waiting

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.outgoing.put(None)
        self.call.cancel()

    def send(self, *messages):
        self.outgoing.put(batch(*messages))

    def half_close(self):
        self.outgoing.put(None)

    def verdict(self, number):
        """The whole verdict of this message; what comes before it is kept."""
        while number not in self.found or not self.found[number].last:
            self._read()
        return self.found[number]

    def rest(self):
        """All verdicts by id, up to the end of the stream."""
        for answer in self.call:
            self._keep(answer)
        return self.found

    def _read(self):
        answer = next(self.call, None)
        assert answer is not None, f"the stream ended: {self.call.code()}, {self.call.details()}"
        self._keep(answer)

    def _keep(self, answer):
        for part in answer.verdicts:
            gather(self.found, part)


def gather(found, part):
    """Parts of one message are put together: users add up, and the last part has the totals."""
    whole = found.setdefault(part.id, O.MessageVerdict(id=part.id))
    assert not whole.last, f"message {part.id} has a part after its last one"
    whole.MergeFrom(part)


def send(api, *messages, **options):
    """Verdicts by id, from the unary form."""
    found = {}
    for part in api.pinion.Send(batch(*messages), **{"timeout": STREAM_SECONDS, **options}).verdicts:
        gather(found, part)
    equal(sorted(found), sorted(m.id for m in messages), "answered messages")
    assert all(verdict.last for verdict in found.values()), f"a message without its last part: {found}"
    return found


def outcomes(verdict):
    """[(user, [outcome per device] or the user's own outcome)], in the order of the verdict."""
    return [(u.user_id, [d.outcome for d in u.devices] or u.outcome) for u in verdict.users]


def totals(verdict):
    """The totals that are not 0, by name."""
    return {field.name: value for field, value in verdict.totals.ListFields()}
