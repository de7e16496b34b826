"""The package and the TensorFlow programs it is compared with.

All compute the same thing: the paper's network with batch-statistics normalization, the summed
loss, Adam with β1 = 0 and ε = 1e-8 whose slots run on from task to task, and after the n tasks of
a meta-batch φ ← φ + ε · mean_i(φ̃_i − φ). They draw their tasks with the package's own sampler,
as that is not what they differ in.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.workloads import BLOCKS, Workload
from supervised_reptile.learners import learner_from_config
from supervised_reptile.models import NORMALIZATION_EPSILON, miniimagenet_model, omniglot_model
from supervised_reptile.run import set_threads
from supervised_reptile.tasks import EvaluationTasks, TrainingTasks


class Contestant(abc.ABC):
    """A program that trains and evaluates one workload.

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
        """The threads in use, for people."""
        intra = tf.config.threading.get_intra_op_parallelism_threads()
        inter = tf.config.threading.get_inter_op_parallelism_threads()
        return f"{intra}/{inter}" if intra or inter else "default"

    @abc.abstractmethod
    def load(self, weights: Sequence[np.ndarray]) -> None:
        """Set φ; arrays in the order and layout of Keras."""

    @abc.abstractmethod
    def weights(self) -> list[np.ndarray]:
        """Returns φ in the order and layout of Keras."""

    @abc.abstractmethod
    def train(self, tasks: TrainingTasks, meta_step: float) -> None:
        """Run one meta-iteration to its end."""

    @abc.abstractmethod
    def evaluate(self, tasks: EvaluationTasks) -> np.ndarray:
        """Fine-tune on each task and predict its queries together; leave all state as it was.

        Returns:
            float32 [tasks, queries, classes], logits.
        """


class Ours(Contestant):
    """The package, as ``run_omniglot.py`` and its like drive it."""

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        config = workload.config
        build = {"omniglot": omniglot_model, "miniimagenet": miniimagenet_model}
        self._learner = learner_from_config(
            config,
            build[config.task.dataset](config.task.classes, seed=config.seed),
            input_scale=pixel_scale,
            lanes=workload.threads[1],
        )
        self._examples = tf.constant(images)

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


