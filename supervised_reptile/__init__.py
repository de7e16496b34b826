"""Reptile and first-order MAML for TensorFlow 2 / Keras 3.

>>> import supervised_reptile as sr
>>> learner = sr.Reptile(sr.omniglot_model(num_classes=5))

A public name is imported when it is first asked for (PEP 562): `import supervised_reptile` and
the configuration do not wait for TensorFlow.
"""

import importlib
from typing import Any

# Public name -> the module it comes from.
_HOMES = {
    "Config": "config",
    "paper_config": "config",
    "FewShotDataset": "datasets",
    "load_dataset": "datasets",
    "omniglot_model": "models",
    "miniimagenet_model": "models",
    "model_from_config": "from_config",
    "MetaLearner": "meta_learner",
    "Reptile": "reptile",
    "FOMAML": "reptile",
    "MAML": "reptile",
    "GradientCombination": "reptile",
    "learner_from_config": "from_config",
    "FitSettings": "keras_api.fit",
    "adapt": "keras_api.adapt",
    "rehead": "keras_api.adapt",
    "FewShotClassifier": "keras_api.adapt",
    "evaluate": "evaluation",
    "Trainer": "runs.trainer",
    "load_pretrained": "pretrained",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name; called for what is not an attribute yet."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name == "__version__":
        value = _installed_version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _installed_version() -> str:
    from importlib import metadata  # not at the top: it is slower than all the rest

    try:
        return metadata.version("supervised-reptile")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "unknown"
