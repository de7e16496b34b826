"""Pre-training: Reptile starts from an ordinary classifier of all training classes."""

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
"""Fraction of each class's images that is held out to measure the validation loss."""
PATIENCE, LEAST_GAIN = 3, 0.01
"""The lowest validation loss must fall by this fraction within this many epochs, or it is flat."""
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
    """Start a model from a classifier of all training classes, except for the last layer.

    The classifier is the same network with one output per class of the training split (4800 for
    Omniglot, where every rotation is a class). It is trained with Adam until its loss on held-out
    images of these classes is flat. Before each step, every weight is multiplied by the review's
    factor (Sec. 6.5), 0.999 for Omniglot and 0.99 for photographs. The review does not state the
    rest, which is our choice: Adam with Keras' constants, mini-batches of 128, one held-out image
    in ten, and the weights of the epoch with the lowest validation loss. The loss is flat when
    three epochs have not lowered it by one percent.

    The classifier is trained once. ``directory`` keeps a checkpoint per epoch, from which a stopped
    pre-training resumes; ``history.csv`` with the loss, accuracy and seconds of each epoch; and
    finally ``classifier.keras``.

    Args:
        model: Receives the weights.
        dataset: Supplies the images.
        config: Supplies dataset, filters, image_size, resize and seed.
        directory: Directory of the classifier.
        anew: Whether to move an existing classifier aside and train a new one.
        progress: Whether to show a progress bar on a terminal, instead of a line per epoch.

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
            "stopped in the pre-training; the same command resumes from its last epoch",
            signal.SIGINT,
        ) from None
    for layer in model.layers[:-1]:
        layer.set_weights(classifier.model.get_layer(layer.name).get_weights())
    print(f"starting from the classifier in {printable(directory)}", flush=True)


class ImageBatches(keras.utils.PyDataset):
    """Mini-batches of labeled images for Keras' ``fit``, in a given order.

    Args:
        dataset: Supplies the images.
        rows: Rows of the images to use, int64 [n].
        labels: Their classes, int32 [n].
        order: Permutation of 0 … n − 1.
    """

    def __init__(
        self, dataset: FewShotDataset, rows: np.ndarray, labels: np.ndarray, order: np.ndarray
    ) -> None:
        super().__init__()
        self._dataset, self._rows, self._labels = dataset, rows[order], labels[order]

    def __len__(self) -> int:
        """Return the number of mini-batches; the last may be smaller."""
        return math.ceil(len(self._rows) / BATCH)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images float32 [batch, height, width, channels] and labels int32 [batch]."""
        mine = slice(index * BATCH, (index + 1) * BATCH)
        images = self._dataset.images[self._rows[mine]]
        return images * np.float32(self._dataset.pixel_scale), self._labels[mine]


def training_and_held_out(
    dataset: FewShotDataset, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Split the images of each training class into two parts.

    Args:
        dataset: Supplies the classes, each with at least 2 images.
        rng: Random generator that chooses the held-out images.

    Returns:
        Rows int64 [n] and labels int32 [n], 0 … classes − 1, of both parts.
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
    """Whether the last epochs have barely lowered the lowest loss.

    Args:
        losses: Validation loss after each epoch so far.
    """
    before, last = losses[:-PATIENCE], losses[-PATIENCE:]
    return bool(before) and min(last) > (1 - LEAST_GAIN) * min(before)


class _Classifier:
    """The classifier, with everything that its training needs to stop and resume."""

    def __init__(self, dataset: FewShotDataset, config: Config, directory: Path) -> None:
        self._dataset, self._config = dataset, config
        self.model = model_from_config(config.replace(freeze=0), len(dataset.splits["train"]))
        decay = dataset_facts(config.task.dataset).pretraining_decay
        # Before each step, Keras subtracts learning rate × weight decay × weight from each weight.
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
        """Resume from the directory's newest checkpoint, if there is one of this classifier."""
        saved = self.directory.saved_config()
        if saved is None:  # nothing to resume: check the directory under the lock
            self.directory.lock()
            saved = self.directory.check(self._config)
        # Any number of runs may use a finished classifier, but only one process may train it.
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
        """Train until the validation loss is flat, and give the model its best weights."""
        seed, path = self._config.seed, self.directory.path
        rng = random_stream(seed, "pretraining", 0)
        kept, held_out = training_and_held_out(self._dataset, rng)
        # The loss depends on which images share a batch, because the model normalizes by batch
        # statistics: use the same batches in every epoch.
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
        """Read the epochs that the checkpoint has finished; later ones are repeated."""
        path, done = self.directory.path / "history.csv", int(self._epoch)
        if not done:
            return []
        try:
            rows = list(csv.DictReader(read_text(path).splitlines()))
            rows = [row for row in rows if int(row["epoch"]) < done]
            if len(rows) != done or not all(math.isfinite(float(row["val_loss"])) for row in rows):
                raise ValueError(f"epochs 0 to {done - 1} must be in it")
        except (KeyError, TypeError, ValueError) as error:
            # The history decides when training ends, so without it the classifier would differ.
            raise RunError(f"--pretrain: {path} is damaged: {error}") from error
        return rows
