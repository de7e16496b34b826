"""A user's script for test_types.py: a type checker must report the marked lines and no others."""

import numpy as np

import supervised_reptile as sr

config = sr.paper_config("omniglot", classes=5, shots=1)
dataset = sr.load_dataset("omniglot", data_dir="data")
learner = sr.Reptile(sr.omniglot_model(5), inner_optimizer="adam")
for _ in sr.meta_train(
    learner,
    dataset,
    sr.training_spec(config),
    iterations=range(10),
    meta_step=sr.meta_step_from_config(config),
):
    pass
accuracy = sr.evaluate(learner, dataset, "test", sr.evaluation_spec(config), transductive=True)
print(f"{accuracy.mean:.1%}", sr.__version__, sr.load_pretrained("omniglot-5way-1shot").name)
images, labels = np.zeros((5, 28, 28, 1), np.float32), np.arange(5)
print(sr.adapt(sr.omniglot_model(5), images, labels, value_range=(0.0, 1.0)).predict(images))
learner.fit(lambda rng: (rng.normal(size=(9, 1)), np.ones((9, 1))), sr.FitSettings(inner_iters=5))

sr.paper_config(5)  # error
sr.FitSettings(inner_iters="5")  # error
sr.FOMAML(sr.omniglot_model(5), inner_optimiser="adam")  # error
sr.evaluate(learner, dataset, "test")  # error
sr.adapt(sr.omniglot_model(5), images, labels, value_range="any")  # error
print(sr.evaluate_all, accuracy.mean)  # error
print(accuracy.median)  # error
loss: str = learner.fit  # error
