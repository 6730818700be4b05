"""What a parser says: messages, and the calls that requests and responses are halves of.

Rules for editors: values only.  Texts come from captured bytes and are hostile; whoever
draws them escapes them.
"""

from collections.abc import Hashable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

# A tree of what a message holds: numbers, texts, bytes, and lists and mappings of these.
Value = int | float | str | bytes | bool | None | Sequence[Any] | Mapping[str, Any]
Fields = Mapping[str, Value]

NO_FIELDS: Final[Fields] = MappingProxyType({})


class Kind(StrEnum):
    """What a message is to the other side."""

    REQUEST = "request"
    RESPONSE = "response"
    MESSAGE = "message"  # neither, or it cannot be told
    NOTE = "note"  # not said by anyone: what the parser noticed, such as that it gave up


class Call(NamedTuple):
    """Which call a request or response belongs to.

    `key` tells the calls of a connection that are open at once apart; `method` may be left
    empty in a response, which then has its request's.  `error` says why a call failed, None
    that it did not.  `ends` is False for a response that others will follow; `own` says that
    the call began on the response's own side, as a handshake does that its asker completes.
    """

    key: Hashable
    method: str = ""
    error: str | None = None
    ends: bool = True
    own: bool = False


class Message(NamedTuple):
    """One message, when it is complete.

    `summary` is one line without the protocol's name and the size; `fields` is the full
    decode.  `size` in bytes, None: all that was read since the side's last message.
    """

    protocol: str
    summary: str
    kind: Kind = Kind.MESSAGE
    fields: Fields = NO_FIELDS
    call: Call | None = None
    size: int | None = None


class Said(NamedTuple):
    """A message in its place: what the packets say about it.

    `packet` is the number of the packet that completed it and `time_ns` its time (or
    batch.NO_TIME), `offset` where in the stream of `side` it begins, `size` its bytes.
    `latency_ns` of a response is the time since its request, which stood in
    `request_packet`; None where that is unknown.  `data` holds the bytes themselves where
    they were asked for, `whole` says that none of them is missing.
    """

    packet: int
    time_ns: int
    conn: int
    side: int
    offset: int
    size: int
    message: Message
    latency_ns: int | None = None
    request_packet: int | None = None
    data: bytes = b""
    whole: bool = True


class OpenCall(NamedTuple):
    """A request that has no response (yet)."""

    packet: int
    time_ns: int
    conn: int
    side: int
    protocol: str
    method: str
