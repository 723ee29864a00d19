"""What passes between the rooms: frozen records of read-only arrays, and tables of equally long columns.

Positions are (row, col) in pixels of the stored, unflipped image, pixel centres at integers.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

FloatImage = NDArray[np.float32]
StepImage = NDArray[np.int16]
BoolImage = NDArray[np.bool_]
_Item = TypeVar("_Item", bound=np.generic)

SCHEMA_VERSION = 1


# --------------------------------------------------------------------------------------------------------------
# words


class Kind(enum.IntEnum):
    """Macro or micro, by width (DOMAIN rules: 1.0 mm, or a smooth rod of 0.5 mm)."""

    UNKNOWN = 0
    MICRO = 1
    MACRO = 2


class Shape(enum.IntEnum):
    """What a spot looks like, told from its outline alone."""

    UNRESOLVED = 0
    DOT = 1
    DASH = 2
    IRREGULAR = 3
    BRANCHING = 4
    RIM = 5


class Morphology(enum.IntEnum):
    """Form words of BI-RADS (5th edition), of a spot or of a cluster; NONE where no word is due."""

    NONE = 0
    SKIN = 1
    VASCULAR = 2
    COARSE = 3
    LARGE_ROD_LIKE = 4
    ROUND = 5
    PUNCTATE = 6
    RIM = 7
    DYSTROPHIC = 8
    MILK_OF_CALCIUM = 9
    SUTURE = 10
    AMORPHOUS = 11
    COARSE_HETEROGENEOUS = 12
    FINE_PLEOMORPHIC = 13
    FINE_LINEAR = 14
    FINE_LINEAR_BRANCHING = 15


THIN_MM = 0.5
"""Width of the stroke under which a line is thin (BI-RADS 5th edition: fine linear)."""

LINE_MM = 1.0
"""Length from which a thin form is a line."""

EDGE_MM = 0.12
"""Distance from an outline at which the fall across it is read: more than the blur of common systems, 0.05 to 0.1."""

STRIP_ROWS = 64
"""Rows of a picture that are looked through together, so that all steps find them in the processor's cache: a quarter
of a megabyte to one."""

LINEAR_FORMS = (Morphology.FINE_LINEAR, Morphology.FINE_LINEAR_BRANCHING)
"""Forms of thin lines, which fill ducts."""

BENIGN_FORMS = (
    Morphology.SKIN,
    Morphology.VASCULAR,
    Morphology.COARSE,
    Morphology.LARGE_ROD_LIKE,
    Morphology.ROUND,
    Morphology.RIM,
    Morphology.DYSTROPHIC,
    Morphology.MILK_OF_CALCIUM,
    Morphology.SUTURE,
)
"""Forms that tell a macrocalcification as benign: it raises no flag, and its form says more than that it is one."""


class Distribution(enum.IntEnum):
    """How the spots of a cluster lie in the breast (BI-RADS, 5th edition)."""

    NONE = 0
    DIFFUSE = 1
    REGIONAL = 2
    GROUPED = 3
    LINEAR = 4
    SEGMENTAL = 5


class Suggestion(enum.IntEnum):
    """What a flagged cluster is handed to the radiologist with."""

    NONE = 0
    CLOSER_VIEWS = 1
    COMPARE = 2
    BENIGN_FORM = 3


class Flag(enum.IntFlag):
    """What else is to be known of a spot; this class is the one registry of the bits and their words."""

    NEAR_SKIN = 1
    IN_PECTORAL = 2
    NEAR_EDGE = 4
    SIZE_IS_UPPER_BOUND = 8
    POSSIBLE_DUST = 32  # 16 means nothing
    POSSIBLE_STRAND = 64
    SATURATED = 128
    OUTLINE_CUT = 256


class Zone(enum.IntFlag):
    """What a place of the image is, as found by the room `breast`."""

    BREAST = 1
    PECTORAL = 2
    SKIN = 4
    EDGE = 8
    CUT = 16
    """Along padding, film edges and collimation inside the picture: nothing is looked for there."""


class SpacingSource(enum.StrEnum):
    """Where the pixel size comes from, in order of trust."""

    CALIBRATED = "pixel (calibrated)"
    MAGNIFICATION = "imager/magnification"
    DISTANCES = "imager/distances"
    IMAGER = "imager (not corrected)"
    SCANNED = "scanned"
    UNCALIBRATED = "pixel (uncalibrated)"
    GIVEN = "given"


WORDS: Mapping[type[enum.IntEnum], Mapping[int, str]] = {
    Kind: {k: k.name.lower() for k in Kind},
    Shape: {s: s.name.lower() for s in Shape},
    Morphology: {
        m: "" if m is Morphology.NONE else m.name.lower().replace("_", " ").replace("rod like", "rod-like")
        for m in Morphology
    },
    Distribution: {d: "" if d is Distribution.NONE else d.name.lower() for d in Distribution},
    Suggestion: {
        Suggestion.NONE: "",
        Suggestion.CLOSER_VIEWS: "closer views",
        Suggestion.COMPARE: "compare with earlier images",
        Suggestion.BENIGN_FORM: "benign form, radiologist to confirm",
    },
}
"""The words that tables and pictures show for the codes of a column."""


def words_of_flags(flags: int) -> str:
    """Return the words of a bit field of `Flag`, joined by ``|``, lowest bit first."""
    return "|".join(str(f.name).lower().replace("_", " ") for f in Flag if flags & f)


# --------------------------------------------------------------------------------------------------------------
# tables


@dataclass(frozen=True)
class Column:
    """What a column of a table is: its dtype, unit, the room that writes it, its meaning, its code book."""

    name: str
    dtype: str
    unit: str
    room: str
    meaning: str
    codes: type[enum.IntEnum] | type[enum.IntFlag] | None = None

    def checked(self, values: ArrayLike) -> NDArray[Any]:
        """Return values as a column: one-dimensional, of its dtype, read-only."""
        column = np.array(values, dtype=self.dtype, copy=None)
        if column.ndim != 1:
            raise ValueError(f"column {self.name} must be one-dimensional, not {column.ndim}-dimensional")
        return _read_only(column) if column.flags.writeable else column


def _column(
    dtype: str, unit: str, room: str, meaning: str, codes: type[enum.IntEnum] | type[enum.IntFlag] | None = None
) -> Any:
    return field(metadata={"column": (dtype, unit, room, meaning, codes)})


@dataclass(frozen=True, eq=False)
class Table:
    """Equally long, read-only, one-dimensional columns; the base of `Spots`, `Clusters` and the others.

    Raises
    ------
    ValueError
        If a column is not one-dimensional, or the columns differ in length.
    """

    def __post_init__(self) -> None:
        lengths = set()
        for column in self.columns():
            values = column.checked(getattr(self, column.name))
            object.__setattr__(self, column.name, values)
            lengths.add(len(values))
        if len(lengths) > 1:
            raise ValueError(f"columns of {type(self).__name__} differ in length: {sorted(lengths)}")

    @classmethod
    def columns(cls) -> tuple[Column, ...]:
        """Return the schema: one `Column` a field, in order."""
        # the tables cannot be hashed, their classes can
        return _columns_of(cls)  # type: ignore[arg-type]

    @classmethod
    def empty(cls) -> Self:
        """Return a table of no rows with the same schema."""
        return cls(**{c.name: np.empty(0, c.dtype) for c in cls.columns()})

    @classmethod
    def concatenate(cls, tables: Sequence[Self]) -> Self:
        """Return the rows of several tables, in their order."""
        if not tables:
            return cls.empty()
        return cls._of_checked({c.name: np.concatenate([getattr(t, c.name) for t in tables]) for c in cls.columns()})

    @classmethod
    def blank(cls, n_rows: int, **known: ArrayLike) -> Self:
        """Return `n_rows` rows with the `known` columns filled and all others at zero, NaN or empty text."""
        blank: dict[str, ArrayLike] = {
            c.name: np.full(n_rows, np.nan, c.dtype) if c.dtype[0] == "f" else np.zeros(n_rows, c.dtype)
            for c in cls.columns()
            if c.name not in known
        }
        return cls(**(blank | known))

    def __len__(self) -> int:
        return len(getattr(self, self.columns()[0].name))

    def __getitem__(self, rows: ArrayLike | slice) -> Self:
        """Return the rows chosen by a slice, a mask or an array of row numbers, kept together."""
        if isinstance(rows, slice):
            return self._of_checked({c.name: getattr(self, c.name)[rows] for c in self.columns()})
        chosen = np.atleast_1d(np.asarray(rows))
        if chosen.dtype == bool:
            # once for all columns
            chosen = np.arange(len(self))[chosen]
        elif chosen.size == 0:
            chosen = chosen.astype(np.intp)
        return self._of_checked({c.name: getattr(self, c.name).take(chosen) for c in self.columns()})

    @classmethod
    def _of_checked(cls, values: dict[str, NDArray[Any]]) -> Self:
        """Return a table of columns made of those of other tables, which need no check."""
        table = object.__new__(cls)
        for name, column in values.items():
            column.flags.writeable = False
            object.__setattr__(table, name, column)
        return table

    def replace(self, **columns: ArrayLike) -> Self:
        """Return a copy in which the named columns are replaced."""
        table = object.__new__(type(self))
        table.__dict__.update(self.__dict__)
        for column in self.columns():
            if column.name in columns:
                # the others need no check
                values = column.checked(columns.pop(column.name))
                if len(values) != len(self):
                    raise ValueError(
                        f"column {column.name} of {type(self).__name__} has {len(values)} rows, not {len(self)}"
                    )
                object.__setattr__(table, column.name, values)
        if columns:
            raise TypeError(f"{type(self).__name__} has no column {', '.join(columns)}")
        return table

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, c.name), getattr(other, c.name), equal_nan=c.dtype[0] == "f")
            for c in self.columns()
        )

    __hash__ = None  # type: ignore[assignment]

    def words(self, name: str) -> list[str]:
        """Return the words of a coded column, one a row."""
        column = next(c for c in self.columns() if c.name == name)
        values = getattr(self, name).tolist()
        if column.codes is None:
            return [str(v) for v in values]
        if issubclass(column.codes, enum.IntFlag):
            return [words_of_flags(v) for v in values]
        book = WORDS[column.codes]
        return [book[v] for v in values]

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas DataFrame with words for coded columns."""
        import pandas as pd

        return pd.DataFrame({c.name: self.words(c.name) if c.codes else getattr(self, c.name) for c in self.columns()})

    def to_lists(self) -> dict[str, list[Any]]:
        """Return plain lists, one a column; NaN becomes None, so that JSON holds them."""
        lists: dict[str, list[Any]] = {}
        for c in self.columns():
            values = getattr(self, c.name)
            lists[c.name] = [None if v != v else v for v in values.tolist()] if c.dtype[0] == "f" else values.tolist()
        return lists

    @classmethod
    def from_lists(cls, lists: Mapping[str, Sequence[Any]]) -> Self:
        """Return the table that `to_lists` wrote."""
        return cls(
            **{
                c.name: np.array([np.nan if v is None else v for v in lists[c.name]], dtype=c.dtype)
                if c.dtype[0] == "f"
                else np.array(lists[c.name], dtype=c.dtype)
                for c in cls.columns()
            }
        )


