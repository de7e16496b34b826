"""Keras callbacks of a run: the flag ``--callbacks module:factory``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from supervised_reptile.config.declaration import require
from supervised_reptile.meta_learner import MetaLearner


def load_callbacks(names: str) -> list[keras.callbacks.Callback]:
    """Make the callbacks that ``--callbacks`` names.

    Args:
        names: "module:factory", or several of them separated by commas. The factory is a function
            without arguments, or a class, in a module that is installed or in the current folder.

    Raises:
        ConfigError: There is no such module or factory, or it makes something else.
    """
    here = str(Path.cwd())
    if names and here not in sys.path:
        sys.path.append(here)
    return [_load(name) for name in names.split(",") if name]


def _load(name: str) -> keras.callbacks.Callback:
    module_name, _, factory_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        require(False, "callbacks", f"the module cannot be imported ({error})", name)
    factory: Any = getattr(module, factory_name, None)
    rule = f"the module has no function {factory_name!r}"
    require(callable(factory), "callbacks", rule, name)
    callback = factory()
    rule = f"must make a keras.callbacks.Callback, not {type(callback).__name__}"
    require(isinstance(callback, keras.callbacks.Callback), "callbacks", rule, name)
    return callback


class CallbackCalls:
    """Calls the callbacks of a run as Keras' ``fit`` and ``evaluate`` do.

    A batch is a meta-iteration, an epoch is ``--eval_interval`` of them. The callbacks receive the
    learner's model, compiled with the loss and the inner optimizer, whose state is that of the
    learner at the start and end of each epoch. They watch the run: only ``model.stop_training``
    has an effect on it.

    Args:
        learner: The learner of the run.
        callbacks: The callbacks, often none.
        iterations: Number of meta-iterations of the run.
        epoch: Number of meta-iterations in an epoch.
    """

    def __init__(
        self,
        learner: MetaLearner,
        callbacks: Sequence[keras.callbacks.Callback],
        iterations: int,
        epoch: int,
    ) -> None:
        self._model, self._weights = learner.model, learner.inner_loop.fast_weights
        self._iterations, self._epoch = iterations, epoch
        self._watched = bool(callbacks)
        if self._watched:
            optimizer = self._weights.optimizer_for(self._model.trainable_variables)
            self._model.compile(optimizer, learner.loss, auto_scale_loss=False)
        self._model.stop_training = False
        epochs = -(-iterations // epoch)
        self._list = keras.callbacks.CallbackList(
            list(callbacks), model=self._model, epochs=epochs, steps=epoch, verbose=0
        )
        self._losses: list[float] = []
        self._logs: dict[str, float] = {}

    @property
    def wants_to_stop(self) -> bool:
        """Whether a callback has set ``model.stop_training``."""
        return self._model.stop_training

    def train_begin(self) -> None:
        """Call ``on_train_begin``."""
        self._give_state()
        self._list.on_train_begin()

    def announced(self, iterations: range) -> Iterator[int]:
        """Yield the meta-iterations, each after ``on_epoch_begin`` and ``on_train_batch_begin``."""
        for iteration in iterations:
            epoch, batch = divmod(iteration, self._epoch)
            if batch == 0 or iteration == iterations.start:
                self._losses, self._logs = [], {}
                self._list.on_epoch_begin(epoch)
            self._list.on_train_batch_begin(batch)
            yield iteration

    def iteration_end(
        self, iteration: int, meta_step: float, loss: float, accuracies: Mapping[str, float]
    ) -> None:
        """Call ``on_train_batch_end`` and, if this was the last one, ``on_epoch_end``.

        Args:
            iteration: The meta-iteration.
            meta_step: ε, the outer step size.
            loss: Inner loss per example.
            accuracies: Accuracy of each split if the learning curve has a point here, else empty.
        """
        epoch, batch = divmod(iteration, self._epoch)
        self._losses.append(loss)
        logs = {"loss": float(np.mean(self._losses)), "meta_step": meta_step}
        self._list.on_train_batch_end(batch, logs)
        self._logs |= logs | _named(accuracies)
        if batch == self._epoch - 1 or iteration == self._iterations - 1:
            self._give_state()
            self._list.on_epoch_end(epoch, dict(self._logs))

    def train_end(self) -> None:
        """Call ``on_train_end``."""
        self._list.on_train_end(dict(self._logs))

    def test_begin(self) -> None:
        """Call ``on_test_begin``."""
        self._give_state()
        self._list.on_test_begin()

    def test_end(self, accuracies: Mapping[str, float]) -> None:
        """Call ``on_test_end`` with the mean accuracy of each split."""
        self._list.on_test_end(_named(accuracies))

    def _give_state(self) -> None:
        if self._watched:
            self._weights.give_optimizer_state(self._model.optimizer)


def _named(accuracies: Mapping[str, float]) -> dict[str, float]:
    return {f"{split}_accuracy": value for split, value in accuracies.items()}
