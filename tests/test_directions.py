"""Combinations of the inner steps, MAML's second-order gradient, regression, many at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import dense_model, evaluation_tasks, tiny_config, training_tasks, vector_dataset
from numpy_reference import DenseNet, Sgd, inner_steps

from supervised_reptile.from_config import learner_from_config
from supervised_reptile.keras_api.array_tasks import evaluation_tasks_of_arrays, tasks_of_arrays
from supervised_reptile.models import omniglot_model
from supervised_reptile.reptile import FOMAML, MAML, GradientCombination, Reptile
from supervised_reptile.tasks import random_stream

ALPHA = 0.02


def drawn(config, dataset, iteration=0):
    return training_tasks(random_stream(0, "training", iteration), dataset, config)


def moved_by(learner, examples, tasks):
    """Where one meta-iteration with step size 1 takes the weights, one flat vector."""
    before = learner.model.get_weights()
    learner.train_step(examples, tasks, 1.0)
    after = learner.model.get_weights()
    return np.concatenate([(a - b).ravel() for a, b in zip(after, before, strict=True)])


def gradients_along_the_way(weights, examples, rows, labels):
    """g_1 … g_k of the NumPy program with SGD, [k, parameters]."""
    net, found = DenseNet(weights), []
    for each, y in zip(rows, labels, strict=True):
        g = net.gradients(examples[each].astype(np.float64), y)
        found.append(np.concatenate([x.ravel() for x in g]))
        net.weights = Sgd(ALPHA).step(net.weights, g)
    return np.stack(found)


@pytest.mark.parametrize(
    "step_weights",
    [(1,), (0, 1), (1, 1), (0.5, 0.5), (0, 0, 1), (1, 1, 1), (1, 0, 0, 0), (2.0, 0, -0.25, 1)],
    ids=str,
)
def test_a_combination_is_the_sum_of_the_weighted_gradients(step_weights):
    k = len(step_weights)
    config = tiny_config(
        inner_optimizer="sgd", learning_rate=ALPHA, inner_iters=k, step_weights=step_weights
    )
    dataset = vector_dataset()
    learner = learner_from_config(config, dense_model())
    tasks = drawn(config, dataset)
    flat = dataset.images.reshape(len(dataset.images), -1)
    weights = learner.model.get_weights()
    expected = 0.0
    for rows, labels in zip(tasks.steps.indices, tasks.steps.labels, strict=True):
        g = gradients_along_the_way(weights, flat, rows, labels)
        expected = expected - ALPHA * np.asarray(step_weights) @ g / config.meta.meta_batch
    ours = moved_by(learner, tf.constant(dataset.images), tasks)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)
    assert np.abs(expected).max() > 0.003


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (0, 0, 0, 1)])
def test_reptile_and_fomaml_are_combinations(weights):
    dataset, config = vector_dataset(), tiny_config()
    kind = Reptile if weights[0] else FOMAML
    tasks, examples = drawn(config, dataset), tf.constant(dataset.images)
    named = moved_by(kind(dense_model()), examples, tasks)
    combined = moved_by(GradientCombination(dense_model(), step_weights=weights), examples, tasks)
    np.testing.assert_array_equal(named, combined)


def test_weights_of_zero_stand_still():
    dataset, config = vector_dataset(), tiny_config()
    learner = GradientCombination(dense_model(), step_weights=(0, 0, 0, 0))
    assert not moved_by(learner, tf.constant(dataset.images), drawn(config, dataset)).any()


# ------------------------------------------------------------------------------------- MAML


def loss_of(net, x, labels):
    logits = net.logits(x)
    highest = logits.max(axis=1, keepdims=True)
    log_sum = highest[:, 0] + np.log(np.exp(logits - highest).sum(axis=1))
    return (log_sum - logits[np.arange(len(labels)), labels]).sum()


@pytest.mark.parametrize("tail", [None, 2], ids=["shared tail", "separate tail"])
@pytest.mark.parametrize("inner_iters", [2, 4])
def test_mamls_gradient_agrees_with_finite_differences(inner_iters, tail):
    """Central differences, in float64, of the query loss after the NumPy program's inner steps."""
    config = tiny_config(
        algorithm="maml",
        foml_tail=tail,
        inner_optimizer="sgd",
        learning_rate=0.1,  # large, so that the second order matters
        inner_iters=inner_iters,
        meta_batch=2,
    )
    dataset = vector_dataset()
    learner = learner_from_config(config, dense_model())
    tasks = drawn(config, dataset)
    flat = dataset.images.reshape(len(dataset.images), -1).astype(np.float64)
    weights = learner.model.get_weights()
    shapes = [w.shape for w in weights]
    start = np.concatenate([w.ravel() for w in weights]).astype(np.float64)

    def query_loss(vector, i):
        cuts = np.cumsum([np.prod(s) for s in shapes])[:-1]
        parts = [p.reshape(s) for p, s in zip(np.split(vector, cuts), shapes, strict=True)]
        rows, labels = list(tasks.steps.indices[i]), list(tasks.steps.labels[i])
        if tail:
            rows.append(tasks.last.indices[i, 0])
            labels.append(tasks.last.labels[i, 0])
        net = DenseNet(parts)
        inner_steps(net, Sgd(0.1), flat, rows[:-1], labels[:-1], 1.0)
        return loss_of(net, flat[rows[-1]], labels[-1])

    gradient = np.zeros_like(start)
    for j in range(len(start)):
        step = np.zeros_like(start)
        step[j] = 1e-5
        for i in range(2):
            gradient[j] += (query_loss(start + step, i) - query_loss(start - step, i)) / 2e-5 / 2
    ours = moved_by(learner, tf.constant(dataset.images), tasks) / -0.1
    np.testing.assert_allclose(ours, gradient, rtol=2e-3, atol=2e-4)
    first_order = moved_by(
        FOMAML(dense_model(), inner_optimizer=keras.optimizers.SGD(0.1)),
        tf.constant(dataset.images),
        tasks,
    )
    assert np.abs(first_order / -0.1 - gradient).max() > 0.1  # which FOMAML is not


