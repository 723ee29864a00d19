"""Candidates and their pixels: against scipy and plain loops, and on discs, lumps and specks that are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from detector.breast import find_breast
from detector.detect import detect_marks, grains
from detector.detect.artefacts import COARSE_SIGMA, MOST_OUTSIDE, SPARED_SIGMA, _drawn, is_strand
from detector.detect.borders import edge_steps, sample_rays, smoothed_around
from detector.detect.discs import _Circles, _filled, find_discs
from detector.detect.levels import line_sigma, with_tops
from detector.detect.overlaps import LEAST_LEFT, _owned, _parts, _rivals, _strongest, as_marks, resolve_overlaps
from detector.detect.peaks import ECHO_SCALES, HIDING_SCALE_MM, _without_echoes, find_maxima, find_peaks, pairs_within
from detector.detect.regions import Regions, _grown_by_one, _is_closed, _on_pixels
from detector.detect.rods import _Change, _repainted, join_rods
from detector.detect.windows import RING_SCALES, Grown, Windows, _connected
from detector.enhance import enhance_detail
from detector.pipeline import analyse
from detector.records import (
    BoolImage,
    Box,
    BreastRegion,
    Detail,
    GreySteps,
    Level,
    Mammogram,
    Marks,
    Noise,
    Peaks,
    Seeds,
    StepImage,
    Zone,
)
from detector.settings import DetectSettings, Settings
from tests.rooms import GROUPS, as_mammogram, like, phantom, rooms_of, small, through_rooms

SETTINGS = Settings()
Floats = NDArray[np.float64]


def tissue(noise: float = 8.0, seed: int = 1, spacing_mm: float = 0.1) -> Floats:
    """Return a flat breast of 64 x 48 mm with smooth texture and noise, in air."""
    rows, cols = round(76.8 / spacing_mm), round(57.6 / spacing_mm)
    rng = np.random.default_rng(seed)
    inside = ndimage.gaussian_filter(rng.normal(0, 1, (rows // 8, cols // 8)), 3.0)
    texture = cv2.resize(inside / inside.std(), (cols, rows), interpolation=cv2.INTER_CUBIC) * 40
    pixels = 1500 + texture + noise * 0.1 / spacing_mm * rng.normal(0, 1, (rows, cols))
    air = round(6.4 / spacing_mm)
    pixels[:air] = pixels[-air:] = pixels[:, -air:] = 100
    return np.asarray(pixels)


def disc(shape: tuple[int, int], at_mm: tuple[float, float], diameter_mm: float, spacing_mm: float = 0.1) -> Floats:
    """Return a disc of height 1, sampled finely, with a system's blur of 0.07 mm."""
    fine = 4
    row, col = ((np.arange(n * fine) + 0.5) / fine * spacing_mm for n in shape)
    reach = 0.5 * diameter_mm + 1.0
    out = np.zeros(shape)
    r = np.flatnonzero(np.abs(row - at_mm[0]) < reach) // fine
    c = np.flatnonzero(np.abs(col - at_mm[1]) < reach) // fine
    part = (slice(r[0], r[-1] + 1), slice(c[0], c[-1] + 1))
    y, x = row[r[0] * fine : (r[-1] + 1) * fine], col[c[0] * fine : (c[-1] + 1) * fine]
    solid = np.hypot(y[:, None] - at_mm[0], x[None] - at_mm[1]) <= 0.5 * diameter_mm
    out[part] = solid.reshape(len(y) // fine, fine, len(x) // fine, fine).mean((1, 3))
    return np.asarray(ndimage.gaussian_filter(out, 0.07 / spacing_mm))


def marks_of(pixels: Any, spacing_mm: float = 0.1, **changed: Any) -> tuple[Mammogram, Detail, Marks]:
    mammogram = as_mammogram(pixels, view="CC", spacing_mm=(spacing_mm, spacing_mm))
    settings = dataclasses.replace(SETTINGS.detect, **changed)
    breast = find_breast(mammogram, SETTINGS.breast)
    detail = enhance_detail(mammogram, breast, SETTINGS.enhance)
    return mammogram, detail, detect_marks(detail, breast, settings)


def discs_of(pixels: Any) -> Regions:
    mammogram = as_mammogram(pixels, view="CC")
    breast = find_breast(mammogram, SETTINGS.breast)
    return discs_in(enhance_detail(mammogram, breast, SETTINGS.enhance), breast)


def discs_in(detail: Detail, breast: BreastRegion) -> Regions:
    return find_discs(find_maxima(detail, breast, SETTINGS.detect), detail, breast, SETTINGS.detect)


def peaks_in(detail: Detail, breast: BreastRegion, settings: DetectSettings) -> Seeds:
    return find_peaks(find_maxima(detail, breast, settings), detail, breast, settings)


def label_at(marks: Marks, row_px: float, col_px: float) -> int:
    return int(marks.labels[round(row_px) - marks.box.row_start, round(col_px) - marks.box.col_start])


# --- fast paths and their slow equivalents


@given(st.integers(0, 999), st.integers(0, 6), st.sampled_from([0.3, 0.5, 0.7]))
def test_connected_parts_of_windows_are_those_of_scipy(seed: int, n: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    tophat = rng.integers(0, 100, (n, 7, 7)).astype(np.int16)
    least = np.full(n, 100 * share - 1).astype(np.int16)
    row, col = rng.integers(0, 7, (2, n))
    windows = tophat > least[:, None, None]
    for window, ours, r, c in zip(windows, _connected(tophat, least, row, col), row, col, strict=True):
        labels, _ = ndimage.label(window, np.ones((3, 3)))
        assert np.array_equal(ours, (labels == labels[r, c]) & (labels[r, c] > 0))


def bare_detail(image: StepImage) -> Detail:
    """Return a Detail of one level, with no noise known."""
    box, nothing = Box(0, image.shape[0], 0, image.shape[1]), np.zeros((0, 0), np.float32)
    level, noise = Level(image, image, 1, (0.0, 0.0)), Noise(np.zeros(1), np.ones(1), nothing)
    return Detail((level,), (), noise, 0, nothing, GreySteps(0, 1), 1, 0.1, box, box.shape)


def seeds_at_level(thresholds: list[float]) -> Seeds:
    nothing = np.zeros(len(thresholds))
    return Seeds.blank(
        len(thresholds),
        row_px=nothing,
        col_px=nothing,
        threshold=np.array(thresholds),
        tilt_row=nothing,
        tilt_col=nothing,
    )


@given(hnp.arrays(np.int8, st.tuples(st.integers(3, 12), st.integers(3, 12)), elements=st.integers(0, 3)))
def test_parts_of_labels_are_those_of_scipy(labels: NDArray[np.int8]) -> None:
    """Where all corners are bright."""
    picture = np.pad(labels, 1).astype(np.uint16)
    pixel = np.flatnonzero(picture).astype(np.int32)
    detail = bare_detail(np.ones(picture.shape, np.int16))
    parts = _parts(pixel, picture.ravel()[pixel], seeds_at_level([0.5] * 3), detail)
    slow = np.zeros(picture.shape, int)
    for label in range(1, 4):
        own, _ = ndimage.label(picture == label, np.ones((3, 3)))
        slow[own > 0] = own[own > 0] + slow.max()
    pairs = set(zip(parts.tolist(), slow.ravel()[pixel].tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@dataclasses.dataclass(frozen=True)
class Overlapping:
    """Regions that overlap: row by row of `area` the pixels of each, and where its peak lies."""

    area: BoolImage
    centre: NDArray[np.int64]
    is_whole: BoolImage
    rank: NDArray[np.uint16]
    width: int

    @classmethod
    def drawn(cls, seed: int, n: int, width: int = 24) -> Overlapping:
        """Return n squares about random places, near enough to most of these to hold them."""
        rng = np.random.default_rng(seed)
        row, col, size = rng.integers(0, width, n), rng.integers(0, width, n), rng.integers(1, 9, n)
        area = np.zeros((n, width, width), np.bool_)
        for one in range(n):
            r, c = np.maximum(np.array([row[one], col[one]]) + rng.integers(-4, 2, 2), 0)
            area[one, r : r + size[one], c : c + size[one]] = True
        rank = (rng.permutation(n) + 1).astype(np.uint16)
        return cls(area.reshape(n, -1), row * width + col, rng.random(n) < 0.2, rank, width)

    @property
    def regions(self) -> Regions:
        owner, pixel = (each.astype(np.int32) for each in np.nonzero(self.area))
        row, col = np.divmod(self.centre, self.width)
        scale_mm, edge = np.where(self.is_whole, 0.5, 0.1), self.is_whole.astype(np.float64)
        n = len(self.centre)
        seeds = Seeds.blank(n, row_px=row, col_px=col, scale_mm=scale_mm, height=np.ones(n), edge=edge)
        return Regions(seeds, owner, pixel)

    def strongest(self, asked: list[int]) -> list[int]:
        """Return which of those asked stay, by a loop from the strongest to the weakest."""
        kept: list[int] = []
        for one in sorted(asked, key=lambda one: -int(self.rank[one])):
            covered = self.area[kept, self.centre[one]].any()
            holds = self.area[one, self.centre[kept]].any()
            if self.area[one, self.centre[one]] and not covered and (self.is_whole[one] or not holds):
                kept.append(one)
        return kept

    def owner(self, kept: list[int]) -> NDArray[np.int64]:
        """Return which of some has each pixel, -1 where none has."""
        ranks = np.where(self.area[kept], self.rank[kept, None], 0)
        strongest = np.array(kept, np.int64)[ranks.argmax(axis=0)] if kept else np.zeros(self.area.shape[1], np.int64)
        return np.where(ranks.any(axis=0), strongest, -1)

    def resolved(self) -> list[int]:
        """Return which stay in the end, round by round of those that hems have displaced."""
        kept, asked = set[int](), list(range(len(self.centre)))
        while asked:
            stays = self.strongest(asked)
            owner = self.owner(stays)
            hems = {one for one in stays if np.count_nonzero(owner == one) < LEAST_LEFT * self.area[one].sum()}
            kept = (kept - set(asked)) | (set(stays) - hems)
            displaced = [
                one
                for one in set(asked) - set(stays)
                if owner[self.centre[one]] in hems or self.area[one, self.centre[list(hems)]].any()
            ]
            touched = [one for one in kept if (self.area[one] & self.area[displaced].any(axis=0)).any()]
            asked = displaced + touched
        return sorted(kept)


@given(st.integers(0, 9999), st.integers(1, 14))
def test_the_strongest_regions_are_those_of_a_loop_from_the_strongest_to_the_weakest(seed: int, n: int) -> None:
    """What one would displace that is displaced itself stays."""
    drawn = Overlapping.drawn(seed, n)
    canvas, regions = np.zeros(drawn.width**2, np.uint16), drawn.regions
    found = _strongest(np.ones(n, np.bool_), _rivals(regions, drawn.centre, drawn.rank, canvas))
    rows, owned = _owned(regions, found, drawn.rank, canvas)
    kept = drawn.strongest(list(range(n)))
    assert np.flatnonzero(found).tolist() == sorted(kept)
    assert np.array_equal(owned, drawn.owner(kept)[regions.pixel[rows]] == regions.owner[rows])
    assert np.isin(regions.owner[rows], kept).all() and len(rows) == np.count_nonzero(drawn.area[kept])
    assert not canvas.any()


@given(st.integers(0, 99999), st.integers(1, 30))
@hypothesis_settings(max_examples=300)
def test_what_is_left_of_overlapping_regions_is_what_a_slow_loop_leaves(seed: int, n: int) -> None:
    drawn, canvas = Overlapping.drawn(seed, n), np.zeros((24, 24), np.uint16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detector.detect.overlaps._rank", lambda *_: drawn.rank)
        left = resolve_overlaps(drawn.regions, bare_detail(np.zeros((24, 24), np.int16)), canvas)
    kept = drawn.resolved()
    row, col = np.divmod(drawn.centre[kept], 24)
    assert left.seeds.row_px.tolist() == row.tolist() and left.seeds.col_px.tolist() == col.tolist()
    owner = np.full(24 * 24, -1)
    owner[left.pixel] = np.array(kept, np.int64)[left.owner]
    assert np.array_equal(owner, drawn.owner(kept))
    assert not canvas.any()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("around", "n_parts"), [(0, 2), (45, 1)])
def test_pixels_that_touch_at_a_corner_hang_together_where_it_is_bright(
    around: int, n_parts: int, turned: bool
) -> None:
    image = np.full((5, 6), around, np.int16)
    image[1, 1] = image[2, 2] = image[2, 3] = 90
    image = image[:, ::-1].copy() if turned else image
    pixel = np.flatnonzero(image > 50).astype(np.int32)
    parts = _parts(pixel, np.ones(3, np.uint16), seeds_at_level([50]), bare_detail(image))
    assert len(np.unique(parts)) == n_parts


@given(hnp.arrays(np.bool_, (3, 6, 6)))
def test_growing_by_one_is_a_dilation(windows: BoolImage) -> None:
    for window, grown in zip(windows, _grown_by_one(windows), strict=True):
        assert np.array_equal(grown, ndimage.binary_dilation(window, np.ones((3, 3))))


@given(st.integers(0, 30), st.integers(0, 60), st.floats(0.5, 12), st.integers(0, 999), st.booleans())
def test_pairs_are_those_of_a_tree(n: int, m: int, reach: float, seed: int, on_grid: bool) -> None:
    rng = np.random.default_rng(seed)
    places, others = (rng.uniform(-20, 30, (2, k)) for k in (n, m))
    if on_grid:
        places, others, reach = np.rint(places / 4), np.rint(others / 4), np.rint(reach) + 0.5
    row, other, square = pairs_within(places, others, reach)
    slow = cKDTree(places.T).sparse_distance_matrix(cKDTree(others.T), reach, output_type="ndarray") if n and m else []
    assert sorted(zip(row.tolist(), other.tolist(), strict=True)) == sorted((int(i), int(j)) for i, j, _ in slow)
    np.testing.assert_allclose(square, ((places[:, row] - others[:, other]) ** 2).sum(axis=0))


@given(st.lists(st.integers(0, 25), min_size=3, max_size=3), st.integers(0, 999))
def test_echoes_are_those_of_a_loop_over_neighbouring_bands(numbers: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = []
    for n, scale_mm in zip(numbers, (0.1, 0.16, 0.256), strict=True):
        place = rng.permutation(144)[:n]
        row, col, sigma = (place // 12).astype(float), (place % 12).astype(float), rng.uniform(3, 9, n)
        tables.append(Peaks.blank(n, row_px=row, col_px=col, scale_mm=np.full(n, scale_mm), response_sigma=sigma))
    expected = []
    for number, table in enumerate(tables):
        for one in range(len(table)):
            stays = True
            for beside in (number - 1, number + 1):
                if not 0 <= beside < 3:
                    continue
                other, reach = tables[beside], ECHO_SCALES * max((0.1, 0.16, 0.256)[k] for k in (number, beside)) / 0.1
                away = np.hypot(other.row_px - table.row_px[one], other.col_px - table.col_px[one])
                near = np.flatnonzero(away < reach)
                if len(near):
                    nearest = min(near, key=lambda i: (round(away[i], 9), -other.response_sigma[i]))
                    stays &= bool(table.response_sigma[one] >= other.response_sigma[nearest])
            if stays:
                expected.append((number, table.row_px[one], table.col_px[one]))
    found = _without_echoes(tables, 0.1)
    numbers_found = np.searchsorted([0.13, 0.2], found.scale_mm)
    assert list(zip(numbers_found.tolist(), found.row_px, found.col_px, strict=True)) == expected


@pytest.mark.parametrize("spacing_mm", [0.05, 0.1, 0.2])
def test_maxima_are_those_of_scipy(spacing_mm: float) -> None:
    """Of every band all that are over the threshold, in the order of pixels."""
    mammogram = as_mammogram(tissue(spacing_mm=spacing_mm), (spacing_mm, spacing_mm), view="CC")
    breast = find_breast(mammogram, SETTINGS.breast)
    detail, settings = enhance_detail(mammogram, breast, SETTINGS.enhance), SETTINGS.detect
    found = find_maxima(detail, breast, settings)
    found = found[breast.is_searched[breast.cells(found.row_px, found.col_px)]]
    for band in detail.bands:
        level, ours = detail.levels[band.level], found[found.scale_mm == band.scale_mm]
        large = settings.large_threshold_sigma * np.sqrt(min(1.0, HIDING_SCALE_MM / band.scale_mm))
        least = settings.supported_sigma if band.scale_mm < settings.large_scale_mm else large
        highest = ndimage.maximum_filter(band.response, 3, mode="nearest")
        row, col = np.nonzero((band.response == highest) & (band.response > 0))
        row_px, col_px = (o + level.step_px * i for o, i in zip(level.origin_px, (row, col), strict=True))
        sigma = band.response[row, col] / band.noise.at(detail.where(row_px, col_px))
        asked = (sigma > least + 1e-4) & breast.is_searched[breast.cells(row_px, col_px)]
        if level.step_px == 1:
            expected = set(zip(row_px[asked].tolist(), col_px[asked].tolist(), strict=True))
            assert expected <= set(zip(ours.row_px.tolist(), ours.col_px.tolist(), strict=True))
        # peaks of coarse cells move to the brightest of four pixels
        assert np.count_nonzero(asked) == pytest.approx(np.count_nonzero(ours.response_sigma > least), rel=0.01, abs=2)


def test_peaks_are_those_of_a_loop_over_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each candidate is a highest of nine over the threshold; only echoes of fine bands and corners are missing."""
    # which of them are strands has a test of its own
    monkeypatch.setattr("detector.detect.peaks.is_strand", lambda seeds, *_: np.zeros(len(seeds), np.bool_))
    rooms = rooms_of(1, small(*GROUPS))
    detail, breast = rooms.detail, rooms.breast
    lone = dataclasses.replace(SETTINGS.detect, threshold_sigma=6.0, supported_sigma=6.0)
    found = peaks_in(detail, breast, lone)
    for number, band in enumerate(detail.bands):
        level = detail.levels[band.level]
        large = lone.large_threshold_sigma * np.sqrt(min(1.0, HIDING_SCALE_MM / band.scale_mm))
        threshold = 6.0 if band.scale_mm < lone.large_scale_mm else large
        slow = set()
        for row, col in np.argwhere(
            band.response > threshold * band.noise.sigma.min() * band.noise.factor.min()
        ).tolist():
            around = band.response[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2]
            at = [np.array([o + level.step_px * i]) for o, i in zip(level.origin_px, (row, col), strict=True)]
            sigma = band.response[row, col] / band.noise.at(detail.where(at[0], at[1]))[0]
            inside = breast.zones[breast.cells(at[0], at[1])][0] & Zone.BREAST
            if band.response[row, col] == around.max() and sigma > threshold and inside:
                slow.add((row, col))
        ours = found[found.scale_mm == band.scale_mm]
        rows, cols = (np.rint(level.to_cells(p, i)).astype(int) for i, p in enumerate((ours.row_px, ours.col_px)))
        cells = set(zip(rows.tolist(), cols.tolist(), strict=True))
        assert cells <= slow
        if band.scale_mm >= lone.coarse_scale_mm:
            for cell in slow - cells:
                angle, radius_px = np.arange(16) * np.pi / 8, np.sqrt(2) * band.scale_mm / detail.pixel_mm
                row_px, col_px = (o + level.step_px * i for o, i in zip(level.origin_px, cell, strict=True))
                rim = breast.cells(row_px + radius_px * np.sin(angle), col_px + radius_px * np.cos(angle))
                zones = breast.zones[rim]
                assert np.count_nonzero((zones & (Zone.BREAST | Zone.EDGE)) != Zone.BREAST) >= MOST_OUTSIDE, number


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("slope", "length_px", "height", "is_line"),
    [(0.0, 400, 60, True), (0.0, 230, 60, True), (0.0, 400, -300, True), (0.05, 400, 60, False), (0.0, 140, 60, False)],
)
def test_a_line_of_the_scanner_is_no_calcium_and_a_slanted_or_short_one_may_be(
    slope: float, length_px: int, height: float, is_line: bool, turned: bool
) -> None:
    """A dark line is none either, which is bright on both sides."""
    pixels = tissue(noise=4.0)
    rows, cols = np.indices(pixels.shape)
    if turned:
        line = (np.abs(rows - 384 - slope * (cols - 200)) < 1) & (np.abs(cols - 240) < length_px / 2)
    else:
        line = (np.abs(cols - 240 - slope * (rows - 384)) < 1) & (np.abs(rows - 384) < length_px / 2)
    _, _, marks = marks_of(np.where(line & (pixels > 500), pixels + height, pixels))
    seeds = marks.seeds
    across, along = seeds.row_px - 384, seeds.col_px - 240
    if not turned:
        across, along = along, across
    on_line = (np.abs(across) < (5 if is_line else 20)) & (np.abs(along) < length_px / 2 - 10)
    n = np.count_nonzero(on_line & (seeds.response_sigma > 5))
    assert (n == 0) == is_line


@pytest.mark.parametrize("step", [-4.0, 4.0])
def test_a_drawn_line_is_the_rows_that_differ_and_what_is_beside_them(step: float) -> None:
    """Of ten blocks in a row one may be missing; four noise units differ, as a dark line's sides do not."""
    blocks = np.zeros((40, 24), np.float32)
    blocks[20, 3:17] = step
    blocks[20, 8] = 0
    drawn = _drawn(blocks, np.ones_like(blocks), 0.2)
    assert np.array_equal(np.flatnonzero(drawn.any(axis=1)), np.arange(17, 24))
    assert np.array_equal(np.flatnonzero(drawn.any(axis=0)), np.arange(3, 17))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("height", [-300, 60])
def test_calcium_on_a_line_of_the_scanner_is_found(height: float, turned: bool) -> None:
    """It stands out in all directions; a strand that crosses the line does not along itself."""
    pixels = tissue(noise=4.0)
    rows = np.indices(pixels.shape)[0] * 0.1
    # on a bright line it would, as the brightest
    strand = (100 if height < 0 else 0) * np.exp(-((rows - 30.0) ** 2) / (2 * 0.3**2))
    pixels[64:-64, 240] += height
    pixels = pixels + strand + 200 * disc(pixels.shape, (38.4, 24.5), 0.4)
    _, _, marks = marks_of(pixels.T if turned else pixels)
    row, col = (marks.seeds.col_px, marks.seeds.row_px) if turned else (marks.seeds.row_px, marks.seeds.col_px)
    near = (np.abs(col - 240) < 8) & (np.abs(row - 384) < 250)
    assert np.hypot(row[near] - 383.5, col[near] - 244.5) == pytest.approx(np.zeros(1), abs=2)


@pytest.mark.parametrize("outside_mm", [0.0, 0.8])
def test_a_metal_bead_that_leaves_the_breast_is_one_mark(outside_mm: float) -> None:
    """Half of its surroundings are air, as of a corner of what is exposed; but it stands out from the breast too."""
    pixels = tissue(noise=4.0)
    pixels = np.maximum(pixels, 4000 * disc(pixels.shape, (38.4, 51.2 + outside_mm), 2.2))
    _, _, marks = marks_of(pixels)
    near = np.hypot(marks.seeds.row_px * 0.1 - 38.4, marks.seeds.col_px * 0.1 - 51.2 - outside_mm) < 1.3
    assert near.sum() == 1
    assert marks.seeds.scale_mm[near][0] > 0.4


@pytest.mark.parametrize(("grey", "is_disc"), [(1700, False), (4000, True)])
def test_a_nipple_in_profile_is_no_disc_and_a_bead_is(grey: float, is_disc: bool) -> None:
    """Both fall to the air on most sides; the bead stands out from the breast as well."""
    pixels = tissue(noise=4.0)
    seeds = discs_of(np.maximum(pixels, grey * disc(pixels.shape, (38.4, 52.0), 2.2))).seeds
    assert bool(len(seeds)) == is_disc


def test_a_corner_of_the_exposed_is_no_macrocalcification() -> None:
    """Where two edges cut the breast its corner is a bright blob of any scale."""
    mammogram, _ = phantom(4, small(view="MLO"))
    air = mammogram.pixels[:64, -64:]
    laid = np.tile(air, (15, 12))
    laid[64 : 64 + 832, 64 : 64 + 640] = mammogram.pixels
    spots = analyse(like(mammogram, laid)).spots
    at_corner = np.hypot(spots.row_px - 64, spots.col_px - 64) < 30
    assert not (spots.confidence[at_corner] > 0.1).any()


def test_faint_peaks_need_support_and_the_fainter_half_one_more() -> None:
    rooms = rooms_of(1, small(*GROUPS))
    settings = SETTINGS.detect
    seeds = peaks_in(rooms.detail, rooms.breast, settings)
    place = np.stack([seeds.row_px, seeds.col_px], axis=1) * rooms.detail.pixel_mm
    strong = seeds.response_sigma >= settings.support_sigma
    weak = np.flatnonzero(
        (seeds.response_sigma < settings.threshold_sigma) & (seeds.scale_mm < settings.large_scale_mm)
    )
    assert len(weak) > 10
    middle = 0.5 * (settings.supported_sigma + settings.threshold_sigma)
    for i in weak:
        n_near = np.count_nonzero(strong & (np.hypot(*(place - place[i]).T) <= settings.support_mm))
        assert n_near >= settings.support_count + (seeds.response_sigma[i] < middle)


def test_strands_are_those_of_a_loop_over_peaks() -> None:
    rooms = rooms_of(1, small(*GROUPS))
    detail, settings = rooms.detail, SETTINGS.detect
    rng = np.random.default_rng(1)
    found = peaks_in(detail, rooms.breast, settings)
    # also where no peak is: the found ones are no strands
    unknown = np.full(len(found), np.nan)
    moved = found.replace(row_px=found.row_px + rng.integers(-9, 9, len(found)), top=unknown, noise=unknown)
    seeds = Seeds.concatenate([found, moved])
    seeds = with_tops(detail, seeds)
    peak, noise = seeds.top, detail.noise_at(seeds.row_px, seeds.col_px)
    strand = is_strand(seeds, detail, settings)
    for i in rng.permutation(len(seeds))[:200]:
        level = detail.levels[seeds.level[i]]
        tophat = level.tophat
        row = round(level.to_cells(seeds.row_px[i : i + 1], 0)[0])
        col = round(level.to_cells(seeds.col_px[i : i + 1], 1)[0])
        radius = RING_SCALES[0, 0] * seeds.scale_mm[i] / detail.pixel_mm / level.step_px
        own = peak[i] - level.background_at(np.array(row), np.array(col))
        contrast = []
        for angle in np.arange(16) * np.pi / 8:
            at = round(row + radius * np.sin(angle)), round(col + radius * np.cos(angle))
            at = tuple(min(max(place, 0), n - 1) for place, n in zip(at, tophat.shape, strict=True))
            contrast.append((own - tophat[at]) / noise[i])
        weakest = min(0.5 * (contrast[k] + contrast[k + 8]) for k in range(8))
        if seeds.scale_mm[i] >= settings.coarse_scale_mm:
            expected = sum(one >= COARSE_SIGMA for one in contrast) < 8
        else:
            expected = seeds.response_sigma[i] ** 2 * (weakest + np.hypot(weakest, 1)) < settings.strand_sigma**2
            expected &= line_sigma(detail, seeds[i : i + 1])[0] < SPARED_SIGMA
        assert strand[i] == expected
    assert 0.2 < strand.mean() < 0.8
    assert not strand[: len(found)].any()


@pytest.mark.parametrize("spacing_mm", [0.05, 0.07, 0.1])
def test_no_peak_of_noise_is_spared_as_a_line(spacing_mm: float) -> None:
    mammogram = as_mammogram(tissue(spacing_mm=spacing_mm), (spacing_mm, spacing_mm), view="CC")
    breast = find_breast(mammogram, SETTINGS.breast)
    detail = enhance_detail(mammogram, breast, SETTINGS.enhance)
    seeds = peaks_in(detail, breast, dataclasses.replace(SETTINGS.detect, threshold_sigma=2.8, strand_sigma=0.0))
    response = line_sigma(detail, seeds[seeds.scale_mm < SETTINGS.detect.coarse_scale_mm])
    assert len(response) > 500
    assert 0.6 < response.mean() < 0.9 and response.std() < 0.2
    assert response.max() < SPARED_SIGMA


def test_peaks_on_a_strand_are_left_out_and_a_speck_on_it_is_not() -> None:
    """Noise on a strand 0.4 mm wide makes peaks that stand out to its sides only."""
    pixels = tissue(noise=12.0)
    rows, cols = 0.1 * np.indices(pixels.shape)
    across = (rows - 38.4) * np.cos(0.6) - (cols - 20.0) * np.sin(0.6)
    pixels += 30 * np.exp(-0.5 * (across / 0.2) ** 2) + 110 * disc(pixels.shape, (38.4, 20.0), 0.3)

    def on_strand(strand_sigma: float) -> tuple[int, bool]:
        mammogram = as_mammogram(pixels, view="CC")
        breast = find_breast(mammogram, SETTINGS.breast)
        settings = dataclasses.replace(SETTINGS.detect, strand_sigma=strand_sigma)
        seeds = peaks_in(enhance_detail(mammogram, breast, SETTINGS.enhance), breast, settings)
        fine = seeds[seeds.scale_mm < settings.coarse_scale_mm]
        row_mm, col_mm = 0.1 * fine.row_px, 0.1 * fine.col_px
        near = np.abs((row_mm - 38.4) * np.cos(0.6) - (col_mm - 20.0) * np.sin(0.6)) < 0.3
        return int(near.sum()), bool((np.hypot(row_mm - 38.4, col_mm - 20.0) < 0.2).any())

    n_all, found = on_strand(0.0)
    assert n_all > 20 and found
    n_kept, found = on_strand(SETTINGS.detect.strand_sigma)
    assert n_kept < 0.6 * n_all and found


@pytest.mark.parametrize("spacing_mm", [0.05, 0.07, 0.1])
def test_faint_lines_are_followed_beyond_the_first_window(spacing_mm: float) -> None:
    """A line of 2.5 mm that nowhere stands out more than noise does at places is found in a good part."""
    picture = tissue(12.0, seed=3, spacing_mm=spacing_mm)
    row, col = (spacing_mm * index for index in np.indices(picture.shape))
    angle = np.radians([0.0, 35.0, 90.0, 140.0])
    for number, way in enumerate(angle):
        away = row - (14.0 + 14.0 * number), col - 20.0
        along = away[0] * np.sin(way) + away[1] * np.cos(way)
        across = away[0] * np.cos(way) - away[1] * np.sin(way)
        bar = ((np.abs(along) < 1.25) & (np.abs(across) < 0.16)).astype(np.float64)
        picture += 55.0 * ndimage.gaussian_filter(bar, 0.05 / spacing_mm)
    mammogram = as_mammogram(picture, (spacing_mm, spacing_mm), view="CC")
    breast = find_breast(mammogram, SETTINGS.breast)
    marks = detect_marks(enhance_detail(mammogram, breast, SETTINGS.enhance), breast, SETTINGS.detect)
    place = np.stack([marks.seeds.row_px, marks.seeds.col_px], axis=1) * spacing_mm
    area_mm2 = np.bincount(marks.labels.ravel()[marks.pixels])[1:] * spacing_mm**2
    for number in range(4):
        on_line = np.hypot(*(place - [14.0 + 14.0 * number, 20.0]).T) < 1.3
        assert area_mm2[on_line].max() > 0.25 * 2.5 * 0.32


def test_peaks_between_pixels_lie_on_the_brightest_of_four() -> None:
    rooms = rooms_of(1, small(*GROUPS))
    finest = rooms.detail.levels[0]
    seeds = peaks_in(rooms.detail, rooms.breast, SETTINGS.detect)
    row, col = (finest.to_cells(p, i) for i, p in enumerate((seeds.row_px, seeds.col_px)))
    assert np.array_equal(row, np.rint(row)) and np.array_equal(col, np.rint(col))


def test_the_strongest_candidates_are_kept_up_to_a_limit() -> None:
    rooms = rooms_of(1, small(*GROUPS))
    every = peaks_in(rooms.detail, rooms.breast, SETTINGS.detect)
    few = dataclasses.replace(SETTINGS.detect, max_candidates_per_cm2=2.0)
    kept = peaks_in(rooms.detail, rooms.breast, few)
    assert len(kept) == int(2.0 * rooms.breast.area_cm2) < len(every)
    assert kept.response_sigma.min() >= np.sort(every.response_sigma)[::-1][len(kept) - 1]


# --- what is found


@pytest.mark.parametrize("diameter_mm", [0.2, 0.3, 0.5, 0.8])
def test_specks_are_found_at_their_places(diameter_mm: float) -> None:
    pixels = tissue()
    places = [(12.03 + 8.1 * i, 8.04 + 8.3 * j) for i in range(7) for j in range(4)]
    pixels += 150 * sum(disc(pixels.shape, place, diameter_mm) for place in places)
    _, _, marks = marks_of(pixels)
    for place in places:
        row, col = (mm / 0.1 - 0.5 for mm in place)
        label = label_at(marks, row, col)
        assert label > 0, place
        rows, cols = np.nonzero(marks.labels == label)
        middle = rows.mean() + marks.box.row_start, cols.mean() + marks.box.col_start
        assert np.hypot(middle[0] - row, middle[1] - col) < max(1.0, 2.5 * diameter_mm)


@pytest.mark.parametrize("diameter_mm", [1.2, 2.0, 3.5, 5.0, 8.0])
def test_macrocalcifications_are_one_mark_of_their_size(diameter_mm: float) -> None:
    pixels = tissue()
    place = (38.4, 24.0)
    pixels += 150 * disc(pixels.shape, place, diameter_mm)
    _, _, marks = marks_of(pixels)
    label = label_at(marks, 383.5, 239.5)
    assert label > 0
    area_mm2 = (marks.labels == label).sum() * 0.01
    assert 2 * np.sqrt(area_mm2 / np.pi) == pytest.approx(diameter_mm, rel=0.05, abs=0.1)


def test_nothing_runs_over_the_border_of_the_image() -> None:
    pixels = tissue()
    places = [(30.0, 0.6), (40.0, 1.1), (50.0, 1.5)]
    pixels += 150 * sum(disc(pixels.shape, place, 1.5) for place in places)
    _, _, marks = marks_of(pixels)
    found = [label_at(marks, row / 0.1 - 0.5, col / 0.1 - 0.5) > 0 for row, col in places]
    assert found == [False, False, True]


def test_a_bright_grain_on_a_macrocalcification_splits_it_not() -> None:
    pixels = tissue()
    pixels += 150 * disc(pixels.shape, (38.4, 24.0), 3.0) + 60 * disc(pixels.shape, (38.9, 24.3), 0.25)
    _, _, marks = marks_of(pixels)
    label = label_at(marks, 383.5, 239.5)
    assert 2 * np.sqrt((marks.labels == label).sum() * 0.01 / np.pi) == pytest.approx(3.0, rel=0.05)
    assert label_at(marks, 388.5, 242.5) == label


def test_a_tight_cluster_is_many_marks() -> None:
    pixels = tissue()
    places = [(36.0 + 0.9 * i, 22.0 + 0.9 * j) for i in range(4) for j in range(4)]
    pixels += 150 * sum(disc(pixels.shape, place, 0.35) for place in places)
    _, _, marks = marks_of(pixels)
    labels = {label_at(marks, r / 0.1 - 0.5, c / 0.1 - 0.5) for r, c in places} - {0}
    assert len(labels) >= 15


def test_soft_lumps_of_tissue_are_no_coarse_marks() -> None:
    """They are as bright as discs of that size, but fade."""
    pixels = tissue()
    rows, cols = np.indices(pixels.shape) * 0.1
    soft = 150 * np.exp(-((rows - 38.4) ** 2 + (cols - 24.0) ** 2) / (2 * 2.0**2))
    _, _, marks = marks_of(pixels + soft)
    near = np.hypot(marks.seeds.row_px * 0.1 - 38.4, marks.seeds.col_px * 0.1 - 24.0) < 2.0
    assert not (near & (marks.seeds.scale_mm > 0.4)).any()


@pytest.mark.parametrize(("seed", "beside_mm", "height"), [(1, 1.0, 90), (2, 0.0, 60), (2, 0.0, 90)])
def test_a_disc_where_strands_cross_is_one_mark_of_its_size(seed: int, beside_mm: float, height: float) -> None:
    """Half of its height over the middle of the surroundings lies on the strands, which end softly."""
    pixels = tissue(seed=seed)
    rows, cols = np.indices(pixels.shape) * 0.1
    strands = 120 * np.exp(-((cols - 24.0 - beside_mm) ** 2) / (2 * 1.2**2))
    strands = strands + 120 * np.exp(-((rows - 37.9) ** 2) / (2 * 0.8**2))
    _, _, marks = marks_of(pixels + strands + height * disc(pixels.shape, (38.4, 24.0), 2.2))
    label = label_at(marks, 383.5, 239.5)
    assert label and 0.2 * np.sqrt((marks.labels == label).sum() / np.pi) == pytest.approx(2.2, rel=0.15)


@given(
    st.floats(-0.4, 0.4),
    st.floats(-0.4, 0.4),
    st.floats(0.8, 1.2),
    st.lists(st.integers(0, 15), max_size=3, unique=True),
    st.floats(-0.5, 0.5),
)
@example(0.1, 0.0, 1.0, [0, 1, 2], 0.5)
def test_a_circle_is_fitted_through_what_lies_on_it(
    row: float, col: float, radius: float, off: list[int], by: float
) -> None:
    """Up to a few rays that have met something else, and from a first circle that lies beside."""
    angle = np.arange(16) * np.pi / 8
    inwards = row * np.sin(angle) + col * np.cos(angle)
    # where a ray from the origin leaves the circle
    distance = inwards + np.sqrt(radius**2 - row**2 - col**2 + inwards**2)
    distance[off] += by
    circles = _Circles(np.zeros(1), np.zeros(1), np.full(1, 0.9))
    step = np.ones((16, 1))
    for _ in range(6):
        found, beside = circles.fitted(distance[:, None], step)
        shift = np.array([found.row[0], found.col[0]])
        if np.hypot(*shift) < 1e-3:
            break
        row, col = row - shift[0], col - shift[1]
        inwards = row * np.sin(angle) + col * np.cos(angle)
        distance = inwards + np.sqrt(radius**2 - row**2 - col**2 + inwards**2)
        distance[off] += by
        circles = _Circles(np.zeros(1), np.zeros(1), found.radius)
    assert np.hypot(row, col) < 0.1 * radius
    assert found.radius[0] == pytest.approx(radius, rel=0.08)
    on = np.delete(np.arange(16), off)
    assert np.abs(beside[on]).max() < 0.15 * radius


def test_what_lies_within_a_rim_is_filled() -> None:
    """The slow equivalent looks at each pixel in turn."""
    rng = np.random.default_rng(4)
    detail = bare_detail(np.zeros((64, 64), np.int16))
    middle, rim = rng.uniform(20, 40, (2, 3)), rng.uniform(4, 9, (3, 16))
    seeds = Seeds.blank(3, row_px=np.rint(middle[0]), col_px=np.rint(middle[1]))
    regions = _filled(detail, seeds, _Circles(middle[0], middle[1], np.full(3, 6.0)), rim.T)
    for i in range(3):
        slow = set()
        for row, col in np.ndindex(64, 64):
            d_row, d_col = row - middle[0, i], col - middle[1, i]
            turn = np.interp(
                np.arctan2(d_row, d_col), np.arange(-16, 17) * np.pi / 8, np.append(np.tile(rim[i], 2), rim[i, 0])
            )
            if np.hypot(d_row, d_col) <= turn:
                slow.add(row * 64 + col)
        assert set(regions.pixel[regions.owner == i].tolist()) == slow


@given(st.integers(0, 99), st.floats(0.0, np.pi), st.floats(1.2, 2.6))
@example(1, 0.0, 1.2)
def test_discs_are_found_where_dense_tissue_ends_and_a_strand_runs(seed: int, angle: float, diameter_mm: float) -> None:
    """Half of the disc lies on what is nearly as bright as itself, and a strand as bright runs through it."""
    pixels = tissue(seed=seed)
    rows, cols = np.indices(pixels.shape) * 0.1
    across = (rows - 38.4) * np.cos(angle) - (cols - 24.0) * np.sin(angle)
    along = (rows - 38.4) * np.sin(angle) + (cols - 24.0) * np.cos(angle)
    dense = 80 / (1 + np.exp(-across / 0.5)) + 80 * np.exp(-(along**2) / (2 * 0.4**2))
    regions = discs_of(pixels + dense + 100 * disc(pixels.shape, (38.4, 24.0), diameter_mm))
    near = np.hypot(regions.seeds.row_px - 383.5, regions.seeds.col_px - 239.5) < 3
    assert near.any()
    area_mm2 = 0.01 * np.bincount(regions.owner, minlength=len(near))[near]
    assert 2 * np.sqrt(area_mm2.mean() / np.pi) == pytest.approx(diameter_mm, rel=0.1)


def test_lumps_and_crossing_strands_are_no_discs() -> None:
    for seed in range(3):
        pixels = tissue(seed=seed)
        rows, cols = np.indices(pixels.shape) * 0.1
        pixels += 150 * np.exp(-((rows - 38.4) ** 2 + (cols - 30.0) ** 2) / (2 * 0.9**2))
        pixels += sum(120 * np.exp(-((line - 18.0) ** 2) / (2 * 0.3**2)) for line in (rows, cols))
        assert not len(discs_of(pixels).seeds)


def test_specks_in_a_lump_are_no_disc() -> None:
    """A lump of tissue that ends sharply has discs in it, which would be lost to it."""
    pixels = tissue()
    lump = 60 * disc(pixels.shape, (38.4, 24.0), 2.6)
    places = [(38.4 + 0.7 * np.sin(turn), 24.0 + 0.7 * np.cos(turn)) for turn in np.arange(6) * np.pi / 3]
    specks = 120 * sum(disc(pixels.shape, place, 0.3) for place in places)
    for added, found in ((lump, True), (lump + specks, False)):
        discs = discs_of(pixels + added).seeds
        assert (np.hypot(discs.row_px - 383.5, discs.col_px - 239.5) < 5).any() == found


# --- rods that were outlined piece by piece


BAR_ROWS, BAR_COLS = slice(46, 54), slice(20, 90)


def bar_in_pieces(
    image: NDArray[np.floating],
    pieces: Sequence[tuple[slice, slice]],
    levels: Sequence[float],
    tilt: Sequence[float] = (0, 0),
) -> tuple[Marks, Detail, NDArray[np.uint16]]:
    """Return pieces as marks, whose seeds have their peaks in the middle and outlines at even levels."""
    detail = bare_detail(image.astype(np.int16))
    label = np.zeros(image.shape, np.uint16)
    for number, piece in enumerate(pieces, 1):
        label[piece] = number
    row, col = ([0.5 * (piece[axis].start + piece[axis].stop - 1) for piece in pieces] for axis in (0, 1))
    n, level = np.zeros(len(pieces)), np.array(levels, np.float64)
    seeds = Seeds.blank(
        len(n),
        row_px=np.array(row),
        col_px=np.array(col),
        height=n + 1000,
        noise=n + 10,
        threshold=level,
        tilt_row=n + tilt[0],
        tilt_col=n + tilt[1],
    )
    return Marks(label, np.flatnonzero(label).astype(np.int32), seeds, detail.box), detail, label


def bar(
    between: float = 1000.0, slope: tuple[float, float] = (0, 0), around: tuple[slice, slice] = (slice(0), slice(0))
) -> Floats:
    """Return a bar of height 1000, of another one between its halves, over a slope, and over 600 of what is around."""
    rows, cols = np.indices((100, 110))
    image = np.zeros(rows.shape)
    image[around] = 600
    image[BAR_ROWS, BAR_COLS] = 1000
    image[BAR_ROWS, 52:55] = between
    return np.asarray(image + slope[0] * (rows - 49.5) + slope[1] * cols, np.float64)


LEFT, RIGHT = (BAR_ROWS, slice(20, 52)), (BAR_ROWS, slice(55, 90))


@pytest.mark.parametrize(
    ("image", "levels", "tilt", "n_left"),
    [
        (bar(), (500, 500), (0, 0), 1),
        # along the bar the pieces' levels say more than their tilts, across it these are all that is known
        (bar(slope=(0, 20)), (500 + 20 * 35.5, 500 + 20 * 72), (0, 0), 1),
        (bar(slope=(150, 0)), (500, 500), (150, 0), 1),
        # half of what the lower piece is over its outline, and less than a quarter of it
        (bar(between=750), (500, 500), (0, 0), 1),
        (bar(between=600), (500, 500), (0, 0), 2),
        (bar(between=0), (500, 500), (0, 0), 2),
        # over the outlines' level the bar is wider than its pieces, and has an arm
        (bar(around=(slice(44, 56), slice(30, 80))), (500, 500), (0, 0), 2),
        (bar(around=(slice(54, 74), slice(53, 56))), (500, 500), (0, 0), 2),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_pieces_of_a_rod_are_joined_where_nothing_parts_them(
    image: Floats, levels: Sequence[float], tilt: Sequence[float], n_left: int, turned: bool
) -> None:
    pieces = [piece[::-1] for piece in (LEFT, RIGHT)] if turned else [LEFT, RIGHT]
    marks, detail, label = bar_in_pieces(image.T if turned else image, pieces, levels, tilt[::-1] if turned else tilt)
    joined = join_rods(marks, detail, label)
    assert len(joined.seeds) == n_left
    assert np.array_equal(joined.pixels, np.flatnonzero(label))
    if n_left == 1:
        whole = np.zeros(image.shape, np.bool_)
        whole[BAR_ROWS, BAR_COLS] = True
        assert np.array_equal(label > 0, whole.T if turned else whole)
        # its outline's level is that of each piece at its own middle
        row, col = (np.array([np.mean([p[axis].start, p[axis].stop - 1]) for p in pieces]) for axis in (0, 1))
        assert joined.seeds.level_at(np.zeros(2, np.intp), row, col) == pytest.approx(np.array(levels), rel=0.02)


def test_what_lies_beside_a_rod_stays_and_what_has_its_peak_in_it_goes() -> None:
    inside, beside = (slice(48, 50), slice(52, 55)), (slice(52, 62), slice(50, 54))
    marks, detail, label = bar_in_pieces(bar(), [LEFT, RIGHT, inside, beside], (500, 500, 500, 300))
    joined = join_rods(marks, detail, label)
    assert len(joined.seeds) == 2
    assert len(np.unique(label[46:52, BAR_COLS])) == 1
    assert len(np.unique(label[beside])) == 1
    assert label[beside][0, 0] not in (0, label[50, 30])


@pytest.mark.parametrize(
    "pieces",
    [
        [(slice(40, 48), slice(20, 90)), (slice(50, 58), slice(20, 90))],
        [(slice(46, 54), slice(40, 48)), (slice(46, 54), slice(48, 56))],
    ],
)
def test_bars_side_by_side_and_blocks_are_two(pieces: Sequence[tuple[slice, slice]]) -> None:
    image = np.zeros((100, 110))
    (above, left), (below, right) = pieces
    image[above.start : below.stop, left.start : right.stop] = 1000
    marks, detail, label = bar_in_pieces(image, pieces, (500, 500))
    assert len(join_rods(marks, detail, label).seeds) == 2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_long_rod_across_bands_of_tissue_is_one_mark(seed: int) -> None:
    pixels = tissue(seed=seed)
    cols = np.indices(pixels.shape)[1] * 0.1
    bands = 90 * np.cos(2 * np.pi * (cols - 24.0) / 9.0)
    path = [disc(pixels.shape, (38.4, 24.0 + along), 0.9) for along in np.arange(-3.2, 3.25, 0.2)]
    _, _, marks = marks_of(pixels + bands + 300 * np.maximum.reduce(path))
    label = label_at(marks, 383.5, 239.5)
    assert label
    assert 0.01 * np.count_nonzero(marks.labels == label) == pytest.approx(0.9 * 6.4 + 0.64, rel=0.15)


@given(st.data())
def test_marks_in_place_of_others_are_painted_as_pixel_by_pixel(data: st.DataObject) -> None:
    n_old, n_new = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    before = rng.integers(0, n_old + 1, (12, 12)).astype(np.uint16)
    places = rng.permutation(144)[: n_old + n_new]
    before.ravel()[places[:n_old]] = np.arange(1, n_old + 1)
    row, col = np.divmod(places.astype(np.float64), 12)
    seeds = Seeds.blank(n_old + n_new, row_px=row, col_px=col, height=np.arange(1.0, n_old + n_new + 1))
    gone = np.flatnonzero(rng.random(n_old) < 0.5) + 1
    # new ones where there is nothing, or what goes
    free = np.flatnonzero((before == 0) | np.isin(before, gone))
    pixel = rng.permutation(free)[: len(free) // 2] if n_new else np.empty(0, np.int64)
    owner = rng.integers(0, max(n_new, 1), len(pixel))
    label = before.copy()
    marks = Marks(label, np.flatnonzero(label).astype(np.int32), seeds[np.arange(n_old)], Box(0, 12, 0, 12))
    regions = Regions(seeds[np.arange(n_old, n_old + n_new)], owner.astype(np.int32), pixel.astype(np.int32))
    after = _repainted(marks, [_Change(gone, regions)], label)
    wanted = np.where(np.isin(before, gone), 0, before).astype(np.float64)
    wanted.ravel()[pixel] = n_old + 1 + owner
    assert np.array_equal(np.append(0, after.seeds.height)[label], wanted)
    assert np.array_equal(after.pixels, np.flatnonzero(label))
    assert (np.diff(after.seeds.row_px * 12 + after.seeds.col_px) > 0).all()


# --- grains that have grown together

HEAP_MM = ((38.0, 24.0), (38.0, 24.55), (38.5, 24.8), (38.5, 25.35))
"""Middles of four grains of 0.5 mm that touch."""


def marks_on(spot: Callable[[tuple[int, int]], Floats], seed: int, spacing_mm: float) -> tuple[Marks, NDArray[np.intp]]:
    """Return the marks of what lies about (38.4, 24.4) mm on tissue, and which of them lie there."""
    pixels = tissue(seed=seed, spacing_mm=spacing_mm)
    _, _, marks = marks_of(pixels + spot(pixels.shape), spacing_mm)
    place_mm = np.stack([marks.seeds.row_px, marks.seeds.col_px], axis=1) * spacing_mm
    return marks, np.flatnonzero(np.hypot(*(place_mm - [38.4, 24.4]).T) < 1.2)


def heap_marks(heights: Sequence[float], *, seed: int, spacing_mm: float) -> tuple[Marks, NDArray[np.intp]]:
    """Return the marks of a heap of grains, and which of them lie on it."""

    def heap(shape: tuple[int, int]) -> Floats:
        grains = (h * disc(shape, place, 0.5, spacing_mm) for h, place in zip(heights, HEAP_MM, strict=True))
        return np.asarray(np.maximum.reduce(list(grains)), np.float64)

    return marks_on(heap, seed, spacing_mm)


@pytest.mark.parametrize("heights", [(150, 150, 150, 150), (260, 200, 260, 200)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_grains_that_touch_are_told_apart(seed: int, heights: Sequence[float]) -> None:
    spacing_mm = 0.05
    marks, on_heap = heap_marks(heights, seed=seed, spacing_mm=spacing_mm)
    check(marks)
    assert len(on_heap) == len(HEAP_MM)
    place_mm = np.stack([marks.seeds.row_px, marks.seeds.col_px], axis=1)[on_heap] * spacing_mm
    away = np.hypot(*(place_mm[:, None] - np.array(HEAP_MM)).transpose(2, 0, 1))
    assert sorted(away.argmin(axis=1)) == list(range(len(HEAP_MM)))
    assert away.min(axis=1).max() < 0.2
    area_mm2 = spacing_mm**2 * np.bincount(marks.labels.ravel())[1:][on_heap]
    assert 2 * np.sqrt(area_mm2 / np.pi) == pytest.approx(np.full(len(HEAP_MM), 0.5), rel=0.25)


def parted_hills(*, n_rows: int = 200, flipped: bool = False) -> tuple[StepImage, Regions]:
    """Return a picture of two hills that touch, from left to right 1000 and 600 high, and them as grains.

    They are cut from a region that has so many rows at most.
    """
    image = np.zeros((200, 200), np.int16)
    rows, cols = np.indices(image.shape)
    for col, height in ((95, 1000), (103, 600)):
        hill = height * np.exp(-((rows - 100) ** 2 + (cols - col) ** 2) / (2 * 2.5**2))
        image = np.maximum(image, np.rint(hill)).astype(np.int16)
    places = np.array([95.0, 103.0])
    if flipped:
        image, places = np.ascontiguousarray(image[:, ::-1]), 199 - places
    peaks = Seeds.blank(2, row_px=[100.0] * 2, col_px=places, response_sigma=[9.0] * 2, top=[1000.0, 600.0])
    whole = Seeds.blank(
        1, row_px=[100.0], col_px=places[:1], height=[400.0], threshold=[200.0], tilt_row=[0.0], tilt_col=[0.0]
    )
    inside = (image > 200) & (np.abs(rows - 100) <= n_rows // 2)
    pixel, canvas = np.flatnonzero(inside).astype(np.int32), np.zeros(image.shape, np.uint16)
    regions = Regions(whole, np.zeros(len(pixel), np.int32), pixel)
    parted = grains.part_grains(regions, peaks, bare_detail(image), canvas)
    assert not canvas.any()
    return image, parted


def test_pixels_of_a_grain_are_over_half_of_its_own_height(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grains, "MOST_SOLID", 2.0)
    image, parted = parted_hills()
    assert parted.seeds.col_px.tolist() == [95.0, 103.0]
    cols = np.indices(image.shape)[1]
    for number, (half, is_side) in enumerate(((500, cols < 100), (300, cols >= 100))):
        assert np.array_equal(parted.pixel[parted.owner == number], np.flatnonzero((image > half) & is_side))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(("reach_px", "n_found"), [(4, 1), (5, 2)])
def test_what_reaches_far_beyond_its_peaks_is_no_heap(
    reach_px: int, n_found: int, flipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The higher hill ends 4 pixels outside its peak, the lower one 3, both 3 above and below."""
    monkeypatch.setattr(grains, "MOST_SOLID", 2.0)
    monkeypatch.setattr(grains, "REACH_MM", reach_px * 0.1)
    assert len(parted_hills(n_rows=7, flipped=flipped)[1].seeds) == n_found


@pytest.mark.parametrize("spacing_mm", [0.05, 0.07, 0.1, 0.2])
def test_of_a_heap_more_is_seen_than_one_thing(spacing_mm: float, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = [len(heap_marks([300] * 4, seed=seed, spacing_mm=spacing_mm)[1]) for seed in (1, 2, 3)]
    monkeypatch.setattr(grains, "DEPTH_SHARE", 2.0)
    together = [len(heap_marks([300] * 4, seed=seed, spacing_mm=spacing_mm)[1]) for seed in (1, 2, 3)]
    assert np.greater(apart, together).all(), (apart, together)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_round_spot_with_a_furrow_is_one_thing(seed: int) -> None:
    def furrowed(shape: tuple[int, int]) -> Floats:
        col_mm = (np.arange(shape[1]) + 0.5) * 0.05
        furrow = 1 - 0.45 * np.exp(-((col_mm - 24.4) ** 2) / (2 * 0.12**2))
        return np.asarray(300 * disc(shape, (38.4, 24.4), 1.6, 0.05) * furrow, np.float64)

    assert len(marks_on(furrowed, seed, 0.05)[1]) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bent_bar_uneven_by_noise_alone_is_one_thing(seed: int) -> None:
    def bar(shape: tuple[int, int]) -> Floats:
        path = [(37.8 + 0.1 * step, 23.9) for step in range(13)] + [(39.0, 23.9 + 0.1 * step) for step in range(11)]
        return np.asarray(80 * np.maximum.reduce([disc(shape, place, 0.4, 0.05) for place in path]), np.float64)

    assert len(marks_on(bar, seed, 0.05)[1]) == 1


@pytest.mark.parametrize(("least_sight", "n_found"), [(grains.LEAST_SIGHT, 1), (0.0, 2)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_broken_wall_of_a_rim_is_one_thing(
    seed: int, least_sight: float, n_found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bright on two sides and open between: what tells it from grains is that these do not see one another."""
    monkeypatch.setattr(grains, "LEAST_SIGHT", least_sight)

    def wall(shape: tuple[int, int]) -> Floats:
        turns = np.arange(-2.5, 2.5, 0.1)
        places = [(38.4 + 0.75 * np.sin(turn), 24.4 + 0.75 * np.cos(turn)) for turn in turns]
        heights = 240 + 60 * np.cos(2 * (turns - 0.5 * np.pi))
        return np.asarray(
            np.maximum.reduce([h * disc(shape, p, 0.35, 0.05) for h, p in zip(heights, places, strict=True)])
        )

    assert len(marks_on(wall, seed, 0.05)[1]) == n_found


@pytest.mark.parametrize("height", [0, 400])
def test_the_shoulder_of_a_steep_skin_line_is_no_speck_and_one_on_it_is(height: float) -> None:
    """Of some 23 peaks along it two or three remain on average, which stand out from the tissue as well."""
    n_on_skin, n_found, n_images = 0, 0, 24
    for seed in range(n_images):
        pixels = tissue(seed=seed, noise=4.0)
        rows, cols = np.indices(pixels.shape) * 0.1
        # the skin runs aslant, so that its pixels are steps
        pixels[rows + 0.3 * cols > 66.0] = 100
        pixels = ndimage.gaussian_filter(pixels, 0.7) + height * disc(pixels.shape, (59.3, 20.0), 0.3)
        seeds = marks_of(pixels)[2].seeds
        is_speck = np.hypot(seeds.row_px - 592.5, seeds.col_px - 199.5) < 3
        from_skin_mm = (66.0 - 0.1 * seeds.row_px - 0.03 * seeds.col_px) / np.hypot(1, 0.3)
        # but where the skin meets the image's border
        on_skin = (np.abs(from_skin_mm) < 1.0) & (seeds.col_px > 10)
        n_on_skin += int(np.count_nonzero(on_skin & ~is_speck))
        n_found += int(is_speck.any())
    assert n_on_skin <= 3 * n_images
    assert n_found == (n_images if height else 0)


@pytest.mark.parametrize("n_ways", [1, 16])
def test_rays_are_read_between_the_pixels(n_ways: int) -> None:
    rng = np.random.default_rng(1)
    level = Level(rng.integers(0, 20000, (60, 50)).astype(np.int16), np.zeros((60, 50), np.int16), 2, (100.5, 30.5))
    row_px, col_px = rng.uniform(130, 190, 7), rng.uniform(50, 110, 7)
    away_px = rng.uniform(0, 20, (3, n_ways, 7))
    angle = np.arange(16)[:, None] * np.pi / 8
    expected = level.sample(row_px + away_px * np.sin(angle), col_px + away_px * np.cos(angle))
    np.testing.assert_allclose(sample_rays(level, row_px, col_px, away_px), expected, atol=2)


def test_rays_are_smoothed_with_their_neighbours_on_a_circle() -> None:
    values = np.random.default_rng(1).normal(0, 1, (3, 16, 4)).astype(np.float32)
    expected = (values + np.roll(values, 1, axis=1) + np.roll(values, -1, axis=1)) / 3
    np.testing.assert_allclose(smoothed_around(values), expected, atol=1e-6)


def test_a_region_is_open_where_the_cells_around_it_are_full() -> None:
    full = np.array([True, True, False, True, False, False, False])
    owner = np.array([0, 0, 0, 1, 1, 1, 2], np.int32)
    # two of three, one of three, none of one, none of none
    assert _is_closed(full, owner, 4).tolist() == [False, True, True, True]


def test_what_is_over_its_threshold_all_around_its_cells_is_left_out() -> None:
    image = np.zeros((200, 200), np.int16)
    # of a block of three by three cells the middle is full, of the eight around so many have so many pixels over
    for col, n_cells, n_pixels in ((10, 8, 16), (20, 4, 15), (30, 8, 14), (40, 3, 16)):
        image[100:104, 4 * col : 4 * col + 4] = 100
        around = [(r, c) for r in (24, 25, 26) for c in (col - 1, col, col + 1) if (r, c) != (25, col)]
        for row, other in around[:n_cells]:
            cell = np.zeros(16, np.int16)
            cell[:n_pixels] = 100
            image[4 * row : 4 * row + 4, 4 * other : 4 * other + 4] = cell.reshape(4, 4)
    detail = bare_detail(image)
    coarse = Level(image[::4, ::4].copy(), image[::4, ::4].copy(), 4, (1.5, 1.5))
    places = np.array([10, 20, 30, 40])
    seeds = Seeds.blank(4, row_px=np.full(4, 101.5), col_px=4 * places + 1.5, threshold=np.full(4, 50.0))
    seeds = seeds.replace(tilt_row=np.zeros(4), tilt_col=np.zeros(4), scale_mm=np.full(4, 0.2))
    inside = np.zeros((4, 7, 7), np.bool_)
    inside[:, 3, 3] = True
    grown = Grown(coarse, seeds, Windows.around(coarse, seeds, 3), inside)
    regions = _on_pixels(dataclasses.replace(detail, levels=(detail.levels[0], coarse)), [grown])
    assert regions.seeds.col_px.tolist() == [121.5, 161.5]
    areas = np.array([16 + 8 * 14, 16 + 3 * 16])
    assert np.bincount(regions.owner).tolist() == areas.tolist()
    assert (image.ravel()[regions.pixel] == 100).all()
    # what the band saw must have more than a small part of the area of its disc
    for share, n_left in ((0.14, 0), (0.16, 1)):
        scale_mm = np.sqrt(areas[0] * 0.1**2 / (2 * np.pi * share))
        wide = Grown(coarse, seeds.replace(scale_mm=np.full(4, scale_mm)), grown.windows, inside)
        assert len(_on_pixels(dataclasses.replace(detail, levels=(detail.levels[0], coarse)), [wide]).seeds) == n_left


@pytest.mark.parametrize(("n_taken", "n_marks"), [(4, 2), (6, 1)])
def test_what_stronger_ones_leave_little_of_is_no_mark(
    n_taken: int, n_marks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows of ten pixels, of which the weaker one, whose peak is free, shares so many with the stronger one."""
    monkeypatch.setattr("detector.detect.overlaps._rank", lambda *_: np.array([2, 1]))
    image = np.zeros((64, 64), np.int16)
    seeds = Seeds.blank(2, row_px=[10.0, 10.0], col_px=[22.0, 39.0 - n_taken], scale_mm=[0.1, 0.1])
    first = np.array([20, 30 - n_taken])
    pixel = (10 * 64 + first[:, None] + np.arange(10)).ravel().astype(np.int32)
    canvas = np.zeros(image.shape, np.uint16)
    left = resolve_overlaps(Regions(seeds, np.repeat([0, 1], 10).astype(np.int32), pixel), bare_detail(image), canvas)
    assert len(left.seeds) == n_marks and not canvas.any()
    assert np.bincount(left.owner).tolist() == [10, 10 - n_taken][:n_marks]
    marks = as_marks(left, bare_detail(image), canvas)
    assert np.bincount(marks.labels.ravel())[1:].tolist() == [10, 10 - n_taken][:n_marks]
    assert np.array_equal(np.flatnonzero(canvas), marks.pixels)


def test_what_a_hem_has_displaced_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has little left beside the first, and covered the third, which stays in its stead."""
    monkeypatch.setattr("detector.detect.overlaps._rank", lambda *_: np.array([3, 2, 1]))
    seeds = Seeds.blank(3, row_px=[10.0] * 3, col_px=[20.0, 32.0, 34.0], scale_mm=[0.1] * 3)
    columns = (np.arange(20, 30), np.arange(22, 36), np.arange(33, 37))
    owner = np.repeat(np.arange(3), [len(one) for one in columns]).astype(np.int32)
    pixel = (10 * 64 + np.concatenate(columns)).astype(np.int32)
    canvas = np.zeros((64, 64), np.uint16)
    left = resolve_overlaps(Regions(seeds, owner, pixel), bare_detail(np.zeros((64, 64), np.int16)), canvas)
    assert left.seeds.col_px.tolist() == [20.0, 34.0]
    assert np.bincount(left.owner).tolist() == [10, 4]
    assert not canvas.any()


def test_regions_of_chosen_seeds_keep_their_pixels() -> None:
    seeds = Seeds.blank(4, row_px=np.arange(4.0), col_px=np.arange(4.0))
    owner = np.array([0, 1, 1, 2, 3, 3], np.int32)
    regions = Regions(seeds, owner, np.arange(6, dtype=np.int32)).only(np.array([False, True, False, True]))
    assert regions.seeds.row_px.tolist() == [1.0, 3.0]
    assert regions.owner.tolist() == [0, 0, 1, 1]
    assert regions.pixel.tolist() == [1, 2, 4, 5]


def test_a_disc_keeps_its_step_and_a_lump_has_none() -> None:
    pixels = tissue(noise=1.0)
    rows, cols = np.indices(pixels.shape) * 0.1
    soft = 150 * np.exp(-((rows - 20.0) ** 2 + (cols - 24.0) ** 2) / (2 * 0.6**2))
    mammogram, detail, marks = marks_of(pixels + soft + 150 * disc(pixels.shape, (50.0, 24.0), 2.0), edge_share=0.1)
    seeds = marks.seeds
    share = seeds.edge / seeds.height
    sharp = label_at(marks, 499.5, 239.5) - 1
    lump = np.flatnonzero(
        (np.hypot(seeds.row_px * 0.1 - 20.0, seeds.col_px * 0.1 - 24.0) < 0.5) & (seeds.scale_mm > 0.4)
    )
    assert sharp >= 0 and share[sharp] > SETTINGS.detect.edge_share
    assert len(lump) and share[lump].max() < 0.35
    # those of discs are read where their rim was found
    discs = discs_in(detail, find_breast(mammogram, SETTINGS.breast)).seeds
    coarse = (seeds.scale_mm >= SETTINGS.detect.coarse_scale_mm) & ~np.isin(seeds.edge, discs.edge)
    np.testing.assert_allclose(edge_steps(detail, seeds)[coarse], seeds.edge[coarse])
    assert coarse.any() and len(discs)


def test_height_of_a_disc_is_its_contrast_on_a_slope_too() -> None:
    rows, cols = np.indices((768, 576))
    for slope in (0.0, 1.0):
        pixels = tissue(noise=1.0) + 150 * disc((768, 576), (38.4, 24.0), 1.5)
        pixels[64:-64, :-64] += (slope * (rows - 384) + slope * (cols - 240))[64:-64, :-64]
        _, detail, marks = marks_of(pixels)
        label = label_at(marks, 383.5, 239.5)
        assert marks.seeds.height[label - 1] * detail.steps.size == pytest.approx(150, rel=0.1)
        assert 2 * np.sqrt((marks.labels == label).sum() * 0.01 / np.pi) == pytest.approx(1.5, rel=0.07)


# --- the record


def check(marks: Marks) -> None:
    """Check what the next room relies on."""
    seeds, labels = marks.seeds, marks.labels
    n = len(seeds)
    assert labels.shape == (0, 0) or not (labels[[0, -1]].any() or labels[:, [0, -1]].any())
    assert np.array_equal(np.flatnonzero(labels), marks.pixels)
    assert np.array_equal(np.unique(labels[labels > 0]), np.arange(1, n + 1))
    order = np.lexsort((seeds.col_px, seeds.row_px))
    assert np.array_equal(order, np.arange(n))
    assert (seeds.height > 0).all()
    for column in Seeds.columns():
        # how sharply fine ones end is read along their outlines
        asked = seeds.scale_mm >= SETTINGS.detect.coarse_scale_mm if column.name == "edge" else slice(None)
        assert np.isfinite(getattr(seeds, column.name)[asked]).all(), column.name
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        assert ndimage.label(labels[where] == label, np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_labels_are_rows_and_whole(seed: int) -> None:
    marks = rooms_of(seed, small(*GROUPS)).marks
    assert len(marks.seeds) > 50
    check(marks)


@pytest.mark.parametrize("name", ["checks", "quantised", "saturated", "small", "salt"])
def test_labels_are_rows_on_odd_pictures_too(name: str) -> None:
    mammogram, _ = phantom(1, small(*GROUPS))
    pixels = mammogram.pixels
    picture: Any = {
        "checks": pixels + 50 * (np.indices(pixels.shape).sum(axis=0) % 2),
        "quantised": np.round(pixels / 100) * 100,
        "saturated": np.minimum(pixels, np.percentile(pixels, 80)),
        "small": pixels[200:500, 20:300],
        "salt": pixels + 300 * (np.random.default_rng(1).random(pixels.shape) < 0.01),
    }[name]
    check(through_rooms(like(mammogram, picture)).marks)


def test_seeds_lie_on_their_own_pixels() -> None:
    marks = rooms_of(1, small(*GROUPS)).marks
    labels = [label_at(marks, r, c) for r, c in zip(marks.seeds.row_px, marks.seeds.col_px, strict=True)]
    assert labels == list(range(1, len(marks.seeds) + 1))


def test_nothing_is_found_where_nothing_is() -> None:
    _, _, marks = marks_of(np.zeros((400, 400)))
    assert len(marks.seeds) == marks.labels.size == 0
    _, _, quiet = marks_of(tissue(), threshold_sigma=50.0, supported_sigma=50.0, large_threshold_sigma=100.0)
    assert len(quiet.seeds) == 0 and not quiet.labels.any()


def test_thresholds_are_in_noise_units() -> None:
    pixels = tissue()
    few, many = (len(marks_of(pixels, threshold_sigma=t)[2].seeds) for t in (5.0, 3.5))
    assert few < many
    # but for rounding, which decides ties
    assert len(marks_of(pixels * 7.0, threshold_sigma=3.5)[2].seeds) == pytest.approx(many, abs=2)


def test_defaults_propose_few_candidates_on_plain_noise() -> None:
    mammogram, _, marks = marks_of(tissue())
    area_cm2 = find_breast(mammogram, SETTINGS.breast).area_cm2
    assert len(marks.seeds) / area_cm2 < 40
    assert isinstance(SETTINGS.detect, DetectSettings)
