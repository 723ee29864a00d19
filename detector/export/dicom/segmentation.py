"""Segmentation (PS3.3 A.51): what was found in one image as areas, a segment a kind.

A mammogram has no frame of reference, so the segmentation has none either: its frames have the rows and columns of the
image, and say that they lie on it pixel by pixel (PS3.3 A.51.3.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import Tag

from detector.errors import ExportError
from detector.export.dicom.codes import CLUSTER, MACRO, MICRO, SITE_SIDES, Code, member
from detector.export.dicom.content import coded
from detector.export.dicom.modules import (
    derived_uid,
    fingerprint,
    new_object,
    referenced_series,
    series_uid,
    version_of,
)
from detector.export.dicom.source import PROGRAM, Reported, Source, Study
from detector.records import Kind, Outlines

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SERIES = ("SEG", "Areas of calcifications found", 9106)
NOTHING_FOUND = "nothing was found, and a segmentation needs a segment"
SIZES_UNKNOWN = "sizes are unknown, and segments are of micro- and macrocalcifications"
_KINDS = (("Microcalcifications", MICRO, Kind.MICRO), ("Macrocalcifications", MACRO, Kind.MACRO))
_CLUSTERS = "Clusters of calcifications"
_FRACTION_BITS = 4


def make_segmentation(study: Study, image: Source) -> FileDataset:
    """Return the segmentation of one image, with a segment for each kind of which something was found.

    Raises
    ------
    ExportError
        If nothing was found whose size is known, or the image was not analysed.
    """
    if image.reading is None:
        raise ExportError("the image could not be analysed")
    reported = Reported.of(image.reading)
    segments = find_segments(reported)
    if not segments:
        raise ExportError(SIZES_UNKNOWN if len(reported) else NOTHING_FOUND)
    out = new_object(study, SEG, SERIES, derived_uid("segmentation", series_uid(study, SERIES[1]), fingerprint(image)))
    _add_image(out, study, image)
    out.SegmentSequence = [_segment(study, number, label, code) for number, (label, code, _) in enumerate(segments, 1)]
    for segment in out.SegmentSequence:
        segment.AnatomicRegionSequence = [_breast(image)]
    _add_dimensions(out)
    out.NumberOfFrames = len(segments)
    out.SharedFunctionalGroupsSequence = [Dataset()]
    out.PerFrameFunctionalGroupsSequence = [_frame(image, number) for number in range(1, len(segments) + 1)]
    out.ReferencedSeriesSequence = referenced_series((image,), "ReferencedInstanceSequence")
    out.PixelData = _pack([outlines for _, _, outlines in segments], (out.Rows, out.Columns))
    out["PixelData"].VR = "OB"
    return out


def find_segments(reported: Reported) -> list[tuple[str, Code, Outlines]]:
    """Return label, type and outlines of each kind of which something was found."""
    spots, outlines = reported.spots, reported.spot_outlines
    found = [(label, code, outlines[np.flatnonzero(spots.kind == kind)]) for label, code, kind in _KINDS]
    found.append((_CLUSTERS, CLUSTER, reported.cluster_outlines))
    return [segment for segment in found if len(segment[2])]


def _add_image(out: Dataset, study: Study, image: Source) -> None:
    """Describe the image and its pixels: General Image, Image Pixel and Segmentation Image."""
    out.ImageType = ["DERIVED", "PRIMARY"]
    out.ContentDate, out.ContentTime = study.date, study.time
    out.ContentLabel, out.ContentDescription, out.ContentCreatorName = "CALCIFICATIONS", "Calcifications found", ""
    # General Image asks for it where there is no frame of reference
    out.PatientOrientation = list(image.identity.patient_orientation) or ""
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    out.Rows, out.Columns = int(image.header.Rows), int(image.header.Columns)
    out.BitsAllocated = out.BitsStored = 1
    out.HighBit = out.PixelRepresentation = 0
    out.LossyImageCompression = "00"
    out.SegmentationType, out.SegmentsOverlap = "BINARY", "YES"


def _segment(study: Study, number: int, label: str, code: Code) -> Dataset:
    segment, algorithm = Dataset(), Dataset()
    segment.SegmentNumber, segment.SegmentLabel = number, label
    segment.SegmentedPropertyCategoryCodeSequence = [coded(member(7150, "MorphologicallyAbnormalStructure"))]
    segment.SegmentedPropertyTypeCodeSequence = [coded(code)]
    segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = "AUTOMATIC", PROGRAM
    algorithm.AlgorithmFamilyCodeSequence = [coded(member(7162, "MultiScaleResolutionFiltering"))]
    algorithm.AlgorithmName, algorithm.AlgorithmVersion = PROGRAM, version_of(study)
    segment.SegmentationAlgorithmIdentificationSequence = [algorithm]
    return segment


def _breast(image: Source) -> Dataset:
    breast = coded(member(4013, "Breast"))
    if image.identity.side in SITE_SIDES:
        breast.AnatomicRegionModifierSequence = [coded(SITE_SIDES[image.identity.side])]
    return breast


def _add_dimensions(out: Dataset) -> None:
    """Say that frames are told apart by their segment."""
    organization, index = Dataset(), Dataset()
    organization.DimensionOrganizationUID = derived_uid("dimension", out.SOPInstanceUID)
    index.DimensionOrganizationUID = organization.DimensionOrganizationUID
    index.DimensionIndexPointer = Tag("ReferencedSegmentNumber")
    index.FunctionalGroupPointer = Tag("SegmentIdentificationSequence")
    index.DimensionDescriptionLabel = "Segment number"
    out.DimensionOrganizationSequence, out.DimensionIndexSequence = [organization], [index]


def _frame(image: Source, number: int) -> Dataset:
    frame, content, identification, derivation = Dataset(), Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [number]
    identification.ReferencedSegmentNumber = number
    source = image.reference()
    source.SpatialLocationsPreserved = "YES"
    source.PurposeOfReferenceCodeSequence = [coded(member(7202, "SourceImageForImageProcessingOperation"))]
    derivation.SourceImageSequence = [source]
    derivation.DerivationCodeSequence = [coded(member(7203, "SegmentationImageDerivation"))]
    frame.DerivationImageSequence = [derivation]
    frame.FrameContentSequence = [content]
    frame.SegmentIdentificationSequence = [identification]
    return frame


def _pack(segments: Sequence[Outlines], shape: tuple[int, int]) -> bytes:
    """Return the masks of the segments, bit by bit, lowest bit first, frames without gaps (PS3.5 8.1.1)."""
    masks = np.stack([fill_outlines(outlines, shape) for outlines in segments])
    packed = np.packbits(masks, bitorder="little").tobytes()
    return packed + b"\0" * (len(packed) % 2)


def fill_outlines(outlines: Outlines, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a mask of the pixels whose centres lie in or on the outlines."""
    mask = np.zeros(shape, np.uint8)
    for outline in outlines:
        vertices = np.rint(outline[:, ::-1] * 2**_FRACTION_BITS).astype(np.int32)
        # one by one: OpenCV leaves out what two outlines of one call share
        cv2.fillPoly(mask, [vertices], 1, cv2.LINE_8, _FRACTION_BITS)
    return mask
