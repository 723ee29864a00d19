"""Where the breast is: Mammogram -> BreastRegion.

Works on a coarse grid (about 0.5 mm a cell), where film grain, dust and label strokes vanish and every step costs little.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.records import BoolImage, Box, BreastRegion, FloatImage, Mammogram, Zone
from detector.settings import BreastSettings

AIR_SHARES = (0.015, 0.06)
"""Least and greatest share of the grey range over the air's level at which breast begins: a digital detector's air is
flat and dark fat must not be taken for it, a film's air is uneven."""

SMALLEST_BREAST_CM2 = 2.0
"""Smaller bright areas are labels or dust; a compressed breast covers 30 to 300 cm2."""

ALIGNMENT_PX = 64
"""The box starts and stops at multiples of this, so that pyramids of shifted images sample the same places."""


def find_breast(mammogram: Mammogram, settings: BreastSettings) -> BreastRegion:
    """Tell breast from air, film edge, labels and padding, and mark the pectoral muscle and the skin line.

    Parameters
    ----------
    mammogram : Mammogram
    settings : BreastSettings

    Returns
    -------
    BreastRegion
        Empty, with an area of zero, if there is no breast.
    """
    step_px = 2 ** max(0, math.floor(math.log2(settings.grid_mm / mammogram.pixel_mm)))
    cell_mm = step_px * mammogram.pixel_mm
    grey, usable = _shrink(mammogram, step_px)
    mask = _largest_bright_area(grey, usable, cell_mm)
    n_cells = int(np.count_nonzero(mask))
    cell_cm2 = step_px**2 * mammogram.spacing_mm[0] * mammogram.spacing_mm[1] / 100
    if n_cells * cell_cm2 < SMALLEST_BREAST_CM2:
        return _no_breast(mask.shape, step_px)

    chest_wall = _chest_wall_side(mask)
    skin_distance = _skin_distance(mask, chest_wall) * np.float32(cell_mm)
    zones = np.where(mask, np.uint8(Zone.BREAST), np.uint8(0))
    zones[mask & (skin_distance < settings.skin_mm)] |= np.uint8(Zone.SKIN)
    pectoral = _pectoral_muscle(grey, mask, chest_wall, cell_mm) if mammogram.identity.view != "CC" else None
    if pectoral is not None:
        zones[mask & pectoral] |= np.uint8(Zone.PECTORAL)
    zones[mask & _edge_cells(grey, mask, usable, settings.edge_mm / cell_mm)] |= np.uint8(Zone.EDGE)

    inside = grey[mask]
    return BreastRegion(
        zones=zones,
        skin_distance_mm=np.where(mask, skin_distance, np.float32(0)),
        step_px=step_px,
        box=_aligned_box(mask, step_px, mammogram.pixels.shape),
        outline=_outline_px(mask, step_px),
        pectoral_outline=_outline_px((zones & Zone.PECTORAL) > 0, step_px),
        nipple=_nipple(mask, chest_wall, step_px),
        chest_wall=chest_wall,
        area_cm2=n_cells * cell_cm2,
        grey_range=(float(np.percentile(inside, 1)), float(np.percentile(inside, 99))),
    )


def _no_breast(shape: tuple[int, ...], step_px: int) -> BreastRegion:
    nothing = np.empty((0, 2), np.float32)
    return BreastRegion(
        zones=np.zeros(shape, np.uint8),
        skin_distance_mm=np.zeros(shape, np.float32),
        step_px=step_px,
        box=Box(0, 0, 0, 0),
        outline=nothing,
        pectoral_outline=nothing,
        nipple=None,
        chest_wall="",
        area_cm2=0.0,
        grey_range=(0.0, 0.0),
    )


def _shrink(mammogram: Mammogram, step_px: int) -> tuple[FloatImage, BoolImage]:
    """Return the mean grey level of each cell and whether the cell is image at all."""
    rows, cols = mammogram.pixels.shape
    pad = (0, -rows % step_px, 0, -cols % step_px)
    size = ((cols + pad[3]) // step_px, (rows + pad[1]) // step_px)
    pixels = mammogram.pixels
    if any(pad):
        pixels = np.asarray(cv2.copyMakeBorder(pixels, *pad, cv2.BORDER_REPLICATE), np.float32)
    grey = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.float32)
    if mammogram.padding is None:
        return grey, np.ones(grey.shape, np.bool_)
    padding = cv2.copyMakeBorder(mammogram.padding.view(np.uint8), *pad, cv2.BORDER_CONSTANT, value=1)
    share = cv2.resize(padding * np.uint8(255), size, interpolation=cv2.INTER_AREA)
    return grey, np.asarray(share) < 128


