"""A real terminal for tests: tmux with a server of its own."""

import subprocess
import time
from pathlib import Path


class Tmux:
    """A terminal with a shell in it."""

    def __init__(self, socket: Path) -> None:
        self._base = ["tmux", "-S", str(socket), "-f", "/dev/null"]

    def run(self, *arguments: str) -> str:
        """A command of tmux."""
        done = subprocess.run(
            [*self._base, *arguments], capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout

    def start(self, command: str, columns: int, rows: int) -> None:
        """Run a command; its exit status is shown behind it."""
        size = ["-x", str(columns), "-y", str(rows)]
        line = f"{command}; echo status $?; stty -a | grep -o -- '-\\?icanon'; cat"
        self.run("new-session", "-d", "-s", "tui", *size, "sh", "-c", line)

    def screen(self) -> str:
        """What it shows."""
        return self.run("capture-pane", "-p", "-t", "tui")

    def until(self, text: str) -> str:
        """Wait until the screen has the text; the screen."""
        for _ in range(200):
            if text in (shown := self.screen()):
                return shown
            time.sleep(0.1)
        raise AssertionError(f"no {text!r} on the screen:\n{shown}")

    def keys(self, *keys: str) -> None:
        """Press keys."""
        self.run("send-keys", "-t", "tui", *keys)

    def end(self) -> None:
        """End it, and what runs in it."""
        subprocess.run([*self._base, "kill-server"], capture_output=True, check=False)
