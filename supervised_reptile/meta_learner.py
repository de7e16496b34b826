"""The compiled meta-iteration that all meta-learners share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.checks import check_outer_optimizer
from supervised_reptile.inner_loop import InnerLoop
from supervised_reptile.keras_api.arguments import (
    LossLike,
    OptimizerLike,
    check_integers,
    optimizer_of,
)
from supervised_reptile.lanes import Lanes
from supervised_reptile.learner import Learner
from supervised_reptile.tasks import TrainingTasks

if TYPE_CHECKING:
    from supervised_reptile.keras_api.fit import FitSettings
    from supervised_reptile.keras_api.task_sources import TaskSource
    from supervised_reptile.workers import Workers

Weights = Sequence[tf.Tensor]
"""Weights, or a direction in weight space, in the packed layout of ``FastWeights``."""


class MetaLearner(Learner):
    r"""Base of Reptile, FOMAML, MAML and gradient combinations.

    One meta-iteration takes n tasks. Each task starts from the same φ, runs k inner steps
    φ = φ̃_0 → φ̃_1 → … → φ̃_k and yields a direction d in weight space, see :meth:`direction`.
    Then

    .. math:: \phi \leftarrow \phi + \epsilon \, \frac{1}{n} \sum_{i=1}^{n} d_i

    (paper, Algorithm 2 and the batched form in Sec. 2). With an ``outer_optimizer`` the mean
    direction acts as a gradient instead: the optimizer receives −(1/n) Σ d_i / α, where α is the
    inner learning rate, and its own learning rate is set to ε (paper, Sec. 2 and 5.1).

    The weights φ live in ``model`` and are up to date after every call. Inner steps act on a
    working copy. The inner optimizer's slots and step count carry over from each task to the next,
    across the whole meta-batch. They are never interpolated, and they are reset only with
    ``reset_optimizer``.

    With ``parallel_tasks`` above 1, as in SimuParallelSGD (paper, Sec. 2), all tasks of a
    meta-batch start from the same slots and step count, too. Afterwards each slot is the average of
    the tasks' slots, and the step count is k more. The result does not depend on the number of
    parallel tasks, as long as it is not 1. The paper's program does not do this.

    Tasks are not limited to images or to classification. ``examples`` can be any table of inputs,
    and the labels of the mini-batches can be anything that ``loss`` accepts, e.g. float targets for
    regression (see ``keras_api.array_tasks``).

    Args:
        model: Keras model with one input array and one output array. Its trainable variables are
            float32. It has no moving statistics (see ``models.batch_statistics_normalization``),
            except in frozen layers, where they are constants. State that layers keep between
            calls, such as the counters of ``Dropout``, advances within a task and is discarded
            after it.
        inner_optimizer: New Keras optimizer of the inner loop, or its name or configuration, as
            for ``compile``. Default: the paper's Adam, learning rate 0.001, β1 = 0, β2 = 0.999,
            ε = 1e-8.
        loss: Keras loss of the inner steps, or its name or configuration, or a function, as for
            ``compile``. The loss's reduction is honored. Losses that layers add count once per
            step. Default: softmax cross-entropy from logits, **summed** over the mini-batch as in
            the authors' program.
        outer_optimizer: ``None`` for the paper's interpolation, or a new Keras optimizer.
        weight_decay: Factor r in (0, 1] that multiplies every trainable weight before each inner
            step.
        reset_optimizer: Whether to reset the inner optimizer's slots and step count for every
            task, in training and evaluation, instead of carrying them over (review, Sec. 4.2).
        input_scale: Factor from stored examples to the model's input, e.g. 1/255 for bytes.
        lanes: Number of evaluation tasks that run in parallel, at least 1.
        parallel_tasks: Number of training tasks that run in parallel, at least 1. Above 1, it is
            another algorithm, see above.
        workers: The processes that share the tasks; ``None`` for this process alone. Training
            then needs ``parallel_tasks`` above 1.
        jit_compile: Whether to compile the meta-iterations and evaluations with XLA. On CPUs this
            is many times faster for small dense networks and slower for the paper's convolutions.

    Raises:
        ValueError: The model has a part that a learner cannot train (see ``docs/any-model.md``),
            or an argument is out of range.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        inner_optimizer: OptimizerLike | None = None,
        loss: LossLike | None = None,
        outer_optimizer: OptimizerLike | None = None,
        weight_decay: float = 1.0,
        reset_optimizer: bool = False,
        input_scale: float = 1.0,
        lanes: int = 2,
        parallel_tasks: int = 1,
        workers: Workers | None = None,
        jit_compile: bool = False,
    ) -> None:
        super().__init__(
            model,
            inner_optimizer=inner_optimizer,
            loss=loss,
            weight_decay=weight_decay,
            reset_optimizer=reset_optimizer,
            input_scale=input_scale,
            lanes=lanes,
            jit_compile=jit_compile,
        )
        self.outer_optimizer = None
        if outer_optimizer is not None:
            self.outer_optimizer = optimizer_of(outer_optimizer, "outer_optimizer")
            check_outer_optimizer(self.outer_optimizer)
            self.outer_optimizer.build(model.trainable_variables)
        check_integers(1, parallel_tasks=parallel_tasks)
        self.workers = workers
        self._parallel: Lanes | None = None
        if parallel_tasks > 1:
            here = -(-parallel_tasks // (workers.count if workers else 1))
            self._parallel = self._lanes(here)
        self._compiled_sums = tf.function(self._sums, **self._how_to_compile)
        self._compiled_update = tf.function(self._update, **self._how_to_compile)
        self._compiled_meta_iteration = tf.function(self._meta_iteration, **self._how_to_compile)
        self._compiled_meta_iterations = tf.function(self._meta_iterations, **self._how_to_compile)

    # ------------------------------------------------------ what an algorithm defines

    def direction(
        self, inner: InnerLoop, phi: Weights, examples: tf.Tensor, task: TrainingTasks
    ) -> tuple[Weights, tf.Tensor]:
        """Compute the direction of one task from φ, inside the compiled meta-iteration.

        Args:
            inner: The inner loop to run.
            phi: φ, packed.
            examples: All stored examples, [num_examples, ...].
            task: One task: rows [steps, batch] and labels [steps, batch, ...], as tensors.

        Returns:
            The direction d, packed, and the inner loss summed over the steps, float32 scalar.
        """
        raise NotImplementedError

    def check_steps(self, steps: int) -> None:
        """Raise ``ValueError`` if the algorithm cannot use this number of inner steps."""

    # ------------------------------------------------------ training

    def train_step(
        self, examples: np.ndarray | tf.Variable, tasks: TrainingTasks, meta_step: float
    ) -> tf.Tensor:
        """Run one meta-iteration, in one call of a compiled function.

        Args:
            examples: All stored examples, [num_examples, ...], e.g. uint8 images. An array, from
                which the required rows are copied, or a TensorFlow variable.
            tasks: The meta-batch, as drawn by ``tasks.training_tasks``.
            meta_step: ε, the outer step size, at least 0.

        Returns:
            Inner loss per example, averaged over all steps of all tasks, float32 scalar.

        Raises:
            ValueError: The number of inner steps does not suit the learner.
        """
        self._check_steps_of(tasks)
        # From NumPy: TensorFlow caches a tensor for every new Python float and never frees it.
        epsilon = tf.constant(np.float32(meta_step))
        if self.workers is None:
            examples, tasks = self._brought(examples, tasks)
            return self._compiled_meta_iteration(examples, tasks, epsilon)
        examples, share = self._brought(examples, self.workers.share_of(tasks))
        sums, counters = self._compiled_sums(examples, share)
        return self._compiled_update(self.workers.sum(sums), counters, epsilon)

    def train_steps(
        self,
        examples: np.ndarray | tf.Variable,
        tasks: TrainingTasks,
        meta_steps: Sequence[float],
    ) -> tf.Tensor:
        """Run many meta-iterations, in one call of a compiled function.

        Use it for small networks, where a call takes longer than the computation inside it.

        Args:
            examples: All stored examples, [num_examples, ...], an array or a variable.
            tasks: The meta-batches one after another, [iterations · n, ...].
            meta_steps: ε of each meta-iteration, float [iterations], each at least 0.

        Returns:
            float32 [iterations], the result of :meth:`train_step` for each meta-iteration.

        Raises:
            ValueError: The tasks do not divide evenly into that many meta-batches, or see
                :meth:`train_step`.
        """
        iterations, num_tasks = len(meta_steps), len(tasks.steps.indices)
        if not iterations or num_tasks % iterations:
            raise ValueError(
                "every meta-iteration must have the same number of tasks. "
                f"Received: {num_tasks} tasks for {iterations} meta-iterations"
            )
        self._check_steps_of(tasks)
        if self.workers is not None:
            raise ValueError("several workers run meta-iterations one by one, by train_step")
        examples, tasks = self._brought(examples, tasks)
        apart = (iterations, num_tasks // iterations)
        tasks = tasks.map(lambda x: tf.reshape(x, (*apart, *x.shape[1:])))
        return self._compiled_meta_iterations(examples, tasks, tf.constant(meta_steps, tf.float32))

    def fit(
        self,
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
        """Meta-train on your own tasks with Keras callbacks; see ``keras_api.fit.fit``."""
        from supervised_reptile.keras_api.fit import fit

        return fit(
            self,
            tasks,
            settings,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            validation_tasks=validation_tasks,
            validation_steps=validation_steps,
            validation_freq=validation_freq,
            metrics=metrics,
            callbacks=callbacks,
            verbose=verbose,
            initial_epoch=initial_epoch,
            steps_per_execution=steps_per_execution,
        )

    def evaluate(
        self,
        tasks: TaskSource,
        settings: FitSettings | None = None,
        *,
        steps: int | None = None,
        metrics: Sequence[str | keras.metrics.Metric] = (),
    ) -> dict[str, float]:
        """Compute loss and metrics after fine-tuning; see ``keras_api.fit.evaluate``."""
        from supervised_reptile.keras_api.fit import evaluate

        return evaluate(self, tasks, settings, steps=steps, metrics=metrics)

    def _check_steps_of(self, tasks: TrainingTasks) -> None:
        self.check_steps(sum(part.indices.shape[1] for part in tasks.parts))

    def _meta_iterations(self, examples, tasks: TrainingTasks, meta_steps):
        return tf.map_fn(
            lambda i: self._meta_iteration(examples, tasks.map(lambda x: x[i]), meta_steps[i]),
            tf.range(tf.shape(meta_steps)[0]),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )

    def _meta_iteration(self, examples, tasks: TrainingTasks, meta_step):
        if self._parallel is not None:
            sums, counters = self._sums(examples, tasks)
            return self._update(sums, counters, meta_step)
        phi, num_tasks = self._phi(), tf.shape(tasks.steps.indices)[0]

        def one_task(i, total_loss, total):
            if self._reset_optimizer:
                self.inner_loop.fast_weights.reset_optimizer()
            task = tasks.map(lambda x: x[i])
            self.inner_loop.start_task(task.seeds)
            d, loss = self.direction(self.inner_loop, phi, examples, task)
            return i + 1, total_loss + loss, [t + each for t, each in zip(total, d, strict=True)]

        # Sequential, not parallel: the optimizer's slots carry over from one task to the next.
        _, loss, total = tf.while_loop(
            lambda i, *_: i < num_tasks,
            one_task,
            (tf.constant(0), tf.constant(0.0), [tf.zeros_like(p) for p in phi]),
            parallel_iterations=1,
        )
        mean = [t / tf.cast(num_tasks, tf.float32) for t in total]
        self._outer_update(phi, mean, meta_step)
        return loss / tf.cast(self._num_losses(tasks), tf.float32)

    def _sums(self, examples, tasks: TrainingTasks) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Run tasks in parallel, and return Σ over them and the counters after one of them.

        The sums are one vector, so that workers exchange it at once: directions, slots, the inner
        loss, the number of losses in it and the number of tasks.
        """
        if self._parallel is None:
            raise ValueError(
                "parallel_tasks must be at least 2 with several workers, because with 1 each task "
                "needs the slots of the task before"
            )
        phi = self._phi()

        def one_task(inner: InnerLoop, task: TrainingTasks):
            d, loss = self.direction(inner, phi, examples, task)
            return d, inner.fast_weights.optimizer_state(), loss

        state_types = [s.dtype for s in self.inner_loop.fast_weights.optimizer_state()]
        types = [p.dtype for p in phi], state_types, tf.float32
        directions, states, losses = self._parallel.map(one_task, tasks, types)
        added = [*directions, *filter(_is_slot, states), losses]
        sums = [tf.reshape(tf.reduce_sum(each, axis=0), [-1]) for each in added]
        counts = tf.stack([self._num_losses(tasks), tf.shape(tasks.steps.indices)[0]])
        counters = [each[0] for each in states if not _is_slot(each)]
        return tf.concat([*sums, tf.cast(counts, tf.float32)], axis=0), counters

    def _update(self, sums: tf.Tensor, counters: Weights, meta_step: tf.Tensor) -> tf.Tensor:
        """Move φ by the mean direction, and set the slots to their means."""
        fast_weights = self.inner_loop.fast_weights
        phi, state = self._phi(), fast_weights.optimizer_state()
        like = [*phi, *filter(_is_slot, state)]
        *parts, rest = tf.split(sums, [*(each.shape.num_elements() for each in like), 3])
        loss, num_losses, num_tasks = tf.unstack(rest)
        means = [
            tf.reshape(part / num_tasks, each.shape) for part, each in zip(parts, like, strict=True)
        ]
        slots, counts = iter(means[len(phi) :]), iter(counters)
        fast_weights.load_optimizer_state(
            [next(slots) if _is_slot(each) else next(counts) for each in state]
        )
        self._outer_update(phi, means[: len(phi)], meta_step)
        return loss / num_losses

    def _phi(self) -> Weights:
        return self.inner_loop.fast_weights.pack([v.value for v in self.model.trainable_variables])

    def _num_losses(self, tasks: TrainingTasks) -> tf.Tensor:
        """A loss that is not summed over its mini-batch counts once per step."""
        summed = self.loss.reduction == "sum"
        return sum(
            tf.size(part.indices if summed else part.indices[..., 0]) for part in tasks.parts
        )

    def _outer_update(self, phi: Weights, direction: Weights, meta_step: tf.Tensor) -> None:
        unpack = self.inner_loop.fast_weights.unpack
        variables = self.model.trainable_variables
        if self.outer_optimizer is None:
            # φ ← φ + ε · mean_i d_i
            moved = [p + meta_step * d for p, d in zip(phi, direction, strict=True)]
            for variable, value in zip(variables, unpack(moved), strict=True):
                variable.value.assign(value)
                if variable.constraint is not None:
                    variable.assign(variable.constraint(variable))
            return
        alpha = tf.convert_to_tensor(self.inner_optimizer.learning_rate)
        self.outer_optimizer.learning_rate.assign(meta_step)
        self.outer_optimizer.apply(unpack([-d / alpha for d in direction]), variables)


def _is_slot(state: tf.Tensor) -> bool:
    """Whether a part of an optimizer's state is a slot, not a counter such as the step count."""
    return state.dtype.is_floating


def minus(a: Weights, b: Weights) -> list[tf.Tensor]:
    """Difference a − b, packed."""
    return [x - y for x, y in zip(a, b, strict=True)]
