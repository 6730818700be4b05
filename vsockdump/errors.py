"""What all errors of usage have in common, so that the command line need not know each."""


class UsageError(ValueError):
    """Something that was asked for cannot be; one sentence that says what to do."""
