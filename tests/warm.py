"""A warm vsockdump: a server that has imported it, and forks for each run of the command.

Half of a run of the tests would otherwise be spent in starting Python.  Rules for editors: this
file is also the server's program, so it imports nothing of the tests.  A run is a fork of a
process that has run nothing before; it gets its own streams, environment, arguments, directory
and Python's first signal handlers, and ends as any Python ends.  Tests about start-up itself
start the program (running.py).
"""

import functools
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, NoReturn, TextIO

_LARGEST_REQUEST: Final = 1 << 17  # bytes; the environment is the most of it
_NUMBER: Final = struct.Struct("=i")


class Run(NamedTuple):
    """A run that was started."""

    pid: int
    reply: socket.socket

    def wait(self, timeout_s: float) -> int:
        """The exit status, or minus the signal; ends a run that takes too long."""
        self.reply.settimeout(timeout_s)
        with self.reply:
            try:
                status = _NUMBER.unpack(self.reply.recv(_NUMBER.size))[0]
            except TimeoutError:
                os.kill(self.pid, signal.SIGKILL)
                raise
        return os.waitstatus_to_exitcode(status)


def start(
    command: Sequence[str], streams: tuple[int, int, int], environment: Mapping[str, str], cwd: str
) -> Run:
    """Run a command (the program and its arguments) on three file descriptors."""
    request = json.dumps([list(command), dict(environment), cwd]).encode()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        socket.send_fds(_server(command[0]), [request], [*streams, theirs.fileno()])
    return Run(_NUMBER.unpack(ours.recv(_NUMBER.size))[0], ours)


@functools.cache
def _server(program: str) -> socket.socket:
    """The server, started at its first use; it ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    with theirs:
        subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), program],
            stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment, cwd="/",
        )  # fmt: skip
    return ours


# --- the server --------------------------------------------------------------------------


def _warm() -> None:
    """Import what most runs import, with no thread left behind."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for name in ("cli", "pipeline", "output.statistics", "apps.dialogues"):
        importlib.import_module(f"vsockdump.{name}")
    from vsockdump.apps.registry import protocols

    protocols()
    assert 1 == len(os.listdir("/proc/self/task")), "a fork would lose a thread"


def _serve(requests: socket.socket) -> list[str] | None:
    """Fork for each request; returns the command in the forks, None at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    while True:
        request, fds, _flags, _address = socket.recv_fds(requests, _LARGEST_REQUEST, 4)
        if not request:
            return None
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _keep(request, fds)
        for fd in fds:
            os.close(fd)


def _keep(request: bytes, fds: list[int]) -> list[str]:
    """Fork the run, tell its process id and its end; returns only in the run."""
    pid = os.fork()
    if not pid:
        command, environment, cwd = json.loads(request)
        _become(fds[:3], environment, cwd)
        return list(command)
    for fd in fds[:3]:
        os.close(fd)
    os.write(fds[3], _NUMBER.pack(pid))
    try:
        os.write(fds[3], _NUMBER.pack(os.waitpid(pid, 0)[1]))
    finally:
        os._exit(0)


def _become(fds: list[int], environment: dict[str, str], cwd: str) -> None:
    """Make this process what a new one would be."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.stdin = sys.__stdin__ = _stream(sys.stdin, 0, "r")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _stream(sys.stdout, 1, "w")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(sys.stderr, 2, "w")  # type: ignore[misc]


def _stream(like: TextIO, fd: int, mode: str) -> TextIO:
    """A standard stream as Python opens it."""
    buffering = 1 if fd == 2 or os.isatty(fd) else -1
    return open(  # type: ignore[return-value]
        fd, mode, buffering, encoding=like.encoding, errors=like.errors, newline="\n", closefd=False
    )


def main() -> NoReturn:
    """The server, and in its forks vsockdump."""
    sys.path[0] = os.path.dirname(sys.argv[2])  # where the program's own is
    _warm()
    requests = socket.socket(fileno=int(sys.argv[1]))
    request = _serve(requests)
    requests.detach()  # a run has closed it
    if request is None:
        raise SystemExit
    sys.argv = request
    from vsockdump.cli import main as vsockdump

    raise SystemExit(vsockdump())


if __name__ == "__main__":
    main()
