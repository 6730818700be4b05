"""What the tests of remote calls share: frames of ttRPC and HTTP/2, and a descriptor set.

Messages are made by google.protobuf from descriptors, which state the published .proto files
as far as the tests need them.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import any_pb2, timestamp_pb2  # noqa: F401  (fills the default pool)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pb2 import FileDescriptorSet as DescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame

from vsockdump.apps.http2 import PREFACE

STRING, BYTES, INT64, INT32, UINT32, MESSAGE, ENUM = 9, 12, 3, 5, 13, 11, 14
REQUEST, RESPONSE, DATA = 1, 2, 3

Fields = Sequence[tuple[int, str, int | str, bool]]  # number, name, type or message, repeated?


def _file(name: str, package: str, messages: dict[str, Fields]) -> FileDescriptorProto:
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message, fields in messages.items():
        made = file.message_type.add(name=message)
        for number, field, type_, repeated in fields:
            label = FieldDescriptorProto.LABEL_REPEATED if repeated else 1
            if isinstance(type_, int):
                made.field.add(name=field, number=number, type=type_, label=label)
            else:
                kind = ENUM if type_.endswith("Kind") else MESSAGE
                full = type_ if type_.startswith(".") else f".{package}.{type_}"
                made.field.add(name=field, number=number, type=kind, type_name=full, label=label)
    return file


TTRPC = _file(
    "ttrpc.proto",
    "ttrpc",
    {
        "KeyValue": [(1, "key", STRING, False), (2, "value", STRING, False)],
        "Request": [
            (1, "service", STRING, False),
            (2, "method", STRING, False),
            (3, "payload", BYTES, False),
            (4, "timeout_nano", INT64, False),
            (5, "metadata", "KeyValue", True),
        ],
        "Status": [(1, "code", INT32, False), (2, "message", STRING, False)],
        "Response": [(1, "status", "Status", False), (2, "payload", BYTES, False)],
    },
)
AGENT = _file(
    "agent.proto",
    "grpc",
    {
        "Storage": [(1, "driver", STRING, False), (3, "fs_group", UINT32, True)],
        "CreateContainerRequest": [
            (1, "container_id", STRING, False),
            (2, "exec_id", STRING, False),
            (4, "storages", "Storage", True),
            (5, "kind", "Kind", False),
            (6, "labels", "CreateContainerRequest.LabelsEntry", True),
            (7, "at", ".google.protobuf.Timestamp", False),
        ],
        "ReadRequest": [(1, "container_id", STRING, False)],
        "Chunk": [(1, "data", BYTES, False)],
        "Empty": [],
    },
)
AGENT.dependency.append("google/protobuf/timestamp.proto")
_KIND = AGENT.enum_type.add(name="Kind")
_KIND.value.add(name="SANDBOX", number=0)
_KIND.value.add(name="POD", number=1)
_LABELS = AGENT.message_type[1].nested_type.add(name="LabelsEntry")
_LABELS.options.map_entry = True
_LABELS.field.add(name="key", number=1, type=STRING, label=1)
_LABELS.field.add(name="value", number=2, type=STRING, label=1)
for _service in ("AgentService",):
    _made = AGENT.service.add(name=_service)
    _made.method.add(
        name="CreateContainer", input_type=".grpc.CreateContainerRequest", output_type=".grpc.Empty"
    )
    _made.method.add(name="ReadStdout", input_type=".grpc.ReadRequest", output_type=".grpc.Chunk")

_pool = DescriptorPool()
for _each in (timestamp_pb2.DESCRIPTOR.serialized_pb, TTRPC.SerializeToString(), AGENT):
    _pool.AddSerializedFile(_each if isinstance(_each, bytes) else _each.SerializeToString())


def made(name: str, **fields: Any) -> bytes:
    """A message of that full name."""
    message = GetMessageClass(_pool.FindMessageTypeByName(name))(**fields)
    return bytes(message.SerializeToString(deterministic=True))


def descriptor_set(folder: Path, *files: FileDescriptorProto) -> str:
    """A file for --proto."""
    path = folder / f"{files[0].name}.bin"
    path.write_bytes(DescriptorSet(file=files).SerializeToString())
    return str(path)


# --- ttRPC ---------------------------------------------------------------------------------


def ttrpc_frame(stream: int, type_: int, data: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">IIBB", len(data), stream, type_, flags) + data


def ask(stream: int, method: str, payload: bytes = b"", flags: int = 0, **fields: Any) -> bytes:
    service, _dot, name = method.rpartition("/")
    data = made("ttrpc.Request", service=service, method=name, payload=payload, **fields)
    return ttrpc_frame(stream, REQUEST, data, flags)


def answer(stream: int, payload: bytes = b"", code: int = 0, message: str = "") -> bytes:
    status = {"status": {"code": code, "message": message}} if code else {}
    return ttrpc_frame(stream, RESPONSE, made("ttrpc.Response", payload=payload, **status))


# --- HTTP/2 ---------------------------------------------------------------------------------


class Http2Side:
    """Frames of one side, whose header table goes on from block to block."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    def headers(self, stream: int, *flags: str, **headers: str) -> bytes:
        """HEADERS; `_x` is the pseudo header `:x`."""
        pairs = [(name.replace("_", ":", 1) if name[0] == "_" else name.replace("_", "-"), value)
                 for name, value in headers.items()]  # fmt: skip
        block = self._encoder.encode(pairs)
        return frame(HeadersFrame(stream, block), "END_HEADERS", *flags)

    def request(self, path: str, stream: int, *flags: str, **headers: str) -> bytes:
        """HEADERS of a request; of gRPC unless there are others."""
        own = headers or {"_method": "POST", "content_type": "application/grpc"}
        return self.headers(stream, *flags, _path=path, **own)

    def status(self, stream: int, code: int = 0, message: str = "") -> bytes:
        """Trailers of a gRPC call."""
        more = {"grpc_message": message} if message else {}
        return self.headers(stream, "END_STREAM", grpc_status=str(code), **more)


def frame(made: Frame, *flags: str) -> bytes:
    for flag in flags:
        made.flags.add(flag)
    return bytes(made.serialize())


def data(stream: int, *parts: bytes, end: bool = False) -> bytes:
    return frame(DataFrame(stream, b"".join(parts)), *(["END_STREAM"] if end else []))


def grpc(message: bytes, compressed: bool = False) -> bytes:
    return struct.pack(">BI", compressed, len(message)) + message


SETTINGS = frame(SettingsFrame(0))
HELLO = PREFACE + SETTINGS
