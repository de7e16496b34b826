"""Use a meta-trained model on classes of your own: fine-tune, predict, replace the head."""

from __future__ import annotations

import functools
import weakref
from typing import Literal

import keras
import numpy as np

from supervised_reptile.config.paper import dataset_facts
from supervised_reptile.fast.optimizer_state import new_like
from supervised_reptile.finite import check_finite
from supervised_reptile.keras_api.arguments import check_integers
from supervised_reptile.keras_api.classifier_checks import (
    checked_images,
    checked_labels,
    classifier_loss,
    number_of_classes,
    scales_inputs,
    takes_logits,
)
from supervised_reptile.keras_api.copies import copy_of
from supervised_reptile.learner import paper_adam
from supervised_reptile.reptile import Reptile
from supervised_reptile.tasks import (
    EvaluationTasks,
    MiniBatches,
    TrainingTasks,
    mini_batches,
    task_seeds,
)

# One learner per adapted model: building it and tracing its functions takes a second or two.
_LEARNERS: weakref.WeakKeyDictionary[keras.Model, tuple[Reptile, tuple]] = (
    weakref.WeakKeyDictionary()
)


class FewShotClassifier:
    """A model that was fine-tuned on a few labeled images; :func:`adapt` returns it.

    Attributes:
        support: float32 [examples, ...], the labeled images that it was fine-tuned on.
    """

    def __init__(self, learner: Reptile, support: np.ndarray, value_range: tuple | None) -> None:
        self.support = support
        self._value_range = value_range
        self._learner = learner  # shared with other classifiers, so keep the values here
        self._variables = [*learner.model.variables, *learner.inner_optimizer.variables]
        self._values = [v.numpy() for v in self._variables]

    def predict(self, images: np.ndarray, *, transductive: bool = False) -> np.ndarray:
        """Compute the probability of each class.

        Args:
            images: Floating-point [images, ...], like the images it was fine-tuned on.
            transductive: If ``False``, each image passes through the network with all of
                :attr:`support` and without the other images, so its prediction does not depend on
                them. If ``True``, the images pass through together and share their batch
                statistics. This gives better predictions when all classes are equally frequent,
                as in the paper's tasks (Sec. 6.1). A single image then has only its own
                statistics.

        Returns:
            float32 [images, classes]; each row sums to 1.

        Raises:
            ValueError: The shape, type or range of the images does not suit the model, or the
                outputs are not finite (``NotFiniteError``).
        """
        images = checked_images(self._learner.model, images, self._value_range)
        count, known = len(images), len(self.support)
        nothing = np.zeros((1, 0, 1), np.int32)
        rows = np.arange(known + count, dtype=np.int32)[None]
        tasks = EvaluationTasks(
            MiniBatches(nothing, nothing), rows[:, :known], rows[:, known:], np.zeros((1, 2), int)
        )
        table = np.concatenate([self.support, images])
        outputs = self._restored().predict_tasks(table, tasks, transductive=transductive)[0]
        check_finite(
            outputs,
            f"the outputs of {self._learner.model.name!r}",
            "The fine-tuning diverged, or the model was not finite; see the learning rate",
        )
        if self._learner.inner_loop.ends_in == "softmax":
            return outputs
        return keras.ops.convert_to_numpy(keras.ops.softmax(outputs))

    def evaluate(
        self, images: np.ndarray, labels: np.ndarray, *, transductive: bool = False
    ) -> dict[str, float]:
        """Compute the mean cross-entropy and the accuracy on labeled images.

        Args:
            images: As for :meth:`predict`.
            labels: Integers [images], in 0 … classes − 1.
            transductive: As for :meth:`predict`.

        Returns:
            ``{"loss": ..., "accuracy": ...}``.

        Raises:
            ValueError: Images or labels are not as described.
        """
        probabilities = self.predict(images, transductive=transductive)
        labels = checked_labels(labels, *probabilities.shape)
        of_label = probabilities[np.arange(len(labels)), labels]
        loss = -np.mean(np.log(np.maximum(of_label, np.finfo(np.float32).tiny)))
        right = np.mean(probabilities.argmax(axis=1) == labels)
        return {"loss": float(loss), "accuracy": float(right)}

    def summary(self, **arguments: object) -> None:
        """Print a description of the classifier and the Keras summary of its model."""
        print(self)
        self.model.summary(**arguments)

    def __repr__(self) -> str:
        classes = self._learner.model.output_shape[-1]
        return (
            f"FewShotClassifier({self._learner.model.name!r} of {classes} classes, fine-tuned on "
            f"{len(self.support)} images)"
        )

    @functools.cached_property
    def model(self) -> keras.Model:
        """The fine-tuned, compiled Keras model from images to logits, to save or export."""
        return self._restored().compiled_model()

    def _restored(self) -> Reptile:
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)
        return self._learner


