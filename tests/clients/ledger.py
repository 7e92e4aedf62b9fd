"""What was pushed, what came, and what that makes of the verdicts (routing-protocol.md, property P): a push reaches every
connection that had its 101 before and stays open, once, or its verdict says that it is not complete.

Not here: connections (`crowd`), nodes (`nodes`). What always holds: a push that got no answer, or whose verdict is not
complete, is never counted as lost, and each of them is counted as that."""

import collections
import random
import threading
import time

from pinion_push import batch, to
from push_api import PushApi, grpc, push_pb2

# A call to a node that is stopped ends here. The verdicts of a gateway come within 10 s.
CALL_SECONDS = 15
# After its verdict a text may be on its way for so long on a loaded machine, before it is lost.
ARRIVAL_SECONDS = 10
IN_FLIGHT_MAX = 400
REACHED = (push_pb2.OUTCOME_WRITTEN,)


def complete(verdict):
    """Whether a user's verdict says that nobody was left out. A node that is alone says it by not saying otherwise."""
    if verdict.HasField("complete"):
        return verdict.complete
    return verdict.outcome != push_pb2.OUTCOME_NOT_REACHED


class Push:
    """`expected` has the connections of each recipient that were open when it was sent."""

    def __init__(self, number, node, users, crowd):
        self.number, self.node, self.users = number, node, users
        self.expected = {user: crowd.open_of(user) for user in users}
        self.sent_at = time.monotonic()
        self.answered_at = None
        self.verdicts = None

    def came(self):
        return all(one.got[self.number] for conns in self.expected.values() for one in conns)


# When a push was sent and answered, of how many recipients, for how many of them completely.
Answer = collections.namedtuple("Answer", "sent_at at recipients complete")


def in_quiet(answers, quiets):
    """(complete, recipients) of the pushes that were sent and answered within one of these times (from, to)."""
    told = [one for one in answers if any(since < one.sent_at and one.at <= until for since, until in quiets)]
    return sum(one.complete for one in told), sum(one.recipients for one in told)


class Ledger:
    """Counts by name in `counts`: pushes, recipients, complete, not complete, no answer, lost, and `lost` in words."""

    def __init__(self, crowd):
        self.crowd = crowd
        self.counts = collections.Counter()
        self.lost, self.errors = [], collections.Counter()
        self.open = collections.deque()
        self.answers = collections.deque()
        self.in_flight = 0
        # The sending time of the newest push that was not answered, or not completely.
        self.bad_at = 0.0
        self.number = random.randrange(1 << 20) << 24
        self.lock = threading.Lock()

    def sent(self, node, users):
        """Written down before it is sent."""
        with self.lock:
            self.number += 1
            self.in_flight += 1
            self.counts["pushes"] += 1
            self.counts["recipients"] += len(users)
            push = Push(self.number, node, users, self.crowd)
            self.open.append(push)
        return push

    def answered(self, push, users):
        """`users`: of each recipient (complete, devices that were written to)."""
        with self.lock:
            self.in_flight -= 1
            push.answered_at, push.verdicts = time.monotonic(), users
            good = sum(whole for whole, _ in users.values())
            self.counts["complete"] += good
            self.counts["not complete"] += len(push.users) - good
            self.answers.append(Answer(push.sent_at, push.answered_at, len(push.users), good))
            if good < len(push.users):
                self.bad_at = max(self.bad_at, push.sent_at)

    def unanswered(self, push, why):
        with self.lock:
            self.in_flight -= 1
            push.answered_at, push.verdicts = time.monotonic(), {}
            self.counts["no answer"] += 1
            self.answers.append(Answer(push.sent_at, push.answered_at, len(push.users), 0))
            self.errors[why] += 1
            self.bad_at = max(self.bad_at, push.sent_at)

    def judge(self, over=False):
        """Looks at what is answered. With `over` it waits until everything is."""
        end = time.monotonic() + CALL_SECONDS + ARRIVAL_SECONDS
        while True:
            self._judge_once()
            if not over or not self.open or time.monotonic() > end:
                return
            time.sleep(0.1)

    def _judge_once(self):
        now = time.monotonic()
        for _ in range(len(self.open)):
            push = self.open.popleft()
            if push.answered_at is None:
                self.open.append(push)
            elif push.verdicts and self._is_due(push) and now - push.answered_at < ARRIVAL_SECONDS:
                self.open.append(push)
            elif push.verdicts:
                self._judge(push)

    def _is_due(self, push):
        """Whether a text may still be on its way: also to a connection that was not open yet when it was sent."""
        return not push.came() or any(written > self._reached(push, user)
                                      for user, (_, written) in push.verdicts.items())

    def _reached(self, push, user):
        """The user's connections that have it, or are closed and may have had it."""
        known = {*push.expected.get(user, []), *self.crowd.open_of(user)}
        reached = sum(1 for one in known if one.got[push.number] or one.closed_at is not None)
        return reached + sum(1 for one in self.crowd.ended_of(user, push.sent_at) if one not in known)

    def _judge(self, push):
        for user, (whole, written) in push.verdicts.items():
            before = push.expected.get(user, [])
            missed = [one for one in before if one.closed_at is None and not one.got[push.number]]
            reached = self._reached(push, user)
            if whole and missed:
                self._is_lost(push, user, f"complete, and {len(missed)} of {len(before)} connections missed it", missed)
            elif written > reached:
                self._is_lost(push, user, f"{written} devices written to, and {reached} have it", missed)

    def _is_lost(self, push, user, why, missed):
        self.counts["lost"] += 1
        places = [one.address[0] for one in missed]
        self.lost.append(f"push {push.number} by {push.node} to {user} at {places}: {why}")


