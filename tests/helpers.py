"""Small things that several tests build."""

from pathlib import Path

import keras
import numpy as np
import pytest

from supervised_reptile import tasks
from supervised_reptile.config import paper_config
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.from_config import evaluation_spec, training_spec

PROJECT = Path(__file__).resolve().parents[1]


DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def document_code(name):
    """The code block after the marker "<!-- test: NAME -->" in the README or in docs/."""
    marker = f"<!-- test: {name} -->\n"
    (text,) = (text for text in map(Path.read_text, DOCUMENTS) if marker in text)
    fence, _, code = text.partition(marker)[2].partition("\n")
    assert fence == "```python"
    return code.partition("```")[0]


def exit_code(main, argv):
    """What a program exits with, called here; 0 for success."""
    with pytest.raises(SystemExit) as stop:
        main(argv)
    return stop.value.code or 0


def one_page_algorithm():
    """The part of examples/reptile_in_one_page.py that the README shows."""
    text = (PROJECT / "examples" / "reptile_in_one_page.py").read_text()
    _, begin, rest = text.partition("# --- the algorithm ---\n")
    algorithm, end, _ = rest.partition("# --- what it needs ---\n")
    assert begin and end
    return algorithm.rstrip() + "\n"


def tiny_config(**overrides):
    """A configuration small enough for a test; it stands for the data of `vector_dataset`."""
    values = {
        "classes": 3,
        "shots": 2,
        "train_shots": 4,
        "inner_batch": 5,
        "inner_iters": 4,
        "meta_batch": 3,
        "meta_iters": 4,
        "eval_batch": 4,
        "eval_iters": 3,
        "eval_samples": 6,
    }
    return paper_config("glyphs", **(values | overrides))


def vector_dataset(seed=0, classes=12, examples=8, size=3, extra=0):
    """Random images of `classes` classes, two thirds of them for training.

    `extra` makes every second class that much larger.
    """
    rng = np.random.default_rng(seed)
    sizes = np.where(np.arange(classes) % 2, examples + extra, examples)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    cut = classes * 2 // 3
    return FewShotDataset(
        name="glyphs",
        images=rng.integers(0, 2, (offsets[-1], size, size, 1), dtype=np.uint8),
        class_offsets=offsets,
        class_names=tuple(f"class {i}" for i in range(classes)),
        splits={"train": np.arange(cut), "test": np.arange(cut, classes)},
        pixel_scale=1.0,
    )


def dense_model(size=3, classes=3, seed=0):
    """The Keras twin of `numpy_reference.DenseNet` on flattened images."""
    initial = keras.initializers.RandomNormal(stddev=0.4, seed=seed)
    return keras.Sequential(
        [
            keras.Input((size, size, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(7, activation="tanh", kernel_initializer=initial),
            keras.layers.Dense(classes, kernel_initializer=initial),
        ]
    )


def training_tasks(rng, dataset, config, split="train"):
    """The meta-batch of a configuration."""
    return tasks.training_tasks(
        rng, dataset, training_spec(config), config.meta.meta_batch, split=split
    )


def evaluation_tasks(seed, stream, dataset, split, config, positions):
    """Evaluation tasks of a configuration."""
    return tasks.evaluation_tasks(seed, stream, dataset, split, evaluation_spec(config), positions)
