"""Calcifications put into real mammograms by physics: the set that tells whether drawn ones teach what is real.

Grains grow in three dimensions (as cells do: Eden 1961, Proceedings of the Fourth Berkeley Symposium, volume 4) and are
projected along the beam; what they take from it is multiplied in linear exposure and blurred as the image is, and the
noise rises where fewer quanta are left. None of these shapes is made by `detector.evaluate.particles`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from detector.breast import find_breast
from detector.evaluate import particles as solids
from detector.evaluate.anatomy import FAT_PER_MM, GLAND_PER_MM
from detector.evaluate.insertion import Insertion, Planned, local_noise, plan_particles, truth_of
from detector.evaluate.phantoms import Truth
from detector.records import BreastRegion, FloatImage, Mammogram, Morphology, Shape
from detector.settings import BreastSettings

LATTICE = 23
"""Side in voxels of the cube that a grain grows in, from its middle."""
GRAIN_STEP_MM = 0.02
"""Coarsest sampling of a projected grain."""
GROWTH: Mapping[Morphology, tuple[tuple[float, float], tuple[float, float]]] = {
    Morphology.PUNCTATE: ((0.2, 0.4), (1.0, 1.2)),
    Morphology.ROUND: ((0.1, 0.3), (1.0, 1.1)),
    Morphology.AMORPHOUS: ((1.6, 2.4), (1.0, 1.4)),
    Morphology.FINE_PLEOMORPHIC: ((0.6, 1.6), (1.2, 2.6)),
}
"""Least and greatest unevenness (log standard deviation of the passage times) and elongation of a form's grains."""
THICKNESS_MM, DENSE_SHARE = 45.0, 0.6
"""Compressed breast, and share of gland where it is densest: what a breast's range of grey levels stands for."""
DEEP_MM = 10.0
"""Distance from the skin from which the compressed breast is of even thickness."""
HIGH_PASS_MM = 0.3
"""Standard deviation of the Gaussian that takes structure out of the noise."""
OTHER_BLUR_MM = 0.04
"""Blur of focal spot, movement and screen, which grain and quanta do not show (half contrast at 4 to 5 lp/mm)."""


@dataclass(frozen=True)
class Beam:
    """How an image answers to exposure.

    Attributes
    ----------
    gain : float
        Grey levels per unit of natural logarithm of exposure.
    grain_px : float
        Standard deviation of the Gaussian that the noise has been through.
    blur_mm : float
        Standard deviation of the whole system's blur.
    """

    gain: float
    grain_px: float
    blur_mm: float


def insert_physically(mammogram: Mammogram, seed: int, insertion: Insertion | None = None) -> tuple[Mammogram, Truth]:
    """Put grown calcifications into a mammogram.

    Parameters
    ----------
    mammogram : Mammogram
        Bright = dense; taken as logarithm of exposure, which film and processed images are nearly.
    seed : int
        The same seed gives the same image.
    insertion : Insertion, optional
        Default: numbers, places and sizes of the standard set. The contrast is that of a cluster's middling grain; the
        others follow from their thickness.

    Returns
    -------
    mammogram : Mammogram
        A copy with the calcifications added; the same pixels where their contrast is zero.
    truth : Truth
        `snr` holds the peak after blur in units of the local noise.
    """
    insertion = insertion or Insertion()
    rng = np.random.default_rng([seed, 0xBEA3])
    breast = find_breast(mammogram, BreastSettings())
    planned = plan_particles(rng, insertion, mammogram, breast, grow_grain)
    if not planned:
        return mammogram, truth_of(planned, mammogram, breast)
    beam, noise = measure_beam(mammogram, breast), local_noise(mammogram, breast)
    cell_mm = breast.step_px * mammogram.pixel_mm
    grains = [_Grain.of(item, mammogram, beam, _level_at(noise, item.particle, cell_mm)) for item in planned]
    heights = _contrasts(planned, grains)
    pixels = mammogram.pixels.copy()
    for grain, contrast in zip(grains, heights, strict=True):
        _attenuate(pixels, grain, contrast, beam, rng)
    np.minimum(pixels, mammogram.pixels.max(), out=pixels)
    told = [dataclasses.replace(item, contrast=height) for item, height in zip(planned, heights, strict=True)]
    return dataclasses.replace(mammogram, pixels=pixels), truth_of(told, mammogram, breast)


# --------------------------------------------------------------------------------------------------------------
# grains


