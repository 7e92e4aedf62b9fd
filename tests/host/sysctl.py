"""The profiles of tuning/sysctl and scripts/tune.sh: their form, and every setting applied and undone in a namespace."""

import os
import re
import subprocess
import tempfile

from checks import equal

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
TUNE = os.path.join(ROOT, "scripts", "tune.sh")
PROFILES = ["10k", "100k", "1m", "10m"]
FIELDS = ["default", "value", "why", "symptom", "kernel", "scope", "source", "undo"]
# Below every profile: what a setting is lowered to before the profile is applied, so that there is a change to see.
LOWERED = {
    "net.core.somaxconn": "128",
    "net.ipv4.tcp_max_syn_backlog": "128",
    "net.ipv4.tcp_migrate_req": "0",
    "net.ipv4.ip_local_reserved_ports": "8080",
    "net.ipv4.tcp_max_tw_buckets": "4096",
}


def settings(profile):
    """The fields of each setting, and its value as `set`."""
    with open(os.path.join(ROOT, "tuning", "sysctl", profile + ".conf"), encoding="utf-8") as file:
        blocks = file.read().split("\n\n")[1:]
    found = {}
    for block in blocks:
        comment = " ".join(line[1:].strip() for line in block.splitlines() if line.startswith("#"))
        (line,) = [line for line in block.splitlines() if line and not line.startswith("#")]
        key, value = [part.strip() for part in line.split("=", 1)]
        # Only a field's name is a word with a colon and at least two blanks, or the longest of them with one.
        parts = re.split(rf"(?:^| )({'|'.join(FIELDS)}):\s+", comment)[1:]
        found[key] = dict(zip(parts[0::2], parts[1::2]), set=value)
    return found


def complete(profile):
    for key, fields in settings(profile).items():
        missing = [name for name in FIELDS if not fields.get(name, "").strip()]
        assert not missing, f"{key} does not say {missing}"
        equal(fields["value"], fields["set"], f"value of {key} in words")
        assert fields["scope"] in ("netns", "host"), f"{key}: scope {fields['scope']}"
        first = next(settings(other)[key] for other in PROFILES if key in settings(other))
        for name in ["default", "why", "symptom", "kernel", "scope", "source"]:
            equal(fields[name], first[name], f"{name} of {key}, said alike in all profiles")


def growing():
    """A larger profile has every key of a smaller one, and no smaller number."""
    numbers = lambda value: [int(number) for number in re.findall(r"\d+", value)]
    for small, large in zip(PROFILES, PROFILES[1:]):
        for key, fields in settings(small).items():
            assert key in settings(large), f"{key} is in {small} and not in {large}"
            more = zip(numbers(fields["set"]), numbers(settings(large)[key]["set"]))
            assert all(a <= b for a, b in more), f"{key} shrinks from {small} to {large}"


def counters():
    """Every counter that is named as a symptom exists in this kernel."""
    with open("/proc/net/netstat", encoding="ascii") as file:
        known = file.read().split()
    text = str(settings("10m"))
    named = re.findall(r"TcpExt(\w+)", text)
    assert len(named) > 5, named
    equal([name for name in named if name not in known], [], "counters that are not in /proc/net/netstat")


def tune(*arguments, state="/nonexistent"):
    command = [TUNE, *arguments]
    environment = dict(os.environ, PINION_TUNE_STATE=state)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def value_of(key):
    with open("/proc/sys/" + key.replace(".", "/"), encoding="ascii") as file:
        return " ".join(file.read().split())


def dry_run(profile):
    """On this host, global settings included: each is looked at or skipped by name, and nothing changes."""
    exists = lambda key: os.path.exists("/proc/sys/" + key.replace(".", "/"))
    before = {key: value_of(key) for key in settings(profile) if exists(key)}
    result = tune(profile, "--dry-run")
    equal(result.returncode, 0, result.stderr)
    for key in settings(profile):
        word = "skipped" if not exists(key) else "(?:enough|change)"
        assert re.search(rf"^{word} +{re.escape(key)}\b", result.stdout, re.M), f"{key}: {result.stdout}"
    equal({key: value_of(key) for key in before}, before, "settings after a dry run")


def in_namespace(*arguments):
    """This module again, in a network namespace that ends with it."""
    flags = ["-n"] if os.geteuid() == 0 else ["-rn"]
    command = ["unshare", *flags, "python3", os.path.join(ROOT, "tests", "host", "in_namespace.py"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    equal(result.returncode, 0, result.stdout + result.stderr)


def applied_and_undone(profile):
    """In a namespace of its own: lowered, tuned twice, compared, undone, compared."""
    here = {key: fields for key, fields in settings(profile).items() if fields["scope"] == "netns"}
    for key in here:
        with open("/proc/sys/" + key.replace(".", "/"), "w", encoding="ascii") as file:
            file.write(LOWERED[key] + "\n")
    with tempfile.TemporaryDirectory() as state:
        for _ in range(2):
            result = tune(profile, "--namespace", state=state)
            equal(result.returncode, 0, result.stdout)
        for key, fields in here.items():
            wanted = "8080," + fields["set"] if key.endswith("reserved_ports") else fields["set"]
            equal(value_of(key), wanted, f"{key} after {profile}")
        for key, fields in settings(profile).items():
            assert fields["scope"] == "netns" or f"skipped   {key}: of the whole host" in result.stdout, result.stdout
        result = tune(profile, "--undo", state=state)
        equal(result.returncode, 0, result.stdout)
        equal({key: value_of(key) for key in here}, {key: LOWERED[key] for key in here}, "after --undo")
        equal(os.listdir(state), [], "what is saved after --undo")


def larger_stays():
    """A value above the profile's is not lowered, and what somebody changed since is not undone."""
    path = "/proc/sys/net/core/somaxconn"
    with tempfile.TemporaryDirectory() as state:
        for value in ["65535", "128"]:
            with open(path, "w", encoding="ascii") as file:
                file.write(value)
            result = tune("10k", "--namespace", state=state)
            equal(result.returncode, 0, result.stdout)
            equal(value_of("net.core.somaxconn"), max(value, "4096", key=int), "somaxconn")
        with open(path, "w", encoding="ascii") as file:
            file.write("512")
        result = tune("10k", "--undo", state=state)
        equal(result.returncode, 1, result.stdout)
        assert "changed since, left" in result.stdout, result.stdout
        equal(value_of("net.core.somaxconn"), "512", "somaxconn, set by somebody else")


def wrong_usage():
    for arguments in [[], ["5k"], ["../10k"], ["10k", "--force"], ["10k", "100k"], ["10k", "--dry-run", "--undo"]]:
        result = tune(*arguments)
        equal(result.returncode, 2, f"{arguments}")
        assert "usage: tune.sh" in result.stderr, result.stderr


def run(checks):
    for profile in PROFILES:
        checks.run(f"sysctl {profile}: each setting says everything", lambda p=profile: complete(p))
    checks.run("sysctl: larger profiles are larger", growing)
    checks.run("sysctl: the counters named are this kernel's", counters)
    checks.run("tune.sh: wrong usage", wrong_usage)
    for profile in PROFILES:
        checks.run(f"tune.sh {profile} --dry-run on this host", lambda p=profile: dry_run(p))
    for profile in PROFILES:
        checks.run(f"tune.sh {profile} and --undo in a namespace", lambda p=profile: in_namespace("profile", p))
    checks.run("tune.sh: larger values and others' changes stay", lambda: in_namespace("larger"))
