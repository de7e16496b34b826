"""Any Keras model: right as in Keras, or refused in one line."""

import pickle
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import PROJECT

import supervised_reptile as sr
from docs import what_works
from docs.what_works import ALL, EQUAL, KINDS, NOT_TRIED, REFUSED, compare, data_of
from supervised_reptile.fast.optimizer_state import new_like
from supervised_reptile.keras_api.array_tasks import tasks_of_arrays
from supervised_reptile.keras_api.task_sources import TaskStream
from supervised_reptile.models import miniimagenet_model, omniglot_model
from supervised_reptile.reptile import MAML, Reptile
from supervised_reptile.tasks import EvaluationTasks, MiniBatches, TrainingTasks, task_seeds

L, O = keras.layers, keras.optimizers  # noqa: E741
CASES = {name: case for cases in ALL.values() for name, case in cases.items()}
# One of each kind, in one compiled program as users run it. The rest is the long tail.
FIRST = (
    *("Dropout", "LSTM", "MultiHeadAttention", "RandomRotation", "Masking"),
    *("BatchNormalization in a layer of one's own", "BatchNormalization, frozen", "AugMix"),
    *("add_loss in a layer of one's own", "L2", "MaxNorm", "AdamW, exclude_from_weight_decay"),
    *("RMSprop, momentum", "SGD, loss_scale_factor", "policy mixed_bfloat16"),
    *("policy mixed_float16, LossScaleOptimizer", "layers.Softmax last, loss of logits"),
)


def check(case):
    outcome, detail = compare(case)
    assert outcome == case.outcome, detail
    if outcome == REFUSED:
        assert "Received: " in detail and "\n" not in detail


@pytest.fixture
def eagerly():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("name", FIRST)
def test_three_inner_steps_are_those_of_keras(name):
    check(CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in FIRST])
def test_three_inner_steps_are_those_of_keras_too(name, eagerly):
    check(CASES[name])


def test_no_stock_layer_optimizer_regularizer_or_constraint_is_missing():
    tried = " ".join(CASES).replace(",", " ").replace("(", " ").split()
    places = {keras.layers: L.Layer, keras.optimizers: O.Optimizer}
    places |= {keras.regularizers: keras.regularizers.Regularizer}
    places |= {keras.constraints: keras.constraints.Constraint}
    for module, base in places.items():
        for name, kind in vars(module).items():
            is_alias = isinstance(kind, type) and kind.__name__ != name
            if isinstance(kind, type) and issubclass(kind, base) and kind is not base:
                assert name in tried or name in NOT_TRIED or is_alias, name


def test_the_page_shows_what_is_tested():
    page = what_works.PAGE.read_text()
    assert page == what_works.with_tables(page), "run python docs/what_works.py"


# ------------------------------------------------------------------------------ random numbers


def noisy(seed=None):
    """A model whose weights show each draw of its dropout."""
    return keras.Sequential(
        [keras.Input((50,)), L.Dropout(0.5, seed=seed), L.Dense(1, use_bias=False)]
    )


def direction(model, tasks):
    """How far a meta-iteration on ones moves the weights: the mask of the only step."""
    learner = Reptile(model, inner_optimizer=O.SGD(0.1), loss=lambda y, x: x, lanes=1)
    before = model.get_weights()[0].copy()
    learner.train_step(np.ones((1, 50), np.float32), tasks, 1.0)
    return (model.get_weights()[0] - before).ravel()


def one_step(seed, steps=1):
    zeros = np.zeros((1, steps, 1), np.int32)
    return TrainingTasks(MiniBatches(zeros, zeros), seeds=np.array([seed], np.int32))


def test_random_numbers_depend_on_the_task_s_seed_alone_and_are_new_each_step():
    first, again, other = (direction(noisy(), one_step(s)) for s in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(first != 0, again != 0)  # whatever the layer's own seed
    assert ((first != 0) != (other != 0)).any()
    two = direction(noisy(), one_step([1, 2], steps=2))
    assert set(np.rint(2 * two / two.min())) == {0, 1, 2}  # in neither mask, in one, in both


def test_seeds_of_tasks_do_not_change_what_else_is_drawn():
    ours, theirs = (np.random.default_rng(3) for _ in range(2))
    seeds = task_seeds(ours, 4)
    assert ours.random() == theirs.random()
    assert len(np.unique(seeds[:, 0])) == 4
    assert (task_seeds(np.random.default_rng(4), 4) != seeds).all()
    x = np.zeros((3, 4, 1), np.float32)
    _, tasks = tasks_of_arrays(np.random.default_rng(0), x, x, batch=2, steps=2)
    assert tasks.map(lambda a: a[:2]).seeds.shape == (2, 2)


def test_random_layers_rest_in_predictions_and_need_seeds():
    model = noisy()
    learner = Reptile(model, inner_optimizer=O.SGD(0.1), loss="mse", lanes=1)
    x, nothing = np.ones((2, 50), np.float32), np.zeros((1, 0, 1), np.int32)
    rows = np.zeros((1, 1), np.int32)
    tasks = EvaluationTasks(MiniBatches(nothing, nothing), rows, rows, rows.repeat(2, 1))
    expected = model.predict(x[:1], verbose=0)
    found = learner.predict_tasks(x, tasks, transductive=True)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"tasks must have seeds.*Received: tasks without"):
        learner.predict_tasks(x, tasks._replace(seeds=None), transductive=True)


