"""Protocols that are hardly more than framed messages: their table.

Rules for editors: a row is for protocols without a state of their own; where the next
unit's shape depends on what went before, write a module.  Named protocols stand before the
general ones at the end of the table, which are less sure of themselves.

Not a class a protocol: what differs is data and one or two small functions.
"""

from typing import Final

from vsockdump.apps import framed_headers as headers
from vsockdump.apps import framed_json as jsons
from vsockdump.apps import framing, texts
from vsockdump.apps.byte_stream import Body, ByteStream, ProtocolError
from vsockdump.apps.framed_parser import Framed, Pairs, Say, Saying, always, of_sides
from vsockdump.apps.framing import Framing, Unit, Units
from vsockdump.apps.message import Fields, Kind
from vsockdump.apps.protobuf import guess
from vsockdump.apps.protocol import (
    CERTAIN,
    LIKELY,
    OPENING,
    POSSIBLE,
    Context,
    Opening,
    Prior,
    Score,
)
from vsockdump.lazy import Lazy
from vsockdump.wire import CID_HYPERVISOR, CID_PARENT, SocketType

# --- text --------------------------------------------------------------------------------------


_LONG_LINE: Final = 1000  # bytes; what is longer was not written for people


def _text_looks(head: bytes) -> Score:
    is_lines = len(head) < _LONG_LINE or b"\n" in head or b"\r" in head
    return POSSIBLE if is_lines and texts.is_text(head) else 0


def _text(_pairs: Pairs, _side: int, unit: Unit) -> Saying:
    return Saying(
        texts.line_of(unit.body.data),
        {**texts.bytes_of(unit.body), "text": texts.text_of(unit.body.data)},
    )


_NOTIFY_NAMES: Final = (
    "READY RELOADING STOPPING STATUS MAINPID MAINPIDFDID ERRNO BUSERROR VARLINKERROR "
    "EXIT_STATUS WATCHDOG WATCHDOG_USEC EXTEND_TIMEOUT_USEC MONOTONIC_USEC FDSTORE "
    "FDSTOREREMOVE FDNAME BARRIER NOTIFYACCESS RESTART_RESET"
)
_NOTIFY_KNOWN: Final = (
    *(f"{name}=".encode() for name in _NOTIFY_NAMES.split()),
    b"X_SYSTEMD_",
)


def _notify_looks(head: bytes) -> Score:
    if head.startswith(_NOTIFY_KNOWN):
        return CERTAIN
    return None if any(known.startswith(head) for known in _NOTIFY_KNOWN) else 0


def _notify(_pairs: Pairs, _side: int, unit: Unit) -> Saying:
    """`KEY=VALUE` lines of sd_notify."""
    lines = texts.text_of(unit.body.data).split("\n")
    pairs = [line.partition("=")[::2] for line in lines if "=" in line]
    summary = texts.short(" ".join(f"{key}={value}" for key, value in pairs))
    return Saying(summary, {**dict(pairs), **texts.cut_of(unit.body)})


def _notify_framing(context: Context) -> Framing:
    """A datagram or message each; over STREAM, a connection each."""
    is_stream = context.opening.socket_type == SocketType.STREAM
    return framing.whole if is_stream else framing.record


def _text_recognise(opening: Opening) -> Score:
    """Text is possible where nothing speaks against it; a console's port makes it likely.

    The console of a Nitro enclave has a port of its own: 10000 and the enclave's context id.
    """
    acceptor = opening.ends[1]
    is_console = acceptor.cid == CID_HYPERVISOR and acceptor.port > 10_000
    score = of_sides(_text_looks, opening)
    return LIKELY if score and is_console else score


# --- bytes -------------------------------------------------------------------------------------

_BEAT: Final = b"\xb7"


def _beat_recognise(opening: Opening) -> Score:
    """A byte of one side may be a heartbeat; the same of both is hardly anything else."""
    if opening.data == (_BEAT, _BEAT):
        return LIKELY
    return POSSIBLE if opening.data == (_BEAT, b"") else 0


def _beat_unit(stream: ByteStream) -> Units:
    beat = yield from stream.exact(1)
    if beat != _BEAT:
        raise ProtocolError(f"a heartbeat of {beat!r}")
    return Unit((), Body(beat, 1))


def _beat(pairs: Pairs, side: int, unit: Unit) -> Saying:
    fields = texts.bytes_of(unit.body)
    if side == 0:
        return Saying("enclave is ready", fields, Kind.REQUEST, pairs.ask(side, "heartbeat"))
    return Saying("acknowledged", fields, Kind.RESPONSE, pairs.answer(side))


def _guessed(name: str) -> Say:
    """Messages of Protocol Buffers without a description."""

    def say(_pairs: Pairs, _side: int, unit: Unit) -> Saying:
        return Saying(f"{name}, {unit.body.size} bytes", _perhaps_protobuf(unit.body))

    return say


def _perhaps_protobuf(body: Body) -> Fields:
    """The fields of a message of Protocol Buffers, or the bytes where they are none."""
    return Lazy(lambda: guess(body))


# Just enough to be believed without a known port: what knows its content is surer.
_CHAINED: Final = 60
_LINKS: Final = 3  # units in a row that make a chain


def _chained_recognise(opening: Opening) -> Score:
    """Whether lengths chain: _LINKS units of both sides, and no bytes beyond a unit's end.

    Senders send whole messages, so that at some packet both sides are at an end; in bulk that
    chains by chance they are hardly ever.
    """
    links = 0
    waits = False
    for data in filter(None, opening.data):
        told = _links(data)
        if told is None:
            return 0
        links += abs(told)
        waits = waits or told <= 0
    if links >= _LINKS and not waits:
        return _CHAINED
    return 0 if any(len(data) >= OPENING for data in opening.data) else None


