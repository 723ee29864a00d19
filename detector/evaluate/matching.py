"""Which finding hits which calcification, by rules that others use and by our own.

Each rule yields, for every true object, the highest confidence threshold at which it is hit; that one number an object
is all that a curve over thresholds needs. It exists because under each rule an object that is hit stays hit when the
threshold falls: a new finding adds at most one hit and takes none away. (One to one by least distance is a matching
grown by alternating paths, which never free an object; objects choosing in turn pass at most one finding on.)
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from detector.evaluate.truth import Findings, Floats, ImageTruth, Mark, in_any, places_of
from detector.records import Clusters, Kind, Outlines, Spots

Ints = NDArray[np.intp]

REACH_MM = 0.35
"""Farthest hit of R1 and least reach of our own rule (HDoGReg, arXiv 2102.00754)."""
REACH_PX = 1.5
"""Least reach of our own rule in pixels: what a peak on a coarse grid may be off by."""
KIND_REACH_MM = 1.0
"""Farthest hit of R2."""
LEAST_OVERLAP = 0.3
"""Intersection over union from which R1 counts a hit without nearness (arXiv 2102.00754)."""
MARK_RADIUS_MM = 5.0
"""Least radius of a marked circle in R3."""
MARK_MARGIN_MM = 2.5
"""Growth of a marked outline in R3."""
LARGEST_SHARE = 4.0
"""A found cluster over this many times the mark's area hits nothing in R3."""
_FAR = 1e6


class SpotRule(enum.StrEnum):
    """How single calcifications are matched."""

    OWN = "own"
    """One to one, as many hits as possible and of these the least summed distance (Hungarian), within the largest of
    0.35 mm, 1.5 px and the true object's radius."""
    R1 = "R1"
    """One to one in the order of the true objects: the nearest free finding within 0.35 mm, else the free one with the
    highest intersection over union if that is at least 0.3 (arXiv 2102.00754). A finding or object without an
    outline is taken for a disc of its diameter."""
    R2 = "R2"
    """Many to many: a hit if any finding lies within 1 mm; a finding is false if no true object is within 1 mm."""


class ClusterRule(enum.StrEnum):
    """How groups are matched: R3, or R3 by spots instead of centres."""

    R3 = "R3"
    """A found cluster hits a mark if its centre lies in the mark (a circle of at least 5 mm radius, an outline grown by
    2.5 mm) or the mark's centre lies in the cluster, unless it is over four times the area of that mark. Many to
    many: several in one mark are one hit, and one that hits any mark is not false."""
    R3_SPOTS = "R3 two spots"
    """As R3, but the cluster hits if at least two of its spots lie in the mark."""


@dataclass(frozen=True, eq=False)
class Matched:
    """What hits what in one image.

    Attributes
    ----------
    hit_confidence : ndarray of float64, shape (n objects,)
        Highest threshold at which the object is hit; -inf if never, NaN if it does not count.
    found_by : ndarray of intp, shape (n objects,)
        Row of the finding that first hit it; -1 if none.
    is_false : ndarray of bool, shape (n findings,)
            Findings that count as false positives: each that neither hits nor is ignored.
    """

    hit_confidence: Floats
    found_by: Ints
    is_false: NDArray[np.bool_]


def match_spots(
    truth: ImageTruth,
    findings: Findings,
    rule: SpotRule = SpotRule.OWN,
    *,
    ignore_zones: bool = True,
    ignore_macro: bool = False,
) -> Matched:
    """Match the spots of one image.

    Parameters
    ----------
    truth : ImageTruth
    findings : Findings
        Ranked by `confidence`; equal confidences enter together.
    rule : SpotRule
    ignore_zones : bool
        True objects and findings in the ignored zones count neither way.
    ignore_macro : bool
        True macrocalcifications do not count, nor do findings within their reach that hit nothing else.

    Returns
    -------
    Matched

    Raises
    ------
    NoPixelSpacing
        If the truth has no pixel size.
    """
    spacing = truth.pixel_size_mm
    true_px, found_px = places_of(truth.spots), places_of(findings.spots)
    zones = truth.ignored if ignore_zones else ()
    counts, is_open = ~in_any(zones, true_px, spacing), ~in_any(zones, found_px, spacing)
    spared = counts & (truth.spots.kind == Kind.MACRO) if ignore_macro else np.zeros(len(counts), bool)
    counts &= ~spared

    true_row, found_row = np.flatnonzero(counts), np.flatnonzero(is_open)
    # ties of confidence are broken by place, so that the order of the rows changes nothing
    found_row = found_row[np.lexsort((*found_px[found_row].T[::-1], -findings.spots.confidence[found_row]))]
    pairs = _near_pairs(truth, findings, rule, true_row, found_row)
    first = (
        _first_hits(pairs, _CHOICES[rule], len(true_row), len(found_row))
        if rule in _CHOICES
        else _any_hits(pairs, len(true_row))
    )
    hit_by = np.append(found_row, -1)[first]

    is_false = is_open.copy()
    is_false[hit_by[hit_by >= 0] if rule in _CHOICES else found_row[pairs.found]] = False
    is_false[is_false] = ~_within(
        found_px[is_false], true_px[spared], _reach_mm(truth, rule, whole=True)[spared], spacing
    )
    return _matched(true_row, hit_by, findings.spots.confidence, len(counts), is_false)