@functools.cache
def _columns_of(table: type[Table]) -> tuple[Column, ...]:
    return tuple(Column(f.name, *f.metadata["column"]) for f in dataclasses.fields(table))


@dataclass(frozen=True, eq=False)
class Peaks(Table):
    """Maxima of the blob detector's responses: what candidates are chosen from."""

    row_px: NDArray[np.float64] = _column("f8", "px", "detect", "row of the response's peak")
    col_px: NDArray[np.float64] = _column("f8", "px", "detect", "column of the response's peak")
    scale_mm: NDArray[np.float64] = _column("f8", "mm", "detect", "standard deviation of the best matching Gaussian")
    response_sigma: NDArray[np.float64] = _column("f8", "sigma", "detect", "blob response at the peak, in noise units")
    level: NDArray[np.int32] = _column("i4", "", "detect", "level of the pyramid that it was found on; 0 is finest")


@dataclass(frozen=True, eq=False)
class Seeds(Peaks):
    """Candidates: where the blob detector saw something, and how it stands out from its surroundings."""

    top: NDArray[np.float64] = _column("f8", "", "detect", "grey level at the peak in steps")
    noise: NDArray[np.float64] = _column("f8", "", "detect", "noise of a pixel there in steps")
    height: NDArray[np.float64] = _column("f8", "", "detect", "steps of grey from the surroundings to the peak")
    threshold: NDArray[np.float64] = _column(
        "f8", "", "detect", "grey level of the outline in steps, at the peak's place"
    )
    tilt_row: NDArray[np.float64] = _column("f8", "", "detect", "change of that level from row to row")
    tilt_col: NDArray[np.float64] = _column("f8", "", "detect", "change of that level from column to column")
    edge: NDArray[np.float64] = _column("f8", "", "detect", "fall across the border of coarse ones, in steps of grey")
    cut: NDArray[np.bool_] = _column("?", "", "detect", "the outline was cut off by the search window")

    @classmethod
    def at(cls, peaks: Peaks, **known: ArrayLike) -> Self:
        """Return candidates at peaks, with the `known` columns filled."""
        return cls.blank(len(peaks), **{c.name: getattr(peaks, c.name) for c in Peaks.columns()}, **known)

    def level_at(self, rows: NDArray[np.integer], row_px: NDArray[Any], col_px: NDArray[Any]) -> NDArray[np.float64]:
        """Return the outline's grey level of some rows of the table at places in pixels of the whole image."""
        d_row, d_col = row_px - self.row_px[rows], col_px - self.col_px[rows]
        return np.asarray(self.threshold[rows] + self.tilt_row[rows] * d_row + self.tilt_col[rows] * d_col, np.float64)


