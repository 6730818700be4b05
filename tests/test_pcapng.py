"""Reading pcapng files: every block, several sections and interfaces, both byte orders."""

import struct
from itertools import product
from pathlib import Path

import pytest
from blocks import (
    COMMENT,
    CUSTOM,
    CUSTOM_NO_COPY,
    ENHANCED,
    INTERFACE,
    JOURNAL,
    MODIFIED,
    ORDERS,
    SECTION,
    block,
    custom,
    enhanced,
    interface,
    names,
    obsolete,
    options,
    other_blocks,
    pieces,
    section,
    simple,
    statistics,
)
from reading import FRAME, check_by_tshark, memory_file, pcapng, read, read_file
from running import ALL_CAPTURES, tool

from vsockdump.batch import NO_TIME, Layers, Malformed
from vsockdump.capture.pcapng import packet_comments, packet_options
from vsockdump.capture.reader import FileReader

MERGED = ("k612_refused.pcap", "k612_any_sll2.pcap", "k612_fakeguest.pcap", "prog_ncat.pcapng")


def every_block(order: str) -> bytes:
    """A section with two interfaces, every kind of packet block, and all others between."""
    packets = [
        enhanced(order, FRAME, 1, pairs=[(COMMENT, b"first")]),
        enhanced(order, FRAME[:50], 2, 1, wirelen=len(FRAME)),
        simple(order, FRAME),
        obsolete(order, FRAME, 3, 1, pairs=[(2, bytes(4))]),
        *[enhanced(order, FRAME + bytes(size), size) for size in range(4)],
    ]
    others = other_blocks(order)
    mixed = [piece for pair in zip(packets, others, strict=True) for piece in pair]
    interfaces = [interface(order, name="vsock0"), interface(order, 276, resolution=9)]
    return pcapng(*mixed, order=order, interfaces=interfaces)


# --- blocks ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_every_block(build: str, order: str) -> None:
    """Packets are read and everything else is kept, in the order of the file."""
    content = every_block(order)
    result = read(content, build)
    assert result.error is None
    assert list(range(1, 9)) == result.rows["number"].tolist()
    assert [FRAME, FRAME[:50], *[FRAME] * 3] == result.packets[:5]
    assert [0, 1, 0, 1, 0, 0, 0, 0] == result.rows["interface"].tolist()
    assert [1000, 2, NO_TIME, 3, 0, 1000, 2000, 3000] == result.rows["time_ns"].tolist()
    assert [1, 0, 0, 1, 0, 0, 0, 0] == result.rows["options"].tolist()
    kept = [content[part.start : part.end] for part in pieces(content) if not part.is_packet]
    assert kept == result.blocks


@pytest.mark.parametrize(("first", "second"), list(product(ORDERS, ORDERS)))
def test_sections_of_mixed_byte_orders(build: str, first: str, second: str) -> None:
    """Every section has its own byte order and its own interfaces."""
    result = read(every_block(first) + every_block(second), build)
    assert (None, 16) == (result.error, len(result.rows))
    assert [0, 1, 0, 1, 0, 0, 0, 0, 2, 3, 2, 3, 2, 2, 2, 2] == result.rows["interface"].tolist()
    assert result.rows["time_ns"].tolist()[:8] == result.rows["time_ns"].tolist()[8:]
    assert result.packets[:8] == result.packets[8:]


def test_blocks_stand_before_the_packets_that_follow_them() -> None:
    """A batch has the blocks before its first row, and a batch without rows the last ones."""
    content = pcapng(
        custom("<"), enhanced("<", FRAME), names("<"), enhanced("<", FRAME), custom("<")
    )
    with memory_file(content) as path:
        reader = FileReader(path)
        found = [(len(batch), [block[0] for block in batch.blocks]) for batch in reader.batches()]
        reader.close()
    assert [(1, [SECTION & 0xFF, INTERFACE, 0xAD]), (1, [4]), (0, [0xAD])] == found


