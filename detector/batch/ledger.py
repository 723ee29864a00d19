"""What is done already: one row a file in ``ledger.sqlite``, so that a run resumes where the last one stopped.

Beside it lie the table rows made of each Reading, ready to be written: a Reading with all its candidates and outlines
takes some 30 ms to parse, its rows a fraction of one.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from detector.errors import DetectorError

ANALYSED, FAILED, SKIPPED, DUPLICATE = "analysed", "failed", "skipped", "duplicate"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What the work on a file came to, as a worker tells it and as the ledger keeps it.

    Attributes
    ----------
    status : str
        `ANALYSED`, `FAILED`, `SKIPPED`, or `DUPLICATE`: another file has the same image id and was taken.
    error, message : str
        For errors.csv; the message alone for skipped.csv.
    sha256 : str
        Of the file.
    image_id, exposure_id, presentation_intent : str
        As of `records.Identity`.
    n_frames : int
    seconds : mapping of float
    """

    status: str = FAILED
    error: str = ""
    message: str = ""
    sha256: str = ""
    image_id: str = ""
    exposure_id: str = ""
    n_frames: int = 1
    presentation_intent: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    def finished(self) -> dict[str, Any]:
        """Return these values by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(Finished)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Finished):
    """What became of one file.

    Attributes
    ----------
    key : str
        Hash of the absolute path, with the number of a further frame.
    shown : str
        Path as in the tables.
    size, mtime_ns : int
        Of the file, when it was found.
    given_spacing : str
        Spacing that was handed in, as far as the outcome depends on it.
    detection, report, tables, pictures : str
        Hashes of what detection, the saved Reading, its table rows and its pictures were made with.
    files : tuple of str
        Pictures, relative to the result folder.
    """

    key: str
    shown: str
    size: int = 0
    mtime_ns: int = 0
    given_spacing: str = ""
    detection: str = ""
    report: str = ""
    tables: str = ""
    pictures: str = ""
    files: tuple[str, ...] = ()

    def bare(self) -> Self:
        """Return the entry without what only its own row of timings.csv and its pictures need, as many may be held."""
        return dataclasses.replace(self, seconds={}, files=())

    def to_row(self) -> tuple[Any, ...]:
        """Return the values as SQLite stores them."""
        values = (getattr(self, f.name) for f in dataclasses.fields(self))
        return tuple(v if isinstance(v, (int, str)) else json.dumps(v) for v in values)

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Self:
        """Return the entry that `to_row` wrote."""
        values = dict(zip(_FIELDS, row, strict=True))
        values |= {"files": tuple(json.loads(values["files"])), "seconds": json.loads(values["seconds"])}
        # the same for most files, so kept once in memory where there are many
        values |= {name: sys.intern(values[name]) for name in _SHARED}
        return cls(**values)


_SHARED = ("status", "presentation_intent", "given_spacing", "detection", "report", "tables", "pictures")
_FIELDS = tuple(f.name for f in dataclasses.fields(Entry))


@dataclass(frozen=True, slots=True)
class Rows:
    """The cells of one image in the tables; of the image row, what depends on other images is filled in later."""

    image: list[str]
    spots: list[list[str]]
    clusters: list[list[str]]

    def pack(self) -> bytes:
        """Return the cells as the ledger keeps them."""
        return zlib.compress(json.dumps([self.image, self.spots, self.clusters]).encode(), 1)

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Return what `pack` packed."""
        return cls(*json.loads(zlib.decompress(packed)))


class Entries(Mapping[str, Entry]):
    """The entries of a ledger by key, read when they are asked for: a million would not fit into memory."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def __getitem__(self, key: str) -> Entry:
        row = self._file.execute(f"{_SELECT} WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return Entry.from_row(row)

    def __iter__(self) -> Iterator[str]:
        return (key for (key,) in self._file.execute("SELECT key FROM files"))

    def __len__(self) -> int:
        return int(self._file.execute("SELECT count(*) FROM files").fetchone()[0])

    def all(self) -> Iterator[Entry]:
        """Yield all entries; none may be changed meanwhile."""
        return map(Entry.from_row, self._file.execute(_SELECT))


_SELECT = f"SELECT {', '.join(_FIELDS)} FROM files"
_CACHE_KIB = 512


class Ledger:
    """The entries of a result folder, and their rows in the tables.

    Attributes
    ----------
    entries : Entries

    Raises
    ------
    DetectorError
        If the file is damaged or of another version.
    """

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path)
        try:
            (version,) = self._file.execute("PRAGMA user_version").fetchone()
            # a commit outlives a power cut: the journal's end is forced to the disk as well
            self._file.execute("PRAGMA synchronous = EXTRA")
            if version == 0:
                self._file.execute(f"CREATE TABLE IF NOT EXISTS files ({', '.join(_FIELDS)}, PRIMARY KEY (key))")
                self._file.execute("CREATE TABLE IF NOT EXISTS rows (key PRIMARY KEY, packed)")
                self._file.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise DetectorError(f"{path} was written by another version; use --fresh or another --out")
            self._file.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self.entries = Entries(self._file)
            next(self.entries.all(), None)
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            self._file.close()
            raise DetectorError(f"{path} is damaged; use --fresh to start again, or another --out") from error
        except BaseException:
            self._file.close()
            raise

    def put(self, entry: Entry, packed_rows: bytes = b"") -> None:
        """Add or replace an entry and its table rows; they are on disk after the next `commit`."""
        marks = ", ".join("?" * len(_FIELDS))
        self._file.execute(f"INSERT OR REPLACE INTO files ({', '.join(_FIELDS)}) VALUES ({marks})", entry.to_row())
        self._file.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (entry.key, packed_rows))

    def rows(self, key: str) -> Rows:
        """Return the table rows of an analysed file."""
        (packed,) = self._file.execute("SELECT packed FROM rows WHERE key = ?", (key,)).fetchone()
        return Rows.unpack(packed)

    def drop(self, key: str) -> None:
        """Forget an entry."""
        for table in ("files", "rows"):
            self._file.execute(f"DELETE FROM {table} WHERE key = ?", (key,))

    def commit(self) -> None:
        """Write what `put` and `drop` changed to the disk."""
        self._file.commit()

    def close(self) -> None:
        """Commit and close."""
        self._file.commit()
        self._file.close()
