"""Content items of structured reports (PS3.3 C.17.3), as data sets of pydicom."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from detector.export.dicom.codes import Code

Position = tuple[int, ...]
"""Where an item stands in the tree: 1 is the root, each further number the place among its parent's children."""


def coded(code: Code) -> Dataset:
    """Return an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def _item(relationship: str, value_type: str, concept: Code | None, children: Sequence[Dataset] = ()) -> Dataset:
    item = Dataset()
    if relationship:
        item.RelationshipType = relationship
    item.ValueType = value_type
    if concept is not None:
        item.ConceptNameCodeSequence = [coded(concept)]
    if children:
        item.ContentSequence = list(children)
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
    item.ConceptCodeSequence = [coded(value)]
    return item


def text_item(relationship: str, concept: Code, value: str) -> Dataset:
    """Return a TEXT."""
    item = _item(relationship, "TEXT", concept)
    item.TextValue = value
    return item


def uid_item(relationship: str, concept: Code, value: str) -> Dataset:
    """Return a UIDREF."""
    item = _item(relationship, "UIDREF", concept)
    item.UID = value
    return item


def date_item(relationship: str, concept: Code, value: str) -> Dataset:
    """Return a DATE."""
    item = _item(relationship, "DATE", concept)
    item.Date = value
    return item


def time_item(relationship: str, concept: Code, value: str) -> Dataset:
    """Return a TIME."""
    item = _item(relationship, "TIME", concept)
    item.Time = value
    return item


def number_item(relationship: str, concept: Code, value: float, unit: Code) -> Dataset:
    """Return a NUM of six significant digits."""
    item = _item(relationship, "NUM", concept)
    measured = Dataset()
    measured.MeasurementUnitsCodeSequence = [coded(unit)]
    measured.NumericValue = f"{value:.6g}"
    item.MeasuredValueSequence = [measured]
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
    item.GraphicType = "POINT" if len(coordinates) == 1 else "POLYLINE"
    item.GraphicData = coordinates.ravel().tolist()
    return item


def by_reference(relationship: str, position: Position) -> Dataset:
    """Return an item that stands for another one of the tree."""
    item = Dataset()
    item.RelationshipType = relationship
    item.ReferencedContentItemIdentifier = list(position)
    return item
