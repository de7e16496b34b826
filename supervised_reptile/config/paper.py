"""The paper's tables and facts about its data sets, as plain data.

The numbers of the paper ("On First-Order Meta-Learning Algorithms", Nichol, Achiam and Schulman,
2018) and the defaults of the authors' program appear only here. A ``Column`` of a table states only
its differences from the common values. ``DATASETS`` lists the columns that apply to a data set.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from supervised_reptile.config.locations import FOLDER

ORIGINAL_DEFAULTS: dict[str, Any] = {
    "classes": 5,
    "shots": 5,
    "inner_optimizer": "adam",
    "replacement": False,
    "weight_decay": 1.0,
    "beta_1": 0.0,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "algorithm": "reptile",
    "foml_tail": None,
    "resize": "nearest",
    "eval_samples": 10_000,
    "eval_interval": 10,
    "transductive": False,
    "seed": 0,
}
"""Defaults of the authors' program, for values that no table of the paper states."""

EXTENSION_DEFAULTS: dict[str, Any] = {
    "step_weights": None,
    "reset_optimizer": False,
    "parallel_tasks": 1,
    "queries": 1,
    "pretrain": False,
    "freeze": 0,
    "outer_optimizer": "interpolation",
}
"""Defaults of settings that the authors' program lacks. They make it what that program computes."""

OPTIMIZER_CONSTANTS = {
    "adam": ("beta_1", "beta_2", "epsilon"),
    "rmsprop": ("rho", "momentum", "epsilon"),
    "sgd": ("momentum",),
}
"""Names of the constants of each inner optimizer, besides the learning rate."""

KERAS_DEFAULTS: dict[str, Any] = {"rho": 0.9, "momentum": 0.0}
"""Keras' defaults, for features that the authors' program lacks (RMSprop and momentum)."""

NETWORKS: dict[str, dict[str, int]] = {
    "omniglot": {"filters": 64, "image_size": 28},
    "miniimagenet": {"filters": 32, "image_size": 84},
}
"""The two networks of the paper (Sec. 6.1), which are those of Finn et al. (2017)."""

