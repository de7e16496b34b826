"""Reproducing a published row: one training, every column, stopped and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import tiny_config, vector_dataset
from PIL import Image

import reproduce
from supervised_reptile import reproduction, run
from supervised_reptile.config import RunOptions
from supervised_reptile.curve import read_curve
from supervised_reptile.published import Column, Row

PROJECT = Path(__file__).resolve().parents[1]
MARKS = "before\n<!-- results -->\n<!-- /results -->\nafter\n"


class TinyRow(Row):
    """A row whose training is that of `tiny_config`."""

    def training(self, seed, meta_iters=None):
        return tiny_config(seed=seed, filters=4, transductive=True, meta_iters=meta_iters or 4)


TINY = TinyRow(
    "tiny",
    "Reptile",
    "glyphs",
    3,
    (
        Column(2, False, 50.0, 1.0, "nowhere"),
        Column(2, True, 60.0, None, "nowhere"),
        Column(3, True, 70.0, None, "nowhere"),
    ),
)


@pytest.fixture
def reproduced(tmp_path, monkeypatch):
    """reproduced(seed=0) -> where its results are."""
    monkeypatch.setattr(run, "load_dataset", lambda *args, **kwargs: vector_dataset(size=28))

    def carry_out(seed=0, eval_samples=5):
        options = RunOptions(checkpoint=str(tmp_path / "runs" / f"seed{seed}"), progress=False)
        training = TINY.training(seed)
        results = tmp_path / "results"
        reproduction.reproduce(TINY, training, options, eval_samples=eval_samples, results=results)
        return results / "tiny" / f"seed{seed}"

    return carry_out


def test_one_training_serves_every_column(reproduced):
    folder = reproduced()
    assert {path.name for path in folder.iterdir()} == {
        "results-2shot-3way-non-transductive.json",
        "results-2shot-3way-transductive.json",
        "results-3shot-3way-transductive.json",
        "config.json",
        "curve.csv",
        "curve.png",
    }
    for path in folder.glob("results-*.json"):
        record = json.loads(path.read_text())
        assert record["iterations"] == 4
        assert record["trained_with"] == TINY.training(0).to_dict()
        assert record["config"]["eval"]["eval_samples"] == 5
    # The columns are those of an evaluation of that kind of task alone.
    config = TINY.evaluation(TINY.training(0), 2, False, 5)
    options = RunOptions(
        checkpoint=str(folder.parents[2] / "runs" / "seed0"), progress=False, pretrained=True
    )
    alone = run.run(config, options)["test"]
    record = json.loads((folder / "results-2shot-3way-non-transductive.json").read_text())
    assert (record["accuracy"]["test"]["mean"], 5) == (alone.mean, alone.tasks)
    with Image.open(folder / "curve.png") as figure:
        assert figure.width > 500 and len(figure.convert("L").getcolors()) > 10


def test_what_was_done_is_not_done_again(reproduced, monkeypatch):
    folder = reproduced()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def never(*args, **kwargs):
        raise AssertionError("evaluated again")

    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate_each_way", never)
        reproduced()
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {n: after[n] for n in after if n != "curve.png"} == {
        n: before[n] for n in before if n != "curve.png"
    }
    reproduced(eval_samples=6)  # another evaluation is another matter
    record = json.loads((folder / "results-3shot-3way-transductive.json").read_text())
    assert record["accuracy"]["test"]["tasks"] == 6


# -------------------------------------------------------------------- the command, as it is


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--row", "omniglot"], "--row: must be one of omniglot-5way"),
        (["--row", "omniglot-5way", "--seeds", "-1"], "--seed: must be at least 0"),
        (["--row", "omniglot-5way", "--meta_iters", "0"], "--meta_iters: must be at least 1"),
        (["--eval_samples", "0"], "--eval_samples and --jobs must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_told_in_one_line(words, message, capsys):
    assert reproduce.main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_wrong_usage_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as exit_info:
        reproduce.main(["--seeds", "one"])
    assert exit_info.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_seeds_side_by_side_are_stopped_and_go_on(prepared_omniglot, tmp_path):
    (tmp_path / "README.md").write_text(MARKS)
    command = [sys.executable, str(PROJECT / "reproduce.py"), "--row", "omniglot-5way"]
    command += ["--seeds", "0,1", "--meta_iters", "150", "--eval_samples", "2", "--noprogress"]
    command += ["--data_dir", str(prepared_omniglot), "--results", str(tmp_path / "results")]
    command += ["--readme", str(tmp_path / "README.md"), "--runs", str(tmp_path / "runs")]
    runs = [tmp_path / "runs" / "omniglot-5way-150" / f"seed{seed}" for seed in (0, 1)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begun(run):
        curve = run / "curve.csv"
        return curve.exists() and curve.read_text().count("\n") > 1

    deadline = time.monotonic() + 240
    while not all(begun(run) for run in runs):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # A third process in one of their folders is refused.
    options = ["--checkpoint", str(runs[0]), "--data_dir", str(prepared_omniglot)]
    flags = ["--shots=1", "--transductive", "--eval_interval=50", "--meta_iters=150"]
    third = subprocess.run(
        [sys.executable, str(PROJECT / "run_omniglot.py"), *flags, *options],
        capture_output=True,
        text=True,
    )
    assert third.returncode == 1
    assert "another process is training in" in third.stderr.splitlines()[-1]
    stopped = process.poll() is None
    if stopped:
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=120)[1]
        if process.returncode:  # unless both had just finished
            assert process.returncode == 128 + signal.SIGTERM, errors
            assert "what was done is saved; the same command goes on" in errors
    assert all(list(run.glob("ckpt-*.index")) for run in runs)

    finished = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert finished.returncode == 0, finished.stderr
    for seed in (0, 1):
        folder = tmp_path / "results" / "omniglot-5way-150" / f"seed{seed}"
        assert len(list(folder.glob("results-*.json"))) == 4
        assert list(read_curve(folder / "curve.csv")["iteration"]) == [0, 50, 100]
    assert "150 (shortened; of 100,000) | seed [0](" in finished.stdout
    readme = (tmp_path / "README.md").read_text()
    assert readme == MARKS.replace("-->\n<!-- /", f"-->\n{finished.stdout}<!-- /")
