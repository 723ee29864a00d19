"""Calcifications as small solids: drawn once on a fine grid in mm, then laid on any pixel grid without aliasing.

Positions here are (row_mm, col_mm) from the outer corner of the first pixel, so that they hold at every pixel size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist

from detector.records import LINEAR_FORMS, BoolImage, Clusters, Distribution, FloatImage, Kind, Morphology, Shape, Spots

CALCIUM_PER_MM = 1.2
"""Attenuation in 1/mm that calcium adds to tissue.

About 2.1 for solid hydroxyapatite at 20 keV (Hubbell and Seltzer 1995, doi 10.18434/T4D01F); grains are porous and
scatter lowers what the detector sees of it.
"""


@dataclass(frozen=True)
class Form:
    """What particles of one morphology are like; lengths in mm, each range is drawn from uniformly in its logarithm."""

    draw: Callable[[np.random.Generator, float, float], tuple[BoolImage, float]]
    size_mm: tuple[float, float]
    width_mm: tuple[float, float]
    depth: float
    shape: Shape


@dataclass(frozen=True, eq=False)
class Particle:
    """One calcification.

    Attributes
    ----------
    row_mm, col_mm : float
        Where the middle of the patch lies in the image.
    thickness_mm : ndarray of float32, shape (n, m)
        Calcium along the beam, sampled every `step_mm`.
    step_mm : float
    morphology : Morphology
    shape : Shape
    """

    row_mm: float
    col_mm: float
    thickness_mm: FloatImage
    step_mm: float
    morphology: Morphology
    shape: Shape

    def moved(self, row_mm: float, col_mm: float) -> Particle:
        """Return the particle at another place."""
        return dataclasses.replace(self, row_mm=row_mm, col_mm=col_mm)


def make_particle(
    rng: np.random.Generator, morphology: Morphology, size_mm: tuple[float, float] | None = None
) -> Particle:
    """Draw one particle of a morphology at the origin.

    Parameters
    ----------
    rng : numpy.random.Generator
    morphology : Morphology
        One of the keys of `FORMS`.
    size_mm : tuple of float, optional
        Smallest and largest size (length of linear forms, diameter of others); default: the form's own.

    Raises
    ------
    KeyError
        If the morphology is not drawn here.
    """
    form = FORMS[morphology]
    size = _between(rng, size_mm or form.size_mm)
    width = min(_between(rng, form.width_mm), size) if form.width_mm[1] else size
    mask, step = form.draw(rng, size, width)
    thickness = _solid(mask, step, width, form.depth)
    if morphology is Morphology.AMORPHOUS:
        padded = np.pad(thickness, round(0.3 * width / step))
        thickness = np.asarray(cv2.GaussianBlur(padded, (0, 0), 0.12 * width / step), np.float32)
    return Particle(0.0, 0.0, thickness, step, morphology, form.shape)


def make_track(rng: np.random.Generator, points: NDArray[np.float64]) -> Particle:
    """Return a piece of a calcified vessel wall along points (row, col) in mm, where they lie."""
    form = FORMS[Morphology.VASCULAR]
    middle = 0.5 * (points.min(axis=0) + points.max(axis=0))
    width = _between(rng, form.width_mm)
    mask, step = _stroke(points - middle, np.full(len(points), width))
    row, col = middle.tolist()
    return Particle(row, col, _solid(mask, step, width, form.depth), step, Morphology.VASCULAR, form.shape)


def _solid(mask: BoolImage, step_mm: float, width_mm: float, depth: float) -> FloatImage:
    """Return the thickness of a solid with rounded edges: flat in the middle, so half height lies near its outline."""
    inside = cv2.distanceTransform(np.pad(mask, 2).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * step_mm
    out = 1.0 - np.clip(inside / min(0.3 * width_mm, 0.3), 0.0, 1.0)
    return np.asarray(depth * min(width_mm, 1.5) * np.sqrt(1.0 - out**2), np.float32)


def outline_of(particle: Particle) -> BoolImage:
    """Return where the particle is at least half as thick as it is at most, holes filled; one sample a `step_mm`."""
    half = (particle.thickness_mm > 0.5 * particle.thickness_mm.max()).astype(np.uint8)
    contours, _ = cv2.findContours(half, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(half, contours, -1, 1, cv2.FILLED) > 0)


def border_of(particle: Particle) -> NDArray[np.float64]:
    """Return about 60 points (row, col) of the outline in mm, from the middle of the patch."""
    outline = outline_of(particle)
    inner = cv2.erode(outline.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    points = np.argwhere(outline & ~inner)[:: max(int((outline & ~inner).sum()) // 60, 1)]
    return np.asarray((points - 0.5 * (np.array(outline.shape) - 1)) * particle.step_mm, np.float64)


def size_of(outline: BoolImage, step_mm: float) -> tuple[float, float, float, float]:
    """Return area in mm2, largest and smallest caliper in mm, and the direction of the largest in degrees."""
    rows, cols = np.nonzero(outline)
    angles = np.deg2rad(np.arange(0.0, 180.0, 2.0))
    along = np.outer(np.cos(angles), cols) + np.outer(np.sin(angles), rows)
    calipers = (np.ptp(along, axis=1) + 1.0) * step_mm
    return len(rows) * step_mm**2, calipers.max(), calipers.min(), float(2.0 * calipers.argmax())


def centroid_of(particle: Particle) -> tuple[float, float]:
    """Return (row_mm, col_mm) of the outline's centroid."""
    outline = outline_of(particle)
    away = (np.argwhere(outline).mean(axis=0) - 0.5 * (np.array(outline.shape) - 1)) * particle.step_mm
    return particle.row_mm + float(away[0]), particle.col_mm + float(away[1])


