"""Writing while capturing: files in turn, each whole and with the kernel's counts."""

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from listening import Listening, counts
from network import Network
from reading import read_file
from running import TIME_LIMIT_S
from scenario import build_frame

from vsockdump.address import Endpoint
from vsockdump.wire import Op

GUEST, HOST = Endpoint(3, 1024), Endpoint(2, 5000)
FRAMES = [build_frame(GUEST, HOST, Op.RW, bytes([number]) * number) for number in range(1, 9)]


def packets(folder: Path) -> list[list[bytes]]:
    """The packets of each file of a folder."""
    return [read_file(str(path)).packets for path in sorted(folder.iterdir())]


def until(folder: Path, files: int) -> None:
    """Wait until a folder has so many files."""
    end = time.monotonic() + TIME_LIMIT_S
    while len(list(folder.iterdir())) < files:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_ring_of_files(network: Network, tmp_path: Path) -> None:
    """The last ones are kept, and each pcapng file ends with what was counted."""
    arguments = ("-b", "packets:2", "-b", "files:2", "-c", str(len(FRAMES) - 1))
    with Listening(network, "-w", tmp_path / "n.pcapng", *arguments) as listening:
        network.send(*FRAMES)
        result = listening.end(None)
    assert (0, 7) == (result.status, counts(result.err)[0])
    assert [FRAMES[4:6], FRAMES[6:7]] == packets(tmp_path)
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert all(re.fullmatch(r"n_0000[34]_\d{14}\.pcapng", name) for name in names)
    assert [0, 0] == [read_file(str(path)).dropped for path in tmp_path.iterdir()]


def test_the_clock_goes_on_without_packets(network: Network, tmp_path: Path) -> None:
    """-b duration: files follow each other while nothing is captured; all can be read."""
    with Listening(network, "-w", tmp_path / "n.pcapng", "-b", "duration:0.05") as listening:
        until(tmp_path, 3)
        network.send(FRAMES[0])
        assert 0 == listening.end().status
    found = packets(tmp_path)
    assert len(found) >= 3
    assert [[FRAMES[0]]] == [each for each in found if each]


def test_a_savefile_waits_for_a_packet(network: Network, tmp_path: Path) -> None:
    """-G with -W ends the capture with the first packet of the next span of time."""
    with Listening(network, "-w", tmp_path / "%s", "-G", "1", "-W", "1") as listening:
        network.send(FRAMES[0])
        (path,) = tmp_path.iterdir()
        end = time.monotonic() + TIME_LIMIT_S
        while listening.process.poll() is None and time.monotonic() < end:
            network.send(FRAMES[1])
            time.sleep(0.05)
        result = listening.end(None)
    assert 0 == result.status
    assert "stopped after 1 file" in result.err
    assert [path] == list(tmp_path.iterdir())
    assert FRAMES[0] == read_file(str(path)).packets[0]


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_killed_while_it_rotates(network: Network, tmp_path: Path, suffix: str) -> None:
    """SIGKILL: every packet that was printed is in a file that can be read."""
    with Listening(network, "-P", "-w", tmp_path / f"n.{suffix}", "-b", "packets:3") as listening:
        network.send(*FRAMES)
        listening.wait_for(b" RW 8", "out")
        listening.end(signal.SIGKILL)
    results = [read_file(str(path)) for path in sorted(tmp_path.iterdir())]
    assert [None] * 3 == [result.error for result in results]
    assert FRAMES == [packet for result in results for packet in result.packets]


def test_to_stdout(network: Network) -> None:
    """-w - is a capture that another program can read while it grows."""
    command = network.vsockdump("-i", network.name, "-w", "-", "-c", str(len(FRAMES)))
    tcpdump = ["tcpdump", "-n", "-t", "-r", "-"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ours,
        subprocess.Popen(
            tcpdump, stdin=ours.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as theirs,
    ):
        assert ours.stderr
        assert b"listening on" in ours.stderr.readline()
        network.send(*FRAMES)
        out, _ = theirs.communicate(timeout=TIME_LIMIT_S)
        ours.communicate(timeout=TIME_LIMIT_S)
        assert (0, 0) == (ours.returncode, theirs.returncode)
    assert len(FRAMES) == out.count(b"VIRTIO")


def test_a_command_without_root(network: Network, tmp_path: Path) -> None:
    """Files and the command are those of the user that -Z names."""
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    arguments = ("-Z", "nobody", "-w", tmp_path / "n.pcap", "-b", "packets:4", "-z", "gzip")
    with Listening(network, *arguments, "-c", "8") as listening:
        network.send(*FRAMES)
        assert 0 == listening.end(None).status
    assert [".gz", ".gz"] == [path.suffix for path in tmp_path.iterdir()]
    assert {"nobody"} == {path.owner() for path in tmp_path.iterdir()}
    assert sorted([FRAMES[:4], FRAMES[4:]]) == sorted(packets(tmp_path))