def test_blocks_do_not_pile_up() -> None:
    """A file of nothing but other blocks is handed on in pieces of the buffer's size."""
    content = pcapng(*[custom("<", bytes(100))] * 1000)
    with memory_file(content) as path:
        reader = FileReader(path, buffer=4096)
        sizes = [sum(map(len, batch.blocks)) for batch in reader.batches()]
        reader.close()
    assert len(content) == sum(sizes)
    assert max(sizes) <= 4096


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [0, 4, 3_000_000, (1 << 24) - 16])
def test_a_block_larger_than_the_buffer(build: str, order: str, size: int) -> None:
    """The buffer grows for it, and packets go on behind it."""
    large = custom(order, bytes(size))
    result = read(pcapng(large, enhanced(order, FRAME), order=order), build, rows=4, buffer=4096)
    assert ([FRAME], None) == (result.packets, result.error)
    assert large == result.blocks[-1]


def test_comments_and_options() -> None:
    """Options of packet blocks are found in both byte orders, damaged ones end the list."""
    pairs = [(COMMENT, b"one"), (COMMENT, b"two \xff"), (2, b"\0\0\0\1")]
    for order, make in product(ORDERS, (enhanced, obsolete)):
        packet = make(order, FRAME, pairs=pairs)
        assert pairs == list(packet_options(packet, order == ">"))
        assert ["one", "two \ufffd"] == packet_comments(packet, order == ">")
        assert [] == packet_comments(make(order, FRAME), order == ">")
        assert [] == packet_comments(simple(order, FRAME), order == ">")
    beyond = block("<", ENHANCED, struct.pack("<IIIII", 0, 0, 0, 0, 0) + struct.pack("<HH", 1, 99))
    assert [] == packet_comments(beyond, False)


# --- sections and interfaces -------------------------------------------------------------


def interfaces_of(content: bytes) -> list[tuple[int, int, str, int, int]]:
    """Link type, snaplen, name, resolution and offset of all interfaces."""
    with memory_file(content) as path:
        reader = FileReader(path)
        for _ in reader.batches():
            pass
        reader.close()
        return [place[:5] for place in reader.interfaces]


@pytest.mark.parametrize("order", ORDERS)
def test_interface_options(order: str) -> None:
    """Name, resolution and offset are read; without them there are defaults."""
    content = pcapng(
        order=order,
        interfaces=[
            interface(order),
            interface(order, 276, name="any", snaplen=96, resolution=9, offset=-7),
            block(order, INTERFACE, struct.pack(order + "HHI", 1, 0, 5) + options(order, ODD)),
        ],
    )
    expected = [(271, 0, "", 6, 0), (276, 96, "any", 9, -7), (1, 5, "caf\ufffd", 6, 0)]
    assert expected == interfaces_of(content)


ODD = [(2, b"caf\xe9"), (9, b""), (14, b"\0\0"), (99, b"unknown"), (9, b"\1\2")]


def taps_of(content: bytes) -> list[int]:
    """The place of capture of each interface."""
    with memory_file(content) as path:
        reader = FileReader(path)
        for _ in reader.batches():
            pass
        reader.close()
        return [place.tap for place in reader.interfaces]


def test_the_same_place_in_two_sections() -> None:
    """A name is one place of capture, wherever and how often it is described."""
    one, other = interface("<", name="a"), interface("<", name="b")
    first = pcapng(interfaces=[one, one, other])
    assert [0, 0, 1] == taps_of(first)
    assert [0, 0, 1, 0, 0, 1] == taps_of(first + first)
    assert [0, 0, 1, 1, 0] == taps_of(first + pcapng(interfaces=[other, one]))


