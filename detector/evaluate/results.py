"""All figures of a study: curves, sensitivities by every rule, whole images, cases, and groups of calcifications."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from detector.errors import ReadError
from detector.evaluate import groups
from detector.evaluate.froc import (
    Per,
    Score,
    flagged_cases,
    image_roc,
    partial_area,
    score_clusters,
    score_spots,
    sensitivity_rows,
)
from detector.evaluate.matching import ClusterRule, SpotRule
from detector.evaluate.study import Study
from detector.evaluate.truth import ImageTruth
from detector.evaluate.uncertainty import Row, estimate_row

SPOT_RATE, CLUSTER_RATE = 0.4, 0.5
"""False spots a cm2, and false clusters an image, at whose threshold groups are told apart and misses are shown."""


@dataclass(frozen=True, eq=False)
class Results:
    """The figures of a study; what the set has no truth for is left out.

    Attributes
    ----------
    spots : mapping of SpotRule to Score
        Empty if the set marks no single calcifications.
    clusters : mapping of str to Score
        By rule and ``per view`` or ``per case``; empty if the set marks no groups.
    sensitivity, areas, images, cases, groups : list of Row
        Tables.
    """

    spots: Mapping[SpotRule, Score]
    clusters: Mapping[str, Score]
    sensitivity: list[Row]
    areas: list[Row]
    images: list[Row]
    cases: list[Row]
    groups: list[Row]

    @property
    def spot_threshold(self) -> float:
        """Confidence at `SPOT_RATE` false spots a cm2 by our own rule."""
        return threshold_at(self.spots[SpotRule.OWN], SPOT_RATE, "cm2")

    @property
    def cluster_threshold(self) -> float:
        """Confidence at `CLUSTER_RATE` false clusters an image by R3 per view."""
        return threshold_at(self.clusters[PER_VIEW], CLUSTER_RATE, "image")


PER_VIEW = f"{ClusterRule.R3} per view"


def threshold_at(score: Score, rate: float, per: Per) -> float:
    """Return the lowest threshold whose false positives do not exceed a rate."""
    curve = score.curve()
    return float(curve.threshold[curve.step_at(rate, per)])


def evaluate_study(study: Study) -> Results:
    """Return all figures that the truth of a study allows.

    Raises
    ------
    ReadError
        If the set marks neither places nor images.
    """
    located = study.located
    spots, clusters = {}, {}
    if any(len(t.spots) for t, _ in located):
        spots = {rule: score_spots(located, rule) for rule in SpotRule}
    if any(t.marks for t, _ in located):
        scores = [score_clusters(located, rule, per_case=case) for rule in ClusterRule for case in (False, True)]
        clusters = {score.rule: score for score in scores}
    images = _image_rows(study)
    if not (spots or clusters or images):
        raise ReadError("the set marks no calcification and labels no image: there is nothing to score by")
    has_areas = bool(study.located) and all(t.breast is not None for t, _ in located)
    pers: tuple[Per, ...] = ("cm2", "image") if has_areas else ("image",)
    rows = [row for score in spots.values() for per in pers for row in sensitivity_rows(score, per)]
    rows += [row for score in clusters.values() for row in sensitivity_rows(score, "image")]
    return Results(
        spots=spots,
        clusters=clusters,
        sensitivity=rows,
        areas=_area_rows(spots, clusters, pers),
        images=images,
        cases=flagged_cases(study.pairs) if any(t.positive is not None for t, _ in study.pairs) else [],
        groups=_group_rows(study, spots, clusters, pers[0]),
    )


def _area_rows(spots: Mapping[SpotRule, Score], clusters: Mapping[str, Score], pers: tuple[Per, ...]) -> list[Row]:
    rows: list[Row] = []
    for score, per in [*((s, pers[0]) for s in spots.values()), *((s, "image") for s in clusters.values())]:
        per_: Per = "cm2" if per == "cm2" else "image"
        area = estimate_row("mean_sensitivity", partial_area(score, 1.0, per_))
        rows.append({"rule": score.rule, "up_to": 1.0, "per": per_} | area)
    return rows


def _image_rows(study: Study) -> list[Row]:
    """Return the area under the image-level curve; none if all labelled images are alike."""
    labels = [t.positive for t, _ in study.pairs if t.positive is not None]
    if len(set(labels)) < 2:
        return []
    roc = image_roc(study.pairs)
    counts = {"n_positive": roc.n_positive, "n_negative": roc.n_negative}
    return [{"ranked_by": "highest confidence of a cluster"} | counts | estimate_row("auc", roc.auc)]


Labels = Callable[[ImageTruth], Sequence[str]]


def _group_rows(study: Study, spots: Mapping[SpotRule, Score], clusters: Mapping[str, Score], per: Per) -> list[Row]:
    rows: list[Row] = []
    if spots:
        spot_labels: dict[str, Labels] = {
            "size": groups.spot_sizes,
            "contrast": groups.spot_contrasts,
            "form": groups.spot_forms,
            "place": _places(study, groups.spot_places(study.references)),
        }
        score = spots[SpotRule.OWN]
        rate = SPOT_RATE if per == "cm2" else CLUSTER_RATE
        rows += _rows_by(score, threshold_at(score, rate, per), "spots", spot_labels)
    if clusters:
        mark_labels: dict[str, Labels] = {
            "form": groups.mark_forms,
            "place": _places(study, groups.mark_places(study.references)),
        }
        score = clusters[PER_VIEW]
        rows += _rows_by(score, threshold_at(score, CLUSTER_RATE, "image"), "clusters", mark_labels)
    return rows


def _places(study: Study, label: Labels) -> Labels:
    def known(truth: ImageTruth) -> Sequence[str]:
        if truth.image_id in study.references:
            return label(truth)
        return ["unknown"] * max(len(truth.spots), len(truth.marks))

    return known


def _rows_by(score: Score, threshold: float, of: str, labels: Mapping[str, Labels]) -> list[Row]:
    """Return the rows of each way to group; those of one group only say nothing and are left out."""
    rows: list[Row] = []
    for by, label in (_image_labels() | dict(labels)).items():
        part = groups.breakdown(score, groups.labels_of(score, label), threshold)
        rows += [{"objects": of, "by": by} | row for row in part] if len(part) > 1 else []
    return rows


def _image_labels() -> dict[str, Labels]:
    def medium(truth: ImageTruth) -> str:
        return truth.tags.get("medium") or "unknown"

    def each(name: Callable[[ImageTruth], str]) -> Labels:
        return lambda truth: [name(truth)] * max(len(truth.spots), len(truth.marks))

    return {"medium": each(medium), "pixel size": each(groups.spacing_group)}
