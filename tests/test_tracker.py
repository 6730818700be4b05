"""Tests of the tracker: charts of what each packet means, and the simulator as ground truth.

The charts (see tracking.py) are read like sequence charts; `=>` says what must come out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenario import pattern
from simulator import Repeat, Traffic, random_traffic
from tracking import (
    CAPTURES,
    TRACKER,
    Tracking,
    batches_of,
    check,
    differences,
    packets_of,
    track,
    track_file,
    track_packets,
    uncompiled,
)
from truth import expected, found

from vsockdump.batch import (
    FLAT_DTYPE,
    NO_TIME,
    TRACKED_DTYPE,
    Batch,
    Known,
    Layers,
    Malformed,
    Rows,
)
from vsockdump.track.kinds import Cause, Kind, Limit
from vsockdump.track.marks import Mark
from vsockdump.track.store import CONNECTION_DTYPE, EVENT_DTYPE, FLOW_DTYPE, STALL_DTYPE
from vsockdump.wire import SocketType

BUILDS: Final = (TRACKER, uncompiled("tracker"))

OPENED: Final = """
    0.000  3:1024 > host:5000 REQUEST               => connecting
    +1ms   3:1024 < host:5000 RESPONSE              => open
"""

# --- connections -----------------------------------------------------------------------


def ends(tracking: Tracking, number: int = 1) -> tuple[int, int, int, int]:
    """CID and port of the initiator, then of the acceptor."""
    row = tracking.connection(number)
    names = ("initiator_cid", "initiator_port", "acceptor_cid", "acceptor_port")
    cid, port, peer_cid, peer_port = (int(row[name]) for name in names)
    return cid, port, peer_cid, peer_port


def test_a_connection_from_begin_to_end() -> None:
    """Connect, data each way, close, and the second RST, which is the same connection."""
    tracking = check("""
        0.000  3:1024 > host:5000 REQUEST               => connecting  conn=1 side=0 tx=0
        +1ms   3:1024 < host:5000 RESPONSE              => open  side=1 free=262144 granted=262144
        +1ms   3:1024 > host:5000 RW 100                => open  tx=100 flight=100 free=262044
        +1ms   3:1024 < host:5000 CREDIT_UPDATE fwd=100 => open  tx=0 granted=262144
        +1ms   3:1024 < host:5000 RW 30 fwd=100         => open  tx=30 flight=30 free=262114
        +1ms   3:1024 > host:5000 SHUTDOWN fwd=30       => closing  tx=100 flight=0 free=262144
        +1ms   3:1024 < host:5000 RST fwd=100           => closed
        +9.5s  3:1024 < host:5000 RST fwd=100           => closed  conn=1 side=1 [after the end]
    """)
    row = tracking.connection(1)
    assert (3, 1024, 2, 5000) == ends(tracking)
    assert (100, 30) == tracking.bytes()
    assert (1, 8, 0) == (int(row["first_packet"]), int(row["last_packet"]), int(row["closer"]))
    assert 6_000_000 == row["ended_ns"]
    assert 9_506_000_000 == row["last_ns"]
    assert not row["midstream"]


def test_connections_are_numbered_by_their_first_packet() -> None:
    """Interleaved connections keep their numbers, whoever began them."""
    tracking = check("""
        0.000  3:1024 > host:5000 REQUEST               => connecting  conn=1 side=0
        +1ms   host:9 > 3:1024    REQUEST               => connecting  conn=2 side=0
        +1ms   3:1024 < host:5000 RESPONSE              => open        conn=1 side=1
        +1ms   4:1024 > host:5000 REQUEST               => connecting  conn=3 side=0
        +1ms   host:9 < 3:1024    RESPONSE              => open        conn=2 side=1
        +1ms   host:9 > 3:1024    RW 7                  => open        conn=2 side=0 tx=7
        +1ms   3:1024 < host:5000 RW 9                  => open        conn=1 side=1 tx=9
    """)
    assert [(3, 1024, 2, 5000), (2, 9, 3, 1024), (4, 1024, 2, 5000)] == [
        ends(tracking, number) for number in (1, 2, 3)
    ]


def test_a_connection_seen_from_its_response_on() -> None:
    """RESPONSE alone tells who began, and that nothing was sent before; not both buffers."""
    tracking = check("""
        0.000  host:5000 > 3:1024 RESPONSE          => open  side=1 tx=0 free=- granted=- [mid-stream]
        +1ms   3:1024 > host:5000 RW 5 buf=100      => open  side=0 tx=5 free=262139
    """)
    assert (3, 1024, 2, 5000) == ends(tracking)


def test_a_connection_joined_mid_stream() -> None:
    """Its sides are by order of appearance, not known to be right; its counters are unknown."""
    tracking = check("""
        0.000  host:5000 > 3:1024 RW 5 fwd=70       => open  side=- tx=- free=- granted=- [mid-stream]
        +1ms   3:1024 > host:5000 RW 6              => open  side=- tx=- free=- granted=-
        +1ms   host:5000 > 3:1024 SHUTDOWN flags=SEND fwd=76 => half-closed-initiator
    """)
    row = tracking.connection(1)
    assert (2, 5000, 3, 1024) == ends(tracking)
    assert (5, 6) == tracking.bytes()
    assert (1, 0) == (int(row["midstream"]), int(row["side_known"]))


def test_loopback_through_the_host_cid() -> None:
    """REQUEST goes 1 to 2, all answers come from 1: one connection, its acceptor on 2."""
    tracking = check("""
        0.000  local:1024 > host:5000  REQUEST       => connecting  conn=1
        +1ms   local:5000 > local:1024 RESPONSE      => open        conn=1 side=1
        +1ms   local:1024 > host:5000  RW 5          => open        conn=1 side=0 tx=5
        +1ms   local:5000 > local:1024 RST           => reset       conn=1 side=1  [bytes lost]
    """)
    assert (1, 1024, 2, 5000) == ends(tracking)


@pytest.mark.parametrize("cid", [1, 2, 3])
def test_loopback_is_refused_by_the_cid_that_was_called(cid: int) -> None:
    """The RST of no socket has the REQUEST's addresses exchanged, so it comes from CID 2."""
    check(f"""
        0.000  local:1024 > {cid}:5000 REQUEST        => connecting  conn=1 side=0
        +1ms   local:1024 < {cid}:5000 RST nosock     => refused     conn=1 side=1 [no socket]
    """)


def test_loopback_both_ways_at_once() -> None:
    """Two loopback connections with the same port numbers at other ends are two."""
    check("""
        0.000  local:1 > local:2  REQUEST               => connecting  conn=1
        +1ms   local:3 > local:2  REQUEST               => connecting  conn=2
        +1ms   local:1 < local:2  RESPONSE              => open        conn=1 side=1
        +1ms   local:3 < local:2  RST nosock            => refused     conn=2 side=1 [no socket]
    """)


def test_a_port_connected_to_itself() -> None:
    """With one address at both ends nobody can tell whose packet it is, or count for it."""
    check("""
        0.000  local:7 > local:7 REQUEST                => connecting  conn=1 side=0 tx=-
        +1ms   local:7 > local:7 RESPONSE               => open        conn=1 side=0
        +1ms   local:7 > local:7 RW 5                   => open        tx=- free=-
        +1ms   local:7 > local:7 CREDIT_UPDATE fwd=5    => open        tx=- free=-
        +1ms   local:7 > local:7 SHUTDOWN fwd=5         => closing
        +1ms   local:7 > local:7 RST fwd=5              => closed
    """)


def test_a_port_refused_by_itself() -> None:
    """With one address at both ends an RST while connecting is the answer."""
    check("""
        0.000  local:7 > local:7 REQUEST                => connecting
        +1ms   local:7 > local:7 RST nosock             => refused [no socket]
    """)


def test_all_64_bits_of_a_cid_count() -> None:
    """A CID with reserved bits is another end."""
    check("""
        0.000  3:1 > host:5000 REQUEST                  => connecting  conn=1
        +1ms   0x10000000003:1 > host:5000 REQUEST      => connecting  conn=2  [wide cid]
        +1ms   3:1 < host:5000 RESPONSE                 => open        conn=1
    """)


def test_the_virtio_header_counts() -> None:
    """A monitor header with other addresses does not change the connection."""
    check("""
        0.000  3:1 > host:5000 REQUEST                      => connecting  conn=1
        +1ms   3:1 < host:5000 RESPONSE mon.dst_port=9      => open  conn=1 [addresses disagree]
    """)


def by_tap(rows: Rows) -> None:
    """Give every second packet to interface 1."""
    rows["interface"] = np.arange(len(rows)) % 2


TWICE: Final = """
    0.000  3:1 > host:5000 REQUEST     => connecting  conn={0[0]}
    +0ms   3:1 > host:5000 REQUEST     => connecting  conn={0[1]}
    +1ms   3:1 < host:5000 RESPONSE    => open        conn={0[0]}
    +0ms   3:1 < host:5000 RESPONSE    => open        conn={0[1]}
"""


