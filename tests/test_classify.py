"""Words for forms, and the judge: against plain loops over trees, spots and neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detector.classify import _flags, classify_spots
from detector.classify.forms import find_kind, find_morphology, find_shape, smoothness
from detector.classify.judge import (
    APART_MM,
    FAINT,
    LIKELY,
    MISSING,
    N_TYPICAL,
    NEIGHBOUR_RADII_MM,
    RELATIVE,
    ROWS_AT_ONCE,
    WEIGHTS,
    Judge,
    Trees,
    logistic,
    over_background,
    relative,
    select_features,
    with_neighbours,
)
from detector.records import Evidence, Flag, Kind, Morphology, Outlines, Shape, Spots
from detector.settings import ClassifySettings
from tests.rooms import GROUPS, Rooms, phantom, rooms_of, small

SETTINGS = ClassifySettings()
Floats = NDArray[np.float64]


def spot(length_mm: float = 0.6, width_mm: float = 0.6, **known: Any) -> Spots:
    """Return one spot, an ellipse unless said otherwise."""
    columns: dict[str, Any] = {
        "length_mm": length_mm,
        "width_mm": width_mm,
        "area_mm2": np.pi / 4 * length_mm * width_mm,
        "diameter_mm": np.sqrt(length_mm * width_mm),
        "solidity": 0.99,
        "hole_share": 0.0,
        "skin_distance_mm": 20.0,
    } | known
    if "circularity" not in known:
        axes = 0.5 * np.array([columns["length_mm"], columns["width_mm"]])
        turn = np.linspace(0, 2 * np.pi, 2001)
        outline = np.hypot(*np.diff(axes[:, None] * np.array([np.cos(turn), np.sin(turn)]), axis=1)).sum()
        columns["circularity"] = 4 * np.pi * np.prod(axes) * np.pi / outline**2
    return Spots.blank(1, **{name: [value] for name, value in columns.items()})


def words(spots: Spots, unresolved: bool = False) -> tuple[str, str, str]:
    """Return shape, kind and form word of one spot."""
    shape = find_shape(spots, np.full(len(spots), unresolved))
    kind = find_kind(spots, shape, SETTINGS)
    found = spots.replace(shape=shape, kind=kind, morphology=find_morphology(spots, shape, kind, SETTINGS))
    return found.words("shape")[0], found.words("kind")[0], found.words("morphology")[0]


RAGGED = {"solidity": 0.85, "circularity": 0.6}
BRANCHED = {"solidity": 0.5, "circularity": 0.2}


def stroke(path_mm: float, stroke_mm: float, **known: Any) -> Spots:
    """Return a line of a stroke's width with round ends, straight unless said otherwise."""
    area = path_mm * stroke_mm + np.pi / 4 * stroke_mm**2
    columns: dict[str, Any] = {
        "area_mm2": area,
        "diameter_mm": np.sqrt(4 / np.pi * area),
        "circularity": 4 * np.pi * area / (2 * path_mm + np.pi * stroke_mm) ** 2,
    }
    return spot(**({"length_mm": path_mm + stroke_mm, "width_mm": stroke_mm} | columns | known))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (spot(0.3, 0.28), ("dot", "micro", "punctate")),
        (spot(0.8, 0.75), ("dot", "micro", "round")),
        (spot(1.3, 1.2), ("dot", "macro", "round")),
        (spot(2.6, 2.5), ("dot", "macro", "coarse")),
        (spot(6.0, 5.0, **RAGGED), ("irregular", "macro", "coarse")),
        (spot(0.4, 0.3, **RAGGED), ("irregular", "micro", "fine pleomorphic")),
        (spot(0.9, 0.7, **RAGGED), ("irregular", "micro", "coarse heterogeneous")),
        (spot(1.3, 1.1, **RAGGED), ("irregular", "macro", "coarse heterogeneous")),
        (spot(2.2, 1.8, **RAGGED), ("irregular", "macro", "dystrophic")),
        (spot(4.0, 0.7), ("dash", "macro", "large rod-like")),
        (spot(1.5, 0.3), ("dash", "micro", "fine linear")),
        (spot(4.0, 0.4), ("dash", "micro", "fine linear")),
        (spot(9.0, 0.45), ("dash", "micro", "fine linear")),
        (spot(3.0, 1.4, area_mm2=0.9, **BRANCHED), ("branching", "micro", "fine linear branching")),
        (spot(3.0, 2.9, hole_share=0.4, **RAGGED), ("rim", "macro", "rim")),
        (spot(1.4, 1.3, hole_share=0.4), ("rim", "macro", "rim")),
        (spot(1.4, 1.3, hole_share=0.4, skin_distance_mm=3.0), ("rim", "macro", "skin")),
    ],
)
def test_words_of_forms(found: Spots, expected: tuple[str, str, str]) -> None:
    assert words(found) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (stroke(3.0, 0.4), ("dash", "micro", "fine linear")),
        (stroke(3.0, 0.6), ("dash", "macro", "large rod-like")),
        (stroke(3.7, 0.54, width_mm=1.05, solidity=0.72), ("dash", "micro", "fine linear")),
        (stroke(1.2, 0.45, width_mm=0.55, solidity=0.9), ("dash", "micro", "fine linear")),
        (stroke(2.5, 0.4, width_mm=1.2, solidity=0.8), ("irregular", "micro", "coarse heterogeneous")),
        (stroke(2.5, 0.4, length_mm=2.0, width_mm=1.2, solidity=0.7), ("branching", "micro", "fine linear branching")),
        (stroke(4.5, 0.4, length_mm=3.0, width_mm=2.2, solidity=0.5), ("branching", "micro", "fine linear branching")),
        (stroke(4.5, 0.75, length_mm=3.0, width_mm=2.2, solidity=0.5), ("irregular", "macro", "coarse")),
        (stroke(4.5, 0.65, length_mm=3.0, width_mm=2.2, solidity=0.5), ("irregular", "micro", "coarse heterogeneous")),
        (stroke(4.5, 0.65, length_mm=3.0, width_mm=2.2, solidity=0.8), ("irregular", "macro", "coarse")),
        (
            stroke(4.5, 0.4, length_mm=3.0, width_mm=2.2, solidity=0.5, hole_share=0.2),
            ("branching", "micro", "fine linear branching"),
        ),
    ],
    ids=[
        "line",
        "rod",
        "a line a little wide",
        "bent a little",
        "bent",
        "bent more",
        "arms",
        "thick arms",
        "arms a little thick",
        "thick and bent",
        "arms that touch",
    ],
)
def test_a_thin_line_is_micro_however_it_is_bent_or_branches(found: Spots, expected: tuple[str, str, str]) -> None:
    assert words(found) == expected