def test_the_same_place_without_a_name() -> None:
    """Interfaces of equal index and link type are one place of capture in all sections."""
    plain, cooked = interface("<"), interface("<", 276)
    first = pcapng(interfaces=[plain, plain])
    assert [0, 1, 0, 1] == taps_of(first + first)
    assert [0, 1, 2, 0] == taps_of(
        first + pcapng(interfaces=[cooked]) + pcapng(interfaces=[plain], order="<")
    )
    one = interface("<", name="a")
    assert [0, 0] == taps_of(pcapng(interfaces=[one]) + pcapng(interfaces=[one]))


def test_many_interfaces_between_packets(time_limit: None) -> None:
    """The cost of an interface does not grow with the number of those before it."""
    blocks = [
        piece
        for number in range(20_000)
        for piece in (interface("<", name=str(number)), enhanced("<", FRAME, 0, number))
    ]
    with memory_file(pcapng(*blocks, interfaces=[])) as path:
        result = read_file(path)
    assert list(range(20_000)) == result.rows["interface"].tolist()


def test_foreign_interfaces_beside_vsock(build: str) -> None:
    """Only the packets of vsock interfaces are decoded."""
    interfaces = [interface("<", 1), interface("<"), interface("<", 113)]
    packets = [enhanced("<", FRAME, 0, number) for number in (0, 1, 2, 1)]
    result = read(pcapng(*packets, interfaces=interfaces), build)
    kinds = [Malformed.FOREIGN, Malformed.NONE, Malformed.FOREIGN, Malformed.NONE]
    assert kinds == result.rows["malformed"].tolist()


