"""Grayscale Softcopy Presentation State (PS3.3 A.33.1): what was found, drawn over one image for presentation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydicom.dataset import Dataset, FileDataset

from detector.errors import ExportError
from detector.export.dicom.modules import derived_uid, fingerprint, new_object, referenced_series, series_uid
from detector.export.dicom.places import closed, to_dicom
from detector.export.dicom.source import PRESENTATION, Reported, Source, Study
from detector.records import Kind

GSPS = "1.2.840.10008.5.1.4.1.1.11.1"
SERIES: Mapping[str, tuple[str, str, int]] = {
    "": ("PR", "Calcifications found", 9103),
    "L": ("PR", "Calcifications found, left", 9104),
    "R": ("PR", "Calcifications found, right", 9105),
}
"""A series holds images of one side, which it names."""
_MARGIN_MM = 0.5
_LAYERS: Mapping[int, tuple[str, str]] = {
    Kind.MICRO: ("MICRO", "Microcalcifications"),
    Kind.MACRO: ("MACRO", "Macrocalcifications"),
    Kind.UNKNOWN: ("UNSIZED", "Calcifications of unknown size"),
}
_CLUSTERS = ("CLUSTERS", "Clusters of calcifications")
_RESCALE = ("RescaleIntercept", "RescaleSlope", "RescaleType")
_WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")


def make_presentation(study: Study, image: Source) -> FileDataset:
    """Return the presentation state of one image: circles around spots, outlines and a line of text for clusters.

    Grey levels are shown as the image itself asks for: its first VOI, and inverted if it is.

    Raises
    ------
    ExportError
        If the image is not for presentation, or was not analysed.
    """
    if image.reading is None:
        raise ExportError("the image could not be analysed")
    if image.sop_class != PRESENTATION:
        raise ExportError("a presentation state is made for mammography images for presentation only")
    side = image.identity.side if image.identity.side in SERIES else ""
    uid = derived_uid("presentation", series_uid(study, SERIES[side][1]), fingerprint(image))
    out = new_object(study, GSPS, SERIES[side], uid)
    if side:
        out.Laterality = side
    out.PresentationCreationDate, out.PresentationCreationTime = study.date, study.time
    out.ContentLabel, out.ContentDescription, out.ContentCreatorName = "CALCIFICATIONS", "Calcifications found", ""
    out.ReferencedSeriesSequence = _referenced(image)
    out.DisplayedAreaSelectionSequence = [_displayed_area(image)]
    reported = Reported.of(image.reading)
    annotations = _spot_annotations(image, reported) + _cluster_annotations(image, reported)
    if annotations:
        out.GraphicAnnotationSequence = annotations
        out.GraphicLayerSequence = _layers(annotations)
    _add_grey_levels(out, image.header)
    return out


def _referenced(image: Source) -> list[Dataset]:
    series = referenced_series((image,), "ReferencedImageSequence")
    series[0].ReferencedImageSequence = [image.reference()]
    return series


def _displayed_area(image: Source) -> Dataset:
    """Return the whole image, in whole pixels counted from 1 (PS3.3 C.10.4)."""
    area = Dataset()
    area.ReferencedImageSequence = [image.reference()]
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [int(image.header.Columns), int(image.header.Rows)]
    area.PresentationSizeMode = "SCALE TO FIT"
    vertical, horizontal = image.identity.spacing_mm
    if image.identity.sizes_known and vertical and horizontal:
        area.PresentationPixelSpacing = [f"{vertical:.6g}", f"{horizontal:.6g}"]
    else:
        area.PresentationPixelAspectRatio = [1, 1]
    return area


def _spot_annotations(image: Source, reported: Reported) -> list[Dataset]:
    """Return an annotation a layer: a circle around each spot, a little larger than it."""
    spots = reported.spots
    pixel_mm = math.sqrt(math.prod(image.identity.spacing_mm)) or 1.0
    reach = 0.5 * np.fmax(np.nan_to_num(spots.length_mm), np.nan_to_num(spots.diameter_mm)) + _MARGIN_MM
    radius_px = reach / pixel_mm if image.identity.sizes_known else np.full(len(spots), 6.0)
    annotations = []
    for kind, (layer, _) in _LAYERS.items():
        rows = np.flatnonzero(spots.kind == kind).tolist()
        if rows:
            circles = [_circle((spots.row_px[i], spots.col_px[i]), float(radius_px[i])) for i in rows]
            annotations.append(_annotation(image, layer, circles))
    return annotations


def _cluster_annotations(image: Source, reported: Reported) -> list[Dataset]:
    """Return an annotation with the outline of each cluster and a line of text beside it."""
    clusters = reported.clusters
    if not len(clusters):
        return []
    polygons, texts = [], []
    for row in range(len(clusters)):
        outline = reported.cluster_outlines[row]
        place = to_dicom((clusters.row_px[row], clusters.col_px[row]))
        vertices = closed(outline) if len(outline) > 2 else np.concatenate([place, place])
        polygons.append(_graphic("POLYLINE", vertices))
        flagged = ", for review" if clusters.review[row] else ""
        texts.append(_text(f"{clusters.n_spots[row]} calcifications{flagged}", vertices[np.argmax(vertices[:, 0])]))
    annotation = _annotation(image, _CLUSTERS[0], polygons)
    annotation.TextObjectSequence = texts
    return [annotation]


def _annotation(image: Source, layer: str, graphics: list[Dataset]) -> Dataset:
    annotation = Dataset()
    annotation.ReferencedImageSequence = [image.reference()]
    annotation.GraphicLayer = layer
    annotation.GraphicObjectSequence = graphics
    return annotation


def _graphic(kind: str, coordinates: NDArray[np.float64]) -> Dataset:
    graphic = Dataset()
    graphic.GraphicAnnotationUnits = "PIXEL"
    graphic.GraphicDimensions, graphic.NumberOfGraphicPoints = 2, len(coordinates)
    graphic.GraphicData = coordinates.ravel().tolist()
    graphic.GraphicType, graphic.GraphicFilled = kind, "N"
    return graphic


def _circle(place_px: ArrayLike, radius_px: float) -> Dataset:
    """Return a circle by its centre and a point on it."""
    center = to_dicom(place_px)
    return _graphic("CIRCLE", np.concatenate([center, center + [radius_px, 0.0]]))


def _text(words: str, anchor: NDArray[np.float64]) -> Dataset:
    text = Dataset()
    text.AnchorPointAnnotationUnits = "PIXEL"
    text.UnformattedTextValue = words
    text.AnchorPoint, text.AnchorPointVisibility = anchor.tolist(), "N"
    return text


def _layers(annotations: list[Dataset]) -> list[Dataset]:
    used = [annotation.GraphicLayer for annotation in annotations]
    layers = []
    for order, (name, description) in enumerate([*_LAYERS.values(), _CLUSTERS], 1):
        if name in used:
            layer = Dataset()
            layer.GraphicLayer, layer.GraphicLayerOrder, layer.GraphicLayerDescription = name, order, description
            layers.append(layer)
    return layers


def _add_grey_levels(out: Dataset, header: Dataset) -> None:
    """Show the image as it asks for itself: rescale, first VOI, and inverted if small values are bright."""
    if header.get("ModalityLUTSequence"):
        out.ModalityLUTSequence = [header.ModalityLUTSequence[0]]
    elif "RescaleSlope" in header:
        for keyword, default in zip(_RESCALE, ("0", "1", "US"), strict=True):
            value = header.get(keyword)
            setattr(out, keyword, default if value is None or value == "" else value)
    voi = Dataset()
    if header.get("VOILUTSequence"):
        voi.VOILUTSequence = [_lookup_table(header.VOILUTSequence[0])]
    elif _stated(header, "WindowCenter") and _stated(header, "WindowWidth"):
        for keyword in _WINDOW:
            if _stated(header, keyword):
                setattr(voi, keyword, _first(header.get(keyword)))
    if len(voi):
        out.SoftcopyVOILUTSequence = [voi]
    # a presentation state replaces the photometric interpretation (PS3.3 C.11.6): MONOCHROME1 must be inverted here
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1"
    out.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"


def _lookup_table(item: Dataset) -> Dataset:
    """Return a lookup table with entries of 8 or 16 bits: an image's may have 10 or 12, a presentation state's not."""
    count, first, bits = item.LUTDescriptor
    is_little = item.original_encoding[1] is not False
    if bits in (8, 16) and is_little:
        return item
    data = item.LUTData
    entries = np.frombuffer(data, "<u2" if is_little else ">u2") if isinstance(data, bytes) else np.array(data)
    out = Dataset()
    out.add_new("LUTDescriptor", item["LUTDescriptor"].VR, [count, first, 16])
    if "LUTExplanation" in item:
        out.LUTExplanation = item.LUTExplanation
    scaled = np.clip(np.rint(entries * (65535 / (2**bits - 1))), 0, 65535)
    out.add_new("LUTData", "OW", scaled.astype("<u2").tobytes())
    return out


def _stated(header: Dataset, keyword: str) -> bool:
    return header.get(keyword) not in (None, "", [])


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) or type(value).__name__ == "MultiValue" else value  # type: ignore[index]
