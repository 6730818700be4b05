"""Makes AF_VSOCK traffic over loopback and writes down what it did.

`traffic.py LOG CID PORT [SCENARIO...]` runs the scenarios, all ordinary ones without names,
to CID (1, or 2, by which a host reaches itself too) on ports from PORT on.  LOG becomes a
JSON list of connections, see `Connection.record`: the ground truth for what vsockdump says
of a capture.

Rules for editors: counts are kept by the socket itself (Counted), so that they hold for
whoever sends, http.server too.  Programs wait for what they can see (data, an end, an
error), never for time; the one sleep is the stall that is to be measured.  Timed sockets
are not used: they do not block, and a SEQPACKET send that runs out of credit half way then
leaves a torn message.  Standard library only.
"""

import contextlib
import errno
import hashlib
import http.client
import http.server
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

STREAM, SEQPACKET = socket.SOCK_STREAM, socket.SOCK_SEQPACKET
BUFFER_SIZE, BUFFER_MIN, BUFFER_MAX = 0, 1, 2  # options of SOL AF_VSOCK
DEFAULT_BUFFER = 262144
MSG_EOR = 0x80
STALL_S = 0.5
LAST_PORT = 60000  # of the connect that nothing follows
CONNECTIONS_AT_ONCE = 100
Ends = tuple["Counted", "Counted"]


class Counted(socket.socket):
    """A vsock socket that counts what it sends and receives."""

    def __init__(self, kind: int = STREAM, fileno: int | None = None) -> None:
        super().__init__(socket.AF_VSOCK, kind, 0, fileno)
        self.bytes_sent = 0
        self.bytes_received = 0
        self.digest = hashlib.sha256()  # of what was sent
        self.messages: list[list[int]] = []  # length and EOR of each SEQPACKET message sent

    def accept(self) -> tuple[Self, Any]:
        """As of a socket; what comes is counted too."""
        fd, address = self._accept()
        return type(self)(self.type, fd), address

    def send(self, data: Any, flags: int = 0) -> int:
        """As of a socket."""
        sent = super().send(data, flags)
        self.bytes_sent += sent
        self.digest.update(bytes(data)[:sent])
        if self.type == SEQPACKET:
            self.messages.append([sent, flags & MSG_EOR])
        return sent

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As of a socket, with a true count where it fails in the middle."""
        left = memoryview(data)
        while left:
            left = left[self.send(left, flags) :]

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As of a socket; a peek does not count."""
        data = super().recv(size, flags)
        if not flags & socket.MSG_PEEK:
            self.bytes_received += len(data)
        return data

    def recv_into(self, *arguments: Any) -> int:
        """As of a socket."""
        size = super().recv_into(*arguments)
        self.bytes_received += size
        return size

    def read(self, size: int) -> bytes:
        """So many bytes, in as many steps as it takes."""
        data = b""
        while len(data) < size:
            part = self.recv(size - len(data))
            assert part, f"the stream ended after {len(data)} of {size} bytes"
            data += part
        return data

    def read_to_end(self) -> str | None:
        """Read until the stream ends; the error that ended it, or None."""
        try:
            while self.recv(1 << 17):
                pass
        except OSError as error:
            return errno.errorcode[error.errno]
        return None

    def await_data(self, size: int) -> None:
        """Wait until so many bytes have arrived, without reading them."""
        while len(self.recv(size, socket.MSG_PEEK)) < size:
            time.sleep(0.001)


class Connection:
    """A connection and what its programs know of it."""

    def __init__(self, name: str, kind: int, **facts: Any) -> None:
        self.facts: dict[str, Any] = {"name": name, "closer": None, "errors": {}, "times": {}}
        self.facts["type"] = "seqpacket" if kind == SEQPACKET else "stream"
        self.facts.update(facts)
        self.ends: Ends | tuple[()] = ()

    def opened(self, initiator: Counted, acceptor: Counted) -> Ends:
        """Both ends, each in this process."""
        self.ends = initiator, acceptor
        self.facts["initiator"] = list(acceptor.getpeername())
        self.facts["acceptor"] = list(initiator.getpeername())
        return self.ends

    def close(self, side: int) -> None:
        """Close one end; the first to close is the closer."""
        self.closes(side)
        self.ends[side].close()

    def closes(self, side: int) -> None:
        """Write down that this side closes."""
        self.facts["closer"] = self.facts["closer"] or ("initiator", "acceptor")[side]

    def at(self, what: str) -> None:
        """Write down the time, in nanoseconds."""
        self.facts["times"][what] = time.time_ns()

    def record(self) -> dict[str, Any]:
        """All of it: addresses as [cid, port], counts as [of the initiator, of the acceptor]."""
        if self.ends:
            self.facts["sent"] = [end.bytes_sent for end in self.ends]
            self.facts["received"] = [end.bytes_received for end in self.ends]
            self.facts["digests"] = [end.digest.hexdigest() for end in self.ends]
            self.facts["messages"] = [end.messages for end in self.ends]
        return self.facts


