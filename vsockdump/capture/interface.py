"""The interfaces of a capture: what was captured where, and in which units of time."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump import wire
from vsockdump.batch import LinkKind

NANOSECOND: Final = 9  # if_tsresol of 10^-9
MICROSECOND: Final = 6
_LAST_POWER: Final = 28  # of finer ticks, 64 bits do not make up a nanosecond

LINK_KINDS: Final = {
    wire.LINKTYPE_VSOCK: LinkKind.VSOCK,
    wire.LINKTYPE_LINUX_SLL: LinkKind.SLL,
    wire.LINKTYPE_LINUX_SLL2: LinkKind.SLL2,
}

# One row per interface, in the scanner's terms:
# ns = ticks // divide * multiply + offset_ns, or, where shift is set, ticks are 2^-shift s.
# All of it mod 2^64: a damaged offset gives odd times, no error.
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


class InterfaceTable:
    """The interfaces as an array of INTERFACE_DTYPE that grows with them."""

    def __init__(self) -> None:
        self._rows = np.zeros(8, INTERFACE_DTYPE)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def extend(self, interfaces: list[Interface]) -> NDArray[np.void]:
        """The table of `interfaces`, of which the first ones are in it already."""
        if len(interfaces) > len(self._rows):
            larger = np.zeros(2 * len(interfaces), INTERFACE_DTYPE)
            larger[: self._used] = self._rows[: self._used]
            self._rows = larger
        for index in range(self._used, len(interfaces)):
            self._rows[index] = _row(interfaces[index])
        self._used = len(interfaces)
        return self._rows[: self._used]


def _row(interface: Interface) -> tuple[int, ...]:
    """An interface in the order of INTERFACE_DTYPE."""
    power = interface.resolution & 0x7F
    shift, multiply, divide = 0, 1, 1
    if interface.resolution & 0x80 and power:
        shift = power
    elif interface.resolution & 0x80:
        multiply = 10**NANOSECOND
    elif power <= NANOSECOND:
        multiply = 10 ** (NANOSECOND - power)
    elif power <= _LAST_POWER:
        divide = 10 ** (power - NANOSECOND)
    else:
        multiply = 0
    offset_ns = interface.offset * 10**9 % 2**64
    return interface.kind, shift, interface.snaplen, multiply, divide, offset_ns
