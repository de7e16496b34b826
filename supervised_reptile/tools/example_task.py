"""Draw a task with its predictions.

The task is one of those of the final evaluation: number 0, 1, … of a split.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.config.locations import FOLDER
from supervised_reptile.errors import RunError, UserError
from supervised_reptile.evaluation import task_accuracies
from supervised_reptile.from_config import evaluation_spec
from supervised_reptile.main import open_run
from supervised_reptile.reproduction.figures import task_figure
from supervised_reptile.runs.trainer import Trainer
from supervised_reptile.tasks import evaluation_tasks

_PROGRAM = "example_task"


def draw_example_task(
    trainer: Trainer, config: Config, split: str, number: int, path: Path
) -> float:
    """Fine-tune on one evaluation task, predict its held-out images and draw it all.

    Args:
        trainer: With trained or restored weights; they stay as they are.
        config: Supplies the task's shape, the fine-tuning, ``transductive`` and the seed.
        split: Where the task's classes come from.
        number: Number of the task, at least 0.
        path: The image to write.

    Returns:
        Accuracy on the task, in [0, 1].
    """
    dataset, classes = trainer.dataset, config.task.classes
    positions = range(number, number + 1)
    tasks = evaluation_tasks(
        config.seed, "evaluation", dataset, split, evaluation_spec(config), positions
    )
    transductive = config.eval.transductive
    logits = trainer.learner.predict_tasks(dataset.images, tasks, transductive=transductive)
    rows = tasks.support[0].reshape(classes, config.task.shots)
    owners = np.searchsorted(dataset.class_offsets, rows[:, 0], side="right") - 1
    accuracy = float(task_accuracies(logits)[0])
    setting = "transductive" if transductive else "one query at a time"
    task_figure(
        path,
        dataset.images[rows],
        dataset.images[tasks.queries[0]],
        keras.ops.convert_to_numpy(keras.ops.softmax(logits[0])),
        [dataset.class_names[owner] for owner in owners],
        title=f"{dataset.name.removeprefix(FOLDER)}, {split} classes, task {number} after "
        f"{trainer.iteration:,} meta-iterations: {100 * accuracy:.0f} % ({setting})",
    )
    return accuracy


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: Arguments without the program's name; ``None`` to take them from ``sys.argv``.
    """
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__, allow_abbrev=False)
    add, defaults = parser.add_argument, RunOptions()
    add("--checkpoint", default=defaults.checkpoint, metavar="DIR", help="directory of the run")
    add("--data_dir", default=defaults.data_dir, metavar="DIR", help="directory of the data sets")
    add("--split", default="test", help="train, validation or test (default: test)")
    add("--number", type=int, default=0, metavar="N", help="number of the task (default: 0)")
    add("--shots", type=int, metavar="K", help="labelled images a class, if not as in training")
    add("--transductive", action=argparse.BooleanOptionalAction, help="if not as in training")
    add("--output", type=Path, metavar="PNG", help="default: example-task-SPLIT-N.png in DIR")
    args = parser.parse_args(argv)
    if args.number < 0:
        parser.error(f"--number must be at least 0. Received: {args.number}")
    directory = Path(args.checkpoint)
    try:
        if not (directory / "config.json").is_file():
            raise RunError(f"--checkpoint: {directory} holds no run")
        config = Config.from_json((directory / "config.json").read_text())
        changes = {"shots": args.shots, "transductive": args.transductive}
        config = config.replace(**{k: v for k, v in changes.items() if v is not None})
        options = RunOptions(
            checkpoint=args.checkpoint, data_dir=args.data_dir, pretrained=True, progress=False
        )
        trainer = open_run(config, options)
        if args.split not in trainer.dataset.splits:
            splits = ", ".join(trainer.dataset.splits)
            raise RunError(f"--split: must be one of {splits}. Received: {args.split!r}")
        trainer.restore_for_evaluation()
        path = args.output or directory / f"example-task-{args.split}-{args.number}.png"
        accuracy = draw_example_task(trainer, config, args.split, args.number, path)
    except UserError as error:
        print(f"{_PROGRAM}: error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{path}: accuracy {100 * accuracy:.0f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
