"""The published rows: what they train is what the authors' commands train."""

import shlex

import pytest
from absl import flags as absl_flags

from supervised_reptile.config import Config
from supervised_reptile.config.command_line import parse_flags
from supervised_reptile.config.flags import config_from_flags, define_flags
from supervised_reptile.errors import ConfigError
from supervised_reptile.from_config import meta_step_from_config
from supervised_reptile.reproduction.published import (
    EVALUATION_ONLY,
    ROWS,
    find_row,
    row_of,
    run_name,
)

# The authors' published commands, as people have them in scripts.
COMMANDS = {
    "omniglot-5way": """--shots 1 --inner-batch 10 --inner-iters 5 --meta-step 1 --meta-batch 5
        --meta-iters 100000 --eval-batch 5 --eval-iters 50 --learning-rate 0.001
        --meta-step-final 0 --train-shots 10 --transductive""",
    "omniglot-20way": """--shots 1 --classes 20 --inner-batch 20 --inner-iters 10 --meta-step 1
        --meta-batch 5 --meta-iters 200000 --eval-batch 10 --eval-iters 50 --learning-rate 0.0005
        --meta-step-final 0 --train-shots 10""",
    "miniimagenet-5way": """--inner-batch 10 --inner-iters 8 --meta-step 1 --meta-batch 5
        --meta-iters 100000 --eval-batch 15 --eval-iters 50 --learning-rate 0.001
        --meta-step-final 0 --train-shots 15""",
}


def parsed(command: str, dataset: str) -> Config:
    values = absl_flags.FlagValues()
    define_flags((dataset,), flag_values=values)
    parse_flags(["run.py", *shlex.split(command)], values)
    return config_from_flags(values)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_row_is_what_the_authors_command_computes(name):
    row = find_row(name)
    theirs = parsed(COMMANDS[name], row.dataset)
    training = row.training(seed=0)
    assert row_of(theirs) is row
    assert training.differences(theirs, ignore=EVALUATION_ONLY) == []
    ours = row.evaluation(
        training, theirs.task.shots, theirs.eval.transductive, theirs.eval.eval_samples
    )
    assert ours.differences(theirs, ignore={"eval_interval"}) == []


def test_the_one_shot_column_of_table_4_is_fine_tuned_with_a_batch_of_5():
    row = find_row("miniimagenet-5way")
    training = row.training(0)
    batches = {
        shots: row.evaluation(training, shots, True, 10).eval.eval_batch for shots, _ in row.tasks()
    }
    assert batches == {1: 5, 5: 15, 10: 15}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_training_is_of_one_row_whatever_its_seed_and_length(row):
    for training in (row.training(0), row.training(7, meta_iters=300)):
        assert [r for r in ROWS if r.is_trained_by(training)] == [row]
        for shots, transductive in row.tasks():
            evaluated = row.evaluation(training, shots, transductive, 10)
            assert row_of(evaluated) is row
            assert (evaluated.task.shots, evaluated.eval.transductive) == (shots, transductive)
            # A stand-in has no published numbers, and says so.
            assert row.published(shots, transductive) or "Nothing published" in row.note
    assert row_of(row.training(0).replace(learning_rate=0.123)) is None


def test_the_sgd_row_is_table_3_but_for_the_optimizer():
    adam, sgd = find_row("omniglot-5way").training(0), find_row("omniglot-5way-sgd").training(0)
    assert sorted(adam.differences(sgd)) == [
        "inner_optimizer: adam -> sgd",
        "learning_rate: 0.001 -> 0.003",
    ]


# From Finn et al.'s paper (Appendix A.1) and the usage of their program: the step on the mean loss,
# steps in training and at test, tasks of a meta-batch, queries of a class in training.
FINN = {
    "omniglot-5way-maml-1shot": (0.4, 1, 3, 32, 1),
    "omniglot-5way-maml-5shot": (0.4, 1, 3, 32, 5),
    "omniglot-20way-maml-1shot": (0.1, 5, 5, 16, 1),
    "omniglot-20way-maml-5shot": (0.1, 5, 5, 16, 5),
    "miniimagenet-5way-maml-1shot": (0.01, 5, 10, 4, 15),
    "miniimagenet-5way-maml-5shot": (0.01, 5, 10, 2, 15),
}


@pytest.mark.parametrize("name", FINN)
def test_maml_and_fomaml_are_trained_as_finn_et_al_did(name):
    row = find_row(name)
    config = row.training(0)
    (task,) = row.tasks()
    evaluated = row.evaluation(config, *task, 600)
    support = config.task.classes * config.task.shots
    assert config.inner.inner_batch == evaluated.eval.eval_batch == support
    step = config.inner.learning_rate * support  # our loss is summed over the mini-batch
    queries = config.meta.foml_tail
    # The last of the inner steps is the query set's.
    steps = config.inner.inner_iters - 1, evaluated.eval.eval_iters
    assert (pytest.approx(step), *steps, config.meta.meta_batch, queries) == FINN[name]
    assert config.task.train_shots == config.task.shots + queries
    assert (config.meta.outer_optimizer, meta_step_from_config(config)(59_999)) == ("adam", 0.001)
    fomaml = find_row(name.replace("maml", "fomaml")).training(0)
    assert config.differences(fomaml) == ["algorithm: maml -> fomaml"]


def test_runs_of_other_lengths_have_folders_of_their_own():
    row = find_row("omniglot-20way")
    assert run_name(row, row.training(2)) == "omniglot-20way/seed2"
    assert run_name(row, row.training(2, 5000)) == "omniglot-20way-5000/seed2"
    assert run_name(row, row.training(2, 300_000)) == "omniglot-20way-300000/seed2"


def test_an_unknown_row_is_told_with_those_there_are():
    with pytest.raises(ConfigError, match=r"--row: must be one of omniglot-5way, .*'omniglot'"):
        find_row("omniglot")