class Lab:
    """What a scenario needs: where to connect, free ports, and the log."""

    def __init__(self, cid: int, port: int) -> None:
        self.cid = cid
        self.connections: list[Connection] = []
        self._port = port

    def port(self) -> int:
        """A port of its own."""
        self._port += 1
        return self._port

    def log(self, connection: Connection) -> Connection:
        """Add a connection to the log."""
        self.connections.append(connection)
        return connection

    def listen(self, kind: int = STREAM, backlog: int = 8, buffer: int = 0) -> Counted:
        """A listener on a port of its own, with a receive buffer of so many bytes."""
        listener = Counted(kind)
        if buffer:
            set_buffer(listener, buffer)
        listener.bind((socket.VMADDR_CID_ANY, self.port()))
        listener.listen(backlog)
        return listener

    def connect(self, listener: Counted, buffer: int = 0) -> Counted:
        """A connection that a listener will accept: the kernel answers by itself."""
        end = Counted(listener.type)
        if buffer:
            set_buffer(end, buffer)
        end.connect((self.cid, listener.getsockname()[1]))
        return end

    def pair(
        self, name: str, kind: int = STREAM, buffers: tuple[int, int] = (0, 0)
    ) -> tuple[Connection, Counted, Counted]:
        """A new connection and its two ends."""
        with self.listen(kind, buffer=buffers[1]) as listener:
            initiator = self.connect(listener, buffers[0])
            acceptor, _ = listener.accept()
        connection = self.log(Connection(name, kind))
        return connection, *connection.opened(initiator, acceptor)

    def refused(
        self, name: str, port: int, kind: int = STREAM, own_port: int = 0
    ) -> Counted | None:
        """Try to connect, from a port that is known even if it fails."""
        end = Counted(kind)
        own_port = own_port or self.port()
        end.bind((socket.VMADDR_CID_ANY, own_port))
        try:
            end.connect((self.cid, port))
        except OSError as error:
            facts = {"initiator": [None, own_port], "acceptor": [self.cid, port]}
            connection = self.log(Connection(name, kind, **facts))
            connection.facts["errors"]["connect"] = errno.errorcode[error.errno]
            connection.closes(1)
            end.close()
            return None
        return end


def set_buffer(end: socket.socket, size: int) -> None:
    """Set the receive buffer of a socket, in bytes."""
    end.setsockopt(socket.AF_VSOCK, BUFFER_MIN, 1)
    end.setsockopt(socket.AF_VSOCK, BUFFER_MAX, 1 << 20)
    end.setsockopt(socket.AF_VSOCK, BUFFER_SIZE, size)


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that do not repeat."""
    return random.Random(seed).randbytes(size)


@contextlib.contextmanager
def beside(work: Callable[[], Any]) -> Iterator[None]:
    """Run `work` in a thread during the block; its failure is the block's."""
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failed:
        raise failed[0]


def error_of(work: Callable[[], Any]) -> str | None:
    """The name of the error that a call ends with."""
    try:
        work()
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


# --- data -------------------------------------------------------------------------------


def echo(lab: Lab) -> None:
    """A stream there and back, in writes around the sizes at which packets are split."""
    connection, initiator, acceptor = lab.pair("echo")

    def answer() -> None:
        while data := acceptor.recv(1 << 17):
            acceptor.sendall(data)

    with beside(answer):
        for size in (1, 10, 1000, 65535, 65536, 65537, 200000):
            data = noise(size, size)
            initiator.sendall(data)
            assert data == initiator.read(size)
        connection.close(0)
    connection.close(1)


