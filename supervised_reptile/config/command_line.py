"""The command line of every program, on absl's flags.

A program states its flags in a table and starts with one call:

    def serve(port: int) -> None: ...

    def main(argv: Sequence[str] | None = None) -> NoReturn:
        run_program(serve, {"port": Flag(8000, "TCP port.")}, argv, "Serves the pages.")

`--data-dir` and `--data_dir` are one flag, `--help` and `--version` answer and exit, a user's
mistake is one line. The flags of each program are a `FlagValues` of its own, not absl's global one.
"""

import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from absl import flags

from supervised_reptile.config.declaration import shown
from supervised_reptile.errors import ConfigError, UserError
from supervised_reptile.interrupts import raise_in_python

FLAG_FILES = Path(__file__).resolve().parents[1] / "configs"
"""Folder of the flag files that come with the package."""

_OWN = "This program"
_GROUP = "group"
"""Attribute that we add to absl's flags: the heading of `--help` that a flag is listed under."""
# A flag, with or without a value; a flag file may put a blank between the two.
_FLAG = re.compile(r"--?(?P<name>[A-Za-z][\w-]*)((=|\s+)(?P<value>.*))?", re.DOTALL)
# The flags belong to the program that asks for them, which is where absl lists them.
flags.disclaim_key_flags()


class Flag(NamedTuple):
    """A flag of a program of its own.

    Args:
        default: value of a flag that is not given.
        text: its meaning, for `--help`, which adds the default.
        kind: a key of `DEFINERS`; by default the type of the default value.
        choices: the values allowed, of a str.
        required: whether the flag must be given.
    """

    default: Any
    text: str
    kind: Any = None
    choices: Sequence[str] = ()
    required: bool = False


class _NumbersParser(flags.ArgumentParser):
    """Numbers with commas between them."""

    def __init__(self, kind: type, what: str) -> None:
        super().__init__()
        self._kind = kind
        self.syntactic_help = f"{what} with commas between them"

    def parse(self, argument: str | tuple[float, ...]) -> tuple[float, ...]:
        """Returns the numbers, or raises ValueError."""
        if not isinstance(argument, str):
            return argument
        try:
            return tuple(map(self._kind, argument.split(",")))
        except ValueError:
            raise ValueError(f"must be {self.syntactic_help}") from None


class _SwitchParser(flags.BooleanParser):
    """True or false, with an error of one line."""

    def parse(self, argument: str | int | bool) -> bool:
        """Returns the value, or raises ValueError."""
        try:
            return super().parse(argument)
        except ValueError:  # whose own message is a Python tuple
            raise ValueError("must be true or false") from None


class _Answer(flags.BooleanFlag):
    """A switch that prints a text and ends the program, such as --help."""

    def __init__(self, name: str, answer: Callable[[], str], short_name: str | None) -> None:
        super().__init__(name, False, f"Prints the {name} and exits.", short_name)
        self._answer = answer

    def parse(self, argument: str | bool) -> None:
        """Prints the answer and exits if the switch is on."""
        super().parse(argument)
        if self.value:
            print(self._answer(), flush=True)
            sys.exit(0)


def _define_switch(name: str, default: bool, text: str, flag_values: flags.FlagValues) -> None:
    flag = flags.BooleanFlag(name, default, text)
    flag.parser = _SwitchParser()
    flags.DEFINE_flag(flag, flag_values)


def _numbers_definer(kind: type, what: str) -> Callable[..., None]:
    def define(name: str, default: Any, text: str, flag_values: flags.FlagValues) -> None:
        parser = _NumbersParser(kind, what)
        flags.DEFINE(parser, name, default, text, flag_values=flag_values)

    return define


DEFINERS: dict[Any, Callable[..., Any]] = {
    int: flags.DEFINE_integer,
    int | None: flags.DEFINE_integer,
    tuple[float, ...]: _numbers_definer(float, "numbers"),
    tuple[float, ...] | None: _numbers_definer(float, "numbers"),
    tuple[int, ...]: _numbers_definer(int, "integers"),
    float: flags.DEFINE_float,
    bool: _define_switch,
    str: flags.DEFINE_string,
    list[str]: flags.DEFINE_multi_string,  # --row=a --row=b
}
"""Type of a flag -> what defines it: called with name, default and text, and flag_values=…"""


