"""Runs that are killed, whose disk is full, whose files are damaged, that are started twice."""

import csv
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import tensorflow as tf

from supervised_reptile.runs.checkpoints import RunDirectory

HERE = Path(__file__).parent
ITERATIONS = 12
FLAGS = f"""--dataset=glyphs --classes=3 --shots=2 --train_shots=4 --inner_batch=5 --inner_iters=4
    --meta_batch=2 --meta_iters={ITERATIONS} --eval_batch=4 --eval_iters=3 --eval_samples=6
    --eval_interval=2 --checkpoint_interval=3 --intra_op_threads=1 --inter_op_threads=1
    --noprogress""".split()


class Server:
    """The process that runs are forked from."""

    def __init__(self, folder):
        library = folder / "shim.so"
        compiler = os.environ.get("CC", "cc")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", library, HERE / "shim.c", "-ldl"],
            check=True,
        )
        paths = [str(HERE.parents[1]), str(HERE.parent)]
        environment = os.environ | {
            "LD_PRELOAD": str(library),
            "PYTHONPATH": os.pathsep.join(paths),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self._process = subprocess.Popen(
            [sys.executable, HERE / "server.py"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, job):
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, folder, name="run", output="output", **how):
        flags = [*FLAGS, f"--checkpoint={folder / name}", *how.pop("flags", ())]
        return self._ask({"start": {"argv": flags, "output": str(folder / output)} | how})

    def wait(self, number):
        return self._ask({"wait": number})

    def run(self, folder, **how):
        code = self.wait(self.start(folder, **how))
        return code, (folder / how.get("output", "output")).read_text(errors="replace")

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def bits(directory):
    """Everything a run is for, without times: checkpoint, curve and accuracies."""
    reader = tf.train.load_checkpoint(str(RunDirectory(directory).newest))
    names = sorted(n for n in reader.get_variable_to_shape_map() if n.endswith("VARIABLE_VALUE"))
    skipped = ("seconds", "save_counter", "data_set")
    state = [(n, reader.get_tensor(n).tobytes()) for n in names if not n.startswith(skipped)]
    with (directory / "curve.csv").open(newline="") as file:
        curve = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    return state, curve, json.loads((directory / "results.json").read_text())["accuracy"]


def shown(output):
    """The accuracies that a run printed."""
    return [line for line in output.splitlines() if " accuracy: " in line]


class Runs:
    """The part of the campaign that is about runs; ``table`` counts what came of each trial."""

    def __init__(self, folder, rng, table):
        self.folder, self.rng, self.table = folder, rng, table
        self.server = Server(folder)
        self.whole = folder / "whole"
        self.whole.mkdir()
        count = {"folder": str(self.whole), "where": [-1, 0, 0, 0]}
        code, output = self.server.run(self.whole, fault=count, count=str(folder / "count"))
        assert code == 0, output
        self.operations, self.writes = map(int, (folder / "count").read_text().split())
        self.expected, self.accuracies = bits(self.whole / "run"), shown(output)

    def judge(self, kind, what, directory, code, output):
        """Count the last process of a trial."""
        lines = output.strip().splitlines() or [""]
        if "Traceback" in output or code < 0:
            verdict = "traceback"
        elif code and lines[-1].startswith("run_tiny.py: error: "):
            verdict = "one clear line"
        elif code == 0 and shown(output) == self.accuracies and self.kept(directory, output):
            verdict = "same bits"
        else:
            verdict = "silently wrong"
        self.table.count(kind, verdict, f"{what}\n{output}" if verdict[0] == "t" else what)

    def kept(self, directory, output):
        """Whether a run has the right bits, or shows its record without reading a checkpoint."""
        try:
            return bits(directory) == self.expected
        except tf.errors.OpError:
            return output.startswith("already finished: ")

    def trial(self):
        folder = self.folder / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def kills(self, count):
        """Kills at every file operation of a run, or as many of them, and at random moments."""
        places = list(range(self.operations))
        if len(places) > count // 2:
            places = sorted(self.rng.sample(places, count // 2))
        for place in places:
            folder = self.trial()
            fault = {"folder": str(folder), "where": [place, 0, 0, 0]}
            killed, _ = self.server.run(folder, fault=fault)
            assert killed == -signal.SIGKILL, (place, killed)
            what = f"killed at file operation {place} of {self.operations}"
            self.judge("kill at a file operation", what, folder / "run", *self.server.run(folder))
        for _ in range(count - len(places)):
            folder = self.trial()
            moment = self.rng.uniform(0, 2.5)
            number = self.server.start(folder, pause=0.03)
            time.sleep(moment)
            os.kill(number, signal.SIGKILL)
            self.server.wait(number)
            what = f"killed after {moment:.3f} s"
            self.judge("kill at a random moment", what, folder / "run", *self.server.run(folder))

    def disks(self, count):
        """A full disk and an I/O error at writes; then the same command with a good disk."""
        for _ in range(count):
            folder = self.trial()
            number = self.rng.choice([errno.ENOSPC, errno.EIO])
            lasts = 10**6 if number == errno.ENOSPC else 1
            place = self.rng.randrange(self.writes)
            fault = {"folder": str(folder), "where": [place, number, lasts, 1]}
            what = f"{errno.errorcode[number]} at write {place}"
            code, output = self.server.run(folder, fault=fault)
            kind = "full disk or I/O error"
            if code:
                self.judge(kind, what, folder / "run", code, output)
            self.judge(f"{kind}, then again", what, folder / "run", *self.server.run(folder))

    def damages(self, count):
        """Each file of an interrupted and of a finished run: cut, a bit flipped, deleted."""
        interrupted = self.folder / "interrupted"
        interrupted.mkdir()
        number = self.server.start(interrupted, pause=0.2)
        while not (interrupted / "run" / "ckpt-6.index").exists():
            time.sleep(0.01)
        os.kill(number, signal.SIGKILL)
        self.server.wait(number)
        trials = [
            (state, path.relative_to(state), how)
            for state in (interrupted, self.whole)
            for path in sorted((state / "run").rglob("*"))
            if path.is_file()
            for how in ("deleted", "cut", "flipped", "flipped")
        ]
        if len(trials) > count:
            trials = self.rng.sample(trials, count)
        for state, path, how in trials:
            folder = self.trial()
            shutil.copytree(state, folder, dirs_exist_ok=True)
            content = bytearray((folder / path).read_bytes())
            if how == "deleted":
                (folder / path).unlink()
            elif how == "cut":
                (folder / path).write_bytes(content[: self.rng.randrange(len(content) + 1)])
            elif content:
                content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
                (folder / path).write_bytes(content)
            code, output = self.server.run(folder)
            what = f"{path} of the {state.name} run {how}"
            self.judge("damaged file of a run", what, folder / "run", code, output)

    def double_starts(self, count):
        """Two processes in one directory, in both orders; and a stale one after a finished run."""
        kind = "double start"
        for trial in range(count):
            folder = self.trial()
            if trial % 2:  # The second is refused, the first is undisturbed.
                first = self.server.start(folder, pause=0.1)
                while not (folder / "run" / "ckpt-3.index").exists():
                    time.sleep(0.01)
                code, output = self.server.run(folder, output="second")
                if code != 1:
                    self.table.count(kind, "silently wrong", output)
                self.judge(kind, "the second", folder / "run", code, output)
            else:  # The first waits for its data, while the second finishes.
                gate = folder / "gate"
                first = self.server.start(folder, gate=str(gate))
                time.sleep(self.rng.uniform(0, 1))
                code, output = self.server.run(folder, output="second")
                self.judge(kind, "the second", folder / "run", code, output)
                gate.write_text("")
            code, output = self.server.wait(first), (folder / "output").read_text()
            self.judge(kind, "the first", folder / "run", code, output)

    def soak(self, iterations):
        """The growth of resident memory over the second half of a run, bytes a meta-iteration."""
        folder, memory = self.trial(), self.folder / "memory"
        flags = [f"--meta_iters={iterations}", "--checkpoint_interval=1000", "--eval_interval=50"]
        code, output = self.server.run(folder, flags=flags, memory=str(memory))
        assert code == 0, output
        sizes = [int(line) for line in memory.read_text().split()]
        half = len(sizes) // 2
        return (sizes[-1] - sizes[half]) / (len(sizes) - half)


def carry_out(folder, seed, table, *, kills, disks, damages, doubles, soak):
    """All of it; returns facts for the report."""
    runs = Runs(folder, random.Random(seed), table)
    try:
        runs.kills(kills)
        runs.disks(disks)
        runs.damages(damages)
        runs.double_starts(doubles)
        facts = {"file_operations_of_a_run": runs.operations, "writes_of_a_run": runs.writes}
        if soak:
            facts |= {"soak_iterations": soak, "bytes_per_iteration": round(runs.soak(soak), 1)}
        return facts
    finally:
        runs.server.close()
