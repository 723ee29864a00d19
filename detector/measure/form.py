"""Place, size and form of all spots: sums over their pixels, extremes over their borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.measure.border import Border, Floats, Foreground
from detector.records import BoolImage, Moments

N_DIRECTIONS = 36
"""Directions that calipers are laid on: 5 degrees apart, which keeps the largest within 0.1 %."""


OPEN_SHARE = 0.75
"""Area by that of the convex hull under which a ring is open."""

RING_SPREAD = 0.3
"""Standard deviation by mean of the distance from the middle, up to which a form is a ring: an arc of 225 degrees has
0.27, a half circle 0.36, two arms at an angle of 60 degrees 0.35 and a little less with their thickness, three arms
from a point 0.58."""


@dataclass(frozen=True)
class Form:
    """Place and form of all spots; rows and columns in the box."""

    row: Floats
    col: Floats
    n_px: Floats
    hole_share: Floats
    area_mm2: Floats
    length_mm: Floats
    width_mm: Floats
    eccentricity: Floats
    orientation_deg: Floats
    solidity: Floats
    circularity: Floats


def measure_form(pixels: Foreground, border: Border, spacing_mm: tuple[float, float]) -> Form:
    """Measure all spots; `border` holds at least four sides of each.

    Parameters
    ----------
    pixels : Foreground
    border : Border
    spacing_mm : tuple of float
        (row, col).

    Returns
    -------
    Form
    """
    n = len(border.starts)
    weight = np.bincount(pixels.spot, pixels.height, n)
    n_px = np.bincount(pixels.spot, minlength=n).astype(np.float64)
    spacing = np.array(spacing_mm)
    eccentricity, orientation = _ellipse(pixels, n_px, spacing)
    length, width, hull = _calipers(border, spacing, orientation)

    # pixels inside the outer border, by Green's theorem over its horizontal sides
    sign = np.select([border.side == 0, border.side == 2], [-1.0, 1.0], 0.0)
    filled_px = np.bincount(border.spot, sign * (border.row + (border.side != 0)), n)
    beyond = np.bincount(border.spot, border.crossing - 0.5, n)
    area = np.maximum(filled_px + 0.5 * beyond, 0.25) * spacing.prod()
    # an open ring is a rim whose wall is too thin somewhere: it is measured as if it were closed
    open_ring = area < OPEN_SHARE * hull
    open_ring[open_ring] = _is_ring(pixels.only(open_ring), n_px[open_ring], spacing)
    filled_px = np.where(open_ring, hull / spacing.prod(), filled_px)
    area = np.where(open_ring, hull, area)
    return Form(
        row=np.bincount(pixels.spot, pixels.height * pixels.row, n) / weight,
        col=np.bincount(pixels.spot, pixels.height * pixels.col, n) / weight,
        n_px=n_px,
        hole_share=np.maximum(1 - n_px / filled_px, 0.0),
        area_mm2=area,
        length_mm=length,
        width_mm=width,
        eccentricity=eccentricity,
        orientation_deg=orientation,
        solidity=np.minimum(area / np.maximum(hull, 1e-12), 1.0),
        circularity=np.minimum(4 * np.pi * area / np.maximum(_perimeter(border, spacing), 1e-6) ** 2, 1.0),
    )


def _is_ring(pixels: Foreground, n_px: Floats, spacing: Floats) -> BoolImage:
    """Return which spots have all their pixels about equally far from their middle."""
    n = len(n_px)
    y, x = pixels.row * spacing[0], pixels.col * spacing[1]
    mean_y, mean_x = np.bincount(pixels.spot, y, n) / n_px, np.bincount(pixels.spot, x, n) / n_px
    away = np.hypot(y - mean_y[pixels.spot], x - mean_x[pixels.spot])
    mean = np.bincount(pixels.spot, away, n) / n_px
    square = np.bincount(pixels.spot, away**2, n) / n_px
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)) < RING_SPREAD * mean, np.bool_)


def _perimeter(border: Border, spacing: Floats) -> Floats:
    """Return the length of each outline in mm."""
    row, col = border.points
    following = np.arange(1, len(row) + 1)
    starts = border.starts
    following[np.append(starts[1:], len(row)) - 1] = starts
    length = np.hypot((row - row[following]) * spacing[0], (col - col[following]) * spacing[1])
    return np.asarray(np.add.reduceat(length, starts), np.float64)


def _ellipse(pixels: Foreground, n_px: Floats, spacing: Floats) -> tuple[Floats, Floats]:
    """Return eccentricity and orientation (degrees) of the ellipses of equal second moments."""
    moments = Moments.of(pixels.row * spacing[0], pixels.col * spacing[1], pixels.spot, len(n_px))
    # a pixel is a square, not a point: its own second moment is a twelfth
    moments = moments._replace(yy=moments.yy + spacing[0] ** 2 / 12, xx=moments.xx + spacing[1] ** 2 / 12)
    large, small = moments.along_axes()
    angle = np.degrees(0.5 * np.arctan2(2 * moments.xy, moments.xx - moments.yy)) % 180
    # a hair under 0 the remainder is rounded to 180
    return np.sqrt(np.maximum(1 - small / large, 0)), np.where(angle < 180, angle, 0.0)


def _calipers(border: Border, spacing: Floats, orientation_deg: Floats) -> tuple[Floats, Floats, Floats]:
    """Return largest and smallest caliper in mm, half a pixel at least, and the convex hull's area in mm2.

    The hull's corners are the outermost points in each direction; the slow equivalent is `scipy.spatial.ConvexHull`,
    spot by spot.
    """
    row, col = border.points
    y, x = row * spacing[0], col * spacing[1]
    starts, n_points = border.starts, len(y)
    # place and number in one integer, so that the greatest of a spot tells whose it is: numbers stand in the last bits
    # of places far from zero, whose bits rise as they do
    bits = np.int64(2 ** n_points.bit_length() - 1)
    number, far = np.arange(n_points), 2 * (y.max() + x.max())
    corner = np.empty((2 * N_DIRECTIONS, len(starts)), np.int64)
    caliper = np.empty((N_DIRECTIONS + 1, len(starts)))
    for k, angle in enumerate(np.arange(N_DIRECTIONS) * (np.pi / N_DIRECTIONS)):
        along = x * np.cos(angle) + y * np.sin(angle)
        key = (along + far).view(np.int64) & ~bits | number
        corner[k] = np.maximum.reduceat(key, starts) & bits
        corner[k + N_DIRECTIONS] = np.minimum.reduceat(key, starts) & bits
        caliper[k] = along[corner[k]] - along[corner[k + N_DIRECTIONS]]
    # 2.5 degrees off its axis a thin line looks a good deal wider
    angle = np.radians(orientation_deg + 90)
    along = x * np.cos(angle)[border.spot] + y * np.sin(angle)[border.spot]
    caliper[-1] = np.maximum.reduceat(along, starts) - np.minimum.reduceat(along, starts)
    corner_x, corner_y = x[corner], y[corner]
    hull = 0.5 * np.sum(corner_x * np.roll(corner_y, -1, axis=0) - np.roll(corner_x, -1, axis=0) * corner_y, axis=0)
    least = 0.5 * spacing.min()
    return np.maximum(caliper.max(axis=0), least), np.maximum(caliper.min(axis=0), least), hull
