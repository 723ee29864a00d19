"""Peaks of the blob responses: the places of candidates."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from detector.detect.borders import COSINE, SINE
from detector.detect.regions import border_px, coarsest_levels
from detector.records import Band, BoolImage, BreastRegion, Detail, FloatImage, Level, Seeds, Zone
from detector.settings import DetectSettings

STRIP_ROWS = 64
"""Rows of a response that are looked through together: a megabyte of the largest images."""

MOST_OUTSIDE = 5
"""Places of sixteen on a blob's rim outside the breast that make it a corner: a straight border has four."""

BESIDE_RADII, OWN_SHARE = 1.3, 0.5
"""Distance by the blob's radius at which it is compared with what lies beside it; and the share of its height over what
is outside the breast that it has over the breast, from which it is an object of its own."""

BESIDE_MM = 1.0
"""Distance from the breast's border within which fine peaks are compared with the breast beside them: two cells of the
zone map."""

SCAN_LINE_MM, SCAN_LINE_GAP_MM, SCAN_LINE_WIDTH_MM = 20.0, 2.0, 0.2
"""Length of a chain of peaks along a row or column of pixels, widest gap in it and its width, from which it is a line
that scanner or detector has drawn: nothing grows so straight, nor along the pixels. By chance, with 40 peaks a cm2,
each of its ten links and more comes about in one of seven cases."""

DISC_SCALES_MM, DISC_SIGMA = (0.4, 1.4), 1.0
"""Scales of the bands that discs of 1 to 4 mm answer to, and the least response of what is looked at: beside dense
tissue it is no more than noise, and the rim decides."""

MARGIN_MM = 1.5
"""How far outside the breast the middle of a disc may lie that reaches into it: the radius of large beads."""

Floats = NDArray[np.float64]

HIDING_SCALE_MM = 0.8
"""Scale over which spots raise the noise that they are measured by: they fill a tenth of its window."""

ECHO_SCALES = 1.2
"""Distance within which peaks of neighbouring bands are of one spot, in scales: less than the blob's radius."""


def find_peaks(detail: Detail, breast: BreastRegion, settings: DetectSettings) -> Seeds:
    """Return the local maxima of all bands over the threshold, inside the breast and not along film edges.

    Parameters
    ----------
    detail : Detail
    breast : BreastRegion
    settings : DetectSettings

    Returns
    -------
    Seeds
        Band after band; at most `max_candidates_per_cm2`, of which the strongest are kept.
    """
    tables = [
        _peaks(detail, band, breast, _threshold_sigma(band, settings), breast.is_searched) for band in detail.bands
    ]
    n_fine = sum(band.scale_mm < settings.coarse_scale_mm for band in detail.bands)
    seeds = Seeds.concatenate([_without_echoes(tables[:n_fine], detail.pixel_mm), *tables[n_fine:]])
    seeds = seeds[_is_inside(seeds, detail) & ~_is_scan_line(seeds, detail.pixel_mm)]
    seeds = seeds[_is_supported(seeds, detail.pixel_mm, settings)]
    seeds = seeds[~_is_corner(seeds, detail, breast, settings)]
    seeds = seeds[~_is_shoulder(seeds, detail, breast, settings)]
    limit = int(settings.max_candidates_per_cm2 * breast.area_cm2)
    if len(seeds) > limit:
        seeds = seeds[np.sort(np.argsort(-seeds.response_sigma, kind="stable")[:limit])]
    return seeds


def disc_peaks(detail: Detail, breast: BreastRegion, settings: DetectSettings) -> Seeds:
    """Return the local maxima of the bands that discs answer to, however faint, off the breast's corners.

    Those just outside the breast are among them, since a bead on the skin may lie there with most of its area.

    Parameters
    ----------
    detail : Detail
    breast : BreastRegion
    settings : DetectSettings

    Returns
    -------
    Seeds
        Band after band.
    """
    least, most = DISC_SCALES_MM
    reach = 2 * math.ceil(MARGIN_MM / (breast.step_px * detail.pixel_mm)) + 1
    near = cv2.dilate(breast.is_searched.view(np.uint8), np.ones((reach, reach), np.uint8)).astype(np.bool_)
    bands = [band for band in detail.bands if least <= band.scale_mm <= most]
    seeds = Seeds.concatenate([_peaks(detail, band, breast, DISC_SIGMA, near) for band in bands])
    return seeds[~_is_corner(seeds, detail, breast, settings)]


