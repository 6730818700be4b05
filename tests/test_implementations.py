"""Ends of all implementations: healthy runs are accused of nothing, faults are found.

`tests/simulate RUNS` tries as many as one likes.
"""

import pytest
from implementations import FAULTS, KILLED, KINDS, Run, broken, healthy, restored, thinned
from judging import cases_of, wrong_in, wrong_with_losses

RUNS = range(150)


@pytest.mark.parametrize("seed", RUNS)
def test_healthy_runs_are_not_accused(seed: int) -> None:
    """No warning, no error, and no stall that the simulated ends did not have."""
    assert [] == wrong_in(healthy(seed))


@pytest.mark.parametrize("seed", RUNS)
def test_what_a_capture_missed_is_no_error(seed: int) -> None:
    """Of credit: what a lost packet explains is doubted, and nothing is a reset for overrun."""
    assert [] == wrong_with_losses(thinned(seed))


@pytest.mark.parametrize("seed", range(60))
def test_a_restored_guest_is_not_accused(seed: int) -> None:
    """Its addresses are used again and accepted: worth a note, and two connections."""
    run = restored(seed)
    assert [] == wrong_in(run)
    cases = cases_of(run.traffic.seen)
    assert 2 == sum(case.rule.name == "vsock.connect.reopened" for case in cases)


@pytest.mark.parametrize("name", [*FAULTS, KILLED])
def test_faults_are_found(name: str) -> None:
    """By their names, wherever a run has a place for one."""
    tried = [(seed, packets) for seed in range(40) if (packets := broken(name, seed))]
    assert len(tried) > 10
    missed = [
        seed
        for seed, packets in tried
        if name not in {case.rule.name for case in cases_of(packets)}
    ]
    assert [] == missed


def test_the_runs_are_of_all_kinds() -> None:
    """Every implementation is there, with waits at its own buffer and without."""
    runs: list[Run] = [healthy(seed) for seed in range(60)]
    seen = {name for run in runs for pair in run.names for name in pair}
    assert KINDS.keys() == seen
    assert any(conn.peers[0].blocked for run in runs for conn in run.connections)
