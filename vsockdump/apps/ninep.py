"""9P: 9P2000, 9P2000.u and 9P2000.L, as WSL, ChromeOS and QEMU use it.

A message has its size, a type and a tag; a response has its request's tag and the next type.
What a type holds is a line of `_LAYOUTS`.  Of files only numbers (fids) are named after the
first walk to them: their paths are remembered, so that summaries can say them.

Rules for editors: names and layouts are those of the manual (intro(5) of Plan 9) and of the
9P2000.L description of the diod project.  What a message has beyond its layout is kept as
`data`; a message that ends before it is shown as far as it goes.
"""

from collections.abc import Iterator
from struct import Struct, error
from typing import Any, Final

from vsockdump.apps import texts
from vsockdump.apps.byte_stream import ByteStream, ProtocolError, Steps
from vsockdump.apps.errnos import errno_name
from vsockdump.apps.message import Call, Kind, Message
from vsockdump.apps.protocol import (
    CERTAIN,
    LIKELY,
    OPENING,
    Context,
    Opening,
    Parser,
    Prior,
    Protocol,
    Score,
)

_HEADER: Final = Struct("<IBH")
_LARGEST: Final = 64 << 20  # bytes of a message
_KEPT: Final = 4096  # bytes of a message that are kept; reads and writes are longer
_MOST_FIDS: Final = 10_000  # paths that are remembered of a connection
_MOST_NAMES: Final = 256  # of a walk
_NO_TAG: Final = 0xFFFF
_NO_FID: Final = 0xFFFFFFFF
_LONGEST_VERSION: Final = 64  # bytes of the message that tells a version
_LINKS: Final = 3  # messages in a row that show that these are messages, mid-connection

# Numbers by their bytes; s: a string, q: a qid, S: names, Q: qids, d: bytes behind their count.
_LAYOUTS: Final = {
    6: ("Tlerror", ""),
    7: ("Rlerror", "ecode4"),
    8: ("Tstatfs", "fid4"),
    9: ("Rstatfs", "type4 bsize4 blocks8 bfree8 bavail8 files8 ffree8 fsid8 namelen4"),
    12: ("Tlopen", "fid4 flags4"),
    13: ("Rlopen", "q iounit4"),
    14: ("Tlcreate", "fid4 name:s flags4 mode4 gid4"),
    15: ("Rlcreate", "q iounit4"),
    16: ("Tsymlink", "fid4 name:s target:s gid4"),
    17: ("Rsymlink", "q"),
    18: ("Tmknod", "dfid4 name:s mode4 major4 minor4 gid4"),
    19: ("Rmknod", "q"),
    20: ("Trename", "fid4 dfid4 name:s"),
    21: ("Rrename", ""),
    22: ("Treadlink", "fid4"),
    23: ("Rreadlink", "target:s"),
    24: ("Tgetattr", "fid4 mask8"),
    25: ("Rgetattr", "valid8 q mode4 uid4 gid4 nlink8 rdev8 size8 blksize8 blocks8"),
    26: ("Tsetattr", "fid4 valid4 mode4 uid4 gid4 size8"),
    27: ("Rsetattr", ""),
    30: ("Txattrwalk", "fid4 newfid4 name:s"),
    31: ("Rxattrwalk", "size8"),
    32: ("Txattrcreate", "fid4 name:s size8 flags4"),
    33: ("Rxattrcreate", ""),
    40: ("Treaddir", "fid4 offset8 count4"),
    41: ("Rreaddir", "d"),
    50: ("Tfsync", "fid4"),
    51: ("Rfsync", ""),
    52: ("Tlock", "fid4 type1 flags4 start8 length8 proc_id4 client_id:s"),
    53: ("Rlock", "status1"),
    54: ("Tgetlock", "fid4 type1 start8 length8 proc_id4 client_id:s"),
    55: ("Rgetlock", "type1 start8 length8 proc_id4 client_id:s"),
    70: ("Tlink", "dfid4 fid4 name:s"),
    71: ("Rlink", ""),
    72: ("Tmkdir", "dfid4 name:s mode4 gid4"),
    73: ("Rmkdir", "q"),
    74: ("Trenameat", "dfid4 name:s newdfid4 newname:s"),
    75: ("Rrenameat", ""),
    76: ("Tunlinkat", "dfid4 name:s flags4"),
    77: ("Runlinkat", ""),
    100: ("Tversion", "msize4 version:s"),
    101: ("Rversion", "msize4 version:s"),
    102: ("Tauth", "afid4 uname:s aname:s"),
    103: ("Rauth", "q"),
    104: ("Tattach", "fid4 afid4 uname:s aname:s"),
    105: ("Rattach", "q"),
    107: ("Rerror", "ename:s"),
    108: ("Tflush", "oldtag2"),
    109: ("Rflush", ""),
    110: ("Twalk", "fid4 newfid4 S"),
    111: ("Rwalk", "Q"),
    112: ("Topen", "fid4 mode1"),
    113: ("Ropen", "q iounit4"),
    114: ("Tcreate", "fid4 name:s perm4 mode1"),
    115: ("Rcreate", "q iounit4"),
    116: ("Tread", "fid4 offset8 count4"),
    117: ("Rread", "d"),
    118: ("Twrite", "fid4 offset8 d"),
    119: ("Rwrite", "count4"),
    120: ("Tclunk", "fid4"),
    121: ("Rclunk", ""),
    122: ("Tremove", "fid4"),
    123: ("Rremove", ""),
    124: ("Tstat", "fid4"),
    125: ("Rstat", ""),
    126: ("Twstat", "fid4"),
    127: ("Rwstat", ""),
}
_NUMBERS: Final = {"1": Struct("<B"), "2": Struct("<H"), "4": Struct("<I"), "8": Struct("<Q")}
_QID: Final = Struct("<BIQ")
_FAILURES: Final = (7, 107)
_TOLD: Final = ("count", "offset", "newname", "target", "version", "uname", "aname", "oldtag")

