"""Fixtures that more than one test file uses."""

import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from reading import SCANNERS
from running import ALL_CAPTURES
from terminal import Tmux

pytest.register_assert_rewrite("logs")  # which asserts for tests of two folders

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


@pytest.fixture(autouse=True)
def keeps_the_process() -> Iterator[None]:
    """What main() sets for a process of its own would outlive its test in pytest's."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGINT)}
    threshold = gc.get_threshold()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    gc.set_threshold(*threshold)


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    """A terminal of its own."""
    terminal = Tmux(tmp_path / "socket")
    yield terminal
    terminal.end()


@pytest.fixture
def time_limit() -> Iterator[None]:
    """Fails a test that waits for ever, as a reader that reads too much from a pipe would."""

    def expire(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail(f"the test waits for more than {TIME_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(TIME_LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--no-skips`: what tests/run asks for, since it has installed what tests need."""
    parser.addoption("--no-skips", action="store_true", help="fail if any test was skipped")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skip hides a missing tool."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped") if reporter else None
    if session.config.getoption("--no-skips") and skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