@dataclass(frozen=True, eq=False)
class Spots(Table):
    """Bright spots, one a row: what `spots.csv` holds."""

    spot_id: NDArray[np.int32] = _column("i4", "", "measure", "number of the spot within the image, from 1")
    row_px: NDArray[np.float64] = _column("f8", "px", "measure", "row of the centroid; pixel centres at integers")
    col_px: NDArray[np.float64] = _column("f8", "px", "measure", "column of the centroid; pixel centres at integers")
    row_mm: NDArray[np.float64] = _column("f8", "mm", "measure", "row of the centroid in the breast plane")
    col_mm: NDArray[np.float64] = _column("f8", "mm", "measure", "column of the centroid in the breast plane")
    diameter_mm: NDArray[np.float64] = _column("f8", "mm", "measure", "diameter of the circle of equal area")
    length_mm: NDArray[np.float64] = _column("f8", "mm", "measure", "largest caliper of the outline at half height")
    width_mm: NDArray[np.float64] = _column("f8", "mm", "measure", "smallest caliper of the outline at half height")
    area_mm2: NDArray[np.float64] = _column("f8", "mm2", "measure", "area inside the outline at half height")
    contrast: NDArray[np.float64] = _column(
        "f8",
        "",
        "measure",
        "height over the surroundings as a share of the breast's range of grey levels (1st to 99th percentile)",
    )
    snr: NDArray[np.float64] = _column("f8", "sigma", "measure", "height over the surroundings in local noise units")
    eccentricity: NDArray[np.float64] = _column(
        "f8", "", "measure", "of the ellipse of equal second moments; 0 is a circle"
    )
    solidity: NDArray[np.float64] = _column("f8", "", "measure", "area as a share of the convex hull's area")
    circularity: NDArray[np.float64] = _column(
        "f8", "", "measure", "4 pi area by the outline's length squared; 1 is a disc"
    )
    hole_share: NDArray[np.float64] = _column("f8", "", "measure", "share of the outlined area that is a lucent centre")
    orientation_deg: NDArray[np.float64] = _column(
        "f8", "deg", "measure", "direction of the long axis, from the column axis towards larger rows, 0 to 180"
    )
    skin_distance_mm: NDArray[np.float64] = _column("f8", "mm", "measure", "distance to the skin line")
    shape: NDArray[np.int8] = _column("i1", "", "classify", "dot, dash, irregular, branching, rim, unresolved", Shape)
    kind: NDArray[np.int8] = _column("i1", "", "classify", "micro, macro or unknown", Kind)
    morphology: NDArray[np.int8] = _column("i1", "", "classify", "form word of BI-RADS, or empty", Morphology)
    confidence: NDArray[np.float64] = _column("f8", "", "classify", "that the spot is calcium, from 0 to 1")
    flags: NDArray[np.int32] = _column(
        "i4", "", "classify", "what else is to be known (with outline cut sizes are the least), words joined by |", Flag
    )
    cluster_id: NDArray[np.int32] = _column(
        "i4", "", "cluster", "cluster that the spot belongs to; 0 (in files: empty) is none"
    )

    @property
    def aspect(self) -> NDArray[np.float64]:
        """Length by width."""
        return np.asarray(self.length_mm / np.maximum(self.width_mm, 1e-9), np.float64)

    @property
    def stroke_mm(self) -> NDArray[np.float64]:
        """Width of the rod with round ends that has the spot's area and outline: of a line, bent or branched, how wide
        its stroke is; a disc has its diameter.
        """
        perimeter = np.sqrt(4 * np.pi * self.area_mm2 / np.maximum(self.circularity, 1e-9))
        return np.asarray(perimeter / np.pi * (1 - np.sqrt(np.maximum(1 - self.circularity, 0))), np.float64)


