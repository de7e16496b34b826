"""Every hyper-parameter and run option, each stated once.

A line holds a setting's type, meaning and rule; `config.declaration` makes the check, the flag,
the help and the documentation of it. Symbols and sections are those of the paper ("On First-Order
Meta-Learning Algorithms", Nichol, Achiam and Schulman, 2018), whose values are in `config.paper`.
"""

import os

from supervised_reptile.config.declaration import (
    DIRECTORY,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    Checked,
    Rule,
    at_least,
    one_of,
    require,
    setting,
    settings,
)
from supervised_reptile.config.locations import FOLDER, default_data_dir
from supervised_reptile.config.paper import (
    DATASETS,
    ORIGINAL_DEFAULTS,
    dataset_facts,
    is_own_images,
)

ALGORITHMS = ("reptile", "fomaml", "maml")
KERAS_OPTIMIZERS = (
    *("sgd", "adam", "rmsprop", "adadelta", "adagrad"),
    *("adamax", "adamw", "ftrl", "lion", "nadam"),
)
INNER_OPTIMIZERS = ("sgd", "adam", "rmsprop")
"""Those whose every constant is a hyper-parameter here, so that a record says what ran."""
OUTER_OPTIMIZERS = ("interpolation", *KERAS_OPTIMIZERS)
RESIZE_FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Pillow's, by its own names."""


