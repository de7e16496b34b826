"""Our numbers beside the published ones: means over seeds, what was run, tables that are true."""

import json
from pathlib import Path

import numpy as np
import pytest

from supervised_reptile.config import paper_config
from supervised_reptile.errors import RunError
from supervised_reptile.evaluation import Accuracy
from supervised_reptile.reproduction import comparison, report
from supervised_reptile.reproduction.comparison import compare, times_to_accuracy
from supervised_reptile.reproduction.published import ROWS, find_row
from supervised_reptile.reproduction.report import comparison_table, headline_table
from supervised_reptile.runs.learning_curve import first_reached, read_curve, trailing_mean
from supervised_reptile.runs.record import write_record

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def add(root, folder, training, shots, transductive, mean, iterations=None, tasks=100, **evaluated):
    """Write a record of half an hour of training and an interval of 1 %."""
    path = root / folder
    path.mkdir(parents=True, exist_ok=True)
    config = find_row("omniglot-5way").evaluation(training, shots, transductive, tasks)
    config = config.replace(**evaluated)
    write_record(
        path / f"results-{shots}-{transductive}.json",
        config,
        {"train": Accuracy(mean, 0.01, tasks), "test": Accuracy(mean - 0.02, 0.01, tasks)},
        iterations=training.meta.meta_iters if iterations is None else iterations,
        training_seconds=1800,
        evaluation_seconds=1,
        trained_with=training,
    )


def entry(root, shots=1, transductive=True, row="omniglot-5way"):
    found = [
        e
        for e in compare(root)
        if (e["row"], e["shots"], e["transductive"]) == (row, shots, transductive)
    ]
    return found[0] if len(found) == 1 else found


def test_with_no_records_every_published_cell_is_not_run(root):
    entries = compare(root)
    assert len(entries) == sum(len(row.tasks()) for row in ROWS)
    assert {e["status"] for e in entries} == {"not run"}
    assert all(e["published"] for e in entries if e["dataset"] in ("omniglot", "miniimagenet"))
    table = comparison_table(entries)
    assert table.count("not run") == len(entries)
    assert "| 95.39 ± 0.09 | 95.48, 95.56, 95.25, 95.20 | not run |" in table


def test_seeds_are_averaged_and_spread_as_by_hand(root):
    row = find_row("omniglot-5way")
    for seed, mean in enumerate((0.98, 0.99, 1.0)):
        add(root, f"run/seed{seed}", row.training(seed), 1, True, mean)
    found = entry(root)
    # Test means 96, 97, 98: mean 97, variance (1 + 0 + 1)/2.
    assert found["accuracy"]["test"]["mean"] == pytest.approx(97)
    assert found["accuracy"]["test"]["spread"] == pytest.approx(1)
    assert found["difference"] == pytest.approx(97 - 97.68)
    assert (found["status"], found["seeds"], found["hours"]) == ("full", [0, 1, 2], 0.5)
    line = next(x for x in comparison_table(compare(root)).splitlines() if "97.00" in x)
    assert "| 97.68 ± 0.04, 97.70 (review) | 97.74, 97.79, 97.61, 97.70 |" in line
    assert "| 97.00 ± 1.00 | -0.68 | 99.00 ± 1.00 |" in line
    (headline,) = headline_table(compare(root)).splitlines()[2:]
    assert "| 97.68 ± 0.04, 97.70 (review) | 97.00 ± 1.00 | [0](results/run/seed0/" in headline
    assert "| 100,000 | seed [0](results/run/seed0/results-1-True.json), [1](" in line


def test_a_single_run_shows_the_interval_over_its_tasks(root):
    add(root, "run", find_row("omniglot-5way").training(0), 5, False, 0.99)
    found = entry(root, shots=5, transductive=False)
    assert found["accuracy"]["test"] == {
        "mean": pytest.approx(97),
        "spread": None,
        "interval95": pytest.approx(1),
        "tasks": 100,
    }
    assert "| 97.00 [± 1.00] | -1.90 |" in comparison_table([found])


def test_runs_of_other_lengths_are_not_averaged_with_full_ones(root):
    row = find_row("omniglot-5way")
    add(root, "short", row.training(0, 3000), 1, True, 0.9)
    add(root, "full", row.training(0), 1, True, 0.98)
    add(root, "stopped", row.training(1), 1, True, 0.95, iterations=60_000)
    found = entry(root)
    assert [e["status"] for e in found] == ["full", "shortened", "unfinished"]
    assert [e["accuracy"]["train"]["mean"] for e in found] == pytest.approx([98, 90, 95])
    assert ["difference" in e for e in found] == [True, False, False]
    text = comparison_table(found)
    assert "| 3,000 (shortened; of 100,000) |" in text
    assert "| 60,000 (unfinished; of 100,000) |" in text


