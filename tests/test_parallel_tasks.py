"""Tasks in parallel: each from the same slots, which are then averaged."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import dense_model, tiny_config, training_tasks, vector_dataset
from numpy_reference import Adam, RmsProp, Sgd, parallel_meta_iteration
from test_learners import ALGORITHMS, as_lists, state_of

from supervised_reptile.from_config import learner_from_config, meta_step_from_config
from supervised_reptile.reptile import MAML, GradientCombination, Reptile
from supervised_reptile.tasks import random_stream, task_seeds

OPTIMIZERS = {"adam": Adam, "sgd": Sgd, "rmsprop": RmsProp}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_agrees_with_the_numpy_program(algorithm, optimizer):
    config = tiny_config(
        inner_optimizer=optimizer,
        learning_rate=0.02,
        weight_decay=0.97,
        parallel_tasks=2,
        **ALGORITHMS[algorithm],
    )
    dataset, model = vector_dataset(), dense_model()
    learner = learner_from_config(config, model)
    examples = tf.constant(dataset.images)
    flat_examples = dataset.images.reshape(len(dataset.images), -1)
    expected = [w.astype(np.float64) for w in model.get_weights()]
    reference, initial = OPTIMIZERS[optimizer](0.02), expected
    for iteration in range(config.meta.meta_iters):
        tasks = training_tasks(random_stream(0, "training", iteration), dataset, config)
        meta_step = meta_step_from_config(config)(iteration)
        learner.train_step(examples, tasks, meta_step)
        expected = parallel_meta_iteration(
            expected,
            reference,
            flat_examples,
            as_lists(tasks),
            meta_step,
            config.meta.algorithm,
            0.97,
        )
        for ours, theirs in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)
    assert max(np.abs(e - i).max() for e, i in zip(expected, initial, strict=True)) > 0.01
    if optimizer == "adam":
        steps = config.meta.meta_iters * config.inner.inner_iters  # of one task a meta-iteration
        assert int(learner.inner_optimizer.iterations.numpy()) == steps == reference.t
        velocity = np.concatenate([v.ravel() for v in reference.v])
        np.testing.assert_allclose(
            learner.inner_optimizer.variables[3].numpy(), velocity, rtol=1e-3, atol=1e-7
        )


def train(learner, iterations=3, **overrides):
    """The learner's state and losses after some meta-iterations."""
    config, dataset = tiny_config(**overrides), vector_dataset()
    losses = []
    for iteration in range(iterations):
        rng = random_stream(0, "training", iteration)
        tasks = training_tasks(rng, dataset, config)
        tasks = tasks._replace(seeds=task_seeds(rng, config.meta.meta_batch))
        losses.append(float(learner.train_step(dataset.images, tasks, 0.5)))
    return state_of(learner), losses


@pytest.mark.parametrize("number", [3, 4, 9])
def test_the_number_of_parallel_tasks_changes_no_bit(number):
    expected = train(Reptile(dense_model(), parallel_tasks=2), meta_batch=4)
    found = train(Reptile(dense_model(), parallel_tasks=number), meta_batch=4)
    assert found[1] == expected[1]
    for a, b in zip(found[0], expected[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_learner_than_the_chain():
    chain, parallel = (train(Reptile(dense_model(), parallel_tasks=n))[0] for n in (1, 2))
    assert max(np.abs(a - b).max() for a, b in zip(chain[:4], parallel[:4], strict=True)) > 1e-4


def with_dropout():
    return keras.Sequential(
        [
            keras.Input((3, 3, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(7, activation="tanh", kernel_initializer=lambda *_, **__: START),
            keras.layers.Dropout(0.3, seed=5),
            keras.layers.Dense(3),
        ]
    )


START = np.random.default_rng(0).normal(size=(9, 7)).astype(np.float32)
# Plain SGD has no slots to carry over, so that the chain is the right value.
WITHOUT_SLOTS = {
    "Reptile": lambda model, n: Reptile(model, inner_optimizer="sgd", parallel_tasks=n),
    "MAML": lambda model, n: MAML(model, parallel_tasks=n),
    "GradientCombination": lambda model, n: GradientCombination(
        model, (0, 1, 0.5, 0.5), inner_optimizer="sgd", parallel_tasks=n
    ),
    "outer Adam": lambda model, n: Reptile(
        model, inner_optimizer="sgd", outer_optimizer="adam", parallel_tasks=n
    ),
    "loss not summed": lambda model, n: Reptile(
        model,
        inner_optimizer="sgd",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        parallel_tasks=n,
    ),
}


@pytest.mark.parametrize("case", WITHOUT_SLOTS)
def test_without_slots_the_same_as_the_chain(case):
    (one, losses), (two, expected) = (
        train(WITHOUT_SLOTS[case](dense_model(), number)) for number in (2, 1)
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for a, b in zip(one[:4], two[:4], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_dropout_draws_the_same_in_parallel():
    models = []
    for number in (2, 1):
        keras.utils.set_random_seed(3)
        models.append(with_dropout())
        train(Reptile(models[-1], inner_optimizer="sgd", parallel_tasks=number))
    for a, b in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.AdamW(0.01),
        keras.optimizers.Nadam(0.01),
        keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
        keras.optimizers.Adam(0.01, amsgrad=True),
        keras.optimizers.Adafactor(0.01),
        keras.optimizers.Adam(0.01, clipnorm=0.5),
        keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_with_one_task_the_same_as_the_chain(optimizer):
    """For any optimizer: slots, counters and schedule of one task are those of the chain."""
    config = optimizer.get_config()
    states = [
        train(
            Reptile(
                dense_model(),
                inner_optimizer=type(optimizer).from_config(config),
                parallel_tasks=number,
            ),
            meta_batch=1,
        )[0]
        for number in (2, 1)
    ]
    for a, b in zip(*states, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_many_meta_iterations_in_one_call():
    config, dataset = tiny_config(), vector_dataset()
    one, many = (Reptile(dense_model(), parallel_tasks=2) for _ in range(2))
    batches = [training_tasks(random_stream(0, "training", i), dataset, config) for i in range(3)]
    expected = [float(one.train_step(dataset.images, tasks, 0.5)) for tasks in batches]
    joined = type(batches[0]).concatenate(batches)
    found = many.train_steps(dataset.images, joined, [0.5] * 3).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_at_least_one():
    with pytest.raises(ValueError, match=r"parallel_tasks must be at least 1\. Received: 0"):
        Reptile(dense_model(), parallel_tasks=0)


def test_lanes_on_several_devices():
    """Two virtual CPUs stand for two GPUs: same numbers, and work on both."""
    code = """
import numpy as np, tensorflow as tf
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from supervised_reptile import lanes
from helpers import dense_model
from test_parallel_tasks import train
from supervised_reptile.reptile import Reptile
expected, _ = train(Reptile(dense_model(), parallel_tasks=4, lanes=2), meta_batch=5)
lanes._devices = lambda: ["CPU:0", "CPU:1"]
learner = Reptile(dense_model(), parallel_tasks=4, lanes=2)
found, _ = train(learner, meta_batch=5)
for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(a, b)
places = {each.fast_weights.variables[0].value.device[-5:] for each in learner._parallel._lanes}
assert places == {"CPU:0", "CPU:1"}, places
print("ok")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "ok\n", done.stderr[-2000:]
