"""Whether two Readings of one breast say the same: rule 6 of the architecture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from detector.records import Clusters, Reading, Spots
from detector.settings import Settings

Places = NDArray[np.float64]
Transform = Callable[[Places], Places]

REACH_MM = 0.15
SMALLEST_MM = 0.2
LEAST_CONFIDENCE = 0.5
LISTED_CONFIDENCE = Settings().cluster.balanced_confidence
DIAMETER_SHARE = 0.15


@dataclass(frozen=True)
class Comparison:
    """How many spots that count, of both Readings together, have a partner, and how many pairs differ in flags."""

    n_spots: int
    n_matched: int
    n_other_flags: int
    differences: tuple[str, ...] = ()

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            self.n_spots + other.n_spots,
            self.n_matched + other.n_matched,
            self.n_other_flags + other.n_other_flags,
            self.differences + other.differences,
        )

    @property
    def share(self) -> float:
        return self.n_matched / self.n_spots if self.n_spots else 1.0


def same_findings(a: Reading, b: Reading, transform: Transform = lambda places: places) -> Comparison:
    """Compare two Readings; `transform` takes places (n, 2) in mm of the first to those of the second.

    Spots of at least 0.2 mm and confidence over 0.5 count, of both Readings. Each is matched, one to one, with a spot
    that the other lists, whatever its confidence: within 0.15 mm, of equal kind, their diameters within 15 % of the
    larger. The flagged clusters are the same if each has one partner in the other Reading, whose centre is no farther
    than half its extent.
    """
    ours, theirs = listed(a.spots), listed(b.spots)
    place, other = transform(places_of(ours)), places_of(theirs)
    distance = np.hypot(*(place[:, None] - other[None]).transpose(2, 0, 1))
    d, e = ours.diameter_mm[:, None], theirs.diameter_mm[None]
    alike = (distance <= REACH_MM) & (ours.kind[:, None] == theirs.kind[None])
    alike &= np.abs(d - e) <= DIAMETER_SHARE * np.maximum(d, e)
    counts = [does_count(spots) for spots in (ours, theirs)]
    # pairs that count come first, those of two that count before those of one
    worth = 1e3 * (counts[0][:, None].astype(float) + counts[1][None])
    row, col = linear_sum_assignment(np.where(alike, distance - worth, 0.0))
    matched = alike[row, col]
    lone, lone_other = (count.copy() for count in counts)
    lone[row[matched]], lone_other[col[matched]] = False, False
    n_spots = sum(int(np.count_nonzero(count)) for count in counts)
    differences = _described(ours[lone], place[lone], "first") + _described(
        theirs[lone_other], other[lone_other], "second"
    )
    return Comparison(
        n_spots,
        n_spots - len(differences),
        int(not _same_flags(a.clusters, b.clusters, transform, (a, b))),
        differences,
    )


def does_count(spots: Spots) -> NDArray[np.bool_]:
    return np.asarray((spots.diameter_mm >= SMALLEST_MM) & (spots.confidence > LEAST_CONFIDENCE), np.bool_)


def listed(spots: Spots) -> Spots:
    return spots[spots.confidence >= LISTED_CONFIDENCE]


def places_of(spots: Spots) -> Places:
    return np.stack([spots.row_mm, spots.col_mm], axis=1)


def _same_flags(a: Clusters, b: Clusters, transform: Transform, readings: tuple[Reading, Reading]) -> bool:
    ours, theirs = a[a.review], b[b.review]
    if len(ours) != len(theirs):
        return False
    spacing = [np.array(r.identity.spacing_mm) for r in readings]
    place = transform(np.stack([ours.row_px, ours.col_px], axis=1) * spacing[0])
    other = np.stack([theirs.row_px, theirs.col_px], axis=1) * spacing[1]
    near = np.hypot(*(place[:, None] - other[None]).transpose(2, 0, 1)) <= 0.5 * theirs.extent_mm[None]
    row, col = linear_sum_assignment(~near)
    return bool(near[row, col].all())


def _described(spots: Spots, places: Places, which: str) -> tuple[str, ...]:
    return tuple(
        f"only in the {which}: ({r:.2f}, {c:.2f}) mm, {d:.2f} mm, {k}, confidence {p:.2f}"
        for (r, c), d, k, p in zip(places, spots.diameter_mm, spots.words("kind"), spots.confidence, strict=True)
    )
