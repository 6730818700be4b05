"""Captures that are imperfect: healthy traffic in them is not accused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vsockdump.batch import PACKET_DTYPE, Batch, Layers, Layout
from vsockdump.track.copies import Copies
from vsockdump.wire import Op

CASES = Path(__file__).parent / "cases" / "imperfect"
ONE = np.zeros(1, "u4")


def printed(name: str, *statistics: str) -> str:
    """What the statistics say of a case."""
    wishes = [word for statistic in statistics for word in ("-z", statistic)]
    command = [sys.executable, "-m", "vsockdump", "-n", "-r", str(CASES / name), *wishes]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize(
    "name",
    ["same-monitor-two-snaplens.pcapng", "sections-other-order.pcapng", "two-swaps.pcap"],
)
def test_one_connection(name: str) -> None:
    """It has its beginning, its end and its bytes, and no error."""
    text = printed(name, "conv", "findings")
    assert text.startswith("1 connection;")
    assert "30265" in text
    assert "17558" in text
    assert "closed by initiator" in text
    assert "midstream" not in text
    assert "error vsock" not in text


def test_disorder_is_named() -> None:
    """With what puts the file in order."""
    assert "note vsock.capture.out_of_order" in printed("two-swaps.pcap", "findings")
    assert "reordercap" in printed("two-swaps.pcap", "findings")


def test_every_packet_twice() -> None:
    """One finding says so, and nothing else is found."""
    text = printed("every-packet-twice.pcap", "conv", "findings", "io,0")
    assert "547628" in text
    assert "note vsock.capture.copies" in text
    assert "(34 times)" in text
    assert "vsock.credit" not in text
    assert "warn " not in text


def test_drops_of_joined_files() -> None:
    """The same count, continued, is not added to itself."""
    assert "dropped 5 of 35 packets" in printed("cumulative-drops.pcapng", "findings")


def test_a_wild_clock() -> None:
    """The packet is named, the others are counted."""
    text = printed("gap1970.pcap", "io,1")
    assert text.startswith("3 intervals")
    assert "packet 1 first" in text
    for table in ("conv", "connects", "stalls"):
        assert "The clock of packet 1 is more than a year from" in printed("gap1970.pcap", table)
    assert "clock" not in printed("two-swaps.pcap", "conv")


def stream(times: list[int], ops: list[int], fwd: list[int] | None = None) -> Batch:
    """Packets without payload, equal but for what is given."""
    rows: Any = np.zeros(len(times), PACKET_DTYPE)
    rows["time_ns"], rows["virtio"]["op"] = times, ops
    rows["virtio"]["fwd_cnt"] = fwd or [0] * len(times)
    rows["layers"], rows["caplen"], rows["wirelen"] = int(Layers.VIRTIO), 76, 76
    return Batch(rows, memoryview(bytes(100)), Layout())


def copies(batch: Batch, taps: Any = ONE) -> list[int]:
    """The rows that are copies."""
    found = Copies().find(batch, taps)
    return [] if found is None else np.flatnonzero(found).tolist()


RW, REQUEST = int(Op.RW), int(Op.REQUEST)


@pytest.mark.parametrize("tick", [1, 1000])
def test_equal_packets_of_one_time_are_no_copies(tick: int) -> None:
    """Pieces of one write are alike, and a burst can have one time, to the nanosecond."""
    assert [] == copies(stream([tick, 5 * tick, 5 * tick, 9 * tick], [RW] * 4))


def test_a_request_twice_at_a_time_is_proof_for_its_connection() -> None:
    """Of what comes behind it, in whatever batches, and of no other connection."""
    times = [1000, 1000, 5000, 5000, 7000, 9000, 9000, 9500, 9500]
    batch = stream(times, [REQUEST] * 2 + [RW] * 7)
    batch.rows["virtio"]["src_port"][7:] = 9
    assert [1, 3, 6] == copies(batch)
    finder, found = Copies(), []
    for row in range(len(batch)):
        one = finder.find(batch.take(np.array([row])), ONE)
        found += [] if one is None or not one[0] else [row]
    assert [1, 3, 6] == found


def test_recordings_of_one_monitor() -> None:
    """Two interfaces of one tap have each packet once; of two taps they have two."""
    batch = stream([1000, 1000], [RW, RW])
    batch.rows["interface"] = [0, 1]
    assert [1] == copies(batch, taps=np.zeros(2, "u4"))
    assert [] == copies(batch, taps=np.arange(2, dtype="u4"))
