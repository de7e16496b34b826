r"""The uncertainty of an accuracy, over its tasks and over the random choice of test classes.

The seed chooses the characters that are test classes. Evaluating more tasks gives more information
about these characters, but none about others. The uncertainty over the choice of classes is
estimated by leaving out one class at a time (the delete-one jackknife):

.. math::
    s^2 = \frac{C - 1}{C} \sum_c (a_{-c} - \bar a)^2 - N \frac{\sigma^2}{T}

with :math:`a_{-c}` the mean accuracy of the tasks without class c, C classes, N classes per task,
and T tasks of accuracy variance :math:`\sigma^2`. The subtracted term is the
contribution of the random composition of tasks, since each class is in only N·T/C of them.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Standard errors of a mean accuracy.

    Attributes:
        mean: Mean accuracy over the tasks, in [0, 1].
        tasks: Standard error over random tasks from these classes, in [0, 1].
        classes: Standard error over the random choice of classes, in [0, 1]; 0 if there are too
            few tasks to detect it.
    """

    mean: float
    tasks: float
    classes: float


def uncertainty(accuracies: np.ndarray, classes: np.ndarray) -> Uncertainty:
    """Compute the standard errors of the mean accuracy of tasks.

    Args:
        accuracies: float [tasks], in [0, 1].
        classes: int [tasks, N], the distinct ids of each task's classes.

    Returns:
        The mean and its standard errors over tasks and over classes.

    Raises:
        ValueError: The arrays disagree, or there are fewer than two tasks or classes.
    """
    tasks, per_task = classes.shape
    ids = np.unique(classes)
    if accuracies.shape != (tasks,) or tasks < 2 or len(ids) <= per_task:
        raise ValueError(
            "accuracies must be [tasks] and classes [tasks, N], of 2 tasks or more and more than "
            f"N classes. Received: {accuracies.shape}, {classes.shape} and {len(ids)} classes"
        )
    place = np.searchsorted(ids, classes).ravel()
    # Number of tasks with each class, and the sum of their accuracies.
    count = np.bincount(place, minlength=len(ids))
    total = np.bincount(place, weights=np.repeat(accuracies, per_task), minlength=len(ids))
    without = (accuracies.sum() - total) / (tasks - count)
    variance = accuracies.var(ddof=1)
    jackknife = (len(ids) - 1) / len(ids) * np.sum((without - without.mean()) ** 2)
    of_classes = max(0.0, jackknife - per_task * variance / tasks)
    return Uncertainty(float(accuracies.mean()), math.sqrt(variance / tasks), math.sqrt(of_classes))
