"""Peaks of the blob responses: the places of candidates."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.detect.artefacts import is_corner, is_drawn, is_shoulder, is_strand
from detector.detect.levels import border_px, coarsest_levels, from_border_px, whole_steps, with_tops
from detector.records import (
    STRIP_ROWS,
    BoolImage,
    BreastRegion,
    Detail,
    FloatImage,
    Level,
    Peaks,
    Seeds,
    StepImage,
    Where,
    divided,
    ranges,
)
from detector.settings import DetectSettings

DISC_SCALES_MM, DISC_SIGMA = (0.4, 1.4), 1.0
"""Scales of the bands that discs of 1 to 4 mm answer to, and the least response of what is looked at: beside dense
tissue it is no more than noise, and the rim decides."""

MARGIN_MM = 1.5
"""How far outside the breast the middle of a disc may lie that reaches into it: the radius of large beads."""

HIDING_SCALE_MM = 0.8
"""Scale over which spots raise the noise that they are measured by: they fill a tenth of its window."""

ECHO_SCALES = 1.2
"""Distance within which peaks of neighbouring bands are of one spot, in scales: less than the blob's radius."""

CELL_SHARE = 0.3
"""Least side of the cells that pairs are sought in, by the mean distance of the places: a choice between many cells and
many to compare, on which nothing that is found hangs."""

FEWEST_IN_CELL = 4
"""Places along the side of a noise cell from which maxima are told from noise cell by cell: others are few."""

Floats = NDArray[np.float64]


def find_maxima(detail: Detail, breast: BreastRegion, settings: DetectSettings) -> Peaks:
    """Return the local maxima of all bands that candidates and discs are chosen from.

    Those just outside the breast are among them, since a bead on the skin may lie there with most of its area.

    Parameters
    ----------
    detail : Detail
    breast : BreastRegion
    settings : DetectSettings

    Returns
    -------
    Peaks
        Band after band.
    """
    bands, reach = detail.bands, 2 * math.ceil(MARGIN_MM / (breast.step_px * detail.pixel_mm)) + 1
    scale_mm = np.array([band.scale_mm for band in bands])
    least = _least_sigma(scale_mm, settings)
    least = np.where(_is_disc_scale(scale_mm), np.minimum(least, DISC_SIGMA), least)
    number, row_px, col_px, sigma = _over(detail, least)
    near = cv2.dilate(breast.is_searched.view(np.uint8), np.ones((reach, reach), np.uint8)).astype(np.bool_)
    searched = np.flatnonzero(near[breast.cells(row_px, col_px)])
    number, row_px, col_px = number[searched], row_px[searched], col_px[searched]
    between = np.flatnonzero(np.array([detail.levels[band.level].step_px > 1 for band in bands])[number])
    row_px[between], col_px[between] = _brightest_pixels(detail.levels[0], row_px[between], col_px[between])
    return Peaks(
        row_px=row_px,
        col_px=col_px,
        scale_mm=scale_mm[number],
        response_sigma=sigma[searched],
        # a blob is grown on the coarsest level that shows it with at least a cell a standard deviation
        level=coarsest_levels(detail, scale_mm)[number],
    )


