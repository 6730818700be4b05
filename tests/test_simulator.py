"""Tests of the simulator: if the ground truth is wrong, so is all that is measured by it.

What Truth says is checked against a second calculation from the frames alone, and the ends
against the rules of Linux by scripts whose packets are written down.
"""

import random
import struct
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import (
    CLOSE_TIMEOUT_NS,
    EPOCH,
    KINDS,
    LINUX_RX_SIZE,
    MASK,
    Action,
    Connection,
    Kind,
    Repeat,
    Seen,
    Setup,
    Simulator,
    Socket,
    Stall,
    Traffic,
    ms,
    pcap_bytes,
    play,
    random_traffic,
    stream_bytes,
    write_pcap,
)

from vsockdump.address import Endpoint
from vsockdump.wire import HEADERS_SIZE, LINKTYPE_VSOCK, Op, Shutdown, SocketType

SEQPACKET = int(SocketType.SEQPACKET)
WORDS = {
    *("connecting", "open", "half-closed-initiator", "half-closed-acceptor"),
    *("closing", "closed", "reset", "refused", "timed-out"),
}
REPEATS: tuple[Repeat, ...] = ("exact", "A", "B")
VIRTIO = struct.Struct("<QQIIIHHIII")  # written down once more, so as not to trust wire.py

# --- helpers ---------------------------------------------------------------------------


class Head(NamedTuple):
    """The virtio header of a frame."""

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    len: int
    type: int
    op: int
    flags: int
    buf_alloc: int
    fwd_cnt: int


def head(seen: Seen) -> Head:
    """Read the virtio header."""
    return Head(*VIRTIO.unpack_from(seen.frame, 32))


def steps(traffic: Traffic) -> list[str]:
    """The capture in short: side, op, and flags or len where they are not 0."""
    words = []
    for seen in traffic.seen:
        packet = head(seen)
        nobody = "nosock" if packet.op == Op.RST and not packet.buf_alloc else ""
        extra = str(packet.len or packet.flags or nobody)
        words.append(f"{seen.truth.side} {Op(packet.op).name} {extra}".removesuffix(" 0").strip())
    return words


def states(traffic: Traffic) -> list[str]:
    """The states after the packets, each run of the same once."""
    found: list[str] = []
    for seen in traffic.seen:
        if found[-1:] != [seen.truth.state]:
            found.append(seen.truth.state)
    return found


def script(*words: str) -> list[Action]:
    """Actions from "0 write 100"; without a side it is a wait in milliseconds."""
    actions = []
    for word in words:
        parts = word.split()
        if len(parts) == 1:
            actions.append(Action("wait", 0, ms(float(word))))
        else:
            kind = next(kind for kind in KINDS if kind == parts[1])
            amount = int(parts[2]) if len(parts) > 2 else 1 << 40
            actions.append(Action(kind, int(parts[0]), amount))
    return actions


def run(*words: str, setup: Setup | None = None, repeat: Repeat = "exact") -> Traffic:
    """The capture of a script; the connection is set up before it begins."""
    return play(setup or Setup(), script("1", *words), repeat)


def opened(setup: Setup | None = None, repeat: Repeat = "exact") -> tuple[Simulator, Connection]:
    """A simulator with one connection, which is open."""
    sim = Simulator(repeat)
    conn = sim.connect(setup or Setup())
    sim.run(ms(1))
    return sim, conn


def streams(traffic: Traffic) -> dict[tuple[int, int], bytes]:
    """What Truth says went over each (connection, side)."""
    found: dict[tuple[int, int], bytes] = {}
    for seen in traffic.seen:
        key = (seen.truth.conn, seen.truth.side)
        found[key] = found.get(key, b"") + seen.truth.data
    return found


class Observer:
    """Recalculates the credit of one connection from its frames, bare of any cleverness."""

    def __init__(self, begun: tuple[int, int]) -> None:
        self.tx = list(begun)
        self.fwd: list[int | None] = [None, None]
        self.buf: list[int | None] = [None, None]

    def credit(self, sender: int) -> tuple[int | None, int | None]:
        """In flight and free."""
        fwd, own, other = self.fwd[1 - sender], self.buf[sender], self.buf[1 - sender]
        if fwd is None or own is None or other is None:
            return None, None
        in_flight = (self.tx[sender] - fwd) % 2**32
        return in_flight, max(0, other - in_flight)

    def check(self, seen: Seen) -> None:
        """Compare one packet with its truth."""
        packet, truth = head(seen), seen.truth
        side = truth.side
        self.tx[side] = (self.tx[side] + packet.len) % 2**32
        assert self.tx[side] == truth.tx_cnt
        if packet.op == Op.RST and not packet.buf_alloc:
            assert (None, None, None) == (truth.in_flight, truth.free, truth.granted)
            return
        self.fwd[side], self.buf[side] = packet.fwd_cnt, packet.buf_alloc
        assert self.credit(side) == (truth.in_flight, truth.free)
        assert self.credit(1 - side)[1] == truth.granted
        assert (self.buf[side], self.buf[1 - side]) == (truth.sender_buf, truth.receiver_buf)


