"""Which spots belong together, and how each group lies: Spots -> Spots.cluster_id, Clusters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from detector.cluster.lines import TRACK_SHARE, find_tracks, is_wedge
from detector.records import (
    BENIGN_FORMS,
    LINE_MM,
    THIN_MM,
    BoolImage,
    Clusters,
    Distribution,
    Kind,
    Moments,
    Morphology,
    Outlines,
    Shape,
    Spots,
)
from detector.settings import ClusterSettings

DENSITY_DISC_MM = 5.642
"""Radius of a disc of 1 cm2."""

N_HULL_DIRECTIONS = 120
"""Directions in which the hull's corners are sought, 3 degrees apart."""

DOUBTFUL_SHARE = 0.5
"""Share of the link within which a spot of less than the core's confidence joins a group."""

RIM_MM, RIM_SHARE = 0.3, 0.1
"""Distance from a macrocalcification of benign form within which bright specks are parts of its rim, and the least one
by its width: large ones end as domes do, outside the outline at half of their height."""

N_BEST = 3
"""Spots that a group's confidence rests on: fewer are no group."""

LIKELY = 0.5
"""Confidence from which a spot is more likely calcium than not, so that its form counts."""

SUSPICIOUS_SHARE, LINEAR_SHARE = 0.4, 0.3
"""Shares of the forms told from which suspicious ones name the group, and two and more thin lines. Choices: noise and
pixels make one in five smooth grains look irregular at most, and of irregular grains some half look smooth."""

N_USUAL, SURE = 2, 0.9
"""How many surer groups of its image do not speak against a group, and the confidence up to which further ones do so in
full: over it less and less."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def cluster_spots(
    spots: Spots, nipple_px: Sequence[float] | None, settings: ClusterSettings
) -> tuple[Spots, Clusters, Outlines]:
    """Group the spots over the operating point's confidence and describe each group.

    Rule ``density``: spots with at least `density_minimum` in a disc of 1 cm2 around them, linked within `link_mm`.
    Rule ``grouped``: spots with at least `grouped_minimum` in a disc of `grouped_mm` across, linked within its radius.
    Spots on the rim, within a link of such a spot, join.

    Parameters
    ----------
    spots : Spots
    nipple_px : sequence of float or None
        (row, col) and what follows, as a Reading holds it: a segmental group is a wedge towards it.
    settings : ClusterSettings

    Returns
    -------
    spots : Spots
        With `cluster_id`.
    clusters : Clusters
        Columns of `assess` are blank.
    outlines : Outlines
        Convex hulls grown by `hull_margin_mm`, one a cluster.
    """
    members = np.flatnonzero(_can_be_member(spots, settings))
    group = _link(spots[members], settings)
    cluster_id = np.zeros(len(spots), np.int32)
    cluster_id[members] = group
    spots = spots.replace(cluster_id=cluster_id)
    n_clusters = int(group.max(initial=0))
    if n_clusters == 0:
        return spots, Clusters.empty(), Outlines.empty()
    grouped = spots[members[group > 0]]
    row = group[group > 0].astype(np.int64) - 1
    hull_mm = _grown_hulls(grouped, row, n_clusters, settings.hull_margin_mm)
    # the form of a doubtful spot says nothing, however doubtful ones the operating point lets in
    doubtful = grouped.confidence < max(settings.core_confidence, LIKELY)
    told = grouped.replace(
        shape=np.where(doubtful, Shape.UNRESOLVED, grouped.shape),
        morphology=np.where(doubtful, Morphology.NONE, grouped.morphology),
    )
    nipple_mm = _to_mm(grouped, nipple_px) if nipple_px else None
    clusters = _with_tracks(_describe(told, row, hull_mm), spots, settings)
    return spots, _with_wedges(clusters, told, row, nipple_mm), _outlines(grouped, hull_mm)


def _can_be_member(spots: Spots, settings: ClusterSettings) -> BoolImage:
    benign_macro = (spots.kind == Kind.MACRO) & np.isin(spots.morphology, BENIGN_FORMS)
    known = (spots.kind != Kind.UNKNOWN) & (spots.width_mm <= settings.macro_member_mm)
    members = known & ~benign_macro & (spots.confidence >= settings.member_confidence)
    members[members] = ~_is_on_rim(spots[members], spots[benign_macro & (spots.confidence >= settings.min_confidence)])
    return np.asarray(members, np.bool_)


def _is_on_rim(spots: Spots, macros: Spots) -> BoolImage:
    """Return which spots lie on one of the macrocalcifications or on its rim."""
    angle = np.radians(macros.orientation_deg)
    along, across = (
        (spots.row_mm[:, None] - macros.row_mm) * by_row + (spots.col_mm[:, None] - macros.col_mm) * by_col
        for by_row, by_col in ((np.sin(angle), np.cos(angle)), (np.cos(angle), -np.sin(angle)))
    )
    beyond = np.maximum(np.abs(along) - 0.5 * (macros.length_mm - macros.width_mm), 0)
    on_rim = np.hypot(beyond, across) <= 0.5 * macros.width_mm + np.maximum(RIM_MM, RIM_SHARE * macros.width_mm)
    return np.asarray(on_rim.any(axis=1), np.bool_)


def _link(spots: Spots, settings: ClusterSettings) -> NDArray[np.int32]:
    """Return the group of each spot, from 1 in order of each group's first spot; 0 is none."""
    n = len(spots)
    if settings.rule == "density":
        disc_mm, minimum, link_mm = DENSITY_DISC_MM, settings.density_minimum, settings.link_mm
    else:
        disc_mm, minimum, link_mm = settings.grouped_mm / 2, settings.grouped_minimum, settings.grouped_mm / 2
    if n < minimum:
        return np.zeros(n, np.int32)
    tree = cKDTree(np.stack([spots.row_mm, spots.col_mm], axis=1))
    pairs = tree.query_pairs(max(disc_mm, link_mm), output_type="ndarray")
    distance = np.hypot(*(c[pairs[:, 0]] - c[pairs[:, 1]] for c in (spots.row_mm, spots.col_mm)))
    close = pairs[distance <= disc_mm]
    strong = spots.confidence >= settings.core_confidence
    core = strong & (1 + np.bincount(close[strong[close].all(axis=1)].ravel(), minlength=n) >= minimum)
    # a doubtful spot joins what is there, it does not lead on to others
    reach = np.where(strong[pairs].all(axis=1), link_mm, DOUBTFUL_SHARE * link_mm)
    pairs, distance = pairs[distance <= reach], distance[distance <= reach]
    linked = pairs
    both = linked[core[linked].all(axis=1)]
    graph = coo_array((np.ones(len(both), np.int8), (both[:, 0], both[:, 1])), shape=(n, n))
    component = connected_components(graph, directed=False)[1].astype(np.int64)
    component[~core] = -1

    one = core[linked].sum(axis=1) == 1
    rim, length = linked[one], distance[one]
    outer = np.where(core[rim[:, 0]], rim[:, 1], rim[:, 0])
    inner = np.where(core[rim[:, 0]], rim[:, 0], rim[:, 1])
    # a spot on the rim joins its nearest core; ties go to the first row
    order = np.lexsort((inner, length, outer))
    first = np.unique(outer[order], return_index=True)[1]
    component[outer[order][first]] = component[inner[order][first]]
    # the disc of a core spot may reach farther than its links
    size = np.bincount(component + 1)
    component[size[component + 1] < minimum] = -1
    return _numbered(component)


