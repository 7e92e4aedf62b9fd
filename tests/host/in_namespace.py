"""What sysctl.py does inside a network namespace: started by it through unshare."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients"))

import sysctl  # noqa: E402 -- needs the path above

if sys.argv[1] == "profile":
    sysctl.applied_and_undone(sys.argv[2])
else:
    sysctl.larger_stays()
