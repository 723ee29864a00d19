"""Round macrocalcifications, found by the step that they have all around: whatever strands cross or lie beside them.

A disc is high over its own surroundings nowhere near as evenly as it ends. So its outline is not taken at half of a
height, but where the grey level falls most steeply along rays from its middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.detect.artefacts import is_corner
from detector.detect.borders import COSINE, REFINED_CELL_MM, SINE, edge_px, sample_rays, smoothed_around
from detector.detect.levels import (
    FINEST_CELL_MM,
    border_px,
    coarsest_level,
    coarsest_levels,
    from_border_px,
    noise_under,
)
from detector.detect.peaks import disc_peaks
from detector.detect.regions import Regions
from detector.records import BoolImage, BreastRegion, Detail, FloatImage, Level, Peaks, Seeds
from detector.settings import DetectSettings

FIRST_SHARES, NEXT_SHARES, LAST_SHARES, RIM_SHARES = (0.4, 1.8), (0.6, 1.5), (0.8, 1.25), (0.9, 1.1)
"""Distances by the radius within which the rim is sought: from a band's peak, then closer and closer, and for the test
of what was found."""

N_PLACES, N_RIM_PLACES = 9, 3
"""Places on each ray at which the step is read, and of these tests."""

ON_CIRCLE = 0.15
"""Distance from the circle, by its radius, within which a ray's steepest place is on it."""

FEWEST_AT_FIRST, FEWEST_AT_LAST = 0.4, 0.9
"""Share of the rays on a circle of what is looked at more closely; and the share in the end: all of sixteen but one."""

LEAST_FALL_SIGMA, LEAST_FIRST_SIGMA = 3.0, 2.5
"""Fall over the whole length of all rays but a quarter, and step on them, in noise units, of what is looked at more
closely: less than `LEAST_SIGMA`, since the rays leave a band's peak, not the middle."""

LEAST_SHARE, LEAST_SIGMA = 0.4, 4.0
"""Least step of all rays but a quarter, which strands may hide, by the disc's height and in noise units: a disc keeps
over 0.6 of its height with the blur of common systems, a Gaussian lump of 2 mm 0.2."""

LEAST_RADIUS_MM = 0.45
"""Radius of the smallest macrocalcification, less a tenth: where two strands cross there are smaller discs."""

INNER_SHARES, OUTSIDE_MM = np.array([0.2, 0.35, 0.5, 0.65])[:, None, None], 0.25
"""Where the height is read: within, by the radius, and the distance outside, beyond the blur."""

MOST_UNEVEN = 0.25
"""Greatest standard deviation of the grey levels within, by the height, about a surface of second degree, which takes
in a sphere's bulge and the tissue's slope: of discs with noise it is a tenth, of specks in a lump of tissue a third."""

N_ROUNDS = 4
"""Rounds of the fit of a circle; in each, places far from it count less (Holland and Welsch 1977, doi
10.1080/03610927708827533)."""

Floats = NDArray[np.float64]

_UNIT = np.stack([np.ones(len(SINE)), SINE, COSINE], axis=1)
"""What a radius, and a shift along rows and columns, add to the distance of the rim in each direction."""


def _surface() -> Floats:
    """Return the matrix that lays a surface of second degree through grey levels at the inner places."""
    y, x = ((INNER_SHARES * way).ravel() for way in (SINE, COSINE))
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    return np.asarray(np.linalg.pinv(terms).T @ terms.T, np.float64)


_SURFACE = _surface()


