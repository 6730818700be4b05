"""Live capture: what was sent is what is shown and written, and what is lost is counted."""

import json
import os
import pty
import random
import re
import select
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest
from listening import Listening, counts
from network import NAME, Network
from running import TIME_LIMIT_S, environment, packets_of, run
from scenario import build_frame

from vsockdump.address import Endpoint
from vsockdump.capture.packet_socket import PacketSocket, Settings
from vsockdump.capture.reader import FileReader
from vsockdump.wire import Op

GUEST, HOST = Endpoint(3, 1024), Endpoint(2, 5000)
REQUEST = build_frame(GUEST, HOST, Op.REQUEST, b"")
DATA = build_frame(GUEST, HOST, Op.RW, b"payload")
LARGEST = build_frame(GUEST, HOST, Op.RW, bytes(65536))


def written(path: Path) -> list[tuple[int, bytes, int]]:
    """(time, captured bytes, length) of the packets of a capture file."""
    reader = FileReader(str(path))
    packets = []
    for batch in reader.batches():
        for row in batch.rows:
            at = int(row["packet_at"])
            data = bytes(batch.buffer[at : at + int(row["caplen"])])
            packets.append((int(row["time_ns"]), data, int(row["wirelen"])))
    reader.close()
    return packets


def random_frames(count: int) -> list[bytes]:
    """Frames of all sizes, some too short to be any."""
    chosen = random.Random(1)
    sizes = [1, 31, 32, 75, 76, 77, 65535, *(chosen.randint(1, 4000) for _ in range(count - 7))]
    return [(DATA + chosen.randbytes(size))[:size] for size in sizes]


# --- what is captured ----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_written_is_what_was_sent_and_what_tcpdump_wrote(
    network: Network, tmp_path: Path, suffix: str
) -> None:
    """Byte for byte and nanosecond for nanosecond, from one traffic."""
    frames = random_frames(300)
    ours, theirs = tmp_path / f"ours.{suffix}", tmp_path / "theirs.pcap"
    arguments = ("-i", NAME, "-w", theirs, "--nano", "-Z", "root", "-c", str(len(frames)))
    tcpdump = subprocess.Popen(
        network.inside("tcpdump", *arguments), stderr=subprocess.PIPE, env=environment()
    )
    assert tcpdump.stderr is not None
    assert b"listening on" in tcpdump.stderr.readline()
    with Listening(network, "-w", ours) as listening:
        network.send(*frames)
        result = listening.end()
    tcpdump.communicate(timeout=TIME_LIMIT_S)
    assert (0, [300, 300, 0]) == (result.status, counts(result.err))
    packets = written(ours)
    assert frames == [data for _time, data, _length in packets]
    assert packets == [tuple(packet) for packet in packets_of(theirs.read_bytes())]


def test_the_largest_frame_is_whole(network: Network, tmp_path: Path) -> None:
    """65612 bytes, more than the device's MTU, arriving by it."""
    path = tmp_path / "large.pcapng"
    with Listening(network, "-w", path) as listening:
        for _ in range(10):
            network.deliver(LARGEST)
        assert 0 == listening.end().status
    assert [(LARGEST, len(LARGEST))] * 10 == [packet[1:] for packet in written(path)]


def test_packets_are_printed_as_they_come(network: Network) -> None:
    """Into a pipe, without -l: each before the next is sent."""
    with Listening(network, "-t") as listening:
        for size in range(1, 4):
            network.send(build_frame(GUEST, HOST, Op.RW, bytes(size)))
            listening.wait_for(f"RW {size}".encode(), "out")
        assert 0 == listening.end().status


@pytest.mark.parametrize(
    "output",
    [("-v",), ("--json", "-x"), ("-T", "fields", "-e", "frame.number", "-e", "vsock.conn")],
)
def test_live_is_as_offline(network: Network, tmp_path: Path, output: tuple[str, ...]) -> None:
    """What is printed of a capture is what is printed of the file that is written of it."""
    path = tmp_path / "one.pcapng"
    with Listening(network, "-w", path, "--print", *output) as listening:
        network.send(REQUEST, *random_frames(50))
        result = listening.end()
    assert run("-r", path, *output).out == result.out


def test_the_device_that_is_up_is_found(network: Network) -> None:
    """Without -i the monitor that is there is used and said."""
    with Listening(network, "-t", on=False) as listening:
        assert f"listening on {NAME}." in listening.err.decode()
        network.send(REQUEST)
        assert "REQUEST" in listening.end().out


