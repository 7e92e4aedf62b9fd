"""Push and the stand-in gateways: who is asked, with which metadata, what comes of it (spec 8 to 10)."""

import zlib

from ring import Ring, members
from selftest_client import Client, equal, refused, until
from standin_process import Standin
from stubs import gateway, sdkws

IOS, ANDROID, WINDOWS, WEB, LINUX = 1, 2, 3, 5, 7
# Spec A.6: owner with `:88` and without.
INSTANCE, NAMESPACE = "openimserver", "default"
VECTORS = [
    ("imAdmin", 2, 2), ("u1", 1, 2), ("user1", 2, 0), ("user2", 1, 0), ("3893196195", 0, 1), ("", 1, 1),
    ("用户", 2, 2),
]
FIVE = "441444441434443444343304330433330230013443444344434444444142"


def vectors():
    push, proxy = (members(INSTANCE, NAMESPACE, 3, port) for port in (88, None))
    headless = "openimserver-openim-msggateway-headless.default.svc.cluster.local:88"
    equal(push[0], f"openimserver-openim-msggateway-0.{headless}", "member")
    for user, with_port, without in VECTORS:
        equal(push.index(Ring(push).owner(user)), with_port, f"{user} with the port")
        equal(proxy.index(Ring(proxy).owner(user)), without, f"{user} without")
    five = members(INSTANCE, NAMESPACE, 5)
    ring = Ring(five)
    digits = "".join(str(five.index(ring.owner(f"user{number}"))) for number in range(60))
    equal(digits, FIVE, "five members")
    # A user whose hash is a point itself: the next point has him, and after the last the first.
    points = [(f"{index}{name}", name) for name in five for index in range(20)]
    marks = sorted((zlib.crc32(point.encode()), point, name) for point, name in points)
    for (_, user, _), (_, _, name) in zip(marks, [*marks[1:], marks[0]]):
        equal(ring.owner(user), name, f"strictly greater than the point {user}")


class Fleet:
    """The stand-in with all services and a gateway, and a second one with a gateway only."""

    def __init__(self, first, second, where=()):
        self.first, self.second, self.where = first, second, where

    def login(self, where, user, platform, **how):
        """Logs in and waits until push knows that he is online there."""
        token = self.first.ask("token", user=user, platform=platform, policy=0)["token"]
        answer = where.ask("gateway_login", user=user, platform=platform, token=token, **how)
        until(lambda: platform in self.known().get(user, ()), lambda: f"push does not know {user}: {self.known()}")
        return {**answer, "token": token}

    def known(self):
        return self.first.ask("push_presence")["users"]

    def push(self, **message):
        """Sends, and what push made of it once it has decided."""
        sent = self.first.ask("send", **message)["clientMsgID"]
        found = lambda: [p for p in self.first.ask("pushes")["pushes"] if p["clientMsgID"] == sent]
        until(lambda: found() and found()[0]["offline"] is not None, lambda: f"not pushed: {found()}")
        return found()[0]

    def received(self, where, user):
        connections = where.ask("gateway_users")["users"].get(user, [])
        return [[message["clientMsgID"] for message in connection["received"]] for connection in connections]


