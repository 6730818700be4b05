"""What a capture can fail with."""


class CaptureError(Exception):
    """A capture that cannot be read on: one sentence, saying what to do where that helps.

    `offset` is the byte of the (decompressed) file where the damage begins, or None where
    the capture could not be opened.  The packets before it have been delivered.
    """

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset
