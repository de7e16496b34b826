"""``fit`` as Keras users know it: epochs, callbacks, validation, on tasks of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np

from supervised_reptile.keras_api.array_tasks import evaluation_tasks_of_arrays, tasks_of_arrays
from supervised_reptile.keras_api.task_sources import (
    Task,
    TaskSource,
    TaskStream,
    same_shape_groups,
    stacked,
)
from supervised_reptile.meta_learner import MetaLearner
from supervised_reptile.tasks import TrainingTasks, random_stream
from supervised_reptile.training import LinearDecay

_TASKS_PER_CALL = 32  # of validation


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """What :func:`fit` needs to know that Keras' own ``fit`` does not.

    The defaults are the paper's for Omniglot, 5-way (Table 3).

    Attributes:
        meta_batch: n, tasks in a meta-iteration, at least 1.
        inner_iters: k, inner steps on a task, at least 1.
        inner_batch: Examples in a mini-batch of an inner step, at least 1.
        meta_step: ε, the outer step size, at the start; or a function of the number of the
            meta-iteration, such as a ``keras.optimizers.schedules.LearningRateSchedule``.
        meta_step_final: ε at the end of all epochs, reached linearly. ``None`` is the paper's 0;
            it must be ``None`` if ``meta_step`` is a function.
        eval_iters: Steps of fine-tuning on a validation task, at least 0.
        eval_batch: Examples in a mini-batch of these, at least 1.
        transductive: Whether the queries of a validation task go through the network together, or
            each with the task's inputs (see ``MetaLearner.predict_tasks``).
        seed: Seed of the mini-batches and of what a function draws, at least 0.

    Raises:
        ValueError: A value is out of its range.
    """

    meta_batch: int = 5
    inner_iters: int = 5
    inner_batch: int = 10
    meta_step: float | Callable[[int], float] = 1.0
    meta_step_final: float | None = None
    eval_iters: int = 50
    eval_batch: int = 5
    transductive: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("meta_batch", "inner_iters", "inner_batch", "eval_batch"):
            _check_at_least(1, **{name: getattr(self, name)})
        _check_at_least(0, eval_iters=self.eval_iters, seed=self.seed)
        if callable(self.meta_step):
            if self.meta_step_final is not None:
                raise ValueError(
                    "meta_step_final must be None if meta_step is a function. "
                    f"Received: {self.meta_step_final}"
                )
        elif self.meta_step < 0 or (self.meta_step_final or 0) < 0:
            raise ValueError(
                "meta_step must be at least 0, at the end too. "
                f"Received: {self.meta_step} and {self.meta_step_final}"
            )

    def meta_step_over(self, iterations: int) -> Callable[[int], float]:
        """ε of each meta-iteration of a run of so many."""
        if callable(self.meta_step):
            step = self.meta_step
            return lambda i: float(step(i))
        return LinearDecay(self.meta_step, self.meta_step_final or 0.0, iterations)


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
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    verbose: str | int = "auto",
    initial_epoch: int = 0,
    steps_per_execution: int = 1,
) -> keras.callbacks.History:
    """Meta-train on tasks of your own, with Keras callbacks; also ``learner.fit(tasks, ...)``.

    A step is one meta-iteration. Callbacks see ``learner.model``, the Keras model, which this
    function compiles with the loss and the inner optimizer. Its slots and step count are brought
    up to date before each call of a callback: what ``ModelCheckpoint`` saves can be fine-tuned as
    it is. A callback that changes the learning rate changes α of the inner optimizer.

    For the paper's data sets, and for runs that must resume with the same bits, use ``Trainer``.

    Args:
        learner: The learner to train.
        tasks: Source of tasks (inputs, targets), or (inputs, targets, query inputs, query
            targets): arrays or tensors [examples, ...]. A function from ``np.random.Generator``
            to a task, a list, a generator or a ``tf.data.Dataset``. Tasks of one meta-batch must
            be of equal shapes. With queries the last inner step of a task sees exactly these (a
            separate tail, paper Sec. 6.3: what FOMAML and MAML generalize to).
        settings: What Keras' ``fit`` has no argument for. Default: ``FitSettings()``, the paper's.
        epochs: Epoch to train to, at least 1.
        steps_per_epoch: Meta-iterations in an epoch. Default: as many whole meta-batches as
            there are tasks; required if their number is unknown.
        validation_tasks: As ``tasks``, with queries. They are drawn once, at the start.
        validation_steps: Number of validation tasks. Default: all; required if their number is
            unknown.
        validation_freq: Epochs from one validation to the next, at least 1.
        metrics: What to compute on validation tasks in addition to the loss, as for ``compile``:
            ``["accuracy"]``.
        callbacks: Keras callbacks.
        verbose: 0, 1 or 2, as in Keras.
        initial_epoch: Epoch to start from, to continue an earlier call.
        steps_per_execution: Meta-iterations in one call of the compiled program; more than 1
            is faster for small networks. It changes no number, only when callbacks see batches.

    Returns:
        The history. ``history.history`` has one value per epoch of ``loss`` (inner loss per
        example, mean over all inner steps), ``meta_step`` and ``val_loss`` (after fine-tuning,
        per query), and ``val_`` of each metric.

    Raises:
        ValueError: An argument or a task is not as described.

    Example:
        >>> def task(rng):  # lines through the origin
        ...     x = rng.uniform(-1, 1, (10, 1))
        ...     return x, rng.normal() * x
        >>> learner = Reptile(model, loss=keras.losses.MeanSquaredError())
        >>> learner.fit(task, steps_per_epoch=100, callbacks=[keras.callbacks.CSVLogger("log")])
    """
    settings = FitSettings() if settings is None else settings
    _check_at_least(
        1,
        epochs=epochs,
        validation_freq=validation_freq,
        steps_per_execution=steps_per_execution,
    )
    stream = _stream(learner, tasks, "tasks")
    steps_per_epoch = _number(stream, steps_per_epoch, "steps_per_epoch", settings.meta_batch)
    meta_step = settings.meta_step_over(epochs * steps_per_epoch)
    held_out = None
    if validation_tasks is not None:
        held_out = _held_out(learner, validation_tasks, validation_steps, settings.seed)
    model = learner.model
    weights = learner.inner_loop.fast_weights
    model.compile(
        weights.optimizer_for(model.trainable_variables), learner.loss, metrics=list(metrics)
    )
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs,
            steps=steps_per_epoch,
            model=model,
        )
    model.stop_training = False
    callbacks.on_train_begin()
    # BackupAndRestore may have read an earlier state.
    learner.take_optimizer_state(model.optimizer)
    initial_epoch = getattr(model, "_initial_epoch", 0) or initial_epoch
    logs: dict[str, float] = {}
    for epoch in range(initial_epoch, epochs):
        callbacks.on_epoch_begin(epoch)
        total = 0.0
        for first in range(0, steps_per_epoch, steps_per_execution):
            last = min(first + steps_per_execution, steps_per_epoch) - 1
            callbacks.on_train_batch_begin(first)
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
            callbacks.on_train_batch_end(last, logs)
            if model.stop_training:
                break
        if held_out and (epoch + 1) % validation_freq == 0:
            _take_learning_rate(learner)
            logs |= _validation(learner, held_out, settings)
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    callbacks.on_train_end(logs)
    return model.history


def _stream(learner: MetaLearner, source: TaskSource, what: str) -> TaskStream:
    # A subclassed model has no shapes, and Keras checks it when it is called.
    inputs, outputs = (
        getattr(learner.model, name, None) for name in ("input_shape", "output_shape")
    )
    labels = isinstance(learner.loss, keras.losses.SparseCategoricalCrossentropy)
    classes = outputs[-1] if labels and outputs else None
    return TaskStream(source, what, inputs and inputs[1:], classes)


def _held_out(learner: MetaLearner, source: TaskSource, count: int | None, seed: int) -> list[Task]:
    stream = _stream(learner, source, "validation_tasks")
    count = _number(stream, count, "validation_steps", 1)
    tasks = stream.take(count, random_stream(seed, "curve"))
    if any(task.query_inputs is None for task in tasks):
        raise ValueError(
            "a task of validation_tasks must have queries: (inputs, targets, query inputs, "
            "query targets). Received: (inputs, targets)"
        )
    return tasks


def _draw(
    stream: TaskStream, rng: np.random.Generator, settings: FitSettings
) -> tuple[np.ndarray, TrainingTasks]:
    """The examples and tasks of one meta-iteration."""
    inputs, targets, *queries = stacked(stream.take(settings.meta_batch, rng))
    return tasks_of_arrays(
        rng,
        inputs,
        targets,
        batch=settings.inner_batch,
        steps=settings.inner_iters,
        tail=None if queries[0] is None else tuple(queries),
    )


def _train(
    learner: MetaLearner,
    drawn: Sequence[tuple[np.ndarray, TrainingTasks]],
    meta_steps: Sequence[float],
) -> float:
    """Sum of the losses of some meta-iterations."""
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
    """A callback may have set the learning rate of the model's optimizer."""
    rate = float(learner.model.optimizer.learning_rate)
    if rate != float(learner.inner_optimizer.learning_rate):
        learner.inner_optimizer.learning_rate = rate


