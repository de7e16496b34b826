"""The networks against a forward pass written out in NumPy, and one behavior however called."""

import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
import warm

from supervised_reptile.fast.network import fused_for_training
from supervised_reptile.models import (
    batch_statistics_normalization,
    miniimagenet_model,
    omniglot_model,
)

# name -> (builder, shape of one image, sizes of the feature maps)
NETWORKS = {
    "omniglot": (omniglot_model, (28, 28, 1), [14, 7, 4, 2]),
    "miniimagenet": (miniimagenet_model, (84, 84, 3), [42, 21, 11, 6]),
}


def images_for(name, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((count, *NETWORKS[name][1]), dtype=np.float32)


def small(name, classes=3, filters=4, seed=1):
    """A narrow network whose γ, β and biases are not ones and zeros."""
    model = NETWORKS[name][0](classes, filters=filters, seed=seed)
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if len(variable.shape) == 1:
            variable.assign(variable + rng.uniform(-0.5, 0.5, variable.shape))
    return model


# --------------------------------------------------------------- the NumPy network, in float64


def same_padding(size, window, stride):
    """TensorFlow's SAME: as much as needed, the odd one at the end."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def windows(x, window, stride, fill):
    """[b, h, w, c] -> [window · window, b, ⌈h/stride⌉, ⌈w/stride⌉, c], row by row."""
    height, width = x.shape[1:3]
    pads = [same_padding(height, window, stride), same_padding(width, window, stride)]
    padded = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)
    rows, columns = -(-height // stride), -(-width // stride)
    return np.stack(
        [
            padded[:, i : i + rows * stride : stride, j : j + columns * stride : stride]
            for i in range(window)
            for j in range(window)
        ]
    )


def convolution(x, kernel, bias, stride):
    patches = windows(x, 3, stride, 0.0)
    return np.einsum("kbhwi,kio->bhwo", patches, kernel.reshape(9, *kernel.shape[2:])) + bias


def normalization(x, gamma, beta):
    mean = x.mean(axis=(0, 1, 2))
    variance = ((x - mean) ** 2).mean(axis=(0, 1, 2))  # biased
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


def forward(name, weights, x):
    """Logits and the sizes of the feature maps."""
    *blocks, kernel, bias = [np.asarray(w, np.float64) for w in weights]
    x, sizes = np.asarray(x, np.float64), []
    for block in range(4):
        convolve, add, gamma, beta = blocks[4 * block : 4 * block + 4]
        x = convolution(x, convolve, add, stride=2 if name == "omniglot" else 1)
        x = normalization(x, gamma, beta)
        if name == "miniimagenet":
            x = windows(x, 2, 2, -np.inf).max(axis=0)
        x = np.maximum(x, 0.0)
        sizes.append(x.shape[1])
    return x.reshape(len(x), -1) @ kernel + bias, sizes


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_numpy_network(name):
    model, x = small(name), images_for(name, 3)
    expected, sizes = forward(name, model.get_weights(), x)
    assert sizes == NETWORKS[name][2]
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-4)


def test_normalization_equals_numpy_on_odd_shapes():
    inputs = keras.Input((3, 5, 2))
    layer = keras.Model(inputs, batch_statistics_normalization(inputs, name="norm"))
    gamma, beta = np.array([0.5, -2.0]), np.array([1.0, 3.0])
    layer.set_weights([gamma, beta])
    x = np.random.default_rng(0).normal(5.0, 3.0, (4, 3, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(layer(x), normalization(x, gamma, beta), rtol=1e-4, atol=1e-5)
    # By hand: of 1, 3 the mean is 2 and the biased variance 1, so ±1/√1.001.
    inputs = keras.Input((1, 1, 1))
    layer = keras.Model(inputs, batch_statistics_normalization(inputs, name="norm"))
    y = layer(np.array([1.0, 3.0], np.float32).reshape(2, 1, 1, 1))
    np.testing.assert_allclose(np.ravel(y), [-0.9995004, 0.9995004], rtol=1e-6)


# ----------------------------------------------------------------------- one behavior only


def run_in_a_fresh_process(model_path, images, answers):
    """Loads a model with Keras alone and answers in every way there is to call it."""
    code = textwrap.dedent(
        """\
        import sys
        import keras
        import numpy as np

        model_path, images, answers = sys.argv[1:]
        model, x = keras.models.load_model(model_path), np.load(images)
        np.savez(
            answers,
            call=model(x),
            call_inference=model(x, training=False),
            call_training=model(x, training=True),
            predict=model.predict(x, verbose=0),
        )
        assert not any(name.startswith("supervised_reptile") for name in sys.modules)
        """
    )
    command = [sys.executable, "-c", code, *map(str, (model_path, images, answers))]
    result = warm.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return dict(np.load(answers))


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_statistics_whichever_way_it_is_called_here_and_in_another_process(name, tmp_path):
    model, x = small(name), images_for(name, 5)
    expected = model(x).numpy()
    before = [v.numpy().copy() for v in model.variables]
    for _ in range(2):  # calling it leaves no trace
        np.testing.assert_array_equal(model(x, training=False), expected)
        np.testing.assert_array_equal(model(x, training=True), expected)
        np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
        np.testing.assert_array_equal(model(x), expected)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    np.save(tmp_path / "images.npy", x)
    fused_for_training(model)  # what the learner does with it must not change what is saved
    model.save(tmp_path / "model.keras")
    answers = run_in_a_fresh_process(
        tmp_path / "model.keras", tmp_path / "images.npy", tmp_path / "answers.npz"
    )
    assert len(answers) == 4
    for way, answer in answers.items():
        np.testing.assert_array_equal(answer, expected, err_msg=way)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_moving_averages_at_all(name):
    model = small(name)
    assert model.non_trainable_variables == []
    assert len(model.trainable_variables) == len(model.get_weights()) == 4 * 4 + 2
    assert not any(isinstance(x, keras.layers.BatchNormalization) for x in model.layers)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_prediction_depends_on_the_other_images_of_the_batch(name):
    model, x = small(name), images_for(name, 4)
    alone, together = model(x[:2])[:2], model(x)[:2]
    assert np.abs(alone - together).max() > 0.01
    # … but not on their order.
    np.testing.assert_allclose(model(x[::-1])[::-1], model(x), rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------ size and first weights


def test_number_of_parameters():
    convolutions = (9 * 1 * 64 + 64) + 3 * (9 * 64 * 64 + 64)
    features = 2 * 2 * 64
    by_hand = convolutions + 4 * 2 * 64 + (features * 5 + 5)
    assert omniglot_model(5).count_params() == by_hand == 113_221
    convolutions = (9 * 3 * 32 + 32) + 3 * (9 * 32 * 32 + 32)
    features = 6 * 6 * 32  # 84 → 42 → 21 → 11 → 6
    by_hand = convolutions + 4 * 2 * 32 + (features * 5 + 5)
    assert features == 1152
    assert miniimagenet_model(5).count_params() == by_hand == 34_661


def test_outputs_are_logits_for_each_class():
    assert omniglot_model(20).output_shape == (None, 20)
    assert miniimagenet_model(5).input_shape == (None, 84, 84, 3)
    assert omniglot_model(5, image_size=14).input_shape == (None, 14, 14, 1)
    logits = small("omniglot")(images_for("omniglot", 6)).numpy()
    assert (logits < 0).any()  # neither probabilities …
    assert np.abs(logits.sum(axis=1) - 1).max() > 0.1  # … nor a softmax of any kind


@pytest.mark.parametrize("name", NETWORKS)
def test_first_weights(name):
    model = NETWORKS[name][0](5, seed=3)
    kernels = 0
    for variable in model.trainable_variables:
        value = variable.numpy()
        if value.ndim == 1:
            expected = 1.0 if variable.path.endswith("/gamma") else 0.0
            np.testing.assert_array_equal(value, np.full(value.shape, expected), variable.path)
            continue
        kernels += 1
        area = np.prod(value.shape[:-2])  # 3·3, or 1 for the dense layer
        limit = np.sqrt(6 / (area * (value.shape[-2] + value.shape[-1])))
        assert np.abs(value).max() <= limit
        # Uniform over [−limit, limit]: fourths of equal size, to 6 standard deviations.
        fourths = np.histogram(value, bins=4, range=(-limit, limit))[0] / value.size
        assert np.abs(fourths - 0.25).max() < 6 * np.sqrt(0.25 * 0.75 / value.size)
    assert kernels == 5


@pytest.mark.parametrize("name", NETWORKS)
def test_seeds(name):
    def kernels(seed):
        model = NETWORKS[name][0](5, filters=8, seed=seed)
        return [w for w in model.get_weights() if w.ndim > 1]

    first, again, other = kernels(7), kernels(7), kernels(8)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.abs(a - c).max() > 0.01
    # Layers of one shape must not start alike.
    _, second, third, fourth, _ = first
    for a, b in ((second, third), (third, fourth), (second, fourth)):
        assert np.abs(a - b).max() > 0.01
    assert np.abs(kernels(None)[0] - kernels(None)[0]).max() > 0.001


# ---------------------------------------------------------------------- the learner's fused form


def loss_and_gradients(model, x, labels):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    with tf.GradientTape() as tape:
        logits = model(x)
        value = loss(labels, logits)
    variables = [v.value for v in model.trainable_variables]
    gradients = tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return logits.numpy(), [g.numpy() for g in gradients]


@pytest.mark.parametrize("name", NETWORKS)
def test_fused_form_has_the_same_outputs_and_gradients_on_the_same_variables(name):
    model, x = small(name), images_for(name, 6)
    labels = np.array([0, 1, 2, 2, 1, 0])
    fused = fused_for_training(model)
    assert [id(v) for v in fused.variables] == [id(v) for v in model.variables]
    kinds = [type(layer).__name__ for layer in fused.layers]
    assert kinds.count("_FusedBatchStatistics") == 4  # it is another form indeed
    assert "GroupNormalization" not in kinds
    logits, gradients = loss_and_gradients(model, x, labels)
    fused_logits, fused_gradients = loss_and_gradients(fused, x, labels)
    np.testing.assert_allclose(fused_logits, logits, rtol=1e-4, atol=1e-4)
    for variable, a, b in zip(model.variables, fused_gradients, gradients, strict=True):
        if "conv" in variable.path and variable.path.endswith("bias"):
            assert not a.any()  # exactly 0, see fused_for_training, and there rounding noise
            assert np.abs(b).max() < 1e-3
            continue
        scale = max(np.abs(b).max(), 1.0)
        np.testing.assert_allclose(a / scale, b / scale, atol=1e-4, err_msg=variable.path)
    # A change of the one is a change of the other.
    model.trainable_variables[0].assign(model.trainable_variables[0] * 1.5)
    np.testing.assert_allclose(fused(x), model(x), rtol=1e-4, atol=1e-4)
    assert np.abs(model(x) - logits).max() > 1e-3


def test_a_model_saves_and_loads_after_being_fused(tmp_path):
    model, x = small("omniglot"), images_for("omniglot", 3)
    config, names = model.get_config(), [v.path for v in model.variables]
    fused_for_training(model)
    assert model.get_config() == config
    assert [v.path for v in model.variables] == names
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    again = fused_for_training(loaded)  # and a loaded one can be trained on
    np.testing.assert_allclose(again(x), model(x), rtol=1e-4, atol=1e-4)


def normalized(x, name):
    return batch_statistics_normalization(x, name=name)


def test_a_bias_is_left_out_only_where_it_has_no_effect():
    inputs = keras.Input((4, 4, 2))

    def convolution(name, **arguments):
        noise = keras.initializers.RandomNormal(seed=3)
        return keras.layers.Conv2D(3, 3, bias_initializer=noise, name=name, **arguments)

    alone = convolution("alone", padding="same")(inputs)
    used_twice = convolution("used_twice", padding="same")(inputs)
    shared = convolution("shared", padding="same")
    bent = convolution("bent", padding="same", activation="relu")(inputs)
    an_output = convolution("an_output", padding="same")(inputs)
    parts = [
        normalized(alone, "n1"),
        normalized(used_twice, "n2") + used_twice,
        normalized(shared(inputs), "n3") + shared(inputs * 2.0),
        normalized(bent, "n4"),
        normalized(an_output, "n5"),
        normalized(keras.layers.ReLU()(convolution("before_relu", padding="same")(inputs)), "n6"),
    ]
    model = keras.Model(inputs, [*parts, an_output])
    fused = fused_for_training(model)
    kinds = {layer.name for layer in fused.layers if "Without" in type(layer).__name__}
    assert kinds == {"alone_without_bias"}
    batch = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype(np.float32)
    for ours, theirs in zip(fused(batch), model(batch), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_is_not_batch_normalization_is_left_as_it_is():
    inputs = keras.Input((4, 4, 6))
    x = keras.layers.GroupNormalization(3)(inputs)  # per sample, as it is meant
    x = keras.layers.GroupNormalization(-1, axis=-1)(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    fused = fused_for_training(model)
    batch = np.random.default_rng(0).normal(size=(3, 4, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(fused(batch), model(batch))
    assert not any(type(layer).__name__ == "_FusedBatchStatistics" for layer in fused.layers)
    inputs = keras.Input((5, 6))
    model = keras.Model(inputs, keras.layers.GroupNormalization(6)(inputs))  # a channel a group
    batch = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(fused_for_training(model)(batch), model(batch))
    sequential = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    assert fused_for_training(sequential) is sequential
