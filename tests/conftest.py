"""Fixtures that more than one test file uses."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from reading import SCANNERS
from running import ALL_CAPTURES

TIME_LIMIT_S = 60


@pytest.fixture(params=sorted(SCANNERS))
def build(request: pytest.FixtureRequest) -> str:
    """Each build of the scanner: the installed one, and the source as Python runs it."""
    return str(request.param)


@pytest.fixture(params=ALL_CAPTURES, ids=lambda path: path.name)
def sample(request: pytest.FixtureRequest) -> bytes:
    """The bytes of each capture that ships."""
    content: bytes = request.param.read_bytes()
    return content


@pytest.fixture
def time_limit() -> Iterator[None]:
    """Fails a test that waits for ever, as a reader that reads too much from a pipe would."""

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the test waits for more than {TIME_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(TIME_LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
