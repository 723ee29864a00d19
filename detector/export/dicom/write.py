"""All objects of some images, study by study, into a folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from detector.errors import ExportError
from detector.export.dicom.cad_sr import CAD_SR, make_cad_sr
from detector.export.dicom.measurements import TID1500, make_measurements
from detector.export.dicom.modules import save_whole
from detector.export.dicom.presentation import make_presentation
from detector.export.dicom.report import ReportKind
from detector.export.dicom.segmentation import NOTHING_FOUND, make_segmentation
from detector.export.dicom.source import Source, Study, StudyImage, load_source, make_study
from detector.export.files import file_stem, make_folder, printable

FORMATS = ("sr", "tid1500", "gsps", "seg")
"""Mammography CAD SR and measurement report, one a study; presentation state and segmentation, one an image."""


@dataclass(frozen=True)
class Written:
    """What became of one object.

    Attributes
    ----------
    format : str
        Of `FORMATS`.
    paths : tuple of Path
        The images that it is about.
    file : Path or None
        Where it lies; None if it was left out.
    reason : str
        Why it was left out, else empty.
    is_new : bool
        It was written now; else it was there already.
    """

    format: str
    paths: tuple[Path, ...]
    file: Path | None = None
    reason: str = ""
    is_new: bool = False

    @property
    def lacks(self) -> bool:
        """Return whether the object was left out for want of something in the source."""
        return bool(self.reason) and self.reason != NOTHING_FOUND


Maker = Callable[[], FileDataset | None]


def write_objects(images: Sequence[StudyImage], folder: Path, formats: Collection[str] = FORMATS) -> list[Written]:
    """Write the DICOM objects of some images, in a sub-folder a study.

    The same images, Readings and program give the same objects; what the folder holds already is not written anew, and
    a report of changed content names the one before it. Objects of images that are in their study no more are removed.

    Parameters
    ----------
    images : sequence of StudyImage
        All images of one study or of several, those that could not be analysed included.
    folder : Path
        Made if missing.
    formats : collection of str
        Of `FORMATS`.

    Returns
    -------
    list of Written
        One an object that was wanted, those left out for want of something in the source included.

    Raises
    ------
    ExportError
        If a file cannot be written.
    """
    results: list[Written] = []
    studies: dict[str, list[Source]] = {}
    # what pydicom warns of quotes values of the header
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for image in images:
            try:
                source = load_source(image)
            except ExportError as error:
                results += [Written(name, (image.path,), reason=str(error)) for name in formats]
            else:
                studies.setdefault(source.study_uid, []).append(source)
        for uid, sources in sorted(studies.items()):
            results += _write_study(sources, folder / file_stem(uid), formats)
    return results


def _write_study(sources: Sequence[Source], folder: Path, formats: Collection[str]) -> list[Written]:
    paths = tuple(source.path for source in sources)
    try:
        study = make_study(sources)
    except ExportError as error:
        return [Written(name, paths, reason=str(error)) for name in formats]
    try:
        make_folder(folder)
    except OSError as error:
        raise _not_written(folder, error) from error
    results = []
    for name, (kind, make_report) in _REPORTS.items():
        if name in formats:
            results.append(_write(name, paths, folder / kind.file_name, partial(make_report, study, folder)))
    for name in (name for name in _OBJECTS if name in formats):
        files = {folder / _file_name(image, name): image for image in study.images}
        for file, image in files.items():
            results.append(_write(name, (image.path,), file, partial(_OBJECTS[name], study, image)))
        for gone in set(folder.glob(f"*_{name}.dcm")) - set(files):
            gone.unlink(missing_ok=True)
    return results


def _file_name(image: Source, name: str) -> str:
    frame = f"_f{image.frame}" if image.frame else ""
    return f"{file_stem(image.sop_uid)}{frame}_{name}.dcm"


def _write(name: str, paths: tuple[Path, ...], file: Path, make: Maker) -> Written:
    try:
        made = make()
    except ExportError as error:
        # what an earlier run with other settings left is no result of this one
        file.unlink(missing_ok=True)
        return Written(name, paths, reason=str(error))
    if made is None or (name in _OBJECTS and _uid_in(file) == made.SOPInstanceUID):
        return Written(name, paths, file)
    try:
        save_whole(made, file)
    except OSError as error:
        raise _not_written(file, error) from error
    return Written(name, paths, file, is_new=True)


def _uid_in(file: Path) -> str:
    try:
        return str(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
    except (OSError, InvalidDicomError, AttributeError):
        return ""


def _not_written(path: Path, error: OSError) -> ExportError:
    return ExportError(f"{printable(str(path))} cannot be written: {error.strerror or error}")


_REPORTS: Mapping[str, tuple[ReportKind, Callable[[Study, Path], FileDataset | None]]] = {
    "sr": (CAD_SR, make_cad_sr),
    "tid1500": (TID1500, make_measurements),
}
_OBJECTS: Mapping[str, Callable[[Study, Source], FileDataset]] = {
    "gsps": make_presentation,
    "seg": make_segmentation,
}
