"""The configuration: the paper's numbers, the rules and their messages, the JSON round trip."""

import dataclasses
import doctest
import inspect
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervised_reptile.config import (
    ALGORITHMS,
    FIELDS,
    INNER_OPTIMIZERS,
    OUTER_OPTIMIZERS,
    RESUME_MAY_CHANGE,
    Config,
    EvalConfig,
    ModelConfig,
    RunOptions,
    TaskConfig,
    check_task,
    paper_config,
)
from supervised_reptile.config import configuration as config_module
from supervised_reptile.config.paper import (
    DATASETS,
    OPTIMIZER_CONSTANTS,
    DatasetFacts,
    dataset_facts,
)
from supervised_reptile.config.settings import SECTIONS
from supervised_reptile.errors import ConfigError

# Typed from the paper's Tables 3 and 4.
TABLES = """
                 omniglot,5  omniglot,20  miniimagenet,1  miniimagenet,5
learning_rate         0.001       0.0005           0.001           0.001
inner_batch              10           20              10              10
inner_iters               5           10               8               8
train_shots              10           10              15              15
meta_step               1.0          1.0             1.0             1.0
meta_step_final           0            0               0               0
meta_iters           100000       200000          100000          100000
meta_batch                5            5               5               5
eval_iters               50           50              50              50
eval_batch                5           10               5              15
"""
HEADER, *ROWS = (line.split() for line in TABLES.strip().splitlines())
PAPER = {
    column: {name: float(numbers[i]) for name, *numbers in ROWS} for i, column in enumerate(HEADER)
}
ORIGINAL = {
    "seed": 0, "replacement": False, "eval_samples": 10_000, "eval_interval": 10,
    "weight_decay": 1.0, "transductive": False, "foml_tail": None, "algorithm": "reptile",
    "inner_optimizer": "adam", "outer_optimizer": "interpolation", "beta_1": 0.0,
    "beta_2": 0.999, "epsilon": 1e-8, "step_weights": None, "reset_optimizer": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "classes", "shots", "column"),
    [
        ("omniglot", 5, 1, "omniglot,5"),
        ("omniglot", 5, 5, "omniglot,5"),
        ("omniglot", 19, 5, "omniglot,5"),
        ("omniglot", 20, 1, "omniglot,20"),
        ("omniglot", 20, 5, "omniglot,20"),
        ("omniglot", 21, 5, "omniglot,20"),
        ("glyphs", 5, 1, "omniglot,5"),
        ("glyphs", 20, 5, "omniglot,20"),
        ("miniimagenet", 5, 1, "miniimagenet,1"),
        ("miniimagenet", 5, 5, "miniimagenet,5"),
        ("miniimagenet", 5, 10, "miniimagenet,5"),
    ],
)
def test_paper_values(dataset, classes, shots, column):
    flat = paper_config(dataset, classes, shots).flat()
    task = {"dataset": dataset, "classes": classes, "shots": shots}
    assert {name: flat[name] for name in task} == task
    assert {name: flat[name] for name in PAPER[column]} == PAPER[column]
    assert {name: flat[name] for name in ORIGINAL} == ORIGINAL


def test_defaults_are_5_way_5_shot():
    assert paper_config("omniglot") == paper_config("omniglot", 5, 5)


def test_overrides_are_flat_names_and_unknown_ones_are_refused():
    assert paper_config("omniglot", inner_batch=25, seed=7).differences(
        paper_config("omniglot")
    ) == ["inner_batch: 25 -> 10", "seed: 7 -> 0"]
    with pytest.raises(ConfigError, match=r"^unknown hyper-parameter 'inner_batch_size'; known: "):
        paper_config("omniglot", inner_batch_size=25)


def test_train_shots_0_resolves_to_shots():
    assert paper_config("omniglot", shots=3, train_shots=0).task.train_shots == 3


def test_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        paper_config("omniglot").task.shots = 2


