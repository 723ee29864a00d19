"""How sure it is that a spot is calcium: two stages of boosted trees, kept as plain arrays.

The first stage looks at each spot alone. The second sees the same features and how sure the first is of the neighbours
within 2 to 12 mm: calcifications come in groups, crossing strands and grains of noise do not. `scripts/train` makes the
weights.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from detector.records import Evidence, Spots

WEIGHTS = Path(__file__).with_name("weights.npz")

MISSING = np.float32(-1e9)
"""Stands for an unknown feature: a scale finer than the pixels, a size where none is known."""

RELATIVE = "relative_"
"""Starts the name of a feature that is taken relative to the candidates of its image."""

ABSOLUTE = frozenset({"pixel_mm", "near_edge", "in_pectoral", "near_skin", "saturated", "cut"})
"""Features that are not: marks, and the size of a pixel, which all candidates share."""

N_TYPICAL = 20
"""Candidates whose quartiles say as much of an image as those of the training images do."""

NEIGHBOUR_RADII_MM = (2.0, 4.0, 7.0, 12.0)
"""Radii that neighbours are counted in: within a tight group, a group, a region."""

APART_MM = 0.25
"""Spots nearer than that are parts of one thing, no neighbours."""

FAINT = 0.05
"""First probability under which a spot is no neighbour."""

FEW_CANDIDATES = 100
"""Candidates that say as much of an image's background as is known beforehand."""

LIKELY = 0.3
"""First probability over which a neighbour is counted."""

ROWS_AT_ONCE = 700
"""Candidates whose answers at all nodes stay in the processor's cache."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trees:
    """Boosted trees, all filled up to one depth.

    Attributes
    ----------
    feature : ndarray of int16, shape (n_trees, 2**depth - 1)
        Column that a node asks.
    threshold : ndarray of float32, same shape
        Up to it a spot goes left, to node ``2 * node + 1``, over it right.
    value : ndarray of float32, shape (n_trees, 2**depth)
        What a leaf adds to the score.
    bias : float
    """

    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    value: NDArray[np.float32]
    bias: float

    def score(self, features: NDArray[np.float32]) -> Floats:
        """Return the log odds of each row of features, shape (n,)."""
        n_parts = max(1, math.ceil(len(features) / ROWS_AT_ONCE))
        return np.concatenate([self._score(part) for part in np.array_split(features, n_parts)])

    @functools.cached_property
    def _questions(self) -> tuple[tuple[int, NDArray[np.intp], NDArray[np.float32]], ...]:
        """Column by column, the nodes that ask it and their thresholds; without those that all spots go left at."""
        feature, threshold = self.feature.ravel(), self.threshold.ravel()
        asked = np.flatnonzero(np.isfinite(threshold))
        by_column = ((column, asked[feature[asked] == column]) for column in np.unique(feature[asked]).tolist())
        return tuple((column, nodes, threshold[nodes, None]) for column, nodes in by_column)

    def _score(self, features: NDArray[np.float32]) -> Floats:
        """Return the log odds of a few rows: all nodes of all trees are asked at once, and answered from the leaves up.

        The slow equivalent walks down tree by tree. Most nodes are asked in vain, but in whole rows of numbers.
        """
        n_trees, n_nodes = self.feature.shape
        right = np.zeros((n_trees * n_nodes, len(features)), np.bool_)
        columns = np.ascontiguousarray(features.T)
        for column, nodes, threshold in self._questions:
            right[nodes] = columns[column] > threshold
        # 0 or 255 at each node
        ways = -right.view(np.uint8).reshape(n_trees, n_nodes, len(features))
        leaf, n_leaves = np.zeros((n_trees, n_nodes + 1, 1), np.uint8), 1
        while leaf.shape[1] > 1:
            way = ways[:, leaf.shape[1] // 2 - 1 : leaf.shape[1] - 1]
            leaf = leaf[:, ::2] ^ ((leaf[:, ::2] ^ (leaf[:, 1::2] + np.uint8(n_leaves))) & way)
            n_leaves *= 2
        index = leaf[:, 0] + n_leaves * np.arange(n_trees)[:, None]
        return np.asarray(self.value.ravel()[index].sum(axis=0, dtype=np.float64) + self.bias, np.float64)


@dataclass(frozen=True, eq=False)
class Judge:
    """Both stages, the features that they ask, and the calibration of the second."""

    names: tuple[str, ...]
    first: Trees
    second: Trees
    slope: float
    offset: float
    background: float
    typical: NDArray[np.float32]
    digest: str

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Judge:
        """Return the judge of a file of weights; default: the one that comes with the package."""
        return _load(path)

    def confidence(self, spots: Spots, evidence: Evidence) -> Floats:
        """Return how sure it is that each spot is calcium, from 0 to 1, calibrated at the standard set's prevalence."""
        features = self.features(evidence)
        first = self.first.score(features)
        places = places_mm(spots, evidence)
        second = self.second.score(with_neighbours(features, first, places))
        return logistic(self.slope * over_background(second, self.background) + self.offset)

    def features(self, evidence: Evidence) -> NDArray[np.float32]:
        """Return the columns that the judge asks, shape (n, n_features)."""
        return select_features(evidence, self.names, self.typical)


