"""Configuration: what a run computes, checked before anything heavy is loaded.

A ``Config`` contains everything that changes the result of a run: the task, the inner loop, the
outer update, the evaluation and the seed. ``RunOptions`` contains where and how to run. Both are
frozen, and both refuse impossible values when they are built, with one line that names the flag,
the rule and the received value.

The numbers of the paper are only in ``config.paper``. ``paper_config`` selects the column for a
data set, its classes and its shots, and replaces values with your own:

>>> config = paper_config("omniglot", classes=5, shots=1, inner_batch=25)
>>> config.inner.inner_batch, config.inner.inner_iters
(25, 5)
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, Self

from supervised_reptile.config.declaration import Checked, Rule, require, setting, settings
from supervised_reptile.config.paper import (
    OPTIMIZER_CONSTANTS,
    ORIGINAL_DEFAULTS,
    DatasetFacts,
    dataset_facts,
)
from supervised_reptile.config.settings import (
    KERAS_OPTIMIZERS,
    SECTIONS,
    EvalConfig,
    InnerConfig,
    MetaConfig,
    ModelConfig,
    TaskConfig,
)
from supervised_reptile.errors import ConfigError

RESUME_MAY_CHANGE = frozenset({"eval_samples"})
"""Fields that may differ between a checkpoint and the run that resumes it.

