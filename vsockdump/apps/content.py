"""What bytes hold when no schema says it: JSON, text, or so many bytes.

Bodies of HTTP, messages of WebSocket and streams that nothing here can read are told by it.

Rules for editors: bounded in everything.  A body is shown up to SHOWN, expanded up to what
the caller allows, and what was left out is said with the value.
"""

import zlib
from io import BytesIO
from typing import Final

from vsockdump.apps import texts
from vsockdump.apps.byte_stream import KEPT, Body, ByteStream, Steps
from vsockdump.apps.message import Message, Value

SHOWN: Final = 4096  # bytes of a text, or of data, in a message's fields
_BEGINNING: Final = 256  # bytes that a summary is made of
SAID: Final = 1 << 20  # bytes that are not parsed, before a message counts them
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
            data, whole = undone(data, codings, whole)
        except (zlib.error, UnknownCoding) as error:
            fields["not decoded"] = str(error)
            return fields | _shown(data, whole)
        fields["decoded size"] = len(data)
    return fields | _shown(data, whole)


def _shown(data: bytes, whole: bool) -> dict[str, Value]:
    """JSON where it is, then text, then bytes; `cut` where only a part is shown."""
    value = texts.json_of(data) if whole and data.lstrip()[:1] in (b"{", b"[") else None
    if value is not None:
        return {"json": value}
    start = data[:SHOWN]
    fields: dict[str, Value] = (
        {"text": texts.text_of(start)} if texts.is_text(start) else {"data": start}
    )
    if len(data) > SHOWN:
        fields["cut"] = len(data) - SHOWN
    if not whole:
        fields["incomplete"] = True
    return fields


def brief(data: bytes) -> str:
    """The beginning of a text in one line, for summaries; nothing where it is no text."""
    start = data[:_BEGINNING]
    return texts.line_of(start) if texts.is_text(start) else ""


# --- content codings ---------------------------------------------------------------------------


def undone(data: bytes, codings: tuple[str, ...], whole: bool) -> tuple[bytes, bool]:
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