def test_two_taps_see_two_connections() -> None:
    """The same addresses on two interfaces are two connections, each with its own count."""
    tracking = check(TWICE.format((1, 2)), taps=(0, 1), adapt=by_tap)
    assert [0, 1] == tracking.connections["tap"].tolist()


def test_two_interfaces_of_one_tap_see_one() -> None:
    """Interfaces that are the same place of capture belong together."""
    chart = """
        0.000  3:1 > host:5000 REQUEST     => connecting  conn=1
        +1ms   3:1 < host:5000 RESPONSE    => open        conn=1
    """
    check(chart, taps=(5, 5), adapt=by_tap)


def test_interface_indices_of_any_are_taps() -> None:
    """In a capture of `any` the interface index separates connections."""

    def by_index(rows: Rows) -> None:
        rows["ifindex"] = 7 + np.arange(len(rows)) % 2

    check(TWICE.format((1, 2)), adapt=by_index)


def test_datagrams() -> None:
    """A pair of addresses is one row, without credit, lifecycle or sure sides."""
    tracking = check("""
        0.000  3:9 > host:53 RW 40 type=DGRAM        => datagram  conn=1 side=- tx=- free=- len=40
        +1ms   3:9 < host:53 RW 50 type=DGRAM buf=0  => datagram  conn=1 granted=- len=50
        +1ms   3:9 > host:53 RW 60 type=DGRAM fwd=99 => datagram  conn=1
    """)
    assert (100, 50) == tracking.bytes()
    assert not tracking.connection(1)["midstream"]


def test_stream_and_datagrams_of_one_tuple() -> None:
    """They are separate, as their ports are; STREAM and SEQPACKET share theirs."""
    tracking = check("""
        0.000  3:1024 > host:5000 REQUEST               => connecting  conn=1
        +1ms   3:1024 > host:5000 RW 8 type=DGRAM       => datagram    conn=2
        +1ms   3:1024 < host:5000 RESPONSE              => open        conn=1
        +1ms   3:1024 < host:5000 RW 9 type=DGRAM       => datagram    conn=2
        +1ms   3:1024 > host:5000 RW 1                  => open        conn=1 tx=1
        +1ms   3:1024 > host:5000 RW 1 type=SEQPACKET   => open        conn=1 [type changed]
    """)
    assert [SocketType.STREAM, SocketType.DGRAM] == tracking.connections["type"].tolist()


def test_seqpacket_is_tracked_like_stream() -> None:
    """SEQPACKET has the same lifecycle and credit."""
    tracking = check("""
        0.000  3:1 > host:2 REQUEST type=SEQPACKET                   => connecting
        +1ms   3:1 < host:2 RESPONSE type=SEQPACKET buf=1000         => open
        +1ms   3:1 > host:2 RW 600 type=SEQPACKET                    => open  free=400
        +1ms   3:1 > host:2 RW 400 type=SEQPACKET flags=EOM|EOR      => open  free=0 [credit used up]
        +1ms   3:1 < host:2 CREDIT_UPDATE type=SEQPACKET buf=1000 fwd=1000 => open  granted=1000
    """)
    assert SocketType.SEQPACKET == tracking.connection(1)["type"]


def test_unknown_ops_belong_to_their_connection() -> None:
    """An op or type without a name is marked and changes neither state nor bytes."""
    tracking = check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 99 7                  => open  conn=1 [unknown op, payload on control]
        +1ms   3:1024 > host:5000 0                     => open  conn=1 [unknown op]
        +1ms   3:1024 > host:5000 RW 5 type=9           => open  tx=5 [unknown type, type changed]
        """
    )
    assert (5, 0) == tracking.bytes()


def test_packets_without_headers_belong_to_no_connection() -> None:
    """A frame that ends within its headers is counted by nobody."""
    tracking = check("""
        0.000  3:1 > host:2 REQUEST frame=20            => none  conn=0 [malformed]
        +1ms   3:1 > host:2 REQUEST frame=60            => none  conn=0 [malformed]
        +1ms   3:1 > host:2 REQUEST cap=70              => none  conn=0 tx=- len=0 [headers cut]
    """)
    assert 0 == tracking.store.used


def test_foreign_packets_are_nobodys() -> None:
    """What is not vsock is not tracked, and nothing is wrong with it."""

    def other_link(rows: Rows) -> None:
        rows["layers"], rows["malformed"] = Layers.NONE, Malformed.FOREIGN

    check("0 3:1 > host:2 REQUEST => none conn=0 tx=- len=0", adapt=other_link)


# --- lifecycle -------------------------------------------------------------------------


def test_refused() -> None:
    """A REQUEST that no socket answers."""
    tracking = check("""
        0.000  3:1024 > host:7777 REQUEST               => connecting
        +1ms   3:1024 < host:7777 RST nosock            => refused  tx=0 free=- [no socket]
    """)
    assert 1_000_000 == tracking.connection(1)["ended_ns"]


def test_refused_by_a_user_space_guest() -> None:
    """An RST with credit in it refuses as well."""
    check("""
        0.000  host:1024 > 3:6001 REQUEST               => connecting
        +1ms   host:1024 < 3:6001 RST                   => refused
    """)


def finished(scenario: str, now_ns: int | None = None) -> Tracking:
    """Track a scenario to its end and judge what only time can tell."""
    tracking = track_packets(packets_of(scenario))
    tracking.tracker.finish(now_ns)
    return tracking


def test_connect_timeout() -> None:
    """A connect that nobody answered has timed out 2 s after its REQUEST."""
    ignored = "1 host:1024 > 3:6001 REQUEST\n"
    assert "connecting" == finished(ignored).state()
    assert "connecting" == finished(ignored + "+2s 9:9 > 8:8 RW").state()
    assert "connecting" == finished(ignored, 3_000_000_000).state()
    assert "timed-out" == finished(ignored, 3_000_000_001).state()
    tracking = finished(ignored + "+2001ms 9:9 > 8:8 RW")
    assert "timed-out" == tracking.state()
    assert 3_000_000_000 == tracking.connection(1)["ended_ns"]


def test_finish_judges_nothing_else() -> None:
    """Connections that are open or have ended stay as they are, however late it is."""
    tracking = finished(
        """
        0.000  3:1 > host:2 REQUEST
        +1ms   3:1 < host:2 RESPONSE
        +1ms   4:1 > host:2 REQUEST
        +1ms   4:1 < host:2 RST nosock
        +99s   5:1 > host:2 RW 1 type=DGRAM
        """
    )
    assert ["open", "refused", "datagram"] == [tracking.state(number) for number in (1, 2, 3)]


def test_late_response_then_rst() -> None:
    """The acceptor answered after the initiator had given up, which says so by RST."""
    tracking = check("""
        0.000  host:1 > 3:2 REQUEST                     => connecting
        +2.5s  host:1 < 3:2 RESPONSE                    => late       [late]
        +1ms   host:1 > 3:2 RST nosock                  => timed-out  [no socket]
    """)
    assert "timed-out" == tracking.state()


def test_late_response_that_is_taken() -> None:
    """With a longer connect timeout set, data shows that the connection stands."""
    check("""
        0.000  host:1 > 3:2 REQUEST                     => connecting
        +2.5s  host:1 < 3:2 RESPONSE                    => late       [late]
        +1ms   host:1 > 3:2 RW 3                        => open
    """)


def test_half_close_by_the_initiator() -> None:
    """SHUTDOWN(SEND) ends one direction, the other goes on."""
    check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 SHUTDOWN flags=SEND   => half-closed-initiator
        +1ms   3:1024 < host:5000 RW 9                  => half-closed-initiator
        +1ms   3:1024 < host:5000 SHUTDOWN              => closing
        +1ms   3:1024 > host:5000 RST fwd=9             => closed
        """
    )


def test_half_close_by_the_acceptor() -> None:
    """The same the other way round."""
    check(
        OPENED
        + """
        +1ms   3:1024 < host:5000 SHUTDOWN flags=SEND   => half-closed-acceptor
        +1ms   3:1024 > host:5000 RW 9                  => half-closed-acceptor
        +1ms   3:1024 > host:5000 SHUTDOWN              => closing
        +1ms   3:1024 < host:5000 RST fwd=9             => closed
        """
    )


def test_a_reader_that_stops() -> None:
    """SHUTDOWN(RCV) ends the direction towards its sender."""
    check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 SHUTDOWN flags=RCV    => half-closed-acceptor
        +1ms   3:1024 > host:5000 RW 9                  => half-closed-acceptor
        +1ms   3:1024 > host:5000 SHUTDOWN flags=SEND   => closing
        """
    )


def test_both_half_closes() -> None:
    """Each end stops to send; then the direction of nobody is left."""
    tracking = check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 SHUTDOWN flags=SEND   => half-closed-initiator
        +1ms   3:1024 < host:5000 SHUTDOWN flags=SEND   => closing
        +1ms   3:1024 < host:5000 SHUTDOWN              => closing
        +1ms   3:1024 > host:5000 RST                   => closed
        """
    )
    assert 1 == tracking.connection(1)["closer"]