def stalls_of(traffic: Traffic, conn: int) -> list[Stall]:
    """The stalls of a connection, read off the free credit of its packets."""
    truths = [(s.time_ns, s.truth, head(s)) for s in traffic.seen if s.truth.conn == conn]
    stalls = []
    for side in (0, 1):
        start, over = None, False
        for now, truth, packet in truths:
            if packet.op == Op.SHUTDOWN:
                over |= bool(packet.flags & (Shutdown.RCV, Shutdown.SEND)[truth.side == side])
            if truth.side == side and truth.length and truth.free == 0 and start is None:
                start = None if over else now
            told = truth.side != side and truth.granted
            if start is not None and (told or over):
                stalls.append(Stall(side, start, now))
                start = None
        if start is not None:
            stalls.append(Stall(side, start, None))
    return stalls


def check_truth(traffic: Traffic, begun: dict[int, tuple[int, int]] | None = None) -> None:
    """Everything that must hold of every capture that was not cut."""
    observers: dict[int, Observer] = {}
    for number, seen in enumerate(traffic.seen):
        packet, truth = head(seen), seen.truth
        observer = observers.setdefault(truth.conn, Observer((begun or {}).get(truth.conn, (0, 0))))
        observer.check(seen)
        assert packet.len == truth.length == len(truth.data)
        assert seen.wirelen == len(seen.frame) >= HEADERS_SIZE + packet.len
        assert truth.data in seen.frame[HEADERS_SIZE:]
        if truth.credit_at is not None:
            teller = traffic.seen[truth.credit_at].truth
            assert truth.credit_at < number
            assert (truth.conn, 1 - truth.side) == (teller.conn, teller.side)
    for (conn, side), data in streams(traffic).items():
        assert stream_bytes(conn, side, 0, len(data)) == data
        assert len(data) == traffic.connections[conn].sent[side]
    times = [seen.time_ns for seen in traffic.seen]
    assert sorted(times) == times
    assert list(range(len(traffic.connections))) == sorted(observers)
    for conn, outcome in enumerate(traffic.connections):
        assert Counter(stalls_of(traffic, conn)) == Counter(outcome.stalls)


SIDES = st.integers(0, 1)
SIZES = st.sampled_from((1, 100, 128, 129, 3732, 5000, 65536, 100_000, 300_000))
BUFFERS = st.sampled_from((200, 5000, 65536, 262144, 1 << 20))


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    """Every kind of connection that is accepted."""
    latency = st.integers(0, 300_000)
    room = st.sampled_from((None, 3732, 4052))
    return Setup(
        socket_type=draw(st.sampled_from((1, 2))),
        buffers=draw(st.tuples(BUFFERS, BUFFERS)),
        latency=draw(st.tuples(latency, latency)),
        spacing=draw(st.sampled_from((0, 1000, 17_000))),
        tap=draw(SIDES),
        rx_sizes=draw(st.tuples(room, room)),
    )


class Play(NamedTuple):
    """A connection and its script."""

    setup: Setup
    actions: list[Action]


def _bounded(setup: Setup, action: Action) -> Action:
    """No write that a small window cuts into thousands of packets."""
    if action.kind in ("write", "record"):
        return action._replace(amount=min(action.amount, 10 * min(setup.buffers)))
    return action


@st.composite
def plays(draw: st.DrawFn, *kinds: Kind) -> Play:
    """Scripts of some kinds of actions, or of all; a wait comes with about any of them."""
    amounts: dict[Kind, st.SearchStrategy[int]] = {
        "shutdown": st.integers(1, 3),
        "buffer": BUFFERS,
        "wait": st.sampled_from((0, 1000, 60_000, ms(1), ms(100))),
    }
    one = st.sampled_from((*(kinds or KINDS), "wait")).flatmap(
        lambda kind: st.builds(Action, st.just(kind), SIDES, amounts.get(kind, SIZES))
    )
    setup = draw(setups())
    return Play(setup, [_bounded(setup, action) for action in draw(st.lists(one, max_size=30))])


