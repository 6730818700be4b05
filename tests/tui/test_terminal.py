"""The real program in a real terminal (tmux), and without one."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import pcap_header, pcap_record
from looking import CAPTURES
from scenario import build_frame
from terminal import Tmux

from vsockdump.address import Endpoint
from vsockdump.wire import Op

PROGRAM = f"{shlex.quote(sys.executable)} -m vsockdump"


def test_a_file_in_80_columns(tmux: Tmux) -> None:
    """Moved in, filtered, resized and left; the terminal is as it was."""
    tmux.start(f"{PROGRAM} -r {CAPTURES / 'k612_many.pcap'} --tui", 80, 24)
    tmux.until("1/3400 packets")
    tmux.keys("j", "j")
    tmux.until("3/3400 packets")
    tmux.keys("/")
    tmux.keys("op rst", "Enter")
    tmux.until(" match")
    tmux.run("resize-window", "-t", "tui", "-x", "120", "-y", "40")
    tmux.until("0010  2e 04 00 00 10 c5 7f 39 02 00 02 00 2c")  # rows of sixteen bytes
    tmux.keys("q")
    shown = tmux.until("icanon")
    assert "status 0\nicanon" in shown


def test_a_capture_over_stdin_in_200_columns(tmux: Tmux, tmp_path: Path) -> None:
    """The keyboard works while it comes."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    tmux.start(f"{PROGRAM} -r - --tui < {pipe}", 200, 60)
    with pipe.open("wb") as writer:
        writer.write((CAPTURES / "k612_many.pcap").read_bytes())
        writer.flush()
        tmux.until("3400/3400 packets")
        assert "copied to a temporary file" in tmux.screen()
        tmux.keys("g")
        tmux.until(" 1/3400 packets")
        tmux.keys("q")
        tmux.until("status 0")


def test_killed_it_gives_the_terminal_back(tmux: Tmux) -> None:
    """SIGTERM is a way to leave."""
    tmux.start(f"{PROGRAM} -r {CAPTURES / 'k612_many.pcap'} --tui", 80, 24)
    tmux.until("1/3400 packets")
    shell = int(tmux.run("display-message", "-p", "-t", "tui", "#{pane_pid}"))
    children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
    os.kill(int(children[0]), 15)
    assert "status 0\nicanon" in tmux.until("icanon")


def test_hostile_bytes_do_not_reach_the_terminal(tmux: Tmux, tmp_path: Path) -> None:
    """Neither those of a payload nor those of a file's name."""
    hostile = b"\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b7m" * 3
    frame = build_frame(Endpoint(3, 1024), Endpoint(2, 5000), Op.RW, hostile)
    path = tmp_path / "a\x1b[2Jb[bold]c.pcap"
    path.write_bytes(pcap_header() + pcap_record("<", frame))
    tmux.start(f"{PROGRAM} -r {shlex.quote(str(path))} --tui", 250, 30)
    shown = tmux.until("1/1 packets")
    tmux.until("Virtio transport header")
    tmux.until("1 Packets")
    assert "\\x1b[2Jb[bold]c.pcap" in shown
    tmux.keys("4")
    tmux.until("> \\x1b]0;owned\\x07\\x1b[2J")
    title = tmux.run("display-message", "-p", "-t", "tui", "#{pane_title}")
    assert "owned" not in title
    tmux.keys("q")


@pytest.mark.parametrize(
    ("before", "size", "said"),
    [
        ("TERM=dumb", (80, 24), "set TERM to its kind."),
        ("", (39, 24), "make it larger."),
        ("", (80, 11), "make it larger."),
    ],
)
def test_a_terminal_that_will_not_do(
    tmux: Tmux, before: str, size: tuple[int, int], said: str
) -> None:
    """One sentence, and status 1."""
    tmux.start(f"{before} {PROGRAM} -r {CAPTURES / 'k612_many.pcap'} --tui", *size)
    shown = tmux.until("status 1").replace("\n", "")
    assert said in shown


def test_no_terminal_and_no_capture() -> None:
    """One sentence each."""
    for arguments, status, said in (
        (["-r", str(CAPTURES / "k612_many.pcap")], 1, "draws on a terminal"),
        (["-r", "x", "-w", "y"], 2, "--tui and -w do not go together"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "vsockdump", "--tui", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert status == done.returncode
        assert said in done.stderr
        assert 1 == done.stderr.count("\n")
