"""The breast's area on the coarse grid."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.records import BoolImage, FloatImage, Mammogram

AIR_SHARES = (0.015, 0.06)
"""Least and greatest share of the grey range over the air's level at which breast begins: a digital detector's air is
flat and dark fat must not be taken for it, a film's air is uneven."""

N_BINS = 100
"""Parts of the grey range that cells are counted in."""

VALLEY_BINS, VALLEY_SHARE = 20, 0.25
"""Hundredths of the grey range over air's peak within which grey levels must fall to that share of it: skin thins over
millimetres, so that hardly anything lies beside air; beside the peak of a view without air lies more tissue."""

STROKE_MM = 1.5
"""Half width of what is taken off before the largest area is chosen: film edges and label strokes."""

STRIP_MM, SKIN_MM = 6.0, 4.0
"""Half width of strips along the film's border, which go, and how near the rest must be to come back (nipple, skin)."""


def shrink(mammogram: Mammogram, step_px: int) -> tuple[FloatImage, BoolImage]:
    """Return the mean grey level of each cell and whether the cell is image at all.

    Parameters
    ----------
    mammogram : Mammogram
    step_px : int
        Side of a cell.

    Returns
    -------
    grey : ndarray of float32, shape (ceil(rows / step_px), ceil(cols / step_px))
    usable : ndarray of bool, same shape
    """
    grey = _cell_means(mammogram.pixels, step_px)
    if mammogram.padding is None:
        return grey, np.ones(grey.shape, np.bool_)
    return grey, _cell_means(mammogram.padding.astype(np.float32), step_px) < 0.5


def _cell_means(image: FloatImage, step_px: int) -> FloatImage:
    rows, cols = image.shape
    pad = (-rows % step_px, -cols % step_px)
    padded = cv2.copyMakeBorder(image, 0, pad[0], 0, pad[1], cv2.BORDER_REPLICATE) if any(pad) else image
    size = ((cols + pad[1]) // step_px, (rows + pad[0]) // step_px)
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), np.float32)


def find_area(grey: FloatImage, usable: BoolImage, cell_mm: float) -> BoolImage:
    """Return the largest connected area over the air's level, without lines and strips, holes filled.

    Parameters
    ----------
    grey : ndarray of float32, shape (rows, cols)
    usable : ndarray of bool, same shape
    cell_mm : float

    Returns
    -------
    ndarray of bool, same shape
        Empty if all is of one grey.
    """
    over_air = _over_air(grey, usable).view(np.uint8)
    bright = cv2.morphologyEx(over_air, cv2.MORPH_OPEN, disc(STROKE_MM / cell_mm), borderType=cv2.BORDER_REPLICATE)
    n_labels, labels = cv2.connectedComponents(bright, connectivity=4)
    if n_labels < 2:
        return np.zeros(grey.shape, np.bool_)
    largest = np.asarray(labels == 1 + int(np.argmax(np.bincount(np.asarray(labels).ravel())[1:])), np.bool_)
    # distances within it end at its box, one cell wider
    rows, cols = (np.flatnonzero(largest.any(axis=axis)) for axis in (1, 0))
    area = largest[max(rows[0] - 1, 0) : rows[-1] + 2, max(cols[0] - 1, 0) : cols[-1] + 2]
    area &= distance_to(_opened(area, STRIP_MM / cell_mm)) <= SKIN_MM / cell_mm
    contours, _ = cv2.findContours(largest.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(grey.shape, np.uint8)
    if contours:
        cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return (filled > 0) & usable


def _over_air(grey: FloatImage, usable: BoolImage) -> BoolImage:
    """Return which cells are brighter than air."""
    nothing = np.zeros(grey.shape, np.bool_)
    if not usable.any():
        return nothing
    values = grey[usable]
    low, high = percentiles(values, (0.5, 99.0))
    if not high > low:
        return nothing
    counts = cv2.calcHist([values], [0], None, [N_BINS], [low, high]).ravel()
    # air is a peak of the darker half with nearly nothing beside it; a view filled with breast has no such peak
    peak = int(np.argmax(counts[: N_BINS * 2 // 5]))
    valley = np.convolve(counts, np.ones(3) / 3, "same")[peak : peak + VALLEY_BINS].min()
    is_air = counts[peak] > 0.02 * values.size and valley < VALLEY_SHARE * counts[peak]
    air = low + peak * (high - low) / N_BINS if is_air else low
    least, greatest = (share * (high - air) for share in AIR_SHARES)
    spread = 4 * float(np.std(values[values < air + greatest], dtype=np.float64)) if air + greatest > low else 0.0
    return np.asarray((grey > air + np.clip(spread, least, greatest)) & usable, np.bool_)


def percentiles(values: FloatImage, shares: tuple[float, ...]) -> list[float]:
    """Return percentiles of values to a 65,536th of their range, by counting; `numpy.percentile` sorts them apart."""
    lowest, highest = float(values.min()), float(values.max())
    step = max((highest - lowest) / np.iinfo(np.uint16).max, float(np.finfo(np.float32).tiny))
    number = ((values - np.float32(lowest)) * np.float32(1 / step)).astype(np.uint16)
    upto = np.cumsum(np.bincount(number))
    return [lowest + float(step * np.searchsorted(upto, 0.01 * share * len(values))) for share in shares]


def distance_to(mask: BoolImage) -> NDArray[Any]:
    """Return each cell's distance to the nearest true one, in cells; large where there is none."""
    if not mask.any():
        return np.full(mask.shape, np.float32(max(mask.shape) * 2))
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5))


def _opened(mask: BoolImage, radius: float) -> BoolImage:
    """Return the opening by a disc, which the image border does not wear off; by distances, not by sliding a disc."""
    return np.asarray(distance_to(distance_to(~mask) > radius) <= radius, np.bool_)


def disc(radius: float) -> NDArray[np.uint8]:
    """Return a disc of cells, symmetric under flips and turns, which OpenCV's own ellipses of several sizes are not."""
    offset = np.arange(-int(radius), int(radius) + 1)
    return (offset[:, None] ** 2 + offset**2 <= radius**2).astype(np.uint8)
