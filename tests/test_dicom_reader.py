"""Mammography CAD SR read back: our own, those of others with older codes, and damaged ones."""

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr._snomed_dict import mapping as snomed
from typer.testing import CliRunner

import detector
from detector.cli import app
from detector.errors import ReadError
from detector.evaluate.marks import write_marks
from detector.evaluate.phantoms import Recipe, make_phantom
from detector.evaluate.tables import read_findings
from detector.evaluate.truth import ImageTruth
from detector.export.dicom import CadImage, StudyImage, read_cad_sr, write_objects
from detector.export.dicom.source import Reported
from detector.export.phantoms import write_dicom
from detector.records import Kind, Morphology, Spots, Table
from tests.dicom_studies import make_reading, make_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[StudyImage]:
    images = make_study(tmp_path_factory.mktemp("study"), n_spots=40, n_clusters=3)
    return [*images[:3], StudyImage(images[3].path, None)]


@pytest.fixture(scope="module")
def report(study: list[StudyImage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    (written,) = write_objects(study, tmp_path_factory.mktemp("objects"), ["sr"])
    assert written.file
    return written.file


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("small")
    path = write_dicom(folder / "x.dcm", make_phantom(1, Recipe(rows=300, cols=240, spacing_mm=0.3))[0])
    reading = make_reading(detector.read_mammogram(path).identity, 3, 1)
    (written,) = write_objects([StudyImage(path, reading)], folder, ["sr"])
    assert written.file
    return written.file.read_bytes()


def in_order(table: Table) -> np.ndarray:
    return np.lexsort([table.col_px, table.row_px])  # type: ignore[attr-defined]


def assert_same(image: CadImage, reported: Reported, places: float = 1e-3) -> None:
    """Assert that a report says of an image what was reported, in whatever order."""
    spots, clusters = image.spots[in_order(image.spots)], image.clusters[in_order(image.clusters)]
    of_spots, of_clusters = in_order(reported.spots), in_order(reported.clusters)
    true_spots, true_clusters = reported.spots[of_spots], reported.clusters[of_clusters]
    assert (len(spots), len(clusters)) == (len(true_spots), len(true_clusters))
    for name in ("row_px", "col_px"):
        assert np.allclose(getattr(spots, name), getattr(true_spots, name), atol=places)
        assert np.allclose(getattr(clusters, name), getattr(true_clusters, name), atol=places)
    for name in ("diameter_mm", "length_mm", "width_mm", "area_mm2", "confidence"):
        assert np.allclose(getattr(spots, name), getattr(true_spots, name), rtol=1e-5)
    for name in ("extent_mm", "area_mm2", "confidence"):
        assert np.allclose(getattr(clusters, name), getattr(true_clusters, name), rtol=1e-5)
    for name in ("kind", "morphology"):
        assert np.array_equal(getattr(spots, name), getattr(true_spots, name))
    for name in ("n_spots", "n_macro", "morphology", "distribution", "review"):
        assert np.array_equal(getattr(clusters, name), getattr(true_clusters, name)), name
    renumbered = dict(zip(clusters.cluster_id, true_clusters.cluster_id, strict=True)) | {0: 0}
    assert [renumbered[i] for i in spots.cluster_id] == true_spots.cluster_id.tolist()
    for found, row, true in (
        (image.spot_outlines, in_order(image.spots), reported.spot_outlines[of_spots]),
        (image.cluster_outlines, in_order(image.clusters), reported.cluster_outlines[of_clusters]),
    ):
        assert np.allclose(found[row].vertices_px, true.vertices_px, atol=places)


def test_a_round_trip_gives_what_was_reported(study: list[StudyImage], report: Path) -> None:
    read = detector.read_cad_sr(report)
    assert (read.manufacturer, read.version) == ("microcalcification-detector", "0.1.0")
    by_id = {image.image_id: image for image in read.images}
    assert len(by_id) == 4
    for source in study[:3]:
        assert source.reading is not None
        image = by_id.pop(source.reading.identity.image_id)
        assert not image.failed
        assert len(image.spots) > 20 and len(image.clusters) == 3
        assert_same(image, Reported.of(source.reading))
    (failed,) = by_id.values()
    assert failed.failed and len(failed.spots) == len(failed.clusters) == 0


def items_of(item: Dataset) -> Iterator[Dataset]:
    yield item
    for inner in item.get("ContentSequence", []):
        yield from items_of(inner)


def test_a_report_of_another_program_in_older_codes_says_the_same(
    study: list[StudyImage], report: Path, tmp_path: Path
) -> None:
    """SRT codes, micrometres, images named where they are used, and calcifications referred to by their clusters."""
    other = pydicom.dcmread(report)
    library = next(item for item in other.ContentSequence if item.ValueType == "CONTAINER").ContentSequence
    changed = 0
    for item in items_of(other):
        for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
            for code in item.get(keyword, []):
                if code.CodingSchemeDesignator == "SCT" and code.CodeValue in snomed["SCT"]:
                    code.CodeValue, code.CodingSchemeDesignator = snomed["SCT"][code.CodeValue], "SRT"
                    changed += 1
        for measured in item.get("MeasuredValueSequence", []):
            unit = measured.MeasurementUnitsCodeSequence[0]
            if unit.CodeValue in ("mm", "mm2"):
                measured.NumericValue = f"{float(measured.NumericValue) * (1e3 if unit.CodeValue == 'mm' else 1e6):.7g}"
                unit.CodeValue = unit.CodeValue.replace("mm", "um")
        for reference in item.get("ContentSequence", []) if item.get("ValueType") == "SCOORD" else []:
            image = library[reference.ReferencedContentItemIdentifier[2] - 1]
            reference.ValueType, reference.ReferencedSOPSequence = "IMAGE", image.ReferencedSOPSequence
            del reference.ReferencedContentItemIdentifier
    assert changed > 500
    assert {"F-01775", "F-01776"} <= {c.CodeValue for i in items_of(other) for c in i.get("ConceptCodeSequence", [])}
    impressions = next(
        (n, i) for n, i in enumerate(other.ContentSequence, 1) if i.ConceptNameCodeSequence[0].CodeValue == "111017"
    )
    apart = 0
    for impression in impressions[1].ContentSequence:
        for item in list(impression.ContentSequence):
            inner = [i for i in item.get("ContentSequence", []) if i.RelationshipType == "INFERRED FROM"]
            for finding in inner:
                item.ContentSequence.remove(finding)
                finding.RelationshipType = "CONTAINS"
                impression.ContentSequence.append(finding)
                number = list(impressions[1].ContentSequence).index(impression) + 1
                reference = Dataset()
                reference.RelationshipType = "INFERRED FROM"
                reference.ReferencedContentItemIdentifier = [1, impressions[0], number, len(impression.ContentSequence)]
                item.ContentSequence.append(reference)
                apart += 1
    assert apart > 30
    other.save_as(tmp_path / "other.dcm")
    by_id = {image.image_id: image for image in read_cad_sr(tmp_path / "other.dcm").images}
    for source in study[:3]:
        assert source.reading is not None
        assert_same(by_id[source.reading.identity.image_id], Reported.of(source.reading))


@pytest.mark.parametrize(
    ("form", "diameter_mm", "kind"),
    [("129756007", "2.1", Kind.MACRO), ("129756007", "0.3", Kind.UNKNOWN), ("129761009", "2.1", Kind.UNKNOWN)],
    ids=["round", "round, small", "fine linear"],
)
def test_a_benign_form_alone_names_a_macrocalcification(
    small: bytes, form: str, diameter_mm: str, kind: Kind, tmp_path: Path
) -> None:
    """Another program says what form it is, and neither micro nor macro."""
    (tmp_path / "x.dcm").write_bytes(small)
    report = pydicom.dcmread(tmp_path / "x.dcm")
    for item in items_of(report):
        inner = item.get("ContentSequence", [])
        types = [i for i in inner if i.get("ConceptNameCodeSequence") and said_of(i) == "111009"]
        for extra in types[1:]:
            inner.remove(extra)
        for kept in types[:1]:
            kept.ConceptCodeSequence[0].CodeValue, kept.ConceptCodeSequence[0].CodingSchemeDesignator = form, "SCT"
        if item.get("ValueType") == "NUM" and said_of(item) == "81827009":
            item.MeasuredValueSequence[0].NumericValue = diameter_mm
    report.save_as(tmp_path / "x.dcm")
    (image,) = read_cad_sr(tmp_path / "x.dcm").images
    assert len(image.spots) and set(image.spots.kind) == {kind}


def said_of(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def test_circles_and_ellipses_are_outlines_too(small: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(small)
    report = pydicom.dcmread(tmp_path / "x.dcm")
    outlines = [i for i in items_of(report) if i.get("GraphicType") == "POLYLINE"]
    for item, kind, data in zip(
        outlines,
        ("CIRCLE", "ELLIPSE"),
        ([50.5, 60.5, 60.5, 60.5], [40.5, 60.5, 60.5, 60.5, 50.5, 55.5, 50.5, 65.5]),
        strict=False,
    ):
        item.GraphicType, item.GraphicData = kind, data
    report.save_as(tmp_path / "x.dcm")
    (image,) = read_cad_sr(tmp_path / "x.dcm").images
    circle, ellipse = image.cluster_outlines[0], image.spot_outlines[0]
    assert np.allclose(np.hypot(*(circle - (60, 50)).T), 10, atol=1e-4)
    assert np.allclose((ellipse[:, 1] - 50) ** 2 / 100 + (ellipse[:, 0] - 60) ** 2 / 25, 1, atol=1e-4)


def test_the_tables_are_those_that_scoring_takes(study: list[StudyImage], report: Path, tmp_path: Path) -> None:
    read = read_cad_sr(report)
    read.save_tables(tmp_path)
    findings = read_findings(tmp_path)
    assert set(findings) == {image.image_id for image in read.images}
    for image in read.images:
        found = findings[image.image_id]
        assert np.allclose(found.spots.row_px, image.spots.row_px, rtol=1e-5)
        assert np.array_equal(found.spots.morphology, image.spots.morphology)
        assert np.allclose(found.clusters.confidence, image.clusters.confidence, rtol=1e-5)


def test_the_tables_of_a_report_are_scored_by_the_command(tmp_path: Path) -> None:
    """Truth and report are of the same findings: all are found, and nothing else."""
    images, truths = make_study(tmp_path / "set", n_spots=8, n_clusters=2), []
    for image in images:
        assert image.reading is not None
        reported = Reported.of(image.reading)
        truths.append(ImageTruth.of_tables(image.path.name, "a woman", reported.spots, reported.clusters))
    write_marks(tmp_path / "set" / "marks.csv", truths)
    (written,) = write_objects(images, tmp_path / "objects", ["sr"])
    assert written.file
    read_cad_sr(written.file).save_tables(tmp_path / "theirs")
    arguments = ["evaluate", "marks", str(tmp_path / "set" / "marks.csv"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--findings", str(tmp_path / "theirs")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with (tmp_path / "out" / "sensitivity.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["rule"] in ("own", "R3 per view")]
    assert rows and all(row["found"] == row["of"] != "0" for row in rows)


def test_what_is_no_report_is_said(study: list[StudyImage], tmp_path: Path) -> None:
    for path, words in ((study[0].path, "is no Mammography CAD SR"), (tmp_path / "missing", "No such file")):
        with pytest.raises(ReadError, match=words):
            read_cad_sr(path)
    (tmp_path / "text").write_text("no DICOM at all" * 100)
    with pytest.raises(ReadError):
        read_cad_sr(tmp_path / "text")


def test_a_finding_without_a_place_or_an_image_is_left_out(small: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(small)
    report = pydicom.dcmread(tmp_path / "x.dcm")
    places = [i for i in items_of(report) if i.get("ValueType") == "SCOORD"]
    for item in places[2:4]:  # of the first calcification
        item.GraphicData = [float("nan"), 3.0]
    report.save_as(tmp_path / "x.dcm")
    (image,) = read_cad_sr(tmp_path / "x.dcm").images
    said = [
        tuple(item[k][0].CodeValue for k in ("ConceptNameCodeSequence", "ConceptCodeSequence"))
        for item in items_of(report)
        if "ConceptCodeSequence" in item
    ]
    assert len(image.spots) == said.count(("111059", "129770007")) - 1


def damaged(data: bytes, number: int) -> Iterator[bytes]:
    """Yield a number of mutations: cut short, bytes changed, pieces taken out, doubled or moved."""
    random = np.random.default_rng(7)
    for i in range(number):
        raw = bytearray(data)
        at, other = sorted(random.integers(132, len(raw), 2).tolist())
        if i % 5 == 0:
            yield bytes(raw[:other])
        elif i % 5 == 1:
            del raw[at : at + int(random.integers(1, 60))]
            yield bytes(raw)
        elif i % 5 == 2:
            raw[at:at] = raw[other : other + int(random.integers(1, 200))]
            yield bytes(raw)
        else:
            for place in random.integers(0, len(raw), int(random.integers(1, 12))).tolist():
                raw[place] = int(random.integers(0, 256))
            yield bytes(raw)


def check_damaged(data: bytes, path: Path, number: int) -> tuple[int, int]:
    read = refused = 0
    for raw in damaged(data, number):
        path.write_bytes(raw)
        try:
            report = read_cad_sr(path)
        except ReadError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 400 and "PHANTOM" not in str(error)
        else:
            read += 1
            for image in report.images:
                assert isinstance(image.spots, Spots)
                assert np.isfinite(image.spots.row_px).all() and np.isfinite(image.clusters.row_px).all()
                assert ((image.spots.confidence >= 0) & (image.spots.confidence <= 1)).all()
                assert set(image.spots.morphology) <= set(Morphology) and set(image.spots.kind) <= set(Kind)
    return read, refused


def test_a_damaged_report_gives_findings_or_one_clear_error(small: bytes, tmp_path: Path) -> None:
    read, refused = check_damaged(small, tmp_path / "x.dcm", 200)
    assert read > 20 and refused > 20


@pytest.mark.long
def test_two_thousand_damaged_reports_give_findings_or_one_clear_error(small: bytes, tmp_path: Path) -> None:
    read, refused = check_damaged(small, tmp_path / "x.dcm", 2000)
    assert read > 200 and refused > 200


def test_a_report_of_endless_depth_is_refused(small: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(small)
    report = pydicom.dcmread(tmp_path / "x.dcm")
    item: Dataset = report
    for _ in range(150):
        inner = Dataset()
        inner.ValueType, inner.RelationshipType = "CONTAINER", "CONTAINS"
        item.ContentSequence = [inner]
        item = inner
    report.save_as(tmp_path / "x.dcm")
    assert read_cad_sr(tmp_path / "x.dcm").images == ()


def test_records_are_frozen(report: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read_cad_sr(report).images = ()  # type: ignore[misc]
