"""Declare a setting in one line, with its meaning, its rule and its default.

    @settings("Inner loop")
    class InnerConfig(Checked):
        inner_batch: int = setting("Examples in a training mini-batch.", at_least(1))

This line is the only place. It gives the check of type and range with its message, the flag with
its line in ``--help``, and the documentation of the class. The paper's values are in
``config.paper``.
"""

import dataclasses
import inspect
import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar, dataclass_transform, get_args, get_origin

from supervised_reptile.config.paper import DATASETS, Column, columns_of
from supervised_reptile.errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """A rule for a value.

    Args:
        words: The rule in words, which follow the flag in a message: "must be at least 1".
        holds: Function that returns whether a value obeys the rule.
    """

    words: str
    holds: Callable[[Any], bool]


def at_least(low: int, note: str = "") -> Rule:
    """Return the rule for numbers of at least ``low``; ``note`` ends its words."""
    return Rule(f"must be at least {low}{note}", lambda value: value >= low)


def one_of(known: Collection[str]) -> Rule:
    """Return the rule for a choice among names."""
    return Rule(f"must be one of {', '.join(known)}", lambda value: value in known)


POSITIVE = Rule("must be finite and greater than 0", lambda value: 0 < value < math.inf)
NOT_NEGATIVE = Rule("must be finite and at least 0", lambda value: 0 <= value < math.inf)
FRACTION = Rule("must be at least 0 and less than 1", lambda value: 0 <= value < 1)
DIRECTORY = Rule("must name a directory", bool)


def require(rule_holds: bool, name: str, rule: str, received: object) -> None:
    """Raise a one-line ``ConfigError`` unless the rule holds for the flag ``name``."""
    if not rule_holds:
        raise ConfigError(f"--{name}: {rule}. Received: {received!r}")


def setting(
    text: str,
    rule: Rule | None = None,
    *,
    default: Any = MISSING,
    default_factory: Any = MISSING,
    shorthands: Mapping[str, str] | None = None,
) -> Any:
    """Declare a field of a class with the decorator ``settings``.

    Args:
        text: Its meaning in whole sentences, without the range and the paper's values.
        rule: Rule for its value. ``None`` allows every value of its type.
        default: Its default value. A setting without one is required.
        default_factory: Function that returns the default.
        shorthands: Flags that are short for a value: ``{"sgd": "sgd"}``.
    """
    about = {"text": text, "rule": rule, "shorthands": shorthands or {}}
    return field(default=default, default_factory=default_factory, metadata=about)


_TYPE_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    tuple[float, ...]: "finite numbers",
    tuple[int, ...]: "integers",
}
_OPTIONAL = {int | None: int, tuple[float, ...] | None: tuple[float, ...]}


class Checked:
    """Base of the classes with settings, which checks the type and rule of each value."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    group: ClassVar[str]

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            object.__setattr__(self, item.name, self._checked(item, getattr(self, item.name)))

    def _checked(self, item: dataclasses.Field[Any], value: Any) -> Any:
        """Return the value as a plain Python value of the field's type, or raise an error."""
        kind: Any = item.type
        if not item.metadata:  # A section of Config.
            if not isinstance(value, kind):
                raise TypeError(f"{type(self).__name__}.{item.name} must be a {kind.__name__}")
            return value
        if kind in _OPTIONAL:
            if value is None:
                return None
            kind = _OPTIONAL[kind]
        require(_is_a(value, kind), item.name, f"must be {_TYPE_WORDS[kind]}", value)
        # Convert NumPy's scalars, and integers given for floats.
        element = _element_of(kind)
        value = tuple(map(element, value)) if element else kind(value)
        rule = item.metadata["rule"]
        if rule:
            require(rule.holds(value), item.name, rule.words, value)
        return value


def _element_of(kind: Any) -> type | None:
    """Return ``int`` for ``tuple[int, ...]``, and ``None`` for other types."""
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def _is_a(value: Any, kind: Any) -> bool:
    element = _element_of(kind)
    if element:  # JSON has only lists.
        numbers = isinstance(value, tuple | list)
        return numbers and all(_is_a(v, element) and math.isfinite(v) for v in value)
    # bool is an int to Python, but `shots=True` is a mistake.
    accepted = {int: Integral, float: Real}.get(kind, kind)
    return isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))


_Class = TypeVar("_Class", bound=Checked)


@dataclass_transform(frozen_default=True, field_specifiers=(setting,))
def settings(group: str) -> Callable[[type[_Class]], type[_Class]]:
    """Make a ``Checked`` class with ``setting`` fields a frozen dataclass and document it.

    Args:
        group: Heading of its flags in ``--help``.
    """

    def decorate(cls: type[_Class]) -> type[_Class]:
        cls = dataclass(frozen=True)(cls)
        cls.group = group
        cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n\n{_reference(cls)}"
        return cls

    return decorate


def _reference(cls: type[Checked]) -> str:
    lines = ["Args:"]
    columns = columns_of(DATASETS)
    for item in dataclasses.fields(cls):
        kind: Any = item.type
        # A section of Config describes itself.
        text = describe(item, columns) if item.metadata else kind.__doc__.partition("\n")[0]
        text = f"{item.name}: {getattr(kind, '__name__', kind)}. {text}"
        lines += textwrap.wrap(text, 98, initial_indent=" " * 4, subsequent_indent=" " * 8)
    return "\n".join([*lines, "", "Raises:", "    ConfigError: A value breaks its rule."])


def describe(item: dataclasses.Field[Any], columns: Iterable[Column]) -> str:
    """Return a setting's meaning, its rule, and its default or else the paper's values.

    Args:
        item: Field declared with ``setting``.
        columns: Columns of the paper's tables whose values are stated.
    """
    stated = [column for column in columns if item.name in column.default_values()]
    default = default_of(item)
    value = ""
    if default is MISSING and stated:
        value = _paper_values(item.name, stated)
    elif default not in (MISSING, None, "", ()):
        value = f"Default: {shown(default)}."
    return " ".join(filter(None, (meaning(item), value)))


def meaning(item: dataclasses.Field[Any]) -> str:
    """Return a setting's meaning and its rule."""
    rule = item.metadata["rule"]
    return " ".join([item.metadata["text"], *([f"M{rule.words[1:]}."] if rule else [])])


def default_of(item: dataclasses.Field[Any]) -> Any:
    """Return the default of a setting, or ``MISSING``."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def _paper_values(name: str, columns: Sequence[Column]) -> str:
    """Return, for example, "Paper: 10 (Table 3), 5 (Table 4, 1-shot), 15 (Table 4, 5-shot)."."""
    tables: dict[str, dict[str, Any]] = {}
    for column in columns:
        where = column.table if name in column.paper_values() else column.network
        values = tables.setdefault(where, {})
        values[column.label] = column.default_values()[name]
    listed: list[tuple[Any, str]] = []
    for table, values in tables.items():
        if len(set(values.values())) == 1:
            listed.append((next(iter(values.values())), table))
        else:
            listed += [(value, f"{table}, {label}") for label, value in values.items()]
    value = listed[0][0]
    if any(other != value for other, _ in listed):
        return f"Paper: {', '.join(f'{shown(value)} ({where})' for value, where in listed)}."
    source = "Paper" if columns[0].source_of(name).startswith("paper") else "Default"
    return "" if value is None else f"{source}: {shown(value)}."


def shown(value: Any) -> str:
    """Return a default in readable form."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
