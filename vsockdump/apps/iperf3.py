"""iperf3: the control connection, and the data streams, which are told and not parsed.

Both begin with the test's cookie.  On the control connection the server then sends states,
a byte each, and client and server exchange parameters and results as JSON behind a u32 BE.
A data stream is bulk: nothing of it is parsed behind the cookie.

Rules for editors: states and JSON are exchanged in step, so that what stands next in the
client's direction is told by the last state; the sides are parsed in the order of packets.
"""

from collections.abc import Generator
from struct import Struct
from typing import Any, Final

from vsockdump.apps import texts
from vsockdump.apps.byte_stream import ByteStream, ProtocolError, Steps
from vsockdump.apps.message import Message
from vsockdump.apps.protocol import CERTAIN, Context, Opening, Parser, Prior, Protocol, Score

_COOKIE: Final = 37  # bytes: 36 letters and digits of base 32, and NUL
_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz234567"
_PARAMETERS, _RESULTS = 9, 13
_STATES: Final = {
    1: "TEST_START", 2: "TEST_RUNNING", 4: "TEST_END", _PARAMETERS: "PARAM_EXCHANGE",
    10: "CREATE_STREAMS", 11: "SERVER_TERMINATE", 12: "CLIENT_TERMINATE",
    _RESULTS: "EXCHANGE_RESULTS", 14: "DISPLAY_RESULTS", 15: "IPERF_START", 16: "IPERF_DONE",
    0xFE: "SERVER_ERROR", 0xFF: "ACCESS_DENIED",
}  # fmt: skip
_FIRST: Final = (_PARAMETERS, 0xFE, 0xFF)  # states that a control connection begins with
_ERROR: Final = 0xFE
_ERROR_NUMBERS: Final = Struct(">ii")  # of iperf3, and the system's
_SIZE: Final = Struct(">I")


def recognise(opening: Opening) -> Score:
    """A cookie."""
    head = opening.data[0][:_COOKIE]
    if not head and not opening.data[1]:
        return None
    if head[: _COOKIE - 1].translate(None, _LETTERS) or not head:
        return 0
    if len(head) < _COOKIE:
        return None
    return CERTAIN if head[-1] == 0 else 0


class _Iperf3(Parser):
    """One connection of a test."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._state = 0  # the last one of the acceptor
        self._is_control = False  # as a state, or JSON, has shown
        self._awaited = [False, False]  # JSON of a side

    def messages(self, stream: ByteStream) -> Steps:
        if stream.side == 0:
            cookie = (yield from stream.exact(_COOKIE))[:-1].decode("ascii", "backslashreplace")
            yield Message("iperf3", f"cookie {texts.short(cookie, 12)}", fields={"cookie": cookie})
        while True:
            if self._awaited[stream.side]:
                self._awaited[stream.side] = False
                yield from self._json(stream)
                continue
            yield from stream.peek(1)
            if self._awaited[stream.side]:
                continue  # the state that asks for it came meanwhile
            if not (self._is_control or (yield from self._shows_control(stream))):
                yield Message("iperf3", "data stream")
                self.over = True
                return
            if not self._awaited[stream.side]:
                yield from self._next_state(stream)

    def _shows_control(self, stream: ByteStream) -> Generator[None, None, bool]:
        """Whether a side goes on as on a control connection, which no state has shown yet.

        The acceptor does with a state, and the initiator with JSON, if that state was lost.
        """
        if stream.side == 1:
            return (yield from stream.peek(1))[0] in _FIRST
        is_json = (yield from stream.peek(_SIZE.size + 1))[-1:] == b"{"
        if is_json:
            self._awaited[0] = self._is_control = True
        return self._is_control

    def _next_state(self, stream: ByteStream) -> Steps:
        state = (yield from stream.exact(1))[0]
        if state not in _STATES:
            raise ProtocolError(f"state {state}")
        fields: dict[str, Any] = {"state": state}
        if stream.side == 1:
            self._state, self._is_control = state, True
            if state in (_PARAMETERS, _RESULTS):
                self._awaited = [True, state == _RESULTS]
        if state == _ERROR:
            own, system = _ERROR_NUMBERS.unpack((yield from stream.exact(_ERROR_NUMBERS.size)))
            fields |= {"error": own, "errno": system}
        yield Message("iperf3", _STATES[state], fields=fields)

    def _json(self, stream: ByteStream) -> Steps:
        size = _SIZE.unpack((yield from stream.exact(_SIZE.size)))[0]
        body = yield from stream.body(size)
        value = texts.object_of(body.data)
        if value is None:
            yield Message("iperf3", f"JSON of {size} bytes", fields=texts.bytes_of(body))
        elif self._state == _PARAMETERS:
            yield Message("iperf3", f"parameters {texts.brief(value)}", fields=value)
        else:
            yield Message("iperf3", _results(value), fields=value)


def _results(value: dict[str, Any]) -> str:
    """The sums of a side's results."""
    streams = value.get("streams")
    streams = [one for one in streams if isinstance(one, dict)] if isinstance(streams, list) else []
    counts = [one["bytes"] for one in streams if isinstance(one.get("bytes"), int)]
    return f"results: {len(streams)} streams, {sum(counts)} bytes"


PROTOCOLS: Final = (
    Protocol(
        "iperf3",
        "iperf3: control connections",
        _Iperf3,
        recognise,
        (Prior(5201, "iperf3 (iperf-vsock)"),),
    ),
)
