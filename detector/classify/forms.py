"""Shape, kind and form word of spots, from their outlines and sizes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.records import LINE_MM, THIN_MM, BoolImage, Kind, Morphology, Shape, Spots
from detector.settings import ClassifySettings

ROD_ASPECT = 2.0
"""Length by width from which a form is a dash and no dot."""

SMOOTH_SOLIDITY, SMOOTH_CIRCULARITY = 0.93, 0.92
"""Solidity, and circularity by that of the ellipse of like aspect, from which a form is smooth: between those that
pixels and blur leave to round grains, close to 1, and those of irregular ones."""

ROD_SOLIDITY, ROD_SMOOTHNESS = 0.85, 0.85
"""Solidity and smoothness from which a long form is a rod: a slight bend costs a tenth of either."""

OUTLINE_MM, ARMS_OUTLINE_MM = 0.1, 0.2
"""By how much the stroke of bent lines may be measured too wide, where tissue is bright, and that of arms, also where
they meet: rather a wide form that stays micro than a thin one, the most suspicious there is, called macro."""

LARGE_ROD_MM = 2.0
"""Length from which a rod is told by its form word: shorter ones may be oblong grains."""

LINE_ASPECT, LINE_SOLIDITY = 4.0, 0.62
"""Length by width, and solidity, from which a form that is not smooth is one line, gently curved."""

BRANCHED_SOLIDITY = 0.75
"""Solidity under which a thin form has arms: the hull of arms holds much that is not calcium, that of a grain
little."""

HOLE_SHARE = 0.08
"""Share of the outlined area from which a lucent centre makes a rim."""

RIM_MM = 0.5
"""Smallest diameter at which a lucent centre can be seen."""

SKIN_MM = 5.0
"""Distance to the skin line within which a lucent-centred form is one of the skin."""

Codes = NDArray[np.int8]


def find_shape(spots: Spots, unresolved: BoolImage) -> Codes:
    """Return the shape word of each spot; later rules are stronger.

    Parameters
    ----------
    spots : Spots
        Sizes and solidity are read.
    unresolved : ndarray of bool
        Under four pixels wide.

    Returns
    -------
    ndarray of int8
        Codes of `Shape`.
    """
    aspect = spots.aspect
    smooth = (spots.solidity >= SMOOTH_SOLIDITY) & (smoothness(spots) >= SMOOTH_CIRCULARITY)
    long = spots.length_mm >= LINE_MM
    shape = np.full(len(spots), Shape.IRREGULAR, np.int8)
    shape[smooth] = Shape.DOT
    shape[(spots.solidity >= ROD_SOLIDITY) & (aspect >= ROD_ASPECT)] = Shape.DASH
    # a gently curved thin line is less solid than a rod and still one line
    line = ~smooth & (aspect >= LINE_ASPECT) & (spots.solidity >= LINE_SOLIDITY)
    shape[line] = Shape.DASH
    shape[~line & (spots.solidity < BRANCHED_SOLIDITY) & (spots.stroke_mm < THIN_MM) & long] = Shape.BRANCHING
    # arms that touch enclose a hole as well, but their outline is not full
    hollow = (spots.hole_share >= HOLE_SHARE) & (spots.solidity >= ROD_SOLIDITY)
    shape[hollow & (spots.diameter_mm >= RIM_MM)] = Shape.RIM
    shape[unresolved & ~((aspect >= ROD_ASPECT) & long)] = Shape.UNRESOLVED
    return shape


def smoothness(spots: Spots) -> NDArray[np.float64]:
    """Return the circularity by that of the ellipse of like aspect: 1 for discs, ellipses and, nearly, rods."""
    aspect = spots.aspect
    # perimeter of an ellipse with axes aspect and 1 (Ramanujan 1914)
    perimeter = 0.5 * np.pi * (3 * (aspect + 1) - np.sqrt((3 * aspect + 1) * (aspect + 3)))
    return np.asarray(spots.circularity * perimeter**2 / (np.pi**2 * aspect), np.float64)


def find_kind(spots: Spots, shape: Codes, settings: ClassifySettings) -> Codes:
    """Return macro or micro by width, unknown where the size of a pixel is not known.

    Parameters
    ----------
    spots : Spots
    shape : ndarray of int8
        Codes of `Shape`.
    settings : ClassifySettings

    Returns
    -------
    ndarray of int8
        Codes of `Kind`.
    """
    smooth = (spots.solidity >= ROD_SOLIDITY) & (smoothness(spots) >= ROD_SMOOTHNESS)
    # a bend roughens the form, and widens the caliper: the stroke must be wide as well
    rod = (shape == Shape.DASH) & (smooth | (spots.length_mm >= LARGE_ROD_MM))
    rod &= np.minimum(spots.width_mm, spots.stroke_mm) >= settings.rod_width_mm
    rod &= spots.length_mm > settings.rod_length_mm
    # a thin line that is bent or has arms is wide to the calipers, whatever shape it was told, and no rod; a rim's wall
    # is no line
    beyond_mm = np.where(spots.solidity < BRANCHED_SOLIDITY, ARMS_OUTLINE_MM, OUTLINE_MM)
    thin = (spots.stroke_mm < THIN_MM + beyond_mm) & (spots.solidity < ROD_SOLIDITY) & (shape != Shape.RIM)
    macro = ((spots.width_mm >= settings.macro_width_mm) | rod) & ~thin
    kind = np.where(macro, Kind.MACRO, Kind.MICRO)
    return np.where(np.isnan(spots.width_mm), Kind.UNKNOWN, kind).astype(np.int8)


def find_morphology(spots: Spots, shape: Codes, kind: Codes, settings: ClassifySettings) -> Codes:
    """Return the form word that size and shape allow; later rules are stronger.

    Parameters
    ----------
    spots : Spots
    shape, kind : ndarray of int8
        Codes of `Shape` and `Kind`.
    settings : ClassifySettings

    Returns
    -------
    ndarray of int8
        Codes of `Morphology`.
    """
    word = np.zeros(len(spots), np.int8)
    macro, micro = kind == Kind.MACRO, kind == Kind.MICRO
    dot, dash, irregular = shape == Shape.DOT, shape == Shape.DASH, shape == Shape.IRREGULAR
    fine = spots.diameter_mm < settings.punctate_mm
    word[dot] = Morphology.ROUND
    word[micro & dot & fine] = Morphology.PUNCTATE
    word[micro & irregular & fine] = Morphology.FINE_PLEOMORPHIC
    word[irregular & ~fine] = Morphology.COARSE_HETEROGENEOUS
    word[micro & dash] = Morphology.FINE_LINEAR
    word[micro & (shape == Shape.BRANCHING)] = Morphology.FINE_LINEAR_BRANCHING
    word[macro & irregular & (spots.width_mm > 1.5 * settings.macro_width_mm)] = Morphology.DYSTROPHIC
    word[macro & dash] = Morphology.NONE
    word[macro & dash & (spots.length_mm >= LARGE_ROD_MM)] = Morphology.LARGE_ROD_LIKE
    word[macro & (spots.width_mm > settings.coarse_mm)] = Morphology.COARSE
    word[shape == Shape.RIM] = Morphology.RIM
    word[(shape == Shape.RIM) & (spots.skin_distance_mm < SKIN_MM)] = Morphology.SKIN
    word[kind == Kind.UNKNOWN] = Morphology.NONE
    return word
