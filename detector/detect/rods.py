"""Rods that were outlined piece by piece: where two lie end to end and nothing parts them, they are one mark."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.detect.grains import is_solid, part_at
from detector.detect.levels import peak_pixels
from detector.detect.overlaps import Ranks, numbered
from detector.detect.peaks import pairs_within
from detector.detect.regions import Regions
from detector.records import BoolImage, Box, Detail, Marks, Moments, Seeds, divided

LEAST_PIECE_MM2, LEAST_PIECE_MM, LEAST_SIGMA = 0.2, 0.4, 5.0
"""Area, width, and height in noise units from which a mark may be a piece of a rod: half a millimetre of the thinnest
rods, whose outline at half height is narrower than they are; thin lines are followed farther as they are grown."""

GAP_MM, MOST_ASIDE = 1.0, 0.3
"""Gap between the ends of pieces at most, and how far the other piece may lie beside the direction of the longer one,
by how far it lies along it: rods bend a little."""

N_BETWEEN, PASS_SHARE = 17, 0.25
"""Places from middle to middle at which the grey level must be over the outline's, and how far over it a way from one
to the other must lead throughout, by the height there of what most of the lower piece has: the unevenness of rods, less
than that of the gap between two things."""

ROD_ASPECT, ROD_SOLIDITY, MOST_WIDER = 2.5, 0.62, 1.25
"""Length by width and solidity of a gently curved rod, and its stroke by that of its pieces: what is less solid or
wider has run out into what surrounds it."""

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class _Pieces:
    """Marks that may be pieces of rods: labels, middles on the finest level, sizes in pixels, and directions."""

    label: NDArray[np.int64]
    row: Floats
    col: Floats
    length: Floats
    width: Floats
    area: Floats
    by_row: Floats
    by_col: Floats

    def __getitem__(self, rows: BoolImage | Rows) -> _Pieces:
        return _Pieces(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class _Change:
    """Labels of marks that go, and the regions that come in their place, of whose pixels none is of another mark."""

    labels: NDArray[np.integer]
    regions: Regions


def join_rods(marks: Marks, detail: Detail, image: Ranks) -> Marks:
    """Return the marks, those that are pieces of one rod as one.

    The half height of a long rod changes along it with what surrounds it, and the plane of one seed may not hold as far
    as its other end.

    Parameters
    ----------
    marks : Marks
        Each of one part.
    detail : Detail
    image : ndarray of unsigned integers
        The label image of the marks, on which the rods are painted.

    Returns
    -------
    Marks
        Rows ordered by row, then column.
    """
    while rods := _rods(marks, detail):
        marks = _repainted(marks, rods, image)
    return marks


def _repainted(marks: Marks, changes: list[_Change], image: Ranks) -> Marks:
    """Return the marks with others in place of some.

    Parameters
    ----------
    marks : Marks
    changes : list of _Change
        At least one; none shares a mark or a pixel with another.
    image : ndarray of unsigned integers
        The label image of the marks, which is painted anew.

    Returns
    -------
    Marks
        Rows ordered by row, then column.
    """
    regions = Regions.concatenate([change.regions for change in changes])
    n, flat = len(marks.seeds), image.ravel()
    stays = np.ones(n, np.bool_)
    stays[np.concatenate([change.labels for change in changes]) - 1] = False
    seeds = Seeds.concatenate([marks.seeds[stays], regions.seeds])
    order, number = numbered(seeds, image.dtype)
    n_staying = np.count_nonzero(stays)
    label = np.zeros(n + 1, image.dtype)
    label[1:][stays] = number[:n_staying]
    flat[marks.pixels] = label.take(flat.take(marks.pixels))
    staying = marks.pixels[flat.take(marks.pixels) > 0]
    flat[regions.pixel] = number[n_staying + regions.owner]
    return Marks(image, np.sort(np.concatenate([staying, regions.pixel])), seeds[order], marks.box)


def _rods(marks: Marks, detail: Detail) -> list[_Change]:
    """Return rods of two pieces, none of which shares a mark or a pixel with another."""
    pieces = _pieces(marks, detail)
    pairs, rods = _end_to_end(pieces, detail.pixel_mm), list[_Change]()
    labels, pixels = set[int](), set[int]()
    for pair in pairs[_in_sight(pieces, pairs, marks, detail)]:
        rod = _rod(pieces[pair], marks, detail)
        if rod and labels.isdisjoint(rod.labels.tolist()) and pixels.isdisjoint(rod.regions.pixel.tolist()):
            labels.update(rod.labels.tolist())
            pixels.update(rod.regions.pixel.tolist())
            rods.append(rod)
    return rods


def _pieces(marks: Marks, detail: Detail) -> _Pieces:
    label = marks.labels.ravel().take(marks.pixels)
    area = np.bincount(label, minlength=len(marks.seeds) + 1)
    large = area * detail.pixel_mm**2 >= LEAST_PIECE_MM2
    large[1:] &= marks.seeds.height >= LEAST_SIGMA * marks.seeds.noise
    pixels, chosen = np.flatnonzero(large[label]), np.flatnonzero(large)
    row, col = divided(marks.pixels[pixels], marks.labels.shape[1])
    moments = Moments.of(row, col, (np.cumsum(large) - 1)[label[pixels]], len(chosen))
    # a rod's second moment along itself is a twelfth of the square of its length
    length, width = (np.sqrt(12 * moment) for moment in moments.along_axes())
    angle = 0.5 * np.arctan2(2 * moments.xy, moments.xx - moments.yy)
    pieces = _Pieces(
        chosen, moments.y, moments.x, length, width, area[chosen].astype(np.float64), np.sin(angle), np.cos(angle)
    )
    return pieces[width * detail.pixel_mm >= LEAST_PIECE_MM]


def _end_to_end(pieces: _Pieces, pixel_mm: float) -> Rows:
    """Return pairs of a piece and a shorter one beyond its end, shape (n, 2), the nearest first."""
    places, gap_px = np.stack([pieces.row, pieces.col]), GAP_MM / pixel_mm
    reach = (pieces.length.max(initial=0) + gap_px) * math.hypot(1, MOST_ASIDE)
    one, other, _ = pairs_within(places, places, reach)
    longer, shorter = pieces[one], pieces[other]
    d_row, d_col = shorter.row - longer.row, shorter.col - longer.col
    along = np.abs(d_row * longer.by_row + d_col * longer.by_col)
    aside = np.abs(d_row * longer.by_col - d_col * longer.by_row)
    gap = along - 0.5 * (longer.length + shorter.length)
    beyond = (gap <= gap_px) & (along >= 0.5 * longer.length) & (aside <= MOST_ASIDE * along)
    beyond &= shorter.length <= longer.length
    order = np.argsort(gap[beyond], kind="stable")
    return np.stack([one, other], axis=1)[beyond][order]


def _in_sight(pieces: _Pieces, pairs: Rows, marks: Marks, detail: Detail) -> BoolImage:
    """Return for which pairs the grey level is over the outlines' all the way from middle to middle."""
    one, other = (pieces[rows] for rows in pairs.T)
    share = np.linspace(0, 1, N_BETWEEN)[:, None]
    row, col = (np.rint(a + share * (b - a)).astype(np.intp) for a, b in ((one.row, other.row), (one.col, other.col)))
    level = (1 - share) * _levels(one, marks, detail) + share * _levels(other, marks, detail)
    return np.asarray((detail.levels[0].image[row, col] > level).all(axis=0), np.bool_)


