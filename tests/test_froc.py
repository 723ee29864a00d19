"""Scoring against an implementation written anew here, loop by loop, from the words of the rules."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, mannwhitneyu

from detector.errors import NoPixelSpacing, ReadError
from detector.evaluate import froc, groups, uncertainty
from detector.evaluate.matching import ClusterRule, SpotRule, match_clusters, match_spots
from detector.evaluate.phantoms import make_phantom
from detector.evaluate.tables import join, read_findings
from detector.evaluate.truth import Findings, ImageTruth, Mark
from detector.records import Clusters, Identity, Kind, Morphology, Outlines, Reading, Spots

SPACING = (0.1, 0.1)
WHOLE = Mark.box((0, 0), (1000, 1000))  # 100 mm x 100 mm = 100 cm2


def spots(places: Any, confidence: Any = 1.0, **columns: Any) -> Spots:
    """Spots at (row, col) places in mm."""
    at = np.array(places, float).reshape(-1, 2) / SPACING
    return Spots.blank(
        len(at), row_px=at[:, 0], col_px=at[:, 1], confidence=np.broadcast_to(confidence, len(at)), **columns
    )


def clusters(places: Any, confidence: Any = 1.0, **columns: Any) -> Clusters:
    at = np.array(places, float).reshape(-1, 2) / SPACING
    number = np.arange(1, len(at) + 1)
    known = {"cluster_id": number, "confidence": np.broadcast_to(confidence, len(at))} | columns
    return Clusters.blank(len(at), row_px=at[:, 0], col_px=at[:, 1], **known)


def truth(name: str = "a", patient: str = "", **known: Any) -> ImageTruth:
    fields: dict[str, Any] = {"spacing_mm": SPACING, "breast": WHOLE} | known
    return ImageTruth(name, patient or name, **fields)


# --------------------------------------------------------------------------------------------------------------
# the rules once more, without speed


def distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    return math.dist(a.tolist(), b.tolist())


def disc_overlap(a: NDArray[Any], b: NDArray[Any], r: float, s: float) -> float:
    """Intersection over union of two discs, in closed form."""
    d = distance(a, b)
    if d >= r + s or r == 0 or s == 0:
        return 0.0
    if d <= abs(r - s):
        both = math.pi * min(r, s) ** 2
    else:
        x = (d * d + r * r - s * s) / (2 * d)
        y = math.sqrt(max(r * r - x * x, 0))
        both = r * r * math.acos(x / r) + s * s * math.acos((d - x) / s) - d * y
    return both / (math.pi * (r * r + s * s) - both)


Scene = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def hits_own(scene: Scene, threshold: float) -> tuple[int, int]:
    """Most pairs by augmenting paths (Kuhn)."""
    true, radius, found, _, confidence = scene
    kept = [j for j in range(len(found)) if confidence[j] >= threshold]
    owner: dict[int, int] = {}

    def augment(i: int, seen: set[int]) -> bool:
        for j in kept:
            if j in seen or distance(true[i], found[j]) > max(0.35, 0.15, radius[i]):
                continue
            seen.add(j)
            if j not in owner or augment(owner[j], seen):
                owner[j] = i
                return True
        return False

    n_hit = sum(augment(i, set()) for i in range(len(true)))
    return n_hit, len(kept) - n_hit


def hits_r1(scene: Scene, threshold: float) -> tuple[int, int]:
    true, radius, found, size, confidence = scene
    free = [j for j in range(len(found)) if confidence[j] >= threshold]
    n_kept, n_hit = len(free), 0
    for i in range(len(true)):
        near = [j for j in free if distance(true[i], found[j]) <= 0.35]
        overlap = {j: disc_overlap(true[i], found[j], radius[i], size[j]) for j in free}
        if near:
            free.remove(min(near, key=lambda j: distance(true[i], found[j])))
            n_hit += 1
        elif overlap and max(overlap.values()) >= 0.3:
            free.remove(max(overlap, key=lambda j: overlap[j]))
            n_hit += 1
    return n_hit, n_kept - n_hit


def hits_r2(scene: Scene, threshold: float) -> tuple[int, int]:
    true, _, found, _, confidence = scene
    kept = [f for f, c in zip(found, confidence, strict=True) if c >= threshold]
    n_hit = sum(any(distance(t, f) <= 1 for f in kept) for t in true)
    return n_hit, sum(all(distance(t, f) > 1 for t in true) for f in kept)


SLOW: dict[SpotRule, Callable[[Scene, float], tuple[int, int]]] = {
    SpotRule.OWN: hits_own,
    SpotRule.R1: hits_r1,
    SpotRule.R2: hits_r2,
}


def draw_scene(seed: int) -> Scene:
    """Crowded enough that findings compete; some confidences tie."""
    rng = np.random.default_rng(seed)
    n_true, n_found = rng.integers(0, 9), rng.integers(0, 25)
    true = rng.uniform(10, 10 + rng.uniform(1, 4), (n_true, 2))
    found = np.vstack([rng.uniform(10, 14, (n_found, 2)), true + rng.normal(0, 0.25, true.shape)])
    radius = rng.choice([0.1, 0.2, 0.6, 1.2], n_true)
    size = rng.choice([0.1, 0.2, 0.6, 1.0], len(found))
    return true, radius, found, size, rng.integers(0, 12, len(found)) / 12


def as_pair(scene: Scene, name: str = "a", **known: Any) -> tuple[ImageTruth, Findings]:
    true, radius, found, size, confidence = scene
    return (
        truth(name, spots=spots(true, diameter_mm=2 * radius), **known),
        Findings(spots(found, confidence, diameter_mm=2 * size)),
    )


@pytest.mark.parametrize("rule", list(SpotRule))
@given(seed=st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_every_step_agrees_with_the_words_of_the_rule(rule: SpotRule, seed: int) -> None:
    scene = draw_scene(seed)
    true, radius, found, size, confidence = scene
    if rule is SpotRule.R1:  # discs are compared as polygons on a grid: keep off the limit itself
        overlaps = [
            disc_overlap(t, f, r, s)
            for t, r in zip(true, radius, strict=True)
            for f, s in zip(found, size, strict=True)
        ]
        ordered = sorted(o for o in overlaps if o > 0.2)
        assume(all(abs(o - 0.3) > 0.04 for o in overlaps))
        assume(all(b - a > 0.04 for a, b in itertools.pairwise(ordered)) or len(true) < 2)
    curve = froc.score_spots([as_pair(scene)], rule).curve()
    for threshold in np.unique(confidence):
        step = int(np.flatnonzero(curve.threshold >= threshold)[-1])
        n_hit, n_false = SLOW[rule](scene, threshold)
        assert curve.false_per_image[step] == n_false
        assert (
            np.isnan(curve.sensitivity[step])
            if len(true) == 0
            else curve.sensitivity[step] == pytest.approx(n_hit / len(true))
        )


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_an_object_that_is_hit_stays_hit_as_the_threshold_falls(seed: int) -> None:
    true, radius, found, size, confidence = draw_scene(seed)
    for rule in (SpotRule.R1, SpotRule.R2):
        whole = match_spots(*as_pair((true, radius, found, size, confidence)), rule).hit_confidence
        for threshold in np.unique(confidence):
            kept = confidence >= threshold
            part = match_spots(*as_pair((true, radius, found[kept], size[kept], confidence[kept])), rule).hit_confidence
            np.testing.assert_array_equal(part > -np.inf, whole >= threshold)


@pytest.mark.parametrize("rule", list(SpotRule))
@given(seed=st.integers(0, 10**6), extra=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_false_positives_never_raise_the_sensitivity_at_a_rate(rule: SpotRule, seed: int, extra: int) -> None:
    true, radius, found, size, confidence = draw_scene(seed)
    assume(len(true) > 0)
    rng = np.random.default_rng(seed)
    far = rng.uniform(50, 90, (extra, 2))
    worse = (
        true,
        radius,
        np.vstack([found, far]),
        np.append(size, np.full(extra, 0.2)),
        np.append(confidence, rng.random(extra)),
    )
    rates = np.linspace(0, 40, 81)
    before = froc.score_spots([as_pair((true, radius, found, size, confidence))], rule).curve()
    after = froc.score_spots([as_pair(worse)], rule).curve()
    assert (after.sensitivity_at(rates, "image") <= before.sensitivity_at(rates, "image")).all()


@pytest.mark.parametrize("rule", list(SpotRule))
@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_the_order_of_findings_changes_nothing(rule: SpotRule, seed: int) -> None:
    true, radius, found, size, confidence = draw_scene(seed)
    order = np.random.default_rng(seed).permutation(len(found))
    first = match_spots(*as_pair((true, radius, found, size, confidence)), rule)
    second = match_spots(*as_pair((true, radius, found[order], size[order], confidence[order])), rule)
    np.testing.assert_array_equal(first.hit_confidence, second.hit_confidence)
    np.testing.assert_array_equal(first.is_false[order], second.is_false)
    is_hit = first.found_by >= 0
    np.testing.assert_array_equal(first.found_by[is_hit], order[second.found_by[is_hit]])


@pytest.mark.parametrize("rule", list(SpotRule))
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_perfect_findings_score_one_without_a_false_positive(rule: SpotRule, seed: int) -> None:
    true, radius, *_ = draw_scene(seed)
    assume(len(true) > 0)
    curve = froc.score_spots([as_pair((true, radius, true, radius, np.ones(len(true))))], rule).curve()
    assert curve.sensitivity_at(0.0, "cm2") == 1
    assert curve.partial_area(1.0, "image") == 1


# --------------------------------------------------------------------------------------------------------------
# by hand


def test_a_second_finding_on_one_object_is_false_one_to_one_and_free_in_r2() -> None:
    pair = truth(spots=spots([(20, 20)])), Findings(spots([(20, 20.1), (20, 20.2)], [0.5, 0.9]))
    assert match_spots(*pair).is_false.tolist() == [True, False]
    assert match_spots(*pair).found_by.tolist() == [1]
    assert match_spots(*pair, SpotRule.R2).is_false.tolist() == [False, False]


def test_reach_is_the_largest_of_a_third_of_a_millimetre_a_pixel_and_a_half_and_the_radius() -> None:
    def is_hit(away_mm: float, **known: Any) -> bool:
        diameter = known.pop("diameter_mm", math.nan)
        image = truth(spots=spots([(20, 20)], diameter_mm=[diameter]), **known)
        at = np.array([(20, 20 + away_mm)]) / SPACING
        scale = np.array(SPACING) / image.pixel_size_mm
        found = spots((at * SPACING - 20) * scale + 20)
        return bool(match_spots(image, Findings(found)).hit_confidence[0] > 0)

    assert is_hit(0.34) and not is_hit(0.36)
    assert is_hit(1.9, diameter_mm=4) and not is_hit(2.1, diameter_mm=4)
    assert is_hit(0.55, spacing_mm=(0.4, 0.4)) and not is_hit(0.65, spacing_mm=(0.4, 0.4))


def test_most_hits_come_before_nearest_hits() -> None:
    # the finding between both is nearer to the first, which the other finding alone can reach
    image = truth(spots=spots([(20, 20), (20, 20.5)]))
    found = Findings(spots([(20, 20.2), (20, 19.7)], [0.9, 0.8]))
    assert np.isfinite(match_spots(image, found).hit_confidence).all()
    assert np.isfinite(match_spots(image, found, SpotRule.R1).hit_confidence).tolist() == [True, False]


def test_curve_rates_and_area_by_hand() -> None:
    images = [
        (
            truth("a", spots=spots([(20, 20), (40, 40)])),
            Findings(spots([(20, 20), (60, 60), (40, 40)], [0.9, 0.8, 0.7])),
        ),
        (truth("b", spots=spots([(30, 30), (50, 50)])), Findings(spots([(30, 30), (70, 70)], [0.8, 0.1]))),
    ]
    curve = froc.score_spots(images).curve()
    np.testing.assert_array_equal(curve.threshold, [np.inf, 0.9, 0.8, 0.7, 0.1])
    np.testing.assert_allclose(curve.sensitivity, [0, 0.25, 0.5, 0.75, 0.75])
    np.testing.assert_allclose(curve.false_per_image, [0, 0, 0.5, 0.5, 1])
    np.testing.assert_allclose(curve.false_per_cm2, np.array([0, 0, 0.5, 0.5, 1]) / 100)
    assert curve.sensitivity_at([0, 0.49, 0.5, 9], "image").tolist() == [0.25, 0.25, 0.75, 0.75]
    assert curve.partial_area(1.0, "image") == pytest.approx(0.5 * 0.25 + 0.5 * 0.75)
    assert curve.partial_area(0.75, "image") == pytest.approx((0.5 * 0.25 + 0.25 * 0.75) / 0.75)
    rows = froc.sensitivity_rows(froc.score_spots(images), "image", (0.5,))
    assert (
        rows[0]["sensitivity"] == 0.75 and rows[0]["threshold"] == 0.7 and (rows[0]["found"], rows[0]["of"]) == (3, 4)
    )
    assert rows[0]["interval"] == "no interval: 2 patients, fewer than 10" and math.isnan(rows[0]["sensitivity_low"])


def test_ignored_zones_count_neither_way_and_leave_the_area() -> None:
    zone = Mark.box((100, 100), (300, 300))  # 20 mm x 20 mm
    image = truth(spots=spots([(15, 15), (50, 50)]), ignored=(zone,))
    found = Findings(spots([(15, 15), (20, 20), (70, 70)], [0.9, 0.9, 0.9]))
    assert match_spots(image, found).is_false.tolist() == [False, False, True]
    assert np.isnan(match_spots(image, found).hit_confidence).tolist() == [True, False]
    assert match_spots(image, found, ignore_zones=False).is_false.tolist() == [False, True, True]
    assert image.breast_area_cm2() == pytest.approx(96, rel=0.01)
    assert image.breast_area_cm2(without_ignored=False) == pytest.approx(100)


def test_macrocalcifications_can_be_left_out() -> None:
    kinds = {"kind": [Kind.MACRO, Kind.MICRO], "diameter_mm": [4.0, 0.3]}
    image = truth(spots=spots([(20, 20), (20, 23)], **kinds))
    found = Findings(spots([(20, 20), (21, 21), (20, 23), (60, 60)], [0.9, 0.8, 0.7, 0.6]))
    matched = match_spots(image, found, ignore_macro=True)
    assert np.isnan(matched.hit_confidence[0]) and matched.hit_confidence[1] == 0.7
    assert matched.is_false.tolist() == [False, False, False, True]
    assert match_spots(image, found).is_false.tolist() == [False, True, False, True]


def test_r1_takes_outlines_where_there_are_some() -> None:
    square = np.array([(190, 190), (190, 210), (210, 210), (210, 190)], float)
    image = truth(spots=spots([(20, 20)]), spot_outlines=Outlines.of([square]))
    shifted = Findings(spots([(20, 21)]), spot_outlines=Outlines.of([np.add(square, (0, 10))]))  # a third in common
    further = Findings(spots([(20, 21.2)]), spot_outlines=Outlines.of([np.add(square, (0, 12))]))  # a quarter
    assert match_spots(image, shifted, SpotRule.R1).hit_confidence.tolist() == [1.0]
    assert match_spots(image, further, SpotRule.R1).hit_confidence.tolist() == [-math.inf]
    assert match_spots(image, Findings(shifted.spots), SpotRule.R1).hit_confidence.tolist() == [-math.inf]


def test_a_pixel_size_is_needed() -> None:
    with pytest.raises(NoPixelSpacing, match="a: the data set states no pixel size"):
        froc.score_spots([(truth(spacing_mm=None), Findings())])


def test_per_area_needs_a_mask() -> None:
    with pytest.raises(ReadError, match="per image instead"):
        froc.score_spots([(truth(breast=None, spots=spots([(5, 5)])), Findings())]).curve().sensitivity_at(0.1, "cm2")


# --------------------------------------------------------------------------------------------------------------
# groups


def hit(mark: Mark, found: Clusters, rule: ClusterRule = ClusterRule.R3, **known: Any) -> bool:
    matched = match_clusters(truth(marks=(mark,)), Findings(clusters=found, **known), rule)
    assert matched.is_false[0] == (matched.hit_confidence[0] == -math.inf)
    return bool(matched.hit_confidence[0] > -math.inf)


def test_a_circle_is_at_least_five_millimetres() -> None:
    assert hit(Mark.circle(200, 200, 3), clusters([(20, 24.9)]))
    assert not hit(Mark.circle(200, 200, 3), clusters([(20, 25.1)]))
    assert hit(Mark.circle(200, 200, 80), clusters([(20, 27.9)]))


@given(row=st.floats(5, 45), col=st.floats(5, 45))
@settings(max_examples=100, deadline=None)
def test_an_outline_is_grown_by_two_and_a_half_millimetres(row: float, col: float) -> None:
    outside = math.hypot(max(20 - row, 0, row - 30), max(15 - col, 0, col - 35))
    assume(abs(outside - 2.5) > 1e-3)
    assert hit(Mark.box((200, 150), (300, 350)), clusters([(row, col)])) == (outside <= 2.5)


def test_a_mark_within_the_cluster_is_a_hit_unless_the_cluster_is_over_four_times_its_area() -> None:
    mark = Mark.circle(300, 300, 50)  # 78.5 mm2
    assert not hit(mark, clusters([(30, 36)], area_mm2=[30.0]))
    assert hit(mark, clusters([(30, 38)], area_mm2=[300.0]))
    assert not hit(mark, clusters([(30, 38)], area_mm2=[320.0]))
    assert not hit(mark, clusters([(30, 30)], area_mm2=[320.0]))
    corner = Outlines.of([np.array([(290, 290), (290, 420), (420, 290)], float)])
    assert hit(mark, clusters([(33, 36)]), cluster_outlines=corner)


def test_two_spots_in_the_mark() -> None:
    mark, rule = Mark.circle(300, 300, 10), ClusterRule.R3_SPOTS
    found = clusters([(30, 40)])
    two = spots([(30, 33), (30, 34), (30, 50)], cluster_id=[1, 1, 1])
    one = spots([(30, 33), (30, 34), (30, 50)], cluster_id=[1, 0, 1])
    assert hit(mark, found, rule, spots=two) and not hit(mark, found, rule, spots=one)


def test_several_in_one_mark_are_one_hit() -> None:
    image = truth(marks=(Mark.circle(200, 200, 50),))
    found = clusters([(20, 20), (20, 21), (60, 60)], [0.3, 0.6, 0.5])
    score = froc.score_clusters([(image, Findings(clusters=found))])
    assert score.hit_confidence.tolist() == [0.6] and score.false_confidence.tolist() == [0.5]


def test_either_view_will_do_per_case() -> None:
    def view(name: str, case: str, lesions: list[str], found: Any) -> tuple[ImageTruth, Findings]:
        marks = tuple(Mark.circle(200 + 200 * i, 200, 50, lesion=w) for i, w in enumerate(lesions))
        return truth(name, "p", case_id=case, side="L", view=name, marks=marks), Findings(clusters=clusters(found, 0.7))

    pairs = [
        view("CC", "1", ["x", "y"], [(20, 20)]),
        view("MLO", "1", ["x", "y"], []),
        view("CC2", "2", ["x"], [(90, 90)]),
    ]
    assert froc.score_clusters(pairs).hit_confidence.tolist() == [0.7, -math.inf, -math.inf, -math.inf, -math.inf]
    score = froc.score_clusters(pairs, per_case=True)
    assert sorted(score.hit_confidence.tolist()) == [-math.inf, -math.inf, 0.7]
    assert score.false_confidence.tolist() == [0.7]


def test_images_with_labels_only_are_left_out() -> None:
    pairs = [(truth(marks=(Mark.circle(200, 200, 50),)), Findings()), (truth("b", located=False), Findings())]
    assert len(froc.score_clusters(pairs).truths) == 1
    with pytest.raises(ReadError, match="only image-level"):
        froc.score_clusters(pairs[1:])


def test_flagged_clusters_per_case() -> None:
    flagged = Findings(clusters=clusters([(20, 20), (40, 40)], review=[True, True]))
    pairs = [
        (truth("a", "p", case_id="1", positive=True), flagged),
        (truth("b", "q", case_id="1", positive=False), flagged),
        (truth("c", "q", case_id="1", positive=False), Findings()),
        (truth("d", "r", case_id="1", positive=False), Findings()),
        (truth("e", "s", case_id="1", positive=None), flagged),
    ]
    positive, normal = froc.flagged_cases(pairs)
    assert (positive["found"], positive["of"], positive["flagged_clusters_per_case"]) == (1, 1, 2)
    assert (normal["found"], normal["of"], normal["flagged_clusters_per_case"]) == (1, 2, 1)


# --------------------------------------------------------------------------------------------------------------
# uncertainty


@given(n=st.integers(1, 60), share=st.floats(0, 1))
def test_wilson_agrees_with_scipy(n: int, share: float) -> None:
    k = round(n * share)
    peer = binomtest(k, n).proportion_ci(method="wilson")
    assert uncertainty.wilson(k, n) == pytest.approx((peer.low, peer.high), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_auc_agrees_with_the_rank_sum_of_scipy(drawn: list[tuple[int, bool]]) -> None:
    values, positive = np.array([d[0] for d in drawn]), np.array([d[1] for d in drawn])
    assume(positive.any() and not positive.all())
    peer = mannwhitneyu(values[positive], values[~positive]).statistic / (positive.sum() * (~positive).sum())
    assert froc.area_under_roc(values, positive) == pytest.approx(peer)


def many(n: int, per_patient: int = 1) -> list[tuple[ImageTruth, Findings]]:
    return [as_pair(draw_scene(i), f"i{i}", patient=f"p{i // per_patient}") for i in range(n)]


def test_weights_count_like_repeated_images() -> None:
    pairs = many(6)
    weights = [0, 1, 3, 2, 0, 1]
    repeated = [p for p, w in zip(pairs, weights, strict=True) for _ in range(w)]
    once, again = froc.score_spots(pairs).curve(weights), froc.score_spots(repeated).curve()
    for rate in (0.5, 2, 8):
        assert once.sensitivity_at(rate, "image") == pytest.approx(again.sensitivity_at(rate, "image"))
    assert once.partial_area(9, "cm2") == pytest.approx(again.partial_area(9, "cm2"))


def test_resampling_needs_ten_patients_and_draws_whole_patients() -> None:
    few = froc.sensitivities(froc.score_spots(many(36, per_patient=4)), "image", (5,))
    assert few[0].note == "no interval: 9 patients, fewer than 10" and math.isnan(few[0].low)
    score = froc.score_spots(many(36))
    estimate = froc.sensitivities(score, "image", (5,))[0]
    assert estimate.low < estimate.value < estimate.high and estimate.note == "bootstrap over 36 patients"
    assert froc.sensitivities(score, "image", (5,))[0] == estimate
    # four identical images of each patient are no further evidence
    names = [f"{t.image_id}-{k}" for t, _ in many(36) for k in range(4)]
    pairs = [
        (truth(n, t.patient_id, spots=t.spots), f)
        for n, (t, f) in zip(names, (p for p in many(36) for _ in range(4)), strict=True)
    ]
    repeated = froc.sensitivities(froc.score_spots(pairs), "image", (5,))[0]
    assert (repeated.low, repeated.high) == pytest.approx((estimate.low, estimate.high))


def test_nothing_to_find_has_neither_value_nor_interval() -> None:
    score = froc.score_spots([(truth(f"{i}"), Findings(spots([(20, 20)]))) for i in range(12)])
    for estimate in (froc.partial_area(score, 1.0, "image"), *froc.sensitivities(score, "image", (1.0,))):
        assert math.isnan(estimate.value) and math.isnan(estimate.low)


def test_few_marks_are_given_as_k_of_n() -> None:
    pairs = [
        (truth(f"{i}", marks=(Mark.circle(200, 200, 50),)), Findings(clusters=clusters([(20, 20 + 20 * (i > 8))])))
        for i in range(12)
    ]
    estimate = froc.sensitivities(froc.score_clusters(pairs), "image", (1.0,))[0]
    assert (estimate.k, estimate.n, estimate.note) == (9, 12, "Wilson")
    assert (estimate.low, estimate.high) == pytest.approx(uncertainty.wilson(9, 12))


def test_a_difference_is_only_called_one_where_its_interval_leaves_zero() -> None:
    pairs = many(30)
    score = froc.score_spots(pairs)
    same = froc.differences(score, score, "image", (5,))[0]
    assert same.value == 0 and not same.differs
    nothing = froc.score_spots([(t, Findings()) for t, _ in pairs])
    assert froc.differences(score, nothing, "image", (5,))[0].differs
    assert not froc.differences(score.subset(np.arange(30) < 9), nothing.subset(np.arange(30) < 9), "image", (5,))[
        0
    ].differs
    with pytest.raises(ValueError, match="same images"):
        froc.differences(score, froc.score_spots(pairs[1:]), "image")


def test_image_level_roc() -> None:
    pairs = [(truth(f"{i}", positive=i % 2 == 0), Findings(clusters=clusters([(20, 20)], i / 40))) for i in range(40)]
    roc = froc.image_roc([*pairs, (truth("unknown"), Findings())])
    assert (roc.n_positive, roc.n_negative) == (20, 20)
    assert roc.auc.value == pytest.approx(0.475) and roc.auc.low < 0.475 < roc.auc.high
    assert (
        roc.sensitivity[0] == roc.false_positive_share[0] == 0
        and roc.sensitivity[-1] == roc.false_positive_share[-1] == 1
    )
    assert np.trapezoid(roc.sensitivity, roc.false_positive_share) == pytest.approx(roc.auc.value)
    with pytest.raises(ReadError, match="with and images without"):
        froc.image_roc(pairs[:1])


# --------------------------------------------------------------------------------------------------------------
# breakdown


def test_breakdown_by_size_form_and_image() -> None:
    known = {
        "diameter_mm": [0.25, 0.25, 2.0, math.nan],
        "morphology": [Morphology.ROUND, 0, 0, 0],
        "snr": [2.0, 4, 6, 9],
    }
    image = truth(spots=spots([(20, 20), (30, 30), (40, 40), (50, 50)], **known), tags={"medium": "film"})
    other = truth("b", spots=spots([(20, 20)], diameter_mm=[0.1]), tags={"medium": "digital"})
    found = Findings(spots([(20, 20), (40, 40)], [0.9, 0.2]))
    score = froc.score_spots([(image, found), (other, found)])
    rows = groups.breakdown(score, groups.labels_of(score, groups.spot_sizes), 0.5)
    assert {r["group"]: (r["found"], r["of"]) for r in rows} == {
        "0.2 to 0.3 mm": (1, 2),
        "from 1 mm": (0, 1),
        "under 0.2 mm": (1, 1),
        "unknown": (0, 1),
    }
    assert groups.labels_of(score, groups.spot_forms)[:2] == ["round", "unknown"]
    assert groups.labels_of(score, groups.spot_contrasts)[:4] == [
        "under 3 sigma",
        "3 to 5 sigma",
        "5 to 8 sigma",
        "from 8 sigma",
    ]
    by_medium = groups.image_groups(score, lambda t: t.tags["medium"])
    assert by_medium["film"].n_objects == 4 and by_medium["digital"].false_confidence.tolist() == [0.2]
    assert groups.spacing_group(image) == "0.1 mm"


def reference() -> Reading:
    outline = np.array([(100, 0), (100, 500), (500, 700), (900, 500), (900, 0)], np.float32)
    return Reading(
        identity=Identity("r", rows=1000, cols=1000, spacing_mm=SPACING),
        spots=Spots.empty(),
        clusters=Clusters.empty(),
        spot_outlines=Outlines.empty(),
        cluster_outlines=Outlines.empty(),
        breast_outline=outline,
        pectoral_outline=np.array([(100, 0), (100, 200), (400, 0)], np.float32),
        nipple=(500.0, 690.0, 0.9),
        chest_wall="left",
        breast_area_cm2=50.0,
        grey_range=(0.0, 1.0),
        quality="good",
        settings={},
        versions={},
    )


def test_places() -> None:
    points = [(150, 50), (120, 400), (600, 20), (500, 560), (600, 300)]
    assert groups.place_words(points, reference()) == [
        "pectoral",
        "skin",
        "chest wall",
        "behind the nipple",
        "elsewhere",
    ]
    assert groups.mark_places({"a": reference()})(truth(marks=(Mark.circle(600, 300, 9),))) == ["elsewhere"]


def test_the_truth_of_a_phantom_found_whole_scores_one() -> None:
    mammogram, known = make_phantom(seed=3)
    breast = Mark.outline(known.breast_outline)
    image = ImageTruth.of_tables("a", "a", known.spots, known.clusters, spacing_mm=mammogram.spacing_mm, breast=breast)
    assert image.positive and image.marks[0].form == "fine pleomorphic" and len(image.spots) == 15
    whole = Findings(known.spots, known.clusters)
    for score in (froc.score_spots([(image, whole)]), froc.score_clusters([(image, whole)])):
        assert score.curve().sensitivity_at(0, "cm2") == 1 and len(score.false_confidence) == 0


def test_a_reference_fills_what_the_set_does_not_define() -> None:
    bare = ImageTruth("a", "a").with_reference(reference())
    assert bare.spacing_mm == SPACING and bare.breast_area_cm2() == pytest.approx(48)
    assert truth(spacing_mm=(0.2, 0.2)).with_reference(reference()).breast_area_cm2() == pytest.approx(400)


# --------------------------------------------------------------------------------------------------------------
# tables and pictures


def test_findings_of_another_program_need_four_columns(tmp_path: Path) -> None:
    (tmp_path / "theirs.csv").write_text(
        "image_id,row_px,col_px,confidence,kind\nx/a.dcm,10,20,0.5,micro\nx/a.dcm,11,21,0.4,\n"
    )
    found = read_findings(tmp_path / "theirs.csv")["x/a.dcm"]
    assert found.spots.row_px.tolist() == [10, 11] and found.spots.words("kind") == ["micro", "unknown"]
    assert np.isnan(found.spots.diameter_mm).all() and len(found.clusters) == 0


def test_findings_of_a_run_are_named_by_path(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("image_id,path\n1.2.3,x/a.dcm\n1.2.4,b.dcm\n")
    (tmp_path / "spots.csv").write_text(
        "image_id,spot_id,row_px,col_px,confidence,flags,cluster_id\n1.2.3,1,1,2,0.5,near skin|saturated,1\n"
    )
    (tmp_path / "clusters.csv").write_text(
        "image_id,cluster_id,row_px,col_px,confidence,review,reasons\n1.2.3,1,1,2,0.5,true,a|b\n"
    )
    pairs = join([truth("x/a.dcm"), truth("b.dcm")], read_findings(tmp_path))
    assert [len(f.spots) for _, f in pairs] == [1, 0] and pairs[0][1].spots.flags.tolist() == [129]
    assert pairs[0][1].clusters.review.tolist() == [True]
    with pytest.raises(ReadError, match=r"1 images that the data set does not hold .*'b\.dcm'"):
        join([truth("b.dcm")], {"c.dcm": Findings()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,row_px,col_px\na,1,2\n", "lacks the column 'confidence'"),
        ("image_id,row_px,col_px,confidence\na,1,2,\n", "confidence must hold a number"),
        ("image_id,row_px,col_px,confidence\na,1,two,1\n", "col_px holds what is no value"),
        ("image_id,row_px,col_px,confidence,kind\na,1,2,1,huge\n", "kind holds what is no value"),
    ],
)
def test_bad_tables_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "spots.csv").write_text(text)
    with pytest.raises(ReadError, match=message):
        read_findings(tmp_path)


def test_missing_findings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="neither"):
        read_findings(tmp_path)
    with pytest.raises(ReadError, match="is missing"):
        read_findings(tmp_path / "no.csv")


def test_rows_and_pictures_are_written(tmp_path: Path) -> None:
    score = froc.score_spots(many(4))
    froc.write_rows(tmp_path / "curve.csv", score.curve().rows())
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"threshold": "", "sensitivity": "0", "false_per_image": "0", "false_per_cm2": "0"}
    assert float(rows[-1]["sensitivity"]) == pytest.approx(score.curve().sensitivity[-1], rel=1e-5)
    froc.draw_curves(tmp_path / "curve.png", {"ours": score.curve()}, "image")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
