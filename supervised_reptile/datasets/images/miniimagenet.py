"""The required contents of Mini-ImageNet: the 100 classes of Ravi & Larochelle's split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

IMAGES_PER_CLASS = 600

PICKLES_URL = "https://zenodo.org/records/7978538/files"
"""A public mirror of Ren et al.'s pickles that needs no log-in."""


@dataclasses.dataclass(frozen=True)
class PickleFile:
    """One of Ren et al.'s pickles.

    Attributes:
        name: File name.
        size: Size in bytes.
        md5: Checksum, in hexadecimal; the mirror publishes no other.
    """

    name: str
    size: int
    md5: str


PICKLES: dict[str, PickleFile] = {
    "train": PickleFile(
        "mini-imagenet-cache-train.pkl", 1_145_461_190, "ee4e80dc7b716f3ceec891d199b5277a"
    ),
    "validation": PickleFile(
        "mini-imagenet-cache-validation.pkl", 292_661_258, "c1145a80890b88d54a67d6e0022d53a5"
    ),
    "test": PickleFile(
        "mini-imagenet-cache-test.pkl", 353_647_539, "389b6c59d348b2e1ae9610f00a5e6724"
    ),
}
"""The pickle of each split on the mirror."""

TERMS = """\
Mini-ImageNet consists of pictures of ImageNet. Terms of access (https://image-net.org/download):

1. Researcher shall use the Database only for non-commercial research and educational purposes.
2. Princeton University and Stanford University make no representations or warranties regarding
   the Database, including but not limited to warranties of non-infringement or fitness for a
   particular purpose.
3. Researcher accepts full responsibility for his or her use of the Database and shall defend and
   indemnify the ImageNet team, Princeton University, and Stanford University, including their
   employees, Trustees, officers and agents, against any and all claims arising from Researcher's
   use of the Database, including but not limited to Researcher's use of any copies of copyrighted
   images that he or she may create from the Database.
4. Researcher may provide research associates and colleagues with access to the Database provided
   that they first agree to be bound by these terms and conditions.
5. Princeton University and Stanford University reserve the right to terminate Researcher's access
   to the Database at any time.
6. If Researcher is employed by a for-profit, commercial entity, Researcher's employer shall also
   be bound by these terms and conditions, and Researcher hereby represents that he or she is fully
   authorized to enter into this agreement on behalf of such employer.
7. The law of the State of New Jersey shall apply to all disputes under this agreement.
"""
"""ImageNet's terms of access."""

# Ravi & Larochelle (2017), "Optimization as a Model for Few-Shot Learning": WordNet ids.
CLASSES: dict[str, tuple[str, ...]] = {
    "train": tuple(
        """
        n01532829 n01558993 n01704323 n01749939 n01770081 n01843383 n01910747 n02074367
        n02089867 n02091831 n02101006 n02105505 n02108089 n02108551 n02108915 n02111277
        n02113712 n02120079 n02165456 n02457408 n02606052 n02687172 n02747177 n02795169
        n02823428 n02966193 n03017168 n03047690 n03062245 n03207743 n03220513 n03337140
        n03347037 n03400231 n03476684 n03527444 n03676483 n03838899 n03854065 n03888605
        n03908618 n03924679 n03998194 n04067472 n04243546 n04251144 n04258138 n04275548
        n04296562 n04389033 n04435653 n04443257 n04509417 n04515003 n04596742 n04604644
        n04612504 n06794110 n07584110 n07697537 n07747607 n09246464 n13054560 n13133613
    """.split()
    ),
    "validation": tuple(
        """
        n01855672 n02091244 n02114548 n02138441 n02174001 n02950826 n02971356 n02981792
        n03075370 n03417042 n03535780 n03584254 n03770439 n03773504 n03980874 n09256479
    """.split()
    ),
    "test": tuple(
        """
        n01930112 n01981276 n02099601 n02110063 n02110341 n02116738 n02129165 n02219486
        n02443484 n02871525 n03127925 n03146219 n03272010 n03544143 n03775546 n04146614
        n04149813 n04418357 n04522168 n07613480
    """.split()
    ),
}
"""WordNet ids of the classes of each split."""


def find_problems(contents: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[str]:
    """Yield a phrase for every class that is missing, too large or does not belong.

    Args:
        contents: Names of the pictures by split and class.

    Yields:
        Phrases such as ``"class n01532829 of train is missing"``.
    """
    for split, expected in CLASSES.items():
        found = contents.get(split)
        if found is None:
            yield f"{split} is missing"
            continue
        for class_name in expected:
            count = len(found.get(class_name, ()))
            if not count:
                yield f"class {class_name} of {split} is missing"
            elif count > IMAGES_PER_CLASS:
                yield f"class {class_name} of {split} has {count} images, not {IMAGES_PER_CLASS}"
        for class_name in sorted(found.keys() - set(expected)):
            yield f"class {class_name} does not belong to {split}"


def find_shortages(contents: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Return the classes with fewer than 600 images; the authors' program has 16 of them.

    Args:
        contents: Names of the pictures by split and class.

    Returns:
        Phrases such as ``"n01532829: 599"``, sorted.
    """
    return sorted(
        f"{class_name}: {len(names)}"
        for classes in contents.values()
        for class_name, names in classes.items()
        if len(names) < IMAGES_PER_CLASS
    )
