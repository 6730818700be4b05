"""What an output can fail with."""

import os


class OutputError(Exception):
    """Output that cannot be written (on): one sentence, saying what to do where that helps.

    `denied`: this user may not write there.
    """

    def __init__(self, message: str, denied: bool = False) -> None:
        super().__init__(message)
        self.denied = denied


def cannot_write(name: str, error: OSError) -> OutputError:
    """The error for a file, or stdout, that the system does not let us write."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return OutputError(f"Cannot write {name}: {reason}.", isinstance(error, PermissionError))
