"""Command-line flags: absl flags -> `Config` and `RunOptions`.

Every hyper-parameter is a flag of the same name. A flag that is not given means the paper's value
for the chosen data set, classes and shots. `--inner-batch` and `--inner_batch` are one flag, so
the published commands of the authors' program run as they are. An entry script reads:

    def main(argv):
        config, options = config_from_flags(), options_from_flags()
        ...

    define_flags(("omniglot", "glyphs"))

    if __name__ == "__main__":
        run_main(main)

Nothing else reads `absl.flags.FLAGS`.
"""

import dataclasses
import re
import sys
import textwrap
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging

from supervised_reptile.config import FIELDS, Config, RunOptions, paper_config
from supervised_reptile.config.declaration import shown
from supervised_reptile.config.flag_help import GROUPS, SHORTHANDS, help_of
from supervised_reptile.config.locations import FOLDER, is_image_folder
from supervised_reptile.config.paper import DATASETS
from supervised_reptile.errors import ConfigError, UserError


class _NumbersParser(flags.ArgumentParser):
    """Numbers with commas between them."""

    syntactic_help = "numbers with commas between them"

    def parse(self, argument: str | tuple[float, ...]) -> tuple[float, ...]:
        """Returns the numbers, or raises ValueError."""
        return tuple(map(float, argument.split(","))) if isinstance(argument, str) else argument


def _define_numbers(name: str, default: Any, text: str, flag_values: flags.FlagValues) -> None:
    flags.DEFINE(_NumbersParser(), name, default, text, flag_values=flag_values)


_DEFINERS = {
    int: flags.DEFINE_integer,
    int | None: flags.DEFINE_integer,
    tuple[float, ...] | None: _define_numbers,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
    str: flags.DEFINE_string,
}
# A flag, with or without a value; a flagfile may put a blank between the two.
_FLAG = re.compile(r"(?P<dashes>--?)(?P<name>[A-Za-z][\w-]*)((=|\s+)(?P<value>.*))?", re.DOTALL)
# Names of the flags of an entry script's own, by where they were defined.
_own_flags: dict[int, list[str]] = {}
_HELP_FLAGS = ("help", "helpshort", "h")

# The flags belong to the entry script that asks for them, which is where absl lists them.
flags.disclaim_key_flags()


def define_flags(
    dataset_choices: Sequence[str],
    *,
    own_images: bool = False,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Defines one flag for every hyper-parameter that can be chosen and every run option.

    Args:
        dataset_choices: keys of `paper.DATASETS` that `--dataset` accepts; the first is the
            default.
        own_images: whether `--dataset=folder:NAME` is accepted too, and a `--data_dir` that is
            itself a data set (`places.is_image_folder`) means it.
        flag_values: where to define them; absl's global flags by default.
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
                    f" {FOLDER}NAME: the folder NAME in --data_dir, with train/, val/ and test/, a"
                    " folder a class, or a zip file each. Need not be given when --data_dir is"
                    " such a folder itself."
                )
                parser = _DatasetParser(dataset_choices)
            flags.DEFINE(parser, name, dataset_choices[0], text, flag_values=flag_values)
        elif name in options:
            default = getattr(defaults, name)
            _DEFINERS[options[name]](name, default, text, flag_values=flag_values)
        else:
            kind = bool if name in SHORTHANDS else FIELDS[name]
            _DEFINERS[kind](name, None, text, flag_values=flag_values)


