"""--follow and --extract while packets come: shown at once, and whole at the end."""

import json
from pathlib import Path

from listening import Listening
from network import Network
from scenario import build_frame

from vsockdump.address import Endpoint
from vsockdump.wire import Op, Shutdown

GUEST, HOST, OTHER = Endpoint(3, 1024), Endpoint(2, 5000), Endpoint(3, 1025)
BOTH = {"flags": int(Shutdown.RCV | Shutdown.SEND)}


def dialogue(guest: Endpoint, *payloads: bytes) -> list[bytes]:
    """A connection whose ends take turns, the guest first, until the guest closes it."""
    frames = [build_frame(guest, HOST, Op.REQUEST), build_frame(HOST, guest, Op.RESPONSE)]
    for at, data in enumerate(payloads):
        ends = (HOST, guest) if at % 2 else (guest, HOST)
        frames.append(build_frame(*ends, Op.RW, data))
    return [*frames, build_frame(guest, HOST, Op.SHUTDOWN, virtio=BOTH)]


def test_follow_shows_what_is_said_at_once(network: Network) -> None:
    """Each side before the other answers; ^C ends it."""
    first, second = dialogue(OTHER, b"not this\n"), dialogue(GUEST, b"hello\n", b"hi\n", b"bye\n")
    with Listening(network, "--follow", "2") as listening:
        network.send(*first, *second[:3])
        listening.wait_for(b"> hello\n", "out")
        network.send(second[3])
        listening.wait_for(b"< hi\n", "out")
        network.send(*second[4:])
        listening.wait_for(b"neither sends nor receives any more\n", "out")
        result = listening.end()
    assert 0 == result.status
    assert [
        "* connection 2, STREAM",
        "* > initiator guest 3:1024",
        "* < acceptor host:5000",
        "> hello",
        "< hi",
        "> bye",
        "* the initiator neither sends nor receives any more",
    ] == result.out.splitlines()


def test_follow_of_a_connection_that_never_came(network: Network) -> None:
    """One sentence, exit status 1."""
    with Listening(network, "--follow", "2") as listening:
        network.send(*dialogue(OTHER, b"x"))
        result = listening.end()
    assert (1, "") == (result.status, result.out)
    assert "has no connection 2, only 1 connection" in result.err


def test_extract_is_whole_after_an_interrupt(network: Network, tmp_path: Path) -> None:
    """Chosen by what comes late, without a file to read again."""
    wanted = dialogue(GUEST, b"first ", b"answer", b"second ", b"late word")
    with Listening(network, "--extract", tmp_path, "payload", "contains", "late") as listening:
        network.send(*dialogue(OTHER, b"not this\n"), *wanted)
        result = listening.end()
    assert (0, "") == (result.status, result.out)
    streams = json.loads((tmp_path / "index.json").read_text())["streams"]
    found = {stream["side"]: (tmp_path / stream["file"]).read_bytes() for stream in streams}
    assert {"initiator": b"first second ", "acceptor": b"answerlate word"} == found


def test_a_story_is_told_when_the_capture_ends(network: Network) -> None:
    """As of then, the connection being open; and in between where that is asked for."""
    packets = dialogue(GUEST, b"hello\n", b"hi\n")[:-1]
    with Listening(network, "-z", "story,1,0.2") as listening:
        network.send(*packets[:3])
        listening.wait_for(b"sent 6 bytes", "out")
        network.send(packets[3])
        listening.wait_for(b"sent 3 bytes", "out")
        result = listening.end()
    assert 0 == result.status
    last = result.out.rpartition("Connection 1: ")[2]
    assert "As of the end of the capture the connection was open" in last
    assert "Its 4 packets" in last
