"""The training loop: what it computes, what it leaves on disk, and how it goes on from there."""

import csv
import json
import os
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import dense_model, tiny_config, training_tasks, vector_dataset
from numpy_reference import Sgd, meta_iteration
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import RunError, RunInterrupted
from supervised_reptile.from_config import learner_from_config, meta_step_from_config
from supervised_reptile.runs import learning_curve as curve
from supervised_reptile.runs.learning_curve import LearningCurve
from supervised_reptile.runs.trainer import Trainer
from supervised_reptile.tasks import random_stream


def new_trainer(directory, config, **options):
    options = {"checkpoint_interval": 2, "progress": False} | options
    learner = learner_from_config(config, dense_model(), lanes=1)
    options = RunOptions(checkpoint=str(directory), **options)
    return Trainer(learner, vector_dataset(), config, options)


def trained(directory, config, **options):
    trainer = new_trainer(directory, config, **options)
    trainer.prepare()
    trainer.train()
    return trainer


def at_iteration(trainer, iteration, action):
    """Have `action` run in that meta-iteration, after the learner's step."""
    step, count = trainer.learner.train_step, iter(range(trainer.iteration, 10**6))

    def train_step(*args):
        loss = step(*args)
        return action(loss) if next(count) == iteration else loss

    trainer.learner.train_step = train_step


def checkpoint_values(prefix):
    """Every number of a checkpoint but the wall time, the count of saves and the data's name."""
    reader = tf.train.load_checkpoint(str(prefix))
    names = [n for n in reader.get_variable_to_shape_map() if n.endswith("VARIABLE_VALUE")]
    values = {n: reader.get_tensor(n) for n in names}
    return {
        n: v for n, v in values.items() if not n.startswith(("seconds", "save_counter", "data_set"))
    }


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        assert value.tobytes() == other[name].tobytes(), name


def curve_of(directory):
    with (Path(directory) / "curve.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def files_of(directory):
    """Every file below, and what is in it."""
    paths = sorted(p for p in Path(directory).rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): p.read_bytes() for p in paths}


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    return message


# What it computes


def test_a_run_agrees_with_the_numpy_program(tmp_path):
    config = tiny_config(
        inner_optimizer="sgd",
        learning_rate=0.02,
        meta_iters=5,
        meta_step=0.9,
        meta_step_final=0.3,
        eval_interval=1,
    )
    trainer = new_trainer(tmp_path, config)
    initial = weights = [w.astype(np.float64) for w in trainer.learner.model.get_weights()]
    trainer.prepare()
    trainer.train()

    dataset = vector_dataset()
    flat = dataset.images.reshape(len(dataset.images), -1)
    # ε goes linearly from 0.9 to 0.3, which it would reach in iteration 5 of 0 … 4.
    meta_steps = [0.9, 0.78, 0.66, 0.54, 0.42]
    for iteration, meta_step in enumerate(meta_steps):
        drawn = training_tasks(random_stream(0, "training", iteration), dataset, config).steps
        tasks = [(list(i), list(y)) for i, y in zip(drawn.indices, drawn.labels, strict=True)]
        weights = meta_iteration(weights, Sgd(0.02), flat, tasks, meta_step, "reptile")
    for ours, theirs, start in zip(
        trainer.learner.model.get_weights(), weights, initial, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)
        assert np.abs(theirs - start).max() > 0.005
    assert [float(row["meta_step"]) for row in curve_of(tmp_path)] == pytest.approx(meta_steps)


def test_meta_step_goes_from_start_to_end():
    config = tiny_config(meta_iters=1000, meta_step=1.0, meta_step_final=0.25)
    assert meta_step_from_config(config)(0) == 1.0
    assert meta_step_from_config(config)(500) == pytest.approx(0.625)
    assert meta_step_from_config(config)(1000) == 0.25


# Going on

