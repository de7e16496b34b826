"""The command-line layer: flag files, flags of a program's own, operands, help, exit codes."""

import os
import shlex
import subprocess
import sys

import pytest
from absl import flags as absl_flags
from helpers import PROJECT

import supervised_reptile
from supervised_reptile import programs
from supervised_reptile.__main__ import main as start_command
from supervised_reptile.config.command_line import (
    FLAG_FILES,
    Flag,
    define_own_flags,
    flag_file,
    help_text,
    own_values,
    parse_flags,
    run_program,
)
from supervised_reptile.errors import ConfigError, DatasetError, RunInterrupted

# ----------------------------------------------------------------- flag files of the package


def lines_of(line):
    """The flag port after a line of flags with a flag file in it."""
    values = absl_flags.FlagValues()
    define_own_flags({"meta_iters": (1, "Outer updates."), "rest": ("", "Rest.")}, values)
    for name in ("dataset", "shots", "eval_samples", "checkpoint"):  # of quickstart.cfg
        define_own_flags({name: ("", "Another.")}, values)
    define_own_flags({"transductive": (False, "Another.")}, values)
    parse_flags(["program", *shlex.split(line)], values)
    return values.meta_iters


@pytest.mark.parametrize("name", ["quickstart", "quickstart.cfg", "configs/quickstart.cfg"])
@pytest.mark.parametrize("form", ["--flagfile={}", "--flagfile {}", "-flagfile={}"])
def test_a_flag_file_of_the_package_is_found_from_any_folder(tmp_path, monkeypatch, name, form):
    monkeypatch.chdir(tmp_path)
    assert lines_of(form.format(name)) == 1000
    # A file of that name in the current folder comes first.
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("--meta_iters=7\n")
    assert lines_of(form.format(name)) == 7


