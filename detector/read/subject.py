"""What an image shows: which files are mammograms, and by what name the others are skipped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from detector.errors import NotAMammogram
from detector.read.dicom import DicomFile, Header

PRESENTATION: Final = "1.2.840.10008.5.1.4.1.1.1.2"
PROCESSING: Final = "1.2.840.10008.5.1.4.1.1.1.2.1"
_OTHER_X_RAY = (
    "",
    "1.2.840.10008.5.1.4.1.1.1",  # computed radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # digital X-ray
    "1.2.840.10008.5.1.4.1.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.7",  # secondary capture
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
)
"""Classes that scanned films and plain X-ray machines write mammograms as."""
_MODALITIES = ("", "MG", "DX", "CR", "RG", "OT", "FD", "HC", "SC")

_NAMES: Mapping[str, str] = {
    "tomosynthesis": "tomosynthesis slices, which are not analysed yet",
    "projection": "a projection image of a tomosynthesis, not analysed",
    "specimen": "an image of a specimen, not analysed",
    "biopsy": "an image taken to guide a biopsy, not analysed",
    "quality": "a quality-control image, not analysed",
    "flat": "a flat-field image, not analysed",
    "contrast": "an energy or subtraction image of a contrast examination, not analysed",
    "part": "a cropped picture or a mask of a finding, not analysed",
    "colour": "a colour picture, not analysed",
}
_CLASSES: Mapping[str, str] = {
    "1.2.840.10008.5.1.4.1.1.13.1.3": "tomosynthesis",
    "1.2.840.10008.5.1.4.1.1.13.1.4": "projection",
    "1.2.840.10008.5.1.4.1.1.13.1.5": "projection",
}
_IMAGE_TYPES = (
    (r"TOMO_PROJ|TOMO_SCOUT|PROJECTION_IMAGE", "projection"),
    (r"TOMO|TOMOSYNTHESIS|VOLUME", "tomosynthesis"),
    (r"STEREO\w*|PREFIRE\w*|POSTFIRE\w*|POSTBIOPSY\w*|POSTMARKER\w*|PRE_?BIOPSY|BIOPSY\w*", "biopsy"),
    (r"SPECIMEN\w*", "specimen"),
    (r"FLAT[_ -]?FIELD\w*|FLAT|GAIN|DARK|OFFSET", "flat"),
    (r"QC|QUALITY\w*|PHANTOM|CALIBRATION", "quality"),
    (r"HIGH_ENERGY|SUBTRACTION", "contrast"),
)
"""Values of Image Type: those of PS3.3 C.8.11.7.1.4, and what manufacturers put in their place."""
_GENERATED = ("GENERATED_2D", "TOMO_2D")
_TEXTS = (
    (r"\btomo\w*[\s_-]+(raw[\s_-]+)?proj|\bprojection images?\b", "projection"),
    (r"\bspecimen\b", "specimen"),
    (r"\bflat[\s_-]*field", "flat"),
    (r"\bqc\b|\bquality[\s_-]+(control|assurance)\b", "quality"),
    (r"(?<!post)(?<!post[\s_-])(?<!prior )(?<!after )\bbiopsy\b|\bstereotactic\b", "biopsy"),
    (r"\broi mask\b|\bcropped images?\b", "part"),
)
"""Words of the descriptions; an ordinary mammogram may follow a biopsy, and says so."""
_DESCRIPTIONS = (
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "ViewPosition",
    "AcquisitionDeviceProcessingDescription",
)
SPECIMEN_VIEWS = ("127457009", "G-8310")


def refuse_all_but_mammograms(dicom: DicomFile, side: str, view: str) -> None:
    """Return if the file holds a mammogram.

    Parameters
    ----------
    dicom : DicomFile
    side, view : str
        As found in its header.

    Raises
    ------
    NotAMammogram
        With the name of what it is instead.
    """
    header = dicom.header
    _refuse_other_objects(header, dicom.sop_class)
    mammography = dicom.sop_class in (PRESENTATION, PROCESSING)
    modality = header.text("Modality").upper()
    if not mammography and modality not in _MODALITIES:
        shown = f" ({modality})" if re.fullmatch(r"[A-Z0-9]{2,16}", modality) else ""
        raise NotAMammogram(f"an image of another modality{shown}")
    if name := _named(header):
        raise NotAMammogram(_NAMES[name])
    if not mammography and not _shows_breast(header, modality, side, view):
        raise NotAMammogram("nothing in its header says that it shows a breast")
    photometric = header.text("PhotometricInterpretation").upper()
    if header.integer("SamplesPerPixel", 1) != 1 or (photometric and not photometric.startswith("MONOCHROME")):
        raise NotAMammogram(_NAMES["colour"])


def _refuse_other_objects(header: Header, sop_class: str) -> None:
    if sop_class == "1.2.840.10008.1.3.10" or header.values("DirectoryRecordSequence"):
        raise NotAMammogram("a DICOMDIR, which lists files and holds no image")
    if sop_class in _CLASSES:
        raise NotAMammogram(_NAMES[_CLASSES[sop_class]])
    if sop_class not in (PRESENTATION, PROCESSING, *_OTHER_X_RAY):
        from pydicom.uid import UID

        name = UID(sop_class).name
        raise NotAMammogram(f"a DICOM object of another kind{'' if name == sop_class else f' ({name})'}")


def _named(header: Header) -> str:
    """Return the key of `_NAMES` for an image of a breast, or of an X-ray machine, that is no mammogram."""
    types = [word.upper() for word in header.words("ImageType")]
    generated = any(word in _GENERATED for word in types)
    for pattern, name in _IMAGE_TYPES:
        if not (generated and name == "tomosynthesis") and any(re.fullmatch(pattern, word) for word in types):
            return name
    if header.code("ViewCodeSequence") in SPECIMEN_VIEWS or header.values("SpecimenDescriptionSequence"):
        return "specimen"
    if header.values("BiopsyTargetSequence"):
        return "biopsy"
    if "YES" in (header.text("QualityControlImage").upper(), header.text("CalibrationImage").upper()):
        return "quality"
    text = " / ".join(header.text(keyword) for keyword in _DESCRIPTIONS).lower()
    if header.integer("NumberOfFrames", 1) > 1 and re.search(r"\btomo", text):
        return "tomosynthesis"
    return next((name for pattern, name in _TEXTS if re.search(pattern, text)), "")


def _shows_breast(header: Header, modality: str, side: str, view: str) -> bool:
    part = header.text("BodyPartExamined").upper()
    breast = part == "BREAST" or header.code("AnatomicRegionSequence") in ("76752008", "T-04000")
    if breast:
        return bool(view or side)
    # lateral views exist of ankles too
    return bool(view) and not part and (modality == "MG" or view not in ("ML", "LM"))
