"""Captures rebuilt from reports about many implementations: what is said of each, and what not.

tests/cases/vsock/expected.toml has the expectations and says how they are written.  The script
for Wireshark is held to the same.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import wireshark
from running import lines, tool
from wireshark import TRACKED, ours

from vsockdump.findings.registry import lookup
from vsockdump.findings.rule import Severity

FOLDER: Final = Path(__file__).parent / "cases" / "vsock"
EXPECTED: Final = tomllib.loads((FOLDER / "expected.toml").read_text())
CAPTURES: Final = sorted(FOLDER.glob("*.pcap*"))
CHECKS: Final = [
    pytest.param(FOLDER / name, check, id=f"{name}-{number}")
    for name, case in EXPECTED.items()
    for number, check in enumerate(case["checks"])
]


def rows(capture: Path, statistic: str) -> list[dict[str, Any]]:
    """The rows of a statistic."""
    return [json.loads(line) for line in lines("-r", capture, "-z", statistic, "--json")]


def holds(value: Any, wanted: Any) -> bool:
    """Whether a value is as expected; lists of JSON are compared by their text."""
    if isinstance(wanted, str) and wanted.startswith("~"):
        text = value if isinstance(value, str) else json.dumps(value)
        return re.search(wanted[1:], text) is not None
    if isinstance(wanted, list) and isinstance(value, int | float):
        return bool(wanted[0] <= value <= wanted[1])
    return bool(value == wanted)


def fits(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a row has all the values."""
    return all(name in row and holds(row[name], value) for name, value in wanted.items())


def told(capture: Path, check: dict[str, Any]) -> None:
    """One check."""
    match check:
        case {"finding": name} | {"no_finding": name}:
            full = lookup(name).name
            found = [row for row in rows(capture, "findings") if row.get("finding") == full]
            hits = [row for row in found if fits(row, check.get("has", {}))]
            assert bool(hits) == ("finding" in check), found
        case {"quiet": severity}:
            least = Severity[severity.upper()]
            found = [row for row in rows(capture, "findings") if "severity" in row]
            assert [] == [row for row in found if Severity[row["severity"].upper()] >= least]
        case {"row": name, "has": wanted}:
            found = [row for row in rows(capture, name) if fits(row, check.get("where", {}))]
            assert any(fits(row, wanted) for row in found), found
        case {"no_row": name}:
            assert [] == [row for row in rows(capture, name) if fits(row, check.get("where", {}))]
        case {"run": arguments}:
            said = "\n".join(lines("-r", capture, *arguments))
            wanted = check.get("text") or check["not"]
            assert bool(re.search(wanted, said, re.DOTALL | re.MULTILINE)) == ("text" in check), (
                said
            )
        case _:
            raise ValueError(check)


@pytest.mark.parametrize(("capture", "check"), [c for c in CHECKS if "tcp" not in c.values[1]])
def test_what_is_said(capture: Path, check: dict[str, Any]) -> None:
    """Findings, rows of statistics, lines."""
    told(capture, check)


@pytest.mark.parametrize(("capture", "check"), [c for c in CHECKS if "tcp" in c.values[1]])
def test_what_the_export_says(capture: Path, check: dict[str, Any], tmp_path: Path) -> None:
    """tshark's own analysis of the windows of the TCP that stands for it."""
    exported = tmp_path / "tcp.pcapng"
    lines("-r", capture, "--export", "tcp", "-w", exported)
    assert check["packets"] == len(tool("tshark", "-r", exported, "-Y", check["tcp"]).splitlines())


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.name)
def test_the_script_for_wireshark_says_the_same(capture: Path) -> None:
    """Connection, state, true bytes, credit and marks of every packet."""
    theirs = wireshark.fields(capture, TRACKED)
    wrong = [pair for pair in zip(ours(capture), theirs, strict=True) if pair[0] != pair[1]]
    assert [] == wrong[:3]


def test_every_capture_is_expected_something_of() -> None:
    """Each is in the table, but for the one that has a test of its own."""
    names = {path.name for path in CAPTURES}
    assert EXPECTED.keys() <= names
    assert {"own-buffer-older-kernel.pcapng"} == names - EXPECTED.keys()


def test_a_sender_beyond_its_own_buffer_waits_for_nothing() -> None:
    """12 packets of 64 KiB at once, twice: the receiver's 1 MiB is all that counts."""
    capture = FOLDER / "own-buffer-older-kernel.pcapng"
    assert [] == rows(capture, "stalls")
    frees = [int(line.rsplit("free ", 1)[1].split()[0]) for line in lines("-r", capture, "op rw")]
    assert 262144 in frees
    assert min(frees) > 0


@pytest.mark.parametrize(
    ("name", "asked", "conns"),
    [
        ("f2_other_connection_goes_on", "finding stall", [1]),  # it goes on
        ("f2_other_connection_goes_on", "finding warn", [1]),  # for so long that it is one
        ("f2_other_connection_goes_on", "stalled", [1]),
        ("f9_restored_and_dropped", "finding connect.still_open", [2]),
        ("f9_restored_and_dropped", "finding unanswered and port 5101", []),
        ("f9_restored_and_accepted", "finding reopened", [2]),
        ("f1_linux_stops_at_own_64k", "finding stall", [1]),
        ("f1_vmm_64k_to_guest_256k", "finding stall or finding own-buffer or stalled", []),
        ("f5_vhost_guest3_to_guest4", "finding address.unrouted", [2]),
    ],
)
def test_a_filter_asks_for_what_the_tables_say(name: str, asked: str, conns: list[int]) -> None:
    """Also of what only the end tells, and not of what was taken back."""
    said = lines("-r", FOLDER / f"{name}.pcap", "-z", "conv", "--json", asked)
    found = [row["conn"] for row in map(json.loads, said) if row["z"] == "conv"]
    assert conns == found
