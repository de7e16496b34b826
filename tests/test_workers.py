"""Several processes on one machine that share the tasks of a run, and what kills them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from supervised_reptile.config import RunOptions, paper_config
from supervised_reptile.errors import ConfigError
from supervised_reptile.runs.following import check_flags
from supervised_reptile.workers import cluster_from_environment

GLYPHS = ["omniglot", "--dataset", "glyphs"]
PROGRAM = [sys.executable, "-m", "supervised_reptile"]
FLAGS = [
    *("--filters", "4", "--shots", "1", "--eval_samples", "70"),
    *("--eval_iters", "3", "--eval_interval", "5", "--checkpoint_interval", "10", "--noprogress"),
]


def run(folder, *flags, workers=None, check=True):
    """Run the Omniglot program in a folder, alone or with workers."""
    launch = [] if workers is None else ["launch", "--workers", str(workers)]
    done = subprocess.run(
        [*PROGRAM, *launch, *GLYPHS, *FLAGS, *flags],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def start(folder, *flags, count=2, others=(), program=GLYPHS):
    """Start workers by ``TF_CONFIG``; ``others`` are the flags of the last one."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        subprocess.Popen(
            [*PROGRAM, *program, *FLAGS, *flags, *(others if number == count - 1 else ())],
            cwd=folder,
            env=os.environ | {"TF_CONFIG": tf_config(addresses, number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def tf_config(addresses, number):
    task = {"type": "worker", "index": number}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def numbers(folder, iteration):
    """Weights and slots of a checkpoint, by name."""
    reader = tf.train.load_checkpoint(str(folder / f"ckpt-{iteration}"))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith(("weights", "inner_optimizer", "iteration"))
    }


def assert_close(one, two, **tolerance):
    assert one.keys() == two.keys() and len(one) > 20
    for name, value in one.items():
        np.testing.assert_allclose(value, two[name], **tolerance, err_msg=name)


def results(folder):
    return json.loads((folder / "results.json").read_text())["accuracy"]


@pytest.mark.slow
def test_two_or_three_workers_compute_what_one_process_does(tmp_path):
    flags = ["--parallel_tasks", "3", "--meta_iters", "20"]
    run(tmp_path, *flags, "--checkpoint", "alone")
    for workers in (2, 3):
        done = run(tmp_path, *flags, "--checkpoint", f"by-{workers}", workers=workers)
        assert done.stdout.count("test accuracy") == 1  # the chief alone prints
        found = numbers(tmp_path / f"by-{workers}", 20)
        assert_close(numbers(tmp_path / "alone", 20), found, rtol=1e-4, atol=1e-6)
        assert results(tmp_path / f"by-{workers}") == results(tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "by-2", "by-3"]


@pytest.mark.slow
def test_one_worker_is_the_plain_program_bit_for_bit(tmp_path):
    run(tmp_path, "--meta_iters", "6", "--checkpoint", "plain")
    (worker,) = start(tmp_path, "--meta_iters", "6", "--checkpoint", "one", count=1)
    assert worker.wait(120) == 0
    assert_close(numbers(tmp_path / "plain", 6), numbers(tmp_path / "one", 6), rtol=0)
    assert results(tmp_path / "plain") == results(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_stops_the_others_and_all_resume(victim, tmp_path):
    flags = ["--parallel_tasks", "3", "--meta_iters", "120"]
    workers = start(tmp_path, *flags, "--checkpoint", "run")
    wait_for(tmp_path / "run", lambda folder: any(folder.glob("ckpt-*0.index")))
    workers[victim].kill()
    killed = time.monotonic()
    survivor = workers[1 - victim]
    _, errors = survivor.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert survivor.returncode == 1
    (line,) = errors.strip().splitlines()
    assert f"worker {1 - victim}: another worker has stopped" in line
    newest = max(int(p.stem[5:]) for p in (tmp_path / "run").glob("ckpt-*.index"))
    assert newest < 120
    # All of them again: the run ends with the bits of an undisturbed one. The number of workers may
    # be another, which affects rounding alone.
    count = 2 + victim
    done = run(tmp_path, *flags, "--checkpoint", "run", workers=count)
    assert f"resuming from meta-iteration {newest:,} of 120" in done.stdout
    assert tf.train.latest_checkpoint(tmp_path / "run").endswith("ckpt-120")
    if count == 2:
        run(tmp_path, *flags, "--checkpoint", "whole", workers=2)
        found, expected = (numbers(tmp_path / name, 120) for name in ("run", "whole"))
        assert_close(expected, found, rtol=0)
        assert results(tmp_path / "run") == results(tmp_path / "whole")


def wait_for(folder, condition, seconds=120):
    until = time.monotonic() + seconds
    while not (folder.is_dir() and condition(folder)):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (["--learning_rate", "0.01"], "--learning_rate: 0.001 and 0.01"),
        (["--seed", "4"], "--seed: 0 and 4"),
    ],
)
def test_other_flags_on_one_worker_are_refused(other, message, tmp_path):
    flags = ["--parallel_tasks", "2", "--meta_iters", "5", "--checkpoint", "run"]
    for number, worker in enumerate(start(tmp_path, *flags, others=other)):
        output, errors = worker.communicate(timeout=120)
        assert worker.returncode == 1, (number, output, errors)
        (line,) = errors.strip().splitlines()
        assert "all workers must have the same flags, data and versions" in line
        assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_other_data_on_one_worker_is_refused(tmp_path):
    """The same name and sizes, but another picture."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(3):
            for image in range(4):
                path = tmp_path / f"a/x/{split}/{split}{number}/{image}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "b/x/train/train1/1.png")
    flags = ["--dataset", "folder:x", "--classes", "3", "--train_shots", "3", "--parallel_tasks"]
    flags += ["2", "--image_size", "8", "--data_dir", "a", "--checkpoint", "run"]
    workers = start(tmp_path, *flags, others=["--data_dir", "b"], program=["miniimagenet"])
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 1
        assert "all workers must have the same" in errors
        assert "data: " in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_finished_run_and_a_shipped_network(tmp_path):
    flags = ["--parallel_tasks", "2", "--meta_iters", "4", "--checkpoint", "run"]
    run(tmp_path, *flags, workers=2)
    again = run(tmp_path, *flags, workers=2)
    assert "already finished" in again.stdout
    alone = run(tmp_path, *flags, "--pretrained")
    shared = run(tmp_path, *flags, "--pretrained", workers=2)
    lines = [line for line in alone.stdout.splitlines() if "accuracy" in line]
    assert len(lines) == 2
    assert lines == [line for line in shared.stdout.splitlines() if "accuracy" in line]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "--parallel_tasks: must be at least the number of workers, 2, .* Received: 1"),
        ({"parallel_tasks": 2, "meta_batch": 1}, "--meta_batch: must be at least .* Received: 1"),
    ],
)
def test_a_task_for_each_worker(flags, message):
    with pytest.raises(ConfigError, match=message):
        check_flags(paper_config("glyphs", **flags), RunOptions(), 2)
    check_flags(paper_config("glyphs", **flags), RunOptions(pretrained=True), 2)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        "3",
        '{"cluster": 3}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "x"}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_a_wrong_tf_config(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match="TF_CONFIG must be JSON like"):
        cluster_from_environment()


def test_the_place_in_a_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    assert cluster_from_environment() is None
    monkeypatch.setenv("TF_CONFIG", tf_config(["a:1"], 0))
    assert cluster_from_environment() is None
    monkeypatch.setenv("TF_CONFIG", tf_config(["a:1", "b:2"], 1))
    found = cluster_from_environment()
    assert (found.addresses, found.number) == (("a:1", "b:2"), 1)
    cluster = {"chief": ["c:1"], "worker": ["a:1", "b:2"]}
    task = {"type": "worker", "index": 1}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    found = cluster_from_environment()
    assert (found.addresses, found.number) == (("c:1", "a:1", "b:2"), 2)


def test_the_place_in_a_slurm_step(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in {
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_STEP_NODELIST": "n[1-2]",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_PROCID": "2",
    }.items():
        monkeypatch.setenv(name, value)
    found = cluster_from_environment()
    assert found.number == 2
    assert found.addresses == ("n1:8888", "n1:8889", "n2:8888", "n2:8889")
