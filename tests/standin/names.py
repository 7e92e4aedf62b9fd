"""What differs between OpenIM's versions in names, and what is named the same in all (spec 4.1, 6.2, 6.4, 8.1, 11.1).

The words `auth`, `user`, `msg`, `push` and `gateway` name the services everywhere in the stand-in."""

import collections

SERVICES = ("auth", "user", "msg", "push", "gateway")
# Package and service of each path, without OpenIM's prefix (spec 4.1, 5.1).
PATHS = {
    "auth": "auth.Auth",
    "user": "user.user",
    "msg": "msg.msg",
    "push": "push.PushMsgService",
    "gateway": "msggateway.msgGateway",
}
PLATFORMS = {
    1: "IOS", 2: "Android", 3: "Windows", 4: "OSX", 5: "Web", 6: "MiniWeb",
    7: "Linux", 8: "APad", 9: "IPad", 10: "Admin", 11: "HarmonyOS",
}
IOS, ANDROID = 1, 2
PHONES = (IOS, ANDROID)
# Spec 8.1, the newest column.
CLASSES = {
    1: "Mobile", 2: "Mobile", 3: "PC", 4: "PC", 5: "Web", 6: "MiniWeb",
    7: "PC", 8: "Pad", 9: "Pad", 10: "Admin", 11: "HarmonyOS",
}
# Metadata of MAIN's temporary admin (spec 6.2).
TEMP_ADMIN = (("customheader", "ctxImTempAdminKey"), ("ctximtempadminkey", "1"))
ONLINE_CHANGE = "online_change"

# `old`: OpenIM 3.5. `always_details`: errors carry ErrorInfo even without a detail. `temp_admin`: push marks its calls
# instead of naming an admin.
Compat = collections.namedtuple("Compat", "name prefix registered old always_details temp_admin")

COMPATS = {
    "v3.5": Compat(
        "v3.5", "OpenIMServer.",
        {"auth": "Auth", "user": "User", "msg": "Msg", "push": "Push", "gateway": "MessageGateway"},
        old=True, always_details=True, temp_admin=False,
    ),
    "patch16": Compat(
        "patch16", "openim.",
        {"auth": "auth", "user": "user", "msg": "msg", "push": "push", "gateway": "messageGateway"},
        old=False, always_details=True, temp_admin=False,
    ),
    "main": Compat(
        "main", "openim.",
        {
            "auth": "auth-rpc-service", "user": "user-rpc-service", "msg": "msg-rpc-service",
            "push": "push-rpc-service", "gateway": "messagegateway-rpc-service",
        },
        old=False, always_details=False, temp_admin=True,
    ),
}


def path(compat, service, method):
    """The path of a call."""
    return f"/{compat.prefix}{PATHS[service]}/{method}"