class PythonNoise(L.Layer):
    """Multiplies by what a function of the layer draws."""

    def __init__(self, draw, **held):
        super().__init__(name="noise")
        self.draw = draw
        vars(self).update(held)

    def call(self, x):
        return x * self.draw(self)


@pytest.mark.parametrize(
    "layer",
    [
        PythonNoise(lambda _: random.random()),
        PythonNoise(lambda _: np.random.random()),
        PythonNoise(lambda self: self.rng.random(), rng=random.Random(1)),
        PythonNoise(lambda self: self.rng.uniform(), rng=np.random.RandomState(1)),
        PythonNoise(lambda self: self.rng.random(), rng=np.random.default_rng(1)),
    ],
    ids=["random", "np.random", "Random", "RandomState", "Generator"],
)
def test_draws_of_python_and_numpy_are_refused(layer):
    inner = keras.Sequential([keras.Input((6,)), layer])
    inputs = keras.Input((6,))
    model = keras.Model(inputs, L.Dense(3)(inner(L.Dense(6)(inputs))))
    held = vars(layer).get("rng")
    before = pickle.dumps((random.getstate(), np.random.get_state(), held))
    with pytest.raises(ValueError, match=r"no layer may draw .* Received: PythonNoise 'noise'$"):
        Reptile(model)
    assert pickle.dumps((random.getstate(), np.random.get_state(), held)) == before
    assert "call" not in vars(layer)


def test_draws_between_calls_and_in_building_are_no_fault():
    rng = random.Random(1)
    model = keras.Sequential([keras.Input((6,)), PythonNoise(lambda _: 2.0, rng=rng), L.Dense(3)])
    random.random(), np.random.random(), rng.random()
    assert Reptile(model)


