"""The extcap as Wireshark runs it, on a device that stands in for a vsock monitor.

Wireshark ignores WIRESHARK_EXTCAP_DIR for root: the extcap is installed into the personal
folder of a home of its own.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sshd
from network import NAME, Network
from running import PROGRAM, TIME_LIMIT_S, environment, tool
from scenario import build_frame
from test_live import DATA, GUEST, HOST, REQUEST, written

from vsockdump.extcap.control import Command, Field, message
from vsockdump.wire import Op

USER = 61234  # of no user that there is
INTERFACE = f"vsockdump-on-{NAME}"
LARGE = build_frame(GUEST, HOST, Op.RW, bytes(40_000))


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment in which the extcap is installed; nothing of sudo's in it."""
    settings = environment(HOME=str(tmp_path / "home"), XDG_CONFIG_HOME="")
    done = subprocess.run([PROGRAM, "--install-wireshark"], env=settings, timeout=TIME_LIMIT_S)
    assert 0 == done.returncode
    return settings


def extcap(home: dict[str, str]) -> Path:
    """The installed extcap."""
    (found,) = Path(home["HOME"]).rglob("vsockdump-extcap")
    return found


class Tshark:
    """tshark capturing by an extcap into a file; a context manager."""

    def __init__(self, network: Network, home: dict[str, str], path: Path, *arguments: str) -> None:
        self.path = path
        self.process = subprocess.Popen(
            network.inside("tshark", "-Q", "-w", path, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=home,
            cwd="/",
            start_new_session=True,
        )

    def __enter__(self) -> "Tshark":
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # its dumpcap would outlive it
        self.process.communicate(timeout=TIME_LIMIT_S)

    def wait_for(self, size: int) -> None:
        """Until the file has more than so many bytes."""
        until = time.monotonic() + TIME_LIMIT_S
        while not self.path.exists() or self.path.stat().st_size <= size:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until, "nothing is captured"
            time.sleep(0.02)

    def end(self) -> str:
        """Stop it as ^C does; what it said."""
        self.process.send_signal(signal.SIGINT)
        _out, err = self.process.communicate(timeout=TIME_LIMIT_S)
        assert 0 == self.process.returncode, err
        return err.decode()


def test_tshark_lists_the_interfaces(network: Network, home: dict[str, str]) -> None:
    """The devices that are there, this machine, and ssh."""
    out = subprocess.run(
        network.inside("tshark", "-D"), env=home, capture_output=True, text=True, timeout=60
    ).stdout
    for value, display in (
        ("vsockdump", "vsock monitor: this machine"),
        (INTERFACE, f"vsock monitor: {NAME}"),
        ("vsockdump-ssh", "vsock monitor over SSH"),
    ):
        assert f" {value} ({display})\n" in out


@pytest.mark.parametrize("interface", ["vsockdump", INTERFACE])
def test_tshark_captures(
    network: Network, home: dict[str, str], tmp_path: Path, interface: str
) -> None:
    """With our filter, names and comments: what was sent is what stands in the file."""
    path = tmp_path / "a.pcapng"
    wanted = ("-f", "port 1024 and not op request")
    with Tshark(network, home, path, "-i", interface, *wanted) as tshark:
        tshark.wait_for(0)  # the first block is written when the extcap listens
        other = build_frame(GUEST._replace(port=9), HOST, Op.RW, b"other")
        network.send(REQUEST, other, DATA, *[LARGE] * 9)
        tshark.wait_for(9 * len(LARGE))
        tshark.end()
    assert [DATA, *[LARGE] * 9] == [packet[1] for packet in written(path)]
    fields = tool("tshark", "-r", path, "-T", "fields", "-e", "frame.interface_name",
                  "-e", "frame.comment").decode()  # fmt: skip
    assert {NAME} == {line.split("\t")[0] for line in fields.splitlines()}
    assert "vsock.connect.not_established" in fields


def test_options_reach_the_capture(network: Network, home: dict[str, str], tmp_path: Path) -> None:
    """A snaplen from Wireshark's settings."""
    path = tmp_path / "a.pcapng"
    option = f"extcap.{INTERFACE.replace('-', '_')}.snaplen:80"
    with Tshark(network, home, path, "-i", INTERFACE, "-o", option) as tshark:
        tshark.wait_for(0)
        network.send(LARGE)
        tshark.wait_for(300)
        tshark.end()
    assert [(LARGE[:80], len(LARGE))] == [packet[1:] for packet in written(path)]


def test_a_wrong_filter_is_said(network: Network, home: dict[str, str], tmp_path: Path) -> None:
    """tshark passes on the sentence of the extcap."""
    with Tshark(network, home, tmp_path / "a", "-i", INTERFACE, "-f", "prt 5") as tshark:
        _out, err = tshark.process.communicate(timeout=TIME_LIMIT_S)
    assert b"the capture filter is wrong: There is no word prt. Did you mean port?" in err


# --- as Wireshark's window runs it ---------------------------------------------------------


class Window:
    """The extcap with the pipes that Wireshark gives it; a context manager."""

    def __init__(
        self, network: Network, home: dict[str, str], folder: Path, *arguments: str | Path
    ) -> None:
        names = ("fifo", "in", "out")
        paths = [folder / f"{name}.pipe" for name in names]
        for path in paths:
            os.mkfifo(path)
        # Read and write, so that nothing here waits for the other end.
        self.fifo, self.incoming, self.outgoing = (os.open(path, os.O_RDWR) for path in paths)
        self.shown = b""
        self.packets = b""
        options = ("--fifo", "--extcap-control-in", "--extcap-control-out")
        pipes = [word for pair in zip(options, paths, strict=True) for word in pair]
        command = [extcap(home), "--capture", *arguments, *pipes]
        self.process = subprocess.Popen(
            network.inside(*command), stderr=subprocess.PIPE, env=home, cwd="/"
        )

    def __enter__(self) -> "Window":
        os.write(self.incoming, message(Command.INITIALIZED))
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        for fd in (self.fifo, self.incoming, self.outgoing):
            if fd >= 0:
                os.close(fd)

    def _read(self, until: float) -> None:
        fds = [fd for fd in (self.fifo, self.outgoing) if fd >= 0]
        ready, _, _ = select.select(fds, [], [], max(until - time.monotonic(), 0))
        assert ready, f"it did not come; there is {self.shown[-2000:]!r}"
        for fd in ready:
            data = os.read(fd, 1 << 16)
            if fd == self.fifo:
                self.packets += data
            else:
                self.shown += data

    def wait_for(self, text: bytes, where: str = "shown") -> None:
        """Until this was sent to the window."""
        until = time.monotonic() + TIME_LIMIT_S
        while text not in getattr(self, where):
            self._read(until)

    def ends(self) -> tuple[int, str]:
        """Exit status and stderr."""
        assert self.process.stderr is not None
        err = self.process.stderr.read().decode()
        return self.process.wait(TIME_LIMIT_S), err


def test_the_window_shows_counts(network: Network, home: dict[str, str], tmp_path: Path) -> None:
    """What vsockdump says, in status bar and log; counts while it captures; a good end."""
    with Window(network, home, tmp_path, "--extcap-interface", INTERFACE) as window:
        said = f"vsockdump: listening on {NAME}."
        window.wait_for(message(Command.STATUSBAR, text=said))
        window.wait_for(message(Command.ADD, Field.LOG, said))
        network.send(REQUEST, DATA)
        window.wait_for(DATA, "packets")
        window.wait_for(message(Command.SET, Field.CAPTURED, "2"))
        window.wait_for(message(Command.SET, Field.DROPPED, "0"))
        window.process.terminate()
        assert (0, "") == window.ends()


def test_the_window_shows_drops(network: Network, home: dict[str, str], tmp_path: Path) -> None:
    """Packets that do not fit while the capture stands still: counted, and what helps."""
    arguments = ("--extcap-interface", INTERFACE, "--buffer", "512")
    with Window(network, home, tmp_path, *arguments) as window:
        window.wait_for(b"listening on")
        (child,) = children(window.process.pid)
        os.kill(child, signal.SIGSTOP)
        network.send(*[DATA + bytes(1000)] * 2000)
        os.kill(child, signal.SIGCONT)
        window.wait_for(b"packets dropped by the kernel; a larger buffer or fewer")
        window.process.terminate()
        assert (0, "") == window.ends()


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("pipe", ["fifo", "incoming"])
def test_wireshark_goes(network: Network, home: dict[str, str], tmp_path: Path, pipe: str) -> None:
    """Wireshark that closes a pipe without a word ends the capture, without an error."""
    with Window(network, home, tmp_path, "--extcap-interface", INTERFACE) as window:
        window.wait_for(b"listening on")
        os.close(getattr(window, pipe))
        setattr(window, pipe, -1)
        assert (0, "") == window.ends()


def test_the_extcap_is_killed(network: Network, home: dict[str, str], tmp_path: Path) -> None:
    """vsockdump ends with it, by the end of its stdin."""
    with Window(network, home, tmp_path, "--extcap-interface", INTERFACE) as window:
        window.wait_for(b"listening on")
        (child,) = children(window.process.pid)
        window.process.kill()
        window.process.wait()
        until = time.monotonic() + TIME_LIMIT_S
        while Path(f"/proc/{child}/exe").exists():
            assert time.monotonic() < until
            time.sleep(0.02)


def test_the_device_goes(network: Network, home: dict[str, str], tmp_path: Path) -> None:
    """It is said in the window, and on stderr, which Wireshark shows; the status is 1."""
    with Window(network, home, tmp_path, "--extcap-interface", INTERFACE) as window:
        window.wait_for(b"listening on")
        network.down()
        status, err = window.ends()
    assert 1 == status
    assert f"Interface {NAME} went down" in err
    assert "listening" not in err


# --- over ssh ------------------------------------------------------------------------------


@pytest.fixture
def server(network: Network, tmp_path: Path) -> Iterator[sshd.Server]:
    """An ssh server in the namespace, which is the other end."""
    network.ip("link", "set", "lo", "up")
    made = sshd.Server(tmp_path / "ssh", 2222, f"{tmp_path}/ssh/bin:{os.environ['PATH']}")
    with subprocess.Popen(network.inside(*made.command), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"listening" in process.stderr.readline()
        yield made
        process.terminate()
        process.wait(TIME_LIMIT_S)


def over_ssh(server: sshd.Server, home: dict[str, str], **options: str) -> tuple[Any, ...]:
    """The environment and the arguments of a capture over ssh."""
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    chosen = ["--extcap-interface", "vsockdump-ssh", "--host", sshd.HOST, *words]
    return {**home, "PATH": server.client_path}, chosen


def test_vsockdump_over_ssh(
    network: Network, home: dict[str, str], tmp_path: Path, server: sshd.Server
) -> None:
    """It captures there, with the filter whatever it says, and ends with the connection."""
    text = 'op request or payload contains "pay" or payload contains "\'; $(id)"'
    settings, chosen = over_ssh(server, home, command=PROGRAM)
    chosen += ["--extcap-capture-filter", text]
    with Window(network, settings, tmp_path, *chosen) as window:
        window.wait_for(f"vsockdump: listening on {NAME}".encode())
        network.send(build_frame(GUEST, HOST, Op.RW, b"other"), REQUEST, DATA)
        window.wait_for(DATA, "packets")
        window.wait_for(message(Command.SET, Field.CAPTURED, "2"))
        window.process.terminate()
        assert (0, "") == window.ends()
    path = tmp_path / "a.pcapng"
    path.write_bytes(window.packets)
    assert [REQUEST, DATA] == [packet[1] for packet in written(path)]
    assert [] == still_running(network)


def still_running(network: Network) -> list[str]:
    """The captures that run in the namespace."""
    found = []
    until = time.monotonic() + TIME_LIMIT_S
    while time.monotonic() < until:
        names = subprocess.run(
            network.inside("cat", "/proc/net/packet"), capture_output=True, text=True, timeout=60
        ).stdout.splitlines()[1:]
        found = [line for line in names if line.split()[2] == "3"]  # SOCK_RAW
        if len(found) <= 1:  # the one that sends for the test
            return []
        time.sleep(0.05)
    return found


# An `ip` at the other end that knows of a monitor: the one here is no vsockmon.
IP = f"""[ "$*" = "-o link show type vsockmon up" ] && echo "5: {NAME}: <UP> mtu 1\""""


@pytest.mark.parametrize("filtered", [True, False])
def test_tcpdump_over_ssh(
    network: Network, home: dict[str, str], tmp_path: Path, server: sshd.Server, filtered: bool
) -> None:
    """Where there is no vsockdump; what it writes is filtered here."""
    server.tool("ip", IP)
    settings, chosen = over_ssh(server, home, command="no-vsockdump", snaplen="80")
    chosen += ["--extcap-capture-filter", "op rw"] if filtered else []
    with Window(network, settings, tmp_path, *chosen) as window:
        window.wait_for(f"{sshd.HOST} has no no-vsockdump: tcpdump captures there".encode())
        window.wait_for(f"listening on {NAME}".encode())
        network.send(REQUEST, DATA)
        window.wait_for(DATA[:80], "packets")
        window.wait_for(message(Command.SET, Field.CAPTURED, "2"))
        window.process.terminate()
        assert (0, "") == window.ends()
    path = tmp_path / "a.pcap"
    path.write_bytes(window.packets)
    expected = [DATA] if filtered else [REQUEST, DATA]
    assert [frame[:80] for frame in expected] == [packet[1] for packet in written(path)]
    assert [] == still_running(network)


def test_no_device_at_the_other_end(
    network: Network, home: dict[str, str], tmp_path: Path, server: sshd.Server
) -> None:
    """What ip says there is said here, and nothing is left behind."""
    settings, chosen = over_ssh(server, home, command="no-vsockdump")
    with Window(network, settings, tmp_path, *chosen) as window:
        status, err = window.ends()
    assert 1 == status
    assert "Unknown device type" in err
    assert "vsockmon" not in network.ip("link")


@pytest.mark.parametrize(
    ("user", "port", "says"),
    [("nobody-there", "0", "Permission denied"), ("", "1", "Connection refused")],
)
def test_ssh_that_fails(
    network: Network,
    home: dict[str, str],
    tmp_path: Path,
    server: sshd.Server,
    user: str,
    port: str,
    says: str,
) -> None:
    """User and port are those of the dialog; what ssh says is passed on."""
    settings, chosen = over_ssh(server, home, user=user, port=port)
    with Window(network, settings, tmp_path, *chosen) as window:
        status, err = window.ends()
    assert (1, 1) == (status, err.count("\n"))
    assert says in err


# --- installed by sudo ---------------------------------------------------------------------


@pytest.fixture
def user() -> Iterator[tuple[int, Path]]:
    """A user id, and a home of its own where everybody may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        home = Path(folder) / "home"
        home.mkdir()
        os.chown(home, USER, USER)
        yield USER, home


def test_sudo_installs_for_who_ran_it(user: tuple[int, Path], tmp_path: Path) -> None:
    """Into that user's home, as that user; root's home stays as it is."""
    uid, home = user
    users = tmp_path / "passwd"
    users.write_text(Path("/etc/passwd").read_text() + f"tester:x:{uid}:{uid}::{home}:/bin/sh\n")
    script = f'mount --bind {users} /etc/passwd && exec "$0" "$@"'
    command = ["unshare", "-m", "sh", "-c", script, PROGRAM, "--install-wireshark"]
    settings = environment(
        HOME=str(tmp_path / "root"), SUDO_UID=str(uid), SUDO_GID=str(uid), SUDO_USER="tester"
    )
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=60)
    # Where Python stands in root's home, as it may, the user cannot run what was installed.
    command = ["env", sys.executable, "-c", ""]
    there = subprocess.run(command, user=uid, group=uid, capture_output=True, cwd="/", timeout=60)
    runs = not there.returncode
    assert runs == (done.returncode == 0), done.stderr
    assert runs or "vsockdump-extcap does not run" in done.stderr
    assert not (tmp_path / "root").exists()
    made = list(home.rglob("*"))
    assert "vsockdump-extcap" in [path.name for path in made]
    assert {(uid, uid)} == {(path.lstat().st_uid, path.lstat().st_gid) for path in made}