def test_numpy_scalars_and_whole_numbers_become_plain():
    config = paper_config("omniglot", shots=np.int64(2), learning_rate=np.float64(0.5), meta_step=1)
    assert [type(v) for v in (config.task.shots, config.inner.learning_rate)] == [int, float]
    assert type(config.meta.meta_step) is float
    assert Config.from_json(config.to_json()) == config


OPTIMIZERS = "sgd, adam, rmsprop, adadelta, adagrad, adamax, adamw, ftrl, lion, nadam"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"shots": 25},
            "--shots: shots + 1 must be at most 20, the drawings of a character. Received: 25",
        ),
        (
            {"shots": 20},
            "--shots: shots + 1 must be at most 20, the drawings of a character. Received: 20",
        ),
        ({"shots": 0}, "--shots: must be at least 1. Received: 0"),
        (
            {"dataset": "miniimagenet", "shots": 600},
            "--shots: shots + 1 must be at most 600, the images of a class. Received: 600",
        ),
        (
            {"train_shots": 21},
            "--train_shots: must be at most 20, the drawings of a character. Received: 21",
        ),
        (
            {"train_shots": -1},
            "--train_shots: must be at least 0, where 0 means the value of --shots. Received: -1",
        ),
        ({"classes": 1}, "--classes: must be at least 2. Received: 1"),
        (
            {"classes": 424},
            "--classes: must be at most 423, the classes of the test split of omniglot."
            " Received: 424",
        ),
        (
            {"dataset": "miniimagenet", "classes": 17},
            "--classes: must be at most 16, the classes of the validation split of miniimagenet."
            " Received: 17",
        ),
        (
            {"dataset": "mnist"},
            "--dataset: must be one of omniglot, glyphs, miniimagenet or folder:NAME, a folder of"
            " images. Received: 'mnist'",
        ),
        ({"inner_batch": 0}, "--inner_batch: must be at least 1. Received: 0"),
        ({"inner_iters": 0}, "--inner_iters: must be at least 1. Received: 0"),
        ({"meta_batch": 0}, "--meta_batch: must be at least 1. Received: 0"),
        ({"meta_iters": 0}, "--meta_iters: must be at least 1. Received: 0"),
        ({"eval_batch": 0}, "--eval_batch: must be at least 1. Received: 0"),
        ({"eval_iters": -1}, "--eval_iters: must be at least 0. Received: -1"),
        ({"eval_samples": 0}, "--eval_samples: must be at least 1. Received: 0"),
        ({"eval_interval": 0}, "--eval_interval: must be at least 1. Received: 0"),
        (
            {"replacement": True, "inner_batch": 51},
            "--inner_batch: with --replacement, must be at most 50, the examples of a training"
            " task. Received: 51",
        ),
        (
            {"replacement": True, "inner_batch": 41, "algorithm": "fomaml", "foml_tail": 2},
            "--inner_batch: with --replacement, must be at most 40, the examples of a training"
            " task less its tail. Received: 41",
        ),
        (
            {"replacement": True, "shots": 1, "eval_batch": 6},
            "--eval_batch: with --replacement, must be at most 5, the examples of an evaluation"
            " task. Received: 6",
        ),
        (
            {"foml_tail": 5},
            "--foml_tail: needs --foml or --algorithm=maml: only these treat the last mini-batch"
            " separately. Received: 5",
        ),
        ({"foml_tail": 0, "algorithm": "fomaml"}, "--foml_tail: must be at least 1. Received: 0"),
        (
            {"foml_tail": 10, "algorithm": "fomaml"},
            "--foml_tail: must be less than train_shots (10). Received: 10",
        ),
        (
            {"weight_decay": 0.0},
            "--weight_decay: must be greater than 0 and at most 1 (off). Received: 0.0",
        ),
        (
            {"weight_decay": 1.5},
            "--weight_decay: must be greater than 0 and at most 1 (off). Received: 1.5",
        ),
        (
            {"learning_rate": 0.0},
            "--learning_rate: must be finite and greater than 0. Received: 0.0",
        ),
        (
            {"learning_rate": math.inf},
            "--learning_rate: must be finite and greater than 0. Received: inf",
        ),
        (
            {"learning_rate": math.nan},
            "--learning_rate: must be finite and greater than 0. Received: nan",
        ),
        ({"meta_step": -0.1}, "--meta_step: must be finite and at least 0. Received: -0.1"),
        (
            {"meta_step_final": math.nan},
            "--meta_step_final: must be finite and at least 0. Received: nan",
        ),
        ({"beta_1": 1.0}, "--beta_1: must be at least 0 and less than 1. Received: 1.0"),
        ({"beta_2": -0.1}, "--beta_2: must be at least 0 and less than 1. Received: -0.1"),
        ({"rho": 1.0}, "--rho: must be at least 0 and less than 1. Received: 1.0"),
        ({"momentum": 1.0}, "--momentum: must be at least 0 and less than 1. Received: 1.0"),
        (
            {"inner_optimizer": "sgd", "beta_1": 0.5},
            "--beta_1: needs --inner_optimizer=adam: sgd does not have it. Received: 0.5",
        ),
        (
            {"inner_optimizer": "sgd", "epsilon": 1e-7},
            "--epsilon: needs --inner_optimizer=adam or rmsprop: sgd does not have it."
            " Received: 1e-07",
        ),
        (
            {"momentum": 0.9},
            "--momentum: needs --inner_optimizer=rmsprop or sgd: adam does not have it."
            " Received: 0.9",
        ),
        (
            {"rho": 0.8},
            "--rho: needs --inner_optimizer=rmsprop: adam does not have it. Received: 0.8",
        ),
        ({"epsilon": 0.0}, "--epsilon: must be finite and greater than 0. Received: 0.0"),
        ({"seed": -1}, "--seed: must be at least 0 and less than 2**32. Received: -1"),
        (
            {"seed": 2**32},
            "--seed: must be at least 0 and less than 2**32. Received: 4294967296",
        ),
        (
            {"algorithm": "anil"},
            "--algorithm: must be one of reptile, fomaml, maml. Received: 'anil'",
        ),
        (
            {"algorithm": "maml"},
            "--inner_optimizer: must be sgd with --algorithm=maml, which differentiates plain SGD"
            " steps. Received: 'adam'",
        ),
        (
            {"algorithm": "maml", "inner_optimizer": "sgd", "inner_iters": 1},
            "--inner_iters: must be at least 2 with --algorithm=maml: the last mini-batch is the"
            " query set. Received: 1",
        ),
        (
            {"step_weights": (1.0, 0.5), "inner_iters": 3},
            "--step_weights: must have a weight for each of the 3 --inner_iters."
            " Received: (1.0, 0.5)",
        ),
        (
            {"step_weights": (0.0, 1.0), "inner_iters": 2, "algorithm": "fomaml"},
            "--step_weights: needs --algorithm=reptile: the other algorithms have fixed weights."
            " Received: (0.0, 1.0)",
        ),
        (
            {"step_weights": (math.inf,), "inner_iters": 1},
            "--step_weights: must be finite numbers. Received: (inf,)",
        ),
        (
            {"inner_optimizer": "adm"},
            "--inner_optimizer: must be one of sgd, adam, rmsprop. Received: 'adm'",
        ),
        (
            {"outer_optimizer": "Adam", "meta_step": 0.001},
            f"--outer_optimizer: must be one of interpolation, {OPTIMIZERS}. Received: 'Adam'",
        ),
        (
            {"outer_optimizer": "adam"},
            "--meta_step: must be given with --outer_optimizer=adam, whose learning rate it is"
            " (the paper's 1.0 is for interpolation). Received: nothing",
        ),
        ({"shots": 2.5}, "--shots: must be an integer. Received: 2.5"),
        ({"shots": True}, "--shots: must be an integer. Received: True"),
        ({"foml_tail": "5"}, "--foml_tail: must be an integer. Received: '5'"),
        ({"meta_step": "1"}, "--meta_step: must be a number. Received: '1'"),
        ({"replacement": 1}, "--replacement: must be true or false. Received: 1"),
        ({"inner_optimizer": None}, "--inner_optimizer: must be a string. Received: None"),
        ({"seed": 0.5}, "--seed: must be an integer. Received: 0.5"),
    ],
)
def test_rules(changes, message):
    with pytest.raises(ConfigError) as caught:
        paper_config(**{"dataset": "omniglot"} | changes)
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "changes",
    [
        {"shots": 19},
        {"shots": 1, "train_shots": 20},
        {"classes": 423},
        {"shots": 1, "inner_batch": 51, "eval_batch": 6},  # Straddling, without replacement.
        {"replacement": True, "inner_batch": 50, "eval_batch": 25},
        {"algorithm": "fomaml", "foml_tail": 9},
        {"algorithm": "fomaml", "foml_tail": 1, "inner_iters": 1},
        {"eval_iters": 0, "eval_samples": 1, "meta_iters": 1},
        {"meta_step": 0.0, "meta_step_final": 2.0},
        {"outer_optimizer": "adam", "meta_step": 0.001},
        {"seed": 2**32 - 1},
    ],
)
def test_values_at_the_edge_of_the_rules_are_accepted(changes):
    flat = paper_config("omniglot", **changes).flat()
    assert {name: flat[name] for name in changes} == changes


