"""Runs an iterator in a thread, a few items ahead of whoever uses them.

Reading and scanning a large file run without the GIL; on a second core, beside the
tracking of the batch before, they cost nothing.  Only for files: what comes from a pipe
must be taken when it comes.
"""

from collections.abc import Generator, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")


class _End:
    """The iterator has ended, with an error or without."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterator[Item], depth: int) -> Generator[Item]:
    """The items, made in a thread; an error of the iterator comes after the items before it.

    At most `depth` items exist at a time, the one in use and the one being made included;
    an item is in use until the next is asked for.  Closing the generator ends the thread.
    """
    permits: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[Item | _End] = SimpleQueue()

    def make() -> None:
        try:
            while permits.get():
                made.put(next(items))
        except StopIteration:
            made.put(_End(None))
        except BaseException as error:
            made.put(_End(error))

    for _ in range(depth):
        permits.put(True)
    thread = Thread(target=make, name="read-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := made.get(), _End):
            yield item
            permits.put(True)
        if item.error is not None:
            raise item.error
    finally:
        permits.put(False)
        while thread.is_alive():  # it may hold permits yet, for items that nobody wants
            thread.join(0.01)
