"""Readers of the data sets that users have: each yields the path of an image and what is known of it.

Places are (row, col) in px of the stored image. A set that marks less than all that can be seen (VinDr-Mammo leaves out
what is benign) says so in `DATASETS`, as do licence and source.
"""

from __future__ import annotations

import ast
import math
import plistlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree
from xml.parsers.expat import ExpatError

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.errors import ReadError, SettingsError
from detector.evaluate.marks import read_marks
from detector.evaluate.tables import grouped, is_there, read_rows
from detector.evaluate.truth import Floats, ImageTruth, Mark, Points, spots_of_outlines
from detector.read.dicom import DicomFile, open_dicom
from detector.read.frames import find_format, read_frame
from detector.read.identity import find_side, find_view
from detector.records import WORDS, Morphology, Spots
from detector.settings import ReadSettings

Images = Iterator[tuple[Path, ImageTruth]]

# --------------------------------------------------------------------------------------------------------------
# INbreast

_INBREAST_MM = 0.07
_INBREAST_NAME = re.compile(r"(?P<id>\d+)_(?P<patient>[0-9a-f]+)_MG_(?P<side>[LR])_(?P<view>CC|ML)_ANON\.dcm", re.I)


def read_inbreast(root: Path, *, skip_missing: bool = False) -> Images:
    """Read INbreast: outlines and points of single calcifications, outlines of clusters.

    Parameters
    ----------
    root : Path
        Holds ``AllDICOMs`` and ``AllXML``. An image without XML has no finding.
    skip_missing : bool
        Of no effect: the images there are decide.

    Raises
    ------
    ReadError
        If there are no images, no ``AllXML``, or an XML that is no property list of this form.
    """
    folder = next(iter(sorted(root.glob("**/AllXML"))), None)
    images = [(p, m) for p in sorted(root.glob("**/*.dcm")) if (m := _INBREAST_NAME.fullmatch(p.name))]
    if folder is None or not images:
        raise ReadError(f"{root} is no INbreast release: it must hold AllXML and AllDICOMs/*_ANON.dcm")
    for path, name in images:
        outlines, marks = _inbreast_rois(folder / f"{name['id']}.xml")
        spots, spot_outlines = spots_of_outlines(outlines, (_INBREAST_MM, _INBREAST_MM))
        yield (
            path,
            ImageTruth(
                image_id=path.relative_to(root).as_posix(),
                patient_id=name["patient"].lower(),
                side=name["side"].upper(),
                view="CC" if name["view"].upper() == "CC" else "MLO",
                spots=spots,
                spot_outlines=spot_outlines,
                marks=marks,
                spacing_mm=(_INBREAST_MM, _INBREAST_MM),
                positive=len(spots) + len(marks) > 0,
                tags={"medium": "digital"},
            ),
        )


def _inbreast_rois(path: Path) -> tuple[list[Points], tuple[Mark, ...]]:
    if not path.is_file():
        return [], ()
    outlines: list[Points] = []
    marks: list[Mark] = []
    try:
        for roi in plistlib.loads(path.read_bytes(), fmt=plistlib.FMT_XML)["Images"][0]["ROIs"]:
            points = np.array([_pair(text)[::-1] for text in roi["Point_px"]], np.float32).reshape(-1, 2)
            name = str(roi.get("Name", "")).casefold()
            if "cluster" in name and len(points):
                marks.append(Mark.outline(points))
            elif "calcif" in name:
                # one or two points are that many calcifications, not an outline
                outlines += [points] if len(points) > 2 else list(points[:, None])
    except (ExpatError, plistlib.InvalidFileException, KeyError, IndexError, TypeError, ValueError) as error:
        raise ReadError(
            f"{path} is no INbreast annotation (a property list with Images, ROIs, Point_px): {error!r}"
        ) from error
    return outlines, tuple(marks)


def _pair(text: str) -> tuple[float, float]:
    first, second = text.strip().strip("()").split(",")
    return float(first), float(second)


# --------------------------------------------------------------------------------------------------------------
# mini-MIAS

_MIAS_ROWS = 1024
_MIAS_LINE = re.compile(
    r"(?P<id>mdb(?P<number>\d{3}))\s+(?P<tissue>[FGD])\s+(?P<kind>[A-Z]{4})(\s+(?P<severity>[BM]))?"
    r"(\s+(?P<x>\d+)\s+(?P<y>\d+)\s+(?P<radius>\d+))?"
)
_MIAS_MISPLACED = frozenset({"mdb212"})
"""Its circle lies on the background, so that nobody knows what was marked: it is left out."""


