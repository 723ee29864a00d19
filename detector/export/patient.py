"""Who the patient of a DICOM file is; for the screen alone."""

from __future__ import annotations

import warnings
from pathlib import Path

import pydicom

from detector.export.files import printable

_TAGS = ("PatientName", "PatientID", "PatientBirthDate")


def read_patient(path: Path) -> tuple[str, str, str]:
    """Return name, id and birth date as the header states them; empty where it does not, or where it is no DICOM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pydicom warns of quotes values
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
            name, number, born = (printable(str(header.get(tag) or "")) for tag in _TAGS)
        except Exception:
            return "", "", ""
    return name.replace("^", " ").strip(), number, born
