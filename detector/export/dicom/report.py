"""What structured reports share: the SR modules (PS3.3 C.17), evidence, algorithm, and the report before this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset, FileDataset

from detector.export.dicom.codes import Code, concept
from detector.export.dicom.content import text_item
from detector.export.dicom.modules import (
    derived_uid,
    fingerprint,
    new_object,
    referenced_series,
    series_uid,
    version_of,
)
from detector.export.dicom.source import PROGRAM, Study


@dataclass(frozen=True)
class ReportKind:
    """A kind of report: its SOP class, its series and the name of its file in a study's folder."""

    sop_class: str
    series: str
    number: int
    file_name: str


def make_report(study: Study, kind: ReportKind, root: Dataset, folder: Path) -> FileDataset | None:
    """Return the report, or None if the folder holds it already.

    A report of other content in the folder, of the same series or of an older one, becomes its predecessor.

    Parameters
    ----------
    study : Study
    kind : ReportKind
    root : Dataset
        The content tree.
    folder : Path
        Of the study's objects.
    """
    content = "".join(fingerprint(image) for image in study.images)
    before = _stored(folder / kind.file_name)
    if before is not None and before.SOPInstanceUID == _instance_uid(study, kind, content, _predecessor_of(before)):
        return None
    predecessor = str(before.SOPInstanceUID) if before is not None else ""
    out = new_object(
        study, kind.sop_class, ("SR", kind.series, kind.number), _instance_uid(study, kind, content, predecessor)
    )
    out.ReferencedPerformedProcedureStepSequence = []
    out.CompletionFlag, out.VerificationFlag = "COMPLETE", "UNVERIFIED"
    out.ContentDate, out.ContentTime = study.date, study.time
    out.PerformedProcedureCodeSequence = []
    out.CurrentRequestedProcedureEvidenceSequence = [_of_study(study.uid, referenced_series(study.images, _SOPS))]
    if before is not None:
        out.PredecessorDocumentsSequence = [_reference_to(before)]
    out.update(root)
    # as in `content`: nothing in a report is of ambiguous representation
    out.set_original_encoding(False, True, convert_encodings("ISO_IR 192"))
    return out


_SOPS = "ReferencedSOPSequence"


def _instance_uid(study: Study, kind: ReportKind, content: str, predecessor: str) -> str:
    return derived_uid("report", kind.sop_class, series_uid(study, kind.series), content, predecessor)


def _stored(path: Path) -> Dataset | None:
    if not path.is_file():
        return None
    try:
        before = pydicom.dcmread(path)
    except Exception:  # a file that is not ours is replaced
        return None
    return before if all(k in before for k in ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID")) else None


def _predecessor_of(report: Dataset) -> str:
    for study in report.get("PredecessorDocumentsSequence") or []:
        for series in study.ReferencedSeriesSequence:
            return str(series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    return ""


def _of_study(study_uid: str, series: Sequence[Dataset]) -> Dataset:
    item = Dataset()
    item.ReferencedSeriesSequence, item.StudyInstanceUID = list(series), study_uid
    return item


def _reference_to(report: Dataset) -> Dataset:
    reference, series = Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = report.SOPClassUID, report.SOPInstanceUID
    series.ReferencedSOPSequence, series.SeriesInstanceUID = [reference], report.SeriesInstanceUID
    return _of_study(report.StudyInstanceUID, [series])


def algorithm_items(study: Study, purpose: str) -> list[Dataset]:
    """Return the rows of TID 4019, Algorithm Identification."""
    rows: list[tuple[Code, str]] = [
        (concept("AlgorithmName"), f"{PROGRAM} {purpose}"),
        (concept("AlgorithmVersion"), version_of(study)),
        (concept("AlgorithmManufacturer"), PROGRAM),
    ]
    if study.settings:
        point = study.settings["cluster"]["operating_point"]
        rows.append(
            (concept("AlgorithmParameters"), f"model {study.versions.get('model', '')}, operating point {point}")
        )
    return [text_item("HAS PROPERTIES", name, value) for name, value in rows]
