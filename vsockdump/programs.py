"""Other programs, run to their end."""

import subprocess
from collections.abc import Sequence
from pathlib import Path


def run_to_end(command: Sequence[str | Path], limit_s: float) -> subprocess.CompletedProcess[str]:
    """A program that gets no input: its status, and what it wrote as text, whatever it is.

    Raises OSError where it cannot be started, subprocess.TimeoutExpired where it takes longer.
    """
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit_s,
        check=False,
    )
