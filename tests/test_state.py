"""The working copy of the weights: layout, optimizer state, and updates equal to Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from supervised_reptile.fast import weights as state
from supervised_reptile.fast.weights import FastWeights

optimizers = keras.optimizers
SHAPES = [(3, 4), (4,), (2, 2, 3), ()]
TIGHT = {"rtol": 2e-6, "atol": 2e-7}


def variables(shapes=SHAPES, seed=None):
    """Zeros, or random numbers if there is a seed."""
    rng = np.random.default_rng(seed)
    values = [np.zeros(s) if seed is None else rng.normal(size=s) for s in shapes]
    return [keras.Variable(v.astype(np.float32)) for v in values]


def arrays(shapes=SHAPES, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return [(scale * rng.normal(size=s)).astype(np.float32) for s in shapes]


def gradients_for(steps, shapes=SHAPES):
    """Of very different sizes, as gradients are."""
    return [arrays(shapes, seed=step, scale=10.0 ** (step % 4 - 2)) for step in range(steps)]


def run(fast, start, gradients):
    """Steps of a working copy from `start`; returns the weights, one array each."""
    fast.load(fast.pack(start))
    for step in gradients:
        fast.apply_gradients(fast.pack(step))
    return [t.numpy() for t in fast.unpack(fast.values())]


def run_keras(optimizer, start, gradients):
    """The same steps by `optimizer.apply` on a variable for each weight."""
    weights = [keras.Variable(v) for v in start]
    for step in gradients:
        optimizer.apply([tf.constant(g) for g in step], weights)
    return [w.numpy() for w in weights]


def assert_close(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, **(tolerance or TIGHT))


# ---------------------------------------------------------------------------------- layout


shapes_of_weights = st.lists(
    st.lists(st.integers(1, 4), max_size=4).map(tuple), min_size=1, max_size=5
)


@settings(deadline=None, max_examples=40)
@given(shapes_of_weights, st.booleans())
def test_pack_and_unpack_are_each_others_inverse(shapes, flat):
    optimizer = optimizers.SGD(0.1) if flat else optimizers.Lamb(0.1)
    fast = FastWeights(variables(shapes), optimizer)
    assert fast.flat == flat
    values = arrays(shapes)
    packed = fast.pack(values)
    assert [tuple(t.shape) for t in packed] == [tuple(v.shape) for v in fast.variables]
    if flat:
        np.testing.assert_array_equal(packed[0], np.concatenate([v.ravel() for v in values]))
    for value, again in zip(values, fast.unpack(packed), strict=True):
        assert value.shape == tuple(again.shape)
        np.testing.assert_array_equal(value, again)
    fast.load(packed)
    for a, b in zip(packed, fast.values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_values_are_a_snapshot():
    fast = FastWeights(variables(), optimizers.SGD(0.1))
    fast.load(fast.pack(arrays(seed=1)))
    before = fast.values()
    fast.apply_gradients(fast.pack(arrays(seed=2)))
    np.testing.assert_array_equal(before[0], fast.pack(arrays(seed=1))[0])
    assert np.abs(fast.values()[0] - before[0]).max() > 0.01


@pytest.mark.parametrize("optimizer", [optimizers.SGD, optimizers.Lamb])
def test_decay_multiplies_every_weight_and_nothing_else(optimizer):
    fast = FastWeights(variables(), optimizer(0.1))
    run(fast, arrays(seed=1), gradients_for(2))
    weights, slots = fast.values(), [v.numpy().copy() for v in fast.optimizer.variables]
    fast.decay(0.75)
    for a, b in zip(fast.values(), weights, strict=True):
        np.testing.assert_array_equal(a, b * 0.75)
    for a, b in zip(fast.optimizer.variables, slots, strict=True):
        np.testing.assert_array_equal(a, b)


# -------------------------------------------------------------------------- optimizer state


@pytest.mark.parametrize("name", ["Adam", "RMSprop", "Nadam", "Lamb"])
def test_load_leaves_slots_and_step_count_alone(name):
    """The paper's inner Adam runs on from task to task, never reset."""
    fast = FastWeights(variables(), getattr(optimizers, name)(0.01))
    run(fast, arrays(seed=1), gradients_for(3))
    slots = [v.numpy().copy() for v in fast.optimizer.variables]
    assert int(fast.optimizer.iterations.numpy()) == 3
    fast.load(fast.pack(arrays(seed=5)))
    for a, b in zip(fast.optimizer.variables, slots, strict=True):
        np.testing.assert_array_equal(a, b)


