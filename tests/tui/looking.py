"""What the tests of the terminal program share: captures that are open, and the program on one."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from vsockdump.capture.reader import FileReader
from vsockdump.tui.app import VsockApp
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.settings import Settings
from vsockdump.tui.session import Session

CAPTURES = Path(__file__).parents[2] / "captures"


@contextlib.contextmanager
def opened(path: str | Path, read: bool = True, **options: Any) -> Iterator[Capture]:
    """The capture of a file; with `read`, read to its end."""
    source = FileReader(str(path))
    capture = Capture(source, **options)
    capture.start()
    if read:
        while capture.wait(len(capture.index), lambda: True):
            pass
    try:
        yield capture
    finally:
        capture.close()
        source.close()


@contextlib.asynccontextmanager
async def running(
    name: str,
    size: tuple[int, int] = (80, 24),
    filter_text: str = "",
    settings: Settings | None = None,
    anew: Any = None,
    **options: Any,
) -> AsyncIterator[tuple[VsockApp, Pilot[None]]]:
    """The program on a capture of ours, and who presses its keys."""
    with opened(CAPTURES / name) as capture:
        session = Session(capture, **options)
        app = VsockApp(session, filter_text, "", settings, anew)
        async with app.run_test(size=size, notifications=True) as pilot:
            await pilot.pause()
            yield app, pilot
        session.listing.cancel()


async def until(pilot: Pilot[None], holds: Any) -> None:
    """Go on until something holds; what does not within 10 s never will."""
    for _ in range(200):
        if holds():
            return
        await pilot.pause(0.05)
    raise AssertionError("it did not come to this")
