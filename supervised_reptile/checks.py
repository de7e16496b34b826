"""Refuse models that a learner cannot train, in one line and before anything slow starts."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

# Parts of Keras' training and prediction that the inner loop does itself.
_OWN_STEPS = ("train_step", "compute_loss", "test_step", "predict_step")
# Operations that may follow the softmax or the linear layer at the end of a network.
_PASSES_ON = {"Identity", "Cast", "Reshape", "Transpose", "StopGradient"}
_LINEAR = {"MatMul", "BatchMatMulV2", "Einsum", "Conv1D", "Conv2D", "Conv3D", "BiasAdd"}


def check_model(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Check a model without calling it.

    Raises:
        ValueError: The model has no trainable weights or some that are not float32, does not map
            one array of numbers to another, has training or prediction steps of its own, or
            computes in float16 with an optimizer that does not scale the loss.
    """
    if keras.backend.backend() != "tensorflow":  # by ~/.keras/keras.json
        raise ValueError(
            f"the backend of Keras must be tensorflow. Received: {keras.backend.backend()}"
        )
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a keras.Model. Received: {model!r}")
    if not model.built or not model.trainable_variables:
        what = "one without" if model.built else "one that is not built: call it on a batch once"
        raise ValueError(f"model must be built and have trainable variables. Received: {what}")
    own = [n for n in _OWN_STEPS if getattr(type(model), n) is not getattr(keras.Model, n)]
    if own:
        raise ValueError(
            "model must not replace the steps of keras.Model, which the inner loop does not call: "
            "use a loss, add_loss, or the model that it wraps. "
            f"Received: {type(model).__name__} with its own {', '.join(own)}"
        )
    dtypes = sorted({v.dtype for v in model.trainable_variables})
    if dtypes != ["float32"]:
        raise ValueError(
            "trainable variables must be float32 (the policy mixed_bfloat16 computes in bfloat16 "
            f"and keeps them so). Received: {', '.join(dtypes)}"
        )
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) > 1:
        names = ", ".join(x.name for x in inputs)
        raise ValueError(
            "model must have one input: pack several into one array, and take it apart in the "
            f"model. Received: {len(inputs)} inputs, {names}"
        )
    if inputs and inputs[0].dtype == "string":
        raise ValueError(
            "model must take numbers: turn text into numbers first. Received: an input of strings"
        )
    if len(getattr(model, "outputs", None) or [0]) != 1:
        raise ValueError(_one_output(f"{len(model.outputs)} outputs"))
    halves = [x for x in model._flatten_layers() if x.compute_dtype == "float16"]
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if halves and not (scales or optimizer.loss_scale_factor):
        raise ValueError(
            "a model that computes in float16 needs an inner_optimizer that scales the loss: wrap "
            "it in keras.optimizers.LossScaleOptimizer, or use the policy mixed_bfloat16. "
            f"Received: {optimizer.name} for {halves[0].name}, of policy "
            f"{halves[0].dtype_policy.name}"
        )


def check_inner_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Check that an optimizer's slots can carry over from task to task.

    Raises:
        ValueError: The slots hold weights, or the optimizer combines several optimizers.
    """
    if _is_a(optimizer, "ScheduleFreeAdamW"):
        raise ValueError(
            "inner_optimizer must not keep weights in its slots, as every task starts from other "
            "weights: use AdamW. Received: ScheduleFreeAdamW"
        )
    if _is_a(optimizer, "MultiOptimizer"):
        raise ValueError(
            "inner_optimizer must have one learning rate: use one optimizer for all weights. "
            "Received: MultiOptimizer"
        )


def check_outer_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Check that the outer step size can be its learning rate, and that it is not used elsewhere.

    Raises:
        ValueError: The learning rate follows a schedule, or there are several, or the optimizer
            was built on other variables, or divides gradients by the scale of a loss.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or optimizer.loss_scale_factor:
        raise ValueError(
            "outer_optimizer must not scale the loss, because its gradient is that of no loss: "
            f"leave loss_scale_factor and LossScaleOptimizer out. Received: {optimizer.name}"
        )
    if optimizer.built:
        raise ValueError(
            "outer_optimizer must be new because its slots belong to this learner. "
            f"Received: {optimizer.name}, built on other variables"
        )
    if not isinstance(getattr(optimizer, "learning_rate", None), keras.Variable):
        raise ValueError(
            "outer_optimizer's learning rate is the outer step size, so give a schedule as the "
            f"meta_step of FitSettings. Received: {type(optimizer).__name__} with its own schedule"
        )


def check_outputs(outputs: object, loss: keras.losses.Loss) -> None:
    """Check that a model's outputs suit the loss.

    Args:
        outputs: Traced outputs of the model.
        loss: Keras loss.

    Raises:
        ValueError: There are several outputs, the loss takes logits but receives probabilities or
            the other way round, or it has no reduction.
    """
    if loss.reduction in (None, "none"):
        raise ValueError(
            'loss must have a reduction: "sum" as in the paper, or "sum_over_batch_size". '
            f"Received: {type(loss).__name__}(reduction={loss.reduction!r})"
        )
    if not isinstance(outputs, tf.Tensor):
        raise ValueError(_one_output(f"outputs of type {type(outputs).__name__}"))
    activation, from_logits = last_activation(outputs), loss.get_config().get("from_logits")
    if activation and from_logits:
        raise ValueError(
            f"loss must have from_logits=False for a model that ends in {activation}, or the "
            f"model must give logits. Received: {type(loss).__name__}(from_logits=True)"
        )
    if from_logits is False and _is_linear(outputs):
        raise ValueError(
            "loss must have from_logits=True for a model that ends in a linear layer, which gives "
            "logits, or the model must end in a softmax or sigmoid. "
            f"Received: {type(loss).__name__}(from_logits=False)"
        )


def check_used(unused: Sequence[keras.Variable], optimizer: keras.optimizers.Optimizer) -> None:
    """Check that no weight moves that the outputs do not depend on.

    Keras leaves out weights without a gradient. In the inner loop their gradient is 0, which is
    another thing for an optimizer that decays them.

    Args:
        unused: Trainable weights without effect.
        optimizer: An inner optimizer that moves weights whose gradient is 0.

    Raises:
        ValueError: There are such weights.
    """
    if unused:
        raise ValueError(
            f"model must use all its trainable weights with {type(optimizer).__name__}, which also "
            "moves weights without a gradient: freeze the others (trainable = False). "
            f"Received: {', '.join(v.path for v in unused)}"
        )


def last_activation(outputs: tf.Tensor) -> str | None:
    """Return ``"softmax"`` or ``"sigmoid"`` if a traced tensor comes from it, else ``None``."""
    kind = _last_operation(outputs).type
    return kind.lower() if kind in ("Softmax", "Sigmoid") else None


def _is_linear(outputs: tf.Tensor) -> bool:
    """Return whether a traced tensor comes from a linear layer, with or without a bias."""
    last = _last_operation(outputs)
    # A layer adds its bias by either operation.
    before = [_last_operation(each) for each in last.inputs] if last.type == "AddV2" else [last]
    return any(each.type in _LINEAR for each in before)


def _last_operation(outputs: tf.Tensor) -> tf.Operation:
    while outputs.op.type in _PASSES_ON:
        outputs = outputs.op.inputs[0]
    return outputs.op


def _is_a(optimizer: keras.optimizers.Optimizer, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(optimizer).__mro__)  # newer than Keras 3.10


def _one_output(received: str) -> str:
    return (
        "model must have one output, a single tensor: join several into one, and take it apart in "
        f"the loss. Received: {received}"
    )