def read_mini_mias(root: Path, *, skip_missing: bool = False) -> Images:
    """Read mini-MIAS: circles round groups, film reduced to 0.2 mm.

    Parameters
    ----------
    root : Path
        Holds ``Info.txt`` and ``mdb001.pgm`` and so on. Its y counts from the bottom. Two following numbers are one
        woman. An image whose calcifications are too widespread for a circle has a label only; one whose circle is
        misplaced is left out.
    skip_missing : bool
        Pass over listed images that are not there.

    Raises
    ------
    ReadError
        If ``Info.txt`` or a listed image is missing.
    """
    lines = [m for line in _text_of(root / "Info.txt").splitlines() if (m := _MIAS_LINE.match(line.strip()))]
    if not lines:
        raise ReadError(f"{root / 'Info.txt'} holds no line such as 'mdb209 G CALC M 647 503 87'")
    for name, listed in grouped((m["id"], m) for m in lines).items():
        path = root / f"{name}.pgm"
        if name in _MIAS_MISPLACED or not is_there(path, skip_missing=skip_missing):
            continue
        calcium = [m for m in listed if m["kind"] == "CALC"]
        marks = tuple(
            Mark.circle(_MIAS_ROWS - int(m["y"]), int(m["x"]), int(m["radius"]), malignant=m["severity"] == "M")
            for m in calcium
            if m["x"]
        )
        number = int(listed[0]["number"])
        is_normal = all(m["kind"] == "NORM" for m in listed)
        yield (
            path,
            ImageTruth(
                image_id=path.name,
                patient_id=f"mdb{(number + 1) // 2:03d}",
                side="R" if number % 2 else "L",
                view="MLO",
                marks=marks,
                spacing_mm=(0.2, 0.2),
                positive=True if calcium else (False if is_normal else None),
                located=len(marks) == len(calcium),
                tags={"medium": "film", "tissue": listed[0]["tissue"]},
            ),
        )


# --------------------------------------------------------------------------------------------------------------
# CBIS-DDSM

_CBIS_FORMS: Mapping[str, Morphology] = {
    "AMORPHOUS": Morphology.AMORPHOUS,
    "COARSE": Morphology.COARSE,
    "DYSTROPHIC": Morphology.DYSTROPHIC,
    "EGGSHELL": Morphology.RIM,
    "FINE_LINEAR_BRANCHING": Morphology.FINE_LINEAR_BRANCHING,
    "LARGE_RODLIKE": Morphology.LARGE_ROD_LIKE,
    "LUCENT_CENTER": Morphology.RIM,
    "LUCENT_CENTERED": Morphology.RIM,
    "MILK_OF_CALCIUM": Morphology.MILK_OF_CALCIUM,
    "PLEOMORPHIC": Morphology.FINE_PLEOMORPHIC,
    "PUNCTATE": Morphology.PUNCTATE,
    "ROUND_AND_REGULAR": Morphology.ROUND,
    "SKIN": Morphology.SKIN,
    "VASCULAR": Morphology.VASCULAR,
}
_CBIS_COLUMNS = (
    "patient_id",
    "left or right breast",
    "image view",
    "abnormality id",
    "calc type",
    "calc distribution",
    "pathology",
    "image file path",
    "cropped image file path",
    "ROI mask file path",
)


def read_cbis_ddsm(root: Path, *, skip_missing: bool = False) -> Images:
    """Read the calcifications of CBIS-DDSM: masks of groups, with form, distribution and pathology.

    Parameters
    ----------
    root : Path
        Holds ``calc_case_description_train_set.csv``, ``..._test_set.csv`` or both, and below it the DICOM folders
        (``Calc-Training_P_00005_RIGHT_CC`` with the image, ``..._CC_1`` with mask and crop).
    skip_missing : bool
        Pass over listed images that are not there. A mask must be there if its image is.

    Raises
    ------
    ReadError
        If there is no description, or a listed image or mask is missing.

    Notes
    -----
    The mask is told from the crop, which may stand in its place, by its two values and its size; one drawn at another
    size than the image is scaled to it. The set states no pixel size: scanners had 0.042, 0.0435 and 0.05 mm.
    """
    tables = sorted(root.glob("**/calc_case_description_*_set.csv"))
    if not tables:
        raise ReadError(f"{root} holds no calc_case_description_train_set.csv or calc_case_description_test_set.csv")
    folders = {p.name: p for p in sorted(root.glob("**/Calc-*")) if p.is_dir()}
    rows = [row | {"split": t.stem.split("_")[-2]} for t in tables for row in read_rows(t, _CBIS_COLUMNS)]
    for name, listed in grouped((_first_part(row["image file path"]), row) for row in rows).items():
        images = _dicoms_in(folders.get(name, root / name))
        if images:
            yield images[0], _cbis_truth(images[0], root, folders, listed)
        else:
            is_there(root / name / "1-1.dcm", skip_missing=skip_missing)


