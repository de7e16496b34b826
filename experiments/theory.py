"""Leading-order expansions of the meta-gradients: paper, Sec. 5.1.

    python -m experiments theory

For k SGD steps of size α on mini-batches of one task, the paper's Sec. 5.1 predicts

    E[g_MAML]    = AvgGrad − 2(k − 1) α AvgGradInner + O(α²)
    E[g_FOMAML]  = AvgGrad −  (k − 1) α AvgGradInner + O(α²)
    E[g_Reptile] = k AvgGrad − ½ k(k − 1) α AvgGradInner + O(α²)

with AvgGrad = E[ḡ_1] and AvgGradInner = E[H̄_2 ḡ_1], the gradient and Hessian of different
mini-batches at the start. Here the three are measured with the learners themselves for smaller and
smaller α, and the prediction computed with exact Hessian-vector products; the expectation is over
every order of the task's mini-batches, so that nothing is left to chance.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

from experiments import common
from supervised_reptile.config.declaration import Checked, Rule, at_least, setting, settings
from supervised_reptile.figures import figure_style
from supervised_reptile.runs.files import write_table

NAME = "theory"
NETWORK = (1, 32, 32, 1)
ALGORITHMS = {"maml": "MAML", "fomaml": "FOMAML", "reptile": "Reptile"}
"""Title of each algorithm."""


def coefficients(algorithm: str, k: int) -> tuple[float, float]:
    """What AvgGrad and −α·AvgGradInner are multiplied by (paper, Sec. 5.1)."""
    return {
        "maml": (1.0, 2.0 * (k - 1)),
        "fomaml": (1.0, 1.0 * (k - 1)),
        "reptile": (1.0 * k, 0.5 * k * (k - 1)),
    }[algorithm]


def measure(k: int, tasks: int, seed: int, rates: Sequence[float]) -> dict[str, dict]:
    """Measure the meta-gradients and their expansions on sine tasks.

    Args:
        k: Inner steps, one for each of k mini-batches of 10 points of a task, at least 2.
        tasks: Number of tasks the expectation is over, at least 1.
        seed: Seed of the network and the tasks.
        rates: The values of α, each greater than 0.

    Returns:
        Algorithm to, for each α: "residual" of the expansion, "zeroth" the same without its
        second term, both as norms relative to that of AvgGrad; and "fit", the coefficients of
        AvgGrad and −α·AvgGradInner that fit the measured gradient best (least squares).
    """
    import numpy as np

    from experiments import functions
    from supervised_reptile.tasks import MiniBatches, TrainingTasks

    rng = np.random.default_rng([seed, 0])
    function = functions.SINE.draw(rng, tasks)
    x = rng.uniform(-5, 5, (tasks, k, 10, 1)).astype(np.float32)
    y = function(x.reshape(tasks, k * 10, 1)).reshape(x.shape)
    table = x.reshape(-1, 1)
    rows = np.arange(len(table), dtype=np.int32).reshape(tasks, k, 10)
    # Every order of the mini-batches: the expectation over them is then exact.
    orders = np.array(list(itertools.permutations(range(k))))
    indices = rows[:, orders].reshape(-1, k, 10)
    drawn = TrainingTasks(MiniBatches(indices, y[:, orders].reshape(-1, k, 10, 1)))

    average, inner = _average_gradients(seed, x, y)
    scale = np.linalg.norm(average)
    found = {}
    for algorithm in ALGORITHMS:
        lines = {"residual": [], "zeroth": [], "fit": []}
        for rate in rates:
            measured = _meta_gradient(algorithm, rate, seed, table, drawn)
            first, second = coefficients(algorithm, k)
            predicted = first * average - rate * second * inner
            lines["residual"].append(float(np.linalg.norm(measured - predicted) / scale))
            lines["zeroth"].append(float(np.linalg.norm(measured - first * average) / scale))
            basis = np.stack([average, -rate * inner], axis=1)
            lines["fit"].append(np.linalg.lstsq(basis, measured, rcond=None)[0].tolist())
        found[algorithm] = lines
    return found


def _meta_gradient(algorithm: str, rate: float, seed: int, table, drawn):
    """What a learner hands to its outer optimizer, float64 [parameters].

    With plain SGD of rate 1 outside, that is by how much the weights move.
    """
    import keras

    from experiments import functions
    from supervised_reptile.reptile import FOMAML, MAML, Reptile

    kind = {"maml": MAML, "fomaml": FOMAML, "reptile": Reptile}[algorithm]
    model = functions.mlp(*NETWORK, seed=seed)
    learner = kind(
        model,
        inner_optimizer=keras.optimizers.SGD(rate),
        outer_optimizer=keras.optimizers.SGD(),
        loss=keras.losses.MeanSquaredError(),
        lanes=1,
    )
    before = _flat(model.get_weights())
    learner.train_step(table, drawn, 1.0)
    return before - _flat(model.get_weights())


def _average_gradients(seed: int, x, y):
    """AvgGrad and AvgGradInner, float64 [parameters]: means over tasks and pairs of batches.

    Args:
        seed: Seed of the network.
        x: float32 [tasks, mini-batches, points, 1].
        y: The same shape.
    """
    import numpy as np
    import tensorflow as tf

    from experiments import functions

    model = functions.mlp(*NETWORK, seed=seed)
    weights = [v.value for v in model.trainable_variables]

    @tf.function
    def gradient(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        return tape.gradient(loss, weights)

    @tf.function
    def hessian_vector_product(x, y, vector):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x) - y) ** 2)
            gradient = tape.gradient(loss, weights)
        return outer.gradient(gradient, weights, output_gradients=vector)

    tasks, k = x.shape[:2]
    average, inner = 0.0, 0.0
    for t in range(tasks):
        gradients = [gradient(x[t, i], y[t, i]) for i in range(k)]
        average = average + sum(map(_flat, gradients)) / (tasks * k)
        for i, j in itertools.permutations(range(k), 2):
            product = hessian_vector_product(x[t, j], y[t, j], gradients[i])
            inner = inner + _flat(product) / (tasks * k * (k - 1))
    return np.asarray(average), np.asarray(inner)


def _flat(tensors):
    import numpy as np

    return np.concatenate([np.asarray(t, np.float64).ravel() for t in tensors])


def slope(rates: Sequence[float], residuals: Sequence[float]) -> float:
    """Exponent p of residual ~ α^p, by least squares between the logarithms."""
    import numpy as np

    return float(np.polyfit(np.log(rates), np.log(residuals), 1)[0])


@settings("Experiment")
class Settings(Checked):
    """What is measured."""

    inner_iters: int = setting(
        "Inner steps k.", Rule("must be from 2 to 6", lambda k: 2 <= k <= 6), default=4
    )
    tasks: int = setting("Sine tasks the expectation is over.", at_least(1), default=10)
    rates: tuple[float, ...] = setting(
        "Inner step sizes α, separated by commas.",
        Rule("must be two or more, each greater than 0", lambda r: len(r) > 1 and min(r) > 0),
        default=(0.004, 0.0028, 0.002, 0.0014, 0.001, 0.0007),
    )
    seed: int = setting("Seed of everything random.", at_least(0), default=0)


def run(settings: Settings, place: common.Place) -> None:
    """Measure, and write table and figure."""
    folder = place.results_folder(NAME)
    common.load_tensorflow()
    inner_iters, rates = settings.inner_iters, settings.rates
    found = measure(inner_iters, settings.tasks, settings.seed, rates)
    table = []
    for algorithm, lines in found.items():
        lines["slope"] = slope(rates, lines["residual"])
        lines["slope_zeroth"] = slope(rates, lines["zeroth"])
        lines["predicted"] = coefficients(algorithm, inner_iters)
        smallest = min(range(len(rates)), key=lambda i: rates[i])
        first, second = lines["fit"][smallest]
        print(
            f"{algorithm:<8} residual ~ α^{lines['slope']:.2f} (without the second term "
            f"α^{lines['slope_zeroth']:.2f}); coefficients at α = {rates[smallest]:g}: "
            f"{first:.3f}, {second:.2f} (predicted {lines['predicted'][0]:g}, "
            f"{lines['predicted'][1]:g})"
        )
        columns = zip(rates, lines["residual"], lines["zeroth"], lines["fit"], strict=True)
        table += [(algorithm, r, a, b, *fit) for r, a, b, fit in columns]
    header = ("algorithm", "alpha", "residual", "residual_without_second_term")
    write_table(folder / "expansions.csv", (*header, "fit_first", "fit_second"), table)
    common.write_results(folder, NAME, settings, {"algorithms": found})
    draw(folder)


@figure_style()
def draw(folder: Path) -> None:
    """Draw the residuals against the inner step size."""
    results = common.read_results(folder)
    rates, found = results["settings"]["rates"], results["algorithms"]
    figure = common.new_figure(6.5, 4.2)
    axes = figure.subplots()
    for number, (name, lines) in enumerate(found.items()):
        color, title = f"C{number}", ALGORITHMS[name]
        axes.plot(rates, lines["residual"], "o-", color=color, label=title, markersize=4)
        without = f"{title}, without the second term"
        axes.plot(rates, lines["zeroth"], "s:", color=color, label=without, markersize=4)
    anchor = max(max(lines["residual"]) for lines in found.values())
    axes.plot(rates, [anchor * (r / max(rates)) ** 2 for r in rates], "k--", label="∝ α²")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="inner step size α",
        ylabel="‖measured − predicted‖ / ‖AvgGrad‖",
        title=f"k = {results['settings']['inner_iters']} inner steps",
    )
    figure.legend(loc="outside lower center", ncols=2)
    common.save_figure(figure, folder, NAME)