@pytest.mark.parametrize(
    ("wirelen", "snaplen", "packet", "caplen"),
    [
        (len(FRAME), 0, FRAME, len(FRAME)),
        (len(FRAME), 1000, FRAME, len(FRAME)),
        (len(FRAME), 78, FRAME[:78], 78),
        (1000, 78, FRAME[:78], 78),
        (1000, 0, FRAME + b"x", len(FRAME) + 1),
        (0, 0, b"", 0),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_simple_packets(
    build: str, order: str, wirelen: int, snaplen: int, packet: bytes, caplen: int
) -> None:
    """Their captured length follows from wire length, snaplen and block; time is unknown."""
    content = pcapng(
        simple(order, packet, wirelen), order=order, interfaces=[interface(order, snaplen=snaplen)]
    )
    result = read(content, build)
    assert result.error is None
    row = result.rows[0]
    assert (caplen, wirelen, NO_TIME) == (row["caplen"], row["wirelen"], row["time_ns"])
    assert packet[:caplen] == result.packets[0]


def test_simple_packets_of_the_first_interface(build: str) -> None:
    """A simple packet is of its section's interface 0."""
    first = pcapng(simple("<", FRAME))
    second = pcapng(simple(">", FRAME), order=">", interfaces=[interface(">", 1), interface(">")])
    result = read(first + second, build)
    assert [0, 1] == result.rows["interface"].tolist()
    assert [Layers.VIRTIO, Layers.NONE] == result.rows["layers"].tolist()


@pytest.mark.parametrize(
    ("counts", "dropped"),
    [
        ([], None),
        ([{}], None),
        ([{"if_drop": 0}], 0),
        ([{"if_drop": 3}], 3),
        ([{"if_drop": 3, "os_drop": 4}], 7),
        ([{"if_drop": 3}, {"if_drop": 5}], 5),
        ([{"if_drop": 3}, {"interface": 1, "os_drop": 5}], 8),
        ([{"if_drop": 2**64 - 1}], None),
        ([{"if_drop": 2**64 - 1, "os_drop": 4}], 4),
        ([{"interface": 2, "if_drop": 3}], None),
        ([{"interface": 2**32 - 1, "if_drop": 3}], None),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_dropped_packets(order: str, counts: list[dict[str, int]], dropped: int | None) -> None:
    """The last statistics of each interface count; a count that is unknown does not."""
    blocks = [statistics(order, **count) for count in counts]
    interfaces = [interface(order), interface(order)]
    assert dropped == read(pcapng(*blocks, order=order, interfaces=interfaces)).dropped


# --- damage ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_a_file_cut_anywhere(build: str, order: str) -> None:
    """All packets and blocks before the cut, and an error where it cuts a block."""
    content = every_block(order)
    whole = read(content, build)
    parts = list(pieces(content))
    for cut in range(1, len(content)):
        result = read(content[:cut], build)
        done = [part for part in parts if part.end <= cut]
        count = sum(part.is_packet for part in done)
        assert whole.rows[:count].tolist() == result.rows.tolist()
        assert whole.blocks[: len(done) - count] == result.blocks
        assert (cut in {part.end for part in parts}) == (result.error is None)
        if result.error is not None:
            assert (done[-1].end if done else 0) == result.offset


def damaged(kind: int, body: bytes, **sizes: int) -> bytes:
    """A good packet and then a bad block."""
    return pcapng(enhanced("<", FRAME), block("<", kind, body, **sizes), enhanced("<", FRAME))


HEAD = struct.pack("<IIIII", 0, 0, 0, 100, 100)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (damaged(4, b"", size=0), "a block of type 0x4 claims a length of 0 bytes"),
        (damaged(4, b"", size=8), "a block of type 0x4 claims a length of 8 bytes"),
        (damaged(4, b"", size=13), "a block of type 0x4 claims a length of 13 bytes"),
        (
            damaged(4, b"", size=2**32 - 4),
            "a block of type 0x4 claims a length of 4294967292 bytes",
        ),
        (damaged(4, b"", size=2**24 + 4), "a block of type 0x4 claims a length of 16777220 bytes"),
        (
            damaged(4, b"", size_again=16),
            "a block of type 0x4 gives its length as 12 and then as 16 bytes",
        ),
        (
            damaged(4, b"", size=2**24),
            "a block of type 0x4 and 16777216 bytes is cut off after 128",
        ),
        (damaged(6, HEAD, size=0), "a block of type 0x6 claims a length of 0 bytes"),
        (damaged(6, HEAD, size=2**31), "a block of type 0x6 claims a length of 2147483648 bytes"),
        (damaged(6, HEAD, size=34), "a block of type 0x6 claims a length of 34 bytes"),
        (
            damaged(6, HEAD, size_again=0),
            "a block of type 0x6 gives its length as 32 and then as 0 bytes",
        ),
        (damaged(6, b"abcd"), "a packet block of 16 bytes is too short"),
        (damaged(2, b"abcd"), "a packet block of 16 bytes is too short"),
        (damaged(3, b""), "a packet block of 12 bytes is too short"),
        (damaged(6, HEAD), "a packet block claims 100 bytes of packet, more than 0"),
        (
            damaged(6, struct.pack("<IIIII", 0, 0, 0, 2**32 - 1, 100) + FRAME),
            "a packet block claims 4294967295 bytes of packet, more than 84",
        ),
        (
            damaged(6, struct.pack("<IIIII", 0, 0, 0, 262145, 100) + bytes(262148)),
            "a packet block claims 262145 bytes of packet, more than 262144",
        ),
        (
            damaged(3, struct.pack("<I", 262145) + bytes(262148)),
            "a packet block claims 262145 bytes of packet, more than 262144",
        ),
        (
            damaged(6, struct.pack("<IIIII", 1, 0, 0, 0, 0)),
            "a packet is of interface 1, but the section describes 1",
        ),
        (
            damaged(2, struct.pack("<HHIIII", 9, 0, 0, 0, 0, 0)),
            "a packet is of interface 9, but the section describes 1",
        ),
        (damaged(1, b""), "an interface description of 12 bytes is too short"),
        (damaged(SECTION, bytes(16)), "a section header has the unknown byte-order magic 00000000"),
        (
            damaged(SECTION, struct.pack("<I", 0x1A2B3C4D)),
            "a section header of 16 bytes is too short",
        ),
        (
            damaged(SECTION, section("<", major=2)[8:-4]),
            "the section is of pcapng version 2.0, not 1",
        ),
    ],
)
def test_what_the_error_says(build: str, content: bytes, text: str) -> None:
    """The packet before the damage is read, and the error says what is wrong where."""
    result = read(content, build)
    offset = len(pcapng(enhanced("<", FRAME)))
    assert f"FILE is damaged or cut off at byte {offset}, after packet 1: {text}." == result.error
    assert (1, offset) == (len(result.rows), result.offset)
    assert len(result.blocks) == 2


@pytest.mark.parametrize("order", ORDERS)
def test_a_packet_before_any_interface(build: str, order: str) -> None:
    """A section starts without interfaces, also if the section before had some."""
    for packet in (enhanced(order, FRAME), simple(order, FRAME), obsolete(order, FRAME)):
        good = pcapng(order=order)
        result = read(good + pcapng(packet, order=order, interfaces=[]), build)
        assert "a packet is of interface 0, but the section describes 0" in str(result.error)
        assert len(good + section(order)) == result.offset


def test_a_cut_section_of_the_other_byte_order() -> None:
    """The length in the error is read in the byte order of the section that is cut."""
    good = pcapng(enhanced("<", FRAME))
    result = read(good + section(">")[:20])
    assert str(result.error).endswith(
        ": a block of type 0xa0d0d0a and 28 bytes is cut off after 20."
    )


# --- oracles -----------------------------------------------------------------------------

FORMATS = ("pcap", "nsecpcap", "pcapng", "modpcap")
"""Names of editcap for what it can convert to."""


@pytest.mark.parametrize("name", FORMATS)
def test_converted_by_editcap(tmp_path: Path, name: str) -> None:
    """Every capture converted to another format by Wireshark reads the same."""
    for capture in ALL_CAPTURES:
        target = tmp_path / capture.name
        tool("editcap", "-F", name, capture, target)
        content = target.read_bytes()
        before, after = (
            read(data, rows=100, buffer=1 << 16) for data in (capture.read_bytes(), content)
        )
        assert after.error is None
        assert before.packets == after.packets
        assert before.payloads == after.payloads
        unit = 1000 if name in ("pcap", "modpcap") else 1
        assert [t // unit * unit for t in before.rows["time_ns"].tolist()] == after.rows[
            "time_ns"
        ].tolist()
        for column in ("number", "wirelen", "layers", "malformed", "mon", "virtio"):
            assert before.rows[column].tolist() == after.rows[column].tolist()
        assert (name == "modpcap") == (content[:4] == struct.pack("<I", MODIFIED))


def test_merged_by_mergecap(tmp_path: Path) -> None:
    """Captures merged into one with several interfaces read as Wireshark reads them."""
    merged = tmp_path / "merged.pcapng"
    tool("mergecap", "-w", merged, *(path for path in ALL_CAPTURES if path.name in MERGED))
    result = check_by_tshark(merged)
    assert set(range(len(MERGED))) == set(result.rows["interface"].tolist())


def test_joined_sections_by_tshark(tmp_path: Path) -> None:
    """A file of several sections and byte orders reads as Wireshark reads it."""
    joined = tmp_path / "joined.pcapng"
    shipped = [path.read_bytes() for path in ALL_CAPTURES if path.suffix == ".pcapng"]
    joined.write_bytes(b"".join(shipped) + without_events("<") + without_events(">"))
    check_by_tshark(joined)


def without_events(order: str) -> bytes:
    """every_block without the custom and journal blocks, which tshark counts as packets."""
    content = every_block(order)
    parts = [content[part.start : part.end] for part in pieces(content)]
    kinds = [struct.unpack_from(order + "I", part)[0] for part in parts]
    events = (CUSTOM, CUSTOM_NO_COPY, JOURNAL)
    return b"".join(part for part, kind in zip(parts, kinds, strict=True) if kind not in events)
