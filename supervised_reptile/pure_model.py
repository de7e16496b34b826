"""A Keras model as a pure function: weights and state in, outputs, losses and new state out."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from supervised_reptile.fast.network import fused_for_training
from supervised_reptile.python_random import call_without_python_random

_SEED = "seed_generator_state"  # the name of every keras.random.SeedGenerator's variable
# Operations of TensorFlow that change a tf.Variable (a Keras variable is only read in a trace) …
_CHANGES = re.compile("Assign.*VariableOp|ResourceScatter.*|RngReadAndSkip|RngSkip|Stateful[A-Z].*")
# … and those that draw from TensorFlow's own seed.
_DRAWS = {
    *("RandomStandardNormal", "RandomUniform", "RandomUniformInt", "TruncatedNormal"),
    *("ParameterizedTruncatedNormal", "RandomGamma", "RandomPoissonV2", "Multinomial"),
    "RandomShuffle",
}


class Called(NamedTuple):
    """The result of a call of the model.

    Attributes:
        outputs: The outputs of the model.
        losses: Scalars that the layers add to the loss: regularizers, ``add_loss``.
        state: New values of :attr:`PureModel.state`.
    """

    outputs: tf.Tensor
    losses: list[tf.Tensor]
    state: list[tf.Tensor]


class PureModel:
    """Call a model as Keras' ``train_step`` and ``predict_step`` do, without changing variables.

    Attributes:
        state: Variables that a call with ``training=True`` changes, such as counters of random
            layers and states of stateful recurrent layers.
        is_rehearsed: Whether :meth:`rehearse` has determined the state.

    Args:
        model: Keras model with one input and one output.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._network = fused_for_training(model)
        self.state: list[keras.Variable] = []
        self.is_rehearsed = False

    @property
    def takes_integers(self) -> bool:
        """Whether the model declares its input as integers, as before an ``Embedding``."""
        inputs = getattr(self._model, "inputs", None)
        if not inputs:
            return False
        return tf.as_dtype(inputs[0].dtype).is_integer

    def in_stock_operations(self) -> PureModel:
        """Return the same function without the fused operations of ``fast.network``."""
        other = copy.copy(self)
        other._network = self._model
        return other

    def __call__(
        self,
        weights: Sequence[tf.Tensor],
        state: Sequence[tf.Tensor],
        x: tf.Tensor,
        *,
        training: bool,
    ) -> Called:
        """Call the model.

        Args:
            weights: Values of its trainable variables.
            state: Values of :attr:`state`.
            x: A batch of inputs.
            training: As for every Keras model.
        """
        given = [*zip(self._model.trainable_variables, weights, strict=True)]
        given += zip(self.state, state, strict=True)
        outputs, losses, scope = self._call(given, x, training)
        return Called(outputs, losses, [scope.get_current_value(v) for v in self.state])

    def _call(self, given: Sequence[tuple], x: tf.Tensor, training: bool) -> tuple:
        network = self._network
        takes_training = network._call_has_training_arg
        network._clear_losses()
        with keras.StatelessScope(given, collect_losses=True) as scope:
            outputs = network(x, training=training) if takes_training else network(x)
            losses = list(network.losses) if training else []
        return outputs, losses, scope

    def rehearse(self, x: tf.TensorSpec) -> tf.Tensor:
        """Trace a training call, without computing anything, to find out what it changes.

        Args:
            x: Shape and type of a batch of inputs.

        Returns:
            The outputs, a symbolic tensor.

        Raises:
            ValueError: The call changes something that an inner loop cannot carry: a weight,
                moving statistics, or a variable that does not belong to the model. Or a layer
                draws random numbers of Python or NumPy.
        """
        outputs, changed, touched, graph = call_without_python_random(
            self._network._flatten_layers(), lambda: self._traced(x, training=True)
        )
        elsewhere = touched - {id(v) for v in self._model.variables}
        if elsewhere:
            raise ValueError(
                "a call must change variables of the model alone; for random numbers hold a "
                f"keras.random.SeedGenerator. Received: {self._where(elsewhere)}"
            )
        _check_operations(graph)
        weights = {id(v) for v in changed if v.trainable}
        if weights:
            raise ValueError(
                "no layer may assign its trainable weights when it is called, as only optimizer "
                f"steps move them here. Received: {self._where(weights)}"
            )
        moving = {id(v) for v in changed if tf.as_dtype(v.dtype).is_floating}
        if moving:
            moving -= {id(v) for v in self._traced(x, training=False)[1]}
        if moving:
            raise ValueError(
                "model must have no moving statistics, which a few inner steps cannot estimate: "
                "freeze the layer (trainable = False), or use GroupNormalization, "
                "LayerNormalization or supervised_reptile.models.batch_statistics_normalization. "
                f"Received: {self._where(moving)}"
            )
        self.state, self.is_rehearsed = changed, True
        return outputs

    def unused_weights(self, x: tf.TensorSpec) -> list[keras.Variable]:
        """Return trainable weights that neither outputs nor added losses depend on.

        Args:
            x: Shape and type of a batch of inputs.
        """
        weights, model = self._model.trainable_variables, self.in_stock_operations()
        found: list[tf.Tensor | None] = []

        @tf.function(autograph=False)
        def trace(inputs: tf.Tensor) -> None:
            values = [tf.identity(w.value) for w in weights]
            given = [*zip(weights, values, strict=True)]
            outputs, losses, _ = model._call(given, inputs, training=True)
            found.extend(tf.gradients([outputs, *losses], values))

        trace.get_concrete_function(x)
        return [w for w, gradient in zip(weights, found, strict=True) if gradient is None]

    def _traced(
        self, x: tf.TensorSpec, *, training: bool
    ) -> tuple[tf.Tensor, list[keras.Variable], set[int], tf.Graph]:
        """Return outputs, changed variables, ids of all used variables, and graph of a call."""
        found: list[tuple[tf.Tensor, list[keras.Variable], set[int]]] = []

        @tf.function(autograph=False)
        def trace(inputs: tf.Tensor) -> None:
            given = [(v, tf.identity(v.value)) for v in self._model.variables]
            outputs, _, scope = self._call(given, inputs, training)
            changed = [v for v, value in given if scope.get_current_value(v) is not value]
            found.append((outputs, changed, set(scope.state_mapping)))

        graph = trace.get_concrete_function(x).graph
        return *found[0], graph

    def _where(self, ids: Collection[int]) -> str:
        """Name these variables and the layers that own them."""
        found: dict[str, dict[str, None]] = {}
        for layer in self._model._flatten_layers():
            for value in keras.tree.flatten(list(vars(layer).values())):
                if id(value) in ids:
                    owner = f"{type(layer).__name__} {layer.name!r}"
                    found.setdefault(owner, {})[value.name] = None
        named = (f"{owner} changes {', '.join(names)}" for owner, names in found.items())
        return "; ".join(named) or "a variable that no layer owns"


