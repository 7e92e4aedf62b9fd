"""The example client of the assign API (assign/client.js) against real gateways and `pinion dispatch`."""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request

from checks import equal, until
from gateway import BINARY, Gateway
from sdk import CLIENTS

HERE = os.path.dirname(os.path.abspath(__file__))
IOS = 1
FAST = ["--assign-backoff-base-ms", "200ms", "--assign-backoff-cap-ms", "2s"]


class Dispatch:
    """A running `pinion dispatch`: `url` is where clients ask."""

    def __init__(self, gateways, *flags):
        self.folder = tempfile.mkdtemp(prefix="pinion-assign-")
        members = os.path.join(self.folder, "members")
        with open(members, "w", encoding="utf-8") as file:
            file.writelines(f"{name} ws={there.websocket} rpc={there.grpc}\n" for name, there in gateways.items())
        command = [BINARY, "dispatch", "--assign-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        command += ["--members", members, *FAST, *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = None
        for line in self.process.stdout:
            found = re.match(r"assign\s+(http://[^/]+)/v1/assign", line)
            if found:
                self.url = found.group(1)
            if line.strip() == "ready":
                break
        assert self.url, "dispatch did not start"

    def nodes(self, user):
        """Ids in the order of the answer."""
        with urllib.request.urlopen(f"{self.url}/v1/assign?userID={user}&platformID={IOS}", timeout=60) as answer:
            return [node["node"] for node in json.load(answer)["nodes"]]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Client:
    """A running client.js; `events` has what it said."""

    def __init__(self, assign, user, token):
        options = {"assign": assign, "ask": {"userID": user, "platformID": str(IOS)}, "token": token}
        script = os.path.join(HERE, "assign", "run.js")
        self.process = subprocess.Popen(
            ["node", script, os.path.join(CLIENTS, "js"), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.events = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def lose(self):
        """Breaks its connection, as a network does."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def opened(self):
        """URLs to which it was connected, in order."""
        return [detail for what, detail in list(self.events) if what == "open"]

    def answers(self, status):
        return sum(1 for what, detail in list(self.events) if what == "answer" and detail["status"] == status)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def fleet(*flags):
    """Three gateways by name."""
    with contextlib.ExitStack() as stack:
        names = [f"gw-{n}" for n in range(3)]
        yield {name: stack.enter_context(Gateway(1, "--cluster-node-id", name, *flags)) for name in names}


def awaited(client, urls):
    until(lambda: client.opened() == urls, lambda: f"wanted {urls}, there was {client.events}")


def run(checks, _gateway, _api):
    checks.run("assign: home, its death, an alternative, home again", home_dies)
    checks.run("assign: all of assign is down, the last good one", assign_dies)
    checks.run("assign: the rate limit is told and kept", rate_limit)
    checks.run("assign: a gateway answers as dispatch does, with CORS", on_a_gateway)


def home_dies():
    with fleet() as gateways, Dispatch(gateways) as dispatch:
        order = dispatch.nodes("alice")
        equal(len(order), 3, "nodes")
        url = {name: there.websocket for name, there in gateways.items()}
        token = gateways[order[0]].token("alice", IOS)
        # The first of the two dispatchers is not there.
        with Client(["http://127.0.0.1:9", dispatch.url], "alice", token) as client:
            awaited(client, [url[order[0]]])
            gateways[order[0]].process.send_signal(signal.SIGKILL)
            # Whether the dispatcher knows of the death by then or not.
            awaited(client, [url[order[0]], url[order[1]]])
            until(lambda: dispatch.nodes("alice") == order[1:], lambda: f"still {dispatch.nodes('alice')}")
            gateways[order[1]].process.send_signal(signal.SIGTERM)
            awaited(client, [url[name] for name in order])


def assign_dies():
    with fleet() as gateways:
        with Dispatch(gateways) as dispatch:
            order = dispatch.nodes("bob")
            home = gateways[order[0]]
            with Client([dispatch.url], "bob", home.token("bob", IOS)) as client:
                awaited(client, [home.websocket])
                dispatch.process.kill()
                dispatch.process.wait()
                client.lose()
                awaited(client, [home.websocket] * 2)
                assert any(what == "unanswered" for what, _ in client.events), client.events


def rate_limit():
    with fleet() as gateways, Dispatch(gateways, "--assign-address-requests-per-s", "1") as dispatch:
        statuses = []
        for _ in range(40):
            try:
                dispatch.nodes("carol")
                statuses.append(200)
            except urllib.error.HTTPError as refusal:
                statuses.append(refusal.code)
                assert int(refusal.headers["Retry-After"]) >= 1
                body = json.load(refusal)
                equal(body["error"], "address_rate")
        assert 200 in statuses and 429 in statuses, statuses
        token = gateways["gw-0"].token("carol", IOS)
        # It comes too early, is told when to come again, and comes then.
        with Client([dispatch.url], "carol", token) as client:
            until(lambda: len(client.opened()) == 1, lambda: f"{client.events}")


def on_a_gateway():
    flags = ["--assign-listen", "127.0.0.1:0", "--cluster-ws-url", "ws://gw-0.it", "--cluster-node-id", "gw-0"]
    with Gateway(1, *flags, *FAST) as gateway:
        line = next(line for line in gateway.lines if line.startswith("assign"))
        asked = urllib.request.Request(line.split()[1] + "?userID=dave&platformID=1", headers={"Origin": "https://x"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            equal(answer.headers["Access-Control-Allow-Origin"], "*")
            body = json.load(answer)
        equal(body["nodes"], [{"url": "ws://gw-0.it", "node": "gw-0"}])
        equal(body["backoff"]["base_ms"], 200)
        until(lambda: gateway.metric("pinion_assign_answers_total", 'outcome="placed"') == 1, lambda: "not counted")
