"""Where one file of a capture ends and how the next one is called.

Two habits exist, and users of either program find their own: tcpdump's -C, -G and -W, and
the ring buffers of dumpcap's -b.

Rules for editors: pure; times come in, names and limits go out, CaptureFile acts on them.
Names of both were compared with what the programs write.  What differs on purpose: a file
that is read is cut by the packets' times, not by the clock (tcpdump puts a capture of a
week into one file, because reading it takes a second), and dumpcap's file that holds no
packets at the end of its input does not come about.
"""

import math
import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vsockdump.errors import UsageError

_SECOND: Final = 10**9
_MEGABYTE: Final = 10**6  # -C
_KILOBYTE: Final = 1000  # -b filesize
_TICK_S: Final = 0.1  # costs an idle capture nothing, and names keep round seconds
_NUMBERS: Final = 100_000  # dumpcap's file numbers have five digits
_LONGEST_S: Final = 10**9


class RotationError(UsageError):
    """A -b that cannot be: one sentence."""


class Limit(NamedTuple):
    """Where a file ends: a packet goes to the next one if one of these is reached before it.

    `size` in bytes and `packets` are of the file as it stands, `due_ns` is a packet's time.
    """

    size: int | None = None
    packets: int | None = None
    due_ns: int | None = None


class Rotation(Protocol):
    """Names the files, and says where the present one ends.

    `tick_s` is how often a live capture looks at the clock, None where packets drive it all.
    """

    @property
    def limit(self) -> Limit:
        """Of the present file."""

    @property
    def tick_s(self) -> float | None:
        """Seconds."""

    def first(self, now_ns: int) -> str:
        """The name of the first file."""

    def following(self, now_ns: int) -> str | None:
        """The name of the next file; None if there is to be none."""

    def expired(self) -> str | None:
        """The file that the next one takes the place of, and that is to be removed."""


class OneFile:
    """No rotation."""

    limit: Final = Limit()
    tick_s: Final = None

    def __init__(self, path: str) -> None:
        self._path = path

    def first(self, _now_ns: int) -> str:
        """The path as it was given."""
        return self._path

    def following(self, _now_ns: int) -> str | None:
        """Never asked for, since the limit is never reached."""
        return None

    def expired(self) -> str | None:
        """Nothing."""
        return None


class Savefiles(NamedTuple):
    """-C, -G and -W; 0 where they are not given."""

    megabytes: int = 0
    seconds: int = 0
    files: int = 0

    def of(self, path: str) -> Rotation:
        """The rotation of files named after `path`."""
        return _SavefileRotation(path, self)


class _SavefileRotation:
    """tcpdump's: the time is looked at when a packet comes, in whole seconds, before the size.

    -W makes a ring of -C's files; with -G alone it is where the capture ends; with both it
    only decides how wide numbers are.
    """

    tick_s: Final = None

    def __init__(self, path: str, wish: Savefiles) -> None:
        self._path = path
        self._wish = wish
        self._digits = len(str(wish.files - 1)) if wish.files > 1 else 0
        self._windows = 1
        self._number = 0
        self._since = 0
        self.limit = Limit()

    def first(self, now_ns: int) -> str:
        self._begin_window(now_ns)
        return self._name()

    def following(self, now_ns: int) -> str | None:
        wish, due_ns = self._wish, self.limit.due_ns
        if due_ns is not None and now_ns >= due_ns:
            if wish.files and not wish.megabytes and self._windows >= wish.files:
                return None
            self._windows += 1
            self._number = 0
            self._begin_window(now_ns)
            return self._name()
        self._number += 1
        if wish.files:
            self._number %= wish.files
        return self._name()

    def expired(self) -> str | None:
        """Nothing: names come again, which overwrites."""
        return None

    def _begin_window(self, now_ns: int) -> None:
        wish = self._wish
        self._since = now_ns // _SECOND
        self.limit = Limit(
            size=wish.megabytes * _MEGABYTE + 1 if wish.megabytes else None,
            due_ns=(self._since + wish.seconds) * _SECOND if wish.seconds else None,
        )

    def _name(self) -> str:
        name = self._path
        if self._wish.seconds:
            name = time.strftime(name, time.localtime(self._since))
        if self._wish.megabytes and (self._number or self._digits):
            name += f"{self._number:0{self._digits}d}"
        return name


