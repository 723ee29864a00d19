"""What tells calcium from noise, strands, dust and edges, read at the spots only."""

from __future__ import annotations

import numpy as np

from detector.measure.border import Border, Floats, Integers
from detector.records import (
    EDGE_MM,
    NINE_COLS,
    NINE_ROWS,
    BreastRegion,
    Detail,
    Evidence,
    FloatImage,
    Mammogram,
    Marks,
    Places,
    Spots,
    Where,
    Zone,
)

RING_RADII_MM = (0.2, 0.35, 0.6, 1.0)
"""Radii of the rings that a spot's contrast is read against, in 16 directions: strands are bright in two of them."""

N_RING_DIRECTIONS = 16

LABEL_ROWS = 8
"""Rows of which one is looked at for a label brighter than any spot: the strokes of its letters are taller."""


def gather_evidence(
    mammogram: Mammogram, breast: BreastRegion, detail: Detail, marks: Marks, form: tuple[Spots, Border]
) -> Evidence:
    """Return the features of each spot; those that need a scale finer than the pixels are left out."""
    spots, border = form
    where = detail.where(marks.seeds.row_px, marks.seeds.col_px)
    noise = detail.noise.at(where)
    features = _context(breast, detail, where, noise, spots) | _own_form(marks, noise, spots)
    features |= _responses(detail, marks, where) | _pixel_features(mammogram, detail, marks)
    features |= _ring_contrasts(detail, marks, noise) | _edges(detail, border, marks, noise)
    return Evidence(tuple(features), np.stack(list(features.values()), axis=1).astype(np.float32))


def _edges(detail: Detail, border: Border, marks: Marks, noise: Floats) -> dict[str, Floats]:
    """Return how sharply spots end: on average, how evenly, and to the side on which they do least."""
    n, spot = len(marks.seeds), border.spot
    fall = border.falls(detail.levels[0].image, max(1, round(EDGE_MM / detail.pixel_mm)))
    count = np.bincount(spot, minlength=n)
    mean = np.bincount(spot, fall, n) / count
    spread = np.sqrt(np.maximum(np.bincount(spot, fall**2, n) / count - mean**2, 0))
    by_side = [np.bincount(4 * spot + border.side, weight, 4 * n) for weight in (fall, None)]
    weakest = (by_side[0] / by_side[1]).reshape(n, 4).min(axis=1)
    edge = np.where(np.isnan(marks.seeds.edge), mean, marks.seeds.edge)
    return {
        "edge_share": edge / np.maximum(marks.seeds.height, 1e-12),
        "edge_sigma": edge / noise,
        "outline_sigma": mean / noise,
        "outline_spread": spread / noise,
        "outline_weakest": weakest / noise,
    }


def _context(breast: BreastRegion, detail: Detail, where: Where, noise: Floats, spots: Spots) -> dict[str, Floats]:
    """Return where the spot lies and what surrounds it."""
    zones = breast.zones[breast.cells(spots.row_px, spots.col_px)]
    grey_range = max(breast.grey_range[1] - breast.grey_range[0], 1e-12)
    return {
        "grey": (detail.steps.grey(where.grey) - breast.grey_range[0]) / grey_range,
        "noise": noise / max(float(np.median(detail.noise.sigma)), 1e-12),
        "coherence": Places.at(where.row, where.col).bilinear(detail.coherence).astype(np.float64),
        "near_edge": ((zones & Zone.EDGE) > 0).astype(np.float64),
        "in_pectoral": ((zones & Zone.PECTORAL) > 0).astype(np.float64),
        "near_skin": ((zones & Zone.SKIN) > 0).astype(np.float64),
        "pixel_mm": np.full(len(spots), detail.pixel_mm),
    }


def _own_form(marks: Marks, noise: Floats, spots: Spots) -> dict[str, Floats]:
    """Return height, border and form of the spot; sizes in mm by the spacing that the rooms work with."""
    seeds = marks.seeds
    return {
        "response_sigma": seeds.response_sigma,
        "scale_mm": seeds.scale_mm,
        "snr": seeds.height / noise,
        "contrast": spots.contrast,
        "cut": seeds.cut.astype(np.float64),
        "hole_share": spots.hole_share,
        "diameter_mm": spots.diameter_mm,
        "length_mm": spots.length_mm,
        "width_mm": spots.width_mm,
        "solidity": spots.solidity,
        "eccentricity": spots.eccentricity,
    }


