"""Overlap of the last mini-batch with the earlier ones: paper, Sec. 6.3 and Fig. 4.

    python -m experiments.overlap --sweep inner_iters --meta_iters 2000

5-shot 5-way Omniglot with the hyper-parameters of Table 6, for Reptile and FOMAML with a shared
tail (cycling through the task, or drawn with replacement) and a separate one; against the number
of inner iterations (a), the inner batch size (b) or the outer step size (c). The paper's length is
40,000 outer iterations. Stop it whenever you like: the same command goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from supervised_reptile.config import Config, paper_config
from supervised_reptile.errors import ConfigError

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments import common, trainings
from supervised_reptile.runs.files import write_table

NAME = "overlap"
VARIANTS = {
    "Reptile": {},
    "FOMAML, separate tail": {"algorithm": "fomaml", "foml_tail": 5},
    "FOMAML, shared tail, cycling": {"algorithm": "fomaml"},
    "FOMAML, shared tail, replacement": {"algorithm": "fomaml", "replacement": True},
}
"""Name in Fig. 4 to what sets it apart."""
SWEEPS = {
    "inner_iters": ((2, 4, 6, 8), {"inner_batch": 25, "meta_step": 1.0}),
    "inner_batch": ((10, 25, 50, 100), {"inner_iters": 4, "meta_step": 1.0}),
    "meta_step": ((0.1, 0.25, 0.5, 1.0), {"inner_iters": 4, "inner_batch": 100}),
}
"""What is swept to its default values and to what is held (Table 6 a, b, c)."""


def config_of(sweep: str, value: float, variant: str, seed: int, **settings) -> Config:
    """Table 6 at one point of a sweep."""
    whole = sweep != "meta_step"
    return paper_config(
        classes=5,
        shots=5,
        # Every drawing of a class: the most that mini-batches can differ.
        train_shots=20,
        inner_optimizer="sgd",
        learning_rate=0.003,
        meta_batch=1,
        eval_batch=25,
        eval_iters=5,
        eval_interval=max(1, settings["meta_iters"] // 20),
        seed=seed,
        **SWEEPS[sweep][1],
        **{sweep: int(value) if whole else float(value)},
        **VARIANTS[variant],
        **settings,
    )


def main(
    place: trainings.Place,
    *,
    sweep: str,
    values: tuple[float, ...],
    seeds: tuple[float, ...],
    **settings: Any,
) -> None:
    """Train every variant at every value and seed, and write table and figure."""
    if sweep not in SWEEPS:
        raise ConfigError(f"--sweep: must be one of {', '.join(SWEEPS)}. Received: {sweep!r}")
    folder = place.results_folder(f"{NAME}_{sweep}")
    values = values or SWEEPS[sweep][0]
    points = [(v, value, int(s)) for v in VARIANTS for value in values for s in seeds]
    configs = {
        f"{variant} at {sweep} {value:g}, seed {seed}": config_of(
            sweep, value, variant, seed, **settings
        )
        for variant, value, seed in points
        if not _impossible(sweep, value, variant)
    }
    done = trainings.train_all(configs, place, NAME)
    rows = []
    for variant in VARIANTS:
        for value in values:
            of_point = [
                done[name]
                for seed in seeds
                if (name := f"{variant} at {sweep} {value:g}, seed {int(seed)}") in done
            ]
            if of_point:
                mean, interval = trainings.mean_over_seeds([t.accuracy() for t in of_point])
                rows.append((variant, float(value), mean, interval, len(of_point)))
                print(f"{variant:<33} {sweep} {value:<5g} {rows[-1][2]:6.2f} % ± {rows[-1][3]:.2f}")
    header = ("variant", sweep, "test_accuracy", "interval95", "seeds")
    write_table(folder / "accuracy.csv", header, rows)
    common.write_json(
        folder / "results.json",
        {
            "settings": {**settings, "sweep": sweep, "seeds": [int(s) for s in seeds]},
            "held": SWEEPS[sweep][1],
            "points": [dict(zip(header, row, strict=True)) for row in rows],
            "training_seconds": sum(t.record["training_seconds"] for t in done.values()),
        },
    )
    common.save_figure(_figure(sweep, rows, settings["meta_iters"]), folder, NAME)


def _impossible(sweep: str, value: float, variant: str) -> bool:
    """A batch drawn with replacement is of distinct examples, of which a task has 100."""
    return sweep == "inner_batch" and value > 100 and "replacement" in variant


def _figure(sweep: str, rows: list[tuple], meta_iters: int):
    figure = common.new_figure(6.5, 4.2)
    axes = figure.subplots()
    for variant in VARIANTS:
        mine = [row for row in rows if row[0] == variant]
        _, x, y, half, _ = zip(*mine, strict=True)
        axes.errorbar(x, y, half, marker="o", markersize=4, capsize=3, label=variant)
    axes.set(
        xlabel=sweep,
        ylabel="test accuracy in %, 95 % interval over tasks",
        title=f"Sec. 6.3, {meta_iters:,} outer iterations",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    trainings.start(
        main,
        {
            "sweep": ("inner_iters", f"What to sweep: {', '.join(SWEEPS)}."),
            "values": ((), "Its values, with commas between; empty: those of the figure."),
            "seeds": ((0.0,), "Seeds, with commas between."),
            "meta_iters": (2000, "Outer iterations of each training (paper: 40000)."),
        },
    )
