"""Meta-train a model of your own on tasks of your own: is a point inside a circle or outside?

Each task is another circle. After meta-training, 20 labeled points are enough to locate it.
"""

import keras
import numpy as np

import supervised_reptile as sr


def draw_task(rng, queries=100):
    """One circle: points in the plane and labels, 20 to learn from and some as queries."""
    center, radius = rng.uniform(-1, 1, 2), rng.uniform(0.7, 1.3)
    points = rng.uniform(-2, 2, (20 + queries, 2))
    labels = (np.linalg.norm(points - center, axis=1) < radius).astype(int)
    return points[:20], labels[:20], points[20:], labels[20:]


keras.utils.set_random_seed(0)
hidden = [keras.layers.Dense(64, activation="relu") for _ in range(2)]
model = keras.Sequential([keras.Input((2,)), *hidden, keras.layers.Dense(2)])
learner = sr.Reptile(model, inner_optimizer=keras.optimizers.SGD(0.01), jit_compile=True)
learner.fit(
    lambda rng: draw_task(rng)[:2],
    sr.FitSettings(inner_iters=10),
    epochs=10,
    steps_per_epoch=200,
    steps_per_execution=100,
    validation_tasks=draw_task,
    validation_steps=200,
    metrics=["accuracy"],
    callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)],
)
points, labels, queries, answers = draw_task(np.random.default_rng(1))
classifier = sr.adapt(model, points, labels, value_range=None)
print(f"a new circle: {np.mean(classifier.predict(queries).argmax(axis=1) == answers):.0%} right")
