"""Overlap of the last mini-batch with the earlier ones: paper, Sec. 6.3 and Fig. 4.

    python -m experiments overlap --sweep inner_iters --meta_iters 2000

5-shot 5-way Omniglot with the hyper-parameters of Table 6, for Reptile and FOMAML with a shared
tail (cycling through the task, or drawn with replacement) and a separate one; against the number
of inner iterations (a), the inner batch size (b) or the outer step size (c). The paper's length is
40,000 outer iterations. You can stop it at any time: the same command continues.
"""

import itertools
from pathlib import Path

from experiments import common, trainings
from supervised_reptile.config import Config, paper_config
from supervised_reptile.config.declaration import at_least, one_of, setting, settings
from supervised_reptile.figures import figure_style
from supervised_reptile.runs.files import write_table

NAME = "overlap"
_CYCLING = "FOMAML, shared tail, cycling"
VARIANTS = {
    "Reptile": {},
    "FOMAML, separate tail": {"algorithm": "fomaml", "foml_tail": 5},
    _CYCLING: {"algorithm": "fomaml"},
    "FOMAML, shared tail, replacement": {"algorithm": "fomaml", "replacement": True},
}
"""Settings of each variant, by name in Fig. 4."""
SWEEPS = {
    "inner_iters": ((2, 3, 4, 5, 6, 8, 10), {"inner_batch": 25, "meta_step": 1.0}),
    "inner_batch": ((10, 25, 50, 75, 100), {"inner_iters": 4, "meta_step": 1.0}),
    "meta_step": ((0.1, 0.25, 0.5, 0.75, 1.0), {"inner_iters": 4, "inner_batch": 100}),
}
"""Default values of each sweep, and the fixed settings (Table 6 a, b, c)."""
TITLES = {
    "inner_iters": "inner iterations",
    "inner_batch": "inner batch size",
    "meta_step": "outer step size",
}
"""Title of each sweep."""


@settings("Experiment")
class Settings(trainings.TrainingSettings):
    """The sweep and the length of the trainings."""

    sweep: str = setting("Setting to sweep.", one_of(SWEEPS), default="inner_iters")
    values: tuple[float, ...] = setting(
        "Values of the sweep, separated by commas. When not given: those of the figure.", default=()
    )
    seeds: tuple[int, ...] = setting("Seeds.", common.each_at_least(0), default=(0,))
    meta_iters: int = setting(
        "Outer iterations of each training (paper: 40000).", at_least(1), default=2000
    )

    @property
    def points(self) -> tuple[float, ...]:
        """Return the values to train with."""
        return self.values or SWEEPS[self.sweep][0]


def config_of(settings: Settings, variant: str, value: float, seed: int) -> Config:
    """Return Table 6 at one point of a sweep."""
    swept, held = settings.sweep, SWEEPS[settings.sweep][1]
    return paper_config(
        settings.dataset,
        classes=5,
        shots=5,
        # All drawings of a class, so mini-batches differ as much as possible.
        train_shots=20,
        inner_optimizer="sgd",
        learning_rate=0.003,
        meta_batch=1,
        eval_batch=25,
        eval_iters=5,
        meta_iters=settings.meta_iters,
        eval_interval=max(1, settings.meta_iters // 20),
        eval_samples=settings.eval_samples,
        seed=seed,
        **held,
        **{swept: float(value) if swept == "meta_step" else int(value)},
        **VARIANTS[variant],
    )


def run(settings: Settings, place: trainings.TrainingPlace) -> None:
    """Train every variant at every value and seed, and write table and figure."""
    sweep, names, configs = settings.sweep, {}, {}
    for seed in settings.seeds:
        for value in settings.points:
            for variant in VARIANTS:
                config = config_of(settings, variant, value, seed)
                examples = config.task.classes * config.task.train_shots
                if config.inner.inner_batch == examples and config.inner.replacement:
                    # A mini-batch is the whole task: drawn with replacement or not, it is the same.
                    names[variant, value, seed] = names[_CYCLING, value, seed]
                    continue
                name = f"{variant} at {sweep} {value:g}, seed {seed}"
                names[variant, value, seed], configs[name] = name, config
    folder = place.results_folder(f"{NAME}-{sweep.replace('_', '-')}")
    done = trainings.train_all(configs, place, NAME)
    rows = []
    for variant, value in itertools.product(VARIANTS, settings.points):
        of_point = [done[names[variant, value, seed]].accuracy() for seed in settings.seeds]
        mean, interval = trainings.mean_over_seeds(of_point)
        each = [accuracy for accuracy, _ in of_point]
        rows.append((variant, float(value), mean, interval, len(each), min(each), max(each)))
        print(f"{variant:<33} {sweep} {value:<5g} {mean:6.2f} % ± {interval:.2f}")
    header = (
        *("variant", sweep, "test_accuracy", "interval95"),
        *("seeds", "lowest_seed", "highest_seed"),
    )
    write_table(folder / "accuracy.csv", header, rows)
    values = {
        "held": SWEEPS[sweep][1],
        "points": [dict(zip(header, row, strict=True)) for row in rows],
        "training_seconds": sum(each.record["training_seconds"] for each in done.values()),
    }
    common.write_results(folder, NAME, settings, values)
    draw(folder)


@figure_style()
def draw(folder: Path) -> None:
    """Draw accuracy against the swept setting."""
    results = common.read_results(folder)
    sweep, iterations = results["settings"]["sweep"], results["settings"]["meta_iters"]
    figure = common.new_figure(7, 4.4)
    axes = figure.subplots()
    for variant, marker in zip(VARIANTS, "osv^", strict=True):
        mine = [point for point in results["points"] if point["variant"] == variant]
        x, y, half = ([p[c] for p in mine] for c in (sweep, "test_accuracy", "interval95"))
        line = axes.errorbar(x, y, half, marker=marker, markersize=5, capsize=3, label=variant)
        if mine[0]["seeds"] > 1:
            ends = [[point[end] for point in mine] for end in ("lowest_seed", "highest_seed")]
            axes.fill_between(x, *ends, color=line[0].get_color(), alpha=0.15, linewidth=0)
    axes.set(
        xlabel=TITLES[sweep],
        ylabel="test accuracy in %, 95 % interval over tasks",
        title=f"Omniglot 5-shot 5-way, {iterations:,} outer iterations",
    )
    figure.legend(loc="outside lower center", ncols=2)
    common.save_figure(figure, folder, NAME)
