"""What the terminal program can fail with before it has the screen."""


class ScreenError(Exception):
    """There is no terminal to draw on: one sentence that says what to do."""
