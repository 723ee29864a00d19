"""The one converter between places in pixels here and image coordinates of DICOM.

Here a place is (row, col) with the centre of the first pixel at (0, 0). DICOM's structured reports (PS3.3 C.18.6.1.2)
and presentation states (PS3.3 C.10.5.1.2) count (column, row) from the outer corner of the first pixel, so that its
centre lies at (0.5, 0.5).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

HALF_PX = 0.5


def to_dicom(places_px: ArrayLike) -> NDArray[np.float64]:
    """Return image coordinates of DICOM for places.

    Parameters
    ----------
    places_px : array_like, shape (n, 2) or (2,)
        (row, col), pixel centres at integers.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        (column, row), the outer corner of the first pixel at the origin.

    Examples
    --------
    >>> to_dicom((10, 20)).tolist()
    [[20.5, 10.5]]
    """
    return np.asarray(places_px, np.float64).reshape(-1, 2)[:, ::-1] + HALF_PX


def from_dicom(coordinates: ArrayLike) -> NDArray[np.float64]:
    """Return places for image coordinates of DICOM; undoes `to_dicom`.

    Parameters
    ----------
    coordinates : array_like, shape (n, 2) or (2 * n,)
        (column, row) each.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        (row, col), pixel centres at integers.
    """
    return np.asarray(coordinates, np.float64).reshape(-1, 2)[:, ::-1] - HALF_PX


def closed(outline_px: ArrayLike) -> NDArray[np.float64]:
    """Return an outline in image coordinates of DICOM with its first vertex again at its end, shape (n + 1, 2)."""
    vertices = to_dicom(outline_px)
    return np.concatenate([vertices, vertices[:1]])
