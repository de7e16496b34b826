"""Accuracy: by hand, against statistics known in closed form, and with learners of known skill."""

import math

import numpy as np
import pytest
import tensorflow as tf
from helpers import dense_model, evaluation_tasks, tiny_config, vector_dataset
from scipy import stats

from supervised_reptile.errors import NotFiniteError
from supervised_reptile.evaluation import Accuracy, evaluate, evaluate_each_way, task_accuracies
from supervised_reptile.from_config import evaluation_spec, learner_from_config
from supervised_reptile.models import omniglot_model
from supervised_reptile.tasks import TaskSpec
from supervised_reptile.tasks import evaluation_tasks as drawn_tasks


def test_task_accuracies_by_hand():
    logits = np.array(
        [
            [[5, 9, 0], [4, 8, 1], [3, 7, 2]],  # says 1, 1, 1: one of three is right
            [[1, 0, 0], [0, 1, 0], [0, 0, 1]],  # says 0, 1, 2: all right
            [[0, 0, 1], [1, 0, 0], [0, 1, 0]],  # says 2, 0, 1: none right
        ],
        np.float32,
    )
    np.testing.assert_allclose(task_accuracies(logits), [1 / 3, 1, 0])
    # The trap: over the other axis the first task would have two of three right.
    over_queries = (np.argmax(logits, axis=1) == np.arange(3)).mean(axis=-1)
    np.testing.assert_allclose(over_queries, [2 / 3, 1, 0])


def test_accuracy_by_hand():
    accuracy = Accuracy.of(np.array([1.0, 0.5, 0.0, 0.5]))
    # Variance (¼ + 0 + ¼ + 0)/3 = 1/6; 1.959964 · √(1/6) / √4.
    assert accuracy.mean == 0.5
    assert accuracy.interval95 == pytest.approx(0.4000761, abs=1e-6)
    assert accuracy.tasks == 4
    assert str(accuracy) == "50.00 % ± 40.01 (4 tasks)"


def test_interval_is_the_normal_one_of_the_standard_error():
    accuracies = np.random.default_rng(0).binomial(5, 0.7, 200) / 5
    ours = Accuracy.of(accuracies)
    low, high = stats.norm.interval(0.95, np.mean(accuracies), stats.sem(accuracies))
    assert ours.mean - ours.interval95 == pytest.approx(low, abs=1e-6)
    assert ours.mean + ours.interval95 == pytest.approx(high, abs=1e-6)


def test_interval_covers_the_truth_95_times_in_100():
    rng, repeats = np.random.default_rng(1), 2000
    found = [Accuracy.of(rng.binomial(5, 0.7, 400) / 5) for _ in range(repeats)]
    covered = np.mean([abs(a.mean - 0.7) <= a.interval95 for a in found])
    assert abs(covered - 0.95) < 6 * math.sqrt(0.95 * 0.05 / repeats)


def test_one_task_has_no_interval():
    accuracy = Accuracy.of(np.array([0.6]))
    assert (accuracy.mean, accuracy.tasks) == (0.6, 1)
    assert math.isnan(accuracy.interval95)


class Stub:
    """A learner whose logits are a function of the task's queries, and who keeps what it saw."""

    workers = None

    def __init__(self, logits):
        self._logits = logits
        self.tasks, self.sizes, self.transductive = [], [], set()

    def predict_tasks_each_way(self, examples, tasks, transductive):
        self.tasks += [tuple(row) for row in np.hstack([tasks.support, tasks.queries]).tolist()]
        self.sizes.append(len(tasks.queries))
        self.transductive.update(transductive)
        return np.stack([[self._logits(queries) for queries in tasks.queries]] * len(transductive))


def perfect(queries):
    return np.eye(len(queries))


def constant(queries):
    return np.tile([0.1, 0.7, 0.2], (len(queries), 1))


def chance(queries):
    """Random, but always the same for the same task."""
    return np.random.default_rng(queries.tolist()).random((len(queries), len(queries)))


def evaluated(learner, split="test", tasks_per_call=4, **overrides):
    dataset = vector_dataset(size=1)
    config = tiny_config(**overrides)
    return evaluate(
        learner,
        dataset,
        split,
        evaluation_spec(config),
        transductive=config.eval.transductive,
        tasks=config.eval.eval_samples,
        seed=config.seed,
        examples=tf.constant(dataset.images),
        tasks_per_call=tasks_per_call,
        progress=False,
    )


def test_a_perfect_learner_has_100_percent():
    accuracy = evaluated(Stub(perfect), eval_samples=7)
    assert accuracy == Accuracy(1.0, 0.0, 7)


def test_a_learner_that_always_gives_one_label_has_exactly_1_in_n():
    accuracy = evaluated(Stub(constant), eval_samples=7)
    assert accuracy.mean == pytest.approx(1 / 3, abs=1e-15)
    assert accuracy.interval95 == pytest.approx(0, abs=1e-15)


def test_a_random_learner_has_about_1_in_n():
    accuracy = evaluated(Stub(chance), tasks_per_call=500, eval_samples=2000)
    spread = math.sqrt((1 / 3) * (2 / 3) / 3)  # of a task: 3 predictions, right 1 time in 3
    assert abs(accuracy.mean - 1 / 3) < 6 * spread / math.sqrt(2000)
    assert accuracy.interval95 == pytest.approx(1.96 * spread / math.sqrt(2000), rel=0.1)


@pytest.mark.parametrize("tasks_per_call", [1, 3, 7, 100])
def test_tasks_per_call_does_not_matter(tasks_per_call):
    learner, reference = Stub(chance), Stub(chance)
    accuracy = evaluated(learner, tasks_per_call=tasks_per_call, eval_samples=7)
    assert accuracy == evaluated(reference, tasks_per_call=4, eval_samples=7)
    assert learner.tasks == reference.tasks
    # Exactly so many tasks, all of them different, in calls of that size but for the last.
    assert sum(learner.sizes) == len(set(learner.tasks)) == accuracy.tasks == 7
    assert set(learner.sizes[:-1]) <= {tasks_per_call}


