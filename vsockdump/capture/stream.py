"""Bytes of a capture, from a file, a pipe or stdin, decompressed on the way.

Rules for editors: a read returns what is there and never waits for more than one byte, so
that a capture that is still being written prints as it grows.  No knowledge of capture
formats here.  The compression libraries are imported when a file needs them.
"""

import os
import stat
import sys
import zlib
from typing import Final, Protocol

from vsockdump.capture.errors import CaptureError

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_LZ4: Final = b"\x04\x22\x4d\x18"
_MAGIC_SIZE: Final = 4


class _Readable(Protocol):
    def read1(self, size: int, /) -> bytes: ...


class _Raw:
    """A file descriptor as the decompressors want it: reads give what is there."""

    def __init__(self, fd: int, head: bytes) -> None:
        self._fd = fd
        self._head = head
        self.position = len(head)

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            size = 1 << 16
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        data = os.read(self._fd, size)
        self.position += len(data)
        return data

    def readinto(self, view: memoryview) -> int:
        if self._head:
            head = self.read(len(view))
            view[: len(head)] = head
            return len(head)
        count = os.readv(self._fd, [view])
        self.position += count
        return count


class _Zstd:
    """Concatenated zstd frames; unlike the library's own reader it notices a cut."""

    # The input a step takes bounds its output: a block of 4 bytes can give 128 KiB.
    _STEP: Final = 4096

    def __init__(self, raw: _Raw) -> None:
        import zstandard

        self._raw = raw
        self._new = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._frame = self._new()
        self._begun = False
        self._input = b""
        self._output = b""

    def read1(self, size: int, /) -> bytes:
        while not self._output:
            data = self._input or self._raw.read(self._STEP)
            self._input = b""
            if not data:
                if self._begun:
                    raise EOFError
                return b""
            self._begun = True
            self._output = self._frame.decompress(data)
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = self._new()
                self._begun = False
        output, self._output = self._output[:size], self._output[size:]
        return output


class ByteStream:
    """The decompressed bytes of `path` ("-" is stdin).

    Raises CaptureError where it cannot be opened, and from `readinto` where reading or
    decompressing fails, after what came before was returned.
    """

    def __init__(self, path: str) -> None:
        self.name = "stdin" if path == "-" else path
        fd = sys.stdin.fileno() if path == "-" else _open(path)
        self._fd = fd
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            self.close()
            raise CaptureError(f"{self.name} is a directory; give the name of a capture file.")
        self.growing = not stat.S_ISREG(mode)
        self.size = 0 if self.growing else os.fstat(fd).st_size
        head = self._read_head()
        self._raw = _Raw(fd, head)
        self.compression, self._decoder = _decoder(self._raw, head)

    def _read_head(self) -> bytes:
        head = b""
        try:
            while len(head) < _MAGIC_SIZE:
                more = os.read(self._fd, _MAGIC_SIZE - len(head))
                if not more:
                    break
                head += more
        except OSError as error:
            raise CaptureError(f"Cannot read {self.name}: {_reason(error)}.") from None
        return head

    @property
    def position(self) -> int:
        """Bytes taken from the file so far, as stored there (compressed)."""
        return self._raw.position

    def readinto(self, view: memoryview) -> int:
        """Fill the start of `view`; returns the number of bytes, 0 at the end."""
        if self._decoder is None:
            try:
                return self._raw.readinto(view)
            except OSError as error:
                raise CaptureError(f"Cannot read {self.name} on: {_reason(error)}.") from None
        try:
            data = self._decoder.read1(len(view))
        except EOFError:
            raise CaptureError(f"the {self.compression} data of {self.name} ends early") from None
        except _decoder_errors() as error:
            raise CaptureError(
                f"the {self.compression} data of {self.name} is damaged ({error})"
            ) from None
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file; stdin stays open."""
        if self._fd != 0:
            os.close(self._fd)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise CaptureError(f"{path} does not exist.") from None
    except PermissionError:
        raise CaptureError(f"{path} may not be read by this user.") from None
    except (OSError, ValueError) as error:
        raise CaptureError(f"Cannot open {path}: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error)


def _decoder(raw: _Raw, head: bytes) -> tuple[str | None, _Readable | None]:
    if head.startswith(_GZIP):
        import gzip

        return "gzip", gzip.GzipFile(fileobj=raw)  # type: ignore[call-overload]
    if head == _ZSTD:
        return "zstd", _Zstd(raw)
    if head == _LZ4:
        import lz4.frame

        return "lz4", lz4.frame.LZ4FrameFile(raw)
    return None, None


def _decoder_errors() -> tuple[type[Exception], ...]:
    """What the decompressors raise on bad data; zstandard's error only if it was imported."""
    zstandard = sys.modules.get("zstandard")
    extra = (zstandard.ZstdError,) if zstandard else ()
    return (OSError, zlib.error, RuntimeError, ValueError, *extra)


