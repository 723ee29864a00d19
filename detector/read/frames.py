"""Stored values of one frame, from every transfer syntax that mammograms come in."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detector.errors import BadPixels, ReadError
from detector.read.dicom import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, UNDEFINED, DicomFile
from detector.settings import ReadSettings

Samples = NDArray[np.integer[Any]]

_NATIVE = ("", IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)
_RLE: Final = "1.2.840.10008.1.2.5"
_CODECS: Mapping[str, str] = {
    "1.2.840.10008.1.2.4.50": "jpeg8",
    "1.2.840.10008.1.2.4.51": "jpeg8",
    "1.2.840.10008.1.2.4.57": "jpeg8",
    "1.2.840.10008.1.2.4.70": "jpeg8",
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.81": "jpegls",
    "1.2.840.10008.1.2.4.90": "jpeg2k",
    "1.2.840.10008.1.2.4.91": "jpeg2k",
    "1.2.840.10008.1.2.4.201": "jpeg2k",  # OpenJPEG decodes HTJ2K too; OpenJPH returns damaged frames without a word
    "1.2.840.10008.1.2.4.202": "jpeg2k",
    "1.2.840.10008.1.2.4.203": "jpeg2k",
    _RLE: "rle",
}
"""Codecs of imagecodecs for the transfer syntaxes; RLE is left to pydicom, since imagecodecs crashes on damaged RLE."""
_START_OF_FRAME = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of a frame are stored."""

    rows: int
    cols: int
    n_frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.cols

    @property
    def frame_bytes(self) -> int:
        """Size of an uncompressed frame."""
        return self.rows * self.cols * self.bits_allocated // 8

    @property
    def stored_range(self) -> tuple[int, int]:
        """Least and largest value that can be stored."""
        half = 1 << (self.bits_stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


def find_format(dicom: DicomFile, settings: ReadSettings) -> PixelFormat:
    """Return how the pixels are stored.

    Parameters
    ----------
    dicom : DicomFile
    settings : ReadSettings

    Returns
    -------
    PixelFormat

    Raises
    ------
    BadPixels
        If there are none, too many, or they are stored in no known way; before any of them is read.
    """
    header = dicom.header
    if dicom.pixel_start < 0:
        raise BadPixels("it holds no pixels; it may be cut short, get a fresh copy")
    if dicom.transfer_syntax not in (*_NATIVE, *_CODECS):
        raise BadPixels(f"its transfer syntax{_name(dicom.transfer_syntax)} is not supported; convert it to another")
    allocated = header.integer("BitsAllocated", 0)
    stored = header.integer("BitsStored", allocated)
    form = PixelFormat(
        rows=header.integer("Rows", 0),
        cols=header.integer("Columns", 0),
        n_frames=max(1, header.integer("NumberOfFrames", 1)),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=header.integer("HighBit", stored - 1),
        signed=header.integer("PixelRepresentation", 0) == 1,
    )
    check_size(form.shape, settings)
    if allocated not in (8, 16, 32) or not 2 <= stored <= allocated or not stored - 1 <= form.high_bit < allocated:
        raise BadPixels("it does not say in a valid way how many bits its pixels have; get a fresh copy")
    return form


def check_size(shape: tuple[int, int], settings: ReadSettings) -> None:
    """Return if an image is neither empty nor too large.

    Raises
    ------
    BadPixels
    """
    if min(shape) < 1:
        raise BadPixels("it does not say how many rows and columns it has; get a fresh copy")
    megapixels = shape[0] * shape[1] / 1e6
    if megapixels > settings.max_megapixels:
        raise BadPixels(
            f"it claims {megapixels:,.0f} megapixels, over the limit of {settings.max_megapixels:g}; "
            "if that is right, raise --max-megapixels"
        )


def _name(syntax: str) -> str:
    from pydicom.uid import UID

    name = UID(syntax).name
    return "" if name == syntax else f" ({name})"


def read_frame(dicom: DicomFile, form: PixelFormat, index: int) -> Samples:
    """Return the stored values of a frame.

    Parameters
    ----------
    dicom : DicomFile
    form : PixelFormat
    index : int
        From 0.

    Returns
    -------
    ndarray of integers, shape (rows, cols)
        Bits that hold no value are cleared.

    Raises
    ------
    BadPixels
        If they are cut short, of the wrong length, or cannot be decoded.
    """
    if dicom.transfer_syntax in _NATIVE and dicom.pixel_length != UNDEFINED:
        return _only_stored_bits(_native(dicom, form, index), form, form.high_bit)
    if dicom.transfer_syntax in _NATIVE or dicom.pixel_length != UNDEFINED:
        raise BadPixels("its pixels are not stored as its transfer syntax says; get a fresh copy")
    codec = _CODECS[dicom.transfer_syntax]
    encoded = _encoded(dicom, form, index)
    samples = _decode_rle(encoded, form) if codec == "rle" else _decode(encoded, form, codec)
    if samples.shape != form.shape or samples.dtype.kind not in "iu":
        raise BadPixels("its compressed image is not of the size that its header states; get a fresh copy")
    if codec == "rle" or (samples.dtype.kind == "i") != form.signed:
        return _only_stored_bits(samples, form, form.high_bit if codec == "rle" else form.bits_stored - 1)
    return samples


def _native(dicom: DicomFile, form: PixelFormat, index: int) -> Samples:
    expected = form.frame_bytes * form.n_frames
    if dicom.pixel_length not in (expected, expected + 1):
        short = "too few" if dicom.pixel_length < expected else "too many"
        raise BadPixels(f"its pixels are of the wrong length: {short} bytes for the size that it states")
    dicom.stream.seek(dicom.pixel_start + index * form.frame_bytes)
    data = dicom.stream.read(form.frame_bytes)
    if len(data) < form.frame_bytes:
        raise BadPixels("it is cut short: pixels are missing at its end; get a fresh copy")
    order = "<" if dicom.little_endian else ">"
    dtype = np.dtype(f"{order}{'i' if form.signed else 'u'}{form.bits_allocated // 8}")
    return np.frombuffer(data, dtype).reshape(form.shape)


def _only_stored_bits(samples: Samples, form: PixelFormat, high_bit: int) -> Samples:
    """Return the value that lies below `high_bit`, its sign extended; other bits may hold overlays (PS3.5 8.1.1)."""
    width = samples.dtype.itemsize * 8
    dtype = np.dtype(f"{'i' if form.signed else 'u'}{width // 8}")
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False).view(dtype)
    if form.bits_stored >= width:
        return samples
    shifted = np.left_shift(samples, width - 1 - high_bit)
    return np.right_shift(shifted, width - form.bits_stored, out=shifted)


