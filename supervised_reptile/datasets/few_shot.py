"""The one in-memory form of every data set: images by class, classes by split."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

SizeCheck = Callable[[Mapping[str, Sequence[int]]], None]
"""Takes the number of images of each class by split, and raises an error if they will not do."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which data these are, for records and for the refusal to mix two data sets.

    Attributes:
        fingerprint: 16 hexadecimal digits. Equal ones mean the same images in the same classes,
            at the same size, from the same kind of source.
        description: The same for people, in one line.
    """

    fingerprint: str
    description: str

    @classmethod
    def of(cls, description: str, content: Iterable[bytes]) -> Identity:
        """The identity of a content, given as parts whose borders count too."""
        digest = hashlib.sha256()
        for part in content:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return cls(digest.hexdigest()[:16], description)


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
        identity: Which data these are; ``None`` to compute it from the arrays when it is needed.
    """

    name: str
    images: np.ndarray
    class_offsets: np.ndarray
    class_names: tuple[str, ...]
    splits: Mapping[str, np.ndarray]
    pixel_scale: float
    identity: Identity | None = None

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

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the content; a split by seed does not change them."""
        return self._known_identity.fingerprint

    @property
    def description(self) -> str:
        """What the data are, in one line for people."""
        return self._known_identity.description

    @functools.cached_property
    def _known_identity(self) -> Identity:
        if self.identity is not None:
            return self.identity
        height, width, channels = self.images.shape[1:]
        description = (
            f"{self.name}, {len(self.images):,} images of {len(self.class_names):,} classes, "
            f"{height}x{width}x{channels}"
        )
        names = "\0".join(self.class_names).encode(errors="surrogateescape")
        splits = [(split.encode(), np.asarray(ids).tobytes()) for split, ids in self.splits.items()]
        arrays = (self.class_offsets.tobytes(), np.ascontiguousarray(self.images).tobytes())
        flat = (part for split in splits for part in split)
        return Identity.of(description, (description.encode(), names, *flat, *arrays))