def _largest_bright_area(grey: FloatImage, usable: BoolImage, cell_mm: float) -> BoolImage:
    """Return the largest connected area over the air's level, without thin lines, holes filled."""
    if not usable.any():
        return np.zeros(grey.shape, np.bool_)
    values = grey[usable]
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.0]))
    if not high > low:
        return np.zeros(grey.shape, np.bool_)
    counts, edges = np.histogram(values, bins=100, range=(low, high))
    # air is the peak of the darker half; a view filled with breast has no such peak
    peak = int(np.argmax(counts[:40]))
    air = float(edges[peak]) if counts[peak] > 0.02 * values.size else low
    near_air = values[values < air + AIR_SHARES[1] * (high - air)]
    spread = 4 * float(np.std(near_air)) if near_air.size else 0.0
    margin = float(np.clip(spread, AIR_SHARES[0] * (high - air), AIR_SHARES[1] * (high - air)))
    bright = ((grey > air + margin) & usable).astype(np.uint8)

    # film edges and label strokes are thinner than 3 mm, the breast is not
    bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, disc(1.5 / cell_mm), borderType=cv2.BORDER_REPLICATE)
    n_labels, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    if n_labels < 2:
        return np.zeros(grey.shape, np.bool_)
    largest = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    # strips along the film's border go; what lies within 4 mm of the rest (nipple, skin) comes back
    core = cv2.morphologyEx(largest, cv2.MORPH_OPEN, disc(6.0 / cell_mm), borderType=cv2.BORDER_REPLICATE)
    largest &= cv2.dilate(core, disc(4.0 / cell_mm))
    contours, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(largest)
    if contours:
        cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return (filled > 0) & usable


def disc(radius_px: float) -> NDArray[np.uint8]:
    """Return a disc as structuring element, symmetric under flips and turns, at least 1 x 1.

    OpenCV's own ellipses are not symmetric under transposition for several sizes.
    """
    reach = max(0, math.floor(radius_px))
    offset = np.arange(-reach, reach + 1)
    return (offset[:, None] ** 2 + offset[None, :] ** 2 <= max(radius_px, 0.0) ** 2).astype(np.uint8)


def _chest_wall_side(mask: BoolImage) -> str:
    """Return the side on which the breast is cut off straight: "left", "right" or, where neither is clear, ""."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    straight_left = np.count_nonzero(np.abs(first - np.median(first)) <= 1) / len(rows)
    straight_right = np.count_nonzero(np.abs(last - np.median(last)) <= 1) / len(rows)
    if max(straight_left, straight_right) < 0.25 or straight_left == straight_right:
        return ""
    return "left" if straight_left > straight_right else "right"


def _skin_distance(mask: BoolImage, chest_wall: str) -> FloatImage:
    """Return each cell's distance to the air in cells; the image border and the chest wall are no skin."""
    solid = mask.astype(np.uint8)
    cols = np.flatnonzero(mask.any(axis=0))
    if chest_wall == "left":
        solid[:, : cols[0] + 2] = 1
    elif chest_wall == "right":
        solid[:, max(cols[-1] - 1, 0) :] = 1
    padded = cv2.copyMakeBorder(solid, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    if padded.all():
        return np.full(mask.shape, np.float32(max(mask.shape)))
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)[1:-1, 1:-1]


def _edge_cells(grey: FloatImage, mask: BoolImage, usable: BoolImage, margin: float) -> BoolImage:
    """Return cells along the image border, along padding, and along straight film edges inside the picture."""
    outside = cv2.copyMakeBorder((~usable).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    near = cv2.dilate(outside, disc(max(1.0, margin)))[1:-1, 1:-1] > 0
    # a film edge is a jump between neighbouring cells of a size that skin, which thins over millimetres, never has
    low, high = np.percentile(grey[mask], [1, 99])
    jump = np.zeros(grey.shape, np.uint8)
    limit = 0.35 * (high - low)
    jump[:, 1:] |= (np.abs(np.diff(grey, axis=1)) > limit).astype(np.uint8)
    jump[1:, :] |= (np.abs(np.diff(grey, axis=0)) > limit).astype(np.uint8)
    rim = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, disc(2.0))
    return near | (cv2.dilate(jump & rim, disc(max(1.0, margin))) > 0)


