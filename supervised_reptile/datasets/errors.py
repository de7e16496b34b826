"""Errors of the data layer. Each message is one line that says what to do next."""

from __future__ import annotations


class DatasetError(RuntimeError):
    """The data are damaged, incomplete or could not be fetched."""


class DatasetNotFoundError(DatasetError):
    """The data set is not on this machine, and nothing else is used in its place."""
