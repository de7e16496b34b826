"""Trained networks that come with the package, as Keras models.

Each consists of a ``.keras`` file with the weights and the inner optimizer's state, so fine-tuning
starts as in the paper's evaluation; a ``.json`` with the configuration of the training and the
accuracies; and a model card, the ``.md``.

    python -m supervised_reptile ship RUN NAME    ships the run in folder RUN under a name
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervised_reptile.config import Config
from supervised_reptile.config.locations import FOLDER as IMAGE_FOLDER
from supervised_reptile.config.paper import dataset_facts
from supervised_reptile.reproduction.published import full_length
from supervised_reptile.runs.files import read_json, write_whole

if TYPE_CHECKING:
    import keras

FOLDER = Path(__file__).parent


def pretrained_names() -> list[str]:
    """Return the names of the networks that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.keras"))


def load_pretrained(name: str) -> keras.Model:
    """Load a meta-trained network, ready for fine-tuning on N classes of your own.

    The model is compiled. Its optimizer is the inner optimizer of the training, with the slots and
    step count from which the paper's evaluation starts. Its loss is the *sum* of softmax
    cross-entropies over the mini-batch.

    Args:
        name: One of :func:`pretrained_names`, such as ``"omniglot-5way"``. Reptile's training
            does not depend on the shots, so ``"omniglot-5way-1shot"`` is the same network. It must
            have been evaluated with these shots.

    Returns:
        Keras model from float32 images [batch, height, width, channels] to logits
        float32 [batch, classes]. Its outputs depend on the batch, whose statistics normalize it.

    Raises:
        ValueError: There is no such network.

    Example:
        >>> model = load_pretrained("omniglot-5way-1shot")
        >>> model.output_shape
        (None, 5)
    """
    import keras  # not at the top: names, facts and `ship` do not need TensorFlow

    return keras.models.load_model(FOLDER / f"{network_called(name)}.keras")


def model_facts(name: str) -> dict[str, Any]:
    """Return the facts about a network that comes with the package.

    Args:
        name: As for :func:`load_pretrained`.

    Returns:
        ``name``, ``training`` (the result of ``Config.to_dict``), ``iterations``,
        ``training_seconds``, ``commit`` of the evaluation, and ``evaluations``: a list of
        ``shots``, ``transductive`` and ``accuracy`` by split.

    Raises:
        ValueError: There is no such network.
    """
    return json.loads((FOLDER / f"{network_called(name)}.json").read_text())


def training_of(name: str) -> Config:
    """Return the configuration that a network in the package was trained with.

    Args:
        name: As for :func:`load_pretrained`.

    Raises:
        ValueError: There is no such network.
    """
    return Config.from_dict(model_facts(name)["training"])


def network_called(name: str) -> str:
    """Return the name of a shipped network without the shots at its end.

    Args:
        name: As for :func:`load_pretrained`.

    Raises:
        ValueError: There is no such network, or it was not evaluated with these shots.
    """
    known = pretrained_names()
    # A network trained for one number of shots (with MAML) has the number in its name.
    if name in known:
        return name
    match = re.fullmatch(r"(.+)-(\d+)shot", name)
    if match and match[1] in known:
        facts = json.loads((FOLDER / f"{match[1]}.json").read_text(encoding="utf-8"))
        shots = sorted({evaluation["shots"] for evaluation in facts["evaluations"]})
        if int(match[2]) in shots:
            return match[1]
        names = ", ".join(f"{match[1]}-{number}shot" for number in shots)
        raise ValueError(f"name must be {match[1]} or one of: {names}. Received: {name!r}")
    raise ValueError(f"name must be one of: {', '.join(known) or 'none yet'}. Received: {name!r}")


