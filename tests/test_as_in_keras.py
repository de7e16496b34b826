"""Where a step could differ from Keras' own in silence: losses, weights, random numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supervised_reptile.reptile import Reptile
from supervised_reptile.tasks import MiniBatches, TrainingTasks

L, O = keras.layers, keras.optimizers  # noqa: E741


def one_task(targets):
    """A task of one step on the first examples."""
    rows = np.arange(len(targets), dtype=np.int32)
    return TrainingTasks(MiniBatches(rows[None, None], targets[None, None]))


def assert_a_step_is_that_of_keras(model, inputs, targets, loss):
    """One step of SGD on all examples, next to one of `train_on_batch`."""
    theirs = keras.models.clone_model(model)
    theirs.set_weights(model.get_weights())
    theirs.compile(O.SGD(0.1), loss)
    theirs.train_on_batch(inputs, targets)
    learner = Reptile(model, inner_optimizer=O.SGD(0.1), loss=loss)
    learner.train_step(inputs, one_task(targets), 1.0)
    for ours, expected in zip(model.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("outputs", [(), (1,), (4, 1), (4,)])
@pytest.mark.parametrize("targets", ["as they are", "without an axis of one", "with one"])
def test_a_loss_that_is_a_function_gets_targets_as_in_keras(outputs, targets):
    """Targets [batch] and outputs [batch, 1] are pairs, not all with all."""

    def loss(y_true, y_pred):
        return keras.ops.sum(keras.ops.square(y_true - y_pred) + y_true * y_pred, axis=-1)

    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(6, 4, 3) if len(outputs) == 2 else (6, 3)).astype(np.float32)
    last = L.Reshape(outputs) if outputs == () else L.Identity()
    units = outputs[-1] if outputs else 1
    model = keras.Sequential([keras.Input(inputs.shape[1:]), L.Dense(units), last])
    y = rng.normal(size=(6, *outputs)).astype(np.float32)
    if targets == "with one":
        y = y[..., None]
    elif targets != "as they are" and outputs[-1:] == (1,):
        y = y[..., 0]
    assert_a_step_is_that_of_keras(model, inputs, y, loss)


LINEAR_ENDS = {
    "dense": ((6,), lambda: [L.Dense(3)]),
    "without a bias": ((6,), lambda: [L.Dense(3, use_bias=False)]),
    "a sequence": ((2, 4), lambda: [L.Dense(3), L.Flatten()]),
    "convolution": ((4, 4, 1), lambda: [L.Conv2D(3, 4), L.Flatten()]),
    "einsum": ((6,), lambda: [L.EinsumDense("ab,bc->ac", 3, bias_axes="c")]),
    "nested": ((6,), lambda: [keras.Sequential([keras.Input((6,)), L.Dense(3)])]),
    "bfloat16": ((6,), lambda: [L.Dense(3, dtype="mixed_bfloat16")]),
}
PROBABILITIES = {
    "softmax": lambda: [L.Dense(3, activation="softmax")],
    "smoothed": lambda: [L.Dense(3, activation="softmax"), L.Rescaling(0.7, 0.1)],
    "mixed": lambda: [L.Dense(3, activation="softmax"), L.Lambda(lambda p: 0.7 * p + 0.1)],
    "normalized": lambda: [L.Dense(3, activation="softplus"), L.UnitNormalization()],
}


@pytest.mark.parametrize("end", LINEAR_ENDS)
@pytest.mark.parametrize(
    "loss",
    ["sparse_categorical_crossentropy", keras.losses.sparse_categorical_crossentropy],
    ids=["name", "function"],
)
def test_logits_for_a_loss_of_probabilities_are_refused(end, loss):
    """As logits are no probabilities, such a loss would be finite and mean nothing."""
    shape, layers = LINEAR_ENDS[end]
    model = keras.Sequential([keras.Input(shape), *layers()])
    with pytest.raises(ValueError, match=r"must have from_logits=True for .*from_logits=False\)$"):
        Reptile(model, loss=loss)
    Reptile(model, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    Reptile(model, loss="mse")


@pytest.mark.parametrize("end", PROBABILITIES)
def test_other_ends_of_a_model_are_taken_for_probabilities(end):
    model = keras.Sequential([keras.Input((6,)), *PROBABILITIES[end]()])
    Reptile(model, loss="sparse_categorical_crossentropy")


_GENERATOR, _COUNTER = tf.random.Generator.from_seed(1), tf.Variable(0.0)
UNSEEDED = {
    "RandomStandardNormal": lambda x: x + tf.random.normal(tf.shape(x)),
    "RandomUniform": lambda x: tf.nn.dropout(x, 0.5),
    "RandomShuffle": tf.random.shuffle,
    "RngReadAndSkip": lambda x: x + _GENERATOR.normal(tf.shape(x)),
    "AssignAddVariableOp": lambda x: x + _COUNTER.assign_add(1.0),
    "TruncatedNormal": lambda x: tf.cond(
        tf.reduce_sum(x) > 0, lambda: x + tf.random.truncated_normal(tf.shape(x)), lambda: x
    ),
}


@pytest.mark.parametrize("operation", UNSEEDED)
def test_what_no_seed_of_a_task_decides_is_refused(operation):
    """Draws of tf.random, and a tf.Variable that would carry over to the next task."""
    layers = [L.Dense(3), L.Lambda(UNSEEDED[operation], output_shape=(3,))]
    with pytest.raises(ValueError, match=rf"nor draw from tf.random: .* Received: {operation} "):
        Reptile(keras.Sequential([keras.Input((6,)), *layers]))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + tf.random.stateless_normal(tf.shape(x), (1, 2)),
        lambda x: x + _COUNTER,
    ],
    ids=["stateless", "only read"],
)
def test_what_is_the_same_in_every_call_is_no_fault(function):
    Reptile(keras.Sequential([keras.Input((6,)), L.Dense(3), L.Lambda(function)]))


class TwoHeads(keras.Model):
    """Uses one of its two heads."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = L.Dense(3), L.Dense(2, name="unused")
        for layer in (self.used, self.unused):
            layer.build((None, 6))
        self.built = True

    def call(self, x):
        return self.used(x)


