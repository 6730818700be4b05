"""What a run reads from: a capture file, a pipe, or an interface that is captured live.

Rules for editors: the stages behind a source know this face and nothing else of it, so
that live and offline use take the same road.  What only one kind of source has is None or
empty for the others, never a question of their type.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from vsockdump.batch import Batch
from vsockdump.capture.interface import Interface


class Counts(NamedTuple):
    """What the kernel says of a live capture so far.

    `received` packets passed the filter, those it then `dropped` for want of room in the
    ring included; `freezes` is how often the ring was found full.
    """

    received: int = 0
    dropped: int = 0
    freezes: int = 0

    def plus(self, more: "Counts") -> "Counts":
        """The sum of both."""
        return Counts(*(one + other for one, other in zip(self, more, strict=True)))


class Origin(Protocol):
    """What a file that is written has to know of where its packets come from."""

    @property
    def name(self) -> str:
        """The file, "stdin", or the interface."""

    @property
    def format(self) -> str:
        """ "pcap" or "pcapng": rows are records of such a file; "": packets without records."""

    @property
    def header(self) -> bytes:
        """The file header of a pcap file, else empty."""

    @property
    def interfaces(self) -> list[Interface]:
        """The interfaces known so far."""

    def counts(self) -> Counts | None:
        """What the kernel counted; None where it counts nothing."""

    def now_ns(self) -> int | None:
        """The time, where packets are captured now; None where they are not."""


class Source(Origin, Protocol):
    """Packets in batches."""

    @property
    def live(self) -> bool:
        """Whether packets come as they happen, so that what is made of them is not kept back."""

    @property
    def size(self) -> int:
        """Bytes of the file as stored; 0 where that is not known."""

    @property
    def position(self) -> int:
        """Bytes read of the file as stored."""

    @property
    def packets(self) -> int:
        """How many were read so far."""

    @property
    def kept(self) -> int:
        """How many batches are valid at a time: the last one, or more where it reads ahead."""

    @property
    def dropped(self) -> int | None:
        """Packets that were lost in the capture so far; None where nobody counted."""

    def is_behind(self) -> bool:
        """Whether packets will be lost unless they are taken faster than the last ones were."""

    def batches(self) -> Iterator[Batch]:
        """The packets in order; the last `kept` batches are valid.

        Raises CaptureError, after the packets before it, where there is no going on.
        """

    @property
    def read_again(self) -> Callable[[int, int], bytes] | None:
        """Reads bytes of the capture once more, by offset and size; None where they are gone.

        A packet's record stands at its record_offset.  Raises CaptureError where the file has
        become shorter.
        """

    def stop(self) -> None:
        """End `batches` with what was captured until now; a signal handler may call it."""

    def close(self) -> None:
        """Give back what it holds."""
