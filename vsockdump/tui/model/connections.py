"""The connections of a capture as a table that can be sorted, a picture of one moment.

Rules for editors: a picture is columns, since there may be a million connections; texts are
made of the rows that are on the screen.  What words mean is said in output/statistics.py.
"""

from collections import namedtuple
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump.amounts import span
from vsockdump.apps.registry import name_of
from vsockdump.batch import NO_TIME
from vsockdump.findings.overdue import overdue
from vsockdump.findings.registry import found_in, rules_of, worst
from vsockdump.findings.rule import Severity
from vsockdump.output.statistics import ends, how_it_ended, shown, socket_type
from vsockdump.track.store import Store
from vsockdump.tui.model.capture import Capture

_BARS: Final = "▁▂▃▄▅▆▇█"
_NEVER: Final = 0xFFFFFFFF  # free credit of a slot, or flow, in which none was seen
_UNKNOWN: Final = -1
_COPIED: Final = (
    "number",
    "initiator_cid",
    "initiator_port",
    "acceptor_cid",
    "acceptor_port",
    "type",
    "state",
    "closer",
    "side_known",
    "midstream",
    "found_low",
    "found_high",
    "doubt",
)
_SECOND: Final = 10**9
_ODD: Final = np.array((1, 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F), np.uint64)  # to hash sets by

OVERVIEW_DTYPE: Final = np.dtype(
    [
        ("number", "u8"),
        ("initiator_cid", "u8"),
        ("initiator_port", "u4"),
        ("acceptor_cid", "u8"),
        ("acceptor_port", "u4"),
        ("type", "u2"),
        ("state", "u1"),
        ("closer", "u1"),
        ("side_known", "u1"),
        ("midstream", "u1"),
        ("found_low", "u8"),  # kinds, as in the store
        ("found_high", "u8"),
        ("doubt", "u1"),
        ("packets", "u8"),
        ("forth", "u8"),  # bytes from the initiator to the acceptor
        ("back", "u8"),
        ("duration", "i8"),  # ns
        ("rate", "f8"),  # bytes of both sides a second, _UNKNOWN where there is no time
        ("free", "i8"),  # least free credit of a side, or _UNKNOWN
        ("tight", "u1"),  # that side
        ("stalled", "i8"),  # ns of both sides
        ("severity", "i1"),  # of the worst finding, _UNKNOWN: there is none
        ("app", "u1"),
    ]
)


class Windows(NamedTuple):
    """The credit over time of the first connections, of track.window.CreditWindows."""

    free: NDArray[Any]
    in_flight: NDArray[Any]
    buffer: NDArray[Any]


class Overview(NamedTuple):
    """A picture of all connections, by number; `forgotten` more were left out."""

    rows: NDArray[Any]
    windows: Windows
    forgotten: int


def overview(capture: Capture) -> Overview:
    """The connections as they are now."""
    with capture.frozen() as tracker:
        store = tracker.store
        rows, flows = _copied(store, tracker.as_of_ns)
        rows["app"] = capture.protocols_of(rows["number"])
        windows = Windows(*capture.windows.copy(tracker.connections))
        forgotten = store.forgotten
        late = [(event.conn, event.kind) for event in overdue(tracker)]
    order = np.argsort(rows["number"])
    rows, flows = rows[order], flows[order]
    for conn, kind in late:
        word = rows["found_high" if kind >= 64 else "found_low"]
        word[np.searchsorted(rows["number"], conn)] |= np.uint64(1 << kind % 64)
    _judge(rows)
    return Overview(rows, windows, forgotten)


def _copied(store: Store, until: int) -> tuple[NDArray[Any], NDArray[Any]]:
    connections, flows = store.connections[: store.used], store.flows[: 2 * store.used]
    flows = flows.reshape(-1, 2)
    rows = np.zeros(len(connections), OVERVIEW_DTYPE)
    for name in _COPIED:
        rows[name] = connections[name]
    rows["packets"] = flows["packets"].sum(axis=1)
    rows["forth"], rows["back"] = flows["bytes"].T
    rows["duration"] = connections["last_ns"] - connections["first_ns"]
    timed = (rows["duration"] > 0) & (connections["first_ns"] != NO_TIME)
    rows["rate"] = _UNKNOWN
    total = (rows["forth"] + rows["back"]).astype(float)
    rows["rate"][timed] = total[timed] * _SECOND / rows["duration"][timed]
    least = np.where(flows["free_seen"] != 0, flows["min_free"].astype(np.int64), _NEVER)
    rows["tight"] = least.argmin(axis=1)
    rows["free"] = least.min(axis=1)
    rows["free"][~(flows["free_seen"] != 0).any(axis=1)] = _UNKNOWN
    rows["stalled"] = _stalled(flows, until)
    return rows, flows


def _stalled(flows: NDArray[Any], until: int) -> NDArray[Any]:
    """Time without credit of both sides, up to `until` for what goes on."""
    since = flows["stalled_since"]
    running = np.where(since == NO_TIME, 0, np.maximum(until - since, 0))
    total: NDArray[Any] = (flows["stalled_ns"] + running).sum(axis=1)
    return total


def _judge(rows: NDArray[Any]) -> None:
    """Fill in the severities; few sets of kinds occur."""
    columns = [rows[name] for name in ("found_low", "found_high", "doubt")]
    one_number = sum(column * factor for column, factor in zip(columns, _ODD, strict=True))
    _sets, first, of = np.unique(one_number, return_index=True, return_inverse=True)
    sets = zip(*(column[first].tolist() for column in columns), strict=True)
    found = [worst(low | high << 64, doubt) for low, high, doubt in sets]
    severities = [_UNKNOWN if severity is None else int(severity) for severity in found]
    rows["severity"] = np.array(severities, np.int8)[of] if severities else 0


