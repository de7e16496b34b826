"""Where data sets lie."""

import os
from pathlib import Path

FOLDER = "folder:"
"""What stands before the name of a user's own data set: images in a folder a class."""


def default_data_dir() -> str:
    """Returns the directory of the data sets: $SUPERVISED_REPTILE_DATA, or else "data"."""
    return os.environ.get("SUPERVISED_REPTILE_DATA") or "data"


def is_image_folder(directory: Path) -> bool:
    """Returns whether a directory is itself a data set: it holds train and test, each a folder.

    A zip file of that name stands for the folder.
    """
    return all(
        (directory / split).is_dir() or (directory / f"{split}.zip").is_file()
        for split in ("train", "test")
    )
