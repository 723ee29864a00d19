"""DICOM files broken on purpose where they have structure: lengths, VRs, tags, values, syntaxes, nesting, pixel data.

The same seed breaks the same file in the same way.
"""

from __future__ import annotations

import functools
import os
import random
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from detector.errors import ReadError
from detector.read import read_mammogram
from detector.records import Mammogram
from detector.settings import ReadSettings
from tests.dicom_files import ENCODERS, NATIVE, RLE, Pixels, breast_pixels, code, make_mammogram, save

IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = NATIVE
SYNTAXES: Sequence[str] = (*NATIVE, RLE, *ENCODERS)
_META_END = 132
_LONG_VRS = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
_SHORT_VRS = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
_VRS = (*_LONG_VRS, *_SHORT_VRS)
_TEXTS = (
    b"",
    b"\0",
    b"-1",
    b"nan",
    b"inf",
    b"1e999",
    b"9" * 400,
    b"1\\" * 300,
    b"\\\\\\",
    b"../../x",
    b"\xff\xfe\x1b[2J",
    b"0.0",
)
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_ITEM, _ITEM_END, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
UNDEFINED = 0xFFFFFFFF
_SMALL = ReadSettings(smallest_field_mm=1.0)


@dataclass(frozen=True)
class Element:
    """Where an element of the outermost level lies in the bytes of a file."""

    start: int
    vr: bytes
    length_at: int
    length_size: int
    value: int
    end: int


@functools.cache
def whole_file(syntax: str, rich: bool) -> bytes:
    """Return a small whole mammogram; a rich one has windows, tables, nesting, padding and two frames."""
    pixels: Pixels = breast_pixels((48, 40))
    if syntax.endswith(".50"):
        pixels = breast_pixels((48, 40), bits=8).astype(np.uint8)
    more: dict[str, object] = {}
    if rich:
        table = Dataset()
        table.LUTDescriptor, table.LUTData = [16, 0, 16], list(range(0, 4096, 256))
        table["LUTData"].VR = "US"
        pixels = np.stack([pixels, pixels[::-1]])
        more = {
            "ViewCodeSequence": DicomSequence([code("399162004", ViewModifierCodeSequence=[code("399163009")])]),
            "WindowCenter": ["100", "200"], "WindowWidth": ["200", "400"], "VOILUTFunction": "SIGMOID",
            "RescaleSlope": "2", "RescaleIntercept": "-5", "PixelPaddingValue": 3, "PixelPaddingRangeLimit": 9,
            "VOILUTSequence": DicomSequence([table]), "SourceImageSequence": [code("1")],
            "PresentationLUTShape": "IDENTITY", "PixelIntensityRelationship": "LIN",
            "PixelIntensityRelationshipSign": 1, "DistanceSourceToDetector": "650", "DistanceSourceToPatient": "600",
        }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        return save(Path(folder) / "whole.dcm", make_mammogram(pixels, syntax, **more)).read_bytes()


def elements(raw: bytes, start: int, explicit: bool, order: str) -> Iterator[Element]:
    """Yield the elements from `start` to the end or to what is none."""
    place = start
    while place + 8 <= len(raw):
        vr = raw[place + 4 : place + 6] if explicit else b""
        if explicit and vr in _LONG_VRS:
            length_at, size = place + 8, 4
        elif explicit:
            length_at, size = place + 6, 2
        else:
            length_at, size = place + 4, 4
        value = length_at + size
        if value > len(raw):
            return
        length = int.from_bytes(raw[length_at:value], "little" if order == "<" else "big")
        end = len(raw) if length == UNDEFINED and raw[place : place + 4] == _PIXEL_DATA else value + length
        if length == UNDEFINED and end != len(raw):
            end = raw.find(_SEQUENCE_END, value) + 8
        if not place < end <= len(raw):
            return
        yield Element(place, vr, length_at, size, value, end)
        place = end