def _numbered(component: Integers) -> NDArray[np.int32]:
    """Return components numbered from 1 in order of first appearance; -1 becomes 0."""
    names, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    order = np.argsort(np.where(names < 0, -1, first), kind="stable")
    number = np.empty(len(names), np.int32)
    number[order] = np.arange(len(names)) + (0 if (names < 0).any() else 1)
    return np.asarray(number[inverse], np.int32)


def _grown_hulls(spots: Spots, group: Integers, n_clusters: int, margin_mm: float) -> Floats:
    """Return the corners (row, col) of each grown convex hull in mm, shape (clusters, directions, 2).

    The outermost spot of each direction, moved outwards; the slow equivalent is `scipy.spatial.ConvexHull`.
    """
    # of two outermost spots the lower, then the right one is taken, whatever the order of rows
    order = np.lexsort((spots.col_mm, spots.row_mm, group))
    starts = np.searchsorted(group[order], np.arange(n_clusters))
    angle = np.arange(N_HULL_DIRECTIONS) * (2 * np.pi / N_HULL_DIRECTIONS)
    outwards = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    places = np.stack([spots.row_mm[order], spots.col_mm[order]], axis=1)
    along = outwards @ places.T
    farthest = np.maximum.reduceat(along, starts, axis=1)[:, group[order]]
    outermost = np.maximum.reduceat(np.where(along == farthest, np.arange(len(order)), -1), starts, axis=1)
    return np.asarray(places[outermost.T] + margin_mm * outwards, np.float64)


