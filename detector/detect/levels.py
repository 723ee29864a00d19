"""Which level of the pyramid serves a size, and what is read at peaks on it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from detector.records import LINE_MM, NINE_COLS, NINE_ROWS, Detail, FloatImage, Level, Peaks, Seeds, StepImage

FINEST_CELL_MM = 0.101
"""Cells up to that are fine enough for any spot: two a speck of 0.2 mm. So images of 0.05 and 0.1 mm are looked at on
the same cells, and give the same spots."""

BORDER_MM = 0.5
"""Distance from the border of the image within which nothing is looked for: the inner ring around a spot of half a
millimetre just fits, and what lies nearer has half of its surroundings missing."""

FEWEST_UPPER, MOST_UPPER = 2, 5
"""Cells of nine whose mean is the grey level on top of a candidate."""

LINE_PLACES, LINE_DIRECTIONS = 7, 12
"""Places on the shortest line, and its directions, on which faint ones are tried."""

Floats = NDArray[np.float64]


def coarsest_levels(detail: Detail, size_mm: Floats) -> NDArray[np.int32]:
    """Return, size by size, the coarsest level of cells up to it or to `FINEST_CELL_MM`; the finest where none is."""
    cells_mm = np.array([level.step_px * detail.pixel_mm for level in detail.levels])
    choice = np.searchsorted(cells_mm, np.maximum(size_mm, FINEST_CELL_MM), side="right") - 1
    return np.maximum(choice, 0).astype(np.int32)


def coarsest_level(detail: Detail, size_mm: float) -> Level:
    """Return the level that `coarsest_levels` names for one size."""
    return detail.levels[int(coarsest_levels(detail, np.array([size_mm]))[0])]


def by_level(detail: Detail, number: NDArray[np.int32]) -> Iterator[tuple[int, Level, NDArray[np.intp]]]:
    """Yield the number of each level that occurs, the level, and where it occurs."""
    for index, level in enumerate(detail.levels):
        rows = np.flatnonzero(number == index)
        if len(rows):
            yield index, level, rows


def border_px(pixel_mm: float) -> int:
    """Return how many pixels at the image's border, beyond which nothing is known, are left out."""
    return max(1, round(BORDER_MM / pixel_mm))


def from_border_px(image_shape: tuple[int, ...], row_px: Floats, col_px: Floats) -> Floats:
    """Return how far places are from the nearest border of the image, in their shape."""
    rows, cols = image_shape
    return np.asarray(np.minimum.reduce([row_px, rows - 1 - row_px, col_px, cols - 1 - col_px]), np.float64)


def peak_pixels(peaks: Peaks, detail: Detail) -> NDArray[np.int64]:
    """Return the flat index into the finest level of each peak's pixel."""
    rows, cols = detail.levels[0].image.shape
    row = np.clip(np.rint(peaks.row_px - detail.box.row_start).astype(np.int64), 0, rows - 1)
    col = np.clip(np.rint(peaks.col_px - detail.box.col_start).astype(np.int64), 0, cols - 1)
    return np.asarray(row * cols + col, np.int64)


def whole_steps(values: Floats) -> StepImage:
    """Return the largest whole number up to each value: a whole number over the one is over the other."""
    limits = np.iinfo(np.int16)
    return np.clip(np.floor(values), limits.min, limits.max).astype(np.int16)


def with_tops(detail: Detail, peaks: Peaks) -> Seeds:
    """Return peaks as seeds, with the grey level on top of each and the noise there.

    Parameters
    ----------
    detail : Detail
    peaks : Peaks

    Returns
    -------
    Seeds
    """
    return Seeds.at(peaks, top=_tops(detail, peaks), noise=noise_under(detail, peaks))


def noise_under(detail: Detail, peaks: Peaks) -> Floats:
    """Return the noise of a pixel at each peak, in steps."""
    return detail.noise_at(peaks.row_px, peaks.col_px)


def _tops(detail: Detail, peaks: Peaks) -> Floats:
    """Return the grey level on top of each peak: the mean of the brightest of nine cells half a scale wide.

    The brightest alone is the noise's choice, and cells as wide as the scale reach over a small disc's border.
    """
    choice = coarsest_levels(detail, 0.5 * peaks.scale_mm)
    cell_mm = np.array([level.step_px * detail.pixel_mm for level in detail.levels])[choice]
    n_upper = np.clip(3 * (peaks.scale_mm / cell_mm) ** 2, FEWEST_UPPER, MOST_UPPER)
    top = np.empty(len(peaks))
    for _, level, rows in by_level(detail, choice):
        row, col = (
            np.clip(np.rint(level.to_cells(place_px[rows], axis)).astype(np.intp) + d[:, None], 0, n - 1)
            for axis, (place_px, d, n) in enumerate(
                zip((peaks.row_px, peaks.col_px), (NINE_ROWS, NINE_COLS), level.image.shape, strict=True)
            )
        )
        around = level.image.ravel().take(row * level.image.shape[1] + col)
        highest = np.sort(around, axis=0)[: -1 - MOST_UPPER : -1]
        # the last one counts by its part, so that a scale a little larger changes the mean a little
        share = np.clip(n_upper[rows] - np.arange(MOST_UPPER)[:, None], 0, 1)
        top[rows] = (highest * share).sum(axis=0) / n_upper[rows]
    return top


def line_sigma(detail: Detail, peaks: Peaks) -> Floats:
    """Return the mean response of the finest band along a line through each peak's cell, in its best direction.

    Speck after speck a thin line may stand out no more than noise does, but noise is not drawn out to `LINE_MM`. All
    lines are read from a window around each peak with one set of weights, those of bilinear interpolation; near the
    box's border from the nearest window within it.

    Parameters
    ----------
    detail : Detail
    peaks : Peaks

    Returns
    -------
    ndarray of float64, shape (n,)
        In noise units of a single place.
    """
    band = detail.bands[0]
    level = detail.levels[band.level]
    weights = _line_weights(LINE_MM / detail.pixel_mm / level.step_px)
    side = math.isqrt(len(weights))
    top, left = (
        np.clip(np.rint(level.to_cells(place, axis)).astype(np.intp) - side // 2, 0, n - side)
        for axis, (place, n) in enumerate(zip((peaks.row_px, peaks.col_px), band.response.shape, strict=True))
    )
    windows = sliding_window_view(band.response, (side, side))[top, left]
    response = windows.reshape(len(peaks), side**2).astype(np.float32) @ weights
    noise = band.noise.at(detail.where(peaks.row_px, peaks.col_px))
    return np.asarray(response.max(axis=1, initial=-np.inf) / noise, np.float64)


@functools.cache
def _line_weights(length: float) -> FloatImage:
    """Return what each cell of a window counts on lines of a length in cells, shape (window's cells, directions)."""
    reach = math.ceil(0.5 * length)
    offset = np.arange(-reach, reach + 1)
    away = np.linspace(-0.5, 0.5, LINE_PLACES)[:, None, None] * length
    angle = np.arange(LINE_DIRECTIONS) * (np.pi / LINE_DIRECTIONS)
    by_row, by_col = (np.maximum(1 - np.abs(offset[:, None] - away * way), 0) for way in (np.sin(angle), np.cos(angle)))
    weights = np.einsum("prd,pcd->rcd", by_row, by_col).reshape(-1, LINE_DIRECTIONS)
    return np.asarray(weights / LINE_PLACES, np.float32)
