"""A graph and a session, as in programs of 2018: one ``session.run`` per inner step.

TensorFlow 2 runs it through ``tf.compat.v1``, and TensorFlow 1 (1.8 was tried, in Python 3.6) as
``python -m benchmarks.tf1_session``, which is a server that ``contestants.TensorFlow1`` talks to.
"""

import io
import json
import os
import sys
from types import SimpleNamespace

import numpy as np

try:
    import tensorflow.compat.v1 as tf
except ImportError:  # before 1.13
    import tensorflow as tf

from benchmarks.plain_loop import PlainLoop


class TF1Session(PlainLoop):
    """The program.

    Args:
        images: As of ``PlainLoop``.
        pixel_scale: As of ``PlainLoop``.
        weight_shapes: Shapes in Keras' order: kernel, bias, γ, β of each block, then the dense
            layer's kernel and bias.
        stride: Stride of the convolutions.
        pool: Whether 2×2 max-pooling follows each normalization.
        normalization_epsilon: ε of the normalization.
        adam: Learning rate, β1, β2 and ε.
        threads: Intra-op and inter-op threads; 0 is TensorFlow's default.
    """

    def __init__(
        self,
        images,
        pixel_scale,
        weight_shapes,
        stride,
        pool,
        normalization_epsilon,
        adam,
        threads,
    ):
        super().__init__(images, pixel_scale)
        with tf.Graph().as_default() as graph:
            self._fed_images = tf.placeholder(tf.float32, (None, *images.shape[1:]))
            self._fed_labels = tf.placeholder(tf.int32, [None])
            variables = [
                tf.get_variable(
                    f"weight{number}", shape, tf.float32, tf.zeros_initializer(), use_resource=False
                )
                for number, shape in enumerate(weight_shapes)
            ]
            self._logits = _network(
                self._fed_images, variables, stride, pool, normalization_epsilon
            )
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=self._fed_labels, logits=self._logits
            )
            # The gradient of a vector of losses is the gradient of their sum.
            self._minimize = tf.train.AdamOptimizer(*adam).minimize(losses)
            self._weights = _Exchange(variables)
            self._state = _Exchange(tf.global_variables())
            config = tf.ConfigProto(
                intra_op_parallelism_threads=threads[0], inter_op_parallelism_threads=threads[1]
            )
            self._session = tf.Session(graph=graph, config=config)
            self._session.run(tf.global_variables_initializer())
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
    """Moves a list of variables out of a session and in again."""

    def __init__(self, variables):
        self._variables = list(variables)
        self._values = [tf.placeholder(v.dtype.base_dtype, v.shape) for v in variables]
        pairs = zip(self._variables, self._values)
        self._assign = tf.group(*[tf.assign(variable, value) for variable, value in pairs])

    def get(self, session):
        return session.run(self._variables)

    def put(self, session, values):
        assert len(values) == len(self._values)
        session.run(self._assign, feed_dict=dict(zip(self._values, values)))


def _network(x, weights, stride, pool, epsilon):
    *blocks, dense_kernel, dense_bias = weights
    for kernel, bias, gamma, beta in zip(*[iter(blocks)] * 4):
        x = tf.nn.conv2d(x, kernel, strides=[1, stride, stride, 1], padding="SAME")
        x = tf.nn.bias_add(x, bias)
        x, *_ = tf.nn.fused_batch_norm(x, gamma, beta, epsilon=epsilon, is_training=True)
        if pool:
            x = tf.nn.max_pool(x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME")
        x = tf.nn.relu(x)
    x = tf.reshape(x, [-1, int(dense_kernel.shape[0])])
    return tf.nn.bias_add(tf.matmul(x, dense_kernel), dense_bias)


def send(stream, call, arrays=()):
    """Write a message: anything that JSON can say, and arrays.

    Pickles would not do: those of NumPy 2 are not read by NumPy 1 of that time.
    """
    packed = io.BytesIO()
    np.savez(packed, json.dumps(call), *arrays)
    stream.write(packed.tell().to_bytes(8, "big"))
    stream.write(packed.getvalue())
    stream.flush()


def receive(stream):
    """Read a message.

    Returns:
        What JSON said and the list of arrays.

    Raises:
        EOFError: The other side has ended.
    """
    header = stream.read(8)
    size = int.from_bytes(header, "big")
    message = stream.read(size)
    if not header or len(message) < size:
        raise EOFError
    with np.load(io.BytesIO(message)) as packed:
        call, *arrays = [packed[f"arr_{number}"] for number in range(len(packed.files))]
    return json.loads(str(call)), arrays


def main():
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = sys.stdin.buffer
    settings, (images,) = receive(questions)
    program = TF1Session(images, **settings)
    versions = tf.VERSION, np.__version__, sys.version.split()[0]
    send(answers, "TensorFlow {}, NumPy {}, Python {}".format(*versions))
    calls = {
        "load": lambda *weights: program.load(weights),
        "weights": program.weights,
        "train": lambda rows, labels, meta_step: program.train(
            SimpleNamespace(steps=(rows, labels)), float(meta_step)
        ),
        "evaluate": lambda rows, labels, queries: [
            program.evaluate(SimpleNamespace(steps=(rows, labels), queries=queries))
        ],
        "peak_megabytes": lambda: [np.float64(program.peak_megabytes())],
    }
    while True:
        try:
            call, arrays = receive(questions)
        except EOFError:
            return
        send(answers, call, calls[call](*arrays) or ())


if __name__ == "__main__":
    main()
