"""A frozen backbone with a new head: inner steps next to Keras' train_on_batch.

    python -m benchmarks.backbone

Processor seconds per step, in turn; the medians and ratios go to results/benchmarks/backbone.json.
"""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from supervised_reptile.config.command_line import run_program
from supervised_reptile.startup import import_tensorflow

BATCH, STEPS, ROUNDS = 10, 20, 12


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    run_program(_measure, {}, argv, __doc__)


def _measure() -> None:
    """Measure, print and write."""
    import_tensorflow()
    import keras
    import numpy as np

    import supervised_reptile as sr
    from supervised_reptile.keras_api.array_tasks import tasks_of_arrays
    from supervised_reptile.runs.record import environment

    rng = np.random.default_rng(0)
    images = rng.random((BATCH, 32, 32, 3), np.float32)
    labels = np.arange(BATCH, dtype=np.int32) % 5
    backbone = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, include_top=False, pooling="avg", weights=None
    )
    backbone.trainable = False

    def with_head(start: keras.Model | None) -> keras.Model:
        shape = (32, 32, 3) if start else backbone.output_shape[1:]
        inputs = keras.Input(shape)
        x = start(inputs) if start else inputs
        return keras.Model(inputs, keras.layers.Dense(5)(x))

    def inner_steps(model: keras.Model, examples: np.ndarray):
        learner = sr.Reptile(model, inner_optimizer="adam")
        table, tasks = tasks_of_arrays(rng, examples[None], labels[None], batch=BATCH, steps=STEPS)
        return lambda: float(learner.train_step(table, tasks, 0.0))

    def keras_steps():
        model = with_head(backbone)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer="adam", loss=loss)
        return lambda: [model.train_on_batch(images, labels) for _ in range(STEPS)]

    programs = {
        "train_on_batch": keras_steps(),
        "inner steps": inner_steps(with_head(backbone), images),
        "inner steps on computed features": inner_steps(
            with_head(None), backbone.predict(images, verbose=0)
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(1 + ROUNDS):  # the first traces and is not counted
        for name, run in programs.items():
            started = time.process_time()
            run()
            seconds[name].append((time.process_time() - started) / STEPS)
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    ratios = {name: each / medians["train_on_batch"] for name, each in medians.items()}
    for name, ratio in ratios.items():
        print(f"{name:<34} {ratio:.2f} of the processor time of train_on_batch")
    text = json.dumps(
        {"seconds": medians, "ratios": ratios, "environment": environment()}, indent=2
    )
    Path("results/benchmarks/backbone.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
