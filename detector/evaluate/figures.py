"""The figures of ACCURACY.md: what outcomes of trials say, as rows of tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.evaluate.froc import Per, Score, score_clusters, score_spots
from detector.evaluate.groups import place_words
from detector.evaluate.matching import ClusterRule, SpotRule, match_clusters, match_spots
from detector.evaluate.peers import PEERS
from detector.evaluate.trials import Outcome, settings_at
from detector.evaluate.truth import Findings, Mark, Pair, places_of
from detector.evaluate.uncertainty import Row, proportion
from detector.records import Kind, Morphology, Reading

OURS = "this program"
POINTS = ("sensitive", "balanced", "specific")
SPOT_RATES, CLUSTER_RATES = (0.1, 0.4, 1.0), (0.21, 0.5, 1.0)
LEAST_MACRO_MM = 1.2
NEAR_MM = 5.0
"""Distance from skin or chest wall within which a group counts as at the border (see `place_words`)."""

Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Share:
    """k of n."""

    k: int
    n: int

    def __str__(self) -> str:
        return f"{self.k} of {self.n}" + (f" ({self.k / self.n:.0%})" if self.n else "")

    @property
    def value(self) -> float:
        """The share; NaN of none."""
        return self.k / self.n if self.n else float("nan")


def share_of(is_true: Sequence[bool] | NDArray[np.bool_]) -> Share:
    """Return how many are true."""
    return Share(int(np.count_nonzero(is_true)), len(is_true))


# --------------------------------------------------------------------------------------------------------------
# single calcifications


def spot_score(outcomes: Sequence[Outcome], method: str = OURS, *, ignore_zones: bool = True) -> Score:
    """Return the score of a method by our own rule, macrocalcifications counting neither way."""
    pairs: list[Pair] = [o.pair if method == OURS else (o.truth, o.peers[method]) for o in outcomes]
    return score_spots(pairs, SpotRule.OWN, ignore_zones=ignore_zones, ignore_macro=True)


def spot_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return sensitivity at each rate, a row a method, ours also with the zones of real calcium counted."""
    methods = [OURS, *(name for name in PEERS if all(name in o.peers for o in outcomes))]
    rows = [{"method": name} | _at_rates(spot_score(outcomes, name), SPOT_RATES, "cm2") for name in methods]
    if any(o.truth.ignored for o in outcomes):
        score = spot_score(outcomes, ignore_zones=False)
        rows.insert(1, {"method": f"{OURS}, zones counted"} | _at_rates(score, SPOT_RATES, "cm2"))
    return rows


def _at_rates(score: Score, rates: Sequence[float], per: Per) -> Row:
    values = score.curve().sensitivity_at(rates, per)
    unit = "cm²" if per == "cm2" else "image"
    row: Row = {f"{rate:g} per {unit}": float(value) for rate, value in zip(rates, values, strict=True)}
    return row | {"marked": score.n_objects}


