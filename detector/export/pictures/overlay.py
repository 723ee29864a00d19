"""The whole mammogram with what was found marked on it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.export.pictures import marks
from detector.export.pictures.legend import Pen, draw_legend
from detector.export.pictures.lettering import Picture
from detector.export.pictures.scene import Plane, Scene, in_colour, set_scene
from detector.export.pictures.window import GreyImage, apply_window
from detector.records import Mammogram, Reading, Spots

_GRID_CELLS = 256


def draw_overlay(mammogram: Mammogram, reading: Reading) -> Picture:
    """Return the mammogram as it would be shown, with what was found marked on it.

    Micro, macro and unknown spots have a ring, brackets and a diamond; clusters an outline with number and low, medium
    or high; those flagged for review are bold and say so. A legend with side, view, scale bar and notice stands where
    the image is emptiest.

    Parameters
    ----------
    mammogram : Mammogram
    reading : Reading
        Of this mammogram. Spots count from the operating point of its settings.

    Returns
    -------
    ndarray of uint8, shape (rows, cols, 3)
        RGB, not flipped. Pixels inside the outline of a marked spot are those of `apply_window`.
    """
    grey = apply_window(mammogram, reading.grey_range)
    rows, cols = grey.shape
    pen = Pen(max(cols, 0.6 * rows) / 1000)
    picture = in_colour(grey)
    scene = set_scene(reading, Plane(), pen, (rows, cols))
    scene.draw(picture, pen)
    space = _Space(grey, scene, reading, pen)
    legend = _fitting_legend(reading, scene.spots, pen, grey.shape)
    _paste(picture, legend, space.emptiest(legend.shape[1], legend.shape[0]))
    for i in np.argsort(~scene.clusters.review, kind="stable").tolist():
        _draw_label(picture, space, scene, i, pen)
    scene.put_spots_back(picture, grey, pen)
    return picture


class _Space:
    """How dear each place of a picture is to cover, on a coarse grid: air costs nothing, breast little, spots much."""

    def __init__(self, grey: GreyImage, scene: Scene, reading: Reading, pen: Pen) -> None:
        self.cell_px = max(1, -(-max(grey.shape) // _GRID_CELLS))
        shape = -(-grey.shape[0] // self.cell_px), -(-grey.shape[1] // self.cell_px)
        small = cv2.resize(grey, shape[::-1], interpolation=cv2.INTER_AREA)
        darkest = small.min()
        self._cost = (small - darkest).astype(np.float64) / 255
        self.add([reading.breast_outline[:, ::-1]], 1.0)
        self.add([marks.surround(hull, self.cell_px) for hull in scene.hulls], 30.0)
        self.add(list(scene.frames.place(marks.CIRCLE, 2 * pen.gap_px)), 50.0)

    def add(self, polygons: Sequence[NDArray[np.floating]], cost: float) -> None:
        """Make what lies within polygons dearer."""
        inside = marks.fill(self._cost.shape, [(p + 0.5) / self.cell_px - 0.5 for p in polygons])
        self._cost[inside > 0] += cost

    def emptiest(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Return x and y of the box that costs least; of equals, the one nearest to a corner."""
        rows, cols = self._cost.shape
        height, width = (min(n, -(-px // self.cell_px)) for n, px in ((rows, height_px), (cols, width_px)))
        total = cv2.integral(self._cost)
        cost = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
        y, x = np.indices(cost.shape)
        aside = np.minimum(x, x[:, ::-1]) / cols + np.minimum(y, y[::-1]) / rows
        best = np.unravel_index(np.argmin(np.round(cost, 6) + aside), cost.shape)
        return int(best[1]) * self.cell_px, int(best[0]) * self.cell_px

    def cost(self, box: tuple[float, float, float, float]) -> float:
        """Return what it costs to cover a box of x, y, width and height; infinite outside of the picture."""
        left, top, width, height = (v / self.cell_px for v in box)
        rows, cols = self._cost.shape
        if left < 0 or top < 0 or left + width > cols or top + height > rows:
            return np.inf
        return float(self._cost[int(top) : int(top + height) + 1, int(left) : int(left + width) + 1].sum())


def _fitting_legend(reading: Reading, shown: Spots, pen: Pen, shape: tuple[int, ...]) -> Picture:
    for smaller in (1.0, 0.85, 0.7, 0.55, 0.4):
        size = Pen(pen.unit_px * smaller)
        legend = draw_legend(reading, shown, size, min(shape[1], max(150, round(300 * size.unit_px))))
        if legend.shape[0] <= 0.9 * shape[0]:
            break
    return legend


def _paste(picture: Picture, plate: Picture, place: tuple[int, int]) -> None:
    x = max(0, min(place[0], picture.shape[1] - plate.shape[1]))
    y = max(0, min(place[1], picture.shape[0] - plate.shape[0]))
    patch = picture[y : y + plate.shape[0], x : x + plate.shape[1]]
    patch[...] = plate[: patch.shape[0], : patch.shape[1]]


_DIRECTIONS = np.array([[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]])


def _draw_label(picture: Picture, space: _Space, scene: Scene, i: int, pen: Pen) -> None:
    """Write number and rank of a cluster beside its outline, where it covers least."""
    review = bool(scene.clusters.review[i])
    words = f"{scene.clusters.cluster_id[i]}{' REVIEW' if review else ''} {scene.levels[i]}"
    font = pen.font(20 if review else 16, bold=review)
    pad = round(5 * pen.unit_px)
    size = np.array([font.width(words) + 2 * pad, font.line_px + (pad if review else 0)])
    anchors = scene.hulls[i][np.argmax(scene.hulls[i] @ _DIRECTIONS.T, axis=0)]
    gap_px = 5 * pen.unit_px + space.cell_px
    lefts = anchors + _DIRECTIONS * (size / 2 + gap_px) - size / 2
    x, y = min(lefts.tolist(), key=lambda place: space.cost((place[0], place[1], size[0], size[1])))
    x, y = (max(0, min(round(v), picture.shape[1 - k] - int(size[k]))) for k, v in enumerate((x, y)))
    picture[y : y + size[1], x : x + size[0]] = marks.REVIEW if review else marks.PLATE
    font.write(picture, (x + pad, y + size[1] / 2), words, marks.BLACK if review else marks.OTHER)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    space.add([np.array([x, y]) + corners * size], 1000.0)
