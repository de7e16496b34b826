"""The stages of a run: load the data, train or restore, evaluate and record."""

from __future__ import annotations

import dataclasses
import itertools
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from supervised_reptile.classifier_start import start_from_classifier
from supervised_reptile.config import Config, RunOptions, check_task
from supervised_reptile.config.paper import DatasetFacts, dataset_facts
from supervised_reptile.datasets import FewShotDataset, load_dataset
from supervised_reptile.errors import RunInterrupted, printable
from supervised_reptile.evaluation import Accuracy, evaluate_each_way
from supervised_reptile.from_config import evaluation_spec
from supervised_reptile.pretrained import load_pretrained, model_facts
from supervised_reptile.progress import mode_of
from supervised_reptile.runs.checkpoints import save_model
from supervised_reptile.runs.curve_figure import draw_curve_of_run
from supervised_reptile.runs.data_identity import data_facts
from supervised_reptile.runs.files import writing
from supervised_reptile.runs.following import order_evaluation, order_training
from supervised_reptile.runs.opening import shipped_network
from supervised_reptile.runs.record import is_record_of, training_environments, write_record
from supervised_reptile.runs.trainer import Trainer


def load_data(config: Config, options: RunOptions) -> FewShotDataset:
    """Load the data set of a configuration and check that it is large enough for its tasks.

    Args:
        config: Supplies dataset, seed, image_size and resize.
        options: Supplies ``data_dir``, ``verify_data`` and ``progress``.

    Raises:
        DatasetNotFoundError: The data set is missing.
        ConfigError: The data set is too small for the task.
    """
    name = config.task.dataset
    return load_dataset(
        name,
        data_dir=options.data_dir,
        seed=config.seed,
        image_size=config.model.image_size,
        resize=config.model.resize,
        progress=options.progress,
        verify=options.verify_data,
        check=lambda sizes: check_task(
            config.task, _facts_of_sizes(name, sizes), config.eval.queries
        ),
    )


def restore(trainer: Trainer, options: RunOptions) -> Config:
    """Load the run's checkpoint, or a network that comes with the package.

    Args:
        trainer: The result of ``main.open_run``.
        options: Supplies ``checkpoint``.

    Returns:
        The configuration of the training.

    Raises:
        RunError: There is none, or its classes, data, seed or optimizer differ.
    """
    network = shipped_network(options.checkpoint)
    if network is None:
        return trainer.restore_for_evaluation()
    facts = model_facts(network)
    trained = Config.from_dict(facts["training"])
    trainer.take_over_for_evaluation(
        network,
        load_pretrained(network),
        trained,
        facts["iterations"],
        facts["training_seconds"],
        " ".join(facts.get("data", {}).values()),
    )
    with writing(trainer.directory):
        trainer.directory.mkdir(parents=True, exist_ok=True)  # for the record
    print(
        f"evaluating {network}, which comes with the package, after {facts['iterations']:,} of "
        f"{trained.meta.meta_iters:,} meta-iterations"
    )
    return trained


def train(trainer: Trainer, options: RunOptions) -> None:
    """Train or resume to the end, and save the network with its optimizer's state.

    With ``pretrain``, a new run starts from a classifier, which is trained first unless its
    directory already contains it.

    Args:
        trainer: The result of ``main.open_run``.
        options: Supplies ``pretraining_dir``, ``resume`` and ``progress``.

    Raises:
        RunError: See ``Trainer`` and ``start_from_classifier``.
        RunInterrupted: A signal stopped the training, which is saved.
    """
    trainer.prepare()
    if trainer.config.model.pretrain and not trainer.has_checkpoint:
        shared = options.pretraining_dir
        start_from_classifier(
            trainer.learner.model,
            trainer.dataset,
            trainer.config,
            Path(shared or trainer.directory / "pretraining"),
            anew=not options.resume and not shared,
            progress=options.progress,
        )
        trainer.save()
    order_training(trainer.learner, trainer.iteration)
    trainer.train()
    draw_curve_of_run(trainer.directory, trainer.config)
    save_model(trainer.learner.compiled_model(), trainer.directory / "model.keras")


