"""The paper's networks, built from stock Keras layers."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

NORMALIZATION_EPSILON = 1e-3


def batch_statistics_normalization(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    r"""Batch normalization by the statistics of the current batch, whatever ``training`` is.

    .. math:: y = \gamma (x - \mathrm{mean}(x)) / \sqrt{\mathrm{var}(x) + \epsilon} + \beta

    with the mean and (biased) variance of each channel over batch, height and width. The paper
    normalizes this way in training *and* in evaluation (Sec. 6.1, "transductive" setting), so
    there are no moving averages.

    The ``BatchNormalization`` of Keras 3 cannot express this: ``model.predict`` and
    ``model(x, training=False)`` override the ``training=True`` that it was built with. Reshaping
    the whole batch to *one* sample and applying ``GroupNormalization`` with one channel per group
    is the same arithmetic in stock layers. A saved model therefore needs no custom objects and
    behaves the same however it is called.

    Args:
        x: Symbolic float tensor [batch, height, width, channels] with static height, width and
            channels.
        name: Name of the normalization layer, which owns γ (ones) and β (zeros), each
            float32 [channels].

    Returns:
        Tensor of the same shape as ``x``.
    """
    height, width, channels = x.shape[1:]
    one_sample = keras.ops.reshape(x, (1, -1, channels))
    one_sample = keras.layers.GroupNormalization(
        groups=channels, axis=-1, epsilon=NORMALIZATION_EPSILON, name=name
    )(one_sample)
    return keras.ops.reshape(one_sample, (-1, height, width, channels))


def omniglot_model(
    num_classes: int, *, filters: int = 64, image_size: int = 28, seed: int | None = None
) -> keras.Model:
    """Build the Omniglot classifier of the paper (Sec. 6.1), that of Finn et al. (2017).

    Four blocks of 3×3 convolution with stride 2, SAME padding and bias → batch normalization
    (:func:`batch_statistics_normalization`) → ReLU, then a dense layer.

    Args:
        num_classes: Number of classes N in a task, at least 1.
        filters: Number of channels of each convolution; the paper uses 64.
        image_size: Height and width of the input in pixels; the paper uses 28.
        seed: Seed of the Glorot-uniform kernels; ``None`` draws new ones each time.

    Returns:
        Keras model from float32 [batch, image_size, image_size, 1] in [0, 1] to logits
        float32 [batch, num_classes].

    Example:
        >>> omniglot_model(5).output_shape
        (None, 5)
    """
    seeds = _layer_seeds(seed)
    inputs = x = keras.Input((image_size, image_size, 1), name="images")
    for block in range(4):
        x = _convolution(filters, strides=2, seed=seeds[block], name=f"conv{block + 1}")(x)
        x = batch_statistics_normalization(x, name=f"norm{block + 1}")
        x = keras.layers.ReLU(name=f"relu{block + 1}")(x)
    return _classifier(inputs, x, num_classes, seeds[-1], name="omniglot")


def miniimagenet_model(
    num_classes: int, *, filters: int = 32, image_size: int = 84, seed: int | None = None
) -> keras.Model:
    """Build the Mini-ImageNet classifier of the paper (Sec. 6.1), that of Finn et al. (2017).

    Four blocks of 3×3 convolution with stride 1, SAME padding and bias → batch normalization
    (:func:`batch_statistics_normalization`) → 2×2 max-pooling with stride 2 and SAME padding
    (84 → 42 → 21 → 11 → 6) → ReLU, then a dense layer.

    Args:
        num_classes: Number of classes N in a task, at least 1.
        filters: Number of channels of each convolution; the paper uses 32.
        image_size: Height and width of the input in pixels; the paper uses 84.
        seed: Seed of the Glorot-uniform kernels; ``None`` draws new ones each time.

    Returns:
        Keras model from float32 [batch, image_size, image_size, 3] in [0, 1] to logits
        float32 [batch, num_classes].
    """
    seeds = _layer_seeds(seed)
    inputs = x = keras.Input((image_size, image_size, 3), name="images")
    for block in range(4):
        x = _convolution(filters, strides=1, seed=seeds[block], name=f"conv{block + 1}")(x)
        x = batch_statistics_normalization(x, name=f"norm{block + 1}")
        x = keras.layers.MaxPooling2D(
            2, strides=2, padding="same", data_format="channels_last", name=f"pool{block + 1}"
        )(x)
        x = keras.layers.ReLU(name=f"relu{block + 1}")(x)
    return _classifier(inputs, x, num_classes, seeds[-1], name="miniimagenet")


def _convolution(filters: int, *, strides: int, seed: int | None, name: str) -> keras.Layer:
    return keras.layers.Conv2D(
        filters,
        3,
        strides=strides,
        padding="same",
        data_format="channels_last",  # not what keras.config says: this is the paper's network
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        name=name,
    )


def _classifier(
    inputs: keras.KerasTensor,
    features: keras.KerasTensor,
    num_classes: int,
    seed: int | None,
    name: str,
) -> keras.Model:
    x = keras.layers.Flatten("channels_last", name="flatten")(features)
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=keras.initializers.GlorotUniform(seed=seed), name="logits"
    )(x)
    return keras.Model(inputs, logits, name=name)


def _layer_seeds(seed: int | None) -> Sequence[int | None]:
    if seed is None:
        return [None] * 5
    # A spawned sequence, so that weights and tasks of the same seed are independent.
    return [int(s) for s in np.random.SeedSequence(seed).spawn(1)[0].generate_state(5)]
