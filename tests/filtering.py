"""Random filters and random packets, for the tests of the filter language.

Values are drawn from what packets carry, so that comparisons come out both ways; frames are
also cut, too short, of other transports, and of captures of `any`.
"""

import struct
from typing import Any, Final

from blocks import pcap_header
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import memory_file
from scenario import build_frame

from vsockdump import wire
from vsockdump.address import Endpoint
from vsockdump.apps.dialogues import DialogueOptions, Dialogues
from vsockdump.batch import Batch
from vsockdump.capture.reader import FileReader
from vsockdump.filters.sources import CIDS, FLAGS, KNOWN, SEARCHED, SOURCES, findings
from vsockdump.filters.tree import (
    Binary,
    Compare,
    Ends,
    Finding,
    Flag,
    Length,
    Load,
    Negative,
    Node,
    Number,
    Place,
    Relation,
    Search,
    Sign,
    both,
    clipped,
    either,
    negated,
    ranges,
)
from vsockdump.track.tracker import Tracker

CIDS_SEEN: Final = (0, 1, 2, 3, 4, 256, 0xFFFFFFFF, 0x100000003, 2**64 - 1)
PORTS_SEEN: Final = (0, 1, 5, 255, 256, 1024, 5000, 0x01020304, 0xFFFFFFFF)
NUMBERS_SEEN: Final = (0, 1, 2, 3, 4, 5, 7, 44, 76, 255, 256, 4096, 65535, 2**32 - 1)

# --- packets ---------------------------------------------------------------------------------

