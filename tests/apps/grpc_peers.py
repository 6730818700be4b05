"""A gRPC service and a client that uses every kind of call, for recordings (record.py)."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.struct_pb2 import Struct

SERVICE = "demo.Greeter"


def _refuse(_request: Struct, context: grpc.ServicerContext) -> Struct:
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü")


def _watch(request: Struct, _context: grpc.ServicerContext) -> Iterator[Struct]:
    for _ in range(3):
        yield request


def _collect(requests: Iterable[Struct], _context: grpc.ServicerContext) -> Struct:
    return list(requests)[-1]


_CODEC = {
    "request_deserializer": Struct.FromString,
    "response_serializer": Struct.SerializeToString,
}
_METHODS = {
    "Hello": grpc.unary_unary_rpc_method_handler(lambda request, _context: request, **_CODEC),
    "Refuse": grpc.unary_unary_rpc_method_handler(_refuse, **_CODEC),
    "Watch": grpc.unary_stream_rpc_method_handler(_watch, **_CODEC),
    "Collect": grpc.stream_unary_rpc_method_handler(_collect, **_CODEC),
    "Chat": grpc.stream_stream_rpc_method_handler(lambda ones, _context: ones, **_CODEC),
}


def server(address: str) -> Any:
    """The service, listening."""
    made = grpc.server(ThreadPoolExecutor(4))
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, _METHODS),))
    made.add_insecure_port(address)
    made.start()
    return made


def call_all(address: str) -> list[str]:
    """Call each method; returns the status of each call, in order."""
    codec = {
        "request_serializer": Struct.SerializeToString,
        "response_deserializer": Struct.FromString,
    }
    message = Struct()
    message.update({"name": "world", "pad": "x" * 300})
    statuses = []

    def note(call: Any) -> None:
        try:
            result = call()
            if not isinstance(result, Struct):
                list(result)
            statuses.append("OK")
        except grpc.RpcError as error:
            statuses.append(error.code().name)

    with grpc.insecure_channel(address) as channel:

        def unary(name: str) -> Any:
            return channel.unary_unary(f"/{SERVICE}/{name}", **codec)

        note(lambda: unary("Hello")(message))
        squeezed = {"compression": grpc.Compression.Gzip, "metadata": [("x-id", "7")], "timeout": 5}
        note(lambda: unary("Hello")(message, **squeezed))
        note(lambda: unary("Refuse")(message))
        note(lambda: unary("Nope")(message))
        note(lambda: channel.unary_stream(f"/{SERVICE}/Watch", **codec)(message))
        two = (message, message)
        note(lambda: channel.stream_unary(f"/{SERVICE}/Collect", **codec)(iter(two)))
        note(lambda: channel.stream_stream(f"/{SERVICE}/Chat", **codec)(iter(two)))
    return statuses
