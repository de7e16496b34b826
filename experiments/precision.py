"""The policy mixed_bfloat16 next to float32: accuracy and processor time, docs/any-model.md.

    python -m experiments precision --meta_iters 3000

Omniglot, 1-shot 5-way, transductive, shortened, with the same initial weights and the same tasks.
The two take turns on one thread, so that a slow period of the machine affects both.
"""

import dataclasses
import statistics
import time

from experiments import common
from experiments.trainings import TrainingSettings, mean_over_tasks
from supervised_reptile.config import RunOptions
from supervised_reptile.config.declaration import at_least, setting, settings
from supervised_reptile.reproduction.published import find_row

NAME = "precision"
POLICIES = ("float32", "mixed_bfloat16")
_TURN = 20  # meta-iterations


@settings("Experiment")
class Settings(TrainingSettings):
    """The length of the trainings and of the test."""

    meta_iters: int = setting(
        "Meta-iterations of each training (paper: 100000).", at_least(1), default=3000
    )
    eval_samples: int = setting("Tasks in the evaluation of each split.", at_least(2), default=1000)
    seed: int = setting("Seed of everything random.", at_least(0), default=0)


def run(settings: Settings, place: common.DataPlace) -> None:
    """Train in both precisions, evaluate on the test split and write the record."""
    folder = place.results_folder(NAME)
    common.load_tensorflow()
    import keras

    from supervised_reptile.evaluation import evaluate_each_way
    from supervised_reptile.from_config import (
        evaluation_spec,
        learner_from_config,
        meta_step_from_config,
        model_from_config,
        training_spec,
    )
    from supervised_reptile.runs.stages import load_data
    from supervised_reptile.startup import set_threads
    from supervised_reptile.training import meta_train

    set_threads(1, 1)
    config = find_row("omniglot-5way").training(settings.seed, settings.meta_iters)
    config = config.replace(dataset=settings.dataset, eval_samples=settings.eval_samples)
    dataset = load_data(config, RunOptions(data_dir=place.data_dir))
    learners, usual = {}, keras.config.dtype_policy()
    for policy in POLICIES:
        keras.config.set_dtype_policy(policy)
        try:
            model = model_from_config(config)
        finally:
            keras.config.set_dtype_policy(usual)
        learners[policy] = learner_from_config(
            config, model, input_scale=dataset.pixel_scale, lanes=1
        )
    iterations = range(config.meta.meta_iters)
    seconds: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for start in range(0, len(iterations), _TURN):
        turn = iterations[start : start + _TURN]
        for policy, learner in learners.items():
            started = time.process_time()
            for _, _, loss in meta_train(
                learner,
                dataset,
                training_spec(config),
                iterations=turn,
                meta_batch=config.meta.meta_batch,
                meta_step=meta_step_from_config(config),
                seed=config.seed,
            ):
                last_loss = loss
            seconds[policy].append((time.process_time() - started) / len(turn))
        if turn.stop % 500 == 0:
            print(f"{turn.stop} of {len(iterations)}, {policy}: loss {last_loss:.3f}", flush=True)
    outcomes = {}
    for policy, learner in learners.items():
        (outcomes[policy],) = evaluate_each_way(
            learner,
            dataset,
            "test",
            evaluation_spec(config),
            (True,),
            tasks=config.eval.eval_samples,
            seed=config.seed,
        )
        print(f"{policy:<15} {outcomes[policy].accuracy}", flush=True)
    full, half = POLICIES
    difference = outcomes[half].accuracies - outcomes[full].accuracies
    ratios = [b / a for a, b in zip(seconds[full], seconds[half], strict=True)]
    values = {
        "accuracy": {each: dataclasses.asdict(outcomes[each].accuracy) for each in POLICIES},
        "difference": dict(zip(("mean", "interval95"), mean_over_tasks(difference), strict=True)),
        "processor_time_ratio": statistics.median(ratios),
        "config": config.to_dict(),
    }
    print(f"bfloat16 takes {values['processor_time_ratio']:.2f} times the processor time")
    common.write_results(folder, NAME, settings, values)
