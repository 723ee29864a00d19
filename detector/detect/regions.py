"""The pixels over half height around each candidate, all candidates at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.records import BoolImage, Detail, FloatImage, Level, Seeds

RING_SCALES = np.array([2.6, 4.5])[:, None]
"""Radii of the rings that the surroundings are read on, in scales: two and three times the radius of the blob itself."""

REACH_PX, FAR_REACH_PX = 12, 32
"""Half sides of the search window in cells of the level: most spots, and those that run over its border."""

FAR_STEP_PX = 2
"""Coarsest level, in pixels a cell, on which lines are followed beyond the first window."""

_ANGLE = np.arange(16) * (np.pi / 8)

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Regions:
    """Candidates and their pixels: `pixel` is a flat index into the finest level, `owner` the row of `seeds`."""

    seeds: Seeds
    owner: Integers
    pixel: Integers

    def with_seeds(self, seeds: Seeds) -> Regions:
        """Return the same pixels with other columns of the seeds."""
        return dataclasses.replace(self, seeds=seeds)

    def take(self, rows: NDArray[np.intp]) -> Regions:
        """Return the regions of some seeds."""
        new = np.full(len(self.seeds), -1, np.int64)
        new[rows] = np.arange(len(rows))
        kept = new[self.owner] >= 0
        return Regions(self.seeds[rows], new[self.owner[kept]], self.pixel[kept])

    @classmethod
    def concatenate(cls, parts: list[Regions]) -> Regions:
        """Return several sets of regions as one."""
        starts = np.cumsum([0] + [len(p.seeds) for p in parts])
        return cls(
            Seeds.concatenate([p.seeds for p in parts]),
            np.concatenate([p.owner + start for p, start in zip(parts, starts[:-1], strict=True)]),
            np.concatenate([p.pixel for p in parts]),
        )


def grow_regions(detail: Detail, seeds: Seeds) -> Regions:
    """Return the pixels over half height that hang together with each seed's peak.

    Parameters
    ----------
    detail : Detail
    seeds : Seeds
        At least one row.

    Returns
    -------
    Regions
        Seeds level after level, with height, threshold, tilt and cut filled. Coarse ones that leave their window are
        left out: no macrocalcification is that large for its scale.
    """
    parts = []
    for index, level in enumerate(detail.levels):
        chosen = seeds[seeds.level == index]
        if not len(chosen):
            continue
        chosen, inside = _grow(level, chosen, detail.pixel_mm, REACH_PX)
        near = np.flatnonzero(~chosen.cut)
        parts.append(_on_pixels(detail, level, chosen[near], inside[near]))
        if level.step_px <= FAR_STEP_PX and chosen.cut.any():
            far, inside = _grow(level, chosen[chosen.cut], detail.pixel_mm, FAR_REACH_PX)
            parts.append(_on_pixels(detail, level, far, inside))
    return Regions.concatenate(parts)


def _grow(level: Level, seeds: Seeds, pixel_mm: float, reach: int) -> tuple[Seeds, BoolImage]:
    """Return the seeds with what the window says of them, and the window's cells that are theirs."""
    row = np.rint(level.to_cells(seeds.row_px, 0)).astype(np.intp)
    col = np.rint(level.to_cells(seeds.col_px, 1)).astype(np.intp)
    offset = np.arange(-reach, reach + 1)
    rows = np.clip(row[:, None] + offset, 0, level.image.shape[0] - 1)[:, :, None]
    cols = np.clip(col[:, None] + offset, 0, level.image.shape[1] - 1)[:, None, :]
    background = level.background[rows, cols]
    tophat = level.image[rows, cols] - background

    radius = RING_SCALES * (seeds.scale_mm / pixel_mm / level.step_px)[:, None, None]
    at = tuple(np.rint(reach + radius * wave(_ANGLE)).astype(np.intp) for wave in (np.sin, np.cos))
    each = np.arange(len(seeds))
    # a seed of too fine a scale has its inner ring on the spot itself
    base = np.median(tophat[each[:, None, None], at[0], at[1]], axis=2).min(axis=1)
    peak, peak_row, peak_col = _peak(tophat, reach)
    half = 0.5 * (base + peak)
    inside = _connected(tophat > half[:, None, None], peak_row, peak_col)
    outer = background[each[:, None], at[0][:, -1], at[1][:, -1]]
    width_px = 8 * radius[:, -1, 0] * level.step_px
    return seeds.replace(
        height=peak - base,
        threshold=background[each, reach, reach] + half,
        tilt_row=outer @ np.sin(_ANGLE) / width_px,
        tilt_col=outer @ np.cos(_ANGLE) / width_px,
        cut=inside[:, [0, -1]].any((1, 2)) | inside[:, :, [0, -1]].any((1, 2)),
    ), inside


def _peak(tophat: FloatImage, reach: int) -> tuple[FloatImage, NDArray[np.intp], NDArray[np.intp]]:
    """Return the height of each window's middle, and where within a cell of it the brightest cell lies.

    The brightest of nine cells is the noise's choice; the mean of the upper five is nearly free of it.
    """
    around = tophat[:, reach - 1 : reach + 2, reach - 1 : reach + 2].reshape(len(tophat), 9)
    best = around.argmax(axis=1)
    height = np.sort(around, axis=1)[:, 4:].mean(axis=1)
    return height, reach - 1 + best // 3, reach - 1 + best % 3


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


def _on_pixels(detail: Detail, level: Level, seeds: Seeds, inside: BoolImage) -> Regions:
    """Return the regions of one level as pixels of the finest level.

    Cells of a coarse level are grown by one and spread over their pixels, of which those over the threshold stay: the
    outline is that of the finest level.
    """
    image, step = detail.levels[0].image, level.step_px
    reach = inside.shape[1] // 2
    owner, row, col = np.nonzero(_grown_by_one(inside) if step > 1 else inside)
    row += np.rint(level.to_cells(seeds.row_px, 0)).astype(np.int64)[owner] - reach
    col += np.rint(level.to_cells(seeds.col_px, 1)).astype(np.int64)[owner] - reach
    if step > 1:
        block_row, block_col = (block.ravel() for block in np.indices((step, step)))
        row = (row[:, None] * step + block_row).ravel()
        col = (col[:, None] * step + block_col).ravel()
        owner = np.repeat(owner, step * step)
    valid = (row >= 0) & (row < image.shape[0]) & (col >= 0) & (col < image.shape[1])
    row, col, owner = row[valid], col[valid], owner[valid]
    if step > 1:
        level_at = seeds.level_at(owner, row + detail.box.row_start, col + detail.box.col_start)
        bright = image[row, col] > level_at
        row, col, owner = row[bright], col[bright], owner[bright]
    return Regions(seeds, owner, row * image.shape[1] + col)


def _grown_by_one(inside: BoolImage) -> BoolImage:
    """Return the windows' cells with their eight neighbours."""
    grown = inside.copy()
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    wide = grown.copy()
    wide[:, :, 1:] |= grown[:, :, :-1]
    wide[:, :, :-1] |= grown[:, :, 1:]
    return wide
