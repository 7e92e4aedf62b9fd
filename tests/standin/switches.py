"""What a test can do to calls, per service and method: delay, refuse, hang, lose the answer.

A switch of method `*` counts for the methods that have none of their own."""

import asyncio

from errors import OpenImError

UNAVAILABLE = 14


class Switch:
    """`delay_ms` before anything; then `error` ({code, message, detail}) or `hang` (until the
    caller gives up, or the switch is taken away: then the work is done) instead of the work; or the work, and with
    `drop` its answer is lost (14 for the caller). `times`: how many calls, at least one, it counts for; for ever
    without. After the last of them it is gone, and what hangs by it hangs for ever."""

    def __init__(self, delay_ms=0, error=None, hang=False, drop=False, times=None):
        self.delay_ms, self.error, self.hang, self.drop, self.times = delay_ms, error, hang, drop, times
        self.gone = asyncio.Event()

    async def before(self):
        await asyncio.sleep(self.delay_ms / 1000)
        if self.hang:
            await self.gone.wait()
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
        before = self.set.pop((service, method), None)
        if before:
            before.gone.set()
        if what:
            self.set[service, method] = Switch(**what)

    def of(self, service, method):
        """What counts for this call, of which it is then one."""
        for key in ((service, method), (service, "*")):
            switch = self.set.get(key)
            if switch:
                if switch.times is not None:
                    switch.times -= 1
                    if not switch.times:
                        del self.set[key]
                return switch
        return Switch()
