"""Progress of long work, on a terminal only and not before it has taken a second."""

import sys
import time
from types import TracebackType
from typing import Any, Final

from vsockdump.capture.source import Source

_PATIENCE_S: Final = 1.0


class LiveProgress:
    """One line on stderr that counts what is captured; silent unless that is a terminal."""

    EVERY_S: Final = 0.5

    def __init__(self, source: Source) -> None:
        self._source = source
        self.wanted = sys.stderr.isatty()
        self._shown = False

    def update(self) -> None:
        """Show the counts as they are now."""
        counts = self._source.counts()
        lost = "" if counts is None else f", {counts.dropped:,} dropped by kernel"
        packets = self._source.packets
        self._show(f"{packets:,} {'packet' if packets == 1 else 'packets'}{lost}")
        self._shown = True

    def clear(self) -> None:
        """Take the line away, so that something else can stand there."""
        if self._shown:
            self._show("")
            self._shown = False

    def _show(self, text: str) -> None:
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


class Progress:
    """A progress bar on stderr for reading `source`; silent where it would disturb.

    It is shown if stderr is a terminal, the size of the input is known, and the packets do
    not scroll by on the same terminal (`printing`).
    """

    def __init__(self, source: Source, printing: bool) -> None:
        self._source = source
        scrolls = printing and sys.stdout.isatty()
        self._wanted = sys.stderr.isatty() and source.size > 0 and not scrolls
        self._from = time.monotonic() + _PATIENCE_S
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, packets: int) -> None:
        """Show how far the reading is; `packets` is the number read so far."""
        if not self._wanted or time.monotonic() < self._from:
            return
        if self._bar is None:
            try:
                self._start()
            except ImportError:  # a user without access to the packages, see -Z
                self._wanted = False
                return
        self._bar.update(self._task, completed=self._source.position, packets=packets)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[packets]:,} packets"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("Reading", total=self._source.size, packets=0)
        self._bar.start()
