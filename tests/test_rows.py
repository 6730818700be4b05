"""The row writer against Python's own formatting, compiled and as Python runs its source."""

from typing import Any

import numpy as np
import pytest
from builds import uncompiled
from hypothesis import given
from hypothesis import strategies as st

import vsockdump.output.rows
from vsockdump.output.rows import Kind

MODULES: dict[str, Any] = {"installed": vsockdump.output.rows, "source": uncompiled("output.rows")}
U64 = st.integers(0, 2**64 - 1) | st.integers(0, 20).map(lambda power: 10**power % 2**64)
I64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**10), 10**10)

builds = pytest.mark.parametrize("build", sorted(MODULES))


def cell(build: str, kind: Kind, **settings: Any) -> Any:
    """A cell of that build's module."""
    module = MODULES[build]
    return module.Cell(module.Kind(int(kind)), **settings)


def written(writer: Any, buffer: bytes, count: int) -> bytes:
    """All rows, put together from the pieces."""
    row, parts = 0, []
    while row < count:
        before = row
        row, piece = writer.write(memoryview(buffer), row, count)
        assert row > before
        parts.append(bytes(piece))
    return b"".join(parts)


def shown(
    build: str, kind: Kind, values: list[int], buffer: bytes = b"", size: int = 0, **settings: Any
) -> list[str]:
    """A column of one cell, as lines; signed values are taken as their bits."""
    writer = MODULES[build].RowWriter([cell(build, kind, **settings)], len(values), "\0")
    columns, _, sizes = writer.resize(len(values))
    columns[0, :] = np.array([value % 2**64 for value in values], "u8")
    sizes[0] = size
    return written(writer, buffer, len(values)).decode("latin-1").split("\0")[:-1]


# --- numbers and words -------------------------------------------------------------------


@builds
@given(values=st.lists(U64, min_size=1), digits=st.integers(0, 25))
def test_decimal(build: str, values: list[int], digits: int) -> None:
    """Unsigned numbers, right-aligned in at least `digits` characters."""
    expected = [f"{value:>{digits}}" for value in values]
    assert expected == shown(build, Kind.DEC, values, digits=digits)


@builds
@given(values=st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_hexadecimal(build: str, values: list[int]) -> None:
    """0x and eight digits."""
    assert [f"{value:#010x}" for value in values] == shown(build, Kind.HEX8, values)


def fraction(nanoseconds: int, digits: int) -> str:
    """The fraction of a second, cut to `digits`."""
    return f"{nanoseconds % 10**9:09}"[:digits]


def clock(nanoseconds: int, digits: int) -> str:
    """hh:mm:ss and a fraction."""
    seconds = nanoseconds // 10**9
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours:02}:{minutes:02}:{seconds % 60:02}.{fraction(nanoseconds, digits)}"


@builds
@given(
    values=st.lists(st.integers(0, 86400 * 10**9) | U64, min_size=1),
    digits=st.sampled_from([6, 9]),
)
def test_clock(build: str, values: list[int], digits: int) -> None:
    """Hours, minutes, seconds and a fraction that is cut and not rounded."""
    expected = [clock(value, digits) for value in values]
    assert expected == shown(build, Kind.CLOCK, values, digits=digits)


@builds
@given(values=st.lists(I64, min_size=1), digits=st.sampled_from([6, 9]))
def test_span(build: str, values: list[int], digits: int) -> None:
    """A difference of times: its sign, or a space, and the clock."""
    expected = [("-" if value < 0 else " ") + clock(abs(value), digits) for value in values]
    assert expected == shown(build, Kind.SPAN, values, digits=digits)


@builds
@given(values=st.lists(I64, min_size=1), digits=st.sampled_from([6, 9]))
def test_seconds(build: str, values: list[int], digits: int) -> None:
    """Signed seconds and a fraction."""
    expected = [
        f"{'-' if value < 0 else ''}{abs(value) // 10**9}.{fraction(abs(value), digits)}"
        for value in values
    ]
    assert expected == shown(build, Kind.SECONDS, values, digits=digits)


@builds
@given(values=st.lists(st.integers(0, 5) | U64, min_size=1))
def test_words(build: str, values: list[int]) -> None:
    """The last word introduces the numbers that have none of their own."""
    words = ["none", "", "two", "op "]
    expected = [words[value] if value < 3 else f"op {value}" for value in values]
    assert expected == shown(build, Kind.WORD, values, words=words)


@builds
def test_words_can_be_replaced(build: str) -> None:
    """New words may be longer than the room the old ones took."""
    writer = MODULES[build].RowWriter([cell(build, Kind.WORD, words=["a", ""])], 2)
    values, _, _ = writer.resize(2)
    values[0] = [0, 1]
    writer.set_words(0, ["x" * 300_000, "yy", ""])
    assert b"x" * 300_000 + b"\nyy\n" == written(writer, b"", 2)


