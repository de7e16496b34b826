"""Keras callbacks of a run: how they are found, what they are called with, what they change."""

import importlib
import sys

import keras
import pytest
from helpers import document_code, tiny_config, vector_dataset
from test_training import assert_same_bits, checkpoint_values, new_trainer, trained

from supervised_reptile.config import RunOptions
from supervised_reptile.errors import ConfigError, RunInterrupted
from supervised_reptile.runs.callbacks import load_callbacks
from supervised_reptile.runs.trainer import Trainer


class Recorder(keras.callbacks.Callback):
    """Writes down every call."""

    def __init__(self):
        super().__init__()
        self.calls = []


def recorded(name):
    """The method of ``Recorder`` that Keras calls, e.g. "on_epoch_end"."""

    def method(self, *values, logs=None):
        self.calls.append((name.removeprefix("on_"), *values, *([logs] if logs else [])))

    return method


for name in ("train", "test", "epoch", "train_batch"):
    for end in ("begin", "end"):
        setattr(Recorder, f"on_{name}_{end}", recorded(f"on_{name}_{end}"))


def watched(directory, config, callback, **options):
    trainer = new_trainer(directory, config, **options)
    options = RunOptions(checkpoint=str(directory), checkpoint_interval=2, progress=False)
    return Trainer(trainer.learner, trainer.dataset, config, options, callbacks=[callback])


def test_a_callback_sees_an_epoch_per_point_of_the_learning_curve(tmp_path):
    config, recorder = tiny_config(meta_iters=5, eval_interval=2), Recorder()
    trainer = watched(tmp_path / "run", config, recorder)
    trainer.prepare()
    trainer.train()
    names = [name for name, *_ in recorder.calls]
    batch = ["train_batch_begin", "train_batch_end"]
    full = ["epoch_begin", *batch, *batch, "epoch_end"]
    assert names == ["train_begin", *full, *full, "epoch_begin", *batch, "epoch_end", "train_end"]
    at = {name: [c[1:] for c in recorder.calls if c[0] == name] for name in names}
    assert [batch for batch, *_ in at["train_batch_end"]] == [0, 1, 0, 1, 0]
    assert [epoch for epoch, *_ in at["epoch_end"]] == [0, 1, 2]
    (_, first), (_, second), *_ = at["train_batch_end"]
    _, logs = at["epoch_end"][0]
    assert set(first) == {"loss", "meta_step"}
    assert set(logs) == {"loss", "meta_step", "train_accuracy", "test_accuracy"}
    assert logs["loss"] == second["loss"] != first["loss"]
    assert logs["meta_step"] == second["meta_step"] < first["meta_step"]
    assert 0 <= logs["test_accuracy"] <= 1


def test_a_callback_changes_no_bit_and_sees_the_state_of_the_optimizer(tmp_path):
    config = tiny_config(meta_iters=4, eval_interval=2)
    trained(tmp_path / "alone", config)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(int(self.model.optimizer.iterations))

    trainer = watched(tmp_path / "watched", config, Look())
    trainer.prepare()
    trainer.train()
    alone, other = (checkpoint_values(tmp_path / name / "ckpt-4") for name in ("alone", "watched"))
    assert_same_bits(alone, other)
    steps = config.inner.inner_iters * config.meta.meta_batch
    assert seen == [2 * steps, 4 * steps]


def test_a_callback_can_stop_a_run_which_then_resumes(tmp_path):
    config = tiny_config(meta_iters=4)

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    trainer = watched(tmp_path / "run", config, Stop())
    trainer.prepare()
    with pytest.raises(RunInterrupted, match=r"^stopped after 1 of 4 meta-iterations and saved"):
        trainer.train()
    recorder = Recorder()
    trainer = watched(tmp_path / "run", config, recorder)
    trainer.prepare()
    trainer.train()
    assert sum(name == "train_batch_end" for name, *_ in recorder.calls) == 3
    trained(tmp_path / "alone", config)
    alone, other = (checkpoint_values(tmp_path / name / "ckpt-4") for name in ("alone", "run"))
    assert_same_bits(alone, other)


