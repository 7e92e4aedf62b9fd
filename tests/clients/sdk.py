"""One user of an OpenIM SDK: a Node process of its own (an SDK holds one user per process), spoken to in JSON lines."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

from gateway import ROOT

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = os.path.join(ROOT, "work", "clients")
LOGIN_SECONDS = 90
EVENT_SECONDS = 60


class User:
    """`kind` is the folder of work/clients that holds the SDK: native-patch.10, native-patch.15.1 or js."""

    def __init__(self, kind, user, platform, addresses):
        self.user = user
        self.data = tempfile.mkdtemp(prefix="pinion-sdk-")
        self.events = []
        self.answers = {}
        self.next_id = 0
        self.news = threading.Condition()
        script = "js_user.js" if kind == "js" else "native_user.js"
        self.process = subprocess.Popen(
            ["node", os.path.join(HERE, script), os.path.join(CLIENTS, kind)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.noise = []
        threading.Thread(target=self._read, daemon=True).start()
        websocket, api = addresses
        try:
            self.ask("init", platformID=platform, wsAddr=websocket, apiAddr=api, dataDir=self.data)
        except Exception:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the process as a killed app would; the operating system closes its socket."""
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.data, ignore_errors=True)

    def login(self, token):
        """Logs in and waits until the SDK says that it is in sync."""
        self.ask("login", seconds=LOGIN_SECONDS, userID=self.user, token=token)
        self.wait("OnSyncServerFinish", seconds=LOGIN_SECONDS)

    def send_text(self, recipient, text):
        """Resolves when the SDK has the gateway's answer to its SendMsg."""
        return self.ask("send", recvID=recipient, text=text)

    def wait_message(self, text, sender=None):
        """Waits until a message with this text is shown."""

        def shown(data):
            for message in data if isinstance(data, list) else [data]:
                if text_of(message) == text and sender in (None, message.get("sendID")):
                    return True
            return False

        return self.wait("OnRecvNewMessages", shown)

    def wait(self, name, wanted=lambda data: True, seconds=EVENT_SECONDS):
        """The first event of this name, also an earlier one, whose data is wanted."""
        until = time.monotonic() + seconds
        with self.news:
            while True:
                for event in self.events:
                    if event["event"] == name and wanted(event["data"]):
                        return event["data"]
                left = until - time.monotonic()
                if left <= 0 or self.process.poll() is not None:
                    raise TimeoutError(f"{self.user}: no {name} in {seconds} s; {self.seen()}")
                self.news.wait(min(left, 1))

    def never(self, name):
        """The event has not come."""
        with self.news:
            assert not any(event["event"] == name for event in self.events), f"{self.user}: {name}; {self.seen()}"

    def ask(self, verb, seconds=EVENT_SECONDS, **arguments):
        """Sends a command and waits for its answer; an SDK's refusal raises."""
        self.next_id += 1
        number = self.next_id
        self.process.stdin.write(json.dumps({"id": number, "do": verb, **arguments}) + "\n")
        self.process.stdin.flush()
        until = time.monotonic() + seconds
        with self.news:
            while number not in self.answers:
                left = until - time.monotonic()
                if left <= 0 or self.process.poll() is not None:
                    raise TimeoutError(f"{self.user}: no answer to {verb} in {seconds} s; {self.seen()}")
                self.news.wait(min(left, 1))
            answer = self.answers.pop(number)
        if "error" in answer:
            raise AssertionError(f"{self.user}: {verb}: {answer['error']}; {self.seen()}")
        return answer.get("ok")

    def seen(self):
        """What has happened to it, in words."""
        names = [event["event"] for event in self.events if not event["event"].startswith("sdk-")]
        faults = [event["data"] for event in self.events if event["event"].startswith("sdk-")]
        return f"events so far: {names}; faults of the SDK itself: {faults}; last output: {self.noise[-5:]}"

    def _read(self):
        for line in self.process.stdout:
            with self.news:
                if not line.startswith("@@"):
                    self.noise.append(line.rstrip()[:400])
                    continue
                said = json.loads(line[2:])
                if "event" in said:
                    self.events.append(said)
                else:
                    self.answers[said["id"]] = said
                self.news.notify_all()


def text_of(message):
    """A text message as the SDKs give it: `textElem`, or its JSON in `content`."""
    if not isinstance(message, dict):
        return None
    element = message.get("textElem") or {}
    if element.get("content"):
        return element["content"]
    try:
        return json.loads(message.get("content") or "{}").get("content")
    except ValueError:
        return None
