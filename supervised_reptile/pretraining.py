"""Pre-training: an ordinary classifier of all training classes, for Reptile to start from."""

from __future__ import annotations

import json
import math
import signal
import time
from pathlib import Path

import keras
import numpy as np

from supervised_reptile.config import Config
from supervised_reptile.curve import write_whole
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import RunError, RunInterrupted
from supervised_reptile.models import model_from_config
from supervised_reptile.paper import dataset_facts
from supervised_reptile.tasks import random_stream

BATCH = 128
LEARNING_RATE = 0.001
HELD_OUT = 0.1
"""Share of the images of each class that only the validation loss is measured on."""
PATIENCE = 3
"""Epochs without a lower validation loss after which it counts as flat."""
MAX_EPOCHS = 200

_DEPENDS_ON = ("dataset", "filters", "image_size", "resize", "seed")
_MODEL, _HISTORY, _CONFIG = "classifier.keras", "history.csv", "config.json"


class ImageBatches(keras.utils.PyDataset):
    """Mini-batches of labelled images for Keras' ``fit``, in a new order every epoch.

    Args:
        dataset: Where the images are.
        rows: Which of them, int64 [n].
        labels: Their classes, int32 [n].
        batch: Images in a mini-batch.
        rng: Shuffles them.
    """

    def __init__(
        self,
        dataset: FewShotDataset,
        rows: np.ndarray,
        labels: np.ndarray,
        batch: int,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        self._dataset, self._rows, self._labels = dataset, rows, labels
        self._batch, self._rng = batch, rng
        self.on_epoch_end()

    def __len__(self) -> int:
        """Number of mini-batches of an epoch; the last may be smaller."""
        return math.ceil(len(self._rows) / self._batch)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Images float32 [batch, height, width, channels] and labels int32 [batch]."""
        mine = self._order[index * self._batch : (index + 1) * self._batch]
        images = self._dataset.images[self._rows[mine]]
        return images * np.float32(self._dataset.pixel_scale), self._labels[mine]

    def on_epoch_end(self) -> None:
        """Shuffle anew."""
        self._order = self._rng.permutation(len(self._rows))


def start_from_classifier(
    model: keras.Model, dataset: FewShotDataset, config: Config, directory: Path, *, progress: bool
) -> None:
    """Give a model the weights of a classifier of all training classes, but for the last layer.

    The classifier is the same network with an output for each class of the training split (of
    Omniglot 4800: every rotation is a class) and is trained with Adam until its loss on
    held-out images of these classes is flat. Before each step every weight is multiplied by the
    review's factor (Sec. 6.5), 0.999 for Omniglot and 0.99 for photographs. What the facts at hand
    do not give is ours: Adam with Keras' own constants, mini-batches of 128, one image in ten
    held out, the weights of the epoch of the lowest validation loss, which is flat after three
    epochs without a lower one.

    It is trained once: ``directory`` keeps the classifier (``classifier.keras``), the loss and
    accuracy of each epoch (``history.csv``), what it depends on (``config.json``) and, until it
    is done, the newest epoch. One that was stopped goes on from there, with another order of the
    images than it would have had.

    Args:
        model: Takes the weights.
        dataset: Supplies the images.
        config: Supplies dataset, filters, image_size, resize and seed.
        directory: Where the classifier is kept.
        progress: Whether to show a progress bar, rather than a line each epoch.

    Raises:
        RunError: The directory holds the classifier of another network, data set or seed.
        RunInterrupted: Ctrl-C was pressed.
    """
    known = config.flat()
    facts = {name: known[name] for name in _DEPENDS_ON}
    described = directory / _CONFIG
    if described.exists() and (found := json.loads(described.read_text())) != facts:
        changed = ", ".join(f"{n}: {found.get(n)} -> {v}" for n, v in facts.items())
        raise RunError(f"--pretraining_dir: {directory} holds another classifier ({changed})")
    if not (directory / _MODEL).exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(described, json.dumps(facts, indent=2) + "\n")
        try:
            _train(dataset, config, directory, progress=progress)
        except KeyboardInterrupt:
            raise RunInterrupted(
                "stopped in the pre-training; the same command goes on from its last epoch",
                signal.SIGINT,
            ) from None
    classifier = keras.models.load_model(directory / _MODEL)
    for layer in model.layers[:-1]:
        layer.set_weights(classifier.get_layer(layer.name).get_weights())
    print(f"starting from the classifier in {directory}", flush=True)


def training_and_held_out(
    dataset: FewShotDataset, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Deal the images of each training class into two parts.

    Args:
        dataset: Supplies the classes; each has at least 2 images.
        rng: Draws which are held out.

    Returns:
        Rows int64 [n] and labels int32 [n], 0 … classes − 1, of either part.
    """
    kept, held_out = [], []
    ids = dataset.splits["train"]
    for label, class_id in enumerate(ids):
        rows = np.arange(*dataset.class_offsets[class_id : class_id + 2])
        rows = rng.permutation(rows)
        count = max(1, round(HELD_OUT * len(rows)))
        held_out += [(row, label) for row in rows[:count]]
        kept += [(row, label) for row in rows[count:]]
    parts = (np.array(part).T for part in (kept, held_out))
    return tuple((rows, labels.astype(np.int32)) for rows, labels in parts)


class _Seconds(keras.callbacks.Callback):
    """Adds to what is known of each epoch how long it took."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs["seconds"] = round(time.perf_counter() - self._started, 1)


def _train(dataset: FewShotDataset, config: Config, directory: Path, *, progress: bool) -> None:
    classes = len(dataset.splits["train"])
    rng = random_stream(config.seed, "pretraining", 0)
    parts = training_and_held_out(dataset, rng)
    training, validation = (ImageBatches(dataset, *part, BATCH, rng) for part in parts)
    model = model_from_config(config.replace(freeze=0), classes)
    decay = dataset_facts(config.task.dataset).pretraining_decay
    model.compile(
        # Keras takes learning rate × weight decay × weight off each weight before each step.
        optimizer=keras.optimizers.Adam(LEARNING_RATE, weight_decay=(1 - decay) / LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    backup = directory / "backup"
    print(f"pre-training: a classifier of {classes} classes", flush=True)
    model.fit(
        training,
        validation_data=validation,
        epochs=MAX_EPOCHS,
        verbose=1 if progress else 2,
        callbacks=[
            keras.callbacks.BackupAndRestore(backup),
            _Seconds(),
            keras.callbacks.CSVLogger(directory / _HISTORY, append=backup.exists()),
            keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True),
        ],
    )
    whole = directory / f"new-{_MODEL}"
    model.save(whole)
    whole.replace(directory / _MODEL)
