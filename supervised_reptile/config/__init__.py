"""Hyper-parameters, the paper's tables and the command line."""

from supervised_reptile.config.configuration import (
    FIELDS,
    RESUME_MAY_CHANGE,
    Config,
    check_task,
    paper_config,
)
from supervised_reptile.config.settings import (
    ALGORITHMS,
    INNER_OPTIMIZERS,
    OUTER_OPTIMIZERS,
    RESIZE_FILTERS,
    EvalConfig,
    InnerConfig,
    MetaConfig,
    ModelConfig,
    RunOptions,
    TaskConfig,
)

__all__ = [
    "ALGORITHMS",
    "FIELDS",
    "INNER_OPTIMIZERS",
    "OUTER_OPTIMIZERS",
    "RESIZE_FILTERS",
    "RESUME_MAY_CHANGE",
    "Config",
    "EvalConfig",
    "InnerConfig",
    "MetaConfig",
    "ModelConfig",
    "RunOptions",
    "TaskConfig",
    "check_task",
    "paper_config",
]
