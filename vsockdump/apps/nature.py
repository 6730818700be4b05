"""What bytes of no known protocol look like, in a word: a hint for -z apps, and no more.

Not protocols with a low score, as analyzers have them: then bulk would be parsed, to no end.
This looks once, at the first bytes of a connection.

Rules for editors: quick, on a few thousand bytes; a word is a claim, so none is given where
there is little to go by.
"""

from collections import Counter
from math import log2
from typing import Final

from vsockdump.apps.texts import is_text

NATURES: Final = ("", "text", "zeros", "random", "binary")
_ENOUGH: Final = 256  # bytes from which statistics mean something
_RANDOM: Final = 0.93  # of the entropy that as many random bytes have


def nature(data: bytes) -> str:
    """`text`, `zeros`, `random` (encrypted, compressed or random), `binary`; "" for nothing."""
    if not data:
        return ""
    if is_text(data):
        return "text"
    if not data.strip(b"\0"):
        return "zeros"
    if len(data) >= _ENOUGH and _entropy(data) > _RANDOM * _most_entropy(len(data)):
        return "random"
    return "binary"


def _entropy(data: bytes) -> float:
    """Bits a byte."""
    total = len(data)
    return -sum(count / total * log2(count / total) for count in Counter(data).values())


def _most_entropy(size: int) -> float:
    """What `size` random bytes have: less than 8 bits, as not every value is among few bytes."""
    return 8 - 255 / (2 * size * 0.6931)
