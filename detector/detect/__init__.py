"""Where bright spots stand out, and the pixels of each: Detail -> Marks."""

from __future__ import annotations

import numpy as np

from detector.detect.discs import find_discs
from detector.detect.grains import part_grains
from detector.detect.overlaps import as_marks, resolve_overlaps
from detector.detect.peaks import find_maxima, find_peaks
from detector.detect.regions import Regions, grow_regions
from detector.detect.rods import join_rods
from detector.records import BreastRegion, Buffers, Detail, Marks, Seeds
from detector.settings import DetectSettings

__all__ = ["detect_marks"]


def detect_marks(
    detail: Detail, breast: BreastRegion, settings: DetectSettings, buffers: Buffers | None = None
) -> Marks:
    """Find blobs of all scales and the pixels over half height that belong to each.

    Peaks of the difference of Gaussians over the threshold are candidates. Around each the pixels over half of its
    height are taken from the level that it was found on. Where candidates overlap, the one with the larger product of
    height and significance stays: of a macrocalcification and a bright grain of noise inside it the former, of a
    cluster seen as one blob and a speck of it the latter. Discs, whose outline is sought along rays, join them. What is
    a heap of grains in the end is cut into these, and pieces of a rod are joined.

    Parameters
    ----------
    detail : Detail
    breast : BreastRegion
    settings : DetectSettings
    buffers : Buffers, optional
        What the label image is written to; the Marks then last until it is used again.

    Returns
    -------
    Marks
        Rows ordered by row, then column.
    """
    if not detail.levels:
        return Marks(np.zeros((0, 0), np.uint16), np.empty(0, np.int32), Seeds.empty(), detail.box)
    maxima = find_maxima(detail, breast, settings)
    peaks = find_peaks(maxima, detail, breast, settings)
    regions = Regions.concatenate([grow_regions(detail, peaks, settings), find_discs(maxima, detail, breast, settings)])
    dtype = np.uint16 if len(regions.seeds) < 2**16 else np.uint32
    canvas = (buffers or Buffers()).take("labels", detail.levels[0].image.shape, dtype)
    canvas.fill(0)
    regions = part_grains(resolve_overlaps(regions, detail, canvas), peaks, detail, canvas)
    return join_rods(as_marks(regions, detail, canvas), detail, canvas)
