"""The benchmark command at toy length, and that what it compares does the same work."""

import ast
import dataclasses
import functools
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import warm
from conftest import PROJECT

from benchmarks import processes
from benchmarks import report as reporting
from benchmarks import run as benchmark
from benchmarks.contestants import stock_model
from benchmarks.processes import BenchmarkError, Worker
from benchmarks.worker import CONTESTANTS, OURS, contestant_class, difference, fingerprint, measure
from benchmarks.workloads import WORKLOADS
from supervised_reptile.models import miniimagenet_model, omniglot_model

OMNIGLOT = "omniglot-1shot-5way"
MINIIMAGENET = "miniimagenet-1shot-5way"


@pytest.fixture(scope="module", autouse=True)
def warm_workers():
    """Workers with this interpreter are warm processes, which need not import TensorFlow."""

    def start(command, **options):
        kind = warm if command[0] == sys.executable else subprocess
        return kind.Popen(command, **options)

    mine = types.SimpleNamespace(**vars(subprocess) | {"Popen": start})
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(processes, "subprocess", mine)
        yield


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory):
    """Standard output and JSON of a short run."""
    path = tmp_path_factory.mktemp("benchmark") / "benchmark.json"
    flags = f"--only speed --rows {OMNIGLOT} --baselines keras-step --rounds 3 --seconds 0.2"
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", *flags.split(), "--json", path],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout, json.loads(path.read_text())


@pytest.mark.slow
def test_json_has_environment_rounds_medians_and_ratios(toy_run):
    _, report = toy_run
    assert report["environment"]["versions"]["keras"]
    assert report["environment"]["cores"] == os.cpu_count()
    (row,) = report["rows"]
    assert row["config"]["inner"]["inner_batch"] == 10
    assert row["workers"][OURS]["threads"] == f"1/{os.cpu_count()}"
    assert row["workers"]["keras-step"]["threads"] == "default"
    for phase in ("train", "evaluate"):
        measured = row[phase]
        assert set(measured["contestants"]) == {OURS, "keras-step"}
        ours, plain = (measured["contestants"][n] for n in (OURS, "keras-step"))
        assert "ratio_to_ours" not in ours
        for entry in (ours, plain):
            times = entry["milliseconds"]
            assert len(times["rounds"]) == 3
            assert times["min"] <= times["median"] == np.median(times["rounds"]) <= times["max"]
        expected = np.divide(plain["milliseconds"]["rounds"], ours["milliseconds"]["rounds"])
        assert plain["ratio_to_ours"]["median"] == pytest.approx(np.median(expected))
        floors = measured["floor_milliseconds"]["rounds"]
        expected = np.divide(floors, ours["milliseconds"]["rounds"])
        assert ours["share_of_matrix_product_rate"]["median"] == pytest.approx(np.median(expected))
    assert all(50 < worker["peak_megabytes"] < 4000 for worker in row["workers"].values())


@pytest.mark.slow
def test_workers_report_that_they_agree(toy_run):
    _, report = toy_run
    assert all(worker["agrees"] for worker in report["rows"][0]["workers"].values())


