"""Read records of results/, and write tables in Markdown."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
RESULTS = PROJECT / "results"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], numbers: int) -> str:
    """Return a table in Markdown whose last ``numbers`` columns are aligned to the right."""
    marks = ["---"] * (len(heads) - numbers) + ["---:"] * numbers
    lines = [" | ".join(map(str, row)) for row in (heads, marks, *rows)]
    return "".join(f"| {line} |\n" for line in lines)


def record(path: str) -> Any:
    """Return the content of a JSON file of results/."""
    return json.loads((RESULTS / path).read_text(encoding="utf-8"))