def ship(run: Path, name: str, folder: Path = FOLDER) -> None:
    """Add a finished run to the networks that come with the package.

    Args:
        run: Folder of the run, with ``model.keras``, ``config.json`` and ``results-*.json``.
        name: Name of the network.
        folder: Folder to copy it to.

    Raises:
        FileNotFoundError, RunError: One of these files is missing or damaged.
        ValueError: The run was not evaluated, or its training is not finished.
    """
    training = Config.from_dict(read_json(run / "config.json"))
    records = [read_json(path) for path in sorted(run.iterdir()) if _is_record(path)]
    if not records:
        raise ValueError(f"{run} must hold a record of an evaluation. Received: none")
    iterations = {record["iterations"] for record in records}
    if iterations != {training.meta.meta_iters}:
        raise ValueError(
            f"the run in {run} must be finished. Received: {min(iterations)} of "
            f"{training.meta.meta_iters} meta-iterations"
        )
    facts = {
        "name": name,
        "training": training.to_dict(),
        "iterations": iterations.pop(),
        "training_seconds": records[0]["training_seconds"],
        "commit": records[0]["environment"]["commit"],
        **({"data": records[0]["data"]} if "data" in records[0] else {}),
        "evaluations": [
            {
                "shots": record["config"]["task"]["shots"],
                "transductive": record["config"]["eval"]["transductive"],
                "accuracy": record["accuracy"],
            }
            for record in records
        ],
    }
    shutil.copy(run / "model.keras", folder / f"{name}.keras")
    write_whole(folder / f"{name}.json", json.dumps(facts, indent=2) + "\n")
    write_whole(folder / f"{name}.md", model_card(facts))


def _is_record(path: Path) -> bool:
    return re.fullmatch(r"results-.*\.json", path.name) is not None


def model_card(facts: Mapping[str, Any]) -> str:
    """Return the model card, in Markdown.

    Args:
        facts: The result of :func:`model_facts`.
    """
    config = Config.from_dict(facts["training"])
    task, inner, meta = config.task, config.inner, config.meta
    dataset = task.dataset.removeprefix(IMAGE_FOLDER)
    known = facts["evaluations"][0]["accuracy"]
    splits = [split for split in ("test", "validation", "train") if split in known]
    full, size = full_length(config), config.model.image_size
    is_drawn = dataset_facts(task.dataset).network == "omniglot"
    split = "its own split"
    if is_drawn:
        split = (
            f"split by seed {config.seed}: evaluate it only with `--seed {config.seed}`, because "
            "it was trained on some of the test classes of other seeds"
        )
    has_moments = inner.inner_optimizer != "sgd"
    outer = "outer step" if meta.outer_optimizer == "interpolation" else meta.outer_optimizer
    shortened = f" (shortened from {full:,})" if facts["iterations"] < full else ""
    lines = [
        f"# {facts['name']}",
        "",
        f"{task.classes}-way few-shot classifier, meta-trained with {meta.algorithm} on {dataset}.",
        "",
        f"- **Data**: {dataset}, {split}.",
        f"- **Training**: {facts['iterations']:,} meta-iterations{shortened} of "
        f"{meta.meta_batch} tasks with {task.train_shots} examples per class; "
        f"{inner.inner_iters} steps of {inner.inner_optimizer}, learning rate "
        f"{inner.learning_rate:g}, mini-batches of {inner.inner_batch}; {outer} "
        f"{meta.meta_step:g} → {meta.meta_step_final:g}. Evaluated by commit {facts['commit']}.",
        f"- **Input**: float32 [batch, {size}, {size}, {1 if is_drawn else 3}] in [0, 1]"
        f"{', where 0 is ink and 1 is paper' if is_drawn else ''}. "
        f"**Output**: logits [batch, {task.classes}].",
        f'- **Use**: `model = supervised_reptile.load_pretrained("{facts["name"]}")`, then '
        "`supervised_reptile.adapt(model, images, labels)`.",
        "- **Normalization** always uses the statistics of the current batch, so the outputs "
        "depend on which images share a batch.",
        f"- **Optimizer**: in the file, with {'second moments and ' if has_moments else ''}step "
        "count; the loss is a sum over the mini-batch.",
        "",
        "Accuracy in percent ± 95 % interval over tasks, after "
        f"{config.eval.eval_iters} steps of fine-tuning:",
        "",
        f"| task | {' | '.join(f'{split} classes' for split in splits)} | tasks |",
        f"|---|{'---|' * len(splits)}---|",
    ]
    for evaluation in facts["evaluations"]:
        setting = ", transductive" if evaluation["transductive"] else ""
        accuracy = evaluation["accuracy"]
        cells = [
            f"{evaluation['shots']}-shot {task.classes}-way{setting}",
            *(
                f"{100 * accuracy[split]['mean']:.2f} ± {100 * accuracy[split]['interval95']:.2f}"
                for split in splits
            ),
            f"{accuracy['test']['tasks']:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
