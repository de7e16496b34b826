"""Peak memory of preparing Mini-ImageNet at full size, and of a run on it.

    python -m benchmarks.memory --json results/benchmarks/memory.json

The pictures are noise, 60,000 of them under the real WordNet ids, as folders of JPEG files and as
pickles of Python 2's protocol, the form that takes most memory. Needs 5 GB of disk for a while.
"""

from __future__ import annotations

import io
import json
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks.processes import ROOT, run_job, run_to_end
from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.datasets.images.miniimagenet import CLASSES, IMAGES_PER_CLASS

_LIMIT_MEGABYTES = 3 * 1024
_DISTINCT = 64


def _noise(count: int):
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (count, 84, 84, 3), dtype=np.uint8)


def write_folders(root: Path) -> None:
    """Write ``{train,val,test}/<wnid>/*.JPEG``."""
    from PIL import Image

    files = []
    for image in _noise(_DISTINCT):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=50)
        files.append(buffer.getvalue())
    for split, names in CLASSES.items():
        for name in names:
            folder = root / {"validation": "val"}.get(split, split) / name
            folder.mkdir(parents=True)
            for i in range(IMAGES_PER_CLASS):
                (folder / f"{name}_{i}.JPEG").write_bytes(files[i % _DISTINCT])


def write_pickles(root: Path) -> None:
    """Write ``mini-imagenet-cache-{train,val,test}.pkl``."""
    import numpy as np

    root.mkdir()
    for split, names in CLASSES.items():
        count = len(names) * IMAGES_PER_CLASS
        data = {
            "image_data": np.resize(_noise(_DISTINCT), (count, 84, 84, 3)),
            "class_dict": {
                name: list(range(k * IMAGES_PER_CLASS, (k + 1) * IMAGES_PER_CLASS))
                for k, name in enumerate(names)
            },
        }
        name = {"validation": "val"}.get(split, split)
        with (root / f"mini-imagenet-cache-{name}.pkl").open("wb") as file:
            pickle.dump(data, file, protocol=2)


FLAGS = {"json": Flag(None, "File for the numbers, in addition to the output.", str)}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; the exit code is 1 if anything takes more than 3 GB.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    run_program(_measure, FLAGS, argv, __doc__)


def _measure(**given: str | None) -> int:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        for layout in ("folders", "pickles"):
            source = Path(folder) / layout
            # In a separate process: a child's peak is never below its parent's at the start.
            code = f"import benchmarks.memory as m, pathlib; m.write_{layout}(pathlib.Path({{!r}}))"
            run_to_end(["-c", code.format(str(source))])
            prepare = ["-m", "supervised_reptile", "fetch", "miniimagenet"]
            to = data if layout == "folders" else Path(folder) / "other"
            found[f"prepare from {layout}"] = run_to_end(
                [*prepare, f"--from={source}", f"--data_dir={to}"]
            )
        checkpoint = Path(folder) / "run"
        flags = "--shots=5 --transductive --meta_iters=20 --eval_samples=20 --noprogress"
        found["run of 20 meta-iterations, 60 evaluation tasks"] = run_job(
            [
                str(ROOT / "run_miniimagenet.py"),
                *flags.split(),
                *(f"--data_dir={data}", f"--checkpoint={checkpoint}"),
            ],
            checkpoint / "curve.csv",
        )
    for what, numbers in found.items():
        print(f"{what}: {numbers['peak_megabytes']:.0f} MB, {numbers['total_seconds']:.0f} s")
    if given["json"]:
        Path(given["json"]).write_text(json.dumps(found, indent=2) + "\n")
    return int(any(each["peak_megabytes"] > _LIMIT_MEGABYTES for each in found.values()))


if __name__ == "__main__":
    main()