_cids = st.sampled_from(CIDS_SEEN)
_ports = st.sampled_from(PORTS_SEEN)
_words = st.sampled_from(NUMBERS_SEEN) | st.integers(0, 2**32 - 1)
_halves = st.integers(0, 8) | st.sampled_from((44, 45, 255, 256, 0x2C00, 65535))


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A vsockmon frame: mostly whole, sometimes anything else."""
    monitor = struct.pack(
        "<QQIIHHHH",
        draw(_cids),
        draw(_cids),
        draw(_ports),
        draw(_ports),
        draw(_halves),
        draw(st.sampled_from((2, 2, 2, 2, 1, 0, 512))),
        draw(st.sampled_from((44, 44, 44, 44, 45, 48, 43, 0, 300)) | _halves),
        draw(st.sampled_from((0, 0, 0, 1))),
    )
    virtio = struct.pack(
        "<QQIIIHHIII",
        draw(_cids),
        draw(_cids),
        draw(_ports),
        draw(_ports),
        draw(_words),
        draw(st.integers(0, 4)),
        draw(st.integers(0, 8)),
        draw(_words),
        draw(_words),
        draw(_words),
    )
    payload = draw(
        st.sampled_from((b"", b"GET / HTTP/1.1\r\n", b"\x00\x01\xff")) | st.binary(max_size=20)
    )
    frame = monitor + virtio + payload
    if draw(st.integers(0, 4)) == 0:
        frame = frame[: draw(st.integers(0, len(frame)))]
    return frame


def cut_frames() -> st.SearchStrategy[tuple[bytes, int]]:
    """(captured bytes, length on the wire)."""
    return st.builds(
        lambda frame, kept, more: (frame[:kept], len(frame) + more),
        frames(),
        st.one_of(st.just(1000), st.integers(0, 120)),
        st.sampled_from((0, 0, 0, 7)),
    )


def fixed_frames() -> list[bytes]:
    """Frames of all kinds that differ, the same in every run; none is empty."""
    other = Endpoint(2, 1024), Endpoint(3, 7)
    found = [
        build_frame(Endpoint(3, 5), Endpoint(2, 5000), wire.Op.RW, b"x"),
        build_frame(*other, wire.Op.RW, b"y", virtio={"type": 2, "flags": 1}),
        build_frame(*other, wire.Op.SHUTDOWN, virtio={"flags": 2}),
    ]

    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(frames())
    def collect(frame: bytes) -> None:
        if frame and frame not in found:
            found.append(frame)

    collect()
    return found


def batch_of(
    packets: list[bytes], linktype: int = wire.LINKTYPE_VSOCK, lengths: list[int] | None = None
) -> Batch:
    """A tracked batch of a capture of these packets."""
    content = pcap_header(linktype=linktype)
    for index, packet in enumerate(packets):
        wirelen = lengths[index] if lengths else len(packet)
        content += struct.pack("<IIII", index, 0, len(packet), wirelen) + packet
    with memory_file(content) as path:
        reader = FileReader(path)
        batches = [_looked_at(batch).copy() for batch in reader.batches()]
        reader.close()
    (batch,) = batches
    return batch


def _looked_at(batch: Batch) -> Batch:
    """The batch with all that a filter can ask for."""
    Dialogues(DialogueOptions({}), 1000).add(Tracker().track(batch))
    return batch


def cooked(frame: bytes, arphrd: int = wire.ARPHRD_VSOCKMON) -> bytes:
    """The frame as a capture of `any` has it."""
    return struct.pack(">HHIHBB8s", 0, 0, 7, arphrd, 4, 0, bytes(8)) + frame


# --- filters ---------------------------------------------------------------------------------


def _ranges(low: int, high: int, seen: tuple[int, ...]) -> st.SearchStrategy[Any]:
    known = [value for value in seen if low <= value <= high] or [low]
    one = st.sampled_from(known) | st.integers(low, high)
    pair = st.tuples(one, st.just(None) | one).map(
        lambda ends: (ends[0], ends[0]) if ends[1] is None else tuple(sorted(ends))
    )
    return st.lists(pair, min_size=1, max_size=6).map(ranges)


def _limits(name: str) -> tuple[int, int]:
    # No filter asks for a time before 1970.
    return max(SOURCES[name].low, 0), SOURCES[name].high


def _seen(name: str) -> tuple[int, ...]:
    if name.endswith("cid"):
        return CIDS_SEEN
    return PORTS_SEEN if name.endswith("port") else NUMBERS_SEEN


_NAMES: Final = [name for name in SOURCES if "." in name]
_IN_HEADERS: Final = [name for name in _NAMES if SOURCES[name].header is not None]


@st.composite
def compares(draw: st.DrawFn, names: list[str]) -> Node:
    """A comparison of a field."""
    name = draw(st.sampled_from(names))
    low, high = _limits(name)
    if SOURCES[name].decimals or draw(st.booleans()):
        return Compare(name, draw(_ranges(low, high, _seen(name))))
    mask = draw(st.sampled_from((1, 3, 0xFF, 0x100, 0xFF00)) | st.integers(1, high))
    mask = min(mask, high)
    values = draw(_ranges(0, mask, NUMBERS_SEEN))
    return Compare(name, values, mask)


def _wheres() -> st.SearchStrategy[str]:
    return st.sampled_from(("either", "src", "dst", "both"))


_cid_ranges = st.sampled_from(list(CIDS.values())) | _ranges(0, 2**64 - 1, CIDS_SEEN)
_port_ranges = _ranges(0, 2**32 - 1, PORTS_SEEN)
ends: Final = st.builds(Ends, st.just("cid"), _cid_ranges, _wheres()) | st.builds(
    Ends, st.just("port"), _port_ranges, _wheres()
)
places: Final = st.builds(
    Place,
    st.sampled_from(list(CIDS.values())) | _cids.map(lambda cid: ((cid, cid),)),
    _ports.map(lambda port: ((port, port),)),
    _wheres(),
)
flags: Final = st.sampled_from(sorted(FLAGS)).map(Flag)

_OPERATORS: Final = ("+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>")
_plain_values = st.one_of(
    st.builds(Number, st.sampled_from((0, 1, 2, 8, 31, 32, 33)) | st.sampled_from(NUMBERS_SEEN)),
    st.just(Length()),
)


def _loads(index: Any) -> Any:
    return st.builds(Load, index, st.sampled_from((1, 2, 4)))


_fixed_loads = _loads(st.builds(Number, st.integers(0, 100) | st.just(2**32 - 1)))


def _arithmetic(inner: Any) -> Any:
    return st.one_of(
        st.builds(Negative, inner),
        st.builds(Binary, st.sampled_from(_OPERATORS), inner, inner).filter(
            lambda value: not (value.operator in "/%" and value.right == Number(0))
        ),
    )


values: Final = st.recursive(
    _plain_values | _fixed_loads,
    lambda inner: _arithmetic(inner) | _loads(inner),
    max_leaves=5,
)
relations: Final = st.builds(
    Relation, st.sampled_from(("==", "!=", "<", "<=", ">", ">=")), values, values
)
searches: Final = st.builds(
    Search,
    st.sampled_from(sorted(SEARCHED)),
    st.sampled_from((b"G", b"GET /", b"\x00", b'"\\\n', b"\xff\x01")),
) | st.builds(
    Search,
    st.sampled_from(sorted(SEARCHED)),
    st.sampled_from((rb"^get", rb"[A-Z]+ \/", rb"\xff", rb"(a|b)*$", rb"\/\\")),
    st.just(True),
    st.booleans(),
)

in_headers: Final = st.one_of(ends, places, flags, compares(_IN_HEADERS), compares(["frame.len"]))
anywhere: Final = st.one_of(
    in_headers,
    compares(_NAMES),
    relations,
    searches,
    st.sampled_from(sorted(findings())).map(Finding),
    st.sampled_from(("midstream", "stalled")).map(Sign),
)


def trees(leaves: st.SearchStrategy[Node], most: int = 8) -> st.SearchStrategy[Node]:
    """Filters of these leaves."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, min_size=2, max_size=4).map(both),
            st.lists(inner, min_size=2, max_size=4).map(either),
            inner.map(negated),
        ),
        max_leaves=most,
    )


ANY_FILTER: Final = trees(anywhere)
KERNEL_FILTER: Final = trees(in_headers | relations)
assert KNOWN not in _NAMES
assert clipped(ranges([(0, 2)]), 1, 9) == ((1, 2),)
