"""--keylog: TLS secrets in the file, before the packets that they are for."""

import struct
from pathlib import Path

import pytest
from blocks import ORDERS, SECRETS, SECTION, custom, enhanced, interface, pieces, secrets, section
from reading import FRAME, frames, pcapng
from running import CAPTURES, run, run_bytes

from vsockdump.output.secrets import MOST, Secret, Secrets, SecretsError
from vsockdump.output.secrets import TLS_KEY_LOG as TLS

HTTP = CAPTURES / "k612_http.pcap"
LINE = f"CLIENT_RANDOM {'ab' * 32} {'CD' * 48}"
OTHER = f"SERVER_TRAFFIC_SECRET_0 {'01' * 32} {'23' * 32}"


def kinds(data: bytes) -> list[int]:
    """The types of a little-endian file's blocks."""
    return [struct.unpack_from("<I", data, piece.start)[0] for piece in pieces(data)]


def written(data: bytes) -> list[bytes]:
    """The contents of the secrets blocks, of either byte order."""
    found, order = [], "<"
    for piece in pieces(data):
        if data[piece.start : piece.start + 4] == struct.pack("<I", SECTION):
            order = "<" if data[piece.start + 8] == 0x4D else ">"
        kind, _size, what, size = struct.unpack_from(order + "IIII", data, piece.start)
        if kind == SECRETS:
            assert what == TLS
            found.append(data[piece.start + 16 : piece.start + 16 + size])
    return found


def log(folder: Path, text: str) -> Path:
    """A key log."""
    path = folder / "keys"
    path.write_bytes(text.encode("latin-1"))
    return path


def test_what_a_log_may_hold(tmp_path: Path) -> None:
    """Comments, empty lines, CR LF, no end of the last line; only secrets are written."""
    rsa = f"RSA {'0a' * 8} {'0b' * 48}"
    session = f"RSA Session-ID:{'0c' * 32} Master-Key:{'0d' * 48}"
    keys = log(tmp_path, f"# made by\xff\n\n{LINE}\r\n{rsa}\n  \n{session}\n{OTHER}")
    status, out, err = run_bytes("-r", HTTP, "--keylog", keys, "-w", "-")
    assert (0, b"") == (status, err)
    assert "\n".join([LINE, rsa, session, OTHER, ""]).encode() == b"".join(written(out))
    assert [SECTION, 1, SECRETS, SECRETS] + [6] * 30 == kinds(out)


@pytest.mark.parametrize(
    "text",
    [
        f"{LINE}\nCLIENT_RANDOM {'ab' * 32} secret",
        f"{LINE}\nCLIENT_RANDOM {'ab' * 31} {'cd' * 48}",
        f"{LINE}\nCLIENT_RANDOM {'ab' * 32}",
        f"{LINE}\nclient_random {'ab' * 32} {'cd' * 48}",
        f"{LINE}\n\x1b[31mCLIENT_RANDOM",
        f"{LINE}\n-----BEGIN PRIVATE KEY-----\nMIIEvQ",
        f"{LINE}\n" + "a" * 10_000_000,
    ],
    ids=lambda text: text[len(LINE) :][1:20],
)
def test_a_line_that_is_not_understood(text: str, tmp_path: Path) -> None:
    """One sentence that names the line and shows nothing of it; no file is begun."""
    keys = log(tmp_path, text)
    result = run("-r", HTTP, "--keylog", keys, "-w", tmp_path / "out.pcapng")
    sentence = (
        f"vsockdump: Line 2 of {keys} is not one of a TLS key log: a label, client random and"
        " secret in hexadecimal.\n"
    )
    assert (2, "", sentence) == result
    assert not (tmp_path / "out.pcapng").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing", "The key log {} cannot be read: no such file or directory."),
        (".", "The key log {} is not a plain file."),
        ("empty", "{} has no TLS secrets; give the file of SSLKEYLOGFILE."),
    ],
)
def test_a_log_that_cannot_be_used(name: str, sentence: str, tmp_path: Path) -> None:
    """One sentence."""
    (tmp_path / "empty").write_text("# nothing\n")
    path = tmp_path / name
    result = run("-r", HTTP, "--keylog", path, "-w", tmp_path / "out.pcapng")
    assert (2, "", f"vsockdump: {sentence.format(path)}\n") == result


