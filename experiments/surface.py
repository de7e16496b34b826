"""A function of two variables: the review's Sec. 5.2.

    python -m experiments.surface

z = a·sin(x² + y² + p), five mini-batches of 20 sampled points, 10,000 points to predict, network
2 → 128 → 512 → 512 → 128 → 1. With inner Adam (β1 = 0.01, β2 = 0.999) and a ~ U[0, 2], or with
--inner_optimizer sgd and a = 2. The range of x and y, [−2, 2], and the learning rates are ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments import common
from supervised_reptile.errors import ConfigError

NAME = "surface"
_SIDE = 100  # 10,000 points to predict


def family(fixed_amplitude: bool):
    """The surfaces: amplitude a = 2 or drawn from U[0, 2], phase from U[0, 2π]."""
    import numpy as np

    from experiments import functions

    def draw(rng, tasks):
        a = np.full((tasks, 1, 1), 2.0) if fixed_amplitude else rng.uniform(0, 2, (tasks, 1, 1))
        p = rng.uniform(0, 2 * np.pi, (tasks, 1, 1))
        return lambda x: (a * np.sin((x**2).sum(-1, keepdims=True) + p)).astype(np.float32)

    side = np.linspace(-2, 2, _SIDE, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    sampled = functions.uniform(-2, 2, 100, dimensions=2)
    return functions.Family(draw, sampled, sampled, grid)


def main(
    inner_optimizer: str,
    meta_iters: int,
    learning_rate: float,
    meta_step: float,
    eval_iters: int,
    eval_samples: int,
    seed: int,
    results: str,
) -> None:
    """Train, test on fresh surfaces, and write table and figure."""
    least = {"meta_iters": 1, "eval_iters": 1, "eval_samples": 2, "seed": 0}
    settings = {k: v for k, v in locals().items() if k not in ("least", "results")}
    for name, low in least.items():
        if settings[name] < low:
            raise ConfigError(f"--{name}: must be at least {low}. Received: {settings[name]}")
    if inner_optimizer not in ("adam", "sgd"):
        raise ConfigError(f"--inner_optimizer: must be adam or sgd. Received: {inner_optimizer!r}")
    folder = common.results_folder(results, f"{NAME}_{inner_optimizer}")
    common.load_tensorflow()
    import keras

    from experiments import functions

    if inner_optimizer == "sgd":
        optimizer = keras.optimizers.SGD(learning_rate or 0.02)
    else:
        optimizer = keras.optimizers.Adam(learning_rate or 0.001, beta_1=0.01, beta_2=0.999)
    surfaces = family(fixed_amplitude=inner_optimizer == "sgd")
    learner = functions.function_learner(
        "reptile", functions.mlp(2, 128, 512, 512, 128, 1, seed=seed), optimizer
    )
    tests = {}
    for state in ("untrained", "Reptile"):
        if state == "Reptile":
            steps = functions.annealed(meta_step, meta_iters)
            functions.train(learner, surfaces, steps, batch=20, steps=5, seed=seed, label="surface")
        tests[state] = functions.test(
            learner, surfaces, eval_samples, batch=20, steps=eval_iters, seed=seed
        )
    losses = functions.write_losses(folder, tests, "start", eval_iters, settings)
    figure = common.new_figure(13, 3.5)
    *panels, against_steps = figure.subplots(1, 4)
    task = tests["Reptile"]
    shown = {
        "true": task.truth[0],
        "before": task.predictions[0, 0],
        f"after {eval_iters} steps": task.predictions[0, -1],
    }
    limit = float(abs(task.truth[0]).max())
    for axes, (title, values) in zip(panels, shown.items(), strict=True):
        image = axes.imshow(
            values.reshape(_SIDE, _SIDE), extent=(-2, 2, -2, 2), origin="lower", vmin=-limit,
            vmax=limit, cmap="RdBu",
        )  # fmt: skip
        axes.set(title=title)
    panels[0].plot(*task.inputs[0].T, ".", color="k", markersize=2)
    figure.colorbar(image, ax=panels, shrink=0.8)
    functions.plot_curves(against_steps, losses)
    common.save_figure(figure, folder, NAME)


if __name__ == "__main__":
    common.start(
        main,
        {
            "inner_optimizer": ("adam", "adam, for a ~ U[0, 2], or sgd, for a = 2."),
            "meta_iters": (2900, "Meta-iterations."),
            "learning_rate": (0.0, "Inner learning rate; 0: 0.001 for Adam, 0.02 for SGD."),
            "meta_step": (0.1, "Outer step size at the start; goes linearly to 0."),
            "eval_iters": (25, "Inner steps on a test task, five for each pass over its points."),
            "eval_samples": (10, "Test tasks."),
            "seed": common.SEED,
            "results": common.RESULTS,
        },
    )
