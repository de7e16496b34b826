"""The meta-learners: one compiled meta-iteration each, and one compiled evaluation for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.config import Config
from supervised_reptile.inner_loop import InnerLoop
from supervised_reptile.paper import ORIGINAL_DEFAULTS
from supervised_reptile.staging import Staging
from supervised_reptile.state import FastWeights
from supervised_reptile.tasks import EvaluationTasks, TrainingTasks


class MetaLearner:
    r"""Base of Reptile and FOMAML: all that they have in common, which is nearly everything.

    One meta-iteration takes n tasks. Each task starts from the same φ and runs k inner steps;
    it yields a direction d_i in weight space (see the subclasses), and then

    .. math:: \phi \leftarrow \phi + \epsilon \, \frac{1}{n} \sum_{i=1}^{n} d_i

    (paper, Algorithm 2 and the batched form in Sec. 2). With an ``outer_optimizer`` the mean
    direction is taken as a gradient instead: −(1/n) Σ d_i / α, with α the inner learning rate,
    is handed to that optimizer, whose learning rate is set to ε (paper, Sec. 2 and 5.1).

    The weights φ live in ``model`` and are up to date after every call. Inner steps act on a
    working copy; the inner optimizer's slots and step count run on from task to task, through
    all tasks of the meta-batch in turn, and are neither reset nor interpolated.

    Args:
        model: Keras model with float32 trainable variables and no ``BatchNormalization`` (see
            ``models.batch_statistics_normalization``). Variables that a call updates, such as
            seeds of dropout, are not carried on from call to call.
        inner_optimizer: New Keras optimizer of the inner loop. Default: the paper's Adam,
            learning rate 0.001, β1 = 0, β2 = 0.999, ε = 1e-8.
        loss: Keras loss of the inner steps. Default: softmax cross-entropy from logits, **summed**
            over the mini-batch as in the authors' program.
        outer_optimizer: ``None`` for the paper's interpolation, or a new Keras optimizer.
        weight_decay: Factor r in (0, 1] on every trainable weight before each inner step.
        input_scale: Factor from stored examples to the model's input, e.g. 1/255 for bytes.
        lanes: How many evaluation tasks run side by side, at least 1.

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
        input_scale: float = 1.0,
        lanes: int = 2,
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
        self._inner = InnerLoop(
            model,
            self._loss,
            FastWeights(model.trainable_variables, self.inner_optimizer),
            weight_decay=weight_decay,
            input_scale=input_scale,
        )
        self._staging = Staging()
        # Evaluation works on copies of its own, so there is nothing to restore afterwards.
        self._evaluators = [self._inner.twin() for _ in range(lanes)]
        # Shapes of tasks may differ between uses (the last group of an evaluation is smaller).
        self._meta_iteration = tf.function(self._meta_iteration, reduce_retracing=True)
        self._evaluate_tasks = tf.function(self._evaluate_tasks, reduce_retracing=True)

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

    def direction(self, start: tf.Tensor, before_last: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
        """The direction d a task contributes to the outer update.

        Args:
            start: φ, float32, some part of the weights.
            before_last: φ̃ before the last inner step, same shape.
            after: φ̃ after it, same shape.
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
        """
        examples, tasks = self._staging.bring(examples, tasks)
        steps = _as_tensors(tasks.steps)
        last = None if tasks.last is None else _as_tensors(tasks.last)
        return self._meta_iteration(examples, steps, last, tf.constant(meta_step, tf.float32))

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

    def _meta_iteration(self, examples, steps, last, meta_step):
        weights = self._inner.fast_weights
        start = weights.pack([v.value for v in self.model.trainable_variables])
        num_tasks = tf.shape(steps[0])[0]

        def one_task(i, total_loss, total):
            weights.load(start)
            loss = self._inner.run(examples, steps[0][i], steps[1][i])
            before_last = weights.values()
            if last is not None:
                loss += self._inner.run(examples, last[0][i], last[1][i])
            change = map(self.direction, start, before_last, weights.values())
            return i + 1, total_loss + loss, [t + c for t, c in zip(total, change, strict=True)]

        # In turn, not side by side: the optimizer's slots run from one task into the next.
        _, loss, total = tf.while_loop(
            lambda i, *_: i < num_tasks,
            one_task,
            (tf.constant(0), tf.constant(0.0), [tf.zeros_like(s) for s in start]),
            parallel_iterations=1,
        )
        mean = [t / tf.cast(num_tasks, tf.float32) for t in total]
        self._outer_update(start, mean, meta_step)
        num_losses = sum(tf.size(b[1]) for b in (steps, last) if b is not None)
        return loss / tf.cast(num_losses, tf.float32)

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

    def _evaluate_tasks(self, examples, steps, support, queries, transductive):
        start = self._inner.fast_weights.pack([v.value for v in self.model.trainable_variables])
        stride = len(self._evaluators)

        def run_lane(inner: InnerLoop, mine: tf.Tensor) -> tf.Tensor:
            def one_task(i: tf.Tensor) -> tf.Tensor:
                inner.fast_weights.load(start)
                inner.fast_weights.copy_optimizer_state(self._inner.fast_weights)
                inner.run(examples, steps[0][i], steps[1][i])
                task = support[i], queries[i]
                return tf.stack([self._predict(inner, examples, *task, t) for t in transductive])

            return tf.map_fn(one_task, mine, fn_output_signature=tf.float32, parallel_iterations=1)

        # Tasks are independent and every lane has its own variables, so TensorFlow runs the
        # lanes side by side.
        numbers = tf.range(tf.shape(queries)[0])
        lanes = [numbers[n::stride] for n in range(stride)]
        outputs = [run_lane(*lane) for lane in zip(self._evaluators, lanes, strict=True)]
        return tf.dynamic_stitch(lanes, outputs)

    @staticmethod
    def _predict(inner: InnerLoop, examples, support, queries, transductive) -> tf.Tensor:
        if transductive:
            return inner.predict(examples, queries)
        return tf.map_fn(
            lambda query: inner.predict(examples, tf.concat([support, query[None]], axis=0))[-1],
            queries,
            fn_output_signature=tf.float32,
        )


class Reptile(MetaLearner):
    r"""Reptile: d = φ̃ − φ, the whole way travelled by the inner loop (paper, Algorithm 2)."""

    def direction(self, start, before_last, after):
        """φ̃ − φ."""
        return after - start


class FOMAML(MetaLearner):
    r"""First-order MAML: d = the last inner step's change of the weights alone (paper, Sec. 3).

    As in the authors' program this is the change *after* the optimizer (and the weight decay of
    that step), not the raw gradient, times ε and averaged over the meta-batch. Whether the last
    mini-batch is drawn like the others (shared tail) or from examples set aside (separate tail,
    Sec. 6.3) is a matter of how the tasks are drawn.
    """

    def direction(self, start, before_last, after):
        """φ̃_k − φ̃_{k−1}."""
        return after - before_last

    def train_step(self, examples, tasks, meta_step):
        """As :meth:`MetaLearner.train_step`; ``tasks.last`` must be there."""
        if tasks.last is None:
            raise ValueError("FOMAML needs its last mini-batch apart. Received: tasks.last=None")
        return super().train_step(examples, tasks, meta_step)


def paper_adam(learning_rate: float = 0.001) -> keras.optimizers.Adam:
    """The paper's inner optimizer: Adam with β1 = 0, β2 = 0.999, ε = 1e-8 (paper, appendix A).

    Keras' own default ε is 1e-7.
    """
    constants = {name: ORIGINAL_DEFAULTS[name] for name in ("beta_1", "beta_2", "epsilon")}
    return keras.optimizers.Adam(learning_rate, **constants)


def learner_from_config(
    config: Config, model: keras.Model, *, input_scale: float = 1.0, lanes: int = 2
) -> MetaLearner:
    """The learner that a configuration describes.

    Args:
        config: Supplies algorithm, inner_optimizer with its constants, weight_decay and
            outer_optimizer.
        model: Keras model, as for :class:`MetaLearner`.
        input_scale: Factor from stored examples to the model's input.
        lanes: How many evaluation tasks run side by side.
    """
    inner, outer = config.inner, config.meta.outer_optimizer
    constants = {
        "adam": {"beta_1": inner.beta_1, "beta_2": inner.beta_2, "epsilon": inner.epsilon},
        "rmsprop": {"rho": inner.rho, "momentum": inner.momentum, "epsilon": inner.epsilon},
        "sgd": {"momentum": inner.momentum},
    }[inner.inner_optimizer]
    kind = {"reptile": Reptile, "fomaml": FOMAML}[config.meta.algorithm]
    return kind(
        model,
        inner_optimizer=_optimizer(
            inner.inner_optimizer, learning_rate=inner.learning_rate, **constants
        ),
        outer_optimizer=None if outer == "interpolation" else _optimizer(outer),
        weight_decay=inner.weight_decay,
        input_scale=input_scale,
        lanes=lanes,
    )


def _optimizer(name: str, **arguments: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.get({"class_name": name, "config": arguments})


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
