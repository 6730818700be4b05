"""Real programs: what vsockdump hears in the captures of them is what they logged.

The captures and logged.json are made by tests/lab/program_recording.py.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from logs import FORMS, compare
from proving import known, nothing_else
from running import CAPTURES
from talking import hear_file

from vsockdump.apps.message import Message

PORTS = range(7101, 7117)  # of the scenarios
LOGGED = json.loads((Path(__file__).parent / "logged.json").read_text())


def test_every_scenario_is_compared() -> None:
    captures = {path.stem.removeprefix("app_") for path in CAPTURES.glob("app_*")}
    assert captures == set(LOGGED) == set(FORMS)


@pytest.mark.parametrize("name", LOGGED)
def test_heard_is_what_was_logged(name: str) -> None:
    compare(name, LOGGED[name], CAPTURES / f"app_{name}.pcapng")


def without_names(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same of gRPC where a call's headers, which name its service, were missed.

    Its first message stands with these headers, and without them by itself.
    """
    alone = [{key: one[key] for key in ("stream", "message")} for one in told if "message" in one]
    return [{**one, "service": ""} for one in [*told, *alone]]


def unless_said(messages: list[Message]) -> list[Message]:
    """Those that do not say themselves that their headers lack what was missed."""
    return [one for one in messages if "[header table lost]" not in repr(one.fields)]


@pytest.mark.parametrize("name", LOGGED)
def test_what_is_passed_over_is_a_gap(name: str) -> None:
    """Wherever a live capture falls behind, nothing is said that was not, and it goes on."""
    path = str(CAPTURES / f"app_{name}.pcapng")
    protocol = hear_file(path).protocol  # which what is left may not tell
    ports = {} if protocol == "raw" else dict.fromkeys(PORTS, protocol)
    whole = hear_file(path, ports=ports)
    told = [known(message) for message in whole.messages]
    if name == "grpc":
        told += without_names(told)
    batches = range(-(-len(whole.codes) // 4))
    passed_over = 0
    for seed in range(10):
        behind = random.Random(seed).sample(batches, len(batches) // 3)
        result = hear_file(path, rows=4, ports=ports, behind=behind)
        passed_over += result.passed_over
        nothing_else(unless_said(result.messages), told)
    assert passed_over or name == "raw"
    first = hear_file(path, rows=len(whole.codes) // 2, ports=ports, behind=[0])
    assert len(first.codes) == len(whole.codes)
    nothing_else(unless_said(first.messages), told)
    assert not hear_file(path, ports=ports, behind=batches).messages
