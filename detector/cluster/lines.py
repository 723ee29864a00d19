"""Which groups are vascular tracks, and which are wedges towards the nipple."""

from __future__ import annotations

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

OFF_WALL_MM = 0.3
"""How far calcium may lie off its wall: half the thickness of a plaque."""

GAP_MM = 6.0
"""Longest part of a track without calcium: plaques of 1 to 3 mm with one or two that are not seen."""

BESIDE_SHARE = 0.15
"""Share of its length along which a track of two walls has calcium on both sides, each from its first to its last."""

DOUBLE_COVER, SINGLE_COVER = 0.45, 0.85
"""Share of its length along which a track of two walls, or of one, is calcified. Casts of ducts are as thin and may lie
in a line: they are interrupted, but never keep to two lines side by side."""

LEAST_PIECES, LEAST_SINGLE = 6, 4
"""Pieces of a track of two walls, or of one: five lie on two like curves by chance."""

SPREAD_SHARE = 0.1
"""Greatest deviation from the walls (root mean square) as a share of their distance: of one line that is spread
normally across, split in the middle, it is 0.38."""

FITTED_SHARE = 0.7
"""Share of a chain's pieces that must keep to the walls; the outlines of others have run into the tissue beside."""

N_TRIED = 12
"""Longest pieces of a chain for which both walls are tried; the others take the nearer one."""

PIECE_MM, PIECE_ASPECT = 0.8, 1.8
"""Length, and length by width, from which a spot is a piece of a wall."""

PARALLEL_DEG, ACROSS_MM = 35.0, 3.5
"""Angle between neighbouring pieces of one track, and their distance across it, at most."""

TRACK_SHARE = 0.5
"""Share of the summed length of a group's spots that must lie in tracks for the group to be vascular."""

WEDGE_MM, WEDGE_DEG, WEDGE_SPREAD = 20.0, 25.0, 0.25
"""Least extent of a segmental group, the greatest angle between its axis and the nipple, and the least correlation of
the distance from the axis with that from the nipple."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Walls:
    """Two like curves side by side: a polynomial along an axis, and half of their distance in mm."""

    middle: Floats
    axis: Floats
    curve: np.polynomial.Polynomial
    half_mm: float

    def along(self, place: Floats) -> Floats:
        """Return how far places (x, y) lie along the axis, shape (...)."""
        return np.asarray((place - self.middle) @ self.axis, np.float64)

    def off(self, place: Floats) -> Floats:
        """Return how far places lie from the curve between the walls, signed."""
        across = (place - self.middle) @ np.array([-self.axis[1], self.axis[0]])
        return np.asarray(across - self.curve(self.along(place)), np.float64)


def find_tracks(spots: Spots, sure: float) -> BoolImage:
    """Return which spots lie in a vascular track.

    Long spots that follow one another or run side by side are joined into chains, whatever group they are in. A chain
    is a track if its pieces keep to two like curves side by side (the walls of a vessel), or to one without a break,
    for at least 10 mm. Shorter spots on the walls or between them belong to it.

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
    rows = np.flatnonzero(piece)
    if len(rows) < LEAST_SINGLE:
        return in_track
    chain = _chains(spots[rows])
    for number in np.flatnonzero(np.bincount(chain) >= LEAST_SINGLE):
        in_track |= _track(spots, rows[chain == number], sure)
    return in_track


