"""How stored values become the grey levels of a picture: the file's VOI (DICOM PS3.3, C.11.2), or a robust window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from detector.records import BoolImage, FloatImage, Mammogram, Window

GreyImage = NDArray[np.uint8]
_BLOCK_PX = 1 << 18  # a block of float32 of this size stays in the cache of a core
_TABLE_STEPS = 65_535
_SAMPLE_PX = 250_000


def apply_window(mammogram: Mammogram, grey_range: tuple[float, float] | None = None) -> GreyImage:
    """Return the mammogram as the grey levels that a viewer would show.

    Parameters
    ----------
    mammogram : Mammogram
        Its window is taken, or that of `choose_window` if it has none.
    grey_range : tuple of float, optional
        1st and 99th percentile of the breast's pixels, which `choose_window` needs where the file has no window.

    Returns
    -------
    ndarray of uint8, shape (rows, cols)
        0 is black. Padding is black, or white if the window is inverted, as air is.

    Notes
    -----
    Source: DICOM PS3.3, C.11.2 VOI LUT Module; inversion comes after it.
    """
    window = choose_window(mammogram, grey_range)
    return shade(mammogram.pixels, window, mammogram.padding)


def choose_window(mammogram: Mammogram, grey_range: tuple[float, float] | None = None) -> Window:
    """Return the file's own window, or else one from just below the breast's fat to above its brightest specks.

    Parameters
    ----------
    mammogram : Mammogram
    grey_range : tuple of float, optional
        1st and 99th percentile of the breast's pixels; estimated from the image if it is not given or empty.
    """
    if mammogram.window is not None:
        return mammogram.window
    if grey_range is None or not grey_range[1] > grey_range[0]:
        grey_range = _range_of_breast(mammogram)
    low, high = grey_range
    span = max(high - low, 1e-6 * max(abs(low), abs(high), 1.0))
    # A little below keeps air dark and the skin line visible, more above keeps calcium brighter than dense tissue.
    bottom, top = low - 0.05 * span, high + 0.15 * span
    return Window(center=(bottom + top) / 2, width=top - bottom, function="LINEAR_EXACT")


def shade(pixels: FloatImage, window: Window, padding: BoolImage | None = None) -> GreyImage:
    """Return the grey levels of pixel values under a window, in blocks of rows so that no float copy is made.

    Parameters
    ----------
    pixels : ndarray of float32, shape (rows, cols)
    window : Window
        A table is stretched from its lowest to its highest value over 0 to 255.
    padding : ndarray of bool, shape (rows, cols), optional

    Returns
    -------
    ndarray of uint8, shape (rows, cols)
    """
    curve = _curve(window)
    grey = np.empty(pixels.shape, np.uint8)
    step = max(1, _BLOCK_PX // max(1, pixels.shape[1]))
    for start in range(0, len(pixels), step):
        grey[start : start + step] = curve(pixels[start : start + step])
    if padding is not None:
        grey[padding] = 0
    if window.inverted:
        np.subtract(255, grey, out=grey)
    return grey


def _curve(window: Window) -> Callable[[FloatImage], NDArray[np.uint8]]:
    if window.table_levels:
        return _table(np.asarray(window.table_levels, float), np.asarray(window.table_values, float))
    if window.function == "SIGMOID":
        return _sigmoid(window.center, window.width)
    if window.function == "LINEAR":
        return _ramp(window.center - 0.5, window.width - 1)
    return _ramp(window.center, window.width)


def _ramp(center: float, width: float) -> Callable[[FloatImage], NDArray[np.uint8]]:
    if not width > 0:
        return lambda pixels: np.where(pixels > center, np.uint8(255), np.uint8(0))
    low, slope = np.float32(center - width / 2), np.float32(255 / width)

    def curve(pixels: FloatImage) -> NDArray[np.uint8]:
        level = pixels - low
        level *= slope
        level += np.float32(0.5)
        return np.clip(level, 0, 255, out=level).astype(np.uint8)

    return curve


def _sigmoid(center: float, width: float) -> Callable[[FloatImage], NDArray[np.uint8]]:
    if not width > 0:
        return _ramp(center, 0)
    slope = np.float32(-4 / width)

    def curve(pixels: FloatImage) -> NDArray[np.uint8]:
        level = pixels - np.float32(center)
        level *= slope
        np.exp(np.clip(level, -80, 80, out=level), out=level)  # e to the 80 still fits into float32
        level += 1
        np.divide(np.float32(255), level, out=level)
        level += np.float32(0.5)
        return level.astype(np.uint8)

    return curve


def _table(levels: NDArray[np.float64], values: NDArray[np.float64]) -> Callable[[FloatImage], NDArray[np.uint8]]:
    """Return a lookup on evenly spaced levels; evenly spaced table levels are among them, so they come out exact."""
    gaps = max(1, len(levels) - 1)
    n_steps = gaps * max(1, _TABLE_STEPS // gaps)
    even = np.interp(np.linspace(levels[0], levels[-1], n_steps + 1), levels, values)
    span = max(float(np.ptp(values)), float(np.finfo(float).tiny))
    lookup = np.rint((even - values.min()) / span * 255).astype(np.uint8)
    low, slope = np.float32(levels[0]), np.float32(n_steps / max(levels[-1] - levels[0], 1e-30))

    def curve(pixels: FloatImage) -> NDArray[np.uint8]:
        index = pixels - low
        index *= slope
        index += np.float32(0.5)
        return np.take(lookup, np.clip(index, 0, n_steps, out=index).astype(np.int32))

    return curve


def _range_of_breast(mammogram: Mammogram) -> tuple[float, float]:
    """Return a range of the pixels brighter than air, found without knowing the breast."""
    stride = max(1, int(np.sqrt(mammogram.pixels.size / _SAMPLE_PX)))
    sample = mammogram.pixels[::stride, ::stride]
    keep = np.isfinite(sample)
    if mammogram.padding is not None:
        keep &= ~mammogram.padding[::stride, ::stride]
    sample = sample[keep].astype(np.float64)
    if sample.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(sample, (0.5, 99.5))
    breast = sample[sample > _otsu(np.clip(sample, low, high))]
    if breast.size:
        low, high = np.percentile(breast, (1, 99))
    return float(low), float(high)


def _otsu(values: NDArray[np.float64]) -> float:
    """Return the threshold between two classes of values (Otsu 1979, doi 10.1109/TSMC.1979.4310076)."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * centres)
    mean_below = total / np.maximum(below, 1)
    mean_above = (total[-1] - total) / np.maximum(above, 1)
    return float(centres[np.argmax(below * above * (mean_below - mean_above) ** 2.0)])
