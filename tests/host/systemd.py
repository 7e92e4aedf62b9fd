"""The unit of tuning/systemd: judged by systemd-analyze, and its filter of system calls tried on the gateway."""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from checks import equal
from gateway import BINARY
from sysctl import ROOT

UNIT = os.path.join(ROOT, "tuning", "systemd", "pinion.service")
SECCOMP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seccomp.py")


def setting(name):
    with open(UNIT, encoding="utf-8") as file:
        (value,) = re.findall(rf"^{name}=(.*)$", file.read(), re.M)
    return value


def verify():
    """With the real binary and its drop-in in place, systemd-analyze has nothing to say."""
    with tempfile.TemporaryDirectory() as directory:
        with open(UNIT, encoding="utf-8") as file:
            text = file.read().replace("/usr/local/bin/pinion", BINARY)
        unit = os.path.join(directory, "pinion.service")
        with open(unit, "w", encoding="utf-8") as file:
            # A manual page that is not installed here would be complained about.
            file.write(re.sub(r"^Documentation=.*\n", "", text, flags=re.M))
        os.mkdir(unit + ".d")
        shutil.copy(os.path.join(ROOT, "tuning", "systemd", "cpus.conf"), unit + ".d")
        result = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60, check=False
        )
    ours = [line for line in (result.stdout + result.stderr).splitlines() if "pinion" in line]
    equal((result.returncode, ours), (0, []), "systemd-analyze verify")


def times():
    """The drain and what a stall does must fit what systemd waits."""
    with open(os.path.join(ROOT, "src", "limits.rs"), encoding="utf-8") as file:
        limits = file.read()
    milliseconds = lambda name: int(re.search(rf"{name}: u64 = ([0-9_]+);", limits).group(1).replace("_", ""))
    # Shards get the deadline and a grace; the rpc threads a grace, and one more until they are given up.
    drain = milliseconds("DRAIN_DEADLINE_MS") + 3 * milliseconds("DRAIN_GRACE_MS")
    assert int(setting("TimeoutStopSec")) * 1000 > drain, f"a drain takes up to {drain} ms"
    assert int(setting("WatchdogSec")) * 1000 > milliseconds("STALL_ABORT_MS"), "the gateway aborts first"
    files = int(re.search(r"pub const CONNECTIONS_MAX: u32 = ([0-9_]+)", limits).group(1).replace("_", ""))
    assert int(setting("LimitNOFILE")) >= files + 1500, "one file per connection and the reserve"


def allowed():
    """The calls that SystemCallFilter= allows, groups resolved."""
    names, groups = set(), [word for word in setting("SystemCallFilter").split()]
    seen = set()
    while groups:
        word = groups.pop()
        if not word.startswith("@"):
            names.add(word)
        elif word not in seen:
            seen.add(word)
            listed = subprocess.run(
                ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, timeout=60, check=True
            )
            groups += [line.strip() for line in listed.stdout.splitlines()[1:] if not line.strip().startswith("#")]
    return {"syscalls": [{"names": sorted(name for name in names if name)}]}


def cannot_filter():
    """Why this machine cannot try a filter that allows io_uring; None if it can."""
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return "libseccomp is not on this machine"
    doctor = subprocess.run([BINARY, "doctor", "--json"], capture_output=True, text=True, timeout=30, check=False)
    (ring,) = [finding for finding in json.loads(doctor.stdout)["findings"] if finding["point"] == "io_uring"]
    return None if ring["grade"] == "ok" else f"no io_uring here: {ring['fix']}"


def runs_under(profile):
    """The gateway starts on io_uring under this profile, serves its health and ends well."""
    command = [sys.executable, SECCOMP, profile, BINARY, "--websocket-port", "0", "--rpc-listen", "127.0.0.1:0"]
    command += ["--http-listen", "127.0.0.1:0", "--shards-count", "2", "--shards-engine", "ring"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line.strip() == "ready":
                break
        else:
            raise AssertionError("no `ready`:\n" + "".join(lines) + process.stderr.read())
        assert any(line.startswith("engine     ring (") for line in lines), lines
        process.send_signal(signal.SIGTERM)
        equal(process.wait(timeout=30), 0, "exit status")
    finally:
        process.kill()
        process.communicate()


def filter_of_the_unit():
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(allowed(), file)
        file.flush()
        runs_under(file.name)


def run(checks):
    checks.run("unit: times and files fit the gateway's own", times)
    if shutil.which("systemd-analyze") is None:
        checks.skip("unit: systemd-analyze", "systemd is not on this machine")
        return
    checks.run("unit: systemd-analyze verify is clean", verify)
    checks.run_unless(cannot_filter(), "unit: the gateway runs on io_uring under SystemCallFilter=", filter_of_the_unit)
