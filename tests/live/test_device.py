"""The device that vsockdump makes, by a kind that every kernel has; and what is in the way.

The kernel here need not have the module vsockmon; tests/lab has it.
"""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from network import NAME, Network
from running import PROGRAM, TIME_LIMIT_S, environment

from vsockdump.capture import privileges
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.packet_socket import PacketSocket, Settings

PYTHON = str(Path(PROGRAM).with_name("python"))
KIND = "bridge"
HOLD = f"""
import sys
from vsockdump.capture import privileges
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.packet_socket import PacketSocket, Settings
from vsockdump.capture.vsockmon import MonitorDevice
device = MonitorDevice({KIND!r})
privileges.drop(None)
print(device.name, device._keeper, flush=True)
sys.stdin.read(1)
device.close()
"""


class Holder:
    """A process that holds a device of ours in a namespace."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.process = subprocess.Popen(
            network.inside(PYTHON, "-c", HOLD),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        assert self.process.stdout is not None
        self.name, keeper = self.process.stdout.readline().split()
        self.keeper = int(keeper)

    def check_gone(self) -> None:
        """The device goes, also where nobody waits for it."""
        until = time.monotonic() + TIME_LIMIT_S
        while self.name in self.network.ip("-brief", "link"):
            assert time.monotonic() < until


@pytest.fixture
def holder(network: Network) -> Iterator[Holder]:
    """One that is killed at the end if it still runs."""
    made = Holder(network)
    yield made
    made.process.kill()
    made.process.wait(TIME_LIMIT_S)


def test_a_device_of_ours_is_up_until_the_end(holder: Holder) -> None:
    """Made, up, and gone when the process that held it is."""
    assert f"{KIND}0" == holder.name
    assert "UP" in holder.network.ip("-brief", "link", "show", holder.name).split("<")[1]
    holder.process.communicate("x", timeout=TIME_LIMIT_S)
    assert 0 == holder.process.returncode
    assert holder.name not in holder.network.ip("-brief", "link")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_capture(holder: Holder, number: int) -> None:
    """A signal to the capture removes the device, even one that cannot be caught."""
    holder.process.send_signal(number)
    holder.process.wait(TIME_LIMIT_S)
    holder.check_gone()


def test_the_keeper_outlives_a_signal_to_all(holder: Holder) -> None:
    """It has left the terminal's process group, ignores signals and may only do its work."""
    status = Path(f"/proc/{holder.keeper}/status").read_text()
    assert f"CapEff:\t{1 << privileges.CAP_NET_ADMIN:016x}" in status
    kept = list(Path(f"/proc/{holder.keeper}/fd").iterdir())
    assert {"/dev/null"} == {str(kept[fd].readlink()) for fd in range(3)}
    subprocess.run(["kill", "-TERM", str(holder.keeper)], check=True)
    subprocess.run(["kill", "-INT", str(holder.keeper)], check=True)
    holder.process.kill()
    holder.process.wait(TIME_LIMIT_S)
    holder.check_gone()


def test_a_device_of_others_stays(network: Network) -> None:
    """Its name is passed over, and it is there afterwards."""
    network.ip("link", "add", f"{KIND}0", "type", KIND)
    holder = Holder(network)
    assert f"{KIND}1" == holder.name
    holder.process.communicate("x", timeout=TIME_LIMIT_S)
    assert f"{KIND}1" not in network.ip("-brief", "link")
    assert f"{KIND}0" in network.ip("-brief", "link")


def test_a_device_that_others_removed(holder: Holder) -> None:
    """Nothing to remove is no error, and a new device of that name is not ours."""
    holder.network.ip("link", "del", holder.name)
    holder.network.ip("link", "add", holder.name, "type", KIND)
    holder.process.communicate("x", timeout=TIME_LIMIT_S)
    assert 0 == holder.process.returncode
    assert holder.name in holder.network.ip("-brief", "link")


# --- what is in the way --------------------------------------------------------------------


def refusal(network: Network, *command: str) -> str:
    """What vsockdump says where it cannot capture."""
    done = subprocess.run(
        network.inside(*command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        cwd="/",
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert done.stderr.startswith("vsockdump: ")
    assert done.stderr.endswith(".\n")
    return done.stderr


def test_no_such_interface(network: Network) -> None:
    """The name is repeated, and where to find others."""
    assert "There is no interface vsk9; vsockdump -D" in refusal(network, PROGRAM, "-i", "vsk9")


def test_another_link_type(network: Network) -> None:
    """The loopback interface of IP is no vsock monitor."""
    assert "Interface lo is of link type 772, not 826" in refusal(network, PROGRAM, "-i", "lo")


def test_an_interface_that_is_down(network: Network) -> None:
    """The command that brings it up."""
    network.down()
    said = refusal(network, PROGRAM, "-i", NAME)
    assert f"Interface {NAME} is down; bring it up with: ip link set {NAME} up." in said


def test_without_rights(network: Network) -> None:
    """Root or CAP_NET_RAW, and sudo as the way there; with a device and without one."""
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", PROGRAM)
    assert "needs root or the capability CAP_NET_RAW" in refusal(network, *bare, "-i", NAME)
    network.down()
    assert "needs root or the capability CAP_NET_RAW" in refusal(network, *bare)


def test_cap_net_raw_is_enough(network: Network) -> None:
    """Where a monitor is up, as another user with that capability alone."""
    only = ("setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all", PROGRAM)
    command = network.inside(*only, "-t", "-i", NAME, "--duration", "0.1")
    done = subprocess.run(command, capture_output=True, env=environment(), cwd="/", timeout=60)
    assert 0 == done.returncode, done.stderr


def test_no_memory_for_the_ring(network: Network) -> None:
    """The size that was asked for, and the option that asks for less."""
    said = "no memory for a ring of 4000000000 KiB; ask for a smaller one with -B KIB"
    with pytest.raises(CaptureError, match=said):  # more blocks than can be listed
        network.run(lambda: PacketSocket(NAME, Settings(ring_kib=4_000_000_000)))


def test_a_kind_the_kernel_has_not(network: Network) -> None:
    """The module that is missing is named."""
    code = (
        "from vsockdump.capture.vsockmon import MonitorDevice\n"
        "from vsockdump.capture.errors import CaptureError\n"
        "try: MonitorDevice('nosuchkind')\n"
        "except CaptureError as error: print(error)\n"
    )
    done = subprocess.run(network.inside(PYTHON, "-c", code), capture_output=True, text=True)
    assert "module vsockmon" in done.stdout


def test_where_it_cannot_be_written(network: Network) -> None:
    """Before anything is captured, and without a device left behind."""
    said = refusal(network, PROGRAM, "-i", NAME, "-w", "/nowhere/a.pcap")
    assert "Cannot write /nowhere/a.pcap" in said