def _links(data: bytes) -> int | None:
    """How many units a side's bytes are, negative where a part of one is behind them.

    None: a length is implausible.  0: it is too early to tell.
    """
    if len(data) < framing.LONGEST:
        return 0 if _could_be_length(data) else None
    prefix = framing.told_by(data)
    if prefix is None:
        return None
    try:
        sizes = [len(unit) for unit in framing.chain(data, prefix)]
    except ValueError:
        return None
    is_end = sum(sizes) + prefix.size * len(sizes) == len(data)
    return len(sizes) if is_end else -len(sizes)


def _could_be_length(data: bytes) -> bool:
    """Whether a length of 4 or 8 bytes may begin so: its high byte is 0, first or last."""
    return data[0] == 0 or data[3:4] in (b"", b"\0")


def _chained_framing(_context: Context) -> Framing:
    """The length is told by the first unit of each side."""
    chosen: dict[int, Framing] = {}

    def unit(stream: ByteStream) -> Units:
        if stream.side not in chosen:
            head = yield from stream.peek(framing.LONGEST)
            prefix = framing.told_by(head)
            if prefix is None:
                raise ProtocolError(f"no length of 4 or 8 bytes is plausible in {head.hex(' ')}")
            chosen[stream.side] = framing.prefixed(prefix)
        return (yield from chosen[stream.side](stream))

    return unit


def _chained(_pairs: Pairs, _side: int, unit: Unit) -> Saying:
    return Saying(texts.described(unit.body), _perhaps_protobuf(unit.body))


# --- the table ---------------------------------------------------------------------------------

_LINES: Final = always(framing.marked(b"\n"))

ROWS: Final = (
    Framed(
        "qga",
        "QEMU guest agent, and QMP",
        _LINES,
        jsons.qmp,
        jsons.json_looks(b"\n", jsons.qmp_fits),
        (Prior(1234, "vfkit's time synchronisation", "guest"),),
    ),
    Framed(
        "varlink",
        "Varlink",
        always(framing.marked(b"\0")),
        jsons.varlink,
        jsons.json_looks(b"\0", jsons.varlink_fits),
    ),
    Framed(
        "sd-notify",
        "Notifications to systemd (sd_notify)",
        _notify_framing,
        _notify,
        _notify_looks,
        tuple(
            Prior(8888, "microvm.nix", "host", socket_type=int(kind))
            for kind in (SocketType.STREAM, SocketType.SEQPACKET, SocketType.DGRAM)
        ),
    ),
    Framed(
        "heartbeat",
        "Ready heartbeat of a Nitro enclave",
        always(_beat_unit),
        _beat,
        None,
        (Prior(9000, "Nitro enclave's init", cid=CID_PARENT),),
        _beat_recognise,
        most=LIKELY,
    ),
    Framed(
        "kata-span",
        "Spans of the Kata agent's traces",
        always(framing.prefixed(framing.PREFIXES[0])),
        jsons.span,
        jsons.span_looks,
        (Prior(10240, "Kata trace forwarder", "host"),),
        most=jsons.ANSWER,
    ),
    Framed(
        "stackrox",
        "Index report of StackRox's roxagent",
        always(framing.whole),
        _guessed("index report"),
        None,
        (Prior(818, "StackRox", "host"),),
    ),
    Framed(
        "qgs",
        "Intel TDX quote generation service",
        always(framing.prefixed(headers.QGS_SIZE)),
        headers.qgs,
        headers.qgs_looks,
        (Prior(4050, "Intel QGS", "host"),),
    ),
    Framed(
        "gcs",
        "Guest compute service of Hyper-V (hcsshim)",
        always(framing.headed(headers.GCS, 1, counts_itself=True)),
        headers.gcs,
        headers.gcs_looks,
        (Prior(0x40000000, "LCOW guest compute service", "host"),),
    ),
    Framed(
        "wsl",
        "WSL's init",
        always(framing.headed(headers.WSL, 1, counts_itself=True)),
        headers.wsl,
        headers.wsl_looks,
        (Prior(50000, "WSL init"),),
        most=POSSIBLE,
    ),
    Framed(
        "trace-cmd",
        "trace-cmd agent",
        always(framing.headed(headers.TRACE, 0, counts_itself=True)),
        headers.trace,
        headers.trace_looks,
        (Prior(823, "trace-cmd agent", "guest"),),
        most=LIKELY,
    ),
    Framed(
        "json",
        "JSON: lines, NUL-terminated, or behind a length; logs, JSON-RPC",
        always(jsons.json_unit),
        jsons.any_json,
        jsons.any_json_looks,
        (Prior(1025, "Kata agent's log", "guest"), Prior(109, "LCOW log", "host")),
        most=LIKELY,
    ),
    Framed(
        "text",
        "Lines of text: consoles, by their ports",
        _LINES,
        _text,
        _text_looks,
        (
            Prior(1025, "podman machine's ready signal", "host"),
            Prior(1026, "Kata debug console", "guest"),
        ),
        _text_recognise,
        most=LIKELY,
    ),
    Framed(
        "framed",
        "Messages behind their length (u32 or u64)",
        _chained_framing,
        _chained,
        None,
        recognise=_chained_recognise,
        most=_CHAINED,
    ),
)


PROTOCOLS: Final = tuple(row.protocol for row in ROWS)
