"""docs/formats.md: its commands run, and its table says what each form of a network keeps."""

import re

import keras
import numpy as np
import pytest
from helpers import PROJECT, document_code

import supervised_reptile as sr

PAGE = (PROJECT / "docs" / "formats.md").read_text()
TABLE = PAGE.partition("<!-- formats -->\n")[2].partition("<!-- /formats -->")[0]
ROWS = {
    form: (logit, probability)
    for form, logit, probability in re.findall(
        r"^\| (.+?) \|.*?\| ([\d.]+) \| ([\d.]+) \|", TABLE, re.MULTILINE
    )
}


@pytest.fixture(scope="module")
def task():
    """A 5-way 1-shot task of drawn characters with 5 queries of each."""
    dataset = sr.load_dataset("glyphs", progress=False)
    images = np.asarray(dataset.images[:100], np.float32).reshape(5, 20, 28, 28, 1)
    return {
        "images": images[:, 0],
        "labels": np.arange(5),
        "queries": images[:, 1:6].reshape(-1, 28, 28, 1),
    }


@pytest.fixture
def names(task, tmp_path, monkeypatch):
    """What the page's commands find: the task, the fine-tuned network, a folder of their own."""
    monkeypatch.chdir(tmp_path)
    names = dict(task)
    run("format-keras", names)
    return names


def run(name, names):
    exec(document_code(name), names)


def check(form, names):
    """The differences from Keras are those of the table."""
    found, logits = names["found"], names["logits"]
    softmax = [keras.ops.softmax(each).numpy() for each in (found, logits)]
    differences = np.abs(found - logits).max(), np.abs(softmax[0] - softmax[1]).max()
    for difference, stated in zip(differences, map(float, ROWS[form]), strict=True):
        assert difference <= 3 * stated, f"{form}: {differences}"
    np.testing.assert_array_equal(found.argmax(axis=1), logits.argmax(axis=1))
    return differences[0]


def test_savedmodel(names):
    run("format-savedmodel", names)
    assert check("SavedModel", names) == 0


def test_litert_and_its_quantization(names):
    pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")
    run("format-litert", names)
    check("LiteRT", names)
    run("format-savedmodel", names)
    for form in ("float16", "dynamic range", "int8"):
        names |= {"float16": form == "float16", "int8": form == "int8"}
        run("format-quantized", names)
        difference = check(f"LiteRT, {form}", names)
        assert (difference > 0.1) == (form != "float16")  # 8 bits do not keep the logits


def test_onnx(names):
    pytest.importorskip("tf2onnx", reason="needs tf2onnx")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    run("format-onnx", names)
    check("ONNX", names)


def test_hdf5_keeps_weights_but_no_network(names):
    network = names["network"]
    network.save("network.h5")
    with pytest.raises(TypeError, match="target_shape"):
        keras.models.load_model("network.h5")
    network.save_weights("network.weights.h5")
    other = sr.load_pretrained("omniglot-5way")
    other.load_weights("network.weights.h5")
    np.testing.assert_array_equal(other(names["queries"]), names["logits"])
