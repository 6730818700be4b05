"""Protocol Buffers: the wire format, guesses, descriptor sets, and their errors."""

from pathlib import Path

import pytest
from google.protobuf import struct_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given, settings
from hypothesis import strategies as st
from rpc_talks import AGENT, TTRPC, descriptor_set, made
from running import run

from vsockdump.apps import protobuf
from vsockdump.apps.byte_stream import Body, ProtocolError
from vsockdump.apps.protobuf import Field, fields_of, guess, schema
from vsockdump.apps.registry import DecodeError

SERVICE = "grpc.AgentService"


def body(data: bytes, missing: int = 0) -> Body:
    return Body(data, len(data) + missing, missing)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("08 96 01", [Field(1, 150, 3)]),
        ("08 ff ff ff ff ff ff ff ff ff 01", [Field(1, 2**64 - 1, 11)]),
        ("12 02 68 69", [Field(2, b"hi", 4)]),
        ("1d 01 00 00 00", [Field(3, 1, 5)]),
        ("21 01 00 00 00 00 00 00 00", [Field(4, 1, 9)]),
        ("f2 07 00", [Field(126, b"", 3)]),
    ],
)
def test_wire_format(data: str, expected: list[Field]) -> None:
    assert list(fields_of(bytes.fromhex(data))) == expected


@pytest.mark.parametrize(
    "data", ["08", "0a 05 61", "00 01", "0b 0c", "0e", "08" + " ff" * 11, "0d 01"]
)
def test_what_is_no_message(data: str) -> None:
    with pytest.raises(ProtocolError):
        list(fields_of(bytes.fromhex(data)))


def test_a_cut_message_has_the_fields_that_are_there() -> None:
    data = bytes.fromhex("08 01 12 05 61 62")
    assert list(fields_of(data, whole=False)) == [Field(1, 1, 2), Field(2, b"ab", 9, 3)]
    assert guess(body(data, 3)) == {
        "1": 1,
        "2": "ab… (3 bytes are missing)",
        "(missing)": "the rest",
    }


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", {}),
        (b"\n\x05hello", {"1": "hello"}),
        (b"\n\x02\x08\x07", {"1": {"1": 7}}),
        (b"\n\x42\n@" + b"a" * 64, {"1": {"1": "a" * 64}}),  # all of it could be text
        (b"\n\x06a\nb\r\n\t", {"1": "a\nb\r\n\t"}),
        (b"\n\x02\xff\xfe", {"1": b"\xff\xfe"}),
        (b"\n\x04\x1b[0m", {"1": b"\x1b[0m"}),
        (b"\n\x00\n\x01a", {"1": ["", "a"]}),
        (b"not protobuf", {"data": b"not protobuf"}),
    ],
)
def test_guesses(data: bytes, expected: object) -> None:
    assert guess(body(data)) == expected


def test_a_library_makes_what_is_guessed() -> None:
    message = struct_pb2.Struct()
    message.update({"name": "x", "nested": {"flag": True}})
    found = guess(body(message.SerializeToString(deterministic=True)))
    assert found == {
        "1": [
            {"1": "name", "2": {"3": "x"}},
            {"1": "nested", "2": {"5": {"1": {"1": "flag", "2": {"4": 1}}}}},
        ]
    }


def test_caps() -> None:
    many = guess(body(b"\x08\x01" * 700))
    assert many["1"] == [1] * protobuf.MOST_FIELDS
    assert many[protobuf.LEFT_OUT] == "200 fields beyond the limit of 500"
    deep = b"\x08\x01"
    for _ in range(40):
        deep = b"\n" + bytes([len(deep)]) + deep
    found: object = guess(body(deep))
    depth = 0
    while isinstance(found, dict):
        found, depth = found["1"], depth + 1
    assert depth == protobuf.MOST_DEPTH + 1
    assert isinstance(found, bytes)


