"""Every experiment at toy length: what it leaves behind, and what must be so at any length."""

import csv
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import dense_model, evaluation_tasks, training_tasks, vector_dataset
from PIL import Image

from experiments import (
    ablations,
    draw,
    functions,
    gradient_combinations,
    manifolds,
    mixture,
    optimizers,
    overlap,
    paired,
    pretraining,
    rounding,
    sine,
    surface,
    theory,
    trainings,
)
from experiments.__main__ import EXPERIMENTS, find_experiment, main, start
from experiments.common import DataPlace, Place
from supervised_reptile.config import paper_config
from supervised_reptile.errors import ConfigError, RunError
from supervised_reptile.from_config import learner_from_config

ROOT = Path(__file__).resolve().parents[1]
run_module = importlib.import_module("supervised_reptile.main")
stages = importlib.import_module("supervised_reptile.runs.stages")
startup = importlib.import_module("supervised_reptile.startup")


def read(folder, name):
    """A table as dictionaries, or what a JSON file holds."""
    if name.endswith(".json"):
        return json.loads((folder / name).read_text())
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def has_figure(folder, name):
    return (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


# -------------------------------------------------------------------------------------- sine


def test_reptile_learns_the_sine_and_joint_training_cannot(tmp_path):
    """Joint training ends near the mean of all waves, which is 0: no better than at the start."""
    settings = sine.Settings(algorithms="random,reptile,joint", meta_iters=4000, eval_samples=300)
    losses = sine.run(settings, Place(results=str(tmp_path)))
    after = {name: each[:, -1].mean() for name, each in losses.items()}
    assert after["reptile"] < 0.6 * after["random"]
    assert after["reptile"] < 0.6 * after["joint"]
    # Before any step none can know the wave: E[a²]/2 is the least loss there is.
    for each in losses.values():
        assert each.shape == (300, 33)
        assert each[:, 0].mean() > 3.0

    found = read(tmp_path, "results.json")
    assert set(found["algorithms"]) == {"random", "reptile", "joint"}
    assert found["algorithms"]["reptile"]["loss_after"] == pytest.approx(after["reptile"], 1e-5)
    assert found["settings"]["meta_iters"] == 4000 and found["environment"]["versions"]
    curves = read(tmp_path, "curves.csv")
    assert len(curves) == 3 * 33
    assert has_figure(tmp_path, "fig1") and has_figure(tmp_path, "loss-against-steps")


def test_the_sine_task_is_the_papers():
    rng = np.random.default_rng(0)
    wave = functions.SINE.draw(rng, 20_000)
    x = np.broadcast_to(np.float32([[0.0], [np.pi / 2]]), (20_000, 2, 1))
    y = wave(x)[..., 0]
    amplitude = np.hypot(y[:, 0], y[:, 1])  # a·sin(b) and a·cos(b)
    assert 0.1 <= amplitude.min() < 0.11 and 4.99 < amplitude.max() <= 5.0
    assert amplitude.mean() == pytest.approx(2.55, abs=0.03)
    phase = np.arctan2(y[:, 0], y[:, 1])
    assert np.abs(np.histogram(phase, bins=8)[0] / 20_000 - 1 / 8).max() < 0.01
    grid = functions.SINE.training_inputs(rng, 2)
    assert grid.shape == (2, 50, 1) and (grid[0, 0], grid[0, -1]) == (-5, 5)
    points = functions.SINE.test_inputs(rng, 500)
    assert points.shape == (500, 10, 1) and -5 <= points.min() < -4.9 and 4.9 < points.max() <= 5


def test_test_tasks_are_the_same_for_every_learner():
    learners = [
        functions.function_learner(
            "reptile", functions.mlp(1, 4, 1, seed=s), keras.optimizers.SGD(0.01)
        )
        for s in (0, 1)
    ]
    a, b = (functions.test(x, functions.SINE, 4, batch=10, steps=2, seed=5) for x in learners)
    np.testing.assert_array_equal(a.targets, b.targets)
    np.testing.assert_array_equal(a.truth, b.truth)
    assert np.abs(a.predictions - b.predictions).max() > 1e-3
    by_hand = np.mean((a.predictions[2, 1] - a.truth[2]) ** 2)
    assert a.losses()[2, 1] == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"algorithms": "reptile,anil"},
            "--algorithms: must be of random, maml, reptile, fomaml, joint, separated by commas. "
            "Received: 'reptile,anil'",
        ),
        ({"meta_iters": 0}, "--meta_iters: must be at least 1. Received: 0"),
        ({"inner_iters": 1}, "--inner_iters: must be at least 2. Received: 1"),
        (
            {"learning_rate": -1.0},
            "--learning_rate: must be finite and greater than 0. Received: -1.0",
        ),
    ],
)
def test_bad_flags_of_the_sine_are_told_in_one_line(tmp_path, change, message, capsys):
    flags = {"results": tmp_path / "r", **change}
    with pytest.raises(SystemExit) as caught:
        start("sine", ["run_sine.py", *(f"--{name}={value}" for name, value in flags.items())])
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"run_sine.py: error: {message}\n"
    assert not (tmp_path / "r").exists()


