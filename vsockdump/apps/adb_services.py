"""What the services of ADB say inside their streams: shell (version 2) and sync.

Both have messages of their own, which do not keep to ADB's packets.  They are read as any
protocol is, from a ByteStream of what a side writes into the stream.

Rules for editors: after missing bytes a stream's contents are not read any more; ADB itself
goes on.
"""

from collections import deque
from collections.abc import Callable, Generator
from struct import Struct
from typing import Final

from vsockdump.apps import texts
from vsockdump.apps.byte_stream import Body, ByteStream, Ended, Lost, ProtocolError, Steps
from vsockdump.apps.content import brief, content_fields
from vsockdump.apps.errnos import errno_name
from vsockdump.apps.message import Call, Kind, Message, Value

_NAME: Final = "adb"
_SYNC: Final = "sync:"

_SHELL_HEADER: Final = Struct("<BI")
_SHELL_IDS: Final = ("stdin", "stdout", "stderr", "exit", "close stdin", "window size")
_EXIT: Final = 3

_ID: Final = Struct("<4sI")  # of sync: what, and a length or a number
_STAT: Final = Struct("<3I")  # mode, size, time
_STAT_2: Final = Struct("<I2Q4IQ3q")  # error, device, inode, mode, links, user, group, size, times
_DIRECTORIES: Final = {b"LIST": (b"DENT", _STAT), b"LIS2": (b"DNT2", _STAT_2)}
_SEND_2: Final = Struct("<4sII")
_RECV_2: Final = Struct("<4sI")
_NO_ENTRY: Final = 2  # ENOENT
_LONGEST_PATH: Final = 1024
_LARGEST_DATA: Final = 64 << 10
_MOST_ENTRIES: Final = 100  # of a directory that are shown
_MOST_PENDING: Final = 10_000  # requests of a sync stream without an answer
_PATHS: Final = (b"LIST", b"LIS2", b"STAT", b"STA2", b"LST2", b"SEND", b"SND2", b"RECV", b"RCV2")


_Reader = Callable[[ByteStream], Steps]


class Contents:
    """What both sides write into one stream; `opener` is the side that asks."""

    def __init__(self, service: str, opener: int, number: int) -> None:
        self._streams = (ByteStream(0), ByteStream(1))
        self._steps: list[Steps | None] = [None, None]
        sides = (opener, 1 - opener)
        if service.rstrip("\0") == _SYNC:
            sync = _Sync(number)
            self._read_by(sides, (sync.requests, sync.responses))
        elif service.startswith("shell,") and "v2" in service.partition(":")[0].split(","):
            self._read_by(sides, (_shell, _shell))

    def _read_by(self, sides: tuple[int, int], readers: tuple[_Reader, _Reader]) -> None:
        for side, reader in zip(sides, readers, strict=True):
            self._steps[side] = reader(self._streams[side])

    def reads(self, side: int) -> bool:
        """Whether what a side writes has messages of its own."""
        return self._steps[side] is not None

    def read(self, side: int, body: Body) -> list[Message]:
        """What a side has said with one more payload."""
        steps, stream = self._steps[side], self._streams[side]
        if steps is None:
            return []
        stream.feed(body.data)
        if not body.is_whole:
            stream.feed_gap(body.size - len(body.data))
        messages: list[Message] = []
        try:
            for message in steps:
                if message is None:
                    return messages
                messages.append(message)
        except (Lost, Ended, ProtocolError):
            messages.append(Message(_NAME, "(not understood from here on)"))
        self._steps[side] = None
        return messages


def _shell(stream: ByteStream) -> Steps:
    """Packets of the shell: input, output, and how the command ended."""
    while True:
        number, size = _SHELL_HEADER.unpack((yield from stream.exact(_SHELL_HEADER.size)))
        if number >= len(_SHELL_IDS):
            raise ProtocolError(f"shell packet {number}")
        body = yield from stream.body(size)
        name = _SHELL_IDS[number]
        if number == _EXIT:
            code = body.data[0] if body.data else 0
            yield Message(_NAME, f"exit {code}", fields={"stream": name, "code": code})
        else:
            text = f"{name} {brief(body.data)}".rstrip()
            yield Message(_NAME, text, fields={"stream": name} | content_fields(body))