@dataclass(frozen=True, eq=False)
class Clusters(Table):
    """Groups of spots, one a row: what `clusters.csv` holds."""

    cluster_id: NDArray[np.int32] = _column("i4", "", "cluster", "number of the cluster within the image, from 1")
    row_px: NDArray[np.float64] = _column("f8", "px", "cluster", "row of the spots' mean place")
    col_px: NDArray[np.float64] = _column("f8", "px", "cluster", "column of the spots' mean place")
    n_spots: NDArray[np.int32] = _column("i4", "", "cluster", "number of spots")
    n_irregular: NDArray[np.int32] = _column(
        "i4", "", "cluster", "how many of them are irregular, branching or thin dashes"
    )
    n_unresolved: NDArray[np.int32] = _column("i4", "", "cluster", "how many are too small for a shape word")
    n_macro: NDArray[np.int32] = _column("i4", "", "cluster", "how many are macrocalcifications")
    n_thin: NDArray[np.int32] = _column("i4", "", "cluster", "how many are thin lines or branching, under 0.5 mm wide")
    extent_mm: NDArray[np.float64] = _column("f8", "mm", "cluster", "largest distance between two of its spots")
    area_mm2: NDArray[np.float64] = _column("f8", "mm2", "cluster", "area of the spots' convex hull grown by 0.5 mm")
    density_per_cm2: NDArray[np.float64] = _column("f8", "1/cm2", "cluster", "spots by that area")
    nearest_mm: NDArray[np.float64] = _column(
        "f8", "mm", "cluster", "mean distance from a spot to its nearest neighbour"
    )
    size_cv: NDArray[np.float64] = _column("f8", "", "cluster", "spread of the diameters: standard deviation by mean")
    shape_irregularity: NDArray[np.float64] = _column(
        "f8", "", "cluster", "share of the resolved spots that are irregular, from 0 to 1"
    )
    elongation: NDArray[np.float64] = _column(
        "f8", "", "cluster", "spread across by spread along, from 0 (line) to 1 (round)"
    )
    distribution: NDArray[np.int8] = _column(
        "i1", "", "cluster", "diffuse, regional, grouped, linear, segmental", Distribution
    )
    morphology: NDArray[np.int8] = _column(
        "i1", "", "cluster", "prevailing form word of its spots, or empty", Morphology
    )
    confidence: NDArray[np.float64] = _column(
        "f8", "", "cluster", "that it is a group of real calcifications, from 0 to 1"
    )
    suspicion: NDArray[np.float64] = _column("f8", "", "assess", "ranking score from 0 to 1; not a probability")
    review: NDArray[np.bool_] = _column("?", "", "assess", "flagged for a radiologist's look")
    reasons: NDArray[np.str_] = _column("U", "", "assess", "why, in plain words joined by |")
    suggestion: NDArray[np.int8] = _column("i1", "", "assess", "what to do next, or empty", Suggestion)


# --------------------------------------------------------------------------------------------------------------
# records


def _read_only(array: NDArray[_Item]) -> NDArray[_Item]:
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class Window:
    """How stored values become grey levels in a picture, and in nothing else.

    Either `center` and `width` in the units of `Mammogram.pixels` with a `function` (LINEAR, LINEAR_EXACT or SIGMOID),
    or a lookup: `table_values` at the pixel values `table_levels` (both 1-D, levels rising).
    `inverted` says that large pixel values are shown dark.
    """

    center: float = 0.0
    width: float = 1.0
    function: str = "LINEAR"
    table_levels: tuple[float, ...] = ()
    table_values: tuple[float, ...] = ()
    inverted: bool = False


