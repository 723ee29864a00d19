"""Seeded mammograms of breasts that never were, with the exact truth of what lies in them.

The anatomy is made on a grid in mm that does not depend on the pixels, so that one seed is one breast at every pixel
size; only the noise is drawn a pixel. The beam is followed in linear exposure (transmission, quanta, blur, electronic
noise), and the logarithm is taken at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, pdist

from detector.evaluate import particles as solids
from detector.evaluate.particles import CALCIUM_PER_MM, Particle
from detector.records import (
    BoolImage,
    Clusters,
    Distribution,
    FloatImage,
    Identity,
    Kind,
    Mammogram,
    Morphology,
    Shape,
    SpacingSource,
    Spots,
)

Points = NDArray[np.float64]

LOG_GAIN = 1000.0
"""Pixel values per unit of log exposure, so that 12 to 14 bits hold a phantom."""
OPEN_LEVEL = 100.0
"""Pixel value of air: keeps noise above zero."""
FAT_PER_MM, GLAND_PER_MM, SKIN_PER_MM = 0.0456, 0.0802, 0.0802
"""Attenuation at 20 keV (Johns and Yaffe 1987, doi 10.1088/0031-9155/32/6/002); skin is taken as gland."""
GRID_MM = 0.15
SKIN_MM = 1.5
VESSEL_STEP_MM = 0.5
STRANDS = (
    (20.0, 0.06, 0.12, 4.0),
    (20.0, 0.12, 0.10, 5.0),
    (12.0, 0.07, 0.10, 4.0),
    (12.0, 0.14, 0.07, 3.0),
    (6.0, 0.10, 0.08, 3.0),
    (4.0, 0.12, 0.06, 2.0),
)
"""Sheets of ligament seen edge on: longest wave in mm, relative width, height as a share of gland, stretch on rays."""

SUSPICIOUS = frozenset(
    {
        Morphology.AMORPHOUS,
        Morphology.COARSE_HETEROGENEOUS,
        Morphology.FINE_PLEOMORPHIC,
        Morphology.FINE_LINEAR,
        Morphology.FINE_LINEAR_BRANCHING,
    }
)


@dataclass(frozen=True)
class Group:
    """Calcifications to put in.

    Attributes
    ----------
    morphology : Morphology
        A key of `detector.evaluate.particles.FORMS`.
    number : int
    extent_mm : float
        Largest distance within the group (not used by DIFFUSE).
    distribution : Distribution
    place : tuple of float, optional
        Middle of the group: depth from the chest wall (0) to the nipple (1), and height from the upper (-1) to the
        lower (1) end of the breast; default: anywhere well inside.
    size_mm : tuple of float, optional
        Smallest and largest size instead of the form's own.
    contrast : float
        Factor on the calcium's attenuation; 0 changes no pixel.
    """

    morphology: Morphology
    number: int = 12
    extent_mm: float = 10.0
    distribution: Distribution = Distribution.GROUPED
    place: tuple[float, float] | None = None
    size_mm: tuple[float, float] | None = None
    contrast: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """What a phantom is made of.

    Attributes
    ----------
    rows, cols : int
    spacing_mm : float
        Side of a pixel.
    side, view : str
        L or R; CC or MLO.
    breast_share : float
        Share of the image that is breast.
    density : float
        Share of fibroglandular tissue, from 0 (fatty) to 1 (dense).
    thickness_mm : float
        Compressed breast.
    quanta_per_mm2 : float
        Exposure: quanta that the detector would catch in air.
    blur_mm : float
        Standard deviation of the detector's blur.
    n_vessels, n_strands : int
    pectoral : bool
        Whether MLO views show the pectoral muscle.
    groups : tuple of Group
    """

    rows: int = 1280
    cols: int = 960
    spacing_mm: float = 0.07
    side: str = "L"
    view: str = "CC"
    breast_share: float = 0.42
    density: float = 0.35
    thickness_mm: float = 45.0
    quanta_per_mm2: float = 8e5
    blur_mm: float = 0.05
    n_vessels: int = 4
    n_strands: int = 40
    pectoral: bool = True
    groups: tuple[Group, ...] = (
        Group(Morphology.FINE_PLEOMORPHIC, 12),
        Group(Morphology.ROUND, 3, distribution=Distribution.DIFFUSE, size_mm=(1.2, 2.4)),
    )

    def __post_init__(self) -> None:
        if self.side not in ("L", "R") or self.view not in ("CC", "MLO"):
            raise ValueError(f"side must be L or R and view CC or MLO, not {self.side!r} and {self.view!r}")
        if not 0.05 <= self.breast_share <= 0.7 or min(self.rows, self.cols) < 64 or self.spacing_mm <= 0:
            raise ValueError("breast_share must lie from 0.05 to 0.7, rows and cols from 64 up, spacing_mm above 0")

    @property
    def field_mm(self) -> tuple[float, float]:
        """Height and width of the image."""
        return self.rows * self.spacing_mm, self.cols * self.spacing_mm


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
    breast = _make_breast(np.random.default_rng(anatomy_seed), recipe)
    placed = _place_groups(calcium_seed, recipe, breast)
    calcium = np.zeros((recipe.rows, recipe.cols), np.float32)
    for group, members in placed:
        if group.contrast:
            calcium += group.contrast * CALCIUM_PER_MM * solids.draw_calcium(members, calcium.shape, recipe.spacing_mm)
    tissue = _on_pixels(breast.attenuation, recipe) * _inside(breast, recipe)
    pixels = expose(tissue + calcium, recipe, np.random.default_rng(noise_seed))
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


def expose(attenuation: FloatImage, recipe: Recipe, rng: np.random.Generator) -> FloatImage:
    """Return the log pixels of a total attenuation: quanta, blur, electronic noise, logarithm.

    Quantum noise is taken as normal, which holds for the hundreds of quanta a pixel catches; it passes the
    detector's blur, as the light of a scintillator does.
    """
    open_field = recipe.quanta_per_mm2 * recipe.spacing_mm**2
    quanta = open_field * np.exp(-attenuation)
    quanta += np.sqrt(quanta) * rng.standard_normal(quanta.shape, np.float32)
    if recipe.blur_mm > 0:
        quanta = np.asarray(cv2.GaussianBlur(quanta, (0, 0), recipe.blur_mm / recipe.spacing_mm), np.float32)
    quanta += 5.0 * rng.standard_normal(quanta.shape, np.float32)
    np.maximum(quanta, 1.0, out=quanta)
    return np.asarray(OPEN_LEVEL - LOG_GAIN * np.log(quanta / np.float32(open_field)), np.float32)


# --------------------------------------------------------------------------------------------------------------
# anatomy, on a grid in mm; the chest wall is at column 0


@dataclass(frozen=True, eq=False)
class _Vessel:
    points: Points
    radius_mm: float


@dataclass(frozen=True, eq=False)
class _Breast:
    """`attenuation` and `depth_mm` (distance inside the skin, negative outside) are sampled every GRID_MM."""

    outline: Points
    pectoral: Points
    nipple: tuple[float, float]
    attenuation: FloatImage
    depth_mm: FloatImage
    muscle: BoolImage
    vessels: tuple[_Vessel, ...]


def _make_breast(rng: np.random.Generator, recipe: Recipe) -> _Breast:
    outline, nipple = _outline(rng, recipe)
    shape = _grid_shape(recipe)
    depth = _depth(outline, shape)
    edge = min(14.0, 0.3 * nipple[1])
    whole = _slab(depth, edge)
    inner = _slab(depth - SKIN_MM, edge)
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
    return _Breast(outline, pectoral, nipple, attenuation.astype(np.float32), depth, muscle > 0, vessels)


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
        knots = [
            (-1.0, 0.5),
            (-0.6, 0.66),
            (-0.2, 0.84),
            (0.2, 0.99),
            (0.45, 0.98),
            (0.7, 0.78),
            (0.9, 0.36),
            (1.0, 0.0),
        ]
        at, value = np.array(knots).T
        value[:-1] *= rng.uniform(0.96, 1.04, len(value) - 1)
        profile = np.sqrt(np.maximum(PchipInterpolator(at, value**2)(t), 0.0))
        middle, nipple_at = 0.46, rng.uniform(0.3, 0.42)
        half = 0.46 * height
    swell = sum(rng.normal(0.0, 0.006) / k * np.cos(k * np.pi * t + rng.uniform(0, 6.3)) for k in range(1, 5))
    reach = area / (np.mean(profile) * 2.0 * half)
    if reach > 0.94 * width:
        raise ValueError("the breast does not fit into the image: lower breast_share, or take more columns")
    cols = reach * profile * (1.0 + swell)
    scale = min(reach / 70.0, 1.0)
    bump = 4.5 * scale * np.exp(-(np.abs((t - nipple_at) * half / (4.5 * scale)) ** 3))
    rows = middle * height + t * half
    points = np.stack([rows, cols + bump], axis=1)
    if recipe.view == "MLO":
        points = np.concatenate([[[-20.0, points[0, 1] * 0.9]], points])
    nipple = points[np.argmax(points[:, 1] * (np.abs(points[:, 0] - middle * height - nipple_at * half) < 8.0))]
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
    return _resample(signed, 1.0 / coarse, 0.0, shape)


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
    return field[: shape[0], : shape[1]] if coarse == 1 else _resample(field, 1.0 / coarse, 0.0, shape)


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
) -> _Vessel:
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
    return _Vessel(points, float(rng.uniform(*radius_mm)))


def _tubes(vessels: Sequence[_Vessel], shape: tuple[int, int]) -> FloatImage:
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


# --------------------------------------------------------------------------------------------------------------
# from the grid to the pixels


def _resample(image: FloatImage, step: float, offset: float, shape: tuple[int, int]) -> FloatImage:
    """Return samples at ``offset + step * index`` of the image, cubic."""
    matrix = np.array([[step, 0.0, offset], [0.0, step, offset]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(image, matrix, (shape[1], shape[0]), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, np.float32)


def _on_pixels(image: FloatImage, recipe: Recipe) -> FloatImage:
    step = recipe.spacing_mm / GRID_MM
    if step > 1.0:  # the mean over a pixel, not a sample
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.3 * step), np.float32)
    return _resample(image, step, 0.5 * step, (recipe.rows, recipe.cols))


def _inside(breast: _Breast, recipe: Recipe) -> FloatImage:
    """Return the share of each pixel that lies inside the skin line."""
    share = np.clip(_on_pixels(breast.depth_mm, recipe) / np.float32(recipe.spacing_mm) + 0.5, 0.0, 1.0)
    return np.asarray(share, np.float32)


# --------------------------------------------------------------------------------------------------------------
# calcifications


Placed = Sequence[tuple[Group, list[Particle]]]


def _place_groups(seed: np.random.SeedSequence, recipe: Recipe, breast: _Breast) -> Placed:
    """Return each group with its particles where they lie, none touching another."""
    placed: list[tuple[Group, list[Particle]]] = []
    borders: list[Points] = []
    for group, own in zip(recipe.groups, seed.spawn(len(recipe.groups)), strict=True):
        rng = np.random.default_rng(own)
        if group.morphology is Morphology.VASCULAR:
            members = _vascular(rng, group, breast)
            borders += [solids.border_of(p) + np.array([p.row_mm, p.col_mm]) for p in members]
        else:
            members = _place_group(rng, group, breast, borders)
        placed.append((group, members))
    return placed


def _place_group(rng: np.random.Generator, group: Group, breast: _Breast, borders: list[Points]) -> list[Particle]:
    """Return the particles of a group, and add their outlines to `borders`, which they keep clear of."""
    diffuse = group.distribution is Distribution.DIFFUSE
    middle = np.zeros(2) if diffuse else _middle(rng, group, breast)
    towards = float(np.arctan2(breast.nipple[0] - middle[0], breast.nipple[1] - middle[1]))
    placed: list[Particle] = []
    for _ in range(group.number):
        particle = solids.make_particle(rng, group.morphology, group.size_mm)
        border = solids.border_of(particle)
        for _ in range(400):
            at = _anywhere(rng, breast, 5.0) if diffuse else middle + _offset(rng, group, towards)
            if _is_free(border + at, borders, breast):
                break
        else:
            raise ValueError(f"{group.number} particles do not fit into {group.extent_mm:g} mm: widen the group")
        placed.append(particle.moved(float(at[0]), float(at[1])))
        borders.append(border + at)
    return placed


def _is_free(border: Points, others: Sequence[Points], breast: _Breast) -> bool:
    """Return whether a particle lies inside the breast and at least 0.25 mm from the others."""
    low, high = border.min(axis=0), border.max(axis=0)
    if min(_depth_at(breast, np.array(corner)) for corner in (low, high, (low[0], high[1]), (high[0], low[1]))) < 2.5:
        return False
    near = [o for o in others if np.all(o.min(axis=0) < high + 0.25) and np.all(o.max(axis=0) > low - 0.25)]
    return all(cdist(border, o).min() > 0.25 for o in near)


def _offset(rng: np.random.Generator, group: Group, towards: float) -> Points:
    half = 0.5 * group.extent_mm
    if group.distribution is Distribution.LINEAR:
        along, across = rng.uniform(-half, half), rng.normal(0.0, 0.8)
    elif group.distribution is Distribution.SEGMENTAL:
        along = half - 2.0 * half * np.sqrt(rng.uniform())
        across = rng.uniform(-0.3, 0.3) * (half - along)
    else:
        radius, angle = 0.95 * half * np.sqrt(rng.uniform()), rng.uniform(0.0, 2.0 * np.pi)
        along, across = radius * np.cos(angle), 0.8 * radius * np.sin(angle)
    return np.array(
        [np.sin(towards) * along + np.cos(towards) * across, np.cos(towards) * along - np.sin(towards) * across]
    )


def _depth_at(breast: _Breast, at: Points) -> float:
    """Return the distance to the skin line, or to the image's border if that is nearer, in mm."""
    if at[0] < 0 or at[1] < 0:
        return -1.0
    sampled = map_coordinates(breast.depth_mm, (at / GRID_MM)[:, None], order=1, mode="nearest")[0]
    return float(min(sampled, at[0], at[1], (breast.depth_mm.shape[0] - 1) * GRID_MM - at[0]))