# --- invariants ------------------------------------------------------------------------


@given(plays(), st.sampled_from(REPEATS))
@settings(deadline=None)
def test_truth_is_what_the_frames_say(script: Play, repeat: Repeat) -> None:
    """Truth can be calculated again from the frames, whatever the ends do."""
    check_truth(play(script.setup, [Action("wait", 0, ms(1)), *script.actions], repeat))


@given(plays("write", "record", "read", "ask"))
@settings(deadline=None)
def test_all_bytes_arrive_in_order(script: Play) -> None:
    """Once both ends have read to the end, everything written was received."""
    sim, conn = opened(script.setup)
    accepted = [0, 0]
    for action in script.actions:
        if conn.act(action) and action.kind in ("write", "record"):
            accepted[action.side] += action.amount
    while sum(peer.read for peer in conn.peers) < sum(accepted):
        sim.run(ms(1))
        read = conn.read_all(0) + conn.read_all(1)
        assert read or conn.under_way, "the connection is stuck"
    outcome = sim.finish().connections[0]
    assert tuple(accepted) == outcome.sent == outcome.read


@given(plays("write", "record", "read", "ask", "close"))
@settings(deadline=None)
def test_credit_is_never_exceeded(script: Play) -> None:
    """With constant buffers no receiver ever holds more than its buffer.

    At the sender's own tap that can be seen; a far tap sees less in flight, never more.
    """
    sim, conn = opened(script.setup)
    window = max(script.setup.buffers)  # each sender is held to its receiver's
    for action in script.actions:
        conn.act(action)
        for peer in conn.peers:
            assert peer.queued <= peer.buf_alloc
    for seen in sim.finish().seen:
        assert (seen.truth.in_flight or 0) <= window


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_hypothesis_can_drive_random_traffic(rng: random.Random) -> None:
    """random_traffic takes its decisions from any Random."""
    check_truth(random_traffic(rng, 3, 20))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("vantage", ["host", "guest"])
def test_random_traffic_holds(seed: int, vantage: Literal["host", "guest"]) -> None:
    """Interleaved connections do not disturb each other's truth."""
    check_truth(random_traffic(seed, repeat=REPEATS[seed % 3], vantage=vantage))


def test_the_same_seed_gives_the_same() -> None:
    """Nothing depends on anything but the seed."""
    assert random_traffic(7, repeat="A", joined=True) == random_traffic(7, repeat="A", joined=True)
    assert random_traffic(7).seen != random_traffic(8).seen


def test_random_traffic_is_rich() -> None:
    """A few seeds show every op, state and stall, and tuples used again."""
    traffics = [random_traffic(seed, repeat="B", joined=True) for seed in range(30)]
    packets = [head(seen) for traffic in traffics for seen in traffic.seen]
    outcomes = [outcome for traffic in traffics for outcome in traffic.connections]
    assert set(range(1, 8)) == {packet.op for packet in packets}
    assert {0, 1, 3} == {packet.flags for packet in packets if packet.op == Op.RW}
    assert WORDS == {seen.truth.state for traffic in traffics for seen in traffic.seen}
    assert {"closed", "reset", "refused", "open"} <= {outcome.state for outcome in outcomes}
    ends = Counter((outcome.initiator, outcome.acceptor) for outcome in outcomes)
    assert max(ends.values()) > 1
    stalls = [stall for outcome in outcomes for stall in outcome.stalls]
    assert {True, False} == {stall.end_ns is None for stall in stalls}
    assert {True, False} == {outcome.joined for outcome in outcomes}
    repeats = [seen for t in traffics for seen in t.seen if seen.wirelen > 76 + seen.truth.length]
    assert len(repeats) > 100
    wrapped = [seen for t in traffics for seen in t.seen if seen.truth.tx_cnt > 2**32 - 5000]
    assert wrapped


def test_a_tuple_is_used_again_after_its_end_only() -> None:
    """No packet of a connection comes after the REQUEST of the next on its addresses."""
    for seed in range(20):
        latest: dict[frozenset[tuple[int, int]], int] = {}
        for seen in random_traffic(seed).seen:
            packet = head(seen)
            # Loopback through CID 2 answers from CID 1.
            cids = (min(packet.src_cid, 3), min(packet.dst_cid, 3))
            local = 1 in cids
            ends = frozenset(
                (0 if local else cid, port)
                for cid, port in (packet[0::2][:2], (packet.dst_cid, packet.dst_port))
            )
            assert latest.get(ends, -1) <= seen.truth.conn
            latest[ends] = seen.truth.conn


