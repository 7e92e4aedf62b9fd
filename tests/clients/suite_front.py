"""Native SDK clients through nginx and HAProxy with the files of tuning/front, in turn over three gateways."""

import base64
import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
from urllib.parse import urlsplit

from checks import equal, until
from gateway import BINARY, ROOT, Gateway
from push_api import PushApi
from sdk import User

KIND = "native-patch.15.1"
LINUX = 7
NO_API = "http://127.0.0.1:9"
# Connections per client address and gateway.
ADDRESS_MAX = 2
PROXIED = ["--websocket-address", "127.0.0.1", "--websocket-proxies", "127.0.0.1"]
PROXIED += ["--websocket-proxy-protocol", "required", "--websocket-address-connections-max", str(ADDRESS_MAX)]
FRONTS = {
    "nginx": ("nginx.conf", lambda file, log: ["nginx", "-e", log, "-c", file, "-g", "daemon off;"]),
    "haproxy": ("haproxy.cfg", lambda file, log: ["haproxy", "-W", "-f", file]),
}


def run(checks, _gateway, _api):
    for name in FRONTS:
        program = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
        assert program, f"{name} is missing: tests/clients/packages.sh installs it"
        with contextlib.ExitStack() as stack:
            gateways = [stack.enter_context(Gateway(1, *PROXIED)) for _ in range(3)]
            plain, tls = stack.enter_context(front(name, gateways))
            in_turn(checks, name, gateways, plain)
            over_tls(checks, name, gateways, tls)


def free_port():
    """A port that was free a moment ago; whoever takes it in between makes the front fail at its start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def front(name, gateways):
    """A running proxy: its plain and its TLS port. Of the shipped file only addresses, ports and paths are changed."""
    file, command = FRONTS[name]
    with open(os.path.join(ROOT, "tuning", "front", file), encoding="utf-8") as shipped:
        text = shipped.read()
    folder = tempfile.mkdtemp(prefix="pinion-front-")
    os.chmod(folder, 0o755)
    certificate(folder)
    plain, tls = free_port(), free_port()
    for number, gateway in enumerate(gateways, start=11):
        there, health = urlsplit(gateway.websocket), urlsplit(gateway.http)
        # The gateways of the test share a machine, so each has a port of its own for its health.
        asked = f"addr {health.hostname} port {health.port}"
        text = re.sub(rf"(gateway\d )10\.0\.0\.{number}:10001", rf"\g<1>{there.netloc} {asked}", text)
        text = text.replace(f"10.0.0.{number}:10001", there.netloc)
    for old, new in [
        ("listen 10001 ", f"listen 127.0.0.1:{plain} "),
        ("listen 443 ", f"listen 127.0.0.1:{tls} "),
        ("bind :10001 ", f"bind 127.0.0.1:{plain} "),
        ("bind :443 ", f"bind 127.0.0.1:{tls} "),
        ("/etc/ssl/pinion", folder),
        ("/run/nginx.pid", f"{folder}/nginx.pid"),
        ("/var/log/nginx", folder),
        ("worker_processes auto", "worker_processes 2"),
        # What this machine allows a process is less than a proxy of 100000 clients needs.
        ("worker_rlimit_nofile 262144", "worker_rlimit_nofile 4096"),
        ("worker_connections 65536", "worker_connections 1024"),
        ("maxconn 100000", "maxconn 1000"),
    ]:
        text = text.replace(old, new)
    with open(os.path.join(folder, file), "w", encoding="utf-8") as changed:
        changed.write(text)
    log = open(os.path.join(folder, "output"), "w+", encoding="utf-8")
    environment = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin")
    arguments = command(os.path.join(folder, file), os.path.join(folder, "errors"))
    process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        until(lambda: listens(plain) and listens(tls), lambda: f"{name} does not listen: {output(log)}", seconds=30)
        yield plain, tls
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def output(log):
    log.seek(0)
    return log.read()[-2000:]


def listens(port):
    """Looked up, not dialled: a connection would be dealt out and shift the turn."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(line.split()[1:4:2] == [f"0100007F:{port:04X}", "0A"] for line in table)