def kind_of(length_mm: float, width_mm: float, morphology: Morphology) -> Kind:
    """Return macro or micro: 1.0 mm wide, or a smooth rod of 0.5 mm; thin linear forms are micro at any length."""
    if morphology in LINEAR_FORMS:
        return Kind.MICRO
    rod = morphology is Morphology.LARGE_ROD_LIKE and width_mm >= 0.5 and length_mm > 1.0
    return Kind.MACRO if width_mm >= 1.0 or rod else Kind.MICRO


def spots_of(
    particles: Sequence[Particle], spacing_mm: tuple[float, float], snr: ArrayLike, cluster_id: ArrayLike
) -> Spots:
    """Return particles as a perfect detector would table them.

    Parameters
    ----------
    particles : sequence of Particle
    spacing_mm : tuple of float
        Of rows and of columns.
    snr, cluster_id : array_like, shape (n,)

    Returns
    -------
    Spots
        Columns that only a measurement can fill are NaN.
    """
    sizes = np.array([size_of(outline_of(p), p.step_mm) for p in particles]).reshape(-1, 4)
    area, length, width, direction = sizes.T
    at = np.array([centroid_of(p) for p in particles]).reshape(-1, 2) / np.array(spacing_mm) - 0.5
    return Spots.blank(
        len(particles),
        spot_id=np.arange(1, len(particles) + 1),
        row_px=at[:, 0],
        col_px=at[:, 1],
        row_mm=at[:, 0] * spacing_mm[0],
        col_mm=at[:, 1] * spacing_mm[1],
        diameter_mm=2.0 * np.sqrt(area / np.pi),
        length_mm=length,
        width_mm=width,
        area_mm2=area,
        snr=snr,
        orientation_deg=direction,
        shape=[int(p.shape) for p in particles],
        kind=[int(kind_of(s[1], s[2], p.morphology)) for s, p in zip(sizes, particles, strict=True)],
        morphology=[int(p.morphology) for p in particles],
        confidence=np.ones(len(particles)),
        cluster_id=cluster_id,
    )


def clusters_of(spots: Spots) -> Clusters:
    """Return the clusters that true spots of one morphology each form, in the order of their numbers."""
    numbers = np.unique(spots.cluster_id[spots.cluster_id > 0])
    members = [spots[spots.cluster_id == number] for number in numbers]
    thin = [(m.shape == Shape.BRANCHING) | ((m.shape == Shape.DASH) & (m.width_mm < 0.5)) for m in members]
    irregular = [t | (m.shape == Shape.IRREGULAR) for t, m in zip(thin, members, strict=True)]
    return Clusters.blank(
        len(numbers),
        cluster_id=numbers,
        row_px=[m.row_px.mean() for m in members],
        col_px=[m.col_px.mean() for m in members],
        n_spots=[len(m) for m in members],
        n_irregular=[int(i.sum()) for i in irregular],
        n_macro=[int((m.kind == Kind.MACRO).sum()) for m in members],
        n_thin=[int(t.sum()) for t in thin],
        extent_mm=[float(pdist(np.stack([m.row_mm, m.col_mm], axis=1)).max(initial=0.0)) for m in members],
        size_cv=[float(m.diameter_mm.std() / m.diameter_mm.mean()) for m in members],
        shape_irregularity=[float(i.mean()) for i in irregular],
        distribution=[int(Distribution.GROUPED) for _ in members],
        morphology=[int(m.morphology[0]) for m in members],
        confidence=np.ones(len(numbers)),
    )


