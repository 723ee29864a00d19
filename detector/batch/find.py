"""Which files a run is about: folders are searched, and what cannot be a mammogram is named, never dropped."""

from __future__ import annotations

import csv
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from detector.errors import DetectorError
from detector.export.files import check_folder, printable

PROGRAM = "microcalcification-detector"
MANIFEST = "manifest.json"
RESULT_FOLDERS = ("readings", "overlays", "crops", "report", "dicom")

_Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """A file to be read, or a thing that will not be read and why.

    `path` is absolute; `shown` is relative to the PATH given, with unusual characters escaped; `frame` is the number of
    a further frame, from 2, of a file that turned out to hold several.
    """

    path: Path
    shown: str
    size: int = 0
    mtime_ns: int = 0
    skipped: str = ""
    error: str = ""
    frame: int = 0


def find_inputs(paths: Sequence[Path], out: Path) -> list[Found]:
    """Return all that lies under the paths, in the order of the tables.

    Folders are searched to the bottom, each once, real ones before symbolic links. Left out are `out` and every other
    folder of results; hidden files and folders are skipped unless they are named themselves.

    Raises
    ------
    DetectorError
        As `check_paths` does.
    """
    check_paths(paths, out)
    found: dict[Path, Found] = {}
    own = _place(out) if out.is_dir() else None
    seen = {own} if own else set()
    for path in paths:
        root = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links out of the PATH given
        for thing in _search(root, own, seen) if root.is_dir() else [_look(root, root.parent)]:
            found.setdefault(thing.path, thing)
    return sorted(found.values(), key=lambda f: (f.shown, os.fsencode(f.path)))


def check_paths(paths: Sequence[Path], out: Path) -> None:
    """Raise if the paths cannot be searched, or the results have no place.

    Raises
    ------
    DetectorError
        If a path does not exist, or is where the results go; or if these would go to a file.
    """
    check_folder(out)
    place = out.resolve()
    for path in paths:
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists() raises for names that are too long
            raise DetectorError(f"{printable(str(path))} does not exist; give the file or folder of the mammograms")
        inside = path.resolve()
        if inside == place or any(inside.is_relative_to(place / name) for name in RESULT_FOLDERS):
            raise DetectorError(
                f"{printable(str(path))} is where the results go; give the folder of the mammograms, or another --out"
            )


def is_result_folder(folder: Path) -> bool:
    """Return whether a run of this program has left its manifest in the folder."""
    try:
        with (folder / MANIFEST).open("rb") as handle:
            manifest = json.loads(handle.read(1_000_000))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and manifest.get("program") == PROGRAM


def _place(folder: Path) -> _Place:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _search(root: Path, own: _Place | None, seen: set[_Place]) -> Iterator[Found]:
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        shown = _shown(folder, root)
        try:
            place = _place(folder)
            if place in seen:
                if folder != root and place != own:
                    yield Found(folder, shown, skipped="a folder that is searched already")
                continue
            if is_result_folder(folder):
                yield Found(folder, shown, skipped="results of an earlier run, not searched")
                continue
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name), reverse=True)
        except OSError as error:
            yield Found(folder, shown, error=f"it cannot be opened: {_why(error)}")
            continue
        seen.add(place)
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                yield Found(path, _shown(path, root), skipped="a hidden file or folder")
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_symlink() and path.is_dir():
                links.append(path)
            else:
                yield _look(path, root)


def _look(path: Path, root: Path) -> Found:
    shown = _shown(path, root)
    try:
        status = path.stat()
    except OSError as error:
        return Found(path, shown, error=f"it cannot be opened: {_why(error)}")
    if not stat.S_ISREG(status.st_mode):
        return Found(path, shown, skipped="no regular file (a pipe, socket or device)")
    return Found(path, shown, status.st_size, status.st_mtime_ns)


def _shown(path: Path, root: Path) -> str:
    relative = path.relative_to(root)
    return printable(relative.as_posix() if relative.parts else path.name)


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is a symbolic link to something that is not there"
    return printable(error.strerror or type(error).__name__).lower()


def read_map(file: Path, column: str) -> dict[str, str]:
    """Return what a CSV file with the columns ``path`` and `column` says of each path.

    Raises
    ------
    DetectorError
        If the file cannot be read, a column is missing, or a path has two values; the message names the line.
    """
    name = printable(str(file))
    values: dict[str, str] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            table = csv.DictReader(handle)
            missing = {"path", column} - set(table.fieldnames or ())
            if missing:
                raise DetectorError(
                    f"{name} has no column {' or '.join(sorted(missing))}; its first line must be path,{column}"
                )
            for row in table:
                path, value = (row["path"] or "").strip(), (row[column] or "").strip()
                if not path or not value:
                    raise DetectorError(f"{name}, line {table.line_num}: path or {column} is empty")
                if values.setdefault(os.path.normpath(path), value) != value:
                    raise DetectorError(f"{name}, line {table.line_num}: a second {column} for {printable(path)}")
    except FileNotFoundError as error:
        raise DetectorError(f"{name} does not exist; give a CSV file with the columns path,{column}") from error
    except OSError as error:
        raise DetectorError(f"{name} cannot be read: {error.strerror}; give a CSV file") from error
    except (UnicodeError, csv.Error) as error:
        raise DetectorError(f"{name} cannot be read as a CSV file in UTF-8: {printable(str(error))}") from error
    return values


def read_spacings(file: Path) -> dict[str, float]:
    """Return the pixel spacings in mm that a CSV file with the columns ``path`` and ``spacing_mm`` gives.

    Raises
    ------
    DetectorError
        As `read_map`, or if a spacing is no number of mm.
    """
    spacings: dict[str, float] = {}
    for path, text in read_map(file, "spacing_mm").items():
        try:
            spacings[path] = float(text)
        except ValueError:
            spacings[path] = math.nan
        if not 0 < spacings[path] < math.inf:
            raise DetectorError(
                f"{printable(str(file))}: spacing_mm of {printable(path)} is {printable(text)!r}, not a number over 0"
            )
    return spacings


_Value = TypeVar("_Value")


def value_of(values: Mapping[str, _Value], found: Found) -> _Value | None:
    """Return what such a file says of an image, by its path in the tables, its absolute path, or that from here."""
    return next((values[name] for name in _names(found) if name in values), None) if values else None


def unmatched(values: Mapping[str, object], found: Iterable[Found]) -> int:
    """Return how many paths of such a file are of no file that was found."""
    return len(set(values).difference(*map(_names, found))) if values else 0


def _names(found: Found) -> tuple[str, str, str]:
    return found.shown, str(found.path), os.path.relpath(found.path)
