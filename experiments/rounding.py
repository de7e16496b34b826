"""How exact the training's gradients are, and whether their errors add up: docs/reproduction.md.

    python -m experiments rounding --network omniglot-5way

Training computes in float32, with TensorFlow's fused kernel for batch normalization. The same
gradients in float64 show its errors, mini-batch by mini-batch: how large they are next to the
gradients, and whether they average out. Stock Keras layers in float32 are the comparison.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from experiments import common
from supervised_reptile.config.declaration import Checked, at_least, one_of, setting, settings
from supervised_reptile.pretrained import load_pretrained, model_facts, pretrained_names
from supervised_reptile.progress import Progress
from supervised_reptile.runs.files import write_table

if TYPE_CHECKING:
    import keras

    from supervised_reptile.config import Config
    from supervised_reptile.datasets import FewShotDataset

NAME = "rounding"
HEADER = ("weights", "arithmetic", "variable", "error_rms", "error_mean", "error_mean_by_chance")


@settings("Experiment")
class Settings(Checked):
    """Whose gradients are compared, and on what."""

    network: str = setting(
        "A network that comes with the package.",
        one_of(pretrained_names()),
        default="omniglot-5way",
    )
    dataset: str = setting(
        "Data set, such as glyphs, which needs no data. When not given: the network's.", default=""
    )
    batches: int = setting("Mini-batches of training tasks.", at_least(2), default=2000)


def run(settings: Settings, place: common.DataPlace) -> None:
    """Compare the gradients of a network, as it started and as trained, and write the table."""
    common.load_tensorflow()
    from supervised_reptile.config import Config, RunOptions
    from supervised_reptile.from_config import model_from_config
    from supervised_reptile.runs.stages import load_data

    network, batches = settings.network, settings.batches
    config = Config.from_dict(model_facts(network)["training"])
    if settings.dataset:
        config = config.replace(dataset=settings.dataset)
    folder = place.results_folder(NAME)
    data = load_data(config, RunOptions(data_dir=place.data_dir))
    rows = []
    models = {"as it started": model_from_config(config), "trained": load_pretrained(network)}
    for state, model in models.items():
        for arithmetic, errors in gradient_errors(model, data, config, batches).items():
            rows += [(state, arithmetic, variable, *each) for variable, each in errors.items()]
            name, (rms, mean, by_chance) = max(errors.items(), key=lambda item: item[1][0])
            print(
                f"{state}, {arithmetic}: error {100 * rms:.3f} % of the gradient's rms ({name}, "
                f"the largest); of the mean {100 * mean:.3f} %, by chance {100 * by_chance:.3f} %"
            )
    write_table(folder / "errors.csv", HEADER, rows)
    errors = [dict(zip(HEADER, row, strict=True)) for row in rows]
    common.write_results(folder, NAME, settings, {"dataset": config.task.dataset, "errors": errors})


def gradient_errors(
    model: "keras.Model", dataset: "FewShotDataset", config: "Config", batches: int
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Errors of float32 gradients on mini-batches of training tasks, against float64.

    Args:
        model: Network with the weights to take the gradients at.
        dataset: Supplies the tasks.
        config: Supplies their shape, the network's, and the seed.
        batches: Number of mini-batches, at least 2.

    Returns:
        For the training's arithmetic (``"fused"``) and for ``"stock layers"``, by name of the
        variable: what :meth:`Errors.relative` gives. Variables that batch normalization makes
        irrelevant, the convolutions' biases, are left out: the exact gradient is 0.
    """
    from supervised_reptile.fast.network import (
        convolutions_whose_bias_has_no_effect,
        fused_for_training,
    )
    from supervised_reptile.from_config import model_from_config
    from supervised_reptile.tools.double_precision import double_precision

    with double_precision():
        exact = model_from_config(config)
    exact.set_weights(model.get_weights())
    true_gradients = gradients_of(exact)
    fused = fused_for_training(model)
    gradients = {"fused": gradients_of(fused), "stock layers": gradients_of(model)}
    without_effect = {layer.bias.path for layer in convolutions_whose_bias_has_no_effect(model)}
    counted = {
        i: variable.path
        for i, variable in enumerate(model.trainable_variables)
        if variable.path not in without_effect
    }
    errors = {way: {i: Errors() for i in counted} for way in gradients}
    with Progress(batches, "mini-batches", "mini-batch") as bar:
        for images, labels in _mini_batches(dataset, config, batches):
            truth = true_gradients(images, labels)
            for way, of_way in errors.items():
                found = gradients[way](images, labels)
                for i, each in of_way.items():
                    each.add(found[i], truth[i])
            bar.add()
    return {
        way: {counted[i]: each.relative() for i, each in of_way.items()}
        for way, of_way in errors.items()
    }


class Errors:
    """The errors of one variable's gradient, added up over mini-batches."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares, self._gradient_squares = 0, 0.0, 0.0, 0.0

    def add(self, found: np.ndarray, truth: np.ndarray) -> None:
        """Count one mini-batch's gradient, float [...], and the true one, float64 [...]."""
        error = found - truth
        self._count += 1
        self._sum = self._sum + error
        self._squares += np.sum(error**2)
        self._gradient_squares += np.sum(truth**2)

    def relative(self) -> tuple[float, float, float]:
        """Errors relative to the root mean square of the gradient over the mini-batches.

        Returns:
            The root mean square of the errors; the norm of their mean; and what the latter would
            be by chance, if the errors of different mini-batches had nothing to do with each
            other and averaged out.
        """
        rms = np.sqrt(self._squares / self._gradient_squares)
        mean = np.linalg.norm(self._sum) / np.sqrt(self._count * self._gradient_squares)
        return float(rms), float(mean), float(rms / np.sqrt(self._count))


def gradients_of(model: "keras.Model") -> Callable[..., list[np.ndarray]]:
    """The gradients of the summed loss by every trainable variable, for images and labels."""
    import tensorflow as tf

    variables = [variable.value for variable in model.trainable_variables]

    @tf.function
    def compiled(images, labels):
        with tf.GradientTape() as tape:
            logits = model(tf.cast(images, model.compute_dtype), training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses)
        return tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return lambda images, labels: [each.numpy() for each in compiled(images, labels)]


def _mini_batches(
    dataset: "FewShotDataset", config: "Config", count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images, float32 [batch, height, width, channels] in [0, 1], and labels, int32 [batch]."""
    from supervised_reptile.from_config import training_spec
    from supervised_reptile.tasks import random_stream, training_tasks

    spec, meta_batch = training_spec(config), config.meta.meta_batch
    iteration = 0
    while True:
        rng = random_stream(config.seed, "training", iteration)
        tasks = training_tasks(rng, dataset, spec, meta_batch)
        steps = (each.reshape(-1, each.shape[-1]) for each in tasks.steps)
        for rows, labels in zip(*steps, strict=True):
            if count == 0:
                return
            yield dataset.images[rows] * np.float32(dataset.pixel_scale), labels
            count -= 1
        iteration += 1
