"""A mapping that costs nothing until somebody looks into it."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lazy(Mapping[K, V]):
    """What `make` gives, made once, at the first look."""

    def __init__(self, make: Callable[[], Mapping[K, V]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Mapping[K, V]:
        return self._make()

    def __getitem__(self, key: K) -> V:
        return self._made[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __repr__(self) -> str:
        return repr(self._made)


DECODERS: Final[dict[str, Callable[[bytes], Mapping[str, Any]]]] = {}


class Decoded(Lazy[str, Any]):
    """What the decoder of that name makes of bytes.

    Who keeps it keeps these two, and nobody has looked: decoding may take a thousand times as
    long as keeping.
    """

    def __init__(self, decoder: str, data: bytes) -> None:
        super().__init__(lambda: DECODERS[decoder](data))
        self.decoder = decoder
        self.data = data
