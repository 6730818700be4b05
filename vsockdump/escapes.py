"""Text that others wrote, made harmless for a terminal or a window."""


def printable(text: str) -> str:
    """The text with what is not printable escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
