"""Phantoms as DICOM files: Digital Mammography X-Ray Image objects of patients that never were."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detector.errors import ExportError
from detector.evaluate.phantoms import LOG_GAIN, OPEN_LEVEL
from detector.records import FloatImage, Mammogram

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

LOG_RANGE = 7000.0
"""Log pixel value that becomes the largest stored value."""
AIR_MARGIN = 20.0
"""What is taken off log pixels over `OPEN_LEVEL`, so that air is plain black for presentation."""
VIEW_CODES: Mapping[str, tuple[str, str]] = {
    "CC": ("399162004", "cranio-caudal"),
    "MLO": ("399368009", "medio-lateral oblique"),
}
"""Codes of SNOMED CT in context group 4014 of PS3.16."""
TRANSFER_SYNTAXES: Mapping[str, str] = {
    "explicit": "1.2.840.10008.1.2.1",
    "implicit": "1.2.840.10008.1.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg lossless": "1.2.840.10008.1.2.4.70",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg 2000": "1.2.840.10008.1.2.4.90",
    "htj2k": "1.2.840.10008.1.2.4.201",
}
"""Lossless ways to write the pixels; the keys are the names that `DicomForm` takes."""

_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
_NAMESPACE = uuid.UUID("a8a9d6f2-6a4b-5d0a-9f5e-3b6f1c1c7d10")


@dataclass(frozen=True)
class DicomForm:
    """How a phantom is written.

    Attributes
    ----------
    intent : str
        ``presentation`` (plain log) or ``processing``.
    relationship : str
        ``LOG`` or ``LIN`` (for processing only): stored values follow the logarithm of the exposure, or the exposure.
    sign : int
        1: large stored values mean much exposure; -1: they mean little. For presentation it follows `monochrome`.
    bits : int
        Bits stored: 12, 14 or 16; JPEG-LS and HTJ2K take 16, which is what their encoders put into the code stream.
    monochrome : int
        2: small values are shown dark; 1: small values are shown bright.
    transfer_syntax : str
        A key of `TRANSFER_SYNTAXES`.
    """

    intent: str = "presentation"
    relationship: str = "LOG"
    sign: int = -1
    bits: int = 12
    monochrome: int = 2
    transfer_syntax: str = "explicit"

    def __post_init__(self) -> None:
        good = (
            self.intent in ("presentation", "processing")
            and self.relationship in ("LOG", "LIN")
            and self.sign in (-1, 1)
            and self.bits in (12, 14, 16)
            and self.monochrome in (1, 2)
            and self.transfer_syntax in TRANSFER_SYNTAXES
        )
        if not good or (self.intent == "presentation" and self.relationship == "LIN"):
            raise ExportError(f"a phantom cannot be written as {self}; see the attributes of DicomForm for what can be")
        if self.transfer_syntax in ("jpeg-ls", "htj2k") and self.bits != 16:
            raise ExportError(f"{self.transfer_syntax} is written with 16 bits only, not {self.bits}: set bits=16")

    @property
    def stored_sign(self) -> int:
        """Sign that the pixels are stored with."""
        if self.intent == "processing":
            return self.sign
        return -1 if self.monochrome == 2 else 1


def write_dicom(path: Path | str, mammogram: Mammogram, form: DicomForm | None = None, case: int = 1) -> Path:
    """Write a phantom as a DICOM file.

    Parameters
    ----------
    path : Path or str
    mammogram : Mammogram
        A phantom, or other log pixels on the phantoms' scale (1000 grey levels per unit of natural logarithm).
    form : DicomForm, optional
    case : int
        Number of the invented patient; images of one case share patient and study. UIDs follow from case, side, view,
        `Identity.image_id` and form, so that the same call writes the same file.

    Returns
    -------
    Path
        Where it was written.

    Raises
    ------
    ExportError
        If the file cannot be written, or side or view is missing.
    """
    form = form or DicomForm()
    if mammogram.identity.side not in ("L", "R") or mammogram.identity.view not in VIEW_CODES:
        raise ExportError("a phantom needs side L or R and view CC or MLO to be written as DICOM")
    stored = store_pixels(mammogram.pixels, form)
    dataset = _new_file(case, mammogram, form)
    _add_patient_and_study(dataset, case)
    _add_series_and_equipment(dataset, case, mammogram, form)
    _add_projection(dataset, mammogram)
    _add_image(dataset, stored, mammogram, form)
    _encode(dataset, stored, form)
    path = Path(path)
    try:
        dataset.save_as(path, enforce_file_format=True)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def store_pixels(pixels: FloatImage, form: DicomForm) -> NDArray[np.uint16]:
    """Return log pixels as the form stores them.

    Parameters
    ----------
    pixels : ndarray of float32, shape (rows, cols)
    form : DicomForm

    Returns
    -------
    ndarray of uint16, shape (rows, cols)
    """
    largest = np.float32(2**form.bits - 1)
    if form.relationship == "LIN":
        exposure = np.exp((OPEN_LEVEL - pixels) / LOG_GAIN) * np.float32(0.8)
        rising = exposure if form.stored_sign == 1 else 1.0 - exposure
    else:
        dense = (pixels - (OPEN_LEVEL + AIR_MARGIN if form.intent == "presentation" else 0.0)) / LOG_RANGE
        rising = dense if form.stored_sign == -1 else 1.0 - dense
    return np.asarray(np.rint(np.clip(rising, 0.0, 1.0) * largest), np.uint16)


def _uid(*parts: object) -> str:
    """Return a UID that follows from the parts (PS3.5 B.2: a UUID under 2.25)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}"


