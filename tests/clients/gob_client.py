"""A user as the clients of OpenIM 3.5 are one: gob in binary frames (spec 2.2), no word about it in the arguments, and
gzip if asked for. None of them is published any more, so their bytes are made here, by the vectors of spec A.1.

What always holds: fields are found by the names in the definition that each frame brings along."""

import gzip
import uuid

from json_client import JsonClient

INT, BYTES, STRING = 2, 5, 6
# What the SDKs define in front of each request: GeneralWsReq, type 64.
DEFINITION = bytes.fromhex(
    "657f0301010c47656e6572616c577352657101ff80000106010d5265714964656e7469666965720104000105546f6b656e010c0001065365"
    "6e644944010c00010b4f7065726174696f6e4944010c0001074d7367496e6372010c00010444617461010a000000"
)
VALUE_OF_64 = b"\xff\x80"
# The fields of a request by their places; Token is the first, and is left out.
IDENTIFIER, SENDER, OPERATION, NUMBER, DATA = 0, 2, 3, 4, 5


class GobClient(JsonClient):
    """As JsonClient. `gzip` compresses both ways."""

    def __init__(self, gateway, user, platform, token=None, compression=""):
        self.compression = compression
        super().__init__(gateway, user, platform, token)

    def _arguments(self, token):
        found = {
            "sendID": self.user, "token": token, "platformID": self.platform, "operationID": uuid.uuid4().hex,
        }
        return {**found, "compression": self.compression} if self.compression else found

    def _encoded(self, identifier, operation, number, data):
        frame = encode({
            IDENTIFIER: identifier, SENDER: self.user.encode(), OPERATION: operation.encode(), NUMBER: number.encode(),
            DATA: data,
        })
        return gzip.compress(frame) if self.compression else frame

    def _decoded(self, frame):
        found = decode(gzip.decompress(frame) if self.compression else frame)
        return {
            "reqIdentifier": found.get("ReqIdentifier", 0), "msgIncr": found.get("MsgIncr", b"").decode(),
            "errCode": found.get("ErrCode", 0), "data": found.get("Data", b""),
        }


def encode(fields):
    """A request: numbers and bytes by place. What is zero or empty is not sent."""
    value, last = VALUE_OF_64, -1
    for place, what in sorted(fields.items()):
        if what:
            shown = unsigned(what << 1) if isinstance(what, int) else unsigned(len(what)) + what
            value += unsigned(place - last) + shown
            last = place
    value += b"\0"
    return DEFINITION + unsigned(len(value)) + value


def unsigned(number):
    if number < 128:
        return bytes([number])
    digits = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes([256 - len(digits)]) + digits


def decode(frame):
    """The fields of the frame's value by name, those that are there."""
    reader, types = Reader(frame), {}
    while True:
        reader.unsigned()  # the length of a message; it ends with its content
        number = reader.signed()
        if number > 0:
            return reader.struct(types[number])
        types[-number] = reader.definition()


class Reader:
    """Takes gob's parts off the front of some bytes."""

    def __init__(self, rest):
        self.rest = rest

    def take(self, size):
        taken, self.rest = self.rest[:size], self.rest[size:]
        assert len(taken) == size, "the frame is cut off"
        return taken

    def unsigned(self):
        (first,) = self.take(1)
        return first if first < 128 else int.from_bytes(self.take(256 - first), "big")

    def signed(self):
        number = self.unsigned()
        return ~(number >> 1) if number & 1 else number >> 1

    def bytes(self):
        return self.take(self.unsigned())

    def struct(self, fields):
        """Values by name. `fields` has (name, how to read it)."""
        found, place = {}, -1
        while delta := self.unsigned():
            place += delta
            name, read = fields[place]
            found[name] = read(self)
        return found

    def definition(self):
        """The fields of a struct type, of which only numbers, strings and bytes are known here."""
        reads = {INT: Reader.signed, BYTES: Reader.bytes, STRING: Reader.bytes}
        common = [("Name", Reader.bytes), ("Id", Reader.signed)]
        listed = lambda reader: [reader.struct(common) for _ in range(reader.unsigned())]
        struct = [("Common", lambda reader: reader.struct(common)), ("Field", listed)]
        kinds = [None, None, ("StructT", lambda reader: reader.struct(struct))]
        fields = self.struct(kinds)["StructT"]["Field"]
        return [(field["Name"].decode(), reads[field["Id"]]) for field in fields]
