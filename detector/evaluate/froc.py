"""Sensitivity against false positives, with what may honestly be said of its uncertainty.

A threshold t keeps the findings whose `confidence` is at least t; findings of equal confidence enter together. The
curve is a staircase through all thresholds that occur. *Sensitivity at a rate* is the highest that any threshold
reaches whose false positives do not exceed that rate: nothing is interpolated.
"""

from __future__ import annotations

import csv
import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from detector.errors import ExportError, ReadError, extra_missing
from detector.evaluate.matching import ClusterRule, Matched, SpotRule, match_clusters, match_spots
from detector.evaluate.truth import Findings, Floats, ImageTruth, Pair
from detector.evaluate.uncertainty import (
    FEW_MARKS,
    Estimate,
    Ints,
    Row,
    estimate_row,
    proportion,
    resample,
    resampled_note,
)

Per = Literal["image", "cm2"]

RATES: Mapping[Per, tuple[float, ...]] = {"image": (0.1, 0.21, 0.5, 1.0), "cm2": (0.1, 0.4, 1.0)}
"""False positives at which sensitivity is reported."""


# --------------------------------------------------------------------------------------------------------------
# scoring


@dataclass(frozen=True, eq=False)
class Score:
    """Hits and false positives of a set of images by one rule.

    Attributes
    ----------
    rule : str
        In words.
    truths : tuple of ImageTruth
    hit_confidence : ndarray of float64, shape (n objects,)
        Highest threshold at which each true object is hit, -inf if never.
    hit_image, hit_row : ndarray of intp, shape (n objects,)
        Number of the image, and row of its `spots` or number of its mark.
    false_confidence : ndarray of float64, shape (n false,)
    false_image, false_row : ndarray of intp, shape (n false,)
        Number of the image, and row of the finding.
    area_cm2 : ndarray of float64, shape (n images,)
        Breast by the reference mask; NaN where there is none.
    """

    rule: str
    truths: tuple[ImageTruth, ...]
    hit_confidence: Floats
    hit_image: Ints
    hit_row: Ints
    false_confidence: Floats
    false_image: Ints
    false_row: Ints
    area_cm2: Floats

    @property
    def n_objects(self) -> int:
        """Number of true objects that count."""
        return len(self.hit_confidence)

    @cached_property
    def patients(self) -> Ints:
        """Number of the patient of each image."""
        return np.unique([t.patient_id for t in self.truths], return_inverse=True)[1]

    def subset(self, chosen: ArrayLike) -> Score:
        """Return the score of some of the images.

        Parameters
        ----------
        chosen : array of bool, shape (n images,)
        """
        mask = np.asarray(chosen, bool)
        number = np.cumsum(mask) - 1
        hits, falses = mask[self.hit_image], mask[self.false_image]
        return replace(
            self,
            truths=tuple(t for t, c in zip(self.truths, mask, strict=True) if c),
            hit_confidence=self.hit_confidence[hits],
            hit_image=number[self.hit_image[hits]],
            hit_row=self.hit_row[hits],
            false_confidence=self.false_confidence[falses],
            false_image=number[self.false_image[falses]],
            false_row=self.false_row[falses],
            area_cm2=self.area_cm2[mask],
        )

    def curve(self, weights: ArrayLike | None = None) -> Curve:
        """Return the curve.

        Parameters
        ----------
        weights : array of float, shape (n images,), optional
            How often each image counts; resampling uses it.
        """
        weight = np.ones(len(self.truths)) if weights is None else np.asarray(weights, float)
        image, is_hit, last, threshold = self._ranked
        event = weight[image]
        n_hit = np.concatenate([[0.0], np.cumsum(event * is_hit)[last]])
        n_false = np.concatenate([[0.0], np.cumsum(event * ~is_hit)[last]])
        n_objects = float(weight[self.hit_image].sum())
        return Curve(
            threshold=threshold,
            sensitivity=n_hit / n_objects if n_objects else np.full(len(n_hit), np.nan),
            false_per_image=n_false / weight.sum(),
            false_per_cm2=n_false / (weight @ self.area_cm2),
        )

    @cached_property
    def _ranked(self) -> tuple[Ints, NDArray[np.bool_], Ints, Floats]:
        """Image and hit of each event by falling confidence, the last event of each tie, and the thresholds."""
        is_found = np.isfinite(self.hit_confidence)
        confidence = np.concatenate([self.hit_confidence[is_found], self.false_confidence])
        image = np.concatenate([self.hit_image[is_found], self.false_image])
        is_hit = np.arange(len(confidence)) < np.count_nonzero(is_found)
        order = np.argsort(-confidence, kind="stable")
        ranked = confidence[order]
        last = np.flatnonzero(np.append(np.diff(ranked) != 0, True)) if len(ranked) else np.empty(0, np.intp)
        return image[order], is_hit[order], last, np.concatenate([[np.inf], ranked[last]])


