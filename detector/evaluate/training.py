"""How the judge learns: calcifications put into images whose pixels may be redistributed, features, labels, weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from detector.breast import find_breast
from detector.classify.judge import (
    Trees,
    all_names,
    known_columns,
    logistic,
    over_background,
    places_mm,
    quartiles,
    select_features,
    with_neighbours,
)
from detector.detect import detect_marks
from detector.enhance import enhance_detail
from detector.evaluate.insertion import Insertion, insert_calcifications
from detector.evaluate.truth import Mark, in_any
from detector.measure import measure_spots
from detector.records import Evidence, Mammogram, Morphology, Shape, Spots
from detector.settings import Settings

Floats = NDArray[np.float64]

CALCIUM_MM, APART_MM = 0.2, 0.45
"""A candidate within the larger of the former and the radius of a true spot is calcium; one farther than the latter (or
the radius and a tenth) from all is not; those between teach nothing."""

INSERTION = Insertion(
    n_clusters=6,
    n_macros=5,
    n_particles=(3, 20),
    radius_mm=(1.0, 5.0),
    contrast=(2.2, 14.0),
    macro_contrast=(6.0, 30.0),
    macro_mm=(1.0, 4.0),
    forms=(
        Morphology.PUNCTATE,
        Morphology.ROUND,
        Morphology.AMORPHOUS,
        Morphology.FINE_PLEOMORPHIC,
        Morphology.FINE_PLEOMORPHIC,
        Morphology.FINE_LINEAR,
        Morphology.FINE_LINEAR,
        Morphology.FINE_LINEAR,
        Morphology.FINE_LINEAR_BRANCHING,
    ),
    macro_forms=(Morphology.ROUND, Morphology.COARSE, Morphology.RIM, Morphology.LARGE_ROD_LIKE),
    margin_mm=1.5,
)
"""What training images hold: wider than the standard set in contrast, form and place, and groups from the fewest spots
that make one and from 2 mm across, as radiologists mark them too; many thin lines, which are harder to tell from
strands than grains from noise, and matter most."""


@dataclass(frozen=True, eq=False)
class Example:
    """Candidates of one image: features, places, and what each is (1 calcium, 0 not, -1 unknown).

    `standard` says that what was put in is the standard set's, at whose prevalence confidence is calibrated.
    """

    patient: str
    image: str
    features: NDArray[np.float32]
    place_mm: Floats
    label: NDArray[np.int8]
    area_cm2: float
    standard: bool


def make_example(
    mammogram: Mammogram, seed: int, patient: str, ignored: Sequence[Mark], insertion: Insertion = INSERTION
) -> tuple[tuple[str, ...], Example]:
    """Insert calcifications, run the rooms up to `measure`, and label the candidates.

    Parameters
    ----------
    mammogram : Mammogram
    seed : int
    patient : str
        Unit of hold-out.
    ignored : sequence of Mark
        Zones that may hold real calcium: their candidates teach nothing.
    insertion : Insertion

    Returns
    -------
    names : tuple of str
        Of the features.
    example : Example
    """
    image, truth = insert_calcifications(mammogram, seed, insertion)
    spots, evidence, area_cm2 = candidates(image)
    return evidence.names, Example(
        patient=patient,
        image=mammogram.identity.image_id,
        features=evidence.values,
        place_mm=places_mm(spots, evidence),
        label=label_spots(spots, truth.spots, ignored, mammogram.spacing_mm),
        area_cm2=area_cm2,
        standard=insertion == Insertion(),
    )


def candidates(mammogram: Mammogram) -> tuple[Spots, Evidence, float]:
    """Return all candidates of an image, before any is judged, and the breast's area in cm2."""
    settings = Settings()
    breast = find_breast(mammogram, settings.breast)
    detail = enhance_detail(mammogram, breast, settings.enhance)
    marks = detect_marks(detail, breast, settings.detect)
    spots, evidence, _ = measure_spots(mammogram, breast, detail, marks)
    return spots, evidence, breast.area_cm2