VARIANTS = {
    "adam": {},
    "separate tail, rmsprop": {
        "algorithm": "fomaml",
        "foml_tail": 1,
        "inner_optimizer": "rmsprop",
        "momentum": 0.5,
    },
    "outer adam": {"inner_optimizer": "sgd", "outer_optimizer": "adam", "meta_step": 0.01},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(tmp_path, variant):
    config = tiny_config(meta_iters=7, eval_interval=3, **VARIANTS[variant])
    trained(tmp_path / "whole", config)

    broken = new_trainer(tmp_path / "parts", config)

    def crash(_):
        raise ZeroDivisionError

    at_iteration(broken, 5, crash)
    broken.prepare()
    with pytest.raises(ZeroDivisionError):
        broken.train()
    shutil.copytree(tmp_path / "parts", tmp_path / "spoilt")

    resumed = new_trainer(tmp_path / "parts", config)
    resumed.prepare()
    assert resumed.iteration == 4
    resumed.train()
    assert_same_bits(
        checkpoint_values(tmp_path / "parts" / "ckpt-7"),
        checkpoint_values(tmp_path / "whole" / "ckpt-7"),
    )
    curve = curve_of(tmp_path / "parts")
    assert [row["iteration"] for row in curve] == ["0", "3", "6"]
    assert without_times(curve) == without_times(curve_of(tmp_path / "whole"))

    # The comparison is worth something: a start from other slots or another step count shows.
    spoilt = new_trainer(tmp_path / "spoilt", config)
    spoilt.prepare()
    learner = spoilt.learner
    optimizer = learner.outer_optimizer or learner.inner_optimizer
    slots = [v for v in optimizer.variables if v.shape.rank]
    assert slots
    for slot in slots:
        slot.assign(slot.numpy() * 1.01)
    spoilt.train()
    ours = checkpoint_values(tmp_path / "spoilt" / "ckpt-7")
    theirs = checkpoint_values(tmp_path / "whole" / "ckpt-7")
    assert any((ours[n] != theirs[n]).any() for n in ours if n.startswith("weights"))


def test_checkpoints_hold_the_step_count_and_the_last_is_always_saved(tmp_path):
    config = tiny_config(meta_iters=9)
    trained(tmp_path, config)
    kept = sorted(p.stem for p in tmp_path.glob("ckpt-*.index"))
    assert kept == ["ckpt-6", "ckpt-8", "ckpt-9"]
    values = checkpoint_values(tmp_path / "ckpt-9")
    assert values["iteration/.ATTRIBUTES/VARIABLE_VALUE"] == 9
    steps = 9 * config.meta.meta_batch * config.inner.inner_iters
    assert values["inner_optimizer/0/.ATTRIBUTES/VARIABLE_VALUE"] == steps
    before = files_of(tmp_path)
    again = trained(tmp_path, config)  # nothing is left to do
    assert again.iteration == 9
    after = files_of(tmp_path)
    assert {n: after[n] for n in before} == before


def test_another_configuration_is_refused(tmp_path):
    trained(tmp_path, tiny_config(learning_rate=0.001))
    before = files_of(tmp_path)
    other = new_trainer(
        tmp_path, tiny_config(learning_rate=0.01, seed=5, outer_optimizer="sgd", meta_step=0.1)
    )
    with pytest.raises(RunError) as caught:
        other.prepare()
    message = one_line(caught)
    for difference in (
        "learning_rate: 0.001 -> 0.01",
        "seed: 0 -> 5",
        "outer_optimizer: interpolation -> sgd",
        "meta_step: 1.0 -> 0.1",
        "--noresume",
    ):
        assert difference in message
    assert "inner_batch" not in message
    assert files_of(tmp_path) == before


def test_the_number_of_evaluation_tasks_may_differ(tmp_path):
    trained(tmp_path, tiny_config(eval_samples=6))
    more = new_trainer(tmp_path, tiny_config(eval_samples=60))
    more.prepare()
    assert more.iteration == 4
    saved = Config.from_json((tmp_path / "config.json").read_text())
    assert saved == tiny_config(eval_samples=60)


def test_noresume_sets_the_old_run_aside_whole(tmp_path, capsys):
    directory, config = tmp_path / "run", tiny_config()
    trained(directory, config)
    (directory / "results.json").write_text("precious")
    first = files_of(directory)
    second = trained(directory, tiny_config(learning_rate=0.01), resume=False)
    assert second.iteration == 4
    aside = tmp_path / "run.previous-1"
    assert files_of(aside) == first
    assert str(aside) in capsys.readouterr().out
    assert Config.from_json((directory / "config.json").read_text()).inner.learning_rate == 0.01
    # What was set aside is a run like any other.
    back = new_trainer(aside, config)
    back.prepare()
    assert back.iteration == 4

    second_files = files_of(directory)
    trained(directory, config, resume=False)
    assert files_of(tmp_path / "run.previous-2") == second_files
    assert files_of(aside)["results.json"] == b"precious"
    weights = [checkpoint_values(d / "ckpt-4") for d in (directory, aside)]
    assert_same_bits(*weights)  # anew means from the first meta-iteration


# What goes wrong


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = tiny_config(meta_iters=9)
    trainer = new_trainer(tmp_path, config)
    trainer.prepare()
    at_iteration(trainer, 5, lambda loss: tf.constant(np.nan))
    with pytest.raises(RunError, match="inner loss became nan at meta-iteration 5") as caught:
        trainer.train()
    assert str(tmp_path / "ckpt-4") in one_line(caught)
    good = new_trainer(tmp_path, config)
    good.prepare()
    assert good.iteration == 4
    good.train()
    assert good.iteration == 9


def test_a_learning_rate_out_of_all_bounds_is_told_in_one_line(tmp_path):
    config = tiny_config(inner_optimizer="sgd", learning_rate=1e38)
    with pytest.raises(RunError, match=r"nothing was saved yet.*--learning_rate") as caught:
        trained(tmp_path, config)
    one_line(caught)
    assert not list(tmp_path.glob("ckpt-*"))


@pytest.mark.parametrize("where", ["weights", "inner slots", "outer slots"])
def test_numbers_that_are_not_finite_are_never_saved(tmp_path, where):
    config = tiny_config(meta_iters=8, outer_optimizer="adam", meta_step=0.001)
    trainer = new_trainer(tmp_path, config)
    trainer.prepare()
    learner = trainer.learner
    variable = {
        "weights": learner.model.trainable_variables[-1],
        "inner slots": learner.inner_optimizer.variables[-1],
        # Weights stay finite here: Adam divides by the slot.
        "outer slots": learner.outer_optimizer.variables[-1],
    }[where]

    def spoil(loss):
        values = variable.numpy()
        values[0] = np.inf
        variable.assign(values)
        return loss

    at_iteration(trainer, 3, spoil)
    with pytest.raises(RunError, match="no longer finite") as caught:
        trainer.train()
    assert str(tmp_path / "ckpt-2") in one_line(caught)
    good = new_trainer(tmp_path, config)
    good.prepare()
    assert good.iteration == 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with checkpoints at 2 and 4."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    trained(directory, tiny_config())
    return directory


def cut(name, length):
    return lambda d: (d / name).write_bytes((d / name).read_bytes()[:length])


def flip(name, position):
    def damage(directory):
        content = bytearray((directory / name).read_bytes())
        content[position] ^= 0xFF
        (directory / name).write_bytes(content)

    return damage


DATA, INDEX = "ckpt-4.data-00000-of-00001", "ckpt-4.index"
DAMAGES = {
    "data truncated": cut(DATA, -1),
    "data cut short": cut(DATA, 300),
    "data empty": cut(DATA, 0),
    "data missing": lambda d: (d / DATA).unlink(),
    "a bit of the weights": flip(DATA, 300),
    "index truncated": cut(INDEX, -10),
    "index missing": lambda d: (d / INDEX).unlink(),
    "configuration missing": lambda d: (d / "config.json").unlink(),
    "configuration cut short": cut("config.json", 100),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pretrained", [False, True])
def test_a_damaged_checkpoint_is_refused_in_one_line(finished, tmp_path, damage, pretrained):
    directory = tmp_path / "run"
    shutil.copytree(finished, directory)
    DAMAGES[damage](directory)
    before = files_of(directory)
    with pytest.raises(RunError) as caught:
        trainer = new_trainer(directory, tiny_config())
        trainer.restore_for_evaluation() if pretrained else trainer.prepare()
    assert str(directory) in one_line(caught)
    assert files_of(directory) == before  # nothing is thrown away, nothing begun anew


@pytest.mark.parametrize(
    "damage",
    [
        cut("checkpoint", 0),
        cut("checkpoint", 10),
        flip("checkpoint", 30),
        lambda d: (d / "checkpoint").unlink(),
        lambda d: (d / "checkpoint").write_bytes(b"\xff\xfe"),
        lambda d: (d / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"\n'),
    ],
)
def test_the_list_of_checkpoints_need_not_be_there(finished, tmp_path, damage):
    directory = tmp_path / "run"
    shutil.copytree(finished, directory)
    damage(directory)
    trainer = new_trainer(directory, tiny_config())
    trainer.prepare()
    assert trainer.iteration == 4
    with pytest.raises(RunError, match="another configuration"):
        new_trainer(directory, tiny_config(seed=1)).prepare()
    assert new_trainer(directory, tiny_config()).restore_for_evaluation() == tiny_config()


@pytest.mark.parametrize("name", ["model.keras", "results.json"])
def test_what_a_run_without_checkpoints_left_is_not_trained_over(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(RunError, match=f"holds {name} of a run, but no checkpoint"):
        new_trainer(tmp_path, tiny_config()).prepare()
    assert (tmp_path / name).read_text() == "precious"


def test_what_was_interrupted_is_passed_over_and_removed(finished, tmp_path):
    """What kills leave: of version 0.1 half an index that is not listed, and of this one a folder.

    Were the checkpoint listed it would be damaged, and the run refused.
    """
    directory, config = tmp_path / "run", tiny_config(meta_iters=4)
    shutil.copytree(finished, directory)
    (directory / "ckpt-6.index").write_bytes((directory / INDEX).read_bytes()[:-9])
    shutil.copy(directory / DATA, directory / "ckpt-6.data-00000-of-00001")
    (directory / "ckpt-7.part").mkdir()
    (directory / "ckpt-7.part" / "ckpt-7.index").write_text("half")
    (directory / "ckpt-8_temp").mkdir()
    shutil.copy(directory / DATA, directory / "ckpt-8.data-00000-of-00001")
    (directory / "checkpoint.tmp0123").write_text("")
    trainer = new_trainer(directory, config)
    trainer.prepare()
    assert trainer.iteration == 4
    left = {path.name for path in directory.iterdir()}
    assert left - {".lock", "data.json"} == {path.name for path in finished.iterdir()} - {
        ".lock",
        "data.json",
    }


@pytest.mark.parametrize("name", ["run[1]", "run*\\?, 1"])
def test_a_directory_of_any_name_touches_no_other(finished, tmp_path, name):
    for neighbour in ("run1", "runs, 1"):
        shutil.copytree(finished, tmp_path / neighbour)
    before = files_of(tmp_path)
    config = tiny_config(meta_iters=9, meta_step=0.5, meta_step_final=0.5)
    trained(tmp_path / name, config)
    back = new_trainer(tmp_path / name, config.replace(meta_iters=11))
    back.prepare()
    back.train()
    after = files_of(tmp_path)
    assert {n: after[n] for n in before} == before
    kept = sorted(p.stem for p in (tmp_path / name).iterdir() if p.suffix == ".index")
    assert kept == ["ckpt-10", "ckpt-11", "ckpt-9"]
    back.restore_for_evaluation()
    assert back.iteration == 11


def test_a_run_of_constant_step_is_prolonged_to_the_bits_of_the_longer_one(tmp_path):
    config = tiny_config(meta_step=0.3, meta_step_final=0.3, eval_interval=2)
    trained(tmp_path / "parts", config)
    longer = config.replace(meta_iters=7)
    trained(tmp_path / "parts", longer)
    trained(tmp_path / "whole", longer)
    assert_same_bits(*(checkpoint_values(tmp_path / d / "ckpt-7") for d in ("parts", "whole")))
    curves = [without_times(curve_of(tmp_path / d)) for d in ("parts", "whole")]
    assert curves[0] == curves[1]
    with pytest.raises(RunError, match="meta_iters: 7 -> 4"):
        new_trainer(tmp_path / "parts", config).prepare()


def test_an_annealed_run_is_not_prolonged(finished):
    before = files_of(finished)
    with pytest.raises(RunError) as caught:
        new_trainer(finished, tiny_config(meta_iters=9)).prepare()
    message = one_line(caught)
    assert "a run of 4 meta-iterations whose step size goes from 1 to 0" in message
    assert "--meta_step equal to --meta_step_final" in message
    assert files_of(finished) == before


# Which data


def with_identity(trainer, fingerprint):
    """As the loaders of data sets give it."""
    named = {"fingerprint": fingerprint, "description": f"folder of {fingerprint}"}
    object.__setattr__(trainer.dataset, "__class__", type("Named", (FewShotDataset,), named))
    return trainer


def test_other_data_of_the_same_name_are_refused(tmp_path, capsys):
    config = tiny_config(meta_iters=4)
    first = with_identity(new_trainer(tmp_path, config), "abc123")
    first.prepare()
    first.train()
    assert json.loads((tmp_path / "data.json").read_text()) == {
        "dataset": "glyphs",
        "fingerprint": "abc123",
        "description": "folder of abc123",
    }
    (tmp_path / "data.json").unlink()  # the checkpoints know it themselves
    before = files_of(tmp_path)
    for step in ("prepare", "restore_for_evaluation"):
        with pytest.raises(RunError) as caught:
            getattr(with_identity(new_trainer(tmp_path, config), "def456"), step)()
        message = one_line(caught)
        assert "Expected: abc123 folder of abc123. Received: def456 folder of def456" in message
    assert files_of(tmp_path) == before
    capsys.readouterr()
    with_identity(new_trainer(tmp_path, config), "abc123").prepare()
    assert "note:" not in capsys.readouterr().out
    # A run that does not say, as those of version 0.1, goes on with a note.
    old = with_identity(new_trainer(tmp_path / "old", config), "")
    old.prepare()
    old.train()
    with_identity(new_trainer(tmp_path / "old", config), "abc123").prepare()
    assert "does not say on which data it was trained" in capsys.readouterr().out


# What goes wrong


def test_the_way_back_to_an_older_checkpoint_is_told_and_works(finished, tmp_path):
    directory, config = tmp_path / "run", tiny_config()
    shutil.copytree(finished, directory)
    DAMAGES["data truncated"](directory)
    with pytest.raises(RunError, match=r"To go back to ckpt-2, delete ckpt-4\.\*"):
        new_trainer(directory, config).prepare()
    for path in directory.glob("ckpt-4.*"):
        path.unlink()
    back = new_trainer(directory, config)
    back.prepare()
    assert back.iteration == 2
    back.train()
    assert_same_bits(
        checkpoint_values(directory / "ckpt-4"), checkpoint_values(finished / "ckpt-4")
    )


def test_noresume_sets_a_damaged_run_aside(finished, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(finished, directory)
    DAMAGES["data truncated"](directory)
    DAMAGES["configuration cut short"](directory)
    before = files_of(directory)
    trained(directory, tiny_config(), resume=False)
    assert files_of(tmp_path / "run.previous-1") == before


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="--checkpoint: cannot write") as caught:
            new_trainer(place, tiny_config()).prepare()
        one_line(caught)


def test_a_full_disk_is_told_and_the_last_checkpoint_survives(tmp_path):
    config = tiny_config(meta_iters=6, eval_interval=100)
    trainer = new_trainer(tmp_path, config)
    trainer.prepare()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(loss):  # no file may grow beyond 300 bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
        return loss

    at_iteration(trainer, 3, fill)
    try:
        with pytest.raises(RunError, match="--checkpoint: cannot write") as caught:
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path) in one_line(caught)
    good = new_trainer(tmp_path, config)
    good.prepare()
    assert good.iteration == 2
    good.train()
    assert good.iteration == 6


# Evaluating what was trained


def test_pretrained_weights_may_be_evaluated_otherwise(finished):
    before = files_of(finished)
    config = tiny_config(shots=1, eval_batch=3, transductive=True, train_shots=2, meta_iters=77)
    trainer = new_trainer(finished, config)
    assert trainer.restore_for_evaluation() == tiny_config()
    assert trainer.iteration == 4
    values = checkpoint_values(finished / "ckpt-4")
    learner = trainer.learner
    for kind, variables in (
        ("weights", learner.model.variables),
        ("inner_optimizer", learner.inner_optimizer.variables),
    ):
        for i, variable in enumerate(variables):
            saved = values[f"{kind}/{i}/.ATTRIBUTES/VARIABLE_VALUE"]
            np.testing.assert_array_equal(variable.numpy(), saved)
    assert files_of(finished) == before


def test_a_learning_rate_given_for_the_evaluation_is_used(finished):
    trainer = new_trainer(finished, tiny_config(learning_rate=0.125))
    trainer.restore_for_evaluation()
    assert float(trainer.learner.inner_optimizer.learning_rate.numpy()) == 0.125


def test_the_outer_optimizer_does_not_matter_to_an_evaluation(finished, tmp_path):
    outer = {"outer_optimizer": "adam", "meta_step": 0.001}
    trained(tmp_path, tiny_config(**outer))
    for directory, config in ((tmp_path, tiny_config()), (finished, tiny_config(**outer))):
        trainer = new_trainer(directory, config)
        trainer.restore_for_evaluation()
        saved = checkpoint_values(directory / "ckpt-4")["weights/0/.ATTRIBUTES/VARIABLE_VALUE"]
        np.testing.assert_array_equal(trainer.learner.model.variables[0].numpy(), saved)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"classes": 2}, "--classes=3 (received 2)"),
        ({"seed": 1}, "--seed=0 (received 1)"),
        ({"inner_optimizer": "sgd"}, "--inner_optimizer=adam (received sgd)"),
    ],
)
def test_pretrained_weights_of_another_problem_are_refused(finished, other, words):
    with pytest.raises(RunError) as caught:
        new_trainer(finished, tiny_config(**other)).restore_for_evaluation()
    assert words in one_line(caught)