@given(data=st.binary(max_size=300), missing=st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_any_bytes(data: bytes, missing: int) -> None:
    assert isinstance(guess(body(data, missing)), dict)


# --- descriptor sets ------------------------------------------------------------------------


def test_names(tmp_path: Path) -> None:
    found = schema((descriptor_set(tmp_path, AGENT),))
    data = made("grpc.CreateContainerRequest", container_id="c", labels={"k": "v"}, kind=1)
    request = found.request(SERVICE, "CreateContainer", body(data))
    assert dict(request) == {"container_id": "c", "labels": {"k": "v"}, "kind": "POD"}
    cut = found.request(SERVICE, "CreateContainer", body(data[:-1], 1))
    assert dict(cut) == {"container_id": "c", "kind": "POD", "(missing)": "the rest"}
    unknown = b"\x28\x09\xf8\x06\x05"  # a value that the enum has not, a field it knows not
    assert found.request(SERVICE, "CreateContainer", body(unknown)) == {"kind": 9, "111": 5}
    assert found.response(SERVICE, "CreateContainer", body(b"")) == {}
    assert found.request(SERVICE, "Other", body(b"\x08\x01")) == {"1": 1}


def test_what_the_descriptor_does_not_describe_is_guessed(tmp_path: Path) -> None:
    found = schema((descriptor_set(tmp_path, AGENT),))
    wrong = found.request(SERVICE, "CreateContainer", body(b"\n\x02\xff\xfe"))
    assert wrong == {
        "(error)": "no grpc.CreateContainerRequest",
        "(guessed)": {"1": b"\xff\xfe"},
    }


def test_caps_of_named_fields(tmp_path: Path) -> None:
    found = schema((descriptor_set(tmp_path, AGENT),))
    data = made("grpc.CreateContainerRequest", storages=[{"driver": "x"}] * 600)
    many = found.request(SERVICE, "CreateContainer", body(data))
    assert 200 < len(many["storages"]) <= protobuf.MOST_FIELDS  # type: ignore[arg-type]
    assert "beyond the limit" in str(many[protobuf.LEFT_OUT])


@given(data=st.binary(max_size=100), missing=st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_any_bytes_with_names(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, missing: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "agent.proto.bin"
    if not path.exists():
        descriptor_set(path.parent, AGENT)
    found = schema((str(path),)).request(SERVICE, "CreateContainer", body(data, missing))
    assert isinstance(dict(found), dict)


def test_sets_add_up(tmp_path: Path) -> None:
    both = schema((descriptor_set(tmp_path, TTRPC), descriptor_set(tmp_path, AGENT, TTRPC)))
    data = made("grpc.ReadRequest", container_id="c")
    assert both.request(SERVICE, "ReadStdout", body(data)) == {"container_id": "c"}


def _incomplete() -> FileDescriptorProto:
    return FileDescriptorProto(name="a.proto", dependency=["b.proto"])


def _broken() -> FileDescriptorProto:
    file = FileDescriptorProto(name="a.proto", syntax="proto3")
    file.message_type.add(name="A").field.add(name="x", number=1, type=11, type_name=".No", label=1)
    return file


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "Cannot read"),
        (b'syntax = "proto3";\n', "is no protobuf descriptor set; make one with protoc"),
        (b"", "is no protobuf descriptor set"),
        (_incomplete, "needs b.proto, which it does not hold; make it with protoc"),
        (_broken, "cannot be used"),
    ],
)
def test_bad_files(tmp_path: Path, content: object, expected: str) -> None:
    path = tmp_path / "set.bin"
    if callable(content):
        path = Path(descriptor_set(tmp_path, content()))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(DecodeError, match=expected) as raised:
        schema((str(path),))
    assert str(raised.value).count("\n") == 0
    assert str(path) in str(raised.value)


def test_a_bad_file_is_told_before_anything_is_read(tmp_path: Path) -> None:
    result = run("-r", tmp_path / "none.pcap", "--proto", tmp_path / "none.bin")
    assert result.status == 2
    assert "none.bin: No such file or directory." in result.err
