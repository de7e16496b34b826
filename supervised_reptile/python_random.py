"""Random numbers of Python and NumPy, which a compiled call would draw once and repeat for ever."""

from __future__ import annotations

import contextlib
import functools
import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras
import numpy as np

_Result = TypeVar("_Result")


def call_without_python_random(
    layers: Sequence[keras.Layer], trace: Callable[[], _Result]
) -> _Result:
    """Trace a call of a model whose layers may draw with ``keras.random`` alone.

    A layer that draws from Python's ``random``, from ``numpy.random`` or from a generator of theirs
    that it holds does so while it is traced, and the compiled call repeats that draw.

    Args:
        layers: All layers of the model.
        trace: Traces the call.

    Returns:
        What ``trace`` returns.

    Raises:
        ValueError: A layer draws from such a generator. Its state is that of before.
    """
    generators = _generators_of(layers)
    states = [_state(each) for each in generators]
    result = trace()
    if not _have_moved(generators, states):
        return result
    layer = _layer_that_draws(layers, generators, trace)
    if layer is None:  # another thread drew
        return result
    for generator, state in zip(generators, states, strict=True):
        _set_state(generator, state)
    raise ValueError(
        "no layer may draw from Python's random or from NumPy, as a compiled call repeats one draw "
        "for ever: use keras.random with a keras.random.SeedGenerator that the layer holds, or "
        f"prepare the examples before training. Received: {type(layer).__name__} {layer.name!r}"
    )


def _layer_that_draws(
    layers: Sequence[keras.Layer], generators: Sequence[Any], trace: Callable[[], object]
) -> keras.Layer | None:
    """Trace again and return the first layer to draw; of layers in each other, the innermost."""
    found: list[keras.Layer] = []

    def watched(layer: keras.Layer) -> Callable:
        call = layer.call

        @functools.wraps(call)
        def watching(*args: object, **kwargs: object) -> object:
            before = [_state(each) for each in generators]
            outputs = call(*args, **kwargs)
            if not found and _have_moved(generators, before):
                found.append(layer)
            return outputs

        return watching

    with contextlib.ExitStack() as stack:
        for layer in layers:
            attributes = vars(layer)  # not through setattr, which Keras watches
            stack.callback(attributes.update, {k: v for k, v in attributes.items() if k == "call"})
            stack.callback(attributes.pop, "call")
            attributes["call"] = watched(layer)
        trace()
    return found[0] if found else None


def _generators_of(layers: Sequence[keras.Layer]) -> list[Any]:
    """Return the global generators, and those that are attributes of a layer."""
    kinds = (random.Random, np.random.RandomState, np.random.Generator)
    held = [v for layer in layers for v in vars(layer).values() if isinstance(v, kinds)]
    return [random, np.random, *(v for v in held if not isinstance(v, random.SystemRandom))]


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    is_numpy = generator is np.random or isinstance(generator, np.random.RandomState)
    return generator.get_state() if is_numpy else generator.getstate()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif generator is np.random or isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(state)


def _have_moved(generators: Sequence[Any], states: Sequence[Any]) -> bool:
    pairs = zip(generators, states, strict=True)  # as bytes, since they hold arrays
    return any(pickle.dumps(_state(each)) != pickle.dumps(state) for each, state in pairs)
