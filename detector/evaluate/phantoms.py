"""Seeded mammograms of breasts that never were, with the exact truth of what lies in them.

The anatomy is made on a grid in mm that does not depend on the pixels, so that one seed is one breast at every pixel
size; only the noise is drawn a pixel. The beam is followed in linear exposure (transmission, quanta, blur, electronic
noise), and the logarithm is taken at the end.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.evaluate import particles as solids
from detector.evaluate.anatomy import GRID_MM, Breast, Points, make_breast, resample
from detector.evaluate.particles import CALCIUM_PER_MM
from detector.evaluate.placement import Placed, place_groups
from detector.evaluate.recipes import Group, Recipe
from detector.records import Clusters, Distribution, FloatImage, Identity, Mammogram, SpacingSource, Spots

__all__ = ["Group", "Recipe", "Truth", "expose", "make_phantom"]

LOG_GAIN = 1000.0
"""Pixel values per unit of log exposure, so that 12 to 14 bits hold a phantom."""
OPEN_LEVEL = 100.0
"""Pixel value of air: keeps noise above zero."""
FINEST_PIXEL_MM = 0.045
"""Coarser pixels are exposed in halves or quarters down to this size and averaged, so that one seed gives one exposure,
however it is sampled."""
ELECTRONIC_QUANTA = 1.5
"""Standard deviation of the electronic noise of a pixel, in quanta: small beside the hundreds that a pixel catches."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What lies in a phantom: `spots` and `clusters` as a perfect detector would table them, and the anatomy.

    Sizes are those of the solids at half of their greatest thickness, before the detector's blur. Columns that only
    a measurement can fill (contrast, solidity and others) are NaN. `snr` is the peak over the noise of a pixel.
    Outlines are (row, col) in px.
    """

    spots: Spots
    clusters: Clusters
    breast_outline: NDArray[np.float32]
    pectoral_outline: NDArray[np.float32]
    nipple_px: tuple[float, float]


def make_phantom(seed: int = 1, recipe: Recipe | None = None) -> tuple[Mammogram, Truth]:
    """Make a mammogram of a breast that never was.

    Parameters
    ----------
    seed : int
        The same seed gives the same breast at every pixel size, if rows and cols times spacing are the same.
    recipe : Recipe, optional

    Returns
    -------
    mammogram : Mammogram
        Log exposure, bright = dense; 1000 grey levels per unit of natural logarithm.
    truth : Truth

    Raises
    ------
    ValueError
        If a group does not fit into the breast.
    """
    recipe = recipe or Recipe()
    anatomy_seed, calcium_seed, noise_seed = np.random.SeedSequence(seed).spawn(3)
    breast = make_breast(np.random.default_rng(anatomy_seed), recipe)
    placed = place_groups(calcium_seed, recipe, breast)
    fine = _exposed_grid(recipe)
    calcium = np.zeros((fine.rows, fine.cols), np.float32)
    for group, members in placed:
        if group.contrast:
            calcium += group.contrast * CALCIUM_PER_MM * solids.draw_calcium(members, calcium.shape, fine.spacing_mm)
    tissue = _on_pixels(breast.attenuation, fine) * _inside(breast, fine)
    pixels = expose(tissue + calcium, recipe, np.random.default_rng(noise_seed))
    tissue, calcium = _averaged(tissue, recipe), _averaged(calcium, recipe)
    truth = _truth(placed, breast, recipe, _peaks(placed, tissue, calcium, recipe))
    if recipe.side == "R":
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    return Mammogram(pixels, _identity(seed, recipe)), truth


def _identity(seed: int, recipe: Recipe) -> Identity:
    return Identity(
        image_id=f"phantom-{seed}-{recipe.side}{recipe.view}",
        side=recipe.side,
        view=recipe.view,
        rows=recipe.rows,
        cols=recipe.cols,
        spacing_mm=(recipe.spacing_mm, recipe.spacing_mm),
        spacing_source=SpacingSource.GIVEN,
    )


def _exposed_grid(recipe: Recipe) -> Recipe:
    """Return the recipe on the grid that it is exposed on: pixels cut in halves or quarters."""
    parts = 2 ** int(np.clip(np.floor(np.log2(recipe.spacing_mm / FINEST_PIXEL_MM)), 0, 2))
    return dataclasses.replace(
        recipe, rows=parts * recipe.rows, cols=parts * recipe.cols, spacing_mm=recipe.spacing_mm / parts
    )


def _averaged(image: FloatImage, recipe: Recipe) -> FloatImage:
    """Return the means over the recipe's pixels of an image on a finer grid."""
    if image.shape == (recipe.rows, recipe.cols):
        return image
    return np.asarray(cv2.resize(image, (recipe.cols, recipe.rows), interpolation=cv2.INTER_AREA), np.float32)


