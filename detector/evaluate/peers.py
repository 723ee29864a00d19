"""Methods that others publish and that install: what they find, by the same rule on the same images as ours.

They are run as they come, on the breast's box with its range of grey levels from 0 to 1, at the scales of
calcifications, and keep many more candidates than any rate of false positives asks for; ranked by their own response,
each has its best threshold at every rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_laplace

from detector.breast import find_breast
from detector.evaluate.truth import Findings
from detector.records import FloatImage, Mammogram, Spots, Zone
from detector.settings import BreastSettings

TOP_HAT_MM = 0.4
"""Diameter of the disc that opens the image."""
SCALES_MM = (0.06, 0.16)
"""Least and greatest standard deviation of the blobs: discs of 0.17 to 0.45 mm. Larger ones only add strands."""
SCALE_RATIO = 1.6
FAINTEST_SIGMA = 3.5
"""Threshold on the response of each peer, in its robust standard deviations over the breast."""

MOST_PER_CM2 = 60.0
"""Spots kept, far more than any rate of false positives that is asked for."""

Blobs = NDArray[np.float64]
Peer = Callable[[FloatImage, float], Blobs]


def find_with(peer: Peer, mammogram: Mammogram) -> Findings:
    """Return the spots that a peer finds in the breast.

    Parameters
    ----------
    peer : callable
        One of `PEERS`.
    mammogram : Mammogram

    Returns
    -------
    Findings
        The strongest, at most `MOST_PER_CM2`; none in the zones of skin and film edge, which the peers know nothing of
        and which would fill their first places.
    """
    breast = find_breast(mammogram, BreastSettings())
    if breast.is_empty:
        return Findings()
    low, high = breast.grey_range
    image = (mammogram.pixels[breast.box.slices] - np.float32(low)) / np.float32(max(high - low, 1e-12))
    row, col, response = peer(image, mammogram.pixel_mm).T
    row, col = row + breast.box.row_start, col + breast.box.col_start
    cells = breast.cells(row, col)
    inside = np.flatnonzero(breast.zones[cells] & ~np.uint8(Zone.PECTORAL) == Zone.BREAST)
    best = inside[np.argsort(-response[inside], kind="stable")[: int(MOST_PER_CM2 * breast.area_cm2)]]
    return Findings(Spots.blank(len(best), row_px=row[best], col_px=col[best], confidence=response[best]))


def top_hat(image: FloatImage, pixel_mm: float) -> Blobs:
    """Return the peaks of a white top-hat (row, col, height); the slow equivalent is `skimage.morphology.white_tophat`.

    Parameters
    ----------
    image : ndarray of float32, shape (rows, cols)
    pixel_mm : float

    Returns
    -------
    ndarray of float64, shape (n, 3)
    """
    side = 2 * round(TOP_HAT_MM / 2 / pixel_mm) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).astype(np.uint8)
    hat = cv2.morphologyEx(image, cv2.MORPH_TOPHAT, disc)
    return _peaks(np.asarray(hat, np.float32), disc)


def blob_dog(image: FloatImage, pixel_mm: float) -> Blobs:
    """Return the blobs of `skimage.feature.blob_dog` (row, col, response); parameters as those of `top_hat`."""
    from skimage.feature import blob_dog as find

    least, greatest = (s / pixel_mm for s in SCALES_MM)
    finest = _difference(image, least)
    blobs = find(image, least, greatest, SCALE_RATIO, _faintest(finest))  # type: ignore[no-untyped-call]
    return _with_response(blobs, lambda sigma: _difference(image, sigma))


def blob_log(image: FloatImage, pixel_mm: float) -> Blobs:
    """Return the blobs of `skimage.feature.blob_log` (row, col, response); parameters as those of `top_hat`."""
    from skimage.feature import blob_log as find

    least, greatest = (s / pixel_mm for s in SCALES_MM)
    finest = _laplacian(image, least)
    blobs = find(image, least, greatest, 3, _faintest(finest), log_scale=True)  # type: ignore[no-untyped-call]
    return _with_response(blobs, lambda sigma: _laplacian(image, sigma))


PEERS: Mapping[str, Peer] = {"white top-hat": top_hat, "skimage blob_dog": blob_dog, "skimage blob_log": blob_log}
"""The peers by their names in tables."""


def _difference(image: FloatImage, sigma: float) -> FloatImage:
    """Return the response of blob_dog at a scale."""
    inner, outer = (cv2.GaussianBlur(image, (0, 0), s) for s in (sigma, SCALE_RATIO * sigma))
    return np.asarray((inner - outer) / np.float32(SCALE_RATIO - 1), np.float32)


def _laplacian(image: FloatImage, sigma: float) -> FloatImage:
    """Return the response of blob_log at a scale."""
    return np.asarray(-(sigma**2) * gaussian_laplace(image, sigma), np.float32)


def _faintest(response: FloatImage) -> float:
    return FAINTEST_SIGMA * 1.4826 * float(np.median(np.abs(response)))


def _with_response(blobs: Blobs, respond: Callable[[float], FloatImage]) -> Blobs:
    """Return (row, col, response) of blobs (row, col, sigma)."""
    found = np.array(blobs, np.float64).reshape(-1, 3)
    at = found[:, :2].astype(np.intp)
    for sigma in np.unique(found[:, 2]):
        rows = np.flatnonzero(blobs[:, 2] == sigma)
        found[rows, 2] = respond(float(sigma))[at[rows, 0], at[rows, 1]]
    return found


def _peaks(image: FloatImage, disc: NDArray[np.uint8]) -> Blobs:
    """Return the pixels that are highest within a disc and not faint."""
    highest = cv2.dilate(image, disc)
    at = np.argwhere((image >= highest) & (image > _faintest(image)))
    return np.column_stack([at, image[at[:, 0], at[:, 1]]]).astype(np.float64)
