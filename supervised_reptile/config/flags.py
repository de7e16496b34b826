"""The flags of the hyper-parameters, converted to ``Config`` and ``RunOptions``.

Every hyper-parameter has a flag of the same name. If a flag is not given, its value is the paper's
for the chosen data set, classes and shots. An entry script reads:

    run_configured(main, ("omniglot", "glyphs"))  # calls main(config, options)

Only this module and ``command_line`` use absl's flags.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from supervised_reptile.config import FIELDS, Config, RunOptions, paper_config
from supervised_reptile.config.command_line import DEFINERS, group_flags, run_main
from supervised_reptile.config.flag_help import GROUPS, SHORTHANDS, help_of
from supervised_reptile.config.locations import FOLDER, is_image_folder
from supervised_reptile.config.paper import DATASETS
from supervised_reptile.errors import ConfigError

_UNGIVEN = "Flags that are not given take the paper's values for the data set, classes and shots."


def define_flags(
    dataset_choices: Sequence[str],
    *,
    own_images: bool = False,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Define one flag for every hyper-parameter that can be chosen and every run option.

    Args:
        dataset_choices: Keys of ``paper.DATASETS`` that ``--dataset`` accepts. The first is the
            default.
        own_images: Whether ``--dataset=folder:NAME`` is also accepted, and is implied by a
            ``--data_dir`` that is itself a data set (``locations.is_image_folder``).
        flag_values: Where to define them. Default: absl's global flags.
    """
    options = {item.name: item.type for item in dataclasses.fields(RunOptions)}
    defaults = RunOptions()
    fixed = set.intersection(*(set(DATASETS[name].fixed) for name in dataset_choices))
    for name, text in help_of(dataset_choices).items():
        if name in fixed:
            continue
        if name == "dataset":
            text = f"Data set: {', '.join(dataset_choices)}. Default: {dataset_choices[0]}."
            parser = flags.EnumParser(dataset_choices)
            if own_images:
                text += (
                    f" {FOLDER}NAME: the folder NAME in --data_dir, with train/, val/ and test/ (or"
                    " zip files of them), which have a folder per class. Not needed if --data_dir"
                    " is such a folder itself."
                )
                parser = _DatasetParser(dataset_choices)
            flags.DEFINE(parser, name, dataset_choices[0], text, flag_values=flag_values)
        elif name in options:
            default = getattr(defaults, name)
            DEFINERS[options[name]](name, default, text, flag_values=flag_values)
        else:
            kind = bool if name in SHORTHANDS else FIELDS[name]
            DEFINERS[kind](name, None, text, flag_values=flag_values)
    for group, names in GROUPS.items():
        group_flags(group, names, flag_values)


class _DatasetParser(flags.EnumParser):
    """Parses one of several names, or "folder:NAME"."""

    def parse(self, argument: str) -> str:
        """Return the argument, or raise ``ValueError``."""
        if argument.startswith(FOLDER) or argument in self.enum_values:
            return argument
        raise ValueError(f"value should be one of <{'|'.join(self.enum_values)}|{FOLDER}NAME>")


def config_from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Config:
    """Return the configuration that the parsed flags describe.

    Args:
        flag_values: Parsed flags. Those that are not given take the paper's values.

    Raises:
        ConfigError: The values are not valid or contradict each other.
    """
    values = flag_values.flag_values_dict()
    given = {name: values[name] for name in FIELDS if values.get(name) is not None}
    for short, (name, value) in SHORTHANDS.items():
        if values[short]:
            if given.get(name, value) != value:
                raise ConfigError(
                    f"--{short}: means --{name}={value}. Received: --{name}={given[name]} as well"
                )
            given[name] = value
    dataset, data_dir = flag_values["dataset"], Path(values["data_dir"])
    own_images = isinstance(dataset.parser, _DatasetParser)
    if own_images and not dataset.present and is_image_folder(data_dir):
        given["dataset"] = FOLDER + data_dir.resolve().name
    return paper_config(**given)


def options_from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> RunOptions:
    """Return the run options that the parsed flags describe.

    Raises:
        ConfigError: A value is out of range.
    """
    names = [item.name for item in dataclasses.fields(RunOptions)]
    values: dict[str, Any] = {name: flag_values[name].value for name in names}
    return RunOptions(**values)


def run_configured(
    main: Callable[[Config, RunOptions], None],
    dataset_choices: Sequence[str],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    *,
    own_images: bool = False,
) -> NoReturn:
    """Run a program whose flags are the hyper-parameters, like ``command_line.run_main``.

    Args:
        main: Called with the configuration and the run options that the flags describe.
        dataset_choices: As for ``define_flags``.
        argv: The program's name and its arguments. Default: ``sys.argv``.
        description: Text at the top of ``--help``. Default: the docstring of the program.
        own_images: As for ``define_flags``.
    """
    values = flags.FlagValues()
    define_flags(dataset_choices, own_images=own_images, flag_values=values)
    run_main(
        lambda argv: main(config_from_flags(values), options_from_flags(values)),
        argv,
        values,
        f"{(description or sys.modules['__main__'].__doc__ or '').strip()}\n\n{_UNGIVEN}",
    )
