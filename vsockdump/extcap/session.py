"""One capture: the commands of a plan run until Wireshark, or one of them, has enough.

The first command is told to stop by the end of its stdin, and asked for its counts by a
line: signals reach neither root's processes nor those at the other end of ssh.

Rules for editors: one loop waits for everything, and nothing in it may block.  What the
commands say is kept within bounds and escaped before it is shown.
"""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from vsockdump.extcap.control import Command, Control, Field
from vsockdump.extcap.errors import ExtcapError
from vsockdump.extcap.options import Request
from vsockdump.extcap.plan import Plan, here, look, there, tools
from vsockdump.output.escaped import on_line
from vsockdump.programs import run_to_end

_ASK_S: Final = 1.0  # how often counts are asked for
_GRACE_S: Final = 10.0  # until a capture that does not end is ended; Wireshark waits for 30 s
_LOOK_S: Final = 60.0
_LINE: Final = 1000  # characters of a line that are kept
_TOLD: Final = 5  # lines that are told where a command failed
_LISTENING: Final = "listening on "
# As vsockdump and tcpdump count: in lines, or in one.
_COUNT: Final = re.compile(r"(\d+) packets? (captured|received by filter|dropped by kernel)")
_COUNTS: Final = re.compile(f"(tcpdump: )?({_COUNT.pattern}(, )?)+")
_COUNTED: Final = {"captured": Field.CAPTURED, "dropped by kernel": Field.DROPPED}
_READ: Final = 1 << 16


@contextmanager
def opened(fifo: str) -> Iterator[int]:
    """Wireshark's pipe for packets, once Wireshark has opened it too."""
    try:
        sink = os.open(fifo, os.O_WRONLY)
    except OSError as error:
        raise _cannot_open(error) from None
    try:
        yield sink
    finally:
        os.close(sink)


def capture(wanted: Request, sink: int, incoming: str, outgoing: str) -> int:
    """Capture into Wireshark's pipe; the exit status.  Raises ExtcapError."""
    plan = there(wanted, tools(_look(wanted))) if wanted.host else here(wanted)
    try:
        control = Control(incoming, outgoing)
    except OSError as error:
        raise _cannot_open(error) from None
    with control:
        return _Session(plan, sink, control).run()


def _cannot_open(error: OSError) -> ExtcapError:
    reason = os.strerror(error.errno or 0).lower()
    return ExtcapError(f"cannot open {error.filename}: {reason}")


def _look(wanted: Request) -> str:
    """What the other end says that it has."""
    try:
        done = run_to_end(look(wanted), _LOOK_S)
    except FileNotFoundError:
        raise ExtcapError("there is no ssh here; install OpenSSH's client") from None
    except subprocess.TimeoutExpired:
        raise ExtcapError(f"{wanted.host} did not answer within {_LOOK_S:.0f} s") from None
    if done.returncode:
        said = [on_line(line)[:_LINE] for line in done.stderr.splitlines()[-_TOLD:]]
        raise ExtcapError(
            f"ssh cannot run a command on {wanted.host} ({'; '.join(said)}); log in there once"
            " from a terminal, with a key that needs no password"
        )
    return done.stdout


class _Lines:
    """What a command writes to stderr, line by line."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, data: bytes) -> list[str]:
        """The lines that `data` ends; a line without end is cut."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[: 4 * _LINE]
        return [on_line(line.decode(errors="replace"))[:_LINE] for line in lines]