def _chains(pieces: Spots) -> NDArray[np.int32]:
    """Return the chain that each piece belongs to."""
    place = np.stack([pieces.col_mm, pieces.row_mm], axis=1)
    pairs = cKDTree(place).query_pairs(float(pieces.length_mm.max()) + GAP_MM, output_type="ndarray")
    one, other = pairs.T
    angle = np.radians(pieces.orientation_deg)
    way = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    same = (way[one] * way[other]).sum(axis=1)
    mean = way[one] + np.sign(same + 1e-12)[:, None] * way[other]
    mean /= np.maximum(np.hypot(*mean.T), 1e-9)[:, None]
    between = place[other] - place[one]
    along = np.abs((between * mean).sum(axis=1)) - 0.5 * (pieces.length_mm[one] + pieces.length_mm[other])
    across = np.abs(between[:, 0] * mean[:, 1] - between[:, 1] * mean[:, 0])
    joined = (np.abs(same) >= np.cos(np.radians(PARALLEL_DEG))) & (along <= GAP_MM) & (across <= ACROSS_MM)
    n = len(pieces)
    graph = coo_array((np.ones(int(joined.sum()), np.int8), (one[joined], other[joined])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int32)


def _track(spots: Spots, rows: NDArray[np.int64], sure: float) -> BoolImage:
    """Return which spots lie in the track that the pieces in some rows make; none if they make no track."""
    none = np.zeros(len(spots), np.bool_)
    ends = _ends(spots)
    least = max(LEAST_SINGLE, int(np.ceil(FITTED_SHARE * len(rows))))
    while True:
        walls, off_mm = _fit(ends[rows], spots.length_mm[rows])
        if off_mm.max() <= OFF_WALL_MM:
            break
        if len(rows) == least:
            return none
        rows = np.delete(rows, np.argmax(off_mm))
    if np.median(spots.confidence[rows]) < sure:
        return none
    place = ends.mean(axis=1)
    off = walls.off(place)
    # the front and the back of the vessel are seen between its walls
    near = np.flatnonzero(np.abs(off) <= walls.half_mm + OFF_WALL_MM)
    near = near[_reached(walls.along(ends[near]), np.isin(near, rows))]
    return none | np.isin(np.arange(len(spots)), near) if _is_track(walls, ends[near], ends[rows]) else none


def _ends(spots: Spots) -> Floats:
    """Return both ends (x, y) of each spot's long axis in mm, shape (n, 2, 2)."""
    angle = np.radians(spots.orientation_deg)
    half = 0.5 * spots.length_mm[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    place = np.stack([spots.col_mm, spots.row_mm], axis=1)
    return np.stack([place - half, place + half], axis=1)


def _fit(ends: Floats, length_mm: Floats) -> tuple[_Walls, Floats]:
    """Return the walls that pieces keep to best, by least squares, and how far each piece lies off its own.

    With the wall of each piece given, +1 or -1, this is linear: a polynomial and half of the distance. All choices of
    the longest pieces' walls are tried at once.
    """
    points = ends.reshape(-1, 2)
    middle = points.mean(axis=0)
    axis = np.linalg.svd(points - middle, full_matrices=False)[2][0]
    along, across = (points - middle) @ axis, (points - middle) @ np.array([-axis[1], axis[0]])
    scale = max(float(np.abs(along).max()), 1e-9)
    basis = np.linalg.qr(np.vander(along / scale, 4 if len(ends) >= 8 else 3))[0]
    rest = across - basis @ (basis.T @ across)

    n_tried = min(len(ends), N_TRIED)
    side = np.zeros((2 ** (n_tried - 1), len(ends)))
    longest = np.argsort(-length_mm, kind="stable")[:n_tried]
    side[:, longest] = 1 - 2 * (np.arange(len(side))[:, None] >> np.arange(n_tried) & 1)
    chosen = side[np.argmax(_explained(side, basis, rest))]
    # the others: on the nearer wall
    half_mm = _half_mm(chosen, basis, rest)
    off = rest - half_mm * _without(np.repeat(chosen, 2), basis)
    chosen = np.where(chosen == 0, np.sign(off.reshape(-1, 2).mean(axis=1) * half_mm + 1e-12), chosen)
    half_mm = _half_mm(chosen, basis, rest)
    both = np.repeat(chosen, 2) * half_mm
    degree = basis.shape[1] - 1
    curve = np.polynomial.Polynomial.fit(along, across - both, degree)
    off = np.abs(across - both - curve(along)).reshape(-1, 2).max(axis=1)
    return _Walls(middle, axis, curve, abs(half_mm)), off


def _without(values: Floats, basis: Floats) -> Floats:
    """Return values less their part in the span of an orthonormal basis."""
    return np.asarray(values - (values @ basis) @ basis.T, np.float64)


def _explained(side: Floats, basis: Floats, rest: Floats) -> Floats:
    """Return the sum of squares that the walls explain, for each choice of sides."""
    own = _without(np.repeat(side, 2, axis=1), basis)
    return np.asarray((own @ rest) ** 2 / np.maximum((own**2).sum(axis=1), 1e-9), np.float64)


def _half_mm(side: Floats, basis: Floats, rest: Floats) -> float:
    own = _without(np.repeat(side, 2), basis)
    return float(own @ rest / max(float(own @ own), 1e-9))


def _reached(along: Floats, is_piece: BoolImage) -> BoolImage:
    """Return which spots hang together with the pieces, with no gap that is too long."""
    start, stop = along.min(axis=1), along.max(axis=1)
    order = np.argsort(start)
    gap = start[order][1:] - np.maximum.accumulate(stop[order])[:-1]
    run = np.empty(len(order), np.int64)
    run[order] = np.concatenate([[0], np.cumsum(gap > GAP_MM)])
    return np.asarray(run == np.bincount(run, is_piece).argmax(), np.bool_)


def _is_track(walls: _Walls, ends: Floats, pieces: Floats) -> bool:
    """Return whether calcium along walls, by its ends and by those of its long pieces, is a track.

    It is one if it is at least 10 mm long, and one line without a break, or two lines side by side.
    """
    along, off = walls.along(ends), walls.off(ends.mean(axis=1))
    start, stop = along.min(axis=1), along.max(axis=1)
    length = float(stop.max() - start.min())
    cover = _cover(start, stop) / max(length, 1e-9)
    if length < TRACK_MM or cover < DOUBLE_COVER:
        return False
    if 2 * walls.half_mm < WALLS_MM[0]:
        return cover >= SINGLE_COVER
    one, other = off > 0, off < 0
    if min(one.sum(), other.sum()) < 2 or len(pieces) < LEAST_PIECES or 2 * walls.half_mm > WALLS_MM[1]:
        return False
    beside = min(stop[one].max(), stop[other].max()) - max(start[one].min(), start[other].min())
    spread_mm = np.sqrt(np.mean((np.abs(walls.off(pieces)) - walls.half_mm) ** 2))
    return bool(beside >= BESIDE_SHARE * length and spread_mm <= SPREAD_SHARE * 2 * walls.half_mm)


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