# --- the tap ---------------------------------------------------------------------------


def fragments(repeat: Repeat, tap: int = 1) -> list[Seen]:
    """What the tap shows of 10000 bytes from host to guest."""
    setup = Setup(rx_sizes=(LINUX_RX_SIZE, None), tap=tap, socket_type=SEQPACKET)
    traffic = run("1 record 10000", setup=setup, repeat=repeat)
    return [seen for seen in traffic.seen if head(seen).op == Op.RW]


@pytest.mark.parametrize("repeat", REPEATS)
def test_fragments(repeat: Repeat) -> None:
    """A message is split by the guest's buffers; flags are on the last piece only."""
    seen = fragments(repeat)
    packets = [head(one) for one in seen]
    assert [3732, 3732, 2536] == [packet.len for packet in packets]
    assert [0, 0, 3] == [packet.flags for packet in packets]
    assert [3732, 7464, 10000] == [one.truth.tx_cnt for one in seen]
    assert 1 == len({(packet.buf_alloc, packet.fwd_cnt) for packet in packets})
    assert stream_bytes(0, 1, 0, 10000) == b"".join(one.truth.data for one in seen)


def test_what_the_tap_repeats() -> None:
    """Exact: nothing; A: all that follows; B: the whole message every time."""
    whole = stream_bytes(0, 1, 0, 10000)
    cuts = [0, 3732, 7464, 10000]
    shown = {
        "exact": [whole[a:b] for a, b in pairwise(cuts)],
        "A": [whole[a:] for a in cuts[:3]],
        "B": [whole] * 3,
    }
    for repeat in REPEATS:
        seen = fragments(repeat)
        assert shown[repeat] == [one.frame[HEADERS_SIZE:] for one in seen]
        assert [76 + len(payload) for payload in shown[repeat]] == [one.wirelen for one in seen]


@pytest.mark.parametrize("repeat", REPEATS)
def test_a_guests_own_tap_repeats_nothing(repeat: Repeat) -> None:
    """The repeat is vhost's: what arrives in fragments is shown as it is."""
    assert [3732, 3732, 2536] == [one.wirelen - HEADERS_SIZE for one in fragments(repeat, 0)]


@pytest.mark.parametrize("repeat", REPEATS)
def test_other_packets_come_between_fragments(repeat: Repeat) -> None:
    """A reader that is quick answers the first fragments before the last has left."""
    setup = Setup(rx_sizes=(3732, None), latency=(0, 0), spacing=ms(1))
    sim, conn = opened(setup, repeat)
    sim.run(ms(5))
    conn.write(1, 20_000)
    sim.run(ms(0.5))
    for _ in range(8):
        sim.run(ms(1))
        conn.read(0)
    traffic = sim.finish()
    ops = [head(seen).op for seen in traffic.seen[2:]]
    assert [Op.RW, *[Op.RW, Op.CREDIT_UPDATE] * 5, Op.CREDIT_UPDATE] == ops
    check_truth(traffic)


@given(setups(), st.integers(20, 5000), st.sampled_from(REPEATS))
@settings(deadline=None, max_examples=30)
def test_snaplen(setup: Setup, snaplen: int, repeat: Repeat) -> None:
    """A snaplen cuts frames and data and changes nothing else."""
    actions = script("1", "0 write 5000", "1 write 5000", "1", "0 read", "1 read", "0 close")
    whole = play(setup, actions, repeat)
    cut = play(setup, actions, repeat, snaplen)
    assert whole.connections == cut.connections
    for one, other in zip(whole.seen, cut.seen, strict=True):
        assert (one.frame[:snaplen], one.wirelen) == (other.frame, other.wirelen)
        assert one.truth._replace(data=b"") == other.truth._replace(data=b"")
        own_at = one.frame[HEADERS_SIZE:].find(one.truth.data)
        captured = max(0, len(other.frame) - HEADERS_SIZE - own_at)
        assert one.truth.data[:captured] == other.truth.data


def test_the_tap_sees_its_own_side_at_once() -> None:
    """The tapped side's packets are seen as they leave, the far side's as they arrive."""
    times = {}
    for tap in (0, 1):
        setup = Setup(tap=tap, latency=(ms(2), ms(30)), spacing=0)
        traffic = play(setup, [Action("wait", 0, ms(100))])
        times[tap] = [seen.time_ns - EPOCH for seen in traffic.seen]
    assert [0, ms(32)] == times[0]
    assert [ms(2), ms(2)] == times[1]


