"""DICOM files known by content: the header parsed within bounds, and where the pixels lie."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from detector.errors import BadPixels, ReadError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"

HEADER_BUDGET: Final = 8 << 20
"""Most bytes that are parsed of a header, each read counting `_READ_COST` more, as much as it costs to parse a little.

A mammogram's header takes under 0.5 MB so, that of a tomosynthesis of 100 slices some 4 MB.
"""
_READ_COST = 256
UNDEFINED: Final = 0xFFFFFFFF
_UID = re.compile(r"(?=.{3,64}\Z)[0-9]+(\.[0-9]+)+")
_PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = (_PIXEL_DATA, 0x7FE00009, 0x7FE00008)

KEYWORDS: Final = (
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "AcquisitionUID",
    "Modality",
    "PresentationIntentType",
    "Manufacturer",
    "ManufacturerModelName",
    "SeriesDescription",
    "IrradiationEventUID",
    "SourceImageSequence",
    "AnatomicRegionSequence",
    "BodyPartExamined",
    "ProtocolName",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "EstimatedRadiographicMagnificationFactor",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "AcquisitionDeviceProcessingDescription",
    "ViewPosition",
    "BiopsyTargetSequence",
    "StudyInstanceUID",
    "PatientOrientation",
    "Laterality",
    "ImageLaterality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "PixelSpacingCalibrationType",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "QualityControlImage",
    "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
    "WindowCenter",
    "WindowWidth",
    "RescaleIntercept",
    "RescaleSlope",
    "VOILUTFunction",
    "BreastImplantPresent",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "SpecimenDescriptionSequence",
    "CalibrationImage",
    "ViewCodeSequence",
    "ViewModifierCodeSequence",
    "DirectoryRecordSequence",
    "PresentationLUTShape",
    "SharedFunctionalGroupsSequence",
)
"""All that is ever read of a data set; whatever tells of the patient is never loaded."""


class Header:
    """Values of a DICOM header, read leniently: what is malformed counts as missing and leaves a note.

    Attributes
    ----------
    notes : list of str
        What a user should know of the header, in the order found; shared with the items of its sequences.
    """

    def __init__(self, dataset: Dataset, notes: list[str] | None = None) -> None:
        self._dataset = dataset
        self.notes: list[str] = [] if notes is None else notes

    def note(self, text: str) -> None:
        """Keep a sentence for the user, once."""
        if text not in self.notes:
            self.notes.append(text)

    def values(self, keyword: str) -> tuple[Any, ...]:
        """Return the values of an element, none if it is missing, empty or malformed."""
        try:
            value = self._dataset.get(keyword)
        except Exception:  # pydicom raises whatever its converters meet
            self.note(f"header: {keyword} is malformed and was left out")
            return ()
        if value is None or isinstance(value, str | bytes):
            return (value,) if value else ()
        try:
            return tuple(value)
        except TypeError:
            return (value,)

    def words(self, keyword: str) -> tuple[str, ...]:
        """Return the values as trimmed text without control characters; an empty value stays in its place."""
        values = (v.decode("ascii", "replace") if isinstance(v, bytes) else str(v) for v in self.values(keyword))
        return tuple("".join(c if c.isprintable() else " " for c in v).strip() for v in values)

    def text(self, keyword: str) -> str:
        """Return the first value as text of at most 64 characters, or an empty one."""
        return next(iter(self.words(keyword)), "")[:64]

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Return the values as finite numbers, or none if any is not."""
        try:
            numbers = tuple(float(v) for v in self.values(keyword))
        except (TypeError, ValueError, OverflowError):
            numbers = (math.nan,)
        if all(map(math.isfinite, numbers)):
            return numbers
        self.note(f"header: {keyword} is no number and was left out")
        return ()

    def number(self, keyword: str) -> float | None:
        """Return the first value as a finite number."""
        return next(iter(self.numbers(keyword)), None)

    def integer(self, keyword: str, default: int) -> int:
        """Return the first value as a whole number."""
        number = self.number(keyword)
        return default if number is None else int(number)

    def items(self, keyword: str) -> list[Header]:
        """Return the items of a sequence."""
        from pydicom.dataset import Dataset

        return [Header(item, self.notes) for item in self.values(keyword) if isinstance(item, Dataset)]

    def code(self, keyword: str) -> str:
        """Return the code value of the first item of a code sequence."""
        return next((item.text("CodeValue") for item in self.items(keyword)), "")


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file whose header has been parsed, and whose pixels have not been touched.

    `pixel_start` is where the value of Pixel Data begins in `stream`, -1 if there is none; `pixel_length` may be
    `UNDEFINED`.
    """

    header: Header
    meta: Header
    transfer_syntax: str
    stream: BinaryIO
    little_endian: bool
    pixel_start: int = -1
    pixel_length: int = 0

    @property
    def sop_class(self) -> str:
        """SOP class, from the data set or else from the file's meta group; empty if neither has a valid one."""
        return valid_uid(self.header.text("SOPClassUID")) or valid_uid(self.meta.text("MediaStorageSOPClassUID"))


def valid_uid(text: str) -> str:
    """Return the UID if it is made as one, and so is safe to use in a file name; else nothing."""
    return text if _UID.fullmatch(text) else ""


