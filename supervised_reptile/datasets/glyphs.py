"""Glyphs: computer-generated handwritten characters, with the same array shapes as Omniglot.

This embedded data set needs no download. It has 1623 characters in 50 alphabets, each drawn by 20
drawers at 28x28 with one bit per pixel. The characters of an alphabet combine the same few strokes,
so they look similar. Drawers differ in pen, slant, size, position and steadiness of hand. A drawing
is made at 105x105 and reduced to 28x28 by the nearest pixel, like those of Omniglot.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from supervised_reptile.datasets.characters import build_character_dataset
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.progress import Progress

CHARACTERS = 1623
ALPHABETS = 50
DRAWINGS = 20
SIZE = 28
_RAW_SIZE = 105

# Fixed: the shapes belong to the data set; a run's seed only selects the training characters.
_SHAPE_SEED = 20180308
_CONTROL_POINTS = 7  # per stroke
_CURVE_POINTS = 25  # per drawn stroke

# Differences between drawings of one character, in units of the character's height (about 1).
_SHIFT = 0.10
_ROTATION = math.radians(12)
_SLANT = 0.25
_SCALE = 0.18
_STROKE_SHIFT = 0.06
_WOBBLE = 0.03


def _signed(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw uniformly from [-1, 1), the only distribution used: it is the same on all platforms."""
    return 2 * rng.random(shape) - 1


def _curve_basis() -> np.ndarray:
    """Return weights [curve points, control points] of a Catmull-Rom spline."""
    basis = np.zeros((_CURVE_POINTS, _CONTROL_POINTS))
    last = _CONTROL_POINTS - 1
    for row, t in enumerate(np.linspace(0, last, _CURVE_POINTS)):
        i = min(int(t), last - 1)
        u = t - i
        weights = (
            (-u + 2 * u**2 - u**3) / 2,
            (2 - 5 * u**2 + 3 * u**3) / 2,
            (u + 4 * u**2 - 3 * u**3) / 2,
            (-(u**2) + u**3) / 2,
        )
        for offset, weight in zip(range(-1, 3), weights, strict=True):
            basis[row, min(max(i + offset, 0), last)] += weight
    return basis


