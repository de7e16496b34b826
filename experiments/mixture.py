"""Two kinds of function at once: the review's Sec. 5.1.

    python -m experiments mixture

Every meta-batch is one wave a·sin(x + p) and one compound a·sin(x + p) + 3a·sin(x/3 + p); 256 inner
steps. One start has to serve both kinds: the loss on fresh functions of each against inner steps,
next to that of the untrained network.
"""

from pathlib import Path

from experiments import common, plots
from supervised_reptile.config.declaration import (
    NOT_NEGATIVE,
    POSITIVE,
    Checked,
    at_least,
    setting,
    settings,
)
from supervised_reptile.figures import figure_style

NAME = "mixture"


def families():
    """Return the mixture to train on, and both kinds to test on, by name."""
    import numpy as np

    from experiments import functions

    def drawing(compound_of):
        def draw(rng, tasks):
            a, p = rng.uniform(0, 5, (tasks, 1, 1)), rng.uniform(0, 2 * np.pi, (tasks, 1, 1))
            b = 3 * a * compound_of(np.arange(tasks))[:, None, None]
            return lambda x: (a * np.sin(x + p) + b * np.sin(x / 3 + p)).astype(np.float32)

        return functions.Family(
            draw,
            functions.SINE.training_inputs,
            functions.SINE.test_inputs,
            functions.SINE.queries,
        )

    return drawing(lambda i: i % 2), {
        "wave": drawing(lambda i: 0 * i),
        "compound": drawing(lambda i: 0 * i + 1),
    }


@settings("Experiment")
class Settings(Checked):
    """The training and the test of the initial weights."""

    meta_iters: int = setting(
        "Meta-iterations, each with one function of both kinds.", at_least(1), default=10_000
    )
    inner_iters: int = setting("Inner steps per training task.", at_least(1), default=256)
    learning_rate: float = setting("Inner learning rate (SGD).", POSITIVE, default=0.01)
    meta_step: float = setting(
        "Outer step size at the start, which decreases linearly to 0.", NOT_NEGATIVE, default=0.1
    )
    eval_iters: int = setting("Inner steps per test task.", at_least(1), default=256)
    eval_samples: int = setting("Test tasks of each kind.", at_least(2), default=200)
    seed: int = setting("Seed of everything random.", at_least(0), default=0)


def run(settings: Settings, place: common.Place) -> None:
    """Train on the mixture, test on each kind, and write table and figure."""
    folder = place.results_folder(NAME)
    common.load_tensorflow()
    import keras

    from experiments import functions

    trained_on, kinds = families()
    learner = functions.function_learner(
        "reptile",
        functions.mlp(1, 64, 64, 1, seed=settings.seed),
        keras.optimizers.SGD(settings.learning_rate),
    )
    tests = {}
    for state in ("untrained", "Reptile"):
        if state == "Reptile":
            functions.train(
                learner,
                trained_on,
                functions.annealed(settings.meta_step, settings.meta_iters),
                batch=10,
                steps=settings.inner_iters,
                meta_batch=2,
                seed=settings.seed,
                label=NAME,
            )
        for kind, family in kinds.items():
            tests[f"{kind}, {state}"] = functions.test(
                learner,
                family,
                settings.eval_samples,
                batch=10,
                steps=settings.eval_iters,
                seed=settings.seed,
            )
    functions.write_losses(folder, NAME, settings, "function", tests)
    trained = {kind: tests[f"{kind}, Reptile"] for kind in kinds}
    functions.write_examples(folder, functions.SINE, trained)
    draw(folder)


@figure_style()
def draw(folder: Path) -> None:
    """Draw a test task of each kind, and the loss against inner steps."""
    import numpy as np

    steps = common.read_results(folder)["settings"]["eval_iters"]
    figure = common.new_figure(8, 6)
    panels = figure.subplot_mosaic([["wave", "compound"], ["curves", "curves"]])
    with np.load(folder / plots.EXAMPLES) as examples:
        for kind in ("wave", "compound"):
            plots.plot_example(panels[kind], examples, kind, steps)
            panels[kind].set_title(f"{kind}: a test task")
    panels["compound"].legend(loc="upper right")
    plots.plot_curves(panels["curves"], folder)
    common.save_figure(figure, folder, NAME)