def _pectoral_muscle(grey: FloatImage, mask: BoolImage, chest_wall: str, cell_mm: float) -> BoolImage | None:
    """Return the cells of the pectoral muscle, a bright triangle in the upper corner at the chest wall, or None.

    The best straight border is searched over its ends on the top row and on the chest wall, as the line with the
    largest mean step from muscle to breast in units of the step's own spread along the line.
    """
    if not chest_wall:
        return None
    flipped = chest_wall == "right"
    image = cv2.GaussianBlur(grey[:, ::-1] if flipped else grey, (0, 0), 1.5 / cell_mm)
    inside = mask[:, ::-1] if flipped else mask
    cols = np.flatnonzero(inside.any(axis=0))
    origin = int(cols[0])
    top = int(np.flatnonzero(inside.any(axis=1))[0])
    if top * cell_mm > 5 or not inside[min(top + round(10 / cell_mm), inside.shape[0] - 1), origin + 1]:
        return None
    widths = np.arange(15, 0.8 * len(cols) * cell_mm, 4.0) / cell_mm
    heights = np.arange(30, 0.9 * inside.shape[0] * cell_mm, 6.0) / cell_mm
    if not len(widths) or not len(heights):
        return None
    width, height = (g.ravel() for g in np.meshgrid(widths, heights))
    share = np.linspace(0.08, 0.92, 40)[None, :]
    row, col = top + share * height[:, None], origin + (1 - share) * width[:, None]
    norm = np.hypot(width, height)[:, None]
    reach = 3.0 / cell_mm
    d_row, d_col = reach * width[:, None] / norm, reach * height[:, None] / norm
    muscle = _sample(image, row - d_row, col - d_col)
    breast = _sample(image, row + d_row, col + d_col)
    valid = _sample(inside.astype(np.float32), row, col) > 0.5
    step = np.where(valid, muscle - breast, 0.0)
    n_valid = valid.sum(axis=1)
    mean = step.sum(axis=1) / np.maximum(n_valid, 1)
    rising = ((step > 0) & valid).sum(axis=1) / np.maximum(n_valid, 1)
    spread = float(np.percentile(grey[mask], 95) - np.percentile(grey[mask], 5)) or 1.0
    score = np.where((n_valid > 24) & (rising > 0.85), mean / spread, 0.0)
    best = int(np.argmax(score))
    if score[best] < 0.05:
        return None
    rows_grid, cols_grid = np.mgrid[: inside.shape[0], : inside.shape[1]]
    triangle = (rows_grid - top) / height[best] + (cols_grid - origin) / width[best] < 1
    return np.asarray(triangle[:, ::-1] if flipped else triangle, np.bool_)


def _sample(image: FloatImage, row: NDArray[np.float64], col: NDArray[np.float64]) -> FloatImage:
    """Return the nearest pixels' values, places outside clipped to the border."""
    r = np.clip(np.rint(row), 0, image.shape[0] - 1).astype(np.intp)
    c = np.clip(np.rint(col), 0, image.shape[1] - 1).astype(np.intp)
    return np.asarray(image[r, c], np.float32)


def _nipple(mask: BoolImage, chest_wall: str, step_px: int) -> tuple[float, float, float] | None:
    """Return the place farthest from the chest wall as (row_px, col_px, confidence); a guess, so confidence is low."""
    if not chest_wall:
        return None
    far = np.where(mask.any(axis=1), mask.shape[1] - mask[:, ::-1].argmax(axis=1), 0)
    near = np.where(mask.any(axis=1), mask.argmax(axis=1), mask.shape[1])
    extreme = far.max() - 1 if chest_wall == "left" else near.min()
    rows = np.flatnonzero((far - 1 if chest_wall == "left" else near) == extreme)
    centre = (step_px - 1) / 2
    return float(np.median(rows)) * step_px + centre, float(extreme) * step_px + centre, 0.3


def _aligned_box(mask: BoolImage, step_px: int, shape: tuple[int, ...]) -> Box:
    """Return the mask's bounding box in pixels, grown to multiples of `ALIGNMENT_PX` where the image allows."""
    spans = []
    for axis in (1, 0):
        cells = np.flatnonzero(mask.any(axis=axis))
        start = cells[0] * step_px // ALIGNMENT_PX * ALIGNMENT_PX
        stop = -(-(cells[-1] + 1) * step_px // ALIGNMENT_PX) * ALIGNMENT_PX
        spans += [int(start), int(min(stop, shape[1 - axis]))]
    return Box(spans[0], spans[1], spans[2], spans[3])


def _outline_px(mask: BoolImage, step_px: int) -> NDArray[np.float32]:
    """Return the outline of a mask of cells as (row, col) in pixels; empty for an empty mask."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return np.empty((0, 2), np.float32)
    points = max(contours, key=cv2.contourArea).reshape(-1, 2)[:, ::-1].astype(np.float32)
    return points * np.float32(step_px) + np.float32((step_px - 1) / 2)
