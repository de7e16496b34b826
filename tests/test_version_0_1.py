"""A run that version 0.1 made goes on, is evaluated, and its network loads.

``data/run-0.1`` was written by commit 5ae4ade with

    run_omniglot.py --dataset glyphs --filters 4 --meta_iters 12 --meta_step 0.5
      --meta_step_final 0.5 --meta_batch 2 --eval_interval 4 --eval_samples 5
      --checkpoint_interval 6 --shots 1 --inner_batch 10 --inner_iters 5 --eval_iters 5
      --intra_op_threads 1 --inter_op_threads 1
"""

import csv
import importlib
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.runs.checkpoints import RunDirectory
from supervised_reptile.runs.record import is_record_of

OLD = Path(__file__).with_name("data") / "run-0.1"
run_module = importlib.import_module("supervised_reptile.main")


def saved(directory):
    """Every number of the newest checkpoint of a run of either version but times."""
    reader = tf.train.load_checkpoint(str(RunDirectory(directory).newest))
    names = [n for n in reader.get_variable_to_shape_map() if n.endswith("VARIABLE_VALUE")]
    skipped = ("seconds", "save_counter", "data_set")
    return {n: reader.get_tensor(n) for n in names if not n.startswith(skipped)}


def curve(directory):
    with (directory / "curve.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy, its configuration, and what runs it."""
    monkeypatch.setattr(run_module, "set_threads", lambda *threads: None)
    shutil.copytree(OLD, tmp_path / "run")
    config = Config.from_json((OLD / "config.json").read_text())
    options = {"checkpoint": str(tmp_path / "run"), "progress": False, "inter_op_threads": 1}

    def run(config, **more):
        return run_module.run(config, RunOptions(**options, **more))

    return tmp_path / "run", config, run


def test_it_goes_on_from_its_checkpoint_to_the_same_end_and_beyond(old, capsys):
    directory, config, run = old
    for path in directory.glob("ckpt-12.*"):
        path.unlink()
    (directory / "results.json").unlink()
    accuracies = run(config)
    assert "resuming from meta-iteration 6 of 12" in capsys.readouterr().out
    ours, theirs = saved(directory), saved(OLD)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():  # other threads or another processor round otherwise
        limit = 1e-3 * max(np.abs(theirs[name]).max(), 1e-3)
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=limit, err_msg=name)
    for row, before in zip(curve(directory), curve(OLD), strict=True):
        for name in ("iteration", "meta_step", "inner_loss"):
            assert float(row[name]) == pytest.approx(float(before[name]), rel=1e-3)
    recorded = json.loads((OLD / "results.json").read_text())["accuracy"]
    for split, accuracy in accuracies.items():
        assert accuracy.mean == pytest.approx(recorded[split]["mean"], abs=0.08)  # two of 25
    run(config.replace(meta_iters=14))
    assert saved(directory)["iteration/.ATTRIBUTES/VARIABLE_VALUE"] == 14
    assert [int(row["iteration"]) for row in curve(directory)] == [0, 4, 8, 12]


def test_its_result_is_shown_and_it_is_evaluated_again(old, capsys):
    directory, config, run = old
    assert is_record_of(directory / "results.json", config)
    recorded = json.loads((directory / "results.json").read_text())["accuracy"]
    shown = run(config)
    assert "already finished: 12 of 12 meta-iterations" in capsys.readouterr().out
    assert {split: each.mean for split, each in shown.items()} == {
        split: each["mean"] for split, each in recorded.items()
    }
    again = run(config, pretrained=True)
    output = capsys.readouterr().out
    assert "ckpt-12, after 12 of 12 meta-iterations" in output
    for split, accuracy in again.items():
        assert accuracy.mean == pytest.approx(recorded[split]["mean"], abs=0.08)
    record = json.loads((directory / "results-1shot-5way-non-transductive.json").read_text())
    assert record["trained_on"][0]["environment"]["commit"].startswith("5ae4ade")


def test_its_network_loads_in_keras_with_its_moments(old):
    model = keras.models.load_model(OLD / "model.keras")
    weights = saved(OLD)
    for i, weight in enumerate(model.get_weights()):
        np.testing.assert_array_equal(weight, weights[f"weights/{i}/.ATTRIBUTES/VARIABLE_VALUE"])
    assert int(model.optimizer.iterations) == 12 * 2 * 5
    assert any((v.numpy() > 0).any() for v in model.optimizer.variables if "velocity" in v.path)
