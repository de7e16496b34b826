"""The rows of the published tables, as configurations of this package with their results.

One training is enough for every cell of a row, because training depends neither on ``shots`` (where
``train_shots`` is set, as in every table of the paper) nor on ``transductive``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from supervised_reptile.config import Config, paper_config
from supervised_reptile.config.paper import dataset_facts
from supervised_reptile.errors import ConfigError

TRAINED_FOR = {"shots": 1, "transductive": True, "eval_interval": 50}
"""Settings of the learning curve of a reproduction; the original has a point every 10."""

EVALUATION_ONLY = frozenset(
    {"shots", "eval_batch", "eval_iters", "eval_samples", "eval_interval", "transductive"}
)
"""Settings that affect only the final evaluation and the learning curve, not the training."""

TRAINING_ONLY = frozenset(
    {
        *("train_shots", "inner_batch", "inner_iters", "pretrain", "eval_interval"),
        *("algorithm", "foml_tail", "meta_batch", "meta_iters", "meta_step", "meta_step_final"),
        *("outer_optimizer", "step_weights", "parallel_tasks"),
    }
)
"""Settings that do not affect the evaluation of a trained network."""


@dataclass(frozen=True)
class Cell:
    """One cell of a published table: the test accuracy on a kind of task.

    Args:
        shots: K.
        transductive: Whether the held-out images are classified together.
        mean: The published accuracy in percent; ``None`` if nothing is published.
        spread: Its published ± in percent: the spread of three runs or, for results of Finn et
            al. (2017), the 95 % interval over tasks.
        source: Where it is published.
    """

    shots: int
    transductive: bool
    mean: float | None
    spread: float | None
    source: str


@dataclass(frozen=True)
class Row:
    """One row of the published tables, which is one training.

    Args:
        name: Name of the row for ``reproduce.py --row``.
        title: Heading of the row.
        dataset: A key of ``paper.DATASETS``.
        classes: N.
        cells: Cells of the row.
        overrides: Differences of its training from the paper's Tables 3 and 4.
        note: Remark that a reader needs for a comparison.
    """

    name: str
    title: str
    dataset: str
    classes: int
    cells: tuple[Cell, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def training(self, seed: int, meta_iters: int | None = None) -> Config:
        """Return the configuration to train.

        Args:
            seed: Seed in [0, 2**32).
            meta_iters: Number of outer updates, to shorten the run; ``None`` for full length.

        Raises:
            ConfigError: A value is out of range.
        """
        length = {} if meta_iters is None else {"meta_iters": meta_iters}
        values = {**TRAINED_FOR, **self.overrides, **length}
        return paper_config(self.dataset, self.classes, seed=seed, **values)

    def evaluation(
        self, training: Config, shots: int, transductive: bool, eval_samples: int
    ) -> Config:
        """Return the configuration that evaluates a training on a kind of task.

        Args:
            training: Configuration of the training, from ``training``.
            shots: K.
            transductive: Whether the held-out images are classified together.
            eval_samples: Number of tasks per split.
        """
        # The fine-tuning's mini-batch depends on the shots (Table 4).
        batch = paper_config(self.dataset, self.classes, shots).eval.eval_batch
        return training.replace(
            shots=shots,
            transductive=transductive,
            eval_batch=self.overrides.get("eval_batch", batch),
            eval_samples=eval_samples,
        )

    def tasks(self) -> list[tuple[int, bool]]:
        """Return (shots, transductive) of every published kind of task."""
        return list(dict.fromkeys((c.shots, c.transductive) for c in self.cells))

    def published(self, shots: int, transductive: bool) -> list[Cell]:
        """Return the published cells of a kind of task, the paper's number first."""
        same = (c for c in self.cells if (c.shots, c.transductive) == (shots, transductive))
        return [c for c in same if c.mean is not None]

    def is_trained_by(self, training: Config) -> bool:
        """Whether a training belongs to this row, with any length and seed."""
        mine = self.training(training.seed, training.meta.meta_iters)
        return not mine.differences(training, ignore=EVALUATION_ONLY)

    @property
    def meta_iters(self) -> int:
        """The published length, in outer updates."""
        return self.training(0).meta.meta_iters


def _cells(source: str, *cells: tuple[int, bool, float | None, float | None]) -> tuple[Cell, ...]:
    return tuple(Cell(*cell, source) for cell in cells)


