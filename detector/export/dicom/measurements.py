"""Measurement report: TID 1500 of PS3.16, whose groups (TID 1410) viewers show on the image, one a cluster."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset, FileDataset

from detector.export.dicom.codes import (
    AREA,
    CLUSTER,
    DISTRIBUTIONS,
    ENGLISH,
    FINDING_SITE,
    LATERALITY,
    LONG_AXIS,
    MAMMOGRAPHY,
    MM,
    MM2,
    NO_UNITS,
    PERCENT,
    QUALITATIVE_EVALUATIONS,
    SITE_SIDES,
    concept,
    member,
    types_of,
)
from detector.export.dicom.content import code_item, container, image_item, numbers, place_item, text_item, uid_item
from detector.export.dicom.modules import derived_uid, version_of
from detector.export.dicom.places import closed
from detector.export.dicom.report import ReportKind, make_report
from detector.export.dicom.source import PROGRAM, Reported, Source, Study
from detector.records import Distribution

TID1500 = ReportKind("1.2.840.10008.5.1.4.1.1.88.33", "Measurements of clusters", 9102, "measurements.dcm")


def make_measurements(study: Study, folder: Path) -> FileDataset | None:
    """Return the measurement report of a study, or None if the folder holds it already.

    Parameters
    ----------
    study : Study
    folder : Path
        Where the study's objects lie; a report of other content there becomes the predecessor.
    """
    # TID 1500: rows 1, 2 (TID 1204), 3 (TID 1001), 4, 5 (TID 1600), 6 to 8 or, where no cluster was found, 12
    groups = [
        _group(study, image, Reported.of(image.reading), row)
        for image in study.images
        if image.reading is not None and image.counts
        for row in range(len(image.reading.clusters))
    ]
    library = [image_item("CONTAINS", image.reference()) for image in study.images]
    root = container(
        "",
        concept("ImagingMeasurementReport"),
        [
            code_item("HAS CONCEPT MOD", concept("LanguageOfContentItemAndDescendants"), ENGLISH),
            *_observer(study),
            code_item("HAS CONCEPT MOD", concept("ProcedureReported"), MAMMOGRAPHY),
            container(
                "CONTAINS",
                concept("ImageLibrary"),
                [container("CONTAINS", concept("ImageLibraryGroup"), library)],
            ),
            container("CONTAINS", concept("ImagingMeasurements"), groups) if groups else _nothing_found(study),
        ],
        template="1500",
    )
    return make_report(study, TID1500, root, folder)


def _observer(study: Study) -> list[Dataset]:
    """Return TID 1001 and TID 1004: the program as a device."""
    context = "HAS OBS CONTEXT"
    return [
        code_item(context, concept("ObserverType"), member(270, "Device")),
        uid_item(context, concept("DeviceObserverUID"), derived_uid("device", PROGRAM, version_of(study))),
        text_item(context, concept("DeviceObserverName"), PROGRAM),
        text_item(context, concept("DeviceObserverManufacturer"), PROGRAM),
        text_item(context, concept("DeviceObserverModelName"), PROGRAM),
    ]


def _nothing_found(study: Study) -> Dataset:
    share = "No" if not study.read else "NotAll" if study.failed else "All"
    summary = member(6047, f"{share}AlgorithmsSucceededWithoutFindings")
    row = code_item("CONTAINS", concept("CADProcessingAndFindingsSummary"), summary)
    return container("CONTAINS", QUALITATIVE_EVALUATIONS, [row])


def _group(study: Study, image: Source, reported: Reported, row: int) -> Dataset:
    """Return TID 1410, Planar ROI Measurements and Qualitative Evaluations, for one cluster."""
    clusters = reported.clusters
    name = f"{image.identity.side}{image.identity.view} cluster {clusters.cluster_id[row]}".strip()
    tracking = derived_uid("cluster", image.sop_uid, image.frame, f"{clusters.row_px[row]:.2f}",
                           f"{clusters.col_px[row]:.2f}")  # fmt: skip
    rows = [
        text_item("HAS OBS CONTEXT", concept("TrackingIdentifier"), name),
        uid_item("HAS OBS CONTEXT", concept("TrackingUniqueIdentifier"), tracking),
        code_item("CONTAINS", concept("Finding"), CLUSTER),
        _site(image),
        place_item("CONTAINS", concept("ImageRegion"), closed(reported.cluster_outlines[row]),
                   [image_item("SELECTED FROM", image.reference())]),
        *numbers("CONTAINS", [
            (concept("NumberOfCalcifications"), clusters.n_spots[row], NO_UNITS),
            (LONG_AXIS, clusters.extent_mm[row], MM),
            (AREA, clusters.area_mm2[row], MM2),
            (concept("CertaintyOfFinding"), 100 * clusters.confidence[row], PERCENT),
        ]),
    ]  # fmt: skip
    for code in types_of(reported.kind_of_cluster(row), int(clusters.morphology[row])):
        rows.append(code_item("CONTAINS", concept("CalcificationType"), code))
    if clusters.distribution[row]:
        word = DISTRIBUTIONS[Distribution(clusters.distribution[row])]
        rows.append(code_item("CONTAINS", concept("CalcificationDistribution"), word))
    return container("CONTAINS", concept("MeasurementGroup"), rows, template="1410")


def _site(image: Source) -> Dataset:
    side = SITE_SIDES.get(image.identity.side)
    inner = [code_item("HAS CONCEPT MOD", LATERALITY, side)] if side else []
    return code_item("HAS CONCEPT MOD", FINDING_SITE, member(4013, "Breast"), inner)
