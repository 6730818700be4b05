"""The application layer: recognising, driving parsers, pairing calls, surviving all of them."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
from talking import ACCEPTOR, END, INITIATOR, Cut, Turn, hear, heard, split, talk_capture

from vsockdump.apps import dialogues, registry
from vsockdump.apps.byte_stream import ByteStream, Ended, ProtocolError, Steps
from vsockdump.apps.message import Call, Kind, Message
from vsockdump.apps.protocol import (
    CERTAIN,
    LIKELY,
    Context,
    Opening,
    Parser,
    Prior,
    Protocol,
    Score,
)
from vsockdump.wire import SocketType

# A protocol of the tests: `?SIZE:BODY` asks, `!SIZE:BODY` answers, in order.


class Echo(Parser):
    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._counts = [0, 0]

    def messages(self, stream: ByteStream) -> Steps:
        while True:
            head = yield from stream.until(b":", 10)
            if head[:1] not in b"?!" or not head[1:-1].isdigit():
                raise ProtocolError(f"a message begins with {head[:1]!r}")
            body = yield from stream.body(int(head[1:-1]))
            number = self._counts[stream.side] = self._counts[stream.side] + 1
            kind = Kind.REQUEST if head[:1] == b"?" else Kind.RESPONSE
            method = body.data[:8].decode() if kind == Kind.REQUEST else ""
            text = f"{len(body.data)}/{body.size}"
            yield Message("echo", text, kind, {"missing": body.missing}, Call(number, method))

    def resumes(self, side: int, head: bytes) -> bool:
        return head[:1] in b"?!"


def looks_like_echo(opening: Opening) -> Score:
    for data in opening.data:
        if data:
            if data[:1] not in b"?!":
                return 0
            return CERTAIN if b":" in data else None
    return None


class Breaking(Parser):
    def messages(self, stream: ByteStream) -> Steps:
        yield from stream.exact(1)
        raise KeyError("x\n\x1b[31m")


def everything(_opening: Opening) -> Score:
    return CERTAIN


def two_messages(opening: Opening) -> Score:
    return CERTAIN if opening.data[0].count(b":") + opening.data[1].count(b":") > 1 else None


def failing(_opening: Opening) -> Score:
    raise ZeroDivisionError


ECHO = Protocol("echo", "Echo", Echo, looks_like_echo, (Prior(7, "inetd", "guest"),))


@pytest.fixture(autouse=True)
def only_echo() -> Iterator[None]:
    with protocols(ECHO):
        yield


class protocols:
    """The registry has these protocols only."""

    def __init__(self, *these: Protocol) -> None:
        self._patch = patch.object(registry, "protocols", lambda: these)

    def __enter__(self) -> None:
        self._patch.__enter__()
        registry._by_port.cache_clear()  # which is of all protocols
        registry.codes.cache_clear()

    def __exit__(self, *exc: object) -> None:
        self._patch.__exit__(None, None, None)
        registry._by_port.cache_clear()
        registry.codes.cache_clear()


TALK: list[Turn] = [
    (INITIATOR, b"?5:hello?3:abc"),
    (ACCEPTOR, b"!2:ok"),
    (ACCEPTOR, b"!3:yes"),
    (INITIATOR, b"?4:last"),
    (INITIATOR, END),
]


def test_messages_calls_and_what_is_unanswered() -> None:
    result = heard(TALK)
    assert result.protocol == "echo"
    assert result.summaries == ["> 5/5", "> 3/3", "< 2/2", "< 3/3", "> 4/4"]
    assert [one.packet for one in result.said] == [3, 3, 4, 5, 6]
    answers = [one for one in result.said if one.message.kind == Kind.RESPONSE]
    assert [one.latency_ns for one in answers] == [1_000_000, 2_000_000]
    assert [one.request_packet for one in answers] == [3, 3]
    assert [one.message.call.method for one in answers if one.message.call] == ["hello", "abc"]
    assert [(call.packet, call.method) for call in result.unanswered] == [(6, "last")]
    assert result.codes == [0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [1, 4096])
def test_any_segments_and_batches_give_the_same(size: int, rows: int) -> None:
    assert heard(split(TALK, size), rows=rows).messages == heard(TALK).messages


@pytest.mark.parametrize(("rows", "packet"), [(4096, 3), (1, 4)])
def test_what_waited_for_its_protocol_has_its_own_packet_and_time(rows: int, packet: int) -> None:
    """Unless that packet's batch has gone: then the packet that told the protocol has it."""
    turns: list[Turn] = [(0, b"?1:a?"), (0, b"1:b")]
    with protocols(ECHO._replace(recognise=two_messages)):
        result = heard(turns, rows=rows)
    assert [(one.packet, one.time_ns) for one in result.said] == [
        (packet, 2_000_000),
        (4, 3_000_000),
    ]


@pytest.mark.parametrize("most", [CERTAIN, LIKELY])
def test_nobody_waits_for_whom_they_are_surer_than(most: int) -> None:
    """And whoever waits in vain waits to the end, which then says it all."""
    sure = Protocol("sure", "", Echo, lambda _opening: LIKELY)
    slow = Protocol("slow", "", Echo, lambda _opening: None, most=most)
    with protocols(slow, sure):
        result = heard([(0, b"?1:a"), (0, b"?1:b")])
    assert [one.packet for one in result.said] == [3, 4]
    assert result.codes[2] == (0 if most == CERTAIN else 2)


