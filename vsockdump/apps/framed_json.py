"""Protocols of JSON objects: how they look and what they say (framed.py has their rows).

Rules for editors: whatever the JSON is, it is legal; a value of another type than expected
is shown as it is.
"""

import json
from collections.abc import Callable, Hashable
from struct import Struct
from typing import Any, Final

from vsockdump.apps import framing, texts
from vsockdump.apps.byte_stream import Body, ByteStream, ProtocolError
from vsockdump.apps.framed_parser import Looks, Pairs, Saying
from vsockdump.apps.framing import Unit, Units
from vsockdump.apps.message import Call, Kind
from vsockdump.apps.protocol import CERTAIN, LIKELY, OPENING, POSSIBLE, Score

ANSWER: Final = LIKELY + 5  # an answer alone is surer than that it is any JSON
_DELIMITED: Final = "guest-sync-delimited"
_BLANK: Final = b" \t\r\n\xff"  # what may stand before JSON; 0xFF: guest-sync-delimited


def json_looks(marks: bytes, fits: Callable[[dict[str, Any]], Score]) -> Looks:
    """JSON objects that end with one of the bytes `marks`, the first of which `fits`."""

    def looks(head: bytes) -> Score:
        start = head.lstrip(_BLANK)
        if start[:1] not in (b"{", b""):
            return 0
        ends = [at for mark in marks if (at := start.find(mark)) >= 0]
        value = texts.object_of(start[: min(ends, default=len(start))])
        if value is not None:
            return fits(value)
        return 0 if ends or len(head) >= OPENING else None

    return looks


def _unread(body: Body) -> Saying:
    """A body that should be JSON and is not, or is cut."""
    return Saying(texts.described(body), texts.bytes_of(body))


def qmp_fits(value: dict[str, Any]) -> Score:
    """The words of QMP; those of answers alone are less sure."""
    if value.keys() & {"execute", "exec-oob", "QMP"}:
        return CERTAIN
    return ANSWER if value.keys() & {"return", "error", "event"} else 0


def qmp(pairs: Pairs, side: int, unit: Unit) -> Saying:
    """A command of QMP or the guest agent, its answer, or an event."""
    value = texts.object_of(unit.body.data.strip(_BLANK))
    if value is None:
        return _unread(unit.body)
    key = "execute" if "execute" in value else "exec-oob"
    if key in value:
        method = str(value[key])
        call = Call(_number(value["id"]), method) if "id" in value else pairs.ask(side, method)
        summary = f"{method} {texts.brief(value.get('arguments'))}".strip()
        return Saying(summary, value, Kind.REQUEST, call)
    if "event" in value:
        return Saying(f"{value['event']} {texts.brief(value.get('data'))}".strip(), value)
    if "QMP" in value:
        return Saying("greeting", value)
    if not value.keys() & {"return", "error"}:
        return Saying(texts.brief(value), value)
    return _qmp_answer(pairs, side, value)


def _qmp_answer(pairs: Pairs, side: int, value: dict[str, Any]) -> Saying:
    """What a command came to.

    The guest agent also complains of the 0xFF that stands before a guest-sync-delimited, as
    of JSON that it cannot parse; that is no answer to the command.
    """
    error = None
    if isinstance(failure := value.get("error"), dict):
        error = f"{failure.get('class')}: {failure.get('desc')}"
    if error and "JSON parse error" in error and pairs.awaited(side) == _DELIMITED:
        return Saying(f"error {error}", value)
    call = Call(_number(value["id"]), error=error) if "id" in value else pairs.answer(side, error)
    result = f"return {texts.brief(value.get('return'))}"
    if error:
        result = texts.failed(error, call)
    return Saying(_answered(call, result.strip()), value, Kind.RESPONSE, call)


def _number(identifier: object) -> Hashable:
    """A JSON value as the key of a call; they need not be numbers, and 1 is not "1"."""
    return ("id", json.dumps(identifier, sort_keys=True))


def _answered(call: Call | None, result: str) -> str:
    return f"{call.method}: {result}" if call and call.method else result


def varlink_fits(value: dict[str, Any]) -> Score:
    """A call names a method of an interface; an answer has few words."""
    method = value.get("method")
    if isinstance(method, str) and "." in method and "jsonrpc" not in value:
        return CERTAIN
    answers = {"parameters", "error", "continues"}
    return ANSWER if value.keys() <= answers else 0