def test_pretrained_weights_of_another_data_set_are_refused(finished, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(finished, directory)
    path = directory / "config.json"
    path.write_text(path.read_text().replace('"glyphs"', '"omniglot"'))
    with pytest.raises(RunError) as caught:
        new_trainer(directory, tiny_config()).restore_for_evaluation()
    assert "--dataset=omniglot (received glyphs)" in one_line(caught)


def test_without_a_checkpoint_there_is_nothing_to_evaluate(tmp_path):
    directory = tmp_path / "nowhere"
    with pytest.raises(RunError, match=r"--pretrained: no checkpoint in .*nowhere") as caught:
        new_trainer(directory, tiny_config()).restore_for_evaluation()
    one_line(caught)
    assert not directory.exists()


# Signals


@pytest.mark.parametrize("iteration", [2, 5])
def test_a_signal_stops_between_two_iterations_even_after_the_last(tmp_path, iteration):
    config = tiny_config(meta_iters=6)
    trainer = new_trainer(tmp_path, config, checkpoint_interval=100, resume=False)
    trainer.prepare()
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]

    def interrupt(loss):
        os.kill(os.getpid(), signal.SIGTERM)
        return loss

    at_iteration(trainer, iteration, interrupt)
    with pytest.raises(RunInterrupted) as caught:
        trainer.train()
    assert f"stopped after {iteration + 1} of 6 meta-iterations and saved" in one_line(caught)
    assert "without --noresume" in str(caught.value)
    assert caught.value.exit_code == 143
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    again = new_trainer(tmp_path, config)
    again.prepare()
    assert again.iteration == iteration + 1