# Values that all columns of Tables 3 and 4 share.
_EVERY_TABLE = {
    "learning_rate": 0.001,
    "inner_batch": 10,
    "meta_batch": 5,
    "meta_iters": 100_000,
    "meta_step": 1.0,
    "meta_step_final": 0.0,
    "eval_iters": 50,
}


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table of the paper.

    Args:
        table: Name of the table, e.g. "Table 3".
        label: Heading of the column.
        network: A key of ``NETWORKS``.
        applies: Function of classes and shots that returns whether the column applies. The first
            column that applies is used.
        values: Values that differ from ``_EVERY_TABLE``, by flat name.
        sgd_values: Further differences with SGD in the inner loop (Tables 5 and 6).
    """

    table: str
    label: str
    network: str
    applies: Callable[[int, int], bool]
    values: Mapping[str, Any]
    sgd_values: Mapping[str, Any] = field(default_factory=dict)

    def paper_values(self, inner_optimizer: str = "adam") -> dict[str, Any]:
        """Return the values that the table states, by flat name."""
        more = self.sgd_values if inner_optimizer == "sgd" else {}
        return {**_EVERY_TABLE, **self.values, **more}

    def default_values(self, inner_optimizer: str = "adam") -> dict[str, Any]:
        """Return the default of every hyper-parameter except ``dataset``, by flat name."""
        network = NETWORKS[self.network]
        without_table = KERAS_DEFAULTS | EXTENSION_DEFAULTS | ORIGINAL_DEFAULTS
        return without_table | network | self.paper_values(inner_optimizer)

    def source_of(self, name: str, inner_optimizer: str = "adam") -> str:
        """Return where a default comes from, in readable form."""
        if inner_optimizer == "sgd" and name in self.sgd_values:
            return "paper, Tables 5 and 6 (SGD)"
        if name in NETWORKS[self.network]:
            return "paper, Sec. 6.1"
        if name in self.paper_values():
            return f"paper, {self.table} ({self.label})"
        if name in EXTENSION_DEFAULTS:
            return "as in the original, which has no such setting"
        return "Keras' default" if name in KERAS_DEFAULTS else "original's default"


_TABLE_3_5WAY = {"inner_iters": 5, "train_shots": 10, "eval_batch": 5}
_TABLE_3_20WAY = {
    "learning_rate": 0.0005,
    "inner_batch": 20,
    "inner_iters": 10,
    "train_shots": 10,
    "meta_iters": 200_000,
    "eval_batch": 10,
}
_TABLE_4 = {"inner_iters": 8, "train_shots": 15}
# The experiments with inner SGD (Sec. 6.2 and 6.3) have no meta-batch.
_TABLES_5_AND_6 = {"meta_batch": 1, "meta_iters": 40_000}
_TABLE_3_COLUMNS = (
    Column(
        *("Table 3", "5-way", "omniglot"),
        applies=lambda classes, shots: classes < 20,
        values=_TABLE_3_5WAY,
        sgd_values=_TABLES_5_AND_6,
    ),
    Column(
        *("Table 3", "20-way", "omniglot"),
        applies=lambda classes, shots: True,
        values=_TABLE_3_20WAY,
    ),
)
_TABLE_4_COLUMNS = (
    Column(
        *("Table 4", "1-shot", "miniimagenet"),
        applies=lambda classes, shots: shots == 1,
        values=_TABLE_4 | {"eval_batch": 5},
    ),
    # The review's 10-shot row has the same values.
    Column(
        *("Table 4", "5-shot", "miniimagenet"),
        applies=lambda classes, shots: True,
        values=_TABLE_4 | {"eval_batch": 15},
    ),
)


@dataclass(frozen=True)
class DatasetFacts:
    """Facts about a data set that are known before it is loaded.

    Args:
        columns: Columns with the paper's values for it.
        example: Its examples in words: "drawings of a character".
        examples: Number of examples per class; ``None`` if unknown before loading.
        splits: Number of classes of each split; empty if unknown before loading.
        threads: Numbers of (intra-op, inter-op) threads that are fastest for its network; 0 means
            one per core. Small networks lose more than they gain when an operation is divided
            between threads.
        fixed: Names of settings that cannot be chosen because its images have one size.
        pretraining_decay: Factor on every weight before each pre-training step (review,
            Sec. 6.5).
    """

    columns: tuple[Column, ...]
    example: str = "images of a class"
    examples: int | None = None
    splits: Mapping[str, int] = field(default_factory=dict)
    threads: tuple[int, int] = (0, 1)
    fixed: tuple[str, ...] = ()
    pretraining_decay: float = 0.99

    @property
    def network(self) -> str:
        """Its network, a key of ``NETWORKS``."""
        return self.columns[0].network

    def column(self, classes: int, shots: int) -> Column:
        """Return the first column that applies to N-way, K-shot tasks."""
        return next(column for column in self.columns if column.applies(classes, shots))


# 1200 training characters in four rotations; the test characters are not rotated.
_CHARACTERS = DatasetFacts(
    _TABLE_3_COLUMNS,
    "drawings of a character",
    20,
    {"train": 4800, "test": 423},
    threads=(1, 0),
    fixed=("image_size", "resize"),
    pretraining_decay=0.999,
)
DATASETS: dict[str, DatasetFacts] = {
    "omniglot": _CHARACTERS,
    "glyphs": _CHARACTERS,
    "miniimagenet": DatasetFacts(
        _TABLE_4_COLUMNS, "images of a class", 600, {"train": 64, "validation": 16, "test": 20}
    ),
}
"""Facts about each data set, by name."""

_OWN_IMAGES = DatasetFacts(_TABLE_4_COLUMNS)


_TITLES = {"omniglot": "Omniglot", "miniimagenet": "Mini-ImageNet"}


def dataset_title(dataset: str) -> str:
    """Return the name of a data set as it is printed: ``"Omniglot"``; a folder's own name."""
    return _TITLES.get(dataset, dataset.removeprefix(FOLDER))


def is_own_images(dataset: str) -> bool:
    """Return whether a name is "folder:NAME", a folder of the user's own images."""
    return dataset.startswith(FOLDER) and dataset != FOLDER


def dataset_facts(dataset: str) -> DatasetFacts:
    """Return the facts about a data set, given as a key of ``DATASETS`` or as "folder:NAME".

    A folder of images takes the paper's values for Mini-ImageNet.

    Raises:
        KeyError: The name is neither.
    """
    return _OWN_IMAGES if is_own_images(dataset) else DATASETS[dataset]


def columns_of(datasets: Iterable[str]) -> list[Column]:
    """Return the columns of the paper's tables for these keys of ``DATASETS``, each once."""
    return list(dict.fromkeys(column for name in datasets for column in DATASETS[name].columns))
