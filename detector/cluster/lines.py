"""Which groups are vascular tracks, and which are wedges towards the nipple."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from detector.records import BoolImage, Shape, Spots

TRACK_MM = 10.0
"""Least length of a track (DOMAIN: a few spots in a line never are one)."""

WALLS_MM = (0.5, 3.5)
"""Distance between the two walls of a vessel: arteries of the breast are 1 to 3 mm wide."""

OFF_WALL_MM, OFF_WALL_SHARE = 0.3, 0.15
"""How far calcium may lie off its wall: half the thickness of a plaque in mm, and a share of the walls' distance, so
that what is scattered evenly across a narrow vessel does not pass for its walls."""

GAP_MM = 6.0
"""Longest part of a track without calcium: plaques of 1 to 3 mm with one or two that are not seen."""

DOUBLE_COVER, SINGLE_COVER = 0.45, 0.85
"""Share of its length along which a track of two walls, or of one, is calcified. Casts of ducts are as thin and may lie
in a line: they are interrupted, and have no reason to keep to two lines side by side."""

LEAST_PIECES, LEAST_SINGLE = 6, 4
"""Pieces of a track of two walls, or of one: with fewer the curve, which is bent to the pieces, fits any."""

FACING_DEG, FACING_MM, LEAST_FACING = 15.0, 2.0, 3
"""Angle between pieces that face one another across the vessel and how far they may miss one another along it (less
than a plaque, along which a vessel hardly bends); and how many pairs of them are needed."""

SAME_WIDTH = 0.1
"""Share by which the distance of facing pieces may differ from the middle one along a vessel: outlines err by 0.1 mm of
1 mm."""

BEND_MM, MOST_BENDS = 4.0, 8
"""Length of a vessel for each degree of its polynomial, and the highest degree. A bend takes two degrees;
higher powers swing where calcium is missing."""

FIT_SLACK = (2.0, 1.5, 1.0)
"""How far off the walls, in units of what is allowed in the end, pieces may lie in one fit after another: the first
curve, bent to few of them, swings where they are missing."""

FITTED_SHARE, BESIDE_MM = 0.7, 2.0
"""Share of the pieces between the walls and up to 2 mm beside them that must keep to the walls: the outlines of others
have run into the tissue. Casts scatter across their duct instead."""

PIECE_MM, PIECE_ASPECT = 0.8, 1.8
"""Length, and length by width, from which a spot is a piece of a wall."""

PARALLEL_DEG = 35.0
"""Angle between neighbouring pieces of one track, at most."""

TRACK_SHARE = 0.5
"""Share of the summed length of a group's spots that must lie in tracks for the group to be vascular."""

WEDGE_MM, WEDGE_DEG, WEDGE_SPREAD = 20.0, 25.0, 0.25
"""Least extent of a segmental group, the greatest angle between its axis and the nipple, and the least correlation of
the distance from the axis with that from the nipple."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Walls:
    """Two like curves side by side, or (half of their distance is 0) one: a polynomial along an axis, in mm."""

    middle: Floats
    axis: Floats
    curve: np.polynomial.Polynomial
    half_mm: float

    @functools.cached_property
    def _derivative(self) -> np.polynomial.Polynomial:
        return self.curve.deriv()

    def along(self, place: Floats) -> Floats:
        """Return how far places (x, y) lie along the axis, shape (...)."""
        return np.asarray((place - self.middle) @ self.axis, np.float64)

    def across(self, along: Floats) -> tuple[Floats, Floats]:
        """Return how far the middle lies from the axis, and its slope; beyond the ends it runs straight on."""
        inside = np.clip(along, *self.curve.domain)
        slope = self._derivative(inside)
        return self.curve(inside) + slope * (along - inside), slope

    def off(self, place: Floats) -> Floats:
        """Return how far places lie from the middle between the walls, signed."""
        middle, slope = self.across(self.along(place))
        return np.asarray(((place - self.middle) @ _normal(self.axis) - middle) / np.hypot(1.0, slope), np.float64)

    def fits(self, ends: Floats, slack: float = 1.0) -> BoolImage:
        """Return which pieces keep to a wall with both ends."""
        limit = min(OFF_WALL_MM, OFF_WALL_SHARE * 2 * self.half_mm) if self.half_mm else OFF_WALL_MM
        off = self.off(ends)
        side = np.sign(off.mean(axis=1, keepdims=True))
        return np.asarray((np.abs(off - side * self.half_mm) <= slack * limit).all(axis=1), np.bool_)


def find_tracks(spots: Spots, sure: float) -> BoolImage:
    """Return which spots lie in a vascular track.

    Long spots that follow one another or run side by side are joined into chains, whatever group they are in. Pieces
    that face one another at the same distance tell the width of a vessel and where its middle runs; a curve is fitted
    to that, and then to all pieces at half of the width from it. The chain is a track if most of its pieces there keep
    to these two walls, or to one line without a break, for at least 10 mm. Shorter spots on the walls or between them
    belong to it.

    Parameters
    ----------
    spots : Spots
        Those that count at the operating point.
    sure : float
        Least median confidence of a track's long spots: strands look like it, in spots that are mostly doubtful.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    in_track = np.zeros(len(spots), np.bool_)
    piece = (spots.length_mm >= PIECE_MM) & (spots.aspect >= PIECE_ASPECT) & (spots.shape != Shape.RIM)
    rows = np.flatnonzero(piece & np.isfinite(spots.orientation_deg))
    if len(rows) < LEAST_SINGLE:
        return in_track
    ends = _ends(spots)
    chain = _chains(ends[rows])
    for number in np.flatnonzero(np.bincount(chain) >= LEAST_SINGLE):
        in_track |= _track(ends, spots.confidence, rows[chain == number], sure)
    return in_track


