"""How large, how bright and of what form each spot is: Marks -> Spots, Evidence, Outlines.

One pass over the pixels of all spots together; no loop over spots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.records import (
    BreastRegion,
    Detail,
    Evidence,
    FloatImage,
    Mammogram,
    Marks,
    Outlines,
    Spots,
    Zone,
    sample_bilinear,
)
from detector.settings import MeasureSettings

N_DIRECTIONS = 36
"""Directions that calipers are laid on: 5 degrees apart, which keeps the largest within 0.1 %."""

RING_RADII_MM = (0.2, 0.35, 0.6, 1.0)
"""Radii of the rings that a spot's contrast is read against, in 16 directions: strands are bright in two of them."""

N_RING_DIRECTIONS = 16

# sides of a pixel in clockwise order: top, right, bottom, left; the neighbour across, and the step along
_ACROSS = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
_ALONG = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def measure_spots(
    mammogram: Mammogram, breast: BreastRegion, detail: Detail, marks: Marks, settings: MeasureSettings
) -> tuple[Spots, Evidence, Outlines]:
    """Measure all spots.

    The outline runs through the places between pixels at which the grey level crosses half height. Area is that of the
    pixels inside, holes filled, corrected by those places; calipers are taken over `N_DIRECTIONS`.

    Parameters
    ----------
    mammogram : Mammogram
    breast : BreastRegion
    detail : Detail
    marks : Marks
    settings : MeasureSettings

    Returns
    -------
    spots : Spots
        One row a mark, in the order of the label image; columns of other rooms are blank.
    evidence : Evidence
        Features for judging, one row a spot.
    outlines : Outlines
        One closed outline a spot.
    """
    n = len(marks.seeds)
    if n == 0:
        return Spots.empty(), Evidence((), np.empty((0, 0), np.float32)), Outlines.empty()
    pixels = _Foreground.of(marks, detail.levels[0].image)
    border = _trace(marks, detail.levels[0].image)
    spacing = np.array(mammogram.spacing_mm)
    form = _form(pixels, border, n, spacing)

    row_px, col_px = form.row + marks.box.row_start, form.col + marks.box.col_start
    cell = _cells(breast, row_px, col_px)
    box_cell = detail.cells(row_px, col_px)
    grey_range = max(breast.grey_range[1] - breast.grey_range[0], 1e-12)
    known = 1.0 if mammogram.identity.sizes_known else np.nan
    spots = Spots.blank(
        n,
        spot_id=np.arange(1, n + 1),
        row_px=row_px,
        col_px=col_px,
        row_mm=row_px * spacing[0] * known,
        col_mm=col_px * spacing[1] * known,
        diameter_mm=np.sqrt(4 / np.pi * form.area_mm2) * known,
        length_mm=form.length_mm * known,
        width_mm=form.width_mm * known,
        area_mm2=form.area_mm2 * known,
        contrast=marks.height / grey_range,
        snr=marks.height / detail.noise[box_cell],
        eccentricity=form.eccentricity,
        solidity=form.solidity,
        orientation_deg=form.orientation_deg,
        skin_distance_mm=breast.skin_distance_mm[cell].astype(np.float64) * known,
        confidence=np.zeros(n),
    )
    return spots, _evidence(mammogram, breast, detail, marks, form), border.outlines(n, marks)


@dataclass(frozen=True)
class _Foreground:
    """Pixels of all spots: row and column in the box, label - 1, and height over the surroundings."""

    row: Integers
    col: Integers
    spot: Integers
    height: Floats

    @classmethod
    def of(cls, marks: Marks, image: FloatImage) -> _Foreground:
        flat = np.flatnonzero(marks.labels)
        spot = marks.labels.ravel()[flat].astype(np.int64) - 1
        row, col = np.divmod(flat, marks.labels.shape[1])
        foot = marks.level_at(spot, row, col) - 0.5 * marks.height[spot]
        height = np.maximum(image[row, col] - foot, 1e-3 * marks.height[spot])
        return cls(row, col, spot, height)


