"""--verify: it agrees where it should, sees what differs, and says what is in its way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import ALL_CAPTURES, CAPTURES, TIME_LIMIT_S, Result, environment, run
from test_oracles import edited, with_blocks

from vsockdump.verify.headers import FIELDS

SMALL = CAPTURES / "k612_refused.pcap"


def agrees(path: Path) -> str:
    """The report of a capture in which nothing differs."""
    result = run("-r", path, "--verify")
    assert (0, "") == (result.status, result.err), result.out
    first = result.out.partition("\n")[0]
    assert first.endswith(
        f", {len(FIELDS)} fields each: no difference between tshark and vsockdump"
    )
    return result.out


@pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
def test_all_captures(capture: Path) -> None:
    """Wireshark's engine says the same of every header field."""
    assert not agrees(capture).startswith("0 packets")


@pytest.mark.parametrize("name", ["snaplen-20", "flipped-1", "merged-a", "lengths", "fields-1"])
def test_edited_captures(name: str, tmp_path: Path) -> None:
    """The same where captures are cut, merged and damaged; test_oracles.py has more of these."""
    agrees(edited(name, tmp_path))


def test_known_deviations_are_counted(tmp_path: Path) -> None:
    """With their reasons, which are those of the table."""
    out = agrees(with_blocks(tmp_path / "blocks.pcapng"))
    assert "3 packets, " in out
    assert "known, 3 times: Wireshark shows custom blocks" in out


def test_only_the_first_packets() -> None:
    """-c bounds it."""
    result = run("-r", SMALL, "--verify", "-c", "3")
    assert (0, "3 packets, ") == (result.status, result.out[:11])


# --- what differs ------------------------------------------------------------------------


def changed(folder: Path, program: str, capture: Path = SMALL) -> Result:
    """The report where tshark's answer went through another program."""
    tshark = folder / "tshark"
    tshark.write_text(
        '#!/bin/sh\nPATH=/usr/local/bin:/usr/bin:/bin\ncase "$*" in\n'
        f'  *pdml*) tshark "$@" | {program} ;;\n  *) exec tshark "$@" ;;\nesac\n'
    )
    tshark.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "vsockdump", "-r", capture, "--verify"],
        capture_output=True,
        text=True,
        env=environment(PATH=f"{folder}:{os.environ['PATH']}"),
        cwd="/",
        timeout=TIME_LIMIT_S,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_a_difference_is_told(tmp_path: Path) -> None:
    """Packet, field and both values; exit status 1."""
    result = changed(tmp_path, """sed '/"vsock.virtio.op"/s/show="3"/show="5\\&#27;"/'""")
    *lines, last = result.out.splitlines()
    assert (1, "") == (result.status, result.err)
    assert "packet 2: vsock.virtio.op is 5\\x1b for tshark and 3 for vsockdump" == lines[0]
    assert f", {len(FIELDS)} fields each: {len(lines)} differences between" in last


def test_a_field_that_is_missing(tmp_path: Path) -> None:
    """Nothing is not the same as zero."""
    result = changed(tmp_path, """sed '/"vsock.virtio.fwd_cnt"/d'""")
    assert "packet 1: vsock.virtio.fwd_cnt is missing for tshark and 0 for" in result.out
    assert 1 == result.status


def test_a_packet_that_is_missing(tmp_path: Path) -> None:
    """The ends are compared too."""
    result = changed(tmp_path, "awk '{print} /<\\/packet>/ {if (++n == 5) exit}'")
    assert "tshark has no packet 6, nor any behind it" in result.out
    assert 1 == result.status


def test_without_the_table_the_known_ones_differ() -> None:
    """The table excuses, nothing else does."""
    code = (
        "import sys\n"
        "from vsockdump.cli import main\n"
        "from vsockdump.verify import deviations\n"
        "deviations.DEVIATIONS = ()\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "-r", str(CAPTURES / "k612_any_sll2.pcap"), "--verify"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd="/")
    assert 1 == done.returncode
    assert "packet 1: vsock.src_cid is missing for tshark and " in done.stdout
    assert ": 396 differences between" in done.stdout


# --- what is in the way ------------------------------------------------------------------


def test_a_damaged_file(tmp_path: Path) -> None:
    """What is before the damage is compared, then it is said where that is."""
    path = tmp_path / "cut.pcap"
    path.write_bytes(SMALL.read_bytes()[:-10])
    result = run("-r", path, "--verify")
    assert (1, 1) == (result.status, result.err.count("\n"))
    assert "byte " in result.err
    assert "21 packets, " in result.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--verify",),
        ("--verify", "-r", "-"),
        ("--verify", "-r", str(SMALL), "port", "1"),
        ("--verify", "-r", str(SMALL), "-w", "x"),
        ("--verify", "-r", str(SMALL), "-z", "conv"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    """It takes a file, and goes with nothing else."""
    result = run(*arguments)
    assert (2, "", 1) == (result.status, result.out, result.err.count("\n"))


def test_no_such_file() -> None:
    """As for every -r."""
    expected = (1, "", "vsockdump: /nowhere.pcap does not exist.\n")
    assert expected == run("-r", "/nowhere.pcap", "--verify")


@pytest.mark.parametrize("missing", ["tshark", "pyshark"])
def test_something_is_missing(tmp_path: Path, missing: str) -> None:
    """One sentence that says what to install."""
    settings = {}
    if missing == "tshark":
        settings["PATH"] = str(tmp_path)
    else:
        (tmp_path / "pyshark.py").write_text("raise ImportError")
        settings["PYTHONPATH"] = str(tmp_path)
    command = [sys.executable, "-m", "vsockdump", "-r", SMALL, "--verify"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(**settings), cwd="/"
    )
    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert f"{missing} is missing" in done.stderr
    assert "install" in done.stderr


def test_settings_and_plugins_of_the_user_do_not_count(tmp_path: Path) -> None:
    """The engine speaks for Wireshark, whatever the user has added."""
    plugins = tmp_path / ".local/lib/wireshark/plugins"
    plugins.mkdir(parents=True)
    (plugins / "x.lua").write_text(
        'DissectorTable.get("wtap_encap"):add(wtap_encaps.VSOCK, Proto("other", "Other"))\n'
    )
    command = [sys.executable, "-m", "vsockdump", "-r", SMALL, "--verify"]
    settings = environment(HOME=str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, env=settings, cwd="/")
    assert (0, "") == (done.returncode, done.stderr)