def draw_calcium(particles: Sequence[Particle], shape: tuple[int, int], spacing_mm: float) -> FloatImage:
    """Lay particles on a pixel grid: each pixel holds the mean thickness of calcium over its area.

    Parameters
    ----------
    particles : sequence of Particle
    shape : tuple of int
        Rows and columns.
    spacing_mm : float
        Side of a pixel.

    Returns
    -------
    ndarray of float32, shape (rows, cols)
        Calcium along the beam, in mm.
    """
    calcium = np.zeros(shape, np.float32)
    for p in particles:
        first_row, weights_row = _overlap(p.row_mm, p.thickness_mm.shape[0], p.step_mm, spacing_mm, shape[0])
        first_col, weights_col = _overlap(p.col_mm, p.thickness_mm.shape[1], p.step_mm, spacing_mm, shape[1])
        part = weights_row @ p.thickness_mm @ weights_col.T
        calcium[first_row : first_row + part.shape[0], first_col : first_col + part.shape[1]] += part
    return calcium


def _overlap(centre_mm: float, n: int, step_mm: float, spacing_mm: float, n_px: int) -> tuple[int, NDArray[np.float32]]:
    """Return the first pixel touched, and the share of each pixel (row) that each of `n` samples (column) covers."""
    edges = centre_mm + (np.arange(n + 1) - n / 2) * step_mm
    first = int(np.clip(np.floor(edges[0] / spacing_mm), 0, n_px))
    last = int(np.clip(np.ceil(edges[-1] / spacing_mm), first, n_px))
    pixels = (np.arange(first, last + 1) * spacing_mm)[:, None]
    left = np.maximum(pixels[:-1], edges[None, :-1])
    right = np.minimum(pixels[1:], edges[None, 1:])
    return first, (np.maximum(right - left, 0.0) / spacing_mm).astype(np.float32)


# --------------------------------------------------------------------------------------------------------------
# outlines of the forms: filled on a fine grid


def _between(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1])))) if limits[0] < limits[1] else limits[0]