@pytest.mark.parametrize("optimizer", [O.SGD, O.Adam, O.Adagrad, O.Lion, O.Lamb])
def test_weights_without_effect_stay_as_they_are(optimizer):
    model = TwoHeads()
    before = model.unused.get_weights()
    learner = Reptile(model, inner_optimizer=optimizer(0.1))
    learner.train_step(np.ones((2, 6), np.float32), one_task(np.arange(2)), 1.0)
    for ours, expected in zip(model.unused.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    "optimizer",
    [
        *(lambda: O.AdamW(0.1), lambda: O.SGD(0.1, weight_decay=0.1), lambda: O.Ftrl(0.1)),
        lambda: O.LossScaleOptimizer(O.Adam(weight_decay=0.1)),
        lambda: O.AdamW(O.schedules.PolynomialDecay(0.0, 9, 0.1), gradient_accumulation_steps=2),
    ],
    ids=["AdamW", "SGD", "Ftrl", "LossScaleOptimizer", "schedule"],
)
def test_weights_without_effect_that_would_decay_are_refused(optimizer):
    """Keras leaves them as they are."""
    model = TwoHeads()
    learner = Reptile(model, inner_optimizer=optimizer())
    with pytest.raises(ValueError, match=r"Received: unused/kernel, unused/bias$"):
        learner.train_step(np.ones((2, 6), np.float32), one_task(np.arange(2)), 1.0)
    model.unused.trainable = False
    learner = Reptile(model, inner_optimizer=optimizer())
    learner.train_step(np.ones((2, 6), np.float32), one_task(np.arange(2)), 1.0)


@pytest.mark.parametrize("optimizer", [O.SGD, O.Adam, O.RMSprop, O.Adagrad, O.Ftrl, O.Nadam])
def test_rows_of_an_embedding_have_one_gradient_however_often_they_occur(optimizer):
    """As a dense layer on one-hot words has; Keras' sparse gradients square each occurrence."""
    words = np.array([[1, 1, 2], [1, 3, 3], [4, 5, 1], [2, 2, 2]], np.int32)
    labels = np.array([0, 1, 2, 0], np.int32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    ours = keras.Sequential(
        [keras.Input((3,), dtype="int32"), L.Embedding(7, 4), L.Flatten(), L.Dense(3)]
    )
    theirs = keras.Sequential(
        [keras.Input((3, 7)), L.Dense(4, use_bias=False), L.Flatten(), L.Dense(3)]
    )
    theirs.set_weights(ours.get_weights())
    theirs.compile(optimizer(0.1, global_clipnorm=1.0), loss)
    theirs.train_on_batch(np.eye(7, dtype=np.float32)[words], labels)
    learner = Reptile(ours, inner_optimizer=optimizer(0.1, global_clipnorm=1.0), loss=loss)
    learner.train_step(words, one_task(labels), 1.0)
    for mine, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_loss_may_have_a_type_of_its_own(dtype):
    inputs, labels = np.ones((2, 6), np.float32), np.arange(2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=dtype)
    model = keras.Sequential([keras.Input((6,)), L.Dense(3, kernel_regularizer="l2")])
    assert_a_step_is_that_of_keras(model, inputs, labels, loss)


@pytest.mark.parametrize("reduction", [None, "none"])
def test_a_loss_without_a_reduction_is_refused(reduction):
    model = keras.Sequential([keras.Input((6,)), L.Dense(3)])
    with pytest.raises(ValueError, match=r"must have a reduction: .* Received: Mean"):
        Reptile(model, loss=keras.losses.MeanSquaredError(reduction=reduction))


@pytest.mark.parametrize("step", ["train_step", "compute_loss", "test_step", "predict_step"])
def test_models_with_steps_of_their_own_are_refused(step):
    """The inner loop would not call them."""

    def call(self, *args, **kwargs):
        return getattr(keras.Model, step)(self, *args, **kwargs)

    inputs = keras.Input((3,))
    model = type("Mine", (keras.Model,), {step: call})(inputs, L.Dense(2)(inputs))
    with pytest.raises(ValueError, match=rf"Received: Mine with its own {step}$"):
        Reptile(model)
    model = type("Mine", (keras.Model,), {"summary": call})(inputs, L.Dense(2)(inputs))
    Reptile(model)
