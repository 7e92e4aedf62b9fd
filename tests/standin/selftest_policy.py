"""The login policies (spec 8.2, 8.3): whom a login kicks at a gateway, and which tokens go with it."""

from selftest_client import equal, until

IOS, ANDROID, WINDOWS, LINUX, WEB, IPAD = 1, 2, 3, 7, 5, 9
NORMAL, KICKED = 0, 2
# By policy: (platforms that are logged in, the new one, whom the gateway kicks, whose tokens are kicked after that).
POLICIES = {
    0: [([IOS, WEB, WINDOWS], IOS, [], [])],
    1: [([IOS, WEB, IOS], IOS, [IOS, IOS], [IOS]), ([ANDROID, WEB], IOS, [], [])],
    4: [
        ([ANDROID, WEB, WINDOWS], IOS, [ANDROID], [ANDROID]),
        ([WINDOWS, LINUX], WINDOWS, [LINUX, WINDOWS], [LINUX, WINDOWS]),
    ],
    # invalidateToken names the new platform only: the tokens of the others stay good.
    5: [([ANDROID, WEB, WINDOWS], IOS, [ANDROID, WEB], []), ([IPAD, LINUX], WINDOWS, [], [])],
}


def run(checks, standin, policy):
    """Against a stand-in that has this policy, for each case another user."""

    def kicks():
        for number, (platforms, platform, kicked, without_token) in enumerate(POLICIES[policy]):
            user = f"user-{number}"
            # Made under policy 0, so that it is the gateway that takes tokens away.
            make = lambda platform, user=user: standin.ask("token", user=user, platform=platform, policy=0)["token"]
            old = [(each, make(each)) for each in platforms]
            token = make(platform)
            # Straight into the table: a login of each would kick the ones before.
            for each, its_token in old:
                standin.ask("gateway_hold", user=user, platform=each, token=its_token)
            standin.ask("gateway_login", user=user, platform=platform, token=token)
            shown = standin.ask("gateway_users")
            equal(sorted(k["platform"] for k in shown["kicked"] if k["user"] == user), sorted(kicked), f"case {number}")
            states = lambda platform, user=user: standin.ask("token_states", user=user, platform=platform)["states"]
            wrong = lambda: [
                (each, its_token) for each, its_token in old
                if states(each)[its_token] != (KICKED if each in without_token else NORMAL)
            ]
            until(lambda: not wrong(), lambda: f"case {number}: tokens {wrong()}")
            equal(states(platform)[token], NORMAL, "the new token")

    checks.run(f"standin: policy {policy}", kicks)
