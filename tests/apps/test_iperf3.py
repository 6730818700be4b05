"""iperf3, on a recorded test of its own client and server."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, losses, mutated, recorded
from talking import Turn, heard

CONTROL = recorded("iperf3-control")
DATA = recorded("iperf3-data")
COOKIE = b"abcdefghijklmnopqrstuvwxyz234567abcd\0"


def test_segments_make_no_difference() -> None:
    any_segments(CONTROL, "iperf3")


def test_losses_never_make_wrong_messages() -> None:
    losses(CONTROL, "iperf3")


@settings(max_examples=100, deadline=None)
@given(data=st.binary(min_size=1, max_size=60))
def test_any_bytes(data: bytes) -> None:
    hostile(data, "iperf3")
    hostile(COOKIE + data, "iperf3")


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 1 << 16), value=st.integers(0, 255))
def test_a_talk_with_a_wrong_byte(at: int, value: int) -> None:
    mutated(CONTROL, at, value, "iperf3")


def test_a_test_as_it_was_run() -> None:
    result = heard(CONTROL)
    states = [one for one in result.summaries if one[2:].isupper()]
    assert states == [
        "< PARAM_EXCHANGE",
        "< CREATE_STREAMS",
        "< TEST_START",
        "< TEST_RUNNING",
        "> TEST_END",
        "< EXCHANGE_RESULTS",
        "< DISPLAY_RESULTS",
        "> IPERF_DONE",
    ]
    told = [one for one in result.messages if "streams" in one.fields]
    assert told[0].summary == "results: 1 streams, 262144 bytes"
    parameters = next(one for one in result.messages if "parallel" in one.fields)
    assert parameters.fields["num"] == 200 << 10


def test_data_streams_are_told_and_not_parsed() -> None:
    result = heard(DATA)
    assert result.protocol == "iperf3"
    assert result.summaries[1:] == ["> data stream"]
    assert [one.summary for one in heard([(0, COOKIE), (1, b"\0" * 9000)]).messages][1:] == [
        "data stream"
    ]


@pytest.mark.parametrize(
    ("state", "summary"), [(b"\xff", "ACCESS_DENIED"), (b"\xfe" + b"\0" * 8, "SERVER_ERROR")]
)
def test_a_server_that_is_busy(state: bytes, summary: str) -> None:
    assert heard([(0, COOKIE), (1, state)]).summaries[1:] == [f"< {summary}"]


def test_json_that_is_none() -> None:
    turns: list[Turn] = [(0, COOKIE), (1, b"\x09"), (0, struct.pack(">I", 3) + b"abc")]
    assert heard(turns).summaries[-1] == "> JSON of 3 bytes"
