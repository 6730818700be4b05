"""A capture file played as if its packets were captured now: each comes when its time has.

Rules for editors: to the stages behind it this is a live capture, so that they show what they
would show of one; times are those of the file.
"""

import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Final

import numpy as np

from vsockdump.batch import Batch
from vsockdump.capture.interface import Interface
from vsockdump.capture.reader import FileReader
from vsockdump.capture.source import Counts


class Playback:
    """A source that plays the file at `path`; `clock` gives nanoseconds that only grow."""

    live: Final = True
    size: Final = 0
    position: Final = 0
    dropped: Final = None
    read_again: Final = None

    def __init__(self, path: str, name: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.name = name
        self._reader = FileReader(path)
        self.format = self._reader.format
        self._clock = clock
        self._first: int | None = None  # the time of the first packet, and when it came
        self._began = 0
        self._stopped = Event()

    @property
    def header(self) -> bytes:
        """The file header."""
        return self._reader.header

    @property
    def interfaces(self) -> list[Interface]:
        """Those of the file."""
        return self._reader.interfaces

    @property
    def packets(self) -> int:
        """How many were read so far, those whose time has not come included."""
        return self._reader.packets

    def is_behind(self) -> bool:
        """Never: it waits."""
        return False

    @property
    def kept(self) -> int:
        """As the reader of the file."""
        return self._reader.kept

    def batches(self) -> Iterator[Batch]:
        """The packets, as their times come."""
        for batch in self._reader.batches():
            if self._first is None:
                self._first, self._began = int(batch.rows["time_ns"][0]), self._clock()
            done = 0
            while done < len(batch) and not self._stopped.is_set():
                times = batch.rows["time_ns"][done:]
                due = int(np.searchsorted(np.maximum.accumulate(times), self._now(), "right"))
                if due:
                    yield batch.take(np.arange(done, done + due))
                    done += due
                else:
                    self._stopped.wait(max(int(times[0]) - self._now(), 1) / 1e9)

    def _now(self) -> int:
        return (self._first or 0) + self._clock() - self._began

    def stop(self) -> None:
        """End `batches`."""
        self._stopped.set()

    def counts(self) -> Counts | None:
        """Nobody counts."""
        return None

    def now_ns(self) -> int | None:
        """The time of the file that is played now; None before its first packet."""
        return None if self._first is None else self._now()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
