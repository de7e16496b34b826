"""The figures of a run: what is in them, and that it fits."""

import itertools

import numpy as np
import pytest
from helpers import tiny_config
from matplotlib.figure import Figure
from PIL import Image
from test_training import new_trainer

from supervised_reptile.datasets.images.miniimagenet import CLASSES
from supervised_reptile.datasets.images.wordnet import WORDS
from supervised_reptile.reproduction.figures import task_figure
from supervised_reptile.runs import curve_figure
from supervised_reptile.runs.learning_curve import trailing_interval

LONG = (
    *("Atemayar_Qelisayer/character12/rot180", "African hunting dog", "ant"),
    *("Malay_(Jawi_-_Arabic)/character02", "a name of a class that is as long as a sentence"),
)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order."""
    saved, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda f, *a, **k: (saved.append(f), save(f, *a, **k)))
    return saved


@pytest.mark.parametrize(("shots", "names"), [(1, LONG), (5, LONG), (1, LONG * 4)])
def test_names_fit_into_the_figure_of_a_task(tmp_path, figures, shots, names):
    rng, classes = np.random.default_rng(0), len(names)
    images = rng.integers(0, 2, (classes, shots + 1, 28, 28, 1), np.uint8)
    probabilities = rng.dirichlet(np.ones(classes), classes)
    path = tmp_path / "task.png"
    task_figure(path, images[:, 1:], images[:, 0], probabilities, names, title="A task " * 20)
    assert Image.open(path).width >= 900
    (figure,) = figures
    figure.draw_without_rendering()
    texts = [figure._suptitle]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
    texts = [text for text in texts if text.get_text()]
    assert sum(text.get_text() == "query" for text in texts) == 1
    boxes = [text.get_window_extent() for text in texts]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    rows = figure.axes[:: shots + 2]
    assert [axes.get_ylabel().split()[0] for axes in rows] == [
        str(number) for number in range(1, classes + 1)
    ]


def test_a_task_with_several_queries_per_class(tmp_path, figures):
    """Two of each class: a row for each query, next to its own prediction."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (3, 4, 28, 28, 1), np.uint8)
    probabilities = np.eye(3)[[0, 1, 1, 1, 2, 2]]  # the second query is taken for class 1
    queries = images[:, 2:].reshape(6, 28, 28, 1)
    task_figure(tmp_path / "task.png", images[:, :2], queries, probabilities, "abc", title="")
    rows = [figures[0].axes[4 * number : 4 * number + 4] for number in range(6)]
    for number, (first, _, query, _) in enumerate(rows):
        np.testing.assert_array_equal(query.images[0].get_array(), queries[number].squeeze())
        assert bool(first.images) == (number % 2 == 0)
    assert [row[2].get_xlabel() for row in rows] == [
        *("✓ 1 a", "✗ 2 b", "✓ 2 b", "✓ 2 b", "✓ 3 c", "✓ 3 c"),
    ]


def test_every_class_of_mini_imagenet_has_a_word_of_its_own():
    ids = {wnid for split in CLASSES.values() for wnid in split}
    assert ids <= set(WORDS) and len(set(WORDS.values())) == len(WORDS)
    assert WORDS["n01532829"] == "house finch" and WORDS["n02113712"] == "miniature poodle"


def test_the_interval_of_a_trailing_mean():
    values = np.random.default_rng(0).random(12)
    mean, margin = trailing_interval(values, 5)
    for i, (m, half) in enumerate(zip(mean, margin, strict=True)):
        window = values[i : i + 5]
        np.testing.assert_allclose(m, window.mean())
        np.testing.assert_allclose(half, 1.96 * window.std(ddof=1) / np.sqrt(5))
    np.testing.assert_allclose(trailing_interval(values, 1), [values, np.zeros(12)], atol=1e-6)


def test_the_curve_has_the_running_mean_and_its_interval(tmp_path, figures):
    test = np.tile([0.0, 1.0], 50)
    curve = {"iteration": np.arange(100.0), "test": test}
    path = tmp_path / "curve.png"
    curve_figure.learning_curve_figure(
        path, {"seed 0": curve}, splits=["test"], window=20, title="t"
    )
    (axes,) = figures[0].axes
    (line,), (band,) = axes.lines, axes.collections
    np.testing.assert_allclose(line.get_ydata(), 50)
    heights = band.get_paths()[0].vertices[:, 1]
    half = 100 * 1.96 * test[:20].std(ddof=1) / np.sqrt(20)
    np.testing.assert_allclose([heights.min(), heights.max()], [50 - half, 50 + half])
    assert "mean of 20 tasks and 95 % interval" in axes.get_ylabel()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curve.png"]


def test_the_curve_is_drawn_while_a_run_goes_on(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curve_figure, "_SECONDS", -1)
    draw = curve_figure.draw_curve_of_run
    monkeypatch.setattr(
        curve_figure, "draw_curve_of_run", lambda *a: (draw(*a), drawn.append(a[0]))
    )
    trainer = new_trainer(tmp_path / "run", tiny_config(meta_iters=4, eval_interval=2))
    trainer.prepare()
    trainer.train()
    assert drawn == [tmp_path / "run"] * 2
    assert Image.open(tmp_path / "run" / "curve.png").width > 900
