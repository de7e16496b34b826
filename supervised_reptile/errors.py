"""What can go wrong by the user's hand or data: told in one line, without a traceback."""

from __future__ import annotations

import sys


def printable(text: object) -> str:
    """The text with everything escaped that a terminal would obey or could not show.

    Names of files, of members of archives and of classes come from outside: they may hold terminal
    escapes, line breaks, bytes that are no text, or characters that change the direction of
    writing.
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in str(text)
    )


def warn(text: str) -> None:
    """Print one line of warning on stderr."""
    print(f"warning: {printable(text)}", file=sys.stderr, flush=True)


class UserError(Exception):
    """A mistake or a circumstance to be told to the user in one line.

    Attributes:
        exit_code: What the process should exit with.
        kind: The word that stands before the message.
    """

    exit_code = 1
    kind = "error"

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message).replace("\n", " ")))


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
