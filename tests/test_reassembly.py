"""Reassembly: the bytes of every direction, in order, and every gap with its size."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenario import pattern
from simulator import Captured, Repeat, Traffic, random_traffic
from tracking import batches_of, packets_of

from vsockdump.batch import Batch, Known
from vsockdump.capture.reader import ROWS
from vsockdump.columns import tracked
from vsockdump.track.store import DEFAULT_CAP
from vsockdump.track.stream import (
    PIECE_DTYPE,
    Gap,
    Held,
    Kind,
    Piece,
    Streams,
    flows_of,
    gap_of,
    joined,
    pieces_of,
    reader_of,
)
from vsockdump.track.tracker import Tracker
from vsockdump.wire import Op, Seqpacket, SocketType

Side = tuple[int, int]  # number of the connection, and the sender


class Made(NamedTuple):
    """What became of a capture."""

    pieces: list[Piece]
    data: dict[Side, bytes]
    tx_cnt: dict[int, int]  # what the tracker says after each packet

    def kinds(self) -> list[tuple[Kind, int]]:
        """What each piece is, and whose."""
        return [(Kind(piece.kind), piece.side) for piece in self.pieces]

    def gaps(self, side: Side = (1, 0)) -> list[Gap]:
        """The gaps of one direction."""
        own = [piece for piece in self.pieces if (piece.conn, piece.side) == side]
        return [gap for gap in map(gap_of, own) if gap is not None]

    def comparable(self) -> list[tuple[object, ...]]:
        """The pieces without what depends on the batches."""
        return [piece._replace(at=0, row=0) for piece in self.pieces]


def tracked_batches(packets: Sequence[Captured], rows: int = ROWS) -> Iterable[Batch]:
    """Batches of a capture, tracked."""
    tracker = Tracker()
    return map(tracker.track, batches_of(packets, rows))


def reassemble(packets: Sequence[Captured], rows: int = ROWS, **options: int) -> Made:
    """All pieces of a capture that is read so many rows at a time."""
    streams = Streams(**{"most": DEFAULT_CAP, **options})
    made: list[Piece] = []
    data: defaultdict[Side, bytes] = defaultdict(bytes)
    tx_cnt: dict[int, int] = {}
    for batch in tracked_batches(packets, rows):
        numbers = batch.rows["number"].tolist()
        tx_cnt |= zip(numbers, tracked(batch)["tx_cnt"].tolist(), strict=True)
        pieces, read = streams.add(batch), reader_of(batch)
        for number in np.unique(flows_of(pieces)).tolist():
            data[divmod(number, 2)] += joined(pieces[flows_of(pieces) == number], read)
        made += pieces_of(pieces)
    return Made(made, {side: found for side, found in data.items() if found}, tx_cnt)


def sent(traffic: Traffic, kept: Sequence[int]) -> dict[Side, bytes]:
    """What each side of each connection sent in these packets, as far as captured.

    Connections are in the order of their first packets.
    """
    found: defaultdict[Side, bytes] = defaultdict(bytes)
    for at in kept:
        truth = traffic.seen[at].truth
        found[truth.conn + 1, truth.side] += truth.data
    return {side: data for side, data in found.items() if data}


def all_of(traffic: Traffic) -> range:
    """All packets."""
    return range(len(traffic.seen))


# --- against the truth ---------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 300),
    repeat=st.sampled_from(["exact", "A", "B"]),
    snaplen=st.sampled_from([None, 76, 96, 1000]),
)
def test_any_batches_give_the_bytes_that_were_sent(
    seed: int, rows: int, repeat: Repeat, snaplen: int | None
) -> None:
    """Whole or cut by a snaplen, with the tap's repeat in either variant."""
    traffic = random_traffic(seed, 6, 120, repeat=repeat, snaplen=snaplen)
    made = reassemble(traffic.seen, rows)
    assert sent(traffic, all_of(traffic)) == made.data
    assert reassemble(traffic.seen).comparable() == made.comparable()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), snaplen=st.sampled_from([None, 500]))
