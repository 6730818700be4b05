"""What the tracker measures against: amounts and times, beside those of the lifecycle.

Here and not in the tracker, because compiled constants cannot be read from outside, and the
Wireshark script (output/lua.py) follows the same numbers.  Rules for editors: plain ints.
"""

from typing import Final

from vsockdump.track.states import SECOND

# A packet that was under way when its receiver closed is no mistake; the next one is.
UNDER_WAY_NS: Final = SECOND // 10
SOON_NS: Final = 1 * SECOND  # an RST within it answers the packet
TIME_BACK_NS: Final = SECOND // 1000  # taps on several CPUs stay below
HUGE_BUFFER: Final = 0xF0000000
OVERHEAD: Final = 576  # bytes Linux counts for a queued packet
MANY_QUEUED: Final = 64
FEW_QUEUED: Final = 8
EMPTY_RUN: Final = 16
QUIET_RUN: Final = 3
UPDATE_STORM: Final = 32
BACKS: Final = 4  # times that fwd_cnt goes back