def certificate(folder):
    """Self-signed; HAProxy wants chain and key in one file."""
    chain, key = os.path.join(folder, "fullchain.pem"), os.path.join(folder, "privkey.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=front.test"]
    command += ["-addext", "subjectAltName=DNS:front.test", "-keyout", key, "-out", chain]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with open(os.path.join(folder, "haproxy.pem"), "w", encoding="ascii") as both:
        for part in [chain, key]:
            with open(part, encoding="ascii") as file:
                both.write(file.read())


def held(gateways):
    return [int(gateway.metric("pinion_node_connections")) for gateway in gateways]


def in_turn(checks, name, gateways, port):
    """Three users log in through the proxy: one per gateway, wherever it is dealt, and each is reached there."""
    with contextlib.ExitStack() as stack:
        address = (f"ws://127.0.0.1:{port}", NO_API)
        users = [stack.enter_context(User(KIND, f"{name}{n}", LINUX, address)) for n in range(3)]

        def log_in():
            for user in users:
                user.login(gateways[0].token(user.user, LINUX))
            until(lambda: held(gateways) == [1, 1, 1], lambda: f"connections per gateway: {held(gateways)}")

        def reached():
            apis = [stack.enter_context(contextlib.closing(PushApi(gateway.grpc))) for gateway in gateways]
            for user in users:
                for api in apis:
                    api.push("front", [user.user], f"to {user.user}")
                user.wait_message(f"to {user.user}")

        def survives():
            """The gateway of one user ends: the SDK redials the proxy and is in on another one."""
            lost = next(g for g in gateways if who(g, users[0].user))
            lost.stop()
            rest = [gateway for gateway in gateways if gateway is not lost]
            until(lambda: sum(held(rest)) == 3, lambda: f"connections of the rest: {held(rest)}", seconds=60)

        checks.run(f"{name}: three native clients log in, one on each of three gateways", log_in)
        checks.run(f"{name}: each is reached by a push", reached)
        checks.run(f"{name}: a gateway that ends hands its client to the others", survives)


def who(gateway, user):
    """What `pinion who` prints, empty if the user is not there."""
    command = [BINARY, "who", user, "--http", urlsplit(gateway.http).netloc]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return found.stdout if found.returncode == 0 else ""


def over_tls(checks, name, gateways, port):
    """Clients over TLS from an address of their own. Each gateway lets in two per address, proxies themselves not
    counted: of eight tries as many are in as that allows only if the address in the PROXY header is what counts.
    """

    def connect():
        running = [gateway for gateway in gateways if gateway.process.poll() is None]
        with contextlib.ExitStack() as stack:
            answers = [upgrade(stack, port, running[0], f"tina{n}") for n in range(8)]
            equal(sorted(set(answers)), [101, 503], "answers")
            equal(answers.count(101), ADDRESS_MAX * len(running), f"clients that are in, of {answers}")
            refused = lambda: sum(g.metric("pinion_handshakes_total", 'outcome="address_limit"') for g in running)
            until(lambda: refused() == answers.count(503), lambda: f"refused by the address limit: {refused()}")

    checks.run(f"{name}: clients over TLS are in, counted by their own address", connect)


def upgrade(stack, port, gateway, user):
    """The status of a WebSocket handshake in TLS from 127.0.0.55; the connection lasts as long as the stack."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    raw = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=("127.0.0.55", 0))
    client = stack.enter_context(context.wrap_socket(raw, server_hostname="front.test"))
    key = base64.b64encode(os.urandom(16)).decode()
    query = f"sendID={user}&token={gateway.token(user, LINUX)}&platformID={LINUX}&operationID=front&isBackground=false"
    client.sendall(
        f"GET /?{query} HTTP/1.1\r\nHost: front.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return int(client.recv(4096).split(b" ", 2)[1])