def _validation(
    learner: MetaLearner, tasks: Sequence[Task], settings: FitSettings
) -> dict[str, float]:
    model, rng = learner.model, random_stream(settings.seed, "curve", 1)
    model.reset_metrics()
    total, count, found = 0.0, 0, {}
    for group in same_shape_groups(tasks, _TASKS_PER_CALL):
        inputs, targets, query_inputs, query_targets = stacked(group)
        table, evaluation = evaluation_tasks_of_arrays(
            rng,
            inputs,
            targets,
            query_inputs,
            batch=settings.eval_batch,
            steps=settings.eval_iters,
        )
        outputs = learner.predict_tasks(table, evaluation, transductive=settings.transductive)
        outputs, wanted = (
            array.reshape(-1, *array.shape[2:]) for array in (outputs, query_targets)
        )
        loss = float(learner.loss(wanted, outputs))
        total += loss * (1 if learner.loss.reduction == "sum" else len(wanted))
        count += len(wanted)
        found = model.compute_metrics(None, wanted, outputs)
    values = {name: float(value) for name, value in found.items()} | {"loss": total / count}
    return {f"val_{name}": value for name, value in values.items()}


def _number(stream: TaskStream, given: int | None, name: str, divisor: int) -> int:
    """What was given, or how many there are."""
    length = stream.length
    if given is None and length is None:
        raise ValueError(f"{name} must be given, as the number of tasks is unknown. Received: None")
    number = length // divisor if given is None else given
    if number < 1:
        received = f"{length} tasks, meta_batch={divisor}" if given is None else given
        raise ValueError(f"{name} must be at least 1. Received: {received}")
    return number


def _check_at_least(low: int, **values: int) -> None:
    for name, value in values.items():
        if value < low:
            raise ValueError(f"{name} must be at least {low}. Received: {value}")
