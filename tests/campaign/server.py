"""Runs in processes of their own, forked from one that has imported TensorFlow already.

Reads a job a line from its input: ``{"start": {...}}`` is answered by the number of the process,
``{"wait": number}`` by its exit code. Preloaded is ``shim.c``, which counts a process' operations
on files below a folder and kills it, or lets it fail, at a given one.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

import tensorflow as tf
from helpers import dense_model, vector_dataset

from supervised_reptile import main as run_module
from supervised_reptile import meta_learner
from supervised_reptile.config.command_line import run_main
from supervised_reptile.config.flags import (
    config_from_flags,
    define_flags,
    options_from_flags,
)
from supervised_reptile.runs import stages


def child(job):
    """One run, as the entry script would do it, of a small dense network on vectors."""
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    step = meta_learner.MetaLearner.train_step

    def train_step(self, *args):
        loss = step(self, *args)
        time.sleep(job.get("pause", 0))
        if job.get("memory"):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            with Path(job["memory"]).open("a") as file:
                file.write(f"{pages * os.sysconf('SC_PAGE_SIZE')}\n")
        return loss

    def load_dataset(*args, **kwargs):
        while job.get("gate") and not Path(job["gate"]).exists():
            time.sleep(0.005)
        return vector_dataset()

    meta_learner.MetaLearner.train_step = train_step
    stages.load_dataset = load_dataset
    run_module.model_from_config = lambda config: dense_model()
    define_flags(("glyphs",))
    shim = ctypes.CDLL(None)
    if job.get("fault"):
        fault = job["fault"]
        folder = os.path.realpath(fault["folder"]).encode()
        shim.fault_arm(folder, *map(ctypes.c_long, fault["where"]))

    def main(argv):
        run_module.run(config_from_flags(), options_from_flags())
        if job.get("count"):
            counts = f"{shim.fault_count()} {shim.fault_writes()}"
            Path(job["count"]).write_text(counts)

    run_main(main, ["run_tiny.py", *job["argv"]])


def serve():
    """Answer jobs until the input ends."""
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            code = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
            print(code, flush=True)
            continue
        number = os.fork()
        if not number:
            child(job["start"])
        print(number, flush=True)


if __name__ == "__main__":
    assert tf.__version__
    serve()
