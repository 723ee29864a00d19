"""The marks of a picture: rings, brackets and outlines as polygons, and how they are drawn beside what they mark.

Places are (x, y) in pixels of the picture, pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.export.pictures.lettering import Colour, Picture
from detector.records import BoolImage, Kind

# Colours that people with any colour vision tell apart on grey (after Okabe and Ito 2008), lightened; each kind of mark
# also has its own form.
MICRO: Colour = (86, 190, 255)
MACRO: Colour = (0, 214, 150)
UNKNOWN: Colour = (200, 200, 255)
REVIEW: Colour = (255, 176, 0)
OTHER: Colour = (230, 230, 230)
PLATE: Colour = (16, 16, 16)
TEXT: Colour = (240, 240, 240)
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)

Lines = Sequence[NDArray[np.floating]] | NDArray[np.floating]
_SHIFT = 4  # OpenCV takes sixteenths of a pixel
CIRCLE = np.stack([np.cos(a := np.linspace(0, 2 * np.pi, 48, endpoint=False)), np.sin(a)], axis=1)
_BRACKETS = np.array([[[sx * 0.45, sy], [sx, sy], [sx, sy * 0.45]] for sx in (-1, 1) for sy in (-1, 1)])
_DIAMOND = np.array([[1.4, 0], [0, 1.4], [-1.4, 0], [0, -1.4]])
_ELONGATED = 2.0  # a spot this many times longer than wide gets a mark turned along it


@dataclass(frozen=True, eq=False)
class Frames:
    """Turned boxes around spots: `centre` and `half` side lengths of shape (n, 2), `angle` in radians of shape (n,)."""

    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    angle: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.bool_]) -> Frames:
        return Frames(self.centre[rows], self.half[rows], self.angle[rows])

    def place(self, shape: NDArray[np.float64], grown_px: float) -> NDArray[np.float64]:
        """Return a shape given within -1 to 1, of (..., 2), around every spot at a distance: (n, ..., 2)."""
        axes = (len(self.angle),) + (1,) * (shape.ndim - 1)
        half = (self.half + grown_px).reshape(*axes, 2)
        cos, sin = np.cos(self.angle).reshape(axes), np.sin(self.angle).reshape(axes)
        x, y = np.moveaxis(shape * half, -1, 0)
        return np.stack([x * cos - y * sin, x * sin + y * cos], -1) + self.centre.reshape(*axes, 2)


def frame_spots(vertices: NDArray[np.floating], offsets: NDArray[np.int64], centres: NDArray[np.floating]) -> Frames:
    """Return the frames of outlines, turned along those that are long.

    Parameters
    ----------
    vertices : ndarray, shape (m, 2)
        (x, y) of all outlines one after the other.
    offsets : ndarray of int64, shape (n + 1,)
    centres : ndarray, shape (n, 2)
        (x, y) of each spot, for outlines without vertices.

    Returns
    -------
    Frames
        The ellipse within a frame holds all the spot's vertices.
    """
    seen = np.diff(offsets) > 0
    starts, owner = offsets[:-1][seen], np.repeat(np.arange(len(seen)), np.diff(offsets))
    centre, half, angle = centres.astype(np.float64), np.ones((len(seen), 2)), np.zeros(len(seen))
    if not seen.any():
        return Frames(centre, half, angle)
    away = vertices - centre[owner]
    xx, yy, xy = (np.add.reduceat(p, starts) for p in (away[:, 0] ** 2, away[:, 1] ** 2, away[:, 0] * away[:, 1]))
    spread = np.hypot(xx - yy, 2 * xy)
    long = xx + yy + spread > _ELONGATED**2 * (xx + yy - spread)
    angle[seen] = np.where(long, np.arctan2(2 * xy, xx - yy) / 2, 0)
    cos, sin = np.cos(angle[owner]), np.sin(angle[owner])
    turned = np.stack([away[:, 0] * cos + away[:, 1] * sin, away[:, 1] * cos - away[:, 0] * sin], 1)
    half[seen] = np.maximum(np.maximum.reduceat(np.abs(turned), starts), 0.5)
    outside = np.sqrt(np.maximum.reduceat(((turned / half[owner]) ** 2).sum(1), starts))
    half[seen] *= np.maximum(outside, 1)[:, None]
    return Frames(centre, half, angle)


def draw_spots(picture: Picture, frames: Frames, kinds: NDArray[np.integer], line_px: int, gap_px: float) -> None:
    """Draw a ring around each micro, brackets around each macro, a diamond around each of unknown kind.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, cols, 3)
        Changed.
    frames : Frames
    kinds : ndarray of int, shape (n,)
        Values of `records.Kind`.
    line_px : int
    gap_px : float
        Distance from the spot to the middle of the line.
    """
    edge = edge_px(line_px)
    for kind, shape, colour in ((Kind.MICRO, CIRCLE, MICRO), (Kind.UNKNOWN, _DIAMOND, UNKNOWN)):
        chosen = frames[kinds == kind]
        _draw(
            picture, chosen.place(shape, gap_px + edge), BLACK, line_px, closed=True
        )  # an edge on the outer side only
        _draw(picture, chosen.place(shape, gap_px), colour, line_px, closed=True)
    corners = frames[kinds == Kind.MACRO].place(_BRACKETS, gap_px)
    draw_lines(picture, corners.reshape(-1, 3, 2), MACRO, line_px + line_px // 3)


def surround(points: NDArray[np.floating], grown_px: float) -> NDArray[np.float64]:
    """Return the convex hull of (n, 2) points grown by a distance: (m, 2)."""
    grown = _hull(points)[:, None] + grown_px * CIRCLE
    return _hull(grown.reshape(-1, 2))


def _hull(points: NDArray[np.floating]) -> NDArray[np.float64]:
    return cv2.convexHull(points.astype(np.float32)).reshape(-1, 2).astype(np.float64)


def dashes(outline: NDArray[np.float64], dash_px: float) -> NDArray[np.float64]:
    """Return a closed outline of (n, 2) as dashes and gaps of equal length: (m, 4, 2)."""
    closed = np.concatenate([outline, outline[:1]])
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    n_dashes = max(4, round(along[-1] / (2 * dash_px)))
    at = (np.arange(n_dashes)[:, None] + np.linspace(0, 0.5, 4)) * along[-1] / n_dashes
    return np.stack([np.interp(at, along, closed[:, i]) for i in (0, 1)], -1)


def draw_lines(picture: Picture, lines: Lines, colour: Colour, line_px: int, closed: bool = False) -> None:
    """Draw polylines with a thin black edge, which keeps them visible on white.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, cols, 3)
        Changed.
    lines : sequence of ndarray, shape (n, 2)
        (x, y) of the vertices of each.
    colour : tuple of int
    line_px : int
        Width without the edge.
    closed : bool
    """
    _draw(picture, lines, BLACK, line_px + 2 * edge_px(line_px), closed)
    _draw(picture, lines, colour, line_px, closed)


def _draw(picture: Picture, lines: Lines, colour: Colour, line_px: int, closed: bool) -> None:
    if len(lines):
        points = [_fixed_point(line) for line in lines]
        cv2.polylines(picture, points, closed, colour, line_px, cv2.LINE_AA, _SHIFT)


def edge_px(line_px: int) -> int:
    """Return the width of the black edge on either side of a line."""
    return max(1, line_px // 3)


def plate(rows: int, cols: int) -> Picture:
    """Return a picture of `PLATE`; row by row, since numpy takes long to go round three channels."""
    picture = np.empty((rows, cols, 3), np.uint8)
    picture.reshape(rows, -1)[:] = np.tile(np.array(PLATE, np.uint8), cols)
    return picture


def fill(shape: tuple[int, int], polygons: Iterable[NDArray[np.floating]]) -> BoolImage:
    """Return which pixels of a picture of `shape` are inside the polygons or on their lines."""
    mask = np.zeros(shape, np.uint8)
    for polygon in polygons:  # one by one: polygons filled together would cancel where they overlap
        if len(polygon):
            cv2.fillPoly(mask, [_fixed_point(polygon)], 1, shift=_SHIFT)
    return mask.view(np.bool_)


def _fixed_point(line: NDArray[np.floating]) -> NDArray[np.int32]:
    points: NDArray[np.int32] = np.rint(np.asarray(line) * (1 << _SHIFT)).astype(np.int32)
    return points
