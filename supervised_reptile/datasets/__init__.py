"""Few-shot data sets by name, each as one ``FewShotDataset``."""

from __future__ import annotations

import importlib
from pathlib import Path

from supervised_reptile.config.locations import FOLDER
from supervised_reptile.datasets.few_shot import FewShotDataset, SizeCheck
from supervised_reptile.errors import DatasetError, DatasetNotFoundError

__all__ = ["DatasetError", "DatasetNotFoundError", "FewShotDataset", "load_dataset"]

# Name -> module with a function `load(*, data_dir, seed, progress) -> FewShotDataset`. A module
# is imported on demand, so only a data set that needs TFDS imports it.
_CHARACTERS = {
    "glyphs": "supervised_reptile.datasets.glyphs",
    "omniglot": "supervised_reptile.datasets.omniglot",
}


def load_dataset(
    name: str,
    *,
    data_dir: str | Path = "data",
    seed: int = 0,
    image_size: int | None = None,
    resize: str = "nearest",
    progress: bool = True,
    verify: bool = False,
    check: SizeCheck | None = None,
) -> FewShotDataset:
    """Load a data set.

    Args:
        name: ``"omniglot"``, ``"glyphs"``, ``"miniimagenet"``, or ``"folder:NAME"`` for the
            images in a folder of that name, by split and class.
        data_dir: Folder of the prepared data sets, or that folder NAME itself; ``"glyphs"``
            needs none.
        seed: Seed of the split of the characters. The split of photographs is fixed.
        image_size: Height and width in pixels. ``None`` means 28 for characters, which have no
            other size, and 84 for photographs.
        resize: Pillow filter that resizes photographs.
        progress: Whether to show a progress bar during long work.
        verify: Whether to check every byte of prepared photographs, even if the file has not
            changed since the last check. Characters are checked every time.
        check: Function that receives the number of images per class, by split, before any
            photograph is decoded. It may raise an error.

    Returns:
        The data set: uint8 images [num_images, height, width, channels] and their classes. Images
        of photographs are a memory map.

    Raises:
        ValueError: The name is unknown, or characters are requested in another size.
        DatasetNotFoundError: The data set is not in ``data_dir``. No other data set replaces it.
        DatasetError: The data in ``data_dir`` are damaged or incomplete.

    Example:
        >>> dataset = load_dataset("glyphs", seed=0)
        >>> dataset.images.shape
        (104460, 28, 28, 1)
    """
    if name in _CHARACTERS:
        if image_size not in (None, 28):
            raise ValueError(f"image_size must be 28 for {name}. Received: {image_size}")
        module = importlib.import_module(_CHARACTERS[name])
        dataset = module.load(data_dir=Path(data_dir), seed=seed, progress=progress)
        return _checked(dataset, check)
    own = name.startswith(FOLDER) and name != FOLDER
    if name != "miniimagenet" and not own:
        known = ", ".join(sorted([*_CHARACTERS, "miniimagenet", "folder:NAME"]))
        raise ValueError(f"name must be one of {known}. Received: {name!r}")
    photographs = importlib.import_module("supervised_reptile.datasets.images.photographs")
    store = photographs.ImageStore(name, Path(data_dir), image_size or 84, resize)
    dataset = photographs.load(store, progress=progress, verify_all=verify, check=check)
    return _checked(dataset, check)


def _checked(dataset: FewShotDataset, check: SizeCheck | None) -> FewShotDataset:
    if check:
        check({split: dataset.class_sizes(split).tolist() for split in dataset.splits})
    return dataset
