"""The command line: exit statuses, errors, pipes and signals."""

import gzip
import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest
from reading import pcap
from running import ALL_CAPTURES, CAPTURES, PROGRAM, TIME_LIMIT_S, environment, run

REFUSED = CAPTURES / "k612_refused.pcap"
NOBODY = 65534


def check_complaint(err: str) -> None:
    """One sentence on stderr."""
    assert err.startswith("vsockdump: ")
    assert err.endswith(".\n")
    assert 1 == err.count("\n")
    assert "Traceback" not in err


def start(*arguments: str | Path, **streams: int) -> subprocess.Popen[bytes]:
    """vsockdump in the background, with pipes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [PROGRAM, *map(str, arguments)], env=environment(), cwd="/", **{**pipes, **streams}
    )


def test_version_says_how_it_was_built() -> None:
    """A version, and compiled or not."""
    result = run("--version")
    assert (0, "") == (result.status, result.err)
    assert result.out.startswith("vsockdump ")
    assert ("(compiled;" in result.out) != ("(pure Python" in result.out)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-r"],
        ["-r", REFUSED, "-i", "vsockmon0"],
        ["-r", REFUSED, "--duration", "5"],
        ["-s", "262145"],
        ["-B", "0"],
        ["-B", "4194304"],
        ["--block-timeout", "60001"],
        ["-r", REFUSED, "-z", "conv,soon"],
        ["-r", REFUSED, "-z", "conv,0"],
        ["-r", REFUSED, "-z", "credit,1,2,3"],
        ["--duration", "never"],
        ["-r", REFUSED, "--no-such-option"],
        ["-r", REFUSED, "-c", "0"],
        ["-r", REFUSED, "-c", "many"],
        ["-r", REFUSED, "-T", "fields"],
        ["-r", REFUSED, "-e", "frame.number"],
        ["-r", REFUSED, "-T", "fields", "-e", "frame.nomber"],
        ["-r", REFUSED, "-T", "fields", "-e", "frame.number", "-E", "quote=d"],
        ["-r", REFUSED, "-z", "nothing"],
        ["-r", REFUSED, "-z", "io"],
        ["-r", REFUSED, "-z", "io,-1"],
        ["-r", REFUSED, "-z", "io,nan"],
        ["-r", REFUSED, "-z", "credit,x"],
        ["-r", REFUSED, "-w", "-", "-z", "conv"],
        ["-r", REFUSED, "--json", "-T", "fields", "-e", "frame.number"],
    ],
    ids=str,
)
def test_wrong_usage(arguments: list[str | Path]) -> None:
    """Exit 2, something said, nothing on stdout."""
    result = run(*arguments)
    assert (2, "") == (result.status, result.out)
    assert "vsockdump: " in result.err
    assert "Traceback" not in result.err


def test_a_misspelt_field_gets_a_hint() -> None:
    """The nearest name is named."""
    assert "vsock.conn" in run("-r", REFUSED, "-T", "fields", "-e", "vsock.con").err


def test_bad_input(tmp_path: Path) -> None:
    """Missing, empty, a directory, a text: a sentence each and exit 1."""
    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.write_bytes(b"")
    text.write_text("Not a capture at all.\n")
    for path in (tmp_path / "missing", empty, text, tmp_path):
        result = run("-r", path)
        assert (1, "") == (result.status, result.out)
        check_complaint(result.err)
        assert str(path) in result.err


def test_no_permission(tmp_path: Path) -> None:
    """A file that this user may not read; root becomes somebody else for it."""
    secret = tmp_path / "secret.pcap"
    secret.write_bytes(REFUSED.read_bytes())
    secret.chmod(0)
    # The first run loads all that is needed, from where only root may read.
    code = (
        "import os, sys\n"
        "from vsockdump.cli import main\n"
        f"main(['-r', {str(REFUSED)!r}, '-w', os.devnull])\n"
        "os.chdir(os.path.dirname(sys.argv[1]))\n"
        f"os.getuid() or os.setuid({NOBODY})\n"
        "sys.exit(main(['-r', os.path.basename(sys.argv[1])]))\n"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [str(Path(PROGRAM).with_name("python")), "-c", code, str(secret)],
        capture_output=True,
        text=True,
        env=environment(),
        cwd="/",
        timeout=TIME_LIMIT_S,
    )
    assert (1, "") == (done.returncode, done.stdout)
    check_complaint(done.stderr)
    assert "may not be read" in done.stderr


def test_a_capture_without_vsock(tmp_path: Path) -> None:
    """An Ethernet capture is not what was meant; vsock beside others is."""
    path = tmp_path / "ethernet.pcap"
    path.write_bytes(pcap(bytes(60), bytes(60), linktype=1))
    result = run("-r", path)
    assert (1, "") == (result.status, result.out)
    check_complaint(result.err)
    assert "link type 1" in result.err


@pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
def test_a_cut_file_shows_what_was_whole(capture: Path, tmp_path: Path) -> None:
    """Cut in the last record: all lines but the last, one sentence with the byte, exit 1."""
    whole = run("-r", capture).out.splitlines()
    content = capture.read_bytes()
    cut = tmp_path / capture.name
    cut.write_bytes(content[:-5])
    result = run("-r", cut)
    expected = whole if capture.suffix == ".pcapng" else whole[:-1]
    assert (1, expected) == (result.status, result.out.splitlines())
    check_complaint(result.err)
    assert " byte " in result.err


def test_compressed_and_stdin() -> None:
    """A gzip capture on stdin prints what the plain file prints."""
    packed = gzip.compress(REFUSED.read_bytes())
    assert run("-r", REFUSED).out == run("-r", "-", stdin=packed).out


def test_growing_stdin_prints_as_packets_arrive() -> None:
    """Every packet is printed before the next is written."""
    content = REFUSED.read_bytes()
    lines = run("-r", REFUSED).out.splitlines(keepends=True)
    with start("-r", "-") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(content[:24])
        for index, line in enumerate(lines):
            at = 24 + index * 92
            process.stdin.write(content[at : at + 92])
            process.stdin.flush()
            assert line == process.stdout.readline().decode()
        process.stdin.close()
        assert 0 == process.wait(TIME_LIMIT_S)


def test_interrupt_finishes_what_was_begun(tmp_path: Path) -> None:
    """^C: the packets so far are written and counted, the statistics printed, exit 0."""
    copy = tmp_path / "copy.pcap"
    content = REFUSED.read_bytes()
    with start("-r", "-", "-P", "-w", copy, "-z", "conv") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(content[: 24 + 2 * 92])
        process.stdin.flush()
        for _ in range(2):
            assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().decode()
        assert 0 == process.wait(TIME_LIMIT_S)
    assert "1 connection;" in rest
    assert content[: 24 + 2 * 92] == copy.read_bytes()


def test_a_reader_that_goes_away_ends_it_silently() -> None:
    """As `| head -1` does."""
    with start("-r", CAPTURES / "k612_many.pcap", "-vv", stdin=subprocess.DEVNULL) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert b"" == process.stderr.read()
        assert process.wait(TIME_LIMIT_S) in (-signal.SIGPIPE, 128 + signal.SIGPIPE, 0)


def test_full_stdout_is_said() -> None:
    """Output that cannot be written: one sentence, exit 1."""
    with Path("/dev/full").open("wb") as full:
        arguments = ("-r", CAPTURES / "k612_many.pcap")
        with start(*arguments, stdin=subprocess.DEVNULL, stdout=full.fileno()) as process:
            assert process.stderr
            check_complaint(process.stderr.read().decode())
            assert 1 == process.wait(TIME_LIMIT_S)


def test_this_machine_is_looked_at() -> None:
    """-D and --doctor say something of any machine, and nothing on stderr."""
    for option in ("-D", "--list-interfaces", "--doctor"):
        result = run(option)
        assert (0, "") == (result.status, result.err)
        assert result.out


def test_no_progress_without_a_terminal() -> None:
    """Nothing but the result goes out where stderr is a pipe."""
    result = run("-r", CAPTURES / "k612_many.pcap", "-z", "conv")
    assert (0, "") == (result.status, result.err)


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    """Reading that takes longer than a second shows how far it is."""
    # The time that the progress bar waits is a constant of the module, shortened here.
    large = tmp_path / "large.pcap"
    records = (CAPTURES / "k612_many.pcap").read_bytes()[24:]
    large.write_bytes((CAPTURES / "k612_many.pcap").read_bytes()[:24] + records * 20)
    code = (
        "import sys, vsockdump.output.progress as p; p._PATIENCE_S = 0.0\n"
        "from vsockdump.cli import main; sys.exit(main())\n"
    )
    ours, theirs = pty.openpty()
    python = str(Path(PROGRAM).with_name("python"))
    with subprocess.Popen(
        [python, "-c", code, "-r", str(large), "-z", "io,0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment(),
        cwd="/",
    ) as process:
        os.close(theirs)
        assert process.stdout
        assert b"68000" in process.stdout.read()
        assert 0 == process.wait(TIME_LIMIT_S)
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert b"Reading" in shown


def test_the_connection_cap() -> None:
    """Beyond --max-connections the oldest are forgotten, and the table says how much it was."""
    arguments = ("-r", CAPTURES / "k612_many.pcap", "--max-connections", "64", "-z", "conv")
    rows = [json.loads(line) for line in run(*arguments, "--json").out.splitlines()]
    assert len(rows) <= 64
    (forgotten,) = re.findall(r"\((\d+) packets", run(*arguments).out)
    assert 3400 == sum(sum(row["packets"]) for row in rows) + int(forgotten)
