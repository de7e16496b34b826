"""Overlap of the last mini-batch with the earlier ones: paper, Sec. 6.3 and Fig. 4.

    python -m experiments overlap --sweep inner_iters --meta_iters 2000

5-shot 5-way Omniglot with the hyper-parameters of Table 6, for Reptile and FOMAML with a shared
tail (cycling through the task, or drawn with replacement) and a separate one; against the number
of inner iterations (a), the inner batch size (b) or the outer step size (c). The paper's length is
40,000 outer iterations. You can stop it at any time: the same command continues.
"""

from experiments import common, trainings
from supervised_reptile.config import Config, paper_config
from supervised_reptile.config.declaration import at_least, one_of, setting, settings
from supervised_reptile.runs.files import write_table

NAME = "overlap"
VARIANTS = {
    "Reptile": {},
    "FOMAML, separate tail": {"algorithm": "fomaml", "foml_tail": 5},
    "FOMAML, shared tail, cycling": {"algorithm": "fomaml"},
    "FOMAML, shared tail, replacement": {"algorithm": "fomaml", "replacement": True},
}
"""Settings of each variant, by name in Fig. 4."""
SWEEPS = {
    "inner_iters": ((2, 4, 6, 8), {"inner_batch": 25, "meta_step": 1.0}),
    "inner_batch": ((10, 25, 50, 100), {"inner_iters": 4, "meta_step": 1.0}),
    "meta_step": ((0.1, 0.25, 0.5, 1.0), {"inner_iters": 4, "inner_batch": 100}),
}
"""Default values of each sweep, and the fixed settings (Table 6 a, b, c)."""


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
    sweep = settings.sweep
    configs = {
        (variant, value, seed): config_of(settings, variant, value, seed)
        for variant in VARIANTS
        for value in settings.points
        for seed in settings.seeds
        if not _impossible(sweep, value, variant)
    }
    names = {key: "{} at {} {:g}, seed {}".format(key[0], sweep, *key[1:]) for key in configs}
    folder = place.results_folder(f"{NAME}-{sweep.replace('_', '-')}")
    by_name = {names[key]: config for key, config in configs.items()}
    done = trainings.train_all(by_name, place, NAME)
    rows = []
    for variant, value in dict.fromkeys(key[:2] for key in configs):
        of_point = [done[names[variant, value, seed]] for seed in settings.seeds]
        mean, interval = trainings.mean_over_seeds([each.accuracy() for each in of_point])
        rows.append((variant, float(value), mean, interval, len(of_point)))
        print(f"{variant:<33} {sweep} {value:<5g} {mean:6.2f} % ± {interval:.2f}")
    header = ("variant", sweep, "test_accuracy", "interval95", "seeds")
    write_table(folder / "accuracy.csv", header, rows)
    values = {
        "held": SWEEPS[sweep][1],
        "points": [dict(zip(header, row, strict=True)) for row in rows],
        "training_seconds": sum(each.record["training_seconds"] for each in done.values()),
    }
    common.write_results(folder, settings, values)
    common.save_figure(_figure(sweep, rows, settings.meta_iters), folder, NAME)


def _impossible(sweep: str, value: float, variant: str) -> bool:
    """Whether a batch with replacement would need more than the 100 examples of a task."""
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
