"""What is known of an image beforehand, and what a program found in it: the two sides that scoring compares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.errors import NoPixelSpacing
from detector.records import Clusters, Kind, Outlines, Reading, Spots

Floats = NDArray[np.float64]
Points = NDArray[np.float32]

MACRO_WIDTH_MM = 1.0
"""Width from which an outlined calcification is macro (BI-RADS, 5th edition)."""

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

    def grid(self, step_px: Floats, spacing_mm: tuple[float, float]) -> NDArray[np.int64]:
        """Return the points inside of a grid through pixel (0, 0), in steps, shape (n, 2)."""
        reach = np.array([self.radius_px] * 2)
        corners = np.array([self.center_px - reach, self.center_px + reach]) if self.is_circle else self.outline_px
        low, high = np.floor(corners.min(axis=0) / step_px), np.ceil(corners.max(axis=0) / step_px)
        rows, cols = (np.arange(a, b + 1, dtype=np.int64) for a, b in zip(low, high, strict=True))
        points = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
        return np.asarray(points[self.contains(points * step_px, spacing_mm)], np.int64)

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

    def with_reference(self, reference: Reading) -> Self:
        """Return the truth with pixel size and breast outline of a Reading where the set defines none.

        Make one reference an image, store it (`detector.evaluate.marks.write_marks`), and take it for all methods.
        """
        outline = reference.breast_outline
        breast = Mark.outline(outline) if self.breast is None and len(outline) else self.breast
        return replace(self, breast=breast, spacing_mm=self.spacing_mm or reference.identity.spacing_mm)

    def breast_area_cm2(self, *, without_ignored: bool = True) -> float:
        """Return the area of the reference mask, less that of the ignored zones in it; NaN without a mask."""
        if self.breast is None:
            return math.nan
        area_mm2 = self.breast.area_mm2(self.pixel_size_mm)
        if without_ignored and self.ignored:
            # counted on a grid of a quarter of a millimetre, where the zones are
            step = 0.25 / np.array(self.pixel_size_mm)
            grids = [mark.grid(step, self.pixel_size_mm) for mark in self.ignored]
            grid = np.unique(np.concatenate(grids), axis=0) * step
            area_mm2 -= 0.25**2 * float(self.breast.contains(grid, self.pixel_size_mm).sum())
        return area_mm2 / 100


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


def spots_of_outlines(outlines: Sequence[Points], spacing_mm: tuple[float, float] | None) -> tuple[Spots, Outlines]:
    """Return calcifications drawn as outlines, or as single points, as a table with what is known of their sizes.

    Parameters
    ----------
    outlines : sequence of ndarray, shape (n, 2)
        (row, col) vertices in px; one or two are a point.
    spacing_mm : tuple of float or None
        Without it nothing has a size.

    Returns
    -------
    spots : Spots
        Length and width are those of the smallest rectangle; a width of 1 mm or more is macro.
    outlines : Outlines
        Empty for points.
    """
    marks = [Mark.outline(o) for o in outlines]
    scale = spacing_mm or (math.nan, math.nan)
    boxes = [cv2.minAreaRect((o * np.array(spacing_mm or 1.0)).astype(np.float32))[1] for o in outlines]
    sides = np.sort(np.array(boxes, float).reshape(-1, 2), axis=1)
    area = np.array([m.area_mm2(scale) for m in marks])
    has_size = np.array([len(o) > 2 for o in outlines], bool) & (area > 0)
    known = {"diameter_mm": 2 * np.sqrt(area / math.pi), "area_mm2": area}
    known |= {"length_mm": sides[:, 1], "width_mm": sides[:, 0]}
    kind = np.where(sides[:, 0] >= MACRO_WIDTH_MM, Kind.MACRO, Kind.MICRO)
    centers = np.array([m.center_px for m in marks]).reshape(-1, 2)
    spots = Spots.blank(
        len(marks),
        spot_id=np.arange(1, len(marks) + 1),
        row_px=centers[:, 0],
        col_px=centers[:, 1],
        kind=np.where(has_size, kind, Kind.UNKNOWN),
        confidence=np.ones(len(marks)),
        **{name: np.where(has_size, values, np.nan) for name, values in known.items()},
    )
    return spots, Outlines.of([o if len(o) > 2 else o[:0] for o in outlines])