@dataclass(frozen=True)
class _Circles:
    """Circles in pixels of the whole image, shape (n,)."""

    row: Floats
    col: Floats
    radius: Floats

    def __getitem__(self, rows: BoolImage | NDArray[np.intp]) -> _Circles:
        return _Circles(self.row[rows], self.col[rows], self.radius[rows])

    def sample(self, level: Level, away_px: Floats) -> FloatImage:
        """Return grey levels on the rays, at distances from the middle that are shaped as `sample_rays` takes them."""
        return sample_rays(level, self.row, self.col, away_px)

    def steps(self, level: Level, shares: tuple[float, float], n_places: int, delta_px: float) -> tuple[Floats, Floats]:
        """Return how far the steepest fall lies on each ray, and by how much the level falls there, shape (16, n)."""
        places = np.linspace(*shares, n_places)
        away = self.radius * places[:, None, None]
        fall = self.sample(level, np.maximum(away - delta_px, 0)) - self.sample(level, away + delta_px)
        # neighbouring rays are averaged, lest the steepest be the noise's
        fall = smoothed_around(fall)
        steepest = fall.argmax(axis=0)
        step = np.take_along_axis(fall, steepest[None], axis=0)[0]
        return self.radius * places[steepest], step.astype(np.float64)

    def inner(self, level: Level) -> tuple[Floats, Floats]:
        """Return the mean grey level within, and the standard deviation about a surface of second degree."""
        grey = self.sample(level, self.radius * INNER_SHARES).reshape(len(_SURFACE), len(self.row)).astype(np.float64)
        return grey.mean(axis=0), (grey - _SURFACE.T @ grey).std(axis=0)

    def near(self, beside: Floats) -> BoolImage:
        """Return which places at a distance from the circles are on them."""
        return np.asarray(np.abs(beside) < ON_CIRCLE * self.radius, np.bool_)

    def inside(self, detail: Detail) -> BoolImage:
        """Return which circles keep off the border of the image."""
        away = from_border_px(detail.image_shape, self.row, self.col) - self.radius
        return np.asarray(away >= border_px(detail.pixel_mm), np.bool_)

    def fitted(self, distance: Floats, step: Floats) -> tuple[_Circles, Floats]:
        """Return the circles through places on the rays, large steps first, and each place's distance from them."""
        weight = np.clip(step / np.maximum(np.median(step, axis=0), 1e-9), 0, 1.5)
        products = (_UNIT[:, :, None] * _UNIT[:, None, :]).reshape(len(_UNIT), 9)
        beside, own = np.zeros_like(distance), np.zeros((len(self.row), 3))
        for _ in range(N_ROUNDS):
            counted = weight / (1 + (beside / (ON_CIRCLE * self.radius)) ** 2)
            matrix = (counted.T @ products).reshape(-1, 3, 3) + 1e-9 * np.eye(3)
            own = np.linalg.solve(matrix, ((counted * distance).T @ _UNIT)[:, :, None])[:, :, 0]
            beside = distance - _UNIT @ own.T
        shift = np.clip(own[:, 1:].T, -0.5 * self.radius, 0.5 * self.radius)
        radius = np.clip(own[:, 0], 0.5 * self.radius, 2 * self.radius)
        return _Circles(self.row + shift[0], self.col + shift[1], radius), beside


def find_discs(maxima: Peaks, detail: Detail, breast: BreastRegion, settings: DetectSettings) -> Regions:
    """Return the round things that end in a step nearly all around.

    Parameters
    ----------
    maxima : Peaks
        Of the bands' responses.
    detail : Detail
    breast : BreastRegion
    settings : DetectSettings

    Returns
    -------
    Regions
        Seeds in the middle of each, with all columns; one disc may come several times.
    """
    peaks, circles = _promising(disc_peaks(maxima), detail)
    off_corners = np.flatnonzero(~is_corner(peaks, detail, breast, settings))
    peaks, circles = peaks[off_corners], circles[off_corners]
    level, delta_px = coarsest_level(detail, FINEST_CELL_MM), edge_px(detail)
    beside = np.zeros((len(SINE), len(peaks)))
    for shares in (NEXT_SHARES, LAST_SHARES):
        circles, beside = circles.fitted(*circles.steps(level, shares, N_PLACES, delta_px))
    on_circle = circles.near(beside)
    _, step = circles.steps(level, RIM_SHARES, N_RIM_PLACES, delta_px)
    inside, uneven = circles.inner(level)
    around = circles.sample(level, (circles.radius + OUTSIDE_MM / detail.pixel_mm)[None])
    peaks = _on_discs(peaks, circles, detail)
    seeds = Seeds.at(
        peaks,
        top=inside,
        noise=noise_under(detail, peaks),
        height=inside - np.median(around, axis=0),
        edge=step.mean(axis=0),
        **_plane(0.5 * (inside + around), circles),
    )
    least = np.maximum(LEAST_SHARE * seeds.height, LEAST_SIGMA * seeds.noise)
    kept = (on_circle.mean(axis=0) >= FEWEST_AT_LAST) & (_all_but_a_quarter(step) >= least)
    kept &= (seeds.height > 0) & circles.inside(detail) & (circles.radius * detail.pixel_mm >= LEAST_RADIUS_MM)
    kept &= uneven <= MOST_UNEVEN * seeds.height
    beside = np.where(on_circle, beside, 0)
    rim_px = circles.radius + (np.roll(beside, 1, axis=0) + beside + np.roll(beside, -1, axis=0)) / 3
    return _filled(detail, seeds[kept], circles[kept], rim_px[:, kept])


