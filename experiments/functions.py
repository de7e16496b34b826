"""Regression tasks that are functions, and the training and test of a learner on them.

Reptile, FOMAML and MAML are those of ``supervised_reptile.reptile``; here is only what a task is.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from experiments import common
from experiments.plots import EXAMPLES
from supervised_reptile.config.declaration import Checked
from supervised_reptile.keras_api.array_tasks import evaluation_tasks_of_arrays, tasks_of_arrays
from supervised_reptile.progress import Progress
from supervised_reptile.reptile import FOMAML, MAML, MetaLearner, Reptile
from supervised_reptile.runs.files import write_table

Function = Callable[[np.ndarray], np.ndarray]
"""Float inputs [tasks, points, dimensions] to values [tasks, points, 1]."""
_NORMAL_QUANTILE = 1.959964  # of 97.5 %
_CALL = 500  # meta-iterations per call of the compiled program
_TRAINING, TEST, VALIDATION = 0, 1, 2  # streams of random numbers


@dataclasses.dataclass(frozen=True)
class Family:
    """A distribution of functions.

    Attributes:
        draw: Takes a random generator and a number of tasks; gives their functions as one.
        training_inputs: Takes a random generator and a number of tasks; gives the inputs that the
            tasks are trained on, [tasks, points, dimensions].
        test_inputs: The same for the sampled points a test task is fine-tuned on.
        queries: Inputs at which a test task is measured, [queries, dimensions].
    """

    draw: Callable[[np.random.Generator, int], Function]
    training_inputs: Callable[[np.random.Generator, int], np.ndarray]
    test_inputs: Callable[[np.random.Generator, int], np.ndarray]
    queries: np.ndarray


@dataclasses.dataclass(frozen=True)
class TestTasks:
    """The results of fine-tuning on test tasks.

    Attributes:
        inputs: The sampled points, float32 [tasks, points, dimensions].
        targets: Their values, float32 [tasks, points, 1].
        truth: The functions at the family's queries, float32 [tasks, queries, 1].
        predictions: Before the first step and after each, float32
            [tasks, steps + 1, queries, 1]; or after the last alone, [tasks, 1, queries, 1].
    """

    inputs: np.ndarray
    targets: np.ndarray
    truth: np.ndarray
    predictions: np.ndarray

    def losses(self) -> np.ndarray:
        """Return the mean squared error over the queries, float64 [tasks, steps + 1]."""
        errors = self.predictions.astype(np.float64) - self.truth[:, None]
        return np.mean(errors**2, axis=(2, 3))


def line(low: float, high: float, points: int) -> np.ndarray:
    """Return equally spaced inputs of one dimension, float32 [points, 1]."""
    return np.linspace(low, high, points, dtype=np.float32)[:, None]


def fixed(inputs: np.ndarray) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Return a function that gives every task the same inputs."""
    return lambda rng, tasks: np.broadcast_to(inputs, (tasks, *inputs.shape))


