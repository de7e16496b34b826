"""A model that fine-tunes on tasks: the base of every meta-learner."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.checks import check_inner_optimizer, check_model
from supervised_reptile.fast.staging import Staging, Tasks
from supervised_reptile.fast.weights import FastWeights
from supervised_reptile.fine_tuning import FineTuning
from supervised_reptile.inner_loop import InnerLoop
from supervised_reptile.keras_api.arguments import (
    LossLike,
    OptimizerLike,
    check_integers,
    check_numbers,
    check_switches,
    loss_of,
    optimizer_of,
)
from supervised_reptile.keras_api.copies import copy_of
from supervised_reptile.lanes import Lanes
from supervised_reptile.tasks import EvaluationTasks


class Learner:
    """A model with an inner loop, compiled for fine-tuning and prediction on many tasks.

    See ``MetaLearner`` for the arguments.
    """

    relaxes_shapes = True
    """Whether one compiled program may handle tasks of several shapes."""

    def __init__(
        self,
        model: keras.Model,
        *,
        inner_optimizer: OptimizerLike | None = None,
        loss: LossLike | None = None,
        weight_decay: float = 1.0,
        reset_optimizer: bool = False,
        input_scale: float = 1.0,
        lanes: int = 2,
        jit_compile: bool = False,
    ) -> None:
        check_numbers("in (0, 1]", lambda r: 0 < r <= 1, weight_decay=weight_decay)
        check_numbers("greater than 0", lambda scale: scale > 0, input_scale=input_scale)
        check_integers(1, lanes=lanes)
        check_switches(reset_optimizer=reset_optimizer, jit_compile=jit_compile)
        if inner_optimizer is None:
            inner_optimizer = self.default_inner_optimizer()
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
        self.model = model
        self.inner_optimizer = optimizer_of(inner_optimizer, "inner_optimizer")
        self.loss = loss_of(loss)
        check_inner_optimizer(self.inner_optimizer)
        check_model(model, self.inner_optimizer)
        self.inner_loop = InnerLoop(
            model,
            self.loss,
            FastWeights(model.trainable_variables, self.inner_optimizer),
            weight_decay=weight_decay,
            input_scale=input_scale,
        )
        self.check(weight_decay)
        if getattr(model, "inputs", None):  # else the first examples show its input shape
            self.inner_loop.rehearse(tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype))
        self._reset_optimizer = reset_optimizer
        self._staging = Staging()
        # Task shapes may differ between calls (the last group of an evaluation is smaller).
        # XLA compiles for each shape anyway.
        self._how_to_compile = {
            "reduce_retracing": self.relaxes_shapes and not jit_compile,
            "jit_compile": jit_compile or None,
        }
        fine_tuning = FineTuning(self._lanes(lanes))
        self._evaluate_tasks = tf.function(fine_tuning.predict, **self._how_to_compile)
        self._evaluate_each_step = tf.function(
            fine_tuning.predict_after_each_step, **self._how_to_compile
        )

    def __repr__(self) -> str:
        rate = float(self.inner_optimizer.learning_rate)
        return (
            f"{type(self).__name__}({self.model.name!r} of {self.model.count_params():,} weights, "
            f"inner_optimizer={type(self.inner_optimizer).__name__}({rate:g}), "
            f"loss={type(self.loss).__name__}(reduction={self.loss.reduction!r}))"
        )

    @staticmethod
    def default_inner_optimizer() -> keras.optimizers.Optimizer:
        """Return the inner optimizer to use when none is given."""
        return paper_adam()

    def check(self, weight_decay: float) -> None:
        """Raise ``ValueError`` if the algorithm does not support the inner optimizer."""

    def predict_tasks(
        self, examples: np.ndarray | tf.Variable, tasks: EvaluationTasks, *, transductive: bool
    ) -> np.ndarray:
        """Fine-tune on each task and predict its held-out examples.

        Every task starts from the current weights, slots and step count. The call changes none of
        them.

        Args:
            examples: All stored examples, [num_examples, ...], an array or a variable.
            tasks: The tasks, as drawn by ``tasks.evaluation_tasks``.
            transductive: If ``True``, the held-out examples of a task pass through the network
                together and share their batch statistics. If ``False``, each passes through with
                all training examples of the task, and only its own outputs are kept (paper,
                Sec. 6.1).

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
        """Do the same as :meth:`predict_tasks` in several settings, with a single fine-tuning.

        Args:
            examples: All stored examples, [num_examples, ...], an array or a variable.
            tasks: The tasks, as drawn by ``tasks.evaluation_tasks``.
            transductive: The settings, one or both.

        Returns:
            float32 [settings, tasks, queries, outputs].
        """
        outputs = self._evaluate_tasks(*self._brought(examples, tasks), tuple(transductive)).numpy()
        return outputs.swapaxes(0, 1)

    def predict_after_each_step(
        self, examples: np.ndarray | tf.Variable, tasks: EvaluationTasks
    ) -> np.ndarray:
        """Predict each task transductively, before the first inner step and after every step.

        Args:
            examples: All stored examples, [num_examples, ...], an array or a variable.
            tasks: The tasks, as drawn by ``tasks.evaluation_tasks``.

        Returns:
            float32 [tasks, steps + 1, queries, outputs].
        """
        return self._evaluate_each_step(*self._brought(examples, tasks)).numpy()

    # ------------------------------------------------------ with Keras

    def compiled_model(self) -> keras.Model:
        """Return a copy of the model, compiled with the loss and the inner optimizer's state.

        ``fit`` and ``train_on_batch`` fine-tune it as an evaluation does. A ``.keras`` file of it
        holds the weights and the optimizer's slots and step count.
        """
        model = copy_of(self.model)
        optimizer = self.inner_loop.fast_weights.optimizer_for(model.trainable_variables)
        model.compile(optimizer, self.loss, metrics=["accuracy"], auto_scale_loss=False)
        return model

    def take_optimizer_state(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Load the slots and step count of a model's optimizer, but not its learning rate.

        Args:
            optimizer: Optimizer of the same class as the inner optimizer, built on weights of the
                same shapes, e.g. that of a :meth:`compiled_model` or of a ``load_pretrained``
                model.

        Raises:
            ValueError: The optimizer has another class, or was built on other weights.
        """
        self.inner_loop.fast_weights.take_optimizer_state(optimizer)

    def summary(self, **arguments: object) -> None:
        """Print a description of the learner and the Keras summary of its model."""
        print(self)
        self.model.summary(**arguments)

    def _lanes(self, count: int) -> Lanes:
        return Lanes(self.model, self.inner_loop, count, reset_optimizer=self._reset_optimizer)

    def _brought(
        self, examples: np.ndarray | tf.Variable, tasks: Tasks
    ) -> tuple[tf.Variable | tf.Tensor, Tasks]:
        """Return the examples that the tasks need, on the device; see ``Staging.bring``."""
        self.inner_loop.check_tasks(examples, tasks)
        return self._staging.bring(examples, tasks)


def paper_adam(learning_rate: float = 0.001) -> keras.optimizers.Adam:
    """Return the paper's inner optimizer, Adam with β1 = 0, β2 = 0.999, ε = 1e-8 (appendix A).

    Keras' own default ε is 1e-7.
    """
    return keras.optimizers.Adam(learning_rate, beta_1=0.0, beta_2=0.999, epsilon=1e-8)
