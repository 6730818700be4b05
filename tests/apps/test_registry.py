"""The registry: every recogniser sees every protocol's opening, and only one knows it."""

import pytest
from samples import SAMPLES
from talking import heard, split

from vsockdump.apps import registry
from vsockdump.apps.dialogues import EVIDENCE
from vsockdump.apps.protocol import OPENING

ODD_PORT = 47_123  # that nobody is known to use


@pytest.mark.parametrize("size", [1, OPENING])
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_samples_are_recognised_by_their_bytes_alone(name: str, size: int) -> None:
    result = heard(split(SAMPLES[name], size), port=ODD_PORT)
    assert (result.protocol, EVIDENCE[result.evidence]) == (name, "content")


def test_samples_are_of_protocols() -> None:
    assert set(SAMPLES) <= set(registry.codes())
