"""What the tests of the rooms share: phantoms made once, pictures as mammograms, and all rooms one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.breast import find_breast
from detector.classify import classify_spots
from detector.detect import detect_marks
from detector.enhance import enhance_detail
from detector.evaluate.phantoms import Group, Recipe, make_phantom
from detector.measure import measure_spots
from detector.pipeline import analyse
from detector.records import (
    BreastRegion,
    Detail,
    Distribution,
    Evidence,
    Identity,
    Mammogram,
    Marks,
    Morphology,
    Outlines,
    Reading,
    Spots,
)
from detector.settings import Settings

SMALL = Recipe(rows=832, cols=640, spacing_mm=0.1, groups=())
"""A small phantom; its sides are multiples of the coarsest pyramid step."""

GROUPS = (
    Group(Morphology.FINE_PLEOMORPHIC, 14, 10.0),
    Group(Morphology.ROUND, 8, 12.0),
    Group(Morphology.ROUND, 4, 30.0, Distribution.DIFFUSE, size_mm=(1.2, 2.4)),
)
"""A suspicious group, a smooth one, and macrocalcifications."""

phantom = cache(make_phantom)  # they do not change, and many tests look at the same


@cache
def reading_of(seed: int, recipe: Recipe) -> Reading:
    """Return what is found in a phantom; made once."""
    return analyse(phantom(seed, recipe)[0])


def small(*groups: Group, **changed: Any) -> Recipe:
    """Return a small phantom's recipe with these groups."""
    return dataclasses.replace(SMALL, groups=groups, **changed)


def as_mammogram(
    pixels: ArrayLike,
    spacing_mm: tuple[float, float] = (0.1, 0.1),
    padding: NDArray[np.bool_] | None = None,
    **known: Any,
) -> Mammogram:
    """Return a picture as a mammogram; the array is copied and read-only."""
    image = np.array(pixels, np.float32)
    image.flags.writeable = False
    rows, cols = image.shape
    return Mammogram(image, Identity("test", rows=rows, cols=cols, spacing_mm=spacing_mm, **known), padding=padding)


def like(mammogram: Mammogram, pixels: ArrayLike) -> Mammogram:
    """Return other pixels with the identity of a mammogram."""
    image = np.array(pixels, np.float32)
    identity = dataclasses.replace(mammogram.identity, rows=image.shape[0], cols=image.shape[1])
    return dataclasses.replace(mammogram, pixels=image, identity=identity)


@dataclass(frozen=True)
class Rooms:
    """What each room hands on."""

    mammogram: Mammogram
    breast: BreastRegion
    detail: Detail
    marks: Marks
    measured: Spots
    evidence: Evidence
    measured_outlines: Outlines
    spots: Spots
    outlines: Outlines


def through_rooms(mammogram: Mammogram, settings: Settings | None = None) -> Rooms:
    """Walk a mammogram through the rooms up to `classify`."""
    chosen = settings or Settings()
    breast = find_breast(mammogram, chosen.breast)
    detail = enhance_detail(mammogram, breast, chosen.enhance)
    marks = detect_marks(detail, breast, chosen.detect)
    measured, evidence, measured_outlines = measure_spots(mammogram, breast, detail, marks)
    spots, outlines = classify_spots(measured, evidence, measured_outlines, chosen.classify)
    return Rooms(mammogram, breast, detail, marks, measured, evidence, measured_outlines, spots, outlines)


@cache
def rooms_of(seed: int, recipe: Recipe) -> Rooms:
    """Return what each room makes of a phantom; made once."""
    return through_rooms(phantom(seed, recipe)[0])


def on_pixels(cells: NDArray[Any], breast: BreastRegion, shape: Sequence[int]) -> NDArray[Any]:
    """Return a map of cells as a picture of pixels."""
    whole = np.repeat(np.repeat(cells, breast.step_px, axis=0), breast.step_px, axis=1)
    return whole[: shape[0], : shape[1]]


def filled(outline_px: NDArray[np.floating], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Return the pixels inside a closed outline of (row, col)."""
    mask = np.zeros(tuple(shape), np.uint8)
    if len(outline_px):
        cv2.fillPoly(mask, [np.round(outline_px[:, ::-1] * 16).astype(np.int32)], 1, shift=4)
    return mask > 0


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the intersection of two masks as a share of their union."""
    return float((one & other).sum() / max((one | other).sum(), 1))