def test_a_run_longer_than_published_is_not_compared(root):
    add(root, "long", find_row("omniglot-5way").training(0, 200_000), 1, True, 0.99)
    found = entry(root)
    assert found["status"] == "longer" and "difference" not in found
    assert "| 200,000 (longer; of 100,000) |" in comparison_table([found])


def test_a_seed_that_was_evaluated_twice_counts_once(root):
    row = find_row("omniglot-5way")
    add(root, "few/seed0", row.training(0), 1, True, 0.9)
    add(root, "many/seed0", row.training(0), 1, True, 0.98, tasks=1000)
    add(root, "many/seed1", row.training(1), 1, True, 0.96, tasks=1000)
    many, few = entry(root)
    assert (many["seeds"], many["accuracy"]["train"]["mean"]) == ([0, 1], pytest.approx(97))
    assert (few["seeds"], few["accuracy"]["train"]["spread"]) == ([0], None)
    assert few["records"] == ["results/few/seed0/results-1-True.json"]


@pytest.mark.parametrize("otherwise", [{"eval_iters": 5}, {"learning_rate": 0.05}])
def test_an_evaluation_made_otherwise_is_not_the_rows(root, otherwise):
    training = find_row("omniglot-5way").training(0)
    add(root, "paper", training, 1, True, 0.98)
    add(root, "mine", training, 1, True, 0.5, **otherwise)
    assert entry(root)["accuracy"]["train"]["mean"] == pytest.approx(98)
    (other,) = (e for e in compare(root) if e["row"] is None)
    assert other["accuracy"]["train"]["mean"] == pytest.approx(50) and "difference" not in other


def test_what_only_the_training_looks_at_does_not_part_evaluations(root):
    training = find_row("omniglot-5way").training(0)
    # As `run_omniglot.py --pretrained` has it, told nothing of the training.
    add(root, "run", training, 1, True, 0.98, meta_iters=7, inner_iters=3, eval_interval=10)
    assert (entry(root)["status"], entry(root)["iterations"]) == ("full", 100_000)


def test_other_hyper_parameters_are_another_training(root):
    row = find_row("omniglot-5way")
    add(root, "paper", row.training(0), 1, True, 0.98)
    add(root, "mine", row.training(0).replace(learning_rate=0.002), 1, True, 0.5)
    assert entry(root)["accuracy"]["train"]["mean"] == pytest.approx(98)
    rest = [e for e in compare(root) if e["row"] is None]
    assert [e["accuracy"]["train"]["mean"] for e in rest] == pytest.approx([50])
    assert rest[0]["published"] == [] and "difference" not in rest[0]


def test_the_embedded_characters_are_never_set_beside_omniglots_numbers(root):
    config = paper_config("glyphs", shots=1, transductive=True)
    accuracies = {"train": Accuracy(0.9, 0.01, 9), "test": Accuracy(0.9, 0.01, 9)}
    write_record(
        root / "results.json",
        config,
        accuracies,
        iterations=100_000,
        training_seconds=1,
        evaluation_seconds=1,
    )
    (found,) = (e for e in compare(root) if e["status"] != "not run")
    assert (found["row"], found["dataset"], found["published"]) == (None, "glyphs", [])
    shorter = comparison_table([found | {"status": "shortened", "iterations": 1000}])
    assert "| 1,000 (shortened) |" in shorter  # than nothing that is published


def test_results_of_experiments_are_passed_over(root):
    (root / "sine").mkdir()
    (root / "sine" / "results.json").write_text('{"settings": {}, "accuracy": 1}')
    assert {e["status"] for e in compare(root)} == {"not run"}


# ------------------------------------------------------------------------ time to accuracy


def test_trailing_mean_by_hand():
    np.testing.assert_allclose(trailing_mean(np.array([1.0, 2, 3, 6]), 2), [1.5, 2.5, 4.5])
    np.testing.assert_allclose(trailing_mean(np.array([1.0, 2]), 3), [])


