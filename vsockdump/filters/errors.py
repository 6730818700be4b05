"""The one exception of the filter language."""

from vsockdump.errors import UsageError


class FilterError(UsageError):
    """A filter that cannot be understood: what is wrong, and where.

    `text` is the filter, `at` and `size` what of it is meant.  As a string: a sentence, and
    below it the filter with a caret.
    """

    def __init__(self, sentence: str, text: str, at: int, size: int = 1) -> None:
        self.sentence = sentence
        self.text = text
        self.at = at
        self.size = max(size, 1)
        super().__init__(f"{sentence}\n  {_one_line(text)}\n  {' ' * at}{'^' * self.size}")


def _one_line(text: str) -> str:
    """The text with as many characters, none of which moves the cursor."""
    return "".join(character if character.isprintable() else " " for character in text)
