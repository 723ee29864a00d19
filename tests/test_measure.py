"""Borders, sizes and forms: against cv2 and skimage, and on ellipses, bars and rings whose sizes are known."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from skimage import measure

from detector.measure.border import Border, Foreground, trace_borders
from detector.measure.evidence import _brightest
from detector.measure.form import Form, measure_form
from detector.records import EDGE_MM, BoolImage, Box, FloatImage, Kind, Marks, Seeds
from tests.rooms import GROUPS, as_mammogram, phantom, rooms_of, small, through_rooms

Floats = NDArray[np.float64]
SQUARE = (0.1, 0.1)


def marks_of(labels: NDArray[np.integer], height: float = 100.0, threshold: float = 50.0) -> Marks:
    """Return marks of a label image whose outlines lie at one grey level."""
    n = int(labels.max(initial=0))
    picture = labels.astype(np.uint16)
    seeds = Seeds.blank(
        n, height=np.full(n, height), threshold=np.full(n, threshold), tilt_row=np.zeros(n), tilt_col=np.zeros(n)
    )
    seeds = seeds.replace(row_px=np.zeros(n), col_px=np.zeros(n))
    pixels = np.flatnonzero(picture).astype(np.int32)
    return Marks(picture, pixels, seeds, Box(0, picture.shape[0], 0, picture.shape[1]))


def measured(image: Floats, spacing_mm: tuple[float, float] = SQUARE) -> tuple[Form, Border]:
    """Return form and border of the bright parts of an image whose half height is 50."""
    grey = image.astype(np.float32)
    marks = marks_of(np.asarray(ndimage.label(grey > 50, np.ones((3, 3)))[0]))
    border = trace_borders(marks, grey)
    return measure_form(Foreground.of(marks, grey), border, spacing_mm), border


def soft(distance_px: Floats) -> Floats:
    """Return a picture of height 100 that falls through 50 where the signed distance (inside positive) is zero."""
    return np.asarray(100 / (1 + np.exp(-2.0 * distance_px)))


def ellipse(half_axes_px: tuple[float, float], turn_deg: float, shape: int = 96) -> Floats:
    """Return about the signed distance to an ellipse in the middle of a square picture."""
    rows, cols = np.indices((shape, shape)) - (shape / 2 + 0.3)
    turn = np.radians(turn_deg)
    along, across = np.cos(turn) * cols + np.sin(turn) * rows, np.cos(turn) * rows - np.sin(turn) * cols
    a, b = half_axes_px
    radius = np.sqrt((along / a) ** 2 + (across / b) ** 2)
    slope = np.sqrt((along / a**2) ** 2 + (across / b**2) ** 2) / np.maximum(radius, 1e-9)
    return np.asarray((1 - radius) / np.maximum(slope, 1e-9))


def slow_form(mask: BoolImage) -> Any:
    """Return what skimage says of the one part of a mask."""
    return measure.regionprops(mask.astype(np.uint8))[0]  # type: ignore[no-untyped-call]


# --- borders


def border_pixels(border: Border, spot: int) -> list[tuple[int, int]]:
    """Return the pixels along a border, each once in a row."""
    own = border.spot == spot
    pixels = list(zip(border.row[own].tolist(), border.col[own].tolist(), strict=True))
    return [p for i, p in enumerate(pixels) if p != pixels[i - 1]] or pixels[:1]


def contour_of(mask: BoolImage) -> list[tuple[int, int]]:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    assert len(contours) == 1
    return [(int(row), int(col)) for col, row in np.asarray(contours[0]).reshape(-1, 2)]


def same_cycle(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> bool:
    """Return whether two closed paths are the same, wherever they start and whichever way they run."""
    if len(one) != len(other):
        return False
    turned = [other[i:] + other[:i] for i in range(len(other)) if other[i] == one[0]]
    return any(one in (path, [path[0], *path[:0:-1]]) for path in turned)


def whole_labels(seed: int, shape: tuple[int, int] = (60, 70)) -> NDArray[np.int32]:
    """Return labels of blobs that touch each other, each in one part, off the picture's border."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.normal(0, 1, shape), 1.5)
    kinds = np.digitize(blobs, [-0.15, 0.1, 0.25])
    kinds[[0, -1]], kinds[:, [0, -1]] = 0, 0
    labels = np.zeros(shape, np.int32)
    for kind in (1, 2, 3):
        parts = ndimage.label(kinds == kind, np.ones((3, 3)))[0]
        labels[parts > 0] = parts[parts > 0] + labels.max()
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_borders_are_those_of_cv2(seed: int) -> None:
    labels = whole_labels(seed)
    border = trace_borders(marks_of(labels), labels.astype(np.float32))
    assert len(border.starts) == labels.max() > 30
    for label in range(1, labels.max() + 1):
        assert same_cycle(border_pixels(border, label - 1), contour_of(labels == label)), label


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 400), st.just(2)), elements=st.integers(0, 20)), st.integers(0, 20)
)
def test_what_is_brightest_is_told_without_looking_at_all_pixels(pixels: FloatImage, peak: int) -> None:
    assert (peak >= _brightest(pixels, peak)) == (peak >= pixels.max())


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_borders_of_any_small_shape_are_those_of_cv2(mask: BoolImage) -> None:
    parts, n = ndimage.label(np.pad(mask, 1), np.ones((3, 3)))
    if not n:
        return
    border = trace_borders(marks_of(parts), parts.astype(np.float32))
    for label in range(1, n + 1):
        assert same_cycle(border_pixels(border, label - 1), contour_of(parts == label))


