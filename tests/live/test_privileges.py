"""Least privilege: what a capture still may do while it reads packets, and whose its files are."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from listening import Listening
from network import Network
from running import run
from test_live import REQUEST, written

NOBODY = 65534
BY_SUDO = {"SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY), "SUDO_USER": "nobody"}
ROOT_WRITES = 1 << 1  # CAP_DAC_OVERRIDE


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of nobody's, in one that all may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        os.chown(made, NOBODY, NOBODY)
        yield Path(made)


def status(pid: int) -> dict[str, list[str]]:
    """/proc/PID/status: the words of each line by its name."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: words.split() for name, _, words in (line.partition(":") for line in lines)}


def check_capabilities(found: dict[str, list[str]], left: int) -> None:
    """All sets are empty but for `left`, and nothing can be gained."""
    for name in ("CapInh", "CapAmb", "CapBnd"):
        assert 0 == int(found[name][0], 16)
    for name in ("CapPrm", "CapEff"):
        assert left == int(found[name][0], 16)
    assert ["1"] == found["NoNewPrivs"]


@pytest.mark.parametrize("how", ["-Z", "sudo"])
def test_another_user(network: Network, folder: Path, how: str) -> None:
    """With -Z, or through sudo, the capture is that user's, and so is the file."""
    path = folder / "a.pcapng"
    arguments = ("-Z", "nobody") if how == "-Z" else ()
    settings = BY_SUDO if how == "sudo" else {}
    with Listening(network, "-w", path, "--print", *arguments, **settings) as listening:
        assert b"as user nobody" in listening.err
        network.send(REQUEST)
        listening.wait_for(b"REQUEST", "out")
        found = status(listening.process.pid)
        assert [str(NOBODY)] * 4 == found["Uid"] == found["Gid"]
        assert "0" not in found["Groups"]
        check_capabilities(found, 0)
        assert 0 == listening.end().status
    assert NOBODY == path.stat().st_uid == path.stat().st_gid
    assert [REQUEST] == [packet[1] for packet in written(path)]


def test_root_stays_without_rights(network: Network, folder: Path) -> None:
    """Root without sudo stays root, for its files, but may do nothing else that root may."""
    with Listening(network, "-w", folder / "a.pcap") as listening:
        found = status(listening.process.pid)
        assert ["0"] * 4 == found["Uid"]
        check_capabilities(found, ROOT_WRITES)
        assert 0 == listening.end().status


def test_root_in_the_name_of_sudo_is_asked_for(network: Network) -> None:
    """-Z root keeps root's files within reach, though sudo was used."""
    with Listening(network, "-Z", "root", **BY_SUDO) as listening:
        assert ["0"] * 4 == status(listening.process.pid)["Uid"]
        listening.end()


def test_every_output_works_without_root(network: Network, folder: Path) -> None:
    """Nothing is loaded late from where only root may read."""
    views = (("-vvv",), ("--json",), ("-T", "fields", "-e", "vsock.conn"))
    tables = (("-z", "conv,0.1"), ("-z", "credit"), ("-z", "endpoints"), ("-z", "io,1"))
    for output in (*views, *tables, ("-w", folder / "a.pcap"), ()):
        with Listening(network, "-Z", "nobody", *output) as listening:
            if output:
                network.send(REQUEST)
            result = listening.end()
        assert 0 == result.status
        assert "Error" not in result.err


def test_who_is_not_there(network: Network) -> None:
    """-Z with an unknown user is refused before anything is captured."""
    result = run("-i", network.name, "-Z", "no-such-user")
    assert (1, "") == (result.status, result.out)
    assert result.err == "vsockdump: There is no user no-such-user; give another one to -Z.\n"


def test_a_file_is_read_by_another_user(folder: Path) -> None:
    """-Z holds for -r too: the file is opened first."""
    captures = Path(__file__).parents[2] / "captures"
    secret = folder / "secret.pcap"
    secret.write_bytes((captures / "k612_refused.pcap").read_bytes())
    secret.chmod(0o600)
    result = run("-r", secret, "-Z", "nobody", "-c", "1")
    assert (0, 1, "") == (result.status, result.out.count("\n"), result.err)
    closed = folder / "closed"
    closed.mkdir(0o700)
    refused = run("-r", secret, "-Z", "nobody", "-w", closed / "copy.pcap")
    assert 1 == refused.status
    hint = "permission denied for user nobody; -Z root keeps root's rights."
    assert refused.err == f"vsockdump: Cannot write {closed / 'copy.pcap'}: {hint}\n"
