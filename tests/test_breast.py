"""Finding the breast: against the truth of phantoms, and with all that lies around a breast on films."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from detector.breast import ALIGNMENT_PX, find_breast
from detector.breast.area import _opened, distance_to, find_area, percentiles
from detector.breast.sides import chest_wall_side
from detector.evaluate.phantoms import Recipe, Truth
from detector.records import BoolImage, BreastRegion, Mammogram, Zone
from detector.settings import BreastSettings
from tests.rooms import SMALL, as_mammogram, filled, like, on_pixels, overlap, phantom

FULL = Recipe(rows=896, cols=704, spacing_mm=0.2, groups=())  # a field of 18 x 14 cm, coarse so that it is quick
ALL = [("L", "CC", 1), ("L", "MLO", 2), ("R", "CC", 2), ("R", "MLO", 1)]


def found(mammogram: Mammogram) -> BreastRegion:
    return find_breast(mammogram, BreastSettings())


def mask_of(mammogram: Mammogram, breast: BreastRegion, zone: Zone = Zone.BREAST) -> BoolImage:
    return np.asarray(on_pixels((breast.zones & zone) > 0, breast, mammogram.pixels.shape))


def true_mask(mammogram: Mammogram, truth: Truth) -> BoolImage:
    """Return what is breast in a phantom: its outline, closed along the chest wall."""
    wall = -1.0 if mammogram.identity.side == "L" else float(mammogram.pixels.shape[1])
    ends = [[truth.breast_outline[-1, 0], wall], [truth.breast_outline[0, 0], wall]]
    return filled(np.concatenate([truth.breast_outline, ends]), mammogram.pixels.shape)


def case(side: str, view: str, seed: int, recipe: Recipe = FULL) -> tuple[Mammogram, Truth]:
    return phantom(seed, dataclasses.replace(recipe, side=side, view=view))


# --- against the truth of phantoms


@pytest.mark.parametrize(("side", "view", "seed"), ALL)
def test_breast_is_where_the_phantom_has_it(side: str, view: str, seed: int) -> None:
    mammogram, truth = case(side, view, seed)
    breast, inside = found(mammogram), true_mask(mammogram, truth)
    assert overlap(mask_of(mammogram, breast), inside) > 0.99
    assert breast.area_cm2 == pytest.approx(inside.sum() * 0.04 / 100, rel=0.01)
    assert breast.chest_wall == {"L": "left", "R": "right"}[side]


@pytest.mark.parametrize(("density", "spacing_mm"), [(0.0, 0.05), (0.8, 0.1), (0.0, 0.28)])
def test_breast_is_found_at_every_density_and_pixel_size(density: float, spacing_mm: float) -> None:
    field = Recipe(rows=round(90 / spacing_mm), cols=round(70 / spacing_mm), spacing_mm=spacing_mm, density=density)
    mammogram, truth = phantom(5, dataclasses.replace(field, groups=()))
    assert overlap(mask_of(mammogram, found(mammogram)), true_mask(mammogram, truth)) > 0.985


@given(st.integers(1, 2000), st.integers(0, 999), st.floats(-1e4, 1e4), st.floats(0, 1e5))
def test_percentiles_are_those_of_sorted_values(n: int, seed: int, low: float, span: float) -> None:
    values = (low + span * np.random.default_rng(seed).beta(0.5, 2, n)).astype(np.float32)
    ordered = np.sort(values).astype(np.float64)
    step = max(float(np.ptp(values)) / 65535, float(np.finfo(np.float32).tiny))
    for share, ours in zip((0.5, 50.0, 99.0), percentiles(values, (0.5, 50.0, 99.0)), strict=True):
        expected = ordered[max(int(np.ceil(0.01 * share * n)) - 1, 0)]
        assert expected - 1.1 * step - 1e-6 * abs(expected) <= ours <= expected + 1e-6 * abs(expected)


@pytest.mark.parametrize(("side", "view", "seed"), ALL)
def test_outline_runs_along_the_true_skin(side: str, view: str, seed: int) -> None:
    mammogram, truth = case(side, view, seed)
    outline = found(mammogram).outline
    middle = outline[(np.abs(outline[:, 0] - 450) < 220) & (np.abs(outline[:, 1] - truth.nipple_px[1]) < 220)]
    distance = np.hypot(*(middle[:, None] - truth.breast_outline[None]).transpose(2, 0, 1)).min(axis=1) * 0.2
    assert len(middle) > 50
    assert np.percentile(distance, 95) < 1.0


@pytest.mark.parametrize(("side", "view", "seed"), ALL)
def test_distance_to_the_skin_is_that_of_the_true_skin(side: str, view: str, seed: int) -> None:
    """The slow equivalent: the exact distance transform of the true outline, whose chest wall is no skin."""
    mammogram, truth = case(side, view, seed)
    breast, inside = found(mammogram), true_mask(mammogram, truth)
    beyond = np.pad(inside, ((1, 1), (200, 200)), mode="edge")
    distance = ndimage.distance_transform_edt(beyond)[1:-1, 200:-200] * 0.2
    ours = on_pixels(breast.skin_distance_mm, breast, mammogram.pixels.shape)
    both = inside & mask_of(mammogram, breast)
    assert np.percentile(np.abs(ours - distance)[both], 98) < 1.5
    assert not ours[~mask_of(mammogram, breast)].any()
    skin = mask_of(mammogram, breast, Zone.SKIN)
    assert np.array_equal(skin, (ours < 2.0) & mask_of(mammogram, breast))


@pytest.mark.parametrize(("side", "view", "seed"), ALL)
def test_nipple_is_guessed_at_the_place_farthest_from_the_chest_wall(side: str, view: str, seed: int) -> None:
    mammogram, truth = case(side, view, seed)
    nipple = found(mammogram).nipple
    assert nipple is not None
    assert np.hypot(nipple[0] - truth.nipple_px[0], nipple[1] - truth.nipple_px[1]) * 0.2 < 2.0
    assert 0 < nipple[2] < 0.5


@pytest.mark.parametrize(("side", "seed"), [("L", 2), ("R", 1), pytest.param("L", 3, marks=pytest.mark.long)])
def test_pectoral_muscle_of_oblique_views(side: str, seed: int) -> None:
    mammogram, truth = case(side, "MLO", seed)
    breast = found(mammogram)
    muscle = filled(truth.pectoral_outline, mammogram.pixels.shape)
    assert overlap(mask_of(mammogram, breast, Zone.PECTORAL), muscle) > 0.85
    assert overlap(filled(breast.pectoral_outline, mammogram.pixels.shape), muscle) > 0.85


@pytest.mark.parametrize("named", [True, False])
def test_no_muscle_on_other_views(named: bool) -> None:
    mammogram, _ = case("L", "CC", 1)
    if not named:
        mammogram = dataclasses.replace(mammogram, identity=dataclasses.replace(mammogram.identity, view=""))
    breast = found(mammogram)
    assert not mask_of(mammogram, breast, Zone.PECTORAL).any()
    assert len(breast.pectoral_outline) == 0


@pytest.mark.parametrize("seed", [2, pytest.param(3, marks=pytest.mark.long), pytest.param(5, marks=pytest.mark.long)])
def test_no_muscle_where_none_is(seed: int) -> None:
    mammogram, _ = phantom(seed, dataclasses.replace(FULL, view="MLO", pectoral=False))
    assert not mask_of(mammogram, found(mammogram), Zone.PECTORAL).any()


# --- what is not breast


@pytest.fixture(scope="module")
def plain() -> tuple[Mammogram, BreastRegion]:
    mammogram, _ = case("L", "CC", 1)
    return mammogram, found(mammogram)


def test_labels_in_the_air_are_no_breast(plain: tuple[Mammogram, BreastRegion]) -> None:
    mammogram, breast = plain
    pixels = mammogram.pixels.copy()
    letters = np.zeros(pixels.shape, np.uint8)
    cv2.putText(letters, "L CC", (500, 110), cv2.FONT_HERSHEY_SIMPLEX, 2.4, 255, 12)
    pixels[letters > 0] = 6000
    pixels[750:880, 600:690] = 5000
    marked = found(like(mammogram, pixels))
    assert overlap(mask_of(mammogram, marked), mask_of(mammogram, breast)) > 0.99
    assert not mask_of(mammogram, marked)[pixels >= 5000].any()


@pytest.mark.parametrize("width_mm", [1.0, 4.0])
def test_bright_borders_of_films_are_no_breast(plain: tuple[Mammogram, BreastRegion], width_mm: float) -> None:
    mammogram, breast = plain
    pixels, width = mammogram.pixels.copy(), round(width_mm / 0.2)
    pixels[:width], pixels[-width:], pixels[:, -width:] = 6000, 6000, 6000
    marked = found(like(mammogram, pixels))
    assert overlap(mask_of(mammogram, marked), mask_of(mammogram, breast)) > 0.97
    assert not mask_of(mammogram, marked)[:, -width:].any()


def test_the_edge_of_a_paddle_is_no_breast(plain: tuple[Mammogram, BreastRegion]) -> None:
    mammogram, breast = plain
    pixels = mammogram.pixels.copy()
    pixels[:, 560:565] += 500  # a line across the air, which the breast does not reach
    assert mammogram.pixels[:, 560:565].max() < 400
    assert overlap(mask_of(mammogram, found(like(mammogram, pixels))), mask_of(mammogram, breast)) > 0.999


@pytest.mark.parametrize("value", [-30_000.0, 30_000.0, 1500.0])
def test_padding_is_no_breast_whatever_its_value(plain: tuple[Mammogram, BreastRegion], value: float) -> None:
    mammogram, breast = plain
    pixels, padding = mammogram.pixels.copy(), np.zeros(mammogram.pixels.shape, np.bool_)
    padding[:, 600:], padding[:40] = True, True
    pixels[padding] = value
    marked = found(dataclasses.replace(like(mammogram, pixels), padding=padding))
    assert not (mask_of(mammogram, marked) & padding).any()
    assert overlap(mask_of(mammogram, marked), mask_of(mammogram, breast) & ~padding) > 0.99


def test_padding_over_the_chest_wall_cuts_the_breast(plain: tuple[Mammogram, BreastRegion]) -> None:
    mammogram, breast = plain
    padding = np.zeros(mammogram.pixels.shape, np.bool_)
    padding[:, :80] = True
    cut = found(dataclasses.replace(mammogram, padding=padding))
    assert overlap(mask_of(mammogram, cut), mask_of(mammogram, breast) & ~padding) > 0.99
    edge = mask_of(mammogram, cut, Zone.EDGE)
    assert edge[300:600, 80:84].all()
    assert not edge[300:600, 100:110].any()
    assert cut.chest_wall == "left"


def test_uneven_air_of_films_is_no_breast(plain: tuple[Mammogram, BreastRegion]) -> None:
    mammogram, breast = plain
    rows, cols = np.indices(mammogram.pixels.shape)
    uneven = mammogram.pixels + np.asarray(40 * np.cos(rows / 300) + 30 * cols / 704, np.float32)
    assert overlap(mask_of(mammogram, found(like(mammogram, uneven))), mask_of(mammogram, breast)) > 0.98


@pytest.mark.parametrize("side", ["L", "R"])
@pytest.mark.parametrize("shift", range(4))
def test_a_film_edge_inside_the_picture_is_marked_on_both_sides(side: str, shift: int) -> None:
    """A film that was laid on the scanner with air around it, wherever its edge meets the cells of the zone map."""
    mammogram, _ = case(side, "CC", 1, SMALL)
    shape = mammogram.pixels.shape
    picture = np.random.default_rng(1).normal(100, 10, (shape[0] + 80, shape[1] + 80))
    start = 40 + shift
    picture[start : start + shape[0], start : start + shape[1]] = mammogram.pixels
    on_scanner = like(mammogram, picture)
    edge = mask_of(on_scanner, found(on_scanner), Zone.EDGE)
    col = start if side == "L" else start + shape[1] - 1
    rows = slice(start + 200, start + 600)
    assert edge[rows, col].all()
    assert not edge[rows, col + (30 if side == "L" else -30)].any()


@pytest.mark.parametrize("side", ["L", "R"])
def test_where_collimation_cuts_the_breast_nothing_is_looked_for(side: str) -> None:
    """Black rows over the breast, as cut images have them, also where the tissue beside them is dim; skin is no cut."""
    mammogram, _ = case(side, "CC", 1, SMALL)
    pixels = mammogram.pixels.copy()
    pixels[:300] = 100
    breast = found(like(mammogram, pixels))
    cut, inside = mask_of(mammogram, breast, Zone.CUT), mask_of(mammogram, breast)
    assert cut[300][inside[310]].mean() > 0.9
    assert not cut[320:].any()


def test_the_border_of_the_image_is_an_edge(plain: tuple[Mammogram, BreastRegion]) -> None:
    mammogram, breast = plain
    edge = mask_of(mammogram, breast, Zone.EDGE)
    assert edge[250:650, :4].all()
    assert not edge[250:650, 8:150].any()
    assert not mask_of(mammogram, breast, Zone.CUT).any()


# --- how the record is made


@pytest.mark.parametrize(("side", "view", "seed"), ALL[::3])
def test_box_holds_the_breast_and_starts_on_the_pyramid(side: str, view: str, seed: int) -> None:
    mammogram, _ = case(side, view, seed)
    breast = found(mammogram)
    rows, cols = np.nonzero(mask_of(mammogram, breast))
    box = breast.box
    assert box.row_start <= rows.min() and rows.max() < box.row_stop <= mammogram.pixels.shape[0]
    assert box.col_start <= cols.min() and cols.max() < box.col_stop <= mammogram.pixels.shape[1]
    for start, stop, low, high in (
        (box.row_start, box.row_stop, rows.min(), rows.max()),
        (box.col_start, box.col_stop, cols.min(), cols.max()),
    ):
        assert start % ALIGNMENT_PX == 0 and stop % ALIGNMENT_PX == 0
        assert low - start < ALIGNMENT_PX and stop - 1 - high < ALIGNMENT_PX


@pytest.mark.parametrize(("side", "view", "seed"), ALL[::3])
def test_a_flipped_image_has_flipped_zones(side: str, view: str, seed: int) -> None:
    mammogram, _ = case(side, view, seed)
    breast = found(mammogram)
    flipped = found(like(mammogram, mammogram.pixels[:, ::-1]))
    assert np.array_equal(flipped.zones[:, ::-1], breast.zones)
    np.testing.assert_allclose(flipped.skin_distance_mm[:, ::-1], breast.skin_distance_mm, atol=1e-4)
    assert {flipped.chest_wall, breast.chest_wall} == {"left", "right"}


def test_zones_outside_the_breast_are_zero_and_inside_have_its_bit() -> None:
    mammogram, _ = case("R", "MLO", 1)
    zones = found(mammogram).zones
    assert ((zones == 0) | ((zones & Zone.BREAST) > 0)).all()


@pytest.mark.parametrize("factor", [1e-3, 40.0])
@pytest.mark.parametrize("offset", [-2000.0, 0.0, 30_000.0])
def test_grey_scale_and_offset_change_nothing(
    plain: tuple[Mammogram, BreastRegion], factor: float, offset: float
) -> None:
    mammogram, breast = plain
    other = found(like(mammogram, mammogram.pixels * np.float32(factor) + np.float32(offset)))
    assert np.mean(other.zones != breast.zones) < 1e-3
    assert other.grey_range == pytest.approx([factor * v + offset for v in breast.grey_range], rel=1e-3, abs=1e-3)


def test_range_of_grey_is_that_of_the_breast_without_air(plain: tuple[Mammogram, BreastRegion]) -> None:
    mammogram, breast = plain
    expected = np.percentile(mammogram.pixels[mask_of(mammogram, breast)], [1, 99])
    np.testing.assert_allclose(breast.grey_range, expected, rtol=0.1)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 1)),
        np.zeros((3, 5)),
        np.full((700, 500), 7.0),
        np.random.default_rng(1).normal(0, 1, (700, 500)),
        np.random.default_rng(1).normal(1000, 10, (1, 700)),
    ],
    ids=["one pixel", "tiny", "constant", "noise", "one row"],
)
def test_no_breast_is_an_empty_region(pixels: np.ndarray) -> None:
    breast = found(as_mammogram(pixels))
    assert breast.is_empty
    assert breast.area_cm2 == 0
    assert not breast.zones.any()
    assert breast.box.shape == (0, 0)
    assert breast.outline.shape == (0, 2)
    assert breast.nipple is None
    assert breast.chest_wall == ""


def test_padding_everywhere_is_no_breast() -> None:
    mammogram, _ = case("L", "CC", 1)
    assert found(dataclasses.replace(mammogram, padding=np.ones(mammogram.pixels.shape, np.bool_))).is_empty


def test_an_image_without_air_is_all_breast() -> None:
    mammogram, _ = case("L", "CC", 1)
    inside = like(mammogram, mammogram.pixels[250:650, :200])
    breast = found(inside)
    assert mask_of(inside, breast).mean() > 0.8


def test_what_is_handed_on_is_read_only() -> None:
    breast = found(case("L", "CC", 1)[0])
    for name in ("zones", "skin_distance_mm", "outline", "pectoral_outline"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(breast, name)[0] = 1


# --- its parts


def test_opening_by_distances_is_the_opening_by_a_disc() -> None:
    rng = np.random.default_rng(3)
    mask = ndimage.gaussian_filter(rng.normal(0, 1, (120, 90)), 3) > 0
    for radius in (2.0, 3.5, 6.0):
        reach = np.arange(-int(radius) - 1, int(radius) + 2)
        disc = np.hypot(reach[:, None], reach[None]) <= radius
        padded = np.pad(mask, 20, constant_values=True)  # the border wears nothing off
        slow = ndimage.binary_dilation(ndimage.binary_erosion(padded, disc), disc)[20:-20, 20:-20]
        inside = (slice(20, -20), slice(20, -20))
        assert np.mean(_opened(mask, radius)[inside] != slow[inside]) < 0.02  # distances are within 2 %


def test_distance_to_a_mask_is_that_of_scipy() -> None:
    mask = np.random.default_rng(4).random((60, 80)) < 0.01
    np.testing.assert_allclose(distance_to(mask), ndimage.distance_transform_edt(~mask), rtol=0.03)
    assert distance_to(np.zeros((4, 9), np.bool_)).min() > 9


def test_a_side_that_is_not_straight_is_no_chest_wall() -> None:
    rows, cols = np.indices((101, 101))
    disc = np.hypot(rows - 50, cols - 50) < 40
    assert chest_wall_side(disc) == ""
    assert chest_wall_side(disc & (cols > 40)) == "left"
    assert chest_wall_side(disc & (cols < 60)) == "right"


@pytest.mark.parametrize("turns", range(4))
def test_a_strip_along_the_side_of_the_breasts_box_goes(turns: int) -> None:
    """It is 8 mm wide: as wide as the breast's parts are at least only if it went on beyond the box."""
    grey = np.full((160, 180), 100.0, np.float32)
    grey[20:100, 20:80] = grey[84:100, 20:150] = 1000.0
    turned = np.rot90(grey, turns).copy()
    area = np.rot90(find_area(turned, np.ones(turned.shape, np.bool_), 0.5), -turns)
    assert area[25:95, 25:75].all()
    assert not area[:, 95:].any()