def _is_supported(seeds: Seeds, pixel_mm: float, settings: DetectSettings) -> BoolImage:
    """Return which peaks stand on their own or have strong ones around: a faint speck alone is noise.

    The fainter half of those that need support need one more.
    """
    own = seeds.response_sigma >= settings.threshold_sigma
    own |= seeds.scale_mm >= settings.large_scale_mm
    weak, strong = np.flatnonzero(~own), np.flatnonzero(seeds.response_sigma >= settings.support_sigma)
    if len(weak) and len(strong) > settings.support_count:
        places = np.stack([seeds.row_px, seeds.col_px], axis=1) * pixel_mm
        ranks = [settings.support_count, settings.support_count + 1]
        distance = _tree(places[strong]).query(places[weak], k=ranks, distance_upper_bound=settings.support_mm)[0]
        fainter = seeds.response_sigma[weak] < 0.5 * (settings.supported_sigma + settings.threshold_sigma)
        own[weak[np.isfinite(np.where(fainter, distance[:, 1], distance[:, 0]))]] = True
    return own


def _is_corner(seeds: Seeds, detail: Detail, breast: BreastRegion, settings: DetectSettings) -> BoolImage:
    """Return which coarse peaks are corners of what is exposed: their blob's rim leaves the breast or is a film's edge.

    What stands out from the breast as well as from what is outside is none: a metal bead on the skin. Where the image
    itself ends nothing is known of the rim.
    """
    corner = seeds.scale_mm >= settings.coarse_scale_mm
    coarse = np.flatnonzero(corner)
    outside = _is_outside(breast, *_rim_px(seeds[coarse], 1.0, detail.pixel_mm))
    corner[coarse] = np.count_nonzero(outside, axis=1) >= MOST_OUTSIDE
    leaving = np.flatnonzero(corner)
    corner[leaving] = ~_stands_alone(seeds[leaving], detail, breast)
    return corner


def _is_shoulder(seeds: Seeds, detail: Detail, breast: BreastRegion, settings: DetectSettings) -> BoolImage:
    """Return which fine peaks beside the breast's border do not stand out from the breast.

    Where the grey level falls steeply to the background, all pixels of the skin's rim are brighter than around them.
    """
    shoulder = seeds.scale_mm < settings.coarse_scale_mm
    shoulder &= breast.skin_distance_mm[breast.cells(seeds.row_px, seeds.col_px)] <= BESIDE_MM
    fine = seeds[shoulder]
    beside_px = _around_px(fine, BESIDE_MM / detail.pixel_mm)
    outside = _is_outside(breast, *beside_px)
    over_breast, _ = _heights(fine, beside_px, outside, detail)
    standing = over_breast >= settings.supported_sigma * detail.noise_at(fine.row_px, fine.col_px)
    shoulder[shoulder] = (np.count_nonzero(outside, axis=1) >= MOST_OUTSIDE) & ~standing
    return shoulder


def _rim_px(seeds: Seeds, radii: float, pixel_mm: float) -> tuple[Floats, Floats]:
    """Return rows and columns in sixteen directions around each blob, at a distance in its radii, shape (n, 16)."""
    return _around_px(seeds, radii * math.sqrt(2) * seeds.scale_mm[:, None] / pixel_mm)


def _around_px(seeds: Seeds, away_px: Floats | float) -> tuple[Floats, Floats]:
    """Return rows and columns in sixteen directions around each seed, shape (n, 16)."""
    return seeds.row_px[:, None] + away_px * SINE, seeds.col_px[:, None] + away_px * COSINE


