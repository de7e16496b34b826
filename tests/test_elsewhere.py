"""A trained model where this package is not: one behavior however called, and fine-tuning."""

import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

import keras
import numpy as np
import pytest
import warm
from helpers import document_code, tiny_config, training_tasks, vector_dataset

from supervised_reptile.from_config import learner_from_config
from supervised_reptile.models import omniglot_model
from supervised_reptile.tasks import EvaluationTasks, MiniBatches, random_stream

RECIPE = document_code("elsewhere")
LINUX_PC = (platform.system(), platform.machine()) == ("Linux", "x86_64")
TENSORFLOW = "tensorflow-cpu" if LINUX_PC else "tensorflow"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A learner after a few meta-iterations, and the folder its model was saved in."""
    config, dataset = tiny_config(), vector_dataset(size=28, classes=15)
    learner = learner_from_config(config, omniglot_model(3, filters=8, seed=1))
    for iteration in range(4):
        tasks = training_tasks(random_stream(0, "training", iteration), dataset, config)
        learner.train_step(dataset.images, tasks, 1.0)
    folder = tmp_path_factory.mktemp("exported")
    model = learner.compiled_model()
    model.save(folder / "model.keras")
    model.export(folder / "saved_model", verbose=False)
    images = dataset.images.astype(np.float32)
    labels = np.repeat(np.arange(3), 3)
    np.savez(folder / "data.npz", images=images[:9], labels=labels, queries=images[20:27])
    (folder / "recipe.py").write_text(RECIPE)
    return learner, folder


def run_elsewhere(python, exported):
    """Runs elsewhere.py and holds its answers against the learner."""
    learner, folder = exported
    script = Path(__file__).with_name("elsewhere.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = warm.run if python == sys.executable else subprocess.run
    result = run(
        [python, str(script), str(folder), str(folder / "recipe.py")],
        **{"capture_output": True, "text": True, "cwd": folder, "env": environment},
    )
    assert result.returncode == 0, result.stderr
    answers = dict(np.load(folder / "answers.npz"))
    data = np.load(folder / "data.npz")
    steps, probabilities = answers.pop("steps"), answers.pop("probabilities")
    expected = learner.model(data["queries"]).numpy()
    assert len(answers) == 8
    for way, answer in answers.items():
        np.testing.assert_allclose(answer, expected, atol=1e-4, err_msg=way)
    # Each image alone is another question: this would not pass with moving averages.
    alone = np.concatenate([learner.model(q[None]).numpy() for q in data["queries"]])
    assert np.abs(alone - expected).max() > 0.01

    assert steps == 50
    np.random.seed(0)
    rows = np.stack([np.random.permutation(9)[:5] for _ in range(50)]).astype(np.int32)
    tasks = EvaluationTasks(
        MiniBatches(rows[None], data["labels"].astype(np.int32)[rows][None]),
        np.arange(9, dtype=np.int32)[None],
        np.arange(9, 16, dtype=np.int32)[None],
    )
    table = np.concatenate([data["images"], data["queries"]])
    logits = learner.predict_tasks(table, tasks, transductive=True)[0]
    softmax = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(probabilities, softmax, atol=1e-3)


def test_the_recipe_is_five_lines_of_plain_keras():
    assert len(RECIPE.splitlines()) == 5
    assert "supervised_reptile" not in RECIPE


def test_in_a_process_that_cannot_import_the_package(exported):
    run_elsewhere(sys.executable, exported)


@pytest.mark.fresh_environment
def test_in_a_fresh_environment_with_tensorflow_alone(exported, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", TENSORFLOW], check=True)
    code = "from importlib import metadata; print(*(d.name for d in metadata.distributions()))"
    isolated = [python, "-I", "-c", code]  # without the checkout, if that is where we are
    listed = subprocess.run(isolated, capture_output=True, text=True).stdout
    assert "keras" in listed and "reptile" not in listed
    run_elsewhere(python, exported)
