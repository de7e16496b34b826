"""Pre-training: the classifier, what Reptile takes from it, and blocks that stay frozen."""

import csv
import importlib
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import evaluation_tasks, tiny_config, training_tasks, vector_dataset

from supervised_reptile import classifier_start as pretraining
from supervised_reptile.config import Config, RunOptions, paper_config
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import ConfigError, RunError
from supervised_reptile.from_config import learner_from_config, model_from_config
from supervised_reptile.runs.checkpoints import RunDirectory
from supervised_reptile.tasks import random_stream

run_module = importlib.import_module("supervised_reptile.main")
stages = importlib.import_module("supervised_reptile.runs.stages")


def striped_dataset(classes=9, examples=30):
    """Specked images whose class is the place of a stripe: easy to learn, impossible by chance."""
    rng = np.random.default_rng(0)
    images = (rng.random((classes * examples, 28, 28, 1)) < 0.05).astype(np.uint8)
    for i in range(len(images)):
        images[i, 3 * (i // examples) : 3 * (i // examples) + 3] = 1
    ids = np.arange(classes)
    return FewShotDataset(
        name="glyphs",
        images=images,
        class_offsets=np.arange(classes + 1) * examples,
        class_names=tuple(map(str, ids)),
        splits={"train": ids[: classes - 3], "test": ids[classes - 3 :]},
        pixel_scale=1.0,
    )


def make_quick(patch):
    """A few epochs of small mini-batches."""
    patch.setattr(pretraining, "BATCH", 18)
    patch.setattr(pretraining, "MAX_EPOCHS", 5)
    patch.setattr(pretraining, "LEARNING_RATE", 0.005)


@pytest.fixture
def quick(monkeypatch):
    make_quick(monkeypatch)
    return monkeypatch


CONFIG = {"pretrain": True, "filters": 8}


def pretrained(directory, data, **values):
    """Configuration and model after `start_from_classifier`."""
    config = tiny_config(**(CONFIG | values))
    model = model_from_config(config)
    pretraining.start_from_classifier(model, data, config, directory, progress=False)
    return config, model


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Data, the directory of a classifier of it, the configuration and the model that starts."""
    data, directory = striped_dataset(), tmp_path_factory.mktemp("pretraining")
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        return data, directory, *pretrained(directory, data)


def epochs_of(directory):
    with (directory / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_classifier_learns_and_all_but_the_last_layer_is_taken_over(done):
    _, directory, config, model = done
    classifier = keras.models.load_model(directory / "classifier.keras")
    assert classifier.output_shape == (None, 6)  # the training classes, not the tasks' 3
    fresh = model_from_config(config)
    for layer, theirs, new in zip(model.layers, classifier.layers, fresh.layers, strict=True):
        if not layer.weights:
            continue
        source = new if layer is model.layers[-1] else theirs
        for mine, expected in zip(layer.get_weights(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, expected)
    assert np.abs(model.layers[1].get_weights()[0] - fresh.layers[1].get_weights()[0]).max() > 1e-3
    epochs = epochs_of(directory)
    assert [int(e["epoch"]) for e in epochs] == list(range(len(epochs)))
    # Of held-out images; six classes, so chance is 1/6.
    assert max(float(e["val_accuracy"]) for e in epochs) > 0.8
    assert all(float(e["seconds"]) >= 0 for e in epochs)


def validation_loss(model, data, config):
    """By hand; the held-out images must be one mini-batch, of the same statistics therefore."""
    rng = random_stream(config.seed, "pretraining", 0)
    _, (rows, labels) = pretraining.training_and_held_out(data, rng)
    logits = model(data.images[rows].astype(np.float32)).numpy().astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[np.arange(len(rows)), labels]
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - chosen)


@pytest.mark.slow
def test_the_kept_weights_are_of_the_epoch_of_the_lowest_validation_loss(tmp_path, quick):
    """On labels that mean nothing it soon rises."""
    quick.setattr(pretraining, "LEARNING_RATE", 0.02)
    data = vector_dataset(size=28, classes=9, examples=30)
    config, _ = pretrained(tmp_path, data)
    losses = [float(epoch["val_loss"]) for epoch in epochs_of(tmp_path)]
    best = int(np.argmin(losses))
    # It is flat after three epochs that are no better.
    assert best == len(losses) - 1 - pretraining.PATIENCE
    classifier = keras.models.load_model(tmp_path / "classifier.keras")
    assert validation_loss(classifier, data, config) == pytest.approx(losses[best], rel=1e-3)


@pytest.mark.parametrize(
    ("losses", "flat"),
    [
        ([], False),
        ([3.0, 3.0, 3.0], False),  # three epochs to compare with nothing
        ([3.0, 3.0, 3.0, 3.0], True),
        ([3.0, 2.98, 2.975, 2.98], True),  # not by one percent
        ([3.0, 2.98, 2.96, 2.98], False),
        ([3.0, 2.0, 1.0, 1.5, 1.2, 1.1], True),
        ([3.0, 2.0, 1.0, 1.5, 1.2], False),
    ],
)
def test_flat_is_less_than_one_percent_in_three_epochs(losses, flat):
    assert pretraining.is_flat(losses) == flat


def test_every_weight_is_multiplied_by_the_factor_before_each_step(tmp_path, monkeypatch):
    """Against Adam by hand: the first step with Keras' constants is the learning rate long."""
    data = striped_dataset()
    monkeypatch.setattr(pretraining, "BATCH", 1000)  # one step an epoch
    monkeypatch.setattr(pretraining, "MAX_EPOCHS", 1)
    config, model = pretrained(tmp_path, data)
    before = model_from_config(config).get_layer("conv2").get_weights()[0]
    after = model.get_layer("conv2").get_weights()[0]
    step = after - 0.999 * before
    np.testing.assert_allclose(np.median(np.abs(step)), 0.001, rtol=0.01)
    assert np.quantile(np.abs(step), 0.98) < 0.00101
    # Without the factor the weights would have moved by the learning rate and no more.
    assert np.abs(np.abs(after - before) - 0.001).max() > 1e-4


def test_images_are_held_out_of_each_class_by_the_seed():
    data = vector_dataset(classes=12, examples=10, extra=10)
    kept, held_out = pretraining.training_and_held_out(data, np.random.default_rng(1))
    for label, class_id in enumerate(data.splits["train"]):
        mine = [rows[labels == label] for rows, labels in (kept, held_out)]
        first, last = data.class_offsets[class_id : class_id + 2]
        assert sorted(np.concatenate(mine)) == list(range(first, last))
        assert len(mine[1]) == (last - first) // 10
    again = pretraining.training_and_held_out(data, np.random.default_rng(1))
    other = pretraining.training_and_held_out(data, np.random.default_rng(2))
    assert all((a == b).all() for a, b in zip(again[1], held_out, strict=True))
    assert any((a != b).any() for a, b in zip(other[1], held_out, strict=True))


def test_batches_hold_every_image_once_in_the_order_given(monkeypatch):
    monkeypatch.setattr(pretraining, "BATCH", 16)
    data = vector_dataset(size=2)
    order = np.random.default_rng(0).permutation(50)
    rows, labels = np.arange(10, 60), np.arange(50, dtype=np.int32)
    batches = pretraining.ImageBatches(data, rows, labels, order)
    given = [batches[i] for i in range(len(batches))]
    assert [len(y) for _, y in given] == [16, 16, 16, 2]
    np.testing.assert_array_equal(np.concatenate([y for _, y in given]), order)
    for images, y in given:
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images, data.images[10 + y])


def test_a_classifier_is_shared_and_never_one_of_something_else(done, quick):
    data, directory, _, first = done
    before = (directory / "classifier.keras").stat().st_mtime_ns
    _, second = pretrained(directory, data, classes=2, freeze=2)
    for a, b in zip(first.layers[:-1], second.layers[:-1], strict=True):
        for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
            np.testing.assert_array_equal(x, y)
    assert (directory / "classifier.keras").stat().st_mtime_ns == before
    with pytest.raises(RunError, match=r"another classifier \(seed: 0 -> 1\). Use another --chec"):
        pretrained(directory, data, seed=1)


def test_two_processes_do_not_train_one_classifier(tmp_path, quick, done, monkeypatch):
    config = tiny_config(**CONFIG)
    tmp_path.joinpath("p").mkdir()
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX);"
        "print('locked', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "p" / ".lock")], stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        with pytest.raises(RunError, match="another process is training in"):
            pretraining.start_from_classifier(
                model_from_config(config), striped_dataset(), config, tmp_path / "p"
            )
        # What is finished, any number may start from.
        shutil.copytree(done[1], tmp_path / "q")
        monkeypatch.setattr(RunDirectory, "lock", lambda self: pytest.fail("locked"))
        pretrained(tmp_path / "q", done[0])
    finally:
        other.kill()


