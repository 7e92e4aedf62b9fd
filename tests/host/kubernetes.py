"""The manifests of tuning/kubernetes: against the published schemas, and against what the gateway takes."""

import json
import os
import re
import subprocess

import yaml
from kubernetes_validate import ValidationError, validate

from checks import equal
from gateway import BINARY
from sysctl import ROOT
from systemd import cannot_filter, runs_under

HERE = os.path.join(ROOT, "tuning", "kubernetes")
FILES = ["daemonset.yaml", "statefulset-openim-3.5.yaml", "node-tuning.yaml"]
# The oldest that knows preStop's `sleep` without a gate, and the newest that the package carries.
VERSIONS = ["1.30", "1.34"]
SECCOMP = os.path.join(HERE, "seccomp-io-uring.json")


def documents(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return [document for document in yaml.safe_load_all(file) if document]


def pods(name):
    return [d["spec"]["template"]["spec"] for d in documents(name) if "template" in d.get("spec", {})]


def schemas(name):
    for version in VERSIONS:
        for document in documents(name):
            try:
                validate(document, version, strict=True)
            except ValidationError as fault:
                raise AssertionError(f"{version}: {fault.path}: {fault.message}") from None


def environment(container):
    """As the kubelet would set it, with something in the place of addresses and secrets."""
    values = {}
    for entry in container["env"]:
        value = entry.get("value", "192.0.2.1" if entry["name"] == "NODE_IP" else "a-secret-of-some-length")
        values[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda name: values[name.group(1)], value)
    return values


def settings(name):
    """`pinion check` takes the environment of the pod, and its ports are those that the pod shows."""
    (pod,) = pods(name)
    assert pod["enableServiceLinks"] is False, "a Service called pinion would set PINION_PORT"
    (container,) = pod["containers"]
    values = environment(container)
    result = subprocess.run(
        [BINARY, "check", "--print-config"], env=values, capture_output=True, text=True, timeout=30, check=False
    )
    equal(result.returncode, 0, result.stdout + result.stderr)
    ports = {port["containerPort"] for port in container["ports"]}
    told = {int(re.search(r"(\d+)$", values[f"PINION_{key}"]).group(1)) for key in
            ["WEBSOCKET_PORT", "RPC_LISTEN", "HTTP_LISTEN"]}
    equal(ports, told, "ports")
    drain = int(values["PINION_DRAIN_DEADLINE_MS"].removesuffix("s"))
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > wait + drain + 6, "killed in the middle of a drain"
    equal(container["livenessProbe"]["httpGet"]["path"], "/healthz", "what a restart cures")
    equal(container["readinessProbe"]["httpGet"]["path"], "/readyz", "what takes it out of service")


def resources(name):
    """Whole CPUs, request = limit: what the static CPU policy of the kubelet asks for."""
    for pod in pods(name):
        for container in pod["containers"]:
            given = container["resources"]
            equal(given["requests"], given["limits"], "resources")
            assert given["limits"]["cpu"].isdigit(), given


def containerfile():
    with open(os.path.join(HERE, "Containerfile"), encoding="utf-8") as file:
        text = file.read()
    with open(os.path.join(ROOT, "rust-toolchain.toml"), encoding="utf-8") as file:
        channel = re.search(r'channel = "([^"]+)"', file.read()).group(1)
    assert f"rust:{channel}-bookworm AS build" in text, f"the toolchain is {channel}"
    for source in re.findall(r"^COPY (?!--from)(\S+) ", text, re.M):
        assert os.path.exists(os.path.join(ROOT, source)), f"COPY {source}"
    assert text.rstrip().splitlines()[-1] == 'ENTRYPOINT ["/usr/local/bin/pinion"]', "the gateway is the last stage"


def seccomp():
    """The profile names the three calls of io_uring, none of those that a gateway has no business with."""
    with open(SECCOMP, encoding="utf-8") as file:
        profile = json.load(file)
    equal(profile["defaultAction"], "SCMP_ACT_ERRNO", "what is not named")
    names = [name for rule in profile["syscalls"] for name in rule["names"]]
    equal(len(names), len(set(names)), "names, each once")
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register"]:
        assert name in names, name
    for name in ["bpf", "mount", "ptrace", "setns", "unshare", "kexec_load", "init_module", "keyctl", "userfaultfd"]:
        assert name not in names, name


def run(checks):
    for name in FILES:
        checks.run(f"kubernetes {name}: schemas of {' and '.join(VERSIONS)}", lambda n=name: schemas(n))
    for name in FILES[:2]:
        checks.run(f"kubernetes {name}: the gateway takes its settings", lambda n=name: settings(n))
        checks.run(f"kubernetes {name}: resources", lambda n=name: resources(n))
    checks.run("kubernetes Containerfile: toolchain and sources", containerfile)
    checks.run("kubernetes seccomp-io-uring.json: what it names", seccomp)
    name = "kubernetes seccomp-io-uring.json: the gateway runs on io_uring under it"
    checks.run_unless(cannot_filter(), name, lambda: runs_under(SECCOMP))
