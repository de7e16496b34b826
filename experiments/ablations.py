"""The effect of choices that are easy to get wrong: docs/reproduction.md.

    python -m experiments ablations --meta_iters 5000 --seeds 0,1,2

Omniglot, 1-shot 5-way, transductive: the published configuration, shortened, next to the same with
one choice made otherwise, and the published one once more with moving averages in the batch
normalization at test, as a port to plain Keras layers has them. Stop it whenever you like: the same
command goes on.
"""

import json
from pathlib import Path

from experiments import common, trainings
from supervised_reptile.config import Config, RunOptions
from supervised_reptile.config.declaration import at_least, setting, settings
from supervised_reptile.figures import figure_style
from supervised_reptile.reproduction.jobs import Job, run_side_by_side
from supervised_reptile.reproduction.published import find_row
from supervised_reptile.runs.files import write_table, write_whole
from supervised_reptile.runs.record import is_record_of
from supervised_reptile.startup import import_tensorflow

NAME = "ablations"
PUBLISHED = "as published"
MOVING, CONTROL = "moving averages at test", "the same port, batch statistics"
# The average over a mini-batch of 10 is the sum at a tenth of the learning rate. Fine-tuning has
# mini-batches of 10 here too, so that this is so in the evaluation as well.
_SGD = {"inner_optimizer": "sgd", "eval_batch": 10}
VARIANTS = {
    PUBLISHED: {},
    "Adam's ε 1e-7": {"epsilon": 1e-7},
    "slots reset at each task": {"reset_optimizer": True},
    "outer step not annealed": {"meta_step_final": 1.0},
    "SGD, gradient summed": {**_SGD, "learning_rate": 0.003},
    "SGD, gradient averaged": {**_SGD, "learning_rate": 0.003 / 10},
}
"""Difference of each variant from the published configuration."""
MOMENTUM = 0.99
"""Momentum of the moving averages: Keras' default."""
_WARM_UP_TASKS = 100
_PORT_RECORD = "port.json"


@settings("Experiment")
class Settings(trainings.TrainingSettings):
    """The length and the seeds of the trainings."""

    seeds: tuple[int, ...] = setting("Seeds.", common.each_at_least(0), default=(0, 1, 2))
    meta_iters: int = setting(
        "Meta-iterations of each training (paper: 100000).", at_least(1), default=5000
    )


def config_of(settings: Settings, variant: str, seed: int) -> Config:
    """Return the row omniglot-5way with one different choice."""
    training = find_row("omniglot-5way").training(seed, settings.meta_iters)
    changes = {"dataset": settings.dataset, "eval_samples": settings.eval_samples}
    return training.replace(**VARIANTS[variant], **changes)


def run(settings: Settings, place: trainings.TrainingPlace) -> None:
    """Train every variant with every seed, and write table and figure."""
    configs = {
        (variant, seed): config_of(settings, variant, seed)
        for variant in VARIANTS
        for seed in settings.seeds
    }
    folder = place.results_folder(NAME)
    names = {key: f"{key[0]}, seed {key[1]}" for key in configs}
    done = trainings.train_all({names[key]: config for key, config in configs.items()}, place, NAME)
    published = {
        place.training_folder(NAME, names[key], config): config
        for key, config in configs.items()
        if key[0] == PUBLISHED
    }
    ports = [
        Job(path.name, evaluate_port, (c.to_json(), path, place.data_dir), path / "run.log")
        for path, c in published.items()
        if not is_record_of(path / _PORT_RECORD, c)
    ]
    run_side_by_side(ports, place.jobs)
    found = {v: [done[names[v, seed]].accuracy() for seed in settings.seeds] for v in VARIANTS}
    records = [json.loads((path / _PORT_RECORD).read_text()) for path in published]
    for which in (MOVING, CONTROL):
        found[which] = [trainings.percent(record["accuracy"][which]) for record in records]
    rows = [(name, *trainings.mean_over_seeds(each)) for name, each in found.items()]
    header = ("variant", "test_accuracy", "interval95")
    write_table(folder / "accuracy.csv", header, rows)
    variants = [dict(zip(header, row, strict=True)) for row in rows]
    common.write_results(folder, NAME, settings, {"variants": variants})
    for name, mean, interval in rows:
        print(f"{name:<31} test accuracy {mean:6.2f} % ± {interval:.2f}")
    draw(folder)


