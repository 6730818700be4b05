"""Every call of Wireshark to the extcap, its answers, and arguments that are refused."""

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from running import TIME_LIMIT_S, environment

from vsockdump.extcap import plan
from vsockdump.extcap.control import Command, Control, Field, message
from vsockdump.extcap.errors import ExtcapError
from vsockdump.extcap.options import OPTIONS, Request, request
from vsockdump.extcap.plan import Tools
from vsockdump.extcap.script import script

SCRIPT = Path(__file__).parent.parent / "dissectors" / "vsockdump-extcap"
SSH = ("--extcap-interface", "vsockdump-ssh")
HERE = ("--extcap-interface", "vsockdump")
REQUEST = Request("", "", "0", "32768")


def call(*arguments: str | Path, **settings: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a call to the extcap."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "vsockdump.extcap", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(**settings),
        cwd="/",
        timeout=TIME_LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def answer(*arguments: str) -> list[tuple[str, dict[str, str]]]:
    """(word, values) of each line of an answer, read as Wireshark reads them."""
    status, out, err = call(*arguments)
    assert (0, "") == (status, err)
    lines = []
    for line in out.splitlines():
        word, _, rest = line.partition(" ")
        values = re.findall(r"\{(\w+)=([^{}]*)\}", rest)
        assert rest == "".join(f"{{{name}={value}}}" for name, value in values)
        lines.append((word, dict(values)))
    return lines


# --- questions ---------------------------------------------------------------------------


def test_interfaces() -> None:
    """This machine and ssh always; a version; controls with numbers of their own."""
    lines = answer("--extcap-interfaces", "--extcap-version=4.0")
    shown = {values["value"]: values["display"] for word, values in lines if word == "interface"}
    assert "vsock monitor: this machine" == shown["vsockdump"]
    assert "vsock monitor over SSH" == shown["vsockdump-ssh"]
    assert ["extcap"] == [word for word, values in lines if "version" in values]
    numbers = [values["number"] for word, values in lines if word == "control"]
    assert [str(int(field)) for field in Field] == numbers


@pytest.mark.parametrize("interface", ["vsockdump", "vsockdump-on-vsockmon0", "vsockdump-ssh"])
def test_link_type(interface: str) -> None:
    """271 for every interface."""
    ((word, values),) = answer("--extcap-dlts", "--extcap-interface", interface)
    assert ("dlt", "271", "VSOCK") == (word, values["number"], values["name"])


@pytest.mark.parametrize(("interface", "ssh"), [(HERE, False), (SSH, True)])
def test_options(interface: tuple[str, str], ssh: bool) -> None:
    """All options that the command line takes, those of ssh only there."""
    lines = answer("--extcap-config", *interface)
    assert {"arg"} == {word for word, _values in lines}
    expected = {option.call for option in OPTIONS if ssh or not option.ssh_only}
    assert expected == {values["call"] for _word, values in lines}
    assert [str(number) for number in range(len(lines))] == [v["number"] for _word, v in lines]
    for _word, values in lines:
        if "validation" in values:
            assert re.fullmatch(values["validation"], values.get("default", ""))


@pytest.mark.parametrize("text", ["", " ", "port 1024 and op rw", 'payload contains "GET /"'])
def test_a_good_filter(text: str) -> None:
    """Wireshark takes silence as consent."""
    assert (0, "", "") == call(*HERE, "--extcap-capture-filter", text)


@pytest.mark.parametrize(
    ("text", "says"),
    [("prt 5", "Did you mean port?"), ("port", "expected"), ("\udcff\x1b[2J", ""), ("(", "")],
)
def test_a_wrong_filter(text: str, says: str) -> None:
    """One printable line that says what is wrong; the status is 0, or it would not be shown."""
    status, out, err = call(*HERE, "--extcap-capture-filter", text)
    assert (0, 1, "") == (status, out.count("\n"), err)
    assert says in out
    assert out.strip().isprintable()


def test_a_newer_wireshark() -> None:
    """What only Wireshark adds and we do not know is no reason to fail."""
    assert 0 == call(*HERE, "--extcap-dlts", "--extcap-cleanup-postkill=1")[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give --extcap-interfaces"),
        (HERE, "nothing is asked"),
        (("--nonsense",), "unknown argument: --nonsense"),
        (("--extcap-config", "--extcap-interface", "eth0"), "there is no interface 'eth0'"),
        (("--extcap-config", "--extcap-interface", "vsockdump-on-"), "there is no interface"),
        ((*HERE, "--capture"), "--capture needs --fifo"),
        ((*HERE, "--capture", "--fifo", "/nowhere/fifo"), "cannot open /nowhere/fifo: no such"),
        ((*SSH, "--capture", "--fifo", "/dev/null"), "Host is missing"),
    ],
)
def test_wrong_calls(arguments: tuple[str, ...], says: str) -> None:
    """One sentence on stderr, nothing on stdout."""
    status, out, err = call(*arguments)
    assert status in (1, 2)
    assert ("", 1) == (out, err.count("\n"))
    assert says in err


