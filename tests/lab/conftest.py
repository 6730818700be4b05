"""Fixtures of the lab: a machine for each kernel, and a recording of traffic made in it."""

from collections.abc import Iterator

import pytest
from kernel import KERNELS, kernel
from machine import Machine, boot
from recording import Recording, record


@pytest.fixture(scope="session", params=KERNELS)
def machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A machine with each of the kernels, one after the other."""
    share = tmp_path_factory.mktemp("share")
    with boot(kernel(request.param), share) as running:
        yield running


@pytest.fixture(scope="session")
def recording(machine: Machine) -> Recording:
    """All the lab's traffic, captured in the machine."""
    return record(machine)