class _Sync:
    """Requests for files, answered in their order."""

    def __init__(self, number: int) -> None:
        self._number = number  # of the stream
        self._count = 0
        self._pending: deque[tuple[int, bytes]] = deque()  # number and id of requests

    def requests(self, stream: ByteStream) -> Steps:
        """What is asked for; the data of a file that is sent is gone over."""
        while True:
            name, size = yield from _id(stream)
            if name in _PATHS:
                if size > _LONGEST_PATH:
                    raise ProtocolError(f"a path of {size} bytes")
                path = (yield from stream.exact(size)).decode(errors="replace")
                fields: dict[str, Value] = {"request": name.decode(), "path": path}
                if name in (b"SND2", b"RCV2"):
                    setup = _SEND_2 if name == b"SND2" else _RECV_2
                    _name, *numbers = setup.unpack((yield from stream.exact(setup.size)))
                    fields["setup"] = numbers
                yield self._ask(name, f"sync {name.decode()} {path}", fields)
            elif name == b"DATA":
                yield from _skip(stream, size)
            elif name == b"QUIT":
                yield Message(_NAME, "sync QUIT")
            elif name != b"DONE":  # whose number is a time: the file that was sent is complete
                raise ProtocolError(f"sync request {name!r}")

    def _ask(self, name: bytes, summary: str, fields: dict[str, Value]) -> Message:
        if len(self._pending) >= _MOST_PENDING:
            raise ProtocolError("too many requests without an answer")
        self._count += 1
        self._pending.append((self._count, name))
        call = Call(("sync", self._number, self._count), f"sync {name.decode()}")
        return Message(_NAME, summary, Kind.REQUEST, fields, call)

    def responses(self, stream: ByteStream) -> Steps:
        """One for each request, in as many parts as it has."""
        while True:
            name, number = yield from _id(stream)
            if not self._pending:
                raise ProtocolError("an answer to no request")
            key, request = self._pending.popleft()
            call = Call(("sync", self._number, key))
            if name == b"FAIL":
                yield (yield from _failure(stream, number, call))
            elif request in _DIRECTORIES:
                yield (yield from _entries(stream, name, request, call))
            elif request in (b"STAT", b"STA2", b"LST2"):
                yield (yield from _stat(stream, name, number, call))
            elif request in (b"RECV", b"RCV2"):
                yield (yield from _file(stream, name, number, call))
            elif name == b"OKAY":
                yield _answer("OKAY", call, {})
            else:
                raise ProtocolError(f"sync answer {name!r}")


def _id(stream: ByteStream) -> Generator[None, None, tuple[bytes, int]]:
    name, number = _ID.unpack((yield from stream.exact(_ID.size)))
    return name, number


def _skip(stream: ByteStream, size: int) -> Generator[None, None, None]:
    if size > _LARGEST_DATA:
        raise ProtocolError(f"{size} bytes of data in one piece")
    yield from stream.body(size, 0)


def _answer(text: str, call: Call, fields: dict[str, Value]) -> Message:
    return Message(_NAME, f"sync {text}", Kind.RESPONSE, fields, call)


def _stat(
    stream: ByteStream, name: bytes, number: int, call: Call
) -> Generator[None, None, Message]:
    """What a file is; `number` is the first of the answer."""
    head = number.to_bytes(4, "little")
    if name == b"STAT":
        mode, size, time = _STAT.unpack(head + (yield from stream.exact(_STAT.size - 4)))
        error = 0 if mode else _NO_ENTRY  # the first version knows only that there is no such file
    elif name in (b"STA2", b"LST2"):
        rest = yield from stream.exact(_STAT_2.size - 4)
        error, _dev, _ino, mode, _links, _uid, _gid, size, _at, time, _ct = _STAT_2.unpack(
            head + rest
        )
    else:
        raise ProtocolError(f"sync answer {name!r}")
    fields: dict[str, Value] = {"mode": f"{mode:o}", "size": size, "modified": time}
    if error:
        return _answer(errno_name(error), call._replace(error=errno_name(error)), fields)
    return _answer(f"mode {mode:o}, {size} bytes", call, fields)


def _file(
    stream: ByteStream, name: bytes, number: int, call: Call
) -> Generator[None, None, Message]:
    """A file that was asked for."""
    total = 0
    while name == b"DATA":
        yield from _skip(stream, number)
        total += number
        name, number = yield from _id(stream)
    if name == b"FAIL":
        return (yield from _failure(stream, number, call))
    if name != b"DONE":
        raise ProtocolError(f"sync answer {name!r}")
    return _answer(f"received {total} bytes", call, {"size": total})


def _failure(stream: ByteStream, size: int, call: Call) -> Generator[None, None, Message]:
    """Why a request failed."""
    reason = yield from stream.exact(size)
    text = brief(reason)
    return _answer(f"FAIL {text}", call._replace(error=text), {"reason": texts.text_of(reason)})


def _entries(
    stream: ByteStream, name: bytes, request: bytes, call: Call
) -> Generator[None, None, Message]:
    """The entries of a directory; DONE has the form of one, and the first number was read."""
    entry, fixed = _DIRECTORIES[request]
    names: list[str] = []
    count = 0
    while True:
        yield from stream.exact(fixed.size - 4)
        size = int.from_bytes((yield from stream.exact(4)), "little")
        if name == b"DONE":
            break
        if name != entry or size > _LONGEST_PATH:
            raise ProtocolError(f"sync entry {name!r}")
        file = yield from stream.exact(size)
        count += 1
        if count <= _MOST_ENTRIES:
            names.append(file.decode(errors="replace"))
        name, _number = yield from _id(stream)
    fields: dict[str, Value] = {"entries": count, "names": names}
    if count > _MOST_ENTRIES:
        fields["not shown"] = count - _MOST_ENTRIES
    return _answer(f"{count} entries", call, fields)
