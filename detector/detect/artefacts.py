"""Peaks that no tissue makes: corners and shoulders of what is exposed, and lines that a scanner has drawn."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detector.detect.borders import COSINE, SINE
from detector.records import BoolImage, BreastRegion, Detail, Seeds, Zone
from detector.settings import DetectSettings

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

Floats = NDArray[np.float64]


def is_scan_line(seeds: Seeds, pixel_mm: float) -> BoolImage:
    """Return which peaks lie in a chain along one row or column of pixels that is too long and straight to be grown.

    Parameters
    ----------
    seeds : Seeds
    pixel_mm : float

    Returns
    -------
    ndarray of bool, shape (n,)
    """
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


def is_corner(seeds: Seeds, detail: Detail, breast: BreastRegion, settings: DetectSettings) -> BoolImage:
    """Return which coarse peaks are corners of what is exposed: their blob's rim leaves the breast or is a film's edge.

    What stands out from the breast as well as from what is outside is none: a metal bead on the skin. Where the image
    itself ends nothing is known of the rim.

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
    corner = seeds.scale_mm >= settings.coarse_scale_mm
    coarse = np.flatnonzero(corner)
    outside = _is_outside(breast, *_rim_px(seeds[coarse], 1.0, detail.pixel_mm))
    corner[coarse] = np.count_nonzero(outside, axis=1) >= MOST_OUTSIDE
    leaving = np.flatnonzero(corner)
    corner[leaving] = ~_stands_alone(seeds[leaving], detail, breast)
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
