"""The single-kernel form of an optimizer step in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf


def fused_update(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> Callable[[Sequence[tf.Tensor]], None] | None:
    """Return TensorFlow's single-kernel form of ``optimizer.apply``, or ``None`` if there is none.

    It updates the optimizer's own slots and step count, so both forms leave the same state.
    """
    decorated = (
        optimizer.clipnorm is not None
        or optimizer.clipvalue is not None
        or optimizer.global_clipnorm is not None
        or optimizer.weight_decay is not None
        or optimizer.use_ema
        or optimizer.gradient_accumulation_steps is not None
        or optimizer.loss_scale_factor is not None
    )
    if decorated or len(variables) != 1:
        return None
    (variable,) = variables

    def learning_rate() -> tf.Tensor:
        return tf.convert_to_tensor(optimizer.learning_rate)

    if type(optimizer) is keras.optimizers.SGD and optimizer.momentum == 0:

        def gradient_descent(gradients: Sequence[tf.Tensor]) -> None:
            tf.raw_ops.ResourceApplyGradientDescent(
                var=variable.value.handle, alpha=learning_rate(), delta=gradients[0]
            )
            optimizer.iterations.value.assign_add(1)

        return gradient_descent

    if type(optimizer) is keras.optimizers.Adam and not optimizer.amsgrad:
        # In `variables`, the step count and, unless it follows a schedule, the learning rate come
        # first, and the slots last.
        *_, momentum, velocity = optimizer.variables

        def adam(gradients: Sequence[tf.Tensor]) -> None:
            step = tf.cast(optimizer.iterations.value + 1, tf.float32)
            # var −= lr·√(1−β2^t)/(1−β1^t) · m/(√v + ε), as in keras.optimizers.Adam.
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=momentum.value.handle,
                v=velocity.value.handle,
                beta1_power=tf.pow(tf.constant(optimizer.beta_1, tf.float32), step),
                beta2_power=tf.pow(tf.constant(optimizer.beta_2, tf.float32), step),
                lr=learning_rate(),
                beta1=optimizer.beta_1,
                beta2=optimizer.beta_2,
                epsilon=optimizer.epsilon,
                grad=gradients[0],
            )
            optimizer.iterations.value.assign_add(1)

        return adam
    return None
