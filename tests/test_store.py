"""Tests of the store: how it grows, what it forgets at the cap, and how it is found."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenario import Packet, build_frame
from simulator import random_traffic
from tracking import TRACKER, Tracking, batches_of, packets_of, track, track_packets, uncompiled

from vsockdump.address import Endpoint
from vsockdump.batch import NO_TIME, Batch, Rows
from vsockdump.track.states import State
from vsockdump.track.store import CONNECTION_DTYPE, FLOW_DTYPE, Store
from vsockdump.wire import Op, SocketType

BUILDS: Final = (TRACKER, uncompiled("tracker"))

# --- the store alone -------------------------------------------------------------------


def filled(states: Sequence[State], cap: int = 16) -> Store:
    """A store with a connection in each of these states, packets in the same order."""
    store = Store(cap)
    for slot, state in enumerate(states):
        store.connections[slot]["number"] = 100 + slot
        store.connections[slot]["state"] = state
        store.connections[slot]["last_packet"] = slot
        store.flows["packets"][2 * slot : 2 * slot + 2] = 1, 2
        store.flows["bytes"][2 * slot : 2 * slot + 2] = 10, 20
    store.used = len(states)
    return store


def numbers(store: Store) -> list[int]:
    """The numbers of the connections in the store, in slot order."""
    found: list[int] = store.connections["number"][: store.used].tolist()
    return found


def test_the_hot_part_of_a_row_is_in_front() -> None:
    """What every packet touches fits 64 bytes of a connection and 88 of a flow."""
    for dtype, size, name in ((CONNECTION_DTYPE, 64, "initiator_cid"), (FLOW_DTYPE, 88, "base")):
        assert dtype.fields is not None
        assert size == dtype.fields[name][1]


def test_a_store_grows_up_to_its_cap() -> None:
    """Twice as large each time, with what it held, and fresh flows behind that."""
    store = Store(5000)
    store.connections["number"] = np.arange(1, 1025)
    store.flows["tx"] = 7
    store.used = 1024
    for size in (2048, 4096, 5000):
        assert store.make_room() is None
        assert (size, 2 * size) == (len(store.connections), len(store.flows))
    assert list(range(1, 1025)) == numbers(store)
    assert [7, 0] == store.flows["tx"][2047:2049].tolist()
    assert {NO_TIME} == set(store.flows["stalled_since"][2048:].tolist())
    assert {0xFFFFFFFF} == set(store.flows["min_free"][2048:].tolist())


def test_the_ended_and_oldest_are_forgotten_first() -> None:
    """An eighth at once; living connections only when nothing else is left."""
    states = [State.OPEN] * 8 + [State.CLOSED] + [State.OPEN] * 6 + [State.REFUSED]
    store = filled(states)
    moved = store.make_room()
    assert moved is not None
    assert [*range(100, 108), *range(109, 115)] == numbers(store)
    assert [*range(8), -1, *range(8, 14), -1] == moved.tolist()
    store.used = 16
    store.connections["state"][14:] = State.CONNECTING
    store.connections["number"][14:] = 116, 117
    store.connections["last_packet"][14:] = 90, 91
    store.connections["last_packet"][0] = 99
    store.make_room()
    assert [100, *range(103, 108), *range(109, 115), 116, 117] == numbers(store)


@pytest.mark.parametrize("state", [State.OPEN, State.CONNECTING, State.CLOSING, State.DATAGRAM])
def test_what_has_not_ended_outlives_what_has(state: State) -> None:
    """However long it has been silent."""
    ended = [State.CLOSED, State.RESET, State.REFUSED, State.TIMED_OUT, State.REPLACED]
    store = filled([state] * 11 + ended)
    store.make_room()
    store.used = 14
    store.make_room()
    assert [*range(100, 111)] == numbers(store)[:11]


def test_what_was_forgotten_is_counted() -> None:
    """Connections, and the packets and bytes of both directions."""
    store = filled([State.CLOSED] * 16)
    store.make_room()
    assert (2, 6, 60) == (store.forgotten, store.forgotten_packets, store.forgotten_bytes)


def test_flows_of_free_slots_are_fresh() -> None:
    """Nothing of the forgotten is left for who comes next."""
    store = filled([State.CLOSED] * 16)
    store.flows["stalled_since"] = 5
    store.make_room()
    assert 14 == store.used
    assert [1, 2] * 14 + [0] * 4 == store.flows["packets"].tolist()
    assert [5] * 28 + [NO_TIME] * 4 == store.flows["stalled_since"].tolist()


def test_the_smallest_store() -> None:
    """A cap that is too small to forget an eighth is raised."""
    assert 8 == Store(0).cap == len(Store(1).connections)


# --- with the tracker ------------------------------------------------------------------


def repeated(scenario: str, count: int) -> Batch:
    """The packets of a scenario `count` times, each time from another port."""
    (one,) = (batch.copy() for batch in batches_of(packets_of(scenario)))
    rows = np.tile(one.rows, count)
    rows["number"] = np.arange(1, len(rows) + 1)
    ports = 100_000 + np.arange(count).repeat(len(one))
    for header in ("mon", "virtio"):
        for name in ("src_port", "dst_port"):
            guest = rows[header][name] == 1024
            rows[header][name] = np.where(guest, ports, rows[header][name])
    return Batch(rows, one.buffer, one.layout)


REFUSED: Final = "0 3:1024 > host:7 REQUEST\n0 3:1024 < host:7 RST nosock\n"
ECHO: Final = """
    0 3:1024 > host:7 REQUEST
    0 3:1024 < host:7 RESPONSE
    0 3:1024 > host:7 RW 5
    0 3:1024 < host:7 RW 7
