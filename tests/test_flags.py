"""The command line: spelling, published commands, shorthands, presets, help and errors."""

import dataclasses
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from absl import flags as absl_flags

from supervised_reptile.config import FIELDS, Config, RunOptions, TaskConfig, paper_config
from supervised_reptile.config.command_line import FLAG_FILES, help_text, parse_flags
from supervised_reptile.config.flags import config_from_flags, define_flags, options_from_flags
from supervised_reptile.config.paper import DATASETS
from supervised_reptile.config.settings import SECTIONS
from supervised_reptile.errors import ConfigError

ROOT = Path(__file__).parent.parent
SHORTHANDS = {"sgd", "foml"}
MINIIMAGENET = ("miniimagenet",)


def fresh(*choices):
    values = absl_flags.FlagValues()
    define_flags(choices or ("omniglot", "glyphs"), flag_values=values)
    return values


def parsed(line, *choices):
    values = fresh(*choices)
    assert parse_flags(["run.py", *shlex.split(line)], values) == ["run.py"]
    return values


def config_of(line, *choices):
    return config_from_flags(parsed(line, *choices))


def differences(config, **overrides):
    """What a configuration has that the paper's, with overrides, does not."""
    task = config.task
    return paper_config(task.dataset, task.classes, task.shots, **overrides).differences(config)


def test_without_flags_everything_is_the_papers():
    assert config_of("") == paper_config("omniglot")
    assert config_of("", *MINIIMAGENET) == paper_config("miniimagenet")
    assert options_from_flags(parsed("")) == RunOptions()


O = "python -u run_omniglot.py "  # noqa: E741
M = "python -u run_miniimagenet.py "
FIVE_WAY = (
    "--inner-batch 10 --inner-iters 5 --meta-step 1 --meta-batch 5 --meta-iters 100000"
    " --eval-batch 5 --eval-iters 50 --learning-rate 0.001 --meta-step-final 0 --train-shots 10"
)
TWENTY_WAY = (
    "--inner-batch 20 --inner-iters 10 --meta-step 1 --meta-batch 5 --meta-iters 200000"
    " --eval-batch 10 --eval-iters 50 --learning-rate 0.0005 --meta-step-final 0 --train-shots 10"
)
MINI = (
    "--inner-batch 10 --inner-iters 8 --meta-step 1 --meta-batch 5 --meta-iters 100000"
    " --eval-batch {} --eval-iters 50 --learning-rate 0.001 --meta-step-final 0 --train-shots 15"
)


@pytest.mark.parametrize(
    ("command", "classes", "shots", "transductive", "checkpoint"),
    [
        (f"{O}--shots 1 {FIVE_WAY} --checkpoint ckpt_o15t --transductive", 5, 1, True, "ckpt_o15t"),
        (f"{O}--shots 1 {FIVE_WAY} --checkpoint ckpt_o15", 5, 1, False, "ckpt_o15"),
        (f"{O}{FIVE_WAY} --checkpoint ckpt_o55t --transductive", 5, 5, True, "ckpt_o55t"),
        (f"{O}{FIVE_WAY} --checkpoint ckpt_o55", 5, 5, False, "ckpt_o55"),
        (
            f"{O}--shots 1 --classes 20 {TWENTY_WAY} --checkpoint ckpt_o120",
            *(20, 1, False, "ckpt_o120"),
        ),
        (f"{O}--classes 20 {TWENTY_WAY} --checkpoint ckpt_o520", 20, 5, False, "ckpt_o520"),
        (
            f"{M}--shots 1 {MINI.format(5)} --checkpoint ckpt_m15t --transductive",
            *(5, 1, True, "ckpt_m15t"),
        ),
        (f"{M}--shots 1 {MINI.format(5)} --checkpoint ckpt_m15", 5, 1, False, "ckpt_m15"),
        (f"{M}{MINI.format(15)} --checkpoint ckpt_m55", 5, 5, False, "ckpt_m55"),
    ],
)
def test_published_commands_are_the_papers_values(
    command, classes, shots, transductive, checkpoint
):
    choices = MINIIMAGENET if "miniimagenet" in command else ("omniglot", "glyphs")
    values = fresh(*choices)
    parse_flags(shlex.split(command)[2:], values)
    config = config_from_flags(values)
    # The commands spell out the paper's values, which are the defaults here.
    assert config == paper_config(choices[0], classes, shots, transductive=transductive)
    assert options_from_flags(values) == RunOptions(checkpoint=checkpoint)


