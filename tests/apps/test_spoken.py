"""--verify on what is said inside: Wireshark's engine reads the same messages."""

import ssl
from pathlib import Path

import pytest
from running import CAPTURES, run
from talking import split, talk_capture
from test_http import TALK
from test_tls import V12, V13, contexts, pem, talk
from test_verify import changed

RECORDED = Path(__file__).parent / "recorded"
__all__ = ["pem"]  # a fixture


def said(capture: bytes | Path, folder: Path, *options: str) -> list[str]:
    """The report of what is said in a capture; its headers must agree."""
    path = capture if isinstance(capture, Path) else folder / "talk.pcap"
    if isinstance(capture, bytes):
        path.write_bytes(capture)
    result = run("-r", path, "--verify", *options)
    first, *lines = result.out.splitlines()
    assert "no difference" in first
    assert ("", any("only" in line for line in lines)) == (result.err, bool(result.status))
    return lines


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CAPTURES / "k612_http.pcap", "8 application messages (8 of http)"),
        (CAPTURES / "prog_http.pcapng", "8 application messages (8 of http)"),
        (CAPTURES / "prog_ssh.pcapng", "8 application messages (8 of ssh)"),
        (RECORDED / "grpc.pcap", "14 application messages (14 of http2)"),
        (RECORDED / "h2c.pcap", "3 application messages (2 of http, 1 of http2)"),
        (RECORDED / "http2-1.pcap", "6 application messages (6 of http2)"),
        (RECORDED / "http2-2.pcap", "2 application messages (2 of http2)"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_real_programs(path: Path, expected: str, tmp_path: Path) -> None:
    """Every request, response, push, banner and key exchange."""
    (line,) = said(path, tmp_path)
    assert line.startswith(f"{expected}: no difference")


@pytest.mark.parametrize("port", [80, 1024, 70000])
@pytest.mark.parametrize("size", [20, 100_000])
def test_http(port: int, size: int, tmp_path: Path) -> None:
    """On any port, whole and in pieces, with bodies, interim responses and one that just ends."""
    (line,) = said(talk_capture(split(TALK, size), port=port), tmp_path)
    assert line.startswith("13 application messages (13 of http): no difference")


@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
def test_tls(pem: str, version: ssl.TLSVersion, tmp_path: Path) -> None:
    """What can be read of a handshake without its keys."""
    (line,) = said(talk_capture(talk(contexts(pem, version)).turns), tmp_path)
    assert "of tls): no difference" in line


def test_an_alert(pem: str, tmp_path: Path) -> None:
    """A server that is not trusted: the alert says why."""
    both = ssl.create_default_context(), contexts(pem, V12)[1]
    both[0].maximum_version = V12
    turns = talk(both).turns
    (line,) = said(talk_capture(turns), tmp_path)
    assert "of tls): no difference" in line


def test_secrets_give_tshark_no_advantage(pem: str, tmp_path: Path) -> None:
    """What only it could decrypt is not compared."""
    client, server = contexts(pem, V12)
    client.keylog_filename = str(tmp_path / "keys")
    (tmp_path / "a.pcap").write_bytes(talk_capture(talk((client, server)).turns))
    path = tmp_path / "b.pcapng"
    keys = ("--keylog", tmp_path / "keys")
    assert 0 == run("-r", tmp_path / "a.pcap", "-w", path, *keys).status
    (line,) = said(path, tmp_path)
    assert "of tls): no difference" in line


def test_only_the_first_packets(tmp_path: Path) -> None:
    """-c bounds what is said too."""
    (line,) = said(CAPTURES / "k612_http.pcap", tmp_path, "-c", "8")
    assert line.startswith("2 application messages (2 of http): no difference")


@pytest.mark.parametrize(
    "capture",
    [
        talk_capture(TALK[2:], connect=False),
        talk_capture(TALK[2:], lost=[3]),
        talk_capture(TALK[:-2]),
    ],
    ids=["before", "lost", "open"],
)
def test_what_is_not_compared(capture: bytes, tmp_path: Path) -> None:
    """A connection with a gap, or with an open call; it is said."""
    (line,) = said(capture, tmp_path)
    assert line.startswith("not compared: what is said in 1 connection of which bytes, or answers")


def test_differences_are_told(tmp_path: Path) -> None:
    """What the one reads and the other does not, each once; exit status 1."""
    change = """sed '/"http.request.uri"/s/show="\\/big"/show="\\/\\&#27;"/'"""
    result = changed(tmp_path, change, CAPTURES / "k612_http.pcap")
    assert (1, "") == (result.status, result.err)
    _headers, *lines, last = result.out.splitlines()
    assert [
        'connection 1: http "GET /big", says vsockdump only',
        'connection 1: http "GET /\\x1b", says tshark only',
    ] == lines
    assert last.startswith("8 application messages (8 of http): 2 differences")