def define_own_flags(
    definitions: Mapping[str, tuple[Any, str]], flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines flags of an entry script's own, which --help lists after all others.

    Args:
        definitions: name of the flag to its default, which tells its type, and its meaning.
        flag_values: where to define them; absl's global flags by default.
    """
    for name, (default, text) in definitions.items():
        kind = tuple[float, ...] | None if isinstance(default, tuple) else type(default)
        written = ",".join(map(shown, default)) if isinstance(default, tuple) else shown(default)
        _DEFINERS[kind](name, default, f"{text} Default: {written}.", flag_values=flag_values)
        _own_flags.setdefault(id(flag_values), []).append(name)


def own_values(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """Returns the values of the flags that `define_own_flags` defined, by name."""
    return {name: flag_values[name].value for name in _own_flags.get(id(flag_values), ())}


class _DatasetParser(flags.EnumParser):
    """One of some names, or "folder:NAME"."""

    def parse(self, argument: str) -> str:
        """Returns the argument, or raises ValueError."""
        if argument.startswith(FOLDER) or argument in self.enum_values:
            return argument
        raise ValueError(f"value should be one of <{'|'.join(self.enum_values)}|{FOLDER}NAME>")


def _normalized(
    argv: Sequence[str], flag_values: flags.FlagValues
) -> Iterator[tuple[str, str | None]]:
    """Yields each argument with flags spelt as defined, and the flag's name if it is one.

    `--inner-batch 5`, `-inner-batch=5` and the flagfile line `--inner-batch 5` all become the
    flag `inner_batch`; `--no-transductive` becomes `--notransductive`. What follows a flag that
    takes a value is that value, whatever it looks like.

    Args:
        argv: arguments without the program's name, flagfiles already expanded.
        flag_values: the defined flags.

    Raises:
        absl.flags.Error: If an argument is neither a flag nor a flag's value.
    """
    words = deque(argv)
    while words:
        word = words.popleft()
        match = _FLAG.fullmatch(word)
        if match is None:
            if word == "--" or not word.startswith("-"):
                raise flags.Error(f"unexpected argument {word!r}: every argument is a --flag")
            yield word, None  # Such as "-1": absl will say that there is no such flag.
            continue
        name, value = match["name"].replace("-", "_"), match["value"]
        positive = name.removeprefix("no_") if name not in flag_values else name
        if positive != name and positive in flag_values:
            name = f"no{positive}"
        yield f"--{name}" + ("" if value is None else f"={value}"), name
        if value is not None or not words:
            continue
        if name in flag_values:
            takes_value = not flag_values[name].boolean
        else:  # An unknown flag; absl names it, so let its value not be in the way.
            takes_value = name.removeprefix("no") not in flag_values and words[0][:1] != "-"
        if takes_value:
            yield words.popleft(), None


def parse_flags(argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses the command line; for `absl.app.run(main, flags_parser=parse_flags)`.

    `--help` prints the flags by group and exits.

    Args:
        argv: the program's name and its arguments.
        flag_values: the flags to set.

    Returns:
        list of str, the program's name alone.

    Raises:
        absl.flags.Error: If a flag is unknown or its value malformed, or an argument is no flag.
    """
    program, *words = argv
    words = list(_normalized(flag_values.read_flags_from_files(words), flag_values))
    if any(name in _HELP_FLAGS for _, name in words):
        print(help_text(flag_values))
        sys.exit(0)
    try:
        return flag_values([program, *(word for word, _ in words)])
    except ValueError as error:  # What absl makes of --notransductive=1.
        raise flags.Error(str(error)) from error


def help_text(flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """Returns what `--help` prints: every flag by group, with meaning, range and defaults."""
    main = sys.modules["__main__"].__doc__
    parts = [main.strip() + "\n"] if main else []
    own = list(own_values(flag_values))
    if "classes" in flag_values:
        parts.append("Flags not given take the paper's values for the data set, classes and shots.")
    parts.append("Dashes and underscores are the same: --inner-batch, --inner_batch.")
    shared = {
        group: [name for name in names if name in flag_values and name not in own]
        for group, names in GROUPS.items()
    }
    for group, names in (shared | {"This program": own}).items():
        if names:
            parts.append(f"\n{group}:")
        for name in names:
            flag = flag_values[name]
            switch = f"--[no]{name}" if flag.boolean else f"--{name}"
            indent = " " * 26
            lines = textwrap.wrap(flag.help, 96, initial_indent=indent, subsequent_indent=indent)
            lines[0] = f"  {switch:<23} " + lines[0].lstrip()
            parts.extend(lines)
    parts.append("\n  --flagfile=FILE         Read flags from a file, such as configs/*.cfg.")
    parts.append("  --helpfull              List absl's own flags as well (logging, debugging).")
    return "\n".join(parts)


def config_from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Config:
    """Returns the configuration that the parsed flags describe.

    Args:
        flag_values: parsed flags; those not given take the paper's values.

    Raises:
        ConfigError: If the values cannot be run or contradict one another.
    """
    given = {name: flag_values[name].value for name in FIELDS if name in flag_values}
    given = {name: value for name, value in given.items() if value is not None}
    for short, (name, value) in SHORTHANDS.items():
        if flag_values[short].value:
            if given.get(name, value) != value:
                raise ConfigError(
                    f"--{short}: means --{name}={value}. Received: --{name}={given[name]} as well"
                )
            given[name] = value
    dataset, data_dir = flag_values["dataset"], Path(flag_values["data_dir"].value)
    own_images = isinstance(dataset.parser, _DatasetParser)
    if own_images and not dataset.present and is_image_folder(data_dir):
        given["dataset"] = FOLDER + data_dir.resolve().name
    return paper_config(**given)


def options_from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> RunOptions:
    """Returns the run options that the parsed flags describe.

    Raises:
        ConfigError: If a value is out of range.
    """
    names = [item.name for item in dataclasses.fields(RunOptions)]
    values: dict[str, Any] = {name: flag_values[name].value for name in names}
    return RunOptions(**values)


def run_main(
    main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None
) -> NoReturn:
    """Parses the flags, runs `main` under `absl.app.run` and exits.

    A `UserError` ends in one line, `run_omniglot.py: error: ...`, and its exit code; what absl
    says of a flag likewise, with exit code 2, and what the operating system says, with 1. Log
    messages below warnings are kept off the terminal unless --verbosity asks for them.

    Args:
        main: called with the program's name in a list; its return value is the exit code.
        argv: the program's name and its arguments; `sys.argv` by default.
    """
    program = Path((argv or sys.argv)[0]).name

    def quiet_main(arguments: list[str]) -> int | None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # app.run has set it to INFO
        return main(arguments)

    try:
        app.run(quiet_main, argv=argv, flags_parser=parse_flags)
    except (UserError, flags.Error) as error:
        message = " ".join(str(error).split()).removeprefix("ERROR:: ")
        sys.stderr.write(f"{program}: {getattr(error, 'kind', 'error')}: {message}\n")
        sys.exit(getattr(error, "exit_code", 2))
    except BrokenPipeError:  # such as --help | head
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that is a file …
        sys.stderr.write(f"{program}: error: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{program}: stopped: interrupted; what was saved is intact\n")
        sys.exit(130)
