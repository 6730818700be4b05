"""Ethernet frames in a stream: gvproxy, nitriding, vpnkit, and QEMU's socket netdev.

gvproxy and nitriding begin with an HTTP request (`POST /connect`) that is not answered;
vpnkit begins with a handshake (`VMN3T`) that names the machine and its MAC address.  Then
frames come both ways, each behind its length: u16 LE, or u32 BE, as QEMU's stream netdev has
it.  Which of the two, the first frame tells.

A frame's bytes are `message.fields["frame"]` (see `frame_in`), for those who export them.

Rules for editors: a tunnel carries all traffic of a machine.  Nothing here may cost much
more than the bytes do (inner_frames.py).
"""

from ipaddress import IPv4Address
from struct import Struct
from typing import Final

from vsockdump.apps.byte_stream import ByteStream, Ended, ProtocolError, Steps
from vsockdump.apps.inner_frames import HEADER, frame_fields, frame_line, is_usual
from vsockdump.apps.message import Kind, Message
from vsockdump.apps.protocol import (
    CERTAIN,
    LIKELY,
    OPENING,
    Opening,
    Parser,
    Prior,
    Protocol,
    Score,
)

NAME: Final = "ethernet"
_CONNECT: Final = b"POST /connect HTTP/1."
_MAGIC: Final = b"VMN3T"
_LARGEST: Final = 65_550  # bytes of a frame: the largest IP packet and an Ethernet header

_U16: Final = Struct("<H")
_U32: Final = Struct(">I")
_LENGTHS: Final = (_U16, _U32)
_LINKS: Final = 2  # frames in a row that show that these are frames

_INIT: Final = Struct("<5sI40s")
_COMMAND: Final = Struct("<B36s4s")
_VIF: Final = Struct("<HH6s")
_RESPONSE_REST: Final = 258 - 1 - _VIF.size  # a typed answer of vpnkit is 258 bytes
_RESPONSES: Final = (b"\x01", b"\x02")  # an interface, a refusal


def frame_in(message: Message) -> bytes | None:
    """The frame that a message carries, as far as it was captured; None: it carries none."""
    if message.protocol != NAME:
        return None
    frame = message.fields.get("frame")
    return frame if isinstance(frame, bytes) else None


def looks(head: bytes) -> Score:
    """Whether a side's bytes begin with frames."""
    for length in _LENGTHS:
        frames = _chained(head, length)
        if frames is None or frames >= _LINKS:
            return frames and LIKELY
    return 0


def _chained(head: bytes, length: Struct) -> int | None:
    """How many frames `head` begins with; 0: they are none, None: too few bytes to tell."""
    at = frames = 0
    while at + length.size + HEADER <= len(head):
        size = length.unpack_from(head, at)[0]
        frame = head[at + length.size :]
        if not HEADER <= size <= _LARGEST or not is_usual(frame):
            return 0
        at += length.size + size
        frames += 1
    return frames if frames >= _LINKS or len(head) >= OPENING else None


def recognise(opening: Opening) -> Score:
    """The handshakes are certain; frames alone are likely."""
    first = opening.data[0]
    for begin in (_CONNECT, _MAGIC):
        if first.startswith(begin):
            return CERTAIN
        if first and begin.startswith(first):
            return None
    scores = [looks(data) for data in opening.data if data]
    if not scores or 0 in scores:
        return 0 if scores else None
    return max((score for score in scores if score), default=None)


class _Tunnel(Parser):
    """Both sides of a tunnel; each begins with its part of a handshake, if there is one."""

    def messages(self, stream: ByteStream) -> Steps:
        if not stream.joined:
            yield from self._handshake(stream)
        # The high bytes of an u32 BE come first and are 0, which is no length of a frame.
        head = yield from stream.peek(_U16.size)
        length = _U16 if _U16.unpack(head)[0] >= HEADER else _U32
        while True:
            size = length.unpack((yield from stream.exact(length.size)))[0]
            if not HEADER <= size <= _LARGEST:
                raise ProtocolError(f"a frame of {size} bytes")
            body = yield from stream.body(size, _LARGEST)
            yield Message(NAME, frame_line(body.data), fields=frame_fields(body.data, body.missing))

    def resumes(self, side: int, head: bytes) -> bool:
        return bool(looks(head[:OPENING]))

    def _handshake(self, stream: ByteStream) -> Steps:
        head = yield from stream.peek(len(_MAGIC))
        if head == _MAGIC:
            yield from _vpnkit(stream)
        elif head in (b"POST ", b"HTTP/"):
            request = yield from stream.until(b"\r\n\r\n")
            line = request.split(b"\r\n", 1)[0].decode("ascii", "backslashreplace")
            yield Message(NAME, line, fields={"head": request})


def _vpnkit(stream: ByteStream) -> Steps:
    """A side's part of vpnkit's handshake."""
    _magic, version, commit = _INIT.unpack((yield from stream.exact(_INIT.size)))
    fields = {"version": version, "commit": commit.decode("ascii", "backslashreplace")}
    yield Message(NAME, f"vpnkit hello version {version}", Kind.MESSAGE, fields)
    if stream.side == 0:
        yield from _vpnkit_command(stream)
    else:
        yield from _vpnkit_answer(stream)


def _vpnkit_command(stream: ByteStream) -> Steps:
    command, uuid, address = _COMMAND.unpack((yield from stream.exact(_COMMAND.size)))
    text = uuid.rstrip(b"\0").decode("ascii", "backslashreplace")
    if command == 2:
        wanted = str(IPv4Address(address[::-1]))
        fields = {"command": command, "uuid": text, "address": wanted}
        yield Message(NAME, f"vpnkit ethernet {text} prefers {wanted}", fields=fields)
    else:
        yield Message(NAME, f"vpnkit ethernet {text}", fields={"command": command, "uuid": text})
        if command != 1:
            raise ProtocolError(f"command {command} of vpnkit")


def _vpnkit_answer(stream: ByteStream) -> Steps:
    """The interface that a machine gets, in the older form or in the one with a type."""
    head = yield from stream.peek(1)
    typed = head in _RESPONSES
    if typed:
        yield from stream.exact(1)
    if typed and head == _RESPONSES[1]:
        size = (yield from stream.exact(1))[0]
        reason = (yield from stream.exact(size)).decode("utf-8", "backslashreplace")
        yield Message(NAME, f"vpnkit refused: {reason}", fields={"reason": reason})
        raise Ended
    mtu, largest, mac = _VIF.unpack((yield from stream.exact(_VIF.size)))
    if typed:
        yield from stream.exact(_RESPONSE_REST)
    fields = {"mtu": mtu, "max_packet_size": largest, "mac": mac.hex(":")}
    yield Message(NAME, f"vpnkit interface {mac.hex(':')} mtu {mtu}", fields=fields)


PROTOCOLS: Final = (
    Protocol(
        NAME,
        "Tunnelled Ethernet (gvproxy, nitriding, vpnkit, QEMU)",
        _Tunnel,
        recognise,
        (Prior(1024, "gvproxy", "host"),),
        most=LIKELY,  # of frames alone; handshakes are read at once
    ),
)
