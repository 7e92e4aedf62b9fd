"""The consistent hash of OpenIM's push on Kubernetes (spec 10.4): which gateway a user is looked for at."""

import bisect
import zlib

POINTS_PER_MEMBER = 20
PORT = 88


def members(instance, namespace, replicas, port=PORT):
    """What push hashes. Without a port (None): what openim-msggateway-proxy hashes, which is another ring."""
    name = f"{instance}-openim-msggateway"
    suffix = "" if port is None else f":{port}"
    host = f"{name}-headless.{namespace}.svc.cluster.local{suffix}"
    return [f"{name}-{index}.{host}" for index in range(replicas)]


class Ring:
    """Of two equal points the member that was added last has it."""

    def __init__(self, names):
        self.owners = {}
        for name in names:
            for index in range(POINTS_PER_MEMBER):
                self.owners[zlib.crc32(f"{index}{name}".encode())] = name
        self.points = sorted(self.owners)

    def owner(self, user):
        """The member behind the first point that is strictly greater. The ring must not be empty."""
        at = bisect.bisect_right(self.points, zlib.crc32(user.encode()))
        return self.owners[self.points[at % len(self.points)]]
