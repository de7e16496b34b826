"""What all meta-learners share: a compiled meta-iteration and a compiled evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.fast.staging import Staging
from supervised_reptile.fast.weights import FastWeights
from supervised_reptile.fine_tuning import FineTuning
from supervised_reptile.inner_loop import InnerLoop
from supervised_reptile.tasks import EvaluationTasks, TrainingTasks

if TYPE_CHECKING:
    from supervised_reptile.keras_api.fit import FitSettings
    from supervised_reptile.keras_api.task_sources import TaskSource

Weights = Sequence[tf.Tensor]
"""Weights, or a direction in weight space, in the packed layout of ``FastWeights``."""


class MetaLearner:
    r"""Base of Reptile, FOMAML, MAML and gradient combinations.

    One meta-iteration takes n tasks. Each task starts from the same φ, runs k inner steps
    φ = φ̃_0 → φ̃_1 → … → φ̃_k and yields a direction d in weight space, see :meth:`direction`.
    Then

    .. math:: \phi \leftarrow \phi + \epsilon \, \frac{1}{n} \sum_{i=1}^{n} d_i

    (paper, Algorithm 2 and the batched form in Sec. 2). With an ``outer_optimizer`` the mean
    direction is taken as a gradient instead: −(1/n) Σ d_i / α, with α the inner learning rate,
    goes to that optimizer, whose learning rate is set to ε (paper, Sec. 2 and 5.1).

    The weights φ live in ``model`` and are up to date after every call. Inner steps act on a
    working copy. The inner optimizer's slots and step count run on from task to task, through all
    tasks of the meta-batch in turn; they are neither reset (unless asked for) nor interpolated.

    The tasks need not be of images, nor of classes: ``examples`` is any table of inputs, and the
    labels of the mini-batches are whatever ``loss`` compares with, e.g. float targets of a
    regression (see ``keras_api.array_tasks``).

    Args:
        model: Keras model with float32 trainable variables and no ``BatchNormalization`` (see
            ``models.batch_statistics_normalization``). Variables that a call updates, such as
            seeds of dropout, are not carried on from call to call.
        inner_optimizer: New Keras optimizer of the inner loop. Default: the paper's Adam,
            learning rate 0.001, β1 = 0, β2 = 0.999, ε = 1e-8.
        loss: Keras loss of the inner steps, whose reduction is honored. Default: softmax
            cross-entropy from logits, **summed** over the mini-batch as in the authors' program.
        outer_optimizer: ``None`` for the paper's interpolation, or a new Keras optimizer.
        weight_decay: Factor r in (0, 1] on every trainable weight before each inner step.
        reset_optimizer: Whether the inner optimizer's slots and step count restart with every
            task, in training and evaluation, instead of running on (review, Sec. 4.2).
        input_scale: Factor from stored examples to the model's input, e.g. 1/255 for bytes.
        lanes: How many evaluation tasks run side by side, at least 1.
        jit_compile: Whether XLA compiles the meta-iterations and evaluations. Many times faster
            for small dense networks, slower for the paper's convolutions (on CPUs).

    Raises:
        ValueError: The model keeps moving statistics, is not float32, or an argument is out of
            its range.
    """

    relaxes_shapes = True
    """Whether one compiled program may serve tasks of several shapes."""

    def __init__(
        self,
        model: keras.Model,
        *,
        inner_optimizer: keras.optimizers.Optimizer | None = None,
        loss: keras.losses.Loss | None = None,
        outer_optimizer: keras.optimizers.Optimizer | None = None,
        weight_decay: float = 1.0,
        reset_optimizer: bool = False,
        input_scale: float = 1.0,
        lanes: int = 2,
        jit_compile: bool = False,
    ) -> None:
        _check_model(model)
        if not 0 < weight_decay <= 1:
            raise ValueError(f"weight_decay must be in (0, 1]. Received: {weight_decay}")
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1. Received: {lanes}")
        self.model = model
        self.inner_optimizer = inner_optimizer or self.default_inner_optimizer()
        self.outer_optimizer = outer_optimizer
        if outer_optimizer is not None:
            outer_optimizer.build(model.trainable_variables)
        self.loss = loss or keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="sum"
        )
        if not isinstance(self.loss, keras.losses.Loss):
            raise ValueError(f"loss must be a keras.losses.Loss. Received: {loss!r}")
        self.inner_loop = InnerLoop(
            model,
            self.loss,
            FastWeights(model.trainable_variables, self.inner_optimizer),
            weight_decay=weight_decay,
            input_scale=input_scale,
        )
        self.check(weight_decay)
        self._reset_optimizer = reset_optimizer
        self._staging = Staging()
        self._compile(lanes, jit_compile)

    def _compile(self, lanes: int, jit_compile: bool) -> None:
        # Shapes of tasks may differ between uses (the last group of an evaluation is smaller).
        # XLA compiles for each shape anyway.
        how = {
            "reduce_retracing": self.relaxes_shapes and not jit_compile,
            "jit_compile": jit_compile or None,
        }
        self._compiled_meta_iteration = tf.function(self._meta_iteration, **how)
        self._compiled_meta_iterations = tf.function(self._meta_iterations, **how)
        fine_tuning = FineTuning(
            self.model, self.inner_loop, lanes=lanes, reset_optimizer=self._reset_optimizer
        )
        self._evaluate_tasks = tf.function(fine_tuning.predict, **how)
        self._evaluate_each_step = tf.function(fine_tuning.predict_after_each_step, **how)

    # ------------------------------------------------------ what an algorithm defines

    def direction(
        self, phi: Weights, examples: tf.Tensor, task: TrainingTasks
    ) -> tuple[Weights, tf.Tensor]:
        """Explore one task from φ; runs inside the compiled meta-iteration.

        Args:
            phi: φ, packed.
            examples: All stored examples, [num_examples, ...].
            task: One task: rows [steps, batch] and labels [steps, batch, ...], as tensors.

        Returns:
            The direction d, packed; and the inner loss summed over the steps, float32 scalar.
        """
        raise NotImplementedError

    @staticmethod
    def default_inner_optimizer() -> keras.optimizers.Optimizer:
        """The inner optimizer of a learner that is given none."""
        return paper_adam()

    def check(self, weight_decay: float) -> None:
        """Raise ``ValueError`` if the algorithm cannot work with the inner optimizer."""

    def check_steps(self, steps: int) -> None:
        """Raise ``ValueError`` if the algorithm cannot work with so many inner steps."""

    # ------------------------------------------------------ training

    def train_step(
        self, examples: np.ndarray | tf.Variable, tasks: TrainingTasks, meta_step: float
    ) -> tf.Tensor:
        """One meta-iteration, in one call of a compiled function.

        Args:
            examples: All stored examples, [num_examples, ...], e.g. uint8 images: an array, of
                which the needed rows are copied, or a TensorFlow variable.
            tasks: The meta-batch, as drawn by ``tasks.training_tasks``.
            meta_step: ε, the outer step size, at least 0.

        Returns:
            float32 scalar: inner loss per example, averaged over all steps of all tasks.

        Raises:
            ValueError: The tasks have another number of inner steps than the learner combines.
        """
        self._check_steps_of(tasks)
        examples, tasks = self._staging.bring(examples, tasks)
        # From NumPy: of every new Python float TensorFlow keeps a tensor for ever.
        return self._compiled_meta_iteration(examples, tasks, tf.constant(np.float32(meta_step)))

    def train_steps(
        self,
        examples: np.ndarray | tf.Variable,
        tasks: TrainingTasks,
        meta_steps: Sequence[float],
    ) -> tf.Tensor:
        """Many meta-iterations, in one call of a compiled function.

        Use it for small networks, where one call per meta-iteration takes longer than the work.

        Args:
            examples: All stored examples, [num_examples, ...], an array or a variable.
            tasks: The meta-batches one after another, [iterations · n, ...].
            meta_steps: ε of each meta-iteration, float [iterations], each at least 0.

        Returns:
            float32 [iterations], for each what :meth:`train_step` returns.

        Raises:
            ValueError: The tasks do not divide into that many meta-batches, or see
                :meth:`train_step`.
        """
        iterations, num_tasks = len(meta_steps), len(tasks.steps.indices)
        if not iterations or num_tasks % iterations:
            raise ValueError(
                "tasks must be as many for every meta-iteration. "
                f"Received: {num_tasks} tasks for {iterations} meta-iterations"
            )
        self._check_steps_of(tasks)
        examples, tasks = self._staging.bring(examples, tasks)
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
        """Meta-train on tasks of your own with Keras callbacks: ``keras_api.fit.fit``."""
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
        phi = self.inner_loop.fast_weights.pack([v.value for v in self.model.trainable_variables])
        num_tasks = tf.shape(tasks.steps.indices)[0]

        def one_task(i, total_loss, total):
            if self._reset_optimizer:
                self.inner_loop.fast_weights.reset_optimizer()
            d, loss = self.direction(phi, examples, tasks.map(lambda x: x[i]))
            return i + 1, total_loss + loss, [t + each for t, each in zip(total, d, strict=True)]

        # In turn, not side by side: the optimizer's slots run from one task into the next.
        _, loss, total = tf.while_loop(
            lambda i, *_: i < num_tasks,
            one_task,
            (tf.constant(0), tf.constant(0.0), [tf.zeros_like(p) for p in phi]),
            parallel_iterations=1,
        )
        mean = [t / tf.cast(num_tasks, tf.float32) for t in total]
        self._outer_update(phi, mean, meta_step)
        # A loss that is not summed over its mini-batch counts once a step.
        summed = self.loss.reduction == "sum"
        num_losses = sum(
            tf.size(part.indices if summed else part.indices[..., 0]) for part in tasks.parts
        )
        return loss / tf.cast(num_losses, tf.float32)

    def _outer_update(self, phi: Weights, direction: Weights, meta_step: tf.Tensor) -> None:
        unpack = self.inner_loop.fast_weights.unpack
        variables = self.model.trainable_variables
        if self.outer_optimizer is None:
            # φ ← φ + ε · mean_i d_i
            moved = [p + meta_step * d for p, d in zip(phi, direction, strict=True)]
            for variable, value in zip(variables, unpack(moved), strict=True):
                variable.value.assign(value)
            return
        alpha = tf.convert_to_tensor(self.inner_optimizer.learning_rate)
        self.outer_optimizer.learning_rate.assign(meta_step)
        self.outer_optimizer.apply(unpack([-d / alpha for d in direction]), variables)

    # ------------------------------------------------------ evaluation

    def predict_tasks(
        self, examples: np.ndarray | tf.Variable, tasks: EvaluationTasks, *, transductive: bool
    ) -> np.ndarray:
        """Fine-tune on each task and predict its held-out examples.

        Every task starts from the current weights, slots and step count, and leaves them bit for
        bit as they were.

        Args:
            examples: All stored examples, [num_examples, ...], an array or a variable.
            tasks: The tasks, as drawn by ``tasks.evaluation_tasks``.
            transductive: True: the held-out examples of a task go through the network together
                and share their batch statistics. False: each goes through with all of the task's
                training examples instead, and its own outputs are kept (paper Sec. 6.1).

        Returns:
            float32 [tasks, queries, outputs], e.g. logits.
        """
        return self.predict_tasks_each_way(examples, tasks, (transductive,))[0]

    def predict_tasks_each_way(
        self,
        examples: np.ndarray | tf.Variable,
        tasks: EvaluationTasks,
        transductive: Sequence[bool],
    ) -> np.ndarray:
        """As :meth:`predict_tasks`, in several settings after one and the same fine-tuning.

        Args:
            examples: All stored examples, [num_examples, ...], an array or a variable.
            tasks: The tasks, as drawn by ``tasks.evaluation_tasks``.
            transductive: The settings, one or both.

        Returns:
            float32 [settings, tasks, queries, outputs].
        """
        outputs = self._evaluate_tasks(
            *self._staging.bring(examples, tasks), tuple(transductive)
        ).numpy()
        return outputs.swapaxes(0, 1)

    def predict_after_each_step(
        self, examples: np.ndarray | tf.Variable, tasks: EvaluationTasks
    ) -> np.ndarray:
        """As :meth:`predict_tasks`, transductively, before the first inner step and after each.

        Returns:
            float32 [tasks, steps + 1, queries, outputs].
        """
        return self._evaluate_each_step(*self._staging.bring(examples, tasks)).numpy()

    # ------------------------------------------------------ with Keras

    def compiled_model(self) -> keras.Model:
        """A copy of the model, compiled with the loss and the inner optimizer with its state.

        It fine-tunes as an evaluation does (``fit``, ``train_on_batch``), and a ``.keras`` file
        of it holds the optimizer's slots and step count with the weights.
        """
        model = keras.models.clone_model(self.model)
        model.set_weights(self.model.get_weights())
        optimizer = self.inner_loop.fast_weights.optimizer_for(model.trainable_variables)
        model.compile(optimizer=optimizer, loss=self.loss, metrics=["accuracy"])
        return model

    def take_optimizer_state(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Start from the slots and step count of a model's optimizer; the learning rate stays.

        Args:
            optimizer: Of the kind of the inner optimizer and built on this model's weights, such
                as that of a :meth:`compiled_model` or of what ``load_pretrained`` returns.

        Raises:
            ValueError: It is of another kind, or was built on other weights.
        """
        self.inner_loop.fast_weights.take_optimizer_state(optimizer)


