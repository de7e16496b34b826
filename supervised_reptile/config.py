"""Configuration: what a run computes, checked before anything heavy is loaded.

A `Config` says everything that changes the result of a run: the task, the inner loop, the outer
update, the evaluation and the seed. `RunOptions` says where and how the run is carried out. Both
are frozen, and both refuse impossible values when they are built, with one line that names the
flag, the rule and what was received.

The numbers of the paper stand once, in `supervised_reptile.paper`. `paper_config` picks the column
for a data set, its classes and its shots, and lays your own values over it:

>>> config = paper_config("omniglot", classes=5, shots=1, inner_batch=25)
>>> config.inner.inner_batch, config.inner.inner_iters
(25, 5)
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Self

from supervised_reptile.errors import ConfigError
from supervised_reptile.paper import DATASETS, ORIGINAL_DEFAULTS, DatasetFacts

ALGORITHMS = ("reptile", "fomaml")
_KERAS_OPTIMIZERS = (
    *("sgd", "adam", "rmsprop", "adadelta", "adagrad"),
    *("adamax", "adamw", "ftrl", "lion", "nadam"),
)
INNER_OPTIMIZERS = ("sgd", "adam", "rmsprop")
"""Those whose every constant is a hyper-parameter here, so that a record says what ran."""
OUTER_OPTIMIZERS = ("interpolation", *_KERAS_OPTIMIZERS)

RESUME_MAY_CHANGE = frozenset({"eval_samples"})
"""Fields that may differ between a checkpoint and the run that resumes it.

`eval_samples` is used after training only. Every other field shapes the trained weights or the
learning curves beside them, so a run that changes one is another run.
"""


def _require(rule_holds: bool, name: str, rule: str, received: object) -> None:
    if not rule_holds:
        raise ConfigError(f"--{name}: {rule}. Received: {received!r}")


def _at_least(low: int, note: str = "") -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value >= low), f"must be at least {low}{note}"


def _one_of(known: Collection[str]) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value in known), f"must be one of {', '.join(known)}"


_POSITIVE = (lambda value: 0 < value < math.inf), "must be finite and greater than 0"
_NOT_NEGATIVE = (lambda value: 0 <= value < math.inf), "must be finite and at least 0"
_FRACTION = (lambda value: 0 <= value < 1), "must be at least 0 and less than 1"
_DIRECTORY = bool, "must name a directory"
# Field -> (test, rule in words): what one value can say on its own.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "classes": _at_least(2),
    "train_shots": _at_least(0, ", where 0 means the value of --shots"),
    **dict.fromkeys(("shots", "inner_batch", "inner_iters", "foml_tail"), _at_least(1)),
    **dict.fromkeys(("meta_batch", "meta_iters", "eval_batch", "eval_samples"), _at_least(1)),
    **dict.fromkeys(("eval_interval", "checkpoint_interval", "eval_tasks_per_batch"), _at_least(1)),
    **dict.fromkeys(("eval_iters", "intra_op_threads", "inter_op_threads"), _at_least(0)),
    **dict.fromkeys(("learning_rate", "epsilon"), _POSITIVE),
    **dict.fromkeys(("meta_step", "meta_step_final"), _NOT_NEGATIVE),
    **dict.fromkeys(("beta_1", "beta_2", "rho", "momentum"), _FRACTION),
    **dict.fromkeys(("checkpoint", "data_dir"), _DIRECTORY),
    "weight_decay": (lambda value: 0 < value <= 1, "must be greater than 0 and at most 1 (off)"),
    "inner_optimizer": _one_of(INNER_OPTIMIZERS),
    "outer_optimizer": _one_of(OUTER_OPTIMIZERS),
    "algorithm": _one_of(ALGORITHMS),
    "seed": (lambda value: 0 <= value < 2**32, "must be at least 0 and less than 2**32"),
}
_TYPE_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}


class _Checked:
    """A dataclass whose fields are held to their annotations and to `_RULES`."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value, optional = getattr(self, item.name), item.type == int | None
            if dataclasses.is_dataclass(item.type) or (optional and value is None):
                continue
            plain = int if optional else item.type
            kind = {int: Integral, float: Real}.get(plain, plain)
            # bool is an int to Python, but `shots=True` is a mistake.
            fits = isinstance(value, kind) and (plain is bool or not isinstance(value, bool))
            _require(fits, item.name, f"must be {_TYPE_WORDS[plain]}", value)
            value = plain(value)  # NumPy's scalars, and whole numbers given for floats.
            test, rule = _RULES.get(item.name, (lambda _: True, ""))
            _require(test(value), item.name, rule, value)
            object.__setattr__(self, item.name, value)


