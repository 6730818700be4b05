"""Protocols whose messages have a header of numbers: how they look and what they say.

Rules for editors: framed.py has their rows.  A number without a name is shown as a number.
"""

from struct import Struct
from typing import Any, Final

from vsockdump.apps import texts
from vsockdump.apps.framed_parser import Pairs, Saying
from vsockdump.apps.framing import Unit
from vsockdump.apps.message import Call, Kind
from vsockdump.apps.protocol import CERTAIN, LIKELY, POSSIBLE, Score

GCS: Final = Struct("<IIQ")
_GCS_NAMES: Final = (
    "Create Start ShutdownGraceful ShutdownForced ExecuteProcess WaitForProcess SignalProcess "
    "ResizeConsole GetProperties ModifySettings NegotiateProtocol DumpStacks DeleteContainerState"
)
_GCS_METHODS: Final = dict(enumerate(_GCS_NAMES.split(), 1))


def gcs_looks(head: bytes) -> Score:
    """A header of hcsshim, and JSON behind it."""
    if head[:1] != b"\x01":  # its version
        return 0
    if len(head) < GCS.size + 1:
        return None
    kind, size, _number = GCS.unpack_from(head)
    fits = kind >> 28 in (1, 2, 3) and kind >> 20 & 0xFF == 1
    return CERTAIN if fits and size > GCS.size and head[GCS.size : GCS.size + 1] == b"{" else 0


def gcs(_pairs: Pairs, _side: int, unit: Unit) -> Saying:
    """A message between hcsshim and the guest compute service."""
    kind, _size, number = unit.header
    method = _GCS_METHODS.get(kind >> 8 & 0xFFF, f"{kind:#x}")
    value = texts.object_of(unit.body.data)
    fields: dict[str, Any] = {"type": kind, "id": number}
    fields |= {"json": value} if value is not None else texts.bytes_of(unit.body)
    value = value or {}
    if kind >> 28 == 1:
        container = texts.brief(value.get("ContainerId"))
        return Saying(f"{method} {container} #{number}", fields, Kind.REQUEST, Call(number, method))
    if kind >> 28 == 2:
        result = value.get("Result")
        error = _gcs_error(value) if isinstance(result, int) and result else None
        summary = f"{method} #{number}: {'error' if error else 'ok'}"
        return Saying(summary, fields, Kind.RESPONSE, Call(number, method, error))
    container, what = texts.brief(value.get("ContainerId")), texts.brief(value.get("Type"))
    return Saying(f"Notification {container} {what}".strip(), fields)


def _gcs_error(value: dict[str, Any]) -> str:
    return f"{value['Result'] & 0xFFFFFFFF:#x} {texts.brief(value.get('ErrorMessage'))}".strip()


WSL: Final = Struct("<IIII")
_WSL_TYPES: Final = 128  # there are about a hundred; their numbers change between releases


def wsl_looks(head: bytes) -> Score:
    """A header that WSL could have sent."""
    if head[0] >= _WSL_TYPES or head[1:4].strip(b"\0"):
        return 0
    if len(head) < WSL.size:
        return None
    _kind, size, _transaction, step = WSL.unpack_from(head)
    return POSSIBLE if WSL.size <= size <= 1 << 20 and step < 64 else 0


def wsl(_pairs: Pairs, _side: int, unit: Unit) -> Saying:
    """A message of WSL's init; types are not named, as their numbers change with releases."""
    kind, _size, transaction, step = unit.header
    fields = {"type": kind, "transaction": transaction, "step": step, **texts.bytes_of(unit.body)}
    summary = f"type {kind} #{transaction} step {step}"
    if step == 1:
        return Saying(summary, fields, Kind.REQUEST, Call(transaction, f"type {kind}"))
    if step == 2:
        return Saying(summary, fields, Kind.RESPONSE, Call(transaction))
    return Saying(summary, fields)