def test_task_of_a_data_set_whose_size_is_known_once_loaded():
    config = paper_config("folder:flowers", classes=500, shots=3000)
    assert config.eval.eval_batch == 15
    loaded = DatasetFacts(
        dataset_facts("folder:flowers").columns, examples=400, splits={"train": 64, "test": 20}
    )
    with pytest.raises(ConfigError, match=r"^--shots: shots \+ 1 must be at most 400, the images"):
        check_task(config.task, loaded)
    with pytest.raises(
        ConfigError, match=r"^--classes: must be at most 20, the classes of the test"
    ):
        check_task(TaskConfig("folder:flowers", 21, 5, 0), loaded)


@st.composite
def configs(draw):
    fraction = st.floats(0, 1, exclude_max=True)
    positive = st.floats(0, 1e6, exclude_min=True)
    count = st.integers(1, 10**6)
    values = {"inner_optimizer": draw(st.sampled_from(INNER_OPTIMIZERS))}
    for name in OPTIMIZER_CONSTANTS[values["inner_optimizer"]]:
        values[name] = draw(positive if name == "epsilon" else fraction)
    values["learning_rate"] = draw(positive)
    values |= {name: draw(st.floats(0, 100)) for name in ("meta_step", "meta_step_final")}
    values |= {
        name: draw(count)
        for name in ("inner_iters", "meta_iters", "meta_batch", "eval_samples", "eval_interval")
    }
    classes, shots = draw(st.integers(2, 16)), draw(st.integers(1, 19))
    values["train_shots"] = draw(st.integers(0, 20))
    train_shots = values["train_shots"] or shots
    values["algorithm"] = draw(st.sampled_from(ALGORITHMS))
    if values["algorithm"] == "fomaml" and train_shots > 1:
        values["foml_tail"] = draw(st.none() | st.integers(1, train_shots - 1))
    values["replacement"] = draw(st.booleans())
    most = classes * (train_shots - (values.get("foml_tail") or 0))
    values["inner_batch"] = draw(st.integers(1, most if values["replacement"] else 10**4))
    most = classes * shots
    values["eval_batch"] = draw(st.integers(1, most if values["replacement"] else 10**4))
    values["eval_iters"] = draw(st.integers(0, 1000))
    values["weight_decay"] = draw(st.floats(0, 1, exclude_min=True))
    values["transductive"] = draw(st.booleans())
    values["reset_optimizer"] = draw(st.booleans())
    values |= {"pretrain": draw(st.booleans()), "freeze": draw(st.integers(0, 4))}
    if values["algorithm"] == "maml":
        for name in OPTIMIZER_CONSTANTS[values["inner_optimizer"]]:
            del values[name]
        values |= {"inner_optimizer": "sgd", "weight_decay": 1.0}
        values["inner_iters"] = draw(st.integers(2, 1000))
    elif values["algorithm"] == "reptile" and draw(st.booleans()):
        weights = draw(st.lists(st.floats(-10, 10), min_size=1, max_size=9))
        values |= {"step_weights": tuple(weights), "inner_iters": len(weights)}
    values["outer_optimizer"] = draw(st.sampled_from(OUTER_OPTIMIZERS))
    values["seed"] = draw(st.integers(0, 2**32 - 1))
    return paper_config(draw(st.sampled_from(sorted(DATASETS))), classes, shots, **values)