Fields = dict[str, Any]


class _Reader:
    """The bytes of a message behind its header."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, size: str) -> int:
        struct = _NUMBERS[size]
        value: int = struct.unpack_from(self._data, self._at)[0]
        self._at += struct.size
        return value

    def string(self) -> str:
        size = self.number("2")
        text = self._data[self._at : self._at + size]
        if len(text) < size:
            raise error
        self._at += size
        return texts.text_of(text)

    def qid(self) -> Fields:
        kind, version, path = _QID.unpack_from(self._data, self._at)
        self._at += _QID.size
        return {"type": kind, "version": version, "path": path}

    def rest(self) -> bytes:
        return self._data[self._at :]


def _fields(layout: str, data: bytes) -> Fields:
    """What a message holds, as far as it goes."""
    reader = _Reader(data)
    fields: Fields = {}
    try:
        for part in layout.split():
            _read(part, reader, fields)
    except error:
        fields["cut"] = True
    if rest := reader.rest():
        fields["data"] = rest
    return fields


def _read(part: str, reader: _Reader, fields: Fields) -> None:
    if part == "q":
        fields["qid"] = reader.qid()
    elif part == "Q":
        count = min(reader.number("2"), _MOST_NAMES)
        fields["qids"] = [reader.qid() for _ in range(count)]
    elif part == "S":
        count = min(reader.number("2"), _MOST_NAMES)
        fields["names"] = [reader.string() for _ in range(count)]
    elif part == "d":
        fields["count"] = reader.number("4")
    elif part.endswith(":s"):
        fields[part[:-2]] = reader.string()
    else:
        fields[part[:-1]] = reader.number(part[-1])


def recognise(opening: Opening) -> Score:
    """An exchange of versions; where the beginning is missing, messages in a row."""
    asked, answered = opening.data
    if opening.joined:
        return _in_row(opening)
    for data, kind in ((asked, 100), (answered, 101)):
        if data:
            return _version(data, kind)
    return None


def _version(data: bytes, kind: int) -> Score:
    if (
        data[0] > _LONGEST_VERSION
        or data[1:4].strip(b"\0")
        or data[4:5] not in (b"", bytes([kind]))
    ):
        return 0
    if len(data) < _HEADER.size:
        return None
    size, told, tag = _HEADER.unpack_from(data)
    if told != kind or tag != _NO_TAG or size < 13:
        return 0
    if len(data) < _HEADER.size + 8:
        return None
    return CERTAIN if data[13:15] == b"9P" else 0


def _in_row(opening: Opening) -> Score:
    scores = [_chain(data) for data in opening.data if data]
    if not scores or 0 in scores:
        return 0 if scores else None
    return max((score for score in scores if score), default=None)


def _chain(data: bytes) -> Score:
    """Messages in a row, all requests or all responses."""
    at = links = 0
    while at + _HEADER.size <= len(data):
        if not _begins(data[at:], data[4] % 2):
            return 0
        at += _HEADER.unpack_from(data, at)[0]
        links += 1
    if links >= _LINKS:
        return LIKELY
    return 0 if len(data) >= OPENING else None


def _begins(head: bytes, answers: int) -> bool:
    """Whether a request could begin so, or a response where `answers` is 1."""
    if len(head) < _HEADER.size:
        return False
    size, kind, _tag = _HEADER.unpack_from(head)
    return _HEADER.size <= size <= _LARGEST and kind in _LAYOUTS and kind % 2 == answers


class _NineP(Parser):
    """One connection."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._client: int | None = None  # the side that asks; the first message tells
        self._paths: dict[int, str] = {}  # by fid
        self._walks: dict[int, tuple[int, str, int]] = {}  # by tag: new fid, its path, steps

    def messages(self, stream: ByteStream) -> Steps:
        while True:
            size, kind, tag = _HEADER.unpack((yield from stream.exact(_HEADER.size)))
            if not _HEADER.size <= size <= _LARGEST:
                raise ProtocolError(f"a message of {size} bytes")
            if self._client is None:
                self._client = stream.side ^ kind % 2
            if self._client != stream.side ^ kind % 2:
                raise ProtocolError(f"type {kind} from the wrong side")
            body = yield from stream.body(size - _HEADER.size, _KEPT)
            name, layout = _LAYOUTS.get(kind, (f"type {kind}", ""))
            fields = {"type": kind, "tag": tag, **_fields(layout, body.data)}
            if not body.is_whole:
                fields |= {"size": body.size, "missing": body.missing}
            make = self._response if kind % 2 else self._request
            yield make(name, kind, tag, fields)

    def resumes(self, side: int, head: bytes) -> bool:
        if len(head) < _HEADER.size:
            return False
        return _begins(head, head[4] % 2 if self._client is None else side ^ self._client)

    def _request(self, name: str, kind: int, tag: int, fields: Fields) -> Message:
        path = self._path_of(fields)
        if path:
            fields["path"] = path
        self._note(kind, tag, fields)
        summary = " ".join((name, *filter(None, (path,)), *_told(fields), *_tagged(tag)))
        return Message("9p", summary, Kind.REQUEST, fields, Call(tag, name))

    def _response(self, name: str, kind: int, tag: int, fields: Fields) -> Message:
        self._arrive(kind, tag, fields)
        failure = None
        if kind in _FAILURES:
            failure = errno_name(fields["ecode"]) if "ecode" in fields else fields.get("ename", "")
        summary = " ".join((name, *_told(fields), *_tagged(tag)))
        return Message("9p", summary, Kind.RESPONSE, fields, Call(tag, error=failure))

    def _path_of(self, fields: Fields) -> str:
        """The path that a request is about."""
        fid = fields.get("fid", fields.get("dfid"))
        if fid is None:
            return ""
        base = self._paths.get(fid, f"fid {fid}")
        below = fields.get("names") or ([fields["name"]] if "name" in fields else [])
        return texts.short("/".join((base.rstrip("/"), *below)) or "/")

    def _note(self, kind: int, tag: int, fields: Fields) -> None:
        """Remember which paths a request will give to fids."""
        if kind == 104 and "fid" in fields:
            self._walks[tag] = (fields["fid"], "/", 0)
        elif kind == 110 and "newfid" in fields:
            self._walks[tag] = (fields["newfid"], fields["path"], len(fields.get("names", ())))
        elif kind in (14, 114) and "name" in fields:
            self._walks[tag] = (fields["fid"], fields["path"], 0)
        elif kind in (120, 122):
            self._paths.pop(fields.get("fid", _NO_FID), None)
        while len(self._walks) > _MOST_FIDS:
            del self._walks[next(iter(self._walks))]

    def _arrive(self, kind: int, tag: int, fields: Fields) -> None:
        """A walk, attach or create has succeeded, or has not."""
        walk = self._walks.pop(tag, None)
        if walk is None or kind in _FAILURES:
            return
        fid, path, steps = walk
        if len(fields.get("qids", ())) < steps:
            return
        self._paths.pop(fid, None)
        self._paths[fid] = path
        if len(self._paths) > _MOST_FIDS:
            del self._paths[next(iter(self._paths))]


def _told(fields: Fields) -> Iterator[str]:
    """What a summary says of the fields."""
    for name in _TOLD:
        if fields.get(name) not in (None, ""):
            value = texts.short(str(fields[name]))
            yield value if name in ("version", "target") else f"{name} {value}"


def _tagged(tag: int) -> Iterator[str]:
    if tag != _NO_TAG:
        yield f"#{tag}"


PROTOCOLS: Final = (
    Protocol(
        "9p",
        "9P file system (9P2000, .u, .L)",
        _NineP,
        recognise,
        tuple(Prior(port, "WSL's Plan 9 file server") for port in (50001, 50002, 50003)),
    ),
)
