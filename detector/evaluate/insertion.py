"""Calcifications put into real mammograms, so that their truth is exact: the standard set and training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.breast import find_breast
from detector.evaluate import particles as solids
from detector.evaluate.phantoms import Truth
from detector.records import LINEAR_FORMS, BoolImage, BreastRegion, FloatImage, Mammogram, Morphology
from detector.settings import BreastSettings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Insertion:
    """What is put into an image; the defaults are the standard set.

    Contrasts are the particle's peak after blur in units of the local noise (`local_noise`).

    Attributes
    ----------
    n_clusters, n_macros : int
        Clusters of microcalcifications, and single macrocalcifications.
    n_particles : tuple of int
        Least and most particles of a cluster.
    radius_mm : tuple of float
        Least and greatest radius of the disc that a cluster is spread over.
    diameter_mm : tuple of float
        Median, log standard deviation, least and greatest diameter of a particle (length of linear forms).
    contrast : tuple of float
        Least and greatest contrast of a cluster, log-uniform.
    contrast_spread : tuple of float
        Factor of each particle.
    macro_mm, macro_contrast : tuple of float
        Diameters and contrasts of macrocalcifications.
    forms : tuple of Morphology
        A cluster's particles are of one of these.
    macro_forms : tuple of Morphology
    margin_mm : float
        Least distance from the breast's border.
    blur_mm : float
        Standard deviation of the system's blur; at least half a pixel is taken.
    """

    n_clusters: int = 3
    n_macros: int = 3
    n_particles: tuple[int, int] = (6, 20)
    radius_mm: tuple[float, float] = (2.0, 5.0)
    diameter_mm: tuple[float, float, float, float] = (0.3, 0.3, 0.16, 0.8)
    contrast: tuple[float, float] = (2.5, 9.0)
    contrast_spread: tuple[float, float] = (0.75, 1.35)
    macro_mm: tuple[float, float] = (1.2, 2.6)
    macro_contrast: tuple[float, float] = (8.0, 20.0)
    forms: tuple[Morphology, ...] = (Morphology.PUNCTATE, Morphology.AMORPHOUS, Morphology.FINE_PLEOMORPHIC)
    macro_forms: tuple[Morphology, ...] = (Morphology.ROUND,)
    margin_mm: float = 8.0
    blur_mm: float = 0.045


@dataclass(frozen=True)
class Planned:
    """One particle and where it goes, with its peak in noise units and its cluster (0: none)."""

    particle: solids.Particle
    contrast: float
    cluster: int


def insert_calcifications(
    mammogram: Mammogram, seed: int, insertion: Insertion | None = None
) -> tuple[Mammogram, Truth]:
    """Put drawn calcifications into a mammogram.

    Parameters
    ----------
    mammogram : Mammogram
    seed : int
        The same seed gives the same image.
    insertion : Insertion, optional
        Default: the standard set.

    Returns
    -------
    mammogram : Mammogram
        A copy with the calcifications added; the same pixels where their contrast is zero.
    truth : Truth
        `snr` holds the contrast in units of the local noise.
    """
    insertion = insertion or Insertion()
    rng = np.random.default_rng([seed, 0x5EED])
    breast = find_breast(mammogram, BreastSettings())
    planned = plan_particles(rng, insertion, mammogram, breast)
    noise = local_noise(mammogram, breast)
    pixels = mammogram.pixels.copy()
    for item in planned:
        _add(pixels, item, noise, mammogram.pixel_mm, max(insertion.blur_mm, 0.5 * mammogram.pixel_mm))
    inserted = dataclasses.replace(mammogram, pixels=pixels)
    return inserted, truth_of(planned, mammogram, breast)


def local_noise(mammogram: Mammogram, breast: BreastRegion) -> FloatImage:
    """Return the standard set's noise, one value a cell of the zone map.

    Root of the local mean (Gaussian 3 mm) of the squared difference between the image and its Gaussian of 0.15 mm,
    squares clipped at their 99th percentile within the breast.
    """
    pixel_mm, step = mammogram.pixel_mm, breast.step_px
    squares = mammogram.pixels - cv2.GaussianBlur(mammogram.pixels, (0, 0), 0.15 / pixel_mm)
    np.square(squares, out=squares)
    inside = _full_mask(breast, mammogram.pixels.shape)
    limit = float(np.percentile(squares[inside], 99)) if inside.any() else 0.0
    np.minimum(squares, np.float32(limit), out=squares)
    rows, cols = breast.zones.shape
    border = (0, rows * step - squares.shape[0], 0, cols * step - squares.shape[1])
    padded = cv2.copyMakeBorder(squares, *border, cv2.BORDER_REPLICATE)
    cells = cv2.resize(padded, (cols, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(np.sqrt(cv2.GaussianBlur(cells, (0, 0), 3.0 / (step * pixel_mm))), np.float32)


def _full_mask(breast: BreastRegion, shape: tuple[int, ...]) -> BoolImage:
    whole = np.repeat(np.repeat(breast.zones > 0, breast.step_px, axis=0), breast.step_px, axis=1)
    return whole[: shape[0], : shape[1]]


Maker = Callable[[np.random.Generator, Morphology, tuple[float, float] | None], solids.Particle]
"""Makes a particle of a form and, unless that is None, of a size between two; `particles.make_particle` is one."""


def plan_particles(
    rng: np.random.Generator,
    insertion: Insertion,
    mammogram: Mammogram,
    breast: BreastRegion,
    make: Maker = solids.make_particle,
) -> list[Planned]:
    """Draw all particles and their places; none touches another."""
    allowed = _allowed(breast, mammogram.pixel_mm, insertion.margin_mm)
    planned: list[Planned] = []
    if not len(allowed):
        return planned
    cell_mm = breast.step_px * mammogram.pixel_mm
    for cluster in range(1, insertion.n_clusters + 1):
        middle = (allowed[rng.integers(len(allowed))] + 0.5) * cell_mm
        form = insertion.forms[rng.integers(len(insertion.forms))]
        radius = rng.uniform(*insertion.radius_mm)
        contrast = _log_uniform(rng, insertion.contrast)
        for _ in range(rng.integers(insertion.n_particles[0], insertion.n_particles[1] + 1)):
            size = _diameter(rng, insertion)
            # linear forms keep their own lengths, which the diameters of grains say nothing of
            particle = make(rng, form, None if form in LINEAR_FORMS else (size, size))
            for _try in range(30):
                turn, away = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.uniform())
                placed = particle.moved(middle[0] + away * np.sin(turn), middle[1] + away * np.cos(turn))
                if _is_inside(placed, breast, cell_mm) and _is_clear(placed, planned):
                    factor = rng.uniform(*insertion.contrast_spread)
                    planned.append(Planned(placed, contrast * factor, cluster))
                    break
    for _ in range(insertion.n_macros):
        form = insertion.macro_forms[rng.integers(len(insertion.macro_forms))]
        size = rng.uniform(*insertion.macro_mm)
        particle = make(rng, form, (size, size))
        for _try in range(30):
            row, col = (allowed[rng.integers(len(allowed))] + 0.5) * cell_mm
            if _is_clear(placed := particle.moved(row, col), planned):
                planned.append(Planned(placed, _log_uniform(rng, insertion.macro_contrast), 0))
                break
    return planned


def _allowed(breast: BreastRegion, pixel_mm: float, margin_mm: float) -> NDArray[np.int64]:
    """Return the cells (row, col) that lie deep enough inside the breast."""
    inside = np.pad((breast.zones > 0).astype(np.uint8), 1)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return np.argwhere(depth * breast.step_px * pixel_mm >= margin_mm)


def _diameter(rng: np.random.Generator, insertion: Insertion) -> float:
    median, sigma, least, greatest = insertion.diameter_mm
    while True:
        size = float(median * np.exp(sigma * rng.normal()))
        if least <= size <= greatest:
            return size


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(np.maximum(limits, 1e-12))))) if limits[1] > 0 else 0.0


def _is_inside(particle: solids.Particle, breast: BreastRegion, cell_mm: float) -> bool:
    """Return whether the particle's middle lies in the breast."""
    row, col = int(particle.row_mm // cell_mm), int(particle.col_mm // cell_mm)
    rows, cols = breast.zones.shape
    return 0 <= row < rows and 0 <= col < cols and bool(breast.zones[row, col])


def _is_clear(particle: solids.Particle, planned: list[Planned]) -> bool:
    """Return whether the particle keeps 0.15 mm away from all others, taken as discs."""
    radius = _radius(particle)
    return all(
        np.hypot(particle.row_mm - p.particle.row_mm, particle.col_mm - p.particle.col_mm)
        > radius + _radius(p.particle) + 0.15
        for p in planned
    )


def _radius(particle: solids.Particle) -> float:
    return float(0.4 * max(particle.thickness_mm.shape) * particle.step_mm)


def _add(pixels: FloatImage, item: Planned, noise: FloatImage, pixel_mm: float, blur_mm: float) -> None:
    """Add one particle to the pixels, blurred, its peak at its contrast times the noise of its place."""
    particle = item.particle
    reach = int(np.ceil((0.5 * max(particle.thickness_mm.shape) * particle.step_mm + 4 * blur_mm) / pixel_mm)) + 1
    row, col = int(particle.row_mm / pixel_mm), int(particle.col_mm / pixel_mm)
    start_row, start_col = max(row - reach, 0), max(col - reach, 0)
    part = pixels[start_row : row + reach + 1, start_col : col + reach + 1]
    local = particle.moved(particle.row_mm - start_row * pixel_mm, particle.col_mm - start_col * pixel_mm)
    shape = (part.shape[0], part.shape[1])
    calcium = cv2.GaussianBlur(solids.draw_calcium([local], shape, pixel_mm), (0, 0), blur_mm / pixel_mm)
    step = -(-pixels.shape[0] // noise.shape[0])
    sigma = noise[min(row // step, noise.shape[0] - 1), min(col // step, noise.shape[1] - 1)]
    if item.contrast > 0:
        part += np.float32(item.contrast * sigma / max(float(calcium.max()), 1e-12)) * np.asarray(calcium)


def truth_of(planned: Sequence[Planned], mammogram: Mammogram, breast: BreastRegion) -> Truth:
    """Return planned particles as a perfect detector would table them, with the anatomy."""
    particles = [p.particle for p in planned]
    contrasts, numbers = [p.contrast for p in planned], [p.cluster for p in planned]
    spots = solids.spots_of(particles, mammogram.spacing_mm, contrasts, numbers)
    nipple = breast.nipple[:2] if breast.nipple else (np.nan, np.nan)
    outlines = breast.outline, breast.pectoral_outline
    return Truth(spots, solids.clusters_of(spots), *outlines, (float(nipple[0]), float(nipple[1])))
