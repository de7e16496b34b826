"""`fit` against a loop over `train_step`, and what callbacks and users see of it."""

import csv
import dataclasses
import runpy

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import PROJECT, document_code

import supervised_reptile as sr
from supervised_reptile.keras_api.array_tasks import evaluation_tasks_of_arrays, tasks_of_arrays
from supervised_reptile.keras_api.task_sources import TaskStream
from supervised_reptile.reptile import FOMAML, Reptile
from supervised_reptile.tasks import random_stream

SMALL = {"meta_batch": 3, "inner_iters": 4, "inner_batch": 5, "verbose": 0}
VALIDATION = {"validation_steps": 4, "eval_iters": 3}


SETTINGS = {field.name for field in dataclasses.fields(sr.FitSettings)}


def fit(learner, source, **arguments):
    """``learner.fit`` with settings and Keras' arguments in one mapping."""
    settings = {name: arguments.pop(name) for name in SETTINGS & arguments.keys()}
    return learner.fit(source, sr.FitSettings(**settings), **arguments)


def network(outputs=1, seed=0):
    initial = keras.initializers.RandomNormal(stddev=0.4, seed=seed)
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(6, activation="tanh", kernel_initializer=initial),
            keras.layers.Dense(outputs, kernel_initializer=initial),
        ]
    )


def plane(rng, examples=8):
    """A regression: z = a·x + b·y."""
    x = rng.uniform(-1, 1, (examples, 2))
    return x, x @ rng.normal(size=(2, 1))


def plane_with_queries(rng):
    x, z = plane(rng, 13)
    return x[:8], z[:8], x[8:], z[8:]


def half_plane(rng):
    """A classification, with queries."""
    x = rng.uniform(-1, 1, (13, 2))
    labels = (x @ rng.normal(size=2) > 0).astype(int)
    return x[:8], labels[:8], x[8:], labels[8:]


def regression(model=None, **options):
    options.setdefault("inner_optimizer", keras.optimizers.Adam(0.02))
    return Reptile(model or network(), loss=keras.losses.MeanSquaredError(), **options)


