"""The pixels over half height around each candidate, all candidates at once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from detector.detect.borders import COSINE, SINE, edge_steps
from detector.records import LINE_MM, BoolImage, Detail, Level, Seeds, StepImage, sample_bilinear
from detector.settings import DetectSettings

RING_SCALES = np.array([2.6, 4.5])[:, None]
"""Radii of the rings that the surroundings are read on, in scales: two and three times the radius of the blob."""


REACH, FAR_REACH, FARTHEST_REACH = 9, 16, 36
"""Half sides of the search window in cells: most spots (the outer ring of the largest scale of a level, two cells, just
fits); what runs over its border is followed on the next coarser level, and there, if need be, 7 mm and more."""

FINEST_CELL_MM = 0.101
"""Cells up to that are fine enough for any spot: two a speck of 0.2 mm. So images of 0.05 and 0.1 mm are looked at on
the same cells, and give the same spots."""

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

BORDER_MM = 1.0
"""Distance from the border of the image within which nothing is looked for, as along a film's edge: half of the
surroundings is missing there, and films end in a bright rim."""

FEWEST_UPPER, MOST_UPPER = 2, 5
"""Cells of nine whose mean is the grey level on top of a candidate."""

FULL_CELL, OPEN_SHARE = 0.9, 0.4
"""Share of a cell's pixels over the threshold from which it is full, and the share of full ones among the cells around
a region over which it is open. A choice: noise alone fills few cells beyond a border; where there is none, most are."""

LINE_PLACES, LINE_DIRECTIONS = 7, 12
"""Places on the shortest line, and its directions, on which faint ones are tried."""

LINE_SIGMA = 2.4
"""Least mean response along a line: noise at places 0.17 mm apart, which are nearly independent, has a standard
deviation of 1 / sqrt(7) or 0.4 in one direction, and the best of twelve must still stand clear of it. Of drawn vessels
more are flagged from 2.5 on, since their walls come in fewer pieces."""

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
        """Return the regions of the chosen seeds."""
        row = np.cumsum(chosen, dtype=np.int32) - 1
        pixels = np.flatnonzero(chosen[self.owner])
        return Regions(self.seeds[chosen], row[self.owner[pixels]], self.pixel[pixels])


def border_px(detail: Detail) -> int:
    """Return how many pixels at the image's border, beyond which nothing is known, are left out."""
    return max(1, round(BORDER_MM / detail.pixel_mm))


def from_border_px(detail: Detail, row_px: Floats, col_px: Floats) -> Floats:
    """Return how far places are from the nearest border of the image, in their shape."""
    rows, cols = detail.image_shape
    return np.asarray(np.minimum.reduce([row_px, rows - 1 - row_px, col_px, cols - 1 - col_px]), np.float64)


def coarsest_levels(detail: Detail, size_mm: Floats) -> NDArray[np.int32]:
    """Return, size by size, the coarsest level of cells up to it or to `FINEST_CELL_MM`; the finest where none is."""
    cells_mm = np.array([level.step_px * detail.pixel_mm for level in detail.levels])
    choice = np.searchsorted(cells_mm, np.maximum(size_mm, FINEST_CELL_MM), side="right") - 1
    return np.maximum(choice, 0).astype(np.int32)


def coarsest_level(detail: Detail, size_mm: float) -> Level:
    """Return the level that `coarsest_levels` names for one size."""
    return detail.levels[int(coarsest_levels(detail, np.array([size_mm]))[0])]


def grow_regions(detail: Detail, seeds: Seeds, settings: DetectSettings) -> Regions:
    """Return the pixels over half height that hang together with each seed's peak.

    Parameters
    ----------
    detail : Detail
    seeds : Seeds
    settings : DetectSettings

    Returns
    -------
    Regions
        Seeds level after level, with height, threshold, tilt and cut filled, of coarse ones also edge; without those
        that leave their window, and without coarse ones that fade.
    """
    grown: list[_Grown] = []
    seeds = with_tops(detail, seeds)
    for index, level in enumerate(detail.levels):
        rows = np.flatnonzero(seeds.level == index)
        if not len(rows):
            continue
        chosen = seeds[rows]
        # what has been seen whole once is followed again, however it responds
        seen = np.isfinite(chosen.height)
        near = _grow(detail, level, chosen, REACH)
        grown.append(near.only(~near.seeds.cut))
        far = _is_followed(detail, level, near.seeds, seen)
        if far.any() and index + 1 < len(detail.levels):
            grown += _followed(detail, index, near.seeds[far])
    # together, since each step has its price however few seeds there are
    by_level = itertools.groupby(_sharp(detail, grown, settings), key=lambda one: one.level.step_px)
    return Regions.concatenate([_on_pixels(detail, list(parts)) for _, parts in by_level])


