"""`--lua`: the Wireshark script, dissectors/vsockdump.lua.

The script is tables made here, from wire, the tracker's states and limits, the field table
and the findings, and behind them the parts of lua_parts, which are Lua and stay as they are.
The committed file is what `script` returns; a test compares them.

Rules for editors: whatever has a name or a number elsewhere in vsockdump comes to the script
through a table; the parts use these.  The tables are data, and the two functions that read
the headers.  Lua 5.2 to 5.4 have to read it all: no integer division, no operators for bits,
no goto.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from importlib.resources import files
from typing import Any, Final, NamedTuple

from vsockdump import wire
from vsockdump.apps import registry
from vsockdump.batch import MALFORMED_TEXT, Malformed
from vsockdump.fields import FIELDS, SIDES, Show
from vsockdump.findings.registry import RULES, WORDS
from vsockdump.findings.rule import DOUBTS, Severity
from vsockdump.output.text import SHOWN_MARKS
from vsockdump.track import limits, states
from vsockdump.track.kinds import Cause, Doubt, Kind, Limit
from vsockdump.track.marks import MARK_OF, REMARKS, Mark
from vsockdump.track.store import PEERS

_PARTS: Final = (
    "tracker",
    "frame",
    "passes",
    "text",
    "ttrpc",
    "streams",
    "dissector",
    "windows",
)
_HEAD: Final = """\
-- vsockdump in Wireshark: connections, credit and findings of AF_VSOCK captures, and the
-- protocols inside them. `vsockdump --lua` prints this file; how to install and use it stands
-- in vsockdump's README. Wireshark 4.0 and newer.
--
-- Made by vsockdump/output/lua.py: change that, or lua_parts beside it, and not this file.
"""
# Connections kept; each is a few hundred bytes. Beyond, the ended ones are forgotten first.
_CONNECTIONS: Final = 65536

# Wireshark's own dissectors, or ours, for the protocols of a port map.
PROTOCOLS: Final = {
    "http": "http",
    "http2": "http2",
    "grpc": "http2",
    "tls": "tls",
    "ssh": "ssh",
    "json": "json",
    "protobuf": "protobuf",
    "9p": "9p",
    "ttrpc": "ttrpc",
}

# Where Wireshark 4.0 keeps a dissector that it has no name for, and SSH's, which takes that
# port for the server's.
_TCP_PORTS: Final = {"9p": 564, "ssh": 22}
_RESUMING: Final = {"ssh", "tls"}  # their dissectors find their way from the middle


_MARKS: Final = 64  # numbers from here on are findings without a mark


class Extra(NamedTuple):
    """A field that only the script has: a name, Wireshark's type, what it means."""

    name: str
    kind: str
    meaning: str


_EXTRA_FIELDS: Final = (
    Extra("vsock.src", "string", "the sender: name of its context id, and port"),
    Extra("vsock.dst", "string", "the receiver: name of its context id, and port"),
    Extra("vsock.virtio.flag_names", "string", "names of the flags"),
    Extra("vsock.response_in", "framenum", "the packet that answers this one"),
    Extra("vsock.response_to", "framenum", "the packet that this one answers"),
    Extra("vsock.response_time", "relative_time", "time from that packet to this one"),
    Extra(
        "vsock.credit.stalled",
        "relative_time",
        "how long a sender had no credit, until this packet",
    ),
    Extra("vsock.app.protocol", "string", "protocol to which the payload was given"),
)


def script() -> str:
    """The whole script."""
    folder = files("vsockdump.output").joinpath("lua_parts")
    parts = [folder.joinpath(f"{name}.lua").read_text("utf-8") for name in _PARTS]
    return "\n".join([_HEAD, *_tables(), *parts])


def port_map() -> dict[int, str]:
    """Ports by which a connection is told that was joined in its middle.

    From the registry of applications: those that one protocol claims alone.  What begins in
    the capture is told by its bytes.
    """
    claims: dict[int, set[str]] = {}
    for protocol, prior in registry.priors():
        if prior.socket_type == wire.SocketType.STREAM:
            claims.setdefault(prior.port, set()).add(protocol.name)
    alone = {port: name for port, (name, *others) in sorted(claims.items()) if not others}
    return {port: name for port, name in alone.items() if name in _RESUMING}


# --- colour rules ------------------------------------------------------------------------

_BLACK, _RED, _YELLOW, _BLUE, _GREY = (
    (0, 0, 0),
    (65535, 24672, 24672),
    (65535, 57054, 34438),
    (56026, 61166, 65535),
    (57568, 57568, 57568),
)


def colour_rules() -> str:
    """Rules for Wireshark's `colorfilters`, the most important first.

    Lua has no way to add them; they are lines of that file.
    """
    errors = " || ".join(rule.name for rule in RULES if rule.severity.word == "error")
    warnings = " || ".join(rule.name for rule in RULES if rule.severity.word == "warn")
    rules = (
        ("vsock: error", errors, _RED),
        ("vsock: warning", warnings, _YELLOW),
        ("vsock: no credit", "vsock.credit.free == 0", _YELLOW),
        ("vsock: connect and close", "vsock.op in {1, 2}", _GREY),
        ("vsock: credit", "vsock.op == 3", _BLUE),
    )
    return "".join(
        f"@{name}@{text}@[{_colour(back)}][{_colour(_BLACK)}]\n" for name, text, back in rules
    )