def _anywhere(rng: np.random.Generator, breast: _Breast, margin_mm: float) -> Points:
    """Return a random place inside the breast, off the muscle."""
    for _ in range(1000):
        at = rng.uniform((0.0, 0.0), np.array(breast.depth_mm.shape) * GRID_MM)
        row, col = np.minimum(at / GRID_MM, np.array(breast.depth_mm.shape) - 1).astype(int)
        if _depth_at(breast, at) > margin_mm and not breast.muscle[row, col]:
            return at
    raise ValueError("the breast is too small for the calcifications: enlarge it or widen the image")


def _middle(rng: np.random.Generator, group: Group, breast: _Breast) -> Points:
    if group.place is None:
        return _anywhere(rng, breast, min(0.5 * group.extent_mm + 4.0, 0.7 * float(breast.depth_mm.max())))
    low, high = max(breast.outline[:, 0].min(), 0.0), breast.outline[:, 0].max()
    row = 0.5 * (low + high) + 0.5 * group.place[1] * (high - low)
    return np.array([row, group.place[0] * np.interp(row, breast.outline[:, 0], breast.outline[:, 1])])


def _vascular(rng: np.random.Generator, group: Group, breast: _Breast) -> list[Particle]:
    """Return two broken lines along the walls of a vessel, `extent_mm` long; half of the particles on each wall."""
    line, radius = _stretch(rng, group, breast)
    tangent = np.gradient(line, axis=0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1) / np.hypot(*tangent.T)[:, None]
    placed: list[Particle] = []
    for wall, n in ((-1.0, group.number // 2), (1.0, group.number - group.number // 2)):
        cuts = np.linspace(0, len(line), max(n, 1) + 1).astype(int)
        for start, stop in zip(cuts[:-1][:n], cuts[1:], strict=False):
            gap = int(rng.uniform(0.2, 0.4) * (stop - start))
            piece = (line + wall * radius * normal)[start : stop - gap]
            placed.append(solids.make_track(rng, piece))
    return placed


def _stretch(rng: np.random.Generator, group: Group, breast: _Breast) -> tuple[Points, float]:
    """Return points 0.05 mm apart along a piece of a vessel that lies well inside the breast, and the radius."""
    n = int(np.ceil(group.extent_mm / VESSEL_STEP_MM)) + 1
    pieces = [
        (vessel.points[start : start + n], vessel.radius_mm)
        for vessel in breast.vessels
        for start in range(0, len(vessel.points) - n + 1, 4)
        if min(_depth_at(breast, p) for p in vessel.points[start : start + n : 4]) > 5.0
    ]
    if not pieces:
        raise ValueError(f"no vessel of the phantom is {group.extent_mm:g} mm long: shorten the track or add vessels")
    points, radius = pieces[rng.integers(len(pieces))]
    along, even = np.arange(n) * VESSEL_STEP_MM, np.arange(0.0, group.extent_mm, 0.05)
    return np.stack([np.interp(even, along, p) for p in points.T], axis=1), radius


# --------------------------------------------------------------------------------------------------------------
# truth


def _peaks(placed: Placed, tissue: FloatImage, calcium: FloatImage, recipe: Recipe) -> Points:
    """Return the height of each particle after the detector's blur over the noise of a pixel of tissue beside it."""
    sigma_px = max(recipe.blur_mm / recipe.spacing_mm, 1e-3)
    kernel = cv2.getGaussianKernel(2 * int(np.ceil(4.0 * sigma_px)) + 1, sigma_px)
    quanta = recipe.quanta_per_mm2 * recipe.spacing_mm**2
    peaks = []
    for particle in (p for _, members in placed for p in members):
        half = 0.5 * particle.step_mm * np.array(particle.thickness_mm.shape) + 3.0 * recipe.blur_mm
        middle = np.array([particle.row_mm, particle.col_mm])
        start = np.maximum(np.floor((middle - half) / recipe.spacing_mm), 0).astype(int)
        stop = np.ceil((middle + half) / recipe.spacing_mm).astype(int)
        box = (slice(start[0], stop[0]), slice(start[1], stop[1]))
        height = cv2.sepFilter2D(calcium[box], -1, kernel, kernel).max()
        noise = np.sqrt(np.exp(np.median(tissue[box])) / quanta) * (kernel**2).sum()
        peaks.append(height / noise)
    return np.array(peaks)


def _truth(placed: Placed, breast: _Breast, recipe: Recipe, snr: Points) -> Truth:
    def px(points: Points) -> NDArray[np.float32]:
        out = points / recipe.spacing_mm - 0.5
        if recipe.side == "R":
            out[:, 1] = recipe.cols - 1 - out[:, 1]
        return out.astype(np.float32)

    spots, clusters = _tables(placed, recipe, snr)
    nipple = px(np.array([breast.nipple]))[0]
    return Truth(spots, clusters, px(breast.outline), px(breast.pectoral), (float(nipple[0]), float(nipple[1])))


def _tables(placed: Placed, recipe: Recipe, snr: Points) -> tuple[Spots, Clusters]:
    particles = [p for _, members in placed for p in members]
    cluster_of: list[int] = []
    rows: list[tuple[Group, int]] = []
    for group, members in placed:
        grouped = len(members) >= 3 and group.distribution is not Distribution.DIFFUSE
        if grouped:
            rows.append((group, len(rows) + 1))
        cluster_of += [len(rows) if grouped else 0] * len(members)
    sizes = np.array([solids.size_of(solids.outline_of(p), p.step_mm) for p in particles]).reshape(-1, 4)
    area, length, width, direction = sizes.T
    at = np.array([solids.centroid_of(p) for p in particles]).reshape(-1, 2) / recipe.spacing_mm - 0.5
    if recipe.side == "R":
        at[:, 1] = recipe.cols - 1 - at[:, 1]
        direction = (180.0 - direction) % 180.0
    spots = Spots.blank(
        len(particles),
        spot_id=np.arange(1, len(particles) + 1),
        row_px=at[:, 0],
        col_px=at[:, 1],
        row_mm=at[:, 0] * recipe.spacing_mm,
        col_mm=at[:, 1] * recipe.spacing_mm,
        diameter_mm=2.0 * np.sqrt(area / np.pi),
        length_mm=length,
        width_mm=width,
        area_mm2=area,
        snr=snr,
        orientation_deg=direction,
        shape=[int(p.shape) for p in particles],
        kind=[int(solids.kind_of(s[1], s[2], p.morphology)) for s, p in zip(sizes, particles, strict=True)],
        morphology=[int(p.morphology) for p in particles],
        confidence=np.ones(len(particles)),
        cluster_id=np.array(cluster_of, np.int32),
    )
    return spots, _cluster_table(rows, spots)


def _cluster_table(rows: Sequence[tuple[Group, int]], spots: Spots) -> Clusters:
    members = [spots[spots.cluster_id == number] for _, number in rows]
    irregular = [
        np.isin(m.shape, (Shape.IRREGULAR, Shape.BRANCHING)) | ((m.shape == Shape.DASH) & (m.width_mm < 0.5))
        for m in members
    ]
    return Clusters.blank(
        len(rows),
        cluster_id=[number for _, number in rows],
        row_px=[m.row_px.mean() for m in members],
        col_px=[m.col_px.mean() for m in members],
        n_spots=[len(m) for m in members],
        n_irregular=[int(i.sum()) for i in irregular],
        n_macro=[int((m.kind == Kind.MACRO).sum()) for m in members],
        extent_mm=[float(pdist(np.stack([m.row_mm, m.col_mm], axis=1)).max()) for m in members],
        size_cv=[float(m.diameter_mm.std() / m.diameter_mm.mean()) for m in members],
        shape_irregularity=[float(i.mean()) for i in irregular],
        distribution=[int(group.distribution) for group, _ in rows],
        morphology=[int(group.morphology) for group, _ in rows],
        confidence=np.ones(len(rows)),
        review=[_is_suspicious(group) for group, _ in rows],
    )


def _is_suspicious(group: Group) -> bool:
    """Return whether a radiologist should look: by form, or fine dots that follow a duct."""
    follows_duct = group.distribution in (Distribution.LINEAR, Distribution.SEGMENTAL)
    return group.morphology in SUSPICIOUS or (group.morphology is Morphology.PUNCTATE and follows_duct)
