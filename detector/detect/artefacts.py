"""Peaks that are no spots: strands, corners and shoulders of what is exposed, and lines that a scanner has drawn."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.detect.borders import COSINE, SINE
from detector.detect.levels import by_level, coarsest_level, line_sigma
from detector.detect.windows import RING_SCALES
from detector.records import BoolImage, BreastRegion, Detail, FloatImage, Level, Peaks, Seeds, StepImage, Zone
from detector.settings import DetectSettings

MOST_OUTSIDE = 5
"""Places of sixteen on a blob's rim outside the breast that make it a corner: a straight border has four."""

BESIDE_RADII, OWN_SHARE = 1.3, 0.5
"""Distance by the blob's radius at which it is compared with what lies beside it; and the share of its height over what
is outside the breast that it has over the breast, from which it is an object of its own."""

BESIDE_MM = 1.0
"""Distance from the breast's border within which fine peaks are compared with the breast beside them: two cells of the
zone map."""

SCAN_LINE_MM, SCAN_LINE_BLOCKS, SCAN_LINE_MISSING = 20.0, 10, 1
"""Length from which a line along a row or column of pixels is one that scanner or detector has drawn, blocks that it is
looked at in, and how many of these may be missing: nothing grows so straight, nor along the pixels."""

SCAN_LINE_CELL_MM, SCAN_LINE_APART_MM, SCAN_LINE_BESIDE_MM = 0.201, 0.4, 0.6
"""Largest cells that show such a line, the distance at which rows are compared, and that from each row that differs,
those beside the line among them, within which peaks are the line's own, as far as fine blobs reach."""

SCAN_LINE_AROUND_MM = (0.6, 0.8, 1.0)
"""Distances, beyond fine blobs, at which a peak on such a line is compared with what is around it: the line's own stand
out along it by noise alone, and those of a strand that crosses it do not along the strand."""

SCAN_LINE_NOISE = 3.0
"""Step of a block, in noise units of a pixel, from which it differs. A choice: the mean of a block of 2 mm scatters by
a third of a unit, and where skin or a strand happens to run along the pixels its step seldom comes to two."""

COARSE_SIGMA = 5.0
"""Height, in noise units of a pixel, that a coarse peak must have over half of its surroundings. A choice:
macrocalcifications stand out by more, many a lump of tissue does not."""

SPARED_SIGMA = 1.7
"""Mean response along a line through a peak from which it is no mere grain: on white noise peaks come to 0.7 to 0.8 in
their best direction, with a standard deviation of 0.16, at pixels of 0.05 to 0.1 mm."""

Floats = NDArray[np.float64]


