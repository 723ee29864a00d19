"""The judge as plain arrays against scikit-learn, its neighbours against a loop, its labels against geometry."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from detector.classify.judge import (
    APART_MM,
    FAINT,
    LIKELY,
    MISSING,
    NEIGHBOUR_RADII_MM,
    WEIGHTS,
    Judge,
    logistic,
    select_features,
    with_neighbours,
)
from detector.evaluate.insertion import Insertion
from detector.evaluate.phantoms import make_phantom
from detector.evaluate.recipes import Recipe
from detector.evaluate.training import Example, average, label_spots, learn, make_example, trees_of
from detector.evaluate.truth import Mark
from detector.records import Evidence, Shape, Spots

RNG = np.random.default_rng(7)


def test_trees_score_as_scikit_learn_does() -> None:
    features = RNG.normal(size=(3000, 6)).astype(np.float32)
    features[::7, 2] = MISSING
    label = (features[:, 0] + features[:, 1] * features[:, 2] > 0).astype(int)
    model = HistGradientBoostingClassifier(max_depth=4, max_leaf_nodes=9, max_iter=30).fit(features, label)
    ours = trees_of(model, 4).score(features)
    np.testing.assert_allclose(ours, model.decision_function(features), atol=1e-5)


def test_averaged_trees_score_the_mean_of_their_models() -> None:
    features = RNG.normal(size=(2000, 5)).astype(np.float32)
    label = (features[:, 0] + features[:, 1] * features[:, 2] > 0).astype(int)
    models = [
        HistGradientBoostingClassifier(max_depth=3, max_iter=n, max_features=0.5, random_state=n).fit(features, label)
        for n in (10, 20)
    ]
    ours = average([trees_of(model, 3) for model in models]).score(features)
    np.testing.assert_allclose(ours, np.mean([m.decision_function(features) for m in models], axis=0), atol=1e-5)


def test_trees_of_no_spots_score_nothing() -> None:
    judge = Judge.load()
    assert judge.first.score(np.empty((0, len(judge.names)), np.float32)).shape == (0,)


def test_neighbours_equal_a_loop() -> None:
    place = RNG.uniform(0, 25, (60, 2))
    place[1] = place[0] + 0.5 * APART_MM
    score = RNG.normal(-1, 3, 60)
    probability = logistic(score)
    found = with_neighbours(np.zeros((60, 1), np.float32), score, place)
    for i in range(60):
        expected = [0.0, score[i]]
        distance = np.hypot(*(place - place[i]).T)
        for radius in NEIGHBOUR_RADII_MM:
            near = (distance > APART_MM) & (distance <= radius) & (probability > FAINT)
            values = np.sort(probability[near])[::-1]
            expected += [
                values.sum(),
                values[0] if len(values) else 0,
                values[2] if len(values) > 2 else 0,
                (values > LIKELY).sum(),
            ]
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-6)


def test_unknown_features_are_marked_missing() -> None:
    evidence = Evidence(("a", "b"), np.array([[1, np.nan], [2, 3]], np.float32))
    chosen = select_features(evidence, ("b", "c", "a"), np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(chosen, [[MISSING, MISSING, 1], [3, MISSING, 2]])


def test_the_record_is_of_the_weights() -> None:
    record = json.loads(Path(WEIGHTS).with_suffix(".json").read_text())
    assert record["weights_sha256"] == Judge.load().digest
    assert {"sfm-benign-0", "sfm-malign-0"} <= set(record["patients"])
    assert all(len(digest) == 64 for digest in record["images"].values())
    judge = Judge.load()
    np.testing.assert_allclose([judge.slope, judge.offset, judge.background], record["calibration"])


def _truth(**columns: object) -> Spots:
    known = {"length_mm": [3.0], "width_mm": [0.3], "diameter_mm": [1.0], "orientation_deg": [90.0]}
    return Spots.blank(1, row_px=[100.0], col_px=[100.0], shape=[int(Shape.DASH)], **(known | columns))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "col", "label"),
    [(100, 100, 1), (113, 100, 1), (87, 101, 1), (100, 113, 0), (100, 104, -1), (117.5, 100, -1), (140, 100, 0)],
)
def test_a_line_is_calcium_along_its_axis(row: float, col: float, label: int) -> None:
    spots = Spots.blank(1, row_px=[row], col_px=[col])
    assert label_spots(spots, _truth(), (), (0.1, 0.1)).tolist() == [label]


def test_zones_teach_nothing() -> None:
    spots = Spots.blank(2, row_px=[10.0, 300.0], col_px=[10.0, 300.0])
    zone = Mark.circle(300, 300, 20)
    assert label_spots(spots, Spots.empty(), (zone,), (0.1, 0.1)).tolist() == [0, -1]


def test_learning_from_phantoms_ranks_calcium_first() -> None:
    recipe = Recipe(rows=900, cols=700, spacing_mm=0.1, groups=())
    found = [
        make_example(make_phantom(seed, recipe)[0], seed, f"phantom {seed}", (), Insertion()) for seed in range(1, 5)
    ]
    examples: list[Example] = [example for _, example in found]
    first, second = (learn([names for names, _ in found], examples) for _ in range(2))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert all((e.label == 1).sum() > 5 for e in examples)
    assert first["operating_points"][0] <= first["operating_points"][1] <= first["operating_points"][2]
    # an image without a candidate teaches nothing
    empty = dataclasses.replace(
        examples[0],
        features=np.empty((0, 0), np.float32),
        place_mm=np.empty((0, 2)),
        label=np.empty(0, np.int8),
        area_cm2=0.0,
    )
    third = learn([*(names for names, _ in found), ()], [*examples, empty])
    for name in first:
        np.testing.assert_array_equal(first[name], third[name])
