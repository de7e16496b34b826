"""Tables of docs/experiments.md, and of the ablations in docs/reproduction.md."""

from collections.abc import Mapping
from typing import Any

from records import record, table


def _results(name: str) -> Any:
    return record(f"experiments/{name}/results.json")


def _percent(accuracy: Mapping[str, float]) -> str:
    return f"{100 * accuracy['mean']:.1f} ± {100 * accuracy['interval95']:.1f}"


def _interval(name: str, what: str) -> str:
    settings = _results(name)["settings"]
    samples = f"{settings['eval_samples'] * len(settings.get('seeds', [0])):,}"
    return f"{settings['eval_iters']} steps, ± 95 % interval over {samples} {what}"


def sine(folder: str) -> str:
    """Loss on new waves before and after fine-tuning."""
    from experiments.sine import ALGORITHMS

    rows = [
        (
            ALGORITHMS[name],
            f"{found['loss_before']:.2f}",
            f"{found['loss_after']:.4f} ± {found['interval95']:.4f}",
            f"{found['median_after']:.4f}",
        )
        for name, found in _results(folder)["algorithms"].items()
    ]
    after = f"after {_interval(folder, 'tasks')}"
    heads = ("", "mean test loss before", after, "median after")
    return table(heads, rows, 3)


def gradient_combinations() -> str:
    """Accuracy of each combination."""
    rows = [
        (name, *(_percent(found["accuracy"][split]) for split in ("test", "train")))
        for name, found in _results("gradient-combinations")["combinations"].items()
    ]
    heads = ("", "test accuracy in percent, ± 95 % interval over tasks", "training classes")
    return table(heads, rows, 2)


def contrasts() -> str:
    """Differences between combinations that the paper makes statements on."""
    rows = [
        (name, f"{found['difference']:+.2f} ± {found['interval95']:.2f}")
        for name, found in _results("gradient-combinations")["contrasts"].items()
    ]
    return table(("", "difference in points, ± 95 % interval over tasks"), rows, 1)


def overlap(sweep: str) -> str:
    """Accuracy of each variant at each value of a sweep."""
    found = _results(f"overlap-{sweep.replace('_', '-')}")["points"]
    values = list(dict.fromkeys(point[sweep] for point in found))
    rows: dict[str, list[str]] = {}
    for point in found:
        cell = f"{point['test_accuracy']:.1f} ± {point['interval95']:.1f}"
        rows.setdefault(point["variant"], []).append(cell)
    names = {"inner_iters": "inner iterations", "inner_batch": "inner batch"}
    names["meta_step"] = "outer step size"
    heads = (names[sweep], *(f"{value:g}" for value in values))
    return table(heads, [(name, *cells) for name, cells in rows.items()], len(values))


def theory() -> str:
    """How fast the residuals of the expansions fall, and the best coefficients."""
    from experiments.theory import ALGORITHMS

    found = _results("theory")
    rows = [
        (
            ALGORITHMS[name],
            f"α^{each['slope']:.2f}",
            f"α^{each['slope_zeroth']:.2f}",
            "{:.3f}, {:.2f}".format(*each["fit"][-1]),
            "{:g}, {:g}".format(*each["predicted"]),
        )
        for name, each in found["algorithms"].items()
    ]
    least = found["settings"]["rates"][-1]
    fit = f"best-fitting coefficients at α = {least:g}"
    heads = ("", "residual falls as", "without the second term", fit, "predicted")
    return table(heads, rows, 4)


def manifolds() -> str:
    """Where φ ends, next to the point of least mean squared distance."""
    rows = [
        (
            name,
            f"{found['mean_squared_distance']:.5f}",
            f"{found['least_mean_squared_distance']:.5f}",
            f"{found['distance_to_nearest_point']:.4f}",
        )
        for name, found in _results("manifolds")["scenes"].items()
    ]
    heads = (
        "",
        "mean squared distance of the final φ",
        "minimum",
        "distance of the final φ from the minimum",
    )
    return table(heads, rows, 3)


def optimizers() -> str:
    """Loss after fine-tuning, for starts after some of the meta-iterations."""
    shown = (1000, 3000, 5000, 9000)
    rows: dict[str, list[str]] = {}
    for each in _results("optimizers")["after"]:
        if each["meta_iterations"] in shown:
            seeds = each["seeds"]
            cell = f"{_loss(each)} ({min(seeds):.2f} to {max(seeds):.2f})"
            rows.setdefault(each["inner_optimizer"], []).append(cell)
    heads = (
        f"loss after {_interval('optimizers', 'waves')}; start after",
        *(f"{number:,}" for number in shown),
    )
    return table(heads, [(name, *cells) for name, cells in rows.items()], len(shown))


def mixture() -> str:
    """Loss after fine-tuning of both kinds of functions."""
    found = _results("mixture")["after"]
    rows = [
        (kind, *(_loss(found[f"{kind}, {start}"]) for start in ("untrained", "Reptile")))
        for kind in ("wave", "compound")
    ]
    heads = (f"loss after {_interval('mixture', 'tasks')}", "untrained", "after Reptile")
    return table(heads, rows, 2)


def _loss(found: Mapping[str, float]) -> str:
    return f"{found['loss']:.2f} ± {found['interval95']:.2f}"


def surface() -> str:
    """Error on new surfaces, from the untrained start and from snapshots of the training."""
    from experiments.surface import VARIANTS

    rows = []
    for variant, title in VARIANTS.items():
        found = _results(f"surface-{variant}")
        snapshots = (_loss(each) for each in found["snapshots"].values())
        rate = f"{found['learning_rate']:g}"
        rows.append((title, rate, _loss(found["after"]["untrained"]), *snapshots))
    error = f"mean squared error after {_interval('surface-adam', 'surfaces')}"
    times = (f"{int(number):,}" for number in found["snapshots"])
    heads = (error, "learning rate", "untrained", *times)
    return table(heads, rows, len(heads) - 1)


def pretraining() -> str:
    """Accuracy at the end, and when levels were reached."""
    found = _results("pretraining")
    levels = ("85", "90", "94")
    rows = []
    for name, each in found["starts"].items():
        reached = []
        for level in levels:
            number = found["reached"]["meta_iterations"][level].get(name, "")
            reached.append("not" if number is None else f"{number:,}" if number != "" else "")
        rows.append((name, _percent(each["accuracy"]["test"]), *reached))
    heads = ("start", "test accuracy at the end, ± 95 % interval over tasks")
    return table((*heads, *(f"{level} % reached after" for level in levels)), rows, 4)


def ablations() -> str:
    """Accuracy of the published configuration with one thing changed."""
    rows = [
        (each["variant"], f"{each['test_accuracy']:.1f} ± {each['interval95']:.1f}")
        for each in _results("ablations")["variants"]
    ]
    return table(("", "test accuracy, ± 95 % interval over tasks"), rows, 1)


TABLES = {
    "sine": lambda: sine("sine"),
    "sine, relu": lambda: sine("sine-relu"),
    "gradient combinations": gradient_combinations,
    "gradient combinations, differences": contrasts,
    "overlap, inner iterations": lambda: overlap("inner_iters"),
    "overlap, inner batch": lambda: overlap("inner_batch"),
    "overlap, outer step size": lambda: overlap("meta_step"),
    "theory": theory,
    "manifolds": manifolds,
    "optimizers": optimizers,
    "mixture": mixture,
    "surface": surface,
    "pretraining": pretraining,
    "ablations": ablations,
}
"""Name of a table -> the function that returns it."""
