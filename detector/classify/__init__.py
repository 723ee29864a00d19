"""What each spot is: macro or micro, its shape and form word, and how sure it is calcium: Spots -> Spots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.classify.forms import find_kind, find_morphology, find_shape
from detector.classify.judge import Judge
from detector.records import BoolImage, Evidence, Flag, Outlines, Spots
from detector.settings import ClassifySettings

__all__ = ["classify_spots"]

MARKER_MM, MARKER_ROUNDNESS = 1.0, 0.98
"""Least diameter, and least circularity and solidity, of a bead that marks nipple or lump: 1.2 to 2 mm of metal."""

MARKER_EDGE_SHARE, MARKER_CONTRAST = 0.8, 0.9
"""Least step across its border by its height, and height by the breast's grey range. Metal stops the beam: it stands
out by the whole range, where calcium lets a part of it through, and ends at least as sharply."""

MARKER_UNEVENNESS = 0.03
"""Most change of the grey by its height from the brightest pixel to those one and two beside it, and along a ring of
0.2 mm. Metal is as flat as the film's grain or the end of the detector's range: 0.01 to 0.02 on films, 0.00 on digital
images. Through calcium the noise of what lies before and behind it is seen."""

MARKER_PIXEL_MM = 0.11
"""Largest pixels that show how sharp a border is."""

HALO_MM = 1.0
"""Distance from a bead's border within which spots are its halo: processing that sharpens draws a dark ring and a
bright one around metal, as wide as its filter, under a millimetre on the images looked at."""


def classify_spots(
    spots: Spots, evidence: Evidence, outlines: Outlines, settings: ClassifySettings
) -> tuple[Spots, Outlines]:
    """Judge each spot and keep those over the confidence floor.

    Parameters
    ----------
    spots : Spots
    evidence : Evidence
        One row a spot.
    outlines : Outlines
        One a spot.
    settings : ClassifySettings

    Returns
    -------
    spots : Spots
        With shape, kind, morphology, confidence and flags, numbered from 1.
    outlines : Outlines
        Those of the spots that are kept.
    """
    if not len(spots):
        return spots, outlines
    confidence = Judge.load().confidence(spots, evidence)
    confidence[_is_of_marker(spots, _is_marker(spots, evidence))] = 0.0
    kept = np.flatnonzero(confidence >= settings.floor)
    spots, outlines = spots[kept], outlines[kept]
    evidence = Evidence(evidence.names, evidence.values[kept])

    unresolved = spots.width_mm < settings.unresolved_px * evidence.column("pixel_mm")
    shape = find_shape(spots, unresolved)
    kind = find_kind(spots, shape, settings)
    spots = spots.replace(
        spot_id=np.arange(1, len(spots) + 1),
        shape=shape,
        kind=kind,
        morphology=find_morphology(spots, shape, kind, settings),
        confidence=confidence[kept],
        flags=_flags(evidence, unresolved),
    )
    return spots, outlines


def _is_marker(spots: Spots, evidence: Evidence) -> BoolImage:
    """Return which spots are metal beads on the skin: flat, as bright as anything, sharper than what is imaged."""
    disc = (spots.circularity >= MARKER_ROUNDNESS) & (spots.solidity >= MARKER_ROUNDNESS)
    disc &= evidence.column("diameter_mm") >= MARKER_MM
    sharp = (evidence.column("edge_share") >= MARKER_EDGE_SHARE) & (evidence.column("pixel_mm") <= MARKER_PIXEL_MM)
    bright = spots.contrast >= MARKER_CONTRAST
    along_ring = evidence.column("ring_0.2_spread") / evidence.column("snr")
    change = np.max([evidence.column("drop_1px"), evidence.column("drop_2px"), along_ring], axis=0)
    flat = change <= MARKER_UNEVENNESS
    return np.asarray(disc & sharp & bright & flat, np.bool_)


def _is_of_marker(spots: Spots, marker: BoolImage) -> BoolImage:
    """Return which spots are one of the markers, or its halo."""
    row_mm, col_mm, diameter_mm = spots.row_mm[marker], spots.col_mm[marker], spots.diameter_mm[marker]
    away_mm = np.hypot(spots.row_mm[:, None] - row_mm, spots.col_mm[:, None] - col_mm)
    # no size is known where that of a pixel is not
    return np.asarray(marker | (away_mm <= 0.5 * diameter_mm + HALO_MM).any(axis=1), np.bool_)


def _flags(evidence: Evidence, unresolved: BoolImage) -> NDArray[np.int32]:
    flags = np.zeros(len(unresolved), np.int32)
    strand = (evidence.column("coherence") > 0.7) & (evidence.column("ring_0.6_evenness") < 0.3)
    # sharper than any system's blur lets a thing inside the breast be: it drops to the surroundings within a pixel
    dust = (evidence.column("drop_1px") > 0.8) & (evidence.column("pixel_mm") < 0.06)
    for flag, true in (
        (Flag.NEAR_SKIN, evidence.column("near_skin") > 0),
        (Flag.IN_PECTORAL, evidence.column("in_pectoral") > 0),
        (Flag.NEAR_EDGE, evidence.column("near_edge") > 0),
        (Flag.SIZE_IS_UPPER_BOUND, unresolved),
        (Flag.SATURATED, evidence.column("saturated") > 0),
        (Flag.OUTLINE_CUT, evidence.column("cut") > 0),
        (Flag.POSSIBLE_STRAND, strand),
        (Flag.POSSIBLE_DUST, dust),
    ):
        flags[true] |= flag
    return flags
