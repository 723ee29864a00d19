"""The pixels over half height around each candidate, all candidates at once."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from detector.detect.borders import edge_steps
from detector.records import BoolImage, Detail, FloatImage, Level, Seeds
from detector.settings import DetectSettings

RING_SCALES = np.array([2.6, 4.5])[:, None]
"""Radii of the rings that the surroundings are read on, in scales: two and three times the radius of the blob."""

REACH_PX, FAR_REACH_PX = 9, 31
"""Half sides of the search window in cells of the level: most spots (the outer ring of the largest scale of a level,
two cells, just fits), and those that run over its border."""

FAR_STEP_PX, FAR_SIGMA = 4, 5.0
"""Coarsest level, in pixels a cell, and least response with which lines are followed beyond the first window. What else
runs over it is left out: half the height of a faint blob is no more than the texture that it runs into (of 8,000 such
candidates on real images with inserted calcifications, 12 were calcium), and no macrocalcification is so large for its
scale."""

_ANGLE = np.arange(16) * (np.pi / 8)

Integers = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Regions:
    """Candidates and their pixels: `pixel` is a flat index into the finest level, `owner` the row of `seeds`.

    The outermost pixels of the level belong to none, so that every pixel has four neighbours.
    """

    seeds: Seeds
    owner: Integers
    pixel: Integers

    @classmethod
    def concatenate(cls, parts: list[Regions]) -> Regions:
        """Return several sets of regions as one."""
        starts = np.cumsum([0] + [len(p.seeds) for p in parts]).astype(np.int32)
        return cls(
            Seeds.concatenate([p.seeds for p in parts]),
            np.concatenate([p.owner + start for p, start in zip(parts, starts[:-1], strict=True)]),
            np.concatenate([p.pixel for p in parts]),
        )


def grow_regions(detail: Detail, seeds: Seeds, settings: DetectSettings) -> Regions:
    """Return the pixels over half height that hang together with each seed's peak.

    Parameters
    ----------
    detail : Detail
    seeds : Seeds
        At least one row.
    settings : DetectSettings

    Returns
    -------
    Regions
        Seeds level after level, with height, threshold, tilt and cut filled, of coarse ones also edge; without those
        that leave their window, and without coarse ones that fade.
    """
    parts = []
    for index, level in enumerate(detail.levels):
        chosen = seeds[seeds.level == index]
        if not len(chosen):
            continue
        chosen, inside = _grow(level, chosen, detail.pixel_mm, REACH_PX)
        far = chosen.cut & (chosen.response_sigma >= FAR_SIGMA) & (level.step_px <= FAR_STEP_PX)
        near = np.flatnonzero(~chosen.cut)
        parts.append(_on_pixels(detail, level, *_sharp(detail, chosen[near], inside[near], settings)))
        if far.any():
            chosen, inside = _grow(level, chosen[far], detail.pixel_mm, FAR_REACH_PX)
            # on the finest level a long line is kept as far as it is seen; what is wide and endless is a strand
            ends = np.flatnonzero(~chosen.cut | (level.step_px == 1))
            chosen, inside = chosen[ends], inside[ends]
            parts.append(_on_pixels(detail, level, *_sharp(detail, chosen, inside, settings)))
    return Regions.concatenate(parts)


def _sharp(detail: Detail, seeds: Seeds, inside: BoolImage, settings: DetectSettings) -> tuple[Seeds, BoolImage]:
    """Return the seeds, with their cells, that are fine or end sharply: calcium ends within the system's blur."""
    coarse = np.flatnonzero(seeds.scale_mm >= settings.coarse_scale_mm)
    edge = np.full(len(seeds), np.nan)
    edge[coarse] = edge_steps(detail, seeds[coarse], bounded=True)
    noise = detail.noise[detail.cells(seeds.row_px, seeds.col_px)]
    fades = edge < np.maximum(settings.edge_share * seeds.height, settings.edge_sigma * noise)
    kept = np.flatnonzero((seeds.height > 0) & ~fades)
    return seeds.replace(edge=edge)[kept], inside[kept]


