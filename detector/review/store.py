"""Decisions of all readers in one SQLite file, which grows and never changes."""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from detector.errors import DetectorError
from detector.export.files import printable
from detector.review.decisions import COLUMNS, Decision

STORE = "decisions.sqlite"
_VERSION = 1
_WAIT_S = 30.0
_SCHEMA = f"""
CREATE TABLE decisions ({", ".join(f"{name} TEXT NOT NULL" for name in COLUMNS)}, received TEXT NOT NULL,
                        PRIMARY KEY (decision_id));
CREATE INDEX by_case ON decisions (case_id);
CREATE INDEX by_reviewer ON decisions (reviewer);
CREATE TRIGGER never_change BEFORE UPDATE ON decisions BEGIN SELECT RAISE(ABORT, 'decisions are never changed'); END;
CREATE TRIGGER never_remove BEFORE DELETE ON decisions BEGIN SELECT RAISE(ABORT, 'decisions are never removed'); END;
PRAGMA user_version = {_VERSION};
"""


class Store:
    """The decisions beside the results of a run.

    Every call opens the file anew, so that threads and processes may share it. What `add` returns is on the disk.

    Parameters
    ----------
    path : Path
        Made if missing.

    Raises
    ------
    DetectorError
        If it cannot be opened, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as file:
            (version,) = file.execute("PRAGMA user_version").fetchone()
            if version == 0:
                file.execute("BEGIN IMMEDIATE")
                if file.execute("PRAGMA user_version").fetchone() == (0,):  # nobody else has made it meanwhile
                    for statement in _statements(_SCHEMA):
                        file.execute(statement)
                file.execute("COMMIT")
            elif version != _VERSION:
                raise DetectorError(f"{printable(str(path))} was written by another version of this program")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            file = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)
        except sqlite3.Error as error:
            raise self._refused(error) from error
        try:
            file.execute("PRAGMA synchronous = FULL")
            yield file
        except sqlite3.Error as error:
            raise self._refused(error) from error
        finally:
            file.close()

    def _refused(self, error: Exception) -> DetectorError:
        return DetectorError(f"decisions cannot be kept in {printable(str(self._path))}: {error}")

    def add(self, decisions: Sequence[Decision]) -> list[str]:
        """Keep decisions, all or none; one that is there already is left as it is.

        Parameters
        ----------
        decisions : sequence of Decision

        Returns
        -------
        list of str
            Their ids.

        Raises
        ------
        DetectorError
            If the file refuses, or an id is there with other content.
        """
        received = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        names, marks = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
        with self._open() as file:
            file.execute("BEGIN IMMEDIATE")
            for decision in decisions:
                values = tuple(decision.to_mapping().values())
                file.execute(f"INSERT OR IGNORE INTO decisions VALUES ({marks}, ?)", (*values, received))
                kept = file.execute(f"SELECT {names} FROM decisions WHERE decision_id = ?", values[:1]).fetchone()
                if kept != values:
                    file.execute("ROLLBACK")
                    raise DetectorError(f"another decision with the id {decision.decision_id} is kept already")
            file.execute("COMMIT")
        return [decision.decision_id for decision in decisions]

    def all(self, case_id: str = "") -> list[tuple[Decision, str]]:
        """Return all decisions, or those on a case, each with the time it was received, in that order."""
        where, values = ("WHERE case_id = ?", (case_id,)) if case_id else ("", ())
        with self._open() as file:
            query = f"SELECT {', '.join(COLUMNS)}, received FROM decisions {where} ORDER BY received, rowid"
            return [(Decision(*row[:-1]), row[-1]) for row in file.execute(query, values)]

    def visible(self, reviewer: str, case_id: str = "") -> list[Decision]:
        """Return what a reader may see: his own decisions, and those of others on what he has decided himself.

        What others have drawn he sees once he has decided on the whole case.
        """
        kept = [decision for decision, _ in self.all(case_id)]
        own = {d.subject for d in kept if d.reviewer == reviewer and d.decision}
        cases = {d.case_id for d in kept if d.reviewer == reviewer and d.decision and d.target == "case"}
        return [
            d
            for d in kept
            if d.reviewer == reviewer or (d.case_id in cases if d.target == "missed" else d.subject in own)
        ]


def _statements(script: str) -> Iterable[str]:
    statement = ""
    for piece in script.split(";"):
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
