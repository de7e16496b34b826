"""Uncertainty over tasks and over the draw of classes, on data whose answer is known."""

import numpy as np
import pytest

from supervised_reptile.reproduction.uncertainty import uncertainty

CLASSES, N = 120, 5


def evaluation(rng, spread, tasks):
    """Accuracies of tasks of classes with success rates 0.8 ± ``spread``."""
    rates = rng.normal(0.8, spread, CLASSES)
    classes = np.argsort(rng.random((tasks, CLASSES)), axis=1)[:, :N]
    correct = rng.random((tasks, N)) < rates[classes]
    return correct.mean(axis=1), classes


@pytest.mark.parametrize("spread", [0.05, 0.15])
def test_the_standard_error_over_classes_is_that_of_a_mean_of_so_many_classes(spread):
    rng = np.random.default_rng(0)
    found = [uncertainty(*evaluation(rng, spread, 4000)) for _ in range(40)]
    truth = spread / np.sqrt(CLASSES)
    assert np.mean([u.classes**2 for u in found]) ** 0.5 == pytest.approx(truth, rel=0.1)
    # Both together are how means of whole evaluations, each of other classes, scatter.
    together = np.mean([u.classes**2 + u.tasks**2 for u in found])
    assert np.var([u.mean for u in found], ddof=1) == pytest.approx(together, rel=0.5)


def test_equal_classes_leave_the_uncertainty_over_tasks_alone():
    rng = np.random.default_rng(1)
    found = [uncertainty(*evaluation(rng, 0.0, 4000)) for _ in range(20)]
    binomial = np.sqrt(0.8 * 0.2 / (4000 * N))
    assert found[0].tasks == pytest.approx(binomial, rel=0.1)
    # Without the term for the tasks' composition it would be N = 5 times this bound.
    assert np.mean([u.classes**2 for u in found]) < binomial**2


def test_by_hand():
    classes = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [0, 3]])
    accuracies = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    # Without class 0: (1, 2), (2, 3); without 1: (0, 2), (2, 3), (0, 3); without 2: (0, 1), (0, 3).
    without = np.array([1 / 2, 1 / 3, 1 / 2, 1.0])
    jackknife = 3 / 4 * np.sum((without - without.mean()) ** 2)
    variance = np.var(accuracies, ddof=1)
    found = uncertainty(accuracies, classes)
    assert found.mean == 0.6
    assert found.tasks == pytest.approx(np.sqrt(variance / 5))
    assert found.classes == pytest.approx(np.sqrt(max(0, jackknife - 2 * variance / 5)))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"Received: \(3,\), \(2, 2\) and 3 classes"):
        uncertainty(np.ones(3), np.array([[0, 1], [1, 2]]))