@dataclass(frozen=True)
class Identity:
    """Which image it is, without the patient: what `images.csv` says of a source file."""

    image_id: str
    path: str = ""
    sha256: str = ""
    sop_class_uid: str = ""
    study_uid: str = ""
    frame: int = 0
    n_frames: int = 1
    study_date: str = ""
    side: str = ""
    view: str = ""
    view_modifiers: tuple[str, ...] = ()
    patient_orientation: tuple[str, ...] = ()
    presentation_intent: str = ""
    exposure_id: str = ""
    rows: int = 0
    cols: int = 0
    spacing_mm: tuple[float, float] = (0.0, 0.0)
    spacing_source: str = ""
    sizes_known: bool = True
    magnification_factor: float | None = None
    manufacturer: str = ""
    model: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Mammogram:
    """One image as the rooms see it; holds no DICOM object.

    Attributes
    ----------
    pixels : ndarray of float32, shape (rows, cols)
        Stored values after rescale, bright = dense tissue; read-only.
    identity : Identity
        Side, view, spacing in the breast plane, where it came from.
    window : Window or None
        The file's own VOI for pictures; None takes a robust window.
    padding : ndarray of bool, shape (rows, cols), or None
        True where the file says that no image is.
    """

    pixels: FloatImage
    identity: Identity
    window: Window | None = None
    padding: BoolImage | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or self.pixels.dtype != np.float32:
            raise ValueError(f"pixels must be a float32 image, not {self.pixels.dtype} of shape {self.pixels.shape}")
        object.__setattr__(self, "pixels", _read_only(self.pixels))
        if self.padding is not None:
            if self.padding.shape != self.pixels.shape or self.padding.dtype != np.bool_:
                raise ValueError("padding must be a bool image of the shape of pixels")
            object.__setattr__(self, "padding", _read_only(self.padding))

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Distance of pixel centres in mm between rows and between columns."""
        return self.identity.spacing_mm

    @property
    def pixel_mm(self) -> float:
        """Geometric mean of the two spacings, in mm."""
        return float(np.sqrt(self.spacing_mm[0] * self.spacing_mm[1]))

    def __repr__(self) -> str:
        rows, cols = self.pixels.shape
        return f"Mammogram({_named(self.identity)}, {rows} x {cols} pixels of {self.pixel_mm:g} mm)"

    def _repr_html_(self) -> str:
        """Return a picture and a small table, for notebooks."""
        return str(_display().mammogram_html(self))


@dataclass(frozen=True)
class Box:
    """Half-open rectangle of pixels."""

    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in the whole image."""
        return slice(self.row_start, self.row_stop), slice(self.col_start, self.col_stop)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the box."""
        return self.row_stop - self.row_start, self.col_stop - self.col_start


@dataclass(frozen=True, eq=False)
class BreastRegion:
    """What of the image is breast, on a grid of `step_px` pixels a cell.

    Attributes
    ----------
    zones : ndarray of uint8, shape (ceil(rows / step_px), ceil(cols / step_px))
        Bits of `Zone`; zero is outside the breast.
    skin_distance_mm : ndarray of float32, same shape
        Distance to the skin line (not to the image border), 0 outside.
    step_px : int
        Side of a cell in pixels.
    box : Box
        Bounding box of the breast in pixels.
    outline, pectoral_outline : ndarray of float32, shape (n, 2)
        (row, col) in px; empty if there is none.
    nipple : tuple of (row_px, col_px, confidence) or None
    chest_wall : str
        Side of the image that the chest wall is on: "left", "right" or "" if not found.
    area_cm2 : float
    grey_range : tuple of float
        1st and 99th percentile of the breast's pixels.
    """

    zones: NDArray[np.uint8]
    skin_distance_mm: FloatImage
    step_px: int
    box: Box
    outline: NDArray[np.float32]
    pectoral_outline: NDArray[np.float32]
    nipple: tuple[float, float, float] | None
    chest_wall: str
    area_cm2: float
    grey_range: tuple[float, float]

    def __post_init__(self) -> None:
        for name in ("zones", "skin_distance_mm", "outline", "pectoral_outline"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    @property
    def is_empty(self) -> bool:
        """True if no breast was found."""
        return self.area_cm2 == 0.0

    @functools.cached_property
    def is_searched(self) -> BoolImage:
        """Cells in which calcifications are looked for: breast that no film's edge or collimation cuts."""
        return _read_only((self.zones & (Zone.BREAST | Zone.CUT)) == Zone.BREAST)

    def cells(
        self, row_px: NDArray[np.floating], col_px: NDArray[np.floating]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the cells of `zones` that places in pixels lie in."""
        row = np.clip(np.rint(row_px).astype(np.int64) // self.step_px, 0, self.zones.shape[0] - 1)
        col = np.clip(np.rint(col_px).astype(np.int64) // self.step_px, 0, self.zones.shape[1] - 1)
        return row, col


class GreySteps(NamedTuple):
    """Grey levels as whole numbers: a number of steps of `size` grey levels of the mammogram, from `start` on."""

    start: float
    size: float

    def grey(self, steps: NDArray[Any]) -> NDArray[Any]:
        """Return the grey levels of the mammogram that stand at so many steps."""
        return steps * self.size + self.start


class Buffers:
    """Memory for the largest pictures of one image that serves the next one again: fresh memory costs its zeroing.

    Each name has room of its own, as large as it was ever asked for. What is handed out holds what was left there, and
    is overwritten when its name is asked for again: so one image at a time, and only where nothing but a Reading is
    kept of it.
    """

    def __init__(self) -> None:
        self._rooms: dict[str, NDArray[np.uint8]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array of any content.

        Parameters
        ----------
        name : str
        shape : tuple of int
        dtype : dtype

        Returns
        -------
        ndarray of `dtype`, of that shape
        """
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        room = self._rooms.get(name)
        if room is None or len(room) < n_bytes:
            room = self._rooms[name] = np.empty(n_bytes, np.uint8)
        return room[:n_bytes].view(dtype).reshape(shape)


@dataclass(frozen=True, eq=False)
class Level:
    """One level of the pyramid over the breast's box.

    A cell of the level covers `step_px` pixels a side; its (row, col) lies at pixel
    ``origin_px + step_px * (row, col)``.

    Attributes
    ----------
    image : ndarray of int16, shape (rows, cols)
        Smoothed grey levels in steps (`GreySteps`); none is negative.
    tophat : ndarray of int16, shape (rows, cols)
        White top-hat: the image less its background, which is its opening.
    """

    image: StepImage
    tophat: StepImage
    step_px: int
    origin_px: tuple[float, float]

    def __post_init__(self) -> None:
        for name in ("image", "tophat"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    def background_at(self, row: NDArray[np.intp], col: NDArray[np.intp]) -> StepImage:
        """Return the background in cells of the level."""
        return np.asarray(self.image[row, col] - self.tophat[row, col], np.int16)

    def sample(self, row_px: NDArray[np.floating], col_px: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the image at places in pixels of the whole image, any shape, by bilinear interpolation."""
        return self.sample_cells(Places.at(self.to_cells(row_px, 0), self.to_cells(col_px, 1)))

    def sample_cells(self, places: Places) -> NDArray[np.float32]:
        """Return the image at places in cells of the level, by bilinear interpolation."""
        # none is negative, and OpenCV reads unsigned numbers three times as fast
        return places.bilinear(self.image.view(np.uint16))

    def to_cells(self, place_px: NDArray[np.floating], axis: int) -> NDArray[np.float64]:
        """Return rows (axis 0) or columns (axis 1) of the level for places in pixels of the whole image."""
        return (place_px - self.origin_px[axis]) / self.step_px


class Places:
    """Places in an image, all of one shape, laid out as OpenCV wants them: `row` and `col` are to be filled first.

    Those outside of the image take its border's value.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        n = math.prod(shape)
        # OpenCV takes maps of fewer than 32,768 rows and columns
        self._maps = np.empty((2, -(-n // _MAP_WIDTH) * _MAP_WIDTH), np.float32)
        self._maps[:, n:] = 0
        self.col, self.row = (places[:n].reshape(shape) for places in self._maps)

    def bilinear(self, image: _AnyImage) -> NDArray[np.float32]:
        """Return the image between its pixels.

        The same as `scipy.ndimage.map_coordinates` of order 1 in mode nearest but for OpenCV's steps of 1/32 pixel, and
        several times as fast.
        """
        return self._sampled(image, nearest=False)

    def nearest(self, image: _AnyImage) -> NDArray[np.float32]:
        """Return the image's nearest pixels: in half the time and less."""
        return self._sampled(image, nearest=True)

    def _sampled(self, image: _AnyImage, *, nearest: bool) -> NDArray[np.float32]:
        if not self.row.size:
            return np.empty(self.row.shape, np.float32)
        import cv2

        x, y = self._maps.reshape(2, -1, _MAP_WIDTH)
        interpolation = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        sampled = cv2.remap(image, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(sampled, np.float32).ravel()[: self.row.size].reshape(self.row.shape)

    @classmethod
    def at(cls, row: NDArray[np.floating], col: NDArray[np.floating]) -> Places:
        """Return the places of given rows and columns, whose shapes broadcast."""
        places = cls(np.broadcast_shapes(row.shape, col.shape))
        places.row[...], places.col[...] = row, col
        return places


_AnyImage = FloatImage | StepImage | NDArray[np.uint16]
_MAP_WIDTH = 1024

NINE_ROWS, NINE_COLS = np.indices((3, 3)).reshape(2, 9) - 1
"""Rows and columns of a place and its eight neighbours, from that place."""


def ranges(first: NDArray[np.integer], count: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return, one behind another, the `count` numbers from each of `first` on."""
    return np.asarray(np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count), np.intp)


def divided(number: NDArray[np.int32], by: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return quotient and remainder; the slow equivalent is `numpy.divmod`."""
    quotient = number // np.int32(by)
    return quotient, number - quotient * np.int32(by)


class Moments(NamedTuple):
    """Means and central second moments of the places of several owners, each of shape (n,)."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    yy: NDArray[np.float64]
    xx: NDArray[np.float64]
    xy: NDArray[np.float64]

    @classmethod
    def of(cls, y: NDArray[Any], x: NDArray[Any], owner: NDArray[np.integer], n: int) -> Moments:
        """Return the moments of places, each of which belongs to one of `n` owners; all have some."""
        count = np.bincount(owner, minlength=n)
        mean_y, mean_x = (np.bincount(owner, place, n) / count for place in (y, x))
        dy, dx = y - mean_y[owner], x - mean_x[owner]
        yy, xx, xy = (np.bincount(owner, product, n) / count for product in (dy * dy, dx * dx, dx * dy))
        return cls(mean_y, mean_x, yy, xx, xy)

    def along_axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the largest and the smallest second moment over all directions."""
        root = np.sqrt((self.xx - self.yy) ** 2 + 4 * self.xy**2)
        return (self.xx + self.yy + root) / 2, np.maximum((self.xx + self.yy - root) / 2, 0)


class Where(NamedTuple):
    """Places in an image: the grey level around each, and where it lies on the cells of `Detail`, of any one shape."""

    grey: NDArray[np.float32]
    row: NDArray[np.float64]
    col: NDArray[np.float64]


_NOISE_STEPS = 1024
"""Even steps of grey that noise is read in, some forty to each grey level that it is known at."""


@dataclass(frozen=True, eq=False)
class Noise:
    """How far values scatter over noise and texture: a function of the grey level times a factor of the place.

    Attributes
    ----------
    grey : ndarray of float64, shape (n,)
        Grey levels, rising; each stands for as much of the breast.
    sigma : ndarray of float64, shape (n,)
        Standard deviation at each of them.
    factor : ndarray of float32
        On the cells of `Detail`.
    """

    grey: NDArray[np.float64]
    sigma: NDArray[np.float64]
    factor: FloatImage

    def __post_init__(self) -> None:
        for name in ("grey", "sigma", "factor"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    def at(self, where: Where) -> NDArray[np.float64]:
        """Return the standard deviation at places, in their shape."""
        factor = Places.at(where.row, where.col).nearest(self.factor)
        return np.asarray(self._by_step.take(self._number(where.grey, 0.5), mode="clip") * factor, np.float64)

    def at_least(self, darkest: FloatImage | None) -> NDArray[np.float64]:
        """Return what the standard deviation is at least: in each cell of `Detail` by its darkest grey, or anywhere.

        The shape is that of the cells, or (1, 1).
        """
        if darkest is None:
            return np.full((1, 1), self.sigma.min() * float(self.factor.min()))
        lowest = np.minimum.accumulate(self._by_step[::-1])[::-1]
        return np.asarray(lowest.take(self._number(darkest, 0.0), mode="clip") * self.factor, np.float64)

    def _number(self, grey: FloatImage, rounding: float) -> NDArray[np.int64]:
        """Return which of the even steps grey levels lie on."""
        step = max((self.grey[-1] - self.grey[0]) / (_NOISE_STEPS - 1), 1e-12)
        return ((grey - np.float32(self.grey[0])) * np.float32(1 / step) + np.float32(rounding)).astype(np.int64)

    @functools.cached_property
    def _by_step(self) -> NDArray[np.float64]:
        """`sigma` at even steps of grey, which are found without a search; the slow equivalent is `numpy.interp`."""
        return _read_only(np.interp(np.linspace(self.grey[0], self.grey[-1], _NOISE_STEPS), self.grey, self.sigma))


@dataclass(frozen=True, eq=False)
class Band:
    """Response to blobs of one scale: difference of two Gaussians of a level, and the noise in it.

    Attributes
    ----------
    scale_mm : float
        Standard deviation of the inner Gaussian.
    level : int
        Index of the level in `Detail.levels`.
    response : ndarray of int16, shape of the level
        In steps of grey.
    noise : Noise
        Of the response.
    """

    scale_mm: float
    level: int
    response: StepImage
    noise: Noise

    def __post_init__(self) -> None:
        object.__setattr__(self, "response", _read_only(self.response))


@dataclass(frozen=True, eq=False)
class Detail:
    """The image without its background, at several scales, with the noise of each.

    `noise` is that of the finest image's pixels against others 0.3 mm away. `grey_level` is the number of the level
    that noise reads the grey level from. On cells of `cell_px` pixels a side of the padded box, `coherence` is how
    strongly, from 0 to 1, the surroundings run in one direction. Grey levels, heights and noise are all in `steps`.
    `image_shape` is that of the whole image.
    """

    levels: tuple[Level, ...]
    bands: tuple[Band, ...]
    noise: Noise
    grey_level: int
    coherence: FloatImage
    steps: GreySteps
    cell_px: int
    pixel_mm: float
    box: Box
    image_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "coherence", _read_only(self.coherence))

    def where(self, row_px: NDArray[np.floating], col_px: NDArray[np.floating]) -> Where:
        """Return what `Noise.at` asks of places in pixels of the whole image."""
        middle = (self.cell_px - 1) / 2
        return Where(
            self.levels[self.grey_level].sample(row_px, col_px),
            (row_px - self.box.row_start - middle) / self.cell_px,
            (col_px - self.box.col_start - middle) / self.cell_px,
        )

    @functools.cached_property
    def darkest(self) -> FloatImage:
        """Darkest grey level that `where` tells of any place in each cell."""
        import cv2

        level = self.levels[self.grey_level]
        (rows, cols), n = self.noise.factor.shape, self.cell_px // level.step_px
        # places between cells of the level are told from both
        around = np.asarray(cv2.erode(level.image, np.ones((3, 3), np.uint8)))
        # minima along short axes take several times as long
        by_row = np.minimum.reduce([around[first::n] for first in range(n)])
        darkest: StepImage = np.minimum.reduce([by_row[:, first::n] for first in range(n)])
        return darkest.reshape(rows, cols).astype(np.float32)

    def noise_at(self, row_px: NDArray[np.floating], col_px: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the noise of the finest image's pixels at places in pixels of the whole image."""
        return self.noise.at(self.where(row_px, col_px))


@dataclass(frozen=True, eq=False)
class Marks:
    """Candidates, and the pixels that belong to each.

    Attributes
    ----------
    labels : ndarray of uint16 (uint32 where there are too many), shape of the padded box
        Row + 1 of `seeds`, 0 elsewhere; the outermost pixels are always 0.
    pixels : ndarray of int32
        Flat indices of all that are not 0, rising.
    seeds : Seeds
    box : Box
    """

    labels: NDArray[np.unsignedinteger[Any]]
    pixels: NDArray[np.int32]
    seeds: Seeds
    box: Box

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", _read_only(self.labels))
        object.__setattr__(self, "pixels", _read_only(self.pixels))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the judge looks at: a matrix of float32, one row a spot, one named column a feature; NaN is unknown."""

    names: tuple[str, ...]
    values: FloatImage

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise ValueError("evidence needs one name a column")
        object.__setattr__(self, "values", _read_only(self.values))

    def column(self, name: str) -> FloatImage:
        """Return one feature of all spots."""
        return self.values[:, self.names.index(name)]


@dataclass(frozen=True, eq=False)
class Outlines:
    """Closed outlines of spots or clusters: one flat array of vertices with offsets.

    `vertices_px` is float32 of shape (n, 2), (row, col); outline i is ``vertices_px[offsets[i]:offsets[i + 1]]``.
    """

    vertices_px: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        vertices = np.asarray(self.vertices_px, np.float32).reshape(-1, 2)
        offsets = np.asarray(self.offsets, np.int64)
        if offsets.ndim != 1 or len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(vertices):
            raise ValueError("offsets must run from 0 to the number of vertices")
        object.__setattr__(self, "vertices_px", _read_only(vertices))
        object.__setattr__(self, "offsets", _read_only(offsets))

    @classmethod
    def empty(cls) -> Self:
        """Return no outlines."""
        return cls(np.empty((0, 2), np.float32), np.zeros(1, np.int64))

    @classmethod
    def of(cls, outlines: Sequence[NDArray[np.floating]]) -> Self:
        """Return the outlines of a list of (n, 2) arrays."""
        offsets = np.concatenate([[0], np.cumsum([len(o) for o in outlines], dtype=np.int64)])
        return cls(np.concatenate([*outlines, np.empty((0, 2))]).astype(np.float32), offsets.astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, index: NDArray[Any]) -> Outlines: ...
    def __getitem__(self, index: int | NDArray[Any]) -> NDArray[np.float32] | Outlines:
        if isinstance(index, np.ndarray):
            rows = np.arange(len(self))[index]
            length = np.diff(self.offsets)[rows]
            vertices = ranges(self.offsets[rows], length)
            return Outlines(self.vertices_px[vertices], np.append(0, np.cumsum(length)))
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.vertices_px[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[i] for i in range(len(self)))

    def to_lists(self) -> dict[str, list[Any]]:
        """Return plain lists, vertices rounded to a hundredth of a pixel."""
        return {
            "vertices_px": [[round(r, 2), round(c, 2)] for r, c in self.vertices_px.tolist()],
            "offsets": self.offsets.tolist(),
        }

    @classmethod
    def from_lists(cls, lists: Mapping[str, Sequence[Any]]) -> Self:
        """Return the outlines that `to_lists` wrote."""
        return cls(np.array(lists["vertices_px"], np.float32).reshape(-1, 2), np.array(lists["offsets"], np.int64))


@dataclass(frozen=True, eq=False)
class Reading:
    """What was found in one image; holds no pixels.

    Attributes
    ----------
    identity : Identity
    spots : Spots
        Every candidate whose confidence is over the floor.
    clusters : Clusters
        Groups at the operating point of `settings`.
    spot_outlines, cluster_outlines : Outlines
        One a row of `spots` and of `clusters`.
    breast_outline, pectoral_outline : ndarray of float32, shape (n, 2)
    nipple : tuple of (row_px, col_px, confidence) or None
    chest_wall : str
    breast_area_cm2 : float
    grey_range : tuple of float
    quality : str
        ``good``, or words joined by ``|`` that say what limits the reading.
    settings : mapping
        All settings, a mapping a room.
    versions : mapping
        Package, libraries, model.
    seconds : mapping
        Time of each room; not part of the JSON.
    """

    identity: Identity
    spots: Spots
    clusters: Clusters
    spot_outlines: Outlines
    cluster_outlines: Outlines
    breast_outline: NDArray[np.float32]
    pectoral_outline: NDArray[np.float32]
    nipple: tuple[float, float, float] | None
    chest_wall: str
    breast_area_cm2: float
    grey_range: tuple[float, float]
    quality: str
    settings: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    seconds: Mapping[str, float] = field(default_factory=dict)

    _tables: ClassVar[Mapping[str, type[Table]]] = {"spots": Spots, "clusters": Clusters}

    def to_json(self) -> str:
        """Return the whole Reading as JSON; the same Reading gives the same text."""
        out: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "identity": dataclasses.asdict(self.identity)}
        for name in ("spots", "clusters", "spot_outlines", "cluster_outlines"):
            out[name] = getattr(self, name).to_lists()
        for name in ("breast_outline", "pectoral_outline"):
            out[name] = [[round(r, 2), round(c, 2)] for r, c in getattr(self, name).tolist()]
        for name in ("nipple", "chest_wall", "breast_area_cm2", "grey_range", "quality", "settings", "versions"):
            out[name] = getattr(self, name)
        return json.dumps(out, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the Reading that `to_json` wrote.

        Raises
        ------
        ValueError
            If the text is no Reading of this schema version.
        """
        data = json.loads(text)
        if not isinstance(data, dict) or data.pop("schema_version", None) != SCHEMA_VERSION:
            raise ValueError(f"not a Reading of schema version {SCHEMA_VERSION}")
        identity = {k: tuple(v) if isinstance(v, list) else v for k, v in data.pop("identity").items()}
        tables = {name: table.from_lists(data.pop(name)) for name, table in cls._tables.items()}
        outlines = {name: Outlines.from_lists(data.pop(name)) for name in ("spot_outlines", "cluster_outlines")}
        polygons = {
            name: np.array(data.pop(name), np.float32).reshape(-1, 2) for name in ("breast_outline", "pectoral_outline")
        }
        for name in ("nipple", "grey_range"):
            data[name] = tuple(data[name]) if data[name] is not None else None
        return cls(identity=Identity(**identity), **tables, **outlines, **polygons, **data)  # type: ignore[arg-type]

    @property
    def n_review(self) -> int:
        """Number of clusters flagged for review."""
        return int(np.count_nonzero(self.clusters.review))

    def __repr__(self) -> str:
        return (
            f"Reading({_named(self.identity)}, {len(self.spots)} candidates, {len(self.clusters)} clusters, "
            f"{self.n_review} to review)"
        )

    def _repr_html_(self) -> str:
        """Return a drawing and a small table, for notebooks."""
        return str(_display().reading_html(self))


def _named(identity: Identity) -> str:
    return f"{identity.side} {identity.view}".strip() or "view unknown"


def _display() -> Any:
    # By name and when it is asked for: records import nothing else of the package.
    return importlib.import_module("detector.display")
