"""Inner optimizers on the sine wave, their moments kept or reset: the review's Sec. 4.2.

    python -m experiments.optimizers

Reptile with inner SGD, RMSprop (ρ = 0.9) and Adam (β1 = 0.1, β2 = 0.99), whose slots and step count
run on from task to task or start anew with each; the loss on fresh waves against inner steps, for
starts taken after every thousandth meta-iteration.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments import common
from supervised_reptile.errors import ConfigError
from supervised_reptile.runs.files import write_table

NAME = "optimizers"
SETTINGS = {
    "SGD": ("SGD", {}, False),
    "RMSprop, kept": ("RMSprop", {"rho": 0.9}, False),
    "RMSprop, reset": ("RMSprop", {"rho": 0.9}, True),
    "Adam, kept": ("Adam", {"beta_1": 0.1, "beta_2": 0.99}, False),
    "Adam, reset": ("Adam", {"beta_1": 0.1, "beta_2": 0.99}, True),
}
"""Name to Keras optimizer, its constants, and whether its state is reset. Plain SGD has none."""


def main(
    meta_iters: int,
    starts: int,
    sgd_rate: float,
    adaptive_rate: float,
    meta_step: float,
    eval_iters: int,
    eval_samples: int,
    seed: int,
    results: str,
) -> None:
    """Train with each, test at every start, and write table and figure."""
    least = {"meta_iters": 1, "starts": 1, "eval_iters": 1, "eval_samples": 2, "seed": 0}
    settings = {k: v for k, v in locals().items() if k not in ("least", "results")}
    for name, low in least.items():
        if settings[name] < low:
            raise ConfigError(f"--{name}: must be at least {low}. Received: {settings[name]}")
    folder = common.results_folder(results, NAME)
    common.load_tensorflow()
    import keras

    from experiments import functions

    curves = {}
    for name, (kind, constants, reset) in SETTINGS.items():
        rate = sgd_rate if kind == "SGD" else adaptive_rate
        learner = functions.function_learner(
            "reptile",
            functions.mlp(1, 64, 64, 1, seed=seed),
            getattr(keras.optimizers, kind)(rate, **constants),
            reset_optimizer=reset,
        )
        steps = functions.annealed(meta_step, meta_iters * (starts + 1))
        for start in range(starts):
            mine = slice(start * meta_iters, (start + 1) * meta_iters)
            functions.train(
                learner,
                functions.SINE,
                steps[mine],
                batch=10,
                steps=5,
                seed=seed,
                first=mine.start,
                label=f"{name}, start {start + 1} of {starts}",
            )
            tested = functions.test(
                learner, functions.SINE, eval_samples, batch=10, steps=eval_iters, seed=seed
            )
            curves[name, mine.stop] = tested.losses()
    _write(folder, curves, settings)


def _write(folder: Path, curves, settings) -> None:
    from experiments import functions

    rows = [
        (name, start, *row[1:])
        for (name, start), losses in curves.items()
        for row in functions.rows_of_curves({"": losses})
    ]
    header = ("inner_optimizer", "meta_iterations", "step", "loss", "interval95")
    write_table(folder / "curves.csv", header, rows)
    ends = [row for row in rows if row[2] == settings["eval_iters"]]
    common.write_json(
        folder / "results.json",
        {"settings": settings, "after": [dict(zip(header, r, strict=True)) for r in ends]},
    )
    last = max(start for _, start in curves)
    for name, start, step, loss, half in ends:
        if start == last:
            print(f"{name:<15} loss after {step} steps {loss:.4f} ± {half:.4f}")
    figure = common.new_figure(13, 3.4)
    for axes, name in zip(figure.subplots(1, len(SETTINGS), sharey=True), SETTINGS, strict=True):
        mine = [(start, losses) for (each, start), losses in curves.items() if each == name]
        for number, (start, losses) in enumerate(mine):
            shade = 0.85 * (1 - number / max(1, len(mine) - 1))
            axes.plot(losses.mean(axis=0), color=str(shade), linewidth=1.1, label=f"{start:,}")
        axes.set(title=name, xlabel="inner steps", yscale="log")
        axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="xx-small", title="meta-iterations", title_fontsize="xx-small")
    figure.axes[0].set_ylabel("mean squared error on fresh waves")
    common.save_figure(figure, folder, NAME)


if __name__ == "__main__":
    common.start(
        main,
        {
            "meta_iters": (1000, "Meta-iterations between starts."),
            "starts": (9, "How many starts are tested."),
            "sgd_rate": (0.02, "Inner learning rate of SGD."),
            "adaptive_rate": (0.005, "Inner learning rate of RMSprop and Adam."),
            "meta_step": (0.1, "Outer step size at first; goes to 0 one start after the last."),
            "eval_iters": (32, "Inner steps on a test task."),
            "eval_samples": (300, "Test tasks."),
            "seed": common.SEED,
            "results": common.RESULTS,
        },
    )
