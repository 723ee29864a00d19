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


SHARP_SHARE = 0.6
"""Share of the fall from breast to dark, over three cells of half a millimetre, that lies within two pixels at the edge
of a film or of the exposed; along skin, which falls evenly, it is a tenth."""


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


def edge_cells(grey: FloatImage, mask: BoolImage, usable: BoolImage, jump: float) -> BoolImage:
    """Return cells of padding and those along straight film edges inside the picture.

    Parameters
    ----------
    grey : ndarray of float32, shape (rows, cols)
    mask, usable : ndarray of bool, same shape
    jump : float
        Step between neighbouring cells that only an edge makes: `JUMP_SHARE` of the grey range.

    Returns
    -------
    ndarray of bool, same shape
    """
    jumps = np.zeros(grey.shape, np.bool_)
    for cells, step in ((jumps, np.diff(grey, axis=0)), (jumps.T, np.diff(grey, axis=1).T)):
        # the cells on both sides of a jump: either may be the last one of the breast
        cells[1:] |= np.abs(step) > jump
        cells[:-1] |= np.abs(step) > jump
    return np.asarray(~usable | (jumps & rim_cells(mask)), np.bool_)


def rim_cells(mask: BoolImage) -> BoolImage:
    """Return the outermost cells of a mask; where the image ends there is no rim."""
    around = np.pad(mask, 1, mode="edge")
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.asarray(mask & ~inner, np.bool_)


def sharp_cells(pixels: FloatImage, rim: BoolImage, step_px: int) -> BoolImage:
    """Return the cells of a rim where the grey level falls within two pixels, as it does where the exposed ends.

    Across each cell and its two neighbours, by rows and by columns, the largest step over two pixels is compared with
    the whole range; skin thins over millimetres.

    Parameters
    ----------
    pixels : ndarray of float32
    rim : ndarray of bool
        Cells of `step_px` pixels a side.
    step_px : int

    Returns
    -------
    ndarray of bool, shape of `rim`
    """
    sharp = np.zeros(rim.shape, np.bool_)
    row, col = np.nonzero(rim)
    across, along = np.arange(-step_px, 2 * step_px), np.arange(step_px)
    for first, second in ((across, along), (along, across)):
        rows = np.clip(row[:, None] * step_px + first, 0, pixels.shape[0] - 1)
        cols = np.clip(col[:, None] * step_px + second, 0, pixels.shape[1] - 1)
        window = pixels[rows[:, :, None], cols[:, None, :]]
        profile = window.mean(axis=2 if first is across else 1)
        steps = np.abs(profile[:, 2:] - profile[:, :-2]).max(axis=1)
        sharp[row, col] |= steps > SHARP_SHARE * np.maximum(np.ptp(profile, axis=1), 1e-12)
    return sharp


def near(cells: BoolImage, margin: float) -> BoolImage:
    """Return cells up to a distance, in cells, from true ones."""
    if not cells.any():
        return cells
    distance = cv2.distanceTransform((~cells).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(distance <= max(1.0, margin), np.bool_)


def near_border(shape: tuple[int, ...], margin: float) -> BoolImage:
    """Return cells of a picture up to a distance, in cells, from its border."""
    row, col = (np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) for n in shape)
    return np.asarray(np.minimum(row[:, None], col) <= max(1.0, margin), np.bool_)
