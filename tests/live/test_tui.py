"""The terminal program on a device that is captured, in a real terminal."""

import shlex
from pathlib import Path

from network import Network
from running import environment
from scenario import build_frame
from terminal import Tmux

from vsockdump.address import Endpoint
from vsockdump.wire import Op


def frame(port: int) -> bytes:
    """A frame that opens a connection."""
    return build_frame(Endpoint(3, 40000), Endpoint(2, port), Op.REQUEST)


def start(tmux: Tmux, network: Network, folder: Path, *arguments: str) -> None:
    """Start the program inside, with settings and state in a folder of the test's."""
    variables = environment(XDG_CONFIG_HOME=str(folder), XDG_STATE_HOME=str(folder))
    given = [f"{name}={variables[name]}" for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME")]
    command = shlex.join(["env", *given, *network.vsockdump(*arguments)])
    tmux.start(command, 100, 30)


def test_a_capture_is_started_anew_without_rights(
    network: Network, tmux: Tmux, tmp_path: Path
) -> None:
    """Though they were given up; an interface that is none costs nothing."""
    start(tmux, network, tmp_path, "--tui", "-i", network.name)
    tmux.until("listening on")
    network.send(frame(7001))
    tmux.until("host:7001")
    tmux.keys("S")
    tmux.until("ended")
    tmux.keys("R")
    tmux.until("live")
    network.send(frame(7002))
    tmux.until("host:7002")
    assert "host:7001" not in tmux.screen()
    tmux.keys("I")
    tmux.until("Capture the interface")
    tmux.keys("nosuch0", "Enter")
    tmux.until("nosuch0")
    tmux.keys("I")
    tmux.until("Capture the interface")
    tmux.keys(network.name, "Enter")
    tmux.until("live")
    network.send(frame(7003))
    tmux.until("host:7003")
    tmux.keys("q")
    assert "status 0" in tmux.until("icanon")


def test_without_any_option_it_starts_where_there_is_a_device(
    network: Network, tmux: Tmux, tmp_path: Path
) -> None:
    """And shows what comes."""
    start(tmux, network, tmp_path)
    tmux.until("live")
    network.send(frame(7001))
    tmux.until("host:7001")
    tmux.keys("q")
    assert "status 0" in tmux.until("icanon")
