"""Recordings of real programs on AF_VSOCK: a capture of each scenario, and what was logged.

`python tests/lab/program_recording.py [NAME...]` makes the captures/app_*.pcapng and
tests/apps/logged.json anew; tests/apps/test_recorded.py compares these with what
vsockdump hears, test_programs.py records anew and compares that.

All scenarios (programs/scenarios.py) run one after the other in one machine, captured by
one vsockdump, whose file is then cut by their ports.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))  # when run as a program

from kernel import KERNELS, LabError, kernel
from machine import Machine, Result, boot
from recording import LAST_PACKET, monitor, run_scenarios
from running import CAPTURES, PROGRAM, lines

PROGRAMS: Final = Path(__file__).parent / "programs"
LOGGED: Final = Path(__file__).parent.parent / "apps" / "logged.json"
GO: Final = "/usr/bin/go"
GO_PACKAGES: Final = "/usr/share/gocode"  # where Debian's golang-*-dev put their sources
LIMIT_S: Final = 600  # on a busy machine; about 60 otherwise
STATISTICS: Final = ("--json", "-z", "apps", "-z", "rpc")
Records = dict[str, dict[str, Any]]


def build(folder: Path) -> None:
    """Build what is no script into a folder."""
    if not os.path.exists(GO):
        raise LabError(f"{GO} is missing: tests/run installs what the lab needs")
    environment = {"GO111MODULE": "off", "GOPATH": GO_PACKAGES, "CGO_ENABLED": "0"}
    source = PROGRAMS / "ttrpc_service.go"
    command = [GO, "build", "-o", str(folder / source.stem), str(source)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    if done.returncode:
        raise LabError(f"{source.name} does not build: {done.stderr}")


class Recorded(NamedTuple):
    """What the programs logged, the capture of all of it, and a folder of one for each scenario.

    `live` is what vsockdump came to, which captured and counted.
    """

    records: Records
    capture: Path
    folder: Path
    live: Result


def record_programs(machine: Machine, folder: Path, names: Iterable[str] = ()) -> Recorded:
    """Run these scenarios, or all; put app_NAME.pcapng of each into the folder."""
    build(machine.share)
    capture, log = machine.share / "programs.pcapng", machine.share / "programs.json"
    with monitor(machine) as device:
        program = machine.start(PROGRAM, "-i", device, "-w", capture, *STATISTICS)
        program.says("listening on")
        script = PROGRAMS / "scenarios.py"
        result = machine.run(sys.executable, script, log, machine.share, *names, limit_s=LIMIT_S)
        assert 0 == result.status, result.err
        run_scenarios(machine, log.with_suffix(".last"), "last")
        machine.wait_for_file(capture, LAST_PACKET)
        program.send(signal.SIGINT)
        live = program.wait()
    records: Records = json.loads(log.read_text())
    for name, record in records.items():
        lines("-r", capture, "-w", folder / f"app_{name}.pcapng", f"port {record['port']}")
    return Recorded(records, capture, folder, live)


def write(records: Records, path: Path) -> None:
    """Write the records, a connection a line."""
    parts = []
    for name, record in records.items():
        connections = ",\n   ".join(map(json.dumps, record["connections"]))
        facts = {key: value for key, value in record.items() if key != "connections"}
        head = json.dumps(facts).removesuffix("}")
        parts.append(f' "{name}": {head}, "connections": [\n   {connections}\n ]}}')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def main(names: list[str]) -> None:
    """Record these scenarios, or all, and keep what was recorded."""
    with tempfile.TemporaryDirectory() as share, tempfile.TemporaryDirectory() as made:
        with boot(kernel(next(iter(KERNELS))), Path(share)) as machine:
            records = record_programs(machine, Path(made), names).records
        for capture in Path(made).iterdir():
            shutil.copy(capture, CAPTURES / capture.name)
    write({**json.loads(LOGGED.read_text()), **records}, LOGGED)


if __name__ == "__main__":
    main(sys.argv[1:])
