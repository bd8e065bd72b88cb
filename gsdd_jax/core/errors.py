"""Exceptions for what a user can put right."""


class UsageError(ValueError):
    """A wrong flag, file, budget or setting.

    Its message is one line that says what was wrong, where, and what was expected. The launch
    scripts print that line and exit with status 2.
    """


class InUseError(UsageError):
    """Another process has what is needed; later it is free."""