class Broken:
    """One file under way: its bytes, and chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.syntax = self.chance.choice(SYNTAXES)
        self.raw = bytearray(whole_file(self.syntax, self.chance.random() < 0.5))
        self.explicit = self.syntax != IMPLICIT
        self.order = ">" if self.syntax == BIG_ENDIAN else "<"
        self.body = self._meta_end()
        self.tail = b""
        if self.syntax == DEFLATED:
            self.raw[self.body :] = zlib.decompress(self.raw[self.body :], -15)

    def _meta_end(self) -> int:
        (length,) = struct.unpack_from("<L", self.raw, _META_END + 8)
        return int(_META_END + 12 + length)

    def finish(self) -> bytes:
        """Return the bytes of the file."""
        if self.syntax == DEFLATED and self.chance.random() < 0.9:
            packer = zlib.compressobj(wbits=-15)
            self.raw[self.body :] = packer.compress(bytes(self.raw[self.body :])) + packer.flush()
        return bytes(self.raw)

    def any_element(self) -> Element | None:
        """Return one of the elements, or nothing if none can be told any more."""
        meta = list(elements(bytes(self.raw[: self.body]), _META_END, True, "<"))
        there = meta * (self.chance.random() < 0.1) or list(
            elements(bytes(self.raw), self.body, self.explicit, self.order)
        )
        return self.chance.choice(there) if there else None

    def pixels_at(self) -> int:
        """Return where the pixel data element starts, or the middle."""
        tag = b"\x7f\xe0\x00\x10" if self.order == ">" else _PIXEL_DATA
        return max(self.raw.rfind(tag), 0) or len(self.raw) // 2

    def number(self, size: int) -> bytes:
        """Return an integer that someone might not have thought of."""
        top = 1 << 8 * size
        value = self.chance.choice(
            [0, 1, 2, 3, 7, 255, top - 1, top - 2, top // 2, top // 2 - 1, self.chance.randrange(top)]
        )
        return value.to_bytes(size, "little" if self.order == "<" else "big")

    # ------------------------------------------------------------------------------------------- ways to break it

    def length(self) -> None:
        """Let an element state another length."""
        if e := self.any_element():
            old = int.from_bytes(self.raw[e.length_at : e.value], "little")
            near = min(max(old + self.chance.choice([-2, -1, 1, 2, 100]), 0), (1 << 8 * e.length_size) - 1)
            new = near.to_bytes(e.length_size, "little") if self.chance.random() < 0.5 else self.number(e.length_size)
            self.raw[e.length_at : e.value] = new

    def vr(self) -> None:
        """Give an element another VR."""
        if e := self.any_element():
            self.raw[e.start + 4 : e.start + 6] = self.chance.choice([*_VRS, b"??", b"\0\0", b"ZZ"])

    def tag(self) -> None:
        """Give an element another tag."""
        if e := self.any_element():
            self.raw[e.start : e.start + 4] = self.chance.choice(
                [
                    self.number(4),
                    _PIXEL_DATA,
                    _ITEM,
                    _ITEM_END,
                    _SEQUENCE_END,
                    b"\x02\0\x10\0",
                    b"\x08\0\x08\0",
                    bytes(4),
                ]
            )

    def value(self) -> None:
        """Put something else into an element, of the same length or with the length that fits."""
        if e := self.any_element():
            content = self.chance.choice([*_TEXTS, self.chance.randbytes(self.chance.randrange(1, 60)), self.number(2)])
            if self.chance.random() < 0.5:
                content = (content * (e.end - e.value))[: e.end - e.value].ljust(e.end - e.value)
            self.raw[e.value : e.end] = content
            self.raw[e.length_at : e.value] = (len(content) % (1 << 8 * e.length_size)).to_bytes(
                e.length_size, "little" if self.order == "<" else "big"
            )

    def integer(self) -> None:
        """Change one of the numbers that say how the pixels lie: group 0028, US."""
        group = b"\0\x28" if self.order == ">" else b"\x28\0"
        there = [e for e in elements(bytes(self.raw), self.body, self.explicit, self.order)
                 if self.raw[e.start : e.start + 2] == group and e.end - e.value == 2]  # fmt: skip
        if there:
            e = self.chance.choice(there)
            self.raw[e.value : e.end] = self.number(2)

    def remove(self) -> None:
        """Take an element away."""
        if e := self.any_element():
            del self.raw[e.start : e.end]

    def repeat(self) -> None:
        """Write an element twice, or at another place."""
        e, other = self.any_element(), self.any_element()
        if e and other:
            self.raw[other.start : other.start] = self.raw[e.start : e.end] * self.chance.choice([1, 1, 2, 50])

    def transfer_syntax(self) -> None:
        """State another transfer syntax."""
        place = self.raw.find(self.syntax.encode(), _META_END, self.body)
        if place > 0:
            other = self.chance.choice([*SYNTAXES, "1.2.840.10008.1.2.4.100", "1.2.3"]).encode()
            self.raw[place : place + len(self.syntax)] = other.ljust(len(self.syntax), b"\0")[: len(self.syntax)]

    def nest(self) -> None:
        """Put in a sequence that is nested deep, in items of defined or undefined length, closed or not."""
        depth = self.chance.choice([1, 3, 30, 300, 3000])
        tag = self.chance.choice([b"\x54\0\x20\x02", b"\x08\0\x12\x21", b"\x09\0\x10\x10", b"\x28\0\x10\x30"])
        head = tag + (b"SQ\0\0" if self.explicit else b"") + b"\xff\xff\xff\xff" + _ITEM + b"\xff\xff\xff\xff"
        close = (_ITEM_END + bytes(4) + _SEQUENCE_END + bytes(4)) * (depth if self.chance.random() < 0.6 else 0)
        if e := self.any_element():
            self.raw[e.start : e.start] = head * depth + close

    def pixels(self) -> None:
        """Change bytes of the pixel data, most often near the beginning, where the codecs' headers are."""
        start = self.pixels_at()
        reach = self.chance.choice([40, 120, 400, len(self.raw) - start])
        for _ in range(self.chance.randrange(1, 10)):
            place = start + self.chance.randrange(min(reach, len(self.raw) - start))
            self.raw[place] = self.chance.choice([0, 1, 0xFF, 0x80, self.chance.randrange(256)])

    def words(self) -> None:
        """Put an extreme number into the pixel data's beginning: sizes, counts, lengths of segments and fragments."""
        start = self.pixels_at()
        size = self.chance.choice([1, 2, 4])
        place = start + self.chance.randrange(4, 140)
        self.raw[place : place + size] = self.number(size)

    def shift(self) -> None:
        """Take bytes out of the pixel data, or put some in."""
        place = self.pixels_at() + self.chance.randrange(8, 300)
        count = self.chance.choice([1, 2, 3, 8, 50])
        if self.chance.random() < 0.5:
            del self.raw[place : place + count]
        else:
            self.raw[place:place] = self.chance.randbytes(count)

    def splice(self) -> None:
        """Take the pixel data of another syntax."""
        other = whole_file(self.chance.choice(SYNTAXES), False)
        self.raw[self.pixels_at() :] = other[max(other.rfind(_PIXEL_DATA), 0) :]

    def cut(self) -> None:
        """End the file early."""
        del self.raw[self.chance.randrange(100, max(101, len(self.raw))) :]

    def noise(self) -> None:
        """Change any bytes."""
        for _ in range(self.chance.randrange(1, 12)):
            self.raw[self.chance.randrange(len(self.raw))] = self.chance.randrange(256)