def run(checks, first, second, where):
    """`where` has the flags that name etcd and Redis."""
    fleet = Fleet(first, second, where)
    gateways = sorted([first.services["gateway"], second.services["gateway"]])
    checks.run("standin: the ring of the specification", vectors)

    def both_found():
        until(lambda: sorted(first.ask("gateways")["addresses"]) == gateways, lambda: first.ask("gateways"))
        until(lambda: sorted(second.ask("gateways")["addresses"]) == gateways, lambda: second.ask("gateways"))

    def all_nodes():
        fleet.login(second, "anna", WEB)
        outcome = fleet.push(sender="boris", recipient="anna", text="hello")
        equal((outcome["targets"], outcome["online"]), (["anna", "boris"], ["anna"]), "only who is online is asked for")
        equal(sorted(call["gateway"] for call in outcome["calls"]), gateways, "every gateway is asked")
        results = {call["gateway"]: call["results"] for call in outcome["calls"]}
        reached = {"user": "anna", "onlinePush": False, "resp": [[WEB, 0]]}
        equal(results[second.services["gateway"]], [reached], "where she is")
        equal(results[first.services["gateway"]], [{"user": "anna", "onlinePush": False, "resp": []}], "where not")
        equal(outcome["offline"], ["anna"], "no phone was reached")
        equal(fleet.received(second, "anna"), [[outcome["clientMsgID"]]], "received")
        seen = second.ask("records", service="gateway", method="SuperGroupOnlineBatchPushOneMsg")["calls"][-1]
        equal(seen["metadata"].get("opuserid"), "imAdmin", "acts as an admin")
        equal(seen["metadata"]["operationid"], outcome["operation"], "operation")
        equal(seen["request"]["msgData"]["status"], 2, "status")

    def phones():
        fleet.login(first, "carla", IOS)
        equal(fleet.push(sender="boris", recipient="carla")["offline"], [], "a phone was reached")
        equal(fleet.push(sender="boris", recipient="nobody")["offline"], ["nobody"], "nobody is online")
        fleet.login(first, "dora", IOS, background=True)
        outcome = fleet.push(sender="boris", recipient="dora")
        answered = [call["results"][0]["resp"] for call in outcome["calls"] if call["results"][0]["resp"]]
        equal((answered, outcome["offline"]), ([[[IOS, 1604]]], ["dora"]), "iOS in the background")
        fleet.login(first, "emil", ANDROID, broken=True)
        outcome = fleet.push(sender="boris", recipient="emil")
        answered = [call["results"][0]["resp"] for call in outcome["calls"] if call["results"][0]["resp"]]
        equal((answered, outcome["offline"]), ([[[ANDROID, 1603]]], ["emil"]), "sending failed")
        outcome = fleet.push(sender="boris", recipient="nobody", options={"offlinePush": False})
        equal(outcome["offline"], [], "not wanted")

    def groups():
        first.ask("group", group="g", users=["anna", "boris", "carla", "frida"])
        outcome = fleet.push(sender="boris", group="g", text="to all")
        equal((outcome["conversation"], outcome["online"]), ("sg_g", ["anna", "carla"]), "group")
        equal(outcome["offline"], ["anna", "frida"], "all but the sender and who was reached on a phone")

    def a_gateway_fails():
        second.ask("switch", service="gateway", method="SuperGroupOnlineBatchPushOneMsg", error={"code": 14}, times=1)
        outcome = fleet.push(sender="boris", recipient="carla")
        codes = {call["gateway"]: call["code"] for call in outcome["calls"]}
        equal(codes, {first.services["gateway"]: 0, second.services["gateway"]: 14}, "codes")
        equal(outcome["offline"], [], "the other one reached her")
        outcome = fleet.push(sender="boris", recipient="carla", operation="\u7528")
        equal({call["code"] for call in outcome["calls"]}, {13}, "an operation id that gRPC cannot carry")

    checks.run("standin: gateways find each other", both_found)
    checks.run("standin: push asks every gateway for who is online", all_nodes)
    checks.run("standin: phones, iOS in the background and failed sends decide on offline push", phones)
    checks.run("standin: a group", groups)
    checks.run("standin: a gateway that fails is left out", a_gateway_fails)
    checks.run("standin: push by the ring", lambda: by_ring(fleet))
    mixed(checks, fleet)
    checks.run("standin: rules of the gateway's requests", lambda: rules(Client(first)))


def by_ring(fleet):
    """A second push with the other strategy, in a process of its own that finds users by hash."""
    with Standin("--services", "msg,push", *fleet.where, "--strategy", "hash") as hashing:
        users = ["anna", "carla"]
        both = [fleet.first.services["gateway"], fleet.second.services["gateway"]]
        names = hashing.ask("ring", instance=INSTANCE, namespace=NAMESPACE, replicas=2)["members"]
        dial = dict(zip(names, both))
        hashing.ask("ring", instance=INSTANCE, namespace=NAMESPACE, replicas=2, dial=dial)
        hashing.ask("group", group="g", users=users)
        other = Fleet(hashing, fleet.second, fleet.where)
        outcome = other.push(sender="boris", group="g")
        owners = {dial[Ring(names).owner(user)] for user in users}
        equal({call["gateway"] for call in outcome["calls"]}, owners, "asked")
        asked = {r["user"]: call["gateway"] for call in outcome["calls"] for r in call["results"]}
        equal(asked, {user: dial[Ring(names).owner(user)] for user in users}, "each user at his own gateway")


def mixed(checks, fleet):
    """Two gateways and what they tell each other."""
    first, second = fleet.first, fleet.second

    def kicked():
        old = fleet.login(first, "gerd", LINUX)
        answer = fleet.login(second, "gerd", LINUX)
        equal(answer["others"], {first.services["gateway"]: 0}, "asked")
        kicked = lambda: [k["connID"] for k in first.ask("gateway_users")["kicked"]]
        until(lambda: old["connID"] in kicked(), lambda: f"kicked: {kicked()}")
        states = lambda: first.ask("token_states", user="gerd", platform=LINUX)["states"]
        until(lambda: states() == {old["token"]: 2, answer["token"]: 0}, lambda: f"{states()}")

    def repaired():
        # The removal at the first gateway takes the platform away for all, and the second one says it again.
        fleet.login(first, "hanna", WEB)
        token = first.ask("token_states", user="hanna", platform=WEB)["states"]
        second.ask("gateway_login", user="hanna", platform=WEB, token=next(iter(token)))
        before = len(second.ask("gateway_users")["users"]["hanna"])
        equal(before, 1, "with the same token nobody is kicked")
        until(lambda: has_entry(first, "hanna", 2), lambda: "the second gateway has not told")
        first.ask("gateway_logout", user="hanna")
        until(lambda: has_entry(first, "hanna", 4), lambda: first.ask("presence")["entries"][-5:])
        until(lambda: first.ask("platforms", user="hanna")["platforms"] == [WEB], lambda: "not repaired")

    def merged():
        fleet.login(first, "iris", WINDOWS)
        fleet.login(second, "iris", WEB)
        found = first.ask("online", users=["iris", "nobody"])
        equal(sorted((d["gateway"], d["platform"]) for d in found["users"]["iris"]), sorted([
            (first.services["gateway"], WINDOWS), (second.services["gateway"], WEB),
        ]), "merged")
        equal(list(found["users"]), ["iris"], "users")

    def logged_out():
        state = fleet.login(second, "jan", LINUX)
        answer = first.ask("force_logout", user="jan", platform=LINUX)
        equal(set(answer["gateways"].values()), {0}, "codes")
        equal(second.ask("gateway_users")["users"].get("jan"), None, "gone")
        equal(first.ask("token_states", user="jan", platform=LINUX)["states"], {state["token"]: 2}, "token")
        until(lambda: not fleet.known()["jan"], lambda: f"still online: {fleet.known()['jan']}")

    checks.run("standin: a login at another gateway kicks, and the token goes", kicked)
    checks.run("standin: presence that another gateway took away is repaired", repaired)
    checks.run("standin: the online status of all gateways, merged", merged)
    checks.run("standin: force logout", logged_out)