def looks_like_dicom(head: bytes) -> bool:
    """Return whether a file that begins so is DICOM: by its prefix, or by a first element of group 2 or 8."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    little = head[:2] in (b"\x02\x00", b"\x08\x00") and head[3] == 0
    big = head[:2] == b"\x00\x08" and head[2] == 0
    vr = head[4:6]
    # without a VR the length follows, and no first element is long
    return (little or big) and ((vr.isalpha() and vr.isupper()) or (little and head[6:8] == b"\0\0"))


def open_dicom(file: BinaryIO) -> DicomFile:
    """Parse the header of a DICOM file, with or without preamble and meta group.

    Parameters
    ----------
    file : binary file
        Of which `looks_like_dicom` holds; it must stay open for as long as pixels are wanted.

    Returns
    -------
    DicomFile

    Raises
    ------
    ReadError
        If the header is damaged, nested too deeply, or larger than any mammogram's.
    """
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset

    file.seek(128)
    file.seek(132 if file.read(4) == b"DICM" else 0)
    meta = _parse(lambda fp: read_dataset(fp, False, True, stop_when=lambda tag, *_: tag >> 16 != 2), file)
    syntax = Header(meta).text("TransferSyntaxUID")
    stream = cast(BinaryIO, Inflated(file)) if syntax == DEFLATED else file
    implicit, little = _encoding(syntax, stream)
    dataset = _parse(
        lambda fp: read_dataset(
            fp,
            implicit,
            little,
            stop_when=lambda tag, *_: int(tag) in _PIXEL_TAGS,
            specific_tags=[tag for tag in map(tag_for_keyword, KEYWORDS) if tag is not None],
        ),
        stream,
    )
    start, length = _find_pixels(stream, little)
    return DicomFile(Header(dataset), Header(meta), syntax, stream, little, start, length)


def _parse(parse: Callable[[BinaryIO], Dataset], stream: BinaryIO) -> Dataset:
    try:
        return parse(cast(BinaryIO, _Bounded(stream, HEADER_BUDGET)))
    except ReadError:
        raise
    except RecursionError:
        raise ReadError("its header is nested too deeply to be a mammogram's; get a fresh copy") from None
    except Exception as error:
        raise ReadError("its header is damaged or cut short; get a fresh copy") from error


def _encoding(syntax: str, stream: BinaryIO) -> tuple[bool, bool]:
    """Return whether the data set is in implicit VR, and whether in little endian; guess where nothing is stated."""
    if syntax:
        return syntax == IMPLICIT, syntax != BIG_ENDIAN
    place = stream.tell()
    head = stream.read(6)
    stream.seek(place)
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return not explicit, not (explicit and head[:1] == b"\0")


def _find_pixels(stream: BinaryIO, little: bool) -> tuple[int, int]:
    """Return where the value of Pixel Data begins, and its length; the stream stands at its tag, or at its end."""
    place = stream.tell()
    head = stream.read(12)
    order = "<" if little else ">"
    if len(head) < 8 or struct.unpack(f"{order}HH", head[:4]) != (_PIXEL_DATA >> 16, _PIXEL_DATA & 0xFFFF):
        return -1, 0
    if head[4:8] in (b"OB\0\0", b"OW\0\0", b"UN\0\0"):
        if len(head) < 12:
            raise BadPixels("it is cut short before its pixels; get a fresh copy")
        return place + 12, int(struct.unpack(f"{order}L", head[8:12])[0])
    return place + 8, int(struct.unpack(f"{order}L", head[4:8])[0])


class _Bounded:
    """What pydicom needs of a file, with an end to how much it may read; what is skipped does not count."""

    def __init__(self, stream: BinaryIO, budget: int) -> None:
        self._stream = stream
        self._budget = budget
        self.name = "a header"
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._budget:
            raise ReadError("its header is damaged, or larger than any mammogram's; get a fresh copy")
        data = self._stream.read(size)
        self._budget -= len(data) + _READ_COST
        return data


class Inflated:
    """A deflated data set as a stream that is inflated only as far as it is read.

    Parameters
    ----------
    file : binary file
        It stands where the deflated data begin.
    """

    _CHUNK: Final = 1 << 20
    _GAP: Final = 16 << 20
    """Most that may be skipped at once: nothing before the pixels of a mammogram is larger."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._data = bytearray()
        self._place = 0

    def tell(self) -> int:
        """Return the place in the inflated data."""
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place counted from the start (0) or from here (1)."""
        self._place = max(0, offset + (self._place if whence == 1 else 0))
        return self._place

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end.

        Raises
        ------
        ReadError
            If the data are damaged, or much was skipped, as no mammogram needs.
        """
        if self._place > len(self._data) + self._GAP:
            raise ReadError("its deflated header is larger than any mammogram's; get a fresh copy")
        stop = self._place + size
        while len(self._data) < stop and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._file.read(self._CHUNK)
            if not packed:
                break
            try:
                self._data += self._inflater.decompress(packed, stop - len(self._data))
            except zlib.error as error:
                raise ReadError("its deflated data are damaged; get a fresh copy") from error
        data = bytes(self._data[self._place : stop])
        self._place += len(data)
        return data
