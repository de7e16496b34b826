"""Fine-tuning on many tasks, each from where the training stands, and predicting with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from supervised_reptile.inner_loop import InnerLoop


class FineTuning:
    """What evaluation does with the tasks of one call, on weights and slots of its own.

    So there is nothing to restore afterwards: the learner's variables are only read.

    Args:
        model: Keras model that holds φ.
        trained: The learner's inner loop, whose optimizer's state every task starts from.
        lanes: How many tasks run side by side, at least 1.
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
        steps: tuple[tf.Tensor, tf.Tensor],
        support: tf.Tensor,
        queries: tf.Tensor,
        transductive: Sequence[bool],
    ) -> tf.Tensor:
        """Outputs for the held-out examples after fine-tuning, to be compiled.

        Args:
            examples: All stored examples, [num_examples, ...].
            steps: Rows [tasks, steps, batch] and labels [tasks, steps, batch, ...].
            support: Rows int32 [tasks, examples].
            queries: Rows int32 [tasks, queries].
            transductive: The settings, as for ``MetaLearner.predict_tasks_each_way``.

        Returns:
            float32 [tasks, settings, queries, outputs].
        """

        def one_task(inner: InnerLoop, i: tf.Tensor) -> tf.Tensor:
            inner.run(examples, steps[0][i], steps[1][i])
            task = support[i], queries[i]
            return tf.stack([self._predict(inner, examples, *task, t) for t in transductive])

        return self._for_each_task(one_task, tf.shape(queries)[0])

    def predict_after_each_step(
        self,
        examples: tf.Variable | tf.Tensor,
        steps: tuple[tf.Tensor, tf.Tensor],
        queries: tf.Tensor,
    ) -> tf.Tensor:
        """As :meth:`predict`, transductively, before the first step and after each.

        Returns:
            float32 [tasks, steps + 1, queries, outputs].
        """

        def one_task(inner: InnerLoop, i: tf.Tensor) -> tf.Tensor:
            def after_step(k: tf.Tensor) -> tf.Tensor:
                inner.run(examples, steps[0][i][k : k + 1], steps[1][i][k : k + 1])
                return inner.predict(examples, queries[i])

            before = inner.predict(examples, queries[i])[None]
            numbers = tf.range(tf.shape(steps[0])[1])
            after = tf.map_fn(
                after_step, numbers, fn_output_signature=before.dtype, parallel_iterations=1
            )
            return tf.concat([before, after], axis=0)

        return self._for_each_task(one_task, tf.shape(queries)[0])

    def _for_each_task(self, one_task: Callable, num_tasks: tf.Tensor) -> tf.Tensor:
        """``one_task(inner, i)`` for each i, each from the weights and slots as they are now."""
        start = self._trained.fast_weights.pack([v.value for v in self._model.trainable_variables])
        stride = len(self._lanes)

        def run_lane(inner: InnerLoop, mine: tf.Tensor) -> tf.Tensor:
            def from_start(i: tf.Tensor) -> tf.Tensor:
                inner.fast_weights.load(start)
                inner.fast_weights.copy_optimizer_state(self._trained.fast_weights)
                if self._reset_optimizer:
                    inner.fast_weights.reset_optimizer()
                return one_task(inner, i)

            return tf.map_fn(
                from_start, mine, fn_output_signature=tf.float32, parallel_iterations=1
            )

        # Tasks are independent and every lane has its own variables, so TensorFlow runs the
        # lanes side by side.
        numbers = tf.range(num_tasks)
        lanes = [numbers[n::stride] for n in range(stride)]
        outputs = [run_lane(*lane) for lane in zip(self._lanes, lanes, strict=True)]
        return outputs[0] if stride == 1 else tf.dynamic_stitch(lanes, outputs)

    @staticmethod
    def _predict(inner: InnerLoop, examples, support, queries, transductive) -> tf.Tensor:
        if transductive:
            return inner.predict(examples, queries)
        return tf.map_fn(
            lambda query: inner.predict(examples, tf.concat([support, query[None]], axis=0))[-1],
            queries,
            fn_output_signature=tf.float32,
        )
