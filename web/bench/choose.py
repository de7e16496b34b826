"""Choose the inner mini-batches of the pages' network without the test characters.

    python web/bench/choose.py

Each candidate is trained on 1,000 of the 1,200 training characters, for a fortieth of its
meta-iterations, and evaluated on tasks of the other 200. The accuracies go to choose.json in this
folder.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

import supervised_reptile as sr
from supervised_reptile.startup import set_threads

CANDIDATES = (
    {"inner_batch": 3, "inner_iters": 8, "meta_iters": 500},
    {"inner_batch": 10, "inner_iters": 5, "meta_iters": 750},
)
FIXED = {"filters": 24, "train_shots": 10, "eval_batch": 3, "eval_iters": 10}
HELD_OUT, TASKS = 200, 1000


def held_out(dataset: sr.FewShotDataset) -> sr.FewShotDataset:
    """Return the training characters alone, the last of them as a split of their own.

    The four rotations of a character are neighbors, so none of them is on both sides.
    """
    classes = dataset.splits["train"]
    first, last = classes[: -4 * HELD_OUT], classes[-4 * HELD_OUT :: 4]
    return dataclasses.replace(dataset, splits={"train": first, "validation": last})


def accuracy_of(candidate: dict, dataset: sr.FewShotDataset) -> dict:
    """Train a candidate and evaluate it on the held-out characters."""
    config = sr.paper_config("omniglot", classes=3, shots=1, **FIXED, **candidate)
    learner = sr.learner_from_config(config, sr.model_from_config(config))
    for i, _, loss in sr.meta_train(
        learner,
        dataset,
        sr.training_spec(config),
        iterations=range(config.meta.meta_iters),
        meta_step=sr.meta_step_from_config(config),
        seed=config.seed,
    ):
        if i % 250 == 0:
            print(candidate, i, f"inner loss {loss:.3f}", flush=True)
    spec = sr.evaluation_spec(config)
    found = sr.evaluate(learner, dataset, "validation", spec, tasks=TASKS, transductive=False)
    return {**candidate, "mean": found.mean, "interval95": found.interval95, "tasks": TASKS}


def main(data_dir: str = "data") -> None:
    """Compare the candidates."""
    set_threads(1, 1)  # the fastest for so small a network
    dataset = held_out(sr.load_dataset("omniglot", data_dir=data_dir))
    assert np.intersect1d(*dataset.splits.values()).size == 0
    results = [accuracy_of(candidate, dataset) for candidate in CANDIDATES]
    path = Path(__file__).with_name("choose.json")
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(*results, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
