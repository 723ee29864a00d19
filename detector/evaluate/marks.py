"""A user's own marks as one table: spots, groups, ignored zones and reference masks of his images, without pixels."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.errors import ExportError, ReadError
from detector.evaluate.tables import grouped, is_there, read_rows, table_of_rows
from detector.evaluate.truth import ImageTruth, Mark, Points, spots_of_outlines
from detector.records import Kind, Outlines, Spots

MARK_COLUMNS: Mapping[str, str] = {
    "path": "image file, relative to the folder of this table (needed)",
    "mark": "spot: one calcification; group: a group; ignore: a zone that counts neither way; breast: the outline of "
    "the reference mask; none: the image shows no calcification; somewhere: it shows some, place unknown (needed)",
    "row_px": "row of the centre, pixel centres at integers",
    "col_px": "column of the centre",
    "diameter_mm": "of a spot",
    "radius_px": "of a circle: group, ignore",
    "outline_px": "instead of centre and radius: 'row col;row col;...'",
    "kind": "of a spot: micro, macro or empty",
    "morphology": "form word of BI-RADS, or empty",
    "snr": "of a spot: height over the noise",
    "lesion": "of a group: the same in all views of one lesion",
    "malignant": "of a group: true, false or empty",
    "spacing_mm": "pixel size, if the file does not state it",
    "patient_id": "key of the woman; default: the image is a woman of its own",
    "case_id": "key of the examination",
    "side": "L or R",
    "view": "CC, MLO, ...",
    "medium": "film or digital",
}
"""Columns of the table that a user writes for his own images; only two are needed."""

_MARKS = ("spot", "group", "ignore", "breast", "none", "somewhere")
_HEAD = ("patient_id", "case_id", "side", "view", "medium", "spacing_mm")
_STATED = ("diameter_mm", "kind", "morphology", "snr")


def read_marks(path: Path, *, skip_missing: bool = False) -> Iterator[tuple[Path, ImageTruth]]:
    """Read a table of a user's own marks, with the columns of `MARK_COLUMNS`, one mark a row.

    Parameters
    ----------
    path : Path
    skip_missing : bool
        Pass over listed images that are not there.

    Raises
    ------
    ReadError
        If the table or a listed image is missing, or a row cannot be understood.
    """
    for name, rows in grouped((r["path"], r) for r in read_rows(path, ("path", "mark"))).items():
        image = path.parent / name
        if is_there(image, skip_missing=skip_missing):
            yield image, _truth_of_rows(name, rows, path)


def add_zones(images: Iterable[tuple[Path, ImageTruth]], path: Path) -> Iterator[tuple[Path, ImageTruth]]:
    """Add the ignored zones and reference masks of a table of marks, whose ``path`` is the `image_id`, to another set.

    Raises
    ------
    ReadError
        If a row of the table cannot be understood.
    """
    rows = grouped((r["path"], r) for r in read_rows(path, ("path", "mark")))
    zones = {name: _truth_of_rows(name, listed, path) for name, listed in rows.items()}
    for image, truth in images:
        more = zones.get(truth.image_id, truth)
        ignored = truth.ignored if more is truth else truth.ignored + more.ignored
        yield image, replace(truth, ignored=ignored, breast=more.breast or truth.breast)


def write_marks(path: Path, truths: Iterable[ImageTruth]) -> None:
    """Write truths as the table that `read_marks` reads; coordinates to a hundredth of a pixel.

    Raises
    ------
    ExportError
        If the file cannot be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(MARK_COLUMNS), restval="")
            writer.writeheader()
            for truth in truths:
                writer.writerows(_rows_of_truth(truth))
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from error


def _rows_of_truth(truth: ImageTruth) -> list[dict[str, str]]:
    spacing = f"{math.sqrt(math.prod(truth.spacing_mm)):.6g}" if truth.spacing_mm else ""
    head = {"path": truth.image_id, "patient_id": truth.patient_id, "case_id": truth.case_id, "spacing_mm": spacing}
    head |= {"side": truth.side, "view": truth.view, "medium": truth.tags.get("medium", "")}
    named = [("group", m) for m in truth.marks] + [("ignore", m) for m in truth.ignored]
    rows = _rows_of_spots(truth) + [_row_of_mark(n, m) for n, m in named]
    if truth.breast is not None:
        rows.append(_row_of_mark("breast", truth.breast))
    if truth.positive is False:
        rows.append({"mark": "none"})
    if truth.positive and not truth.located:
        rows.append({"mark": "somewhere"})
    return [head | row for row in rows]


