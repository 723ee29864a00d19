"""Phantoms: one seed is one breast at every pixel size, the physics holds, and the truth is exact."""

import dataclasses
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.evaluate import anatomy
from detector.evaluate.particles import (
    CALCIUM_PER_MM,
    FORMS,
    Particle,
    centroid_of,
    draw_calcium,
    make_particle,
    outline_of,
    size_of,
)
from detector.evaluate.phantoms import LOG_GAIN, OPEN_LEVEL, Group, Recipe, expose, make_phantom
from detector.records import Distribution, Kind, Morphology, Shape

SMALL = Recipe(rows=900, cols=680, spacing_mm=0.1)
BIG_FORMS = (Morphology.COARSE, Morphology.DYSTROPHIC, Morphology.LARGE_ROD_LIKE, Morphology.RIM)


made = cache(make_phantom)  # phantoms do not change, and several tests look at the same


def group_of(morphology: Morphology) -> Group:
    """Return a group of that form which fits into a small phantom."""
    if morphology is Morphology.VASCULAR:
        return Group(morphology, 12, extent_mm=15.0)
    if morphology in BIG_FORMS:
        return Group(morphology, 3, distribution=Distribution.DIFFUSE)
    return Group(morphology, 8, extent_mm=15.0)


def inside_of(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a bool image of a polygon (row, col) that is closed along the chest wall on the left."""
    wall = np.array([[outline[-1, 0], -1.0], [outline[0, 0], -1.0]], np.float32)
    polygon = np.concatenate([outline, wall])[:, ::-1]
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 1, shift=4)
    return mask > 0


def eroded(mask: np.ndarray, px: int) -> np.ndarray:
    return cv2.erode(mask.astype(np.uint8), np.ones((2 * px + 1, 2 * px + 1), np.uint8)) > 0


# --- one seed, one breast


def test_a_seed_gives_the_same_phantom_again_and_another_seed_another() -> None:
    first, truth = make_phantom(5, SMALL)
    again, truth_again = make_phantom(5, SMALL)
    other, truth_other = make_phantom(6, SMALL)
    assert np.array_equal(first.pixels, again.pixels)
    assert truth.spots == truth_again.spots
    assert truth.clusters == truth_again.clusters
    assert not np.array_equal(first.pixels, other.pixels)
    assert not np.array_equal(truth.spots.row_px, truth_other.spots.row_px)


@settings(max_examples=4)
@given(seed=st.integers(0, 2**32), side=st.sampled_from("LR"), view=st.sampled_from(["CC", "MLO"]))
def test_a_breast_is_the_same_at_half_the_pixel_size(seed: int, side: str, view: str) -> None:
    recipe = dataclasses.replace(SMALL, side=side, view=view, quanta_per_mm2=1e9, groups=(group_of(Morphology.ROUND),))
    coarse, coarse_truth = make_phantom(seed, recipe)
    fine, fine_truth = make_phantom(seed, dataclasses.replace(recipe, rows=1800, cols=1360, spacing_mm=0.05))
    for axis in ("row_px", "col_px"):
        ours, theirs = getattr(coarse_truth.spots, axis), getattr(fine_truth.spots, axis)
        np.testing.assert_allclose((ours + 0.5) * 0.1, (theirs + 0.5) * 0.05, atol=1e-9)
    for size in ("area_mm2", "length_mm", "width_mm", "kind", "shape", "cluster_id"):
        assert np.array_equal(getattr(coarse_truth.spots, size), getattr(fine_truth.spots, size))
    halved = cv2.resize(fine.pixels, coarse.pixels.shape[::-1], interpolation=cv2.INTER_AREA)
    tissue = eroded(coarse.pixels > OPEN_LEVEL + 800, 5)
    # calcium's edges differ by their blur over a pixel; tissue does not
    assert np.percentile(np.abs(halved - coarse.pixels)[tissue], 99) < 10
    assert np.abs((halved - coarse.pixels)[tissue].mean()) < 1


def test_a_right_breast_is_the_mirror_image_of_the_left() -> None:
    left, left_truth = make_phantom(7, dataclasses.replace(SMALL, view="MLO"))
    right, right_truth = make_phantom(7, dataclasses.replace(SMALL, view="MLO", side="R"))
    assert np.array_equal(left.pixels[:, ::-1], right.pixels)
    np.testing.assert_allclose(right_truth.spots.col_px, SMALL.cols - 1 - left_truth.spots.col_px)
    np.testing.assert_allclose(right_truth.nipple_px[1], SMALL.cols - 1 - left_truth.nipple_px[1], atol=1e-3)
    assert right_truth.clusters.col_px[0] == pytest.approx(SMALL.cols - 1 - left_truth.clusters.col_px[0])
    assert right.identity.side == "R"


@pytest.mark.parametrize("morphology", FORMS)
def test_no_contrast_changes_no_pixel(morphology: Morphology) -> None:
    empty, _ = made(3, dataclasses.replace(SMALL, groups=()))
    group = group_of(morphology)
    none, truth = made(3, dataclasses.replace(SMALL, groups=(dataclasses.replace(group, contrast=0.0),)))
    full, _ = made(3, dataclasses.replace(SMALL, groups=(group,)))
    assert np.array_equal(empty.pixels, none.pixels)
    assert len(truth.spots) == group.number
    assert not truth.spots.snr.any()
    assert not np.array_equal(empty.pixels, full.pixels)


def test_what_is_put_in_does_not_move_what_is_there() -> None:
    one, _ = made(3, dataclasses.replace(SMALL, groups=()))
    two, truth = made(3, dataclasses.replace(SMALL, groups=(Group(Morphology.PUNCTATE, 5),)))
    changed = np.argwhere(one.pixels != two.pixels)
    at = np.stack([truth.spots.row_px, truth.spots.col_px], axis=1)
    nearest = np.linalg.norm(changed[:, None] - at[None], axis=2).min(axis=1)
    assert nearest.max() < 10


# --- the breast


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("share", [0.25, 0.45])
def test_the_breast_fills_the_share_that_was_asked_for(view: str, share: float) -> None:
    recipe = Recipe(rows=512, cols=416, spacing_mm=0.28, breast_share=share, view=view, groups=())
    mammogram, truth = make_phantom(2, recipe)
    assert np.mean(mammogram.pixels > OPEN_LEVEL + 400) == pytest.approx(share, rel=0.03)
    assert inside_of(truth.breast_outline, mammogram.pixels.shape).mean() == pytest.approx(share, rel=0.03)


@pytest.mark.parametrize("view", ["CC", "MLO"])
def test_the_outline_of_the_truth_is_the_edge_of_the_breast(view: str) -> None:
    mammogram, truth = made(4, dataclasses.replace(SMALL, view=view, groups=()))
    mask = inside_of(truth.breast_outline, mammogram.pixels.shape)
    assert mammogram.pixels[eroded(mask, 2)].min() > OPEN_LEVEL + 400
    assert mammogram.pixels[eroded(~mask, 2)].max() < OPEN_LEVEL + 200
    nipple = np.hypot(*(truth.breast_outline - truth.nipple_px).T)
    assert nipple.min() < 3
    assert truth.nipple_px[1] == pytest.approx(truth.breast_outline[:, 1].max(), abs=15)


def test_thickness_falls_towards_the_skin() -> None:
    mammogram, truth = made(4, dataclasses.replace(SMALL, density=0.0, groups=(), n_vessels=0, n_strands=0))
    mask = inside_of(truth.breast_outline, mammogram.pixels.shape)
    depth_mm = cv2.distanceTransform(np.pad(mask, ((0, 0), (1, 0)), mode="edge").astype(np.uint8), cv2.DIST_L2, 5) * 0.1
    means = [
        mammogram.pixels[np.abs(depth_mm[:, 1:] - d) < 0.5].mean() for d in (3.0, 5.0, 7.0, 10.0)
    ]  # under the skin, which is denser than fat
    assert np.all(np.diff(means) > 0)


def test_the_pectoral_muscle_is_denser_and_only_on_mlo_views() -> None:
    recipe = dataclasses.replace(SMALL, view="MLO", density=0.0, groups=())
    with_muscle, truth = make_phantom(8, recipe)
    without, bare = make_phantom(8, dataclasses.replace(recipe, pectoral=False))
    _, cc = make_phantom(8, dataclasses.replace(recipe, view="CC"))
    muscle = np.zeros(with_muscle.pixels.shape, np.uint8)
    cv2.fillPoly(muscle, [np.round(truth.pectoral_outline[:, ::-1]).astype(np.int32)], 1)
    within = eroded(muscle > 0, 15)
    assert within.mean() > 0.02
    assert with_muscle.pixels[within].mean() > without.pixels[within].mean() + 150
    assert len(bare.pectoral_outline) == len(cc.pectoral_outline) == 0


def test_tissue_has_the_power_law_of_breasts() -> None:
    """Between 0.15 and 0.7 per mm breasts fall as 1 / f**3, give or take (Burgess 2001, doi 10.1118/1.1355308)."""
    slopes = []
    for seed in range(3):
        recipe = Recipe(rows=700, cols=560, spacing_mm=0.2, breast_share=0.45, quanta_per_mm2=1e9, groups=())
        mammogram, truth = make_phantom(seed, recipe)
        row = int(truth.nipple_px[0])
        patch = mammogram.pixels[row - 128 : row + 128, 60:316]
        window = np.outer(np.hanning(256), np.hanning(256))
        power = np.abs(np.fft.fft2((patch - patch.mean()) * window)) ** 2
        f = np.hypot(np.fft.fftfreq(256, 0.2)[:, None], np.fft.fftfreq(256, 0.2)[None, :])
        edges = np.geomspace(0.15, 0.7, 9)
        means = [np.log(power[(f >= low) & (f < high)].mean()) for low, high in pairwise(edges)]
        slopes.append(np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), means, 1)[0])
    assert -3.7 < np.mean(slopes) < -2.5


@pytest.mark.parametrize("power", [2.0, 3.0, 5.0])
def test_a_texture_has_the_spectrum_that_was_asked_for(power: float) -> None:
    field = anatomy._texture(np.random.default_rng(1), (600, 600), power, 30.0)
    spectrum = np.abs(np.fft.fft2(field * np.outer(np.hanning(600), np.hanning(600)))) ** 2
    f = np.hypot(np.fft.fftfreq(600, anatomy.GRID_MM)[:, None], np.fft.fftfreq(600, anatomy.GRID_MM)[None, :])
    edges = np.geomspace(0.1, 0.6, 9)
    means = [np.log(spectrum[(f >= low) & (f < high)].mean()) for low, high in pairwise(edges)]
    assert np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), means, 1)[0] == pytest.approx(-power, abs=0.25)


# --- the beam and the detector


@pytest.mark.parametrize(("spacing_mm", "quanta"), [(0.05, 8e5), (0.1, 8e5), (0.1, 3.2e6)])
def test_noise_follows_the_quanta_that_a_pixel_catches(spacing_mm: float, quanta: float) -> None:
    recipe = Recipe(400, 400, spacing_mm, quanta_per_mm2=quanta, blur_mm=0.0)
    flat = np.full((400, 400), 1.0, np.float32)
    pixels = expose(flat, recipe, np.random.default_rng(1))
    caught = quanta * spacing_mm**2 * np.exp(-1.0)
    assert pixels.std() == pytest.approx(LOG_GAIN * np.sqrt(caught + 1.5**2) / caught, rel=0.02)
    assert pixels.mean() == pytest.approx(OPEN_LEVEL + LOG_GAIN, abs=2)


def test_pixels_are_the_mean_of_the_parts_that_are_exposed() -> None:
    """One seed is one exposure at 0.05 and 0.1 mm, but for the logarithm of a mean."""
    coarse = Recipe(832, 640, 0.1, groups=(Group(Morphology.FINE_PLEOMORPHIC, 12),))
    fine = dataclasses.replace(coarse, rows=1664, cols=1280, spacing_mm=0.05)
    parts = make_phantom(3, fine)[0].pixels.reshape(832, 2, 640, 2).mean(axis=(1, 3))
    whole = make_phantom(3, coarse)[0].pixels
    assert np.abs(parts - whole).mean() < 0.1 * np.abs(whole - cv2.blur(whole, (3, 3))).mean()


def test_the_detector_blurs_by_a_gaussian_of_the_given_width() -> None:
    recipe = Recipe(101, 101, 0.05, quanta_per_mm2=1e12, blur_mm=0.12)
    point = np.zeros((101, 101), np.float32)
    point[50, 50] = 3.0
    pixels = expose(point, recipe, np.random.default_rng(1))
    absorbed = 1.0 - np.exp((OPEN_LEVEL - pixels[38:63, 38:63].astype(np.float64)) / LOG_GAIN)
    width = np.sqrt((absorbed.sum(axis=1) * np.arange(-12, 13) ** 2).sum() / absorbed.sum())
    assert width * 0.05 == pytest.approx(0.12, rel=0.05)


def test_snr_of_the_truth_is_what_the_pixels_show() -> None:
    fine = Recipe(rows=1400, cols=1100, spacing_mm=0.05)
    recipe = dataclasses.replace(fine, groups=(Group(Morphology.ROUND, 6, extent_mm=15.0),), quanta_per_mm2=4e5)
    quiet = dataclasses.replace(recipe, quanta_per_mm2=1e10)
    with_them, _ = made(9, quiet)
    without, _ = made(9, dataclasses.replace(quiet, groups=()))
    noisy, truth = made(9, dataclasses.replace(recipe))
    rows, cols = np.round(truth.spots.row_px).astype(int), np.round(truth.spots.col_px).astype(int)
    for row, col, snr in zip(rows, cols, truth.spots.snr, strict=True):
        box = (slice(row - 6, row + 7), slice(col - 6, col + 7))
        height = (with_them.pixels - without.pixels)[box].max()
        noise = (noisy.pixels - with_them.pixels)[row - 20 : row + 21, col - 20 : col + 21].std()
        assert snr == pytest.approx(height / noise, rel=0.2)


# --- the calcifications


@given(
    seed=st.integers(0, 2**32),
    morphology=st.sampled_from(sorted(FORMS)),
    at=st.tuples(st.floats(12.0, 14.0), st.floats(12.0, 14.0)),
    spacing_mm=st.sampled_from([0.0435, 0.07, 0.1, 0.2]),
)
def test_laying_a_particle_on_pixels_keeps_its_volume_and_place(
    seed: int, morphology: int, at: tuple[float, float], spacing_mm: float
) -> None:
    particle = make_particle(np.random.default_rng(seed), Morphology(morphology)).moved(*at)
    n = int(26.0 / spacing_mm)
    calcium = draw_calcium([particle], (n, n), spacing_mm).astype(np.float64)
    thickness = particle.thickness_mm.astype(np.float64)
    assert calcium.sum() * spacing_mm**2 == pytest.approx(thickness.sum() * particle.step_mm**2, rel=1e-4)
    for axis in (0, 1):
        index = np.arange(thickness.shape[axis]) - (thickness.shape[axis] - 1) / 2
        expected = at[axis] + (thickness.sum(axis=1 - axis) * index).sum() / thickness.sum() * particle.step_mm
        found = (calcium.sum(axis=1 - axis) * (np.arange(n) + 0.5)).sum() / calcium.sum() * spacing_mm
        assert found == pytest.approx(expected, abs=0.1 * spacing_mm)
    assert calcium.max() <= thickness.max() * 1.0001


def test_a_particle_across_the_border_is_cut_and_one_outside_is_not_drawn() -> None:
    particle = make_particle(np.random.default_rng(1), Morphology.ROUND)
    whole = draw_calcium([particle.moved(2.0, 2.0)], (40, 40), 0.1).sum()
    assert 0 < draw_calcium([particle.moved(0.0, 2.0)], (40, 40), 0.1).sum() < whole
    assert draw_calcium([particle.moved(-3.0, 2.0), particle.moved(2.0, 9.0)], (40, 40), 0.1).sum() == 0


def test_sizes_of_a_known_shape() -> None:
    rows, cols = np.mgrid[-300:301, -300:301] * 0.01
    ellipse = (rows / 1.0) ** 2 + (cols / 2.0) ** 2 <= 1.0
    area, length, width, direction = size_of(ellipse, 0.01)
    assert (area, length, width) == pytest.approx((2 * np.pi, 4.0, 2.0), rel=0.01)
    assert direction in (0.0, 178.0)


@pytest.mark.parametrize("morphology", FORMS)
def test_particles_of_a_form_have_its_size_kind_and_shape(morphology: Morphology) -> None:
    _, truth = make_phantom(11, dataclasses.replace(SMALL, groups=(group_of(morphology),)))
    spots, form = truth.spots, FORMS[morphology]
    assert set(spots.morphology.tolist()) == {morphology}
    assert set(spots.shape.tolist()) == {form.shape}
    linear = form.width_mm[1] > 0
    if morphology is Morphology.VASCULAR:
        assert spots.length_mm.max() > 2 * form.width_mm[1]
    else:
        sizes = spots.length_mm if linear else spots.diameter_mm
        assert np.all((sizes > 0.65 * form.size_mm[0]) & (sizes < 1.35 * form.size_mm[1]))
    thin = (Morphology.FINE_LINEAR, Morphology.FINE_LINEAR_BRANCHING)
    wide = np.isin(morphology, thin) == 0 and (spots.width_mm >= 1.0) | (morphology is Morphology.LARGE_ROD_LIKE)
    assert np.array_equal(spots.kind == Kind.MACRO, np.broadcast_to(wide, len(spots)))
    if morphology in (Morphology.FINE_PLEOMORPHIC, Morphology.COARSE_HETEROGENEOUS, *thin):
        assert truth.clusters.review.tolist() == [True]


def test_casting_dashes_are_thin_and_grains_are_irregular() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        dash, grain = make_particle(rng, Morphology.FINE_LINEAR), make_particle(rng, Morphology.COARSE_HETEROGENEOUS)
        area, length, _, _ = size_of(outline_of(dash), dash.step_mm)
        assert area / length < 0.5
        outline = outline_of(grain).astype(np.uint8)
        hull = cv2.convexHull(np.argwhere(outline).astype(np.int32))
        assert outline.sum() / cv2.contourArea(hull) < 0.95


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32), distribution=st.sampled_from([Distribution.GROUPED, Distribution.LINEAR]))
def test_particles_lie_apart_inside_the_breast_and_within_their_extent(seed: int, distribution: Distribution) -> None:
    group = Group(Morphology.PUNCTATE, 10, extent_mm=12.0, distribution=distribution)
    recipe = dataclasses.replace(SMALL, spacing_mm=0.2, rows=450, cols=340, groups=(group,))
    mammogram, truth = make_phantom(seed, recipe)
    at = np.stack([truth.spots.row_px, truth.spots.col_px], axis=1)
    apart = np.linalg.norm(at[:, None] - at[None], axis=2) * 0.2 + np.eye(len(at)) * 99
    assert np.all(apart > 0.5 * (truth.spots.diameter_mm[:, None] + truth.spots.diameter_mm[None]) + 0.2)
    mask = eroded(inside_of(truth.breast_outline, mammogram.pixels.shape), 5)
    assert mask[tuple(np.round(at).astype(int).T)].all()
    assert truth.clusters.extent_mm[0] < 14.0
    assert len(truth.clusters) == 1
    assert truth.clusters.distribution[0] == distribution


def test_particles_asked_for_at_the_skin_stay_inside_it() -> None:
    group = Group(Morphology.PUNCTATE, 12, extent_mm=16.0, place=(0.95, 0.0))
    mammogram, truth = make_phantom(15, dataclasses.replace(SMALL, groups=(group,)))
    inside = np.pad(inside_of(truth.breast_outline, mammogram.pixels.shape), ((0, 0), (1, 0)), mode="edge")
    depth_mm = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[:, 1:] * 0.1
    depths = depth_mm[np.round(truth.spots.row_px).astype(int), np.round(truth.spots.col_px).astype(int)]
    assert depths.min() > 2.4
    assert depths.min() < 12


def test_the_place_of_a_particle_is_its_centroid() -> None:
    thickness = np.zeros((40, 60), np.float32)
    thickness[10:20, 30:58] = 0.2
    particle = Particle(5.0, 7.0, thickness, 0.05, Morphology.ROUND, Shape.DOT)
    assert centroid_of(particle) == pytest.approx((5.0 + (15 - 20) * 0.05, 7.0 + (44 - 30) * 0.05))


def test_a_vascular_track_is_two_parallel_lines() -> None:
    _, truth = make_phantom(12, dataclasses.replace(SMALL, groups=(Group(Morphology.VASCULAR, 16, extent_mm=20.0),)))
    at = np.stack([truth.spots.row_mm, truth.spots.col_mm], axis=1)
    walls = at[:8], at[8:]
    gaps = np.linalg.norm(walls[0] - walls[1], axis=1)
    assert np.all((gaps > 0.6) & (gaps < 3.0))
    assert truth.clusters.extent_mm[0] > 10
    assert not truth.clusters.review[0]


def test_scattered_spots_make_no_cluster_and_their_truth_says_so() -> None:
    groups = (Group(Morphology.ROUND, 5, distribution=Distribution.DIFFUSE), Group(Morphology.PUNCTATE, 4))
    _, truth = make_phantom(13, dataclasses.replace(SMALL, groups=groups))
    assert truth.spots.cluster_id.tolist() == [0] * 5 + [1] * 4
    assert truth.clusters.n_spots.tolist() == [4]
    assert truth.spots.shape.tolist() == [Shape.DOT] * 9


def test_nothing_asked_for_is_empty_tables() -> None:
    _, truth = make_phantom(1, dataclasses.replace(SMALL, groups=()))
    assert len(truth.spots) == len(truth.clusters) == 0


def test_calcium_attenuates_as_stated() -> None:
    quiet = dataclasses.replace(SMALL, quanta_per_mm2=1e12, blur_mm=0.0)
    group = Group(Morphology.ROUND, 1, extent_mm=2.0, size_mm=(2.0, 2.0), place=(0.5, 0.0))
    without, _ = made(14, dataclasses.replace(quiet, groups=()))
    with_one, _ = made(14, dataclasses.replace(quiet, groups=(group,)))
    height = (with_one.pixels - without.pixels).max() / LOG_GAIN
    depth = FORMS[Morphology.ROUND].depth * 1.5
    assert height == pytest.approx(CALCIUM_PER_MM * depth, rel=0.01)


# --- what cannot be made


@pytest.mark.parametrize(
    "wrong", [{"side": "B"}, {"view": "ML"}, {"breast_share": 0.9}, {"rows": 10}, {"spacing_mm": 0.0}]
)
def test_a_recipe_that_cannot_be_made_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        dataclasses.replace(SMALL, **wrong)  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="widen"):
        make_phantom(1, dataclasses.replace(SMALL, groups=(Group(Morphology.COARSE_HETEROGENEOUS, 60, extent_mm=4.0),)))
    with pytest.raises(ValueError, match="vessel"):
        make_phantom(1, dataclasses.replace(SMALL, groups=(Group(Morphology.VASCULAR, 8, extent_mm=90.0),)))
    with pytest.raises(ValueError, match="columns"):
        make_phantom(1, Recipe(rows=400, cols=100, spacing_mm=0.2, breast_share=0.7, groups=()))
