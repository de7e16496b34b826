"""Common parts of the experiments: settings, folders, tables and figures."""

import csv
import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervised_reptile.config.declaration import DIRECTORY, Checked, Rule, setting, settings
from supervised_reptile.config.locations import default_data_dir
from supervised_reptile.errors import RunError
from supervised_reptile.runs.files import read_json, read_text, write_whole
from supervised_reptile.startup import import_tensorflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path("results/experiments")
"""Folder of the experiments' tables and figures."""


@settings("Experiment")
class Place(Checked):
    """The folder of an experiment's tables and figures."""

    results: str = setting(
        "Folder for tables and figures. When not given: results/experiments/ and the experiment's"
        " name.",
        default="",
    )

    def results_folder(self, name: str) -> Path:
        """Return the folder for tables and figures, after creating it if necessary.

        Args:
            name: The experiment's.

        Raises:
            RunError: The folder cannot be created.
        """
        folder = Path(self.results or RESULTS / name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"--results: cannot write {folder}: {error}") from error
        return folder


@settings("Experiment")
class DataPlace(Place):
    """The folders of an experiment's data, tables and figures."""

    data_dir: str = setting(
        "Directory of the data sets.", DIRECTORY, default_factory=default_data_dir
    )


def each_at_least(low: int) -> Rule:
    """Return the rule for one or more numbers of at least ``low``."""
    return Rule(
        f"must be one or more numbers separated by commas, each at least {low}",
        lambda values: bool(values) and min(values) >= low,
    )


def names_of(known: Collection[str]) -> Rule:
    """Return the rule for some of the known names in one string, separated by commas."""
    return Rule(
        f"must be of {', '.join(known)}, separated by commas",
        lambda names: set(names.split(",")) <= set(known),
    )


def load_tensorflow() -> None:
    """Import TensorFlow, quietly; with many learners in a process it advises against retracing."""
    import_tensorflow()
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")


def write_results(
    folder: Path, experiment: str, settings: Checked, values: Mapping[str, Any]
) -> None:
    """Write ``results.json``: the settings, what was computed, and the environment.

    Args:
        folder: Where to write.
        experiment: Name of the experiment.
        settings: The experiment's.
        values: What was computed.
    """
    import_tensorflow()  # which the environment asks for its devices
    from supervised_reptile.runs.record import environment

    whole = {
        "experiment": experiment,
        "settings": dataclasses.asdict(settings),
        **values,
        "environment": environment(),
    }
    text = json.dumps(whole, indent=2, ensure_ascii=False)
    write_whole(folder / "results.json", text + "\n")


def read_results(folder: Path) -> Any:
    """Return the content of ``results.json``."""
    return read_json(folder / "results.json")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table by column."""
    return list(csv.DictReader(read_text(path).splitlines()))


def new_figure(width: float = 7, height: float = 4) -> "Figure":
    """Return a figure without a display.

    Args:
        width: In inches, at most 8: a wider one is hard to read on a page.
        height: In inches.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", folder: Path, name: str) -> None:
    """Write a figure as PNG."""
    path = folder / f"{name}.png"
    figure.savefig(path)
    print(f"figure: {path}")