def test_published_gradient_combination_command():
    command = (
        "python run_omniglot.py --foml --inner-iters 4 --train-shots 20 --meta-step 0.25"
        " --checkpoint g4_ckpt --sgd --seed 0 --inner-batch 25 --learning-rate 0.003"
        " --meta-step-final 0 --meta-iters 40000 --eval-batch 25 --eval-iters 5 --eval-interval 1"
    )
    values = fresh()
    parse_flags(shlex.split(command)[1:], values)
    assert differences(config_from_flags(values)) == [
        "train_shots: 10 -> 20",
        "inner_optimizer: adam -> sgd",
        "learning_rate: 0.001 -> 0.003",
        "inner_batch: 10 -> 25",
        "inner_iters: 5 -> 4",
        "algorithm: reptile -> fomaml",
        "meta_batch: 5 -> 1",
        "meta_iters: 100000 -> 40000",
        "meta_step: 1.0 -> 0.25",
        "eval_batch: 5 -> 25",
        "eval_iters: 50 -> 5",
        "eval_interval: 10 -> 1",
    ]
    assert options_from_flags(values).checkpoint == "g4_ckpt"
    preset = config_of("--flagfile=gradient-combinations --foml")
    assert config_from_flags(values) == preset


EXAMPLE = {
    int: "3", int | None: "3", float: "0.25", str: "some-text", tuple[float, ...] | None: "0.5"
}  # fmt: skip


FIXED = DATASETS["omniglot"].fixed


def all_flags(*choices):
    """Name and type of every flag; the characters have no choice of image size."""
    kinds = FIELDS | dict.fromkeys(SHORTHANDS, bool)
    kinds |= {name: item.type for name, item in RunOptions.__dataclass_fields__.items()}
    if choices != MINIIMAGENET:
        kinds = {name: kind for name, kind in kinds.items() if name not in FIXED}
    return sorted(kinds.items())


@pytest.mark.parametrize(("name", "kind"), all_flags())
def test_dashes_and_underscores_are_the_same_flag(name, kind):
    dashed = name.replace("_", "-")
    if kind is bool:
        for word in (f"--{name}", f"--{dashed}", f"-{dashed}", f"--{dashed}=true"):
            assert parsed(word)[name].value is True
        for word in (f"--no{name}", f"--no-{dashed}", f"--no_{name}", f"--no{dashed}"):
            assert parsed(word)[name].value is False
        return
    value = "glyphs" if name == "dataset" else EXAMPLE[kind]
    spellings = [f"{d}{n}{s}{value}" for d in ("-", "--") for n in (name, dashed) for s in " ="]
    assert len({repr(parsed(line)[name].value) for line in spellings}) == 1
    assert str(parsed(spellings[0])[name].value).strip("(,)") == value


def test_values_are_left_alone():
    values = parsed("--meta-step -1 --checkpoint my-dir --data-dir=--odd-name --seed -3")
    assert values.meta_step == -1.0
    assert values.checkpoint == "my-dir"
    assert values.data_dir == "--odd-name"
    assert values.seed == -3
    # The word after a flag that takes a value is its value, even if it looks like a flag.
    assert parsed("--checkpoint --inner-batch").checkpoint == "--inner-batch"


def test_either_spelling():
    words = ["-learning-rate", "1e-3", "--no-transductive", "--inner-batch=5", "--sgd"]
    values = parsed(" ".join(words))
    assert (values.learning_rate, values.transductive, values.inner_batch) == (1e-3, False, 5)
    assert values.sgd


def test_last_of_repeated_flags_wins():
    assert config_of("--inner-batch 5 --inner_batch=7").inner.inner_batch == 7


