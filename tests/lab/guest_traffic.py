"""Traffic between a host and its guest, through vhost_vsock, and the log of it.

`guest_traffic.py LOG PORT`: as traffic.py, with one end of each connection in a guest that
is played in user space (vhost.py).  Here packets are split to fit the guest's receive
buffers, which is where the taps of most kernels repeat payload; and the guest does what no
Linux socket would: it ignores a REQUEST, answers it too late, sends beyond its credit.
"""

import errno
import hashlib
import socket
import sys
import time

from traffic import (
    DEFAULT_BUFFER,
    MSG_EOR,
    SEQPACKET,
    STREAM,
    Connection,
    Counted,
    Lab,
    beside,
    noise,
    write_log,
)
from vhost import Guest, Packet

from vsockdump.wire import CID_HOST, MAX_PAYLOAD, Op, Seqpacket, Shutdown

GUEST_CID = 3
CONNECT_TIMEOUT_S = 2.1  # Linux's is 2 s
GIVES_UP_S = 30.0  # more than the kernel waits for an answer to SHUTDOWN, which is 8 s


class GuestEnd:
    """The guest's end of a connection, with the counts that Counted keeps."""

    def __init__(self, guest: Guest, port: int, peer: int, kind: int, buffer: int) -> None:
        self.bytes_sent = 0
        self.bytes_received = 0
        self.digest = hashlib.sha256()
        self.received = hashlib.sha256()
        self.messages: list[list[int]] = []
        self._guest, self._port, self._peer = guest, port, peer
        self._type = 2 if kind == SEQPACKET else 1
        self._buffer = buffer

    def getpeername(self) -> tuple[int, int]:
        """As of a socket."""
        return CID_HOST, self._peer

    def send(self, op: int, data: bytes = b"", flags: int = 0) -> None:
        """Send a packet."""
        ports = self._port, self._peer
        credit = self._buffer, self.bytes_received
        kind = self._type, op, flags
        self._guest.send(Packet(self._guest.cid, CID_HOST, *ports, len(data), *kind, *credit, data))
        self.bytes_sent += len(data)
        self.digest.update(data)

    def expect(self, op: int, limit_s: float = GIVES_UP_S) -> Packet:
        """The next packet of this op; its bytes count as received and consumed."""
        packet = self._guest.receive(
            lambda each: (each.src_port, each.dst_port, each.op) == (self._peer, self._port, op),
            limit_s,
        )
        self.bytes_received += packet.len
        self.received.update(packet.data)
        return packet

    def read(self, size: int) -> None:
        """Receive so many bytes, and give credit for each packet."""
        end = self.bytes_received + size
        while self.bytes_received < end:
            self.expect(Op.RW)
            self.send(Op.CREDIT_UPDATE)

    def read_message(self) -> tuple[int, bool]:
        """Receive a SEQPACKET message: its length, and whether it ends a record."""
        start = self.bytes_received
        while not (packet := self.expect(Op.RW)).flags & Seqpacket.EOM:
            pass
        self.send(Op.CREDIT_UPDATE)
        return self.bytes_received - start, bool(packet.flags & Seqpacket.EOR)


class GuestLab(Lab):
    """Connections between this host and the guest."""

    def __init__(self, port: int) -> None:
        super().__init__(GUEST_CID, port)
        self.guest = Guest(GUEST_CID)

    def from_guest(self, name: str, kind: int = STREAM) -> tuple[Connection, GuestEnd, Counted]:
        """A connection that the guest begins."""
        connection = self.log(Connection(name, kind))
        with self.listen(kind) as listener:
            port = listener.getsockname()[1]
            guest = GuestEnd(self.guest, self.port(), port, kind, DEFAULT_BUFFER)
            guest.send(Op.REQUEST)
            guest.expect(Op.RESPONSE)
            acceptor, _ = listener.accept()
        connection.opened(guest, acceptor)
        return connection, guest, acceptor

    def to_guest(
        self, name: str, kind: int = STREAM, buffer: int = DEFAULT_BUFFER
    ) -> tuple[Connection, Counted, GuestEnd]:
        """A connection that the host begins."""
        attempt = Attempt(self, name, kind, buffer)
        with beside(attempt.connect):
            attempt.guest.expect(Op.REQUEST)
            attempt.guest.send(Op.RESPONSE)
        assert "connect" not in attempt.connection.facts["errors"]
        attempt.connection.opened(attempt.host, attempt.guest)
        return attempt.connection, attempt.host, attempt.guest