def uniform(
    low: float, high: float, points: int, dimensions: int = 1
) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Return a function that draws new uniform inputs for every task."""
    shape = (points, dimensions)
    return lambda rng, tasks: rng.uniform(low, high, (tasks, *shape)).astype(np.float32)


def _sine(rng: np.random.Generator, tasks: int) -> Function:
    a, b = rng.uniform(0.1, 5, (tasks, 1, 1)), rng.uniform(0, 2 * np.pi, (tasks, 1, 1))
    return lambda x: (a * np.sin(x + b)).astype(np.float32)


_FIFTY = line(-5, 5, 50)
SINE = Family(_sine, fixed(_FIFTY), uniform(-5, 5, 10), _FIFTY)
"""f(x) = a·sin(x + b), a ~ U[0.1, 5], b ~ U[0, 2π]: trained on 50 equally spaced points of
[−5, 5], tested on 10 points drawn there (paper, Sec. 4)."""


def mlp(*sizes: int, activation: str = "tanh", seed: int) -> keras.Model:
    """Build a dense network of the given layer sizes, starting with the input.

    Kernels and biases are drawn from U[−1/√n, 1/√n], n the size of the layer before: PyTorch's
    way, which the authors' program for the sine wave relied on. (Biases of zero would put every
    unit's bend at the origin.)
    """
    seeds = np.random.SeedSequence(seed).generate_state(2 * len(sizes))
    layers = []
    for i, (before, size) in enumerate(itertools.pairwise(sizes)):
        limit = 1 / math.sqrt(before)
        kernel, bias = (
            keras.initializers.RandomUniform(-limit, limit, seed=int(s))
            for s in seeds[2 * i : 2 * i + 2]
        )
        layers.append(
            keras.layers.Dense(
                size,
                activation=activation if i < len(sizes) - 2 else None,
                kernel_initializer=kernel,
                bias_initializer=bias,
            )
        )
    return keras.Sequential([keras.Input((sizes[0],)), *layers])


def function_learner(
    algorithm: str,
    model: keras.Model,
    inner_optimizer: keras.optimizers.Optimizer,
    *,
    reset_optimizer: bool = False,
) -> MetaLearner:
    """Build a learner for functions, with the mean squared error over a mini-batch.

    Reptile interpolates. The others have one gradient per task and pass it to Adam, with Keras'
    constants, whose learning rate is the outer step.

    Args:
        algorithm: "reptile", "fomaml", "maml" or "joint" (Reptile with one inner step).
        model: The network.
        inner_optimizer: New Keras optimizer; for MAML plain SGD.
        reset_optimizer: Whether to reset its state for every task.
    """
    kind = {"reptile": Reptile, "fomaml": FOMAML, "maml": MAML, "joint": Reptile}[algorithm]
    return kind(
        model,
        inner_optimizer=inner_optimizer,
        outer_optimizer=None if algorithm == "reptile" else keras.optimizers.Adam(),
        loss=keras.losses.MeanSquaredError(),
        reset_optimizer=reset_optimizer,
        jit_compile=True,
        lanes=1,
    )


def train(
    learner: MetaLearner,
    family: Family,
    meta_steps: Sequence[float],
    *,
    batch: int,
    steps: int,
    meta_batch: int = 1,
    seed: int,
    first: int = 0,
    label: str,
) -> None:
    """Run meta-iterations, many per call.

    Args:
        learner: Trained in place.
        family: Where the tasks come from.
        meta_steps: Outer step of each meta-iteration.
        batch: Points in a mini-batch.
        steps: Inner steps k.
        meta_batch: Tasks in a meta-iteration.
        seed: Seed of the tasks.
        first: Number of the first of these meta-iterations, for its random numbers.
        label: What the progress bar says.
    """
    with Progress(len(meta_steps), label, "meta-iteration") as bar:
        for start in range(0, len(meta_steps), _CALL):
            mine = meta_steps[start : start + _CALL]
            rng = np.random.default_rng([seed, _TRAINING, first + start])
            tasks = len(mine) * meta_batch
            function, inputs = family.draw(rng, tasks), family.training_inputs(rng, tasks)
            table, drawn = tasks_of_arrays(rng, inputs, function(inputs), batch=batch, steps=steps)
            losses = learner.train_steps(table, drawn, mine).numpy()
            bar.say(f"inner loss {losses.mean():.3g}")
            bar.add(len(mine))


def annealed(start: float, iterations: int) -> list[float]:
    """Return outer step sizes that decrease linearly from a value to 0."""
    return [start * (1 - i / iterations) for i in range(iterations)]


def test(
    learner: MetaLearner,
    family: Family,
    tasks: int,
    *,
    batch: int,
    steps: int,
    seed: int,
    stream: int = TEST,
    each_step: bool = True,
) -> TestTasks:
    """Fine-tune on new tasks, the same for every learner, in one call.

    Args:
        learner: The learner, which does not change.
        family: Where the tasks come from.
        tasks: How many.
        batch: Points in a mini-batch.
        steps: Inner steps.
        seed: Seed of the tasks.
        stream: ``TEST``, or ``VALIDATION`` for tasks to choose settings by.
        each_step: Whether to predict after each step instead of after the last alone.
    """
    rng = np.random.default_rng([seed, stream])
    function, inputs = family.draw(rng, tasks), family.test_inputs(rng, tasks)
    queries = np.broadcast_to(family.queries, (tasks, *family.queries.shape))
    targets = function(inputs)
    table, drawn = evaluation_tasks_of_arrays(
        rng, inputs, targets, queries, batch=batch, steps=steps
    )
    if each_step:
        predictions = learner.predict_after_each_step(table, drawn)
    else:
        predictions = learner.predict_tasks(table, drawn, transductive=True)[:, None]
    return TestTasks(inputs, targets, function(queries), predictions)


def mean_and_interval(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over the tasks (first axis) and half its normal 95 % interval."""
    half = _NORMAL_QUANTILE * np.std(losses, axis=0, ddof=1) / math.sqrt(len(losses))
    return losses.mean(axis=0), half


def rows_of_curves(curves: dict[str, np.ndarray]) -> Iterator[tuple[str, int, float, float]]:
    """Return table rows of name, step, mean and interval, from losses [tasks, steps + 1]."""
    for name, losses in curves.items():
        for step, (mean, half) in enumerate(zip(*mean_and_interval(losses), strict=True)):
            yield name, step, float(mean), float(half)


def write_losses(
    folder: Path,
    experiment: str,
    settings: Checked,
    what: str,
    tests: Mapping[str, TestTasks],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write ``curves.csv`` and ``results.json`` of named tests, and print their final losses.

    Args:
        folder: Where to write.
        experiment: Name of the experiment.
        settings: The experiment's.
        what: Heading of the names.
        tests: What was tested, by name.
        more: What else to record.
    """
    losses = {name: each.losses() for name, each in tests.items()}
    rows = list(rows_of_curves(losses))
    write_table(folder / "curves.csv", (what, "step", "loss", "interval95"), rows)
    last = max(step for _, step, _, _ in rows)
    ends = {name: {"loss": m, "interval95": h} for name, k, m, h in rows if k == last}
    common.write_results(folder, experiment, settings, {"after": ends, **(more or {})})
    width = max(map(len, ends))
    for name, each in ends.items():
        print(f"{name:<{width}} after {last} steps {each['loss']:.4f} ± {each['interval95']:.4f}")


def write_examples(folder: Path, family: Family, tests: Mapping[str, TestTasks]) -> None:
    """Write the first test task of functions of one variable, by name, into ``examples.npz``."""
    arrays: dict[str, np.ndarray] = {"x": family.queries[:, 0]}
    for name, each in tests.items():
        arrays[f"{name}/predictions"] = each.predictions[0, [0, -1], :, 0]
        arrays[f"{name}/true"] = each.truth[0, :, 0]
        arrays[f"{name}/sampled"] = np.stack([each.inputs[0, :, 0], each.targets[0, :, 0]])
    np.savez_compressed(folder / EXAMPLES, **arrays)
