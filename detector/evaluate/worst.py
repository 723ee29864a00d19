"""What went most wrong: the most conspicuous misses and the most confident false positives, as magnified crops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.evaluate.froc import Score
from detector.evaluate.truth import Findings, Floats, ImageTruth, Pair, places_of
from detector.records import FloatImage

N_WORST = 12
CROP_PX = 260
"""Side of a crop."""
GAP_PX = 4
"""White between the two pictures of a case."""
EVENED_SHARE = 0.125
"""Standard deviation of the Gaussian that a crop's background is taken by, by its side: far wider than specks."""
TRUE_COLOUR, FOUND_COLOUR = (64, 220, 96), (255, 160, 32)
"""RGB of the rings around what is marked and around what was found."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One miss or false positive.

    Attributes
    ----------
    image_id : str
    row_px, col_px : float
    radius_mm : float
        Of the thing.
    what : str
        In words.
    """

    image_id: str
    row_px: float
    col_px: float
    radius_mm: float
    what: str


def worst_spots(score: Score, pairs: Sequence[Pair], threshold: float) -> tuple[list[Case], list[Case]]:
    """Return the worst misses and false positives among single calcifications.

    Of the misses at the threshold those with the highest contrast over noise come first, then the largest; of the false
    positives the most confident. Those within a crop of each other are shown once.

    Parameters
    ----------
    score : Score
    pairs : sequence of (ImageTruth, Findings)
        Those that were scored, in their order.
    threshold : float
        On confidence.

    Returns
    -------
    misses, false_positives : list of Case
    """

    def missed(truth: ImageTruth, row: int) -> tuple[tuple[float, float], Case]:
        spots = truth.spots
        rank = (_known(spots.snr[row]), _known(spots.diameter_mm[row]))
        words = [f"{v:.2g} {unit}" for v, unit in zip(rank[::-1], ("mm", "times the noise"), strict=True) if v > 0]
        what = "missed: " + (", ".join(words) or "calcification")
        radius = rank[1] / 2
        return rank, Case(truth.image_id, float(spots.row_px[row]), float(spots.col_px[row]), radius, what)

    def false(truth: ImageTruth, findings: Findings, row: int) -> Case:
        spots = findings.spots
        what = f"false: confidence {spots.confidence[row]:.2f}"
        radius = _known(spots.diameter_mm[row]) / 2
        return Case(truth.image_id, float(spots.row_px[row]), float(spots.col_px[row]), radius, what)

    field_mm = FIELD_MM[0]
    return _misses(score, threshold, missed, field_mm), _falses(score, pairs, false, field_mm)


def worst_clusters(score: Score, pairs: Sequence[Pair], threshold: float) -> tuple[list[Case], list[Case]]:
    """Return the worst misses and false positives among groups: the misses that are found last, or never, come first.

    Parameters and result as those of `worst_spots`.
    """

    def missed(truth: ImageTruth, row: int) -> tuple[tuple[float, float], Case]:
        mark = truth.marks[row]
        area = mark.area_mm2(truth.pixel_size_mm)
        what = "missed: " + (mark.form.replace("|", ", ") or "group")
        row_px, col_px = mark.center_px
        return (0.0, area), Case(truth.image_id, row_px, col_px, math.sqrt(area / math.pi), what)

    def false(truth: ImageTruth, findings: Findings, row: int) -> Case:
        clusters = findings.clusters
        what = f"false: confidence {clusters.confidence[row]:.2f}, {clusters.n_spots[row]} spots"
        radius = _known(clusters.extent_mm[row]) / 2
        return Case(truth.image_id, float(clusters.row_px[row]), float(clusters.col_px[row]), radius, what)

    field_mm = FIELD_MM[1]
    return _misses(score, threshold, missed, field_mm), _falses(score, pairs, false, field_mm)


FIELD_MM = (8.0, 25.0)
"""Side of a crop around a single calcification, and around a group, in mm."""


def _known(value: float) -> float:
    return float(value) if math.isfinite(value) else 0.0


def _misses(
    score: Score,
    threshold: float,
    describe: Callable[[ImageTruth, int], tuple[tuple[float, float], Case]],
    field_mm: float,
) -> list[Case]:
    ranked = []
    for number in np.flatnonzero(score.hit_confidence < threshold):
        truth = score.truths[score.hit_image[number]]
        rank, case = describe(truth, int(score.hit_row[number]))
        ranked.append((math.isinf(score.hit_confidence[number]), rank, truth, case))
    ranked.sort(key=lambda item: item[:2], reverse=True)
    return _apart([(truth, case) for _, _, truth, case in ranked], field_mm)