@builds
@given(value=U64)
def test_context_ids(build: str, value: int) -> None:
    """Well-known CIDs have names, the others are guests."""
    names = {0: "hypervisor", 1: "local", 2: "host", 2**32 - 1: "any"}
    values = [value, *names]
    expected = [names.get(cid, f"guest {cid}") for cid in values]
    assert expected == shown(build, Kind.CID, values)


# --- bytes -------------------------------------------------------------------------------


@builds
@given(data=st.binary(max_size=100), before=st.binary(max_size=20))
def test_bytes(build: str, data: bytes, before: bytes) -> None:
    """Hexadecimal digits of a slice of the buffer, which ends where the bytes end."""
    (line,) = shown(build, Kind.BYTES, [len(before)], before + data, len(data))
    assert data.hex() == line


def dump(data: bytes, ascii_too: bool) -> str:
    """A dump in tcpdump's layout."""
    out = ""
    for at in range(0, len(data), 16):
        chunk = data[at : at + 16]
        pairs = " ".join(chunk[i : i + 2].hex() for i in range(0, len(chunk), 2))
        out += f"\n\t0x{at:04x}:  "
        if ascii_too:
            visible = "".join(chr(c) if 32 < c < 127 else "." for c in chunk)
            out += f"{pairs:<39}  {visible}"
        else:
            out += pairs
    return out


@builds
@given(data=st.binary(max_size=100))
def test_dumps(build: str, data: bytes) -> None:
    """-x and -X: lines of sixteen bytes in pairs."""
    for kind, ascii_too in ((Kind.HEX_DUMP, False), (Kind.FULL_DUMP, True)):
        assert [dump(data, ascii_too)] == shown(build, kind, [0], data, len(data))


@builds
def test_a_long_dump(build: str) -> None:
    """Offsets above 0xffff take a fifth digit, and the output buffer grows as it must."""
    data = bytes(range(256)) * 1025
    (line,) = shown(build, Kind.FULL_DUMP, [0], data, len(data))
    assert dump(data, True) == line


@builds
@given(data=st.binary(max_size=60) | st.text("\r\n\t a", max_size=40).map(str.encode))
def test_ascii(build: str, data: bytes) -> None:
    """-A: text with its line ends, carriage returns before them left out, and dots."""
    expected = "".join(
        chr(c) if 32 <= c < 127 or c in b"\n\t" else "."
        for c in data.replace(b"\r\n", b"\n").removesuffix(b"\r")
    )
    assert ["\n" + expected] == shown(build, Kind.ASCII_DUMP, [0], data, len(data))


# --- rows --------------------------------------------------------------------------------


@builds
def test_prefix_and_missing(build: str) -> None:
    """A value that does not hold: its missing text behind the prefix, or nothing at all."""
    cells = [
        cell(build, Kind.DEC, prefix="a="),
        cell(build, Kind.DEC, prefix=" b=", missing="null"),
        cell(build, Kind.TEXT, prefix=" c="),
    ]
    writer = MODULES[build].RowWriter(cells, 2, ";")
    values, valid, _ = writer.resize(2)
    values[:2] = [[1, 2], [3, 4]]
    writer.set_texts(2, [b"text", b""])
    assert b"a=1 b=3 c=text;a=2 b=4 c=;" == written(writer, b"", 2)
    valid[:, 0] = 0
    assert b" b=null;a=2 b=4 c=;" == written(writer, b"", 2)


@builds
@given(
    sizes=st.lists(st.integers(0, 300_000), min_size=1, max_size=6),
    text=st.integers(0, 400_000),
)
def test_rows_of_any_size(build: str, sizes: list[int], text: int) -> None:
    """Rows that fill the output buffer, or pass it, come out whole and in order."""
    if build == "source":
        sizes, text = [size // 100 for size in sizes], text // 100
    cells = [cell(build, Kind.BYTES), cell(build, Kind.TEXT, prefix=" ")]
    writer = MODULES[build].RowWriter(cells, len(sizes))
    values, _, lengths = writer.resize(len(sizes))
    data = bytes(range(251)) * (max(sizes) // 251 + 2)
    values[0] = range(len(sizes))
    lengths[0] = sizes
    writer.set_texts(1, [b"t" * text] * len(sizes))
    expected = b"".join(
        data[at : at + size].hex().encode() + b" " + b"t" * text + b"\n"
        for at, size in enumerate(sizes)
    )
    assert expected == written(writer, data, len(sizes))


@builds
def test_more_rows_than_before(build: str) -> None:
    """After resize the writer takes larger batches."""
    writer = MODULES[build].RowWriter([cell(build, Kind.DEC)], 1)
    values, _, _ = writer.resize(100_000)
    values[0] = np.arange(100_000)
    expected = "".join(f"{number}\n" for number in range(100_000))
    assert expected.encode() == written(writer, b"", 100_000)


@builds
def test_no_rows(build: str) -> None:
    """Nothing in, nothing out."""
    writer = MODULES[build].RowWriter([cell(build, Kind.DEC)], 1)
    row, piece = writer.write(memoryview(b""), 0, 0)
    assert (0, b"") == (row, bytes(piece))
