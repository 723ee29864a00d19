"""The cells over half height around each candidate, each in a window of its own, all candidates at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from detector.detect.borders import COSINE, SINE
from detector.detect.levels import whole_steps
from detector.records import NINE_COLS, NINE_ROWS, BoolImage, Detail, Level, Seeds, StepImage

RING_SCALES = np.array([2.6, 4.5])[:, None]
"""Radii of the rings that the surroundings are read on, in scales: two and three times the radius of the blob."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Windows:
    """Search windows of n seeds, in cells: corners on the level, and where the seeds are, near a border not amid."""

    side: int
    top: NDArray[np.intp]
    left: NDArray[np.intp]
    row: NDArray[np.intp]
    col: NDArray[np.intp]

    @classmethod
    def around(cls, level: Level, seeds: Seeds, reach: int) -> Windows:
        """Return the windows of `reach` cells to either side of seeds, moved inwards where the level ends."""
        side = min(2 * reach + 1, *level.image.shape)
        row = np.rint(level.to_cells(seeds.row_px, 0)).astype(np.intp)
        col = np.rint(level.to_cells(seeds.col_px, 1)).astype(np.intp)
        top = np.clip(row - side // 2, 0, level.image.shape[0] - side)
        left = np.clip(col - side // 2, 0, level.image.shape[1] - side)
        return cls(side, top, left, row - top, col - left)

    def __getitem__(self, rows: BoolImage | NDArray[np.intp]) -> Windows:
        return Windows(self.side, self.top[rows], self.left[rows], self.row[rows], self.col[rows])

    def cut_from(self, image: StepImage) -> StepImage:
        """Return the windows of an image, shape (n, side, side)."""
        return np.asarray(sliding_window_view(image, (self.side, self.side))[self.top, self.left], np.int16)

    def inner(self, offset: Floats | NDArray[np.intp], place: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return places at an offset in cells, kept within the window."""
        return np.clip(np.rint(place + offset), 0, self.side - 1).astype(np.intp)


@dataclass(frozen=True)
class Grown:
    """Seeds that were grown on one level, with what their windows say of them, and the windows' cells that are theirs.

    `inside` has shape (n, side, side).
    """

    level: Level
    seeds: Seeds
    windows: Windows
    inside: BoolImage

    def only(self, chosen: BoolImage | NDArray[np.intp]) -> Grown:
        """Return the chosen seeds; where these are all, it need not be copied."""
        if chosen.dtype == np.bool_ and chosen.all():
            return self
        return Grown(self.level, self.seeds[chosen], self.windows[chosen], self.inside[chosen])

    def with_seeds(self, seeds: Seeds) -> Grown:
        """Return the same cells as those of other seeds."""
        return dataclasses.replace(self, seeds=seeds)


def grow(detail: Detail, level: Level, seeds: Seeds, reach: int) -> Grown:
    """Return the cells over half height that hang together with each seed's peak, within a window around it.

    The height is that of the peak's level over the middle of the surroundings.

    Parameters
    ----------
    detail : Detail
    level : Level
        One of its levels, on whose cells they are grown.
    seeds : Seeds
        With their tops.
    reach : int
        Half side of the windows in cells.

    Returns
    -------
    Grown
        Seeds in their order, with height, threshold, tilt and cut filled.
    """
    windows = Windows.around(level, seeds, reach)
    # direction by ring by seed: numpy takes long to go round short axes within long ones
    radius = RING_SCALES * (seeds.scale_mm / detail.pixel_mm / level.step_px)
    ring_row = windows.top + windows.inner(radius * SINE[:, None, None], windows.row)
    ring_col = windows.left + windows.inner(radius * COSINE[:, None, None], windows.col)
    ring = ring_row * level.image.shape[1] + ring_col
    ring_tophat = level.tophat.ravel().take(ring)
    around = np.sort(ring_tophat, axis=0)
    middle = len(around) // 2
    # a seed of too fine a scale has its inner ring on the spot itself
    base = (0.5 * around[middle - 1] + 0.5 * around[middle]).min(axis=0)
    here = level.background_at(windows.top + windows.row, windows.left + windows.col)
    peak = seeds.top - here
    half = 0.5 * (base + peak)
    tophat = windows.cut_from(level.tophat)
    inside = _connected(tophat, whole_steps(half), *_brightest(tophat, windows))
    outer = level.image.ravel().take(ring[:, -1]) - ring_tophat[:, -1]
    width_px = 8 * radius[-1] * level.step_px
    seeds = seeds.replace(
        height=peak - base,
        threshold=here + half,
        tilt_row=SINE @ outer / width_px,
        tilt_col=COSINE @ outer / width_px,
        cut=inside[:, [0, -1]].any((1, 2)) | inside[:, :, [0, -1]].any((1, 2)),
    )
    return Grown(level, seeds, windows, inside)


def _brightest(tophat: StepImage, windows: Windows) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where within a cell of each seed the brightest cell lies."""
    row = windows.inner(NINE_ROWS[:, None], windows.row)
    col = windows.inner(NINE_COLS[:, None], windows.col)
    each = np.arange(len(tophat))
    best = tophat.ravel().take((each * windows.side + row) * windows.side + col).argmax(axis=0)
    return row[best, each], col[best, each]


def _connected(tophat: StepImage, least: StepImage, row: NDArray[np.intp], col: NDArray[np.intp]) -> BoolImage:
    """Return, window by window, the 8-connected part of what is over a level that holds (row, col).

    All windows are laid one under another in one picture, a blank line between them, so that one labelling serves all;
    the slow equivalent is `scipy.ndimage.label` window by window.
    """
    n, side, _ = tophat.shape
    # OpenCV crashes on a picture without rows
    if not n:
        return np.empty(tophat.shape, np.bool_)
    picture = np.empty((n, side + 1, side), np.bool_)
    picture[:, side] = False
    np.greater(tophat, least[:, None, None], out=picture[:, :side])
    _, labels = cv2.connectedComponents(picture.view(np.uint8).reshape(-1, side), connectivity=8, ltype=cv2.CV_32S)
    windows = np.asarray(labels).reshape(n, side + 1, side)[:, :side]
    own = windows[np.arange(n), row, col]
    # the surroundings have number 0
    own[own == 0] = -1
    return np.asarray(windows == own[:, None, None], np.bool_)
