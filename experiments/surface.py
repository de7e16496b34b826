"""A function of two variables: the review's Sec. 5.2.

    python -m experiments surface

z = a·sin(x² + y² + p), five mini-batches of 20 sampled points, 10,000 points to predict, network
2 → 128 → 512 → 512 → 128 → 1. With inner Adam (β1 = 0.01, β2 = 0.999) and a ~ U[0, 2], or with
--inner_optimizer sgd and a = 2. The range of x and y, [−2, 2], and the learning rates are ours.
"""

from experiments import common
from supervised_reptile.config.declaration import (
    NOT_NEGATIVE,
    Checked,
    at_least,
    one_of,
    setting,
    settings,
)

NAME = "surface"
_SIDE = 100  # 10,000 points to predict


def family(fixed_amplitude: bool):
    """Return the surfaces: amplitude a = 2 or drawn from U[0, 2], phase from U[0, 2π]."""
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


@settings("Experiment")
class Settings(Checked):
    """The training and the test of the initial weights."""

    inner_optimizer: str = setting(
        "adam takes a ~ U[0, 2], and sgd a = 2.", one_of(("adam", "sgd")), default="adam"
    )
    meta_iters: int = setting("Meta-iterations.", at_least(1), default=2900)
    learning_rate: float = setting(
        "Inner learning rate; 0 means 0.001 for Adam and 0.02 for SGD.", NOT_NEGATIVE, default=0.0
    )
    meta_step: float = setting(
        "Outer step size at the start, which decreases linearly to 0.", NOT_NEGATIVE, default=0.1
    )
    eval_iters: int = setting(
        "Inner steps on a test task, five for each pass over its points.", at_least(1), default=25
    )
    eval_samples: int = setting("Test tasks.", at_least(2), default=10)
    seed: int = setting("Seed of everything random.", at_least(0), default=0)


def run(settings: Settings, place: common.Place) -> None:
    """Train, test on fresh surfaces, and write table and figure."""
    folder = place.results_folder(f"{NAME}-{settings.inner_optimizer}")
    common.load_tensorflow()
    import keras

    from experiments import functions

    if settings.inner_optimizer == "sgd":
        optimizer = keras.optimizers.SGD(settings.learning_rate or 0.02)
    else:
        rate = settings.learning_rate or 0.001
        optimizer = keras.optimizers.Adam(rate, beta_1=0.01, beta_2=0.999)
    surfaces = family(fixed_amplitude=settings.inner_optimizer == "sgd")
    learner = functions.function_learner(
        "reptile", functions.mlp(2, 128, 512, 512, 128, 1, seed=settings.seed), optimizer
    )
    tests = {}
    for state in ("untrained", "Reptile"):
        if state == "Reptile":
            functions.train(
                learner,
                surfaces,
                functions.annealed(settings.meta_step, settings.meta_iters),
                batch=20,
                steps=5,
                seed=settings.seed,
                label=NAME,
            )
        tests[state] = functions.test(
            learner,
            surfaces,
            settings.eval_samples,
            batch=20,
            steps=settings.eval_iters,
            seed=settings.seed,
        )
    losses = functions.write_losses(folder, settings, "start", tests)
    figure = common.new_figure(13, 3.5)
    *panels, against_steps = figure.subplots(1, 4)
    task = tests["Reptile"]
    shown = {
        "true": task.truth[0],
        "before": task.predictions[0, 0],
        f"after {settings.eval_iters} steps": task.predictions[0, -1],
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
