"""What other projects do with a trained model, in a process without this package.

    python elsewhere.py FOLDER RECIPE

FOLDER holds model.keras, saved_model/ and data.npz (images, labels, queries); RECIPE is a file of
Python. Writes answers.npz: the model's outputs for the queries in every way there is to ask it, and
what the recipe leaves in `probabilities`.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

folder, recipe = map(Path, sys.argv[1:])
sys.modules["supervised_reptile"] = None  # cannot be imported, even where it is installed

data = np.load(folder / "data.npz")
images, labels, queries = data["images"], data["labels"], data["queries"]
model = keras.models.load_model(folder / "model.keras")
saved_model = tf.saved_model.load(str(folder / "saved_model"))
(served,) = saved_model.signatures["serving_default"](tf.constant(queries)).values()
layer = keras.layers.TFSMLayer(str(folder / "saved_model"), call_endpoint="serving_default")
(layer_output,) = layer(tf.constant(queries)).values()
answers = {
    "call": model(queries),
    "call, training=False": model(queries, training=False),
    "call, training=True": model(queries, training=True),
    "predict": model.predict(queries, verbose=0),
    "predict_on_batch": model.predict_on_batch(queries),
    "SavedModel, serve": saved_model.serve(tf.constant(queries)),
    "SavedModel, serving_default": served,
    "SavedModel, TFSMLayer": layer_output,
}

np.random.seed(0)
names = {"keras": keras, "np": np, "images": images, "labels": labels, "queries": queries}
text = recipe.read_text().replace('"model.keras"', repr(str(folder / "model.keras")))
exec(compile(text, "recipe", "exec"), names)

np.savez(
    folder / "answers.npz",
    steps=int(names["model"].optimizer.iterations) - int(model.optimizer.iterations),
    probabilities=names["probabilities"],
    **answers,
)