def match_clusters(
    truth: ImageTruth, findings: Findings, rule: ClusterRule = ClusterRule.R3, *, ignore_zones: bool = True
) -> Matched:
    """Match the groups of one image; the parameters and the result are as those of `match_spots`."""
    spacing = truth.pixel_size_mm
    centers = places_of(findings.clusters)
    regions = cluster_regions(findings.clusters, findings.cluster_outlines, spacing)
    hits = np.array([_hits_of_mark(m, findings, regions, rule, spacing) for m in truth.marks], bool)
    hits = hits.reshape(len(truth.marks), len(regions))
    zones = truth.ignored if ignore_zones else ()
    counts = ~in_any(zones, [m.center_px for m in truth.marks], spacing)
    is_open = ~in_any(zones, centers, spacing)
    true_row, found_row = np.flatnonzero(counts), np.flatnonzero(is_open)
    found_row = found_row[np.lexsort((*centers[found_row].T[::-1], -findings.clusters.confidence[found_row]))]
    true, found = np.nonzero(hits[np.ix_(true_row, found_row)])
    pairs = _Pairs(true, found, np.zeros(len(true)))
    hit_by = np.append(found_row, -1)[_any_hits(pairs, len(true_row))]
    is_false = is_open & ~hits.any(axis=0)
    return _matched(true_row, hit_by, findings.clusters.confidence, len(counts), is_false)


def _hits_of_mark(
    mark: Mark, findings: Findings, regions: list[Mark], rule: ClusterRule, spacing: tuple[float, float]
) -> NDArray[np.bool_]:
    if rule is ClusterRule.R3:
        hits = in_mark(mark, places_of(findings.clusters), spacing)
        hits |= np.array([r.contains([mark.center_px], spacing)[0] for r in regions], bool)
    else:
        owner = findings.spots.cluster_id[in_mark(mark, places_of(findings.spots), spacing)]
        hits = np.count_nonzero(findings.clusters.cluster_id[:, None] == owner, axis=1) >= 2
    largest = LARGEST_SHARE * mark.area_mm2(spacing, MARK_MARGIN_MM, MARK_RADIUS_MM)
    return np.asarray(hits & np.array([r.area_mm2(spacing) <= largest for r in regions], bool))


def cluster_regions(clusters: Clusters, outlines: Outlines, spacing_mm: tuple[float, float]) -> list[Mark]:
    """Return the area of each found cluster: its outline, else a disc of its area, else of its extent, else a point."""
    pixel_mm = math.sqrt(spacing_mm[0] * spacing_mm[1])
    radius_mm = np.sqrt(np.nan_to_num(clusters.area_mm2) / math.pi)
    radius_mm = np.where(radius_mm > 0, radius_mm, np.nan_to_num(clusters.extent_mm) / 2)
    return [
        Mark.outline(outlines[i])
        if i < len(outlines) and len(outlines[i])
        else Mark.circle(row, col, radius / pixel_mm)
        for i, (row, col, radius) in enumerate(zip(clusters.row_px, clusters.col_px, radius_mm, strict=True))
    ]


