"""Write the tables of the documentation from the records in results/.

    python docs/tables          writes them
    python docs/tables --check  ends with an error if a page differs

A table stands between the lines "<!-- table: NAME -->" and "<!-- /table -->" of a page.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import of_experiments
import of_runs
from records import PROJECT

TABLES = of_runs.TABLES | of_experiments.TABLES
_TABLE = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- /table -->)", re.DOTALL)


def pages() -> Iterator[tuple[Path, str, str]]:
    """Yield path, present text and right text of each page with tables."""
    for path in sorted((PROJECT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        right = _TABLE.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)
        if _TABLE.search(text):
            yield path, text, right


def main() -> int:
    """Run the command line; returns the exit code."""
    sys.path.insert(0, str(PROJECT))
    stale = [(path, right) for path, text, right in pages() if text != right]
    for path, right in stale:
        print(f"{path.relative_to(PROJECT)} does not show its records")
        if "--check" not in sys.argv:
            path.write_text(right, encoding="utf-8")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
