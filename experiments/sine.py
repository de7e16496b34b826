"""The sine wave of the paper's Sec. 4 (Fig. 1): Reptile, FOMAML, MAML and joint training.

    python run_sine.py

Trains each algorithm on waves of random amplitude and phase, fine-tunes each on fresh ones with
10 sampled points, and writes the mean test loss, the loss against inner steps and the three panels
of Fig. 1 into results/experiments/sine, or sine-relu with --activation relu.
"""

import time
from pathlib import Path

import numpy as np

from experiments import common, plots
from supervised_reptile.config.declaration import (
    POSITIVE,
    Checked,
    at_least,
    one_of,
    setting,
    settings,
)
from supervised_reptile.figures import figure_style
from supervised_reptile.runs.files import write_table

NAME = "sine"
ALGORITHMS = {
    "random": "random start",
    "maml": "MAML",
    "reptile": "Reptile",
    "fomaml": "FOMAML",
    "joint": "joint training",
}
"""Title of each algorithm."""
_PANELS = {"random": "random start", "maml": "after MAML", "reptile": "after Reptile"}


@settings("Experiment")
class Settings(Checked):
    """How the algorithms are trained and tested."""

    algorithms: str = setting(
        "Which to run; random is the untrained network.",
        common.names_of(ALGORITHMS),
        default=",".join(ALGORITHMS),
    )
    activation: str = setting(
        "Activation of the network: tanh as in the authors' program, or relu, which a comment in it"
        " states for the paper's figure.",
        one_of(("tanh", "relu")),
        default="tanh",
    )
    meta_iters: int = setting("Outer iterations, of one task each.", at_least(1), default=30_000)
    learning_rate: float = setting("Learning rate α of the inner SGD.", POSITIVE, default=0.02)
    inner_batch: int = setting(
        "Points in a training mini-batch; a task has 50.", at_least(1), default=10
    )
    inner_iters: int = setting(
        "Inner steps k on a training task; joint training takes 1.", at_least(2), default=5
    )
    meta_step: float = setting(
        "Reptile's outer step size at the start; goes linearly to 0.", POSITIVE, default=0.1
    )
    adam_step: float = setting(
        "Learning rate of the outer Adam of FOMAML, MAML and joint training at the start; goes"
        " linearly to 0.",
        POSITIVE,
        default=0.001,
    )
    eval_iters: int = setting("Gradient steps on a test task.", at_least(1), default=32)
    eval_samples: int = setting("Test tasks.", at_least(2), default=1000)
    seed: int = setting("Seed of the weights and the tasks.", at_least(0), default=0)


def run(settings: Settings, place: common.Place) -> dict[str, np.ndarray]:
    """Train each algorithm, test it on fresh tasks, and write tables and figures.

    Args:
        settings: How.
        place: Where to write.

    Returns:
        Loss of each test task before the first step and after each, float64 [tasks, steps + 1],
        by name of the algorithm.
    """
    folder = place.results_folder(NAME if settings.activation == "tanh" else f"{NAME}-relu")
    common.load_tensorflow()
    import keras

    from experiments import functions

    tests, seconds = {}, {}
    for name in settings.algorithms.split(","):
        learner = functions.function_learner(
            "reptile" if name == "random" else name,
            functions.mlp(1, 64, 64, 1, activation=settings.activation, seed=settings.seed),
            keras.optimizers.SGD(settings.learning_rate),
        )
        step = settings.meta_step if name == "reptile" else settings.adam_step
        started = time.perf_counter()
        if name != "random":
            functions.train(
                learner,
                functions.SINE,
                functions.annealed(step, settings.meta_iters),
                batch=settings.inner_batch,
                steps=1 if name == "joint" else settings.inner_iters,
                seed=settings.seed,
                label=name,
            )
        seconds[name] = round(time.perf_counter() - started, 1)
        tests[name] = functions.test(
            learner,
            functions.SINE,
            settings.eval_samples,
            batch=10,
            steps=settings.eval_iters,
            seed=settings.seed,
        )
    losses = {name: each.losses() for name, each in tests.items()}
    _write(folder, settings, losses, seconds)
    functions.write_examples(folder, functions.SINE, tests)
    draw(folder)
    return losses


def _write(folder: Path, settings: Settings, losses, seconds) -> None:
    """Write the tables, and print where each algorithm ended."""
    from experiments import functions

    rows = list(functions.rows_of_curves(losses))
    write_table(folder / "curves.csv", ("algorithm", "step", "loss", "interval95"), rows)
    last = settings.eval_iters
    found = {
        name: {
            "loss_before": next(mean for n, k, mean, _ in rows if (n, k) == (name, 0)),
            "loss_after": next(mean for n, k, mean, _ in rows if (n, k) == (name, last)),
            "interval95": next(half for n, k, _, half in rows if (n, k) == (name, last)),
            "median_after": float(np.median(losses[name][:, -1])),
            "training_seconds": seconds[name],
        }
        for name in losses
    }
    common.write_results(folder, NAME, settings, {"algorithms": found})
    for name, each in found.items():
        print(
            f"{name:<8} mean test loss before {each['loss_before']:.3f}, after {last} steps "
            f"{each['loss_after']:.4f} ± {each['interval95']:.4f} "
            f"({settings.eval_samples} tasks; trained {each['training_seconds']:.0f} s)"
        )


@figure_style()
def draw(folder: Path) -> None:
    """Draw the panels of Fig. 1, on the first test task, and the loss against inner steps."""
    settings = common.read_results(folder)["settings"]
    shown = [name for name in _PANELS if name in settings["algorithms"].split(",")]
    if shown:
        figure = common.new_figure(8 * len(shown) / 3, 3.2)
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        with np.load(folder / plots.EXAMPLES) as examples:
            for axes, name in zip(panels, shown, strict=True):
                plots.plot_example(axes, examples, name, settings["eval_iters"])
                axes.set_title(_PANELS[name])
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=4)
        common.save_figure(figure, folder, "fig1")
    figure = common.new_figure()
    axes = figure.subplots()
    plots.plot_curves(axes, folder, ALGORITHMS)
    activation, tasks = settings["activation"], settings["eval_samples"]
    axes.set_title(f"sine wave, {activation}: mean and 95 % interval over {tasks:,} tasks")
    common.save_figure(figure, folder, "loss-against-steps")
