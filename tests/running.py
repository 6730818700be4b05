"""What the tests of the command line share: running vsockdump and its oracles, and files.

Rules for editors: everything that is run has a time limit and gets its time zone from here.
The program that is run is the one installed beside the Python that runs the tests, so that
both builds are tested alike; it runs in `/`, where no source tree can be imported instead.
"""

import os
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import warm

PROGRAM: Final = str(Path(sys.executable).with_name("vsockdump"))
CAPTURES: Final = Path(
    os.environ.get("VSOCKDUMP_CAPTURES") or Path(__file__).parent.parent / "captures"
).resolve()
TIME_LIMIT_S: Final = 60

ALL_CAPTURES: Final = sorted(
    path for path in CAPTURES.iterdir() if path.suffix in (".pcap", ".pcapng")
)


class Result(NamedTuple):
    """What a run came to."""

    status: int
    out: str
    err: str


def environment(tz: str = "UTC", **more: str) -> dict[str, str]:
    """The environment of a run: a fixed time zone, and nothing that changes colours or the user."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "COLUMNS") and not name.startswith("SUDO_")
    }
    return {**kept, "TZ": tz, "TERM": "xterm", "LC_ALL": "C.UTF-8", **more}


def run_bytes(
    *arguments: str | Path, tz: str = "UTC", stdin: bytes | None = None, uid: int | None = None
) -> tuple[int, bytes, bytes]:
    """Exit status, stdout and stderr of vsockdump with these arguments.

    A warm process forks for it (warm.py), unless it is about start-up or for another user.
    """
    command = [PROGRAM, *map(str, arguments)]
    if uid is None and "--version" not in command:
        return run_warm(command, environment(tz), stdin)
    return run_cold(command, environment(tz), stdin, uid)


def run_cold(
    command: Sequence[str], env: dict[str, str], stdin: bytes | None, uid: int | None = None
) -> tuple[int, bytes, bytes]:
    """The same of a program that is started."""
    done = subprocess.run(
        command,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env=env,
        cwd="/",
        user=uid,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def run_warm(
    command: Sequence[str], env: dict[str, str], stdin: bytes | None
) -> tuple[int, bytes, bytes]:
    """The same of a fork, on pipes of its own."""
    (input_, feed), (out, theirs_out), (err, theirs_err) = os.pipe(), os.pipe(), os.pipe()
    theirs = (input_, theirs_out, theirs_err)
    if stdin is None:
        with open(os.devnull) as null:
            os.dup2(null.fileno(), input_)
    process = warm.start(command, theirs, env, "/")
    for fd in theirs:
        os.close(fd)
    with ThreadPoolExecutor(3) as pool:
        pool.submit(_feed, feed, stdin or b"")
        printed = [pool.submit(_drain, fd) for fd in (out, err)]
        status = process.wait(TIME_LIMIT_S)
        return status, printed[0].result(), printed[1].result()


def _feed(fd: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(fd, "wb") as pipe:
        pipe.write(data)


def _drain(fd: int) -> bytes:
    with open(fd, "rb") as pipe:
        return pipe.read()


def run(
    *arguments: str | Path, tz: str = "UTC", stdin: bytes | None = None, uid: int | None = None
) -> Result:
    """The same as text."""
    status, out, err = run_bytes(*arguments, tz=tz, stdin=stdin, uid=uid)
    return Result(status, out.decode(), err.decode())


def lines(*arguments: str | Path, tz: str = "UTC", stdin: bytes | None = None) -> list[str]:
    """The lines of a run that must go well and say nothing on stderr."""
    result = run(*arguments, tz=tz, stdin=stdin)
    assert (0, "") == (result.status, result.err)
    return result.out.splitlines()


def tool(*arguments: str | Path, tz: str = "UTC", ok: Sequence[int] = (0,)) -> bytes:
    """Stdout of another program."""
    done = subprocess.run(
        [*map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(tz),
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert done.returncode in ok, done.stderr.decode()
    return done.stdout


# --- capture files -----------------------------------------------------------------------


class Raw(NamedTuple):
    """A packet as it stands in a file."""

    time_ns: int
    data: bytes
    wirelen: int


def pcap_file(
    packets: Iterable[Raw], *, linktype: int = 271, nanos: bool = True, big: bool = False
) -> bytes:
    """A pcap file, in either byte order."""
    sign, unit = ">" if big else "<", 1 if nanos else 1000
    magic = 0xA1B23C4D if nanos else 0xA1B2C3D4
    parts = [struct.pack(sign + "IHHiIII", magic, 2, 4, 0, 0, 262144, linktype)]
    for packet in packets:
        seconds, rest = divmod(packet.time_ns, 10**9)
        sizes = len(packet.data), packet.wirelen
        parts.append(struct.pack(sign + "IIII", seconds, rest // unit, *sizes) + packet.data)
    return b"".join(parts)


def packets_of(data: bytes) -> list[Raw]:
    """The packets of a little-endian pcap file."""
    unit = 1 if data[:4] == b"\x4d\x3c\xb2\xa1" else 1000
    packets, at = [], 24
    while at < len(data):
        seconds, rest, caplen, wirelen = struct.unpack_from("<IIII", data, at)
        at += 16
        packets.append(Raw(seconds * 10**9 + rest * unit, data[at : at + caplen], wirelen))
        at += caplen
    return packets


class Pcapng:
    """A pcapng file, put together block by block in either byte order."""

    def __init__(self, big: bool = False) -> None:
        self.sign = ">" if big else "<"
        self.data = b""

    def block(self, kind: int, body: bytes) -> "Pcapng":
        """Any block."""
        body += bytes(-len(body) % 4)
        size = struct.pack(self.sign + "I", 12 + len(body))
        self.data += struct.pack(self.sign + "I", kind) + size + body + size
        return self

    def options(self, options: Iterable[tuple[int, bytes]]) -> bytes:
        """Options and the mark that ends them; nothing where there are none."""
        body = b"".join(
            struct.pack(self.sign + "HH", code, len(value)) + value + bytes(-len(value) % 4)
            for code, value in options
        )
        return body + bytes(4) if body else b""

    def section(self, *options: tuple[int, bytes]) -> "Pcapng":
        """A section header of unknown length."""
        head = struct.pack(self.sign + "IHHq", 0x1A2B3C4D, 1, 0, -1)
        return self.block(0x0A0D0D0A, head + self.options(options))

    def interface(self, linktype: int = 271, *options: tuple[int, bytes]) -> "Pcapng":
        """An interface without a snaplen."""
        head = struct.pack(self.sign + "HHI", linktype, 0, 0)
        return self.block(1, head + self.options(options))

    def packet(
        self,
        ticks: int,
        data: bytes,
        *options: tuple[int, bytes],
        interface: int = 0,
        wirelen: int | None = None,
    ) -> "Pcapng":
        """An enhanced packet, captured whole unless its length on the wire is given."""
        high, low = divmod(ticks, 2**32)
        sizes = len(data), len(data) if wirelen is None else wirelen
        head = struct.pack(self.sign + "IIIII", interface, high, low, *sizes)
        return self.block(6, head + data + bytes(-len(data) % 4) + self.options(options))

    def simple_packet(self, data: bytes) -> "Pcapng":
        """A packet without a time."""
        return self.block(3, struct.pack(self.sign + "I", len(data)) + data)
