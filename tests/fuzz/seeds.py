#!/usr/bin/env python3
"""Writes the committed corpora: captures of real clients (tests/vectors) and the smallest valid inputs, one file each.

Usage: tests/fuzz/seeds.py. The files of `hub` are not written here: they come from runs (`cargo fuzz cmin`).
Each target's first bytes are its settings, as the head of its file in fuzz_targets says.
"""
import json
import pathlib
import struct

HERE = pathlib.Path(__file__).parent
VECTORS = HERE.parent / "vectors"
ZERO_KEY = b"\0\0\0\0"


def vectors(name):
    return json.loads((VECTORS / f"openim-{name}.json").read_text())["vectors"]


def head(vector):
    lines = [f"GET {vector['request_target']} HTTP/1.1", *(f"{key}: {value}" for key, value in vector["headers"])]
    return "\r\n".join([*lines, "", ""]).encode()


def masked(first, payload, key=ZERO_KEY):
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return bytes([first]) + length + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


def field(number, value):
    if isinstance(value, int):
        return bytes([number << 3]) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def heads():
    captured = [head(vector) for vector in vectors("handshake")]
    tail = b" HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" \
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    targets = [
        b"/?sendID=u&token=t&platformID=5&operationID=o&isBackground=false&isMsgResp=true&sdkType=js",
        b"/?v=eyJ0b2tlbiI6InQiLCJ1c2VySUQiOiJ1IiwicGxhdGZvcm1JRCI6NSwib3BlcmF0aW9uSUQiOiJvIn0=",
        b"http://h/?sendID=%75&token=+&platformID=11&compression=gzip",
        b"//a/../?x;y=1",
    ]
    return captured + [b"GET " + target + tail for target in targets]


def frames():
    key = b"\xa1\x02\x7c\x63"
    streams = [
        masked(0x82, b"abc", key) + masked(0x89, b"17", key) + masked(0x88, b"\x03\xe8bye", key),
        masked(0x01, b"a\xe2") + masked(0x89, b"p") + masked(0x00, b"\x82") + masked(0x80, b"\xac"),
        masked(0x82, b"x" * 700, key),
        masked(0x02, b"a") + masked(0, b"") * 3 + masked(0x80, b"z"),
        masked(0x81, b"\xf4\x90\x80\x80"),
        b"\xc2\x80",
    ]
    server = b"\x82\x03abc\x81\x00\x8a\x02hi\x88\x02\x03\xe8"
    settings = [bytes([mode]) + b"\x01\x02\x03" for mode in (0, 2)]
    return [mode + stream for mode in settings for stream in streams] + [b"\x01\x01\x02\x03" + server]


def grpc():
    bodies = [b"", b"\0\0\0\0\0", b"\0\0\0\0\x03abc", b"\x01\0\0\0\0", b"\0\0\0\x01\x2c" + b"x" * 300, b"\xff" * 9,
              b"\0\0\0\0\x02abc", b"100m", b"99999999H", b"50%25 %C3%BC"]
    return [b"\x01\x02\x03" + body for body in bodies]


def requests():
    message = field(1, "u2") + field(2, "u1") + field(9, 1) + field(11, 101) + field(12, "{}")
    options = field(19, field(1, "isNotNotification") + field(2, 0))
    return [
        b"\0" + field(1, message) + field(2, "u1") + field(2, "u3"),
        b"\0" + field(1, message + options + field(3, "g")) + field(1, field(9, 3)) + field(2, "u1"),
        b"\0" + field(1, message + field(20, b"x") + field(21, "ex")),
        b"\x01" + field(1, 2) + field(2, "u1") + field(2, "u2"),
        b"\x02" + field(1, "u1") + field(1, "u2"),
        b"\x03" + field(1, "u1") + field(2, 5) + field(3, "token"),
    ]


def texts():
    pings = ['{"type":"ping"}', '{"type":"pong"}', ' {"TYPE":"ping","Body":{"a":[1.0,"<x>\\u2028"]}} ', "null"]
    return [ping.encode() for ping in pings]


def envelopes():
    """Plain gob, plain JSON and gzip messages of the captures, the shortest first."""
    gob, jsons, gzip = set(), set(), set()
    for name in ("native-gob", "wasm-gob", "resp-variants"):
        for vector in vectors(name):
            gob.add(bytes.fromhex(vector["plain_hex"]))
            gzip.add(b"\0" + bytes.fromhex(vector["wire_hex"]))
    for vector in vectors("js-json"):
        jsons.add(bytes.fromhex(vector["wire_hex"]))
    jsons.add(b'{"reqIdentifier":-1,"SENDID":"\\u00fc","data":[1,null,255],"x":{"y":[]}}')
    return [sorted(found, key=lambda seed: (len(seed), seed))[:20] for found in (gob, jsons, gzip)]


def write(target, seeds):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("seed-*"):
        old.unlink()
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number:02}").write_bytes(seed)


def main():
    gob, jsons, gzip = envelopes()
    for target, seeds in {"head": heads(), "frames": frames(), "gob": gob, "json": jsons, "gzip": gzip,
                          "text": texts(), "grpc": grpc(), "requests": requests()}.items():
        write(target, seeds)


main()