def _levels(pieces: _Pieces, marks: Marks, detail: Detail) -> Floats:
    """Return the level of each piece's outline in its middle."""
    return marks.seeds.level_at(pieces.label - 1, pieces.row + detail.box.row_start, pieces.col + detail.box.col_start)


def _rod(pair: _Pieces, marks: Marks, detail: Detail) -> _Change | None:
    """Return the rod that two pieces make, or None where they make none."""
    box, seed = _box_around(pair, marks.labels.shape), _on_one_plane(pair, marks, detail)
    part, image = marks.labels[box.slices], detail.levels[0].image[box.slices]
    row, col = np.ogrid[box.row_start : box.row_stop, box.col_start : box.col_stop]
    over = image - seed.level_at(np.array([0]), row + detail.box.row_start, col + detail.box.col_start)
    height = [np.where(part == label, over, -np.inf) for label in pair.label]
    (top_row, top_col), bottom = (np.unravel_index(own.argmax(), part.shape) for own in height)
    top = (int(top_row), int(top_col))
    usual = min(float(np.median(own[np.isfinite(own)])) for own in height)
    if not part_at(over > PASS_SHARE * usual, top)[bottom]:
        return None
    whole = part_at(over > 0, top)
    if whole[[0, -1]].any() or whole[:, [0, -1]].any() or not _is_rod(whole, pair):
        return None
    width = marks.labels.shape[1]
    pixel = np.flatnonzero(whole)
    rows, cols = np.divmod(pixel, whole.shape[1])
    pixel, own = (rows + box.row_start) * width + cols + box.col_start, part.ravel().take(pixel).astype(np.int64)
    # what has its peak in the rod goes, too; of the others the rod takes no pixel
    others = np.unique(own[own > 0])
    held = np.isin(peak_pixels(marks.seeds[others - 1], detail), pixel)
    labels = np.union1d(pair.label, others[held])
    pixel = pixel[(own == 0) | np.isin(own, labels)].astype(np.int32)
    return _Change(labels, Regions(seed, np.zeros(len(pixel), np.int32), pixel))


