"""What each spot is: macro or micro, its shape and form word, and how sure it is calcium: Spots -> Spots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from detector.records import BoolImage, Evidence, Flag, Kind, Morphology, Outlines, Shape, Spots
from detector.settings import ClassifySettings

MODEL = "rule-1"
"""Name of the judge, kept with every Reading."""

ROD_ASPECT = 2.0
"""Length by width from which a form is a dash and no dot."""

SMOOTH_SOLIDITY = 0.88
"""Solidity from which a form is smooth; a blurred convex grain measured on pixels keeps over 0.9."""

BRANCHED_SOLIDITY = 0.62
"""Solidity under which a thin form has arms."""

HOLE_SHARE = 0.08
"""Share of the filled area from which a lucent centre makes a rim."""

Floats = NDArray[np.float64]


def classify_spots(
    spots: Spots, evidence: Evidence, outlines: Outlines, settings: ClassifySettings
) -> tuple[Spots, Outlines]:
    """Judge each spot and keep those over the confidence floor.

    Parameters
    ----------
    spots : Spots
    evidence : Evidence
        One row a spot.
    outlines : Outlines
        One a spot.
    settings : ClassifySettings

    Returns
    -------
    spots : Spots
        With shape, kind, morphology, confidence and flags, numbered from 1.
    outlines : Outlines
        Those of the spots that are kept.
    """
    if not len(spots):
        return spots, outlines
    unresolved = spots.width_mm < settings.unresolved_px * evidence.column("pixel_mm")
    shape = _shape(spots, evidence, unresolved)
    kind = _kind(spots, shape, settings)
    confidence = _confidence(spots, evidence)
    spots = spots.replace(
        shape=shape,
        kind=kind,
        morphology=_morphology(spots, shape, kind, settings),
        confidence=confidence,
        flags=_flags(evidence, unresolved, confidence),
    )
    kept = np.flatnonzero(confidence >= settings.floor)
    spots = spots[kept]
    return spots.replace(spot_id=np.arange(1, len(spots) + 1)), outlines[kept]


def _shape(spots: Spots, evidence: Evidence, unresolved: BoolImage) -> NDArray[np.int8]:
    aspect = spots.length_mm / np.maximum(spots.width_mm, 1e-9)
    stroke_mm = spots.area_mm2 / np.maximum(spots.length_mm, 1e-9)
    shape = np.full(len(spots), Shape.IRREGULAR, np.int8)
    smooth = spots.solidity >= SMOOTH_SOLIDITY
    shape[smooth] = Shape.DOT
    shape[smooth & (aspect >= ROD_ASPECT)] = Shape.DASH
    # a gently curved thin line is less solid than a rod and still one line
    shape[~smooth & (aspect >= 2 * ROD_ASPECT) & (spots.solidity >= BRANCHED_SOLIDITY)] = Shape.DASH
    shape[(spots.solidity < BRANCHED_SOLIDITY) & (stroke_mm < 0.5) & (spots.length_mm > 1.0)] = Shape.BRANCHING
    shape[(spots.hole_share >= HOLE_SHARE) & (spots.diameter_mm >= 0.5)] = Shape.RIM
    shape[unresolved & (aspect < ROD_ASPECT)] = Shape.UNRESOLVED
    # a line of under four pixels across has no outline to speak of, but its length is beyond doubt
    shape[unresolved & (aspect >= ROD_ASPECT) & (spots.length_mm < 1.0)] = Shape.UNRESOLVED
    return shape


def _kind(spots: Spots, shape: NDArray[np.int8], settings: ClassifySettings) -> NDArray[np.int8]:
    rod = (shape == Shape.DASH) & (spots.solidity >= SMOOTH_SOLIDITY)
    rod &= (spots.width_mm >= settings.rod_width_mm) & (spots.length_mm > settings.rod_length_mm)
    macro = (spots.width_mm >= settings.macro_width_mm) | rod
    kind = np.where(macro, Kind.MACRO, Kind.MICRO)
    return np.where(np.isnan(spots.width_mm), Kind.UNKNOWN, kind).astype(np.int8)


def _morphology(
    spots: Spots, shape: NDArray[np.int8], kind: NDArray[np.int8], settings: ClassifySettings
) -> NDArray[np.int8]:
    """Return the form word that size and shape allow; later rules are stronger."""
    word = np.zeros(len(spots), np.int8)
    macro, micro = kind == Kind.MACRO, kind == Kind.MICRO
    dot, dash, irregular = shape == Shape.DOT, shape == Shape.DASH, shape == Shape.IRREGULAR
    fine = spots.diameter_mm < settings.punctate_mm
    word[micro & dot] = Morphology.ROUND
    word[micro & dot & fine] = Morphology.PUNCTATE
    word[micro & irregular & fine] = Morphology.FINE_PLEOMORPHIC
    word[irregular & ~fine] = Morphology.COARSE_HETEROGENEOUS
    word[micro & dash] = Morphology.FINE_LINEAR
    word[micro & (shape == Shape.BRANCHING)] = Morphology.FINE_LINEAR_BRANCHING
    word[macro & dot] = Morphology.COARSE
    word[macro & irregular & (spots.width_mm > 1.5 * settings.macro_width_mm)] = Morphology.DYSTROPHIC
    word[macro & dash] = Morphology.LARGE_ROD_LIKE
    word[macro & (spots.width_mm > settings.coarse_mm)] = Morphology.COARSE
    word[shape == Shape.RIM] = Morphology.RIM
    word[(shape == Shape.RIM) & (spots.skin_distance_mm < 5.0)] = Morphology.SKIN
    return word


def _confidence(spots: Spots, evidence: Evidence) -> Floats:
    """Return how sure it is that each spot is calcium: a plain rule until weights are learned.

    A spot counts by its response and by its contrast in the weakest of 16 directions on the ring beyond its outline;
    neighbours within 5 mm that stand on their own add to it.
    """
    own = _own_score(spots, evidence)
    return _logistic(own + 0.8 * np.log1p(_neighbour_sum(spots, _logistic(own), 5.0)))


def _own_score(spots: Spots, evidence: Evidence) -> Floats:
    radius = 0.5 * spots.diameter_mm
    rings = (0.2, 0.35, 0.6, 1.0)
    lowest = np.stack([evidence.column(f"ring_{r:g}_lowest") for r in rings], axis=1).astype(np.float64)
    evenness = np.stack([evidence.column(f"ring_{r:g}_evenness") for r in rings], axis=1).astype(np.float64)
    ring = np.searchsorted(rings, np.nan_to_num(radius) * 1.5 + 0.05).clip(0, len(rings) - 1)
    each = np.arange(len(spots))
    response = evidence.column("response_sigma").astype(np.float64)
    score = 2.5 * np.log(np.maximum(response, 1.0) / 6.0) + 1.5 * (evenness[each, ring].clip(-1, 1) - 0.6)
    score += 0.5 * np.minimum(lowest[each, ring] - 2.0, 4.0)
    score -= 1.5 * evidence.column("near_edge") + 1.0 * evidence.column("cut") + 1.0 * evidence.column("near_skin")
    return np.asarray(score - 1.5, np.float64)


def _neighbour_sum(spots: Spots, probability: Floats, radius_mm: float) -> Floats:
    """Return the sum of the other spots' probabilities within a radius."""
    if np.isnan(spots.row_mm).any():
        return np.zeros(len(spots))
    tree = cKDTree(np.stack([spots.row_mm, spots.col_mm], axis=1))
    pairs = tree.query_pairs(radius_mm, output_type="ndarray")
    # spots nearer than a diameter are parts of one thing, no neighbours
    distance = np.hypot(*(c[pairs[:, 0]] - c[pairs[:, 1]] for c in (spots.row_mm, spots.col_mm)))
    pairs = pairs[distance > 0.3]
    first = np.bincount(pairs[:, 0], probability[pairs[:, 1]], len(spots))
    return np.asarray(first + np.bincount(pairs[:, 1], probability[pairs[:, 0]], len(spots)), np.float64)


def _logistic(score: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(score, -50, 50))), np.float64)


def _flags(evidence: Evidence, unresolved: BoolImage, confidence: Floats) -> NDArray[np.int32]:
    flags = np.zeros(len(confidence), np.int32)
    flags[evidence.column("near_skin") > 0] |= Flag.NEAR_SKIN
    flags[evidence.column("in_pectoral") > 0] |= Flag.IN_PECTORAL
    flags[evidence.column("near_edge") > 0] |= Flag.NEAR_EDGE
    flags[unresolved] |= Flag.SIZE_IS_UPPER_BOUND
    flags[evidence.column("saturated") > 0] |= Flag.SATURATED
    flags[evidence.column("cut") > 0] |= Flag.OUTLINE_CUT
    flags[(evidence.column("coherence") > 0.7) & (evidence.column("ring_0.6_evenness") < 0.3)] |= Flag.POSSIBLE_STRAND
    return flags