@pytest.mark.parametrize("name", ["quickstar", "other/quickstart.cfg", "/quickstart.cfg", ""])
def test_a_flag_file_that_is_not_there(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        lines_of(f"--flagfile={name}")
    known = ", ".join(sorted(path.stem for path in FLAG_FILES.glob("*.cfg")))
    assert str(caught.value) == f"--flagfile: must be a file or one of {known}. Received: {name!r}"


def test_a_flag_file_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.cfg").write_text("--meta-iters 9\n")
    assert flag_file("~/my.cfg") == str(tmp_path / "my.cfg")
    assert lines_of("--flagfile=~/my.cfg") == 9


def test_a_flag_file_that_is_no_text(tmp_path):
    (tmp_path / "latin.cfg").write_bytes("# Größe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"^--flagfile: must be UTF-8 text\. Received: "):
        lines_of(f"--flagfile={tmp_path / 'latin.cfg'}")


# ----------------------------------------------------------------- flags of a program's own

OWN = {
    "port": Flag(8000, "TCP port."),
    "row": Flag([], "Rows.", list[str]),
    "seeds": Flag((0, 1), "Seeds."),
    "rates": ((0.5, 1.0), "Rates."),
    "folder": ("", "Folder; empty: here."),
    "shots": Flag(None, "Shots.", int),
    "progress": Flag(True, "Progress."),
    "layout": Flag(None, "Layout.", choices=("a", "b")),
    "data_dir": Flag(None, "Data.", str, required=True),
}


def own(line, operands=()):
    values = absl_flags.FlagValues()
    define_own_flags(OWN, values)
    parse_flags(["p", *shlex.split(line)], values, operands=operands)
    return own_values(values)


def test_types_of_a_programs_own_flags():
    assert own("") == {name: Flag(*flag).default for name, flag in OWN.items()}
    line = "--row a --row=b --seeds 3,4 --rates 2 --folder f --shots 1 --noprogress --layout b"
    assert own(f"{line} --data-dir d --port 1") == {
        "port": 1,
        "row": ["a", "b"],
        "seeds": (3, 4),
        "rates": (2.0,),
        "folder": "f",
        "shots": 1,
        "progress": False,
        "layout": "b",
        "data_dir": "d",
    }
    for line, message in (
        ("--seeds=a", "flag --seeds=a: must be integers separated by commas"),
        ("--seeds=0.5", "flag --seeds=0.5: must be integers separated by commas"),
        ("--rates=0,a", "flag --rates=0,a: must be numbers separated by commas"),
        ("--progress=maybe", "flag --progress=maybe: must be true or false"),
        ("--layout=c", "flag --layout=c: value should be one of <a|b>"),
    ):
        with pytest.raises(absl_flags.Error) as caught:
            own(line)
        assert str(caught.value) == message


def test_operands_are_flags_without_their_name():
    operands = ("layout", "port")
    for line in ("b 3 --data_dir d", "--data_dir d b 3", "b --data_dir d 3", "b --port 3"):
        values = own(line, operands)
        assert (values["layout"], values["port"]) == ("b", 3)
    assert own("--data_dir b a", operands)["layout"] == "a"
    for line, message in (
        ("a 1 2", "unexpected argument '2': there are too many"),
        ("c", "flag --layout=c: value should be one of <a|b>"),
    ):
        with pytest.raises(absl_flags.Error) as caught:
            own(line, operands)
        assert str(caught.value) == message


def test_help_of_a_programs_own_flags():
    values = absl_flags.FlagValues()
    define_own_flags(OWN, values)
    text = help_text(values, "Serves ``pages``.")
    assert text.startswith("Serves pages.\n\nIn flag names, dashes")
    for line in (
        "  --port                  TCP port. Default: 8000.",
        "  --row                   Rows.",
        "  --seeds                 Seeds. Default: 0,1.",
        "  --rates                 Rates. Default: 0.5,1.",
        "  --folder                Folder; empty: here.",
        "  --shots                 Shots.",
        "  --[no]progress          Progress. Default: on.",
    ):
        assert f"{line}\n" in text


@pytest.mark.parametrize(
    ("words", "problem", "code", "message"),
    [
        ([], None, 2, "error: --data_dir: must be given. Received: nothing"),
        (["--data_dir=d"], OSError("disk\nfull"), 1, "error: disk full"),
        (["--data_dir=d"], DatasetError("gone"), 1, "error: gone"),
        (["--data_dir=d"], RunInterrupted("stopped after 3", 15), 143, "stopped after 3"),
        (["--data_dir=d"], RunInterrupted("it is saved", 2), 130, "stopped: it is saved"),
        (
            ["--data_dir=d"],
            KeyboardInterrupt(),
            130,
            "stopped: interrupted; saved files are intact",
        ),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(words, problem, code, message, capsys):
    def fail(**values):
        raise problem

    with pytest.raises(SystemExit) as stop:
        run_program(fail, OWN, ["/usr/bin/program", *words])
    assert stop.value.code == code
    assert capsys.readouterr() == ("", f"program: {message}\n")


@pytest.mark.parametrize("returned", [None, 0, 1])
def test_what_a_program_returns_is_its_exit_code(returned):
    with pytest.raises(SystemExit) as stop:
        run_program(lambda **values: returned, OWN, ["program", "--data_dir=d"])
    assert stop.value.code == returned


# ----------------------------------------------------------------- one command for all programs

VERSION = f"supervised-reptile {supervised_reptile.__version__}\n"


def in_process(*words):
    with pytest.raises(SystemExit) as stop:
        start_command(["/usr/bin/supervised-reptile", *words])
    return stop.value.code


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_the_command_lists_its_programs(words, capsys):
    assert in_process(*words) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, program in programs.PROGRAMS.items():
        assert f"  {name:<14}{program.summary}" in lines
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("words", [("--version",), ("-v",), ("fetch", "--version")])
def test_the_command_says_its_version(words, capsys):
    assert in_process(*words) == 0
    assert capsys.readouterr() == (VERSION, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("omniglt", "--shots=1"),
            "supervised-reptile: error: the command must be one of omniglot",
        ),
        (("--shots=1",), "supervised-reptile: error: Unknown command line flag 'shots'"),
        (("fetch", "mnist"), "supervised-reptile fetch: error: dataset must be one of: omniglot"),
        (("omniglot", "--shots=x"), "supervised-reptile omniglot: error: flag --shots=x: "),
    ],
)
def test_a_mistake_in_a_command_is_one_line(words, message, capsys):
    assert in_process(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1
    if "command must" in message:
        assert error.endswith(f"{', '.join(programs.PROGRAMS)}. Received: 'omniglt'\n")


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_help_of_each_command_comes_without_tensorflow(name, tmp_path):
    code = f"""
import sys
from supervised_reptile.__main__ import main
try:
    main(["supervised-reptile", {name!r}, "--help"])
finally:
    assert not {{"tensorflow", "keras"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert programs.command(name) in done.stdout
    assert "``" not in done.stdout and "Default: ." not in done.stdout


CHECKOUT_PROGRAMS = ["benchmarks.run", "benchmarks.profile", "benchmarks.memory"]
CHECKOUT_PROGRAMS += ["benchmarks.backbone", "experiments", "tests.campaign"]


@pytest.mark.parametrize("module", CHECKOUT_PROGRAMS)
def test_help_of_the_checkouts_programs_comes_without_tensorflow(module):
    code = f"""
import runpy, sys
sys.argv = [{module!r}, "--help"]
try:
    runpy.run_module({module!r}, run_name="__main__")
finally:
    assert not {{"tensorflow", "keras"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m {module}" in done.stdout and "``" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("module", CHECKOUT_PROGRAMS)
def test_the_checkouts_programs_answer_as_all_others_do(module):
    def answer(flag):
        command = [sys.executable, "-m", module, flag]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    assert answer("--version") == answer("-v") == (0, VERSION, "")
    code, out, error = answer("--bogus=1")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.endswith("error: Unknown command line flag 'bogus'\n")


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("run_omniglot.py", "omniglot"),
        ("run_miniimagenet.py", "miniimagenet"),
        ("reproduce.py", "reproduce"),
    ],
)
def test_the_scripts_of_the_checkout_are_the_commands(script, name, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    texts = []
    for words in ([str(PROJECT / script)], ["-m", "supervised_reptile", name]):
        command = [sys.executable, *words, "--help"]
        texts.append(subprocess.check_output(command, cwd=tmp_path, env=environment, text=True))
    assert texts[0] == texts[1]


def test_commands_are_named_as_they_are_where_the_user_is(monkeypatch):
    assert programs.CHECKOUT == PROJECT
    assert programs.command("fetch") == "./fetch_data.sh"
    assert programs.command("demo") == "python -m supervised_reptile demo"
    assert programs.shown_name("fetch") == "fetch_data.sh"
    for program in programs.PROGRAMS.values():
        if program.script:
            assert (PROJECT / program.script.split()[-1]).is_file()
    monkeypatch.setattr(programs, "CHECKOUT", None)
    assert programs.command("fetch") == "supervised-reptile fetch"
    assert programs.command("omniglot") == "supervised-reptile omniglot"
    assert programs.shown_name("fetch") == "supervised-reptile fetch"