# --- options -----------------------------------------------------------------------------

VALUES = {option.name: option.kind == "boolflag" or "" for option in OPTIONS}


def test_defaults() -> None:
    """Empty values, which Wireshark may pass, are the defaults."""
    assert Request("", "", "0", "32768", True, True) == request("vsockdump", VALUES, "")
    wanted = request("vsockdump-ssh", {**VALUES, "host": "::1"}, "op rw")
    assert ("vsockdump", "0", "::1") == (wanted.command, wanted.port, wanted.host)
    assert "vsk0" == request("vsockdump-on-vsk0", VALUES, "").device


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("host", text) for text in ("-oProxyCommand=id", "a b", "a;id", "a\nb", "$(id)", "u@h")),
        *(("user", text) for text in ("-l", "a b", "`id`", "a'b")),
        *(("command", text) for text in ("-x", "a b", "a;b", "~/x", "$HOME/x", "a\nb", "é")),
        *(("port", text) for text in ("65536", "-1", "22 ", "x", "٣", "2²")),
        *(("snaplen", text) for text in ("-1", "262145", "1e3")),
        *(("buffer", text) for text in ("0", "9999999")),
    ],
)
def test_values_that_are_refused(name: str, value: str) -> None:
    """What would become an option, or a word of a shell, and numbers that are none."""
    with pytest.raises(ExtcapError):
        request("vsockdump-ssh", {**VALUES, "host": "there", name: value}, "")


# --- plans -------------------------------------------------------------------------------


def test_a_capture_here() -> None:
    """One command, with the filter as one word that can be no option."""
    wanted = REQUEST._replace(device="vsk0", filter="-x or op rw", annotate=True, sudo=True)
    (words,) = plan.here(wanted).commands
    assert ["sudo", "-n", "--", sys.executable] == words[:4]
    assert ["-i", "vsk0", "-s", "0", "-B", "32768", "--annotate", "--", "-x or op rw"] == words[-9:]


REMOTE = REQUEST._replace(host="there", command="vsockdump", filter='payload contains "\'; id"')


def test_vsockdump_at_the_other_end() -> None:
    """The host stands behind `--`; the shell there reads the same words that were meant."""
    wanted = REMOTE._replace(port="2222", user="me", sudo=True)
    (words,) = plan.there(wanted, Tools("/opt/bin/vsockdump", "", "")).commands
    at = words.index("--")
    assert ["-p", "2222", "-l", "me", "--", "there"] == words[at - 4 : at + 2]
    there = shlex.split(words[at + 2])
    assert ["sudo", "-n", "--", "/opt/bin/vsockdump", "-w", "-"] == there[:6]
    assert ["--", wanted.filter] == there[-2:]


def test_tcpdump_at_the_other_end() -> None:
    """The filter is decided here, by a vsockdump that reads what tcpdump writes."""
    found = plan.there(REMOTE, Tools("", "/sbin/ip", "/usr/bin/tcpdump"))
    ssh, here = found.commands
    assert ["sh", "-c"] == shlex.split(ssh[-1])[:2]
    assert ["-r", "-", "-w", "-", "--", REMOTE.filter] == here[-6:]
    assert "tcpdump captures there" in found.remark
    assert 1 == len(plan.there(REMOTE._replace(filter=" "), Tools("", "/i", "/t")).commands)


@pytest.mark.parametrize(
    ("found", "says"), [(Tools("", "/i", ""), "nor tcpdump;"), (Tools("", "", ""), "nor ip and")]
)
def test_nothing_at_the_other_end(found: Tools, says: str) -> None:
    """It is said what is missing."""
    with pytest.raises(ExtcapError, match=says):
        plan.there(REMOTE, found)


def test_what_the_other_end_has() -> None:
    """Its answer among the lines of others; an alias is no path; silence is an error."""
    said = "Welcome!\nvsockdump-extcap:alias x\nvsockdump-extcap:/i\nvsockdump-extcap:\nbye"
    assert Tools("", "/i", "") == plan.tools(said)
    with pytest.raises(ExtcapError, match="did not say"):
        plan.tools("Welcome!\n")


# --- the control pipes -------------------------------------------------------------------


def test_messages() -> None:
    """T, a length of three bytes that counts the two behind it, control, command, payload."""
    assert b"T\0\0\x05\x01\x01abc" == message(Command.SET, Field.DROPPED, "abc")
    assert b"T\0\0\x07\x02\x02\\x1b\n" == message(Command.ADD, Field.LOG, "\x1b")
    assert 4006 == len(message(Command.STATUSBAR, text="x" * 100_000))


