"""Counts checks and prints one line each, as `scripts/ci.sh` reads them."""

import threading
import time
import traceback


class Checks:
    """Suites that run beside each other share one."""

    def __init__(self):
        self.lock = threading.Lock()
        self.passed = 0
        self.failed = 0
        self.skipped = 0

    def run(self, name, check):
        """One check: it fails by raising. Returns whether it passed."""
        started = time.monotonic()
        try:
            check()
        except Exception as fault:  # whatever a client throws is a failed check, and the next one still runs
            said = f"{name}: FAILED: {fault}"
            if not isinstance(fault, (AssertionError, TimeoutError)):
                said += "\n" + traceback.format_exc().rstrip()
            with self.lock:
                self.failed += 1
                print(said, flush=True)
            return False
        with self.lock:
            self.passed += 1
            print(f"{name}: ok ({time.monotonic() - started:.1f} s)", flush=True)
        return True

    def skip(self, name, why):
        """A check that cannot run here; it is named and counted."""
        with self.lock:
            self.skipped += 1
            print(f"{name}: SKIPPED: {why}", flush=True)

    def close(self, suite):
        """The closing line; the exit status of the process."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        print(f"{suite}: {self.passed} passed, {self.failed} failed{skipped}")
        return 1 if self.failed or not self.passed else 0


def equal(got, wanted, what=""):
    assert got == wanted, f"{what}: got {got!r}, wanted {wanted!r}"


def until(condition, what, seconds=60):
    """Waits for a condition; `what` says what is there instead."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what())
        time.sleep(0.02)
