"""Background, responses and noise: against scipy's filters, and on noise that is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from detector.breast import find_breast
from detector.enhance import HIGHEST, LOWEST, MOST_STEPS, MULTIPLE_PX, STEPS, _in_steps, enhance_detail
from detector.evaluate.phantoms import Recipe
from detector.records import BoolImage, BreastRegion, Detail, Mammogram, Noise, Places, Where
from detector.settings import BreastSettings, EnhanceSettings
from tests.rooms import GROUPS, as_mammogram, like, phantom, rooms_of, small

SETTINGS = EnhanceSettings()
Image = NDArray[np.float64]


def detail_of(mammogram: Mammogram) -> tuple[BreastRegion, Detail]:
    breast = find_breast(mammogram, BreastSettings())
    return breast, enhance_detail(mammogram, breast, SETTINGS)


def framed(inside: Image, air_px: int = 64) -> Image:
    """Return a picture with air at the top, the bottom and the right."""
    return np.pad(inside + 1000.0, ((air_px, air_px), (0, air_px)), constant_values=0.0)


def over_cells(detail: Detail) -> Where:
    """Return the middles of all cells."""
    rows, cols = np.indices(detail.coherence.shape) * detail.cell_px + (detail.cell_px - 1) / 2
    return detail.where(rows + detail.box.row_start, cols + detail.box.col_start)


def noise_of(detail: Detail, noise: Noise) -> NDArray[np.float64]:
    """Return the noise at the middles of all cells, in grey levels."""
    return noise.at(over_cells(detail)) * detail.steps.size


def away_from_air(detail: Detail, cells: int = 8) -> BoolImage:
    """Return which cells lie well inside the picture of `framed`."""
    inside = np.zeros(detail.coherence.shape, np.bool_)
    margin = 64 // detail.cell_px + cells
    inside[margin:-margin, cells:-margin] = True
    return inside


def white(seed: int, shape: tuple[int, int] = (640, 512)) -> Image:
    return np.random.default_rng(seed).normal(0, 1, shape)


# --- noise


@pytest.mark.parametrize("sigma", [0.5, 10.0])
def test_noise_of_pixels_is_that_of_the_smoothed_noise(sigma: float) -> None:
    pixels = framed(sigma * white(1))
    _, detail = detail_of(as_mammogram(pixels))
    expected = ndimage.gaussian_filter(pixels, 0.45)[100:-100, 50:-100].std()
    inside = noise_of(detail, detail.noise)[away_from_air(detail)]
    assert np.median(inside) == pytest.approx(expected, rel=0.05)
    assert np.percentile(inside, [1, 99]) == pytest.approx([expected, expected], rel=0.2)


def test_noise_follows_the_grey_level() -> None:
    """Quanta: the standard deviation is the root of the grey level, which rises sixteenfold across the picture."""
    slope = np.tile(np.geomspace(400, 6400, 512), (640, 1))
    pixels = framed(slope - 1000 + np.sqrt(slope) * white(2))
    _, detail = detail_of(as_mammogram(pixels))
    inside = away_from_air(detail)
    grey, noise = detail.steps.grey(over_cells(detail).grey)[inside], noise_of(detail, detail.noise)[inside]
    unit = ndimage.gaussian_filter(white(3), 0.45)[50:-50, 50:-50].std()
    np.testing.assert_allclose(np.median(noise / (unit * np.sqrt(grey))), 1.0, atol=0.06)
    for low, high in ((500, 900), (900, 2000), (2000, 5500)):
        chosen = (grey > low) & (grey < high)
        assert np.median(noise[chosen] / (unit * np.sqrt(grey[chosen]))) == pytest.approx(1, abs=0.12)


def test_noise_follows_the_place() -> None:
    """One half is three times as noisy at the same grey levels."""
    factor = np.where(np.arange(640) < 320, 1.0, 3.0)[:, None]
    _, detail = detail_of(as_mammogram(framed(5 * factor * white(4) + 0.5 * np.arange(512))))
    cols = np.arange(100.0, 400.0)
    upper, lower = (detail.noise_at(np.full(300, row), cols) for row in (64 + 160.0, 64 + 480.0))
    assert np.median(lower) / np.median(upper) == pytest.approx(3.0, rel=0.1)


def test_noise_of_each_response_is_its_spread() -> None:
    _, detail = detail_of(as_mammogram(framed(10 * white(5))))
    for band in detail.bands[:5]:
        step = detail.levels[band.level].step_px
        inside = band.response[100 // step : -100 // step, 50 // step : -100 // step]
        # a cell holds few grains of coarse noise, so that clipping takes more of it
        share = 0.1 if band.scale_mm < 0.1 else 0.3
        assert np.median(noise_of(detail, band.noise)[away_from_air(detail)]) == pytest.approx(
            inside.std() * detail.steps.size, rel=share
        ), band.scale_mm


@pytest.mark.parametrize("beyond", [(-0.3, 0.4), (-3.0, 0.2), (-0.2, 40.0), (-5.0, 90.0), (-500.0, 5000.0)])
def test_grey_levels_are_whole_steps_from_the_darkest_to_the_brightest(beyond: tuple[float, float]) -> None:
    low, span, (below, above) = 1000.0, 2000.0, beyond
    pixels = np.random.default_rng(1).uniform(low, low + span, (150, 70)).astype(np.float32)
    pixels[3, 5], pixels[140, 60] = low + below * span, low + (1 + above) * span
    image, steps = _in_steps(pixels, (low, low + span), lambda _, shape: np.full(shape, -1, np.int16))
    assert image.shape == (192, 128)
    assert image.min() >= 0
    # finer than noise, and no coarser than what is far outside asks for
    assert steps.size <= max(span / STEPS, min(above + 1.0 + max(-below, 0), 136.1) * span / MOST_STEPS) * 1.5
    told = np.clip(pixels, low + LOWEST * span, low + HIGHEST * span)
    np.testing.assert_allclose(
        np.minimum(steps.grey(image[:150, :70]), told.max()), told, rtol=0, atol=0.51 * steps.size + 1e-3
    )
    assert (image[150:] == image[149]).all()
    assert (image[:, 70:] == image[:, 69:70]).all()


def test_bright_specks_do_not_hide_in_their_own_noise() -> None:
    pixels = framed(10 * white(6))
    specks = pixels.copy()
    specks[150:600:40, 40:480:40] += 300
    plain, dotted = (detail_of(as_mammogram(p))[1] for p in (pixels, specks))
    inside = away_from_air(plain)
    for before, after in [(plain.noise, dotted.noise)] + [
        (a.noise, b.noise) for a, b in zip(plain.bands[:3], dotted.bands[:3], strict=True)
    ]:
        assert np.median(noise_of(dotted, after)[inside] / noise_of(plain, before)[inside]) < 1.35


def test_an_image_without_noise_has_a_least_noise() -> None:
    _, detail = detail_of(as_mammogram(framed(np.zeros((640, 512)))))
    assert all((noise_of(detail, noise) > 0).all() for noise in (detail.noise, *(band.noise for band in detail.bands)))


@pytest.mark.parametrize(("factor", "offset"), [(0.01, 0.0), (20.0, 0.0), (1.0, 5000.0)])
def test_grey_scale_scales_all_and_an_offset_nothing(factor: float, offset: float) -> None:
    mammogram, _ = phantom(1, small(*GROUPS))
    _, plain = detail_of(mammogram)
    _, other = detail_of(like(mammogram, mammogram.pixels * np.float32(factor) + np.float32(offset)))
    for one, two in zip(plain.bands, other.bands, strict=True):
        # the steps scale with the grey levels; rounding may move one by one
        assert np.mean(np.abs(two.response - one.response) > 1) < 1e-3
        assert np.mean(two.response != one.response) < 0.2
        assert np.median(np.abs(noise_of(other, two.noise) / factor / noise_of(plain, one.noise) - 1)) < 0.01
    assert np.median(np.abs(noise_of(other, other.noise) / factor / noise_of(plain, plain.noise) - 1)) < 0.01
    np.testing.assert_allclose(other.coherence, plain.coherence, atol=0.02)


# --- the pyramid


def test_levels_lie_where_they_say() -> None:
    """On a slope every level is the slope at its own places: half a cell off would show."""
    rows, cols = np.indices((640, 512))
    pixels = framed(3.0 * rows + 2.0 * cols)
    _, detail = detail_of(as_mammogram(pixels))
    assert len(detail.levels) >= 4
    row, col = np.meshgrid(np.arange(200.0, 500.0, 13.7), np.arange(130.0, 380.0, 11.3), indexing="ij")
    for level in detail.levels:
        expected = 1000 + 3.0 * (row - 64) + 2.0 * col
        found = detail.steps.grey(level.sample(row, col))
        np.testing.assert_allclose(found, expected, atol=0.02 * level.step_px + detail.steps.size)
        assert level.origin_px == (detail.box.row_start + (level.step_px - 1) / 2,) + (
            detail.box.col_start + (level.step_px - 1) / 2,
        )


def test_the_box_is_padded_to_multiples_of_the_coarsest_step() -> None:
    mammogram, _ = phantom(1, small(*GROUPS))
    breast, detail = detail_of(like(mammogram, mammogram.pixels[:800, :611]))
    rows, cols = detail.levels[0].image.shape
    assert rows % MULTIPLE_PX == cols % MULTIPLE_PX == 0
    assert (rows, cols) >= breast.box.shape
    for level in detail.levels:
        assert level.image.shape == (rows // level.step_px, cols // level.step_px) == level.tophat.shape
    for band in detail.bands:
        assert band.response.shape == detail.levels[band.level].image.shape
        assert band.noise.factor.shape == detail.noise.factor.shape == detail.coherence.shape


def test_scales_are_one_ladder_for_all_pixel_sizes() -> None:
    scales = {}
    for mm in (0.05, 0.1, 0.2):
        mammogram, _ = phantom(1, small(rows=round(83.2 / mm), cols=round(64 / mm), spacing_mm=mm))
        scales[mm] = [band.scale_mm for band in detail_of(mammogram)[1].bands]
    assert scales[0.05][0] == pytest.approx(0.075)
    ratios = np.array(scales[0.05][1:]) / np.array(scales[0.05][:-1])
    np.testing.assert_allclose(ratios, 1.6)
    for mm in (0.1, 0.2):
        assert set(scales[mm]) <= set(scales[0.05])
        assert min(scales[mm]) >= 0.59 * mm


@pytest.mark.parametrize("spacing_mm", [0.05, 0.1])
def test_responses_are_those_of_scipy(spacing_mm: float) -> None:
    """The slow equivalent: the difference of two Gaussians of the whole image, read at the level's places."""
    size = round(60 / spacing_mm) // 64 * 64
    inside = ndimage.gaussian_filter(white(7, (size, size)), 0.08 / spacing_mm)
    pixels = framed(20 * inside / inside.std())
    _, detail = detail_of(as_mammogram(pixels, (spacing_mm, spacing_mm)))
    for band in detail.bands[:6]:
        level = detail.levels[band.level]
        # the first band may not be finer than the smoothing that comes first
        # of the blur that makes a scale, the width of a pixel is a part
        scales_px = [np.sqrt((factor * band.scale_mm / spacing_mm) ** 2 - 1 / 12) for factor in (1.0, 1.6)]
        slow = ndimage.gaussian_filter(pixels, scales_px[0]) - ndimage.gaussian_filter(pixels, scales_px[1])
        margin = (64 + round(8 * band.scale_mm / spacing_mm)) // level.step_px + 1
        rows, cols = (np.arange(margin, n - margin) for n in band.response.shape)
        at = np.meshgrid(
            level.origin_px[0] + level.step_px * rows, level.origin_px[1] + level.step_px * cols, indexing="ij"
        )
        expected = ndimage.map_coordinates(slow, at, order=3)
        ours = band.response[margin:-margin, margin:-margin] * detail.steps.size
        assert np.corrcoef(ours.ravel(), expected.ravel())[0, 1] > 0.98, band.scale_mm
        assert np.std(ours - expected) < 0.2 * np.std(expected), band.scale_mm


