"""Tables of a run, put together from the rows of its images, one image in memory at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detector.batch.ledger import ANALYSED, DUPLICATE, FAILED, SKIPPED, Entry, Ledger, Rows
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
    open_csv,
    open_parquet,
)
from detector.records import Column

_TABLES: Mapping[str, Sequence[Column]] = {
    "images": IMAGE_COLUMNS,
    "spots": SPOT_COLUMNS,
    "clusters": CLUSTER_COLUMNS,
}
_IMAGE_NAMES = tuple(c.name for c in IMAGE_COLUMNS)
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


@dataclass(frozen=True)
class Notes:
    """What is known of images from elsewhere, by the entries' keys: case ids that are given, further warnings."""

    cases: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write_tables(
    folder: Path, ledger: Ledger, entries: Sequence[Entry], notes: Notes, formats: Collection[str]
) -> Totals:
    """Write all tables of a run whole, ordered by path, then id.

    Parameters
    ----------
    folder : Path
        The result folder.
    ledger : Ledger
        Holds the rows of the images.
    entries : sequence of Entry
        All that the run is about, bare or whole.
    notes : Notes
    formats : collection of str
        Of ``csv`` and ``parquet``; a table that is there already is written anew in any case, so that no two disagree.

    Raises
    ------
    OSError
        If the folder or the disk refuses.
    """
    totals = Totals()
    analysed = sorted((e for e in entries if e.status == ANALYSED), key=lambda e: (e.shown, e.image_id))
    excluded = excluded_images(analysed)
    with contextlib.ExitStack() as stack:
        images, spots, clusters = (_open(stack, folder, name, formats) for name in _TABLES)
        timings = stack.enter_context(open_csv(folder / "timings.csv", TIMING_COLUMNS))
        for entry in analysed:
            rows = ledger.rows(entry.key)
            image = image_cells(entry.key, rows, excluded, notes)
            images([list(image.values())])
            spots(rows.spots)
            clusters(rows.clusters)
            timings([_timing_row(ledger.entries[entry.key])])
            _count(totals, image)
    _write_the_rest(folder, entries, totals)
    return totals


def image_cells(key: str, rows: Rows, excluded: Mapping[str, str], notes: Notes) -> dict[str, str]:
    """Return the cells of an image's row by column, with what depends on other images and on the run filled in."""
    image = dict(zip(_IMAGE_NAMES, rows.image, strict=True))
    image["excluded_reason"] = cell(excluded.get(key))
    image["case_id"] = cell(notes.cases.get(key)) or image["case_id"]
    image["warnings"] = "|".join(filter(None, (image["warnings"], *map(cell, notes.warnings.get(key, ())))))
    return image


def _open(stack: contextlib.ExitStack, folder: Path, name: str, formats: Collection[str]) -> RowWriter:
    writers: list[RowWriter] = []
    for suffix, opened in (("csv", open_csv), ("parquet", open_parquet)):
        path = folder / f"{name}.{suffix}"
        if suffix in formats or path.exists():
            writers.append(stack.enter_context(opened(path, _TABLES[name])))

    def write(rows: Iterable[Row]) -> None:
        rows = list(rows)
        for writer in writers:
            writer(rows)

    return write


def excluded_images(analysed: Sequence[Entry]) -> dict[str, str]:
    """Return why images do not count: of one exposure the first image counts, that for presentation before others."""
    counts: dict[str, Entry] = {}
    for entry in sorted(analysed, key=lambda e: e.presentation_intent != "presentation"):
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


def _count(totals: Totals, image: Mapping[str, str]) -> None:
    totals.analysed += 1
    if image["excluded_reason"]:
        totals.excluded += 1
        return
    totals.clusters += int(image["n_clusters"])
    totals.review_clusters += int(image["n_review"])
    if image["n_review"] != "0":
        totals.flagged.append(image["path"])


def _write_the_rest(folder: Path, entries: Sequence[Entry], totals: Totals) -> None:
    errors, skipped = list[Row](), list[Row]()
    taken = {e.image_id: e for e in entries if e.status == ANALYSED}
    for entry in sorted(entries, key=lambda e: (e.shown, e.image_id)):
        if entry.status == SKIPPED:
            skipped.append([cell(entry.shown), cell(entry.message)])
        elif entry.status == FAILED:
            errors.append([cell(entry.shown), cell(entry.error), cell(entry.message)])
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
