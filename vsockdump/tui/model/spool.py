"""Rows on disk: a file without a name that only grows at its end.

What there is one of per packet does not belong into memory, of which a capture may take any
amount; the page cache has the part in use.  Reads are `pread`, not a memory map: a map counts
as memory of ours, and a disk that is full would be a signal instead of an error.
"""

import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Not /tmp, which often is memory.
_DIRECTORY: Final = "/var/tmp"


def unnamed_file() -> int:
    """The descriptor of a file that is gone with its last user; OSError where there can be none."""
    directory = os.environ.get("TMPDIR") or _DIRECTORY
    if not Path(directory).is_dir():
        directory = tempfile.gettempdir()
    fd, path = tempfile.mkstemp(prefix="vsockdump-", dir=directory)
    os.unlink(path)
    return fd


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write at the end, all of it; OSError where the disk is full."""
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += os.write(fd, view[done:])


class Spool:
    """Rows of a dtype.  One thread appends, any may read the first `count`."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.count = 0
        self._fd = unnamed_file()

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows; OSError where the disk is full, they are then left out."""
        write_all(self._fd, np.ascontiguousarray(rows, self.dtype).data)
        self.count += len(rows)

    def read(self, first: int, count: int) -> NDArray[Any]:
        """Rows from index `first` on, fewer at the end."""
        count = max(min(count, self.count - first), 0)
        size = self.dtype.itemsize
        data = os.pread(self._fd, count * size, first * size)
        return np.frombuffer(data, self.dtype)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)