class Attempt:
    """A connect from the host to the guest, who may answer it or not."""

    def __init__(
        self, lab: GuestLab, name: str, kind: int = STREAM, buffer: int = DEFAULT_BUFFER
    ) -> None:
        ports = lab.port(), lab.port()
        addresses = {"initiator": [CID_HOST, ports[0]], "acceptor": [GUEST_CID, ports[1]]}
        self.connection = lab.log(Connection(name, kind, **addresses))
        self.guest = GuestEnd(lab.guest, ports[1], ports[0], kind, buffer)
        self.host = Counted(kind)
        self.host.bind((socket.VMADDR_CID_ANY, ports[0]))
        self._address = GUEST_CID, ports[1]

    def connect(self) -> None:
        """Connect, and write down how it fails."""
        try:
            self.host.connect(self._address)
        except OSError as error:
            self.connection.facts["errors"]["connect"] = errno.errorcode[error.errno]


def upload(lab: GuestLab) -> None:
    """The guest connects and sends, in packets as large as there are."""
    connection, guest, acceptor = lab.from_guest("guest sends")
    data = noise(3 * MAX_PAYLOAD)
    for start in range(0, len(data), MAX_PAYLOAD):
        guest.send(Op.RW, data[start : start + MAX_PAYLOAD])
    assert data == acceptor.read(len(data))
    guest.send(Op.CREDIT_REQUEST)
    guest.expect(Op.CREDIT_UPDATE)
    connection.closes(0)
    guest.send(Op.SHUTDOWN, flags=Shutdown.RCV | Shutdown.SEND)
    guest.expect(Op.RST)
    acceptor.close()


def download(lab: GuestLab) -> None:
    """The host connects and sends; the kernel splits it to fit the guest's buffers."""
    connection, host, guest = lab.to_guest("host sends")
    data = noise(200000)
    with beside(lambda: host.sendall(data)):
        guest.read(len(data))
    assert hashlib.sha256(data).digest() == guest.received.digest()
    connection.closes(1)
    guest.send(Op.RST)
    connection.facts["errors"]["read"] = host.read_to_end()
    host.close()


def download_messages(lab: GuestLab) -> None:
    """SEQPACKET messages to the guest, in pieces."""
    connection, host, guest = lab.to_guest("host sends messages", SEQPACKET)
    for number, size in enumerate((10, 9000, 70000, 200000)):
        flags = MSG_EOR if number % 2 else 0
        with beside(lambda size=size, flags=flags: host.send(noise(size), flags)):
            assert (size, bool(flags)) == guest.read_message()
    connection.close(0)
    guest.expect(Op.SHUTDOWN)
    guest.send(Op.RST)


def small_window(lab: GuestLab) -> None:
    """A guest with room for 64 bytes."""
    connection, host, guest = lab.to_guest("small window", buffer=64)
    connection.facts["buffers"] = [64]
    with beside(lambda: host.sendall(noise(1000))):
        guest.read(1000)
    connection.close(0)
    guest.expect(Op.SHUTDOWN)
    guest.send(Op.RST)


def over_credit(lab: GuestLab) -> None:
    """The guest sends a packet more than it has credit for; the kernel resets."""
    connection, guest, acceptor = lab.from_guest("beyond its credit")
    for _ in range(DEFAULT_BUFFER // MAX_PAYLOAD + 1):
        guest.send(Op.RW, noise(MAX_PAYLOAD))
    connection.closes(1)
    guest.expect(Op.RST)
    acceptor.read(DEFAULT_BUFFER)
    acceptor.close()


def refuses(lab: GuestLab) -> None:
    """The guest refuses."""
    attempt = Attempt(lab, "guest refuses")
    with beside(attempt.connect):
        attempt.guest.expect(Op.REQUEST)
        attempt.connection.closes(1)
        attempt.guest.send(Op.RST)
    attempt.host.close()


def ignores(lab: GuestLab) -> None:
    """Two connects time out: one is never answered, one when it is too late."""
    never, late = Attempt(lab, "guest ignores"), Attempt(lab, "guest answers late")
    with beside(never.connect), beside(late.connect):
        never.guest.expect(Op.REQUEST)
        late.guest.expect(Op.REQUEST)
        arrived = time.monotonic()
    # The kernel counts from before the tap saw the REQUEST; late is what the tap sees as late.
    time.sleep(max(0.0, arrived + CONNECT_TIMEOUT_S - time.monotonic()))
    late.guest.send(Op.RESPONSE)
    late.connection.closes(0)
    late.guest.expect(Op.RST)
    never.host.close()
    late.host.close()


def main() -> None:
    """Run every scenario and write the log."""
    lab = GuestLab(int(sys.argv[2]))
    connection, _, silent = lab.to_guest("guest never confirms the close")
    connection.close(0)
    silent.expect(Op.SHUTDOWN)
    for scenario in (
        upload,
        download,
        download_messages,
        small_window,
        over_credit,
        refuses,
        ignores,
    ):
        scenario(lab)
    silent.expect(Op.RST)
    lab.guest.close()
    write_log(lab, sys.argv[1])


if __name__ == "__main__":
    main()
