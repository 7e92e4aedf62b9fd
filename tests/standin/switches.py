"""What a test can do to calls, per service and method: delay, refuse, hang, lose the answer.

A switch of method `*` counts for the methods that have none of their own."""

import asyncio

from errors import OpenImError

UNAVAILABLE = 14


class Switch:
    """`delay_ms` before anything; then `error` ({code, message, detail}) or `hang` (until the caller gives up) instead of
    the work; or the work, and with `drop` its answer is lost (14 for the caller). `times`: how many calls it counts
    for, for ever without."""

    def __init__(self, delay_ms=0, error=None, hang=False, drop=False, times=None):
        self.delay_ms, self.error, self.hang, self.drop, self.times = delay_ms, error, hang, drop, times

    def spend(self):
        """Whether it counts for one more call."""
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0

    async def before(self):
        await asyncio.sleep(self.delay_ms / 1000)
        if self.hang:
            await asyncio.Event().wait()
        if self.error:
            raise OpenImError(self.error["code"], self.error.get("message"), self.error.get("detail", ""))

    def after(self):
        if self.drop:
            raise OpenImError(UNAVAILABLE, "the answer was lost")


class Switches:
    """All that are set."""

    def __init__(self):
        self.set = {}

    def put(self, service, method, **what):
        """Without `what` the switch is taken away."""
        self.set.pop((service, method), None)
        if what:
            self.set[service, method] = Switch(**what)

    def of(self, service, method):
        """What counts for this call."""
        switch = self.set.get((service, method)) or self.set.get((service, "*"))
        return switch if switch and switch.spend() else Switch()
