"""`fit` as Keras users know it: epochs, callbacks, validation, on tasks of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from supervised_reptile.config.paper import dataset_facts
from supervised_reptile.keras_api.task_sources import (
    Task,
    TaskSource,
    TaskStream,
    same_shape_groups,
    stacked,
)
from supervised_reptile.tasks import (
    MiniBatches,
    TrainingTasks,
    evaluation_tasks_of_arrays,
    random_stream,
    tasks_of_arrays,
)

_PAPER = dataset_facts("omniglot").column(5, 1).default_values()
_TASKS_PER_CALL = 32  # of validation


class KerasFit:
    """Gives a meta-learner its ``fit``, a loop over ``train_step``."""

    def fit(
        self,
        tasks: TaskSource,
        *,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        meta_batch: int = _PAPER["meta_batch"],
        inner_iters: int = _PAPER["inner_iters"],
        inner_batch: int = _PAPER["inner_batch"],
        meta_step: float | Callable[[int], float] = _PAPER["meta_step"],
        meta_step_final: float | None = None,
        validation_tasks: TaskSource | None = None,
        validation_steps: int | None = None,
        validation_freq: int = 1,
        eval_iters: int = _PAPER["eval_iters"],
        eval_batch: int = _PAPER["eval_batch"],
        transductive: bool = True,
        metrics: Sequence[str | keras.metrics.Metric] = (),
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        verbose: str | int = "auto",
        initial_epoch: int = 0,
        steps_per_execution: int = 1,
        seed: int = 0,
    ) -> keras.callbacks.History:
        """Meta-train on tasks of your own, with Keras callbacks.

        A step is one meta-iteration. Callbacks see ``model``, the Keras model, compiled by this
        method with the loss and the inner optimizer, whose slots and step count are brought up to
        date before each call of a callback: what ``ModelCheckpoint`` saves can be fine-tuned as
        it is. A callback that changes the learning rate changes α of the inner optimizer.

        For the paper's data sets and runs that must resume with the same bits, use ``Trainer``.

        Args:
            tasks: Gives tasks (inputs, targets), or (inputs, targets, query inputs, query targets):
                arrays or tensors [examples, ...]. A function from ``np.random.Generator`` to a
                task, a list, a generator or a ``tf.data.Dataset``. Tasks of one meta-batch must
                be of equal shapes. With queries the last inner step of a task is on exactly
                these (a separate tail, paper Sec. 6.3: what FOMAML and MAML generalise to).
            epochs: Epoch to train to.
            steps_per_epoch: Meta-iterations in an epoch. Default: as many whole meta-batches as
                there are tasks; needed where their number is unknown.
            meta_batch: Tasks in a meta-iteration, at least 1.
            inner_iters: Inner steps on a task k, at least 1.
            inner_batch: Examples in a mini-batch of an inner step, at least 1.
            meta_step: ε, the outer step size, at the start; or a function of the number of the
                meta-iteration, such as a ``keras.optimizers.schedules.LearningRateSchedule``.
            meta_step_final: ε at the end of all epochs, to which it goes linearly. Default: 0 as
                in the paper; of no use with a function.
            validation_tasks: As ``tasks``, with queries. They are taken once, at the start.
            validation_steps: Number of validation tasks. Default: all; needed where their number
                is unknown.
            validation_freq: Epochs from one validation to the next, at least 1.
            eval_iters: Steps of fine-tuning on a validation task, at least 0.
            eval_batch: Examples in a mini-batch of these, at least 1.
            transductive: Whether queries go through the network together, or each with the task's
                inputs (see ``MetaLearner.predict_tasks``).
            metrics: What to compute besides the loss on validation tasks, as for ``compile``:
                ``["accuracy"]``.
            callbacks: Keras callbacks.
            verbose: 0, 1 or 2, as in Keras.
            initial_epoch: Epoch to start from, to go on with an earlier call.
            steps_per_execution: Meta-iterations in one call of the compiled program; more than 1
                is faster for small networks. It changes no number but when callbacks see batches.
            seed: Seed of the mini-batches and of what a function draws, at least 0.

        Returns:
            The history; ``history.history`` has, an epoch, ``loss`` (inner loss per example, mean
            over all inner steps), ``meta_step`` and ``val_loss`` (after fine-tuning, per query)
            with ``val_`` of each metric.

        Raises:
            ValueError: An argument or a task is not as it should be.

        Example:
            >>> def task(rng):  # lines through the origin
            ...     x = rng.uniform(-1, 1, (10, 1))
            ...     return x, rng.normal() * x
            >>> learner = Reptile(model, loss=keras.losses.MeanSquaredError())
            >>> learner.fit(task, steps_per_epoch=100, callbacks=[keras.callbacks.CSVLogger("log")])
        """
        _check_positive(
            epochs=epochs,
            meta_batch=meta_batch,
            inner_iters=inner_iters,
            inner_batch=inner_batch,
            validation_freq=validation_freq,
            eval_batch=eval_batch,
            steps_per_execution=steps_per_execution,
        )
        stream = self._stream(tasks, "tasks")
        steps_per_epoch = _number(stream, steps_per_epoch, "steps_per_epoch", meta_batch)
        step_at = _meta_step(meta_step, meta_step_final, epochs * steps_per_epoch)
        draw = functools.partial(
            _drawn, stream, meta_batch=meta_batch, batch=inner_batch, steps=inner_iters
        )
        held_out = None
        if validation_tasks is not None:
            held_out = self._held_out(validation_tasks, validation_steps, seed)
        model = self.model
        optimizer = self._inner.fast_weights.optimizer_for(model.trainable_variables)
        model.compile(optimizer, self._loss, metrics=list(metrics))
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
        self.take_optimizer_state(model.optimizer)  # BackupAndRestore may have read an earlier one
        initial_epoch = getattr(model, "_initial_epoch", 0) or initial_epoch
        logs: dict[str, float] = {}
        for epoch in range(initial_epoch, epochs):
            callbacks.on_epoch_begin(epoch)
            total = 0.0
            for first in range(0, steps_per_epoch, steps_per_execution):
                last = min(first + steps_per_execution, steps_per_epoch) - 1
                callbacks.on_train_batch_begin(first)
                self._take_learning_rate()
                offset = epoch * steps_per_epoch
                iterations = range(offset + first, offset + last + 1)
                drawn = [draw(random_stream(seed, "training", i)) for i in iterations]
                total += self._train(drawn, [step_at(i) for i in iterations])
                self._inner.fast_weights.give_optimizer_state(model.optimizer)
                logs = {"loss": total / (last + 1), "meta_step": step_at(iterations[-1])}
                callbacks.on_train_batch_end(last, logs)
                if model.stop_training:
                    break
            if held_out and (epoch + 1) % validation_freq == 0:
                self._take_learning_rate()
                logs |= self._validation(held_out, eval_batch, eval_iters, transductive, seed)
            callbacks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        callbacks.on_train_end(logs)
        return model.history

    def _stream(self, source: TaskSource, what: str) -> TaskStream:
        # A subclassed model has no shapes, and Keras checks it when it is called.
        inputs, outputs = (
            getattr(self.model, name, None) for name in ("input_shape", "output_shape")
        )
        labels = isinstance(self._loss, keras.losses.SparseCategoricalCrossentropy)
        classes = outputs[-1] if labels and outputs else None
        return TaskStream(source, what, inputs and inputs[1:], classes)

    def _held_out(self, source: TaskSource, count: int | None, seed: int) -> list[Task]:
        stream = self._stream(source, "validation_tasks")
        count = _number(stream, count, "validation_steps", 1)
        tasks = stream.take(count, random_stream(seed, "curve"))
        if any(task.query_inputs is None for task in tasks):
            raise ValueError(
                "a task of validation_tasks must have queries: (inputs, targets, query inputs, "
                "query targets). Received: (inputs, targets)"
            )
        return tasks

    def _train(
        self, drawn: Sequence[tuple[np.ndarray, TrainingTasks]], meta_steps: Sequence[float]
    ) -> float:
        """Sum of the losses of some meta-iterations."""
        if len(drawn) == 1:
            return float(self.train_step(*drawn[0], meta_steps[0]))
        return float(np.sum(self.train_steps(*_joined(drawn), meta_steps)))

    def _take_learning_rate(self) -> None:
        """A callback may have set the learning rate of the model's optimizer."""
        rate = float(self.model.optimizer.learning_rate)
        if rate != float(self.inner_optimizer.learning_rate):
            self.inner_optimizer.learning_rate = rate

    def _validation(
        self, tasks: Sequence[Task], batch: int, steps: int, transductive: bool, seed: int
    ) -> dict[str, float]:
        model, rng = self.model, random_stream(seed, "curve", 1)
        model.reset_metrics()
        total, count, found = 0.0, 0, {}
        for group in same_shape_groups(tasks, _TASKS_PER_CALL):
            inputs, targets, query_inputs, query_targets = stacked(group)
            table, evaluation = evaluation_tasks_of_arrays(
                rng, inputs, targets, query_inputs, batch=batch, steps=steps
            )
            outputs = self.predict_tasks(table, evaluation, transductive=transductive)
            outputs, wanted = (
                array.reshape(-1, *array.shape[2:]) for array in (outputs, query_targets)
            )
            loss = float(self._loss(wanted, outputs))
            total += loss * (1 if self._loss.reduction == "sum" else len(wanted))
            count += len(wanted)
            found = model.compute_metrics(None, wanted, outputs)
        values = {name: float(value) for name, value in found.items()} | {"loss": total / count}
        return {f"val_{name}": value for name, value in values.items()}