def find_peaks(maxima: Peaks, detail: Detail, breast: BreastRegion, settings: DetectSettings) -> Seeds:
    """Return the maxima over the threshold, inside the breast and not along film edges.

    Parameters
    ----------
    maxima : Peaks
    detail : Detail
    breast : BreastRegion
    settings : DetectSettings

    Returns
    -------
    Seeds
        With their tops and noise, band after band; at most `max_candidates_per_cm2`, of which the strongest are kept.
    """
    peaks = maxima[maxima.response_sigma > _least_sigma(maxima.scale_mm, settings)]
    peaks = peaks[is_looked_at(peaks.row_px, peaks.col_px, breast, detail.image_shape, detail.pixel_mm)]
    peaks = peaks[~is_drawn(peaks, detail, settings)]
    fine = [peaks[peaks.scale_mm == band.scale_mm] for band in detail.bands if band.scale_mm < settings.coarse_scale_mm]
    coarse = peaks[peaks.scale_mm >= settings.coarse_scale_mm]
    peaks = Peaks.concatenate([_without_echoes(fine, detail.pixel_mm), coarse])
    seeds = _chosen(peaks, detail, settings)
    seeds = seeds[~is_corner(seeds, detail, breast, settings)]
    seeds = seeds[~is_shoulder(seeds, detail, breast, settings)]
    limit = int(settings.max_candidates_per_cm2 * breast.area_cm2)
    if len(seeds) > limit:
        seeds = seeds[np.sort(np.argsort(-seeds.response_sigma, kind="stable")[:limit])]
    return seeds


