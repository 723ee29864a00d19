"""Where the calcifications of a phantom lie: groups of particles within the breast, none touching another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial.distance import cdist

from detector.evaluate import particles as solids
from detector.evaluate.anatomy import GRID_MM, VESSEL_STEP_MM, Breast, Points
from detector.evaluate.particles import Particle
from detector.evaluate.recipes import Group, Recipe
from detector.records import Distribution, Morphology

Placed = Sequence[tuple[Group, list[Particle]]]


def place_groups(seed: np.random.SeedSequence, recipe: Recipe, breast: Breast) -> Placed:
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


def _place_group(rng: np.random.Generator, group: Group, breast: Breast, borders: list[Points]) -> list[Particle]:
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


def _is_free(border: Points, others: Sequence[Points], breast: Breast) -> bool:
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


def _depth_at(breast: Breast, at: Points) -> float:
    """Return the distance to the skin line, or to the image's border if that is nearer, in mm."""
    if at[0] < 0 or at[1] < 0:
        return -1.0
    sampled = map_coordinates(breast.depth_mm, (at / GRID_MM)[:, None], order=1, mode="nearest")[0]
    return float(min(sampled, at[0], at[1], (breast.depth_mm.shape[0] - 1) * GRID_MM - at[0]))


def _anywhere(rng: np.random.Generator, breast: Breast, margin_mm: float) -> Points:
    """Return a random place inside the breast, off the muscle."""
    for _ in range(1000):
        at = rng.uniform((0.0, 0.0), np.array(breast.depth_mm.shape) * GRID_MM)
        row, col = np.minimum(at / GRID_MM, np.array(breast.depth_mm.shape) - 1).astype(int)
        if _depth_at(breast, at) > margin_mm and not breast.muscle[row, col]:
            return at
    raise ValueError("the breast is too small for the calcifications: enlarge it or widen the image")


def _middle(rng: np.random.Generator, group: Group, breast: Breast) -> Points:
    if group.place is None:
        return _anywhere(rng, breast, min(0.5 * group.extent_mm + 4.0, 0.7 * float(breast.depth_mm.max())))
    low, high = max(breast.outline[:, 0].min(), 0.0), breast.outline[:, 0].max()
    row = 0.5 * (low + high) + 0.5 * group.place[1] * (high - low)
    return np.array([row, group.place[0] * np.interp(row, breast.outline[:, 0], breast.outline[:, 1])])


def _vascular(rng: np.random.Generator, group: Group, breast: Breast) -> list[Particle]:
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


def _stretch(rng: np.random.Generator, group: Group, breast: Breast) -> tuple[Points, float]:
    """Return points 0.05 mm apart along a piece of a vessel that lies well inside the breast, and the radius."""
    n = int(np.ceil(group.extent_mm / VESSEL_STEP_MM)) + 1
    pieces = [
        (vessel.points[start : start + n], vessel.radius_mm)
        for vessel in breast.vessels
        for start in range(0, len(vessel.points) - n + 1, 4)
        if min(_depth_at(breast, p) for p in vessel.points[start : start + n : 4]) > 3.5
    ]
    if not pieces:
        raise ValueError(f"no vessel of the phantom is {group.extent_mm:g} mm long: shorten the track or add vessels")
    points, radius = pieces[rng.integers(len(pieces))]
    along, even = np.arange(n) * VESSEL_STEP_MM, np.arange(0.0, group.extent_mm, 0.05)
    return np.stack([np.interp(even, along, p) for p in points.T], axis=1), radius
