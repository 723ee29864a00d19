"""Place, size and form of all spots: sums over their pixels, extremes over their borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.measure.border import Border, Floats, Foreground

N_DIRECTIONS = 36
"""Directions that calipers are laid on: 5 degrees apart, which keeps the largest within 0.1 %."""


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
    length, width, hull = _calipers(border, spacing)

    # pixels inside the outer border, by Green's theorem over its horizontal sides
    sign = np.select([border.side == 0, border.side == 2], [-1.0, 1.0], 0.0)
    filled_px = np.bincount(border.spot, sign * (border.row + (border.side != 0)), n)
    beyond = np.bincount(border.spot, border.crossing - 0.5, n)
    area = np.maximum(filled_px + 0.5 * beyond, 0.25) * spacing.prod()
    return Form(
        row=np.bincount(pixels.spot, pixels.height * pixels.row, n) / weight,
        col=np.bincount(pixels.spot, pixels.height * pixels.col, n) / weight,
        n_px=n_px,
        hole_share=1 - n_px / filled_px,
        area_mm2=area,
        length_mm=length,
        width_mm=width,
        eccentricity=eccentricity,
        orientation_deg=orientation,
        solidity=np.minimum(area / np.maximum(hull, 1e-12), 1.0),
    )


def _ellipse(pixels: Foreground, n_px: Floats, spacing: Floats) -> tuple[Floats, Floats]:
    """Return eccentricity and orientation (degrees) of the ellipses of equal second moments."""
    n = len(n_px)
    y, x = pixels.row * spacing[0], pixels.col * spacing[1]
    mean_y, mean_x = np.bincount(pixels.spot, y, n) / n_px, np.bincount(pixels.spot, x, n) / n_px
    dy, dx = y - mean_y[pixels.spot], x - mean_x[pixels.spot]
    # a pixel is a square, not a point: its own second moment is a twelfth
    yy = np.bincount(pixels.spot, dy * dy, n) / n_px + spacing[0] ** 2 / 12
    xx = np.bincount(pixels.spot, dx * dx, n) / n_px + spacing[1] ** 2 / 12
    xy = np.bincount(pixels.spot, dx * dy, n) / n_px
    root = np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    large, small = (xx + yy + root) / 2, np.maximum((xx + yy - root) / 2, 0)
    angle = np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) % 180
    return np.sqrt(np.maximum(1 - small / large, 0)), angle


def _calipers(border: Border, spacing: Floats) -> tuple[Floats, Floats, Floats]:
    """Return largest and smallest caliper in mm, half a pixel at least, and the convex hull's area in mm2.

    All follow from the support function.
    """
    row, col = border.points()
    y, x = row * spacing[0], col * spacing[1]
    starts = border.starts
    delta = np.pi / N_DIRECTIONS
    support = np.empty((2 * N_DIRECTIONS, len(starts)))
    for k in range(N_DIRECTIONS):
        along = x * np.cos(k * delta) + y * np.sin(k * delta)
        support[k] = np.maximum.reduceat(along, starts)
        support[k + N_DIRECTIONS] = -np.minimum.reduceat(along, starts)
    caliper = support[:N_DIRECTIONS] + support[N_DIRECTIONS:]
    side = (np.roll(support, 1, axis=0) + np.roll(support, -1, axis=0) - 2 * support * np.cos(delta)) / np.sin(delta)
    least = 0.5 * spacing.min()
    return (
        np.maximum(caliper.max(axis=0), least),
        np.maximum(caliper.min(axis=0), least),
        0.5 * np.sum(support * side, axis=0),
    )
