"""Reproducing a published row: one training, every column, stopped and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import exit_code, tiny_config, vector_dataset
from PIL import Image

from supervised_reptile import main as run
from supervised_reptile import pretrained
from supervised_reptile.config import RunOptions
from supervised_reptile.errors import RunError
from supervised_reptile.pretrained import ship
from supervised_reptile.reproduction import program, published, verify
from supervised_reptile.reproduction import row as reproduction
from supervised_reptile.reproduction.published import Cell, Row
from supervised_reptile.reproduction.report import headline_table
from supervised_reptile.runs import stages
from supervised_reptile.runs.checkpoints import RunDirectory
from supervised_reptile.runs.curve_figure import learning_curve_figure
from supervised_reptile.runs.learning_curve import read_curve

PROJECT = Path(__file__).resolve().parents[1]
MARKS = "before\n<!-- results -->\n<!-- /results -->\nafter\n"
WITHOUT_ROWS = MARKS.replace("-->\n<!-- /", f"-->\n{headline_table([])}<!-- /")


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
        Cell(2, False, 50.0, 1.0, "nowhere"),
        Cell(2, True, 60.0, None, "nowhere"),
        Cell(3, True, 70.0, None, "nowhere"),
    ),
)


@pytest.fixture
def reproduced(tmp_path, monkeypatch):
    """reproduced() -> where its results are."""
    monkeypatch.setattr(stages, "load_dataset", lambda *args, **kwargs: vector_dataset(size=28))

    def carry_out(seed=0, eval_samples=5, checkpoint=None, results="results", **options):
        checkpoint = checkpoint or str(tmp_path / "runs" / f"seed{seed}")
        options = RunOptions(checkpoint=checkpoint, progress=False, **options)
        training = TINY.training(seed)
        results = tmp_path / results
        reproduction.reproduce(TINY, training, options, eval_samples=eval_samples, results=results)
        return results / "runs" / "tiny" / f"seed{seed}"

    return carry_out


def test_one_training_serves_every_column(reproduced):
    folder = reproduced()
    assert {path.name for path in folder.iterdir()} == {
        *("results-2shot-3way-non-transductive.json", "results-2shot-3way-non-transductive.npz"),
        *("results-2shot-3way-transductive.json", "results-2shot-3way-transductive.npz"),
        *("results-3shot-3way-transductive.json", "results-3shot-3way-transductive.npz"),
        *("config.json", "data.json", "curve.csv", "curve.png"),
    }
    for path in folder.glob("results-*.json"):
        record = json.loads(path.read_text())
        assert record["iterations"] == 4
        assert record["trained_with"] == TINY.training(0).to_dict()
        assert record["config"]["eval"]["eval_samples"] == 5
    # The columns are those of an evaluation of that kind of task alone.
    config = TINY.evaluation(TINY.training(0), 2, False, 5)
    options = RunOptions(
        checkpoint=str(folder.parents[3] / "runs" / "seed0"), progress=False, pretrained=True
    )
    alone = run.run(config, options)["test"]
    record = json.loads((folder / "results-2shot-3way-non-transductive.json").read_text())
    assert (record["accuracy"]["test"]["mean"], 5) == (alone.mean, alone.tasks)
    with Image.open(folder / "curve.png") as figure:
        assert figure.width > 500


@pytest.mark.parametrize("points", [8, 40, 100, 300])
def test_the_curve_of_a_short_run_is_drawn_too(tmp_path, points):
    rising = np.linspace(0, 1, points)
    drawn = []
    for name, test in (("rising.png", rising), ("falling.png", rising[::-1])):
        curve = {"iteration": 50.0 * np.arange(points), "test": test}
        learning_curve_figure(
            tmp_path / name, {"seed 0": curve}, splits=["test"], window=100, title="t"
        )
        with Image.open(tmp_path / name) as figure:
            drawn.append(np.asarray(figure.convert("RGB")).astype(int))
    # Text and axes are the same; the line is not.
    assert (np.abs(drawn[0] - drawn[1]).sum(axis=-1) > 100).sum() > 200


@pytest.mark.slow
def test_what_was_done_is_not_done_again(reproduced, monkeypatch):
    folder = reproduced()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def never(*args, **kwargs):
        raise AssertionError("evaluated again")

    with monkeypatch.context() as patch:
        patch.setattr(stages, "evaluate_each_way", never)
        reproduced()
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {n: after[n] for n in after if n != "curve.png"} == {
        n: before[n] for n in before if n != "curve.png"
    }
    reproduced(eval_samples=6)  # another evaluation is another matter
    record = json.loads((folder / "results-3shot-3way-transductive.json").read_text())
    assert record["accuracy"]["test"]["tasks"] == 6


def test_a_network_of_the_package_gives_the_records_of_its_training(
    reproduced, tmp_path, monkeypatch
):
    trained = reproduced()
    ship(tmp_path / "runs" / "seed0", "tiny", tmp_path)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert verify.network_of(TINY, 0) == "tiny"
    with pytest.raises(RunError, match=r"--pretrained: no network .* is row tiny with seed 1"):
        verify.network_of(TINY, 1)
    again = reproduced(checkpoint="package:tiny", results="again", pretrained=True)
    records = sorted(path.name for path in trained.glob("results-*"))
    assert sorted(path.name for path in again.iterdir()) == records
    for name in records:
        if name.endswith(".npz"):
            with np.load(trained / name) as one, np.load(again / name) as two:
                assert one.files == two.files
                for array in {*one.files} - {"record_crc32"}:  # of the JSON, which has the date
                    np.testing.assert_array_equal(one[array], two[array])
        else:
            one, two = (json.loads((folder / name).read_text()) for folder in (trained, again))
            for key in ("accuracy", "config", "iterations", "trained_with", "data"):
                assert one[key] == two[key], key


# -------------------------------------------------------------------- the command, as it is


def reproduce(*words):
    return exit_code(program.main, ["reproduce.py", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--row", "omniglot"], "--row: must be one of omniglot-5way"),
        (["--row", "omniglot-5way", "--seeds", "-1"], "--seed: must be at least 0"),
        (["--row", "omniglot-5way", "--meta_iters", "0"], "--meta_iters: must be at least 1"),
        (["--eval_samples", "0"], "--eval_samples and --jobs must be at least 1"),
        (["--pretrained"], "--pretrained: needs --row"),
        (
            ["--pretrained", "--row", "omniglot-5way", "--meta_iters", "9"],
            "--pretrained: needs --row, and no --meta_iters",
        ),
    ],
)
def test_what_cannot_be_run_is_told_in_one_line(words, message, capsys):
    assert reproduce(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_other_records_leave_the_projects_readme_alone(tmp_path, capsys):
    before = (PROJECT / "README.md").read_bytes()
    assert reproduce("--results", str(tmp_path / "new" / "results")) == 0
    assert (PROJECT / "README.md").read_bytes() == before
    assert capsys.readouterr().out in (tmp_path / "new/results/reproduction.md").read_text()


@pytest.mark.parametrize("text", [None, "no marks"])
def test_a_readme_that_takes_no_table_is_told_before_the_work(tmp_path, monkeypatch, capsys, text):
    monkeypatch.setattr(program, "carry_out", lambda *args: pytest.fail("begun"))
    readme = tmp_path / "README.md"
    if text:
        readme.write_text(text)
    words = ["--row", "omniglot-5way", "--results", str(tmp_path), "--readme", str(readme)]
    assert reproduce(*words) == 1
    error = capsys.readouterr().err
    assert error.startswith("reproduce.py: error: --readme: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("problem", "code"),
    [(RunError("no space"), 1), (OSError("no space"), 1), (KeyboardInterrupt(), 130)],
)
def test_what_was_finished_is_in_the_table_whatever_became_of_the_rest(
    tmp_path, monkeypatch, capsys, problem, code
):
    (tmp_path / "README.md").write_text(MARKS)

    def fail(*args):
        raise problem

    monkeypatch.setattr(program, "carry_out", fail)
    words = ["--row", "omniglot-5way", "--results", str(tmp_path / "results")]
    assert reproduce(*words, "--readme", str(tmp_path / "README.md")) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert "| 95.39 ± 0.09 | 95.48," in (tmp_path / "results" / "reproduction.md").read_text()
    assert (tmp_path / "README.md").read_text() == WITHOUT_ROWS


def test_wrong_usage_is_told_in_one_line(capsys):
    assert reproduce("--seeds", "one") == 2
    assert capsys.readouterr().err == (
        "reproduce.py: error: flag --seeds=one: must be integers separated by commas\n"
    )


def test_names_of_rows_stay_apart_from_their_titles(capsys):
    assert reproduce("--help") == 0
    lines = capsys.readouterr().out.splitlines()
    for row in published.ROWS:
        assert any(line.startswith(f"  {row.name}  ") for line in lines), row.name


def test_without_a_checkout_the_records_are_in_the_current_folder(tmp_path):
    code = "import sys, supervised_reptile.programs as p; p.CHECKOUT = None;"
    code += "from supervised_reptile.reproduction.program import main; main(['r', *sys.argv[1:]])"
    (tmp_path / "here").mkdir()

    def run(*words):
        command = [sys.executable, "-c", code, *words]
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        return subprocess.check_output(command, cwd=tmp_path / "here", env=environment, text=True)

    assert "results/ in the current folder" in " ".join(run("--help").split())
    table = run()
    assert sorted(p.name for p in (tmp_path / "here").rglob("*.*")) == [
        "reproduction.json",
        "reproduction.md",
    ]
    assert table in (tmp_path / "here" / "results" / "reproduction.md").read_text()


@pytest.mark.slow
def test_two_seeds_side_by_side_are_stopped_and_go_on(prepared_omniglot, tmp_path):
    (tmp_path / "README.md").write_text(MARKS)
    command = [sys.executable, str(PROJECT / "reproduce.py"), "--row", "omniglot-5way"]
    command += ["--seeds", "0,1", "--meta_iters", "300", "--eval_samples", "2", "--noprogress"]
    command += ["--data_dir", str(prepared_omniglot), "--results", str(tmp_path / "results")]
    command += ["--readme", str(tmp_path / "README.md"), "--runs", str(tmp_path / "runs")]
    runs = [tmp_path / "runs" / "omniglot-5way-300" / f"seed{seed}" for seed in (0, 1)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begun(run):
        curve = run / "curve.csv"
        return curve.exists() and curve.read_text().count("\n") > 1

    deadline = time.monotonic() + 240
    while not all(begun(run) for run in runs):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # Another process cannot have one of their folders.
    another = RunDirectory(runs[0])
    with pytest.raises(RunError, match="another process is training in"):
        another.lock()
    assert process.poll() is None  # hundreds of meta-iterations are left
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "finished work is saved; the same command continues" in errors
    saved = [
        int(path.stem.removeprefix("ckpt-")) for run in runs for path in run.glob("ckpt-*.index")
    ]
    assert saved and max(saved) < 300
    assert all(list(run.glob("ckpt-*.index")) for run in runs)

    finished = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert finished.returncode == 0, finished.stderr
    for seed in (0, 1):
        folder = tmp_path / "results" / "runs" / "omniglot-5way-300" / f"seed{seed}"
        assert len(list(folder.glob("results-*.json"))) == 4
        assert list(read_curve(folder / "curve.csv")["iteration"]) == [0, 50, 100, 150, 200, 250]
    assert "300 (shortened; of 100,000) | seed [0](" in finished.stdout
    readme = (tmp_path / "README.md").read_text()
    assert readme == WITHOUT_ROWS  # a shortened run is in the whole table alone
