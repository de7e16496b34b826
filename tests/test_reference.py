"""The API reference builds from the docstrings without a warning, and nothing public is missing."""

import re
import subprocess
import sys

import pytest
from helpers import PROJECT

import supervised_reptile

pytest.importorskip("pdoc", reason="needs pdoc, of the extra 'dev'")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The text of each page, and the names that are explained on it."""
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, str(PROJECT / "docs" / "reference.py"), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert result.returncode == 0, result.stderr
    assert "warning" not in (result.stdout + result.stderr).lower().replace("warning: all log", "")
    pages = {}
    for path in folder.rglob("*.html"):
        text = path.read_text()
        page = ".".join(path.relative_to(folder).with_suffix("").parts)
        pages[page] = (text, set(re.findall(r'<section id="([\w.]+)"', text) or ()))
        pages[page][1].update(re.findall(r'<div id="([\w.]+)"', text))
    return pages


def test_every_public_name_is_explained(pages):
    _, explained = pages["supervised_reptile"]
    assert set(supervised_reptile.__all__) - {"__version__"} <= explained


def test_methods_that_public_classes_inherit_are_explained_too(pages):
    _, explained = pages["supervised_reptile.meta_learner"]
    assert {"MetaLearner.train_step", "MetaLearner.predict_tasks"} <= explained
    assert "KerasFit.fit" in pages["supervised_reptile.keras_api.fit"][1]


def test_what_docstrings_are_made_of_is_rendered(pages):
    """Equations, sections and references to other names, but in the source that is shown."""
    for page, (text, _) in pages.items():
        prose = re.sub(r'<div class="pdoc-code codehilite">.*?</div>', "", text, flags=re.DOTALL)
        for raw in (".. math::", ":class:`", ":func:`", ":meth:`", "\nArgs:\n"):
            assert raw not in prose, f"{page}: {raw}"
    text, _ = pages["supervised_reptile.meta_learner"]
    assert "$$" in text and "Arguments:" in text
