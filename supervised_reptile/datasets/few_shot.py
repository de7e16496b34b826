"""The common in-memory form of all data sets: images by class, classes by split."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

SizeCheck = Callable[[Mapping[str, Sequence[int]]], None]
"""Takes the number of images per class, by split, and raises an error if they are too few."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """The identity of data, for records and for checks against mixing two data sets.

    Attributes:
        fingerprint: 16 hexadecimal digits. Equal fingerprints mean the same images in the same
            classes, at the same size, from the same kind of source.
        description: A readable description in one line.
    """

    fingerprint: str
    description: str

    @classmethod
    def of(cls, description: str, content: Iterable[bytes]) -> Identity:
        """Return the identity of content, given in parts; their boundaries also count."""
        digest = hashlib.sha256()
        for part in content:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return cls(digest.hexdigest()[:16], description)


@dataclasses.dataclass(frozen=True)
class FewShotDataset:
    """Images grouped by class, classes grouped by split.

    Class ``c`` has the images ``images[class_offsets[c]:class_offsets[c + 1]]``. Classes may have
    different numbers of images. A network receives ``images[i] * pixel_scale`` as float32.

    Attributes:
        name: Name of the data set, as ``--dataset`` spells it.
        images: uint8 [num_images, height, width, channels].
        class_offsets: int64 [num_classes + 1], increasing from 0 to ``num_images``.
        class_names: Readable name of each class, length ``num_classes``.
        splits: int64 ids of the classes of each split (``"train"``, ``"test"``, and in some data
            sets ``"validation"``). No class is in two splits.
        pixel_scale: Factor from the stored bytes to the network's input.
        identity: Identity of the data; ``None`` to compute it from the arrays when needed.
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
        """Return the number of images of each class in a split, int64 [classes in the split]."""
        return np.diff(self.class_offsets)[self.splits[split]]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify the content, independent of a split by seed."""
        return self._known_identity.fingerprint

    @property
    def description(self) -> str:
        """A readable description of the data in one line."""
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