def test_both_stop_reading_and_sending() -> None:
    """SHUTDOWN(RCV) by one and SHUTDOWN(SEND) by the other are about the same direction."""
    check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 SHUTDOWN flags=SEND   => half-closed-initiator
        +1ms   3:1024 < host:5000 SHUTDOWN flags=RCV    => half-closed-initiator
        +1ms   3:1024 < host:5000 SHUTDOWN flags=SEND   => closing
        """
    )


def test_flags_that_mean_nothing_end_nothing() -> None:
    """A SHUTDOWN without its two flags leaves the connection open."""
    check(OPENED + "+1ms 3:1024 > host:5000 SHUTDOWN flags=0xfffffffc => open [shutdown flags]")


def test_reset() -> None:
    """An RST while anything can still be sent, by either end."""
    for arrow in "><":
        tracking = check(OPENED + f"+1ms 3:1024 {arrow} host:5000 RST => reset")
        assert "><".index(arrow) == tracking.connection(1)["closer"]


def test_the_closer_gives_up() -> None:
    """An RST by the end that closed, after 8 s without an answer."""
    tracking = check(
        OPENED
        + """
        +1ms   3:1024 < host:5000 SHUTDOWN              => closing
        +8.1s  3:1024 < host:5000 RST                   => timed-out
        """
    )
    assert 1 == tracking.connection(1)["closer"]


def test_the_closer_gives_up_on_a_peer_that_had_half_closed() -> None:
    """An earlier SHUTDOWN(SEND) by the peer is no answer to the close."""
    check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 SHUTDOWN flags=SEND   => half-closed-initiator
        +1ms   3:1024 < host:5000 SHUTDOWN              => closing
        +8.1s  3:1024 < host:5000 RST                   => timed-out
        """
    )


def test_the_closer_aborts() -> None:
    """SHUTDOWN and RST at once by one end: the other could not finish."""
    check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 SHUTDOWN              => closing
        +1ms   3:1024 > host:5000 RST                   => reset
        """
    )


def test_the_closer_repeats_itself() -> None:
    """The wait for an answer counts from its first SHUTDOWN."""
    check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 SHUTDOWN              => closing
        +8s    3:1024 > host:5000 SHUTDOWN              => closing
        +1ms   3:1024 > host:5000 RST                   => timed-out
        """
    )


def test_both_close_at_once() -> None:
    """Two SHUTDOWNs that cross, and whoever resets first, are a clean end."""
    for arrow in "><":
        check(
            OPENED
            + f"""
            +1ms   3:1024 > host:5000 SHUTDOWN          => closing
            +1us   3:1024 < host:5000 SHUTDOWN          => closing
            +1ms   3:1024 {arrow} host:5000 RST         => closed
            """
        )


def test_a_tuple_is_used_again() -> None:
    """A REQUEST after the end is a new connection, with counters of its own."""
    tracking = check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 RW 5                  => open  tx=5
        +1ms   3:1024 > host:5000 SHUTDOWN              => closing
        +1ms   3:1024 < host:5000 RST fwd=5             => closed
        +1s    3:1024 > host:5000 REQUEST               => connecting  conn=2 tx=0
        +1ms   3:1024 < host:5000 RESPONSE              => open  conn=2 granted=262144
        +1ms   3:1024 > host:5000 RW 7                  => open  conn=2 tx=7
        """
    )
    assert [(5, 0), (7, 0)] == [tracking.bytes(1), tracking.bytes(2)]
    assert "closed" == tracking.state(1)


def test_a_tuple_is_used_again_from_the_other_end() -> None:
    """The new connection has its own initiator."""
    tracking = check("""
        0.000  3:1 > host:2 REQUEST                     => connecting  conn=1 side=0
        +1ms   3:1 < host:2 RST nosock                  => refused     conn=1 side=1 [no socket]
        +1ms   3:1 < host:2 REQUEST                     => connecting  conn=2 side=0
        +1ms   3:1 > host:2 RESPONSE                    => open        conn=2 side=1
    """)
    assert (2, 2, 3, 1) == ends(tracking, 2)


def test_a_request_on_an_open_connection() -> None:
    """Its end was not seen: the old one is replaced, and that is worth a mark."""
    tracking = check(
        OPENED
        + """
        +1s    3:1024 > host:5000 REQUEST               => connecting  conn=2 [addresses in use]
        +1ms   3:1024 < host:5000 RESPONSE              => open        conn=2
        """
    )
    assert ["replaced", "open"] == [tracking.state(1), tracking.state(2)]
    assert 1_001_000_000 == tracking.connection(1)["ended_ns"]


def test_a_request_repeated() -> None:
    """A second REQUEST before any answer is a new attempt; the first one may be overdue."""
    soon = check("""
        0.000  3:1 > host:2 REQUEST                     => connecting  conn=1
        +1s    3:1 > host:2 REQUEST                     => connecting  conn=2
    """)
    assert "replaced" == soon.state(1)
    assert 1_000_000_000 == soon.connection(1)["ended_ns"]
    just = check("""
        0.000  3:1 > host:2 REQUEST                     => connecting  conn=1
        +2s    3:1 > host:2 REQUEST                     => connecting  conn=2
    """)
    assert "replaced" == just.state(1)
    late = check("""
        0.000  3:1 > host:2 REQUEST                     => connecting  conn=1
        +3s    3:1 > host:2 REQUEST                     => connecting  conn=2
    """)
    assert "timed-out" == late.state(1)
    assert 2_000_000_000 == late.connection(1)["ended_ns"]


def test_a_request_after_datagrams() -> None:
    """Datagrams have no connection that could still be open."""
    check("""
        0.000  3:9 > host:53 RW 40 type=DGRAM           => datagram    conn=1
        +1ms   3:9 > host:53 REQUEST type=DGRAM         => connecting  conn=2 tx=-
    """)


def test_a_response_after_the_end() -> None:
    """Its REQUEST was not seen: a new connection, begun by the other end."""
    check("""
        0.000  3:1 > host:2 REQUEST                     => connecting  conn=1
        +1ms   3:1 < host:2 RESPONSE                    => open        conn=1
        +1ms   3:1 > host:2 RST                         => reset       conn=1
        +1ms   3:1 < host:2 RESPONSE                    => open        conn=2 side=1 [mid-stream]
    """)


def test_a_response_behind_a_refusal() -> None:
    """It answers the same REQUEST: the RST was a stale one."""
    tracking = check("""
        0.000  3:1 > host:2 REQUEST                     => connecting  conn=1
        +1ms   3:1 < host:2 RST nosock                  => refused     conn=1 [no socket]
        +1ms   3:1 < host:2 RESPONSE                    => open        conn=1 side=1
        +1ms   3:1 > host:2 RST nosock                  => reset       conn=1 [no socket]
    """)
    assert 3_000_000 == tracking.connection(1)["ended_ns"]
    assert 0 == tracking.connection(1)["closer"]


def test_packets_after_the_end_stay_with_their_connection() -> None:
    """Data that crossed the RST under way is no new connection."""
    tracking = check(
        OPENED
        + """
        +1ms   3:1024 < host:5000 RST                   => reset  conn=1
        +1us   3:1024 > host:5000 RW 5                  => reset  conn=1
        +1us   3:1024 < host:5000 RST nosock            => reset  conn=1 [no socket, after the end]
        """
    )
    assert (5, 0) == tracking.bytes()


# --- credit ----------------------------------------------------------------------------


def test_the_receivers_buffer_limits() -> None:
    """A sender's own buffer says nothing of what it may send."""
    check("""
        0.000  3:1 > host:2 REQUEST buf=1000            => connecting  free=- granted=-
        +1ms   3:1 < host:2 RESPONSE buf=9000           => open  free=1000 granted=9000
        +1ms   3:1 > host:2 RW 400 buf=1000             => open  flight=400 free=8600
        +1ms   3:1 < host:2 RW 300 buf=9000             => open  flight=300 free=700 granted=8600
        +1ms   3:1 > host:2 CREDIT_UPDATE buf=5000      => open  free=8600 granted=4700
    """)


OWN_BUFFER = """
    0.000  3:1 > host:2 REQUEST buf=1000            => connecting
    +1ms   3:1 < host:2 RESPONSE buf=9000           => open  granted=9000
    +1ms   3:1 > host:2 RW 1000 buf=1000            => open  free=8000
"""