def _rows_of_spots(truth: ImageTruth) -> list[dict[str, str]]:
    spots, rows = truth.spots, []
    for i, (kind, form) in enumerate(zip(spots.words("kind"), spots.words("morphology"), strict=True)):
        row = {"mark": "spot", "kind": kind, "morphology": form}
        row |= {"row_px": f"{spots.row_px[i]:.2f}", "col_px": f"{spots.col_px[i]:.2f}"}
        sizes = {"diameter_mm": float(spots.diameter_mm[i]), "snr": float(spots.snr[i])}
        row |= {name: f"{size:.6g}" for name, size in sizes.items() if math.isfinite(size)}
        outline = truth.spot_outlines[i] if len(truth.spot_outlines) else ()
        rows.append(row | ({"outline_px": _outline_text(outline)} if len(outline) else {}))
    return rows


def _row_of_mark(name: str, mark: Mark) -> dict[str, str]:
    row = {"mark": name, "morphology": mark.form, "lesion": mark.lesion}
    row["malignant"] = "" if mark.malignant is None else str(mark.malignant).lower()
    if not mark.is_circle:
        return row | {"outline_px": _outline_text(mark.outline_px)}
    center = {"row_px": f"{mark.center_px[0]:.2f}", "col_px": f"{mark.center_px[1]:.2f}"}
    return row | center | {"radius_px": f"{mark.radius_px:.2f}"}


def _outline_text(outline: Iterable[Sequence[float]] | Points) -> str:
    return ";".join(f"{row:.2f} {col:.2f}" for row, col in outline)


def _truth_of_rows(name: str, rows: Sequence[dict[str, str]], path: Path) -> ImageTruth:
    by_mark: dict[str, list[dict[str, str]]] = {m: [] for m in _MARKS}
    for row in rows:
        if row["mark"] not in by_mark:
            raise ReadError(f"{path}: {name} has a mark {row['mark']!r}; it must be one of {', '.join(_MARKS)}")
        by_mark[row["mark"]].append(row)
    head = {k: next((r[k] for r in rows if r.get(k)), "") for k in _HEAD}
    try:
        spacing = (float(head["spacing_mm"]), float(head["spacing_mm"])) if head["spacing_mm"] else None
        spots, outlines = _spots_of_rows(by_mark["spot"], spacing, path)
        marks, ignored, breast = (tuple(_mark_of_row(r) for r in by_mark[m]) for m in ("group", "ignore", "breast"))
    except (ValueError, KeyError) as error:
        raise ReadError(f"{path}: a mark of {name} cannot be understood: {error}") from error
    is_shown = bool(by_mark["spot"] or by_mark["group"] or by_mark["somewhere"])
    return ImageTruth(
        image_id=name,
        patient_id=head["patient_id"] or name,
        case_id=head["case_id"],
        side=head["side"],
        view=head["view"],
        spots=spots,
        spot_outlines=outlines,
        marks=marks,
        ignored=ignored,
        breast=breast[0] if breast else None,
        spacing_mm=spacing,
        positive=is_shown or (False if by_mark["none"] else None),
        located=not by_mark["somewhere"],
        tags={"medium": head["medium"]},
    )


def _spots_of_rows(
    rows: Sequence[dict[str, str]], spacing_mm: tuple[float, float] | None, path: Path
) -> tuple[Spots, Outlines]:
    spots, outlines = spots_of_outlines([_points_of_row(r) for r in rows], spacing_mm)
    stated = table_of_rows(Spots, [{k: v for k, v in r.items() if k in _STATED} for r in rows], path)
    diameter = np.where(np.isnan(stated.diameter_mm), spots.diameter_mm, stated.diameter_mm)
    kind = np.where(stated.kind == Kind.UNKNOWN, spots.kind, stated.kind)
    return spots.replace(diameter_mm=diameter, kind=kind, morphology=stated.morphology, snr=stated.snr), outlines


def _mark_of_row(row: Mapping[str, str]) -> Mark:
    words: dict[str, Any] = {"lesion": row.get("lesion", ""), "form": row.get("morphology", "")}
    words["malignant"] = {"true": True, "false": False, "": None}[row.get("malignant", "").lower()]
    points = _points_of_row(row)
    if row.get("outline_px"):
        return Mark.outline(points, **words)
    return Mark.circle(points[0, 0], points[0, 1], float(row["radius_px"]), **words)


def _points_of_row(row: Mapping[str, str]) -> Points:
    text = row.get("outline_px", "")
    pairs = text.split(";") if text else [f"{row['row_px']} {row['col_px']}"]
    return np.array([[float(v) for v in pair.split()] for pair in pairs if pair.strip()], np.float32).reshape(-1, 2)
