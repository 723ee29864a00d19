"""How sharply candidates end: the step of grey level across their border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.records import Detail, Level, Seeds

RAY_SCALES, RAY_SAMPLES = 3.6, 10
"""Length of the rays that look for the border, in scales (two and a half radii of a disc), and samples on each."""

EDGE_MM = 0.12
"""Distance from the outline at which its step is read: more than the blur of common systems (0.05 to 0.1 mm)."""

_ANGLE = np.arange(16) * (np.pi / 8)
_SINE, _COSINE = np.sin(_ANGLE), np.cos(_ANGLE)

Floats = NDArray[np.float64]


def edge_steps(detail: Detail, seeds: Seeds, *, bounded: bool) -> Floats:
    """Return the mean step of grey level across the border of each seed.

    Sixteen rays leave each seed. Where a ray falls to the outline's level, on the seed's own level of the pyramid, the
    finest image is read a little inside and a little outside.

    Parameters
    ----------
    detail : Detail
    seeds : Seeds
    bounded : bool
        Whether a step counts no more than the seed's own height: the rest is that of a film's or the breast's edge.

    Returns
    -------
    ndarray of float64, shape (n,)
        In grey levels.
    """
    edge = np.empty(len(seeds))
    for index, level in enumerate(detail.levels):
        rows = np.flatnonzero(seeds.level == index)
        if len(rows):
            chosen = seeds[rows]
            most = chosen.height if bounded else np.full(len(chosen), np.inf)
            edge[rows] = _step(detail, chosen, _border_px(detail, level, chosen), most)
    return edge


def _border_px(detail: Detail, level: Level, seeds: Seeds) -> Floats:
    """Return, seed by ray, the distance in pixels at which the profile falls to the outline's level."""
    step_px = seeds.scale_mm[:, None] / detail.pixel_mm * (RAY_SCALES / (RAY_SAMPLES - 1))
    away = (step_px * np.arange(RAY_SAMPLES))[:, None, :]
    row = seeds.row_px[:, None, None] + away * _SINE[:, None]
    col = seeds.col_px[:, None, None] + away * _COSINE[:, None]
    tilt = seeds.tilt_row[:, None] * _SINE + seeds.tilt_col[:, None] * _COSINE
    over = level.sample(row, col) - tilt[..., None] * away - seeds.threshold[:, None, None]
    below = over < 0
    below[..., -1] = True
    first = np.maximum(below.argmax(axis=2), 1)[..., None]
    high = np.take_along_axis(over, first - 1, axis=2)[..., 0]
    low = np.take_along_axis(over, first, axis=2)[..., 0]
    share = np.clip(high / np.maximum(high - low, 1e-12), 0, 1)
    return np.asarray((first[..., 0] - 1 + share) * step_px, np.float64)


def _step(detail: Detail, seeds: Seeds, border_px: Floats, most: Floats) -> Floats:
    """Return the steepest step near the border, averaged over the rays.

    A slope of tissue moves the half height off the true border, so the steepest of five places nearby counts;
    neighbouring rays are averaged first, lest the steepest be the noise's.
    """
    nearby = np.linspace(-0.5, 0.5, 5) * seeds.scale_mm[:, None] / detail.pixel_mm
    border = border_px[:, None, :] + nearby[:, :, None]
    delta = max(EDGE_MM / detail.pixel_mm, 1.0)
    inside, outside = (
        detail.levels[0].sample(
            seeds.row_px[:, None, None] + np.maximum(border + shift, 0) * _SINE,
            seeds.col_px[:, None, None] + np.maximum(border + shift, 0) * _COSINE,
        )
        for shift in (-delta, delta)
    )
    step = np.minimum(inside - outside, most[:, None, None])
    step = (step + np.roll(step, 1, axis=2) + np.roll(step, -1, axis=2)) / 3
    return np.asarray(step.max(axis=1).mean(axis=1), np.float64)