def _cbis_truth(image: Path, root: Path, folders: Mapping[str, Path], rows: Sequence[Mapping[str, str]]) -> ImageTruth:
    shape = _shape_of(image)
    marks = []
    for row in rows:
        mask = _cbis_mask(folders.get(_first_part(row["ROI mask file path"])), row)
        scale = np.array(shape) / mask.shape
        words = {"lesion": row["abnormality id"], "form": _cbis_words(row["calc type"])}
        words["distribution"] = _cbis_words(row["calc distribution"])
        # the centre of pixel 0 is half a pixel from the edge that both pictures share
        outline = (_outline_of(mask) + 0.5) * scale - 0.5
        marks.append(Mark.outline(outline, malignant=row["pathology"] == "MALIGNANT", **words))
    first = rows[0]
    return ImageTruth(
        image_id=image.relative_to(root).as_posix(),
        patient_id=first["patient_id"],
        side=first["left or right breast"][:1],
        view=first["image view"],
        marks=tuple(marks),
        positive=True,
        tags={"medium": "film", "split": first["split"]},
    )


def _cbis_mask(folder: Path | None, row: Mapping[str, str]) -> NDArray[np.bool_]:
    pictures = [_pixels_of(p) for p in _dicoms_in(folder)] if folder else []
    masks = [p for p in pictures if len(np.unique(p)) == 2]
    if not masks:
        name = _first_part(row["ROI mask file path"])
        raise ReadError(f"{name} holds no mask: download the ROI mask images of CBIS-DDSM too")
    mask = max(masks, key=lambda p: p.size)
    return np.asarray(mask > mask.min())


def _cbis_words(text: str) -> str:
    """Return the set's words in ours where they have one."""
    words = [w for w in text.upper().split("-") if w not in ("", "N/A")]
    known = (WORDS[Morphology][_CBIS_FORMS[w]] if w in _CBIS_FORMS else w.lower().replace("_", " ") for w in words)
    return "|".join(dict.fromkeys(known))


def _outline_of(mask: NDArray[np.bool_]) -> Floats:
    """Return the outline of a mask as (row, col), the convex hull if it is in pieces."""
    pieces, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = pieces[0] if len(pieces) == 1 else cv2.convexHull(np.vstack(pieces))
    return cv2.approxPolyDP(outline, 0.5, True).reshape(-1, 2)[:, ::-1].astype(float)


# --------------------------------------------------------------------------------------------------------------
# VinDr-Mammo


def read_vindr(root: Path, *, skip_missing: bool = False) -> Images:
    """Read VinDr-Mammo: boxes round suspicious calcifications; what is benign is not marked.

    Parameters
    ----------
    root : Path
        Holds ``finding_annotations.csv`` and ``images/STUDY/IMAGE.dicom``.
    skip_missing : bool
        Pass over listed images that are not there.

    Raises
    ------
    ReadError
        If the table or a listed image is missing, or its categories are no list.
    """
    table = root / "finding_annotations.csv"
    needed = ("study_id", "image_id", "laterality", "view_position", "height", "width", "finding_categories", "split")
    rows = read_rows(table, (*needed, "xmin", "ymin", "xmax", "ymax"))
    for (study, name), listed in grouped(((r["study_id"], r["image_id"]), r) for r in rows).items():
        path = root / "images" / study / f"{name}.dicom"
        if not is_there(path, skip_missing=skip_missing):
            continue
        first = listed[0]
        marks = tuple(_vindr_box(r) for r in listed if "Suspicious Calcification" in _categories(r, table))
        yield (
            path,
            ImageTruth(
                image_id=path.relative_to(root).as_posix(),
                patient_id=study,
                case_id=study,
                side=first["laterality"],
                view=first["view_position"],
                marks=marks,
                positive=len(marks) > 0,
                tags={"medium": "digital", "split": first["split"]},
            ),
        )


