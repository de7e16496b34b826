"""How TensorFlow Datasets is run here, and how it fetches a file."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager, downloader

from supervised_reptile.errors import DatasetError


@contextlib.contextmanager
def tfds_settings(downloads: Path, progress: bool) -> Iterator[None]:
    """With or without progress bars, few attempts at an address, and no half downloads left.

    Args:
        downloads: Folder of the downloads.
        progress: Whether to show progress bars.
    """
    before = set(downloads.glob("*/*.tmp.*"))
    if not progress:
        tfds.disable_progress_bar()
    try:
        # TFDS's 10 retries keep a machine without network waiting for 3.5 minutes; 5 take 6 s.
        with tfds.core.utils.temporary_assignment(downloader, "MAX_RETRIES", 5):
            yield
    finally:
        tfds.enable_progress_bar()
        for partial in set(downloads.glob("*/*.tmp.*")) - before:
            shutil.rmtree(partial, ignore_errors=True)


def fetch(dl_manager: tfds.download.DownloadManager, url: str) -> Path:
    """Download a file, or find it where an earlier attempt left it.

    Args:
        dl_manager: TFDS's; it holds what it knows the checksum of to that.
        url: Address of the file.

    Raises:
        DatasetError: The file cannot be had, or is not the expected one.
    """
    try:
        return Path(dl_manager.download(url))
    except download_manager.NonMatchingChecksumError as error:
        raise DatasetError(
            f"{url} is not the expected archive (its size or sha256 differs): the download is "
            "damaged or the file is another; nothing of it is used"
        ) from error
    except (tfds.download.DownloadError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DatasetError(
            f"{url} could not be downloaded; if you have the archives, use --from ({reason})"
        ) from error