def _is_outside(breast: BreastRegion, row_px: Floats, col_px: Floats) -> BoolImage:
    """Return which places are no breast, or a film's edge."""
    zones = breast.zones[breast.cells(row_px, col_px)]
    return np.asarray((zones & (Zone.BREAST | Zone.EDGE)) != Zone.BREAST, np.bool_)


def _stands_alone(seeds: Seeds, detail: Detail, breast: BreastRegion) -> BoolImage:
    """Return which blobs stand out from the breast by `OWN_SHARE` as much as from what is outside."""
    beside_px = _rim_px(seeds, BESIDE_RADII, detail.pixel_mm)
    over_breast, over_outside = _heights(seeds, beside_px, _is_outside(breast, *beside_px), detail)
    return np.asarray(over_breast >= OWN_SHARE * over_outside, np.bool_)


def _heights(
    seeds: Seeds, beside_px: tuple[Floats, Floats], outside: BoolImage, detail: Detail
) -> tuple[Floats, Floats]:
    """Return the mean heights of seeds over the places beside them in the breast, and over those outside."""
    image = detail.levels[0]
    height = image.sample(seeds.row_px, seeds.col_px)[:, None] - image.sample(*beside_px).astype(np.float64)
    over_breast, over_outside = (
        (height * part).sum(axis=1) / np.maximum(np.count_nonzero(part, axis=1), 1) for part in (~outside, outside)
    )
    return over_breast, over_outside


def _is_inside(seeds: Seeds, detail: Detail) -> BoolImage:
    """Return which peaks keep off the border of the image."""
    rows, cols = detail.image_shape
    row, col = seeds.row_px, seeds.col_px
    nearest = np.minimum.reduce([row, rows - 1 - row, col, cols - 1 - col])
    return np.asarray(nearest >= border_px(detail), np.bool_)


def _is_scan_line(seeds: Seeds, pixel_mm: float) -> BoolImage:
    """Return which peaks lie in a chain along one row or column of pixels that is too long and straight to be grown."""
    in_line = np.zeros(len(seeds), np.bool_)
    if not len(seeds):
        return in_line
    for across, along in ((seeds.row_px, seeds.col_px), (seeds.col_px, seeds.row_px)):
        # twice, half a strip apart, since a line may lie on the border of two
        for shift in (0.0, 0.5):
            strip = np.floor(across * pixel_mm / SCAN_LINE_WIDTH_MM + shift)
            # one key sorts in a third of the time of two; ties are of one chain
            order = np.argsort(strip * (along.max() + 1.0) + along)
            place_mm, strip = along[order] * pixel_mm, strip[order]
            is_start = (np.diff(strip, prepend=-1.0) != 0) | (np.diff(place_mm, prepend=0.0) > SCAN_LINE_GAP_MM)
            start = np.flatnonzero(is_start)
            chain = np.cumsum(is_start) - 1
            length_mm = place_mm[np.append(start[1:], len(order)) - 1] - place_mm[start]
            in_line[order] |= length_mm[chain] >= SCAN_LINE_MM
    return in_line


def _tree(places: Floats) -> cKDTree:
    """Return a tree that is quick to build, which counts where each is asked once."""
    return cKDTree(places, balanced_tree=False, compact_nodes=False)


def _without_echoes(tables: list[Seeds], pixel_mm: float) -> Seeds:
    """Return the peaks of all bands without those that answer more weakly to what a neighbouring band has seen.

    Two peaks of neighbouring bands are of one spot if they are within `ECHO_SCALES` of the coarser scale; each looks at
    its nearest only. This holds for fine bands: within a large spot, peaks of a finer band are its grain.
    """
    alive = [np.ones(len(table), np.bool_) for table in tables]
    for one, (fine, coarse) in enumerate(itertools.pairwise(tables)):
        if not len(fine) or not len(coarse):
            continue
        reach_px = ECHO_SCALES * coarse.scale_mm[0] / pixel_mm
        for a, b in ((one, one + 1), (one + 1, one)):
            places = [np.stack([tables[i].row_px, tables[i].col_px], axis=1) for i in (a, b)]
            distance, nearest = _tree(places[1]).query(places[0], distance_upper_bound=reach_px)
            near = np.flatnonzero(np.isfinite(distance))
            weaker = tables[a].response_sigma[near] < tables[b].response_sigma[nearest[near]]
            alive[a][near[weaker]] = False
    return Seeds.concatenate([table[kept] for table, kept in zip(tables, alive, strict=True)])


