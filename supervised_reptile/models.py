"""The paper's networks, built from stock Keras layers, and how the learner runs them fast."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.config import Config
from supervised_reptile.config.paper import dataset_facts

NORMALIZATION_EPSILON = 1e-3


def batch_statistics_normalization(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    r"""Batch normalization by the statistics of the batch at hand, whatever ``training`` says.

    .. math:: y = \gamma (x - \mathrm{mean}(x)) / \sqrt{\mathrm{var}(x) + \epsilon} + \beta

    with mean and (biased) variance over batch, height and width of each channel. The paper
    normalises this way in training *and* in evaluation (Sec. 6.1, "transductive" setting), so
    there are no moving averages here at all.

    Stock ``BatchNormalization`` cannot express that in Keras 3: ``model.predict`` and
    ``model(x, training=False)`` override the ``training=True`` it was built with. Laying the whole
    batch out as *one* sample and normalising it with one channel a group is the same arithmetic
    from stock layers, so a saved model needs no custom object and has one behaviour only.

    Args:
        x: Symbolic float tensor [batch, height, width, channels] with static height, width and
            channels.
        name: Name of the normalization layer, which owns γ (ones) and β (zeros), each
            float32 [channels].

    Returns:
        Tensor of the shape of ``x``.
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
    """The Omniglot classifier of the paper (Sec. 6.1), which is that of Finn et al. (2017).

    Four blocks of 3×3 convolution with stride 2, SAME padding and bias → batch normalization
    (:func:`batch_statistics_normalization`) → ReLU; then a dense layer.

    Args:
        num_classes: Number of classes N of a task, at least 1.
        filters: Channels of each convolution; the paper uses 64.
        image_size: Height and width of the input in pixels; the paper uses 28.
        seed: Seed of the Glorot-uniform kernels; ``None`` draws them anew each time.

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
    """The Mini-ImageNet classifier of the paper (Sec. 6.1), which is that of Finn et al. (2017).

    Four blocks of 3×3 convolution with stride 1, SAME padding and bias → batch normalization
    (:func:`batch_statistics_normalization`) → 2×2 max-pooling with stride 2 and SAME padding
    (84 → 42 → 21 → 11 → 6) → ReLU; then a dense layer.

    Args:
        num_classes: Number of classes N of a task, at least 1.
        filters: Channels of each convolution; the paper uses 32.
        image_size: Height and width of the input in pixels; the paper uses 84.
        seed: Seed of the Glorot-uniform kernels; ``None`` draws them anew each time.

    Returns:
        Keras model from float32 [batch, image_size, image_size, 3] in [0, 1] to logits
        float32 [batch, num_classes].
    """
    seeds = _layer_seeds(seed)
    inputs = x = keras.Input((image_size, image_size, 3), name="images")
    for block in range(4):
        x = _convolution(filters, strides=1, seed=seeds[block], name=f"conv{block + 1}")(x)
        x = batch_statistics_normalization(x, name=f"norm{block + 1}")
        x = keras.layers.MaxPooling2D(2, strides=2, padding="same", name=f"pool{block + 1}")(x)
        x = keras.layers.ReLU(name=f"relu{block + 1}")(x)
    return _classifier(inputs, x, num_classes, seeds[-1], name="miniimagenet")


def model_from_config(config: Config, num_classes: int | None = None) -> keras.Model:
    """The network that a configuration describes, with weights drawn by its seed.

    Args:
        config: Supplies dataset (which says which of the paper's two networks), classes, filters,
            image_size, freeze and seed.
        num_classes: Number of classes where it is not that of the configuration's tasks.
    """
    build = {"omniglot": omniglot_model, "miniimagenet": miniimagenet_model}
    task, network = config.task, config.model
    model = build[dataset_facts(task.dataset).network](
        num_classes or task.classes,
        filters=network.filters,
        image_size=network.image_size,
        seed=config.seed,
    )
    for block in range(1, network.freeze + 1):
        for layer in (f"conv{block}", f"norm{block}"):
            model.get_layer(layer).trainable = False
    return model


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Keras builds networks and optimizers in float64 meanwhile, to check those in float32."""
    usual, usual_policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(usual)
        keras.config.set_dtype_policy(usual_policy)


def _convolution(filters: int, *, strides: int, seed: int | None, name: str) -> keras.Layer:
    return keras.layers.Conv2D(
        filters,
        3,
        strides=strides,
        padding="same",
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        name=name,
    )


def _classifier(
    inputs: keras.KerasTensor, features: keras.KerasTensor, num_classes: int, seed: int, name: str
) -> keras.Model:
    x = keras.layers.Flatten(name="flatten")(features)
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=keras.initializers.GlorotUniform(seed=seed), name="logits"
    )(x)
    return keras.Model(inputs, logits, name=name)


