"""What all meta-learners have in common: a compiled meta-iteration and a compiled evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.config.paper import ORIGINAL_DEFAULTS
from supervised_reptile.fast.staging import Staging
from supervised_reptile.fast.weights import FastWeights
from supervised_reptile.fine_tuning import FineTuning
from supervised_reptile.inner_loop import InnerLoop
from supervised_reptile.keras_api.fit import KerasFit
from supervised_reptile.tasks import EvaluationTasks, MiniBatches, TrainingTasks


class MetaLearner(KerasFit):
    r"""Base of Reptile, FOMAML and MAML: all that they have in common, nearly everything.

    One meta-iteration takes n tasks. Each task starts from the same φ and runs k inner steps,
    φ = φ̃_0 → φ̃_1 → … → φ̃_k. It yields a direction in weight space, a combination of the
    steps' changes with the weights w_j of :meth:`step_weights` (MAML alone does otherwise),

    .. math:: d_i = \sum_{j=1}^{k} w_j \, (\tilde\phi_j - \tilde\phi_{j-1})

    and then

    .. math:: \phi \leftarrow \phi + \epsilon \, \frac{1}{n} \sum_{i=1}^{n} d_i

    (paper, Algorithm 2 and the batched form in Sec. 2). With an ``outer_optimizer`` the mean
    direction is taken as a gradient instead: −(1/n) Σ d_i / α, with α the inner learning rate,
    is handed to that optimizer, whose learning rate is set to ε (paper, Sec. 2 and 5.1).

    The weights φ live in ``model`` and are up to date after every call. Inner steps act on a
    working copy; the inner optimizer's slots and step count run on from task to task, through
    all tasks of the meta-batch in turn, and are neither reset (unless asked for) nor interpolated.

    The tasks need not be of images, nor of classes: ``examples`` is any table of inputs, and the
    labels of the mini-batches are whatever ``loss`` compares with, e.g. float targets of a
    regression (see ``tasks.tasks_of_arrays``).

    Args:
        model: Keras model with float32 trainable variables and no ``BatchNormalization`` (see
            ``models.batch_statistics_normalization``). Variables that a call updates, such as
            seeds of dropout, are not carried on from call to call.
        inner_optimizer: New Keras optimizer of the inner loop. Default: the paper's Adam,
            learning rate 0.001, β1 = 0, β2 = 0.999, ε = 1e-8.
        loss: Keras loss of the inner steps, whose reduction is honoured. Default: softmax
            cross-entropy from logits, **summed** over the mini-batch as in the authors' program.
        outer_optimizer: ``None`` for the paper's interpolation, or a new Keras optimizer.
        weight_decay: Factor r in (0, 1] on every trainable weight before each inner step.
        reset_optimizer: Whether the inner optimizer's slots and step count start anew with every
            task, in training and evaluation, rather than run on (review, Sec. 4.2).
        input_scale: Factor from stored examples to the model's input, e.g. 1/255 for bytes.
        lanes: How many evaluation tasks run side by side, at least 1.
        jit_compile: Whether XLA compiles the meta-iterations and evaluations. Many times faster
            for small dense networks, slower for the paper's convolutions (on CPUs).

    Raises:
        ValueError: The model keeps moving statistics, is not float32, or an argument is out of
            its range.

    Example:
        >>> learner = Reptile(omniglot_model(5))
        >>> learner.train_step(examples, tasks, meta_step=1.0)
    """

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
        self.inner_optimizer = inner_optimizer or paper_adam()
        self.outer_optimizer = outer_optimizer
        if outer_optimizer is not None:
            outer_optimizer.build(model.trainable_variables)
        self._loss = loss or keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="sum"
        )
        if not isinstance(self._loss, keras.losses.Loss):
            raise ValueError(f"loss must be a keras.losses.Loss. Received: {loss!r}")
        self._reset_optimizer = reset_optimizer
        self._inner = InnerLoop(
            model,
            self._loss,
            FastWeights(model.trainable_variables, self.inner_optimizer),
            weight_decay=weight_decay,
            input_scale=input_scale,
        )
        self._staging = Staging()
        # Shapes of tasks may differ between uses (the last group of an evaluation is smaller).
        # XLA compiles for each shape anyway.
        how = {"reduce_retracing": not jit_compile, "jit_compile": jit_compile or None}
        self._meta_iteration = tf.function(self._meta_iteration, **how)
        self._meta_iterations = tf.function(self._meta_iterations, **how)
        fine_tuning = FineTuning(model, self._inner, lanes=lanes, reset_optimizer=reset_optimizer)
        self._evaluate_tasks = tf.function(fine_tuning.predict, **how)
        self._evaluate_each_step = tf.function(fine_tuning.predict_after_each_step, **how)

    def compiled_model(self) -> keras.Model:
        """A copy of the model, compiled with the loss and the inner optimizer with its state.

        It fine-tunes as an evaluation does (``fit``, ``train_on_batch``), and a ``.keras`` file
        of it holds the optimizer's slots and step count beside the weights.
        """
        model = keras.models.clone_model(self.model)
        model.set_weights(self.model.get_weights())
        model.compile(
            optimizer=self._inner.fast_weights.optimizer_for(model.trainable_variables),
            loss=self._loss,
            metrics=["accuracy"],
        )
        return model

    def take_optimizer_state(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Start from the slots and step count of a model's optimizer; the learning rate stays.

        Args:
            optimizer: Of the kind of the inner optimizer and built on this model's weights, such
                as that of a :meth:`compiled_model` or of what ``load_pretrained`` gives.

        Raises:
            ValueError: It is of another kind, or was built on other weights.
        """
        self._inner.fast_weights.take_optimizer_state(optimizer)

    def step_weights(self, steps: int) -> Sequence[float]:
        """The weights w_1 … w_k that the inner steps' changes have in the direction d of a task.

        Args:
            steps: k, the number of inner steps of a task, at least 1.
        """
        raise NotImplementedError

    def train_step(
        self, examples: np.ndarray | tf.Variable, tasks: TrainingTasks, meta_step: float
    ) -> tf.Tensor:
        """One meta-iteration, in one call of a compiled function.

        Args:
            examples: All stored examples, [num_examples, ...], e.g. uint8 images: an array, of
                which the rows that are needed are copied, or a TensorFlow variable.
            tasks: The meta-batch, as drawn by ``tasks.training_tasks``.
            meta_step: ε, the outer step size, at least 0.

        Returns:
            float32 scalar: inner loss per example, averaged over all steps of all tasks.

        Raises:
            ValueError: The tasks have another number of inner steps than the learner combines.
        """
        examples, tasks = self._staging.bring(examples, tasks)
        parts, weights = self._parts(tasks)
        return self._meta_iteration(examples, parts, weights, tf.constant(meta_step, tf.float32))

    def train_steps(
        self,
        examples: np.ndarray | tf.Variable,
        tasks: TrainingTasks,
        meta_steps: Sequence[float],
    ) -> tf.Tensor:
        """Many meta-iterations, in one call of a compiled function.

        For small networks, where a call of its own for each would take longer than the work.

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
        examples, tasks = self._staging.bring(examples, tasks)
        parts, weights = self._parts(tasks)
        apart = (iterations, num_tasks // iterations)
        parts = [
            tuple(tf.reshape(x, (*apart, *x.shape[1:])) for x in mini_batches)
            for mini_batches in parts
        ]
        steps = tf.constant(meta_steps, tf.float32)
        return self._meta_iterations(examples, parts, weights, steps)

    def predict_tasks(
        self, examples: np.ndarray | tf.Variable, tasks: EvaluationTasks, *, transductive: bool
    ) -> np.ndarray:
        """Fine-tune on each task and predict its held-out examples.

        Every task starts from the weights, slots and step count as they are now, and leaves them
        bit for bit as they were.

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
        self, examples: tf.Tensor, tasks: EvaluationTasks, transductive: Sequence[bool]
    ) -> np.ndarray:
        """As :meth:`predict_tasks`, in several settings after one and the same fine-tuning.

        Args:
            examples: All stored examples, [num_examples, ...].
            tasks: The tasks, as drawn by ``tasks.evaluation_tasks``.
            transductive: The settings, one or both.

        Returns:
            float32 [settings, tasks, queries, outputs].
        """
        examples, tasks = self._staging.bring(examples, tasks)
        outputs = self._evaluate_tasks(
            examples,
            _as_tensors(tasks.steps),
            tf.convert_to_tensor(tasks.support),
            tf.convert_to_tensor(tasks.queries),
            tuple(transductive),
        ).numpy()
        return outputs.swapaxes(0, 1)

    def predict_after_each_step(
        self, examples: np.ndarray | tf.Variable, tasks: EvaluationTasks
    ) -> np.ndarray:
        """As :meth:`predict_tasks`, transductively, before the first inner step and after each.

        Returns:
            float32 [tasks, steps + 1, queries, outputs].
        """
        examples, tasks = self._staging.bring(examples, tasks)
        return self._evaluate_each_step(
            examples, _as_tensors(tasks.steps), tf.convert_to_tensor(tasks.queries)
        ).numpy()

    def _parts(self, tasks: TrainingTasks) -> tuple[list, tuple[tuple[int, float], ...]]:
        """The inner steps in runs of equal weight, whose changes telescope to one difference.

        Returns:
            The mini-batches of each run, and for each the number of steps and their weight.
        """
        given = [part for part in (tasks.steps, tasks.last) if part is not None]
        lengths = [part.indices.shape[1] for part in given]
        weights = list(self.step_weights(sum(lengths)))
        parts, runs = [], []
        for part, length in zip(given, lengths, strict=True):
            mine, weights = weights[:length], weights[length:]
            first = 0
            for weight, run in itertools.groupby(mine):
                steps = slice(first, first + len(list(run)))
                parts.append(_as_tensors(MiniBatches(*(array[:, steps] for array in part))))
                runs.append((steps.stop - first, weight))
                first = steps.stop
        return parts, tuple(runs)

    def _meta_iterations(self, examples, parts, runs, meta_steps):
        def one(i: tf.Tensor) -> tf.Tensor:
            mine = [(indices[i], labels[i]) for indices, labels in parts]
            return self._one_meta_iteration(examples, mine, runs, meta_steps[i])

        numbers = tf.range(tf.shape(meta_steps)[0])
        return tf.map_fn(one, numbers, fn_output_signature=tf.float32, parallel_iterations=1)

    def _meta_iteration(self, examples, parts, runs, meta_step):
        return self._one_meta_iteration(examples, parts, runs, meta_step)

    def _one_meta_iteration(self, examples, parts, runs, meta_step):
        start = self._inner.fast_weights.pack([v.value for v in self.model.trainable_variables])
        num_tasks = tf.shape(parts[0][0])[0]

        def one_task(i, total_loss, total):
            mine = [(indices[i], labels[i]) for indices, labels in parts]
            loss, direction = self._direction(start, examples, mine, runs)
            return i + 1, total_loss + loss, [t + d for t, d in zip(total, direction, strict=True)]

        # In turn, not side by side: the optimizer's slots run from one task into the next.
        _, loss, total = tf.while_loop(
            lambda i, *_: i < num_tasks,
            one_task,
            (tf.constant(0), tf.constant(0.0), [tf.zeros_like(s) for s in start]),
            parallel_iterations=1,
        )
        mean = [t / tf.cast(num_tasks, tf.float32) for t in total]
        self._outer_update(start, mean, meta_step)
        # A loss that is not summed over its mini-batch counts once a step.
        summed = self._loss.reduction == "sum"
        num_losses = sum(tf.size(rows if summed else rows[..., 0]) for rows, _ in parts)
        return loss / tf.cast(num_losses, tf.float32)

    def _direction(
        self,
        start: Sequence[tf.Tensor],
        examples: tf.Tensor,
        parts: Sequence[tuple[tf.Tensor, tf.Tensor]],
        runs: Sequence[tuple[int, float]],
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Explore one task from φ.

        Args:
            start: φ, packed.
            examples: All stored examples.
            parts: Rows [steps, batch] and labels [steps, batch, ...] of each run of inner steps.
            runs: Number of steps and weight w of each run.

        Returns:
            The inner loss summed over the steps, float32 scalar; and d, packed.
        """
        weights = self._inner.fast_weights
        if self._reset_optimizer:
            weights.reset_optimizer()
        weights.load(start)
        losses, changes, before = [], [], start
        for (rows, labels), (_, weight) in zip(parts, runs, strict=True):
            losses.append(self._inner.run(examples, rows, labels))
            after = weights.values()
            if weight != 0:
                change = [a - b for a, b in zip(after, before, strict=True)]
                changes.append(change if weight == 1 else [weight * c for c in change])
            before = after
        direction = [sum(each[1:], each[0]) for each in zip(*changes, strict=True)]
        return sum(losses[1:], losses[0]), direction or [tf.zeros_like(s) for s in start]

    def _outer_update(
        self, start: Sequence[tf.Tensor], direction: Sequence[tf.Tensor], meta_step: tf.Tensor
    ) -> None:
        unpack = self._inner.fast_weights.unpack
        variables = self.model.trainable_variables
        if self.outer_optimizer is None:
            # φ ← φ + ε · mean_i d_i
            moved = unpack([s + meta_step * d for s, d in zip(start, direction, strict=True)])
            for variable, value in zip(variables, moved, strict=True):
                variable.value.assign(value)
            return
        alpha = tf.convert_to_tensor(self.inner_optimizer.learning_rate)
        self.outer_optimizer.learning_rate.assign(meta_step)
        self.outer_optimizer.apply(unpack([-d / alpha for d in direction]), variables)


def paper_adam(learning_rate: float = 0.001) -> keras.optimizers.Adam:
    """The paper's inner optimizer: Adam with β1 = 0, β2 = 0.999, ε = 1e-8 (paper, appendix A).

    Keras' own default ε is 1e-7.
    """
    constants = {name: ORIGINAL_DEFAULTS[name] for name in ("beta_1", "beta_2", "epsilon")}
    return keras.optimizers.Adam(learning_rate, **constants)


def _as_tensors(batches) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.convert_to_tensor(batches.indices), tf.convert_to_tensor(batches.labels)


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Every layer, those of nested models included."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _check_model(model: keras.Model) -> None:
    if not model.trainable_variables:
        raise ValueError("model must be built and have trainable variables. Received: none")
    dtypes = {v.dtype for v in model.trainable_variables}
    if dtypes != {"float32"}:
        raise ValueError(f"trainable variables must be float32. Received: {sorted(dtypes)}")
    if any(isinstance(x, keras.layers.BatchNormalization) for x in _layers(model)):
        raise ValueError(
            "model must normalise by batch statistics alone: use "
            "supervised_reptile.models.batch_statistics_normalization instead of "
            "keras.layers.BatchNormalization, whose moving averages Reptile neither updates nor "
            "interpolates. Received: a model with BatchNormalization"
        )