def _threshold_sigma(band: Band, settings: DetectSettings) -> float:
    if band.scale_mm < settings.large_scale_mm:
        return settings.supported_sigma
    # the larger a spot, the larger its part in the window that its own noise is measured in
    return settings.large_threshold_sigma * math.sqrt(min(1.0, HIDING_SCALE_MM / band.scale_mm))


def _peaks(detail: Detail, band: Band, breast: BreastRegion, threshold: float, cells: BoolImage) -> Seeds:
    """Return the local maxima of a band over a threshold in noise units, in some cells of the zone map."""
    level, response = detail.levels[band.level], band.response
    row, col = _maxima(response, threshold * float(band.noise.sigma.min() * band.noise.factor.min()))
    if not len(row):
        return Seeds.empty()
    row_px = level.origin_px[0] + level.step_px * row.astype(np.float64)
    col_px = level.origin_px[1] + level.step_px * col.astype(np.float64)
    sigma = response[row, col] / band.noise.at(detail.where(row_px, col_px))
    keep = (sigma > threshold) & cells[breast.cells(row_px, col_px)]
    row_px, col_px = _brightest_pixels(detail.levels[0], row_px[keep], col_px[keep])
    n = len(row_px)
    return Seeds.blank(
        n,
        row_px=row_px,
        col_px=col_px,
        scale_mm=np.full(n, band.scale_mm),
        response_sigma=sigma[keep],
        # a blob is grown on the coarsest level that shows it with at least a cell a standard deviation
        level=np.full(n, coarsest_levels(detail, np.array([band.scale_mm]))[0]),
    )


def _maxima(response: FloatImage, least: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return rows and columns of cells over `least` that are no lower than their eight neighbours, row by row.

    Strip after strip, so that all steps find their cells in the processor's cache; the slow equivalent is
    `skimage.feature.peak_local_max`.
    """
    found = []
    for start in range(0, len(response), STRIP_ROWS):
        strip = response[start : start + STRIP_ROWS]
        before = min(start, 1)
        around = response[start - before : start + STRIP_ROWS + 1]
        highest = cv2.dilate(around, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
        highest = highest[before : before + len(strip)]
        is_peak = cv2.bitwise_and(cv2.compare(strip, highest, cv2.CMP_GE), (strip > least).view(np.uint8))
        points = cv2.findNonZero(is_peak)
        if points is not None:
            found.append(np.asarray(points, np.int32).reshape(-1, 2) + np.array([0, start], np.int32))
    col, row = np.concatenate(found).T if found else np.empty((2, 0), np.int32)
    return row, col


def _brightest_pixels(finest: Level, row_px: Floats, col_px: Floats) -> tuple[Floats, Floats]:
    """Return the brightest of the four pixels around places between pixels, where the cells of coarse levels lie.

    Rounding would take the left one of some and the right one of others, so that flips changed what is found.
    """
    row, col = finest.to_cells(row_px, 0), finest.to_cells(col_px, 1)
    rows = np.stack([np.floor(row), np.floor(row), np.ceil(row), np.ceil(row)]).astype(np.intp)
    cols = np.stack([np.floor(col), np.ceil(col), np.floor(col), np.ceil(col)]).astype(np.intp)
    best = finest.image[rows, cols].argmax(axis=0)
    each = np.arange(len(row))
    return finest.origin_px[0] + rows[best, each], finest.origin_px[1] + cols[best, each]