def messages(lab: Lab) -> None:
    """SEQPACKET messages above and below 64 KiB, every second one the end of a record."""
    connection, initiator, acceptor = lab.pair("messages", SEQPACKET)
    sizes = (1, 15, 1000, 65535, 65536, 65537, 150000, 200000, 4)

    def send() -> None:
        for number, size in enumerate(sizes):
            initiator.send(noise(size, size), MSG_EOR if number % 2 else 0)

    with beside(send):
        for size in sizes:
            assert noise(size, size) == acceptor.recv(1 << 20)
    acceptor.send(b"a reply", MSG_EOR)
    assert b"a reply" == initiator.recv(100)
    connection.close(0)
    connection.close(1)


def web(lab: Lab) -> None:
    """Python's http.server and http.client, one connection that is kept alive."""
    listener = lab.listen()
    connection = lab.log(Connection("http", STREAM))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def address_string(self) -> str:
            return "vsock"

        def do_GET(self) -> None:
            self.answer(200, noise(100000))

        def do_POST(self) -> None:
            assert noise(30000) == self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(201, b"")

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def serve() -> None:
        Handler(connection.ends[1], ("vsock", 0), None)

    client = http.client.HTTPConnection("vsock")
    client.sock = lab.connect(listener)
    connection.opened(client.sock, listener.accept()[0])
    with beside(serve):
        client.request("GET", "/")
        assert noise(100000) == client.getresponse().read()
        client.request("POST", "/", noise(30000))
        assert 201 == client.getresponse().status
        connection.closes(0)
        client.close()
    connection.close(1)
    listener.close()


def many(lab: Lab) -> None:
    """Many connections at once to one listener, two rounds of request and answer on each."""
    listener = lab.listen(backlog=CONNECTIONS_AT_ONCE)
    connections = []
    for _ in range(CONNECTIONS_AT_ONCE):
        connection = lab.log(Connection("many", STREAM))
        connections.append(connection)
        connection.opened(lab.connect(listener), listener.accept()[0])
    for turn in range(2):
        for number, connection in enumerate(connections):
            connection.ends[0].send(b"%d %d" % (turn, number) * (1 + number))
        for connection in connections:
            connection.ends[1].sendall(connection.ends[1].recv(4096)[::-1])
    for connection in connections:
        connection.ends[0].read(connection.ends[1].bytes_sent)
        connection.close(0)
    for connection in connections:
        connection.close(1)
    listener.close()


# --- credit -----------------------------------------------------------------------------


