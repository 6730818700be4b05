"""The command that gets every finished file (-z COMMAND, --postrotate-command).

Rules for editors: no shell ever, a file's name is one argument whatever is in it; and the
capture never waits for a command, only its end does.
"""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_LOWEST_PRIORITY: Final = 19


class PostRotate:
    """Runs `command FILE` in the background; `say` gets a sentence where one fails."""

    def __init__(self, command: str, say: Callable[[str], None]) -> None:
        self._command = command
        self._say = say
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def run(self, path: str) -> None:
        """Give a finished file to the command.

        What it prints goes to stderr: stdout is for packets.  It is in a process group of
        its own, so that ^C ends the capture and not the compression of a file.
        """
        argument = path if not path.startswith("-") else os.path.join(".", path)
        try:
            process = subprocess.Popen(
                [self._command, argument],
                stdin=subprocess.DEVNULL,
                stdout=2,
                process_group=0,
            )
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            self._say(f"Cannot run {self._command} for {path}: {reason}.")
            return
        with suppress(OSError):  # it may have ended already
            os.setpriority(os.PRIO_PROCESS, process.pid, _LOWEST_PRIORITY)
        self._running.append((path, process))

    def reap(self) -> None:
        """Take note of the commands that have ended."""
        running = self._running
        self._running = []
        for path, process in running:
            if process.poll() is None:
                self._running.append((path, process))
            else:
                self._judge(path, process.returncode)

    def wait(self) -> None:
        """Wait until all commands have ended."""
        for path, process in self._running:
            self._judge(path, process.wait())
        self._running = []

    def _judge(self, path: str, status: int) -> None:
        if status:
            how = f"exit status {status}" if status > 0 else f"signal {-status}"
            self._say(f"{self._command} {path} failed with {how}.")