@dataclass(frozen=True)
class TaskConfig(_Checked):
    """What a task is: N classes, K labelled examples of each (paper, Sec. 6).

    Args:
        dataset: str, a key of `paper.DATASETS`.
        classes: int, N ("ways"), from 2 to the number of classes in the smallest split.
        shots: int, K, labelled examples a class at evaluation, at least 1. One more is held out
            as the query, so `shots` + 1 examples of a class must exist.
        train_shots: int, examples a class in a *training* task, at least 0; 0 stands for `shots`
            and the field then holds that number. Paper: 10 (Table 3), 15 (Table 4).

    Raises:
        ConfigError: If a value is out of range.
    """

    dataset: str
    classes: int
    shots: int
    train_shots: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_shots == 0:
            object.__setattr__(self, "train_shots", self.shots)


@dataclass(frozen=True)
class InnerConfig(_Checked):
    """The inner loop: k optimizer steps on one task (paper, Algorithm 1).

    The gradient of a step is the *sum* over the mini-batch, as in the authors' program.

    Args:
        inner_optimizer: str, one of `INNER_OPTIMIZERS`. Paper: "adam"; Sec. 6.2 and 6.3: "sgd".
        learning_rate: float, α, greater than 0. Paper: 0.001, or 0.0005 for 20-way.
        inner_batch: int, examples in a training mini-batch, at least 1.
        inner_iters: int, k, steps on each training task, at least 1.
        replacement: bool, whether each mini-batch (in training and in evaluation) is a fresh draw
            of distinct examples, rather than dealt out from a shuffled task.
        weight_decay: float in (0, 1], the factor applied to every trainable variable before each
            step, in training and in evaluation. 1 turns it off.
        beta_1: float in [0, 1), Adam's first-moment decay. The authors use 0.
        beta_2: float in [0, 1), Adam's second-moment decay.
        epsilon: float, greater than 0, the addend in Adam's and RMSprop's denominator.
        rho: float in [0, 1), RMSprop's decay.
        momentum: float in [0, 1), momentum of SGD and RMSprop.

    Raises:
        ConfigError: If a value is out of range.
    """

    inner_optimizer: str
    learning_rate: float
    inner_batch: int
    inner_iters: int
    replacement: bool
    weight_decay: float
    beta_1: float
    beta_2: float
    epsilon: float
    rho: float
    momentum: float


