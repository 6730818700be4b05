"""The status of a remote call, as gRPC numbers them; ttRPC uses the same.

Source: the gRPC project's statuscodes.md.
"""

from enum import IntEnum


class StatusCode(IntEnum):
    """How a call ended."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


def status_text(code: int, message: str = "") -> str:
    """A status as it is shown: its name, and what the server says of it."""
    name = StatusCode(code).name if 0 <= code < len(StatusCode) else f"status {code}"
    return f"{name}: {message}" if message else name
