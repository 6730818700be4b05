"""Wireshark's engine, through pyshark: the fields of every packet, as text.

Rules for editors: pyshark waits for all children of a process and sets its own signals, so
that it belongs into a run of its own.  The engine runs without the user's settings and
plugins: it is to speak for Wireshark, and our own Lua script is one of these plugins.
"""

import asyncio
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from vsockdump.fields import BY_NAME, Show
from vsockdump.verify.deviations import BLOCKS_BEFORE, Facts

_NOWHERE: Final = "/nonexistent"
ENCAPSULATION: Final = "frame.encap_type"


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


def packets(path: str, names: Sequence[str]) -> Generator[Facts]:
    """The named fields of each packet, "" where one is missing, in the notation of `-T fields`.

    Two facts more are there: the number that Wireshark has for the link type, and how many
    frames before this one are no packets.  Only one packet is held at a time.  Raises
    EngineError, also behind the last packet of a damaged file.
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
        capture = pyshark.FileCapture(path, keep_packets=False)
        try:
            yield from _facts(capture, [*names, ENCAPSULATION])
        except TSharkNotFoundException:
            raise EngineError(
                "tshark is missing, which is Wireshark's engine; install it, on Debian with:"
                " sudo apt install tshark."
            ) from None
        except TSharkCrashException as error:
            said = str(error).partition("Last error line: ")[2].partition("\n")[0]
            raise EngineError(f"tshark ended early: {said or error}") from None
        finally:
            with suppress(TSharkCrashException):  # said above, or nobody waits for it
                capture.close()
            capture._running_processes.clear()  # or it would say so again when collected


def _facts(capture: Any, names: Sequence[str]) -> Iterator[Facts]:
    """The packets of a capture of pyshark's, without the frames that are none."""
    blocks = 0
    for packet in capture:
        facts = {name: _text(packet, name) for name in names}
        if facts[ENCAPSULATION]:
            yield facts | {BLOCKS_BEFORE: str(blocks)}
        else:
            blocks += 1


def _text(packet: Any, name: str) -> str:
    """A field of a packet of pyshark's."""
    layer, _, field = name.partition(".")
    if layer == "frame":
        found = packet.frame_info.get_field(field)
    else:
        found = packet[layer].get_field(field) if layer in packet else None
    if found is None:
        return ""
    text: str = found.show
    if name in BY_NAME and BY_NAME[name].show == Show.BYTES:
        return text.replace(":", "")
    return text
