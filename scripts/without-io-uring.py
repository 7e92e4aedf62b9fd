#!/usr/bin/env python3
"""Runs a command with io_uring denied, as the default seccomp profiles of Docker and containerd do.

    scripts/without-io-uring.py COMMAND [ARGUMENT..]
    scripts/without-io-uring.py --self-test

A seccomp filter makes io_uring_setup, io_uring_enter and io_uring_register fail with EPERM in this process and
everything it starts. It needs no privilege and cannot be taken back.
"""

import ctypes
import errno
import os
import platform
import struct
import subprocess
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000
# Classic BPF: load a 32-bit word, jump if equal, return.
LOAD, JUMP_EQ, RETURN = 0x20, 0x15, 0x06
# struct seccomp_data { int nr; __u32 arch; .. }
OFFSET_NR, OFFSET_ARCH = 0, 4
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# The same numbers on both architectures: setup, enter, register.
SYSCALLS = (425, 426, 427)


def program():
    """The filter as bytes: another architecture passes, our three calls fail, the rest passes."""
    machine = platform.machine()
    if machine not in AUDIT_ARCH:
        sys.exit(f"without-io-uring: no filter for {machine}")
    code = [(LOAD, 0, 0, OFFSET_ARCH), (JUMP_EQ, 0, len(SYSCALLS) + 1, AUDIT_ARCH[machine])]
    code.append((LOAD, 0, 0, OFFSET_NR))
    for i, number in enumerate(SYSCALLS):
        # A hit skips the remaining comparisons and the "allow".
        code.append((JUMP_EQ, len(SYSCALLS) - i, 0, number))
    code.append((RETURN, 0, 0, RET_ALLOW))
    code.append((RETURN, 0, 0, RET_ERRNO | errno.EPERM))
    return b"".join(struct.pack("HBBI", *step) for step in code), len(code)


def deny():
    """Installs the filter in this process."""
    code, steps = program()
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", steps, ctypes.addressof(held)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(fprog), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            sys.exit(f"without-io-uring: prctl{arguments}: {os.strerror(ctypes.get_errno())}")


PROBE = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(425, 0, None)
print(errno.errorcode[ctypes.get_errno()])
"""


def self_test():
    """io_uring_setup(0, NULL) answers EPERM under the filter; other calls and other programs work."""
    probe = [sys.executable, "-c", PROBE]
    under = subprocess.run([sys.executable, __file__, *probe], capture_output=True, text=True, timeout=30)
    other = subprocess.run([sys.executable, __file__, "sh", "-c", "exit 7"], timeout=30)
    checks = {
        "io_uring_setup fails with EPERM": under.stdout.strip() == "EPERM",
        "the command runs, and its exit status comes back": other.returncode == 7,
    }
    for name, ok in checks.items():
        print(f"{name}: {'ok' if ok else 'FAILED'}")
    plain = subprocess.run(probe, capture_output=True, text=True, timeout=30)
    print(f"(without the filter: {plain.stdout.strip()})")
    bad = list(checks.values()).count(False)
    print(f"seccomp: {len(checks) - bad} passed, {bad} failed")
    return 1 if bad else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test())
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    deny()
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as fault:
        sys.exit(f"without-io-uring: {sys.argv[1]}: {fault.strerror}")


main()