def has_entry(standin, user, number):
    return sum(entry["user"] == user for entry in standin.ask("presence")["entries"]) >= number


def rules(client):
    message = sdkws.MsgData(sendID="a", recvID="b", sessionType=1, contentType=101, content=b"x")
    method, answer = "SuperGroupOnlineBatchPushOneMsg", gateway.OnlineBatchPushOneMsgResp
    of_notification = sdkws.MsgData(sendID="a", sessionType=1, contentType=1400, content=b"x")
    request = lambda data, users=("b",): gateway.OnlineBatchPushOneMsgReq(msgData=data, pushToUserIDs=users)
    no_content = sdkws.MsgData(sendID="a", sessionType=1)
    for wrong, text in [
        (gateway.OnlineBatchPushOneMsgReq(pushToUserIDs=["b"]), "MsgData is empty"),
        (request(sdkws.MsgData(content=b"x")), "sendID is empty"),
        (request(no_content), "content is empty"),
        (request(of_notification), "notification msg must have correct session type and content type"),
        (request(message, ()), "PushToUserIDs is empty"),
    ]:
        refused(lambda w=wrong: client.call("gateway", method, w, answer), 1001, "ArgsError", text)
    results = client.call("gateway", method, request(message, ["nobody", "nobody"]), answer).singlePushResult
    equal([r.userID for r in results], ["nobody", "nobody"], "a result for each")
    for platform in (0, 10, 11):
        wrong = gateway.KickUserOfflineReq(platformID=platform, kickUserIDList=["b"])
        refused(lambda w=wrong: client.call("gateway", "KickUserOffline", w, gateway.KickUserOfflineResp), 1001,
                "ArgsError", "PlatformID is invalid")
    status = gateway.GetUsersOnlineStatusReq(userIDs=["b"])
    refused(lambda: client.call("gateway", "GetUsersOnlineStatus", status, gateway.GetUsersOnlineStatusResp), 1002)
    empty = gateway.OnlinePushMsgReq()
    refused(lambda: client.call("gateway", "OnlinePushMsg", empty, gateway.OnlinePushMsgResp), 12)


def newest(checks, main):
    """MAIN marks its calls instead of naming an admin."""

    def marked():
        fleet = Fleet(main, main)
        fleet.login(main, "anna", WEB)
        fleet.push(sender="boris", recipient="anna")
        seen = main.ask("records", service="gateway", method="SuperGroupOnlineBatchPushOneMsg")["calls"][-1]["metadata"]
        equal((seen["customheader"], seen["ctximtempadminkey"]), ("ctxImTempAdminKey", "1"), "marker")
        equal(seen["opuserid"], "boris", "acting user")
        equal(list(main.ask("online", users=["anna"])["users"]), ["anna"], "the marker is enough for the status")

    checks.run("standin: main: push marks its calls as an admin's", marked)


def oldest(checks, old):
    """3.5 asks for everybody, and pushes offline for each gateway that does not have him."""

    def everybody():
        old.ask("gateway_login", user="anna", platform=ANDROID, token="t")
        fleet = Fleet(old, old)
        outcome = fleet.push(sender="boris", recipient="anna")
        equal(outcome["online"], ["anna", "boris"], "asked for")
        equal(outcome["calls"][0]["results"][0], {"user": "anna", "onlinePush": True, "resp": [[ANDROID, 0]]}, "result")
        equal(fleet.push(sender="boris", recipient="nobody")["offline"], ["nobody"], "offline")
        old.ask("gateway_login", user="carla", platform=WEB, token="t")
        outcome = fleet.push(sender="boris", recipient="carla")
        equal(outcome["calls"][0]["results"][0]["resp"], [], "who is no phone is not listed")
        equal(old.ask("online", users=["carla"])["users"]["carla"][0]["platform"], "Web", "platforms are names")

    checks.run("standin: v3.5: push asks for everybody", everybody)
