"""A text notation for packet sequences, and the one function that builds test frames.

One packet a line, read like a sequence chart:

    # TIME  LEFT   >|< RIGHT    OP        what differs from the defaults
    0.000   3:1024  >  host:5000 REQUEST   buf=65536
    +1ms    3:1024  <  host:5000 RESPONSE
    +20us   3:1024  >  host:5000 RW 100 "GET / HTTP/1.1\r\n" fwd=5
    +1s     3:1024  <  host:5000 RST nosock

TIME is in seconds unless ns, us, ms or s follows; with `+` it counts from the line before.
Ends are CID:PORT; a CID may be hypervisor, local, host, any or guest (3).  OP is a name or
a number.  Then in any order:

    100 "text"     payload: the text (Python escapes), filled up to 100 bytes by `pattern`;
                   either may be left out
    nosock         buf=0 fwd=0, as in an RST that no socket is behind
    buf= fwd= len= buf_alloc, fwd_cnt and len of the header, whatever the payload is
    type= flags=   a number or names: SEQPACKET; EOM|EOR, RCV|SEND
    virtio.F= mon.F=  any other field of the inner or the outer header
    seq=N          the payload starts at byte N of its stream
    wire=+500      the frame goes on with the 500 bytes behind the packet's own (a tap
                   repeat); wire=300+500 also puts the 300 before in front of them
    cap=96         snaplen: only 96 bytes were captured
    frame=20       the frame itself, on the wire, ends after 20 bytes

Defaults: type STREAM, buf_alloc 262144, fwd_cnt 0, flags 0 (SHUTDOWN: both), len the size
of the payload, outer fields as the kernel's tap writes them.  The n-th byte that goes from
one end to another is byte n of `pattern`, where no text says otherwise.

Rules for editors: the notation says what is on the wire and nothing of what it means; a
line that is not understood raises, it is never skipped.
"""

import re
import struct
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum
from hashlib import shake_128
from operator import itemgetter
from typing import Final, NamedTuple

from vsockdump.address import Endpoint
from vsockdump.wire import (
    CID_NAMES,
    OUTER_OP,
    VIRTIO,
    VSOCKMON,
    Header,
    MonitorOp,
    Op,
    Seqpacket,
    Shutdown,
    SocketType,
    Transport,
)

DEFAULT_BUF: Final = 262144  # Linux's default SO_VM_SOCKETS_BUFFER_SIZE
_GUEST: Final = 3
_NOTHING: Final[Mapping[str, int]] = {}

# --- bytes -----------------------------------------------------------------------------

# A prime, so that no packet size or buffer size divides it: a slip of any usual number of
# bytes gives other bytes.  Printable, so that a failing test can be read.
PERIOD: Final = 65521
_CYCLE: Final = b64encode(shake_128(b"vsockdump").digest(PERIOD))[:PERIOD]
_CYCLES: Final = _CYCLE * 3


