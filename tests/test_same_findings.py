"""One breast gives the same findings however its picture lies, is scaled, sampled or stored (rule 6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

from detector.evaluate.phantoms import Recipe
from detector.export.phantoms import DicomForm, write_dicom
from detector.pipeline import analyse
from detector.read import read_mammogram
from detector.records import Kind, Mammogram, Reading, Spots
from tests.findings import Comparison, Places, same_findings
from tests.rooms import GROUPS, like, phantom, reading_of, small

SEEDS = (1, 2)
MORE_SEEDS = tuple(range(3, 11))
STEP_PX = 64
"""A multiple of the step of the coarsest level."""
AIR_PX = 64


def recipe_of(seed: int) -> Recipe:
    """Return a small phantom with pleomorphic and round groups and macrocalcifications; every second is oblique."""
    return small(*GROUPS, view="MLO" if seed % 2 == 0 else "CC")


seeded = pytest.mark.parametrize(
    "seeds", [SEEDS, pytest.param(MORE_SEEDS, marks=pytest.mark.long)], ids=["two", "more"]
)
"""All seeds together, since a share of 99 % needs many spots; more of them in the long run."""

TEN_SEEDS = (*SEEDS, *MORE_SEEDS)
"""For what the sampling changes: of touching grains one picture may show one and the other two, here and there."""


def compared(seeds: tuple[int, ...], one: Callable[[int], Comparison]) -> Comparison:
    """Return the comparisons of several phantoms as one; the phantoms hold enough spots to tell a per cent."""
    together = reduce(Comparison.__add__, map(one, seeds))
    assert together.n_spots >= 20 * len(seeds)
    return together


def assert_same(together: Comparison, least: float) -> None:
    assert together.share >= least, f"{together.n_matched} of {together.n_spots}\n" + "\n".join(together.differences)
    assert not together.n_other_flags


# --- flips and turns


def flipped(mammogram: Mammogram, axis: int) -> tuple[Mammogram, Callable[[Places], Places]]:
    last_mm = (mammogram.pixels.shape[axis] - 1) * mammogram.spacing_mm[axis]

    def move(places: Places) -> Places:
        out = places.copy()
        out[:, axis] = last_mm - places[:, axis]
        return out

    return like(mammogram, np.flip(mammogram.pixels, axis)), move


@seeded
@pytest.mark.parametrize("axis", [0, 1])
def test_flips(axis: int, seeds: tuple[int, ...]) -> None:
    def one(seed: int) -> Comparison:
        other, move = flipped(phantom(seed, recipe_of(seed))[0], axis)
        return same_findings(reading_of(seed, recipe_of(seed)), analyse(other), move)

    assert_same(compared(seeds, one), 0.99)


@seeded
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_right_angle_turns(quarters: int, seeds: tuple[int, ...]) -> None:
    def one(seed: int) -> Comparison:
        mammogram, _ = phantom(seed, recipe_of(seed))
        rows, cols = ((n - 1) * 0.1 for n in mammogram.pixels.shape)
        move: Callable[[Places], Places] = {
            1: lambda p: np.stack([cols - p[:, 1], p[:, 0]], axis=1),
            2: lambda p: np.stack([rows - p[:, 0], cols - p[:, 1]], axis=1),
            3: lambda p: np.stack([p[:, 1], rows - p[:, 0]], axis=1),
        }[quarters]
        turned = like(mammogram, np.rot90(mammogram.pixels, quarters))
        return same_findings(reading_of(seed, recipe_of(seed)), analyse(turned), move)

    assert_same(compared(seeds, one), 0.95)


# --- shifts


def on_air(mammogram: Mammogram, shift: tuple[int, int]) -> Mammogram:
    """Return the picture laid on a larger one of air and noise, `shift` pixels down and right."""
    rows, cols = mammogram.pixels.shape
    air = mammogram.pixels[:AIR_PX, -AIR_PX:]
    tiles = np.tile(air, (rows // AIR_PX + 6, cols // AIR_PX + 6))
    tiles[AIR_PX + shift[0] : AIR_PX + shift[0] + rows, AIR_PX + shift[1] : AIR_PX + shift[1] + cols] = mammogram.pixels
    return like(mammogram, tiles)


def shifted(seeds: tuple[int, ...], shift: tuple[int, int]) -> Comparison:
    def one(seed: int) -> Comparison:
        mammogram, _ = phantom(seed, recipe_of(seed))
        before, after = analyse(on_air(mammogram, (0, 0))), analyse(on_air(mammogram, shift))
        return same_findings(before, after, lambda p: p + np.array(shift) * 0.1)

    return compared(seeds, one)


@seeded
@pytest.mark.parametrize("shift", [(STEP_PX, 0), (2 * STEP_PX, 3 * STEP_PX)])
def test_shifts_by_multiples_of_the_coarsest_step(shift: tuple[int, int], seeds: tuple[int, ...]) -> None:
    assert_same(shifted(seeds, shift), 0.99)


@pytest.mark.parametrize("shift", [(5, 0), (23, 9)])
def test_any_shift(shift: tuple[int, int]) -> None:
    assert_same(shifted(TEN_SEEDS, shift), 0.95)


@pytest.mark.parametrize("axis", [0, 1])
def test_flips_of_sides_that_are_no_multiple_of_the_coarsest_step(axis: int) -> None:
    """The pyramid of the flipped picture then samples other places: a flip, and a shift by less than a step."""

    def one(seed: int) -> Comparison:
        mammogram, _ = phantom(seed, recipe_of(seed))
        odd = like(mammogram, mammogram.pixels[:819, :627])
        other, move = flipped(odd, axis)
        return same_findings(analyse(odd), analyse(other), move)

    assert_same(compared(TEN_SEEDS, one), 0.95)


# --- grey levels and storage


@seeded
@pytest.mark.parametrize(
    ("factor", "offset"), [(0.37, 0.0), (4.0, -500.0), (1e-3, 0.0), (1.0, 30_000.0), (0.1, 1000.0)]
)
def test_grey_scale_and_offset(factor: float, offset: float, seeds: tuple[int, ...]) -> None:
    def one(seed: int) -> Comparison:
        mammogram, _ = phantom(seed, recipe_of(seed))
        other = like(mammogram, mammogram.pixels * np.float32(factor) + np.float32(offset))
        return same_findings(reading_of(seed, recipe_of(seed)), analyse(other))

    assert_same(compared(seeds, one), 0.95)


FORMS = {
    "presentation": DicomForm(bits=16),
    "presentation, white air": DicomForm(bits=16, monochrome=1),
    "processing, log, +": DicomForm("processing", "LOG", 1, 16),
    "processing, log, -": DicomForm("processing", "LOG", -1, 16, 1),
    "processing, linear, +": DicomForm("processing", "LIN", 1, 16),
    "processing, linear, -": DicomForm("processing", "LIN", -1, 16, 1),
}


@pytest.mark.parametrize("form", FORMS)
@seeded
def test_for_processing_and_for_presentation(form: str, seeds: tuple[int, ...], tmp_path: Path) -> None:
    def one(seed: int) -> Comparison:
        mammogram, _ = phantom(seed, recipe_of(seed))
        read = read_mammogram(write_dicom(tmp_path / f"{seed}.dcm", mammogram, FORMS[form]))
        return same_findings(reading_of(seed, recipe_of(seed)), analyse(read))

    assert_same(compared(seeds, one), 0.95)


# --- pixel size


def test_pixels_of_half_the_size() -> None:
    def one(seed: int) -> Comparison:
        recipe = recipe_of(seed)
        fine = dataclasses.replace(recipe, rows=2 * recipe.rows, cols=2 * recipe.cols, spacing_mm=recipe.spacing_mm / 2)
        quarter_mm = recipe.spacing_mm / 4  # between the centres of a pixel and of its four parts
        return same_findings(analyse(phantom(seed, fine)[0]), reading_of(seed, recipe), lambda p: p - quarter_mm)

    assert_same(compared(TEN_SEEDS, one), 0.95)


# --- the comparison itself


def spots_of(place_mm: list[tuple[float, float]], **known: object) -> Spots:
    place = np.array(place_mm, float).reshape(-1, 2)
    n = len(place)
    columns = {"diameter_mm": np.full(n, 0.5), "confidence": np.full(n, 0.9), "kind": np.full(n, Kind.MICRO)} | known
    return Spots.blank(n, row_mm=place[:, 0], col_mm=place[:, 1], **columns)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reading() -> Reading:
    return reading_of(1, recipe_of(1))


def with_spots(reading: Reading, spots: Spots) -> Reading:
    return dataclasses.replace(reading, spots=spots)


@pytest.mark.parametrize(
    ("other", "n_spots", "n_matched"),
    [
        (spots_of([(10, 10), (20, 20)]), 4, 4),
        (spots_of([(10, 10.14), (20, 20.16)]), 4, 2),
        (spots_of([(10, 10), (20, 20)], kind=np.array([1, 2])), 4, 2),
        (spots_of([(10, 10), (20, 20)], diameter_mm=np.array([0.58, 0.6])), 4, 2),
        (spots_of([(10, 10), (20, 20)], confidence=np.array([0.9, 0.4])), 3, 3),
        (spots_of([(10, 10), (20, 20)], confidence=np.array([0.9, 0.01])), 3, 2),
        (spots_of([(10, 10), (20, 20)], diameter_mm=np.array([0.5, 0.19])), 3, 2),
        (spots_of([(10, 10), (10, 10.1)]), 4, 2),
        (spots_of([]), 2, 0),
    ],
)
def test_spots_match_one_to_one_by_place_kind_and_size(
    reading: Reading, other: Spots, n_spots: int, n_matched: int
) -> None:
    one = with_spots(reading, spots_of([(10, 10), (20, 20)]))
    for found in (same_findings(one, with_spots(reading, other)), same_findings(with_spots(reading, other), one)):
        assert (found.n_spots, found.n_matched) == (n_spots, n_matched)
        assert len(found.differences) == n_spots - n_matched


def test_readings_differ_by_their_flags(reading: Reading) -> None:
    n = len(reading.clusters)
    assert n > 0
    flagged = dataclasses.replace(reading, clusters=reading.clusters.replace(review=np.ones(n, bool)))
    assert not same_findings(flagged, flagged).n_other_flags
    fewer = dataclasses.replace(flagged, clusters=flagged.clusters.replace(review=np.arange(n) > 0))
    moved = dataclasses.replace(flagged, clusters=flagged.clusters.replace(row_px=flagged.clusters.row_px + 200))
    assert same_findings(flagged, fewer).n_other_flags
    assert same_findings(fewer, flagged).n_other_flags
    assert same_findings(flagged, moved).n_other_flags
