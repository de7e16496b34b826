"""Turn a ``Config`` into specs, models and learners; only this module connects them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

from supervised_reptile.config import Config
from supervised_reptile.config.paper import OPTIMIZER_CONSTANTS, dataset_facts
from supervised_reptile.meta_learner import MetaLearner
from supervised_reptile.models import miniimagenet_model, omniglot_model
from supervised_reptile.reptile import FOMAML, MAML, GradientCombination, Reptile
from supervised_reptile.tasks import TaskSpec
from supervised_reptile.training import LinearDecay
from supervised_reptile.workers import Workers

_NETWORKS = {"omniglot": omniglot_model, "miniimagenet": miniimagenet_model}
_ALGORITHMS = {"reptile": Reptile, "fomaml": FOMAML, "maml": MAML}


def training_spec(config: Config) -> TaskSpec:
    """Return the shape of a training task."""
    return TaskSpec(
        classes=config.task.classes,
        shots=config.task.train_shots,
        batch=config.inner.inner_batch,
        steps=config.inner.inner_iters,
        replacement=config.inner.replacement,
        tail=config.meta.foml_tail or 0,
    )


def evaluation_spec(config: Config) -> TaskSpec:
    """Return the shape of an evaluation task."""
    return TaskSpec(
        classes=config.task.classes,
        shots=config.task.shots,
        batch=config.eval.eval_batch,
        steps=config.eval.eval_iters,
        replacement=config.inner.replacement,
        queries=config.eval.queries,
    )


def meta_step_from_config(config: Config) -> LinearDecay:
    """Return the schedule of the outer step size."""
    meta = config.meta
    return LinearDecay(meta.meta_step, meta.meta_step_final, meta.meta_iters)


def model_from_config(config: Config, num_classes: int | None = None) -> keras.Model:
    """Build the network that a configuration describes, with weights drawn from its seed.

    Args:
        config: Supplies dataset (which selects one of the paper's two networks), classes,
            filters, image_size, freeze and seed.
        num_classes: Number of classes. Default: that of the configuration's tasks.
    """
    task, network = config.task, config.model
    model = _NETWORKS[dataset_facts(task.dataset).network](
        num_classes or task.classes,
        filters=network.filters,
        image_size=network.image_size,
        seed=config.seed,
    )
    for block in range(1, network.freeze + 1):
        for layer in (f"conv{block}", f"norm{block}"):
            model.get_layer(layer).trainable = False
    return model


def learner_from_config(
    config: Config,
    model: keras.Model,
    *,
    input_scale: float = 1.0,
    lanes: int = 2,
    workers: Workers | None = None,
) -> MetaLearner:
    """Build the learner that a configuration describes.

    Args:
        config: Supplies algorithm, step_weights, inner_optimizer with its constants,
            reset_optimizer, weight_decay, outer_optimizer and parallel_tasks.
        model: Keras model, as for :class:`MetaLearner`.
        input_scale: Factor from stored examples to the model's input.
        lanes: Number of evaluation tasks that run in parallel, at least 1.
        workers: The processes that share the tasks; ``None`` for this process alone.
    """
    inner, meta = config.inner, config.meta
    names = OPTIMIZER_CONSTANTS[inner.inner_optimizer]
    constants = {name: getattr(inner, name) for name in names}
    algorithm: Callable[..., MetaLearner] = _ALGORITHMS[meta.algorithm]
    if meta.step_weights is not None:
        algorithm = functools.partial(GradientCombination, step_weights=meta.step_weights)
    outer = meta.outer_optimizer
    return algorithm(
        model,
        inner_optimizer=_optimizer(
            inner.inner_optimizer, learning_rate=inner.learning_rate, **constants
        ),
        outer_optimizer=None if outer == "interpolation" else _optimizer(outer),
        weight_decay=inner.weight_decay,
        reset_optimizer=inner.reset_optimizer,
        input_scale=input_scale,
        lanes=lanes,
        parallel_tasks=meta.parallel_tasks,
        workers=workers,
    )


def _optimizer(name: str, **arguments: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.get({"class_name": name, "config": arguments})
