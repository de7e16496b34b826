"""The command line of every program, built on absl's flags.

A program lists its flags in a table and starts with one call:

    def serve(port: int) -> None: ...

    def main(argv: Sequence[str] | None = None) -> NoReturn:
        run_program(serve, {"port": Flag(8000, "TCP port.")}, argv, "Serves the pages.")

``--data-dir`` and ``--data_dir`` are the same flag. ``--help`` and ``--version`` print their answer
and exit. A user's mistake is reported in one line. Each program has its own ``FlagValues`` instead
of absl's global one.
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
"""Attribute that we add to absl's flags: the heading of a flag in ``--help``."""
# A flag, with or without a value; in a flag file a space may separate the two.
_FLAG = re.compile(r"--?(?P<name>[A-Za-z][\w-]*)((=|\s+)(?P<value>.*))?", re.DOTALL)
# The flags belong to the calling program, so absl lists them there.
flags.disclaim_key_flags()


class Flag(NamedTuple):
    """A flag of one program.

    Args:
        default: Value if the flag is not given.
        text: Its meaning, for ``--help``, which adds the default.
        kind: A key of ``DEFINERS``. Default: the type of the default value.
        choices: Allowed values of a str.
        required: Whether the flag must be given.
    """

    default: Any
    text: str
    kind: Any = None
    choices: Sequence[str] = ()
    required: bool = False


class _NumbersParser(flags.ArgumentParser):
    """Parses numbers separated by commas."""

    def __init__(self, kind: type, what: str) -> None:
        super().__init__()
        self._kind = kind
        self.syntactic_help = f"{what} separated by commas"

    def parse(self, argument: str | tuple[float, ...]) -> tuple[float, ...]:
        """Return the numbers, or raise ``ValueError``."""
        if not isinstance(argument, str):
            return argument
        try:
            return tuple(map(self._kind, argument.split(",")))
        except ValueError:
            raise ValueError(f"must be {self.syntactic_help}") from None


class _SwitchParser(flags.BooleanParser):
    """Parses true or false, with a one-line error."""

    def parse(self, argument: str | int | bool) -> bool:
        """Return the value, or raise ``ValueError``."""
        try:
            return super().parse(argument)
        except ValueError:  # whose own message is a Python tuple
            raise ValueError("must be true or false") from None


class _Answer(flags.BooleanFlag):
    """A switch that prints a text and ends the program, such as --help."""

    def __init__(self, name: str, answer: Callable[[], str], short_name: str | None) -> None:
        super().__init__(name, False, f"Print the {name} and exit.", short_name)
        self._answer = answer

    def parse(self, argument: str | bool) -> None:
        """Print the answer and exit if the switch is on."""
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
"""Function that defines a flag of each type, from its name, default, text and ``flag_values``."""