def define_own_flags(
    definitions: Mapping[str, Flag | tuple[Any, str]], flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines flags of a program's own, which --help lists after all others.

    Args:
        definitions: name of each flag -> `Flag`, or a pair of its default and its meaning.
        flag_values: where to define them; absl's global flags by default.
    """
    for name, definition in definitions.items():
        flag = Flag(*definition)
        text = flag.text + _default_text(flag.default)
        if flag.choices:
            flags.DEFINE_enum(name, flag.default, flag.choices, text, flag_values=flag_values)
        else:
            kind = flag.kind or type(flag.default)
            if kind is tuple:
                kind = types.GenericAlias(tuple, (type(flag.default[0]), ...))
            DEFINERS[kind](name, flag.default, text, flag_values=flag_values)
        flag_values[name].help = text  # absl adds to that of a list
    group_flags(_OWN, definitions, flag_values)


def _default_text(default: Any) -> str:
    if default is None or default in ("", (), []):
        return ""
    values = default if isinstance(default, tuple) else (default,)
    return f" Default: {','.join(map(shown, values))}."


def group_flags(group: str, names: Iterable[str], flag_values: flags.FlagValues) -> None:
    """Puts those of the named flags that are defined under a heading of `--help`."""
    for name in names:
        if name in flag_values:
            setattr(flag_values[name], _GROUP, group)


def own_values(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """Returns the values of the flags that `define_own_flags` defined, by name."""
    return {name: flag_values[name].value for name in _groups(flag_values).get(_OWN, ())}


def _groups(flag_values: flags.FlagValues) -> dict[str, list[str]]:
    """Heading -> names of the flags under it, as they were defined; a program's own come last."""
    groups: dict[str, list[str]] = {}
    for name in flag_values:
        if group := getattr(flag_values[name], _GROUP, None):
            groups.setdefault(group, []).append(name)
    if _OWN in groups:
        groups[_OWN] = groups.pop(_OWN)
    return groups


def _respelled(words: Sequence[str], flag_values: flags.FlagValues) -> Iterator[str]:
    """Yields the words with every flag spelt as it is defined, for absl to parse.

    `--inner-batch`, `-inner-batch` and the flag file's line `--inner-batch 5` become the flag
    `inner_batch`, and `--no-transductive` becomes `--notransductive`. The word after a flag that
    takes a value is that value, whatever it looks like.
    """
    is_value = False
    for word in words:
        match = None if is_value else _FLAG.fullmatch(word)
        is_value = False
        if match is None:
            yield word
            continue
        name, value = match["name"].replace("-", "_"), match["value"]
        positive = name.removeprefix("no_")
        if name not in flag_values and positive in flag_values:
            name = f"no{positive}"
        yield f"--{name}" if value is None else f"--{name}={value}"
        is_value = value is None and name in flag_values and not flag_values[name].boolean


def flag_file(name: str) -> str:
    """Returns the path of a flag file.

    Args:
        name: path of a file or, where there is no such file, the name of one of the package's:
            "quickstart", "quickstart.cfg" or "configs/quickstart.cfg".

    Raises:
        ConfigError: If there is none.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return str(path)
    packaged = {file.stem: file for file in sorted(FLAG_FILES.glob("*.cfg"))}
    if path.parent in (Path(), Path("configs")) and path.name.removesuffix(".cfg") in packaged:
        return str(packaged[path.name.removesuffix(".cfg")])
    raise ConfigError(
        f"--flagfile: must be a file or one of {', '.join(packaged)}. Received: {name!r}"
    )


def _with_flag_files(words: Sequence[str], flag_values: flags.FlagValues) -> list[str]:
    """Returns the words with the lines of each --flagfile in its place."""
    words = list(words)
    for i, word in enumerate(words):
        flag, equals, name = word.partition("=")
        if flag in ("--flagfile", "-flagfile") and equals:
            words[i] = f"--flagfile={flag_file(name)}"
        elif flag in ("--flagfile", "-flagfile") and i + 1 < len(words):
            words[i + 1] = flag_file(words[i + 1])
    try:
        return flag_values.read_flags_from_files(words)
    except UnicodeDecodeError as error:
        raise ConfigError(f"--flagfile: must be UTF-8 text. Received: {error}") from error


def parse_flags(
    argv: Sequence[str],
    flag_values: flags.FlagValues = flags.FLAGS,
    description: str | None = None,
    operands: Sequence[str] = (),
) -> list[str]:
    """Parses the command line; `--help` and `--version` print their answer and exit.

    Args:
        argv: the program's name and its arguments.
        flag_values: the flags to set.
        description: what `--help` says first; the docstring of the program by default.
        operands: names of flags that are also given without their name, in this order.

    Returns:
        list of str, the program's name alone.

    Raises:
        absl.flags.Error: If a flag is unknown or its value malformed, or an argument is no flag.
        ConfigError: If there is no such flag file.
    """
    program, *words = argv
    answers = {"help": lambda: help_text(flag_values, description), "version": _version}
    for name, short, answer in (
        ("help", "h", "help"),
        ("helpshort", None, "help"),
        ("helpfull", None, "help"),
        ("version", "v", "version"),
        ("V", None, "version"),
    ):
        if name not in flag_values:
            if short and short in flag_values:
                short = None
            flags.DEFINE_flag(_Answer(name, answers[answer], short), flag_values)
    flag_values.set_gnu_getopt()  # operands may stand anywhere
    words = list(_respelled(_with_flag_files(words, flag_values), flag_values))
    try:
        _, *rest = flag_values([program, *words])
        for name, value in zip(operands, rest, strict=False):
            flag_values[name].parse(value)
    except ValueError as error:  # What absl makes of --notransductive=1.
        raise flags.Error(str(error)) from error
    except RecursionError as error:  # where it looks for flags that are spelt alike
        raise flags.Error("an argument is far too long to be a flag") from error
    if surplus := rest[len(operands) :]:
        most = "every argument is a --flag" if not operands else "there are too many"
        raise flags.Error(f"unexpected argument {surplus[0]!r}: {most}")
    return [program]


def _version() -> str:
    from supervised_reptile import __version__

    return f"supervised-reptile {__version__}"


def help_text(flag_values: flags.FlagValues = flags.FLAGS, description: str | None = None) -> str:
    """Returns what `--help` prints: every flag by group, with meaning, range and defaults.

    Args:
        flag_values: the flags.
        description: what it says first; the docstring of the program by default.
    """
    text = description or sys.modules["__main__"].__doc__ or ""
    parts = [text.replace("``", "").strip() + "\n"] if text else []
    groups = _groups(flag_values)
    if not groups:
        return text.strip()
    parts.append("In the names of flags, dashes and underscores are the same.")
    for group, names in groups.items():
        parts.append(f"\n{group if len(groups) > 1 else 'Flags'}:")
        for name in names:
            switch = f"--[no]{name}" if flag_values[name].boolean else f"--{name}"
            parts.extend(_help_lines(switch, flag_values[name].help))
    flag_files = "Read flags from a file, or from one of the package's, such as quickstart."
    parts += ["", *_help_lines("--flagfile", flag_files)]
    parts += _help_lines("--version", "Print the version of the package.")
    return "\n".join(parts)


def _help_lines(flag: str, text: str) -> list[str]:
    indent = " " * 26
    lines = textwrap.wrap(text, 96, initial_indent=indent, subsequent_indent=indent)
    return [f"  {flag:<23} {lines[0].lstrip()}", *lines[1:]]


def run_main(
    main: Callable[[list[str]], int | None],
    argv: Sequence[str] | None = None,
    flag_values: flags.FlagValues = flags.FLAGS,
    description: str | None = None,
    operands: Sequence[str] = (),
) -> NoReturn:
    """Parses the flags, runs `main` and exits.

    A `UserError` ends in one line, `run_omniglot.py: error: ...`, and its exit code; what absl
    says of a flag likewise, with exit code 2, and what the operating system says, with 1.

    Args:
        main: called with the program's name in a list; its return value is the exit code.
        argv: the program's name and its arguments; `sys.argv` by default.
        flag_values: the flags of the program; absl's global flags by default.
        description: what `--help` says first; the docstring of the program by default.
        operands: names of flags that are also given without their name, in this order.
    """
    argv = sys.argv if argv is None else argv
    program = Path(argv[0]).name
    try:
        raise_in_python()
        code = main(parse_flags([program, *argv[1:]], flag_values, description, operands))
        sys.stdout.flush()
    except BrokenPipeError:  # such as --help | head
        sys.stderr.close()
        sys.exit(1)
    except (UserError, flags.Error, OSError) as error:  # OSError: a full disk …
        message = " ".join(str(error).split()).removeprefix("ERROR:: ")
        kind = getattr(error, "kind", "error")
        if not message.startswith(kind):  # "stopped: stopped after …"
            message = f"{kind}: {message}"
        sys.stderr.write(f"{program}: {message}\n")
        sys.exit(getattr(error, "exit_code", 1 if isinstance(error, OSError) else 2))
    except KeyboardInterrupt:
        line = "\n" if sys.stderr.isatty() else ""  # the terminal shows ^C
        sys.stderr.write(f"{line}{program}: stopped: interrupted; what was saved is intact\n")
        sys.exit(130)
    sys.exit(code)


def run_program(
    main: Callable[..., int | None],
    definitions: Mapping[str, Flag | tuple[Any, str]],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    operands: Sequence[str] = (),
) -> NoReturn:
    """Runs a program with flags of its own, as `run_main` does.

    Args:
        main: called with the value of each flag, by name; its return value is the exit code.
        definitions: name of each flag -> `Flag`, or a pair of its default and its meaning.
        argv: the program's name and its arguments; `sys.argv` by default.
        description: what `--help` says first; the docstring of the program by default.
        operands: names of flags that are also given without their name, in this order.
    """
    values = flags.FlagValues()
    define_own_flags(definitions, values)

    def checked_main(argv: list[str]) -> int | None:
        given = own_values(values)
        for name, definition in definitions.items():
            if Flag(*definition).required and given[name] is None:
                raise ConfigError(f"--{name}: must be given. Received: nothing")
        return main(**given)

    run_main(checked_main, argv, values, description, operands)
