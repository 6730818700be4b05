"""Where somebody wants to go: a packet number, or a time.

1000        packet 1000
+2.5        2.5 s after the first packet
12:34:56.7  that time of the day of the first packet, local
"""

import re
import time
from decimal import Decimal
from typing import Final

from vsockdump.batch import NO_TIME
from vsockdump.tui.model.again import Again
from vsockdump.tui.model.passes import Listing

_NUMBER: Final = re.compile(r"#?(\d{1,18})$")
_SPAN: Final = re.compile(r"\+(\d{1,9}(?:\.\d{1,9})?)s?$")
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d(?:\.\d{1,9})?))?$")
_SECOND: Final = 10**9


class GotoError(ValueError):
    """A place that cannot be understood or is not there; one sentence."""


def place_of(text: str, listing: Listing, again: Again) -> int:
    """The place in the list; that of the next packet listed where it is none itself."""
    if not len(listing):
        raise GotoError("There are no packets to go to.")
    text = text.strip()
    if match := _NUMBER.match(text):
        place = listing.place(int(match[1]))
    else:
        place = _by_time(_time(text, again), listing, again)
    return min(place, len(listing) - 1)


def _time(text: str, again: Again) -> int:
    first = again.time_of(1)
    if first == NO_TIME:
        raise GotoError("The packets of this capture have no times.")
    if match := _SPAN.match(text):
        return first + int(Decimal(match[1]) * _SECOND)
    if match := _CLOCK.match(text):
        day = time.localtime(first // _SECOND)
        clock = (int(match[1]), int(match[2]), int(Decimal(match[3] or 0)))
        whole = int(time.mktime((*day[:3], *clock, 0, 0, -1)))
        return whole * _SECOND + int(Decimal(match[3] or 0) % 1 * _SECOND)
    raise GotoError("Give a packet number, +SECONDS after the first, or HH:MM:SS.")


def _by_time(wanted: int, listing: Listing, again: Again) -> int:
    """The first packet that is not before `wanted`, as far as times ascend."""
    low, high = 0, len(listing)
    while low < high:
        middle = (low + high) // 2
        if again.time_of(int(listing.numbers(middle, 1)[0])) < wanted:
            low = middle + 1
        else:
            high = middle
    return low
