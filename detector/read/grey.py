"""From stored values to pixels on which dense tissue is bright, and the file's own window for pictures of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.read.dicom import Header
from detector.read.frames import PixelFormat, Samples
from detector.records import BoolImage, FloatImage, Window

LOG_GAIN = 1000.0
"""Grey levels per unit of natural logarithm of pixels made from linear ones; any value would do."""
POLARITY = "polarity: the background is brighter than the breast, so the grey scale may be inverted"
_TABLE_ENTRIES = 4096


@dataclass(frozen=True)
class Values:
    """Values of the modality: stored ones after rescale or lookup, and the least and largest that there could be."""

    image: FloatImage
    low: float
    high: float
    step: float = 1.0


def modality_values(stored: Samples, form: PixelFormat, header: Header) -> Values:
    """Return the stored values after Modality LUT, or Rescale Slope and Intercept (PS3.3 C.11.1), as float32.

    Parameters
    ----------
    stored : ndarray of integers, shape (rows, cols)
    form : PixelFormat
    header : Header
    """
    low, high = form.stored_range
    for item in header.items("ModalityLUTSequence"):
        if lookup := _lookup(item, form.signed):
            first, table = lookup
            index = np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)
            return Values(table.astype(np.float32)[index], float(table.min()), float(table.max()))
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept") or 0.0
    if slope == 0.0:
        header.note("header: a Rescale Slope of 0 was left out")
    slope = slope or 1.0
    image = stored.astype(np.float32)
    if slope != 1.0:
        image *= np.float32(slope)
    if intercept != 0.0:
        image += np.float32(intercept)
    ends = sorted((slope * low + intercept, slope * high + intercept))
    return Values(image, ends[0], ends[1], abs(slope))


def _lookup(item: Header, signed: bool) -> tuple[int, NDArray[np.float64]] | None:
    """Return the first value that a LUT maps, and what it maps to; None if it is malformed."""
    descriptor = [int(number) for number in item.numbers("LUTDescriptor")]
    values = item.values("LUTData")
    if len(values) == 1 and isinstance(values[0], bytes):
        data = values[0]
        table = np.frombuffer(data[: len(data) // 2 * 2], "<u2").astype(np.float64)
    else:
        table = np.array(item.numbers("LUTData"), np.float64)
    count = (descriptor[0] & 0xFFFF or 1 << 16) if descriptor else 0
    if len(descriptor) == 3 and len(table) * 2 == count and descriptor[2] <= 8:  # two entries of 8 bits in each word
        table = np.column_stack([table % 256, table // 256]).ravel()
    if len(descriptor) != 3 or len(table) < count:
        item.note("header: a lookup table is malformed and was left out")
        return None
    first = descriptor[1]
    return first - (1 << 16) if signed and first >= 1 << 15 else first, table[:count]


def padding_mask(stored: Samples, form: PixelFormat, header: Header) -> BoolImage | None:
    """Return where Pixel Padding Value, or the range up to its limit, says that no image is (PS3.3 C.7.5.1.1.2)."""
    value = header.number("PixelPaddingValue")
    if value is None:
        return None
    limit = header.number("PixelPaddingRangeLimit")
    ends = sorted(_as_stored(int(v), form) for v in (value, value if limit is None else limit))
    mask: BoolImage = stored == ends[0] if ends[0] == ends[1] else (stored >= ends[0]) & (stored <= ends[1])
    return mask if mask.any() else None


def _as_stored(value: int, form: PixelFormat) -> int:
    """Return a value whose sign may have been misread in the pixels' own representation."""
    value &= (1 << form.bits_allocated) - 1
    return value - (1 << form.bits_allocated) if form.signed and value >> (form.bits_allocated - 1) else value


def dense_is_bright(
    values: Values, header: Header, processing: bool, padding: BoolImage | None
) -> tuple[FloatImage, float | None]:
    """Return pixels on which dense tissue is bright.

    Parameters
    ----------
    values : Values
        Their image may be changed.
    header : Header
    processing : bool
        FOR PROCESSING: Pixel Intensity Relationship and its Sign decide, and linear values become logarithms (PS3.3
        C.8.11.3.1.2); else Photometric Interpretation and Presentation LUT Shape do.
    padding : ndarray of bool or None

    Returns
    -------
    ndarray of float32, shape (rows, cols)
    float or None
        What inverted values were subtracted from; None if they were not inverted.
    """
    if processing:
        return _from_exposure(values, header, padding), None
    shape = header.text("PresentationLUTShape").upper()
    inverted = header.text("PhotometricInterpretation").upper() == "MONOCHROME1"
    if shape in ("IDENTITY", "INVERSE") and (shape == "INVERSE") != inverted:
        header.note("header: photometric interpretation and presentation LUT shape contradict each other")
        bright_air = air_is_bright(values.image, padding)
        inverted = shape == "INVERSE" if bright_air is None else bright_air
    if not inverted:
        return values.image, None
    top = values.low + values.high
    return np.subtract(np.float32(top), values.image, out=values.image), top