def test_the_tap_lags_behind_the_far_side() -> None:
    """In-flight bytes are judged by what passed the tap, not by what the sender knew."""
    setup = Setup(tap=1, latency=(ms(10), ms(10)))
    sim, conn = opened(setup)
    sim.run(ms(50))
    conn.write(0, 1000)
    sim.run(ms(15))
    conn.read(1)
    sim.run(ms(2))
    conn.write(0, 10)  # knows nothing yet of the update that the tap has seen
    sim.run(ms(15))
    last = sim.finish().seen[-1].truth
    assert (0, 1010, 10) == (last.side, last.tx_cnt, last.in_flight)


# --- counters --------------------------------------------------------------------------


def test_counters_wrap_in_a_joined_connection() -> None:
    """A connection joined at 2^32 - 1000 goes through zero without a break."""
    start = (2**32 - 1000, 2**32 - 100)
    actions = script("0 write 3000", "1", "1 write 300", "1", "0 read", "1 read", "1", "0 write 1")
    traffic = play(Setup(start=start), actions)
    check_truth(traffic, {0: start})
    assert [(0, 2000), (1, 200), (0, 2001)] == [
        (seen.truth.side, seen.truth.tx_cnt) for seen in traffic.seen if seen.truth.length
    ]
    assert "open" == traffic.connections[0].state
    assert traffic.connections[0].joined


def test_a_joined_connection_begins_unknown() -> None:
    """Before the receiver's first packet nobody can know what is in flight."""
    traffic = play(Setup(start=(5000, 0)), script("0 write 10", "1", "1 read"))
    first, second = (seen.truth for seen in traffic.seen)
    assert (5010, None, None, None) == (first.tx_cnt, first.in_flight, first.free, first.credit_at)
    assert (262144, None) == (first.sender_buf, first.receiver_buf)
    assert (0, 262144, 0) == (second.in_flight, second.granted, second.credit_at)


def test_counters_wrap_in_a_long_transfer() -> None:
    """With packets of a gigabyte, cut by the snaplen, 2^32 is soon passed."""
    buffers = (2**31, 2**31)
    sim = Simulator(snaplen=96)
    conn = sim.connect(Setup(buffers=buffers, max_packet=2**30, tap=0))
    sim.run(ms(1))
    conn.write(0, 5 * 2**30)
    while conn.peers[1].read < 5 * 2**30:
        sim.run(ms(1))
        conn.read(1)
    traffic = sim.finish()
    data = [seen for seen in traffic.seen if seen.truth.length]
    assert [2**30, 2**31, 3 * 2**30, 0, 2**30] == [seen.truth.tx_cnt for seen in data]
    assert {(96, 76 + 2**30, 20)} == {
        (len(seen.frame), seen.wirelen, len(seen.truth.data)) for seen in data
    }
    assert all(0 <= (seen.truth.in_flight or 0) <= 2**31 for seen in data)
    assert 2**30 == head(traffic.seen[-1]).fwd_cnt
    assert (5 * 2**30, 0) == traffic.connections[0].sent == traffic.connections[0].read


def test_fwd_cnt_moves_by_whole_packets() -> None:
    """Reading a part of a packet moves nothing and tells nothing."""
    traffic = run("0 write 1000", "0 write 1000", "1", "1 read 999", "1 write 1", "1 read 500", "1")
    sent = [(head(seen).op, head(seen).fwd_cnt) for seen in traffic.seen if seen.truth.side == 1]
    assert [(Op.RESPONSE, 0), (Op.RW, 0)] == sent
    sim, conn = opened()
    conn.write(0, 1000)
    sim.run(ms(1))
    conn.read(1, 999)
    assert 0 == conn.peers[1].fwd_cnt
    conn.read(1, 1)
    assert 1000 == conn.peers[1].fwd_cnt


def test_small_packets_are_coalesced() -> None:
    """Where there is room in the receive buffer, small packets count as one."""
    for room, moved in ((3732, 0), (None, 100)):
        sim, conn = opened(Setup(rx_sizes=(None, room)))
        conn.write(0, 100)
        conn.write(0, 100)
        sim.run(ms(1))
        conn.read(1, 150)
        assert moved == conn.peers[1].fwd_cnt


# --- credit ----------------------------------------------------------------------------


