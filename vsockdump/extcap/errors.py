"""The one exception of the extcap."""


class ExtcapError(Exception):
    """A call that cannot be answered or a capture that cannot be made: one sentence."""
