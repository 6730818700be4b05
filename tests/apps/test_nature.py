"""What raw bytes look like."""

import random
import sys
import zlib
from pathlib import Path

import pytest

from vsockdump.apps.nature import nature

RANDOM = random.Random(7)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", ""),
        ("hello, wörld\r\n".encode(), "text"),
        ("ü".encode()[:1], "text"),  # the rest comes in the next packet
        (bytes(1500), "zeros"),
        (RANDOM.randbytes(512), "random"),
        (RANDOM.randbytes(4096), "random"),
        (RANDOM.randbytes(100), "binary"),  # too few to say
        (zlib.compress(Path(__file__).read_bytes() * 2), "random"),
        (b"".join(i.to_bytes(4, "little") for i in range(500)), "binary"),
        (Path(sys.executable).read_bytes()[:4096], "binary"),
    ],
)
def test_words(data: bytes, word: str) -> None:
    assert nature(data) == word


@pytest.mark.parametrize("size", [256, 300, 1000, 4096])
def test_random_bytes_are_called_so_at_any_size(size: int) -> None:
    assert {nature(RANDOM.randbytes(size)) for _ in range(50)} == {"random"}