def evaluate_port(config: str, folder: Path, data_dir: str) -> None:
    """Evaluate a trained network as a port to plain Keras layers, in a separate process.

    Writes ``port.json`` into the training's folder: test accuracy with the moving averages of stock
    ``BatchNormalization`` and, as a control, with the statistics of the batch.
    """
    import_tensorflow()
    import dataclasses

    from supervised_reptile.evaluation import Accuracy, task_accuracies
    from supervised_reptile.runs.stages import load_data
    from supervised_reptile.startup import set_threads

    set_threads(1, 1)
    config = Config.from_json(config)
    dataset = load_data(config, RunOptions(data_dir=data_dir, progress=False))
    accuracy = {
        name: dataclasses.asdict(Accuracy.of(task_accuracies(logits)))
        for name, logits in port_logits(folder / "model.keras", dataset, config).items()
    }
    record = {"accuracy": accuracy, "config": config.to_dict()}
    write_whole(folder / _PORT_RECORD, json.dumps(record, indent=2) + "\n")


def port_logits(path: Path, dataset, config: Config) -> dict[str, object]:
    """Fine-tune and evaluate a network whose normalization is stock ``BatchNormalization``.

    Keras updates the moving averages whenever it trains: here through the inner steps on a
    hundred training tasks, from the trained weights each, which with a momentum of 0.99 is all
    that would be left of the training's; and through the fine-tuning on each test task.

    Args:
        path: The trained network, a ``.keras`` file with its optimizer.
        dataset: Supplies the tasks.
        config: Supplies their shape and the fine-tuning; ``eval_samples`` tasks of the test split.

    Returns:
        Logits float32 [tasks, queries, classes] of the held-out images, together: with the moving
        averages (``training=False``) and with their own statistics (``training=True``).
    """
    import keras
    import numpy as np

    from supervised_reptile.from_config import evaluation_spec, training_spec
    from supervised_reptile.tasks import evaluation_tasks, random_stream, training_tasks

    trained = keras.models.load_model(path)
    model = with_moving_averages(trained)
    weights = model.trainable_variables
    for mine, theirs in zip(weights, trained.trainable_variables, strict=True):
        mine.assign(theirs)
    optimizer = type(trained.optimizer).from_config(trained.optimizer.get_config())
    optimizer.build(weights)
    for mine, theirs in zip(optimizer.variables, trained.optimizer.variables, strict=True):
        mine.assign(theirs)
    model.compile(optimizer=optimizer, loss=trained.loss)

    def inputs(rows):
        return dataset.images[rows] * np.float32(dataset.pixel_scale)

    def fine_tune(rows, labels):
        for r, y in zip(rows, labels, strict=True):
            model.train_on_batch(inputs(r), y)

    def restore(values):
        for variable, value in values:
            variable.assign(value)

    start = [(v, v.numpy()) for v in (*weights, *optimizer.variables)]
    rng = random_stream(config.seed, "curve", 0)
    tasks = training_tasks(rng, dataset, training_spec(config), _WARM_UP_TASKS)
    for task in zip(*tasks.steps, strict=True):
        fine_tune(*task)
        restore(start)
    start += [(v, v.numpy()) for v in model.non_trainable_variables]
    spec, positions = evaluation_spec(config), range(config.eval.eval_samples)
    tasks = evaluation_tasks(config.seed, "evaluation", dataset, "test", spec, positions)
    logits = {MOVING: [], CONTROL: []}
    for rows, labels, queries in zip(*tasks.steps, tasks.queries, strict=True):
        fine_tune(rows, labels)
        for which, training in zip(logits, (False, True), strict=True):
            logits[which].append(np.asarray(model(inputs(queries), training=training)))
        restore(start)
    return {which: np.stack(each) for which, each in logits.items()}


def with_moving_averages(model):
    """Build the paper's Omniglot network from stock layers, with ``BatchNormalization``.

    Args:
        model: The network it is to match, of :func:`models.omniglot_model`.

    Returns:
        Keras model with new weights, in the order of ``model``'s.
    """
    import keras

    x = inputs = keras.Input(model.input_shape[1:])
    for block in range(1, 5):
        filters = model.get_layer(f"conv{block}").filters
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same")(x)
        x = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=1e-3)(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Dense(model.output_shape[-1])(keras.layers.Flatten()(x))
    return keras.Model(inputs, x)


@figure_style()
def draw(folder: Path) -> None:
    """Draw the accuracy of each variant."""
    results = common.read_results(folder)
    rows, iterations = results["variants"], results["settings"]["meta_iters"]
    figure = common.new_figure(8, 0.8 + 0.4 * len(rows))
    axes = figure.subplots()
    for number, row in enumerate(rows):
        accuracy, half = row["test_accuracy"], row["interval95"]
        axes.errorbar(accuracy, number, xerr=half, fmt="o", capsize=3, color=f"C{number > 0:d}")
    axes.axvline(rows[0]["test_accuracy"], color="C0", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [row["variant"] for row in rows])
    axes.invert_yaxis()
    axes.set(
        xlabel="test accuracy in %, 95 % interval over tasks",
        title=f"Omniglot 1-shot 5-way, transductive, {iterations:,} meta-iterations",
    )
    common.save_figure(figure, folder, NAME)
