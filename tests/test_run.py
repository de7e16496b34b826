"""Whole runs in real processes: killed and resumed, interrupted, from the entry script."""

import csv
import importlib
import json
import os
import random
import re
import signal
import sys
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import warm
from helpers import evaluation_tasks, tiny_config, vector_dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import NotFiniteError, RunError
from supervised_reptile.models import omniglot_model

PROJECT = Path(__file__).resolve().parents[1]
ITERATIONS, INTERVAL = 60, 5
FLAGS = f"""--classes=3 --shots=2 --train-shots=4 --inner-batch=5 --inner-iters=4 --meta-batch=3
    --meta-iters={ITERATIONS} --eval-batch=4 --eval-iters=3 --eval-samples=6 --eval-interval=2
    --checkpoint-interval={INTERVAL} --inter-op-threads=1 --noprogress""".split()

# A run with what the entry scripts use: flags, run_main, run. Each meta-iteration takes a while and
# leaves its ε in a file, so that a test can see where the process is; and some processes end
# themselves where no other process could hit them.
RUN_TINY = """
import json, os, resource, signal, sys, time

from helpers import dense_model, vector_dataset
from supervised_reptile.config.command_line import run_main
from supervised_reptile.config.flags import config_from_flags, define_flags, options_from_flags
from supervised_reptile import meta_learner
from supervised_reptile.runs import stages, trainer as training
from supervised_reptile.runs.checkpoints import RunDirectory
from supervised_reptile.main import run

stages.load_dataset = lambda *args, **kwargs: vector_dataset()
sys.modules[run.__module__].model_from_config = lambda config: dense_model()
define_flags(("glyphs",))


def main(argv):
    run(config_from_flags(), options_from_flags())


def slow_steps(steps, pause):
    step = meta_learner.MetaLearner.train_step

    def train_step(self, examples, tasks, meta_step):
        loss = step(self, examples, tasks, meta_step)
        with open(steps, "a") as file:
            file.write(f"{meta_step!r}\\n")
        time.sleep(pause)
        return loss

    meta_learner.MetaLearner.train_step = train_step


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_save(iteration, where):
    save, record = training.Trainer.save, RunDirectory._list

    def deadly_save(self):
        if self.iteration == iteration and where == "half written":
            # The kernel ends the process when a file of its grows beyond 300 bytes.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        path = save(self)
        if self.iteration == iteration and where == "saved":
            die()
        return path

    def deadly_record(self):
        if where == "not listed" and self.newest_iteration == iteration:
            die()
        record(self)

    training.Trainer.save = deadly_save
    RunDirectory._list = deadly_record


how = json.loads(sys.argv.pop(1))
slow_steps(how["steps"], how["pause"])
if how["die_in_save"]:
    die_in_save(*how["die_in_save"])
run_main(main, sys.argv)
"""


class Process:
    """A run in a process of its own."""

    def __init__(self, script, folder, flags, *, pause=0.0, die_in_save=None):
        self._output, self._steps = folder / "output", folder / "steps"
        self._steps.write_text("")
        how = {"steps": str(self._steps), "pause": pause, "die_in_save": die_in_save}
        words = [json.dumps(how), *FLAGS, f"--checkpoint={folder / 'run'}", *flags]
        paths = os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])
        with self._output.open("wb") as output:
            self._process = warm.Popen(
                [sys.executable, script, *words],
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": paths},
            )

    def iterations(self):
        """The meta-iterations it has done, by their ε, which goes from 1 to 0."""
        lines = self._steps.read_text().splitlines()
        return [round((1 - float(line)) * ITERATIONS) for line in lines]

    def wait_for_iterations(self, count):
        deadline = time.monotonic() + 300
        while len(self.iterations()) < count:
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.002)

    def send(self, number):
        self._process.send_signal(number)

    def wait(self):
        """Exit code; minus the signal's number if one ended the process."""
        return self._process.wait()

    def output(self):
        return self._output.read_text()


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a run in a process of its own: start(folder, *flags, pause=…, die_in_save=…)."""
    script = tmp_path_factory.mktemp("script") / "run_tiny.py"
    script.write_text(RUN_TINY)

    def start(folder, *flags, **how):
        folder.mkdir(exist_ok=True)
        return Process(script, folder, flags, **how)

    return start


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    process = start(folder)
    assert process.wait() == 0, process.output()
    assert process.iterations() == list(range(ITERATIONS))
    return folder / "run"


def newest(directory):
    """Iteration of the newest checkpoint."""
    path = tf.train.latest_checkpoint(str(directory))
    return int(path.rpartition("-")[2]) if path else 0


def checkpoint_values(directory):
    """Every number of the newest checkpoint but times, the count of saves and the data's name."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(directory)))
    names = [n for n in reader.get_variable_to_shape_map() if n.endswith("VARIABLE_VALUE")]
    values = {n: reader.get_tensor(n) for n in names}
    return {
        n: v for n, v in values.items() if not n.startswith(("seconds", "save_counter", "data_set"))
    }


