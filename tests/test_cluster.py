"""Clusters against slow equivalents: a loop over spots for linking, scipy for hulls and distances, enumeration."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from detector.cluster import DENSITY_DISC_MM, DOUBTFUL_SHARE, N_USUAL, SURE, _confidence, _odds_of_best, cluster_spots
from detector.cluster.lines import find_tracks
from detector.records import BENIGN_FORMS, Clusters, Distribution, Kind, Morphology, Outlines, Shape, Spots
from detector.settings import ClusterSettings

SETTINGS = ClusterSettings()
GROUPED = ClusterSettings(rule="grouped")


@st.composite
def places_mm(draw: st.DrawFn) -> NDArray[np.float64]:
    """Draw places on a grid of 0.25 mm, so that distances of exactly 5 mm occur, sparse or crowded."""
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    n, width = draw(st.integers(0, 40)), draw(st.sampled_from([40, 80, 160]))
    place = np.unique(rng.integers(0, width, (n, 2)), axis=0)
    return np.asarray(rng.permutation(place) * 0.25, np.float64)


def circularity_of(area_mm2: Any, stroke_mm: Any) -> NDArray[np.float64]:
    """Return the circularity of a rod with round ends."""
    area, stroke = np.asarray(area_mm2, float), np.asarray(stroke_mm, float)
    return np.asarray(4 * np.pi * area / (2 * area / stroke + np.pi * stroke / 2) ** 2, np.float64)


def spots_at(place_mm: Any, *, spacing_mm: Any = (0.1, 0.1), **known: Any) -> Spots:
    """Return round microcalcifications of 0.4 mm at places (row, col)."""
    place = np.asarray(place_mm, float).reshape(-1, 2)
    n = len(place)
    columns: dict[str, Any] = {
        "spot_id": np.arange(1, n + 1),
        "row_mm": place[:, 0],
        "col_mm": place[:, 1],
        "row_px": place[:, 0] / spacing_mm[0],
        "col_px": place[:, 1] / spacing_mm[1],
        "diameter_mm": np.full(n, 0.4),
        "length_mm": np.full(n, 0.4),
        "width_mm": np.full(n, 0.4),
        "area_mm2": np.full(n, 0.126),
        "circularity": np.full(n, 0.98),
        "kind": np.full(n, Kind.MICRO),
        "shape": np.full(n, Shape.DOT),
        "morphology": np.full(n, Morphology.PUNCTATE),
        "confidence": np.full(n, 0.9),
    }
    return Spots.blank(n, **(columns | {name: np.broadcast_to(value, n) for name, value in known.items()}))


def grouped(spots: Spots, settings: ClusterSettings = SETTINGS) -> tuple[Spots, Clusters, Outlines]:
    return cluster_spots(spots, None, settings)


def slow_groups(
    place: NDArray[np.float64], strong: NDArray[np.bool_], disc_mm: float, link_mm: float, minimum: int
) -> list[frozenset[int]]:
    """Return the groups by the definition, spot after spot (DBSCAN with a disc and links of their own)."""
    n = len(place)
    far = squareform(pdist(place)) if n > 1 else np.zeros((n, n))
    core = [strong[i] and sum(strong[far[i] <= disc_mm]) >= minimum for i in range(n)]
    group = [-1] * n
    for start in range(n):
        if not core[start] or group[start] >= 0:
            continue
        group[start], waiting = start, [start]
        while waiting:
            one = waiting.pop()
            for other in range(n):
                if core[other] and group[other] < 0 and far[one, other] <= link_mm:
                    group[other] = start
                    waiting.append(other)
    for i in range(n):
        reach = link_mm if strong[i] else DOUBTFUL_SHARE * link_mm
        near = [(far[i, j], j) for j in range(n) if core[j] and j != i and far[i, j] <= reach]
        if not core[i] and near:
            group[i] = group[min(near)[1]]
    members = [frozenset(i for i in range(n) if group[i] == name) for name in sorted(set(group) - {-1})]
    return sorted((m for m in members if len(m) >= minimum), key=min)


def groups_of(spots: Spots) -> list[frozenset[int]]:
    numbers = range(1, int(spots.cluster_id.max(initial=0)) + 1)
    return [frozenset(np.flatnonzero(spots.cluster_id == number).tolist()) for number in numbers]


# --- who belongs together


@given(places_mm(), st.integers(0, 9))
def test_linking_by_density_is_that_of_a_loop_over_spots(place: NDArray[np.float64], doubtful: int) -> None:
    strong = np.random.default_rng(1).random(len(place)) >= 0.1 * doubtful
    confidence = np.where(strong, SETTINGS.core_confidence, SETTINGS.member_confidence)
    spots, clusters, outlines = grouped(spots_at(place, confidence=confidence))
    assert groups_of(spots) == slow_groups(place, strong, DENSITY_DISC_MM, 5.0, 3)
    assert len(clusters) == len(outlines) == len(groups_of(spots))
    assert np.array_equal(clusters.n_spots, [len(g) for g in groups_of(spots)])


@given(places_mm())
def test_linking_of_groups_is_that_of_a_loop_over_spots(place: NDArray[np.float64]) -> None:
    strong = np.ones(len(place), np.bool_)
    assert groups_of(grouped(spots_at(place), GROUPED)[0]) == slow_groups(place, strong, 5.0, 5.0, 5)


@pytest.mark.parametrize(("col", "joined"), [(14.4, 1), (14.6, 2)])
def test_a_spot_on_the_rim_of_two_clusters_joins_the_nearer_one(col: float, joined: int) -> None:
    lines = [[10, 3 + i] for i in range(8)] + [[10, 19 + i] for i in range(8)]
    spots, clusters, _ = grouped(spots_at([*lines, [10, col]]), dataclasses.replace(SETTINGS, density_minimum=6))
    assert len(clusters) == 2
    assert spots.cluster_id[-1] == joined


@given(places_mm(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_cluster(place: NDArray[np.float64], random: Any) -> None:
    order = list(range(len(place)))
    random.shuffle(order)
    before, first, _ = grouped(spots_at(place))
    after, second, _ = grouped(spots_at(place[order]))
    assert {frozenset(order[i] for i in g) for g in groups_of(after)} == set(groups_of(before))
    for name in ("extent_mm", "area_mm2", "nearest_mm", "elongation", "confidence"):
        np.testing.assert_allclose(np.sort(getattr(first, name)), np.sort(getattr(second, name)), rtol=1e-9, atol=1e-7)


def test_spots_that_share_a_disc_but_no_link_are_no_cluster() -> None:
    apart = 5.3  # within a disc of 1 cm2, beyond a link
    triangle = np.array([[20, 20], [20, 20 + apart], [20 + apart * np.sqrt(3) / 2, 20 + apart / 2]])
    assert len(grouped(spots_at(triangle))[1]) == 0
    assert len(grouped(spots_at(20 + (triangle - 20) * 0.9))[1]) == 1


def test_three_in_a_square_centimetre_are_a_cluster_and_two_are_none() -> None:
    assert len(grouped(spots_at([[10, 10], [10, 14], [13, 12]]))[1]) == 1
    assert len(grouped(spots_at([[10, 10], [10, 14]]))[1]) == 0
    assert len(grouped(spots_at([[10, 10], [10, 14], [13, 12]]), GROUPED)[1]) == 0
    assert len(grouped(spots_at([[10, 10], [10, 12], [11, 11], [12, 10], [12, 12]]), GROUPED)[1]) == 1


def test_a_chain_is_one_cluster_and_far_groups_are_two() -> None:
    chain = [[10, 10 + 4 * i] for i in range(8)]
    spots, clusters, _ = grouped(spots_at([*chain, [60, 10], [60, 13], [62, 11]]))
    assert clusters.n_spots.tolist() == [8, 3]
    assert spots.cluster_id.tolist() == [1] * 8 + [2] * 3


def test_clusters_are_numbered_in_the_order_of_their_first_spots() -> None:
    place = [[60, 10], [10, 10], [60, 12], [10, 12], [61, 11], [11, 11], [90, 90]]
    assert grouped(spots_at(place))[0].cluster_id.tolist() == [1, 2, 1, 2, 1, 2, 0]


def test_nothing_found_is_empty_tables() -> None:
    for spots in (Spots.empty(), spots_at([[10, 10], [50, 50]])):
        again, clusters, outlines = grouped(spots)
        assert len(again) == len(spots)
        assert not again.cluster_id.any()
        assert len(clusters) == len(outlines) == 0


# --- who may belong


CLOSE = [[10, 10], [10, 12], [11, 11], [12, 11], [12, 13], [13, 12]]


@pytest.mark.parametrize(
    ("width_mm", "away_mm", "n_clusters"), [(2.0, 0.2, 0), (2.0, 0.4, 1), (5.0, 0.4, 0), (5.0, 0.6, 1)]
)
@pytest.mark.parametrize("turn_deg", [0.0, 30.0, 90.0])
def test_specks_on_the_rim_of_a_benign_macrocalcification_are_no_group(
    turn_deg: float, width_mm: float, away_mm: float, n_clusters: int
) -> None:
    """Something 2 mm longer than wide, with specks all along one side of it."""
    along, across = np.linspace(-0.9, 0.9, 5), np.full(5, 0.5 * width_mm + away_mm)
    angle = np.radians(turn_deg)
    specks = np.stack(
        [along * np.sin(angle) + across * np.cos(angle), along * np.cos(angle) - across * np.sin(angle)], 1
    )
    rod = spots_at(
        [[20.0, 20.0]],
        kind=Kind.MACRO,
        morphology=Morphology.LARGE_ROD_LIKE,
        length_mm=width_mm + 2.0,
        width_mm=width_mm,
        orientation_deg=turn_deg,
    )
    assert len(grouped(joined(rod, spots_at(20.0 + specks)))[1]) == n_clusters


@pytest.mark.parametrize("word", BENIGN_FORMS)
def test_macrocalcifications_of_a_benign_form_join_nothing(word: Morphology) -> None:
    macro = spots_at(CLOSE, kind=Kind.MACRO, morphology=word, width_mm=1.3)
    assert len(grouped(macro)[1]) == 0
    micro = spots_at(CLOSE, kind=Kind.MICRO, morphology=word)
    assert len(grouped(micro)[1]) == 1


def test_irregular_grains_over_a_millimetre_join_up_to_two() -> None:
    known = {"kind": Kind.MACRO, "morphology": Morphology.COARSE_HETEROGENEOUS, "shape": Shape.IRREGULAR}
    assert len(grouped(spots_at(CLOSE, width_mm=1.2, **known))[1]) == 1
    assert len(grouped(spots_at(CLOSE, width_mm=2.0, **known))[1]) == 1
    assert len(grouped(spots_at(CLOSE, width_mm=2.1, **known))[1]) == 0


def test_spots_of_unknown_size_join_nothing() -> None:
    unknown = spots_at(
        CLOSE, kind=Kind.UNKNOWN, **dict.fromkeys(("row_mm", "col_mm", "width_mm", "diameter_mm"), np.nan)
    )
    assert len(grouped(unknown)[1]) == 0


def test_each_operating_point_takes_those_of_the_stricter_one_too() -> None:
    points = ("sensitive", "balanced", "specific")
    least = [ClusterSettings(operating_point=point).member_confidence for point in points]
    assert least == sorted(least)
    spots = spots_at([*CLOSE, [11, 12]], confidence=[0.9 * least[0], *least, 0.9, 0.9, 0.9])
    members = {}
    for point, n in (("sensitive", 6), ("balanced", 5), ("specific", 4)):
        found, clusters, _ = grouped(spots, ClusterSettings(operating_point=point))
        members[point] = set(np.flatnonzero(found.cluster_id).tolist())
        assert clusters.n_spots.tolist() == [n]
    assert members["specific"] < members["balanced"] < members["sensitive"]


def test_only_the_number_of_the_cluster_is_written() -> None:
    spots = spots_at(CLOSE)
    assert grouped(spots)[0].replace(cluster_id=spots.cluster_id) == spots


# --- how a cluster lies


def random_clusters(seed: int, n_clusters: int = 4) -> tuple[Spots, list[NDArray[np.float64]]]:
    """Return the spots of clusters 40 mm apart, shuffled, and the places of each cluster."""
    rng = np.random.default_rng(seed)
    parts = [
        np.array([30 + 40 * i, 40]) + rng.normal(0, (1.0, 2.5), (int(rng.integers(4, 25)), 2))
        for i in range(n_clusters)
    ]
    spots, _, _ = grouped(spots_at(rng.permutation(np.concatenate(parts)), spacing_mm=(0.05, 0.08)))
    numbers = range(1, int(spots.cluster_id.max()) + 1)
    places_of = [np.stack([spots.row_mm, spots.col_mm], axis=1)[spots.cluster_id == k] for k in numbers]
    return spots, places_of


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_extent_area_and_distances_are_those_of_scipy(seed: int) -> None:
    spots, clusters_at = random_clusters(seed)
    _, clusters, outlines = grouped(spots)
    for row, place in enumerate(clusters_at):
        hull = ConvexHull(place)  # in two dimensions its volume is the area, its area the perimeter
        grown = hull.volume + 0.5 * hull.area + np.pi * 0.25  # Steiner's formula
        far = squareform(pdist(place)) + np.diag(np.full(len(place), np.inf))
        assert clusters.extent_mm[row] == pytest.approx(pdist(place).max(), rel=1e-3)
        assert clusters.area_mm2[row] == pytest.approx(grown, rel=0.01)
        assert clusters.density_per_cm2[row] == pytest.approx(100 * len(place) / grown, rel=0.01)
        assert clusters.nearest_mm[row] == pytest.approx(far.min(axis=1).mean(), rel=1e-6)
        spread = np.linalg.svd(place - place.mean(axis=0), compute_uv=False)
        assert clusters.elongation[row] == pytest.approx(spread[1] / spread[0], rel=1e-6)
        assert clusters.row_px[row] * 0.05 == pytest.approx(place[:, 0].mean())
        assert clusters.col_px[row] * 0.08 == pytest.approx(place[:, 1].mean())
        outline = outlines[row] * np.array([0.05, 0.08])
        assert cv2.contourArea(outline.astype(np.float32)) == pytest.approx(clusters.area_mm2[row], rel=1e-4)
        for spot in place:
            assert cv2.pointPolygonTest(outline.astype(np.float32), spot.tolist(), True) > 0.4


@pytest.mark.parametrize("settings", [SETTINGS, dataclasses.replace(SETTINGS, hull_margin_mm=0.1)])
def test_spots_in_one_line_have_an_area(settings: ClusterSettings) -> None:
    _, clusters, _ = grouped(spots_at([[10, 10 + 2 * i] for i in range(6)]), settings)
    margin = settings.hull_margin_mm
    assert clusters.area_mm2[0] == pytest.approx(20 * margin + np.pi * margin**2, rel=5e-3)
    assert clusters.elongation[0] == pytest.approx(0, abs=1e-6)
    assert clusters.distribution[0] == Distribution.LINEAR


def test_words_of_the_distribution() -> None:
    rng = np.random.default_rng(1)

    def word(place: Any) -> str:
        return grouped(spots_at(place))[1].words("distribution")[0]

    assert word(30 + rng.uniform(-4, 4, (15, 2))) == "grouped"
    assert word(30 + rng.uniform(-12, 12, (60, 2))) == "regional"
    assert word(100 + rng.uniform(-45, 45, (900, 2))) == "diffuse"
    assert word(np.stack([np.full(8, 30.0), np.linspace(10, 25, 8)], axis=1)) == "linear"


def test_counts_and_spread_of_a_cluster() -> None:
    area_mm2 = [0.13, 0.15, 0.6, 0.4, 0.03, 0.8]
    spots = spots_at(
        CLOSE,
        shape=[Shape.DOT, Shape.IRREGULAR, Shape.BRANCHING, Shape.DASH, Shape.UNRESOLVED, Shape.DASH],
        length_mm=[0.4, 0.5, 2.0, 1.5, 0.2, 1.5],
        width_mm=[0.4, 0.4, 1.2, 0.3, 0.2, 0.6],
        area_mm2=area_mm2,
        circularity=circularity_of(area_mm2, [0.4, 0.4, 0.3, 0.3, 0.2, 0.6]),
        diameter_mm=[0.4, 0.45, 0.9, 0.7, 0.2, 1.0],
        kind=[Kind.MICRO] * 5 + [Kind.MACRO],
        morphology=[5, 13, 15, 14, 0, 12],
    )
    _, clusters, _ = grouped(spots)
    assert clusters.n_spots[0] == 6
    assert clusters.n_irregular[0] == 3
    assert clusters.n_thin[0] == 2
    assert clusters.n_unresolved[0] == 1
    assert clusters.n_macro[0] == 1
    assert clusters.shape_irregularity[0] == pytest.approx(3 / 5)
    assert clusters.size_cv[0] == pytest.approx(spots.diameter_mm.std() / spots.diameter_mm.mean())
    assert clusters.words("morphology") == ["fine linear branching"]


def test_a_bent_line_is_thin_by_its_stroke() -> None:
    known = {"shape": Shape.DASH, "length_mm": 2.0, "width_mm": 0.7, "area_mm2": 0.7}
    for stroke_mm, n_thin in ((0.35, 6), (0.55, 0)):
        spots = spots_at(CLOSE, circularity=circularity_of(0.7, stroke_mm), **known)
        np.testing.assert_allclose(spots.stroke_mm, stroke_mm)
        assert grouped(spots)[1].n_thin.tolist() == [n_thin]


def test_a_cluster_of_mostly_unresolved_spots_gets_no_form_word() -> None:
    shapes = [Shape.UNRESOLVED] * 4 + [Shape.IRREGULAR] * 2
    words = [Morphology.NONE] * 4 + [Morphology.FINE_PLEOMORPHIC] * 2
    assert grouped(spots_at(CLOSE, shape=shapes, morphology=words))[1].words("morphology") == [""]
    shapes[0], words[0] = Shape.IRREGULAR, Morphology.FINE_PLEOMORPHIC
    assert grouped(spots_at(CLOSE, shape=shapes, morphology=words))[1].words("morphology") == ["fine pleomorphic"]


@pytest.mark.parametrize(("point", "least"), [("sensitive", 0.5), ("balanced", 0.5), ("specific", 0.7)])
def test_the_form_of_a_doubtful_spot_says_nothing(point: str, least: float) -> None:
    settings = ClusterSettings(operating_point=point)
    line: dict[str, Any] = {
        "shape": Shape.DASH,
        "morphology": Morphology.FINE_LINEAR,
        "length_mm": 2.0,
        "width_mm": 0.3,
        "area_mm2": 0.6,
        "circularity": circularity_of(0.6, 0.3),
    }
    for confidence, n_thin in ((least + 0.01, 3), (least - 0.01, 0)):
        spots = spots_at(CLOSE, confidence=np.repeat([0.95, confidence], 3))
        lines = spots.replace(**{k: np.where(np.arange(6) < 3, getattr(spots, k), v) for k, v in line.items()})
        clusters = grouped(lines, settings)[1]
        assert (clusters.n_spots.tolist(), clusters.n_thin.tolist()) == ([6], [n_thin])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        # two in five are suspicious, and one in three
        ("punctate punctate punctate pleomorphic coarse", "fine pleomorphic"),
        ("punctate punctate punctate coarse coarse pleomorphic", "coarse heterogeneous"),
        ("punctate punctate punctate punctate pleomorphic coarse", "punctate"),
        # one line among them counts as suspicious, and names the group no more than one alone does
        ("punctate punctate punctate pleomorphic line", "fine pleomorphic"),
        ("round round punctate line line", "fine linear"),
        ("punctate punctate punctate punctate line", "punctate"),
    ],
)
def test_suspicious_forms_name_a_group_from_two_in_five_on(words: str, told: str) -> None:
    known = {
        "round": Morphology.ROUND,
        "punctate": Morphology.PUNCTATE,
        "coarse": Morphology.COARSE_HETEROGENEOUS,
        "pleomorphic": Morphology.FINE_PLEOMORPHIC,
        "line": Morphology.FINE_LINEAR,
    }
    morphology = [known[word] for word in words.split()]
    _, clusters, _ = grouped(spots_at(CLOSE[: len(morphology)], morphology=morphology))
    assert clusters.words("morphology") == [told]


def test_of_equally_frequent_form_words_the_more_suspicious_one_counts() -> None:
    words = [Morphology.PUNCTATE] * 3 + [Morphology.FINE_PLEOMORPHIC] * 3
    assert grouped(spots_at(CLOSE, morphology=words))[1].words("morphology") == ["fine pleomorphic"]


@given(st.lists(st.floats(0.001, 0.999), min_size=3, max_size=9))
def test_a_cluster_is_as_sure_as_its_best_three_spots(confidence: list[float]) -> None:
    best = np.sort(confidence)[-3:]
    odds = float(np.prod(best / (1 - best)) ** (1 / 3))
    assert _confidence(np.array(confidence), np.zeros(len(confidence), np.int64), 1)[0] == pytest.approx(
        odds / (1 + odds)
    )


def test_confidence_of_many_clusters_is_that_of_each_but_for_the_surer_ones() -> None:
    rng = np.random.default_rng(5)
    p, group = rng.random(60), rng.integers(0, 6, 60)
    each = [_confidence(p[group == k], np.zeros((group == k).sum(), np.int64), 1)[0] for k in range(6)]
    np.testing.assert_allclose(_confidence(p, group, 6), confidence_of_groups(*each), atol=1e-12)
    np.testing.assert_allclose(_odds_of_best(p, group, 6), np.array(each) / (1 - np.array(each)))
    assert _confidence(np.full(200, 1.0), np.zeros(200, np.int64), 1)[0] > 0.999999


def confidence_of_groups(*sure: float) -> NDArray[np.float64]:
    """Return the confidence of groups of three spots each, all as sure as given."""
    return _confidence(np.repeat(sure, 3), np.repeat(np.arange(len(sure)), 3), len(sure))


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=9))
def test_a_cluster_loses_odds_by_its_doubt_and_the_surer_ones(sure: list[float]) -> None:
    own = np.array(sure)
    expected = []
    for k, p in enumerate(own):
        surer = sum(q for j, q in enumerate(own) if q > p or (q == p and j < k))
        doubt = min((1 - p) / (1 - SURE), 1)
        odds = p / (1 - p) / (1 + max(surer - N_USUAL, 0)) ** (2 * doubt)
        expected.append(odds / (1 + odds))
    np.testing.assert_allclose(confidence_of_groups(*sure), expected, atol=1e-9)


@given(st.lists(st.floats(0.001, 0.999), min_size=3, max_size=9, unique=True))
def test_the_three_surest_clusters_lose_nothing_and_the_order_stays(sure: list[float]) -> None:
    own, found = np.array(sure), confidence_of_groups(*sure)
    usual = np.argsort(-own)[:3]
    np.testing.assert_allclose(found[usual], own[usual])
    assert (np.diff(found[np.argsort(own)]) >= 0).all()


def test_many_doubtful_clusters_are_doubted_more_and_sure_ones_hardly() -> None:
    assert confidence_of_groups(*[0.8] * 8).min() < 0.5
    assert confidence_of_groups(*[0.97] * 8).min() > SURE
    assert confidence_of_groups(*[1.0] * 8).min() > 0.999999


# --- lines: vascular tracks, wedges


def pieces(
    walls_mm: tuple[float, ...] = (-0.9, 0.9),
    *,
    length_mm: float = 24.0,
    piece_mm: float = 2.0,
    gap_mm: float = 0.8,
    bend_mm: float = 2.0,
    turn_deg: float = 0.0,
    heading_deg: float = 35.0,
) -> Spots:
    """Return thin pieces along the walls of a bent vessel."""
    middle = np.arange(0.5 * piece_mm, length_mm, piece_mm + gap_mm)
    along = np.concatenate([middle + 0.3 * i for i in range(len(walls_mm))])
    across = np.repeat(walls_mm, len(middle)) + bend_mm * np.sin(np.pi * along / length_mm)
    slope = np.degrees(np.arctan(bend_mm * np.pi / length_mm * np.cos(np.pi * along / length_mm)))
    angle = np.radians(heading_deg)
    col, row = along * np.cos(angle) - across * np.sin(angle), along * np.sin(angle) + across * np.cos(angle)
    return spots_at(
        np.stack([row + 20, col + 30], axis=1),
        length_mm=piece_mm,
        width_mm=0.35,
        diameter_mm=0.9,
        area_mm2=0.6,
        circularity=circularity_of(0.6, 0.3),
        shape=Shape.DASH,
        morphology=Morphology.FINE_LINEAR,
        orientation_deg=(heading_deg + slope + turn_deg * (-1.0) ** np.arange(len(along))) % 180,
    )


@pytest.mark.parametrize("heading_deg", [0.0, 35.0, 90.0, 160.0])
@pytest.mark.parametrize("bend_mm", [0.0, 3.0])
def test_a_double_track_is_vascular(heading_deg: float, bend_mm: float) -> None:
    _, clusters, _ = grouped(pieces(heading_deg=heading_deg, bend_mm=bend_mm))
    assert clusters.words("morphology") == ["vascular"]
    assert clusters.words("distribution") == ["linear"]


def test_a_single_track_is_vascular_if_it_is_continuous() -> None:
    assert grouped(pieces((0.0,), gap_mm=0.2))[1].words("morphology") == ["vascular"]
    assert grouped(pieces((0.0,), gap_mm=1.5))[1].words("morphology") == ["fine linear"]


@pytest.mark.parametrize(
    "other",
    [
        pieces(length_mm=9.0),
        pieces(turn_deg=50.0),
        pieces(piece_mm=1.2, gap_mm=2.6),
        pieces((-4.0, 0.0, 4.0)),
        pieces((0.0,), gap_mm=2.0),
        pieces((-2.5, 2.5)),
    ],
    ids=["short", "pieces across", "few pieces", "a field", "few spots in a line", "two far lines"],
)
def test_what_is_no_track_keeps_its_form(other: Spots) -> None:
    _, clusters, _ = grouped(other)
    assert len(clusters) and "vascular" not in clusters.words("morphology")


def joined(*parts: Spots) -> Spots:
    spots = Spots.concatenate(parts)
    return spots.replace(spot_id=np.arange(1, len(spots) + 1))


@pytest.mark.parametrize("seed", range(4))
def test_a_double_track_is_seen_where_a_third_is_missing_and_one_outline_has_run_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    track = pieces()
    track = track[np.sort(rng.permutation(len(track))[: 2 * len(track) // 3])]
    turned = track.orientation_deg.copy()
    turned[2] += 30
    _, clusters, _ = grouped(track.replace(orientation_deg=turned))
    assert set(clusters.words("morphology")) == {"vascular"}


def casts(seed: int, n: int = 11, across_mm: float = 0.7, turn_deg: float = 15.0) -> Spots:
    """Return thin dashes that fill a duct of 24 mm, about its direction."""
    rng = np.random.default_rng(seed)
    length, along = np.exp(rng.uniform(0, np.log(4), n)), rng.uniform(0, 24, n)
    return spots_at(
        np.stack([30 + rng.normal(0, across_mm, n), 20 + along], axis=1),
        length_mm=length,
        width_mm=0.35,
        area_mm2=0.3 * length,
        circularity=circularity_of(0.3 * length, 0.3),
        shape=Shape.DASH,
        morphology=Morphology.FINE_LINEAR,
        orientation_deg=rng.normal(0, turn_deg, n) % 180,
    )


@pytest.mark.parametrize(("n", "across_mm", "turn_deg"), [(8, 0.7, 15.0), (11, 0.7, 15.0), (20, 0.8, 40.0)])
def test_casts_along_a_duct_are_no_vessel(n: int, across_mm: float, turn_deg: float) -> None:
    made = (casts(seed, n, across_mm, turn_deg) for seed in range(80))
    assert sum("vascular" in grouped(spots)[1].words("morphology") for spots in made) <= 1


def winding(turns_deg: tuple[float, ...], length_mm: float = 24.0, half_mm: float = 0.8) -> Spots:
    """Return pieces along both walls of a vessel that heads as given, at places equally far apart along it."""
    along = np.arange(0.0, length_mm, 0.05)
    heading = np.radians(np.interp(along, np.linspace(0.0, length_mm, len(turns_deg)), turns_deg))
    middle = np.cumsum(0.05 * np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0)
    normal = np.stack([np.cos(heading), -np.sin(heading)], axis=1)
    at = np.arange(20, len(along), 56)
    piece = pieces(gap_mm=0.8, length_mm=length_mm)[: 2 * len(at)]
    place = np.concatenate([middle[at] - half_mm * normal[at], middle[at] + half_mm * normal[at]])
    degrees = np.tile(np.degrees(heading[at]), 2) % 180
    row, col = (place + 30.0).T
    return piece.replace(row_mm=row, col_mm=col, row_px=row / 0.05, col_px=col / 0.08, orientation_deg=degrees)


@pytest.mark.parametrize("turns_deg", [(0, 75), (20, 90, 160), (-35, 35, -35), (60, 10, 60, 10)])
def test_a_winding_vessel_is_vascular(turns_deg: tuple[float, ...]) -> None:
    assert grouped(winding(turns_deg))[1].words("morphology") == ["vascular"]


def test_strands_that_join_a_vessel_do_not_hide_it() -> None:
    track = pieces(heading_deg=0.0, bend_mm=0.0)
    strand = pieces((-3.9,), heading_deg=0.0, bend_mm=0.0, gap_mm=2.5)
    assert find_tracks(joined(track, strand), 0.5).tolist() == [True] * len(track) + [False] * len(strand)


@pytest.mark.parametrize(("confidence", "in_track"), [(0.1, True), (0.9, False)])
def test_what_is_doubtful_beside_a_vessel_does_not_speak_against_it(confidence: float, in_track: bool) -> None:
    track = pieces(heading_deg=0.0, bend_mm=0.0)
    beside = pieces((-2.1, 1.7, 2.6), heading_deg=0.0, bend_mm=0.0, turn_deg=14.0)
    beside = beside.replace(confidence=np.full(len(beside), confidence))
    assert find_tracks(joined(track, beside), 0.5)[: len(track)].all() == in_track


def test_what_is_doubtful_makes_no_track() -> None:
    track = pieces()
    assert find_tracks(track.replace(confidence=np.full(len(track), 0.6)), 0.5).all()
    assert not find_tracks(track.replace(confidence=np.full(len(track), 0.4)), 0.5).any()


def test_grains_beside_a_vessel_stay_what_they_are() -> None:
    track = pieces(heading_deg=0.0, bend_mm=0.0, length_mm=12.0)
    rng = np.random.default_rng(2)
    grains = spots_at(
        np.stack([24 + rng.uniform(0, 5, 70), 30 + rng.uniform(0, 12, 70)], axis=1),
        shape=Shape.IRREGULAR,
        morphology=Morphology.FINE_PLEOMORPHIC,
    )
    assert grouped(track)[1].words("morphology") == ["vascular"]
    assert "vascular" not in grouped(joined(track, grains))[1].words("morphology")


def test_a_track_is_found_whatever_the_order_of_its_pieces() -> None:
    track = joined(pieces((-0.9, 0.9), length_mm=50.0, bend_mm=4.0))
    order = np.random.default_rng(3).permutation(len(track))
    assert find_tracks(track, 0.5).all()
    np.testing.assert_array_equal(find_tracks(track[order], 0.5), find_tracks(track, 0.5)[order])


def test_a_line_of_dots_is_no_track() -> None:
    _, clusters, _ = grouped(spots_at([(20.0, 10.0 + 1.5 * i) for i in range(12)]))
    assert clusters.words("morphology") == ["punctate"]
    assert clusters.words("distribution") == ["linear"]


def wedge(towards_nipple: bool) -> Spots:
    rng = np.random.default_rng(4)
    away = np.linspace(15.0, 45.0, 40)
    width = 0.18 * (away if towards_nipple else 60.0 - away)
    return spots_at(np.stack([40 + width * rng.uniform(-1, 1, 40), 70 - away], axis=1))


def test_a_wedge_towards_the_nipple_is_segmental() -> None:
    for spots, nipple_px, word in (
        (wedge(True), (400.0, 700.0), "segmental"),
        (wedge(False), (400.0, 700.0), "regional"),
        (wedge(True), (900.0, 400.0), "regional"),
        (wedge(True), None, "regional"),
    ):
        assert cluster_spots(spots, nipple_px, SETTINGS)[1].words("distribution") == [word], nipple_px
