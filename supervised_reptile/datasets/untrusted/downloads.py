"""Run TensorFlow Datasets and fetch files with it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager, downloader

from supervised_reptile.datasets.untrusted.guards import why
from supervised_reptile.errors import DatasetError
from supervised_reptile.progress import is_on_terminal

_SYSTEM = "|".join(re.escape(os.strerror(number)) for number in range(1, 134))


@contextlib.contextmanager
def tfds_settings(downloads: Path, progress: bool) -> Iterator[None]:
    """Set TFDS's progress bars, reduce its retries, and remove incomplete downloads.

    Args:
        downloads: Folder of the downloads.
        progress: Whether to show progress bars, on a terminal.
    """
    before = set(downloads.glob("*/*.tmp.*"))
    notes = logging.getLogger("absl")
    level = notes.level
    notes.setLevel(logging.ERROR)  # TFDS warns about folders that it has just created
    if not (progress and is_on_terminal()):
        tfds.disable_progress_bar()
    try:
        # Without a network, TFDS's 10 retries take 3.5 minutes; 5 take 6 s.
        with tfds.core.utils.temporary_assignment(downloader, "MAX_RETRIES", 5):
            yield
    finally:
        notes.setLevel(level)
        tfds.enable_progress_bar()
        for partial in set(downloads.glob("*/*.tmp.*")) - before:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def writing(folder: str | Path, finished: Callable[[], bool]) -> Iterator[None]:
    """Report in one line a folder that cannot be written, e.g. on a full disk.

    Args:
        folder: Folder of the prepared data.
        finished: Function that returns whether a parallel process has finished the same work. In
            this case errors are ignored.

    Raises:
        DatasetError: Replaces errors of the system, TensorFlow and array_record.
    """
    try:
        yield
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        if not finished():
            raise DatasetError(f"{folder} could not be written: {_system_reason(error)}") from error


def _system_reason(error: Exception) -> str:
    """Return the operating system's message, without the text of libraries."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename is not None else "")
    match = re.search(_SYSTEM, str(error))
    return match[0] if match else why(error)


def fetch(dl_manager: tfds.download.DownloadManager, url: str) -> Path:
    """Download a file, or find it where an earlier attempt left it.

    Args:
        dl_manager: Download manager of TFDS, which verifies known checksums.
        url: Address of the file.

    Raises:
        DatasetError: The file is not available, or is not the expected one.
    """
    try:
        return Path(dl_manager.download(url))
    except download_manager.NonMatchingChecksumError as error:
        raise DatasetError(
            f"{url} is not the expected archive (its size or sha256 differs): the download is "
            "damaged or the file is another; nothing of it is used"
        ) from error
    except (tfds.download.DownloadError, OSError) as error:
        unreachable = isinstance(error, requests.exceptions.ConnectionError)
        reason = f"no connection to {urlsplit(url).hostname}" if unreachable else why(error)
        raise DatasetError(
            f"{url} could not be downloaded; if you have the archives, use --from ({reason})"
        ) from error
