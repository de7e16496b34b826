"""``fit`` as Keras users know it, with epochs, callbacks and validation, on your own tasks."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from supervised_reptile.keras_api.arguments import check_integers
from supervised_reptile.keras_api.array_tasks import tasks_of_arrays
from supervised_reptile.keras_api.fit_settings import FitSettings, settings_of
from supervised_reptile.keras_api.task_sources import TaskSource, TaskStream, stacked
from supervised_reptile.keras_api.validation import (
    compile_for,
    evaluate,
    held_out_tasks,
    number_of,
    stream_of,
    validate,
)
from supervised_reptile.meta_learner import MetaLearner
from supervised_reptile.tasks import TrainingTasks, random_stream

__all__ = ["FitSettings", "evaluate", "fit"]


def fit(
    learner: MetaLearner,
    tasks: TaskSource,
    settings: FitSettings | None = None,
    *,
    epochs: int = 1,
    steps_per_epoch: int | None = None,
    validation_tasks: TaskSource | None = None,
    validation_steps: int | None = None,
    validation_freq: int = 1,
    metrics: Sequence[str | keras.metrics.Metric] = (),
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.CallbackList | None = None,
    verbose: str | int = "auto",
    initial_epoch: int = 0,
    steps_per_execution: int = 1,
) -> keras.callbacks.History:
    """Meta-train on your own tasks, with Keras callbacks; also ``learner.fit(tasks, ...)``.

    A step is one meta-iteration. Callbacks receive the Keras model ``learner.model``, which this
    function compiles with the loss and the inner optimizer. Its slots and step count are updated
    before every callback, so a model that ``ModelCheckpoint`` saves is ready for fine-tuning. A
    callback that changes the learning rate changes α of the inner optimizer.

    Use ``Trainer`` for the paper's data sets and for runs that must resume with the same bits.

    Args:
        learner: The learner to train.
        tasks: Source of tasks, each (inputs, targets) or (inputs, targets, query inputs, query
            targets), as arrays or tensors [examples, ...]. The source is a function from
            ``np.random.Generator`` to a task, a list, a generator or a ``tf.data.Dataset``. Tasks
            in one meta-batch must have equal shapes. If a task has queries, its last inner step
            sees exactly these (the separate tail of Sec. 6.3, the query set of FOMAML and MAML).
        settings: Options that Keras' ``fit`` lacks. Default: ``FitSettings()``, the paper's.
        epochs: Epoch to train to, at least 1.
        steps_per_epoch: Meta-iterations per epoch. Default: the number of whole meta-batches in
            ``tasks``; required if the number of tasks is unknown.
        validation_tasks: Like ``tasks``, with queries. They are drawn once, at the start.
        validation_steps: Number of validation tasks. Default: all; required if their number is
            unknown.
        validation_freq: Number of epochs between validations, at least 1.
        metrics: Metrics on the validation tasks, as for ``compile``, e.g. ``["accuracy"]``.
        callbacks: Keras callbacks.
        verbose: 0, 1 or 2, as in Keras.
        initial_epoch: Epoch to start from, to continue an earlier call.
        steps_per_execution: Meta-iterations per call of the compiled program. More than 1 is
            faster for small networks. The result is the same, but callbacks see fewer batches.

    Returns:
        The history. ``history.history`` has one value per epoch of ``loss`` (inner loss per
        example, mean over all inner steps), ``meta_step``, ``val_loss`` (per query, after
        fine-tuning, without losses that layers add), and ``val_`` of each metric.

    Raises:
        ValueError: An argument or a task is not as described.

    Example:
        >>> def task(rng):  # lines through the origin
        ...     x = rng.uniform(-1, 1, (10, 1))
        ...     return x, rng.normal() * x
        >>> learner = Reptile(model, loss=keras.losses.MeanSquaredError())
        >>> learner.fit(task, steps_per_epoch=100, callbacks=[keras.callbacks.CSVLogger("log")])
    """
    settings = settings_of(settings)
    check_integers(
        1,
        epochs=epochs,
        validation_freq=validation_freq,
        steps_per_execution=steps_per_execution,
    )
    stream = stream_of(learner, tasks, "tasks")
    steps_per_epoch = number_of(stream, steps_per_epoch, "steps_per_epoch", settings.meta_batch)
    meta_step = settings.meta_step_over(epochs * steps_per_epoch)
    held_out = None
    if validation_tasks is not None:
        names = ("validation_tasks", "validation_steps")
        held_out = held_out_tasks(
            learner, validation_tasks, validation_steps, settings.seed, *names
        )
    model = learner.model
    weights = learner.inner_loop.fast_weights
    compile_for(learner, metrics)
    called: keras.callbacks.CallbackList = callbacks
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        called = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs,
            steps=steps_per_epoch,
            model=model,
        )
    model.stop_training = False
    called.on_train_begin()
    # BackupAndRestore may have read an earlier state.
    learner.take_optimizer_state(model.optimizer)
    initial_epoch = getattr(model, "_initial_epoch", 0) or initial_epoch
    logs: dict[str, float] = {}
    for epoch in range(initial_epoch, epochs):
        called.on_epoch_begin(epoch)
        total = 0.0
        for first in range(0, steps_per_epoch, steps_per_execution):
            last = min(first + steps_per_execution, steps_per_epoch) - 1
            called.on_train_batch_begin(first)
            _take_learning_rate(learner)
            offset = epoch * steps_per_epoch
            iterations = range(offset + first, offset + last + 1)
            drawn = [
                _draw(stream, random_stream(settings.seed, "training", i), settings)
                for i in iterations
            ]
            total += _train(learner, drawn, [meta_step(i) for i in iterations])
            weights.give_optimizer_state(model.optimizer)
            logs = {"loss": total / (last + 1), "meta_step": meta_step(iterations[-1])}
            called.on_train_batch_end(last, logs)
            if model.stop_training:
                break
        if held_out and (epoch + 1) % validation_freq == 0:
            _take_learning_rate(learner)
            found = validate(learner, held_out, settings)
            logs |= {f"val_{name}": value for name, value in found.items()}
        called.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    if learner.outer_optimizer is not None and initial_epoch < epochs:
        # With use_ema, the weights are then their moving average, as after Keras' fit.
        learner.outer_optimizer.finalize_variable_values(model.trainable_variables)
    called.on_train_end(logs)
    return model.history


def _draw(
    stream: TaskStream, rng: np.random.Generator, settings: FitSettings
) -> tuple[np.ndarray, TrainingTasks]:
    """Draw the examples and tasks of one meta-iteration."""
    task = stacked(stream.take(settings.meta_batch, rng))
    return tasks_of_arrays(
        rng,
        task.inputs,
        task.targets,
        batch=settings.inner_batch,
        steps=settings.inner_iters,
        tail=task.queries,
    )


def _train(
    learner: MetaLearner,
    drawn: Sequence[tuple[np.ndarray, TrainingTasks]],
    meta_steps: Sequence[float],
) -> float:
    """Run meta-iterations and return the sum of their losses."""
    if len(drawn) == 1:
        return float(learner.train_step(*drawn[0], meta_steps[0]))
    tables, tasks = zip(*drawn, strict=True)
    offsets = np.cumsum([0, *map(len, tables[:-1])], dtype=np.int32)
    moved = [
        each.map_rows(lambda rows, offset=offset: rows + offset)
        for each, offset in zip(tasks, offsets, strict=True)
    ]
    losses = learner.train_steps(
        np.concatenate(tables), TrainingTasks.concatenate(moved), meta_steps
    )
    return float(np.sum(losses))


def _take_learning_rate(learner: MetaLearner) -> None:
    """Copy the learning rate of the model's optimizer, which a callback may have set."""
    if not isinstance(learner.inner_optimizer.learning_rate, keras.Variable):
        return  # it follows a schedule
    rate = float(learner.model.optimizer.learning_rate)
    if rate != float(learner.inner_optimizer.learning_rate):
        learner.inner_optimizer.learning_rate = rate