class Counter(L.Layer):
    """Multiplies by how often it has been called in training."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False)

    def call(self, x, training=False):
        if training:
            self.calls.assign_add(1)
        return x * keras.ops.cast(self.calls, x.dtype)


def test_other_state_advances_within_a_task_and_starts_again_with_the_next():
    def model():
        return keras.Sequential([keras.Input((1,)), Counter(), L.Dense(1, use_bias=False)])

    ours, twin = model(), model()
    twin.set_weights(ours.get_weights())
    learner = Reptile(ours, inner_optimizer=O.SGD(0.01), loss="mse", lanes=1)
    x, y = np.ones((1, 1), np.float32), np.ones((1, 3, 1, 1), np.float32)
    tasks = TrainingTasks(MiniBatches(np.zeros((1, 3, 1), np.int32), y))
    for _ in range(2):
        learner.train_step(x, tasks, 1.0)
        assert int(ours.layers[0].calls) == 0
        twin.layers[0].calls.assign(0)
        twin.compile(O.SGD(0.01), "mse")
        for _ in range(3):
            twin.train_on_batch(x, y[0, 0])
        np.testing.assert_allclose(ours.get_weights()[-1], twin.get_weights()[-1], rtol=1e-5)
    support = np.zeros((1, 1), np.int32)
    evaluation = EvaluationTasks(tasks.steps, support, support)
    found = learner.predict_tasks(x, evaluation, transductive=True)
    twin.layers[0].calls.assign(0)
    for _ in range(3):
        twin.train_on_batch(x, y[0, 0])
    np.testing.assert_allclose(found[0], twin.predict(x, verbose=0), rtol=1e-4)


def test_maml_goes_through_the_losses_that_layers_add():
    def gradient(penalty):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((2,)), L.Dense(1, kernel_regularizer=keras.regularizers.L2(penalty))]
        )
        before = model.get_weights()[0].copy()
        rows = np.zeros((1, 1, 1), np.int32)
        part = MiniBatches(rows, np.zeros((1, 1, 1, 1), np.float32))
        MAML(model, inner_optimizer=O.SGD(0.1), loss=lambda y, x: 0 * x).train_step(
            np.ones((1, 2), np.float32), TrainingTasks(part, part), 1.0
        )
        return (model.get_weights()[0] - before) / before

    # L = p·w²: one inner step leaves (1 − 0.2 p) w, whose gradient is 2p (1 − 0.2 p)² w.
    np.testing.assert_allclose(gradient(0.5), -0.1 * 2 * 0.5 * 0.9**2, rtol=1e-5)


# --------------------------------------------------------------------------------- optimizers


def round_trip(make, directory):
    """Train, save, load in plain Keras, five more steps; and plain Keras from the start."""
    keras.utils.set_random_seed(1)
    same = [L.Dense(4, name=f"same{i}") for i in range(2)]  # all weights of one shape each
    model = keras.Sequential([keras.Input((4,)), *same, L.Dense(4, use_bias=False)])
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 8, 5, 4), np.float32)
    learner = Reptile(model, inner_optimizer=make(), loss="mse", lanes=1)
    rows = np.arange(15, dtype=np.int32).reshape(1, 3, 5)
    table, labels = x.reshape(-1, 4), y.reshape(-1, 4)
    learner.train_step(table, TrainingTasks(MiniBatches(rows, labels[rows])), 1.0)
    path = directory / "model.keras"
    learner.compiled_model().save(path)
    loaded = keras.models.load_model(path)
    twin.compile(make(), "mse", auto_scale_loss=False)
    for i in range(8):
        twin.train_on_batch(x[i], y[i])
        if i >= 3:
            loaded.train_on_batch(x[i], y[i])
    moved = max(
        np.abs(a - b).max() for a, b in zip(twin.get_weights(), model.get_weights(), strict=True)
    )
    assert moved > 1e-5
    for a, b in zip(loaded.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)
    again = Reptile(keras.models.clone_model(model), inner_optimizer=make(), loss="mse", lanes=1)
    again.take_optimizer_state(loaded.optimizer)
    assert int(again.inner_optimizer._iterations) == int(loaded.optimizer._iterations)


LOST_BEFORE = ("RMSprop, momentum", "RMSprop, centered", "Adam, amsgrad", "SGD, use_ema")


@pytest.mark.parametrize("name", LOST_BEFORE)
def test_what_is_saved_goes_on_in_plain_keras(name, tmp_path, eagerly):
    round_trip(CASES[name].optimizer, tmp_path)


EXCLUDES = "AdamW, exclude_from_weight_decay"  # Keras does not save that


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, case in what_works.OPTIMIZERS.items()
        if case.outcome == EQUAL and name not in (*LOST_BEFORE, EXCLUDES)
    ],
)
def test_what_is_saved_goes_on_in_plain_keras_for_every_optimizer(name, tmp_path, eagerly):
    round_trip(CASES[name].optimizer, tmp_path)


def test_a_new_optimizer_keeps_a_schedule_of_the_user_s_own():
    class Halving(O.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 * 0.5 ** keras.ops.cast(step, "float32")

        def get_config(self):
            return {}

    optimizer = new_like(O.Adam(Halving()))
    optimizer.build([keras.Variable(1.0)])
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    assert set(KINDS) <= set(CASES)


# --------------------------------------------------------------------------------------- doors


def test_channels_first_builds_the_same_networks():
    for network in (omniglot_model, miniimagenet_model):
        usual = network(3, filters=4, seed=1)
        keras.config.set_image_data_format("channels_first")
        try:
            other = network(3, filters=4, seed=1)
            shape = usual.input_shape[1:]
            x = np.random.default_rng(0).random((2, *shape), np.float32)
            np.testing.assert_array_equal(usual(x), other(x))
        finally:
            keras.config.set_image_data_format("channels_last")


def test_the_papers_network_computes_in_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = omniglot_model(3, filters=8, seed=1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    x = np.random.default_rng(0).random((6, 28, 28, 1), np.float32)
    rows = np.arange(6, dtype=np.int32)[None, None].repeat(3, 1)
    labels = (rows % 3).astype(np.int32)
    learner = Reptile(model, inner_optimizer=O.SGD(0.01), lanes=1)
    plain = omniglot_model(3, filters=8, seed=1)
    reference = Reptile(plain, inner_optimizer=O.SGD(0.01), lanes=1)
    losses = [
        float(each.train_step(x, TrainingTasks(MiniBatches(rows, labels)), 1.0))
        for each in (learner, reference)
    ]
    np.testing.assert_allclose(*losses, rtol=0.05)
    tasks = EvaluationTasks(MiniBatches(rows, labels), rows[:, 0], rows[:, 0])
    assert learner.predict_tasks(x, tasks, transductive=True).dtype == np.float32


def code_of(name):
    text = what_works.PAGE.read_text()
    _, found, rest = text.partition(f"<!-- test: {name} -->\n```python\n")
    assert found
    return rest.partition("```")[0]


def test_a_frozen_backbone_with_a_new_head():
    images = np.random.default_rng(0).random((10, 32, 32, 3), np.float32)
    names = {"keras": keras, "sr": sr, "images": images}
    exec(code_of("backbone"), names)
    model, whole = names["model"], names["learner"]
    norms = [x for x in names["backbone"].layers if isinstance(x, L.BatchNormalization)]
    for norm in norms:  # statistics of these images, as pretraining would leave them
        norm.trainable, norm.momentum = True, 0.0
    names["backbone"](images, training=True)
    for norm in norms:
        norm.trainable = False
    start, constants = model.layers[-1].get_weights(), names["backbone"].get_weights()
    rows = np.arange(10, dtype=np.int32).reshape(1, 2, 5)
    tasks = TrainingTasks(MiniBatches(rows, (rows % 5).astype(np.int32)))
    whole.train_step(images, tasks, 1.0)
    for a, b in zip(names["backbone"].get_weights(), constants, strict=True):
        np.testing.assert_array_equal(a, b)

    exec(code_of("features"), names)
    names["head"].set_weights(start)
    names["learner"].train_step(names["features"], tasks, 1.0)
    ours, theirs = names["head"].get_weights(), model.layers[-1].get_weights()
    assert np.abs(ours[0] - start[0]).max() > 1e-3
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_subclassed_model_is_looked_into_when_it_is_first_run():
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm, self.head = L.BatchNormalization(), L.Dense(3)

        def call(self, x, training=False):
            return self.head(self.norm(x, training=training))

    x, tasks = data_of(CASES["Dense"])
    model = Mine()
    with pytest.raises(ValueError, match="not built: call it on a batch once"):
        Reptile(model)
    model(x)
    with pytest.raises(ValueError, match=r"moving statistics.*BatchNormalization .* moving_mean"):
        Reptile(model).train_step(x, tasks, 1.0)
    model.norm.trainable = False
    learner = Reptile(model, inner_optimizer=O.SGD(0.1))
    before = model.get_weights()
    learner.train_step(x, tasks, 1.0)
    assert np.abs(model.get_weights()[-1] - before[-1]).max() > 0


WRONG_TASKS = {
    "integers of 32 bits": (np.array([[1_700_000_000_000]]), [[0.0]]),
    "without weights of samples or classes": ([[1.0]], [[0.0]], [1.0]),
    "names of classes into 0 … N − 1": ([[1.0]], ["wren"]),
    "one array of inputs": ({"a": [[1.0]], "b": [[1.0]]}, [[0.0]]),
}


@pytest.mark.parametrize("message", WRONG_TASKS)
def test_tasks_that_are_no_numbers_are_refused_in_one_line(message):
    stream = TaskStream([WRONG_TASKS[message]], "tasks", (1,))
    with pytest.raises(ValueError, match=f"{message}.*Received: ") as caught:
        stream.take(1, np.random.default_rng(0))
    assert "\n" not in str(caught.value)


def test_evaluate_and_repr():
    def task(rng):
        x = rng.uniform(-1, 1, (8, 2)).astype(np.float32)
        y = (x[:, 0] > 0).astype(np.int32)
        return x, y, x, y

    model = keras.Sequential([keras.Input((2,)), L.Dense(2)], name="small")
    learner = Reptile(model, inner_optimizer=O.Adam(0.1), lanes=1)
    assert repr(learner).startswith("Reptile('small' of 6 weights, inner_optimizer=Adam(0.1)")
    found = learner.evaluate(task, steps=5, metrics=["accuracy"])
    assert found["accuracy"] > 0.9 and found["loss"] < 0.5
    with pytest.raises(ValueError, match=r"steps must be given.* Received: None"):
        learner.evaluate(task)
    x, y, *_ = task(np.random.default_rng(0))
    classifier = sr.adapt(model, x, y, value_range=None, steps=20)
    assert set(classifier.evaluate(x, y)) == {"loss", "accuracy"}
    assert repr(classifier) == "FewShotClassifier('small' of 2 classes, fine-tuned on 8 images)"


def test_another_backend_is_refused_in_one_line():
    import os
    import subprocess
    import sys

    result = subprocess.run(
        [sys.executable, "-c", "import supervised_reptile as sr; sr.Reptile"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=os.environ | {"KERAS_BACKEND": "jax"},
    )
    assert result.returncode
    assert "KERAS_BACKEND must be tensorflow. Received: jax" in result.stderr.splitlines()[-1]