@given(st.floats(0.0, 8), st.floats(0.05, 3))
def test_stroke_of_a_rod_is_its_width_and_of_a_disc_its_diameter(path_mm: float, stroke_mm: float) -> None:
    assert stroke(path_mm, stroke_mm).stroke_mm[0] == pytest.approx(stroke_mm, rel=1e-3)


def test_under_four_pixels_there_is_no_shape_but_of_lines() -> None:
    assert words(spot(0.3, 0.28), unresolved=True) == ("unresolved", "micro", "")
    assert words(spot(0.4, 0.3, **RAGGED), unresolved=True) == ("unresolved", "micro", "")
    assert words(spot(0.7, 0.3), unresolved=True) == ("unresolved", "micro", "")
    assert words(spot(2.0, 0.3), unresolved=True) == ("dash", "micro", "fine linear")


@given(st.floats(0.05, 15), st.floats(0.05, 1), st.floats(0.3, 1), st.floats(0.05, 1), st.floats(0, 0.9), st.booleans())
@example(2.0, 0.75, 0.5, 0.375, 0.0, False)
def test_kind_follows_the_widths_whatever_else(
    length_mm: float, share: float, solidity: float, circularity: float, hole: float, unresolved: bool
) -> None:
    width_mm = length_mm * share
    found = spot(length_mm, width_mm, solidity=solidity, circularity=circularity, hole_share=hole)
    shape, kind, word = words(found, unresolved)
    thin = shape != "rim" and solidity < 0.85 and found.stroke_mm[0] < (0.7 if solidity < 0.75 else 0.6)
    if width_mm >= 1.0 and not thin:
        assert kind == "macro"
    elif shape != "dash":
        assert kind == "micro"
    if width_mm < 0.5:
        assert kind == "micro"
    assert not (kind == "micro" and word in ("large rod-like", "dystrophic", "coarse"))
    assert not (kind == "macro" and word in ("punctate", "fine pleomorphic", "fine linear", "fine linear branching"))