def curve_without_times(directory):
    with (directory / "curve.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(directory, other):
    ours, theirs = checkpoint_values(directory), checkpoint_values(other)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 1 + 4 + 4  # iteration; weights; step count, learning rate, slots
    for name, value in ours.items():
        assert value.tobytes() == theirs[name].tobytes(), name
    assert ours["iteration/.ATTRIBUTES/VARIABLE_VALUE"] == ITERATIONS
    # 3 tasks a meta-batch, 4 steps a task: the step count is never reset.
    assert ours["inner_optimizer/0/.ATTRIBUTES/VARIABLE_VALUE"] == ITERATIONS * 3 * 4
    assert curve_without_times(directory) == curve_without_times(other)
    assert [int(row["iteration"]) for row in curve_without_times(directory)] == list(
        range(0, ITERATIONS, 2)
    )
    accuracies = [
        json.loads((d / "results.json").read_text())["accuracy"] for d in (directory, other)
    ]
    assert accuracies[0] == accuracies[1]
    models = [keras.models.load_model(d / "model.keras").get_weights() for d in (directory, other)]
    for a, b in zip(*models, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.slow
def test_killed_again_and_again_a_run_ends_with_the_same_bits(start, uninterrupted, tmp_path):
    run, chance = tmp_path / "run", random.Random(20180308)

    # In the middle of writing a checkpoint: half a file is there, the list names the one before.
    process = start(tmp_path, die_in_save=(20, "half written"))
    assert process.wait() == -signal.SIGXFSZ, process.output()
    assert process.iterations() == list(range(20))
    assert newest(run) == 15
    assert list(run.glob("ckpt-20*"))

    # The checkpoint is complete but not yet listed.
    process = start(tmp_path, die_in_save=(25, "not listed"))
    assert process.wait() == -signal.SIGKILL, process.output()
    assert process.iterations() == list(range(15, 25))
    assert newest(run) == 20
    assert (run / "ckpt-25.index").exists()

    # Right after a checkpoint, at a place where the curve and the checkpoint agree. What is
    # complete counts, listed or not.
    process = start(tmp_path, die_in_save=(30, "saved"))
    assert process.wait() == -signal.SIGKILL, process.output()
    assert process.iterations() == list(range(25, 30))
    assert newest(run) == 30

    # Anywhere.
    for _ in range(2):
        first = newest(run)
        process = start(tmp_path, pause=0.1)
        process.wait_for_iterations(chance.randrange(2, 7))
        time.sleep(chance.uniform(0, 0.1))
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.output()
        done = process.iterations()
        assert done == list(range(first, first + len(done)))
        assert len(done) < ITERATIONS - first
        assert first <= newest(run) <= first + len(done)
    with (run / "curve.csv").open("a") as file:
        file.write(f"{ITERATIONS - 1},12.3,0.")  # a kill may hit a line half written

    first = newest(run)
    process = start(tmp_path)
    assert process.wait() == 0, process.output()
    assert process.iterations() == list(range(first, ITERATIONS))
    assert_same_run(run, uninterrupted)
    # TensorBoard has every point; those done twice came out the same.
    points = {}
    events = EventAccumulator(str(run / "train"), size_guidance={"tensors": 0}).Reload()  # 0: all
    for event in events.Tensors("inner_loss"):
        points.setdefault(event.step, set()).add(float(tf.make_ndarray(event.tensor_proto)))
    assert sorted(points) == list(range(0, ITERATIONS, 2))
    assert {len(values) for values in points.values()} == {1}


def test_ctrl_c_and_sigterm_save_and_say_how_to_go_on(start, uninterrupted, tmp_path):
    first = 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start(tmp_path, pause=0.1)
        process.wait_for_iterations(7)
        process.send(number)
        assert process.wait() == code, process.output()
        done = process.iterations()
        assert done == list(range(first, first + len(done)))
        first += len(done)
        assert 7 <= len(done) < ITERATIONS // 2
        assert newest(tmp_path / "run") == first  # nothing that was done is lost
        *_, last_line = process.output().splitlines()
        assert last_line == (
            f"run_tiny.py: stopped after {first} of {ITERATIONS} meta-iterations and "
            "saved; the same command resumes from here"
        )
        assert "Traceback" not in process.output()
    process = start(tmp_path)
    assert process.wait() == 0, process.output()
    assert process.iterations() == list(range(first, ITERATIONS))
    assert_same_run(tmp_path / "run", uninterrupted)


def test_another_configuration_and_divergence_end_in_one_line(start, uninterrupted, tmp_path):
    process = start(tmp_path, f"--checkpoint={uninterrupted}", "--learning-rate=0.01")
    assert process.wait() == 1
    assert process.iterations() == []
    *_, last_line = process.output().splitlines()
    assert last_line.startswith("run_tiny.py: error: --checkpoint: ")
    assert "learning_rate: 0.001 -> 0.01" in last_line
    assert "Traceback" not in process.output()

    process = start(tmp_path, "--sgd", "--learning-rate=1e38")
    assert process.wait() == 1
    *_, last_line = process.output().splitlines()
    assert "nothing was saved yet" in last_line
    assert "Traceback" not in process.output()


# In this process

run_module = importlib.import_module("supervised_reptile.main")
stages = importlib.import_module("supervised_reptile.runs.stages")


@pytest.fixture
def run_here(monkeypatch, tmp_path, capsys):
    """run_here(config, **options) with a real small network; returns accuracies and output."""
    monkeypatch.setattr(stages, "load_dataset", lambda *a, **k: vector_dataset(size=28))
    monkeypatch.setattr(run_module, "set_threads", lambda *threads: None)  # for the other tests

    def run(config, **options):
        options = {"progress": False, "inter_op_threads": 1} | options
        options = RunOptions(checkpoint=str(tmp_path / "run"), **options)
        return run_module.run(config.replace(filters=4), options), capsys.readouterr().out

    return run


def test_a_run_leaves_model_record_and_curves(run_here, tmp_path):
    config = tiny_config()
    accuracies, output = run_here(config)
    run = tmp_path / "run"
    expected = {
        "config.json",
        "curve.csv",
        "curve.png",
        "model.keras",
        "results.json",
        "train",
        "test",
    }
    assert expected <= {path.name for path in run.iterdir()}
    record = json.loads((run / "results.json").read_text())
    assert Config.from_dict(record["config"]) == config.replace(filters=4)
    assert record["iterations"] == 4
    assert record["training_seconds"] > 0
    assert set(record["accuracy"]) == {"train", "test"}
    for split, accuracy in accuracies.items():
        assert record["accuracy"][split]["mean"] == accuracy.mean
        assert record["accuracy"][split]["tasks"] == accuracy.tasks == 6
        assert f"{split} accuracy: {accuracy}" in output
    assert record["environment"]["versions"]["keras"] == keras.__version__
    assert record["trained_on"] == [{"from_iteration": 0, "environment": record["environment"]}]
    assert "learning_rate" in output  # the table of the configuration

    values = checkpoint_values(run)
    model = keras.models.load_model(run / "model.keras")
    for i, weight in enumerate(model.get_weights()):
        assert weight.tobytes() == values[f"weights/{i}/.ATTRIBUTES/VARIABLE_VALUE"].tobytes()

    # A finished run is evaluated again; it is not trained further.
    before = (run / "ckpt-4.index").stat().st_mtime_ns
    again, _ = run_here(config.replace(eval_samples=3))
    assert again["test"].tasks == 3
    assert (run / "ckpt-4.index").stat().st_mtime_ns == before
    assert json.loads((run / "results.json").read_text())["accuracy"]["test"]["tasks"] == 3


def test_a_finished_run_shows_its_result_before_any_data_are_read(run_here, monkeypatch, tmp_path):
    config = tiny_config()
    first, output = run_here(config)
    assert output.startswith("task\n")
    monkeypatch.setattr(stages, "load_dataset", None)
    path = tmp_path / "run" / "results.json"
    before = path.read_bytes()
    again, output = run_here(config)
    assert again == first and path.read_bytes() == before
    assert output.startswith("already finished: 4 of 4 meta-iterations; here is its result, from ")
    assert f"test accuracy: {first['test']}" in output and "learning_rate" not in output
    # Its learning curve is held against TensorBoard's logs.
    table = tmp_path / "run" / "curve.csv"
    whole = table.read_text()
    table.write_text(whole.replace("0,", "1,", 1))
    assert "curve.csv was damaged: 1 of 1 points recovered" in run_here(config)[1]
    assert table.read_text() == whole
    # What is impossible is refused before the configuration is printed and the data are read.
    with pytest.raises(RunError, match="another configuration"):
        run_here(config.replace(learning_rate=0.5))


def test_a_damaged_record_is_made_again_and_damaged_notes_are_set_aside(run_here, tmp_path):
    config, run = tiny_config(), tmp_path / "run"
    first, _ = run_here(config)
    for text in (b"", b"null", b"[" * 9999, b"\xff\xfe", b'{"config": 1' + b"0" * 400 + b"}"):
        (run / "results.json").write_bytes(text)
        (run / "trained_on.json").write_bytes(text)
        again, output = run_here(config)
        assert again == first
        assert "all 4 meta-iterations are done" in output
        record = json.loads((run / "results.json").read_text())
        assert record["accuracy"]["test"]["mean"] == first["test"].mean


def test_a_record_says_when_how_and_on_what_and_keeps_every_task(run_here, tmp_path, monkeypatch):
    dataset = vector_dataset(size=28)
    named = {"fingerprint": "abc", "description": "a folder"}
    object.__setattr__(dataset, "__class__", type("Named", (FewShotDataset,), named))
    monkeypatch.setattr(stages, "load_dataset", lambda *a, **k: dataset)
    monkeypatch.setattr(sys, "argv", ["/somewhere/run_tiny.py", "--shots", "2", "--x=a b"])
    config = tiny_config(eval_samples=9)
    accuracies, _ = run_here(config)
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert record["command"] == "run_tiny.py --shots 2 '--x=a b'"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["date"])
    assert record["data"] == named
    with np.load(tmp_path / "run" / "results.npz") as found:
        for split, accuracy in accuracies.items():
            correct, classes = found[f"{split}/correct"], found[f"{split}/classes"]
            assert correct.shape == (9,) and classes.shape == (9, 3)
            assert int(found[f"{split}/queries"]) == 3
            assert correct.mean() / 3 == pytest.approx(accuracy.mean)
            for position, ids in enumerate(classes):
                positions = range(position, position + 1)
                drawn = evaluation_tasks(0, "evaluation", dataset, split, config, positions)
                offsets = dataset.class_offsets
                for query, class_id in zip(drawn.queries[0], ids, strict=True):
                    assert offsets[class_id] <= query < offsets[class_id + 1]
                    assert class_id in dataset.splits[split]


def test_what_diverges_in_fine_tuning_is_no_accuracy(run_here):
    config = tiny_config()
    run_here(config)
    with pytest.raises(NotFiniteError, match="the predictions of all 6 train tasks became infin"):
        run_here(config.replace(learning_rate=1e30), pretrained=True)


def test_the_saved_model_is_stock_keras_and_predicts_as_the_trained_one(run_here, tmp_path):
    config = tiny_config(eval_iters=0, transductive=True)
    run_here(config)
    path = tmp_path / "run" / "model.keras"

    def modules(value):
        if isinstance(value, dict):
            if "class_name" in value:
                yield value.get("module"), value.get("registered_name")
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                yield from modules(item)

    with zipfile.ZipFile(path) as archive:
        found = set(modules(json.loads(archive.read("config.json"))))
    assert len(found) > 5
    for module, registered in found:  # nothing of this package, registered or not
        assert module is None or module.split(".")[0] == "keras"
        assert registered is None or "supervised_reptile" not in registered

    loaded = keras.models.load_model(path)
    trained = omniglot_model(3, filters=4, seed=0)
    untrained = trained.get_weights()
    values = checkpoint_values(tmp_path / "run")
    trained.set_weights(
        [values[f"weights/{i}/.ATTRIBUTES/VARIABLE_VALUE"] for i in range(len(untrained))]
    )
    dataset = vector_dataset(size=28)
    queries = evaluation_tasks(0, "evaluation", dataset, "test", config, range(1)).queries[0]
    images = dataset.images[queries].astype(np.float32)
    expected = trained.predict(images, verbose=0)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)
    for training in (False, True):
        np.testing.assert_allclose(loaded(images, training=training), expected, atol=1e-5)
    trained.set_weights(untrained)
    assert np.abs(trained.predict(images, verbose=0) - expected).max() > 1e-3


