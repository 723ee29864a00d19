"""What is known of an image beforehand, and what a program found in it: the two sides that scoring compares."""

from __future__ import annotations

import csv
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.errors import NoPixelSpacing, ReadError
from detector.records import WORDS, Clusters, Column, Outlines, Reading, Spots, Table, words_of_flags

Floats = NDArray[np.float64]
_AnyTable = TypeVar("_AnyTable", bound=Table)

_NO_OUTLINE = np.empty((0, 2), np.float32)


@dataclass(frozen=True, eq=False)
class Mark:
    """A marked area: a circle, or a closed outline.

    Attributes
    ----------
    center_px : tuple of float
        (row, col); of an outline its centroid.
    radius_px : float
        Of a circle; NaN for an outline.
    outline_px : ndarray of float32, shape (n, 2)
        (row, col) vertices; empty for a circle.
    lesion : str
        Same in all views of one lesion; empty if the set does not say.
    form, distribution : str
        Words for what it holds, several joined by ``|``.
    malignant : bool or None
        Pathology, None if unknown.
    """

    center_px: tuple[float, float]
    radius_px: float = math.nan
    outline_px: NDArray[np.float32] = field(default_factory=lambda: _NO_OUTLINE)
    lesion: str = ""
    form: str = ""
    distribution: str = ""
    malignant: bool | None = None

    @classmethod
    def circle(cls, row_px: float, col_px: float, radius_px: float, **words: Any) -> Self:
        """Return a circle."""
        return cls((float(row_px), float(col_px)), float(radius_px), **words)

    @classmethod
    def outline(cls, vertices_px: ArrayLike, **words: Any) -> Self:
        """Return a closed outline of (row, col) vertices, at least one."""
        vertices = np.array(vertices_px, np.float32).reshape(-1, 2)
        vertices.flags.writeable = False
        return cls(_centroid(vertices.astype(float)), outline_px=vertices, **words)

    @classmethod
    def box(cls, corner_px: tuple[float, float], opposite_px: tuple[float, float], **words: Any) -> Self:
        """Return an upright rectangle between two opposite (row, col) corners."""
        (top, left), (bottom, right) = corner_px, opposite_px
        return cls.outline([(top, left), (top, right), (bottom, right), (bottom, left)], **words)

    @property
    def is_circle(self) -> bool:
        """True if it is a circle."""
        return len(self.outline_px) == 0

    def area_mm2(self, spacing_mm: tuple[float, float], margin_mm: float = 0.0, least_radius_mm: float = 0.0) -> float:
        """Return its area, an outline grown by a margin (exact for a convex one, Steiner's formula)."""
        if self.is_circle:
            return math.pi * max(self._radius_mm(spacing_mm), least_radius_mm) ** 2
        vertices = self.outline_px * np.array(spacing_mm)
        perimeter = float(np.hypot(*(vertices - np.roll(vertices, 1, axis=0)).T).sum())
        return abs(_signed_area(vertices)) + perimeter * margin_mm + math.pi * margin_mm**2

    def contains(
        self,
        points_px: ArrayLike,
        spacing_mm: tuple[float, float],
        margin_mm: float = 0.0,
        least_radius_mm: float = 0.0,
    ) -> NDArray[np.bool_]:
        """Tell which points lie inside.

        Parameters
        ----------
        points_px : array of float, shape (n, 2)
            (row, col).
        spacing_mm : tuple of float
        margin_mm : float
            How far an outline is grown.
        least_radius_mm : float
            Smallest radius that a circle is given.

        Returns
        -------
        ndarray of bool, shape (n,)
        """
        scale = np.array(spacing_mm)
        points = np.asarray(points_px, float).reshape(-1, 2) * scale
        if self.is_circle:
            distance = np.hypot(*(points - np.array(self.center_px) * scale).T)
            return np.asarray(distance <= max(self._radius_mm(spacing_mm), least_radius_mm))
        outline = self.outline_px * scale
        return inside_outline(points, outline) | (distance_to_outline(points, outline) <= margin_mm)

    def _radius_mm(self, spacing_mm: tuple[float, float]) -> float:
        return self.radius_px * math.sqrt(spacing_mm[0] * spacing_mm[1])


