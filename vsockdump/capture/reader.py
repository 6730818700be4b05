"""A capture file as batches: the buffer, and what to do when it runs out or is damaged.

Rules for editors: one buffer for the whole file, moved and refilled, so that memory does
not grow with the capture; it grows only for a block that is larger than it.  A large file
is scanned in a thread, a few batches ahead, and its last batches stay valid, so that they
can be tracked in another; they must not share memory, so that there the rows and buffers
take turns.  Formats know their headers (pcap.py,
pcapng.py), the scanner knows the records.
"""

from collections.abc import Callable, Generator, Iterator
from typing import Final

import numpy as np

from vsockdump.batch import PACKET_DTYPE, Batch
from vsockdump.capture import pcap, pcapng
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.interface import Interface, InterfaceTable
from vsockdump.capture.read_ahead import ahead
from vsockdump.capture.scan import DAMAGED, FULL, NEED_MORE, OTHER_BLOCK, Scanner
from vsockdump.capture.source import Counts
from vsockdump.capture.stream import ByteStream

ROWS: Final = 16384
BUFFER: Final = 2 << 20
LARGE: Final = 2 * BUFFER  # a file larger than that is scanned in a thread
AHEAD: Final = 4  # batches of it that exist at a time, as far as the thread knows
KEPT: Final = 2  # batches of it that stay valid


class _RowSet:
    """Rows and the scanner that fills them."""

    def __init__(self, rows: int) -> None:
        self.rows = np.zeros(rows, PACKET_DTYPE)
        self.scanner = Scanner(self.rows)
        self.interfaces = 0  # that the scanner knows


