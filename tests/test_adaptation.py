"""`adapt` against the learner's evaluation, and a new head with what the old one had learned."""

import keras
import numpy as np
import pytest
from helpers import document_code, tiny_config, training_tasks, vector_dataset

import supervised_reptile as sr
from supervised_reptile.datasets import load_dataset
from supervised_reptile.from_config import learner_from_config
from supervised_reptile.keras_api.adapt import adapt, rehead
from supervised_reptile.models import omniglot_model
from supervised_reptile.pretrained import load_pretrained, pretrained_names
from supervised_reptile.reptile import Reptile
from supervised_reptile.tasks import EvaluationTasks, MiniBatches, mini_batches, random_stream

IMAGES = np.random.default_rng(5).random((6, 28, 28, 1), dtype=np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2])
QUERIES = np.random.default_rng(6).random((4, 28, 28, 1), dtype=np.float32)


@pytest.fixture(scope="module")
def learner():
    """A learner after a few meta-iterations: weights, moments and step count are not the first."""
    config, dataset = tiny_config(learning_rate=0.003), vector_dataset(size=28)
    learner = learner_from_config(config, omniglot_model(3, filters=8, seed=1))
    for iteration in range(4):
        tasks = training_tasks(random_stream(0, "training", iteration), dataset, config)
        learner.train_step(dataset.images, tasks, 1.0)
    return learner


@pytest.fixture(scope="module")
def model(learner):
    """Its model, as it is saved; no test may change it."""
    return learner.compiled_model()


def state_of(model):
    return [v.numpy().copy() for v in (*model.variables, *model.optimizer.variables)]


