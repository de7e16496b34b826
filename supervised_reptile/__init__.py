"""Reptile and first-order MAML for TensorFlow 2 / Keras 3.

>>> import supervised_reptile as sr
>>> learner = sr.Reptile(sr.omniglot_model(num_classes=5))

A public name is imported when it is first used (PEP 562), so ``import supervised_reptile`` and
the configuration do not wait for TensorFlow. Type checkers read the imports below.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supervised_reptile.config import Config, RunOptions, paper_config
    from supervised_reptile.datasets import FewShotDataset, load_dataset
    from supervised_reptile.evaluation import Accuracy, evaluate
    from supervised_reptile.from_config import (
        evaluation_spec,
        learner_from_config,
        meta_step_from_config,
        model_from_config,
        training_spec,
    )
    from supervised_reptile.keras_api.adapt import FewShotClassifier, adapt, rehead
    from supervised_reptile.keras_api.fit import FitSettings, fit
    from supervised_reptile.meta_learner import MetaLearner
    from supervised_reptile.models import (
        batch_statistics_normalization,
        miniimagenet_model,
        omniglot_model,
    )
    from supervised_reptile.pretrained import load_pretrained, pretrained_names
    from supervised_reptile.reptile import FOMAML, MAML, GradientCombination, Reptile
    from supervised_reptile.runs.trainer import Trainer
    from supervised_reptile.tasks import TaskSpec
    from supervised_reptile.training import LinearDecay, meta_train

    __version__: str

__all__ = [
    "FOMAML",
    "MAML",
    "Accuracy",
    "Config",
    "FewShotClassifier",
    "FewShotDataset",
    "FitSettings",
    "GradientCombination",
    "LinearDecay",
    "MetaLearner",
    "Reptile",
    "RunOptions",
    "TaskSpec",
    "Trainer",
    "__version__",
    "adapt",
    "batch_statistics_normalization",
    "evaluate",
    "evaluation_spec",
    "fit",
    "learner_from_config",
    "load_dataset",
    "load_pretrained",
    "meta_step_from_config",
    "meta_train",
    "miniimagenet_model",
    "model_from_config",
    "omniglot_model",
    "paper_config",
    "pretrained_names",
    "rehead",
    "training_spec",
]

# Module -> its public names.
_MODULES = {
    "config": ("Config", "RunOptions", "paper_config"),
    "datasets": ("FewShotDataset", "load_dataset"),
    "evaluation": ("Accuracy", "evaluate"),
    "from_config": (
        *("evaluation_spec", "learner_from_config", "meta_step_from_config"),
        *("model_from_config", "training_spec"),
    ),
    "keras_api.adapt": ("FewShotClassifier", "adapt", "rehead"),
    "keras_api.fit": ("FitSettings", "fit"),
    "meta_learner": ("MetaLearner",),
    "models": ("batch_statistics_normalization", "miniimagenet_model", "omniglot_model"),
    "pretrained": ("load_pretrained", "pretrained_names"),
    "reptile": ("FOMAML", "GradientCombination", "MAML", "Reptile"),
    "runs.trainer": ("Trainer",),
    "tasks": ("TaskSpec",),
    "training": ("LinearDecay", "meta_train"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # else a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Import a public name that is not an attribute yet."""
        if name in _MODULE_OF:
            if _MODULE_OF[name] not in ("config", "datasets"):
                importlib.import_module(f"{__name__}.startup").check_backend()
            value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        elif name == "__version__":
            value = _installed_version()
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _installed_version() -> str:
    from importlib import metadata  # not at the top: it is slow

    try:
        return metadata.version("supervised-reptile")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "unknown"