def _falses(
    score: Score, pairs: Sequence[Pair], describe: Callable[[ImageTruth, Findings, int], Case], field_mm: float
) -> list[Case]:
    order = np.lexsort((score.false_row, score.false_image, -score.false_confidence))
    images, rows = score.false_image[order].tolist(), score.false_row[order].tolist()
    # most lie apart, so a few times the number wanted are enough to choose from
    first = list(zip(images, rows, strict=True))[: 20 * N_WORST]
    return _apart([(pairs[i][0], describe(pairs[i][0], pairs[i][1], row)) for i, row in first], field_mm)


def _apart(ranked: Sequence[tuple[ImageTruth, Case]], field_mm: float) -> list[Case]:
    """Return the first ones that do not lie within half a crop of one before."""
    chosen: list[Case] = []
    for truth, case in ranked:
        spacing = truth.pixel_size_mm
        near = (
            abs(case.row_px - c.row_px) * spacing[0] < field_mm / 2
            and abs(case.col_px - c.col_px) * spacing[1] < field_mm / 2
            for c in chosen
            if c.image_id == case.image_id
        )
        if not any(near):
            chosen.append(case)
        if len(chosen) == N_WORST:
            break
    return chosen


# --------------------------------------------------------------------------------------------------------------
# pictures


def draw_case(pixels: FloatImage, case: Case, pair: Pair, field_mm: float, threshold: float) -> Picture:
    """Return the surroundings of a case twice: without, and with rings around what is marked and what was found.

    Grey is evened and stretched, so that specks are seen beside the skin and in dense tissue alike.

    Parameters
    ----------
    pixels : ndarray of float32, shape (rows, cols)
    case : Case
    pair : (ImageTruth, Findings)
        Of its image.
    field_mm : float
        Side of the square that is shown.
    threshold : float
        Findings from this confidence up are ringed.

    Returns
    -------
    ndarray of uint8, shape (CROP_PX, 2 * CROP_PX + GAP_PX, 3)
        RGB, without rings at the left.
    """
    truth, findings = pair
    spacing = np.array(truth.pixel_size_mm)
    scale = CROP_PX / field_mm * spacing
    corner = np.array([case.row_px, case.col_px]) - 0.5 * field_mm / spacing
    plain = np.repeat(_stretched(_cut(pixels, corner, scale))[:, :, None], 3, axis=2)
    picture = plain.copy()
    shown = findings.spots.confidence >= threshold
    rings = [
        (places_of(findings.spots)[shown], findings.spots.diameter_mm[shown], FOUND_COLOUR, 4),
        (places_of(truth.spots), truth.spots.diameter_mm, TRUE_COLOUR, 7),
    ]
    for places, diameter_mm, colour, away in rings:
        _ring(picture, (places - corner) * scale, np.nan_to_num(diameter_mm) / 2 * CROP_PX / field_mm + away, colour)
    for mark in truth.marks:
        outline = _circle(mark.center_px, mark.radius_px) if mark.is_circle else mark.outline_px
        points = np.round((outline - corner) * scale)[:, ::-1].astype(np.int32)
        cv2.polylines(picture, [points], True, TRUE_COLOUR, 1, cv2.LINE_AA)
    return np.concatenate([plain, np.full((CROP_PX, GAP_PX, 3), 255, np.uint8), picture], axis=1)


def _cut(pixels: FloatImage, corner: Floats, scale: Floats) -> FloatImage:
    """Return the square whose corner is given in px, at `scale` pixels of the crop a pixel; black outside."""
    # where the crop is coarser than the image, means over its pixels keep the specks
    finer = max(1, math.ceil(1 / scale.min()))
    step = 1 / (finer * scale)
    matrix = np.array([[step[1], 0.0, corner[1]], [0.0, step[0], corner[0]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(pixels, matrix, (finer * CROP_PX,) * 2, flags=flags, borderValue=float(pixels.min()))
    return np.asarray(cv2.resize(cut, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA), np.float32)


def _stretched(cut: FloatImage) -> Picture:
    evened = cut - cv2.GaussianBlur(cut, (0, 0), EVENED_SHARE * CROP_PX, borderType=cv2.BORDER_REFLECT)
    low, high = np.percentile(evened, [1.0, 99.9])
    return np.asarray(np.clip((evened - low) * (255 / max(high - low, 1e-6)), 0, 255), np.uint8)


def _ring(picture: Picture, places: Floats, radii: Floats, colour: tuple[int, int, int]) -> None:
    for (row, col), radius in zip(places, radii, strict=True):
        if max(abs(row), abs(col)) < 2 * CROP_PX:
            cv2.circle(picture, (round(col), round(row)), round(radius), colour, 1, cv2.LINE_AA)


def _circle(center: tuple[float, float], radius: float) -> Floats:
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    return np.asarray(np.array(center) + radius * np.column_stack([np.sin(angle), np.cos(angle)]))
