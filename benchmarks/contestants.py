"""The package and the TensorFlow programs to compare it with.

All compute the same thing: the paper's network with batch-statistics normalization, the summed
loss, Adam with β1 = 0 and ε = 1e-8 whose slots run on from task to task, and after the n tasks of
a meta-batch φ ← φ + ε · mean_i(φ̃_i − φ). They draw their tasks with the package's own sampler,
as that is not what they differ in.
"""

from __future__ import annotations

import abc
import subprocess
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import tf1_session
from benchmarks.plain_loop import PlainLoop, Program
from benchmarks.processes import last_line
from benchmarks.tf1_session import TF1Session
from benchmarks.workloads import BLOCKS, Workload
from supervised_reptile.from_config import learner_from_config
from supervised_reptile.models import NORMALIZATION_EPSILON, miniimagenet_model, omniglot_model
from supervised_reptile.startup import set_threads


class Contestant(Program):
    """A program in a TensorFlow 2 process.

    Args:
        workload: What to run.
        images: uint8 [num_images, height, width, channels], all images.
        pixel_scale: Factor from ``images`` to the network's input.
    """

    @abc.abstractmethod
    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        pass

    @staticmethod
    def set_threads(intra: int, inter: int) -> None:
        """Set the process' threads, before anything is computed; 0 is TensorFlow's default."""
        set_threads(intra, inter)

    @staticmethod
    def threads() -> str:
        """Return the threads in use, in readable form."""
        intra = tf.config.threading.get_intra_op_parallelism_threads()
        inter = tf.config.threading.get_inter_op_parallelism_threads()
        return f"{intra}/{inter}" if intra or inter else "default"


class Ours(Contestant):
    """The package, used as in ``run_omniglot.py``."""

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        config = workload.config
        build = {"omniglot": omniglot_model, "miniimagenet": miniimagenet_model}
        self._learner = learner_from_config(
            config,
            build[config.task.dataset](config.task.classes, seed=config.seed),
            input_scale=pixel_scale,
            lanes=workload.threads[1],
        )
        self._examples = images

    def load(self, weights):
        """See base class."""
        self._learner.model.set_weights(weights)

    def weights(self):
        """See base class."""
        return self._learner.model.get_weights()

    def train(self, tasks, meta_step):
        """See base class."""
        float(self._learner.train_step(self._examples, tasks, meta_step))

    def evaluate(self, tasks):
        """See base class."""
        return self._learner.predict_tasks(self._examples, tasks, transductive=True)


class KerasEager(PlainLoop, Contestant):
    """Stock Keras layers, loss and optimizer with a ``GradientTape``, run eagerly."""

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        super().__init__(images, pixel_scale)
        self._model = stock_model(workload)
        inner = workload.config.inner
        self._optimizer = keras.optimizers.Adam(
            inner.learning_rate, beta_1=inner.beta_1, beta_2=inner.beta_2, epsilon=inner.epsilon
        )
        self._optimizer.build(self._model.trainable_variables)
        self._loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")

    def load(self, weights):
        """See base class."""
        for variable, value in zip(self._model.trainable_variables, weights, strict=True):
            variable.assign(value)

    def weights(self):
        """See base class."""
        return [variable.numpy() for variable in self._model.trainable_variables]

    def step(self, rows, labels):
        """See base class."""
        self._train_on(tf.constant(self.pixels(rows)), tf.constant(labels))

    def predict(self, rows):
        """See base class."""
        return self._logits(tf.constant(self.pixels(rows))).numpy()

    def export_state(self):
        """See base class."""
        return [variable.numpy() for variable in self._state()]

    def import_state(self, state):
        """See base class."""
        for variable, value in zip(self._state(), state, strict=True):
            variable.assign(value)

    def _state(self) -> list[keras.Variable]:
        return [*self._model.variables, *self._optimizer.variables]

    def _train_on(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = self._loss(labels, self._logits(images))
        variables = self._model.trainable_variables
        self._optimizer.apply(tape.gradient(loss, variables), variables)

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        return self._model(images, training=True)


class KerasStep(KerasEager):
    """The same with the training step and the prediction compiled, called once per step."""

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        super().__init__(workload, images, pixel_scale)
        self._train_on = tf.function(self._train_on)
        self._logits = tf.function(self._logits)


class TF1Style(TF1Session, Contestant):
    """The program for TensorFlow 1, on TensorFlow 2."""

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        super().__init__(images, pixel_scale, **_session_settings(workload))


class TensorFlow1(Contestant):
    """The same program on TensorFlow 1, in a separate interpreter.

    A meta-iteration takes one request and one reply, and so does a call with evaluation tasks.

    Args:
        workload: As of the base class.
        images: As of the base class.
        pixel_scale: As of the base class.
        interpreter: Path of the interpreter.

    Attributes:
        runs_on: Its versions, for people.

    Raises:
        RuntimeError: The process ended. The message contains its last line of output.
    """

    def __init__(
        self, workload: Workload, images: np.ndarray, pixel_scale: float, interpreter: str
    ) -> None:
        self._interpreter = interpreter
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            [interpreter, "-m", "benchmarks.tf1_session"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        settings = {"pixel_scale": pixel_scale, **_session_settings(workload)}
        self.runs_on, _ = self._answer_to(settings, images)

    def load(self, weights):
        """See base class."""
        self._call("load", *weights)

    def weights(self):
        """See base class."""
        return self._call("weights")

    def train(self, tasks, meta_step):
        """See base class."""
        self._call("train", *tasks.steps, np.float64(meta_step))

    def evaluate(self, tasks):
        """See base class."""
        return self._call("evaluate", *tasks.steps, tasks.queries)[0]

    def peak_megabytes(self):
        """See base class."""
        return float(self._call("peak_megabytes")[0])

    def close(self):
        """See base class."""
        self._process.communicate()
        self._errors.close()

    def _call(self, name: str, *arrays: np.ndarray) -> list[np.ndarray]:
        return self._answer_to(name, *arrays)[1]

    def _answer_to(self, call: Any, *arrays: np.ndarray) -> tuple[Any, list[np.ndarray]]:
        try:
            tf1_session.send(self._process.stdin, call, arrays)
            return tf1_session.receive(self._process.stdout)
        except (BrokenPipeError, EOFError):
            code = self._process.wait()
            reason = last_line(self._errors) or f"exit code {code}"
            raise RuntimeError(f"{self._interpreter} ended: {reason}") from None


def _session_settings(workload: Workload) -> dict[str, Any]:
    network, inner = workload.network, workload.config.inner
    return {
        "weight_shapes": network.weight_shapes,
        "stride": network.stride,
        "pool": network.pool,
        "normalization_epsilon": NORMALIZATION_EPSILON,
        "adam": [inner.learning_rate, inner.beta_1, inner.beta_2, inner.epsilon],
        "threads": [
            tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads(),
        ],
    }


def stock_model(workload: Workload) -> keras.Model:
    """Build the network as in the Keras guides, with ``BatchNormalization``."""
    network, layers = workload.network, keras.layers
    inputs = x = keras.Input(network.image)
    for _ in range(BLOCKS):
        x = layers.Conv2D(network.filters, 3, strides=network.stride, padding="same")(x)
        x = layers.BatchNormalization(epsilon=NORMALIZATION_EPSILON)(x)
        if network.pool:
            x = layers.MaxPooling2D(2, padding="same")(x)
        x = layers.ReLU()(x)
    return keras.Model(inputs, layers.Dense(network.classes)(layers.Flatten()(x)))