def _responses(detail: Detail, marks: Marks, where: Where) -> dict[str, Floats]:
    """Return the response at every scale, in noise units."""
    seeds = marks.seeds
    responses: dict[str, Floats] = {}
    for band in detail.bands:
        level = detail.levels[band.level]
        places = Places.at(level.to_cells(seeds.row_px, 0), level.to_cells(seeds.col_px, 1))
        value = places.bilinear(band.response) / band.noise.at(where)
        responses[f"response_{band.scale_mm:.3f}"] = value.astype(np.float64)
    return responses


def _pixel_features(mammogram: Mammogram, detail: Detail, marks: Marks) -> dict[str, Floats]:
    """Return what the unsmoothed pixels at the peak say: dust on film is sharper than anything imaged through it."""
    pixels, seeds = mammogram.pixels, marks.seeds
    rows, cols = pixels.shape
    row, col = np.rint(seeds.row_px).astype(np.int64), np.rint(seeds.col_px).astype(np.int64)

    def at(row: Integers, col: Integers) -> FloatImage:
        return pixels[np.clip(row, 0, rows - 1), np.clip(col, 0, cols - 1)]

    best = at(row + NINE_ROWS[:, None], col + NINE_COLS[:, None]).argmax(axis=0)
    row, col = row + NINE_ROWS[best], col + NINE_COLS[best]
    peak = at(row, col)
    near, far = (
        (at(row - away, col) + at(row + away, col) + at(row, col - away) + at(row, col + away)) / 4 for away in (1, 2)
    )
    height = np.maximum(seeds.height * detail.steps.size, 1e-12)
    return {
        "saturated": (peak >= _brightest(pixels, float(peak.max()))).astype(np.float64),
        "drop_1px": (peak - near) / height,
        "drop_2px": (peak - far) / height,
    }


def _brightest(pixels: FloatImage, enough: float) -> float:
    """Return the brightest of all pixels, or any over `enough`: most images have a label, over many of their rows."""
    highest = float(pixels[::LABEL_ROWS].max())
    return highest if highest > enough else float(pixels.max())


def _ring_contrasts(detail: Detail, marks: Marks, noise: Floats) -> dict[str, Floats]:
    """Return, for each ring, mean, lowest and spread of the contrast over directions, and how unlike they are.

    The last is the weakest pair of opposite directions by the strongest: near 1 for a blob, near 0 on a strand.
    """
    seeds = marks.seeds
    peak = marks.seeds.threshold + 0.5 * marks.seeds.height
    # direction by spot: numpy takes long to go round short axes within long ones
    angle = np.arange(N_RING_DIRECTIONS)[:, None] * (2 * np.pi / N_RING_DIRECTIONS)
    steps = np.array([level.step_px for level in detail.levels])
    features: dict[str, Floats] = {}
    for radius_mm in RING_RADII_MM:
        radius_px = radius_mm / detail.pixel_mm
        level = detail.levels[int(np.argmin(np.abs(np.log(steps / (radius_px / 4)))))]
        row, col = seeds.row_px + radius_px * np.sin(angle), seeds.col_px + radius_px * np.cos(angle)
        contrast = (peak - level.sample(row, col)) / noise
        pair = 0.5 * (contrast[: N_RING_DIRECTIONS // 2] + contrast[N_RING_DIRECTIONS // 2 :])
        name = f"ring_{radius_mm:g}"
        features[f"{name}_mean"] = contrast.mean(axis=0)
        features[f"{name}_lowest"] = contrast.min(axis=0)
        features[f"{name}_spread"] = contrast.std(axis=0)
        features[f"{name}_evenness"] = pair.min(axis=0) / np.maximum(pair.max(axis=0), 1e-6)
    return features