def label_spots(
    spots: Spots, truth: Spots, ignored: Sequence[Mark], spacing_mm: tuple[float, float]
) -> NDArray[np.int8]:
    """Return 1 for calcium, 0 for what is none, -1 for what teaches nothing."""
    places = np.stack([spots.row_px, spots.col_px], axis=1)
    label = np.zeros(len(spots), np.int8)
    label[in_any(ignored, places, spacing_mm)] = -1
    if len(truth) and len(spots):
        distance, nearest = _distance_to_axes(places * np.array(spacing_mm), truth, spacing_mm)
        reach = 0.5 * np.where(truth.shape == Shape.DASH, truth.width_mm, truth.diameter_mm)[nearest]
        label[distance < np.maximum(APART_MM, reach + 0.1)] = -1
        label[distance < np.maximum(CALCIUM_MM, reach)] = 1
    return label


def _distance_to_axes(
    place_mm: Floats, truth: Spots, spacing_mm: tuple[float, float]
) -> tuple[Floats, NDArray[np.intp]]:
    """Return the distance of each place to the nearest true spot, of lines to their axis, and which spot that is.

    The axes are laid out as points 0.1 mm apart.
    """
    half = 0.5 * np.where(truth.shape == Shape.DASH, truth.length_mm - truth.width_mm, 0.0)
    n_steps = np.ceil(half / 0.1).astype(np.int64)
    spot = np.repeat(np.arange(len(truth)), 2 * n_steps + 1)
    step = np.concatenate([np.arange(-n, n + 1) for n in n_steps]) / np.maximum(n_steps, 1)[spot]
    angle = np.radians(truth.orientation_deg[spot])
    along = (step * half[spot])[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    middle = np.stack([truth.row_px, truth.col_px], axis=1)[spot] * np.array(spacing_mm)
    distance, point = cKDTree(middle + along).query(place_mm)
    return distance, spot[point]


def resampled(mammogram: Mammogram, pixel_mm: float) -> Mammogram:
    """Return the image at a coarser pixel size, by means over the area of each new pixel."""
    factor = mammogram.pixel_mm / pixel_mm
    rows, cols = (round(n * factor) for n in mammogram.pixels.shape)
    pixels = cv2.resize(mammogram.pixels, (cols, rows), interpolation=cv2.INTER_AREA)
    identity = dataclasses.replace(mammogram.identity, rows=rows, cols=cols, spacing_mm=(pixel_mm, pixel_mm))
    return Mammogram(np.asarray(pixels, np.float32), identity)


def exposed_anew(mammogram: Mammogram, seed: int) -> Mammogram:
    """Return the image as another exposure and scanner might give it, so that one background teaches like several.

    Another contrast curve (a power of 0.6 to 1.65 over the grey range); in half of the cases half or all of the noise
    once more, as grain of up to 0.06 mm; of coarse pixels every other image in 8 bits.

    Parameters
    ----------
    mammogram : Mammogram
    seed : int

    Returns
    -------
    Mammogram
    """
    rng = np.random.default_rng([seed, 7])
    low, high = np.percentile(mammogram.pixels[::8, ::8], [0.5, 99.5])
    share = np.maximum((mammogram.pixels - low) / (high - low), 0).astype(np.float32)
    power = float(np.exp(rng.uniform(-0.5, 0.5)))
    share = np.where(share <= 1, np.minimum(share, 1) ** power, 1 + (share - 1) * power).astype(np.float32)
    strength = float(rng.choice([0.0, 0.0, 0.5, 1.0]))
    if strength:
        detail = share - cv2.GaussianBlur(share, (0, 0), 0.15 / mammogram.pixel_mm)
        # standard deviation of a Gaussian by its median absolute deviation, where there is breast
        sigma = float(np.median(np.abs(detail[::4, ::4][share[::4, ::4] > 0.15]))) / 0.6745
        noise = rng.standard_normal(share.shape).astype(np.float32)
        grain_px = float(rng.uniform(0, 0.06)) / mammogram.pixel_mm
        if grain_px > 0.3:
            noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), grain_px), np.float32)
            noise /= noise.std()
        share = share + strength * sigma * noise
    if mammogram.pixel_mm > 0.15 and seed % 2:
        share = np.clip(np.round(share * 255), 0, 255) / 255
    return dataclasses.replace(mammogram, pixels=np.asarray(share * (high - low) + low, np.float32))


