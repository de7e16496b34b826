"""The compiled learner does what the one page of plain Keras does, step for step."""

import types

import keras
import numpy as np
import pytest
from helpers import PROJECT, document_code, one_page_algorithm, vector_dataset

import supervised_reptile as sr
from supervised_reptile.tasks import MiniBatches, TrainingTasks

PAGE = PROJECT / "examples" / "reptile_in_one_page.py"
TASKS, STEPS, BATCH = 2, 4, 15  # of the 50 examples of a task: the last mini-batch straddles


def module_of(text):
    module = types.ModuleType("reptile_in_one_page")
    exec(text, module.__dict__)
    return module


@pytest.fixture(scope="module")
def page():
    return module_of(PAGE.read_text())


@pytest.fixture(scope="module")
def dataset():
    return vector_dataset(size=28, classes=18, examples=12)


def draw_meta_batch(page, rng, dataset):
    tasks = [page.draw_task(rng, dataset, "train", page.TRAIN_SHOTS) for _ in range(TASKS)]
    return [page.deal(rng, *task, BATCH, STEPS) for task in tasks]


def smooth(model):
    """The same network with softplus for ReLU.

    At a kink of ReLU the last bit of a float32 decides between two slopes; without kinks, two
    programs that do the same stay together to rounding.
    """

    def replaced(layer):
        if isinstance(layer, keras.layers.ReLU):
            return keras.layers.Activation("softplus", name=layer.name)
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=replaced)
    copy.set_weights(model.get_weights())
    return copy


def state(model, optimizer):
    """Weights, Adam's second moments and step count."""
    slots = [v.numpy() for v in optimizer.variables if v.path.endswith("velocity")]
    return model.get_weights(), slots, int(optimizer.iterations.numpy())


def both_trajectories(page, dataset, iterations, sgd=None):
    """States after each meta-iteration: of the page, and of the learner on the same mini-batches.

    The inner optimizer is the default of each, or SGD of the learning rate ``sgd``.

    Returns:
        Two lists of :func:`state`, and the two trained models.
    """
    optimizer = keras.optimizers.SGD(sgd) if sgd else None
    learner = sr.Reptile(smooth(sr.omniglot_model(5, seed=0)), inner_optimizer=optimizer)
    plain = smooth(page.network())
    plain_optimizer = keras.optimizers.SGD(sgd) if sgd else page.adam()
    plain.set_weights(learner.model.get_weights())
    rng, drawn, of_page, of_learner = np.random.default_rng(0), [], [], []

    def draw_tasks():
        if drawn:
            of_page.append(state(plain, plain_optimizer))
        drawn.append(draw_meta_batch(page, rng, dataset))
        return drawn[-1]

    page.reptile(plain, plain_optimizer, draw_tasks, iterations)
    of_page.append(state(plain, plain_optimizer))
    for i, tasks in enumerate(drawn):
        images, labels = (np.stack([[b[part] for b in task] for task in tasks]) for part in (0, 1))
        rows = np.arange(labels.size, dtype=np.int32).reshape(labels.shape)
        steps = MiniBatches(rows, labels.astype(np.int32))
        meta_step = 1 - i / iterations
        learner.train_step(images.reshape(-1, 28, 28, 1), TrainingTasks(steps), meta_step)
        compiled = learner.compiled_model()
        of_learner.append(state(compiled, compiled.optimizer))
    return of_page, of_learner, plain, learner.model


def is_bias_before_normalization(model):
    """For each weight, whether it is the bias of a convolution, which normalization takes out."""
    return ["conv" in w.path and w.path.endswith("bias") for w in model.weights]


def differences(page_states, learner_states, skip):
    """Largest r.m.s. difference of a weight tensor, and relative one of a second moment."""
    of_weights, of_slots = [0.0], [0.0]
    for (weights, slots, steps), (weights_2, slots_2, steps_2) in zip(
        page_states, learner_states, strict=True
    ):
        assert steps == steps_2
        assert len(slots) == len(slots_2) and len(slots) in (0, len(weights))
        pairs = zip(weights, weights_2, skip, strict=True)
        of_weights += [np.sqrt(np.mean((a - b) ** 2)) for a, b, no in pairs if not no]
        pairs = zip(slots, slots_2, skip, strict=False)
        of_slots += [np.max(np.abs(a - b) / a) for a, b, no in pairs if not no]
    return max(of_weights), max(of_slots)


# Rounding alone makes 1e-7 and 5e-5 here. (Of a tensor's weights a few may be further apart:
# Adam's first steps are the learning rate long, in either direction, however small a gradient.)
WEIGHTS, SLOTS = 1e-6, 1e-3