# --------------------------------------------------------------------------------------------------------------
# pairs that may match


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of a true object and a finding that may match, by their numbers; less cost is better."""

    true: Ints
    found: Ints
    cost: Floats


def _near_pairs(truth: ImageTruth, findings: Findings, rule: SpotRule, true_row: Ints, found_row: Ints) -> _Pairs:
    if rule is SpotRule.R1:
        return _near_or_overlapping(truth, findings, true_row, found_row)
    scale = np.array(truth.pixel_size_mm)
    true_mm, found_mm = places_of(truth.spots)[true_row] * scale, places_of(findings.spots)[found_row] * scale
    return _pairs_within(true_mm, found_mm, _reach_mm(truth, rule)[true_row])


def _near_or_overlapping(truth: ImageTruth, findings: Findings, true_row: Ints, found_row: Ints) -> _Pairs:
    """Return the pairs of R1: near ones cost their distance; others that overlap come after all of these."""
    scale = np.array(truth.pixel_size_mm)
    true_mm, found_mm = places_of(truth.spots)[true_row] * scale, places_of(findings.spots)[found_row] * scale
    true_radius = _radius_mm(truth.spots, truth.spot_outlines, scale)[true_row]
    found_radius = _radius_mm(findings.spots, findings.spot_outlines, scale)[found_row]
    pairs = _pairs_within(true_mm, found_mm, np.maximum(REACH_MM, true_radius + found_radius.max(initial=0)))
    cost = np.where(pairs.cost <= REACH_MM, pairs.cost, np.inf)
    for i in np.flatnonzero(np.isinf(cost) & (pairs.cost <= true_radius[pairs.true] + found_radius[pairs.found])):
        true = _outline_mm(truth.spots, truth.spot_outlines, true_row[pairs.true[i]], scale)
        found = _outline_mm(findings.spots, findings.spot_outlines, found_row[pairs.found[i]], scale)
        overlap = _overlap(true, found, scale)
        if overlap >= LEAST_OVERLAP:
            cost[i] = REACH_MM + 1 - overlap
    keep = np.isfinite(cost)
    return _Pairs(pairs.true[keep], pairs.found[keep], cost[keep])


def _pairs_within(true_mm: Floats, found_mm: Floats, reach_mm: Floats) -> _Pairs:
    if not (len(true_mm) and len(found_mm)):
        return _Pairs(np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0))
    near = KDTree(found_mm).query_ball_point(true_mm, reach_mm * (1 + 1e-9), return_sorted=True)
    true = np.repeat(np.arange(len(true_mm)), [len(n) for n in near])
    found = np.concatenate([np.asarray(n, np.intp) for n in near])
    return _Pairs(true, found, np.hypot(*(true_mm[true] - found_mm[found]).T))


def _within(
    points_px: Floats, centers_px: Floats, reach_mm: Floats, spacing_mm: tuple[float, float]
) -> NDArray[np.bool_]:
    scale = np.array(spacing_mm)
    inside = np.zeros(len(points_px), bool)
    inside[_pairs_within(centers_px * scale, points_px * scale, reach_mm).found] = True
    return inside


def _reach_mm(truth: ImageTruth, rule: SpotRule, *, whole: bool = False) -> Floats:
    """Return how far each true object reaches; `whole` takes in its length, for what is to be ignored with it."""
    spots, spacing = truth.spots, truth.pixel_size_mm
    if rule is SpotRule.R2:
        reach = np.full(len(spots), KIND_REACH_MM)
    elif rule is SpotRule.R1:
        reach = np.full(len(spots), REACH_MM)
    else:
        reach = np.fmax(max(REACH_MM, REACH_PX * math.sqrt(spacing[0] * spacing[1])), spots.diameter_mm / 2)
    return np.fmax(np.fmax(reach, spots.diameter_mm / 2), spots.length_mm / 2) if whole else reach


def _outline_mm(spots: Spots, outlines: Outlines, row: int, scale: Floats) -> Floats:
    if row < len(outlines) and len(outlines[row]) >= 3:
        return outlines[row] * scale
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    center = np.array([spots.row_px[row], spots.col_px[row]]) * scale
    return np.asarray(
        center + np.nan_to_num(spots.diameter_mm[row]) / 2 * np.column_stack([np.sin(angle), np.cos(angle)])
    )


def _radius_mm(spots: Spots, outlines: Outlines, scale: Floats) -> Floats:
    """Return the largest distance from each centre to its outline."""
    radius = np.nan_to_num(spots.diameter_mm) / 2
    if len(outlines):
        centers = places_of(spots) * scale
        owner = np.repeat(np.arange(len(outlines)), np.diff(outlines.offsets))
        np.maximum.at(radius, owner, np.hypot(*(outlines.vertices_px * scale - centers[owner]).T))
    return radius


def _overlap(true_mm: Floats, found_mm: Floats, scale: Floats) -> float:
    """Return intersection over union of two outlines, drawn at four times the image's pixels."""
    low, high = (
        np.minimum(true_mm.min(axis=0), found_mm.min(axis=0)),
        np.maximum(true_mm.max(axis=0), found_mm.max(axis=0)),
    )
    fine = scale / 4
    shape = np.ceil((high - low) / fine).astype(int) + 1
    drawn = []
    for outline in (true_mm, found_mm):
        canvas = np.zeros(shape, np.uint8)
        cv2.fillPoly(canvas, [np.round((outline - low) / fine)[:, ::-1].astype(np.int32)], 1)
        drawn.append(canvas.astype(bool))
    return float(np.count_nonzero(drawn[0] & drawn[1]) / np.count_nonzero(drawn[0] | drawn[1]))


