"""Two kinds of function at once: the review's Sec. 5.1.

    python -m experiments.mixture

Every meta-batch is one wave a·sin(x + p) and one compound a·sin(x + p) + 3a·sin(x/3 + p); 256 inner
steps. One start has to serve both kinds: the loss on fresh functions of each against inner steps,
beside that of the untrained network.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments import common
from supervised_reptile.errors import ConfigError

NAME = "mixture"


def families():
    """The mixture to train on, and both kinds to test on, by name."""
    import numpy as np

    from experiments import functions

    def drawing(compound_of):
        def draw(rng, tasks):
            a, p = rng.uniform(0.1, 5, (tasks, 1, 1)), rng.uniform(0, 2 * np.pi, (tasks, 1, 1))
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


def main(
    meta_iters: int,
    inner_iters: int,
    learning_rate: float,
    meta_step: float,
    eval_iters: int,
    eval_samples: int,
    seed: int,
    results: str,
) -> None:
    """Train on the mixture, test on each kind, and write table and figure."""
    least = {"meta_iters": 1, "inner_iters": 1, "eval_iters": 1, "eval_samples": 2, "seed": 0}
    settings = {k: v for k, v in locals().items() if k not in ("least", "results")}
    for name, low in least.items():
        if settings[name] < low:
            raise ConfigError(f"--{name}: must be at least {low}. Received: {settings[name]}")
    folder = common.results_folder(results, NAME)
    common.load_tensorflow()
    import keras

    from experiments import functions

    trained_on, kinds = families()
    learner = functions.function_learner(
        "reptile", functions.mlp(1, 64, 64, 1, seed=seed), keras.optimizers.SGD(learning_rate)
    )
    tests = {}
    for state in ("untrained", "Reptile"):
        if state == "Reptile":
            steps = functions.annealed(meta_step, meta_iters)
            functions.train(
                learner,
                trained_on,
                steps,
                batch=10,
                steps=inner_iters,
                meta_batch=2,
                seed=seed,
                label="mixture",
            )
        for kind, family in kinds.items():
            tests[f"{kind}, {state}"] = functions.test(
                learner, family, eval_samples, batch=10, steps=eval_iters, seed=seed
            )
    losses = functions.write_losses(folder, tests, "function", eval_iters, settings)
    figure = common.new_figure(12, 3.6)
    *examples, against_steps = figure.subplots(1, 3)
    for axes, kind in zip(examples, kinds, strict=True):
        task = tests[f"{kind}, Reptile"]
        x = functions.SINE.queries[:, 0]
        axes.plot(x, task.predictions[0, 0, :, 0], ":", color="C0", label="before")
        axes.plot(x, task.predictions[0, -1, :, 0], color="C0", label=f"after {eval_iters} steps")
        axes.plot(x, task.truth[0, :, 0], color="C2", label="true")
        axes.plot(task.inputs[0, :, 0], task.targets[0, :, 0], "x", color="k", label="sampled")
        axes.set(title=kind, xlabel="x")
        axes.grid(alpha=0.3)
    examples[0].legend(fontsize="x-small")
    functions.plot_curves(against_steps, losses)
    common.save_figure(figure, folder, NAME)


if __name__ == "__main__":
    common.start(
        main,
        {
            "meta_iters": (3000, "Meta-iterations, each of one function of either kind."),
            "inner_iters": (256, "Inner steps on a training task."),
            "learning_rate": (0.01, "Inner learning rate (SGD)."),
            "meta_step": (0.1, "Outer step size at the start; goes linearly to 0."),
            "eval_iters": (256, "Inner steps on a test task."),
            "eval_samples": (200, "Test tasks of each kind."),
            "seed": common.SEED,
            "results": common.RESULTS,
        },
    )
