"""uWebSockets, driven from Python by socketify: its C++ does the sockets and the fan-out (publish), Python decides.

What a message costs in Python is in its echo figures, so those are no judgement on uWebSockets; memory, idle
connections and fan-out are its own. E... is echoed, B... is published to all others.
"""

import sys

from socketify import App, AppListenOptions, CompressOptions, OpCode


def opened(ws):
    ws.subscribe("all")


def message(ws, data, opcode):
    first = data[:1] if isinstance(data, bytes) else data[:1].encode()
    if first == b"E":
        ws.send(data, opcode)
    elif first == b"B":
        ws.publish("all", data, opcode)


app = App()
app.ws("/*", {
    "compression": CompressOptions.DISABLED,
    "max_payload_length": 64 * 1024,
    "idle_timeout": 0,
    "open": opened,
    "message": message,
})
app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"), lambda _: None)
app.run()
