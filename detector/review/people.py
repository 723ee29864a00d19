"""Who the patient is, read from the headers for the screen and kept nowhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detector.batch.cases import CaseImage, read_cases
from detector.export.patient import read_patient


@dataclass(frozen=True, order=True)
class Patient:
    """Name, id and birth date as a header states them."""

    name: str
    id: str
    birth_date: str


def patients_of(folder: Path, case_id: str, images: Sequence[Path]) -> list[Patient]:
    """Return the patients whom the headers of a case's images name; none where no file is found.

    Parameters
    ----------
    folder : Path
        The result folder.
    case_id : str
    images : sequence of Path
        What the run was given: files and folders. A file counts only if its bytes are those that were analysed.
    """
    found = set()
    for image in read_cases(folder).get(case_id, ()):
        for file in _files(image, images):
            found.add(Patient(*read_patient(file)))
    return sorted(found)


def _files(image: CaseImage, images: Sequence[Path]) -> list[Path]:
    shown = image.row["path"]
    places = [root / shown if root.is_dir() else root for root in images if root.is_dir() or root.name == shown]
    return [place for place in places if place.is_file() and _sha256(place) == image.row["sha256"]][:1]


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
