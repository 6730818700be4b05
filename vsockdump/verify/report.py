"""What `--verify` prints: differences as they are found, then what was compared."""

from collections.abc import Iterator

from vsockdump.amounts import counted
from vsockdump.verify.headers import FIELDS, Headers
from vsockdump.verify.streams import Streams


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
        headers = Headers(self._path, self._limit)
        try:
            yield from headers.differences()
        finally:
            if headers.packets:
                yield from _of_headers(headers)
        streams = Streams(self._path, self._limit)
        yield from streams.differences()
        yield from _of_streams(streams)
        self.agrees = not (headers.found or streams.found)


def _of_headers(headers: Headers) -> Iterator[str]:
    """How much was compared, and what is known to differ."""
    compared = f"{counted(headers.packets, 'packet')}, {len(FIELDS)} fields each"
    yield f"{compared}: {_found(headers.found)}"
    for deviation, times in headers.known.most_common():
        yield f"known, {counted(times, 'time')}: {deviation.reason}"


def _of_streams(streams: Streams) -> Iterator[str]:
    """The same of application messages, where there are any."""
    if streams.words or streams.found:
        by_protocol = ", ".join(
            f"{number} of {name}" for name, number in sorted(streams.words.items())
        )
        total = counted(streams.words.total(), "application message")
        yield f"{total}{f' ({by_protocol})' if by_protocol else ''}: {_found(streams.found)}"
    if streams.left_out:
        yield (
            f"not compared: what is said in {counted(streams.left_out, 'connection')} of which"
            " bytes, or answers, are missing"
        )


def _found(number: int) -> str:
    result = counted(number, "difference") if number else "no difference"
    return f"{result} between tshark and vsockdump"
