"""A file that holds whole records at any time, whatever ends the run.

Every write is a system call of records that are whole; nothing is kept back in a buffer of
ours, so that a process that is killed leaves everything that it wrote.  Where the disk is
full, what was written of the record that did not fit is taken away again.

Rules for editors: no record may be split over two calls of `write`.
"""

import os
import select
import stat
import struct
import sys
from typing import Final

from vsockdump.batch import Layout
from vsockdump.output.errors import cannot_write

STDOUT: Final = "-"
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class RecordFile:
    """The file at `path`, created or emptied ("-" is stdout); raises OutputError.

    `size` is the number of bytes written.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self._name = "to stdout" if path == STDOUT else path
        if path == STDOUT:
            self._fd = sys.stdout.fileno()
            return
        try:
            self._fd = os.open(path, _CREATE, 0o666)
        except OSError as error:
            raise cannot_write(path, error) from None

    def write(self, data: bytes | memoryview, layout: Layout | None) -> None:
        """Write records of this layout; None: bytes that are of use only together.

        Raises OutputError, the file then ends behind the last record that is whole.
        """
        view = memoryview(data)
        done = 0
        try:
            while done < len(view):
                done += self._write_some(view[done:])
        except OSError as error:
            kept = 0 if layout is None else whole_records(view[:done], layout)
            self._take_away(done - kept)
            raise cannot_write(self._name, error) from None
        self.size += done

    def _write_some(self, view: memoryview) -> int:
        try:
            return os.write(self._fd, view)
        except BlockingIOError:  # a pipe that somebody else made so
            select.select([], [self._fd], [])
            return 0

    def _take_away(self, count: int) -> None:
        """Shorten a file by its last `count` bytes; pipes cannot be."""
        if count and stat.S_ISREG(os.fstat(self._fd).st_mode):
            end = os.lseek(self._fd, 0, os.SEEK_CUR) - count
            os.ftruncate(self._fd, end)
            os.lseek(self._fd, end, os.SEEK_SET)

    def close(self) -> None:
        """Close the file; stdout stays open.  Raises OutputError."""
        if self.path == STDOUT:
            return
        try:
            os.close(self._fd)
        except OSError as error:
            raise cannot_write(self._name, error) from None


def whole_records(data: memoryview, layout: Layout) -> int:
    """How many bytes of `data`, which begins with a record, are records that are whole."""
    form = ">I" if layout.big_endian else "<I"
    size_at, before = (4, 0) if layout.pcapng else (8, layout.record_header)
    at = 0
    while True:
        if at + size_at + 4 > len(data):
            return at
        size = before + struct.unpack_from(form, data, at + size_at)[0]
        if at + size > len(data):
            return at
        at += size
