"""Every hyper-parameter and run option, each stated once.

Each line states a setting's type, meaning and rule. ``config.declaration`` turns it into the
check, the flag, the help and the documentation. Symbols and sections are those of the paper ("On
First-Order Meta-Learning Algorithms", Nichol, Achiam and Schulman, 2018). The values are in
``config.paper``.
"""

import os
import re

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
    EXTENSION_DEFAULTS,
    dataset_facts,
    is_own_images,
)

ALGORITHMS = ("reptile", "fomaml", "maml")
KERAS_OPTIMIZERS = (
    *("sgd", "adam", "rmsprop", "adadelta", "adagrad"),
    *("adamax", "adamw", "ftrl", "lion", "nadam"),
)
INNER_OPTIMIZERS = ("sgd", "adam", "rmsprop")
"""Optimizers whose constants are all hyper-parameters, so a record states what ran."""
OUTER_OPTIMIZERS = ("interpolation", *KERAS_OPTIMIZERS)
RESIZE_FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Pillow's filters, by its own names."""
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@settings("Task")
class TaskConfig(Checked):
    """The shape of a task: N classes, K labeled examples per class (paper, Sec. 6).

    If ``train_shots`` is 0, it becomes the value of ``shots``.
    """

    dataset: str = setting(
        "Data set.",
        Rule(
            f"must be one of {', '.join(DATASETS)} or {FOLDER}NAME, a folder of images",
            lambda name: name in DATASETS or is_own_images(name),
        ),
    )
    classes: int = setting("Classes per task (N-way).", at_least(2))
    shots: int = setting(
        "Labeled examples per class in evaluation (K-shot). Further examples of each class are held"
        " out as queries.",
        at_least(1),
    )
    train_shots: int = setting(
        "Examples per class in a training task.",
        at_least(0, ", where 0 means the value of --shots"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_shots == 0:
            object.__setattr__(self, "train_shots", self.shots)


@settings("Network")
class ModelConfig(Checked):
    """The network, the size of its images and its initial weights (paper, Sec. 6.1).

    The data set selects one of the two networks of Finn et al. (2017).
    """

    filters: int = setting("Channels of each of the four convolutions.", at_least(1))
    image_size: int = setting("Height and width of the images in pixels.", at_least(1, " pixel"))
    # The authors' program used the default of its Pillow version; today's is "bicubic".
    resize: str = setting("Pillow filter that resizes images to that size.", one_of(RESIZE_FILTERS))
    pretrain: bool = setting(
        "First train an ordinary classifier of all training classes until its validation loss is"
        " flat, and start from its weights, except those of the last layer.",
        default=EXTENSION_DEFAULTS["pretrain"],
    )
    freeze: int = setting(
        "Number of blocks, starting with the first of four, that keep their initial weights (in"
        " training and evaluation).",
        Rule("must be from 0 to 4, the blocks of the network", lambda value: 0 <= value <= 4),
        default=EXTENSION_DEFAULTS["freeze"],
    )


@settings("Inner loop")
class InnerConfig(Checked):
    """The inner loop: k optimizer steps on one task (paper, Algorithm 1).

    k is ``inner_iters``, α is ``learning_rate``.
    """

    inner_optimizer: str = setting(
        "Optimizer of the inner loop. With sgd below 20 classes on Omniglot, the defaults of"
        " --meta_batch and --meta_iters are those of Tables 5 and 6, 1 and 40000.",
        one_of(INNER_OPTIMIZERS),
        shorthands={"sgd": "sgd"},
    )
    learning_rate: float = setting(
        "Inner learning rate. The gradient is the sum over the mini-batch, as in the authors'"
        " program.",
        POSITIVE,
    )
    inner_batch: int = setting("Examples per training mini-batch.", at_least(1))
    inner_iters: int = setting("Optimizer steps per training task.", at_least(1))
    replacement: bool = setting(
        "Draw each mini-batch independently from the distinct examples of the task, instead of"
        " dividing up the shuffled task (in training and evaluation)."
    )
    weight_decay: float = setting(
        "Factor on every weight before each inner step (in training and evaluation).",
        Rule("must be greater than 0 and at most 1 (off)", lambda value: 0 < value <= 1),
    )
    beta_1: float = setting("Adam's first-moment decay.", FRACTION)
    beta_2: float = setting("Adam's second-moment decay.", FRACTION)
    epsilon: float = setting("Term added to the denominator of Adam and RMSprop.", POSITIVE)
    rho: float = setting("RMSprop's decay.", FRACTION)
    momentum: float = setting("Momentum of SGD and RMSprop.", FRACTION)
    reset_optimizer: bool = setting(
        "Reset the inner optimizer's slots and step count for every task (in training and"
        " evaluation), instead of carrying them over.",
        default=EXTENSION_DEFAULTS["reset_optimizer"],
    )


@settings("Outer update")
class MetaConfig(Checked):
    """The outer update: φ ← φ + ε · mean(φ̃ − φ) over a meta-batch of tasks (paper, Eq. 5).

    ε changes linearly from ``meta_step`` to ``meta_step_final``. An ``outer_optimizer`` other than
    interpolation receives the gradient (φ − φ̃)/α, with ε as its learning rate. The direction is
    φ̃ − φ for Reptile and the last inner step's change for FOMAML.
    """

    algorithm: str = setting(
        "Meta-learning algorithm. Its direction is the change of all inner steps (reptile), the"
        " change of the last step (fomaml), or the gradient of the last mini-batch, the query set,"
        " through the earlier steps (maml, which needs --sgd).",
        one_of(ALGORITHMS),
        shorthands={"foml": "fomaml"},
    )
    foml_tail: int | None = setting(
        "Examples per class reserved for the last inner step of FOMAML or MAML (separate tail,"
        " Sec. 6.3), less than --train_shots. When not given: none (shared tail).",
        at_least(1),
    )
    meta_batch: int = setting("Tasks averaged per outer update.", at_least(1))
    meta_iters: int = setting("Number of outer updates (meta-iterations).", at_least(1))
    meta_step: float = setting("Outer step size at the start of the run.", NOT_NEGATIVE)
    meta_step_final: float = setting(
        "Outer step size at the end of the run, reached linearly.", NOT_NEGATIVE
    )
    outer_optimizer: str = setting(
        "Method of the outer update. An optimizer other than interpolation takes the direction as a"
        " gradient (Sec. 2 and 5.1) and requires --meta_step, its learning rate.",
        one_of(OUTER_OPTIMIZERS),
    )
    step_weights: tuple[float, ...] | None = setting(
        "Weights of the inner steps' changes in the outer update (Sec. 6.2), one for each of"
        " --inner_iters, such as 0,0,1. When not given: all 1, which is Reptile.",
        default=EXTENSION_DEFAULTS["step_weights"],
    )

    parallel_tasks: int = setting(
        "Tasks that run at the same time, on all workers together. Above 1, the tasks of an outer"
        " update start from the same optimizer slots, which are then averaged. With 1, as in the"
        " paper's program, each task starts from the slots of the task before.",
        at_least(1),
        default=EXTENSION_DEFAULTS["parallel_tasks"],
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.foml_tail is not None:
            rule = (
                "needs --foml or --algorithm=maml: only these treat the last mini-batch separately"
            )
            require(self.algorithm != "reptile", "foml_tail", rule, self.foml_tail)
        if self.step_weights is not None:
            rule = "needs --algorithm=reptile: the other algorithms have fixed weights"
            require(self.algorithm == "reptile", "step_weights", rule, self.step_weights)


@settings("Evaluation")
class EvalConfig(Checked):
    """Evaluation: fine-tune on K·N examples and classify N held-out ones (paper, Sec. 6.1)."""

    eval_batch: int = setting("Examples per fine-tuning mini-batch.", at_least(1))
    eval_iters: int = setting("Fine-tuning steps per evaluation task.", at_least(0))
    eval_samples: int = setting("Tasks in the final evaluation of each split.", at_least(1))
    eval_interval: int = setting(
        "Outer updates between points of the learning curves.", at_least(1)
    )
    transductive: bool = setting(
        "Classify the held-out examples of a task together, so batch normalization shares"
        " information among them. Without it, each is classified by itself, together with the"
        " labeled examples of the task."
    )
    queries: int = setting(
        "Held-out examples per class in an evaluation task; the paper uses 1.",
        at_least(1),
        default=EXTENSION_DEFAULTS["queries"],
    )


SECTIONS: dict[str, type[Checked]] = {
    "task": TaskConfig,
    "model": ModelConfig,
    "inner": InnerConfig,
    "meta": MetaConfig,
    "eval": EvalConfig,
}
"""Class of each section of ``config.json``."""


@settings("Run")
class RunOptions(Checked):
    """Where and how to run.

    These options do not change the result, except that the number of threads affects rounding.
    """

    checkpoint: str = setting(
        "Directory of checkpoints, learning curves and results.",
        DIRECTORY,
        default="model_checkpoint",
    )
    pretrained: bool = setting(
        "Do not train; evaluate the run in --checkpoint, or the network of that name that comes"
        " with the package.",
        default=False,
    )
    resume: bool = setting(
        "Resume from a checkpoint of the same configuration; --noresume moves that run aside and"
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
        "Evaluation tasks per compiled call.", at_least(1), default=32
    )
    intra_op_threads: int | None = setting(
        "Threads inside one operation; 0 means one per core. When not given: the fastest for the"
        " network, which is 1 for the small networks of Omniglot and glyphs.",
        at_least(0),
        default=None,
    )
    inter_op_threads: int | None = setting(
        "Operations that run at the same time; 0 means one per core. When not given: the fastest"
        " for the network, which is one per core for small networks.",
        at_least(0),
        default=None,
    )
    progress: bool = setting("Show a progress bar.", default=True)
    pretraining_dir: str = setting(
        "Directory of the classifier that --pretrain trains or, if it exists, uses; several runs"
        " may share it. When not given: pretraining in --checkpoint.",
        default="",
    )
    verify_data: bool = setting(
        "Check every byte of prepared photographs before the run, even if nothing indicates that"
        " they have changed.",
        default=False,
    )
    callbacks: str = setting(
        "Keras callbacks that watch the run, such as keras.callbacks:TerminateOnNaN: a function"
        " without arguments, or a class, in a module that is installed or in the current folder.",
        Rule(
            "must be module:factory, or several of them separated by commas",
            lambda value: not value or all(map(_FACTORY.fullmatch, value.split(","))),
        ),
        default="",
    )

    def threads(self, dataset: str) -> tuple[int, int]:
        """Return the numbers of intra-op and inter-op threads for a data set, each at least 1."""
        intra, inter = dataset_facts(dataset).threads
        chosen = (
            intra if self.intra_op_threads is None else self.intra_op_threads,
            inter if self.inter_op_threads is None else self.inter_op_threads,
        )
        cores = _available_cores()
        return chosen[0] or cores, chosen[1] or cores

    def lanes(self, dataset: str) -> int:
        """Return the number of parallel evaluation tasks: one per inter-op thread, up to 8.

        Each is a separate part of the compiled graph, so many would take long to trace.
        """
        return min(self.threads(dataset)[1], 8)


def _available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