def test_borders_run_clockwise_around_the_outside_alone() -> None:
    labels = whole_labels(7)
    border = trace_borders(marks_of(labels), labels.astype(np.float32))
    for label in range(1, labels.max() + 1):
        filled = ndimage.binary_fill_holes(labels == label)
        sides = sum(np.count_nonzero(np.diff(np.pad(filled, 1).astype(int), axis=axis)) for axis in (0, 1))
        assert np.count_nonzero(border.spot == label - 1) == sides


def test_outlines_cross_half_height() -> None:
    image = soft(ellipse((9.0, 6.0), 30.0)).astype(np.float32)
    marks = marks_of((image > 50).astype(np.int32))
    border = trace_borders(marks, image)
    row, col = border.points
    np.testing.assert_allclose(ndimage.map_coordinates(image, [row, col], order=1), 50, atol=0.01)
    outline = border.outlines(dataclasses.replace(marks, box=Box(40, 136, 10, 106)))[0]
    np.testing.assert_allclose(outline, np.stack([row + 40, col + 10], axis=1), atol=1e-4)


# --- sizes and forms


ELLIPSES = [((12.0, 12.0), 0.0), ((15.0, 8.0), 0.0), ((15.0, 8.0), 37.0), ((20.0, 6.0), 90.0), ((18.0, 5.0), 135.0)]


@pytest.mark.parametrize(("axes", "turn"), ELLIPSES)
def test_ellipses_are_measured_as_they_are(axes: tuple[float, float], turn: float) -> None:
    form, _ = measured(soft(ellipse(axes, turn)))
    a, b = axes
    assert form.area_mm2[0] == pytest.approx(np.pi * a * b * 0.01, rel=0.02)
    assert form.length_mm[0] == pytest.approx(0.2 * a, rel=0.02)
    assert form.width_mm[0] == pytest.approx(0.2 * b, rel=0.03)
    assert (form.row[0], form.col[0]) == pytest.approx((48.3, 48.3), abs=0.05)
    assert form.eccentricity[0] == pytest.approx(np.sqrt(1 - (b / a) ** 2), abs=0.02 if a > b else 0.15)
    assert form.solidity[0] > 0.95
    assert form.hole_share[0] == 0
    if a > b:
        assert abs((form.orientation_deg[0] - turn + 90) % 180 - 90) < 2


@pytest.mark.parametrize(("axes", "turn"), ELLIPSES)
def test_forms_are_those_of_skimage(axes: tuple[float, float], turn: float) -> None:
    """skimage counts whole pixels; ours are corrected by where the outline crosses between them."""
    image = soft(ellipse(axes, turn))
    form, border = measured(image)
    slow = slow_form(image > 50)
    assert form.n_px[0] == slow.area
    assert form.area_mm2[0] == pytest.approx(slow.area * 0.01, rel=0.02)
    assert form.length_mm[0] == pytest.approx(slow.feret_diameter_max * 0.1, abs=0.15)
    assert form.eccentricity[0] == pytest.approx(slow.eccentricity, abs=0.02)
    assert form.solidity[0] == pytest.approx(slow.solidity, abs=0.06)
    assert (form.row[0], form.col[0]) == pytest.approx(slow.centroid, abs=0.1)
    hull = ConvexHull(np.stack(border.points, axis=1))  # in two dimensions its volume is the area
    assert form.solidity[0] == pytest.approx(min(form.area_mm2[0] / (hull.volume * 0.01), 1), abs=0.005)


