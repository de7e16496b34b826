"""The record of a run: complete, readable by any JSON parser, and made on any machine."""

import importlib.metadata
import json
import math
import platform
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_config

from supervised_reptile.config import Config
from supervised_reptile.evaluation import Accuracy
from supervised_reptile.runs import record as results
from supervised_reptile.runs.record import (
    environment,
    is_record_of,
    note_training,
    training_environments,
    write_record,
)


def strict_json(text):
    """What a parser makes of it that has no NaN, such as a browser's."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def record(tmp_path):
    def write(accuracies, **more):
        path = tmp_path / "results.json"
        values = {"iterations": 7, "training_seconds": 1.26, "evaluation_seconds": 0.5}
        write_record(path, tiny_config(seed=3), accuracies, **(values | more))
        return strict_json(path.read_text())

    return write


def test_a_record_holds_accuracies_configuration_and_times(record):
    accuracies = {"train": Accuracy(0.75, 0.02, 100), "test": Accuracy(0.5, 0.03, 100)}
    written = record(accuracies)
    assert written["accuracy"] == {
        "train": {"mean": 0.75, "interval95": 0.02, "tasks": 100},
        "test": {"mean": 0.5, "interval95": 0.03, "tasks": 100},
    }
    assert Config.from_dict(written["config"]) == tiny_config(seed=3)
    assert (written["iterations"], written["training_seconds"]) == (7, 1.3)
    assert written["evaluation_seconds"] == 0.5
    assert "trained_with" not in written


def test_a_record_of_another_training_names_it(record):
    written = record({"test": Accuracy(0.5, 0.1, 10)}, trained_with=tiny_config(shots=5))
    assert Config.from_dict(written["trained_with"]) == tiny_config(shots=5)
    assert Config.from_dict(written["config"]).task.shots == 2


def test_the_interval_of_a_single_task_is_null(record):
    single = Accuracy.of(np.array([0.4]))
    assert math.isnan(single.interval95)
    accuracy = record({"test": single})["accuracy"]["test"]
    assert accuracy == {"mean": 0.4, "interval95": None, "tasks": 1}


def test_parts_of_a_training_are_told_apart_by_what_they_ran_on(tmp_path, monkeypatch, record):
    def run_part(iteration, commit):
        monkeypatch.setattr(results, "environment", lambda: {"commit": commit})
        note_training(tmp_path, iteration)

    assert training_environments(tmp_path) == []
    for iteration, commit in ((0, "a"), (100, "a"), (200, "b"), (300, "c")):
        run_part(iteration, commit)
    found = training_environments(tmp_path)
    assert [(p["from_iteration"], p["environment"]["commit"]) for p in found] == [
        (0, "a"),
        (200, "b"),
        (300, "c"),
    ]
    run_part(250, "a")  # from an older checkpoint: what ran from 300 on is lost
    assert [p["from_iteration"] for p in training_environments(tmp_path)] == [0, 200, 250]
    written = record({"test": Accuracy(0.5, 0.1, 10)}, trained_on=training_environments(tmp_path))
    assert written["trained_on"] == training_environments(tmp_path)
    assert "trained_on" not in record({"test": Accuracy(0.5, 0.1, 10)})


def test_the_environment_says_what_ran():
    found = environment()
    assert strict_json(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    assert found["versions"]["keras"] == keras.__version__
    assert tf.__version__ in (
        found["versions"].get("tensorflow"),
        found["versions"].get("tensorflow-cpu"),
    )
    assert found["versions"]["numpy"] == np.__version__
    assert found["cores"] >= 1
    assert found["processor"]


def test_a_checkout_that_is_not_installed_gets_its_record_too(monkeypatch, record):
    # The record is written after hours of training: nothing here may fail then.
    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    def no_git(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    monkeypatch.setattr(results.subprocess, "run", no_git)
    monkeypatch.setattr(results, "_COMMIT", results._commit())
    written = record({"test": Accuracy(0.5, 0.1, 10)})
    assert written["environment"]["versions"] == {}
    assert written["environment"]["commit"] is None


def test_the_commit_is_that_of_the_code_at_its_start(monkeypatch, tmp_path, record):
    def git(*words):
        words = ["git", "-c", "user.name=a", "-c", "user.email=b", *words]
        return subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True)

    git("init")
    (tmp_path / "their.py").write_text("")
    git("add", "their.py")
    git("commit", "-m", "theirs")
    (tmp_path / "results.py").write_text("")
    monkeypatch.setattr(results, "__file__", str(tmp_path / "results.py"))
    assert results._commit() is None  # installed below another project
    git("add", "results.py")
    git("commit", "-m", "ours")
    assert results._commit() == git("describe", "--always", "--abbrev=12").stdout.strip()
    (tmp_path / "results.py").write_text("changed")
    assert results._commit().endswith("-dirty")
    # What is committed while a run goes on has no part in it.
    monkeypatch.setattr(results, "_commit", lambda: "later")
    written = record({"test": Accuracy(0.5, 0.1, 10)})
    assert written["environment"]["commit"] == results._COMMIT != "later"


def test_a_record_counts_if_it_is_whole_and_of_a_finished_training(tmp_path):
    config, path = tiny_config(), tmp_path / "results.json"
    assert not is_record_of(path, config)
    facts = {"config": config.to_dict(), "iterations": config.meta.meta_iters}
    path.write_text(json.dumps(facts))
    assert is_record_of(path, config)
    assert not is_record_of(path, config.replace(eval_samples=77))
    path.write_text(json.dumps(facts | {"iterations": config.meta.meta_iters - 1}))
    assert not is_record_of(path, config)
    for damaged in (json.dumps(facts)[:-9], "{}", '{"config": {}}'):
        path.write_text(damaged)
        assert not is_record_of(path, config)