@pytest.mark.parametrize("transductive", [True, False])
def test_gives_the_numbers_of_the_evaluation(learner, model, transductive):
    before = state_of(model)
    classifier = adapt(model, IMAGES, LABELS, seed=3, steps=20, batch=4)
    found = classifier.predict(QUERIES, transductive=transductive)

    rows = mini_batches(np.random.default_rng(3), 6, 4, 20, replacement=False)
    steps = MiniBatches(rows[None], LABELS[rows][None].astype(np.int32))
    places = np.arange(10, dtype=np.int32)[None]
    tasks = EvaluationTasks(steps, places[:, :6], places[:, 6:])
    table = np.concatenate([IMAGES, QUERIES])
    logits = learner.predict_tasks(table, tasks, transductive=transductive)[0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - adapt(model, IMAGES, LABELS, steps=0).predict(QUERIES)).max() > 0.05
    assert found.dtype == np.float32
    for old, new in zip(before, state_of(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_paper_s_steps_and_mini_batches_by_default(model):
    classifier = adapt(model, IMAGES, LABELS)
    assert int(classifier.model.optimizer.iterations) == int(model.optimizer.iterations) + 50
    np.testing.assert_array_equal(
        classifier.predict(QUERIES),
        adapt(model, IMAGES, LABELS, steps=50, batch=5, seed=0).predict(QUERIES),
    )


def test_a_query_alone_and_among_others(model):
    classifier = adapt(model, IMAGES, LABELS, steps=5)
    each = np.concatenate([classifier.predict(q[None]) for q in QUERIES])
    np.testing.assert_allclose(classifier.predict(QUERIES), each, atol=1e-5)
    together = classifier.predict(QUERIES, transductive=True)
    assert np.abs(together - each).max() > 0.01
    # Transductive is the Keras model's own answer.
    softmax = keras.ops.softmax(classifier.model(QUERIES))
    np.testing.assert_allclose(together, softmax, atol=1e-5)


def test_it_fine_tunes_further_from_where_it_was(learner):
    """The model of the result is compiled with the moments it has by then."""
    model = learner.compiled_model()
    rows = mini_batches(np.random.default_rng(0), 6, 5, 10, replacement=False)
    classifier = adapt(model, IMAGES, LABELS, steps=10)
    for mini_batch in rows:
        model.train_on_batch(IMAGES[mini_batch], LABELS[mini_batch])
    further = classifier.model
    for each in (further, model):
        each.train_on_batch(IMAGES, LABELS)
    np.testing.assert_allclose(further(QUERIES), model(QUERIES), atol=1e-3)
    velocities = [each.optimizer.variables[-1] for each in (further, model)]  # of the last bias
    np.testing.assert_allclose(*velocities, rtol=1e-3)


def test_several_classifiers_of_one_model_do_not_disturb_each_other(learner):
    model = learner.compiled_model()
    first = adapt(model, IMAGES, LABELS, steps=5)
    expected = first.predict(QUERIES)
    second = adapt(model, IMAGES, LABELS[::-1], steps=5)
    assert np.abs(second.predict(QUERIES) - expected).max() > 0.01
    np.testing.assert_array_equal(first.predict(QUERIES), expected)
    for ours, again in zip(state_of(first.model), state_of(first.model), strict=True):
        np.testing.assert_array_equal(ours, again)
    np.testing.assert_allclose(
        keras.ops.softmax(first.model(QUERIES)),
        first.predict(QUERIES, transductive=True),
        atol=1e-5,
    )
    np.testing.assert_array_equal(adapt(model, IMAGES, LABELS, steps=5).predict(QUERIES), expected)
    # What happens to the model in between counts.
    model.optimizer.learning_rate = 0.0
    frozen = adapt(model, IMAGES, LABELS, steps=5).predict(QUERIES)
    np.testing.assert_allclose(frozen, adapt(model, IMAGES, LABELS, steps=0).predict(QUERIES))
    model.compile(keras.optimizers.SGD(0.01), model.loss)
    assert np.abs(adapt(model, IMAGES, LABELS, steps=5).predict(QUERIES) - frozen).max() > 0.01


def test_a_model_that_is_not_compiled_starts_from_zero_moments(learner):
    bare = keras.models.clone_model(learner.model)
    bare.set_weights(learner.model.get_weights())
    fresh = Reptile(keras.models.clone_model(learner.model)).compiled_model()
    fresh.set_weights(learner.model.get_weights())
    np.testing.assert_array_equal(
        adapt(bare, IMAGES, LABELS, steps=5).predict(QUERIES),
        adapt(fresh, IMAGES, LABELS, steps=5).predict(QUERIES),
    )
    assert not bare.compiled


def test_features_of_any_range():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    x = np.array([[-30.0, 5.0], [40.0, -2.0]])
    with pytest.raises(ValueError, match=r"must be in 0 … 1 .* Received: -30 … 40"):
        adapt(model, x, [0, 1])
    classifier = adapt(model, x, [0, 1], value_range=None)
    assert classifier.predict(x).shape == (2, 2)


WRONG = {
    "images must be of shape [images, 28, 28, 1]. Received: [6, 28, 28]": (IMAGES[..., 0], LABELS),
    "images must be of shape [images, 28, 28, 1]. Received: [6, 28, 27, 1]": (
        IMAGES[:, :, 1:],
        LABELS,
    ),
    "images must be of shape [images, 28, 28, 1]. Received: [0, 28, 28, 1]": (IMAGES[:0], []),
    "images must be floating-point; divide bytes by 255. Received: uint8": (
        (255 * IMAGES).astype(np.uint8),
        LABELS,
    ),
    "images must be floating-point. Received: bool": (IMAGES > 0.5, LABELS),
    "images must be in 0 … 1 (or say another value_range). Received: 0 … 255": (
        np.where(IMAGES > 0.5, 255.0, 0.0),
        LABELS,
    ),
    "images must be finite. Received: NaN or infinity": (
        np.where(IMAGES > 0.5, np.nan, 0.0),
        LABELS,
    ),
    "labels must be one integer for each of the 6 images. Received: shape [5]": (
        IMAGES,
        LABELS[:5],
    ),
    "labels must be one integer for each of the 6 images. Received: shape [6, 3]": (
        IMAGES,
        np.eye(3)[LABELS],
    ),
    "labels must be integers. Received: float64": (IMAGES, LABELS * 1.0),
    "labels must be in 0 … 2, for the model has 3 outputs (see rehead for more or fewer). "
    "Received: 0 … 3": (IMAGES, [0, 1, 2, 3, 1, 2]),
    "labels must be in 0 … 2, for the model has 3 outputs (see rehead for more or fewer). "
    "Received: -1 … 2": (IMAGES, [0, 1, 2, -1, 1, 2]),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_data_is_told_in_one_line(model, message):
    with pytest.raises(ValueError) as caught:
        adapt(model, *WRONG[message])
    assert str(caught.value) == message


def test_wrong_queries_and_settings_are_told_too(model):
    classifier = adapt(model, IMAGES, LABELS, steps=0)
    with pytest.raises(ValueError, match="images must be floating-point"):
        classifier.predict((255 * QUERIES).astype(np.uint8))
    with pytest.raises(ValueError, match=r"steps must be at least 0\. Received: -1"):
        adapt(model, IMAGES, LABELS, steps=-1)
    with pytest.raises(ValueError, match=r"batch must be at least 1\. Received: 0"):
        adapt(model, IMAGES, LABELS, batch=0)


def test_a_model_that_is_no_classifier_is_refused():
    def network(*layers, loss=None):
        model = keras.Sequential([keras.Input((2,)), *layers])
        if loss is not None:
            model.compile("sgd", loss)
        return model

    x = np.ones((2, 2))
    relu = network(keras.layers.Dense(2, activation="relu"))
    with pytest.raises(ValueError, match=r"no activation last, .*\. Received: relu"):
        adapt(relu, x, [0, 1])
    logits = network(keras.layers.Dense(2), loss="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"from_logits=True for .* gives logits, .* Received: "):
        adapt(logits, x, [0, 1])
    weighted = network(keras.layers.Dense(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    weighted.compile("sgd", loss, loss_weights=[2.0])
    with pytest.raises(ValueError, match=r"without loss_weights: .* Received: \[2.0\]"):
        adapt(weighted, x, [0, 1])
    with pytest.raises(
        ValueError, match=r"logits \[batch, classes\]. Received: outputs of shape \(None, 1, 2\)"
    ):
        adapt(network(keras.layers.Reshape((1, 2))), x, [0, 1])
    with pytest.raises(ValueError, match=r"from_logits=True\).* Received: .*mse"):
        adapt(network(keras.layers.Dense(2), loss="mse"), x, [0, 1])
    with pytest.raises(ValueError, match="no moving statistics"):
        adapt(network(keras.layers.BatchNormalization(), keras.layers.Dense(2)), x, [0, 1])


@pytest.mark.parametrize("how", ["activation", "layer", "operation", "nested"])
@pytest.mark.parametrize("compiled", [False, True])
def test_probabilities_get_no_second_softmax(how, compiled):
    layers = keras.layers
    inputs = keras.Input((3,))
    logits = layers.Dense(4)(inputs)
    outputs = {
        "activation": lambda: layers.Activation("softmax")(logits),
        "layer": lambda: layers.Softmax()(logits),
        "operation": lambda: keras.ops.softmax(logits),
        "nested": lambda: keras.Sequential([keras.Input((4,)), layers.Softmax()])(logits),
    }[how]()
    model, bare = keras.Model(inputs, outputs), keras.Model(inputs, logits)
    if compiled:
        model.compile("sgd", "sparse_categorical_crossentropy")
        bare.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, labels = np.random.default_rng(0).random((8, 3)), np.arange(8) % 4
    ours, theirs = (adapt(each, x, labels, steps=10).predict(x) for each in (model, bare))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_a_model_that_scales_its_inputs_takes_bytes():
    x, labels = np.random.default_rng(0).integers(0, 256, (6, 3), np.uint8), np.arange(6) % 2
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Rescaling(1 / 255)(inputs)))
    plain = keras.Sequential([keras.Input((3,)), model.layers[-1]])
    found = adapt(model, x, labels, steps=5).predict(x)
    expected = adapt(plain, x / 255, labels, steps=5).predict(x / 255)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_an_optimizer_that_has_not_trained_has_zero_moments():
    def model(compiled):
        keras.utils.set_random_seed(0)
        made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        if compiled:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
            made.compile(keras.optimizers.Adam(0.001, beta_1=0.0, epsilon=1e-8), loss)
        return made

    x, labels = np.random.default_rng(0).random((6, 3)), np.arange(6) % 2
    found, expected = (adapt(model(c), x, labels).predict(x) for c in (True, False))
    np.testing.assert_array_equal(found, expected)


# ------------------------------------------------------------------------------ another head


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_another_head_keeps_all_else_and_takes_the_classes_in_turn(learner, classes):
    old = learner.compiled_model()
    before = state_of(old)
    new = rehead(old, classes)
    assert new.output_shape == (None, classes)
    assert int(new.optimizer.iterations) == int(old.optimizer.iterations) > 0
    assert float(new.optimizer.learning_rate) == float(old.optimizer.learning_rate)
    both = (
        *zip(new.variables, old.variables, strict=True),
        *zip(new.optimizer.variables, old.optimizer.variables, strict=True),
    )
    heads = 0
    for mine, theirs in both:
        mine, theirs = mine.numpy(), theirs.numpy()
        if mine.shape == theirs.shape:
            np.testing.assert_array_equal(mine, theirs)
            continue
        heads += 1
        assert mine.shape == (*theirs.shape[:-1], classes)
        for i in range(classes):
            np.testing.assert_array_equal(mine[..., i], theirs[..., i % 3])
    assert heads == (0 if classes == 3 else 6)  # kernel and bias, each with two slots
    for was, now in zip(before, state_of(old), strict=True):
        np.testing.assert_array_equal(was, now)


def test_another_head_learns_as_many_classes(learner, tmp_path):
    images = np.random.default_rng(1).random((7, 28, 28, 1), dtype=np.float32)
    rehead(learner.compiled_model(), 7).save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    classifier = adapt(model, images, np.arange(7), batch=7)
    probabilities = classifier.predict(images, transductive=True)
    assert probabilities.argmax(axis=1).tolist() == list(range(7))
    assert not rehead(learner.model, 7).compiled


def test_a_head_that_cannot_be_exchanged_is_refused(learner):
    with pytest.raises(ValueError, match=r"num_classes must be at least 2\. Received: 1"):
        rehead(learner.model, 1)
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Rescaling(2.0)(keras.layers.Dense(3)(inputs)))
    with pytest.raises(ValueError, match=r"last layer must be Dense\. Received: Rescaling"):
        rehead(model, 2)


# -------------------------------------------------------------------------- as users do it


def test_the_readme_s_lines(learner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"sr": sr, "model": rehead(learner.compiled_model(), 5)}
    names |= {"images": IMAGES, "labels": LABELS, "queries": QUERIES}
    exec(document_code("adapt"), names)
    assert names["probabilities"].shape == (4, 3)
    assert (tmp_path / "mine.keras").exists()


@pytest.mark.parametrize(
    "name",  # other seeds of a row are like it
    [pytest.param(n, marks=pytest.mark.slow) if "-seed" in n else n for n in pretrained_names()],
)
def test_networks_that_come_with_the_package_adapt(name):
    """On real drawings of characters they tell most of five classes apart from one of each."""
    model = load_pretrained(name)
    if model.input_shape[1:] != (28, 28, 1):
        pytest.skip(f"{name} is not of characters, and the glyphs are")
    dataset, classes = load_dataset("glyphs", seed=0, progress=False), model.output_shape[-1]
    first = dataset.class_offsets[dataset.splits["test"][:classes]]
    images = dataset.images * np.float32(dataset.pixel_scale)
    classifier = adapt(model, images[first], np.arange(classes))
    found = classifier.predict(images[first + 1], transductive=True)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)
    assert np.mean(found.argmax(axis=1) == np.arange(classes)) > 0.5
    # White on black, as in MNIST, they would find far fewer.
    inverted = 1 - images[first + 1]
    with pytest.raises(ValueError, match=r"ink 0 and paper 1.* pass 1 − images .* Received: "):
        classifier.predict(inverted)
    with pytest.raises(ValueError, match=r"ink 0 and paper 1"):
        adapt(model, inverted, np.arange(classes))
    adapt(model, inverted, np.arange(classes), steps=1, value_range=None)
