"""Docstrings as Markdown: their equations, references to other names, and examples.

An extension of Griffe, which reads the docstrings for mkdocstrings.
"""

import functools
import importlib
import re
import textwrap

import griffe

_EQUATION = re.compile(r"^( *)\.\. math::(.*\n(?:(?:\1 +.*)?\n)*)", re.MULTILINE)
_REFERENCE = re.compile(r":\w+:`~?([\w.]+)`")
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class MarkdownDocstrings(griffe.Extension):
    """Rewrites each docstring before its sections are read."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(docstring: str) -> str:
    """The docstring in Markdown."""
    text = _EQUATION.sub(_equation, docstring + "\n")
    text = _REFERENCE.sub(_reference, text)
    return _EXAMPLE.sub(r"\1Examples:", text).rstrip()


@functools.cache
def public_objects() -> dict[str, str]:
    """Public name → dotted path of where it is defined."""
    package = importlib.import_module("supervised_reptile")
    found = {}
    for name in package.__all__:
        value = getattr(package, name)
        if not isinstance(value, str):  # __version__
            found[name] = f"{value.__module__}.{value.__qualname__}"
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _equation(match: re.Match) -> str:
    indent, latex = match[1], textwrap.dedent(match[2]).strip()
    return textwrap.indent(f"$$\n{latex}\n$$\n\n", indent)


def _reference(match: re.Match) -> str:
    """A link, where the name or the class it belongs to is public."""
    name = match[1]
    first, _, rest = name.partition(".")
    home = public_objects().get(first)
    if home is None:
        return f"`{name}`"
    return f"[`{name}`][{home}.{rest}]" if rest else f"[`{name}`][{home}]"