def test_a_stall_is_as_on_linux() -> None:
    """Four full packets, silence, one CREDIT_UPDATE, and it goes on."""
    traffic = run("0 write 270000", "1000", "1 read", "1", "1 read")
    full = ["0 RW 65536"] * 4
    assert [
        "0 REQUEST",
        "1 RESPONSE",
        *full,
        "1 CREDIT_UPDATE",
        "0 RW 7856",
        "1 CREDIT_UPDATE",
    ] == steps(traffic)
    assert (0, 262144) == (traffic.seen[5].truth.free, traffic.seen[6].truth.granted)
    begin, end = traffic.seen[5].time_ns, traffic.seen[6].time_ns
    assert (Stall(0, begin, end),) == traffic.connections[0].stalls
    assert ms(999) < end - begin < ms(1001)


def test_a_stall_may_have_no_end() -> None:
    """A window that is never opened again is a stall without an end."""
    traffic = run("0 write 262144", "1")
    assert (Stall(0, traffic.seen[-1].time_ns, None),) == traffic.connections[0].stalls


def test_a_window_that_only_shrinks_is_no_stall() -> None:
    """It takes an RW that uses up the credit."""
    setup = Setup(buffers=(1 << 20, 1 << 20))
    traffic = run("0 write 1000", "1", "1 buffer 500", "1", setup=setup)
    assert [0] == [seen.truth.granted for seen in traffic.seen[-1:]]
    assert () == traffic.connections[0].stalls


def test_a_sender_is_limited_by_its_own_buffer() -> None:
    """Where it has the cap the smaller of both buffers counts."""
    for capped, sent in ((True, 2000), (False, 5000)):
        setup = Setup(buffers=(2000, 262144), capped=(capped, False))
        assert [f"0 RW {sent}"] == steps(run("0 write 5000", "1", setup=setup))[2:]


def test_updates_are_sent_when_room_is_short_or_nothing_is_left() -> None:
    """A read in a half-full queue is told when less than 64 KiB of credit is left."""
    setup = Setup(max_packet=10_000, buffers=(100_000, 100_000))
    traffic = run("0 write 100000", "1", *["1 read 10000"] * 10, setup=setup)
    updates = [head(seen).fwd_cnt for seen in traffic.seen if head(seen).op == Op.CREDIT_UPDATE]
    assert [40_000, 80_000, 100_000] == updates


def test_seqpacket() -> None:
    """EOM on the last piece, EOR if asked for, an update after each message."""
    setup = Setup(socket_type=SEQPACKET)
    traffic = run("0 write 70000", "0 record 5", "1", "1 read", "1 read", "1 read", setup=setup)
    packets = [head(seen) for seen in traffic.seen[2:]]
    assert [(65536, 0), (4464, 1), (5, 3)] == [(p.len, p.flags) for p in packets[:3]]
    assert [(Op.CREDIT_UPDATE, 70000), (Op.CREDIT_UPDATE, 70005)] == [
        (p.op, p.fwd_cnt) for p in packets[3:]
    ]
    assert {SEQPACKET} == {head(seen).type for seen in traffic.seen}


def test_a_message_above_the_window_is_refused() -> None:
    """EMSGSIZE leaves no packet; a part of a message cannot be read."""
    sim, conn = opened(Setup(socket_type=SEQPACKET, buffers=(5000, 5000)))
    assert not conn.write(0, 5001)
    assert conn.write(0, 3000)
    assert conn.write(0, 3000)  # 2000 bytes of it
    sim.run(ms(1))
    assert 3000 == conn.read(1)
    assert 0 == conn.read(1)
    sim.run(ms(1))
    assert 3000 == conn.read(1)
    assert (6000, 0) == sim.finish().connections[0].sent


def test_buffer_changes_are_told() -> None:
    """SO_VM_SOCKETS_BUFFER_SIZE gives a CREDIT_UPDATE with fwd_cnt as it was."""
    traffic = run("1 buffer 65536", "1", "0 write 70000", "1")
    assert (Op.CREDIT_UPDATE, 65536, 0) == head(traffic.seen[2])[6:7] + head(traffic.seen[2])[8:]
    assert ["0 RW 65536"] == steps(traffic)[3:]


def test_credit_requests_are_answered() -> None:
    """CREDIT_REQUEST brings a CREDIT_UPDATE, moved or not."""
    assert ["0 CREDIT_REQUEST", "1 CREDIT_UPDATE"] == steps(run("0 ask", "1"))[2:]


# --- beginnings and ends ---------------------------------------------------------------

OPENING = ["0 REQUEST", "1 RESPONSE"]


def check_end(traffic: Traffic, packets: list[str], words: list[str], closer: int | None) -> None:
    """Compare what follows the opening, the states, and who closed first."""
    assert [*OPENING, *packets] == steps(traffic)
    assert words == states(traffic)[2:]
    assert closer == traffic.connections[0].closer
    check_truth(traffic)


