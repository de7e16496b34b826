"""Draw an evaluation task with its predictions.

The task is one of the final evaluation: number 0, 1, … of a split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.config.locations import FOLDER, default_data_dir
from supervised_reptile.errors import ConfigError, RunError
from supervised_reptile.pretrained import pretrained_names, training_of
from supervised_reptile.programs import command
from supervised_reptile.startup import import_tensorflow

if TYPE_CHECKING:  # TensorFlow is imported only when needed: --help and mistakes do not wait for it
    from supervised_reptile.runs.trainer import Trainer


def draw_example_task(
    trainer: Trainer, config: Config, split: str, number: int, path: Path
) -> float:
    """Fine-tune on one evaluation task, predict its queries and draw the result.

    Args:
        trainer: Trainer with trained or restored weights, which do not change.
        config: Supplies the task's shape, the fine-tuning, ``transductive`` and the seed.
        split: Where the task's classes come from.
        number: Number of the task, at least 0.
        path: The image to write.

    Returns:
        Accuracy on the task, in [0, 1].
    """
    import keras
    import numpy as np

    from supervised_reptile.datasets.images.wordnet import WORDS
    from supervised_reptile.evaluation import task_accuracies
    from supervised_reptile.from_config import evaluation_spec
    from supervised_reptile.reproduction.figures import task_figure
    from supervised_reptile.tasks import evaluation_tasks

    dataset, classes = trainer.dataset, config.task.classes
    positions = range(number, number + 1)
    tasks = evaluation_tasks(
        config.seed, "evaluation", dataset, split, evaluation_spec(config), positions
    )
    transductive = config.eval.transductive
    logits = trainer.learner.predict_tasks(dataset.images, tasks, transductive=transductive)
    rows = tasks.support[0].reshape(classes, config.task.shots)
    owners = np.searchsorted(dataset.class_offsets, rows[:, 0], side="right") - 1
    accuracy = float(task_accuracies(logits, config.eval.queries)[0])
    setting = "transductive" if transductive else "one query at a time"
    task_figure(
        path,
        dataset.images[rows],
        dataset.images[tasks.queries[0]],
        keras.ops.convert_to_numpy(keras.ops.softmax(logits[0])),
        [WORDS.get(name, name) for name in (dataset.class_names[owner] for owner in owners)],
        title=f"{dataset.name.removeprefix(FOLDER)}, {split} classes, task {number} after "
        f"{trainer.iteration:,} meta-iterations: {100 * accuracy:.0f} % correct ({setting})",
    )
    return accuracy


_FLAGS = {
    "checkpoint": Flag(
        RunOptions().checkpoint,
        "Folder of the run, or name of a network that comes with the package.",
    ),
    "data_dir": Flag(default_data_dir(), "Directory of the data sets."),
    "split": Flag("test", "Split of the classes: train, validation or test."),
    "number": Flag(0, "Number of the task, at least 0."),
    "shots": Flag(None, "Labeled images per class. When not given: as in training.", int),
    "queries": Flag(None, "Held-out images per class. When not given: as in training.", int),
    "transductive": Flag(
        None, "Classify the queries together. When not given: as in training.", bool
    ),
    "output": Flag(
        None,
        "Image to write. When not given: example-task-SPLIT-N.png in the folder of the run, or in"
        " NAME-evaluations for a network that comes with the package.",
        str,
    ),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the program.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    description = f"""\
Draw a task of the final evaluation, number 0, 1, … of a split, with its predictions.

    {command("example")} --checkpoint model_checkpoint --split test --number 0
"""
    run_program(_draw, _FLAGS, argv, description)


def _trained_config(checkpoint: str) -> Config:
    """Return the configuration of the training of a run or shipped network."""
    from supervised_reptile.runs.checkpoints import RunDirectory
    from supervised_reptile.runs.opening import shipped_network

    if network := shipped_network(checkpoint):
        return training_of(network)
    training = RunDirectory(Path(checkpoint)).saved_config()
    if training is None:
        names = ", ".join(pretrained_names())
        raise RunError(f"--checkpoint: {checkpoint} holds no run, and is none of {names}")
    return training


def _draw(
    *,
    checkpoint: str,
    data_dir: str,
    split: str,
    number: int,
    shots: int | None,
    queries: int | None,
    transductive: bool | None,
    output: str | None,
) -> None:
    if number < 0:
        raise ConfigError(f"--number: must be at least 0. Received: {number}")
    import_tensorflow()
    from supervised_reptile.main import open_run
    from supervised_reptile.runs.stages import restore

    config = _trained_config(checkpoint)
    changes = {"shots": shots, "queries": queries, "transductive": transductive}
    config = config.replace(**{k: v for k, v in changes.items() if v is not None})
    options = RunOptions(checkpoint=checkpoint, data_dir=data_dir, pretrained=True, progress=False)
    trainer = open_run(config, options)
    if split not in trainer.dataset.splits:
        splits = ", ".join(trainer.dataset.splits)
        raise RunError(f"--split: must be one of {splits}. Received: {split!r}")
    restore(trainer, options)
    path = Path(output) if output else trainer.directory / f"example-task-{split}-{number}.png"
    accuracy = draw_example_task(trainer, config, split, number, path)
    print(f"{path}: accuracy {100 * accuracy:.0f} %")


if __name__ == "__main__":
    main()