def test_pretrained_evaluates_only_and_names_its_record(run_here, tmp_path):
    config, run = tiny_config(filters=4), tmp_path / "run"
    run_here(config)

    def files():
        return {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}

    before = files()
    same, _ = run_here(config, pretrained=True)
    one_shot = config.replace(shots=1, transductive=True, eval_batch=3, learning_rate=0.05)
    run_here(one_shot, pretrained=True)
    after = files()
    assert {name: after[name] for name in before} == before
    names = {
        "results-2shot-3way-non-transductive.json": config,
        "results-1shot-3way-transductive.json": one_shot,
    }
    arrays = {name.replace(".json", ".npz") for name in names}
    assert after.keys() - before.keys() == names.keys() | arrays
    for name, evaluated in names.items():
        record = json.loads(after[name])
        assert Config.from_dict(record["config"]) == evaluated
        assert Config.from_dict(record["trained_with"]) == config
        assert record["trained_on"] == json.loads(before["results.json"])["trained_on"]
        assert record["iterations"] == 4
    # The weights, slots and step count are those of the training.
    assert same["test"].mean == json.loads(before["results.json"])["accuracy"]["test"]["mean"]
    with pytest.raises(RunError, match=r"--seed=0 \(received 1\)"):
        run_here(config.replace(seed=1), pretrained=True)
    assert files() == after

    # Another evaluation of the same kind does not overwrite the first; the same one does.
    for _ in range(2):
        run_here(config.replace(eval_iters=1), pretrained=True)
    names = {f"results-2shot-3way-non-transductive-2.{kind}" for kind in ("json", "npz")}
    assert files().keys() - after.keys() == names
    kept = {name: content for name, content in files().items() if name in after}
    assert kept == after