def _on_one_plane(pair: _Pieces, marks: Marks, detail: Detail) -> Seeds:
    """Return the longer piece's seed, its outline's level the plane through both pieces' levels in their middles.

    Across the line from middle to middle it is tilted as theirs are on average.
    """
    seeds, levels = marks.seeds[pair.label - 1], _levels(pair, marks, detail)
    way = np.array([np.diff(pair.row)[0], np.diff(pair.col)[0]])
    apart = math.hypot(*way)
    along, across = way / apart, np.array([-way[1], way[0]]) / apart
    slope = np.diff(levels)[0] / apart * along + (across @ [seeds.tilt_row, seeds.tilt_col]).mean() * across
    place = np.array([seeds.row_px[0], seeds.col_px[0]]) - [detail.box.row_start, detail.box.col_start]
    return seeds[np.array([0])].replace(
        threshold=levels[:1] + slope @ (place - [pair.row[0], pair.col[0]]), tilt_row=slope[:1], tilt_col=slope[1:]
    )


def _box_around(pair: _Pieces, shape: tuple[int, int]) -> Box:
    """Return the box of two pieces, and their width more all around."""
    reach = 0.5 * pair.length + pair.width
    low = [math.floor(float((place - reach).min())) for place in (pair.row, pair.col)]
    high = [math.ceil(float((place + reach).max())) + 1 for place in (pair.row, pair.col)]
    return Box(max(low[0], 0), min(high[0], shape[0]), max(low[1], 0), min(high[1], shape[1]))


def _is_rod(whole: BoolImage, pair: _Pieces) -> bool:
    """Return whether a form is long, bent a little at most, and as wide as its pieces."""
    row, col = np.nonzero(whole)
    large, small = Moments.of(row, col, np.zeros(len(row), np.int64), 1).along_axes()
    length, width = math.sqrt(12 * large[0]), math.sqrt(12 * small[0])
    slim = len(row) / length <= MOST_WIDER * (pair.area / pair.length).max()
    return bool(slim and length >= ROD_ASPECT * width and is_solid(whole, ROD_SOLIDITY))