def test_snaplen(network: Network, tmp_path: Path) -> None:
    """-s keeps so many bytes, and the length that the packet had."""
    path = tmp_path / "short.pcap"
    with Listening(network, "-s", "80", "-w", path) as listening:
        network.send(DATA, REQUEST)
        listening.end()
    expected = [(DATA[:80], len(DATA)), (REQUEST, len(REQUEST))]
    assert expected == [packet[1:] for packet in written(path)]


# --- how it ends ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_all_packets_before(network: Network, number: int) -> None:
    """What was sent before the signal is shown, though the kernel still held it."""
    with Listening(network, "-t", "-z", "conv", "-P") as listening:
        network.send(REQUEST, DATA)
        result = listening.end(number)
    assert (0, [2, 2, 0]) == (result.status, counts(result.err))
    assert "RW 7" in result.out
    assert "1 connection;" in result.out


def test_count(network: Network) -> None:
    """-c ends it by itself, in the middle of what came at once."""
    with Listening(network, "-t", "-c", "3") as listening:
        network.send(*[DATA] * 10)
        result = listening.end(None)
    assert (0, 3, 3) == (result.status, result.out.count("\n"), counts(result.err)[0])


def test_duration(network: Network) -> None:
    """--duration ends it by itself, though no packet comes."""
    with Listening(network, "-t", "--duration", "0.2") as listening:
        result = listening.end(None)
    assert (0, "", [0, 0, 0]) == (result.status, result.out, counts(result.err))
    assert "Nothing was captured" in result.err


def test_usr1_counts_and_goes_on(network: Network) -> None:
    """The counts so far, without an end, and the counters go on from there."""
    with Listening(network, "-t") as listening:
        for sent in (1, 2):
            network.send(build_frame(GUEST, HOST, Op.RW, bytes(sent)))
            listening.wait_for(f"RW {sent}".encode(), "out")
            listening.process.send_signal(signal.SIGUSR1)
            listening.wait_for(b"0 packets dropped by kernel\n")
            assert [sent, sent, 0] == counts(listening.err.decode())
            listening.err = b""
        network.send(DATA)
        result = listening.end()
    assert [3, 3, 0] == counts(result.err)


@pytest.mark.parametrize(("how", "word"), [("down", "went down"), ("remove", "was removed")])
def test_the_interface_goes(network: Network, tmp_path: Path, how: str, word: str) -> None:
    """It is said, what came before is written, and the exit status is 1."""
    path = tmp_path / "before.pcapng"
    with Listening(network, "-w", path) as listening:
        network.send(REQUEST, DATA)
        getattr(network, how)()
        result = listening.end(None)
    assert (1, [2, 2, 0]) == (result.status, counts(result.err))
    assert f"Interface {NAME} {word}" in result.err
    assert [REQUEST, DATA] == [packet[1] for packet in written(path)]


def test_drops_are_counted(network: Network) -> None:
    """A ring of two blocks while the capture is stopped: what does not fit is counted."""
    with Listening(network, "-t", "-B", "512") as listening:
        listening.process.send_signal(signal.SIGSTOP)
        network.send(*[DATA + bytes(1000)] * 2000)
        listening.process.send_signal(signal.SIGCONT)
        result = listening.end()
    captured, received, dropped = counts(result.err)
    assert (2000, 2000) == (received, captured + dropped)
    assert dropped > 1000
    assert "the ring was full 1 time; give it more room with -B KIB" in result.err
    assert captured == result.out.count("\n") > 100


def test_messages_are_missed_before_packets_are(network: Network) -> None:
    """A ring that is half full: data go by without being parsed, and are counted and printed."""
    call = b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + bytes(1000)
    line = build_frame(GUEST, HOST, Op.RW, call)
    with Listening(network, "-t", "-B", "2048") as listening:
        network.send(REQUEST, line)
        listening.wait_for(b"POST / ", "out")
        listening.process.send_signal(signal.SIGSTOP)
        network.send(*[line] * 1200)
        listening.process.send_signal(signal.SIGCONT)
        result = listening.end()
    assert (0, [1202, 1202, 0]) == (result.status, counts(result.err))
    passed_over = re.search("messages are missing: the data of ([0-9]+) packets", result.err)
    assert passed_over, result.err
    assert 900 < int(passed_over[1]) <= 1200


