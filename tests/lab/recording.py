"""Traffic of the lab, captured in the machine, and what vsockdump says of the capture.

A recording holds the logs of the programs (`truths`, see traffic.py) beside vsockdump's
packets and statistics, and finds for each logged connection what vsockdump says of it.
"""

import contextlib
import json
import signal
import struct
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from machine import Machine, Result
from running import PROGRAM, lines
from traffic import LAST_PORT

HERE: Final = Path(__file__).parent
MONITOR: Final = "vsockmon0"
# The ports in the RST of the scenario `last`, as they stand in its frame.
LAST_PACKET: Final = struct.pack("<II", LAST_PORT, LAST_PORT + 1)
Key = tuple[int, int, str]  # port of the initiator, port of the acceptor, type


class Connection(NamedTuple):
    """A connection as its programs know it, and as vsockdump tells of it.

    `packets` are those of `--json -x`, `conv` is its line of `-z conv`, `credit` are the
    lines of `-z credit`, of the initiator's sending first.
    """

    truth: dict[str, Any]
    conv: dict[str, Any]
    credit: list[dict[str, Any]]
    packets: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The scenario's name for it."""
        name: str = self.truth["name"]
        return name

    def sent_by(self, side: int) -> list[dict[str, Any]]:
        """The fields of the packets of the initiator (0) or the acceptor (1)."""
        word = ("initiator", "acceptor")[side]
        return [packet["vsock"] for packet in self.packets if packet["vsock"]["side"] == word]

    def data(self, side: int) -> bytes:
        """The reassembled stream that one side sent."""
        return bytes.fromhex("".join(packet["data"] for packet in self.sent_by(side)))


class Recording:
    """A capture by tcpdump (`path`), by vsockdump (`live`), and the logs of what was captured."""

    def __init__(
        self, path: Path, logs: list[Path], reference: Result, live: Path, capture: Result
    ) -> None:
        self.path = path
        self.reference = reference  # what tcpdump came to
        self.live = live
        self.capture = capture  # what vsockdump came to
        self.truths = truths(*logs)

    @cached_property
    def packets(self) -> list[dict[str, Any]]:
        """All packets, with their bytes in hexadecimal."""
        return _objects("-r", self.path, "--json", "-x")

    @cached_property
    def conversations(self) -> dict[Key, dict[str, Any]]:
        """The lines of `-z conv`; no two connections of a recording have the same ports."""
        found = _objects("-r", self.path, "--json", "-z", "conv")
        rows = [row for row in found if row["z"] == "conv" and "conn" in row]
        by_key = {
            (row["initiator"]["port"], row["acceptor"]["port"], row["type"]): row for row in rows
        }
        assert len(by_key) == len(rows)
        return by_key

    @cached_property
    def connections(self) -> list[Connection]:
        """Each logged connection with what vsockdump says of it."""
        credit: dict[int, list[dict[str, Any]]] = {}
        for row in _objects("-r", self.path, "--json", "-z", "credit"):
            if "conn" in row:
                credit.setdefault(row["conn"], []).append(row)
        packets: dict[int, list[dict[str, Any]]] = {}
        for packet in self.packets:
            packets.setdefault(packet["vsock"]["conn"], []).append(packet)
        found = []
        for truth in self.truths:
            conv = self.conversations[key(truth)]
            number = conv["conn"]
            rows = sorted(credit.get(number, []), key=lambda row: row["sender"] == "acceptor")
            found.append(Connection(truth, conv, rows, packets[number]))
        return found

    def named(self, name: str) -> list[Connection]:
        """The connections of a name; there must be some."""
        found = [each for each in self.connections if each.name == name]
        assert found, f"no traffic is named {name!r}"
        return found


def key(truth: dict[str, Any]) -> Key:
    """What a logged connection is found by."""
    return truth["initiator"][1], truth["acceptor"][1], truth["type"]


def truths(*logs: Path) -> list[dict[str, Any]]:
    """The connections in these logs."""
    return [truth for log in logs for truth in json.loads(log.read_text())]


def _objects(*arguments: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(*arguments)]


# --- made in the machine ---------------------------------------------------------------


@contextlib.contextmanager
def monitor(machine: Machine) -> Iterator[str]:
    """A monitor device that is up while the block runs."""
    machine.check("ip", "link", "add", MONITOR, "type", "vsockmon")
    machine.check("ip", "link", "set", MONITOR, "up")
    try:
        yield MONITOR
    finally:
        machine.check("ip", "link", "delete", MONITOR)


def record(machine: Machine) -> Recording:
    """Every scenario, captured by tcpdump and by vsockdump at the same time."""
    path, live = machine.share / "tcpdump.pcap", machine.share / "vsockdump.pcap"
    with monitor(machine) as device:
        # tcpdump needs room for what comes while it does not run; -Z root, since it would
        # make its file another user's.
        options = ["-U", "-Z", "root", "-B", "16384", "--time-stamp-precision=nano"]
        reference = machine.start("tcpdump", "-i", device, *options, "-w", path)
        capture = machine.start(PROGRAM, "-i", device, "-w", live, "-z", "conv", TZ="UTC")
        for program in (reference, capture):
            program.says("listening on")
        logs = make_traffic(machine, path)
        for program, file in ((reference, path), (capture, live)):
            machine.wait_for_file(file, LAST_PACKET)
            program.send(signal.SIGINT)
        return Recording(path, logs, reference.wait(), live, capture.wait())


def make_traffic(machine: Machine, path: Path) -> list[Path]:
    """Run the programs of all scenarios at the same time, and `last` after them; their logs."""
    runs: list[tuple[Any, ...]] = [
        ("traffic.py", 1, 10000),
        ("traffic.py", 2, 20000),
        ("guest_traffic.py", 30000),
    ]
    logs = [path.with_suffix(f".{number}.json") for number in range(len(runs) + 1)]
    programs = [
        machine.start(sys.executable, HERE / script, log, *words)
        for (script, *words), log in zip(runs, logs, strict=False)
    ]
    for program in programs:
        result = program.wait()
        assert (0, "", "") == result, f"{program}: {result.err}"
    run_scenarios(machine, logs[-1], "last")
    return logs


def run_scenarios(machine: Machine, log: Path, *names: str) -> None:
    """Run these scenarios of traffic.py over loopback."""
    machine.check(sys.executable, HERE / "traffic.py", log, 1, 40000, *names)