def over_background(score: Floats, typical: float) -> Floats:
    """Return the scores over that of an image's background: of most candidates, which are noise and tissue.

    Films and digital images, one device and the next, differ in how much like calcium their noise looks; taken over its
    own background, one threshold holds for all.

    Parameters
    ----------
    score : ndarray of float64, shape (n,)
        Log odds of all candidates of one image.
    typical : float
        The background's score in training images: what few candidates say of it is drawn towards this.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    if not len(score):
        return score
    level = (len(score) * float(np.median(score)) + FEW_CANDIDATES * typical) / (len(score) + FEW_CANDIDATES)
    return np.asarray(score - level, np.float64)


def all_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of features with those of the relative ones behind."""
    return names + tuple(RELATIVE + name for name in names if name not in ABSOLUTE)


def select_features(evidence: Evidence, names: tuple[str, ...], typical: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return named columns of the evidence, or relative to all rows; `MISSING` for what it does not hold or know.

    Parameters
    ----------
    evidence : Evidence
        All candidates of one image.
    names : tuple of str
    typical : ndarray of float32, shape (2, len(names))
        Medians and quartiles' distances of training images, for the relative columns.

    Returns
    -------
    ndarray of float32, shape (n, len(names))
    """
    features = np.full((len(evidence.values), len(names)), MISSING, np.float32)
    known, source = known_columns(evidence.names, names)
    own = evidence.values[:, source]
    is_relative = np.array([names[column].startswith(RELATIVE) for column in known], np.bool_)
    own[:, is_relative] = relative(own[:, is_relative], typical[:, known][:, is_relative])
    features[:, known] = own
    return np.where(np.isnan(features), MISSING, features)


def known_columns(own: tuple[str, ...], names: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """Return which of `names` are made of what an image's evidence holds, and of which of its `own` columns."""
    table: Mapping[str, int] = {name: column for column, name in enumerate(own)}
    known = [column for column, name in enumerate(names) if name.removeprefix(RELATIVE) in table]
    return known, [table[names[column].removeprefix(RELATIVE)] for column in known]


def relative(values: NDArray[np.float32], typical: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return columns less their median, by their quartiles' distance.

    Most candidates of an image are its noise and tissue; what stands out from them does so on film and digital images,
    of one device and the next, whatever their grain and contrast.

    Parameters
    ----------
    values : ndarray of float32, shape (n, n_features)
        All candidates of one image.
    typical : ndarray of float32, shape (2, n_features)
        Median and quartiles' distance of training images: what few candidates say of theirs is drawn towards this.

    Returns
    -------
    ndarray of float32, shape (n, n_features)
        NaN where a value is not known.
    """
    share = np.float32(len(values) / (len(values) + N_TYPICAL))
    middle, spread = share * quartiles(values) + (1 - share) * typical if len(values) else typical
    return np.asarray((values - middle) / (spread + np.float32(1e-6)), np.float32)


def quartiles(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the median of each column and the distance of its quartiles, shape (2, n_features)."""
    n = len(values)
    low, middle, high = (n // 4, n // 2, (3 * n) // 4)
    # column by column, since numpy takes several times as long across rows
    ordered = np.partition(np.ascontiguousarray(values.T), (low, middle, high), axis=1)
    return np.stack([ordered[:, middle], ordered[:, high] - ordered[:, low]])


def places_mm(spots: Spots, evidence: Evidence) -> Floats:
    """Return the places in mm by the spacing that the rooms work with, known or not, shape (n, 2)."""
    return np.stack([spots.row_px, spots.col_px], axis=1) * evidence.column("pixel_mm")[:, None].astype(np.float64)


def with_neighbours(features: NDArray[np.float32], score: Floats, place_mm: Floats) -> NDArray[np.float32]:
    """Return the features with the first stage's score and what its neighbours score.

    For each radius the sum of the neighbours' probabilities, the highest, the third highest, and how many are likely.

    Parameters
    ----------
    features : ndarray of float32, shape (n, n_features)
    score : ndarray of float64, shape (n,)
        Log odds.
    place_mm : ndarray of float64, shape (n, 2)

    Returns
    -------
    ndarray of float32, shape (n, n_features + 1 + 4 * len(NEIGHBOUR_RADII_MM))
    """
    n = len(features)
    probability = logistic(score)
    one, other, distance = _pairs(place_mm, np.flatnonzero(probability > FAINT))
    columns: list[Floats] = [score]
    # by spot, then by falling probability; ties go to the lower row
    order = np.lexsort((other, -probability[other], one))
    one, other, distance = one[order], other[order], distance[order]
    for radius in NEIGHBOUR_RADII_MM:
        near = distance <= radius
        spot, neighbour = one[near], probability[other[near]]
        start = np.searchsorted(spot, np.arange(n + 1))
        columns += [
            np.bincount(spot, neighbour, n).astype(np.float64),
            _ranked(neighbour, start, 0),
            _ranked(neighbour, start, 2),
            np.bincount(spot[neighbour > LIKELY], minlength=n).astype(np.float64),
        ]
    return np.concatenate([features, np.stack(columns, axis=1).astype(np.float32)], axis=1)


def _pairs(place_mm: Floats, among: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Return all pairs of a spot and another one of `among` within the largest radius, and their distance."""
    if not len(among):
        nothing = np.empty(0, np.intp)
        return nothing, nothing, np.empty(0)
    everything, chosen = cKDTree(place_mm), cKDTree(place_mm[among])
    found = everything.sparse_distance_matrix(chosen, max(NEIGHBOUR_RADII_MM), output_type="ndarray")
    found = found[found["v"] > APART_MM]
    return found["i"], among[found["j"]], found["v"]


def _ranked(values: Floats, start: NDArray[np.intp], rank: int) -> Floats:
    """Return the value of a rank in each run ``values[start[i]:start[i + 1]]``, 0 in shorter runs."""
    out = np.zeros(len(start) - 1)
    has = start[:-1] + rank < start[1:]
    out[has] = values[start[:-1][has] + rank]
    return out


def logistic(score: Floats) -> Floats:
    """Return the probability of log odds."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(score, -50, 50))), np.float64)


@functools.cache
def _load(path: Path) -> Judge:
    data = path.read_bytes()
    with np.load(io.BytesIO(data)) as arrays:
        first, second = (
            Trees(
                feature=arrays[f"{stage}_feature"],
                threshold=arrays[f"{stage}_threshold"],
                value=arrays[f"{stage}_value"],
                bias=float(arrays[f"{stage}_bias"]),
            )
            for stage in ("first", "second")
        )
        slope, offset, background = arrays["calibration"].tolist()
        typical = arrays["typical"]
        names, digest = tuple(arrays["names"].tolist()), hashlib.sha256(data).hexdigest()
        return Judge(names, first, second, slope, offset, background, typical, digest)
