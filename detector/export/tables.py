"""Tables made from finished Readings: CSV by RFC 4180, and Parquet of the same columns.

A cell is empty where a value is unknown; floats have 6 significant digits; several words are joined by ``|``.
Text that a spreadsheet would run as a formula gets an apostrophe before it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.errors import ExportError, extra_missing
from detector.export.files import guarded, printable, whole_file
from detector.records import Clusters, Column, Kind, Reading, Spots, Table

_ROWS_PER_BLOCK = 20_000


def _image_column(name: str, dtype: str, unit: str, meaning: str) -> Column:
    return Column(name, dtype, unit, "batch", meaning)


_IMAGE_ID = _image_column("image_id", "U", "", "SOP Instance UID, else the sha256 of the file")

IMAGE_COLUMNS: tuple[Column, ...] = (
    _IMAGE_ID,
    _image_column("path", "U", "", "file, relative to the PATH given; unusual characters as \\x.."),
    _image_column("sha256", "U", "", "SHA-256 of the file"),
    _image_column("study_uid", "U", "", "Study Instance UID"),
    _image_column("case_id", "U", "", "from --cases, else the Study Instance UID"),
    _image_column("study_date", "U", "", "of the study, else of the image, YYYY-MM-DD"),
    _image_column("frame", "i8", "", "number of the frame, from 1; 0 if the file holds one image"),
    _image_column("side", "U", "", "L, R, B (both) or empty"),
    _image_column("view", "U", "", "CC, MLO, ML, LM, LMO, XCCL, ..."),
    _image_column("view_modifiers", "U", "", "magnification, spot compression, ... joined by |"),
    _image_column("presentation_intent", "U", "", "presentation or processing"),
    _image_column("exposure_id", "U", "", "equal for the images made of one exposure"),
    _image_column("rows", "i8", "px", "rows of the image"),
    _image_column("cols", "i8", "px", "columns of the image"),
    _image_column("spacing_mm", "f8", "mm", "side of a pixel in the breast plane; empty where sizes are unknown"),
    _image_column("spacing_source", "U", "", "where that is taken from"),
    _image_column("magnification_factor", "f8", "", "Estimated Radiographic Magnification Factor"),
    _image_column("manufacturer", "U", "", "of the device"),
    _image_column("model", "U", "", "of the device"),
    _image_column("breast_area_cm2", "f8", "cm2", "area of the breast found"),
    _image_column("n_micro", "i8", "", "microcalcifications at the operating point"),
    _image_column("n_macro", "i8", "", "macrocalcifications at the operating point"),
    _image_column("n_clusters", "i8", "", "clusters at the operating point"),
    _image_column("n_review", "i8", "", "clusters flagged for a radiologist's review"),
    _image_column("max_suspicion", "f8", "", "highest suspicion of a cluster; a ranking score, not a probability"),
    _image_column("quality", "U", "", "good, or what limits the reading, joined by |"),
    _image_column("excluded_reason", "U", "", "why the image does not count in summaries; empty if it counts"),
    _image_column("warnings", "U", "", "what is doubtful about the file, joined by |"),
)


def _chosen(table: type[Table], names: str) -> tuple[Column, ...]:
    by_name = {c.name: c for c in table.columns()}
    return (_IMAGE_ID, *(by_name[name] for name in names.split()))


SPOT_COLUMNS = _chosen(
    Spots,
    "spot_id row_px col_px diameter_mm length_mm width_mm area_mm2 contrast snr eccentricity solidity shape kind"
    " morphology confidence flags cluster_id",
)
CLUSTER_COLUMNS = _chosen(
    Clusters,
    "cluster_id row_px col_px n_spots n_irregular extent_mm area_mm2 density_per_cm2 nearest_mm size_cv"
    " shape_irregularity distribution morphology confidence suspicion review reasons suggestion",
)
ERROR_COLUMNS = (
    _image_column("path", "U", "", "file or folder, relative to the PATH given"),
    _image_column("error", "U", "", "what kind of failure, one word"),
    _image_column("message", "U", "", "what is wrong and what to do"),
)
SKIPPED_COLUMNS = (
    _image_column("path", "U", "", "file or folder, relative to the PATH given"),
    _image_column("reason", "U", "", "why it was not analysed"),
)
_ROOMS = "breast enhance detect measure classify cluster assess"
TIMING_COLUMNS = (
    _IMAGE_ID,
    _image_column("seconds", "f8", "s", "all that was done for the image, in the run that did it"),
    *(_image_column(name, "f8", "s", f"of which {name}") for name in ("read", *_ROOMS.split(), "draw", "write")),
)

Row = Sequence[str]
RowWriter = Callable[[Iterable[Row]], None]


def image_row(reading: Reading, min_confidence: float, case_id: str = "", excluded_reason: str = "") -> Row:
    """Return the cells of `IMAGE_COLUMNS` for one Reading.

    Parameters
    ----------
    reading : Reading
    min_confidence : float
        Confidence from which a spot counts (of the operating point).
    case_id, excluded_reason : str
        What is not known from the image alone.
    """
    counted = reading.spots.kind[reading.spots.confidence >= min_confidence]
    values: dict[str, Any] = dict(vars(reading.identity))
    values |= {
        "case_id": case_id or reading.identity.study_uid,
        "spacing_mm": float(np.sqrt(np.prod(reading.identity.spacing_mm))) if reading.identity.sizes_known else None,
        "breast_area_cm2": reading.breast_area_cm2,
        "n_micro": int(np.count_nonzero(counted == Kind.MICRO)),
        "n_macro": int(np.count_nonzero(counted == Kind.MACRO)),
        "n_clusters": len(reading.clusters),
        "n_review": reading.n_review,
        "max_suspicion": float(reading.clusters.suspicion.max()) if len(reading.clusters) else None,
        "quality": reading.quality,
        "excluded_reason": excluded_reason,
    }
    return [cell(values[c.name]) for c in IMAGE_COLUMNS]


def spot_rows(reading: Reading, min_confidence: float) -> Iterator[Row]:
    """Return the cells of `SPOT_COLUMNS`, one row a spot of at least this confidence, in the order of spot_id."""
    return rows_of(reading.identity.image_id, reading.spots[reading.spots.confidence >= min_confidence], SPOT_COLUMNS)


def cluster_rows(reading: Reading) -> Iterator[Row]:
    """Return the cells of `CLUSTER_COLUMNS`, one row a cluster, in the order of cluster_id."""
    return rows_of(reading.identity.image_id, reading.clusters, CLUSTER_COLUMNS)


def rows_of(image_id: str, table: Table, columns: Sequence[Column]) -> Iterator[Row]:
    """Return the cells of the columns, of which the first is image_id and the second the table's own id, its order."""
    table = table[np.argsort(getattr(table, columns[1].name), kind="stable")]
    image_ids = itertools.repeat(cell(image_id), len(table))
    return zip(image_ids, *(_cells(table, column) for column in columns[1:]), strict=True)


