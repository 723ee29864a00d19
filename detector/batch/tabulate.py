"""Tables made from saved Readings, one Reading in memory at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detector.batch.ledger import ANALYSED, DUPLICATE, FAILED, SKIPPED, Entry
from detector.export.files import reading_name
from detector.export.tables import (
    CLUSTER_COLUMNS,
    ERROR_COLUMNS,
    IMAGE_COLUMNS,
    SKIPPED_COLUMNS,
    SPOT_COLUMNS,
    TIMING_COLUMNS,
    Row,
    RowWriter,
    cell,
    cluster_rows,
    image_row,
    open_csv,
    open_parquet,
    spot_rows,
)
from detector.records import Column, Reading

_TABLES: Mapping[str, Sequence[Column]] = {
    "images": IMAGE_COLUMNS,
    "spots": SPOT_COLUMNS,
    "clusters": CLUSTER_COLUMNS,
}
TABLE_NAMES = (
    *(f"{name}.{suffix}" for name in _TABLES for suffix in ("csv", "parquet")),
    *("timings.csv", "errors.csv", "skipped.csv"),
)


@dataclass
class Totals:
    """What the tables hold, counted while they are written.

    Images that do not count in summaries (`excluded`) are left out of `review_clusters` and `flagged`.
    """

    analysed: int = 0
    failed: int = 0
    skipped: int = 0
    excluded: int = 0
    clusters: int = 0
    review_clusters: int = 0
    flagged: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TableChoice:
    """How tables are written: as CSV, as Parquet, and which confidence counts and is listed."""

    csv: bool = True
    parquet: bool = False
    counted_confidence: float = 0.5
    listed_confidence: float = 0.5


def write_tables(folder: Path, entries: Sequence[Entry], cases: Mapping[str, str], choice: TableChoice) -> Totals:
    """Write all tables of a run whole, ordered by path, then id.

    Parameters
    ----------
    folder : Path
        The result folder.
    entries : sequence of Entry
        All that the run is about.
    cases : mapping
        Case ids by the entries' keys, where they are given.
    choice : TableChoice
        A table that is there already is written anew even if not chosen, so that no two tables disagree.

    Returns
    -------
    Totals
        `damaged` holds the keys of entries whose saved Reading cannot be read; they are in errors.csv.

    Raises
    ------
    OSError
        If the folder or the disk refuses.
    """
    totals = Totals()
    analysed = sorted((e for e in entries if e.status == ANALYSED), key=lambda e: (e.shown, e.image_id))
    excluded = _excluded(analysed)
    with contextlib.ExitStack() as stack:
        images, spots, clusters = (_open(stack, folder, name, choice) for name in _TABLES)
        timings = stack.enter_context(open_csv(folder / "timings.csv", TIMING_COLUMNS))
        for entry in analysed:
            reading = _load(folder, entry)
            if reading is None:
                totals.damaged.append(entry.key)
                continue
            reason = excluded.get(entry.key, "")
            images([image_row(reading, choice.counted_confidence, cases.get(entry.key, ""), reason)])
            spots(spot_rows(reading, choice.listed_confidence))
            clusters(cluster_rows(reading))
            timings([_timing_row(entry)])
            _count(totals, reading, reason)
    _write_the_rest(folder, entries, totals)
    return totals


def _open(stack: contextlib.ExitStack, folder: Path, name: str, choice: TableChoice) -> RowWriter:
    writers: list[RowWriter] = []
    for wanted, suffix, opened in ((choice.csv, "csv", open_csv), (choice.parquet, "parquet", open_parquet)):
        path = folder / f"{name}.{suffix}"
        if wanted or path.exists():
            writers.append(stack.enter_context(opened(path, _TABLES[name])))

    def write(rows: Iterable[Row]) -> None:
        rows = list(rows)
        for writer in writers:
            writer(rows)

    return write


def _load(folder: Path, entry: Entry) -> Reading | None:
    try:
        reading = Reading.from_json((folder / reading_name(entry.image_id)).read_text("utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return reading if reading.identity.sha256 == entry.sha256 else None


def _excluded(analysed: Sequence[Entry]) -> dict[str, str]:
    """Return why images do not count: of one exposure the first image counts, FOR PRESENTATION before others."""
    counts: dict[str, Entry] = {}
    for entry in sorted(analysed, key=lambda e: e.presentation_intent != "FOR PRESENTATION"):
        if entry.exposure_id:
            counts.setdefault(entry.exposure_id, entry)
    return {
        e.key: f"same exposure as {counts[e.exposure_id].image_id}, which counts"
        for e in analysed
        if e.exposure_id and counts[e.exposure_id] is not e
    }


def _timing_row(entry: Entry) -> Row:
    rooms = [entry.seconds.get(c.name) for c in TIMING_COLUMNS[2:]]
    return [cell(entry.image_id), cell(sum(entry.seconds.values())), *map(cell, rooms)]


def _count(totals: Totals, reading: Reading, excluded: str) -> None:
    totals.analysed += 1
    if excluded:
        totals.excluded += 1
        return
    totals.clusters += len(reading.clusters)
    totals.review_clusters += reading.n_review
    if reading.n_review:
        totals.flagged.append(reading.identity.path)


def _write_the_rest(folder: Path, entries: Sequence[Entry], totals: Totals) -> None:
    errors, skipped = list[Row](), list[Row]()
    taken = {e.image_id: e for e in entries if e.status == ANALYSED}
    damaged = set(totals.damaged)
    for entry in sorted(entries, key=lambda e: (e.shown, e.image_id)):
        if entry.status == SKIPPED:
            skipped.append([cell(entry.shown), cell(entry.message)])
        elif entry.status == FAILED:
            errors.append([cell(entry.shown), cell(entry.error), cell(entry.message)])
        elif entry.key in damaged:
            message = "its saved reading is damaged; run the same command again"
            errors.append([cell(entry.shown), "DamagedReading", message])
        elif entry.status == DUPLICATE:
            first = taken.get(entry.image_id)
            if first is None:
                message = (
                    "the file taken before it, of the same SOP Instance UID, has failed; run the same command again"
                )
                errors.append([cell(entry.shown), "UIDReused", message])
            elif first.sha256 == entry.sha256:
                skipped.append(
                    [cell(entry.shown), cell(f"duplicate of {first.shown}: same SOP Instance UID, same bytes")]
                )
            else:
                message = f"{first.shown} has the same SOP Instance UID and other bytes; give each image its own UID"
                errors.append([cell(entry.shown), "UIDReused", cell(message)])
    for name, columns, rows in (("errors", ERROR_COLUMNS, errors), ("skipped", SKIPPED_COLUMNS, skipped)):
        with open_csv(folder / f"{name}.csv", columns) as write:
            write(rows)
    totals.failed, totals.skipped = len(errors), len(skipped)
