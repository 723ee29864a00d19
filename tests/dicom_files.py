"""Small DICOM files for tests: a synthetic mammogram with any attributes, in any transfer syntax."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

Pixels = NDArray[np.integer[Any]]

ENCODERS: Mapping[str, Callable[[Pixels, int], bytes | bytearray]] = {
    "1.2.840.10008.1.2.4.50": lambda p, _: imagecodecs.jpeg8_encode(p.astype(np.uint8), level=98),
    "1.2.840.10008.1.2.4.51": lambda p, _: imagecodecs.jpeg8_encode(p, level=98, bitspersample=12),
    "1.2.840.10008.1.2.4.57": lambda p, b: imagecodecs.jpeg8_encode(p, lossless=True, predictor=4, bitspersample=b),
    "1.2.840.10008.1.2.4.70": lambda p, b: imagecodecs.jpeg8_encode(p, lossless=True, predictor=1, bitspersample=b),
    "1.2.840.10008.1.2.4.80": lambda p, _: imagecodecs.jpegls_encode(p),
    "1.2.840.10008.1.2.4.81": lambda p, _: imagecodecs.jpegls_encode(p, level=2),
    "1.2.840.10008.1.2.4.90": lambda p, b: imagecodecs.jpeg2k_encode(
        p, codecformat="j2k", reversible=True, bitspersample=b
    ),
    "1.2.840.10008.1.2.4.91": lambda p, b: imagecodecs.jpeg2k_encode(p, codecformat="j2k", level=70, bitspersample=b),
    "1.2.840.10008.1.2.4.201": lambda p, _: imagecodecs.htj2k_encode(p, reversible=True),
    "1.2.840.10008.1.2.4.202": lambda p, _: imagecodecs.htj2k_encode(p, reversible=True),
    "1.2.840.10008.1.2.4.203": lambda p, _: imagecodecs.htj2k_encode(p, reversible=False),
}
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
RLE = "1.2.840.10008.1.2.5"
LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91",
         "1.2.840.10008.1.2.4.203")  # fmt: skip


def breast_pixels(shape: tuple[int, int] = (256, 200), bits: int = 12, seed: int = 0) -> NDArray[np.uint16]:
    """Return a half disc of textured tissue at the left on black air, dense tissue bright."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    away = np.hypot((rows - shape[0] / 2) / (0.45 * shape[0]), cols / (0.7 * shape[1]))
    noise = np.random.default_rng(seed).normal(0, 0.02, shape)
    tissue = 0.35 + 0.15 * np.cos(9 * away) + 0.1 * np.sin(rows / 11) * np.cos(cols / 7) + noise
    return np.asarray((np.where(away < 1, tissue, 0.02).clip(0, 1) * (2**bits - 1)).round(), np.uint16)


def code(value: str, meaning: str = "meaning", scheme: str = "SCT", **more: Any) -> Dataset:
    """Return an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    _set(item, more)
    return item


def make_mammogram(
    pixels: Pixels | None = None, syntax: str = ExplicitVRLittleEndian, **attributes: Any
) -> FileDataset:
    """Return a mammogram for presentation, a left CC view of 0.4 mm pixels.

    Parameters
    ----------
    pixels : ndarray, optional
        Of shape (rows, cols) or (frames, rows, cols); signed ones are written as such.
    syntax : str
        Transfer syntax UID.
    **attributes
        Elements by keyword; None takes one away.
    """
    pixels = breast_pixels() if pixels is None else pixels
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID("1.2.3.4")
    encoding = {"is_implicit_VR": syntax == NATIVE[0], "is_little_endian": syntax != NATIVE[3]}
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128, **encoding)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = PRESENTATION, "1.2.826.0.1.3680043.8.498.1", "MG"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Secret^Name", "SECRET-ID", "19010203"
    dataset.StudyInstanceUID, dataset.StudyDate = "1.2.826.0.1.3680043.8.498.2", "20200102"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.ImageLaterality, dataset.ViewPosition = "L", "CC"
    dataset.PatientOrientation = ["A", "R"]
    dataset.BodyPartExamined = "BREAST"
    dataset.ImagerPixelSpacing, dataset.EstimatedRadiographicMagnificationFactor = ["0.4", "0.4"], "1"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored = bits, attributes.get("BitsStored", min(bits, 12))
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    _put_pixels(dataset, pixels, syntax)
    _set(dataset, attributes)
    meta.MediaStorageSOPClassUID = UID(dataset.get("SOPClassUID") or SECONDARY_CAPTURE)
    meta.MediaStorageSOPInstanceUID = UID("1.2.826.0.1.3680043.8.498.9")
    return dataset


def _set(dataset: Dataset, attributes: Mapping[str, Any]) -> None:
    for keyword, value in attributes.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)


def _put_pixels(dataset: FileDataset, pixels: Pixels, syntax: str) -> None:
    if syntax in ENCODERS:
        frames = pixels if pixels.ndim == 3 else pixels[None]
        dataset.PixelData = encapsulate([bytes(ENCODERS[syntax](frame, dataset.BitsStored)) for frame in frames])
        dataset["PixelData"].VR = "OB"
        return
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == NATIVE[3] else "<")).tobytes()
    dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    if syntax == RLE:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(RLELossless, generate_instance_uid=False)


def save(path: Path, dataset: Dataset, *, bare: bool = False) -> Path:
    """Write a data set as a DICOM file, or `bare`: without preamble and meta group."""
    if not bare:
        dataset.save_as(path, enforce_file_format=True)
        return path
    syntax = dataset.file_meta.TransferSyntaxUID
    plain = Dataset(dataset)
    with path.open("wb") as file:
        dcmwrite(file, plain, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return path
