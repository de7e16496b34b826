"""What every experiment needs: its settings, its place, its tables and its figures."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervised_reptile.config.declaration import DIRECTORY, Checked, Rule, setting, settings
from supervised_reptile.config.locations import default_data_dir
from supervised_reptile.errors import RunError
from supervised_reptile.runs.files import write_whole
from supervised_reptile.startup import import_tensorflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@settings("Experiment")
class Place(Checked):
    """Where the tables and figures of an experiment go."""

    results: str = setting(
        "Folder for tables and figures. When not given: results/experiments/ and the experiment's"
        " name.",
        default="",
    )

    def results_folder(self, name: str) -> Path:
        """Returns the folder for tables and figures, and makes it if need be.

        Args:
            name: The experiment's.

        Raises:
            RunError: It cannot be made.
        """
        folder = Path(self.results or f"results/experiments/{name}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"--results: cannot write {folder}: {error}") from error
        return folder


@settings("Experiment")
class DataPlace(Place):
    """Where an experiment finds its data, and where its tables and figures go."""

    data_dir: str = setting(
        "Directory of the data sets.", DIRECTORY, default_factory=default_data_dir
    )


def each_at_least(low: int) -> Rule:
    """Returns the rule for one or more numbers, all from ``low`` on."""
    return Rule(
        f"must be one or more numbers with commas between, each at least {low}",
        lambda values: bool(values) and min(values) >= low,
    )


def names_of(known: Collection[str]) -> Rule:
    """Returns the rule for some of the known names in one string, with commas between."""
    return Rule(
        f"must be of {', '.join(known)}, with commas between",
        lambda names: set(names.split(",")) <= set(known),
    )


def load_tensorflow() -> None:
    """Import TensorFlow, quietly; with many learners in a process it advises against retracing."""
    import_tensorflow()
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")


def write_results(folder: Path, settings: Checked, values: Mapping[str, Any]) -> None:
    """Write ``results.json``: the settings, what was computed, and the environment.

    Args:
        folder: Where to write.
        settings: The experiment's.
        values: What was computed.
    """
    import_tensorflow()  # which the environment asks for its devices
    from supervised_reptile.runs.record import environment

    whole = {"settings": dataclasses.asdict(settings), **values, "environment": environment()}
    text = json.dumps(whole, indent=2, ensure_ascii=False)
    write_whole(folder / "results.json", text + "\n")


def new_figure(width: float = 7, height: float = 4) -> "Figure":
    """Returns a figure of its own, in inches: no global state, no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", folder: Path, name: str) -> None:
    """Write a figure as PNG."""
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=150)
    print(f"figure: {path}")
