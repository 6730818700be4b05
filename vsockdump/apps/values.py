"""Values for the fields of messages: long ones are cut here, and say how much was cut.

Rules for editors: nothing is escaped here; whoever draws does that.
"""

from typing import Final

from vsockdump.apps.message import Value

LONG: Final = 1024  # characters or bytes of one value

_SPACES: Final = str.maketrans("", "", "\t\n\r")


def text_value(text: str) -> str:
    """A text; where it is long its beginning, and how much is left out."""
    if len(text) <= LONG:
        return text
    return f"{text[:LONG]}… ({len(text) - LONG} more)"


def bytes_value(data: bytes, size: int | None = None) -> Value:
    """Bytes, of which `size` were sent; where not all are shown, the first and the size."""
    size = len(data) if size is None else size
    return data if size <= LONG and len(data) == size else {"first": data[:LONG], "size": size}


def content_value(data: bytes, size: int | None = None) -> Value:
    """The same, as text where it reads as one."""
    text = readable(data)
    if text is None or (size is not None and size > len(data)):
        return bytes_value(data, size)
    return text_value(text)


def readable(data: bytes) -> str | None:
    """The bytes as text, if they are UTF-8 without control characters but white space."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.translate(_SPACES).isprintable() else None


def lenient(data: bytes) -> str:
    """Text as it should be UTF-8; other bytes as \\xNN."""
    return text_value(data.decode(errors="backslashreplace"))