def _style_strokes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw the strokes of an alphabet's style, [count, control points, 2], each centered on 0.

    A stroke is an arc, between a straight line and almost a full circle, or an S, whose bend
    changes sign halfway. It consists of equal steps while the direction turns.
    """
    # Turned in equal steps from stroke to stroke, so every style has several directions.
    angle = (np.arange(count)[:, None] * 3 % 8) * math.pi / 4 + 0.2 * _signed(rng, count, 1)
    bend = np.array([0, 0, 0.7, 1.5, 2.5, 4, 6])[(rng.random((count, 1)) * 7).astype(int)]
    bend = bend * np.where(rng.random((count, 1)) < 0.5, -1, 1)
    is_s = rng.random((count, 1)) < 0.25
    steps = (np.arange(_CONTROL_POINTS - 1) + 0.5) / (_CONTROL_POINTS - 1) - 0.5
    turn = np.where(is_s, np.abs(steps) - 0.25, steps) * bend
    length = (0.45 + 0.55 * rng.random((count, 1))) / (_CONTROL_POINTS - 1)
    length = length * (1 + 0.12 * np.abs(bend))
    step = np.stack([np.cos(angle + turn), np.sin(angle + turn)], axis=-1) * length[..., None]
    points = np.concatenate([np.zeros((count, 1, 2)), np.cumsum(step, axis=1)], axis=1)
    return points - points.mean(axis=1, keepdims=True)


def _character(rng: np.random.Generator, style: np.ndarray) -> np.ndarray:
    """Combine 2 to 5 strokes of a style, [strokes, control points, 2], scaled to height 1."""
    while True:
        strokes: list[np.ndarray] = []
        for _ in range(2 + int(rng.random() * rng.random() * 4 + 0.5)):
            stroke = style[int(rng.random() * len(style))] * (0.6 + 0.6 * rng.random())
            if strokes and rng.random() < 0.8:
                # Start at, or cross, the start, middle or end of an earlier stroke.
                earlier = strokes[int(rng.random() * len(strokes))]
                start = earlier[int(rng.random() * 3) * (_CONTROL_POINTS // 2)]
                stroke = stroke + start - stroke[0 if rng.random() < 0.6 else _CONTROL_POINTS // 2]
            else:
                stroke = stroke + 0.35 * _signed(rng, 2)
            strokes.append(stroke)
        points = np.stack(strokes)
        low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
        extent = high - low
        if extent.min() > 0.4 * extent.max():  # else almost a line
            return (points - (low + high) / 2) / extent.max()


def _draw(rng: np.random.Generator, character: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Draw a character 20 times, uint8 [20, 28, 28, 1]: 0 is ink, 1 is paper."""
    n, count = DRAWINGS, len(character)
    controls = character + _STROKE_SHIFT * _signed(rng, n, count, 1, 2)
    controls = controls + _WOBBLE * _signed(rng, n, count, _CONTROL_POINTS, 2)
    turn, slant = _ROTATION * _signed(rng, n), _SLANT * _signed(rng, n)
    size = 0.62 * (1 + _SCALE * _signed(rng, n, 2))  # of the image; width and height separately
    cos, sin = np.cos(turn), np.sin(turn)
    # rotation @ slant @ scale, [n, 2, 2]
    affine = np.stack([cos, cos * slant - sin, sin, sin * slant + cos], axis=-1).reshape(n, 2, 2)
    affine = affine * size[:, None, :]
    shift = 0.5 + _SHIFT * _signed(rng, n, 2)
    curves = np.einsum("pc,nscd,ned->nspe", basis, controls, affine) + shift[:, None, None]
    pens = 4 + (rng.random(n) * 2).astype(int)
    images = []
    for drawing, pen in zip(np.rint(curves * _RAW_SIZE).astype(int), pens.tolist(), strict=True):
        image = Image.new("1", (_RAW_SIZE, _RAW_SIZE), 1)
        canvas = ImageDraw.Draw(image)
        for stroke in drawing.reshape(count, -1).tolist():
            canvas.line(stroke, fill=0, width=pen)
        images.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.NEAREST)))
    return np.stack(images).astype(np.uint8)[..., np.newaxis]


def draw_all(progress: bool = True) -> tuple[np.ndarray, list[str]]:
    """Draw every character. The result is always the same.

    Args:
        progress: Whether to show a progress bar.

    Returns:
        Drawings, uint8 [1623, 20, 28, 28, 1], 0 (ink) and 1 (paper), and names such as
        ``"alphabet07/character12"``, sorted.
    """
    basis = _curve_basis()
    drawings, names = [], []
    sizes = [len(part) for part in np.array_split(np.arange(CHARACTERS), ALPHABETS)]
    with Progress(CHARACTERS, "drawing glyphs", "character", mode=progress) as bar:
        for alphabet, size in enumerate(sizes):
            rng = np.random.default_rng([_SHAPE_SEED, alphabet])
            style = _style_strokes(rng, 8)
            for character in range(size):
                drawings.append(_draw(rng, _character(rng, style), basis))
                names.append(f"alphabet{alphabet + 1:02d}/character{character + 1:02d}")
            bar.add(size)
    return np.stack(drawings), names


def load(*, data_dir: Path, seed: int, progress: bool = True) -> FewShotDataset:
    """Draw the glyphs: 4800 training classes (1200 characters, 4 rotations), 423 test classes.

    Args:
        data_dir: Not used; nothing is read or written.
        seed: Seed of the split. The drawings do not depend on it.
        progress: Whether to show a progress bar.

    Returns:
        The data set; images uint8 [104460, 28, 28, 1], 0 (ink) and 1 (paper).
    """
    del data_dir
    drawings, names = draw_all(progress)
    return build_character_dataset(
        "glyphs", drawings, names, seed=seed, origin="drawn by the program"
    )