@dataclass(frozen=True)
class _Windows:
    """Search windows of n seeds, in cells: corners on the level, and where the seeds are, near a border not amid."""

    side: int
    top: NDArray[np.intp]
    left: NDArray[np.intp]
    row: NDArray[np.intp]
    col: NDArray[np.intp]

    @classmethod
    def around(cls, level: Level, seeds: Seeds, reach: int) -> _Windows:
        side = min(2 * reach + 1, *level.image.shape)
        row = np.rint(level.to_cells(seeds.row_px, 0)).astype(np.intp)
        col = np.rint(level.to_cells(seeds.col_px, 1)).astype(np.intp)
        top = np.clip(row - side // 2, 0, level.image.shape[0] - side)
        left = np.clip(col - side // 2, 0, level.image.shape[1] - side)
        return cls(side, top, left, row - top, col - left)

    def cut_from(self, image: FloatImage) -> FloatImage:
        """Return the windows of an image, shape (n, side, side)."""
        return np.asarray(sliding_window_view(image, (self.side, self.side))[self.top, self.left], np.float32)

    def inner(self, offset: Floats | NDArray[np.intp], place: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return places at an offset in cells, kept within the window."""
        return np.clip(np.rint(place + offset), 0, self.side - 1).astype(np.intp)


def _grow(level: Level, seeds: Seeds, pixel_mm: float, reach: int) -> tuple[Seeds, BoolImage]:
    """Return the seeds with what the window says of them, and the window's cells that are theirs."""
    windows = _Windows.around(level, seeds, reach)
    background = windows.cut_from(level.background)
    tophat = windows.cut_from(level.image) - background

    each = np.arange(len(seeds))[:, None, None]
    radius = RING_SCALES * (seeds.scale_mm / pixel_mm / level.step_px)[:, None, None]
    ring_row = windows.inner(radius * np.sin(_ANGLE), windows.row[:, None, None])
    ring_col = windows.inner(radius * np.cos(_ANGLE), windows.col[:, None, None])
    # a seed of too fine a scale has its inner ring on the spot itself
    base = np.median(tophat[each, ring_row, ring_col], axis=2).min(axis=1)
    peak, peak_row, peak_col = _peak(tophat, windows)
    half = 0.5 * (base + peak)
    inside = _connected(tophat > half[:, None, None], peak_row, peak_col)
    outer = background[each[..., 0], ring_row[:, -1], ring_col[:, -1]]
    width_px = 8 * radius[:, -1, 0] * level.step_px
    return seeds.replace(
        height=peak - base,
        threshold=background[each[:, 0, 0], windows.row, windows.col] + half,
        tilt_row=outer @ np.sin(_ANGLE) / width_px,
        tilt_col=outer @ np.cos(_ANGLE) / width_px,
        cut=inside[:, [0, -1]].any((1, 2)) | inside[:, :, [0, -1]].any((1, 2)),
    ), inside


def _peak(tophat: FloatImage, windows: _Windows) -> tuple[FloatImage, NDArray[np.intp], NDArray[np.intp]]:
    """Return the height at each seed, and where within a cell of it the brightest cell lies.

    The brightest of nine cells is the noise's choice; the mean of the upper five is nearly free of it.
    """
    d_row, d_col = (offset.ravel() - 1 for offset in np.indices((3, 3)))
    row = windows.inner(d_row, windows.row[:, None])
    col = windows.inner(d_col, windows.col[:, None])
    each = np.arange(len(tophat))
    around = tophat[each[:, None], row, col]
    best = around.argmax(axis=1)
    height = np.sort(around, axis=1)[:, 4:].mean(axis=1)
    return height, row[each, best], col[each, best]


def _connected(inside: BoolImage, row: NDArray[np.intp], col: NDArray[np.intp]) -> BoolImage:
    """Return, window by window, the 8-connected part that holds (row, col).

    All windows are laid one under another in one picture, a blank line between them, so that one labelling serves all;
    the slow equivalent is `scipy.ndimage.label` window by window.
    """
    n, side, _ = inside.shape
    picture = np.zeros((n, side + 1, side), np.uint8)
    picture[:, :side] = inside
    _, labels = cv2.connectedComponents(picture.reshape(-1, side), connectivity=8, ltype=cv2.CV_32S)
    windows = np.asarray(labels).reshape(n, side + 1, side)[:, :side]
    own = windows[np.arange(n), row, col]
    return np.asarray((windows == own[:, None, None]) & (own > 0)[:, None, None], np.bool_)


def _on_pixels(detail: Detail, level: Level, seeds: Seeds, inside: BoolImage) -> Regions:
    """Return the regions of one level as pixels of the finest level.

    Cells of a coarse level are grown by one and spread over their pixels, of which those over the threshold stay: the
    outline is that of the finest level.
    """
    image, step = detail.levels[0].image, level.step_px
    windows = _Windows.around(level, seeds, inside.shape[1] // 2)
    owner, row, col = (index.astype(np.int32) for index in np.nonzero(_grown_by_one(inside) if step > 1 else inside))
    row += windows.top.astype(np.int32)[owner]
    col += windows.left.astype(np.int32)[owner]
    if step > 1:
        block_row, block_col = (block.ravel().astype(np.int32) for block in np.indices((step, step)))
        row = (row[:, None] * step + block_row).ravel()
        col = (col[:, None] * step + block_col).ravel()
        owner = np.repeat(owner, step * step)
    # what was padded is no image
    end_row, end_col = (min(n, padded - 1) for n, padded in zip(detail.box.shape, image.shape, strict=True))
    valid = (row > 0) & (row < end_row) & (col > 0) & (col < end_col)
    row, col, owner = row[valid], col[valid], owner[valid]
    if step > 1:
        bright = image[row, col] > seeds.level_at(owner, row + detail.box.row_start, col + detail.box.col_start)
        row, col, owner = row[bright], col[bright], owner[bright]
    return Regions(seeds, owner, (row * np.int32(image.shape[1]) + col).astype(np.int32))


def _grown_by_one(inside: BoolImage) -> BoolImage:
    """Return the windows' cells with their eight neighbours."""
    grown = inside.copy()
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    wide = grown.copy()
    wide[:, :, 1:] |= grown[:, :, :-1]
    wide[:, :, :-1] |= grown[:, :, 1:]
    return wide