def _cells(table: Table, column: Column) -> list[str]:
    if column.codes is not None:
        return table.words(column.name)
    values = getattr(table, column.name).tolist()
    if column.name == "cluster_id":
        return [str(v) if v else "" for v in values]
    return [cell(v) for v in values]


def cell(value: object) -> str:
    """Return the text of a value in a table.

    Examples
    --------
    >>> [cell(v) for v in (None, True, 3, 0.123456789, float("nan"), ("a", "b"), "=1+1")]
    ['', 'true', '3', '0.123457', '', 'a|b', "'=1+1"]
    """
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value + 0.0:.6g}"  # minus zero becomes zero
    if isinstance(value, int):
        return str(value)
    text = "|".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return guarded(printable(text))


@contextlib.contextmanager
def open_csv(path: Path, columns: Sequence[Column]) -> Iterator[RowWriter]:
    """Open a CSV table for writing; an old one is replaced as a whole at the end.

    Yields
    ------
    callable
        Takes rows of cells and writes them.

    Raises
    ------
    OSError
        If the folder or the disk refuses.
    """
    with whole_file(path) as binary:
        handle = io.TextIOWrapper(binary, "utf-8", newline="")
        writer = csv.writer(handle)
        writer.writerow([c.name for c in columns])
        yield writer.writerows
        handle.detach()


@contextlib.contextmanager
def open_parquet(path: Path, columns: Sequence[Column]) -> Iterator[RowWriter]:
    """Open a Parquet table with the columns, and the values, of its CSV; else as `open_csv`.

    Raises
    ------
    ExportError
        If pyarrow is not installed.
    OSError
        If the folder or the disk refuses.
    """
    pyarrow, parquet = import_pyarrow()
    schema = pyarrow.schema([(c.name, getattr(pyarrow, _arrow_type(c))()) for c in columns])
    pending: list[Row] = []

    def flush() -> None:
        arrays = [[_typed(row[i], c) for row in pending] for i, c in enumerate(columns)]
        writer.write_table(pyarrow.table(arrays, schema=schema))
        pending.clear()

    def write(rows: Iterable[Row]) -> None:
        pending.extend(rows)
        if len(pending) >= _ROWS_PER_BLOCK:
            flush()

    with whole_file(path) as handle, parquet.ParquetWriter(handle, schema) as writer:
        yield write
        flush()


def import_pyarrow() -> tuple[Any, Any]:
    """Return the modules pyarrow and pyarrow.parquet.

    Raises
    ------
    ExportError
        If they are not installed; the message holds the line that installs them.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ExportError(extra_missing("the format parquet", "pyarrow", "parquet")) from error
    return pyarrow, pyarrow.parquet


_ARROW_TYPES: Mapping[str, str] = {"f": "float64", "i": "int64", "?": "bool_", "U": "string"}
_READERS: Mapping[str, Any] = {"f": float, "i": int, "?": "true".__eq__, "U": str}


def _arrow_type(column: Column) -> str:
    return "string" if column.codes else _ARROW_TYPES[column.dtype[0]]


def _typed(text: str, column: Column) -> object:
    if text == "":
        return None
    return text if column.codes else _READERS[column.dtype[0]](text)
