"""Content items of structured reports (PS3.3 C.17.3), as data sets of pydicom.

Their elements are put in as they are encoded in explicit little endian, which pydicom then writes as they stand: a
report on 500 spots has 10,000 items, and elements by their values would take several times as long. Read from the data
set, each turns into its value.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_sequence_item
from pydicom.tag import BaseTag, Tag

from detector.export.dicom.codes import Code

Position = tuple[int, ...]
"""Where an item stands in the tree: 1 is the root, each further number the place among its parent's children."""

_RELATIONSHIP, _VALUE_TYPE = Tag("RelationshipType"), Tag("ValueType")
_NAME, _CODE, _UNITS = Tag("ConceptNameCodeSequence"), Tag("ConceptCodeSequence"), Tag("MeasurementUnitsCodeSequence")
_TEXT, _UID, _DATE, _TIME, _NUMBER = (Tag(k) for k in ("TextValue", "UID", "Date", "Time", "NumericValue"))
_SHAPE, _PLACES, _TARGET = (Tag(k) for k in ("GraphicType", "GraphicData", "ReferencedContentItemIdentifier"))


def coded(code: Code) -> Dataset:
    """Return an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def container(relationship: str, concept: Code, children: Sequence[Dataset], template: str = "") -> Dataset:
    """Return a CONTAINER; `relationship` is empty for the root, `template` the number of its template if it has one."""
    item = _item(relationship, "CONTAINER", concept, children)
    item.ContinuityOfContent = "SEPARATE"
    if template:
        used = Dataset()
        used.MappingResource, used.TemplateIdentifier = "DCMR", template
        item.ContentTemplateSequence = [used]
    return item


def code_item(relationship: str, concept: Code, value: Code, children: Sequence[Dataset] = ()) -> Dataset:
    """Return a CODE."""
    item = _item(relationship, "CODE", concept, children)
    _put(item, _CODE, "SQ", _encoded(value))
    return item


def text_item(relationship: str, concept: Code, value: str) -> Dataset:
    """Return a TEXT."""
    return _leaf(_item(relationship, "TEXT", concept), _TEXT, "UT", value)


def uid_item(relationship: str, concept: Code, value: str) -> Dataset:
    """Return a UIDREF."""
    return _leaf(_item(relationship, "UIDREF", concept), _UID, "UI", value)


def date_item(relationship: str, concept: Code, value: str) -> Dataset:
    """Return a DATE."""
    return _leaf(_item(relationship, "DATE", concept), _DATE, "DA", value)


def time_item(relationship: str, concept: Code, value: str) -> Dataset:
    """Return a TIME."""
    return _leaf(_item(relationship, "TIME", concept), _TIME, "TM", value)


def number_item(relationship: str, concept: Code, value: float, unit: Code) -> Dataset:
    """Return a NUM of six significant digits."""
    item, measured = _item(relationship, "NUM", concept), _dataset()
    _put(measured, _UNITS, "SQ", _encoded(unit))
    item.MeasuredValueSequence = [_leaf(measured, _NUMBER, "DS", f"{value:.6g}")]
    return item


def numbers(relationship: str, rows: Sequence[tuple[Code, float, Code]]) -> list[Dataset]:
    """Return a NUM for each (concept, value, unit) whose value is known."""
    return [number_item(relationship, *row) for row in rows if math.isfinite(row[1])]


def image_item(relationship: str, reference: Dataset, children: Sequence[Dataset] = ()) -> Dataset:
    """Return an IMAGE without purpose of reference."""
    item = _item(relationship, "IMAGE", None, children)
    item.ReferencedSOPSequence = [reference]
    return item


def place_item(
    relationship: str, concept: Code, coordinates: NDArray[np.float64], children: Sequence[Dataset]
) -> Dataset:
    """Return a SCOORD: a POINT for one pair of coordinates, else a POLYLINE.

    Parameters
    ----------
    relationship : str
    concept : Code
    coordinates : ndarray of float64, shape (n, 2)
        (column, row) as `places.to_dicom` returns them.
    children : sequence of Dataset
        What image they are on.
    """
    item = _item(relationship, "SCOORD", concept, children)
    _put(item, _PLACES, "FL", coordinates.astype("<f4").tobytes())
    return _leaf(item, _SHAPE, "CS", "POINT" if len(coordinates) == 1 else "POLYLINE")


def by_reference(relationship: str, position: Position) -> Dataset:
    """Return an item that stands for another one of the tree."""
    item = _leaf(_dataset(), _RELATIONSHIP, "CS", relationship)
    _put(item, _TARGET, "UL", struct.pack(f"<{len(position)}L", *position))
    return item


def _item(relationship: str, value_type: str, concept: Code | None, children: Sequence[Dataset] = ()) -> Dataset:
    item = _leaf(_dataset(), _VALUE_TYPE, "CS", value_type)
    if relationship:
        _leaf(item, _RELATIONSHIP, "CS", relationship)
    if concept is not None:
        _put(item, _NAME, "SQ", _encoded(concept))
    if children:
        item.ContentSequence = list(children)
    return item


def _dataset() -> Dataset:
    """Return an empty data set that counts as read in explicit little endian and ASCII, so that it stays as it is."""
    item = Dataset()
    item.set_original_encoding(False, True, default_encoding)
    return item


def _leaf(item: Dataset, tag: BaseTag, vr: str, text: str) -> Dataset:
    encoded = text.encode("ascii")
    padding = (b"\0" if vr == "UI" else b" ") * (len(encoded) % 2)
    return _put(item, tag, vr, encoded + padding)


def _put(item: Dataset, tag: BaseTag, vr: str, value: bytes) -> Dataset:
    item[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return item


@functools.cache
def _encoded(code: Code) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_sequence_item(buffer, coded(code), [default_encoding])
    return buffer.getvalue()
