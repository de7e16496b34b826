"""Start TensorFlow without its notes on the terminal, and set its threads."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import warnings

from supervised_reptile.errors import UserError


def check_backend() -> None:
    """Check that Keras will use TensorFlow, before it is imported.

    Raises:
        UserError: The environment selects another backend.
    """
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if backend != "tensorflow":
        raise UserError(f"KERAS_BACKEND must be tensorflow. Received: {backend}")


def import_tensorflow() -> None:
    """Import TensorFlow without the notes that its C++ side writes to stderr during the import.

    These notes ignore Python's logging levels and would bury a one-line error. If the import fails,
    they are shown. Set the environment variable ``TF_CPP_MIN_LOG_LEVEL`` to 0 to keep them.

    Raises:
        UserError: Keras would use another backend.
    """
    check_backend()
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        importlib.import_module("tensorflow")
        return
    # In a cluster, TensorFlow prints a dozen lines when a worker stops; ours is one.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except BaseException:
            notes.seek(0)
            os.write(terminal, notes.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def set_threads(intra_op: int, inter_op: int) -> None:
    """Set TensorFlow's thread pools; must be called before TensorFlow's first operation.

    If TensorFlow is already running, e.g. in a notebook, this only warns and changes nothing.

    Args:
        intra_op: Threads inside one operation, at least 1.
        inter_op: Operations that run at the same time, at least 1.
    """
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op)
        tf.config.threading.set_inter_op_parallelism_threads(inter_op)
    except RuntimeError:
        warnings.warn(
            "TensorFlow runs already: intra_op_threads and inter_op_threads have no effect on it",
            RuntimeWarning,
            stacklevel=2,
        )
