"""What a reader has decided, and ``decisions.csv``, by which decisions travel."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from detector.errors import DetectorError
from detector.export.files import guarded, printable, unguarded, whole_file

WORDS: Mapping[str, tuple[str, ...]] = {
    "cluster": ("accept", "reject", "unsure", ""),
    "case": ("yes", "no", "unsure", ""),
    "missed": ("added", "withdrawn"),
}
"""What can be decided of each target; nothing is a comment alone."""

_LONGEST: Mapping[str, int] = {"reviewer": 60, "version": 200, "case_id": 500, "image_id": 500, "comment": 2000}
_ID = re.compile(r"[0-9a-f]{8,64}")
_CLUSTER = re.compile(r"[0-9]{1,9}|m[0-9a-f]{1,32}")


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of one reader; the fields are the columns of ``decisions.csv``, all text.

    Attributes
    ----------
    decision_id : str
        Hexadecimal, chosen by the page; tells a repeat from a second decision.
    time : str
        When the reader decided, ISO 8601.
    reviewer : str
        Name as given; nobody checks it.
    version : str
        Program and settings that the findings shown were made with.
    case_id, image_id : str
    target : str
        ``cluster``, ``case``, or ``missed``: a cluster that the reader has drawn.
    cluster_id : str
        As in clusters.csv; of a missed one a name that the page has chosen.
    row_px, col_px, radius_px : str
        Place of the cluster as in clusters.csv, or of the circle drawn.
    decision : str
        Of `WORDS`.
    comment : str
    blind : str
        ``true`` if findings were hidden.
    """

    decision_id: str
    time: str
    reviewer: str
    version: str
    case_id: str
    image_id: str
    target: str
    cluster_id: str
    row_px: str
    col_px: str
    radius_px: str
    decision: str
    comment: str
    blind: str

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the decision that a page or a file gives.

        Raises
        ------
        DetectorError
            If it is none; the message names the field.
        """
        fields = {}
        for name in COLUMNS:
            value = values.get(name)
            if not isinstance(value, str):
                raise DetectorError(f"a decision needs the text {name}")
            fields[name] = value
        decision = cls(**fields)
        wrong = next((name for name, fine in decision._checks() if not fine), "")
        if wrong:
            raise DetectorError(f"{wrong} of a decision is {printable(fields[wrong])[:100]!r}, which is not allowed")
        return decision

    def _checks(self) -> Iterable[tuple[str, bool]]:
        yield "decision_id", bool(_ID.fullmatch(self.decision_id))
        yield "time", _is_time(self.time)
        yield "reviewer", bool(self.reviewer) and self.reviewer == self.reviewer.strip() and self.reviewer.isprintable()
        for name, longest in _LONGEST.items():
            yield name, len(getattr(self, name)) <= longest
        yield "case_id", bool(self.case_id)
        yield "target", self.target in WORDS
        yield "decision", self.decision in WORDS[self.target]
        yield "image_id", bool(self.image_id) != (self.target == "case")
        yield "cluster_id", self.target == "case" or bool(_CLUSTER.fullmatch(self.cluster_id))
        for name in ("row_px", "col_px", "radius_px"):
            yield name, _is_number(getattr(self, name))
        yield "blind", self.blind in ("true", "false")

    @property
    def subject(self) -> str:
        """What the decision is about; a cluster is told by its place too, as other settings number clusters anew."""
        if self.target == "case":
            return f"case|{self.case_id}|{self.blind}"
        place = f"|{self.row_px}|{self.col_px}" if self.target == "cluster" else ""
        return f"{self.target}|{self.image_id}|{self.cluster_id}{place}"

    def to_mapping(self) -> dict[str, str]:
        """Return the fields by name."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS = tuple(f.name for f in dataclasses.fields(Decision))


def _is_time(text: str) -> bool:
    try:
        return len(text) <= 40 and datetime.datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_number(text: str) -> bool:
    try:
        return text == "" or (len(text) <= 30 and math.isfinite(float(text)))
    except ValueError:
        return False


def to_csv(decisions: Iterable[Decision]) -> str:
    """Return decisions as CSV by RFC 4180; what a spreadsheet would run as a formula gets an apostrophe before it."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for decision in decisions:
        writer.writerow(map(guarded, decision.to_mapping().values()))
    return out.getvalue()


def write_decisions(file: Path, decisions: Iterable[Decision]) -> None:
    """Write ``decisions.csv`` whole.

    Raises
    ------
    DetectorError
        If it cannot be written.
    """
    try:
        with whole_file(file) as handle:
            handle.write(to_csv(decisions).encode())
    except OSError as error:
        raise DetectorError(f"{printable(str(file))} cannot be written: {error.strerror}") from error


def read_decisions(file: Path) -> list[Decision]:
    """Return the decisions of a ``decisions.csv``.

    Raises
    ------
    DetectorError
        If it cannot be read, or a line is no decision; the message names the line.
    """
    name = printable(str(file))
    decisions = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            table = csv.DictReader(handle, restval="")
            for row in table:
                try:
                    values = {key: unguarded(value) for key, value in row.items() if isinstance(value, str)}
                    decisions.append(Decision.of(values))
                except DetectorError as error:
                    raise DetectorError(f"{name}, line {table.line_num}: {error}") from error
    except (OSError, UnicodeError, csv.Error) as error:
        raise DetectorError(f"{name} cannot be read as a CSV file in UTF-8: {printable(str(error))}") from error
    return decisions
