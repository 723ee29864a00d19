"""The pictures of a page: one 8 bit JPEG a view, small enough to stand in it, and a strip of thumbnails a case."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from detector.export.pages.hanging import Turn, turn_of
from detector.export.pictures import apply_window, marks
from detector.export.pictures.window import GreyImage
from detector.records import Mammogram, Reading

VIEW_BYTES = 2_000_000
"""Largest picture of a view: four of them fit into a page of 12 MB."""

_QUALITIES = (95, 90, 80, 70)
_SMALLER = 0.8
_THUMB_PX = 160
_GAP_PX = 4


def draw_view(mammogram: Mammogram, reading: Reading) -> bytes:
    """Return the mammogram as a page shows it: through its own window, mirrored as it hangs, as a grey JPEG.

    Parameters
    ----------
    mammogram : Mammogram
    reading : Reading
        Of this mammogram.
    """
    return encode_within(turned(apply_window(mammogram, reading.grey_range), turn_of(reading)), VIEW_BYTES)


def turned(grey: GreyImage, turn: Turn) -> GreyImage:
    """Return an image mirrored as it hangs."""
    return np.ascontiguousarray(grey[:: -1 if turn.rows else 1, :: -1 if turn.cols else 1])


def encode_within(grey: GreyImage, n_bytes: int) -> bytes:
    """Return a JPEG of at most `n_bytes`: of lower quality if need be, and then of fewer pixels."""
    while True:
        for quality in _QUALITIES:
            packed = bytes(imagecodecs.jpeg8_encode(grey, level=quality))
            if len(packed) <= n_bytes or min(grey.shape) < 16:
                return packed
        smaller = [max(8, round(n * _SMALLER)) for n in grey.shape]
        grey = np.asarray(cv2.resize(grey, smaller[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def fit(pictures: Sequence[bytes], n_bytes: int) -> list[bytes]:
    """Return pictures that take at most `n_bytes` together: the largest are encoded anew within an equal share."""
    allowed, left = n_bytes, len(pictures)
    shares: dict[int, int] = {}
    for i in sorted(range(len(pictures)), key=lambda i: len(pictures[i])):
        shares[i] = allowed // left
        allowed, left = allowed - min(len(pictures[i]), shares[i]), left - 1
    return [
        packed if len(packed) <= shares[i] else encode_within(_grey(packed, 1), shares[i])
        for i, packed in enumerate(pictures)
    ]


def _grey(packed: bytes, reduced: int) -> GreyImage:
    """Decode a JPEG, at a half, a quarter or an eighth of its size if asked."""
    flag = {1: cv2.IMREAD_GRAYSCALE, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4}
    decoded = cv2.imdecode(np.frombuffer(packed, np.uint8), flag.get(reduced, cv2.IMREAD_REDUCED_GRAYSCALE_8))
    if decoded is None:
        raise ValueError("not a JPEG")
    return np.asarray(decoded, np.uint8)


def draw_thumbnails(views: Sequence[tuple[Reading, bytes]]) -> bytes:
    """Return the views of a case side by side, 160 px high, their clusters ringed, as a JPEG in colour.

    Parameters
    ----------
    views : sequence of (Reading, bytes)
        In the order in which they hang; the bytes are those of `draw_view`.
    """
    strips = [_thumbnail(reading, packed) for reading, packed in views]
    gap = np.zeros((_THUMB_PX, _GAP_PX, 3), np.uint8)
    pieces = [piece for strip in strips for piece in (gap, strip)][1:]
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(np.concatenate(pieces, axis=1)), level=82))


def _thumbnail(reading: Reading, packed: bytes) -> NDArray[np.uint8]:
    rows, cols = reading.identity.rows, reading.identity.cols
    grey = _grey(packed, 1 if rows < 4 * _THUMB_PX else 4 if rows < 12 * _THUMB_PX else 8)
    scale = _THUMB_PX / rows
    width = max(8, round(cols * scale))
    small = cv2.resize(grey, (width, _THUMB_PX), interpolation=cv2.INTER_AREA)
    picture: NDArray[np.uint8] = np.repeat(np.asarray(small, np.uint8)[:, :, None], 3, axis=2)
    turn, clusters = turn_of(reading), reading.clusters
    for i in np.argsort(clusters.review, kind="stable").tolist():
        row, col = float(clusters.row_px[i]), float(clusters.col_px[i])
        center = (cols - 1 - col if turn.cols else col) * scale, (rows - 1 - row if turn.rows else row) * scale
        review = bool(clusters.review[i])
        reach = np.ptp(reading.cluster_outlines[i], axis=0).max(initial=0.0) / 2 * scale
        place = (round(center[0] * 16), round(center[1] * 16))
        colour = marks.REVIEW if review else marks.OTHER
        cv2.circle(picture, place, round((reach + 7) * 16), marks.BLACK, 5 if review else 3, cv2.LINE_AA, 4)
        cv2.circle(picture, place, round((reach + 7) * 16), colour, 3 if review else 1, cv2.LINE_AA, 4)
    return picture
