"""Where a scenario runs its programs: starts them, waits for them, ends them, keeps their logs.

Rules for editors: a program is waited for by what it writes or by a socket that appears,
never by time, and never by a connect to a vsock port, which would be in the capture.
Standard library only.
"""

import contextlib
import itertools
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

HERE: Final = Path(__file__).parent
LOOPBACK: Final = 1  # VMADDR_CID_LOCAL
LIMIT_S: Final = 60
FOLDERS: Final = "/run"  # a tmpfs
POLL_S: Final = 0.02
Word = str | Path | int


class Program:
    """A program that runs beside others."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        self._command = command
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def text(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def says(self, text: str) -> Self:
        """Wait until it has written the text."""
        return self.wait(lambda: text in self.text, repr(text))

    def wait(self, done: Callable[[], bool], what: str) -> Self:
        """Wait until `done`; the program must not end before."""
        deadline = time.monotonic() + LIMIT_S
        while not done():
            ended = self._process.poll() is not None and not done()
            if ended or time.monotonic() > deadline:
                why = "ended" if ended else f"took {LIMIT_S} s"
                raise RuntimeError(f"{self._command} {why} before {what}: {self.text}")
            time.sleep(POLL_S)
        return self

    def polls(self) -> Self:
        """Wait until it waits for events: what it listens on is open then."""
        place = Path(f"/proc/{self._process.pid}/wchan")
        return self.wait(lambda: "poll" in place.read_text(), "it polled")

    def reached(self, port: int) -> Self:
        """Wait until it listens on a TCP port: by a connect."""

        def connects() -> bool:
            with socket.socket() as end:
                return not end.connect_ex(("127.0.0.1", port))

        return self.wait(connects, f"it listened on {port}")

    def ends(self) -> Self:
        """Wait until it ends by itself."""
        self._process.wait(LIMIT_S)
        return self

    def end(self) -> None:
        """End it."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
            return
        self._process.kill()
        self._process.wait()


class Stage:
    """A folder, a vsock port and the programs of a scenario; they end with it."""

    def __init__(self, port: int, share: Path) -> None:
        self.port = port
        self.share = share  # with what was built outside the machine
        self._folder = tempfile.TemporaryDirectory(dir=FOLDERS)
        self.folder = Path(self._folder.name)
        self._numbers = itertools.count(1)
        self._running: list[Program] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for program in reversed(self._running):
            program.end()
        self._folder.cleanup()

    def path(self, suffix: str) -> Path:
        """A path for a new file in the folder."""
        return self.folder / f"{next(self._numbers)}.{suffix}"

    def start(self, *command: Word) -> Program:
        """Start a program; it ends with the stage at the latest."""
        program = Program([str(word) for word in command], self.path("log"))
        self._running.append(program)
        return program

    def run(self, *command: Word, stdin: bytes = b"", status: int = 0) -> str:
        """What a program writes, stderr too; it must end with this status."""
        words = [str(word) for word in command]
        done = subprocess.run(
            words, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S
        )
        text = done.stdout.decode(errors="replace")
        if status != done.returncode:
            raise RuntimeError(f"{words} ended with {done.returncode}: {text}")
        return text

    def service(self, name: str, *arguments: Word) -> Program:
        """Start a service of services.py and wait until it listens."""
        return self.start(*_service(name), *arguments).says('"listening"')

    def client(self, name: str, *arguments: Word) -> list[dict[str, Any]]:
        """The log of a client of services.py."""
        return log_lines(self.run(*_service(name), *arguments))

    # --- socat between vsock and what programs know ---------------------------------------

    def socat(self, listen: str, connect: str) -> Program:
        """A socat that takes any number of connections."""
        return self.start("socat", "-d", "-d", f"{listen},fork", connect).says("listening on")

    def to_vsock(self) -> Path:
        """A UNIX socket that leads to the port."""
        path = self.path("socket")
        self.socat(f"UNIX-LISTEN:{path}", f"VSOCK-CONNECT:{LOOPBACK}:{self.port}")
        return path

    def tcp_to_vsock(self, port: int) -> int:
        """The same for programs that know TCP only."""
        self.socat(
            f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr",
            f"VSOCK-CONNECT:{LOOPBACK}:{self.port}",
        )
        return port

    def from_vsock(self, address: str) -> None:
        """Listen on the port and lead to an address of socat's."""
        self.socat(f"VSOCK-LISTEN:{self.port}", address)


def _service(name: str) -> Iterator[Word]:
    yield from (sys.executable, HERE / "services.py", name)


def log_lines(text: str) -> list[dict[str, Any]]:
    """The lines of a log that are JSON objects."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
