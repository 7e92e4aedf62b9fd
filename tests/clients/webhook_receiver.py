"""A receiver of webhooks: takes every POST, answers as OpenIM's do, keeps what came."""

import http.server
import json
import threading

ANSWER = json.dumps({"actionCode": 0, "errCode": 0, "errMsg": "", "errDlt": "", "nextCode": 0}).encode()


class WebhookReceiver:
    """`url` goes to `webhooks.url`; `got` has a dict of each POST: path, operation (header), type, body (pairs)."""

    def __enter__(self):
        self.got = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/callback"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def of(self, user):
        """What came about a user, in the order of arrival."""
        return [hook for hook in list(self.got) if dict(hook["body"]).get("userID") == user]

    def _handler(self):
        got = self.got

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                text = self.rfile.read(int(self.headers["Content-Length"]))
                got.append({
                    "path": self.path,
                    "operation": self.headers["operationID"],
                    "type": self.headers["Content-Type"],
                    # Pairs, since the order of the keys is part of the contract.
                    "body": json.loads(text, object_pairs_hook=list),
                })
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(ANSWER)))
                self.end_headers()
                self.wfile.write(ANSWER)

            def log_message(self, *_):
                """Nothing: the checks say what is wrong."""

        return Handler
