"""What each value of a configuration may be, and the base that holds dataclasses to it."""

import dataclasses
import math
from collections.abc import Callable, Collection
from numbers import Integral, Real
from typing import Any

from supervised_reptile.errors import ConfigError

ALGORITHMS = ("reptile", "fomaml", "maml")
KERAS_OPTIMIZERS = (
    *("sgd", "adam", "rmsprop", "adadelta", "adagrad"),
    *("adamax", "adamw", "ftrl", "lion", "nadam"),
)
INNER_OPTIMIZERS = ("sgd", "adam", "rmsprop")
"""Those whose every constant is a hyper-parameter here, so that a record says what ran."""
OUTER_OPTIMIZERS = ("interpolation", *KERAS_OPTIMIZERS)
RESIZE_FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Pillow's, by its own names."""


def require(rule_holds: bool, name: str, rule: str, received: object) -> None:
    """Raises a `ConfigError` of one line unless the rule holds for the flag `name`."""
    if not rule_holds:
        raise ConfigError(f"--{name}: {rule}. Received: {received!r}")


def _at_least(low: int, note: str = "") -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value >= low), f"must be at least {low}{note}"


def one_of(known: Collection[str]) -> tuple[Callable[[Any], bool], str]:
    """Returns the test and the rule in words of a choice."""
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
    "filters": _at_least(1),
    "freeze": (lambda value: 0 <= value <= 4, "must be from 0 to 4, the blocks of the network"),
    "image_size": _at_least(1, " pixel"),
    "resize": one_of(RESIZE_FILTERS),
    **dict.fromkeys(("learning_rate", "epsilon"), _POSITIVE),
    **dict.fromkeys(("meta_step", "meta_step_final"), _NOT_NEGATIVE),
    **dict.fromkeys(("beta_1", "beta_2", "rho", "momentum"), _FRACTION),
    **dict.fromkeys(("checkpoint", "data_dir"), _DIRECTORY),
    "weight_decay": (lambda value: 0 < value <= 1, "must be greater than 0 and at most 1 (off)"),
    "inner_optimizer": one_of(INNER_OPTIMIZERS),
    "outer_optimizer": one_of(OUTER_OPTIMIZERS),
    "algorithm": one_of(ALGORITHMS),
    "seed": (lambda value: 0 <= value < 2**32, "must be at least 0 and less than 2**32"),
}
_TYPE_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    tuple: "finite numbers",
}
_OPTIONAL = {int | None: int, tuple[float, ...] | None: tuple}


class Checked:
    """A dataclass whose fields are held to their annotations and to `_RULES`."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value, optional = getattr(self, item.name), item.type in _OPTIONAL
            if dataclasses.is_dataclass(item.type) or (optional and value is None):
                continue
            plain = _OPTIONAL.get(item.type, item.type)
            # JSON has lists only.
            kind = {int: Integral, float: Real, tuple: (tuple, list)}.get(plain, plain)
            # bool is an int to Python, but `shots=True` is a mistake.
            fits = isinstance(value, kind) and (plain is bool or not isinstance(value, bool))
            if plain is tuple:
                fits = fits and all(isinstance(v, Real) and math.isfinite(v) for v in value)
                value = tuple(map(float, value)) if fits else value
            require(fits, item.name, f"must be {_TYPE_WORDS[plain]}", value)
            value = plain(value)  # NumPy's scalars, and whole numbers given for floats.
            test, rule = _RULES.get(item.name, (lambda _: True, ""))
            require(test(value), item.name, rule, value)
            object.__setattr__(self, item.name, value)
