"""Where bright spots stand out, and the pixels of each: Detail -> Marks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.detect.discs import find_discs
from detector.detect.grains import part_grains
from detector.detect.levels import coarsest_levels
from detector.detect.overlaps import LARGE_SCALE_MM, resolve_overlaps, strongest_regions
from detector.detect.peaks import find_maxima, find_peaks
from detector.detect.regions import Regions, grow_regions
from detector.records import BoolImage, BreastRegion, Buffers, Detail, Marks, Moments, Seeds
from detector.settings import DetectSettings

__all__ = ["detect_marks"]

LONG_ASPECT, WIDEST_LINE_MM = 2.5, 0.35
"""Length by width from which a mark is a line rather than a blob, and the scale of its width up to which it is."""

SAME_SCALE = 1.65
"""Ratio up to which two scales are one: a step from band to band and a hair, since rounding must not decide for what is
as small as the finest band tells and was seen by the next."""

WALL_SHARE = 0.6
"""Area by that of a disc of the same radius of gyration under which a mark is a wall around what it does not fill: of a
ring that is twice its thickness by its radius."""


def detect_marks(
    detail: Detail, breast: BreastRegion, settings: DetectSettings, buffers: Buffers | None = None
) -> Marks:
    """Find blobs of all scales and the pixels over half height that belong to each.

    Peaks of the difference of Gaussians over the threshold are candidates. Around each the pixels over half of its
    height are taken from the level that it was found on. Where candidates overlap, the one with the larger product of
    height and significance stays: of a macrocalcification and a bright grain of noise inside it the former, of a
    cluster seen as one blob and a speck of it the latter. What measures otherwise than the band that saw it says is
    outlined once more, at the scale that it has; and discs, whose outline is sought along rays, join. What is a heap of
    grains in the end is cut into these.

    Parameters
    ----------
    detail : Detail
    breast : BreastRegion
    settings : DetectSettings
    buffers : Buffers, optional
        What the label image is written to; the Marks then last until it is used again.

    Returns
    -------
    Marks
        Rows ordered by row, then column.
    """
    if not detail.levels:
        return Marks(np.zeros((0, 0), np.uint16), np.empty(0, np.int32), Seeds.empty(), detail.box)
    maxima = find_maxima(detail, breast, settings)
    seeds = peaks = find_peaks(maxima, detail, breast, settings)
    # one canvas throughout, since the first touch of so many pixels takes a while; it must hold discs as well
    dtype = np.uint16 if len(seeds) < 2**15 else np.uint32
    canvas = (buffers or Buffers()).take("labels", detail.levels[0].image.shape, dtype)
    canvas.fill(0)
    first = strongest_regions(grow_regions(detail, seeds, settings), detail, canvas)
    # what is found must not hang on the band that saw it
    seeds = _measured(first, canvas, detail)
    other = _is_other_scale(seeds, first.seeds)
    anew = grow_regions(detail, seeds[other], settings)
    canvas.ravel()[first.pixel] = 0
    regions = Regions.concatenate([first.only(~other), anew, find_discs(maxima, detail, breast, settings)])
    return part_grains(resolve_overlaps(regions, detail, canvas), peaks, detail, canvas)


def _is_other_scale(measured: Seeds, seen: Seeds) -> BoolImage:
    """Return which seeds have measured otherwise than the band that saw them says, so that they are outlined anew."""
    moved = (measured.row_px != seen.row_px) | (measured.col_px != seen.col_px) | (measured.level != seen.level)
    return np.asarray(moved | (np.abs(np.log(measured.scale_mm / seen.scale_mm)) > math.log(SAME_SCALE)), np.bool_)


def _measured(regions: Regions, canvas: NDArray[np.unsignedinteger[Any]], detail: Detail) -> Seeds:
    """Return the regions' seeds with the scale that answers best to what they are, and the level for it.

    That is the scale of a disc of their area; of lines and of the walls of rims, of a disc as wide as they are. Coarse
    ones that hold their own centre are moved there. On the canvas their rows are painted, from 1.
    """
    n, width = len(regions.seeds), canvas.shape[1]
    row, col = np.divmod(regions.pixel, width)
    moments = Moments.of(row, col, regions.owner, n)
    area = np.bincount(regions.owner, minlength=n)
    scale_mm = _scales_px(area, moments, WIDEST_LINE_MM / detail.pixel_mm) * detail.pixel_mm
    scale_mm = np.maximum(scale_mm, detail.bands[0].scale_mm)
    row, col = (np.rint(place).astype(np.int64) for place in (moments.y, moments.x))
    moved = (scale_mm >= LARGE_SCALE_MM) & (canvas[row, col] == np.arange(1, n + 1))
    row_px = np.where(moved, row + detail.box.row_start, regions.seeds.row_px)
    col_px = np.where(moved, col + detail.box.col_start, regions.seeds.col_px)
    return regions.seeds.replace(
        row_px=row_px,
        col_px=col_px,
        threshold=regions.seeds.level_at(np.arange(n), row_px, col_px),
        scale_mm=scale_mm,
        level=coarsest_levels(detail, scale_mm),
        top=np.full(n, np.nan),
        noise=np.where(moved, np.nan, regions.seeds.noise),
    )


def _scales_px(area: NDArray[np.int64], moments: Moments, widest: float) -> NDArray[np.float64]:
    """Return the scale of what has an area and second moments, in pixels; lines are up to `widest` such scales wide."""
    # a pixel is a square, not a point: its own second moment is a twelfth
    large, small = (moment + 1 / 12 for moment in moments.along_axes())
    by_width = np.sqrt(2 * small)
    gyration = np.sqrt(large + small)
    is_line = (large >= LONG_ASPECT**2 * small) & (by_width < widest)
    is_wall = area < WALL_SHARE * 2 * np.pi * gyration**2
    # a wall's width is its area by the circle's length; as of a line, the scale is the root of a sixth of it
    by_wall = area / (2 * np.pi * gyration * np.sqrt(6))
    return np.where(is_line, by_width, np.where(is_wall, by_wall, np.sqrt(area / (2 * np.pi))))