def adapt(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    value_range: tuple[float, float] | Literal["model"] | None = "model",
) -> FewShotClassifier:
    """Fine-tune a copy of a model on a few labeled images, as the paper's evaluation does.

    Each step uses the model's own optimizer, starting from its slots and step count, and the
    model's own loss. The loss of this package's models is the *sum* of softmax cross-entropies.
    ``tasks.mini_batches`` divides the examples into mini-batches. The given model and its optimizer
    do not change.

    If the number of classes differs from the model's, call :func:`rehead` first.

    Args:
        model: Classifier from images to logits, or to probabilities with a softmax at the end,
            [batch, classes]. It comes from ``load_pretrained``, ``MetaLearner.compiled_model``, or
            ``keras.models.load_model`` of a run's ``model.keras``. If it is not compiled, the
            paper's Adam is used. The moments of an optimizer that has not trained are zero.
        images: Floating-point [examples, height, width, channels], in the value range that the
            model was trained on (the paper's: 0 … 1; in Omniglot 0 is ink and 1 is paper).
        labels: Integers [examples], in 0 … classes − 1.
        steps: Number of fine-tuning steps, at least 0. Default: the paper's 50.
        batch: Size of a mini-batch, at least 1. Default: the paper's for Omniglot, 5, or 10 for 20
            or more classes. (For 5-shot Mini-ImageNet it is 15.)
        seed: Seed of the mini-batches, at least 0.
        value_range: Smallest and largest value of an image, or ``None`` for any. The default,
            ``"model"``, allows any value, integers included, if a layer of the model scales its
            inputs (``Rescaling``, ``Normalization``), else 0 … 1. Unless it is ``None``, the
            paper's network for Omniglot refuses drawings with ink 1 on paper 0.

    Returns:
        The fine-tuned model, which predicts class probabilities.

    Raises:
        ValueError: The model is not such a classifier, or images or labels have a wrong shape,
            type or range.

    Example:
        >>> model = load_pretrained("omniglot-5way-1shot")
        >>> classifier = adapt(model, images, [0, 1, 2, 3, 4])  # float32 [5, 28, 28, 1]
        >>> classifier.predict(queries)  # float32 [queries, 5]
    """
    classes = number_of_classes(model)
    if value_range == "model":
        value_range = None if scales_inputs(model) else (0.0, 1.0)
    images = checked_images(model, images, value_range)
    labels = checked_labels(labels, len(images), classes)
    facts = dataset_facts("omniglot").column(classes, 1).default_values()
    steps = facts["eval_iters"] if steps is None else steps
    batch = facts["eval_batch"] if batch is None else batch
    check_integers(0, steps=steps)
    check_integers(1, batch=batch)
    learner = _learner_on_copy(model)
    if steps:
        rng = np.random.default_rng(seed)
        rows = mini_batches(rng, len(images), batch, steps, replacement=False)
        dealt = MiniBatches(rows[None], labels[rows][None])
        task = TrainingTasks(dealt, seeds=task_seeds(rng, 1))
        # Reptile on one task with ε = 1 moves all the way to φ̃: φ ← φ + 1·(φ̃ − φ).
        learner.train_step(images, task, meta_step=1.0)
    return FewShotClassifier(learner, images, value_range)


def rehead(model: keras.Model, num_classes: int) -> keras.Model:
    """Copy a classifier and change its number of classes.

    All layers except the last are copied, with their optimizer slots and the step count. In the
    last layer, the new classes take the weights and slots of the old classes in turn, 0 … N − 1,
    0 …. Meta-training assigns labels to classes at random, so any old class can serve as any new
    one. (With empty slots, Adam's steps would be far too large at a late step count.)

    Args:
        model: Functional or Sequential Keras model whose last layer is ``Dense``.
        num_classes: M, number of classes, at least 2.

    Returns:
        Model with logits float32 [batch, M], compiled with the same loss if the model is compiled.

    Raises:
        ValueError: The last layer is not ``Dense`` or ``num_classes`` is below 2.

    Example:
        >>> rehead(load_pretrained("omniglot-5way"), 3).output_shape
        (None, 3)
    """
    check_integers(2, num_classes=num_classes)
    number_of_classes(model)
    head = model.layers[-1]
    if not isinstance(head, keras.layers.Dense):
        raise ValueError(f"the last layer must be Dense. Received: {type(head).__name__}")

    def copied(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config() | ({"units": num_classes} if layer is head else {})
        return type(layer).from_config(config)

    new = keras.models.clone_model(model, clone_function=copied)
    _take_over(new.variables, model.variables)
    if model.compiled:
        optimizer = new_like(model.optimizer)
        optimizer.build(new.trainable_variables)
        if model.optimizer.built:
            _take_over(optimizer.variables, model.optimizer.variables)
        new.compile(optimizer, model.loss, metrics=["accuracy"], auto_scale_loss=False)
    return new


def _take_over(new: list[keras.Variable], old: list[keras.Variable]) -> None:
    """Copy values; if the number of classes (the last axis) differs, repeat or drop classes."""
    for mine, theirs in zip(new, old, strict=True):
        value = theirs.numpy()
        if mine.shape != theirs.shape:
            value = np.take(value, np.arange(mine.shape[-1]) % theirs.shape[-1], axis=-1)
        mine.assign(value)


def _learner_on_copy(model: keras.Model) -> Reptile:
    """Return a learner on a copy of the model that starts from its optimizer's state."""
    given = (model.optimizer, model.loss) if model.compiled else ()
    given += tuple(layer.trainable for layer in model._flatten_layers())
    learner, made_for = _LEARNERS.get(model, (None, None))
    if learner is None or made_for != given:
        optimizer = new_like(model.optimizer) if model.compiled else paper_adam()
        learner = Reptile(
            copy_of(model), inner_optimizer=optimizer, loss=classifier_loss(model), lanes=1
        )
        if not takes_logits(learner.loss) and learner.inner_loop.ends_in != "softmax":
            raise ValueError(
                "a model that gives logits must be compiled with a loss of from_logits=True. "
                f"Received: {learner.loss!r}"
            )
        _LEARNERS[model] = learner, given
    learner.model.set_weights(model.get_weights())
    optimizer = model.optimizer if model.compiled else None
    if optimizer is None or not optimizer.built:
        learner.inner_loop.fast_weights.reset_optimizer()
    else:
        learner.take_optimizer_state(optimizer)
    if optimizer is not None and isinstance(optimizer.learning_rate, keras.Variable):
        learner.inner_optimizer.learning_rate = float(optimizer.learning_rate)
    return learner