"""


def test_connections_without_end_are_all_kept() -> None:
    """Growth moves rows, and the connections are still found."""
    batch = repeated("0 3:1024 > host:7 REQUEST", 5000)
    answers = repeated("0 3:1024 < host:7 RESPONSE", 5000)
    tracking = track([batch, answers])
    assert [*range(1, 5001)] * 2 == tracking.tracked["conn"].tolist()
    assert 5000 == tracking.store.used == tracking.tracker.connections
    assert {State.OPEN} == set(tracking.connections["state"].tolist())
    assert 0 == tracking.store.forgotten


@pytest.mark.parametrize("module", BUILDS)
def test_the_living_are_found_after_others_were_forgotten(module: ModuleType) -> None:
    """Rows move when some are forgotten; numbers stay, and so do counters."""
    living = repeated(ECHO, 50)
    later = repeated("0 3:1024 > host:7 RW 1", 50)
    dead = repeated(REFUSED.replace("3:", "4:"), 1000)
    tracking = track([living, dead, later], module, cap=100)
    tail = tracking.tracked[-50:]
    assert [*range(1, 51)] == tail["conn"].tolist()
    assert {6} == set(tail["tx_cnt"].tolist())
    assert 100 == len(tracking.store.connections)
    assert 1050 == tracking.tracker.connections
    assert [(6, 7)] * 50 == [tracking.bytes(number) for number in range(1, 51)]


def test_a_forgotten_connection_that_goes_on_is_a_new_one() -> None:
    """Its number is the next, its beginning unknown."""
    living = repeated(ECHO, 200)
    later = repeated("0 3:1024 > host:7 RW 1 fwd=7", 1)
    tracking = track([living, later], cap=100)
    assert 201 == tracking.tracked["conn"][-1]
    assert 1 == tracking.connection(201)["midstream"]


def test_a_slot_that_is_used_again_is_clean() -> None:
    """Nothing of the connection that was forgotten is in the one that took its place."""
    marked = "0 3:1024 > host:7 RW 5 fwd=9\n0 3:1024 > host:7 SHUTDOWN\n0 3:1024 > host:7 RST\n"
    fresh = repeated("0 4:1024 > host:7 REQUEST", 100)
    tracking = track([repeated(marked, 8), fresh], cap=8)
    kept = tracking.connections
    assert [State.CONNECTING] * len(kept) == kept["state"].tolist()
    for name, value in (("marks", 0), ("midstream", 0), ("ended", 0), ("ended_ns", NO_TIME)):
        assert [value] * len(kept) == kept[name].tolist()
    assert [2] * len(kept) == kept["closer"].tolist()


def test_memory_is_bounded() -> None:
    """A capture with far more connections than the cap needs no more rows than it."""
    tracker = TRACKER.Tracker(1000)
    for _ in range(5):
        track([repeated(REFUSED, 10_000)], tracker=tracker)
        assert 1000 == len(tracker.store.connections) >= tracker.store.used
        assert 2000 == len(tracker.store.flows)
    assert 50_000 == tracker.connections
    assert 100_000 == all_packets(tracker)


def all_packets(tracker: Any) -> int:
    """Packets of the connections in the store and of the forgotten ones."""
    store = tracker.store
    kept = store.flows["packets"][: 2 * store.used].sum()
    return int(kept) + int(store.forgotten_packets)


@given(st.integers(0, 2**32), st.integers(8, 40), st.sampled_from((1, 7, 8192)))
@settings(deadline=None, max_examples=40)
def test_nothing_gets_lost_at_the_cap(seed: int, cap: int, rows: int) -> None:
    """Packets and bytes of the kept and of the forgotten add up to those of the capture."""
    traffic = random_traffic(seed, connections=60, actions=400)
    tracking = track(batches_of(traffic.seen, rows), cap=cap)
    store = tracking.store
    assert len(traffic.seen) == all_packets(tracking.tracker)
    kept = int(tracking.flows["bytes"].sum())
    assert sum(seen.truth.length for seen in traffic.seen) == kept + store.forgotten_bytes
    assert store.used + store.forgotten == tracking.tracker.connections
    assert tracking.tracked["conn"].max() == tracking.tracker.connections
    assert store.used == len(set(tracking.connections["number"].tolist()))


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_both_builds_forget_the_same(seed: int) -> None:
    """At the cap as everywhere else."""
    seen = random_traffic(seed, connections=40).seen
    one, other = (track(batches_of(seen), module, cap=8) for module in BUILDS)
    assert np.array_equal(one.tracked, other.tracked)
    assert np.array_equal(one.connections, other.connections)
    assert np.array_equal(one.flows, other.flows)


# --- the hash table --------------------------------------------------------------------


def requests(ends: Sequence[tuple[Endpoint, Endpoint]]) -> list[Packet]:
    """A REQUEST for each pair of ends."""
    frames = [build_frame(src, dst, Op.REQUEST) for src, dst in ends]
    return [Packet(0, frame, len(frame)) for frame in frames]


def check_all_are_found(ends: Sequence[tuple[Endpoint, Endpoint]]) -> None:
    """Every pair is a connection of its own, and its answers find it."""
    asked = requests(ends)
    frames = [build_frame(dst, src, Op.RW, b"x") for src, dst in ends]
    tracking = track_packets(asked + [Packet(0, frame, len(frame)) for frame in frames])
    assert [*range(1, len(ends) + 1)] * 2 == tracking.tracked["conn"].tolist()
    assert [1] * len(ends) == tracking.tracked["side"][len(ends) :].tolist()


def test_keys_that_differ_in_one_bit() -> None:
    """Of either CID or either port."""
    cid, port = 0x0123456789ABCDEF, 0x89ABCDEF
    ends = [(Endpoint(cid, port), Endpoint(2, 5000))]
    ends += [(Endpoint(cid ^ 1 << bit, port), Endpoint(2, 5000)) for bit in range(64)]
    ends += [(Endpoint(cid, port ^ 1 << bit), Endpoint(2, 5000)) for bit in range(32)]
    ends += [(Endpoint(cid, port), Endpoint(2 ^ 1 << bit, 5000)) for bit in range(2, 64)]
    ends += [(Endpoint(cid, port), Endpoint(2, 5000 ^ 1 << bit)) for bit in range(32)]
    check_all_are_found(ends)


def test_keys_of_the_same_numbers() -> None:
    """Ports and CIDs that are exchanged, add up or cancel out."""
    values = (2, 3, 5, 6, 1 << 20, (1 << 20) + 3, 0xFFFFFFFF)
    ends = [
        (Endpoint(cid, port), Endpoint(peer, peer_port))
        for cid in values
        for peer in values
        for port in values
        for peer_port in values
        if (cid, port) < (peer, peer_port)
    ]
    check_all_are_found(ends)


def test_keys_in_rows() -> None:
    """Ports that count up, as Linux gives them, on both ends."""
    ends = [
        (Endpoint(3, 0xFFFFFFF0 + port & 0xFFFFFFFF), Endpoint(2, peer << 8))
        for port in range(40)
        for peer in range(40)
    ]
    check_all_are_found(ends)


def test_keys_that_all_collide() -> None:
    """With a hash that is the same for all of them the table is slow and right."""
    tracker = uncompiled("tracker").Tracker(64)
    for name in ("k_low", "k_high", "k_ports", "k_place"):
        setattr(tracker._core, name, 0)
    living, dead = repeated(ECHO, 30), repeated(REFUSED.replace("3:", "4:"), 100)
    later = repeated("0 3:1024 > host:7 RW 1", 30)
    tracking = track([living, dead, later], tracker=tracker)
    assert [*range(1, 31)] == tracking.tracked["conn"][-30:].tolist()
    assert 130 == tracker.connections


def places(rows: Rows) -> Tracking:
    """Track rows of the same addresses at other places of capture."""
    (batch,) = (one.copy() for one in batches_of(requests([(Endpoint(3, 1), Endpoint(2, 2))])))
    rows_of = np.repeat(batch.rows, len(rows))
    for name in ("interface", "ifindex"):
        rows_of[name] = rows[name]
    rows_of["virtio"]["type"] = rows["type"]
    again = rows_of.copy()
    again["virtio"]["op"] = Op.CREDIT_UPDATE
    source = [Batch(one, batch.buffer, batch.layout) for one in (rows_of, again)]
    return track(source, taps=range(16))


def test_keys_that_differ_in_their_place() -> None:
    """The tap and the interface index belong to the key, with all their bits."""
    kinds = (int(SocketType.STREAM), int(SocketType.DGRAM))
    indices = [0, *(1 << bit for bit in range(32))]
    keys = [(tap, index, kind) for tap in range(16) for index in indices for kind in kinds]
    rows = np.array(keys, [("interface", "u4"), ("ifindex", "u4"), ("type", "u2")])
    tracking = places(rows)
    assert [*range(1, len(keys) + 1)] * 2 == tracking.tracked["conn"].tolist()
