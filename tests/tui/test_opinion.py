"""What Wireshark's engine says of a packet, beside what we say."""

import subprocess
from typing import Any

import pytest
from driving import drawn, drive
from looking import CAPTURES, opened, until

from vsockdump.tui.app import VsockApp
from vsockdump.tui.model import wireshark
from vsockdump.tui.model.details import Node


def lines(node: Node) -> list[str]:
    """The labels of a branch and of all below it."""
    return [node.label, *(line for child in node.children for line in lines(child))]


def test_it_says_what_tshark_says() -> None:
    """Layers and fields, and where they stand in the packet."""
    with opened(CAPTURES / "k612_http.pcap") as capture:
        said = wireshark.says(capture, 3)
    (vsock,) = said.children
    assert "Wireshark: vsock" == vsock.label
    assert "Operation: Payload (4)" in lines(vsock)
    assert [(56, 4)] == [
        (node.start, node.size) for node in vsock.children if node.label.startswith("Length: ")
    ]
    assert any(label.startswith("Payload") for label in lines(vsock)), lines(vsock)


def test_why_it_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence, of whatever is in the way."""
    with opened(CAPTURES / "k612_http.pcap") as capture:
        monkeypatch.setenv("PATH", "/nonexistent")
        assert "tshark is missing" in wireshark.says(capture, 1).value
        monkeypatch.undo()
        monkeypatch.setattr(wireshark.sys, "executable", "/nonexistent")
        assert "cannot be asked" in wireshark.says(capture, 1).value
        monkeypatch.undo()

        def slow(*_command: object, **_settings: object) -> None:
            raise subprocess.TimeoutExpired("tshark", 30)

        monkeypatch.setattr(subprocess, "run", slow)
        assert "did not answer" in wireshark.says(capture, 1).value


def test_it_is_asked_in_the_background() -> None:
    """v asks; the tree has the answer when it comes, and no longer with another packet."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("v")
        await until(pilot, lambda: "Wireshark: vsock" in drawn(app))
        assert "Operation: Connect (1)" in drawn(app)
        await pilot.press("j")
        await until(pilot, lambda: "Wireshark:" not in drawn(app))
        assert "2/30 packets" in drawn(app)

    drive("k612_http.pcap", test, size=(100, 45))