def _code(value: str, meaning: str) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _new_file(case: int, mammogram: Mammogram, form: DicomForm) -> FileDataset:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_PRESENTATION if form.intent == "presentation" else _PROCESSING)
    meta.MediaStorageSOPInstanceUID = UID(_uid("image", case, mammogram.identity.image_id, form))
    meta.TransferSyntaxUID = UID(TRANSFER_SYNTAXES[form.transfer_syntax])
    meta.ImplementationClassUID = UID(_uid("implementation"))
    meta.ImplementationVersionName = "PHANTOM"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    return dataset


def _add_patient_and_study(dataset: Dataset, case: int) -> None:
    dataset.PatientName = f"PHANTOM^CASE {case}"
    dataset.PatientID = f"PHANTOM-{case:04d}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "F"
    dataset.PatientAge = "055Y"
    dataset.StudyInstanceUID = _uid("study", case)
    dataset.StudyID = str(case)
    dataset.StudyDescription = "Phantom, no patient"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20200101"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "120000"
    dataset.ReferringPhysicianName = ""
    dataset.AccessionNumber = ""


def _add_series_and_equipment(dataset: Dataset, case: int, mammogram: Mammogram, form: DicomForm) -> None:
    dataset.Modality = "MG"
    dataset.SeriesInstanceUID = _uid("series", case, mammogram.identity.image_id, form)
    number = [s + v for s in "RL" for v in VIEW_CODES].index(mammogram.identity.side + mammogram.identity.view) + 1
    dataset.SeriesNumber = dataset.InstanceNumber = number
    dataset.PresentationIntentType = f"FOR {form.intent.upper()}"
    dataset.Manufacturer = "PHANTOM"
    dataset.ManufacturerModelName = "PHANTOM"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"


def _add_projection(dataset: Dataset, mammogram: Mammogram) -> None:
    """Describe the projection, the detector and the breast."""
    identity = mammogram.identity
    view = _code(*VIEW_CODES[identity.view])
    view.ViewModifierCodeSequence = []
    dataset.ViewCodeSequence = [view]
    dataset.ViewPosition = identity.view
    dataset.ImageLaterality = identity.side
    dataset.PatientOrientation = ["A" if identity.side == "L" else "P", "FR" if identity.view == "MLO" else "R"]
    if identity.side == "R":
        dataset.PatientOrientation = ["P", "FL" if identity.view == "MLO" else "L"]
    dataset.BodyPartExamined = dataset.OrganExposed = "BREAST"
    dataset.AnatomicRegionSequence = [_code("76752008", "Breast")]
    dataset.AcquisitionContextSequence = []
    dataset.PositionerType = "MAMMOGRAPHIC"
    dataset.PositionerPrimaryAngle = {"CC": 0, "MLO": 45}[identity.view] * (1 if identity.side == "R" else -1)
    dataset.DetectorType = "SCINTILLATOR"
    dataset.DetectorConditionsNominalFlag = "YES"
    dataset.ImagerPixelSpacing = [f"{mm:.6g}" for mm in identity.spacing_mm]
    dataset.EstimatedRadiographicMagnificationFactor = "1"
    dataset.KVP = "28"
    dataset.AnodeTargetMaterial, dataset.FilterMaterial = "TUNGSTEN", "RHODIUM"
    dataset.CompressionForce = "100"
    dataset.BreastImplantPresent = "NO"


def _add_image(dataset: Dataset, stored: NDArray[np.uint16], mammogram: Mammogram, form: DicomForm) -> None:
    """Describe the pixels and how to show them."""
    presented = form.intent == "presentation"
    dataset.ImageType = ["DERIVED" if presented else "ORIGINAL", "PRIMARY", ""]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = f"MONOCHROME{form.monochrome}"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, form.bits, form.bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = form.relationship
    dataset.PixelIntensityRelationshipSign = form.stored_sign
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "IDENTITY" if form.monochrome == 2 else "INVERSE"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.QualityControlImage = "NO"
    dataset.PartialView = "NO"
    if presented:
        low, high = _window(mammogram.pixels, stored)
        dataset.WindowCenter, dataset.WindowWidth = f"{round(0.5 * (low + high))}", f"{max(round(high - low), 1)}"
        dataset.WindowCenterWidthExplanation = "BREAST"


def _window(pixels: FloatImage, stored: NDArray[np.uint16]) -> tuple[float, float]:
    """Return the stored values between which breast tissue lies, from fat near the skin to the densest tissue."""
    inside = pixels > OPEN_LEVEL + 0.5 * (np.percentile(pixels, 99.0) - OPEN_LEVEL)
    low, high = np.sort(np.percentile(stored[inside] if inside.any() else stored, (0.5, 99.8)))
    return float(low), float(high)


def _encode(dataset: FileDataset, stored: NDArray[np.uint16], form: DicomForm) -> None:
    """Put the pixels in, in the transfer syntax of the form."""
    import imagecodecs
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless

    if form.transfer_syntax in ("explicit", "implicit", "deflated", "rle"):
        dataset.PixelData = stored.astype("<u2").tobytes()
        dataset["PixelData"].VR = "OW"
        if form.transfer_syntax == "rle":
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.compress(RLELossless, generate_instance_uid=False)
        return
    if form.transfer_syntax == "jpeg lossless":
        frame = imagecodecs.jpeg8_encode(stored, lossless=True, predictor=1, bitspersample=form.bits)
    elif form.transfer_syntax == "jpeg-ls":
        frame = imagecodecs.jpegls_encode(stored)
    elif form.transfer_syntax == "jpeg 2000":
        frame = imagecodecs.jpeg2k_encode(stored, codecformat="j2k", reversible=True, bitspersample=form.bits)
    else:
        frame = imagecodecs.htj2k_encode(stored, reversible=True)
    dataset.PixelData = encapsulate([bytes(frame)])
    dataset["PixelData"].VR = "OB"
