"""A real kube-apiserver over an etcd of its own, on a free loopback port, with RBAC as a cluster has it. There are no
controllers and no kubelet: pods, endpoints and the deletion of what belongs to a deleted pod are the tests' to play."""

import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request

from gateway import ROOT
from servers import Etcd, Server

BINARY = os.path.join(ROOT, "work", "kubernetes", "kube-apiserver")
TOKEN = "tests-kubernetes-administrator"
SECONDS = 60
AGE_SECONDS = 3600


class Refused(Exception):
    """The server's answer is no success."""

    def __init__(self, code, why):
        super().__init__(why)
        self.code = code


class ApiServer(Server):
    """`with ApiServer() as server:`; `ask` and `kubectl` are the administrator's."""

    def __enter__(self):
        self.etcd = Etcd().__enter__()
        return super().__enter__()

    def __exit__(self, *_):
        super().__exit__()
        # Also when a start has failed, and is tried again with another port.
        if self.process is None or self.process.poll() is not None:
            self.etcd.stop()

    def command(self):
        self._secrets()
        if self.etcd.process.poll() is not None:
            self.etcd.start()
        flags = {
            "etcd-servers": f"http://{self.etcd.address}",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": self.ports[0],
            "tls-cert-file": self._path("server.crt"),
            "tls-private-key-file": self._path("server.key"),
            "token-auth-file": self._path("tokens.csv"),
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": self._path("server.key"),
            "service-account-signing-key-file": self._path("server.key"),
            "service-cluster-ip-range": "10.96.0.0/16",
            # There is no controller that would make them.
            "disable-admission-plugins": "ServiceAccount",
        }
        return [BINARY, *(f"--{name}={value}" for name, value in flags.items())]

    def serves(self):
        try:
            return self.ask("GET", "/readyz") == b"ok"
        except (OSError, Refused):
            return False

    def _path(self, name):
        return os.path.join(self.data, name)

    def _secrets(self):
        if os.path.exists(self._path("server.key")):
            return
        with open(self._path("names"), "w", encoding="ascii") as names:
            names.write("subjectAltName=IP:127.0.0.1,DNS:kubernetes.default.svc\n")
        key = ["-newkey", "rsa:2048", "-nodes"]
        self._openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=cluster", "-keyout", "ca.key", "-out", "ca.crt")
        self._openssl("req", *key, "-subj", "/CN=kube-apiserver", "-keyout", "server.key", "-out", "server.csr")
        self._openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                      "-days", "2", "-extfile", "names", "-out", "server.crt")
        with open(self._path("tokens.csv"), "w", encoding="ascii") as tokens:
            tokens.write(f'{TOKEN},administrator,1,"system:masters"\n')

    def _openssl(self, *words):
        subprocess.run(["openssl", *words], cwd=self.data, check=True, capture_output=True, timeout=SECONDS)

    def ask(self, method, path, body=None, token=TOKEN):
        """The answer's bytes; a refusal raises `Refused`."""
        context = ssl.create_default_context(cafile=self._path("ca.crt"))
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"https://{self.address}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS, context=context) as answer:
                return answer.read()
        except urllib.error.HTTPError as fault:
            raise Refused(fault.code, f"{method} {path}: {fault.code} {fault.read().decode(errors='replace')}") from None

    def read(self, path):
        return json.loads(self.ask("GET", path))

    def kubectl(self, *words, text=None, fails=False):
        """What it prints; that it fails is an error unless `fails`, where a "no" does."""
        command = ["kubectl", "--server", f"https://{self.address}", "--certificate-authority", self._path("ca.crt"),
                   "--token", TOKEN, *words]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert fails or done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    # ---- what controllers and kubelets would do ------------------------------------------------------------------

    def namespace(self, name):
        self.kubectl("create", "namespace", name)

    def pods(self, namespace):
        return {pod["metadata"]["name"] for pod in self.read(f"/api/v1/namespaces/{namespace}/pods")["items"]}

    def pod(self, namespace, name, labels, address):
        """A pod that runs. Returns its uid."""
        container = {"name": "pinion", "image": "pinion"}
        path = f"/api/v1/namespaces/{namespace}/pods"
        made = json.loads(self.ask("POST", path, {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [container]},
        }))
        status = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
        self.ask("PATCH", f"{path}/{name}/status", status)
        return made["metadata"]["uid"]

    def delete_pod(self, namespace, name):
        self.ask("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}",
                 {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0})

    def endpoints(self, namespace, name, places):
        """`places` are (ip, port); replaces what was there."""
        subsets = [{"addresses": [{"ip": ip}], "ports": [{"name": "grpc", "port": port}]} for ip, port in places]
        body = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}, "subsets": subsets}
        path = f"/api/v1/namespaces/{namespace}/endpoints"
        try:
            self.ask("PUT", f"{path}/{name}", body)
        except Refused as fault:
            if fault.code != 404:
                raise
            self.ask("POST", path, body)

    def token_of(self, namespace, account):
        """A token of a service account, as the kubelet would ask for it."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                 "spec": {"expirationSeconds": AGE_SECONDS}}
        return json.loads(self.ask("POST", path, asked))["status"]["token"]

    def mounted(self, namespace, account):
        """A folder as it is mounted into a pod of this service account."""
        folder = self._path(f"account-{namespace}-{account}")
        os.makedirs(folder, exist_ok=True)
        with open(self._path("ca.crt"), encoding="ascii") as certificate:
            files = {"ca.crt": certificate.read(), "namespace": namespace, "token": self.token_of(namespace, account)}
        for name, content in files.items():
            with open(os.path.join(folder, name), "w", encoding="ascii") as file:
                file.write(content)
        return folder