def paper_adam(learning_rate: float = 0.001) -> keras.optimizers.Adam:
    """The paper's inner optimizer: Adam with β1 = 0, β2 = 0.999, ε = 1e-8 (paper, appendix A).

    Keras' own default ε is 1e-7.
    """
    return keras.optimizers.Adam(learning_rate, beta_1=0.0, beta_2=0.999, epsilon=1e-8)


def minus(a: Weights, b: Weights) -> list[tf.Tensor]:
    """Difference a − b, packed."""
    return [x - y for x, y in zip(a, b, strict=True)]


def _check_model(model: keras.Model) -> None:
    if not model.trainable_variables:
        raise ValueError("model must be built and have trainable variables. Received: none")
    dtypes = {v.dtype for v in model.trainable_variables}
    if dtypes != {"float32"}:
        raise ValueError(f"trainable variables must be float32. Received: {sorted(dtypes)}")
    layers = model._flatten_layers(include_self=False)
    if any(isinstance(x, keras.layers.BatchNormalization) for x in layers):
        raise ValueError(
            "model must normalise by batch statistics alone: use "
            "supervised_reptile.models.batch_statistics_normalization instead of "
            "keras.layers.BatchNormalization, whose moving averages Reptile neither updates nor "
            "interpolates. Received: a model with BatchNormalization"
        )