@settings("Task")
class TaskConfig(Checked):
    """What a task is: N classes, K labelled examples of each (paper, Sec. 6).

    A ``train_shots`` of 0 becomes the value of ``shots``.
    """

    dataset: str = setting(
        "Data set.",
        Rule(
            f"must be one of {', '.join(DATASETS)} or {FOLDER}NAME, a folder of images",
            lambda name: name in DATASETS or is_own_images(name),
        ),
    )
    classes: int = setting("Classes in a task (N-way).", at_least(2))
    shots: int = setting(
        "Labelled examples of each class at evaluation (K-shot). One more example of each class is"
        " held out as the query.",
        at_least(1),
    )
    train_shots: int = setting(
        "Examples of each class in a training task.",
        at_least(0, ", where 0 means the value of --shots"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_shots == 0:
            object.__setattr__(self, "train_shots", self.shots)


@settings("Network")
class ModelConfig(Checked):
    """The network, the size of its images and its initial weights (paper, Sec. 6.1).

    The data set decides which of the two networks of Finn et al. (2017) it is.
    """

    filters: int = setting("Channels of each of the four convolutions.", at_least(1))
    image_size: int = setting("Height and width of the images in pixels.", at_least(1, " pixel"))
    # The authors' program used the default of its Pillow version; today's is "bicubic".
    resize: str = setting("Pillow filter that resizes images to that size.", one_of(RESIZE_FILTERS))
    pretrain: bool = setting(
        "Train an ordinary classifier of all training classes first, until its validation loss is"
        " flat, and start from its weights except the last layer's.",
        default=ORIGINAL_DEFAULTS["pretrain"],
    )
    freeze: int = setting(
        "How many of the four blocks, counted from the first, keep their initial weights (training"
        " and evaluation).",
        Rule("must be from 0 to 4, the blocks of the network", lambda value: 0 <= value <= 4),
        default=ORIGINAL_DEFAULTS["freeze"],
    )


@settings("Inner loop")
class InnerConfig(Checked):
    """The inner loop: k optimizer steps on one task (paper, Algorithm 1).

    k is ``inner_iters``, α is ``learning_rate``.
    """

    inner_optimizer: str = setting(
        "Optimizer on a task.", one_of(INNER_OPTIMIZERS), shorthands={"sgd": "sgd"}
    )
    learning_rate: float = setting(
        "Inner learning rate. The gradient is the sum over the mini-batch, as in the authors'"
        " program.",
        POSITIVE,
    )
    inner_batch: int = setting("Examples in a training mini-batch.", at_least(1))
    inner_iters: int = setting("Optimizer steps on each training task.", at_least(1))
    replacement: bool = setting(
        "Draw each mini-batch independently, of distinct examples of the task (training and"
        " evaluation), rather than deal out the shuffled task."
    )
    weight_decay: float = setting(
        "Factor applied to every weight before each inner step (training and evaluation).",
        Rule("must be greater than 0 and at most 1 (off)", lambda value: 0 < value <= 1),
    )
    beta_1: float = setting("Adam's first-moment decay.", FRACTION)
    beta_2: float = setting("Adam's second-moment decay.", FRACTION)
    epsilon: float = setting("Addend in Adam's and RMSprop's denominator.", POSITIVE)
    rho: float = setting("RMSprop's decay.", FRACTION)
    momentum: float = setting("Momentum of SGD and RMSprop.", FRACTION)
    reset_optimizer: bool = setting(
        "Reset the inner optimizer's slots and step count for every task (training and"
        " evaluation), rather than let them run on.",
        default=ORIGINAL_DEFAULTS["reset_optimizer"],
    )


@settings("Outer update")
class MetaConfig(Checked):
    """The outer update: φ ← φ + ε · mean(φ̃ − φ) over a meta-batch of tasks (paper, Eq. 5).

    ε goes from ``meta_step`` to ``meta_step_final``. An ``outer_optimizer`` other than
    interpolation receives the gradient (φ − φ̃)/α, with ε as its learning rate. Directions: φ̃ − φ
    for Reptile, the last inner step's change for FOMAML.
    """

    algorithm: str = setting(
        "Meta-learning algorithm. Its direction is the change of all inner steps (reptile) or of"
        " the last (fomaml), or the gradient of the last mini-batch, the query's, through the"
        " steps before it (maml, which needs --sgd).",
        one_of(ALGORITHMS),
        shorthands={"foml": "fomaml"},
    )
    foml_tail: int | None = setting(
        "Examples of each class kept for the last inner step of FOMAML or MAML (separate tail,"
        " Sec. 6.3), less than --train_shots. When not given: none (shared tail).",
        at_least(1),
    )
    meta_batch: int = setting("Tasks averaged in one outer update.", at_least(1))
    meta_iters: int = setting("Outer updates in the run.", at_least(1))
    meta_step: float = setting("Outer step size at the start of the run.", NOT_NEGATIVE)
    meta_step_final: float = setting(
        "Outer step size at the end of the run, reached linearly.", NOT_NEGATIVE
    )
    outer_optimizer: str = setting(
        "What applies the update. Any but interpolation takes it as a gradient (Sec. 2 and 5.1)"
        " and --meta_step, which must then be given, as its learning rate.",
        one_of(OUTER_OPTIMIZERS),
    )
    step_weights: tuple[float, ...] | None = setting(
        "Weights of the inner steps' changes in the outer update (Sec. 6.2), one for each of"
        " --inner_iters, such as 0,0,1. When not given: all 1, which is Reptile.",
        default=ORIGINAL_DEFAULTS["step_weights"],
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.foml_tail is not None:
            rule = "needs --foml or --algorithm=maml: only they have a last mini-batch of their own"
            require(self.algorithm != "reptile", "foml_tail", rule, self.foml_tail)
        if self.step_weights is not None:
            rule = "needs --algorithm=reptile: the others have weights of their own"
            require(self.algorithm == "reptile", "step_weights", rule, self.step_weights)


@settings("Evaluation")
class EvalConfig(Checked):
    """Evaluation: fine-tune on K·N examples, then label N held-out ones (paper, Sec. 6.1)."""

    eval_batch: int = setting("Examples in a fine-tuning mini-batch.", at_least(1))
    eval_iters: int = setting("Fine-tuning steps on each evaluation task.", at_least(0))
    eval_samples: int = setting("Tasks in the final evaluation of each split.", at_least(1))
    eval_interval: int = setting(
        "Outer updates between points of the learning curves.", at_least(1)
    )
    transductive: bool = setting(
        "Classify the held-out examples of a task together, so that batch normalization shares"
        " information among them, not one at a time."
    )
    queries: int = setting(
        "Held-out examples of each class in an evaluation task; the paper's is 1.",
        at_least(1),
        default=ORIGINAL_DEFAULTS["queries"],
    )


SECTIONS: dict[str, type[Checked]] = {
    "task": TaskConfig,
    "model": ModelConfig,
    "inner": InnerConfig,
    "meta": MetaConfig,
    "eval": EvalConfig,
}
"""Section of `config.json` -> its class."""


@settings("Run")
class RunOptions(Checked):
    """Where and how a run is carried out.

    Nothing here changes the result, except that other numbers of threads round differently.
    """

    checkpoint: str = setting(
        "Directory of checkpoints, learning curves and results.",
        DIRECTORY,
        default="model_checkpoint",
    )
    pretrained: bool = setting(
        "Evaluate the run in --checkpoint, or the network of that name that comes with the"
        " package; do not train.",
        default=False,
    )
    resume: bool = setting(
        "Go on from a checkpoint of the same configuration; --noresume sets that run aside and"
        " starts from the beginning.",
        default=True,
    )
    data_dir: str = setting(
        f"Directory of the data sets (or set SUPERVISED_REPTILE_DATA), or for {FOLDER}NAME that"
        " folder itself.",
        DIRECTORY,
        default_factory=default_data_dir,
    )
    checkpoint_interval: int = setting(
        "Outer updates between checkpoints.", at_least(1), default=100
    )
    eval_tasks_per_batch: int = setting(
        "Evaluation tasks in one compiled call.", at_least(1), default=32
    )
    intra_op_threads: int | None = setting(
        "Threads inside one operation; 0 means one for each core. When not given: what is fastest"
        " for the network, 1 for the small ones of Omniglot and glyphs.",
        at_least(0),
        default=None,
    )
    inter_op_threads: int | None = setting(
        "Operations that run at the same time; 0 means one for each core. When not given: what is"
        " fastest for the network, one for each core for the small ones.",
        at_least(0),
        default=None,
    )
    progress: bool = setting("Show a progress bar.", default=True)
    pretraining_dir: str = setting(
        "Directory of the classifier that --pretrain makes or, if it is there, takes; several runs"
        " may share it. When not given: pretraining in --checkpoint.",
        default="",
    )
    verify_data: bool = setting(
        "Check every byte of prepared photographs before the run, even if nothing suggests that"
        " they have changed.",
        default=False,
    )

    def threads(self, dataset: str) -> tuple[int, int]:
        """Returns the numbers of intra-op and inter-op threads for a data set, each at least 1."""
        intra, inter = dataset_facts(dataset).threads
        chosen = (
            intra if self.intra_op_threads is None else self.intra_op_threads,
            inter if self.inter_op_threads is None else self.inter_op_threads,
        )
        cores = os.cpu_count() or 1
        return chosen[0] or cores, chosen[1] or cores

    def lanes(self, dataset: str) -> int:
        """Returns how many evaluation tasks run side by side: one per inter-op thread, up to 8.

        Each is a part of its own of the compiled graph: many would take long to trace.
        """
        return min(self.threads(dataset)[1], 8)
