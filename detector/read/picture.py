"""Grey pictures that hold nothing but pixels: PNG, TIFF and PGM."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from detector.errors import BadPixels, NotAMammogram
from detector.read.frames import Samples, check_size
from detector.settings import ReadSettings

_HEAD = 1 << 16
_PGM = re.compile(rb"P[25]" + 3 * rb"(?:\s+|\s*#[^\n]*\n\s*)+(\d{1,9})" + rb"\s")
_TIFF: Mapping[bytes, str] = {b"II*\0": "<", b"MM\0*": ">"}
_OTHERS = (
    (b"\xff\xd8\xff", "a JPEG picture, whose compression hides what is looked for"),
    (b"P6", "a colour picture, not analysed"),
    (b"%PDF", "a PDF report"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"PK", "a zip archive; unpack it first"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
)
_DAMAGED = "the picture is damaged or cut short; get a fresh copy"


@dataclass(frozen=True)
class Picture:
    """A grey picture of which only the header has been read."""

    kind: str
    shape: tuple[int, int]
    white_is_zero: bool = False


def open_picture(file: BinaryIO) -> Picture:
    """Return what kind of picture a file holds, and its size.

    Raises
    ------
    NotAMammogram
        If it is none, or in colour.
    BadPixels
        If its header is cut short.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if not head:
        raise NotAMammogram("an empty file")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _open_png(head)
    if head[:4] in _TIFF:
        return _open_tiff(file, _TIFF[head[:4]])
    if match := _PGM.match(head):
        return Picture("pgm", (int(match[2]), int(match[1])))
    name = next((name for magic, name in _OTHERS if head.startswith(magic)), "no image of a kind that is read")
    raise NotAMammogram(name)


def _open_png(head: bytes) -> Picture:
    if len(head) < 26:
        raise BadPixels(_DAMAGED)
    cols, rows, bits, colour = struct.unpack_from(">LLBB", head, 16)
    if colour != 0:
        raise NotAMammogram("a colour picture, not analysed")
    if bits not in (8, 16):
        raise NotAMammogram(f"a picture of {bits} bits, too few for a mammogram")
    return Picture("png", (rows, cols))


def _open_tiff(file: BinaryIO, order: str) -> Picture:
    """Return the size from the first image file directory (TIFF 6.0, section 2)."""
    tags: dict[int, int] = {}
    file.seek(4)
    try:
        file.seek(struct.unpack(f"{order}L", file.read(4))[0])
        for _ in range(struct.unpack(f"{order}H", file.read(2))[0]):
            tag, kind, count, field = struct.unpack(f"{order}HHL4s", file.read(12))
            if count == 1 and kind in (3, 4):
                tags[tag] = struct.unpack(f"{order}{'H' if kind == 3 else 'L'}", field[: 2 if kind == 3 else 4])[0]
    except struct.error:
        raise BadPixels(_DAMAGED) from None
    if tags.get(277, 1) != 1 or tags.get(262, 1) not in (0, 1):
        raise NotAMammogram("a colour picture, not analysed")
    if tags.get(258, 1) not in (8, 16):
        raise NotAMammogram("a picture whose pixels have neither 8 nor 16 bits")
    return Picture("tiff", (tags.get(257, 0), tags.get(256, 0)), white_is_zero=tags.get(262, 1) == 0)


def read_picture(file: BinaryIO, picture: Picture, settings: ReadSettings) -> Samples:
    """Return the values of a picture, large ones bright.

    Parameters
    ----------
    file : binary file
    picture : Picture
    settings : ReadSettings

    Returns
    -------
    ndarray of integers, shape (rows, cols)

    Raises
    ------
    BadPixels
        If there are too many, or they cannot be decoded.
    """
    check_size(picture.shape, settings)
    file.seek(0)
    # uncompressed or packed, no honest file is larger
    data = file.read(8 * picture.shape[0] * picture.shape[1] + (16 << 20))
    try:
        values = _decode(data, picture)
    except MemoryError:
        raise
    except Exception as error:  # each codec has its own
        raise BadPixels(_DAMAGED) from error
    if values.shape != picture.shape or values.dtype.kind not in "iu":
        raise BadPixels("the picture is not of the size and kind that its header states; get a fresh copy")
    return values.max() - values if picture.white_is_zero else values


def _decode(data: bytes, picture: Picture) -> Samples:
    import imagecodecs

    if picture.kind == "png":
        return np.asarray(imagecodecs.png_decode(data))
    if picture.kind == "tiff":
        return np.asarray(imagecodecs.tiff_decode(data, index=0))
    match = _PGM.match(data)
    if match is None:
        raise ValueError
    if data[:2] == b"P2":
        return np.array(data[match.end() :].split(), np.uint16).reshape(picture.shape)
    dtype = np.dtype("u1" if int(match[3]) < 256 else ">u2")
    return np.frombuffer(data, dtype, picture.shape[0] * picture.shape[1], match.end()).reshape(picture.shape)