@pytest.fixture
def usual_interrupts():
    """Ctrl-C acts as in a terminal; a shell's background job, as CI's may be, ignores it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_a_signal_that_is_ignored_stays_so(tmp_path, usual_interrupts):
    """As ``nohup`` starts a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trainer = new_trainer(tmp_path, tiny_config(meta_iters=6))
    trainer.prepare()

    def interrupt(loss):
        os.kill(os.getpid(), signal.SIGINT)
        return loss

    at_iteration(trainer, 3, interrupt)
    trainer.train()
    assert trainer.iteration == 6


def test_a_second_signal_acts_as_usual(tmp_path, usual_interrupts):
    config = tiny_config(meta_iters=6)
    trainer = new_trainer(tmp_path, config)
    trainer.prepare()

    def interrupt_twice(loss):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return loss

    at_iteration(trainer, 3, interrupt_twice)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    again = new_trainer(tmp_path, config)
    again.prepare()
    assert again.iteration == 2


# What it leaves on disk


def scalars(directory):
    """TensorBoard's reading of a folder of event files: tag -> [(step, value)]."""
    events = EventAccumulator(str(directory), size_guidance={"tensors": 0}).Reload()
    return {
        tag: [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def test_tensorboard_and_the_file_show_the_same_curve(tmp_path):
    config = tiny_config(meta_iters=8, eval_interval=3)
    trained(tmp_path, config)
    rows = curve_of(tmp_path)
    assert [int(row["iteration"]) for row in rows] == [0, 3, 6]
    assert list(rows[0]) == ["iteration", "seconds", "meta_step", "inner_loss", "train", "test"]
    seconds = [float(row["seconds"]) for row in rows]
    assert 0 < seconds[0] <= seconds[1] <= seconds[2]
    train, test = scalars(tmp_path / "train"), scalars(tmp_path / "test")
    assert set(test) == {"accuracy", "running_accuracy"}
    assert set(train) == {
        *("accuracy", "running_accuracy", "meta_step", "inner_loss", "seconds"),
        "iterations_per_second",
    }
    for column, logged in (
        ("test", test["accuracy"]),
        ("train", train["accuracy"]),
        ("meta_step", train["meta_step"]),
        ("inner_loss", train["inner_loss"]),
    ):
        assert [step for step, _ in logged] == [0, 3, 6]
        for row, (_, value) in zip(rows, logged, strict=True):
            assert float(row[column]) == pytest.approx(value, rel=1e-5)
    assert all(value > 0 for _, value in train["iterations_per_second"])
    means = np.cumsum([float(row["test"]) for row in rows]) / np.arange(1, len(rows) + 1)
    np.testing.assert_allclose([v for _, v in test["running_accuracy"]], means, atol=1e-5)
    for row in rows:  # one task of 3 queries
        assert min(abs(float(row["test"]) - n / 3) for n in range(4)) < 1e-5


def test_tensorboard_has_the_configuration(tmp_path):
    config = tiny_config(eval_interval=2)
    trained(tmp_path, config)
    (log,) = (p for p in tmp_path.iterdir() if ".tfevents." in p.name)
    events = EventAccumulator(str(log), size_guidance={"tensors": 0}).Reload()
    (text,) = events.Tensors("configuration")
    assert b"| learning_rate | 0.001 |" in tf.make_ndarray(text.tensor_proto).item()
    (content,) = events.PluginTagToContent("hparams").values()
    assert b"learning_rate" in content


CURVE_DAMAGES = {
    "missing": lambda p: p.unlink(),
    "empty": lambda p: p.write_bytes(b""),
    "cut in a last field": lambda p: p.write_bytes(p.read_bytes()[:-40]),
    "not text": lambda p: p.write_bytes(b"\xff\xfe" + p.read_bytes()),
    "a digit": lambda p: p.write_text(p.read_text().replace("\n3,", "\n3,9")),
    "an accuracy": lambda p: p.write_text(p.read_text()[:-2] + "7\n"),
    "a row": lambda p: p.write_text(p.read_text().replace("\n2,", "\n7,")),
    "a name": lambda p: p.write_text(p.read_text().replace("train", "trein")),
}


@pytest.mark.parametrize("damage", CURVE_DAMAGES)
def test_a_damaged_curve_is_recovered_from_the_event_files(tmp_path, capsys, damage):
    config = tiny_config(meta_iters=6, eval_interval=1, meta_step=0.3, meta_step_final=0.3)
    trained(tmp_path, config)
    rows, table = curve_of(tmp_path), tmp_path / "curve.csv"
    CURVE_DAMAGES[damage](table)
    damaged = table.read_bytes() if table.exists() else None
    capsys.readouterr()
    trained(tmp_path, config.replace(meta_iters=8))
    again = curve_of(tmp_path)
    assert without_times(again)[:6] == without_times(rows)
    for ours, theirs in zip(again, rows, strict=False):
        assert float(ours["seconds"]) == pytest.approx(float(theirs["seconds"]), abs=0.002)
    assert [int(row["iteration"]) for row in again] == list(range(8))
    # A last line that is cut is what kills leave; whatever else is damaged is kept and reported.
    if damage != "cut in a last field":
        assert "curve.csv was damaged" in capsys.readouterr().out
    if damaged is not None and damage != "cut in a last field":
        assert (tmp_path / "curve.csv.damaged-1").read_bytes() == damaged


def test_what_cannot_be_recovered_of_a_curve_is_told(tmp_path, capsys):
    config = tiny_config(meta_iters=4, eval_interval=1, meta_step=0.3, meta_step_final=0.3)
    trained(tmp_path, config)
    (tmp_path / "curve.csv").unlink()
    shutil.rmtree(tmp_path / "test")
    trained(tmp_path, config.replace(meta_iters=6))
    assert [row["iteration"] for row in curve_of(tmp_path)] == ["4", "5"]
    assert "0 of 4 points recovered from TensorBoard's logs, 4 missing" in capsys.readouterr().out


def test_a_killed_process_leaves_its_whole_curve_in_tensorboard(tmp_path):
    # Read in the middle of the run, when nothing is closed yet.
    trainer = new_trainer(tmp_path, tiny_config(meta_iters=8, eval_interval=1))
    trainer.prepare()
    found = []
    at_iteration(trainer, 5, lambda loss: found.append(scalars(tmp_path / "test")) or loss)
    trainer.train()
    assert [step for step, _ in found[0]["accuracy"]] == [0, 1, 2, 3, 4]


def test_the_curve_ends_where_the_checkpoint_does(tmp_path):
    config = tiny_config(meta_iters=6, eval_interval=1)
    trainer = new_trainer(tmp_path, config)
    trainer.prepare()

    def crash(_):
        raise ZeroDivisionError

    at_iteration(trainer, 3, crash)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    rows = curve_of(tmp_path)
    assert [row["iteration"] for row in rows] == ["0", "1", "2"]  # 2 is not in the checkpoint
    with (tmp_path / "curve.csv").open("a") as file:
        file.write("4,9.9,0.4,1.3,0.333")  # half a line
    resumed = new_trainer(tmp_path, config)
    resumed.prepare()
    assert resumed.iteration == 2
    before = resumed.seconds
    resumed.train()
    assert resumed.seconds > before > 0
    again = curve_of(tmp_path)
    assert [row["iteration"] for row in again] == ["0", "1", "2", "3", "4", "5"]
    assert again[:2] == rows[:2]
    assert without_times(again)[2] == without_times(rows)[2]
    assert None not in {key for row in again for key in row}


def test_what_a_run_without_a_checkpoint_left_is_not_mixed_in(tmp_path):
    (tmp_path / "curve.csv").write_text("iteration,seconds\n99,1.0\n")
    (tmp_path / "config.json").write_text(tiny_config(seed=9).to_json())
    config = tiny_config(eval_interval=2)
    trained(tmp_path, config)
    assert [row["iteration"] for row in curve_of(tmp_path)] == ["0", "2"]
    assert Config.from_json((tmp_path / "config.json").read_text()) == config


def test_running_accuracies_forget(tmp_path):
    window = curve._RUNNING_WINDOW
    with LearningCurve(tmp_path, ("train", "test"), 0, 1) as points:
        for i in range(4 * window):
            early = i < 3 * window
            points.add(
                i,
                float(i),
                meta_step=1.0,
                inner_loss=1.0,
                train=float(not early),
                test=float(early),
            )
            if i == 3 * window + window // 2 - 1:
                assert points.running_accuracies() == "train 50.0 %  test 50.0 %"
        assert points.running_accuracies() == "train 100.0 %  test 0.0 %"
    # … and are taken up again where the checkpoint is.
    with LearningCurve(tmp_path, ("train", "test"), 3 * window + window // 2, 1) as points:
        assert points.running_accuracies() == "train 50.0 %  test 50.0 %"


def test_the_configuration_on_disk_is_the_one_that_ran(finished):
    assert Config.from_json((finished / "config.json").read_text()) == tiny_config()


def test_a_file_where_the_logs_should_be_is_one_line(tmp_path):
    (tmp_path / "train").write_text("not a folder")
    trainer = new_trainer(tmp_path, tiny_config())
    trainer.prepare()
    with pytest.raises(RunError, match="logs into the folders train, test of"):
        trainer.train()
