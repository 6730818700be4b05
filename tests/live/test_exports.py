"""--export and --keylog while packets come: written at once, and readable at any time."""

from pathlib import Path

from listening import Listening, counts
from network import Network
from segments import lines_of, made, segments
from test_secrets import LINE, OTHER, written
from test_streams import GUEST, HOST, dialogue

FRAMES = dialogue(GUEST, b"hello\n", b"hi\n")


def test_tcp_is_written_as_it_comes(network: Network, tmp_path: Path) -> None:
    """The connection's packets up to now, while it goes on; the end has the kernel's counts."""
    path = tmp_path / "live.pcapng"
    with Listening(network, "--export", "tcp", "-w", path, "--print") as listening:
        network.send(*FRAMES[:3])
        listening.wait_for(b"RW 6", "out")
        found = segments(path.read_bytes())
        assert (">", "PSH ACK", 1, 1, 6) == lines_of(found, GUEST)[-1]
        network.send(*FRAMES[3:])
        listening.wait_for(b"SHUTDOWN", "out")
        result = listening.end()
    assert (0, len(FRAMES)) == (result.status, counts(result.err)[0])
    found = segments(path.read_bytes())
    assert [b"hello\n", b"hi\n"] == [one.data for one in found if one.data]
    assert "FIN ACK" == found[-1].flags
    assert {GUEST, HOST} == {one.src for one in found}


def test_secrets_that_are_logged_meanwhile(network: Network, tmp_path: Path) -> None:
    """Each stands before the packets that are written after it."""
    path, keys = tmp_path / "live.pcapng", tmp_path / "keys"
    keys.write_text("")
    with Listening(network, "-w", path, "--keylog", keys, "--print") as listening:
        network.send(FRAMES[0])
        listening.wait_for(b"REQUEST", "out")
        assert [] == written(path.read_bytes())
        with keys.open("a") as log:
            log.write(f"{LINE}\n")
        network.send(FRAMES[1])
        listening.wait_for(b"RESPONSE", "out")
        with keys.open("a") as log:
            log.write(f"{OTHER}\nnonsense\n")
        network.send(FRAMES[2])
        listening.wait_for(b"RW", "out")
        result = listening.end()
    assert [f"{LINE}\n".encode(), f"{OTHER}\n".encode()] == written(path.read_bytes())
    assert f"Line 3 of {keys} is not one of a TLS key log" in result.err
    assert 3 == len(made(path.read_bytes()))
