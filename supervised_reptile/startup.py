"""TensorFlow's start-up chatter, kept off the terminal."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Import TensorFlow without the notes that its C++ side writes to stderr meanwhile.

    They come before any logging level is heard and would bury a one-line error. If the import
    fails they are shown after all. The environment variable TF_CPP_MIN_LOG_LEVEL, when set to 0,
    leaves them alone.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        importlib.import_module("tensorflow")
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
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
