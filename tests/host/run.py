"""The files of tuning/ for a real host: sysctl profiles, systemd unit, Kubernetes manifests. scripts/host.sh starts it."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients"))

import kubernetes  # noqa: E402 -- these need the path above
import sysctl  # noqa: E402
import systemd  # noqa: E402
from checks import Checks  # noqa: E402


class HostChecks(Checks):
    """Counts what this machine has not got as well."""

    def __init__(self):
        super().__init__()
        self.skipped = 0

    def skip(self, name, why):
        self.skipped += 1
        print(f"{name}: SKIPPED, {why}", flush=True)

    def run_unless(self, obstacle, name, check):
        if obstacle:
            self.skip(name, obstacle)
        else:
            self.run(name, check)

    def close(self, suite):
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        print(f"{suite}: {self.passed} passed, {self.failed} failed{skipped}")
        return 1 if self.failed or not self.passed else 0


def main():
    checks = HostChecks()
    for part in [sysctl, systemd, kubernetes]:
        part.run(checks)
    return checks.close("host")


sys.exit(main())
