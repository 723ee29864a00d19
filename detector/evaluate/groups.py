"""Sensitivity by groups: size, contrast, form, place, film or digital, pixel size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from detector.evaluate.froc import Score
from detector.evaluate.truth import Floats, ImageTruth, distance_to_outline, inside_outline, places_of
from detector.evaluate.uncertainty import Row, estimate_row, proportion
from detector.records import Reading


def breakdown(score: Score, labels: Sequence[str], threshold: float) -> list[Row]:
    """Return the share of true objects that is hit at one threshold, a row a label.

    Parameters
    ----------
    score : Score
    labels : sequence of str
        One a true object of the score; see `labels_of`.
    threshold : float
        On confidence, the same for all: that of a step of the whole curve.

    Raises
    ------
    ValueError
        If the labels are not one an object.
    """
    group = np.asarray(labels, str)
    if len(group) != score.n_objects:
        raise ValueError(f"{len(group)} labels for {score.n_objects} objects")
    is_hit = score.hit_confidence >= threshold
    rows = []
    for name in sorted(set(group.tolist())):
        chosen = group == name
        n_patients = len(np.unique(score.patients[score.hit_image[chosen]]))
        share = proportion(int(is_hit[chosen].sum()), int(chosen.sum()), n_patients)
        rows.append({"group": name} | estimate_row("sensitivity", share))
    return rows


def labels_of(score: Score, label: Callable[[ImageTruth], Sequence[str]]) -> list[str]:
    """Return the label of each true object of a score, from a function that labels all rows of one image."""
    by_image = [label(t) for t in score.truths]
    return [by_image[i][r] for i, r in zip(score.hit_image, score.hit_row, strict=True)]


def image_groups(score: Score, label: Callable[[ImageTruth], str]) -> dict[str, Score]:
    """Return the score of each group of images, by their label (film or digital, spacing, ...)."""
    labels = np.array([label(t) for t in score.truths])
    return {str(name): score.subset(labels == name) for name in np.unique(labels)}


def binned(values: ArrayLike, edges: Sequence[float], unit: str = "") -> list[str]:
    """Return each value's bin in words: ``0.2 to 0.3 mm``, ``under 0.2 mm``, ``from 0.3 mm``, ``unknown``."""
    tail = f" {unit}" if unit else ""
    names = [f"under {edges[0]:g}{tail}"]
    names += [f"{a:g} to {b:g}{tail}" for a, b in itertools.pairwise(edges)]
    names += [f"from {edges[-1]:g}{tail}"]
    array = np.asarray(values, float)
    return [
        "unknown" if math.isnan(v) else names[i]
        for v, i in zip(array, np.searchsorted(edges, array, "right"), strict=True)
    ]


def spot_sizes(truth: ImageTruth) -> list[str]:
    """Label the true spots by diameter."""
    return binned(truth.spots.diameter_mm, (0.2, 0.3, 0.5, 1.0), "mm")


def spot_contrasts(truth: ImageTruth) -> list[str]:
    """Label the true spots by their height over the noise."""
    return binned(truth.spots.snr, (3.0, 5.0, 8.0), "sigma")


def spot_forms(truth: ImageTruth) -> list[str]:
    """Label the true spots by their form word."""
    return [word or "unknown" for word in truth.spots.words("morphology")]


def mark_forms(truth: ImageTruth) -> list[str]:
    """Label the marks by their form words."""
    return [mark.form or "unknown" for mark in truth.marks]


def spacing_group(truth: ImageTruth) -> str:
    """Label an image by its pixel size."""
    return f"{math.sqrt(math.prod(truth.pixel_size_mm)):.3g} mm" if truth.spacing_mm else "unknown"


def place_words(points_px: ArrayLike, reference: Reading) -> list[str]:
    """Tell where in the breast points lie: the same reference for all methods.

    Parameters
    ----------
    points_px : array of float, shape (n, 2)
        (row, col).
    reference : Reading
        Gives the outlines of breast and pectoral muscle, the nipple, the side of the chest wall and the pixel size.

    Returns
    -------
    list of str
        ``pectoral``; ``skin`` within 5 mm of the skin line; ``chest wall`` within 5 mm of that edge of the image;
        ``behind the nipple`` within 20 mm of it; else ``elsewhere``. The first that fits.
    """
    scale = np.array(reference.identity.spacing_mm)
    points = np.asarray(points_px, float).reshape(-1, 2) * scale
    chest_col = {"left": 0.0, "right": reference.identity.cols - 1.0}.get(reference.chest_wall, math.inf)
    nipple = (math.inf, math.inf) if reference.nipple is None else reference.nipple[:2]
    tests = {
        "pectoral": inside_outline(points, reference.pectoral_outline * scale),
        "skin": _distance_to_skin(points, reference) <= 5.0,
        "chest wall": np.abs(points[:, 1] - chest_col * scale[1]) <= 5.0,
        "behind the nipple": np.hypot(*(points - np.array(nipple) * scale).T) <= 20.0,
    }
    return [str(word) for word in np.select(list(tests.values()), list(tests), "elsewhere")]


def _distance_to_skin(points_mm: Floats, reference: Reading) -> Floats:
    outline = np.asarray(reference.breast_outline, float).reshape(-1, 2)
    last = np.array([reference.identity.rows, reference.identity.cols]) - 1
    # where the outline runs along the image's border it is no skin
    at_border = ((outline <= 2) | (outline >= last - 2)).any(axis=1)
    is_skin = ~(at_border & np.roll(at_border, -1))
    return distance_to_outline(points_mm, outline * np.array(reference.identity.spacing_mm), is_skin)


def spot_places(references: Mapping[str, Reading]) -> Callable[[ImageTruth], list[str]]:
    """Return a label function for true spots by their place, given a reference by image id."""
    return lambda truth: place_words(places_of(truth.spots), references[truth.image_id])


def mark_places(references: Mapping[str, Reading]) -> Callable[[ImageTruth], list[str]]:
    """Return a label function for marks by the place of their centres, given a reference by image id."""
    return lambda truth: place_words([m.center_px for m in truth.marks], references[truth.image_id])
