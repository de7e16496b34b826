"""A warm process is what a new one is, but for the time it takes."""

import os
import signal
import subprocess
import sys

import pytest
import warm

REPORT = """
import json, os, random, sys
import numpy as np
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "cwd": os.getcwd(), "environment": dict(os.environ),
    "name": __name__, "main": sys.modules["__main__"].__dict__ is globals(),
    "group": os.getpgrp() == os.getpid(), "session": os.getsid(0) == os.getpid(),
    "parents_group": os.getpgrp() == os.getpgid(os.getppid()),
    "package": any(m.startswith("supervised_reptile") for m in sys.modules),
    "descriptors": sorted(os.listdir("/proc/self/fd"))[:3],
    "input": sys.stdin.read(),
}))
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "report.py").write_text(REPORT)
    (tmp_path / "packaged").mkdir()
    (tmp_path / "packaged" / "__init__.py").write_text("")
    (tmp_path / "packaged" / "report.py").write_text(REPORT)
    (tmp_path / "input").write_text("a line\nanother")
    return tmp_path


@pytest.mark.parametrize("new_session", [False, True], ids=["", "session"])
@pytest.mark.parametrize(
    "words",
    [["report.py", "a", "-b"], ["-m", "packaged.report", "c"], ["-c", REPORT, "--d"]],
    ids=["script", "-m", "-c"],
)
def test_it_reports_what_a_new_process_reports(folder, words, new_session):
    environment = {"PYTHONPATH": f"{folder}:/nowhere", "Ä": "ö", "LC_ALL": "C.UTF-8"}
    reports = []
    for run in (warm.run, subprocess.run):
        with (folder / "input").open() as file:
            options = {"stdin": file, "cwd": folder, "env": environment, "capture_output": True}
            options |= {"start_new_session": new_session, "text": True}
            result = run([sys.executable, *words], **options)
        assert (result.returncode, result.stderr) == (0, "")
        reports.append(result.stdout)
    assert reports[0] == reports[1]
    assert f'"group": {str(new_session).lower()}' in reports[0]


@pytest.mark.parametrize(
    "code",
    [
        "pass",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('a reason')",
        "import os; os._exit(7)",
        "import os; os.kill(os.getpid(), 9)",
        "import signal; signal.raise_signal(signal.SIGTERM)",
        "import atexit; atexit.register(print, 'at the end'); print('before')",
        "import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9));"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0));"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL); open('big', 'w').write('x' * 99)",
    ],
)
def test_it_ends_as_a_new_process_ends(code, tmp_path):
    command = [sys.executable, "-c", code]
    ours, theirs = (
        run(command, capture_output=True, cwd=tmp_path) for run in (warm.run, subprocess.run)
    )
    assert vars(ours) == vars(theirs)


def test_an_exception_ends_it_with_a_traceback():
    with pytest.raises(subprocess.CalledProcessError) as caught:
        warm.run([sys.executable, "-c", "1 / 0"], capture_output=True, text=True, check=True)
    assert caught.value.returncode == 1
    assert caught.value.stderr.startswith("Traceback")
    assert caught.value.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_it_alone(number):
    code = "import time; print('begun', flush=True); time.sleep(600)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with (
        warm.Popen([sys.executable, "-c", code], **pipes) as one,
        warm.Popen([sys.executable, "-c", code], **pipes) as other,
    ):
        assert one.stdout.readline() == other.stdout.readline() == "begun\n"
        assert one.pid != other.pid
        assert one.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(0.01)
        os.kill(one.pid, number)
        assert one.wait(60) == -number  # Python ends itself with SIGINT after KeyboardInterrupt
        assert ("KeyboardInterrupt" in one.stderr.read()) == (number == signal.SIGINT)
        assert other.poll() is None
        other.kill()
    assert other.returncode == -signal.SIGKILL


def test_tensorflow_is_there_and_has_not_begun():
    code = """
import sys, time
began = time.perf_counter()
assert {"tensorflow", "keras", "tensorflow_datasets.core", "matplotlib"} <= set(sys.modules)
import tensorflow as tf
import numpy as np, random
tf.config.threading.set_intra_op_parallelism_threads(3)
tf.config.threading.set_inter_op_parallelism_threads(2)
tf.zeros(1)
assert tf.config.threading.get_intra_op_parallelism_threads() == 3
print(np.random.random(), random.random())
"""
    numbers = [
        warm.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert numbers[0] != numbers[1]  # each has its own random numbers, as new processes have


def test_importing_tensorflow_costs_it_next_to_nothing():
    code = "import time, tensorflow, keras; print(time.process_time())"  # of the processor
    result = warm.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 0.5  # a new process takes more than 2 seconds


@pytest.mark.parametrize(
    "command", [["/bin/true"], [sys.executable], [sys.executable, "-I", "-c", "pass"]]
)
def test_what_it_cannot_start(command):
    with pytest.raises(ValueError, match="Received: "):
        warm.Popen(command)
