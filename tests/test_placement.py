"""The compiled graphs can run on any device: nothing in them is bound to the CPU.

Whether an operation has a GPU kernel is known to TensorFlow wheels with GPU support alone (no GPU
is needed to ask them). There every node is checked against the kernel registry; elsewhere against
the list of operations that passed that check.
"""

import numpy as np
import pytest
import tensorflow as tf
from helpers import evaluation_tasks, tiny_config, training_tasks, vector_dataset
from tensorflow.python.framework import kernels

from supervised_reptile.fast.staging import Staging
from supervised_reptile.from_config import learner_from_config
from supervised_reptile.models import omniglot_model
from supervised_reptile.tasks import random_stream

WITH_GPU_KERNELS = set(
    """
    AddV2 AssignAddVariableOp AssignVariableOp BiasAdd BiasAddGrad Cast ConcatV2 Const Conv2D
    Conv2DBackpropFilter Conv2DBackpropInput DynamicStitch ExpandDims FusedBatchNormGradV3
    FusedBatchNormV3 Identity Less LogicalAnd MatMul Mul NoOp Pack Placeholder Pow Range
    ReadVariableOp RealDiv Relu ReluGrad Reshape ResourceApplyAdam ResourceApplyGradientDescent
    ResourceGather ShapeN SparseSoftmaxCrossEntropyWithLogits SplitV Squeeze StridedSlice Sub
    Sum TensorListFromTensor TensorListGetItem TensorListReserve TensorListSetItem
    TensorListStack Tile While ZerosLike
    """.split()
)


def nodes_of(function, *arguments):
    graph = function.get_concrete_function(*arguments).graph.as_graph_def()
    nodes = list(graph.node)
    for each in graph.library.function:
        nodes += each.node_def
    return nodes, {each.signature.name for each in graph.library.function}


@pytest.fixture(scope="module", params=["adam", "sgd"])
def graphs(request):
    config = tiny_config(inner_optimizer=request.param)
    dataset = vector_dataset(size=28)
    learner = learner_from_config(config, omniglot_model(3, filters=4, seed=0))
    training = training_tasks(random_stream(0, "training", 0), dataset, config)
    images, training = Staging().bring(dataset.images, training)  # as the learner does
    held_out = evaluation_tasks(0, "evaluation", dataset, "test", config, range(3))
    held_out = held_out.map(tf.constant)
    return {
        "a meta-iteration": nodes_of(
            learner._compiled_meta_iteration, images, training, tf.constant(1.0)
        ),
        **{
            f"an evaluation, transductive={transductive}": nodes_of(
                learner._evaluate_tasks, images, held_out, (transductive,)
            )
            for transductive in (True, False)
        },
    }


def test_nothing_is_bound_to_a_device(graphs):
    for name, (nodes, _) in graphs.items():
        assert len(nodes) > 100
        assert {node.device for node in nodes} == {""}, name


def test_every_operation_has_a_gpu_kernel(graphs):
    registry_knows = _has_gpu_kernel("Conv2D", {})
    for name, (nodes, functions) in graphs.items():
        for node in nodes:
            if node.op in functions:
                continue
            assert node.op in WITH_GPU_KERNELS, f"{name}: {node.op} ({node.name})"
            if registry_knows:
                assert _has_gpu_kernel(node.op, node.attr), f"{name}: {node}"


def test_bytes_are_gathered_from_a_variable(graphs):
    """TensorFlow has no GPU kernel to gather bytes from a tensor."""
    for name, (nodes, _) in graphs.items():
        assert any(n.op == "ResourceGather" and n.attr["dtype"].type == tf.uint8 for n in nodes)
        gathers = [n for n in nodes if n.op == "GatherV2"]
        assert all(n.attr["Tparams"].type != tf.uint8 for n in gathers), name


def _has_gpu_kernel(op, attributes):
    for kernel in kernels.get_registered_kernels_for_op(op).kernel:
        if kernel.device_type in ("GPU", "DEFAULT") and all(
            constraint.name not in attributes
            or attributes[constraint.name].type in constraint.allowed_values.list.type
            for constraint in kernel.constraint
        ):
            return True
    return False


def test_one_call_runs_a_whole_meta_iteration(graphs):
    """The loops over tasks and steps and the update are inside the one graph."""
    nodes, _ = graphs["a meta-iteration"]
    operations = [node.op for node in nodes]
    assert operations.count("While") == 2  # tasks, and the steps of one
    assert sum(op.startswith("ResourceApply") for op in operations) == 1
    assert not {"PyFunc", "EagerPyFunc", "PyFuncStateless"} & set(operations)
    assert np.sum([op == "AssignVariableOp" for op in operations]) > 18  # φ, at the end
