"""The sine wave of the paper's Sec. 4 and Fig. 1: what ``run_sine.py`` runs."""

from __future__ import annotations

import time
from pathlib import Path

import keras
import numpy as np

from experiments import common, functions
from supervised_reptile.errors import ConfigError
from supervised_reptile.runs.files import write_table

ALGORITHMS = ("random", "maml", "reptile", "fomaml", "joint")
_PANELS = {"random": "random start", "maml": "after MAML", "reptile": "after Reptile"}


def run(
    algorithms: str,
    meta_iters: int,
    learning_rate: float,
    inner_batch: int,
    inner_iters: int,
    meta_step: float,
    adam_step: float,
    eval_iters: int,
    eval_samples: int,
    seed: int,
    results: str,
) -> dict[str, np.ndarray]:
    """Train each algorithm, test it on fresh tasks and write tables and figures.

    Args:
        algorithms: Some of :data:`ALGORITHMS`, with commas between them.
        meta_iters: Outer iterations, at least 1.
        learning_rate: Inner learning rate α, greater than 0.
        inner_batch: Points in a mini-batch, at least 1.
        inner_iters: Inner steps k in training, at least 2; "joint" takes 1.
        meta_step: Reptile's outer step size at the start; goes to 0.
        adam_step: Learning rate of the others' outer Adam at the start; goes to 0.
        eval_iters: Gradient steps on a test task, at least 1.
        eval_samples: Test tasks, at least 2.
        seed: Seed of weights and tasks.
        results: Folder for tables and figures.

    Returns:
        Loss of each test task before the first step and after each, [tasks, steps + 1], by name.

    Raises:
        ConfigError: A value is out of range.
    """
    names = algorithms.split(",")
    _check(names, locals())
    folder = common.results_folder(results, "sine")
    tests, seconds = {}, {}
    for name in names:
        model = functions.mlp(1, 64, 64, 1, seed=seed)
        learner = functions.function_learner(
            "reptile" if name == "random" else name, model, keras.optimizers.SGD(learning_rate)
        )
        started = time.perf_counter()
        if name != "random":
            functions.train(
                learner,
                functions.SINE,
                functions.annealed(meta_step if name == "reptile" else adam_step, meta_iters),
                batch=inner_batch,
                steps=1 if name == "joint" else inner_iters,
                seed=seed,
                label=name,
            )
        seconds[name] = round(time.perf_counter() - started, 1)
        tests[name] = functions.test(
            learner, functions.SINE, eval_samples, batch=10, steps=eval_iters, seed=seed
        )
    losses = {name: each.losses() for name, each in tests.items()}
    _write(folder, tests, losses, seconds, {k: v for k, v in locals().items() if k in _SETTINGS})
    return losses


_SETTINGS = (
    *("meta_iters", "learning_rate", "inner_batch", "inner_iters", "meta_step", "adam_step"),
    *("eval_iters", "eval_samples", "seed"),
)
_LEAST = {"meta_iters": 1, "inner_batch": 1, "inner_iters": 2, "eval_iters": 1, "eval_samples": 2}


def _check(names: list[str], values: dict) -> None:
    unknown = [name for name in names if name not in ALGORITHMS]
    if unknown:
        raise ConfigError(
            f"--algorithms: must be of {', '.join(ALGORITHMS)}. Received: {', '.join(unknown)!r}"
        )
    for name, least in _LEAST.items():
        if values[name] < least:
            raise ConfigError(f"--{name}: must be at least {least}. Received: {values[name]}")
    for name in ("learning_rate", "meta_step", "adam_step"):
        if not 0 < values[name] < float("inf"):
            raise ConfigError(f"--{name}: must be greater than 0. Received: {values[name]}")
    if values["seed"] < 0:
        raise ConfigError(f"--seed: must be at least 0. Received: {values['seed']}")


def _write(folder: Path, tests, losses, seconds, settings) -> None:
    rows = list(functions.rows_of_curves(losses))
    write_table(folder / "curves.csv", ("algorithm", "step", "loss", "interval95"), rows)
    last = settings["eval_iters"]
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
    common.write_json(folder / "results.json", {"settings": settings, "algorithms": found})
    for name, each in found.items():
        print(
            f"{name:<8} mean test loss before {each['loss_before']:.3f}, after {last} steps "
            f"{each['loss_after']:.4f} ± {each['interval95']:.4f} "
            f"({settings['eval_samples']} tasks; trained {each['training_seconds']:.0f} s)"
        )
    _draw_examples(folder, tests, last)
    figure = common.new_figure()
    functions.plot_curves(figure.subplots(), losses)
    figure.suptitle("Sine wave: loss against inner steps")
    common.save_figure(figure, folder, "loss_against_steps")


def _draw_examples(folder: Path, tests, last: int) -> None:
    """The panels of Fig. 1, on the first test task."""
    shown = [name for name in _PANELS if name in tests]
    if not shown:
        return
    figure = common.new_figure(4 * len(shown), 3.4)
    grid = functions.SINE.queries[:, 0]
    panels = np.atleast_1d(figure.subplots(1, len(shown), sharey=True))
    for axes, name in zip(panels, shown, strict=True):
        task = tests[name]
        axes.plot(grid, task.predictions[0, 0, :, 0], ":", color="C0", label="before")
        axes.plot(grid, task.predictions[0, -1, :, 0], color="C0", label=f"after {last} steps")
        axes.plot(grid, task.truth[0, :, 0], color="C2", label="true")
        axes.plot(task.inputs[0, :, 0], task.targets[0, :, 0], "x", color="k", label="sampled")
        axes.set(title=_PANELS[name], xlabel="x")
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.suptitle("One test task (paper, Fig. 1)")
    common.save_figure(figure, folder, "fig1")