def _from_exposure(values: Values, header: Header, padding: BoolImage | None) -> FloatImage:
    """Return log pixels that rise with density."""
    image = values.image
    relationship = header.text("PixelIntensityRelationship").upper()
    sign = header.integer("PixelIntensityRelationshipSign", 0)
    if sign not in (-1, 1):
        header.note("header: the sign of the intensities is missing and was taken from the background")
        sign = -1 if air_is_bright(image, padding) is False else 1
    if relationship == "LIN":
        # DICOM has no element for a detector's offset but Rescale Intercept, which has been applied
        exposure = image if sign == 1 else np.subtract(np.float32(values.high), image, out=image)
        largest = max(values.high - (values.low if sign == -1 else 0.0), values.step)
        np.maximum(exposure, np.float32(0.5 * values.step), out=exposure)
        np.log(exposure, out=exposure)
        return np.multiply(np.float32(math.log(largest)) - exposure, np.float32(LOG_GAIN), out=exposure)
    if relationship != "LOG":
        header.note("header: the relationship of pixels and exposure is not stated and was taken as logarithmic")
    return image if sign == -1 else np.subtract(np.float32(values.low + values.high), image, out=image)


def air_is_bright(image: FloatImage, padding: BoolImage | None = None) -> bool | None:
    """Return whether the background is brighter than the breast; None where there is too little of either to tell.

    The background is told by its quiet: the quarter of the tiles in which pixels vary least.

    Parameters
    ----------
    image : ndarray of float32, shape (rows, cols)
    padding : ndarray of bool or None
    """
    step = max(1, min(image.shape) // 256)
    small = image[::step, ::step]
    rows, cols = (side // 8 for side in small.shape)

    def tiles(of: NDArray[np.generic]) -> NDArray[np.generic]:
        return of[: rows * 8, : cols * 8].reshape(rows, 8, cols, 8).swapaxes(1, 2).reshape(rows * cols, 64)

    values = tiles(small)
    if padding is not None:
        values = values[~tiles(padding[::step, ::step]).any(axis=1)]
    if len(values) < 16:
        return None
    mean, spread = values.mean(axis=1), values.std(axis=1)
    quiet = spread <= np.quantile(spread, 0.25)
    if quiet.all():
        return None
    share = float(np.mean(mean[~quiet] < np.median(mean[quiet])))
    return True if share > 0.9 else False if share < 0.1 else None


def find_window(header: Header, form: PixelFormat, top: float | None) -> Window | None:
    """Return the first VOI LUT, or else the first window, in the units of the pixels (PS3.3 C.11.2).

    Parameters
    ----------
    header : Header
    form : PixelFormat
    top : float or None
        What inverted values were subtracted from.

    Returns
    -------
    Window or None
    """
    for item in header.items("VOILUTSequence")[:1]:
        if lookup := _lookup(item, form.signed):
            return _table_window(*lookup, top)
    centers, widths = header.numbers("WindowCenter"), header.numbers("WindowWidth")
    if not centers or not widths:
        return None
    center, width = centers[0], widths[0]
    function = header.text("VOILUTFunction").upper()
    function = function if function in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"
    if width < 1.0 if function == "LINEAR" else width <= 0.0:
        header.note("header: a window without width was left out")
        return None
    if top is not None:
        # LINEAR is centred half a step below its centre, which inversion turns into half a step above
        center = top - center + (1.0 if function == "LINEAR" else 0.0)
    return Window(center, width, function)


def _table_window(first: int, table: NDArray[np.float64], top: float | None) -> Window:
    index = np.unique(np.linspace(0, len(table) - 1, min(len(table), _TABLE_ENTRIES)).round().astype(np.intp))
    levels, span = (first + index).astype(float), max(float(np.ptp(table)), 1.0)
    grey = (table[index] - table.min()) / span
    if top is not None:
        levels, grey = top - levels[::-1], 1.0 - grey[::-1]
    return Window(table_levels=tuple(levels.tolist()), table_values=tuple(grey.tolist()))
