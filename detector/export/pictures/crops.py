"""Each cluster magnified, without and with its marks side by side."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.export.files import counted
from detector.export.pictures import marks
from detector.export.pictures.legend import NOTICE, Pen, draw_bar, scale_bar, side_and_view, suspicion_words
from detector.export.pictures.lettering import Font, Picture, plain
from detector.export.pictures.scene import Plane, in_colour, set_scene
from detector.export.pictures.window import GreyImage, choose_window, shade
from detector.records import Box, Mammogram, Reading
from detector.settings import Settings

_LONGEST_PX = 1200
_ZOOM = 3.0
_PANEL_PX = (860, 594)  # largest rows and columns of one of the two panels
_GAP_PX = 4
_LEAST_PANEL_PX = 396
_FIELD_MM = 10.0  # side of the smallest part of the image that is shown, if it fits
_MARGIN_MM = 1.5
_LEAST_MARGIN_PX = 30  # of the picture; the cluster's outline takes most of it


def draw_crops(mammogram: Mammogram, reading: Reading) -> Iterator[tuple[int, Picture]]:
    """Yield each cluster magnified, without and with its marks side by side.

    Parameters
    ----------
    mammogram : Mammogram
    reading : Reading
        Of this mammogram.

    Yields
    ------
    cluster_id : int
    picture : ndarray of uint8, shape (rows, cols, 3)
        RGB, at most 1,200 px a side. Three pixels for each of the image, fewer if the cluster is too large for that;
        the zoom is written on it. Where pixels are not square, the picture shows true proportions.
    """
    window = choose_window(mammogram, reading.grey_range)
    for i, cluster_id in enumerate(reading.clusters.cluster_id.tolist()):
        box, zoom = _field(mammogram, reading, i)
        padding = None if mammogram.padding is None else mammogram.padding[box.slices]
        grey = shade(mammogram.pixels[box.slices], window, padding)
        yield cluster_id, _crop(grey, reading, i, Plane((box.row_start, box.col_start), zoom))


def _field(mammogram: Mammogram, reading: Reading, i: int) -> tuple[Box, tuple[float, float]]:
    """Return the part of the image around a cluster that its crop shows, and how much it is enlarged."""
    identity = mammogram.identity
    known = identity.sizes_known and min(identity.spacing_mm) > 0
    spacing = np.array(identity.spacing_mm if known else (_MARGIN_MM / 20,) * 2)
    square = spacing / spacing.min()
    panel = np.array(_PANEL_PX)
    points = _points(reading, i)
    low, high = points.min(0), points.max(0)
    extent = np.maximum(high - low, 1)
    zoom = min(_ZOOM, float(((panel - 2 * _LEAST_MARGIN_PX) / (extent * square)).min()))
    side = np.maximum(extent + 2 * _MARGIN_MM / spacing, np.minimum(_FIELD_MM / spacing, _PANEL_PX[1] / _ZOOM / square))
    side = np.minimum(side, panel / zoom / square)  # rather less around it than less magnified
    side = np.maximum(side, _LEAST_PANEL_PX / zoom / square)
    shape = np.array(mammogram.pixels.shape)
    side = np.minimum(np.floor(side + 1e-6).astype(int).clip(1), shape)
    start = np.rint((low + high - side) / 2).astype(int).clip(0, shape - side)
    (row, col), (n_rows, n_cols) = start.tolist(), side.tolist()
    return Box(row, row + n_rows, col, col + n_cols), (zoom * float(square[0]), zoom * float(square[1]))


def _points(reading: Reading, i: int) -> NDArray[np.float64]:
    """Return (row, col) of all that belongs to a cluster: its outline, and its spots with theirs."""
    spots, clusters = reading.spots, reading.clusters
    members = np.flatnonzero(spots.cluster_id == clusters.cluster_id[i])
    centres = np.stack([spots.row_px, spots.col_px], 1)[members]
    own = np.array([[clusters.row_px[i], clusters.col_px[i]]])
    outlines = reading.cluster_outlines[i], reading.spot_outlines[members].vertices_px
    return np.concatenate([own, centres, *outlines])


def _crop(grey: GreyImage, reading: Reading, i: int, plane: Plane) -> Picture:
    rows, cols = (max(1, round(n * z)) for n, z in zip(grey.shape, plane.zoom, strict=True))
    plane = Plane(plane.origin, (rows / grey.shape[0], cols / grey.shape[1]))
    way = cv2.INTER_CUBIC if min(plane.zoom) >= 1 else cv2.INTER_AREA
    larger: GreyImage = np.empty((rows, cols), np.uint8)
    cv2.resize(grey, (cols, rows), dst=larger, interpolation=way)
    clean = in_colour(larger)
    pen = Pen(2.0)
    scene = set_scene(reading, plane, pen, (rows, cols))
    marked = clean.copy()
    scene.draw(marked, pen)
    scene.put_spots_back(marked, clean, pen)
    return _sheet(clean, marked, reading, i, plane)


def _sheet(clean: Picture, marked: Picture, reading: Reading, i: int, plane: Plane) -> Picture:
    """Return the two panels with a title above and, below, the scale, what was found and the notice."""
    half = max(clean.shape[1], _LEAST_PANEL_PX) + _GAP_PX
    panels = marks.plate(clean.shape[0], 2 * half + _GAP_PX)
    for panel, left in ((clean, _GAP_PX), (marked, half + _GAP_PX)):
        panels[:, left : left + panel.shape[1]] = panel
    width = panels.shape[1]
    sheet = np.concatenate([_head(reading, i, width), panels, _foot(reading, i, width, plane)])
    return np.ascontiguousarray(sheet[:_LONGEST_PX, :_LONGEST_PX])


def _head(reading: Reading, i: int, width: int) -> Picture:
    title, small = Font(30, bold=True), Font(17)
    strip = marks.plate(title.line_px + small.line_px + 2 * _GAP_PX, width)
    clusters = reading.clusters
    review = bool(clusters.review[i])
    level = suspicion_words(clusters, Settings.from_mapping(reading.settings).assess)[i]
    name = f"Cluster {clusters.cluster_id[i]}{': REVIEW,' if review else ':'} {level}"
    where = side_and_view(reading.identity)
    middle = title.line_px / 2 + _GAP_PX
    title.write(strip, (2 * _GAP_PX, middle), name, marks.REVIEW if review else marks.TEXT)
    right = max(title.width(name) + title.line_px, width - title.width(where) - 2 * _GAP_PX)
    title.write(strip, (right, middle), where, marks.TEXT)
    below = title.line_px + small.line_px / 2 + _GAP_PX
    for words, left in (("without marks", 2 * _GAP_PX), ("with marks", width // 2 + _GAP_PX)):
        small.write(strip, (left, below), words, marks.TEXT)
    return strip


def _foot(reading: Reading, i: int, width: int, plane: Plane) -> Picture:
    body, small = Font(20), Font(16)
    lines = [(line, body) for text in _facts(reading, i) for line in body.wrap(text, width - 4 * _GAP_PX)]
    lines += [(line, small) for line in small.wrap(NOTICE, width - 4 * _GAP_PX)]
    height = body.line_px + sum(font.line_px for _, font in lines) + 4 * _GAP_PX
    strip = marks.plate(height, width)
    top = body.line_px / 2 + 2 * _GAP_PX
    bar = scale_bar(reading.identity, width / 4, plane.zoom[1])
    taken = draw_bar(strip, (2 * _GAP_PX, top), bar, body)
    body.write(strip, (2 * _GAP_PX + taken + body.line_px, top), f"zoom {min(plane.zoom):.2g}x", marks.TEXT)
    top += body.line_px / 2
    for line, font in lines:
        font.write(strip, (2 * _GAP_PX, top + font.line_px / 2), line, marks.TEXT)
        top += font.line_px
    return strip


def _facts(reading: Reading, i: int) -> list[str]:
    """Return what is known of a cluster, a sentence a line, without empty ones."""
    clusters = reading.clusters
    known = reading.identity.sizes_known and np.isfinite(clusters.extent_mm[i])
    words = [
        counted(int(clusters.n_spots[i]), "spot"),
        f"extent {clusters.extent_mm[i]:.1f} mm" if known else "size unknown",
        clusters[i : i + 1].words("distribution")[0],
        clusters[i : i + 1].words("morphology")[0],
    ]
    lines = [
        ", ".join(word for word in words if word),
        plain(str(clusters.reasons[i]).replace("|", "; "), 300),
        f"Suggested: {suggestion}" if (suggestion := clusters[i : i + 1].words("suggestion")[0]) else "",
    ]
    return [line for line in lines if line]
