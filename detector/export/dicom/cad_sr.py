"""Mammography CAD SR: TID 4000 of PS3.16 and the templates below it, whose rows are cited where they are written.

Every image of the study is in the Image Library. Clusters are Single Image Findings inferred from the individual
calcifications in them. Not for presentation are calcifications in no cluster, and macrocalcifications.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset

from detector.export.dicom.codes import (
    AREA,
    CLUSTER,
    DIAMETER,
    DISTRIBUTIONS,
    ENGLISH,
    INDIVIDUAL,
    LONG_AXIS,
    MM,
    MM2,
    MODIFIERS,
    NO_UNITS,
    NOT_SHOWN,
    OPTIONAL,
    PERCENT,
    REQUIRED,
    SHORT_AXIS,
    SIDES,
    VIEWS,
    Code,
    concept,
    member,
    types_of,
)
from detector.export.dicom.content import (
    Position,
    by_reference,
    code_item,
    container,
    date_item,
    image_item,
    number_item,
    numbers,
    place_item,
    text_item,
    time_item,
)
from detector.export.dicom.places import closed, to_dicom
from detector.export.dicom.report import ReportKind, algorithm_items, make_report
from detector.export.dicom.source import Reported, Source, Study
from detector.records import Clusters, Distribution, Kind, Spots

CAD_SR = ReportKind("1.2.840.10008.5.1.4.1.1.88.50", "Mammography CAD report", 9101, "cad_sr.dcm")
_LIBRARY: Position = (1, 2)
_PURPOSES = ((CLUSTER, "cluster detection"), (INDIVIDUAL, "calcification detection"))


def make_cad_sr(study: Study, folder: Path) -> FileDataset | None:
    """Return the Mammography CAD SR of a study, or None if the folder holds it already.

    Parameters
    ----------
    study : Study
    folder : Path
        Where the study's objects lie; a report of other content there becomes the predecessor.
    """
    # TID 4000: rows 1 to 7
    root = container(
        "",
        concept("MammographyCADReport"),
        [
            code_item("HAS CONCEPT MOD", concept("LanguageOfContentItemAndDescendants"), ENGLISH),
            container("CONTAINS", concept("ImageLibrary"), [_library_entry(image) for image in study.images]),
            _overall_impression(study),
            *_summaries(study),
        ],
        template="4000",
    )
    return make_report(study, CAD_SR, root, folder)


def _library_entry(image: Source) -> Dataset:
    """Return TID 4020, CAD Image Library Entry, with the rows that the header fills."""
    context = "HAS ACQ CONTEXT"
    identity = image.identity
    rows: list[Dataset] = []
    if identity.side in SIDES:
        rows.append(code_item(context, concept("ImageLaterality"), SIDES[identity.side]))
    if identity.view in VIEWS:
        modifiers = [MODIFIERS[word] for word in identity.view_modifiers if word in MODIFIERS]
        inner = [code_item("HAS CONCEPT MOD", concept("ImageViewModifier"), code) for code in modifiers]
        rows.append(code_item(context, concept("ImageView"), VIEWS[identity.view], inner))
    if len(identity.patient_orientation) == 2:
        for name, word in zip(("Row", "Column"), identity.patient_orientation, strict=True):
            rows.append(text_item(context, concept(f"PatientOrientation{name}"), word))
    for name in ("Study", "Content"):
        date, time = image.date_and_time(name)
        if date:
            rows.append(date_item(context, concept(f"{name}Date"), date))
            rows.append(time_item(context, concept(f"{name}Time"), time))
    rows += numbers(context, _imager_spacing(image))
    return image_item("CONTAINS", image.reference(), rows)


def _imager_spacing(image: Source) -> list[tuple[Code, float, Code]]:
    """Return the spacing at the front of the detector, which is what these concepts mean."""
    try:
        vertical, horizontal = (float(mm) for mm in image.header.get("ImagerPixelSpacing") or ())
    except (TypeError, ValueError):
        return []
    return [(concept("HorizontalPixelSpacing"), horizontal, MM), (concept("VerticalPixelSpacing"), vertical, MM)]


def _overall_impression(study: Study) -> Dataset:
    """Return TID 4001, Mammography CAD Overall Impression/Recommendation: row 1 and, if anything was found, row 3."""
    impressions: list[Dataset] = []
    for position, image in enumerate(study.images, 1):
        if image.reading is not None and image.counts:
            impressions += _Impressions(study, Reported.of(image.reading), (*_LIBRARY, position)).all()
    share = "No" if not study.read else "NotAll" if study.failed else "All"
    found = "With" if impressions else "Without"
    summary = member(6047, f"{share}AlgorithmsSucceeded{found}Findings")
    return code_item("CONTAINS", concept("CADProcessingAndFindingsSummary"), summary, impressions)


class _Impressions:
    """The findings of one image, which stands at a position of the Image Library."""

    def __init__(self, study: Study, reported: Reported, position: Position) -> None:
        self._reported, self._position = reported, position
        self._algorithms = {code: algorithm_items(study, purpose) for code, purpose in _PURPOSES}

    def all(self) -> list[Dataset]:
        """Return a TID 4003 for each cluster, and one for the calcifications in none."""
        clusters = range(len(self._reported.clusters))
        found = [self._impression(self._intent(i), [self._cluster(i)]) for i in clusters]
        if alone := self._individuals(0, NOT_SHOWN):
            found.append(self._impression(NOT_SHOWN, alone))
        return found

    def _impression(self, intent: Code, findings: Sequence[Dataset]) -> Dataset:
        """Return TID 4003, Mammography CAD Individual Impression/Recommendation: rows 1, 2 and 5."""
        rows = [code_item("HAS CONCEPT MOD", concept("RenderingIntent"), intent), *findings]
        return container("INFERRED FROM", concept("IndividualImpressionRecommendation"), rows)

    def _intent(self, row: int) -> Code:
        if self._reported.clusters.review[row]:
            return REQUIRED
        return NOT_SHOWN if self._reported.kind_of_cluster(row) == Kind.MACRO else OPTIONAL

    def _cluster(self, row: int) -> Dataset:
        """Return TID 4006 for a cluster: what it is (TID 4010), then the calcifications that it is inferred from."""
        clusters = self._reported.clusters
        own = [code_item("HAS PROPERTIES", concept("CalcificationType"), c)
               for c in types_of(self._reported.kind_of_cluster(row), int(clusters.morphology[row]))]  # fmt: skip
        if clusters.distribution[row]:
            word = DISTRIBUTIONS[Distribution(clusters.distribution[row])]
            own.append(code_item("HAS PROPERTIES", concept("CalcificationDistribution"), word))
        own += numbers("HAS PROPERTIES", [
            (concept("NumberOfCalcifications"), clusters.n_spots[row], NO_UNITS),
            (LONG_AXIS, clusters.extent_mm[row], MM),  # TID 1400
            (AREA, clusters.area_mm2[row], MM2),  # TID 1401
        ])  # fmt: skip
        intent = self._intent(row)
        inner = self._individuals(int(clusters.cluster_id[row]), intent)
        for item in inner:
            item.RelationshipType = "INFERRED FROM"
        outline = self._reported.cluster_outlines[row]
        return self._finding(CLUSTER, intent, (clusters, row, outline), [*own, *inner])

    def _individuals(self, cluster_id: int, intent: Code) -> list[Dataset]:
        """Return TID 4006 for the calcifications of a cluster, or of none: what each is (TID 4009).

        One of unknown size and form is left out, since the template asks for a type or a measurement.
        """
        spots = self._reported.spots
        findings = []
        for row in np.flatnonzero(spots.cluster_id == cluster_id).tolist():
            own = [code_item("HAS PROPERTIES", concept("CalcificationType"), c)
                   for c in types_of(int(spots.kind[row]), int(spots.morphology[row]))]  # fmt: skip
            own += numbers("HAS PROPERTIES", [
                (DIAMETER, spots.diameter_mm[row], MM),  # TID 1400
                (LONG_AXIS, spots.length_mm[row], MM),
                (SHORT_AXIS, spots.width_mm[row], MM),
                (AREA, spots.area_mm2[row], MM2),  # TID 1401
            ])  # fmt: skip
            shown = NOT_SHOWN if spots.kind[row] == Kind.MACRO else intent
            if own:
                findings.append(self._finding(INDIVIDUAL, shown, (spots, row, self._reported.spot_outlines[row]), own))
        return findings

    def _finding(
        self, code: Code, intent: Code, what: tuple[Spots | Clusters, int, NDArray[np.float32]], own: list[Dataset]
    ) -> Dataset:
        """Return TID 4006, Mammography CAD Single Image Finding: intent, 4019, certainty, 4021, own rows."""
        table, row, outline = what
        rows = [
            code_item("HAS CONCEPT MOD", concept("RenderingIntent"), intent),
            *self._algorithms[code],
            number_item("HAS PROPERTIES", concept("CertaintyOfFinding"), 100 * float(table.confidence[row]), PERCENT),
            self._place("Center", to_dicom((table.row_px[row], table.col_px[row]))),
        ]
        if len(outline) > 2:
            rows.append(self._place("Outline", closed(outline)))
        return code_item("CONTAINS", concept("SingleImageFinding"), code, [*rows, *own])

    def _place(self, name: str, coordinates: NDArray[np.float64]) -> Dataset:
        """Return a row of TID 4021, Mammography CAD Geometry, on the image in the library."""
        selected = by_reference("SELECTED FROM", self._position)
        return place_item("HAS PROPERTIES", concept(name), coordinates, [selected])


def _summaries(study: Study) -> list[Dataset]:
    """Return TID 4015, CAD Detections Performed, and TID 4016, CAD Analyses Performed: none is tried on one view."""
    lists = {"Successful": study.read, "Failed": study.failed}
    status = "PartiallySucceeded" if all(lists.values()) else "Succeeded" if study.read else "Failed"
    inner = [
        container("INFERRED FROM", concept(f"{name}Detections"), _detections(study, images))
        for name, images in lists.items()
        if images
    ]
    return [
        code_item("CONTAINS", concept("SummaryOfDetections"), member(6042, status), inner),
        code_item("CONTAINS", concept("SummaryOfAnalyses"), member(6042, "NotAttempted")),
    ]


def _detections(study: Study, images: Sequence[Source]) -> list[Dataset]:
    """Return TID 4017, CAD Detection Performed, for each algorithm, with the images that it was given (row 8)."""
    of_images = [(*_LIBRARY, position) for position, image in enumerate(study.images, 1) if image in images]
    return [
        code_item(
            "CONTAINS",
            concept("DetectionPerformed"),
            code,
            [*algorithm_items(study, purpose), *(by_reference("HAS PROPERTIES", position) for position in of_images)],
        )
        for code, purpose in _PURPOSES
    ]