class FileReader:
    """The packets of a capture file, pipe or stdin ("-"): a Source.

    Raises CaptureError when made (not a capture) or from `batches` (damage), then with the
    byte offset of the damage and after the packets before it.
    """

    def __init__(self, path: str, rows: int = ROWS, buffer: int = BUFFER) -> None:
        self.stream = ByteStream(path)
        self._in_thread = self.stream.size > LARGE
        self.kept = KEPT if self._in_thread else 1
        existing = AHEAD + KEPT - 1 if self._in_thread else 1
        self._sets = [_RowSet(rows) for _ in range(existing)]
        self._turn = 0
        self._running: Generator[Batch] | None = None
        self._table = InterfaceTable()
        # Of the batches that exist none is in the buffer after the last one's.
        count = existing + 1 if self._in_thread else 1
        self._buffers = [memoryview(bytearray(buffer)) for _ in range(count)]
        self._buffer = self._buffers[0]
        self._buffer_turn = 0
        self._lent = False  # whether a batch lies in the current buffer
        self._pos = self._end = 0  # what of the buffer is read but not yet scanned
        self._base = 0  # file offset of the buffer's first byte
        self._fault = ""  # what is wrong with the file, once it is known
        self._joins = False  # see join
        self.packets = 0
        try:
            self._parser = self._open_format()
        except CaptureError:
            self.stream.close()
            raise

    @property
    def name(self) -> str:
        """The path, or "stdin"."""
        return self.stream.name

    @property
    def live(self) -> bool:
        """Whether it is a pipe, whose packets may come as they are captured."""
        return self.stream.growing

    @property
    def size(self) -> int:
        """Bytes of the file as stored; 0 where that is not known."""
        return self.stream.size

    @property
    def position(self) -> int:
        """Bytes read of the file as stored."""
        return self.stream.position

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

    def is_behind(self) -> bool:
        """Never: whoever writes waits for us."""
        return False

    @property
    def dropped(self) -> int | None:
        """Packets lost while the file was captured, where the file says so."""
        if isinstance(self._parser, pcap.PcapParser) or not self._parser.dropped:
            return None
        return sum(self._parser.dropped.values())

    @property
    def read_again(self) -> Callable[[int, int], bytes] | None:
        """Reads at an offset of a plain file; None for what is compressed, a pipe or stdin."""
        return self.stream.read_at if self.stream.seekable else None

    def stop(self) -> None:
        """Read no further; a reader that waits for a pipe ends at once."""
        self.stream.stop()

    def counts(self) -> Counts | None:
        """Nothing: the kernel that captured a file is not asked."""
        return None

    def now_ns(self) -> int | None:
        """Nothing: a capture that was made before has no now."""
        return None

    def close(self) -> None:
        """Close the file."""
        if self._running is not None:
            self._running.close()
        self.stream.close()

    def batches(self) -> Iterator[Batch]:
        """The file's packets in order; the last `kept` batches are valid.

        A batch without rows carries blocks that no packet follows yet.
        """
        if self._in_thread:
            self._running = ahead(self._batches(), AHEAD)
            return self._running
        return self._batches()

    def join(self) -> None:
        """Let a batch go on behind blocks that are no packets: for who writes no blocks.

        The blocks of a batch then may have stood between its packets, and its layout is that
        of its last section.  A file with a block at every packet is read as fast as others.
        """
        self._joins = True

    def _batches(self) -> Iterator[Batch]:
        blocks: list[bytes] = []
        count = 0  # rows that are filled, and in no batch yet
        while not self.stream.stopped:
            count, status = self._scan(count)
            if count and not (status == OTHER_BLOCK and self._goes_on()):
                yield self._batch(count, blocks)
                blocks, count = [], 0
            if status == OTHER_BLOCK:
                status = self._take_block(blocks)
                if count and status not in (FULL, OTHER_BLOCK):
                    yield self._batch(count, blocks)
                    blocks, count = [], 0
            if status in (FULL, OTHER_BLOCK):
                continue
            if blocks:  # not kept over a read: without packets they would pile up
                yield self._batch(0, blocks)
                blocks = []
            if status == DAMAGED or not self._refill():
                break
        if self._pos != self._end and not self.stream.stopped:
            raise self._damage()

    def _goes_on(self) -> bool:
        """Whether a batch can go on behind the block that stands next."""
        if not self._joins:
            return False
        assert isinstance(self._parser, pcapng.PcapngParser)
        return self._parser.goes_on(self._buffer[self._pos : self._end])

    def _scan(self, filled: int) -> tuple[int, int]:
        """Fill rows from the buffer, behind those `filled`; how many are, and why it stopped."""
        parser = self._parser
        row_set = self._sets[self._turn]
        if row_set.interfaces != len(parser.interfaces):
            row_set.scanner.set_interfaces(self._table.extend(parser.interfaces))
            row_set.interfaces = len(parser.interfaces)
        first = self.packets - filled + 1
        self._pos, count, status = parser.scan(
            row_set.scanner, self._buffer, self._pos, self._end, self._base, first, filled
        )
        self.packets += count - filled
        return count, status

    def _batch(self, count: int, blocks: list[bytes]) -> Batch:
        data = self._buffer[: self._end]
        rows = self._sets[self._turn].rows[:count]
        self._turn = (self._turn + 1) % len(self._sets)
        self._lent = True
        batch = Batch(rows, data, self._parser.layout, tuple(blocks))
        # Counted here, where it may happen beside the tracking of the batch before.
        _ = batch.foreign
        return batch

    def _take_block(self, blocks: list[bytes]) -> int:
        """Add the block that is no packet to `blocks`; the status after that."""
        assert isinstance(self._parser, pcapng.PcapngParser)
        try:
            block = self._parser.other(self._buffer[self._pos : self._end])
        except CaptureError as error:
            self._fault = str(error)
            return DAMAGED
        if block is None:
            return NEED_MORE
        self._pos += len(block)
        blocks.append(block)
        return OTHER_BLOCK

    def _refill(self) -> bool:
        """Read more behind what is left of the buffer; False at the end of the file."""
        left = self._end - self._pos
        size = len(self._buffer)
        if left == size:
            size *= 2
        if self._lent:
            self._buffer_turn = (self._buffer_turn + 1) % len(self._buffers)
            self._lent = False
        target = self._buffers[self._buffer_turn]
        if len(target) < size:
            target = self._buffers[self._buffer_turn] = memoryview(bytearray(size))
        target[:left] = self._buffer[self._pos : self._end]
        self._buffer = target
        self._base += self._pos
        self._pos, self._end = 0, left
        return self._read() > 0

    def _read(self) -> int:
        """Read behind what the buffer holds; the number of bytes, 0 at the end of the file."""
        try:
            count = self.stream.readinto(self._buffer[self._end :])
        except CaptureError as error:
            if self.stream.stopped:
                return 0
            self._fault = str(error)
            raise self._damage() from None
        self._end += count
        return count

    def _damage(self) -> CaptureError:
        """The error for what stands at the current position, with its byte offset."""
        what = self._fault or self._parser.damage(self._buffer[self._pos : self._end])
        offset = self._base + self._pos
        where = f"byte {offset}"
        if self.stream.compression:
            where += f" of the {self.stream.compression} content"
        after = f"after packet {self.packets}" if self.packets else "before the first packet"
        return CaptureError(
            f"{self.stream.name} is damaged or cut off at {where}, {after}: {what}.", offset
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
            try:
                parser = pcap.PcapParser(header, order)
            except CaptureError as error:
                self._fault = str(error)
                raise self._damage() from None
            self._pos = len(header)
            return parser
        if head == pcapng.MAGIC:
            return pcapng.PcapngParser()
        raise CaptureError(
            f"{name} is not a pcap or pcapng capture: it begins with {_shown(head)}.", 0
        )

    def _peek(self, size: int) -> bytes:
        """The first `size` bytes of the file, fewer if it ends before."""
        while self._end < size and self._read():
            pass
        return bytes(self._buffer[: min(size, self._end)])


def _shown(head: bytes) -> str:
    """The first bytes of a file that is something else, as text where they are text."""
    text = head.decode("ascii", "replace")
    return repr(text) if text.isprintable() and text.isascii() else f"bytes {head.hex(' ')}"
