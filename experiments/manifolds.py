"""Two manifolds of solutions: paper, Sec. 5.2 and Fig. 2.

    python -m experiments manifolds

A task i has a manifold W_i of optimal weights, and Reptile moves φ toward W_1 and W_2 in turn. The
paper argues that φ then nears the point of least mean squared distance to them. Here φ is in the
plane and the W_i are a circle and a line, which part (no common solution) or cross (two of them).
It is the Reptile of the main job that runs: a task's loss is zero on its W_i, and k SGD steps go
nearly the whole way there. The point of least mean squared distance is computed apart, by search.
"""

from pathlib import Path

from experiments import common
from supervised_reptile.config.declaration import Checked, Rule, at_least, setting, settings
from supervised_reptile.figures import figure_style
from supervised_reptile.runs.files import write_table

NAME = "manifolds"
# c(φ) = w · (1, φ₁, φ₂, φ₁² + φ₂²): a task's input is w, and W is where c = 0.
CIRCLE = (-0.5, 0.0, 0.0, 0.5)  # of radius 1 about the origin; |∇c| = 1 on it
SCENES = {"apart": (-2.0, 0.4, 1.0, 0.0), "crossing": (-0.5, 0.4, 1.0, 0.0)}
"""Line of each scene."""
START = (-1.6, 2.4)


def walk(line: tuple[float, ...], iterations: int, inner_iters: int, meta_step: float):
    """Return every φ on Reptile's path, which moves toward circle and line alternately.

    Args:
        line: Coefficients of the line, as in :data:`SCENES`.
        iterations: Meta-iterations, at least 1.
        inner_iters: SGD steps k toward a manifold.
        meta_step: ε at the start; goes linearly to 0.

    Returns:
        float64 [iterations + 1, 2].
    """
    import keras
    import numpy as np

    from supervised_reptile.reptile import Reptile
    from supervised_reptile.tasks import MiniBatches, TrainingTasks

    class Manifold(keras.layers.Layer):
        """c(φ) of the manifold whose coefficients are the input; φ is the weight."""

        def build(self, input_shape):
            self.phi = self.add_weight(shape=(2,), name="phi")

        def call(self, x):
            square = keras.ops.sum(self.phi**2, keepdims=True)
            features = keras.ops.concatenate([keras.ops.ones(1), self.phi, square])
            return keras.ops.matmul(x, features[:, None])

    model = keras.Sequential([keras.Input((4,)), Manifold()])
    model.set_weights([np.array(START, np.float32)])
    learner = Reptile(
        model,
        inner_optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.MeanSquaredError(),
        lanes=1,
    )
    examples = np.array([CIRCLE, line], np.float32)
    path = [model.get_weights()[0]]
    for i in range(iterations):
        rows = np.full((1, inner_iters, 1), i % 2, np.int32)
        task = TrainingTasks(MiniBatches(rows, np.zeros((*rows.shape, 1), np.float32)))
        learner.train_step(examples, task, meta_step * (1 - i / iterations))
        path.append(model.get_weights()[0])
    return np.array(path, np.float64)


def squared_distance(points, line: tuple[float, ...]):
    """Return the mean squared distance to circle and line, [...] for points [..., 2]."""
    import numpy as np

    radius = np.linalg.norm(points, axis=-1)
    offset, *normal, _ = line
    to_line = (points @ np.array(normal) + offset) / np.linalg.norm(normal)
    return ((radius - 1) ** 2 + to_line**2) / 2


def nearest_point(line: tuple[float, ...]):
    """Search for the point of least mean squared distance on the side of the start.

    Returns:
        float64 [2], to 1e-4; and the mean squared distance there.
    """
    import numpy as np

    center, width = np.array([-1.2, 1.0]), 1.6
    for _ in range(12):  # finer and finer grids around the best point
        steps = np.linspace(-width, width, 81)
        grid = center + np.stack(np.meshgrid(steps, steps), axis=-1)
        values = squared_distance(grid, line)
        center = grid[np.unravel_index(values.argmin(), values.shape)]
        width /= 3
    return center, float(squared_distance(center, line))


@settings("Experiment")
class Settings(Checked):
    """The length of Reptile's path."""

    meta_iters: int = setting(
        "Meta-iterations, toward the two manifolds alternately.", at_least(1), default=200
    )
    inner_iters: int = setting("SGD steps toward a manifold.", at_least(1), default=50)
    meta_step: float = setting(
        "Outer step size at the start, which decreases linearly to 0.",
        Rule("must be greater than 0 and at most 1", lambda step: 0 < step <= 1),
        default=0.3,
    )


def run(settings: Settings, place: common.Place) -> None:
    """Walk in both scenes, and write table and figure."""
    folder = place.results_folder(NAME)
    common.load_tensorflow()
    import numpy as np

    rows, found = [], {}
    for scene, line in SCENES.items():
        path = walk(line, settings.meta_iters, settings.inner_iters, settings.meta_step)
        best, value = nearest_point(line)
        found[scene] = {
            "end": path[-1].tolist(),
            "mean_squared_distance": float(squared_distance(path[-1], line)),
            "nearest_point": best.tolist(),
            "least_mean_squared_distance": value,
            "distance_to_nearest_point": float(np.linalg.norm(path[-1] - best)),
        }
        print(
            f"{scene:<9} mean squared distance {found[scene]['mean_squared_distance']:.6f}, least "
            f"{value:.6f}; from the end to the nearest point "
            f"{found[scene]['distance_to_nearest_point']:.4f}"
        )
        rows += [(scene, i, *map(float, point)) for i, point in enumerate(path)]
    write_table(folder / "paths.csv", ("scene", "iteration", "phi_1", "phi_2"), rows)
    common.write_results(folder, NAME, settings, {"scenes": found})
    draw(folder)


@figure_style()
def draw(folder: Path) -> None:
    """Draw the paths of both scenes."""
    import numpy as np

    rows, scenes = common.read_rows(folder / "paths.csv"), common.read_results(folder)["scenes"]
    figure = common.new_figure(8, 4.8)
    panels = figure.subplots(1, 2, sharey=True)
    angles = np.linspace(0, 2 * np.pi, 200)
    for axes, (scene, line) in zip(panels, SCENES.items(), strict=True):
        path = [(float(r["phi_1"]), float(r["phi_2"])) for r in rows if r["scene"] == scene]
        axes.plot(np.cos(angles), np.sin(angles), color="k", linestyle="--", label="W₁")
        ends = np.array([-2.5, 2.5])
        axes.plot(ends, -(line[0] + line[1] * ends) / line[2], color="C1", label="W₂")
        axes.plot(*zip(*path, strict=True), "-o", color="C0", markersize=2.5, lw=0.8, label="φ")
        best = scenes[scene]["nearest_point"]
        axes.plot(*best, "*", color="k", markersize=11, label="least mean squared distance")
        axes.set(title=scene, aspect="equal", xlim=(-2.2, 1.6), ylim=(-1.3, 2.7), xlabel="φ₁")
    panels[0].set_ylabel("φ₂")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    common.save_figure(figure, folder, NAME)
