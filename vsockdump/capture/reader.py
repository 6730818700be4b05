"""A capture file as batches: the buffer, and what to do when it runs out or is damaged.

Rules for editors: one buffer for the whole file, moved and refilled, so that memory does
not grow with the capture; it grows only for a block that is larger than it.  Formats know
their headers (pcap.py, pcapng.py), the scanner knows the records.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from vsockdump.batch import PACKET_DTYPE, Batch
from vsockdump.capture import pcap, pcapng
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.interface import Interface, interface_table
from vsockdump.capture.scan import DAMAGED, FULL, OTHER_BLOCK, Scanner
from vsockdump.capture.stream import ByteStream

ROWS: Final = 8192
BUFFER: Final = 1 << 20


class FileReader:
    """The packets of a capture file, pipe or stdin ("-").

    Raises CaptureError when made (not a capture) or from `batches` (damage), then with the
    byte offset of the damage and after the packets before it.
    """

    def __init__(self, path: str, rows: int = ROWS, buffer: int = BUFFER) -> None:
        self.stream = ByteStream(path)
        self._rows = np.zeros(rows, PACKET_DTYPE)
        self._scanner = Scanner(self._rows)
        self._buffer = memoryview(bytearray(buffer))
        self._pos = self._end = 0
        self._base = 0  # file offset of the buffer's first byte
        self._known_interfaces = -1
        self._late_error: CaptureError | None = None
        self.packets = 0
        self._parser = self._open_format()

    @property
    def format(self) -> str:
        """ "pcap" or "pcapng"."""
        return self._parser.format

    @property
    def header(self) -> bytes:
        """The file header of a pcap file; empty for pcapng."""
        return self._parser.header if isinstance(self._parser, pcap.PcapParser) else b""

    @property
    def interfaces(self) -> list[Interface]:
        """The interfaces known so far, over all sections."""
        return self._parser.interfaces

    @property
    def dropped(self) -> int | None:
        """Packets lost while the file was captured, where the file says so."""
        if isinstance(self._parser, pcap.PcapParser) or not self._parser.dropped:
            return None
        return sum(self._parser.dropped.values())

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def batches(self) -> Iterator[Batch]:
        """The file's packets in order; each batch is valid until the next is asked for."""
        blocks: list[bytes] = []
        parser = self._parser
        while True:
            if len(parser.interfaces) != self._known_interfaces:
                self._scanner.set_interfaces(interface_table(parser.interfaces))
                self._known_interfaces = len(parser.interfaces)
            pos, count, status = parser.scan(
                self._scanner, self._buffer, self._pos, self._end, self._base, self.packets + 1
            )
            self.packets += count
            self._pos = pos
            if count:
                yield self._batch(count, blocks)
                blocks = []
            if status == OTHER_BLOCK and self._other_block(blocks):
                continue
            if status == DAMAGED:
                raise self._damage()
            if status != FULL and not self._refill():
                break
        if blocks:
            yield self._batch(0, blocks)
        if self._pos != self._end:
            raise self._damage()

    def _batch(self, count: int, blocks: list[bytes]) -> Batch:
        data = self._buffer[: self._end]
        return Batch(self._rows[:count], data, self._parser.layout, tuple(blocks))

    def _other_block(self, blocks: list[bytes]) -> bool:
        """Take a block that is no packet; False if more bytes are needed for it."""
        try:
            block = self._parser.other(self._buffer[self._pos : self._end])
        except CaptureError as error:
            raise self._damage(str(error)) from None
        if block is None:
            return False
        self._pos += len(block)
        blocks.append(block)
        return True

    def _refill(self) -> bool:
        """Read more behind what is left of the buffer; False at the end of the file."""
        left = self._end - self._pos
        if self._pos:
            self._buffer[:left] = self._buffer[self._pos : self._end]
        elif left == len(self._buffer):
            larger = memoryview(bytearray(2 * left))
            larger[:left] = self._buffer
            self._buffer = larger
        self._base += self._pos
        self._pos, self._end = 0, left
        if self._late_error:
            raise self._damage(str(self._late_error))
        try:
            count = self.stream.readinto(self._buffer[left:])
        except CaptureError as error:
            raise self._damage(str(error)) from None
        self._end += count
        return count > 0

    def _damage(self, what: str | None = None) -> CaptureError:
        """The error for what stands at the current position, with its byte offset."""
        offset = self._base + self._pos
        if what is None:
            what = self._parser.damage(self._buffer[self._pos : self._end])
        where = f"byte {offset}"
        if self.stream.compression:
            where += f" of the {self.stream.compression} content"
        return CaptureError(
            f"{self.stream.name} is damaged or cut off at {where}, after packet"
            f" {self.packets}: {what}.",
            offset,
        )

    def _open_format(self) -> pcap.PcapParser | pcapng.PcapngParser:
        """Tell the format by its first bytes and read a file header, if it has one."""
        head = self._peek(4)
        name = self.stream.name
        if not head:
            raise CaptureError(f"{name} is empty; it holds no capture.", 0)
        order = pcap.byte_order(head)
        if order:
            header = self._peek(pcap.HEADER_SIZE)
            self._pos = len(header)
            try:
                return pcap.PcapParser(header, order)
            except CaptureError as error:
                raise self._damage(str(error)) from None
        if head == pcapng.MAGIC:
            return pcapng.PcapngParser()
        raise CaptureError(
            f"{name} is not a pcap or pcapng capture: it begins with {_shown(head)}.", 0
        )

    def _peek(self, size: int) -> bytes:
        """The first `size` bytes of the file, fewer if it ends before."""
        while self._end < size:
            try:
                count = self.stream.readinto(self._buffer[self._end :])
            except CaptureError as error:
                if not self._end:
                    raise
                self._late_error = error
                break
            if not count:
                break
            self._end += count
        return bytes(self._buffer[: min(size, self._end)])


def _shown(head: bytes) -> str:
    """The first bytes of a file that is something else, as text where they are text."""
    text = head.decode("ascii", "replace")
    return repr(text) if text.isprintable() and text.isascii() else f"bytes {head.hex(' ')}"