def _encoded(dicom: DicomFile, form: PixelFormat, index: int) -> bytes:
    """Return the compressed bytes of a frame, read from its fragments."""
    offsets, fragments = _fragments(dicom)
    if form.n_frames == 1:
        own = fragments
    elif len(fragments) == form.n_frames:
        own = fragments[index : index + 1]
    elif len(offsets) == form.n_frames:
        base = fragments[0][0] if fragments else 0
        stop = offsets[index + 1] if index + 1 < len(offsets) else float("inf")
        own = [f for f in fragments if offsets[index] <= f[0] - base < stop]
    else:
        raise BadPixels("it does not say where its frames begin; get a fresh copy")
    # no codec that is met makes an image larger by more than a little
    if not 0 < sum(length for _, length in own) <= 2 * form.frame_bytes + (1 << 20):
        raise BadPixels("its compressed image is empty, or larger than the image itself; get a fresh copy")
    parts = []
    for start, length in own:
        dicom.stream.seek(start + 8)
        parts.append(dicom.stream.read(length))
    return b"".join(parts)


def _fragments(dicom: DicomFile) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """Return the offset table, and where the item of each fragment starts and how long its value is."""
    stream = dicom.stream
    items = list(_items(dicom))
    if not items:
        raise BadPixels("its compressed image is missing; get a fresh copy")
    start, length = items[0]
    stream.seek(start + 8)
    count = min(length, 1 << 20) // 4
    table = stream.read(4 * count)
    offsets = struct.unpack(f"<{count}L", table) if len(table) == 4 * count else ()
    return offsets, items[1:]


def _items(dicom: DicomFile) -> Iterator[tuple[int, int]]:
    stream = dicom.stream
    end = stream.seek(0, os.SEEK_END)
    place = dicom.pixel_start
    while place < end:
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8 or head[:4] == b"\xfe\xff\xdd\xe0":
            return
        length = int(struct.unpack("<L", head[4:])[0])
        if head[:4] != b"\xfe\xff\x00\xe0":
            raise BadPixels("its compressed image is damaged; get a fresh copy")
        if place + 8 + length > end:
            raise BadPixels("it is cut short: pixels are missing at its end; get a fresh copy")
        yield place, length
        place += 8 + length


def _decode(encoded: bytes, form: PixelFormat, codec: str) -> Samples:
    """Return the samples of a JPEG, JPEG-LS or JPEG 2000 stream, once it is seen to be of the stated size."""
    import imagecodecs

    size = _size_of_jpeg_2000(encoded) if codec == "jpeg2k" else _size_of_jpeg(encoded)
    if size != form.shape:
        raise BadPixels("its compressed image is damaged, or not of the size that its header states; get a fresh copy")
    # the JPEG decoder fills what is missing with grey
    if codec != "jpeg2k" and not encoded.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise BadPixels("its compressed image is cut short; get a fresh copy")
    try:
        return np.asarray(getattr(imagecodecs, f"{codec}_decode")(encoded))
    except Exception as error:  # each codec has its own
        raise BadPixels("its compressed image is damaged and cannot be decoded; get a fresh copy") from error


def _size_of_jpeg(encoded: bytes) -> tuple[int, int] | None:
    """Return rows and columns from the frame header (ITU-T T.81 B.2.2, T.87 C.2.2)."""
    place = 2
    while place + 9 <= len(encoded) and encoded[place] == 0xFF:
        marker = encoded[place + 1]
        if marker in _START_OF_FRAME:
            rows, cols = struct.unpack_from(">HH", encoded, place + 5)
            return rows, cols
        place += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", encoded, place + 2)[0]
    return None


def _size_of_jpeg_2000(encoded: bytes) -> tuple[int, int] | None:
    """Return rows and columns from the image and tile size marker (ITU-T T.800 A.5.1)."""
    start = encoded.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(encoded) < start + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4L", encoded, start + 8)
    return bottom - top, right - left


def _decode_rle(encoded: bytes, form: PixelFormat) -> Samples:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    options: dict[str, Any] = {
        "rows": form.rows,
        "columns": form.cols,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": form.bits_allocated,
        "bits_stored": form.bits_allocated,
        "pixel_representation": 0,
    }
    try:
        samples, _ = get_decoder(UID(_RLE)).as_array(
            encapsulate([encoded]), index=0, raw=True, decoding_plugin="pydicom", **options
        )
    except (MemoryError, ReadError):
        raise
    except Exception as error:
        raise BadPixels("its compressed image is damaged and cannot be decoded; get a fresh copy") from error
    return np.asarray(samples)