def _grid(reach_mm: float, step_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = int(np.ceil(reach_mm / step_mm))
    rows, cols = np.mgrid[-n : n + 1, -n : n + 1] * step_mm
    return rows, cols


def _blob(
    rng: np.random.Generator, size_mm: float, squash: float, rough: float, n_lobes: int
) -> tuple[BoolImage, float]:
    """Fill a closed curve about an ellipse; `rough` is the relative height of its lobes."""
    step = min(max(size_mm / 40.0, 0.004), 0.04)
    rows, cols = _grid(0.5 * size_mm * (1.2 + 2.0 * rough) / np.sqrt(squash), step)
    turn = rng.uniform(0.0, np.pi)
    along, across = np.cos(turn) * cols + np.sin(turn) * rows, np.cos(turn) * rows - np.sin(turn) * cols
    radius, angle = np.hypot(along * np.sqrt(squash), across / np.sqrt(squash)), np.arctan2(across, along)
    k = np.arange(2, n_lobes + 2)[:, None, None]
    phase = rng.uniform(0.0, 2.0 * np.pi, k.shape)
    height = rng.normal(0.0, rough, k.shape) / np.sqrt(k - 1.0)
    curve = 0.5 * size_mm * np.maximum(1.0 + (height * np.cos(k * angle + phase)).sum(axis=0), 0.25)
    return radius <= curve, step


def _smooth(rng: np.random.Generator, size_mm: float, _: float) -> tuple[BoolImage, float]:
    return _blob(rng, size_mm, rng.uniform(0.85, 1.0), 0.0, 1)


def _irregular(rng: np.random.Generator, size_mm: float, _: float) -> tuple[BoolImage, float]:
    return _blob(rng, size_mm, rng.uniform(0.55, 0.85), 0.19, 7)


def _hazy(rng: np.random.Generator, size_mm: float, _: float) -> tuple[BoolImage, float]:
    return _blob(rng, size_mm, rng.uniform(0.7, 1.0), 0.1, 4)


def _rim(rng: np.random.Generator, size_mm: float, _: float) -> tuple[BoolImage, float]:
    mask, step = _blob(rng, size_mm, rng.uniform(0.85, 1.0), 0.03, 4)
    wall = max(0.15 * size_mm, 0.12)
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * step
    return mask & (inside <= wall), step


def _popcorn(rng: np.random.Generator, size_mm: float, _: float) -> tuple[BoolImage, float]:
    step = min(size_mm / 80.0, 0.04)
    rows, cols = _grid(0.75 * size_mm, step)
    mask = np.hypot(rows, cols) <= 0.3 * size_mm
    n = int(rng.integers(5, 9))
    for angle in (np.arange(n) + rng.uniform(-0.3, 0.3, n)) * 2.0 * np.pi / n + rng.uniform(0.0, 2.0 * np.pi):
        away, radius = 0.3 * size_mm * rng.uniform(0.7, 1.1), 0.2 * size_mm * rng.uniform(0.6, 1.2)
        mask |= np.hypot(rows - away * np.sin(angle), cols - away * np.cos(angle)) <= radius
    return mask, step


def _stroke(points: NDArray[np.float64], width_mm: NDArray[np.float64]) -> tuple[BoolImage, float]:
    """Fill discs of the given widths along points (row, col) in mm."""
    step = min(max(float(width_mm.min()) / 12.0, 0.004), 0.04)
    reach = float(np.abs(points).max() + width_mm.max())
    middle = int(np.ceil(reach / step))
    mask = np.zeros((2 * middle + 1, 2 * middle + 1), np.uint8)
    for (row, col), width in zip(points / step + middle, 0.5 * width_mm / step, strict=True):
        cv2.circle(mask, (round(col * 16), round(row * 16)), round(width * 16), 1, cv2.FILLED, cv2.LINE_8, 4)
    return mask > 0, step


def _path(rng: np.random.Generator, length_mm: float, bend: float, turn: float) -> NDArray[np.float64]:
    """Return points 0.02 mm apart or less along a bent line about the origin."""
    n = max(int(length_mm / 0.02), 8)
    angle = turn + np.cumsum(rng.normal(0.0, bend / np.sqrt(n), n))
    steps = length_mm / n * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    points = np.cumsum(steps, axis=0)
    return np.asarray(points - points.mean(axis=0), np.float64)


def _dash(rng: np.random.Generator, length_mm: float, width_mm: float) -> tuple[BoolImage, float]:
    points = _path(rng, length_mm - width_mm, 0.35, rng.uniform(0.0, np.pi))
    wobble = np.interp(np.linspace(0, 1, len(points)), np.linspace(0, 1, 6), rng.uniform(0.75, 1.0, 6))
    return _stroke(points, width_mm * wobble)


def _rod(rng: np.random.Generator, length_mm: float, width_mm: float) -> tuple[BoolImage, float]:
    points = _path(rng, length_mm - width_mm, 0.15, rng.uniform(0.0, np.pi))
    return _stroke(points, np.full(len(points), width_mm))


def _branching(rng: np.random.Generator, length_mm: float, width_mm: float) -> tuple[BoolImage, float]:
    turn = rng.uniform(0.0, 2.0 * np.pi)
    trunk = _path(rng, length_mm, 0.3, turn)
    arms = [trunk]
    for side in rng.permutation([-1.0, 1.0])[: rng.integers(1, 3)]:
        arm = _path(rng, length_mm * rng.uniform(0.4, 0.6), 0.2, turn + side * rng.uniform(0.6, 1.0))
        arms.append(arm - arm[0] + trunk[rng.integers(len(trunk) // 3, 2 * len(trunk) // 3)])
    points = np.concatenate(arms)
    return _stroke(points - 0.5 * (points.min(axis=0) + points.max(axis=0)), np.full(len(points), width_mm))


FORMS: Mapping[Morphology, Form] = {
    Morphology.ROUND: Form(_smooth, (0.5, 0.95), (0.0, 0.0), 0.7, Shape.DOT),
    Morphology.PUNCTATE: Form(_smooth, (0.25, 0.48), (0.0, 0.0), 0.7, Shape.DOT),
    Morphology.AMORPHOUS: Form(_hazy, (0.25, 0.45), (0.0, 0.0), 0.5, Shape.DOT),
    Morphology.FINE_PLEOMORPHIC: Form(_irregular, (0.25, 0.6), (0.0, 0.0), 0.6, Shape.IRREGULAR),
    Morphology.COARSE_HETEROGENEOUS: Form(_irregular, (0.8, 1.2), (0.0, 0.0), 0.5, Shape.IRREGULAR),
    Morphology.DYSTROPHIC: Form(_irregular, (1.5, 3.0), (0.0, 0.0), 0.5, Shape.IRREGULAR),
    Morphology.FINE_LINEAR: Form(_dash, (1.0, 4.0), (0.2, 0.45), 0.7, Shape.DASH),
    Morphology.FINE_LINEAR_BRANCHING: Form(_branching, (1.5, 3.5), (0.2, 0.4), 0.7, Shape.BRANCHING),
    Morphology.VASCULAR: Form(_dash, (0.8, 3.0), (0.25, 0.45), 0.6, Shape.DASH),
    Morphology.RIM: Form(_rim, (1.0, 4.0), (0.0, 0.0), 0.4, Shape.RIM),
    Morphology.LARGE_ROD_LIKE: Form(_rod, (3.0, 8.0), (0.55, 1.0), 0.7, Shape.DASH),
    Morphology.COARSE: Form(_popcorn, (2.5, 8.0), (0.0, 0.0), 0.5, Shape.IRREGULAR),
}
"""The forms that can be drawn; sizes by BI-RADS (5th edition)."""