_FINN_NOTE = (
    "As Finn et al. (2017, Appendix A.1), whose method it is: SGD steps on the whole support set, "
    "a separate query set, Adam outside; a training for each number of shots. At test one query a "
    "class, as in all of this table."
)


def _finn_row(
    algorithm: str,
    dataset: str,
    classes: int,
    shots: int,
    published: tuple[float, float],
    source: str,
) -> Row:
    """Return a row that the paper takes from the MAML paper and its program.

    Finn et al. (2017, Appendix A.1) state step sizes for the mean of the loss; here the loss is
    summed. On Omniglot, their program uses as many queries as labeled examples.
    """
    if dataset == "miniimagenet":
        steps, step, test_steps, queries, meta_batch = 5, 0.01, 10, 15, {1: 4, 5: 2}[shots]
    elif classes == 5:
        steps, step, test_steps, queries, meta_batch = 1, 0.4, 3, shots, 32
    else:
        steps, step, test_steps, queries, meta_batch = 5, 0.1, 5, shots, 16
    support = classes * shots
    return Row(
        f"{dataset}-{classes}way-{algorithm}-{shots}shot",
        algorithm.upper(),
        dataset,
        classes,
        _cells(source, (shots, True, *published)),
        {
            "shots": shots,
            "train_shots": shots + queries,
            "foml_tail": queries,
            "algorithm": algorithm,
            "inner_optimizer": "sgd",
            "learning_rate": step / support,
            "inner_batch": support,
            "inner_iters": steps + 1,  # the last one is the query set's
            "meta_batch": meta_batch,
            "meta_iters": 60_000,
            "outer_optimizer": "adam",
            "meta_step": 0.001,
            "meta_step_final": 0.001,
            "eval_batch": support,
            "eval_iters": test_steps,
        },
        _FINN_NOTE,
    )


_REVIEW = "review"
ROWS = (
    Row(
        "omniglot-5way",
        "Reptile",
        "omniglot",
        5,
        _cells(
            "Table 2",
            (1, False, 95.39, 0.09),
            (5, False, 98.90, 0.10),
            (1, True, 97.68, 0.04),
            (5, True, 99.48, 0.06),
        )
        + _cells(_REVIEW, (1, True, 97.7, None)),
    ),
    Row(
        "omniglot-20way",
        "Reptile",
        "omniglot",
        20,
        _cells(
            "Table 2",
            (1, False, 88.14, 0.15),
            (5, False, 96.65, 0.33),
            (1, True, 89.43, 0.14),
            (5, True, 97.12, 0.32),
        ),
    ),
    _finn_row("maml", "omniglot", 5, 1, (98.7, 0.4), "Table 2"),
    _finn_row("maml", "omniglot", 5, 5, (99.9, 0.1), "Table 2"),
    _finn_row("fomaml", "omniglot", 5, 1, (98.3, 0.5), "Table 2"),
    _finn_row("fomaml", "omniglot", 5, 5, (99.2, 0.2), "Table 2"),
    _finn_row("maml", "omniglot", 20, 1, (95.8, 0.3), "Table 2"),
    _finn_row("maml", "omniglot", 20, 5, (98.9, 0.2), "Table 2"),
    _finn_row("fomaml", "omniglot", 20, 1, (89.4, 0.5), "Table 2"),
    _finn_row("fomaml", "omniglot", 20, 5, (97.9, 0.1), "Table 2"),
    Row(
        "omniglot-5way-sgd",
        "Reptile, SGD inside",
        "omniglot",
        5,
        _cells(_REVIEW, (1, True, 97.4, None)),
        {
            "inner_optimizer": "sgd",
            "learning_rate": 0.003,
            "meta_batch": 5,
            "meta_iters": 100_000,
        },
        "Everything but the optimizer and its learning rate as in Table 3.",
    ),
    Row(
        "omniglot-5way-pretrained",
        "Reptile, pre-trained",
        "omniglot",
        5,
        _cells(_REVIEW, (1, True, 97.7, None)),
        {"pretrain": True},
        "From a classifier of all training classes (review, Sec. 6.5), whose time is not counted; "
        "the rest as in Table 3.",
    ),
    Row(
        "miniimagenet-5way",
        "Reptile",
        "miniimagenet",
        5,
        _cells(
            "Table 1",
            (1, False, 47.07, 0.26),
            (5, False, 62.74, 0.37),
            (1, True, 49.97, 0.32),
            (5, True, 65.99, 0.58),
        )
        + _cells(_REVIEW, (1, True, 51.6, None), (5, True, 67.4, None), (10, True, 72.6, None)),
    ),
    _finn_row("maml", "miniimagenet", 5, 1, (48.7, 1.84), "Table 1"),
    _finn_row("maml", "miniimagenet", 5, 5, (63.11, 0.92), "Table 1"),
    _finn_row("fomaml", "miniimagenet", 5, 1, (48.07, 1.75), "Table 1"),
    _finn_row("fomaml", "miniimagenet", 5, 5, (63.15, 0.91), "Table 1"),
    Row(
        "miniimagenet-5way-pretrained",
        "Reptile, pre-trained",
        "miniimagenet",
        5,
        _cells(_REVIEW, (1, True, 49.4, None)),
        {"pretrain": True},
        "From a classifier of all training classes (review, Sec. 6.5), whose time is not counted; "
        "the rest as in Table 4.",
    ),
    Row(
        "tiny-imagenet-5way",
        "Reptile",
        "folder:tiny-imagenet-fewshot",
        5,
        _cells(
            "",
            (1, False, None, None),
            (5, False, None, None),
            (1, True, None, None),
            (5, True, None, None),
        ),
        {"image_size": 64},
        "A stand-in for Mini-ImageNet: other photographs, 64×64, in its layout. Nothing published.",
    ),
)
"""The published rows, and a substitute for those whose data are hard to obtain."""


