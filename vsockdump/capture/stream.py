"""Bytes of a capture, from a file, a pipe or stdin, decompressed on the way.

Rules for editors: a read returns what is there and waits only where nothing is, so that a
capture that is still being written prints as it grows.  That is why the compression
libraries' own file objects are not used: they wait for a full buffer of input.  No
knowledge of capture formats here.  A library is imported when a file needs it.
"""

import os
import select
import stat
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from vsockdump.capture.errors import CaptureError

_STDIN: Final = 0
_MAGIC_SIZE: Final = 4
_ZSTD_WINDOW: Final = 1 << 27  # zstd's own limit for what a file may ask of memory


class _Frame(Protocol):
    """The part of a decompressor that the three libraries have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Codec(NamedTuple):
    """`step` is the input of one call: the most it can grow to, 32 MiB, bounds memory."""

    name: str
    frame: Callable[[], _Frame]
    error: type[Exception]
    step: int


class _Lz4Frame:
    """lz4's decompressor, which without a limit for its output may keep some of it back."""

    _LIMIT: Final = 1 << 20

    def __init__(self) -> None:
        import lz4.frame

        self._frame = lz4.frame.LZ4FrameDecompressor()

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data or b""

    def decompress(self, data: bytes, /) -> bytes:
        pieces = [self._frame.decompress(data, self._LIMIT)]
        while not (self._frame.needs_input or self._frame.eof):
            pieces.append(self._frame.decompress(b"", self._LIMIT))
        return b"".join(pieces)


def _gzip() -> _Codec:
    return _Codec("gzip", lambda: zlib.decompressobj(31), zlib.error, 1 << 14)


def _zstd() -> _Codec:
    import zstandard

    library = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    return _Codec("zstd", library.decompressobj, zstandard.ZstdError, 1 << 10)


def _lz4() -> _Codec:
    return _Codec("lz4", _Lz4Frame, RuntimeError, 1 << 16)


_CODECS: Final = {
    b"\x1f\x8b\x08": _gzip,
    b"\x28\xb5\x2f\xfd": _zstd,
    b"\x04\x22\x4d\x18": _lz4,
}


class _Waiter:
    """Waits until a pipe has something to read, or until it is told to stop."""

    def __init__(self, fd: int) -> None:
        self._event = os.eventfd(0)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(self._event, select.POLLIN)

    def stop(self) -> None:
        os.eventfd_write(self._event, 1)

    def wait(self) -> bool:
        """Whether to read; False after stop."""
        return all(fd != self._event for fd, _event in self._poll.poll())

    def close(self) -> None:
        os.close(self._event)