@dataclass(frozen=True, eq=False)
class ImageTruth:
    """What is known of one image.

    Attributes
    ----------
    image_id : str
        Path of the image below the root of its set, with ``/``; the key that findings are joined by.
    patient_id, case_id : str
        Whom it shows (the unit of resampling) and in which examination; made-up keys, never a patient's own number.
    side, view : str
        As in `Identity`, empty if unknown.
    spots : Spots
        Single calcifications; of the columns at least the place is filled, sizes are NaN where the set has points only.
    spot_outlines : Outlines
        One a row of `spots`, empty ones where there is only a point; or none at all.
    marks : tuple of Mark
        Groups.
    ignored : tuple of Mark
        Zones that count neither way, marked before any scoring.
    breast : Mark or None
        Outline of the reference mask, breast with pectoral muscle and skin: the one area for all methods.
    spacing_mm : tuple of float or None
        None if the set does not define it.
    positive : bool or None
        The set's image-level label, None if it gives none for this image.
    located : bool
        False if only labels are known: the image counts for image-level scores alone.
    tags : mapping of str
        What the image can be grouped by: ``medium`` (film, digital), ``split``, ...
    """

    image_id: str
    patient_id: str
    case_id: str = ""
    side: str = ""
    view: str = ""
    spots: Spots = field(default_factory=Spots.empty)
    spot_outlines: Outlines = field(default_factory=Outlines.empty)
    marks: tuple[Mark, ...] = ()
    ignored: tuple[Mark, ...] = ()
    breast: Mark | None = None
    spacing_mm: tuple[float, float] | None = None
    positive: bool | None = None
    located: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_tables(cls, image_id: str, patient_id: str, spots: Spots, clusters: Clusters, **known: Any) -> Self:
        """Return the truth of a phantom or of an image with inserted calcifications.

        Parameters
        ----------
        image_id, patient_id : str
        spots : Spots
        clusters : Clusters
            Each becomes a mark, the convex hull of its spots; its form is their prevailing word.
        **known
            Any other field. Without `positive`, the image is positive if it holds a cluster.
        """
        known = {"positive": len(clusters) > 0} | known
        return cls(image_id, patient_id, spots=spots, marks=marks_of_clusters(spots, clusters), **known)

    @property
    def pixel_size_mm(self) -> tuple[float, float]:
        """Spacing in mm.

        Raises
        ------
        NoPixelSpacing
            If the set does not define it and nobody filled it in.
        """
        if self.spacing_mm is None:
            raise NoPixelSpacing(f"{self.image_id}: the data set states no pixel size; fill in spacing_mm of its truth")
        return self.spacing_mm

    def breast_area_cm2(self, *, without_ignored: bool = True) -> float:
        """Return the area of the reference mask, less that of the ignored zones in it; NaN without a mask."""
        if self.breast is None:
            return math.nan
        area_cm2 = self.breast.area_mm2(self.pixel_size_mm) / 100
        if not (without_ignored and self.ignored):
            return area_cm2
        rows, cols = (
            np.arange(v.min(), v.max(), 0.25 / s)
            for v, s in zip(self.breast.outline_px.T, self.pixel_size_mm, strict=True)
        )
        grid = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
        grid = grid[self.breast.contains(grid, self.pixel_size_mm)]
        return area_cm2 * float(1 - in_any(self.ignored, grid, self.pixel_size_mm).mean())


@dataclass(frozen=True, eq=False)
class Findings:
    """What a program found in one image: tables of which the place and `confidence` are filled, the rest as known.

    `spot_outlines` and `cluster_outlines` hold one outline a row, or none at all.
    """

    spots: Spots = field(default_factory=Spots.empty)
    clusters: Clusters = field(default_factory=Clusters.empty)
    spot_outlines: Outlines = field(default_factory=Outlines.empty)
    cluster_outlines: Outlines = field(default_factory=Outlines.empty)

    @classmethod
    def of_reading(cls, reading: Reading) -> Self:
        """Return what a Reading holds."""
        return cls(reading.spots, reading.clusters, reading.spot_outlines, reading.cluster_outlines)


Pair = tuple[ImageTruth, Findings]


# --------------------------------------------------------------------------------------------------------------
# geometry, on (n, 2) arrays of one unit


