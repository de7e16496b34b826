"""Measures Omniglot's drawings: what the page's drawings have to be made like.

    python web/bench/omniglot.py FOLDER-WITH-THE-TWO-ZIP-FILES

Writes omniglot.json beside this file: percentiles over all 32,460 drawings.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
ARCHIVES = ("images_background.zip", "images_evaluation.zip")


def runs(ink):
    """Length of the horizontal run of ink through each pixel, 0 on paper."""
    lengths = np.zeros(ink.shape, int)
    for row, out in zip(ink, lengths, strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))
        for start, end in edges.reshape(-1, 2):
            out[start:end] = end - start
    return lengths


def measure(image):
    """Sides and center of the box, pen width in pixels of the canvas, share of ink at 28×28."""
    ink = ~np.asarray(image)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    box = np.array([columns[0], columns[-1] + 1, rows[0], rows[-1] + 1]) / len(ink)
    thickness = np.minimum(runs(ink.astype(np.int8)), runs(ink.T.astype(np.int8)).T)[ink]
    return {
        "width": box[1] - box[0],
        "height": box[3] - box[2],
        "longest side": max(box[1] - box[0], box[3] - box[2]),
        "horizontal center": (box[0] + box[1]) / 2,
        "vertical center": (box[2] + box[3]) / 2,
        "pen width": np.median(thickness),
        "ink": (~np.asarray(image.resize((28, 28)))).mean(),
    }


def main(folder):
    """Measure every drawing of the archives in a folder."""
    measured = []
    for archive in ARCHIVES:
        with zipfile.ZipFile(folder / archive) as file:
            for name in sorted(n for n in file.namelist() if n.endswith(".png")):
                with file.open(name) as image:
                    measured.append(measure(Image.open(image)))
    columns = {key: np.array([m[key] for m in measured]) for key in measured[0]}
    result = {"drawings": len(measured)}
    for key, values in columns.items():
        points = np.percentile(values, PERCENTILES)
        named = {f"{p} %": round(float(v), 3) for p, v in zip(PERCENTILES, points, strict=True)}
        result[key] = {"mean": round(float(values.mean()), 3), **named}
    out = Path(__file__).with_name("omniglot.json")
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
