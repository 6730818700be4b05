"""ttRPC: calls, streams, what is left of frames that are cut, and hostile ones."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, losses, mutated
from rpc_talks import AGENT, DATA, REQUEST, answer, ask, descriptor_set, made, ttrpc_frame
from talking import END, Cut, Turn, heard

from vsockdump.apps import ttrpc
from vsockdump.apps.dialogues import EVIDENCE
from vsockdump.apps.message import Kind
from vsockdump.apps.protocol import Setting

CREATE = "grpc.AgentService/CreateContainer"
STDOUT = "grpc.AgentService/ReadStdout"
ID = "c" * 64
CONTAINER = made(
    "grpc.CreateContainerRequest",
    container_id=ID,
    storages=[{"driver": "blk", "fs_group": [1, 2]}],
    kind=1,
    labels={"a": "b"},
    at={"seconds": 5},
)
CHUNK = made("grpc.Chunk", data=b"\xff\x00out")

TALK: list[Turn] = [
    (0, ask(1, CREATE, CONTAINER, timeout_nano=10**9, metadata=[{"key": "k", "value": "v"}])),
    (0, ask(3, "grpc.Health/Check")),
    (1, answer(3, code=12, message="not\x1bhere")),
    (1, answer(1)),
    (0, ask(5, STDOUT, flags=1)),
    (1, ttrpc_frame(5, DATA, CHUNK) + ttrpc_frame(5, DATA, CHUNK)),
    (1, ttrpc_frame(5, DATA, flags=5)),
    (0, ask(7, "containerd.task.v2.Task/State", flags=2)),
    (0, ttrpc_frame(7, DATA, CHUNK) + ttrpc_frame(7, DATA, flags=5)),
    (1, answer(7, CHUNK)),
    (0, ask(9, CREATE)),
    (0, END),
]


def test_calls() -> None:
    result = heard(TALK)
    assert result.protocol == "ttrpc"
    assert result.summaries == [
        f"> {CREATE} #1",
        "> grpc.Health/Check #3",
        "< grpc.Health/Check #3",
        f"< {CREATE} #1 OK",
        f"> {STDOUT} #5",
        f"< {STDOUT} #5 data 1",
        f"< {STDOUT} #5 data 2",
        f"< {STDOUT} #5 end",
        "> containerd.task.v2.Task/State #7",
        "> containerd.task.v2.Task/State #7 data 1",
        "> containerd.task.v2.Task/State #7 end",
        "< containerd.task.v2.Task/State #7 OK",
        f"> {CREATE} #9",
    ]
    errors = [one.call.error for one in result.messages if one.call and one.call.error]
    assert errors == ["UNIMPLEMENTED: not\x1bhere"]
    assert [call.method for call in result.unanswered] == [CREATE]
    ends = [one for one in result.said if one.message.call and one.message.call.ends]
    answers = [one for one in ends if one.message.kind == Kind.RESPONSE]
    assert [one.request_packet for one in answers] == [4, 3, 7, 10]


def test_fields() -> None:
    first = heard(TALK).messages[0].fields
    assert {key: first[key] for key in ("service", "method", "timeout_ns", "metadata")} == {
        "service": "grpc.AgentService",
        "method": "CreateContainer",
        "timeout_ns": 10**9,
        "metadata": {"k": "v"},
    }
    assert first["payload"] == {
        "1": ID,
        "4": {"1": "blk", "3": b"\x01\x02"},
        "5": 1,
        "6": {"1": "a", "2": "b"},
        "7": {"1": 5},
    }


def test_fields_have_names_with_a_descriptor_set(tmp_path: Path) -> None:
    setting = Setting((descriptor_set(tmp_path, AGENT),))
    messages = heard(TALK, setting=setting).messages
    assert messages[0].fields["payload"] == {
        "container_id": ID,
        "storages": [{"driver": "blk", "fs_group": [1, 2]}],
        "kind": "POD",
        "labels": {"a": "b"},
        "at": {"seconds": 5},
    }
    assert messages[5].fields["payload"] == {"data": b"\xff\x00out"}
    assert messages[9].fields["payload"] == {"1": b"\xff\x00out"}  # of a service not in the set


@pytest.mark.parametrize("kept", [29, 40, 60])
def test_a_snaplen_leaves_the_method(kept: int) -> None:
    turns: list[Turn] = [(0, Cut(TALK[0][1], kept)), (1, answer(1))]  # type: ignore[arg-type]
    result = heard(turns, port=1024)
    if kept == 40:
        assert result.summaries[0] == "> grpc.AgentService/CreateCon… #1"
    elif kept < 40:
        assert result.summaries[0] == "> grpc.AgentService/ #1"
    else:
        assert result.summaries == [f"> {CREATE} #1", f"< {CREATE} #1 OK"]
    assert result.messages[0].fields["missing"] == len(TALK[0][1]) - kept


def test_an_answer_of_which_only_the_header_is_there() -> None:
    result = heard([(0, ask(1, CREATE)), (1, Cut(answer(1, code=5), 10))])
    assert result.summaries[1] == f"< {CREATE} #1 (status not captured)"
    call = result.messages[1].call
    assert call is not None
    assert call.error is None


def test_joined_inside_a_connection() -> None:
    """Sides are in order of their packets: the server is taken for the initiator."""
    turns: list[Turn] = [
        (1, b"rest of something"),
        (1, answer(1)),
        (0, ask(3, CREATE) + ask(5, CREATE)),
        (1, answer(3)),
    ]
    result = heard(turns, connect=False, port=47_000, ports={47_000: "ttrpc"})
    assert result.summaries == ["> #1 OK", f"< {CREATE} #3", f"< {CREATE} #5", f"> {CREATE} #3 OK"]
    assert [one.request_packet for one in result.said] == [None, None, None, 3]
    joined = heard(turns[1:], connect=False, port=47_000)
    assert (joined.protocol, EVIDENCE[joined.evidence]) == ("ttrpc", "content")


@pytest.mark.parametrize(
    "opening",
    [
        b"\0" * 200,
        ttrpc_frame(2, REQUEST, b"\x0a\x01a"),  # even
        ttrpc_frame(1, REQUEST, b"\x0a\x03a b\x12\x01c"),  # no name
        ttrpc_frame(1, REQUEST, b"\x0a\x03abc\x22\x01c"),  # no method
        ttrpc_frame(1, DATA, b"abc"),  # nothing is asked
        ask(1, CREATE) + b"\x01" * 20,
    ],
)
def test_what_is_no_ttrpc(opening: bytes) -> None:
    assert heard([(0, opening), (1, b"\0")], port=47_000).protocol == "raw"


def test_ports_of_known_software() -> None:
    silent: list[Turn] = [(1, b"\0")]
    assert heard(silent, port=1024).protocol == "ttrpc"
    assert heard(silent, port=1024, cid=2).protocol != "ttrpc"


def test_hostile_sizes_are_refused() -> None:
    result = heard([(0, ask(1, CREATE)), (0, b"\x7f\xff\xff\xff" + b"\0" * 6)])
    assert "ttRPC allows 4 MiB" in result.messages[1].summary


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ttrpc, "_MOST_STREAMS", 2)
    monkeypatch.setattr(ttrpc, "_MOST_METADATA", 1)
    pairs = [{"key": "a", "value": "b"}] * 3
    turns: list[Turn] = [(0, ask(number, CREATE, metadata=pairs)) for number in (1, 3, 5)]
    result = heard([*turns, (1, answer(1))])
    assert result.messages[0].fields["metadata"] == {"a": "b", "(left out)": "2 pairs"}
    assert result.summaries[3] == "< #1 OK"
    call = result.messages[3].call
    assert call is not None
    assert call.method == CREATE  # the engine keeps more


def test_any_segments_and_losses() -> None:
    any_segments(TALK, "ttrpc")


def test_losses() -> None:
    losses(TALK, "ttrpc")


@given(data=st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_hostile_bytes(data: bytes) -> None:
    hostile(data, "ttrpc")
    hostile(ask(1, CREATE) + data, "ttrpc")


@given(at=st.integers(0, 5000), value=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_mutated(at: int, value: int) -> None:
    mutated(TALK, at, value, "ttrpc")
