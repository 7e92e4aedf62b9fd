"""Login tokens: JSON web tokens and their states (spec 7). Not here: where states are kept (store.py)."""

import base64
import hashlib
import hmac
import json
import time

from errors import EXPIRED, MALFORMED, NOT_VALID_YET, UNKNOWN_TOKEN, OpenImError

NORMAL, INVALID, KICKED_STATE, EXPIRED_STATE = range(4)
DIGESTS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
DAY_SECONDS = 24 * 3600
EXPIRE_DAYS = 90
# Newer versions set `iat` back, 3.5 has `nbf` instead.
ISSUED_BEFORE_SECONDS = 5
OLD_NOT_BEFORE_SECONDS = 300


def encode(part):
    return base64.urlsafe_b64encode(part).rstrip(b"=")


def decode(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def sign(secret, claims, algorithm="HS256"):
    """The token with these claims."""
    signed = encode(compact({"alg": algorithm, "typ": "JWT"})) + b"." + encode(compact(claims))
    signature = hmac.new(secret.encode(), signed, DIGESTS[algorithm]).digest()
    return (signed + b"." + encode(signature)).decode()


def claims_of(compat, user, platform, ttl_seconds=EXPIRE_DAYS * DAY_SECONDS):
    """What a token of this version says."""
    now = int(time.time())
    claims = {"UserID": user, "PlatformID": platform, "exp": now + ttl_seconds}
    if compat.old:
        return {**claims, "nbf": now - OLD_NOT_BEFORE_SECONDS, "iat": now}
    return {**claims, "iat": now - ISSUED_BEFORE_SECONDS}


def verify(compat, secret, token):
    """(user id, platform id, expiry in unix seconds).

    Raises OpenImError 1501 and 1503 to 1505; times are looked at before the signature (the order of spec 7.1)."""
    try:
        head, body, mac = token.split(".")
        header, claims, signature = json.loads(decode(head)), json.loads(decode(body)), decode(mac)
        user, platform = claims.get("UserID", ""), claims.get("PlatformID", 0)
        times = {name: float(claims[name]) for name in ("exp", "nbf", "iat") if name in claims}
        algorithm = header["alg"]
        if not isinstance(user, str) or not isinstance(platform, int):
            raise ValueError("claims of other types")
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise OpenImError(MALFORMED, detail=f"token is malformed: {fault}") from fault
    now = time.time()
    if "exp" in times and now >= times["exp"]:
        raise OpenImError(EXPIRED, detail="token is expired")
    if now < times.get("nbf", 0):
        raise OpenImError(NOT_VALID_YET, detail="token is not valid yet")
    if now < times.get("iat", 0):
        raise unknown(compat, "token used before issued")
    wanted = DIGESTS.get(algorithm)
    if not wanted:
        raise unknown(compat, f"signing method {algorithm} is invalid")
    if not hmac.compare_digest(hmac.new(secret.encode(), f"{head}.{body}".encode(), wanted).digest(), signature):
        raise unknown(compat, "signature is invalid")
    return user, platform, int(times.get("exp", 0))


def unknown(compat, text):
    """1505: newer versions hand the library's text on as the message (spec 7.1)."""
    return OpenImError(UNKNOWN_TOKEN, None if compat.old else text, text)