def evaluate_and_record(
    trainer: Trainer,
    evaluations: Sequence[tuple[Config, Path]],
    options: RunOptions,
    trained_with: Config | None = None,
) -> list[dict[str, Accuracy]]:
    """Evaluate the trained learner on every split, and write a record of each evaluation.

    Args:
        trainer: With trained or restored weights.
        evaluations: Configuration and record of each evaluation. They may differ only in
            ``transductive``, because they share one fine-tuning of each task.
        options: Supplies ``eval_tasks_per_batch`` and ``progress``.
        trained_with: Configuration of the training if it differs from that of the evaluation.

    Returns:
        The accuracy of each split, for each evaluation.

    Raises:
        NotFiniteError: The weights, or the predictions of all tasks, are not finite.
        RunError: A record cannot be written.
        RunInterrupted: Ctrl-C was pressed.
    """
    first = evaluations[0][0]
    settings = [config.eval.transductive for config, _ in evaluations]
    started, found = time.perf_counter(), {}
    try:
        for split in trainer.dataset.splits:
            order_evaluation(trainer.learner, first, split, settings)
            found[split] = evaluate_each_way(
                trainer.learner,
                trainer.dataset,
                split,
                evaluation_spec(first),
                settings,
                tasks=first.eval.eval_samples,
                seed=first.seed,
                tasks_per_call=options.eval_tasks_per_batch,
                progress=mode_of(options.progress),
            )
            for outcome, transductive in zip(found[split], settings, strict=True):
                which = f", {setting_name(transductive)}" if len(settings) > 1 else ""
                print(f"{split} accuracy{which}: {outcome.accuracy}", flush=True)
    except KeyboardInterrupt:
        raise RunInterrupted(
            "the training is complete and saved; the same command evaluates it", signal.SIGINT
        ) from None
    seconds = time.perf_counter() - started
    results = [{split: each[i] for split, each in found.items()} for i in range(len(settings))]
    trained_on = training_environments(trainer.directory)
    for (config, path), outcomes in zip(evaluations, results, strict=True):
        write_record(
            path,
            config,
            {split: outcome.accuracy for split, outcome in outcomes.items()},
            iterations=trainer.iteration,
            training_seconds=trainer.seconds,
            evaluation_seconds=seconds,
            trained_with=trained_with,
            trained_on=trained_on,
            data=data_facts(trainer.dataset),
            outcomes=outcomes,
        )
        print(f"record: {printable(path)}")
    return [{split: each.accuracy for split, each in found.items()} for found in results]


def record_path(trainer: Trainer, options: RunOptions) -> Path:
    """Return the path of a record: ``results.json``, or a free name with ``pretrained``."""
    if not options.pretrained:
        return trainer.directory / "results.json"
    return _free_record(trainer.directory / evaluation_record(trainer.config), trainer.config)


def evaluation_record(config: Config) -> str:
    """Return the file name of the record of a separate evaluation."""
    task = config.task
    return (
        f"results-{task.shots}shot-{task.classes}way-{setting_name(config.eval.transductive)}.json"
    )


def _free_record(path: Path, config: Config) -> Path:
    """Return the path or, if another evaluation's record has it, the next free number."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    candidates = itertools.chain([path], numbered)
    return next(p for p in candidates if not p.exists() or is_record_of(p, config))


def setting_name(transductive: bool) -> str:
    """Return the name of the setting: held-out images are classified together or one by one."""
    return "transductive" if transductive else "non-transductive"


def _facts_of_sizes(name: str, sizes: Mapping[str, Sequence[int]]) -> DatasetFacts:
    """Return the facts about a data set with counted images per class."""
    return dataclasses.replace(
        dataset_facts(name),
        example="images of its smallest class",
        examples=min(map(min, sizes.values())),
        splits={split: len(classes) for split, classes in sizes.items()},
    )