def test_pcap_has_no_place_for_secrets(tmp_path: Path) -> None:
    """Said before anything is written."""
    result = run("-r", HTTP, "--keylog", log(tmp_path, LINE), "-w", tmp_path / "out.pcap")
    assert (1, "") == (result.status, result.out)
    assert "would be a pcap file, which holds no secrets; give it the suffix" in result.err
    assert not (tmp_path / "out.pcap").exists()


@pytest.mark.parametrize("order", ORDERS)
def test_every_section_has_them(order: str, tmp_path: Path) -> None:
    """Beside the secrets that the source has; in the byte order of the section."""
    one = [section(order), secrets(order, b"theirs\n"), interface(order), enhanced(order, FRAME)]
    source = tmp_path / "source.pcapng"
    source.write_bytes(b"".join([*one, *one]))
    _status, out, err = run_bytes("-r", source, "--keylog", log(tmp_path, LINE), "-w", "-")
    assert b"" == err
    assert 2 * [b"theirs\n", f"{LINE}\n".encode()] == written(out)
    ours = [data for data in map(out.__getitem__, _slices(out)) if LINE.encode() in data]
    assert source.read_bytes() == out.replace(ours[0], b"")


def _slices(data: bytes) -> list[slice]:
    return [slice(piece.start, piece.end) for piece in pieces(data)]


def test_every_file_has_them(tmp_path: Path) -> None:
    """Ours and those of the source."""
    source = tmp_path / "source.pcapng"
    source.write_bytes(pcapng(secrets("<", b"theirs\n"), custom("<"), *frames(7)))
    (tmp_path / "out").mkdir()
    keys = log(tmp_path, LINE)
    run("-r", source, "--keylog", keys, "-w", tmp_path / "out" / "x.pcapng", "-b", "packets:3")
    files = sorted((tmp_path / "out").iterdir())
    expected = [b"theirs\n", f"{LINE}\n".encode()]
    assert [expected] * 3 == [written(path.read_bytes()) for path in files]


def test_a_log_that_grows(tmp_path: Path) -> None:
    """Whole lines only; a wrong one is said at the end and ends nothing."""
    keys = log(tmp_path, "")
    held = Secrets(str(keys), grows=True)
    assert [] == held.entries()
    with keys.open("ab", buffering=0) as file:
        file.write(LINE[:100].encode())
        assert [] == held.entries()
        file.write(f"{LINE[100:]}\n{OTHER}\n".encode())
        assert [(TLS, f"{LINE}\n{OTHER}\n".encode())] == held.entries()
        assert [] == held.remarks()
        file.write(b"nonsense\n" + OTHER.encode() + b"\n")
    assert 1 == len(held.entries())
    (remark,) = held.remarks()
    assert remark.startswith(f"Line 3 of {keys} is not one")


def test_secrets_have_a_limit(tmp_path: Path) -> None:
    """What is beyond is refused, or counted where a capture runs."""
    keys = log(tmp_path, (LINE + "\n") * (MOST // len(LINE) + 1))
    with pytest.raises(SecretsError, match="more than 16 MiB of secrets"):
        Secrets(str(keys))
    held = Secrets()
    for size in (MOST - 5, 6, 5):
        held.add(Secret(TLS, bytes(size)))
    assert [MOST - 5, 5] == [len(entry.data) for entry in held.entries()]
    assert ["6 bytes of secrets were left out"] == [
        remark.partition(":")[0] for remark in held.remarks()
    ]