def _ends(spots: Spots) -> Floats:
    """Return both ends (x, y) of each spot's long axis in mm, shape (n, 2, 2)."""
    angle = np.radians(spots.orientation_deg)
    half = 0.5 * spots.length_mm[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    place = np.stack([spots.col_mm, spots.row_mm], axis=1)
    return np.stack([place - half, place + half], axis=1)


def _normal(way: Floats) -> Floats:
    return np.stack([-way[..., 1], way[..., 0]], axis=-1)


def _pairs(ends: Floats, angle_deg: float, gap_mm: float) -> tuple[NDArray[np.int64], Floats]:
    """Return pairs of pieces, shape (n, 2), that are nearly parallel and near one another, and how far across."""
    place, way = ends.mean(axis=1), ends[:, 1] - ends[:, 0]
    length = np.hypot(*way.T)
    way = way / length[:, None]
    pairs = cKDTree(place).query_pairs(float(length.max()) + GAP_MM, output_type="ndarray")
    one, other = pairs.T
    same = (way[one] * way[other]).sum(axis=1)
    mean = way[one] + np.where(same < 0, -1.0, 1.0)[:, None] * way[other]
    mean /= np.hypot(*mean.T)[:, None]
    between = place[other] - place[one]
    gap = np.abs((between * mean).sum(axis=1)) - 0.5 * (length[one] + length[other])
    across = np.abs((between * _normal(mean)).sum(axis=1))
    near = (np.abs(same) >= np.cos(np.radians(angle_deg))) & (gap <= gap_mm) & (across <= WALLS_MM[1])
    return pairs[near], np.asarray(across[near], np.float64)


def _chains(ends: Floats) -> NDArray[np.int32]:
    """Return the chain that each piece belongs to."""
    n = len(ends)
    one, other = _pairs(ends, PARALLEL_DEG, GAP_MM)[0].T
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int32)


def _track(ends: Floats, confidence: Floats, rows: NDArray[np.int64], sure: float) -> BoolImage:
    """Return which spots lie in the track that the pieces in some rows make; none if they make no track."""
    in_track = np.zeros(len(ends), np.bool_)
    is_sure = confidence[rows] >= sure
    if np.count_nonzero(is_sure) < min(LEAST_PIECES, LEAST_SINGLE) // 2:
        # whichever of them fit, their median is not
        return in_track
    # the doubtful ones may be strands: the walls are sought without them first
    starts = [_double(ends[rows[is_sure]])] if LEAST_PIECES <= np.count_nonzero(is_sure) < len(rows) else []
    starts.append(_double(ends[rows]))
    if starts[-1].half_mm:
        starts.append(_fit(ends[rows]))
    for first in starts:
        walls, fits = _follow(first, ends[rows])
        if fits.sum() < (LEAST_PIECES if walls.half_mm else LEAST_SINGLE):
            continue
        # the front and the back of the vessel are seen between its walls
        off = np.abs(walls.off(ends.mean(axis=1)))
        near = np.flatnonzero(off <= walls.half_mm + OFF_WALL_MM)
        near = near[_reached(walls.along(ends[near]), np.isin(near, rows[fits]))]
        along, reach = walls.along(ends[rows].mean(axis=1)), walls.along(ends[near])
        beside = (along >= reach.min()) & (along <= reach.max()) & (off[rows] <= walls.half_mm + BESIDE_MM)
        is_kept = fits.sum() >= FITTED_SHARE * (fits | (beside & is_sure)).sum()
        if is_kept and np.median(confidence[rows[fits]]) >= sure and _is_long(walls, reach):
            in_track[near] = True
            return in_track
    return in_track