def reliability_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return, by steps of confidence, how many of the spots are true; micro- and macrocalcifications alike."""
    given, true = [], []
    for outcome in outcomes:
        matched = match_spots(*outcome.pair)
        is_hit = np.zeros(len(outcome.reading.spots), np.bool_)
        is_hit[matched.found_by[matched.found_by >= 0]] = True
        counts = is_hit | matched.is_false
        given.append(outcome.reading.spots.confidence[counts])
        true.append(is_hit[counts])
    confidence, is_true = np.concatenate(given), np.concatenate(true)
    rows: list[Row] = []
    edges = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    step = np.clip(np.searchsorted(edges, confidence, "right") - 1, 0, len(edges) - 2)
    for i in range(len(edges) - 1):
        chosen = step == i
        if chosen.any():
            row: Row = {"confidence": f"{edges[i]:g} to {edges[i + 1]:g}", "spots": int(chosen.sum())}
            rows.append(row | {"given": float(confidence[chosen].mean()), "true": float(is_true[chosen].mean())})
    return rows


def point_rows(outcomes: Sequence[Outcome], normal: Mapping[str, Sequence[Outcome]]) -> list[Row]:
    """Return what each operating point finds, and what it raises where nothing is.

    Parameters
    ----------
    outcomes : sequence of Outcome
        With calcifications.
    normal : mapping of str to sequence of Outcome
        Images without, by what they are.
    """
    score = spot_score(outcomes)
    rows = []
    for point in POINTS:
        threshold = settings_at(point).cluster.min_confidence
        clusters = score_clusters(pairs_at(outcomes, point))
        row: Row = {
            "operating point": point,
            "confidence from": threshold,
            "spots found": share_of(score.hit_confidence >= threshold).value,
            "false spots per cm²": float((score.false_confidence >= threshold).sum() / score.area_cm2.sum()),
            "groups found": share_of(np.isfinite(clusters.hit_confidence)).value,
            "false groups per image": len(clusters.false_confidence) / len(outcomes),
        }
        for name, images in normal.items():
            flags = [o.at(point).n_review for o in images]
            row[f"flagged groups per {name}"] = float(np.mean(flags))
            row[f"share of {name}s flagged"] = share_of(np.array(flags) > 0).value
        rows.append(row)
    return rows


# --------------------------------------------------------------------------------------------------------------
# groups


def pairs_at(outcomes: Sequence[Outcome], point: str) -> list[Pair]:
    """Return truths and what is found at an operating point."""
    return [(o.truth, Findings.of_reading(o.at(point))) for o in outcomes]


def cluster_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return the share of groups found at each rate, at two operating points and by two rules.

    Where real calcium is marked, there are rows with its zones counted as well.
    """
    rows = []
    zones = (True, False) if any(o.truth.ignored for o in outcomes) else (True,)
    for point in POINTS[:2]:
        pairs = pairs_at(outcomes, point)
        for rule in ClusterRule:
            for ignored in zones:
                score = score_clusters(pairs, rule, ignore_zones=ignored)
                words = rule.value if ignored else f"{rule.value}, zones counted"
                rows.append({"operating point": point, "rule": words} | _at_rates(score, CLUSTER_RATES, "image"))
    return rows


def macro_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return what becomes of inserted round macrocalcifications over 1.2 mm, at the operating point `balanced`."""
    found, labelled, flagged, sized = [], [], [], []
    for outcome in outcomes:
        reading = outcome.at("balanced")
        truth = outcome.truth.spots
        is_macro = (truth.kind == Kind.MACRO) & (truth.diameter_mm >= LEAST_MACRO_MM)
        rows = match_spots(outcome.truth, Findings.of_reading(reading)).found_by[is_macro]
        found += (rows >= 0).tolist()
        labelled += [bool(row >= 0 and reading.spots.kind[row] == Kind.MACRO) for row in rows]
        flagged += [bool(row >= 0 and reading.spots.cluster_id[row] in _flagged(reading)) for row in rows]
        true_mm, hit = truth.diameter_mm[is_macro][rows >= 0], rows[rows >= 0]
        error_mm = np.abs(reading.spots.diameter_mm[hit] - true_mm)
        sized += (error_mm <= np.maximum(0.15 * true_mm, outcome.truth.pixel_size_mm[0])).tolist()
    return [
        {"round macrocalcifications over 1.2 mm": "found", "share": str(share_of(found))},
        {"round macrocalcifications over 1.2 mm": "labelled macro", "share": str(share_of(labelled))},
        {"round macrocalcifications over 1.2 mm": "in a flagged group", "share": str(share_of(flagged))},
        {
            "round macrocalcifications over 1.2 mm": "of the found, diameter within 15 % or a pixel",
            "share": str(share_of(sized)),
        },
    ]


def _flagged(reading: Reading) -> set[int]:
    return set(reading.clusters.cluster_id[reading.clusters.review].tolist())


def linear_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return what becomes of groups of fine lines, at the operating point `balanced`."""
    found, flagged, vascular, macro = [], [], [], []
    for outcome in outcomes:
        reading = outcome.at("balanced")
        findings = Findings.of_reading(reading)
        hit_by = match_clusters(outcome.truth, findings).found_by
        found += (hit_by >= 0).tolist()
        rows = hit_by[hit_by >= 0]
        flagged += reading.clusters.review[rows].tolist()
        vascular += (reading.clusters.morphology[rows] == Morphology.VASCULAR).tolist()
        spots = match_spots(outcome.truth, findings).found_by
        macro += (reading.spots.kind[spots[spots >= 0]] == Kind.MACRO).tolist()
    return [
        {"groups of fine lines": "found", "share": str(share_of(found))},
        {"groups of fine lines": "of the found, flagged", "share": str(share_of(flagged))},
        {"groups of fine lines": "of the found, called vascular", "share": str(share_of(vascular))},
        {"groups of fine lines": "of the lines found, labelled macro", "share": str(share_of(macro))},
    ]


