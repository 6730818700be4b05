"""Real programs: what vsockdump hears in the captures of them is what they logged.

The captures and logged.json are made by tests/lab/program_recording.py.
"""

import json
from pathlib import Path

import pytest
from logs import FORMS, compare
from running import CAPTURES

LOGGED = json.loads((Path(__file__).parent / "logged.json").read_text())


def test_every_scenario_is_compared() -> None:
    captures = {path.stem.removeprefix("app_") for path in CAPTURES.glob("app_*")}
    assert captures == set(LOGGED) == set(FORMS)


@pytest.mark.parametrize("name", LOGGED)
def test_heard_is_what_was_logged(name: str) -> None:
    compare(name, LOGGED[name], CAPTURES / f"app_{name}.pcapng")
