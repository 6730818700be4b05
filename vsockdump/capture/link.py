"""Network interfaces as the kernel describes them: index, hardware type, up or not.

Asked by ioctl, which needs neither privileges nor /sys: the latter shows the interfaces of
the network namespace that mounted it.
"""

import fcntl
import socket
import struct
from typing import Final, NamedTuple

from vsockdump.wire import ARPHRD_VSOCKMON

_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFHWADDR: Final = 0x8927
_IFF_UP: Final = 1
_NAME_SIZE: Final = 16


class Link(NamedTuple):
    """One interface; `number` is its index, `arphrd` its hardware type, ARPHRD_*."""

    name: str
    number: int
    arphrd: int
    up: bool


def link_of(name: str) -> Link | None:
    """The interface of this name, or None."""
    if not 0 < len(name.encode()) < _NAME_SIZE:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asked:
            flags = _asked(asked, _SIOCGIFFLAGS, name)
            arphrd = _asked(asked, _SIOCGIFHWADDR, name)
        return Link(name, socket.if_nametoindex(name), arphrd, bool(flags & _IFF_UP))
    except (OSError, ValueError):
        return None


def monitors() -> list[Link]:
    """All interfaces of a vsockmon's hardware type, by index."""
    links = (link_of(name) for _index, name in socket.if_nameindex())
    return [link for link in links if link is not None and link.arphrd == ARPHRD_VSOCKMON]


def _asked(asked: socket.socket, request: int, name: str) -> int:
    """The 16-bit value that struct ifreq holds behind the name."""
    answer = fcntl.ioctl(asked, request, struct.pack("16s24x", name.encode()))
    (value,) = struct.unpack_from("H", answer, _NAME_SIZE)
    return int(value)