@pytest.mark.parametrize("network", ["dense", "omniglot"])
def test_mamls_gradient_agrees_with_an_explicit_jacobian(network):
    """d = -α Jᵀ ∇L_k, with J = dφ̃_{k-1}/dφ written out, on the stock layers without fusing."""
    dataset = vector_dataset(size=28 if network == "omniglot" else 3)
    model = omniglot_model(3, filters=2, seed=0) if network == "omniglot" else dense_model()
    config = tiny_config(meta_batch=1, inner_iters=3)
    tasks = drawn(config, dataset)
    rows, labels = tasks.steps.indices[0], tasks.steps.labels[0]
    images = dataset.images.astype(np.float32)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    sizes = [int(np.prod(s)) for s in shapes]
    start = tf.concat([tf.reshape(v.value, [-1]) for v in model.trainable_variables], 0)

    def loss(vector, x, y):
        parts = [tf.reshape(p, s) for p, s in zip(tf.split(vector, sizes), shapes, strict=True)]
        outputs, _ = model.stateless_call(parts, [], x)
        return cross_entropy(y, outputs)

    @tf.function  # one graph for every mini-batch, as its images and labels are tensors
    def hessian(vector, x, y):
        with tf.GradientTape() as outer:
            outer.watch(vector)
            with tf.GradientTape() as inner:
                inner.watch(vector)
                value = loss(vector, x, y)
            gradient = inner.gradient(value, vector)
        return gradient, outer.jacobian(gradient, vector)

    batches = [(tf.constant(images[r]), tf.constant(y)) for r, y in zip(rows, labels, strict=True)]
    vector, jacobian = start, tf.eye(len(start))
    for batch in batches[:2]:
        gradient, h = hessian(vector, *batch)
        jacobian = (tf.eye(len(start)) - ALPHA * h) @ jacobian
        vector = vector - ALPHA * gradient
    gradient, _ = hessian(vector, *batches[2])
    expected = -ALPHA * tf.linalg.matvec(jacobian, gradient, transpose_a=True).numpy()
    learner = MAML(model, inner_optimizer=keras.optimizers.SGD(ALPHA))
    ours = moved_by(learner, tf.constant(dataset.images), tasks)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ours, expected, rtol=5e-3, atol=2e-4 * scale)
    assert np.abs(expected + ALPHA * gradient).max() > 0.02 * scale  # J is not the identity


