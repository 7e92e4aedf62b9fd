"""A running stand-in as a test has it: a process of its own, asked over its control interface.

Needs nothing but the standard library here; the process runs under the Python of work/clients/venv."""

import json
import os
import queue
import subprocess
import threading
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = os.path.join(HERE, "..", "..", "work", "clients", "venv", "bin", "python")
START_SECONDS = STOP_SECONDS = ASK_SECONDS = 60


class Standin:
    """`with Standin("--services", "auth,user", "--etcd", address) as standin:`; `services` has the addresses by word.
    Verbs are those of control.py: `standin.ask("token", user="anna", platform=7)["token"]`."""

    def __init__(self, *flags):
        self.command = [PYTHON, os.path.join(HERE, "standin.py"), *flags]
        self.output = []

    def __enter__(self):
        # grpcio writes about connections that a test cuts on purpose.
        environment = dict(os.environ, GRPC_VERBOSITY="NONE")
        self.process = subprocess.Popen(
            self.command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )
        ready = queue.Queue()
        threading.Thread(target=self._read, args=(ready,), daemon=True).start()
        try:
            said = ready.get(timeout=START_SECONDS)
        except queue.Empty:
            said = None
        if said is None:
            self.process.kill()
            self.process.wait()
            raise RuntimeError("no stand-in:\n" + "\n".join(self.output))
        self.services, self.control = said["services"], said["control"]
        return self

    def __exit__(self, *_):
        self.stop()

    def ask(self, verb, **arguments):
        """The answer to a verb; a refusal raises."""
        request = urllib.request.Request(f"{self.control}/{verb}", json.dumps(arguments).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=ASK_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as fault:
            raise RuntimeError(json.load(fault)["error"]) from fault

    def stop(self):
        """Closes its standard input, then the exit status; None if it had to be killed."""
        try:
            self.process.stdin.close()
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def kill(self):
        """As `kill -9`: its keys stay in etcd until their leases end."""
        self.process.kill()
        self.process.wait()

    def _read(self, ready):
        for line in self.process.stdout:
            self.output.append(line.rstrip("\n"))
            if len(self.output) == 1 and line.startswith("{"):
                ready.put(json.loads(line))
        ready.put(None)
