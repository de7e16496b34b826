"""A function of two variables: the review's Sec. 5.2.

    python -m experiments surface

z = a·sin(x² + y² + p), network 2 → 128 → 512 → 512 → 128 → 1. Training takes five steps on
mini-batches of 20 sampled points. A test task shows 20 points and asks for 10,000. The inner
optimizer is Adam (β1 = 0.01, β2 = 0.999) with a ~ U[0, 2], or SGD with a = 2 or a ~ U[0, 2]. The
learning rate is the one with the lowest error on validation surfaces. The range of x and y,
[−2, 2], is ours.
"""

from pathlib import Path

import numpy as np

from experiments import common, plots
from supervised_reptile.config.declaration import (
    NOT_NEGATIVE,
    Checked,
    Rule,
    at_least,
    one_of,
    setting,
    settings,
)
from supervised_reptile.errors import RunError
from supervised_reptile.figures import figure_style
from supervised_reptile.runs.files import write_table

NAME = "surface"
VARIANTS = {
    "adam": "Adam, a ~ U[0, 2]",
    "sgd-fixed": "SGD, a = 2",
    "sgd-varied": "SGD, a ~ U[0, 2]",
}
_RATES = {"adam": (0.0003, 0.001, 0.003), "sgd": (0.02, 0.05, 0.1, 0.2)}
_SNAPSHOTS = (1000, 2000)  # review, Fig. 8
_SIDE = 100  # 10,000 points to predict
_POINTS = 20