def test_without_sizes_nothing_is_said() -> None:
    unknown = spot(**dict.fromkeys(("length_mm", "width_mm", "area_mm2", "diameter_mm"), np.nan))
    assert words(unknown)[1:] == ("unknown", "")


@pytest.mark.parametrize("aspect", [1.0, 1.5, 3.0])
def test_smoothness_of_ellipses_is_1(aspect: float) -> None:
    assert smoothness(spot(0.8 * aspect, 0.8))[0] == pytest.approx(1.0, abs=0.01)
    assert smoothness(spot(0.8 * aspect, 0.8, circularity=0.3))[0] < 0.6


# --- trees


def random_trees(seed: int, n_features: int = 5, n_trees: int = 7, depth: int = 3) -> Trees:
    rng = np.random.default_rng(seed)
    return Trees(
        feature=rng.integers(0, n_features, (n_trees, 2**depth - 1)).astype(np.int16),
        threshold=rng.normal(0, 1, (n_trees, 2**depth - 1)).astype(np.float32),
        value=rng.normal(0, 1, (n_trees, 2**depth)).astype(np.float32),
        bias=0.25,
    )


@pytest.mark.parametrize(("seed", "n", "depth"), [(1, 40, 3), (2, 40, 1), (3, ROWS_AT_ONCE + 1, 4)])
def test_scores_are_those_of_a_loop_over_trees(seed: int, n: int, depth: int) -> None:
    trees = random_trees(seed, depth=depth)
    features = np.random.default_rng(seed).normal(0, 1, (n, 5)).astype(np.float32)
    features[0, 0] = trees.threshold[0, 0]  # equal goes left
    slow = []
    for row in features:
        total = trees.bias
        for feature, threshold, value in zip(trees.feature, trees.threshold, trees.value, strict=True):
            node = 0
            while node < len(feature):
                node = 2 * node + (2 if row[feature[node]] > threshold[node] else 1)
            total += float(value[node - len(feature)])
        slow.append(total)
    np.testing.assert_allclose(trees.score(features), slow, rtol=1e-6)
    assert trees.score(features[:0]).shape == (0,)


# --- neighbours


def slow_neighbours(score: Floats, place_mm: Floats) -> Floats:
    probability = 1 / (1 + np.exp(-score))
    rows = []
    for i in range(len(score)):
        row = [score[i]]
        for radius in NEIGHBOUR_RADII_MM:
            away = np.hypot(*(place_mm - place_mm[i]).T)
            near = [
                probability[j]
                for j in range(len(score))
                if j != i and APART_MM < away[j] <= radius and probability[j] > FAINT
            ]
            near.sort(reverse=True)
            row += [
                sum(near),
                near[0] if near else 0.0,
                near[2] if len(near) > 2 else 0.0,
                sum(p > LIKELY for p in near),
            ]
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("n", [1, 2, 30, 120])
def test_neighbours_are_those_of_a_loop_over_spots(n: int) -> None:
    rng = np.random.default_rng(n)
    place, score = rng.uniform(0, 40, (n, 2)), rng.normal(-1, 3, n)
    features = rng.normal(0, 1, (n, 3)).astype(np.float32)
    found = with_neighbours(features, score, place)
    assert np.array_equal(found[:, :3], features)
    np.testing.assert_allclose(found[:, 3:], slow_neighbours(score, place), rtol=1e-5, atol=1e-6)


def test_nobody_is_a_neighbour_where_all_are_faint() -> None:
    found = with_neighbours(np.zeros((4, 1), np.float32), np.full(4, -20.0), np.zeros((4, 2)))
    assert not found[:, 2:].any()


def test_features_are_chosen_by_name_and_unknown_ones_are_marked() -> None:
    evidence = Evidence(("b", "a"), np.array([[1, np.nan], [3, 4]], np.float32))
    chosen = select_features(evidence, ("a", "missing", "b"), np.zeros((2, 3), np.float32))
    assert chosen.tolist() == [[MISSING, MISSING, 1], [4, MISSING, 3]]


