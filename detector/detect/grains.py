"""Grains that have grown together: a mark with several peaks that stand out from one another is cut into as many."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.detect.levels import peak_pixels
from detector.detect.overlaps import Ranks
from detector.detect.regions import Regions
from detector.records import BoolImage, Box, Detail, Seeds, divided

GRAIN_SIGMA, APART_MM = 6.0, 0.4
"""Response of peaks that may be grains of one mark, twice that of what is looked at at all, and the distance that two
of them must have: the diameter of common grains."""

DEPTH_SHARE, DEPTH_SIGMA = 0.2, 4.0
"""Depth of the saddle towards every brighter grain, by a grain's own height and in noise units of a pixel. A choice:
blur fills the gap between grains that touch, noise on one of even height makes no such gap."""

MOST_SOLID = 0.85
"""Area by that of the convex hull from which a mark is one object, however uneven: round things, rims and popcorn."""

N_SIGHT, LEAST_SIGHT = 17, 0.5
"""Places on the line from grain to grain, and the share of them that must lie in the mark: grains touch, but on the
broken wall of a rim the line to what lies across runs through its lucent centre."""

REACH_MM = 6.0
"""How far around its peaks a mark is looked at; a larger one is no heap of grains."""

LEAST_GRAIN_MM = 0.2
"""Diameter of the smallest grain that is told from its neighbours."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Peaks:
    """Peaks as seeds of grains, their places (row, col) on the finest level, and how deep their saddles must be."""

    seeds: Seeds
    place: NDArray[np.int64]
    depth: Floats

    def __getitem__(self, rows: NDArray[np.intp]) -> _Peaks:
        return _Peaks(self.seeds[rows], self.place[rows], self.depth[rows])


@dataclass(frozen=True)
class _Hills:
    """A box of the finest level: which of it a mark is, and the grey levels."""

    box: Box
    inside: BoolImage
    grey: Floats

    def at(self, peaks: _Peaks) -> list[tuple[int, int]]:
        """Return the peaks' places in the box."""
        return [(row - self.box.row_start, col - self.box.col_start) for row, col in peaks.place.tolist()]


def part_grains(regions: Regions, peaks: Seeds, detail: Detail, image: Ranks) -> Regions:
    """Return the regions, those that are heaps of grains cut into these: in a group each of them counts.

    A peak within a region that is not solid is a grain of its own if the region falls apart between it and every
    brighter one well below both; grains that see no other in the region are pieces of a wall. Pixels go to the grain on
    whose hill they lie (Beucher and Lantuejoul 1979: watersheds) and belong to it where they are over half of its
    height.

    Parameters
    ----------
    regions : Regions
        No pixel belongs to two.
    peaks : Seeds
        With their tops.
    detail : Detail
    image : ndarray of unsigned integers, shape of the finest level
        All 0, and left so. It holds numbers up to that of the regions.

    Returns
    -------
    Regions
        Those that are no heaps, then the grains.
    """
    peaks = peaks[peaks.response_sigma >= GRAIN_SIGMA]
    pixel, canvas = peak_pixels(peaks, detail), image.ravel()
    canvas[regions.pixel] = regions.owner + 1
    owner = canvas.take(pixel).astype(np.int64) - 1
    canvas[regions.pixel] = 0
    may_be_heap = _may_be_heap(peaks, owner, len(regions.seeds), detail.pixel_mm)
    asked, rows = regions.only(may_be_heap[:-1]), np.flatnonzero(may_be_heap[owner])
    number, place = (np.cumsum(may_be_heap) - 1)[owner[rows]], np.stack(np.divmod(pixel[rows], image.shape[1]), axis=1)
    over = _over_regions(peaks[rows], place, asked.seeds, number)
    own = ((asked.pixel[asked.owner == one], over[np.flatnonzero(number == one)]) for one in range(len(asked.seeds)))
    heaps = [_heap(own_pixel, own_peaks, detail) for own_pixel, own_peaks in own]
    stays = np.ones(len(regions.seeds), np.bool_)
    stays[np.flatnonzero(may_be_heap)] = [heap is None for heap in heaps]
    return Regions.concatenate([regions.only(stays), *(heap for heap in heaps if heap)])


def _over_regions(peaks: Seeds, place: NDArray[np.int64], wholes: Seeds, owner: NDArray[np.int64]) -> _Peaks:
    """Return the peaks as grains over what surrounds the regions that they lie in."""
    base = wholes.level_at(owner, peaks.row_px, peaks.col_px) - 0.5 * wholes.height[owner]
    seeds = peaks.replace(
        height=peaks.top - base,
        threshold=0.5 * (peaks.top + base),
        tilt_row=wholes.tilt_row[owner],
        tilt_col=wholes.tilt_col[owner],
        edge=np.full(len(peaks), np.nan),
    )
    return _Peaks(seeds, place, np.maximum(DEPTH_SHARE * seeds.height, DEPTH_SIGMA * wholes.noise[owner]))


