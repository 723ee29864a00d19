"""The pectoral muscle: a bright triangle in the upper corner at the chest wall."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.records import BoolImage, FloatImage

WIDTHS_MM, HEIGHTS_MM = np.arange(15.0, 140.0, 4.0), np.arange(30.0, 260.0, 6.0)
"""Ends of the muscle's border that are tried: on the top row and on the chest wall."""

REACH_MM = 3.0
"""Distance to either side of the border at which muscle and breast are compared."""

RISING_SHARE, LEAST_STEP = 0.85, 0.1
"""Share of the border along which muscle must be the brighter, and mean step as a share of the breast's grey range."""

N_PLACES = 40
"""Places along the border."""

Floats = NDArray[np.float64]


def find_pectoral(grey: FloatImage, mask: BoolImage, chest_wall: str, cell_mm: float) -> BoolImage:
    """Return the cells of the pectoral muscle; none if no border is clear.

    The straight border with the largest mean step from muscle to breast is searched over its two ends.

    Parameters
    ----------
    grey : ndarray of float32, shape (rows, cols)
    mask : ndarray of bool, same shape
    chest_wall : {"left", "right"}
    cell_mm : float

    Returns
    -------
    ndarray of bool, same shape
    """
    if chest_wall == "right":
        return find_pectoral(grey[:, ::-1], mask[:, ::-1], "left", cell_mm)[:, ::-1]
    nothing = np.zeros_like(mask)
    origin, top = (int(np.flatnonzero(mask.any(axis=axis))[0]) for axis in (0, 1))
    corner = (min(top + round(10 / cell_mm), mask.shape[0] - 1), min(origin + 1, mask.shape[1] - 1))
    # on CC views the upper corner is air
    if top * cell_mm > 5 or not mask[corner]:
        return nothing
    width, height = (ends.ravel() / cell_mm for ends in np.meshgrid(WIDTHS_MM, HEIGHTS_MM))
    fits = (origin + width < mask.shape[1]) & (top + height < mask.shape[0])
    width, height = width[fits], height[fits]
    if not len(width):
        return nothing
    step = _steps(grey, mask, (top, origin), (width, height), cell_mm)
    best = int(np.argmax(step))
    low, high = np.percentile(grey[mask], [5, 95])
    if step[best] < LEAST_STEP * (high - low):
        return nothing
    rows, cols = np.indices(mask.shape)
    triangle = (rows - top) / height[best] + (cols - origin) / width[best] < 1
    return np.asarray(triangle & mask, np.bool_)


def _steps(
    grey: FloatImage, mask: BoolImage, corner: tuple[int, int], ends: tuple[Floats, Floats], cell_mm: float
) -> Floats:
    """Return the mean step across each border; 0 where muscle is not the brighter along nearly all of it."""
    image = np.asarray(cv2.GaussianBlur(np.ascontiguousarray(grey), (0, 0), 0.5 * REACH_MM / cell_mm), np.float32)
    width, height = ends[0][:, None], ends[1][:, None]
    share = np.linspace(0.08, 0.92, N_PLACES)
    row, col = corner[0] + share * height, corner[1] + (1 - share) * width
    norm = np.hypot(width, height)
    d_row, d_col = REACH_MM / cell_mm * width / norm, REACH_MM / cell_mm * height / norm
    valid = _nearest(mask.astype(np.float32), row, col) > 0.5
    difference = _nearest(image, row - d_row, col - d_col) - _nearest(image, row + d_row, col + d_col)
    n_valid = np.maximum(valid.sum(axis=1), 1)
    rising = (valid & (difference > 0)).sum(axis=1) / n_valid
    mean = np.where(valid, difference, 0).sum(axis=1) / n_valid
    return np.asarray(np.where((n_valid > 0.6 * N_PLACES) & (rising > RISING_SHARE), mean, 0.0), np.float64)


def _nearest(image: FloatImage, row: Floats, col: Floats) -> FloatImage:
    """Return the nearest cells' values; places outside take the border's."""
    r = np.clip(np.rint(row), 0, image.shape[0] - 1).astype(np.intp)
    c = np.clip(np.rint(col), 0, image.shape[1] - 1).astype(np.intp)
    return image[r, c]
