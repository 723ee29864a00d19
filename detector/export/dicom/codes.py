"""Coded words: every one is looked up in the context group of PS3.16 that its row of a template allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydicom.sr.codedict import codes

from detector.records import BENIGN_FORMS, Distribution, Kind, Morphology


class Code(NamedTuple):
    """A coded word."""

    value: str
    scheme: str
    meaning: str


def _plain(entry: Any) -> Code:
    # pydicom carries marks of zero width that PS3.16 prints for line breaks
    return Code(str(entry.value), str(entry.scheme_designator), str(entry.meaning).replace("\u200b", ""))


def concept(name: str) -> Code:
    """Return a concept of DICOM's own scheme (PS3.16 annex D) by the name that pydicom gives it."""
    return _plain(getattr(codes.DCM, name))


def member(group: int, name: str) -> Code:
    """Return a member of a context group (PS3.16 annex B) by the name that pydicom gives it."""
    return _plain(getattr(getattr(codes, f"cid{group}"), name))


ENGLISH = Code("en", "RFC5646", "English")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")

FINDING_SITE = _plain(codes.SCT.FindingSite)
LATERALITY = _plain(codes.SCT.Laterality)
MAMMOGRAPHY = member(6058, "Mammography")

CLUSTER = member(6014, "CalcificationCluster")
INDIVIDUAL = member(6014, "IndividualCalcification")

MICRO = member(6010, "MicrocalcificationsOfTheBreast")
MACRO = member(6010, "Macrocalcifications")
FORMS: Mapping[Morphology, Code] = {
    Morphology.SKIN: member(6010, "CalcifiedSkinOfBreast"),
    Morphology.VASCULAR: member(6010, "VascularCalcificationRadiographicFinding"),
    Morphology.COARSE: member(6010, "CoarsePopcornLikeCalcification"),
    Morphology.LARGE_ROD_LIKE: member(6010, "LargeRodLikeCalcification"),
    Morphology.ROUND: member(6010, "RoundShapedCalcification"),
    Morphology.PUNCTATE: member(6010, "PunctateCalcification"),
    Morphology.RIM: member(6010, "EggshellCalcification"),
    Morphology.DYSTROPHIC: member(6010, "DystrophicCalcification"),
    Morphology.MILK_OF_CALCIUM: member(6010, "MilkOfCalciumCalcification"),
    Morphology.SUTURE: member(6010, "CalcifiedSutureMaterial"),
    Morphology.AMORPHOUS: member(6010, "AmorphousCalcification"),
    Morphology.COARSE_HETEROGENEOUS: member(6010, "HeterogeneousCalcification"),
    Morphology.FINE_PLEOMORPHIC: member(6010, "FinePleomorphicCalcification"),
    Morphology.FINE_LINEAR: member(6010, "FineLinearCastingCalcification"),
    Morphology.FINE_LINEAR_BRANCHING: member(6010, "FineLinearBranchingCastingCalcification"),
}
"""Forms of CID 6010, Calcification Type."""
DISTRIBUTIONS: Mapping[Distribution, Code] = {
    Distribution.DIFFUSE: member(6012, "DiffuseCalcificationDistribution"),
    Distribution.REGIONAL: member(6012, "RegionalCalcificationDistribution"),
    Distribution.GROUPED: member(6012, "GroupedCalcificationDistribution"),
    Distribution.LINEAR: member(6012, "LinearCalcificationDistribution"),
    Distribution.SEGMENTAL: member(6012, "SegmentalCalcificationDistribution"),
}
"""Words of CID 6012, Calcification Distribution."""

SIDES: Mapping[str, Code] = {
    "L": member(6022, "LeftBreast"),
    "R": member(6022, "RightBreast"),
    "B": member(6022, "BothBreasts"),
}
SITE_SIDES: Mapping[str, Code] = {"L": member(244, "Left"), "R": member(244, "Right"), "B": member(244, "Bilateral")}
VIEWS: Mapping[str, Code] = {
    "CC": member(4014, "CranioCaudal"),
    "MLO": member(4014, "MedioLateralObliqueProjection"),
    "ML": member(4014, "MedioLateralProjection"),
    "LM": member(4014, "LateroMedial"),
    "LMO": member(4014, "LateroMedialOblique"),
    "XCCL": member(4014, "CranioCaudalExaggeratedLaterally"),
    "XCCM": member(4014, "CranioCaudalExaggeratedMedially"),
    "FB": member(4014, "CaudoCranial"),
    "SIO": member(4014, "SuperolateralToInferomedialOblique"),
    "ISO": member(4014, "InferomedialToSuperolateralOblique"),
}
MODIFIERS: Mapping[str, Code] = {
    "magnification": member(4015, "Magnification"),
    "spot compression": member(4015, "SpotCompression"),
    "implant displaced": member(4015, "ImplantDisplaced"),
    "cleavage": member(4015, "Cleavage"),
    "axillary tail": member(4015, "AxillaryTail"),
    "rolled lateral": member(4015, "RolledLateral"),
    "rolled medial": member(4015, "RolledMedial"),
    "rolled inferior": member(4015, "RolledInferior"),
    "rolled superior": member(4015, "RolledSuperior"),
    "tangential": member(4015, "Tangential"),
    "anterior compression": member(4015, "AnteriorCompression"),
    "axillary tissue": member(4015, "AxillaryTissue"),
    "nipple in profile": member(4015, "NippleInProfile"),
    "infra-mammary fold": member(4015, "InfraMammaryFold"),
}

REQUIRED = member(6034, "PresentationRequiredRenderingDeviceIsExpectedToPresent")
OPTIONAL = member(6034, "PresentationOptionalRenderingDeviceMayPresent")
NOT_SHOWN = member(6034, "NotForPresentationRenderingDeviceExpectedNotToPresent")

DIAMETER = member(7470, "Diameter")
LONG_AXIS = member(7470, "LongAxis")
SHORT_AXIS = member(7470, "ShortAxis")
AREA = member(7471, "Area")
MM = member(7460, "Millimeter")
MM2 = member(7461, "SquareMillimeter")
PERCENT = member(7181, "Percent")
NO_UNITS = member(7181, "NoUnits")


def types_of(kind: int, morphology: int) -> list[Code]:
    """Return the words of CID 6010 for a spot or a cluster: its form, and micro or macro where that adds to it.

    A macrocalcification of a recognised benign form is named by the form alone.
    """
    form = FORMS.get(Morphology(morphology))
    types = [form] if form else []
    if kind == Kind.MICRO:
        types.append(MICRO)
    elif kind == Kind.MACRO and Morphology(morphology) not in BENIGN_FORMS:
        types.append(MACRO)
    return types