def test_a_parser_that_is_over_gets_nothing_more() -> None:
    class Once(Echo):
        def messages(self, stream: ByteStream) -> Steps:
            yield from stream.exact(1)
            self.over = True
            yield Message("once", "one")

    with protocols(Protocol("once", "", Once, everything)):
        assert heard([(0, b"ab"), (1, b"c"), (0, b"d")]).summaries == ["> one"]


def test_sizes_and_bytes() -> None:
    result = heard(split(TALK, 4), keep=True)
    assert [one.data for one in result.said if one.side == 0] == [
        b"?5:hello",
        b"?3:abc",
        b"?4:last",
    ]
    assert [one.offset for one in result.said if one.side == 0] == [0, 8, 14]
    assert all(one.size == len(one.data) and one.whole for one in result.said)


def test_a_gap_in_a_body_is_counted_and_gone_over() -> None:
    turns = [(0, Cut(b"?9:" + b"x" * 9, 5)), (0, b"?1:a")]
    result = heard(turns, keep=True)
    assert [message.fields["missing"] for message in result.messages] == [7, 0]
    assert [one.whole for one in result.said] == [False, True]
    assert [one.offset for one in result.said] == [0, 12]


def test_a_gap_in_a_header_loses_track_until_a_message_begins() -> None:
    turns = [(0, b"?1:a"), (0, Cut(b"?10:aaaaaaaaaa", 2)), (0, b"rest"), (0, b"?2:bb")]
    result = heard(turns)
    assert [one.message.kind for one in result.said] == [Kind.REQUEST, Kind.NOTE, Kind.REQUEST]
    assert result.said[-1].offset == 4 + 14 + 4
    assert "missing" in result.said[1].message.summary


def test_a_lost_packet_of_unknown_size() -> None:
    turns = [(0, b"?1:a"), (0, b"?1:b"), (1, b"!1:x"), (0, b"?1:c")]
    result = heard(turns, lost=[1])
    said = [one.message.kind for one in result.said]
    assert said.count(Kind.REQUEST) == 2
    assert said.count(Kind.NOTE) == 1


def test_joined_inside_a_connection() -> None:
    turns = [(0, b"ddle"), (1, b"!2:ok"), (0, b"?1:a")]
    result = heard([*turns, (0, b"?1:b")], connect=False, ports={1024: "echo"})
    assert result.summaries == ["< 2/2", "> 1/1", "> 1/1"]


def test_nothing_known_is_left_out_at_once() -> None:
    turns = [(0, b"\x00raw"), (1, b"\x01"), (0, b"?1:a")]
    result = heard(turns)
    assert result.said == []
    assert result.protocol == "raw"


def test_bytes_that_are_not_understood_end_a_side_with_a_note() -> None:
    result = heard([(0, b"?1:a"), (0, b"junk:"), (0, b"?1:b"), (1, b"!1:c")])
    assert [one.message.kind for one in result.said] == [Kind.REQUEST, Kind.NOTE, Kind.RESPONSE]
    assert "not understood" in result.messages[1].summary


def test_a_failing_parser_costs_a_note() -> None:
    with protocols(Protocol("broken", "", Breaking, everything)):
        result = heard([(0, b"ab"), (1, b"cd")])
    assert [one.message.kind for one in result.said] == [Kind.NOTE] * 2
    assert "KeyError" in result.messages[0].summary
    assert "\n" not in result.messages[0].summary


def test_a_failing_recogniser_costs_a_note() -> None:
    with protocols(Protocol("broken", "", Echo, failing), ECHO):
        result = heard([(0, b"?1:a")])
    assert result.protocol == "echo"
    assert "recogniser of broken failed: ZeroDivisionError" in result.messages[0].summary


def test_the_port_counts_where_the_bytes_are_silent() -> None:
    silent = [(1, b"?5")]  # could go on either way
    assert heard(silent, port=7).evidence == dialogues.EVIDENCE.index("port")
    assert heard(silent, port=8).protocol == "raw"
    assert heard(silent, port=7, cid=2).protocol == "raw"  # the host listens
    assert heard([(0, b"junk")], port=7).protocol == "raw"


def test_users_overrule() -> None:
    assert heard([(0, b"junk:")], ports={1024: "echo"}).protocol == "echo"
    assert heard(TALK, ports={1024: "raw"}).said == []


def test_datagrams_are_records() -> None:
    class Records(Parser):
        def messages(self, stream: ByteStream) -> Steps:
            while True:
                record = yield from stream.record()
                yield Message("records", record.data.decode())

    with protocols(Protocol("records", "", Records, everything)):
        turns = [(0, b"one"), (0, b"two"), (1, b"three")]
        for kind in (SocketType.DGRAM, SocketType.SEQPACKET):
            assert heard(turns, kind=kind).summaries == ["> one", "> two", "< three"]


def test_caps() -> None:
    capture = talk_capture([(0, b"?1:a" * 30)])
    with patch.object(dialogues, "MOST_CALLS", 10):
        assert len(hear(capture).unanswered) == 10
    with pytest.raises(ProtocolError):
        list(ByteStream(0).exact(1 << 30))


def test_reading_beyond_the_end() -> None:
    stream = ByteStream(0)
    stream.feed(b"abc")
    stream.feed_end()
    with pytest.raises(Ended):
        list(stream.exact(4))
    rest = stream.rest()
    with pytest.raises(StopIteration) as stopped:
        next(rest)
    assert stopped.value.value.data == b"abc"