@dataclass(frozen=True)
class _Border:
    """Outer pixel sides of all spots in clockwise order, spot after spot, and where the outline crosses beyond each.

    `crossing` is the distance from the pixel's centre, across that side, to half height, from 0 to 1.
    """

    spot: Integers
    row: Integers
    col: Integers
    side: Integers
    crossing: Floats

    def points(self) -> tuple[Floats, Floats]:
        """Return (row, col) of the crossings in the box."""
        across = _ACROSS[self.side]
        return self.row + across[:, 0] * self.crossing, self.col + across[:, 1] * self.crossing

    def starts(self, n: int) -> Integers:
        """Return where each spot's sides start; every spot has at least four."""
        return np.searchsorted(self.spot, np.arange(n))

    def outlines(self, n: int, marks: Marks) -> Outlines:
        """Return the crossings as closed outlines in pixels of the whole image."""
        row, col = self.points()
        vertices = np.stack([row + marks.box.row_start, col + marks.box.col_start], axis=1).astype(np.float32)
        return Outlines(vertices, np.append(self.starts(n), len(vertices)))


def _trace(marks: Marks, image: FloatImage) -> _Border:
    """Follow the outer border of every spot at once.

    Each side of a pixel that borders another label has one successor, found by looking at the two pixels ahead;
    pointer doubling turns these into the order along the border. The slow equivalent is `cv2.findContours` spot by spot.
    """
    labels = np.pad(marks.labels, 1)
    width = labels.shape[1]
    flat_labels = labels.ravel()
    inside = np.flatnonzero(flat_labels)
    step = _ACROSS[:, 0] * width + _ACROSS[:, 1]
    along = _ALONG[:, 0] * width + _ALONG[:, 1]

    is_side = flat_labels[inside[:, None] + step] != flat_labels[inside][:, None]
    pixel_index, side = np.nonzero(is_side)
    pixel = inside[pixel_index]
    label = flat_labels[pixel]
    # clockwise: diagonal neighbour ahead (turn left), neighbour ahead (go straight), else turn right
    ahead = pixel + along[side]
    diagonal = ahead + step[side]
    left = flat_labels[diagonal] == label
    straight = ~left & (flat_labels[ahead] == label)
    next_pixel = np.where(left, diagonal, np.where(straight, ahead, pixel))
    next_side = np.where(left, (side + 3) % 4, np.where(straight, side, (side + 1) % 4))
    key = pixel * 4 + side
    successor = np.searchsorted(key, next_pixel * 4 + next_side)

    first = np.unique(label, return_index=True)[1]
    position = _order_along(successor, first)
    outer = np.flatnonzero(position >= 0)
    outer = outer[np.lexsort((position[outer], label[outer]))]
    row, col = np.divmod(pixel[outer], width)
    spot = label[outer].astype(np.int64) - 1
    row, col, side = row - 1, col - 1, side[outer]
    return _Border(spot, row, col, side, _crossings(image, marks, spot, (row, col), side))


def _order_along(successor: Integers, first: Integers) -> Integers:
    """Return each element's place in the cycle that starts at one of `first`; -1 in other cycles (holes)."""
    n = len(successor)
    to_end = np.ones(n, np.int64)
    jump = successor.copy()
    starts = np.zeros(n, np.bool_)
    starts[first] = True
    last = np.flatnonzero(starts[successor])
    jump[last] = last
    to_end[last] = 0
    end = np.zeros(n, np.bool_)
    end[last] = True
    for _ in range(max(1, int(np.ceil(np.log2(n + 1))))):
        if end[jump].all():
            break
        to_end, jump = to_end + to_end[jump], jump[jump]
    reached = end[jump]
    length = np.zeros(n, np.int64)
    length[jump[first]] = to_end[first]
    return np.where(reached, length[jump] - to_end, -1)


def _crossings(
    image: FloatImage, marks: Marks, spot: Integers, at: tuple[Integers, Integers], side: Integers
) -> Floats:
    """Return where the grey level falls to the outline's between a border pixel and its neighbour outside."""
    row, col = at
    across = _ACROSS[side]
    out_row = np.clip(row + across[:, 0], 0, image.shape[0] - 1)
    out_col = np.clip(col + across[:, 1], 0, image.shape[1] - 1)
    level = marks.level_at(spot, row, col)
    here = image[row, col].astype(np.float64)
    drop = here - image[out_row, out_col]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = np.where(drop > 0, (here - level) / drop, 0.5)
    return np.clip(crossing, 0.0, 1.0)


