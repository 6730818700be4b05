"""Values of captured bytes for summaries and fields: JSON, text, and short forms of both.

Rules for editors: nothing here raises, whatever the bytes are; what is cut says so.
"""

import json
import re
from codecs import getincrementaldecoder
from typing import Any, Final

from vsockdump.apps.byte_stream import Body
from vsockdump.apps.message import Call, Fields

WIDE: Final = 100  # characters of a value in a summary
DEEPEST: Final = 50  # levels of JSON; a tree that is deeper is kept as text
_CUT: Final = "…"
_ANSI: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]")  # what steers a terminal
# Control characters that consoles send: bell to carriage return, escape, ^C, ^D, delete.
_TEXT: Final = bytes([*range(7, 14), 27, 3, 4, *range(32, 128)])


def json_of(data: bytes) -> Any:
    """The JSON value of `data`; None where it is none (or is null, or is too deep)."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if data.count(b"[") + data.count(b"{") > DEEPEST and _is_deep(value, DEEPEST):
        return None
    return value


def object_of(data: bytes) -> dict[str, Any] | None:
    """The JSON object of `data`; None where it is none."""
    value = json_of(data)
    return value if isinstance(value, dict) else None


def _is_deep(value: object, left: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return left == 0 or any(_is_deep(one, left - 1) for one in value)


def is_text(data: bytes) -> bool:
    """Whether `data` is what a person or a console writes, in ASCII or UTF-8."""
    if not data.translate(None, _TEXT):
        return True
    if any(byte < 0x80 for byte in data.translate(None, _TEXT)):
        return False
    try:
        getincrementaldecoder("utf-8")().decode(data)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


def text_of(data: bytes) -> str:
    """`data` as text; what is no UTF-8 as `\\xNN`."""
    return data.decode("utf-8", "backslashreplace")


def line_of(data: bytes) -> str:
    """`data` as a line for a summary: without what steers terminals, and not too long."""
    return short(" ".join(_ANSI.sub("", text_of(data[: 4 * WIDE])).split()))


def short(text: str, most: int = WIDE) -> str:
    """`text`, cut to `most` characters."""
    return text if len(text) <= most else text[: most - 1] + _CUT


def brief(value: object) -> str:
    """A JSON value on a part of a line; `` for nothing."""
    if value in (None, {}, [], ""):
        return ""
    if isinstance(value, str):
        return short(value)
    return short(json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=repr))


def failed(error: str, call: Call | None) -> str:
    """That a call failed, for a summary; why, the call itself says, if it is known."""
    return "error" if call else f"error {error}"


def bytes_of(body: Body) -> Fields:
    """The fields of a body that is not understood."""
    return {"data": body.data, **cut_of(body)}


def cut_of(body: Body) -> Fields:
    """The fields that say what is not there of a body: nothing, if all is."""
    if body.is_whole:
        return {}
    return {"size": body.size, "missing": body.missing}


def described(body: Body) -> str:
    """What a body that is not understood looks like, for a summary."""
    if body.data and is_text(body.data):
        return line_of(body.data)
    return body.data[:16].hex(" ") + (_CUT if body.size > 16 else "")
