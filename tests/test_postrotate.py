"""The command for finished files: who gets them, and that it disturbs nothing."""

import fcntl
import os
import subprocess
import time
from pathlib import Path

import pytest
from running import CAPTURES, PROGRAM, TIME_LIMIT_S, environment, run

from vsockdump.output.postrotate import PostRotate

SOURCE = CAPTURES / "k612_many.pcap"
SPLIT = ("-b", "packets:1000")  # four files
FILES = 4


def script(folder: Path, *lines: str) -> Path:
    """A command of these lines of shell."""
    path = folder / "the command"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def until(true: object) -> None:
    """Wait until a condition holds."""
    assert callable(true)
    end = time.monotonic() + TIME_LIMIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("option", ["-z", "--postrotate-command"])
def test_each_file_once_and_finished(option: str, tmp_path: Path) -> None:
    """The last one too; a file has all its packets when the command gets it."""
    log, folder = tmp_path / "log", tmp_path / "out"
    folder.mkdir()
    command = script(tmp_path, f'echo "$# $(stat -c %s "$1") $1" >>{log}')
    assert (0, "", "") == run("-r", SOURCE, "-w", folder / "n.pcap", *SPLIT, option, command)
    files = sorted(folder.iterdir())
    assert FILES == len(files)
    expected = [f"1 {path.stat().st_size} {path}" for path in files]
    assert sorted(expected) == sorted(log.read_text().splitlines())


def test_the_end_of_a_time_is_the_end_of_a_file(tmp_path: Path) -> None:
    """-G with -W: the last file goes to the command once."""
    log = tmp_path / "log"
    command = script(tmp_path, f'echo "$1" >>{log}')
    run("-r", SOURCE, "-w", tmp_path / "%s.n", "-G", "1", "-W", "1", "-z", command)
    assert [str(path) for path in tmp_path.glob("*.n")] == log.read_text().splitlines()


def test_statistics_beside_a_command(tmp_path: Path) -> None:
    """-z with the name of a statistic is that statistic, also where files rotate."""
    log = tmp_path / "log"
    command = script(tmp_path, f'echo "$1" >>{log}')
    arguments = ("-w", tmp_path / "n", *SPLIT, "-z", "io,0", "-z", command)
    result = run("-r", SOURCE, *arguments)
    assert (0, "") == (result.status, result.err)
    assert "3400" in result.out
    assert FILES == log.read_text().count("\n")


@pytest.mark.parametrize(
    "name", ["a b;$(touch broken)'\"`.pcap", "-rf.pcap", "new\nline.pcap", "*", "\udcff.pcap"]
)
def test_names_are_one_argument(name: str, tmp_path: Path) -> None:
    """Whatever is in them; one that looks like an option does not become one."""
    command = script(tmp_path, 'test $# = 1 && test -f "$1" && cat "$1" >>sum')
    done = subprocess.run(
        [PROGRAM, "-r", SOURCE, f"-w{name}", *SPLIT, "-z", "./the command"],
        cwd=tmp_path, capture_output=True, env=environment(), timeout=TIME_LIMIT_S, check=False,
    )  # fmt: skip
    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)
    files = [path for path in tmp_path.iterdir() if path.name not in ("sum", command.name)]
    assert FILES == len(files)
    assert sum(path.stat().st_size for path in files) == (tmp_path / "sum").stat().st_size


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    """Said for each file; the capture is whole all the same."""
    result = run("-r", SOURCE, "-w", tmp_path / "n", *SPLIT, "-z", "/no/such command")
    assert (0, "", FILES) == (result.status, result.out, result.err.count("\n"))
    assert result.err.startswith("vsockdump: Cannot run /no/such command for ")
    assert FILES == len(list(tmp_path.iterdir()))


@pytest.mark.parametrize(("line", "how"), [("exit 3", "exit status 3"), ("kill -9 $$", "signal 9")])
def test_a_command_that_fails(line: str, how: str, tmp_path: Path) -> None:
    """Said for each file."""
    command = script(tmp_path, line)
    result = run("-r", SOURCE, "-w", tmp_path / "n", *SPLIT, "-z", command)
    assert (0, "", FILES) == (result.status, result.out, result.err.count("\n"))
    assert all(line.endswith(f" failed with {how}.") for line in result.err.splitlines())


def test_what_it_prints_is_no_packet(tmp_path: Path) -> None:
    """It goes to stderr, and stdin is empty."""
    command = script(tmp_path, "echo heard: $(cat)")
    result = run("-r", SOURCE, "-w", tmp_path / "n", *SPLIT, "-z", command, "-P")
    assert (0, 3400, ["heard:"] * FILES) == (
        result.status,
        result.out.count("\n"),
        result.err.splitlines(),
    )


def test_the_capture_does_not_wait_and_its_end_does(tmp_path: Path) -> None:
    """All files are written while every command hangs, in a process group of its own."""
    lock, log, folder = tmp_path / "lock", tmp_path / "log", tmp_path / "out"
    folder.mkdir()
    command = script(
        tmp_path,
        f"exec 9>>{lock}; flock 9",
        f"sed 's/.*) //' /proc/$$/stat | cut -d' ' -f3,17 | sed s/^$$/own/ >>{log}",
    )
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with subprocess.Popen(
            [PROGRAM, "-r", SOURCE, "-w", folder / "n", *SPLIT, "-z", command],
            env=environment(),
        ) as process:
            until(lambda: FILES == len(list(folder.iterdir())))
            until(
                lambda: (
                    sum(path.stat().st_size for path in folder.iterdir()) > SOURCE.stat().st_size
                )
            )
            assert process.poll() is None
            assert not log.exists()
            fcntl.flock(held, fcntl.LOCK_UN)
            assert 0 == process.wait(TIME_LIMIT_S)
    assert ["own 19"] * FILES == log.read_text().splitlines()


def test_commands_are_reaped_while_the_capture_runs(tmp_path: Path) -> None:
    """None stays as a zombie once it has ended and `reap` was called."""
    said: list[str] = []
    command = PostRotate("true", said.append)
    children = Path("/proc/thread-self/children")
    before = set(children.read_text().split())  # a warm process, perhaps
    command.run(str(tmp_path / "any"))
    (pid,) = map(int, set(children.read_text().split()) - before)

    def gone() -> bool:
        command.reap()
        return not Path(f"/proc/{pid}").exists()

    until(gone)
    assert [] == said
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
