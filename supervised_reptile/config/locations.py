"""Locations of data sets."""

import os
from pathlib import Path

FOLDER = "folder:"
"""Prefix of the name of a user's own data set, with one folder of images per class."""


def default_data_dir() -> str:
    """Return the directory of the data sets: ``$SUPERVISED_REPTILE_DATA``, or else "data"."""
    return os.environ.get("SUPERVISED_REPTILE_DATA") or "data"


def is_image_folder(directory: Path) -> bool:
    """Return whether a directory is itself a data set, with folders ``train`` and ``test``.

    A zip file of the same name may replace a folder.
    """
    return all(
        (directory / split).is_dir() or (directory / f"{split}.zip").is_file()
        for split in ("train", "test")
    )
