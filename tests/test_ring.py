"""The scanner on blocks of a packet socket's ring, by both builds."""

import struct
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import FRAME, GUEST, HOST, SCANNERS
from scenario import build_frame

from vsockdump.batch import PACKET_DTYPE, Layers
from vsockdump.capture.scan import DAMAGED, FULL, NEED_MORE
from vsockdump.wire import Op

ETHERNET: Final = 1
HEADERS: Final = 96  # bytes of a frame before the packet, as the kernel lays them out


def ring_frame(
    packet: bytes,
    time: tuple[int, int] = (0, 0),
    wirelen: int = 0,
    arphrd: int = 826,
    last: bool = False,
) -> bytes:
    """A frame: struct tpacket3_hdr, struct sockaddr_ll, a gap, the packet, padding."""
    size = HEADERS + len(packet) + 15 & ~15
    head = struct.pack(
        "<IIIIIIHH20x",
        0 if last else size,
        *time,
        len(packet),
        wirelen or len(packet),
        1,
        HEADERS,
        HEADERS,
    )
    address = struct.pack("<HHiHBB8x", 17, 0, 2, arphrd, 4, 0)
    return (head + address).ljust(HEADERS, b"\0") + packet.ljust(size - HEADERS, b"\0")


def block(*packets: bytes, **settings: Any) -> bytes:
    """The frames of these packets behind each other."""
    last = len(packets) - 1
    return b"".join(
        ring_frame(packet, last=index == last, **settings) for index, packet in enumerate(packets)
    )


def scanned(
    build: str, content: bytes, left: int, rows: int = 10, row: int = 0, pos: int = 0
) -> tuple[Any, tuple[int, int, int, int]]:
    """The rows, and what the scan returned."""
    array = np.zeros(rows, PACKET_DTYPE)
    result = SCANNERS[build](array).ring(content, pos, len(content), left, 7, row)
    return array[: result[1]], result


def test_a_frame_becomes_a_row(build: str) -> None:
    """Its time, its lengths and its headers, the packet number counted on."""
    content = block(FRAME, FRAME[:60], time=(1_700_000_000, 123_456_789), wirelen=500)
    rows, (_pos, count, left, status) = scanned(build, content, 2)
    assert (2, 0, NEED_MORE) == (count, left, status)
    assert [7, 8] == rows["number"].tolist()
    assert {1_700_000_000_123_456_789} == set(rows["time_ns"].tolist())
    assert [len(FRAME), 60] == rows["caplen"].tolist()
    assert [500, 500] == rows["wirelen"].tolist()
    for row in rows:
        at = int(row["packet_at"])
        assert FRAME[: row["caplen"]] == content[at : at + row["caplen"]]
        assert (3, 1024) == (row["mon"]["src_cid"], row["mon"]["src_port"])
    assert [Layers.VIRTIO, Layers.MONITOR] == rows["layers"].tolist()


def test_other_devices_are_passed_over(build: str) -> None:
    """A frame of another hardware type is no row, and no row is left free for it."""
    frames = [ring_frame(FRAME), ring_frame(FRAME, arphrd=ETHERNET), ring_frame(FRAME, last=True)]
    rows, (_pos, count, left, status) = scanned(build, b"".join(frames), 3)
    assert (2, 0, NEED_MORE) == (count, left, status)
    assert [7, 8] == rows["number"].tolist()


def test_rows_may_fill_in_the_middle(build: str) -> None:
    """The scan goes on where it stopped, in the next batch."""
    content = block(*[FRAME] * 5)
    _rows, (pos, count, left, status) = scanned(build, content, 5, rows=3)
    assert (3, 2, FULL) == (count, left, status)
    rows, (_pos, count, left, status) = scanned(build, content, left, rows=3, pos=pos)
    assert (2, 0, NEED_MORE) == (count, left, status)
    assert [FRAME] * 2 == [content[at : at + len(FRAME)] for at in rows["packet_at"].tolist()]


def test_several_blocks_make_one_batch(build: str) -> None:
    """Rows are added behind those of the block before."""
    rows, (_pos, count, _left, _status) = scanned(build, block(FRAME, FRAME), 2, row=3)
    assert 5 == count
    assert [0, 0, 0, 10, 11] == rows["number"].tolist()


def test_a_block_of_exactly_the_rows_is_done(build: str) -> None:
    """A full batch whose block has ended does not leave the block to be asked again."""
    _rows, (_pos, count, left, status) = scanned(build, block(FRAME, FRAME), 2, rows=2)
    assert (2, 0, NEED_MORE) == (count, left, status)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 0),  # the next frame is this one
        (0, 2**32 - 1),  # or far away
        (12, 2**32 - 1),  # more captured than there is
        (12, 262145),
        (24, 0),  # the packet lies in the frame's own header
        (24, 0xFFFF),
    ],
)
def test_a_frame_that_cannot_be_is_damage(build: str, at: int, value: int) -> None:
    """No place outside the block is read."""
    content = bytearray(block(FRAME, FRAME))
    struct.pack_into("<H" if at == 24 else "<I", content, at, value)
    _rows, (pos, count, left, status) = scanned(build, bytes(content), 2)
    assert (0, 0, 2, DAMAGED) == (pos, count, left, status)


def test_bounds_are_checked(build: str) -> None:
    """Positions outside the buffer or the rows are a caller's mistake."""
    scanner = SCANNERS[build](np.zeros(2, PACKET_DTYPE))
    for pos, end, row in ((-1, 10, 0), (5, 4, 0), (0, 11, 0), (0, 10, 3), (0, 10, -1)):
        with pytest.raises(ValueError, match="out of bounds"):
            scanner.ring(bytes(10), pos, end, 1, 1, row)


RING: Final = block(FRAME, FRAME[:40], build_frame(GUEST, HOST, Op.REQUEST, b""), b"", FRAME)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(RING) - 1), st.integers(0, 255)), max_size=6),
    end=st.integers(0, len(RING)),
    left=st.integers(-1, 8),
    rows=st.integers(1, 6),
)
def test_both_builds_agree(changes: list[tuple[int, int]], end: int, left: int, rows: int) -> None:
    """On any damage, compiled and uncompiled code make the same of it."""
    content = bytearray(RING)
    for at, value in changes:
        content[at] = value
    results = []
    for build in SCANNERS:
        found, result = scanned(build, bytes(content[:end]), left, rows=rows)
        results.append((found.tolist(), result))
    assert results[0] == results[1]
