"""What `--verify` prints: differences as they are found, then what was compared."""

from collections.abc import Iterator
from contextlib import closing

from vsockdump.amounts import counted
from vsockdump.capture.reader import FileReader
from vsockdump.verify.engine import packets
from vsockdump.verify.headers import FIELDS, Headers


class Verification:
    """The comparison of a capture file, of its first `limit` packets (0: all).

    `agrees` holds when `lines` were read to their end, if both say the same.
    """

    def __init__(self, path: str, limit: int = 0) -> None:
        self.agrees = False
        self._path = path
        self._limit = limit

    def lines(self) -> Iterator[str]:
        """The report.  Raises EngineError and CaptureError, behind what was compared."""
        with (
            closing(FileReader(self._path)) as source,
            closing(packets(self._path, FIELDS)) as theirs,
        ):
            headers = Headers(theirs, source, self._limit)
            try:
                yield from headers.differences()
            finally:
                yield from _summary(headers)
        self.agrees = not headers.found


def _summary(headers: Headers) -> Iterator[str]:
    """How much was compared, and what is known to differ."""
    result = f"{counted(headers.found, 'difference')}" if headers.found else "no difference"
    compared = f"{counted(headers.packets, 'packet')}, {len(FIELDS)} fields each"
    yield f"{compared}: {result} between tshark and vsockdump"
    for deviation, times in headers.known.most_common():
        yield f"known, {counted(times, 'time')}: {deviation.reason}"
