"""Amounts in words, for people: counts, lengths of time.

Rules for editors: pure functions of numbers; what stands around them is decided elsewhere.
"""


def counted(number: int, noun: str) -> str:
    """A number and its noun, which takes an s for the plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def span(nanoseconds: int, digits: int = 4) -> str:
    """A length of time for people, rounded to some digits: 820 ns, 4.13 us, 27 ms, 1.01 s."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.{digits}g} {unit}"
    return f"{nanoseconds} ns"