def varlink(pairs: Pairs, side: int, unit: Unit) -> Saying:
    """A method call of varlink, or a reply."""
    value = texts.object_of(unit.body.data)
    if value is None:
        return _unread(unit.body)
    arguments = texts.brief(value.get("parameters"))
    if "method" in value:
        method = str(value["method"])
        flags = [flag for flag in ("more", "oneway", "upgrade") if value.get(flag)]
        summary = " ".join(filter(None, (method, *flags, arguments)))
        if "oneway" in flags:
            return Saying(summary, value)
        return Saying(summary, value, Kind.REQUEST, pairs.ask(side, method))
    error = str(value["error"]) if "error" in value else None
    more = bool(value.get("continues"))
    call = pairs.answer(side, error, ends=not more)
    result = texts.failed(error, call) if error else "reply"
    parts = (result, "continues" if more else "", arguments)
    return Saying(_answered(call, " ".join(filter(None, parts))), value, Kind.RESPONSE, call)


def json_unit(stream: ByteStream) -> Units:
    """JSON as the bytes themselves frame it: a mark behind it, or a length before it."""
    head = yield from stream.peek(1)
    if head in _STARTS:
        return (yield from _JSON_LINE(stream))
    for size in (2, 4, 8):
        prefix = _json_prefix((yield from stream.peek(size + 1)))
        if prefix is not None:
            return (yield from framing.prefixed(prefix)(stream))
    raise ProtocolError(f"JSON begins with {head!r}")


_JSON_LINE: Final = framing.marked(b"\n\0")
_STARTS: Final = tuple(bytes([byte]) for byte in b"{[" + _BLANK)


def _json_prefix(head: bytes) -> Struct | None:
    """The length that stands before a JSON object; where it can be read two ways the lesser."""
    fitting = [
        (size, prefix)
        for prefix in framing.PREFIXES
        if prefix.size == len(head) - 1
        and head[-1:] in (b"{", b"[")
        and 1 < (size := prefix.unpack_from(head)[0]) <= framing.LARGEST
    ]
    return min(fitting, key=lambda found: found[0])[1] if fitting else None


def any_json_looks(head: bytes) -> Score:
    """A JSON object or list, and what frames it."""
    if head[:1] in _STARTS:
        return json_looks(b"\n\0", lambda _value: LIKELY)(head)
    for size in (2, 4, 8):
        if len(head) <= size:
            return None
        prefix = _json_prefix(head[: size + 1])
        if prefix is not None:
            return _unit_looks(head, prefix)
    return 0


def _unit_looks(head: bytes, prefix: Struct) -> Score:
    """A JSON value behind its length."""
    end = prefix.size + prefix.unpack_from(head)[0]
    if end > len(head):
        return 0 if end > OPENING else None
    return LIKELY if texts.json_of(head[prefix.size : end]) is not None else 0


def any_json(pairs: Pairs, side: int, unit: Unit) -> Saying:
    """Any JSON: a line of a log, a span of a trace, a call of JSON-RPC, or just values."""
    value = texts.json_of(unit.body.data.strip(_BLANK))
    if not isinstance(value, dict):
        return _unread(unit.body) if value is None else Saying(texts.brief(value), {"json": value})
    if "jsonrpc" in value:
        return _json_rpc(value)
    if isinstance(value.get("msg"), str):
        origin = value.get("subsystem") or value.get("source") or value.get("name")
        level = str(value.get("level", "")).upper()
        text = f"{origin}: {value['msg']}" if origin else value["msg"]
        return Saying(texts.short(f"{level} {text}".strip()), value)
    if "span_context" in value:
        return Saying(f"span {texts.brief(value.get('name'))}", value)
    return Saying(texts.brief(value), value)


def _json_rpc(value: dict[str, Any]) -> Saying:
    """JSON-RPC 2.0: a call, a notification, or a result."""
    key = _number(value.get("id"))
    if "method" in value:
        method = str(value["method"])
        summary = f"{method} {texts.brief(value.get('params'))}".strip()
        if "id" not in value:
            return Saying(summary, value)
        return Saying(summary, value, Kind.REQUEST, Call(key, method))
    failure = value.get("error")
    error = None if failure is None else texts.brief(failure)
    summary = "error" if error else f"result {texts.brief(value.get('result'))}".strip()
    return Saying(summary, value, Kind.RESPONSE, Call(key, error=error))


def span(pairs: Pairs, side: int, unit: Unit) -> Saying:
    """A span of Kata's agent; JSON, or bincode, which names no fields."""
    if texts.object_of(unit.body.data) is not None:
        return any_json(pairs, side, unit)
    return Saying(f"{unit.body.size} bytes of bincode", texts.bytes_of(unit.body))


def span_looks(head: bytes) -> Score:
    """A length of 64 bits; JSON of a span is likely."""
    if len(head) < 9:
        return None if not head[:4].strip(b"\0") else 0
    if framing.told_by(head) is not framing.PREFIXES[0]:
        return 0
    return ANSWER if head[8:9] == b"{" and b'"span_context"' in head else POSSIBLE