def border_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return what is closed to the search, and what becomes of groups within 5 mm of skin or chest wall."""
    closed = [o.closed_share for o in outcomes]
    masked, found = [], []
    for outcome in outcomes:
        marks, reading = outcome.truth.marks, outcome.at("balanced")
        words = place_words([mark.center_px for mark in marks], reading) if marks else []
        near = np.isin(words, ("skin", "chest wall"))
        members = outcome.known.spots.cluster_id
        of_marks = [int(mark.lesion) for mark in marks]
        masked += [
            bool(outcome.masked[members == n].all()) for n, is_near in zip(of_marks, near, strict=True) if is_near
        ]
        found += (match_clusters(outcome.truth, Findings.of_reading(reading)).found_by >= 0)[near].tolist()
    return [
        {"": "share of the breast where nothing is looked for, mean", "share": f"{np.mean(closed):.2%}"},
        {"": "the same, most in an image", "share": f"{np.max(closed):.2%}"},
        {"": f"groups within {NEAR_MM:g} mm of skin or chest wall lost to that", "share": str(share_of(masked))},
        {"": "of these groups, found", "share": str(share_of(found))},
    ]


# --------------------------------------------------------------------------------------------------------------
# phantoms


def flag_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return false groups and flags on images without calcifications, by operating point."""
    rows = []
    for point in POINTS:
        readings = [o.at(point) for o in outcomes]
        flags = np.array([r.n_review for r in readings])
        share = proportion(int((flags > 0).sum()), len(flags), len(flags))
        row: Row = {
            "operating point": point,
            "groups per image": float(np.mean([len(r.clusters) for r in readings])),
            "flagged groups per image": float(flags.mean()),
            "images with a flag": str(Share(int((flags > 0).sum()), len(flags))),
            "95 % interval": f"{share.low:.2f} to {share.high:.2f}",
        }
        rows.append(row)
    return rows


def track_share(outcomes: Sequence[Outcome]) -> Share:
    """Return how many vascular tracks lie under a flagged group, at the operating point `balanced`."""
    return share_of(
        [_is_flagged(o.at("balanced"), mark, o.truth.pixel_size_mm) for o in outcomes for mark in o.truth.marks]
    )


def _is_flagged(reading: Reading, mark: Mark, spacing_mm: tuple[float, float]) -> bool:
    """Return whether at least two spots of one flagged group lie in a mark grown by a millimetre."""
    inside = mark.contains(places_of(reading.spots), spacing_mm, 1.0)
    numbers, counts = np.unique(reading.spots.cluster_id[inside], return_counts=True)
    return bool(np.isin(numbers[counts >= 2], list(_flagged(reading))).any())


def confusion_rows(
    outcomes: Sequence[Outcome], words: Callable[[Reading], list[str]], true_words: Callable[[Outcome], list[str]]
) -> list[Row]:
    """Return how often each true word of a group is told as each other, at the operating point `balanced`.

    Parameters
    ----------
    outcomes : sequence of Outcome
    words : callable
        The words of the found groups, one a row of its clusters.
    true_words : callable
        The words of the true groups, one a mark.
    """
    told: list[tuple[str, str]] = []
    for outcome in outcomes:
        reading = outcome.at("balanced")
        names = [*(word or "no word" for word in words(reading)), "not found"]
        hit_by = match_clusters(outcome.truth, Findings.of_reading(reading)).found_by
        told += [(true, names[row]) for true, row in zip(true_words(outcome), hit_by, strict=True)]
    columns = sorted({found for _, found in told})
    return [
        {"true": true} | {name: told.count((true, name)) or None for name in columns}
        for true in dict.fromkeys(true for true, _ in told)
    ]
