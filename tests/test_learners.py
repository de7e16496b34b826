"""The compiled learner against a plain NumPy program, and what evaluation leaves behind."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import dense_model, evaluation_tasks, tiny_config, training_tasks, vector_dataset
from numpy_reference import (
    Adam,
    DenseNet,
    RmsProp,
    Sgd,
    inner_steps,
    meta_iteration,
)

from supervised_reptile.from_config import learner_from_config, meta_step_from_config
from supervised_reptile.learner import paper_adam
from supervised_reptile.models import omniglot_model
from supervised_reptile.reptile import MAML, GradientCombination, Reptile
from supervised_reptile.tasks import random_stream


def as_lists(tasks):
    """TrainingTasks -> what the reference takes: all steps of each task in a row."""
    result = []
    for i in range(len(tasks.steps.indices)):
        indices, labels = list(tasks.steps.indices[i]), list(tasks.steps.labels[i])
        if tasks.last is not None:
            indices += list(tasks.last.indices[i])
            labels += list(tasks.last.labels[i])
        result.append((indices, labels))
    return result


ALGORITHMS = {
    "reptile": {},
    "fomaml, shared tail": {"algorithm": "fomaml"},
    "fomaml, separate tail": {"algorithm": "fomaml", "foml_tail": 2},
}


OPTIMIZERS = {"adam": Adam, "sgd": Sgd, "rmsprop": RmsProp}


@pytest.mark.parametrize("replacement", [False, True], ids=["dealt", "replacement"])
@pytest.mark.parametrize("weight_decay", [1.0, 0.97])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_agrees_with_the_numpy_program(algorithm, optimizer, weight_decay, replacement):
    config = tiny_config(
        inner_optimizer=optimizer,
        learning_rate=0.02,
        weight_decay=weight_decay,
        replacement=replacement,
        **ALGORITHMS[algorithm],
    )
    dataset = vector_dataset()
    model = dense_model()
    learner = learner_from_config(config, model)
    examples = tf.constant(dataset.images)
    flat_examples = dataset.images.reshape(len(dataset.images), -1)
    expected = [w.astype(np.float64) for w in model.get_weights()]
    reference = OPTIMIZERS[optimizer](0.02)
    initial = expected

    for iteration in range(config.meta.meta_iters):
        tasks = training_tasks(random_stream(0, "training", iteration), dataset, config)
        meta_step = meta_step_from_config(config)(iteration)  # annealed from 1 to 0
        learner.train_step(examples, tasks, meta_step)
        expected = meta_iteration(
            expected,
            reference,
            flat_examples,
            as_lists(tasks),
            meta_step,
            config.meta.algorithm,
            weight_decay,
        )
        for ours, theirs in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)

    moved = max(np.abs(e - i).max() for e, i in zip(expected, initial, strict=True))
    assert moved > 0.01  # a learner that stands still would not pass
    if optimizer == "adam":
        steps = config.meta.meta_iters * config.meta.meta_batch * config.inner.inner_iters
        assert int(learner.inner_optimizer.iterations.numpy()) == steps == reference.t
        velocity = np.concatenate([v.ravel() for v in reference.v])
        np.testing.assert_allclose(
            learner.inner_optimizer.variables[3].numpy(), velocity, rtol=1e-3, atol=1e-7
        )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fine_tuned_predictions_agree_with_the_numpy_program(optimizer):
    config = tiny_config(inner_optimizer=optimizer, learning_rate=0.02, weight_decay=0.98)
    dataset = vector_dataset()
    model = dense_model()
    learner = learner_from_config(config, model, lanes=2)
    examples = tf.constant(dataset.images)
    flat_examples = dataset.images.reshape(len(dataset.images), -1)
    tasks = evaluation_tasks(3, "evaluation", dataset, "test", config, range(5))
    logits = learner.predict_tasks(examples, tasks, transductive=True)
    assert logits.shape == (5, 3, 3)
    for i in range(5):
        net = DenseNet(model.get_weights())
        reference = OPTIMIZERS[optimizer](0.02)
        inner_steps(
            net, reference, flat_examples, tasks.steps.indices[i], tasks.steps.labels[i], 0.98
        )
        expected = net.logits(flat_examples[tasks.queries[i]].astype(np.float64))
        np.testing.assert_allclose(logits[i], expected, rtol=1e-4, atol=2e-5)


def state_of(learner):
    variables = [*learner.model.variables, *learner.inner_optimizer.variables]
    return [v.numpy().copy() for v in variables]


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("transductive", [True, False])
def test_evaluation_leaves_every_variable_bit_identical(optimizer, transductive):
    config = tiny_config(inner_optimizer=optimizer)
    dataset = vector_dataset()
    learner = learner_from_config(config, dense_model())
    examples = tf.constant(dataset.images)
    tasks = training_tasks(random_stream(0, "training", 0), dataset, config)
    learner.train_step(examples, tasks, 0.5)
    before = state_of(learner)
    held_out = evaluation_tasks(0, "evaluation", dataset, "test", config, range(7))
    first = learner.predict_tasks(examples, held_out, transductive=transductive)
    for old, new in zip(before, state_of(learner), strict=True):
        np.testing.assert_array_equal(old, new)
    # … and so does whatever evaluation keeps out of sight.
    again = learner.predict_tasks(examples, held_out, transductive=transductive)
    np.testing.assert_array_equal(first, again)


def test_evaluation_starts_from_the_trained_slots():
    config = tiny_config(learning_rate=0.01)
    dataset = vector_dataset()
    examples = tf.constant(dataset.images)
    trained, fresh = (learner_from_config(config, dense_model()) for _ in range(2))
    tasks = training_tasks(random_stream(0, "training", 0), dataset, config)
    trained.train_step(examples, tasks, 0.0)  # moves the slots, not the weights
    for a, b in zip(trained.model.get_weights(), fresh.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    held_out = evaluation_tasks(0, "evaluation", dataset, "test", config, range(2))
    with_slots = trained.predict_tasks(examples, held_out, transductive=True)
    without = fresh.predict_tasks(examples, held_out, transductive=True)
    assert np.abs(with_slots - without).max() > 1e-3


def test_grouping_and_lanes_do_not_matter():
    config = tiny_config()
    dataset = vector_dataset()
    examples = tf.constant(dataset.images)
    results = []
    for lanes, groups in ((1, [5]), (2, [5]), (3, [2, 1, 2])):
        learner = learner_from_config(config, dense_model(), lanes=lanes)
        first, rows = 0, []
        for size in groups:
            held_out = evaluation_tasks(
                0, "evaluation", dataset, "test", config, range(first, first + size)
            )
            rows.append(learner.predict_tasks(examples, held_out, transductive=True))
            first += size
        results.append(np.concatenate(rows))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_step_sizes_zero_and_one():
    config = tiny_config(meta_batch=1, inner_optimizer="sgd", learning_rate=0.05)
    dataset = vector_dataset()
    examples = tf.constant(dataset.images)
    tasks = training_tasks(random_stream(0, "training", 0), dataset, config)
    still = learner_from_config(config, dense_model())
    start = still.model.get_weights()
    still.train_step(examples, tasks, 0.0)
    for a, b in zip(start, still.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    whole = learner_from_config(config, dense_model())
    whole.train_step(examples, tasks, 1.0)
    net = DenseNet(start)
    flat = dataset.images.reshape(len(dataset.images), -1)
    inner_steps(net, Sgd(0.05), flat, tasks.steps.indices[0], tasks.steps.labels[0], 1.0)
    for ours, theirs in zip(whole.model.get_weights(), net.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_outer_sgd_on_the_reptile_gradient_is_interpolation():
    # (φ − φ̃)/α with learning rate ε·α is φ + ε(φ̃ − φ): paper, Sec. 2.
    dataset = vector_dataset()
    examples = tf.constant(dataset.images)
    alpha, epsilon = 0.02, 0.7
    plain = Reptile(dense_model(), inner_optimizer=keras.optimizers.SGD(alpha))
    outer = Reptile(
        dense_model(),
        inner_optimizer=keras.optimizers.SGD(alpha),
        outer_optimizer=keras.optimizers.SGD(),
    )
    config = tiny_config()
    for iteration in range(3):
        tasks = training_tasks(random_stream(0, "training", iteration), dataset, config)
        plain.train_step(examples, tasks, epsilon)
        outer.train_step(examples, tasks, epsilon * alpha)
    for a, b in zip(plain.model.get_weights(), outer.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_outer_adam_takes_the_reptile_gradient():
    dataset = vector_dataset()
    examples = tf.constant(dataset.images)
    alpha, rate = 0.02, 0.01
    config = tiny_config(inner_optimizer="sgd", learning_rate=alpha)
    learner = Reptile(
        dense_model(),
        inner_optimizer=keras.optimizers.SGD(alpha),
        outer_optimizer=keras.optimizers.Adam(epsilon=1e-7),
    )
    weights = [w.astype(np.float64) for w in learner.model.get_weights()]
    flat = dataset.images.reshape(len(dataset.images), -1)
    outer = Adam(rate, beta_1=0.9, epsilon=1e-7)
    for iteration in range(3):
        tasks = training_tasks(random_stream(0, "training", iteration), dataset, config)
        learner.train_step(examples, tasks, rate)
        moved = meta_iteration(weights, Sgd(alpha), flat, as_lists(tasks), 1.0, "reptile")
        gradient = [(w - m) / alpha for w, m in zip(weights, moved, strict=True)]
        weights = outer.step(weights, gradient)
    for ours, theirs in zip(learner.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_transductive_and_not_equal_a_computation_by_hand():
    """On the real network, where batch statistics make the difference."""
    dataset = vector_dataset(size=28)
    examples = tf.constant(dataset.images)
    config = tiny_config(eval_iters=0)  # no steps, so the model itself must give the answers
    model = omniglot_model(3, filters=8, seed=1)
    learner = learner_from_config(config, model)
    tasks = evaluation_tasks(0, "evaluation", dataset, "test", config, range(2))
    together = learner.predict_tasks(examples, tasks, transductive=True)
    alone = learner.predict_tasks(examples, tasks, transductive=False)
    images = dataset.images.astype(np.float32)
    for i in range(2):
        support, queries = images[tasks.support[i]], images[tasks.queries[i]]
        np.testing.assert_allclose(together[i], model(queries), rtol=1e-4, atol=1e-4)
        for c in range(3):
            batch = np.concatenate([support, queries[c : c + 1]])
            np.testing.assert_allclose(alone[i, c], model(batch)[-1], rtol=1e-4, atol=1e-4)
    assert np.abs(together - alone).max() > 0.01


def test_fused_adam_is_keras_adam():
    """The same steps with TensorFlow's fused kernel and with keras.optimizers' own update."""
    dataset = vector_dataset(size=28)
    examples = tf.constant(dataset.images)
    config = tiny_config()
    tasks = training_tasks(random_stream(0, "training", 0), dataset, config)
    fused = Reptile(omniglot_model(3, filters=8, seed=2))
    # Clipping at infinity changes nothing but keeps the fused kernel away.
    adam = keras.optimizers.Adam(0.001, beta_1=0.0, epsilon=1e-8, clipvalue=1e30)
    plain = Reptile(omniglot_model(3, filters=8, seed=2), inner_optimizer=adam)
    assert fused.inner_loop.fast_weights.uses_fused_update
    assert not plain.inner_loop.fast_weights.uses_fused_update
    for learner in (fused, plain):
        learner.train_step(examples, tasks, 1.0)
    for a, b in zip(fused.inner_optimizer.variables, adam.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-5)
    # Biases before batch normalization have no effect and a gradient of pure rounding noise,
    # which Adam blows up to steps of its learning rate; everything else must agree.
    for variable, other in zip(
        fused.model.trainable_variables, plain.model.trainable_variables, strict=True
    ):
        if not variable.path.endswith("/bias") or "logits" in variable.path:
            np.testing.assert_allclose(variable.numpy(), other.numpy(), rtol=1e-3, atol=1e-4)


def test_an_optimizer_that_works_on_whole_matrices_keeps_them_whole():
    dataset = vector_dataset()
    examples = tf.constant(dataset.images)
    config = tiny_config(meta_batch=1, inner_iters=2)
    tasks = training_tasks(random_stream(0, "training", 0), dataset, config)
    model = dense_model()
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    learner = Reptile(model, inner_optimizer=keras.optimizers.SGD(0.1, clipnorm=0.05))
    learner.train_step(examples, tasks, 1.0)
    optimizer = keras.optimizers.SGD(0.1, clipnorm=0.05)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    for rows, labels in zip(tasks.steps.indices[0], tasks.steps.labels[0], strict=True):
        with tf.GradientTape() as tape:
            value = loss(labels, twin(dataset.images[rows].astype(np.float32)))
        gradients = tape.gradient(value, twin.trainable_variables)
        optimizer.apply(gradients, twin.trainable_variables)
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_paper_adam_has_the_papers_constants():
    adam = paper_adam()
    assert (adam.beta_1, adam.beta_2, adam.epsilon) == (0.0, 0.999, 1e-8)


def test_refuses_what_it_cannot_train():
    moving = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    with pytest.raises(ValueError, match="batch_statistics_normalization"):
        Reptile(moving)
    with pytest.raises(ValueError, match="weight_decay"):
        Reptile(dense_model(), weight_decay=0.0)
    with pytest.raises(ValueError, match="lanes"):
        Reptile(dense_model(), lanes=0)
    used = keras.optimizers.SGD(0.1)
    Reptile(dense_model(), inner_optimizer=used)
    with pytest.raises(ValueError, match="must be new"):
        Reptile(dense_model(), inner_optimizer=used)
    with pytest.raises(ValueError, match=r"loss must be a keras.losses.Loss, .*Received: 'no'"):
        Reptile(dense_model(), loss="no")
    with pytest.raises(ValueError, match=r"inner_optimizer must be .* Received: 'no'"):
        Reptile(dense_model(), inner_optimizer="no")
    with pytest.raises(ValueError, match="step_weights"):
        GradientCombination(dense_model(), step_weights=())
    with pytest.raises(ValueError, match="plain SGD"):
        MAML(dense_model(), inner_optimizer=keras.optimizers.Adam())
    with pytest.raises(ValueError, match="plain SGD"):
        MAML(dense_model(), inner_optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    with pytest.raises(ValueError, match="no weight_decay"):
        MAML(dense_model(), weight_decay=0.9)
    config = tiny_config()
    dataset = vector_dataset()
    tasks = training_tasks(random_stream(0, "training", 0), dataset, config)
    learner, examples = (
        GradientCombination(dense_model(), step_weights=(1, 0)),
        tf.constant(dataset.images),
    )
    with pytest.raises(ValueError, match=r"each of the 4 inner steps. Received: \(1.0, 0.0\)"):
        learner.train_step(examples, tasks, 1.0)
    with pytest.raises(ValueError, match="3 tasks for 2 meta-iterations"):
        Reptile(dense_model()).train_steps(examples, tasks, [1.0, 1.0])
    one_step = tasks._replace(steps=type(tasks.steps)(*(a[:, :1] for a in tasks.steps)))
    with pytest.raises(ValueError, match=r"at least 2 inner steps. Received: 1"):
        MAML(dense_model()).train_step(examples, one_step, 1.0)


@pytest.mark.parametrize("transductive", [True, False])
def test_fine_tuned_predictions_of_the_real_network_by_hand(transductive):
    """Keras, eagerly, step by step on the stock layers, against the compiled evaluation."""
    dataset = vector_dataset(size=28)
    config = tiny_config(inner_optimizer="sgd", learning_rate=0.01, eval_iters=3)
    model = omniglot_model(3, filters=4, seed=5)
    learner = learner_from_config(config, model)
    tasks = evaluation_tasks(0, "evaluation", dataset, "test", config, range(3))
    logits = learner.predict_tasks(tf.Variable(dataset.images), tasks, transductive=transductive)
    images = dataset.images.astype(np.float32)
    start = model.get_weights()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    for i in range(3):
        model.set_weights(start)
        optimizer = keras.optimizers.SGD(0.01)
        for rows, labels in zip(tasks.steps.indices[i], tasks.steps.labels[i], strict=True):
            with tf.GradientTape() as tape:
                value = loss(labels, model(images[rows]))
            gradients = tape.gradient(value, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
        support, queries = images[tasks.support[i]], images[tasks.queries[i]]
        if transductive:
            expected = model(queries).numpy()
        else:
            expected = [model(np.concatenate([support, q[None]])).numpy()[-1] for q in queries]
        np.testing.assert_allclose(logits[i], expected, rtol=1e-2, atol=2e-3)
    assert np.abs(np.asarray(expected) - model(queries).numpy()).max() > 0.01 or transductive


WRONG_ARGUMENTS = {
    "weight_decay": (0, 1.5, float("nan"), "0.9", True),
    "input_scale": (0, -1, float("nan"), float("inf"), "1"),
    "lanes": (0, 1.5, "2"),
    "parallel_tasks": (0, 2.5),
    "reset_optimizer": ("no", 1, None),
    "jit_compile": ("auto",),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, all_ in WRONG_ARGUMENTS.items() for value in all_]
)
def test_wrong_arguments_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*Received: ") as caught:
        Reptile(dense_model(), **{name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weights", [(1, float("nan")), "12", (1, None)])
def test_step_weights_are_numbers(weights):
    with pytest.raises(ValueError, match="step_weights must be finite numbers"):
        GradientCombination(dense_model(), weights)


@pytest.mark.parametrize(
    "outer",
    [
        lambda: keras.optimizers.SGD(loss_scale_factor=8.0),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
    ],
)
def test_an_outer_optimizer_scales_no_loss(outer):
    """It would divide the meta-gradient by a scale that nothing was multiplied by."""
    with pytest.raises(ValueError, match=r"outer_optimizer must not scale the loss.* Received: "):
        Reptile(dense_model(), outer_optimizer=outer())


def test_an_outer_optimizer_has_one_learner():
    """Its slots are those of one model, and its learning rate is the outer step size."""
    shared = keras.optimizers.Adam()
    with pytest.raises(ValueError, match="outer_optimizer must be new"):
        Reptile(dense_model(), inner_optimizer=shared, outer_optimizer=shared)
    outer = keras.optimizers.Adam()
    Reptile(dense_model(), outer_optimizer=outer)
    with pytest.raises(ValueError, match="outer_optimizer must be new"):
        Reptile(dense_model(), outer_optimizer=outer)
