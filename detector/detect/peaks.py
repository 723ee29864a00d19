"""Peaks of the blob responses: the places of candidates."""

from __future__ import annotations

import cv2
import numpy as np

from detector.records import Band, BreastRegion, Detail, Seeds, Zone
from detector.settings import DetectSettings


def find_peaks(detail: Detail, breast: BreastRegion, settings: DetectSettings) -> Seeds:
    """Return the local maxima of all bands over the threshold, inside the breast.

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
    seeds = Seeds.concatenate([_peaks(detail, band, breast, settings) for band in detail.bands])
    limit = int(settings.max_candidates_per_cm2 * breast.area_cm2)
    if len(seeds) > limit:
        seeds = seeds[np.sort(np.argsort(-seeds.response_sigma, kind="stable")[:limit])]
    return seeds


def _peaks(detail: Detail, band: Band, breast: BreastRegion, settings: DetectSettings) -> Seeds:
    level, response = detail.levels[band.level], band.response
    coarse = band.scale_mm >= settings.coarse_scale_mm
    threshold = settings.coarse_threshold_sigma if coarse else settings.threshold_sigma
    quietest = np.float32(threshold * float(band.noise.min()))
    highest = cv2.dilate(response, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    row, col = np.nonzero((response >= highest) & (response > quietest))
    row_px = level.origin_px[0] + level.step_px * row
    col_px = level.origin_px[1] + level.step_px * col
    sigma = response[row, col] / band.noise[detail.cells(row_px, col_px)]
    keep = (sigma > threshold) & ((breast.zones[breast.cells(row_px, col_px)] & Zone.BREAST) > 0)
    n = int(np.count_nonzero(keep))
    return Seeds.blank(
        n,
        row_px=row_px[keep],
        col_px=col_px[keep],
        scale_mm=np.full(n, band.scale_mm),
        response_sigma=sigma[keep],
        level=np.full(n, band.level),
    )
