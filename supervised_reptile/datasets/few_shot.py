"""The one in-memory form of every data set: images by class, classes by split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class FewShotDataset:
    """Images grouped by class, classes grouped by split.

    Class ``c`` owns the images ``images[class_offsets[c]:class_offsets[c + 1]]``; classes may
    differ in their number of images. A network sees ``images[i] * pixel_scale`` as float32.

    Attributes:
        name: Name of the data set, as ``--dataset`` spells it.
        images: uint8 [num_images, height, width, channels].
        class_offsets: int64 [num_classes + 1], rising from 0 to ``num_images``.
        class_names: One readable name a class, length ``num_classes``.
        splits: Split name (``"train"``, ``"test"``, for some sets ``"validation"``) to the int64
            ids of its classes; no class is in two splits.
        pixel_scale: Factor from the stored bytes to the network's input.
    """

    name: str
    images: np.ndarray
    class_offsets: np.ndarray
    class_names: tuple[str, ...]
    splits: Mapping[str, np.ndarray]
    pixel_scale: float

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(
                "images must be uint8 [num_images, height, width, channels]. "
                f"Received: {self.images.dtype} {self.images.shape}"
            )
        offsets = self.class_offsets
        if offsets[0] != 0 or offsets[-1] != len(self.images) or (np.diff(offsets) < 1).any():
            raise ValueError(
                "class_offsets must rise from 0 to the number of images. "
                f"Received: {offsets[0]} … {offsets[-1]} for {len(self.images)} images"
            )
        if len(self.class_names) != len(offsets) - 1:
            raise ValueError(
                "class_names must name every class. "
                f"Received: {len(self.class_names)} names for {len(offsets) - 1} classes"
            )
        used = np.concatenate([np.asarray(ids) for ids in self.splits.values()])
        if len(np.unique(used)) != len(used):
            raise ValueError("splits must not share a class. Received: a class in two splits")

    def class_sizes(self, split: str) -> np.ndarray:
        """Number of images of each class of a split, int64 [classes in the split]."""
        return np.diff(self.class_offsets)[self.splits[split]]