@pytest.mark.parametrize("turn", [0.0, 17.5, 22.5, 32.5, 45.0, 87.5])
def test_thin_bars_are_as_solid_whichever_way_they_lie(turn: float) -> None:
    """A line of 3 mm by 0.3 mm: smooth, and none of its form words may hang on its direction."""
    rows, cols = np.indices((96, 96)) - 48.2
    along = np.cos(np.radians(turn)) * cols + np.sin(np.radians(turn)) * rows
    across = np.cos(np.radians(turn)) * rows - np.sin(np.radians(turn)) * cols
    form, _ = measured(soft(1.7 - np.hypot(np.maximum(np.abs(along) - 13.3, 0), across)))
    assert form.length_mm[0] == pytest.approx(3.0, rel=0.02)
    assert form.width_mm[0] == pytest.approx(0.34, rel=0.1)
    assert form.area_mm2[0] == pytest.approx((np.pi * 1.7**2 + 26.6 * 3.4) * 0.01, rel=0.07)
    assert form.solidity[0] > 0.93
    assert abs((form.orientation_deg[0] - turn + 90) % 180 - 90) < 2


def test_pixels_are_squares_and_no_points() -> None:
    image = np.zeros((9, 12))
    image[2, 2], image[5, 3:5], image[5:7, 9] = 100, 100, 100
    form, _ = measured(image)
    # a bar of two squares has second moments of 1/3 and 1/12
    np.testing.assert_allclose(form.eccentricity, [0, np.sqrt(0.75), np.sqrt(0.75)], atol=1e-9)
    np.testing.assert_allclose(form.orientation_deg[1:], [0, 90], atol=1e-6)
    np.testing.assert_allclose(form.n_px, [1, 2, 2])


def test_rings_have_a_hole() -> None:
    rows, cols = np.indices((64, 64)) - 31.7
    radius = np.hypot(rows, cols)
    form, _ = measured(soft(3.0 - np.abs(radius - 12.0)))
    assert form.hole_share[0] == pytest.approx((9.0 / 15.0) ** 2, abs=0.03)
    assert form.area_mm2[0] == pytest.approx(np.pi * 15**2 * 0.01, rel=0.02)
    assert form.solidity[0] > 0.95


def test_an_open_ring_is_measured_as_if_closed_and_two_arms_are_not() -> None:
    rows, cols = np.indices((64, 64)) - 31.7
    radius, angle = np.hypot(rows, cols), np.arctan2(rows, cols)
    arc, _ = measured(np.where(np.abs(angle) < np.radians(125), soft(2.0 - np.abs(radius - 12.0)), 0.0))
    assert arc.area_mm2[0] > 0.8 * np.pi * 14**2 * 0.01
    # arms of 1.5 mm at an angle of 60 degrees, as wide as fine lines
    along = np.clip(cols * np.cos(np.pi / 6) + np.abs(rows) * np.sin(np.pi / 6), 0, 15)
    away = np.hypot(cols - along * np.cos(np.pi / 6), np.abs(rows) - along * np.sin(np.pi / 6))
    arms, _ = measured(soft(2.3 - away))
    assert arms.solidity[0] < 0.75
    assert arms.area_mm2[0] < 0.02 * 15 * 4.6 * 1.2


def test_a_star_is_less_solid_than_a_disc() -> None:
    rows, cols = np.indices((64, 64)) - 32.0
    angle, radius = np.arctan2(rows, cols), np.hypot(rows, cols)
    form, _ = measured(soft(12 + 5 * np.cos(5 * angle) - radius))
    slow = slow_form(radius < 12 + 5 * np.cos(5 * angle))
    assert form.solidity[0] == pytest.approx(slow.solidity, abs=0.06)
    assert form.solidity[0] < 0.85


