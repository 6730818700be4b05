"""The interfaces of a capture: what was captured where, and in which units of time."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump import wire
from vsockdump.batch import LinkKind

NANOSECOND: Final = 9  # if_tsresol of 10^-9
MICROSECOND: Final = 6

LINK_KINDS: Final = {
    wire.LINKTYPE_VSOCK: LinkKind.VSOCK,
    wire.LINKTYPE_LINUX_SLL: LinkKind.SLL,
    wire.LINKTYPE_LINUX_SLL2: LinkKind.SLL2,
}

# One row per interface, in the scanner's terms:
# ns = ticks // divide * multiply + offset_ns, or, where shift is set, ticks are 2^-shift s.
INTERFACE_DTYPE: Final = np.dtype(
    [
        ("kind", "u1"),
        ("shift", "u1"),
        ("snaplen", "u4"),
        ("multiply", "u8"),
        ("divide", "u8"),
        ("offset_ns", "u8"),
    ],
    align=True,
)


class Interface(NamedTuple):
    """One interface.

    `resolution` is pcapng's if_tsresol byte: the negative power of 10, or of 2 if bit 7 is
    set; `offset` is if_tsoffset in seconds; `snaplen` 0 means no limit.  `tap` is equal for
    the interfaces of two sections that are the same place of capture.
    """

    linktype: int
    snaplen: int = 0
    name: str = ""
    resolution: int = MICROSECOND
    offset: int = 0
    tap: int = 0

    @property
    def kind(self) -> LinkKind:
        """What the link type means to the scanner."""
        return LINK_KINDS.get(self.linktype, LinkKind.FOREIGN)


def interface_table(interfaces: list[Interface]) -> NDArray[np.void]:
    """The interfaces as an array of INTERFACE_DTYPE."""
    table = np.zeros(len(interfaces), INTERFACE_DTYPE)
    for row, interface in zip(table, interfaces, strict=True):
        power = interface.resolution & 0x7F
        row["kind"] = interface.kind
        row["snaplen"] = interface.snaplen
        row["offset_ns"] = interface.offset * 10**9 % 2**64
        row["divide"] = row["multiply"] = 1
        if interface.resolution & 0x80:
            row["shift"] = power
            row["multiply"] = 1 if power else 10**9
        elif power <= NANOSECOND:
            row["multiply"] = 10 ** (NANOSECOND - power)
        else:
            # Beyond 10^-28 every 64-bit tick count is less than a nanosecond.
            row["divide"] = min(10 ** (power - NANOSECOND), 2**64 - 1)
    return table