# --- columns -----------------------------------------------------------------------------

# Titles and contents: Wireshark's own, or one of the fields.
COLUMNS: Final = (
    ("No.", "%m"),
    ("Time", "%t"),
    ("Source", "%s"),
    ("Destination", "%d"),
    ("State", "vsock.state"),
    ("In flight", "vsock.credit.inflight"),
    ("Free", "vsock.credit.free"),
    ("Length", "%L"),
    ("Info", "%i"),
)


def column_list() -> str:
    """The columns for vsock, as a line of Wireshark's `preferences`."""
    shown = (
        (title, content if content.startswith("%") else f"%Cus:{content}:0:R")
        for title, content in COLUMNS
    )
    pairs = ",\n\t".join(f'"{title}", "{content}"' for title, content in shown)
    return f"gui.column.format: \n\t{pairs}\n"


def _colour(parts: tuple[int, int, int]) -> str:
    return ",".join(map(str, parts))


# --- tables ------------------------------------------------------------------------------


def _tables() -> Iterator[str]:
    coarse = wire.VSOCKMON._replace(fields=wire.VSOCKMON.fields[_first_behind_addresses() :])
    yield _local("wire", _wire())
    yield _reader("headers", (coarse, wire.VIRTIO))
    yield _reader("monitor", (coarse,))
    yield _local("states", _states())
    yield _local("limits", _limits())
    yield _local("malformed", _malformed())
    yield _local("MARK", {kind.name: _number(kind) for kind in Kind} | _remarks())
    yield f"local MARKS = {_MARKS}\n"
    yield _local("REMARKS", dict.fromkeys(_remarks().values(), True))
    yield _local("findings", _findings())
    yield _local("fields", list(_fields()))
    yield _local("ports", port_map())
    yield _local("protocols", PROTOCOLS)
    yield _local("tcp_ports", _TCP_PORTS)


def _wire() -> dict[str, Any]:
    first = wire.VSOCKMON.offset("op")
    return {
        "monitor_size": wire.VSOCKMON.size,
        "virtio_size": wire.VIRTIO.size,
        "headers_size": wire.HEADERS_SIZE,
        "addresses_size": first,
        "max_payload": wire.MAX_PAYLOAD,
        "arphrd": wire.ARPHRD_VSOCKMON,
        "no_info": wire.Transport.NO_INFO,
        "virtio": wire.Transport.VIRTIO,
        "cid_local": wire.CID_LOCAL,
        "cid_host": wire.CID_HOST,
        "cid_parent": wire.CID_PARENT,
        "cid_any": wire.CID_ANY,
        "cid_names": wire.CID_NAMES,
        "op": _numbers(wire.Op),
        "last_op": max(wire.Op),
        "type": _numbers(wire.SocketType),
        "op_names": _names(wire.Op),
        "type_names": _names(wire.SocketType),
        "monitor_op_names": _names(wire.MonitorOp),
        "transport_names": _names(wire.Transport),
        "outer_op": {int(op): int(outer) for op, outer in wire.OUTER_OP.items()},
        "eor": wire.Seqpacket.EOR,
        "shutdown_flags": [flag.name for flag in wire.Shutdown],
        "seqpacket_flags": [flag.name for flag in wire.Seqpacket],
    }


def _first_behind_addresses() -> int:
    """Which field of the monitor header it is; the addresses before it are compared as bytes."""
    return next(at for at, field in enumerate(wire.VSOCKMON.fields) if field.name == "op")


def _reader(name: str, headers: tuple[wire.Header, ...]) -> str:
    """A function that unpacks headers, from the first field given on, into a table.

    64-bit fields become two numbers, NAME_lo and NAME_hi, since Lua 5.2 counts in doubles;
    the monitor header's names get a prefix.
    """
    start = headers[0].fields[0].offset
    targets, code = [], ""
    for header in headers:
        prefix = "mon_" if header.name == wire.VSOCKMON.name else ""
        for field in header.fields:
            names = [field.name] if field.size < 8 else [f"{field.name}_lo", f"{field.name}_hi"]
            targets += [f"p.{prefix}{target}" for target in names]
            code += f"I{field.size // len(names)}" * len(names)
    return f"""\
do
  local unpack = Struct and Struct.unpack or string.unpack
  function wire.read_{name}(p, raw)
    {_folded(targets)}
      = unpack("<{code}", raw, {start + 1})
  end
end
"""


def _folded(names: Sequence[str]) -> str:
    """A list over lines of a readable length."""
    lines, line = [], ""
    for name in names:
        if line and len(line) + len(name) > 80:
            lines.append(line)
            line = ""
        line += (" " if line else "") + name + ","
    return "\n      ".join([*lines, line]).removesuffix(",")