def test_shorthands():
    assert config_of("--sgd").inner.inner_optimizer == "sgd"
    assert config_of("--sgd --inner_optimizer sgd").inner.inner_optimizer == "sgd"
    assert config_of("--no-sgd --inner_optimizer rmsprop").inner.inner_optimizer == "rmsprop"
    assert config_of("--foml").meta.algorithm == "fomaml"
    assert config_of("--foml --foml-tail 5").meta.foml_tail == 5
    assert config_of("--algorithm maml --sgd --foml-tail 5").meta.foml_tail == 5
    weights = config_of("--step-weights 0,-.5,1e0 --inner-iters 3").meta.step_weights
    assert weights == (0.0, -0.5, 1.0)
    assert config_of("--reset-optimizer").inner.reset_optimizer


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--sgd --inner_optimizer adam",
            "--sgd: means --inner_optimizer=sgd. Received: --inner_optimizer=adam as well",
        ),
        (
            "--foml --algorithm reptile",
            "--foml: means --algorithm=fomaml. Received: --algorithm=reptile as well",
        ),
        (
            "--foml-tail 5",
            "--foml_tail: needs --foml or --algorithm=maml: only these treat the last mini-batch"
            " separately. Received: 5",
        ),
        (
            "--outer-optimizer adam",
            "--meta_step: must be given with --outer_optimizer=adam, whose learning rate it is"
            " (the paper's 1.0 is for interpolation). Received: nothing",
        ),
    ],
)
def test_contradictions(line, message):
    with pytest.raises(ConfigError) as caught:
        config_of(line)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--sgd --inner-batchs 3 --inner-iters 3 --no-resume",
            "Unknown command line flag 'inner_batchs'. Did you mean: inner_batch ?",
        ),
        ("--transductive true --shots 1", "unexpected argument 'true': every argument is a --flag"),
        ("--shots 1 -- --classes 5", "unexpected argument '--classes': every argument is a --flag"),
        ("--transductive=maybe", "flag --transductive=maybe: must be true or false"),
        (
            "--step-weights=0,a",
            "flag --step_weights=0,a: must be numbers separated by commas",
        ),
        ("--shots abc", "flag --shots=abc: invalid literal for int() with base 10: 'abc'"),
        ("--dataset cifar", "flag --dataset=cifar: value should be one of <omniglot|glyphs>"),
        ("--checkpoint", "Missing value for flag --checkpoint"),
        ("--no-transductive=1", "--notransductive=1 does not take an argument"),
        ("-3", "Unknown command line flag '3'"),
    ],
)
def test_malformed_command_lines(line, message):
    with pytest.raises(absl_flags.Error) as caught:
        parsed(line)
    assert str(caught.value) == message


def test_flagfile_takes_both_spellings_and_later_flags_win(tmp_path):
    preset = tmp_path / "my.cfg"
    preset.write_text(
        "# comment\n\n--inner-batch=7\n--inner-iters 3\n--no-transductive\n--shots=2\n"
    )
    config = config_of(f"--flagfile={preset} --shots 3")
    assert differences(config) == ["inner_batch: 10 -> 7", "inner_iters: 5 -> 3"]
    assert config.task.shots == 3
    assert config_of(f"--shots 3 --flagfile {preset}").task.shots == 2


TABLE_3 = {
    5: {
        "learning_rate": 0.001, "inner_batch": 10, "inner_iters": 5, "train_shots": 10,
        "meta_step": 1.0, "meta_step_final": 0.0, "meta_iters": 100_000, "meta_batch": 5,
        "eval_iters": 50, "eval_batch": 5, "eval_samples": 10_000, "inner_optimizer": "adam",
    },
    20: {
        "learning_rate": 0.0005, "inner_batch": 20, "inner_iters": 10, "train_shots": 10,
        "meta_step": 1.0, "meta_step_final": 0.0, "meta_iters": 200_000, "meta_batch": 5,
        "eval_iters": 50, "eval_batch": 10, "eval_samples": 10_000, "inner_optimizer": "adam",
    },
}  # fmt: skip
TABLE_4 = {
    "dataset": "miniimagenet", "classes": 5, "learning_rate": 0.001, "inner_batch": 10,
    "inner_iters": 8, "train_shots": 15, "meta_step": 1.0, "meta_step_final": 0.0,
    "meta_iters": 100_000, "meta_batch": 5, "eval_iters": 50, "eval_samples": 10_000,
}  # fmt: skip
ABLATION = {
    "dataset": "omniglot", "classes": 5, "shots": 5, "inner_optimizer": "sgd",
    "outer_optimizer": "interpolation", "learning_rate": 0.003, "inner_iters": 4,
    "train_shots": 20, "meta_batch": 1, "meta_iters": 40_000, "meta_step_final": 0.0,
    "eval_batch": 25, "eval_iters": 5,
}  # fmt: skip
PRESETS = {
    "omniglot-1shot-5way": {"dataset": "omniglot", "classes": 5, "shots": 1} | TABLE_3[5],
    "omniglot-5shot-5way": {"dataset": "omniglot", "classes": 5, "shots": 5} | TABLE_3[5],
    "omniglot-1shot-20way": {"dataset": "omniglot", "classes": 20, "shots": 1} | TABLE_3[20],
    "omniglot-5shot-20way": {"dataset": "omniglot", "classes": 20, "shots": 5} | TABLE_3[20],
    "gradient-combinations": ABLATION | {"inner_batch": 25, "meta_step": 0.25},
    "overlap-inner-iters": ABLATION | {"inner_batch": 25, "meta_step": 1.0},
    "overlap-inner-batch": ABLATION | {"inner_batch": 25, "meta_step": 1.0},
    "overlap-meta-step": ABLATION | {"inner_batch": 100, "meta_step": 0.25},
    "miniimagenet-1shot-5way": TABLE_4 | {"shots": 1, "eval_batch": 5},
    "miniimagenet-5shot-5way": TABLE_4 | {"shots": 5, "eval_batch": 15},
    "miniimagenet-10shot-5way": TABLE_4 | {"shots": 10, "eval_batch": 15, "transductive": True},
    "quickstart": TABLE_3[5]
    | {"dataset": "glyphs", "classes": 5, "shots": 1, "transductive": True}
    | {"meta_iters": 1000, "eval_samples": 250},
}