def _layer_seeds(seed: int | None) -> Sequence[int | None]:
    if seed is None:
        return [None] * 5
    # A spawned sequence, so that weights and tasks of one seed have no numbers in common.
    return [int(s) for s in np.random.SeedSequence(seed).spawn(1)[0].generate_state(5)]


class _FusedBatchStatistics(keras.Layer):
    """One-kernel form of a ``GroupNormalization`` that normalises a whole batch by channel.

    Used inside the learner only, never saved: it shares γ and β with the stock layer it stands
    for, and differs from it by float32 rounding alone.
    """

    def __init__(self, normalization: keras.layers.GroupNormalization) -> None:
        super().__init__(name=f"fused_{normalization.name}")
        self.normalization = normalization
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalise float32 [1, positions, channels] by channel."""
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.expand_dims(x, 2),  # NHWC with width 1
            scale=tf.convert_to_tensor(self.normalization.gamma),
            offset=tf.convert_to_tensor(self.normalization.beta),
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.normalization.epsilon,
            is_training=True,  # use the batch's statistics; the running ones are not asked for
        )
        return tf.squeeze(y, 2)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Same shape out as in."""
        return input_shape


class _ConvolutionWithoutBias(keras.Layer):
    """A convolution that leaves out its bias, where what follows would take it out again."""

    def __init__(self, convolution: keras.layers.Conv2D) -> None:
        super().__init__(name=f"{convolution.name}_without_bias")
        self.convolution = convolution
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Convolve float32 [batch, height, width, channels]."""
        kernel = tf.convert_to_tensor(self.convolution.kernel)
        return self.convolution.convolution_op(x, kernel)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """As the convolution's."""
        return self.convolution.compute_output_shape(input_shape)


def fused_for_training(model: keras.Model) -> keras.Model:
    """The same function on the same variables, in fewer and faster operations.

    Stock ``GroupNormalization`` runs as some ten small operations (and twice as many in the
    gradient); where it stands for :func:`batch_statistics_normalization` TensorFlow's fused
    kernel does the same arithmetic in one, on CPU and GPU.

    A bias just before it has no effect, as subtracting the mean takes any constant out again. It
    is left out here, and so its gradient is the exact 0. (Computed, it would be rounding noise,
    which Adam with ε = 1e-8 blows up to steps of the learning rate: in the authors' program these
    biases wander about, without any effect on the outputs.)

    Args:
        model: Any Keras model. Only functional models can be rewritten; others come back as
            they are.

    Returns:
        A model that shares every variable with ``model``, in the same order.
    """
    if isinstance(model, keras.Sequential) or not hasattr(model, "operations"):
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
    if any(ours is not theirs for ours, theirs in shared):
        raise RuntimeError("the fused model must list the variables of the model in its order")
    return fused


def _rebuilt(model: keras.Model, call: Callable) -> keras.Model:
    """The model on the same layers, with ``call(layer, *args, **kwargs)`` for every call."""
    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def convolutions_whose_bias_has_no_effect(model: keras.Model) -> list[keras.layers.Conv2D]:
    """Those called once, with no activation, whose output goes into batch statistics alone.

    Args:
        model: Functional model.

    Returns:
        The layers, whose biases batch normalization takes out again: their exact gradient is 0.
    """
    calls, uses = [], collections.Counter()

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
                isinstance(before, keras.layers.Conv2D)
                and before.use_bias
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
    """Whether a call only reshapes what stands before the channels."""
    return type(layer).__name__ == "Reshape" and x.shape[-1] == y.shape[-1]


def _normalizes_whole_batch_by_channel(layer: keras.Operation, x: keras.KerasTensor) -> bool:
    """Whether this call is exactly batch normalization over all positions of one sample."""
    return (
        isinstance(layer, keras.layers.GroupNormalization)
        and layer.scale
        and layer.center
        and len(x.shape) == 3
        and x.shape[0] == 1
        and layer.groups == x.shape[-1]
        and layer.axis in (-1, 2)
    )
