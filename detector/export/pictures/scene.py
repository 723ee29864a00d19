"""What of a Reading is marked in a picture, in pixels of that picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.export.pictures import marks
from detector.export.pictures.legend import Pen, draw_hull, suspicion_words
from detector.export.pictures.lettering import Picture
from detector.export.pictures.window import GreyImage
from detector.records import Clusters, Reading, Spots
from detector.settings import Settings


@dataclass(frozen=True)
class Plane:
    """Where pixels of the image are in the picture: enlarged by `zoom` (rows, cols) from `origin` (row, col)."""

    origin: tuple[float, float] = (0.0, 0.0)
    zoom: tuple[float, float] = (1.0, 1.0)

    def place(self, rows_cols: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (x, y) in the picture for (row, col) in the image, both of shape (n, 2)."""
        zoom = np.asarray(self.zoom)
        moved: NDArray[np.float64] = (np.asarray(rows_cols, np.float64) - self.origin + 0.5) * zoom - 0.5
        return moved[:, ::-1]


@dataclass(frozen=True, eq=False)
class Scene:
    """What of a Reading is marked, in pixels of the picture."""

    spots: Spots
    outlines: list[NDArray[np.float64]]
    frames: marks.Frames
    clusters: Clusters
    hulls: list[NDArray[np.float64]]
    levels: list[str]

    def draw(self, picture: Picture, pen: Pen) -> None:
        """Draw spots, then clusters from the least to the most urgent, so that flagged ones lie on top."""
        marks.draw_spots(picture, self.frames, self.spots.kind, pen.line_px, pen.gap_px)
        for i in np.argsort(self.clusters.review, kind="stable").tolist():
            draw_hull(picture, self.hulls[i], bool(self.clusters.review[i]), pen)

    def put_spots_back(self, picture: Picture, clean: Picture | GreyImage, pen: Pen) -> None:
        """Put back the pixels of all marked spots, from their outlines out to their own marks.

        So no line, label or legend covers a spot, and rings that overlap become one outline around both.
        """
        within = self.frames.place(marks.CIRCLE, pen.gap_px - pen.line_px / 2 - 1)
        inside = np.flatnonzero(marks.fill(picture.shape[:2], [*self.outlines, *within]))
        flat = clean.reshape(picture.shape[0] * picture.shape[1], -1)
        picture.reshape(-1, 3)[inside] = flat[inside]


def in_colour(grey: GreyImage) -> Picture:
    """Return a grey image as RGB."""
    picture: Picture = np.empty((*grey.shape, 3), np.uint8)
    cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB, dst=picture)
    return picture


def marked_spots(reading: Reading) -> NDArray[np.intp]:
    """Return the rows of the spots that pictures and pages mark: those of clusters, and single ones that are sure.

    All of them count. What counts and is not among them, `unmarked_spots` returns.
    """
    return np.flatnonzero(_is_marked(reading))


def unmarked_spots(reading: Reading) -> Spots:
    """Return the spots that tables count and no picture marks: single ones that are doubtful."""
    counts = reading.spots.confidence >= Settings.from_mapping(reading.settings).cluster.min_confidence
    return reading.spots[counts & ~_is_marked(reading)]


def _is_marked(reading: Reading) -> NDArray[np.bool_]:
    settings = Settings.from_mapping(reading.settings).cluster
    sure = reading.spots.confidence >= max(settings.core_confidence, settings.min_confidence)
    return np.asarray(sure | (reading.spots.cluster_id > 0), np.bool_)


def set_scene(reading: Reading, plane: Plane, pen: Pen, shape: tuple[int, int]) -> Scene:
    """Return the clusters with their spots, and the single spots that are sure, where a picture of `shape` shows them.

    Single spots that merely count are left to the tables: tens of doubtful rings would hide what matters.
    """
    settings = Settings.from_mapping(reading.settings)
    spots, clusters = reading.spots, reading.clusters
    rows = marked_spots(reading)
    spots, outlines = spots[rows], reading.spot_outlines[rows]
    vertices = plane.place(outlines.vertices_px)
    frames = marks.frame_spots(vertices, outlines.offsets, plane.place(np.stack([spots.row_px, spots.col_px], 1)))
    hulls = _hulls(reading, spots.cluster_id, frames.place(marks.CIRCLE, pen.gap_px), plane)
    hulls = [marks.surround(hull, 2 * pen.gap_px) for hull in hulls]
    pieces = np.split(vertices, outlines.offsets[1:-1]) if len(spots) else []

    reach = frames.half.max(1, initial=0, keepdims=True) + 2 * pen.gap_px
    seen = _overlaps(frames.centre - reach, frames.centre + reach, shape)
    shown = np.array([bool(_overlaps(hull.min(0), hull.max(0), shape)) for hull in hulls], bool)
    return Scene(
        spots[seen],
        [piece for piece, inside in zip(pieces, seen.tolist(), strict=True) if inside],
        frames[seen],
        clusters[shown],
        [hull for hull, inside in zip(hulls, shown.tolist(), strict=True) if inside],
        suspicion_words(clusters[shown], settings.assess),
    )


def _hulls(
    reading: Reading, owners: NDArray[np.integer], rings: NDArray[np.float64], plane: Plane
) -> list[NDArray[np.float64]]:
    """Return points that each cluster's outline must go around: its own outline and the rings of its spots."""
    clusters = reading.clusters
    centres = plane.place(np.stack([clusters.row_px, clusters.col_px], 1))
    return [
        np.concatenate([plane.place(outline), rings[owners == cluster_id].reshape(-1, 2), centre[None]])
        for cluster_id, centre, outline in zip(clusters.cluster_id, centres, reading.cluster_outlines, strict=True)
    ]


def _overlaps(low: NDArray[np.float64], high: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which boxes from low to high (x, y) lie at least partly in a picture of (rows, cols)."""
    return np.asarray(((high >= 0) & (low <= np.array(shape[::-1]))).all(-1))
