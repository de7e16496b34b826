"""Fine-tuning on many tasks, each from the trained state, and predicting with the result."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from supervised_reptile.inner_loop import InnerLoop
from supervised_reptile.lanes import Lanes
from supervised_reptile.tasks import EvaluationTasks


class FineTuning:
    """Fine-tune on the tasks of one call, with separate copies of weights and slots.

    The learner's variables are only read, so nothing needs to be restored afterwards.

    Args:
        lanes: The tasks that run in parallel.
    """

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

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

        return self._lanes.map(one_task, tasks)

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

        return self._lanes.map(one_task, tasks)


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