``eval_samples`` is used only after training. Every other field affects the trained weights or the
learning curves, so a run that changes one is a different run.
"""


def check_task(task: TaskConfig, facts: DatasetFacts, queries: int = 1) -> None:
    """Check that a data set is large enough for a task.

    ``Config`` does so with the sizes in ``DATASETS``. A loader calls it again for data whose size
    is only known after reading them.

    Raises:
        ConfigError: A class has too few examples or a split has too few classes.
    """
    if facts.examples is not None:
        limit = f"must be at most {facts.examples}, the {facts.example}"
        held_out = "1" if queries == 1 else f"the {queries} --queries"
        fits = task.shots + queries <= facts.examples
        rule = f"shots + {held_out} {limit}"
        rule += _way_out(task, facts, "shots", facts.examples - queries)
        require(fits, "shots", rule, task.shots)
        rule = f"{limit}{_way_out(task, facts, 'train_shots', facts.examples)}"
        require(task.train_shots <= facts.examples, "train_shots", rule, task.train_shots)
    if facts.splits:
        split, smallest = min(facts.splits.items(), key=lambda item: item[1])
        rule = f"must be at most {smallest}, the classes of the {split} split of {task.dataset}"
        rule += _way_out(task, facts, "classes", smallest)
        require(task.classes <= smallest, "classes", rule, task.classes)


def _way_out(task: TaskConfig, facts: DatasetFacts, name: str, most: int) -> str:
    """Return a hint what to pass if the value is a default, which the user may not know."""
    column = facts.column(task.classes, task.shots)
    value = getattr(task, name)
    if value != column.default_values()[name]:
        return ""
    return f" ({value} is the default, {column.source_of(name)}; pass --{name}={most} or less)"


@settings("Run")
class Config(Checked):
    """Everything that changes the result of a run."""

    task: TaskConfig
    model: ModelConfig
    inner: InnerConfig
    meta: MetaConfig
    eval: EvalConfig
    seed: int = setting(
        "Seed of the split, the tasks, the mini-batches and the initial weights.",
        Rule("must be at least 0 and less than 2**32", lambda value: 0 <= value < 2**32),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        facts = dataset_facts(self.task.dataset)
        check_task(self.task, facts, self.eval.queries)
        self._check_model(facts)
        self._check_optimizer(facts)
        self._check_algorithm()
        self._check_batches()

    def _check_model(self, facts: DatasetFacts) -> None:
        for name in facts.fixed:
            value, only = getattr(self.model, name), facts.columns[0].default_values()[name]
            require(value == only, name, f"must be {only}, as {self.task.dataset} is", value)

    def _check_optimizer(self, facts: DatasetFacts) -> None:
        """Check that no constant was set which the inner optimizer does not have."""
        mine, defaults = self.inner.inner_optimizer, facts.columns[0].default_values()
        for name in sorted({each for names in OPTIMIZER_CONSTANTS.values() for each in names}):
            if name not in OPTIMIZER_CONSTANTS[mine]:
                others = (kind for kind, names in OPTIMIZER_CONSTANTS.items() if name in names)
                rule = f"needs --inner_optimizer={' or '.join(others)}: {mine} does not have it"
                value = getattr(self.inner, name)
                require(value == defaults[name], name, rule, value)

    def _check_algorithm(self) -> None:
        inner, weights = self.inner, self.meta.step_weights
        if weights is not None:
            rule = f"must have a weight for each of the {inner.inner_iters} --inner_iters"
            require(len(weights) == inner.inner_iters, "step_weights", rule, weights)
        if self.meta.algorithm == "maml":
            for name, only in (("inner_optimizer", "sgd"), ("momentum", 0), ("weight_decay", 1)):
                value = getattr(inner, name)
                rule = f"must be {only} with --algorithm=maml, which differentiates plain SGD steps"
                require(value == only, name, rule, value)
            rule = "must be at least 2 with --algorithm=maml: the last mini-batch is the query set"
            require(inner.inner_iters >= 2, "inner_iters", rule, inner.inner_iters)

    def _check_batches(self) -> None:
        task, tail = self.task, self.meta.foml_tail
        if tail is not None:
            rule = f"must be less than train_shots ({task.train_shots})"
            require(tail < task.train_shots, "foml_tail", rule, tail)
        if not self.inner.replacement:
            return  # A mini-batch larger than the task spans two passes over it.
        rule = "with --replacement, must be at most {}, the examples of {}"
        examples = task.classes * (task.train_shots - (tail or 0))
        rule_here = rule.format(examples, "a training task" + (" less its tail" if tail else ""))
        batch = self.inner.inner_batch
        require(batch <= examples, "inner_batch", rule_here, batch)
        examples = task.classes * task.shots
        rule_here = rule.format(examples, "an evaluation task")
        require(self.eval.eval_batch <= examples, "eval_batch", rule_here, self.eval.eval_batch)

    def flat(self) -> dict[str, Any]:
        """Return every value under its flat name, in a fixed order."""
        sections = (dataclasses.asdict(getattr(self, name)) for name in SECTIONS)
        return {k: v for section in sections for k, v in section.items()} | {"seed": self.seed}

    def replace(self, **values: Any) -> Self:
        """Return a copy with flat names changed: ``config.replace(inner_batch=25)``.

        Raises:
            ConfigError: A name is unknown or the result is not valid.
        """
        return self._from_flat(self.flat() | _known(values))

    @classmethod
    def _from_flat(cls, values: Mapping[str, Any]) -> Self:
        parts: dict[str, Any] = {
            name: kind(**{item.name: values[item.name] for item in fields(kind)})
            for name, kind in SECTIONS.items()
        }
        return cls(**parts, seed=values["seed"])

    def differences(self, other: Self, ignore: Collection[str] = ()) -> list[str]:
        """Return a line "flag: old -> new" for each value that differs in ``other``.

        Args:
            other: The newer configuration.
            ignore: Names to leave out, such as ``RESUME_MAY_CHANGE``.
        """
        new = other.flat()
        return [
            f"{name}: {old} -> {new[name]}"
            for name, old in self.flat().items()
            if old != new[name] and name not in ignore
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values: ``{"task": {...}, ..., "seed": 0}``."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return ``to_dict`` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the configuration that ``to_dict`` wrote.

        Without a section "model", as in earlier versions, it has the paper's network.

        Raises:
            ConfigError: A key is unknown or missing, or the values are not valid.
        """
        optional = () if isinstance(data, Mapping) and "model" in data else ("model",)
        _check_keys("configuration", data, (*(s for s in SECTIONS if s not in optional), "seed"))
        if optional:
            data = {**data, "model": _network_of(data["task"])}
        parts: dict[str, Any] = {}
        for name, kind in SECTIONS.items():
            expected = [item.name for item in fields(kind)]
            # Settings with a default were added later: older records lack them.
            later = [item.name for item in fields(kind) if item.default is not MISSING]
            _check_keys(f"configuration, section {name!r}", data[name], expected, later)
            parts[name] = kind(**data[name])
        return cls(**parts, seed=data["seed"])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Build the configuration that ``to_json`` wrote; raises the errors of ``from_dict``."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"configuration: not valid JSON: {error}") from error
        return cls.from_dict(data)

    def table(self) -> str:
        """Return the configuration as text, with the source of each value.

        A value that is not the default for this task is marked "set by you", with the default.
        """
        task = self.task
        column = dataset_facts(task.dataset).column(task.classes, task.shots)
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


