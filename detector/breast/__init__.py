"""Where the breast is: Mammogram -> BreastRegion.

Works on a coarse grid (about 0.5 mm a cell), where film grain, dust and label strokes vanish and every step costs
little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.breast.area import find_area, percentiles, shrink
from detector.breast.pectoral import find_pectoral
from detector.breast.sides import (
    JUMP_SHARE,
    LEAST_RANGE_SHARE,
    SHORTEST_CUT_MM,
    chest_wall_side,
    cut_cells,
    jump_cells,
    near,
    near_border,
    rim_cells,
    skin_distance_cells,
)
from detector.records import BoolImage, Box, BreastRegion, FloatImage, Mammogram, Zone
from detector.settings import BreastSettings

__all__ = ["find_breast"]

SMALLEST_BREAST_CM2 = 2.0
"""Smaller bright areas are labels or dust; a compressed breast covers 30 to 300 cm2."""

ALIGNMENT_PX = 64
"""The box starts and stops at multiples of this, so that pyramids of shifted images sample the same places."""

GUESSED = 0.3
"""Confidence of a nipple that is only the place farthest from the chest wall."""


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
    grey, usable = shrink(mammogram, step_px)
    mask = find_area(grey, usable, cell_mm)
    area_cm2 = np.count_nonzero(mask) * step_px**2 * math.prod(mammogram.spacing_mm) / 100
    if area_cm2 < SMALLEST_BREAST_CM2:
        return _no_breast(mask.shape, step_px)

    chest_wall = chest_wall_side(mask)
    cells = _Cells(grey, usable, mask, step_px, cell_mm)
    skin_distance_mm = np.where(mask, skin_distance_cells(mask, chest_wall) * np.float32(cell_mm), np.float32(0))
    pectoral = _pectoral(cells, chest_wall, mammogram.identity.view)
    low, high = percentiles(grey[mask], (1.0, 99.0))
    zones = _edge_zones(cells, mammogram.pixels, high - low, settings.edge_mm / cell_mm)
    zones |= _tissue_zones(mask, mask & (skin_distance_mm < settings.skin_mm), pectoral)
    return BreastRegion(
        zones=zones,
        skin_distance_mm=skin_distance_mm,
        step_px=step_px,
        box=_aligned_box(mask, step_px, mammogram.pixels.shape),
        outline=_outline_px(mask, step_px),
        pectoral_outline=_outline_px(pectoral, step_px),
        nipple=_guess_nipple(mask, chest_wall, step_px),
        chest_wall=chest_wall,
        area_cm2=area_cm2,
        grey_range=(low, high),
    )


@dataclass(frozen=True, eq=False)
class _Cells:
    """The coarse grid: mean grey level of each cell, whether it is image at all, and whether it is breast."""

    grey: FloatImage
    usable: BoolImage
    mask: BoolImage
    step_px: int
    cell_mm: float


def _pectoral(cells: _Cells, chest_wall: str, view: str) -> BoolImage:
    """Return the breast's cells on the pectoral muscle; there is none in a CC view."""
    if not chest_wall or view == "CC":
        return np.zeros_like(cells.mask)
    return cells.mask & find_pectoral(cells.grey, cells.mask, chest_wall, cells.cell_mm)


def _tissue_zones(mask: BoolImage, skin: BoolImage, pectoral: BoolImage) -> NDArray[np.uint8]:
    return mask * np.uint8(Zone.BREAST) | skin * np.uint8(Zone.SKIN) | pectoral * np.uint8(Zone.PECTORAL)


def _edge_zones(cells: _Cells, pixels: FloatImage, grey_range: float, margin: float) -> NDArray[np.uint8]:
    """Return the zones of the breast within `margin` cells of where a film's edge, a paddle or the border cuts it."""
    mask, rim = cells.mask, rim_cells(cells.mask)
    shortest = SHORTEST_CUT_MM / cells.cell_mm
    cut = ~cells.usable | cut_cells(pixels, rim, cells.step_px, LEAST_RANGE_SHARE * grey_range, shortest)
    jumps = rim & jump_cells(cells.grey, JUMP_SHARE * grey_range)
    edge = mask & (near(jumps, margin) | near_border(mask.shape, margin))
    return edge * np.uint8(Zone.EDGE) | (mask & near(cut, margin)) * np.uint8(Zone.EDGE | Zone.CUT)


def _no_breast(shape: tuple[int, ...], step_px: int) -> BreastRegion:
    nothing = np.empty((0, 2), np.float32)
    blank: FloatImage = np.zeros(shape, np.float32)
    box = Box(0, 0, 0, 0)
    return BreastRegion(np.zeros(shape, np.uint8), blank, step_px, box, nothing, nothing, None, "", 0.0, (0.0, 0.0))


def _guess_nipple(mask: BoolImage, chest_wall: str, step_px: int) -> tuple[float, float, float] | None:
    """Return the place farthest from the chest wall as (row_px, col_px, confidence)."""
    if not chest_wall:
        return None
    cols = np.flatnonzero(mask.any(axis=0))
    extreme = cols[-1] if chest_wall == "left" else cols[0]
    row = np.median(np.flatnonzero(mask[:, extreme]))
    centre = (step_px - 1) / 2
    return float(row) * step_px + centre, float(extreme) * step_px + centre, GUESSED


def _aligned_box(mask: BoolImage, step_px: int, shape: tuple[int, ...]) -> Box:
    """Return the mask's bounding box in pixels, grown to multiples of `ALIGNMENT_PX` where the image allows."""
    spans: list[int] = []
    for axis in (0, 1):
        cells = np.flatnonzero(mask.any(axis=1 - axis))
        start = int(cells[0]) * step_px // ALIGNMENT_PX * ALIGNMENT_PX
        stop = -(-(int(cells[-1]) + 1) * step_px // ALIGNMENT_PX) * ALIGNMENT_PX
        spans += [start, min(stop, shape[axis])]
    return Box(*spans)


def _outline_px(mask: BoolImage, step_px: int) -> NDArray[np.float32]:
    """Return the outline of a mask of cells as (row, col) in pixels; empty for an empty mask."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return np.empty((0, 2), np.float32)
    points = max(contours, key=cv2.contourArea).reshape(-1, 2)[:, ::-1].astype(np.float32)
    return points * np.float32(step_px) + np.float32((step_px - 1) / 2)
