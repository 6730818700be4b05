"""The extcap on a real kernel, as tshark runs it: here, and over ssh where only tcpdump is.

Its devices are vsockmons that it makes, and what it writes is compared with what the
programs of the traffic wrote down.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sshd
from machine import Machine, Program
from recording import LAST_PACKET, run_scenarios, truths
from running import PROGRAM, TIME_LIMIT_S, environment, lines
from test_live import ONE_KERNEL, interfaces

LIMIT_S = 300  # tshark starts an extcap many times, and emulation is slow


@pytest.fixture
def home(machine: Machine) -> dict[str, str]:
    """Settings in which the extcap is installed."""
    settings = {"HOME": str(machine.share / "home"), "XDG_CONFIG_HOME": "", "TZ": "UTC"}
    done = subprocess.run(
        [PROGRAM, "--install-wireshark"], env=environment(**settings), timeout=TIME_LIMIT_S
    )
    assert 0 == done.returncode
    return settings


@pytest.fixture
def server(machine: Machine, tmp_path: Path) -> Iterator[sshd.Server]:
    """An ssh server in the machine."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    made = sshd.Server(machine.share / tmp_path.name, 2222, path)
    machine.check("mkdir", "-p", "/run/sshd")
    program = machine.start(*made.command)
    program.says("listening on")
    yield made
    program.send(signal.SIGTERM)
    program.wait()


def capture(machine: Machine, settings: dict[str, str], path: Path, *arguments: str) -> Program:
    """A tshark that captures, and has written what the extcap begins with."""
    program = machine.start("tshark", "-Q", "-w", path, *arguments, **settings)
    machine.wait(
        lambda: program.status is not None or (path.exists() and path.stat().st_size > 0),
        LIMIT_S,
        "the extcap to capture",
    )
    assert program.status is None, program.err
    return program


def sent(path: Path) -> list[list[int]]:
    """The bytes that each side of each connection sent."""
    rows = [json.loads(line) for line in lines("-r", path, "--json", "-z", "conv")]
    return [row["bytes"] for row in rows]


@ONE_KERNEL
def test_tshark_captures(machine: Machine, home: dict[str, str]) -> None:
    """With a device made for it, our filter, and a device that is gone at the end."""
    before = interfaces(machine)
    log, path = machine.share / "extcap.json", machine.share / "extcap.pcapng"
    program = capture(machine, home, path, "-i", "vsockdump", "-f", "type stream")
    assert before | {"vsockmon0"} == interfaces(machine)
    run_scenarios(machine, log, "half_closes", "last")
    machine.wait_for_file(path, LAST_PACKET)
    program.send(signal.SIGINT)
    assert 0 == program.wait().status
    assert before == interfaces(machine)
    assert [truth.get("sent", [0, 0]) for truth in truths(log)] == sent(path)


@ONE_KERNEL
def test_tcpdump_over_ssh(machine: Machine, home: dict[str, str], server: sshd.Server) -> None:
    """The device that ip makes there is up while tcpdump captures, and removed at the end."""
    before = interfaces(machine)
    log, path = machine.share / "ssh.json", machine.share / "ssh.pcap"
    option = "extcap.vsockdump_ssh"
    chosen = ("-o", f"{option}.host:{sshd.HOST}", "-o", f"{option}.command:no-vsockdump")
    settings = {**home, "PATH": server.client_path}
    program = capture(machine, settings, path, "-i", "vsockdump-ssh", *chosen)
    assert before | {"vsockmon0"} == interfaces(machine)
    run_scenarios(machine, log, "half_closes", "last")
    machine.wait_for_file(path, LAST_PACKET)
    program.send(signal.SIGINT)
    assert 0 == program.wait().status
    machine.wait(lambda: before == interfaces(machine), LIMIT_S, "the device to go")
    assert [truth.get("sent", [0, 0]) for truth in truths(log)] == sent(path)