def in_any(marks: Iterable[Mark], points_px: ArrayLike, spacing_mm: tuple[float, float]) -> NDArray[np.bool_]:
    """Tell which (row, col) points lie in at least one of the marks."""
    points = np.asarray(points_px, float).reshape(-1, 2)
    inside = np.zeros(len(points), bool)
    for mark in marks:
        inside |= mark.contains(points, spacing_mm)
    return inside


def places_of(table: Spots | Clusters) -> Floats:
    """Return the (row, col) of each row in px, shape (n, 2)."""
    return np.column_stack([table.row_px, table.col_px])


def inside_outline(points: Floats, outline: Floats) -> NDArray[np.bool_]:
    """Tell which points lie inside a closed outline (even-odd rule)."""
    if len(outline) < 3 or len(points) == 0:
        return np.zeros(len(points), bool)
    inside = np.zeros(len(points), bool)
    # one pass an edge keeps memory at the number of points, which may be a whole grid
    for (r0, c0), (r1, c1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if r0 == r1:
            continue
        crosses = (points[:, 0] < r0) != (points[:, 0] < r1)
        inside ^= crosses & (points[:, 1] < c0 + (points[:, 0] - r0) * (c1 - c0) / (r1 - r0))
    return inside


def distance_to_outline(points: Floats, outline: Floats, edges: NDArray[np.bool_] | None = None) -> Floats:
    """Return the distance of each point to the nearest edge of a closed outline; infinite if it has none.

    Parameters
    ----------
    points, outline : ndarray of float64, shape (n, 2), (m, 2)
    edges : ndarray of bool, shape (m,), optional
        Which edges count; edge i runs from vertex i to the next.
    """
    nearest = np.full(len(points), np.inf)
    ends = np.roll(outline, -1, axis=0)
    chosen = slice(None) if edges is None else edges
    for start, end in zip(outline[chosen], ends[chosen], strict=True):
        along = end - start
        share = np.clip((points - start) @ along / max(float(along @ along), 1e-300), 0, 1)
        nearest = np.minimum(nearest, np.hypot(*(points - start - share[:, None] * along).T))
    return nearest


def _signed_area(outline: Floats) -> float:
    row, col = outline.T
    return float((row * np.roll(col, -1) - np.roll(row, -1) * col).sum() / 2)


def _centroid(outline: Floats) -> tuple[float, float]:
    """Return the centroid of the enclosed area, or the mean of the vertices where that has none."""
    middle = outline.mean(axis=0)
    shifted = outline - middle
    following = np.roll(shifted, -1, axis=0)
    cross = shifted[:, 0] * following[:, 1] - following[:, 0] * shifted[:, 1]
    if abs(cross.sum()) > 1e-9:
        middle = middle + ((shifted + following) * cross[:, None]).sum(axis=0) / (3 * cross.sum())
    return float(middle[0]), float(middle[1])


def marks_of_clusters(spots: Spots, clusters: Clusters) -> tuple[Mark, ...]:
    """Return each cluster that has spots as a mark: the convex hull of them."""
    places, marks = places_of(spots).astype(np.float32), []
    for number, form, distribution in zip(
        clusters.cluster_id, clusters.words("morphology"), clusters.words("distribution"), strict=True
    ):
        members = places[spots.cluster_id == number]
        if len(members):
            hull = cv2.convexHull(members).reshape(-1, 2)
            marks.append(Mark.outline(hull, lesion=str(number), form=form, distribution=distribution))
    return tuple(marks)


# --------------------------------------------------------------------------------------------------------------
# tables of other programs


def read_findings(path: Path, *, image_ids: Mapping[str, str] | None = None) -> dict[str, Findings]:
    """Read what a program found, ours or another.

    Parameters
    ----------
    path : Path
        A folder with ``spots.csv``, ``clusters.csv`` or both, or one such file. Needed are the columns ``image_id``,
        ``row_px``, ``col_px`` and ``confidence``; further columns of these tables are taken where present. If the
        folder holds ``images.csv`` (as a run leaves it), its ``path`` replaces the ``image_id``.
    image_ids : mapping of str, optional
        New names for what the files call ``image_id``.

    Returns
    -------
    dict
        `Findings` by image id.

    Raises
    ------
    ReadError
        If there is no such file, or a needed column or number is missing.
    """
    folder = path if path.is_dir() else path.parent
    files = [folder / n for n in ("spots.csv", "clusters.csv") if (folder / n).is_file()] if path.is_dir() else [path]
    if not files:
        raise ReadError(
            f"{path} holds neither spots.csv nor clusters.csv: give the folder or the file with the findings"
        )
    names = dict(image_ids or {})
    if not names and (folder / "images.csv").is_file():
        names = {row["image_id"]: row["path"] for row in read_rows(folder / "images.csv", ("image_id", "path"))}
    found: dict[str, Findings] = {name: Findings() for name in names.values()}
    for file in files:
        rows = read_rows(file, ("image_id", "row_px", "col_px", "confidence"))
        of_clusters = (
            bool(rows) and "spot_id" not in rows[0] and ("suspicion" in rows[0] or file.name == "clusters.csv")
        )
        for image_id, group in _grouped(rows, names).items():
            old = found.get(image_id, Findings())
            found[image_id] = (
                Findings(old.spots, table_of_rows(Clusters, group, file))
                if of_clusters
                else Findings(table_of_rows(Spots, group, file), old.clusters)
            )
    return found


def join(truths: Iterable[ImageTruth], findings: Mapping[str, Findings]) -> list[Pair]:
    """Put findings beside the truth of their image; an image without a row is one in which nothing was found.

    Raises
    ------
    ReadError
        If findings belong to no image of the set.
    """
    pairs = [(t, findings.get(t.image_id, Findings())) for t in truths]
    known = {t.image_id for t, _ in pairs}
    strangers = sorted(set(findings) - known)
    if strangers:
        example = sorted(known)[0] if known else "none"
        raise ReadError(
            f"findings name {len(strangers)} images that the data set does not hold ({strangers[0]!r}): "
            f"their image_id must be that of the set, for example {example!r}"
        )
    return pairs


def read_rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV as one mapping a row, cells stripped.

    Raises
    ------
    ReadError
        If the file is missing, is not UTF-8, or lacks a needed column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [n for n in needed if n not in (reader.fieldnames or ())]
            if missing:
                raise ReadError(f"{path} lacks the column {missing[0]!r}")
            return [{k: (v or "").strip() for k, v in row.items() if k is not None} for row in reader]
    except FileNotFoundError as error:
        raise ReadError(f"{path} is missing") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ReadError(f"{path} is no CSV in UTF-8: {error}") from error


def table_of_rows(table: type[_AnyTable], rows: Sequence[Mapping[str, str]], path: Path) -> _AnyTable:
    """Return rows of text as a table; columns that the rows lack are left blank, empty cells are NaN, 0 or none.

    Raises
    ------
    ReadError
        If a cell is no number or no known word, or the place or the confidence of a row is empty.
    """
    values: dict[str, ArrayLike] = {}
    for column in table.columns():
        if not rows or column.name not in rows[0]:
            continue
        try:
            values[column.name] = _parsed([row[column.name] for row in rows], column)
        except (KeyError, ValueError, OverflowError) as error:
            raise ReadError(f"{path}: column {column.name} holds what is no value of it: {error}") from error
    result = table.blank(len(rows), **values)
    for name in ("row_px", "col_px", "confidence"):
        if name in values and not np.isfinite(getattr(result, name)).all():
            raise ReadError(f"{path}: column {name} must hold a number in every row")
    return result


def _parsed(cells: list[str], column: Column) -> ArrayLike:
    if column.codes is not None and issubclass(column.codes, enum.IntFlag):
        bits = {words_of_flags(flag): int(flag) for flag in column.codes}
        return np.array([sum(bits[w] for w in cell.split("|") if w) for cell in cells], column.dtype)
    if column.codes is not None:
        codes = {word: int(code) for code, word in WORDS[column.codes].items()} | {"": 0}
        return np.array([codes[cell] for cell in cells], column.dtype)
    if column.dtype == "U":
        return np.array(cells, "U")
    if column.dtype == "?":
        return np.array(
            [{"true": True, "1": True, "false": False, "0": False, "": False}[cell.lower()] for cell in cells]
        )
    numbers = np.array([cell or ("nan" if column.dtype[0] == "f" else "0") for cell in cells]).astype(float)
    return numbers.astype(column.dtype)


def _grouped(rows: Sequence[dict[str, str]], names: Mapping[str, str]) -> dict[str, list[dict[str, str]]]:
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(names.get(row["image_id"], row["image_id"]), []).append(row)
    return groups
