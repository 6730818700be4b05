"""Makes the README's picture of Wireshark: its window, with a capture and vsockdump's parts.

    python tests/wireshark_window.py [CAPTURE [PACKET [PICTURE]]]

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

from vsockdump.wireshark import PROFILE

PICTURE: Final = Path(__file__).parent.parent / "dissectors" / "wireshark.png"
CAPTURE: Final = CAPTURES / "k61_fakeguest.pcap"
PACKET: Final = 38  # the one that is shown in full
SIZE: Final = (1280, 800)
SETTLED_S: Final = 5  # for what Wireshark draws when its window is there
COLOURS: Final = 64  # enough for a window, and a small file
DETAILS: Final = (100, 560)  # a place in the window
_LAYOUT: Final = """\
gui.geometry_main_x: 0
gui.geometry_main_y: 0
gui.geometry_main_width: {}
gui.geometry_main_height: {}
gui.geometry_main_master_split: 300
privs.warn_if_elevated: FALSE
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
    command = (
        "Xvfb",
        "-displayfd",
        str(theirs),
        "-screen",
        "0",
        size,
        "-nolisten",
        "tcp",
    )
    with running(*command, pass_fds=(theirs,), stderr=subprocess.DEVNULL):
        os.close(theirs)
        with os.fdopen(ours) as answer:
            display = answer.readline().strip()
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


def press(settings: dict[str, str], *words: str | int) -> None:
    """Let xdotool act as a user does."""
    subprocess.run(["xdotool", *map(str, words)], env=settings, check=True)
    time.sleep(1)


def take(picture: Path, settings: dict[str, str]) -> None:
    """The screen as a small file."""
    shot = subprocess.run(
        ["import", "-window", "root", "png:-"], env=settings, capture_output=True, check=True
    ).stdout
    few = ["+dither", "-colors", str(COLOURS), "-strip", f"png8:{picture}"]
    subprocess.run(["convert", "png:-", *few], input=shot, check=True)


def main(
    capture: str = str(CAPTURE), packet: str = str(PACKET), picture: str = str(PICTURE)
) -> None:
    """Take the picture."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        own = home / ".config" / "wireshark"
        own.mkdir(parents=True)
        for name in ("recent", "recent_common"):
            (own / name).write_text(_LAYOUT.format(*SIZE))
        with screen(home) as settings:
            subprocess.run([PROGRAM, "--install-wireshark"], env=settings, check=True)
            command = ("wireshark", "-C", PROFILE, "-g", packet, Path(capture).resolve())
            with running(*command, env=settings, stderr=subprocess.DEVNULL):
                wait_for_window(Path(capture).name, settings)
                press(settings, "mousemove", *DETAILS, "click", 1)
                press(settings, "key", "ctrl+Right", "End")
                take(Path(picture).resolve(), settings)


if __name__ == "__main__":
    main(*sys.argv[1:])
