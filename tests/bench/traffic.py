"""What the benchmarks of live capture share: the sender in its namespace, and who captures.

Rules for editors: standard library only.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "live")]

from network import NAME, Network  # noqa: E402 - found by the line above

TICKS: Final = os.sysconf("SC_CLK_TCK")


class Traffic:
    """The sender in a namespace."""

    def __init__(self, network: Network, sender: Path) -> None:
        self.network = network
        self.sender = sender

    def send(self, packets: int, rate: int = 0, payload: str = "") -> float:
        """Send packets, at full speed or at a rate, of a byte or PAYLOAD; packets a second."""
        command = self.network.inside(self.sender, NAME, str(packets), str(rate), payload)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        sent, nanoseconds = map(int, done.stdout.split())
        assert sent == packets
        return sent / nanoseconds * 1e9

    @contextmanager
    def captured(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A program that captures meanwhile; it gets ^C at the end."""
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                self.network.inside(*command), stdout=subprocess.DEVNULL, stderr=said
            )
            process.said = said  # type: ignore[attr-defined]
            wait_until_listening(process)
            yield process
            process.send_signal(signal.SIGINT)
            if process.wait():
                sys.exit(f"{shlex.join(command)} failed: {text_of(process)}")
            process.text = text_of(process)  # type: ignore[attr-defined]

    def lost(self, packets: int, rate: int, *command: str) -> tuple[int, float]:
        """Packets that a program lost of those sent, and the rate at which they were."""
        with self.captured(*command) as process:
            speed = self.send(packets, rate)
            settle(process.pid)
        text: str = process.text  # type: ignore[attr-defined]
        found = re.search(r"(\d+) packets? captured|Packets captured: (\d+)", text)
        assert found, text
        return packets - int(found[1] or found[2]), speed


def text_of(process: subprocess.Popen[bytes]) -> str:
    """What a program has said on stderr so far."""
    process.said.seek(0)  # type: ignore[attr-defined]
    return process.said.read().decode()  # type: ignore[attr-defined,no-any-return]


def wait_until_listening(process: subprocess.Popen[bytes]) -> None:
    while not re.search("listening on|Capturing on|File:", text_of(process)):
        if process.poll() is not None:
            sys.exit(f"A capture did not start: {text_of(process)}")
        time.sleep(0.05)
    time.sleep(0.5)  # dumpcap says that it captures a little before it does


def settle(pid: int) -> None:
    """Wait until a program does nothing any more: it has taken all that the kernel kept."""
    before = -1
    while (now := ticks(pid)) != before:
        before = now
        time.sleep(1.5)  # longer than tcpdump's block timeout


def ticks(pid: int) -> int:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def built(folder: Path) -> Path:
    """The sender, compiled."""
    path = folder / "sender"
    subprocess.run(["gcc", "-O2", "-Wall", "-o", path, HERE / "sender.c"], check=True)
    return path