def is_looked_at(
    row_px: Floats, col_px: Floats, breast: BreastRegion, image_shape: tuple[int, ...], pixel_mm: float
) -> BoolImage:
    """Return at which places fine spots are looked for: in the breast, off film edges and the image's border.

    Parameters
    ----------
    row_px, col_px : ndarray of float64, shape (n,)
    breast : BreastRegion
    image_shape : tuple of int
    pixel_mm : float

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    is_inside = from_border_px(image_shape, row_px, col_px) >= border_px(pixel_mm)
    return np.asarray(is_inside & breast.is_searched[breast.cells(row_px, col_px)], np.bool_)


def disc_peaks(maxima: Peaks) -> Peaks:
    """Return the maxima of the bands that discs answer to, however faint."""
    return maxima[_is_disc_scale(maxima.scale_mm) & (maxima.response_sigma > DISC_SIGMA)]


def _is_disc_scale(scale_mm: Floats) -> BoolImage:
    least, most = DISC_SCALES_MM
    return np.asarray((scale_mm >= least) & (scale_mm <= most), np.bool_)


def _chosen(peaks: Peaks, detail: Detail, settings: DetectSettings) -> Seeds:
    """Return the peaks that are no strands, and stand on their own or have strong ones around.

    A faint speck alone is noise. What is a strand supports nothing, and what has no support need not be asked.
    """
    is_weak = (peaks.response_sigma < settings.threshold_sigma) & (peaks.scale_mm < settings.large_scale_mm)
    own, weak = np.flatnonzero(~is_weak), np.flatnonzero(is_weak)
    own, standing = _no_strands(peaks, own, detail, settings)
    strong = own[peaks.response_sigma[own] >= settings.support_sigma]
    weak, supported = _no_strands(
        peaks, weak[_is_supported(peaks, weak, strong, detail.pixel_mm, settings)], detail, settings
    )
    return Seeds.concatenate([standing, supported])[np.argsort(np.concatenate([own, weak]))]


def _no_strands(
    peaks: Peaks, rows: NDArray[np.intp], detail: Detail, settings: DetectSettings
) -> tuple[NDArray[np.intp], Seeds]:
    """Return those of some rows that are no strands, and their peaks as seeds."""
    chosen = with_tops(detail, peaks[rows])
    kept = np.flatnonzero(~is_strand(chosen, detail, settings))
    return rows[kept], chosen[kept]


def _is_supported(
    peaks: Peaks, weak: NDArray[np.intp], strong: NDArray[np.intp], pixel_mm: float, settings: DetectSettings
) -> BoolImage:
    """Return which of the weak peaks have enough strong ones around; the fainter half need one more."""
    places = np.stack([peaks.row_px, peaks.col_px]) * pixel_mm
    row, _, _ = pairs_within(places[:, weak], places[:, strong], settings.support_mm)
    fainter = peaks.response_sigma[weak] < 0.5 * (settings.supported_sigma + settings.threshold_sigma)
    return np.asarray(np.bincount(row, minlength=len(weak)) >= settings.support_count + fainter, np.bool_)


def _without_echoes(tables: list[Peaks], pixel_mm: float) -> Peaks:
    """Return the peaks of all bands without those that answer more weakly to what a neighbouring band has seen.

    Two peaks of neighbouring bands are of one spot if they are within `ECHO_SCALES` of the coarser scale; each looks at
    its nearest only. This holds for fine bands: within a large spot, peaks of a finer band are its grain.
    """
    alive = [np.ones(len(table), np.bool_) for table in tables]
    places = [np.stack([table.row_px, table.col_px]) for table in tables]
    for fine, coarse in itertools.pairwise(range(len(tables))):
        reach_px = ECHO_SCALES * tables[coarse].scale_mm.max(initial=0) / pixel_mm
        in_coarse, in_fine, square = pairs_within(places[coarse], places[fine], reach_px)
        for one, own, other, its in ((coarse, in_coarse, fine, in_fine), (fine, in_fine, coarse, in_coarse)):
            nearest, strongest = np.full(len(tables[one]), np.inf), np.zeros(len(tables[one]))
            np.minimum.at(nearest, own, square)
            # of equally near ones the strongest
            near = np.flatnonzero(square == nearest[own])
            np.maximum.at(strongest, own[near], tables[other].response_sigma[its[near]])
            alive[one] &= tables[one].response_sigma >= strongest
    return Peaks.concatenate([table[kept] for table, kept in zip(tables, alive, strict=True)])


def pairs_within(places: Floats, others: Floats, reach: float) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Return all pairs, one of each set, that are nearer to each other than a distance.

    They are sought in the cells around each place, which are as wide as the distance, or wider where the others lie far
    apart (`CELL_SHARE`); the slow equivalent is `scipy.spatial.cKDTree.sparse_distance_matrix`. Quickest with fewer
    places than others.

    Parameters
    ----------
    places : ndarray of float64, shape (2, n)
    others : ndarray of float64, shape (2, m)
    reach : float

    Returns
    -------
    row, other : ndarray of intp
        Which of the first and which of the second set.
    square : ndarray of float64
        Of their distance.
    """
    if not places.size or not others.size:
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0)
    extent = np.ptp(others, axis=1)
    side = max(
        reach, CELL_SHARE * float(np.sqrt(extent.prod() / others.shape[1])), float(extent.max()) / others.shape[1]
    )
    # one more on every side, so that all have neighbours
    cells = [np.floor(place / side).astype(np.intp) for place in (places, others)]
    least = np.minimum(*(cell.min(axis=1) for cell in cells)) - 1
    n_rows, n_cols = np.maximum(*(cell.max(axis=1) for cell in cells)) - least + 2
    key, other_key = ((row - least[0]) * n_cols + col - least[1] for row, col in cells)
    by_cell = np.argsort(other_key, kind="stable")
    start = np.append(0, np.cumsum(np.bincount(other_key, minlength=n_rows * n_cols)))
    three = key + n_cols * np.arange(-1, 2)[:, None]
    first, count = start[three - 1].ravel(), (start[three + 2] - start[three - 1]).ravel()
    row, other = np.repeat(np.tile(np.arange(len(key)), 3), count), by_cell[ranges(first, count)]
    square = sum((own[row] - its[other]) ** 2 for own, its in zip(places, others, strict=True))
    near = np.flatnonzero(square < reach**2)
    return row[near], other[near], square[near]


def _least_sigma(scale_mm: Floats, settings: DetectSettings) -> Floats:
    """Return the response that peaks of some scales must have."""
    # the larger a spot, the larger its part in the window that its own noise is measured in
    large = settings.large_threshold_sigma * np.sqrt(np.minimum(1.0, HIDING_SCALE_MM / scale_mm))
    return np.where(scale_mm < settings.large_scale_mm, settings.supported_sigma, large)


