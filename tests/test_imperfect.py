"""Captures that are imperfect: healthy traffic in them is not accused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vsockdump
from vsockdump.batch import PACKET_DTYPE, Batch, Layers, Layout
from vsockdump.track.copies import Copies
from vsockdump.wire import Op

CASES = Path(__file__).parent / "cases" / "imperfect"
ONE = np.zeros(1, "u4")


def outcome(name: str) -> tuple[int, list[tuple[int, int]], dict[str, str]]:
    """Packets, the bytes of each connection, and the severity of each finding."""
    with vsockdump.open(str(CASES / name)) as capture:
        packets = sum(len(batch) for batch in capture.batches())
        found = {case.rule.name: case.severity.word for case in capture.findings}
        sizes = [(one.forth.bytes, one.back.bytes) for one in capture.connections]
    return packets, sizes, found


def stream(times: list[int], ops: list[int], fwd: list[int] | None = None) -> Batch:
    """Packets without payload, equal but for what is given."""
    rows: Any = np.zeros(len(times), PACKET_DTYPE)
    rows["time_ns"], rows["virtio"]["op"] = times, ops
    rows["virtio"]["fwd_cnt"] = fwd or [0] * len(times)
    rows["layers"], rows["caplen"], rows["wirelen"] = int(Layers.VIRTIO), 76, 76
    return Batch(rows, memoryview(bytes(100)), Layout())


def copies(batch: Batch, fine: bool = True, taps: Any = ONE) -> list[int]:
    """The rows that are copies."""
    found = Copies().find(batch, taps, np.full(len(taps), fine))
    return [] if found is None else np.flatnonzero(found).tolist()


RW, REQUEST = int(Op.RW), int(Op.REQUEST)


@pytest.mark.parametrize("last", [1, 1001])
def test_a_clock_of_nanoseconds_is_proof(last: int) -> None:
    """Equal packets of one nanosecond are one packet; of two they are two."""
    assert ([1] if last == 1 else []) == copies(stream([1, last], [RW, RW]))


def test_a_coarse_clock_is_none() -> None:
    """Two writes fall into one microsecond; neither is lost."""
    assert [] == copies(stream([1000, 5000, 5000, 9000], [RW] * 4))


def test_a_request_twice_in_a_microsecond_is_proof_for_what_follows() -> None:
    """Until a packet has no copy."""
    batch = stream([1000, 1000, 5000, 5000, 7000, 9000, 9000], [REQUEST] * 2 + [RW] * 5)
    assert [1, 3] == copies(batch)


def test_recordings_of_one_monitor() -> None:
    """Two interfaces of one tap have each packet once; of two taps they have two."""
    batch = stream([1000, 1000], [RW, RW])
    batch.rows["interface"] = [0, 1]
    assert [1] == copies(batch, taps=np.zeros(2, "u4"))
    assert [] == copies(batch, taps=np.arange(2, dtype="u4"))
