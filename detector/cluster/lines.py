"""Which groups are vascular tracks, and which are wedges towards the nipple."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from detector.records import BoolImage, Shape, Spots

TRACK_MM = 10.0
"""Least length of a track (DOMAIN: a few spots in a line never are one)."""

TRACK_SPREAD_MM = 1.6
"""Greatest standard deviation of the spots across the track: two walls of a vessel of 3 mm."""

GAP_MM = 4.0
"""Longest part of a track without calcium: the usual gaps of calcified walls are shorter than their plaques."""

DOUBLE_COVER, SINGLE_COVER = 0.55, 0.8
"""Share of its length along which a track of two walls, or of one, is calcified. Casts of ducts are as thin and may lie
in a line: they are interrupted, or have one wall."""

WALL_COVER = 0.25
"""Share of the length that each of two walls covers."""

WALL_MM = 0.25
"""Distance from the middle line beyond which a piece belongs to a wall: half the width of a small vessel."""

ALONG_DEG, ALONG_SHARE = 25.0, 0.75
"""Angle up to which a piece runs along the track, and the share of the pieces that must."""

PIECE_MM, PIECE_ASPECT = 0.8, 1.8
"""Length, and length by width, from which a spot is a piece of a wall."""

PARALLEL_DEG, ACROSS_MM = 35.0, 3.5
"""Angle between neighbouring pieces of one track, and their distance across it, at most."""

TRACK_SHARE = 0.5
"""Share of the length of a group's pieces that must lie in tracks for the group to be vascular."""

WEDGE_MM, WEDGE_DEG, WEDGE_SPREAD = 20.0, 25.0, 0.25
"""Least extent of a segmental group, the greatest angle between its axis and the nipple, and the least correlation of
the distance from the axis with that from the nipple."""

Floats = NDArray[np.float64]


def find_tracks(spots: Spots) -> tuple[BoolImage, BoolImage]:
    """Return which spots are long enough to be pieces of a vessel's wall, and which of these lie in a track.

    Pieces that follow one another or run side by side are joined, whatever group they are in; a track may be found in
    parts.

    Parameters
    ----------
    spots : Spots

    Returns
    -------
    piece, in_track : ndarray of bool, shape (n,)
    """
    piece = (spots.length_mm >= PIECE_MM) & (spots.aspect >= PIECE_ASPECT) & (spots.shape != Shape.RIM)
    in_track = np.zeros(len(spots), np.bool_)
    rows = np.flatnonzero(piece)
    if len(rows) < 4:
        return piece, in_track
    chain = _chains(spots[rows])
    for number in np.flatnonzero(np.bincount(chain) >= 4):
        members = rows[chain == number]
        in_track[members] = _is_track(spots[members])
    return piece, in_track


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


def _is_track(pieces: Spots) -> bool:
    """Return whether pieces are a continuous single or a double track at least 10 mm long, along a smooth curve."""
    along, across, direction_deg = _curve(pieces)
    half = 0.5 * pieces.length_mm
    length = float((along + half).max() - (along - half).min())
    if length < TRACK_MM or np.average(across**2, weights=half) > TRACK_SPREAD_MM**2:
        return False
    turn = np.abs((pieces.orientation_deg - direction_deg + 90) % 180 - 90)
    if np.average(turn <= ALONG_DEG, weights=half) < ALONG_SHARE:
        return False
    cover, gap = _cover(along, half, length)
    walls = [_cover(along[side], half[side], length)[0] for side in (across > WALL_MM, across < -WALL_MM)]
    double = min(walls) >= WALL_COVER
    return bool(gap <= GAP_MM and cover >= (DOUBLE_COVER if double else SINGLE_COVER))


def _curve(spots: Spots) -> tuple[Floats, Floats, Floats]:
    """Return, of each spot, the place along and across the cubic through all, in mm, and the cubic's direction there.

    Directions are degrees from the column axis towards larger rows, as `Spots.orientation_deg` is.
    """
    place = np.stack([spots.col_mm, spots.row_mm], axis=1)
    place = place - place.mean(axis=0)
    axis = np.linalg.svd(place, full_matrices=False)[2][0]
    along, across = place @ axis, place @ np.array([-axis[1], axis[0]])
    scale = max(float(np.abs(along).max()), 1e-9)
    degree = 3 if len(spots) >= 8 else 2
    curve = np.polynomial.Polynomial.fit(along / scale, across, degree, w=np.sqrt(spots.length_mm), domain=[-1, 1])
    slope = np.arctan(curve.deriv()(along / scale) / scale)
    direction = np.degrees(np.arctan2(axis[1], axis[0]) + slope) % 180
    return along, (across - curve(along / scale)) * np.cos(slope), direction


def _cover(along: Floats, half: Floats, length: float) -> tuple[float, float]:
    """Return the share of a length that pieces cover together, and the longest gap between them."""
    if not len(along):
        return 0.0, np.inf
    order = np.argsort(along - half)
    start, stop = (along - half)[order], np.maximum.accumulate((along + half)[order])
    gaps = np.maximum(start[1:] - stop[:-1], 0.0)
    covered = stop[-1] - start[0] - gaps.sum()
    return float(covered / max(length, 1e-9)), float(gaps.max(initial=0.0))


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
