"""Errors caused by the user or the data, reported in one line without a traceback."""

from __future__ import annotations

import sys


def printable(text: object) -> str:
    """Escape every character that a terminal would interpret or could not show.

    Names of files, archive members and classes come from outside. They may contain terminal
    escapes, line breaks, invalid text, or characters that change the direction of writing.
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in str(text)
    )


def warn(text: str) -> None:
    """Print a one-line warning on stderr."""
    print(f"warning: {printable(text)}", file=sys.stderr, flush=True)


class UserError(Exception):
    """A mistake or a circumstance that is reported to the user in one line.

    Attributes:
        exit_code: Exit code of the process.
        kind: The word before the message.
    """

    exit_code = 1
    kind = "error"

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message).replace("\n", " ")))


class ConfigError(UserError, ValueError):
    """A configuration that cannot be run."""

    exit_code = 2


class DatasetError(UserError):
    """Data that are damaged, incomplete or could not be fetched."""


class DatasetNotFoundError(DatasetError):
    """A data set that is not on this machine; no other data set replaces it."""


class RunError(UserError):
    """A run that cannot start or continue, or whose files cannot be read or written."""


class NotFiniteError(UserError, ValueError):
    """Numbers that are infinite or NaN and would make any result meaningless."""


class RunInterrupted(UserError):
    """A run that was stopped by a signal, with everything saved.

    Args:
        message: How to resume.
        signal_number: The signal. The exit code is 128 plus this number, as shells expect.
    """

    kind = "stopped"

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
