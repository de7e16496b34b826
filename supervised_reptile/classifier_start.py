"""Pre-training: an ordinary classifier of all training classes, for Reptile to start from."""

from __future__ import annotations

import csv
import math
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.config import Config
from supervised_reptile.config.paper import dataset_facts
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import RunError, RunInterrupted, printable
from supervised_reptile.from_config import model_from_config
from supervised_reptile.runs.checkpoints import RunDirectory, save_model
from supervised_reptile.runs.files import read_text, write_table
from supervised_reptile.tasks import random_stream

BATCH = 128
LEARNING_RATE = 0.001
HELD_OUT = 0.1
"""Share of the images of each class that only the validation loss is measured on."""
PATIENCE, LEAST_GAIN = 3, 0.01
"""Epochs in which the lowest validation loss must fall by this share of it, else it is flat."""
MAX_EPOCHS = 200

_DEPENDS_ON = ("dataset", "filters", "image_size", "resize", "seed")


def start_from_classifier(
    model: keras.Model,
    dataset: FewShotDataset,
    config: Config,
    directory: Path,
    *,
    anew: bool = False,
    progress: bool = True,
) -> None:
    """Give a model the weights of a classifier of all training classes, but for the last layer.

    The classifier is the same network with an output for each class of the training split (of
    Omniglot 4800: every rotation is a class) and is trained with Adam until its loss on
    held-out images of these classes is flat. Before each step every weight is multiplied by the
    review's factor (Sec. 6.5), 0.999 for Omniglot and 0.99 for photographs. What the facts at hand
    do not give is ours: Adam with Keras' own constants, mini-batches of 128, one image in ten
    held out, the weights of the epoch of the lowest validation loss, which is flat when three
    epochs have not lowered it by one percent.

    It is trained once. ``directory`` keeps its checkpoints, one an epoch, from which a stopped
    pre-training goes on as if it had not been stopped; ``history.csv``, the loss, accuracy and
    seconds of each epoch; and in the end ``classifier.keras``.

    Args:
        model: Takes the weights.
        dataset: Supplies the images.
        config: Supplies dataset, filters, image_size, resize and seed.
        directory: Where the classifier is kept.
        anew: Whether to set aside what is there.
        progress: Whether to show a progress bar on a terminal, rather than a line each epoch.

    Raises:
        RunError: The directory holds the classifier of another network, data set or seed, is
            damaged, or another process is training there.
        RunInterrupted: Ctrl-C was pressed.
    """
    classifier = _Classifier(dataset, config, directory)
    if anew and directory.exists():
        classifier.directory.move_aside()
    classifier.prepare()
    try:
        classifier.train(progress=progress)
    except KeyboardInterrupt:
        raise RunInterrupted(
            "stopped in the pre-training; the same command goes on from its last epoch",
            signal.SIGINT,
        ) from None
    for layer in model.layers[:-1]:
        layer.set_weights(classifier.model.get_layer(layer.name).get_weights())
    print(f"starting from the classifier in {printable(directory)}", flush=True)


