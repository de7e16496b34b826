"""Loss and metrics on the user's own tasks, after fine-tuning on each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import keras

from supervised_reptile.finite import finite_rows
from supervised_reptile.keras_api.arguments import check_integers
from supervised_reptile.keras_api.array_tasks import evaluation_tasks_of_arrays
from supervised_reptile.keras_api.fit_settings import FitSettings, settings_of
from supervised_reptile.keras_api.task_sources import (
    Task,
    TaskSource,
    TaskStream,
    same_shape_groups,
    stacked,
)
from supervised_reptile.meta_learner import MetaLearner
from supervised_reptile.tasks import random_stream

_TASKS_PER_CALL = 32


def evaluate(
    learner: MetaLearner,
    tasks: TaskSource,
    settings: FitSettings | None = None,
    *,
    steps: int | None = None,
    metrics: Sequence[str | keras.metrics.Metric] = (),
) -> dict[str, float]:
    """Compute loss and metrics after fine-tuning on each task.

    ``learner.evaluate(tasks, ...)`` does the same.

    Args:
        learner: The learner. Its weights, slots and step count do not change.
        tasks: Source of tasks, as for ``fit``, with queries.
        settings: Supplies ``eval_iters``, ``eval_batch``, ``transductive`` and ``seed``. Default:
            ``FitSettings()``, the paper's.
        steps: Number of tasks. Default: all; required if their number is unknown.
        metrics: Metrics, as for ``compile``, e.g. ``["accuracy"]``.

    Returns:
        ``"loss"`` per query, without losses that layers add, and each metric by name.

    Raises:
        ValueError: An argument or a task is not as described.

    Example:
        >>> learner.evaluate(draw_task, steps=100, metrics=["accuracy"])
    """
    settings = settings_of(settings)
    held_out = held_out_tasks(learner, tasks, steps, settings.seed, "tasks", "steps")
    compile_for(learner, metrics)
    return validate(learner, held_out, settings)


def compile_for(learner: MetaLearner, metrics: Sequence[str | keras.metrics.Metric]) -> None:
    """Compile the learner's model with its loss and the state of its inner optimizer."""
    model = learner.model
    optimizer = learner.inner_loop.fast_weights.optimizer_for(model.trainable_variables)
    model.compile(optimizer, learner.loss, metrics=list(metrics), auto_scale_loss=False)


def stream_of(learner: MetaLearner, source: TaskSource, what: str) -> TaskStream:
    """Return the stream of a source's tasks, which are checked against model and loss."""
    # A subclassed model has no shapes; Keras checks its inputs when it is called.
    inputs, outputs = (
        getattr(learner.model, name, None) for name in ("input_shape", "output_shape")
    )
    labels = isinstance(learner.loss, keras.losses.SparseCategoricalCrossentropy)
    classes = outputs[-1] if labels and outputs else None
    return TaskStream(source, what, inputs and inputs[1:], classes)


def held_out_tasks(
    learner: MetaLearner, source: TaskSource, count: int | None, seed: int, what: str, number: str
) -> list[Task]:
    """Return the validation tasks; ``what`` and ``number`` are the names of the arguments."""
    stream = stream_of(learner, source, what)
    count = number_of(stream, count, number, 1)
    tasks = stream.take(count, random_stream(seed, "curve"))
    if any(task.queries is None for task in tasks):
        raise ValueError(
            f"a task of {what} must have queries: (inputs, targets, query inputs, "
            "query targets). Received: (inputs, targets)"
        )
    return tasks


def validate(
    learner: MetaLearner, tasks: Sequence[Task], settings: FitSettings
) -> dict[str, float]:
    """Compute loss per query and metrics; NaN, with a warning, if they are not finite."""
    model, rng = learner.model, random_stream(settings.seed, "curve", 1)
    model.reset_metrics()
    total, count, found, not_finite = 0.0, 0, {}, 0
    for group in same_shape_groups(tasks, _TASKS_PER_CALL):
        task = stacked(group)
        assert task.queries is not None  # held_out_tasks refuses tasks without
        query_inputs, query_targets = task.queries
        table, evaluation = evaluation_tasks_of_arrays(
            rng,
            task.inputs,
            task.targets,
            query_inputs,
            batch=settings.eval_batch,
            steps=settings.eval_iters,
        )
        outputs = learner.predict_tasks(table, evaluation, transductive=settings.transductive)
        not_finite += int((~finite_rows(outputs)).sum())
        outputs, wanted = (
            array.reshape(-1, *array.shape[2:]) for array in (outputs, query_targets)
        )
        loss = float(learner.loss(wanted, outputs))
        total += loss * (1 if learner.loss.reduction == "sum" else len(wanted))
        count += len(wanted)
        found = model.compute_metrics(None, wanted, outputs)
    results = {name: float(value) for name, value in found.items()} | {"loss": total / count}
    if not_finite:  # the argmax of NaN is 0, which would look like an accuracy by chance
        results = dict.fromkeys(results, math.nan)
        warnings.warn(
            f"the predictions of {not_finite} of {len(tasks)} validation tasks are infinite or not "
            "a number: the training or the fine-tuning diverged",
            RuntimeWarning,
            stacklevel=2,
        )
    return results


def number_of(stream: TaskStream, given: int | None, name: str, divisor: int) -> int:
    """Return the given number, or the number of tasks in the stream."""
    length = stream.length
    if given is not None:
        check_integers(1, **{name: given})
        return given
    if length is not None:
        if length < divisor:
            raise ValueError(
                f"{name} must be at least 1. Received: {length} tasks, meta_batch={divisor}"
            )
        return length // divisor
    raise ValueError(f"{name} must be given because the number of tasks is unknown. Received: None")