def is_drawn(peaks: Peaks, detail: Detail, settings: DetectSettings) -> BoolImage:
    """Return which peaks are of a line along a row or column of pixels, that is drawn and not grown.

    A row is compared with those `SCAN_LINE_APART_MM` to both sides, block by block along it: where nearly all blocks of
    `SCAN_LINE_MM` differ by more than noise makes them, there is a line. What stands out from its surroundings all
    around is not the line's own.

    Parameters
    ----------
    peaks : Peaks
    detail : Detail
    settings : DetectSettings

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    level = coarsest_level(detail, SCAN_LINE_CELL_MM)
    cell_mm = level.step_px * detail.pixel_mm
    along = max(1, round(SCAN_LINE_MM / SCAN_LINE_BLOCKS / cell_mm))
    is_own = np.zeros(len(peaks), np.bool_)
    if min(level.image.shape) < along:
        return is_own
    noise = detail.noise.at_least(detail.darkest).astype(np.float32)
    places = [level.to_cells(place, axis).astype(np.intp) for axis, place in enumerate((peaks.row_px, peaks.col_px))]
    for axis, blocks in enumerate(_in_blocks(level.image, along)):
        least = cv2.resize((noise, noise.T)[axis], blocks.shape[::-1], interpolation=cv2.INTER_NEAREST)
        drawn = _drawn(blocks, np.asarray(least, np.float32), cell_mm)
        on_line = np.flatnonzero(drawn[places[axis], np.minimum(places[1 - axis] // along, drawn.shape[1] - 1)])
        is_own[on_line] |= ~_stands_out(peaks[on_line], detail, settings)
    return is_own


def _stands_out(peaks: Peaks, detail: Detail, settings: DetectSettings) -> BoolImage:
    """Return which peaks stand out from what is around them, both ways in each of eight directions."""
    image, half = detail.levels[0], len(SINE) // 2
    around = np.full(len(peaks), -np.inf)
    for away_mm in SCAN_LINE_AROUND_MM:
        grey = image.sample(*_around_px(peaks, away_mm / detail.pixel_mm)).astype(np.float64)
        around = np.maximum(around, 0.5 * (grey[:, :half] + grey[:, half:]).max(axis=1))
    height = image.sample(peaks.row_px, peaks.col_px) - around
    return np.asarray(height >= settings.support_sigma * detail.noise_at(peaks.row_px, peaks.col_px), np.bool_)


def _in_blocks(image: StepImage, along: int) -> tuple[FloatImage, FloatImage]:
    """Return the means of blocks of an image's rows, row by row, and those of its columns, column by column."""
    rows, cols = (n // along for n in image.shape)
    by_row = cv2.resize(image[:, : cols * along], (cols, len(image)), interpolation=cv2.INTER_AREA)
    by_col = image[: rows * along].reshape(rows, along, -1).sum(axis=1, dtype=np.int32) / np.float32(along)
    return np.asarray(by_row, np.float32), np.asarray(by_col.T, np.float32, order="C")


def _drawn(blocks: FloatImage, noise: FloatImage, cell_mm: float) -> BoolImage:
    """Return which blocks of rows lie on or beside a line along a row, given the least noise of a pixel in each."""
    apart, beside = (max(1, round(size_mm / cell_mm)) for size_mm in (SCAN_LINE_APART_MM, SCAN_LINE_BESIDE_MM))
    step = np.zeros_like(blocks)
    step[apart:-apart] = blocks[apart:-apart] - 0.5 * (blocks[2 * apart :] + blocks[: -2 * apart])
    step /= noise
    differs = np.abs(step) > SCAN_LINE_NOISE
    count = cv2.boxFilter(differs.view(np.uint8), -1, (SCAN_LINE_BLOCKS, 1), None, (0, 0), False, cv2.BORDER_CONSTANT)
    starts = (count >= SCAN_LINE_BLOCKS - SCAN_LINE_MISSING).view(np.uint8)
    reach = np.ones((2 * beside + 1, SCAN_LINE_BLOCKS), np.uint8)
    return cv2.dilate(starts, reach, anchor=(SCAN_LINE_BLOCKS - 1, beside)).astype(np.bool_)


def is_corner(peaks: Peaks, detail: Detail, breast: BreastRegion, settings: DetectSettings) -> BoolImage:
    """Return which coarse peaks are corners of what is exposed: their blob's rim leaves the breast or is a film's edge.

    What stands out from the breast as well as from what is outside is none: a metal bead on the skin. Where the image
    itself ends nothing is known of the rim.

    Parameters
    ----------
    peaks : Peaks
    detail : Detail
    breast : BreastRegion
    settings : DetectSettings

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    corner = peaks.scale_mm >= settings.coarse_scale_mm
    coarse = np.flatnonzero(corner)
    outside = _is_outside(breast, *_rim_px(peaks[coarse], 1.0, detail.pixel_mm))
    corner[coarse] = np.count_nonzero(outside, axis=1) >= MOST_OUTSIDE
    leaving = np.flatnonzero(corner)
    corner[leaving] = ~_stands_alone(peaks[leaving], detail, breast)
    return corner


def is_shoulder(seeds: Seeds, detail: Detail, breast: BreastRegion, settings: DetectSettings) -> BoolImage:
    """Return which fine peaks beside the breast's border do not stand out from the breast.

    Where the grey level falls steeply to the background, all pixels of the skin's rim are brighter than around them.

    Parameters
    ----------
    seeds : Seeds
    detail : Detail
    breast : BreastRegion
    settings : DetectSettings

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    shoulder = seeds.scale_mm < settings.coarse_scale_mm
    shoulder &= breast.skin_distance_mm[breast.cells(seeds.row_px, seeds.col_px)] <= BESIDE_MM
    fine = seeds[shoulder]
    beside_px = _around_px(fine, BESIDE_MM / detail.pixel_mm)
    outside = _is_outside(breast, *beside_px)
    over_breast, _ = _heights(fine, beside_px, outside, detail)
    standing = over_breast >= settings.supported_sigma * fine.noise
    shoulder[shoulder] = (np.count_nonzero(outside, axis=1) >= MOST_OUTSIDE) & ~standing
    return shoulder


def is_strand(seeds: Seeds, detail: Detail, settings: DetectSettings) -> BoolImage:
    """Return which peaks stand out from too few of their surroundings: pieces of strands, and coarse lumps.

    Along itself a strand is as bright as its peaks are. So a fine peak is compared with both sides in its weakest
    direction of eight, on the inner ring that its height is read on: it needs the less response, the more it stands out
    there. With the response R and that contrast C, both in noise units, R**2 * (C + sqrt(C**2 + 1)) must reach the
    square of `strand_sigma`: for `strand_sigma` of 6 a response of 6.0 where C is 0, 3.9 where it is 1, 2.9 where it is
    2. On a thin line of calcium, such as the wall of a vessel, it needs none of it, if the line responds by
    `SPARED_SIGMA`. A coarse peak needs `COARSE_SIGMA` in half of the directions.

    Parameters
    ----------
    seeds : Seeds
        With their tops and noise.
    detail : Detail
    settings : DetectSettings

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    contrast = _contrasts(seeds, detail) / seeds.noise
    n_half = len(contrast) // 2
    weakest = 0.5 * np.minimum.reduce(contrast[:n_half] + contrast[n_half:])
    coarse = seeds.scale_mm >= settings.coarse_scale_mm
    strand = ~coarse & (seeds.response_sigma**2 * np.exp(np.arcsinh(weakest)) < settings.strand_sigma**2)
    asked = np.flatnonzero(strand)
    strand[asked] = line_sigma(detail, seeds[asked]) < SPARED_SIGMA
    lump = np.count_nonzero(contrast >= COARSE_SIGMA, axis=0) < n_half
    return np.asarray(strand | (coarse & lump), np.bool_)


def _contrasts(seeds: Seeds, detail: Detail) -> Floats:
    """Return the height of each peak over the inner ring around it, both less background, shape (16, n)."""
    contrast = np.empty((len(SINE), len(seeds)))
    for _, level, rows in by_level(detail, seeds.level):
        away = RING_SCALES[0] * seeds.scale_mm[rows] / detail.pixel_mm / level.step_px
        row, col = (
            np.rint(level.to_cells(place[rows], axis)) for axis, place in enumerate((seeds.row_px, seeds.col_px))
        )
        around = _cells(level, row + away * SINE[:, None], col + away * COSINE[:, None])
        image, tophat, own = level.image.ravel(), level.tophat.ravel(), _cells(level, row, col)
        contrast[:, rows] = seeds.top[rows] - (image[own] - tophat[own]) - tophat[around]
    return contrast


def _cells(level: Level, row: Floats, col: Floats) -> NDArray[np.int64]:
    """Return the flat index of the cell at places in cells, of what is outside that of the nearest."""
    rows, cols = level.image.shape
    cell_row, cell_col = (np.clip(np.rint(place), 0, n - 1).astype(np.int64) for place, n in ((row, rows), (col, cols)))
    return np.asarray(cell_row * cols + cell_col, np.int64)


def _rim_px(peaks: Peaks, radii: float, pixel_mm: float) -> tuple[Floats, Floats]:
    """Return rows and columns in sixteen directions around each blob, at a distance in its radii, shape (n, 16)."""
    return _around_px(peaks, radii * math.sqrt(2) * peaks.scale_mm[:, None] / pixel_mm)


def _around_px(peaks: Peaks, away_px: Floats | float) -> tuple[Floats, Floats]:
    """Return rows and columns in sixteen directions around each peak, shape (n, 16)."""
    return peaks.row_px[:, None] + away_px * SINE, peaks.col_px[:, None] + away_px * COSINE


def _is_outside(breast: BreastRegion, row_px: Floats, col_px: Floats) -> BoolImage:
    """Return which places are no breast, or a film's edge."""
    zones = breast.zones[breast.cells(row_px, col_px)]
    return np.asarray((zones & (Zone.BREAST | Zone.EDGE)) != Zone.BREAST, np.bool_)


def _stands_alone(peaks: Peaks, detail: Detail, breast: BreastRegion) -> BoolImage:
    """Return which blobs stand out from the breast by `OWN_SHARE` as much as from what is outside."""
    beside_px = _rim_px(peaks, BESIDE_RADII, detail.pixel_mm)
    over_breast, over_outside = _heights(peaks, beside_px, _is_outside(breast, *beside_px), detail)
    return np.asarray(over_breast >= OWN_SHARE * over_outside, np.bool_)


def _heights(
    peaks: Peaks, beside_px: tuple[Floats, Floats], outside: BoolImage, detail: Detail
) -> tuple[Floats, Floats]:
    """Return the mean heights of peaks over the places beside them in the breast, and over those outside."""
    image = detail.levels[0]
    height = image.sample(peaks.row_px, peaks.col_px)[:, None] - image.sample(*beside_px).astype(np.float64)
    over_breast, over_outside = (
        (height * part).sum(axis=1) / np.maximum(np.count_nonzero(part, axis=1), 1) for part in (~outside, outside)
    )
    return over_breast, over_outside