def test_first_reached_by_hand():
    curve = {
        "iteration": np.array([0.0, 50, 100, 150]),
        "seconds": np.array([1.0, 2, 3, 4]),
        "test": np.array([0.2, 0.9, 0.5, 0.9]),
    }
    assert first_reached(curve, "test", 0.9, 1) == (50, 2.0)
    assert first_reached(curve, "test", 0.7, 2) == (100, 3.0)  # (0.9 + 0.5)/2
    assert first_reached(curve, "test", 0.95, 1) is None


def test_a_mean_of_exactly_the_target_has_reached_it():
    right = np.random.default_rng(0).integers(3, 6, 2000)  # of 5
    curve = {"iteration": np.arange(2000), "seconds": np.zeros(2000), "test": right / 5}
    counts = np.convolve(right, np.ones(400, int), "valid")
    for count in range(counts[0] + 1, counts.max() + 1):
        wanted = 399 + np.argmax(counts >= count)
        assert first_reached(curve, "test", count / 2000, 400) == (wanted, 0.0), count


def write_curve(folder, accuracy):
    lines = ["iteration,seconds,meta_step,inner_loss,train,test"]
    lines += [f"{50 * i},{36 * i},1,0.5,1,{a}" for i, a in enumerate(accuracy)]
    (folder / "curve.csv").write_text("\n".join(lines) + "\n")


def test_time_to_accuracy_is_of_full_runs_of_published_rows(root):
    row = find_row("omniglot-5way")
    window = comparison.TIME_WINDOW
    for folder, training in (("full", row.training(0)), ("short", row.training(0, 3000))):
        add(root, folder, training, 1, True, 0.98)
        write_curve(root / folder, [0.5] * window + [0.96] * window)
    times = times_to_accuracy(root)
    assert [(t["row"], t["seed"], t["target"]) for t in times] == [
        ("omniglot-5way", 0, 90.0),
        ("omniglot-5way", 0, 95.0),
        ("omniglot-5way", 0, 97.68),
    ]
    # (0.5·(400 − k) + 0.96·k)/400 ≥ 0.9 from k = 348 on, at point 399 + 348.
    assert times[0]["iteration"] == 50 * 747 and times[0]["hours"] == pytest.approx(7.47)
    assert times[2]["iteration"] is None
    table = report.times_table(times)
    assert "| omniglot-5way | 0 | 1-shot, transductive | 97.68 % | not reached |  |" in table
    # Where the first mean is above a target, only that is known.
    write_curve(root / "full", [0.96] * 2 * window)
    first = report.times_table(times_to_accuracy(root)).splitlines()[2]
    assert first == "| omniglot-5way | 0 | 1-shot, transductive | 90 % | ≤ 19,950 | ≤ 3.99 |"
    add(root, "full", row.training(0), 1, True, 0.98, iterations=60_000)
    assert times_to_accuracy(root) == []  # not finished


def test_a_curve_is_read_as_it_was_written(root):
    write_curve(root, [0.25, 0.5])
    curve = read_curve(root / "curve.csv")
    np.testing.assert_array_equal(curve["iteration"], [0, 50])
    np.testing.assert_array_equal(curve["test"], [0.25, 0.5])


# ------------------------------------------------------------------- documents and records


def test_readme_and_results_show_what_the_records_say(tmp_path):
    """Made anew from the records, the documents are those of the project."""
    project = tmp_path / "project"
    for path in (PROJECT / "results").rglob("*"):
        if path.match("results*.json") or path.name == "curve.csv":
            copy = project / path.relative_to(PROJECT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (project / "README.md").write_text((PROJECT / "README.md").read_text())
    report.write_comparison(project / "results", project / "README.md")
    for name in ("README.md", "results/reproduction.md", "results/reproduction.json"):
        assert (project / name).read_text() == (PROJECT / name).read_text(), (
            f"{name} differs from the records: run python reproduce.py"
        )


def test_links_start_where_the_document_lies(root):
    (root.parent / "README.md").write_text("<!-- results -->\n<!-- /results -->\n")
    add(root, "run", find_row("omniglot-5way").training(0), 1, True, 0.98)
    report.write_comparison(root, root.parent / "README.md")
    assert "[0](results/run/results-1-True.json)" in (root.parent / "README.md").read_text()
    assert "[0](run/results-1-True.json)" in (root / "reproduction.md").read_text()
    assert len(json.loads((root / "reproduction.json").read_text())["comparison"]) >= len(ROWS)


def test_a_readme_without_the_marks_is_refused(root):
    (root.parent / "README.md").write_text("nothing here\n")
    with pytest.raises(RunError, match="<!-- results -->"):
        report.write_comparison(root, root.parent / "README.md")
    assert not (root / "reproduction.md").exists()
