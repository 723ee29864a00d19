"""Where candidates overlap: which of them stay, and whose each pixel is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from detector.detect.borders import outline_steps
from detector.detect.levels import peak_pixels
from detector.detect.regions import Regions
from detector.records import BoolImage, Detail, Marks, Seeds, ranges

LARGE_SCALE_MM, LARGE_EDGE_SHARE = 0.25, 0.6
"""Scale and step across the border, as a share of height, from which a spot may hold a brighter one."""

STRONG_SIGMA = 5.0
"""Response from which a long outline makes a candidate stronger: what is fainter is no rim or rod, but may be a group
of specks seen as one."""

DISC_STEP = 1.3
"""Height of a disc by the step across its outline with the blur of common systems; what is higher than that over its
outline has a grain of noise on top or is no object of one height."""

LEAST_LEFT = 0.5
"""Share of its pixels that a candidate must keep beside stronger ones."""

Ranks = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class _Rivals:
    """All pairs of a region and one whose peak it holds, it may be its own, as rows of the regions.

    `rank` and `is_whole` are of all regions; the latter may hold stronger ones.
    """

    holder: NDArray[np.int32]
    held: NDArray[np.intp]
    rank: Ranks
    is_whole: BoolImage

    def against(self) -> _Rivals:
        """Return the pairs in which the held one, where it stays, stands against the one that holds it."""
        pairs = (self.rank[self.held] > self.rank[self.holder]) & ~self.is_whole[self.holder]
        return replace(self, holder=self.holder[pairs], held=self.held[pairs])

    def highest_over(self, chosen: BoolImage) -> Ranks:
        """Return the highest rank of the chosen regions that hold each region's peak, 0 where there are none."""
        pairs, highest = np.flatnonzero(chosen[self.holder]), np.zeros_like(self.rank)
        np.maximum.at(highest, self.held[pairs], self.rank[self.holder[pairs]])
        return highest

    def that_hold(self, chosen: BoolImage) -> BoolImage:
        """Return which regions hold the peak of a chosen one."""
        return np.asarray(np.bincount(self.holder[chosen[self.held]], minlength=len(self.rank)) > 0, np.bool_)


def resolve_overlaps(regions: Regions, detail: Detail, image: Ranks) -> Regions:
    """Return the regions that stay where several overlap, without the pixels that a stronger one takes.

    Of what has little left only a hem would be seen beside the stronger one: it goes, and what it has displaced is
    asked again, with those that this touches.

    Parameters
    ----------
    regions : Regions
    detail : Detail
    image : ndarray of uint16 or uint32, shape of the finest level
        All 0, and left so. It holds numbers up to that of the regions.

    Returns
    -------
    Regions
        No pixel belongs to two; some may have fallen apart.
    """
    n, canvas = len(regions.seeds), image.ravel()
    if not n:
        return regions
    rank = _rank(detail, regions).astype(image.dtype)
    rivals = _rivals(regions, peak_pixels(regions.seeds, detail), rank, canvas)
    kept, asked = np.zeros(n, np.bool_), np.ones(n, np.bool_)
    while asked.any():
        stays = _strongest(asked, rivals)
        pixels, owned = _owned(regions, stays, rank, canvas)
        n_own, n_owned = (np.bincount(regions.owner[some], minlength=n) for some in (pixels, pixels[owned]))
        hem = stays & (n_owned < LEAST_LEFT * n_own)
        kept = (kept & ~asked) | (stays & ~hem)
        if not hem.any():
            break
        displaced = asked & ~stays & (np.isin(rivals.highest_over(stays), rank[hem]) | rivals.that_hold(hem))
        asked = displaced | _touching(regions, kept, displaced, canvas)
    pixels, owned = _owned(regions, kept, rank, canvas)
    own = pixels[owned]
    return Regions(regions.seeds, regions.owner[own], regions.pixel[own]).only(kept)


