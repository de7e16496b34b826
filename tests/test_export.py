"""The files for the browser, read back with nothing but NumPy and Keras."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import warm
from helpers import tiny_config, vector_dataset

from supervised_reptile.config import RunOptions
from supervised_reptile.errors import RunError
from supervised_reptile.evaluation import Accuracy
from supervised_reptile.from_config import learner_from_config
from supervised_reptile.models import omniglot_model
from supervised_reptile.runs.record import write_record
from supervised_reptile.runs.stages import train
from supervised_reptile.runs.trainer import Trainer
from supervised_reptile.tools import export

COMMITTED = Path(__file__).resolve().parents[1] / "web" / "public" / "model"
FILTERS = 4


def trained_run(directory, **values):
    """Two meta-iterations of a small network of the paper's shape; returns learner and config."""
    config = tiny_config(
        shots=1, eval_batch=3, eval_iters=5, meta_iters=2, filters=FILTERS, **values
    )
    learner = learner_from_config(config, omniglot_model(3, filters=FILTERS, seed=1))
    options = RunOptions(checkpoint=str(directory), progress=False)
    train(Trainer(learner, vector_dataset(size=28), config, options), options)
    accuracies = {"train": Accuracy(0.5, 0.1, 6), "test": Accuracy(0.4, 0.1, 6)}
    times = {"training_seconds": 1.0, "evaluation_seconds": 1.0}
    write_record(directory / "results.json", config, accuracies, iterations=2, **times)
    return learner, config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    return directory, *trained_run(directory)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "model"
    export.export_for_browser(run[0], out)
    return out


def read(folder):
    """model.json, the weights by name and the second moments, as a reader of the files would."""
    description = json.loads((folder / "model.json").read_text())
    numbers = np.fromfile(folder / "model.bin", "<f4")
    offset = description["adam"]["second_moments_offset"]
    weights, moments = {}, {}
    for tensor in description["tensors"]:
        start, size = tensor["offset"], int(np.prod(tensor["shape"]))
        for into, base in ((weights, 0), (moments, offset)):
            part = numbers[base + start : base + start + size]
            into[tensor["name"]] = part.reshape(tensor["shape"])
    assert len(numbers) == 2 * offset == 2 * sum(w.size for w in weights.values())
    return description, weights, moments


def test_weights_moments_and_step_count_are_those_of_the_learner(run, exported):
    _, learner, config = run
    description, weights, moments = read(exported)
    for variable in learner.model.trainable_variables:
        np.testing.assert_array_equal(weights[variable.path], variable.numpy())
    flat = np.concatenate([m.ravel() for m in moments.values()])
    np.testing.assert_array_equal(flat, learner.inner_optimizer.variables[-1].numpy())
    assert flat.max() > 0
    adam = description["adam"]
    # 2 meta-iterations · 3 tasks · 4 inner steps
    assert adam["iterations"] == 24 == int(learner.inner_optimizer.iterations.numpy())
    assert (adam["beta_2"], adam["epsilon"]) == (0.999, 1e-8)
    assert description["inner_steps"] == config.eval.eval_iters == 5
    assert description["record"]["accuracy"]["test"]["mean"] == 0.4


def slow_logits(description, weights, moments, task):
    """Fine-tune with Keras' own Adam, step by step; one query at a time with the examples."""
    classes = description["classes"]
    model = omniglot_model(classes, filters=weights["conv1/kernel"].shape[-1])
    model.set_weights([weights[v.path] for v in model.trainable_variables])
    constants = description["adam"]
    optimizer = keras.optimizers.Adam(
        constants["learning_rate"], beta_1=0.0, beta_2=0.999, epsilon=constants["epsilon"]
    )
    trained = [v for v in model.trainable_variables if not v.path.endswith("/bias")]
    trained += [v for v in model.trainable_variables if v.path == "logits/bias"]
    optimizer.build(trained)
    optimizer.iterations.assign(constants["iterations"])
    # Behind the step count and the learning rate: momentum and velocity of each variable.
    for variable, slot in zip(trained, optimizer.variables[3::2], strict=True):
        assert slot.path.endswith("velocity")
        slot.assign(moments[variable.path])

    def pixels(text):
        return np.array(list(text), np.float32).reshape(-1, 28, 28, 1)

    examples, labels = pixels(task["examples"]), np.arange(classes)
    for _ in range(description["inner_steps"]):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(examples))
            loss = tf.reduce_sum(losses)
        optimizer.apply(tape.gradient(loss, [v.value for v in trained]), trained)
    return [model(np.concatenate([examples, [q]])).numpy()[-1] for q in pixels(task["queries"])]


