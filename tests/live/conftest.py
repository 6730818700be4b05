"""Fixtures of the live tests, which need root: network namespaces and packet sockets."""

import os
from collections.abc import Iterator

import pytest
from network import Network


@pytest.fixture
def network() -> Iterator[Network]:
    """A namespace with a device that is up."""
    if os.geteuid():
        pytest.fail("tests/live needs root: it makes network namespaces")
    with Network() as made:
        yield made