def test_a_sender_that_waits_at_its_own_buffer_is_limited_by_it() -> None:
    """It stops there and goes on with the news: that was a stall, and from then on it is one."""
    tracking = check(
        OWN_BUFFER
        + """
        +3s    3:1 < host:2 CREDIT_UPDATE buf=9000 fwd=400  => open  granted=8400
        +1ms   3:1 > host:2 RW 300 buf=1000             => open  free=100 [stall]
        +1ms   3:1 > host:2 RW 100 buf=1000             => open  free=0 [credit used up]
        +1s    3:1 < host:2 CREDIT_UPDATE buf=9000 fwd=500  => open  granted=100 [stall]
        """
    )
    assert [(0, 2, 3002, 4), (0, 3004, 4004, 7)] == stalls(tracking)
    assert [Cause.OWN_BUFFER] * 2 == tracking.stalls["cause"].tolist()
    assert Limit.CAPPED == tracking.flow(1, 0)["rule"]
    assert 0 == tracking.flow(1, 0)["min_own"]
    assert 8000 == tracking.flow(1, 0)["min_free"]


@pytest.mark.parametrize(
    "after",
    [
        "+3s 3:1 > host:2 RW 1 buf=1000 => open free=7999",  # no news: it had not waited
        "+3s 3:1 < host:2 CREDIT_UPDATE buf=9000 fwd=400 => open granted=8400\n"
        "+1s 3:1 > host:2 RW 1 buf=1000 => open free=8399",  # not at once
        "+3s 3:1 < host:2 RW 5 buf=9000 fwd=400 => open granted=8400\n"
        "+1ms 3:1 > host:2 RW 1 buf=1000 => open free=8399",  # an answer may be what it waited for
        "+3s 3:1 < host:2 RST buf=9000 => reset [bytes lost]",
    ],
)
def test_a_pause_at_the_own_buffer_is_no_stall(after: str) -> None:
    """Unless it is seen to end with the receiver's news."""
    tracking = check(OWN_BUFFER + after)
    assert [] == stalls(tracking)
    assert 0 == tracking.flow(1, 0)["stalls"]
    assert Limit.CAPPED != tracking.flow(1, 0)["rule"]


def test_waits_are_taken_back_of_a_sender_that_goes_beyond_its_own_buffer() -> None:
    """It was another reason that it stopped there; also for its other connections."""
    waited = (
        OWN_BUFFER
        + """
        +3s    3:1 < host:2 CREDIT_UPDATE buf=9000 fwd=1000  => open  granted=9000
        +1ms   3:1 > host:2 RW 500 buf=1000             => open  free=500 [stall]
        """
    )
    other = """
        +1s    3:7 > host:2 REQUEST buf=1000            => connecting
        +1ms   3:7 < host:2 RESPONSE buf=9000           => open  granted=1000
        +1ms   3:7 > host:2 RW 1001 buf=1000            => open  free=7999
    """
    taken_back = check(waited + other)
    taken_back.store.void_own_stalls()
    assert [1, 0] == [one.flow(1, 0)["stalls"] for one in (check(waited), taken_back)]
    beyond = check(waited + "+1ms 3:1 > host:2 RW 501 buf=1000 => open free=7999")
    assert (0, 0) == (beyond.flow(1, 0)["stalls"], beyond.flow(1, 0)["stalled_ns"])
    assert Limit.UNCAPPED == beyond.flow(1, 0)["rule"]
    assert not int(beyond.connection(1)["found_low"]) >> Kind.STALL & 1


def test_a_buffer_that_shrinks_and_grows() -> None:
    """What is in flight can be more than the new buffer: nothing is free then."""
    check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 RW 8000                        => open  free=254144
        +1ms   3:1024 < host:5000 CREDIT_UPDATE buf=2000         => open  granted=0  [buffer shrunk]
        +1ms   3:1024 < host:5000 CREDIT_UPDATE buf=2000 fwd=7000 => open  granted=1000
        +1ms   3:1024 < host:5000 CREDIT_UPDATE buf=9000 fwd=7000 => open  granted=8000
        +1ms   3:1024 > host:5000 RW 8000                        => open  free=0 [credit used up]
        """
    )


def test_a_receiver_that_allows_nothing() -> None:
    """buf_alloc 0 is a window of 0, except in the RST of no socket."""
    check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 RW 5                      => open   free=262139
        +1ms   3:1024 < host:5000 CREDIT_UPDATE buf=0 fwd=5 => open   free=262144 granted=0  [no buffer]
        +1ms   3:1024 < host:5000 CREDIT_UPDATE fwd=5       => open   granted=262144
        +1ms   3:1024 < host:5000 RST nosock                => reset  granted=262144 [no socket]
        """
    )


def test_an_rst_of_no_socket_does_not_disturb_credit() -> None:
    """Its zeros are not counters."""
    check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 RW 100                => open   free=262044
        +1ms   3:1024 < host:5000 CREDIT_UPDATE fwd=60  => open   granted=262104
        +1ms   3:1024 < host:5000 RST nosock            => reset  granted=262104 [no socket]
        +1ms   3:1024 > host:5000 RW 100                => reset  tx=200 free=262004
        """
    )


def test_an_rst_with_a_counter_of_0_does_not_disturb_credit() -> None:
    """User-space devices send their RST with buf_alloc and fwd_cnt 0."""
    check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 RW 100                => open   free=262044
        +1ms   3:1024 < host:5000 CREDIT_UPDATE fwd=60  => open   granted=262104
        +1ms   3:1024 < host:5000 RST fwd=0             => reset  granted=262104
        """
    )


def stalls(tracking: Tracking) -> list[tuple[int, int, int, int]]:
    """(side, start in ms, end in ms, packet that ended it)."""
    return [
        (
            int(stall["side"]),
            int(stall["start_ns"]) // 10**6,
            int(stall["end_ns"]) // 10**6,
            int(stall["packet"]),
        )
        for stall in tracking.stalls
    ]


STALLED: Final = """
    0.000  3:1024 > host:5000 REQUEST               => connecting
    +1ms   3:1024 < host:5000 RESPONSE buf=1000     => open
    +1ms   3:1024 > host:5000 RW 999                => open  free=1
    +1ms   3:1024 > host:5000 RW 1                  => open  free=0 [credit used up]
"""


def test_a_stall() -> None:
    """From the packet that takes the last credit to the one that gives some back."""
    tracking = check(
        STALLED
        + """
        +500ms 3:1024 < host:5000 RW 10 buf=1000                    => open  granted=0
        +500ms 3:1024 < host:5000 CREDIT_UPDATE buf=1000 fwd=1000   => open  granted=1000  [stall]
        +1ms   3:1024 > host:5000 RW 1000                           => open  free=0 [credit used up]
        +1ms   3:1024 < host:5000 CREDIT_UPDATE buf=1000 fwd=1001   => open  granted=1
        """
    )
    flow = tracking.flow(1, 0)
    assert [(0, 3, 1003, 6), (0, 1004, 1005, 8)] == stalls(tracking)
    assert (2, 1_001_000_000) == (int(flow["stalls"]), int(flow["stalled_ns"]))
    assert 1_000_000_000 == flow["longest_stall_ns"]
    assert (0, 1000) == (int(flow["min_free"]), int(flow["max_in_flight"]))
    assert NO_TIME == flow["stalled_since"]


def test_credit_updates_are_counted() -> None:
    """How many a side sent, the first and the last."""
    flow = check(
        OPENED
        + """
        +1ms   3:1024 < host:5000 CREDIT_UPDATE         => open
        +1ms   3:1024 < host:5000 CREDIT_REQUEST        => open
        +1ms   3:1024 < host:5000 CREDIT_UPDATE         => open
        +1ms   3:1024 < host:5000 CREDIT_UPDATE         => open
        """
    ).flow(1, 1)
    assert 3 == flow["updates"]
    assert [2_000_000, 5_000_000] == [flow["first_update_ns"], flow["last_update_ns"]]


def test_a_stall_that_goes_on() -> None:
    """At the end of the capture it has begun and not ended."""
    tracking = check(STALLED)
    assert [] == stalls(tracking)
    assert 3_000_000 == tracking.flow(1, 0)["stalled_since"]


def test_a_stall_ends_with_its_connection() -> None:
    """RST, or a REQUEST on the same addresses, is the end of waiting."""
    reset = check(STALLED + "+5ms 3:1024 < host:5000 RST => reset [bytes lost]")
    assert [(0, 3, 8, 5)] == stalls(reset)
    again = check(
        STALLED
        + """
        +5ms   3:1024 > host:5000 REQUEST               => connecting  conn=2 [addresses in use]
        """
    )
    assert [(0, 3, 8, 5)] == stalls(again)
    assert [1] == again.stalls["conn"].tolist()


@pytest.mark.parametrize(
    "last", ["3:1024 > host:5000 SHUTDOWN flags=SEND", "3:1024 < host:5000 SHUTDOWN flags=RCV"]
)
def test_a_stall_ends_when_nothing_more_can_be_sent(last: str) -> None:
    """By the sender's own word or the receiver's; news behind it end nothing."""
    news = "+1s 3:1024 < host:5000 CREDIT_UPDATE fwd=1000"
    tracking = check(
        STALLED + f"+5ms {last} => half-closed-initiator\n{news} => half-closed-initiator"
    )
    assert [(0, 3, 8, 5)] == stalls(tracking)