class Pusher:
    """Pushes without a pause: `rate` a second, each to `recipients` users, by any node that runs."""

    def __init__(self, ledger, nodes, users, rate, recipients):
        self.ledger, self.nodes, self.users = ledger, nodes, users
        self.rate, self.recipients = rate, recipients
        self.apis = {}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """No more pushes; what is on its way is waited for by `Ledger.judge`."""
        self.over.set()
        self.thread.join()
        end = time.monotonic() + CALL_SECONDS + 1
        while self.ledger.in_flight and time.monotonic() < end:
            time.sleep(0.02)
        for api in self.apis.values():
            api.close()
        self.apis = {}

    def finish(self):
        """No more pushes. Nothing was lost or doubled, and something was complete; returns the ledger's counts."""
        self.stop()
        self.ledger.judge(over=True)
        counts, lost, doubles = self.ledger.counts, self.ledger.lost, self.ledger.crowd.doubles
        assert not lost and not doubles, f"{lost[:3]}, {doubles[:3]}"
        assert counts["complete"] > 0, f"no verdict is complete: {counts}"
        return counts

    def _run(self):
        next_at = time.monotonic()
        while not self.over.wait(max(0, next_at - time.monotonic())):
            next_at = max(next_at + 1 / self.rate, time.monotonic() - 1)
            nodes = self.nodes()
            if nodes and self.ledger.in_flight < IN_FLIGHT_MAX:
                self.push(random.choice(nodes))

    def push(self, node):
        """One push by this node, to users by chance."""
        users = random.sample(self.users, min(self.recipients, len(self.users)))
        api = self.apis.get(node.grpc)
        if api is None:
            api = self.apis[node.grpc] = PushApi(node.grpc)
        push = self.ledger.sent(node.name, users)
        message = to(users, push.number, f"#{push.number}#")
        api.pinion.Send.future(batch(message), timeout=CALL_SECONDS).add_done_callback(
            lambda call: self._done(push, call)
        )

    def _done(self, push, call):
        try:
            verdicts = [one for one in call.result().verdicts if one.id == push.number]
        except (grpc.RpcError, grpc.FutureCancelledError) as fault:
            code = fault.code().name if isinstance(fault, grpc.RpcError) else "CANCELLED"
            self.ledger.unanswered(push, f"{push.node} {code}")
            return
        found = {}
        for verdict in verdicts:
            for user in verdict.users:
                written = sum(device.outcome in REACHED for device in user.devices)
                found[user.user_id] = complete(user), written
        self.ledger.answered(push, found)
