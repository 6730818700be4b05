"""vsockdump captures live on real kernels: its file, its statistics, its device, its rights.

The traffic is that of traffic.py; where the capture of all of it is compared, tcpdump
captured at the same time (recording.py).
"""

import json
import signal
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from kernel import BUSYBOX
from machine import Machine, Program
from recording import LAST_PACKET, Recording, key, monitor, run_scenarios, truths
from running import PROGRAM, lines, packets_of

INTERFACES: Final = Path("/sys/class/net")
NOBODY: Final = 65534
CAP_NET_ADMIN: Final = 12
# For what does not depend on the kernel: a start of vsockdump takes seconds in emulation.
ONE_KERNEL: Final = pytest.mark.parametrize("machine", ["6.12"], indirect=True, scope="session")


def interfaces(machine: Machine) -> set[str]:
    """The names of the machine's interfaces."""
    return set(machine.check("ls", INTERFACES).split())


def status(machine: Machine, pid: int | str) -> dict[str, str]:
    """What the kernel says of a process."""
    text = machine.check("cat", f"/proc/{pid}/status")
    return dict(line.split(":\t", 1) for line in text.splitlines())


def capture(machine: Machine, *arguments: str | Path) -> Program:
    """A vsockdump that captures from now on."""
    program = machine.start(PROGRAM, *arguments, TZ="UTC")
    program.says("listening on ")
    return program


def flows(path: Path) -> dict[bytes, list[bytes]]:
    """The frames of a capture by the addresses that they begin with."""
    found = defaultdict(list)
    for packet in packets_of(path.read_bytes()):
        assert packet.wirelen == len(packet.data)
        found[packet.data[:24]].append(packet.data)
    return found


# --- what is captured -------------------------------------------------------------------


def test_the_same_file_as_tcpdump(recording: Recording) -> None:
    """Byte for byte, the frames of each flow in order, none missing."""
    assert 0 == recording.capture.status
    expected = flows(recording.path)
    assert expected == flows(recording.live)
    total = sum(map(len, expected.values()))
    counts = [int(line.split()[0]) for line in recording.capture.err.splitlines()[-3:]]
    assert [total, total, 0] == counts


def test_statistics_of_a_live_capture(recording: Recording) -> None:
    """`-z conv` at the end of a capture is `-z conv` of the file that it wrote."""
    assert lines("-r", recording.live, "-z", "conv") == recording.capture.out.splitlines()


def test_packets_as_they_happen(machine: Machine) -> None:
    """`--json` shows each packet while the capture goes on."""
    log = machine.share / "echo.json"
    with monitor(machine) as device:
        program = capture(machine, "-i", device, "--json")
        run_scenarios(machine, log, "echo", "last")
        machine.wait(lambda: '"state":"refused"' in program.out, 60, "the last packet")
        assert program.status is None
        program.send(signal.SIGINT)
        assert 0 == program.wait().status
    echo, _last = truths(log)
    sent = {"initiator": 0, "acceptor": 0}
    for line in program.out.splitlines():
        packet = json.loads(line)["vsock"]
        if key(echo)[:2] in (
            (packet["src_port"], packet["dst_port"]),
            (packet["dst_port"], packet["src_port"]),
        ):
            sent[packet["side"]] += packet["payload_len"]
    assert echo["sent"] == list(sent.values())


# --- the device -------------------------------------------------------------------------


@ONE_KERNEL
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_device_of_its_own(machine: Machine, end: signal.Signals) -> None:
    """It is made, captures, and is gone at the end, whatever the end is; the file is whole."""
    before = interfaces(machine)
    log, path = machine.share / "own.json", machine.share / f"{end.name}.pcap"
    program = capture(machine, "-w", path)
    assert before | {"vsockmon0"} == interfaces(machine)
    run_scenarios(machine, log, "half_closes", "last")
    machine.wait_for_file(path, LAST_PACKET)
    program.send(end)
    assert (-end if end == signal.SIGKILL else 0) == program.wait().status
    if end == signal.SIGKILL:
        machine.wait(lambda: before == interfaces(machine), 30, "the device to go")
    assert before == interfaces(machine)
    conversations = [json.loads(line) for line in lines("-r", path, "--json", "-z", "conv")]
    sent = [row["bytes"] for row in conversations]
    assert [truth.get("sent", [0, 0]) for truth in truths(log)] == sent


@ONE_KERNEL
def test_a_device_of_others(machine: Machine) -> None:
    """It is used where it is up, and stays as it was."""
    with monitor(machine) as device:
        flags = machine.check("cat", INTERFACES / device / "flags")
        program = capture(machine, "-c", "2")
        assert f"listening on {device}." in program.err
        run_scenarios(machine, machine.share / "other.json", "last")
        result = program.wait()
        assert (0, 2) == (result.status, len(result.out.splitlines()))
        assert "[refused, no socket]" in result.out.splitlines()[1]
        assert flags == machine.check("cat", INTERFACES / device / "flags")


@ONE_KERNEL
def test_a_device_that_vanishes(machine: Machine) -> None:
    """It is said, the file is finished, and the exit status is 1."""
    path = machine.share / "vanished.pcap"
    with monitor(machine) as device:
        program = capture(machine, "-i", device, "-w", path)
        run_scenarios(machine, machine.share / "vanished.json", "last")
        machine.wait_for_file(path, LAST_PACKET)
    result = program.wait()
    assert 1 == result.status
    assert device in result.err.splitlines()[1]
    assert 2 == len(packets_of(path.read_bytes()))


@ONE_KERNEL
def test_no_module(machine: Machine) -> None:
    """The error names the module and the command that helps; no device is left behind."""
    before = interfaces(machine)
    machine.check(BUSYBOX, "rmmod", "vsockmon")
    result = machine.run(PROGRAM)
    (module,) = (path for path in machine.kernel.modules if path.stem == "vsockmon")
    machine.check(BUSYBOX, "insmod", module)
    assert (1, 1) == (result.status, len(result.err.splitlines()))
    assert "vsockmon" in result.err
    assert before == interfaces(machine)


# --- rights -----------------------------------------------------------------------------


@ONE_KERNEL
def test_rights_are_given_up(machine: Machine) -> None:
    """With -Z the capture is another user's and can do nothing; the device's keeper little."""
    path = Path("/tmp/nobody.pcap")  # in the machine: only root may enter the shared folder
    program = capture(machine, "-Z", "nobody", "-w", path)
    # The last right that it uses is to open its file as the user that it has become.
    machine.wait(lambda: not machine.run("test", "-e", path).status, 60, "the file")
    (keeper,) = children(machine, program)
    process = status(machine, str(program.pid))
    assert {str(NOBODY)} == set(process["Uid"].split()) | set(process["Gid"].split())
    assert {0} == capabilities(process)
    assert {0, 1 << CAP_NET_ADMIN} == capabilities(status(machine, keeper))
    assert "1" == process["NoNewPrivs"]
    program.send(signal.SIGINT)
    assert 0 == program.wait().status
    assert [str(NOBODY)] == machine.check("stat", "-c", "%u", path).split()


def children(machine: Machine, program: Program) -> Sequence[str]:
    """The processes that a program started."""
    return machine.check("cat", f"/proc/{program.pid}/task/{program.pid}/children").split()


def capabilities(process: dict[str, str]) -> set[int]:
    """The capabilities that a process has, may take or may hand on."""
    return {int(process[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