@dataclass(frozen=True, eq=False)
class Curve:
    """A staircase of sensitivity over false positives; the first step, at an infinite threshold, is (0, 0)."""

    threshold: Floats
    sensitivity: Floats
    false_per_image: Floats
    false_per_cm2: Floats

    def false_rate(self, per: Per) -> Floats:
        """Return the false positives per image or per cm2 of breast.

        Raises
        ------
        ReadError
            If the area of a breast is unknown.
        """
        rate = self.false_per_image if per == "image" else self.false_per_cm2
        if np.isnan(rate).any():
            raise ReadError(
                "an image has no reference mask: without the breast's area, score per image instead of per cm2"
            )
        return rate

    def step_at(self, rate: ArrayLike, per: Per) -> Ints:
        """Return the number of the last step whose false positives do not exceed each rate."""
        return np.searchsorted(self.false_rate(per), np.asarray(rate) * (1 + 1e-12), side="right") - 1

    def sensitivity_at(self, rate: ArrayLike, per: Per) -> Floats:
        """Return the sensitivity at each rate of false positives."""
        return np.asarray(self.sensitivity[self.step_at(rate, per)])

    def partial_area(self, limit: float, per: Per) -> float:
        """Return the mean sensitivity from no false positive up to a limit (area under the staircase by its width)."""
        rate = self.false_rate(per)
        edges = np.append(np.minimum(rate, limit), limit)
        return float(np.sum(np.diff(edges) * self.sensitivity) / limit)

    def rows(self) -> list[Row]:
        """Return one row a step, for a CSV."""
        names = ("threshold", "sensitivity", "false_per_image", "false_per_cm2")
        columns = (getattr(self, n).tolist() for n in names)
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def score_spots(
    pairs: Iterable[Pair],
    rule: SpotRule = SpotRule.OWN,
    *,
    ignore_zones: bool = True,
    ignore_macro: bool = False,
) -> Score:
    """Score single calcifications; the options are those of `match_spots`.

    Raises
    ------
    ReadError
        If no image tells where its calcifications are.
    """
    located = _located(pairs)
    matched = [match_spots(t, f, rule, ignore_zones=ignore_zones, ignore_macro=ignore_macro) for t, f in located]
    confidences = [f.spots.confidence for _, f in located]
    return _gather(str(rule), located, matched, confidences, ignore_zones)


def score_clusters(
    pairs: Iterable[Pair], rule: ClusterRule = ClusterRule.R3, *, per_case: bool = False, ignore_zones: bool = True
) -> Score:
    """Score groups.

    Parameters
    ----------
    pairs : iterable of (ImageTruth, Findings)
    rule : ClusterRule
    per_case : bool
        Count a lesion once for all views of its breast in one examination: hit if it is hit in either. Where the set
        does not say which marks are one lesion, all marks of the breast are taken for one.
    ignore_zones : bool

    Raises
    ------
    ReadError
        If no image tells where its groups are.
    """
    located = _located(pairs)
    matched = [match_clusters(t, f, rule, ignore_zones=ignore_zones) for t, f in located]
    confidences = [f.clusters.confidence for _, f in located]
    score = _gather(f"{rule} per {'case' if per_case else 'view'}", located, matched, confidences, ignore_zones)
    return _by_lesion(score) if per_case else score


def _located(pairs: Iterable[Pair]) -> list[Pair]:
    located = [(t, f) for t, f in pairs if t.located]
    if not located:
        raise ReadError("no image of the set tells where its calcifications are: only image-level scores are possible")
    return located


def _gather(
    rule: str, pairs: Sequence[Pair], matched: Sequence[Matched], confidences: Sequence[Floats], ignore_zones: bool
) -> Score:
    hits = [np.flatnonzero(~np.isnan(m.hit_confidence)) for m in matched]
    falses = [np.flatnonzero(m.is_false) for m in matched]
    return Score(
        rule=rule,
        truths=tuple(t for t, _ in pairs),
        hit_confidence=np.concatenate([m.hit_confidence[h] for m, h in zip(matched, hits, strict=True)]),
        hit_image=np.repeat(np.arange(len(pairs)), [len(h) for h in hits]),
        hit_row=np.concatenate(hits),
        false_confidence=np.concatenate([c[f] for c, f in zip(confidences, falses, strict=True)]),
        false_image=np.repeat(np.arange(len(pairs)), [len(f) for f in falses]),
        false_row=np.concatenate(falses),
        area_cm2=np.array([t.breast_area_cm2(without_ignored=ignore_zones) for t, _ in pairs]),
    )


