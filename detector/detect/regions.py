"""The pixels over half height around each candidate, all candidates at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.detect.borders import edge_steps
from detector.detect.levels import FINEST_CELL_MM, border_px, by_level, line_sigma
from detector.detect.windows import Grown, grow
from detector.records import BoolImage, Detail, Level, Seeds, divided
from detector.settings import DetectSettings

REACH, FAR_REACH, FARTHEST_REACH = 9, 16, 36
"""Half sides of the search window in cells: most spots (the outer ring of the largest scale of a level, two cells, just
fits); what runs over its border is followed on the next coarser level, and there, if need be, 7 mm and more."""

CLEAR_SIGMA = 6.0
"""Step across the border, in noise units, that coarse candidates of faint response and domes must have: twice that of
others."""

DOMED_SCALE_MM = 0.8
"""Scale over which a macrocalcification may end lower than it is high, as a dome does: the share of the height that is
asked for falls as the root of the scale, that of a lump of tissue with the scale itself."""

FAR_CELL_MM, FAR_SIGMA = 0.29, 5.0
"""Coarsest cells and least response with which what runs over the first window is followed; on cells coarser than half
of that a higher one. What else does so is left out: half the height of a faint blob is no more than the texture that it
runs into, and no macrocalcification is so large for its scale."""

FULL_CELL, OPEN_SHARE = 0.9, 0.4
"""Share of a cell's pixels over the threshold from which it is full, and the share of full ones among the cells around
a region over which it is open. A choice: noise alone fills few cells beyond a border; where there is none, most are."""

LEAST_AREA = 0.15
"""Area, by that of the disc that a band answers to best, under which a candidate of coarse cells is not what the band
saw, but something small beside others that finer bands see: two steps from band to band."""

LINE_SIGMA = 2.4
"""Least mean response along a line: noise at places 0.17 mm apart, which are nearly independent, has a standard
deviation of 1 / sqrt(7) or 0.4 in one direction, and the best of twelve must still stand clear of it. No higher than
that: the walls of vessels would come in too few pieces to be told."""

Integers = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Regions:
    """Candidates and their pixels: `pixel` is a flat index into the finest level, `owner` the row of `seeds`.

    The outermost pixels of the level belong to none, so that every pixel has four neighbours.
    """

    seeds: Seeds
    owner: Integers
    pixel: Integers

    @classmethod
    def concatenate(cls, parts: list[Regions]) -> Regions:
        """Return several sets of regions as one."""
        if not parts:
            return cls(Seeds.empty(), np.empty(0, np.int32), np.empty(0, np.int32))
        starts = np.cumsum([0] + [len(p.seeds) for p in parts]).astype(np.int32)
        return cls(
            Seeds.concatenate([p.seeds for p in parts]),
            np.concatenate([p.owner + start for p, start in zip(parts, starts[:-1], strict=True)]),
            np.concatenate([p.pixel for p in parts]),
        )

    def only(self, chosen: BoolImage) -> Regions:
        """Return the regions of the chosen seeds; where these are all, nothing is copied."""
        if chosen.all():
            return self
        row = np.cumsum(chosen, dtype=np.int32) - 1
        pixels = np.flatnonzero(chosen[self.owner])
        return Regions(self.seeds[chosen], row[self.owner[pixels]], self.pixel[pixels])


def grow_regions(detail: Detail, seeds: Seeds, settings: DetectSettings) -> Regions:
    """Return the pixels over half height that hang together with each seed's peak.

    Parameters
    ----------
    detail : Detail
    seeds : Seeds
        With their tops and noise.
    settings : DetectSettings

    Returns
    -------
    Regions
        Seeds level after level, with height, threshold, tilt and cut filled, of coarse ones also edge; without those
        that leave their window, and without coarse ones that fade.
    """
    grown: list[Grown] = []
    for index, level, rows in by_level(detail, seeds.level):
        near = grow(detail, level, seeds[rows], REACH)
        grown.append(near.only(~near.seeds.cut))
        far = _is_followed(detail, level, near.seeds)
        if far.any() and index + 1 < len(detail.levels):
            grown += _followed(detail, index, near.seeds[far])
    # together, since each step has its price however few seeds there are
    of_level = itertools.groupby(_sharp(detail, grown, settings), key=lambda one: one.level.step_px)
    return Regions.concatenate([_on_pixels(detail, list(parts)) for _, parts in of_level])


def _followed(detail: Detail, index: int, seeds: Seeds) -> Iterator[Grown]:
    """Yield the seeds of a level that run over their window there, grown on the next coarser level."""
    level, coarser = detail.levels[index : index + 2]
    followed = grow(detail, coarser, seeds, FAR_REACH)
    cut = followed.seeds.cut
    strong = cut & (seeds.response_sigma >= FAR_SIGMA)
    # the outline's level stays that of the finer level, where a thin line keeps its height
    seeds = seeds.replace(cut=cut)
    farther = np.flatnonzero(strong)
    if len(farther):
        again = grow(detail, coarser, seeds[farther], FARTHEST_REACH)
        whole = np.flatnonzero(~again.seeds.cut)
        yield again.only(whole).with_seeds(seeds[farther[whole]].replace(cut=np.zeros(len(whole), np.bool_)))
        strong[farther[whole]] = False
    # a long fine line is kept as far as it was seen first; what is wide and endless is a strand
    yield followed.with_seeds(seeds).only(~cut | (strong & _is_fine(detail, level)))


def _is_fine(detail: Detail, level: Level) -> bool:
    return level.step_px * detail.pixel_mm <= FINEST_CELL_MM


def _is_followed(detail: Detail, level: Level, seeds: Seeds) -> BoolImage:
    """Return which of the seeds that run over their window are followed: strong ones and thin lines."""
    cell_mm = level.step_px * detail.pixel_mm
    if cell_mm > FAR_CELL_MM:
        return np.zeros(len(seeds), np.bool_)
    followed = seeds.response_sigma >= FAR_SIGMA * np.sqrt(max(1.0, 2 * cell_mm / FAR_CELL_MM))
    if _is_fine(detail, level):
        faint = np.flatnonzero(seeds.cut & ~followed)
        followed[faint] = line_sigma(detail, seeds[faint]) >= LINE_SIGMA
    return np.asarray(followed & seeds.cut, np.bool_)


def _sharp(detail: Detail, grown: list[Grown], settings: DetectSettings) -> Iterator[Grown]:
    """Yield the seeds with their edges that are fine or end sharply: calcium ends within the system's blur."""
    seeds = Seeds.concatenate([one.seeds for one in grown])
    edge, kept = np.full(len(seeds), np.nan), seeds.height > 0
    coarse = np.flatnonzero(seeds.scale_mm >= settings.coarse_scale_mm)
    edge[coarse], fades = _edges(detail, seeds[coarse], settings)
    kept[coarse[fades]] = False
    ends = np.cumsum([len(one.seeds) for one in grown])
    for one, end in zip(grown, ends, strict=True):
        own = slice(end - len(one.seeds), end)
        yield one.with_seeds(one.seeds.replace(edge=edge[own])).only(kept[own])


