"""Mammography CAD SR read back into tables: our own and those of other programs, with codes of SNOMED CT or of SRT."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr._snomed_dict import mapping as snomed

from detector.errors import ReadError
from detector.export.dicom.codes import DISTRIBUTIONS, FORMS
from detector.export.dicom.content import Position
from detector.export.dicom.places import from_dicom
from detector.export.files import printable
from detector.export.tables import CLUSTER_COLUMNS, IMAGE_COLUMNS, SPOT_COLUMNS, open_csv, rows_of
from detector.records import BENIGN_FORMS, Clusters, Distribution, Kind, Morphology, Outlines, Spots

CAD_SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.50"
_MOST_ITEMS = 1_000_000
_ROOT, _LIBRARY, _FINDING, _FAILED = "111036", "111028", "111059", "111025"
_CLUSTER, _INDIVIDUAL = "129769006", "129770007"
_INTENT, _REQUIRED = "111056", "111150"
_MICRO, _MACRO = "44771000", "111345"
_LENGTHS: Mapping[str, str] = {
    "81827009": "diameter_mm",
    "103339001": "length_mm",
    "410668003": "length_mm",
    "103340004": "width_mm",
    "103355008": "width_mm",
}
_AREA = "42798000"
_LEAST_MACRO_MM = 0.5  # width of a rod that is one
_MM_PER: Mapping[str, float] = {"mm": 1.0, "cm": 10.0, "um": 0.001, "mm2": 1.0, "cm2": 100.0, "um2": 1e-6}
_FORM_OF: Mapping[str, Morphology] = {code.value: form for form, code in FORMS.items()} | {
    "129754005": Morphology.RIM  # lucent-centered
}
_DISTRIBUTION_OF: Mapping[str, Distribution] = {code.value: word for word, code in DISTRIBUTIONS.items()}


@dataclass(frozen=True, eq=False)
class CadImage:
    """What a report says of one image.

    Attributes
    ----------
    image_id : str
        SOP Instance UID, with ``_f`` and its number if it is a frame.
    failed : bool
        The report lists it under detections that failed.
    spots : Spots
        Individual calcifications; what the report does not say is NaN or zero.
    clusters : Clusters
        `review` is True where the report asks for the mark to be shown.
    spot_outlines, cluster_outlines : Outlines
        One a row, empty where there is none.
    """

    image_id: str
    failed: bool
    spots: Spots
    clusters: Clusters
    spot_outlines: Outlines
    cluster_outlines: Outlines


@dataclass(frozen=True, eq=False)
class CadReport:
    """A Mammography CAD SR as tables, one `CadImage` for each image of its library."""

    images: tuple[CadImage, ...]
    manufacturer: str
    model: str
    version: str

    def save_tables(self, folder: Path) -> None:
        """Write ``images.csv``, ``spots.csv`` and ``clusters.csv``, as scoring takes them, into a folder.

        Raises
        ------
        OSError
            If the folder or the disk refuses.
        """
        folder.mkdir(parents=True, exist_ok=True)
        names = IMAGE_COLUMNS[:2]
        with open_csv(folder / "images.csv", names) as write:
            write([[image.image_id, image.image_id] for image in self.images])
        for name, columns in (("spots", SPOT_COLUMNS), ("clusters", CLUSTER_COLUMNS)):
            with open_csv(folder / f"{name}.csv", columns) as write:
                for image in self.images:
                    write(rows_of(image.image_id, getattr(image, name), columns))


def read_cad_sr(path: str | os.PathLike[str]) -> CadReport:
    """Read the calcifications and clusters of a Mammography CAD SR; its masses and other findings are left out.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    CadReport

    Raises
    ------
    ReadError
        If it cannot be opened, is something else, or is damaged.
    """
    name = printable(os.fspath(path))
    try:
        # what pydicom warns of quotes values of the header
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = pydicom.dcmread(path, force=True)
            if str(report.get("SOPClassUID", "")) != CAD_SR_CLASS and _concept(report) != _ROOT:
                raise ReadError(f"{name} is no Mammography CAD SR: give the report of a CAD program")
            return _Tree(report).read()
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"{name} cannot be read: {error.strerror or 'its end is missing'}") from error
    except Exception as error:  # a damaged report makes pydicom raise almost anything
        raise ReadError(f"{name} is damaged ({type(error).__name__}): have it sent again") from error


@dataclass
class _Found:
    """A finding, as it is put together."""

    position: Position
    code: str
    row: dict[str, Any]
    outline: NDArray[np.float64]
    image: Position
    members: list[Position]


class _Tree:
    """The content tree of a report, walked once."""

    def __init__(self, report: Dataset) -> None:
        self._report = report
        self._items: dict[Position, Dataset] = dict(_walk(report))

    def read(self) -> CadReport:
        """Return the report as tables."""
        images = {p: i for p, i in self._items.items() if i.get("ValueType") == "IMAGE" and self._in_library(p)}
        names = {position: _image_id(item) for position, item in images.items()}
        findings = [f for f in map(self._finding, self._positions(_FINDING)) if f is not None]
        failed = {target for p in self._positions(_FAILED) for target in self._targets_under(p)}
        by_image: dict[str, list[_Found]] = {name: [] for name in names.values()}
        for found in findings:
            by_image.setdefault(names.get(found.image) or self._named(found.image), []).append(found)
        missed = {names[p] for p in failed if p in names}
        get = self._report.get
        return CadReport(
            tuple(_tables(name, name in missed, found) for name, found in by_image.items()),
            str(get("Manufacturer", "") or ""),
            str(get("ManufacturerModelName", "") or ""),
            self._version(),
        )

    def _version(self) -> str:
        stated = [self._items[p].get("TextValue") for p in self._positions("111003")]
        return str(next(filter(None, stated), self._report.get("SoftwareVersions", "") or ""))

    def _in_library(self, position: Position) -> bool:
        return any(_concept(self._items[position[:n]]) == _LIBRARY for n in range(1, len(position)))

    def _positions(self, concept: str) -> list[Position]:
        return [p for p, item in self._items.items() if _concept(item) == concept]

    def _named(self, position: Position) -> str:
        return _image_id(self._items[position]) if position in self._items else ""

    def _children(self, position: Position) -> Iterator[tuple[Position, Dataset]]:
        count = len(self._items[position].get("ContentSequence") or [])
        for n in range(1, count + 1):
            if (inner := (*position, n)) in self._items:
                yield inner, self._items[inner]

    def _targets_under(self, position: Position) -> Iterator[Position]:
        for p, item in self._items.items():
            if p[: len(position)] == position:
                if target := _target(item):
                    yield target
                elif item.get("ValueType") == "IMAGE":
                    yield p

    def _finding(self, position: Position) -> _Found | None:
        code = _value(self._items[position])
        if code not in (_CLUSTER, _INDIVIDUAL):
            return None
        row: dict[str, Any] = {"kind": Kind.UNKNOWN}
        found = _Found(position, code, row, np.empty((0, 2)), (), [])
        for inner, item in self._children(position):
            self._take(found, inner, item)
        if "row_px" not in row and len(found.outline):
            row["row_px"], row["col_px"] = found.outline.mean(axis=0).tolist()
        if "row_px" not in row or not found.image:
            return None
        row.setdefault("confidence", row.pop("probability", 1.0))
        row.pop("probability", None)
        benign = row.get("morphology") in BENIGN_FORMS and row.get("diameter_mm", 0.0) >= _LEAST_MACRO_MM
        if row["kind"] == Kind.UNKNOWN and benign:
            row["kind"] = Kind.MACRO  # a benign form alone names a macrocalcification
        return found

    def _take(self, found: _Found, position: Position, item: Dataset) -> None:
        """Take from a child of a finding what it says of it."""
        concept, row = _concept(item), found.row
        target = _target(item)
        if target in self._items and _concept(self._items[target]) == _FINDING:
            found.members.append(target)
        elif concept == _FINDING:
            found.members.append(position)
        elif concept in ("111010", "111041"):
            self._take_place(found, position, item)
        elif concept == "111009":
            _take_type(row, _value(item))
        elif concept == "111008" and _value(item) in _DISTRIBUTION_OF:
            row["distribution"] = _DISTRIBUTION_OF[_value(item)]
        elif concept == _INTENT:
            row["review"] = _value(item) == _REQUIRED
        elif "MeasuredValueSequence" in item:
            _take_number(row, concept, item)

    def _take_place(self, found: _Found, position: Position, item: Dataset) -> None:
        vertices = _vertices(item)
        if vertices is None:
            return
        for inner, reference in self._children(position):
            found.image = _target(reference) or (inner if reference.get("ValueType") == "IMAGE" else found.image)
        if _concept(item) == "111010":
            found.row["row_px"], found.row["col_px"] = vertices.mean(axis=0).tolist()
        else:
            found.outline = vertices


def _walk(report: Dataset) -> Iterator[tuple[Position, Dataset]]:
    """Yield all items with their positions, parents first."""
    pending: list[tuple[Position, Dataset]] = [((1,), report)]
    count = 0
    while pending:
        position, item = pending.pop()
        yield position, item
        children = item.get("ContentSequence") or []
        count += len(children)
        if count > _MOST_ITEMS:
            raise ReadError(f"the report has over {_MOST_ITEMS} items")
        pending += reversed([((*position, n), child) for n, child in enumerate(children, 1)])


def _code(item: Dataset, keyword: str) -> str:
    for code in item.get(keyword) or []:
        value = str(code.get("CodeValue", "") or "")
        scheme = str(code.get("CodingSchemeDesignator", "") or "")
        return str(snomed["SRT"].get(value, value)) if scheme in ("SRT", "SNM3", "99SDM") else value
    return ""


def _concept(item: Dataset) -> str:
    return _code(item, "ConceptNameCodeSequence")


def _value(item: Dataset) -> str:
    return _code(item, "ConceptCodeSequence")


def _target(item: Dataset) -> Position:
    stated = item.get("ReferencedContentItemIdentifier")
    if stated is None:
        return ()
    return (int(stated),) if isinstance(stated, int) else tuple(int(n) for n in stated)


def _image_id(item: Dataset) -> str:
    for reference in item.get("ReferencedSOPSequence") or []:
        frame = reference.get("ReferencedFrameNumber")
        return str(reference.get("ReferencedSOPInstanceUID", "")) + (
            f"_f{int(frame)}" if isinstance(frame, int) else ""
        )
    return ""


def _vertices(item: Dataset) -> NDArray[np.float64] | None:
    """Return the (row, col) of a SCOORD's point or outline, or None if it is malformed."""
    data = item.get("GraphicData")
    values = np.array([] if data is None else data, np.float64).ravel()
    if not len(values) or len(values) % 2 or not np.isfinite(values).all() or np.abs(values).max() > 1e6:
        return None
    places, kind = from_dicom(values), item.get("GraphicType")
    if kind == "CIRCLE" and len(places) == 2:
        radius = float(np.linalg.norm(places[1] - places[0]))
        return _ellipse(places[0], np.array([0.0, radius]), np.array([radius, 0.0]))
    if kind == "ELLIPSE" and len(places) == 4:
        return _ellipse(places.mean(axis=0), (places[1] - places[0]) / 2, (places[3] - places[2]) / 2)
    closed = kind == "POLYLINE" and len(places) > 1 and np.array_equal(places[0], places[-1])
    return places[:-1] if closed else places