def test_a_stall_by_a_smaller_buffer() -> None:
    """A receiver can take the last credit away and give it back; the sender's own is no matter."""
    tracking = check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 RW 900                     => open  free=261244
        +1ms   3:1024 < host:5000 CREDIT_UPDATE buf=900      => open  granted=0
        +1ms   3:1024 < host:5000 CREDIT_UPDATE buf=901      => open  granted=1
        +1ms   3:1024 > host:5000 CREDIT_UPDATE buf=900      => open  free=1
        """
    )
    assert [(0, 3, 4, 5)] == stalls(tracking)


def test_fwd_cnt_ahead_makes_tx_cnt_unknown() -> None:
    """More was consumed than was seen sent: packets are missing, and so is the count."""
    tracking = check(
        STALLED
        + """
        +1ms   3:1024 < host:5000 CREDIT_UPDATE buf=1000 fwd=1001  => open  granted=- [fwd_cnt ahead]
        +1ms   3:1024 > host:5000 RW 5                             => open  tx=- flight=- free=-
        +1ms   3:1024 < host:5000 RW 5 buf=1000 fwd=1001           => open  tx=5 granted=-
        """
    )
    assert [(0, 3, 4, 5)] == stalls(tracking)


def test_fwd_cnt_ahead_can_be_made_good() -> None:
    """A window used to its last byte while all before it was read tells tx_cnt again."""
    check(
        STALLED
        + """
        +1ms   3:1024 < host:5000 CREDIT_UPDATE buf=1000 fwd=5000  => open  granted=- [fwd_cnt ahead]
        +1ms   3:1024 > host:5000 RW 999                           => open  tx=-
        +1ms   3:1024 > host:5000 RW 1                             => open  tx=6000 free=0 [credit used up]
        """
    )


def test_fwd_cnt_back_is_taken_as_it_is() -> None:
    """A counter that goes back is marked; what it says counts."""
    check(
        OPENED
        + """
        +1ms   3:1024 > host:5000 RW 100                => open  flight=100
        +1ms   3:1024 < host:5000 CREDIT_UPDATE fwd=100 => open  granted=262144
        +1ms   3:1024 < host:5000 CREDIT_UPDATE fwd=99  => open  granted=262143 [fwd_cnt back]
        """
    )


def test_which_way_a_counter_went() -> None:
    """Up to half of the circle is forward, the other half is back."""
    check("""
        0.000  3:1 < host:2 CREDIT_UPDATE fwd=5             => open  [mid-stream]
        +1ms   3:1 < host:2 CREDIT_UPDATE fwd=0x80000004    => open
        +1ms   3:1 < host:2 CREDIT_UPDATE fwd=3             => open
        +1ms   3:1 < host:2 CREDIT_UPDATE fwd=0x80000003    => open  [fwd_cnt back]
    """)


def test_credit_over_the_wrap() -> None:
    """All differences are taken mod 2^32."""
    check("""
        0.000  3:1 > host:2 RW 1 buf=1000                         => open  tx=- [mid-stream]
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=0xffffff00 => open  granted=-
        +1ms   3:1 > host:2 RW 1000 buf=1000                      => open  tx=744 free=0 [credit used up]
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=0xfffffffe => open  granted=254
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=700        => open  granted=956
        +1ms   3:1 > host:2 RW 56 buf=1000                        => open  tx=800 flight=100 free=900
    """)


# --- joined mid-stream -----------------------------------------------------------------


def test_a_window_filled_from_empty_tells_tx_cnt() -> None:
    """All was read and then all was used: at that packet the count is certain."""
    check("""
        0.000  3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5000 => open  granted=- [mid-stream]
        +1ms   3:1 > host:2 RW 999                          => open  tx=- free=-
        +1ms   3:1 > host:2 RW 1                            => open  tx=6000 free=0 [credit used up]
    """)


def test_full_then_drained_tells_tx_cnt() -> None:
    """A window used up and then read to the end: what was before the capture is told apart."""
    check("""
        0.000  3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5000 => open  granted=- [mid-stream]
        +1ms   3:1 > host:2 RW 400                          => open  tx=-
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5600 => open  granted=-
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=6000 => open  granted=1000
        +1ms   3:1 > host:2 RW 7                            => open  tx=6007 free=993
    """)


def test_drained_then_full_tells_tx_cnt() -> None:
    """The other order; in between more is sent and read."""
    check("""
        0.000  3:1 > host:2 RW 400                          => open  tx=- [mid-stream]
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5000 => open  granted=-
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5400 => open  granted=-
        +1ms   3:1 > host:2 RW 600                          => open  tx=-
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=6000 => open  granted=-
        +1ms   3:1 > host:2 RW 900                          => open  tx=-
        +1ms   3:1 > host:2 RW 100                          => open  tx=7000 free=0 [credit used up]
    """)


def test_the_fullest_moment_counts() -> None:
    """What was learnt from a full window holds when more credit has been given since."""
    check("""
        0.000  3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5000 => open  granted=- [mid-stream]
        +1ms   3:1 > host:2 RW 400                          => open  tx=-
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5500 => open  granted=-
        +1ms   3:1 > host:2 RW 100                          => open  tx=-
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=6100 => open  granted=1000
        +1ms   3:1 > host:2 RW 7                            => open  tx=6107
    """)


def test_tx_cnt_is_lost_and_learnt_again() -> None:
    """A count that was learnt and ran behind is learnt anew, from new bounds."""
    check("""
        0.000  3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5000 => open  granted=- [mid-stream]
        +1ms   3:1 > host:2 RW 1000                         => open  tx=6000 [credit used up]
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=9000 => open  granted=- [fwd_cnt ahead]
        +1ms   3:1 > host:2 RW 300                          => open  tx=-
        +1ms   3:1 > host:2 RW 700                          => open  tx=10000 [credit used up]
    """)


def test_a_drained_buffer_alone_does_not_tell_tx_cnt() -> None:
    """More may be on its way than was seen: everything read is not known as such."""
    check("""
        0.000  3:1 > host:2 RW 400                          => open  tx=- [mid-stream]
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5000 => open  granted=-
        +1ms   3:1 > host:2 RW 400                          => open  tx=-
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5400 => open  granted=-
        +1ms   3:1 > host:2 RW 10                           => open  tx=-
    """)


def test_a_buffer_that_shrank_before_the_capture_is_not_full() -> None:
    """More can be in flight than the buffer has; reading that much says nothing."""
    check("""
        0.000  3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5000 => open  granted=- [mid-stream]
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=6000 => open  granted=-
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=7000 => open  granted=-
        +1ms   3:1 > host:2 RW 1000                         => open  tx=8000 [credit used up]
    """)


def test_more_than_the_bounds_allow_accuses_nobody() -> None:
    """The peer's buffer may have been larger before the capture: tx_cnt was not what it seemed."""
    check("""
        0.000  3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5000 => open  granted=- [mid-stream]
        +1ms   3:1 > host:2 RW 1000                         => open  tx=6000 [credit used up]
        +1ms   3:1 > host:2 RW 1                            => open  tx=-
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=6500 => open  granted=-
        +1ms   3:1 > host:2 RW 1000                         => open  tx=7500 free=0 [credit used up]
    """)


def test_bounds_that_contradict_each_other_are_dropped() -> None:
    """Packets were lost: what the bounds said holds no more, they begin anew."""
    check("""
        0.000  3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=5000 => open  granted=- [mid-stream]
        +1ms   3:1 > host:2 RW 900                          => open  tx=-
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=6200 => open  granted=-
        +1ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=6300 => open  granted=-
        +1ms   3:1 > host:2 RW 1000                         => open  tx=7300 free=0 [credit used up]
    """)


# --- time ------------------------------------------------------------------------------


def forget_times(rows: Rows) -> None:
    """As in pcapng's simple packet blocks."""
    rows["time_ns"] = NO_TIME


def test_packets_without_time() -> None:
    """With no time at all a connection has none, and neither stalls nor timeouts."""
    tracking = check(
        STALLED + "+9s 3:1024 < host:5000 RST fwd=1 => reset [bytes lost]", adapt=forget_times
    )
    row = tracking.connection(1)
    assert [NO_TIME] * 3 == [row["first_ns"], row["last_ns"], row["ended_ns"]]
    assert [] == stalls(tracking)


def test_a_connect_without_time_does_not_time_out() -> None:
    """When it began is not known, so how long it took is not either."""
    for module in BUILDS:
        tracking = check("0 3:1 > host:2 REQUEST => connecting", module, adapt=forget_times)
        tracking.tracker.finish()
        tracking.tracker.finish(10**18)
        assert "connecting" == tracking.state()


