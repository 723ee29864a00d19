"""How sharply candidates end: the step of grey level across their border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.records import BoolImage, Detail, Level, Seeds

RAY_SCALES, RAY_SAMPLES = 3.6, 10
"""Length of the rays that look for the border, in scales (two and a half radii of a disc), and samples on each."""

EDGE_MM = 0.12
"""Distance from the outline at which its step is read: more than the blur of common systems (0.05 to 0.1 mm)."""

REFINED_CELL_MM, WIDEST_MM = 0.21, 0.5
"""Largest cell on which a border is found finely enough, and the width about it in which the step is sought."""

FEWEST_RAYS = 8
"""Rays of sixteen that must reach the border for the others to be left out: those along a rod end before it."""

_ANGLE = np.arange(16) * (np.pi / 8)
SINE, COSINE = np.sin(_ANGLE), np.cos(_ANGLE)
"""Sixteen directions around a seed."""

Floats = NDArray[np.float64]


def edge_px(detail: Detail) -> float:
    """Return `EDGE_MM` in pixels, or one pixel: nearer to each other two places hold the same grey level."""
    return max(EDGE_MM / detail.pixel_mm, 1.0)


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
            border_px, ends = _border_px(detail, level, chosen)
            step = _steps(detail, chosen, _refined_px(detail, level, chosen, border_px), most)
            edge[rows] = _mean_over(step, ends)
    return edge


def _refined_px(detail: Detail, level: Level, seeds: Seeds, border_px: Floats) -> Floats:
    """Return the distances at which the profile falls to the outline's level on a finer level than that of the seeds.

    They are as good as given where there is none.
    """
    fine = [one for one in detail.levels if one.step_px * detail.pixel_mm <= REFINED_CELL_MM]
    if not fine or fine[-1].step_px >= level.step_px:
        return border_px
    reach_px = 0.5 * seeds.scale_mm[:, None] / detail.pixel_mm
    # a level shows scales from one to two of its cells
    n_places = 2 * round(2 * level.step_px * detail.pixel_mm / EDGE_MM) + 1
    away = border_px + reach_px * np.linspace(-1, 1, n_places)[:, None, None]
    away = np.maximum(away, 0)
    row, col = (place[:, None] + away * way for place, way in ((seeds.row_px, SINE), (seeds.col_px, COSINE)))
    tilt = seeds.tilt_row[:, None] * SINE + seeds.tilt_col[:, None] * COSINE
    over = fine[-1].sample(row, col) - tilt * away > seeds.threshold[:, None]
    return np.asarray(border_px + reach_px * (2 * over.mean(axis=0) - 1), np.float64)


def _border_px(detail: Detail, level: Level, seeds: Seeds) -> tuple[Floats, BoolImage]:
    """Return, seed by ray, the distance in pixels at which the profile falls to the outline's level, and if it does."""
    step_px = seeds.scale_mm[:, None] / detail.pixel_mm * (RAY_SCALES / (RAY_SAMPLES - 1))
    away = (step_px * np.arange(RAY_SAMPLES))[:, None, :]
    row = seeds.row_px[:, None, None] + away * SINE[:, None]
    col = seeds.col_px[:, None, None] + away * COSINE[:, None]
    tilt = seeds.tilt_row[:, None] * SINE + seeds.tilt_col[:, None] * COSINE
    over = level.sample(row, col) - tilt[..., None] * away - seeds.threshold[:, None, None]
    below = over < 0
    ends = below.any(axis=2)
    below[..., -1] = True
    first = np.maximum(below.argmax(axis=2), 1)[..., None]
    high = np.take_along_axis(over, first - 1, axis=2)[..., 0]
    low = np.take_along_axis(over, first, axis=2)[..., 0]
    share = np.clip(high / np.maximum(high - low, 1e-12), 0, 1)
    return np.asarray((first[..., 0] - 1 + share) * step_px, np.float64), ends


def _steps(detail: Detail, seeds: Seeds, border_px: Floats, most: Floats) -> Floats:
    """Return, seed by ray, the steepest step near the border.

    A slope of tissue moves the half height off the true border, so the steepest of five places nearby counts;
    neighbouring rays are averaged first, lest the steepest be the noise's.
    """
    nearby = np.linspace(-0.5, 0.5, 5) * np.minimum(seeds.scale_mm, WIDEST_MM)[:, None] / detail.pixel_mm
    border = border_px[:, None, :] + nearby[:, :, None]
    delta = edge_px(detail)
    inside, outside = (
        detail.levels[0].sample(
            seeds.row_px[:, None, None] + np.maximum(border + shift, 0) * SINE,
            seeds.col_px[:, None, None] + np.maximum(border + shift, 0) * COSINE,
        )
        for shift in (-delta, delta)
    )
    step = np.minimum(inside - outside, most[:, None, None])
    step = (step + np.roll(step, 1, axis=2) + np.roll(step, -1, axis=2)) / 3
    return np.asarray(step.max(axis=1), np.float64)


def _mean_over(step: Floats, ends: BoolImage) -> Floats:
    """Return the mean over the rays that reach the border, or over all where those are few."""
    counted = ends | (ends.sum(axis=1) < FEWEST_RAYS)[:, None]
    return np.asarray((step * counted).sum(axis=1) / counted.sum(axis=1), np.float64)


def outline_steps(
    detail: Detail, seeds: Seeds, owner: NDArray[np.int32], pixel: NDArray[np.int32]
) -> tuple[Floats, NDArray[np.int64]]:
    """Return the mean step of grey level across the outlines of seeds' pixels, whatever their form.

    Parameters
    ----------
    detail : Detail
    seeds : Seeds
    owner, pixel : ndarray of int32, shape (n pixels,)
        Rows of `seeds`, and flat indices into the finest level, not on its border.

    Returns
    -------
    step : ndarray of float64, shape (n,)
        In grey levels, over twice `EDGE_MM`; 0 where a seed has no pixels.
    length : ndarray of int64, shape (n,)
        Pixels on the outline.
    """
    n, image = len(seeds), detail.levels[0].image
    grey, width = image.ravel(), image.shape[1]
    row, col = np.divmod(pixel, width)
    level = seeds.level_at(owner, row + detail.box.row_start, col + detail.box.col_start)
    on = np.flatnonzero(np.minimum.reduce([grey[pixel + step] for step in (-width, -1, 1, width)]) <= level)
    owner, row, col = owner[on], row[on], col[on]
    delta = max(1, round(EDGE_MM / detail.pixel_mm))
    above, below = np.maximum(row - delta, 0), np.minimum(row + delta, len(image) - 1)
    left, right = np.maximum(col - delta, 0), np.minimum(col + delta, width - 1)
    step = np.hypot(image[below, col] - image[above, col], image[row, right] - image[row, left])
    length = np.bincount(owner, minlength=n)
    return np.bincount(owner, step, n) / np.maximum(length, 1), length