def learn(names: Sequence[tuple[str, ...]], examples: Sequence[Example]) -> dict[str, NDArray[Any]]:
    """Return the weights of a judge, as `detector.classify.judge` reads them.

    The second stage learns from scores that first stages, trained without the image, gave it. The calibration comes
    from both stages trained without the image's patient.
    """
    columns = all_names(tuple(dict.fromkeys(name for each in names for name in each)))
    typical = _typical(names, examples, columns)
    features = [
        select_features(Evidence(own, example.features), columns, typical)
        for own, example in zip(names, examples, strict=True)
    ]
    labels = [e.label for e in examples]
    by_patient = _folds([e.patient for e in examples])
    unseen = _with_scores(features, _out_of_fold(features, labels, by_patient, FIRST), examples)
    calibration, points = _calibrate(_out_of_fold(unseen, labels, by_patient, SECOND), examples)

    by_image = _folds([e.image or e.patient for e in examples])
    joined = _with_scores(features, _out_of_fold(features, labels, by_image, FIRST), examples)
    first, second = _fit(features, labels, FIRST), _fit(joined, labels, SECOND)
    return _weights(columns, first, second, calibration) | {"operating_points": points, "typical": typical}


def _typical(
    names: Sequence[tuple[str, ...]], examples: Sequence[Example], columns: tuple[str, ...]
) -> NDArray[np.float32]:
    """Return the mean, over the images that know them, of the median and the quartiles' distance of each column."""
    total, count = np.zeros((2, len(columns))), np.zeros(len(columns))
    for own, example in zip(names, examples, strict=True):
        if not len(example.features):
            continue
        known, source = known_columns(own, columns)
        found = quartiles(example.features[:, source])
        is_finite = np.isfinite(found).all(axis=0)
        total[:, known] += np.where(is_finite, found, 0)
        count[known] += is_finite
    return np.asarray(total / np.maximum(count, 1), np.float32)


def _with_scores(
    features: Sequence[NDArray[np.float32]], scores: Sequence[Floats], examples: Sequence[Example]
) -> list[NDArray[np.float32]]:
    return [with_neighbours(x, s, e.place_mm) for x, s, e in zip(features, scores, examples, strict=True)]


FIRST: Mapping[str, Any] = {"max_iter": 55, "learning_rate": 0.12, "max_depth": 4, "max_leaf_nodes": 12}
SECOND: Mapping[str, Any] = {"max_iter": 30, "learning_rate": 0.12, "max_depth": 3, "max_leaf_nodes": 6}
"""Size of the models of the two stages: deeper trees, and more and slower ones, gained nothing on held-out patients and
cost time."""

N_MODELS = 4
"""Models that are averaged in each stage: what the choice of features of one tree or another decides counts less."""


FALSE_PER_CM2 = (1.0, 0.4, 0.1)
"""False spots a cm2 at the operating points `sensitive`, `balanced` and `specific`."""


def _folds(keys: Sequence[str], n_folds: int = 4) -> NDArray[np.int64]:
    """Return a fold for each key; equal keys share one."""
    names = sorted(set(keys))
    return np.array([names.index(key) % n_folds for key in keys])


def _out_of_fold(
    features: Sequence[NDArray[np.float32]],
    labels: Sequence[NDArray[np.int8]],
    folds: NDArray[np.int64],
    size: Mapping[str, Any],
) -> list[Floats]:
    """Return the scores of each example by trees that saw none of its fold."""
    scores: list[Floats] = [np.empty(0)] * len(features)
    for fold in np.unique(folds):
        others = np.flatnonzero(folds != fold).tolist()
        trees = _fit([features[i] for i in others], [labels[i] for i in others], size)
        for i in np.flatnonzero(folds == fold).tolist():
            scores[i] = trees.score(features[i])
    return scores