def _over(detail: Detail, least: Floats) -> tuple[NDArray[np.intp], Floats, Floats, Floats]:
    """Return the maxima over a response in noise units, one a band: number of the band, row and column in px, sigma.

    All bands' together, since each step has its price however few they are.
    """
    bands, found = detail.bands, list[NDArray[np.int32]]()
    for band, sigma in zip(bands, least.tolist(), strict=True):
        cell = detail.cell_px // detail.levels[band.level].step_px
        bound = sigma * band.noise.at_least(detail.darkest if cell >= FEWEST_IN_CELL else None)
        found.append(_maxima(band.response, bound, cell))
    number = np.repeat(np.arange(len(bands)), [len(place) for place in found])
    in_px = [_in_pixels(detail.levels[band.level], place) for band, place in zip(bands, found, strict=True)]
    row_px, col_px = (np.concatenate(places) for places in zip(*in_px, strict=True))
    where, ends = detail.where(row_px, col_px), np.cumsum([len(place) for place in found])
    rows = [slice(end - len(place), end) for place, end in zip(found, ends.tolist(), strict=True)]
    response_sigma = np.concatenate(
        [
            band.response.ravel().take(place) / band.noise.at(Where(where.grey[own], where.row[own], where.col[own]))
            for band, place, own in zip(bands, found, rows, strict=True)
        ]
    )
    over = np.flatnonzero(response_sigma > least[number])
    return number[over], row_px[over].astype(np.float64), col_px[over].astype(np.float64), response_sigma[over]


def _in_pixels(level: Level, place: NDArray[np.int32]) -> tuple[FloatImage, FloatImage]:
    """Return rows and columns in pixels of flat indices into a level.

    In single precision, which holds halves of pixels exactly: most of the places go at once.
    """
    row, col = divided(place, level.image.shape[1])
    row_px, col_px = (
        np.float32(start) + np.float32(level.step_px) * cell.astype(np.float32)
        for start, cell in zip(level.origin_px, (row, col), strict=True)
    )
    return row_px, col_px


def _maxima(response: StepImage, least: Floats, cell: int) -> NDArray[np.int32]:
    """Return flat indices of places over `least` that are no lower than their eight neighbours, rising.

    `least` is given for cells of `cell` places a side, or once for all. Strip after strip, so that all steps find their
    places in the processor's cache; the slow equivalent is `skimage.feature.peak_local_max`.
    """
    if least.size == 1:
        cell = max(response.shape)
    # whole numbers over it are no lower than the next one
    found, least_steps = [], whole_steps(least + 1)
    for start in range(0, len(response), STRIP_ROWS):
        strip = response[start : start + STRIP_ROWS]
        before = min(start, 1)
        around = response[start - before : start + STRIP_ROWS + 1]
        highest = cv2.dilate(around, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
        highest = highest[before : before + len(strip)]
        of_cells = least_steps[start // cell : (start + len(strip) - 1) // cell + 1].min(axis=0)
        np.maximum(highest, np.repeat(of_cells, cell)[: response.shape[1]], out=highest)
        # a mask is looked through several times as fast as by cv2.findNonZero
        found.append(np.flatnonzero(strip >= highest) + start * response.shape[1])
    return np.concatenate(found).astype(np.int32)


def _brightest_pixels(finest: Level, row_px: Floats, col_px: Floats) -> tuple[Floats, Floats]:
    """Return the brightest of the four pixels around places between pixels, where the cells of coarse levels lie.

    Rounding would take the left one of some and the right one of others, so that flips changed what is found.
    """
    row, col = finest.to_cells(row_px, 0), finest.to_cells(col_px, 1)
    rows = np.stack([np.floor(row), np.floor(row), np.ceil(row), np.ceil(row)]).astype(np.intp)
    cols = np.stack([np.floor(col), np.ceil(col), np.floor(col), np.ceil(col)]).astype(np.intp)
    best = finest.image.ravel().take(rows * finest.image.shape[1] + cols).argmax(axis=0)
    each = np.arange(len(row))
    return finest.origin_px[0] + rows[best, each], finest.origin_px[1] + cols[best, each]
