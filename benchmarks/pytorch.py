"""The PyTorch program: channels-last memory, fused Adam, batch norm by batch statistics.

Its own file, as it may be run by an interpreter that has PyTorch but no TensorFlow.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.plain_loop import Program
from benchmarks.workloads import BLOCKS, NORMALIZATION_EPSILON, Network, Workload


class _Block(nn.Module):
    def __init__(self, channels: int, network: Network) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, network.filters, 3, network.stride, padding=1)
        self.gamma = nn.Parameter(torch.ones(network.filters))
        self.beta = nn.Parameter(torch.zeros(network.filters))
        self._pool = network.pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x)
        x = F.batch_norm(
            x, None, None, self.gamma, self.beta, training=True, eps=NORMALIZATION_EPSILON
        )
        if self._pool:
            x = F.max_pool2d(x, 2, ceil_mode=True)  # like TensorFlow's SAME
        return F.relu(x)


class _Network(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[_Block(c, network) for c, _ in network.convolutions()])
        self.logits = nn.Linear(int(np.prod(network.feature_shape)), network.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Keras flattens height, width, channels; channels-last memory needs no copy.
        return self.logits(self.blocks(x).permute(0, 2, 3, 1).flatten(1))


class PyTorch(Program):
    """The program.

    With stride 2 and even sizes TensorFlow's SAME pads at the bottom and right, PyTorch's
    ``padding=1`` at the top and left. The same function is computed without a slow extra padding
    operation by turning images and kernels upside down and left to right.
    """

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        network, inner = workload.network, workload.config.inner
        self._flipped = network.stride == 2
        self._feature_shape = network.feature_shape
        if self._flipped:
            images = np.ascontiguousarray(images[:, ::-1, ::-1])
        self._images, self._pixel_scale = torch.from_numpy(images), pixel_scale
        self._model = _Network(network).to(memory_format=torch.channels_last)
        self._training_model: nn.Module = self._model
        self._optimizer = torch.optim.Adam(
            self._model.parameters(),
            lr=inner.learning_rate,
            betas=(inner.beta_1, inner.beta_2),
            eps=inner.epsilon,
            fused=True,
        )

    @staticmethod
    def set_threads(intra: int, inter: int) -> None:
        """Set the threads inside an operation; this program runs one operation at a time."""
        del inter
        torch.set_num_threads(intra)

    @staticmethod
    def threads() -> str:
        """Return the threads in use, in readable form."""
        return str(torch.get_num_threads())

    def load(self, weights):
        """See base class."""
        with torch.no_grad():
            for parameter, value in zip(self._parameters(), weights, strict=True):
                value = self._flip(value)
                if value.ndim == 4:
                    value = value.transpose(3, 2, 0, 1)
                elif value.ndim == 2:
                    value = value.T
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def weights(self):
        """See base class."""
        values = []
        for parameter in self._parameters():
            value = parameter.detach().numpy()
            if value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)
            elif value.ndim == 2:
                value = value.T
            values.append(self._flip(value).copy())
        return values

    def train(self, tasks, meta_step):
        """See base class."""
        parameters = list(self._model.parameters())
        start = [p.detach().clone() for p in parameters]
        total = [torch.zeros_like(p) for p in start]
        for rows, labels in zip(*tasks.steps, strict=True):
            self._steps(rows, labels)
            with torch.no_grad():
                for sum_, now, before in zip(total, parameters, start, strict=True):
                    sum_.add_(now - before)
                    now.copy_(before)
        with torch.no_grad():
            for parameter, sum_ in zip(parameters, total, strict=True):
                parameter.add_(sum_, alpha=meta_step / len(tasks.steps.indices))

    def evaluate(self, tasks):
        """See base class."""
        logits = []
        for rows, labels, queries in zip(*tasks.steps, tasks.queries, strict=True):
            backup = copy.deepcopy((self._model.state_dict(), self._optimizer.state_dict()))
            self._steps(rows, labels)
            with torch.no_grad():
                logits.append(self._model(self._batch(queries)).numpy())
            self._model.load_state_dict(backup[0])
            self._optimizer.load_state_dict(backup[1])
        return np.stack(logits)

    def _steps(self, rows: np.ndarray, labels: np.ndarray) -> None:
        for batch, targets in zip(rows, torch.from_numpy(labels).long(), strict=True):
            self._optimizer.zero_grad(set_to_none=True)
            logits = self._training_model(self._batch(batch))
            F.cross_entropy(logits, targets, reduction="sum").backward()
            self._optimizer.step()

    def _batch(self, rows: np.ndarray) -> torch.Tensor:
        """Return images in channels-last memory, float32 [batch, channels, height, width]."""
        pixels = self._images[torch.from_numpy(rows).long()].float() * self._pixel_scale
        return pixels.permute(0, 3, 1, 2)

    def _parameters(self) -> list[nn.Parameter]:
        """Return the weights in the order of Keras."""
        ordered = []
        for block in self._model.blocks:
            ordered += [
                block.convolution.weight,
                block.convolution.bias,
                block.gamma,
                block.beta,
            ]
        assert len(ordered) == 4 * BLOCKS
        return [*ordered, self._model.logits.weight, self._model.logits.bias]

    def _flip(self, value: np.ndarray) -> np.ndarray:
        """Turn a weight in Keras' layout upside down and left to right, where images are."""
        if not self._flipped or value.ndim == 1:
            return value
        if value.ndim == 4:
            return value[::-1, ::-1]
        return value.reshape(*self._feature_shape, -1)[::-1, ::-1].reshape(value.shape)


class CompiledPyTorch(PyTorch):
    """The same program, whose inner steps use ``torch.compile``."""

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        super().__init__(workload, images, pixel_scale)
        self._training_model = torch.compile(self._model)