@pytest.mark.parametrize("spacing_mm", [(0.05, 0.1), (0.1, 0.05), (0.08, 0.12)])
def test_pixels_need_not_be_square(spacing_mm: tuple[float, float]) -> None:
    """An ellipse of 2.0 by 1.0 mm, 30 degrees turned, whatever the pixels."""
    rows, cols = np.indices((96, 96)) - 48.0
    y, x = rows * spacing_mm[0], cols * spacing_mm[1]
    turn = np.radians(30)
    along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    image = soft((1 - np.sqrt(along**2 + (across / 0.5) ** 2)) * 8)
    form, _ = measured(image, spacing_mm)
    assert form.area_mm2[0] == pytest.approx(np.pi * 0.5, rel=0.03)
    assert form.length_mm[0] == pytest.approx(2.0, rel=0.03)
    assert form.width_mm[0] == pytest.approx(1.0, rel=0.05)
    assert form.orientation_deg[0] == pytest.approx(30, abs=3)


@pytest.mark.parametrize("diameter_px", [3.0, 4.0, 6.0, 10.0])
def test_small_discs_are_measured_between_the_pixels(diameter_px: float) -> None:
    """Wherever they lie within a pixel: the diameter is within a seventh of a pixel on average, under half at worst."""
    rng = np.random.default_rng(1)
    sizes = []
    for row, col in rng.uniform(11, 12, (40, 2)):
        image = 100 * ndimage.zoom(_fine_disc(row, col, diameter_px), 1 / 8, order=1, grid_mode=True, mode="nearest")
        form, _ = measured(image)
        sizes.append(np.sqrt(4 / np.pi * form.area_mm2[0]) / 0.1)
    assert np.mean(sizes) == pytest.approx(diameter_px, abs=0.15)
    assert np.abs(np.array(sizes) - diameter_px).max() < 0.45


def _fine_disc(row: float, col: float, diameter_px: float) -> Floats:
    fine = (np.arange(24 * 8) + 0.5) / 8 - 0.5
    disc = (np.hypot(fine[:, None] - row, fine[None] - col) < diameter_px / 2).astype(float)
    return np.asarray(ndimage.uniform_filter(disc, 8)[:, :])


def test_many_spots_at_once_are_measured_as_each_alone() -> None:
    labels = whole_labels(11)
    image = (100.0 * (labels > 0) + np.random.default_rng(1).uniform(-20, 20, labels.shape)).astype(np.float32)
    together = _form_of(labels, image)
    for label in range(1, labels.max() + 1):
        alone = _form_of((labels == label).astype(np.int32), image)
        for field in dataclasses.fields(Form):
            np.testing.assert_allclose(
                getattr(alone, field.name)[0], getattr(together, field.name)[label - 1], rtol=1e-9, atol=1e-9
            )


def _form_of(labels: NDArray[np.int32], image: FloatImage) -> Form:
    marks = marks_of(labels)
    return measure_form(Foreground.of(marks, image), trace_borders(marks, image), SQUARE)


# --- the table


def test_columns_follow_from_each_other() -> None:
    rooms = rooms_of(1, small(*GROUPS))
    spots, seeds = rooms.measured, rooms.marks.seeds
    assert np.array_equal(spots.spot_id, np.arange(1, len(seeds) + 1))
    np.testing.assert_allclose(spots.row_mm, spots.row_px * 0.1)
    np.testing.assert_allclose(spots.col_mm, spots.col_px * 0.1)
    np.testing.assert_allclose(np.pi / 4 * spots.diameter_mm**2, spots.area_mm2)
    low, high = rooms.breast.grey_range
    np.testing.assert_allclose(spots.contrast, seeds.height * rooms.detail.steps.size / (high - low))
    noise = rooms.detail.noise_at(spots.row_px, spots.col_px)
    np.testing.assert_allclose(spots.snr, seeds.height / noise)
    assert (spots.width_mm <= spots.length_mm).all()
    assert ((spots.solidity > 0) & (spots.solidity <= 1)).all()
    assert ((spots.hole_share >= 0) & (spots.hole_share < 1)).all()
    assert ((spots.orientation_deg >= 0) & (spots.orientation_deg < 180)).all()


def test_spots_lie_within_their_marks() -> None:
    rooms = rooms_of(1, small(*GROUPS))
    boxes = ndimage.find_objects(rooms.marks.labels)
    row = rooms.measured.row_px - rooms.marks.box.row_start
    col = rooms.measured.col_px - rooms.marks.box.col_start
    for where, r, c in zip(boxes, row, col, strict=True):
        assert where[0].start - 0.5 <= r <= where[0].stop - 0.5
        assert where[1].start - 0.5 <= c <= where[1].stop - 0.5


