"""The whole mammogram with what was found marked on it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.export.pictures import marks
from detector.export.pictures.legend import Pen, draw_legend
from detector.export.pictures.lettering import Picture
from detector.export.pictures.scene import Plane, Scene, in_colour, set_scene, unmarked_spots
from detector.export.pictures.window import GreyImage, apply_window
from detector.records import Mammogram, Reading, Spots

_GRID_CELLS = 256


def draw_overlay(mammogram: Mammogram, reading: Reading) -> Picture:
    """Return the mammogram as it would be shown, with what was found marked on it.

    Micro, macro and unknown spots have a ring, brackets and a diamond; clusters an outline with number and low, medium
    or high; those flagged for review are bold and say so. Single spots that count and are doubtful have no mark. A
    legend with side, view, what is marked, how many are not, scale bar and notice stands where the image is emptiest.

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
        self._cost[inside] += cost

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
    left_out = unmarked_spots(reading)
    for smaller in (1.0, 0.85, 0.7, 0.55, 0.4):
        size = Pen(pen.unit_px * smaller)
        legend = draw_legend(reading, shown, left_out, size, min(shape[1], max(150, round(300 * size.unit_px))))
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
    """Write number and rank of a cluster beside its outline, where it covers least, with a line to it."""
    review = bool(scene.clusters.review[i])
    ink, paper, colour = (marks.BLACK, marks.REVIEW, marks.REVIEW) if review else (marks.TEXT, marks.PLATE, marks.OTHER)
    words = f"{scene.clusters.cluster_id[i]}{' REVIEW' if review else ''} {scene.levels[i]}"
    font = pen.font(20 if review else 15, bold=review)
    pad = round((5 if review else 3) * pen.unit_px)
    size = np.array([font.width(words) + 2 * pad, font.line_px + (pad if review else 0)])
    place, anchor = _place_label(space, scene.hulls[i], size, 5 * pen.unit_px)
    x, y = place = np.clip(np.rint(place), 0, np.maximum(0, picture.shape[1::-1] - size)).astype(int)
    marks.draw_lines(picture, [np.stack([anchor, np.clip(anchor, place, place + size)])], colour, pen.line_px)
    picture[y : y + size[1], x : x + size[0]] = paper
    font.write(picture, (x + pad, y + size[1] / 2), words, ink)
    space.add([place + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size], 1000.0)


def _place_label(
    space: _Space, hull: NDArray[np.float64], size: NDArray[np.integer], gap_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of the cheapest of sixteen places around an outline, and the vertex of the outline next to it."""
    anchors = hull[np.argmax(hull @ _DIRECTIONS.T, axis=0)]
    places, costs = [], []
    for further, dearer in ((0.0, 0.0), (6 * gap_px, 10.0)):
        away = size / 2 + gap_px + space.cell_px + further
        places.append(anchors + _DIRECTIONS * away - size / 2)
        costs += [space.cost((x, y, size[0], size[1])) + dearer for x, y in places[-1].tolist()]
    best = int(np.argmin(costs))
    return np.concatenate(places)[best], anchors[best % len(anchors)]
