"""Which image it is: side, view, study, exposure, as far as the header tells without naming the patient."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from detector.read.dicom import DicomFile, Header, valid_uid
from detector.read.subject import PRESENTATION, PROCESSING
from detector.records import Identity

VIEWS: Mapping[str, str] = {
    "399162004": "CC",
    "R-10242": "CC",
    "399368009": "MLO",
    "R-10226": "MLO",
    "399260004": "ML",
    "R-10224": "ML",
    "399352003": "LM",
    "R-10228": "LM",
    "399099002": "LMO",
    "R-10230": "LMO",
    "399192008": "XCCL",
    "R-1024A": "XCCL",
    "399101009": "XCCM",
    "R-1024B": "XCCM",
    "399196006": "FB",
    "R-10244": "FB",
    "399188001": "SIO",
    "R-102D0": "SIO",
    "441555000": "ISO",
    "R-40AAA": "ISO",
}
"""Codes of PS3.16 CID 4014, SNOMED CT and the SRT codes of older files, and the words of the ACR for them."""
MODIFIERS: Mapping[str, str] = {
    "399163009": "magnification",
    "R-102D6": "magnification",
    "399055006": "spot compression",
    "R-102D7": "spot compression",
    "399209000": "implant displaced",
    "R-102D5": "implant displaced",
    "399161006": "cleavage",
    "R-102D2": "cleavage",
    "399011000": "axillary tail",
    "R-102D1": "axillary tail",
    "399197002": "rolled lateral",
    "R-102D3": "rolled lateral",
    "399226006": "rolled medial",
    "R-102D4": "rolled medial",
    "414493004": "rolled inferior",
    "R-102CA": "rolled inferior",
    "415670009": "rolled superior",
    "R-102C9": "rolled superior",
    "399110001": "tangential",
    "R-102C2": "tangential",
    "441752004": "anterior compression",
    "P2-00161": "anterior compression",
    "442580003": "axillary tissue",
    "R-40AB2": "axillary tissue",
    "442581004": "nipple in profile",
    "R-40AB3": "nipple in profile",
    "442593008": "infra-mammary fold",
    "R-40ABE": "infra-mammary fold",
}
"""Codes of PS3.16 CID 4015, likewise."""
_WORDS = (*sorted(set(VIEWS.values())), "XCC", "AT", "CV")
_STATED = re.compile(rf"(?:(?P<side>[LR])[ _.-]?)?(?P<view>{'|'.join(_WORDS)})")
_IN_TEXT = re.compile(r"(?<![A-Z0-9])(?:(?P<side>[LR])[ _.-]?)?(?P<view>CC|MLO|ML|LM|LMO|XCCL|XCCM)(?![A-Z0-9])")


def find_side(header: Header) -> str:
    """Return L, R, B or nothing: from Image Laterality, Frame Laterality, Laterality, or a label such as "L-CC"."""
    stated = [header.text("ImageLaterality")]
    for group in header.items("SharedFunctionalGroupsSequence"):
        stated += [anatomy.text("FrameLaterality") for anatomy in group.items("FrameAnatomySequence")]
    stated.append(header.text("Laterality"))
    sides = [side.upper() for side in stated if side.upper() in ("L", "R", "B")]
    if len(set(sides)) > 1:
        header.note("header: two elements contradict each other on the side; the one of the image was taken")
    return sides[0] if sides else next((m["side"] for m in _labels(header) if m["side"]), "")


def find_view(header: Header) -> str:
    """Return the view in the words of the ACR, or nothing: from View Code Sequence, View Position, or a label.

    Some scanned films (CBIS-DDSM) name the view in Patient Orientation alone.
    """
    coded = VIEWS.get(header.code("ViewCodeSequence"), "")
    return coded or next((m["view"] for m in _labels(header)), "")


def _labels(header: Header) -> list[re.Match[str]]:
    """Return labels such as "CC", "L-CC", from the elements made for them, then from descriptions."""
    stated = [_STATED.fullmatch(w.upper()) for k in ("ViewPosition", "PatientOrientation") for w in header.words(k)]
    told = [_IN_TEXT.search(header.text(k).upper()) for k in ("SeriesDescription", "ProtocolName")]
    return [match for match in (*stated, *told) if match]


def find_modifiers(header: Header) -> tuple[str, ...]:
    """Return the words of the view's modifiers in the order of the header; "other" for a code that is not known."""
    items = [m for view in header.items("ViewCodeSequence") for m in view.items("ViewModifierCodeSequence")]
    items += header.items("ViewModifierCodeSequence")
    codes = [code for item in items if (code := item.text("CodeValue"))]
    return tuple(dict.fromkeys(MODIFIERS.get(code, "other") for code in codes))


