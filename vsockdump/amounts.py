"""Amounts in words, for people: counts, lengths of time.

Rules for editors: pure functions of numbers; what stands around them is decided elsewhere.
"""


def counted(number: int, noun: str) -> str:
    """A number and its noun, which takes an s for the plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def span(nanoseconds: int) -> str:
    """A length of time for people: 820 ns, 4.13 us, 27.0 ms, 1.010 s, 62.3 s."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.4g} {unit}"
    return f"{nanoseconds} ns"