def _categories(row: Mapping[str, str], table: Path) -> list[str]:
    try:
        return [str(c) for c in ast.literal_eval(row["finding_categories"])]
    except (ValueError, SyntaxError, TypeError) as error:
        raise ReadError(f"{table}: finding_categories {row['finding_categories']!r} is no list of words") from error


def _vindr_box(row: Mapping[str, str]) -> Mark:
    # some boxes run over the image's edge
    col = np.clip([float(row["xmin"]), float(row["xmax"])], 0, float(row["width"]) - 1)
    line = np.clip([float(row["ymin"]), float(row["ymax"])], 0, float(row["height"]) - 1)
    return Mark.box((line[0], col[0]), (line[1], col[1]))


# --------------------------------------------------------------------------------------------------------------
# CMMD


def read_cmmd(root: Path, *, skip_missing: bool = False) -> Images:
    """Read CMMD: a label for each breast, no places.

    Parameters
    ----------
    root : Path
        Holds ``CMMD_clinicaldata_revision.xlsx`` and below it the DICOM folders by patient (``D1-0001``).
    skip_missing : bool
        Pass over listed patients whose folder is not there.

    Raises
    ------
    ReadError
        If the table, one of its columns, or a listed patient is missing.
    """
    table = next(
        iter(sorted(root.glob("**/CMMD_clinicaldata_revision.xlsx"))), root / "CMMD_clinicaldata_revision.xlsx"
    )
    rows = _sheet_rows(table, ("ID1", "LeftRight", "abnormality", "classification"))
    folders = {p.name: p for p in sorted(root.glob("**/D[12]-*")) if p.is_dir()}
    for patient, listed in grouped((r["ID1"], r) for r in rows if r["ID1"]).items():
        if patient not in folders and not is_there(root / patient, skip_missing=skip_missing):
            continue
        by_side = {r["LeftRight"].upper(): r for r in listed}
        for path in _dicoms_in(folders[patient]):
            with _opened(path) as dicom:
                side, view = find_side(dicom.header), find_view(dicom.header)
            row = by_side.get(side, {})
            yield (
                path,
                ImageTruth(
                    image_id=path.relative_to(root).as_posix(),
                    patient_id=patient,
                    case_id=patient,
                    side=side,
                    view=view,
                    positive=row["abnormality"].lower() in ("calcification", "both") if row else None,
                    located=False,
                    tags={"medium": "digital", "pathology": row.get("classification", "").lower()},
                ),
            )