class PlainLoop(Contestant):
    """A meta-learning loop in Python and NumPy around somebody's training step.

    What all baselines share is written here, so that they differ only in how they take a step
    and how they export and import their state.
    """

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        del workload
        self._images, self._pixel_scale = images, np.float32(pixel_scale)

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """The images ``rows`` as the network sees them, float32."""
        return self._images[rows] * self._pixel_scale

    @abc.abstractmethod
    def step(self, rows: np.ndarray, labels: np.ndarray) -> None:
        """Take one inner step on the images ``rows``, int32 [batch]."""

    @abc.abstractmethod
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Returns the logits of images that share their batch statistics, float32."""

    @abc.abstractmethod
    def export_state(self) -> Any:
        """Returns a copy of weights, slots and step count."""

    @abc.abstractmethod
    def import_state(self, state: Any) -> None:
        """Set weights, slots and step count."""

    def train(self, tasks, meta_step):
        """See base class."""
        start = self.weights()
        total = [np.zeros_like(w) for w in start]
        for rows, labels in zip(*tasks.steps, strict=True):
            for batch in zip(rows, labels, strict=True):
                self.step(*batch)
            total = [t + (w - s) for t, w, s in zip(total, self.weights(), start, strict=True)]
            self.load(start)
        scale = meta_step / len(tasks.steps.indices)
        self.load([s + scale * t for s, t in zip(start, total, strict=True)])

    def evaluate(self, tasks):
        """See base class."""
        logits = []
        for rows, labels, queries in zip(*tasks.steps, tasks.queries, strict=True):
            backup = self.export_state()
            for batch in zip(rows, labels, strict=True):
                self.step(*batch)
            logits.append(self.predict(queries))
            self.import_state(backup)
        return np.stack(logits)


class KerasEager(PlainLoop):
    """Stock Keras layers, loss and optimizer with a ``GradientTape``, run eagerly."""

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        super().__init__(workload, images, pixel_scale)
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
    """The same with the training step and the prediction compiled, called once a step."""

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        super().__init__(workload, images, pixel_scale)
        self._train_on = tf.function(self._train_on)
        self._logits = tf.function(self._logits)


class TF1Style(PlainLoop):
    """A graph and a session, as programs of 2018 were built: one ``session.run`` a step."""

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        super().__init__(workload, images, pixel_scale)
        network, inner, v1 = workload.network, workload.config.inner, tf.compat.v1
        with tf.Graph().as_default() as graph:
            self._fed_images = v1.placeholder(tf.float32, [None, *network.image])
            self._fed_labels = v1.placeholder(tf.int32, [None])
            variables = [
                v1.get_variable(
                    f"weight{number}", shape, tf.float32, v1.zeros_initializer(), use_resource=False
                )
                for number, shape in enumerate(network.weight_shapes)
            ]
            self._logits = _tf1_network(self._fed_images, variables, workload)
            losses = v1.nn.sparse_softmax_cross_entropy_with_logits(
                labels=self._fed_labels, logits=self._logits
            )
            # The gradient of a vector of losses is the gradient of their sum.
            self._minimize = v1.train.AdamOptimizer(
                inner.learning_rate, inner.beta_1, inner.beta_2, inner.epsilon
            ).minimize(losses)
            self._weights = _Exchange(variables)
            self._state = _Exchange(v1.global_variables())
            self._session = v1.Session(graph=graph)
            self._session.run(v1.global_variables_initializer())
            graph.finalize()

    def load(self, weights):
        """See base class."""
        self._weights.put(self._session, weights)

    def weights(self):
        """See base class."""
        return self._weights.get(self._session)

    def step(self, rows, labels):
        """See base class."""
        feed = {self._fed_images: self.pixels(rows), self._fed_labels: labels}
        self._session.run(self._minimize, feed_dict=feed)

    def predict(self, rows):
        """See base class."""
        return self._session.run(self._logits, feed_dict={self._fed_images: self.pixels(rows)})

    def export_state(self):
        """See base class."""
        return self._state.get(self._session)

    def import_state(self, state):
        """See base class."""
        self._state.put(self._session, state)


class _Exchange:
    """Moves a list of TF1 variables out of a session and in again."""

    def __init__(self, variables: Sequence[tf.compat.v1.Variable]) -> None:
        v1 = tf.compat.v1
        self._variables = list(variables)
        self._values = [v1.placeholder(v.dtype.base_dtype, v.shape) for v in variables]
        pairs = zip(variables, self._values, strict=True)
        self._assign = tf.group(*[v1.assign(variable, value) for variable, value in pairs])

    def get(self, session: tf.compat.v1.Session) -> list[np.ndarray]:
        return session.run(self._variables)

    def put(self, session: tf.compat.v1.Session, values: Sequence[np.ndarray]) -> None:
        session.run(self._assign, feed_dict=dict(zip(self._values, values, strict=True)))


def stock_model(workload: Workload) -> keras.Model:
    """The network as the Keras guides would have it, with ``BatchNormalization``."""
    network, layers = workload.network, keras.layers
    inputs = x = keras.Input(network.image)
    for _ in range(BLOCKS):
        x = layers.Conv2D(network.filters, 3, strides=network.stride, padding="same")(x)
        x = layers.BatchNormalization(epsilon=NORMALIZATION_EPSILON)(x)
        if network.pool:
            x = layers.MaxPooling2D(2, padding="same")(x)
        x = layers.ReLU()(x)
    return keras.Model(inputs, layers.Dense(network.classes)(layers.Flatten()(x)))


def _tf1_network(
    images: tf.Tensor, weights: Sequence[tf.compat.v1.Variable], workload: Workload
) -> tf.Tensor:
    network, v1 = workload.network, tf.compat.v1
    stride, x = network.stride, images
    for block in range(BLOCKS):
        kernel, bias, gamma, beta = weights[4 * block : 4 * block + 4]
        x = v1.nn.conv2d(x, kernel, strides=[1, stride, stride, 1], padding="SAME")
        x = v1.nn.bias_add(x, bias)
        x, *_ = v1.nn.fused_batch_norm(
            x, gamma, beta, epsilon=NORMALIZATION_EPSILON, is_training=True
        )
        if network.pool:
            x = v1.nn.max_pool(x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME")
        x = tf.nn.relu(x)
    kernel, bias = weights[4 * BLOCKS :]
    return v1.nn.bias_add(tf.matmul(tf.reshape(x, [-1, kernel.shape[0]]), kernel), bias)
