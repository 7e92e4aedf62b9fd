"""OpenIM's auth service: tokens are made, looked at and taken away (spec 5.2, 7)."""

from errors import KICKED, NOT_EXIST, UNKNOWN_TOKEN, OpenImError
from names import CLASSES, PLATFORMS
from stubs import services
from tokens import DAY_SECONDS, EXPIRE_DAYS, KICKED_STATE, NORMAL, claims_of, sign, verify

NOT_KICK, SAME_TERMINAL, SAME_CLASS, PC_AND_OTHER = 0, 1, 4, 5
# Of which platforms a login on this one takes the tokens away, by policy (spec 8.3).
KICKED_PLATFORMS = {
    NOT_KICK: lambda platform: [],
    SAME_TERMINAL: lambda platform: [platform],
    SAME_CLASS: lambda platform: [other for other in PLATFORMS if CLASSES[other] == CLASSES[platform]],
    PC_AND_OTHER: lambda platform: (
        [] if CLASSES[platform] == "PC" else [other for other in PLATFORMS if CLASSES[other] != "PC"]
    ),
}
STATE_ERRORS = {KICKED_STATE: KICKED}


class Auth:
    """`policy` is multiLogin.policy, which also counts when a token is made."""

    def __init__(self, world, secret, admins, policy):
        self.world, self.secret, self.admins, self.policy = world, secret, admins, policy

    def methods(self):
        methods = {"parseToken": (services.ParseTokenReq, self.parse_token)}
        # The gateways of 3.5 change token states themselves.
        return methods if self.world.compat.old else {
            **methods,
            "invalidateToken": (services.InvalidateTokenReq, self.invalidate_token),
            "kickTokens": (services.KickTokensReq, self.kick_tokens),
        }

    async def parse_token(self, request, _context):
        user, platform, expires = verify(self.world.compat, self.secret, request.token)
        if self._keeps_tokens_of(user):
            states = await self.world.store.token_states(user, platform)
            state = states.get(request.token)
            if state is None:
                raise OpenImError(NOT_EXIST)
            if state != NORMAL:
                raise OpenImError(STATE_ERRORS.get(state, UNKNOWN_TOKEN))
        if self.world.compat.old:
            name = PLATFORMS.get(platform, "")
            return services.OldParseTokenResp(userID=user, platform=name, expireTimeSeconds=expires)
        return services.ParseTokenResp(userID=user, platformID=platform, expireTimeSeconds=expires)

    async def invalidate_token(self, request, _context):
        """Every token of the user and platform but the one."""
        await self.kick_platform(request.userID, request.platformID, request.preservedToken)
        return services.Empty()

    async def kick_tokens(self, request, _context):
        """Just these."""
        for token in request.tokens:
            user, platform, _ = verify(self.world.compat, self.secret, token)
            await self.world.store.set_token_states(user, platform, {token: KICKED_STATE})
        return services.Empty()

    async def kick_platform(self, user, platform, preserved=None):
        states = await self.world.store.token_states(user, platform)
        kicked = {token: KICKED_STATE for token in states if token != preserved}
        await self.world.store.set_token_states(user, platform, kicked)

    async def make_token(self, user, platform, ttl_seconds=None, policy=None):
        """As getUserToken does: older tokens go as the policy says, with 3.5 none. Admins' tokens are kept by 3.5 only.
        A ttl below zero makes an expired one."""
        ttl = EXPIRE_DAYS * DAY_SECONDS if ttl_seconds is None else ttl_seconds
        states = await self.world.store.token_states(user, platform)
        token = self._another(user, platform, ttl, states)
        if not self._keeps_tokens_of(user):
            return token
        standing = NOT_KICK if self.world.compat.old else self.policy
        for other in KICKED_PLATFORMS[standing if policy is None else policy](platform):
            await self.kick_platform(user, other)
        await self.world.store.set_token_states(user, platform, {token: NORMAL}, EXPIRE_DAYS * DAY_SECONDS)
        return token

    def _keeps_tokens_of(self, user):
        return self.world.compat.old or user not in self.admins

    def _another(self, user, platform, ttl, states):
        """A token that the user does not have yet: within one second two of the same life would be equal."""
        while True:
            token = sign(self.secret, claims_of(self.world.compat, user, platform, ttl))
            if token not in states:
                return token
            ttl += 1