def peak_pixels(seeds: Seeds, detail: Detail) -> NDArray[np.int64]:
    """Return the flat index into the finest level of each seed's pixel."""
    rows, cols = detail.levels[0].image.shape
    row = np.clip(np.rint(seeds.row_px - detail.box.row_start).astype(np.int64), 0, rows - 1)
    col = np.clip(np.rint(seeds.col_px - detail.box.col_start).astype(np.int64), 0, cols - 1)
    return np.asarray(row * cols + col, np.int64)


def _followed(detail: Detail, index: int, seeds: Seeds) -> Iterator[_Grown]:
    """Yield the seeds of a level that run over their window there, grown on the next coarser level."""
    level, coarser = detail.levels[index : index + 2]
    followed = _grow(detail, coarser, seeds, FAR_REACH)
    cut = followed.seeds.cut
    strong = cut & (seeds.response_sigma >= FAR_SIGMA)
    # the outline's level stays that of the finer level, where a thin line keeps its height
    seeds = seeds.replace(cut=cut)
    farther = np.flatnonzero(strong)
    if len(farther):
        again = _grow(detail, coarser, seeds[farther], FARTHEST_REACH)
        whole = np.flatnonzero(~again.seeds.cut)
        yield again.only(whole).with_seeds(seeds[farther[whole]].replace(cut=np.zeros(len(whole), np.bool_)))
        strong[farther[whole]] = False
    # a long fine line is kept as far as it was seen first; what is wide and endless is a strand
    yield followed.with_seeds(seeds).only(~cut | (strong & _is_fine(detail, level)))


def _is_fine(detail: Detail, level: Level) -> bool:
    return level.step_px * detail.pixel_mm <= FINEST_CELL_MM


def _is_followed(detail: Detail, level: Level, seeds: Seeds, seen: BoolImage) -> BoolImage:
    """Return which of the seeds that run over their window are followed: strong ones, thin lines, and those `seen`."""
    cell_mm = level.step_px * detail.pixel_mm
    if cell_mm > FAR_CELL_MM:
        return np.zeros(len(seeds), np.bool_)
    followed = seen | (seeds.response_sigma >= FAR_SIGMA * np.sqrt(max(1.0, 2 * cell_mm / FAR_CELL_MM)))
    if _is_fine(detail, level):
        faint = np.flatnonzero(seeds.cut & ~followed)
        followed[faint] = line_sigma(detail, seeds[faint]) >= LINE_SIGMA
    return np.asarray(followed & seeds.cut, np.bool_)


def line_sigma(detail: Detail, seeds: Seeds) -> Floats:
    """Return the mean response of the finest band along a line through each seed, in its best direction.

    Speck after speck a thin line may stand out no more than noise does, but noise is not drawn out to `LINE_MM`.

    Parameters
    ----------
    detail : Detail
    seeds : Seeds

    Returns
    -------
    ndarray of float64, shape (n,)
        In noise units of a single place.
    """
    band = detail.bands[0]
    level = detail.levels[band.level]
    away = np.linspace(-0.5, 0.5, LINE_PLACES) * (LINE_MM / detail.pixel_mm / level.step_px)
    angle = np.arange(LINE_DIRECTIONS)[:, None] * (np.pi / LINE_DIRECTIONS)
    row, col = (
        level.to_cells(place, axis).astype(np.float32)[:, None, None] + (away * way(angle)).astype(np.float32)
        for axis, (place, way) in enumerate(((seeds.row_px, np.sin), (seeds.col_px, np.cos)))
    )
    response = sample_bilinear(band.response, row, col)
    noise = band.noise.at(detail.where(seeds.row_px, seeds.col_px))
    # a product with equal weights is a mean, several times as fast over so short an axis
    mean = response.reshape(-1, LINE_PLACES) @ np.full(LINE_PLACES, 1 / LINE_PLACES, np.float32)
    return np.asarray(mean.reshape(-1, LINE_DIRECTIONS).max(axis=1) / noise, np.float64)