def test_outlines_hold_the_measured_area() -> None:
    rooms = rooms_of(1, small(*GROUPS))
    assert len(rooms.measured_outlines) == len(rooms.measured)
    area = np.array([cv2.contourArea(outline) for outline in rooms.measured_outlines]) * 0.01
    # a ragged outline cuts the corners that pixels fill
    large = (rooms.measured.area_mm2 > 0.5) & (rooms.measured.solidity > 0.8)
    assert large.sum() >= 4
    np.testing.assert_allclose(area[large], rooms.measured.area_mm2[large], rtol=0.1)


def test_true_macrocalcifications_are_measured_within_15_per_cent() -> None:
    recipe = small(*GROUPS)
    spots, truth = rooms_of(1, recipe).measured, phantom(1, recipe)[1].spots
    for row in np.flatnonzero(truth.kind == Kind.MACRO):
        near = np.hypot(spots.row_mm - truth.row_mm[row], spots.col_mm - truth.col_mm[row]) < 0.3
        best = np.flatnonzero(near)[np.argmax(spots.area_mm2[near])]
        for name in ("diameter_mm", "length_mm", "width_mm"):
            assert getattr(spots, name)[best] == pytest.approx(getattr(truth, name)[row], rel=0.15)


def test_only_its_own_columns_are_written() -> None:
    spots = rooms_of(1, small(*GROUPS)).measured
    for column in spots.columns():
        if column.room != "measure":
            assert not getattr(spots, column.name).any(), column.name


def test_evidence_is_a_number_for_every_spot() -> None:
    rooms = rooms_of(1, small(*GROUPS))
    assert rooms.evidence.values.shape == (len(rooms.measured), len(rooms.evidence.names))
    assert len(set(rooms.evidence.names)) == len(rooms.evidence.names)
    assert np.isfinite(rooms.evidence.values).all()
    pixel_mm = rooms.evidence.column("pixel_mm")
    np.testing.assert_allclose(pixel_mm, 0.1, rtol=1e-6)


def test_nothing_found_is_empty_tables() -> None:
    rooms = through_rooms(as_mammogram(np.zeros((300, 300))))
    assert len(rooms.measured) == len(rooms.measured_outlines) == len(rooms.evidence.values) == 0


def test_edges_are_the_falls_across_the_sides_of_an_outline() -> None:
    """Against a loop over pixels and sides, on spots without holes, whose sides are all on the outer border."""
    rooms = rooms_of(1, small(*GROUPS))
    marks, detail, evidence = rooms.marks, rooms.detail, rooms.evidence
    image, reach = detail.levels[0].image.astype(np.float64), round(EDGE_MM / detail.pixel_mm)
    noise = detail.noise_at(marks.seeds.row_px, marks.seeds.col_px)
    masks = [marks.labels == label for label in range(1, len(noise) + 1)]
    whole = np.flatnonzero([np.array_equal(ndimage.binary_fill_holes(mask), mask) for mask in masks])
    assert len(whole) > 30
    for one in whole:
        falls: dict[tuple[int, int], list[float]] = {(-1, 0): [], (0, 1): [], (1, 0): [], (0, -1): []}
        for row, col in np.argwhere(marks.labels == one + 1).tolist():
            for (down, right), found in falls.items():
                if marks.labels[row + down, col + right] != one + 1:
                    inner = image[row - (reach - 1) * down, col - (reach - 1) * right]
                    found.append(inner - image[row + reach * down, col + reach * right])
        each = np.concatenate(list(falls.values()))
        expected = {"sigma": each.mean(), "spread": each.std(), "weakest": min(map(np.mean, falls.values()))}
        for name, value in expected.items():
            assert evidence.column(f"outline_{name}")[one] == pytest.approx(value / noise[one], rel=1e-4, abs=1e-4)
        edge = marks.seeds.edge[one] if np.isfinite(marks.seeds.edge[one]) else each.mean()
        assert evidence.column("edge_sigma")[one] == pytest.approx(edge / noise[one], rel=1e-4, abs=1e-4)
        assert evidence.column("edge_share")[one] == pytest.approx(edge / marks.seeds.height[one], rel=1e-4, abs=1e-4)
    # of the coarse ones those along rays are known
    assert np.isfinite(marks.seeds.edge[whole]).any() and np.isnan(marks.seeds.edge[whole]).any()
