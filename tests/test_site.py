"""The documentation builds without a warning; its links, formulas and references are right."""

import os
import re
import subprocess
import sys

import pytest
from helpers import PROJECT

import supervised_reptile as sr

sys.path.insert(0, str(PROJECT / "docs"))
import check_site
import site_docstrings

for package in ("mkdocs", "material", "mkdocstrings_handlers.python", "latex2mathml"):
    pytest.importorskip(package, reason=f"needs {package}, of the extra 'docs'")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=environment)
    assert result.returncode == 0, result.stderr
    return folder


def test_links_lead_somewhere_and_nothing_comes_from_the_network(site):
    assert check_site.problems(site) == []


def test_every_public_name_and_nothing_else_is_explained(site):
    pages = {path.stem: path.read_text() for path in (site / "reference").glob("*.html")}
    assert set(pages) == set(sr.__all__) - {"__version__"}
    for name, text in pages.items():
        assert re.search(rf'<h\d id="[\w.]+\.{name}" class="doc doc-heading">', text), name
    assert {"train_step", "predict_tasks", "fit"} <= {
        anchor.split(".")[-1] for anchor in re.findall(r'id="([\w.]+)"', pages["MetaLearner"])
    }


def test_what_docstrings_are_made_of_is_rendered(site):
    for path in (site / "reference").glob("*.html"):
        text = path.read_text()
        for raw in (".. math::", ":class:", ":func:", ":meth:", "arithmatex", "$$", "Args:\n"):
            assert raw not in text, f"{path.name}: {raw}"
    text = (site / "reference" / "MetaLearner.html").read_text()
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in text
    text = (site / "reference" / "omniglot_model.html").read_text()
    assert "Parameters:" in text and "Examples:" in text
    example = re.sub("<[^>]+>", "", text)
    assert "&gt;&gt;&gt; omniglot_model(5).output_shape" in example


def test_docstrings_become_markdown():
    given = """A line, see :class:`Reptile`, :meth:`Reptile.fit` and :func:`elsewhere.thing`.

.. math:: a = b

.. math::
    c = d, \\\\quad
    e = f

Example:
    >>> 1 + 1
"""
    home = site_docstrings.public_objects()["Reptile"]
    assert site_docstrings.markdown(given) == (
        f"A line, see [`Reptile`][{home}], [`Reptile.fit`][{home}.fit] and `elsewhere.thing`.\n\n"
        "$$\na = b\n$$\n\n$$\nc = d, \\\\quad\ne = f\n$$\n\nExamples:\n    >>> 1 + 1"
    )


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ('<a href="b.html">', "leads nowhere"),
        ('<a href="#there">', "has no such anchor"),
        ('<script src="https://example.org/x.js"></script>', "from the network"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "from the network"),
        ('<img src="gone.png">', "leads nowhere"),
        ('<a href="#here" id="here"><a href="https://example.org"><img src="data:,">', None),
    ],
)
def test_what_the_check_finds(tmp_path, body, wrong):
    (tmp_path / "a.html").write_text(body)
    found = check_site.problems(tmp_path)
    assert [wrong in line for line in found] == ([True] if wrong else [])
