"""How sharply candidates end: the step of grey level across their border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.detect.levels import by_level
from detector.records import EDGE_MM, BoolImage, Detail, FloatImage, Level, Places, Seeds, divided

RAY_SCALES, RAY_SAMPLES = 3.6, 8
"""Length of the rays that look for the border, in scales (two and a half radii of a disc), and samples on each."""

REFINED_CELL_MM, WIDEST_MM = 0.21, 0.5
"""Largest cell on which a border is found finely enough, and the width about it in which the step is sought."""

FEWEST_RAYS = 8
"""Rays of sixteen that must reach the border for the others to be left out: those along a rod end before it."""

_ANGLE = np.arange(16) * (np.pi / 8)
SINE, COSINE = np.sin(_ANGLE), np.cos(_ANGLE)
"""Sixteen directions around a seed."""

Floats = NDArray[np.float64]


def sample_rays(level: Level, row_px: Floats, col_px: Floats, away_px: Floats | FloatImage) -> FloatImage:
    """Return grey levels on sixteen rays.

    Parameters
    ----------
    level : Level
    row_px, col_px : ndarray, shape (n,)
        Where the rays start, in pixels of the whole image.
    away_px : ndarray, shape (..., 16, n) or (..., 1, n)
        Distances from there; in the latter case all rays' are the same.

    Returns
    -------
    ndarray of float32, shape (..., 16, n)
        Direction by start: numpy takes long to go round short axes within long ones.
    """
    away = np.asarray(away_px / level.step_px, np.float32)
    places = Places((*away.shape[:-2], len(SINE), away.shape[-1]))
    for axis, (place, cells, way) in enumerate(((row_px, places.row, SINE), (col_px, places.col, COSINE))):
        np.multiply(away, way[:, None].astype(np.float32), out=cells)
        np.add(cells, level.to_cells(place, axis).astype(np.float32), out=cells)
    return level.sample_cells(places)


def smoothed_around(values: FloatImage) -> FloatImage:
    """Return the means of each ray's value and its two neighbours', along the last axis but one, which is a circle."""
    total = values.copy()
    total[..., 1:, :] += values[..., :-1, :]
    total[..., :-1, :] += values[..., 1:, :]
    total[..., 0, :] += values[..., -1, :]
    total[..., -1, :] += values[..., 0, :]
    return np.asarray(total / np.float32(3), np.float32)


def edge_px(detail: Detail) -> float:
    """Return `EDGE_MM` in pixels, or one pixel: nearer to each other two places hold the same grey level."""
    return max(EDGE_MM / detail.pixel_mm, 1.0)


def edge_steps(detail: Detail, seeds: Seeds) -> Floats:
    """Return the mean step of grey level across the border of each seed.

    Sixteen rays leave each seed. Where a ray falls to the outline's level, on the seed's own level of the pyramid, the
    finest image is read a little inside and a little outside. No step counts more than the seed's own height: the rest
    is that of a film's or the breast's edge.

    Parameters
    ----------
    detail : Detail
    seeds : Seeds

    Returns
    -------
    ndarray of float64, shape (n,)
        In grey levels.
    """
    border_px, ends = np.empty((len(SINE), len(seeds))), np.empty((len(SINE), len(seeds)), np.bool_)
    for _, level, rows in by_level(detail, seeds.level):
        chosen = seeds[rows]
        near, ends[:, rows] = _border_px(detail, level, chosen)
        border_px[:, rows] = _refined_px(detail, level, chosen, near)
    return _mean_over(_steps(detail, seeds, border_px), ends)


def _refined_px(detail: Detail, level: Level, seeds: Seeds, border_px: Floats) -> Floats:
    """Return the distances at which the profile falls to the outline's level on a finer level than that of the seeds.

    They are as good as given where there is none.
    """
    fine = [one for one in detail.levels if one.step_px * detail.pixel_mm <= REFINED_CELL_MM]
    if not fine or fine[-1].step_px >= level.step_px:
        return border_px
    reach_px = 0.5 * seeds.scale_mm / detail.pixel_mm
    # a level shows scales from one to two of its cells
    n_places = 2 * round(2 * level.step_px * detail.pixel_mm / EDGE_MM) + 1
    away = np.maximum(border_px + reach_px * np.linspace(-1, 1, n_places)[:, None, None], 0).astype(np.float32)
    over = _over_outline(fine[-1], seeds, away) > 0
    return np.asarray(border_px + reach_px * (2 * over.mean(axis=0) - 1), np.float64)


def _over_outline(level: Level, seeds: Seeds, away_px: FloatImage) -> FloatImage:
    """Return the grey level over that of the outline on each seed's rays, shape (n places, 16, n seeds)."""
    tilt = seeds.tilt_row * SINE[:, None] + seeds.tilt_col * COSINE[:, None]
    grey = sample_rays(level, seeds.row_px, seeds.col_px, away_px)
    grey -= tilt.astype(np.float32) * away_px
    grey -= seeds.threshold.astype(np.float32)
    return grey


