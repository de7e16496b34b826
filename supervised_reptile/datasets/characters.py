"""The split and the rotations that Omniglot and the glyphs share."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from supervised_reptile.datasets.few_shot import FewShotDataset, Identity

TRAIN_CHARACTERS = 1200
ROTATIONS = (0, 90, 180, 270)  # degrees, counter-clockwise as in PIL


def split_characters(
    num_characters: int, seed: int, num_train: int = TRAIN_CHARACTERS
) -> tuple[list[int], list[int]]:
    """Shuffle the sorted characters once and split the list in two.

    For the same seed, the split is identical to that of the original program, which seeds Python's
    generator and uses it first to shuffle its sorted list of characters.

    Args:
        num_characters: Number of characters, 1623 in Omniglot.
        seed: Seed of the shuffle.
        num_train: Number of training characters, 1200 in the paper.

    Returns:
        Ids of the training characters and of the test characters, in shuffled order.

    Raises:
        ValueError: A split would be empty.
    """
    if not 0 < num_train < num_characters:
        raise ValueError(
            "num_train must be between 0 and the number of characters. "
            f"Received: {num_train} of {num_characters}"
        )
    order = list(range(num_characters))
    random.Random(seed).shuffle(order)
    return order[:num_train], order[num_train:]


def build_character_dataset(
    name: str,
    drawings: np.ndarray,
    names: Sequence[str],
    *,
    seed: int,
    num_train: int = TRAIN_CHARACTERS,
    origin: str = "",
) -> FewShotDataset:
    """Split characters and add rotations of the training characters (paper, Sec. 6.1).

    Each training character gives four classes, the character and its rotations by 90, 180 and 270
    degrees, one after the other. Test characters are not rotated.

    Args:
        name: Name of the data set.
        drawings: uint8 [characters, drawings, side, side, 1], values 0 (ink) and 1 (paper),
            sorted by alphabet and character.
        names: Name of each character, such as ``"Tifinagh/character55"``.
        seed: Seed of the split.
        num_train: Number of training characters.
        origin: Origin of the drawings, the end of the data set's description.

    Returns:
        The data set, with ``4 * num_train`` train classes followed by the test classes.

    Raises:
        ValueError: A split would be empty.
    """
    train, test = split_characters(len(drawings), seed, num_train)
    per_class, *image_shape = drawings.shape[1:]
    turns = range(len(ROTATIONS))  # np.rot90(k) is PIL's rotate(90 * k), exactly
    rotated = np.stack([np.rot90(drawings[train], k, axes=(2, 3)) for k in turns], axis=1)
    images = np.concatenate(
        [rotated.reshape(-1, *image_shape), drawings[test].reshape(-1, *image_shape)]
    )
    class_names = [
        f"{names[c]}/rot{degrees}" if degrees else names[c] for c in train for degrees in ROTATIONS
    ] + [names[c] for c in test]
    num_train_classes = len(train) * len(ROTATIONS)
    return FewShotDataset(
        name=name,
        images=images,
        class_offsets=np.arange(len(class_names) + 1, dtype=np.int64) * per_class,
        class_names=tuple(class_names),
        splits={
            "train": np.arange(num_train_classes, dtype=np.int64),
            "test": np.arange(num_train_classes, len(class_names), dtype=np.int64),
        },
        pixel_scale=1.0,
        identity=identity_of_characters(name, drawings, names, origin),
    )


def identity_of_characters(
    name: str, drawings: np.ndarray, names: Sequence[str], origin: str = ""
) -> Identity:
    """Return the identity of drawings before split and rotation, so no seed changes it.

    Args:
        name: Name of the data set.
        drawings: As for :func:`build_character_dataset`.
        names: Name of each character.
        origin: Origin of the drawings, the end of the description.
    """
    count, per_class, height, width, _ = drawings.shape
    description = (
        f"{name}, {count:,} characters of {per_class} drawings, {height}x{width}"
        f"{origin and ', '}{origin}"
    )
    shape = " ".join(map(str, drawings.shape))
    content = (name.encode(), shape.encode(), "\0".join(names).encode())
    return Identity.of(description, (*content, np.packbits(drawings).tobytes()))