def pipes(folder: Path) -> tuple[Path, Path]:
    """Two named pipes, from Wireshark and to it."""
    for name in ("in", "out"):
        os.mkfifo(folder / name)
    return folder / "in", folder / "out"


def test_nothing_is_sent_before_wireshark_is_ready(tmp_path: Path) -> None:
    """Then all of it, in order; a message may come in pieces."""
    incoming, outgoing = pipes(tmp_path)
    with Control(str(incoming), str(outgoing)) as control:
        reader = os.open(outgoing, os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(incoming, os.O_WRONLY)
        control.send(Command.STATUSBAR, text="hello")
        with pytest.raises(BlockingIOError):
            os.read(reader, 100)
        ready = message(Command.SET, 0, "typed") + message(Command.INITIALIZED)
        for part in (ready[:3], ready[3:]):
            os.write(writer, part)
            assert control.receive()
        disabled = [message(Command.DISABLE, field) for field in (0, 1)]
        expected = b"".join([*disabled, message(Command.STATUSBAR, text="hello")])
        assert expected == os.read(reader, 100)
        os.close(writer)
        assert not control.receive()
        os.close(reader)


def test_a_pipe_that_is_full_or_gone_is_no_obstacle(tmp_path: Path) -> None:
    """The capture goes on without a window that does not listen."""
    _incoming, outgoing = pipes(tmp_path)
    with Control("", str(outgoing)) as control:
        for _ in range(1000):
            control.send(Command.STATUSBAR, text="x" * 1000)
        control.send(Command.STATUSBAR, text="still here")
    with Control("", "") as control:
        control.send(Command.STATUSBAR, text="nobody")


# --- a capture, of a program that is not vsockdump -----------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("cat >/dev/null", 0, ""),
        ("echo 'vsockdump: It \x1b[1mfails.' >&2; exit 1", 1, "vsockdump: It \\x1b[1mfails.\n"),
        ("exit 3", 1, "vsockdump: it ended with [3].\n"),
        ("yes | head -c 3000000 | tr -d '\\n' >&2; exit 1", 1, "y" * 1000 + "\n"),
    ],
)
def test_how_a_capture_ends(tmp_path: Path, body: str, status: int, says: str) -> None:
    """Well where it was stopped; else with what it said, escaped and cut."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    code = (
        "import sys, os\n"
        "from vsockdump.extcap import session\n"
        "from vsockdump.extcap.plan import Plan\n"
        "from vsockdump.extcap.control import Control\n"
        f"sink = os.open({str(fifo)!r}, os.O_WRONLY)\n"
        f"one = session._Session(Plan([[{str(program)!r}]]), sink, Control('', ''))\n"
        "print('started', flush=True)\n"
        "sys.exit(one.run())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
    ) as process:
        reader = os.open(fifo, os.O_RDONLY)
        assert process.stdout is not None
        assert b"started\n" == process.stdout.readline()
        if not status:
            process.terminate()
        _out, err = process.communicate(timeout=TIME_LIMIT_S)
        os.close(reader)
    assert (status, says) == (process.returncode, err.decode())


def test_ssh_that_refuses(tmp_path: Path) -> None:
    """What it said, and what helps."""
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\necho 'Permission denied (publickey).' >&2\nexit 255\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    status, out, err = call(*SSH, "--host", "there", "--capture", "--fifo", "/dev/null", PATH=path)
    assert (1, "", 1) == (status, out, err.count("\n"))
    assert "on there (Permission denied (publickey).); log in there once" in err


def test_no_ssh(tmp_path: Path) -> None:
    """It is said that it is missing here."""
    status, _out, err = call(
        *SSH, "--host", "there", "--capture", "--fifo", "/dev/null", PATH=str(tmp_path)
    )
    assert (1, "vsockdump: there is no ssh here; install OpenSSH's client.\n") == (status, err)


# --- the script --------------------------------------------------------------------------


def test_the_script_in_the_repository() -> None:
    """It is the one that the package makes, and executable."""
    assert script() == SCRIPT.read_text()
    assert SCRIPT.stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("name", ["python", "a python with spaces 'and quotes"])
def test_the_script_finds_its_vsockdump(tmp_path: Path, name: str) -> None:
    """By the path of an interpreter, whatever that looks like."""
    link = tmp_path / name
    link.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    link.chmod(0o755)
    made = tmp_path / "extcap"
    made.write_text(script(str(link)))
    made.chmod(0o755)
    done = subprocess.run([made, "--version"], capture_output=True, text=True, timeout=60)
    assert (0, "vsockdump-extcap ") == (done.returncode, done.stdout[:17])
    link.unlink()
    made.write_text(script(str(link)).replace(f"#!{link} -IS", f"#!{sys.executable}"))
    done = subprocess.run([made, "--version"], capture_output=True, text=True, timeout=60)
    assert 1 == done.returncode
    assert "install the extcap again" in done.stderr