def test_offsets_are_those_of_the_sender(seed: int, snaplen: int | None) -> None:
    """A snaplen cuts bytes, and the gap says how many, so that the next ones stand right."""
    traffic = random_traffic(seed, 6, 120, snaplen=snaplen)
    at: defaultdict[Side, int] = defaultdict(int)
    for piece in reassemble(traffic.seen).pieces:
        if piece.kind == Kind.DATA:
            truth = traffic.seen[piece.packet - 1].truth
            assert (at[piece.conn, piece.side], truth.length) == (piece.offset, piece.len)
            at[piece.conn, piece.side] += truth.length
            gap = gap_of(piece)
            missing = truth.length - len(truth.data)
            assert missing == (gap.size if gap else 0)
            assert gap is None or gap.why == "snaplen"


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    share=st.floats(0.01, 0.3),
    rows=st.integers(1, 50),
    dice=st.randoms(use_true_random=False),
)
def test_lost_packets(seed: int, share: float, rows: int, dice: Random) -> None:
    """No gap is larger than what was lost; where tx_cnt is known, the offset is exact."""
    traffic = random_traffic(seed, 3, 150)
    # The first packets stay, so that the connections are the same ones.
    first = {seen.truth.conn: at for at, seen in reversed(list(enumerate(traffic.seen)))}
    kept = [
        at
        for at in all_of(traffic)
        if at in first.values() or traffic.seen[at].truth.length == 0 or dice.random() > share
    ]
    packets = [traffic.seen[at] for at in kept]
    made = reassemble(packets, rows)
    assert sent(traffic, kept) == made.data
    assert reassemble(packets).comparable() == made.comparable()
    lost: defaultdict[Side, int] = defaultdict(int)
    for at in set(all_of(traffic)) - set(kept):
        truth = traffic.seen[at].truth
        lost[truth.conn + 1, truth.side] += truth.length
    for side in {(piece.conn, piece.side) for piece in made.pieces}:
        assert sum(gap.least for gap in made.gaps(side)) <= lost[side]
    counted = Known.BEGINNING | Known.TX_CNT
    for piece in made.pieces:
        if piece.kind == Kind.DATA and piece.known & counted == counted:
            assert made.tx_cnt[piece.packet] == piece.offset + piece.len


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 50),
    dice=st.randoms(use_true_random=False),
)
def test_what_is_passed_over_counts(seed: int, rows: int, dice: Random) -> None:
    """Data that nobody looks at are summed, and the next ones stand where they belong."""
    traffic = random_traffic(seed, 4, 120)
    streams, at = Streams(DEFAULT_CAP), defaultdict[int, int](int)
    ends = []
    for batch in tracked_batches(traffic.seen, rows):
        everything = np.ones(len(batch.rows), np.bool_)
        if dice.random() < 0.5:
            pieces, flows, sizes = streams.pass_over(batch, everything)
            for flow, size in zip(flows.tolist(), sizes.tolist(), strict=True):
                at[flow] += size
            assert (pieces["kind"] != Kind.DATA).all()
        else:
            pieces = streams.add(batch, everything)
        for piece, flow in zip(pieces_of(pieces), flows_of(pieces).tolist(), strict=True):
            if piece.kind == Kind.DATA:
                assert at[flow] == piece.offset
                at[flow] += piece.len
            else:
                ends.append(piece.packet)
    assert [
        piece.packet for piece in reassemble(traffic.seen).pieces if piece.kind != Kind.DATA
    ] == ends


# --- gaps, one by one ----------------------------------------------------------------------

OPEN = """
    0.000  3:1024 > host:5000 REQUEST buf=1000
    +1ms   3:1024 < host:5000 RESPONSE buf=1000
    +1ms   3:1024 > host:5000 RW 100 fwd=0 buf=1000
"""


def made_of(chart: str, rows: int = ROWS) -> Made:
    """What becomes of a scenario."""
    return reassemble(packets_of(chart), rows)


@pytest.mark.parametrize("rows", [1, 2, ROWS])
def test_fwd_cnt_ahead_is_a_gap(rows: int) -> None:
    """50 bytes were read that were not seen; more may be on the way."""
    made = made_of(OPEN + "+1ms 3:1024 < host:5000 CREDIT_UPDATE fwd=150 buf=1000", rows)
    assert [Gap(100, None, 50, "lost")] == made.gaps()
    assert pattern(0, 100) == made.data[1, 0]


@pytest.mark.parametrize("rows", [1, 2, ROWS])
def test_the_rest_is_known_when_tx_cnt_is(rows: int) -> None:
    """A full buffer shows that 70 were lost, of which 50 were known."""
    chart = (
        OPEN
        + """
    +1ms 3:1024 < host:5000 CREDIT_UPDATE fwd=150 buf=1000
    +1ms 3:1024 > host:5000 RW 900 seq=170 buf=1000
    +1ms 3:1024 < host:5000 CREDIT_UPDATE fwd=1070 buf=80
    +1ms 3:1024 > host:5000 RW 80 seq=1070 buf=1000
    +1ms 3:1024 < host:5000 CREDIT_UPDATE fwd=1150 buf=80
    +1ms 3:1024 > host:5000 RW 5 seq=1150 buf=1000
    """
    )
    made = made_of(chart, rows)
    gaps = made.gaps()
    assert Gap(100, None, 50, "lost") == gaps[0]
    assert 70 == sum(gap.least for gap in gaps)
    assert ("lost", 20) == (gaps[1].why, gaps[1].size)
    assert 1155 == made.pieces[-1].offset + made.pieces[-1].len


def test_a_loss_beside_unknown_counts_has_no_size() -> None:
    """Joined mid-stream: what is missing before the capture and then, nobody can say."""
    made = made_of("0.000 3:1024 > host:5000 RW 10\n+1ms 3:1024 < host:5000 RW 10 fwd=500")
    assert [Gap(0, None, 0, "before-capture")] == made.gaps((1, 0)) == made.gaps((1, 1))
    assert [(Kind.BEFORE, 0), (Kind.BEFORE, 1)] == made.kinds()[:2]


