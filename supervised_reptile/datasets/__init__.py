"""Few-shot data sets by name, each as one in-memory `FewShotDataset`."""

from __future__ import annotations

import importlib
from pathlib import Path

from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import DatasetError, DatasetNotFoundError

__all__ = ["DATASETS", "DatasetError", "DatasetNotFoundError", "FewShotDataset", "load_dataset"]

# Name -> module with a function `load(*, data_dir, seed, progress) -> FewShotDataset`. The module
# is imported when asked for, so that only a data set that needs TFDS imports it.
DATASETS = {
    "glyphs": "supervised_reptile.datasets.glyphs",
    "omniglot": "supervised_reptile.datasets.omniglot",
}


def load_dataset(
    name: str, *, data_dir: str | Path = "data", seed: int, progress: bool = True
) -> FewShotDataset:
    """Load a data set into memory.

    Args:
        name: ``"omniglot"`` or ``"glyphs"``.
        data_dir: Folder of the prepared data sets; ``"glyphs"`` needs none.
        seed: Seed of the split into training and test classes.
        progress: Whether to show a progress bar during long work.

    Returns:
        The data set: uint8 images [num_images, height, width, channels], and their classes.

    Raises:
        ValueError: If the name is unknown.
        DatasetNotFoundError: If the data set is not in `data_dir`. No other data set takes its
            place.
        DatasetError: If the data in `data_dir` are damaged or incomplete.

    Example:
        >>> dataset = load_dataset("glyphs", seed=0)
        >>> dataset.images.shape
        (104460, 28, 28, 1)
    """
    if name not in DATASETS:
        raise ValueError(f"name must be one of {', '.join(sorted(DATASETS))}. Received: {name!r}")
    module = importlib.import_module(DATASETS[name])
    return module.load(data_dir=Path(data_dir), seed=seed, progress=progress)
