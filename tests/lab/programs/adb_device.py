"""A small Android device for Debian's adb, since Debian has no adbd: `adb_device.py PORT`.

It listens on AF_VSOCK, asks for a signature (and believes any), has the services `shell:`
(runs the command) and `sync:` (STAT, SEND, RECV, QUIT; files are kept in memory), and logs
to stdout a JSON line `{"service": "shell:true"}` for each service that was opened, and
`{"sync": "SEND /data/x"}` for each request of sync.

Rules for editors: written after Android's own descriptions, adb/protocol.txt and
adb/SYNC.TXT; one connection, standard library only.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from queue import SimpleQueue
from typing import Final, NamedTuple

VERSION: Final = 0x01000000  # with checksums, which later versions leave out
MOST_DATA: Final = 4096
BANNER: Final = b"device::ro.product.name=lab;ro.product.model=Lab;ro.product.device=lab;"
HEADER: Final = struct.Struct("<4s5I")
AUTH_TOKEN: Final = 1
REGULAR_FILE: Final = 0o100644
SYNC_DATA: Final = 2048  # bytes of a file in one DATA of sync


class Packet(NamedTuple):
    """A message of the transport."""

    command: bytes
    arg0: int
    arg1: int
    data: bytes


def log(**line: str) -> None:
    """Write a line of the log."""
    print(json.dumps(line), flush=True)


class Device:
    """The device's end of a transport."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self.files: dict[str, bytes] = {}

    def serve(self) -> None:
        """Answer until the host closes."""
        with self._end.makefile("rb") as packets:
            while header := packets.read(HEADER.size):
                command, arg0, arg1, size, *_ = HEADER.unpack(header)
                self._take(Packet(command, arg0, arg1, packets.read(size)))

    def send(self, command: bytes, arg0: int, arg1: int, data: bytes = b"") -> None:
        """Send a packet."""
        magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
        header = HEADER.pack(command, arg0, arg1, len(data), sum(data), magic)
        with self._lock:
            self._end.sendall(header + data)

    def _take(self, packet: Packet) -> None:
        if packet.command == b"CNXN":
            self.send(b"AUTH", AUTH_TOKEN, 0, os.urandom(20))
        elif packet.command == b"AUTH":
            self.send(b"CNXN", VERSION, MOST_DATA, BANNER)
        elif packet.command == b"OPEN":
            self._open(packet.arg0, packet.data.rstrip(b"\0").decode())
        elif stream := self._streams.get(packet.arg1):
            stream.heard.put(packet)

    def _open(self, remote: int, service: str) -> None:
        log(service=service)
        name, _, argument = service.partition(":")
        services = {"shell": Stream.shell, "sync": Stream.sync}
        if name not in services:
            self.send(b"CLSE", 0, remote)
            return
        local = len(self._streams) + 1
        stream = self._streams[local] = Stream(self, local, remote)
        self.send(b"OKAY", local, remote)
        threading.Thread(target=services[name], args=(stream, argument), daemon=True).start()


class Stream:
    """A service that the host has opened."""

    def __init__(self, device: Device, local: int, remote: int) -> None:
        self.heard: SimpleQueue[Packet] = SimpleQueue()
        self._device = device
        self._ids = local, remote
        self._data = b""

    def shell(self, command: str) -> None:
        """Run the command."""
        done = subprocess.run(
            command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=-2
        )
        if done.stdout:
            self._write(done.stdout)
        self._device.send(b"CLSE", *self._ids)

    def sync(self, _: str) -> None:
        """Answer the requests of sync until QUIT."""
        while True:
            name, size = struct.unpack("<4sI", self._read(8))
            path = self._read(size).decode()
            log(sync=f"{name.decode()} {path}".strip())
            if name == b"STAT":
                self._stat(path)
            elif name == b"SEND":
                self._receive(path.rpartition(",")[0])
            elif name == b"RECV":
                self._send(path)
            else:
                self._device.send(b"CLSE", *self._ids)
                return

    def _stat(self, path: str) -> None:
        file = self._device.files.get(path)
        values = (0, 0, 0) if file is None else (REGULAR_FILE, len(file), int(time.time()))
        self._write(struct.pack("<4s3I", b"STAT", *values))

    def _receive(self, path: str) -> None:
        data = b""
        while True:
            name, size = struct.unpack("<4sI", self._read(8))
            if name == b"DONE":  # with the time of the file instead of a size
                break
            data += self._read(size)
        self._device.files[path] = data
        self._write(struct.pack("<4sI", b"OKAY", 0))

    def _send(self, path: str) -> None:
        file = self._device.files.get(path)
        if file is None:
            text = b"No such file or directory"
            self._write(struct.pack("<4sI", b"FAIL", len(text)) + text)
            return
        for at in range(0, len(file), SYNC_DATA):
            part = file[at : at + SYNC_DATA]
            self._write(struct.pack("<4sI", b"DATA", len(part)) + part)
        self._write(struct.pack("<4sI", b"DONE", 0))

    def _read(self, size: int) -> bytes:
        while len(self._data) < size:
            packet = self.heard.get()
            if packet.command == b"CLSE":
                raise SystemExit
            if packet.command == b"WRTE":
                self._data += packet.data
                self._device.send(b"OKAY", *self._ids)
        data, self._data = self._data[:size], self._data[size:]
        return data

    def _write(self, data: bytes) -> None:
        for at in range(0, len(data), MOST_DATA):
            self._device.send(b"WRTE", *self._ids, data[at : at + MOST_DATA])
            while self.heard.get().command != b"OKAY":
                pass


def main() -> None:
    """Wait for the host and serve it."""
    with socket.socket(socket.AF_VSOCK) as listener:
        listener.bind((socket.VMADDR_CID_ANY, int(sys.argv[1])))
        listener.listen()
        log(listening=sys.argv[1])
        end, _ = listener.accept()
        with end:
            Device(end).serve()


if __name__ == "__main__":
    main()