def family(fixed_amplitude: bool):
    """Return the surfaces: amplitude a = 2 or drawn from U[0, 2], phase from U[0, 2π]."""
    from experiments import functions

    def draw(rng, tasks):
        a = np.full((tasks, 1, 1), 2.0) if fixed_amplitude else rng.uniform(0, 2, (tasks, 1, 1))
        p = rng.uniform(0, 2 * np.pi, (tasks, 1, 1))
        return lambda x: (a * np.sin((x**2).sum(-1, keepdims=True) + p)).astype(np.float32)

    side = np.linspace(-2, 2, _SIDE, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    return functions.Family(
        draw,
        functions.uniform(-2, 2, 5 * _POINTS, dimensions=2),
        functions.uniform(-2, 2, _POINTS, dimensions=2),
        grid,
    )


@settings("Experiment")
class Settings(Checked):
    """The training and the test of the initial weights."""

    variant: str = setting(
        f"Inner optimizer and surfaces: {'; '.join(f'{k}: {v}' for k, v in VARIANTS.items())}.",
        one_of(tuple(VARIANTS)),
        default="adam",
    )
    meta_iters: int = setting("Meta-iterations.", at_least(1), default=2900)
    learning_rates: tuple[float, ...] = setting(
        "Inner learning rates to choose from. When not given: "
        + "; ".join(f"{', '.join(map(str, rates))} for {kind}" for kind, rates in _RATES.items())
        + ".",
        Rule("must all be above 0", lambda rates: all(rate > 0 for rate in rates)),
        default=(),
    )
    meta_step: float = setting(
        "Outer step size at the start, which decreases linearly to 0.", NOT_NEGATIVE, default=0.1
    )
    eval_interval: int = setting("Meta-iterations between tests.", at_least(1), default=100)
    eval_iters: int = setting(
        "Inner steps on a test task, all on its 20 points.", at_least(1), default=5
    )
    eval_samples: int = setting("Validation tasks, and test tasks.", at_least(2), default=20)
    seed: int = setting("Seed of everything random.", at_least(0), default=0)


def run(settings: Settings, place: common.Place) -> None:
    """Choose the learning rate, train, test on fresh surfaces, and write tables and figure."""
    folder = place.results_folder(f"{NAME}-{settings.variant}")
    common.load_tensorflow()
    from experiments import functions

    surfaces = family(settings.variant == "sgd-fixed")

    def test(learner, stream=functions.TEST, each_step=False):
        return functions.test(
            learner,
            surfaces,
            settings.eval_samples,
            batch=_POINTS,
            steps=settings.eval_iters,
            seed=settings.seed,
            stream=stream,
            each_step=each_step,
        )

    rates = settings.learning_rates or _RATES[settings.variant.split("-")[0]]
    validation: dict[float, float | None] = {}
    for rate in rates:
        *_, (_, learner) = _training(settings, surfaces, rate)
        losses = test(learner, functions.VALIDATION).losses()
        loss = float(losses.mean())
        validation[rate] = loss if np.isfinite(loss) else None
    finite = {rate: loss for rate, loss in validation.items() if loss is not None}
    if not finite:
        raise RunError(f"--learning_rates: the test diverged at each of them. Received: {rates}")
    best = min(finite, key=finite.__getitem__)
    tests, snapshots, over_training = {}, {}, []
    for iteration, learner in _training(settings, surfaces, best):
        each_step = iteration in (0, settings.meta_iters)
        found = test(learner, each_step=each_step)
        if each_step:
            tests["Reptile" if iteration else "untrained"] = found
        mean, half = functions.mean_and_interval(found.losses()[:, -1])
        over_training.append((iteration, float(mean), float(half)))
        if iteration in (*_SNAPSHOTS, settings.meta_iters):
            snapshots[iteration] = found
    chosen = {
        "learning_rate": best,
        "validation_losses": {str(rate): loss for rate, loss in validation.items()},
        "snapshots": {
            str(iteration): {"loss": mean, "interval95": half}
            for iteration, mean, half in over_training
            if iteration in snapshots
        },
    }
    functions.write_losses(folder, NAME, settings, "start", tests, chosen)
    header = ("meta_iterations", "loss", "interval95")
    write_table(folder / "training.csv", header, over_training)
    first = next(iter(snapshots.values()))
    np.savez_compressed(
        folder / plots.EXAMPLES,
        sampled=first.inputs[0],
        true=first.truth[0].reshape(_SIDE, _SIDE),
        **{str(i): each.predictions[0, -1].reshape(_SIDE, _SIDE) for i, each in snapshots.items()},
    )
    draw(folder)


def _training(settings: Settings, surfaces, rate: float):
    """Train, and yield the learner at the start and every ``eval_interval`` meta-iterations."""
    import keras

    from experiments import functions

    if settings.variant == "adam":
        optimizer = keras.optimizers.Adam(rate, beta_1=0.01, beta_2=0.999)
    else:
        optimizer = keras.optimizers.SGD(rate)
    learner = functions.function_learner(
        "reptile", functions.mlp(2, 128, 512, 512, 128, 1, seed=settings.seed), optimizer
    )
    yield 0, learner
    steps = functions.annealed(settings.meta_step, settings.meta_iters)
    for first in range(0, settings.meta_iters, settings.eval_interval):
        mine = steps[first : first + settings.eval_interval]
        functions.train(
            learner,
            surfaces,
            mine,
            batch=_POINTS,
            steps=5,
            seed=settings.seed,
            first=first,
            label=f"{NAME}, learning rate {rate:g}",
        )
        yield first + len(mine), learner


@figure_style()
def draw(folder: Path) -> None:
    """Draw a test task at the snapshots, and the loss against meta-iterations and inner steps."""
    results = common.read_results(folder)
    steps = results["settings"]["eval_iters"]
    with np.load(folder / plots.EXAMPLES) as found:
        examples = dict(found)
    shown = {"true, with the points seen": examples["true"]}
    for iteration in results["snapshots"]:
        shown[f"{int(iteration):,} meta-iterations"] = examples[iteration]
    figure = common.new_figure(8, 5.4)
    above, below = figure.subfigures(2, 1)
    panels = above.subplots(1, len(shown), sharey=True)
    limit = float(abs(examples["true"]).max())
    for axes, (title, values) in zip(panels, shown.items(), strict=True):
        image = axes.imshow(
            values, extent=(-2, 2, -2, 2), origin="lower", vmin=-limit, vmax=limit, cmap="RdBu"
        )
        axes.set(xlabel="x")
        axes.set_title(title, fontsize="small")
        axes.grid(visible=False)
    panels[0].set_ylabel("y")
    panels[0].plot(*examples["sampled"].T, ".", color="k", markersize=3)
    above.colorbar(image, ax=panels, label="z", shrink=0.6)
    variant = VARIANTS[results["settings"]["variant"]]
    above.suptitle(f"{variant}: a test task after {steps} inner steps")
    training, tuning = below.subplots(1, 2, sharey=True)
    rows = common.read_rows(folder / "training.csv")
    plots.plot_with_interval(
        training, *np.transpose([[float(value) for value in row.values()] for row in rows]), "C1"
    )
    training.set(xlabel="meta-iterations", ylabel=f"mean squared error after {steps} steps")
    plots.plot_curves(tuning, folder)
    tuning.set_ylabel("mean squared error")
    common.save_figure(figure, folder, NAME)