@dataclass(frozen=True)
class _Form:
    """Place and form of all spots; rows and columns in the box."""

    row: Floats
    col: Floats
    n_px: Floats
    hole_px: Floats
    area_mm2: Floats
    length_mm: Floats
    width_mm: Floats
    eccentricity: Floats
    orientation_deg: Floats
    solidity: Floats


def _form(pixels: _Foreground, border: _Border, n: int, spacing: Floats) -> _Form:
    """Return place and form of all spots by sums over their pixels and extremes over their border."""
    weight = np.bincount(pixels.spot, pixels.height, n)
    row = np.bincount(pixels.spot, pixels.height * pixels.row, n) / weight
    col = np.bincount(pixels.spot, pixels.height * pixels.col, n) / weight
    n_px = np.bincount(pixels.spot, minlength=n).astype(np.float64)
    eccentricity, orientation = _ellipse(pixels, n, n_px, spacing)

    # pixels inside the outer border, by Green's theorem over its horizontal sides
    sign = np.where(border.side == 0, -1.0, 0.0) + np.where(border.side == 2, 1.0, 0.0)
    edge_row = border.row + np.where(border.side == 0, 0, 1)
    filled_px = np.bincount(border.spot, sign * edge_row, n)
    beyond = np.bincount(border.spot, border.crossing - 0.5, n)
    area_px = np.maximum(filled_px + 0.5 * beyond, 0.25)
    length, width, hull = _calipers(border, n, spacing)
    area = area_px * spacing[0] * spacing[1]
    return _Form(
        row=row,
        col=col,
        n_px=n_px,
        hole_px=filled_px - n_px,
        area_mm2=area,
        length_mm=length,
        width_mm=width,
        eccentricity=eccentricity,
        orientation_deg=orientation,
        solidity=np.minimum(area / np.maximum(hull, 1e-12), 1.0),
    )


def _ellipse(pixels: _Foreground, n: int, n_px: Floats, spacing: Floats) -> tuple[Floats, Floats]:
    """Return eccentricity and orientation (degrees) of the ellipses of equal second moments."""
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


def _calipers(border: _Border, n: int, spacing: Floats) -> tuple[Floats, Floats, Floats]:
    """Return largest and smallest caliper in mm and the convex hull's area in mm2, from the support function."""
    row, col = border.points()
    y, x = row * spacing[0], col * spacing[1]
    starts = border.starts(n)
    delta = np.pi / N_DIRECTIONS
    support = np.empty((2 * N_DIRECTIONS, n))
    for k in range(N_DIRECTIONS):
        along = x * np.cos(k * delta) + y * np.sin(k * delta)
        support[k] = np.maximum.reduceat(along, starts)
        support[k + N_DIRECTIONS] = -np.minimum.reduceat(along, starts)
    caliper = support[:N_DIRECTIONS] + support[N_DIRECTIONS:]
    side = (np.roll(support, 1, axis=0) + np.roll(support, -1, axis=0) - 2 * support * np.cos(delta)) / np.sin(delta)
    return caliper.max(axis=0), caliper.min(axis=0), 0.5 * np.sum(support * side, axis=0)


