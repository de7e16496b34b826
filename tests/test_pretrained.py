"""Networks that come with the package: complete, as their cards say, and ready for fine-tuning."""

import dataclasses
import json
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import warm
from helpers import evaluation_tasks, tiny_config, training_tasks, vector_dataset

from supervised_reptile import main as run
from supervised_reptile import pretrained
from supervised_reptile.config import Config, RunOptions
from supervised_reptile.datasets.omniglot_contents import FINGERPRINT
from supervised_reptile.errors import RunError
from supervised_reptile.from_config import learner_from_config
from supervised_reptile.models import omniglot_model
from supervised_reptile.pretrained import load_pretrained, model_facts, pretrained_names, ship
from supervised_reptile.reproduction.verify import verify
from supervised_reptile.runs import stages
from supervised_reptile.tasks import random_stream
from supervised_reptile.tools import example_task, fetch

NAMES = pretrained_names()


@pytest.fixture(scope="module")
def trained():
    """A learner after a few meta-iterations, with its configuration and data."""
    config, dataset = tiny_config(eval_iters=6), vector_dataset(size=28)
    learner = learner_from_config(config, omniglot_model(3, filters=8, seed=1))
    examples = tf.Variable(dataset.images)
    for iteration in range(4):
        tasks = training_tasks(random_stream(0, "training", iteration), dataset, config)
        learner.train_step(examples, tasks, 1.0)
    return learner, config, dataset, examples


def test_a_saved_model_fine_tunes_in_plain_keras_as_the_learner_does(trained, tmp_path):
    learner, config, dataset, examples = trained
    tasks = evaluation_tasks(0, "evaluation", dataset, "test", config, range(3))
    expected = learner.predict_tasks(examples, tasks, transductive=True)
    learner.compiled_model().save(tmp_path / "model.keras")
    images = dataset.images.astype(np.float32)
    model = keras.models.load_model(tmp_path / "model.keras")
    variables = [*model.variables, *model.optimizer.variables]
    start = [v.numpy() for v in variables]

    def fine_tuned(task, forget):
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        if forget:
            for slot in model.optimizer.variables[2:]:
                slot.assign(np.zeros(slot.shape))
        for rows, labels in zip(tasks.steps.indices[task], tasks.steps.labels[task], strict=True):
            model.train_on_batch(images[rows], labels)
        return model(images[tasks.queries[task]]).numpy()

    for task in range(3):
        np.testing.assert_allclose(fine_tuned(task, False), expected[task], atol=1e-4)
        assert np.abs(fine_tuned(task, True) - expected[task]).max() > 1e-2


def test_a_learner_starts_from_a_saved_model_bit_for_bit(trained, tmp_path):
    learner, config, dataset, examples = trained
    learner.compiled_model().save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    again = learner_from_config(config, model)
    again.take_optimizer_state(model.optimizer)
    tasks = evaluation_tasks(0, "evaluation", dataset, "test", config, range(3))
    np.testing.assert_array_equal(
        again.predict_tasks(examples, tasks, transductive=False),
        learner.predict_tasks(examples, tasks, transductive=False),
    )


# ------------------------------------------------------------------------ shipping and using


@pytest.fixture
def finished_run(tmp_path, monkeypatch):
    """A run that was trained and evaluated for one kind of task, and where it was shipped."""
    monkeypatch.setattr(stages, "load_dataset", lambda *args, **kwargs: vector_dataset(size=28))
    config = tiny_config(transductive=True, filters=4)
    folder, shipped = tmp_path / "run", tmp_path / "shipped"
    options = RunOptions(checkpoint=str(folder), progress=False)

    run.run(config, options)
    run.run(config, dataclasses.replace(options, pretrained=True))
    shipped.mkdir()
    ship(folder, "tiny", shipped)
    monkeypatch.setattr(pretrained, "FOLDER", shipped)
    return config, folder


