"""Inner optimizers on the sine wave, their moments kept or reset: the review's Sec. 4.2.

    python -m experiments optimizers

Reptile with inner SGD, RMSprop (ρ = 0.9) and Adam (β1 = 0.1, β2 = 0.99), whose slots and step count
run on from task to task or are reset for each; k = 32 inner steps in training as in the test. The
loss on fresh waves against inner steps, for starts taken after every thousandth meta-iteration.
"""

import itertools
from pathlib import Path

import numpy as np

from experiments import common
from supervised_reptile.config.declaration import (
    NOT_NEGATIVE,
    POSITIVE,
    Checked,
    at_least,
    setting,
    settings,
)
from supervised_reptile.figures import figure_style
from supervised_reptile.runs.files import write_table

NAME = "optimizers"
VARIANTS = {
    "SGD": ("SGD", {}, False),
    "RMSprop, kept": ("RMSprop", {"rho": 0.9}, False),
    "RMSprop, reset": ("RMSprop", {"rho": 0.9}, True),
    "Adam, kept": ("Adam", {"beta_1": 0.1, "beta_2": 0.99}, False),
    "Adam, reset": ("Adam", {"beta_1": 0.1, "beta_2": 0.99}, True),
}
"""Keras optimizer, its constants, and whether its state is reset, by name. SGD has no state."""


@settings("Experiment")
class Settings(Checked):
    """The training and the test of the initial weights."""

    meta_iters: int = setting("Meta-iterations between starts.", at_least(1), default=1000)
    starts: int = setting("Number of starts to test.", at_least(1), default=9)
    inner_iters: int = setting(
        "Inner steps per training task (review: 32).", at_least(1), default=32
    )
    sgd_rate: float = setting("Inner learning rate of SGD.", POSITIVE, default=0.02)
    adaptive_rate: float = setting(
        "Inner learning rate of RMSprop and Adam.", POSITIVE, default=0.005
    )
    meta_step: float = setting(
        "Initial outer step size, which decreases linearly to 0 one start after the last.",
        NOT_NEGATIVE,
        default=0.1,
    )
    eval_iters: int = setting("Inner steps per test task.", at_least(1), default=32)
    eval_samples: int = setting("Test tasks of each seed.", at_least(2), default=300)
    seeds: tuple[int, ...] = setting(
        "Seeds of everything random.", common.each_at_least(0), default=(0, 1, 2)
    )


def run(settings: Settings, place: common.Place) -> None:
    """Train with each optimizer, test at every start, and write table and figure."""
    folder = place.results_folder(NAME)
    common.load_tensorflow()
    import keras

    from experiments import functions

    losses: dict[tuple[str, int], list] = {}
    steps = functions.annealed(settings.meta_step, settings.meta_iters * (settings.starts + 1))
    for (name, (kind, constants, reset)), seed in itertools.product(
        VARIANTS.items(), settings.seeds
    ):
        rate = settings.sgd_rate if kind == "SGD" else settings.adaptive_rate
        learner = functions.function_learner(
            "reptile",
            functions.mlp(1, 64, 64, 1, seed=seed),
            getattr(keras.optimizers, kind)(rate, **constants),
            reset_optimizer=reset,
        )
        for start in range(settings.starts):
            mine = slice(start * settings.meta_iters, (start + 1) * settings.meta_iters)
            functions.train(
                learner,
                functions.SINE,
                steps[mine],
                batch=10,
                steps=settings.inner_iters,
                seed=seed,
                first=mine.start,
                label=f"{name}, seed {seed}, start {start + 1} of {settings.starts}",
            )
            tested = functions.test(
                learner,
                functions.SINE,
                settings.eval_samples,
                batch=10,
                steps=settings.eval_iters,
                seed=seed,
            )
            losses.setdefault((name, mine.stop), []).append(tested.losses())
    _write(folder, settings, losses)


def _write(folder: Path, settings: Settings, losses) -> None:
    """Write tables of the losses by optimizer and start, draw them, and print the last ones.

    Args:
        folder: Where to write.
        settings: The experiment's.
        losses: For each seed float64 [tasks, steps + 1], by (name, meta-iterations).
    """
    from experiments import functions

    curves = {key: np.concatenate(by_seed) for key, by_seed in losses.items()}
    rows = [
        (name, start, *row[1:])
        for (name, start), losses in curves.items()
        for row in functions.rows_of_curves({"": losses})
    ]
    header = ("inner_optimizer", "meta_iterations", "step", "loss", "interval95")
    write_table(folder / "curves.csv", header, rows)
    ends = [row for row in rows if row[2] == settings.eval_iters]
    after = [
        {
            **dict(zip(header, row, strict=True)),
            "seeds": [float(each[:, -1].mean()) for each in losses[row[0], row[1]]],
        }
        for row in ends
    ]
    common.write_results(folder, NAME, settings, {"after": after})
    last = max(start for _, start in curves)
    for name, start, step, loss, half in ends:
        if start == last:
            print(f"{name:<15} loss after {step} steps {loss:.4f} ± {half:.4f}")
    draw(folder)


@figure_style()
def draw(folder: Path) -> None:
    """Draw the loss against inner steps, for the starts of each optimizer."""
    rows = common.read_rows(folder / "curves.csv")
    names = tuple(dict.fromkeys(row["inner_optimizer"] for row in rows))
    figure = common.new_figure(8, 5.6)
    panels = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
    for axes, name in zip(panels, names, strict=False):
        curves: dict[int, list[float]] = {}
        for row in rows:
            if row["inner_optimizer"] == name:
                curves.setdefault(int(row["meta_iterations"]), []).append(float(row["loss"]))
        for number, (start, losses) in enumerate(curves.items()):
            shade = 0.85 * (1 - number / max(1, len(curves) - 1))
            axes.plot(losses, color=str(shade), linewidth=1.1, label=f"{start:,}")
        axes.set(title=name, yscale="log")
    unused = panels[len(names) :]
    for axes in unused:
        axes.set_axis_off()
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, title="start after meta-iterations", loc="lower right", ncols=2)
    figure.supxlabel("inner steps")
    figure.supylabel("mean squared error on new waves")
    common.save_figure(figure, folder, NAME)
