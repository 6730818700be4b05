"""How messages are drawn, and what is counted of calls."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talking import INITIATOR, heard

from vsockdump.apps.message import Call, Kind, Message, Said
from vsockdump.output.escaped import in_lines, on_line
from vsockdump.output.rpc import Latencies
from vsockdump.output.said import _in_line, detail_lines, json_of

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\r\n"


def said(message: Message, **more: int) -> Said:
    return Said(7, 0, 1, 0, 100, 12, message)._replace(**more)


CALL = Message("ttrpc", "a.B/C #5", Kind.RESPONSE, call=Call(5, "a.B/C", "NOT_FOUND"))


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (CALL._replace(summary="404 NOT_FOUND"), "ttrpc ← 404 NOT_FOUND 12 B"),
        (CALL, "ttrpc ← a.B/C #5 12 B ! NOT_FOUND"),
        (CALL._replace(kind=Kind.REQUEST, call=None), "ttrpc → a.B/C #5 12 B"),
        (Message("tls", "3 records"), "tls 3 records 12 B"),
        (Message("tls", "gave up", Kind.NOTE), "[tls: gave up]"),
        (Message("x", "a" * 300), f"x {'a' * 200}… (100 more) 12 B"),
    ],
)
def test_lines(message: Message, line: str) -> None:
    assert _in_line([said(message)], colour=False) == line


def test_many_messages_of_a_packet() -> None:
    one = said(Message("x", "y"))
    assert _in_line([one] * 5, colour=False) == "x y 12 B; x y 12 B; x y 12 B; and 2 more"


def test_nothing_steers_a_terminal() -> None:
    fields = {HOSTILE: HOSTILE, "list": [HOSTILE, {"deep": HOSTILE}], "bytes": b"\x1b"}
    message = Message("x", HOSTILE, fields=fields, call=Call(1, HOSTILE, HOSTILE))
    drawn = [_in_line([said(message)], colour=False), *detail_lines(said(message))]
    assert all(line.isprintable() for line in drawn)
    assert in_lines(HOSTILE).count("\n") == 1
    assert json.loads(json.dumps(json_of(said(message))))["summary"] == HOSTILE


def test_full_decode_is_a_tree_with_limits() -> None:
    fields = {"id": 5, "none": None, "yes": True, "raw": b"\x01\x02", "empty": b""}
    deep = {"names": ["a", "b"], "inner": {"x": 1}, "many": [{"y": 1}, {"y": 2}]}
    lines = list(detail_lines(said(CALL._replace(fields=fields | deep), request_packet=3)))
    assert lines[1:3] == ["  answers packet 3", "  failed: NOT_FOUND"]
    assert lines[3:] == [
        "  id: 5",
        "  none: -",
        "  yes: yes",
        "  raw: 0102",
        "  empty: (empty)",
        "  names: a, b",
        "  inner:",
        "    x: 1",
        "  many[0]:",
        "    y: 1",
        "  many[1]:",
        "    y: 2",
    ]
    long = list(detail_lines(said(CALL._replace(fields={str(n): n for n in range(500)}))))
    assert long[-1] == "  … 300 more lines"


def test_json_has_bytes_in_hex() -> None:
    fields = {"raw": b"\x01", "list": [b"\x02", 3, float("inf")], "map": {"k": b""}}
    found = json_of(said(Message("x", "y", fields=fields)))
    assert found["fields"] == {"raw": "01", "list": ["02", 3, "inf"], "map": {"k": ""}}


@given(st.text())
def test_escaped_text_is_printable(text: str) -> None:
    assert on_line(text).isprintable()


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=200))
def test_percentiles_are_true_to_half_a_thousandth(times: list[int]) -> None:
    latencies = Latencies()
    for time in times:
        latencies.add(time)
    ranked = sorted(times)
    for percent in (50, 95, 99):
        exact = ranked[-(-len(times) * percent // 100) - 1]
        found = latencies.percentile(percent)
        assert found == pytest.approx(exact, rel=0.0005)
    assert latencies.longest == max(times)


def test_no_times_no_percentiles() -> None:
    assert Latencies().percentile(50) is None
    assert heard([(INITIATOR, b"\xff\xfe\xfd")]).said == []