@dataclass(frozen=True)
class MetaConfig(_Checked):
    """The outer update: φ ← φ + ε · mean(φ̃ − φ) over a meta-batch of tasks (paper, Eq. 5).

    Args:
        algorithm: str, "reptile" (direction φ̃ − φ) or "fomaml" (the last inner step's change).
        foml_tail: int or None. Examples a class kept for the last inner step of FOMAML, at least
            1 and fewer than `train_shots` (the "separate tail" of Sec. 6.3). None: shared tail.
        meta_batch: int, tasks averaged in one outer update, at least 1. Paper: 5.
        meta_iters: int, N, outer updates in the run, at least 1.
        meta_step: float, ε at the start, at least 0. Paper: 1.
        meta_step_final: float, ε at the end, at least 0. Paper: 0.
        outer_optimizer: str, one of `OUTER_OPTIMIZERS`. "interpolation" is the update above; any
            other is given (φ − φ̃)/α as a gradient, with ε as its learning rate (Sec. 2, 5.1).

    Raises:
        ConfigError: If a value is out of range.
    """

    algorithm: str
    foml_tail: int | None
    meta_batch: int
    meta_iters: int
    meta_step: float
    meta_step_final: float
    outer_optimizer: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.foml_tail is not None:
            rule = "needs --foml: only FOMAML has a last mini-batch of its own"
            _require(self.algorithm == "fomaml", "foml_tail", rule, self.foml_tail)

    def meta_step_at(self, iteration: int) -> float:
        """Returns the outer step size: ε_i = (i/N)·final + (1 − i/N)·start.

        Args:
            iteration: int, i, counted from 0; N is `meta_iters`.
        """
        done = iteration / self.meta_iters
        return done * self.meta_step_final + (1 - done) * self.meta_step


@dataclass(frozen=True)
class EvalConfig(_Checked):
    """Evaluation: fine-tune on K·N examples, then label N held-out ones (paper, Sec. 6.1).

    Args:
        eval_batch: int, examples in a fine-tuning mini-batch, at least 1.
        eval_iters: int, fine-tuning steps, at least 0. Paper: 50.
        eval_samples: int, tasks in the final evaluation of each split, at least 1.
        eval_interval: int, outer updates between two points of the learning curves, at least 1.
        transductive: bool, whether the N held-out images pass the network together, so that batch
            normalization shares information among them.

    Raises:
        ConfigError: If a value is out of range.
    """

    eval_batch: int
    eval_iters: int
    eval_samples: int
    eval_interval: int
    transductive: bool


def check_task(task: TaskConfig, facts: DatasetFacts) -> None:
    """Checks that a data set is large enough for a task.

    `Config` does so with what `DATASETS` knows; a loader calls it again for data whose size is
    known only once it is read.

    Raises:
        ConfigError: If a class has too few examples or a split too few classes.
    """
    if facts.examples is not None:
        limit = f"must be at most {facts.examples}, the {facts.example}"
        _require(task.shots + 1 <= facts.examples, "shots", f"shots + 1 {limit}", task.shots)
        _require(task.train_shots <= facts.examples, "train_shots", limit, task.train_shots)
    if facts.splits:
        split, smallest = min(facts.splits.items(), key=lambda item: item[1])
        rule = f"must be at most {smallest}, the classes of the {split} split of {task.dataset}"
        _require(task.classes <= smallest, "classes", rule, task.classes)


def _require_known_dataset(dataset: str) -> None:
    test, rule = _one_of(DATASETS)
    _require(test(dataset), "dataset", rule, dataset)


_SECTIONS = {"task": TaskConfig, "inner": InnerConfig, "meta": MetaConfig, "eval": EvalConfig}
FIELDS: dict[str, type] = {
    item.name: item.type for kind in _SECTIONS.values() for item in dataclasses.fields(kind)
} | {"seed": int}
"""Every hyper-parameter's name and type."""


