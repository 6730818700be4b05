"""Running Wireshark's engine with our script, and captures made for that.

Rules for editors: what tshark says on stderr is a failure; Lua's own errors do not show there
but in the tree, so every run asks for them.
"""

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from running import TIME_LIMIT_S, Pcapng, environment, run, tool
from scenario import Packet, parse

from vsockdump.fields import FIELDS

LUA: Final = Path(__file__).parent / "lua"
SCRIPT: Final = Path(__file__).parent.parent / "dissectors" / "vsockdump.lua"
EPOCH: Final = 1_700_000_000 * 10**9
_IF_NAME: Final = 2
_IF_TSRESOL: Final = 9
_LUA_ERROR: Final = "_ws.lua.error"
MESSAGE: Final = "_ws.expert.message"
TRACKED: Final = [
    "frame.number",
    *(field.name for field in FIELDS if field.tracked and not field.apps),
]


def ours(capture: Path) -> list[list[str]]:
    """The tracked fields of each packet, as vsockdump prints them."""
    options = [word for name in TRACKED for word in ("-e", name)]
    told = run("-r", capture, "-T", "fields", *options)  # that interfaces have no names, perhaps
    assert told.status == 0
    return [line.split("\t") for line in told.out.splitlines()]


def tshark(capture: Path, *arguments: str) -> list[str]:
    """The lines of tshark with the script."""
    script = ("-X", f"lua_script:{SCRIPT}")
    return tool("tshark", "-r", capture, *script, *arguments).decode().splitlines()


def window(capture: Path, entry: str, connection: int = 0) -> list[str]:
    """The window that an entry of the menu opens, with tests/lua in Wireshark's place."""
    scripts = (LUA / "window.lua", SCRIPT, LUA / "press.lua")
    words = [word for script in scripts for word in ("-X", f"lua_script:{script}")]
    done = subprocess.run(
        ["tshark", "-q", "-r", str(capture), *words],
        capture_output=True,
        env=environment(ENTRY=entry, CONNECTION=str(connection)),
        timeout=TIME_LIMIT_S,
        check=True,
    )
    return done.stdout.decode().splitlines()


def complaint(capture: Path, *arguments: str) -> str:
    """What tshark says on stderr."""
    command = ["tshark", "-r", str(capture), "-X", f"lua_script:{SCRIPT}", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=TIME_LIMIT_S, check=True)
    return done.stderr.decode()


def fields(capture: Path, names: Sequence[str], *arguments: str) -> list[list[str]]:
    """The values of fields, packet by packet; fails where Lua did.  MESSAGE has to be last."""
    asked = [*(name for name in names if name != MESSAGE), _LUA_ERROR, MESSAGE]
    wanted = [word for name in asked for word in ("-e", name)]
    rows = []
    for number, line in enumerate(tshark(capture, *arguments, "-T", "fields", *wanted), 1):
        *values, error, message = line.split("\t")
        assert not error, f"packet {number}: {message}"
        rows.append([*values, message] if MESSAGE in names else values)
    return rows


def write_scenarios(path: Path, texts: Iterable[str]) -> Path:
    """A capture of many scenarios, each on an interface of its own, a day after the other."""
    file = Pcapng().section()
    chapters = [parse(text, EPOCH + day * 86_400 * 10**9) for day, text in enumerate(texts)]
    for number in range(len(chapters)):
        file.interface(271, (_IF_NAME, b"tap%d" % number), (_IF_TSRESOL, b"\x09"))
    for number, packets in enumerate(chapters):
        for packet in packets:
            _write(file, packet, number)
    path.write_bytes(file.data)
    return path


def _write(file: Pcapng, packet: Packet, interface: int) -> None:
    file.packet(packet.time_ns, packet.frame, interface=interface, wirelen=packet.wirelen)
