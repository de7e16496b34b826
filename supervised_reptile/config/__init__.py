"""Hyper-parameters, the paper's tables and the command line."""

from supervised_reptile.config.configuration import (
    ALGORITHMS,
    FIELDS,
    INNER_OPTIMIZERS,
    OUTER_OPTIMIZERS,
    RESIZE_FILTERS,
    RESUME_MAY_CHANGE,
    Config,
    EvalConfig,
    InnerConfig,
    MetaConfig,
    ModelConfig,
    RunOptions,
    TaskConfig,
    check_task,
    paper_config,
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