def test_relative_features_stand_behind_their_own_name() -> None:
    evidence = Evidence(("b", "a"), np.array([[1, 10], [2, 20], [4, 40]], np.float32))
    typical = np.array([[0, 7, 5], [0, 3, 6]], np.float32)
    chosen = select_features(evidence, ("a", "relative_missing", "relative_a"), typical)
    assert chosen[:, 0].tolist() == [10, 20, 40]
    assert chosen[:, 1].tolist() == [MISSING] * 3
    np.testing.assert_array_equal(chosen[:, 2], relative(evidence.values[:, 1:], typical[:, 2:])[:, 0])


@given(st.floats(-1e6, 1e6))
def test_logistic_is_a_probability(score: float) -> None:
    p = logistic(np.array([score]))[0]
    assert 0 <= p <= 1
    assert logistic(np.array([-score]))[0] == pytest.approx(1 - p, abs=1e-12)


# --- the judge that comes with the package


@pytest.fixture(scope="module")
def rooms() -> Rooms:
    return rooms_of(1, small(*GROUPS))


def test_the_judge_asks_only_what_measuring_answers(rooms: Rooms) -> None:
    judge = Judge.load()
    asked = {name.removeprefix(RELATIVE) for name in judge.names}
    assert asked <= {*rooms.evidence.names, *(n for n in asked if n.startswith("response_"))}
    assert judge.first.feature.max() < len(judge.names)
    assert judge.second.feature.max() < len(judge.names) + 1 + 4 * len(NEIGHBOUR_RADII_MM)
    assert len(judge.digest) == 64
    assert judge is Judge.load()


def test_relative_features_do_not_know_grain_and_contrast() -> None:
    values = np.random.default_rng(1).normal(size=(101, 3)).astype(np.float32)
    values[5, 2] = np.nan
    nothing_known = np.zeros((2, 3), np.float32)
    found = relative(np.tile(values, (40, 1)), nothing_known)[:101]
    low, middle, high = (np.sort(values[:, 0])[k] for k in (25, 50, 75))
    np.testing.assert_allclose(found[:, 0], (values[:, 0] - middle) / (high - low), atol=0.03)
    assert np.isnan(found[5, 2])
    typical = np.array([[1], [2]], np.float32)
    once = relative(values[:, :1], typical)
    shifted = np.array([[10], [14]], np.float32)
    np.testing.assert_allclose(relative(values[:, :1] * 7 + 3, shifted), once, atol=1e-4)


@pytest.mark.parametrize("n", [0, 1, 3, N_TYPICAL, 2000])
def test_few_candidates_say_little_of_their_image(n: int) -> None:
    """The median of all is 1 and the quartiles' distance 0; in training images these were 4 and 2."""
    typical = np.array([[4], [2]], np.float32)
    found = relative(np.ones((n, 1), np.float32), typical)
    share = n / (n + N_TYPICAL)
    middle, spread = share + (1 - share) * 4, (1 - share) * 2
    np.testing.assert_allclose(found, np.full((n, 1), (1 - middle) / spread), rtol=1e-3)


def test_weights_are_plain_arrays() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000
    with np.load(WEIGHTS, allow_pickle=False) as arrays:
        # a node that asks nothing sends all to the left
        assert not any(np.isnan(arrays[name]).any() for name in arrays.files if name != "names")
        assert all(np.isfinite(arrays[f"{stage}_value"]).all() for stage in ("first", "second"))


def test_confidence_is_a_probability_that_the_order_of_rows_leaves_alone(rooms: Rooms) -> None:
    judge = Judge.load()
    confidence = judge.confidence(rooms.measured, rooms.evidence)
    assert ((confidence >= 0) & (confidence <= 1)).all()
    order = np.random.default_rng(1).permutation(len(confidence))
    shuffled = Evidence(rooms.evidence.names, rooms.evidence.values[order])
    np.testing.assert_allclose(judge.confidence(rooms.measured[order], shuffled), confidence[order], rtol=1e-9)


def test_true_calcifications_are_judged_higher_than_the_rest(rooms: Rooms) -> None:
    truth = phantom(1, small(*GROUPS))[1].spots
    place = np.stack([rooms.measured.row_mm, rooms.measured.col_mm], axis=1)
    away = np.hypot(*(place[:, None] - np.stack([truth.row_mm, truth.col_mm], axis=1)[None]).transpose(2, 0, 1))
    is_true = (away < np.maximum(0.2, 0.25 * truth.diameter_mm)).any(axis=1)
    confidence = Judge.load().confidence(rooms.measured, rooms.evidence)
    assert np.median(confidence[is_true]) > 0.5
    assert np.mean(confidence[~is_true] > 0.5) < 0.05


