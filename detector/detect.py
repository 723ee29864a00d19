"""Where bright spots stand out, and the pixels of each: Detail -> Marks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


import cv2
import numpy as np
from numpy.typing import NDArray

from detector.records import Band, BoolImage, BreastRegion, Detail, FloatImage, Level, Marks, Seeds, Zone
from detector.settings import DetectSettings

RING_SCALES = np.array([[2.6], [4.5]])
"""Radii of the rings that the surroundings are read on, in scales: two and three times the radius of the blob itself."""

REACH_PX, FAR_REACH_PX = 12, 32
"""Half sides of the search window in cells of the level: most spots, and those that run over its border."""


FAR_STEP_PX = 2
"""Coarsest level, in pixels a cell, on which lines are followed beyond the first window."""

OUTLINE_FRACTION = 0.5
"""Half height keeps the diameter of a blurred disc (Reiser 2008)."""


RAY_SCALES, RAY_SAMPLES = 3.6, 13
"""Length of the rays that look for the border, in scales, and samples on each."""

EDGE_MM = 0.12
"""Distance from the outline at which its step is read: more than the blur of common systems (0.05 to 0.1 mm)."""


LARGE_SCALE_MM, LARGE_EDGE_SHARE = 0.25, 0.5
"""Scale and step across the border, as a share of height, from which a spot may hold a brighter one."""


@dataclass(frozen=True)
class _Regions:
    """Candidates of all levels: place, outline level, and which cells of the search window are theirs."""

    seeds: Seeds
    threshold: NDArray[np.float64]
    tilt: NDArray[np.float64]
    height: NDArray[np.float64]
    cut: BoolImage
    owner: NDArray[np.int64]
    pixel: NDArray[np.int64]
    edge: NDArray[np.float64]

    def take(self, rows: NDArray[np.intp]) -> _Regions:
        """Return the regions of some seeds."""
        new = np.full(len(self.seeds), -1, np.int64)
        new[rows] = np.arange(len(rows))
        kept = new[self.owner] >= 0
        return _Regions(
            self.seeds[rows],
            self.threshold[rows],
            self.tilt[rows],
            self.height[rows],
            self.cut[rows],
            new[self.owner[kept]],
            self.pixel[kept],
            self.edge[rows],
        )


def detect_marks(detail: Detail, breast: BreastRegion, settings: DetectSettings) -> Marks:
    """Find blobs of all scales and the pixels over half height that belong to each.

    Peaks of the difference of Gaussians over the threshold are candidates. Around each the pixels over half of its
    height are taken from the level that it was found on. Where candidates overlap, the one with the larger product of
    height and significance stays: of a macrocalcification and a bright grain of noise inside it the former, of a
    cluster seen as one blob and a speck of it the latter.

    Parameters
    ----------
    detail : Detail
    breast : BreastRegion
    settings : DetectSettings

    Returns
    -------
    Marks
        Rows ordered by row, then column.
    """
    shape = detail.levels[0].image.shape if detail.levels else (0, 0)
    found = [_peaks(detail, band, breast, settings) for band in detail.bands]
    seeds = _concatenate(found)
    limit = int(settings.max_candidates_per_cm2 * breast.area_cm2)
    if len(seeds) > limit:
        seeds = seeds[np.sort(np.argsort(-seeds.response_sigma, kind="stable")[:limit])]
    if not len(seeds):
        return _no_marks(detail, shape)
    regions = _with_edges(_grow(detail, seeds), detail)
    return _resolve(_without_lumps(regions, detail, settings), detail, shape)


def _no_marks(detail: Detail, shape: tuple[int, ...]) -> Marks:
    nothing = np.empty(0)
    return Marks(
        np.zeros(shape, np.int32),
        Seeds.empty(),
        nothing,
        np.empty((0, 2)),
        nothing,
        np.empty(0, np.bool_),
        nothing,
        detail.box,
    )


def _concatenate(tables: list[Seeds]) -> Seeds:
    if not tables:
        return Seeds.empty()
    return Seeds(**{c.name: np.concatenate([getattr(t, c.name) for t in tables]) for c in Seeds.columns()})


def _peaks(detail: Detail, band: Band, breast: BreastRegion, settings: DetectSettings) -> Seeds:
    """Return the local maxima of one band over the threshold, inside the breast."""
    level = detail.levels[band.level]
    response = band.response
    threshold = (
        settings.threshold_sigma if band.scale_mm < settings.coarse_scale_mm else settings.coarse_threshold_sigma
    )
    quietest = np.float32(threshold * float(band.noise.min()))
    highest = cv2.dilate(response, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    row, col = np.nonzero((response >= highest) & (response > quietest))
    # noise and zones are read at the cell of the zone map that the peak lies in
    cell_row = row * level.step_px // breast.step_px
    cell_col = col * level.step_px // breast.step_px
    sigma = response[row, col] / band.noise[cell_row, cell_col]
    first_row, first_col = detail.box.row_start // breast.step_px, detail.box.col_start // breast.step_px
    zone_row = np.minimum(cell_row + first_row, breast.zones.shape[0] - 1)
    zone_col = np.minimum(cell_col + first_col, breast.zones.shape[1] - 1)
    keep = (sigma > threshold) & ((breast.zones[zone_row, zone_col] & Zone.BREAST) > 0)
    row, col, sigma = row[keep], col[keep], sigma[keep]
    return Seeds(
        row_px=level.origin_px[0] + level.step_px * row,
        col_px=level.origin_px[1] + level.step_px * col,
        scale_mm=np.full(len(row), band.scale_mm),
        response_sigma=sigma,
        level=np.full(len(row), band.level),
    )


def _grow(detail: Detail, seeds: Seeds) -> _Regions:
    """Return the pixels over half height around each seed, on the grid of the finest level."""
    parts = []
    for index, level in enumerate(detail.levels):
        rows = np.flatnonzero(seeds.level == index)
        if not len(rows):
            continue
        windows = _grow_in_window(level, seeds[rows], detail.pixel_mm, REACH_PX)
        far = np.flatnonzero(windows.cut) if level.step_px <= FAR_STEP_PX else np.empty(0, np.intp)
        near = np.setdiff1d(np.arange(len(rows)), far) if level.step_px <= FAR_STEP_PX else np.flatnonzero(~windows.cut)
        parts.append(_paintable(detail, index, seeds[rows[near]], windows.take(near)))
        if len(far):
            wide = _grow_in_window(level, seeds[rows[far]], detail.pixel_mm, FAR_REACH_PX)
            parts.append(_paintable(detail, index, seeds[rows[far]], wide))
    return _joined(parts)


@dataclass(frozen=True)
class _Windows:
    """Search windows of n seeds: their cells over half height, and the numbers that say where half height is."""

    inside: BoolImage
    threshold: NDArray[np.float64]
    tilt: NDArray[np.float64]
    height: NDArray[np.float64]
    cut: BoolImage

    def take(self, rows: NDArray[np.intp]) -> _Windows:
        return _Windows(self.inside[rows], self.threshold[rows], self.tilt[rows], self.height[rows], self.cut[rows])


def _grow_in_window(level: Level, seeds: Seeds, pixel_mm: float, reach: int) -> _Windows:
    """Return the cells over half height that hang together with each seed's peak."""
    row = np.rint((seeds.row_px - level.origin_px[0]) / level.step_px).astype(np.intp)
    col = np.rint((seeds.col_px - level.origin_px[1]) / level.step_px).astype(np.intp)
    offset = np.arange(-reach, reach + 1)
    rows = np.clip(row[:, None] + offset, 0, level.image.shape[0] - 1)[:, :, None]
    cols = np.clip(col[:, None] + offset, 0, level.image.shape[1] - 1)[:, None, :]
    tophat = level.image[rows, cols] - level.background[rows, cols]

    n = len(seeds)
    each = np.arange(n)
    around = tophat[:, reach - 1 : reach + 2, reach - 1 : reach + 2].reshape(n, 9)
    best = around.argmax(axis=1)
    peak_row, peak_col = reach - 1 + best // 3, reach - 1 + best % 3
    angle = np.arange(16) * (np.pi / 8)
    radius = RING_SCALES * (seeds.scale_mm / pixel_mm / level.step_px)[:, None, None]
    ring_row = np.rint(reach + radius * np.sin(angle)).astype(np.intp)
    ring_col = np.rint(reach + radius * np.cos(angle)).astype(np.intp)
    # a seed of too fine a scale has its inner ring on the spot itself
    base = np.median(tophat[each[:, None, None], ring_row, ring_col], axis=2).min(axis=1)
    # the brightest pixel of nine is the noise's choice; the mean of the upper five is nearly free of it
    height = np.sort(around, axis=1)[:, 4:].mean(axis=1) - base
    half = base + OUTLINE_FRACTION * height

    inside = _connected(tophat > half[:, None, None], peak_row, peak_col)
    cut = inside[:, 0].any(1) | inside[:, -1].any(1) | inside[:, :, 0].any(1) | inside[:, :, -1].any(1)
    threshold = level.background[row, col] + half
    outer = level.background[rows[each[:, None], ring_row[:, -1], 0], cols[each[:, None], 0, ring_col[:, -1]]]
    slope = np.stack([outer @ np.sin(angle), outer @ np.cos(angle)], axis=1) / (8 * radius[:, -1] * level.step_px)
    return _Windows(inside, threshold.astype(np.float64), slope.astype(np.float64), height.astype(np.float64), cut)