def test_an_outer_optimizer_is_handed_mamls_gradient():
    dataset, examples = vector_dataset(), tf.constant(vector_dataset().images)
    tasks = drawn(tiny_config(), dataset)
    plain = MAML(dense_model(), inner_optimizer=keras.optimizers.SGD(ALPHA))
    outer = MAML(
        dense_model(),
        inner_optimizer=keras.optimizers.SGD(ALPHA),
        outer_optimizer=keras.optimizers.SGD(),
    )
    plain.train_step(examples, tasks, 0.5)
    outer.train_step(examples, tasks, 0.5 * ALPHA)
    for a, b in zip(plain.model.get_weights(), outer.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------- many at a time, and XLA


def bowls(seed, tasks):
    """Regression tasks: y = c·x for one c a task."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (tasks, 12, 2)).astype(np.float32)
    return x, x * rng.uniform(1, 3, (tasks, 1, 1)).astype(np.float32)


def regression_model():
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((2,)), *layers])


MEAN_SQUARE = keras.losses.MeanSquaredError()  # the mean over the mini-batch


def test_regression_step_by_step_in_keras():
    x, y = bowls(0, 1)
    table, tasks = tasks_of_arrays(np.random.default_rng(1), x, y, batch=4, steps=3)
    model = regression_model()
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    optimizer, losses = keras.optimizers.SGD(0.1), []
    for rows, targets in zip(tasks.steps.indices[0], tasks.steps.labels[0], strict=True):
        with tf.GradientTape() as tape:
            losses.append(MEAN_SQUARE(targets, twin(table[rows])))
        optimizer.apply(
            tape.gradient(losses[-1], twin.trainable_variables), twin.trainable_variables
        )
    learner = Reptile(model, inner_optimizer=keras.optimizers.SGD(0.1), loss=MEAN_SQUARE)
    reported = learner.train_step(table, tasks, 1.0)
    np.testing.assert_allclose(reported, np.mean(losses), rtol=1e-5)
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["", "XLA"])
@pytest.mark.parametrize("kind", [Reptile, FOMAML, MAML])
def test_many_meta_iterations_in_one_call_are_those_one_by_one(kind, jit_compile):
    x, y = bowls(0, 8)
    table, tasks = tasks_of_arrays(np.random.default_rng(1), x, y, batch=4, steps=3)
    meta_steps = [1.0, 0.5, 0.25, 0.125]
    one, many = (
        kind(
            regression_model(),
            inner_optimizer=keras.optimizers.SGD(0.1),
            outer_optimizer=keras.optimizers.Adam() if kind is MAML else None,
            loss=MEAN_SQUARE,
            jit_compile=jit_compile and compiled,
        )
        for compiled in (False, True)
    )
    losses = []
    for i, step in enumerate(meta_steps):
        mine = slice(2 * i, 2 * i + 2)
        pair = tasks._replace(steps=type(tasks.steps)(*(a[mine] for a in tasks.steps)))
        losses.append(one.train_step(table, pair, step))
    together = many.train_steps(table, tasks, meta_steps)
    np.testing.assert_allclose(together, losses, rtol=1e-4)
    for a, b in zip(one.model.get_weights(), many.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["", "XLA"])
def test_predictions_after_each_step(jit_compile):
    x, y = bowls(0, 3)
    table, tasks = evaluation_tasks_of_arrays(
        np.random.default_rng(1), x[:, :8], y[:, :8], x[:, 8:], batch=4, steps=5
    )
    learner = Reptile(
        regression_model(), loss=MEAN_SQUARE, lanes=2 - jit_compile, jit_compile=jit_compile
    )
    curve = learner.predict_after_each_step(table, tasks)
    assert curve.shape == (3, 6, 4, 2)
    for steps in (0, 2, 5):
        shorter = tasks._replace(steps=type(tasks.steps)(*(a[:, :steps] for a in tasks.steps)))
        np.testing.assert_allclose(
            curve[:, steps],
            learner.predict_tasks(table, shorter, transductive=True),
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_reset_optimizer_is_new_for_every_task(optimizer):
    """Two learners of one task each, with new optimizers, against one learner of both tasks."""
    dataset, examples = vector_dataset(), tf.constant(vector_dataset().images)
    config = tiny_config(inner_optimizer=optimizer, reset_optimizer=True, meta_batch=2)
    tasks = drawn(config, dataset)
    both = moved_by(learner_from_config(config, dense_model()), examples, tasks)
    alone = []
    for i in range(2):
        mine = type(tasks.steps)(*(a[i : i + 1] for a in tasks.steps))
        learner = learner_from_config(config.replace(reset_optimizer=False), dense_model())
        alone.append(moved_by(learner, examples, tasks._replace(steps=mine)))
    np.testing.assert_allclose(both, np.mean(alone, axis=0), rtol=1e-3, atol=1e-6)
    kept = moved_by(
        learner_from_config(config.replace(reset_optimizer=False), dense_model()), examples, tasks
    )
    assert np.abs(kept - both).max() > 1e-4

    # Evaluation starts anew as well, whatever the slots are by now.
    trained = learner_from_config(config, dense_model())
    trained.train_step(examples, tasks, 0.0)
    held_out = evaluation_tasks(0, "evaluation", dataset, "test", config, range(2))
    np.testing.assert_array_equal(
        trained.predict_tasks(examples, held_out, transductive=True),
        learner_from_config(config, dense_model()).predict_tasks(
            examples, held_out, transductive=True
        ),
    )
