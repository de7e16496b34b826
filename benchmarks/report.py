"""Compute medians, ratios and tables from measured rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.worker import MATRIX_SIZE, OURS

PHASES = {"train": "Training: one meta-iteration", "evaluate": "Evaluation: one task"}


def summary(rounds: Iterable[float]) -> dict[str, Any]:
    """Return the median, minimum and maximum of the rounds, and the rounds themselves."""
    values = list(rounds)
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": values,
    }


def phase_summary(
    seconds: Mapping[str, Sequence[float]], flop: int, product_seconds: Sequence[float]
) -> dict[str, Any]:
    """Summarize the rounds of one row and phase.

    Args:
        seconds: Contestant to its seconds a unit, round by round.
        flop: FLOP of a unit.
        product_seconds: Seconds of the large matrix product in the same rounds.

    Returns:
        Plain values for JSON. Quotients are computed within each round, before the median.
    """
    rates = [2 * MATRIX_SIZE**3 / s / 1e9 for s in product_seconds]
    floors = [flop / 1e9 / rate for rate in rates]  # seconds
    contestants = {}
    for name, values in seconds.items():
        entry = {
            "milliseconds": summary(1e3 * s for s in values),
            "gflop_per_second": summary(flop / 1e9 / s for s in values),
            "share_of_matrix_product_rate": summary(
                floor / s for floor, s in zip(floors, values, strict=True)
            ),
        }
        if name != OURS:
            entry["ratio_to_ours"] = summary(
                s / ours for s, ours in zip(values, seconds[OURS], strict=True)
            )
        contestants[name] = entry
    return {
        "gflop": flop / 1e9,
        "matrix_product_gflop_per_second": summary(rates),
        "floor_milliseconds": summary(1e3 * floor for floor in floors),
        "contestants": contestants,
    }


def render(report: Mapping[str, Any]) -> str:
    """Return the tables, in Markdown."""
    parts = []
    for phase, title in PHASES.items() if report["rows"] else ():
        parts.append(
            _table(
                f"{title} (median of {report['settings']['rounds']} rounds, least … greatest)",
                ["", "threads", "ms", "GFLOP/s", "of the floor's speed", "time / ours"],
                [line for row in report["rows"] for line in _phase_lines(row, phase)],
            )
        )
    if report["rows"]:
        parts.append(_notes(report["rows"]))
    if report["jobs"]:
        parts.append(
            _table(
                "Whole jobs: start-up and memory",
                ["", "first meta-iteration after", "whole job", "peak memory"],
                [
                    [
                        job["title"],
                        f"{job['first_iteration_seconds']:.1f} s",
                        f"{job['total_seconds']:.1f} s",
                        f"{job['peak_megabytes']:.0f} MB",
                    ]
                    for job in report["jobs"]
                ],
            )
        )
    return "\n\n".join(parts)


def _phase_lines(row: Mapping[str, Any], phase: str) -> Iterable[list[str]]:
    measured = row[phase]
    rate = measured["matrix_product_gflop_per_second"]["median"]
    yield [
        f"**{row['title']}**, {measured['gflop']:.1f} GFLOP: floor",
        "",
        _spread(measured["floor_milliseconds"], ".1f"),
        f"{rate:.0f}",
        "",
        "",
    ]
    for name, entry in measured["contestants"].items():
        ratio = entry.get("ratio_to_ours")
        yield [
            name,
            row["workers"][name]["threads"],
            _spread(entry["milliseconds"], ".1f"),
            f"{entry['gflop_per_second']['median']:.0f}",
            f"{100 * entry['share_of_matrix_product_rate']['median']:.0f} %",
            _spread(ratio, ".2f") if ratio else "",
        ]


def _notes(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"The floor is the work at the rate of a {MATRIX_SIZE}×{MATRIX_SIZE} float32 matrix "
        "product on all cores, measured in the same rounds. Threads are TensorFlow's "
        "intra-op/inter-op; the default of both, and of PyTorch, is one per core.",
    ]
    for row in rows:
        memory = (f"{name} {w['peak_megabytes']:.0f} MB" for name, w in row["workers"].items())
        lines.append(f"Peak memory, {row['title']}: {', '.join(memory)}.")
        for name, worker in row["workers"].items():
            if "runs_on" in worker:
                lines.append(f"{name}, {row['title']}: {worker['runs_on']}.")
            if not worker["agrees"]:
                apart = ", ".join(f"{part} {d:.2g}" for part, d in worker["difference"].items())
                lines.append(
                    f"WARNING: {name} does not compute what ours computes in {row['title']}: "
                    f"relative differences {apart}."
                )
    return "\n".join(f"- {line}" for line in lines)


def _spread(values: Mapping[str, Any], form: str) -> str:
    return f"{values['median']:{form}} ({values['min']:{form}} … {values['max']:{form}})"


def _table(title: str, headings: list[str], lines: Iterable[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(headings) - 1)
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, rule, *lines])
    return f"### {title}\n\n{body}"