@pytest.mark.parametrize("scale_mm", [0.12, 0.19, 0.5, 1.2])
def test_a_blob_answers_most_at_its_own_scale(scale_mm: float) -> None:
    rows, cols = np.indices((640, 512))
    blob = 200 * np.exp(-((rows - 320.0) ** 2 + (cols - 200.0) ** 2) / (2 * (scale_mm / 0.1) ** 2))
    _, detail = detail_of(as_mammogram(framed(blob + 2 * white(8))))
    answers = [
        float(
            Places.at(
                *(detail.levels[b.level].to_cells(np.array([p]), i) for i, p in ((0, 384.0), (1, 200.0)))
            ).bilinear(b.response)[0]
        )
        for b in detail.bands
    ]
    # a Gaussian of s answers most to the difference of s / sqrt(1.6) and s * sqrt(1.6)
    best = detail.bands[int(np.argmax(answers))].scale_mm
    assert scale_mm / 1.65 / 1.3 < best < scale_mm * 1.3


# --- background


def test_the_background_takes_specks_away_and_leaves_slopes() -> None:
    rows, cols = np.indices((640, 512))
    specks = np.zeros((640, 512))
    specks[100:600:50, 60:460:50] = 300
    pixels = framed(0.5 * rows + 0.3 * cols + ndimage.gaussian_filter(specks, 0.7))
    _, detail = detail_of(as_mammogram(pixels))
    level = detail.levels[0]
    background, image = detail.steps.grey(level.image - level.tophat), detail.steps.grey(level.image)
    slope = 1000 + 0.5 * (rows - 64 + detail.box.row_start) + 0.3 * (cols + detail.box.col_start)
    part = (slice(40, 600), slice(40, 440))
    # the window's half side of 7 pixels on this slope
    assert np.abs(background[part] - slope[part]).max() < 7 * (0.5 + 0.3)
    height = (image - slope)[part].max()
    tophat = level.tophat[part] * detail.steps.size
    assert tophat.max() == pytest.approx(height, rel=0.1)
    assert np.median(tophat) < 4


