"""What can go wrong by the user's hand or data: told in one line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake or a circumstance to be told to the user in one line.

    Attributes:
        exit_code: What the process should exit with.
        kind: The word that stands before the message.
    """

    exit_code = 1
    kind = "error"


class ConfigError(UserError, ValueError):
    """A configuration that cannot be run."""

    exit_code = 2


class DatasetError(UserError):
    """The data are damaged, incomplete or could not be fetched."""


class DatasetNotFoundError(DatasetError):
    """The data set is not on this machine, and nothing else is used in its place."""


class RunError(UserError):
    """A run that cannot start or go on."""


class RunInterrupted(UserError):
    """A run that a signal stopped, with everything saved.

    Args:
        message: How to go on.
        signal_number: The signal; the exit code is 128 more, as shells expect.
    """

    kind = "stopped"

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