def _sheet_rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Read the first sheet of an XLSX workbook as one mapping a row; its first row names the columns."""
    try:
        with zipfile.ZipFile(path) as book:
            shared = _shared_texts(book)
            sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
    except FileNotFoundError as error:
        raise ReadError(f"{path} is missing") from error
    except (zipfile.BadZipFile, KeyError, ElementTree.ParseError) as error:
        raise ReadError(f"{path} is no XLSX workbook: {error}") from error
    lines = [{_column_of(c): _cell_text(c, shared) for c in row.iter(f"{_XLSX}c")} for row in sheet.iter(f"{_XLSX}row")]
    names = lines[0] if lines else {}
    missing = [n for n in needed if n not in names.values()]
    if missing:
        raise ReadError(f"{path} lacks the column {missing[0]!r}")
    return [{name: line.get(column, "") for column, name in names.items()} for line in lines[1:]]


_XLSX = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def _shared_texts(book: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    items = ElementTree.fromstring(book.read("xl/sharedStrings.xml")).iter(f"{_XLSX}si")
    return ["".join(t.text or "" for t in item.iter(f"{_XLSX}t")) for item in items]


def _column_of(cell: ElementTree.Element) -> str:
    return cell.get("r", "").rstrip("0123456789")


def _cell_text(cell: ElementTree.Element, shared: Sequence[str]) -> str:
    if cell.get("t") == "inlineStr":
        return "".join(t.text or "" for t in cell.iter(f"{_XLSX}t")).strip()
    value = cell.findtext(f"{_XLSX}v") or ""
    return (shared[int(value)] if cell.get("t") == "s" else value).strip()


# --------------------------------------------------------------------------------------------------------------
# KIOS pairs

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def read_kios(root: Path, *, skip_missing: bool = False) -> Images:
    """Read the KIOS pairs of recent and earlier mammograms: a red dot each calcification, a blue circle each group.

    Parameters
    ----------
    root : Path
        Holds a folder a woman with DICOMs (``CC_recent.dcm``, ``MLO_prior.dcm``, ...) and beside each an annotated
        picture whose name begins with that of the DICOM.
    skip_missing : bool
        Pass over images without an annotated picture.

    Raises
    ------
    ReadError
        If there is no DICOM, or one has no annotated picture.
    """
    images = _dicoms_in(root)
    if not images:
        raise ReadError(f"{root} holds no DICOM files (*.dcm)")
    for path in images:
        beside = (p for p in sorted(path.parent.iterdir()) if p.suffix.lower() in _PICTURES)
        picture = next((p for p in beside if _bare(p).startswith(_bare(path))), path.with_suffix(".png"))
        if not is_there(picture, skip_missing=skip_missing):
            continue
        spots, marks = _kios_marks(picture, _shape_of(path))
        name = path.relative_to(root).as_posix()
        time = next((t for t in ("prior", "recent") if t in name.lower()), "")
        woman = "/".join(part for part in name.split("/")[:-1] if part.lower() not in ("prior", "recent"))
        yield (
            path,
            ImageTruth(
                image_id=name,
                patient_id=woman,
                case_id=time,
                view="MLO" if "mlo" in path.stem.lower() else "CC" if "cc" in path.stem.lower() else "",
                spots=spots,
                marks=marks,
                positive=len(spots) + len(marks) > 0,
                tags={"medium": "digital", "time": time},
            ),
        )


def _bare(path: Path) -> str:
    return re.sub(r"[^a-z0-9]", "", path.stem.lower())


def _kios_marks(picture: Path, shape: tuple[int, int]) -> tuple[Spots, tuple[Mark, ...]]:
    drawn = cv2.imread(str(picture), cv2.IMREAD_COLOR)
    if drawn is None:
        raise ReadError(f"{picture} is no readable picture: it should show the marks of the image beside it")
    blue, green, red = (drawn[..., i].astype(int) for i in range(3))
    is_red, is_blue = red - np.maximum(green, blue) > 80, blue - np.maximum(green, red) > 80
    scale = np.array(shape) / drawn.shape[:2]
    dots = (_centers_of_dots(is_red) + 0.5) * scale - 0.5
    marks = []
    for (row, col), radius in _circles(is_blue, is_red):
        center = (np.array([row, col]) + 0.5) * scale - 0.5
        marks.append(Mark.circle(center[0], center[1], radius * math.sqrt(scale[0] * scale[1])))
    return Spots.blank(len(dots), row_px=dots[:, 0], col_px=dots[:, 1], confidence=np.ones(len(dots))), tuple(marks)


def _circles(is_line: NDArray[np.bool_], is_dot: NDArray[np.bool_]) -> Iterator[tuple[tuple[float, float], float]]:
    """Yield (row, col) and radius of each drawn circle; dots that lie on a line close the gaps that they make in it."""
    drawn = cv2.dilate((is_line | is_dot).astype(np.uint8), np.ones((5, 5), np.uint8))
    labels = np.asarray(cv2.connectedComponents(drawn, connectivity=8)[1])
    points = np.argwhere(is_line)
    for number in np.unique(labels[is_line]):
        line = points[labels[is_line] == number]
        # fewer are colour that ran
        if len(line) >= 20:
            center, radius = cv2.minEnclosingCircle(line.astype(np.float32))
            yield (center[0], center[1]), radius


def _centers_of_dots(mask: NDArray[np.bool_]) -> Floats:
    """Return the (row, col) centres of discs of one size, those that touch told apart by their depth."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    if count == 1:
        return np.empty((0, 2))
    deepest = np.zeros(count)
    np.maximum.at(deepest, np.asarray(labels, np.intp), depth[1:-1, 1:-1])
    # between two that touch it is shallow, and so is colour that ran
    core = depth[1:-1, 1:-1] >= max(1.0, 0.75 * float(np.median(deepest[1:])))
    _, _, _, centers = cv2.connectedComponentsWithStats(core.astype(np.uint8), connectivity=8)
    return np.asarray(centers[1:, ::-1], float)


# --------------------------------------------------------------------------------------------------------------
# what the readers share


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise ReadError(f"{path} is missing") from error


def _first_part(path: str) -> str:
    return path.strip().split("/")[0]


def _dicoms_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("**/*.dcm"))


@contextmanager
def _opened(path: Path) -> Iterator[DicomFile]:
    """Open a DICOM file whatever it shows; errors name the file."""
    with path.open("rb") as file:
        try:
            yield open_dicom(file)
        except ReadError as error:
            raise type(error)(f"{path}: {error}") from error


