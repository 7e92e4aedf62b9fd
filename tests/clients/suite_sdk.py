"""What OpenIM's own clients must be able to do with the gateway."""

from checks import equal, until
from gateway import Gateway, expired_token
from listener import Listener
from push_api import PushApi
from sdk import LOGIN_SECONDS, User

# Nothing listens there: the native SDK logs in and receives without the HTTP API (clients.md 3.6).
NO_API = "http://127.0.0.1:9"
IOS, WINDOWS, WEB, LINUX = 1, 3, 5, 7


def native(checks, gateway, api, kind):
    """Gob and gzip, spoken by the Go core."""
    push_api = PushApi(gateway.grpc)
    alone(checks, gateway, push_api, kind)
    refused(checks, gateway, kind)
    turned_away(checks, kind)
    together(checks, gateway, push_api, kind, LINUX, api)
    push_api.close()


def javascript(checks, gateway, api):
    """JSON. This SDK cannot finish its sync without the HTTP API."""
    push_api = PushApi(gateway.grpc)
    together(checks, gateway, push_api, "js", WEB, api)
    kicked_by_second_login(checks, gateway, push_api, "js", WEB, api)
    push_api.close()


def alone(checks, gateway, push_api, kind):
    """Two users, no HTTP API: login, sync finished, push, second login kicks the first."""
    addresses = (gateway.websocket, NO_API)
    with User(kind, "anna", LINUX, addresses) as anna, User(kind, "boris", LINUX, addresses) as boris:
        checks.run(f"{kind}: two users log in and finish their sync", lambda: [
            anna.login(gateway.token("anna", LINUX)),
            boris.login(gateway.token("boris", LINUX)),
        ])

        def pushed():
            results = push_api.push("boris", ["anna"], "pushed over gRPC")
            equal([(d.RecvPlatFormID, d.ResultCode) for d in results["anna"].resp], [(LINUX, 0)], "verdict")
            anna.wait_message("pushed over gRPC", sender="boris")

        checks.run(f"{kind}: a push over gRPC arrives as a message", pushed)
        checks.run(f"{kind}: a second push arrives on the same connection", lambda: [
            push_api.push("boris", ["anna"], "pushed again"),
            anna.wait_message("pushed again"),
        ])
    kicked_by_second_login(checks, gateway, push_api, kind, LINUX, NO_API)


def kicked_by_second_login(checks, gateway, push_api, kind, platform, api):
    addresses = (gateway.websocket, api)
    with User(kind, "clara", platform, addresses) as first, User(kind, "clara", platform, addresses) as second:

        def kicked():
            first.login(gateway.token("clara", platform, days=90))
            second.login(gateway.token("clara", platform, days=89))
            first.wait("OnKickedOffline")
            second.never("OnKickedOffline")

        def survivor():
            results = push_api.push("boris", ["clara"], "to the second login")
            equal(len(results["clara"].resp), 1, "connections of clara")
            second.wait_message("to the second login")

        checks.run(f"{kind}: a second login of the same user and platform kicks the first", kicked)
        checks.run(f"{kind}: the second login is reached by the next push", survivor)


def refused(checks, gateway, kind):
    with User(kind, "dora", LINUX, (gateway.websocket, NO_API)) as dora:

        def told():
            try:
                dora.ask("login", userID="dora", token=expired_token("dora", LINUX))
            except (AssertionError, TimeoutError):
                pass  # the login call may fail or resolve; the event is what an app acts on
            dora.wait("OnUserTokenExpired")

        checks.run(f"{kind}: an expired token is refused as expired", told)


def turned_away(checks, kind):
    """A full gateway answers 503; the SDK retries by itself and is in once there is room."""
    with Gateway(1, "--websocket-address-connections-max", "1") as gateway:
        refused = lambda: gateway.metric("pinion_handshakes_total", 'outcome="address_limit"')
        # A login, since a connection that says nothing is closed after ten seconds.
        with Listener(gateway, "in-the-way") as in_the_way, User(
            kind, "gerda", LINUX, (gateway.websocket, NO_API)
        ) as gerda:

            def comes_back():
                try:
                    gerda.ask("login", userID="gerda", token=gateway.token("gerda", LINUX))
                except (AssertionError, TimeoutError):
                    pass  # the login call may fail or resolve; the connection is what counts
                until(lambda: refused() >= 2, lambda: f"refused {refused()} times")
                in_the_way.close()
                gerda.wait("OnSyncServerFinish", seconds=LOGIN_SECONDS)
                gerda.never("OnKickedOffline")

            checks.run(f"{kind}: refused twice with 503, the SDK comes back by itself and is in", comes_back)


def together(checks, gateway, push_api, kind, platform, api):
    """With the HTTP API: one sends, the other receives; kick over gRPC; logout."""
    addresses = (gateway.websocket, api)
    with User(kind, "emil", platform, addresses) as emil, User(kind, "frida", platform, addresses) as frida:
        checks.run(f"{kind}: two users log in with the HTTP API", lambda: [
            emil.login(gateway.token("emil", platform)),
            frida.login(gateway.token("frida", platform)),
        ])

        def sent():
            gateway.await_online("frida", platform)
            gateway.await_online("emil", platform)
            emil.send_text("frida", "hello frida")
            frida.wait_message("hello frida", sender="emil")

        def answered():
            frida.send_text("emil", "hello emil")
            emil.wait_message("hello emil", sender="frida")

        def pushed():
            push_api.push("grpc", ["frida"], "from a service")
            frida.wait_message("from a service")

        def kicked():
            push_api.kick(platform, ["frida"])
            frida.wait("OnKickedOffline")
            equal(push_api.online(["emil", "frida"]), {"emil": [platform]}, "online after the kick")

        def logged_out():
            emil.ask("logout")
            # The answer to a logout comes before the close.
            until(lambda: not push_api.online(["emil"]), lambda: "emil is still online")

        checks.run(f"{kind}: one sends, the other receives", sent)
        checks.run(f"{kind}: and the other way round", answered)
        checks.run(f"{kind}: a push reaches a user who sent and received", pushed)
        checks.run(f"{kind}: KickUserOffline is seen as OnKickedOffline", kicked)
        checks.run(f"{kind}: logout takes the user offline", logged_out)
