"""Checks of the arguments of ``adapt``: classifiers, images and labels."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.checks import last_activation
from supervised_reptile.keras_api.arguments import loss_of
from supervised_reptile.keras_api.task_sources import fits_shape
from supervised_reptile.pure_model import PureModel

# Mean of an image below which it is no drawing on white: at least three quarters are paper.
_DARK = 0.4


def classifier_loss(model: keras.Model) -> keras.losses.Loss:
    """Return the loss that the model is compiled with, or else the paper's.

    Raises:
        ValueError: The model is compiled with ``loss_weights``.
    """
    if model.compiled and model.loss is not None:
        weights = model._compile_loss._user_loss_weights
        if weights is not None:
            raise ValueError(
                "model must be compiled without loss_weights: change the learning rate instead. "
                f"Received: {weights!r}"
            )
        return loss_of(model.loss)
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=not ends_in_softmax(model), reduction="sum"
    )


def ends_in_softmax(model: keras.Model) -> bool:
    """Whether the outputs are probabilities from a softmax, in a layer or a function."""
    inputs = tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
    return last_activation(PureModel(model).rehearse(inputs)) == "softmax"


def takes_logits(loss: keras.losses.Loss) -> bool:
    """Whether a loss takes logits."""
    return bool(loss.get_config().get("from_logits"))


def scales_inputs(model: keras.Model) -> bool:
    """Whether a layer of the model scales its inputs."""
    scaling = (keras.layers.Rescaling, keras.layers.Normalization)
    return any(isinstance(layer, scaling) for layer in model._flatten_layers())


def number_of_classes(model: keras.Model) -> int:
    """Check that the model is a classifier for integer labels; return its number of classes."""
    shape = getattr(model, "output_shape", None)  # a subclassed model has none
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise ValueError(
            "model must be Functional or Sequential and give logits [batch, classes]. "
            f"Received: outputs of shape {shape}"
        )
    activation = getattr(model.layers[-1], "activation", keras.activations.linear)
    if activation not in (keras.activations.linear, keras.activations.softmax):
        raise ValueError(
            "model must give logits, with no activation last, or probabilities by a softmax. "
            f"Received: {keras.activations.serialize(activation)}"
        )
    if not isinstance(classifier_loss(model), keras.losses.SparseCategoricalCrossentropy):
        raise ValueError(
            "model must be compiled with keras.losses.SparseCategoricalCrossentropy("
            f"from_logits=True), best with reduction='sum', or not at all. Received: {model.loss!r}"
        )
    return shape[-1]


def checked_images(model: keras.Model, images: np.ndarray, value_range: tuple | None) -> np.ndarray:
    """Return the images as float32, or raise ``ValueError`` if they do not suit the model."""
    images, expected = np.asarray(images), tuple(model.input_shape[1:])
    if not images.ndim or not len(images) or not fits_shape(images.shape[1:], expected):
        wanted = ", ".join(map(str, ("images", *expected)))
        raise ValueError(f"images must be of shape [{wanted}]. Received: {list(images.shape)}")
    if np.issubdtype(images.dtype, np.integer) and value_range is None and scales_inputs(model):
        images = images.astype(np.float32)
    if not np.issubdtype(images.dtype, np.floating):
        hint = "; divide bytes by 255" if images.dtype == np.uint8 else ""
        raise ValueError(f"images must be floating-point{hint}. Received: {images.dtype}")
    images = images.astype(np.float32)
    smallest, largest = images.min(), images.max()
    if not np.isfinite([smallest, largest]).all():
        raise ValueError("images must be finite. Received: NaN or infinity")
    if value_range is not None and (smallest < value_range[0] or largest > value_range[1]):
        raise ValueError(
            f"images must be in {value_range[0]:g} … {value_range[1]:g} (or say another "
            f"value_range). Received: {smallest:g} … {largest:g}"
        )
    if value_range is not None and model.name == "omniglot" and images.mean() < _DARK:
        raise ValueError(
            "images must be drawings with ink 0 and paper 1, as Omniglot's are: pass 1 − images "
            "(or value_range=None for a model that was trained on others). "
            f"Received: a mean of {images.mean():.2f}"
        )
    return images


def checked_labels(labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Return the labels as int32, or raise ``ValueError`` if they do not suit the model."""
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise ValueError(
            f"labels must be one integer for each of the {count} images. "
            f"Received: shape {list(labels.shape)}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers. Received: {labels.dtype}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be in 0 … {classes - 1}, for the model has {classes} outputs (see "
            f"rehead for more or fewer). Received: {labels.min()} … {labels.max()}"
        )
    return labels.astype(np.int32)