def _states() -> dict[str, Any]:
    return {
        "state": _numbers(states.State),
        "word": {int(state): states.state_word(state) for state in states.State},
        "sides": dict(enumerate(SIDES)),
        "event": _numbers(states.Event),
        "terminal": {int(state): True for state in sorted(states.TERMINAL)},
        "transitions": {
            int(state): {int(event): int(following) for event, following in moves.items()}
            for state, moves in states.TRANSITIONS.items()
        },
        "cause": _numbers(Cause),
        "limit": _numbers(Limit),
        "doubt": {doubt.name: int(doubt) for doubt in Doubt},
        "doubts": {int(doubt): text for doubt, text in DOUBTS.items()},
    }


def _limits() -> dict[str, Any]:
    found = {
        name: list(value) if isinstance(value, tuple) else value
        for module in (states, limits)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int | tuple)
    }
    return {**found, "connections": _CONNECTIONS, "peers": PEERS}


def _malformed() -> dict[str, Any]:
    return {
        "code": _numbers(Malformed),
        "text": {int(code): text for code, text in MALFORMED_TEXT.items()},
    }


def _bit(mark: int) -> int:
    return int(mark).bit_length() - 1


def _number(kind: Kind) -> int:
    """Of what is found: the bit of its mark, which orders words, or one behind all bits."""
    mark = MARK_OF[kind]
    return _MARKS + kind if mark == Mark.MORE else _bit(mark)


def _remarks() -> dict[str, int]:
    return {str(mark.name): _bit(mark) for mark in Mark if mark & REMARKS}


def _findings() -> dict[int, dict[str, Any]]:
    """By number: the word in the packet line, and how it is shown there; the rule, if any."""
    found: dict[int, dict[str, Any]] = {
        _bit(mark): {"word": WORDS[mark], "shown": bool(mark & SHOWN_MARKS)}
        for mark in Mark
        if mark & REMARKS
    }
    for rule in sorted(RULES, key=lambda rule: _number(rule.kind)):
        entry: dict[str, Any] = {"word": rule.word}
        mark = MARK_OF[rule.kind]
        if mark & SHOWN_MARKS or (mark == Mark.MORE and rule.severity == Severity.NOTE):
            entry["shown"] = True
        if rule.severity >= Severity.WARN:
            entry["wrong"] = True
        # An expert item has one severity: what may not be proven is a warning.
        severity = min(rule.severity, Severity.WARN) if rule.doubtful else rule.severity
        entry["name"], entry["severity"] = rule.name, severity.word
        if rule.others:
            entry["others"] = {int(cause): text for cause, text in rule.others.items()}
        entry["what"], entry["message"] = rule.what, rule.message
        found[_number(rule.kind)] = entry
    return dict(sorted(found.items()))


_KINDS: Final = {Show.DEC: "uint32", Show.HEX: "uint32", Show.BYTES: "bytes", Show.WORD: "string"}


def _fields() -> Iterator[dict[str, str]]:
    """The fields that the script adds, in the order in which they are shown."""
    for field in FIELDS:
        place = field.place
        if field.tracked and not field.apps:
            yield _field(field.name, _KINDS[field.show], field.meaning)
        if place is not None and len(field.names) > 1:
            yield _field(field.name, "uint32", field.meaning)
        if place is not None and place.values is not None:
            yield _field(f"{field.name}_name", "string", f"name of the {place.meaning}")
    for extra in _EXTRA_FIELDS:
        yield _field(*extra)


def _field(name: str, kind: str, meaning: str) -> dict[str, str]:
    title = name.removeprefix("vsock.").replace(".", " ").replace("_", " ")
    return {"name": name, "kind": kind, "title": title.capitalize(), "meaning": meaning}


def _numbers(values: type[IntEnum]) -> dict[str, int]:
    return {value.name: int(value) for value in values}


def _names(values: type[IntEnum]) -> dict[int, str]:
    return {int(value): value.name for value in values}


# --- Lua's notation ----------------------------------------------------------------------


def _local(name: str, value: Any) -> str:
    return f"local {name} = {_lua(value)}\n"


def _lua(value: Any, indent: str = "") -> str:
    """A value as a Lua literal; tables of tables over several lines."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case str():
            return _quoted(value)
        case Mapping():
            entries = [(f"{_key(key)} = ", item) for key, item in value.items()]
        case _:
            entries = [("", item) for item in value]
    inner = indent + "  "
    if not any(isinstance(item, Mapping | list) for _key_of, item in entries):
        line = ", ".join(key + _lua(item) for key, item in entries)
        if len(line) < 80:
            return f"{{ {line} }}" if line else "{}"
    lines = [f"{inner}{key}{_lua(item, inner)},\n" for key, item in entries]
    return "{\n" + "".join(lines) + indent + "}"


def _key(key: object) -> str:
    if isinstance(key, str) and key.isidentifier() and key not in _RESERVED:
        return key
    return f"[{_lua(key)}]"


_RESERVED: Final = frozenset({"and", "end", "in", "not", "or", "repeat", "then", "until"})


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