def _cells(breast: BreastRegion, row_px: Floats, col_px: Floats) -> tuple[Integers, Integers]:
    """Return the cells of the zone map that the places lie in."""
    row = np.clip(np.rint(row_px).astype(np.int64) // breast.step_px, 0, breast.zones.shape[0] - 1)
    col = np.clip(np.rint(col_px).astype(np.int64) // breast.step_px, 0, breast.zones.shape[1] - 1)
    return row, col


def _evidence(mammogram: Mammogram, breast: BreastRegion, detail: Detail, marks: Marks, form: _Form) -> Evidence:
    """Return the features that tell calcium from noise, strands, dust and edges, read at the spots only."""
    seeds = marks.seeds
    row_px, col_px = form.row + marks.box.row_start, form.col + marks.box.col_start
    box_cell = detail.cells(seeds.row_px, seeds.col_px)
    noise = detail.noise[box_cell].astype(np.float64)
    zones = breast.zones[_cells(breast, row_px, col_px)]
    grey_range = max(breast.grey_range[1] - breast.grey_range[0], 1e-12)
    features: dict[str, Floats] = {
        "response_sigma": seeds.response_sigma,
        "scale_mm": seeds.scale_mm,
        "snr": marks.height / noise,
        "grey": (detail.grey[box_cell] - breast.grey_range[0]) / grey_range,
        "noise": noise / max(float(np.median(detail.noise)), 1e-12),
        "coherence": detail.coherence[box_cell].astype(np.float64),
        "edge_share": marks.edge / np.maximum(marks.height, 1e-12),
        "edge_sigma": marks.edge / noise,
        "cut": marks.cut.astype(np.float64),
        "hole_share": form.hole_px / np.maximum(form.n_px + form.hole_px, 1),
        "n_px": form.n_px,
        "near_edge": ((zones & Zone.EDGE) > 0).astype(np.float64),
        "in_pectoral": ((zones & Zone.PECTORAL) > 0).astype(np.float64),
        "near_skin": ((zones & Zone.SKIN) > 0).astype(np.float64),
        "pixel_mm": np.full(len(seeds), detail.pixel_mm),
    }
    for band in detail.bands:
        level = detail.levels[band.level]
        row, col = level.to_cells(seeds.row_px, 0), level.to_cells(seeds.col_px, 1)
        value = sample_bilinear(band.response, row, col)
        features[f"response_{band.scale_mm:.3f}"] = value / band.noise[box_cell]
    features |= _pixel_features(mammogram, marks) | _ring_contrasts(detail, marks, noise)
    return Evidence(tuple(features), np.stack(list(features.values()), axis=1).astype(np.float32))


def _pixel_features(mammogram: Mammogram, marks: Marks) -> dict[str, Floats]:
    """Return what the unsmoothed pixels at the peak say: dust on film is sharper than anything imaged through it."""
    pixels, seeds = mammogram.pixels, marks.seeds
    rows, cols = pixels.shape
    offset = np.arange(-3, 4)
    row = np.clip(np.rint(seeds.row_px).astype(np.int64)[:, None] + offset, 0, rows - 1)[:, :, None]
    col = np.clip(np.rint(seeds.col_px).astype(np.int64)[:, None] + offset, 0, cols - 1)[:, None, :]
    patch = pixels[row, col]
    best = patch[:, 2:5, 2:5].reshape(-1, 9).argmax(axis=1)
    each, r, c = np.arange(len(seeds)), 2 + best // 3, 2 + best % 3
    peak = patch[each, r, c]
    near = (patch[each, r - 1, c] + patch[each, r + 1, c] + patch[each, r, c - 1] + patch[each, r, c + 1]) / 4
    far = (patch[each, r - 2, c] + patch[each, r + 2, c] + patch[each, r, c - 2] + patch[each, r, c + 2]) / 4
    height = np.maximum(marks.height, 1e-12)
    return {
        "saturated": (peak >= pixels.max()).astype(np.float64),
        "drop_1px": (peak - near) / height,
        "drop_2px": (peak - far) / height,
    }


def _ring_contrasts(detail: Detail, marks: Marks, noise: Floats) -> dict[str, Floats]:
    """Return, for each ring, mean, lowest and spread of the contrast over directions, and how unlike they are.

    The last is the weakest pair of opposite directions by the strongest: near 1 for a blob, near 0 on a strand.
    """
    seeds = marks.seeds
    peak = marks.threshold + 0.5 * marks.height
    angle = np.arange(N_RING_DIRECTIONS) * (2 * np.pi / N_RING_DIRECTIONS)
    features: dict[str, Floats] = {}
    for radius_mm in RING_RADII_MM:
        radius_px = radius_mm / detail.pixel_mm
        level = min(detail.levels, key=lambda item, r=radius_px: abs(np.log(item.step_px / (r / 4))))
        row = seeds.row_px[:, None] + radius_px * np.sin(angle)
        col = seeds.col_px[:, None] + radius_px * np.cos(angle)
        contrast = (peak[:, None] - level.sample(row, col)) / noise[:, None]
        pair = 0.5 * (contrast[:, : N_RING_DIRECTIONS // 2] + contrast[:, N_RING_DIRECTIONS // 2 :])
        name = f"ring_{radius_mm:g}"
        features[f"{name}_mean"] = contrast.mean(axis=1)
        features[f"{name}_lowest"] = contrast.min(axis=1)
        features[f"{name}_spread"] = contrast.std(axis=1)
        features[f"{name}_evenness"] = pair.min(axis=1) / np.maximum(pair.max(axis=1), 1e-6)
    return features