def as_marks(regions: Regions, detail: Detail, image: Ranks) -> Marks:
    """Return the regions as marks, of those that have fallen apart the part with the peak.

    Parameters
    ----------
    regions : Regions
        No pixel belongs to two.
    detail : Detail
    image : ndarray of uint16 or uint32, shape of the finest level
        All 0; the label image is painted on it.

    Returns
    -------
    Marks
        Rows ordered by row, then column.
    """
    order, label_of_row = numbered(regions.seeds, image.dtype)
    seeds = regions.seeds[order]
    by_pixel = np.argsort(regions.pixel, kind="stable")
    pixel, label = regions.pixel[by_pixel], label_of_row[regions.owner[by_pixel]]
    part = _parts(pixel, label, seeds, detail)
    whole = part == part[np.searchsorted(pixel, peak_pixels(seeds, detail))][label - 1]
    pixel, label = pixel[whole], label[whole]
    image.ravel()[pixel] = label
    return Marks(image, pixel, seeds, detail.box)


def numbered(seeds: Seeds, dtype: DTypeLike) -> tuple[NDArray[np.intp], Ranks]:
    """Return the order of seeds by row, then column, and the label of each, from 1 in that order."""
    order = np.lexsort((seeds.col_px, seeds.row_px))
    label = np.empty(len(order), dtype)
    label[order] = np.arange(1, len(order) + 1)
    return order, label


def _owned(regions: Regions, chosen: BoolImage, rank: Ranks, canvas: Ranks) -> tuple[NDArray[np.intp], BoolImage]:
    """Return the rows of the chosen regions' pixels, and which of these no stronger one of them has.

    The canvas is empty, and left so.
    """
    rows = np.flatnonzero(chosen[regions.owner])
    pixel, own = regions.pixel[rows], rank[regions.owner[rows]]
    np.maximum.at(canvas, pixel, own)
    owned = canvas[pixel] == own
    canvas[pixel] = 0
    return rows, np.asarray(owned, np.bool_)


def _touching(regions: Regions, chosen: BoolImage, others: BoolImage, canvas: Ranks) -> BoolImage:
    """Return which of the chosen regions share a pixel with one of some others. The canvas is empty, and left so."""
    pixel = regions.pixel[others[regions.owner]]
    canvas[pixel] = 1
    rows = np.flatnonzero(chosen[regions.owner])
    touching = regions.owner[rows[np.flatnonzero(canvas[regions.pixel[rows]])]]
    canvas[pixel] = 0
    return np.asarray(np.bincount(touching, minlength=len(chosen)) > 0, np.bool_)


def _strength(detail: Detail, regions: Regions) -> NDArray[np.float64]:
    """Return height times significance of each candidate; the significance is that of the response or of the border.

    Independent places on the border grow in number with its length, so that of a rim and an arc of it, of a rod and
    its brightest part, the whole is stronger.
    """
    seeds, finest_mm = regions.seeds, detail.bands[0].scale_mm
    border = np.nan_to_num(seeds.edge / seeds.noise * np.sqrt(seeds.scale_mm / finest_mm))
    area_mm2 = np.bincount(regions.owner, minlength=len(seeds)) * detail.pixel_mm**2
    is_strong = seeds.response_sigma >= STRONG_SIGMA
    asked = (is_strong | (seeds.scale_mm >= LARGE_SCALE_MM)) & (area_mm2 >= 2 * np.pi * LARGE_SCALE_MM**2)
    chosen = np.flatnonzero(asked[regions.owner])
    step, length_px = outline_steps(detail, seeds, regions.owner[chosen], regions.pixel[chosen])
    # in lengths of the outline of the smallest disc
    n_places = length_px * detail.pixel_mm / (2 * np.pi * math.sqrt(2) * finest_mm)
    border = np.maximum(border, is_strong * step / seeds.noise * np.sqrt(n_places))
    height = np.where(length_px > 0, np.minimum(seeds.height, DISC_STEP * step), seeds.height)
    return np.asarray(height * np.maximum(seeds.response_sigma, border), np.float64)


def _rank(detail: Detail, regions: Regions) -> NDArray[np.int32]:
    """Return n for the strongest, 1 for the weakest seed; ties go to the upper, then the left one."""
    seeds = regions.seeds
    order = np.lexsort((seeds.col_px, seeds.row_px, -_strength(detail, regions)))
    rank = np.empty(len(seeds), np.int32)
    rank[order] = np.arange(len(seeds), 0, -1)
    return rank