def in_mark(mark: Mark, points_px: Floats, spacing_mm: tuple[float, float]) -> NDArray[np.bool_]:
    """Tell which points, (row, col) in px, lie in a mark as large as R3 takes it, shape (n,)."""
    return mark.contains(points_px, spacing_mm, MARK_MARGIN_MM, MARK_RADIUS_MM)


# --------------------------------------------------------------------------------------------------------------
# from pairs to hits; findings are numbered by falling confidence


def _any_hits(pairs: _Pairs, n_true: int) -> Ints:
    """Return the first finding of each object, many to many; -1 for none."""
    first = np.full(n_true, np.iinfo(np.intp).max)
    np.minimum.at(first, pairs.true, pairs.found)
    return np.where(first == np.iinfo(np.intp).max, -1, first)


def _first_hits(pairs: _Pairs, choose: Callable[[Floats], NDArray[np.bool_]], n_true: int, n_found: int) -> Ints:
    """Return the finding whose arrival first hits each object, one to one; -1 for none.

    Objects and findings that no pair links cannot influence each other, so each connected group is solved by itself.
    """
    first = np.full(n_true, -1)
    links = coo_array((np.ones(len(pairs.true)), (pairs.true, n_true + pairs.found)), shape=(n_true + n_found,) * 2)
    group = connected_components(links, directed=False)[1][pairs.true]
    order = np.argsort(group, kind="stable")
    for chosen in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(chosen) == 0:
            continue
        trues, row = np.unique(pairs.true[chosen], return_inverse=True)
        founds, col = np.unique(pairs.found[chosen], return_inverse=True)
        cost = np.full((len(trues), len(founds)), np.inf)
        cost[row, col] = pairs.cost[chosen]
        first[trues] = _arrivals(cost, founds, choose)
    return first


def _arrivals(cost: Floats, founds: Ints, choose: Callable[[Floats], NDArray[np.bool_]]) -> Ints:
    first = np.full(len(cost), -1)
    for j, found in enumerate(founds):
        is_hit = choose(cost[:, : j + 1])
        if np.count_nonzero(is_hit) > np.count_nonzero(first >= 0):
            first[np.flatnonzero(is_hit & (first < 0))[0]] = found
        if (first >= 0).all():
            break
    return first


def _most_and_nearest(cost: Floats) -> NDArray[np.bool_]:
    """Tell which rows a matching of most pairs, and of these least cost, covers."""
    allowed = np.isfinite(cost)
    rows, cols = linear_sum_assignment(np.where(allowed, cost, _FAR))
    is_hit = np.zeros(len(cost), bool)
    is_hit[rows] = allowed[rows, cols]
    return is_hit


def _each_in_turn(cost: Floats) -> NDArray[np.bool_]:
    """Tell which rows get a column when each in turn takes the cheapest that is left."""
    left = cost.copy()
    is_hit = np.zeros(len(cost), bool)
    for i in range(len(cost)):
        best = int(np.argmin(left[i]))
        is_hit[i] = np.isfinite(left[i, best])
        if is_hit[i]:
            left[:, best] = np.inf
    return is_hit


_CHOICES: Mapping[SpotRule, Callable[[Floats], NDArray[np.bool_]]] = {
    SpotRule.OWN: _most_and_nearest,
    SpotRule.R1: _each_in_turn,
}


def _matched(true_row: Ints, hit_by: Ints, confidence: Floats, n_true: int, is_false: NDArray[np.bool_]) -> Matched:
    """Put results of the objects that count among all objects; `hit_by` holds rows of findings, -1 for none."""
    hit_confidence, found_by = np.full(n_true, np.nan), np.full(n_true, -1)
    hit_confidence[true_row] = np.append(confidence, -np.inf)[hit_by]
    found_by[true_row] = hit_by
    return Matched(hit_confidence, found_by, is_false)
