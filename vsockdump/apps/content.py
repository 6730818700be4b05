"""What bytes hold when no schema says it: JSON, text, or so many bytes.

Bodies of HTTP, messages of WebSocket and streams that nothing here can read are told by it.

Rules for editors: bounded in everything.  A body is shown up to SHOWN, expanded up to what
the caller allows, and what was left out is said with the value.
"""

import json
import math
import zlib
from io import BytesIO
from typing import Any, Final

from vsockdump.apps.byte_stream import KEPT, Body, ByteStream, Steps
from vsockdump.apps.message import Message, Value

SHOWN: Final = 4096  # bytes of a text, or of data, in a message's fields
BRIEF: Final = 60  # characters of a text in a summary
SAID: Final = 1 << 20  # bytes that are not parsed, before a message counts them
_DEEP: Final = 64  # levels of JSON; views walk trees by recursion
_ZSTD_WINDOW: Final = 8 << 20  # bytes, what RFC 8878 asks receivers to support


class UnknownCoding(ValueError):
    """A content coding that is not undone here."""


def content_fields(body: Body, codings: tuple[str, ...] = ()) -> dict[str, Value]:
    """A body's size and what it holds, as fields; `codings` in the order they were applied."""
    fields: dict[str, Value] = {"size": body.size}
    if body.missing:
        fields["missing"] = body.missing
    if not body.size:
        return fields
    data, whole = body.data, body.is_whole
    if codings:
        fields["coding"] = ", ".join(codings)
        try:
            data, whole = _undone(data, codings, whole)
        except (zlib.error, UnknownCoding) as error:
            fields["not decoded"] = str(error)
            return fields | _shown(data, whole)
        fields["decoded size"] = len(data)
    return fields | _shown(data, whole)


def _shown(data: bytes, whole: bool) -> dict[str, Value]:
    """JSON where it is, then text, then bytes; `cut` where only a part is shown."""
    if whole and data.lstrip()[:1] in (b"{", b"["):
        try:
            return {"json": read_json(data)}
        except ValueError:
            pass  # it only began as JSON does
    text = as_text(data[:SHOWN])
    fields: dict[str, Value] = {"data": data[:SHOWN]} if text is None else {"text": text}
    if len(data) > SHOWN:
        fields["cut"] = len(data) - SHOWN
    if not whole:
        fields["incomplete"] = True
    return fields


def read_json(data: bytes) -> Value:
    """The tree of a JSON text; ValueError where it is none, or too deep to be drawn."""
    try:
        tree = json.loads(data, parse_constant=str, parse_float=_number)
    except RecursionError as error:
        raise ValueError("too deep") from error
    _check_depth(tree, _DEEP)
    if b"\\ud" in data.lower():
        json.dumps(tree, ensure_ascii=False).encode()  # half a surrogate pair is no text
    return tree


def _number(text: str) -> float | str:
    """A number that no float holds stays text: nothing that writes JSON has infinity."""
    number = float(text)
    return number if math.isfinite(number) else text


def _check_depth(tree: Any, left: int) -> None:
    if not left:
        raise ValueError("too deep")
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list):
        return
    for branch in tree:
        _check_depth(branch, left - 1)


def as_text(data: bytes) -> str | None:
    """The text that bytes are, which may end inside a character; None where they are none."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3 or error.reason != "unexpected end of data":
            return None
        text = data[: error.start].decode()
    return text if all(sign >= " " or sign in "\t\r\n" for sign in text) else None


def brief(data: bytes | str) -> str:
    """The begin of a text in one line, for summaries; nothing where it is no text."""
    text = data if isinstance(data, str) else as_text(data[: 4 * BRIEF])
    line = " ".join((text or "")[: 4 * BRIEF].split())
    return line if len(line) <= BRIEF else line[: BRIEF - 1] + "…"


# --- content codings ---------------------------------------------------------------------------


def _undone(data: bytes, codings: tuple[str, ...], whole: bool) -> tuple[bytes, bool]:
    """The body before it was coded, up to KEPT bytes; is it all of it?"""
    for coding in reversed(codings):
        data = _decoded(data, coding)
        whole = whole and len(data) < KEPT
    return data, whole


def _decoded(data: bytes, coding: str) -> bytes:
    if coding in ("gzip", "x-gzip"):
        return _inflated(data, 16 + zlib.MAX_WBITS)
    if coding == "deflate":
        try:
            return _inflated(data, zlib.MAX_WBITS)
        except zlib.error:
            return _inflated(data, -zlib.MAX_WBITS)  # as some servers understand the word
    if coding == "zstd":
        return _unzstd(data)
    raise UnknownCoding(f"{coding} is not known")


def _inflated(data: bytes, window: int) -> bytes:
    return zlib.decompressobj(window).decompress(data, KEPT)


def _unzstd(data: bytes) -> bytes:
    import zstandard

    reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(BytesIO(data))
    try:
        return reader.read(KEPT)
    except zstandard.ZstdError as error:
        raise UnknownCoding(str(error)) from error


# --- streams that are not parsed ---------------------------------------------------------------


def counted(stream: ByteStream, protocol: str, what: str) -> Steps:
    """Messages that count the rest of a side, a MiB at a time, since nothing reads it.

    Not a message for what is there at the time: it would depend on how the bytes came.
    """
    while True:
        body = yield from stream.up_to(SAID, 0)
        if body.size:
            fields = {"missing": body.missing} if body.missing else {}
            yield Message(protocol, what, fields=fields)
        if body.size < SAID:
            return
