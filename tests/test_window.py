"""Tests of the credit windows over time: slots, their merging, and their bounds."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator import random_traffic
from tracking import WINDOW, batches_of, packets_of, track_packets, uncompiled

from vsockdump.batch import NO_TIME, PACKET_DTYPE, TRACKED_DTYPE, Known
from vsockdump.track.tracker import Tracker
from vsockdump.wire import Op

BUILDS: Final = (WINDOW, uncompiled("window"))
SLOT_NS: Final = 1 << WINDOW.FIRST_SHIFT
NEVER: Final = 0xFFFFFFFF


class Sample(NamedTuple):
    """A packet that says something of a window."""

    time_ns: int
    free: int = 0
    in_flight: int = 0
    conn: int = 1
    side: int = 0
    known: int = int(Known.FREE | Known.GRANTED)
    op: int = int(Op.RW)
    granted: int = 0
    buffer: int = 0


class Window(NamedTuple):
    """What was kept of a flow."""

    start_ns: int
    slot_ns: int
    buffer: list[int]
    in_flight: list[int]
    free: list[int]


def add(windows: Any, samples: Iterable[Sample]) -> Any:
    """Put samples into windows as one batch."""
    given_samples = list(samples)
    rows = np.zeros(len(given_samples), PACKET_DTYPE)
    tracked = np.zeros(len(given_samples), TRACKED_DTYPE)
    for row, out, sample in zip(rows, tracked, given_samples, strict=True):
        row["time_ns"] = sample.time_ns
        row["virtio"]["op"] = sample.op
        row["virtio"]["buf_alloc"] = sample.buffer
        for name in ("conn", "side", "known", "free", "granted", "in_flight"):
            out[name] = getattr(sample, name)
    windows.add(rows, tracked, max((sample.conn for sample in given_samples), default=0))
    return windows


def of(windows: Any, flow: int = 0) -> Window | None:
    """What was kept of a flow, as numbers."""
    kept = windows.of(flow)
    if kept is None:
        return None
    return Window(kept[0], kept[1], *(column.tolist() for column in kept[2:]))


def window(*samples: Sample, flow: int = 0) -> Window:
    """The window that these samples make, the same in both builds."""
    one, other = (of(add(module.CreditWindows(), samples), flow) for module in BUILDS)
    assert one == other
    assert one is not None
    return one


def slots(found: list[int], empty: int) -> dict[int, int]:
    """The slots in which something was seen."""
    return {slot: value for slot, value in enumerate(found) if value != empty}


# --- slots -----------------------------------------------------------------------------


def test_the_least_and_the_most_of_a_slot() -> None:
    """A slot keeps the least free credit and the most bytes in flight."""
    found = window(Sample(100, 7, 30), Sample(101, 5, 10), Sample(102, 9, 20))
    assert (100, SLOT_NS) == found[:2]
    assert {0: 5} == slots(found.free, NEVER)
    assert {0: 30} == slots(found.in_flight, 0)


def test_slots_are_of_equal_length() -> None:
    """They are counted from the first sample; the last one is the sixteenth."""
    times = [100, 99 + SLOT_NS, 100 + SLOT_NS, 100 + 15 * SLOT_NS, 99 + 16 * SLOT_NS]
    found = window(*(Sample(time, 10 * (index + 1)) for index, time in enumerate(times)))
    assert SLOT_NS == found.slot_ns
    assert {0: 10, 1: 30, 15: 40} == slots(found.free, NEVER)


def test_neighbours_are_merged() -> None:
    """One sample behind the last slot makes all of them twice as long."""
    samples = [Sample(slot * SLOT_NS, 50 - slot, 1 + slot) for slot in range(17)]
    found = window(*samples)
    assert 2 * SLOT_NS == found.slot_ns
    assert {**{slot: 49 - 2 * slot for slot in range(8)}, 8: 34} == slots(found.free, NEVER)
    assert {**{slot: 2 + 2 * slot for slot in range(8)}, 8: 17} == slots(found.in_flight, 0)


def test_a_long_silence_merges_often() -> None:
    """Until the time of the sample is in the second half."""
    found = window(Sample(0, 3, 4), Sample(SLOT_NS * 1000, 5, 6))
    assert 64 * SLOT_NS == found.slot_ns
    assert {0: 3, 15: 5} == slots(found.free, NEVER)
    assert {0: 4, 15: 6} == slots(found.in_flight, 0)


def test_time_that_goes_back_counts_as_the_first_slot() -> None:
    """What happened before the begin is not thrown away."""
    found = window(Sample(SLOT_NS, 7), Sample(2 * SLOT_NS, 6), Sample(0, 5))
    assert {0: 5, 1: 6} == slots(found.free, NEVER)


def test_times_as_far_apart_as_can_be() -> None:
    """A damaged file may have any time; the slots hold them all."""
    found = window(Sample(1 - 2**63, 7), Sample(0, 6), Sample(2**63 - 1, 5))
    assert {0: 7, 7: 6, 15: 5} == slots(found.free, NEVER)
    assert 1 << 60 == found.slot_ns


TIMES: Final = st.one_of(
    st.integers(0, 40 * SLOT_NS), st.integers(0, 10**13), st.integers(1 - 2**63, 2**63 - 1)
)


SAMPLES: Final = st.tuples(TIMES, st.integers(0, 99), st.integers(1, 99)).map(
    lambda values: Sample(*values)
)


@given(st.lists(SAMPLES, min_size=1))
def test_every_sample_is_in_its_slot(samples: list[Sample]) -> None:
    """The slots are what sorting the samples by hand gives, as short as possible."""
    found = window(*samples)
    start = samples[0].time_ns
    assert start == found.start_ns
    latest = max(sample.time_ns for sample in samples) - start
    shift = max(WINDOW.FIRST_SHIFT, latest.bit_length() - 4)
    assert 1 << shift == found.slot_ns
    free: dict[int, int] = {}
    flight: dict[int, int] = {}
    for sample in samples:
        slot = max(0, sample.time_ns - start) >> shift
        free[slot] = min(free.get(slot, NEVER), sample.free)
        flight[slot] = max(flight.get(slot, 0), sample.in_flight)
    assert free == slots(found.free, NEVER)
    assert flight == slots(found.in_flight, 0)


# --- what is a sample ------------------------------------------------------------------


def test_credit_that_is_given_belongs_to_the_peer() -> None:
    """A packet without data tells the window of its receiver, and the buffer it is of."""
    update = Sample(5, granted=40, side=1, op=int(Op.CREDIT_UPDATE), buffer=64)
    found = window(update)
    assert {0: 40} == slots(found.free, NEVER)
    assert {0: 64} == slots(found.buffer, 0)
    assert of(add(WINDOW.CreditWindows(), [update]), 1) is None


def test_a_merged_buffer_is_the_later_one() -> None:
    """Where both neighbours have one."""
    updates = [
        Sample(slot * SLOT_NS, side=1, op=int(Op.CREDIT_UPDATE), buffer=size)
        for slot, size in ((0, 100), (1, 200), (2, 300), (5, 500), (16, 600))
    ]
    assert {0: 200, 1: 300, 2: 500, 8: 600} == slots(window(*updates).buffer, 0)


@pytest.mark.parametrize(
    "nothing",
    [
        Sample(NO_TIME, 5),
        Sample(5, 5, conn=0),
        Sample(5, 5, known=int(Known.TX_CNT | Known.GRANTED)),
        Sample(5, 5, known=int(Known.FREE), op=int(Op.CREDIT_UPDATE)),
    ],
)
def test_what_is_not_known_is_no_sample(nothing: Sample) -> None:
    """No time, no connection, or no credit that is known."""
    for module in BUILDS:
        windows = add(module.CreditWindows(), [nothing])
        assert [None, None] == [of(windows, 0), of(windows, 1)]


def test_an_empty_batch_is_nothing() -> None:
    """Sources give batches without packets."""
    assert of(add(WINDOW.CreditWindows(), [])) is None


# --- bounds ----------------------------------------------------------------------------


@pytest.mark.parametrize("module", BUILDS)
def test_the_first_connections_are_kept(module: Any) -> None:
    """Those above the limit leave no trace."""
    last = WINDOW.CONNECTIONS
    windows = module.CreditWindows()
    for conn in (1, 300, last, last + 1, 2**62, last, 1):
        add(windows, [Sample(1, conn & 0xFFFF, conn=conn, side=1)])
    kept = {conn: of(windows, 2 * conn - 1) for conn in (1, 2, 300, last, last + 1)}
    assert [1, 300, last] == [conn for conn, one in kept.items() if one is not None]
    assert kept[300] is not None
    assert 300 == kept[300].free[0]


def test_memory_is_bounded() -> None:
    """However many connections there are; what a compiled object holds cannot be looked at."""
    windows = uncompiled("window").CreditWindows()
    for conn in (1, 300, WINDOW.CONNECTIONS, WINDOW.CONNECTIONS + 1, 2**62):
        add(windows, [Sample(1, conn=conn)])
    assert [2 * WINDOW.CONNECTIONS] * 5 == [len(array) for array in windows.arrays]


def test_growth_keeps_what_there_is() -> None:
    """Slots, lengths and begins of those that came before."""
    windows = add(WINDOW.CreditWindows(), [Sample(5, 6, 7), Sample(100 * SLOT_NS, 8, 9)])
    before = of(windows)
    add(windows, [Sample(1, 2, 3, conn=5000)])
    assert before == of(windows)


# --- with the tracker ------------------------------------------------------------------


def test_the_window_of_a_connection() -> None:
    """From packets to slots: a window used up, and given back later."""
    scenario = """
        0.000  3:1 > host:2 REQUEST
        +1ms   3:1 < host:2 RESPONSE buf=1000
        +1ms   3:1 > host:2 RW 600
        +1ms   3:1 > host:2 RW 400
        +5ms   3:1 < host:2 CREDIT_UPDATE buf=1000 fwd=1000
    """
    windows, tracker = WINDOW.CreditWindows(), Tracker()
    for batch in batches_of(packets_of(scenario), rows=2):
        windows.add(batch.rows, tracker.track(batch).tracked, tracker.connections)
    found = of(windows)
    assert found is not None
    assert 1_000_000 == found.start_ns
    assert {0: 400, 1: 0, 6: 1000} == slots(found.free, NEVER)
    assert {0: 600, 1: 1000} == slots(found.in_flight, 0)
    assert {0: 1000, 6: 1000} == slots(found.buffer, 0)


@pytest.mark.parametrize("seed", range(5))
def test_both_builds_and_any_batches_agree(seed: int) -> None:
    """Random traffic gives the same windows."""
    tracking = track_packets(random_traffic(seed).seen)
    found = []
    for module, size in ((WINDOW, 10_000), (WINDOW, 7), (BUILDS[1], 13)):
        windows = module.CreditWindows()
        for start in range(0, len(tracking.rows), size):
            chosen = slice(start, start + size)
            windows.add(tracking.rows[chosen], tracking.tracked[chosen], tracking.store.used)
        found.append([of(windows, flow) for flow in range(2 * tracking.store.used)])
    assert found[0] == found[1] == found[2]
    assert any(found[0])
