"""A connected user: `pinion listen` in a process of its own, whose output is read."""

import re
import signal
import subprocess
import threading

from checks import until
from gateway import BINARY

# OpenIM's platform ids.
IOS, ANDROID, WINDOWS, OSX, WEB, MINI_WEB, LINUX, ANDROID_PAD, IPAD, ADMIN_PLATFORM, HARMONY = range(1, 12)
TEXT_LINE = re.compile(r': text "(.*)"$')


class Listener:
    """`flags` go to `pinion listen`, like `--gzip`."""

    def __init__(self, gateway, user, platform=LINUX, flags=()):
        command = [BINARY, "listen", "--token", gateway.token(user, platform), "--url", gateway.websocket, *flags]
        self.user = user
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.output = []
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        until(lambda: self.saw("connected to"), lambda: f"{self.user} is not connected: {self.output[-5:]}")
        return self

    def __exit__(self, *_):
        self.close()

    def _read(self):
        for line in self.process.stdout:
            self.output.append(line.rstrip("\n"))

    def saw(self, text):
        return any(text in line for line in self.output)

    def texts(self):
        """The text messages that were pushed, in the order of their arrival."""
        return [found.group(1) for found in map(TEXT_LINE.search, list(self.output)) if found]

    def wait_texts(self, wanted):
        """Waits for so many texts and wants exactly these, in this order."""
        until(lambda: len(self.texts()) >= len(wanted), lambda: f"{self.user} got {len(self.texts())} of {len(wanted)}")
        got = self.texts()
        wrong = [n for n, (a, b) in enumerate(zip(got, wanted)) if a != b]
        assert not wrong, f"{self.user}: number {wrong[0]} is {got[wrong[0]][:80]!r}, wanted {wanted[wrong[0]][:80]!r}"
        assert len(got) == len(wanted), f"{self.user} got {len(got)} texts, wanted {len(wanted)}"

    def pause(self):
        """Stops the process: its socket stays open and is not read."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        self.process.kill()
        self.process.wait()
