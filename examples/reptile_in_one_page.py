"""Reptile in one page of plain Keras: learn to tell 5 new characters apart from 1 image of each.

    python examples/reptile_in_one_page.py                  # glyphs; a few minutes
    python examples/reptile_in_one_page.py omniglot 100000  # the paper's training; a few days

Section and table numbers are those of "On First-Order Meta-Learning Algorithms" (Nichol, Achiam
& Schulman, 2018). The package itself does the same, step for step, many times faster.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

import supervised_reptile as sr  # for the images, nothing else

WAYS, SHOTS, TRAIN_SHOTS = 5, 1, 10  # classes per task, images per class, and in training
META_BATCH, INNER_STEPS, INNER_BATCH = 5, 5, 10  # tasks per update of φ; steps to φ̃ (Table 3)
EVAL_STEPS, EVAL_BATCH = 50, 5


# --- the algorithm ---
cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")


def inner_loop(model, optimizer, mini_batches):
    """Learn one task: one step of the optimizer per mini-batch takes φ to φ̃."""
    for images, labels in mini_batches:
        with tf.GradientTape() as tape:
            loss = cross_entropy(labels, model(images))  # a sum, not a mean
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)


def reptile(model, optimizer, draw_tasks, meta_iterations):
    """Learn to learn: move φ towards the mean of the φ̃ that the tasks lead to (Algorithm 2)."""
    for i in range(meta_iterations):
        epsilon = 1 - i / meta_iterations  # the outer step size falls from 1 to 0
        phi, learned = model.get_weights(), []
        for mini_batches in draw_tasks():
            model.set_weights(phi)  # each task starts from φ, but Adam's moments run on
            inner_loop(model, optimizer, mini_batches)
            learned.append(model.get_weights())
        mean = [np.mean(weights, axis=0) for weights in zip(*learned, strict=True)]
        # φ ← φ + ε (mean φ̃ − φ)
        model.set_weights([w + epsilon * (m - w) for w, m in zip(phi, mean, strict=True)])


# --- what it needs ---
class BatchStatistics(keras.layers.Layer):
    """Batch normalization by the batch at hand, never by moving averages (Sec. 6.1)."""

    def build(self, shape):
        """Make γ and β of each channel."""
        self.gamma = self.add_weight(shape=shape[-1:], initializer="ones")
        self.beta = self.add_weight(shape=shape[-1:], initializer="zeros")

    def call(self, x):
        """Normalize [batch, height, width, channels]."""
        mean, variance = keras.ops.moments(x, axes=(0, 1, 2))
        return self.gamma * (x - mean) / keras.ops.sqrt(variance + 1e-3) + self.beta


def network():
    """The paper's network for Omniglot: images [batch, 28, 28, 1] to logits [batch, WAYS]."""
    layers = [keras.Input((28, 28, 1))]
    for _ in range(4):
        layers += [keras.layers.Conv2D(64, 3, strides=2, padding="same"), BatchStatistics()]
        layers += [keras.layers.ReLU()]
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(WAYS)])


def adam():
    """The inner optimizer of the paper: Adam without momentum (Table 3)."""
    return keras.optimizers.Adam(0.001, beta_1=0, beta_2=0.999, epsilon=1e-8)


def draw_task(rng, dataset, split, shots):
    """Draw WAYS classes and some images of each: images [WAYS, shots, 28, 28, 1], labels alike."""
    classes = rng.choice(dataset.splits[split], WAYS, replace=False)
    first, end = dataset.class_offsets[classes], dataset.class_offsets[classes + 1]
    rows = [a + rng.choice(b - a, shots, replace=False) for a, b in zip(first, end, strict=True)]
    return dataset.images[rows] * dataset.pixel_scale, np.indices((WAYS, shots))[0]


def deal(rng, images, labels, batch, steps):
    """Deal mini-batches from a shuffled task; shuffle again whenever it runs out, even midway."""
    images, labels = images.reshape(-1, 28, 28, 1), labels.ravel()
    passes = -(-batch * steps // len(labels))
    order = np.concatenate([rng.permutation(len(labels)) for _ in range(passes)])
    return [(images[rows], labels[rows]) for rows in order[: batch * steps].reshape(steps, batch)]


def evaluate(rng, model, optimizer, dataset, tasks):
    """Accuracy on new classes: fine-tune on SHOTS images of each, then classify one more."""
    variables = [*model.variables, *optimizer.variables]
    trained, right = [v.numpy() for v in variables], []
    for _ in range(tasks):
        images, labels = draw_task(rng, dataset, "test", SHOTS + 1)
        support = deal(rng, images[:, :-1], labels[:, :-1], EVAL_BATCH, EVAL_STEPS)
        inner_loop(model, optimizer, support)
        right.append(np.argmax(model(images[:, -1]), axis=-1) == labels[:, -1])
        for variable, value in zip(variables, trained, strict=True):
            variable.assign(value)  # the next task starts from φ and Adam's moments again
    return np.mean(right)


def main(name="glyphs", meta_iterations=50):
    """Meta-train, and report the accuracy on new classes."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    dataset, model, optimizer = sr.load_dataset(name), network(), adam()

    def draw_tasks():
        tasks = (draw_task(rng, dataset, "train", TRAIN_SHOTS) for _ in range(META_BATCH))
        return [deal(rng, *task, INNER_BATCH, INNER_STEPS) for task in tasks]

    reptile(model, optimizer, draw_tasks, meta_iterations)
    print(f"{evaluate(rng, model, optimizer, dataset, tasks=10):.0%} of new characters correct")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