def find_intent(dicom: DicomFile) -> str:
    """Return presentation, processing, or nothing."""
    words = dicom.header.text("PresentationIntentType").upper().split()
    if words[-1:] in (["PRESENTATION"], ["PROCESSING"]):
        return words[-1].lower()
    return {PROCESSING: "processing", PRESENTATION: "presentation"}.get(dicom.sop_class, "")


def identify(dicom: DicomFile, side: str, view: str) -> Identity:
    """Return what the header says of the image, but its size and spacing.

    Parameters
    ----------
    dicom : DicomFile
    side, view : str

    Returns
    -------
    Identity
        `image_id` is empty if the file has no valid SOP Instance UID.
    """
    header = dicom.header
    stated = header.text("SOPInstanceUID") or dicom.meta.text("MediaStorageSOPInstanceUID")
    image_id = valid_uid(stated)
    if not image_id:
        lack = "is not valid" if stated else "is missing"
        header.note(f"header: the SOP Instance UID {lack}; the image is named by the hash of its file")
    if header.text("BreastImplantPresent").upper() == "YES":
        header.note("breast implant: what lies inside it is not analysed")
    orientation = tuple(word.upper() for word in header.words("PatientOrientation"))
    proper = len(orientation) == 2 and all(re.fullmatch("[ARLPHF]{1,3}", word) for word in orientation)
    return Identity(
        image_id=image_id,
        sop_class_uid=dicom.sop_class,
        study_uid=valid_uid(header.text("StudyInstanceUID")),
        study_date=_date(header),
        side=side,
        view=view,
        view_modifiers=find_modifiers(header),
        patient_orientation=orientation if proper else (),
        presentation_intent=find_intent(dicom),
        exposure_id=_exposure(header, image_id, side, view),
        n_frames=max(1, header.integer("NumberOfFrames", 1)),
        manufacturer=header.text("Manufacturer"),
        model=header.text("ManufacturerModelName"),
    )


def _date(header: Header) -> str:
    for keyword in ("StudyDate", "AcquisitionDate"):
        if match := re.fullmatch(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)", header.text(keyword)):
            return "-".join(match.groups())
    return ""


def _exposure(header: Header, image_id: str, side: str, view: str) -> str:
    """Return a hash that the images of one exposure share: for processing, for presentation, synthetic.

    The irradiation event ties them best, then the acquisition; then the time at which side and view were taken; then
    the image that this one was made from.
    """
    date, time = header.text("AcquisitionDate"), header.text("AcquisitionTime")
    moment = header.text("AcquisitionDateTime") or (date + time if date and time.strip("0.") else "")
    sources = (source.text("ReferencedSOPInstanceUID") for source in header.items("SourceImageSequence"))
    keys = (
        sorted(filter(None, header.words("IrradiationEventUID"))),
        [header.text("AcquisitionUID")],
        [header.text("StudyInstanceUID"), moment, side, view] if moment else [],
        [next(filter(None, sources), image_id)],
    )
    key = next((key for key in keys if any(key)), None)
    return hashlib.sha256("|".join(key).encode()).hexdigest()[:32] if key else ""
