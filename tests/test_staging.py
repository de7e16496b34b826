"""Only the examples that tasks need are brought to the device, and nothing changes by it."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import dense_model, evaluation_tasks, tiny_config, training_tasks, vector_dataset

from supervised_reptile.fast.staging import Staging
from supervised_reptile.from_config import learner_from_config
from supervised_reptile.tasks import EvaluationTasks, MiniBatches, random_stream

TAILS = [{}, {"algorithm": "fomaml"}, {"algorithm": "fomaml", "foml_tail": 1}]


def drawn(dataset, config):
    return (
        training_tasks(random_stream(0, "training", 0), dataset, config),
        evaluation_tasks(0, "evaluation", dataset, "test", config, range(3)),
    )


@pytest.mark.parametrize("values", TAILS)
def test_the_tasks_show_the_same_images(values):
    dataset, staging = vector_dataset(classes=30), Staging()
    for tasks in drawn(dataset, tiny_config(**values)):
        staged, renumbered = staging.bring(dataset.images, tasks)
        before = [x for x in tf.nest.flatten(tasks) if x is not None]
        after = [x for x in tf.nest.flatten(renumbered) if x is not None]
        # 3 classes: labels are below 3, and seeds are large numbers.
        rows = [x for x in before if 4 <= x.max() < len(dataset.images)]
        assert len(rows) >= 1
        used = np.unique(np.concatenate([x.ravel() for x in rows]))
        assert staged.shape[0] is None
        assert len(staged.numpy()) == len(used) < len(dataset.images)
        for old, new in zip(before, after, strict=True):
            if any(old is each for each in rows):
                assert new.dtype == np.int32
                np.testing.assert_array_equal(staged.numpy()[new], dataset.images[old])
            else:
                np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("values", TAILS)
def test_training_and_evaluation_are_the_same_to_the_bit(values, tmp_path):
    dataset, config = vector_dataset(classes=30), tiny_config(**values)
    np.save(tmp_path / "images.npy", dataset.images)
    outcomes = []
    for examples in (
        dataset.images,
        np.load(tmp_path / "images.npy", mmap_mode="r"),
        tf.Variable(dataset.images, trainable=False),
    ):
        learner = learner_from_config(config, dense_model())
        training, evaluation = drawn(dataset, config)
        losses = [float(learner.train_step(examples, training, 0.5)) for _ in range(3)]
        logits = learner.predict_tasks(examples, evaluation, transductive=True)
        weights = [v.numpy().tobytes() for v in learner.model.trainable_variables]
        outcomes.append((losses, logits.tobytes(), weights))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_examples_of_another_type_or_size_are_brought_as_they_are():
    """One learner is trained on bytes and evaluated on floats: they must not become bytes."""
    staging, rows = Staging(), np.arange(2, dtype=np.int32)[None]
    labels = MiniBatches(rows[None], rows[None])
    tasks = EvaluationTasks(labels, rows, rows)
    for examples in (
        np.array([[1], [2]], np.uint8),
        np.array([[0.25], [0.75]], np.float32),
        np.array([[0.5, 1.5], [2.5, 3.5]], np.float32),
        np.array([[0.125, 1.5], [2.5, 3.5]], np.float32),
    ):
        brought, _ = staging.bring(examples, tasks)
        np.testing.assert_array_equal(brought, examples)