ADAM = {"learning_rate": 0.01, "beta_1": 0.3, "beta_2": 0.99, "epsilon": 1e-8}


@pytest.mark.parametrize(
    "build",
    [
        lambda: optimizers.Adam(**ADAM),
        lambda: optimizers.SGD(0.1),
        lambda: optimizers.SGD(0.1, momentum=0.9),
        lambda: optimizers.Nadam(0.01),
        lambda: optimizers.Adam(0.01, clipnorm=0.5),
    ],
    ids=["adam", "sgd", "momentum", "nadam", "clipnorm"],
)
def test_a_twin_with_the_state_copied_goes_on_bit_for_bit(build):
    fast = FastWeights(variables(), build())
    twin = fast.twin()
    assert twin.flat == fast.flat
    assert twin.uses_fused_update == fast.uses_fused_update
    ours = fast.optimizer.get_config()
    theirs = twin.optimizer.get_config()
    assert {k: v for k, v in ours.items() if k != "name"} == {
        k: v for k, v in theirs.items() if k != "name"
    }
    run(fast, arrays(seed=1), gradients_for(5))
    # So far the twin knows nothing of it …
    assert int(twin.optimizer.iterations.numpy()) == 0
    assert all(not np.any(v.numpy()) for v in twin.variables)
    fast.optimizer.learning_rate = 0.02
    twin.copy_optimizer_state(fast)
    assert int(twin.optimizer.iterations.numpy()) == 5
    for a, b in zip(twin.optimizer.variables, fast.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    # … and now it goes the same way.
    more = gradients_for(3)
    for a, b in zip(run(twin, arrays(seed=7), more), run(fast, arrays(seed=7), more), strict=True):
        np.testing.assert_array_equal(a, b)
    # A step of the one is no step of the other.
    run(twin, arrays(seed=8), more)
    assert int(fast.optimizer.iterations.numpy()) == 8
    assert int(twin.optimizer.iterations.numpy()) == 11


# --------------------------------------------------------------------------------- updates


FUSED = {
    "sgd": lambda: optimizers.SGD(0.05),
    "sgd, nesterov without momentum": lambda: optimizers.SGD(0.05, nesterov=True),
    "adam, beta_1 0": lambda: optimizers.Adam(0.01, beta_1=0.0, epsilon=1e-8),
    "adam, beta_1 0.9": lambda: optimizers.Adam(0.01, beta_1=0.9),
    "adam, review": lambda: optimizers.Adam(0.01, beta_1=0.1, beta_2=0.99),
    "adam, large epsilon": lambda: optimizers.Adam(0.01, epsilon=0.1),
    "sgd, schedule": lambda: optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)),
    "adam, schedule": lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_update_is_keras_own_to_the_last_slot(name):
    """Weights, slots and step count after every one of 12 steps, on one flat variable each.

    The kernel takes 1 − β2 in float32, which for 0.999 is 1.3e-5 (relative) off what Keras takes
    in float64: that much the second moments may differ, and the way traveled by half of it.
    """
    build, shape = FUSED[name], [(40,)]
    fast, theirs = FastWeights(variables(shape), build()), build()
    assert fast.uses_fused_update
    start = arrays(shape, seed=99)
    weight = keras.Variable(start[0])
    theirs.build([weight])
    fast.load(fast.pack(start))
    way = np.zeros(shape[0])
    for gradient in gradients_for(12, shape):
        before = weight.numpy().copy()
        fast.apply_gradients(fast.pack(gradient))
        theirs.apply([tf.constant(g) for g in gradient], [weight])
        way += np.abs(weight.numpy() - before)
        difference = np.abs(fast.values()[0].numpy() - weight.numpy())
        assert (difference <= 1e-5 * way + 1e-6 * np.abs(weight.numpy()) + 1e-7).all()
        for a, b in zip(fast.optimizer.variables, theirs.variables, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-5, atol=1e-9)
    assert int(fast.optimizer.iterations.numpy()) == 12
    assert way.min() > 0.01