def pattern(start: int, size: int) -> bytes:
    """Bytes `start` to `start + size` of the test stream, the same in every run."""
    at = start % PERIOD
    if at + size <= len(_CYCLES):
        return _CYCLES[at : at + size]
    return (_CYCLE * ((at + size) // PERIOD + 1))[at : at + size]


_CODES: Final = {2: "H", 4: "I", 8: "Q"}
_OUTER: Final[dict[int, int]] = {int(op): int(outer) for op, outer in OUTER_OP.items()}


def _struct_of(header: Header) -> struct.Struct:
    """The packer of a header, its fields in wire order."""
    return struct.Struct("<" + "".join(_CODES[field.size] for field in header.fields))


_MON_STRUCT: Final = _struct_of(VSOCKMON)
_MON_VALUES: Final = itemgetter(*(field.name for field in VSOCKMON.fields))
_VIRTIO_STRUCT: Final = _struct_of(VIRTIO)
_VIRTIO_VALUES: Final = itemgetter(*(field.name for field in VIRTIO.fields))


def build_frame(
    src: Endpoint,
    dst: Endpoint,
    op: int,
    payload: bytes = b"",
    *,
    virtio: Mapping[str, int] = _NOTHING,
    mon: Mapping[str, int] = _NOTHING,
) -> bytes:
    """A vsockmon frame as the kernel's tap writes it.

    `virtio` and `mon` replace single fields of the inner and the outer header and nothing
    else; struct.error where a number does not fit its field.
    """
    ends = {
        "src_cid": src.cid,
        "dst_cid": dst.cid,
        "src_port": src.port,
        "dst_port": dst.port,
    }
    outer = {
        **ends,
        "op": _OUTER.get(op, MonitorOp.UNKNOWN),
        "t": Transport.VIRTIO,
        "len": VIRTIO.size,
        "reserved": 0,
        **mon,
    }
    inner = {
        **ends,
        "len": len(payload),
        "type": SocketType.STREAM,
        "op": op,
        "flags": 0,
        "buf_alloc": DEFAULT_BUF,
        "fwd_cnt": 0,
        **virtio,
    }
    return (
        _MON_STRUCT.pack(*_MON_VALUES(outer))
        + _VIRTIO_STRUCT.pack(*_VIRTIO_VALUES(inner))
        + payload
    )


# --- the notation ----------------------------------------------------------------------


class ScenarioError(ValueError):
    """A line that is not in the notation; the message names it and says why."""


class Packet(NamedTuple):
    """One captured packet: `frame` is what was captured of `wirelen` bytes."""

    time_ns: int
    frame: bytes
    wirelen: int


@dataclass(slots=True)
class _Line:
    """What a line says, before the payload is made."""

    time_ns: int
    src: Endpoint
    dst: Endpoint
    op: int
    size: int | None = None
    text: bytes | None = None
    seq: int | None = None
    before: int = 0  # bytes of the tap's repeat in front of the packet's own
    after: int = 0
    cap: int | None = None
    frame: int | None = None
    virtio: dict[str, int] = field(default_factory=dict)
    mon: dict[str, int] = field(default_factory=dict)


_TOKEN: Final = re.compile(r'\s+|#.*|"(?:[^"\\]|\\.)*"(?!\S)|[^\s"#]\S*')
_TIME: Final = re.compile(r"(\+?)(\d+(?:\.\d+)?)(ns|us|ms|s|)")
_REPEAT: Final = re.compile(r"(\d*)\+(\d*)")
_UNITS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "": 10**9}
_CIDS: Final = {name: cid for cid, name in CID_NAMES.items()} | {"guest": _GUEST}
_FLAGS: Final[dict[str, int]] = {
    name: int(flag) for flags in (Shutdown, Seqpacket) for name, flag in flags.__members__.items()
}
_SHORT_NAMES: Final = {"buf": "buf_alloc", "fwd": "fwd_cnt", "len": "len"}
_HEADERS: Final = {header.name: header for header in (VSOCKMON, VIRTIO)}


def parse(text: str, base_ns: int = 0) -> list[Packet]:
    """The packets that `text` describes; ScenarioError names the line that is wrong.

    `base_ns` is what the times without `+` are counted from.
    """
    packets: list[Packet] = []
    streams: dict[tuple[Endpoint, Endpoint], int] = {}  # bytes that went from end to end
    now = base_ns
    for number, raw in enumerate(text.splitlines(), 1):
        try:
            tokens = _tokens(raw)
            if not tokens:
                continue
            line = _line(tokens, base_ns, now)
            packets.append(_packet(line, streams))
        except (ValueError, struct.error) as error:
            raise ScenarioError(f"line {number}: {raw.strip()!r}: {error}") from error
        now = line.time_ns
    return packets


def _tokens(raw: str) -> list[str]:
    """The words of a line; a quoted text is one word, comments are none."""
    tokens = []
    pos = 0
    while pos < len(raw):
        match = _TOKEN.match(raw, pos)
        if match is None:
            raise ValueError(f"the quoted text at column {pos + 1} has no proper end")
        pos = match.end()
        token = match.group()
        if not token.isspace() and not token.startswith("#"):
            tokens.append(token)
    return tokens


def _line(tokens: list[str], base_ns: int, now: int) -> _Line:
    """What the words of one line say."""
    if len(tokens) < 5:
        raise ValueError("a packet is TIME END > END OP ...")
    when, left, arrow, right, op = tokens[:5]
    if arrow not in ("<", ">"):
        raise ValueError(f"{arrow!r} stands where > or < is expected")
    ends = [_endpoint(left), _endpoint(right)]
    src, dst = ends if arrow == ">" else reversed(ends)
    line = _Line(_time(when, base_ns, now), src, dst, _number(op, Op))
    if line.op == Op.SHUTDOWN:
        line.virtio["flags"] = Shutdown.RCV | Shutdown.SEND
    for token in tokens[5:]:
        _apply(line, token)
    return line


def _time(token: str, base_ns: int, now: int) -> int:
    """A point in time in nanoseconds, exact."""
    match = _TIME.fullmatch(token)
    if match is None:
        raise ValueError(f"{token!r} is not a time such as 0.000, 1.5s or +3ms")
    plus, number, unit = match.groups()
    duration = Decimal(number) * _UNITS[unit]
    if duration != int(duration):
        raise ValueError(f"{token!r} is finer than a nanosecond")
    return (now if plus else base_ns) + int(duration)


def _endpoint(token: str) -> Endpoint:
    """CID:PORT, the CID as a number or a name."""
    cid, colon, port = token.rpartition(":")
    if not colon:
        raise ValueError(f"{token!r} is not CID:PORT")
    return Endpoint(_CIDS[cid] if cid in _CIDS else _integer(cid), _integer(port))


def _integer(token: str) -> int:
    """A number, decimal or 0x...; a negative one does not fit any field."""
    try:
        return int(token, 0)
    except ValueError:
        raise ValueError(f"{token!r} is not a number") from None


def _number(token: str, names: type[IntEnum]) -> int:
    """An enum value by its name or its number, known or not."""
    if token in names.__members__:
        return names[token].value
    if not token[:1].isdigit():
        raise ValueError(f"{token!r} is none of {', '.join(names.__members__)}")
    return _integer(token)


def _apply(line: _Line, token: str) -> None:
    """Note one of the words behind the op."""
    key, equals, value = token.partition("=")
    if token.startswith('"'):
        # unicode_escape reads bytes as Latin-1: back and forth keeps UTF-8 as it is.
        line.text = token[1:-1].encode().decode("unicode_escape").encode("latin-1")
    elif token.isdigit():
        line.size = int(token)
    elif token == "nosock":
        line.virtio.update(buf_alloc=0, fwd_cnt=0)
    elif equals and value:
        _assign(line, key, value)
    else:
        raise ValueError(f"{token!r} is not understood")


def _assign(line: _Line, key: str, value: str) -> None:
    """Note one key=value."""
    if key in _SHORT_NAMES:
        line.virtio[_SHORT_NAMES[key]] = _integer(value)
    elif key == "type":
        line.virtio["type"] = _number(value, SocketType)
    elif key == "flags":
        line.virtio["flags"] = _flags(value)
    elif key == "seq":
        line.seq = _integer(value)
    elif key == "cap":
        line.cap = _integer(value)
    elif key == "frame":
        line.frame = _integer(value)
    elif key == "wire":
        line.before, line.after = _repeat(value)
    else:
        _assign_field(line, key, value)


def _assign_field(line: _Line, key: str, value: str) -> None:
    """Note a header field by its full name: mon.op, virtio.src_cid."""
    header, _, name = key.partition(".")
    if header not in _HEADERS or name not in {f.name for f in _HEADERS[header].fields}:
        raise ValueError(f"there is no {key!r} to set")
    fields = line.mon if header == VSOCKMON.name else line.virtio
    fields[name] = _integer(value)


def _flags(value: str) -> int:
    """Flags as names joined by | or as a number."""
    flags = 0
    for name in value.split("|"):
        flags |= _FLAGS[name] if name in _FLAGS else _integer(name)
    return flags


def _repeat(value: str) -> tuple[int, int]:
    """The sizes in BEFORE+AFTER, each of which may be left out."""
    match = _REPEAT.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a repeat such as +500 or 300+500")
    before, after = match.groups()
    return int(before or 0), int(after or 0)


def _packet(line: _Line, streams: dict[tuple[Endpoint, Endpoint], int]) -> Packet:
    """The packet of a line; `streams` says where its bytes lie and is moved on."""
    flow = (line.src, line.dst)
    start = streams.get(flow, 0) if line.seq is None else line.seq
    own = _own_bytes(line, start)
    streams[flow] = start + len(own)
    payload = (
        pattern(start - line.before, line.before) + own + pattern(start + len(own), line.after)
    )
    virtio = {"len": len(own), **line.virtio}
    frame = build_frame(line.src, line.dst, line.op, payload, virtio=virtio, mon=line.mon)
    frame = frame[: line.frame]
    return Packet(line.time_ns, frame[: line.cap], len(frame))


def _own_bytes(line: _Line, start: int) -> bytes:
    """The packet's own payload: its text, filled up from the stream's pattern."""
    text = line.text or b""
    size = len(text) if line.size is None else line.size
    if size < len(text):
        raise ValueError(f"the text has {len(text)} bytes, more than {size}")
    return text + pattern(start + len(text), size - len(text))
