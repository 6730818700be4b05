"""NBD, the network block device: handshakes old and new, options, requests and replies.

The server is who begins with the magic `NBDMAGIC`; it need not be the acceptor.  Requests
and replies are paired by their cookie, options in order.

A simple reply does not say whether data follow: its request does.  So reads are remembered,
and a reply to a request that was not seen loses track until a packet begins with a magic.

Rules for editors: names and numbers are those of doc/proto.md of the NBD project, all
big-endian.  Data of reads and writes are skipped, but for their first bytes.
"""

from collections.abc import Generator
from struct import Struct, error
from typing import Any, Final, NamedTuple

from vsockdump.apps import texts
from vsockdump.apps.byte_stream import Body, ByteStream, Lost, ProtocolError, Steps
from vsockdump.apps.errnos import errno_name
from vsockdump.apps.message import Call, Kind, Message
from vsockdump.apps.protocol import CERTAIN, Context, Opening, Parser, Prior, Protocol, Score

_GREETING: Final = b"NBDMAGIC"
_OPTION: Final = b"IHAVEOPT"
_OLD: Final = bytes.fromhex("0000420281861253")
_OPTION_REPLY: Final = bytes.fromhex("0003e889045565a9")
_REQUEST: Final = bytes.fromhex("25609513")
_EXTENDED_REQUEST: Final = bytes.fromhex("21e41c71")
_SIMPLE: Final = bytes.fromhex("67446698")
_STRUCTURED: Final = bytes.fromhex("668e33ef")
_EXTENDED: Final = bytes.fromhex("6e8a278c")
_ASKING: Final = (_REQUEST, _EXTENDED_REQUEST)
_ANSWERING: Final = (_SIMPLE, _STRUCTURED, _EXTENDED)

_U16: Final = Struct(">H")
_U32: Final = Struct(">I")
_OLD_EXPORT: Final = Struct(">QI")
_NEW_EXPORT: Final = Struct(">QH")
_OPTION_HEAD: Final = Struct(">II")
_OPTION_REPLY_HEAD: Final = Struct(">III")
_REQUEST_HEAD: Final = Struct(">HHQQI")
_EXTENDED_REQUEST_HEAD: Final = Struct(">HHQQQ")
_SIMPLE_HEAD: Final = Struct(">IQ")
_STRUCTURED_HEAD: Final = Struct(">HHQI")
_EXTENDED_HEAD: Final = Struct(">HHQQQ")
_ERROR_CHUNK: Final = Struct(">IH")
_ZEROES: Final = 124  # bytes behind an export, unless both sides do without
_NO_ZEROES: Final = 2  # flag of both sides' handshakes
_DONE: Final = 1  # flag of the last chunk of a reply

_LARGEST: Final = 64 << 20  # bytes of a message's data
_KEPT: Final = 4096  # bytes of data that are kept
_MOST_OPEN: Final = 10_000  # requests that are remembered
_MOST_OPTIONS: Final = 1000  # options that wait for their answers

_EXPORT_NAME, _ABORT, _STARTTLS, _INFO, _GO = 1, 2, 5, 6, 7
_OPTIONS: Final = {
    _EXPORT_NAME: "EXPORT_NAME", _ABORT: "ABORT", 3: "LIST", _STARTTLS: "STARTTLS", _INFO: "INFO",
    _GO: "GO", 8: "STRUCTURED_REPLY", 9: "LIST_META_CONTEXT", 10: "SET_META_CONTEXT",
    11: "EXTENDED_HEADERS",
}  # fmt: skip
_ACK: Final = 1
_REPLIES: Final = {
    _ACK: "ACK", 2: "SERVER", 3: "INFO", 4: "META_CONTEXT", 0x80000001: "ERR_UNSUP",
    0x80000002: "ERR_POLICY", 0x80000003: "ERR_INVALID", 0x80000004: "ERR_PLATFORM",
    0x80000005: "ERR_TLS_REQD", 0x80000006: "ERR_UNKNOWN", 0x80000007: "ERR_SHUTDOWN",
    0x80000008: "ERR_BLOCK_SIZE_REQD", 0x80000009: "ERR_TOO_BIG", 0x8000000A: "ERR_EXT_HEADER_REQD",
}  # fmt: skip
_FAILED: Final = 1 << 31  # bit of an option's reply
_READ, _WRITE, _DISC = 0, 1, 2
_COMMANDS: Final = {
    _READ: "READ", _WRITE: "WRITE", _DISC: "DISC", 3: "FLUSH", 4: "TRIM", 5: "CACHE",
    6: "WRITE_ZEROES", 7: "BLOCK_STATUS", 8: "RESIZE",
}  # fmt: skip
_SIZED: Final = ("READ", "WRITE", "TRIM", "CACHE", "WRITE_ZEROES", "BLOCK_STATUS")
_CHUNKS: Final = {
    0: "NONE", 1: "OFFSET_DATA", 2: "OFFSET_HOLE", 5: "BLOCK_STATUS", 6: "BLOCK_STATUS_EXT",
    0x8001: "ERROR", 0x8002: "ERROR_OFFSET",
}  # fmt: skip
_CHUNK_FAILED: Final = 1 << 15  # bit of a chunk's type

