"""What can go wrong by the user's hand or data: told in one line, without a traceback."""

from __future__ import annotations


def printable(text: object) -> str:
    """Text that is safe on a terminal: what does not print, such as an escape, is spelt out.

    Names of files and folders may hold anything.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


class UserError(Exception):
    """A mistake or a circumstance to be told to the user in one line.

    Attributes:
        exit_code: What the process should exit with.
        kind: The word that stands before the message.
    """

    exit_code = 1
    kind = "error"

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().splitlines()))


class ConfigError(UserError, ValueError):
    """A configuration that cannot be run."""

    exit_code = 2


class DatasetError(UserError):
    """The data are damaged, incomplete or could not be fetched."""


class DatasetNotFoundError(DatasetError):
    """The data set is not on this machine, and nothing else is used in its place."""


class RunError(UserError):
    """A run that cannot start or go on, or whose files cannot be read or written."""


class NotFiniteError(UserError, ValueError):
    """Numbers that are infinite or not a number, where any result would be meaningless."""


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