# ------------------------------------------------------------------------- the flag


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with a module `mine` of factories."""
    (tmp_path / "mine.py").write_text(
        document_code("callbacks") + "\nfrom test_callbacks import Recorder\n"
        "made = []\n"
        "def recorder():\n    made.append(Recorder())\n    return made[-1]\n"
        "def number():\n    return 3\n"
        "constant = 3\n"
    )
    (tmp_path / "incomplete.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("mine", "incomplete"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing:f", "the module cannot be imported (No module named 'nothing')"),
        ("incomplete:f", "the module cannot be imported (No module named 'no_such_library')"),
        ("mine:recoder", "the module has no function 'recoder'"),
        ("mine:constant", "the module has no function 'constant'"),
        ("mine:number", "must make a keras.callbacks.Callback, not int"),
    ],
)
def test_a_mistake_in_the_flag_is_one_line(here, name, message):
    with pytest.raises(ConfigError) as caught:
        load_callbacks(name)
    assert str(caught.value) == f"--callbacks: {message}. Received: {name!r}"


def test_classes_and_functions_make_callbacks(here):
    one, two = load_callbacks("keras.callbacks:TerminateOnNaN,mine:recorder")
    assert isinstance(one, keras.callbacks.TerminateOnNaN) and isinstance(two, Recorder)
    assert load_callbacks("") == []


def run_here(monkeypatch, folder, **options):
    """A run of a small network on small images, in this process."""
    run_module = importlib.import_module("supervised_reptile.main")
    stages = importlib.import_module("supervised_reptile.runs.stages")
    monkeypatch.setattr(stages, "load_dataset", lambda *a, **k: vector_dataset(size=28))
    monkeypatch.setattr(run_module, "set_threads", lambda *threads: None)  # for the other tests
    options = RunOptions(checkpoint=str(folder / "run"), progress=False, **options)
    return run_module.run(tiny_config().replace(filters=4), options)


def test_a_run_ends_with_the_accuracy_on_each_split(here, monkeypatch):
    accuracies = run_here(monkeypatch, here, callbacks="mine:recorder")
    (recorder,) = sys.modules["mine"].made
    names = [name for name, *_ in recorder.calls]
    assert names[0] == "train_begin" and names[-3:] == ["train_end", "test_begin", "test_end"]
    _, logs = recorder.calls[-1]
    assert logs == {f"{split}_accuracy": each.mean for split, each in accuracies.items()}
    # A finished run calls none; an evaluation of its own calls no on_train_.
    run_here(monkeypatch, here, callbacks="mine:recorder")
    run_here(monkeypatch, here, callbacks="mine:recorder", pretrained=True)
    _, other = sys.modules["mine"].made
    assert [name for name, *_ in other.calls] == ["test_begin", "test_end"]


def test_the_documented_table_has_a_line_per_epoch(here, monkeypatch):
    run_here(monkeypatch, here, callbacks="mine:table")
    heads, line = (here / "epochs.csv").read_text().splitlines()
    assert heads.startswith("epoch,loss,meta_step,test_accuracy,train_accuracy")
    assert line.startswith("0,")


def test_mlflow_has_the_curve_and_the_accuracy_of_a_run(here, monkeypatch):
    pytest.importorskip("mlflow.keras", reason="needs MLflow (pip install mlflow)")
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the newest prefers a database
    mlflow.set_tracking_uri((here / "mlruns").as_uri())
    with mlflow.start_run() as started:
        accuracies = run_here(monkeypatch, here, callbacks="mlflow.keras:MlflowCallback")
        mlflow.flush_async_logging()
    recorded = mlflow.get_run(started.info.run_id).data
    assert {"loss", "meta_step", "train_accuracy", "test_accuracy"} <= set(recorded.metrics)
    assert recorded.metrics["validation_test_accuracy"] == accuracies["test"].mean
    assert recorded.params["optimizer_name"] == "adam"
