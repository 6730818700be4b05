"""Makes the README's picture of Wireshark: its window, with a capture and vsockdump's parts.

    python tests/wireshark_window.py [CAPTURE [PICTURE]]

Needs what the other tests do not: Debian's wireshark, xvfb, xdotool and imagemagick.  It is
the real program on a screen in memory, with a home of its own; look at the picture.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from running import CAPTURES, PROGRAM, TIME_LIMIT_S, environment

PICTURE: Final = Path(__file__).parent.parent / "dissectors" / "wireshark.png"
CAPTURE: Final = CAPTURES / "k612_shutdowns.pcap"
SIZE: Final = (1280, 800)
SETTLED_S: Final = 5  # for what Wireshark draws when its window is there
COLOURS: Final = 64  # enough for a window, and a small file
_LAYOUT: Final = """\
gui.geometry_main_x: 0
gui.geometry_main_y: 0
gui.geometry_main_width: {}
gui.geometry_main_height: {}
"""


@contextmanager
def running(*command: str | Path, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is ended behind the block."""
    with subprocess.Popen(command, **settings) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def screen(home: Path) -> Iterator[dict[str, str]]:
    """A screen in memory, and the environment of programs that draw on it."""
    ours, theirs = os.pipe()
    size = "x".join(map(str, (*SIZE, 24)))
    command = ("Xvfb", "-displayfd", str(theirs), "-screen", "0", size, "-nolisten", "tcp")
    with running(*command, pass_fds=(theirs,), stderr=subprocess.DEVNULL):
        os.close(theirs)
        display = os.read(ours, 16).decode().strip()
        os.close(ours)
        yield environment(
            DISPLAY=f":{display}", HOME=str(home), XDG_CONFIG_HOME="", XDG_RUNTIME_DIR=str(home)
        )


def wait_for_window(title: str, settings: dict[str, str]) -> None:
    """Until a window's title holds this, and all of it is drawn."""
    until = time.monotonic() + TIME_LIMIT_S
    search = ("xdotool", "search", "--onlyvisible", "--name", title)
    while subprocess.run(search, env=settings, capture_output=True).returncode:
        if time.monotonic() > until:
            sys.exit(f"Wireshark did not open {title}.")
        time.sleep(0.2)
    time.sleep(SETTLED_S)


def main(capture: Path = CAPTURE, picture: Path = PICTURE) -> None:
    """Take the picture."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        settings = home / ".config" / "wireshark"
        settings.mkdir(parents=True)
        (settings / "recent").write_text(_LAYOUT.format(*SIZE))
        (settings / "recent_common").write_text(_LAYOUT.format(*SIZE))
        with screen(home) as environ:
            subprocess.run([PROGRAM, "--install-wireshark"], env=environ, check=True)
            with running("wireshark", capture.resolve(), env=environ, stderr=subprocess.DEVNULL):
                wait_for_window(capture.name, environ)
                shot = ("import", "-window", "root", "-colors", str(COLOURS), picture.resolve())
                subprocess.run(shot, env=environ, check=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
