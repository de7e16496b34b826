"""Check that a source is complete, and report the files that are left out."""

from __future__ import annotations

from collections.abc import Iterator

from supervised_reptile.datasets.images import miniimagenet
from supervised_reptile.datasets.images.arrays import shortened
from supervised_reptile.datasets.images.decoding import FORMATS
from supervised_reptile.datasets.images.sources import Contents, Source
from supervised_reptile.errors import DatasetError, warn

LEAST_IMAGES = 2  # per class: one to learn from and one to predict


def checked_contents(name: str, source: Source) -> Contents:
    """Return the contents of a source after checking that it is complete.

    Prints warnings for files that are not images, and for small classes of Mini-ImageNet.

    Args:
        name: Name of the data set.
        source: The source.

    Raises:
        DatasetError: Classes are missing, in two splits, or too small.
    """
    contents = source.contents()
    problems = [*_general_problems(contents)]
    if name == "miniimagenet":
        problems = [*miniimagenet.find_problems(contents), *problems]
    if problems:
        raise DatasetError(
            f"{source.root} is incomplete or not {name}: {shortened(problems)}. Nothing was "
            "prepared"
        )
    if source.other_formats:
        raise DatasetError(
            f"{source.root}: {len(source.other_formats):,} images are of formats that are not "
            f"read: {shortened(source.other_formats)}. Convert them to one of "
            f"{', '.join(FORMATS)}. Nothing was prepared"
        )
    for reason, names in source.passed_over.items():
        warn(f"{source.root}: {len(names):,} left out, {reason}: {shortened(names)}")
    if source.left_out:
        kinds = ", ".join(f"{count} {end}" for end, count in sorted(source.left_out.items()))
        warn(f"{source.root}: files that are not images were left out: {kinds}")
    if name == "miniimagenet" and (short := miniimagenet.find_shortages(contents)):
        least = miniimagenet.IMAGES_PER_CLASS
        warn(f"{len(short)} classes have fewer than {least} images: {', '.join(short)}")
    return contents


def _general_problems(contents: Contents) -> Iterator[str]:
    owner: dict[str, str] = {}
    for split, classes in contents.items():
        if not classes:
            yield f"{split} has no classes"
        for class_name, names in classes.items():
            if class_name in owner:
                yield f"class {class_name} is in both {owner[class_name]} and {split}"
            owner[class_name] = split
            if len(names) < LEAST_IMAGES:
                yield f"class {class_name} of {split} has {len(names)} images, not {LEAST_IMAGES}"