@dataclass(frozen=True)
class Config(_Checked):
    """Everything that changes the result of a run.

    Args:
        task: `TaskConfig`.
        inner: `InnerConfig`.
        meta: `MetaConfig`.
        eval: `EvalConfig`.
        seed: int in [0, 2**32): the split, the tasks, the mini-batches and the initial weights.

    Raises:
        ConfigError: If values contradict one another or the data set.
    """

    task: TaskConfig
    inner: InnerConfig
    meta: MetaConfig
    eval: EvalConfig
    seed: int

    def __post_init__(self) -> None:
        for name, kind in _SECTIONS.items():
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"Config.{name} must be a {kind.__name__}")
        super().__post_init__()
        _require_known_dataset(self.task.dataset)
        check_task(self.task, DATASETS[self.task.dataset])
        self._check_batches()

    def _check_batches(self) -> None:
        task, tail = self.task, self.meta.foml_tail
        if tail is not None:
            rule = f"must be less than train_shots ({task.train_shots})"
            _require(tail < task.train_shots, "foml_tail", rule, tail)
        if not self.inner.replacement:
            return  # A mini-batch larger than the task straddles two passes over it.
        rule = "with --replacement, must be at most {}, the examples of {}"
        examples = task.classes * (task.train_shots - (tail or 0))
        rule_here = rule.format(examples, "a training task" + (" less its tail" if tail else ""))
        batch = self.inner.inner_batch
        _require(batch <= examples, "inner_batch", rule_here, batch)
        examples = task.classes * task.shots
        rule_here = rule.format(examples, "an evaluation task")
        _require(self.eval.eval_batch <= examples, "eval_batch", rule_here, self.eval.eval_batch)

    def flat(self) -> dict[str, Any]:
        """Returns every value under its flat name, in a fixed order."""
        sections = (dataclasses.asdict(getattr(self, name)) for name in _SECTIONS)
        return {k: v for section in sections for k, v in section.items()} | {"seed": self.seed}

    def replace(self, **values: Any) -> Self:
        """Returns a copy with flat names changed: `config.replace(inner_batch=25)`.

        Raises:
            ConfigError: If a name is unknown or the result cannot be run.
        """
        return _from_flat(self.flat() | _known(values))

    def differences(self, other: Self, ignore: Collection[str] = ()) -> list[str]:
        """Returns a line "flag: old -> new" for each value of `other` that is not this one's.

        Args:
            other: `Config`, the newer one.
            ignore: names to leave out, such as `RESUME_MAY_CHANGE`.
        """
        new = other.flat()
        return [
            f"{name}: {old} -> {new[name]}"
            for name, old in self.flat().items()
            if old != new[name] and name not in ignore
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns nested plain values: {"task": {...}, ..., "seed": 0}."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Returns `to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Builds the configuration that `to_dict` wrote.

        Raises:
            ConfigError: If a key is unknown or missing, or the values cannot be run.
        """
        _check_keys("configuration", data, (*_SECTIONS, "seed"))
        parts = {}
        for name, kind in _SECTIONS.items():
            expected = [item.name for item in dataclasses.fields(kind)]
            _check_keys(f"configuration, section {name!r}", data[name], expected)
            parts[name] = kind(**data[name])
        return cls(**parts, seed=data["seed"])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Builds the configuration that `to_json` wrote; raises `ConfigError` as `from_dict`."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"configuration: not valid JSON: {error}") from error
        return cls.from_dict(data)

    def table(self) -> str:
        """Returns the configuration as text, with the source of each value.

        A value that is not the default for this task is marked "set by you" beside that default.
        """
        task = self.task
        column = DATASETS[task.dataset].column(task.classes, task.shots)
        optimizer = self.inner.inner_optimizer
        defaults = {"dataset": task.dataset} | column.default_values(optimizer)
        lines = []
        for section, values in self.to_dict().items():
            lines.append(section if isinstance(values, dict) else "run")
            items = values if isinstance(values, dict) else {section: values}
            for name, value in items.items():
                source = column.source_of(name, optimizer) if name != "dataset" else ""
                if value != defaults[name]:
                    source = f"* set by you; {source}: {defaults[name]}"
                lines.append(f"  {name:<16} {value!s:<14} {source}".rstrip())
        return "\n".join(lines)


def _check_keys(where: str, data: Any, expected: Collection[str]) -> None:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: must be a mapping. Received: {data!r}")
    for problem, names in (
        ("unknown", [name for name in data if name not in expected]),
        ("missing", [name for name in expected if name not in data]),
    ):
        if names:
            raise ConfigError(f"{where}: {problem} {', '.join(map(str, names))}")


def _known(values: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in values:
        if name not in FIELDS:
            raise ConfigError(f"unknown hyper-parameter {name!r}; known: {', '.join(FIELDS)}")
    return values


def _from_flat(values: Mapping[str, Any]) -> Config:
    parts = {
        name: kind(**{item.name: values[item.name] for item in dataclasses.fields(kind)})
        for name, kind in _SECTIONS.items()
    }
    return Config(**parts, seed=values["seed"])


def paper_config(
    dataset: str,
    classes: int = ORIGINAL_DEFAULTS["classes"],
    shots: int = ORIGINAL_DEFAULTS["shots"],
    **overrides: Any,
) -> Config:
    """Returns the paper's configuration for a task, with your own values over it.

    Args:
        dataset: str, a key of `paper.DATASETS`. Omniglot and the glyphs use Table 3 (its 20-way
            column from 20 classes on), Mini-ImageNet uses Table 4 (its 1-shot column for 1 shot).
        classes: int, N. Default 5.
        shots: int, K. Default 5.
        **overrides: flat names of hyper-parameters: `inner_batch=25`.

    Raises:
        ConfigError: If a name is unknown, a value is out of range, or an outer optimizer other
            than interpolation comes without a `meta_step` of its own.

    Example:
        >>> paper_config("miniimagenet", shots=1).eval.eval_batch
        5
    """
    _known(overrides)
    task = TaskConfig(dataset, classes, shots, 0)  # The choice of column needs checked values.
    _require_known_dataset(dataset)
    column = DATASETS[dataset].column(task.classes, task.shots)
    defaults = column.default_values(overrides.get("inner_optimizer", "adam"))
    outer = overrides.get("outer_optimizer", defaults["outer_optimizer"])
    if outer in _KERAS_OPTIMIZERS and "meta_step" not in overrides:
        raise ConfigError(
            f"--meta_step: must be given with --outer_optimizer={outer}, whose learning rate it is"
            f" (the paper's {defaults['meta_step']} is for interpolation). Received: nothing"
        )
    chosen = {"dataset": dataset, "classes": classes, "shots": shots}
    return _from_flat(defaults | overrides | chosen)


@dataclass(frozen=True)
class RunOptions(_Checked):
    """Where and how a run is carried out.

    None of it changes the result, but that other numbers of threads round differently.

    Args:
        checkpoint: str, directory of checkpoints, learning curves and the run's record.
        pretrained: bool, whether to evaluate the checkpoint without training.
        resume: bool, whether to go on from a checkpoint of the same configuration, if there is
            one, rather than start anew.
        data_dir: str, directory of the data sets; the environment variable
            SUPERVISED_REPTILE_DATA changes the default.
        checkpoint_interval: int, outer updates between checkpoints, at least 1.
        eval_tasks_per_batch: int, evaluation tasks in one call of the compiled program, at
            least 1.
        intra_op_threads: int or None, threads inside one TensorFlow operation, at least 0 (0: one
            for each core). None: what is fastest for the data set's network.
        inter_op_threads: int or None, TensorFlow operations run at once, likewise.
        progress: bool, whether to show a progress bar.

    Raises:
        ConfigError: If a value is out of range.
    """

    checkpoint: str = "model_checkpoint"
    pretrained: bool = False
    resume: bool = True
    data_dir: str = field(
        default_factory=lambda: os.environ.get("SUPERVISED_REPTILE_DATA") or "data"
    )
    checkpoint_interval: int = 100
    eval_tasks_per_batch: int = 32
    intra_op_threads: int | None = None
    inter_op_threads: int | None = None
    progress: bool = True

    def threads(self, dataset: str) -> tuple[int, int]:
        """Returns the numbers of intra-op and inter-op threads for a data set, each at least 1."""
        intra, inter = DATASETS[dataset].threads
        chosen = (
            intra if self.intra_op_threads is None else self.intra_op_threads,
            inter if self.inter_op_threads is None else self.inter_op_threads,
        )
        cores = os.cpu_count() or 1
        return chosen[0] or cores, chosen[1] or cores