# --- the table -----------------------------------------------------------------------------

if TYPE_CHECKING:
    Row = Any
else:  # Python's own values: NumPy's records are slow to read one by one
    Row = namedtuple("Row", OVERVIEW_DTYPE.names)

Keys = Callable[[NDArray[Any]], tuple[NDArray[Any], ...]]


class ConnectionColumn(NamedTuple):
    """A column: title, width, its texts, what it is sorted by, whether it is flush right.

    `cell` takes a row and whether addresses are numeric; `keys` gives arrays, the first of
    which counts most.  `falling`: the largest is to be seen first.
    """

    title: str
    width: int
    cell: Callable[[Row, bool], str]
    keys: Keys
    right: bool = True
    falling: bool = True


def _by(*names: str) -> Keys:
    return lambda rows: tuple(rows[name] for name in names)


def _finding(row: Row, _numeric: bool) -> str:
    """The worst one, and how many others there are."""
    rules = rules_of(found_in(row))
    more = f" +{len(rules) - 1}" if len(rules) > 1 else ""
    return f"{rules[0].word}{more}" if rules else ""


def amount(number: float) -> str:
    """A number in at most six characters: 65536, 1.23M, 100G."""
    if number < 100_000:
        return str(round(number))
    for unit in "kMGT":
        number /= 1000
        if number < 999.5:
            return f"{number:.3g}{unit}"
    return f"{number:.0f}T"


def _known(value: float) -> str:
    return "" if value < 0 else amount(value)


def _names(rows: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    return (np.array([_protocol(code) for code in rows["app"].tolist()], object),)


def _protocol(code: int) -> str:
    return name_of(code) if code else ""


CONNECTION_COLUMNS: Final = {
    "number": ConnectionColumn(
        "#", 4, lambda row, _: str(row.number), _by("number"), falling=False
    ),
    "initiator": ConnectionColumn(
        "Initiator",
        13,
        lambda row, numeric: shown(ends(row)[0], numeric),
        _by("initiator_cid", "initiator_port"),
        right=False,
        falling=False,
    ),
    "acceptor": ConnectionColumn(
        "Acceptor",
        13,
        lambda row, numeric: shown(ends(row)[1], numeric),
        _by("acceptor_cid", "acceptor_port"),
        right=False,
        falling=False,
    ),
    "protocol": ConnectionColumn(
        "Protocol", 8, lambda row, _: _protocol(row.app), _names, right=False, falling=False
    ),
    "forth": ConnectionColumn("→Bytes", 6, lambda row, _: amount(row.forth), _by("forth")),
    "back": ConnectionColumn("←Bytes", 6, lambda row, _: amount(row.back), _by("back")),
    "credit": ConnectionColumn(
        "Free credit", 16, lambda _row, _: "", _by("free"), right=False, falling=False
    ),
    "least": ConnectionColumn(
        "Least", 6, lambda row, _: _known(row.free), _by("free"), falling=False
    ),
    "finding": ConnectionColumn(
        "Finding", 14, _finding, _by("severity", "found_low", "found_high"), right=False
    ),
    "state": ConnectionColumn(
        "State", 12, lambda row, _: how_it_ended(row), _by("state", "closer"), right=False
    ),
    "stalled": ConnectionColumn(
        "Stalled", 8, lambda row, _: span(row.stalled) if row.stalled else "", _by("stalled")
    ),
    "rate": ConnectionColumn("Bytes/s", 7, lambda row, _: _known(row.rate), _by("rate")),
    "packets": ConnectionColumn("Packets", 7, lambda row, _: amount(row.packets), _by("packets")),
    "type": ConnectionColumn(
        "Type", 9, lambda row, _: socket_type(row), _by("type"), right=False, falling=False
    ),
}


def ordered(rows: NDArray[Any], column: str, reverse: bool = False) -> NDArray[np.intp]:
    """The rows' places in the order of a column, ties by number; `reverse` from the other end."""
    definition = CONNECTION_COLUMNS[column]
    keys = definition.keys(rows)
    ranks = [np.unique(key, return_inverse=True)[1] for key in keys]
    sign = -1 if definition.falling != reverse else 1
    return np.lexsort((rows["number"], *(sign * rank for rank in reversed(ranks))))


def severity_of(row: Row) -> Severity | None:
    """That of the worst finding of a connection."""
    return None if row.severity < 0 else Severity(row.severity)


def sparkline(windows: Windows, row: Row) -> str:
    """The free credit over a connection's life, of the side that had least of it.

    As parts of the largest window seen; "" where none was seen or the connection is not
    among the first, whose windows are kept.
    """
    flow = 2 * (row.number - 1) + row.tight
    if flow >= len(windows.free):
        return ""
    free, flight = windows.free[flow], windows.in_flight[flow]
    seen = free != _NEVER
    if not seen.any():
        return ""
    size = max(int((free[seen].astype(np.int64) + flight[seen]).max()), 1)
    levels: list[str] = []
    for value, known in zip(free.tolist(), seen.tolist(), strict=True):
        if known:
            levels.append(_BARS[-(-value * (len(_BARS) - 1) // size)])
        else:
            levels.append(levels[-1] if levels else " ")
    return "".join(levels[: int(np.flatnonzero(seen)[-1]) + 1])
