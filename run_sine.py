"""The sine wave of the paper's Sec. 4 (Fig. 1): Reptile, FOMAML, MAML and joint training.

    python run_sine.py

Trains each algorithm on waves of random amplitude and phase, fine-tunes each on fresh ones with
10 sampled points, and writes the mean test loss, the loss against inner steps and the three panels
of Fig. 1 into results/sine.
"""

from experiments import common

FLAGS = {
    "algorithms": (
        "random,maml,reptile,fomaml,joint",
        "Which to run, with commas between them; random is the untrained network.",
    ),
    "meta_iters": (30_000, "Outer iterations, of one task each."),
    "learning_rate": (0.02, "Learning rate of the inner SGD."),
    "inner_batch": (10, "Points in a training mini-batch; a task has 50."),
    "inner_iters": (5, "Inner steps on a training task, at least 2; joint training takes 1."),
    "meta_step": (0.1, "Reptile's outer step size at the start; goes linearly to 0."),
    "adam_step": (
        0.001,
        "Learning rate of the outer Adam of FOMAML, MAML and joint training; goes to 0.",
    ),
    "eval_iters": (32, "Gradient steps on a test task."),
    "eval_samples": (1000, "Test tasks."),
    "seed": common.SEED,
    "results": common.RESULTS,
}


def main(**flags) -> None:
    """Run what the flags describe."""
    common.load_tensorflow()
    from experiments import sine

    sine.run(**flags)


if __name__ == "__main__":
    common.start(main, FLAGS)
