"""run_miniimagenet.py as users run it, on a small data set of their own."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import photograph_fixtures as fixtures
import pytest
import warm
from PIL import Image

from supervised_reptile.tools import example_task

PROJECT = Path(__file__).resolve().parents[1]
FLAGS = """--classes=2 --shots=1 --train_shots=3 --inner_batch=4 --inner_iters=2 --meta_batch=2
    --meta_iters=4 --eval_batch=2 --eval_iters=2 --eval_samples=4 --eval_interval=2
    --filters=4 --image_size=10 --noprogress""".split()


def run(folder, *words):
    return warm.run(
        [sys.executable, str(PROJECT / "run_miniimagenet.py"), *FLAGS, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    fixtures.write_folders(folder / "flowers")
    done = run(folder, "--data_dir=flowers")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_images_of_ones_own(finished):
    folder, output = finished
    record = json.loads((folder / "model_checkpoint/results.json").read_text())
    assert record["config"]["task"]["dataset"] == "folder:flowers"
    model = {"filters": 4, "image_size": 10, "resize": "nearest", "pretrain": False, "freeze": 0}
    assert record["config"]["model"] == model
    assert list(record["accuracy"]) == ["train", "validation", "test"]
    for split, accuracy in record["accuracy"].items():
        assert accuracy["tasks"] == 4
        assert f"{split} accuracy: " in output
    curve = (folder / "model_checkpoint/curve.csv").read_text().splitlines()
    assert curve[0] == "iteration,seconds,meta_step,inner_loss,train,validation,test"
    assert len(curve) == 3
    assert (folder / "data/flowers/10-nearest/1.0.0/images.npy").is_file()


def test_the_images_are_part_of_what_a_checkpoint_is_of(finished):
    folder, _ = finished
    again = run(folder, "--data_dir=flowers", "--resize=bicubic")
    assert again.returncode == 1
    last = again.stderr.splitlines()[-1]
    assert last.startswith("run_miniimagenet.py: error: --checkpoint: ")
    assert "resize: nearest -> bicubic" in last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes=3"], "--classes: must be at most 2, the classes of the validation split of"),
        (["--shots=4"], "--shots: shots + 1 must be at most 4, the images of its smallest class."),
        (["--train_shots=5"], "--train_shots: must be at most 4, the images of its smallest class"),
    ],
)
def test_too_small_for_the_task(words, message, finished):
    folder, _ = finished
    done = run(folder, "--data_dir=flowers", "--checkpoint=other", *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"run_miniimagenet.py: error: {message}")
    assert "Traceback" not in done.stderr
    assert not (folder / "other").exists()


def test_no_data(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    assert "run ./fetch_data.sh miniimagenet" in done.stderr.splitlines()[-1]


def draw(*words, code=None):
    with pytest.raises(SystemExit) as stop:
        example_task.main(["example", *words])
    assert stop.value.code == code


def test_the_figure_of_a_task(finished, capsys, monkeypatch):
    folder, _ = finished
    monkeypatch.chdir(folder)
    path = folder / "model_checkpoint/example-task-validation-2.png"
    arguments = ["--data_dir=flowers", "--split=validation", "--number=2"]
    draw(*arguments)
    assert f"{path.relative_to(folder)}: accuracy " in capsys.readouterr().out
    figure = np.asarray(Image.open(path).convert("RGB"))
    assert min(figure.shape[:2]) > 300
    # The labeled image of the first class is in it, enlarged.
    assert len(np.unique(figure.reshape(-1, 3), axis=0)) > 400
    draw(*arguments, "--queries=2", "--output=two.png")
    assert Image.open("two.png").height > 1.5 * Image.open(path).height
    draw(arguments[0], "--split=all", code=1)
    assert "--split: must be one of train, validation, test" in capsys.readouterr().err
    draw("--checkpoint=nothing", code=1)
    assert "nothing holds no run, and is none of omniglot-5way, " in capsys.readouterr().err
    draw("--number=-1", code=2)
    assert "--number: must be at least 0. Received: -1" in capsys.readouterr().err
