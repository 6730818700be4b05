"""Real programs, recorded anew: what vsockdump hears of them is what they log.

As tests/apps/test_recorded.py, with the programs of today, and captured live; see
program_recording.py.  On one kernel: what programs say does not depend on it.
"""

import pytest
from logs import FORMS, compare
from machine import Machine
from program_recording import STATISTICS, Recorded, record_programs
from running import lines

pytestmark = pytest.mark.parametrize("machine", ["6.12"], indirect=True, scope="session")


@pytest.fixture(scope="module")
def recorded(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """All scenarios, recorded once."""
    return record_programs(machine, tmp_path_factory.mktemp("programs"))


def test_counted_live(recorded: Recorded) -> None:
    """`-z apps` and `-z rpc` at the end of the capture are those of the file that it wrote."""
    assert 0 == recorded.live.status, recorded.live.err
    assert lines("-r", recorded.capture, *STATISTICS) == recorded.live.out.splitlines()


@pytest.mark.parametrize("name", FORMS)
def test_heard_is_what_was_logged(recorded: Recorded, name: str) -> None:
    """Protocols, methods, counts, errors and order."""
    capture = recorded.folder / f"app_{name}.pcapng"
    compare(name, recorded.records[name], capture)
