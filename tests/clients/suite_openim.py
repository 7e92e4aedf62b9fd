"""The gateway in an OpenIM deployment: `backend: openim` against the stand-in of OpenIM's services (tests/standin), found
through a real etcd, with a real Redis. OpenIM's own clients must notice nothing."""

import os
import sys

from checks import equal, until
from gateway import ROOT, SECRET, Gateway
from push_api import PushApi
from suite_sdk import alone, refused, together

sys.path.insert(0, os.path.join(ROOT, "tests", "standin"))

from servers import Etcd, Redis  # noqa: E402 -- after the path
from standin_process import Standin  # noqa: E402

LINUX, WEB = 7, 5
NATIVE = "native-patch.15.1"


class Deployment:
    """etcd, Redis and the stand-in's services; gateways join by `Deployment.flags`."""

    def __init__(self, compat, *flags):
        self.compat = compat
        self.standin_flags = flags

    def __enter__(self):
        self.etcd = Etcd().__enter__()
        self.redis = Redis().__enter__()
        flags = ["--etcd", self.etcd.address, "--redis", self.redis.address, "--compat", self.compat]
        self.standin = Standin(*flags, "--secret", SECRET, *self.standin_flags).__enter__()
        return self

    def __exit__(self, *_):
        self.standin.stop()
        self.redis.__exit__()
        self.etcd.__exit__()

    def flags(self):
        """How a gateway joins."""
        return [
            "--backend", "openim", "--compat", self.compat, "--discovery-etcd-addresses", self.etcd.address,
            "--redis-addresses", self.redis.address, "--discovery-register-ip", "127.0.0.1",
            # Shorter than OpenIM's 30: a gateway that is killed is waited for, a lost lease is to be noticed.
            "--discovery-lease-s", "5",
        ]


class OpenimGateway(Gateway):
    """A gateway of a deployment. Tokens are its auth service's, made so that none ends another."""

    def __init__(self, deployment, shards, *flags):
        super().__init__(shards, *deployment.flags(), *flags)
        self.deployment = deployment

    def token(self, user, platform, days=90):
        asked = self.deployment.standin.ask("token", user=user, platform=platform, ttl_seconds=days * 86_400, policy=0)
        return asked["token"]

    def await_online(self, user, platform):
        """OpenIM's push asks no gateway about users whose presence it has not heard of yet (spec 10.2)."""
        known = lambda: self.deployment.standin.ask("push_presence")["users"].get(user, [])
        until(lambda: platform in known(), lambda: f"push knows {user} on {known()}")


def run(checks, _gateway, api):
    for compat in ("patch16", "main"):
        with Deployment(compat) as deployment, OpenimGateway(deployment, 2) as gateway:
            in_place(checks, deployment, gateway, compat)
            push_api = PushApi(gateway.grpc)
            alone(checks, gateway, push_api, NATIVE)
            refused(checks, gateway, NATIVE)
            together(checks, gateway, push_api, NATIVE, LINUX, api)
            together(checks, gateway, push_api, "js", WEB, api)
            push_api.close()
            leaves(checks, deployment, gateway, compat)


def in_place(checks, deployment, gateway, compat):
    """It is ready once it has found the services, and is found itself."""

    def found():
        gateway.await_ready()
        known = lambda: deployment.standin.ask("gateways")["addresses"]
        until(lambda: known() == [gateway.grpc], lambda: f"{known()} instead of {gateway.grpc}")

    checks.run(f"openim {compat}: the gateway finds the services in etcd and is found there", found)


def leaves(checks, deployment, gateway, compat):
    """The end of a gateway leaves nobody online and nothing in etcd."""

    def gone():
        equal(gateway.stop(), 0, "exit status")
        equal(deployment.standin.ask("gateways")["addresses"], [], "gateways in etcd")
        for user in ("anna", "boris", "emil", "frida"):
            equal(deployment.standin.ask("platforms", user=user)["platforms"], [], f"platforms of {user}")

    checks.run(f"openim {compat}: after SIGTERM nobody is online and the gateway is out of etcd", gone)
