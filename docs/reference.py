"""Builds the API reference from the docstrings, as HTML: python docs/reference.py [FOLDER].

Writes HTML to FOLDER (default: build/reference); a warning is an error.
"""

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import supervised_reptile


def modules() -> list[str]:
    """The package and every module of it that can be imported without running something."""
    inside = pkgutil.walk_packages(supervised_reptile.__path__, f"{supervised_reptile.__name__}.")
    names = [module.name for module in inside if not module.name.endswith("__main__")]
    return [supervised_reptile.__name__, *names]


def build(folder: Path) -> None:
    """Writes one page a module.

    Args:
        folder: Where to; made if it is not there.
    """
    pdoc.render.configure(docformat="google", math=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="pdoc")
        # The constructor of a typing.NamedTuple does not know the names of its module.
        of_named_tuple = r"Error parsing type annotation .*\.__init__\. Import of"
        warnings.filterwarnings("ignore", of_named_tuple)
        pdoc.pdoc(*modules(), output_directory=folder)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/reference")
    build(target)
    print(f"wrote {target / 'index.html'}")