def _edges(detail: Detail, seeds: Seeds, settings: DetectSettings) -> tuple[Floats, BoolImage]:
    """Return the edges of coarse seeds, and which of them fade."""
    faint = seeds.response_sigma < settings.large_threshold_sigma
    least = np.where(faint, CLEAR_SIGMA, settings.edge_sigma) * seeds.noise
    edge = np.zeros(len(seeds))
    # a step counts no more than the height: what is lower than the least step need not be looked at
    asked = np.flatnonzero(seeds.height >= least)
    edge[asked] = edge_steps(detail, seeds[asked])
    share = np.full(len(seeds), settings.edge_share)
    may_be_domed = (seeds.scale_mm > DOMED_SCALE_MM) & (edge >= CLEAR_SIGMA * seeds.noise)
    share[may_be_domed] *= np.sqrt(DOMED_SCALE_MM / seeds.scale_mm[may_be_domed])
    return edge, edge < np.maximum(share * seeds.height, least)


def _on_pixels(detail: Detail, parts: list[Grown]) -> Regions:
    """Return what was grown on one level, but what runs over the image's border, as pixels of the finest level.

    Cells of a coarse level are grown by one and spread over their pixels, of which those over the threshold stay: the
    outline is that of the finest level.
    """
    image, step = detail.levels[0].image, parts[0].level.step_px
    parts = [one.only(_is_off_border(detail, one)) for one in parts]
    seeds = Seeds.concatenate([one.seeds for one in parts])
    owner, row, col, is_added = _cells(parts, grown=step > 1)
    row, col = row * np.int32(step), col * np.int32(step)
    block = np.arange(step, dtype=np.int32)
    # what was padded is no image
    end_row, end_col = (min(n, padded - 1) for n, padded in zip(detail.box.shape, image.shape, strict=True))
    row_valid, col_valid = (
        (place > 0) & (place < end) for place, end in ((row + block[:, None], end_row), (col + block[:, None], end_col))
    )
    # row by column of a cell's block by cell: numpy takes long to go round short axes within long ones
    over = row_valid[:, None] & col_valid
    width = np.int32(image.shape[1])
    first, within = row * width + col, block[:, None] * width + block
    if step > 1:
        level_here = seeds.level_at(owner, row + detail.box.row_start, col + detail.box.col_start)
        along_rows = level_here + seeds.tilt_row[owner] * block[:, None]
        along_cols = seeds.tilt_col[owner] * block[:, None]
        over &= image.ravel().take(first + within[:, :, None]) > along_rows[:, None] + along_cols
        added = np.flatnonzero(is_added)
        n_over = np.count_nonzero(over, axis=(0, 1))
        kept = _is_closed(n_over[added] >= FULL_CELL * step * step, owner[added], len(seeds))
        area_mm2 = np.bincount(owner, n_over, len(seeds)) * detail.pixel_mm**2
        kept &= area_mm2 >= LEAST_AREA * 2 * np.pi * seeds.scale_mm**2
        over &= kept[owner]
        seeds, owner = seeds[kept], (np.cumsum(kept, dtype=np.int32) - 1)[owner]
    cell, place = divided(np.flatnonzero(over.transpose(2, 0, 1)).astype(np.int32), step * step)
    return Regions(seeds, owner[cell], first[cell] + within.ravel()[place])