def check_reference(folder):
    description, weights, moments = read(folder)
    tasks = json.loads((folder / "reference.json").read_text())["tasks"]
    assert len(tasks) == export.REFERENCE_TASKS == 6
    differences = []
    for task in tasks:
        assert set(task["examples"]) == {"0", "1"}
        assert len(task["examples"]) == len(task["queries"]) == 3 * 28 * 28
        for logits in (task["float32_logits"], slow_logits(description, weights, moments, task)):
            differences.append(np.abs(np.array(task["logits"]) - logits).max())
    # The rounding of float32 may put a ReLU on the other side of its corner in a task or two.
    assert sum(d < 1e-3 for d in differences) >= 8, differences
    assert max(differences) < 0.5


def test_the_reference_is_what_keras_computes_from_the_files(exported):
    check_reference(exported)


def test_the_network_that_the_page_ships():
    description, weights, _ = read(COMMITTED)
    check_reference(COMMITTED)
    assert (COMMITTED / "model.bin").stat().st_size < 200_000
    assert weights["logits/kernel"].shape[1] == description["classes"] == 3
    record = description["record"]
    assert record["config"]["task"]["dataset"] == "omniglot"
    assert not record["config"]["eval"]["transductive"]
    assert record["accuracy"]["test"]["tasks"] >= 1000
    # Chance is a third.
    assert record["accuracy"]["test"]["mean"] > 0.85


def message(directory, **options):
    with pytest.raises(RunError) as error:
        export.export_for_browser(directory, directory / "out", **options)
    assert not (directory / "out").exists()
    return str(error.value)


def test_what_cannot_be_exported_is_told(tmp_path, run):
    assert message(tmp_path) == (
        f"--checkpoint: no results.json in {tmp_path}, so there is no finished run"
    )
    (tmp_path / "results.json").write_text("{}")
    assert message(tmp_path).startswith(f"--record: {tmp_path / 'results.json'} is not the record")
    record = (run[0] / "results.json").read_text()
    (tmp_path / "results.json").write_text(record)
    assert message(tmp_path).startswith(f"--checkpoint: cannot read {tmp_path / 'model.keras'}: ")
    assert message(tmp_path, record="other.json").startswith("--checkpoint: no other.json")
    (tmp_path / "results.json").write_text(record.replace('"freeze": 0', '"freeze": 2'))
    assert message(tmp_path) == (
        "the browser fine-tunes every block. Received: a run with --freeze=2"
    )
    (tmp_path / "results.json").write_text(record.replace('"adam"', '"sgd"'))
    assert "Adam, β1 = 0" in message(tmp_path)
    (tmp_path / "results.json").write_text(record.replace('"glyphs"', '"miniimagenet"'))
    assert "the paper's Omniglot network" in message(tmp_path)


def test_a_file_cut_short_or_without_its_optimizer_is_refused(tmp_path, run):
    (tmp_path / "results.json").write_bytes((run[0] / "results.json").read_bytes())
    path = tmp_path / "model.keras"
    path.write_bytes((run[0] / "model.keras").read_bytes()[:1000])
    assert message(tmp_path).startswith(f"--checkpoint: cannot read {path}: ")
    omniglot_model(3, filters=FILTERS).save(path)  # not compiled
    assert message(tmp_path) == f"--checkpoint: {path} was saved without its optimizer"


@pytest.mark.slow
def test_the_command_line(run, tmp_path):
    command = [sys.executable, "-m", "supervised_reptile", "export"]
    arguments = ["--checkpoint", str(tmp_path), "--out", str(tmp_path / "out")]
    failed = warm.run([*command, *arguments], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith(
        "supervised-reptile export: error: --checkpoint: no results.json in"
    )
    assert failed.stderr.count("\n") == 1
    arguments[1] = str(run[0])
    done = warm.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "out")[0]["format"] == export.FORMAT
