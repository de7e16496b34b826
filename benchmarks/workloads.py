"""What is timed: the paper's configurations, random images of their shape, and their FLOP.

Importing this needs neither TensorFlow nor PyTorch, so every process of the benchmark can do it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

import numpy as np

from supervised_reptile.config import Config, RunOptions, paper_config
from supervised_reptile.config.paper import DATASETS
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.tasks import (
    EvaluationTasks,
    TrainingTasks,
    evaluation_tasks,
    random_stream,
    training_tasks,
)

KERNEL = 3
BLOCKS = 4
NORMALIZATION_EPSILON = 1e-3
# Enough images per class for any task here. (Mini-ImageNet has 600, but timing does not depend on
# it, and every process holds the images.)
_IMAGES_PER_CLASS = {"omniglot": 20, "miniimagenet": 30}


@dataclasses.dataclass(frozen=True)
class Network:
    """One of the paper's networks, described once for all who build it (paper, Sec. 6.1).

    Args:
        image: Height, width and channels of the input.
        filters: Channels of each of the four convolutions.
        stride: Stride of the convolutions, 1 or 2; SAME padding.
        pool: Whether 2×2 max-pooling with SAME padding follows each normalization.
        classes: Outputs of the dense layer.
    """

    image: tuple[int, int, int]
    filters: int
    stride: int
    pool: bool
    classes: int

    def convolutions(self) -> Iterator[tuple[int, int]]:
        """Yields (input channels, height = width of the output) of each convolution."""
        size, _, channels = self.image
        for _ in range(BLOCKS):
            size = math.ceil(size / self.stride)
            yield channels, size
            if self.pool:
                size = math.ceil(size / 2)
            channels = self.filters

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what the dense layer sees."""
        *_, (_, size) = self.convolutions()
        size = math.ceil(size / 2) if self.pool else size
        return size, size, self.filters

    @property
    def weight_shapes(self) -> list[tuple[int, ...]]:
        """Shapes in Keras' order: kernel, bias, γ, β of each block, then the dense layer's."""
        shapes: list[tuple[int, ...]] = []
        for channels, _ in self.convolutions():
            shapes.append((KERNEL, KERNEL, channels, self.filters))
            shapes += [(self.filters,)] * 3
        return [*shapes, (math.prod(self.feature_shape), self.classes), (self.classes,)]

    def initial_weights(self, seed: int = 0) -> list[np.ndarray]:
        """Draws Glorot-uniform kernels, with γ = 1 and zero biases and β; float32."""
        rng = np.random.default_rng(seed)
        weights = []
        for number, shape in enumerate(self.weight_shapes):
            if len(shape) > 1:
                area = math.prod(shape[:-2])
                limit = math.sqrt(6 / (area * (shape[-2] + shape[-1])))
                weights.append(rng.uniform(-limit, limit, shape).astype(np.float32))
            else:
                is_gamma = number < 4 * BLOCKS and number % 4 == 2
                weights.append(np.full(shape, float(is_gamma), np.float32))
        return weights

    def forward_flop(self) -> int:
        """Floating-point operations of the convolutions and the dense layer for one image."""
        return sum(self._convolution_flop()) + 2 * math.prod(self.feature_shape) * self.classes

    def training_flop(self) -> int:
        """FLOP of forward and backward pass for one image.

        The backward pass is two products of the forward one's size, one for the weights and one
        for the layer's input; nothing needs the gradient of the images.
        """
        return 3 * self.forward_flop() - next(self._convolution_flop())

    def _convolution_flop(self) -> Iterator[int]:
        for channels, size in self.convolutions():
            yield 2 * size**2 * self.filters * KERNEL**2 * channels


@dataclasses.dataclass(frozen=True)
class Workload:
    """One row of the benchmark.

    Args:
        name: Its name on the command line.
        title: Its name in tables.
        config: The paper's configuration.
        threads: Intra-op and inter-op threads for the package on this machine.
        eval_tasks: Evaluation tasks in one call of the package's compiled evaluation.
    """

    name: str
    title: str
    config: Config
    threads: tuple[int, int]
    eval_tasks: int

    @property
    def network(self) -> Network:
        """The paper's network for this data set."""
        classes = self.config.task.classes
        if self.config.task.dataset == "omniglot":
            return Network((28, 28, 1), filters=64, stride=2, pool=False, classes=classes)
        return Network((84, 84, 3), filters=32, stride=1, pool=True, classes=classes)

    @property
    def flop(self) -> Mapping[str, int]:
        """FLOP of one meta-iteration (``train``) and of one evaluation task (``evaluate``)."""
        network, inner, evaluation = self.network, self.config.inner, self.config.eval
        images = self.config.meta.meta_batch * inner.inner_iters * inner.inner_batch
        tuning = evaluation.eval_iters * evaluation.eval_batch
        return {
            "train": images * network.training_flop(),
            "evaluate": tuning * network.training_flop()
            + self.config.task.classes * network.forward_flop(),
        }

    def dataset(self) -> FewShotDataset:
        """Random images in the classes and splits of the real data set; always the same."""
        kind = self.config.task.dataset
        splits, first = {}, 0
        for split, classes in DATASETS[kind].splits.items():
            splits[split] = np.arange(first, first + classes)
            first += classes
        rng = np.random.default_rng(0)
        shape = (first * _IMAGES_PER_CLASS[kind], *self.network.image)
        values = 2 if kind == "omniglot" else 256
        return FewShotDataset(
            name=kind,
            images=rng.integers(0, values, shape, dtype=np.uint8),
            class_offsets=np.arange(first + 1) * _IMAGES_PER_CLASS[kind],
            class_names=tuple(f"class {number}" for number in range(first)),
            splits=splits,
            pixel_scale=1 / (values - 1),
        )

    def training_tasks(self, dataset: FewShotDataset, iteration: int) -> TrainingTasks:
        """Draws the tasks of a meta-iteration, as ``training.Trainer`` does."""
        from supervised_reptile.from_config import training_spec  # imports Keras

        rng = random_stream(self.config.seed, "training", iteration)
        return training_tasks(rng, dataset, training_spec(self.config), self.config.meta.meta_batch)

    def evaluation_tasks(self, dataset: FewShotDataset, first: int, count: int) -> EvaluationTasks:
        """Draws evaluation tasks of the test classes, as ``evaluation.evaluate`` does."""
        from supervised_reptile.from_config import evaluation_spec

        positions = range(first, first + count)
        return evaluation_tasks(
            self.config.seed, "evaluation", dataset, "test", evaluation_spec(self.config), positions
        )


def _workload(dataset: str, label: str, classes: int, shots: int, **values) -> Workload:
    return Workload(
        name=f"{dataset}-{shots}shot-{classes}way",
        title=f"{label}, {shots}-shot {classes}-way",
        config=paper_config(dataset, classes=classes, shots=shots, transductive=True),
        threads=RunOptions().threads(dataset),  # as a run sets them
        **values,
    )


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        _workload("omniglot", "Omniglot", 5, 1, eval_tasks=32),
        _workload("omniglot", "Omniglot", 20, 1, eval_tasks=16),
        _workload("miniimagenet", "Mini-ImageNet", 5, 1, eval_tasks=4),
    )
}
"""Name of a row -> the row."""
