"""Wireshark's engine, through pyshark: its packets, and their fields as text.

Rules for editors: pyshark waits for all children of a process and sets its own signals, so
that it belongs into a run of its own.  The engine runs without the user's settings and
plugins: it is to speak for Wireshark, and our own Lua script is one of these plugins.
"""

import asyncio
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

_NOWHERE: Final = "/nonexistent"


class EngineError(Exception):
    """Wireshark's engine cannot be asked: one sentence, saying what to do where that helps."""


@contextmanager
def _without_settings() -> Iterator[None]:
    """An environment in which tshark finds no settings; pyshark hands it its own."""
    names = ("HOME", "XDG_CONFIG_HOME")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, _NOWHERE))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def packets(
    path: str, chosen: str | None = None, decode_as: Mapping[str, str] | None = None
) -> Generator[Any]:
    """The packets of a file as pyshark gives them, of which only one is held at a time.

    `chosen` is a display filter; `decode_as` says what is spoken where, in tshark's words.
    Raises EngineError, also behind the last packet of a damaged file.
    """
    try:
        import pyshark
        from pyshark.capture.capture import TSharkCrashException
        from pyshark.tshark.tshark import TSharkNotFoundException
    except ImportError:
        raise EngineError(
            "pyshark is missing, through which Wireshark's engine is asked; install it with:"
            " pip install pyshark."
        ) from None
    asyncio.set_event_loop(asyncio.new_event_loop())
    with _without_settings():
        capture = pyshark.FileCapture(
            path,
            keep_packets=False,
            display_filter=chosen,
            decode_as=dict(decode_as) if decode_as else None,
        )
        # Held here, or it would be collected where we end early, at which pyshark may fail.
        found = iter(capture)
        try:
            # `yield from` would hand on a close.
            for packet in found:  # noqa: UP028
                yield packet
        except TSharkNotFoundException:
            raise EngineError(
                "tshark is missing, which is Wireshark's engine; install it, on Debian with:"
                " sudo apt install tshark."
            ) from None
        except TSharkCrashException as error:
            said = str(error).partition("Last error line: ")[2].partition("\n")[0]
            raise EngineError(f"tshark ended early: {said or error}") from None
        finally:
            processes = list(capture._running_processes)
            for end in (found.close, capture.close):
                with suppress(TSharkCrashException):  # said above, or nobody waits for it
                    end()
            _forget(capture, processes)


def _forget(capture: Any, processes: list[Any]) -> None:
    """Let go of what pyshark leaves open where it is not read to the end.

    Python and pyshark would do so when they are collected, and complain on stderr.
    """
    capture._running_processes.clear()
    for process in processes:
        process._transport.close()
    capture.eventloop.run_until_complete(asyncio.sleep(0))
    capture.eventloop.close()


def text(layer: Any, name: str) -> str:
    """A field of a layer, in the notation of `-T fields`; "" where it is missing."""
    found = layer.get_field(name)
    shown: str = "" if found is None else found.show
    return shown


def texts(layer: Any, name: str) -> list[str]:
    """All fields of this name in a layer."""
    found = layer.get_field(name)
    return [] if found is None else [each.show for each in found.all_fields]