def test_a_shipped_network_is_evaluated_as_the_run_was(finished_run, tmp_path, monkeypatch, capsys):
    config, folder = finished_run
    monkeypatch.chdir(tmp_path)
    options = RunOptions(checkpoint="tiny", progress=False, pretrained=True)
    run.run(config, options)
    names = {"iterations", "training_seconds", "accuracy", "config", "trained_with"}
    theirs = json.loads((folder / "results-2shot-3way-transductive.json").read_text())
    records = tmp_path / "tiny-evaluations"
    ours = json.loads((records / "results-2shot-3way-transductive.json").read_text())
    assert {n: ours[n] for n in names} == {n: theirs[n] for n in names}
    output = capsys.readouterr().out
    assert "evaluating tiny, which comes with the package, after 4 of 4 meta-iterations" in output
    assert not (tmp_path / "tiny").exists()
    run.run(config, options)  # and again, now that the folder is there


def test_a_folder_that_is_only_called_like_a_shipped_network_is_not_it(finished_run, tmp_path):
    # Such as runs/omniglot-5way, which holds the runs of reproduce.py: a seed was forgotten.
    options = RunOptions(checkpoint=str(tmp_path / "tiny"), progress=False, pretrained=True)
    with pytest.raises(RunError, match="no checkpoint in"):
        run.run(finished_run[0], options)
    assert not list(tmp_path.glob("tiny/results*"))


def test_a_shipped_network_is_not_evaluated_on_what_it_may_have_seen(
    finished_run, tmp_path, monkeypatch
):
    config, _ = finished_run
    monkeypatch.chdir(tmp_path)
    options = RunOptions(checkpoint="tiny", progress=False, pretrained=True)
    with pytest.raises(RunError, match=r"network tiny was trained with --seed=0 \(received 5\)"):
        run.run(config.replace(seed=5), options)


def test_a_checkpoint_of_ones_own_comes_before_a_shipped_network(finished_run, tmp_path, capsys):
    config, folder = finished_run
    folder.rename(tmp_path / "tiny")
    options = RunOptions(checkpoint=str(tmp_path / "tiny"), progress=False, pretrained=True)
    run.run(config, options)
    assert "comes with the package" not in capsys.readouterr().out


def test_a_name_that_is_a_folder_too_is_refused_with_both_ways_out(
    finished_run, tmp_path, monkeypatch, capsys
):
    config, folder = finished_run
    folder.rename(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)

    def evaluate(checkpoint):
        run.run(config, RunOptions(checkpoint=checkpoint, progress=False, pretrained=True))
        return capsys.readouterr().out

    monkeypatch.setattr(stages, "load_dataset", None)  # it is refused before any data are read
    with pytest.raises(RunError) as caught:
        evaluate("tiny")
    assert "--checkpoint ./tiny for the folder" in str(caught.value)
    assert "--checkpoint package:tiny for the network" in str(caught.value)
    monkeypatch.setattr(stages, "load_dataset", lambda *args, **kwargs: vector_dataset(size=28))
    assert "evaluating tiny/ckpt-4, after 4 of 4 meta-iterations" in evaluate("./tiny")
    assert "evaluating tiny, which comes with the package" in evaluate("package:tiny")


@pytest.mark.parametrize("checkpoint", ["tiny-7shot", "package:tony", "nothing/here"])
def test_what_there_is_is_listed_on_a_miss_before_any_data_are_read(
    finished_run, monkeypatch, tmp_path, checkpoint
):
    monkeypatch.setattr(stages, "load_dataset", None)
    monkeypatch.chdir(tmp_path)
    options = RunOptions(checkpoint=checkpoint, progress=False, pretrained=True)
    with pytest.raises(RunError, match=r"tiny-2shot|one of: tiny|package: tiny"):
        run.run(finished_run[0], options)
    assert not (tmp_path / "nothing").exists()


def test_a_name_may_end_in_the_shots_it_was_evaluated_with(finished_run):
    two = load_pretrained("tiny-2shot")
    assert two.output_shape == (None, 3)
    assert int(two.optimizer.iterations) == 4 * 3 * 4  # meta-iterations, tasks, steps
    for a, b in zip(two.get_weights(), load_pretrained("tiny").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"one of: tiny-2shot\. Received: 'tiny-5shot'"):
        load_pretrained("tiny-5shot")