def _check_operations(graph: tf.Graph) -> None:
    """Check the operations of a traced call.

    Raises:
        ValueError: One changes a ``tf.Variable``, which would carry over from task to task, or
            draws random numbers that do not depend on the task's seed.
    """
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    for node in nodes:
        if node.op in _DRAWS or _CHANGES.fullmatch(node.op):
            raise ValueError(
                "a call must not change a tf.Variable nor draw from tf.random: use "
                "self.add_weight(trainable=False), and keras.random with a "
                f"keras.random.SeedGenerator that the layer holds. Received: {node.op} {node.name}"
            )


def is_seed(variable: keras.Variable) -> bool:
    """Whether a variable is the state of a ``keras.random.SeedGenerator``."""
    return variable.name == _SEED and tuple(variable.shape) == (2,)


class LayerState:
    """A working copy of the state that the layers of a model keep between calls.

    It advances within a task and is reset to the model's own state for every task, so the result of
    a task does not depend on earlier tasks. Random numbers are new in every task and come from its
    seed.

    Args:
        variables: The model's variables, :attr:`PureModel.state`.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        self._originals = list(variables)
        with tf.init_scope():  # this may run while a function is traced
            self._copies = [tf.Variable(v.value, trainable=False) for v in variables]

    def start(self, seed: tf.Tensor | None) -> None:
        """Begin a task.

        Args:
            seed: int32 [2], seed of the task's random numbers; not needed if no layer draws any.
        """
        for place, (mine, original) in enumerate(zip(self._copies, self._originals, strict=True)):
            value = original.value
            if is_seed(original):
                value = tf.random.experimental.stateless_fold_in(seed, place)
            mine.assign(tf.cast(value, mine.dtype))

    def values(self) -> list[tf.Tensor]:
        """Return the current state."""
        return [v.read_value() for v in self._copies]

    def assign(self, values: Sequence[tf.Tensor]) -> None:
        """Set a new state."""
        for variable, value in zip(self._copies, values, strict=True):
            variable.assign(value)