_QGS: Final = Struct("<HHIII")
QGS_SIZE: Final = Struct(">I")
_QGS_MAJOR: Final = b"\x01\0"
_QGS_METHODS: Final = ("GET_QUOTE", "GET_COLLATERAL", "GET_PLATFORM_INFO")


def qgs_looks(head: bytes) -> Score:
    """A length, and a header that repeats it."""
    if head[:1] != b"\0" or not _QGS_MAJOR.startswith(head[4:6]):  # lengths are below 16 MiB
        return 0
    if len(head) < 4 + _QGS.size:
        return None
    _major, minor, kind, size, _error = _QGS.unpack_from(head, 4)
    fits = minor < 16 and kind < 2 * len(_QGS_METHODS)
    return CERTAIN if fits and size == QGS_SIZE.unpack_from(head)[0] else 0


def qgs(pairs: Pairs, side: int, unit: Unit) -> Saying:
    """A message of Intel's quote generation service."""
    if len(unit.body.data) < _QGS.size:
        return Saying(f"message of {unit.body.size} bytes", texts.bytes_of(unit.body))
    major, minor, kind, _size, code = _QGS.unpack_from(unit.body.data)
    names = _QGS_METHODS
    method = names[kind // 2] if kind // 2 < len(names) else f"type {kind & ~1}"
    fields: dict[str, Any] = {"major": major, "minor": minor, "type": kind, "error": code}
    fields |= {"data": unit.body.data[_QGS.size :], **texts.cut_of(unit.body)}
    if kind % 2 == 0:
        return Saying(method, fields, Kind.REQUEST, pairs.ask(side, method))
    error = f"{code:#x}" if code else None
    call = pairs.answer(side, error)
    result = texts.failed(error, call) if error else "ok"
    return Saying(f"{method}: {result}", fields, Kind.RESPONSE, call)


TRACE: Final = Struct(">III")
_TRACE_LARGEST: Final = 8192
_TRACE_NAMES: Final = (
    *("CLOSE", "TINIT", "RINIT", "SEND_DATA", "FIN_DATA", "NOT_SUPP", "TRACE_REQ", "TRACE_RESP"),
    *("CLOSE_RESP", "TIME_SYNC", "TRACE_PROXY"),
)
_TRACE_ASKS: Final = ("CLOSE", "TINIT", "TRACE_REQ", "TRACE_PROXY")
_TRACE_ANSWERS: Final = ("CLOSE_RESP", "RINIT", "TRACE_RESP", "NOT_SUPP")
_TRACE_FIRST: Final = {1: 12, 2: 4, 6: 16}  # commands that begin a talk, and their sizes


def trace_looks(head: bytes) -> Score:
    """A header of trace-cmd; one that begins a talk is surer."""
    if head[:2].strip(b"\0"):  # of a length below 64 KiB
        return 0
    if len(head) < TRACE.size:
        return None
    size, command, own = TRACE.unpack_from(head)
    if not TRACE.size + own <= size <= _TRACE_LARGEST or command >= len(_TRACE_NAMES):
        return 0
    return LIKELY if _TRACE_FIRST.get(command) == own else POSSIBLE


def trace(pairs: Pairs, side: int, unit: Unit) -> Saying:
    """A message between trace-cmd and its agent."""
    _size, command, own = unit.header
    name = _TRACE_NAMES[command] if command < len(_TRACE_NAMES) else f"command {command}"
    data = unit.body.data
    fields: dict[str, Any] = {"command": command, "parameters": data[:own], "data": data[own:]}
    fields |= texts.cut_of(unit.body)
    if name in _TRACE_ASKS:
        return Saying(name, fields, Kind.REQUEST, pairs.ask(side, name))
    if name in _TRACE_ANSWERS:
        error = "not supported" if name == "NOT_SUPP" else None
        return Saying(name, fields, Kind.RESPONSE, pairs.answer(side, error))
    return Saying(name, fields)
