"""The campaign of faults, in one command.

    python -m tests.campaign --seed 0 --kills 300 --inputs 50000     about an hour
    python -m tests.campaign --short                                 about two minutes, as in CI

Adds how often each kind of fault was tried, and what came of it, to --results, from which
`python docs/tables` writes the table of docs/reliability.md. Ends with exit code 1 if there was
a traceback or a wrong result. Needs Linux and a C compiler.
"""

import collections
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from supervised_reptile.config.command_line import Flag, run_program  # noqa: E402

VERDICTS = ("same bits", "accepted", "one clear line", "traceback", "silently wrong")


class Table:
    """How often each kind of fault had which outcome."""

    def __init__(self):
        self.rows = collections.defaultdict(collections.Counter)
        self.bad = []

    def count(self, kind, verdict, what):
        self.rows[kind][verdict] += 1
        if verdict in VERDICTS[-2:]:
            self.bad.append(f"{kind}: {verdict}: {what}")
            print(self.bad[-1], flush=True)
        if sum(self.rows[kind].values()) % 20 == 0 and "nonsense" not in kind:
            print(f"{kind}: {dict(self.rows[kind])}", flush=True)

    def add(self, kind, counts):
        """Take over what ``data_fuzz`` counted."""
        verdicts = {"refused": "one clear line", "wrong": "silently wrong"}
        verdicts |= dict.fromkeys(("same", "reported", "other"), "accepted")
        for outcome, number in counts.items():
            verdict = verdicts.get(outcome, outcome)
            self.rows[kind][verdict] += number
            if number and verdict in VERDICTS[-2:]:
                self.bad.append(f"{kind}: {verdict}: {number}, see above")

    def markdown(self):
        heads = ("fault", "tried", *VERDICTS)
        lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
        for kind, row in self.rows.items():
            cells = [kind, f"{sum(row.values()):,}", *(f"{row[v]:,}" for v in VERDICTS)]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"


FLAGS = {
    "seed": Flag(0, "Seed of the faults."),
    "kills": Flag(300, "Kills; half of them at file operations."),
    "disks": Flag(60, "Full disks and I/O errors."),
    "damages": Flag(200, "Damaged files of runs."),
    "doubles": Flag(20, "Double starts."),
    "inputs": Flag(50_000, "Inputs of nonsense; 0 for none."),
    "soak": Flag(0, "Meta-iterations to watch memory over."),
    "short": Flag(False, "A few of each; nothing is written."),
    "results": Flag("results/faults.json", "File to add to, relative to the project."),
}
SHORT = {"kills": 6, "disks": 4, "damages": 6, "doubles": 2}


def carry_out(*, seed, inputs, soak, short, results, **faults):
    """Carry out the campaign; returns the exit code."""
    if short:
        faults, inputs = SHORT, 2000

    from campaign import data_fuzz, nonsense, runs

    table, started = Table(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if inputs:
            nonsense.carry_out(Path(folder), seed, table, inputs // 2)
            cases = inputs // 2 // (len(data_fuzz.KINDS) + 1)
            for kind, counts in data_fuzz.run(cases, seed).items():
                table.add(f"nonsense: {kind}", counts)
        facts = runs.carry_out(Path(folder), seed, table, soak=soak, **faults)
    print(table.markdown(), end="")
    if not short:
        report = {
            "seed": seed,
            "commit": subprocess.run(
                ["git", "rev-parse", "--short=12", "HEAD"],
                cwd=PROJECT,
                capture_output=True,
                text=True,
            ).stdout.strip(),
            "minutes": round((time.monotonic() - started) / 60, 1),
            **facts,
            "faults": {kind: dict(row) for kind, row in table.rows.items()},
        }
        path = PROJECT / results
        earlier = json.loads(path.read_text()) if path.exists() else []
        path.write_text(json.dumps([*earlier, report], indent=2) + "\n")
    return 1 if table.bad else 0


if __name__ == "__main__":
    run_program(carry_out, FLAGS, description=__doc__)
