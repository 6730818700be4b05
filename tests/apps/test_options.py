"""The options of the application layer, as a user meets them."""

import os
import subprocess
from pathlib import Path

import pytest
from running import CAPTURES, PROGRAM, lines, run

HTTP = CAPTURES / "k612_http.pcap"


def said(*options: str) -> list[str]:
    return [line.partition("  ")[2] for line in lines("-r", HTTP, *options) if "  " in line]


def test_messages_stand_in_the_lines_where_they_are_complete() -> None:
    assert len(said()) == 8
    assert said("-q") == said("--decode", "none") == []


def test_a_port_can_be_given_another_protocol_or_none() -> None:
    assert said("--decode", "80=raw") == []
    assert len(said("--decode", "80=http")) == 8
    assert any(line.startswith("[ssh: ") for line in said("--decode", "80=ssh"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--decode", "80"], "--decode takes PORT=PROTOCOL"),
        (["--decode", "4294967296=http"], "--decode takes PORT=PROTOCOL"),
        (["--decode", "80=htttp"], "There is no protocol htttp; did you mean http?"),
        (["--decode", "none", "--decode", "80=http"], "--decode none decodes nothing"),
        (["--decode", "none", "-z", "rpc"], "--decode none leaves out"),
        (["--decode", "none", "proto http"], "--decode none leaves out"),
        (["--decode", "none", "-T", "fields", "-e", "vsock.app.size"], "--decode none leaves out"),
        (["-z", "apps,x"], "-z apps,x is to be shown again every x seconds"),
        (["-z", "rpc,fastest"], "-z rpc,fastest is to be shown again"),
    ],
)
def test_wrong_usage(options: list[str], complaint: str) -> None:
    result = run("-r", HTTP, *options)
    assert result.status == 2
    assert complaint in result.err


def test_count_stops_at_a_message() -> None:
    """The tracker that runs ahead for -c knows the application layer too."""
    assert len(lines("-r", HTTP, "-c", "2", 'vsock.app.kind contains "response"')) == 2


def test_filters_choose_by_protocol() -> None:
    with_http = lines("-r", HTTP, "proto http")
    assert 8 < len(with_http) < len(lines("-r", HTTP))
    assert with_http == lines("-r", HTTP, "vsock.app.protocol")
    assert lines("-r", HTTP, "proto ssh") == []
    slow = lines("-r", HTTP, "vsock.app.time > 0.01")
    assert len(slow) == 1
    assert "200 OK" in slow[0]


def test_packages_add_protocols(tmp_path: Path) -> None:
    """By entry points; one that cannot be loaded costs a sentence."""
    (tmp_path / "shouting.py").write_text(
        """
from vsockdump.apps.message import Message
from vsockdump.apps.protocol import CERTAIN, Parser, Protocol

class Shouting(Parser):
    def messages(self, stream):
        while True:
            yield Message("shouting", (yield from stream.some()).decode().upper()[:5])

PROTOCOL = Protocol("shouting", "Shouting", Shouting, lambda opening: CERTAIN * any(opening.data))
"""
    )
    info = tmp_path / "shouting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[vsockdump.protocols]\nshouting = shouting:PROTOCOL\nabsent = absent:PROTOCOL\n"
        "wrong = shouting:Shouting\n"
    )
    done = subprocess.run(
        [PROGRAM, "-r", HTTP, "-c", "3", "--decode", "80=shouting"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "shouting GET /" in done.stdout
    assert done.stderr.splitlines() == [
        "vsockdump: the protocol absent cannot be loaded: ModuleNotFoundError: No module named"
        " 'absent'.",
        "vsockdump: the protocol wrong is left out: it is no vsockdump.apps.protocol.Protocol.",
    ]