@pytest.mark.slow
def test_prints_markdown_tables(toy_run):
    stdout, report = toy_run
    tables = [block for block in stdout.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table, phase in zip(tables, ("train", "evaluate"), strict=True):
        lines = table.strip().splitlines()
        assert len({line.count("|") for line in lines}) == 1
        names = [line.split("|")[1].strip() for line in lines[3:]]
        assert names == [OURS, "keras-step"]
        assert lines[0].split("|")[-2].strip() == "time / ours"
        ratio = report["rows"][0][phase]["contestants"]["keras-step"]["ratio_to_ours"]["median"]
        assert lines[-1].split("|")[-2].strip().startswith(f"{ratio:.2f} (")
    assert "WARNING" not in stdout


@functools.cache
def fingerprint_of(contestant, row):
    workload = WORKLOADS[row]
    return fingerprint(contestant_class(contestant), workload, workload.dataset())


def assert_agree(row, theirs):
    ours = fingerprint_of(OURS, row)
    assert np.ptp(ours["logits"]) > 0.1
    for part in ("change", "logits"):
        assert difference(ours[part], np.asarray(theirs[part])) < benchmark.TOLERANCE, part


@pytest.mark.parametrize("row", [OMNIGLOT, MINIIMAGENET])
@pytest.mark.parametrize("contestant", ["keras-step", "tf1-style", "eager"])
def test_baselines_compute_what_ours_computes(contestant, row):
    assert_agree(row, fingerprint_of(contestant, row))


@pytest.mark.parametrize("contestant", ["pytorch-1thread", "torch-compile-1thread", "jax"])
def test_peers_compute_what_ours_computes(contestant):
    python = os.environ.get("SUPERVISED_REPTILE_PEER_PYTHON", sys.executable)
    module = benchmark.PEERS[CONTESTANTS[contestant].needs]
    if not benchmark.find(python, module, "SUPERVISED_REPTILE_PEER_PYTHON"):
        pytest.skip(
            f"needs {module}: {python} has none (set SUPERVISED_REPTILE_PEER_PYTHON to an "
            "interpreter that has it)"
        )
    for row in (OMNIGLOT, MINIIMAGENET):
        with Worker(contestant, row, python=python) as worker:
            assert_agree(row, worker.start["fingerprint"])


@pytest.mark.parametrize("row", [OMNIGLOT, MINIIMAGENET])
def test_tensorflow_1_computes_what_ours_computes(row):
    python = os.environ.get("SUPERVISED_REPTILE_TF1_PYTHON")
    if python is None:
        pytest.skip(
            "needs TensorFlow 1: set SUPERVISED_REPTILE_TF1_PYTHON to an interpreter that has it"
        )
    with Worker("tf1", row, python) as worker:
        assert worker.start["runs_on"].startswith("TensorFlow 1.")
        assert_agree(row, worker.start["fingerprint"])


@pytest.mark.slow
def test_a_program_in_another_interpreter_computes_what_ours_computes():
    """The way to TensorFlow 1, with this interpreter, whose TensorFlow has the same functions."""
    with Worker("tf1-1thread", OMNIGLOT, sys.executable) as worker:
        assert worker.start["runs_on"].startswith("TensorFlow 2.")
        assert_agree(OMNIGLOT, worker.start["fingerprint"])
        assert worker.seconds("train", 0.0) > 0
        assert worker.seconds("evaluate", 0.0) > 0


@pytest.mark.parametrize("name", ["__init__", "plain_loop", "tf1_session"])
def test_python_of_tensorflow_1_can_read_the_program(name):
    """As far as the syntax tells; what is newer than 3.6 and easily written by habit."""
    tree = ast.parse((PROJECT / "benchmarks" / f"{name}.py").read_text(), feature_version=(3, 6))
    nodes = list(ast.walk(tree))
    assert "__future__" not in [n.module for n in nodes if isinstance(n, ast.ImportFrom)]
    assert "strict" not in [n.arg for n in nodes if isinstance(n, ast.keyword)]
    assert not {"removeprefix", "removesuffix"} & {
        n.attr for n in nodes if isinstance(n, ast.Attribute)
    }
    hints = [n.annotation for n in nodes if isinstance(n, ast.arg) and n.annotation]
    hints += [n.returns for n in nodes if isinstance(n, ast.FunctionDef) and n.returns]
    assert not [n for hint in hints for n in ast.walk(hint) if isinstance(n, ast.BinOp)]
    assert not [n for hint in hints for n in ast.walk(hint) if isinstance(n, ast.Subscript)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's way to count")
def test_peak_memory_is_that_of_the_process_not_of_its_parent():
    ballast = np.ones(2**26)  # 512 MiB
    code = (
        "import resource; from benchmarks.plain_loop import Program\n"
        "print(Program.peak_megabytes(None), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    peak, told_by_getrusage = map(float, result.stdout.split())
    assert 5 < peak < 200
    assert told_by_getrusage / 2**10 > 2 * peak  # or there would be no need for the other way
    assert ballast[0] == 1


def test_an_interpreter_that_ends_is_told_in_one_line(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho Traceback >&2\necho 'ImportError: no luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(BenchmarkError, match=f"RuntimeError: {broken} ended: ImportError: no luck"):
        Worker("tf1", OMNIGLOT, str(broken))


@pytest.mark.parametrize(
    "changed", [{"learning_rate": 0.0015}, {"beta_1": 0.5}, {"inner_iters": 2}]
)
def test_the_comparison_sees_other_work(changed):
    """Through the same eyes: the baseline with one constant changed does not agree."""
    workload = WORKLOADS[OMNIGLOT]
    kind = contestant_class("tf1-style")

    class Other(kind):
        def __init__(self, workload, images, pixel_scale):
            config = workload.config.replace(**changed)
            self.steps = config.inner.inner_iters
            super().__init__(dataclasses.replace(workload, config=config), images, pixel_scale)

        def step(self, rows, labels):
            for _ in range(self.steps):
                super().step(rows, labels)

    other = fingerprint(Other, workload, workload.dataset())
    ours = fingerprint_of(OURS, OMNIGLOT)
    assert max(difference(ours[part], other[part]) for part in ours) > benchmark.TOLERANCE


@pytest.mark.parametrize("row", WORKLOADS)
def test_network_description_is_that_of_the_models(row):
    workload = WORKLOADS[row]
    build = {"omniglot": omniglot_model, "miniimagenet": miniimagenet_model}
    task = workload.config.task
    models = [build[task.dataset](task.classes), stock_model(workload)]
    for model in models:
        assert workload.network.weight_shapes == [w.shape for w in model.trainable_variables]
    # 2 FLOP for each weight of a kernel at each position of the layer's output.
    forward, first = 0, None
    for layer in models[0].layers:
        if layer.name.startswith(("conv", "logits")):
            flop = 2 * np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:-1])
            forward, first = forward + flop, first or flop
    assert workload.network.forward_flop() == forward
    assert workload.network.training_flop() == 3 * forward - first


def test_flop_of_a_meta_iteration_by_hand():
    # 4 convolutions to 14², 7², 4² and 2² positions, dense 256 → 5; 5 tasks × 5 steps × 10 images.
    first = 2 * 14**2 * 64 * 9
    forward = first + 2 * (7**2 + 4**2 + 2**2) * 64 * 64 * 9 + 2 * 256 * 5
    assert WORKLOADS[OMNIGLOT].flop["train"] == 250 * (3 * forward - first)
    expected = 250 * (3 * forward - first) + 5 * forward
    assert WORKLOADS[OMNIGLOT].flop["evaluate"] == expected


def test_quotients_are_taken_round_by_round():
    """Two rounds, the second on a machine half as fast: the ratio is 3 in each."""
    seconds = {OURS: [1.0, 2.0], "eager": [3.0, 6.0]}
    summary = reporting.phase_summary(seconds, flop=2 * 2048**3, product_seconds=[0.5, 1.0])
    assert summary["contestants"]["eager"]["ratio_to_ours"]["rounds"] == [3.0, 3.0]
    share = summary["contestants"][OURS]["share_of_matrix_product_rate"]
    assert share["rounds"] == pytest.approx([0.5, 0.5])
    assert summary["floor_milliseconds"]["median"] == pytest.approx(750)


def test_measure_does_not_time_the_first_call_of_short_work():
    calls = []
    measure(lambda: calls.append(1), seconds=0.0, expected=1.0)
    assert len(calls) == 1
    measure(lambda: calls.append(1), seconds=1e-9, expected=0.0)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("--rows omniglot", 2, "--rows: must be of omniglot-1shot-5way, "),
        ("--rounds 0", 2, "--rounds: must be at least 1. Received: 0"),
        ("--rounds a", 2, "--rounds=a"),
        ("--threads 2", 2, "--threads: must be two integers of at least 1, as 1/2. Received: '2'"),
        ("--baselines theano", 2, "Received: 'theano'"),
        ("--json /nowhere/at/all.json", 1, "--json: cannot write /nowhere/at/all.json"),
        ("--only speed --peer_python /no/python", 1, "--peer_python: cannot run /no/python"),
        ("--only speed --baselines tf1", 1, "TensorFlow 1: give one with --tf1_python"),
        (
            "--only speed --baselines tf1 --tf1_python /bin/false",
            1,
            "TensorFlow 1: /bin/false has none; give one with --tf1_python",
        ),
        (
            f"--only speed --baselines tf1 --tf1_python {sys.executable}",  # which has 2
            1,
            f"TensorFlow 1: {sys.executable} has none; give one with --tf1_python",
        ),
    ],
)
def test_wrong_flags_are_told_in_one_line(flags, code, message, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["benchmarks", *flags.split()])
    error = capsys.readouterr().err
    assert stop.value.code == code
    assert message in error
    assert error.count("\n") == 1


def test_a_worker_that_fails_says_why_in_one_line():
    with pytest.raises(BenchmarkError, match=r"^worker nobody nothing failed: KeyError: .*$"):
        Worker("nobody", "nothing")
