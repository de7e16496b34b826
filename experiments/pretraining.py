"""Reptile from a pre-trained classifier, and with frozen blocks: the review, Sec. 6.5, Fig. 15.

    python -m experiments pretraining --meta_iters 5000

Trains a classifier of all training classes once, then Reptile (1-shot 5-way Omniglot, transductive)
from random weights, from the classifier's, and from these with the first blocks frozen. Writes the
accuracy over training of each and how many meta-iterations the pre-training saves. Stop it whenever
you like: the same command goes on.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

from experiments import common, plots, trainings
from supervised_reptile.config import Config, paper_config
from supervised_reptile.config.declaration import Rule, at_least, setting, settings
from supervised_reptile.figures import figure_style
from supervised_reptile.runs.files import write_table

NAME = "pretraining"
RANDOM, ALONE = "random start", "pre-training alone"
LEVELS = (0.80, 0.85, 0.90, 0.92, 0.94, 0.96)
"""Accuracies whose first meta-iteration the report states for each start."""
_WINDOW = 50
_INTERVAL = 10


@settings("Experiment")
class Settings(trainings.TrainingSettings):
    """The starts to compare and the length of the trainings."""

    freeze: tuple[int, ...] = setting(
        "Frozen blocks of each pre-trained start, separated by commas.",
        Rule("must be from 0 to 4 each", lambda blocks: set(blocks) <= set(range(5))),
        default=(0, 2),
    )
    meta_iters: int = setting(
        "Meta-iterations of each training (paper: 100000).", at_least(1), default=5000
    )
    seed: int = setting("Seed of everything random.", at_least(0), default=0)


def configs_of(settings: Settings) -> dict[str, Config]:
    """Return each start's training; that of the pre-training alone has a meta-step of 0."""
    base = paper_config(
        settings.dataset,
        classes=5,
        shots=1,
        transductive=True,
        meta_iters=settings.meta_iters,
        eval_interval=_INTERVAL,
        eval_samples=settings.eval_samples,
        seed=settings.seed,
    )
    alone = base.replace(pretrain=True, meta_iters=1, meta_step=0.0)
    return {RANDOM: base, ALONE: alone} | {
        start_name(blocks): base.replace(pretrain=True, freeze=blocks) for blocks in settings.freeze
    }


def start_name(freeze: int) -> str:
    """Return the name of a pre-trained start in tables and figures."""
    blocks = "" if not freeze else f", {freeze} block{'s' * (freeze > 1)} frozen"
    return f"pre-trained{blocks}"


def run(settings: Settings, place: trainings.TrainingPlace) -> None:
    """Pre-train, train, and write tables and figure."""
    configs = configs_of(settings)
    folder, classifier = place.results_folder(NAME), place.work_folder(NAME) / "classifier"
    # The pre-training alone comes first: it trains the classifier that the others share.
    for part in ({ALONE: configs[ALONE]}, configs):
        done = trainings.train_all(part, place, NAME, pretraining_dir=str(classifier))
    with (classifier / "history.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    report(settings, done, epochs, folder)


def report(
    settings: Settings,
    done: Mapping[str, trainings.Training],
    epochs: list[dict[str, str]],
    folder: Path,
) -> None:
    """Write tables and figure.

    Args:
        settings: What it was run with.
        done: The trainings by the name of their start.
        epochs: Of the classifier, as its ``history.csv`` has them.
        folder: Where to write.
    """
    from supervised_reptile.runs.learning_curve import first_reached

    curves = {name: each.curve for name, each in done.items() if name != ALONE}
    points = min(_WINDOW, *(len(c["test"]) for c in curves.values()))
    # The mean needs this many points: a start that is above a level by then reached it earlier.
    soonest = (points - 1) * _INTERVAL
    reached = {
        f"{100 * level:g}": {
            name: found and (f"<= {soonest}" if found[0] == soonest else found[0])
            for name, curve in curves.items()
            for found in [first_reached(curve, "test", level, points)]
        }
        for level in LEVELS
    }
    best = min(epochs, key=lambda e: float(e["val_loss"]))
    classifier = {
        "epochs": len(epochs),
        "seconds": round(sum(float(e["seconds"]) for e in epochs), 1),
        "best": {k: float(best[k]) for k in ("epoch", "accuracy", "val_accuracy", "val_loss")},
    }
    write_table(
        folder / "curves.csv",
        ("start", "iteration", "seconds", "train", "test"),
        [
            (name, int(i), *values)
            for name, curve in curves.items()
            for i, *values in zip(
                *(curve[c] for c in ("iteration", "seconds", "train", "test")), strict=True
            )
        ],
    )
    write_table(folder / "classifier.csv", list(epochs[0]), [e.values() for e in epochs])
    common.write_results(
        folder,
        NAME,
        settings,
        {
            "classifier": classifier,
            "starts": {
                name: {
                    "accuracy": each.record["accuracy"],
                    "training_seconds": each.record["training_seconds"],
                }
                for name, each in done.items()
            },
            "reached": {"window_points": points, "meta_iterations": reached},
        },
    )
    width = max(map(len, done))
    for name, each in done.items():
        mean, interval = each.accuracy()
        print(f"{name:<{width}} test accuracy {mean:6.2f} % ± {interval:.2f}")
    for level, by_start in reached.items():
        when = ", ".join(f"{name} {i if i is not None else '–'}" for name, i in by_start.items())
        print(f"{level} % reached after: {when}")
    draw(folder)


@figure_style()
def draw(folder: Path) -> None:
    """Draw the accuracy over the pre-training, and over Reptile from each start."""
    points = common.read_results(folder)["reached"]["window_points"]
    rows = common.read_rows(folder / "curves.csv")
    epochs = common.read_rows(folder / "classifier.csv")
    figure = common.new_figure(8, 4)
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    for column, style, label in (
        ("accuracy", "--", "training drawings"),
        ("val_accuracy", "-", "held-out drawings"),
    ):
        left.plot([100 * float(e[column]) for e in epochs], style, color="C0", label=label)
    left.set(
        xlabel="epoch",
        ylabel="accuracy in %",
        title="pre-training: all training classes\n(review, Fig. 13 and 14)",
    )
    for name in dict.fromkeys(row["start"] for row in rows):
        mine = [row for row in rows if row["start"] == name]
        right.plot(*plots.smoothed(mine, points), linewidth=1.2, label=name)
    right.set(
        xlabel="meta-iterations",
        ylabel=f"test accuracy in %, mean of {points} tasks",
        title="Reptile, 1-shot 5-way, transductive\n(review, Fig. 15)",
    )
    for axes in (left, right):
        axes.legend()
    common.save_figure(figure, folder, NAME)