def _pixels_of(path: Path) -> NDArray[Any]:
    with _opened(path) as dicom:
        return read_frame(dicom, find_format(dicom, ReadSettings()), 0)


def _shape_of(path: Path) -> tuple[int, int]:
    with _opened(path) as dicom:
        return dicom.header.integer("Rows", 0), dicom.header.integer("Columns", 0)


# --------------------------------------------------------------------------------------------------------------
# all of them


class Reader(Protocol):
    """Yields each image of a set with what is known of it."""

    def __call__(self, root: Path, /, *, skip_missing: bool = False) -> Images:
        """Read the set whose folder, or table, is given."""
        ...


@dataclass(frozen=True)
class DataSet:
    """What there is to know of a set before using it.

    Attributes
    ----------
    title, licence, source, citation : str
        Where to obtain it, and under which terms.
    truth : str
        What is marked.
    positive : str
        What the image-level label means.
    usual_spacing_mm : float or None
        To be taken where the files state none and the set does not define it.
    read : Reader
    """

    title: str
    licence: str
    source: str
    citation: str
    truth: str
    positive: str
    usual_spacing_mm: float | None
    read: Reader


DATASETS: Mapping[str, DataSet] = {
    "inbreast": DataSet(
        "INbreast",
        "agreement with its makers; research only, not to be passed on",
        "on request from the Breast Research Group, INESC Porto",
        "Moreira 2012, doi 10.1016/j.acra.2011.09.014",
        "outlines and points of single calcifications, outlines of clusters",
        "a calcification or cluster is marked",
        _INBREAST_MM,
        read_inbreast,
    ),
    "cbis-ddsm": DataSet(
        "CBIS-DDSM, calcifications",
        "CC BY 3.0",
        "The Cancer Imaging Archive, collection CBIS-DDSM (full images and ROI masks)",
        "Lee 2017, doi 10.1038/sdata.2017.177; data doi 10.7937/K9/TCIA.2016.7O02S9CY",
        "masks of groups with form, distribution and pathology",
        "all images are positive",
        0.0435,
        read_cbis_ddsm,
    ),
    "mini-mias": DataSet(
        "mini-MIAS",
        "research only, not to be passed on",
        "peipa.essex.ac.uk, mini-MIAS database",
        "Suckling 1994, Excerpta Medica International Congress Series 1069, 375-378",
        "circles round groups",
        "class CALC; negative: class NORM",
        0.2,
        read_mini_mias,
    ),
    "vindr-mammo": DataSet(
        "VinDr-Mammo",
        "PhysioNet Restricted Health Data License 1.5.0; agreement, research only",
        "PhysioNet, project vindr-mammo",
        "Nguyen 2023, doi 10.1038/s41597-023-02100-7; data doi 10.13026/br2v-7517",
        "boxes round suspicious calcifications; benign ones are not marked",
        "a suspicious calcification is marked; negative images may show benign ones",
        None,
        read_vindr,
    ),
    "cmmd": DataSet(
        "CMMD, Chinese Mammography Database",
        "CC BY 4.0",
        "The Cancer Imaging Archive, collection CMMD",
        "Cui 2021, data doi 10.7937/tcia.eqde-4b16",
        "none; labels for each breast",
        "the breast's label is calcification or both; negative: mass",
        None,
        read_cmmd,
    ),
    "kios": DataSet(
        "KIOS pairs of sequential mammograms",
        "CC BY 4.0",
        "Zenodo, record 5036062",
        "Loizidou 2021, data doi 10.5281/zenodo.5036062",
        "every calcification as a dot, groups as circles, drawn into pictures by two radiologists",
        "a dot or circle is drawn",
        None,
        read_kios,
    ),
    "marks": DataSet(
        "a user's own marks",
        "the user's",
        "a CSV table with the columns of detector.evaluate.marks.MARK_COLUMNS",
        "",
        "spots, groups, ignored zones, reference masks",
        "a spot or group is marked, or the row says somewhere; negative: none",
        None,
        read_marks,
    ),
}
"""The sets that can be read, by the name that commands take."""


def read_dataset(name: str, path: Path, *, skip_missing: bool = False) -> Images:
    """Read a set by its name in `DATASETS`.

    Raises
    ------
    SettingsError
        If there is no set of this name.
    ReadError
        As the reader of the set.
    """
    if name not in DATASETS:
        raise SettingsError(f"there is no data set {name!r}: choose one of {', '.join(DATASETS)}")
    return DATASETS[name].read(path, skip_missing=skip_missing)