@given(configs())
def test_json_round_trip(config):
    again = Config.from_json(config.to_json())
    assert again == config
    assert again.flat() == config.flat()
    assert config.differences(again) == []
    assert config.replace() == config


def test_flat_names_are_all_fields_once():
    assert list(paper_config("omniglot").flat()) == list(FIELDS)


def test_from_dict_names_unknown_and_missing_keys():
    def message(change):
        data = paper_config("omniglot").to_dict()
        change(data)
        with pytest.raises(ConfigError) as caught:
            Config.from_dict(data)
        return str(caught.value)

    assert message(lambda d: d["inner"].update(k=1)) == "configuration, section 'inner': unknown k"
    assert message(lambda d: d["inner"].pop("rho")) == "configuration, section 'inner': missing rho"
    assert message(lambda d: d.update(more={})) == "configuration: unknown more"
    assert message(lambda d: d.pop("seed")) == "configuration: missing seed"
    assert message(lambda d: d.update(task=3)).endswith("must be a mapping. Received: 3")
    assert message(lambda d: d["task"].update(shots="1")).startswith("--shots: must be an integer")


@pytest.mark.parametrize("dataset", ["omniglot", "miniimagenet"])
def test_a_configuration_from_before_the_model_section(dataset):
    config = paper_config(dataset)
    before = {name: part for name, part in config.to_dict().items() if name != "model"}
    assert Config.from_dict(before) == config
    assert dataclasses.astuple(config.model)[:2] == {"omniglot": (64, 28)}.get(dataset, (32, 84))
    assert Config.from_dict(config.replace(filters=8).to_dict()).model.filters == 8
    with pytest.raises(ConfigError, match=r"^configuration: missing inner$"):
        Config.from_dict({name: part for name, part in before.items() if name != "inner"})
    with pytest.raises(ConfigError, match=r"^configuration: missing task$"):
        Config.from_dict({name: part for name, part in before.items() if name != "task"})


