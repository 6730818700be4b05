"""Rows on disk: a file without a name that only grows at its end.

What there is one of per packet does not belong into memory, of which a capture may take any
amount; the page cache has the part in use.  Reads are `pread`, not a memory map: a map counts
as memory of ours, and a disk that is full would be a signal instead of an error.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Not /tmp, which often is memory.
_DIRECTORY: Final = "/var/tmp"
_AT_ONCE: Final = 16384  # rows


class UnnamedFile:
    """A file in no folder, gone with the last who holds this object; OSError if there can be none.

    One thread appends, any may read.  `size` is what was appended.
    """

    def __init__(self) -> None:
        directory = os.environ.get("TMPDIR") or _DIRECTORY
        if not Path(directory).is_dir():
            directory = tempfile.gettempdir()
        self.size = 0
        self._fd, path = tempfile.mkstemp(prefix="vsockdump-", dir=directory)
        os.unlink(path)

    def append(self, data: bytes | memoryview) -> None:
        """Write at the end; after an OSError (the disk is full) nothing may be appended."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += os.write(self._fd, view[done:])
        self.size += done

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from there, fewer at the end."""
        return os.pread(self._fd, size, offset)

    def __del__(self) -> None:
        # Not closed by anybody: a thread that was told to end may still be reading.
        if hasattr(self, "_fd"):
            os.close(self._fd)


class Spool:
    """Rows of a dtype on disk.  One thread appends, any may read the first `count`."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.count = 0
        self._file = UnnamedFile()

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows; OSError where the disk is full, nothing may follow then."""
        self._file.append(np.ascontiguousarray(rows, self.dtype).data)
        self.count += len(rows)

    def read(self, first: int, count: int) -> NDArray[Any]:
        """Rows from index `first` on, fewer at the end."""
        count = max(min(count, self.count - first), 0)
        size = self.dtype.itemsize
        return np.frombuffer(self._file.read(first * size, count * size), self.dtype)

    def parts(self, first: int = 0) -> Iterator[NDArray[Any]]:
        """All rows from index `first` on, some at a time."""
        while first < self.count:
            rows = self.read(first, _AT_ONCE)
            first += len(rows)
            yield rows

    def bisect(self, name: str, value: int) -> int:
        """The index of the first row whose `name` is not below `value`; rows ascend by it."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if int(self.read(middle, 1)[name][0]) < value:
                low = middle + 1
            else:
                high = middle
        return low