def define_own_flags(
    definitions: Mapping[str, Flag | tuple[Any, str]], flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Define the flags of one program, which ``--help`` lists after all others.

    Args:
        definitions: A ``Flag``, or a pair of default and meaning, for the name of each flag.
        flag_values: Where to define them. Default: absl's global flags.
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
        flag_values[name].help = text  # absl extends the help of a list
    group_flags(_OWN, definitions, flag_values)


def _default_text(default: Any) -> str:
    if default is None or default in ("", (), []):
        return ""
    values = default if isinstance(default, tuple) else (default,)
    return f" Default: {','.join(map(shown, values))}."


def group_flags(group: str, names: Iterable[str], flag_values: flags.FlagValues) -> None:
    """Put the named flags, as far as they are defined, under a heading of ``--help``."""
    for name in names:
        if name in flag_values:
            setattr(flag_values[name], _GROUP, group)


def own_values(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """Return the values of the flags that ``define_own_flags`` defined, by name."""
    return {name: flag_values[name].value for name in _groups(flag_values).get(_OWN, ())}


def _groups(flag_values: flags.FlagValues) -> dict[str, list[str]]:
    """Return the names of the flags under each heading; a program's own flags come last."""
    groups: dict[str, list[str]] = {}
    for name in flag_values:
        if group := getattr(flag_values[name], _GROUP, None):
            groups.setdefault(group, []).append(name)
    if _OWN in groups:
        groups[_OWN] = groups.pop(_OWN)
    return groups


def _respelled(words: Sequence[str], flag_values: flags.FlagValues) -> Iterator[str]:
    """Yield the words with every flag in its defined spelling, for absl to parse.

    ``--inner-batch``, ``-inner-batch`` and the line ``--inner-batch 5`` of a flag file become the
    flag ``inner_batch``, and ``--no-transductive`` becomes ``--notransductive``. The word after a
    flag that takes a value is that value, even if it looks like a flag.
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
    """Return the path of a flag file.

    Args:
        name: Path of a file or, if there is no such file, the name of a file in the package:
            "quickstart", "quickstart.cfg" or "configs/quickstart.cfg".

    Raises:
        ConfigError: There is no such file.
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
    """Replace each ``--flagfile`` with the lines of its file."""
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
    """Parse the command line; ``--help`` and ``--version`` print their answer and exit.

    Args:
        argv: The program's name and its arguments.
        flag_values: The flags to set.
        description: Text at the top of ``--help``. Default: the docstring of the program.
        operands: Names of flags that may also be given without their name, in this order.

    Returns:
        A list with only the program's name.

    Raises:
        absl.flags.Error: A flag is unknown, its value is malformed, or an argument is not a flag.
        ConfigError: There is no such flag file.
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
    flag_values.set_gnu_getopt()  # operands may appear anywhere
    words = list(_respelled(_with_flag_files(words, flag_values), flag_values))
    try:
        _, *rest = flag_values([program, *words])
        for name, value in zip(operands, rest, strict=False):
            flag_values[name].parse(value)
    except ValueError as error:  # absl's error for --notransductive=1
        raise flags.Error(str(error)) from error
    except RecursionError as error:  # in the search for flags with a similar spelling
        raise flags.Error("an argument is far too long to be a flag") from error
    if surplus := rest[len(operands) :]:
        most = "every argument is a --flag" if not operands else "there are too many"
        raise flags.Error(f"unexpected argument {surplus[0]!r}: {most}")
    return [program]


def _version() -> str:
    from supervised_reptile import __version__

    return f"supervised-reptile {__version__}"


def help_text(flag_values: flags.FlagValues = flags.FLAGS, description: str | None = None) -> str:
    """Return the text of ``--help``: every flag by group, with meaning, range and defaults.

    Args:
        flag_values: The flags.
        description: Text at the top. Default: the docstring of the program.
    """
    text = description or sys.modules["__main__"].__doc__ or ""
    parts = [text.replace("``", "").strip() + "\n"] if text else []
    groups = _groups(flag_values)
    if not groups:
        return text.strip()
    parts.append("In flag names, dashes and underscores are equivalent.")
    for group, names in groups.items():
        parts.append(f"\n{group if len(groups) > 1 else 'Flags'}:")
        for name in names:
            switch = f"--[no]{name}" if flag_values[name].boolean else f"--{name}"
            parts.extend(_help_lines(switch, flag_values[name].help))
    flag_files = "Read flags from a file, or from one in the package, such as quickstart."
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
    """Parse the flags, run ``main`` and exit.

    A ``UserError`` is printed in one line, ``run_omniglot.py: error: ...``, and sets the exit code.
    Errors of absl are printed in the same way with exit code 2, those of the operating system with
    exit code 1.

    Args:
        main: Called with a list that contains the program's name. Returns the exit code.
        argv: The program's name and its arguments. Default: ``sys.argv``.
        flag_values: The flags of the program. Default: absl's global flags.
        description: Text at the top of ``--help``. Default: the docstring of the program.
        operands: Names of flags that may also be given without their name, in this order.
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
        sys.stderr.write(f"{line}{program}: stopped: interrupted; saved files are intact\n")
        sys.exit(130)
    sys.exit(code)


def run_program(
    main: Callable[..., int | None],
    definitions: Mapping[str, Flag | tuple[Any, str]],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    operands: Sequence[str] = (),
) -> NoReturn:
    """Run a program with its own flags, like ``run_main``.

    Args:
        main: Called with the value of each flag, by name. Returns the exit code.
        definitions: A ``Flag``, or a pair of default and meaning, for the name of each flag.
        argv: The program's name and its arguments. Default: ``sys.argv``.
        description: Text at the top of ``--help``. Default: the docstring of the program.
        operands: Names of flags that may also be given without their name, in this order.
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