def _by_lesion(score: Score) -> Score:
    keys = []
    for image, row in zip(score.hit_image, score.hit_row, strict=True):
        truth = score.truths[image]
        keys.append((truth.patient_id, truth.case_id, truth.side, truth.marks[row].lesion))
    if not keys:
        return score
    _, first, lesion = np.unique(np.array(keys), axis=0, return_index=True, return_inverse=True)
    best = np.full(len(first), -np.inf)
    np.maximum.at(best, lesion, score.hit_confidence)
    return replace(score, hit_confidence=best, hit_image=score.hit_image[first], hit_row=score.hit_row[first])


# --------------------------------------------------------------------------------------------------------------
# with intervals


def sensitivities(score: Score, per: Per, rates: Sequence[float] | None = None, *, seed: int = 0) -> list[Estimate]:
    """Return the sensitivity at each rate, resampled by patient, or as k of n where the objects are few."""
    wanted = RATES[per] if rates is None else rates
    values = score.curve().sensitivity_at(wanted, per)
    n, n_patients = score.n_objects, _n_patients(score)
    hit = [round(v * n) if n else 0 for v in values]
    if n <= FEW_MARKS:
        return [proportion(k, n, n_patients) for k in hit]
    low, high = resample(lambda w: score.curve(w).sensitivity_at(wanted, per), score.patients, seed=seed)
    note = resampled_note(n_patients)
    return [
        Estimate(float(v), float(a), float(b), note, k, n) for v, a, b, k in zip(values, low, high, hit, strict=True)
    ]


def partial_area(score: Score, limit: float, per: Per, *, seed: int = 0) -> Estimate:
    """Return the mean sensitivity up to a limit of false positives, resampled by patient."""
    low, high = resample(lambda w: score.curve(w).partial_area(limit, per), score.patients, seed=seed)
    value = score.curve().partial_area(limit, per)
    return Estimate(value, float(low), float(high), resampled_note(_n_patients(score)))


def differences(
    first: Score, second: Score, per: Per, rates: Sequence[float] | None = None, *, seed: int = 0
) -> list[Estimate]:
    """Return the first's sensitivity less the second's at each rate, on the same images, patients drawn for both alike.

    Raises
    ------
    ValueError
        If the two scores are not of the same images in the same order, or of the same objects.
    """
    if [t.image_id for t in first.truths] != [t.image_id for t in second.truths] or first.n_objects != second.n_objects:
        raise ValueError("a paired difference needs two scores of the same images and the same objects")
    wanted = RATES[per] if rates is None else rates

    def gain(weights: Floats | None) -> Floats:
        return first.curve(weights).sensitivity_at(wanted, per) - second.curve(weights).sensitivity_at(wanted, per)

    low, high = resample(gain, first.patients, seed=seed)
    note = resampled_note(_n_patients(first))
    return [Estimate(float(v), float(a), float(b), note) for v, a, b in zip(gain(None), low, high, strict=True)]


def _n_patients(score: Score) -> int:
    return len({t.patient_id for t in score.truths})


# --------------------------------------------------------------------------------------------------------------
# whole images and cases


@dataclass(frozen=True, eq=False)
class Roc:
    """How well the highest confidence in an image tells positive images from negative ones."""

    false_positive_share: Floats
    sensitivity: Floats
    auc: Estimate
    n_positive: int
    n_negative: int


def image_confidence(findings: Findings) -> float:
    """Return the highest confidence of a cluster of the image; 0 if there is none."""
    return float(findings.clusters.confidence.max(initial=0.0))


def image_suspicion(findings: Findings) -> float:
    """Return the highest suspicion of a cluster of the image; 0 if there is none."""
    return float(findings.clusters.suspicion.max(initial=0.0))


