#!/usr/bin/env python3
"""Does what README.md tells a newcomer to do, and fails where the page is wrong.

    scripts/quickstart.py

1. Starts the first command of the page and reads what it prints until `ready`.
2. Runs the two printed lines: one listens, one pushes; the push must become visible.
3. Runs every other `sh` block of the page, each in one shell, while that gateway runs; each must end with 0.
4. SIGTERM: the gateway ends with 0 within its deadline.

Uses the default ports, since that is what the page shows: another gateway on this machine is in the way.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
# The first start may still have to compile.
START_SECONDS = 900
BLOCK_SECONDS = 180
PUSH_SECONDS = 60
STOP_SECONDS = 60
CI_COMMAND = "scripts/ci.sh"

passed = failed = 0


def check(name, ok, why=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(f"{name}: {'ok' if ok else f'FAILED: {why}'}", flush=True)
    return ok


def blocks():
    """The `sh` blocks of the page."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as page:
        return [block.strip() for block in re.findall(r"^```sh\n(.*?)^```", page.read(), re.S | re.M)]


class Output:
    """The lines of a process, collected while it runs."""

    def __init__(self, process):
        self.lines = []
        self.news = threading.Condition()
        self.ended = False
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def _read(self, stream):
        for line in stream:
            with self.news:
                self.lines.append(line.rstrip("\n"))
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def wait(self, pattern, seconds):
        """The first line that matches, or None when the time is up or the process has ended."""
        until = time.monotonic() + seconds
        with self.news:
            while True:
                found = next((line for line in self.lines if re.search(pattern, line)), None)
                if found is not None or self.ended or time.monotonic() > until:
                    return found
                self.news.wait(0.5)


def start(command):
    return subprocess.Popen(
        command, shell=True, executable="/bin/bash", cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )


def gateway_pid(root):
    """The `pinion` process under this one: `cargo run` and the shell do not pass signals on."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8") as comm:
                if comm.read().strip() == "pinion":
                    return pid
            with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as children:
                waiting += [int(child) for child in children.read().split()]
        except FileNotFoundError:
            continue
    return None


def kill_session(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def printed_lines(output):
    """The two lines can be copied as they stand and make a push visible."""
    listen = next((line.strip() for line in output.lines if " listen --token " in line), None)
    push = next((line.strip() for line in output.lines if " push --to " in line), None)
    if not check("the gateway prints a line that listens and a line that pushes", listen and push, output.lines):
        return
    listener = start(listen)
    try:
        heard = Output(listener)
        check("the printed listen line connects", heard.wait(r"\bconnected\b", PUSH_SECONDS), heard.lines)
        pushed = subprocess.run(
            push, shell=True, executable="/bin/bash", cwd=ROOT, text=True, capture_output=True, timeout=PUSH_SECONDS
        )
        check("the printed push line succeeds", pushed.returncode == 0, pushed.stdout + pushed.stderr)
        text = re.search(r"--text '?(\w+)", push).group(1)
        check("the push becomes visible", heard.wait(rf"\b{text}\b", PUSH_SECONDS), heard.lines)
    finally:
        kill_session(listener)


def run_block(number, block):
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            ["/bin/bash", "-eu", "-o", "pipefail", "-c", block], cwd=ROOT, stdout=log, stderr=log,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=BLOCK_SECONDS)
        except subprocess.TimeoutExpired:
            status = f"none after {BLOCK_SECONDS} s"
        kill_session(process)
        log.seek(0)
        first = block.splitlines()[0]
        check(f"block {number} of the page ({first} ..)", status == 0, f"status {status}\n{log.read()}")


def main():
    first, *others = blocks()
    run, ci = (line.split("#")[0].strip() for line in first.splitlines())
    check("the second command of the page is this CI", ci == CI_COMMAND, ci)
    gateway = start(run)
    try:
        output = Output(gateway)
        if not check(f"`{run}` gets ready", output.wait("^ready$", START_SECONDS), output.lines[-20:]):
            return
        printed_lines(output)
        for number, block in enumerate(others, start=2):
            run_block(number, block)
        pid = gateway_pid(gateway.pid)
        if check("the gateway still runs", pid, output.lines[-20:]):
            os.kill(pid, signal.SIGTERM)
            try:
                status = gateway.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                status = f"none after {STOP_SECONDS} s"
            check("SIGTERM ends it with 0", status == 0, f"status {status}: {output.lines[-5:]}")
    finally:
        kill_session(gateway)


main()
print(f"quickstart: {passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
