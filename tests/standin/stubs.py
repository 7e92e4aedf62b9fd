"""The generated messages, by one name each: of the gateway's own proto files and of `proto/` beside this."""

import os
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "work", "clients", "stubs"))

import rpc_status_pb2 as rpc_status  # noqa: E402, F401
import upstream_services_pb2 as services  # noqa: E402, F401
from openim.errinfo import errinfo_pb2 as errinfo  # noqa: E402, F401
from openim.legacy import msggateway_pb2 as old_gateway  # noqa: E402, F401
from openim.msg import msg_pb2 as msg  # noqa: E402, F401
from openim.msggateway import msggateway_pb2 as gateway  # noqa: E402, F401
from openim.push import push_pb2 as push  # noqa: E402, F401
from openim.sdkws import sdkws_pb2 as sdkws  # noqa: E402, F401
