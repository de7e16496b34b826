"""The README and docs/: links lead somewhere, and every Python snippet is run by a test."""

import re
import subprocess
import sys

import keras
import pytest
from helpers import DOCUMENTS, PROJECT, document_code

import supervised_reptile as sr

WRITTEN = [*DOCUMENTS, *(PROJECT / name for name in ("web/README.md", "results/README.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```", re.DOTALL)


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_to_files_and_headings(path):
    targets = LINK.findall(CODE.sub("", path.read_text()))
    for target in targets:
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        there = path if not name else (path.parent / name).resolve()
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), target


def test_every_python_snippet_has_a_test():
    marked = re.compile(r"<!-- test: [\w-]+ -->\n```python")
    for path in DOCUMENTS:
        text = path.read_text()
        assert text.count("```python") == len(marked.findall(text)), path


def test_the_readme_is_short():
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 170


def test_settings_of_fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"sr": sr, "keras": keras}
    names["model"] = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    exec(document_code("fit").replace("epochs=20", "epochs=1").replace("=100", "=2"), names)
    exec(document_code("settings").replace("steps_per_epoch=10", "steps_per_epoch=2"), names)
    assert len(names["history"].epoch) == 2


def test_training_on_a_data_set_of_the_paper(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = document_code("meta-train")
    short = code.replace("range(500)", "range(2)").replace("tasks=200", "tasks=3")
    assert short.count("=500") == 1 and code != short
    exec(short, {"sr": sr})
    assert "meta-iteration 0: ε = 1.00, inner loss" in capsys.readouterr().out
    assert (tmp_path / "reptile.keras").exists()


def test_the_tables_show_their_records():
    done = subprocess.run(
        [sys.executable, "docs/tables", "--check"], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