def test_every_preset_is_tested():
    assert {path.stem for path in FLAG_FILES.glob("*.cfg")} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_preset(name):
    path = FLAG_FILES / f"{name}.cfg"
    lines = path.read_text().splitlines()
    choices = MINIIMAGENET if name.startswith("miniimagenet") else ("omniglot", "glyphs")
    values = parsed(f"--flagfile={path}", *choices)
    flat = config_from_flags(values).flat()
    assert {key: flat[key] for key in PRESETS[name]} == PRESETS[name]
    assert lines[0].startswith("# ")
    assert "Published" in path.read_text() or name == "quickstart"
    assert options_from_flags(values).checkpoint.startswith("ckpt_")
    # Only what differs from the defaults is stated.
    stated = [line for line in lines if line.startswith("--")]
    for line in stated:
        others = " ".join(other for other in stated if other != line)
        without = parsed(others, *choices)
        assert (config_from_flags(without), options_from_flags(without)) != (
            config_from_flags(values),
            options_from_flags(values),
        ), line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--inner_iters=1 --train_shots=5", ("reptile", 1, 5, 0.25)),
        ("--inner_iters=2 --train_shots=10 --foml", ("fomaml", 2, 10, 0.25)),
        ("--meta_step=0.0625", ("reptile", 4, 20, 0.0625)),
    ],
)
def test_curves_of_the_gradient_combinations(line, expected):
    config = config_of(f"--flagfile=gradient-combinations.cfg {line}")
    inner, meta, task = config.inner, config.meta, config.task
    assert (meta.algorithm, inner.inner_iters, task.train_shots, meta.meta_step) == expected


@pytest.mark.parametrize(
    "name", ["overlap-inner-iters", "overlap-inner-batch", "overlap-meta-step"]
)
@pytest.mark.parametrize("curve", ["--foml", "--foml --foml_tail=5", "--foml --replacement"])
def test_curves_of_the_overlap_experiments(name, curve):
    assert config_of(f"--flagfile=configs/{name}.cfg {curve}").meta.algorithm == "fomaml"


def test_run_options_are_flags():
    line = (
        "--checkpoint c --pretrained --no-resume --data-dir d --checkpoint-interval 7"
        " --eval-tasks-per-batch 8 --intra-op-threads 2 --inter-op-threads 3 --no-progress"
        " --pretraining-dir p --verify-data --callbacks m:f,n:g"
    )
    options = RunOptions("c", True, False, "d", 7, 8, 2, 3, False, "p", True, "m:f,n:g")
    assert options_from_flags(parsed(line)) == options


def test_data_directory_from_the_environment(monkeypatch):
    monkeypatch.setenv("SUPERVISED_REPTILE_DATA", "/shared/data")
    assert options_from_flags(parsed("")).data_dir == "/shared/data"


@pytest.mark.parametrize("choices", [("omniglot", "glyphs"), MINIIMAGENET])
def test_help_of_every_flag(choices):
    values = fresh(*choices)
    assert {name for name, _ in all_flags(*choices)} == set(values)
    text = help_text(values)
    assert "Default: ." not in text
    for name, kind in all_flags(*choices):
        assert len(values[name].help) > 15
        assert f"  --[no]{name} " in text if kind is bool else f"  --{name} " in text
    flat = " ".join(text.split())
    for kind in (*SECTIONS.values(), Config, RunOptions):
        shown = [item for item in dataclasses.fields(kind) if item.name in values]
        assert f" {kind.group}: --" in flat
        for item in shown if kind is not TaskConfig else shown[1:]:  # Not --dataset.
            rule = item.metadata["rule"]
            words = "" if rule is None else f" Must {rule.words.removeprefix('must ')}."
            assert f"{item.name} {item.metadata['text']}{words}" in flat
    for short, meaning in (("sgd", "inner_optimizer=sgd"), ("foml", "algorithm=fomaml")):
        assert f"--[no]{short} Short for --{meaning}." in flat
    assert max(map(len, text.split("\nTask:")[1].splitlines())) <= 96