def _double(ends: Floats) -> _Walls:
    """Return the walls of the pieces that face one another at the most frequent distance; of too few, one line."""
    pairs, across = _pairs(ends, FACING_DEG, FACING_MM)
    order = np.argsort(across, kind="stable")
    order = order[across[order] >= WALLS_MM[0]]
    width = across[order]
    stop = np.searchsorted(width, width * (1 + SAME_WIDTH) / (1 - SAME_WIDTH), side="right")
    count = stop - np.arange(len(width))
    if count.max(initial=0) < LEAST_FACING:
        return _fit(ends)
    first = int(np.argmax(count))
    alike = order[first : stop[first]]
    one, other = ends[pairs[alike]].transpose(1, 0, 2, 3)
    turned = ((one[:, 1] - one[:, 0]) * (other[:, 1] - other[:, 0])).sum(axis=1) < 0
    other[turned] = other[turned, ::-1]
    return dataclasses.replace(_fit(0.5 * (one + other)), half_mm=0.5 * float(np.median(across[alike])))


def _fit(ends: Floats, walls: _Walls | None = None) -> _Walls:
    """Return the curve through pieces, or that between walls on which they lie."""
    points = ends.reshape(-1, 2)
    if walls is None:
        middle = points.mean(axis=0)
        axis = np.linalg.svd(points - middle, full_matrices=False)[2][0]
        walls = _Walls(middle, axis, np.polynomial.Polynomial([0.0], [-1.0, 1.0]), 0.0)
    along = walls.along(points)
    across = (points - walls.middle) @ _normal(walls.axis)
    side = np.repeat(np.sign(walls.off(ends).mean(axis=1)), 2)
    across = across - side * walls.half_mm * np.hypot(1.0, walls.across(along)[1])
    degree = max(2, min(int(np.ceil(np.ptp(along) / BEND_MM)), len(ends) // 2, MOST_BENDS))
    return dataclasses.replace(walls, curve=np.polynomial.Polynomial.fit(along, across, degree))


def _follow(walls: _Walls, ends: Floats) -> tuple[_Walls, BoolImage]:
    """Return walls fitted anew to the pieces that keep to them, and which those are."""
    for slack in FIT_SLACK:
        fits = walls.fits(ends, slack)
        if fits.sum() < LEAST_SINGLE:
            break
        walls = _fit(ends[fits], walls)
    return walls, walls.fits(ends)


def _reached(along: Floats, is_piece: BoolImage) -> BoolImage:
    """Return which spots hang together with the pieces, with no gap that is too long."""
    start, stop = along.min(axis=1), along.max(axis=1)
    order = np.argsort(start)
    gap = start[order][1:] - np.maximum.accumulate(stop[order])[:-1]
    run = np.empty(len(order), np.int64)
    run[order] = np.concatenate([[0], np.cumsum(gap > GAP_MM)])
    return np.asarray(run == np.bincount(run, is_piece).argmax(), np.bool_)


def _is_long(walls: _Walls, along: Floats) -> bool:
    """Return whether calcium is long and unbroken enough for a track by its ends along the walls."""
    start, stop = along.min(axis=1), along.max(axis=1)
    length = float(stop.max() - start.min())
    least = DOUBLE_COVER if walls.half_mm else SINGLE_COVER
    return length >= TRACK_MM and _cover(start, stop) >= least * length


def _cover(start: Floats, stop: Floats) -> float:
    """Return the length that pieces cover together."""
    order = np.argsort(start)
    start, stop = start[order], np.maximum.accumulate(stop[order])
    return float(stop[-1] - start[0] - np.maximum(start[1:] - stop[:-1], 0.0).sum())


def is_wedge(spots: Spots, nipple_mm: tuple[float, float]) -> bool:
    """Return whether a group runs towards the nipple and widens away from it, as a lobe of the breast does.

    Parameters
    ----------
    spots : Spots
        Of one group.
    nipple_mm : tuple of float
        (row, col).

    Returns
    -------
    bool
    """
    place = np.stack([spots.row_mm, spots.col_mm], axis=1)
    middle = place.mean(axis=0)
    axis = np.linalg.svd(place - middle, full_matrices=False)[2][0]
    to_nipple = np.array(nipple_mm) - middle
    away = float(np.hypot(*to_nipple))
    along = (place - middle) @ axis
    if np.ptp(along) < WEDGE_MM or away < 0.5 * np.ptp(along):
        return False
    if abs(axis @ to_nipple) < away * np.cos(np.radians(WEDGE_DEG)):
        return False
    across = np.abs((place - middle) @ np.array([-axis[1], axis[0]]))
    from_nipple = -along * np.sign(axis @ to_nipple)
    return bool(np.corrcoef(from_nipple, across)[0, 1] > WEDGE_SPREAD)
