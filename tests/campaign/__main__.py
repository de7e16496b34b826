"""The campaign of faults, in one command.

    python -m tests.campaign --seed 0 --kills 300 --inputs 50000     about an hour
    python -m tests.campaign --short                                 about two minutes, as in CI

Writes how often each kind of fault was tried, and what came of it, into --results and the table of
docs/reliability.md. Ends with exit code 1 if there was a traceback or a wrong result. Needs Linux
and a C compiler.
"""

import argparse
import collections
import json
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]
VERDICTS = ("same bits", "accepted", "one clear line", "traceback", "silently wrong")
MARKS = "<!-- faults -->\n", "<!-- /faults -->"


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


def main():
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seed", type=int, default=0)
    add("--kills", type=int, default=300, help="kills; half of them at file operations")
    add("--disks", type=int, default=60, help="full disks and I/O errors")
    add("--damages", type=int, default=200, help="damaged files of runs")
    add("--doubles", type=int, default=20, help="double starts")
    add("--inputs", type=int, default=50_000, help="inputs of nonsense; 0 for none")
    add("--soak", type=int, default=0, metavar="N", help="meta-iterations to watch memory over")
    add("--short", action="store_true", help="a few of each, and nothing is written")
    add("--results", type=Path, default=PROJECT / "results" / "faults.json")
    args = parser.parse_args()
    if args.short:
        args.kills, args.disks, args.damages, args.doubles, args.inputs = 6, 4, 6, 2, 2000

    from campaign import data_fuzz, nonsense, runs

    table, started = Table(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if args.inputs:
            nonsense.carry_out(Path(folder), args.seed, table, args.inputs // 2)
            cases = args.inputs // 2 // (len(data_fuzz.KINDS) + 1)
            for kind, counts in data_fuzz.run(cases, args.seed).items():
                table.add(f"nonsense: {kind}", counts)
        facts = runs.carry_out(
            Path(folder),
            args.seed,
            table,
            kills=args.kills,
            disks=args.disks,
            damages=args.damages,
            doubles=args.doubles,
            soak=args.soak,
        )
    print(table.markdown(), end="")
    if not args.short:
        report = {
            "seed": args.seed,
            "minutes": round((time.monotonic() - started) / 60, 1),
            **facts,
            "faults": {kind: dict(row) for kind, row in table.rows.items()},
        }
        args.results.write_text(json.dumps(report, indent=2) + "\n")
        page = PROJECT / "docs" / "reliability.md"
        before, _, rest = page.read_text().partition(MARKS[0])
        page.write_text(
            before + MARKS[0] + table.markdown() + MARKS[1] + rest.partition(MARKS[1])[2]
        )
    return 1 if table.bad else 0


if __name__ == "__main__":
    sys.exit(main())