def _network_of(task: Any) -> dict[str, Any]:
    """Return the paper's values of section "model" for the data set in section "task"."""
    _check_keys("configuration, section 'task'", task, [f.name for f in fields(TaskConfig)])
    defaults = dataset_facts(TaskConfig(**task).dataset).columns[0].default_values()
    return {item.name: defaults[item.name] for item in fields(ModelConfig)}


def _check_keys(
    where: str, data: Any, expected: Collection[str], optional: Collection[str] = ()
) -> None:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: must be a mapping. Received: {data!r}")
    for problem, names in (
        ("unknown", [name for name in data if name not in expected]),
        ("missing", [name for name in expected if name not in data and name not in optional]),
    ):
        if names:
            raise ConfigError(f"{where}: {problem} {', '.join(map(str, names))}")


def _known(values: dict[str, Any]) -> dict[str, Any]:
    for name in values:
        if name not in FIELDS:
            raise ConfigError(f"unknown hyper-parameter {name!r}; known: {', '.join(FIELDS)}")
    return values


FIELDS: dict[str, Any] = {
    item.name: item.type for kind in SECTIONS.values() for item in fields(kind)
} | {"seed": int}
"""Name and type of every hyper-parameter."""


def paper_config(
    dataset: str,
    classes: int = ORIGINAL_DEFAULTS["classes"],
    shots: int = ORIGINAL_DEFAULTS["shots"],
    **overrides: Any,
) -> Config:
    """Return the paper's configuration for a task, with some values replaced by your own.

    Args:
        dataset: A key of ``paper.DATASETS`` or "folder:NAME". Omniglot and the glyphs use
            Table 3 (the 20-way column for 20 or more classes). Mini-ImageNet and folders of images
            use Table 4 (the 1-shot column for 1 shot).
        classes: N, at least 2. Default: 5.
        shots: K, at least 1. Default: 5.
        **overrides: Hyper-parameters by their flat names: ``inner_batch=25``.

    Raises:
        ConfigError: A name is unknown, a value is out of range, or an outer optimizer other than
            interpolation is given without ``meta_step``.

    Example:
        >>> paper_config("miniimagenet", shots=1).eval.eval_batch
        5
    """
    _known(overrides)
    task = TaskConfig(dataset, classes, shots, 0)  # The choice of column needs checked values.
    column = dataset_facts(task.dataset).column(task.classes, task.shots)
    defaults = column.default_values(overrides.get("inner_optimizer", "adam"))
    outer = overrides.get("outer_optimizer", defaults["outer_optimizer"])
    if outer in KERAS_OPTIMIZERS and "meta_step" not in overrides:
        raise ConfigError(
            f"--meta_step: must be given with --outer_optimizer={outer}, whose learning rate it is"
            f" (the paper's {defaults['meta_step']} is for interpolation). Received: nothing"
        )
    chosen = {"dataset": dataset, "classes": classes, "shots": shots}
    return Config._from_flat(defaults | overrides | chosen)
