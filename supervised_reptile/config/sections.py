"""The sections of a configuration, one dataclass each."""

from dataclasses import dataclass

from supervised_reptile.config.rules import Checked, require


@dataclass(frozen=True)
class TaskConfig(Checked):
    """What a task is: N classes, K labelled examples of each (paper, Sec. 6).

    Args:
        dataset: str, a key of `paper.DATASETS`, or "folder:NAME" for the images in a folder of
            that name.
        classes: int, N ("ways"), from 2 to the number of classes in the smallest split.
        shots: int, K, labelled examples a class at evaluation, at least 1. One more is held out
            as the query, so `shots` + 1 examples of a class must exist.
        train_shots: int, examples a class in a *training* task, at least 0; 0 stands for `shots`
            and the field then holds that number. Paper: 10 (Table 3), 15 (Table 4).

    Raises:
        ConfigError: If a value is out of range.
    """

    dataset: str
    classes: int
    shots: int
    train_shots: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_shots == 0:
            object.__setattr__(self, "train_shots", self.shots)


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The network, what it is shown (paper, Sec. 6.1; Finn et al., 2017) and where it starts.

    Which network it is follows from the data set.

    Args:
        filters: int, channels of each of the four convolutions, at least 1. Paper: 64 for
            Omniglot, 32 for Mini-ImageNet.
        image_size: int, height and width of the images in pixels, at least 1. Paper: 28 and 84.
        resize: str, one of `RESIZE_FILTERS`: how images are brought to that size. The authors'
            program used its Pillow version's default, "nearest"; Pillow's is now "bicubic".
        pretrain: bool, whether meta-training starts from the weights of an ordinary classifier of
            all training classes, but for the last layer (the review's Sec. 6.5), rather than from
            random ones. `run.train` sees to it.
        freeze: int, how many of the four blocks, the first ones, stay as they started, in training
            and in evaluation, from 0 to 4.

    Raises:
        ConfigError: If a value is out of range.
    """

    filters: int
    image_size: int
    resize: str
    pretrain: bool = False
    freeze: int = 0


@dataclass(frozen=True)
class InnerConfig(Checked):
    """The inner loop: k optimizer steps on one task (paper, Algorithm 1).

    The gradient of a step is the *sum* over the mini-batch, as in the authors' program.

    Args:
        inner_optimizer: str, one of `INNER_OPTIMIZERS`. Paper: "adam"; Sec. 6.2 and 6.3: "sgd".
        learning_rate: float, α, greater than 0. Paper: 0.001, or 0.0005 for 20-way.
        inner_batch: int, examples in a training mini-batch, at least 1.
        inner_iters: int, k, steps on each training task, at least 1.
        replacement: bool, whether each mini-batch (in training and in evaluation) is a fresh draw
            of distinct examples, rather than dealt out from a shuffled task.
        weight_decay: float in (0, 1], the factor applied to every trainable variable before each
            step, in training and in evaluation. 1 turns it off.
        beta_1: float in [0, 1), Adam's first-moment decay. The authors use 0.
        beta_2: float in [0, 1), Adam's second-moment decay.
        epsilon: float, greater than 0, the addend in Adam's and RMSprop's denominator.
        rho: float in [0, 1), RMSprop's decay.
        momentum: float in [0, 1), momentum of SGD and RMSprop.
        reset_optimizer: bool, whether slots and step count start anew with every task, in training
            and evaluation, rather than run on (the review's Sec. 4.2, where a meta-iteration is
            one task).

    Raises:
        ConfigError: If a value is out of range.
    """

    inner_optimizer: str
    learning_rate: float
    inner_batch: int
    inner_iters: int
    replacement: bool
    weight_decay: float
    beta_1: float
    beta_2: float
    epsilon: float
    rho: float
    momentum: float
    reset_optimizer: bool = False


@dataclass(frozen=True)
class MetaConfig(Checked):
    """The outer update: φ ← φ + ε · mean(φ̃ − φ) over a meta-batch of tasks (paper, Eq. 5).

    Args:
        algorithm: str, "reptile" (direction φ̃ − φ), "fomaml" (the last inner step's change) or
            "maml" (the last mini-batch's gradient through the steps before it; needs plain SGD).
        foml_tail: int or None. Examples a class kept for the last inner step of FOMAML or MAML,
            at least 1 and fewer than `train_shots` (the "separate tail" of Sec. 6.3). None:
            shared tail.
        meta_batch: int, tasks averaged in one outer update, at least 1. Paper: 5.
        meta_iters: int, N, outer updates in the run, at least 1.
        meta_step: float, ε at the start, at least 0. Paper: 1.
        meta_step_final: float, ε at the end, at least 0. Paper: 0.
        outer_optimizer: str, one of `OUTER_OPTIMIZERS`. "interpolation" is the update above; any
            other is given (φ − φ̃)/α as a gradient, with ε as its learning rate (Sec. 2, 5.1).
        step_weights: tuple of float or None. Weight of each inner step's change in the direction
            of Reptile, `inner_iters` of them: a linear combination of g1 … gk (Sec. 6.2). None:
            all 1.

    Raises:
        ConfigError: If a value is out of range.
    """

    algorithm: str
    foml_tail: int | None
    meta_batch: int
    meta_iters: int
    meta_step: float
    meta_step_final: float
    outer_optimizer: str
    step_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.foml_tail is not None:
            rule = "needs --foml or --algorithm=maml: only they have a last mini-batch of their own"
            require(self.algorithm != "reptile", "foml_tail", rule, self.foml_tail)
        if self.step_weights is not None:
            rule = "needs --algorithm=reptile: the others have weights of their own"
            require(self.algorithm == "reptile", "step_weights", rule, self.step_weights)


@dataclass(frozen=True)
class EvalConfig(Checked):
    """Evaluation: fine-tune on K·N examples, then label N held-out ones (paper, Sec. 6.1).

    Args:
        eval_batch: int, examples in a fine-tuning mini-batch, at least 1.
        eval_iters: int, fine-tuning steps, at least 0. Paper: 50.
        eval_samples: int, tasks in the final evaluation of each split, at least 1.
        eval_interval: int, outer updates between two points of the learning curves, at least 1.
        transductive: bool, whether the N held-out images pass the network together, so that batch
            normalization shares information among them.

    Raises:
        ConfigError: If a value is out of range.
    """

    eval_batch: int
    eval_iters: int
    eval_samples: int
    eval_interval: int
    transductive: bool
