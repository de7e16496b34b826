"""Fine-tuning on many tasks, each from the trained state, and predicting with the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from supervised_reptile.inner_loop import InnerLoop
from supervised_reptile.tasks import EvaluationTasks


class FineTuning:
    """Fine-tune on the tasks of one call, with separate copies of weights and slots.

    The learner's variables are only read, so nothing needs to be restored afterwards.

    Args:
        model: Keras model that holds φ.
        trained: The learner's inner loop. Every task starts from its optimizer's state.
        lanes: Number of tasks that run in parallel, at least 1.
        reset_optimizer: Whether every task starts from a new optimizer's state instead.
    """

    def __init__(
        self, model: keras.Model, trained: InnerLoop, *, lanes: int, reset_optimizer: bool
    ) -> None:
        self._model = model
        self._trained = trained
        self._lanes = [trained.twin() for _ in range(lanes)]
        self._reset_optimizer = reset_optimizer

    def predict(
        self,
        examples: tf.Variable | tf.Tensor,
        tasks: EvaluationTasks,
        transductive: Sequence[bool],
    ) -> tf.Tensor:
        """Compute the outputs for the held-out examples after fine-tuning, to be compiled.

        Args:
            examples: All stored examples, [num_examples, ...].
            tasks: The tasks, as tensors.
            transductive: The settings, as for ``MetaLearner.predict_tasks_each_way``.

        Returns:
            float32 [tasks, settings, queries, outputs].
        """

        def one_task(inner: InnerLoop, task: EvaluationTasks) -> tf.Tensor:
            inner.run(examples, task.steps)
            return tf.stack([_predict(inner, examples, task, each) for each in transductive])

        return self._for_each_task(one_task, tasks)

    def predict_after_each_step(
        self, examples: tf.Variable | tf.Tensor, tasks: EvaluationTasks
    ) -> tf.Tensor:
        """Predict transductively, before the first step and after every step.

        Returns:
            float32 [tasks, steps + 1, queries, outputs].
        """

        def one_task(inner: InnerLoop, task: EvaluationTasks) -> tf.Tensor:
            def after_step(k: tf.Tensor) -> tf.Tensor:
                inner.run(examples, task.steps.map(lambda x: x[k : k + 1]))
                return inner.predict(examples, task.queries)

            before = inner.predict(examples, task.queries)[None]
            after = tf.map_fn(
                after_step,
                tf.range(tf.shape(task.steps.indices)[0]),
                fn_output_signature=before.dtype,
                parallel_iterations=1,
            )
            return tf.concat([before, after], axis=0)

        return self._for_each_task(one_task, tasks)

    def _for_each_task(self, one_task: Callable, tasks: EvaluationTasks) -> tf.Tensor:
        """Call ``one_task(inner, task)`` for each task, from the current weights and slots."""
        phi = self._trained.fast_weights.pack([v.value for v in self._model.trainable_variables])
        stride = len(self._lanes)

        def run_lane(inner: InnerLoop, numbers: tf.Tensor) -> tf.Tensor:
            def from_start(i: tf.Tensor) -> tf.Tensor:
                inner.start_from(phi)
                inner.fast_weights.copy_optimizer_state(self._trained.fast_weights)
                if self._reset_optimizer:
                    inner.fast_weights.reset_optimizer()
                task = tasks.map(lambda x: x[i])
                inner.start_task(task.seeds)
                return one_task(inner, task)

            return tf.map_fn(
                from_start, numbers, fn_output_signature=tf.float32, parallel_iterations=1
            )

        # Tasks are independent and every lane has its own variables, so TensorFlow runs the
        # lanes in parallel.
        numbers = tf.range(tf.shape(tasks.queries)[0])
        lanes = [numbers[n::stride] for n in range(stride)]
        outputs = [run_lane(*lane) for lane in zip(self._lanes, lanes, strict=True)]
        return outputs[0] if stride == 1 else tf.dynamic_stitch(lanes, outputs)


def _predict(
    inner: InnerLoop, examples: tf.Tensor, task: EvaluationTasks, transductive: bool
) -> tf.Tensor:
    if transductive:
        return inner.predict(examples, task.queries)
    return tf.map_fn(
        lambda query: inner.predict(examples, tf.concat([task.support, query[None]], axis=0))[-1],
        task.queries,
        fn_output_signature=tf.float32,
    )