class ImageBatches(keras.utils.PyDataset):
    """Mini-batches of labelled images for Keras' ``fit``, in a given order.

    Args:
        dataset: Where the images are.
        rows: Which of them, int64 [n].
        labels: Their classes, int32 [n].
        order: Permutation of 0 … n − 1.
    """

    def __init__(
        self, dataset: FewShotDataset, rows: np.ndarray, labels: np.ndarray, order: np.ndarray
    ) -> None:
        super().__init__()
        self._dataset, self._rows, self._labels = dataset, rows[order], labels[order]

    def __len__(self) -> int:
        """Number of mini-batches; the last may be smaller."""
        return math.ceil(len(self._rows) / BATCH)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Images float32 [batch, height, width, channels] and labels int32 [batch]."""
        mine = slice(index * BATCH, (index + 1) * BATCH)
        images = self._dataset.images[self._rows[mine]]
        return images * np.float32(self._dataset.pixel_scale), self._labels[mine]


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
    for label, class_id in enumerate(dataset.splits["train"]):
        rows = rng.permutation(np.arange(*dataset.class_offsets[class_id : class_id + 2]))
        count = max(1, round(HELD_OUT * len(rows)))
        held_out += [(row, label) for row in rows[:count]]
        kept += [(row, label) for row in rows[count:]]
    return _rows_and_labels(kept), _rows_and_labels(held_out)


def _rows_and_labels(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    rows, labels = np.array(pairs).T
    return rows, labels.astype(np.int32)


def is_flat(losses: Sequence[float]) -> bool:
    """Whether the last epochs have hardly lowered the lowest loss.

    Args:
        losses: Validation loss after each epoch so far.
    """
    before, last = losses[:-PATIENCE], losses[-PATIENCE:]
    return bool(before) and min(last) > (1 - LEAST_GAIN) * min(before)


class _Classifier:
    """The classifier with all that its training needs to be stopped and go on."""

    def __init__(self, dataset: FewShotDataset, config: Config, directory: Path) -> None:
        self._dataset, self._config = dataset, config
        self.model = model_from_config(config.replace(freeze=0), len(dataset.splits["train"]))
        decay = dataset_facts(config.task.dataset).pretraining_decay
        # Keras takes learning rate × weight decay × weight off each weight before each step.
        optimizer = keras.optimizers.Adam(LEARNING_RATE, weight_decay=(1 - decay) / LEARNING_RATE)
        optimizer.build(self.model.trainable_variables)
        self.model.compile(
            optimizer=optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        self._epoch = tf.Variable(0, dtype=tf.int64)
        self._best_loss = tf.Variable(math.inf, dtype=tf.float64)
        self._best_weights = [tf.Variable(v.value) for v in self.model.variables]
        self._checkpoint = tf.train.Checkpoint(
            epoch=self._epoch,
            best_loss=self._best_loss,
            best_weights=self._best_weights,
            weights=[v.value for v in self.model.variables],
            optimizer=[v.value for v in optimizer.variables],
        )
        self.directory = RunDirectory(directory)

    def prepare(self) -> None:
        """Go on from the directory's newest checkpoint, if there is one of this classifier."""
        saved = self.directory.saved_config()
        if saved is None:  # nothing to start from: what is there is looked at under the lock
            self.directory.lock()
            saved = self.directory.check(self._config)
        # Any number of runs may start from what is finished; training it is for one process.
        finished = saved is not None and (self.directory.path / "classifier.keras").exists()
        if saved is not None:
            others = set(self._config.flat()) - set(_DEPENDS_ON)
            if differences := saved.differences(self._config, ignore=others):
                raise RunError(
                    f"--pretrain: {self.directory.path} holds another classifier "
                    f"({'; '.join(differences)}). Use another --checkpoint or --pretraining_dir"
                )
            if not finished:
                self.directory.lock()
            self.directory.check_data(self._dataset, "--pretrain")
            self.directory.restore(self._checkpoint)
        if not finished:
            self.directory.make_ready(self._config, self._dataset)

    def train(self, *, progress: bool) -> None:
        """Train until the validation loss is flat; the model then has its best weights."""
        seed, path = self._config.seed, self.directory.path
        rng = random_stream(seed, "pretraining", 0)
        kept, held_out = training_and_held_out(self._dataset, rng)
        # As it normalises by the batch's statistics, its loss depends on what is batched together:
        # the same in every epoch.
        validation = ImageBatches(self._dataset, *held_out, rng.permutation(len(held_out[0])))
        history = self._history()
        losses = [float(row["val_loss"]) for row in history]
        if not is_flat(losses):
            classes = self.model.output_shape[-1]
            print(f"pre-training: a classifier of {classes} classes", flush=True)
        while not is_flat(losses) and len(losses) < MAX_EPOCHS:
            epoch, started = int(self._epoch), time.perf_counter()
            order = random_stream(seed, "pretraining", 1 + epoch).permutation(len(kept[0]))
            found = self.model.fit(
                ImageBatches(self._dataset, *kept, order),
                validation_data=validation,
                initial_epoch=epoch,
                epochs=epoch + 1,
                verbose=1 if progress and sys.stdout.isatty() else 2,
                shuffle=False,
            ).history
            values = {name: each[0] for name, each in found.items()}
            if values["val_loss"] < self._best_loss:
                self._best_loss.assign(values["val_loss"])
                for best, variable in zip(self._best_weights, self.model.variables, strict=True):
                    best.assign(variable.value)
            self._epoch.assign(epoch + 1)
            seconds = round(time.perf_counter() - started, 1)
            history.append({"epoch": epoch, "seconds": seconds} | values)
            rows = [list(row.values()) for row in history]
            write_table(path / "history.csv", list(history[0]), rows)
            self.directory.save(self._checkpoint, epoch + 1, self._dataset)
            losses.append(values["val_loss"])
        for variable, best in zip(self.model.variables, self._best_weights, strict=True):
            variable.assign(best)
        if not (path / "classifier.keras").exists():
            save_model(self.model, path / "classifier.keras")

    def _history(self) -> list[dict]:
        """What is known of the epochs that the checkpoint has done; later ones are done again."""
        path, done = self.directory.path / "history.csv", int(self._epoch)
        if not done:
            return []
        try:
            rows = list(csv.DictReader(read_text(path).splitlines()))
            rows = [row for row in rows if int(row["epoch"]) < done]
            if len(rows) != done or not all(math.isfinite(float(row["val_loss"])) for row in rows):
                raise ValueError(f"epochs 0 to {done - 1} must be in it")
        except (KeyError, TypeError, ValueError) as error:
            # It decides when the training ends: without it the classifier would be another one.
            raise RunError(f"--pretrain: {path} is damaged: {error}") from error
        return rows