def test_background_is_the_opening_of_the_next_coarser_level() -> None:
    detail = rooms_of(1, small(*GROUPS)).detail
    reach = np.arange(-3, 4)
    disc = reach[:, None] ** 2 + reach**2 <= 3.5**2
    for level in detail.levels[:3]:
        rows, cols = level.image.shape
        halved = level.image.reshape(rows // 2, 2, cols // 2, 2).mean((1, 3))
        opened = ndimage.grey_opening(halved, footprint=disc, mode="nearest")
        at = [(np.arange(n) - 0.5) / 2 for n in (rows, cols)]
        slow = ndimage.map_coordinates(opened, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
        np.testing.assert_allclose(level.image - level.tophat, slow, atol=1)


# --- coherence


def test_coherence_is_high_on_stripes_and_low_on_noise() -> None:
    cols = np.indices((640, 512))[1]
    stripes = 50 * np.sin(cols / 4.0)
    for picture, low, high in ((stripes + white(9), 0.9, 1.0), (20 * white(10), 0.0, 0.45)):
        _, detail = detail_of(as_mammogram(framed(picture)))
        coherence = detail.coherence[away_from_air(detail)]
        assert low <= np.median(coherence) <= high
        assert ((detail.coherence >= 0) & (detail.coherence <= 1.0001)).all()


# --- between pixels


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
def test_bilinear_sampling_is_that_of_scipy(rows: int, cols: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 100, (rows, cols)).astype(np.float32)
    row, col = rng.uniform(-3, rows + 3, (5, 4)), rng.uniform(-3, cols + 3, (5, 4))
    row[0], col[1] = np.rint(row[0]), np.rint(col[1])
    slow = ndimage.map_coordinates(image, [row, col], order=1, mode="nearest")
    np.testing.assert_allclose(Places.at(row, col).bilinear(image), slow, atol=1e-3)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
def test_the_nearest_pixel_is_that_of_scipy(rows: int, cols: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 100, (rows, cols)).astype(np.float32)
    row, col = rng.uniform(-3, rows + 3, (5, 4)), rng.uniform(-3, cols + 3, (5, 4))
    np.testing.assert_array_equal(
        Places.at(row, col).nearest(image), ndimage.map_coordinates(image, [row, col], order=0, mode="nearest")
    )


@given(st.integers(1, 24), st.integers(0, 999))
def test_noise_is_read_as_by_interpolation(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    known, sigma = np.sort(rng.uniform(0, 16000, n)), rng.uniform(20, 200, n)
    grey = rng.uniform(-100, 17000, (6, 50)).astype(np.float32)
    noise = Noise(known, sigma, np.full((3, 4), 2.0, np.float32))
    found = noise.at(Where(grey, np.zeros(grey.shape), np.zeros(grey.shape)))
    # within half a step of grey, of which there are over a thousand
    steepest = np.abs(np.diff(sigma) / np.diff(known)).max(initial=0)
    off = np.abs(found / 2 - np.interp(grey, known, sigma))
    assert off.max() <= (0.5 * np.ptp(known) / 1023 + 0.01) * steepest + 1e-9


@pytest.mark.parametrize("spacing_mm", [0.05, 0.1, 0.2])
def test_noise_is_nowhere_under_what_it_is_at_least(spacing_mm: float) -> None:
    """Cell by cell where the darkest grey is known, else altogether."""
    rows, cols = round(83.2 / spacing_mm), round(64.0 / spacing_mm)
    mammogram, _ = phantom(2, Recipe(rows=rows, cols=cols, spacing_mm=spacing_mm, groups=()))
    breast, detail = detail_of(mammogram)
    rng, (rows, cols) = np.random.default_rng(1), breast.box.shape
    row_px, col_px = breast.box.row_start + rng.uniform(0, rows - 1, 4000), rng.uniform(0, cols - 1, 4000)
    col_px += breast.box.col_start
    where = detail.where(row_px, col_px)
    cell = tuple(np.rint(np.stack([where.row, where.col])).astype(np.int64).clip(0))
    for band in detail.bands:
        noise, least = band.noise.at(where), band.noise.at_least(detail.darkest)[cell]
        assert (least <= noise * (1 + 1e-6)).all()
        assert band.noise.at_least(None) <= least.min() * (1 + 1e-6) < np.median(least)


def test_without_a_breast_there_is_no_detail() -> None:
    _, detail = detail_of(as_mammogram(np.zeros((300, 300))))
    assert len(detail.levels) == len(detail.bands) == 0
    assert detail.noise.factor.size == detail.coherence.size == 0