WAYS: Sequence[Callable[[Broken], None]] = (
    Broken.length, Broken.length, Broken.vr, Broken.tag, Broken.value, Broken.value, Broken.integer, Broken.integer,
    Broken.remove, Broken.repeat, Broken.transfer_syntax, Broken.nest, Broken.pixels, Broken.pixels, Broken.words,
    Broken.words, Broken.shift, Broken.splice, Broken.cut, Broken.noise,
)  # fmt: skip


def broken(seed: int) -> bytes:
    """Return the bytes of a mammogram that is broken in one way or several."""
    file = Broken(seed)
    for _ in range(file.chance.choice([1, 1, 1, 2, 3, 5])):
        file.chance.choice(WAYS)(file)
        if len(file.raw) < 200:
            break
    return file.finish()


@dataclass(frozen=True)
class Fuzz:
    """Reads broken files, as `pool.Work`; a task is a seed."""

    folder: Path

    def prepare(self) -> str:
        """Load what reading needs."""
        read_broken(whole_file(RLE, False), self.folder)
        return ""

    def __call__(self, seed: int, /) -> str:
        """Return what became of a file."""
        return read_broken(broken(seed), self.folder)


def read_broken(raw: bytes, folder: Path) -> str:
    """Return ``read``, the name of the ReadError, or ``FOUND`` and what must not be."""
    path = folder / f"broken-{os.getpid()}.dcm"
    path.write_bytes(raw)
    try:
        with np.errstate(all="raise"), warnings.catch_warnings():
            warnings.simplefilter("error")
            mammogram = read_mammogram(path, 0.4, _SMALL)
    except ReadError as error:
        text = str(error)
        good = text.startswith(f"{path}: ") and text.isprintable() and "Secret" not in text
        return type(error).__name__ if good else f"FOUND message {text!r}"
    except Exception as error:
        return f"FOUND {type(error).__name__}: {error}"
    finite = isinstance(mammogram, Mammogram) and bool(np.isfinite(mammogram.pixels).all())
    return "read" if finite else "FOUND values that are not finite"
