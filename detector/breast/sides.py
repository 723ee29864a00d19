"""Which side the chest wall is on, how far the skin is, and which cells lie along edges that are no skin."""

from __future__ import annotations

import cv2
import numpy as np

from detector.records import BoolImage, FloatImage

STRAIGHT_SHARE = 0.25
"""Share of rows that must end in the same column for that side to be the cut at the chest wall."""

JUMP_SHARE = 0.35
"""Share of the breast's grey range between neighbouring cells that only a film edge or paddle makes: skin thins over
millimetres."""


def chest_wall_side(mask: BoolImage) -> str:
    """Return the side on which the breast is cut off straight: "left", "right" or, where neither is clear, ""."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    left, right = (np.count_nonzero(np.abs(end - np.median(end)) <= 1) / len(rows) for end in (first, last))
    if max(left, right) < STRAIGHT_SHARE or left == right:
        return ""
    return "left" if left > right else "right"


def skin_distance_cells(mask: BoolImage, chest_wall: str) -> FloatImage:
    """Return each cell's distance to the air in cells; the image border and the chest wall are no skin."""
    solid = mask.astype(np.uint8)
    cols = np.flatnonzero(mask.any(axis=0))
    if chest_wall == "left":
        solid[:, : cols[0] + 2] = 1
    elif chest_wall == "right":
        solid[:, max(cols[-1] - 1, 0) :] = 1
    if solid.all():
        return np.full(mask.shape, np.float32(max(mask.shape)))
    return np.asarray(cv2.distanceTransform(solid, cv2.DIST_L2, cv2.DIST_MASK_5), np.float32)


def edge_cells(grey: FloatImage, mask: BoolImage, usable: BoolImage, jump: float, margin: float) -> BoolImage:
    """Return cells along the image border, along padding, and along straight film edges inside the picture.

    Parameters
    ----------
    grey : ndarray of float32, shape (rows, cols)
    mask, usable : ndarray of bool, same shape
    jump : float
        Step between neighbouring cells that only an edge makes: `JUMP_SHARE` of the grey range.
    margin : float
        Width of the zone in cells.

    Returns
    -------
    ndarray of bool, same shape
    """
    jumps = np.zeros(grey.shape, np.bool_)
    for cells, step in ((jumps, np.diff(grey, axis=0)), (jumps.T, np.diff(grey, axis=1).T)):
        # the cells on both sides of a jump: either may be the last one of the breast
        cells[1:] |= np.abs(step) > jump
        cells[:-1] |= np.abs(step) > jump
    border = np.pad(mask, 1)
    rim = mask & ~(border[:-2, 1:-1] & border[2:, 1:-1] & border[1:-1, :-2] & border[1:-1, 2:])
    outside = np.pad(~usable | (jumps & rim), 1, constant_values=True)
    distance = cv2.distanceTransform((~outside).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(distance[1:-1, 1:-1] <= max(1.0, margin), np.bool_)