def grow_grain(
    rng: np.random.Generator, morphology: Morphology, size_mm: tuple[float, float] | None = None
) -> solids.Particle:
    """Grow a grain on a lattice from its middle until it meets the border, and project it.

    Each voxel takes a random time to pass; what is reached first is grain. Even times make smooth grains, uneven ones
    rough and branched ones; a random metric makes them longer in one direction of space.

    Parameters
    ----------
    rng : numpy.random.Generator
    morphology : Morphology
        One of the keys of `GROWTH`.
    size_mm : tuple of float, optional
        Least and greatest diameter of the circle of equal area; default 0.2 to 0.5 mm.

    Raises
    ------
    KeyError
        If there is no law of growth for the form.
    """
    unevenness, elongation = (rng.uniform(*limits) for limits in GROWTH[morphology])
    reached = _arrival(rng, unevenness, elongation)
    inner = np.pad(np.ones((LATTICE - 2,) * 3, np.bool_), 1)
    grain = reached < reached[~inner].min()
    # single voxels are far below any system's blur
    along = np.pad(grain.sum(axis=0).astype(np.float32), 4)
    thickness = np.asarray(cv2.GaussianBlur(along, (7, 7), 1.0), np.float32)
    size = float(rng.uniform(*(size_mm or (0.2, 0.5))))
    step = size / (2.0 * math.sqrt(np.count_nonzero(thickness > 0.5 * thickness.max()) / math.pi))
    thickness *= np.float32(step)
    finer = max(1, math.ceil(step / GRAIN_STEP_MM))
    if finer > 1:
        thickness = np.asarray(cv2.resize(thickness, None, fx=finer, fy=finer, interpolation=cv2.INTER_LINEAR))
    shape = Shape.DOT if elongation < 1.5 and unevenness < 0.5 else Shape.IRREGULAR
    return solids.Particle(0.0, 0.0, thickness, step / finer, morphology, shape)


