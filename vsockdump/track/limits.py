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
RST_STORM: Final = 16  # RSTs of one end more than packets of the other
# A sender blocked by its own buffer goes on at once when its receiver has read: within this,
# and within such a part of the time for which it had waited.
WAITS_NS: Final = SECOND // 10
WAITS_PART: Final = 10
WAITS_SEEN: Final = 2  # such waits make it a rule for the context id; a long one counts as two
# A connect given up by its initiator so long after its REQUEST, without a byte: by its timeout.
GIVEN_UP_NS: Final = (19 * SECOND // 10, 5 * SECOND // 2)
AT_ONCE_NS: Final = SECOND // 10
HANG_NS: Final = 10 * SECOND  # a stall that still goes on at the end is then a warning
GAP_LEAST: Final = 4097  # bytes; devices drop what does not fit into one or a few descriptors
GAP_ROUNDS: Final = 4
ANSWERS: Final = 3  # connections that an endpoint has answered, to be one that answers
