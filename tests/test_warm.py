"""A fork of the warm process runs as the program that is started: output, stderr and status."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import warm
from running import (
    ALL_CAPTURES,
    CAPTURES,
    PROGRAM,
    TIME_LIMIT_S,
    environment,
    run_cold,
    run_warm,
)

MANY = CAPTURES / "k612_many.pcap"
REFUSED = CAPTURES / "k612_refused.pcap"
SAMPLE = [
    *(["-r", path, "-z", "conv"] for path in ALL_CAPTURES[::6]),
    ["-r", REFUSED, "-v"],
    ["-r", REFUSED, "--json"],
    ["-r", REFUSED, "-w", "-"],
    ["-r", MANY, "-z", "findings", "--fail-on", "warning"],
    ["-r", REFUSED, "-z", "nothing"],
    ["-r", "/nowhere"],
    ["-r", "-"],
    ["--help"],
    ["--list-fields"],
]


@pytest.mark.parametrize("arguments", SAMPLE, ids=str)
@pytest.mark.parametrize("stdin", [None, REFUSED.read_bytes()], ids=["no input", "a capture"])
def test_same_as_a_cold_start(arguments: list[str | Path], stdin: bytes | None) -> None:
    """In whatever order: no run leaves anything to the next."""
    command = [PROGRAM, *map(str, arguments)]
    for env in (environment(), environment("Asia/Tokyo", COLUMNS="70")):
        assert run_cold(command, env, stdin) == run_warm(command, env, stdin)


def status_cold(command: list[str], streams: tuple[int, int, int], interrupt: bool) -> int:
    """The status of a program that is started on these descriptors."""
    stdin, stdout, stderr = streams
    with subprocess.Popen(
        command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment(), cwd="/"
    ) as process:
        if interrupt:
            wait_for_reader(process.pid)
            process.send_signal(signal.SIGINT)
        return process.wait(TIME_LIMIT_S)


def status_warm(command: list[str], streams: tuple[int, int, int], interrupt: bool) -> int:
    """The status of a fork."""
    process = warm.start(command, streams, environment(), "/")
    if interrupt:
        wait_for_reader(process.pid)
        os.kill(process.pid, signal.SIGINT)
    return process.wait(TIME_LIMIT_S)


def wait_for_reader(pid: int) -> None:
    """Until a process sleeps in a read of its stdin, a pipe."""
    for _ in range(TIME_LIMIT_S * 100):
        call = Path(f"/proc/{pid}/wchan").read_text()
        if "pipe_read" in call:
            return
        signal.sigtimedwait([], 0.01)
    pytest.fail("it does not read")


@pytest.mark.parametrize("status", [status_cold, status_warm], ids=["cold", "warm"])
def test_interrupt_and_closed_pipe(status: object, tmp_path: Path) -> None:
    """A reader that goes away ends both by SIGPIPE; ^C while waiting for input ends both alike."""
    assert callable(status)
    with open(tmp_path / "err", "w+b") as err, open(os.devnull) as null:
        reader, writer = os.pipe()
        os.close(reader)
        closed = status([PROGRAM, "-r", str(MANY)], (null.fileno(), writer, err.fileno()), False)
        os.close(writer)
        assert -signal.SIGPIPE == closed
        reader, writer = os.pipe()
        streams = reader, err.fileno(), err.fileno()
        assert -signal.SIGINT == status([PROGRAM, "-r", "-"], streams, True)
        os.close(reader)
        os.close(writer)
        err.seek(0)
        assert b"" == err.read()


def test_a_fork_has_no_descriptor_of_the_server() -> None:
    """Only its own three: a pipe of another run that it held open would never end."""
    reader, writer = os.pipe()
    with open(os.devnull, "r+b") as null:
        process = warm.start([PROGRAM, "-r", "-"], (reader, null.fileno(), 2), environment(), "/")
        os.close(reader)
        wait_for_reader(process.pid)
        assert {"0", "1", "2"} <= set(os.listdir(f"/proc/{process.pid}/fd"))
        held = {
            os.readlink(f"/proc/{process.pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{process.pid}/fd")
        }
        os.kill(process.pid, signal.SIGKILL)
        os.close(writer)
        assert not {name for name in held if name.startswith("socket:")}
        assert -signal.SIGKILL == process.wait(TIME_LIMIT_S)