def _sharp(detail: Detail, grown: list[_Grown], settings: DetectSettings) -> Iterator[_Grown]:
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
    noise = detail.noise_at(seeds.row_px, seeds.col_px)
    faint = seeds.response_sigma < settings.large_threshold_sigma
    least = np.where(faint, CLEAR_SIGMA, settings.edge_sigma) * noise
    is_new = np.isnan(seeds.edge)
    edge = np.zeros(len(seeds))
    # a step counts no more than the height: what is lower than the least step need not be looked at
    asked = np.flatnonzero((seeds.height >= least) | ~is_new)
    edge[asked] = edge_steps(detail, seeds[asked], bounded=True)
    share = np.full(len(seeds), settings.edge_share)
    may_be_domed = (seeds.scale_mm > DOMED_SCALE_MM) & (edge >= CLEAR_SIGMA * noise)
    share[may_be_domed] *= np.sqrt(DOMED_SCALE_MM / seeds.scale_mm[may_be_domed])
    # what had a sharp border at the first look is not asked again: it keeps it in the edge
    return edge, (edge < np.maximum(share * seeds.height, least)) & is_new


@dataclass(frozen=True)
class _Windows:
    """Search windows of n seeds, in cells: corners on the level, and where the seeds are, near a border not amid."""

    side: int
    top: NDArray[np.intp]
    left: NDArray[np.intp]
    row: NDArray[np.intp]
    col: NDArray[np.intp]

    @classmethod
    def around(cls, level: Level, seeds: Seeds, reach: int) -> _Windows:
        side = min(2 * reach + 1, *level.image.shape)
        row = np.rint(level.to_cells(seeds.row_px, 0)).astype(np.intp)
        col = np.rint(level.to_cells(seeds.col_px, 1)).astype(np.intp)
        top = np.clip(row - side // 2, 0, level.image.shape[0] - side)
        left = np.clip(col - side // 2, 0, level.image.shape[1] - side)
        return cls(side, top, left, row - top, col - left)

    def __getitem__(self, rows: BoolImage | NDArray[np.intp]) -> _Windows:
        return _Windows(self.side, self.top[rows], self.left[rows], self.row[rows], self.col[rows])

    def cut_from(self, image: StepImage) -> StepImage:
        """Return the windows of an image, shape (n, side, side)."""
        return np.asarray(sliding_window_view(image, (self.side, self.side))[self.top, self.left], np.int16)

    def inner(self, offset: Floats | NDArray[np.intp], place: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return places at an offset in cells, kept within the window."""
        return np.clip(np.rint(place + offset), 0, self.side - 1).astype(np.intp)


@dataclass(frozen=True)
class _Grown:
    """Seeds that were grown on one level, with what their windows say of them, and the windows' cells that are theirs.

    `inside` has shape (n, side, side).
    """

    level: Level
    seeds: Seeds
    windows: _Windows
    inside: BoolImage

    def only(self, chosen: BoolImage | NDArray[np.intp]) -> _Grown:
        """Return the chosen seeds; where these are all, it need not be copied."""
        if chosen.dtype == np.bool_ and chosen.all():
            return self
        return _Grown(self.level, self.seeds[chosen], self.windows[chosen], self.inside[chosen])

    def with_seeds(self, seeds: Seeds) -> _Grown:
        """Return the same cells as those of other seeds."""
        return dataclasses.replace(self, seeds=seeds)


def _grow(detail: Detail, level: Level, seeds: Seeds, reach: int) -> _Grown:
    """Return the seeds, each grown in a window around it.

    The height is that of the peak's level over the middle of the surroundings.
    """
    windows = _Windows.around(level, seeds, reach)
    # direction by ring by seed: numpy takes long to go round short axes within long ones
    radius = RING_SCALES * (seeds.scale_mm / detail.pixel_mm / level.step_px)
    ring_row = windows.top + windows.inner(radius * SINE[:, None, None], windows.row)
    ring_col = windows.left + windows.inner(radius * COSINE[:, None, None], windows.col)
    ring = ring_row * level.image.shape[1] + ring_col
    ring_tophat = level.tophat.ravel().take(ring)
    around = sorted_directions(ring_tophat)
    middle = len(around) // 2
    # a seed of too fine a scale has its inner ring on the spot itself
    base = (0.5 * around[middle - 1] + 0.5 * around[middle]).min(axis=0)
    here = level.background_at(windows.top + windows.row, windows.left + windows.col)
    peak = seeds.top - here
    half = 0.5 * (base + peak)
    tophat = windows.cut_from(level.tophat)
    inside = _connected(tophat > whole_steps(half)[:, None, None], *_brightest(tophat, windows))
    outer = level.image.ravel().take(ring[:, -1]) - ring_tophat[:, -1]
    width_px = 8 * radius[-1] * level.step_px
    seeds = seeds.replace(
        height=peak - base,
        threshold=here + half,
        tilt_row=SINE @ outer / width_px,
        tilt_col=COSINE @ outer / width_px,
        cut=inside[:, [0, -1]].any((1, 2)) | inside[:, :, [0, -1]].any((1, 2)),
    )
    return _Grown(level, seeds, windows, inside)


def whole_steps(values: Floats) -> StepImage:
    """Return the largest whole number up to each value: a whole number over the one is over the other."""
    limits = np.iinfo(np.int16)
    return np.clip(np.floor(values), limits.min, limits.max).astype(np.int16)


def sorted_directions(values: StepImage) -> list[StepImage]:
    """Return the values sorted along the first axis, whose length is a power of two.

    A sorting network (Batcher 1968, doi 10.1145/1468075.1468121) over whole columns; the slow equivalent is
    ``numpy.sort(values, axis=0)``, which sorts each short row on its own.
    """
    columns = list(values)
    n = len(columns)
    run = 1
    while run < n:
        step = run
        while step:
            for start in range(step % run, n - step, 2 * step):
                for low in range(start, min(start + step, n - step)):
                    high = low + step
                    if low // (2 * run) == high // (2 * run):
                        smaller = np.minimum(columns[low], columns[high])
                        columns[high] = np.maximum(columns[low], columns[high])
                        columns[low] = smaller
            step //= 2
        run *= 2
    return columns


def with_tops(detail: Detail, seeds: Seeds) -> Seeds:
    """Return the seeds with the grey level on top of each, read where it is not known yet.

    Parameters
    ----------
    detail : Detail
    seeds : Seeds

    Returns
    -------
    Seeds
    """
    unknown = np.flatnonzero(np.isnan(seeds.top))
    if not len(unknown):
        return seeds
    top = seeds.top.copy()
    top[unknown] = _tops(detail, seeds[unknown])
    return seeds.replace(top=top)


def _tops(detail: Detail, seeds: Seeds) -> Floats:
    """Return the grey level on top of each seed: the mean of the brightest of nine cells half a scale wide.

    The brightest alone is the noise's choice, and cells as wide as the scale reach over a small disc's border.
    """
    choice = coarsest_levels(detail, 0.5 * seeds.scale_mm)
    cell_mm = np.array([level.step_px * detail.pixel_mm for level in detail.levels])[choice]
    n_upper = np.clip(3 * (seeds.scale_mm / cell_mm) ** 2, FEWEST_UPPER, MOST_UPPER)
    d_row, d_col = (offset.ravel() - 1 for offset in np.indices((3, 3)))
    top = np.empty(len(seeds))
    for index, level in enumerate(detail.levels):
        rows = np.flatnonzero(choice == index)
        row, col = (
            np.clip(np.rint(level.to_cells(place_px[rows], axis)).astype(np.intp) + d[:, None], 0, n - 1)
            for axis, (place_px, d, n) in enumerate(
                zip((seeds.row_px, seeds.col_px), (d_row, d_col), level.image.shape, strict=True)
            )
        )
        highest = _highest(level.image[row, col])
        # the last one counts by its part, so that a scale a little larger changes the mean a little
        share = np.clip(n_upper[rows] - np.arange(MOST_UPPER)[:, None], 0, 1)
        top[rows] = (highest * share).sum(axis=0) / n_upper[rows]
    return top


def _highest(values: StepImage) -> StepImage:
    """Return the `MOST_UPPER` highest values of each column, falling; the slow equivalent is `numpy.sort`."""
    rows = list(values)
    for rank in range(MOST_UPPER):
        for other in range(rank + 1, len(rows)):
            higher = np.maximum(rows[rank], rows[other])
            rows[other] = np.minimum(rows[rank], rows[other])
            rows[rank] = higher
    return np.stack(rows[:MOST_UPPER])


def _brightest(tophat: StepImage, windows: _Windows) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where within a cell of each seed the brightest cell lies."""
    d_row, d_col = (offset.ravel() - 1 for offset in np.indices((3, 3)))
    row = windows.inner(d_row, windows.row[:, None])
    col = windows.inner(d_col, windows.col[:, None])
    each = np.arange(len(tophat))
    best = tophat[each[:, None], row, col].argmax(axis=1)
    return row[each, best], col[each, best]


def _connected(inside: BoolImage, row: NDArray[np.intp], col: NDArray[np.intp]) -> BoolImage:
    """Return, window by window, the 8-connected part that holds (row, col).

    All windows are laid one under another in one picture, a blank line between them, so that one labelling serves all;
    the slow equivalent is `scipy.ndimage.label` window by window.
    """
    n, side, _ = inside.shape
    # OpenCV crashes on a picture without rows
    if not n:
        return inside
    picture = np.zeros((n, side + 1, side), np.uint8)
    picture[:, :side] = inside
    _, labels = cv2.connectedComponents(picture.reshape(-1, side), connectivity=8, ltype=cv2.CV_32S)
    windows = np.asarray(labels).reshape(n, side + 1, side)[:, :side]
    own = windows[np.arange(n), row, col]
    # the surroundings have number 0
    own[own == 0] = -1
    return np.asarray(windows == own[:, None, None], np.bool_)


def _on_pixels(detail: Detail, parts: list[_Grown]) -> Regions:
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
        closed = _is_closed(n_over[added] >= FULL_CELL * step * step, owner[added], len(seeds))
        over &= closed[owner]
        seeds, owner = seeds[closed], (np.cumsum(closed, dtype=np.int32) - 1)[owner]
    cell, place = _divided(np.flatnonzero(over.transpose(2, 0, 1)).astype(np.int32), step * step)
    return Regions(seeds, owner[cell], first[cell] + within.ravel()[place])


def _cells(parts: list[_Grown], *, grown: bool) -> tuple[Integers, Integers, Integers, BoolImage]:
    """Return the cells of all windows: owner, row and column on the level, and which were added.

    Those are the neighbours of the windows' own cells, added where `grown` is set.
    """
    columns, n = [], 0
    for one in parts:
        cells = np.flatnonzero(_grown_by_one(one.inside) if grown else one.inside).astype(np.int32)
        line, col = _divided(cells, one.windows.side)
        owner, row = _divided(line, one.windows.side)
        top, left = (corner.astype(np.int32)[owner] for corner in (one.windows.top, one.windows.left))
        columns.append((owner + np.int32(n), row + top, col + left, ~one.inside.ravel()[cells]))
        n += len(one.seeds)
    owner, row, col, is_added = (np.concatenate(column) for column in zip(*columns, strict=True))
    return owner, row, col, is_added


def _divided(number: Integers, by: int) -> tuple[Integers, Integers]:
    """Return quotient and remainder; the slow equivalent is `numpy.divmod`."""
    quotient = number // np.int32(by)
    return quotient, number - quotient * np.int32(by)


def _is_closed(full: BoolImage, owner: Integers, n: int) -> BoolImage:
    """Return which of n regions end within the cells that were added around them, given which of those are full.

    Full of pixels over the threshold, that is: where they are, the surroundings are over it, too, and the outline would
    follow the cells; its size says nothing.
    """
    n_full, n_around = (np.bincount(owner, counted, n) for counted in (full, None))
    return np.asarray(n_full <= OPEN_SHARE * n_around, np.bool_)


def _is_off_border(detail: Detail, grown: _Grown) -> BoolImage:
    """Return which windows' cells keep off the border of the image.

    Of the others neither size nor form is known; the bright rim of a film is one of them.
    """
    level, windows, inside = grown.level, grown.windows, grown.inside
    away, box = border_px(detail), detail.box
    off = np.ones(len(inside), np.bool_)
    sides = ((2, windows.top, box.row_start), (1, windows.left, box.col_start))
    for (axis, start, box_start), n in zip(sides, detail.image_shape, strict=True):
        low, high = box_start + start * level.step_px, box_start + (start + windows.side) * level.step_px
        # few windows reach it
        reaching = np.flatnonzero((low < away) | (high > n - away))
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
