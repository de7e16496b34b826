"""Draw the figures of experiments again, from their tables.

    python -m experiments draw

--results selects the folder of one experiment. When not given: all of results/experiments/.
"""

from pathlib import Path

from experiments import common

NAME = "draw"


def run(place: common.Place) -> None:
    """Draw the figures of one experiment, or of all."""
    from experiments.__main__ import find_experiment

    paths = [Path(place.results)] if place.results else sorted(common.RESULTS.iterdir())
    for folder in paths:
        experiment = find_experiment(common.read_results(folder)["experiment"])
        if hasattr(experiment, "draw"):
            experiment.draw(folder)