def test_batches_are_smaller_where_they_take_long(network: Network) -> None:
    """What is made of packets is seen soon, and who falls behind is told."""
    source = network.run(lambda: PacketSocket(NAME, Settings(ring_kib=2048)))
    with closing(source):
        network.send(*[DATA] * 2000)
        sizes, behind = [], []
        for batch in source.batches():
            sizes.append(len(batch))
            behind.append(source.is_behind())
            if sum(sizes) < 6000:
                network.send(*[DATA + bytes(500)] * 2000)
                time.sleep(0.06)
            elif sum(sizes) >= 6000 and not behind[-1]:
                source.stop()
        dropped = source.dropped
    assert True in behind
    assert not behind[-1]
    assert sizes[-1] < max(sizes)
    assert sum(sizes) + dropped >= 6000


def test_killed_while_writing(network: Network, tmp_path: Path) -> None:
    """What was flushed is a readable file after SIGKILL."""
    path = tmp_path / "killed.pcapng"
    with Listening(network, "-P", "-t", "-w", path) as listening:
        network.send(REQUEST, DATA)
        listening.wait_for(b"RW 7", "out")
        listening.end(signal.SIGKILL)
    assert [REQUEST, DATA] == [packet[1] for packet in written(path)]


# --- statistics while it runs --------------------------------------------------------------


def test_statistics_are_shown_again(network: Network) -> None:
    """-z conv,0.1 needs no packet to come, and the clock lets a connect time out."""
    with Listening(network, "-z", "conv,0.1") as listening:
        network.send(REQUEST)
        listening.wait_for(b" connecting\n", "out")
        listening.wait_for(b" timed out  unanswered\n", "out")
        network.send(build_frame(HOST, GUEST, Op.RESPONSE, b""))
        listening.wait_for(b" late", "out")
        result = listening.end()
    blocks = result.out.split("\n\n")
    assert len(blocks) > 20
    assert all("connection" in block for block in blocks)
    assert "late" in blocks[-1]


def test_json_statistics_are_lines(network: Network) -> None:
    """Shown again as JSON, every line is an object."""
    with Listening(network, "--json", "-z", "io,1,0.1") as listening:
        network.send(REQUEST)
        listening.wait_for(b'"packets":1', "out")
        result = listening.end()
    assert all(json.loads(line)["z"] == "io" for line in result.out.splitlines())


def test_what_only_time_tells_is_found_at_its_time(network: Network) -> None:
    """A connect that nobody answers: not before 2 s, and then without another packet."""
    with Listening(network, "-z", "findings,0.1", "--fail-on", "warn") as listening:
        network.send(REQUEST)
        listening.wait_for(b"no findings\n", "out")
        listening.wait_for(b"did not answer the REQUEST of guest 3:1024", "out")
        result = listening.end()
    assert 3 == result.status
    (first,) = {line for line in result.out.splitlines() if line.startswith("warn")}
    assert first.startswith("warn vsock.connect.unanswered: ")


def test_what_only_time_tells_stands_between_the_packets(network: Network) -> None:
    """Once, when its time has come, and of what the filter chooses only."""
    other = build_frame(Endpoint(3, 9), Endpoint(2, 7), Op.REQUEST, b"")
    with Listening(network, "-t", "src", "port", "1024") as listening:
        network.send(other, REQUEST)
        listening.wait_for(b", and it goes on\n", "out")
        result = listening.end()
    packet, *rest = result.out.splitlines()
    assert packet == "#1 guest 3:1024 > host:5000 REQUEST"
    (line,) = rest
    assert line.startswith("#1 ! host:5000 did not answer the REQUEST of guest 3:1024 for ")


def test_a_pipe_has_refreshed_statistics_too(network: Network) -> None:
    """tcpdump -w - | vsockdump -r - -z conv,0.1, and ^C there."""
    reading, writing = os.pipe()
    with subprocess.Popen(
        network.inside("tcpdump", "-U", "-i", NAME, "-w", "-"),
        stdout=writing,
        stderr=subprocess.PIPE,
    ) as tcpdump:
        os.close(writing)
        assert tcpdump.stderr is not None
        assert b"listening on" in tcpdump.stderr.readline()
        command = network.vsockdump("-r", "-", "-z", "conv,0.1")
        with subprocess.Popen(
            command, stdin=reading, stdout=subprocess.PIPE, env=environment()
        ) as process:
            os.close(reading)
            network.send(REQUEST)
            assert process.stdout is not None
            while b"guest 3:1024" not in process.stdout.readline():
                pass
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=TIME_LIMIT_S)
            assert 0 == process.returncode
        tcpdump.terminate()


# --- idle ----------------------------------------------------------------------------------


def test_an_idle_capture_sleeps(network: Network) -> None:
    """It is in the kernel's poll, not awake, while nothing comes."""
    with Listening(network, "-t") as listening:
        until = time.monotonic() + TIME_LIMIT_S
        place = Path(f"/proc/{listening.process.pid}/status")
        while "State:\tS" not in place.read_text():
            assert time.monotonic() < until
        before = _switches(place)
        network.ip("link", "show")  # some time passes, in which it could wake up
        assert _switches(place) - before <= 1
        listening.end()


