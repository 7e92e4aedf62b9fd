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
GATEWAYS = ["daemonset.yaml", "statefulset-openim-3.5.yaml", "deployment-openim-main.yaml"]
FILES = [*GATEWAYS, "node-tuning.yaml"]
# What the kubelet fills in from the pod and its node.
FIELDS = {
    "status.hostIP": "192.0.2.1",
    "status.podIP": "192.0.2.2",
    "metadata.name": "openimserver-openim-msggateway-0",
    "metadata.namespace": "im",
}
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
        field = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        value = entry.get("value") or FIELDS.get(field, "a-secret-of-some-length")
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
    equal(container["readinessProbe"]["httpGet"]["path"], "/readyz?clients", "what takes it out of service")


def resources(name):
    """Whole CPUs, request = limit: what the static CPU policy of the kubelet asks for."""
    for pod in pods(name):
        for container in pod["containers"]:
            given = container["resources"]
            equal(given["requests"], given["limits"], "resources")
            assert given["limits"]["cpu"].isdigit(), given


def role():
    """The role names the services that the gateway asks for, and its pod has the account that is bound to it."""
    found = {document["kind"]: document for document in documents("deployment-openim-main.yaml")}
    (rule,) = found["Role"]["rules"]
    equal((rule["apiGroups"], rule["resources"]), ([""], ["endpoints"]), "what may be read")
    equal(set(rule["verbs"]), {"list", "watch"}, "verbs")
    pod = found["Deployment"]["spec"]["template"]["spec"]
    shown = subprocess.run(
        [BINARY, "check", "--print-config"], env=environment(pod["containers"][0]), capture_output=True, text=True,
        timeout=30, check=False,
    ).stdout
    names = set(re.findall(r'^discovery\.service_(?!account)\w+\W+([\w-]+)', shown, re.M))
    equal(set(rule["resourceNames"]), names, "services")
    account = found["ServiceAccount"]["metadata"]["name"]
    equal(pod["serviceAccountName"], account, "whose pod it is")
    equal([subject["name"] for subject in found["RoleBinding"]["subjects"]], [account], "who may")
    equal(found["RoleBinding"]["roleRef"]["name"], found["Role"]["metadata"]["name"], "what")


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
    for name in GATEWAYS:
        checks.run(f"kubernetes {name}: the gateway takes its settings", lambda n=name: settings(n))
        checks.run(f"kubernetes {name}: resources", lambda n=name: resources(n))
    checks.run("kubernetes deployment-openim-main.yaml: what it may read is what it asks for", role)
    checks.run("kubernetes Containerfile: toolchain and sources", containerfile)
    checks.run("kubernetes seccomp-io-uring.json: what it names", seccomp)
    name = "kubernetes seccomp-io-uring.json: the gateway runs on io_uring under it"
    checks.run_unless(cannot_filter(), name, lambda: runs_under(SECCOMP))
