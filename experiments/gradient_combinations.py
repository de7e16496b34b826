"""Linear combinations of the inner gradients: paper, Sec. 6.2 and Fig. 3.

    python -m experiments gradient-combinations --meta_iters 10000

5-shot 5-way Omniglot with the hyper-parameters of Table 5: inner SGD on mini-batches that do not
overlap, and an outer step along each of ten combinations of g1 … g4. The paper's length is 40,000
outer iterations. You can stop it at any time: the same command continues.
"""

from collections.abc import Mapping
from pathlib import Path

from experiments import common, plots, trainings
from supervised_reptile.config import Config, paper_config
from supervised_reptile.config.declaration import Rule, at_least, setting, settings
from supervised_reptile.figures import figure_style
from supervised_reptile.runs.files import write_table

NAME = "gradient-combinations"
COMBINATIONS: dict[str, tuple[float, ...]] = {
    "g1": (1,),
    "g2": (0, 1),
    "g1+g2": (1, 1),
    "(g1+g2)/2": (1 / 2, 1 / 2),
    "g3": (0, 0, 1),
    "g1+g2+g3": (1, 1, 1),
    "(g1+g2+g3)/3": (1 / 3, 1 / 3, 1 / 3),
    "g4": (0, 0, 0, 1),
    "g1+g2+g3+g4": (1, 1, 1, 1),
    "(g1+g2+g3+g4)/4": (1 / 4, 1 / 4, 1 / 4, 1 / 4),
}
"""Weights of the inner steps, by name in Fig. 3."""
CONTRASTS = {
    "two-step Reptile against two-step FOMAML: g1+g2 − g2": {"g1+g2": 1, "g2": -1},
    "third mini-batch, last gradient: g3 − g2": {"g3": 1, "g2": -1},
    "fourth mini-batch, last gradient: g4 − g3": {"g4": 1, "g3": -1},
    "third mini-batch, sum": {"g1+g2+g3": 1, "g1+g2": -1},
    "fourth mini-batch, sum": {"g1+g2+g3+g4": 1, "g1+g2+g3": -1},
    "third mini-batch, average": {"(g1+g2+g3)/3": 1, "(g1+g2)/2": -1},
    "fourth mini-batch, average": {"(g1+g2+g3+g4)/4": 1, "(g1+g2+g3)/3": -1},
    "third and fourth, sum more than last gradient": {
        "g1+g2+g3+g4": 1,
        "g1+g2": -1,
        "g4": -1,
        "g2": 1,
    },
}
"""Differences that the paper makes statements on: coefficient of each accuracy."""
_NAMES = common.names_of(COMBINATIONS)
_SHOWN_POINTS = 40
_KINDS = {"last gradient": ("-", "o", "C0"), "sum": ("--", "s", "C1"), "average": (":", "^", "C2")}
"""Line, marker and color of each kind of combination."""


@settings("Experiment")
class Settings(trainings.TrainingSettings):
    """The combinations and the length of the trainings."""

    combinations: str = setting(
        "Names of the combinations. When not given: all ten.",
        Rule(_NAMES.words, lambda names: not names or _NAMES.holds(names)),
        default="",
    )
    meta_iters: int = setting(
        "Outer iterations of each training (paper: 40000).", at_least(1), default=10_000
    )
    eval_interval: int = setting(
        "Outer iterations between points of the learning curves.", at_least(1), default=25
    )
    seed: int = setting("Seed of everything random.", at_least(0), default=0)


def config_of(settings: Settings, weights: tuple[float, ...]) -> Config:
    """Return Table 5 with one combination of the inner steps."""
    return paper_config(
        settings.dataset,
        classes=5,
        shots=5,
        train_shots=5 * len(weights),  # the mini-batches do not overlap
        inner_optimizer="sgd",
        learning_rate=0.003,
        inner_batch=25,
        inner_iters=len(weights),
        step_weights=weights,
        meta_batch=1,
        meta_step=0.25,
        meta_iters=settings.meta_iters,
        eval_batch=25,
        eval_iters=5,
        eval_interval=settings.eval_interval,
        eval_samples=settings.eval_samples,
        seed=settings.seed,
    )