def expose(attenuation: FloatImage, recipe: Recipe, rng: np.random.Generator) -> FloatImage:
    """Return the log pixels of a total attenuation: quanta, blur, electronic noise, logarithm, mean over each pixel.

    Quantum noise is taken as normal, which holds for the hundreds of quanta a pixel catches; it passes the
    detector's blur, as the light of a scintillator does.

    Parameters
    ----------
    attenuation : ndarray of float32
        On the recipe's pixels or on equal parts of them.
    recipe : Recipe
    rng : numpy.random.Generator
    """
    spacing_mm = recipe.spacing_mm * recipe.rows / attenuation.shape[0]
    open_field = recipe.quanta_per_mm2 * spacing_mm**2
    quanta = open_field * np.exp(-attenuation)
    quanta += np.sqrt(quanta) * rng.standard_normal(quanta.shape, np.float32)
    if recipe.blur_mm > 0:
        quanta = np.asarray(cv2.GaussianBlur(quanta, (0, 0), recipe.blur_mm / spacing_mm), np.float32)
    quanta += np.float32(ELECTRONIC_QUANTA) * rng.standard_normal(quanta.shape, np.float32)
    quanta = _averaged(quanta, recipe)
    np.maximum(quanta, 1.0, out=quanta)
    return np.asarray(OPEN_LEVEL - LOG_GAIN * np.log(quanta / np.float32(open_field)), np.float32)


def _on_pixels(image: FloatImage, recipe: Recipe) -> FloatImage:
    step = recipe.spacing_mm / GRID_MM
    if step > 1.0:  # the mean over a pixel, not a sample
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.3 * step), np.float32)
    return resample(image, step, 0.5 * step, (recipe.rows, recipe.cols))


def _inside(breast: Breast, recipe: Recipe) -> FloatImage:
    """Return the share of each pixel that lies inside the skin line."""
    share = np.clip(_on_pixels(breast.depth_mm, recipe) / np.float32(recipe.spacing_mm) + 0.5, 0.0, 1.0)
    return np.asarray(share, np.float32)


def _peaks(placed: Placed, tissue: FloatImage, calcium: FloatImage, recipe: Recipe) -> Points:
    """Return the height of each particle after the detector's blur over the noise of a pixel of tissue beside it."""
    sigma_px = max(recipe.blur_mm / recipe.spacing_mm, 1e-3)
    kernel = cv2.getGaussianKernel(2 * int(np.ceil(4.0 * sigma_px)) + 1, sigma_px)
    open_field = recipe.quanta_per_mm2 * recipe.spacing_mm**2
    peaks = []
    for particle in (p for _, members in placed for p in members):
        half = 0.5 * particle.step_mm * np.array(particle.thickness_mm.shape) + 3.0 * recipe.blur_mm
        middle = np.array([particle.row_mm, particle.col_mm])
        start = np.maximum(np.floor((middle - half) / recipe.spacing_mm), 0).astype(int)
        stop = np.ceil((middle + half) / recipe.spacing_mm).astype(int)
        box = (slice(start[0], stop[0]), slice(start[1], stop[1]))
        height = cv2.sepFilter2D(calcium[box], -1, kernel, kernel).max()
        quanta = open_field * np.exp(-np.median(tissue[box]))
        noise = np.sqrt(quanta * (kernel**2).sum() ** 2 + ELECTRONIC_QUANTA**2) / quanta
        peaks.append(height / noise)
    return np.array(peaks)


def _truth(placed: Placed, breast: Breast, recipe: Recipe, snr: Points) -> Truth:
    cluster_of: list[int] = []
    groups: list[Group] = []
    for group, members in placed:
        is_cluster = len(members) >= 3 and group.distribution is not Distribution.DIFFUSE
        groups += [group] * is_cluster
        cluster_of += [len(groups) * is_cluster] * len(members)
    spacing = (recipe.spacing_mm, recipe.spacing_mm)
    spots = solids.spots_of([p for _, members in placed for p in members], spacing, snr, cluster_of)
    if recipe.side == "R":
        col_px = recipe.cols - 1 - spots.col_px
        direction = (180.0 - spots.orientation_deg) % 180.0
        spots = spots.replace(col_px=col_px, col_mm=col_px * recipe.spacing_mm, orientation_deg=direction)
    clusters = solids.clusters_of(spots).replace(
        distribution=[int(group.distribution) for group in groups], review=[group.is_suspicious for group in groups]
    )
    outline, muscle, nipple = (_px(p, recipe) for p in (breast.outline, breast.pectoral, np.array([breast.nipple])))
    return Truth(spots, clusters, outline, muscle, (float(nipple[0, 0]), float(nipple[0, 1])))


def _px(points: Points, recipe: Recipe) -> NDArray[np.float32]:
    """Return points (row, col) in mm as pixels of the image, mirrored for a right breast."""
    out = points / recipe.spacing_mm - 0.5
    if recipe.side == "R":
        out[:, 1] = recipe.cols - 1 - out[:, 1]
    return out.astype(np.float32)