def _drawn(
    stream: TaskStream, rng: np.random.Generator, *, meta_batch: int, batch: int, steps: int
) -> tuple[np.ndarray, TrainingTasks]:
    """The examples and tasks of one meta-iteration."""
    inputs, targets, *queries = stacked(stream.take(meta_batch, rng))
    tail = None if queries[0] is None else tuple(queries)
    return tasks_of_arrays(rng, inputs, targets, batch=batch, steps=steps, tail=tail)


def _joined(
    drawn: Sequence[tuple[np.ndarray, TrainingTasks]],
) -> tuple[np.ndarray, TrainingTasks]:
    """The meta-iterations of one call, on one table of examples."""
    tables, tasks = zip(*drawn, strict=True)
    offsets = np.cumsum([0, *map(len, tables[:-1])], dtype=np.int32)

    def together(parts: Sequence[MiniBatches]) -> MiniBatches:
        indices = [part.indices + offset for part, offset in zip(parts, offsets, strict=True)]
        return MiniBatches(np.concatenate(indices), np.concatenate([p.labels for p in parts]))

    steps, last = zip(*tasks, strict=True)
    return np.concatenate(tables), TrainingTasks(
        together(steps), None if last[0] is None else together(last)
    )


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


def _meta_step(
    start: float | Callable[[int], float], final: float | None, iterations: int
) -> Callable[[int], float]:
    """ε of each meta-iteration."""
    if callable(start):
        if final is not None:
            raise ValueError(
                f"meta_step_final is of no use where meta_step is a function. Received: {final}"
            )
        return lambda i: float(start(i))
    end = _PAPER["meta_step_final"] if final is None else final
    if start < 0 or end < 0:
        raise ValueError(
            f"meta_step must be at least 0, at the end too. Received: {start} and {end}"
        )
    return lambda i: start + (end - start) * i / iterations


def _check_positive(**values: Any) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {value}")