def _ellipse(
    center: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    angle = np.linspace(0.0, 2 * math.pi, 48, endpoint=False)[:, None]
    return np.asarray(center + np.cos(angle) * first + np.sin(angle) * second)


def _take_type(row: dict[str, Any], code: str) -> None:
    if code == _MICRO:
        row["kind"] = Kind.MICRO
    elif code == _MACRO:
        row["kind"] = Kind.MACRO
    elif code in _FORM_OF:
        row.setdefault("morphology", _FORM_OF[code])


def _take_number(row: dict[str, Any], concept: str, item: Dataset) -> None:
    for measured in item.MeasuredValueSequence or []:
        value = float(measured.NumericValue)
        unit = _code(measured, "MeasurementUnitsCodeSequence")
        if not math.isfinite(value):
            return
        if concept == "111012":
            row["confidence"] = min(max(value / 100, 0.0), 1.0)
        elif concept == "111047":
            row["probability"] = min(max(value / 100, 0.0), 1.0)
        elif concept == "111038" and 0 <= value < 1e6:
            row["n_spots"] = round(value)
        elif concept == _AREA and unit in _MM_PER:
            row["area_mm2"] = value * _MM_PER[unit]
        elif concept in _LENGTHS and unit in _MM_PER:
            row[_LENGTHS[concept]] = value * _MM_PER[unit]


def _tables(image_id: str, failed: bool, findings: list[_Found]) -> CadImage:
    clusters = [f for f in findings if f.code == _CLUSTER]
    spots = [f for f in findings if f.code == _INDIVIDUAL]
    number = {member: n for n, cluster in enumerate(clusters, 1) for member in cluster.members}
    for n, spot in enumerate(spots, 1):
        spot.row |= {"spot_id": n, "cluster_id": number.get(spot.position, 0)}
        spot.row.pop("review", None)
    for n, cluster in enumerate(clusters, 1):
        members = [spot for spot in spots if spot.row["cluster_id"] == n]
        macro = sum(spot.row["kind"] == Kind.MACRO for spot in members)
        cluster.row.setdefault("n_spots", len(members))
        cluster.row |= {"cluster_id": n, "n_macro": macro, "extent_mm": cluster.row.get("length_mm", math.nan)}
    return CadImage(
        image_id,
        failed,
        _table(Spots, spots),
        _table(Clusters, clusters),
        Outlines.of([spot.outline for spot in spots]),
        Outlines.of([cluster.outline for cluster in clusters]),
    )


def _table(table: Any, findings: list[_Found]) -> Any:
    columns = {
        column.name: [f.row.get(column.name, math.nan if column.dtype[0] == "f" else 0) for f in findings]
        for column in table.columns()
        if any(column.name in f.row for f in findings)
    }
    return table.blank(len(findings), **{k: np.array(v) for k, v in columns.items()})
