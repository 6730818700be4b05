"""Writing captures: what goes in comes out, and what cannot be written is said."""

from pathlib import Path

import blocks
import pytest
from reading import pcap, pcapng, read_file
from running import ALL_CAPTURES, CAPTURES, run, run_bytes, tool

FIELDS = ["frame.number", "frame.time_epoch", "frame.len", "frame.cap_len", "vsock.virtio.len"]


def tshark(path: Path) -> bytes:
    """What tshark reads of a capture."""
    return tool("tshark", "-r", path, "-T", "fields", *(w for f in FIELDS for w in ("-e", f)))


@pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
def test_the_same_format_is_a_copy(capture: Path, tmp_path: Path) -> None:
    """pcap to pcap and pcapng to pcapng leave every byte as it was."""
    copy = tmp_path / capture.name
    assert (0, "", "") == run("-r", capture, "-w", copy)
    assert capture.read_bytes() == copy.read_bytes()


@pytest.mark.parametrize("order", ["<", ">"])
def test_blocks_that_are_no_packets_are_kept(order: str, tmp_path: Path) -> None:
    """Names, statistics, secrets, custom and unknown blocks, before, between and behind."""
    frame = bytes(76)
    others = blocks.other_blocks(order)
    content = pcapng(
        *others, blocks.enhanced(order, frame), *others, blocks.enhanced(order, frame), *others,
        order=order,
    )  # fmt: skip
    source, copy = tmp_path / "source.pcapng", tmp_path / "copy"
    source.write_bytes(content)
    assert 0 == run("-r", source, "-w", copy).status
    assert content == copy.read_bytes()


@pytest.mark.parametrize(
    "name", ["k61_fakeguest.pcap", "k612_bulk_snap96.pcap", "k612_any_sll2.pcap"]
)
def test_a_change_of_format_keeps_packets_and_times(name: str, tmp_path: Path) -> None:
    """pcap to pcapng to pcap: bytes, lengths and nanoseconds, by our reader and by tshark."""
    source, there, back = CAPTURES / name, tmp_path / "there.pcapng", tmp_path / "back.pcap"
    assert (0, "", "") == run("-r", source, "-w", there)
    assert (0, "", "") == run("-r", there, "-w", back)
    before = read_file(str(source))
    for path in (there, back):
        after = read_file(str(path))
        for column in ("time_ns", "wirelen", "mon", "virtio", "payload_wire"):
            assert before.rows[column].tolist() == after.rows[column].tolist()
        assert tshark(source) == tshark(path)


def test_count_and_stdout() -> None:
    """-c N writes N packets, -w - writes to stdout."""
    status, out, err = run_bytes("-r", CAPTURES / "k612_refused.pcap", "-c", "3", "-w", "-")
    assert (0, b"") == (status, err)
    assert out == (CAPTURES / "k612_refused.pcap").read_bytes()[: 24 + 3 * (16 + 76)]


def test_no_packets_are_a_capture_too(tmp_path: Path) -> None:
    """A capture without packets is written with its header, in either format."""
    source = tmp_path / "empty.pcap"
    source.write_bytes(pcap())
    for name in ("copy.pcap", "copy.pcapng"):
        assert (0, "", "") == run("-r", source, "-w", tmp_path / name)
        assert (0, "", "") == run("-r", tmp_path / name)
    assert source.read_bytes() == (tmp_path / "copy.pcap").read_bytes()


def test_other_link_types_stay_in_pcapng_and_do_not_fit_pcap(tmp_path: Path) -> None:
    """A pcap file has one link type."""
    interfaces = [blocks.interface("<", 271), blocks.interface("<", 1)]
    packets = [blocks.enhanced("<", bytes(76)), blocks.enhanced("<", bytes(60), 1)]
    source = tmp_path / "source.pcapng"
    source.write_bytes(pcapng(*packets, interfaces=interfaces))
    copy = tmp_path / "copy.pcapng"
    assert 0 == run("-r", source, "-w", copy).status
    assert source.read_bytes() == copy.read_bytes()
    refused = run("-r", source, "-w", tmp_path / "copy.pcap")
    assert 1 == refused.status
    assert "271" in refused.err
    assert 1 == refused.err.count("\n")


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    """Writing to the file that is read is refused, and leaves it as it was."""
    source = tmp_path / "a.pcap"
    content = (CAPTURES / "k612_refused.pcap").read_bytes()
    source.write_bytes(content)
    result = run("-r", source, "-w", source)
    assert (1, 1) == (result.status, result.err.count("\n"))
    assert content == source.read_bytes()


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere/file.pcap", "/"])
def test_what_cannot_be_written_is_said(path: str) -> None:
    """A full disk, a folder that is not there, a directory: one sentence, exit 1."""
    result = run("-r", CAPTURES / "k612_many.pcap", "-w", path)
    assert (1, "", 1) == (result.status, result.out, result.err.count("\n"))
    assert result.err.startswith("vsockdump: Cannot write ")


def test_packets_before_the_damage_are_written(tmp_path: Path) -> None:
    """Of a cut file all whole records are copied, and the exit status says the rest."""
    content = (CAPTURES / "k612_refused.pcap").read_bytes()
    source, copy = tmp_path / "cut.pcap", tmp_path / "copy.pcap"
    source.write_bytes(content[:-1])
    assert 1 == run("-r", source, "-w", copy).status
    assert content[: -(16 + 76)] == copy.read_bytes()
