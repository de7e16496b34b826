"""Ctrl-C from the first moment on: never a traceback."""

import ast
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
KILL = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('went on')"


def run_python(code, **options):
    command = [sys.executable, "-c", f"import signal\n{options.pop('first', '')}\n{code}"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)


USUAL = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # CI's shell may ignore it


def test_while_a_program_is_imported_it_just_ends():
    result = run_python(f"import supervised_reptile.interrupts\n{KILL}", first=USUAL)
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, "", "")


def test_then_it_ends_in_one_line():
    code = f"""
import supervised_reptile.interrupts
from absl import flags
from supervised_reptile.config.command_line import run_main
def main(argv):
    {KILL}
run_main(main, ["program"], flags.FlagValues())
"""
    result = run_python(code, first=USUAL)
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == "program: stopped: interrupted; saved files are intact\n"


def test_where_it_is_ignored_it_stays_so():
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    result = run_python(f"import supervised_reptile.interrupts\n{KILL}", first=ignored)
    assert (result.returncode, result.stdout) == (0, "went on\n")


@pytest.mark.parametrize("script", ["run_omniglot", "run_miniimagenet", "run_sine", "reproduce"])
def test_every_program_begins_with_it(script):
    tree = ast.parse((PROJECT / f"{script}.py").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    ours = [
        node for node in imports if getattr(node, "module", None) not in sys.stdlib_module_names
    ]
    ours = [ast.unparse(node) for node in ours if ast.unparse(node) != "import sys"]
    assert ours[0] == "import supervised_reptile.interrupts"
