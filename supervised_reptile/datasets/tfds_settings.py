"""How TensorFlow Datasets is run here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader


@contextlib.contextmanager
def tfds_settings(progress: bool) -> Iterator[None]:
    """With or without progress bars, and with fewer attempts at an address that does not answer."""
    if not progress:
        tfds.disable_progress_bar()
    try:
        # TFDS's 10 retries keep a machine without network waiting for 3.5 minutes; 5 take 6 s.
        with tfds.core.utils.temporary_assignment(downloader, "MAX_RETRIES", 5):
            yield
    finally:
        tfds.enable_progress_bar()
