"""The fused form of a network: the same function in fewer and faster operations."""

from __future__ import annotations

import collections
from collections.abc import Callable

import keras
import tensorflow as tf


class _FusedBatchStatistics(keras.Layer):
    """One-kernel form of a ``GroupNormalization`` that normalizes a whole batch by channel.

    The learner uses it internally and never saves it. It shares γ and β with the stock layer that
    it replaces, and its result differs only by float32 rounding.
    """

    def __init__(self, normalization: keras.layers.GroupNormalization) -> None:
        super().__init__(name=f"fused_{normalization.name}", dtype=normalization.dtype_policy)
        self.normalization = normalization
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalize [1, positions, channels] by channel, in float32 as the stock layer does."""
        gamma, beta = (
            tf.cast(tf.convert_to_tensor(v), tf.float32)
            for v in (self.normalization.gamma, self.normalization.beta)
        )
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(tf.expand_dims(x, 2), tf.float32),  # NHWC with width 1
            scale=gamma,
            offset=beta,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.normalization.epsilon,
            is_training=True,  # use the batch's statistics, not running ones
        )
        return tf.cast(tf.squeeze(y, 2), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the input shape."""
        return input_shape


class _ConvolutionWithoutBias(keras.Layer):
    """A convolution without its bias, for use where the next layer would cancel it."""

    def __init__(self, convolution: keras.layers.Conv2D) -> None:
        name = f"{convolution.name}_without_bias"
        super().__init__(name=name, dtype=convolution.dtype_policy)
        self.convolution = convolution
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Convolve float32 [batch, height, width, channels]."""
        kernel = tf.convert_to_tensor(self.convolution.kernel)
        return self.convolution.convolution_op(x, kernel)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the output shape of the convolution."""
        return self.convolution.compute_output_shape(input_shape)


def fused_for_training(model: keras.Model) -> keras.Model:
    """Return the same function on the same variables, in fewer and faster operations.

    ``GroupNormalization`` runs as about ten small operations, and twice as many in the gradient.
    Where it implements :func:`batch_statistics_normalization`, TensorFlow's fused kernel does the
    same arithmetic in one operation, on CPU and GPU.

    A bias directly before it has no effect, because subtracting the mean cancels any constant.
    Such biases are left out, so their gradient is exactly 0. (A computed gradient would be rounding
    noise, which Adam with ε = 1e-8 amplifies to steps of the size of the learning rate. In the
    authors' program these biases drift, without any effect on the outputs.)

    Args:
        model: Any Keras model. Only functional models can be rewritten; others are returned
            unchanged.

    Returns:
        A model that shares every variable with ``model``, in the same order.
    """
    if not _is_plainly_functional(model) or not any(
        type(layer) is keras.layers.GroupNormalization for layer in model.layers
    ):
        return model
    without_bias = convolutions_whose_bias_has_no_effect(model)

    def fuse(layer: keras.Operation, *args, **kwargs):
        if layer in without_bias:
            return _ConvolutionWithoutBias(layer)(args[0])
        if _normalizes_whole_batch_by_channel(layer, args[0] if args else None):
            return _FusedBatchStatistics(layer)(args[0])
        return layer(*args, **kwargs)

    fused = _rebuilt(model, fuse)
    shared = zip(fused.trainable_variables, model.trainable_variables, strict=True)
    return fused if all(ours is theirs for ours, theirs in shared) else model


def _is_plainly_functional(model: keras.Model) -> bool:
    """Whether the model is its graph of layers, without a custom ``call`` or ``train_step``."""
    return type(model).__name__ == "Functional" and type(model).__module__.startswith("keras.")


def _rebuilt(model: keras.Model, call: Callable) -> keras.Model:
    """Rebuild the model on the same layers, with ``call(layer, *args, **kwargs)`` for each."""
    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def convolutions_whose_bias_has_no_effect(model: keras.Model) -> list[keras.layers.Conv2D]:
    """Find convolutions whose bias is cancelled by the batch normalization after them.

    They are called once and have no activation, and only the normalization uses their output.

    Args:
        model: Functional model.

    Returns:
        The layers. The exact gradient of their biases is 0.
    """
    calls = []
    uses: collections.Counter[int] = collections.Counter()

    def record(layer: keras.Operation, *args, **kwargs):
        output = layer(*args, **kwargs)
        calls.append((layer, args, output))
        uses.update(id(tensor) for tensor in keras.tree.flatten((args, kwargs)))
        return output

    uses.update(id(tensor) for tensor in _rebuilt(model, record).outputs)
    producer = {id(output): (layer, args) for layer, args, output in calls}
    found = []
    for layer, args, _ in calls:
        if not _normalizes_whole_batch_by_channel(layer, args[0] if args else None):
            continue
        tensor = args[0]
        while id(tensor) in producer and uses[id(tensor)] == 1:
            before, inputs = producer[id(tensor)]
            if _keeps_channels_last(before, inputs[0], tensor):
                tensor = inputs[0]
                continue
            if (
                type(before) is keras.layers.Conv2D
                and before.use_bias
                and before.activity_regularizer is None
                and before.activation is keras.activations.linear
                and before.data_format == "channels_last"
                and sum(each is before for each, _, _ in calls) == 1
            ):
                found.append(before)
            break
    return found


def _keeps_channels_last(
    layer: keras.Operation, x: keras.KerasTensor, y: keras.KerasTensor
) -> bool:
    """Whether a call only reshapes the axes before the channels."""
    return type(layer).__name__ == "Reshape" and x.shape[-1] == y.shape[-1]


def _normalizes_whole_batch_by_channel(layer: keras.Operation, x: keras.KerasTensor) -> bool:
    """Whether this call is exactly batch normalization over all positions of one sample."""
    return (
        type(layer) is keras.layers.GroupNormalization
        and layer.activity_regularizer is None
        and layer.scale
        and layer.center
        and len(x.shape) == 3
        and x.shape[0] == 1
        and layer.groups == x.shape[-1]
        and layer.axis in (-1, 2)
    )
