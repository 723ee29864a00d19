"""Tables of findings, ours or of another program, and what reading tables needs."""

from __future__ import annotations

import csv
import enum
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from detector.errors import ReadError
from detector.evaluate.truth import Findings, ImageTruth, Pair
from detector.records import WORDS, Clusters, Column, Spots, Table, words_of_flags

_AnyTable = TypeVar("_AnyTable", bound=Table)
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


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
        for image_id, group in grouped((names.get(r["image_id"], r["image_id"]), r) for r in rows).items():
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


def grouped(items: Iterable[tuple[_Key, _Value]]) -> dict[_Key, list[_Value]]:
    """Return the values of each key, keys in the order in which they first come."""
    groups: dict[_Key, list[_Value]] = {}
    for key, value in items:
        groups.setdefault(key, []).append(value)
    return groups


def is_there(path: Path, *, skip_missing: bool) -> bool:
    """Tell whether a listed file is there.

    Raises
    ------
    ReadError
        If it is missing and is not to be passed over.
    """
    if path.exists() or skip_missing:
        return path.exists()
    raise ReadError(f"{path} is listed but missing: complete the download, or pass over missing images")