def _rivals(regions: Regions, centre: NDArray[np.int64], rank: Ranks, canvas: Ranks) -> _Rivals:
    """Return all pairs of a region and one whose peak it holds. The canvas is empty, and left so."""
    canvas[centre] = 1
    found = np.flatnonzero(canvas[regions.pixel])
    canvas[centre] = 0
    # a place may be the peak of several seeds
    by_place = np.argsort(centre, kind="stable")
    first, last = (np.searchsorted(centre[by_place], regions.pixel[found], side=side) for side in ("left", "right"))
    seeds = regions.seeds
    return _Rivals(
        holder=np.repeat(regions.owner[found], last - first),
        held=by_place[ranges(first, last - first)],
        rank=rank,
        # a large spot with a sharp border is one in spite of a grain of dust on it; a cluster seen as one blob has none
        is_whole=(seeds.scale_mm >= LARGE_SCALE_MM) & (seeds.edge >= LARGE_EDGE_SHARE * seeds.height),
    )


def _strongest(asked: BoolImage, rivals: _Rivals) -> BoolImage:
    """Return which of the regions that are asked stay, decided from the strongest to the weakest.

    One goes if a stronger one that stays holds its peak or has its peak in it; round by round those are decided that no
    undecided one stands against.
    """
    rank, against = rivals.rank, rivals.against()
    kept, waiting = np.zeros_like(asked), asked.copy()
    while waiting.any():
        top = rivals.highest_over(kept | waiting)
        stays = waiting & (top == rank) & ~against.that_hold(kept | waiting)
        kept |= stays
        # what does not hold its own peak is none
        waiting &= (top >= rank) & ~stays & ~against.that_hold(kept) & (rivals.highest_over(kept) < rank)
    return kept


def _parts(pixel: NDArray[np.int32], label: Ranks, seeds: Seeds, detail: Detail) -> NDArray[np.int32]:
    """Return the number of the connected part of its label that each pixel belongs to.

    Runs of a row are joined to those of the next. Those that touch at a corner only are joined where the grey level
    there, the mean of the four pixels around, is over the outline's too (Nielson and Hamann 1991, doi
    10.1109/VISUAL.1991.175782): so the forms of coarse pixels hang together as those of fine ones do. Without this last
    condition the slow equivalent is `scipy.ndimage.label`, label by label.

    Parameters
    ----------
    pixel : ndarray of int32, shape (n,)
        Flat indices into the finest level, rising; none lies on its border.
    label : ndarray of unsigned integers, shape (n,)
        Row of `seeds` that each belongs to, from 1.
    seeds : Seeds
    detail : Detail
    """
    if not len(pixel):
        return np.empty(0, np.int32)
    width = detail.levels[0].image.shape[1]
    new_run = (np.diff(pixel, prepend=-2) != 1) | (np.diff(label, prepend=0) != 0)
    start = np.flatnonzero(new_run)
    first, last, n = pixel[start], pixel[np.append(start[1:], len(pixel)) - 1], len(start)
    low = np.searchsorted(last, first + (width - 1))
    count = np.maximum(np.searchsorted(first, last + (width + 1), side="right") - low, 0)
    upper = np.repeat(np.arange(n), count)
    lower = ranges(low, count)
    same = label[start[upper]] == label[start[lower]]
    upper, lower = upper[same], lower[same]
    to_right, to_left = first[lower] > last[upper] + width, last[lower] < first[upper] + width
    # the upper left pixel of the four around a corner
    corner = np.where(to_right, last[upper], first[upper] - 1)
    touches = to_right | to_left
    joined = ~touches
    joined[touches] = _is_bright(corner[touches], label[start[upper[touches]]] - 1, seeds, detail)
    graph = coo_array((np.ones(np.count_nonzero(joined), np.int8), (upper[joined], lower[joined])), shape=(n, n))
    run = np.cumsum(new_run) - 1
    return np.asarray(connected_components(graph, directed=False)[1][run], np.int32)


def _is_bright(corner: NDArray[np.int32], spot: Ranks, seeds: Seeds, detail: Detail) -> BoolImage:
    """Return whether the mean of four pixels, of which `corner` is the upper left, is over the outline's level."""
    image = detail.levels[0].image
    grey, width = image.ravel(), image.shape[1]
    mean = 0.25 * sum(grey[corner + step].astype(np.float64) for step in (0, 1, width, width + 1))
    row, col = np.divmod(corner, width)
    level = seeds.level_at(spot, row + (detail.box.row_start + 0.5), col + (detail.box.col_start + 0.5))
    return np.asarray(mean > level, np.bool_)