def stall(lab: Lab) -> None:
    """A reader that stops until the writer has no credit left and waits for some."""
    connection, initiator, acceptor = lab.pair("stall")
    piece = noise(8192)
    for _ in range(DEFAULT_BUFFER // len(piece) - 1):
        initiator.sendall(piece)
    connection.at("before the last credit")
    initiator.sendall(piece)

    def send_more() -> None:
        initiator.sendall(piece)
        connection.at("credit is back")
        initiator.shutdown(socket.SHUT_WR)

    with beside(send_more):
        acceptor.await_data(DEFAULT_BUFFER)
        connection.at("all has arrived")
        time.sleep(STALL_S)
        connection.at("before reading")
        acceptor.read_to_end()
    connection.close(1)
    connection.close(0)


def buffers(lab: Lab) -> None:
    """Small buffers on both sides; the reader's grows in the middle of the transfer."""
    connection, initiator, acceptor = lab.pair("buffers", buffers=(8192, 2000))

    def send() -> None:
        initiator.sendall(noise(40000))
        initiator.shutdown(socket.SHUT_WR)

    with beside(send):
        acceptor.read(6000)
        connection.facts["buffers"] = [2000, 65536]
        set_buffer(acceptor, 65536)
        acceptor.read_to_end()
    connection.close(1)
    connection.close(0)


# --- how a connection begins and ends ---------------------------------------------------


def refused(lab: Lab) -> None:
    """Nobody listens, or for the other type, or too many wait already."""
    lab.refused("nobody listens", lab.port())
    lab.refused("nobody listens", lab.port(), SEQPACKET)
    with lab.listen(STREAM) as listener:
        lab.refused("wrong type", listener.getsockname()[1], SEQPACKET)
    with lab.listen(STREAM, backlog=1) as listener:
        port = listener.getsockname()[1]
        waiting = [lab.refused("full backlog", port) for _ in range(4)]
        for end in filter(None, waiting):
            connection = lab.log(Connection("waited in the backlog", STREAM))
            connection.opened(end, listener.accept()[0])
            connection.close(0)
            connection.close(1)


def half_closes(lab: Lab) -> None:
    """One end says that it sends no more; the other goes on."""
    for first, name in enumerate(("initiator sends no more", "acceptor sends no more")):
        connection, *ends = lab.pair(name)
        ends[first].sendall(noise(3000))
        ends[first].shutdown(socket.SHUT_WR)
        ends[1 - first].read_to_end()
        ends[1 - first].sendall(noise(70000))
        connection.close(1 - first)
        ends[first].read_to_end()
        connection.close(first)


def stops_reading(lab: Lab) -> None:
    """One end says that it receives no more; the other's next send fails."""
    connection, initiator, acceptor = lab.pair("initiator receives no more")
    initiator.shutdown(socket.SHUT_RD)
    initiator.sendall(b"that was it")
    acceptor.read(len(b"that was it"))
    connection.facts["errors"]["send"] = error_of(lambda: acceptor.sendall(b"more?"))
    connection.close(0)
    acceptor.read_to_end()
    connection.close(1)


def closes_unread(lab: Lab) -> None:
    """The acceptor closes although data has arrived that it has not read."""
    connection, initiator, acceptor = lab.pair("closed with unread data")
    initiator.sendall(noise(7000))
    acceptor.await_data(7000)
    connection.close(1)
    connection.facts["errors"]["read"] = initiator.read_to_end()
    connection.close(0)


def closes_at_once(lab: Lab) -> None:
    """Both ends close together."""
    _, initiator, acceptor = lab.pair("closed by both")
    start = threading.Barrier(2)

    def close() -> None:
        start.wait()
        acceptor.close()

    with beside(close):
        start.wait()
        initiator.close()


def killed_initiator(lab: Lab) -> None:
    """The process that connected is killed in the middle of a conversation."""
    listener = lab.listen()
    connection = lab.log(Connection("initiator killed", STREAM))

    def life() -> None:
        initiator = lab.connect(listener)
        initiator.sendall(noise(5000))
        signal.pause()

    with process(life) as kill:
        acceptor, _ = listener.accept()
        facts = {"initiator": list(acceptor.getpeername()), "sent": [5000, 3000]}
        connection.facts.update(facts, acceptor=[lab.cid, listener.getsockname()[1]])
        acceptor.read(5000)
        acceptor.sendall(noise(3000))
        connection.closes(0)
        kill()
        connection.facts["errors"]["read"] = acceptor.read_to_end()
    acceptor.close()
    listener.close()


def killed_acceptor(lab: Lab) -> None:
    """The reader is killed while the writer waits for credit."""
    listener = lab.listen()
    connection = lab.log(Connection("acceptor killed", STREAM))

    def life() -> None:
        _unread = listener.accept()
        signal.pause()

    with process(life) as kill:
        initiator = lab.connect(listener)
        connection.facts["initiator"] = [None, initiator.getsockname()[1]]
        connection.facts["acceptor"] = list(initiator.getpeername())
        listener.close()
        initiator.sendall(noise(DEFAULT_BUFFER))
        blocked = threading.Event()

        def send_more() -> None:
            blocked.set()
            connection.facts["errors"]["send"] = error_of(lambda: initiator.sendall(b"more?"))

        with beside(send_more):
            blocked.wait()
            connection.closes(1)
            kill()
    connection.facts["sent"] = [initiator.bytes_sent, 0]
    initiator.close()


@contextlib.contextmanager
def process(life: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """A child process, and the call that kills it; it is killed in any case."""
    pid = os.fork()
    if not pid:
        try:
            life()
        finally:
            os._exit(1)
    killed = False

    def kill() -> None:
        nonlocal killed
        killed = True
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    try:
        yield kill
    finally:
        if not killed:
            kill()


def last(lab: Lab) -> None:
    """A refused connect: its RST in a capture says that all before it are there as well."""
    lab.refused("last", LAST_PORT, own_port=LAST_PORT + 1)


ORDINARY = (
    echo,
    messages,
    web,
    many,
    stall,
    buffers,
    refused,
    half_closes,
    stops_reading,
    closes_unread,
    closes_at_once,
    killed_initiator,
    killed_acceptor,
)


def write_log(lab: Lab, path: str) -> None:
    """Write the connections of the lab to a file."""
    with open(path, "w") as log:
        json.dump([connection.record() for connection in lab.connections], log, indent=1)


def main() -> None:
    """Run the scenarios and write the log."""
    path, cid, port, *names = sys.argv[1:]
    lab = Lab(int(cid), int(port))
    for scenario in [globals()[name] for name in names] or ORDINARY:
        scenario(lab)
    write_log(lab, path)


if __name__ == "__main__":
    main()
