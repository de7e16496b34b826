"""A trained network for the browser: ``python -m supervised_reptile.export``.

Three files, described for readers in other languages in ``web/README.md``:

- ``model.bin``: float32, little-endian: every weight, then Adam's second moment of every weight.
- ``model.json``: where each weight lies in it, Adam's constants and step count, how many steps to
  fine-tune, and the record of the run that trained and evaluated it.
- ``reference.json``: tasks, and the logits that this package computes for them after
  fine-tuning, for other implementations to hold themselves against.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from supervised_reptile.config import Config
from supervised_reptile.errors import ConfigError, RunError, UserError
from supervised_reptile.quiet import import_tensorflow

if TYPE_CHECKING:  # TensorFlow is imported once it is needed: --help and mistakes do not wait
    import tensorflow as tf

    from supervised_reptile.learners import MetaLearner

FORMAT = "supervised-reptile-browser-1"
REFERENCE_TASKS = 3
_IMAGE_SIZE = 28
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # what TensorFlow's checkpoints call a variable's value


def export_for_browser(checkpoint: Path, out: Path, *, record: str = "results.json") -> None:
    """Write ``model.json``, ``model.bin`` and ``reference.json``.

    Args:
        checkpoint: Directory of a finished run of ``run_omniglot.py`` or ``Trainer``.
        out: Directory to write to; made if absent.
        record: Name of the record in ``checkpoint`` whose accuracy goes with the network; its
            ``eval_iters`` is the number of steps to fine-tune.

    Raises:
        RunError: The directory holds no such run, or one that a browser cannot run: not the
            paper's Omniglot network, or not trained by Adam with β1 = 0.
    """
    config, content = _read_record(checkpoint, record)
    trained = Config.from_dict(content.get("trained_with", content["config"]))
    if trained.inner.inner_optimizer != "adam" or trained.inner.beta_1 != 0:
        raise RunError(
            "the browser fine-tunes with Adam, β1 = 0, as the paper does. Received: a run with "
            f"--inner_optimizer={trained.inner.inner_optimizer} --beta_1={trained.inner.beta_1:g}"
        )
    learner = restore_learner(checkpoint, config)
    weights = [v.numpy() for v in learner.model.trainable_variables]
    iterations, _, _, second_moments = (v.numpy() for v in learner.inner_optimizer.variables)
    flat = np.concatenate([*(w.ravel() for w in weights), second_moments])
    inner = config.inner
    description = {
        "format": FORMAT,
        "image_size": _IMAGE_SIZE,
        "classes": config.task.classes,
        "tensors": _layout(learner.model.trainable_variables),
        "adam": {
            "learning_rate": inner.learning_rate,
            "beta_2": inner.beta_2,
            "epsilon": inner.epsilon,
            "iterations": int(iterations),
            "second_moments_offset": sum(w.size for w in weights),
        },
        "inner_steps": config.eval.eval_iters,
        "record": content,
    }
    reference = {"tasks": reference_tasks(learner, config)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.bin").write_bytes(flat.astype("<f4").tobytes())
    (out / "model.json").write_text(json.dumps(description, indent=1) + "\n")
    (out / "reference.json").write_text(json.dumps(reference) + "\n")


def restore_learner(checkpoint: Path, config: Config) -> MetaLearner:
    """The learner of a finished Omniglot run, with its weights, slots and step count.

    Args:
        checkpoint: Directory of the run.
        config: Supplies the classes and the inner optimizer.

    Raises:
        RunError: There is no readable checkpoint, or it is not of the paper's Omniglot network.
    """
    import tensorflow as tf

    from supervised_reptile.learners import learner_from_config
    from supervised_reptile.models import omniglot_model

    newest = tf.train.latest_checkpoint(str(checkpoint))
    if newest is None:
        raise RunError(f"--checkpoint: no checkpoint in {checkpoint}")
    try:
        reader = tf.train.load_checkpoint(newest)
        filters = reader.get_tensor(f"weights/0{_VALUE}").shape[-1]
        learner = learner_from_config(config, omniglot_model(config.task.classes, filters=filters))
        for name, variables in (
            ("weights", learner.model.trainable_variables),
            ("inner_optimizer", learner.inner_optimizer.variables),
        ):
            for i, variable in enumerate(variables):
                variable.assign(reader.get_tensor(f"{name}/{i}{_VALUE}"))
    except (tf.errors.OpError, IndexError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(
            f"--checkpoint: {newest} is damaged or not of the paper's Omniglot network: {reason}"
        ) from error
    return learner


def reference_tasks(learner: MetaLearner, config: Config) -> list[dict[str, Any]]:
    """Tasks of the embedded glyphs with the logits of their held-out images.

    Each held-out image goes through the network with the task's training images, whatever
    ``config`` says (the paper's non-transductive setting), as a drawing in the browser does.

    Args:
        learner: The trained learner; stays as it is.
        config: Supplies classes, learning rate and eval_iters.

    Returns:
        One dictionary a task: ``examples`` and ``queries``, strings of "0" (ink) and "1" (paper),
        image after image, one image a class; ``logits`` [queries, classes] after
        ``config.eval.eval_iters`` steps on all examples.
    """
    import tensorflow as tf

    from supervised_reptile.datasets import load_dataset
    from supervised_reptile.tasks import evaluation_tasks

    glyphs = load_dataset("glyphs", seed=0, progress=False)
    # Every step on one example a class, as there is no more in the browser.
    one_shot = config.replace(dataset="glyphs", shots=1, eval_batch=config.task.classes)
    tasks = evaluation_tasks(0, "evaluation", glyphs, "test", one_shot, range(REFERENCE_TASKS))
    images: tf.Tensor = tf.convert_to_tensor(glyphs.images)
    logits = learner.predict_tasks(images, tasks, transductive=False)

    def pixels(rows: np.ndarray) -> str:
        return "".join(str(value) for value in glyphs.images[rows].ravel())

    return [
        {"examples": pixels(support), "queries": pixels(queries), "logits": values.tolist()}
        for support, queries, values in zip(tasks.support, tasks.queries, logits, strict=True)
    ]


def _layout(variables: Sequence[Any]) -> list[dict[str, Any]]:
    """Name, shape and place of each weight, in the order of the file."""
    layout, offset = [], 0
    for variable in variables:
        layout.append({"name": variable.path, "shape": list(variable.shape), "offset": offset})
        offset += int(np.prod(variable.shape))
    return layout


def _read_record(checkpoint: Path, name: str) -> tuple[Config, Mapping[str, Any]]:
    path = checkpoint / name
    try:
        content = json.loads(path.read_text())
        return Config.from_dict(content["config"]), content
    except FileNotFoundError:
        raise RunError(
            f"--checkpoint: no {name} in {checkpoint}, so there is no finished run"
        ) from None
    except (KeyError, json.JSONDecodeError, ConfigError) as error:
        raise RunError(f"--record: {path} is not the record of a run: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None to take them from `sys.argv`.

    Returns:
        Exit code: 0, or that of the error after one line on stderr. Wrong usage exits with 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m supervised_reptile.export",
        description="Export a trained Omniglot network, with Adam's second moments, for the page "
        "in web/ that fine-tunes it in the browser.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="DIR",
        help="directory of a finished run of run_omniglot.py, as its --checkpoint",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="where to write model.json, model.bin and reference.json, e.g. web/public/model",
    )
    parser.add_argument(
        "--record",
        default="results.json",
        metavar="NAME",
        help="the record in the checkpoint's directory whose accuracy and eval_iters go with the "
        "network (default: %(default)s); run_omniglot.py --pretrained writes further ones",
    )
    args = parser.parse_args(argv)
    try:
        import_tensorflow()
        export_for_browser(args.checkpoint, args.out, record=args.record)
    except (UserError, OSError) as error:
        print(f"export: error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print(f"model.json, model.bin and reference.json are in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
