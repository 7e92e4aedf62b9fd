"""Runs a command under a seccomp filter that allows only what a list names: seccomp.py PROFILE.json COMMAND..

The list is an OCI profile as in tuning/kubernetes, loaded through libseccomp as container runtimes do.
"""

import ctypes
import json
import os
import sys

ALLOW = 0x7FFF0000
EPERM_ERROR = 0x00050000 | 1


def load(profile):
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    context = library.seccomp_init(EPERM_ERROR)
    names = [name for rule in profile["syscalls"] for name in rule["names"]]
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        # Unknown to this library, or (negative) a call of another architecture: as the runtimes do, left out.
        if number >= 0 and library.seccomp_rule_add(context, ALLOW, number, 0) != 0:
            raise OSError(f"no rule for {name}")
    if library.seccomp_load(context) != 0:
        raise OSError("the filter was not loaded")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        load(json.load(file))
    os.execv(sys.argv[2], sys.argv[2:])