def test_the_characters_are_of_one_size():
    assert FIXED == ("image_size", "resize")
    with pytest.raises(absl_flags.UnrecognizedFlagError, match="image_size"):
        parsed("--image_size=32")
    network = "--image-size=32 --resize bicubic --filters 8 --pretrain --freeze 2"
    config = config_of(network, *MINIIMAGENET)
    assert dataclasses.astuple(config.model) == (8, 32, "bicubic", True, 2)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_data_dir_that_is_itself_a_data_set(tmp_path, zipped):
    own = tmp_path / "my flowers"
    for split in ("train", "val", "test"):
        own.mkdir(exist_ok=True)
        (own / f"{split}.zip").touch() if zipped else (own / split).mkdir()
    values = absl_flags.FlagValues()
    define_flags(MINIIMAGENET, own_images=True, flag_values=values)

    def dataset(*words):
        values.unparse_flags()
        for name in ("dataset", "data_dir"):
            values[name].present = 0
        parse_flags(["run.py", *words], values)
        return config_from_flags(values).task.dataset

    assert dataset(f"--data_dir={own}") == "folder:my flowers"
    assert dataset(f"--data_dir={own}/") == "folder:my flowers"
    assert dataset(f"--data_dir={own}", "--dataset=miniimagenet") == "miniimagenet"
    assert dataset(f"--data_dir={tmp_path}", "--dataset=folder:my flowers") == "folder:my flowers"
    assert dataset(f"--data_dir={tmp_path}") == "miniimagenet"
    with pytest.raises(ConfigError, match=r"^--dataset: must be one of omniglot, .*'folder:'$"):
        dataset("--dataset=folder:")
    with pytest.raises(absl_flags.Error, match=r"should be one of <miniimagenet\|folder:NAME>"):
        dataset("--dataset=omniglot")


def test_help_states_the_papers_values():
    values = fresh()
    assert values["inner_batch"].help.endswith("Paper: 10 (Table 3, 5-way), 20 (Table 3, 20-way).")
    assert values["train_shots"].help.endswith("Paper: 10.")
    assert values["eval_samples"].help.endswith("Default: 10000.")
    values = fresh(*MINIIMAGENET)
    assert values["eval_batch"].help.endswith("Paper: 5 (Table 4, 1-shot), 15 (Table 4, 5-shot).")


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "run_omniglot.py"
    path.write_text(
        textwrap.dedent(
            '''\
            """Trains Reptile."""

            from supervised_reptile.errors import DatasetError
            from supervised_reptile.config.flags import run_configured


            def main(config, options):
                if config.seed == 99:
                    raise DatasetError("no such\\nfile")
                print("ran", config.inner.inner_batch)


            if __name__ == "__main__":
                run_configured(main, ("omniglot", "glyphs"))
            '''
        )
    )

    def run(line):
        return subprocess.run(
            [sys.executable, str(path), *shlex.split(line)],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
        )

    return run


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--shots 25", "--shots: shots + 1 must be at most 20, the drawings of a character."),
        ("--inner-batchs 3", "Unknown command line flag 'inner_batchs'. Did you mean: inner_batch"),
        ("--flagfile nowhere.cfg", "--flagfile: must be a file or one of gradient-combinations, "),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(script, line, message):
    result = script(line)
    assert result.returncode == 2
    assert result.stderr.startswith(f"run_omniglot.py: error: {message}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_another_users_error_is_one_line_and_its_own_exit_code(script):
    result = script("--seed 99")
    assert result.returncode == 1
    assert result.stderr == "run_omniglot.py: error: no such file\n"


def test_run_main_runs(script):
    result = script("--inner-batch 3")
    assert (result.returncode, result.stdout, result.stderr) == (0, "ran 3\n", "")


def test_help_flag(script):
    for flag in ("--help", "-h", "--shots 25 --helpshort", "--no-such-flag --help"):
        result = script(flag)
        assert result.returncode == 0
        assert result.stdout.startswith("Trains Reptile.\n\nFlags that are not given take")
        assert "\nOuter update:\n" in result.stdout
    assert "--[no]resume" in script("--helpfull").stdout