@pytest.mark.slow
def test_a_stopped_pretraining_ends_with_the_same_bits(tmp_path, quick, done):
    """Weights, slots, best epoch and the order of the images all go on."""
    data, whole, _, model = done
    fit, epochs = keras.Model.fit, []

    def stopping_fit(self, *arguments, **options):
        """Ctrl-C at the end of the third epoch, of which nothing is saved yet."""
        epochs.append(fit(self, *arguments, **options))
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return epochs[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", stopping_fit)
        with pytest.raises(pretraining.RunInterrupted, match="stopped in the pre-training"):
            pretrained(tmp_path, data)
    assert len(epochs_of(tmp_path)) == 2
    assert not (tmp_path / "classifier.keras").exists()
    _, resumed = pretrained(tmp_path, data)
    for a, b in zip(model.layers[:-1], resumed.layers[:-1], strict=True):
        for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
            np.testing.assert_array_equal(x, y)
    known = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss")
    assert [[e[k] for k in known] for e in epochs_of(tmp_path)] == [
        [e[k] for k in known] for e in epochs_of(whole)
    ]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_and_can_be_set_aside(tmp_path, quick):
    data = striped_dataset()
    quick.setattr(pretraining, "MAX_EPOCHS", 1)
    config, _ = pretrained(tmp_path / "p", data)
    (saved,) = (tmp_path / "p").glob("ckpt-1.data*")
    saved.write_bytes(saved.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"cannot read .*ckpt-1"):
        pretrained(tmp_path / "p", data)
    pretraining.start_from_classifier(
        model_from_config(config), data, config, tmp_path / "p", anew=True, progress=False
    )
    assert (tmp_path / "p.previous-1" / "classifier.keras").exists()
    assert (tmp_path / "p" / "classifier.keras").exists()


# -------------------------------------------------------------------------------- frozen blocks


@pytest.mark.parametrize("freeze", [0, 2, 4])
def test_frozen_blocks_stay_and_the_others_move(freeze):
    config = tiny_config(filters=4, freeze=freeze)
    data = vector_dataset(size=28)
    learner = learner_from_config(config, model_from_config(config))
    before = {layer.name: layer.get_weights() for layer in learner.model.layers}
    tasks = training_tasks(np.random.default_rng(0), data, config)
    learner.train_step(data.images, tasks, 1.0)
    for block in range(1, 5):
        for layer in (f"conv{block}", f"norm{block}"):
            after = learner.model.get_layer(layer).get_weights()
            same = all((a == b).all() for a, b in zip(before[layer], after, strict=True))
            assert same == (block <= freeze), layer
    assert (before["logits"][0] != learner.model.get_layer("logits").get_weights()[0]).any()
    # The fast path and the stock model agree on what the frozen network answers.
    tasks = evaluation_tasks(0, "evaluation", data, "test", config.replace(eval_iters=0), range(2))
    ours = learner.predict_tasks(data.images, tasks, transductive=True)
    for i, rows in enumerate(tasks.queries):
        stock = learner.model(data.images[rows].astype(np.float32))
        np.testing.assert_allclose(ours[i], stock, atol=1e-4)


def test_the_direction_of_a_frozen_network_is_that_of_the_others_alone():
    """A frozen weight is a constant: one SGD step moves the rest as without freezing."""
    data, moved = vector_dataset(size=28), {}
    for freeze in (0, 3):
        config = tiny_config(
            **{"filters": 4, "freeze": freeze, "inner_iters": 1, "inner_optimizer": "sgd"},
            learning_rate=0.01,
        )
        learner = learner_from_config(config, model_from_config(config))
        learner.train_step(data.images, training_tasks(np.random.default_rng(0), data, config), 1.0)
        moved[freeze] = learner.model
    for name in ("conv4", "norm4", "logits"):
        pairs = zip(*(moved[f].get_layer(name).get_weights() for f in (0, 3)), strict=True)
        for free, frozen in pairs:
            np.testing.assert_allclose(free, frozen, atol=1e-5)


def test_freeze_is_of_four_blocks():
    with pytest.raises(ConfigError, match="--freeze: must be from 0 to 4"):
        paper_config("omniglot", freeze=5)


def test_older_records_are_of_a_network_with_neither():
    values = paper_config("omniglot").to_dict()
    del values["model"]["pretrain"], values["model"]["freeze"]
    assert Config.from_dict(values) == paper_config("omniglot")


# -------------------------------------------------------------------------------- whole runs


@pytest.mark.slow
def test_a_run_starts_from_its_classifier_once(tmp_path, quick, monkeypatch):
    data = striped_dataset()
    monkeypatch.setattr(stages, "load_dataset", lambda *a, **k: data)
    monkeypatch.setattr(run_module, "set_threads", lambda *threads: None)
    config = tiny_config(**CONFIG, freeze=4)
    options = RunOptions(checkpoint=str(tmp_path / "run"), progress=False)
    accuracies = run_module.run(config, options)
    assert set(accuracies) == {"train", "test"}
    classifier = keras.models.load_model(tmp_path / "run" / "pretraining" / "classifier.keras")
    final = keras.models.load_model(tmp_path / "run" / "model.keras")
    # With all blocks frozen the features are still the classifier's.
    for block in range(1, 5):
        for layer in (f"conv{block}", f"norm{block}"):
            pair = (m.get_layer(layer).get_weights() for m in (final, classifier))
            for a, b in zip(*pair, strict=True):
                np.testing.assert_array_equal(a, b)
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert record["config"]["model"]["pretrain"] and record["config"]["model"]["freeze"] == 4
    # A run that goes on has no use for the classifier.
    monkeypatch.setattr(stages, "start_from_classifier", None)
    assert run_module.run(config, options).keys() == accuracies.keys()
