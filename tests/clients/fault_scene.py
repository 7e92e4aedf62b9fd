"""What the checks of suite_faults.py share: two users who are there all the time, what must be true of them, and how a
service is made to hang."""

import contextlib
import itertools
import threading
import time

from checks import equal, until
from json_client import JsonClient, Refused

# How long the store may have a connected user offline, over all faults. The worst is a Redis that lost its data: about
# a second where nothing else runs.
OFFLINE_SECONDS_MAX = 30
SAMPLE_SECONDS = 0.05


class Scene:
    """The deployment, two users who are there all the time, and what must be true of them."""

    def __init__(self, deployment, gateway, api, witness, peer):
        self.deployment, self.gateway, self.api = deployment, gateway, api
        self.standin = deployment.standin
        self.witness, self.peer = witness, peer
        self.numbers = itertools.count(1)

    def name(self, word):
        """One that was not there before."""
        return f"{word}-{next(self.numbers)}"

    def login(self):
        JsonClient(self.gateway, self.name("visitor")).close()

    def message(self):
        """From the witness through msg and push to the peer."""
        self.gateway.await_online(self.peer.user, self.peer.platform)
        text = self.name("message")
        equal(self.witness.send_text(self.peer.user, text), 0, "code of SendMsg")
        self.peer.wait_text(text)

    def push(self):
        """From a service."""
        text = self.name("push")
        results = self.api.push("service", [self.witness.user], text)
        codes = [(detail.RecvPlatFormID, detail.ResultCode) for detail in results[self.witness.user].resp]
        equal(codes, [(self.witness.platform, 0)], "verdict of the push")
        self.witness.wait_text(text)

    def works(self):
        """A login, a message and a push."""
        eventually(self.login)
        eventually(self.message)
        self.push()
        self.witness.ping()

    def platforms(self, user):
        return sorted(self.standin.ask("platforms", user=user)["platforms"])

    def presence(self):
        """The store says of everybody what is true."""
        truth = {client.user: [client.platform] for client in (self.witness, self.peer)}
        truth.update({f"visitor-{n}": [] for n in range(1, next(self.numbers))})
        found = lambda: {user: self.platforms(user) for user in truth}
        wrong = lambda: {user: platforms for user, platforms in found().items() if platforms != truth[user]}
        until(lambda: not wrong(), lambda: f"the store has {wrong()}")

    def still_there(self):
        for client in (self.witness, self.peer):
            assert not client.closed, f"{client.user} was disconnected"
            client.ping()


class OfflineWatch:
    """Looks all the time how long the store has a connected user offline."""

    def __init__(self, standin, client):
        self.standin, self.client = standin, client
        self.longest = 0
        self.samples = 0
        self.ended = threading.Event()

    def __enter__(self):
        platform = self.client.platform
        until(lambda: platform in self._platforms(), lambda: f"{self.client.user} is not online")
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def short(self):
        assert self.samples, "nothing was seen"
        assert self.longest < OFFLINE_SECONDS_MAX, f"{self.client.user} was offline for {self.longest:.1f} s"

    def _platforms(self):
        return self.standin.ask("platforms", user=self.client.user)["platforms"]

    def _watch(self):
        since = None
        while not self.ended.wait(SAMPLE_SECONDS):
            try:
                online = self.client.platform in self._platforms()
            except RuntimeError:
                continue  # no Redis: nobody can say
            now = time.monotonic()
            since = None if online else since or now
            self.longest = max(self.longest, now - since if since else 0)
            self.samples += 1


def eventually(attempt):
    """Tries until it succeeds: what a client that comes back does."""
    last = []

    def succeeded():
        try:
            attempt()
            return True
        except (AssertionError, Refused, RuntimeError) as fault:
            last[:] = [fault]
            return False

    until(succeeded, lambda: f"{last}")


def until_equal(wanted, found, what):
    until(lambda: found() == wanted, lambda: f"{what}: {found()!r} instead of {wanted!r}")


def turned_away(attempt):
    """The login fails with 503 and no JSON: SDKs give up for good on any JSON (spec 13, trap 1)."""
    try:
        attempt()
    except Refused as refused:
        assert refused.status in (503, None), f"{refused}"
        assert not refused.body.startswith(b"{"), f"{refused}"
        return
    raise AssertionError("it was let in")


@contextlib.contextmanager
def hanging(scene, service, method, times):
    """The next so many calls get no answer."""
    scene.standin.ask("switch", service=service, method=method, hang=True, times=times)
    try:
        yield
    finally:
        scene.standin.ask("switch", service=service, method=method)


def calls_of(scene, service, method):
    return len(scene.standin.ask("records", service=service, method=method)["calls"])
