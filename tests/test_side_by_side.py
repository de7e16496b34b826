"""Several processes at a time: each job once, logs, failures and signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from supervised_reptile.errors import RunError
from supervised_reptile.reproduction.jobs import Job, run_side_by_side

# Functions that a job calls must be of a module, which the new process imports.
MODULE = """
import os, signal, sys, time
from pathlib import Path
from supervised_reptile.errors import RunError, RunInterrupted

def write(path):
    alive = Path(path).parent / f"alive-{os.getpid()}"
    alive.touch()
    time.sleep(0.3)
    count = len(list(alive.parent.glob("alive-*")))
    print(f"{count} alive, on line {os.environ['TQDM_POSITION']}")
    Path(path).write_text(str(count))
    alive.unlink()

def fail(message):
    raise RunError(message)

def crash():
    raise ZeroDivisionError("divided")

def kill_itself():
    print("all is well", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out

def until_stopped(path):
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    signal.signal(signal.SIGINT, lambda number, frame: stopped.append(number))
    Path(path).write_text("begun")
    while not stopped:
        time.sleep(0.05)
    time.sleep(0.2)  # time to save
    Path(path).write_text(f"saved after {stopped}")
    raise RunInterrupted("saved", stopped[0])
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    (tmp_path / "jobs_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import jobs_of_a_test

    yield jobs_of_a_test
    del sys.modules["jobs_of_a_test"]


def test_each_job_runs_once_and_no_more_than_so_many_at_a_time(functions, tmp_path):
    jobs = [
        Job(f"job {i}", functions.write, (str(tmp_path / f"{i}.txt"),), tmp_path / f"{i}.log")
        for i in range(5)
    ]
    done = []
    run_side_by_side(jobs, 2, done.append)
    assert sorted(job.name for job in done) == [job.name for job in jobs]
    counts = [int((tmp_path / f"{i}.txt").read_text()) for i in range(5)]
    assert max(counts) <= 2
    for i, count in enumerate(counts):
        text = (tmp_path / f"{i}.log").read_text()
        assert text in [f"{count} alive, on line {line}\n" for line in (0, 1)]


def test_a_job_that_fails_is_told_and_the_others_are_carried_out(functions, tmp_path, capfd):
    jobs = [
        Job("bad", functions.fail, ("no data",), tmp_path / "logs" / "bad.log"),
        Job("worse", functions.crash, (), tmp_path / "logs" / "worse.log"),
        Job("good", functions.write, (str(tmp_path / "good.txt"),), tmp_path / "good.log"),
    ]
    jobs.insert(2, Job("gone", functions.kill_itself, (), tmp_path / "logs" / "gone.log"))
    with pytest.raises(RunError) as e:
        run_side_by_side(jobs, 1)
    told = "bad (error: no data); worse (ZeroDivisionError('divided')); gone (ended by signal 9)"
    assert str(e.value).endswith(told)
    assert "in crash\n" in (tmp_path / "logs" / "worse.log").read_text()  # where it was
    assert str(tmp_path / "logs" / "bad.log") in str(e.value)
    assert (tmp_path / "good.txt").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # as it was


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_every_process_once_and_no_other_job_begins(functions, tmp_path, number):
    code = f"""
import sys
from pathlib import Path
import jobs_of_a_test
from supervised_reptile.errors import RunInterrupted
from supervised_reptile.reproduction.jobs import Job, run_side_by_side
if __name__ == "__main__":
    folder = Path({str(tmp_path)!r})
    jobs = [
        Job(str(i), jobs_of_a_test.until_stopped, (str(folder / f"{{i}}.txt"),), folder / "log")
        for i in range(3)
    ]
    try:
        run_side_by_side(jobs, 2)
    except RunInterrupted as error:
        sys.exit(error.exit_code)
"""
    (tmp_path / "parent.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"}
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], env=environment, start_new_session=True
    )
    files = [tmp_path / f"{i}.txt" for i in range(3)]
    deadline = time.monotonic() + 60
    while not (files[0].exists() and files[1].exists() and files[1].read_text()):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(parent.pid, number)  # as Ctrl-C does
    assert parent.wait(timeout=60) == 128 + number
    for file in files[:2]:
        assert file.read_text() == f"saved after [{int(number)}]"
    assert not files[2].exists()
