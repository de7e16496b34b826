"""What `--help` says of each flag: its meaning, its range and the paper's values."""

import dataclasses
from collections.abc import Sequence

from supervised_reptile.config import (
    ALGORITHMS,
    FIELDS,
    INNER_OPTIMIZERS,
    OUTER_OPTIMIZERS,
    RESIZE_FILTERS,
    RunOptions,
)
from supervised_reptile.config.command_line import shown
from supervised_reptile.config.paper import DATASETS

FLAG_HELP: dict[str, dict[str, str]] = {
    "Task": {
        "dataset": "Data set.",
        "classes": "Classes in a task (N-way), at least 2.",
        "shots": (
            "Labelled examples of each class at evaluation (K-shot), at least 1. One more example"
            " of each class is held out as the query."
        ),
        "train_shots": (
            "Examples of each class in a training task, at least 1; 0 means the value of --shots."
        ),
    },
    "Network": {
        "filters": "Channels of each convolution, at least 1.",
        "image_size": "Height and width of the images in pixels, at least 1.",
        "resize": (
            f"How images are brought to that size, a filter of Pillow: {', '.join(RESIZE_FILTERS)}."
        ),
        "pretrain": (
            "Train an ordinary classifier of all training classes first, until its validation loss"
            " is flat, and start from its weights but for the last layer."
        ),
        "freeze": (
            "How many of the four blocks, the first ones, stay as they started (training and"
            " evaluation), from 0 to 4."
        ),
    },
    "Inner loop": {
        "inner_optimizer": f"Optimizer on a task: {', '.join(INNER_OPTIMIZERS)}.",
        "sgd": "Short for --inner_optimizer=sgd.",
        "learning_rate": (
            "Inner learning rate, greater than 0. The gradient is the sum over the mini-batch."
        ),
        "inner_batch": "Examples in a training mini-batch, at least 1.",
        "inner_iters": "Optimizer steps on each training task, at least 1.",
        "replacement": (
            "Draw each mini-batch afresh from the task (training and evaluation), rather than"
            " deal out the shuffled task."
        ),
        "weight_decay": (
            "Factor applied to every weight before each inner step (training and evaluation),"
            " greater than 0 and at most 1; 1 turns it off."
        ),
        "beta_1": "Adam's first-moment decay, at least 0 and less than 1.",
        "beta_2": "Adam's second-moment decay, at least 0 and less than 1.",
        "epsilon": "Addend in Adam's and RMSprop's denominator, greater than 0.",
        "rho": "RMSprop's decay, at least 0 and less than 1.",
        "momentum": "Momentum of SGD and RMSprop, at least 0 and less than 1.",
        "reset_optimizer": (
            "Start the inner optimizer's slots and step count anew with every task (training and"
            " evaluation), rather than let them run on."
        ),
    },
    "Outer update": {
        "algorithm": (
            f"Meta-learning algorithm: {', '.join(ALGORITHMS)}. maml needs --sgd, and its last"
            " inner step is the query's."
        ),
        "foml": "Short for --algorithm=fomaml.",
        "foml_tail": (
            "Examples of each class kept for the last inner step of FOMAML or MAML (separate"
            " tail), at least 1 and less than --train_shots. Default: none (shared tail)."
        ),
        "step_weights": (
            "Weights of the inner steps' changes in the outer update, one for each of"
            " --inner_iters, such as 0,0,1. Default: all 1, which is Reptile."
        ),
        "meta_batch": "Tasks averaged in one outer update, at least 1.",
        "meta_iters": "Outer updates in the run, at least 1.",
        "meta_step": "Outer step size at the start of the run, at least 0.",
        "meta_step_final": "Outer step size at the end of the run, reached linearly, at least 0.",
        "outer_optimizer": (
            f"What applies the update: {', '.join(OUTER_OPTIMIZERS)}. Any but interpolation takes"
            " --meta_step as its learning rate, which must then be given."
        ),
    },
    "Evaluation": {
        "transductive": "Classify the held-out examples of a task together, not one at a time.",
        "eval_batch": "Examples in a fine-tuning mini-batch, at least 1.",
        "eval_iters": "Fine-tuning steps on each evaluation task, at least 0.",
        "eval_samples": "Tasks in the final evaluation of each split, at least 1.",
        "eval_interval": "Outer updates between points of the learning curves, at least 1.",
    },
    "Run": {
        "seed": "Seed of split, tasks, mini-batches and weights, from 0 to 2**32 - 1.",
        "checkpoint": "Directory of checkpoints, learning curves and results.",
        "pretrained": (
            "Evaluate the run in --checkpoint, or the network of that name that comes with the"
            " package; do not train."
        ),
        "pretraining_dir": (
            "Directory of the classifier that --pretrain makes or, if it is there, takes; several"
            " runs may share it. When not given: pretraining in --checkpoint."
        ),
        "resume": (
            "Go on from a checkpoint of the same configuration; --noresume sets that run aside and"
            " starts anew."
        ),
        "data_dir": "Directory of the data sets (or set SUPERVISED_REPTILE_DATA).",
        "checkpoint_interval": "Outer updates between checkpoints, at least 1.",
        "eval_tasks_per_batch": "Evaluation tasks in one compiled call, at least 1.",
        "intra_op_threads": (
            "Threads inside one operation, at least 0; 0 means one a core. When not given: what is"
            " fastest for the network, 1 for the small ones of Omniglot and glyphs."
        ),
        "inter_op_threads": (
            "Operations run at the same time, at least 0; 0 means one a core. When not given: what"
            " is fastest for the network, one a core for the small ones."
        ),
        "progress": "Show a progress bar.",
    },
}
"""Group -> name of a flag -> its meaning."""

SHORTHANDS = {"sgd": ("inner_optimizer", "sgd"), "foml": ("algorithm", "fomaml")}
"""Flag -> the hyper-parameter and the value that it is short for."""


def help_of(dataset_choices: Sequence[str]) -> dict[str, str]:
    """Returns each flag's help, with its default or the paper's values for these data sets."""
    columns = list(dict.fromkeys(c for name in dataset_choices for c in DATASETS[name].columns))
    ours = dataclasses.asdict(RunOptions())
    result = {}
    for name, text in (item for group in FLAG_HELP.values() for item in group.items()):
        if name in ours:
            if ours[name] not in (None, ""):
                text += f" Default: {shown(ours[name])}."
        elif name in FIELDS and name != "dataset":
            values = {column: column.default_values()[name] for column in columns}
            different = set(values.values())
            if len(different) > 1:
                listed = (f"{shown(value)} ({c.table}, {c.label})" for c, value in values.items())
                text += f" Paper: {', '.join(listed)}."
            elif (value := different.pop()) is not None:
                where = "Paper" if columns[0].source_of(name).startswith("paper") else "Default"
                text += f" {where}: {shown(value)}."
        result[name] = text
    return result