def _describe(spots: Spots, group: Integers, hull_mm: Floats) -> Clusters:
    n = len(hull_mm)
    following = np.roll(hull_mm, -1, axis=1)
    area_mm2 = 0.5 * (hull_mm[..., 1] * following[..., 0] - hull_mm[..., 0] * following[..., 1]).sum(axis=1)
    extent_mm, nearest_mm = _distances(spots, group, n)
    count = np.bincount(group, minlength=n)
    thin = _is_thin(spots)
    irregular = thin | np.isin(spots.shape, (Shape.IRREGULAR, Shape.BRANCHING))
    unresolved = spots.shape == Shape.UNRESOLVED
    n_irregular, n_unresolved, n_thin, n_macro = (
        np.bincount(group, flag, n).astype(np.int32) for flag in (irregular, unresolved, thin, spots.kind == Kind.MACRO)
    )
    mean, mean_square = (np.bincount(group, spots.diameter_mm**power, n) / count for power in (1, 2))
    elongation = _elongation(spots, group, n)
    morphology = _prevailing(spots, group, n)
    morphology[2 * n_unresolved > count] = Morphology.NONE
    return Clusters.blank(
        n,
        cluster_id=np.arange(1, n + 1),
        row_px=np.bincount(group, spots.row_px, n) / count,
        col_px=np.bincount(group, spots.col_px, n) / count,
        n_spots=count,
        n_irregular=n_irregular,
        n_unresolved=n_unresolved,
        n_macro=n_macro,
        n_thin=n_thin,
        extent_mm=extent_mm,
        area_mm2=area_mm2,
        density_per_cm2=100 * count / area_mm2,
        nearest_mm=nearest_mm,
        size_cv=np.sqrt(np.maximum(mean_square - mean**2, 0)) / mean,
        shape_irregularity=n_irregular / np.maximum(count - n_unresolved, 1) * (count > n_unresolved),
        elongation=elongation,
        distribution=_distribution(extent_mm, elongation, count),
        morphology=morphology,
        confidence=_confidence(spots.confidence, group, n),
    )


def _with_tracks(clusters: Clusters, spots: Spots, settings: ClusterSettings) -> Clusters:
    """Return the clusters with those told whose spots are mostly, by their length, calcium of vascular tracks."""
    counts = np.flatnonzero(spots.confidence >= settings.min_confidence)
    spots = spots[counts]
    in_track = find_tracks(spots, settings.core_confidence)
    if not in_track.any():
        return clusters
    length_mm, tracked_mm = (
        np.bincount(spots.cluster_id, spots.length_mm * chosen, len(clusters) + 1)[1:] for chosen in (1, in_track)
    )
    vascular = tracked_mm >= TRACK_SHARE * length_mm
    return clusters.replace(
        morphology=np.where(vascular, Morphology.VASCULAR, clusters.morphology),
        distribution=np.where(vascular, Distribution.LINEAR, clusters.distribution),
    )


def _with_wedges(clusters: Clusters, spots: Spots, group: Integers, nipple_mm: tuple[float, float] | None) -> Clusters:
    """Return the clusters with segmental ones told; regional clusters are few, so one by one."""
    if nipple_mm is None:
        return clusters
    distribution = clusters.distribution.copy()
    for row in np.flatnonzero(distribution == Distribution.REGIONAL):
        if is_wedge(spots[group == row], nipple_mm):
            distribution[row] = Distribution.SEGMENTAL
    return clusters.replace(distribution=distribution)


def _is_thin(spots: Spots) -> BoolImage:
    """Return which spots are thin lines or branching: over 1 mm long, under 0.5 mm across their stroke."""
    line = np.isin(spots.shape, (Shape.DASH, Shape.BRANCHING)) & (spots.stroke_mm < THIN_MM)
    return np.asarray(line & (spots.length_mm >= LINE_MM), np.bool_)


def _distances(spots: Spots, group: Integers, n_clusters: int) -> tuple[Floats, Floats]:
    """Return each cluster's largest distance between two spots and mean distance to the nearest spot."""
    # groups are laid far apart on a third axis, so that one tree answers for all
    places = np.stack([spots.row_mm, spots.col_mm, 1e4 * group], axis=1)
    nearest = cKDTree(places).query(places, k=2)[0][:, 1]
    nearest_mm = np.bincount(group, nearest, n_clusters) / np.bincount(group, minlength=n_clusters)
    angle = np.arange(180)[:, None] * (np.pi / 180)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(n_clusters))
    along = spots.col_mm[order] * np.cos(angle) + spots.row_mm[order] * np.sin(angle)
    caliper = np.maximum.reduceat(along, starts, axis=1) - np.minimum.reduceat(along, starts, axis=1)
    return caliper.max(axis=0), nearest_mm


def _elongation(spots: Spots, group: Integers, n_clusters: int) -> Floats:
    """Return the spread of the places across the main axis by that along it."""
    large, small = Moments.of(spots.row_mm, spots.col_mm, group, n_clusters).along_axes()
    return np.asarray(np.sqrt(small / np.maximum(large, 1e-12)), np.float64)


