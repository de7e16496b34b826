"""The help of each flag, generated from the line that declares the setting."""

import dataclasses
from collections.abc import Sequence

from supervised_reptile.config.configuration import Config
from supervised_reptile.config.declaration import Checked, describe
from supervised_reptile.config.paper import columns_of
from supervised_reptile.config.settings import SECTIONS, RunOptions

_CLASSES: tuple[type[Checked], ...] = (*SECTIONS.values(), Config, RunOptions)
_SETTINGS = {
    item.name: (kind.group, item)
    for kind in _CLASSES
    for item in dataclasses.fields(kind)
    if item.metadata  # else a section of Config
}

SHORTHANDS: dict[str, tuple[str, str]] = {
    short: (name, value)
    for name, (_, item) in _SETTINGS.items()
    for short, value in item.metadata["shorthands"].items()
}
"""The hyper-parameter and the value that each shorthand flag means."""

GROUPS: dict[str, list[str]] = {}
"""The flags below each heading in ``--help``."""
for _name, (_group, _item) in _SETTINGS.items():
    GROUPS.setdefault(_group, []).extend((_name, *_item.metadata["shorthands"]))


def help_of(dataset_choices: Sequence[str]) -> dict[str, str]:
    """Return each flag's help, with its default or the paper's values for these data sets."""
    columns = columns_of(dataset_choices)
    result = {}
    for name, (_, item) in _SETTINGS.items():
        result[name] = describe(item, columns)
        for short, value in item.metadata["shorthands"].items():
            result[short] = f"Short for --{name}={value}."
    return result