def test_it_is_a_loop_over_train_step():
    learner, by_hand = regression(), regression()
    history = fit(learner, plane, epochs=2, steps_per_epoch=3, seed=7, **SMALL)
    losses = []
    for i in range(6):
        rng = random_stream(7, "training", i)
        x, z = (np.stack(a).astype(np.float32) for a in zip(*[plane(rng) for _ in range(3)]))  # noqa: B905
        examples, tasks = tasks_of_arrays(rng, x, z, batch=5, steps=4)
        losses.append(float(by_hand.train_step(examples, tasks, 1.0 - i / 6)))
    for ours, theirs in zip(learner.model.get_weights(), by_hand.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(history.history["loss"], np.mean([losses[:3], losses[3:]], axis=1))
    np.testing.assert_allclose(history.history["meta_step"], [1 - 2 / 6, 1 - 5 / 6])
    assert history.epoch == [0, 1]

    several = regression()  # in calls of 2 and 1 meta-iterations
    again = fit(several, plane, epochs=2, steps_per_epoch=3, seed=7, steps_per_execution=2, **SMALL)
    for ours, theirs in zip(several.model.get_weights(), learner.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(again.history["loss"], history.history["loss"], rtol=1e-5)


def test_a_moving_average_of_the_outer_optimizer_is_what_remains():
    """As after Keras' own fit: the mean of the weights after each meta-iteration."""
    learner = regression(outer_optimizer=keras.optimizers.SGD(use_ema=True, ema_momentum=0.5))
    seen = []
    after = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(learner.model.get_weights())
    )
    fit(learner, plane, epochs=2, steps_per_epoch=3, callbacks=[after], **SMALL)
    mean, *rest = seen
    for weights in rest:
        mean = [0.5 * m + 0.5 * w for m, w in zip(mean, weights, strict=True)]
    for ours, expected, last in zip(learner.model.get_weights(), mean, rest[-1], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
        assert (ours != last).any()


def test_going_on_from_an_epoch_is_as_not_having_stopped():
    whole, halves = regression(), regression()
    schedule = keras.optimizers.schedules.PolynomialDecay(0.5, 10)
    arguments = {"steps_per_epoch": 3, "meta_step": schedule, **SMALL}
    fit(whole, plane, epochs=4, **arguments)
    fit(halves, plane, epochs=2, **arguments)
    fit(halves, plane, epochs=4, initial_epoch=2, **arguments)
    for ours, theirs in zip(halves.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_validation_is_the_learner_s_prediction_of_the_same_tasks_every_time():
    learner = Reptile(network(2), inner_optimizer=keras.optimizers.SGD(0.05))
    history = fit(
        learner,
        half_plane,
        **{"epochs": 3, "steps_per_epoch": 2, "validation_tasks": half_plane},
        **{"metrics": ["accuracy"], "validation_freq": 2, **SMALL, **VALIDATION},
    )
    assert set(history.history) == {"loss", "meta_step", "val_loss", "val_accuracy"}
    assert len(history.history["val_loss"]) == 1

    frozen = fit(
        learner,
        half_plane,
        **{"epochs": 2, "steps_per_epoch": 1, "validation_tasks": half_plane, "meta_step": 0.0},
        **{"metrics": ["accuracy"], "meta_step_final": 0.0, **SMALL, **VALIDATION},
    )
    rng = random_stream(0, "curve")
    x, y, qx, qy = (np.stack(a) for a in zip(*[half_plane(rng) for _ in range(4)], strict=True))
    examples, tasks = evaluation_tasks_of_arrays(
        random_stream(0, "curve", 1),
        *(x.astype(np.float32), y.astype(np.int32), qx.astype(np.float32)),
        **{"batch": 5, "steps": 3},
    )
    logits = learner.predict_tasks(examples, tasks, transductive=True).astype(np.float64)
    right = np.mean(logits.argmax(axis=-1) == qy)
    normalized = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    loss = -np.take_along_axis(normalized, qy[..., None], axis=-1).mean()
    np.testing.assert_allclose(frozen.history["val_accuracy"], [right, right], rtol=1e-6)
    np.testing.assert_allclose(frozen.history["val_loss"], [loss, loss], rtol=1e-5)


def test_keras_callbacks_do_what_they_do_in_keras(tmp_path, capsys):
    learner, seen = regression(), []
    fit(
        learner,
        plane_with_queries,
        **{"epochs": 3, "steps_per_epoch": 2, "validation_tasks": plane_with_queries},
        **{**SMALL, **VALIDATION, "verbose": 2},
        callbacks=[
            keras.callbacks.TensorBoard(tmp_path / "board", update_freq=1),
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
            keras.callbacks.LearningRateScheduler(lambda epoch: [0.02, 0.01, 0.0][epoch]),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: seen.append(learner.model.get_weights()),
                on_train_batch_end=lambda batch, logs: seen.append((batch, set(logs))),
            ),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        ],
    )
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert {"loss", "meta_step", "val_loss", "learning_rate"} <= set(rows[0])
    assert list(tmp_path.glob("board/train/*")) and list(tmp_path.glob("board/validation/*"))
    assert [entry for entry in seen if isinstance(entry, tuple)] == [
        (0, {"loss", "meta_step"}),
        (1, {"loss", "meta_step"}),
    ] * 3
    # α = 0 in the last epoch: nothing moves.
    for before, after in zip(seen[5], seen[8], strict=True):
        np.testing.assert_array_equal(before, after)
    assert np.abs(seen[2][0] - seen[5][0]).max() > 1e-4
    # What was saved has the weights and the inner optimizer of that epoch.
    saved = keras.models.load_model(tmp_path / "2.keras")
    for ours, theirs in zip(saved.get_weights(), seen[5], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert int(saved.optimizer.iterations) == 2 * 2 * 3 * 4  # epochs, steps, tasks, inner steps
    assert float(saved.optimizer.learning_rate) == pytest.approx(0.01)
    assert any(np.any(v) for v in saved.optimizer.variables[3:])
    assert "Epoch 3/3" in capsys.readouterr().out


def test_early_stopping_stops_and_restores_the_best_weights():
    learner, weights = regression(), []
    history = fit(
        learner,
        plane,
        **{"epochs": 9, "steps_per_epoch": 1, **SMALL},
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: weights.append(learner.model.get_weights())
            ),
            keras.callbacks.EarlyStopping(
                "meta_step", mode="max", patience=2, restore_best_weights=True
            ),
        ],
    )
    assert history.epoch == [0, 1, 2]  # ε only falls, so the first epoch is the best
    for ours, theirs in zip(learner.model.get_weights(), weights[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_backup_and_restore_goes_on_where_it_was(tmp_path):
    class Crash(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    arguments = {"epochs": 4, "steps_per_epoch": 2, **SMALL}
    whole, crashed, again = regression(), regression(), regression(network(seed=5))
    fit(whole, plane, **arguments)
    with pytest.raises(KeyboardInterrupt):
        fit(crashed, plane, callbacks=[backup(), Crash()], **arguments)
    history = fit(again, plane, callbacks=[backup()], **arguments)
    assert history.epoch == [2, 3]
    for ours, theirs in zip(again.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class OwnModel(keras.Model):
    """A subclass, as users write them."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(5, activation="relu")
        self.last = keras.layers.Dense(1)

    def call(self, x):
        return self.last(self.hidden(x))


@pytest.mark.parametrize(
    "inner, outer, loss",
    [
        (keras.optimizers.Nadam, keras.optimizers.Adam, keras.losses.Huber(reduction="sum")),
        (keras.optimizers.Lion, None, keras.losses.LogCosh()),
    ],
)
def test_any_model_optimizer_and_loss(inner, outer, loss):
    model = OwnModel()
    model(np.zeros((1, 2)))
    learner = Reptile(
        model,
        inner_optimizer=inner(0.01),
        outer_optimizer=outer and outer(),
        loss=loss,
    )
    arguments = {"meta_step": 0.003} if outer else {}
    before = model.get_weights()
    history = fit(learner, plane, epochs=2, steps_per_epoch=2, **arguments, **SMALL)
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


def test_with_queries_the_last_inner_step_is_on_exactly_these():
    """FOMAML moves by that step alone: away from targets of the support set."""
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    learner = FOMAML(
        model, inner_optimizer=keras.optimizers.SGD(0.1), loss=keras.losses.MeanSquaredError()
    )
    one = np.ones((2, 1))
    fit(
        learner,
        [(one, 1.0 * one, one, -3.0 * one)],
        **{"meta_batch": 1, "inner_iters": 2, "inner_batch": 2, "verbose": 0},
    )
    # w: 0 → 0.2 on the support set (target 1) → by −0.1·2·(0.2 + 3) = −0.64 on the queries.
    np.testing.assert_allclose(model.get_weights()[0], [[-0.64]], rtol=1e-5)


# ------------------------------------------------------------------------- sources of tasks


def test_a_list_a_dataset_and_a_generator_give_the_same_tasks():
    rng = np.random.default_rng(0)
    tasks = [plane(rng) for _ in range(6)]
    x, z = (np.stack(a).astype(np.float32) for a in zip(*tasks, strict=True))
    sources = {
        "list": tasks,
        "dataset": tf.data.Dataset.from_tensor_slices((x, z)),
        "generator": (task for _ in range(2) for task in tasks),
    }
    found = {}
    for name, source in sources.items():
        learner = regression()
        steps = {"steps_per_epoch": 2} if name == "generator" else {}  # else 6 tasks / 3
        history = fit(learner, source, epochs=2, **steps, **SMALL)
        assert len(history.epoch) == 2
        found[name] = learner.model.get_weights()
    for name in ("dataset", "generator"):
        for ours, theirs in zip(found[name], found["list"], strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


def told(fit):
    with pytest.raises(ValueError) as caught:
        fit()
    assert "\n" not in str(caught.value)
    return str(caught.value)


X, Z = np.zeros((8, 2)), np.zeros((8, 1))
BAD_SOURCES = {
    "tasks must be a function of a random generator or an iterable. Received: int": 3,
    "steps_per_epoch must be at least 1. Received: 2 tasks, meta_batch=3": [(X, Z)] * 2,
    "a task of tasks must have as many targets as inputs, at least one. Received: shapes (8, 2) "
    "and (7, 1)": [(X, Z[1:])] * 3,
    "a task of tasks must have inputs [examples, 2]. Received: shape (8, 1)": [(Z, Z)] * 3,
    "a task of tasks must be (inputs, targets) or (inputs, targets, query inputs, query targets), "
    "without weights of samples or classes (a loss of your own can weigh). Received: 3 parts": [
        (X, Z, X)
    ]
    * 3,
    "tasks in one meta-batch must have equal shapes. Received: [(8, 2), (8, 1), None, None] and "
    "[(7, 2), (7, 1), None, None]": [(X, Z), (X, Z), (X[1:], Z[1:])],
}


@pytest.fixture(scope="module")
def learner():
    return regression()


@pytest.mark.parametrize("message", BAD_SOURCES)
def test_bad_tasks_are_told_in_one_line(learner, message):
    assert told(lambda: fit(learner, BAD_SOURCES[message], **SMALL)) == message


def test_bad_arguments_are_told_in_one_line(learner):
    def message(source=plane, **arguments):
        return told(lambda: fit(learner, source, **{"steps_per_epoch": 2, **SMALL, **arguments}))

    assert "steps_per_epoch must be given" in message(steps_per_epoch=None)
    assert "steps_per_epoch must be given" in message(iter([(X, Z)]), steps_per_epoch=None)
    assert message(iter([(X, Z)] * 4)).startswith("tasks ran out after 4 tasks")
    assert message(meta_batch=0) == "meta_batch must be at least 1. Received: 0"
    assert "meta_step_final must be None if meta_step is a function" in message(
        meta_step=lambda i: 1.0, meta_step_final=0.0
    )
    assert "meta_step must be at least 0" in message(meta_step=-1.0)
    assert "validation_steps must be given" in message(validation_tasks=plane)
    assert "must have queries" in message(validation_tasks=[(X, Z)])


def test_labels_are_checked():
    stream = TaskStream([(X, np.full(8, 2))], "tasks", (2,), classes=2)
    message = told(lambda: stream.take(1, np.random.default_rng(0)))
    assert message.endswith("integer labels in 0 … 1. Received: int32 in 2 … 2")
    stream = TaskStream([(X, np.zeros(8))], "tasks", (2,), classes=2)
    assert "float32" in told(lambda: stream.take(1, np.random.default_rng(0)))


# ------------------------------------------------------------------------------- the example


def test_the_readme_s_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = document_code("fit")
    assert "epochs=20" in code
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    names = {"sr": sr, "keras": keras, "model": model}
    exec(code.replace("epochs=20", "epochs=2"), names)
    assert len(names["history"].history["val_loss"]) == 2
    assert (tmp_path / "log.csv").exists()


@pytest.mark.slow
def test_the_example_learns_in_under_forty_lines(capsys):
    path = PROJECT / "examples" / "own_model_and_task.py"
    assert len(path.read_text().splitlines()) < 40
    names = runpy.run_path(str(path))
    trained = names["learner"].model.history.history["val_accuracy"]
    assert "a new circle:" in capsys.readouterr().out

    model = keras.models.clone_model(names["model"])
    untrained = fit(
        Reptile(model, inner_optimizer=keras.optimizers.SGD(0.01)),
        names["draw_task"],
        **{"steps_per_epoch": 1, "meta_step": 0.0, "meta_step_final": 0.0, "verbose": 0},
        **{"validation_tasks": names["draw_task"], "validation_steps": 200},
        metrics=["accuracy"],
    )
    assert max(trained) > 0.9 > untrained.history["val_accuracy"][0]
