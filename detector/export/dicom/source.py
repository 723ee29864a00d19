"""What objects are made from: Readings, and the headers of their source files, read again."""

from __future__ import annotations

import importlib.metadata
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from detector.errors import ExportError, ReadError
from detector.export.files import printable
from detector.read import read_identity
from detector.records import Clusters, Identity, Kind, Outlines, Reading, Spots
from detector.settings import ClusterSettings

PROGRAM = "microcalcification-detector"
PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
_DATE, _TIME = (
    re.compile(r"[12]\d{3}(0[1-9]|1[0-2])([0-2]\d|3[01])"),
    re.compile(r"([01]\d|2[0-3])([0-5]\d){0,2}(\.\d{1,6})?"),
)


@dataclass(frozen=True)
class StudyImage:
    """One image of a study: its file, its Reading (None if it could not be analysed), and whether it counts.

    Of the images of one exposure one counts; the others stand in the list of images without findings.
    """

    path: Path
    reading: Reading | None
    counts: bool = True


@dataclass(frozen=True, eq=False)
class Source:
    """An image that objects can refer to: its header without pixels, and what of its Reading is reported."""

    path: Path
    header: Dataset
    identity: Identity
    counts: bool
    reading: Reading | None

    @property
    def frame(self) -> int:
        """Number of the frame, from 1; 0 if the file holds one image."""
        return self.identity.frame

    @property
    def sop_class(self) -> str:
        """SOP Class UID."""
        return str(self.header.SOPClassUID)

    @property
    def sop_uid(self) -> str:
        """SOP Instance UID."""
        return str(self.header.SOPInstanceUID)

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return str(self.header.StudyInstanceUID)

    def reference(self) -> Dataset:
        """Return an item that refers to the image."""
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = self.sop_class, self.sop_uid
        if self.frame:
            item.ReferencedFrameNumber = self.frame
        return item

    def date_and_time(self, *prefixes: str) -> tuple[str, str]:
        """Return the first valid pair of DICOM's date and time among elements named so; empty if there is none."""
        for prefix in prefixes:
            date, time = (str(self.header.get(prefix + part, "") or "").strip() for part in ("Date", "Time"))
            if _DATE.fullmatch(date) and _TIME.fullmatch(time):
                return date, time
        return "", ""


@dataclass(frozen=True, eq=False)
class Reported:
    """What of a Reading goes into objects: spots at the operating point and clusters, with their outlines."""

    spots: Spots
    spot_outlines: Outlines
    clusters: Clusters
    cluster_outlines: Outlines

    @classmethod
    def of(cls, reading: Reading) -> Reported:
        """Return what is reported of a Reading."""
        floor = ClusterSettings(**reading.settings["cluster"]).min_confidence
        rows = np.flatnonzero((reading.spots.confidence >= floor) | (reading.spots.cluster_id > 0))
        return cls(reading.spots[rows], reading.spot_outlines[rows], reading.clusters, reading.cluster_outlines)

    def __len__(self) -> int:
        return len(self.spots) + len(self.clusters)

    def kind_of_cluster(self, row: int) -> Kind:
        """Return MICRO if any calcification of a cluster is one, MACRO if all are, UNKNOWN if no size is known."""
        kinds = self.spots.kind[self.spots.cluster_id == self.clusters.cluster_id[row]]
        if (kinds == Kind.MICRO).any():
            return Kind.MICRO
        return Kind.MACRO if len(kinds) and (kinds == Kind.MACRO).all() else Kind.UNKNOWN


@dataclass(frozen=True, eq=False)
class Study:
    """The images of one study that objects can refer to, ordered by UID, and when the study was."""

    images: tuple[Source, ...]
    date: str
    time: str

    @property
    def uid(self) -> str:
        """Study Instance UID."""
        return self.images[0].study_uid

    @property
    def read(self) -> tuple[Source, ...]:
        """The images that were analysed."""
        return tuple(image for image in self.images if image.reading is not None)

    @property
    def failed(self) -> tuple[Source, ...]:
        """The images that could not be analysed."""
        return tuple(image for image in self.images if image.reading is None)

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of program and model that read the study; of the program alone if no image could be read."""
        return next((program_and_model(image.reading) for image in self.images if image.reading), _installed())

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings that the study was read with."""
        return next((image.reading.settings for image in self.images if image.reading), {})


def load_source(image: StudyImage) -> Source:
    """Read the header of an image again.

    Raises
    ------
    ExportError
        If objects cannot refer to it; the message says what is lacking.
    """
    name = printable(image.path.name)
    try:
        header = pydicom.dcmread(image.path, stop_before_pixels=True, force=True)
        for keyword in ("SOPClassUID", "SOPInstanceUID"):
            if not header.get(keyword):
                stated = getattr(header, "file_meta", Dataset()).get(f"MediaStorage{keyword}")
                setattr(header, keyword, stated or "")
        lacking = [k for k in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
                   if not UID(str(header.get(k) or "-")).is_valid]  # fmt: skip
    except (OSError, InvalidDicomError) as error:
        raise ExportError(f"{name} cannot be read again: {printable(str(error))}") from error
    except Exception as error:  # damaged headers make pydicom raise almost anything
        raise ExportError(f"the header of {name} is damaged: {type(error).__name__}") from error
    if lacking:
        raise ExportError(f"the header of {name} has no valid {' and no valid '.join(map(_words, lacking))}")
    return Source(image.path, header, _identity(image, str(header.SOPInstanceUID)), image.counts, image.reading)


def study_uid_of(path: Path) -> str:
    """Return the Study Instance UID of a file, or nothing if it cannot be told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["StudyInstanceUID"])
            uid = UID(str(header.get("StudyInstanceUID") or ""))
    except Exception:  # damaged headers make pydicom raise almost anything
        return ""
    return str(uid) if uid.is_valid else ""


def _identity(image: StudyImage, sop_uid: str) -> Identity:
    if image.reading is not None:
        return image.reading.identity
    try:
        return read_identity(image.path)
    except ReadError:  # which is why it could not be analysed
        return Identity(image_id=sop_uid)


def make_study(images: Sequence[Source]) -> Study:
    """Return the study of these images, which share its UID.

    Raises
    ------
    ExportError
        If no image says when the study was.
    """
    ordered = tuple(sorted(images, key=lambda image: (image.sop_uid, image.frame)))
    for image in ordered:
        date, time = image.date_and_time("Study", "Series", "Acquisition", "Content")
        if date:
            return Study(ordered, date, time)
    raise ExportError("the headers of the study have no date with its time")


def _installed() -> dict[str, str]:
    try:
        return {PROGRAM: importlib.metadata.version(PROGRAM)}
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return {}


def program_and_model(reading: Reading) -> dict[str, str]:
    """Return the versions that objects name; those of libraries are in the Reading alone."""
    return {name: reading.versions[name] for name in (PROGRAM, "model") if name in reading.versions}


def _words(keyword: str) -> str:
    return re.sub(r"(?<=[a-zP])(?=[A-Z][a-zI])", " ", keyword)