def _arrival(rng: np.random.Generator, unevenness: float, elongation: float) -> NDArray[np.float64]:
    """Return when growth from the middle reaches each voxel, shape (LATTICE,) * 3."""
    start, end, direction = _lattice()
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    # lengths along the axis are shorter by the elongation
    along = direction @ axis
    length = np.sqrt((direction**2).sum(axis=1) - (1 - elongation**-2) * along**2)
    time = np.exp(unevenness * rng.normal(size=LATTICE**3))
    weight = length * (time[start] + time[end])
    graph = csr_array((weight, (start, end)), shape=(LATTICE**3,) * 2)
    arrival = dijkstra(graph, directed=False, indices=LATTICE**3 // 2)
    return np.asarray(arrival.reshape((LATTICE,) * 3), np.float64)


@functools.cache
def _lattice() -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Return the pairs of voxels that touch by face, edge or corner, and the way from one to the other."""
    number = np.arange(LATTICE**3, dtype=np.int32).reshape((LATTICE,) * 3)
    starts, ends, ways = [], [], []
    for way in np.ndindex(3, 3, 3):
        away = np.array(way) - 1
        if tuple(away) > (0, 0, 0):
            here = tuple(slice(max(0, -d), LATTICE - max(0, d)) for d in away)
            there = tuple(slice(max(0, d), LATTICE - max(0, -d)) for d in away)
            starts.append(number[here].ravel())
            ends.append(number[there].ravel())
            ways.append(np.broadcast_to(away.astype(np.float64), (starts[-1].size, 3)))
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(ways)


# --------------------------------------------------------------------------------------------------------------
# the beam


def measure_beam(mammogram: Mammogram, breast: BreastRegion) -> Beam:
    """Return what the image tells of its exposure and blur.

    The gain follows from the range of grey levels deep in the breast, taken for that from fat to mostly gland; the
    blur from how alike neighbouring pixels of noise are.

    Parameters
    ----------
    mammogram : Mammogram
    breast : BreastRegion
        Of this mammogram, not empty.
    """
    cells = np.argwhere(_depth_mm(mammogram, breast) > DEEP_MM)
    if not len(cells):
        cells = np.argwhere(breast.zones > 0)
    rows, cols = (cells * breast.step_px + breast.step_px // 2).T
    low, high = np.percentile(mammogram.pixels[rows, cols], [5, 95])
    range_of_log = THICKNESS_MM * (GLAND_PER_MM - FAT_PER_MM) * DENSE_SHARE
    grain_px = _grain_px(_neighbour_correlation(mammogram, rows, cols), HIGH_PASS_MM / mammogram.pixel_mm)
    blur_mm = math.hypot(grain_px * mammogram.pixel_mm, OTHER_BLUR_MM)
    return Beam(max(float(high - low), 1e-6) / range_of_log, grain_px, blur_mm)


def _depth_mm(mammogram: Mammogram, breast: BreastRegion) -> FloatImage:
    inside = np.pad((breast.zones > 0).astype(np.uint8), 1)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return np.asarray(depth * np.float32(breast.step_px * mammogram.pixel_mm), np.float32)


def _neighbour_correlation(mammogram: Mammogram, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> float:
    """Return the median correlation of neighbouring pixels within 32 pixels a side, in the quieter half of places."""
    every = max(1, len(rows) // 600)
    side = 32
    height, width = mammogram.pixels.shape
    found = []
    for row, col in zip(rows[::every].tolist(), cols[::every].tolist(), strict=True):
        top, left = min(row, height - side), min(col, width - side)
        part = mammogram.pixels[max(top, 0) : top + side, max(left, 0) : left + side]
        part = part - cv2.GaussianBlur(part, (0, 0), HIGH_PASS_MM / mammogram.pixel_mm)
        variance = float((part * part).mean())
        if variance > 0:
            pair = 0.5 * float((part[1:] * part[:-1]).mean() + (part[:, 1:] * part[:, :-1]).mean())
            found.append((variance, pair / variance))
    if not found:
        return 0.0
    variances, correlations = np.array(found).T
    return float(np.median(correlations[variances <= np.median(variances)]))


def _grain_px(correlation: float, high_pass_px: float) -> float:
    """Return the Gaussian through which white noise gets a correlation with its neighbour, less a wider Gaussian of it.

    Its autocorrelation is that of three Gaussians, of variance 2 s**2 and one and two of the wider one's more.
    """
    sigma = np.linspace(0.2, 3.0, 281)
    apart = np.zeros((2, len(sigma)))
    for sign, more in ((1, 0), (-2, 1), (1, 2)):
        variance = 2 * sigma**2 + more * high_pass_px**2
        apart += sign / variance * np.exp(-np.array([[0.0], [1.0]]) / (2 * variance))
    return float(np.interp(correlation, apart[1] / apart[0], sigma))


@dataclass(frozen=True, eq=False)
class _Grain:
    """A projected grain: where its box of pixels starts, its thickness there, the peak of that blurred, local noise."""

    start_px: tuple[int, int]
    thickness_mm: FloatImage
    peak_mm: float
    blur_px: float
    noise: float

    @classmethod
    def of(cls, item: Planned, mammogram: Mammogram, beam: Beam, noise: float) -> _Grain:
        particle, pixel_mm = item.particle, mammogram.pixel_mm
        half_mm = 0.5 * max(particle.thickness_mm.shape) * particle.step_mm + 4 * beam.blur_mm
        middle = particle.row_mm / pixel_mm, particle.col_mm / pixel_mm
        spans = []
        for at, n in zip(middle, mammogram.pixels.shape, strict=True):
            start = max(math.floor(at - half_mm / pixel_mm), 0)
            spans.append((start, min(math.ceil(at + half_mm / pixel_mm) + 1, n)))
        (top, bottom), (left, right) = spans
        local = particle.moved(particle.row_mm - top * pixel_mm, particle.col_mm - left * pixel_mm)
        thickness = solids.draw_calcium([local], (bottom - top, right - left), pixel_mm)
        blur_px = beam.blur_mm / pixel_mm
        blurred = cv2.GaussianBlur(thickness, (0, 0), blur_px)
        return cls((top, left), thickness, max(float(blurred.max()), 1e-9), blur_px, noise)


def _level_at(noise: FloatImage, particle: solids.Particle, cell_mm: float) -> float:
    rows, cols = noise.shape
    return float(noise[min(int(particle.row_mm / cell_mm), rows - 1), min(int(particle.col_mm / cell_mm), cols - 1)])


def _contrasts(planned: Sequence[Planned], grains: Sequence[_Grain]) -> list[float]:
    """Return each grain's peak in units of noise: its cluster's, by its own thickness over that of the middling one."""
    clusters = np.array([item.cluster for item in planned])
    peaks = np.array([grain.peak_mm for grain in grains])
    middling = {number: float(np.median(peaks[clusters == number])) for number in set(clusters.tolist()) - {0}}
    return [
        item.contrast * peak / middling.get(item.cluster, peak)
        for item, peak in zip(planned, peaks.tolist(), strict=True)
    ]


def _attenuate(pixels: FloatImage, grain: _Grain, contrast: float, beam: Beam, rng: np.random.Generator) -> None:
    """Take from the exposure what the grain absorbs, blurred, and add the noise of the quanta that are missing."""
    if contrast <= 0:
        return
    per_mm = contrast * grain.noise / (beam.gain * grain.peak_mm)
    passed = np.exp(-np.float32(per_mm) * grain.thickness_mm)
    (top, left), (rows, cols) = grain.start_px, passed.shape
    part = pixels[top : top + rows, left : left + cols]
    passed = np.asarray(cv2.GaussianBlur(passed, (0, 0), grain.blur_px), np.float32)
    # the pixels' own noise is that of the open beam and is weakened with it: what is missing is added
    missing = np.float32(grain.noise) * np.sqrt(np.maximum(1 / passed - 1, 0))
    part += missing * _noise(rng, passed.shape, beam.grain_px) - np.float32(beam.gain) * np.log(passed)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], grain_px: float) -> FloatImage:
    """Return noise of unit variance as correlated as the image's."""
    white = rng.standard_normal(shape, np.float32)
    kernel = cv2.getGaussianKernel(2 * math.ceil(4 * grain_px) + 1, grain_px, cv2.CV_32F)
    return np.asarray(cv2.sepFilter2D(white, -1, kernel, kernel) / np.float32((kernel**2).sum()), np.float32)
