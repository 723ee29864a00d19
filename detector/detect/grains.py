"""Grains that have grown together: a mark with several peaks that stand out from one another is cut into as many."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.detect.levels import peak_pixels
from detector.records import BoolImage, Box, Detail, Marks, Seeds

GRAIN_SIGMA, APART_MM = 6.0, 0.4
"""Response of peaks that may be grains of one mark, twice that of what is looked at at all, and the distance that two
of them must have: the diameter of common grains."""

DEPTH_SHARE, DEPTH_SIGMA = 0.2, 4.0
"""Depth of the saddle towards every brighter grain, by a grain's own height and in noise units of a pixel. A choice:
blur fills the gap between grains that touch, noise on one of even height makes no such gap."""

MOST_SOLID = 0.85
"""Area by that of the convex hull from which a mark is one object, however uneven: round things, rims and popcorn."""

REACH_MM = 6.0
"""How far around its peaks a mark is looked at; a larger one is no heap of grains."""

LEAST_GRAIN_MM = 0.2
"""Diameter of the smallest grain that is told from its neighbours."""

Labels = NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Hills:
    """A box of the finest level: which of it a mark is, and the grey levels."""

    box: Box
    inside: BoolImage
    grey: Floats


@dataclass(frozen=True)
class _Heap:
    """A mark of several grains: its label, their seeds, their pixels, and the grain that each belongs to."""

    label: int
    seeds: Seeds
    pixel: NDArray[np.int64]
    grain: NDArray[np.int64]


def part_grains(marks: Marks, peaks: Seeds, detail: Detail, image: Labels) -> Marks:
    """Return the marks, those that are heaps of grains cut into these: in a group each of them counts.

    A peak within a mark that is not solid is a grain of its own if the mark falls apart between it and every brighter
    one well below both. Pixels go to the grain on whose hill they lie (Beucher and Lantuejoul 1979: watersheds) and
    belong to it where they are over half of its height.

    Parameters
    ----------
    marks : Marks
    peaks : Seeds
        With their tops.
    detail : Detail
    image : ndarray of unsigned integers
        The label image of the marks, on which the grains are painted.

    Returns
    -------
    Marks
        Rows ordered by row, then column.
    """
    peaks = peaks[peaks.response_sigma >= GRAIN_SIGMA]
    owner = image.ravel().take(peak_pixels(peaks, detail)).astype(np.int64)
    asked = np.flatnonzero(_may_be_heap(peaks, owner, len(marks.seeds), detail.pixel_mm)[owner])
    if not len(asked):
        return marks
    peaks, owner, noise = _over_marks(peaks[asked], marks.seeds, owner[asked] - 1, detail)
    heaps = []
    for mark in np.unique(owner).tolist():
        own = np.flatnonzero(owner == mark)
        heap = _heap(mark + 1, peaks[own], float(noise[own[0]]), detail, image)
        heaps += [heap] if heap else []
    return _with_heaps(marks, heaps, image) if heaps else marks


def _over_marks(
    peaks: Seeds, marks: Seeds, owner: NDArray[np.int64], detail: Detail
) -> tuple[Seeds, NDArray[np.int64], Floats]:
    """Return the peaks with height, outline and tilt over what surrounds their marks, and the noise there."""
    base = marks.level_at(owner, peaks.row_px, peaks.col_px) - 0.5 * marks.height[owner]
    peaks = peaks.replace(
        height=peaks.top - base,
        threshold=0.5 * (peaks.top + base),
        tilt_row=marks.tilt_row[owner],
        tilt_col=marks.tilt_col[owner],
        edge=np.full(len(peaks), np.nan),
    )
    return peaks, owner, detail.noise_at(marks.row_px[owner], marks.col_px[owner])


def _may_be_heap(peaks: Seeds, owner: NDArray[np.int64], n_marks: int, pixel_mm: float) -> BoolImage:
    """Return which labels have two peaks apart, shape (n_marks + 1,); what is no mark has none."""
    spread = np.zeros(n_marks + 1)
    for place in (peaks.row_px, peaks.col_px):
        low, high = np.full(n_marks + 1, np.inf), np.full(n_marks + 1, -np.inf)
        np.minimum.at(low, owner, place)
        np.maximum.at(high, owner, place)
        spread = np.maximum(spread, high - low)
    spread[0] = 0
    return np.asarray(spread * pixel_mm >= APART_MM, np.bool_)


def _heap(label: int, peaks: Seeds, noise: float, detail: Detail, image: Labels) -> _Heap | None:
    """Return a mark as a heap of grains, or None where it is one object."""
    grey = detail.levels[0].image
    row, col = np.divmod(peak_pixels(peaks, detail), grey.shape[1])
    reach = math.ceil(REACH_MM / detail.pixel_mm)
    spans = ((max(int(place.min()) - reach, 0), int(place.max()) + reach + 1) for place in (row, col))
    (top, bottom), (left, right) = ((start, min(stop, n)) for (start, stop), n in zip(spans, grey.shape, strict=True))
    box = Box(top, bottom, left, right)
    inside = image[box.slices] == label
    if inside[[0, -1]].any() or inside[:, [0, -1]].any():
        return None
    # no more than the mark itself, and one pixel around it
    rows, cols = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    inside = inside[rows[0] - 1 : rows[-1] + 2, cols[0] - 1 : cols[-1] + 2]
    box = Box(top + int(rows[0]) - 1, top + int(rows[-1]) + 2, left + int(cols[0]) - 1, left + int(cols[-1]) + 2)
    if _is_solid(inside):
        return None
    places = np.stack([row - box.row_start, col - box.col_start], axis=1)
    hills = _Hills(box, inside, grey[box.slices].astype(np.float64))
    grains = _apart(hills, places, peaks, noise)
    return _divided(label, peaks[grains], places[grains], hills, detail) if len(grains) > 1 else None


def _is_solid(inside: BoolImage) -> bool:
    """Return whether the outline of a mark, holes filled, is nearly its convex hull."""
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len)
    return bool(cv2.contourArea(outline) >= MOST_SOLID * cv2.contourArea(cv2.convexHull(outline)))


def _apart(hills: _Hills, places: NDArray[np.int64], peaks: Seeds, noise: float) -> NDArray[np.intp]:
    """Return which peaks stand out from one another, the brightest first."""
    grains: list[int] = []
    for one in np.argsort(-peaks.top, kind="stable").tolist():
        depth = max(DEPTH_SHARE * peaks.height[one], DEPTH_SIGMA * noise)
        if peaks.height[one] <= depth:
            continue
        over = hills.inside & (hills.grey > peaks.top[one] - depth)
        over[tuple(places[one])] = True
        part = np.asarray(cv2.connectedComponents(over.view(np.uint8), connectivity=8)[1])
        if all(part[tuple(places[other])] != part[tuple(places[one])] for other in grains):
            grains.append(one)
    return np.array(grains, np.intp)


def _divided(label: int, grains: Seeds, places: NDArray[np.int64], hills: _Hills, detail: Detail) -> _Heap | None:
    """Return the heap with its pixels given to the grains; None if fewer than two are large enough."""
    from skimage.segmentation import watershed

    box, width = hills.box, detail.levels[0].image.shape[1]
    markers = np.zeros(hills.inside.shape, np.int32)
    markers[tuple(places.T)] = np.arange(1, len(grains) + 1)
    part = np.asarray(watershed(-hills.grey, markers, mask=hills.inside), np.int32)  # type: ignore[no-untyped-call]
    pixels, owners = [], []
    rows = np.arange(box.row_start, box.row_stop)[:, None] + detail.box.row_start
    cols = np.arange(box.col_start, box.col_stop) + detail.box.col_start
    least = math.pi / 4 * (LEAST_GRAIN_MM / detail.pixel_mm) ** 2
    kept: list[int] = []
    for grain in range(len(grains)):
        over = (part == grain + 1) & (hills.grey > grains.level_at(np.array([grain]), rows, cols))
        over[tuple(places[grain])] = True
        number = np.asarray(cv2.connectedComponents(over.view(np.uint8), connectivity=8)[1])
        row, col = np.nonzero(number == number[tuple(places[grain])])
        if len(row) < least:
            continue
        pixels.append((row + box.row_start) * width + col + box.col_start)
        owners.append(np.full(len(row), len(kept)))
        kept.append(grain)
    if len(kept) < 2:
        return None
    return _Heap(label, grains[np.array(kept)], np.concatenate(pixels), np.concatenate(owners))


def _with_heaps(marks: Marks, heaps: list[_Heap], image: Labels) -> Marks:
    """Return the marks with grains in place of heaps, painted anew."""
    n, flat = len(marks.seeds), image.ravel()
    whole = np.ones(n, np.bool_)
    whole[[heap.label - 1 for heap in heaps]] = False
    seeds = Seeds.concatenate([marks.seeds[whole], *(heap.seeds for heap in heaps)])
    order = np.lexsort((seeds.col_px, seeds.row_px))
    number = np.empty(len(order), image.dtype)
    number[order] = np.arange(1, len(order) + 1)
    label = np.zeros(n + 1, image.dtype)
    label[1:][whole] = number[: np.count_nonzero(whole)]
    flat[marks.pixels] = label[flat[marks.pixels]]
    first = np.count_nonzero(whole)
    for heap in heaps:
        flat[heap.pixel] = number[first + heap.grain]
        first += len(heap.seeds)
    return Marks(image, marks.pixels[flat[marks.pixels] > 0], seeds[order], marks.box)