def _distribution(extent_mm: Floats, elongation: Floats, count: Integers) -> NDArray[np.int8]:
    """Return the distribution word: BI-RADS gives up to 2 cm to a group, over 2 cm to a region."""
    word = np.where(extent_mm > 20.0, Distribution.REGIONAL, Distribution.GROUPED)
    word[extent_mm > 60.0] = Distribution.DIFFUSE
    word[(elongation < 0.2) & (count >= 4) & (extent_mm > 5.0)] = Distribution.LINEAR
    return word.astype(np.int8)


def _prevailing(spots: Spots, group: Integers, n_clusters: int) -> NDArray[np.int8]:
    """Return each cluster's most frequent form word; of equals the more suspicious one, which has the higher code.

    Where suspicious forms are `SUSPICIOUS_SHARE` of those told, it is the most frequent of these.
    """
    words = np.zeros((n_clusters, len(Morphology)), np.int64)
    np.add.at(words, (group, spots.morphology), 1)
    words[:, Morphology.NONE] = 0
    told = np.maximum(words.sum(axis=1), 1)
    # thin lines decide even where they are few: the most suspicious form there is; one alone, among others, does not
    thin = words[:, Morphology.FINE_LINEAR] + words[:, Morphology.FINE_LINEAR_BRANCHING]
    suspicious = words[:, Morphology.AMORPHOUS :].sum(axis=1) >= SUSPICIOUS_SHARE * told
    usual = words.copy()
    usual[suspicious, : Morphology.AMORPHOUS] = 0
    usual[suspicious & (usual[:, : Morphology.FINE_LINEAR].sum(axis=1) > 0), Morphology.FINE_LINEAR :] = 0
    last = usual.shape[1] - 1 - np.argmax(usual[:, ::-1], axis=1)
    last[words.sum(axis=1) == 0] = Morphology.NONE
    branching = words[:, Morphology.FINE_LINEAR_BRANCHING] > 0
    linear = np.where(branching, Morphology.FINE_LINEAR_BRANCHING, Morphology.FINE_LINEAR)
    return np.where((thin >= 2) & (thin >= LINEAR_SHARE * told), linear, last).astype(np.int8)


def _confidence(confidence: Floats, group: Integers, n_clusters: int) -> Floats:
    """Return the confidence of each group, by its own spots and by how many surer groups there are."""
    return _doubted(_odds_of_best(confidence, group, n_clusters))


def _odds_of_best(confidence: Floats, group: Integers, n_clusters: int) -> Floats:
    """Return the odds of each group: their logarithm is the mean of the best three spots' log odds.

    More spots do not add: they err together, where a crossing of strands or a grainy film makes many at once.
    """
    order = np.lexsort((-confidence, group))
    starts = np.searchsorted(group[order], np.arange(n_clusters + 1))
    best = order[(starts[:-1, None] + np.arange(N_BEST)).clip(max=starts[1:, None] - 1)]
    p = np.clip(confidence[best], 1e-9, 1 - 1e-9)
    return np.asarray(np.exp(np.log(p / (1 - p)).mean(axis=1)), np.float64)


def _doubted(odds: Floats) -> Floats:
    """Return confidences, of groups after the third the lower, the more and the surer those before are.

    One or two lie in a breast as a rule: where an image shows ever more of which none is sure, its texture looks like
    calcium. The odds are divided by the square of one plus the surplus, a choice; of sure groups by a lower power.
    """
    own = odds / (1 + odds)
    surest = np.argsort(-own, kind="stable")
    surer = np.empty(len(own))
    surer[surest] = np.cumsum(own[surest]) - own[surest]
    doubt = np.minimum((1 - own) / (1 - SURE), 1)
    odds = odds / (1 + np.maximum(surer - N_USUAL, 0)) ** (2 * doubt)
    return np.asarray(odds / (1 + odds), np.float64)


def _outlines(spots: Spots, hull_mm: Floats) -> Outlines:
    """Return the grown hulls in pixels."""
    vertices = (hull_mm / _spacing_mm(spots)).reshape(-1, 2)
    return Outlines(vertices.astype(np.float32), np.arange(len(hull_mm) + 1, dtype=np.int64) * N_HULL_DIRECTIONS)


def _to_mm(spots: Spots, place_px: Sequence[float]) -> tuple[float, float]:
    row, col = _spacing_mm(spots) * place_px[:2]
    return float(row), float(col)


def _spacing_mm(spots: Spots) -> Floats:
    """Return (row, col) of the pixel's size, which the places in mm and in pixels imply."""
    tiny = 1e-12
    pairs = ((spots.row_mm + tiny, spots.row_px + tiny), (spots.col_mm + tiny, spots.col_px + tiny))
    return np.array([float((mm / px)[np.argmax(px)]) for mm, px in pairs])