def test_some_packets_without_time() -> None:
    """A packet without time counts as of the moment of the one before it."""

    def forget_some(rows: Rows) -> None:
        rows["time_ns"][[0, 3]] = NO_TIME

    tracking = check(
        """
        0.000  3:1 > host:2 REQUEST                     => connecting
        5.000  3:1 < host:2 RESPONSE buf=100            => open
        +1ms   3:1 > host:2 RW 100                      => open  free=0 [credit used up]
        +1ms   3:1 < host:2 CREDIT_UPDATE fwd=100       => open
        """,
        adapt=forget_some,
    )
    row = tracking.connection(1)
    assert (5_000_000_000, 5_001_000_000) == (int(row["first_ns"]), int(row["last_ns"]))
    assert [(0, 5001, 5001, 4)] == stalls(tracking)


def test_time_that_goes_back() -> None:
    """Clocks are set; no duration is ever negative."""
    tracking = check("""
        9.000  3:1 > host:2 REQUEST                          => connecting
        8.000  3:1 < host:2 RESPONSE buf=100                 => open  [time back]
        7.000  3:1 > host:2 RW 100                           => open  free=0 [credit used up, time back]
        6.000  3:1 < host:2 CREDIT_UPDATE fwd=100            => open  [time back]
        5.000  3:1 < host:2 CREDIT_UPDATE fwd=100            => open  [time back]
        4.000  3:1 > host:2 SHUTDOWN                         => closing  [time back]
        3.000  3:1 > host:2 RST                              => reset  [time back]
    """)
    row, flow = tracking.connection(1), tracking.flow(1, 1)
    assert row["first_ns"] <= row["ended_ns"] <= row["last_ns"]
    assert flow["first_update_ns"] <= flow["last_update_ns"]
    assert [(0, 7000, 7000, 4)] == stalls(tracking)
    assert 0 == tracking.flow(1, 0)["stalled_ns"]


