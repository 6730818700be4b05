"""vsockdump: packet analyzer for AF_VSOCK.

`open(path)` reads a capture: connections, packets, batches of columns.  For Scapy users,
`from vsockdump.layers import VSockMon, VirtioVSock`.  Importing this package imports
neither NumPy, Scapy nor Rich; they come with what needs them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vsockdump.library import Capture

__version__ = "0.1.0"
__all__ = ["__version__", "open"]


def open(path: str) -> "Capture":
    """Open a capture file ("-": stdin) for reading; see vsockdump.library.Capture.

    Raises vsockdump.capture.errors.CaptureError where it is not a capture.
    """
    from vsockdump.library import Capture

    return Capture(path)