def _may_be_heap(peaks: Seeds, owner: NDArray[np.int64], n: int, pixel_mm: float) -> BoolImage:
    """Return which of `n` regions have two peaks apart, and behind them that -1, which is none, has not."""
    spread = np.zeros(n + 1)
    for place in (peaks.row_px, peaks.col_px):
        low, high = np.full(n + 1, np.inf), np.full(n + 1, -np.inf)
        np.minimum.at(low, owner, place)
        np.maximum.at(high, owner, place)
        spread = np.maximum(spread, high - low)
    spread[-1] = 0
    return np.asarray(spread * pixel_mm >= APART_MM, np.bool_)


def _heap(pixel: NDArray[np.int32], peaks: _Peaks, detail: Detail) -> Regions | None:
    """Return the pixels of a region as a heap of grains, or None where it is one object."""
    image, reach = detail.levels[0].image, math.ceil(REACH_MM / detail.pixel_mm)
    place = np.stack(divided(pixel, image.shape[1]), axis=1)
    low, high = place.min(axis=0), place.max(axis=0)
    if (low <= peaks.place.min(axis=0) - reach).any() or (high >= peaks.place.max(axis=0) + reach).any():
        return None
    # no more than the region itself, and one pixel around it
    (top, left), (bottom, right) = (low - 1).tolist(), (high + 2).tolist()
    box = Box(top, bottom, left, right)
    inside = np.zeros(box.shape, np.bool_)
    inside[tuple((place - [top, left]).T)] = True
    if is_solid(inside, MOST_SOLID):
        return None
    hills = _Hills(box, inside, image[box.slices].astype(np.float64))
    grains = peaks[_apart(hills, peaks)]
    return _divided(grains, hills, detail) if len(grains.seeds) > 1 and _in_sight(hills, grains) else None


def is_solid(inside: BoolImage, least: float) -> bool:
    """Return whether the outline of a mark, holes filled, is at least a share of its convex hull."""
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len)
    return bool(cv2.contourArea(outline) >= least * cv2.contourArea(cv2.convexHull(outline)))


def _apart(hills: _Hills, peaks: _Peaks) -> NDArray[np.intp]:
    """Return which peaks stand out from one another, the brightest first."""
    places, seeds, grains = hills.at(peaks), peaks.seeds, list[int]()
    for one in np.argsort(-seeds.top, kind="stable").tolist():
        if seeds.height[one] <= peaks.depth[one]:
            continue
        hill = part_at(hills.inside & (hills.grey > seeds.top[one] - peaks.depth[one]), places[one])
        if not any(hill[places[other]] for other in grains):
            grains.append(one)
    return np.array(grains, np.intp)


def part_at(over: BoolImage, place: tuple[int, int]) -> BoolImage:
    """Return the 8-connected part that a place lies in; the place belongs to it in any case."""
    over[place] = True
    number = np.asarray(cv2.connectedComponents(over.view(np.uint8), connectivity=8)[1])
    return np.asarray(number == number[place], np.bool_)


def _in_sight(hills: _Hills, grains: _Peaks) -> bool:
    """Return whether a straight line through the mark leads from each grain to another; along a wall none does."""
    place = np.array(hills.at(grains), np.float64)
    share = np.linspace(0, 1, N_SIGHT)[:, None, None]
    row, col = (np.rint(along[:, None] + share * (along - along[:, None])).astype(np.intp) for along in place.T)
    inside = hills.inside[row, col].mean(axis=0)
    np.fill_diagonal(inside, 0.0)
    return bool((inside.max(axis=0) >= LEAST_SIGHT).all())


def _divided(grains: _Peaks, hills: _Hills, detail: Detail) -> Regions | None:
    """Return the heap with its pixels given to the grains; None if fewer than two are large enough."""
    from skimage.segmentation import watershed

    box, places, width = hills.box, hills.at(grains), detail.levels[0].image.shape[1]
    markers = np.zeros(hills.inside.shape, np.int32)
    markers[tuple(np.transpose(places))] = np.arange(1, len(places) + 1)
    part = np.asarray(watershed(-hills.grey, markers, mask=hills.inside), np.int32)  # type: ignore[no-untyped-call]
    rows = np.arange(box.row_start, box.row_stop)[:, None] + detail.box.row_start
    cols = np.arange(box.col_start, box.col_stop) + detail.box.col_start
    least = math.pi / 4 * (LEAST_GRAIN_MM / detail.pixel_mm) ** 2
    kept, pixels = list[int](), list[NDArray[np.int64]]()
    for grain, place in enumerate(places):
        over = (part == grain + 1) & (hills.grey > grains.seeds.level_at(np.array([grain]), rows, cols))
        row, col = np.nonzero(part_at(over, place))
        if len(row) >= least:
            kept.append(grain)
            pixels.append((row + box.row_start) * width + col + box.col_start)
    if len(kept) < 2:
        return None
    owner = np.repeat(np.arange(len(kept), dtype=np.int32), [len(own) for own in pixels])
    return Regions(grains.seeds[np.array(kept)], owner, np.concatenate(pixels).astype(np.int32))