class _Session:
    """The commands, Wireshark's pipe (`sink`), and what goes to and fro."""

    def __init__(self, plan: Plan, sink: int, control: Control) -> None:
        self._control = control
        self._sink = sink
        self._said: deque[str] = deque(maxlen=_TOLD)
        self._counts: dict[Field, int] = {}
        self._asks = self._stopped = False
        self._deadline = 0.0
        if plan.remark:
            self._tell(plan.remark)
        self._wake, wakes = os.pipe()
        os.set_blocking(wakes, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        self._processes = _start(plan.commands, sink)
        self._pipes = {
            process.stderr.fileno(): _Lines() for process in self._processes if process.stderr
        }

    def run(self) -> int:
        """Until all commands have ended."""
        poll = select.poll()
        poll.register(self._sink, 0)  # POLLERR: Wireshark reads no more
        for fd in (*self._pipes, self._wake):
            poll.register(fd, select.POLLIN)
        if self._control.fd >= 0:
            poll.register(self._control.fd, select.POLLIN)
        due = time.monotonic() + _ASK_S
        while self._pipes:
            for fd, _events in poll.poll(max(due - time.monotonic(), 0) * 1000):
                if not self._take(fd):
                    poll.unregister(fd)
            if time.monotonic() >= due:
                due += _ASK_S
                self._tick()
        return self._end()

    def _take(self, fd: int) -> bool:
        """What has come on a descriptor; False where no more will come."""
        if fd in self._pipes:
            data = os.read(fd, _READ)
            for line in self._pipes[fd].add(data or b"\n"):
                self._hear(line)
            if not data:
                del self._pipes[fd]
            return bool(data)
        if fd == self._control.fd and self._control.receive():
            return True
        self._stop()
        if fd == self._wake:
            os.read(fd, _READ)
        return fd == self._wake

    def _hear(self, line: str) -> None:
        """A line that a command wrote to stderr."""
        if _COUNTS.fullmatch(line.strip()):
            for number, what in _COUNT.findall(line):
                self._show_count(int(number), what)
        elif line.strip() and line not in self._said:
            self._asks = self._asks or _LISTENING in line
            self._tell(line)

    def _tell(self, line: str) -> None:
        """Say it in the status bar, and keep it in the log."""
        self._said.append(line)
        self._control.send(Command.STATUSBAR, text=line)
        self._control.send(Command.ADD, Field.LOG, line)

    def _show_count(self, number: int, what: str) -> None:
        field = _COUNTED.get(what)
        if field is None or self._counts.get(field) == number:
            return
        self._counts[field] = number
        self._control.send(Command.SET, field, str(number))
        if field == Field.DROPPED and number:
            self._control.send(
                Command.STATUSBAR,
                text=f"{number} packets dropped by the kernel; a larger buffer or fewer bytes of"
                " each packet help",
            )

    def _tick(self) -> None:
        """Once a second: ask for counts; end what should have ended."""
        first = self._processes[0]
        if self._stopped:
            if time.monotonic() > self._deadline:
                self._kill()
        elif self._asks and first.stdin is not None:
            with suppress(BrokenPipeError):  # it has ended, which its stderr tells
                first.stdin.write(b"\n")

    def _stop(self) -> None:
        """Let the first command finish, and with it the others."""
        first = self._processes[0]
        if self._stopped or first.stdin is None:
            return
        self._stopped = True
        self._deadline = time.monotonic() + _GRACE_S
        first.stdin.close()

    def _kill(self) -> None:
        for process in self._processes:
            with suppress(PermissionError):  # root's, by sudo: its pipes close with us
                process.kill()
        self._pipes.clear()

    def _end(self) -> int:
        """The exit status: 0 where we ended it, or it ended well."""
        statuses = []
        for process in self._processes:
            for pipe in (process.stdin, process.stderr):
                if pipe is not None:
                    pipe.close()
            with suppress(subprocess.TimeoutExpired):  # root's, which we may not end
                statuses.append(process.wait(_GRACE_S))
        if self._stopped or not any(statuses):
            return 0
        wrong = [line for line in self._said if _LISTENING not in line]
        print("\n".join(wrong or [f"vsockdump: it ended with {statuses}."]), file=sys.stderr)
        return 1


def _start(commands: list[list[str]], sink: int) -> list[subprocess.Popen[bytes]]:
    """Start commands of which each writes to the next, the last one to `sink`."""
    processes: list[subprocess.Popen[bytes]] = []
    for index, words in enumerate(commands):
        last = index == len(commands) - 1
        before = processes[-1].stdout if processes else None
        try:
            process = subprocess.Popen(
                words,
                stdin=before or subprocess.PIPE,
                stdout=sink if last else subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                start_new_session=True,  # ^C to all of tshark would end it twice
            )
        except FileNotFoundError:
            for started in processes:
                started.kill()
            raise ExtcapError(f"there is no {words[0]} here; install it") from None
        if before is not None:
            before.close()
        processes.append(process)
    return processes