def test_the_configuration_of_every_record_and_checkpoint_loads():
    results = Path(__file__).parents[1] / "results"
    configs = [json.loads(path.read_text()) for path in results.rglob("config.json")]
    records = [json.loads(path.read_text()) for path in results.rglob("results*.json")]
    # Results of experiments are not of one configuration.
    configs += [record["config"] for record in records if "config" in record]
    assert configs
    for config in configs:
        Config.from_dict(config)


def test_from_json_of_something_else():
    with pytest.raises(ConfigError, match=r"^configuration: not valid JSON"):
        Config.from_json("{")
    with pytest.raises(ConfigError, match=r"^configuration: must be a mapping"):
        Config.from_json("[]")


def test_differences_and_what_may_differ_on_resume():
    old = paper_config("omniglot")
    new = old.replace(eval_samples=100, learning_rate=0.01)
    lines = ["learning_rate: 0.001 -> 0.01", "eval_samples: 10000 -> 100"]
    assert old.differences(new) == lines
    assert old.differences(new, ignore=RESUME_MAY_CHANGE) == lines[:1]
    assert {"eval_samples"} == RESUME_MAY_CHANGE


def test_sections_of_the_wrong_type_are_a_programming_error():
    config = paper_config("omniglot")
    with pytest.raises(TypeError, match=r"Config\.task must be a TaskConfig"):
        dataclasses.replace(config, task={})