def _border_px(detail: Detail, level: Level, seeds: Seeds) -> tuple[Floats, BoolImage]:
    """Return, ray by seed, the distance in pixels at which the profile falls to the outline's level, and if it does."""
    step_px = seeds.scale_mm / detail.pixel_mm * (RAY_SCALES / (RAY_SAMPLES - 1))
    over = _over_outline(level, seeds, (step_px * np.arange(RAY_SAMPLES)[:, None, None]).astype(np.float32))
    inside = np.logical_and.accumulate(over >= 0, axis=0)
    first = np.clip(np.count_nonzero(inside, axis=0), 1, RAY_SAMPLES - 1)[None]
    high, low = (np.take_along_axis(over, place, axis=0)[0].astype(np.float64) for place in (first - 1, first))
    share = np.clip(high / np.maximum(high - low, 1e-12), 0, 1)
    return np.asarray((first[0] - 1 + share) * step_px, np.float64), ~inside[-1]


def _steps(detail: Detail, seeds: Seeds, border_px: Floats) -> Floats:
    """Return, ray by seed, the steepest step near the border.

    A slope of tissue moves the half height off the true border, so the steepest of five places nearby counts;
    neighbouring rays are averaged first, lest the steepest be the noise's.
    """
    nearby = np.minimum(seeds.scale_mm, WIDEST_MM) / detail.pixel_mm * np.linspace(-0.5, 0.5, 5)[:, None, None]
    border = (border_px + nearby).astype(np.float32)
    delta = np.float32(edge_px(detail))
    inside, outside = (
        sample_rays(detail.levels[0], seeds.row_px, seeds.col_px, np.maximum(border + shift, 0))
        for shift in (-delta, delta)
    )
    step = smoothed_around(np.minimum(inside - outside, seeds.height.astype(np.float32)))
    return np.asarray(step.max(axis=0), np.float64)


def _mean_over(step: Floats, ends: BoolImage) -> Floats:
    """Return the mean over the rays that reach the border, or over all where those are few."""
    counted = ends | (ends.sum(axis=0) < FEWEST_RAYS)
    return np.asarray((step * counted).sum(axis=0) / counted.sum(axis=0), np.float64)


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
    row, col = divided(pixel, width)
    level = seeds.level_at(owner, row + detail.box.row_start, col + detail.box.col_start)
    on = np.flatnonzero(np.minimum.reduce([grey[pixel + step] for step in (-width, -1, 1, width)]) <= level)
    owner, row, col = owner[on], row[on], col[on]
    delta = max(1, round(EDGE_MM / detail.pixel_mm))
    above, below = np.maximum(row - delta, 0), np.minimum(row + delta, len(image) - 1)
    left, right = np.maximum(col - delta, 0), np.minimum(col + delta, width - 1)
    step = np.hypot(image[below, col] - image[above, col], image[row, right] - image[row, left])
    length = np.bincount(owner, minlength=n)
    return np.bincount(owner, step, n) / np.maximum(length, 1), length
