"""Which side the chest wall is on, how far the skin is, and which cells lie along edges that are no skin."""

from __future__ import annotations

import cv2
import numpy as np

from detector.breast.area import disc
from detector.records import BoolImage, FloatImage

STRAIGHT_SHARE = 0.25
"""Share of rows that must end in the same column for that side to be the cut at the chest wall."""

JUMP_SHARE = 0.35
"""Share of the breast's grey range between neighbouring cells that only a film edge or paddle makes: skin thins over
millimetres."""


SHARP_SHARE = 0.6
"""Share of the fall from breast to dark, over three cells of half a millimetre, that lies within two pixels at the edge
of a film or of the exposed; skin falls evenly over all of them."""


FEWEST_ACROSS_PX = 6
"""Pixels on either side of a cell that tell a fall within two of them from one over millimetres."""

SHORTEST_CUT_MM = 20.0
"""Length along one line from which an edge is a cut: skin of 200 mm radius stays within three pixels for 18 mm."""

LEAST_RANGE_SHARE = 0.05
"""Share of the breast's grey range that noise and skin alone do not reach within two pixels."""


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


def jump_cells(grey: FloatImage, jump: float) -> BoolImage:
    """Return cells on either side of a step between neighbours over `jump`."""
    jumps = np.zeros(grey.shape, np.bool_)
    for cells, step in ((jumps, np.diff(grey, axis=0)), (jumps.T, np.diff(grey, axis=1).T)):
        # either may be the last one of the breast
        cells[1:] |= np.abs(step) > jump
        cells[:-1] |= np.abs(step) > jump
    return jumps


def rim_cells(mask: BoolImage) -> BoolImage:
    """Return the outermost cells of a mask; where the image ends there is no rim."""
    around = np.pad(mask, 1, mode="edge")
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.asarray(mask & ~inner, np.bool_)


def cut_cells(pixels: FloatImage, rim: BoolImage, step_px: int, least: float, fewest: float) -> BoolImage:
    """Return the cells of a rim along which a film's edge or collimation cuts the breast.

    There the grey level falls within two pixels, along a line of the image's rows or columns. Across each cell and its
    two neighbours (six pixels at least) the largest step over two pixels is compared with the whole range: skin thins
    over millimetres; where a device blackens the air it ends as sharply, but is not straight.

    Parameters
    ----------
    pixels : ndarray of float32
    rim : ndarray of bool
        Cells of `step_px` pixels a side.
    step_px : int
    least : float
        Range of grey levels under which there is nothing but noise.
    fewest : float
        Cells that must lie along one line.

    Returns
    -------
    ndarray of bool, shape of `rim`
    """
    cut = np.zeros(rim.shape, np.bool_)
    # faster than along both axes at once
    place = np.stack(np.divmod(np.flatnonzero(rim), rim.shape[1]))
    reach = max(step_px, FEWEST_ACROSS_PX)
    across, along = np.arange(-reach, step_px + reach), np.arange(step_px)
    # a row of the image to the next, and a column
    strides = (pixels.shape[1], 1)
    for axis, other in ((0, 1), (1, 0)):
        # pixels along the line by pixels across it by cell: numpy takes long to go round short axes within long ones
        first, second = (
            np.clip(place[one] * step_px + offset[:, None], 0, pixels.shape[one] - 1) * strides[one]
            for one, offset in ((axis, across), (other, along))
        )
        profile = pixels.take(first + second[:, None]).mean(axis=0)
        steps = np.abs(profile[2:] - profile[:-2])
        sharp = steps.max(axis=0) > SHARP_SHARE * np.maximum(np.ptp(profile, axis=0), least)
        line = place[axis] * step_px + steps.argmax(axis=0)
        n_on = np.bincount(line[sharp], minlength=int(line.max(initial=0)) + 2)
        n_near = n_on + np.append(n_on[1:], 0) + np.append(0, n_on[:-1])
        cut[tuple(place)] |= sharp & (n_near[line] >= fewest)
    return cut


def near(cells: BoolImage, margin: float) -> BoolImage:
    """Return cells up to a distance, in cells, from true ones."""
    return np.asarray(cv2.dilate(cells.view(np.uint8), disc(max(1.0, margin))), np.bool_)


def near_border(shape: tuple[int, ...], margin: float) -> BoolImage:
    """Return cells of a picture up to a distance, in cells, from its border."""
    row, col = (np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) for n in shape)
    return np.asarray(np.minimum(row[:, None], col) <= max(1.0, margin), np.bool_)