INDEPENDENT_RUNS: dict[tuple[str, int, bool], tuple[float, ...]] = {
    ("omniglot-5way", 1, False): (95.48, 95.56, 95.25, 95.20),
    ("omniglot-5way", 1, True): (97.74, 97.79, 97.61, 97.70),
    ("omniglot-5way", 5, False): (98.90, 99.01, 99.15, 98.89),
    ("omniglot-5way", 5, True): (99.52, 99.53, 99.53, 99.49),
    ("omniglot-20way", 1, False): (88.12, 87.93, 88.00),
    ("omniglot-20way", 1, True): (89.30, 89.13, 89.13, 89.73),
    ("omniglot-20way", 5, False): (96.56, 96.53, 96.56, 96.47),
    ("omniglot-20way", 5, True): (97.55, 97.05, 96.99, 97.39),
    ("miniimagenet-5way", 1, False): (46.71, 47.15, 46.27),
    ("miniimagenet-5way", 1, True): (49.95, 49.23, 50.19),
    ("miniimagenet-5way", 5, False): (62.85, 63.32, 63.65),
    ("miniimagenet-5way", 5, True): (65.80, 66.14, 65.97),
}
"""Accuracies in percent of the authors' program, run by others, by (row, shots, transductive).

From the public repository glogowski-wojciech/progressive-reptile-experiments (reproduce/README.md):
full length, seeds not stated, the fourth run with a rewritten model class."""


def find_row(name: str) -> Row:
    """Return the row with this name.

    Raises:
        ConfigError: There is no such row.
    """
    for row in ROWS:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in ROWS)
    raise ConfigError(f"--row: must be one of {known}. Received: {name!r}")


def row_of(training: Config) -> Row | None:
    """Return the row that a training belongs to, with any seed and length, or ``None``."""
    return next((row for row in ROWS if row.is_trained_by(training)), None)


def full_length(training: Config) -> int:
    """Return the outer updates of the published row or, without a row, of the paper's table.

    Args:
        training: Configuration of a training of any length.
    """
    row = row_of(training)
    if row is not None:
        return row.meta_iters
    column = dataset_facts(training.task.dataset).column(training.task.classes, training.task.shots)
    return column.paper_values(training.inner.inner_optimizer)["meta_iters"]


def run_name(row: Row, training: Config) -> str:
    """Return a run's subfolder of ``results/runs`` and of the folder of all checkpoints."""
    length = training.meta.meta_iters
    of_other_length = "" if length == row.meta_iters else f"-{length}"
    return f"{row.name}{of_other_length}/seed{training.seed}"