def test_orderly_close() -> None:
    """SHUTDOWN(3), RST at once, a second RST when the other program closes."""
    traffic = run("0 close", "100", "1 close")
    check_end(traffic, ["0 SHUTDOWN 3", "1 RST", "1 RST"], ["closing", "closed"], 0)
    assert traffic.seen[-1].time_ns - traffic.seen[-2].time_ns > ms(99)


def test_shutdown_and_then_close() -> None:
    """After shutdown(RDWR) the close of either program is one more RST."""
    traffic = run("0 shutdown 3", "1", "1 close", "1", "0 close")
    packets = ["0 SHUTDOWN 3", "1 RST", "1 RST", "0 RST"]
    check_end(traffic, packets, ["closing", "closed"], 0)


def test_half_close() -> None:
    """One direction ends, the other goes on; then the rest."""
    words = ("0 shutdown 2", "1", "1 write 21", "1", "0 read", "1", "1 close", "1", "0 close")
    packets = ["0 SHUTDOWN 2", "1 RW 21", "0 CREDIT_UPDATE", "1 SHUTDOWN 3", "0 RST", "0 RST"]
    check_end(run(*words), packets, ["half-closed-initiator", "closing", "closed"], 1)


def test_a_reader_that_stops_ends_the_other_direction() -> None:
    """SHUTDOWN(RCV) of the initiator ends what the acceptor sends."""
    traffic = run("0 shutdown 1", "1", "1 write 5", "1", "1 shutdown 1")
    packets = ["0 SHUTDOWN 1", "1 SHUTDOWN 1"]
    check_end(traffic, packets, ["half-closed-acceptor", "closing"], None)


def test_both_halves() -> None:
    """Two half closes leave a connection that waits for somebody to close it."""
    words = ("0 shutdown 2", "1", "1 shutdown 2", "1", "1 close", "1", "0 close")
    packets = ["0 SHUTDOWN 2", "1 SHUTDOWN 2", "1 SHUTDOWN 3", "0 RST", "0 RST"]
    check_end(run(*words), packets, ["half-closed-initiator", "closing", "closed"], 1)


def test_both_close_at_once() -> None:
    """Two SHUTDOWNs cross, and two RSTs; none answers an RST."""
    packets = ["1 SHUTDOWN 3", "0 SHUTDOWN 3", "1 RST", "0 RST"]
    check_end(run("0 close", "1 close"), packets, ["closing", "closed"], 1)


def test_a_close_waits_for_the_reader() -> None:
    """With unread data SHUTDOWN is not answered before the other program closes."""
    words = ("0 write 10", "0 close", "100", "1 read", "1", "1 close")
    packets = ["0 RW 10", "0 SHUTDOWN 3", "1 CREDIT_UPDATE", "1 RST"]
    check_end(run(*words), packets, ["open", "closing", "closed"][1:], 0)


def test_close_timeout() -> None:
    """A SHUTDOWN that nobody answers is followed by RST after 8 s."""
    traffic = run("0 write 10", "0 close")
    check_end(traffic, ["0 RW 10", "0 SHUTDOWN 3", "0 RST"], ["closing", "timed-out"], 0)
    wait = traffic.seen[-1].time_ns - traffic.seen[-2].time_ns
    assert abs(wait - CLOSE_TIMEOUT_NS) < ms(1)


def test_close_with_unread_data() -> None:
    """The closer's fwd_cnt stays behind what it was sent: those bytes are lost."""
    traffic = run("0 write 7000", "1", "1 close", "1", "0 close")
    check_end(traffic, ["0 RW 7000", "1 SHUTDOWN 3", "0 RST", "0 RST"], ["closing", "closed"], 1)
    outcome = traffic.connections[0]
    assert ((7000, 0), (0, 0)) == (outcome.sent, outcome.read)


def test_both_close_and_one_has_unread_data() -> None:
    """That one answers nothing, misses the RST, and sends its own after the timeout."""
    traffic = run("1 write 7", "1", "0 close", "1 close")
    packets = ["1 RW 7", "1 SHUTDOWN 3", "0 SHUTDOWN 3", "1 RST", "0 RST"]
    check_end(traffic, packets, ["closing", "closed"], 1)
    assert traffic.seen[-1].time_ns - traffic.seen[-2].time_ns > CLOSE_TIMEOUT_NS - ms(1)


