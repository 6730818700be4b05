"""The headers of an HTTP/2 message, as far as they could be told; header_blocks.py reads them."""

from typing import Final, NamedTuple

from vsockdump.apps.message import Value

LOST: Final = "[header table lost]"


class Headers(NamedTuple):
    """The headers of a block in order; `lost` could not be told, `why` says that none could."""

    pairs: tuple[tuple[str, str], ...] = ()
    lost: int = 0
    why: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether these are all headers of the block."""
        return not (self.lost or self.why)

    def get(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for own, value in self.pairs if own == name), None)

    def fields(self) -> dict[str, Value]:
        """All of them by name; one that is repeated has a list."""
        found: dict[str, list[str]] = {}
        for name, value in self.pairs:
            found.setdefault(name, []).append(value)
        shown: dict[str, Value] = {
            name: values[0] if len(values) == 1 else values for name, values in found.items()
        }
        if self.lost:
            shown[LOST] = self.lost
        if self.why:
            shown["(not decoded)"] = self.why
        return shown
