"""What works with the learners: Keras' layers, optimizers, regularizers and constraints.

Each case takes three inner steps of a learner and three of Keras' own ``train_on_batch`` on the
same mini-batches with the same random numbers. ``python docs/what_works.py`` runs all of them and
writes the tables into ``docs/any-model.md``; ``tests/test_any_model.py`` holds the learners to
them.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.reptile import Reptile
from supervised_reptile.tasks import MiniBatches, TrainingTasks

L, O = keras.layers, keras.optimizers  # noqa: E741
PAGE = Path(__file__).with_name("any-model.md")
BEGIN, END = "<!-- tables: python docs/what_works.py -->", "<!-- end of the tables -->"
EQUAL, REFUSED = "as in Keras", "refused"
SEED = np.array([[3, 5]], np.int32)
VECTOR, SEQUENCE, IMAGE, VOLUME = (6,), (5, 4), (8, 8, 3), (4, 4, 4, 2)
FILMS, SOUND, WORDS = (2, 6, 6, 2), (256, 1), (5,)


def sgd() -> O.Optimizer:
    """The optimizer of the cases that are about something else."""
    return O.SGD(0.05)


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to try.

    Attributes:
        build: Makes the model.
        shape: Shape of one input.
        optimizer: Makes the inner optimizer.
        loss: Loss, as for ``compile``.
        outcome: What must come out: :data:`EQUAL` or :data:`REFUSED`.
        integers: Whether the inputs are integers 0 … 9 rather than numbers in 0 … 1.
        rounding: By how much of the way that they move the weights may differ.
    """

    build: Callable[[], keras.Model]
    shape: tuple[int, ...] = VECTOR
    optimizer: Callable[[], O.Optimizer] = sgd
    loss: object = None
    outcome: str = EQUAL
    integers: bool = False
    rounding: float = 1e-3


def head(x: keras.KerasTensor) -> keras.KerasTensor:
    """Logits of three classes from features of any shape."""
    return L.Dense(3)(L.Flatten()(x) if len(x.shape) > 2 else x)


def after(layer: Callable, shape: tuple[int, ...], *, mix: bool = True, **options) -> Case:
    """A layer between two that learn; with ``mix=False`` right at the input.

    A layer that gets a gradient wrong shows in the weights before it.
    """

    def build() -> keras.Model:
        inputs = x = keras.Input(shape)
        if mix:
            x = L.Dense(shape[-1], activation="tanh")(x)
        return keras.Model(inputs, head(layer()(x)))

    return Case(build, shape, **options)


def merged(merge: Callable, shape: tuple[int, ...] = VECTOR) -> Case:
    """A layer of two inputs, each of which learns."""

    def build() -> keras.Model:
        inputs = keras.Input(shape)
        both = [L.Dense(4, activation=name)(inputs) for name in ("tanh", "relu")]
        return keras.Model(inputs, head(merge(both)))

    return Case(build, shape)


def first(layer: Callable, shape: tuple[int, ...] = WORDS, **options) -> Case:
    """A layer of integers, right at the input."""

    def build() -> keras.Model:
        inputs = keras.Input(shape, dtype="int32")
        return keras.Model(inputs, head(keras.ops.cast(layer()(inputs), "float32")))

    return Case(build, shape, integers=True, **options)


def image(name: str, **arguments) -> Case:
    """A layer that prepares images."""
    return after(lambda: getattr(L, name)(**arguments), IMAGE, mix=False)


def net(*layers: Callable, **options) -> Case:
    """A chain of layers on vectors."""
    return Case(
        lambda: keras.Sequential([keras.Input(VECTOR), *(each() for each in layers)]), **options
    )


def network() -> keras.Model:
    """The model of the cases that are about the optimizer: weights of three shapes."""
    return keras.Sequential(
        [keras.Input(VECTOR), L.Dense(6, "tanh"), L.Dense(6, "tanh"), L.Dense(3)]
    )


def with_optimizer(make: Callable, **options) -> Case:
    """An optimizer on :func:`network`."""
    return Case(network, optimizer=make, **options)


def _frozen(layer: keras.Layer) -> keras.Layer:
    layer.trainable = False
    return layer