def test_weights_moments_and_step_count_after_each_meta_iteration(page, dataset):
    ours, theirs, plain, model = both_trajectories(page, dataset, iterations=3)
    skip = is_bias_before_normalization(model)
    assert [steps for *_, steps in ours] == [TASKS * STEPS * i for i in (1, 2, 3)]
    of_weights, of_slots = differences(ours, theirs, skip)
    assert of_weights < WEIGHTS and of_slots < SLOTS
    # In exact arithmetic these biases have gradient 0. The page computes rounding noise, which
    # Adam makes steps of; the learner leaves them where they are; the outputs do not change.
    wandered = [w for w, yes in zip(plain.get_weights(), skip, strict=True) if yes]
    assert len(wandered) == 4 and all(np.abs(w).max() > 1e-4 for w in wandered)
    assert all(not w.any() for w, yes in zip(model.get_weights(), skip, strict=True) if yes)
    images = draw_meta_batch(page, np.random.default_rng(1), dataset)[0][0][0]
    np.testing.assert_allclose(plain(images), model(images), atol=1e-4)


def test_every_weight_with_gradient_descent(page, dataset):
    """Which blows nothing up: the biases agree as well, and no weight stands out."""
    ours, theirs, *_ = both_trajectories(page, dataset, iterations=3, sgd=0.003)
    for (weights, *_), (weights_2, *_) in zip(ours, theirs, strict=True):
        for a, b in zip(weights, weights_2, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


MISTAKES = {
    "mean for sum": ('reduction="sum"', 'reduction="sum_over_batch_size"'),
    "momentum": ("beta_1=0,", "beta_1=0.1,"),
    "other second moment": ("beta_2=0.999", "beta_2=0.998"),
    "Keras' epsilon": ("epsilon=1e-8", "epsilon=1e-7"),
    "no annealing": ("1 - i / meta_iterations", "1"),
    "the last task alone": ("np.mean(weights, axis=0)", "weights[-1]"),
    "tasks go on from one another": ("model.set_weights(phi)  #", "pass  #"),
    "moments reset for each task": (
        "model.set_weights(phi)  #",
        "model.set_weights(phi); [v.assign(v * 0) for v in optimizer.variables if len(v.shape)]  #",
    ),
    "the normalization's constant": ("variance + 1e-3", "variance + 1e-5"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_page_would_be_found(dataset, mistake):
    """The bounds above are far below what any of these mistakes makes."""
    right, wrong = MISTAKES[mistake]
    text = PAGE.read_text()
    assert text.count(right) == 1
    page = module_of(text.replace(right, wrong))
    ours, theirs, _, model = both_trajectories(page, dataset, iterations=2)
    of_weights, of_slots = differences(ours, theirs, is_bias_before_normalization(model))
    assert of_weights > 3 * WEIGHTS or of_slots > 3 * SLOTS


def test_the_network_is_the_papers(page, dataset):
    """With ReLU: the same outputs, and the same first gradient."""
    plain, model = page.network(), sr.omniglot_model(5, seed=3)
    plain.set_weights(model.get_weights())
    ((images, labels),) = draw_meta_batch(page, np.random.default_rng(2), dataset)[0][:1]
    np.testing.assert_allclose(plain(images), model(images), atol=1e-5)
    learner = sr.Reptile(model, inner_optimizer=keras.optimizers.SGD(0.01))
    rows = np.arange(len(labels), dtype=np.int32)[None, None]
    tasks = TrainingTasks(MiniBatches(rows, labels.astype(np.int32)[None, None]))
    learner.train_step(images, tasks, meta_step=1.0)
    page.inner_loop(plain, keras.optimizers.SGD(0.01), [(images, labels)])
    for a, b in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


def test_mini_batches_straddle_passes(page):
    images, labels = np.zeros((5, 5, 28, 28, 1)), np.arange(25).reshape(5, 5)
    dealt = page.deal(np.random.default_rng(0), images, labels, 15, 5)
    assert [len(y) for _, y in dealt] == [15] * 5
    order = np.concatenate([y for _, y in dealt])
    passes = order.reshape(3, 25)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.arange(25)[None].repeat(3, 0))
    assert not (passes[0] == passes[1]).all() and not (passes[0] == np.arange(25)).all()


def test_an_evaluation_leaves_everything_as_it_was(page, dataset, monkeypatch):
    monkeypatch.setattr(page, "EVAL_STEPS", 2)
    model, optimizer, rng = page.network(), page.adam(), np.random.default_rng(0)
    page.inner_loop(model, optimizer, draw_meta_batch(page, rng, dataset)[0][:1])
    variables = [*model.variables, *optimizer.variables]
    before = [v.numpy() for v in variables]
    page.evaluate(rng, model, optimizer, dataset, tasks=1)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_it_runs(page, dataset, monkeypatch, capsys):
    monkeypatch.setattr(page, "EVAL_STEPS", 1)
    monkeypatch.setattr(sr, "load_dataset", lambda name: dataset)
    page.main("glyphs", 1)
    assert "% of new characters correct" in capsys.readouterr().out


def test_the_readme_shows_the_algorithm():
    assert document_code("one-page") == one_page_algorithm()