def run(settings: Settings, place: trainings.TrainingPlace) -> None:
    """Train the combinations, and write tables and figure."""
    wanted = settings.combinations.split(",") if settings.combinations else COMBINATIONS
    configs = {name: config_of(settings, COMBINATIONS[name]) for name in wanted}
    folder = place.results_folder(NAME)
    by_folder = {name.replace("/", " over "): config for name, config in configs.items()}
    done = trainings.train_all(by_folder, place, NAME)
    report(settings, dict(zip(configs, done.values(), strict=True)), folder)


def report(settings: Settings, done: Mapping[str, trainings.Training], folder: Path) -> None:
    """Write tables and figure of the trainings, by the name of their combination."""
    write_table(
        folder / "curves.csv",
        ("combination", "iteration", "train", "test"),
        [
            (name, int(i), train, test)
            for name, each in done.items()
            for i, train, test in zip(
                *(each.curve[c] for c in ("iteration", "train", "test")), strict=True
            )
        ],
    )
    rows = {
        name: {
            "step_weights": COMBINATIONS[name],
            "accuracy": each.record["accuracy"],
            "training_seconds": each.record["training_seconds"],
        }
        for name, each in done.items()
    }
    contrasts = {
        title: _contrast(done, coefficients)
        for title, coefficients in CONTRASTS.items()
        if coefficients.keys() <= done.keys()
    }
    common.write_results(folder, NAME, settings, {"combinations": rows, "contrasts": contrasts})
    for name, each in done.items():
        mean, interval = each.accuracy()
        print(f"{name:<16} test accuracy {mean:6.2f} % ± {interval:.2f}")
    draw(folder)


def _contrast(
    done: Mapping[str, trainings.Training], coefficients: Mapping[str, int]
) -> dict[str, float]:
    """Return a difference in points, and half its 95 % interval, over the tasks all share."""
    by_task = sum(c * done[name].by_task for name, c in coefficients.items())
    difference, half = trainings.mean_over_tasks(by_task)
    return {"difference": difference, "interval95": half}


@figure_style()
def draw(folder: Path) -> None:
    """Draw the learning curves by number of mini-batches, and the error at the end."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter

    results = common.read_results(folder)
    rows, ends = common.read_rows(folder / "curves.csv"), results["combinations"]
    sizes = sorted({len(found["step_weights"]) for found in ends.values()})
    figure = common.new_figure(8, 6.6)
    above, below = figure.subfigures(2, 1, height_ratios=(5, 6))
    panels = above.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    axes = below.subplots()
    for number, (name, found) in enumerate(ends.items()):
        line, marker, color = _KINDS[_kind(name)]
        panel = panels[sizes.index(len(found["step_weights"]))]
        mine = [row for row in rows if row["combination"] == name]
        iterations, means = plots.smoothed(mine, min(_SHOWN_POINTS, len(mine)))
        panel.plot(iterations, 100 - means, line, color=color, linewidth=1.2)
        accuracy, half = trainings.percent(found["accuracy"]["test"])
        axes.errorbar(100 - accuracy, number, xerr=half, fmt=marker, color=color, capsize=3)
    for panel, size in zip(panels, sizes, strict=True):
        panel.set(title=f"{size} mini-batch{'es' * (size > 1)}", yscale="log")
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.tick_params(axis="x", labelsize="small", rotation=30)
    kinds = [
        Line2D([], [], linestyle=line, marker=marker, color=color, markersize=5, label=kind)
        for kind, (line, marker, color) in _KINDS.items()
    ]
    figure.legend(handles=kinds, loc="outside upper center", ncols=3)
    panels[0].set_ylabel(f"test error in %,\nmean of up to {_SHOWN_POINTS} tasks")
    above.supxlabel("outer iterations", fontsize="medium")
    axes.set(xlabel="test error in % at the end, 95 % interval over tasks", xscale="log")
    axes.set_yticks(range(len(ends)), list(ends))
    axes.invert_yaxis()
    for axis in (panels[0].yaxis, axes.xaxis):
        axis.set_major_locator(LogLocator(10, (1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    common.save_figure(figure, folder, NAME)


def _kind(name: str) -> str:
    """Return the kind of a combination."""
    return "average" if "/" in name else "sum" if "+" in name else "last gradient"
