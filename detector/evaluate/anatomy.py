"""The breast of a phantom: outline, thickness, glandular tissue, strands, vessels and muscle.

All is made on a grid in mm that does not depend on the pixels; the chest wall is at column 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.spatial import cKDTree

from detector.evaluate.recipes import Recipe
from detector.records import BoolImage, FloatImage

Points = NDArray[np.float64]

FAT_PER_MM, GLAND_PER_MM, SKIN_PER_MM = 0.0456, 0.0802, 0.0802
"""Attenuation at 20 keV (Johns and Yaffe 1987, doi 10.1088/0031-9155/32/6/002); skin is taken as gland."""
GRID_MM = 0.15
"""Tissue has next to no power that a finer grid would show."""
SKIN_MM = 1.5
"""Normal skin is 0.5 to 3 mm thick (Huang 2008, doi 10.1118/1.2841938)."""
VESSEL_STEP_MM = 0.5
MLO_PROFILE = ((-1.0, -0.6, -0.2, 0.2, 0.45, 0.7, 0.9, 1.0), (0.5, 0.66, 0.84, 0.99, 0.98, 0.78, 0.36, 0.0))
"""Depth of an MLO breast, as a share of the greatest, from the arm (-1) to the fold under the breast (1)."""
STRANDS = (
    (20.0, 0.06, 0.12, 4.0),
    (20.0, 0.12, 0.10, 5.0),
    (12.0, 0.07, 0.10, 4.0),
    (12.0, 0.14, 0.07, 3.0),
    (6.0, 0.10, 0.08, 3.0),
    (4.0, 0.12, 0.06, 2.0),
)
"""Sheets of ligament seen edge on: longest wave in mm, relative width, height as a share of gland, stretch on rays."""


@dataclass(frozen=True, eq=False)
class Vessel:
    """A bent tube; its points (row, col) in mm lie VESSEL_STEP_MM apart."""

    points: Points
    radius_mm: float


@dataclass(frozen=True, eq=False)
class Breast:
    """A breast without its calcifications.

    Attributes
    ----------
    outline, pectoral : ndarray of float64, shape (n, 2)
        Skin line, and muscle as a polygon (may be empty), (row, col) in mm.
    nipple : tuple of float
        (row, col) in mm.
    attenuation : ndarray of float32
        Logarithm of what the breast takes from the beam, every GRID_MM.
    depth_mm : ndarray of float32
        Distance inside the skin line, negative outside, every GRID_MM.
    muscle : ndarray of bool
        Where the muscle is, every GRID_MM.
    vessels : tuple of Vessel
    """

    outline: Points
    pectoral: Points
    nipple: tuple[float, float]
    attenuation: FloatImage
    depth_mm: FloatImage
    muscle: BoolImage
    vessels: tuple[Vessel, ...]


def make_breast(rng: np.random.Generator, recipe: Recipe) -> Breast:
    """Draw a breast.

    Parameters
    ----------
    rng : numpy.random.Generator
    recipe : Recipe

    Returns
    -------
    Breast
        The same for all pixel sizes of one field.

    Raises
    ------
    ValueError
        If the breast does not fit into the field.
    """
    outline, nipple = _outline(rng, recipe)
    shape = _grid_shape(recipe)
    depth = _depth(outline, shape)
    edge = min(14.0, 0.3 * nipple[1])
    whole, inner = _slab(depth, edge), _slab(depth - SKIN_MM, edge)
    skin = recipe.thickness_mm * (whole - inner) * np.float32(SKIN_PER_MM)
    pectoral = _pectoral(rng, recipe, outline)
    vessels = tuple(_vessel(rng, outline, nipple, (0.4, 1.0)) for _ in range(recipe.n_vessels))
    strands = tuple(_vessel(rng, outline, nipple, (0.12, 0.35)) for _ in range(recipe.n_strands))
    gland = _gland(rng, recipe, depth, nipple)
    muscle = np.zeros(shape, np.uint8)
    if len(pectoral):
        cv2.fillPoly(muscle, [np.round(pectoral[:, ::-1] / GRID_MM).astype(np.int32)], 1)
        wedge = cv2.GaussianBlur(muscle.astype(np.float32), (0, 0), 0.6 / GRID_MM)
        gland = gland * (1.0 - 0.5 * wedge) + wedge * (0.38 + 0.06 * _texture(rng, shape, 3.2, 20.0))
    tissue = FAT_PER_MM + (GLAND_PER_MM - FAT_PER_MM) * np.clip(gland, 0.0, 1.0)
    tubes = (GLAND_PER_MM - FAT_PER_MM) * _tubes([*vessels, *strands], shape)
    attenuation = recipe.thickness_mm * inner * tissue + skin + tubes * np.minimum(inner * 4.0, 1.0)
    return Breast(outline, pectoral, nipple, attenuation.astype(np.float32), depth, muscle > 0, vessels)


def _grid_shape(recipe: Recipe) -> tuple[int, int]:
    height, width = (int(np.ceil(round(mm / GRID_MM, 6))) + 1 for mm in recipe.field_mm)
    return height, width


def _outline(rng: np.random.Generator, recipe: Recipe) -> tuple[Points, tuple[float, float]]:
    """Return the skin line as points (row, col) in mm about 0.2 mm apart, and the nipple."""
    height, width = recipe.field_mm
    area = recipe.breast_share * height * width
    t = np.linspace(-1.0, 1.0, 4001)
    if recipe.view == "CC":
        power = rng.uniform(1.6, 2.0)
        profile = (1.0 - np.abs(t) ** power) ** rng.uniform(0.58, 0.75)
        middle, nipple_at = rng.uniform(0.48, 0.52), rng.uniform(-0.08, 0.08)
        half = min(0.46 * height, 1.25 * np.sqrt(area / 2.0))
    else:
        knots = np.array(MLO_PROFILE) * np.stack([np.ones(8), rng.uniform(0.96, 1.04, 8)])
        profile = np.sqrt(np.maximum(PchipInterpolator(knots[0], knots[1] ** 2)(t), 0.0))
        middle, nipple_at, half = 0.46, rng.uniform(0.3, 0.42), 0.46 * height
    swell = sum(rng.normal(0.0, 0.006) / k * np.cos(k * np.pi * t + rng.uniform(0, 6.3)) for k in range(1, 5))
    reach = area / (np.mean(profile) * 2.0 * half)
    if reach > 0.94 * width:
        raise ValueError("the breast does not fit into the image: lower breast_share, or take more columns")
    scale = min(reach / 70.0, 1.0)
    bump = 4.5 * scale * np.exp(-(np.abs((t - nipple_at) * half / (4.5 * scale)) ** 3))
    points = np.stack([middle * height + t * half, reach * profile * (1.0 + swell) + bump], axis=1)
    near_nipple = np.abs((t - nipple_at) * half) < 8.0
    nipple = points[np.argmax(np.where(near_nipple, points[:, 1], 0.0))]
    if recipe.view == "MLO":  # the arm's side goes on beyond the image
        points = np.concatenate([[[-20.0, points[0, 1] * 0.9]], points])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    even = np.linspace(0.0, along[-1], int(along[-1] / 0.2))
    return np.stack([np.interp(even, along, p) for p in points.T], axis=1), (float(nipple[0]), float(nipple[1]))


def _depth(outline: Points, shape: tuple[int, int]) -> FloatImage:
    """Return the signed distance to the skin line, positive inside, every GRID_MM.

    It is found on a coarser grid along the normal of the nearest point of the line, and interpolated.
    """
    coarse = 4
    rows, cols = (np.arange(-(-n // coarse) + 2) * coarse * GRID_MM for n in shape)
    mesh = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    tangent = np.gradient(outline, axis=0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1) / np.hypot(*tangent.T)[:, None]
    far, nearest = cKDTree(outline).query(mesh, workers=1)
    side = ((mesh - outline[nearest]) * normal[nearest]).sum(axis=1)
    signed = np.where(far < 0.5, side, np.sign(side) * far).reshape(len(rows), len(cols)).astype(np.float32)
    return resample(signed, 1.0 / coarse, 0.0, shape)


def _slab(depth: FloatImage, edge_mm: float) -> FloatImage:
    """Return the thickness of the compressed breast as a share: full inside, rounded within `edge_mm` of the skin."""
    out = 1.0 - np.clip(depth / edge_mm, 0.0, 1.0)
    return np.asarray(np.sqrt(1.0 - out**3), np.float32)


def _texture(rng: np.random.Generator, shape: tuple[int, int], power: float, longest_mm: float) -> FloatImage:
    """Return a random field of unit variance whose power falls as 1 / f**power below `longest_mm`.

    Fields that are smooth on the grid are made on a coarser one and interpolated.
    """
    coarse = 1 if power < 4.0 else 4
    small = (-(-shape[0] // coarse) + 2, -(-shape[1] // coarse) + 2)
    padded = [fft.next_fast_len(n + int(longest_mm / (coarse * GRID_MM)), real=True) for n in small]
    spectrum = fft.rfft2(rng.standard_normal(padded, np.float32))
    step = coarse * GRID_MM
    f2 = fft.fftfreq(padded[0], step)[:, None] ** 2 + fft.rfftfreq(padded[1], step)[None, :] ** 2
    spectrum *= (f2.astype(np.float32) + np.float32(longest_mm**-2)) ** np.float32(-power / 4.0)
    spectrum[0, 0] = 0.0
    field = fft.irfft2(spectrum, padded)[: small[0], : small[1]].astype(np.float32)
    field /= field.std()
    return field[: shape[0], : shape[1]] if coarse == 1 else resample(field, 1.0 / coarse, 0.0, shape)


def _gland(rng: np.random.Generator, recipe: Recipe, depth: FloatImage, nipple: tuple[float, float]) -> FloatImage:
    """Return the share of fibroglandular tissue: lobes in a cone behind the nipple, strands of ligament in the fat.

    Lobes and strands are drawn along rays from the nipple, as ducts run, and bent by a smooth random field. The fine
    texture has a power of 1 / f**3 (Burgess 2001, doi 10.1118/1.1355308).
    """
    shape = depth.shape
    reach = nipple[1]
    rows = (np.arange(shape[0], dtype=np.float32) * np.float32(GRID_MM) - np.float32(nipple[0]))[:, None]
    cols = (np.arange(shape[1], dtype=np.float32) * np.float32(GRID_MM))[None, :]
    rows = rows + 0.03 * reach * _texture(rng, shape, 5.0, 0.5 * reach)
    cols = cols + 0.03 * reach * _texture(rng, shape, 5.0, 0.5 * reach)
    away = np.hypot(rows, reach + 6.0 - cols)
    angle = np.arctan2(rows, reach + 6.0 - cols)

    def rays(field: FloatImage, stretch: float) -> FloatImage:
        across, along = angle * (0.55 * reach / GRID_MM) + 0.5 * shape[0], away / (stretch * GRID_MM)
        return np.asarray(cv2.remap(field, along, across, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))

    cone = 1.0 - ((cols / reach - 0.52) / 0.5) ** 2 - (rows / (0.7 * reach)) ** 2
    cone = np.minimum(cone, depth / (0.12 * reach) - 1.0)
    level = cone + 0.7 * rays(_texture(rng, shape, 3.6, 0.3 * reach), 1.8) + 2.4 * (recipe.density - 0.5)
    dense = 1.0 / (1.0 + np.exp(-3.0 * level))
    fine = _texture(rng, shape, 3.0, 30.0)
    share = 0.06 + dense * (0.36 + 0.06 * fine) + 0.025 * fine
    for longest, width, height, stretch in STRANDS:
        ridge = np.exp(-((rays(_texture(rng, shape, 4.5, longest), stretch) / width) ** 2))
        strength = np.clip(0.3 + 0.5 * _texture(rng, shape, 5.0, 20.0), 0.0, 1.0)
        share += height * strength * ridge
    return np.asarray(share, np.float32)


def _pectoral(rng: np.random.Generator, recipe: Recipe, outline: Points) -> Points:
    """Return the muscle on MLO views as a polygon (row, col) in mm: a wedge at the upper chest wall; else empty."""
    if recipe.view != "MLO" or not recipe.pectoral:
        return np.empty((0, 2))
    top = np.interp(0.0, outline[:, 0], outline[:, 1]) * rng.uniform(0.5, 0.65)
    bottom = recipe.field_mm[0] * rng.uniform(0.5, 0.65)
    t = np.linspace(0.0, 1.0, 60)
    bulge = 0.12 * rng.uniform(0.2, 1.0) * np.sin(np.pi * t)
    edge = np.stack([t * bottom, top * (1.0 - t + bulge)], axis=1)
    return np.concatenate([edge, [[bottom, -5.0], [-5.0, -5.0], [-5.0, top]]])


def _vessel(
    rng: np.random.Generator, outline: Points, nipple: tuple[float, float], radius_mm: tuple[float, float]
) -> Vessel:
    """Return a bent tube from somewhere in the breast towards the nipple or away from it."""
    low, high = outline[:, 0].min(), outline[:, 0].max()
    start = np.array([rng.uniform(max(low, 0.0), high), 0.0])
    start[1] = rng.uniform(0.0, 0.8) * np.interp(start[0], outline[:, 0], outline[:, 1])
    length = rng.uniform(0.4, 0.9) * nipple[1]
    to_nipple = np.arctan2(nipple[0] - start[0], nipple[1] - start[1])
    n = max(int(length / VESSEL_STEP_MM), 8)
    knots = np.arange(0.0, length + 24.0, 8.0)
    bends = np.cumsum(rng.normal(0.0, 0.22, len(knots))) + rng.normal(0.0, 0.15, len(knots))
    bend = CubicSpline(knots, bends)(np.arange(n) * VESSEL_STEP_MM)
    angle = to_nipple + rng.normal(0.0, 0.35) + bend
    points = start + np.cumsum(VESSEL_STEP_MM * np.stack([np.sin(angle), np.cos(angle)], axis=1), axis=0)
    return Vessel(points, float(rng.uniform(*radius_mm)))


def _tubes(vessels: Sequence[Vessel], shape: tuple[int, int]) -> FloatImage:
    """Return the path through the tubes in mm: nested lines, each a level of the round cross-section."""
    path = np.zeros(shape, np.float32)
    levels = np.array([0.25, 0.5, 0.75, 0.95])
    for vessel in vessels:
        line = [np.round(vessel.points[:, ::-1] / GRID_MM * 16).astype(np.int32)]
        layer = np.zeros(shape, np.uint8)
        for level in levels:
            wide = 2.0 * vessel.radius_mm * np.sqrt(1.0 - level**2) / GRID_MM
            cv2.polylines(layer, line, False, round(60 * level), max(round(wide), 1), cv2.LINE_AA, 4)
        path += layer * np.float32(2.0 * vessel.radius_mm / 60)
    return np.asarray(cv2.GaussianBlur(path, (0, 0), 1.0), np.float32)


def resample(image: FloatImage, step: float, offset: float, shape: tuple[int, int]) -> FloatImage:
    """Return samples at ``offset + step * index`` of the image, cubic."""
    matrix = np.array([[step, 0.0, offset], [0.0, step, offset]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(image, matrix, (shape[1], shape[0]), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, np.float32)
