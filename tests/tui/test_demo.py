"""--demo, a capture that is started anew, and the program without any option."""

import asyncio
import gzip
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_demo
import pytest
from looking import CAPTURES, running, until
from running import lines
from terminal import Tmux
from test_panes import drawn
from test_terminal import PROGRAM

from vsockdump import cli, demo
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.playback import Playback
from vsockdump.capture.reader import FileReader
from vsockdump.tui.app import VsockApp
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.session import Session


def test_the_demo_is_made_of_captures_of_ours() -> None:
    """As the script makes it; most of it is well and some of it is not."""
    assert make_demo.demo() == gzip.decompress(demo.PATH.read_bytes())
    printed = "\n".join(lines("-r", demo.PATH, "-z", "findings", "-z", "apps"))
    assert all(word in printed for word in ("error", "warn", "note", "http", "ssh"))


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        """The time."""
        return self.now


def test_packets_come_when_their_time_has() -> None:
    """None before, none is left out; the time is that of the file."""
    reader = FileReader(str(CAPTURES / "k612_bulk_stall.pcap"))
    times = [time for batch in reader.batches() for time in batch.rows["time_ns"].tolist()]
    reader.close()
    clock = Clock()
    source = Playback(str(CAPTURES / "k612_bulk_stall.pcap"), "demo", clock)
    assert source.now_ns() is None
    seen: list[int] = []
    for batch in source.batches():
        seen += batch.rows["time_ns"].tolist()
        assert times[: len(seen)] == seen
        assert seen[-1] <= times[0] + clock.now == source.now_ns()
        if len(seen) < len(times):
            assert times[len(seen)] > times[0] + clock.now
            clock.now = times[min(len(seen) + 3, len(times) - 1)] - times[0]
    assert times == seen
    source.close()


def test_playing_can_be_stopped() -> None:
    """Nothing follows."""
    source = Playback(str(demo.PATH), "demo", Clock())
    count = 0
    for batch in source.batches():
        count += len(batch)
        source.stop()
    assert 1 == count
    source.close()


def test_started_anew() -> None:
    """Columns, filter and notation stay, packets and marks do not; what fails is told."""

    def anew(interface: str | None) -> Session:
        if interface is None and len(asked) > 1:
            raise CaptureError("There is no [such] file.")
        asked.append(interface)
        capture = Capture(FileReader(str(CAPTURES / "prog_http.pcapng")))
        capture.start()
        return Session(capture)

    asked: list[str | None] = []

    async def test(app: VsockApp, pilot: Any) -> None:
        await until(pilot, lambda: app.session.current)
        await pilot.press("m", "t", "a", "slash", *"op rw", "enter")
        first = app.session
        await pilot.press("R")
        await until(pilot, lambda: app.session is not first)
        await until(pilot, lambda: "op rw" in drawn(app) and "/31 packets" in drawn(app))
        assert (set(), 0, True) == (app.session.marked, app.session.times, app.session.numeric)
        assert first.capture.ended
        await pilot.press("I")
        await until(pilot, lambda: "Only a live capture" in drawn(app))
        await pilot.press("R")
        await until(pilot, lambda: len(asked) == 2)
        await pilot.pause(0.3)
        await pilot.press("R")
        await until(pilot, lambda: "There is no [such] file." in drawn(app))
        await pilot.press("2", "1", "j")
        app.session.close()

    run_test(test, anew)


def test_what_comes_once_is_not_started_anew() -> None:
    """It is said."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("R")
        await until(pilot, lambda: "comes once" in drawn(app))

    run_test(test, None)


def run_test(test: Any, anew: Callable[[str | None], Session] | None) -> None:
    """Run a test on the program."""

    async def run() -> None:
        async with running("k612_many.pcap", (120, 30), anew=anew) as (app, pilot):
            await test(app, pilot)

    asyncio.run(run())


def test_the_demo_in_a_terminal(tmux: Tmux) -> None:
    """Live, and anew."""
    tmux.start(f"{PROGRAM} --demo", 80, 24)
    tmux.until("live")
    tmux.until("REQUEST")
    tmux.keys("S")
    tmux.until("ended")
    tmux.keys("R")
    tmux.until("live")
    tmux.keys("q")
    assert "status 0\nicanon" in tmux.until("icanon")


@pytest.mark.parametrize("option", ["-r", "-i"])
def test_a_demo_of_something_else(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """There is none."""
    with pytest.raises(SystemExit):
        cli.main(["--demo", option, "x"])
    assert "leave -r and -i out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("terminal", "term", "device", "expected"),
    [
        (True, "xterm", "vsockmon0", True),
        (True, "xterm", None, False),
        (True, "dumb", "vsockmon0", False),
        (False, "xterm", "vsockmon0", False),
    ],
)
def test_without_any_option(
    terminal: bool, term: str, device: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal program, on a terminal and with a device at hand; else as ever."""
    monkeypatch.setattr("os.isatty", lambda _fd: terminal)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("vsockdump.capture.vsockmon.existing", lambda: device)
    seen: list[bool] = []
    monkeypatch.setattr(cli, "_run", lambda _parser, arguments: seen.append(arguments.tui) or 0)
    monkeypatch.setattr(sys, "argv", ["vsockdump"])
    cli.main()
    cli.main(["-n"])
    assert [expected, False] == seen


def test_the_demo_is_installed() -> None:
    """It is named as data of the package."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "demo/*.pcap.gz" in project["tool"]["setuptools"]["package-data"]["vsockdump"]
    assert "vsockdump.demo" in project["tool"]["setuptools"]["packages"]
