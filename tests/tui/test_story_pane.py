"""The pane of the story: the same words as --explain, and the way to the packets."""

from pathlib import Path
from typing import Any

import pytest
from driving import drawn, drive
from looking import CAPTURES, opened, until
from running import lines

from vsockdump.story.text import Pen
from vsockdump.tui.app import VsockApp
from vsockdump.tui.model.story import Telling
from vsockdump.tui.story import StoryView

CASES = Path(__file__).parents[1] / "cases" / "vsock"


@pytest.mark.parametrize(
    ("path", "conn"),
    [
        (CAPTURES / "k612_bulk_stall.pcap", 1),
        (CAPTURES / "k612_http.pcap", 1),
        (CAPTURES / "k612_fakeguest.pcap", 5),
        (CAPTURES / "k612_seqpacket.pcap", 1),
        (CAPTURES / "l2_guest_view.pcap", 1),
        (CAPTURES / "app_grpc.pcapng", 1),
        (CASES / "f10_one_way_stall_for_ever.pcap", 1),
        (CASES / "nC_shutdown_unanswered.pcap", 1),
    ],
)
def test_the_pane_tells_what_the_command_line_tells(path: Path, conn: int) -> None:
    """Line by line, though its packets are read a second time."""
    with opened(path) as capture:
        story = Telling(capture, conn).story(numeric=False)
    assert story is not None
    shown = [line.text for line in Pen(100).lines(story)]
    assert lines("-r", path, "--explain", str(conn)) == shown


def test_it_is_told_again_with_more_packets() -> None:
    """Of a capture that grows, the story goes on where it was."""
    with opened(CAPTURES / "k612_bulk_stall.pcap") as capture:
        telling = Telling(capture, 1)
        once, again = telling.story(numeric=False), telling.story(numeric=False)
    assert once == again


def test_e_opens_the_story_of_a_connection_and_enter_leads_to_a_packet() -> None:
    """From the table of connections, to the packet of the line under the cursor."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("2")
        await until(pilot, lambda: "Initiator" in drawn(app) and app.session.conn == 1)
        await pilot.press("j", "j", "j", "e")
        await until(pilot, lambda: "Connection 4:" in drawn(app))
        view = app.main.pane.query_one(StoryView)
        place = next(at for at, line in enumerate(view._lines) if "closed first" in line.text)
        await pilot.press(*["j"] * place, "enter")
        await until(pilot, lambda: "packets" == app.main.pane.id)
        await until(pilot, lambda: app.session.current == view._lines[place].packet)

    drive("k612_refused.pcap", test, size=(110, 40))


def test_e_on_a_packet_and_on_a_finding() -> None:
    """The connection is that of the row."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("j", "j", "e")
        await until(pilot, lambda: "Connection 2:" in drawn(app))
        await pilot.press("5")
        await until(pilot, lambda: "refused" in drawn(app))
        await pilot.press("space", "j", "j", "j", "e")
        await until(pilot, lambda: "Connection 3:" in drawn(app))

    drive("k612_refused.pcap", test, size=(110, 40))


def test_without_a_connection_it_says_what_to_do() -> None:
    """And with one, names and numbers change with n."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("1", "e")
        await until(pilot, lambda: "Connection 1: local:" in drawn(app))
        await pilot.press("n")
        await until(pilot, lambda: "Connection 1: 1:" in drawn(app))

    drive("k612_refused.pcap", test, size=(60, 24))