def _cells(parts: list[Grown], *, grown: bool) -> tuple[Integers, Integers, Integers, BoolImage]:
    """Return the cells of all windows: owner, row and column on the level, and which were added.

    Those are the neighbours of the windows' own cells, added where `grown` is set.
    """
    columns, n = [], 0
    for one in parts:
        cells = np.flatnonzero(_grown_by_one(one.inside) if grown else one.inside).astype(np.int32)
        line, col = divided(cells, one.windows.side)
        owner, row = divided(line, one.windows.side)
        top, left = (corner.astype(np.int32)[owner] for corner in (one.windows.top, one.windows.left))
        columns.append((owner + np.int32(n), row + top, col + left, ~one.inside.ravel()[cells]))
        n += len(one.seeds)
    owner, row, col, is_added = (np.concatenate(column) for column in zip(*columns, strict=True))
    return owner, row, col, is_added


def _is_closed(full: BoolImage, owner: Integers, n: int) -> BoolImage:
    """Return which of n regions end within the cells that were added around them, given which of those are full.

    Full of pixels over the threshold, that is: where they are, the surroundings are over it, too, and the outline would
    follow the cells; its size says nothing.
    """
    n_full, n_around = (np.bincount(owner, counted, n) for counted in (full, None))
    return np.asarray(n_full <= OPEN_SHARE * n_around, np.bool_)


def _is_off_border(detail: Detail, grown: Grown) -> BoolImage:
    """Return which windows' cells keep off the border of the image.

    Of the others neither size nor form is known; the bright rim of a film is one of them.
    """
    level, windows, inside = grown.level, grown.windows, grown.inside
    away, box = border_px(detail.pixel_mm), detail.box
    off = np.ones(len(inside), np.bool_)
    sides = ((2, windows.top, box.row_start), (1, windows.left, box.col_start))
    for (axis, start, box_start), n in zip(sides, detail.image_shape, strict=True):
        low, high = box_start + start * level.step_px, box_start + (start + windows.side) * level.step_px
        reaching = np.flatnonzero((low < away) | (high > n - away))
        # few windows do, if any
        if not len(reaching):
            continue
        along = np.any(inside[reaching], axis=axis)
        before, behind = along.argmax(axis=1), along[:, ::-1].argmax(axis=1)
        off[reaching] &= low[reaching] + before * level.step_px >= away
        off[reaching] &= high[reaching] - behind * level.step_px <= n - away
    return off


def _grown_by_one(inside: BoolImage) -> BoolImage:
    """Return the windows' cells with their eight neighbours."""
    grown = inside.copy()
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    wide = grown.copy()
    wide[:, :, 1:] |= grown[:, :, :-1]
    wide[:, :, :-1] |= grown[:, :, 1:]
    return wide