Fields = dict[str, Any]


class _Open(NamedTuple):
    """A request without its last reply."""

    command: int
    size: int
    error: str | None = None


def recognise(opening: Opening) -> Score:
    """The server's greeting; mid-connection, a magic that a packet begins with."""
    for data in opening.data:
        if data.startswith(_GREETING) or (
            opening.joined and data.startswith((*_ASKING, *_ANSWERING))
        ):
            return CERTAIN
    waits = [data for data in opening.data if data and _GREETING.startswith(data)]
    return None if waits or not any(opening.data) else 0


class _Nbd(Parser):
    """One connection; `_server` is the side that greets."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._open: dict[int, _Open] = {}  # requests by cookie
        self._options: list[tuple[int, int]] = []  # that wait for answers: number, option
        self._count = 0
        self._zeroes = True
        self._export_named = False  # the server's next bytes are the export, without a magic

    def messages(self, stream: ByteStream) -> Steps:
        if stream.joined:
            head = yield from stream.peek(len(_REQUEST))
            steps = self._requests if head in _ASKING else self._replies
            yield from steps(stream)
        elif (yield from stream.peek(1)) == _GREETING[:1]:
            yield from self._serve(stream)
        else:
            yield from self._ask(stream)

    def resumes(self, side: int, head: bytes) -> bool:
        return head.startswith((*_ASKING, *_ANSWERING))

    # --- the client --------------------------------------------------------------------------

    def _ask(self, stream: ByteStream) -> Steps:
        head = yield from stream.peek(len(_REQUEST))
        if head not in _ASKING:
            flags = _U32.unpack((yield from stream.exact(_U32.size)))[0]
            if flags & _NO_ZEROES:
                self._zeroes = False
            yield Message("nbd", f"client flags {flags:#x}", fields={"flags": flags})
            while (yield from stream.peek(len(_REQUEST))) == _OPTION[: len(_REQUEST)]:
                yield from self._option(stream)
        yield from self._requests(stream)

    def _option(self, stream: ByteStream) -> Steps:
        yield from _magic(stream, _OPTION)
        option, size = _OPTION_HEAD.unpack((yield from stream.exact(_OPTION_HEAD.size)))
        body = yield from _sized(stream, size)
        name = f"OPT_{_OPTIONS.get(option, option)}"
        fields: Fields = {"option": option, **texts.bytes_of(body)}
        summary = f"{name} {_option_text(option, body.data, fields)}".strip()
        if option == _EXPORT_NAME:
            self._export_named = True
        if len(self._options) < _MOST_OPTIONS:
            self._options.append((self._next(), option))
        yield Message("nbd", summary, Kind.REQUEST, fields, Call(("option", self._count), name))

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _requests(self, stream: ByteStream) -> Steps:
        while True:
            magic = yield from stream.exact(len(_REQUEST))
            if magic not in _ASKING:
                raise ProtocolError(f"a request begins with {magic.hex(' ')}")
            head = _REQUEST_HEAD if magic == _REQUEST else _EXTENDED_REQUEST_HEAD
            flags, command, cookie, offset, size = head.unpack((yield from stream.exact(head.size)))
            name = _COMMANDS.get(command, f"command {command}")
            fields: Fields = {"command": command, "flags": flags, "cookie": cookie}
            fields |= {"offset": offset, "length": size}
            if command == _WRITE:
                fields |= texts.bytes_of((yield from _sized(stream, size)))
            summary = f"{name} {size} at {offset:#x}" if name in _SIZED else name
            if command == _DISC:
                yield Message("nbd", summary, fields=fields)
                continue
            if len(self._open) < _MOST_OPEN:
                self._open[cookie] = _Open(command, size)
            yield Message("nbd", summary, Kind.REQUEST, fields, Call(cookie, name))

    # --- the server --------------------------------------------------------------------------

    def _serve(self, stream: ByteStream) -> Steps:
        yield from _magic(stream, _GREETING)
        kind = yield from stream.exact(len(_OPTION))
        if kind == _OLD:
            size, flags = _OLD_EXPORT.unpack((yield from stream.exact(_OLD_EXPORT.size)))
            yield from stream.exact(_ZEROES)
            fields = {"size": size, "flags": flags}
            yield Message("nbd", f"old greeting, export of {size} bytes", fields=fields)
        elif kind == _OPTION:
            flags = _U16.unpack((yield from stream.exact(_U16.size)))[0]
            yield Message("nbd", f"greeting, flags {flags:#x}", fields={"flags": flags})
            yield from self._option_replies(stream)
        else:
            raise ProtocolError(f"a greeting of {kind.hex(' ')}")
        yield from self._replies(stream)

    def _option_replies(self, stream: ByteStream) -> Steps:
        """Answers to options, until the export is chosen."""
        while True:
            head = yield from stream.peek(len(_SIMPLE))
            if head == _OPTION_REPLY[: len(head)]:
                yield from self._option_reply(stream)
            elif self._export_named:
                yield from self._export(stream)
                return
            elif head in _ANSWERING or self.over:
                return
            else:
                raise ProtocolError(f"an answer begins with {head.hex(' ')}")

    def _option_reply(self, stream: ByteStream) -> Steps:
        yield from _magic(stream, _OPTION_REPLY)
        head = yield from stream.exact(_OPTION_REPLY_HEAD.size)
        option, kind, size = _OPTION_REPLY_HEAD.unpack(head)
        body = yield from _sized(stream, size)
        ends = kind == _ACK or bool(kind & _FAILED)
        name = _REPLIES.get(kind, f"reply {kind:#x}")
        fields: Fields = {"option": option, "reply": kind, **texts.bytes_of(body)}
        told = _reply_text(kind, body.data, fields)
        failure = f"{name} {told}".strip() if kind & _FAILED else None
        told = "" if failure else told
        summary = f"OPT_{_OPTIONS.get(option, option)}: {name} {told}".strip()
        call = self._option_call(option, failure, ends)
        yield Message("nbd", summary, Kind.RESPONSE, fields, call)
        if option == _STARTTLS and kind == _ACK:
            self.over = True  # all that follows is encrypted

    def _option_call(self, option: int, failure: str | None, ends: bool) -> Call | None:
        if not self._options or self._options[0][1] != option:
            return None
        number = self._options[0][0]
        if ends:
            self._options.pop(0)
        return Call(("option", number), error=failure, ends=ends)

    def _export(self, stream: ByteStream) -> Steps:
        """What OPT_EXPORT_NAME is answered with."""
        size, flags = _NEW_EXPORT.unpack((yield from stream.exact(_NEW_EXPORT.size)))
        if self._zeroes:
            yield from stream.exact(_ZEROES)
        self._export_named = False
        call = self._option_call(_EXPORT_NAME, None, True)
        fields = {"size": size, "flags": flags}
        yield Message("nbd", f"export of {size} bytes", Kind.RESPONSE, fields, call)

    def _replies(self, stream: ByteStream) -> Steps:
        while True:
            magic = yield from stream.exact(len(_SIMPLE))
            if magic == _SIMPLE:
                yield (yield from self._simple(stream))
            elif magic == _STRUCTURED:
                numbers = _STRUCTURED_HEAD.unpack((yield from stream.exact(_STRUCTURED_HEAD.size)))
                yield (yield from self._chunk(stream, numbers[:3], numbers[3]))
            elif magic == _EXTENDED:
                numbers = _EXTENDED_HEAD.unpack((yield from stream.exact(_EXTENDED_HEAD.size)))
                yield (yield from self._chunk(stream, numbers[:3], numbers[4]))
            else:
                raise ProtocolError(f"a reply begins with {magic.hex(' ')}")

    def _simple(self, stream: ByteStream) -> Generator[None, None, Message]:
        code, cookie = _SIMPLE_HEAD.unpack((yield from stream.exact(_SIMPLE_HEAD.size)))
        request = self._open.pop(cookie, None)
        if request is None and not code:
            raise Lost  # its request would say whether data follow
        fields: Fields = {"error": code, "cookie": cookie}
        if request is not None and request.command == _READ and not code:
            fields |= texts.bytes_of((yield from _sized(stream, request.size)))
        failure = errno_name(code) if code else None
        told = "error" if failure else "ok"
        return _reply(request, told, fields, Call(cookie, error=failure))

    def _chunk(
        self, stream: ByteStream, head: tuple[int, ...], size: int
    ) -> Generator[None, None, Message]:
        """A part of a structured or extended reply."""
        flags, kind, cookie = head
        body = yield from _sized(stream, size)
        fields: Fields = {"flags": flags, "type": kind, "cookie": cookie, **texts.bytes_of(body)}
        request = self._open.get(cookie)
        failure = request.error if request else None
        if kind & _CHUNK_FAILED:
            failure = _chunk_error(body.data, fields)
        ends = bool(flags & _DONE)
        if ends:
            self._open.pop(cookie, None)
        elif request is not None:
            self._open[cookie] = request._replace(error=failure)
        told = f"{_CHUNKS.get(kind, f'chunk {kind:#x}')} {size} bytes"
        return _reply(request, told, fields, Call(cookie, error=failure, ends=ends))


def _reply(request: _Open | None, told: str, fields: Fields, call: Call) -> Message:
    name = f"{_COMMANDS.get(request.command, request.command)}: " if request else ""
    return Message("nbd", f"{name}{told}", Kind.RESPONSE, fields, call)


def _magic(stream: ByteStream, magic: bytes) -> Generator[None, None, None]:
    got = yield from stream.exact(len(magic))
    if got != magic:
        raise ProtocolError(f"{got.hex(' ')} where {magic.hex(' ')} must stand")


def _sized(stream: ByteStream, size: int) -> Generator[None, None, Body]:
    if size > _LARGEST:
        raise ProtocolError(f"{size} bytes of data")
    return (yield from stream.body(size, _KEPT))


def _option_text(option: int, data: bytes, fields: Fields) -> str:
    """What an option is about."""
    try:
        if option == _EXPORT_NAME:
            fields["export"] = texts.text_of(data)
        elif option in (_GO, _INFO, 9, 10):
            size = _U32.unpack_from(data)[0]
            fields["export"] = texts.text_of(data[4 : 4 + size])
    except error:
        return ""
    return texts.brief(fields.get("export"))


def _reply_text(kind: int, data: bytes, fields: Fields) -> str:
    """What an answer to an option tells."""
    try:
        if kind & _FAILED:
            return texts.line_of(data)
        if kind == 2:
            size = _U32.unpack_from(data)[0]
            return texts.line_of(data[4 : 4 + size])
        if kind == 3 and _U16.unpack_from(data)[0] == 0:
            fields["size"], fields["flags"] = _NEW_EXPORT.unpack_from(data, 2)
            return f"export of {fields['size']} bytes"
        if kind == 4:
            return texts.line_of(data[4:])
    except error:
        fields["cut"] = True
    return ""


def _chunk_error(data: bytes, fields: Fields) -> str:
    """Error and text of a chunk."""
    try:
        code, size = _ERROR_CHUNK.unpack_from(data)
    except error:
        return "unknown"
    fields["error"] = code
    text = texts.line_of(data[_ERROR_CHUNK.size : _ERROR_CHUNK.size + size])
    return f"{errno_name(code)} {text}".strip()


PROTOCOLS: Final = (
    Protocol("nbd", "Network block device", _Nbd, recognise, (Prior(10809, "NBD server"),)),
)
