"""--keylog: the TLS secrets of a key log, which stand in a pcapng file before its packets.

Programs that are told to (SSLKEYLOGFILE) append a line for every secret that they agree on.
Wireshark reads the lines from a Decryption Secrets Block and shows what is inside TLS.  While
a capture runs the log is looked at again and again: a secret stands before the packets that
are written after it was logged.

Rules for editors: a secret never gets into a message; a line is named by its number.
"""

import os
import re
import stat
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from vsockdump.batch import Batch
from vsockdump.capture.pcapng import DECRYPTION_SECRETS
from vsockdump.errors import UsageError

TLS_KEY_LOG: Final = 0x544C534B
MOST: Final = 16 << 20  # bytes of secrets

_DATA_AT: Final = 16  # in a Decryption Secrets Block
_AT_ONCE: Final = 1 << 20
_LONGEST: Final = 4096  # bytes of a line
_SECRET: Final = re.compile(
    rb"[A-Z][A-Z0-9_]* [0-9a-fA-F]{64} (?:[0-9a-fA-F]{2})+"
    rb"|RSA [0-9a-fA-F]{16} [0-9a-fA-F]{96}"
    rb"|RSA Session-ID:(?:[0-9a-fA-F]{2})+ Master-Key:[0-9a-fA-F]{96}"
)


class SecretsError(UsageError):
    """A key log that cannot be used: one sentence."""


class Secret(NamedTuple):
    """The contents of a Decryption Secrets Block."""

    kind: int
    data: bytes


class Secrets:
    """Secrets in the order in which they were learnt, at most MOST bytes of them.

    `path` is a key log; `grows` says that programs may be writing it.  Raises SecretsError
    where it cannot be read, has a line that is not understood, or none at all and does not grow.
    """

    def __init__(self, path: str | None = None, grows: bool = False) -> None:
        self._entries: list[Secret] = []
        self._size = 0
        self._left_out = 0  # bytes
        self._log = None if path is None else _KeyLog(path, grows)
        if self._log is not None:
            self.entries()
            if self._log.fault:
                raise SecretsError(self._log.fault)
            if self._left_out:
                raise SecretsError(f"{path} has more than {MOST >> 20} MiB of secrets; shorten it.")
            if not (self._entries or grows):
                raise SecretsError(f"{path} has no TLS secrets; give the file of SSLKEYLOGFILE.")

    def entries(self) -> list[Secret]:
        """All there are by now; later calls add to their end."""
        if self._log is not None:
            for lines in self._log.more():
                self.add(Secret(TLS_KEY_LOG, lines))
        return self._entries

    def add(self, secret: Secret) -> None:
        """One more, unless it is too much."""
        if self._size + len(secret.data) > MOST:
            self._left_out += len(secret.data)
        else:
            self._size += len(secret.data)
            self._entries.append(secret)

    def remarks(self) -> list[str]:
        """What has to be said at the end, in sentences."""
        found = [self._log.fault] if self._log is not None and self._log.fault else []
        if self._left_out:
            found.append(
                f"{self._left_out} bytes of secrets were left out: more than {MOST >> 20} MiB"
                " are not kept."
            )
        return found


def secrets_in(batch: Batch) -> Iterator[Secret]:
    """The secrets that stand in a pcapng file before the packets of a batch."""
    sign = ">" if batch.layout.big_endian else "<"
    for block in batch.blocks:
        kind, size = struct.unpack_from(sign + "II", block)
        if kind == DECRYPTION_SECRETS and size >= _DATA_AT + 4:
            what, length = struct.unpack_from(sign + "II", block, 8)
            yield Secret(what, block[_DATA_AT : min(_DATA_AT + length, size - 4)])


class _KeyLog:
    """A key log that may grow; `fault` is what is wrong with it, where it is then left alone."""

    def __init__(self, path: str, grows: bool) -> None:
        self.fault = ""
        self._path = path
        self._grows = grows
        self._lines = 0
        self._part = b""  # of a line whose end is to come
        try:
            # It stays open: the run may become a user who cannot open it.  A pipe would wait.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise SecretsError(f"The key log {path} cannot be read: {reason}.") from None
        if not is_file:
            raise SecretsError(f"The key log {path} is not a plain file.")

    def more(self) -> Iterator[bytes]:
        """The lines with secrets that have come since the last call, many at a time."""
        while not self.fault and (data := os.read(self._fd, _AT_ONCE)):
            *lines, self._part = (self._part + data).split(b"\n")
            yield from self._kept(lines)
            if len(self._part) > _LONGEST:
                yield from self._kept([self._part])
        if self._part and not (self._grows or self.fault):
            part, self._part = self._part, b""
            yield from self._kept([part])

    def _kept(self, lines: list[bytes]) -> Iterator[bytes]:
        """Those of the lines that have a secret, up to one that is not understood."""
        kept = []
        for line in map(bytes.strip, lines):
            self._lines += 1
            if _SECRET.fullmatch(line):
                kept.append(line + b"\n")
            elif line and not line.startswith(b"#"):
                self.fault = (
                    f"Line {self._lines} of {self._path} is not one of a TLS key log: a label,"
                    " client random and secret in hexadecimal."
                )
                break
        if kept:
            yield b"".join(kept)
