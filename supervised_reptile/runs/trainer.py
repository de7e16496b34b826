"""The training loop: meta-iterations, annealing, learning curves, checkpoints and resume."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import RunError, RunInterrupted, printable
from supervised_reptile.evaluation import task_accuracies
from supervised_reptile.finite import is_finite
from supervised_reptile.from_config import (
    evaluation_spec,
    meta_step_from_config,
    training_spec,
)
from supervised_reptile.meta_learner import MetaLearner
from supervised_reptile.progress import Progress, mode_of
from supervised_reptile.runs.callbacks import CallbackCalls
from supervised_reptile.runs.checkpoints import RunDirectory
from supervised_reptile.runs.curve_figure import CurveFigure
from supervised_reptile.runs.data_identity import check_same_data
from supervised_reptile.runs.learning_curve import LearningCurve, log_settings
from supervised_reptile.runs.opening import check_evaluable
from supervised_reptile.runs.record import note_training
from supervised_reptile.tasks import EvaluationTasks, evaluation_tasks
from supervised_reptile.training import meta_train


class Trainer:
    """Train a learner, so that it can stop at any moment and resume.

    The directory ``options.checkpoint`` holds the configuration (``config.json``), checkpoints
    of weights, optimizer slots, step counts and elapsed time (``ckpt-<iteration>``), the learning
    curve (``curve.csv``) and TensorBoard logs (``train/``, ``test/`` …). Every random number
    depends only on the seed and the meta-iteration (``tasks.random_stream``). The iteration in
    the checkpoint is therefore the state of the random numbers, and a resumed run ends with the
    same bits as an uninterrupted one.

    Args:
        learner: The learner, whose variables are restored and trained in place.
        dataset: Training tasks come from its ``"train"`` split, learning curves from every split.
        config: What to compute.
        options: Where and how often to save.
        directory: The run's directory, if it is already open.
        callbacks: Keras callbacks that watch the run.
    """

    def __init__(
        self,
        learner: MetaLearner,
        dataset: FewShotDataset,
        config: Config,
        options: RunOptions,
        directory: RunDirectory | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        self.learner = learner
        self.config = config
        self._run = directory or RunDirectory(Path(options.checkpoint))
        self.directory = self._run.path
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
        self.calls = CallbackCalls(
            learner, callbacks, config.meta.meta_iters, config.eval.eval_interval
        )
        self._stop_signal: int | None = None

    @property
    def has_checkpoint(self) -> bool:
        """Whether the directory holds a checkpoint."""
        return self._run.newest is not None

    @property
    def iteration(self) -> int:
        """Number of finished meta-iterations."""
        return int(self._iteration.numpy())

    @property
    def seconds(self) -> float:
        """Wall time of the training so far in seconds, over all its parts."""
        return float(self._seconds.numpy())

    def restore_for_evaluation(self) -> Config:
        """Load the newest checkpoint for an evaluation, possibly on other tasks.

        The slots and step count of the inner optimizer are restored. Its learning rate and the
        other settings of fine-tuning come from this trainer's configuration.

        Returns:
            The configuration of the training.

        Raises:
            RunError: There is no checkpoint, or its classes, data, seed or optimizer differ.
        """
        trained = self._run.saved_config()
        if trained is None:
            raise RunError(
                f"--pretrained: no checkpoint in {self.directory}; train one first, or name "
                "another directory, or a network that comes with the package, with --checkpoint"
            )
        check_evaluable(self.config, trained, f"the checkpoint in {self.directory}")
        self._run.check_data(self.dataset, "--pretrained")
        evaluated = tf.train.Checkpoint(
            iteration=self._iteration,
            seconds=self._seconds,
            weights=self._checkpoint.weights,
            inner_optimizer=self._checkpoint.inner_optimizer,
        )
        # The evaluation does not need the outer optimizer's slots.
        self._run.restore(evaluated, partly=True)
        self.learner.inner_optimizer.learning_rate = self.config.inner.learning_rate
        print(
            f"evaluating {printable(self._run.newest)}, "
            f"after {self.iteration:,} of {trained.meta.meta_iters:,} meta-iterations"
        )
        return trained

    def take_over_for_evaluation(
        self,
        name: str,
        model: keras.Model,
        trained: Config,
        iterations: int,
        seconds: float,
        data: str = "",
    ) -> None:
        """Load a network that was trained elsewhere for an evaluation, possibly on other tasks.

        Args:
            name: Name of the network.
            model: Model compiled with its inner optimizer, from ``MetaLearner.compiled_model``.
            trained: Configuration of its training.
            iterations: Number of meta-iterations of its training.
            seconds: Wall time of its training.
            data: Fingerprint and description of its training data, if known.

        Raises:
            RunError: Its classes, data, seed or optimizer differ.
        """
        what = f"the network {name}"
        check_evaluable(self.config, trained, what)
        if data:
            check_same_data(data, self.dataset, what, "--pretrained")
        self.learner.model.set_weights(model.get_weights())
        self.learner.take_optimizer_state(model.optimizer)
        self._iteration.assign(iterations)
        self._seconds.assign(seconds)

    def prepare(self) -> None:
        """Resume from the directory's checkpoint if there is one, and prepare the directory.

        Raises:
            RunError: The checkpoint has another configuration or is damaged, or another process is
                training there.
        """
        self._run.lock()
        if not self._options.resume:
            self._run.move_aside()
        elif self._run.check(self.config) is not None:
            self._run.check_data(self.dataset)
            self._run.restore(self._checkpoint)
            total = self.config.meta.meta_iters
            done = f"{self.iteration:,} of {total:,}"
            where = printable(self.directory)
            if self.iteration < total:
                print(f"resuming from meta-iteration {done} in {where}", flush=True)
            else:
                print(f"all {total:,} meta-iterations are done in {where}", flush=True)
        self._run.make_ready(self.config, self.dataset)

    def train(self) -> None:
        """Run the remaining meta-iterations, with checkpoints on the way and at the end.

        Raises:
            RunInterrupted: A signal requested to stop. Everything is saved.
            RunError: The loss or the weights are no longer finite, or the disk is full. The last
                good checkpoint is intact.
        """
        total, interval = self.config.meta.meta_iters, self.config.eval.eval_interval
        if self.iteration < total:
            note_training(self.directory, self.iteration)
            log_settings(self.directory, self.config)
        mode = mode_of(self._options.progress)
        splits = tuple(self.dataset.splits)
        figure = CurveFigure(self.directory, self.config)
        with (
            LearningCurve(self.directory, splits, self.iteration, interval) as curve,
            self._signals_as_requests(),
            Progress(total, "meta-iterations", "it", done=self.iteration, mode=mode) as bar,
        ):
            started = time.perf_counter() - self.seconds
            self.calls.train_begin()
            for iteration, meta_step, loss in self._meta_iterations(range(self.iteration, total)):
                if not math.isfinite(loss):
                    raise self._diverged(
                        f"the inner loss became {loss} at meta-iteration {iteration}"
                    )
                point, accuracies = None, {}
                if iteration % interval == 0:
                    accuracies = self._accuracies(iteration)
                    point = {"meta_step": meta_step, "inner_loss": loss, **accuracies}
                # From NumPy: TensorFlow keeps a tensor for every new Python number.
                self._iteration.assign(np.asarray(iteration + 1))
                self._seconds.assign(np.asarray(time.perf_counter() - started))
                if point is not None:
                    curve.add(iteration, self.seconds, **point)
                    bar.say(curve.running_accuracies())
                    figure.draw_if_due()
                bar.add()
                if (iteration + 1) % self._options.checkpoint_interval == 0:
                    self.save()
                self.calls.iteration_end(iteration, meta_step, loss, accuracies)
                if self.calls.wants_to_stop and self._stop_signal is None:
                    self._stop_signal = signal.SIGINT
                if self._stop_signal is not None:
                    break
            self.calls.train_end()
            if self._run.newest_iteration != self.iteration:
                self.save()
        if self._stop_signal is not None:
            command = "the same command" + ("" if self._options.resume else " without --noresume")
            raise RunInterrupted(
                f"stopped after {self.iteration} of {total} meta-iterations and saved; {command} "
                "resumes from here",
                self._stop_signal,
            )

    def save(self) -> Path:
        """Save a checkpoint of this iteration.

        Raises:
            RunError: A weight or slot is not finite, so nothing was written; or writing failed.
        """
        learner = self.learner
        variables = [*learner.model.variables, *learner.inner_optimizer.variables]
        if learner.outer_optimizer is not None:
            variables += learner.outer_optimizer.variables
        for variable in variables:
            if not is_finite(variable.numpy()):
                raise self._diverged(f"variable {variable.path} is no longer finite")
        return self._run.save(self._checkpoint, self.iteration, self.dataset)

    def _meta_iterations(self, numbers: range) -> Iterator[tuple[int, float, float]]:
        return meta_train(
            self.learner,
            self.dataset,
            training_spec(self.config),
            iterations=self.calls.announced(numbers),
            meta_batch=self.config.meta.meta_batch,
            meta_step=meta_step_from_config(self.config),
            seed=self.config.seed,
        )

    def _accuracies(self, position: int) -> dict[str, float]:
        """Compute the accuracy on one new task per split, in one compiled call."""
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

        Only there are weights, slots and iteration count consistent. A second signal acts as
        usual, and an ignored signal, as under ``nohup``, stays ignored.
        """

        def request_stop(number: int, frame: object) -> None:
            self._stop_signal = number
            for each, handler in previous.items():
                signal.signal(each, handler)

        previous = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    previous[number] = signal.signal(number, request_stop)
        except ValueError:  # not in the main thread, so Python cannot handle signals
            pass
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
