"""The training loop: meta-iterations, annealing, learning curves, checkpoints and resume."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supervised_reptile.config import RESUME_MAY_CHANGE, Config, RunOptions
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import RunError, RunInterrupted
from supervised_reptile.evaluation import task_accuracies
from supervised_reptile.from_config import (
    evaluation_spec,
    meta_step_from_config,
    training_spec,
)
from supervised_reptile.meta_learner import MetaLearner
from supervised_reptile.runs.checkpoints import RunDirectory
from supervised_reptile.runs.learning_curve import LearningCurve
from supervised_reptile.runs.record import note_training
from supervised_reptile.tasks import EvaluationTasks, evaluation_tasks
from supervised_reptile.training import meta_train

# What a checkpoint's weights and slots cannot do without when they are only evaluated: another
# seed would be another split and so test on training classes.
_PRETRAINED_MUST_MATCH = (
    *("dataset", "classes", "filters", "image_size", "resize", "freeze"),
    *("inner_optimizer", "momentum", "seed"),
)


class Trainer:
    """Trains a learner, with everything it needs to be stopped at any moment and go on.

    The directory ``options.checkpoint`` holds the configuration (``config.json``), checkpoints
    of weights, optimizer slots, step counts and elapsed time (``ckpt-<iteration>``), the learning
    curve (``curve.csv``) and TensorBoard logs (``train/``, ``test/`` …). As every random number
    depends on the seed and the meta-iteration alone (``tasks.random_stream``), the iteration in
    the checkpoint is the state of the random numbers, and a resumed run ends with the same bits
    as an uninterrupted one.

    Args:
        learner: The learner; its variables are restored and trained in place.
        dataset: Training tasks come from its ``"train"`` split, learning curves from every split.
        config: What to compute.
        options: Where, and how often to save.

    Raises:
        RunError: The directory holds a run of another configuration.
    """

    def __init__(
        self, learner: MetaLearner, dataset: FewShotDataset, config: Config, options: RunOptions
    ) -> None:
        self.learner = learner
        self.config = config
        self.directory = Path(options.checkpoint)
        self.dataset = dataset
        self._options = options
        self._iteration = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        outer = learner.outer_optimizer
        self._checkpoint = tf.train.Checkpoint(
            iteration=self._iteration,
            seconds=self._seconds,
            weights=[v.value for v in learner.model.variables],
            inner_optimizer=[v.value for v in learner.inner_optimizer.variables],
            outer_optimizer=[v.value for v in (outer.variables if outer else ())],
        )
        self._run = RunDirectory(self.directory, self._checkpoint)
        self._stop_signal: int | None = None

    @property
    def has_checkpoint(self) -> bool:
        """Whether the directory holds a checkpoint."""
        return self._run.newest is not None

    @property
    def iteration(self) -> int:
        """Number of meta-iterations done."""
        return int(self._iteration.numpy())

    @property
    def seconds(self) -> float:
        """Wall time of the training so far in seconds, over all its parts."""
        return float(self._seconds.numpy())

    def restore_for_evaluation(self) -> Config:
        """Load the newest checkpoint to be evaluated, whatever it is evaluated on.

        Of the inner optimizer the slots and the step count are restored; its learning rate, like
        all that fine-tuning depends on, is that of this trainer's configuration.

        Returns:
            The configuration it was trained with.

        Raises:
            RunError: There is no checkpoint, or one of other classes, data, seed or optimizer.
        """
        trained = self._run.saved_config()
        if trained is None:
            raise RunError(
                f"--pretrained: no checkpoint in {self.directory}; train one first, or name "
                "another directory, or a network that comes with the package, with --checkpoint"
            )
        self._check_evaluable(trained, f"the checkpoint in {self.directory}")
        evaluated = tf.train.Checkpoint(
            iteration=self._iteration,
            seconds=self._seconds,
            weights=self._checkpoint.weights,
            inner_optimizer=self._checkpoint.inner_optimizer,
        )
        # The outer optimizer's slots, where there are any, have no part in it.
        self._run.restore(evaluated, partly=True)
        self.learner.inner_optimizer.learning_rate = self.config.inner.learning_rate
        return trained

    def take_over_for_evaluation(
        self, model: keras.Model, trained: Config, iterations: int, seconds: float
    ) -> None:
        """Evaluate a network that was trained elsewhere, whatever it is evaluated on.

        Args:
            model: Compiled with its inner optimizer, as ``MetaLearner.compiled_model`` makes it.
            trained: The configuration it was trained with.
            iterations: Meta-iterations it was trained for.
            seconds: Wall time of its training.

        Raises:
            RunError: It was trained for other classes, data, seed or optimizer.
        """
        self._check_evaluable(trained, f"the network {self.directory.name}")
        self.learner.model.set_weights(model.get_weights())
        self.learner.take_optimizer_state(model.optimizer)
        self._iteration.assign(iterations)
        self._seconds.assign(seconds)

    def _check_evaluable(self, trained: Config, what: str) -> None:
        ours, theirs = self.config.flat(), trained.flat()
        wrong = [n for n in _PRETRAINED_MUST_MATCH if ours[n] != theirs[n]]
        if wrong:
            raise RunError(
                f"--pretrained: {what} was trained with "
                + ", ".join(f"--{n}={theirs[n]} (received {ours[n]})" for n in wrong)
            )

    def prepare(self) -> None:
        """Go on from the directory's checkpoint if there is one, else make the directory ready.

        Raises:
            RunError: The checkpoint is of another configuration or damaged, or another process is
                training there.
        """
        self._run.lock()
        if self.has_checkpoint and not self._options.resume:
            self._run.move_aside()
        elif (saved := self._run.saved_config()) is not None:
            differences = saved.differences(self.config, ignore=RESUME_MAY_CHANGE)
            if differences:
                raise RunError(
                    f"--checkpoint: {self.directory} holds a run of another configuration "
                    f"({'; '.join(differences)}). Use these flags as they were, another "
                    "directory, or --noresume to set that run aside"
                )
            self._run.restore()
        self._run.make_ready(self.config)

    def train(self) -> None:
        """Run the meta-iterations that are left, saving as it goes and at the end.

        Raises:
            RunInterrupted: A signal asked to stop; everything is saved.
            RunError: The loss or the weights are no longer finite, or the disk is full; the last
                good checkpoint is intact.
        """
        total = self.config.meta.meta_iters
        if self.iteration < total:
            note_training(self.directory, self.iteration)
        with (
            LearningCurve(self.directory, tuple(self.dataset.splits), self.iteration) as curve,
            self._signals_as_requests(),
            tqdm(
                total=total,
                initial=self.iteration,
                unit="it",
                desc="meta-iterations",
                smoothing=0.05,
                disable=not self._options.progress,
            ) as bar,
        ):
            started = time.perf_counter() - self.seconds
            for iteration, meta_step, loss in self._meta_iterations(range(self.iteration, total)):
                if not math.isfinite(loss):
                    raise self._diverged(
                        f"the inner loss became {loss} at meta-iteration {iteration}"
                    )
                point = None
                if iteration % self.config.eval.eval_interval == 0:
                    accuracies = self._accuracies(iteration)
                    point = {"meta_step": meta_step, "inner_loss": loss, **accuracies}
                self._iteration.assign(iteration + 1)
                self._seconds.assign(time.perf_counter() - started)
                if point is not None:
                    curve.add(iteration, self.seconds, **point)
                    bar.set_postfix_str(curve.running_accuracies(), refresh=False)
                bar.update()
                if (iteration + 1) % self._options.checkpoint_interval == 0:
                    self.save()
                if self._stop_signal is not None:
                    break
            if self._run.newest_iteration != self.iteration:
                self.save()
        if self._stop_signal is not None:
            command = "the same command" + ("" if self._options.resume else " without --noresume")
            raise RunInterrupted(
                f"stopped after {self.iteration} of {total} meta-iterations and saved; {command} "
                "goes on from here",
                self._stop_signal,
            )

    def save(self) -> Path:
        """Save a checkpoint of this iteration.

        Raises:
            RunError: A weight or slot is not finite, and nothing is written; or writing failed.
        """
        learner = self.learner
        variables = [*learner.model.variables, *learner.inner_optimizer.variables]
        if learner.outer_optimizer is not None:
            variables += learner.outer_optimizer.variables
        for variable in variables:
            if not np.isfinite(variable.numpy()).all():
                raise self._diverged(f"variable {variable.path} is no longer finite")
        return self._run.save(self.iteration)

    def _meta_iterations(self, numbers: range) -> Iterator[tuple[int, float, float]]:
        return meta_train(
            self.learner,
            self.dataset,
            training_spec(self.config),
            iterations=numbers,
            meta_batch=self.config.meta.meta_batch,
            meta_step=meta_step_from_config(self.config),
            seed=self.config.seed,
        )

    def _accuracies(self, position: int) -> dict[str, float]:
        """Accuracy on one fresh task of each split, in one compiled call."""
        splits, spec = tuple(self.dataset.splits), evaluation_spec(self.config)
        positions = range(position, position + 1)
        tasks = EvaluationTasks.concatenate(
            [
                evaluation_tasks(self.config.seed, "curve", self.dataset, split, spec, positions)
                for split in splits
            ]
        )
        logits = self.learner.predict_tasks(
            self.dataset.images, tasks, transductive=self.config.eval.transductive
        )
        accuracies = task_accuracies(logits, spec.queries)
        return dict(zip(splits, accuracies.tolist(), strict=True))

    def _diverged(self, what: str) -> RunError:
        newest = self._run.newest
        kept = f"the last good checkpoint is {newest}" if newest else "nothing was saved yet"
        return RunError(f"{what}; {kept}. A smaller --learning_rate or --meta_step may help")

    @contextlib.contextmanager
    def _signals_as_requests(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a request to stop between two meta-iterations.

        Only there do weights, slots and iteration count belong together. A second signal acts
        as usual.
        """

        def request_stop(number: int, frame: object) -> None:
            self._stop_signal = number
            for each, handler in previous.items():
                signal.signal(each, handler)

        previous = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                previous[number] = signal.signal(number, request_stop)
        except ValueError:  # not in the main thread, where Python takes no signals
            pass
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