def test_table_names_every_value_with_its_source():
    lines = paper_config("omniglot", classes=20, inner_batch=7).table().splitlines()
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line[0] == " "}
    assert list(rows) == list(FIELDS)
    assert rows["dataset"] == "omniglot"
    assert rows["classes"] == "20 * set by you; original's default: 5"
    assert rows["inner_iters"] == "10 paper, Table 3 (20-way)"
    assert rows["inner_batch"] == "7 * set by you; paper, Table 3 (20-way): 20"
    assert rows["rho"] == "0.9 Keras' default"
    assert rows["weight_decay"] == "1.0 original's default"
    assert rows["freeze"] == "0 as in the original, which has no such setting"
    assert sum("set by you" in row for row in rows.values()) == 2


def test_run_options(monkeypatch):
    monkeypatch.delenv("SUPERVISED_REPTILE_DATA", raising=False)
    assert RunOptions().data_dir == "data"
    monkeypatch.setenv("SUPERVISED_REPTILE_DATA", "/somewhere")
    assert RunOptions().data_dir == "/somewhere"
    for name, value, rule in (
        ("checkpoint", "", "must name a directory"),
        ("data_dir", "", "must name a directory"),
        ("checkpoint_interval", 0, "must be at least 1"),
        ("eval_tasks_per_batch", 0, "must be at least 1"),
        ("intra_op_threads", -1, "must be at least 0"),
        ("inter_op_threads", -1, "must be at least 0"),
        ("resume", None, "must be true or false"),
        ("callbacks", "f", "must be module:factory, or several of them separated by commas"),
        ("callbacks", "m:f,", "must be module:factory, or several of them separated by commas"),
    ):
        with pytest.raises(ConfigError) as caught:
            RunOptions(**{name: value})
        assert str(caught.value) == f"--{name}: {rule}. Received: {value!r}"


@pytest.mark.parametrize("kind", [*SECTIONS.values(), Config, RunOptions])
def test_each_setting_is_documented_from_its_own_line(kind):
    text = " ".join(inspect.getdoc(kind).partition("\nArgs:\n")[2].split())
    for item in dataclasses.fields(kind):
        name = item.type.__name__ if isinstance(item.type, type) else str(item.type)
        assert f"{item.name}: {name}. " in text
        if not item.metadata:  # A section of Config: the first line of its own documentation.
            assert item.type.__doc__.splitlines()[0] in text
            continue
        assert item.metadata["text"] in text
        rule = item.metadata["rule"]
        assert rule is None or f"Must {rule.words.removeprefix('must ')}." in text
    assert text.endswith("Raises: ConfigError: A value breaks its rule.")


def test_documentation_states_the_papers_values():
    def documented(kind):
        return " ".join(kind.__doc__.split())

    assert "Must be at least 1. Paper: 64 (omniglot), 32 (miniimagenet)." in documented(ModelConfig)
    assert "shots. Paper: 10 (Table 3), 15 (Table 4). Raises:" in documented(TaskConfig)
    evaluation = documented(EvalConfig)
    assert (
        "Must be at least 1. Paper: 5 (Table 3, 5-way), 10 (Table 3, 20-way), 5 (Table 4, 1-shot),"
        " 15 (Table 4, 5-shot). eval_iters"
    ) in evaluation
    assert "Must be at least 0. Paper: 50. eval_samples" in evaluation
    assert "Must be at least 1. Default: 10000. eval_interval" in evaluation
    assert "compiled call. Must be at least 1. Default: 32. intra" in documented(RunOptions)


def test_a_section_refuses_an_unknown_data_set_itself():
    with pytest.raises(ConfigError, match=r"^--dataset: must be one of omniglot, .*'mnist'$"):
        TaskConfig("mnist", 5, 1, 0)


def test_examples_in_the_docstrings():
    result = doctest.testmod(config_module)
    assert (result.attempted, result.failed) == (3, 0)


def test_nothing_heavy_is_imported():
    code = (
        "import sys, supervised_reptile.config, supervised_reptile.config.flags;"
        "print([m for m in ('tensorflow', 'keras', 'tensorflow_datasets',"
        " 'supervised_reptile.datasets')"
        " if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