def test_a_network_trained_for_some_shots_is_found_by_them_only(finished_run, tmp_path):
    _, folder = finished_run
    ship(folder, "other-1shot", tmp_path / "shipped")
    assert model_facts("other-1shot")["name"] == "other-1shot"
    with pytest.raises(ValueError, match="Received: 'other-5shot'"):
        model_facts("other-5shot")


def test_an_unknown_name_is_told_with_those_there_are(finished_run):
    with pytest.raises(ValueError, match=r"name must be one of: tiny\. Received: 'omniglot'"):
        load_pretrained("omniglot")


def test_a_run_that_is_not_finished_or_not_evaluated_is_not_shipped(finished_run, tmp_path):
    _, folder = finished_run
    path = folder / "results-2shot-3way-transductive.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"iterations": 2}))
    with pytest.raises(ValueError, match=r"must be finished. Received: 2 of 4"):
        ship(folder, "other", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="must hold a record of an evaluation"):
        ship(folder, "other", tmp_path)
    assert not list(tmp_path.glob("other*"))


# ------------------------------------------------------------------- those that are shipped


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_the_facts_say(name):
    facts = model_facts(name)
    assert (pretrained.FOLDER / f"{name}.md").read_text() == pretrained.model_card(facts)
    assert facts["iterations"] == Config.from_dict(facts["training"]).meta.meta_iters
    for evaluation in facts["evaluations"]:
        assert set(evaluation["accuracy"]) >= {"train", "test"}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_network_is_stock_keras_with_its_optimizer(name, tmp_path):
    """Read in a process that cannot import this package."""
    code = f"""
import sys
sys.modules["supervised_reptile"] = None
import keras, numpy as np
model = keras.models.load_model({str(pretrained.FOLDER / f"{name}.keras")!r})
moments = [v.numpy() for v in model.optimizer.variables if v.name.endswith("velocity")]
x = np.random.default_rng(0).random((5, *model.input_shape[1:]), np.float32)
assert np.abs(model.predict(x, verbose=0) - model(x, training=False)).max() < 1e-4
print(int(model.optimizer.iterations), sum((m > 0).sum() for m in moments))
"""
    result = warm.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    steps, positive = map(int, result.stdout.split())
    config = Config.from_dict(model_facts(name)["training"])
    assert steps == config.meta.meta_iters * config.meta.meta_batch * config.inner.inner_iters
    assert (positive > 0) == (config.inner.inner_optimizer != "sgd")


@pytest.mark.parametrize("name", NAMES)
def test_the_facts_name_the_training_data(name):
    facts = model_facts(name)
    if facts["training"]["task"]["dataset"] == "omniglot":
        assert facts["data"]["fingerprint"] == FINGERPRINT
    assert re.fullmatch("[0-9a-f]{16}", facts["data"]["fingerprint"])
    assert facts["data"]["description"].startswith(facts["training"]["task"]["dataset"])
    if facts["training"]["task"]["dataset"].startswith("folder:"):
        size = facts["training"]["model"]["image_size"]
        assert f" {size}x{size} " in facts["data"]["description"]


@pytest.mark.slow
def test_the_network_of_photographs_knows_its_data(tiny_imagenet, tmp_path, monkeypatch, capsys):
    """It is evaluated on them, and other data would be refused."""
    name, data_dir = "tiny-imagenet-5way-5000", tmp_path / "data"
    size = model_facts(name)["training"]["model"]["image_size"]
    words = (f"--from={tiny_imagenet}", f"--data_dir={data_dir}", f"--image_size={size}")
    with pytest.raises(SystemExit) as stop:
        fetch.main(["fetch", "folder", *words])
    assert not stop.value.code
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        example_task.main(["example", f"--checkpoint={name}", f"--data_dir={data_dir}"])
    assert not stop.value.code
    assert f"{name}-evaluations/example-task-test-0.png: accuracy" in capsys.readouterr().out
    verify(name, tasks=3, data_dir=str(data_dir), progress=False)