def test_tasks_are_those_of_the_seed_and_the_split():
    def tasks(**overrides):
        learner = Stub(chance)
        evaluated(learner, **overrides)
        return learner.tasks

    base = tasks(seed=3)
    assert tasks(seed=3) == base
    assert set(tasks(seed=4)).isdisjoint(base)
    # Classes 0–7 train and 8–11 test, of 8 images each.
    assert min(map(min, base)) >= 8 * 8
    assert max(map(max, tasks(seed=3, split="train"))) < 8 * 8
    # Fewer samples are the first ones, so that a short evaluation is part of the long one.
    assert tasks(seed=3, eval_samples=2) == base[:2]


@pytest.mark.parametrize("transductive", [True, False])
def test_the_mode_reaches_the_learner(transductive):
    learner = Stub(perfect)
    evaluated(learner, transductive=transductive)
    assert learner.transductive == {transductive}


def test_a_real_learner_gives_the_same_accuracy_in_any_grouping_and_again():
    config = tiny_config(learning_rate=0.05)
    dataset, spec = vector_dataset(), evaluation_spec(config)
    rest = {"examples": tf.constant(dataset.images), "tasks": 11, "progress": False}
    learner = learner_from_config(config, dense_model())
    found = [
        evaluate(learner, dataset, "train", spec, **rest, tasks_per_call=size)
        for size in (11, 4, 11)
    ]
    assert found[0] == found[1] == found[2]
    assert 0 < found[0].mean < 1


def test_both_settings_from_one_fine_tuning_are_what_each_gives_alone():
    config = tiny_config(learning_rate=0.05)
    dataset = vector_dataset(size=28)
    examples = tf.constant(dataset.images)
    learner = learner_from_config(config, omniglot_model(3, filters=4, seed=1))

    spec, rest = evaluation_spec(config), {"tasks": 9, "examples": examples, "progress": False}

    def alone(transductive):
        return evaluate(learner, dataset, "train", spec, transductive=transductive, **rest)

    both = evaluate_each_way(learner, dataset, "train", spec, (False, True), **rest)
    assert [each.accuracy for each in both] == [alone(False), alone(True)]
    tasks = evaluation_tasks(3, "evaluation", dataset, "train", config, range(4))
    logits = learner.predict_tasks_each_way(examples, tasks, (False, True))
    for each, transductive in zip(logits, (False, True), strict=True):
        np.testing.assert_array_equal(
            each, learner.predict_tasks(examples, tasks, transductive=transductive)
        )
    assert np.abs(logits[0] - logits[1]).max() > 1e-3  # batch statistics tell the two apart


def test_the_progress_bar_can_be_off(capsys):
    evaluated(Stub(perfect))
    assert capsys.readouterr() == ("", "")


def test_a_task_that_is_not_finite_is_counted_and_never_a_plain_number():
    """The argmax of NaN is 0: it would be right by chance."""
    logits = np.tile(10.0 * np.eye(3), (4, 1, 1))
    for task, value in ((1, np.nan), (2, np.inf)):
        logits[task, 2, 1] = value
    accuracies = task_accuracies(logits)
    np.testing.assert_array_equal(accuracies, [1, np.nan, np.nan, 1])
    found = Accuracy.of(accuracies)
    assert (found.mean, found.tasks, found.not_finite) == (0.5, 4, 2)
    assert str(found).endswith("(4 tasks, 2 of them not finite and counted as wrong)")


@pytest.mark.parametrize("where", ["weights", "examples", "nowhere"])
def test_where_it_became_not_finite_is_named(where):
    config, dataset = tiny_config(), vector_dataset(size=3)
    learner = learner_from_config(config, dense_model(), lanes=1)
    examples = dataset.images.astype(np.float32)
    if where == "weights":
        kernel = learner.model.trainable_variables[0]
        kernel.assign(kernel.numpy() * np.nan)
    elif where == "examples":
        examples[:] = np.nan
    else:
        learner.inner_optimizer.learning_rate = 1e38
    words = {
        "weights": "the trained state: variable .*kernel must be finite. Received: 63 of 63",
        "examples": "the examples must be finite",
        "nowhere": "predictions of all 6 test tasks became infinite or not a number in 3 steps",
    }[where]
    with pytest.raises(NotFiniteError, match=words):
        evaluate(learner, dataset, "test", evaluation_spec(config), tasks=6, examples=examples)


def test_several_queries_per_class():
    dataset = vector_dataset(examples=8)
    spec = TaskSpec(classes=3, shots=2, batch=4, steps=1, queries=3)
    tasks = drawn_tasks(0, "evaluation", dataset, "test", spec, range(4))
    assert tasks.queries.shape == (4, 9)
    owners = np.searchsorted(dataset.class_offsets, tasks.queries, side="right").reshape(4, 3, 3)
    support = np.searchsorted(dataset.class_offsets, tasks.support, side="right").reshape(4, 3, 2)
    assert (owners == owners[..., :1]).all() and (owners[..., :2] == support).all()
    for drawn in np.concatenate([tasks.support, tasks.queries], axis=1):
        assert len(set(drawn)) == 15
    logits = np.zeros((1, 9, 3))
    logits[0, :, 1] = 1.0  # always class 1
    np.testing.assert_allclose(task_accuracies(logits, queries=3), [1 / 3])
    logits[0, 6:, 2] = 2.0
    np.testing.assert_allclose(task_accuracies(logits, queries=3), [2 / 3])