def test_thread_pools_of_a_running_tensorflow_stay_as_they_are():
    tf.zeros(1)
    threads = tf.config.threading
    before = threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads()
    with pytest.warns(RuntimeWarning, match="TensorFlow runs already"):
        run_module.set_threads(7, 9)
    after = threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads()
    assert after == before


# The entry script


def script(*flags, cwd, **environment):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    command = [sys.executable, str(PROJECT / "run_omniglot.py"), *flags]
    return warm.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_entry_script_trains_and_evaluates_on_the_embedded_data(tmp_path):
    published = """--dataset glyphs --shots 1 --classes 5 --inner-batch 10 --inner-iters 3
        --meta-step 1 --meta-batch 2 --meta-iters 3 --eval-batch 5 --eval-iters 2
        --learning-rate 0.001 --meta-step-final 0 --train-shots 10 --checkpoint ckpt_o15t
        --eval-samples 4 --eval-interval 1 --transductive --no-progress"""
    result = script(*published.split(), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    record = json.loads((tmp_path / "ckpt_o15t" / "results.json").read_text())
    assert record["config"]["task"]["dataset"] == "glyphs"
    assert record["config"]["eval"]["transductive"] is True
    assert record["iterations"] == 3
    assert record["accuracy"]["test"]["tasks"] == 4
    assert len(curve_without_times(tmp_path / "ckpt_o15t")) == 3
    assert newest(tmp_path / "ckpt_o15t") == 3
    model = keras.models.load_model(tmp_path / "ckpt_o15t" / "model.keras")
    assert model.output_shape == (None, 5)
    convolutions = (9 * 1 * 64 + 64) + 3 * (9 * 64 * 64 + 64)
    assert model.count_params() == convolutions + 4 * 2 * 64 + (256 * 5 + 5)  # the paper's network


def test_the_entry_script_without_data_says_what_to_do(tmp_path):
    result = script("--data-dir", "nowhere", "--noprogress", cwd=tmp_path)
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("run_omniglot.py")]
    assert len(lines) == 1
    assert lines[0].startswith("run_omniglot.py: error: ")
    assert "./fetch_data.sh" in lines[0]
    assert "--dataset glyphs" in lines[0]
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
