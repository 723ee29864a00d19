"""How well a classifier tells inserted groups from real ones: what it can tell is what insertion gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.classify.judge import places_mm
from detector.evaluate.froc import area_under_roc
from detector.evaluate.training import candidates
from detector.records import Evidence, Mammogram, Spots

PATCH_MM = 10.0
"""Side of a patch."""
N_STRONGEST = 6
"""Candidates that a patch is described by: the least number of particles of a standard group."""
NOT_OF_SPOTS = ("grey", "noise", "coherence", "pixel_mm", "skin_distance_mm", "near_skin", "in_pectoral", "near_edge")
"""Features of the place, not of what lies there: groups are put anywhere."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Patch:
    """What the strongest candidates of a patch are like, whose it is, and whether its group is real."""

    features: Floats
    patient: str
    is_real: bool


def patches_of(
    mammogram: Mammogram, centers_px: Sequence[tuple[float, float]], patient: str, is_real: bool
) -> list[Patch]:
    """Return the patches of one image around places (row, col); those without a candidate are left out."""
    spots, evidence, _ = candidates(mammogram)
    if not len(spots):
        return []
    middles = np.array(centers_px).reshape(-1, 2) * np.array(mammogram.spacing_mm)
    described = [_describe(spots, evidence, middle) for middle in middles]
    return [Patch(features, patient, is_real) for features in described if features is not None]


def _describe(spots: Spots, evidence: Evidence, middle_mm: Floats) -> Floats | None:
    """Return mean and spread of each feature over the strongest candidates, and how many there are."""
    near = np.flatnonzero((np.abs(places_mm(spots, evidence) - middle_mm) <= PATCH_MM / 2).all(axis=1))
    if not len(near):
        return None
    strength = evidence.column("response_sigma")[near]
    chosen = near[np.argsort(-strength, kind="stable")[:N_STRONGEST]]
    columns = [i for i, name in enumerate(evidence.names) if name not in NOT_OF_SPOTS]
    values = np.nan_to_num(evidence.values[chosen][:, columns].astype(np.float64))
    return np.concatenate([values.mean(axis=0), values.std(axis=0), [float(len(near))]])


def realism_auc(patches: Sequence[Patch]) -> float:
    """Return how well real patches are told from inserted ones; 0.5 is not at all.

    Area under the ROC curve of a logistic model (features scaled, strongly regularised), each woman's patches told by
    one that has not seen her.

    Parameters
    ----------
    patches : sequence of Patch
        Of at least two women; needs scikit-learn (extra ``train``).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.stack([p.features for p in patches])
    real = np.array([p.is_real for p in patches])
    patients = np.array([p.patient for p in patches])
    score = np.empty(len(patches))
    for patient in np.unique(patients):
        own = patients == patient
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000))
        model.fit(features[~own], real[~own])
        score[own] = model.decision_function(features[own])
    return area_under_roc(score, real)
