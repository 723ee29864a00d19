"""Modules that all objects share (PS3.3 C.7, C.12): patient and study as in the source, equipment ours."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import uuid
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from detector.export.dicom.source import PROGRAM, Reported, Source, Study, program_and_model
from detector.export.files import whole_file

_NAMESPACE = uuid.UUID("6d2f1d0e-6c3b-5b0e-8d55-0a4b6f3f0c11")
_REQUIRED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName", "StudyID",
             "AccessionNumber")  # fmt: skip
_CARRIED = ("IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod",
            "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified", "StudyDescription",
            "TimezoneOffsetFromUTC")  # fmt: skip
_ALSO_SAID = ("PatientAge", "StudyDate", "StudyTime", "ContentDate", "ContentTime")


def derived_uid(*parts: object) -> str:
    """Return a UID that follows from the parts (PS3.5 B.2: a UUID under 2.25)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}"


def new_object(study: Study, sop_class: str, series: tuple[str, str, int], instance_uid: str) -> FileDataset:
    """Return an object with its patient, study, series, equipment and SOP common modules.

    Parameters
    ----------
    study : Study
    sop_class : str
    series : tuple of (str, str, int)
        Modality, description and number of its series.
    instance_uid : str
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(derived_uid("implementation"))
    meta.ImplementationVersionName = "MICROCALC_DETECT"
    out = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    # all text is written anew in UTF-8, whatever the source was written in
    out.SpecificCharacterSet = "ISO_IR 192"
    out.SOPClassUID, out.SOPInstanceUID = sop_class, instance_uid
    add_patient_and_study(out, study)
    out.Modality, out.SeriesDescription, out.SeriesNumber = series
    out.SeriesInstanceUID = series_uid(study, series[1])
    out.SeriesDate, out.SeriesTime = study.date, study.time
    out.Manufacturer = out.ManufacturerModelName = PROGRAM
    out.SoftwareVersions = version_of(study)
    # the place in a rack has no meaning for a program; its model of calcifications has
    out.DeviceSerialNumber = study.versions.get("model", "none")
    out.InstanceNumber = 1
    return out


def add_patient_and_study(out: Dataset, study: Study) -> None:
    """Carry patient and study over from the first image; what the standard asks for and it lacks stays empty."""
    header = study.images[0].header
    for keyword in _REQUIRED:
        value = header.get(keyword)
        setattr(out, keyword, "" if value is None else value)
    for keyword in _CARRIED:
        if header.get(keyword):
            setattr(out, keyword, header.get(keyword))
    if re.fullmatch(r"\d{3}[DWMY]", str(header.get("PatientAge") or "")):
        out.PatientAge = header.PatientAge
    out.StudyInstanceUID, out.StudyDate, out.StudyTime = study.uid, study.date, study.time


def fingerprint(source: Source) -> str:
    """Return a hash of all that objects say of an image: what is reported of it, by what, patient and study."""
    identity = source.identity
    parts: dict[str, Any] = {
        "uid": source.sop_uid,
        "frame": source.frame,
        "counts": source.counts,
        "patient and study": [str(source.header.get(k) or "") for k in (*_REQUIRED, *_CARRIED, *_ALSO_SAID)],
        "view": [identity.side, identity.view, identity.view_modifiers, identity.patient_orientation],
        "spacing": [identity.spacing_mm, identity.sizes_known],
    }
    if source.reading is not None:
        reported = Reported.of(source.reading)
        parts |= {f.name: getattr(reported, f.name).to_lists() for f in dataclasses.fields(reported)}
        parts |= {"versions": program_and_model(source.reading), "settings": dict(source.reading.settings)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def series_uid(study: Study, name: str) -> str:
    """Return the UID of our series of that name in a study: the same until program, model or settings change."""
    return derived_uid("series", name, study.uid, sorted(study.versions.items()), sorted(study.settings.items()))


def version_of(study: Study) -> str:
    """Return the version of the program that read the study."""
    return study.versions.get(PROGRAM, "not installed")


def referenced_series(images: tuple[Source, ...], keyword: str) -> list[Dataset]:
    """Return an item for each series of the images, with their references in a sequence of that keyword."""
    series: dict[str, dict[str, Dataset]] = {}
    for image in images:
        reference = image.reference()
        reference.pop("ReferencedFrameNumber", None)
        series.setdefault(str(image.header.SeriesInstanceUID), {})[image.sop_uid] = reference
    items = []
    for uid, references in series.items():
        item = Dataset()
        setattr(item, keyword, list(references.values()))
        item.SeriesInstanceUID = uid
        items.append(item)
    return items


def save_whole(out: FileDataset, path: Path) -> None:
    """Write an object whole or not at all.

    Raises
    ------
    OSError
        If the folder or the disk refuses.
    """
    with whole_file(path) as handle:
        out.save_as(handle, enforce_file_format=True)
