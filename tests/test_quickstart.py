"""The embedded data set is worth training on: without training, fine-tuning alone does poorly."""

import pytest
import tensorflow as tf

from supervised_reptile.config import paper_config
from supervised_reptile.datasets import load_dataset
from supervised_reptile.evaluation import evaluate
from supervised_reptile.from_config import evaluation_spec, learner_from_config
from supervised_reptile.models import omniglot_model


@pytest.mark.slow
def test_an_untrained_network_stays_clearly_below_the_quickstart():
    """CI demands at least 60 % of the quickstart; chance is 20 %."""
    config = paper_config("glyphs", shots=1)
    dataset = load_dataset("glyphs", seed=0, progress=False)
    learner = learner_from_config(config, omniglot_model(5, seed=0))
    images = tf.Variable(dataset.images, trainable=False)
    accuracy = evaluate(
        learner,
        dataset,
        "test",
        evaluation_spec(config),
        transductive=True,
        tasks=150,
        examples=images,
        progress=False,
    )
    assert 0.22 < accuracy.mean < 0.45