class _Hidden(L.Layer):
    """A layer that holds another, which no list of the model's layers shows."""

    def __init__(self, inner: keras.Layer) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.inner(x, training=training)


class _AddsLoss(L.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        self.add_loss(0.1 * keras.ops.sum(keras.ops.square(x)))
        return x


class _Draws(L.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.seed = keras.random.SeedGenerator()

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * keras.random.uniform((), seed=self.seed)


LAYERS: dict[str, dict[str, Case]] = {
    "Core": {
        "Dense": after(lambda: L.Dense(4), VECTOR),
        "EinsumDense": after(lambda: L.EinsumDense("abc,cd->abd", (5, 4)), SEQUENCE),
        "Embedding": first(lambda: L.Embedding(10, 4)),
        "ReversibleEmbedding": first(lambda: L.ReversibleEmbedding(10, 4)),
        "Identity": after(L.Identity, VECTOR),
        "Lambda": after(lambda: L.Lambda(lambda x: x * 2), VECTOR),
        "Masking": Case(
            lambda: keras.Sequential(
                [keras.Input(SEQUENCE), L.Masking(0.5), L.LSTM(4), L.Dense(3)]
            ),
            SEQUENCE,
        ),
        "Activation": after(lambda: L.Activation("gelu"), VECTOR),
        "ELU": after(L.ELU, VECTOR),
        "LeakyReLU": after(L.LeakyReLU, VECTOR),
        "PReLU": after(L.PReLU, VECTOR),
        "ReLU": after(L.ReLU, VECTOR),
        "Softmax": after(L.Softmax, VECTOR),
    },
    "Convolution": {
        "Conv1D": after(lambda: L.Conv1D(3, 2), SEQUENCE),
        "Conv2D": after(lambda: L.Conv2D(3, 2), IMAGE),
        "Conv3D": after(lambda: L.Conv3D(3, 2), VOLUME),
        "Conv1DTranspose": after(lambda: L.Conv1DTranspose(3, 2), SEQUENCE),
        "Conv2DTranspose": after(lambda: L.Conv2DTranspose(3, 2), IMAGE),
        "Conv3DTranspose": after(lambda: L.Conv3DTranspose(3, 2), VOLUME),
        "DepthwiseConv1D": after(lambda: L.DepthwiseConv1D(2), SEQUENCE),
        "DepthwiseConv2D": after(lambda: L.DepthwiseConv2D(2), IMAGE),
        "SeparableConv1D": after(lambda: L.SeparableConv1D(3, 2), SEQUENCE),
        "SeparableConv2D": after(lambda: L.SeparableConv2D(3, 2), IMAGE),
    },
    "Pooling": {
        **{
            f"{kind}Pooling{n}D": after(
                lambda kind=kind, n=n: getattr(L, f"{kind}Pooling{n}D")(2), shape
            )
            for kind in ("Average", "Max", "AdaptiveAverage", "AdaptiveMax")
            for n, shape in ((1, SEQUENCE), (2, IMAGE), (3, VOLUME))
        },
        **{
            f"Global{kind}Pooling{n}D": after(
                lambda kind=kind, n=n: getattr(L, f"Global{kind}Pooling{n}D")(), shape
            )
            for kind in ("Average", "Max")
            for n, shape in ((1, SEQUENCE), (2, IMAGE), (3, VOLUME))
        },
    },
    "Shape": {
        **{
            f"{kind}{n}D": after(lambda kind=kind, n=n: getattr(L, f"{kind}{n}D")(1), shape)
            for kind in ("Cropping", "ZeroPadding", "UpSampling")
            for n, shape in ((1, SEQUENCE), (2, IMAGE), (3, VOLUME))
        },
        "Flatten": after(L.Flatten, SEQUENCE),
        "Permute": after(lambda: L.Permute((2, 1)), SEQUENCE),
        "RepeatVector": after(lambda: L.RepeatVector(2), VECTOR),
        "Reshape": after(lambda: L.Reshape((2, 3)), VECTOR),
    },
    "Merging": {
        **{
            name: merged(lambda both, name=name: getattr(L, name)()(both))
            for name in (
                *("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"),
            )
        },
        "Dot": merged(lambda both: L.Dot(1)(both)),
    },
    "Attention": {
        "Attention": merged(lambda both: L.Attention(use_scale=True)(both), SEQUENCE),
        "AdditiveAttention": merged(lambda both: L.AdditiveAttention()(both), SEQUENCE),
        "MultiHeadAttention": merged(
            lambda both: L.MultiHeadAttention(2, 3, dropout=0.3)(*both), SEQUENCE
        ),
        "GroupQueryAttention": merged(lambda both: L.GroupQueryAttention(3, 2, 1)(*both), SEQUENCE),
    },
    "Recurrent": {
        "SimpleRNN": after(lambda: L.SimpleRNN(3, dropout=0.3), SEQUENCE),
        "GRU": after(lambda: L.GRU(3, dropout=0.3, recurrent_dropout=0.2), SEQUENCE),
        "LSTM": after(lambda: L.LSTM(3, dropout=0.3, return_sequences=True), SEQUENCE),
        "LSTM(stateful=True)": Case(
            lambda: keras.Sequential(
                [keras.Input(SEQUENCE, batch_size=4), L.LSTM(3, stateful=True), L.Dense(3)]
            ),
            SEQUENCE,
            outcome=REFUSED,
        ),
        "RNN with LSTMCell": after(lambda: L.RNN(L.LSTMCell(3)), SEQUENCE),
        "RNN with StackedRNNCells of GRUCell, SimpleRNNCell": after(
            lambda: L.RNN(L.StackedRNNCells([L.GRUCell(3), L.SimpleRNNCell(2)])), SEQUENCE
        ),
        "Bidirectional": after(lambda: L.Bidirectional(L.GRU(3)), SEQUENCE),
        "TimeDistributed": after(lambda: L.TimeDistributed(L.Dense(3)), SEQUENCE),
        "ConvLSTM1D": after(lambda: L.ConvLSTM1D(2, 2), (2, 5, 3)),
        "ConvLSTM2D": after(lambda: L.ConvLSTM2D(2, 2), FILMS),
        "ConvLSTM3D": after(lambda: L.ConvLSTM3D(2, 2), (2, *VOLUME)),
    },
    "Normalization": {
        "GroupNormalization": after(lambda: L.GroupNormalization(3), VECTOR),
        "LayerNormalization": after(L.LayerNormalization, VECTOR),
        "RMSNormalization": after(L.RMSNormalization, VECTOR),
        "UnitNormalization": after(L.UnitNormalization, VECTOR),
        "BatchNormalization": after(L.BatchNormalization, VECTOR, outcome=REFUSED),
        "BatchNormalization, frozen": after(lambda: _frozen(L.BatchNormalization()), VECTOR),
        "BatchNormalization in a layer of one's own": after(
            lambda: _Hidden(L.BatchNormalization()), VECTOR, outcome=REFUSED
        ),
        "BatchNormalization in TimeDistributed": after(
            lambda: L.TimeDistributed(L.BatchNormalization()), SEQUENCE, outcome=REFUSED
        ),
        "SpectralNormalization": after(
            lambda: L.SpectralNormalization(L.Dense(4)), VECTOR, outcome=REFUSED
        ),
    },
    "Random and added losses": {
        "Dropout": after(lambda: L.Dropout(0.4), VECTOR),
        "AlphaDropout": after(lambda: L.AlphaDropout(0.4), VECTOR),
        "GaussianDropout": after(lambda: L.GaussianDropout(0.4), VECTOR),
        "GaussianNoise": after(lambda: L.GaussianNoise(0.4), VECTOR),
        "SpatialDropout1D": after(lambda: L.SpatialDropout1D(0.4), SEQUENCE),
        "SpatialDropout2D": after(lambda: L.SpatialDropout2D(0.4), IMAGE),
        "SpatialDropout3D": after(lambda: L.SpatialDropout3D(0.4), VOLUME),
        "ActivityRegularization": after(lambda: L.ActivityRegularization(0.1, 0.2), VECTOR),
        "add_loss in a layer of one's own": after(_AddsLoss, VECTOR),
        "keras.random in a layer of one's own": after(_Draws, VECTOR),
        "numpy.random in a layer of one's own": after(
            lambda: L.Lambda(lambda x: x * np.random.random()), VECTOR, outcome=REFUSED
        ),
    },
    "Preprocessing": {
        "Normalization": after(lambda: L.Normalization(mean=0.3, variance=0.5), VECTOR, mix=False),
        "Rescaling": after(lambda: L.Rescaling(2.0, -0.3), VECTOR, mix=False),
        "CategoryEncoding": first(lambda: L.CategoryEncoding(10, "multi_hot")),
        "Discretization": after(lambda: L.Discretization([0.2, 0.6]), VECTOR, mix=False),
        "Hashing": first(lambda: L.Hashing(7)),
        "IntegerLookup": first(lambda: L.IntegerLookup(vocabulary=[1, 3, 7])),
        "StringLookup": Case(
            lambda: keras.Sequential(
                [
                    keras.Input((4,), dtype="string"),
                    L.StringLookup(vocabulary=["a", "b"]),
                    L.Embedding(4, 2),
                    L.Flatten(),
                    L.Dense(3),
                ]
            ),
            (4,),
            outcome=REFUSED,
        ),
        "TextVectorization": Case(
            lambda: keras.Sequential(
                [
                    keras.Input((), dtype="string"),
                    L.TextVectorization(vocabulary=["a", "b"], output_sequence_length=4),
                    L.Embedding(4, 2),
                    L.Flatten(),
                    L.Dense(3),
                ]
            ),
            (),
            outcome=REFUSED,
        ),
        "STFTSpectrogram": after(
            lambda: L.STFTSpectrogram(frame_length=32, frame_step=16, fft_length=32),
            SOUND,
            mix=False,
        ),
        "MelSpectrogram": after(
            lambda: L.MelSpectrogram(
                fft_length=64, sequence_stride=32, sequence_length=64, num_mel_bins=4
            ),
            (256,),
            mix=False,
        ),
    },
    "Images": {
        "CenterCrop": image("CenterCrop", height=5, width=6),
        "Resizing": image("Resizing", height=5, width=6),
        "AugMix": after(  # draws from Python's random
            lambda: L.AugMix(value_range=(0, 1)), IMAGE, mix=False, outcome=REFUSED
        ),
        "AutoContrast": image("AutoContrast", value_range=(0, 1)),
        "ContrastLimitedAdaptiveHistogramEqualization": image(
            "ContrastLimitedAdaptiveHistogramEqualization",
            value_range=(0, 1),
            tile_grid_size=(2, 2),
        ),
        "Equalization": image("Equalization", value_range=(0, 1)),
        "Pipeline": after(
            lambda: L.Pipeline([L.RandomFlip(), L.RandomZoom(0.2)]), IMAGE, mix=False
        ),
        "RandAugment": image("RandAugment", value_range=(0, 1)),
        "RandomBrightness": image("RandomBrightness", factor=0.3, value_range=(0, 1)),
        "RandomColorDegeneration": image("RandomColorDegeneration", factor=0.5, value_range=(0, 1)),
        "RandomColorJitter": image(
            "RandomColorJitter", brightness_factor=0.3, contrast_factor=0.3, value_range=(0, 1)
        ),
        "RandomContrast": image("RandomContrast", factor=0.3, value_range=(0, 1)),
        "RandomCrop": image("RandomCrop", height=5, width=6),
        "RandomElasticTransform": image("RandomElasticTransform", value_range=(0, 1)),
        "RandomErasing": image("RandomErasing", value_range=(0, 1)),
        "RandomFlip": image("RandomFlip"),
        "RandomGaussianBlur": image("RandomGaussianBlur", value_range=(0, 1)),
        "RandomGrayscale": image("RandomGrayscale"),
        "RandomHue": image("RandomHue", factor=0.3, value_range=(0, 1)),
        "RandomInvert": image("RandomInvert", factor=0.5, value_range=(0, 1)),
        "RandomPerspective": image("RandomPerspective"),
        "RandomPosterization": image("RandomPosterization", factor=4, value_range=(0, 1)),
        "RandomRotation": image("RandomRotation", factor=0.2),
        "RandomSaturation": image("RandomSaturation", factor=0.5, value_range=(0, 1)),
        "RandomSharpness": image("RandomSharpness", factor=0.5, value_range=(0, 1)),
        "RandomShear": image("RandomShear", x_factor=0.3, y_factor=0.2),
        "RandomTranslation": image("RandomTranslation", height_factor=0.2, width_factor=0.2),
        "RandomZoom": image("RandomZoom", height_factor=0.3),
        "Solarization": image("Solarization", value_range=(0, 1)),
    },
}

NOT_TRIED = {
    "Layer": "base class",
    "Wrapper": "base class",
    "InputLayer": "part of every functional model",
    "InputSpec": "not a layer",
    "FlaxLayer": "another framework",
    "JaxLayer": "another framework",
    "TorchModuleWrapper": "another framework",
    "TFSMLayer": "a frozen program without Keras weights",
    "CutMix": "changes the labels, too",
    "MixUp": "changes the labels, too",
    "MaxNumBoundingBoxes": "for bounding boxes",
    "HashedCrossing": "needs two inputs",
}

EVERY_OPTIMIZER = {
    "": {},
    ", clipnorm": {"clipnorm": 0.1},
    ", clipvalue": {"clipvalue": 0.05},
    ", global_clipnorm": {"global_clipnorm": 0.1},
    ", weight_decay": {"weight_decay": 0.1},
    ", use_ema": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    ", gradient_accumulation_steps": {"gradient_accumulation_steps": 2},
    ", loss_scale_factor": {"loss_scale_factor": 8.0},
    ", schedule": {"learning_rate": "schedule"},
}
KINDS = {
    "SGD": (O.SGD, {}),
    "SGD, momentum": (O.SGD, {"momentum": 0.9}),
    "SGD, nesterov": (O.SGD, {"momentum": 0.9, "nesterov": True}),
    "RMSprop": (O.RMSprop, {}),
    "RMSprop, momentum": (O.RMSprop, {"momentum": 0.9}),
    "RMSprop, centered": (O.RMSprop, {"momentum": 0.9, "centered": True}),
    "Adam": (O.Adam, {}),
    "Adam, amsgrad": (O.Adam, {"amsgrad": True}),
    "AdamW": (O.AdamW, {}),
    "Adamax": (O.Adamax, {}),
    "Nadam": (O.Nadam, {}),
    "Adagrad": (O.Adagrad, {}),
    "Adadelta": (O.Adadelta, {"learning_rate": 1.0}),
    "Adafactor": (O.Adafactor, {}),
    "Ftrl": (O.Ftrl, {"l1_regularization_strength": 1e-4}),
    "Lion": (O.Lion, {}),
    "Lamb": (O.Lamb, {}),
    "Muon": (O.Muon, {}),
}


def optimizer(kind: type, arguments: dict, **more) -> Callable[[], O.Optimizer]:
    """Makes an optimizer with a learning rate of 0.01 by default, or a schedule from there."""

    def make() -> O.Optimizer:
        values = {"learning_rate": 0.01} | arguments
        rate = values["learning_rate"]
        values |= more
        if values["learning_rate"] == "schedule":
            values["learning_rate"] = O.schedules.ExponentialDecay(rate, 2, 0.5)
        return kind(**values)

    return make


def _excluding() -> O.Optimizer:
    made = O.AdamW(0.01, weight_decay=0.5)
    made.exclude_from_weight_decay(var_names=["bias"])
    return made


OPTIMIZERS: dict[str, Case] = {
    **{
        f"{name}{suffix}": with_optimizer(optimizer(kind, arguments, **more))
        for name, (kind, arguments) in KINDS.items()
        for suffix, more in EVERY_OPTIMIZER.items()
    },
    "AdamW, exclude_from_weight_decay": with_optimizer(_excluding),
    "LossScaleOptimizer of Adam": with_optimizer(lambda: O.LossScaleOptimizer(O.Adam(0.01))),
    "ScheduleFreeAdamW": with_optimizer(lambda: O.ScheduleFreeAdamW(0.01), outcome=REFUSED),
    "MultiOptimizer": with_optimizer(
        lambda: O.MultiOptimizer(O.OptimizerMap(O.SGD(0.01), {"a": O.Adam(0.01)})),
        outcome=REFUSED,
    ),
}

R, C = keras.regularizers, keras.constraints
_ON_WEIGHTS = ("kernel_{}", "bias_{}")


def on_weights(kind: str, value: object, *, of: tuple[str, ...] = _ON_WEIGHTS) -> Case:
    """A regularizer or constraint on the weights of a layer."""
    return net(
        lambda: L.Dense(4, "tanh", **{name.format(kind): value for name in of}), lambda: L.Dense(3)
    )


WEIGHTS: dict[str, Case] = {
    "L1": on_weights("regularizer", R.L1(0.1)),
    "L2": on_weights("regularizer", R.L2(0.5)),
    "L1L2": on_weights("regularizer", R.L1L2(0.1, 0.5)),
    "OrthogonalRegularizer": on_weights(
        "regularizer", R.OrthogonalRegularizer(0.1), of=("kernel_{}",)
    ),
    "activity_regularizer": on_weights("regularizer", R.L2(0.5), of=("activity_{}",)),
    "MaxNorm": on_weights("constraint", C.MaxNorm(0.3)),
    "MinMaxNorm": on_weights("constraint", C.MinMaxNorm(0.4, 0.6)),
    "NonNeg": on_weights("constraint", C.NonNeg()),
    "UnitNorm": on_weights("constraint", C.UnitNorm(), of=("kernel_{}",)),
}
_LOGITS = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
_PROBABILITIES = {"loss": keras.losses.SparseCategoricalCrossentropy()}


def _mixed(policy: str, **options) -> Case:
    def build() -> keras.Model:
        return keras.Sequential(
            [keras.Input(VECTOR), L.Dense(8, "tanh", dtype=policy), L.Dense(3, dtype=policy)]
        )

    return Case(build, rounding=0.05, **options)  # that of 8 or 11 bits


MODELS: dict[str, Case] = {
    "loss by name (the mean over the mini-batch)": net(
        lambda: L.Dense(3, "softmax"), loss="sparse_categorical_crossentropy"
    ),
    "softmax last, loss of probabilities": net(lambda: L.Dense(3, "softmax"), **_PROBABILITIES),
    "softmax last, loss of logits": net(lambda: L.Dense(3, "softmax"), outcome=REFUSED, **_LOGITS),
    "layers.Softmax last, loss of logits": net(
        lambda: L.Dense(3), L.Softmax, outcome=REFUSED, **_LOGITS
    ),
    "a linear layer last, loss of probabilities": net(
        lambda: L.Dense(3), outcome=REFUSED, **_PROBABILITIES
    ),
    "a nested model with softmax, loss of logits": net(
        lambda: L.Dense(4),
        lambda: keras.Sequential([keras.Input((4,)), L.Dense(3), L.Activation("softmax")]),
        outcome=REFUSED,
        **_LOGITS,
    ),
    "policy mixed_bfloat16": _mixed("mixed_bfloat16"),
    "policy mixed_float16": _mixed("mixed_float16", outcome=REFUSED),
    "policy mixed_float16, LossScaleOptimizer": _mixed(
        "mixed_float16", optimizer=lambda: O.LossScaleOptimizer(O.SGD(0.05))
    ),
    "policy float64": _mixed("float64", outcome=REFUSED),
    "two inputs": Case(
        lambda: (lambda a, b: keras.Model([a, b], L.Dense(3)(L.Add()([a, b]))))(
            keras.Input(VECTOR), keras.Input(VECTOR)
        ),
        outcome=REFUSED,
    ),
    "two outputs": Case(
        lambda: (lambda a: keras.Model(a, [L.Dense(3)(a), L.Dense(2)(a)]))(keras.Input(VECTOR)),
        outcome=REFUSED,
    ),
}
ALL: dict[str, dict[str, Case]] = {
    **{f"Layers: {name.lower()}": cases for name, cases in LAYERS.items()},
    "Optimizers": OPTIMIZERS,
    "Regularizers and constraints": WEIGHTS,
    "Models and losses": MODELS,
}


def data_of(case: Case, steps: int = 3, batch: int = 4) -> tuple[np.ndarray, TrainingTasks]:
    """Examples of a case and one task of mini-batches of them."""
    rng = np.random.default_rng(0)
    shape = (steps * batch, *case.shape)
    x = rng.integers(0, 10, shape, np.int32) if case.integers else rng.random(shape, np.float32)
    rows = np.arange(steps * batch, dtype=np.int32).reshape(1, steps, batch)
    labels = rng.integers(0, 3, rows.shape, np.int32)
    return x, TrainingTasks(MiniBatches(rows, labels), seeds=SEED)


def learner_and_twin(case: Case) -> tuple[Reptile, keras.Model]:
    """A learner, and Keras' own model of the same weights and random numbers, compiled.

    Raises:
        ValueError: The learner refuses.
    """
    keras.utils.set_random_seed(1)
    model, twin = case.build(), case.build()
    learner = Reptile(model, inner_optimizer=case.optimizer(), loss=case.loss, lanes=1)
    twin.set_weights(model.get_weights())
    seeds = [v for v in twin.variables if v.name == "seed_generator_state"]
    for place, variable in enumerate(seeds):
        variable.assign(tf.random.experimental.stateless_fold_in(SEED[0], place))
    twin.compile(case.optimizer(), learner.loss, run_eagerly=True, auto_scale_loss=False)
    return learner, twin


def compare(case: Case) -> tuple[str, str]:
    """Run a case.

    Returns:
        The outcome, and how far the weights of the two are apart or why the learner refused.
    """
    try:
        learner, twin = learner_and_twin(case)
    except ValueError as error:
        return REFUSED, str(error)
    x, tasks = data_of(case)
    start = learner.model.get_weights()
    try:
        learner.train_step(x, tasks, 1.0)
    except ValueError as error:  # a model without declared inputs shows what it is when it is run
        return REFUSED, str(error)
    for rows, labels in zip(*(part[0] for part in tasks.steps), strict=True):
        twin.train_on_batch(x[rows], labels)
    ours, theirs = learner.model.get_weights(), twin.get_weights()
    moved = max(np.abs(a - b).max() for a, b in zip(ours, start, strict=True))
    apart = max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
    if not (moved > 1e-4 and apart <= 1e-5 + case.rounding * moved):
        return "WRONG", f"moved {moved:.3g}, apart {apart:.3g}"
    return EQUAL, f"{apart:.1e}"


def tables() -> str:
    """The outcomes that the tests hold the learners to, in Markdown."""
    lines = []
    for section, cases in ALL.items():
        lines += [f"### {section}", ""]
        if section == "Optimizers":
            options = [option.removeprefix(", ") for option in EVERY_OPTIMIZER if option]
            lines += [f"Each alone and with each of {_listed(options)}:", ""]
            cases = {name: case for name, case in cases.items() if name in KINDS or "," not in name}
            cases |= {name: OPTIMIZERS[name] for name in OPTIMIZERS if "exclude" in name}
        for outcome in (EQUAL, REFUSED):
            names = [name for name, case in cases.items() if case.outcome == outcome]
            lines += [f"- {outcome}: {_listed(names)}"] if names else []
        lines += [""]
    left_out = (f"`{name}` ({why})" for name, why in NOT_TRIED.items())
    return "\n".join([*lines, f"Not tried: {', '.join(left_out)}."])


def _listed(names: list[str]) -> str:
    return " · ".join(f"`{name}`" if " " not in name else name for name in names)


def with_tables(text: str) -> str:
    """The text of the page with the tables brought up to date."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables()}\n{END}{rest.partition(END)[2]}"


def main(words: list[str]) -> int:
    """Run the cases, print what came out, and write the tables if nothing is a surprise.

    Args:
        words: Run the sections with one of these in their names; all if there is none.
    """
    tf.config.run_functions_eagerly(True)  # faster than to trace each program for three steps
    wrong = 0
    for section, cases in ALL.items():
        if words and not any(word.lower() in section.lower() for word in words):
            continue
        for name, case in cases.items():
            outcome, detail = compare(case)
            wrong += outcome != case.outcome
            mark = "!!" if outcome != case.outcome else "  "
            print(mark, section, "|", name, "|", outcome, "|", detail, flush=True)
            keras.backend.clear_session()
    if not wrong:
        PAGE.write_text(with_tables(PAGE.read_text()))
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