def _switches(status: Path) -> int:
    """How often a process went to sleep."""
    lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
    return int(lines["voluntary_ctxt_switches"])


# --- on a terminal -------------------------------------------------------------------------


def on_terminal(network: Network, *arguments: str | Path, until: bytes) -> bytes:
    """What a capture with one packet writes to its terminal until the text, and until ^C."""
    ours, theirs = pty.openpty()
    command = network.vsockdump("-i", NAME, *arguments)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment(), cwd="/"
    ) as process:
        os.close(theirs)
        shown = read_until(ours, b"listening on")
        network.send(REQUEST)
        shown += read_until(ours, until)
        process.send_signal(signal.SIGINT)
        shown += read_until(ours, b"dropped by kernel\r\n")
        assert 0 == process.wait(TIME_LIMIT_S)
    os.close(ours)
    return shown


def read_until(fd: int, text: bytes) -> bytes:
    """What comes from a terminal up to some text."""
    shown = b""
    while text not in shown:
        assert select.select([fd], [], [], TIME_LIMIT_S)[0], shown
        shown += os.read(fd, 1 << 16)
    return shown


def test_writing_counts_on_a_terminal(network: Network, tmp_path: Path) -> None:
    """One line that is written over, with what was lost, and gone at the end."""
    shown = on_terminal(
        network, "-w", tmp_path / "a.pcap", until=b"\r\033[K1 packet, 0 dropped by kernel"
    )
    assert b"\r\033[K1 packet captured" in shown


def test_statistics_are_drawn_in_place_on_a_terminal(network: Network) -> None:
    """Over each other while it runs, whole at the end."""
    shown = on_terminal(network, "-z", "conv,0.1", until=b"guest 3:1024").decode()
    *drawings, last = shown.split("\033[H")
    assert len(drawings) > 1
    assert all("\033[K" in drawing for drawing in drawings[1:])
    assert last.startswith("\033[J")
    assert "state" in last  # beyond the terminal's edge


def test_printed_packets_are_not_drawn_over(network: Network) -> None:
    """With -P the tables come between the packets."""
    shown = on_terminal(network, "-P", "-z", "conv,0.1", until=b"1 connection")
    assert b"\033[H" not in shown


# --- filters ---------------------------------------------------------------------------------


def test_a_filter_runs_in_the_kernel(network: Network, tmp_path: Path) -> None:
    """Only packets that match are received at all; what is written is what is sent of them."""
    path = tmp_path / "part.pcap"
    with Listening(network, "-w", path, "port", "1024", "and", "op", "rw") as listening:
        assert "the kernel passes only port 1024 and op rw." in listening.err.decode()
        network.send(REQUEST, DATA, REQUEST, DATA)
        result = listening.end()
    assert (0, [2, 2, 0]) == (result.status, counts(result.err))
    assert [DATA, DATA] == [data for _time, data, _length in written(path)]


def test_what_the_kernel_cannot_decide_is_decided_afterwards(network: Network) -> None:
    """Both directions are let through where a filter asks for state, and no others."""
    answer = build_frame(HOST, GUEST, Op.RESPONSE, b"")
    other = build_frame(GUEST, Endpoint(2, 7), Op.REQUEST, b"")
    with Listening(network, "-t", "src", "port", "1024", "and", "state", "open") as listening:
        assert "passes only src port 1024 or dst port 1024." in listening.err.decode()
        network.send(REQUEST, build_frame(Endpoint(3, 9), HOST, Op.RW, b"x"), answer, other, DATA)
        result = listening.end()
    assert [1, 4, 0] == counts(result.err)
    (line,) = result.out.splitlines()
    assert line.startswith("#1 guest 3:1024 > host:5000 RW 7")


def test_statistics_say_what_the_kernel_kept_from_them(network: Network) -> None:
    """The tables name the kernel's part of the filter, and what chose among the rest."""
    with Listening(network, "-z", "conv", "port", "1024", "and", "conn", "1") as listening:
        network.send(REQUEST, build_frame(Endpoint(3, 9), HOST, Op.REQUEST, b""))
        result = listening.end()
    assert result.out.startswith("1 connection;")
    *_, in_kernel, chosen = result.out.splitlines()
    assert "Seen were only packets that match in the kernel: port 1024" == in_kernel
    assert chosen.endswith("with all their packets: conn 1")