class _Raw:
    """The bytes of a file descriptor of which the first, `head`, were read already."""

    def __init__(self, fd: int, head: bytes, waiter: _Waiter | None) -> None:
        self._fd = fd
        self._head = head
        self._waiter = waiter
        self.position = len(head)

    def _ready(self) -> bool:
        """Whether to read; False ends the content."""
        return self._waiter is None or self._waiter.wait()

    def read(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end."""
        data, self._head = self._head[:size], self._head[size:]
        if not data and self._ready():
            data = os.read(self._fd, size)
            self.position += len(data)
        return data

    def readinto(self, view: memoryview) -> int:
        """Fill the start of `view`; the number of bytes, 0 at the end."""
        if self._head:
            data = self.read(len(view))
            view[: len(data)] = data
            return len(data)
        count = os.readv(self._fd, [view]) if self._ready() else 0
        self.position += count
        return count


class _Frames:
    """The content of compressed frames (gzip: members) behind each other."""

    _KEPT: Final = 64  # inputs of a frame kept to salvage from it

    def __init__(self, raw: _Raw, codec: _Codec) -> None:
        self._raw = raw
        self._codec = codec
        self._input = b""
        self._output = memoryview(b"")
        self._failure: CaptureError | None = None
        self._begin()

    def _begin(self) -> None:
        self._frame = self._codec.frame()
        self._begun = False
        self._fed: list[bytes] = []

    def readinto(self, view: memoryview) -> int:
        """Fill the start of `view`; the number of bytes, 0 at the end.

        Raises CaptureError where the data are cut or damaged, after all before that.
        """
        while not self._output:
            if self._failure:
                raise self._failure
            data = self._input or self._raw.read(self._codec.step)
            self._input = b""
            if not data:
                if self._begun:
                    raise CaptureError(f"the {self._codec.name} data end early")
                return 0
            if not self._begun:
                data = data.lstrip(b"\0")  # gzip files may be padded with zeros
            if data:
                self._step(data)
        count = min(len(view), len(self._output))
        view[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _step(self, data: bytes) -> None:
        """Decompress some input, of which another frame may follow the end of this one."""
        self._begun = True
        try:
            output = self._frame.decompress(data)
        except self._codec.error as error:
            self._failure = CaptureError(f"the {self._codec.name} data are damaged ({error})")
            output = self._salvage(data)
        else:
            if len(self._fed) < self._KEPT:
                self._fed.append(data)
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._begin()
        self._output = memoryview(output)

    def _salvage(self, data: bytes) -> bytes:
        """What `data` gives before the damage in it, unless the frame is too long to replay.

        A library that finds damage keeps what it had decompressed in that call; this
        repeats the call byte by byte.
        """
        if len(self._fed) == self._KEPT:
            return b""
        frame = self._codec.frame()
        for fed in self._fed:
            frame.decompress(fed)
        pieces = []
        with suppress(self._codec.error, EOFError):
            for at in range(len(data)):
                pieces.append(frame.decompress(data[at : at + 1]))
        return b"".join(pieces)


class ByteStream:
    """The decompressed bytes of `path` ("-" is stdin).

    Raises CaptureError, a whole sentence, where it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.name = "stdin" if path == "-" else path
        self._waiter: _Waiter | None = None
        self._closed = False
        self._fd = _duplicate(_STDIN) if path == "-" else _open(path)
        try:
            status = os.fstat(self._fd)
            if stat.S_ISDIR(status.st_mode):
                raise CaptureError(f"{self.name} is a directory; give the name of a capture file.")
            head = _head(self._fd)
        except OSError as error:
            self.close()
            raise CaptureError(f"Cannot read {self.name}: {_reason(error)}.") from None
        except CaptureError:
            self.close()
            raise
        self.growing = not stat.S_ISREG(status.st_mode)
        self.size = 0 if self.growing else status.st_size
        self.stopped = False
        self._waiter = _Waiter(self._fd) if self.growing else None
        self._raw = _Raw(self._fd, head, self._waiter)
        codec = next((make() for magic, make in _CODECS.items() if head.startswith(magic)), None)
        self.compression = codec.name if codec else None
        self._content = _Frames(self._raw, codec) if codec else self._raw
        self.seekable = path != "-" and not self.growing and codec is None

    @property
    def position(self) -> int:
        """Bytes taken from the file so far, as stored there (compressed)."""
        return self._raw.position

    def readinto(self, view: memoryview) -> int:
        """Fill the start of `view` with what is there; the number of bytes, 0 at the end.

        Raises CaptureError, a clause without the file's name, where that fails.
        """
        try:
            return self._content.readinto(view)
        except OSError as error:
            raise CaptureError(f"reading on failed ({_reason(error)})") from None

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes of a seekable file; CaptureError, a whole sentence, where it has them no more."""
        try:
            data = os.pread(self._fd, size, offset)
        except OSError as error:
            raise CaptureError(f"Cannot read {self.name} again: {_reason(error)}.") from None
        if len(data) < size:
            raise CaptureError(f"{self.name} has become shorter while it was read.")
        return data

    def stop(self) -> None:
        """Let the content end here; a read that waits for a pipe returns."""
        self.stopped = True
        if self._waiter is not None:
            self._waiter.stop()

    def close(self) -> None:
        """Close the file; stdin itself stays open."""
        if self._waiter is not None:
            self._waiter.close()
            self._waiter = None
        if not self._closed:
            os.close(self._fd)
            self._closed = True


def _duplicate(fd: int) -> int:
    """One of our own, so that 0 can become the keyboard's (see tui)."""
    try:
        return os.dup(fd)
    except OSError as error:
        raise CaptureError(f"Cannot read stdin: {_reason(error)}.") from None


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise CaptureError(f"{path} does not exist.") from None
    except PermissionError:
        raise CaptureError(f"{path} may not be read by this user.") from None
    except (OSError, ValueError) as error:
        raise CaptureError(f"Cannot open {path}: {_reason(error)}.") from None


def _head(fd: int) -> bytes:
    """The first _MAGIC_SIZE bytes, fewer if the file ends before."""
    head = b""
    while len(head) < _MAGIC_SIZE:
        more = os.read(fd, _MAGIC_SIZE - len(head))
        if not more:
            break
        head += more
    return head


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error)