def test_scores_are_taken_over_their_own_background() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0.0, 1.0, 2000)
    calm, busy = (np.concatenate([noise + level, [level + 6.0] * 40]) for level in (-6.0, -3.0))
    np.testing.assert_allclose(over_background(busy, -5.0)[-1], over_background(calm, -5.0)[-1], atol=0.2)
    # what one candidate says of a background is little
    np.testing.assert_allclose(over_background(np.array([2.0]), -5.0), [7.0], atol=0.1)
    assert not len(over_background(np.empty(0), -5.0))


def test_another_file_of_weights_is_another_judge(tmp_path: Path) -> None:
    with np.load(WEIGHTS) as arrays:
        changed = dict(arrays)
    changed["calibration"] = changed["calibration"] * np.array([1, 0, 1]) - np.array([0, 40, 0])
    np.savez(tmp_path / "other.npz", **changed)
    other = Judge.load(tmp_path / "other.npz")
    assert other.digest != Judge.load().digest
    assert other.offset == -40


# --- the room


def test_spots_under_the_floor_are_left_out(rooms: Rooms) -> None:
    confidence = Judge.load().confidence(rooms.measured, rooms.evidence)
    for floor in (SETTINGS.floor, 0.5):
        spots, outlines = classify_spots(
            rooms.measured, rooms.evidence, rooms.measured_outlines, ClassifySettings(floor=floor)
        )
        kept = np.flatnonzero(confidence >= floor)
        assert len(spots) == len(outlines) == len(kept) > 0
        np.testing.assert_allclose(spots.confidence, confidence[kept])
        np.testing.assert_allclose(spots.row_px, rooms.measured.row_px[kept])
        assert np.array_equal(spots.spot_id, np.arange(1, len(kept) + 1))
        for row, one in enumerate(kept.tolist()):
            assert np.array_equal(outlines[row], rooms.measured_outlines[one])


def test_only_its_own_columns_are_written(rooms: Rooms) -> None:
    kept = np.flatnonzero(Judge.load().confidence(rooms.measured, rooms.evidence) >= SETTINGS.floor)
    before, after = rooms.measured[kept], rooms.spots
    for column in Spots.columns():
        if column.room in ("measure", "cluster") and column.name != "spot_id":
            np.testing.assert_array_equal(getattr(after, column.name), getattr(before, column.name))


def test_flags_say_what_the_evidence_says(rooms: Rooms) -> None:
    kept = np.flatnonzero(Judge.load().confidence(rooms.measured, rooms.evidence) >= SETTINGS.floor)
    spots = rooms.spots
    for flag, name in (
        (Flag.NEAR_SKIN, "near_skin"),
        (Flag.IN_PECTORAL, "in_pectoral"),
        (Flag.NEAR_EDGE, "near_edge"),
        (Flag.SATURATED, "saturated"),
        (Flag.OUTLINE_CUT, "cut"),
    ):
        assert np.array_equal((spots.flags & flag) > 0, rooms.evidence.column(name)[kept] > 0), name
    assert np.array_equal((spots.flags & Flag.SIZE_IS_UPPER_BOUND) > 0, spots.width_mm < np.float32(0.4))


def test_every_flag_is_set_by_something(rooms: Rooms) -> None:
    """Vascular tracks are told at their cluster: its form, and its reason."""
    values = np.ones((1, len(rooms.evidence.names)), np.float32)
    values[0, [rooms.evidence.names.index(name) for name in ("ring_0.6_evenness", "pixel_mm")]] = 0.05
    assert _flags(Evidence(rooms.evidence.names, values), np.array([True])).tolist() == [sum(Flag)]


def test_unresolved_spots_have_no_form_word(rooms: Rooms) -> None:
    unresolved = rooms.spots.shape == Shape.UNRESOLVED
    assert unresolved.any()
    assert (rooms.spots.width_mm[unresolved] < 0.4).all()
    assert (rooms.spots.morphology[unresolved] == Morphology.NONE).all()
    assert (rooms.spots.kind[unresolved] == Kind.MICRO).all()


def test_nothing_stays_nothing() -> None:
    spots, outlines = classify_spots(
        Spots.empty(), Evidence((), np.empty((0, 0), np.float32)), Outlines.empty(), SETTINGS
    )
    assert len(spots) == len(outlines) == 0