class RingBuffer(NamedTuple):
    """-b: what ends a file, and how many are kept; None where it is not given."""

    size: int | None = None
    duration_ns: int | None = None
    interval_ns: int | None = None
    packets: int | None = None
    files: int | None = None

    def of(self, path: str) -> Rotation:
        """The rotation of files named after `path`."""
        return _RingRotation(path, self)


class _RingRotation:
    """dumpcap's: durations and intervals end a file by the clock, whether it has packets or not."""

    def __init__(self, path: str, wish: RingBuffer) -> None:
        self._stem, self._suffix = os.path.splitext(path)
        self._wish = wish
        self._number = 0
        self._kept: deque[str] = deque()
        self.limit = Limit()
        spans = [span for span in (wish.duration_ns, wish.interval_ns) if span]
        self.tick_s = min(_TICK_S, *(span / _SECOND for span in spans)) if spans else None

    def first(self, now_ns: int) -> str:
        return self.following(now_ns)

    def following(self, now_ns: int) -> str:
        self._number += 1
        self.limit = Limit(self._wish.size, self._wish.packets, self._due(now_ns))
        when = time.strftime("%Y%m%d%H%M%S", time.localtime(now_ns // _SECOND))
        name = f"{self._stem}_{self._number % _NUMBERS:05d}_{when}{self._suffix}"
        self._kept.append(name)
        return name

    def expired(self) -> str | None:
        if self._wish.files is None:
            self._kept.clear()
        elif len(self._kept) > self._wish.files:
            return self._kept.popleft()
        return None

    def _due(self, now_ns: int) -> int | None:
        duration, interval = self._wish.duration_ns, self._wish.interval_ns
        ends = []
        if duration:
            ends.append(now_ns + duration)
        if interval:
            ends.append((now_ns // interval + 1) * interval)
        return min(ends, default=None)


def ring_buffer(texts: Sequence[str]) -> RingBuffer:
    """What several -b say; raises RotationError."""
    wishes: dict[str, int] = {}
    for text in texts:
        name, _, value = text.partition(":")
        if name not in _CRITERIA:
            raise RotationError(
                f"-b {text} is unknown; there are filesize:KB, duration:SECONDS,"
                " interval:SECONDS, packets:N and files:N."
            )
        field, unit = _CRITERIA[name]
        wishes[field] = _number(text, value, unit)
    if not wishes.keys() - {"files"}:
        raise RotationError(
            "-b files:N needs to be told when to go to the next file: add filesize:KB,"
            " duration:SECONDS, interval:SECONDS or packets:N."
        )
    if wishes.get("files", 0) >= _NUMBERS:
        raise RotationError(f"-b files:N keeps at most {_NUMBERS - 1} files.")
    return RingBuffer(**wishes)


# The field of RingBuffer, and how many of its units the number of a criterion stands for.
_CRITERIA: Final = {
    "filesize": ("size", _KILOBYTE),
    "duration": ("duration_ns", _SECOND),
    "interval": ("interval_ns", _SECOND),
    "packets": ("packets", 1),
    "files": ("files", 1),
}


def _number(text: str, value: str, unit: int) -> int:
    """The number of a criterion in its field's units; those of time may have a fraction."""
    if unit != _SECOND:
        if value.isascii() and value.isdigit() and int(value) > 0:
            return int(value) * unit
        raise RotationError(f"-b {text} does not end with a whole number above 0.")
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0.001 <= seconds <= _LONGEST_S:
        raise RotationError(f"-b {text} does not end with a number of seconds from 0.001 on.")
    return round(seconds * unit)


class Upcoming:
    """The packets of a batch, by how many bytes each takes in the file and by its time."""

    def __init__(self, sizes: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        self._begins = np.cumsum(sizes) - sizes
        self._times = times
        self._latest = int(times.max()) if len(times) else 0

    def until(self, first: int, limit: Limit, size: int, packets: int) -> int:
        """The first packet, from `first` on, that goes to the next file.

        The present file holds `packets` packets and `size` bytes.  Every file takes one,
        however small the limit; the number of all packets where they all fit.
        """
        begins = self._begins
        end = len(begins)
        least = first if packets else first + 1
        if first == end:
            return end
        if limit.size is not None:
            room = limit.size - size + int(begins[first])
            end = min(end, max(least, int(np.searchsorted(begins, room))))
        if limit.packets is not None:
            end = min(end, max(least, first + limit.packets - packets))
        if limit.due_ns is not None and self._latest >= limit.due_ns:
            due = np.flatnonzero(self._times[first:end] >= limit.due_ns)
            end = first + int(due[0]) if len(due) else end
        return end
