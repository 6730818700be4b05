"""Starting the terminal program on a source, and ending it with the terminal as it was.

Rules for editors: Textual is imported here and not before; what cannot be told on the screen is
said before it is taken.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Final

from vsockdump.capture.source import Source
from vsockdump.config import Config, TuiOptions
from vsockdump.tui.errors import ScreenError
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.history import History
from vsockdump.tui.model.places import config_file, history_file
from vsockdump.tui.model.settings import Settings, SettingsError, load
from vsockdump.tui.session import Session

if TYPE_CHECKING:
    from vsockdump.tui.app import VsockApp

Reopen = Callable[[str | None], Source]

SMALLEST: Final = (40, 12)  # columns and rows
_KEYBOARD: Final = "/dev/tty"
_STDIN: Final = 0
_FIRST_SCREEN_S: Final = 5.0  # at most, until the first packets are on the screen
_SWITCH_S: Final = 0.0005  # the screen's thread waits so long for the capture's, not Python's 5 ms


def require_terminal() -> None:
    """ScreenError where the terminal cannot show the program."""
    if not sys.stderr.isatty():
        raise ScreenError("--tui draws on a terminal, and stderr is none; run it in one.")
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        raise ScreenError("--tui needs a terminal that can move its cursor; set TERM to its kind.")
    columns, rows = os.get_terminal_size(sys.stderr.fileno())
    if columns and (columns < SMALLEST[0] or rows < SMALLEST[1]):
        raise ScreenError(
            f"--tui needs {SMALLEST[0]} columns and {SMALLEST[1]} rows, and this terminal has"
            f" {columns} and {rows}; make it larger."
        )


def take_keyboard() -> None:
    """Let keys come from the terminal where the capture comes over stdin, which is open already."""
    if os.isatty(_STDIN):
        return
    try:
        fd = os.open(_KEYBOARD, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ScreenError(
            f"--tui has no keyboard: {_KEYBOARD} cannot be opened ({reason})."
        ) from None
    os.dup2(fd, _STDIN)
    os.close(fd)


def show(config: Config, source: Source, greeting: str, reopen: Reopen | None = None) -> None:
    """Show the source until the user quits; `reopen` opens it, or another interface, anew."""
    sys.setswitchinterval(_SWITCH_S)
    capture = _captured(config, source)  # the first packets are there when Textual is
    try:
        from vsockdump.tui.app import VsockApp
        from vsockdump.tui.looks import themes

        settings = _settings(themes())
        for name in ("COLUMNS", "LINES"):  # exported by some, and no longer true after a resize
            os.environ.pop(name, None)
        begin = partial(_begin, config, settings, History(history_file()))

        def anew(interface: str | None) -> Session:
            assert reopen is not None
            return begin(_captured(config, reopen(interface)))

        app = VsockApp(begin(capture), config.filter, greeting, settings, anew if reopen else None)
    except BaseException:
        capture.close()
        source.close()
        raise
    try:
        asyncio.run(_run(app))
    finally:
        app.session.close()
        app.session.capture.source.close()


def _captured(config: Config, source: Source) -> Capture:
    """A capture that runs; a file goes on behind its first packets when these are shown."""
    options = config.tui or TuiOptions()
    capture = Capture(source, config.max_connections, options.max_copy, apps=config.apps)
    capture.give_way(_FIRST_SCREEN_S)
    capture.start()
    return capture


def _begin(config: Config, settings: Settings, history: History, capture: Capture) -> Session:
    """How a capture is looked at at first."""
    session = Session(capture, config.text.numeric or settings.numeric, history)
    session.columns, session.times = settings.columns, settings.times
    return session


def _settings(themes: Collection[str]) -> Settings:
    """The user's settings; ScreenError where they cannot be."""
    from vsockdump.tui.keys import ACTIONS
    from vsockdump.tui.looks import style_sheet

    try:
        settings = load(config_file(), themes, ACTIONS)
        style_sheet(settings.colours)
    except SettingsError as error:
        raise ScreenError(str(error)) from None
    return settings


async def _run(app: "VsockApp") -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, app.exit)
    await app.run_async()
