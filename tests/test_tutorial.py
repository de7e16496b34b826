"""The tutorial notebook runs from a clean kernel, and its committed outputs are of its cells."""

import os

import nbformat
import pytest
from helpers import PROJECT

NOTEBOOK = PROJECT / "examples" / "tutorial.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
def test_every_cell_runs(notebook, tmp_path, monkeypatch):
    """An error in a cell, or an assertion that fails, fails this test."""
    for package in ("nbclient", "ipykernel", "onnxruntime", "tf2onnx", "ai_edge_litert"):
        pytest.importorskip(package, reason=f"needs {package}, of the extra 'notebook'")
    import nbclient

    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
    )
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    printed = "".join(
        output.text
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
    for program in ("own.keras", "SavedModel", "TFLite", "ONNX"):
        assert f"\n{program} " in printed
    accuracies = [int(part.split()[-1]) for part in printed.split("% correct")[:-1]]
    assert accuracies[0] >= 80 and min(accuracies) >= 50  # the shipped network; ours; chance is 20


def test_outputs_are_committed_and_name_no_place_of_this_machine(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in str(cell.outputs) for cell in cells) == 3
    text = NOTEBOOK.read_text()
    assert "/tmp" not in text and "site-packages" not in text