def _connected(inside: BoolImage, row: NDArray[np.intp], col: NDArray[np.intp]) -> BoolImage:
    """Return, window by window, the 8-connected part that holds (row, col).

    All windows are laid side by side in one picture, so that one labelling serves all; the slow equivalent is
    `scipy.ndimage.label` window by window.
    """
    n, side, _ = inside.shape
    across = int(np.ceil(np.sqrt(n)))
    down = -(-n // across)
    mosaic = np.zeros((down * across, side + 1, side + 1), np.uint8)
    mosaic[:n, :side, :side] = inside
    mosaic = mosaic.reshape(down, across, side + 1, side + 1).transpose(0, 2, 1, 3)
    picture = np.ascontiguousarray(mosaic).reshape(down * (side + 1), across * (side + 1))
    _, labels = cv2.connectedComponents(picture, connectivity=8, ltype=cv2.CV_32S)
    stack = labels.reshape(down, side + 1, across, side + 1).transpose(0, 2, 1, 3)
    stack = stack.reshape(down * across, side + 1, side + 1)[:n, :side, :side]
    own = stack[np.arange(n), row, col]
    return np.asarray((stack == own[:, None, None]) & (own > 0)[:, None, None], np.bool_)


def _paintable(detail: Detail, index: int, seeds: Seeds, windows: _Windows) -> _Regions:
    """Return the regions of one level as pixels of the finest level.

    Cells of a coarse level are grown by one and spread over their pixels, of which those over the threshold stay: the
    outline is that of the finest level.
    """
    level, image = detail.levels[index], detail.levels[0].image
    step = level.step_px
    inside = windows.inside
    reach = inside.shape[1] // 2
    if step > 1 and len(inside):
        inside = _grown_by_one(inside)
    owner, row, col = np.nonzero(inside)
    centre_row = np.rint((seeds.row_px - level.origin_px[0]) / step).astype(np.int64)
    centre_col = np.rint((seeds.col_px - level.origin_px[1]) / step).astype(np.int64)
    row, col = row - reach + centre_row[owner], col - reach + centre_col[owner]
    if step > 1:
        block = np.arange(step)
        row = np.repeat(row * step, step * step) + np.tile(np.repeat(block, step), len(row))
        col = np.repeat(col * step, step * step) + np.tile(block, step * len(col))
        owner = np.repeat(owner, step * step)
    valid = (row >= 0) & (row < image.shape[0]) & (col >= 0) & (col < image.shape[1])
    row, col, owner = row[valid], col[valid], owner[valid]
    if step > 1:
        d_row = row + detail.box.row_start - seeds.row_px[owner]
        d_col = col + detail.box.col_start - seeds.col_px[owner]
        tilt = windows.tilt[owner]
        bright = image[row, col] > windows.threshold[owner] + tilt[:, 0] * d_row + tilt[:, 1] * d_col
        row, col, owner = row[bright], col[bright], owner[bright]
    unknown = np.full(len(seeds), np.nan)
    pixel = row * image.shape[1] + col
    return _Regions(seeds, windows.threshold, windows.tilt, windows.height, windows.cut, owner, pixel, unknown)


def _grown_by_one(inside: BoolImage) -> BoolImage:
    grown = inside.copy()
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    wide = grown.copy()
    wide[:, :, 1:] |= grown[:, :, :-1]
    wide[:, :, :-1] |= grown[:, :, 1:]
    return wide


def _joined(parts: list[_Regions]) -> _Regions:
    starts = np.cumsum([0] + [len(p.seeds) for p in parts])
    return _Regions(
        seeds=_concatenate([p.seeds for p in parts]),
        threshold=np.concatenate([p.threshold for p in parts]),
        tilt=np.concatenate([p.tilt for p in parts]),
        height=np.concatenate([p.height for p in parts]),
        cut=np.concatenate([p.cut for p in parts]),
        owner=np.concatenate([p.owner + start for p, start in zip(parts, starts[:-1], strict=True)]),
        pixel=np.concatenate([p.pixel for p in parts]),
        edge=np.concatenate([p.edge for p in parts]),
    )


def _with_edges(regions: _Regions, detail: Detail) -> _Regions:
    """Return the regions with the mean step of grey level across their border.

    Sixteen rays leave each seed. Where a ray falls to the outline's level, on the seed's own level of the pyramid, the
    finest image is read a little inside and a little outside.
    """
    edge = np.empty(len(regions.seeds))
    for index, level in enumerate(detail.levels):
        rows = np.flatnonzero(regions.seeds.level == index)
        if len(rows):
            edge[rows] = _edge_step(detail, level, regions.seeds[rows], regions.threshold[rows], regions.tilt[rows])
    return dataclasses.replace(regions, edge=edge)


def _edge_step(
    detail: Detail, level: Level, seeds: Seeds, threshold: NDArray[np.float64], tilt: NDArray[np.float64]
) -> NDArray[np.float32]:
    angle = np.arange(16) * (np.pi / 8)
    sine, cosine = np.sin(angle), np.cos(angle)
    row, col = seeds.row_px[:, None], seeds.col_px[:, None]
    step_px = seeds.scale_mm[:, None] / detail.pixel_mm * (RAY_SCALES / (RAY_SAMPLES - 1))
    away = (step_px * np.arange(RAY_SAMPLES))[:, None, :]
    profile = level.sample(row[..., None] + away * sine[:, None], col[..., None] + away * cosine[:, None])
    slope = tilt[:, :1] * sine + tilt[:, 1:] * cosine
    profile -= slope[..., None] * away
    below = profile < threshold[:, None, None]
    below[..., -1] = True
    first = np.maximum(below.argmax(axis=2), 1)[..., None]
    high = np.take_along_axis(profile, first - 1, axis=2)[..., 0]
    low = np.take_along_axis(profile, first, axis=2)[..., 0]
    share = np.clip((high - threshold[:, None]) / np.maximum(high - low, 1e-12), 0, 1)
    border = (first[..., 0] - 1 + share) * step_px
    # a slope of tissue moves the half height off the true border, so the steepest place nearby counts; neighbouring
    # rays are averaged first, lest the steepest of nine places be the noise's
    border = border[:, None, :] + (np.linspace(-0.5, 0.5, 9) * seeds.scale_mm[:, None] / detail.pixel_mm)[:, :, None]
    delta = max(EDGE_MM / detail.pixel_mm, 1.0)
    inside, outside = (
        detail.levels[0].sample(
            row[..., None] + np.maximum(border + shift, 0) * sine,
            col[..., None] + np.maximum(border + shift, 0) * cosine,
        )
        for shift in (-delta, delta)
    )
    step = inside - outside
    step = (step + np.roll(step, 1, axis=2) + np.roll(step, -1, axis=2)) / 3
    return np.asarray(step.max(axis=1).mean(axis=1), np.float32)


def _without_lumps(regions: _Regions, detail: Detail, settings: DetectSettings) -> _Regions:
    """Return the regions without coarse ones that fade: calcium ends within the system's blur, tissue does not."""
    noise = detail.noise[detail.cells(regions.seeds.row_px, regions.seeds.col_px)]
    sharp = (regions.edge >= settings.edge_share * regions.height) & (regions.edge >= settings.edge_sigma * noise)
    return regions.take(np.flatnonzero(sharp | (regions.seeds.scale_mm < settings.coarse_scale_mm)))


def _resolve(regions: _Regions, detail: Detail, shape: tuple[int, ...]) -> Marks:
    """Return one mark where several candidates overlap, and paint the label image."""
    seeds = regions.seeds
    n = len(seeds)
    row = np.rint(seeds.row_px - detail.box.row_start).astype(np.int64)
    col = np.rint(seeds.col_px - detail.box.col_start).astype(np.int64)
    centre = np.clip(row, 0, shape[0] - 1) * shape[1] + np.clip(col, 0, shape[1] - 1)
    # rank n is the strongest; ties go to the upper, then the left one
    noise = detail.noise[detail.cells(seeds.row_px, seeds.col_px)]
    # the step was found along the whole border, whose independent places grow in number with the scale
    n_places = seeds.scale_mm / detail.bands[0].scale_mm
    strength = regions.height * np.maximum(seeds.response_sigma, regions.edge / noise * np.sqrt(n_places))
    order = np.lexsort((seeds.col_px, seeds.row_px, -strength))
    rank = np.empty(n, np.int32)
    rank[order] = np.arange(n, 0, -1)

    canvas = np.zeros(shape[0] * shape[1], np.int32)
    canvas[centre[order[::-1]]] = rank[order[::-1]]
    holds_stronger = np.zeros(n, np.bool_)
    holds_stronger[regions.owner[canvas[regions.pixel] > rank[regions.owner]]] = True
    # a large spot with a sharp border is one in spite of a grain of dust on it; a cluster seen as one blob has none
    whole = (seeds.scale_mm >= LARGE_SCALE_MM) & (regions.edge >= LARGE_EDGE_SHARE * regions.height)
    alive = (~holds_stronger | whole) & (regions.height > 0)
    for _ in range(2):
        canvas[:] = 0
        painted = alive[regions.owner]
        owner, pixel = regions.owner[painted], regions.pixel[painted]
        by_rank = np.argsort(rank[owner], kind="stable")
        canvas[pixel[by_rank]] = rank[owner[by_rank]]
        alive &= canvas[centre] == rank
    kept = np.flatnonzero(alive)
    kept = kept[np.lexsort((seeds.col_px[kept], seeds.row_px[kept]))]
    label_of_rank = np.zeros(n + 1, np.int32)
    label_of_rank[rank[kept]] = np.arange(1, len(kept) + 1)
    return Marks(
        labels=label_of_rank[canvas].reshape(shape),
        seeds=seeds[kept],
        threshold=regions.threshold[kept],
        tilt=regions.tilt[kept],
        height=regions.height[kept],
        cut=regions.cut[kept],
        edge=regions.edge[kept],
        box=detail.box,
    )