def test_adam_by_hand():
    """Two steps on one number: lr·√(1−β2^t)/(1−β1^t) · m/(√v + ε)."""
    fast = FastWeights(variables([(1,)]), optimizers.Adam(0.1, beta_1=0.0, beta_2=0.75))
    ones = [np.ones(1, np.float32)]
    # t=1, g=2: m=2, v=0.25·4=1, step 0.1·√0.25·2/1 = 0.1
    # t=2, g=1: m=1, v=0.75+0.25=1, step 0.1·√0.4375·1/1 = 0.0661438
    (weight,) = run(fast, ones, [[2 * ones[0]], ones])
    assert weight[0] == pytest.approx(1 - 0.1 - 0.0661438, abs=1e-6)


FALLS_BACK = {
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "clipvalue": lambda: optimizers.Adam(0.01, clipvalue=0.1),
    "clipnorm": lambda: optimizers.Adam(0.01, clipnorm=0.1),
    "clipnorm, sgd": lambda: optimizers.SGD(0.01, clipnorm=0.1),
    "global_clipnorm": lambda: optimizers.SGD(0.01, global_clipnorm=0.1),
    "weight_decay": lambda: optimizers.SGD(0.05, weight_decay=0.1),
    "weight_decay, adam": lambda: optimizers.Adam(0.05, weight_decay=0.1),
    "ema": lambda: optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
    "ema overwrites": lambda: optimizers.SGD(
        0.05, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "loss_scale_factor": lambda: optimizers.SGD(0.05, loss_scale_factor=8.0),
    "accumulation": lambda: optimizers.SGD(0.05, gradient_accumulation_steps=2),
}


@pytest.mark.parametrize("name", FALLS_BACK)
def test_what_the_fused_update_cannot_do_is_left_to_keras(name):
    build = FALLS_BACK[name]
    fast = FastWeights(variables(), build())
    assert not fast.uses_fused_update
    assert fast.flat == ("clipnorm" not in name or name == "global_clipnorm")
    start, gradients = arrays(seed=99), gradients_for(7)
    ours, theirs = run(fast, start, gradients), run_keras(build(), start, gradients)
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    # The option matters on these gradients, or the comparison says nothing.
    plain = {"learning_rate": 0.05} if "sgd" in str(type(build())).lower() else {}
    without = run_keras(type(build())(**plain), start, gradients)
    assert max(np.abs(a - b).max() for a, b in zip(theirs, without, strict=True)) > 1e-3


@pytest.mark.parametrize("kind", state._ELEMENTWISE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("options", [{}, {"clipvalue": 0.05}, {"global_clipnorm": 0.05}], ids=str)
def test_one_flat_vector_is_as_good_as_a_variable_each(kind, options):
    fast = FastWeights(variables(), kind(0.01, **options))
    assert fast.flat
    start, gradients = arrays(seed=99), gradients_for(7)
    ours = run(fast, start, gradients)
    assert_close(ours, run_keras(kind(0.01, **options), start, gradients), rtol=1e-5, atol=1e-6)
    assert max(np.abs(a - b).max() for a, b in zip(ours, start, strict=True)) > 5e-5


@pytest.mark.parametrize("name", ["Lamb", "Adafactor", "Muon"])
def test_optimizers_of_whole_matrices_keep_them_whole(name):
    shapes = [(3, 4), (4,), (4, 2)]
    kind = getattr(optimizers, name)
    fast = FastWeights(variables(shapes), kind(0.01))
    assert not fast.flat
    start, gradients = arrays(shapes, seed=99), gradients_for(4, shapes)
    assert_close(
        run(fast, start, gradients), run_keras(kind(0.01), start, gradients), rtol=1e-5, atol=1e-6
    )


def test_a_subclass_is_not_taken_for_its_parent():
    class Backwards(optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(-gradient, variable, learning_rate)

    fast = FastWeights(variables(), Backwards(0.1))
    assert not fast.flat
    assert not fast.uses_fused_update
    start, gradients = arrays(seed=1), gradients_for(2)
    ours = run(fast, start, gradients)
    uphill = [[-g for g in step] for step in gradients]
    assert_close(ours, run_keras(optimizers.SGD(0.1), start, uphill))


@pytest.mark.parametrize("name", ["sgd", "adam, beta_1 0"])
def test_steps_in_a_compiled_loop_are_the_steps_one_by_one(name):
    one_by_one, compiled = (FastWeights(variables(), FUSED[name]()) for _ in range(2))
    start, gradients = arrays(seed=1), gradients_for(6)
    expected = run(one_by_one, start, gradients)
    packed = tf.stack([compiled.pack(step)[0] for step in gradients])

    @tf.function
    def steps():
        for i in tf.range(6):
            compiled.apply_gradients([packed[i]])

    compiled.load(compiled.pack(start))
    steps()
    assert_close([t.numpy() for t in compiled.unpack(compiled.values())], expected)
    assert int(compiled.optimizer.iterations.numpy()) == 6


# ------------------------------------------------------- the state as Keras keeps it with a model


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Nadam", "Adadelta", "Lion"])
@pytest.mark.parametrize("shapes", [SHAPES, [(3, 2)]], ids=["several", "one"])
def test_an_optimizer_for_a_model_goes_on_where_the_working_copy_is(name, shapes):
    def new(rate):
        return getattr(optimizers, name)(learning_rate=rate)

    before, after = gradients_for(3, shapes), gradients_for(5, shapes)[3:]
    start = arrays(shapes, seed=9)
    whole = run_keras(new(0.01), start, before + after)
    fast = FastWeights(variables(shapes), new(0.01))
    halfway = run(fast, start, before)

    weights = [keras.Variable(v) for v in halfway]
    optimizer = fast.optimizer_for(weights)
    assert int(optimizer.iterations) == 3
    for step in after:
        optimizer.apply([tf.constant(g) for g in step], weights)
    assert_close([w.numpy() for w in weights], whole)

    # And back: another copy takes the state over, but keeps the learning rate it was given.
    other = FastWeights(variables(shapes), new(0.5))
    other.take_optimizer_state(fast.optimizer_for(variables(shapes)))
    assert float(other.optimizer.learning_rate) == pytest.approx(0.5)
    for mine, theirs in zip(other.optimizer.variables, fast.optimizer.variables, strict=True):
        if mine.name != "learning_rate":
            np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_an_optimizer_that_works_on_matrices_goes_on_too():
    fast = FastWeights(variables([(3, 4), (4,)]), optimizers.Adafactor(0.01))
    assert not fast.flat
    start, steps = arrays([(3, 4), (4,)]), gradients_for(4, [(3, 4), (4,)])
    halfway = run(fast, start, steps[:2])
    weights = [keras.Variable(v) for v in halfway]
    optimizer = fast.optimizer_for(weights)
    for step in steps[2:]:
        optimizer.apply([tf.constant(g) for g in step], weights)
    assert_close([w.numpy() for w in weights], run_keras(optimizers.Adafactor(0.01), start, steps))


@pytest.mark.parametrize(
    "other",
    [
        lambda: FastWeights(variables(), optimizers.RMSprop()).optimizer_for(variables()),
        lambda: FastWeights(variables([(2,)] * 4), optimizers.Adam()).optimizer_for(
            variables([(2,)] * 4)
        ),
        lambda: optimizers.Adam(),
    ],
    ids=["another kind", "other shapes", "not built"],
)
def test_a_state_that_does_not_fit_is_refused(other):
    fast = FastWeights(variables(), optimizers.Adam())
    with pytest.raises(ValueError, match="must be of Adam, built on weights of shapes"):
        fast.take_optimizer_state(other())