@pytest.mark.parametrize("early", [1 - 2**63, -(2**62), 0])
def test_extreme_times(early: int) -> None:
    """Times from a damaged file, as far apart as can be, give no error and no negative."""

    def stretch(rows: Rows) -> None:
        rows["time_ns"][5:] = [early, 2**63 - 1] * (len(rows) // 2 - 3) + [early]

    pair = """
        +1ms   3:1024 < host:5000 CREDIT_UPDATE fwd=1000        => open  {}
        +1ms   3:1024 < host:5000 CREDIT_UPDATE buf=0 fwd=1000  => open  [no buffer, time back]
    """
    chart = STALLED + pair.format("") + 2 * pair.format("[stall]")
    for module in BUILDS:
        tracking = check(chart, module, adapt=stretch)
        assert tracking.flow(1, 0)["stalled_ns"] >= 0
        assert (tracking.stalls["end_ns"] >= tracking.stalls["start_ns"]).all()


# --- the tap's repeat ------------------------------------------------------------------


def payloads(scenario: str) -> list[bytes]:
    """The stream bytes of each RW of a scenario, from its second packet on."""
    tracking = track_packets(packets_of("0 3:1 > host:2 REQUEST\n" + scenario))
    assert not {"short payload", "over credit"} & {word for row in tracking.marks() for word in row}
    return tracking.data[1:]


def cuts(*sizes: int) -> list[bytes]:
    """The test stream in pieces of these sizes."""
    starts = np.cumsum([0, *sizes]).tolist()
    return [pattern(start, size) for start, size in zip(starts, sizes, strict=False)]


EXACT: Final = """
    +1us  3:1 < host:2 RESPONSE
    +1us  3:1 < host:2 RW 300
    +1us  3:1 < host:2 RW 300
    +1us  3:1 < host:2 RW 200
"""
VARIANT_A: Final = """
    +1us  3:1 < host:2 RW 300 wire=+500
    +1us  3:1 < host:2 RW 300 wire=+200
    +1us  3:1 < host:2 RW 200
"""
VARIANT_B: Final = """
    +1us  3:1 < host:2 RW 300 wire=+500
    +1us  3:1 < host:2 RW 300 wire=300+200
    +1us  3:1 < host:2 RW 200 wire=600+0
"""
RESPONSE: Final = "+1us 3:1 < host:2 RESPONSE\n"


def test_a_frame_without_repeat_is_all_the_streams() -> None:
    """What an exact tap shows is taken as it is."""
    assert [b"", *cuts(300, 300, 200)] == payloads(EXACT)


@pytest.mark.parametrize("pieces", [VARIANT_A, VARIANT_B])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_the_repeat_is_left_out(pieces: str, times: int) -> None:
    """Both variants give the bytes that were sent, also for packets of equal sizes."""
    expected = cuts(*[300, 300, 200] * times)
    assert [b"", *expected] == payloads(RESPONSE + pieces * times)


@pytest.mark.parametrize("pieces", [VARIANT_A, VARIANT_B])
def test_repeats_and_whole_packets_alternate(pieces: str) -> None:
    """A packet that was not split, of the same size as one that was, begins anew."""
    whole = "+1us  3:1 < host:2 RW 800\n"
    expected = cuts(300, 300, 200, 800, 300, 300, 200, 800)
    assert [b"", *expected] == payloads(RESPONSE + (pieces + whole) * 2)


def test_repeats_of_packets_of_several_sizes() -> None:
    """Variant B: a frame of another size is another packet."""
    other = """
        +1us  3:1 < host:2 RW 300 wire=+40
        +1us  3:1 < host:2 RW 40 wire=300+0
    """
    expected = cuts(300, 40, 300, 300, 200, 300, 40, 300, 40)
    assert [b"", *expected] == payloads(RESPONSE + other + VARIANT_B + other + other)


def test_equal_pieces() -> None:
    """Variant B: a packet whose last piece is as long as the others."""
    pieces = """
        +1us  3:1 < host:2 RW 300 wire=+300
        +1us  3:1 < host:2 RW 300 wire=300+0
    """
    assert [b"", *cuts(*[300] * 6)] == payloads(RESPONSE + pieces * 3)


def test_bytes_are_counted_by_len() -> None:
    """A repeat is no traffic, whatever the frames hold; frames count with all they have."""
    for pieces in (VARIANT_A, VARIANT_B):
        tracking = track_packets(packets_of(RESPONSE + pieces))
        assert (0, 800) == tracking.bytes()
        assert 800 == tracking.tracked["tx_cnt"][-1]
        assert tracking.rows["wirelen"].sum() == tracking.flow(1, 1)["frame_bytes"]


def cut(scenario: str) -> str:
    """A scenario with a snaplen of 176, which leaves 100 bytes of payload."""
    return "\n".join(line + " cap=176" for line in scenario.strip().splitlines())


def test_snaplen_and_the_repeat() -> None:
    """Only own bytes that were captured are shown; variant B may have none of them."""
    pieces = cuts(300, 300, 200)
    assert [b"", *(piece[:100] for piece in pieces)] == payloads(RESPONSE + cut(VARIANT_A))
    assert [b"", pieces[0][:100], b"", b""] == payloads(RESPONSE + cut(VARIANT_B))


def test_a_repeat_joined_mid_packet() -> None:
    """Variant B: the first pieces cannot be told, the last one is at the frame's end."""
    later = VARIANT_B.strip().split("\n", 1)[1].replace("RW 300", "RW 300 seq=300")
    tracking = track_packets(packets_of(later + VARIANT_B * 2))
    assert cuts(300, 300, 200, 300, 300, 200, 300, 300, 200)[2:] == tracking.data[1:]
    assert (800 * 3 - 300, 0) == tracking.bytes()


def test_a_lost_piece() -> None:
    """Variant B: what follows a gap is right from the next end of a packet on."""
    after = VARIANT_B.strip().split("\n", 1)[1].replace("RW 300", "RW 300 seq=1100")
    found = payloads(RESPONSE + VARIANT_B + after + VARIANT_B)
    assert cuts(*[300, 300, 200] * 3)[5:] == found[5:]


def test_a_repeat_joined_at_the_end_of_a_packet() -> None:
    """Variant B: after a shorter piece a longer one begins the next packet."""
    last = "+1us  3:1 < host:2 RW 200 wire=600+0 seq=600\n"
    tracking = track_packets(packets_of(last + VARIANT_B * 2))
    assert cuts(*[300, 300, 200] * 3)[3:] == tracking.data[1:]


def test_a_lost_end() -> None:
    """Variant B: a piece that would run over the frame's end begins the next packet."""
    lost = VARIANT_B.strip().rsplit("\n", 1)[0] + "\n"
    again = VARIANT_B.replace("RW 300 wire=+500", "RW 300 wire=+500 seq=800")
    found = payloads(RESPONSE + lost + again)
    assert [b"", *cuts(300, 300), *cuts(300, 300, 200, 300, 300, 200)[3:]] == found


def test_sizes_that_look_like_variant_a() -> None:
    """Variant B: a packet is not the rest of one that is complete, whatever its size."""
    smaller = """
        +1us  3:1 < host:2 RW 300 wire=+300
        +1us  3:1 < host:2 RW 300 wire=300+0
    """
    expected_pieces = cuts(300, 300, 200, 300, 300)
    assert [b"", *expected_pieces] == payloads(RESPONSE + VARIANT_B + smaller)
    begun = "+1us  3:1 < host:2 RW 300 wire=+500\n+1us  3:1 < host:2 RW 500\n"
    smaller = smaller.replace("+300", "+200").replace("RW 300 wire=300+0", "RW 200 wire=300+0")
    assert [b"", *cuts(300, 500, 300, 200)] == payloads(RESPONSE + begun + smaller)


def test_a_lost_rest_in_variant_a() -> None:
    """Once variant A was seen, two frames of one size are two packets."""
    begun = "+1us  3:1 < host:2 RW 300 wire=+500\n"
    assert [b"", *cuts(300, 300, 200, 300, 300)] == payloads(RESPONSE + VARIANT_A + begun + begun)


# --- marks -----------------------------------------------------------------------------


_OPENED: Final = "0 3:1 > host:2 REQUEST\n+1ms 3:1 < host:2 RESPONSE\n"
_CLOSED: Final = _OPENED + "+1ms 3:1 > host:2 RST\n"


def last_marks(scenario: str) -> Mark:
    """The marks of a scenario's last packet."""
    return Mark(int(track_packets(packets_of(scenario)).tracked["marks"][-1]))


def test_a_connection_has_the_marks_of_its_packets() -> None:
    """They add up over its life."""
    tracking = track_packets(packets_of(_CLOSED + "1 3:1 < host:2 RST\n2 3:1 < host:2 0"))
    assert Mark.RESET | Mark.LATER_RST | Mark.UNKNOWN_OP == tracking.connection(1)["marks"]


@pytest.mark.parametrize("before", ["CREDIT_UPDATE", "CREDIT_REQUEST", "SHUTDOWN", "RW 1"])
def test_nothing_may_come_before_the_response(before: str) -> None:
    """Data, credit and shutdown are all too early then."""
    scenario = "0 3:1 > host:2 REQUEST\n1 3:1 > host:2 "
    assert Mark.NOT_ESTABLISHED == last_marks(scenario + before)


@pytest.mark.parametrize("op", [0, 8, 99, 65535])
def test_all_unknown_ops_are_unknown(op: int) -> None:
    """INVALID is not an op that can be sent, and there are no ops above 7."""
    assert Mark.UNKNOWN_OP == last_marks(f"{_OPENED}1 3:1 > host:2 {op}")


@pytest.mark.parametrize("kind", [0, 4, 99, 65535])
def test_all_unknown_types_are_unknown(kind: int) -> None:
    """The type 0 is none."""
    assert Mark.UNKNOWN_TYPE == last_marks(f"0 3:1 > host:2 REQUEST type={kind}")


# --- the simulator as ground truth -----------------------------------------------------


class Tap(NamedTuple):
    """Some traffic, where and how it is captured, and in what batches it is read."""

    seed: int
    repeat: Repeat
    vantage: Literal["host", "guest"]
    joined: bool
    rows: int

    def traffic(self, snaplen: int | None = None) -> Traffic:
        """The capture, and its truth."""
        return random_traffic(
            self.seed,
            repeat=self.repeat,
            vantage=self.vantage,
            joined=self.joined,
            snaplen=snaplen,
        )


TAPS: Final = st.builds(
    Tap,
    st.integers(0, 2**32),
    st.sampled_from(get_args(Repeat)),
    st.sampled_from(("host", "guest")),
    st.booleans(),
    st.sampled_from((1, 7, 8192)),
)


def compare(tap: Tap, traffic: Traffic, start: int = 0) -> None:
    """Track the packets from `start` on and hold all that comes out against the truth."""
    tracking = track_packets(traffic.seen[start:], rows=tap.rows)
    rows, summaries = expected(traffic, tracking, tap.repeat, start)
    found_rows, found_summaries = found(tracking)
    for row, found_row in zip(rows, found_rows, strict=True):
        assert row == found_row
    assert summaries == found_summaries


@given(TAPS)
@settings(deadline=None, max_examples=150)
def test_the_tracker_sees_the_truth(tap: Tap) -> None:
    """Every connection, byte, counter, state and stall, at both ends and in every tap mode."""
    compare(tap, tap.traffic())


@given(TAPS, st.sampled_from((76, 100, 5000)))
@settings(deadline=None, max_examples=50)
def test_a_snaplen_hides_bytes_only(tap: Tap, snaplen: int) -> None:
    """All the rest is as true as without it."""
    compare(tap, tap.traffic(snaplen))


@given(TAPS, st.floats(0, 1))
@settings(deadline=None, max_examples=150)
def test_what_a_late_capture_says_is_true(tap: Tap, share: float) -> None:
    """Without its first packets less is known, and nothing of what is known is wrong."""
    traffic = tap.traffic()
    compare(tap, traffic, int(share * (len(traffic.seen) - 1)))


def test_a_late_capture_learns_tx_cnt() -> None:
    """What is sent, used up and read in time makes counters known in random traffic, too."""
    learnt = 0
    for seed in range(20):
        tracking = track_packets(random_traffic(seed, joined=True).seen)
        late = np.isin(tracking.tracked["conn"], numbers_of_late(tracking))
        learnt += int(np.count_nonzero(tracking.tracked["known"][late] & Known.TX_CNT))
    assert learnt > 100


def numbers_of_late(tracking: Tracking) -> list[int]:
    """The connections that began before the capture."""
    rows = tracking.connections
    numbers: list[int] = rows["number"][rows["side_known"] == 0].tolist()
    return numbers


def test_stalls_are_those_the_simulator_felt() -> None:
    """With constant buffers, the stalls are those that the simulator itself wrote down."""
    compared = 0
    for seed in range(60):
        traffic = random_traffic(seed)
        tracking = track_packets(traffic.seen)
        for number, outcome in enumerate(traffic.connections, 1):
            if has_constant_buffers(traffic, number - 1):
                rows = tracking.stalls[tracking.stalls["conn"] == number]
                stalled = [(one["side"], one["start_ns"], one["end_ns"]) for one in rows]
                ended = [stall for stall in outcome.stalls if stall.end_ns is not None]
                assert sorted(ended) == sorted(stalled)
                compared += len(stalled)
    assert compared > 0


def has_constant_buffers(traffic: Traffic, conn: int) -> bool:
    """Whether neither end of a connection changed its buffer, and it was not reset."""
    truths = [seen.truth for seen in traffic.seen if seen.truth.conn == conn]
    buffers = {(one.side, one.sender_buf) for one in truths if one.sender_buf is not None}
    return len(buffers) <= 2 and traffic.connections[conn].state == "open"


# --- two builds, any batches -----------------------------------------------------------

FILES: Final = sorted(CAPTURES.glob("*.pcap*"))


def names(path: Path) -> str:
    """The name of a capture, for the test's."""
    return path.name


@pytest.mark.parametrize("path", FILES, ids=names)
def test_both_builds_agree_on_captures(path: Path) -> None:
    """The source run as Python tracks real traffic to the same columns and the same store."""
    compiled, pure = (track_file(path, module) for module in BUILDS)
    assert [] == differences(compiled, pure)


@given(TAPS, st.floats(0, 1))
@settings(deadline=None, max_examples=20)
def test_both_builds_agree_on_random_traffic(tap: Tap, share: float) -> None:
    """Also where a capture begins late, and whatever the batches are."""
    seen = tap.traffic().seen
    seen = seen[int(share * (len(seen) - 1)) :]
    compiled, pure = (track_packets(seen, module, tap.rows) for module in BUILDS)
    assert [] == differences(compiled, pure)


@pytest.mark.parametrize("path", FILES, ids=names)
@pytest.mark.parametrize("rows", [1, 7])
def test_batches_do_not_matter_in_captures(path: Path, rows: int) -> None:
    """One packet at a time gives the same as all at once."""
    assert [] == differences(track_file(path), track_file(path, rows=rows))


@given(TAPS)
@settings(deadline=None, max_examples=20)
def test_batches_do_not_matter(tap: Tap) -> None:
    """Nor in random traffic."""
    seen = tap.traffic().seen
    assert [] == differences(track_packets(seen), track_packets(seen, rows=tap.rows))


def test_batches_may_be_any_rows_of_an_array() -> None:
    """Slices, steps and copies of one array are tracked as what they are."""
    seen = random_traffic(3).seen
    (batch,) = (batch.copy() for batch in batches_of(seen))
    cuts = [(0, 5), (5, 9), (9, 10), (10, 40), (40, len(batch))]

    def sliced() -> Iterator[Batch]:
        for number, (start, stop) in enumerate(cuts):
            rows = batch.rows[start:stop]
            if number == 3:
                rows = np.repeat(rows, 2)[::2]
            yield Batch(rows, batch.buffer, batch.layout)

    assert [] == differences(track([batch]), track(sliced()))


def test_an_empty_batch_is_nothing() -> None:
    """Sources give batches without packets for blocks at the end of a file."""
    (batch,) = (batch.copy() for batch in batches_of(packets_of("0 3:1 > host:2 REQUEST")))
    tracking = track([batch.head(0), batch, batch.head(0)])
    assert [1] == tracking.tracked["conn"].tolist()


NUMPY_CODES: Final = {
    "unsigned long long": "u8",
    "long long": "i8",
    "unsigned int": "u4",
    "unsigned short": "u2",
    "unsigned char": "u1",
}


def numpy_code(kind: object) -> str:
    """NumPy's code of a C type as Cython's pure Python mode has it."""
    return NUMPY_CODES[repr(kind)]


CODES: Final = {
    "unsigned char": "u1",
    "unsigned short": "u2",
    "unsigned int": "u4",
    "unsigned long long": "u8",
    "long long": "i8",
}


@pytest.mark.parametrize(
    ("struct", "dtype"),
    [
        ("Packet", FLAT_DTYPE),
        ("Tracked", TRACKED_DTYPE),
        ("Connection", CONNECTION_DTYPE),
        ("Flow", FLOW_DTYPE),
        ("Stall", STALL_DTYPE),
        ("Noted", EVENT_DTYPE),
    ],
)
def test_structs_are_the_dtypes(struct: str, dtype: np.dtype[np.void]) -> None:
    """C and NumPy have the same fields, in the same order, of the same size and place."""
    members = getattr(uncompiled("tracker"), struct)._members
    as_in_c = np.dtype([(name, CODES[repr(kind)]) for name, kind in members.items()], align=True)
    assert list(dtype.names or ()) == list(members)
    assert dtype.fields == as_in_c.fields
    assert dtype.itemsize == as_in_c.itemsize


# --- real captures ---------------------------------------------------------------------


def summary(name: str) -> list[tuple[str, tuple[int, int]]]:
    """State and bytes of each connection of a capture."""
    tracking = track_file(CAPTURES / name)
    numbers = range(1, tracking.store.used + 1)
    return [(tracking.state(number), tracking.bytes(number)) for number in numbers]


# What the programs did: see captures/README.md.
SENT: Final = {
    "k612_bulk_snap96.pcap": [("closed", (4 << 20, 0))],
    "k612_bulk_stall.pcap": [("closed", (262144 + 4 * 4096, 0))],
    "k612_small_buf.pcap": [("closed", (20000, 0))],
    "k612_seqpacket.pcap": [
        (
            "closed",
            (
                1 + 15 + 1000 + 65535 + 65536 + 65537 + 150_000 + 200_000 + 4,
                len("reply with EOR") + 100 * len("truncated "),
            ),
        )
    ],
    "k612_shutdowns.pcap": [
        ("closed", (len("req"), len("resp after half close"))),
        ("closed", (len("still writing"), 0)),
        ("closed", (0, 0)),
        ("closed", (0, 0)),
        ("closed", (len("bye"), 0)),
        ("closed", (0, 0)),
        ("closed", (1000 * len("unread "), 0)),
        ("closed", (0, 0)),
        ("closed", (0, 0)),
    ],
    "k612_refused.pcap": [*[("refused", (0, 0))] * 3, *[("closed", (0, 0))] * 2]
    + [("refused", (0, 0))] * 3,
    "k612_any_sll2.pcap": [*[("refused", (0, 0))] * 3, *[("closed", (0, 0))] * 2]
    + [("refused", (0, 0))] * 3,
    "k612_many.pcap": [
        ("closed", (3 * len(f"conn {number} round 0"),) * 2) for number in range(200)
    ],
    "l2_guest_view.pcap": [
        ("closed", (170637, 170637)),
        ("closed", (73001, 13)),
        ("refused", (0, 0)),
        ("closed", (4, 4)),
        ("open", (31, 0)),
        ("open", (13197, 2001)),
    ],
}


SENT["prog_socat.pcapng"] = [("closed", (len("socat line 1\n"),) * 2)] * 3
SENT["prog_ncat.pcapng"] = [
    ("closed", (len("hello from ncat\n"), 0)),
    ("closed", (sum(len(f"{line}\n") for line in range(1, 2001)), 0)),
    ("refused", (0, 0)),
]
SENT["k612_fakeguest.pcap"] = SENT["k61_fakeguest.pcap"] = [
    ("closed", (23 + 65536, 10_000)),
    ("reset", (400, 0)),
    ("refused", (0, 0)),
    ("timed-out", (0, 0)),  # the guest ignored it
    ("reset", (len("stray") + 1, 0)),
    ("refused", (0, 0)),  # DGRAM
    *[("timed-out", (0, 0))] * 3,  # spoofed addresses: the host dropped them
    ("refused", (0, 0)),
    ("open", (len("part one part two"), 9000)),
    ("timed-out", (0, 0)),  # the guest never answered the SHUTDOWN
]


@pytest.mark.parametrize("name", SENT)
def test_bytes_are_those_the_programs_sent(name: str) -> None:
    """Connections of real captures, with what their programs wrote."""
    assert SENT[name] == summary(name)


def streams(name: str, number: int = 1) -> tuple[bytes, bytes]:
    """What the ends of a connection of a capture sent."""
    tracking = track_file(CAPTURES / name)
    both = [b"", b""]
    for data, row in zip(tracking.data, tracking.tracked, strict=True):
        if row["conn"] == number:
            both[int(row["side"])] += data
    return both[0], both[1]


def test_streams_are_what_the_programs_wrote() -> None:
    """The bytes themselves, across packets and out of the tap's repeat."""
    question = b"conn 199 round %d"
    asked = b"".join(question % number for number in range(3))
    assert (asked, asked.upper()) == streams("k612_many.pcap", 200)
    assert (b"S" * 262144 + b"more" * 4096, b"") == streams("k612_bulk_stall.pcap")
    assert (b"req", b"resp after half close") == streams("k612_shutdowns.pcap")
    echo = b"".join(bytes([size & 255]) * size for size in (1, 100, 5000, 65536, 100_000))
    assert (echo, echo) == streams("l2_guest_view.pcap")
    for name in ("k61_fakeguest.pcap", "k612_fakeguest.pcap"):
        assert (b"part one part two", b"Q" * 9000) == streams(name, 11)
        assert b"A" * 10_000 == streams(name)[1]


@pytest.mark.parametrize("name", ["k612_http.pcap", "prog_http.pcapng"])
def test_an_http_connection(name: str) -> None:
    """Three GET, a POST of 30000 bytes, and what came back."""
    asked, answered = streams(name)
    assert [3, 1] == [asked.count(method) for method in (b"GET /", b"POST /up")]
    assert asked.endswith(b"\r\n\r\n" + b"z" * 30_000)
    assert 1 + 500 + 500 == answered.count(b"hello over vsock\n")
    assert 4 == answered.count(b"HTTP/1.1 ")


def test_an_ssh_connection() -> None:
    """Both ends begin with their banner."""
    for stream in streams("prog_ssh.pcapng"):
        assert stream.startswith(b"SSH-2.0-")


@pytest.mark.parametrize("path", FILES, ids=names)
def test_captures_begin_with_their_connections(path: Path) -> None:
    """All counters of whole connections are known, and no two packets of one disagree."""
    tracking = track_file(path)
    whole = tracking.connections["number"][tracking.connections["midstream"] == 0]
    kinds = tracking.rows["virtio"]["type"]
    chosen = np.isin(tracking.tracked["conn"], whole) & (kinds != SocketType.DGRAM)
    assert (tracking.tracked["known"][chosen] & Known.TX_CNT).all()
    assert (tracking.tracked["known"][chosen] & Known.SIDE).all()


def test_a_real_stall() -> None:
    """A writer that used 262144 bytes of credit and waited for a reader asleep for 1.5 s."""
    tracking = track_file(CAPTURES / "k612_bulk_stall.pcap")
    (stall,) = tracking.stalls
    assert (1, 0) == (int(stall["conn"]), int(stall["side"]))
    assert 15 == (stall["end_ns"] - stall["start_ns"]) // 10**8
    assert 262144 == tracking.flow(1, 0)["max_in_flight"]


def test_repeats_of_a_real_tap() -> None:
    """Linux 6.1 showed four frames with more than their own bytes; 6.12 none."""
    for name, expected_count in (("k61_fakeguest.pcap", 4), ("k612_fakeguest.pcap", 0)):
        tracked = track_file(CAPTURES / name).tracked
        assert expected_count == np.count_nonzero(tracked["marks"] & np.uint64(Mark.TAP_REPEAT))