def _fit(features: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.int8]], size: Mapping[str, Any]) -> Trees:
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = np.concatenate(features), np.concatenate(labels)
    fixed = {"min_samples_leaf": 80, "l2_regularization": 20.0, "max_features": 0.5, "early_stopping": False}
    models = [
        HistGradientBoostingClassifier(random_state=seed, **fixed, **size).fit(x[y >= 0], y[y >= 0])
        for seed in range(N_MODELS)
    ]
    return average([trees_of(model, size["max_depth"]) for model in models])


def average(models: Sequence[Trees]) -> Trees:
    """Return the trees whose score is the mean of several models' scores, all of one depth."""
    return Trees(
        feature=np.concatenate([one.feature for one in models]),
        threshold=np.concatenate([one.threshold for one in models]),
        value=(np.concatenate([one.value for one in models]) / len(models)).astype(np.float32),
        bias=float(np.mean([one.bias for one in models])),
    )


def trees_of(model: Any, depth: int) -> Trees:
    """Return a fitted gradient boosting model as plain arrays; shallow leaves are repeated down to the depth."""
    n_nodes = 2**depth - 1
    n = len(model._predictors)
    feature = np.zeros((n, n_nodes), np.int16)
    threshold = np.full((n, n_nodes), np.inf, np.float32)
    value = np.zeros((n, n_nodes + 1), np.float32)
    for index, (predictor,) in enumerate(model._predictors):
        _copy_node(predictor.nodes, 0, 0, (feature[index], threshold[index], value[index]))
    return Trees(feature, threshold, value, float(model._baseline_prediction.ravel()[0]))


def _copy_node(nodes: Any, source: int, target: int, arrays: tuple[Any, Any, Any]) -> None:
    feature, threshold, value = arrays
    node = nodes[source]
    if target >= len(feature):
        value[target - len(feature)] = node["value"]
    elif node["is_leaf"]:
        for child in (2 * target + 1, 2 * target + 2):
            _copy_node(nodes, source, child, arrays)
    else:
        feature[target], threshold[target] = node["feature_idx"], node["num_threshold"]
        _copy_node(nodes, node["left"], 2 * target + 1, arrays)
        _copy_node(nodes, node["right"], 2 * target + 2, arrays)


def _calibrate(scores: Sequence[Floats], examples: Sequence[Example]) -> tuple[tuple[float, float, float], Floats]:
    """Return slope and offset of Platt's scaling (Platt 1999) and the background, and confidences at `FALSE_PER_CM2`.

    Fitted to scores of held-out patients, on images with the standard set's insertions where there are any.
    """
    from sklearn.linear_model import LogisticRegression

    standard = [i for i, e in enumerate(examples) if e.standard] or list(range(len(examples)))
    background = float(np.mean([np.median(scores[i]) for i in standard if len(scores[i])]))
    score = np.concatenate([over_background(scores[i], background) for i in standard])
    label = np.concatenate([examples[i].label for i in standard])
    known = label >= 0
    model = LogisticRegression(C=1e6).fit(score[known, None], label[known])
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    false = np.sort(logistic(slope * score[label == 0] + offset))[::-1]
    area_cm2 = sum(examples[i].area_cm2 for i in standard)
    points = np.array([false[min(int(rate * area_cm2), len(false) - 1)] for rate in FALSE_PER_CM2])
    return (slope, offset, background), points


def _weights(
    names: tuple[str, ...], first: Trees, second: Trees, calibration: tuple[float, float, float]
) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"names": np.array(names), "calibration": np.array(calibration)}
    for stage, trees in (("first", first), ("second", second)):
        arrays |= {
            f"{stage}_feature": trees.feature,
            f"{stage}_threshold": trees.threshold,
            f"{stage}_value": trees.value,
            f"{stage}_bias": np.array(trees.bias),
        }
    return arrays
