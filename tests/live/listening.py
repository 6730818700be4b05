"""vsockdump in the background, capturing: started, waited for, signalled, and its result."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from network import Network
from running import TIME_LIMIT_S, Result, environment

COUNTS: Final = ("captured", "received by filter", "dropped by kernel")


class Listening:
    """A capture that runs; a context manager that kills what still runs at its end."""

    def __init__(
        self, network: Network, *arguments: str | Path, on: bool = True, **settings: str
    ) -> None:
        interface = ("-i", network.name) if on else ()
        self.process = subprocess.Popen(
            network.vsockdump(*interface, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**settings),
            cwd="/",
        )
        self.err = b""
        self.out = b""

    def __enter__(self) -> "Listening":
        self.wait_for(b"listening on ")
        self.wait_for(b".\n")
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def wait_for(self, text: bytes, stream: str = "err") -> None:
        """Read a stream until it has held this text."""
        pipe = getattr(self.process, f"std{stream}")
        until = time.monotonic() + TIME_LIMIT_S
        while text not in getattr(self, stream):
            ready, _, _ = select.select([pipe], [], [], max(until - time.monotonic(), 0))
            assert ready, (
                f"{text!r} did not come; there is {self.err[-1000:]!r} and {self.out[-1000:]!r}"
            )
            more = os.read(pipe.fileno(), 1 << 16)
            assert more, (
                f"{text!r} did not come; there is {self.err[-1000:]!r} and {self.out[-1000:]!r}"
            )
            setattr(self, stream, getattr(self, stream) + more)

    def end(self, number: int | None = signal.SIGINT) -> Result:
        """Send a signal, or none, and wait for the result, all that was printed included."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=TIME_LIMIT_S)
        return Result(self.process.returncode, (self.out + out).decode(), (self.err + err).decode())


def counts(err: str) -> Sequence[int]:
    """The last three counts that were printed, as in COUNTS."""
    found = []
    for what in COUNTS:
        lines = [line for line in err.splitlines() if line.endswith(f" {what}")]
        number, noun, *_rest = lines[-1].split()
        assert noun == ("packet" if number == "1" else "packets")
        found.append(int(number))
    return found
