"""Differences from the published configuration, on the same tasks: docs/scaling.md.

    python -m experiments paired --seeds 0,1,2

Omniglot, 1-shot 5-way, transductive, shortened. Every variant sees the same number of training
tasks and starts from the same weights; accuracies are compared task by task. You can stop it at
any time: the same command continues.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common, trainings
from supervised_reptile.config import Config
from supervised_reptile.config.declaration import at_least, setting, settings
from supervised_reptile.figures import figure_style
from supervised_reptile.reproduction.published import find_row
from supervised_reptile.runs.files import write_table

NAME = "paired"
PUBLISHED = "as published"
VARIANTS = {
    PUBLISHED: {},
    "parallel tasks": {"parallel_tasks": 2},
    "Adam's β1 0.5": {"beta_1": 0.5},
    "Adam's β1 0.9": {"beta_1": 0.9},
    "parallel tasks, meta-batch 10": {"parallel_tasks": 2, "meta_batch": 10},
    "parallel tasks, meta-batch 20": {"parallel_tasks": 2, "meta_batch": 20},
    "parallel tasks, meta-batch 40": {"parallel_tasks": 2, "meta_batch": 40},
    "parallel tasks, meta-batch 20, outer step 2": {
        "parallel_tasks": 2,
        "meta_batch": 20,
        "meta_step": 2.0,
    },
}
"""Difference of each variant from the published configuration."""
# Student's t for a 95 % interval, by the number of seeds. (SciPy is no dependency of users.)
_T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}


@settings("Experiment")
class Settings(trainings.TrainingSettings):
    """The length, the variants and the seeds of the trainings."""

    seeds: tuple[int, ...] = setting("Seeds.", common.each_at_least(0), default=(0, 1, 2))
    meta_iters: int = setting(
        "Meta-iterations of the published configuration (paper: 100000). A variant with a larger"
        " meta-batch has fewer, for the same number of tasks.",
        at_least(1),
        default=5000,
    )
    eval_samples: int = setting(
        "Tasks in the final evaluation of each split.", at_least(2), default=1000
    )
    variants: tuple[int, ...] = setting(
        f"Variants to compare, from 1: {'; '.join(list(VARIANTS)[1:])}. When not given: all.",
        common.each_at_least(1),
        default=tuple(range(1, len(VARIANTS))),
    )


def config_of(settings: Settings, variant: str, seed: int) -> Config:
    """Return the row omniglot-5way with the differences of a variant."""
    training = find_row("omniglot-5way").training(seed, settings.meta_iters)
    changes = VARIANTS[variant]
    iterations = (
        settings.meta_iters
        * training.meta.meta_batch
        // changes.get("meta_batch", training.meta.meta_batch)
    )
    return training.replace(
        **changes,
        meta_iters=max(1, iterations),
        dataset=settings.dataset,
        eval_samples=settings.eval_samples,
    )


def run(settings: Settings, place: trainings.TrainingPlace) -> None:
    """Train every variant with every seed, and write table and figure."""
    folder = place.results_folder(NAME)
    names = [PUBLISHED, *(list(VARIANTS)[number] for number in settings.variants)]
    configs = {
        f"{name}, seed {seed}": config_of(settings, name, seed)
        for seed in settings.seeds
        for name in names
    }
    done = trainings.train_all(configs, place, NAME)
    accuracies = {
        name: [done[f"{name}, seed {seed}"].by_task for seed in settings.seeds] for name in names
    }
    rows = [_row(name, accuracies) for name in names]
    write_table(folder / "differences.csv", tuple(rows[0]), [tuple(row.values()) for row in rows])
    common.write_results(folder, NAME, settings, {"variants": rows})
    for row in rows:
        print(
            f"{row['variant']:<45} {row['test_accuracy']:6.2f} %, difference "
            f"{row['difference']:+.2f} ± {row['interval95_tasks']:.2f} (tasks)"
            + (
                f", ± {row['interval95_seeds']:.2f} (seeds)"
                if row["interval95_seeds"] is not None
                else ""
            )
        )
    draw(folder)


def _row(name: str, accuracies: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
    """Mean accuracy in percent, and its paired difference from the published configuration."""
    seeds = len(accuracies[name])
    pairs = zip(accuracies[name], accuracies[PUBLISHED], strict=True)
    differences = [mine - published for mine, published in pairs]
    means = [each.mean() for each in differences]
    of_tasks = [each.var(ddof=1) / len(each) for each in differences]
    of_seeds = None  # one training tells nothing about others
    if seeds in _T95:
        of_seeds = float(_T95[seeds] * np.std(means, ddof=1) / math.sqrt(seeds))
    return {
        "variant": name,
        "test_accuracy": float(np.mean(accuracies[name])),
        "difference": float(np.mean(means)),
        "interval95_tasks": 1.96 * math.sqrt(sum(of_tasks)) / seeds,
        "interval95_seeds": of_seeds,
        "lowest_seed": float(min(means)),
        "highest_seed": float(max(means)),
    }


@figure_style()
def draw(folder: Path) -> None:
    """Draw the differences from the published configuration."""
    results = common.read_results(folder)
    rows = [row for row in results["variants"] if row["variant"] != PUBLISHED]
    figure = common.new_figure(8, 1.4 + 0.4 * len(rows))
    axes = figure.subplots()
    positions = range(len(rows))
    axes.errorbar(
        [row["difference"] for row in rows],
        positions,
        xerr=[row["interval95_tasks"] for row in rows],
        fmt="o",
        capsize=3,
        label="95 % interval over tasks",
    )
    if len(results["settings"]["seeds"]) > 1:
        ends = [[row[end] for row in rows] for end in ("lowest_seed", "highest_seed")]
        axes.hlines(positions, *ends, color="C1", linewidth=6, alpha=0.4, label="range of seeds")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(positions, [row["variant"] for row in rows])
    axes.set(
        xlabel="difference from the published configuration in points of accuracy",
        ylim=(len(rows) - 0.5, -0.5),
    )
    tasks = 5 * results["settings"]["meta_iters"]
    figure.suptitle(f"Omniglot 1-shot 5-way, transductive, {tasks:,} training tasks")
    figure.legend(loc="outside lower center", ncols=2)
    common.save_figure(figure, folder, NAME)
