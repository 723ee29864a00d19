"""Which clusters a radiologist should look at first, and why: Clusters -> suspicion, review, reasons, suggestion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from detector.records import LINEAR_FORMS, Clusters, Distribution, Morphology, Spots, Suggestion
from detector.settings import AssessSettings

WEIGHTS: Mapping[str, float] = {"irregular": 0.30, "thin": 0.25, "tight": 0.20, "count": 0.15, "spread": 0.10}
"""Share of each trait in the suspicion. The order is that of the predictive values BI-RADS (5th edition) gives to forms
(fine linear over pleomorphic over round), then of distribution and number; the steps between them are a choice."""

UNRESOLVED_SHARE = 0.4
"""How irregular an unresolved spot counts: it may be either, and is looked at more closely for that."""

FEW_LINES = 2
"""Thin lines that are enough, as the form of the highest predictive value (BI-RADS 5th edition: 70 %); one alone may be
two grains that touch."""

MOSTLY_BENIGN = (Morphology.ROUND, Morphology.COARSE, Morphology.RIM, Morphology.SKIN, Morphology.VASCULAR)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def assess_clusters(spots: Spots, clusters: Clusters, settings: AssessSettings) -> Clusters:
    """Rank clusters by how suspicious they look, flag the upper ones, and say why in plain words.

    Parameters
    ----------
    spots : Spots
        With `cluster_id`.
    clusters : Clusters
    settings : AssessSettings

    Returns
    -------
    Clusters
        With suspicion, review, reasons and suggestion. Suspicion is a ranking score, not a probability.
    """
    if not len(clusters):
        return clusters
    suspicion = _suspicion(spots, clusters)
    vascular = clusters.morphology == Morphology.VASCULAR
    # the more suspicious the pattern, the less sure it must be that it is one
    high = (suspicion >= settings.high_suspicion) | (_counted_lines(clusters) >= FEW_LINES)
    sure = clusters.confidence >= np.where(high, settings.min_confidence_high, settings.min_confidence)
    review = (suspicion >= settings.review_suspicion) & sure & ~vascular
    suggestion = np.where(review, Suggestion.CLOSER_VIEWS, Suggestion.NONE)
    suggestion[~review & np.isin(clusters.morphology, MOSTLY_BENIGN)] = Suggestion.BENIGN_FORM
    suggestion[~review & (suggestion == Suggestion.NONE)] = Suggestion.COMPARE
    return clusters.replace(
        suspicion=suspicion, review=review, reasons=_reasons(clusters), suggestion=suggestion.astype(np.int8)
    )


def _suspicion(spots: Spots, clusters: Clusters) -> Floats:
    """Return the share of all traits; a spot counts by how sure it is, so that noise beside a group adds little."""
    n = clusters.n_spots.astype(np.float64)
    doubt = np.bincount(spots.cluster_id, 1 - spots.confidence, len(clusters) + 1)[1:]
    sure = np.maximum(n - doubt, 1.0)
    # noise and strands have no shape that is seen, or an irregular one: the doubtful ones stand among those
    n_unresolved = np.maximum(clusters.n_unresolved - doubt, 0.0)
    n_irregular = np.maximum(clusters.n_irregular - np.maximum(doubt - clusters.n_unresolved, 0.0), 0.0)
    traits = {
        "irregular": (n_irregular + UNRESOLVED_SHARE * n_unresolved) / sure,
        # one alone may be two grains that touch
        "thin": (_counted_lines(clusters) - 1.0) / 2.0,
        # from the loosest group that counts, 3 in 1 cm2, to ten times that
        "tight": np.log(clusters.density_per_cm2 * sure / n / 3.0) / np.log(10.0),
        "count": (sure - 3.0) / 12.0,
        "spread": clusters.size_cv / 0.5,
    }
    return np.asarray(sum(WEIGHTS[name] * np.clip(value, 0.0, 1.0) for name, value in traits.items()), np.float64)


def _counted_lines(clusters: Clusters) -> Integers:
    """Return how many thin lines each cluster counts as having.

    Where they prevail, lines that are too short to be counted one by one are lines all the same.
    """
    prevail = np.isin(clusters.morphology, LINEAR_FORMS)
    return np.asarray(np.where(prevail, np.maximum(clusters.n_thin, FEW_LINES), clusters.n_thin), np.int64)


def _reasons(clusters: Clusters) -> list[str]:
    """Return the reasons of each cluster; clusters are few, so words are made one by one."""
    reasons = []
    for row in range(len(clusters)):
        n, n_irregular = int(clusters.n_spots[row]), int(clusters.n_irregular[row])
        words = f"{n} spots in {_area(float(clusters.area_mm2[row]))}"
        parts = [f"{words}, {n_irregular} of them irregular" if n_irregular else words]
        if n_thin := int(clusters.n_thin[row]):
            parts.append(f"{n_thin} thin or branching line{'' if n_thin == 1 else 's'}")
        if n_thin < FEW_LINES and clusters.morphology[row] in LINEAR_FORMS:
            parts.append("mostly short thin lines")
        if 2 * clusters.n_unresolved[row] > n:
            parts.append("most too small for their shape to be told")
        if clusters.distribution[row] in (Distribution.LINEAR, Distribution.SEGMENTAL):
            parts.append(f"{Distribution(clusters.distribution[row]).name.lower()} arrangement")
        if clusters.morphology[row] == Morphology.VASCULAR:
            parts.append("possible vascular")
        reasons.append("|".join(parts))
    return reasons


def _area(area_mm2: float) -> str:
    """Return an area in words: cm2, and mm2 where that would be nothing."""
    return f"{area_mm2 / 100:.1f} cm2" if area_mm2 >= 50 else f"{area_mm2:.0f} mm2"