def _promising(peaks: Peaks, detail: Detail) -> tuple[Peaks, _Circles]:
    """Return the peaks that a circle can be laid around on coarse cells, and the circles."""
    circles = _Circles(peaks.row_px, peaks.col_px, np.sqrt(2) * peaks.scale_mm / detail.pixel_mm)
    level = coarsest_level(detail, REFINED_CELL_MM)
    noise = noise_under(detail, peaks)
    # what falls less from first to last has no such step between: most of the places need not be looked at
    first, last = circles.sample(level, circles.radius * np.array(FIRST_SHARES)[:, None, None])
    falling = np.flatnonzero(_all_but_a_quarter(first - last) >= LEAST_FALL_SIGMA * noise)
    peaks, circles, noise = peaks[falling], circles[falling], noise[falling]
    distance, step = circles.steps(level, FIRST_SHARES, N_PLACES, edge_px(detail))
    steep = np.flatnonzero(_all_but_a_quarter(step) >= LEAST_FIRST_SIGMA * noise)
    peaks = peaks[steep]
    circles, beside = circles[steep].fitted(distance[:, steep], step[:, steep])
    kept = (circles.near(beside).mean(axis=0) >= FEWEST_AT_FIRST) & circles.inside(detail)
    return peaks[kept], circles[kept]


def _on_discs(peaks: Peaks, circles: _Circles, detail: Detail) -> Peaks:
    """Return the peaks in the middle of their circles, at the scale of discs of that size."""
    scale_mm = circles.radius / np.sqrt(2) * detail.pixel_mm
    return peaks.replace(
        row_px=np.rint(circles.row),
        col_px=np.rint(circles.col),
        scale_mm=scale_mm,
        level=coarsest_levels(detail, scale_mm),
    )


def _plane(level: Floats, circles: _Circles) -> dict[str, Floats]:
    """Return the plane through grey levels on the rim, as columns of seeds."""
    tilt_row, tilt_col = (2 * (level * way[:, None]).mean(axis=0) / circles.radius for way in (SINE, COSINE))
    return {"threshold": level.mean(axis=0), "tilt_row": tilt_row, "tilt_col": tilt_col}


def _all_but_a_quarter(step: Floats | FloatImage) -> Floats:
    """Return the step that three quarters of the rays have at least."""
    rank = len(step) // 4
    return np.asarray(np.sort(step, axis=0)[rank], np.float64)


def _filled(detail: Detail, seeds: Seeds, circles: _Circles, rim_px: Floats) -> Regions:
    """Return the pixels within the rim, whose distance from the middle is given along the rays."""
    if not len(seeds):
        return Regions.concatenate([])
    rows, cols = detail.levels[0].image.shape
    offset = np.arange(-math.ceil(rim_px.max()), math.ceil(rim_px.max()) + 1)
    row = seeds.row_px.astype(np.int64)[:, None, None] + offset[:, None]
    col = seeds.col_px.astype(np.int64)[:, None, None] + offset
    d_row, d_col = row - circles.row[:, None, None], col - circles.col[:, None, None]
    turn = np.arctan2(d_row, d_col) % (2 * np.pi) * (len(SINE) / (2 * np.pi))
    before = np.floor(turn).astype(np.int64)
    each, share = np.arange(len(seeds))[:, None, None], turn - before
    low, high = rim_px[before % len(SINE), each], rim_px[(before + 1) % len(SINE), each]
    within = np.hypot(d_row, d_col) <= low + share * (high - low)
    row, col = np.broadcast_arrays(row - detail.box.row_start, col - detail.box.col_start)
    within &= (row > 0) & (row < rows - 1) & (col > 0) & (col < cols - 1)
    owner = np.broadcast_to(each, within.shape)[within]
    return Regions(seeds, owner.astype(np.int32), (row[within] * cols + col[within]).astype(np.int32))