def test_nothing_is_missing_before_a_response() -> None:
    """Both ends have sent nothing yet."""
    made = made_of("0.000 3:1024 < host:5000 RESPONSE\n+1ms 3:1024 > host:5000 RW 10")
    assert [(Kind.DATA, 0)] == made.kinds()


def test_snaplen_and_short_frames() -> None:
    """What the capture has cut, and what the frame never held."""
    made = made_of(
        OPEN
        + """
    +1ms 3:1024 > host:5000 RW 100 cap=86
    +1ms 3:1024 > host:5000 RW 20 len=50
    """
    )
    assert [Gap(110, 90, 90, "snaplen"), Gap(220, 30, 30, "frame")] == made.gaps()
    assert pattern(0, 110) + pattern(200, 20) == made.data[1, 0]


def test_ends() -> None:
    """SHUTDOWN with its flags, the RST that ends, not the one behind it."""
    made = made_of(
        OPEN
        + """
    +1ms 3:1024 > host:5000 SHUTDOWN flags=SEND
    +1ms 3:1024 < host:5000 RST
    +1ms 3:1024 > host:5000 RST
    """
    )
    assert [(Kind.DATA, 0), (Kind.SHUTDOWN, 0), (Kind.RST, 1)] == made.kinds()
    assert 2 == made.pieces[1].flags


def test_messages() -> None:
    """EOM and EOR of SEQPACKET are kept, a datagram is a message, a stream has none."""
    for kind, flags, expected in (
        (SocketType.SEQPACKET, 3, 3),
        (SocketType.SEQPACKET, 0, 0),
        (SocketType.STREAM, 3, 0),
        (SocketType.DGRAM, 0, Seqpacket.EOM),
    ):
        line = f"3:1024 > host:5000 RW 10 type={int(kind)} flags={flags}"
        made = made_of(f"0.000 {line}")
        assert [expected] == [piece.flags for piece in made.pieces if piece.kind == Kind.DATA]


def test_connections_beyond_the_limit_are_counted() -> None:
    """The first ones are reassembled."""
    chart = "\n".join(f"0.{at} 3:{at} > host:5000 RW {at}" for at in range(1, 6))
    streams = Streams(3)
    pieces = [piece for batch in tracked_batches(packets_of(chart)) for piece in streams.add(batch)]
    assert {1, 2, 3} == {int(piece["conn"]) for piece in pieces}
    assert (2, 9) == streams.left_out


def test_only_one_connection() -> None:
    """The others cost nothing and are not counted as left out."""
    traffic = random_traffic(5, 6, 120)
    whole, one = reassemble(traffic.seen), reassemble(traffic.seen, most=1, only=3)
    assert {3} == {piece.conn for piece in one.pieces}
    assert whole.data[3, 0] == one.data[3, 0]


def test_damaged_ops_are_no_data() -> None:
    """Any number may stand there."""
    made = made_of(OPEN + f"+1ms 3:1024 > host:5000 {256 + Op.RW} 10")
    assert [(Kind.DATA, 0)] == made.kinds()


# --- the window --------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(("segments", "size"), [(10**6, 10**9), (20, 10**9), (10**6, 5000), (0, 0)])
def test_the_window_keeps_order_and_bytes(again: bool, segments: int, size: int) -> None:
    """Whatever its limits, all leave it in order, and their bytes can still be read."""
    from simulator import pcap_bytes

    traffic = random_traffic(7, 4, 150)
    content = pcap_bytes(traffic.seen)
    held = Held(segments, size, (lambda at, n: content[at : at + n]) if again else None)
    streams = Streams(DEFAULT_CAP)
    data: defaultdict[int, bytes] = defaultdict(bytes)
    packets: list[int] = []

    def leave(pieces: np.ndarray, read: object) -> None:
        packets.extend(pieces["packet"].tolist())
        for number in np.unique(flows_of(pieces)).tolist():
            data[number] += joined(pieces[flows_of(pieces) == number], read)  # type: ignore[arg-type]

    for batch in tracked_batches(traffic.seen, 16):
        for pieces, read in held.add(streams.add(batch), batch):
            leave(pieces, read)
        assert held.segments <= segments
        assert held.size <= (0 if again else size)
    for pieces, read in held.drain():
        leave(pieces, read)
    assert packets == sorted(packets)
    found = {divmod(number, 2): part for number, part in data.items() if part}
    assert sent(traffic, all_of(traffic)) == found
    assert (0, 0) == (held.segments, held.size)


def test_pieces_point_and_do_not_hold() -> None:
    """What a file that can be read again costs: a row a packet, whatever the packet holds."""
    held = Held(10**9, 10**9, lambda _at, size: bytes(size))
    streams = Streams(DEFAULT_CAP)
    chart = OPEN + "+1ms 3:1024 > host:5000 RW 60000\n" * 50
    for batch in tracked_batches(packets_of(chart)):
        assert [] == list(held.add(streams.add(batch), batch))
    assert (51, 0) == (held.segments, held.size)
    assert PIECE_DTYPE.itemsize <= 64