def image_roc(pairs: Iterable[Pair], value: Callable[[Findings], float] = image_confidence, *, seed: int = 0) -> Roc:
    """Return the image-level ROC over all images whose `positive` is known.

    Raises
    ------
    ReadError
        If there are no positive or no negative images.
    """
    labelled = [(t, value(f)) for t, f in pairs if t.positive is not None]
    positive = np.array([bool(t.positive) for t, _ in labelled])
    if positive.all() or not positive.any():
        raise ReadError("an image-level ROC needs images with and images without calcifications")
    values = np.array([v for _, v in labelled])
    patients = np.unique([t.patient_id for t, _ in labelled], return_inverse=True)[1]
    low, high = resample(lambda w: area_under_roc(values, positive, w), patients, seed=seed)
    note = resampled_note(len(np.unique(patients)))
    order = np.argsort(-values, kind="stable")
    last = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    steps = [np.concatenate([[0.0], np.cumsum(side[order])[last] / side.sum()]) for side in (~positive, positive)]
    auc = Estimate(area_under_roc(values, positive), float(low), float(high), note)
    return Roc(steps[0], steps[1], auc, int(positive.sum()), int((~positive).sum()))


def area_under_roc(values: ArrayLike, positive: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the chance that a positive image has the higher value, ties counting half; NaN if a side is empty."""
    value, is_positive = np.asarray(values, float), np.asarray(positive, bool)
    weight = np.ones(len(value)) if weights is None else np.asarray(weights, float)
    rank = rankdata(value, method="dense") - 1
    sides = [np.bincount(rank[m], weight[m], minlength=rank.max(initial=0) + 1) for m in (is_positive, ~is_positive)]
    below = np.cumsum(sides[1]) - sides[1] / 2
    total = sides[0].sum() * sides[1].sum()
    return float(sides[0] @ below / total) if total else math.nan


def flagged_cases(pairs: Iterable[Pair]) -> list[Row]:
    """Return flagged clusters a case and the share of cases with one, for positive and for normal cases apart.

    A case is one examination; it is positive if any of its images is, normal if all are known to be negative.
    """
    flags: dict[tuple[str, str], list[tuple[bool | None, int]]] = {}
    for truth, findings in pairs:
        n_review = int(np.count_nonzero(findings.clusters.review))
        flags.setdefault((truth.patient_id, truth.case_id), []).append((truth.positive, n_review))
    rows: list[Row] = []
    for name, wanted in (("positive", True), ("normal", False)):
        cases = {
            key: sum(n for _, n in images)
            for key, images in flags.items()
            if (any(p for p, _ in images) if wanted else all(p is False for p, _ in images))
        }
        n_flagged = sum(n > 0 for n in cases.values())
        share = proportion(n_flagged, len(cases), len({patient for patient, _ in cases}))
        per_case = sum(cases.values()) / len(cases) if cases else math.nan
        rows.append({"cases": name, "flagged_clusters_per_case": per_case} | estimate_row("flagged_share", share))
    return rows


# --------------------------------------------------------------------------------------------------------------
# tables and pictures


def sensitivity_rows(score: Score, per: Per, rates: Sequence[float] | None = None, *, seed: int = 0) -> list[Row]:
    """Return the sensitivity at each rate as rows, with the threshold that gives it."""
    wanted = RATES[per] if rates is None else rates
    curve = score.curve()
    thresholds = curve.threshold[curve.step_at(wanted, per)]
    estimates = sensitivities(score, per, wanted, seed=seed)
    head = {"rule": score.rule, "per": per}
    return [
        head | {"false_positives": rate, "threshold": float(threshold)} | estimate_row("sensitivity", estimate)
        for rate, threshold, estimate in zip(wanted, thresholds, estimates, strict=True)
    ]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV: floats with 6 significant digits, ``true`` and ``false``, unknown and infinite cells empty.

    Raises
    ------
    ExportError
        If the file cannot be written.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from error


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def check_matplotlib() -> None:
    """Raise if curves cannot be drawn, before hours of work that would end with them.

    Raises
    ------
    ExportError
        If matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ExportError(extra_missing("drawing curves", "matplotlib", "evaluate"))


def draw_curves(path: Path, curves: Mapping[str, Curve], per: Per, *, limit: float | None = None) -> None:
    """Draw curves as a PNG, one line a method, from no false positive up to a limit.

    Raises
    ------
    ExportError
        If matplotlib is not installed, or the file cannot be written.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    end = max(RATES[per]) * 1.5 if limit is None else limit
    for name, curve in curves.items():
        rate = curve.false_rate(per)
        shown = np.append(rate[rate <= end], end)
        axes.step(shown, curve.sensitivity_at(shown, per), where="post", label=name)
    axes.set(xlim=(0, end), ylim=(0, 1), ylabel="sensitivity")
    axes.set_xlabel("false positives per image" if per == "image" else "false positives per cm² of breast")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    try:
        figure.savefig(path, dpi=150, metadata={"Software": None})
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from error