def test_the_entry_script_explains_itself():
    for command in (["run_sine.py"], ["-m", "experiments", "gradient-combinations"]):
        result = subprocess.run(
            [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert "--meta_iters" in result.stdout and "Default: " in result.stdout
        assert "paper's values" not in result.stdout  # these flags have defaults of their own
    result = subprocess.run(
        [sys.executable, "run_sine.py", "--meta_itres=3"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1


def test_the_runner_lists_the_experiments_without_tensorflow(capsys):
    code = "import sys; from experiments.__main__ import overview; print(overview()); "
    # SciPy is installed for development only.
    code += "print(not sys.modules.keys().isdisjoint(('tensorflow', 'keras', 'scipy')))"
    listed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    *lines, heavy = listed.stdout.splitlines()
    assert heavy == "False"
    for name in EXPERIMENTS:
        summary = find_experiment(name).__doc__.partition("\n")[0]
        assert f" {name} {summary} " in f" {' '.join(' '.join(lines).split())} ", name
        assert max(map(len, lines)) <= 100
    modules = {path.stem.replace("_", "-") for path in (ROOT / "experiments").glob("[a-z]*.py")}
    shared = {"common", "functions", "plots", "trainings"}
    assert modules - set(EXPERIMENTS) == shared
    with pytest.raises(SystemExit) as caught:
        main(["experiments", "sinus"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("experiments: error: NAME: must be one of sine, gradient-combinations")
    assert error.endswith("Received: 'sinus'\n") and error.count("\n") == 1


def test_the_runner_hands_over_what_the_flags_say(tmp_path, monkeypatch):
    called = []

    def run(settings: overlap.Settings, place: trainings.TrainingPlace):
        called.append((settings, place))

    monkeypatch.setattr(overlap, "run", run)
    flags = ["--sweep=meta_step", "--values", "0.5,1", "--seeds=3,4", "--meta-iters=7"]
    for name in ("overlap", "gradient_combinations", "gradient-combinations"):
        assert name.replace("_", "-") == find_experiment(name).NAME
    with pytest.raises(SystemExit) as caught:
        main(["experiments", "overlap", *flags, f"--results={tmp_path}", "--jobs=1"])
    assert caught.value.code in (0, None)
    ((settings, place),) = called
    assert settings == overlap.Settings(
        sweep="meta_step", values=(0.5, 1.0), seeds=(3, 4), meta_iters=7
    )
    assert place == trainings.TrainingPlace(results=str(tmp_path), jobs=1)
    for seeds, rule in (((0.5,), "must be integers"), ((), "one or more"), ((1, -1), "at least 0")):
        with pytest.raises(ConfigError, match=f"--seeds: .*{rule}.* Received: "):
            overlap.Settings(seeds=seeds)


def test_every_figure_is_drawn_from_its_tables(tmp_path, monkeypatch):
    """All that is in results/, drawn again without the figures that are there."""
    records, copies = ROOT / draw.common.RESULTS, tmp_path / draw.common.RESULTS
    shutil.copytree(records, copies, ignore=shutil.ignore_patterns("*.png"))
    monkeypatch.chdir(tmp_path)
    draw.run(Place())
    figures = sorted(path.relative_to(records) for path in records.rglob("*.png"))
    assert figures == sorted(path.relative_to(copies) for path in copies.rglob("*.png"))
    for path in figures:
        with Image.open(copies / path) as drawn, Image.open(records / path) as committed:
            assert drawn.size == committed.size and drawn.width <= 1200  # readable on a page


# ------------------------------------------------------------------------ the review's functions


def test_inner_optimizers(tmp_path, monkeypatch):
    ours = {name: optimizers.VARIANTS[name] for name in ("SGD", "Adam, reset")}
    monkeypatch.setattr(optimizers, "VARIANTS", ours)
    settings = optimizers.Settings(
        meta_iters=2, starts=2, inner_iters=4, eval_iters=3, eval_samples=4, seeds=(0, 1)
    )
    optimizers.run(settings, Place(results=str(tmp_path)))
    rows = read(tmp_path, "curves.csv")
    assert [(r["inner_optimizer"], r["meta_iterations"], r["step"]) for r in rows] == [
        (name, start, str(step)) for name in ours for start in "24" for step in range(4)
    ]
    after = read(tmp_path, "results.json")["after"]
    assert len(after) == 4
    for each in after:
        assert each["loss"] == pytest.approx(np.mean(each["seeds"])) and np.ptp(each["seeds"]) > 0
    assert has_figure(tmp_path, "optimizers")


def test_mixture(tmp_path):
    trained_on, kinds = mixture.families()
    x = np.broadcast_to(functions.SINE.queries, (4, 50, 1))
    pair = trained_on.draw(np.random.default_rng(1), 4)(x)
    wave = kinds["wave"].draw(np.random.default_rng(1), 4)(x)
    compound = kinds["compound"].draw(np.random.default_rng(1), 4)(x)
    for i in range(4):  # in turn, one of each in every meta-batch of two
        np.testing.assert_array_equal(pair[i], (compound if i % 2 else wave)[i])
    # 3a·sin(x/3 + p) is what the two differ by: at x = 0, three times the wave.
    at_zero = np.zeros((4, 1, 1), np.float32)
    drawn = [kinds[k].draw(np.random.default_rng(1), 4)(at_zero) for k in ("wave", "compound")]
    np.testing.assert_allclose(drawn[1], 4 * drawn[0], rtol=1e-5)
    settings = mixture.Settings(meta_iters=2, inner_iters=3, eval_iters=2, eval_samples=3)
    mixture.run(settings, Place(results=str(tmp_path)))
    assert set(read(tmp_path, "results.json")["after"]) == {
        f"{kind}, {state}" for kind in kinds for state in ("untrained", "Reptile")
    }
    assert has_figure(tmp_path, "mixture")


def test_surface(tmp_path, monkeypatch):
    surfaces = surface.family(fixed_amplitude=True)
    assert surfaces.queries.shape == (10_000, 2)
    corner = np.float32([[[0, 0], [np.sqrt(np.pi), 0], [0, np.sqrt(np.pi)]]])
    z = surfaces.draw(np.random.default_rng(0), 1)(corner)[0, :, 0]
    np.testing.assert_allclose(z, [z[0], -z[0], -z[0]], rtol=1e-3)  # half a period of x² + y²
    monkeypatch.setattr(surface, "_SIDE", 8)
    assert surfaces.test_inputs(np.random.default_rng(0), 3).shape == (3, 20, 2)
    monkeypatch.setattr(surface, "_SNAPSHOTS", (2,))
    settings = surface.Settings(
        variant="sgd-fixed",
        meta_iters=4,
        eval_interval=2,
        eval_iters=2,
        eval_samples=2,
        learning_rates=(1e4, 0.1),  # the first diverges
    )
    surface.run(settings, Place(results=str(tmp_path)))
    assert len(read(tmp_path, "curves.csv")) == 2 * 3
    assert [row["meta_iterations"] for row in read(tmp_path, "training.csv")] == ["0", "2", "4"]
    found = read(tmp_path, "results.json")
    assert found["learning_rate"] == 0.1 and set(found["snapshots"]) == {"2", "4"}
    assert has_figure(tmp_path, "surface")
    with pytest.raises(ConfigError, match="--variant: must be one of adam, sgd-fixed, sgd-varied"):
        surface.Settings(variant="lion")


# ----------------------------------------------------------------------------------- trainings


@pytest.fixture
def toy_data(monkeypatch):
    """Small random images in place of a data set, and trainings in this process, in turn."""
    data = vector_dataset(size=28, classes=18, examples=20)
    monkeypatch.setattr(stages, "load_dataset", lambda *a, **k: data)
    monkeypatch.setattr(run_module, "set_threads", lambda *threads: None)
    monkeypatch.setattr(startup, "set_threads", lambda *threads: None)

    def in_turn(jobs, processes, when_done=lambda job: None):
        for job in jobs:
            job.function(*job.arguments)
            when_done(job)

    for module in (trainings, ablations):
        monkeypatch.setattr(module, "run_side_by_side", in_turn)


@pytest.fixture
def small_network(monkeypatch):
    """Two dense layers in place of the paper's network, whose graphs take seconds to build."""
    monkeypatch.setattr(
        run_module,
        "model_from_config",
        lambda config: dense_model(size=28, classes=config.task.classes, seed=config.seed),
    )


@pytest.fixture
def place(tmp_path):
    folders = {"results": str(tmp_path / "r"), "work_dir": str(tmp_path / "w")}
    return trainings.TrainingPlace(**folders, data_dir="none", jobs=1)


@pytest.mark.slow
def test_gradient_combinations(toy_data, small_network, place, tmp_path, monkeypatch, capsys):
    shown = ["g1", "(g1+g2)/2", "g3"]
    flags = {"dataset": "glyphs", "meta_iters": 4, "eval_interval": 2, "eval_samples": 3}
    flags |= {"combinations": ",".join(shown)}
    gradient_combinations.run(gradient_combinations.Settings(**flags), place)
    found = read(tmp_path / "r", "results.json")["combinations"]
    assert list(found) == shown
    assert found["(g1+g2)/2"]["step_weights"] == [0.5, 0.5]
    assert found["g3"]["accuracy"]["test"]["tasks"] == 3
    assert [r["iteration"] for r in read(tmp_path / "r", "curves.csv")] == ["0", "2"] * 3
    assert has_figure(tmp_path / "r", "gradient-combinations")
    assert "g3" in capsys.readouterr().out

    # What is finished is not run again; only the report is written anew.
    monkeypatch.setattr(trainings, "Job", None)
    gradient_combinations.run(gradient_combinations.Settings(**flags), place)
    with pytest.raises(ConfigError, match=r"--combinations: must be of g1, .* Received: 'g1,g5'"):
        gradient_combinations.Settings(combinations="g1,g5")


def test_combinations_are_those_of_figure_3():
    combinations = gradient_combinations.COMBINATIONS
    assert len(combinations) == 10
    for name, weights in combinations.items():
        terms, _, divisor = name.strip("(").partition(")/")
        expected = [0.0] * len(weights)
        for term in terms.split("+"):
            expected[int(term[1:]) - 1] = 1 / float(divisor or 1)
        assert list(weights) == pytest.approx(expected), name
        config = gradient_combinations.config_of(gradient_combinations.Settings(), weights)
        # Table 5, and mini-batches that do not overlap.
        assert (config.inner.learning_rate, config.inner.inner_batch) == (0.003, 25)
        assert (config.meta.meta_step, config.meta.meta_batch) == (0.25, 1)
        assert config.inner.inner_iters * 25 == config.task.classes * config.task.train_shots


def test_trainings_refuse_what_they_cannot_do(place):
    with pytest.raises(ConfigError, match=r"--jobs: must be at least 1. Received: 0"):
        trainings.TrainingPlace(jobs=0)
    config = paper_config("omniglot", meta_iters=1)
    with pytest.raises(RunError, match=r"one .*no Omniglot|one .*fetch_data"):
        trainings.train_all({"one": config}, place, "some")


@pytest.mark.slow
def test_overlap(toy_data, small_network, place, tmp_path, capsys):
    flags = {"values": (2.0, 5.0), "dataset": "glyphs", "meta_iters": 2, "eval_samples": 3}
    overlap.run(overlap.Settings(sweep="inner_iters", **flags), place)
    rows = read(tmp_path / "r", "accuracy.csv")
    assert [(r["variant"], float(r["inner_iters"])) for r in rows] == [
        (variant, k) for variant in overlap.VARIANTS for k in (2.0, 5.0)
    ]
    assert has_figure(tmp_path / "r", "overlap")
    with pytest.raises(ConfigError, match="--sweep: must be one of inner_iters"):
        overlap.Settings(sweep="shots")


def test_points_of_the_overlap_sweeps_are_table_6():
    for sweep, (values, held) in overlap.SWEEPS.items():
        settings = overlap.Settings(sweep=sweep, meta_iters=40_000, eval_samples=10)
        assert settings.points == values
        for variant, sets in overlap.VARIANTS.items():
            for value in values:
                config = overlap.config_of(settings, variant, value, 3)
                flat = config.flat()
                assert {name: flat[name] for name in held} == held
                assert {name: flat[name] for name in sets} == sets
                assert flat[sweep] == value and flat["seed"] == 3
                assert (flat["learning_rate"], flat["eval_batch"], flat["eval_iters"]) == (
                    *(0.003, 25, 5),
                )


@pytest.mark.slow
def test_ablations(toy_data, place, tmp_path, monkeypatch):
    flags = {"seeds": (0,), "dataset": "glyphs", "meta_iters": 2, "eval_samples": 4}
    monkeypatch.setattr(ablations, "_WARM_UP_TASKS", 2)
    some = ("as published", "SGD, gradient averaged")
    monkeypatch.setattr(ablations, "VARIANTS", {n: ablations.VARIANTS[n] for n in some})
    ablations.run(ablations.Settings(**flags), place)
    found = read(tmp_path / "r", "results.json")
    accuracy = {v["variant"]: v["test_accuracy"] for v in found["variants"]}
    assert list(accuracy) == [*some, ablations.MOVING, ablations.CONTROL]
    assert has_figure(tmp_path / "r", "ablations")
    # What is finished, the ports too, is not done again; another length is another training.
    for module in (ablations, trainings):
        monkeypatch.setattr(module, "Job", None)
    ablations.run(ablations.Settings(**flags), place)
    assert read(tmp_path / "r", "results.json")["variants"] == found["variants"]
    with pytest.raises(TypeError, match="NoneType"):
        ablations.run(ablations.Settings(**(flags | {"meta_iters": 3})), place)


@pytest.mark.slow
def test_the_port_is_our_evaluation_but_for_the_moving_averages(tmp_path, monkeypatch):
    """Stock layers, stepped by Keras itself, with the trained slots: task by task the same."""
    monkeypatch.setattr(ablations, "_WARM_UP_TASKS", 3)
    data = vector_dataset(size=28, classes=18, examples=20)
    settings = ablations.Settings(dataset="glyphs", meta_iters=3, eval_samples=6)
    config = ablations.config_of(settings, "as published", 0).replace(eval_iters=5)
    learner = learner_from_config(config, run_module.model_from_config(config))
    for i in range(3):
        tasks = training_tasks(np.random.default_rng(i), data, config)
        learner.train_step(data.images, tasks, 1.0)
    learner.compiled_model().save(tmp_path / "model.keras")
    tasks = evaluation_tasks(0, "evaluation", data, "test", config, range(6))
    ours = learner.predict_tasks(data.images, tasks, transductive=True)
    found = ablations.port_logits(tmp_path / "model.keras", data, config)
    np.testing.assert_allclose(found[ablations.CONTROL], ours, atol=0.02)
    # Another function: its answers differ by far more.
    assert np.abs(found[ablations.MOVING] - ours).max() > 0.5


def test_the_port_is_the_network_with_moving_averages(toy_data, tmp_path):
    """The same function in training, and averages that can be worked out by hand."""
    settings = ablations.Settings(dataset="glyphs", meta_iters=1, eval_samples=1)
    config = ablations.config_of(settings, "as published", 0)
    model = run_module.model_from_config(config)
    port = ablations.with_moving_averages(model)
    assert [v.shape for v in port.trainable_variables] == [v.shape for v in model.variables]
    for mine, theirs in zip(port.trainable_variables, model.variables, strict=True):
        mine.assign(theirs)
    x = np.random.default_rng(0).random((6, 28, 28, 1), np.float32)
    np.testing.assert_allclose(port(x, training=True), model(x), atol=1e-4)
    moving = port.layers[2].moving_mean.numpy()
    convolved = port.layers[1](x).numpy().mean(axis=(0, 1, 2))
    np.testing.assert_allclose(moving, 0.01 * convolved, rtol=1e-3, atol=1e-6)
    assert np.abs(port(x, training=False) - model(x)).max() > 0.1


@pytest.mark.slow
def test_rounding(tmp_path, capsys):
    settings = rounding.Settings(dataset="glyphs", batches=12)
    rounding.run(settings, DataPlace(results=str(tmp_path), data_dir="data"))
    rows = read(tmp_path, "errors.csv")
    assert len(rows) == 2 * 2 * 14  # networks, arithmetics, variables less the 4 irrelevant biases
    found = read(tmp_path, "results.json")
    assert (found["settings"]["batches"], found["dataset"]) == (12, "glyphs")
    assert "trained, fused: error" in capsys.readouterr().out
    # The last bias' gradient is a plain sum of probabilities: as exact as float32 is, and no more,
    # as it would be if the reference were float32 too.
    errors = [float(row["error_rms"]) for row in rows if row["variable"] == "logits/bias"]
    assert len(errors) == 4
    assert all(1e-9 < error < 1e-3 for error in errors)


def test_errors_of_rounding_that_average_out_and_that_do_not():
    rng = np.random.default_rng(0)
    at_random, always = rounding.Errors(), rounding.Errors()
    for _ in range(400):
        truth, noise = rng.normal(size=(2, 50))
        at_random.add(truth + 0.1 * noise, truth)
        always.add(truth + 0.1, truth)
    for errors in (at_random, always):
        rms, _, by_chance = errors.relative()
        assert rms == pytest.approx(0.1, rel=0.05)
        assert by_chance == pytest.approx(0.1 / 20, rel=0.05)
    assert at_random.relative()[1] == pytest.approx(0.1 / 20, rel=0.4)
    assert always.relative()[1] == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"batches": 1}, "--batches: must be at least 2"), ({"network": "x"}, "--network: must be")],
)
def test_bad_flags_of_the_rounding_are_told_in_one_line(change, message):
    with pytest.raises(ConfigError, match=message):
        rounding.Settings(**change)


@pytest.mark.slow
def test_pretraining(toy_data, place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("supervised_reptile.classifier_start.MAX_EPOCHS", 2)
    settings = pretraining.Settings(freeze=(0, 3), dataset="glyphs", meta_iters=12, eval_samples=2)
    pretraining.run(settings, place)
    found = read(tmp_path / "r", "results.json")
    starts = ["random start", "pre-training alone", "pre-trained", "pre-trained, 3 blocks frozen"]
    assert list(found["starts"]) == starts
    assert found["classifier"]["epochs"] == 2
    assert set(found["reached"]["meta_iterations"]["80"]) == {*starts} - {"pre-training alone"}
    rows = read(tmp_path / "r", "curves.csv")
    assert [r["iteration"] for r in rows] == ["0", "10"] * 3
    assert has_figure(tmp_path / "r", "pretraining")

    # A meta-step of 0 leaves the classifier's weights as they are, and one classifier serves all.
    weights = [
        keras.models.load_model(path).get_layer("conv1").get_weights()[0]
        for path in (
            tmp_path / "w" / "classifier" / "classifier.keras",
            *(
                tmp_path / "w" / f"{name} iterations" / "model.keras"
                for name in (
                    *("pre-training alone, 1", "pre-trained, 3 blocks frozen, 12"),
                    "random start, 12",
                )
            ),
        )
    ]
    np.testing.assert_array_equal(weights[1], weights[0])
    np.testing.assert_array_equal(weights[2], weights[0])
    assert (weights[3] != weights[0]).any()
    configs = pretraining.configs_of(pretraining.Settings(freeze=(0, 2), seed=1, meta_iters=9))
    ours, theirs = configs["random start"].flat(), configs["pre-trained, 2 blocks frozen"].flat()
    assert {n: v for n, v in theirs.items() if v != ours[n]} == {"pretrain": True, "freeze": 2}


# ----------------------------------------------------------------------------- Sec. 5 of the paper


@pytest.mark.slow
def test_the_expansions_hold_to_second_order():
    rates = (0.004, 0.002, 0.001)
    found = theory.measure(k=3, tasks=3, seed=0, rates=rates)
    for algorithm, lines in found.items():
        # The residual falls as α²; without AvgGradInner it falls as α only.
        assert 1.7 < theory.slope(rates, lines["residual"]) < 2.3, algorithm
        assert 0.7 < theory.slope(rates, lines["zeroth"]) < 1.3, algorithm
        first, second = lines["fit"][-1]
        assert first == pytest.approx(theory.coefficients(algorithm, 3)[0], rel=0.02)
        assert second == pytest.approx(theory.coefficients(algorithm, 3)[1], rel=0.2)


def test_the_coefficients_are_the_papers():
    assert theory.coefficients("maml", 4) == (1, 6)
    assert theory.coefficients("fomaml", 4) == (1, 3)
    assert theory.coefficients("reptile", 4) == (4, 6)


def test_reptile_ends_between_the_manifolds(tmp_path):
    manifolds.run(manifolds.Settings(), Place(results=str(tmp_path)))
    scenes = read(tmp_path, "results.json")["scenes"]
    # Circle of radius 1 and the line 0.4 x + y = 2: half way between them, on the normal.
    normal = np.array([0.4, 1.0]) / np.hypot(0.4, 1.0)
    middle = (1 + 2 / np.hypot(0.4, 1.0)) / 2 * normal
    np.testing.assert_allclose(scenes["apart"]["nearest_point"], middle, atol=1e-3)
    np.testing.assert_allclose(scenes["apart"]["end"], middle, atol=0.05)
    assert scenes["crossing"]["mean_squared_distance"] < 1e-3
    assert len(read(tmp_path, "paths.csv")) == 2 * 201
    assert has_figure(tmp_path, "manifolds")


@pytest.mark.slow
def test_paired(toy_data, place, tmp_path):
    settings = paired.Settings(
        seeds=(0, 1), dataset="glyphs", meta_iters=4, eval_samples=6, variants=(1, 4)
    )
    paired.run(settings, place)
    rows = read(tmp_path / "r", "results.json")["variants"]
    assert [row["variant"] for row in rows] == [
        paired.PUBLISHED,
        "parallel tasks",
        "parallel tasks, meta-batch 10",
    ]
    assert rows[0]["difference"] == rows[0]["interval95_tasks"] == 0
    assert rows[1]["difference"] == pytest.approx(
        rows[1]["test_accuracy"] - rows[0]["test_accuracy"]
    )
    assert has_figure(tmp_path / "r", "paired")
