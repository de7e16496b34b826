"""Infinity and NaN are never a plain number: not in `adapt`, not in `fit`, of no type."""

import keras
import numpy as np
import pytest
from helpers import dense_model

from supervised_reptile import FitSettings, Reptile, adapt
from supervised_reptile.errors import NotFiniteError
from supervised_reptile.finite import check_finite, finite_rows, is_finite

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 3, 3, 1), dtype=np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def broken_model():
    model = dense_model()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    kernel = model.trainable_variables[0]
    kernel.assign(kernel.numpy() * np.nan)
    return model


def test_every_type_of_number_is_looked_at():
    assert is_finite(np.ones(3)) and is_finite(np.ones(3, np.uint8)) and is_finite(np.array("x"))
    for kind in ("float16", "float32", "float64", "complex64"):
        assert not is_finite(np.array([1, np.inf], kind))
    with pytest.raises(NotFiniteError, match=r"images must be finite. Received: 2 of 3 numbers"):
        check_finite(np.array([1, np.inf, np.nan]), "images")
    rows = finite_rows(np.array([[[1.0, 2]], [[np.nan, 1]], [[1, np.inf]]]))
    np.testing.assert_array_equal(rows, [True, False, False])


def test_a_classifier_whose_fine_tuning_diverged_gives_no_class():
    classifier = adapt(broken_model(), IMAGES, LABELS, steps=1)
    for ask in (classifier.predict, lambda images: classifier.evaluate(images, LABELS)):
        with pytest.raises(NotFiniteError, match=r"the outputs of .* must be finite"):
            ask(IMAGES)


def test_validation_that_is_not_finite_is_nan_with_a_warning_never_an_accuracy():
    learner = Reptile(
        broken_model(), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    task = (IMAGES, LABELS)
    with pytest.warns(RuntimeWarning, match="of 2 of 2 validation tasks are infinite or not"):
        history = learner.fit(
            [task] * 4,
            FitSettings(meta_batch=2, inner_batch=3, inner_iters=2),
            validation_tasks=[(*task, *task)] * 2,
            metrics=["accuracy"],
            verbose=0,
        ).history
    assert np.isnan(history["val_accuracy"]).all() and np.isnan(history["val_loss"]).all()
    assert np.isnan(history["loss"]).all()
