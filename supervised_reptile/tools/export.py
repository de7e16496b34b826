"""Export a trained network for the browser: ``supervised-reptile export``.

Three files, described for readers in other languages in ``web/README.md``:

- ``model.bin``: float32, little-endian: every weight, then Adam's second moment of every weight.
- ``model.json``: the position of each weight in that file, Adam's constants and step count, the
  number of fine-tuning steps, and the record of the run that trained and evaluated it.
- ``reference.json``: tasks and the logits after fine-tuning on them, as a reference for other
  implementations: from Keras in double precision, and from this package's learner in float32.
  They differ only because an input of a ReLU that is close to 0 may round to the other side.
  Adam's steps, whose size does not shrink with the gradient, turn this into differences of 1e-3
  to 1e-1 in the logits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from supervised_reptile.config import Config
from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.config.paper import dataset_facts
from supervised_reptile.errors import ConfigError, RunError
from supervised_reptile.programs import command
from supervised_reptile.startup import import_tensorflow

if TYPE_CHECKING:  # TensorFlow is imported only when needed: --help and mistakes do not wait for it
    import keras

FORMAT = "supervised-reptile-browser-1"
REFERENCE_TASKS = 6


def export_for_browser(run: Path, out: Path, *, record: str = "results.json") -> None:
    """Write ``model.json``, ``model.bin`` and ``reference.json``, as the module describes.

    Args:
        run: Directory of a finished run of ``run_omniglot.py``, with ``model.keras``.
        out: Directory to write to, which is created if missing.
        record: Name of the record in ``run`` that is exported with the network. Its
            ``eval_iters`` is the number of fine-tuning steps.

    Raises:
        RunError: The directory contains no such run, or the browser cannot fine-tune it because it
            is not the paper's Omniglot network, was not trained by Adam with β1 = 0, or has frozen
            blocks.
    """
    config, content = _read_record(run, record)
    inner = config.inner
    if inner.inner_optimizer != "adam" or inner.beta_1 != 0:
        raise RunError(
            "the browser fine-tunes with Adam, β1 = 0, as the paper does. Received: a run with "
            f"--inner_optimizer={inner.inner_optimizer} --beta_1={inner.beta_1:g}"
        )
    if dataset_facts(config.task.dataset).network != "omniglot":
        raise RunError(
            "the browser has the paper's Omniglot network. Received: a run on "
            f"--dataset={config.task.dataset}"
        )
    if config.model.freeze:
        raise RunError(
            "the browser fine-tunes every block. Received: a run with "
            f"--freeze={config.model.freeze}"
        )
    model = _load_model(run / "model.keras")
    variables, slots = model.trainable_variables, model.optimizer.variables
    # After step count and learning rate: the momentum and the velocity of each variable.
    tensors = [v.numpy().ravel() for v in (*variables, *slots[3::2])]
    description = {
        "format": FORMAT,
        "image_size": config.model.image_size,
        "classes": config.task.classes,
        "tensors": _layout(variables),
        "adam": {
            "learning_rate": inner.learning_rate,
            "beta_2": inner.beta_2,
            "epsilon": inner.epsilon,
            "iterations": int(model.optimizer.iterations.numpy()),
            "second_moments_offset": sum(t.size for t in tensors) // 2,
        },
        "inner_steps": config.eval.eval_iters,
        "record": content,
    }
    reference = {"tasks": reference_tasks(model, config)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.bin").write_bytes(np.concatenate(tensors).astype("<f4").tobytes())
    (out / "model.json").write_text(json.dumps(description, indent=1) + "\n")
    (out / "reference.json").write_text(json.dumps(reference) + "\n")


def reference_tasks(model: keras.Model, config: Config) -> list[dict[str, Any]]:
    """Return tasks of the embedded glyphs with the logits of their held-out images.

    Each held-out image passes through the network with the task's training images (the paper's
    non-transductive setting), like a drawing in the browser. ``config`` does not change this.

    Args:
        model: The trained network, compiled with its inner optimizer. It does not change.
        config: Supplies classes, filters, the inner optimizer's constants and eval_iters.

    Returns:
        One dictionary per task: ``examples`` and ``queries``, strings of "0" (ink) and "1" (paper),
        image after image, with one image per class; ``logits`` and ``float32_logits``
        [queries, classes] after ``config.eval.eval_iters`` steps on all examples.
    """
    from supervised_reptile.datasets import load_dataset
    from supervised_reptile.from_config import evaluation_spec, learner_from_config
    from supervised_reptile.tasks import evaluation_tasks

    glyphs = load_dataset("glyphs", seed=0, progress=False)
    # Every step uses one example per class, because the browser has no more.
    one_shot = config.replace(dataset="glyphs", shots=1, eval_batch=config.task.classes)
    tasks = evaluation_tasks(
        0, "evaluation", glyphs, "test", evaluation_spec(one_shot), range(REFERENCE_TASKS)
    )
    learner = learner_from_config(config, model)
    learner.take_optimizer_state(model.optimizer)
    rounded = learner.predict_tasks(glyphs.images, tasks, transductive=False)
    reference = []
    for support, queries, logits in zip(tasks.support, tasks.queries, rounded, strict=True):
        examples, held_out = glyphs.images[support], glyphs.images[queries]
        reference.append(
            {
                "examples": "".join(str(value) for value in examples.ravel()),
                "queries": "".join(str(value) for value in held_out.ravel()),
                "logits": _logits_in_double_precision(model, config, examples, held_out),
                "float32_logits": logits.tolist(),
            }
        )
    return reference


def _logits_in_double_precision(
    trained: keras.Model, config: Config, examples: np.ndarray, queries: np.ndarray
) -> list[list[float]]:
    """Fine-tune with plain Keras, step by step, and predict the queries one by one."""
    import keras
    import tensorflow as tf

    from supervised_reptile.from_config import model_from_config
    from supervised_reptile.tools.double_precision import double_precision

    with double_precision():
        model = model_from_config(config)
        optimizer = keras.optimizers.Adam.from_config(trained.optimizer.get_config())
        optimizer.build(model.trainable_variables)
    model.set_weights(trained.get_weights())
    for mine, theirs in zip(optimizer.variables, trained.optimizer.variables, strict=True):
        mine.assign(theirs)
    optimizer.learning_rate.assign(config.inner.learning_rate)
    x, labels = examples.astype(np.float64), np.arange(config.task.classes)
    variables = [v.value for v in model.trainable_variables]
    for _ in range(config.eval.eval_iters):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(x))
            loss = tf.reduce_sum(losses)
        optimizer.apply(tape.gradient(loss, variables), model.trainable_variables)
    return [model(np.concatenate([x, [query]])).numpy()[-1].tolist() for query in queries]


def _load_model(path: Path) -> keras.Model:
    import keras

    try:
        model = keras.models.load_model(path)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"--checkpoint: cannot read {path}: {reason}") from error
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        raise RunError(f"--checkpoint: {path} was saved without its optimizer")
    return model


def _layout(variables: Sequence[Any]) -> list[dict[str, Any]]:
    """Return name, shape and position of each weight, in the order of the file."""
    layout, offset = [], 0
    for variable in variables:
        layout.append({"name": variable.path, "shape": list(variable.shape), "offset": offset})
        offset += int(np.prod(variable.shape))
    return layout


def _read_record(run: Path, name: str) -> tuple[Config, Mapping[str, Any]]:
    path = run / name
    try:
        content = json.loads(path.read_text())
        return Config.from_dict(content["config"]), content
    except FileNotFoundError:
        raise RunError(f"--checkpoint: no {name} in {run}, so there is no finished run") from None
    except (KeyError, json.JSONDecodeError, ConfigError) as error:
        raise RunError(f"--record: {path} is not the record of a run: {error}") from error


_FLAGS = {
    "checkpoint": Flag(None, "Folder of a finished run, its --checkpoint.", str, required=True),
    "out": Flag(
        None,
        "Folder for model.json, model.bin and reference.json, such as web/public/model.",
        str,
        required=True,
    ),
    "record": Flag(
        "results.json",
        "The record in --checkpoint that supplies the accuracy and eval_iters; an evaluation with "
        "--pretrained writes further records.",
    ),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the program.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    description = f"""\
Export a trained Omniglot network, with Adam's second moments, for the page that fine-tunes it in
the browser.

    {command("export")} --checkpoint ckpt_web --out web/public/model
"""
    run_program(_export, _FLAGS, argv, description)


def _export(*, checkpoint: str, out: str, record: str) -> None:
    import_tensorflow()
    export_for_browser(Path(checkpoint), Path(out), record=record)
    print(f"model.json, model.bin and reference.json are in {out}")


if __name__ == "__main__":
    main()