def test_abort() -> None:
    """An RST out of the blue; the other program's close is an RST, too."""
    traffic = run("1 abort", "1", "0 close")
    check_end(traffic, ["1 RST", "0 RST"], ["reset"], 1)


def test_data_for_a_socket_that_is_gone() -> None:
    """What was under way to an aborted socket is answered for nobody."""
    traffic = run("0 write 10", "1 abort")
    check_end(traffic, ["1 RST", "0 RW 10", "1 RST nosock"], ["reset"], 1)


def test_refused() -> None:
    """No listener: RST without credit, and nobody closed anything."""
    traffic = play(Setup(answer="refuse"), [])
    assert ["0 REQUEST", "1 RST nosock"] == steps(traffic)
    assert ["connecting", "refused"] == states(traffic)
    assert None is traffic.connections[0].closer


def test_ignored() -> None:
    """No answer, and the initiator's end leaves no packet."""
    traffic = play(Setup(answer="ignore"), script("2000", "0 close"))
    assert ["0 REQUEST"] == steps(traffic)
    assert "connecting" == traffic.connections[0].state


def test_closed_while_connecting() -> None:
    """The RESPONSE for a socket that is gone is answered by an RST without credit."""
    traffic = play(Setup(), script("0 close", "1", "1 close"))
    assert [*OPENING, "0 RST nosock", "1 RST"] == steps(traffic)
    assert ["connecting", "open", "reset"] == states(traffic)


def test_what_ends_a_blocked_write() -> None:
    """Neither end's shutdown lets the rest of a blocked write out."""
    for word in ("0 close", "1 shutdown 1", "0 shutdown 2"):
        traffic = run("0 write 300000", "1", word, "1", "1 read", "1", "1 read")
        assert (262144, 0) == traffic.connections[0].sent


def test_loopback_through_the_host() -> None:
    """A connection from CID 1 to CID 2 is answered from CID 1."""
    ends = Setup(Endpoint(1, 99), Endpoint(2, 5000), latency=(0, 0))
    traffic = run("0 write 5", "1 write 6", setup=ends)
    addresses = [head(seen)[:4] for seen in traffic.seen]
    forth, back = (1, 2, 99, 5000), (1, 1, 5000, 99)
    assert [forth, back, forth, back] == addresses


def test_actions_that_make_no_sense_do_nothing() -> None:
    """Any script can be played; a method says whether it did anything."""
    sim = Simulator()
    conn = sim.connect()
    for kind in KINDS:
        if kind not in ("wait", "close"):
            assert not conn.act(Action(kind, 1, 3))
    sim.run(ms(1))
    assert conn.close(0)
    sim.run(ms(1))
    assert conn.close(1)
    sim.run(ms(1))
    assert conn.done
    assert [Socket.GONE, Socket.GONE] == [peer.socket for peer in conn.peers]
    for kind in KINDS:
        if kind != "wait":
            assert not conn.act(Action(kind, 0, 3))


# --- files -----------------------------------------------------------------------------


def records(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """The records of a little-endian pcap file: seconds, fraction, wirelen, frame."""
    found = []
    at = 24
    while at < len(data):
        seconds, fraction, caplen, wirelen = struct.unpack_from("<IIII", data, at)
        found.append((seconds, fraction, wirelen, data[at + 16 : at + 16 + caplen]))
        at += 16 + caplen
    return found


def test_pcap(tmp_path: Path) -> None:
    """A nanosecond file of link type 271 holds the packets as they are."""
    seen = random_traffic(3).seen
    write_pcap(tmp_path / "x.pcap", seen)
    data = (tmp_path / "x.pcap").read_bytes()
    assert (0xA1B23C4D, LINKTYPE_VSOCK) == (
        *struct.unpack_from("<I", data),
        *struct.unpack_from("<I", data, 20),
    )
    assert [(s.time_ns, s.wirelen, s.frame) for s in seen] == [
        (seconds * 10**9 + nanos, wirelen, frame)
        for seconds, nanos, wirelen, frame in records(data)
    ]


def test_pcap_options() -> None:
    """Microseconds, a later start and a snaplen."""
    seen = random_traffic(3).seen
    data = pcap_bytes(seen, nanos=False, start=10, snaplen=80)
    assert 0xA1B2C3D4 == struct.unpack_from("<I", data)[0]
    assert [(s.time_ns // 1000 % 10**6, s.wirelen, s.frame[:80]) for s in seen[10:]] == [
        (micros, wirelen, frame) for _, micros, wirelen, frame in records(data)
    ]
    assert all(packet.truth.tx_cnt <= MASK for packet in seen)
